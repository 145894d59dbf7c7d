/**
 * A drill: files of the newest run, chosen by chance, are restored into a scratch directory, read back from there and compared
 * with the manifest. What comes of it is a report with a date.
 * @module
 */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../environment.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { makePrivateDirectory } from '../../local/atomic-file.ts'
import { takeLock } from '../../local/lock.ts'
import { hashFile } from '../hash.ts'
import { never, type RunContext, type StatePlace } from '../run.ts'
import type { FileEntry, Manifest } from './manifest.ts'
import { requireState, setDirectory } from './memory.ts'
import { type RestoreSummary, runRestore } from './restore.ts'
import type { SetPlace } from './set.ts'

/** How much is tried. */
export interface DrillOptions {
  /** See `BackupOptions`. */
  readonly state?: StatePlace | undefined
  /** A number of files, or a share of all. Default 5 %, at least 10 files. */
  readonly sample?: { readonly files: number } | { readonly share: number } | undefined
  readonly jobs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** What a drill has found, as it is kept in a file. */
export interface DrillReport {
  readonly format: 'sealsync-drill'
  readonly version: 1
  /** ISO 8601. */
  readonly at: string
  readonly set: string
  readonly target: string
  readonly run: string
  /** Held against what this machine knew, so an older state would have been noticed. */
  readonly isPinned: boolean
  readonly files: number
  readonly sampled: number
  readonly bytes: number
  readonly isRight: boolean
  readonly failed: readonly { readonly path: string; readonly code: string; readonly message: string }[]
}

const lockOf = (directory: string) => join(directory, 'drill.lock')
const scratchOf = (directory: string) => join(directory, 'drill')

/**
 * Removes what a drill that was killed has restored: nobody else would look for it.
 *
 * @param directory - See `setDirectory`.
 */
export async function removeDeadDrill(directory: string, clock: Clock): Promise<void> {
  if (!existsSync(scratchOf(directory))) return
  try {
    const lock = await takeLock(lockOf(directory), { clock, waitMs: 0 })
    try {
      rmSync(scratchOf(directory), { recursive: true, force: true })
    } finally {
      await lock.release()
    }
  } catch {
    // It is at work, or cannot be removed, which the next drill tells.
  }
}

const MIN_SAMPLE = 10
const SHARE = 0.05

/**
 * Runs a drill.
 *
 * @returns the report, and the summary that decides about the exit code.
 */
export async function drillBackup(
  context: RunContext,
  place: SetPlace,
  options: DrillOptions = {},
): Promise<{ report: DrillReport; summary: RestoreSummary }> {
  const signal = options.signal ?? never
  const { clock } = context
  const state = await requireState(context, options)
  const directory = setDirectory(state, place)
  const lock = await takeLock(lockOf(directory), { clock, waitMs: 0, signal })
  const scratch = scratchOf(directory)
  const clean = () => rmSync(scratch, { recursive: true, force: true })
  try {
    clean() // of a drill that was killed
    await makePrivateDirectory(scratch)
    const at = new Date(clock.now()).toISOString()
    let files = 0
    let chosen: readonly FileEntry[] = []
    const pair = { account: state.account, local: scratch, remote: place.target }
    const how = { jobs: options.jobs ?? 4, signal }
    const checked = new Map<string, string>()
    const choose = ({ entries }: Manifest) => {
      const all = entries.filter((entry): entry is FileEntry => entry.kind === 'file')
      files = all.length
      // Readable here, whatever the mode.
      chosen = chooseSome(all, sizeOf(options.sample, files), context).map((one) => ({ ...one, mode: 0o600 }))
      return chosen
    }
    const onChecked = (path: string, sha256: string) => void checked.set(path, sha256)
    const restored = await runRestore(context, place, pair, state, undefined, how, choose, onChecked)
    const failed = [...restored.failed]
    const told = new Set(failed.map(({ path }) => path))
    for (const { path } of restored.stoppedBy === undefined ? chosen : []) {
      const shown = `/${path}`
      if (told.has(shown)) continue
      try {
        // From the disk: what was written is what was checked, and is still there.
        if ((await hashFile(join(scratch, path), shown, signal)) !== checked.get(path)) throw differs()
      } catch (error) {
        failed.push({ path: shown, error: toSyncError(error) })
      }
    }
    const summary = { ...restored, failed }
    const { stoppedBy } = summary
    const wrong = [...failed, ...(stoppedBy === undefined ? [] : [{ path: '', error: stoppedBy }])]
    const report: DrillReport = {
      format: 'sealsync-drill',
      version: 1,
      at,
      set: place.name,
      target: place.target,
      run: restored.run,
      isPinned: restored.isPinned,
      files,
      sampled: chosen.length,
      bytes: chosen.reduce((sum, { size }) => sum + size, 0),
      isRight: wrong.length === 0,
      failed: wrong.map(({ path, error: { code, message } }) => ({ path, code, message })),
    }
    return { report, summary }
  } finally {
    clean()
    await lock.release()
  }
}

const differs = () =>
  new SyncError('integrity', 'RESTORED_DIFFERS', 'What was written to this disk is not what was read back', {
    hint: 'Check this disk.',
  })

function sizeOf(sample: DrillOptions['sample'], files: number): number {
  const wanted =
    sample === undefined
      ? Math.max(MIN_SAMPLE, Math.ceil(files * SHARE))
      : 'files' in sample
        ? sample.files
        : Math.ceil(files * sample.share)
  return Math.min(files, wanted)
}

/** Some of the files, each with the same chance, none twice. */
function chooseSome(files: readonly FileEntry[], count: number, { random }: RunContext): FileEntry[] {
  const pool = [...files]
  for (let at = 0; at < count; at++) {
    const other = at + Math.floor(random.next() * (pool.length - at))
    ;[pool[at], pool[other]] = [pool[other]!, pool[at]!]
  }
  return pool.slice(0, count)
}
