/**
 * Which runs stay, and removing the others: first their manifests, then what of the history no manifest refers to any more. All
 * of it goes to the recycle bin of the room; the current state is never touched.
 * @module
 */

import type { Api } from '../../api/api.ts'
import { deleteNode, deleteNodes } from '../../api/nodes.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { never, type RunContext, type StatePlace } from '../run.ts'
import { type RemoteEntry, readRemoteTree } from '../tree.ts'
import { type BackupGuards, guardRemoved } from './guards.ts'
import { beginMemory, requireState, type SetMemory, withMemory, writeMemory } from './memory.ts'
import { openRuns, type Runs, readRun } from './runs.ts'
import { type BackupSet, compareRuns, isRunId, type Retention, type RunNote, timeOfRun } from './set.ts'
import { requireStore } from './store.ts'

const DAY_MS = 24 * 60 * 60_000
/** The first Monday after the epoch. */
const MONDAY_MS = 4 * DAY_MS

/** In which period a time is, in UTC; weeks begin on Monday. */
const PERIODS: Readonly<Record<Exclude<keyof Retention, 'last'>, (ms: number) => number>> = Object.freeze({
  daily: (ms) => Math.floor(ms / DAY_MS),
  weekly: (ms) => Math.floor((ms - MONDAY_MS) / (7 * DAY_MS)),
  monthly: (ms) => new Date(ms).getUTCFullYear() * 12 + new Date(ms).getUTCMonth(),
  yearly: (ms) => new Date(ms).getUTCFullYear(),
})

/** Clocks of several machines, and one that is being set, differ by so much at most. */
const SKEW_MS = 60 * 60_000

/** Runs that began later than now: a clock was wrong, then or now. */
const runsFromFuture = (notes: readonly RunNote[], now: number): RunNote[] =>
  notes.filter(({ run }) => timeOfRun(run) > now + SKEW_MS)

/**
 * The runs that stay: the `last` newest, and of each of the newest `daily` days that have runs the newest complete run (the
 * newest at all if none is complete), and so on for weeks, months and years. Always the newest, and the newest complete one.
 * When a run began says its id; which one is newer says their order, which no clock has made. Runs from the future stay, and
 * take the place of no other.
 *
 * @param notes - In the order in which they were made.
 * @param now - Milliseconds since the epoch.
 */
export function runsToKeep(notes: readonly RunNote[], keep: Retention, now: number): Set<string> {
  const future = new Set(runsFromFuture(notes, now))
  const newestFirst = notes.filter((note) => !future.has(note)).reverse()
  const kept = new Set([...future].map(({ run }) => run))
  for (const { run } of newestFirst.slice(0, Math.max(1, keep.last ?? 0))) kept.add(run)
  const complete = newestFirst.find(({ isComplete }) => isComplete)
  if (complete !== undefined) kept.add(complete.run)
  for (const [name, periodOf] of Object.entries(PERIODS) as [keyof typeof PERIODS, (ms: number) => number][]) {
    const best = new Map<number, RunNote>()
    for (const note of newestFirst) {
      const period = periodOf(timeOfRun(note.run))
      const there = best.get(period)
      if (there === undefined || (note.isComplete && !there.isComplete)) best.set(period, note)
    }
    const newestPeriods = [...best].sort(([a], [b]) => b - a).slice(0, keep[name] ?? 0)
    for (const [, { run }] of newestPeriods) kept.add(run)
  }
  return kept
}

/** How runs are removed. */
export interface PruneOptions extends BackupGuards {
  /** See `BackupOptions`. */
  readonly state?: StatePlace | undefined
  /** Take the runs that the server has for the right ones where this machine knows nothing of the set, as one that never runs it. */
  readonly acceptRuns?: boolean | undefined
  /** Go on where there are runs from the future: they stay, and the others are kept as if those were not there. */
  readonly acceptFuture?: boolean | undefined
  readonly dryRun?: boolean | undefined
  readonly waitMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** What a prune has removed, or would remove. */
export interface PruneSummary {
  readonly kept: readonly string[]
  readonly removed: readonly string[]
  /** Files of the history that no run refers to any more. */
  readonly files: number
  readonly bytes: number
}

/**
 * Removes the runs that the set does not keep.
 *
 * @throws {SyncError} of class `integrity` when any manifest is missing or cannot be read, `TOO_MANY_DELETIONS`,
 * `RUN_FROM_FUTURE` or `NOT_PINNED` (class `safety`), `NOTHING_KEPT`, `LOCKED`. Nothing was removed then.
 */
export async function pruneBackup(
  context: RunContext,
  set: BackupSet,
  options: PruneOptions = {},
): Promise<PruneSummary> {
  const signal = options.signal ?? never
  if (Object.values(set.keep).every((count) => !count)) {
    throw new SyncError('usage', 'NOTHING_KEPT', 'The set does not say which runs to keep', {
      hint: 'Give it a table [keep] with last, daily, weekly, monthly or yearly.',
    })
  }
  const place = { state: await requireState(context, options), waitMs: options.waitMs }
  return withMemory(context, set, place, signal, async (directory, memory, state) => {
    const stored = function* () {
      for (const { kind, remote } of state.records().values()) if (kind === 'file') yield remote.id
    }
    const known = memory ?? (options.acceptRuns === true ? await adopt(context, set, signal) : undefined)
    return prune(context, set, { directory, memory: known, stored: stored() }, options, signal)
  })
}

/** A memory that begins with the runs that are there. */
async function adopt(context: RunContext, set: BackupSet, signal: AbortSignal): Promise<SetMemory> {
  const store = await requireStore(context.api, set, signal)
  const { notes, problems } = await openRuns(context, set, store, undefined, signal)
  if (problems.length > 0) throw problems[0]!.error
  return beginMemory(set, store.target.id, undefined, notes, store.isWriteOnly)
}

async function prune(
  context: RunContext,
  set: BackupSet,
  {
    directory,
    memory,
    stored,
  }: {
    readonly directory: string
    readonly memory: SetMemory | undefined
    /** Nodes of what is in `files/` now. */
    readonly stored: Iterable<number>
  },
  options: PruneOptions,
  signal: AbortSignal,
): Promise<PruneSummary> {
  const { api } = context
  if (memory === undefined) {
    throw new SyncError(
      'safety',
      'NOT_PINNED',
      'This machine knows nothing of the set, so it cannot tell what may go',
      {
        hint: 'Prune where the backup runs. If this is the machine that prunes a set that is written elsewhere: --accept-runs',
      },
    )
  }
  const store = await requireStore(api, set, signal)
  const runs = await openRuns(context, set, store, memory, signal)
  if (runs.problems.length > 0) throw runs.problems[0]!.error
  const now = context.clock.now()
  const future = runsFromFuture(runs.notes, now)
  if (future.length > 0 && options.acceptFuture !== true) throw fromFuture(future, now)
  const keep = runsToKeep(runs.notes, set.keep, now)
  const kept = runs.notes.filter(({ run }) => keep.has(run))
  const removed = runs.notes.filter(({ run }) => !keep.has(run))
  const referenced = new Set(stored)
  for (const note of runs.notes) {
    // Also those that go: one that cannot be read says that something is wrong here.
    const { entries } = await readRun(context, set, note, signal)
    if (!keep.has(note.run)) continue
    for (const entry of entries) if (entry.kind === 'file') referenced.add(entry.node)
  }
  const history = await readRemoteTree(api, store.history, store.roomId, { signal })
  const isSettled = settledBy(runs.notes)
  const candidates = history.filter(({ path: [run] }) => isSettled(run!))
  const dead = findDead(candidates, referenced)
  const files = candidates.filter(({ node }) => node.type === 'file' && !referenced.has(node.id))
  const summary = {
    kept: kept.map(({ run }) => run),
    removed: removed.map(({ run }) => run),
    files: files.length,
    bytes: files.reduce((sum, { node }) => sum + (node.size ?? 0), 0),
  }
  if (options.dryRun) return summary
  guardRemoved('runs would be removed', removed.length, runs.notes.length, options)
  // Those of an earlier time that did not end are gone, or go now.
  const going = [...new Set([...memory.pruning, ...summary.removed])]
  const manifests = memory.runs.filter(({ run }) => going.includes(run)).map(({ node }) => node)
  await writeMemory(directory, {
    ...memory,
    runs: [...memory.runs.filter((note) => !runs.notes.includes(note)), ...runs.notes],
    pruning: going,
  })
  for (const note of removed) if (!manifests.includes(note.node)) manifests.push(note.node)
  await remove(api, manifests, signal)
  for (const ids of dead) await remove(api, ids, signal)
  await writeMemory(directory, { ...memory, runs: kept, pruning: [] })
  return summary
}

/**
 * True for what belongs to a run that is over: no manifest names the contents of one that is under way, or was interrupted and is gone on
 * with, on another machine.
 */
function settledBy(notes: readonly RunNote[]): (run: string) => boolean {
  const newest = notes.at(-1)?.run
  return (run) => !isRunId(run) || (newest !== undefined && compareRuns(run, newest) <= 0)
}

const fromFuture = (future: readonly RunNote[], now: number) =>
  new SyncError('safety', 'RUN_FROM_FUTURE', futureText(future, now), {
    hint: 'Nothing was removed. Is the clock of this machine right? If it is: --accept-future leaves such runs as they are, and out of account.',
  })

/** Says that runs began later than now, if any did. */
export function tellFuture(
  { onEvent }: Pick<RunContext, 'onEvent'>,
  { notes }: Pick<Runs, 'notes'>,
  now: number,
): void {
  const future = runsFromFuture(notes, now)
  if (future.length > 0) onEvent?.({ type: 'warning', code: 'RUN_FROM_FUTURE', message: futureText(future, now) })
}

function futureText(future: readonly RunNote[], now: number): string {
  const [first] = future
  const others = future.length === 1 ? '' : `, and ${future.length - 1} more,`
  return `Run ${first!.run}${others} began in the future: it is ${new Date(now).toISOString().slice(0, 19)}Z here`
}

/** What nobody refers to, by parent: whole folders where nothing in them is. */
function findDead(history: readonly RemoteEntry[], referenced: ReadonlySet<number>): Iterable<number[]> {
  const alive = new Set<string>()
  const placeOf = (path: readonly string[]) => path.join('/')
  for (const { node, path } of history) {
    if (node.type !== 'file' || !referenced.has(node.id)) continue
    for (let depth = path.length; depth > 0; depth--) alive.add(placeOf(path.slice(0, depth)))
  }
  const dead = new Map<string, number[]>()
  for (const { node, path } of history) {
    const parent = placeOf(path.slice(0, -1))
    if (alive.has(placeOf(path)) || (path.length > 1 && !alive.has(parent))) continue
    const siblings = dead.get(parent)
    if (siblings === undefined) dead.set(parent, [node.id])
    else siblings.push(node.id)
  }
  return dead.values()
}

const DELETE_BATCH = 100

/** Deletes nodes of one folder; one that is gone already is as good. */
async function remove(api: Api, ids: readonly number[], signal: AbortSignal): Promise<void> {
  for (let at = 0; at < ids.length; at += DELETE_BATCH) {
    const batch = ids.slice(at, at + DELETE_BATCH)
    try {
      await deleteNodes(api, batch, signal)
    } catch (error) {
      if (toSyncError(error).class !== 'not_found') throw error
      for (const id of batch) {
        await deleteNode(api, id, signal).catch((one) => {
          if (toSyncError(one).class !== 'not_found') throw one
        })
      }
    }
  }
}
