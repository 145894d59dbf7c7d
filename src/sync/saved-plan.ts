/** A guard that stops a run keeps its plan, so that somebody can look at it and then have exactly that done. @module */
import { SyncError, toSyncError } from '../errors.ts'
import { writePrivateFile } from '../local/atomic-file.ts'
import { type PlanFile, planFileOf, type Recordable } from './plan-file.ts'
import type { SyncStep } from './reconcile.ts'
import type { Pair } from './state.ts'

export interface Stopped {
  readonly pair: Pair
  readonly command: PlanFile['direction']
  readonly options: Recordable
  readonly steps: readonly SyncStep[]
  /** Milliseconds since the epoch. */
  readonly now: number
}

/**
 * Writes the plan into the directory of state, if a guard has stopped it.
 *
 * @returns what is to be thrown.
 */
export async function withSavedPlan(
  thrown: unknown,
  directory: string,
  { pair, command, options, steps, now }: Stopped,
): Promise<unknown> {
  const error = toSyncError(thrown)
  if (error.class !== 'safety') return thrown
  const path = `${directory}/plan-${new Date(now).toISOString().replace(/[-:]|\.\d+/g, '')}.json`
  await writePrivateFile(path, `${JSON.stringify(planFileOf(pair, command, options, steps, now), undefined, 1)}\n`)
  return new SyncError(error.class, error.code, error.message, {
    hint: `Nothing was done. The plan is in ${path}: look at it, then apply it with: sync apply ${path}`,
    cause: error,
  })
}
