/**
 * What became of a run: counts, failures per entry, and the failure that stopped it, if one did. Decides which failures
 * concern one entry and which end the run.
 * @module
 */
import { setMaxListeners } from 'node:events'
import pLimit from 'p-limit'
import { isDiskFatal, type SyncError, toSyncError } from '../errors.ts'
import type { EntryFailure } from './tree.ts'

export interface RunSummary {
  /** Files in the scope of the run, whatever became of them. */
  readonly files: number
  /** Bytes transferred. */
  readonly bytes: number
  /** Files transferred. */
  readonly transferred: number
  /** Files that were there already. */
  readonly skipped: number
  /** Links, sockets, devices. */
  readonly ignored: number
  readonly failed: readonly EntryFailure[]
  /** What stopped the run before its end. */
  readonly stoppedBy?: SyncError
}

/** What would hit other entries as well: trying again might help, but did not. */
const isOutage = (error: SyncError) =>
  error.retryable && (error.class === 'network' || error.class === 'server' || error.class === 'rate_limit')

const KEY_FATAL = new Set(['KEY_PASSWORD_WRONG', 'NO_KEY_PAIR', 'PASSWORD_NEEDED'])

/** True when no other entry could fare better. */
const stopsRun = (error: SyncError) =>
  error.class === 'auth' ||
  error.class === 'tls' ||
  error.class === 'quota' ||
  error.class === 'cancelled' ||
  error.code === 'FORBIDDEN' ||
  error.code === 'NOT_AUTHORIZED' ||
  KEY_FATAL.has(error.code) ||
  isDiskFatal(error)

export interface Tally {
  readonly failed: EntryFailure[]
  files: number
  bytes: number
  transferred: number
  skipped: number
  stoppedBy?: SyncError
}

export const createTally = (): Tally => ({ failed: [], files: 0, bytes: 0, transferred: 0, skipped: 0 })

export function summarize(tally: Tally, ignored: number): RunSummary {
  const { failed, files, bytes, transferred, skipped, stoppedBy } = tally
  return { failed, files, bytes, transferred, skipped, ignored, ...(stoppedBy === undefined ? {} : { stoppedBy }) }
}

/**
 * Works through entries, `jobs` at a time, until the end or until something stops the run. A failure of network or server
 * stops it when nothing else got through while that entry was tried; else it is the entry's own.
 *
 * @param work - Resolves with the bytes transferred, or `undefined` when the entry was skipped.
 */
export async function runEntries<T extends { readonly shown: string }>(
  entries: Iterable<T>,
  jobs: number,
  tally: Tally,
  work: (entry: T, signal: AbortSignal) => Promise<number | undefined>,
  options: { signal: AbortSignal; onFailure?: (failure: EntryFailure) => void },
): Promise<void> {
  const limit = pLimit(jobs)
  const active = new Set<Promise<void>>()
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  // Every file and request in flight listens; that is no leak.
  setMaxListeners(0, signal, options.signal)
  let successes = 0

  async function one(entry: T): Promise<void> {
    const successesBefore = successes
    try {
      const bytes = await work(entry, signal)
      if (bytes === undefined) {
        tally.skipped++
      } else {
        tally.transferred++
        tally.bytes += bytes
      }
      successes++
    } catch (thrown) {
      if (signal.aborted) return // the reason is reported once, below
      const error = toSyncError(thrown)
      if (stopsRun(error) || (isOutage(error) && successes === successesBefore)) {
        tally.stoppedBy = error
        stop.abort(error)
      }
      const failure = { path: entry.shown, error }
      tally.failed.push(failure)
      options.onFailure?.(failure)
    }
  }

  for (const entry of entries) {
    if (signal.aborted) break
    const job: Promise<void> = limit(() => one(entry)).finally(() => active.delete(job))
    active.add(job)
    // The limit's own queue has no bound, so nobody fills it with a whole tree.
    if (active.size >= jobs) await Promise.race(active)
  }
  await Promise.all(active)
  if (options.signal.aborted) tally.stoppedBy = toSyncError(options.signal.reason)
}
