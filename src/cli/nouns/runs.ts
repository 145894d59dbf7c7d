/** runs, status, resume, retry, forget, undo: what was run before. @module */
import { option } from '../options/option.ts'
import { COMMON, REMOTE, REPORT, RUN } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

const load = () => import('../commands/runs.ts')

export const RUNS: readonly CommandSpec[] = [
  {
    name: 'runs',
    arguments: '[local] [remote]',
    summary: 'list runs of push, pull and both',
    options: [...COMMON, option('--limit <n>', 'how many (default 20)')],
    action: async () => (await load()).runs,
  },
  {
    name: 'status',
    arguments: '[local] [remote]',
    summary: 'say how each synchronized pair stands',
    options: [...COMMON, option('--max-age <time>', 'exit code 3 when the last success is longer ago, such as 26h')],
    action: async () => (await load()).status,
  },
  {
    name: 'resume',
    arguments: '[local] [remote]',
    summary: 'go on with runs that were interrupted or did not get through',
    options: [...REMOTE, ...RUN, ...REPORT],
    withProblems: true,
    action: async () => (await load()).resume,
  },
  {
    name: 'retry',
    arguments: '[local] [remote]',
    summary: 'try again what failed in the last run, and nothing else',
    options: [...REMOTE, ...RUN, ...REPORT],
    withProblems: true,
    action: async () => (await load()).retry,
  },
  {
    name: 'forget',
    arguments: '<local> <remote>',
    summary: 'forget a pair, a transfer or a backup set that is no more; nothing is deleted here or there',
    options: COMMON,
    action: async () => (await load()).forget,
  },
  {
    name: 'undo',
    arguments: '<run>',
    summary: 'take back what a run did; what has changed since is left alone',
    options: [...REMOTE, option('-n, --dry-run', 'only say what would be taken back')],
    action: async () => (await load()).undo,
  },
]
