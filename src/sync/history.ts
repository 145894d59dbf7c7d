/** What runs did before: listing them, doing the same again, and taking back what one did. @module */
import { rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { localError, SyncError } from '../errors.ts'
import { MANIFEST_NAME } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import { type RestoreOptions, restoreBackup } from './backup/restore.ts'
import { type BackupOptions, runBackup } from './backup/run.ts'
import type { BackupSet } from './backup/set.ts'
import { pairOf, runSync, type ScopedOptions, type SyncOptions } from './jobs/pair.ts'
import { type DownloadOptions, runDownload, runUpload, type UploadOptions } from './jobs/transfer.ts'
import { parseRemotePath } from './remote-path.ts'
import { never, type RunContext, type StatePlace } from './run.ts'
import { type Command, lockOf, type SyncSummary, tellDamaged } from './run-job.ts'
import {
  listPairs,
  openState,
  type Pair,
  placesOfPair,
  type RunRecord,
  type SyncState,
  stateDirectory,
} from './state.ts'
import { type UndoResult, undoRun } from './undo.ts'

export const isCommand = (name: string): name is Command =>
  ['push', 'pull', 'both', 'upload', 'download', 'backup', 'restore'].includes(name)

/** Those that are given two places, or sources and a target. */
export type PlacedCommand = Exclude<Command, 'backup' | 'restore'>

/**
 * Places as commands take them (sources, then the target) as a pair, of an account that is not known yet.
 *
 * @throws {SyncError} `OPTION_INVALID` (class `usage`) for a command that there is not, or too few or too many places for it.
 */
export function placesOf(command: Command, places: readonly string[]): Pair {
  const wrong = (message: string) => new SyncError('usage', 'OPTION_INVALID', message)
  if (!isCommand(command)) throw wrong(`There is no run of the kind ${command}`)
  const [sources, target = ''] = [places.slice(0, -1), places.at(-1)]
  const isTransfer = command === 'upload' || command === 'download'
  if (isTransfer ? sources.length === 0 : sources.length !== 1) throw wrong(`${command} takes a source and a target`)
  const isUp = command === 'upload' || command === 'push' || command === 'both'
  const local = isUp ? sources.map((path) => resolve(path)) : [resolve(target)]
  const remote = isUp ? target : sources.join(' ')
  return {
    account: '',
    local: local.join(' '),
    remote,
    ...(isTransfer ? { transfer: { direction: command, sources: isUp ? local : sources } } : {}),
  }
}

/**
 * What is remembered of two places, or of all.
 *
 * @throws {SyncError} `NO_RUNS` when nothing is known of those that were named.
 */
export async function findPairs(
  state: StatePlace,
  { local, remote }: { readonly local?: string | undefined; readonly remote?: string | undefined } = {},
): Promise<readonly Pair[]> {
  const pairs = await listPairs(state.directory, state.account)
  if (local === undefined && remote === undefined) return pairs
  const here = local === undefined ? [] : [resolve(local), pairOf(state.account, local, '/').local]
  const there = remote === undefined ? undefined : `/${parseRemotePath(remote).join('/')}`
  const found = pairs.filter(
    (pair) =>
      (local === undefined || here.includes(pair.local) || here.includes(placesOfPair(pair).local)) &&
      (there === undefined || [there, remote].some((one) => one === pair.remote || one === placesOfPair(pair).remote)),
  )
  if (found.length > 0) return found
  const named = [local, remote].filter((one) => one !== undefined).join(' and ')
  throw new SyncError('usage', 'NO_RUNS', `Nothing is known of ${named}`, { hint: 'See: sync status' })
}

/**
 * Forgets what is remembered of a pair.
 *
 * @throws {SyncError} `LOCKED` while a run of it goes on.
 */
export async function forget(
  { clock }: Pick<RunContext, 'clock'>,
  state: StatePlace,
  pair: Pair,
  signal: AbortSignal = never,
): Promise<void> {
  const directory = stateDirectory(state.directory, pair)
  const lock = await takeLock(lockOf(directory), { clock, waitMs: 0, signal })
  try {
    await rm(directory, { recursive: true, force: true })
  } catch (error) {
    throw localError(error, `remove ${directory}`)
  } finally {
    await lock.release()
  }
}

/** Reads what is remembered of a pair, without keeping others from it. */
export async function readState<T>(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  state: StatePlace,
  pair: Pair,
  read: (state: SyncState) => T,
): Promise<T> {
  const directory = stateDirectory(state.directory, pair)
  const opened = await openState(directory, pair, context.clock.now(), (keptAs) => tellDamaged(context, keptAs))
  try {
    return read(opened)
  } finally {
    await opened.close()
  }
}

/** A run, and between which places it was. */
export interface PastRun {
  readonly pair: Pair
  readonly run: RunRecord
}

/** Runs of these pairs, newest first. */
export async function listRuns(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  state: StatePlace,
  pairs: readonly Pair[],
): Promise<PastRun[]> {
  const found: PastRun[] = []
  for (const pair of pairs) {
    for (const run of await readState(context, state, pair, (one) => one.runs())) found.push({ pair, run })
  }
  // Those of one pair are in the order in which they were made, whatever the clock said.
  if (pairs.length > 1) found.sort((a, b) => b.run.startedAt - a.run.startedAt)
  return found
}

/** How a pair, or a transfer that is remembered, stands. */
export interface PairStatus {
  readonly pair: Pair
  /** Files that are remembered; transfers remember none. */
  readonly files: number
  /** The newest run, whatever became of it. */
  readonly last?: RunRecord
  /** The newest run that did all it was to do. */
  readonly success?: RunRecord
}

/** How each of these pairs stands. */
export async function listStatus(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  state: StatePlace,
  pairs: readonly Pair[],
): Promise<PairStatus[]> {
  const all: PairStatus[] = []
  for (const pair of pairs) {
    const { runs, files } = await readState(context, state, pair, (one) => ({
      runs: one.runs().filter(({ command }) => command !== 'undo'),
      files: [...one.records().values()].filter(({ kind }) => kind === 'file').length,
    }))
    const [last] = runs
    const success = runs.find(({ outcome }) => outcome === 'done')
    all.push({ pair, files, ...(last && { last }), ...(success && { success }) })
  }
  return all
}

/** What runs of any kind are told. */
export type Told = Partial<
  Omit<SyncOptions, 'onConflict'> & UploadOptions & DownloadOptions & Omit<BackupOptions, 'state'> & RestoreOptions
> & {
  /** Of backups. */
  readonly set?: BackupSet | undefined
}

/** How a run is done again. */
export interface Repeat {
  readonly pair: Pair
  readonly command: Command
  /** What the run was told, as far as it decides what is done. */
  readonly options: Told
}

/**
 * The runs to be done again: of each pair its last one, if there is reason for that.
 *
 * @param which - `resume`: those that did not come to their end, whole; `retry`: what failed in them, and nothing else.
 */
export async function listRepeats(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  state: StatePlace,
  pairs: readonly Pair[],
  which: 'resume' | 'retry',
): Promise<Repeat[]> {
  const repeats: Repeat[] = []
  for (const pair of pairs) {
    const last = await readState(context, state, pair, (one) => one.runs().find(({ command }) => isCommand(command)))
    if (last === undefined || !isCommand(last.command)) continue
    const options = (last.options ?? {}) as Repeat['options']
    const { outcome, failed = [] } = last
    if (which === 'resume') {
      const isOpen = outcome === undefined || outcome === 'stopped' || outcome === 'partial'
      if (isOpen) repeats.push({ pair, command: last.command, options })
      continue
    }
    // A point in time is made as a whole.
    if (last.command === 'backup') {
      if (failed.length > 0) repeats.push({ pair, command: last.command, options })
      continue
    }
    // The manifest waits for a run over the whole tree.
    const paths = failed.map(({ path }) => path).filter((path) => path !== MANIFEST_NAME)
    if (paths.length === 0) continue
    if (last.command === 'restore') {
      const places = paths.filter((path) => path.startsWith('/')).map((path) => path.slice(1))
      const some = { ...options.selection, paths: places, pathsMayBeGone: true }
      if (places.length > 0) repeats.push({ pair, command: last.command, options: { ...options, selection: some } })
      continue
    }
    if (pair.transfer?.as !== undefined) {
      repeats.push({ pair, command: last.command, options })
      continue
    }
    const isNamed = pair.transfer !== undefined && options.contents !== true
    const selection = {
      ...options.selection,
      paths: isNamed ? paths.map(belowSource) : paths,
      pathsMayBeGone: true,
    }
    // A part of the tree says nothing about what is gone.
    repeats.push({ pair, command: last.command, options: { ...options, delete: false, selection } })
  }
  return repeats
}

/** What was sent or fetched under the name of a directory, as it is from there on; a file by itself has its name only. */
const belowSource = (path: string): string => path.slice(path.indexOf('/') + 1)

/** Does a run again. */
export function repeat(
  context: RunContext,
  { pair, command, options }: Repeat,
  more: Told & Pick<ScopedOptions, 'places'> = {},
): Promise<SyncSummary> {
  const how = { ...more, ...options }
  const { sources = [], as = false } = pair.transfer ?? {}
  if (command === 'upload') return runUpload(context, sources, pair.remote, { ...how, as })
  if (command === 'download') return runDownload(context, sources, pair.local, { ...how, as })
  const set = { name: pair.backup?.set ?? '', target: pair.remote }
  if (command === 'backup') {
    // What was recorded with the set, though its configuration may have changed since.
    const whole = { sources: [], exclude: [], oneFileSystem: false, keep: {}, ...how.set, ...set }
    return runBackup(context, whole, how)
  }
  if (command === 'restore') return restoreBackup(context, set, pair.local, how)
  const { onConflict, ...rest } = how
  const mirror = onConflict === undefined || onConflict === 'rename' ? {} : { onConflict }
  return runSync(context, pair.local, pair.remote, { ...rest, ...mirror, direction: command })
}

/**
 * Takes back what a run did; see `undoRun`.
 *
 * @throws {SyncError} `NO_RUNS` for an id that nothing is known of; `LOCKED`.
 */
export async function undo(
  context: RunContext,
  state: StatePlace,
  runId: string,
  options: {
    readonly dryRun?: boolean | undefined
    readonly signal?: AbortSignal | undefined
    readonly waitMs?: number | undefined
  } = {},
): Promise<UndoResult> {
  const { clock } = context
  const signal = options.signal ?? never
  for (const pair of await listPairs(state.directory, state.account)) {
    const isKnown = await readState(context, state, pair, (one) => one.runs().some(({ id }) => id === runId))
    if (!isKnown) continue
    const directory = stateDirectory(state.directory, pair)
    const lock = await takeLock(lockOf(directory), { clock, waitMs: options.waitMs ?? 0, signal })
    try {
      const opened = await openState(directory, pair, clock.now(), (keptAs) => tellDamaged(context, keptAs))
      try {
        const result = await undoRun(context, opened, runId, { dryRun: options.dryRun ?? false, signal })
        await opened.flush()
        return result
      } finally {
        await opened.close()
      }
    } finally {
      await lock.release()
    }
  }
  throw new SyncError('usage', 'NO_RUNS', `No run has the id ${runId}`, { hint: 'See: sync runs' })
}
