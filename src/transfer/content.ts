/**
 * The content of a file on its way down: ranges from the storage, through one decryptor in order, into a sink. A cut connection
 * continues where it stopped; what an earlier run left goes through the same decryptor, so that the one tag covers everything.
 * @module
 */
import { checkFileSize, createFileDecryptor, type FileDecryptor, type FileKey } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { createDownload, openDownload } from '../api/downloads.ts'
import { getFileKey } from '../api/file-keys.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock, Random } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import type { HttpResponse } from '../http/types.ts'
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

/** The size that the server tells. */
export const sizeOf = (node: RemoteNode): number => {
  if (node.size === undefined)
    throw new SyncError('server', 'ANSWER_INVALID', 'The server did not tell the file’s size')
  checkFileSize(node.size)
  return node.size
}

/** The unwrapped file key of an encrypted file; `undefined` for a plain one. */
export async function openFileKey(
  context: Pick<DownloadContext, 'api' | 'keyring'>,
  node: RemoteNode,
  signal: AbortSignal,
): Promise<FileKey | undefined> {
  if (node.isEncrypted !== true) return undefined
  return context.keyring.open(node.id, await getFileKey(context.api, node.id, signal), signal)
}

const BUFFER_BYTES = 256 * 1024
/** Tries in a row that bring less than `PROGRESS_BYTES`. */
const TRIES = 5
const PROGRESS_BYTES = 64 * 1024

/** What an earlier run decrypted and stored: plaintext from byte 0 on. It counts for nothing until the tag has matched. */
export interface Head {
  readonly bytes: number
  read(): AsyncIterable<Uint8Array>
}

/**
 * Streams content, decrypted, into `sink`; resolves only when all of it is verified.
 *
 * @param head - Is not asked for again; the sink gets what follows it.
 */
export async function downloadContent(
  context: DownloadContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  sink: Sink,
  shown: string,
  signal: AbortSignal,
  head?: Head,
): Promise<void> {
  const size = sizeOf(node)
  const decryptor = fileKey && createFileDecryptor(fileKey)
  const confirm = (bytes: number) => context.onEvent?.({ type: 'part-confirmed', path: shown, bytes })
  for await (const chunk of head?.read() ?? []) {
    if (signal.aborted) throw cancelled(signal)
    decryptor?.replay(chunk)
    confirm(chunk.length)
  }
  const writer = createWriter(sink, decryptor, head?.bytes ?? 0, confirm)
  try {
    if (size > 0) await readAll(context, node, size, writer, signal)
    await writer.end()
  } catch (error) {
    await writer.settle()
    throw error
  }
  decryptor?.final()
  if (fileKey !== undefined) context.keyring.confirm(fileKey)
}

interface Writer {
  /** Bytes of the file so far, those that were there included. */
  readonly taken: number
  take(chunk: Uint8Array): Promise<void>
  end(): Promise<void>
  /** Waits for writes in flight, whatever became of them. */
  settle(): Promise<void>
}

/** Decrypts into one buffer while the other is being written. */
function createWriter(
  sink: Sink,
  decryptor: FileDecryptor | undefined,
  start: number,
  onWritten: (bytes: number) => void,
): Writer {
  const buffers = [Buffer.allocUnsafeSlow(BUFFER_BYTES), Buffer.allocUnsafeSlow(BUFFER_BYTES)]
  let fill = 0
  let taken = start
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
  discard(response)
  throw new SyncError('server', 'RANGE_WRONG', 'The server sent another range than asked for', {
    hint: 'The download cannot be continued; run again.',
  })
}

/** Lets go of the connection. A generator that never began would not run its end, hence the first step. */
function discard({ stream }: HttpResponse): void {
  const chunks = stream?.[Symbol.asyncIterator]()
  chunks?.next().catch(() => {})
  chunks?.return?.().catch(() => {})
}
