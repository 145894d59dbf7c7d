/** Backup sets: backup run, list, show, restore, prune; drill. @module */
import { type OptionSpec, option } from '../options/option.ts'
import { settings } from '../options/settings.ts'
import { DRY_RUN, KEY_PASSWORD, LIMITS, REMOTE, REPORT, SELECTION } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/backup.ts')

/** Of all that work with a set. */
const SET: readonly OptionSpec[] = [
  ...REMOTE,
  option('--set-file <file>', 'configuration of the set (default: backups/NAME.toml)'),
  ...KEY_PASSWORD,
  ...settings('key-cache', 'limit-rate'),
]

/** Of those that only read: they need no configuration. */
const READING: readonly OptionSpec[] = [
  ...SET,
  option('--target <path>', 'remote place of the set, instead of a configuration'),
]

const maxDelete = (what: string): OptionSpec =>
  option(
    '--max-delete <n>',
    `stop when more ${what}: a number or 20% (default: the smaller of 50 and 20%, at least 10)`,
  )

/** Of a run and its plan. */
export const BACKUP_RUN: readonly OptionSpec[] = [
  ...SET,
  ...LIMITS,
  maxDelete('files are gone from the sources'),
  option('--accept-sources', 'sources are meant to be empty, or on another device'),
  option('--accept-runs', 'take the runs that the server has for the right ones, from now on'),
  ...settings('jobs', 'memory', 'part-size', 'check-output', 'names', 'trust-new-members'),
]

/** Of a restore and its plan. */
export const RESTORE: readonly OptionSpec[] = [
  ...READING,
  ...LIMITS,
  ...SELECTION,
  option('--path <path>', 'only this, with all it holds (may be repeated)', { repeats: true }),
  option('--trust-times', 'take files of the same size and time for the same, without reading them'),
  ...settings('jobs', 'memory', 'on-conflict'),
]

export const RESTORE_ARGUMENTS = {
  arguments: '<name> <run-and-directory...>',
  usage: 'NAME [RUN] DIRECTORY',
  takes: ['set', 'directory'],
} as const

export const BACKUP: readonly CommandSpec[] = [
  {
    name: 'backup',
    group: 'backup',
    summary: 'backup sets: points in time of directories',
    examples: [
      ['backup run home', 'as backups/home.toml says'],
      ['backup show home latest photos', 'what is in the latest run'],
      ['backup restore home ./restored', 'the latest run, into a new directory'],
      ['backup prune home --dry-run', 'which runs would go'],
    ],
    commands: [
      {
        name: 'run',
        arguments: '<name>',
        takes: ['set'],
        summary: 'make a point in time',
        options: [...BACKUP_RUN, ...REPORT, ...DRY_RUN],
        withProblems: true,
        action: async () => (await load()).run,
      },
      {
        name: 'list',
        arguments: '<name>',
        takes: ['set'],
        summary: 'list the runs',
        options: READING,
        action: async () => (await load()).list,
      },
      {
        name: 'show',
        arguments: '<name> <run> [path]',
        takes: ['set', 'none'],
        summary: 'list what is in a run, or in the latest',
        options: READING,
        action: async () => (await load()).show,
      },
      {
        name: 'restore',
        ...RESTORE_ARGUMENTS,
        summary: 'restore a run, or the latest, into a new directory',
        options: [...RESTORE, ...REPORT, ...DRY_RUN],
        withProblems: true,
        action: async () => (await load()).restore,
      },
      {
        name: 'prune',
        arguments: '<name>',
        takes: ['set'],
        summary: 'remove the runs that the set does not keep',
        options: [
          ...SET,
          maxDelete('runs would go'),
          option('-n, --dry-run', 'only say what would be done'),
          option('--wait <time>', 'wait for another run of the set to end'),
          option('--accept-runs', 'take the runs that are there for the right ones, on a machine that knows none yet'),
          option(
            '--accept-future',
            'go on where runs began later than now; those stay, and take the place of no other',
          ),
        ],
        action: async () => (await load()).prune,
      },
    ],
  },
  {
    name: 'drill',
    group: 'backup',
    arguments: '<name>',
    takes: ['set'],
    examples: [
      ['drill home', ''],
      ['drill home --sample 100 --report drill.json', 'a hundred files'],
    ],
    summary: 'restore some files of a backup, compare them, and write a report',
    options: [
      ...READING,
      option('--sample <n>', 'how many files: a number or a share such as 5% (default 5%, at least 10)'),
      option('--report <file>', 'where the report goes (default: drills/ in the directory of this program)'),
      ...settings('jobs'),
    ],
    action: async () => (await load()).drill,
  },
]
