/**
 * One upload function for everything: reads a stable file, encrypts it under a fresh key, sends it part by part through a
 * channel, and makes it visible only when every check has passed. A part is encrypted once and kept until acknowledged; every
 * new attempt has a new key. The one exception goes on with a large upload that an earlier run did not end, see resume.ts.
 * @module
 */
import { createHash } from 'node:crypto'
import {
  checkFileSize,
  createFileEncryptor,
  createResumableEncryptor,
  type FileEncryptor,
  type FileKey,
  formatFileKey,
  type OutputCheck,
  type PublicKey,
  type ResumableEncryptor,
  type WrappedFileKey,
  wrapFileKey,
  wrapFileKeyForEach,
} from '../../crypto/index.ts'
import type { ServerStorage } from '../api/account.ts'
import type { Api } from '../api/api.ts'
import type { Completion } from '../api/uploads.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import { openStable, readSmallStable, type SourceIdentity, type StableReader } from '../local/stable-read.ts'
import { checkUnchanged, finish } from './complete.ts'
import { type EncryptionThread, THREAD_FROM } from './encryption-thread.ts'
import type { OnEvent } from './events.ts'
import { inAnyOrder, type SlabPool } from './flow.ts'
import type { JournaledUpload, UploadJournal } from './journal.ts'
import { createPartMaker, type PartMaker } from './part-maker.ts'
import { createPartWindow } from './part-window.ts'
import { resumeUpload, retire } from './resume.ts'
import { forgetStorage } from './storage-routes.ts'
import { openUploadChannel, type Part, partSizeFor, type Receipt, type UploadChannel } from './upload-channel.ts'

/**
 * `proof`: a GMAC of what stands in the part buffers, when it is written and again when it was sent, proves that all of it is what the
 * tag is of, and some pieces are decrypted again. `full`: all of it is, besides.
 */
export type OutputChecking = 'proof' | 'full'

export interface UploadContext {
  readonly api: Api
  readonly clock: Clock
  /** How content travels to the server. */
  readonly storage: ServerStorage
  readonly slabs: SlabPool
  /** Bytes per part. */
  readonly partSize: number
  /** Parts in flight per file. */
  readonly window: number
  /** Of large files; small ones are decrypted again in any case. Default `proof`. */
  readonly checkOutput?: OutputChecking | undefined
  /** Make the SHA-256 of the plaintext while it is read. */
  readonly isHashed?: boolean | undefined
  /** Encrypts files from `THREAD_FROM` bytes on; without it that is done here. */
  readonly thread?: EncryptionThread | undefined
  /** Lets a later run go on with files above one part; without it every attempt starts from the first byte. */
  readonly resume?: { readonly journal: UploadJournal; unwrap(wrapped: WrappedFileKey): Promise<FileKey> } | undefined
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
  /**
   * Of an encrypted file request: everybody who is to open the file. `wrapFor` is somebody else then, whom a later run goes on with; without
   * it a file starts over.
   */
  readonly recipients?: readonly Recipient[]
  /** Links of what is replaced lead to this file then; those of an encrypted one get its key. */
  readonly keptLinks?: readonly Recipient[]
  /** The listed node that this content replaces; the upload is a conflict when it is not there any more. */
  readonly replaces?: RemoteNode
  /** It is known to change all the time: what is there when it is opened is sent, without trying for a state in which it rests. */
  readonly isGrowing?: boolean | undefined
}

/** Somebody whom a file is encrypted for. */
export interface Recipient {
  readonly userId: number
  readonly publicKey: PublicKey
}

export interface UploadResult {
  readonly node: RemoteNode
  readonly bytes: number
  /** For handing out to others; the caller wipes it. */
  readonly fileKey?: FileKey
  /** Of the plaintext, base64, if it was asked for; absent too when an earlier run had sent all of it. */
  readonly sha256?: string
  /** Present where the file did not rest in three tries, and its first `bytes` bytes were sent; there is a `sha256` then, too. */
  readonly asOf?: AsOf
}

/** The state that a file was in when its beginning was taken. */
export interface AsOf extends SourceIdentity {
  /** False when it was in the same state at the end, after all. */
  readonly isInconsistent: boolean
}

const ATTEMPTS = 3

const isEncrypted = ({ wrapFor, recipients }: UploadRequest): boolean =>
  wrapFor !== undefined || recipients !== undefined

const checkOf = ({ checkOutput }: UploadContext, size: number): OutputCheck =>
  checkOutput === 'full' ? true : { size }

/**
 * Uploads one file. One that changes while it is sent is tried again; after three tries, what was there when it was opened is sent, if
 * that did not change while it was read (`asOf`).
 *
 * @throws {SyncError} `SOURCE_CHANGED` when that changed, too; `REMOTE_CHANGED` or `EXISTS` (class `conflict`) when somebody else
 * was there first, `FILE_TOO_LARGE`, `NOT_ENCRYPTED` and `ROOM_NOT_ENCRYPTED` where content may not go without encryption, and
 * everything the layers below throw. Nothing becomes visible unless it resolves, except
 * when the answer to the last request was lost for good (`UPLOAD_UNCERTAIN`).
 */
export async function uploadFile(
  context: UploadContext,
  request: UploadRequest,
  signal: AbortSignal,
): Promise<UploadResult> {
  if (!isEncrypted(request)) await context.api.places?.plain('send', request.parentId, request.name)
  for (let attempt = request.isGrowing ? ATTEMPTS + 1 : 1; ; attempt++) {
    try {
      return await attemptUpload(context, { ...request, isGrowing: attempt > ATTEMPTS }, signal)
    } catch (error) {
      const isChanged = error instanceof SyncError && error.class === 'changed'
      const again = attempt < ATTEMPTS || (attempt === ATTEMPTS && isChanged && error.code === 'SOURCE_CHANGED')
      if (!isChanged || !again || signal.aborted) throw error
    }
  }
}

async function attemptUpload(
  context: UploadContext,
  request: UploadRequest,
  signal: AbortSignal,
): Promise<UploadResult> {
  const small = request.isGrowing ? undefined : readSmallStable(request.source, request.shown)
  if (small !== undefined) return sendFile(context, request, small, signal)
  const reader = await openStable(request.source, request.shown)
  try {
    return await sendFile(context, request, { size: reader.size, modifiedAt: reader.modifiedAt, reader }, signal)
  } finally {
    await reader.close()
  }
}

/** A small file that was read whole, or one that is read while it is sent. */
type Source = { readonly modifiedAt: number } & (
  | { readonly bytes: Uint8Array; readonly identity: SourceIdentity }
  | { readonly size: number; readonly reader: StableReader }
)

/** What one attempt has opened so far. */
interface Attempt {
  readonly signal: AbortSignal
  encryptor?: FileEncryptor | ResumableEncryptor | undefined
  /** Of a file that is read while it is sent. */
  maker?: PartMaker
  channel?: UploadChannel
  /** Present for a file above one part, where there is a journal. */
  entry?: JournaledUpload | undefined
  /** The same for a file of one part, which is not gone on with. */
  listed?: JournaledUpload | undefined
  partSize: number
  isCompleting: boolean
}

async function sendFile(
  context: UploadContext,
  request: UploadRequest,
  source: Source,
  outer: AbortSignal,
): Promise<UploadResult> {
  const { onEvent } = context
  const { shown } = request
  const size = 'bytes' in source ? source.bytes.length : source.size
  checkFileSize(size)
  onEvent?.({ type: 'file-started', path: shown, bytes: size })
  // Ours ends with the file: the first part that fails stops its siblings, which a small file does not have.
  const stop = 'bytes' in source ? undefined : new AbortController()
  const signal = stop === undefined ? outer : AbortSignal.any([outer, stop.signal])
  const attempt: Attempt = {
    signal,
    partSize: Math.min(partSizeFor(size, context.partSize), context.slabs.size),
    isCompleting: false,
  }
  try {
    const finished = await open(context, request, source, size, attempt)
    const result = finished ?? (await sendContent(context, request, source, size, attempt, stop))
    attempt.entry?.settle()
    attempt.listed?.settle()
    onEvent?.({ type: 'file-done', path: shown, bytes: size })
    return { bytes: size, ...result }
  } catch (error) {
    stop?.abort(error)
    attempt.maker?.abandon()
    attempt.encryptor?.abandon()
    // What fails here is made up for by the next run; the reason to give up is what has to be told.
    await giveUp(context, attempt, error, outer).catch(() => {})
    throw outer.aborted ? outer.reason : error
  }
}

type Sealed = Pick<UploadResult, 'node' | 'fileKey' | 'sha256' | 'asOf'>

/** Opens the upload at the server, or takes up the one of an earlier run; what that one has completed is returned. */
async function open(
  context: UploadContext,
  request: UploadRequest,
  source: Source,
  size: number,
  attempt: Attempt,
): Promise<Sealed | undefined> {
  const { api, clock, storage, window, slabs, resume } = context
  const reader = 'reader' in source ? source.reader : undefined
  if (resume !== undefined && reader !== undefined) {
    const { source: path, parentId, name, wrapFor, replaces } = request
    const isResumable = storage.isObjectStorage && wrapFor !== undefined
    const target = { source: path, parentId, name, replaces: replaces?.id, isResumable, maxPart: slabs.size }
    const checkOutput = checkOf(context, size)
    const past = await resumeUpload({ api, clock, window, checkOutput, ...resume }, target, reader, attempt.signal)
    if (past !== undefined && 'node' in past) return past
    if (past !== undefined) {
      attempt.channel = past.channel
      attempt.entry = past.entry
      attempt.encryptor = past.encryptor
      attempt.partSize = past.entry.partSize
      return undefined
    }
  }
  const direct = storage.isObjectStorage && !(storage.takesThrough && isForThrough(source))
  try {
    await openFresh(context, request, source, size, attempt, direct)
  } catch (error) {
    // It does not do what it says.
    if (direct || !storage.isObjectStorage || !(error instanceof SyncError) || error.code !== 'STORAGE_KIND')
      throw error
    forgetStorage(api)
    attempt.encryptor?.abandon()
    await openFresh(context, request, source, size, attempt, true)
  }
  return undefined
}

/**
 * A small file takes three requests through the server, and five to object storage. What is one byte long cannot be sent there again: no
 * chunk says that it begins where it ends.
 */
const isForThrough = (source: Source): boolean => 'bytes' in source && source.bytes.length !== 1

async function openFresh(
  context: UploadContext,
  request: UploadRequest,
  from: Source,
  size: number,
  attempt: Attempt,
  direct: boolean,
): Promise<void> {
  const { api, clock, window, resume } = context
  const { source: path, parentId, name, wrapFor } = request
  const { modifiedAt } = from
  const { signal, partSize } = attempt
  const isSinglePart = size <= partSize
  const journal = isSinglePart ? undefined : resume?.journal
  const isLarge = size > Math.min(partSize, THREAD_FROM)
  const isSecret = isEncrypted(request)
  const resumable = isSecret && isLarge ? createResumableEncryptor({ checkOutput: checkOf(context, size) }) : undefined
  attempt.encryptor = resumable ?? (isSecret ? createFileEncryptor({ checkOutput: true }) : undefined)
  const sealed = journal && direct && wrapFor ? await resumable?.seal(wrapFor) : undefined
  const how = { direct, window, partSize, clock, signal }
  const channel = await openUploadChannel(api, { parentId, name, size, modifiedAt }, how)
  attempt.channel = channel
  const { uploadId } = channel
  const replaces = request.replaces?.id
  const source = 'reader' in from ? from.reader.identity : from.identity
  const start = { uploadId, path, source, parentId, name, replaces, partSize }
  attempt.entry = journal?.begin({ ...start, sealed })
  if (isSinglePart) attempt.listed = resume?.journal.begin({ ...start, isSinglePart })
}

/** Sends all parts, and completes the upload when every check has passed. */
async function sendContent(
  context: UploadContext,
  request: UploadRequest,
  source: Source,
  size: number,
  attempt: Attempt,
  stop: AbortController | undefined,
): Promise<Sealed> {
  const { api, clock, onEvent } = context
  const { shown, parentId, name, replaces, isGrowing } = request
  const { encryptor, entry, signal } = attempt
  const channel = attempt.channel!
  const parts =
    'bytes' in source
      ? onePart(source.bytes, encryptor)
      : makeParts(context.slabs, startMaker(context, source.reader, request, attempt), size, attempt)
  const receipts: Receipt[] = []
  const window = createPartWindow(channel.window, clock)
  const put = async (pending: PendingPart, sent: () => void) => {
    const { part, done } = pending
    try {
      const receipt = await sendPart(channel, entry, pending, signal, sent)
      window.acknowledged(part.bytes.length)
      onEvent?.({ type: 'part-confirmed', path: shown, bytes: part.bytes.length })
      return receipt
    } catch (error) {
      stop?.abort(error)
      throw error
    } finally {
      done()
    }
  }
  // For what is sent in one go the two are one wait.
  const isUnchanged = replaces !== undefined && 'bytes' in source ? checkUnchanged(api, replaces, signal) : undefined
  isUnchanged?.catch(() => {}) // told when awaited
  for await (const receipt of inAnyOrder(parts, window, put)) receipts.push(receipt)
  const fileKey = 'bytes' in source ? encryptor?.final() : await attempt.maker!.end()
  const sha256 = 'bytes' in source ? digestOf(context, source.bytes) : attempt.maker!.sha256()
  let asOf: AsOf | undefined
  if ('reader' in source && isGrowing) {
    const { reader } = source
    asOf = { ...reader.identity, isInconsistent: !(await reader.verifyPrefix(sha256!, signal)) }
  } else if ('reader' in source) {
    await source.reader.verify()
  }
  if (replaces !== undefined) await (isUnchanged ?? checkUnchanged(api, replaces, signal))
  const how: Completion = {
    resolution: replaces === undefined ? 'fail' : 'overwrite',
    fileName: name,
    keepShareLinks: request.keptLinks !== undefined,
    ...(fileKey && (await wrapped(fileKey, request))),
  }
  await entry?.completing(fileKey?.tag ?? new Uint8Array(0))
  attempt.isCompleting = true
  const { modifiedAt } = source
  const sent = { target: { parentId, name }, replaces: replaces?.id, size, modifiedAt, fileKey }
  const node = await finish(context, channel, receipts, how, sent, signal)
  return {
    node,
    ...(fileKey === undefined ? {} : { fileKey }),
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(asOf === undefined ? {} : { asOf }),
  }
}

/** The key for our own account, or for everybody whom a file request names. */
export async function wrapped(
  fileKey: FileKey,
  { wrapFor, recipients, keptLinks }: Pick<UploadRequest, 'wrapFor' | 'recipients' | 'keptLinks'>,
): Promise<Pick<Completion, 'fileKey' | 'userFileKeys'>> {
  const own = recipients === undefined && wrapFor ? { fileKey: formatFileKey(await wrapFileKey(fileKey, wrapFor)) } : {}
  const others = recipients ?? keptLinks ?? []
  if (others.length === 0) return own
  const keys = await wrapFileKeyForEach(
    fileKey,
    others.map(({ publicKey }) => publicKey),
  )
  return { ...own, userFileKeys: others.map(({ userId }, at) => ({ userId, fileKey: formatFileKey(keys[at]!) })) }
}

const digestOf = ({ isHashed }: UploadContext, bytes: Uint8Array): string | undefined =>
  isHashed ? createHash('sha256').update(bytes).digest('base64') : undefined

/** Sends a part, unless an earlier run did. */
async function sendPart(
  channel: UploadChannel,
  entry: JournaledUpload | undefined,
  { part, digest, confirm }: PendingPart,
  signal: AbortSignal,
  sent: () => void,
): Promise<Receipt> {
  if (entry?.sealed === undefined || digest === undefined) {
    const receipt = await channel.put(part, signal, sent)
    await confirm?.()
    return receipt
  }
  const { number, offset, bytes } = part
  const etag = entry.receipts.get(number)
  if (etag !== undefined) return { partNumber: number, partEtag: etag }
  if (!entry.parts.has(number)) await entry.sending(number, { offset, length: bytes.length, digest })
  const receipt = await channel.put(part, signal, sent)
  // A later run does not send what it reads as received, so that has to be right.
  await confirm?.()
  entry.received(number, receipt.partEtag)
  return receipt
}

/** After a failure: keeps what a later run can go on with, and cancels everything else. */
async function giveUp(context: UploadContext, attempt: Attempt, error: unknown, outer: AbortSignal): Promise<void> {
  const { channel, entry, isCompleting } = attempt
  if (channel === undefined) return
  // An upload that may be visible already is not cancelled; the server drops what is left of it.
  const mayBeVisible = isCompleting && error instanceof SyncError && error.code === 'UPLOAD_UNCERTAIN'
  if (mayBeVisible || (entry !== undefined && (outer.aborted || saysNothingOfUpload(error)))) return
  if (entry !== undefined) return retire(context.api, entry)
  await channel.cancel()
  attempt.listed?.settle()
}

const TRANSIENT = new Set(['network', 'server', 'rate_limit'])

/** True for failures after which the same upload may well go on. */
const saysNothingOfUpload = (error: unknown) =>
  error instanceof SyncError &&
  ((error.retryable && TRANSIENT.has(error.class)) ||
    error.class === 'auth' ||
    error.class === 'tls' ||
    error.code === 'ENCRYPTION_THREAD_LOST')

interface PendingPart {
  readonly part: Part
  /** Made also of a part that was acknowledged before: the tag must cover the bytes that are there. */
  readonly digest?: Uint8Array | undefined
  /** Looks at what was sent once more; see `PartMaker`. */
  confirm?(): Promise<void>
  /** Called once the bytes are not needed any more. */
  done(): void
}

async function* onePart(bytes: Uint8Array, encryptor: FileEncryptor | undefined): AsyncGenerator<PendingPart> {
  yield { part: { number: 1, offset: 0, bytes: encryptor?.update(bytes) ?? bytes }, done: () => {} }
}

/** Decides where a file is read and encrypted. */
function startMaker(
  context: UploadContext,
  reader: StableReader,
  { shown, isGrowing }: UploadRequest,
  attempt: Attempt,
): PartMaker {
  const { thread, isHashed: isAsked } = context
  const { encryptor, signal } = attempt
  const isHashed = isAsked === true || isGrowing === true
  const isThreads = thread && encryptor && 'handOver' in encryptor && reader.size >= THREAD_FROM
  attempt.maker = isThreads
    ? thread.encrypt(reader, encryptor, shown, signal, { isHashed, checkOutput: checkOf(context, reader.size) })
    : createPartMaker(reader, encryptor, isHashed)
  return attempt.maker
}

/** Parts that are made or being made while others are on their way: the next one is begun as soon as this one is sent off. */
const AHEAD = 1

/** The parts of a file, in order. */
async function* makeParts(
  slabs: SlabPool,
  maker: PartMaker,
  size: number,
  { partSize, signal }: Attempt,
): AsyncGenerator<PendingPart> {
  // At least one part, for a file that was emptied since it was listed.
  const count = Math.max(1, Math.ceil(size / partSize))
  const make = async (number: number): Promise<PendingPart> => {
    const offset = (number - 1) * partSize
    const slab = await slabs.take(signal)
    try {
      const bytes = slab.subarray(0, Math.min(partSize, size - offset))
      const digest = await maker.make(number, offset, bytes)
      const confirm = () => maker.confirm(number, bytes)
      return { part: { number, offset, bytes }, digest, confirm, done: () => slabs.give(slab) }
    } catch (error) {
      slabs.give(slab)
      throw signal.aborted ? cancelled(signal) : error
    }
  }
  const ahead: Promise<PendingPart>[] = []
  let next = 1
  const makeAhead = () => {
    while (next <= count && ahead.length < AHEAD) {
      const made = make(next++)
      made.catch(() => {}) // reported when awaited below
      ahead.push(made)
    }
  }
  try {
    for (makeAhead(); ahead.length > 0; ) {
      const part = await ahead.shift()!
      makeAhead()
      yield part
    }
  } finally {
    // Nothing is read any more when the file is closed.
    for (const made of ahead) await made.then(({ done }) => done()).catch(() => {})
  }
}
