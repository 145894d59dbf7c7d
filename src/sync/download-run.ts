/**
 * Carries out the plan of a download, stateless. What is done is decided in plan.ts, what a failure means for the run in
 * outcome.ts.
 * @module
 */
import { lstatSync, type Stats, statSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Api } from '../api/api.ts'
import { cancelled, localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { MANIFEST_NAME, syncDirectory } from '../local/atomic-file.ts'
import { type Leftover, sweepDirectory } from '../local/partial-file.ts'
import { createSafeTree, foldsCase } from '../local/safe-tree.ts'
import { downloadFile, storableTime } from '../transfer/download.ts'
import { createKeysAhead } from '../transfer/keys-ahead.ts'
import { createLargeFiles } from '../transfer/segments.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from './outcome.ts'
import { type DownloadStep, freeName, mayReplace, planDownload, sameTime } from './plan.ts'
import { requireRemote } from './remote-path.ts'
import {
  DEFAULT_JOBS,
  type DownloadOptions,
  isSameContent,
  memoryOf,
  never,
  type RunContext,
  recordFailures,
  report,
} from './run.ts'
import { type RemoteEntry, readRemoteTree, showPath } from './tree.ts'

type DownloadStepOf<K extends DownloadStep['do']> = Extract<DownloadStep, { do: K }>

/**
 * Downloads files and directories into a local directory, which is made if missing; skips equal files; keeps and reports
 * local files that differ unless told otherwise; never deletes.
 *
 * @returns the summary, also when something stopped the run (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is transferred.
 */
export async function runDownload(
  context: RunContext,
  sources: readonly string[],
  target: string,
  options: DownloadOptions = {},
): Promise<RunSummary> {
  const { api, keyring } = context
  const signal = options.signal ?? never
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  refuseFileTarget(target)
  const entries: RemoteEntry[] = []
  for (const source of sources) {
    // One by one: a call takes some 100,000 arguments at most.
    for (const entry of await listSource(api, source, options.contents ?? false, signal)) entries.push(entry)
  }
  const tree = createSafeTree(target)
  const steps = planDownload(entries, { foldCase: foldsCase(tree.root) })

  const tally = createTally()
  tally.files = entries.filter((entry) => entry.node.type === 'file').length
  recordFailures(steps, tally, context)
  for (const step of steps) if (step.do === 'make-directory') guardDirectory(context, tree, step, tally)
  const leftovers = await sweep(context, tree, steps)
  const downloads: Planned[] = []
  const names = new Set(steps.flatMap((step) => (step.do === 'download' ? showPath(step.path) : [])))
  for (const step of steps)
    if (step.do === 'download') await look(context, tree.root, step, options, tally, downloads, names, signal)
  const bytes = downloads.reduce((sum, { step }) => sum + (step.node.size ?? 0), 0)
  context.onEvent?.({ type: 'planned', files: downloads.length, bytes, skipped: tally.skipped })
  if (downloads.some(({ step }) => step.node.isEncrypted)) await keyring.ownKey(signal)
  await checkSpace(tree.root, bytes - leftovers.reduce((sum, { bytes }) => sum + bytes, 0))

  const keys = createKeysAhead(
    context,
    downloads.map(({ step }) => step.node),
  )
  const large = createLargeFiles(options.memory === undefined ? undefined : memoryOf(options))
  const changed = new Set<string>()
  const work = async ({ step, replaces }: Planned, stop: AbortSignal) => {
    const parent = step.path.slice(0, -1)
    const directory = tree.ensureDirectory(parent)
    const beforeRename = () => tree.check(parent)
    const bytes = await downloadFile(
      context,
      step.node,
      `${directory}/${step.path.at(-1)}`,
      { shown: step.shown, replaces, beforeRename, openKey: keys.take, large },
      stop,
    )
    changed.add(directory)
    return bytes
  }
  const onFailure = (failure: { path: string; error: SyncError }) => report(context, failure.path, failure.error)
  await runEntries(downloads, options.jobs ?? DEFAULT_JOBS, tally, work, { signal, onFailure, onBusy: context.onBusy })
  await keys.close()
  await large.close()
  await makeDurable(changed, tally)
  await removeSettled(tree.root, steps, leftovers, tally)
  return summarize(tally, 0)
}

/** New names survive a power cut from here on; what is said to be transferred is. */
async function makeDurable(directories: ReadonlySet<string>, tally: Tally): Promise<void> {
  for (const directory of directories) {
    try {
      await syncDirectory(directory)
    } catch (error) {
      tally.stoppedBy ??= toSyncError(localError(error, `sync ${directory}`))
    }
  }
}

/** Tidies up after runs that were killed; returns what this one may go on with. */
async function sweep(
  { clock }: RunContext,
  tree: ReturnType<typeof createSafeTree>,
  steps: readonly DownloadStep[],
): Promise<Leftover[]> {
  const directories = new Map([['', [] as readonly string[]]])
  for (const step of steps) {
    if (step.do === 'make-directory') directories.set(showPath(step.path), step.path)
  }
  const leftovers: Leftover[] = []
  for (const path of directories.values()) {
    let directory: string
    try {
      directory = tree.ensureDirectory(path)
    } catch {
      continue // told already
    }
    leftovers.push(...(await sweepDirectory(directory, clock)))
  }
  return leftovers
}

/** What an interrupted run left of files that are complete now, in this version or another. */
async function removeSettled(
  root: string,
  steps: readonly DownloadStep[],
  leftovers: readonly Leftover[],
  tally: Tally,
): Promise<void> {
  if (leftovers.length === 0 || tally.stoppedBy !== undefined) return
  const failed = new Set(tally.failed.map(({ path }) => path))
  const settled = new Set(
    steps.flatMap((step) =>
      step.do === 'download' && !failed.has(step.shown) ? [join(root, showPath(step.path))] : [],
    ),
  )
  for (const leftover of leftovers) if (settled.has(leftover.target)) await leftover.remove()
}

function refuseFileTarget(target: string): void {
  try {
    if (statSync(target).isDirectory()) return
  } catch {
    return // it is made, and what prevents that is told then
  }
  throw new SyncError('usage', 'TARGET_IS_FILE', `The local target is not a directory: ${target}`, {
    hint: 'Name a directory; the files are put into it under their own names.',
  })
}

async function listSource(api: Api, source: string, contents: boolean, signal: AbortSignal): Promise<RemoteEntry[]> {
  const { node, roomId } = await requireRemote(api, source, signal)
  if (node.type === 'file') return [{ node, path: [node.name], roomId }]
  const all = await readRemoteTree(api, node, roomId, { signal })
  const below = all.filter((entry) => entry.node.type !== 'file' || entry.path.at(-1) !== MANIFEST_NAME)
  if (contents) return below
  return [
    { node, path: [node.name], roomId },
    ...below.map((entry) => ({ ...entry, path: [node.name, ...entry.path] })),
  ]
}

function guardDirectory(
  context: RunContext,
  tree: ReturnType<typeof createSafeTree>,
  step: DownloadStepOf<'make-directory'>,
  tally: Tally,
): void {
  try {
    tree.ensureDirectory(step.path)
  } catch (thrown) {
    const error = toSyncError(thrown)
    tally.failed.push({ path: step.shown, error })
    report(context, step.shown, error)
  }
}

interface Planned {
  readonly step: DownloadStepOf<'download'>
  readonly shown: string
  /** What stands on the disk and is to be replaced. */
  readonly replaces?: { readonly size: number; readonly mtimeMs: number } | undefined
}

/** Decides about one file by what is on the disk. */
async function look(
  context: RunContext,
  root: string,
  step: DownloadStepOf<'download'>,
  options: DownloadOptions,
  tally: Tally,
  downloads: Planned[],
  names: Set<string>,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) throw cancelled(signal)
  const path = `${root}/${showPath(step.path)}`
  const fail = (error: SyncError) => {
    tally.failed.push({ path: step.shown, error })
    report(context, step.shown, error)
  }
  let info: Stats | undefined
  try {
    info = lstatSync(path)
  } catch (error) {
    if (systemCode(error) === 'ENOTDIR') return // the directory's own failure is reported already
    if (systemCode(error) !== 'ENOENT') return fail(toSyncError(localError(error, 'look at the target')))
  }
  if (info === undefined) {
    downloads.push({ step, shown: step.shown })
    return
  }
  if (!info.isFile()) {
    return fail(
      new SyncError('conflict', 'LOCAL_NOT_A_FILE', 'Something that is not a file has this name', {
        hint: 'Move it away, then run again.',
      }),
    )
  }
  const modified = step.node.timestampModification ?? step.node.updatedAt
  const sameStat =
    info.size === step.node.size && modified !== undefined && sameTime(storableTime(modified), info.mtimeMs)
  let same = sameStat
  if (options.checksum && info.size === step.node.size) {
    try {
      same = await isSameContent(context, step.node, path, step.shown, signal)
    } catch (thrown) {
      return fail(toSyncError(thrown))
    }
  }
  const action = options.onConflict ?? 'fail'
  if (same || (action === 'newer' && !mayReplace(action, modified ?? 0, info.mtimeMs)) || action === 'skip') {
    tally.skipped++
  } else if (action === 'rename') {
    const parent = step.path.slice(0, -1)
    const name = freeName(step.path.at(-1)!, (candidate) => isFree(root, [...parent, candidate], names))
    downloads.push({ step: { ...step, path: [...parent, name] }, shown: step.shown })
  } else if (action !== 'fail') {
    downloads.push({ step, shown: step.shown, replaces: { size: info.size, mtimeMs: info.mtimeMs } })
  } else {
    fail(
      new SyncError('conflict', 'LOCAL_DIFFERS', 'The local file differs and was kept', {
        hint: 'See --on-conflict for what else can be done.',
      }),
    )
  }
}

/** Nothing has this name on the disk, and nothing will get it; then it is taken. */
function isFree(root: string, path: readonly string[], names: Set<string>): boolean {
  const shown = showPath(path)
  if (names.has(shown)) return false
  try {
    lstatSync(`${root}/${shown}`)
    return false
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') return false
  }
  names.add(shown)
  return true
}

/** Refuses at the start what would fill the disk at the end. */
async function checkSpace(root: string, bytes: number): Promise<void> {
  let free: number
  try {
    const { bavail, bsize } = await statfs(root)
    free = bavail * bsize
  } catch {
    return // a file system that does not tell; a full disk is noticed when it is full
  }
  if (bytes > free) {
    throw new SyncError('local_io', 'LOCAL_ENOSPC', `${bytes} bytes do not fit into the ${free} that are free`, {
      hint: 'Free some space, or choose another disk.',
    })
  }
}
