/**
 * Carries out plans through the transfer layer: uploads and downloads of whole trees, stateless. What is done is decided in
 * plan.ts, what a failure means for the run in outcome.ts.
 * @module
 */
import { lstatSync, type Stats, statSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { createContentCheck, type PublicKey } from '../../crypto/index.ts'
import { usesObjectStorage } from '../api/account.ts'
import type { Api } from '../api/api.ts'
import type { RemoteNode } from '../api/wire.ts'
import { cancelled, localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { escapeName } from '../local/names.ts'
import { createSafeTree, foldsCase } from '../local/safe-tree.ts'
import { openStable } from '../local/stable-read.ts'
import { createDistributor } from '../transfer/distribute.ts'
import { type DownloadContext, downloadFile, openFileKey, storableTime } from '../transfer/download.ts'
import type { TransferEvent } from '../transfer/events.ts'
import { createSlabPool } from '../transfer/flow.ts'
import { type UploadContext, uploadFile } from '../transfer/upload.ts'
import { partSizeFor } from '../transfer/upload-channel.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from './outcome.ts'
import { type DownloadStep, planDownload, planUpload, remotePathOf, sameTime, type UploadStep } from './plan.ts'
import { ensureFolder, requireContainer, requireRemote } from './remote-path.ts'
import { type RemoteEntry, readLocalTree, readRemoteTree, remoteKey, showPath } from './tree.ts'

export type RunEvent =
  | TransferEvent
  /** Before the first transfer: what is ahead. */
  | { readonly type: 'planned'; readonly files: number; readonly bytes: number; readonly skipped: number }
  | { readonly type: 'phase'; readonly text: string }

export interface RunContext extends Omit<DownloadContext, 'onEvent'> {
  readonly onEvent?: ((event: RunEvent) => void) | undefined
}

export interface RunOptions {
  /** A directory's content goes directly into the target instead of into a directory of its name. */
  readonly contents?: boolean
  /** Compare contents by recomputing the tag instead of size and time. */
  readonly checksum?: boolean
  /** Files in flight. Default 16. */
  readonly jobs?: number
  readonly signal?: AbortSignal
}

export interface UploadOptions extends RunOptions {
  /** Refuse targets that are not encrypted. */
  readonly requireEncryption?: boolean
  /** Bytes per part, at least 5 MiB. Default 8 MiB. */
  readonly partSize?: number
}

export interface DownloadOptions extends RunOptions {
  /** Replace local files that differ; otherwise they are kept and reported as conflicts. */
  readonly overwrite?: boolean
}

export const DEFAULT_JOBS = 16
export const DEFAULT_PART_SIZE = 8 * 1024 * 1024
/** Parts in flight per file, and part buffers of the whole run. */
const WINDOW = 3
const SLABS = 5

const never = new AbortController().signal

type UploadStepOf<K extends UploadStep['do']> = Extract<UploadStep, { do: K }>
type DownloadStepOf<K extends DownloadStep['do']> = Extract<DownloadStep, { do: K }>

function recordFailures(steps: readonly (UploadStep | DownloadStep)[], tally: Tally, context: RunContext): void {
  for (const step of steps) {
    if (step.do !== 'fail') continue
    tally.failed.push({ path: step.shown, error: step.error })
    report(context, step.shown, step.error)
  }
}

const report = (context: RunContext, path: string, error: SyncError) =>
  context.onEvent?.({ type: 'file-failed', path, code: error.code, message: error.message })

/**
 * Uploads files and directories into a room or folder; makes missing folders; skips what is there with equal content; never
 * deletes.
 *
 * @returns the summary, also when something stopped the run (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is transferred: sources, target, encryption, key pair, permission.
 */
export async function runUpload(
  context: RunContext,
  sources: readonly string[],
  target: string,
  options: UploadOptions = {},
): Promise<RunSummary> {
  const { api, keyring } = context
  const signal = options.signal ?? never
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  checkTarget(container, options)
  const local = await readLocalTree(sources, { contents: options.contents ?? false, signal })
  const wrapFor = container.isEncrypted === true ? await keyring.ownKey(signal) : undefined
  const direct = await usesObjectStorage(api, signal)
  const remote = missing.length > 0 ? [] : await listForUpload(api, container, roomId, local.entries, signal)
  const steps = planUpload(local.entries, new Map(remote.map((entry) => [remoteKey(entry.path), entry])), {
    checksum: options.checksum ?? false,
  })

  const tally = createTally()
  const uploads = steps.filter((step): step is UploadStepOf<'upload'> => step.do === 'upload')
  tally.files = local.entries.filter((entry) => entry.kind === 'file').length
  tally.skipped = steps.filter((step) => step.do === 'skip').length
  for (const failure of local.failures) {
    tally.failed.push(failure)
    report(context, failure.path, failure.error)
  }
  recordFailures(steps, tally, context)
  const bytes = uploads.reduce((sum, step) => sum + step.entry.size, 0)
  context.onEvent?.({ type: 'planned', files: uploads.length, bytes, skipped: tally.skipped })

  const distributor = createDistributor(api, keyring, { onEvent: context.onEvent, signal })
  try {
    const places = await makeFolders(context, container, roomId, missing, remote, steps, tally, signal)
    const upload = createUploader(context, options, direct, wrapFor, places)
    const onFailure = (failure: { path: string; error: SyncError }) => report(context, failure.path, failure.error)
    const work = async (step: UploadStepOf<'upload'>, stop: AbortSignal) => {
      const done = await upload(step, stop)
      if (done?.fileKey) await distributor.remember(done.roomId, done.node.id, done.fileKey)
      return done?.bytes
    }
    await runEntries(uploads, options.jobs ?? DEFAULT_JOBS, tally, work, { signal, onFailure })
    if (tally.stoppedBy === undefined) {
      if (wrapFor !== undefined) distributor.include(roomId)
      await distributor.flush()
    }
  } catch (error) {
    tally.stoppedBy ??= toSyncError(signal.aborted ? signal.reason : error)
  }
  return summarize(tally, local.ignored)
}

function checkTarget(container: RemoteNode, options: UploadOptions): void {
  if (options.requireEncryption && container.isEncrypted !== true) {
    throw new SyncError('safety', 'NOT_ENCRYPTED', 'The target is not encrypted, and encryption is required', {
      hint: 'Choose an encrypted room. If this one was encrypted before, ask its administrator what happened.',
    })
  }
  if (container.permissions?.create === false) {
    throw new SyncError('permission', 'FORBIDDEN', 'You may not put files into this room', {
      hint: 'Ask the administrator of the room for the permission to create.',
    })
  }
}

/** Lists only the part of the target that the sources could meet. */
function listForUpload(
  api: Api,
  container: RemoteNode,
  roomId: number,
  entries: readonly { kind: string; path: readonly string[] }[],
  signal: AbortSignal,
): Promise<RemoteEntry[]> {
  const wanted = new Set<string>()
  for (const { kind, path } of entries) {
    const remote = kind === 'directory' ? remotePathOf(path) : undefined
    if (remote !== undefined) wanted.add(remoteKey(remote))
  }
  return readRemoteTree(api, container, roomId, { enter: (entry) => wanted.has(remoteKey(entry.path)), signal })
}

interface Place {
  readonly id: number
  readonly roomId: number
}

/** Where to put something; throws what became of its folder. That was tried already, so it says nothing new about the server. */
function placeOf(place: Place | SyncError | undefined, shown: string): Place {
  if (place === undefined) throw new Error(`no folder for ${shown}`)
  if (!(place instanceof SyncError)) return place
  throw new SyncError(place.class, place.code, `The folder for it could not be made: ${place.message}`, {
    ...(place.hint === undefined ? {} : { hint: place.hint }),
    cause: place,
  })
}

/** Makes the missing folders, parents first; returns where every folder is. */
async function makeFolders(
  context: RunContext,
  container: RemoteNode,
  roomId: number,
  missing: readonly string[],
  remote: readonly RemoteEntry[],
  steps: readonly UploadStep[],
  tally: Tally,
  signal: AbortSignal,
): Promise<Map<string, Place | SyncError>> {
  let base = container
  for (const name of missing) base = await ensureFolder(context.api, base.id, escapeName(name), signal)
  const places = new Map<string, Place | SyncError>([['', { id: base.id, roomId }]])
  for (const { node, path, roomId: room } of remote) {
    if (node.type !== 'file') places.set(remoteKey(path), { id: node.id, roomId: room })
  }
  const folders = steps.filter((step): step is UploadStepOf<'make-folder'> => step.do === 'make-folder')
  const depths = [...new Set(folders.map((step) => step.path.length))].sort((a, b) => a - b)
  for (const depth of depths) {
    const level = folders.filter((step) => step.path.length === depth)
    const levelTally = createTally()
    await runEntries(
      level,
      DEFAULT_JOBS,
      levelTally,
      async (step, stop) => {
        const parent = places.get(remoteKey(step.path.slice(0, -1)))
        const above = placeOf(parent, step.shown)
        try {
          const node = await ensureFolder(context.api, above.id, step.path.at(-1)!, stop)
          places.set(remoteKey(step.path), { id: node.id, roomId: node.type === 'room' ? node.id : above.roomId })
        } catch (error) {
          places.set(remoteKey(step.path), toSyncError(error))
          throw error
        }
        return 0
      },
      { signal, onFailure: ({ path, error }) => report(context, path, error) },
    )
    for (const failure of levelTally.failed) tally.failed.push(failure)
    if (levelTally.stoppedBy !== undefined) throw levelTally.stoppedBy
  }
  return places
}

/** Bound to a run: uploads one planned file; `undefined` when a comparison shows that it is there already. */
function createUploader(
  context: RunContext,
  options: UploadOptions,
  direct: boolean,
  wrapFor: PublicKey | undefined,
  places: ReadonlyMap<string, Place | SyncError>,
) {
  const partSize = options.partSize ?? DEFAULT_PART_SIZE
  const transfer: UploadContext = {
    api: context.api,
    clock: context.clock,
    direct,
    // Large enough for the parts of the largest file.
    slabs: createSlabPool(SLABS, partSizeFor(2 ** 36, partSize)),
    partSize,
    window: WINDOW,
    onEvent: context.onEvent,
  }
  return async (step: UploadStepOf<'upload'>, signal: AbortSignal) => {
    const place = placeOf(places.get(remoteKey(step.path.slice(0, -1))), step.shown)
    const { replaces, entry } = step
    if (
      step.compare &&
      replaces !== undefined &&
      (await isSameContent(context, replaces, entry.source, step.shown, signal))
    ) {
      return undefined
    }
    const done = await uploadFile(
      transfer,
      {
        source: entry.source,
        shown: step.shown,
        parentId: place.id,
        // The listed name, so that exactly the listed file is replaced.
        name: replaces?.name ?? step.path.at(-1)!,
        ...(wrapFor === undefined ? {} : { wrapFor }),
        ...(replaces === undefined ? {} : { replaces }),
      },
      signal,
    )
    return { ...done, roomId: place.roomId }
  }
}

const CHECK_BYTES = 1024 * 1024

/**
 * True when a local file is what the node holds. For an encrypted file the tag is recomputed from the local plaintext; a
 * plain one can only be told by its time.
 */
async function isSameContent(
  context: RunContext,
  node: RemoteNode,
  path: string,
  shown: string,
  signal: AbortSignal,
): Promise<boolean> {
  const reader = await openStable(path, shown)
  try {
    if (reader.size !== node.size) return false
    const fileKey = await openFileKey(context, node, signal)
    if (fileKey === undefined) {
      return node.timestampModification !== undefined && sameTime(node.timestampModification, reader.modifiedAt)
    }
    const check = createContentCheck(fileKey)
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHECK_BYTES, reader.size))
    for (let at = 0; at < reader.size; at += buffer.length) {
      signal.throwIfAborted()
      const piece = buffer.subarray(0, Math.min(buffer.length, reader.size - at))
      await reader.read(piece, at)
      check.update(piece)
    }
    await reader.verify()
    fileKey.wipe()
    return check.matches()
  } finally {
    await reader.close()
  }
}

/**
 * Downloads files and directories into a local directory, which is made if missing; skips equal files; keeps and reports
 * local files that differ unless told to overwrite; never deletes.
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
  const downloads: Planned[] = []
  for (const step of steps)
    if (step.do === 'download') await look(context, tree.root, step, options, tally, downloads, signal)
  const bytes = downloads.reduce((sum, { step }) => sum + (step.node.size ?? 0), 0)
  context.onEvent?.({ type: 'planned', files: downloads.length, bytes, skipped: tally.skipped })
  if (downloads.some(({ step }) => step.node.isEncrypted)) await keyring.ownKey(signal)
  await checkSpace(tree.root, bytes)

  const work = async ({ step, replaces }: Planned, stop: AbortSignal) => {
    const parent = step.path.slice(0, -1)
    const directory = tree.ensureDirectory(parent)
    const beforeRename = async () => tree.check(parent)
    return downloadFile(
      context,
      step.node,
      `${directory}/${step.path.at(-1)}`,
      { shown: step.shown, replaces, beforeRename },
      stop,
    )
  }
  const onFailure = (failure: { path: string; error: SyncError }) => report(context, failure.path, failure.error)
  await runEntries(downloads, options.jobs ?? DEFAULT_JOBS, tally, work, { signal, onFailure })
  return summarize(tally, 0)
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
  const below = await readRemoteTree(api, node, roomId, { signal })
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
  if (same) {
    tally.skipped++
  } else if (options.overwrite) {
    downloads.push({ step, shown: step.shown, replaces: { size: info.size, mtimeMs: info.mtimeMs } })
  } else {
    fail(
      new SyncError('conflict', 'LOCAL_DIFFERS', 'The local file differs and was kept', {
        hint: 'Use --on-conflict overwrite to replace local files.',
      }),
    )
  }
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
