/** ls, tree, find, du, stat, cat, about, mkdir, rm, mv, cp: looking at the server and changing single things there. @module */
import { option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { KEEP_SHARE_LINKS, KEY_PASSWORD, LINK_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec, Example } from './command.ts'
import { ROOM } from './rooms.ts'
import { TRASH } from './trash.ts'

const look = () => import('../commands/look.ts')
const arrange = () => import('../commands/arrange.ts')

const LONG = option('-l, --long', 'with kind, encryption, size and time')
const HUMAN = option('-h, --human', 'sizes as 1.5 MB')

const arrangement = (name: 'mv' | 'cp', summary: string, examples: readonly Example[]): CommandSpec => ({
  name,
  group: 'files',
  takes: ['remote'],
  examples,
  arguments: '<paths...>',
  usage: 'SOURCE... TARGET',
  argumentNote: 'SOURCE... TARGET',
  summary,
  options: [...REMOTE, ...KEY_PASSWORD, ...settings('on-conflict', 'trust-new-members'), KEEP_SHARE_LINKS],
  action: async () => (await arrange())[name],
})

export const ON_SERVER: readonly CommandSpec[] = [
  ROOM,
  {
    name: 'ls',
    arguments: '[paths...]',
    summary: 'list rooms and folders',
    group: 'files',
    takes: ['remote'],
    examples: [
      ['ls', 'the rooms'],
      ['ls -lh /room/photos', ''],
      ["ls -R --sort time '/room/*/reports'", 'the newest first'],
    ],
    options: [
      ...REMOTE,
      LONG,
      HUMAN,
      option('-R, --recursive', 'with all that is below'),
      option('--sort <by>', 'largest or newest first, or by name', { choices: ['size', 'time', 'name'] }),
      option('-r, --reverse', 'the other way round'),
    ],
    action: async () => (await look()).ls,
  },
  {
    name: 'tree',
    arguments: '[path]',
    summary: 'show what is in a room or folder as a tree',
    group: 'files',
    examples: [
      ['tree /room', ''],
      ['tree /room -L 2 --dirs-only', 'two levels of folders'],
    ],
    options: [
      ...REMOTE,
      HUMAN,
      option('-L, --depth <n>', 'so many levels at most'),
      option('-d, --dirs-only', 'rooms and folders only'),
    ],
    action: async () => (await look()).tree,
  },
  {
    name: 'find',
    arguments: '<name> [path]',
    summary: 'find things by name (*.pdf), size, time or type',
    group: 'files',
    takes: ['none', 'remote'],
    examples: [
      ["find '*.pdf' /room", ''],
      ["find '*' /room --larger 100M --older 365d -l", 'what could be removed'],
    ],
    options: [
      ...REMOTE,
      LONG,
      HUMAN,
      option('--type <type>', 'only of this type', { choices: ['file', 'folder', 'room', 'f', 'd', 'r'] }),
      option('--larger <size>', 'only files above this size, such as 100M'),
      option('--smaller <size>', 'only files below this size'),
      option('--newer <when>', 'only what was modified since: 7d ago, or 2026-01-31'),
      option('--older <when>', 'only what was modified before'),
    ],
    action: async () => (await look()).find,
  },
  {
    name: 'du',
    arguments: '[paths...]',
    summary: 'say how much rooms and folders hold',
    group: 'files',
    takes: ['remote'],
    examples: [
      ['du -sh /room', ''],
      ['du -h --depth 1 /room', 'each folder in it'],
    ],
    options: [
      ...REMOTE,
      HUMAN,
      option('-s, --summarize', 'only the sum of each path'),
      option('-d, --depth <n>', 'only so many levels below it'),
    ],
    action: async () => (await look()).du,
  },
  {
    name: 'about',
    arguments: '[path]',
    summary: 'show server, account and free space, and what a room may hold',
    group: 'rooms',
    examples: [
      ['about', ''],
      ['about /room', ''],
    ],
    options: REMOTE,
    action: async () => (await look()).about,
  },
  {
    name: 'mkdir',
    arguments: '<path>',
    summary: 'make a folder',
    group: 'files',
    examples: [
      ['mkdir /room/photos', ''],
      ['mkdir -p /room/photos/2026/may', 'with those above it'],
    ],
    options: [...REMOTE, option('-p, --parents', 'also the folders above; no error if it exists')],
    action: async () => (await arrange()).mkdir,
  },
  arrangement('mv', 'move or rename files and folders at the server', [
    ['mv /room/a.txt /room/b.txt', 'another name'],
    ['mv /room/a.txt /room/b.txt /room/archive', 'into a folder that is there'],
  ]),
  arrangement('cp', 'copy files and folders at the server', [
    ['cp /room/template /room/project', ''],
    ['cp /room/a.txt /other --on-conflict overwrite', 'into another room'],
  ]),
  {
    name: 'rm',
    arguments: '<path...>',
    summary: 'delete files (they go to the recycle bin)',
    group: 'files',
    examples: [
      ['rm /room/old.txt /room/older.txt', ''],
      ['rm -r /room/photos', 'with all that it holds'],
    ],
    options: [
      ...REMOTE,
      option('-r, --recursive', 'also rooms and folders with all they hold'),
      option('--force', 'also rooms'),
    ],
    action: async () => (await arrange()).rm,
  },
  {
    name: 'stat',
    arguments: '<path>',
    summary: 'show everything about a room, folder or file',
    group: 'files',
    examples: [
      ['stat /room/photos/a.jpg', ''],
      ['stat --json /room', 'for programs'],
    ],
    options: REMOTE,
    action: async () => (await look()).stat,
  },
  {
    name: 'cat',
    arguments: '<paths...>',
    summary: 'print files, each after checking all of it',
    group: 'files',
    takes: ['remote'],
    examples: [
      ['cat /room/notes.txt', ''],
      ["cat '/room/logs/*.txt' --key-password-file key.txt", 'without anybody there'],
    ],
    options: [...REMOTE, ...KEY_PASSWORD, ...LINK_PASSWORD, ...settings('key-cache', 'require-encryption')],
    action: async () => (await import('../commands/pipes.ts')).cat,
  },
  ...TRASH,
]
