/**
 * One download function: ciphertext is decrypted into a temporary sibling of the target while it arrives; only when the tag
 * matches and the length is right does it take the target's name. A cut connection continues where it stopped, in the same
 * cipher. An existing file stays untouched by any failure.
 * @module
 */
import { lstat } from 'node:fs/promises'
import { basename } from 'node:path'
import { checkFileSize, createFileDecryptor, type FileDecryptor, type FileKey } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { createDownload, openDownload } from '../api/downloads.ts'
import { getFileKey } from '../api/file-keys.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock, Random } from '../environment.ts'
import { cancelled, localError, SyncError, systemCode } from '../errors.ts'
import type { HttpResponse } from '../http/types.ts'
import { createAtomicFile } from '../local/atomic-file.ts'
import type { OnEvent } from './events.ts'
import type { Keyring } from './keyring.ts'

export interface DownloadContext {
  readonly api: Api
  readonly keyring: Keyring
  readonly clock: Clock
  readonly random: Random
  readonly onEvent?: OnEvent | undefined
}

/** Receives plaintext that is NOT verified yet; must not let anybody else see it before `downloadContent` has resolved. */
export interface Sink {
  /** The chunk may be used again after the promise resolves. */
  write(chunk: Uint8Array): Promise<void>
}

const sizeOf = (node: RemoteNode): number => {
  if (node.size === undefined)
    throw new SyncError('server', 'ANSWER_INVALID', 'The server did not tell the file’s size')
  checkFileSize(node.size)
  return node.size
}

/** What a target on disk looked like when somebody decided to replace it. */
export interface LocalVersion {
  readonly size: number
  readonly mtimeMs: number
}

/**
 * Downloads a file to `target`, whose directory exists. The file gets the node's modification time.
 *
 * @param options.replaces - What stood there when this was planned; absent: nothing. Anything else there now is a conflict.
 * @throws {SyncError} `CONTENT_TAMPERED`, `CONTENT_LENGTH_WRONG` (class `integrity`), `FILE_KEY_MISSING`, `LOCAL_CHANGED`
 * (class `conflict`), and what the layers below throw. Nothing of a failed download stays on disk.
 */
export async function downloadFile(
  context: DownloadContext,
  node: RemoteNode,
  target: string,
  options: { shown: string; replaces?: LocalVersion | undefined; beforeRename?: () => Promise<void> },
  signal: AbortSignal,
): Promise<number> {
  const size = sizeOf(node)
  const { onEvent } = context
  onEvent?.({ type: 'file-started', path: options.shown, bytes: size })
  const fileKey = await openFileKey(context, node, signal)
  const file = await createAtomicFile(target)
  try {
    let position = 0
    const sink: Sink = {
      async write(chunk) {
        for (let at = 0; at < chunk.length; ) {
          const { bytesWritten } = await file.handle.write(chunk, at, chunk.length - at, position).catch((error) => {
            throw localError(error, `write ${basename(target)}`)
          })
          at += bytesWritten
          position += bytesWritten
        }
      },
    }
    await downloadContent(context, node, fileKey, sink, options.shown, signal)
    if (signal.aborted) throw cancelled(signal)
    const modified = node.timestampModification ?? node.updatedAt
    await file.commit({
      ...(modified === undefined ? {} : { times: { atime: new Date(), mtime: new Date(storableTime(modified)) } }),
      async beforeRename() {
        await checkTarget(target, options.replaces)
        await options.beforeRename?.()
      },
    })
  } finally {
    fileKey?.wipe()
    await file.discard()
  }
  onEvent?.({ type: 'file-done', path: options.shown, bytes: size })
  return size
}

/** The time a file gets on disk for a time on the server: one that every file system can hold. */
export const storableTime = (ms: number): number => Math.min(Math.max(ms, 0), Date.UTC(2106, 0))

async function checkTarget(target: string, expected: LocalVersion | undefined): Promise<void> {
  const now = await lstat(target).catch((error) => {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  })
  const same =
    expected === undefined
      ? now === undefined
      : now?.isFile() === true && now.size === expected.size && now.mtimeMs === expected.mtimeMs
  if (!same) {
    throw new SyncError('conflict', 'LOCAL_CHANGED', 'The local file changed during the download', {
      hint: 'Look at both versions, then run again.',
    })
  }
}

/** The unwrapped file key of an encrypted file; `undefined` for a plain one. */
export async function openFileKey(
  context: Pick<DownloadContext, 'api' | 'keyring'>,
  node: RemoteNode,
  signal: AbortSignal,
): Promise<FileKey | undefined> {
  if (node.isEncrypted !== true) return undefined
  return context.keyring.unwrap(await getFileKey(context.api, node.id, signal), signal)
}

const BUFFER_BYTES = 256 * 1024
/** Tries in a row that bring less than `PROGRESS_BYTES`. */
const TRIES = 5
const PROGRESS_BYTES = 64 * 1024

/** Streams content, decrypted, into `sink`; resolves only when all of it is verified. */
export async function downloadContent(
  context: DownloadContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  sink: Sink,
  shown: string,
  signal: AbortSignal,
): Promise<void> {
  const size = sizeOf(node)
  const decryptor = fileKey && createFileDecryptor(fileKey)
  const writer = createWriter(sink, decryptor, (bytes) =>
    context.onEvent?.({ type: 'part-confirmed', path: shown, bytes }),
  )
  try {
    if (size > 0) await readAll(context, node, size, writer, signal)
    await writer.end()
  } catch (error) {
    await writer.settle()
    throw error
  }
  decryptor?.final()
}

interface Writer {
  /** Bytes taken so far. */
  readonly taken: number
  take(chunk: Uint8Array): Promise<void>
  end(): Promise<void>
  /** Waits for writes in flight, whatever became of them. */
  settle(): Promise<void>
}

/** Decrypts into one buffer while the other is being written. */
function createWriter(sink: Sink, decryptor: FileDecryptor | undefined, onWritten: (bytes: number) => void): Writer {
  const buffers = [Buffer.allocUnsafeSlow(BUFFER_BYTES), Buffer.allocUnsafeSlow(BUFFER_BYTES)]
  let fill = 0
  let taken = 0
  let writing: Promise<void> = Promise.resolve()
  async function flush(): Promise<void> {
    await writing
    const full = buffers[0]!.subarray(0, fill)
    writing = sink.write(full).then(() => onWritten(full.length))
    writing.catch(() => {}) // reported when awaited
    buffers.reverse()
    fill = 0
  }
  return {
    get taken() {
      return taken
    },
    async take(chunk) {
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + BUFFER_BYTES - fill)
        if (decryptor === undefined) buffers[0]!.set(piece, fill)
        else decryptor.updateInto(piece, buffers[0]!, fill)
        fill += piece.length
        at += piece.length
        taken += piece.length
        if (fill === BUFFER_BYTES) await flush()
      }
    },
    async end() {
      if (fill > 0) await flush()
      await writing
    },
    settle: () => writing.catch(() => {}),
  }
}

const wrongLength = (message: string) =>
  new SyncError('integrity', 'CONTENT_LENGTH_WRONG', message, { hint: 'Nothing of it was kept.' })

async function readAll(
  context: DownloadContext,
  node: RemoteNode,
  size: number,
  writer: Writer,
  signal: AbortSignal,
): Promise<void> {
  const { api, clock, random } = context
  let url: string | undefined
  let failures = 0
  while (writer.taken < size) {
    const start = writer.taken
    try {
      url ??= await createDownload(api, node.id, signal)
      const response = await openDownload(api, url, start, signal).catch((error) => {
        throw storageError(error)
      })
      // A server that does not do ranges starts from zero: the same bytes again, which the cipher has had.
      let known = checkRange(response, start, size)
      for await (const received of response.stream!) {
        const chunk = received.subarray(Math.min(known, received.length))
        known -= received.length - chunk.length
        if (writer.taken + chunk.length > size) throw wrongLength('The server sent more bytes than the file has')
        await writer.take(chunk)
      }
      if (writer.taken < size) {
        throw new SyncError('network', 'CONTENT_CUT', 'The content ended early', { retryable: true })
      }
    } catch (error) {
      if (signal.aborted) throw cancelled(signal)
      if (!(error instanceof SyncError)) throw error
      const expired = error.status === 401 || error.status === 403 || error.status === 404
      if (expired) url = undefined
      // A trickle is no progress.
      failures = writer.taken - start >= PROGRESS_BYTES ? 1 : failures + 1
      if (!(expired || error.retryable) || failures >= TRIES) throw error.code === 'CONTENT_CUT' ? cutShort() : error
      const delayMs = random.next() * Math.min(30_000, 250 * 2 ** failures)
      context.onEvent?.({ type: 'retry', label: 'file content', attempt: failures, delayMs, reason: error.message })
      await clock.sleep(delayMs, signal)
    }
  }
}

/** What a storage refuses is about this file, not about the login or the room. */
function storageError(error: unknown): unknown {
  if (!(error instanceof SyncError) || (error.status !== 401 && error.status !== 403)) return error
  return new SyncError('server', 'STORAGE_REFUSED', `The storage refuses the content (${error.status})`, {
    hint: 'The clocks of server and storage may differ; ask its administrator.',
    status: error.status,
    cause: error,
  })
}

const cutShort = () => wrongLength('The server keeps sending fewer bytes than the file has')

/**
 * The bytes must follow on exactly: the cipher cannot go back.
 *
 * @returns how many bytes to pass over.
 */
function checkRange(response: HttpResponse, start: number, size: number): number {
  if (response.status === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers['content-range'] ?? '')
    const right = range !== null && Number(range[1]) === start && (range[3] === '*' || Number(range[3]) === size)
    if (right) return 0
  } else if (response.status === 200) {
    return start
  }
  response.stream?.[Symbol.asyncIterator]().return?.()
  throw new SyncError('server', 'RANGE_WRONG', 'The server sent another range than asked for', {
    hint: 'The download cannot be continued; run again.',
  })
}
