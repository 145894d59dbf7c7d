/**
 * What a server opens for one file. The two storage kinds differ only here: presigned part URLs in any order, or chunks
 * through the server one after the other. Encryption knows nothing of either.
 * @module
 */
import type { Api } from '../api/api.ts'
import {
  type Completion,
  cancelUpload,
  completeChunks,
  completeParts,
  createUpload,
  getUploadStatus,
  isUploadOpen,
  postChunk,
  putPart,
  type UploadTarget,
} from '../api/uploads.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock } from '../environment.ts'
import { SyncError } from '../errors.ts'
import { createPartUrls, type PartPlan, type PartUrls } from './part-urls.ts'

export interface Part {
  /** From 1. */
  readonly number: number
  /** Of its first byte in the file. */
  readonly offset: number
  readonly bytes: Uint8Array
}

/** Proof that a part arrived. */
export interface Receipt {
  readonly partNumber: number
  readonly partEtag: string
}

export interface UploadChannel {
  readonly uploadId: string
  /** Parts that may be in flight at once. */
  readonly window: number
  /**
   * Sends a part; sends the same bytes again when that fails and may help.
   *
   * @param sent - Told when a large part is on its way and only its answer is missing.
   */
  put(part: Part, signal?: AbortSignal, sent?: () => void): Promise<Receipt>
  /** Makes the file visible; receipts in any order. When the answer is lost it may or may not be: see `settle` in upload.ts. */
  complete(receipts: readonly Receipt[], how: Completion, signal?: AbortSignal): Promise<RemoteNode>
  /** The finished node, if the server can still tell; `undefined` when it cannot, or never began to finish. */
  status(signal?: AbortSignal): Promise<RemoteNode | undefined>
  /** Gives the upload up, best effort; true when it is gone at the server. */
  cancel(): Promise<boolean>
}

/** Fewest bytes of a part that is not the last, and most parts of a file. */
export const MIN_PART = 5 * 1024 * 1024
const MAX_PARTS = 10_000
/** Of the cipher; parts end with whole ones, see crypto/output-proof.ts. */
const BLOCK = 16

/** Bytes per part: `wanted`, or more where the file would need over 10,000. */
export const partSizeFor = (fileSize: number, wanted: number): number =>
  Math.ceil(Math.max(wanted, MIN_PART, Math.ceil(fileSize / MAX_PARTS)) / BLOCK) * BLOCK

const FINISH_LIMIT_MS = 10 * 60_000
const CANCEL_LIMIT_MS = 4_000
const OPEN_LIMIT_MS = 2_000

export async function openUploadChannel(
  api: Api,
  target: UploadTarget,
  options: { direct: boolean; window: number; partSize: number; clock: Clock; signal?: AbortSignal | undefined },
): Promise<UploadChannel> {
  const { direct, partSize, clock, signal } = options
  const upload = await createUpload(api, target, direct, signal)
  const { uploadId } = upload
  const cancel = () => giveUpUpload(api, uploadId)
  if (!direct) {
    return {
      uploadId,
      window: 1,
      async put({ number, offset, bytes }, signal) {
        const { size } = await postChunk(api, upload, bytes, offset, target.size, signal)
        if (size !== undefined && size !== bytes.length) {
          throw new SyncError('changed', 'UPLOAD_GONE', 'The server received another number of bytes than were sent')
        }
        return { partNumber: number, partEtag: '' }
      },
      complete: (_receipts, how, signal) => completeChunks(api, upload, how, signal),
      // Who has only the link of a file request cannot look whether the file is there.
      status: async (signal) => (api.request === undefined ? undefined : statusOf(api, uploadId, clock, signal)),
      cancel,
    }
  }
  const urls = createPartUrls(api, uploadId, { partSize, size: target.size }, clock, signal)
  urls.begin()
  return directChannel(api, uploadId, urls, options)
}

/** Gives an upload up, best effort; true when it is gone at the server. */
export async function giveUpUpload(api: Api, uploadId: string): Promise<boolean> {
  try {
    await cancelUpload(api, uploadId, AbortSignal.timeout(CANCEL_LIMIT_MS))
    return true
  } catch (error) {
    return isGone(error)
  }
}

/** True for what a server says of an upload that it does not know, or not any more. */
export const isGone = (error: unknown): boolean =>
  error instanceof SyncError && (error.code === 'UPLOAD_GONE' || error.class === 'not_found')

/** The channel of an upload to object storage that an earlier run has opened. */
export const resumedChannel = (
  api: Api,
  uploadId: string,
  plan: PartPlan,
  options: { window: number; clock: Clock },
): UploadChannel => directChannel(api, uploadId, createPartUrls(api, uploadId, plan, options.clock), options)

function directChannel(
  api: Api,
  uploadId: string,
  urls: PartUrls,
  { window, clock }: { window: number; clock: Clock },
): UploadChannel {
  return {
    uploadId,
    window,
    async put({ number, bytes }, signal, sent) {
      for (let tries = 1; ; tries++) {
        const { url, refused } = await urls.take(number, bytes.length, signal)
        try {
          return { partNumber: number, partEtag: await putPart(api, url, bytes, signal, sent) }
        } catch (error) {
          const expired = error instanceof SyncError && error.code === 'URL_EXPIRED'
          if (!expired) throw error
          refused()
          if (tries >= 3) {
            throw new SyncError('server', 'STORAGE_REFUSED', 'The storage refuses every URL for this part', {
              hint: 'The clocks of server and storage may differ.',
            })
          }
        }
      }
    },
    async complete(receipts, how, signal) {
      const inOrder = receipts.toSorted((a, b) => a.partNumber - b.partNumber)
      await completeParts(api, uploadId, inOrder, how, signal)
      return pollUntilDone(api, uploadId, clock, signal)
    },
    status: (signal) => statusOf(api, uploadId, clock, signal),
    cancel: () => giveUpUpload(api, uploadId),
  }
}

/** The finished node; `undefined` for an upload that is still open for longer than an answer takes: the request to complete it never arrived there. */
async function statusOf(
  api: Api,
  uploadId: string,
  clock: Clock,
  signal?: AbortSignal,
): Promise<RemoteNode | undefined> {
  for (let wait = 100; await isUploadOpen(api, uploadId, signal); wait *= 2) {
    if (wait > OPEN_LIMIT_MS) return undefined
    await clock.sleep(wait, signal)
  }
  return pollUntilDone(api, uploadId, clock, signal)
}

async function pollUntilDone(api: Api, uploadId: string, clock: Clock, signal?: AbortSignal): Promise<RemoteNode> {
  const deadline = clock.monotonic() + FINISH_LIMIT_MS
  for (let wait = 25; ; wait = Math.min(wait * 2, 5_000)) {
    const node = await getUploadStatus(api, uploadId, signal)
    if (node !== undefined) return node
    if (clock.monotonic() > deadline) {
      throw new SyncError('server', 'UPLOAD_UNCERTAIN', 'The server is still putting the file together', {
        hint: 'Run again later: it is skipped if it is there by then.',
      })
    }
    await clock.sleep(wait, signal)
  }
}
