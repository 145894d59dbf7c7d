/**
 * Contents without files on this disk: `put` sends what a program has or gets piece by piece, `get` fetches a file for a program
 * to read. What `get` gives has been checked to its last byte before there is a first one to read.
 * @module
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import type { FileKey } from '../../crypto/index.ts'
import { cancelled, localError, SyncError } from '../errors.ts'
import { createAtomicFile, makePrivateDirectory } from '../local/atomic-file.ts'
import type { HomePaths } from '../local/home.ts'
import { escapeName } from '../local/names.ts'
import { sweepDirectory } from '../local/partial-file.ts'
import { readKnownPlaces } from '../sync/known-places.ts'
import { sealOf } from '../sync/records.ts'
import { ensureFolder, parseRemotePath, requireContainer } from '../sync/remote-path.ts'
import { admitTarget, never, requireEncryptedSource } from '../sync/run.ts'
import { findChild } from '../transfer/complete.ts'
import {
  type DownloadContext,
  downloadContent,
  downloadWhole,
  openFileKey,
  type Sink,
  sizeOf,
} from '../transfer/content.ts'
import { createDistributor, type RefusedMember } from '../transfer/distribute.ts'
import type { OnEvent } from '../transfer/events.ts'
import { createSlabPool } from '../transfer/flow.ts'
import { createAddress } from '../transfer/ranges.ts'
import { shareKeysOf } from '../transfer/share-keys.ts'
import { linkRecipients } from '../transfer/share-links.ts'
import { storageOf } from '../transfer/storage-routes.ts'
import { contentPartSize, uploadContent } from '../transfer/upload-content.ts'
import type { Abortable, ClientContext } from './context.ts'
import { type RemoteEntry, requireEntry } from './entries.ts'

/** What a web stream has that is read from; those of Node and of browsers fit. */
export interface ReadableLike {
  getReader(): {
    read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>
    cancel(reason?: unknown): Promise<void>
  }
}

/** What a web stream has that is written to. */
export interface WritableLike {
  getWriter(): {
    readonly ready: Promise<unknown>
    write(chunk: Uint8Array): Promise<void>
    close(): Promise<void>
    abort(reason?: unknown): Promise<void>
  }
}

/** Bytes, or something that yields them: an (async) iterable such as a Node stream, or a web stream. */
export type Content = Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array> | ReadableLike

/** How content is stored. */
export interface PutOptions extends Abortable {
  /** Bytes that will come, if that is known; of a `Uint8Array` it is. Nothing is stored when there are more or fewer. */
  readonly size?: number | undefined
  /** Of the file, in milliseconds since the epoch. Default: now. */
  readonly modifiedAt?: number | undefined
  /** What to do with a file that is there. Default `overwrite`: a new version; the old one goes to the recycle bin. */
  readonly onConflict?: 'overwrite' | 'fail' | undefined
  /** Links of a file that is replaced lead to this one then. Default false: they end. */
  readonly keepShareLinks?: boolean | undefined
  /** Replace exactly this version, as it was listed: `REMOTE_CHANGED` when another one, or none, is there now. */
  readonly replaces?: RemoteEntry | undefined
  /** Make the folders above it. Default false. */
  readonly parents?: boolean | undefined
  /**
   * Bytes per part, at least 5 MiB, and 6,871,948 where the length is unknown: a file has 10,000 parts at most. Four parts are in
   * memory at most. Default 8 MiB.
   */
  readonly partSize?: number | undefined
  /** As for uploads: content may go where it is not encrypted. */
  readonly allowPlain?: boolean | undefined
  /** It may not, whatever was agreed to before. */
  readonly requireEncryption?: boolean | undefined
  /** Told of bytes that the other side has acknowledged, of this content alone, and all that is expected where that is known. */
  readonly onProgress?: ((bytes: number, total: number | undefined) => void) | undefined
}

/** What was stored. */
export interface PutResult {
  readonly entry: RemoteEntry
  readonly bytes: number
  /** Members who got no key for it, and why. */
  readonly refused: readonly RefusedMember[]
  /** Why handing out its key was not finished; `keys.distribute` does that later. The content is stored. */
  readonly keysPending?: unknown
}

/** Parts in flight. */
const WINDOW = 3
const PART_BYTES = 8 * 1024 * 1024

async function* readWeb(stream: ReadableLike): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader()
  let isDone = false
  try {
    for (;;) {
      const { done, value } = await reader.read()
      isDone = done
      if (done) return
      yield value!
    }
  } finally {
    if (!isDone) await reader.cancel().catch(() => {})
  }
}

async function* readAll(chunks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* chunks
}

/** @throws {TypeError} for what is no content. */
function chunksOf(content: Content): AsyncIterable<Uint8Array> {
  if (content instanceof Uint8Array) return readAll([content])
  if (typeof content === 'object' && content !== null) {
    if (Symbol.asyncIterator in content) return content
    if ('getReader' in content) return readWeb(content)
    if (Symbol.iterator in content) return readAll(content)
  }
  throw new TypeError('Content is a Uint8Array, an iterable of them, or a stream')
}

/** Tells of one content what the client is told of all. */
function progressOf(
  context: Pick<DownloadContext, 'onEvent'>,
  total: number | undefined,
  tell: PutOptions['onProgress'],
): OnEvent {
  let bytes = 0
  return (event) => {
    context.onEvent?.(event)
    if (event.type !== 'part-confirmed') return
    bytes += event.bytes
    tell?.(bytes, total)
  }
}

const exists = (path: string) => new SyncError('conflict', 'EXISTS', `It exists already: ${path}`)

/**
 * Stores content under a remote path. Nothing is visible there before all of it has arrived and been checked; it is read once, and
 * never started over. An abort cancels the upload, has the source end and rejects with `signal.reason`.
 *
 * @param path - Of the file: `/room/folder/name`. Letters in the name that the server cannot store are escaped.
 * @param content - Its length may be unknown. Memory is bounded by four parts. A source that fails ends the upload, and what it
 * threw is thrown on.
 * @throws {SyncError} `EXISTS`, `REMOTE_CHANGED` (class `conflict`), `REMOTE_MISSING` for a folder that is not there,
 * `NOT_ENCRYPTED`, `ROOM_NOT_ENCRYPTED` (class `safety`), `CONTENT_SIZE_WRONG`, `FILE_TOO_LARGE`, `NO_KEY_PAIR`,
 * `PASSWORD_NEEDED`, `UPLOAD_UNCERTAIN` when the answer to the last request was lost for good.
 */
export async function put(
  context: ClientContext,
  path: string,
  content: Content,
  options: PutOptions,
): Promise<PutResult> {
  const { api, clock, keyring, onEvent } = context
  const { signal = never, onConflict = 'overwrite', partSize = PART_BYTES } = options
  const chunks = chunksOf(content)
  const size = content instanceof Uint8Array ? content.length : options.size
  if (size !== undefined && !(Number.isSafeInteger(size) && size >= 0)) throw new RangeError('size counts bytes')
  const names = parseRemotePath(path)
  const above = `/${names.slice(0, -1).join('/')}`
  const storage = storageOf(api, signal)
  storage.catch(() => {}) // told when awaited
  const { container, roomId, missing } = await requireContainer(api, above, signal)
  if (missing.length > 0 && options.parents !== true) {
    throw new SyncError('not_found', 'REMOTE_MISSING', `The folder above ${path} does not exist`)
  }
  await admitTarget(context, container, missing, above, options)
  // Before anything is made there: a wrong password leaves nothing behind.
  const wrapFor = container.isEncrypted === true ? await keyring.wrappingKey(signal) : undefined
  let parent = container
  for (const name of missing) parent = await ensureFolder(api, parent.id, escapeName(name), signal)
  const name = escapeName(names.at(-1)!)
  const there = missing.length > 0 ? undefined : await findChild(api, parent.id, name, signal)
  if (there !== undefined && (there.type !== 'file' || onConflict === 'fail')) throw exists(path)
  if (options.replaces !== undefined && there?.id !== options.replaces.id) {
    throw new SyncError('conflict', 'REMOTE_CHANGED', 'Somebody changed the file on the server meanwhile', {
      hint: 'Look at both versions, then run again.',
    })
  }
  const replaces = options.replaces ?? there
  const target = { shown: path, parentId: parent.id, name: replaces?.name ?? name }
  const refused: RefusedMember[] = []
  const onRefused = (one: RefusedMember) => void refused.push(one)
  const isKept = options.keepShareLinks === true && replaces !== undefined
  const links = { api, keyring, keys: shareKeysOf(context), onEvent, onRefused }
  const keptLinks = isKept ? await linkRecipients(links, replaces, signal) : undefined
  const { node, bytes, fileKey } = await uploadContent(
    {
      api,
      clock,
      storage: await storage,
      slabs: createSlabPool(WINDOW + 1, contentPartSize(partSize, size)),
      window: WINDOW,
      onEvent: progressOf(context, size, options.onProgress),
    },
    {
      ...target,
      size,
      modifiedAt: options.modifiedAt ?? clock.now(),
      ...(wrapFor === undefined ? {} : { wrapFor }),
      ...(replaces === undefined ? {} : { replaces }),
      ...(keptLinks === undefined ? {} : { keptLinks }),
    },
    chunks,
    signal,
  )
  const entry = { ...node, path: `${above === '/' ? '' : above}/${node.name}` }
  if (fileKey === undefined) return { entry, bytes, refused }
  try {
    await keyring.keep(node.id, fileKey)
    const distributor = createDistributor(api, keyring, { onEvent, onRefused, signal })
    await distributor.remember(roomId, node.id, fileKey)
    await distributor.flush()
    return { entry, bytes, refused }
  } catch (error) {
    return { entry, bytes, refused, keysPending: signal.aborted ? signal.reason : error }
  } finally {
    fileKey.wipe()
  }
}

/** How content is fetched. */
export interface GetOptions extends Abortable {
  /** Refuse a larger file before anything of it is fetched. Bytes. */
  readonly limit?: number | undefined
  /** Content up to so many bytes is kept in memory, larger in a private temporary file. Default 16 MiB. */
  readonly memory?: number | undefined
  /** Refuse content that is not encrypted. */
  readonly requireEncryption?: boolean | undefined
  /** Told of bytes that have arrived, of this content alone, and how many there are. They are not checked yet. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined
}

/**
 * Content that has been checked, all of it. It is read once, by any of these ways; whatever ends the reading gives back what it
 * takes. Content that is not read has to be closed.
 */
export interface RemoteContent extends AsyncIterable<Uint8Array> {
  readonly entry: RemoteEntry
  /** In bytes. */
  readonly size: number
  /** All of it at once. For untrusted sizes use `limit` of `get`. */
  bytes(): Promise<Uint8Array>
  /** Writes it to a Node or web stream and ends that. */
  writeTo(target: Writable | WritableLike): Promise<void>
  /** Gives back what it takes; harmless when it has been read. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const MEMORY_BYTES = 16 * 1024 * 1024
const READ_BYTES = 1024 * 1024

/** Where content is until all of it is checked. */
interface Spool extends Sink {
  read(): AsyncIterable<Uint8Array>
  close(): Promise<void>
}

function memorySpool(): Spool {
  let chunks: Uint8Array[] = []
  return {
    async write(chunk) {
      chunks.push(new Uint8Array(chunk))
    },
    async *read() {
      yield* chunks
    },
    async close() {
      chunks = []
    },
  }
}

/** What it takes to keep content until all of it is checked. */
export interface SpoolContext extends DownloadContext {
  readonly home: Pick<HomePaths, 'temporary'>
}

/** A private file, which the next one tidies up after a process that was killed. */
async function fileSpool({ home, clock }: SpoolContext): Promise<Spool> {
  await makePrivateDirectory(home.temporary)
  await sweepDirectory(home.temporary, clock)
  const file = await createAtomicFile(join(home.temporary, 'content'))
  return {
    async write(chunk) {
      // Not `write`: on a disk that is nearly full it may take a part only.
      await file.handle.appendFile(chunk).catch((error) => {
        throw localError(error, 'write the temporary file')
      })
    },
    async *read() {
      const reader = await open(file.tempPath, 'r').catch((error) => {
        throw localError(error, 'read the temporary file')
      })
      try {
        for (;;) {
          const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
          const { bytesRead } = await reader.read(buffer, 0, buffer.length)
          if (bytesRead === 0) return
          yield buffer.subarray(0, bytesRead)
        }
      } finally {
        await reader.close()
      }
    },
    close: () => file.discard(),
  }
}

function contentOf(entry: RemoteEntry, size: number, spool: Spool): RemoteContent {
  let isRead = false
  async function* read(): AsyncGenerator<Uint8Array> {
    if (isRead) throw new TypeError('This content has been read, or closed; get it again')
    isRead = true
    try {
      yield* spool.read()
    } finally {
      await spool.close()
    }
  }
  const close = async () => {
    isRead = true
    await spool.close()
  }
  return {
    entry,
    size,
    [Symbol.asyncIterator]: read,
    async bytes() {
      const all = new Uint8Array(size)
      let at = 0
      for await (const chunk of read()) {
        all.set(chunk, at)
        at += chunk.length
      }
      return all
    },
    async writeTo(target) {
      if ('getWriter' in target) return writeWeb(read(), target)
      const { pipeline } = await import('node:stream/promises')
      await pipeline(read(), target)
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function writeWeb(chunks: AsyncIterable<Uint8Array>, target: WritableLike): Promise<void> {
  const writer = target.getWriter()
  try {
    for await (const chunk of chunks) {
      await writer.ready
      await writer.write(chunk)
    }
    await writer.close()
  } catch (error) {
    await writer.abort(error).catch(() => {})
    throw error
  }
}

/**
 * Fetches a file and checks all of it: decrypted, against its tag, and against what runs of pairs have found there before. It
 * resolves when that is done; before, there is nothing to read, so what may be forged cannot be taken for good. An abort removes
 * what has arrived and rejects with `signal.reason`.
 *
 * @param path - Of the file.
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_FILE`, `CONTENT_TOO_LARGE` (class `limit`); of class `integrity` when the content
 * does not match its tag (`CONTENT_TAMPERED`) or is another than is known (`CONTENT_SWAPPED`); of class `key` without a file key.
 */
export async function get(context: ClientContext, path: string, options: GetOptions): Promise<RemoteContent> {
  const { home, clock } = context
  const { signal = never, limit, memory = MEMORY_BYTES } = options
  const { entry } = await requireEntry(context, path, signal)
  if (entry.type !== 'file') throw new SyncError('usage', 'NOT_A_FILE', `Not a file: ${path}`)
  requireEncryptedSource(entry, path, { requireEncryption: options.requireEncryption })
  const size = sizeOf(entry)
  if (limit !== undefined && size > limit) {
    throw new SyncError('limit', 'CONTENT_TOO_LARGE', `${path} has ${size} bytes, and ${limit} are allowed`)
  }
  const known = await readKnownPlaces(
    { directory: home.states, account: await home.account(signal) },
    [path],
    clock.now(),
    (keptAs) => {
      const message = `damaged state was put aside as ${keptAs}`
      context.onEvent?.({ type: 'warning', code: 'STATE_DAMAGED', message })
    },
  )
  const fileKey = await openFileKey(context, entry, signal)
  try {
    known.judge(parseRemotePath(path), entry, fileKey && sealOf(fileKey))
    return await receive(context, entry, size, fileKey, { ...options, memory, signal })
  } finally {
    fileKey?.wipe()
  }
}

/** Fetches content and checks all of it, in memory or in a private file. */
export async function receive(
  context: SpoolContext,
  entry: RemoteEntry,
  size: number,
  fileKey: FileKey | undefined,
  { memory = MEMORY_BYTES, onProgress, signal = never }: Pick<GetOptions, 'memory' | 'onProgress' | 'signal'>,
): Promise<RemoteContent> {
  let spool: Spool | undefined
  try {
    spool = size <= memory ? memorySpool() : await fileSpool(context)
    context.onEvent?.({ type: 'file-started', path: entry.path, bytes: size })
    const onEvent = progressOf(context, size, onProgress as PutOptions['onProgress'])
    await downloadContent({ ...context, onEvent }, entry, fileKey, spool, entry.path, signal)
    context.onEvent?.({ type: 'file-done', path: entry.path, bytes: size })
    return contentOf(entry, size, spool)
  } catch (error) {
    await spool?.close()
    throw signal.aborted ? cancelled(signal) : error
  }
}

/** As `receive`, for plain content of which nobody knows how long it is. */
export async function receiveWhole(
  context: SpoolContext,
  entry: RemoteEntry,
  limit: number,
  signal: AbortSignal,
): Promise<RemoteContent> {
  const spool = await fileSpool(context)
  try {
    context.onEvent?.({ type: 'file-started', path: entry.path, bytes: 0 })
    const size = await downloadWhole(
      context,
      createAddress(context, entry.id, signal),
      limit,
      spool,
      entry.path,
      signal,
    )
    context.onEvent?.({ type: 'file-done', path: entry.path, bytes: size })
    return contentOf(entry, size, spool)
  } catch (error) {
    await spool.close()
    throw signal.aborted ? cancelled(signal) : error
  }
}
