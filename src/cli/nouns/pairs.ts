/** push, pull, both. Their plans are in plans.ts. @module */
import { DRY_RUN, pairOptions, REMOTE, REPORT, RUN, watchOptions } from '../options/shared.ts'
import type { CommandSpec } from './command.ts'

/** What a direction and its plan have in common. */
export const DIRECTIONS = [
  { name: 'push', arguments: '<local> <remote>', summary: 'make a remote folder like a local directory' },
  { name: 'pull', arguments: '<remote> <local>', summary: 'make a local directory like a remote folder' },
  { name: 'both', arguments: '<local> <remote>', summary: 'bring changes of both sides to the other one' },
] as const

export const PAIRS: readonly CommandSpec[] = DIRECTIONS.map(({ name, arguments: places, summary }) => ({
  name,
  arguments: places,
  summary: `${summary}; deletes only with --delete`,
  options: [...REMOTE, ...RUN, ...REPORT, ...pairOptions(name), ...watchOptions(name), ...DRY_RUN],
  withProblems: true,
  action: async () => (await import('../commands/watch.ts'))[name],
}))
