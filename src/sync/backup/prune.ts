/**
 * Which runs stay, and removing the others: first their manifests, then what of the history no manifest refers to any more. All
 * of it goes to the recycle bin of the room; the current state is never touched.
 * @module
 */

import type { Api } from '../../api/api.ts'
import { deleteNode, deleteNodes } from '../../api/nodes.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { never, type RunContext } from '../run.ts'
import { type RemoteEntry, readRemoteTree } from '../tree.ts'
import { type BackupGuards, guardRemoved } from './plan.ts'
import { openRuns, readRun } from './runs.ts'
import { type BackupSet, type Retention, type RunNote, timeOfRun } from './set.ts'
import { type BackupState, type StatePlace, withState } from './state.ts'
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

/**
 * The runs that stay: the `last` newest, and of each of the newest `daily` days that have runs the newest complete run (the
 * newest at all if none is complete), and so on for weeks, months and years. Always the newest, and the newest complete one.
 *
 * @param notes - Oldest first.
 */
export function runsToKeep(notes: readonly RunNote[], keep: Retention): Set<string> {
  const newestFirst = [...notes].reverse()
  const kept = new Set(newestFirst.slice(0, Math.max(1, keep.last ?? 0)).map(({ run }) => run))
  const complete = newestFirst.find(({ isComplete }) => isComplete)
  if (complete !== undefined) kept.add(complete.run)
  for (const [name, periodOf] of Object.entries(PERIODS) as [keyof typeof PERIODS, (ms: number) => number][]) {
    const best = new Map<number, RunNote>()
    for (const note of newestFirst) {
      const period = periodOf(timeOfRun(note.run))
      const there = best.get(period)
      if (there === undefined || (note.isComplete && !there.isComplete)) best.set(period, note)
    }
    // In the order in which they were met: newest first.
    for (const { run } of [...best.values()].slice(0, keep[name] ?? 0)) kept.add(run)
  }
  return kept
}

export interface PruneOptions extends BackupGuards {
  readonly state: StatePlace
  readonly dryRun?: boolean
  readonly waitMs?: number
  readonly signal?: AbortSignal
}

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
 * @throws {SyncError} of class `integrity` when any manifest is missing or cannot be read, `TOO_MANY_DELETIONS` (class
 * `safety`), `NOTHING_KEPT`, `NOT_PINNED`, `LOCKED`. Nothing was removed then.
 */
export async function pruneBackup(context: RunContext, set: BackupSet, options: PruneOptions): Promise<PruneSummary> {
  const signal = options.signal ?? never
  if (Object.values(set.keep).every((count) => !count)) {
    throw new SyncError('usage', 'NOTHING_KEPT', 'The set does not say which runs to keep', {
      hint: 'Give it a table [keep] with last, daily, weekly, monthly or yearly.',
    })
  }
  return withState(context, set, options, signal, (state) => prune(context, set, state, options, signal))
}

async function prune(
  context: RunContext,
  set: BackupSet,
  state: BackupState,
  options: PruneOptions,
  signal: AbortSignal,
): Promise<PruneSummary> {
  const { api } = context
  const { memory } = state
  if (memory === undefined) {
    throw new SyncError(
      'safety',
      'NOT_PINNED',
      'This machine knows nothing of the set, so it cannot tell what may go',
      {
        hint: 'Prune where the backup runs, or run it here first.',
      },
    )
  }
  const store = await requireStore(api, set, signal)
  const runs = await openRuns(context, set, store, memory, signal)
  if (runs.problems.length > 0) throw runs.problems[0]!.error
  const keep = runsToKeep(runs.notes, set.keep)
  const kept = runs.notes.filter(({ run }) => keep.has(run))
  const removed = runs.notes.filter(({ run }) => !keep.has(run))
  const referenced = new Set<number>()
  for (const { entry } of state.files.values()) referenced.add(entry.node)
  for (const note of runs.notes) {
    // Also those that go: one that cannot be read says that something is wrong here.
    const { entries } = await readRun(context, set, note, signal)
    if (!keep.has(note.run)) continue
    for (const entry of entries) if (entry.kind === 'file') referenced.add(entry.node)
  }
  const history = await readRemoteTree(api, store.history, store.roomId, { signal })
  const dead = findDead(history, referenced)
  const files = history.filter(({ node }) => node.type === 'file' && !referenced.has(node.id))
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
  await state.setMemory({
    ...memory,
    runs: [...memory.runs.filter((note) => !runs.notes.includes(note)), ...runs.notes],
    pruning: going,
  })
  for (const note of removed) if (!manifests.includes(note.node)) manifests.push(note.node)
  await remove(api, manifests, signal)
  for (const ids of dead) await remove(api, ids, signal)
  await state.setMemory({ ...memory, runs: kept, pruning: [] })
  return summary
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
