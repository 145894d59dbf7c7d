/**
 * Uploads content that is in no file: chunks that come from somewhere, of a length that may be unknown. As upload.ts does, it
 * encrypts under a fresh key, sends part by part through a channel, and makes the file visible when every check has passed. What
 * has come cannot be asked for again, so nothing is tried a second time but the sending of a part, and nothing is resumed.
 * @module
 */
import { checkFileSize, createFileEncryptor, type FileEncryptor } from '../../crypto/index.ts'
import type { Completion } from '../api/uploads.ts'
import { cancelled, SyncError } from '../errors.ts'
import { checkUnchanged, finish } from './complete.ts'
import { inAnyOrder } from './flow.ts'
import { createPartWindow } from './part-window.ts'
import { type UploadContext, type UploadRequest, type UploadResult, wrapped } from './upload.ts'
import { openUploadChannel, type Part, partSizeFor, type Receipt, type UploadChannel } from './upload-channel.ts'

export interface ContentRequest
  extends Pick<UploadRequest, 'shown' | 'parentId' | 'name' | 'wrapFor' | 'replaces' | 'keptLinks'> {
  /** Bytes that will come; absent where nobody knows. */
  readonly size?: number | undefined
  /** Milliseconds since the epoch. */
  readonly modifiedAt: number
}

export type ContentContext = Pick<UploadContext, 'api' | 'clock' | 'storage' | 'slabs' | 'window' | 'onEvent'>

/** Content of unknown length has parts that the largest file can be made of. */
export const contentPartSize = (wanted: number, size: number = 2 ** 36): number => partSizeFor(size, wanted)

const wrongSize = (size: number, what: string) =>
  new SyncError('changed', 'CONTENT_SIZE_WRONG', `The content has ${what} than the ${size} bytes that were announced`, {
    hint: 'Give its exact size, or none.',
  })

/**
 * Sends what `chunks` yields as one file. Memory: the slabs of the context.
 *
 * @param chunks - Read once; a chunk may be used again when the next one is asked for. It is told to end (`return`) when the upload
 * fails or is aborted; what it throws is thrown on.
 * @throws {SyncError} `CONTENT_SIZE_WRONG` when more or fewer bytes come than were announced; otherwise as `uploadFile`, with which
 * it shares its promise: nothing becomes visible unless it resolves, except for `UPLOAD_UNCERTAIN`.
 */
export async function uploadContent(
  context: ContentContext,
  request: ContentRequest,
  chunks: AsyncIterable<Uint8Array>,
  outer: AbortSignal,
): Promise<UploadResult> {
  const { api, clock, storage, window: most, slabs, onEvent } = context
  const direct = storage.isObjectStorage
  const { shown, parentId, name, size, modifiedAt, wrapFor } = request
  if (wrapFor === undefined) await api.places?.plain('send', parentId, name)
  if (size !== undefined) checkFileSize(size)
  onEvent?.({ type: 'file-started', path: shown, bytes: size ?? 0 })
  const stop = new AbortController()
  const signal = AbortSignal.any([outer, stop.signal])
  const encryptor = wrapFor && createFileEncryptor({ checkOutput: true })
  const maker = createStreamParts(chunks, encryptor, slabs, size, signal)
  let channel: UploadChannel | undefined
  let isCompleting = false
  try {
    // Before anything is opened: many a source fails at once, and many a content ends within its first part.
    await maker.begin()
    const announced = size ?? maker.total()
    const target = { parentId, name, modifiedAt, ...(announced === undefined ? {} : { size: announced }) }
    channel = await openUploadChannel(api, target, { direct, window: most, partSize: slabs.size, clock, signal })
    const { put } = channel
    const window = createPartWindow(channel.window, clock)
    const receipts: Receipt[] = []
    const send = async ({ part, slab }: StreamPart, sent: () => void) => {
      try {
        const receipt = await put(part, signal, sent)
        window.acknowledged(part.bytes.length)
        onEvent?.({ type: 'part-confirmed', path: shown, bytes: part.bytes.length })
        return receipt
      } catch (error) {
        stop.abort(error)
        throw error
      } finally {
        slabs.give(slab)
      }
    }
    for await (const receipt of inAnyOrder(maker.parts(), window, send)) receipts.push(receipt)
    const total = maker.total()!
    if (request.replaces !== undefined) await checkUnchanged(api, request.replaces, signal)
    const fileKey = encryptor?.final()
    const how: Completion = {
      resolution: request.replaces === undefined ? 'fail' : 'overwrite',
      fileName: name,
      keepShareLinks: request.keptLinks !== undefined,
      ...(fileKey && (await wrapped(fileKey, request))),
    }
    isCompleting = true
    const sent = { target: { parentId, name }, replaces: request.replaces?.id, size: total, modifiedAt, fileKey }
    const node = await finish({ api, clock }, channel, receipts, how, sent, signal)
    onEvent?.({ type: 'file-done', path: shown, bytes: total })
    return { node, bytes: total, ...(fileKey === undefined ? {} : { fileKey }) }
  } catch (error) {
    stop.abort(error)
    maker.close()
    encryptor?.abandon()
    const mayBeVisible = isCompleting && error instanceof SyncError && error.code === 'UPLOAD_UNCERTAIN'
    if (!mayBeVisible) await channel?.cancel().catch(() => {})
    throw outer.aborted ? cancelled(outer) : error
  }
}

interface StreamPart {
  readonly part: Part
  readonly slab: Uint8Array
}

/** Pieces that are encrypted without a look at anything else. */
const PIECE_BYTES = 256 * 1024

/** Cuts what comes into parts, and encrypts it on the way. */
function createStreamParts(
  chunks: AsyncIterable<Uint8Array>,
  encryptor: FileEncryptor | undefined,
  slabs: ContentContext['slabs'],
  size: number | undefined,
  signal: AbortSignal,
) {
  const source = chunks[Symbol.asyncIterator]()
  let chunk = new Uint8Array(0)
  let bytes = 0
  let hasEnded = false
  let first: StreamPart | undefined

  /** The next bytes that are there; `undefined` at the end. */
  async function more(): Promise<Uint8Array | undefined> {
    while (chunk.length === 0 && !hasEnded) {
      const next = await orAborted(source.next(), signal)
      if (next.done === true) hasEnded = true
      else if (next.value instanceof Uint8Array) chunk = next.value as Uint8Array<ArrayBuffer>
      else throw new TypeError('Content comes in chunks of Uint8Array')
    }
    return hasEnded ? undefined : chunk
  }

  async function make(number: number): Promise<StreamPart> {
    const slab = await slabs.take(signal)
    const offset = bytes
    let fill = 0
    try {
      while (fill < slab.length) {
        const there = await more()
        if (there === undefined) break
        const piece = there.subarray(0, Math.min(PIECE_BYTES, slab.length - fill))
        if (size !== undefined && bytes + piece.length > size) throw wrongSize(size, 'more')
        if (encryptor === undefined) {
          checkFileSize(bytes + piece.length)
          slab.set(piece, fill)
        } else encryptor.updateInto(piece, slab, fill)
        fill += piece.length
        bytes += piece.length
        chunk = chunk.subarray(piece.length)
      }
      return { part: { number, offset, bytes: slab.subarray(0, fill) }, slab }
    } catch (error) {
      slabs.give(slab)
      throw error
    }
  }

  return {
    /** Makes the first part, which is there also for content without any bytes. */
    async begin() {
      first = await make(1)
    },
    /** All of it, once it has ended. */
    total: () => (hasEnded ? bytes : undefined),
    async *parts(): AsyncGenerator<StreamPart> {
      yield first!
      for (let number = 2; (await more()) !== undefined; number++) yield await make(number)
      if (size !== undefined && bytes < size) throw wrongSize(size, 'fewer')
    },
    /** Has the source end; it is not waited for, since it may be what does not answer. */
    close() {
      if (hasEnded) return
      hasEnded = true
      void Promise.resolve(source.return?.()).catch(() => {})
    },
  }
}

/** Waits, but not longer than until an abort. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    work.catch(() => {})
    throw cancelled(signal)
  }
  let stop: (() => void) | undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(cancelled(signal))
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', stop!)
  }
}
