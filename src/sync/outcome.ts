/**
 * What became of a run: counts, failures per entry, and the failure that stopped it, if one did. Decides which failures
 * concern one entry and which end the run.
 * @module
 */
import { setMaxListeners } from 'node:events'
import pLimit from 'p-limit'
import { isDiskFatal, SyncError, systemCode, toSyncError } from '../errors.ts'
import type { Pace } from './run.ts'
import type { EntryFailure } from './tree.ts'

/**
 * What waits for a person: a member whose key is not trusted, rules that nobody has accepted. No file has failed, and nothing will
 * be better by itself.
 */
export interface Pending {
  readonly what: 'member' | 'rules'
  readonly name: string
  readonly error: SyncError
}

/** What became of a run of any kind. */
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
  /** Absent: nothing. */
  readonly pending?: readonly Pending[]
  /** What stopped the run before its end. */
  readonly stoppedBy?: SyncError
}

/** What would hit other entries as well: trying again might help, but did not. */
const isOutage = (error: SyncError) =>
  error.retryable && (error.class === 'network' || error.class === 'server' || error.class === 'rate_limit')

/** Entries that fail like in an outage, with no success in between, until it counts as one: a single bad file must not
 * keep all that come after it from ever being tried. */
const OUTAGES = 3

/** What a run makes of failures that look like those of an outage, over all that it does. */
export interface OutageRule {
  /** Something got through. */
  succeeded(): void
  /** How much has got through up to now. */
  readonly successes: number
  /**
   * True when the run has to end.
   *
   * @param before - `successes` when that which has failed began: what got through since says that it is no outage.
   */
  isEnd(error: SyncError, before?: number): boolean
  /** When all is done: what it was, if nothing got through at all. */
  verdict(): SyncError | undefined
}

export function createOutageRule(): OutageRule {
  let successes = 0
  let first: SyncError | undefined
  /** Since the last success. */
  let count = 0
  return {
    get successes() {
      return successes
    },
    succeeded() {
      successes++
      count = 0
    },
    isEnd(error, before = successes) {
      if (isOutage(error) && before === successes) {
        first ??= error
        count++
      }
      return stopsRun(error) || count >= OUTAGES
    },
    verdict: () => (successes === 0 ? first : undefined),
  }
}

const KEY_FATAL = new Set([
  'KEY_PASSWORD_WRONG',
  'NO_KEY_PAIR',
  'PASSWORD_NEEDED',
  'PRIVATE_KEY_ELSEWHERE',
  'PUBLIC_KEY_NEEDED',
])

/** True when no other entry could fare better. */
const stopsRun = (error: SyncError) =>
  error.class === 'auth' ||
  error.class === 'tls' ||
  error.class === 'quota' ||
  error.class === 'cancelled' ||
  error.code === 'FORBIDDEN' ||
  error.code === 'READ_ONLY' ||
  error.code === 'NOT_AUTHORIZED' ||
  KEY_FATAL.has(error.code) ||
  isDiskFatal(error)

export interface Tally {
  readonly failed: EntryFailure[]
  readonly pending: Pending[]
  files: number
  bytes: number
  transferred: number
  skipped: number
  stoppedBy?: SyncError | undefined
}

export const createTally = (): Tally => ({ failed: [], pending: [], files: 0, bytes: 0, transferred: 0, skipped: 0 })

export function summarize(tally: Tally, ignored: number): RunSummary {
  const { failed, pending, files, bytes, transferred, skipped, stoppedBy } = tally
  return {
    failed,
    files,
    bytes,
    transferred,
    skipped,
    ignored,
    ...(pending.length === 0 ? {} : { pending }),
    ...(stoppedBy === undefined ? {} : { stoppedBy }),
  }
}

/** This process or the system has no more open files to give: fewer at once will do. */
const isShortOfFiles = (error: unknown) =>
  error instanceof SyncError && /^E[MN]FILE$/.test(systemCode(error.cause) ?? error.code.replace('LOCAL_', ''))
const SHORTAGE_TRIES = 5

/** Entries that succeed until one more may be in flight again. */
const RECOVERY = 8

/** Fewer entries in flight while the server is too busy: half at each sign of it, one more after every few successes. */
function createThrottle(jobs: number) {
  let allowed = jobs
  let sinceChange = 0
  return {
    get allowed() {
      return allowed
    },
    busy() {
      // Many requests in flight meet the same refusal.
      if (sinceChange === 0 && allowed < jobs) return
      allowed = Math.max(1, Math.floor(allowed / 2))
      sinceChange = 0
    },
    succeeded() {
      if (++sinceChange % RECOVERY === 0) allowed = Math.min(jobs, allowed + 1)
    },
  }
}

/**
 * Works through entries, `jobs` at a time, until the end or until something stops the run. Failures of network or server
 * stop it when three entries have them and nothing got through in between, or when nothing got through at all; else they are
 * the entries' own.
 *
 * @param work - Resolves with the bytes transferred, or `undefined` when the entry was skipped.
 */
export async function runEntries<T extends { readonly shown: string }>(
  entries: Iterable<T>,
  jobs: number,
  tally: Tally,
  work: (entry: T, signal: AbortSignal) => Promise<number | undefined>,
  options: {
    signal: AbortSignal
    onFailure?: (failure: EntryFailure) => void
    onBusy?: ((listener: () => void) => () => void) | undefined
    /** Says how many at a time, up to `jobs`. Default: always `jobs`. */
    pace?: Pick<Pace, 'allowed' | 'onChange'> | undefined
    /** Of a run that works through several lists. Default: one for this list, which is judged at its end. */
    rule?: OutageRule
  },
): Promise<void> {
  const limit = pLimit(Math.max(1, Math.min(jobs, options.pace?.allowed() ?? jobs)))
  const active = new Set<Promise<void>>()
  const throttle = createThrottle(jobs)
  const allowed = () => Math.max(1, Math.min(throttle.allowed, options.pace?.allowed() ?? jobs))
  let wake = () => {}
  const adjust = () => {
    limit.concurrency = allowed()
    if (active.size < limit.concurrency) wake()
  }
  const unsubscribe = options.onBusy?.(() => {
    throttle.busy()
    adjust()
  })
  const unfollow = options.pace?.onChange(adjust)
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  // Every file and request in flight listens; that is no leak.
  setMaxListeners(0, signal, options.signal)
  const rule = options.rule ?? createOutageRule()

  /** Entries at work, and who waits for the end of one of them. */
  let atWork = 0
  let waiters: (() => void)[] = []
  const doWork = async (entry: T) => {
    atWork++
    try {
      return await work(entry, signal)
    } finally {
      atWork--
      for (const wakeUp of waiters) wakeUp()
      waiters = []
    }
  }
  let turn: Promise<unknown> = Promise.resolve()
  /** After a shortage of open files entries are tried again one after the other, each when another one has ended. */
  async function attempt(entry: T): Promise<number | undefined> {
    for (let tries = 1; ; tries++) {
      try {
        if (tries === 1) return await doWork(entry)
        const mine = turn.then(async () => {
          if (atWork > 0) await new Promise<void>((wakeUp) => waiters.push(wakeUp))
          return doWork(entry)
        })
        turn = mine.catch(() => {})
        return await mine
      } catch (error) {
        if (!isShortOfFiles(error) || tries >= SHORTAGE_TRIES || signal.aborted) throw error
        throttle.busy()
        adjust()
      }
    }
  }

  async function one(entry: T): Promise<void> {
    const before = rule.successes
    try {
      const bytes = await attempt(entry)
      if (bytes === undefined) {
        tally.skipped++
      } else {
        tally.transferred++
        tally.bytes += bytes
      }
      rule.succeeded()
      throttle.succeeded()
      adjust()
    } catch (thrown) {
      if (signal.aborted) return // the reason is reported once, below
      const error = toSyncError(thrown)
      if (rule.isEnd(error, before)) {
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
    const job: Promise<void> = limit(() => one(entry))
      .catch((error) => {
        tally.stoppedBy ??= toSyncError(error)
        stop.abort(error)
      })
      .finally(() => {
        active.delete(job)
        wake()
      })
    active.add(job)
    // The limit's own queue has no bound, so nobody fills it with a whole tree. (Racing the jobs would leave a reaction per
    // small file at one that takes long.)
    while (active.size >= limit.concurrency) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  await Promise.all(active)
  unsubscribe?.()
  unfollow?.()
  if (options.rule === undefined) tally.stoppedBy ??= rule.verdict()
  if (options.signal.aborted) tally.stoppedBy = toSyncError(options.signal.reason)
}
