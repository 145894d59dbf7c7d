/**
 * push, pull and both: one run, or with `--watch` a run, and then another whenever there is reason for one. Every run looks at everything, so what tells of changes
 * (the file system, the server's version number, the clock) only decides when.
 * @module
 */
import { realpathSync } from 'node:fs'
import { getNode } from '../../api/nodes.ts'
import type { Client } from '../../client.ts'
import { type Clock, systemClock } from '../../environment.ts'
import { cancelled, SyncError, systemCode, toSyncError } from '../../errors.ts'
import { createTreeWatcher } from '../../local/tree-watcher.ts'
import type { Direction } from '../../sync/reconcile.ts'
import { requireRemote } from '../../sync/remote-path.ts'
import type { RunEvent } from '../../sync/run.ts'
import { connect } from '../connect.ts'
import { type Context, text } from '../context.ts'
import { EXIT, signalExit } from '../exit-codes.ts'
import type { Output } from '../output.ts'
import { homeDirectory } from '../profile.ts'
import { camelCase, parseDuration } from '../settings.ts'
import { type JobEnd, type JobRun, type Link, measured, runOf, runOne } from './sync.ts'

/** A burst of changes is over after this, or is not waited for any longer. */
const QUIET_MS = 2_000
const BURST_MS = 30_000
/** Of its time, so much at most is spent on runs that changes here call for: one part in five. */
const REST = 4
const FIRST_RETRY_MS = 5_000
const LAST_RETRY_MS = 300_000
const MIN_TIME_MS = 1_000

/** What another run cannot cure. */
const FINAL: ReadonlySet<number> = new Set([EXIT.bug, EXIT.usage, EXIT.login, EXIT.integrity, EXIT.safety, EXIT.key])

export interface ScheduleOptions {
  /** Absent: nobody is asked for changes there. */
  readonly pollMs?: number
  readonly rescanMs: number
}

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
  let wake = () => {}
  signal.addEventListener('abort', () => wake(), { once: true })
  const poll = (now: number) => {
    pollAt = pollMs === undefined ? Number.POSITIVE_INFINITY : now + pollMs
  }
  function due(): { at: number; what: 'run' | 'poll' } {
    // Whatever has changed, a server that cannot be reached is left in peace for a while.
    if (failures > 0) return { at: retryAt, what: 'run' }
    const changes = burst && Math.max(restedAt, Math.min(burst.last + QUIET_MS, burst.first + BURST_MS))
    const at = Math.min(rescanAt, changes ?? Number.POSITIVE_INFINITY)
    return pollAt < at ? { at: pollAt, what: 'poll' } : { at, what: 'run' }
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
    /** A run begins and will see all that has changed up to now. */
    begin(): void {
      begunAt = clock.monotonic()
      burst = undefined
    },
    /** It has ended; returns in how many milliseconds it is tried again, unless all was well. */
    ended(isWell: boolean): number | undefined {
      const now = clock.monotonic()
      restedAt = now + REST * (now - begunAt)
      rescanAt = now + rescanMs
      poll(now)
      failures = isWell ? 0 : failures + 1
      if (isWell) return undefined
      const delay = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1))
      retryAt = now + delay
      return delay
    },
    /** Waits until something is to be done: a run, or a look at the server's version. */
    async next(): Promise<'run' | 'poll'> {
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
        await clock.sleep(at - now, nap.signal).catch(() => {})
      }
    },
  }
}

/** Tells of changes below a directory. Where the system does not, that is said once; runs by the clock have to do then. */
function createWatcher({ output }: Context, root: string, onChange: () => void) {
  const watcher = createTreeWatcher(root, { onChange, passOver: [realPath(homeDirectory())] })
  let isTold = false
  return {
    /** Watches what is there now; before each run. */
    async refresh(): Promise<void> {
      const refusal = await watcher.refresh()
      if (refusal !== undefined && !isTold) tellRefusal(output, root, refusal)
      isTold = refusal !== undefined
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

function tellRefusal(output: Output, root: string, refusal: unknown): void {
  const code = systemCode(refusal)
  const limit = { ENOSPC: 'max_user_watches', EMFILE: 'max_user_instances' }[code ?? '']
  const why =
    limit === undefined
      ? (code ?? toSyncError(refusal).message)
      : `it has no more watches to give, see fs.inotify.${limit}`
  const message = `The system does not tell of all changes in ${root}; they are found by the clock, see --rescan (${why})`
  output.warn(message)
  if (output.json) output.result('', { type: 'warning', code: 'WATCH_REFUSED', message })
}

/** One client for all runs. */
function createKeptLink(context: Context): Link & { client(): Client | undefined; close(): Promise<void> } {
  let opened: Awaited<ReturnType<typeof connect>> | undefined
  let listener: (event: RunEvent) => void
  return {
    async open(onEvent) {
      listener = onEvent
      opened ??= await connect(context, (event) => listener(event))
      return opened
    },
    release: async () => {},
    client: () => opened?.client,
    close: async () => opened?.client.close(),
  }
}

/** The server's number for the state of all that is below a place: it changes with everything there. */
function createVersion(remote: string, clientOf: () => Client | undefined, signal: AbortSignal) {
  let id: number | undefined
  let seen: number | undefined
  async function read(): Promise<number | undefined> {
    const client = clientOf()
    if (client === undefined) return undefined
    try {
      id ??= (await requireRemote(client.api, remote, signal)).node.id
      return (await getNode(client.api, id, signal)).branchVersion
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

function timeOption(context: Context, flag: string, fallback: number): number {
  const ms = measured(context, flag, parseDuration, '5m') ?? fallback
  if (ms >= MIN_TIME_MS) return ms
  throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a time from 1s`)
}

function requireRepeatable({ options }: Context, run: JobRun): void {
  if (run.dryRun) throw new SyncError('usage', 'OPTION_INVALID', '--watch and --dry-run do not go together')
  for (const flag of ['files-from', 'files-from0', 'filter-from']) {
    if (text(options, camelCase(flag)) !== '-') continue
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} - can be read once only; with --watch, name a file`)
  }
}

/** True when all was done that could be: what failed would fail again. */
const isWell = ({ outcome: { stoppedBy, failed } }: JobEnd) =>
  stoppedBy === undefined && !failed.some(({ error }) => error.retryable || error.class === 'changed')

/**
 * Runs a pair again and again, until a signal or a failure that another run cannot cure.
 *
 * @returns the exit code.
 */
async function watch(context: Context, run: JobRun): Promise<number> {
  const { output, signal } = context
  requireRepeatable(context, run)
  const rescanMs = timeOption(context, 'rescan', 15 * 60_000)
  const pollMs = timeOption(context, 'poll', 60_000)
  // A mirror of this side is not asked for by the other one; what happens there is found by the clock.
  const schedule = createSchedule(systemClock, { rescanMs, ...(run.command === 'push' ? {} : { pollMs }) }, signal)
  const link = createKeptLink(context)
  const version = createVersion(run.pair.remote, link.client, signal)
  const watcher = run.command === 'pull' ? undefined : createWatcher(context, run.pair.local, schedule.changed)
  try {
    for (;;) {
      await watcher?.refresh()
      schedule.begin()
      await version.remember()
      const end = await runOne(context, run, link)
      signal.throwIfAborted()
      if (end.outcome.stoppedBy !== undefined && FINAL.has(end.exitCode)) return end.exitCode
      const retryMs = schedule.ended(isWell(end))
      if (retryMs !== undefined) output.info(`The next try is in ${Math.round(retryMs / 1_000)} s.`)
      while ((await schedule.next()) === 'poll' && !(await version.hasChanged())) {}
    }
  } catch (error) {
    if (!signal.aborted) throw error
    return signalExit(toSyncError(cancelled(signal)))
  } finally {
    watcher?.close()
    await link.close()
  }
}

const command =
  (direction: Direction) =>
  async (context: Context, first: string, second: string): Promise<number> => {
    const run = runOf(context, direction, [first, second])
    return context.options.watch === true ? watch(context, run) : (await runOne(context, run)).exitCode
  }

export const push = command('push')
export const pull = command('pull')
export const both = command('both')
