/**
 * Backup sets as the library offers them: what is in them is that of sync/backup, what is remembered of them is in the client's
 * directory.
 * @module
 */
import { type DrillOptions, type DrillReport, drillBackup } from '../sync/backup/drill.ts'
import type { BackupEntry } from '../sync/backup/manifest.ts'
import { type PruneOptions, type PruneSummary, pruneBackup, tellFuture } from '../sync/backup/prune.ts'
import { entriesBelow, listRuns, openRun } from '../sync/backup/read.ts'
import { type RestoreOptions, type RestoreSummary, restoreBackup } from '../sync/backup/restore.ts'
import { type BackupOptions, type BackupSummary, runBackup } from '../sync/backup/run.ts'
import type { Runs } from '../sync/backup/runs.ts'
import type { BackupSet, Retention, RunNote, SetPlace } from '../sync/backup/set.ts'
import type { StatePlace } from '../sync/run.ts'
import type { Abortable, ClientContext } from './context.ts'

/** A set; all but name, target and sources may be left out. */
export interface BackupSetOptions extends SetPlace, Partial<Omit<BackupSet, 'name' | 'target' | 'sources'>> {
  /** Absolute paths of directories, none within another. */
  readonly sources: readonly string[]
  /** Runs that `prune` keeps. Default: none is pruned. */
  readonly keep?: Retention
}

/** Which run is shown, and what of it. */
export interface ShowOptions extends Abortable {
  /** Id of a run; default `latest`. */
  readonly run?: string | undefined
  /** Only what is at or below these paths. */
  readonly paths?: readonly string[] | undefined
}

/** What is in a run of a set. */
export interface ShownRun {
  readonly note: RunNote
  /** With absolute paths. */
  readonly entries: readonly BackupEntry[]
  /** Absolute paths of what is not in it though it should be. */
  readonly failed: readonly { readonly path: string; readonly code: string }[]
  /** All runs, and what is wrong with them. */
  readonly runs: Runs
}

const fullSet = (set: BackupSetOptions): BackupSet => ({ exclude: [], oneFileSystem: false, keep: {}, ...set })

type Without<T> = Omit<T, 'state'>

/** Also a client without a directory that lasts keeps something, as long as it lives. */
async function stateOf({ home }: ClientContext, signal: AbortSignal | undefined): Promise<StatePlace> {
  return { directory: home.states, account: await home.account(signal) }
}

const withState = async <T extends { readonly signal?: AbortSignal | undefined }>(
  context: ClientContext,
  options: T,
) => ({
  ...options,
  state: await stateOf(context, options.signal),
})

/** Makes a point in time of a set. See `runBackup`; an abort resolves with `stoppedBy`. */
export const run = async (
  context: ClientContext,
  set: BackupSetOptions,
  options: Without<BackupOptions>,
): Promise<BackupSummary> => runBackup(context, fullSet(set), await withState(context, options))

/** The runs of a set, newest last, and what is wrong with them. See `listRuns`. */
export async function list(context: ClientContext, place: SetPlace, { signal }: Abortable): Promise<Runs> {
  const runs = await listRuns(context, place, await stateOf(context, signal), signal)
  tellFuture(context, runs, context.clock.now())
  return runs
}

/** What is in one run of a set. See `openRun`. */
export async function show(context: ClientContext, place: SetPlace, options: ShowOptions): Promise<ShownRun> {
  const { run: wanted = 'latest', paths = [], signal } = options
  const { runs, note, manifest } = await openRun(context, place, wanted, await stateOf(context, signal), signal)
  return { runs, note, entries: entriesBelow(manifest.entries, paths).map(absolute), failed: manifest.failed }
}

const absolute = (entry: BackupEntry): BackupEntry => ({ ...entry, path: `/${entry.path}` })

/** Restores a run into a local directory, which is made. See `restoreBackup`; an abort resolves with `stoppedBy`. */
export const restore = async (
  context: ClientContext,
  place: SetPlace,
  directory: string,
  options: Without<RestoreOptions>,
): Promise<RestoreSummary> => restoreBackup(context, place, directory, await withState(context, options))

/** Removes the runs that the set does not keep. See `pruneBackup`. */
export const prune = async (
  context: ClientContext,
  set: BackupSetOptions,
  options: Without<PruneOptions>,
): Promise<PruneSummary> => pruneBackup(context, fullSet(set), await withState(context, options))

/** Restores a sample into a temporary directory and compares it with the manifest. See `drillBackup`. */
export const drill = async (
  context: ClientContext,
  place: SetPlace,
  options: Without<DrillOptions>,
): Promise<{ report: DrillReport; summary: RestoreSummary }> =>
  drillBackup(context, place, await withState(context, options))
