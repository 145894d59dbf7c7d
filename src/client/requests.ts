/**
 * Sending files to a file request, without an account. They are encrypted here for everybody whom the server names, and go the way of
 * all uploads: in parts, over both storage routes. What was interrupted goes on when the same files are sent to the same link again.
 * @module
 */
import { createHash } from 'node:crypto'
import { readdir, stat, unlink } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import pLimit from 'p-limit'
import {
  generateKeyPair,
  importPublicKey,
  type KeyPairVersion,
  lockKeyPair,
  parseKeyPairContainer,
  parsePublicKeyContainer,
  type UserKeyPair,
  unlockKeyPair,
  unwrapFileKey,
} from '../../crypto/index.ts'
import { getPublicRequest } from '../api/public.ts'
import type { PublicRequest } from '../api/wire.ts'
import { cancelled, localError, SyncError, toSyncError } from '../errors.ts'
import { openAppendLog } from '../local/append-log.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { takeLock } from '../local/lock.ts'
import { escapeName } from '../local/names.ts'
import type { SourceIdentity } from '../local/stable-read.ts'
import { hashFile } from '../sync/hash.ts'
import { never } from '../sync/run.ts'
import type { EntryFailure } from '../sync/tree.ts'
import { createPartSlabs, DEFAULT_PART_SIZE } from '../sync/uploader.ts'
import { startEncryptionThread, THREAD_FROM } from '../transfer/encryption-thread.ts'
import { openUploadJournal } from '../transfer/journal.ts'
import { partsInFlight } from '../transfer/part-window.ts'
import { storageOf } from '../transfer/storage-routes.ts'
import { type Recipient, type UploadContext, uploadFile } from '../transfer/upload.ts'
import type { Abortable } from './context.ts'
import type { Guest, LinkPassword } from './link-address.ts'
import { textOf } from './links.ts'

/** Somebody whom files are encrypted for, as the server says. Nobody but them can say whether it is their key. */
export interface RequestRecipient {
  readonly userId: number
  readonly version: KeyPairVersion
  /** SHA-256 of the public key: 64 hexadecimal digits. */
  readonly fingerprint: string
}

/** What everybody is told who has the link of a file request. The texts are the server's. Times are milliseconds since the epoch. */
export interface RequestInfo {
  readonly name: string | undefined
  readonly creator: string | undefined
  readonly notes: string | undefined
  readonly createdAt: number | undefined
  readonly expiresAt: number | undefined
  /** Files are encrypted for `recipients` before anything of them is sent. */
  readonly isEncrypted: boolean
  /** It takes a password; without it the rest is not told. */
  readonly isProtected: boolean
  /** So many more files, and bytes; `undefined`: no limit, or not told. */
  readonly remainingFiles: number | undefined
  readonly remainingBytes: number | undefined
  readonly recipients: readonly RequestRecipient[]
}

/** How files are sent. */
export interface SendOptions extends Abortable {
  /** Send also where nothing is encrypted. Default: yes, unless there is somebody to ask. */
  readonly allowPlain?: boolean | undefined
  readonly requireEncryption?: boolean | undefined
  /** Asks a person whether files may go where they are not encrypted. */
  readonly confirm?: ((question: string) => Promise<boolean>) | undefined
  /** Bytes per part, at least 5 MiB. Default 8 MiB. */
  readonly partSize?: number | undefined
  /** Bytes of content in memory. */
  readonly memory?: number | undefined
  /** Only say what would be sent. */
  readonly dryRun?: boolean | undefined
  /** Told of each file that has arrived. */
  readonly onReceipt?: ((receipt: Receipt) => void) | undefined
}

/** What the sender has in hand for a file that has arrived. */
export interface Receipt {
  /** As it was given. */
  readonly path: string
  /** Under which it was sent; the server may have added a number. */
  readonly name: string
  readonly bytes: number
  /** Of the content, 64 hexadecimal digits. */
  readonly sha256: string
  /** Milliseconds since the epoch, by the clock here. */
  readonly at: number
  /** An interrupted run before this one had sent it. */
  readonly isEarlier: boolean
}

/** What became of the files of one call. */
export interface SendSummary {
  readonly receipts: readonly Receipt[]
  readonly recipients: readonly RequestRecipient[]
  readonly failed: readonly EntryFailure[]
  /** Files that were not begun, because something ended the run. */
  readonly left: number
  readonly stoppedBy?: SyncError
}

/** A place where anybody who has the link can put files. */
export interface RequestLink {
  readonly origin: string
  /** What is wanted. Throws `SHARE_GONE`, `SHARE_PASSWORD_WRONG`. */
  info(options?: Abortable): Promise<RequestInfo>
  /**
   * Sends files; goes on with what an interrupted call for the same files left, if there is a directory to remember it in. Before anything
   * is sent it rejects; then it resolves with what arrived and what did not.
   *
   * @throws {SyncError} `SHARE_PASSWORD_NEEDED`, `SHARE_PASSWORD_WRONG`, `SHARE_LOCKED`, `SHARE_GONE`, `REQUEST_FULL`, `QUOTA`, `NO_RECIPIENTS`,
   * `KEYS_AMBIGUOUS`, `NOT_ENCRYPTED`, `NOT_A_FILE`, `LOCKED`.
   */
  send(files: readonly string[], options?: SendOptions): Promise<SendSummary>
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const ambiguous = (userId: number) =>
  new SyncError('integrity', 'KEYS_AMBIGUOUS', `The server shows several keys of one kind for user ${userId}`, {
    hint: 'Nothing was sent. Tell whoever sent you the link.',
  })

/**
 * Everybody in the list, once. Of two versions the newer one counts; two keys of one version are a lie, or a fault.
 *
 * @throws {SyncError} `NO_RECIPIENTS`, `KEYS_AMBIGUOUS`, and for a key that is none: all of them have to be able to open a file.
 */
export async function recipientsOf(request: PublicRequest): Promise<Recipient[]> {
  const chosen = new Map<number, Recipient>()
  for (const { id, publicKeyContainer } of request.userUserPublicKeyList?.items ?? []) {
    const publicKey = await importPublicKey(parsePublicKeyContainer(publicKeyContainer))
    const there = chosen.get(id)?.publicKey
    if (there?.version === publicKey.version && there.fingerprint !== publicKey.fingerprint) throw ambiguous(id)
    if (there === undefined || publicKey.version === 'RSA-4096') chosen.set(id, { userId: id, publicKey })
  }
  if (chosen.size === 0) {
    throw new SyncError('key', 'NO_RECIPIENTS', 'The server names nobody whom the files could be encrypted for', {
      hint: 'Tell whoever sent you the link.',
    })
  }
  return [...chosen.values()].sort((a, b) => a.userId - b.userId)
}

const shownRecipients = (recipients: readonly Recipient[]): RequestRecipient[] =>
  recipients.map(({ userId, publicKey: { version, fingerprint } }) => ({ userId, version, fingerprint }))

/** One file that is to be sent. */
interface Planned {
  /** As it was given. */
  readonly shown: string
  /** Absolute. */
  readonly source: string
  readonly name: string
  readonly identity: SourceIdentity
}

async function planFiles(files: readonly string[]): Promise<Planned[]> {
  const planned = new Map<string, Planned>()
  for (const shown of files) {
    const source = resolve(shown)
    const info = await stat(source, { bigint: true }).catch((error) => {
      throw localError(error, `read ${shown}`)
    })
    if (!info.isFile()) {
      throw new SyncError('usage', 'NOT_A_FILE', `Not a regular file: ${shown}`, {
        hint: 'A file request takes files. Send a directory as an archive: tar czf name.tgz directory',
      })
    }
    const { size, mtimeNs, ctimeNs, dev, ino } = info
    const [mtime, ctime] = [String(mtimeNs), String(ctimeNs)]
    const identity = { size: Number(size), mtimeNs: mtime, ctimeNs: ctime, dev: String(dev), ino: String(ino) }
    planned.set(source, { shown, source, name: escapeName(basename(source)), identity })
  }
  return [...planned.values()]
}

/** Files that are on their way at once. */
const FILES_AT_ONCE = 4
/** Most files of one call. */
const MAX_FILES = 100_000
/** Failures that say something of one file only. */
const OF_ONE_FILE = new Set(['local_io', 'changed', 'usage'])
const OF_CONTENT = new Set(['FILE_TOO_LARGE', 'NAME_REFUSED'])

/** @param password - Asked for at most once, if it is needed. */
export function createRequestLink(guest: Guest, accessKey: string, password: LinkPassword | undefined): RequestLink {
  let asked: Promise<string> | undefined
  const askPassword = (): Promise<string> => {
    if (password === undefined) {
      throw new SyncError('key', 'SHARE_PASSWORD_NEEDED', 'This file request takes a password', {
        hint: 'Give it with --password-file or --password-command, or SEALSYNC_SHARE_PASSWORD.',
      })
    }
    asked ??= password({ isSent: true }).then(textOf)
    return asked
  }

  /** All that is told to who may send. */
  async function look(
    signal: AbortSignal | undefined,
  ): Promise<{ request: PublicRequest; secret: string | undefined }> {
    const request = await getPublicRequest(guest.api, accessKey, asked && (await asked), signal)
    if (!request.isProtected || asked !== undefined) return { request, secret: await asked }
    const secret = await askPassword()
    return { request: await getPublicRequest(guest.api, accessKey, secret, signal), secret }
  }

  const close = () => guest.close()
  return {
    origin: guest.api.origin,
    async info({ signal } = {}) {
      // What is told without the password, unless there is one.
      const request =
        password === undefined
          ? await getPublicRequest(guest.api, accessKey, undefined, signal)
          : (await look(signal)).request
      const isTold = request.userUserPublicKeyList !== undefined && request.isEncrypted === true
      return {
        name: request.name,
        creator: request.creatorName === '' ? undefined : request.creatorName,
        notes: request.notes,
        createdAt: request.createdAt,
        expiresAt: request.expireAt,
        isEncrypted: request.isEncrypted === true,
        isProtected: request.isProtected,
        remainingFiles: request.remainingSlots,
        remainingBytes: request.remainingSize,
        recipients: isTold ? shownRecipients(await recipientsOf(request)) : [],
      }
    },
    async send(files, options = {}) {
      const { signal = never } = options
      if (files.length > MAX_FILES) {
        throw new SyncError('limit', 'LIST_TOO_LONG', `One call sends ${MAX_FILES} files at most`)
      }
      const planned = await planFiles(files)
      const { request, secret } = await look(signal)
      await requireAllowed(request, guest.api.origin, options)
      const recipients = request.isEncrypted === true ? await recipientsOf(request) : undefined
      const memory =
        guest.home.isLasting && options.dryRun !== true ? await openMemory(guest, accessKey, planned) : undefined
      try {
        const earlier = memory?.receipts ?? new Map<string, Receipt>()
        const left = planned.filter(({ source }) => !earlier.has(source))
        requireRoom(request, left)
        if (options.dryRun === true) {
          return { receipts: [], recipients: shownRecipients(recipients ?? []), failed: [], left: left.length }
        }
        const fresh = async () => recipientsOf(await getPublicRequest(guest.api, accessKey, secret, signal))
        const job = { guest, accessKey, secret, recipients, fresh, planned, left, memory, options, signal }
        return await sendAll(job)
      } finally {
        await memory?.close()
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** @throws {SyncError} `NOT_ENCRYPTED` where nobody has agreed to send without encryption. */
async function requireAllowed(
  { isEncrypted }: PublicRequest,
  origin: string,
  { allowPlain, requireEncryption, confirm }: SendOptions,
): Promise<void> {
  if (isEncrypted === true) return
  const question = `Files of this request are not encrypted: ${new URL(origin).host} and its administrators can read them. Send them?`
  const isAgreed = requireEncryption !== true && (allowPlain ?? (confirm === undefined || (await confirm(question))))
  if (isAgreed) return
  throw new SyncError(
    'safety',
    'NOT_ENCRYPTED',
    'Files of this request are not encrypted, so the server can read them',
    {
      hint: 'Send them in spite of that with --allow-plain, or ask for a request into an encrypted room.',
    },
  )
}

/** Known before anything is sent. */
function requireRoom({ remainingSlots, remainingSize }: PublicRequest, left: readonly Planned[]): void {
  const bytes = left.reduce((sum, { identity }) => sum + identity.size, 0)
  if (remainingSlots !== undefined && left.length > remainingSlots) {
    throw new SyncError(
      'limit',
      'REQUEST_FULL',
      `The file request takes ${remainingSlots} more files, not ${left.length}`,
      {
        hint: 'Send fewer, or ask whoever sent the link for another one.',
      },
    )
  }
  if (remainingSize !== undefined && bytes > remainingSize) {
    throw new SyncError('quota', 'QUOTA', `The file request takes ${remainingSize} more bytes, not ${bytes}`, {
      hint: 'Send less, or ask whoever sent the link for another one.',
    })
  }
}

interface Job {
  readonly guest: Guest
  readonly accessKey: string
  readonly secret: string | undefined
  /** Absent: files are not encrypted. */
  readonly recipients: readonly Recipient[] | undefined
  /** Asks for them again: members may have come and gone. */
  readonly fresh: () => Promise<readonly Recipient[]>
  readonly planned: readonly Planned[]
  readonly left: readonly Planned[]
  readonly memory: Memory | undefined
  readonly options: SendOptions
  readonly signal: AbortSignal
}

/** What all files of a call share. */
async function openUploads(job: Job, signal: AbortSignal) {
  const { guest, accessKey, secret, left, memory, options } = job
  const { clock, onEvent } = guest
  const api = { ...guest.api, request: { accessKey, password: secret } }
  const storage = await storageOf(guest.api, signal)
  const slabs = createPartSlabs(options)
  const partSize = options.partSize ?? DEFAULT_PART_SIZE
  const isSecret = job.recipients !== undefined
  const thread =
    isSecret && left.some(({ identity }) => identity.size >= THREAD_FROM) ? startEncryptionThread() : undefined
  const isLarge = isSecret && storage.isObjectStorage && left.some(({ identity }) => identity.size > partSize)
  const owner = isLarge ? await memory?.owner() : undefined
  const context: UploadContext = {
    api,
    clock,
    storage,
    slabs,
    partSize,
    window: partsInFlight(slabs),
    isHashed: true,
    thread,
    resume: memory && {
      journal: memory.journal,
      unwrap: async (wrapped) => unwrapFileKey(wrapped, owner ?? (await memory.owner())),
    },
    onEvent,
  }
  return { context, owner, close: async () => thread?.close() }
}

async function sendAll(job: Job): Promise<SendSummary> {
  const { guest, planned, left, memory, options, signal: outer } = job
  const { clock, onEvent } = guest
  const stop = new AbortController()
  const signal = AbortSignal.any([outer, stop.signal])
  const { context, owner, close } = await openUploads(job, signal)
  const receipts = new Map<string, Receipt>(memory?.receipts)
  const failed: EntryFailure[] = []
  let { recipients } = job
  let stoppedBy: SyncError | undefined
  const sendOnce = (file: Planned) =>
    uploadFile(
      context,
      {
        source: file.source,
        shown: file.shown,
        parentId: 0,
        name: file.name,
        ...(recipients === undefined ? {} : { recipients }),
        ...(owner === undefined ? {} : { wrapFor: owner.publicKey }),
      },
      signal,
    )

  async function send(file: Planned): Promise<void> {
    let sent: Awaited<ReturnType<typeof uploadFile>>
    try {
      sent = await sendOnce(file)
    } catch (error) {
      if (recipients === undefined || !isOtherMembers(error)) throw error
      recipients = await job.fresh()
      sent = await sendOnce(file)
    }
    sent.fileKey?.wipe()
    const sha256 = sent.sha256
      ? Buffer.from(sent.sha256, 'base64').toString('hex')
      : await hashFile(file.source, file.shown, signal)
    const receipt = { path: file.shown, name: file.name, bytes: sent.bytes, sha256, at: clock.now(), isEarlier: false }
    await memory?.received(file, receipt)
    receipts.set(file.source, receipt)
    options.onReceipt?.(receipt)
  }

  try {
    const bytes = left.reduce((sum, { identity }) => sum + identity.size, 0)
    onEvent?.({ type: 'planned', files: left.length, bytes, skipped: planned.length - left.length })
    const limit = pLimit(FILES_AT_ONCE)
    await Promise.all(
      left.map((file) =>
        limit(async () => {
          if (signal.aborted) return
          try {
            await send(file)
          } catch (thrown) {
            const error = toSyncError(outer.aborted ? cancelled(outer) : thrown)
            if (signal.aborted) {
              stoppedBy ??= outer.aborted ? error : undefined
              return
            }
            if (OF_ONE_FILE.has(error.class) || OF_CONTENT.has(error.code)) {
              failed.push({ path: file.shown, error })
              onEvent?.({ type: 'file-failed', path: file.shown, code: error.code, message: error.message })
              return
            }
            stoppedBy = error
            stop.abort(error)
          }
        }),
      ),
    )
  } finally {
    await close()
  }
  if (outer.aborted) stoppedBy = toSyncError(cancelled(outer))
  const isDone = receipts.size === planned.length && stoppedBy === undefined
  if (isDone) await memory?.forget()
  return {
    receipts: planned.flatMap(({ source }) => receipts.get(source) ?? []),
    recipients: shownRecipients(recipients ?? []),
    failed,
    left: planned.length - receipts.size - failed.length,
    ...(stoppedBy === undefined ? {} : { stoppedBy }),
  }
}

/** Keys are missing, or too many: somebody became a member, or is none any more. */
const isOtherMembers = (error: unknown): boolean =>
  error instanceof SyncError && (error.errorCode === -40763 || error.errorCode === -70501 || error.errorCode === -80062)

/** What a call leaves for the next one with the same files. */
interface Memory {
  readonly journal: Awaited<ReturnType<typeof openUploadJournal>>
  /** Of files that arrived before, by their absolute paths; they are still as they were. */
  readonly receipts: ReadonlyMap<string, Receipt>
  /** Whom the keys of interrupted files are kept for: a key pair that only the link opens. */
  owner(): Promise<UserKeyPair>
  received(file: Planned, receipt: Receipt): Promise<void>
  /** All has arrived: the same call sends it again. */
  forget(): Promise<void>
  close(): Promise<void>
}

const digestOf = (...parts: readonly string[]) => createHash('sha256').update(parts.join('\0')).digest('hex')

const isSame = (a: SourceIdentity, b: SourceIdentity) =>
  a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs && a.dev === b.dev && a.ino === b.ino

interface Kept {
  readonly source: string
  readonly identity: SourceIdentity
  readonly receipt: Receipt
}

function parseKept(value: unknown): Kept | undefined {
  const { source, identity, receipt } = (value ?? {}) as Partial<Kept>
  const isRight =
    typeof source === 'string' &&
    typeof identity === 'object' &&
    Number.isSafeInteger(identity?.size) &&
    typeof receipt === 'object' &&
    /^[0-9a-f]{64}$/.test(String(receipt?.sha256)) &&
    [receipt?.bytes, receipt?.at].every(Number.isSafeInteger) &&
    [receipt?.path, receipt?.name].every((text) => typeof text === 'string')
  return isRight ? (value as Kept) : undefined
}

/** Names of what is kept say nothing of the link, which opens it. */
async function openMemory(
  { api, home, clock, onEvent }: Guest,
  accessKey: string,
  planned: readonly Planned[],
): Promise<Memory> {
  const link = digestOf(api.origin, accessKey)
  const files = planned.map(({ source }) => source).sort()
  const base = join(home.requests, `${link.slice(0, 32)}-${digestOf(...files).slice(0, 32)}`)
  const pairPath = join(home.requests, `${link.slice(0, 32)}.key`)
  const journal = await openUploadJournal(`${base}.uploads`, clock, onEvent)
  const receipts = new Map<string, Receipt>()
  const identities = new Map(planned.map(({ source, identity }) => [source, identity]))
  let log: Awaited<ReturnType<typeof openAppendLog>>
  try {
    log = await openAppendLog(
      `${base}.sent`,
      basename(base),
      (records) => {
        for (const record of records) {
          const kept = parseKept(record)
          if (kept === undefined) return false
          const identity = identities.get(kept.source)
          // One that has changed since is another file.
          if (identity !== undefined && isSame(identity, kept.identity)) {
            receipts.set(kept.source, { ...kept.receipt, isEarlier: true })
          }
        }
        return true
      },
      (keptAs) => {
        const message = `What was sent before could not be read, so all files are sent; it was kept as ${keptAs}`
        onEvent?.({ type: 'warning', code: 'JOURNAL_DAMAGED', message })
      },
      clock.now(),
    )
  } catch (error) {
    await journal.close()
    throw error
  }
  let pair: Promise<UserKeyPair> | undefined
  let isForgotten = false

  async function makePair(): Promise<UserKeyPair> {
    const lock = await takeLock(`${pairPath}.lock`, { clock, waitMs: 60_000 })
    try {
      const bytes = await readPrivateFile(pairPath)
      const there = bytes && (await openPair(bytes, accessKey))
      if (there !== undefined) return there
      const made = await generateKeyPair()
      await writePrivateFile(pairPath, JSON.stringify(await lockKeyPair(made, accessKey)))
      return made
    } finally {
      await lock.release()
    }
  }

  return {
    journal,
    receipts,
    owner() {
      pair ??= makePair()
      return pair
    },
    async received({ source, identity }, receipt) {
      log.append({ source, identity, receipt })
      await log.sync()
    },
    async forget() {
      isForgotten = true
      await log.remove()
    },
    async close() {
      if (!isForgotten) await log.close()
      await journal.close()
      await pair?.then((one) => one.wipe()).catch(() => {})
      // The pair goes with the last of what it opens.
      const others = await readdir(home.requests).catch(() => [])
      const isLast = !others.some(
        (name) => name.startsWith(`${basename(pairPath, '.key')}-`) && !name.endsWith('.lock'),
      )
      if (isLast) await unlink(pairPath).catch(() => {})
    },
  }
}

/** A file that is damaged, or of another link, opens nothing. */
async function openPair(bytes: Uint8Array, accessKey: string): Promise<UserKeyPair | undefined> {
  try {
    return await unlockKeyPair(parseKeyPairContainer(JSON.parse(Buffer.from(bytes).toString('utf8'))), accessKey)
  } catch {
    return undefined
  }
}
