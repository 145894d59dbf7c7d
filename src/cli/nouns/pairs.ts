/** push, pull, both. Their plans are in plans.ts. @module */
import { type Direction, DRY_RUN, pairOptions, REMOTE, REPORT, RUN, watchOptions } from '../options/shared.ts'
import type { CommandSpec, Example } from './command.ts'

/** What a direction and its plan have in common. */
export const DIRECTIONS = [
  { name: 'push', arguments: '<local> <remote>', summary: 'make a remote folder like a local directory' },
  { name: 'pull', arguments: '<remote> <local>', summary: 'make a local directory like a remote folder' },
  { name: 'both', arguments: '<local> <remote>', summary: 'bring changes of both sides to the other one' },
] as const

const EXAMPLES: Readonly<Record<Direction, readonly Example[]>> = Object.freeze({
  push: [
    ['push ./site /room/site --delete', 'also deletes there what is gone here'],
    ['push ./site /room/site --dry-run --detailed-exitcode', 'exit code 11 when there is something to do'],
    ['push ./site /room/site --watch', 'goes on until a signal'],
  ],
  pull: [
    ['pull /room/site ./site --delete', 'also deletes here what is gone there; it goes to the bin'],
    ['pull /room/site ./site --watch --poll 5m', 'asks every five minutes'],
  ],
  both: [
    ['both ./notes /room/notes', ''],
    ['both ./notes /room/notes --prefer newer --delete', 'of two versions the newer one stays'],
  ],
})

export const PAIRS: readonly CommandSpec[] = DIRECTIONS.map(({ name, arguments: places, summary }) => ({
  name,
  arguments: places,
  group: 'sync',
  examples: EXAMPLES[name],
  summary: `${summary}; deletes only with --delete`,
  options: [...REMOTE, ...RUN, ...REPORT, ...pairOptions(name), ...watchOptions(name), ...DRY_RUN],
  withProblems: true,
  action: async () => (await import('../commands/watch.ts'))[name],
}))
