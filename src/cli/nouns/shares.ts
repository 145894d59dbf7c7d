/** share and request: links for people without an account. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { COMMON, CONNECTION, KEY_PASSWORD, LINK_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/shares.ts')

const PASSWORD: readonly OptionSpec[] = [
  ...LINK_PASSWORD,
  option('--generate-password', 'make a password, and print it once'),
  option('--ask-password', 'ask for a password at the terminal'),
]

const NEW: readonly OptionSpec[] = [
  ...PASSWORD,
  option('--split', 'print link and password apart, to be sent in two ways'),
  option('--expires <when>', 'end after 7d, or at 2026-12-31'),
  option('--name <name>', 'what it is called to who opens it'),
  option('--notes <text>', 'shown to who opens it'),
  option('--notify', 'have the server tell you of each use'),
]

const CHANGED: readonly OptionSpec[] = [
  ...PASSWORD,
  option('--no-password', 'it takes none any more'),
  option('--expires <when>', 'end after 7d, at 2026-12-31, or never'),
  option('--name <name>', 'what it is called to who opens it'),
  option('--notes <text>', 'shown to who opens it'),
  option('--notify', 'have the server tell you of each use'),
  option('--no-notify', 'do not'),
]

export const SHARE: CommandSpec = {
  name: 'share',
  summary: 'links by which somebody without an account gets a file',
  group: 'files',
  examples: [
    ['share create /room/report.pdf --generate-password --expires 7d', 'the password is printed once'],
    ['share create /room/photos --each --password-file pw.txt', 'a link for each file, one password'],
    ['share revoke /room/report.pdf', ''],
    ['share info https://files.example.org/public/download-shares/KEY', 'what is behind a link; no account needed'],
  ],
  commands: [
    {
      name: 'create',
      arguments: '<paths...>',
      takes: ['remote'],
      summary: 'make a link: to a file, or to an archive of a folder or room that is not encrypted',
      options: [
        ...REMOTE,
        ...KEY_PASSWORD,
        ...settings('require-encryption'),
        ...NEW,
        option('--max-downloads <n>', 'it may be used so often'),
        option('--each', 'of a folder or room, a link for each file'),
        option('-n, --dry-run', 'only say what would be shared'),
      ],
      action: async () => (await load()).create,
    },
    {
      name: 'list',
      arguments: '[path]',
      summary: 'list links, all of them or those of one path',
      options: REMOTE,
      action: async () => (await load()).list,
    },
    {
      name: 'show',
      arguments: '<share>',
      takes: ['remote'],
      summary: 'show a link: by itself, by its id, or by the path that it shares',
      options: REMOTE,
      action: async () => (await load()).show,
    },
    {
      name: 'update',
      arguments: '<share>',
      takes: ['remote'],
      summary: 'change a link',
      options: [
        ...REMOTE,
        ...CHANGED,
        option('--max-downloads <n>', 'it may be used so often, or none: without a limit'),
      ],
      action: async () => (await load()).update,
    },
    {
      name: 'revoke',
      arguments: '<shares...>',
      takes: ['remote'],
      summary: 'end links; what they share stays',
      options: REMOTE,
      action: async () => (await load()).revoke,
    },
    {
      name: 'mail-text',
      arguments: '<share>',
      takes: ['remote'],
      summary: 'print a letter with the link in it, and without the password',
      options: REMOTE,
      action: async () => (await load()).mailText,
    },
    {
      name: 'trust',
      arguments: '<share>',
      takes: ['remote'],
      summary: 'let a link that was made elsewhere stay with new versions, by its password (see --keep-share-links)',
      options: [...REMOTE, ...LINK_PASSWORD],
      action: async () => (await load()).trust,
    },
    {
      name: 'info',
      arguments: '<link>',
      takes: ['none'],
      summary: 'say what is behind a link, or what a file request wants; no account needed',
      options: [...COMMON, ...CONNECTION, ...LINK_PASSWORD],
      action: async () => (await import('../commands/links.ts')).info,
    },
  ],
}

export const REQUEST: CommandSpec = {
  name: 'request',
  summary: 'links by which anybody can send you files, without an account',
  group: 'files',
  examples: [
    ['request create /room/inbox --expires 14d --max-files 20', ''],
    ['request show /room/inbox', 'with what has come, and when'],
    ['request revoke /room/inbox', ''],
  ],
  commands: [
    {
      name: 'create',
      arguments: '<path>',
      summary: 'make a link by which files can be put into a room or folder',
      options: [
        ...REMOTE,
        ...settings('require-encryption'),
        ...NEW,
        option('--max-files <n>', 'so many files at most'),
        option('--max-size <size>', 'so many bytes at most, all together: 10G'),
      ],
      action: async () => (await load()).createRequest,
    },
    {
      name: 'list',
      arguments: '[path]',
      summary: 'list file requests, all of them or those of one path',
      options: REMOTE,
      action: async () => (await load()).listRequests,
    },
    {
      name: 'show',
      arguments: '<request>',
      takes: ['remote'],
      summary: 'show a file request, and what has come by it: by its link, its id, or the path that files go to',
      options: REMOTE,
      action: async () => (await load()).showRequest,
    },
    {
      name: 'update',
      arguments: '<request>',
      takes: ['remote'],
      summary: 'change a file request',
      options: [
        ...REMOTE,
        ...CHANGED,
        option('--max-files <n>', 'so many files at most, or none: without a limit'),
        option('--max-size <size>', 'so many bytes at most, or none: without a limit'),
      ],
      action: async () => (await load()).updateRequest,
    },
    {
      name: 'revoke',
      arguments: '<requests...>',
      takes: ['remote'],
      summary: 'end file requests; what has come by them stays',
      options: REMOTE,
      action: async () => (await load()).revokeRequests,
    },
    {
      name: 'mail-text',
      arguments: '<request>',
      takes: ['remote'],
      summary: 'print a letter with the link in it, and without the password',
      options: REMOTE,
      action: async () => (await load()).requestMail,
    },
  ],
}
