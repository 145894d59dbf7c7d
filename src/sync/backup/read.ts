/** Reading a backup set: which runs there are, and what is in one. @module */
import { SyncError } from '../../errors.ts'
import { never, type RunContext, type StatePlace, stateOf } from '../run.ts'
import type { BackupEntry, Manifest } from './manifest.ts'
import { readMemory, setDirectory } from './memory.ts'
import { openRuns, type Runs, readRun, requireNewest, shownManifest, tellUnpinned } from './runs.ts'
import { componentsOf, findRun, isWithin, type RunNote, type SetPlace } from './set.ts'
import { requireStore } from './store.ts'

/** One run, and what is known of all. */
export interface Found {
  readonly runs: Runs
  readonly note: RunNote
  readonly manifest: Manifest
}

/**
 * The runs of a set, checked against what this machine knows.
 *
 * @throws {SyncError} `SET_MISSING`, `TARGET_REPLACED`, or of class `integrity` where there is nothing to go by.
 */
export async function listRuns(
  context: RunContext,
  place: SetPlace,
  state?: StatePlace,
  signal: AbortSignal = never,
): Promise<Runs> {
  const kept = state ?? (await stateOf(context, signal))
  const memory = kept && (await readMemory(setDirectory(kept, place)))
  const store = await requireStore(context.api, place, signal)
  if (memory !== undefined && memory.targetId !== store.target.id) {
    throw new SyncError('integrity', 'TARGET_REPLACED', `${place.target} is not the folder that the backup was in`, {
      hint: 'Ask who has access to the room.',
    })
  }
  const runs = await openRuns(context, place, store, memory, signal)
  if (!runs.isPinned && runs.notes.length > 0) tellUnpinned(context, runs)
  return runs
}

/** One run and what is in it. `latest` is the newest that is known, never one before it. */
export async function openRun(
  context: RunContext,
  place: SetPlace,
  wanted: string,
  state?: StatePlace,
  signal: AbortSignal = never,
): Promise<Found> {
  const runs = await listRuns(context, place, state, signal)
  if (wanted === 'latest') requireNewest(runs)
  const problem = runs.problems.find(({ path }) => path === shownManifest(wanted))
  if (problem !== undefined) throw problem.error
  const note = findRun(runs.notes, wanted)
  const manifest = runs.newest?.run === note.run ? runs.newest : await readRun(context, place, note, signal)
  return { runs, note, manifest }
}

/** Entries at or below any of the paths; all of them without paths. */
export function entriesBelow(entries: readonly BackupEntry[], paths: readonly string[]): readonly BackupEntry[] {
  if (paths.length === 0) return entries
  const wanted = paths.map((path) => {
    const parts = componentsOf(path)
    const isThere = entries.some((entry) => isWithin(componentsOf(entry.path), parts))
    if (path.startsWith('/') && isThere) return parts
    throw new SyncError('not_found', 'PATH_MISSING', `There is no ${path} in this run`, {
      hint: 'Paths are absolute, as they were on the machine: /etc/hosts',
    })
  })
  return entries.filter(({ path }) => wanted.some((parts) => isWithin(componentsOf(path), parts)))
}
