/**
 * What becomes of uploads that an earlier run did not end: going on with one, finding out that it is done, or giving it up. Goes on
 * only when the source is in the very state that was being read, the upload is open, and its keys open.
 * @module
 */
import {
  type FileKey,
  type OutputCheck,
  type ResumableEncryptor,
  resumeFileEncryptor,
  SyncError,
  type WrappedFileKey,
} from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { getUploadStatus, isUploadOpen } from '../api/uploads.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock } from '../environment.ts'
import type { SourceIdentity, StableReader } from '../local/stable-read.ts'
import { type Sent, settle } from './complete.ts'
import type { JournaledUpload, UploadJournal } from './journal.ts'
import { giveUpUpload, isGone, resumedChannel, type UploadChannel } from './upload-channel.ts'

export interface ResumeContext {
  readonly api: Api
  readonly clock: Clock
  readonly journal: UploadJournal
  /** Parts in flight. */
  readonly window: number
  /** See `createResumableEncryptor`. */
  readonly checkOutput: OutputCheck
  /** Opens a key with the account's own key pair. */
  unwrap(wrapped: WrappedFileKey, signal?: AbortSignal): Promise<FileKey>
}

export interface ResumeTarget {
  readonly source: string
  readonly parentId: number
  readonly name: string
  readonly replaces: number | undefined
  /** False where the route or the target does not allow to go on inside a file. */
  readonly isResumable: boolean
  /** Bytes of the largest part that there is a buffer for. */
  readonly maxPart: number
}

export type Resumption =
  /** It was completed before. */
  | { readonly node: RemoteNode }
  /** It goes on. */
  | { readonly entry: JournaledUpload; readonly channel: UploadChannel; readonly encryptor: ResumableEncryptor }

const isSameState = (a: SourceIdentity, b: SourceIdentity) =>
  a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs && a.dev === b.dev && a.ino === b.ino

/**
 * Takes up the interrupted upload of a file; one that cannot go on is given up.
 *
 * @returns `undefined` when there is none, or none that can go on: start from the beginning, under a new key.
 * @throws {SyncError} `UPLOAD_UNCERTAIN` while the server is still putting it together, and failures of network or server;
 * nothing has changed then.
 */
export async function resumeUpload(
  context: ResumeContext,
  target: ResumeTarget,
  reader: StableReader,
  signal: AbortSignal,
): Promise<Resumption | undefined> {
  const { api, clock, journal, window } = context
  const past = journal
    .open()
    .filter(
      ({ path, parentId, name }) => path === target.source && parentId === target.parentId && name === target.name,
    )
  const entry = past.findLast(({ isAbandoned }) => !isAbandoned)
  for (const other of past) if (other !== entry) await retire(api, other, signal)
  if (entry === undefined) return undefined
  if (isSameState(entry.source, reader.identity)) {
    const plan = { partSize: entry.partSize, size: entry.source.size }
    const channel = resumedChannel(api, entry.uploadId, plan, { window, clock })
    const node = await settleInterrupted(context, channel, entry, reader, signal)
    if (node !== undefined) {
      entry.settle()
      return { node }
    }
    const fits = entry.replaces === target.replaces && entry.partSize <= target.maxPart && entry.partSize % 16 === 0
    const encryptor = target.isResumable && fits ? await openEncryptor(context, entry, signal) : undefined
    if (encryptor !== undefined) return { entry, channel, encryptor }
  }
  await retire(api, entry, signal)
  return undefined
}

/** Finds out whether an upload was completed just before its run ended. */
async function settleInterrupted(
  context: ResumeContext,
  channel: UploadChannel,
  { completedWith, sealed, parentId, name, replaces }: JournaledUpload,
  reader: StableReader,
  signal: AbortSignal,
): Promise<RemoteNode | undefined> {
  if (completedWith === undefined) return undefined
  const sent: Sent = {
    target: { parentId, name },
    replaces,
    size: reader.size,
    modifiedAt: reader.modifiedAt,
    fileKey: sealed && { iv: sealed.fileKey.iv, tag: completedWith },
  }
  return settle(context, channel, sent, signal)
}

/** The encryptor of an upload that is still open; `undefined` when it is not, or its keys do not open. */
async function openEncryptor(
  { api, unwrap, checkOutput }: ResumeContext,
  { uploadId, sealed, parts }: JournaledUpload,
  signal: AbortSignal,
): Promise<ResumableEncryptor | undefined> {
  try {
    if (sealed === undefined || !(await isUploadOpen(api, uploadId, signal))) return undefined
    const digests = new Map([...parts].map(([number, { digest }]) => [number, digest]))
    return await resumeFileEncryptor(sealed, (wrapped) => unwrap(wrapped, signal), digests, { checkOutput })
  } catch (error) {
    const isUseless = error instanceof SyncError && (error.class === 'key' || error.class === 'integrity')
    if (isUseless || isGone(error)) return undefined
    throw error
  }
}

/** Gives an upload up for good: it is never resumed, and stays in the journal until it is gone at the server. */
export async function retire(api: Api, entry: JournaledUpload, signal?: AbortSignal): Promise<void> {
  if (!entry.isAbandoned) await entry.abandon()
  const mayBeComplete = entry.completedWith !== undefined || entry.isSinglePart === true
  if (mayBeComplete && (await mayStillAppear(api, entry.uploadId, signal))) return
  if (await giveUpUpload(api, entry.uploadId)) entry.settle()
}

/** True while the server puts an upload together: cancelling it then might take away what others see already. */
async function mayStillAppear(api: Api, uploadId: string, signal?: AbortSignal): Promise<boolean> {
  try {
    return !(await isUploadOpen(api, uploadId, signal)) && (await getUploadStatus(api, uploadId, signal)) === undefined
  } catch {
    return false
  }
}
