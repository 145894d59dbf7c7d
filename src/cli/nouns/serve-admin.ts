/** serve user, group, room, client, stats, gc, audit: the embedded server is administered. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { COMMON } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/serve-admin.ts')

/** Which server it is. */
export const WHERE: readonly OptionSpec[] = [
  ...COMMON,
  option('--data <dir>', 'directory of the server'),
  option('--server-config <file>', 'TOML file with options of serve, among them data'),
]

const PASSWORD: readonly OptionSpec[] = [
  option('--password-file <file>', 'file that holds the password'),
  option('--password-to <file>', 'make a password, and write it into this file'),
]

const USER: CommandSpec = {
  name: 'user',
  summary: 'accounts of the embedded server, also while it runs',
  commands: [
    { name: 'list', summary: 'all accounts', options: WHERE, action: async () => (await load()).userList },
    {
      name: 'show',
      arguments: '<name>',
      takes: ['none'],
      summary: 'what an account has: groups, rooms, space, logins',
      options: WHERE,
      action: async () => (await load()).userShow,
    },
    {
      name: 'add',
      arguments: '<name>',
      summary: 'make an account',
      options: [
        ...WHERE,
        ...PASSWORD,
        option(
          '--one-time-codes <file>',
          'also ask for one-time codes; the address for an authenticator app goes into this file',
        ),
        option('--admin', 'may look after users, groups and the event log through the API'),
      ],
      action: async () => (await load()).userAdd,
    },
    {
      name: 'passwd',
      arguments: '<name>',
      takes: ['none'],
      summary: 'give an account another password; its logins end',
      options: [...WHERE, ...PASSWORD],
      action: async () => (await load()).userPassword,
    },
    {
      name: 'disable',
      arguments: '<name>',
      takes: ['none'],
      summary: 'lock an account out at once; nothing is lost',
      options: WHERE,
      action: async () => (await load()).userDisable,
    },
    {
      name: 'enable',
      arguments: '<name>',
      takes: ['none'],
      summary: 'let a disabled account log in again',
      options: WHERE,
      action: async () => (await load()).userEnable,
    },
    {
      name: 'admin',
      arguments: '<name> <state>',
      takes: ['none'],
      summary: 'make an account an administrator of the API, or not: on or off',
      options: WHERE,
      action: async () => (await load()).userAdmin,
    },
    {
      name: 'quota',
      arguments: '<name> [size]',
      takes: ['none'],
      summary: 'show how much an account may store, or set it: 10G, or none',
      options: WHERE,
      action: async () => (await load()).userQuota,
    },
    {
      name: 'remove',
      arguments: '<name>',
      takes: ['none'],
      summary: 'remove an account; its files stay',
      options: [
        ...WHERE,
        option('-n, --dry-run', 'only say which files would become unreadable, and which rooms nobody would manage'),
        option('--force', 'even so'),
      ],
      action: async () => (await load()).userRemove,
    },
  ],
}

const GROUP: CommandSpec = {
  name: 'group',
  summary: 'groups of accounts of the embedded server, also while it runs',
  commands: [
    { name: 'list', summary: 'all groups', options: WHERE, action: async () => (await load()).groupList },
    {
      name: 'add',
      arguments: '<name> <users...>',
      takes: ['none'],
      summary: 'make a group of accounts, or add accounts to one',
      options: WHERE,
      action: async () => (await load()).groupAdd,
    },
    {
      name: 'members',
      arguments: '<name>',
      takes: ['none'],
      summary: 'list the members of a group, add or remove some',
      options: [
        ...WHERE,
        option('--add <user>', 'add an account (may be repeated)', { repeats: true }),
        option('--remove <user>', 'take an account out (may be repeated)', { repeats: true }),
      ],
      action: async () => (await load()).groupMembers,
    },
    {
      name: 'remove',
      arguments: '<name>',
      takes: ['none'],
      summary: 'remove a group; its members stay',
      options: WHERE,
      action: async () => (await load()).groupRemove,
    },
  ],
}

const ROOM: CommandSpec = {
  name: 'room',
  summary: 'rooms of the embedded server, also while it runs',
  commands: [
    { name: 'list', summary: 'all rooms', options: WHERE, action: async () => (await load()).roomList },
    {
      name: 'owner',
      arguments: '<path> <user>',
      takes: ['none'],
      summary: 'make an account the administrator of a room; keys of its files come from those who have them',
      options: WHERE,
      action: async () => (await load()).roomOwner,
    },
    {
      name: 'quota',
      arguments: '<path> <size>',
      takes: ['none'],
      summary: 'set how much a room may hold: 10G, or none',
      options: WHERE,
      action: async () => (await load()).roomQuota,
    },
    {
      name: 'recycle-period',
      arguments: '<path> <days>',
      takes: ['none'],
      summary: 'set for how many days a room keeps deleted files: 0 for ever',
      options: WHERE,
      action: async () => (await load()).roomRecyclePeriod,
    },
  ],
}

const CLIENT: CommandSpec = {
  name: 'client',
  summary: 'OAuth clients of other programs at the embedded server, also while it runs',
  commands: [
    { name: 'list', summary: 'all clients', options: WHERE, action: async () => (await load()).clientList },
    {
      name: 'add',
      arguments: '<id>',
      takes: ['none'],
      summary: 'make a client; its secret is made, and shown this once',
      options: [
        ...WHERE,
        option('--title <text>', 'what people are told who logs in'),
        option('--redirect-uri <uri>', 'where answers may be sent (may be repeated)', { repeats: true }),
        option('--grant <grant>', 'what it may use (may be repeated; default authorization_code and refresh_token)', {
          repeats: true,
        }),
        option('--public', 'without a secret, with PKCE: for programs that cannot keep one'),
        option('--secret-file <file>', 'file that holds the secret, in place of a fresh one'),
        option('--secret-to <file>', 'write the fresh secret into this file instead of showing it'),
      ],
      action: async () => (await load()).clientAdd,
    },
    {
      name: 'remove',
      arguments: '<id>',
      takes: ['none'],
      summary: 'remove a client; its logins end',
      options: WHERE,
      action: async () => (await load()).clientRemove,
    },
  ],
}

export const SERVE_ADMIN: readonly CommandSpec[] = [
  USER,
  GROUP,
  ROOM,
  CLIENT,
  {
    name: 'stats',
    summary: 'what the server holds, in numbers; also while it runs',
    options: WHERE,
    action: async () => (await load()).stats,
  },
  {
    name: 'audit',
    summary: 'who did what, oldest first; also while it runs',
    options: [
      ...WHERE,
      option('--since <time>', 'only of the last 24h, 7d, …'),
      option('--user <name>', 'only what this account did'),
      option('--operation <name>', 'only this: file.delete, user.login, …'),
      option('--csv', 'print them as CSV'),
    ],
    action: async () => (await load()).auditLog,
  },
]
