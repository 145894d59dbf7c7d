/**
 * What is remembered of runs, read from the disk: by a client, or without one and without a login, for programs that only look.
 * @module
 */
import { homePaths } from '../local/home.ts'
import type { PairStatus, PastRun, Repeat } from '../sync/history.ts'
import type { RunContext, StatePlace } from '../sync/run.ts'
import type { Pair } from '../sync/state.ts'
import type { Abortable } from './context.ts'

/** What runs are asked about: those of one local directory and remote folder, or of all. */
export interface RunFilter extends Abortable {
  readonly local?: string | undefined
  readonly remote?: string | undefined
}

/** Reads what runs did. With a filter that fits nothing all of it rejects with `NO_RUNS`. */
export interface History {
  /** What was run, newest first. */
  runs(filter?: RunFilter): Promise<PastRun[]>
  /** How each pair, and each transfer that is remembered, stands. */
  status(filter?: RunFilter): Promise<PairStatus[]>
  /**
   * Of each pair its last run, if there is reason to do it again.
   *
   * @param which - `resume`: those that did not come to their end, whole; `retry`: what failed in them, and nothing else.
   */
  repeats(which: 'resume' | 'retry', filter?: RunFilter): Promise<Repeat[]>
  /**
   * Forgets a pair, a backup set, or what is known of transfers between two places: the next run is a first one. Nothing of the places
   * themselves is touched. Throws `NO_RUNS`, `LOCKED`.
   *
   * @returns what was forgotten.
   */
  forget(local: string, remote: string, options?: Abortable): Promise<readonly Pair[]>
}

/** Of a client's directory. */
export interface HistoryOptions extends Pick<RunContext, 'clock' | 'onEvent'> {
  /** As the client has it. */
  readonly directory: string
  /** As the client has it: `account`, or by default the address of the server and the id of the user. */
  readonly account: string
}

/** A history without a client. Nothing is read before the first call. */
export function openHistory({ directory, account, ...context }: HistoryOptions): History {
  const place = { directory: homePaths(directory).states, account }
  return historyOf(context, async () => place)
}

/** @param stateOf - Where it is; asked for at each call. */
export function historyOf(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  stateOf: (signal?: AbortSignal) => Promise<StatePlace>,
): History {
  type Work<T> = (history: typeof import('../sync/history.ts'), state: StatePlace, pairs: readonly Pair[]) => Promise<T>
  async function ask<T>({ signal, ...filter }: RunFilter, work: Work<T>): Promise<T> {
    const history = await import('../sync/history.ts')
    const state = await stateOf(signal)
    signal?.throwIfAborted()
    return work(history, state, await history.findPairs(state, filter))
  }
  return {
    runs: (filter = {}) => ask(filter, (history, state, pairs) => history.listRuns(context, state, pairs)),
    status: (filter = {}) => ask(filter, (history, state, pairs) => history.listStatus(context, state, pairs)),
    repeats: (which, filter = {}) =>
      ask(filter, (history, state, pairs) => history.listRepeats(context, state, pairs, which)),
    forget: (local, remote, { signal } = {}) =>
      ask({ local, remote, signal }, async (history, state, pairs) => {
        for (const pair of pairs) await history.forget(context, state, pair, signal)
        return pairs
      }),
  }
}
