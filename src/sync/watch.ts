/**
 * A pair that is run again and again: when files change here, when the server has another version of the folder, and by the clock.
 * A run that changes here call for looks where they are; all others look at everything, so what is not told arrives all the same.
 * @module
 */
import { realpathSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { getNode } from '../api/nodes.ts'
import type { Clock } from '../environment.ts'
import { type ErrorClass, SyncError, systemCode, toSyncError } from '../errors.ts'
import { createTreeWatcher } from '../local/tree-watcher.ts'
import { IGNORE_FILE } from './held-rules.ts'
import { repeat, type Told } from './history.ts'
import type { SyncOptions } from './jobs/pair.ts'
import { requireRemote } from './remote-path.ts'
import { never, type RunContext } from './run.ts'
import type { SyncSummary } from './run-job.ts'
import type { ReadLogs } from './state.ts'

/** A burst of changes is over after this, or is not waited for any longer. */
const QUIET_MS = 2_000
const BURST_MS = 30_000
/** Of its time, so much at most is spent on runs that changes here call for: one part in five. */
const REST = 4
const FIRST_RETRY_MS = 5_000
const LAST_RETRY_MS = 300_000
const MIN_TIME_MS = 1_000
const POLL_MS = 60_000
const RESCAN_MS = 15 * 60_000
/** The same where the system does not tell of all changes. */
const BLIND_RESCAN_MS = 60_000
/** The system forgets events of which more than some 16,000 wait, and does not say so: from here on everything is looked at. */
const EVENTS_AT_MOST = 4_000

/** What another run cannot cure. */
const FINAL: ReadonlySet<ErrorClass> = new Set(['internal', 'usage', 'not_found', 'auth', 'integrity', 'safety', 'key'])

/** One run of a watch; its options count for it alone, before those of the watch. */
export type WatchedRun = (options?: Told) => Promise<SyncSummary>

/** Limits, such as `maxTransfer`, are for each run. */
export interface WatchOptions extends Omit<SyncOptions, 'dryRun' | 'planned'> {
  /** How often the server is asked for changes, in milliseconds: 1,000 or more. Default 60,000. A push does not ask. */
  readonly pollMs?: number | undefined
  /** After how long there is another run in any case, in milliseconds: 1,000 or more. Default 900,000. */
  readonly rescanMs?: number | undefined
  /**
   * Called for each run, which it begins by calling what it is given, and resolves with its summary; for what is to happen before and
   * after runs. Whatever it throws counts as what stopped the run. Default: begins the run, and no more.
   */
  readonly onRun?: ((run: WatchedRun) => Promise<SyncSummary>) | undefined
}

export interface ScheduleOptions {
  /** Absent: nobody is asked for changes there. */
  readonly pollMs?: number
  readonly rescanMs: number
}

/** What is to be done: a run because of what is known to have changed, one that looks at everything, a look at the server's version. */
export type Due = 'run' | 'rescan' | 'poll'

/**
 * Decides when the next run is due.
 *
 * @param signal - Ends `next`, which then rejects with its reason.
 */
export function createSchedule(clock: Clock, { pollMs, rescanMs }: ScheduleOptions, signal: AbortSignal) {
  /** Of a burst of changes that no run has seen yet. */
  let burst: { first: number; last: number } | undefined
  let begunAt = 0
  let restedAt = 0
  let rescanAt = 0
  let pollAt = Number.POSITIVE_INFINITY
  let failures = 0
  let retryAt = 0
  let isBlind = false
  let wake = () => {}
  const poll = (now: number) => {
    pollAt = pollMs === undefined ? Number.POSITIVE_INFINITY : now + pollMs
  }
  function due(): { at: number; what: Due } {
    // Whatever has changed, a server that cannot be reached is left in peace for a while.
    if (failures > 0) return { at: retryAt, what: rescanAt <= retryAt ? 'rescan' : 'run' }
    const changes = burst && Math.max(restedAt, Math.min(burst.last + QUIET_MS, burst.first + BURST_MS))
    const at = Math.min(rescanAt, changes ?? Number.POSITIVE_INFINITY)
    if (pollAt < at) return { at: pollAt, what: 'poll' }
    return { at, what: rescanAt <= at ? 'rescan' : 'run' }
  }
  return {
    /** Something has changed here. */
    changed(): void {
      const now = clock.monotonic()
      if (burst !== undefined) {
        burst.last = now
        return
      }
      burst = { first: now, last: now }
      wake()
    },
    /** Not all changes are told: everything is looked at more often. */
    set isBlind(value: boolean) {
      isBlind = value
    },
    /** A run begins and will see all that has changed up to now. */
    begin(): void {
      begunAt = clock.monotonic()
      burst = undefined
    },
    /**
     * It has ended; returns in how many milliseconds it is tried again, unless all was well.
     *
     * @param isWhole - It looked at everything.
     */
    ended(isWell: boolean, isWhole = true): number | undefined {
      const now = clock.monotonic()
      restedAt = now + REST * (now - begunAt)
      if (isWhole) rescanAt = isBlind ? Math.max(restedAt, now + Math.min(rescanMs, BLIND_RESCAN_MS)) : now + rescanMs
      poll(now)
      failures = isWell ? 0 : failures + 1
      if (isWell) return undefined
      const delay = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1))
      retryAt = now + delay
      return delay
    },
    /** Waits until something is to be done. */
    async next(): Promise<Due> {
      for (;;) {
        signal.throwIfAborted()
        const now = clock.monotonic()
        const { at, what } = due()
        if (at <= now) {
          if (what === 'poll') poll(now)
          return what
        }
        const nap = new AbortController()
        wake = () => nap.abort()
        signal.addEventListener('abort', wake)
        await clock.sleep(at - now, nap.signal).catch(() => {})
        signal.removeEventListener('abort', wake)
      }
    },
  }
}

/** What has changed here since it was asked last. */
function createChanges() {
  /** Absent: anything may have. */
  let places: Set<string> | undefined
  let events = 0
  const add = (place: string) => {
    if (place === '') places = undefined
    else places?.add(place)
  }
  return {
    add(place: string): void {
      // Rules decide about all that is beside them and below.
      add(basename(place) === IGNORE_FILE ? place.slice(0, Math.max(0, place.lastIndexOf('/'))) : place)
      if (++events > EVENTS_AT_MOST) places = undefined
    },
    take(): readonly string[] | undefined {
      const taken = places && [...places]
      places = new Set()
      events = 0
      return taken
    },
    /** Gives back what was taken: nothing came of it. */
    putBack(taken: readonly string[] | undefined): void {
      if (taken === undefined) places = undefined
      else for (const place of taken) add(place)
    },
  }
}

/** Tells of changes below a directory. Where the system does not, that is said once; runs by the clock have to do then. */
function createWatcher(
  { onEvent, home }: RunContext,
  root: string,
  { state }: WatchOptions,
  onChange: (place: string) => void,
) {
  // What runs write down is no change.
  const own = [home?.directory, state?.directory].flatMap((path) => (path === undefined ? [] : [realPath(path)]))
  const watcher = createTreeWatcher(root, { onChange, passOver: own })
  let isTold = false
  return {
    /**
     * Watches what is there now; before each run.
     *
     * @returns false where the system does not tell of all changes.
     */
    async refresh(places: readonly string[] | undefined): Promise<boolean> {
      const refusal = await watcher.refresh(places)
      if (refusal !== undefined && !isTold) {
        onEvent?.({ type: 'warning', code: 'WATCH_REFUSED', message: refusalText(root, refusal) })
      }
      if (places === undefined || refusal !== undefined) isTold = refusal !== undefined
      return !isTold
    },
    close: watcher.close,
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

function refusalText(root: string, refusal: unknown): string {
  const code = systemCode(refusal)
  const limit = { ENOSPC: 'max_user_watches', EMFILE: 'max_user_instances' }[code ?? '']
  const why =
    limit === undefined
      ? (code ?? toSyncError(refusal).message)
      : `it has no more watches to give, see fs.inotify.${limit}`
  return `The system does not tell of all changes in ${root}; they are found by the clock (${why})`
}

/** The server's number for the state of all that is below a place: it changes with everything there. */
function createVersion({ api }: RunContext, remote: string, signal: AbortSignal) {
  let id: number | undefined
  let seen: number | undefined
  async function read(): Promise<number | undefined> {
    try {
      id ??= (await requireRemote(api, remote, signal)).node.id
      return (await getNode(api, id, signal)).branchVersion
    } catch {
      // A run will say what is wrong.
      id = undefined
      return undefined
    }
  }
  return {
    /** Before a run looks: what comes after is another version. */
    async remember(): Promise<void> {
      seen = await read()
    },
    /** Also true when that cannot be told. */
    async hasChanged(): Promise<boolean> {
      const now = await read()
      return now === undefined || now !== seen
    },
  }
}

function requireWatchable(options: WatchOptions): void {
  const wrong = (message: string) => new SyncError('usage', 'OPTION_INVALID', message)
  const { dryRun, planned } = options as SyncOptions
  if (dryRun === true || planned !== undefined) throw wrong('What is watched is run, not planned')
  for (const name of ['pollMs', 'rescanMs'] as const) {
    const ms = options[name] ?? MIN_TIME_MS
    if (!Number.isFinite(ms) || ms < MIN_TIME_MS) throw wrong(`${name} takes a time of ${MIN_TIME_MS} ms or more`)
  }
}

/** True when all was done that could be: what failed would fail again. */
const isWell = ({ stoppedBy, failed }: Pick<SyncSummary, 'stoppedBy' | 'failed'>) =>
  stoppedBy === undefined && !failed.some(({ error }) => error.retryable || error.class === 'changed')

/**
 * Runs a pair now, and again whenever there is reason for it: two seconds after a change here (it looks there, and nowhere else),
 * when the server has another version of the folder (which is asked for; not by a push), and by the clock. The lock is held for each run, not between them. After
 * failures of server or network, as for files that were being written, it is tried again after 5 s, and after twice as long each
 * time, up to 5 min; an event `run-again` says so. Where the system tells of no changes, an event `warning` (`WATCH_REFUSED`) does.
 *
 * @returns when the signal aborts; a run that goes on then ends first.
 * @throws {SyncError} what stopped a run that another one cannot make up for: wrong use, login, keys, integrity, guards.
 */
export async function watchPair(
  context: RunContext,
  local: string,
  remote: string,
  options: WatchOptions,
): Promise<void> {
  requireWatchable(options)
  const { pollMs = POLL_MS, rescanMs = RESCAN_MS, onRun = (run) => run(), ...how } = options
  const { direction, signal = never } = how
  // A mirror of this side is not asked for by the other one; what happens there is found by the clock.
  const schedule = createSchedule(context.clock, { rescanMs, ...(direction === 'push' ? {} : { pollMs }) }, signal)
  const version = createVersion(context, remote, signal)
  const changes = createChanges()
  const onChange = (place: string) => {
    changes.add(place)
    schedule.changed()
  }
  const watcher = direction === 'pull' ? undefined : createWatcher(context, resolve(local), options, onChange)
  const pair = { account: '', local, remote }
  const read: ReadLogs = new Map()
  let places: readonly string[] | undefined
  const run: WatchedRun = (more) =>
    repeat({ ...context, read }, { pair, command: direction, options: { ...how, ...more } }, { places })
  const runOnce = async (): Promise<Pick<SyncSummary, 'stoppedBy' | 'failed'>> => {
    try {
      return await onRun(run)
    } catch (thrown) {
      return { stoppedBy: toSyncError(thrown), failed: [] }
    }
  }
  try {
    for (let due: Due | undefined; !signal.aborted; ) {
      schedule.begin()
      const changed = changes.take()
      places = due === 'run' ? changed : undefined
      if (watcher !== undefined) schedule.isBlind = !(await watcher.refresh(places))
      // What cannot work at all is told at once, and not by a server that is asked first.
      if (due !== undefined && direction !== 'push') await version.remember()
      const end = await runOnce()
      if (signal.aborted) return
      if (end.stoppedBy !== undefined && FINAL.has(end.stoppedBy.class)) throw end.stoppedBy
      if (!isWell(end)) changes.putBack(places)
      const delayMs = schedule.ended(isWell(end), places === undefined)
      if (delayMs !== undefined) context.onEvent?.({ type: 'run-again', delayMs })
      do due = await schedule.next()
      while (due === 'poll' && !(await version.hasChanged()))
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    watcher?.close()
  }
}
