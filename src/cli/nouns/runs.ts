/** runs, status, resume, retry, forget, undo: what was run before. @module */
import { option } from '../options/option.ts'
import { COMMON, REMOTE, REPORT, RUN } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/runs.ts')

export const RUNS: readonly CommandSpec[] = [
  {
    name: 'runs',
    group: 'sync',
    arguments: '[local] [remote]',
    summary: 'list runs of push, pull and both',
    examples: [
      ['runs', ''],
      ['runs ./site /room/site --limit 3', 'the last three of this pair'],
    ],
    options: [...COMMON, option('--limit <n>', 'how many (default 20)')],
    action: async () => (await load()).runs,
  },
  {
    name: 'status',
    group: 'sync',
    arguments: '[local] [remote]',
    summary: 'say how each synchronized pair stands',
    examples: [
      ['status', ''],
      ['status --max-age 26h', 'for monitoring: exit code 3 when a pair is older than that'],
    ],
    options: [...COMMON, option('--max-age <time>', 'exit code 3 when the last success is longer ago, such as 26h')],
    action: async () => (await load()).status,
  },
  {
    name: 'resume',
    group: 'sync',
    arguments: '[local] [remote]',
    summary: 'go on with runs that were interrupted or did not get through',
    examples: [
      ['resume', 'all of them'],
      ['resume ./site /room/site', 'that one'],
    ],
    options: [...REMOTE, ...RUN, ...REPORT],
    withProblems: true,
    action: async () => (await load()).resume,
  },
  {
    name: 'retry',
    group: 'sync',
    arguments: '[local] [remote]',
    summary: 'try again what failed in the last run, and nothing else',
    examples: [
      ['retry', ''],
      ['retry ./site /room/site', ''],
    ],
    options: [...REMOTE, ...RUN, ...REPORT],
    withProblems: true,
    action: async () => (await load()).retry,
  },
  {
    name: 'forget',
    arguments: '<local> <remote>',
    summary: 'forget a pair, a transfer or a backup set that is no more; nothing is deleted here or there',
    group: 'sync',
    examples: [['forget ./site /room/site', '']],
    options: COMMON,
    action: async () => (await load()).forget,
  },
  {
    name: 'undo',
    group: 'sync',
    arguments: '<run>',
    summary: 'take back what a run did; what has changed since is left alone',
    examples: [
      ['undo 20260501-120000-a1b2 --dry-run', 'the id is that of: sync runs'],
      ['undo 20260501-120000-a1b2', ''],
    ],
    options: [...REMOTE, option('-n, --dry-run', 'only say what would be taken back')],
    action: async () => (await load()).undo,
  },
]
