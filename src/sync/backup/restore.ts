/**
 * Reading a backup set: which runs there are, what is in one, and restoring it. How files get onto the disk is in
 * restore-entries.ts.
 * @module
 */
import { readdirSync } from 'node:fs'
import { localError, SyncError, systemCode, toSyncError } from '../../errors.ts'
import { isTemporaryName } from '../../local/atomic-file.ts'
import { type Lock, takeLock } from '../../local/lock.ts'
import { createSafeTree } from '../../local/safe-tree.ts'
import { createTally, type RunSummary, summarize } from '../outcome.ts'
import { never, type RunContext, report } from '../run.ts'
import type { BackupEntry, Manifest } from './manifest.ts'
import { type OnConflict, restoreEntries } from './restore-entries.ts'
import {
  isSameRestore,
  type RestoreRecord,
  readRestoreRecord,
  restoreLock,
  writeRestoreRecord,
} from './restore-record.ts'
import { openRuns, type Runs, readRun, requireNewest } from './runs.ts'
import { componentsOf, findRun, isWithin, type RunNote, type SetPlace } from './set.ts'
import { backupDirectory, readMemory, type StatePlace } from './state.ts'
import { requireStore } from './store.ts'

/**
 * The runs of a set, checked against what this machine knows.
 *
 * @throws {SyncError} `SET_MISSING`, `TARGET_REPLACED`, or of class `integrity` where there is nothing to go by.
 */
export async function listRuns(
  context: RunContext,
  place: SetPlace,
  state: StatePlace,
  signal: AbortSignal = never,
): Promise<Runs> {
  const memory = await readMemory(backupDirectory(state, place))
  const store = await requireStore(context.api, place, signal)
  if (memory !== undefined && memory.targetId !== store.target.id) {
    throw new SyncError('integrity', 'TARGET_REPLACED', `${place.target} is not the folder that the backup was in`, {
      hint: 'Ask who has access to the room.',
    })
  }
  return openRuns(context, place, store, memory, signal)
}

/** One run and what is in it. `latest` is the newest that is known, never one before it. */
export async function openRun(
  context: RunContext,
  place: SetPlace,
  wanted: string,
  state: StatePlace,
  signal: AbortSignal = never,
): Promise<{ runs: Runs; note: RunNote; manifest: Manifest }> {
  const runs = await listRuns(context, place, state, signal)
  if (wanted === 'latest') requireNewest(runs)
  const problem = runs.problems.find(({ path }) => path.endsWith(`/${wanted}.json`))
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
    const found = entries.filter((entry) => isWithin(componentsOf(entry.path), parts))
    if (path.startsWith('/') && found.length > 0) return parts
    throw new SyncError('not_found', 'PATH_MISSING', `There is no ${path} in this run`, {
      hint: 'Paths are absolute, as they were on the machine: /etc/hosts',
    })
  })
  return entries.filter(({ path }) => wanted.some((parts) => isWithin(componentsOf(path), parts)))
}

export interface RestoreOptions {
  readonly state: StatePlace
  /** Id of a run. Default `latest`. */
  readonly run?: string
  /** Only these, with all they hold. */
  readonly paths?: readonly string[]
  /**
   * What to do with what is there and differs. Without it the target must be new, empty, or one in which the same restore was
   * begun; what differs there is kept.
   */
  readonly onConflict?: OnConflict
  /** Take files of the same size and time for the same, without reading them. */
  readonly trustTimes?: boolean
  readonly jobs?: number
  /** How long to wait for another restore into the same directory to end. Milliseconds. */
  readonly waitMs?: number
  readonly signal?: AbortSignal
}

export interface RestoreSummary extends RunSummary {
  readonly run: string
  readonly isPinned: boolean
}

/**
 * Restores a run below a local directory, under the whole paths: `/etc/hosts` becomes `TARGET/etc/hosts`. Permission bits
 * (without setuid and setgid) and times to the microsecond come back; owners do not. What is there already is compared by its
 * content. A restore that was killed goes on when it is given again.
 *
 * @returns the summary, also when something stopped it (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is written; `LOCKED` while another restore writes there.
 */
export async function restoreBackup(
  context: RunContext,
  place: SetPlace,
  target: string,
  options: RestoreOptions,
): Promise<RestoreSummary> {
  const signal = options.signal ?? never
  const directory = backupDirectory(options.state, place)
  const lock = await lockTarget(context, restoreLock(directory, target), options.waitMs ?? 0, signal)
  try {
    return await restore(context, place, target, directory, { ...options, signal })
  } finally {
    await lock?.release()
  }
}

/** Restoring must be possible where nothing else can be written; then nobody is kept out. */
async function lockTarget(
  { clock }: RunContext,
  path: string,
  waitMs: number,
  signal: AbortSignal,
): Promise<Lock | undefined> {
  try {
    return await takeLock(path, { clock, waitMs, signal })
  } catch (error) {
    if (toSyncError(error).class === 'local_io') return undefined
    throw error
  }
}

async function restore(
  context: RunContext,
  place: SetPlace,
  target: string,
  directory: string,
  options: RestoreOptions & { readonly signal: AbortSignal },
): Promise<RestoreSummary> {
  const { signal } = options
  const isNew = options.onConflict === undefined
  const isFilled = isNew && !isEmpty(target)
  const begun = isFilled ? await readRestoreRecord(directory, target) : undefined
  if (isFilled && begun === undefined) throw notEmpty(target)
  context.onEvent?.({ type: 'phase', text: 'Reading the manifest' })
  const { runs, note, manifest } = await openRun(context, place, options.run ?? 'latest', options.state, signal)
  const paths = options.paths ?? []
  const entries = entriesBelow(manifest.entries, paths)
  const record = { run: note.run, paths }
  if (begun !== undefined && !isSameRestore(begun, record)) throw anotherRestore(target, begun)
  createSafeTree(target).close() // makes it
  if (isNew && begun === undefined) await remember(context, directory, target, record)
  const tally = createTally()
  for (const { path, error } of runs.problems) {
    tally.failed.push({ path, error })
    report(context, path, error)
  }
  await restoreEntries(context, entries, target, tally, { ...options, signal })
  return { ...summarize(tally, 0), run: note.run, isPinned: runs.isPinned }
}

function isEmpty(target: string): boolean {
  try {
    // What was being written when a restore was killed is no content.
    return readdirSync(target).every(isTemporaryName)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return true
    throw localError(error, `look at ${target}`)
  }
}

const notEmpty = (target: string) =>
  new SyncError('conflict', 'TARGET_NOT_EMPTY', `The target is not empty: ${target}`, {
    hint: 'Choose a new directory, or say what to do with what is there: --on-conflict',
  })

const anotherRestore = (target: string, { run, paths }: RestoreRecord) =>
  new SyncError(
    'conflict',
    'TARGET_NOT_EMPTY',
    `The target holds ${paths.length === 0 ? '' : 'a part of '}run ${run}, from an earlier restore: ${target}`,
    {
      hint: 'To go on with that one, name its run and paths. Else choose a new directory, or see --on-conflict.',
    },
  )

/** Restoring must be possible where nothing else can be written, so this is no reason to stop. */
async function remember(context: RunContext, directory: string, target: string, record: RestoreRecord): Promise<void> {
  try {
    await writeRestoreRecord(directory, target, record, context.clock)
  } catch (error) {
    const message = `If this restore is interrupted, it cannot go on: ${toSyncError(error).message}`
    context.onEvent?.({ type: 'warning', code: 'RESTORE_NOT_RECORDED', message })
  }
}
