/**
 * Carries out the steps of a plan: first what gives things their places, then contents, and deletions last, only when all else went
 * well. A run that is killed leaves nothing that the next one would misread.
 * @module
 */
import { localError, type SyncError, toSyncError } from '../../errors.ts'
import { pruneBin } from '../local-bin.ts'
import { createOutageRule, createTally, type Tally } from '../outcome.ts'
import { bytesOf, type SyncStep } from '../reconcile.ts'
import { type RunContext, report } from '../run.ts'
import type { SyncState } from '../state.ts'
import { type ContentOptions, createContents, isContent } from './contents.ts'
import { isRemoval, removeAll } from './removals.ts'
import { makeStructure } from './structure.ts'
import { type ApplyTarget, createWork, type Work, type WorkOptions } from './work.ts'

export interface ApplyOptions extends ContentOptions, WorkOptions {
  /** Files that are as they should be; for progress. */
  readonly skipped?: number
  /** Deletions wait for a run in which all else goes well. Default true; false where what is deleted is kept elsewhere. */
  readonly isCautious?: boolean | undefined
}

export interface ApplyResult {
  readonly tally: Tally
  readonly moved: number
  readonly deleted: number
  /** Gone on one side, left on the other. */
  readonly kept: number
  /** Not begun because a limit was reached. */
  readonly left: number
  /** Both sides had changed; both are kept. */
  readonly conflicts: readonly { readonly path: string; readonly copy: string }[]
}

export async function applySteps(
  context: RunContext,
  steps: readonly SyncStep[],
  target: ApplyTarget,
  state: SyncState,
  options: ApplyOptions,
): Promise<ApplyResult> {
  const work = createWork(context, target, state, options)
  try {
    return await carryOut(work, steps, options)
  } finally {
    work.lookAnew()
  }
}

async function carryOut(work: Work, steps: readonly SyncStep[], options: ApplyOptions): Promise<ApplyResult> {
  const { context, signal, conflicts } = work
  const tally = createTally()
  // That folders could be made says nothing about where contents go.
  const [structureRule, rule] = [createOutageRule(), createOutageRule()]
  let kept = steps.filter((step) => step.do === 'keep').length
  let [moved, deleted, left] = [0, 0, 0]
  const failed = (step: SyncStep, error: SyncError) => {
    const failure = { path: work.show(step.path), error }
    tally.failed.push(failure)
    report(context, failure.path, error)
  }
  const result = () => ({ tally, moved, deleted, kept, left, conflicts })
  const structure = async (some: readonly SyncStep[]) => {
    const done = await makeStructure(work, some, structureRule)
    moved += done.moved
    for (const failure of done.failed) tally.failed.push(failure)
    tally.stoppedBy ??= done.stoppedBy
  }
  const makeDurable = (ending: () => Promise<void>) =>
    ending().catch((error) => {
      tally.stoppedBy ??= toSyncError(localError(error, 'make files durable'))
    })
  const isLate = (step: SyncStep) => step.isLate === true
  await structure(steps.filter((step) => !isLate(step) && !isContent(step)))
  if (tally.stoppedBy !== undefined) return result()

  const all = steps.filter(isContent)
  const transfers = all.filter((step) => step.do !== 'conflict')
  const contents = createContents(work, all, options)
  await contents.prepare()
  const bytes = transfers.reduce((sum, step) => sum + bytesOf(step), 0)
  context.onEvent?.({ type: 'planned', files: transfers.length, bytes, skipped: options.skipped ?? 0 })
  left += await contents.transfer(
    all.filter((step) => !isLate(step)),
    tally,
    rule,
  )
  tally.stoppedBy ??= rule.verdict()
  await makeDurable(contents.settle)
  const late = steps.filter(isLate)
  // What is of another kind on the other side was looked at when this was planned, and says nothing about other places.
  const isSpotless = () =>
    options.isCautious === false || (left === 0 && tally.failed.every(({ error }) => error.code === 'KINDS_DIFFER'))
  const removals = steps.filter(isRemoval)
  if (tally.stoppedBy !== undefined || !isSpotless()) {
    await makeDurable(contents.end)
    if (tally.stoppedBy !== undefined) return result()
    left += late.length
    kept += removals.length
    return result()
  }
  try {
    deleted += await removeAll(work, removals, failed)
    if (late.length > 0 && isSpotless()) {
      await structure(late.filter((step) => !isContent(step)))
      if (tally.stoppedBy === undefined) left += await contents.transfer(late.filter(isContent), tally, rule)
    } else {
      left += late.length
    }
    if (work.hasBin && !work.isFromHere) pruneBin(work.root, work.state.runs(), context.clock.now())
  } catch (error) {
    tally.stoppedBy = toSyncError(signal.aborted ? signal.reason : error)
  }
  await makeDurable(contents.end)
  return result()
}
