/** diff, check, verify: looking without changing. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { KEY_PASSWORD, LEFT_OUT, REMOTE, SELECTION } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/compare.ts')

const BOTH_SIDES: readonly OptionSpec[] = [
  ...REMOTE,
  ...KEY_PASSWORD,
  ...settings('jobs', 'names', 'key-cache'),
  ...SELECTION,
  ...LEFT_OUT,
]

export const COMPARE: readonly CommandSpec[] = [
  {
    name: 'diff',
    group: 'sync',
    arguments: '<local> <remote>',
    summary: 'say what differs, by sizes and times; exit code 11 if anything does',
    examples: [
      ['diff ./site /room/site', ''],
      ['diff ./site /room/site --checksum --json', 'by contents, for programs'],
    ],
    options: [...BOTH_SIDES, option('--checksum', 'compare contents')],
    action: async () => (await load()).diff,
  },
  {
    name: 'check',
    group: 'sync',
    arguments: '<local> <remote>',
    summary: 'say what differs, by contents, without a transfer; exit code 11 if anything does',
    examples: [
      ['check ./site /room/site', ''],
      ["check ./site /room/site --exclude '*.log'", ''],
    ],
    options: BOTH_SIDES,
    action: async () => (await load()).check,
  },
  {
    name: 'verify',
    group: 'files',
    arguments: '<path>',
    summary: 'download and check files, and keep nothing',
    examples: [
      ['verify /room/photos', 'all of it'],
      ['verify /room --sample 5%', 'some files, chosen at random'],
    ],
    options: [
      ...REMOTE,
      ...KEY_PASSWORD,
      ...settings('jobs', 'limit-rate', 'key-cache'),
      option('--sample <share>', 'only some, chosen at random, such as 5%'),
      option('--all', 'all of them (default)'),
    ],
    action: async () => (await load()).verify,
  },
]
