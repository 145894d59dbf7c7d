/** trash list, restore, empty; versions list, restore: the ways back at the server. @module */
import { option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { KEEP_SHARE_LINKS, KEY_PASSWORD, REMOTE } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/trash.ts')

export const TRASH: readonly CommandSpec[] = [
  {
    name: 'trash',
    summary: 'what was deleted or replaced at the server',
    group: 'files',
    examples: [
      ['trash list /room', ''],
      ['trash restore /room/old.txt', ''],
      ['trash empty /room', 'asks first'],
    ],
    commands: [
      {
        name: 'list',
        arguments: '[path]',
        summary: 'list the recycle bin of a room, or what in it came from a folder; default: of all rooms',
        options: REMOTE,
        action: async () => (await load()).list,
      },
      {
        name: 'restore',
        arguments: '<paths...>',
        takes: ['remote'],
        summary: 'put things back that were deleted, the last version of each',
        options: [
          ...REMOTE,
          option('--into <path>', 'into this folder of the same room instead of where they were'),
          ...settings('on-conflict'),
          KEEP_SHARE_LINKS,
          ...KEY_PASSWORD,
        ],
        action: async () => (await load()).restore,
      },
      {
        name: 'empty',
        arguments: '<room>',
        takes: ['remote'],
        summary: 'remove everything in the recycle bin of a room for good',
        options: [...REMOTE, option('--force', 'without asking')],
        action: async () => (await load()).empty,
      },
    ],
  },
  {
    name: 'versions',
    summary: 'older versions of a file',
    group: 'files',
    examples: [
      ['versions list /room/report.pdf', ''],
      ['versions restore /room/report.pdf', 'the one before'],
    ],
    commands: [
      {
        name: 'list',
        arguments: '<file>',
        takes: ['remote'],
        summary: 'list the versions of a file, newest first',
        options: [...REMOTE, option('-h, --human', 'sizes as 1.5 MB')],
        action: async () => (await load()).listVersions,
      },
      {
        name: 'restore',
        arguments: '<file> [id]',
        takes: ['remote', 'none'],
        summary: 'make an older version the current one; default: the last one that was replaced',
        options: [...REMOTE, KEEP_SHARE_LINKS, ...KEY_PASSWORD],
        action: async () => (await load()).restoreVersion,
      },
    ],
  },
]
