/**
 * The content of a file on its way down: from the storage, through one decryptor in order, into a sink. Large files have a way
 * of their own: segments.ts.
 * @module
 */
import { checkFileSize, createFileDecryptor, type FileDecryptor, type FileKey } from '../../crypto/index.ts'
import { getFileKey } from '../api/file-keys.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import type { Keyring } from './keyring.ts'
import { type Address, createAddress, type RangeContext, readStretch, readWhole } from './ranges.ts'

/** What downloads work with. */
export interface DownloadContext extends RangeContext {
  readonly keyring: Pick<Keyring, 'open' | 'recall' | 'confirm'>
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

/**
 * The unwrapped file key of an encrypted file; `undefined` for a plain one.
 *
 * @throws {SyncError} `ROOM_NOT_ENCRYPTED` (class `safety`) for a plain one in a place that was encrypted.
 */
export async function openFileKey(
  context: Pick<DownloadContext, 'api' | 'keyring' | 'link'>,
  node: RemoteNode,
  signal: AbortSignal,
): Promise<FileKey | undefined> {
  if (context.link !== undefined) return context.link.openKey(signal)
  if (node.isEncrypted !== true) {
    await context.api.places?.plain('take', node.parentId ?? 0, node.name)
    return undefined
  }
  return context.keyring.open(node.id, await getFileKey(context.api, node.id, signal), signal)
}

const BUFFER_BYTES = 256 * 1024

/**
 * Streams content, decrypted, into `sink`; resolves only when all of it is verified.
 */
export async function downloadContent(
  context: DownloadContext,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  sink: Sink,
  shown: string,
  signal: AbortSignal,
  address: Address = createAddress(context, node.id, signal),
): Promise<void> {
  const size = sizeOf(node)
  const decryptor = fileKey && createFileDecryptor(fileKey)
  const confirm = (bytes: number) => context.onEvent?.({ type: 'part-confirmed', path: shown, bytes })
  const writer = createWriter(sink, decryptor, confirm)
  try {
    await readStretch(context, address, { start: 0, end: size, size }, writer.take, { orWhole: true, signal })
    await writer.end()
  } catch (error) {
    await writer.settle()
    throw error
  }
  decryptor?.final()
  if (fileKey !== undefined) context.keyring.confirm(fileKey)
}

/**
 * Streams plain content of which nobody knows how long it is, as an archive that is made while it is sent. It comes in one go: what was cut
 * cannot be gone on with.
 *
 * @param limit - Most bytes.
 * @returns how many there were.
 */
export async function downloadWhole(
  context: DownloadContext,
  address: Address,
  limit: number,
  sink: Sink,
  shown: string,
  signal: AbortSignal,
): Promise<number> {
  const confirm = (bytes: number) => context.onEvent?.({ type: 'part-confirmed', path: shown, bytes })
  const writer = createWriter(sink, undefined, confirm)
  let arrived = 0
  const take = (chunk: Uint8Array) => {
    arrived += chunk.length
    return writer.take(chunk)
  }
  try {
    await readWhole(context, address, limit, take, signal)
    await writer.end()
  } catch (error) {
    await writer.settle()
    throw error
  }
  return arrived
}

interface Writer {
  take(chunk: Uint8Array): Promise<void>
  end(): Promise<void>
  /** Waits for writes in flight, whatever became of them. */
  settle(): Promise<void>
}

/** Decrypts into one buffer while the other is being written. */
function createWriter(sink: Sink, decryptor: FileDecryptor | undefined, onWritten: (bytes: number) => void): Writer {
  const buffers = [Buffer.allocUnsafeSlow(BUFFER_BYTES), Buffer.allocUnsafeSlow(BUFFER_BYTES)]
  let fill = 0
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
    async take(chunk) {
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + BUFFER_BYTES - fill)
        if (decryptor === undefined) buffers[0]!.set(piece, fill)
        else decryptor.updateInto(piece, buffers[0]!, fill)
        fill += piece.length
        at += piece.length
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
