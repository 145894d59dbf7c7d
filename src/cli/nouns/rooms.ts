/** room create, rename, delete, quota, history, members. @module */
import { option } from '../options/option.ts'
import { REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'
import { PAPER } from './keys-rescue.ts'

const load = () => import('../commands/rooms.ts')

export const ROOM: CommandSpec = {
  name: 'room',
  summary: 'rooms and their members',
  group: 'rooms',
  examples: [
    ['room create /room', 'encrypted'],
    ['room members /room --add bob:read --add group:staff', ''],
    ['room members /room --csv', 'for a table'],
    ['room quota /room 10G', ''],
  ],
  commands: [
    {
      name: 'create',
      arguments: '<path>',
      summary: 'make a room: /NAME an encrypted one, /ROOM/NAME one that is as the room it is in',
      options: [
        ...REMOTE,
        option('--plain', 'without encryption'),
        option(
          '--own-members',
          'of a room in a room: nobody but you at first, instead of the members of the room above',
        ),
        option('--rescue <key>', 'give it a rescue key: a new one on paper, or that of the system', {
          choices: ['paper', 'system'],
        }),
        ...PAPER,
      ],
      action: async () => (await load()).create,
    },
    {
      name: 'rename',
      arguments: '<path> <name>',
      takes: ['remote', 'none'],
      summary: 'give a room another name',
      options: REMOTE,
      action: async () => (await load()).rename,
    },
    {
      name: 'delete',
      arguments: '<path>',
      summary: 'delete a room for good, with all that is in it',
      options: [...REMOTE, option('--force', 'without asking')],
      action: async () => (await load()).remove,
    },
    {
      name: 'quota',
      arguments: '<path> [size]',
      takes: ['remote', 'none'],
      summary: 'show what a room may hold, or set it: 10G, or none',
      options: REMOTE,
      action: async () => (await load()).quota,
    },
    {
      name: 'history',
      arguments: '<path>',
      summary: 'say what was done in a room, as the server has noted it',
      options: [
        ...REMOTE,
        option('--limit <n>', 'how many (default 50)'),
        option('--since <time>', 'only of the last 24h, 7d, …'),
      ],
      action: async () => (await load()).history,
    },
    {
      name: 'members',
      arguments: '<path>',
      summary: 'list, add or remove members: users and groups',
      options: [
        ...REMOTE,
        option('--add <who>', 'add a user, or group:NAME; with a role as NAME:read (may be repeated)', {
          repeats: true,
        }),
        option(
          '--role <role>',
          'what they may do who are added without one; append: read and add, but replace and delete nothing; upload: only add',
          { choices: ['read', 'upload', 'append', 'edit', 'admin'], fallback: 'edit' },
        ),
        option('--append-only', 'the same as --role append'),
        option('--remove <who>', 'remove a user, or group:NAME (may be repeated)', { repeats: true }),
        option('--import <file>', 'add those in a CSV file: type,name,role in its first line (- for standard input)'),
        option('--exact', 'with --import: remove everybody else'),
        option('--csv', 'print them as CSV'),
      ],
      action: async () => (await load()).members,
    },
  ],
}
