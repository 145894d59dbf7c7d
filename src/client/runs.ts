/**
 * Runs of all kinds as the library offers them: transfers, pairs, plans, and what is known of the runs before. They are loaded when one
 * begins, since a look at the server needs nothing of them.
 *
 * A run that has begun resolves when its signal aborts: the summary says what was done, and `stoppedBy` why it ended. Before that an
 * abort rejects. A watch always resolves.
 * @module
 */

import type { PairStatus, PastRun, PlacedCommand, Repeat, Told } from '../sync/history.ts'
import type { SyncOptions } from '../sync/jobs/pair.ts'
import type { DownloadOptions, UploadOptions } from '../sync/jobs/transfer.ts'
import type { PlanFile } from '../sync/plan-file.ts'
import type { StatePlace } from '../sync/run.ts'
import type { Limits, SyncSummary } from '../sync/run-job.ts'
import type { RunRecord } from '../sync/state.ts'
import type { UndoResult } from '../sync/undo.ts'
import type { WatchedRun, WatchOptions } from '../sync/watch.ts'
import type { Abortable, ClientContext } from './context.ts'
import { type History, historyOf, type RunFilter } from './history.ts'

export type { PairStatus, PastRun, PlanFile, Repeat, RunRecord, Told, UndoResult, WatchedRun, WatchOptions }

/** Options of a run whose direction is its name. */
export type PairOptions = Omit<SyncOptions, 'direction'>

/** How far a run that is done again may go, and what is allowed; what it does is known. */
export interface RepeatOptions extends Limits {
  /** See `UploadOptions`. */
  readonly allowPlain?: boolean | undefined
  readonly requireEncryption?: boolean | undefined
}

/** How a run is taken back. */
export interface UndoOptions extends Abortable {
  /** Only say what would be taken back. */
  readonly dryRun?: boolean
  /** How long to wait for a run of the same places to end. Milliseconds. */
  readonly waitMs?: number
}

/** Runs of all kinds, and what is known of those before. */
export interface RunCalls extends History {
  /** Uploads local files and directories into a remote room or folder; deletes nothing. See `runUpload`. */
  upload(sources: readonly string[], target: string, options?: UploadOptions): Promise<SyncSummary>
  /** Downloads remote files and folders into a local directory; deletes nothing. See `runDownload`. */
  download(sources: readonly string[], target: string, options?: DownloadOptions): Promise<SyncSummary>
  /** Makes a remote folder like a local directory. Throws `DIRECTORY_NEEDED` for a client without a directory. */
  push(local: string, remote: string, options?: PairOptions): Promise<SyncSummary>
  /** Makes a local directory like a remote folder. */
  pull(remote: string, local: string, options?: PairOptions): Promise<SyncSummary>
  /** Brings changes of both sides to the other one. */
  both(local: string, remote: string, options?: PairOptions): Promise<SyncSummary>
  /** As `push`, `pull` or `both`, by `options.direction`. */
  sync(local: string, remote: string, options: SyncOptions): Promise<SyncSummary>
  /**
   * As `sync`, and again whenever something has changed, until the signal aborts. Rejects with what another run could not make up for;
   * tries again after anything else. See `watchPair`.
   */
  watch(local: string, remote: string, options: WatchOptions): Promise<void>
  /**
   * A run of any kind, by the name of its command.
   *
   * @param places - As the command takes them: sources, then the target.
   */
  run(command: PlacedCommand, places: readonly string[], options?: Told): Promise<SyncSummary>
  /**
   * Says what a run would do, to be kept (it is JSON) and applied later.
   *
   * @param places - As the command takes them: sources, then the target.
   */
  plan(command: PlacedCommand, places: readonly string[], options?: Told): Promise<PlanFile>
  /** Carries out a plan. Throws `PLAN_DRIFTED` when it would do anything else now. */
  apply(plan: PlanFile, how?: RepeatOptions): Promise<SyncSummary>
  /** Goes on with last runs that did not come to their end. */
  resume(filter?: RunFilter, how?: RepeatOptions): Promise<SyncSummary[]>
  /** Tries again what failed in last runs, and nothing else. */
  retry(filter?: RunFilter, how?: RepeatOptions): Promise<SyncSummary[]>
  /** Does one of `repeats` again; of what the run was told then, nothing is changed. */
  repeat(one: Repeat, how?: Told): Promise<SyncSummary>
  /** Takes back what a run did; what has changed since is left alone and told. Throws `NO_RUNS`, `LOCKED`. */
  undo(runId: string, options?: UndoOptions): Promise<UndoResult>
}

/** Makes the calls of a client; nothing is loaded before the first one. */
export function createRunCalls(context: ClientContext): RunCalls {
  const transfers = () => import('../sync/jobs/transfer.ts')
  const pairs = () => import('../sync/jobs/pair.ts')
  const history = () => import('../sync/history.ts')
  const stateOf = async (signal?: AbortSignal): Promise<StatePlace> => ({
    directory: context.home.states,
    account: await context.home.account(signal),
  })
  const sync: RunCalls['sync'] = async (local, remote, how) => (await pairs()).runSync(context, local, remote, how)

  const run: RunCalls['run'] = async (command, places, options = {}) => {
    const { placesOf } = await history()
    const pair = placesOf(command, places)
    const [sources, target] = [places.slice(0, -1), places.at(-1)!]
    // Whether the target is a folder or a name has yet to be found out.
    if (command === 'upload') return (await transfers()).runUpload(context, sources, target, options)
    if (command === 'download') return (await transfers()).runDownload(context, sources, target, options)
    return repeat({ command, pair, options })
  }
  const past = historyOf(context, stateOf)
  const repeat: RunCalls['repeat'] = async (one, how) => (await history()).repeat(context, one, how)
  const again =
    (which: 'resume' | 'retry') =>
    async (filter: RunFilter = {}, how: RepeatOptions = {}): Promise<SyncSummary[]> => {
      const summaries: SyncSummary[] = []
      for (const one of await past.repeats(which, filter)) {
        summaries.push(await repeat(one, { signal: filter.signal, ...how }))
      }
      return summaries
    }
  return {
    ...past,
    sync,
    repeat,
    upload: async (sources, target, how) => (await transfers()).runUpload(context, sources, target, how),
    download: async (sources, target, how) => (await transfers()).runDownload(context, sources, target, how),
    push: (local, remote, how = {}) => sync(local, remote, { ...how, direction: 'push' }),
    pull: (remote, local, how = {}) => sync(local, remote, { ...how, direction: 'pull' }),
    both: (local, remote, how = {}) => sync(local, remote, { ...how, direction: 'both' }),
    watch: async (local, remote, how) => (await import('../sync/watch.ts')).watchPair(context, local, remote, how),
    run,
    async plan(command, places, options = {}) {
      const { planFileOf } = await import('../sync/plan-file.ts')
      const { pair, steps } = await run(command, places, { ...options, dryRun: true })
      return planFileOf(pair, command, options, steps, context.clock.now())
    },
    async apply(plan, how = {}) {
      const { parsePlan, pairIn } = await import('../sync/plan-file.ts')
      // A plan may come from anywhere.
      const parsed = parsePlan(JSON.stringify(plan))
      const options = { ...how, ...parsed.options, planned: parsed.steps }
      return repeat({ command: parsed.direction, pair: pairIn(parsed), options })
    },
    resume: again('resume'),
    retry: again('retry'),
    undo: async (runId, how = {}) => (await history()).undo(context, await stateOf(how.signal), runId, how),
  }
}
