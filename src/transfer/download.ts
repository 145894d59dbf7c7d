/**
 * One download function: content is decrypted into a temporary sibling of the target while it arrives; only when the tag
 * matches and the length is right does it take the target's name. An existing file stays untouched by any failure. The sibling
 * of a large encrypted file outlives an interruption, and the next run goes on with it.
 * @module
 */
import { createHash, type Hash } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { basename } from 'node:path'
import type { FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { cancelled, type ErrorClass, localError, SyncError } from '../errors.ts'
import { createAtomicFile, placeFile } from '../local/atomic-file.ts'
import { FILE_MODE, type FileTime, type FileTimes, setMode } from '../local/attributes.ts'
import { openPartialFile, type PartialFile } from '../local/partial-file.ts'
import type { HeldDirectory } from '../local/safe-tree.ts'
import { type DownloadContext, downloadContent, downloadWhole, openFileKey, type Sink, sizeOf } from './content.ts'
import { type Address, createAddress } from './ranges.ts'
import { downloadLarge, LARGE_BYTES, type LargeFiles } from './segments.ts'
import { fetchSmall, isSmall } from './small-file.ts'

/** What a target on disk looked like when somebody decided to replace it. */
export interface LocalVersion {
  readonly size: number
  readonly mtimeMs: number
  /** A symbolic link, which the file takes the place of. */
  readonly isLink?: boolean
}

/** What a file has to be, known from elsewhere than the server. */
export interface KnownFile {
  /** Called with the SHA-256 of the content, hex, before the file gets its name; throws when it is another one. The key is wiped later. */
  check(sha256: string, fileKey: FileKey | undefined): void
  /** Permission bits. */
  readonly mode: number
  /** Seconds since the epoch. */
  readonly mtime: FileTime
}

export interface DownloadTarget {
  /** For events. */
  readonly shown: string
  /** What stood there when this was planned; absent: nothing. Anything else there now is a conflict. */
  readonly replaces?: LocalVersion | undefined
  /** Throws when the directory is not what it was. */
  readonly beforeRename?: () => void
  /** Permission bits. Default: those of the file that it replaces, else those of any new file. */
  readonly mode?: number | undefined
  /** Absent: the server says what time it has. */
  readonly known?: KnownFile | undefined
  /** The directory that `target` is in, if it is one of a `SafeTree`; held until the end. */
  readonly directory?: Pick<HeldDirectory, 'confirm'>
  /** Shared by all downloads of a run. */
  readonly large: LargeFiles
  /** Where the file key comes from; default: asked for now. */
  readonly openKey?: (node: RemoteNode, signal: AbortSignal) => Promise<FileKey | undefined>
}

/**
 * Downloads a file to `target`, whose directory exists. The file gets the node's modification time. Its name is durable only when
 * the directory has been synced, which the caller does once for many files.
 *
 * @throws {SyncError} `CONTENT_TAMPERED`, `CONTENT_LENGTH_WRONG` (class `integrity`), `FILE_KEY_MISSING`, `LOCAL_CHANGED`
 * (class `conflict`), and what the layers below throw. Nothing of content that failed its check stays on disk.
 */
export async function downloadFile(
  context: DownloadContext,
  node: RemoteNode,
  target: string,
  options: DownloadTarget,
  signal: AbortSignal,
): Promise<number> {
  const size = sizeOf(node)
  const { onEvent } = context
  onEvent?.({ type: 'file-started', path: options.shown, bytes: size })
  const address = createAddress(context, node.id, signal)
  // An address is no content: it is asked for while it is found out under which key that has to be. Of a large file all may be here.
  if (size < LARGE_BYTES) address.get().catch(() => {}) // told when it is needed
  const fileKey = await (options.openKey?.(node, signal) ?? openFileKey(context, node, signal))
  const from = { ...context, address }
  try {
    if (isSmall(node)) await receiveSmall(from, node, fileKey, target, options, signal)
    else await receiveFile(from, node, fileKey, target, options, signal)
  } finally {
    fileKey?.wipe()
  }
  onEvent?.({ type: 'file-done', path: options.shown, bytes: size })
  return size
}

/** What one file is fetched with. */
interface FileContext extends DownloadContext {
  readonly address: Address
}

/** In one go: it is checked before it reaches the disk. */
async function receiveSmall(
  context: FileContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  target: string,
  options: DownloadTarget,
  signal: AbortSignal,
): Promise<void> {
  const content = await fetchSmall(context, node, fileKey, signal, context.address)
  if (signal.aborted) throw cancelled(signal)
  const { known } = options
  known?.check(createHash('sha256').update(content).digest('hex'), fileKey)
  await placeFile(target, content, {
    times: timesOf(node, known),
    mode: modeFor(target, options),
    confirm: options.directory?.confirm,
    beforeRename: () => checkBefore(target, options),
  })
  context.onEvent?.({ type: 'part-confirmed', path: options.shown, bytes: content.length })
}

async function receiveFile(
  context: FileContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  target: string,
  options: DownloadTarget,
  signal: AbortSignal,
): Promise<void> {
  const size = sizeOf(node)
  let file = await openTemporary(context, node, fileKey, target, options, size)
  const isResumed = file.found > 0
  try {
    await receive(context, node, fileKey, file, target, options, signal)
  } catch (error) {
    // What was on the disk may be to blame; the next try does without it.
    if (!isResumed || !(error instanceof SyncError) || error.code !== 'CONTENT_TAMPERED') throw error
    context.onEvent?.({ type: 'file-started', path: options.shown, bytes: size })
    file = await openTemporary(context, node, fileKey, target, options, size)
    await receive(context, node, fileKey, file, target, options, signal)
  }
}

/** Less than this is not worth coming back for. */
const KEEP_BYTES = 1024 * 1024
/** After failures of these classes another run may go on. */
const KEEP_AFTER: readonly ErrorClass[] = ['network', 'server', 'rate_limit', 'tls', 'auth', 'cancelled']

/** IV and tag stand for the content, so a partial file never meets another version. Plain files have no tag to go by. */
async function openTemporary(
  { api, clock }: DownloadContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  target: string,
  { directory }: DownloadTarget,
  size: number,
): Promise<PartialFile> {
  if (fileKey !== undefined && size >= LARGE_BYTES) {
    const version = Buffer.concat([fileKey.iv, fileKey.tag]).toString('base64')
    const identity = `${api.origin}\0${node.id}\0${version}`
    const file = await openPartialFile(target, { identity, size, clock, confirm: directory?.confirm })
    if (file !== undefined) return file
  }
  const file = await createAtomicFile(target, directory?.confirm)
  return { ...file, found: 0, keep: file.discard }
}

/** One attempt: fetches what is missing, checks all of it, and puts the file in place. */
async function receive(
  context: FileContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  file: PartialFile,
  target: string,
  options: DownloadTarget,
  signal: AbortSignal,
): Promise<void> {
  const name = basename(target)
  const { known } = options
  try {
    let sha256: string | undefined
    if (sizeOf(node) >= LARGE_BYTES) {
      const into = { fd: file.handle.fd, name, found: file.found, isHashed: known !== undefined }
      sha256 = await downloadLarge(context, options.large, node, fileKey, into, options.shown, signal, context.address)
    } else {
      const hash = known && createHash('sha256')
      const sink = sinkOf(file, name, hash)
      await downloadContent(context, node, fileKey, sink, options.shown, signal, context.address)
      sha256 = hash?.digest('hex')
    }
    if (signal.aborted) throw cancelled(signal)
    known?.check(sha256!, fileKey)
    setMode(file.handle.fd, modeFor(target, options))
    await file.commit({ times: timesOf(node, known), beforeRename: async () => checkBefore(target, options) })
  } catch (error) {
    const kind = error instanceof SyncError ? error.class : signal.aborted ? 'cancelled' : 'internal'
    if (KEEP_AFTER.includes(kind) && (await lengthOf(file)) >= KEEP_BYTES) await file.keep()
    throw error
  } finally {
    await file.discard()
  }
}

/**
 * Downloads plain content of which nobody knows how long it is: an archive that is made while it is sent. It is fetched in one go, and what
 * was cut starts over.
 *
 * @param limit - Most bytes that are taken.
 * @returns how many bytes it has.
 * @throws {SyncError} as `downloadFile`.
 */
export async function downloadArchive(
  context: DownloadContext,
  limit: number,
  target: string,
  options: DownloadTarget,
  signal: AbortSignal,
): Promise<number> {
  const { onEvent } = context
  onEvent?.({ type: 'file-started', path: options.shown, bytes: 0 })
  const file = await createAtomicFile(target, options.directory?.confirm)
  try {
    const sink = sinkOf({ ...file, found: 0, keep: file.discard }, basename(target), undefined)
    const bytes = await downloadWhole(context, createAddress(context, 0, signal), limit, sink, options.shown, signal)
    setMode(file.handle.fd, modeFor(target, options))
    await file.commit({ beforeRename: async () => checkBefore(target, options) })
    onEvent?.({ type: 'file-done', path: options.shown, bytes })
    return bytes
  } finally {
    await file.discard()
  }
}

const lengthOf = ({ handle }: PartialFile): Promise<number> =>
  handle.stat().then(
    ({ size }) => size,
    () => 0,
  )

function sinkOf({ handle }: PartialFile, name: string, hash: Hash | undefined): Sink {
  let position = 0
  return {
    async write(chunk) {
      hash?.update(chunk)
      for (let at = 0; at < chunk.length; ) {
        const { bytesWritten } = await handle.write(chunk, at, chunk.length - at, position).catch((error) => {
          throw localError(error, `write ${name}`)
        })
        at += bytesWritten
        position += bytesWritten
      }
    },
  }
}

/** The file system takes what is nearest to it; a `Date` also keeps what is before 1970. */
function timesOf(node: RemoteNode, known: KnownFile | undefined): FileTimes | undefined {
  if (known !== undefined) return { atime: known.mtime, mtime: known.mtime }
  const modified = node.timestampModification ?? node.updatedAt
  return modified === undefined ? undefined : { atime: new Date(), mtime: new Date(modified) }
}

/** Permission bits that a program gives a new file. */
const NEW_FILE = 0o666

/** Until a file has its name nobody else may read it; from then on it is one like others. */
function modeFor(target: string, { known, mode, replaces }: DownloadTarget): number {
  const given = known?.mode ?? mode
  if (given !== undefined) return given
  const there = replaces === undefined ? undefined : lstatSync(target, { throwIfNoEntry: false })
  return there?.isFile() ? there.mode & FILE_MODE : NEW_FILE & ~process.umask()
}

/** The last look before a file takes its name. */
function checkBefore(target: string, { replaces, beforeRename }: DownloadTarget): void {
  checkTarget(target, replaces)
  beforeRename?.()
}

function checkTarget(target: string, expected: LocalVersion | undefined): void {
  const now = lstatSync(target, { throwIfNoEntry: false })
  const same =
    expected === undefined
      ? now === undefined
      : (expected.isLink === true ? now?.isSymbolicLink() : now?.isFile()) === true &&
        now?.size === expected.size &&
        now.mtimeMs === expected.mtimeMs
  if (!same) {
    throw new SyncError('conflict', 'LOCAL_CHANGED', 'The local file changed during the download', {
      hint: 'Look at both versions, then run again.',
    })
  }
}
