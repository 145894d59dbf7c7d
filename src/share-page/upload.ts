/**
 * A file request, in the worker: what it asks for, and sending files to it. Of encrypted rooms a file is encrypted here, for all who are
 * listed, before anything of it is sent. Memory is bounded by a few parts, however large a file is.
 * @module
 */
import { sha256 } from '@noble/hashes/sha2.js'
import {
  checkFileSize,
  createPartEncryptor,
  formatFileKey,
  importPublicKey,
  type PartEncryptor,
  type PublicKey,
  parsePublicKeyContainer,
  resumePartEncryptor,
  type WrappedFileKey,
} from '../../crypto/index.ts'
import { type OnProgress, textField } from './download.ts'
import { asFailure, Failure } from './failure.ts'
import type { KeptPart, KeptUpload, KeptUploads } from './kept-uploads.ts'
import { type Network, numberOf, type OnWaiting, persist } from './network.ts'
import { hold } from './places.ts'

/** At least 5 MiB, as object stores want it; the largest file has fewer than 10,000 of them. */
const PART = 8 * 1024 * 1024
/** Parts on their way at a time to an object store. */
const WINDOW = 3
const MAX_RECIPIENTS = 10_000
/** Members may change while a file is sent; not without end. */
const MEMBER_CHANGES = 3

/** What a page shows of a file request. All texts are the server's, or of whoever made it. */
export interface UploadInfo {
  readonly kind: 'upload'
  readonly name: string
  readonly creatorName: string
  readonly notes: string
  readonly isEncrypted: boolean
  /** A password is needed before more is told. */
  readonly needsPassword: boolean
  readonly expireAt: string | undefined
  readonly remainingSize: number | undefined
  readonly remainingSlots: number | undefined
  /** Fingerprints of the keys that files are encrypted for. */
  readonly fingerprints: readonly string[]
  readonly uploaded: readonly { readonly name: string; readonly size: number }[]
}

/** An upload of an earlier visit that can be gone on with. */
export interface Unfinished {
  readonly id: string
  readonly name: string
  readonly size: number
  readonly lastModified: number
  readonly sent: number
}

/** What the sender gets. */
export interface Receipt {
  readonly name: string
  readonly size: number
  /** Of the plaintext, in hex. */
  readonly sha256: string
  readonly isEncrypted: boolean
  /** Milliseconds since the epoch, by the sender's clock. */
  readonly at: number
}

interface Recipient {
  readonly userId: number
  readonly publicKey: PublicKey
}

const toHex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

function toBase64(text: string): string {
  let binary = ''
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte)
  return btoa(binary)
}

async function readRecipients(list: unknown): Promise<Recipient[]> {
  const items = (list as { items?: unknown } | undefined)?.items
  if (!Array.isArray(items) || items.length > MAX_RECIPIENTS) throw new Failure('ANSWER', 'The list of keys is none')
  const read = async (item: unknown): Promise<Recipient> => {
    const { id, publicKeyContainer } = item as { id?: unknown; publicKeyContainer?: unknown }
    const userId = numberOf(id)
    if (userId === undefined) throw new Failure('ANSWER', 'A key belongs to nobody')
    return { userId, publicKey: await importPublicKey(parsePublicKeyContainer(publicKeyContainer)) }
  }
  return Promise.all(items.map(read))
}

const NO_NAME = /[\\<>:"|?*/\p{Cc}]/gu
const RESERVED = /^(?:CON|PRN|AUX|NUL|COM[1-9]|LPT[1-9])(?=\.|$)/i

/** The name that a file is stored under: servers take some names not, which other systems have. */
export function storedName(name: string): string {
  const clean = name
    .normalize('NFC')
    .replaceAll(NO_NAME, '_')
    .replace(/^-/, '_')
    .replace(/[. ]+$/, '_')
    .trim()
  const whole = RESERVED.test(clean) ? `_${clean}` : clean || '_'
  if (whole.length <= 150) return whole
  const dot = whole.lastIndexOf('.')
  const end = dot > 0 && whole.length - dot <= 20 ? whole.slice(dot) : ''
  return `${whole.slice(0, 150 - end.length).replace(/\p{Surrogate}$/u, '')}${end}`
}

/** A file on its way, with what is kept of it. */
interface Sending {
  readonly file: File
  readonly signal: AbortSignal
  readonly encryptor: PartEncryptor | undefined
  readonly kept: KeptUpload
  /** Also kept for a later visit, unless the file is too small for that. */
  readonly isKept: boolean
  /** Digests and receipts so far; what is stored is made of these. */
  readonly parts: { digest: Uint8Array; receipt: string | undefined }[]
  readonly onProgress: OnProgress
}

export class UploadShare {
  readonly #network: Network
  readonly #address: string
  readonly #share: string
  readonly #encryptedOnly: boolean
  readonly #onWaiting: OnWaiting
  readonly #kept: KeptUploads | undefined
  #password: string | undefined
  #isEncrypted = false
  #recipients: readonly Recipient[] = []
  /** Whether parts go to an object store; known once a first upload was begun. */
  #isDirect: boolean | undefined

  constructor(
    network: Network,
    key: string,
    encryptedOnly: boolean,
    kept: KeptUploads | undefined,
    onWaiting: OnWaiting,
  ) {
    this.#network = network
    this.#address = network.api(`/uploads/${key}`)
    this.#share = this.#address
    this.#encryptedOnly = encryptedOnly
    this.#kept = kept
    this.#onWaiting = onWaiting
  }

  /**
   * Asks what the request is.
   *
   * @param password - The server checks it, and gets it with each upload.
   */
  async describe(signal: AbortSignal, password?: string): Promise<UploadInfo> {
    const headers = password === undefined ? {} : { 'X-Sds-Share-Password': toBase64(password) }
    const json = await persist(signal, this.#onWaiting, () => this.#network.askJson(this.#address, { headers, signal }))
    const isEncrypted = json.isEncrypted === true
    if (!isEncrypted && this.#encryptedOnly) throw new Failure('PLAIN_REFUSED', 'The request is not encrypted')
    const needsPassword = json.isProtected === true && password === undefined
    // Never less than what was said before: a room that stops being encrypted would get plaintext.
    if (this.#isEncrypted && !isEncrypted) throw new Failure('ANSWER', 'The room is not encrypted any more')
    this.#recipients = isEncrypted && !needsPassword ? await readRecipients(json.userUserPublicKeyList) : []
    if (isEncrypted && !needsPassword && this.#recipients.length === 0) {
      throw new Failure('NO_RECIPIENTS', 'Nobody could open it')
    }
    this.#isEncrypted = isEncrypted
    this.#password = password
    const uploaded = Array.isArray(json.uploadedFiles) ? json.uploadedFiles.slice(0, 500) : []
    return {
      kind: 'upload',
      name: textField(json.name),
      creatorName: textField(json.creatorName),
      notes: textField(json.notes, 4096),
      isEncrypted,
      needsPassword,
      expireAt: textField(json.expireAt, 64) || undefined,
      remainingSize: numberOf(json.remainingSize),
      remainingSlots: numberOf(json.remainingSlots),
      fingerprints: this.#recipients.map(({ publicKey }) => publicKey.fingerprint),
      uploaded: uploaded.map((one: { name?: unknown; size?: unknown }) => ({
        name: textField(one.name),
        size: numberOf(one.size) ?? 0,
      })),
    }
  }

  /** Uploads of earlier visits that nothing works on. */
  async unfinished(now: number): Promise<Unfinished[]> {
    const all = (await this.#kept?.list(this.#share, now)) ?? []
    const free: Unfinished[] = []
    for (const { id, file, parts, partSize } of all) {
      const release = await hold(lockOf(id))
      release?.()
      const sent = Math.min(file.size, parts.filter(({ receipt }) => receipt !== undefined).length * partSize)
      if (release !== undefined) free.push({ id, ...file, sent })
    }
    return free
  }

  /** Gives up an upload of an earlier visit. */
  forget(id: string): Promise<void> {
    return this.#abandon(id)
  }

  async #cancel(id: string, signal: AbortSignal): Promise<void> {
    // The server drops by itself what nobody goes on with.
    await this.#network.askHeaders(this.#upload(id), { method: 'DELETE', signal }).catch(() => {})
  }

  #upload(id: string, what = ''): string {
    return `${this.#address}/${encodeURIComponent(id)}${what}`
  }

  /** Sends a file, or goes on with an upload of it from an earlier visit. */
  async send(file: File, signal: AbortSignal, onProgress: OnProgress): Promise<Receipt> {
    checkFileSize(file.size)
    for (const kept of (await this.#kept?.list(this.#share, Date.now())) ?? []) {
      const receipt = this.#fits(kept, file) ? await this.#resume(file, kept, signal, onProgress) : undefined
      if (receipt !== undefined) return receipt
    }
    return this.#start(file, signal, onProgress)
  }

  /** Goes on with an upload; undefined when it cannot be, and the file has to be sent from its beginning under another key. */
  async #resume(
    file: File,
    kept: KeptUpload,
    signal: AbortSignal,
    onProgress: OnProgress,
  ): Promise<Receipt | undefined> {
    const release = await hold(lockOf(kept.id))
    // Another window sends it.
    if (release === undefined) return undefined
    try {
      const { encryption } = kept
      const digests = kept.parts.map(({ digest }) => digest)
      const encryptor = encryption && (await resumePartEncryptor(encryption, digests))
      const parts = kept.parts.map((part) => ({ ...part }))
      return await this.#run({ file, signal, encryptor, kept, isKept: true, parts, onProgress })
    } catch (error) {
      const failure = asFailure(error)
      if (!failure.isPassing) await this.#abandon(kept.id)
      // It is another content, the server has dropped it, or somebody came who could not open it.
      if (['CHANGED', 'GONE', 'MEMBERS_CHANGED'].includes(failure.code)) return undefined
      throw failure
    } finally {
      release()
    }
  }

  /** Ends an upload that nobody goes on with; also when everything else was cancelled. */
  async #abandon(id: string): Promise<void> {
    await this.#kept?.remove(id).catch(() => {}) // it is too old some day
    await this.#cancel(id, AbortSignal.timeout(10_000))
  }

  #fits({ file: { name, size, lastModified }, encryption, recipients }: KeptUpload, file: File): boolean {
    const isSame = file.name === name && file.size === size && file.lastModified === lastModified
    return isSame && (encryption !== undefined) === this.#isEncrypted && this.#covers(recipients)
  }

  /** Whether all who are listed now are among these. */
  #covers(recipients: KeptUpload['recipients']): boolean {
    const known = new Set(recipients.map(({ userId, fingerprint }) => `${userId} ${fingerprint}`))
    return this.#recipients.every(({ userId, publicKey }) => known.has(`${userId} ${publicKey.fingerprint}`))
  }

  async #start(file: File, signal: AbortSignal, onProgress: OnProgress): Promise<Receipt> {
    const recipients = this.#recipients
    const encryptor = this.#isEncrypted ? await createPartEncryptor(recipients.map((one) => one.publicKey)) : undefined
    const name = storedName(file.name)
    const { id, isDirect } = await this.#open(file, name, signal)
    const release = await hold(lockOf(id))
    const kept: KeptUpload = {
      id,
      share: this.#share,
      isDirect,
      partSize: PART,
      file: { name: file.name, size: file.size, lastModified: file.lastModified },
      storedName: name,
      startedAt: Date.now(),
      encryption: encryptor?.kept,
      recipients: recipients.map(({ userId, publicKey }) => ({ userId, fingerprint: publicKey.fingerprint })),
      parts: [],
    }
    const isKept = this.#kept !== undefined && file.size > PART
    try {
      return await this.#run({ file, signal, encryptor, kept, isKept, parts: [], onProgress })
    } catch (error) {
      const failure = asFailure(error)
      // What may pass can be gone on with.
      if (!failure.isPassing) await this.#abandon(id)
      throw failure
    } finally {
      encryptor?.wipe()
      release?.()
    }
  }

  /** Begins an upload at the server. */
  async #open(file: File, name: string, signal: AbortSignal): Promise<{ id: string; isDirect: boolean }> {
    const begin = (directS3Upload: boolean) =>
      persist(signal, this.#onWaiting, () =>
        this.#network.askJson(this.#address, {
          method: 'POST',
          json: {
            name,
            size: file.size,
            directS3Upload,
            timestampModification: new Date(file.lastModified).toISOString(),
            ...(this.#password === undefined ? {} : { password: this.#password }),
          },
          signal,
        }),
      )
    const idOf = ({ uploadId }: Record<string, unknown>): string => {
      if (typeof uploadId !== 'string' || uploadId === '') throw new Failure('ANSWER', 'The upload has no id')
      return uploadId
    }
    if (this.#isDirect !== false) {
      try {
        const id = idOf(await begin(true))
        // Parts may have to go to a place that this page is not made for; then they go through the server.
        const length = Math.min(PART, file.size)
        this.#isDirect ??= await persist(signal, this.#onWaiting, async () => {
          return (await this.#partAddress(id, 1, length, signal)) !== undefined
        })
        if (this.#isDirect) return { id, isDirect: true }
        await this.#cancel(id, signal)
      } catch (error) {
        // No object store.
        if (!(error instanceof Failure) || error.errorCode !== -90030) throw error
      }
    }
    this.#isDirect = false
    return { id: idOf(await begin(false)), isDirect: false }
  }

  async #partAddress(id: string, number: number, size: number, signal: AbortSignal): Promise<string | undefined> {
    const json = { size, firstPartNumber: number, lastPartNumber: number }
    const { urls } = await this.#network.askJson(this.#upload(id, '/s3_urls'), { method: 'POST', json, signal })
    const [first] = Array.isArray(urls) ? (urls as { url?: unknown; partNumber?: unknown }[]) : []
    if (first?.partNumber !== number) throw new Failure('ANSWER', 'There is no address for a part')
    return this.#network.place(first.url)
  }

  async #run(sending: Sending): Promise<Receipt> {
    const { file, kept, isKept } = sending
    if (isKept) await this.#store(sending)
    const hash = await this.#sendParts(sending)
    const wrapped = sending.encryptor?.final()
    await this.#complete(sending, wrapped)
    if (isKept) await this.#kept?.remove(kept.id)
    return {
      name: kept.storedName,
      size: file.size,
      sha256: toHex(hash),
      isEncrypted: sending.encryptor !== undefined,
      at: Date.now(),
    }
  }

  async #store({ kept, parts }: Sending): Promise<void> {
    await this.#kept?.put({ ...kept, parts: parts.map((part): KeptPart => ({ ...part })) })
  }

  /** Reads, encrypts and sends part after part; returns the SHA-256 of the plaintext. */
  async #sendParts(sending: Sending): Promise<Uint8Array> {
    const { file, kept, parts, encryptor, onProgress } = sending
    const stop = new AbortController()
    const end = (): void => stop.abort(sending.signal.reason)
    sending.signal.addEventListener('abort', end)
    if (sending.signal.aborted) end()
    const hash = sha256.create()
    const onTheirWay = new Set<Promise<void>>()
    let failure: unknown
    let sent = 0
    const count = Math.max(1, Math.ceil(file.size / kept.partSize))
    try {
      for (let number = 1; number <= count; number++) {
        stop.signal.throwIfAborted()
        const at = (number - 1) * kept.partSize
        const plain = await readPart(file, at, Math.min(file.size, at + kept.partSize))
        hash.update(plain)
        const part = await this.#encrypt(encryptor, parts[number - 1]?.digest, plain)
        const length = part.ciphertext.length
        const done = (): void => {
          sent += length
          onProgress(sent, file.size)
        }
        if (parts[number - 1]?.receipt !== undefined) {
          done()
          continue
        }
        parts[number - 1] = { digest: part.digest, receipt: undefined }
        // Durable before its first byte leaves: no other content may ever be sent under this key.
        if (sending.isKept) await this.#store(sending)
        const way = this.#sendPart(sending, number, part.ciphertext, stop.signal)
          .then(done)
          .catch((error: unknown) => {
            failure ??= error
            stop.abort(error)
          })
          .finally(() => onTheirWay.delete(way))
        onTheirWay.add(way)
        if (onTheirWay.size >= (kept.isDirect ? WINDOW : 1)) await Promise.race(onTheirWay)
      }
    } catch (error) {
      failure ??= error
      stop.abort(error)
    } finally {
      sending.signal.removeEventListener('abort', end)
      await Promise.all(onTheirWay)
    }
    if (failure !== undefined) throw failure
    return hash.digest()
  }

  /** In rooms that are not encrypted a part is what it is; only that it is the same is looked at. */
  async #encrypt(encryptor: PartEncryptor | undefined, expected: Uint8Array | undefined, plain: Uint8Array) {
    if (encryptor !== undefined) {
      return plain.length === 0 ? { ciphertext: plain, digest: sha256(plain) } : encryptor.update(plain)
    }
    if (this.#isEncrypted) throw new TypeError('plaintext may not be sent')
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', plain as Uint8Array<ArrayBuffer>))
    if (expected !== undefined && toHex(expected) !== toHex(digest)) {
      throw new Failure('CHANGED', 'The file is not what it was')
    }
    return { ciphertext: plain, digest }
  }

  async #sendPart(sending: Sending, number: number, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const { kept, parts, file } = sending
    const receipt = await persist(signal, this.#onWaiting, async () => {
      if (!kept.isDirect) {
        const at = (number - 1) * kept.partSize
        const headers = {
          'Content-Type': 'application/octet-stream',
          ...(file.size === 0 ? {} : { 'Content-Range': `bytes ${at}-${at + bytes.length - 1}/${file.size}` }),
        }
        const answer = await this.#network.askJson(this.#upload(kept.id), {
          method: 'POST',
          body: bytes,
          headers,
          signal,
        })
        if (numberOf(answer.size) !== bytes.length) throw new Failure('ANSWER', 'Not all of a part has arrived')
        return ''
      }
      const address = await this.#partAddress(kept.id, number, bytes.length, signal)
      if (address === undefined) throw new Failure('ELSEWHERE', 'Parts go to another place')
      const headers = await this.#put(address, bytes, signal)
      const etag = headers.get('etag')?.replaceAll('"', '') ?? ''
      if (etag === '') throw new Failure('ANSWER', 'The object store does not say what it has received')
      return etag
    })
    parts[number - 1] = { ...parts[number - 1]!, receipt }
    if (sending.isKept) await this.#store(sending)
  }

  async #put(address: string, body: Uint8Array, signal: AbortSignal): Promise<Headers> {
    try {
      return await this.#network.askHeaders(address, { method: 'PUT', body, signal })
    } catch (error) {
      // The address has run out: the next try asks for another one.
      if (error instanceof Failure && error.status === 403) {
        throw new Failure('SERVER', error.message, { isPassing: true, cause: error })
      }
      throw error
    }
  }

  /** Ends the upload; when members have changed meanwhile, with keys for those who are there now. */
  async #complete(sending: Sending, first: readonly WrappedFileKey[] | undefined): Promise<void> {
    const { kept, signal } = sending
    if (first === undefined) return this.#finish(sending, undefined)
    let list = this.#listFor(kept.recipients, first)
    for (let change = 0; ; change++) {
      try {
        return await this.#finish(sending, list)
      } catch (error) {
        if (!(error instanceof Failure) || error.code !== 'MEMBERS_CHANGED' || change === MEMBER_CHANGES) throw error
        await this.describe(signal, this.#password)
        list = await this.#listAgain(sending, first)
      }
    }
  }

  #listFor(recipients: KeptUpload['recipients'], wrapped: readonly WrappedFileKey[]) {
    const listed = new Set(this.#recipients.map(({ userId, publicKey }) => `${userId} ${publicKey.fingerprint}`))
    return recipients.flatMap(({ userId, fingerprint }, index) =>
      listed.has(`${userId} ${fingerprint}`) ? [{ userId, fileKey: formatFileKey(wrapped[index]!) }] : [],
    )
  }

  async #listAgain({ encryptor, kept }: Sending, first: readonly WrappedFileKey[]) {
    if (this.#covers(kept.recipients)) return this.#listFor(kept.recipients, first)
    const wrapped = await encryptor?.wrapFor(this.#recipients.map(({ publicKey }) => publicKey))
    if (wrapped === undefined) throw new Failure('MEMBERS_CHANGED', 'The members have changed')
    return this.#recipients.map(({ userId }, index) => ({ userId, fileKey: formatFileKey(wrapped[index]!) }))
  }

  async #finish({ kept, parts, signal }: Sending, list: readonly object[] | undefined): Promise<void> {
    let isUnsure = false
    await persist(signal, this.#onWaiting, async () => {
      try {
        if (isUnsure && (await this.#hasEnded(kept.id, signal))) return
        if (kept.isDirect) {
          const json = {
            parts: parts.map(({ receipt }, index) => ({ partNumber: index + 1, partEtag: receipt })),
            ...(list === undefined ? {} : { userFileKeyList: list }),
          }
          await this.#network.askHeaders(this.#upload(kept.id, '/s3'), { method: 'PUT', json, signal })
        } else {
          const json = list === undefined ? {} : { items: list }
          await this.#network.askJson(this.#upload(kept.id), { method: 'PUT', json, signal })
        }
      } catch (error) {
        if (isUnsure && error instanceof Failure && error.code === 'GONE') {
          throw new Failure('UNCERTAIN', 'Whether the file has arrived is not known', { cause: error })
        }
        isUnsure ||= error instanceof Failure && error.isPassing
        throw error
      }
    })
    if (kept.isDirect) await this.#untilDone(kept.id, signal)
  }

  /** What the server says of an upload whose answer was lost. */
  async #hasEnded(id: string, signal: AbortSignal): Promise<boolean> {
    const { status } = await this.#network.askJson(this.#upload(id), { signal })
    return status === 'done' || status === 'finishing'
  }

  async #untilDone(id: string, signal: AbortSignal): Promise<void> {
    const until = performance.now() + 600_000
    for (let wait = 100; ; wait = Math.min(5000, wait * 2)) {
      const { status, errorDetails } = await persist(signal, this.#onWaiting, () =>
        this.#network.askJson(this.#upload(id), { signal }),
      )
      if (status === 'done') return
      if (status === 'error') {
        const errorCode = numberOf((errorDetails as { errorCode?: unknown } | undefined)?.errorCode)
        throw new Failure('SERVER', 'The server could not store the file', { errorCode })
      }
      if (performance.now() > until) throw new Failure('UNCERTAIN', 'The server does not say that it is done')
      await new Promise((resolve) => setTimeout(resolve, wait))
      signal.throwIfAborted()
    }
  }
}

const lockOf = (id: string): string => `sealsync-upload/${id}`

async function readPart(file: File, start: number, end: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(await file.slice(start, end).arrayBuffer())
  if (bytes.length !== end - start) throw new Failure('CHANGED', 'The file became shorter while it was read')
  return bytes
}
