/**
 * One upload function for everything: reads a stable file, encrypts it under a fresh key, sends it part by part through a
 * channel, and makes it visible only when every check has passed. A part is encrypted once and kept until acknowledged; every
 * new attempt has a new key.
 * @module
 */
import {
  checkFileSize,
  createFileEncryptor,
  type FileKey,
  formatFileKey,
  type PublicKey,
  wrapFileKey,
} from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { getFileKey } from '../api/file-keys.ts'
import { getNode, listChildren } from '../api/nodes.ts'
import type { Completion } from '../api/uploads.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { sameNameKey } from '../local/names.ts'
import { openStable, readSmallStable, type StableReader } from '../local/stable-read.ts'
import type { OnEvent } from './events.ts'
import { mapInOrder, type SlabPool } from './flow.ts'
import { openUploadChannel, type Part, partSizeFor, type Receipt, type UploadChannel } from './upload-channel.ts'

export interface UploadContext {
  readonly api: Api
  readonly clock: Clock
  /** True when parts go to object storage. */
  readonly direct: boolean
  readonly slabs: SlabPool
  /** Bytes per part. */
  readonly partSize: number
  /** Parts in flight per file. */
  readonly window: number
  readonly onEvent?: OnEvent | undefined
}

export interface UploadRequest {
  readonly source: string
  /** How the file is called in events and errors. */
  readonly shown: string
  readonly parentId: number
  readonly name: string
  /** Our own public key for an encrypted target; absent for a plain one. */
  readonly wrapFor?: PublicKey
  /** The listed node that this content replaces; the upload is a conflict when it is not there any more. */
  readonly replaces?: RemoteNode
}

export interface UploadResult {
  readonly node: RemoteNode
  readonly bytes: number
  /** For handing out to others; the caller wipes it. */
  readonly fileKey?: FileKey
}

const ATTEMPTS = 3

/**
 * Uploads one file.
 *
 * @throws {SyncError} `SOURCE_CHANGED` after three tries, `REMOTE_CHANGED` or `EXISTS` (class `conflict`) when somebody else
 * was there first, `FILE_TOO_LARGE`, and everything the layers below throw. Nothing becomes visible unless it resolves, except
 * when the answer to the last request was lost for good (`UPLOAD_UNCERTAIN`).
 */
export async function uploadFile(
  context: UploadContext,
  request: UploadRequest,
  signal: AbortSignal,
): Promise<UploadResult> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await attemptUpload(context, request, signal)
    } catch (error) {
      const again = error instanceof SyncError && error.class === 'changed' && attempt < ATTEMPTS
      if (!again || signal.aborted) throw error
    }
  }
}

async function attemptUpload(
  context: UploadContext,
  request: UploadRequest,
  signal: AbortSignal,
): Promise<UploadResult> {
  const small = readSmallStable(request.source, request.shown)
  if (small !== undefined) return sendFile(context, request, small.bytes.length, small.modifiedAt, small.bytes, signal)
  const reader = await openStable(request.source, request.shown)
  try {
    return await sendFile(context, request, reader.size, reader.modifiedAt, reader, signal)
  } finally {
    await reader.close()
  }
}

async function sendFile(
  context: UploadContext,
  request: UploadRequest,
  size: number,
  modifiedAt: number,
  source: Uint8Array | StableReader,
  outer: AbortSignal,
): Promise<UploadResult> {
  const { api, clock, onEvent } = context
  const { shown, parentId, name, wrapFor } = request
  checkFileSize(size)
  onEvent?.({ type: 'file-started', path: shown, bytes: size })
  // Ours ends with the file: the first part that fails stops its siblings.
  const stop = new AbortController()
  const signal = AbortSignal.any([outer, stop.signal])
  const encryptor = wrapFor === undefined ? undefined : createFileEncryptor({ checkOutput: true })
  let channel: UploadChannel | undefined
  let completing = false
  try {
    channel = await openUploadChannel(
      api,
      { parentId, name, size, modifiedAt },
      { direct: context.direct, window: context.window, clock, signal },
    )
    const parts =
      source instanceof Uint8Array ? onePart(source, encryptor) : readParts(context, source, encryptor, signal)
    const receipts: Receipt[] = []
    const open = channel
    const put = async ({ part, done }: PendingPart) => {
      try {
        const receipt = await open.put(part, signal)
        onEvent?.({ type: 'part-confirmed', path: shown, bytes: part.bytes.length })
        return receipt
      } catch (error) {
        stop.abort(error)
        throw error
      } finally {
        done()
      }
    }
    for await (const receipt of mapInOrder(parts, channel.window, put)) receipts.push(receipt)
    const fileKey = encryptor?.final()
    if (!(source instanceof Uint8Array)) await source.verify()
    if (request.replaces !== undefined) await checkUnchanged(api, request.replaces, signal)
    const wrapped = fileKey && wrapFor ? formatFileKey(await wrapFileKey(fileKey, wrapFor)) : undefined
    const how: Completion = {
      resolution: request.replaces === undefined ? 'fail' : 'overwrite',
      fileName: name,
      fileKey: wrapped,
    }
    completing = true
    const node = await finish(context, channel, receipts, how, { request, size, modifiedAt, fileKey }, signal)
    onEvent?.({ type: 'file-done', path: shown, bytes: size })
    return { node, bytes: size, ...(fileKey === undefined ? {} : { fileKey }) }
  } catch (error) {
    encryptor?.abandon()
    stop.abort(error)
    // An upload that may be visible already is not cancelled; the server drops what is left of it.
    const mayBeVisible = completing && error instanceof SyncError && error.code === 'UPLOAD_UNCERTAIN'
    if (!mayBeVisible) await channel?.cancel()
    throw outer.aborted ? outer.reason : error
  }
}

type Encryptor = ReturnType<typeof createFileEncryptor>

interface PendingPart {
  readonly part: Part
  /** Called once the bytes are not needed any more. */
  done(): void
}

async function* onePart(bytes: Uint8Array, encryptor: Encryptor | undefined): AsyncGenerator<PendingPart> {
  yield { part: { number: 1, offset: 0, bytes: encryptor?.update(bytes) ?? bytes }, done: () => {} }
}

const READ_BYTES = 1024 * 1024

/** Reads ahead by one buffer while the other is encrypted into the part's slab. */
async function* readParts(
  context: UploadContext,
  reader: StableReader,
  encryptor: Encryptor | undefined,
  signal: AbortSignal,
): AsyncGenerator<PendingPart> {
  const { size } = reader
  const partSize = Math.min(partSizeFor(size, context.partSize), context.slabs.size)
  const buffers = [0, 1].map(() => Buffer.allocUnsafeSlow(Math.min(READ_BYTES, size)))
  let ahead: Promise<Uint8Array> | undefined
  let readAt = 0
  const readNext = (): Promise<Uint8Array> | undefined => {
    if (readAt >= size) return undefined
    // Reads never straddle parts, so that a buffer goes into one slab.
    const partEnd = Math.min(size, (Math.floor(readAt / partSize) + 1) * partSize)
    const piece = buffers.reverse()[0]!.subarray(0, Math.min(READ_BYTES, partEnd - readAt))
    const filled = reader.read(piece, readAt).then(() => piece)
    filled.catch(() => {}) // reported when awaited below
    readAt += piece.length
    return filled
  }
  try {
    ahead = readNext()
    // At least one part, for a file that was emptied since it was listed.
    for (let number = 1, offset = 0; offset < size || number === 1; number++) {
      const slab = await context.slabs.take(signal)
      let filled = 0
      try {
        const length = Math.min(partSize, size - offset)
        while (filled < length) {
          const piece = await ahead!
          ahead = readNext()
          if (encryptor === undefined) slab.set(piece, filled)
          else encryptor.updateInto(piece, slab, filled)
          filled += piece.length
        }
      } catch (error) {
        context.slabs.give(slab)
        throw error
      }
      const done = () => context.slabs.give(slab)
      yield { part: { number, offset, bytes: slab.subarray(0, filled) }, done }
      offset += filled
    }
  } finally {
    await ahead?.catch(() => {}) // a read must not fill a buffer after the file is closed
  }
}

const remoteChanged = () =>
  new SyncError('conflict', 'REMOTE_CHANGED', 'Somebody changed the file on the server meanwhile', {
    hint: 'Look at both versions, then run again.',
  })

/** Replaces only what was listed: same node, same place, same content. */
async function checkUnchanged(api: Api, listed: RemoteNode, signal: AbortSignal): Promise<void> {
  let now: RemoteNode
  try {
    now = await getNode(api, listed.id, signal)
  } catch (error) {
    if (error instanceof SyncError && error.class === 'not_found') throw remoteChanged()
    throw error
  }
  const same =
    now.name === listed.name &&
    now.parentId === listed.parentId &&
    now.size === listed.size &&
    now.updatedAt === listed.updatedAt &&
    now.timestampModification === listed.timestampModification
  if (!same) throw remoteChanged()
}

interface Sent {
  readonly request: UploadRequest
  readonly size: number
  readonly modifiedAt: number
  readonly fileKey: FileKey | undefined
}

const mayHaveHappened = (error: unknown) =>
  error instanceof SyncError && (error.class === 'network' || error.class === 'server' || error.code === 'UPLOAD_GONE')

/** Completes, and finds out what happened when the answer is lost. Never completes twice. */
async function finish(
  context: UploadContext,
  channel: UploadChannel,
  receipts: readonly Receipt[],
  how: Completion,
  sent: Sent,
  signal: AbortSignal,
): Promise<RemoteNode> {
  let node: RemoteNode
  try {
    node = await channel.complete(receipts, how, signal)
  } catch (error) {
    if (!mayHaveHappened(error) || signal.aborted) throw error
    const settled = await settle(context, channel, sent, signal)
    if (settled === undefined) {
      throw new SyncError('changed', 'UPLOAD_LOST', 'The server did not finish the upload', { cause: error })
    }
    node = settled
  }
  if (node.size !== undefined && node.size !== sent.size) {
    throw new SyncError(
      'integrity',
      'UPLOAD_SIZE_WRONG',
      `The server stored ${node.size} bytes instead of ${sent.size}`,
      {
        hint: 'Delete the file on the server and run again.',
      },
    )
  }
  return node
}

/**
 * After a lost answer: asks for the upload's status, then looks the name up. IV and tag identify an upload, so the file is
 * ours exactly when our file key there has the same ones.
 */
async function settle(
  context: UploadContext,
  channel: UploadChannel,
  sent: Sent,
  signal: AbortSignal,
): Promise<RemoteNode | undefined> {
  const { api, clock } = context
  try {
    const node = await channel.status(signal)
    if (node !== undefined) return node
  } catch (error) {
    const isUncertain = error instanceof SyncError && error.code === 'UPLOAD_UNCERTAIN'
    if (signal.aborted || isUncertain) throw error
    // Unknown there: the name decides.
  }
  for (const wait of [0, 500, 2_000]) {
    await clock.sleep(wait, signal)
    const node = await findChild(api, sent.request.parentId, sent.request.name, signal)
    if (node !== undefined && node.id !== sent.request.replaces?.id && (await isOurs(api, node, sent, signal))) {
      return node
    }
  }
  return undefined
}

async function isOurs(api: Api, node: RemoteNode, sent: Sent, signal: AbortSignal): Promise<boolean> {
  if (node.type !== 'file' || node.size !== sent.size) return false
  if (sent.fileKey === undefined) return node.timestampModification === sent.modifiedAt
  try {
    const { iv, tag } = await getFileKey(api, node.id, signal)
    return Buffer.compare(iv, sent.fileKey.iv) === 0 && Buffer.compare(tag, sent.fileKey.tag) === 0
  } catch (error) {
    if (error instanceof SyncError && error.class === 'key') return false
    throw error
  }
}

/** The child of this name, compared in NFC. */
export async function findChild(
  api: Api,
  parentId: number,
  name: string,
  signal?: AbortSignal,
): Promise<RemoteNode | undefined> {
  const key = sameNameKey(name)
  for await (const node of listChildren(api, parentId, signal)) if (sameNameKey(node.name) === key) return node
  return undefined
}
