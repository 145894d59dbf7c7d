/**
 * Carries out the plan of a download, stateless. What is done is decided in plan.ts, what a failure means for the run in
 * outcome.ts.
 * @module
 */
import { existsSync, lstatSync, type Stats, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Api } from '../api/api.ts'
import type { RemoteNode } from '../api/wire.ts'
import { cancelled, localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { MANIFEST_NAME, syncDirectory } from '../local/atomic-file.ts'
import { checkSpace } from '../local/free-space.ts'
import { bytesLeft, inDirectory, type LeftBehind, removeSettled, sweepTree } from '../local/leftovers.ts'
import { createSafeTree, inTheWay, type SafeTree } from '../local/safe-tree.ts'
import { likelyTarget, probeTarget, type Target } from '../local/target.ts'
import { downloadFile } from '../transfer/download.ts'
import { createKeysAhead } from '../transfer/keys-ahead.ts'
import { createLargeFiles } from '../transfer/segments.ts'
import { type KnownPlaces, readKnownPlaces } from './known-places.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from './outcome.ts'
import { type DownloadStep, freeName, mayReplace, planDownload, sameTime } from './plan.ts'
import { isConflict, requireSamePlan, transferLines } from './plan-file.ts'
import { sealOf } from './records.ts'
import { parseRemotePath, requireRemote } from './remote-path.ts'
import {
  DEFAULT_JOBS,
  type DownloadOptions,
  isSameContent,
  memoryOf,
  never,
  type RunContext,
  recordFailures,
  report,
  requireEncryptedSource,
} from './run.ts'
import { type RemoteEntry, readRemoteTree, showPath } from './tree.ts'

type FileStep = Extract<DownloadStep, { do: 'download' }>
type DirectoryStep = Extract<DownloadStep, { do: 'make-directory' }>

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
  const { api } = context
  const signal = options.signal ?? never
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  refuseFileTarget(target)
  const entries: RemoteEntry[] = []
  /** Remote paths of what is remembered somewhere. */
  const places = new Map<number, readonly string[]>()
  for (const source of sources) {
    const above = parseRemotePath(source).slice(0, options.contents ? undefined : -1)
    // One by one: a call takes some 100,000 arguments at most.
    for (const entry of await listSource(api, source, options.contents ?? false, signal)) {
      entries.push(entry)
      if (options.state !== undefined) places.set(entry.node.id, [...above, ...entry.path])
    }
  }
  for (const { node, path } of entries) requireEncryptedSource(node, `/${showPath(path)}`, options)
  const disk = options.dryRun ? likelyTarget() : probeTarget(nearestDirectory(target))
  const wanted = planDownload(entries, { foldCase: disk.foldsCase, names: options.names })
  const { steps, directories, skipped } = lookAtDisk(target, disk, wanted, options, signal)
  const lines = transferLines(steps)
  if (options.planned !== undefined) requireSamePlan(options.planned, lines)

  const tally = createTally()
  tally.files = entries.filter((entry) => entry.node.type === 'file').length
  tally.skipped = skipped
  recordFailures(options.dryRun ? steps.filter((step) => !isConflict(step)) : steps, tally, context)
  if (options.dryRun) return { ...summarize(tally, 0), steps: lines }
  const tree = createSafeTree(target)
  try {
    return await carryOut(context, tree, { sources, places, wanted, steps, directories }, tally, options)
  } finally {
    tree.close()
  }
}

interface DownloadPlan {
  readonly sources: readonly string[]
  /** Remote paths by node, of what is remembered somewhere. */
  readonly places: ReadonlyMap<number, readonly string[]>
  readonly wanted: readonly DownloadStep[]
  readonly steps: readonly DownloadStep[]
  readonly directories: readonly DirectoryStep[]
}

async function carryOut(
  context: RunContext,
  tree: SafeTree,
  { sources, places, wanted, steps, directories }: DownloadPlan,
  tally: Tally,
  options: DownloadOptions,
): Promise<RunSummary> {
  const { keyring } = context
  const signal = options.signal ?? never
  for (const step of directories) guardDirectory(context, tree, step, tally)
  const leftovers = await sweep(context, tree, directories)
  // Rules do not count here, but others may: what comes into a synchronized directory waits there.
  await context.rules?.hold(
    tree.root,
    steps.filter((step) => step.do === 'download'),
  )
  const downloads: FileStep[] = []
  for (const step of steps) {
    if (step.do === 'download' && (await isNeeded(context, tree.root, step, tally, signal))) downloads.push(step)
  }
  const bytes = downloads.reduce((sum, { node }) => sum + (node.size ?? 0), 0)
  context.onEvent?.({ type: 'planned', files: downloads.length, bytes, skipped: tally.skipped })
  if (downloads.some(({ node }) => node.isEncrypted)) await keyring.ownKey(signal)
  await checkSpace(tree.root, bytes - bytesLeft(leftovers))

  const known = await readKnown(context, options, sources)
  const keys = createKeysAhead(
    context,
    downloads.map(({ node }) => node),
  )
  const large = createLargeFiles(options.memory === undefined ? undefined : memoryOf(options))
  const changed = new Map<string, readonly string[]>()
  const work = async ({ shown, path, node, replaces }: FileStep, stop: AbortSignal) => {
    const parent = path.slice(0, -1)
    const directory = tree.hold(parent)
    const openKey = async (one: RemoteNode, when: AbortSignal) => {
      const fileKey = await keys.take(one, when)
      try {
        const place = places.get(node.id)
        if (place !== undefined) known?.judge(place, node, fileKey && sealOf(fileKey))
      } catch (error) {
        fileKey?.wipe()
        throw error
      }
      return fileKey
    }
    try {
      const beforeRename = () => tree.check(parent)
      const how = { shown, replaces, beforeRename, openKey, large, directory }
      const bytes = await downloadFile(context, node, directory.at(path.at(-1)!), how, stop)
      changed.set(showPath(parent), parent)
      return bytes
    } finally {
      directory.release()
    }
  }
  const onFailure = (failure: { path: string; error: SyncError }) => report(context, failure.path, failure.error)
  await runEntries(downloads, options.jobs ?? DEFAULT_JOBS, tally, work, { signal, onFailure, onBusy: context.onBusy })
  await keys.close()
  await large.close()
  await context.rules?.note(tree.root)
  await makeDurable(tree, changed, tally)
  if (tally.stoppedBy === undefined) {
    await removeSettled(tree, leftovers, settledPaths(wanted, tally), context.clock)
  }
  return summarize(tally, 0)
}

/** What runs of pairs have found at the sources. */
async function readKnown(
  { clock, onEvent }: RunContext,
  { state }: DownloadOptions,
  sources: readonly string[],
): Promise<KnownPlaces | undefined> {
  if (state === undefined) return undefined
  return readKnownPlaces(state, sources, clock.now(), (keptAs) =>
    onEvent?.({
      type: 'warning',
      code: 'STATE_DAMAGED',
      message: `The state of a pair was damaged; it was put aside as ${keptAs}`,
    }),
  )
}

/** New names survive a power cut from here on; what is said to be transferred is. */
async function makeDurable(
  tree: SafeTree,
  directories: ReadonlyMap<string, readonly string[]>,
  tally: Tally,
): Promise<void> {
  for (const [shown, path] of directories) {
    try {
      await inDirectory(tree, path, syncDirectory)
    } catch (error) {
      tally.stoppedBy ??= toSyncError(localError(error, `sync ${shown || tree.root}`))
    }
  }
}

/** Tidies up after runs that were killed; returns what this one may go on with. */
function sweep({ clock }: RunContext, tree: SafeTree, steps: readonly DirectoryStep[]): Promise<LeftBehind[]> {
  const directories = new Map([['', [] as readonly string[]]])
  for (const { path } of steps) directories.set(showPath(path), path)
  return sweepTree(tree, directories.values(), clock)
}

/** Paths of the files that are complete now. */
function settledPaths(steps: readonly DownloadStep[], tally: Tally): Set<string> {
  const failed = new Set(tally.failed.map(({ path }) => path))
  return new Set(
    steps.flatMap((step) => (step.do === 'download' && !failed.has(step.shown) ? [showPath(step.path)] : [])),
  )
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

function guardDirectory(context: RunContext, tree: SafeTree, step: DirectoryStep, tally: Tally): void {
  try {
    tree.ensureDirectory(step.path)
  } catch (thrown) {
    const error = toSyncError(thrown)
    tally.failed.push({ path: step.shown, error })
    report(context, step.shown, error)
  }
}

/** Decides by what is on the disk, which it does not change. */
function lookAtDisk(
  root: string,
  disk: Target,
  wanted: readonly DownloadStep[],
  options: DownloadOptions,
  signal: AbortSignal,
): { steps: DownloadStep[]; directories: DirectoryStep[]; skipped: number } {
  const steps: DownloadStep[] = []
  /** Those that are there, and those to be made. */
  const directories: DirectoryStep[] = []
  const names = new Set(wanted.flatMap((step) => (step.do === 'download' ? showPath(step.path) : [])))
  /** Where no directory can be. That is told of them, not again of all that would be in them. */
  const blocked = new Set<string>()
  let skipped = 0
  for (const step of wanted) {
    if (signal.aborted) throw cancelled(signal)
    if (step.do === 'fail') {
      steps.push(step)
      continue
    }
    const path = showPath(step.path)
    const isBlocked = blocked.has(showPath(step.path.slice(0, -1)))
    if (isBlocked && step.do === 'make-directory') blocked.add(path)
    if (isBlocked) continue
    try {
      const info = lookAt(`${root}/${path}`)
      if (step.do === 'make-directory') {
        if (info !== undefined && !info.isDirectory()) throw inTheWay(`${root}/${path}`)
        if (info === undefined) steps.push(step)
        directories.push(step)
      } else {
        const decided = info === undefined ? step : decide(root, disk, step, info, options, names)
        if (decided === undefined) skipped++
        else steps.push(decided)
      }
    } catch (thrown) {
      if (step.do === 'make-directory') blocked.add(path)
      steps.push({ do: 'fail', shown: step.shown, error: toSyncError(thrown) })
    }
  }
  return { steps, directories, skipped }
}

function lookAt(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw localError(error, 'look at the target')
  }
}

/** What to do about a file whose name is on the disk; `undefined` for nothing. */
function decide(
  root: string,
  disk: Target,
  step: FileStep,
  info: Stats,
  options: DownloadOptions,
  names: Set<string>,
): FileStep | undefined {
  if (!info.isFile()) {
    throw new SyncError('conflict', 'LOCAL_NOT_A_FILE', 'Something that is not a file has this name', {
      hint: 'Move it away, then run again.',
    })
  }
  const { path, node } = step
  const modified = node.timestampModification ?? node.updatedAt
  const isSameSize = info.size === node.size
  const isCompared = isSameSize && options.checksum === true
  const isSame = isSameSize && modified !== undefined && isTimeOn(disk, modified, info.mtimeMs)
  const action = options.onConflict ?? 'fail'
  if (isSame && !isCompared) return undefined
  if (action === 'skip' || (action === 'newer' && !mayReplace(action, modified ?? 0, info.mtimeMs))) return undefined
  const reason = isCompared ? 'contents are compared' : action === 'newer' ? 'newer there' : 'they differ'
  const found = { ...step, reason, ...(isCompared ? { compareWith: path } : {}) }
  if (action === 'rename') {
    const parent = path.slice(0, -1)
    const name = freeName(path.at(-1)!, (candidate) => isFree(root, [...parent, candidate], names))
    return { ...found, path: [...parent, name], beside: showPath(path) }
  }
  if (action !== 'fail') return { ...found, replaces: { size: info.size, mtimeMs: info.mtimeMs } }
  const refusal = new SyncError('conflict', 'LOCAL_DIFFERS', 'The local file differs and was kept', {
    hint: 'See --on-conflict for what else can be done.',
  })
  if (isCompared) return { ...found, refusal }
  throw refusal
}

/** True when a file that was given one time has the other on this disk. */
function isTimeOn(disk: Target, wanted: number, found: number): boolean {
  if (sameTime(wanted, found) || Math.abs(wanted - found) < disk.resolutionMs) return true
  try {
    return sameTime(disk.heldTime(wanted), found)
  } catch {
    return false
  }
}

/** Compares contents where that decides; false when there is nothing to download. */
async function isNeeded(
  context: RunContext,
  root: string,
  { node, shown, compareWith, refusal }: FileStep,
  tally: Tally,
  signal: AbortSignal,
): Promise<boolean> {
  if (compareWith === undefined) return true
  if (signal.aborted) throw cancelled(signal)
  try {
    if (await isSameContent(context, node, `${root}/${showPath(compareWith)}`, shown, signal)) {
      tally.skipped++
      return false
    }
    if (refusal !== undefined) throw refusal
    return true
  } catch (thrown) {
    const error = toSyncError(thrown)
    tally.failed.push({ path: shown, error })
    report(context, shown, error)
    return false
  }
}

/** The directory itself, or what it would be made in. */
function nearestDirectory(path: string): string {
  for (let at = resolve(path); ; at = dirname(at)) if (existsSync(at) || at === dirname(at)) return at
}

/** Nothing has this name on the disk, and nothing will get it; then it is taken. */
function isFree(root: string, path: readonly string[], names: Set<string>): boolean {
  const shown = showPath(path)
  if (names.has(shown)) return false
  try {
    lstatSync(`${root}/${shown}`)
    return false
  } catch (error) {
    // Whoever cannot look would look for ever.
    if (systemCode(error) !== 'ENOENT') throw localError(error, 'look at the target')
  }
  names.add(shown)
  return true
}
