/** room, ls, mkdir, rm, stat, cat: looking at the server and changing single things there. @module */
import { option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { KEY_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/remote.ts')

const ROOM: CommandSpec = {
  name: 'room',
  summary: 'rooms and their members',
  commands: [
    {
      name: 'create',
      arguments: '<path>',
      summary: 'make an encrypted room: /NAME',
      options: [...REMOTE, option('--plain', 'without encryption')],
      action: async () => (await load()).roomCreate,
    },
    {
      name: 'members',
      arguments: '<path>',
      summary: 'list, add or remove members',
      options: [
        ...REMOTE,
        option('--add <user>', 'add a user'),
        option('--role <role>', 'what the added user may do', {
          choices: ['read', 'edit', 'admin'],
          fallback: 'edit',
        }),
        option('--remove <user>', 'remove a user'),
      ],
      action: async () => (await load()).roomMembers,
    },
  ],
}

export const ON_SERVER: readonly CommandSpec[] = [
  ROOM,
  {
    name: 'ls',
    arguments: '[path]',
    summary: 'list a room or folder',
    options: [...REMOTE, option('-l, --long', 'with kind, encryption, size and time')],
    action: async () => (await load()).ls,
  },
  {
    name: 'mkdir',
    arguments: '<path>',
    summary: 'make a folder',
    options: [...REMOTE, option('-p, --parents', 'also the folders above; no error if it exists')],
    action: async () => (await load()).mkdir,
  },
  {
    name: 'rm',
    arguments: '<path...>',
    summary: 'delete files (they go to the recycle bin)',
    options: [
      ...REMOTE,
      option('-r, --recursive', 'also rooms and folders with all they hold'),
      option('--force', 'also rooms'),
    ],
    action: async () => (await load()).rm,
  },
  {
    name: 'stat',
    arguments: '<path>',
    summary: 'show everything about a room, folder or file',
    options: REMOTE,
    action: async () => (await load()).stat,
  },
  {
    name: 'cat',
    arguments: '<path>',
    summary: 'print a file after checking all of it',
    options: [...REMOTE, ...KEY_PASSWORD, ...settings('key-cache')],
    action: async () => (await load()).cat,
  },
]
