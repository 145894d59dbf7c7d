/**
 * A download share, in the worker: what it is, its password, and its content, which is given out when its tag is right and not before.
 * @module
 */
import {
  createPartDecryptor,
  type FileKey,
  MAX_FILE_BYTES,
  parseFileKey,
  parsePrivateKeyContainer,
  unlockPrivateKey,
  unwrapFileKey,
} from '../../crypto/index.ts'
import { asFailure, Failure } from './failure.ts'
import { type Network, numberOf, type OnWaiting, persist, withSilence } from './network.ts'
import type { Place } from './places.ts'

/** What is asked for at a time; a multiple of 16, as the decryptor wants it. */
const RANGE = 8 * 1024 * 1024

/** What a page shows of a download share. All texts are the server's, or of whoever made the share. */
export interface DownloadInfo {
  readonly kind: 'download'
  readonly fileName: string
  /** In bytes; of containers, what is in them before they are packed. */
  readonly size: number
  readonly isEncrypted: boolean
  /** The server checks a password. */
  readonly isProtected: boolean
  readonly isUsedUp: boolean
  readonly isArchive: boolean
  readonly hasLimit: boolean
  readonly creatorName: string
  readonly notes: string
  readonly expireAt: string | undefined
}

/** A text of the server: bounded; absent ones are empty. */
export const textField = (value: unknown, limit = 1000): string =>
  typeof value === 'string' ? value.slice(0, limit) : ''

interface Described {
  readonly info: DownloadInfo
  readonly fileKey: unknown
  readonly privateKeyContainer: unknown
}

function describe(json: Record<string, unknown>): Described {
  const size = numberOf(json.size)
  if (size === undefined || size < 0) throw new Failure('ANSWER', 'The share has no size')
  const isEncrypted = json.isEncrypted === true
  if (isEncrypted && size > MAX_FILE_BYTES) throw new Failure('TOO_LARGE', 'The file is larger than any can be')
  const info: DownloadInfo = {
    kind: 'download',
    fileName: textField(json.fileName) || 'download',
    size,
    isEncrypted,
    isProtected: json.isProtected === true,
    isUsedUp: json.limitReached === true,
    isArchive: json.mediaType === 'application/zip' && !isEncrypted,
    hasLimit: json.hasDownloadLimit === true,
    creatorName: textField(json.creatorName),
    notes: textField(json.notes, 4096),
    expireAt: textField(json.expireAt, 64) || undefined,
  }
  return { info, fileKey: json.fileKey, privateKeyContainer: json.privateKeyContainer }
}

const sameKey = (a: unknown, b: unknown): boolean => {
  const [first, second] = [a, b].map((one) => one as { iv?: unknown; tag?: unknown } | undefined)
  return first?.iv === second?.iv && first?.tag === second?.tag
}

/** Plaintext that came, of how much. */
export type OnProgress = (bytes: number, total: number) => void

export class DownloadShare {
  readonly #network: Network
  readonly #address: string
  readonly #encryptedOnly: boolean
  readonly #onWaiting: OnWaiting
  #described: Described | undefined
  #fileKey: FileKey | undefined
  /** Where the content is. One for the whole download: each new one counts as a download. */
  #content: string | undefined

  constructor(network: Network, key: string, encryptedOnly: boolean, onWaiting: OnWaiting) {
    this.#network = network
    this.#address = network.api(`/downloads/${key}`)
    this.#encryptedOnly = encryptedOnly
    this.#onWaiting = onWaiting
  }

  /** Asks what the share is. */
  async describe(signal: AbortSignal): Promise<DownloadInfo> {
    const json = await persist(signal, this.#onWaiting, () => this.#network.askJson(this.#address, { signal }))
    const described = describe(json)
    const { isEncrypted, isUsedUp } = described.info
    if (!isEncrypted && this.#encryptedOnly) throw new Failure('PLAIN_REFUSED', 'The share is not encrypted')
    if (isUsedUp) throw new Failure('USED_UP', 'The share is used up')
    if (isEncrypted && (described.fileKey === undefined || described.privateKeyContainer === undefined)) {
      throw new Failure('NOT_READY', 'There is no file key yet')
    }
    this.#described = described
    return described.info
  }

  get #share(): Described {
    if (this.#described === undefined) throw new TypeError('describe comes first')
    return this.#described
  }

  /** Opens the file key with the share's password, which stays here. */
  async unlock(password: string): Promise<void> {
    const container = parsePrivateKeyContainer(this.#share.privateKeyContainer)
    const wrapped = parseFileKey(this.#share.fileKey)
    const pair = await unlockPrivateKey(container, password)
    try {
      this.#fileKey = await unwrapFileKey(wrapped, pair)
    } finally {
      pair.wipe()
    }
  }

  /**
   * Asks for the address of the content.
   *
   * @param password - Only for shares that are not encrypted and whose password the server checks.
   */
  async #open(signal: AbortSignal, password?: string): Promise<string> {
    if (password !== undefined && (this.#share.info.isEncrypted || !this.#share.info.isProtected)) {
      throw new TypeError('this password is not for the server')
    }
    const json = password === undefined ? {} : { password }
    const answer = await this.#network.askJson(this.#address, { method: 'POST', json, signal })
    // Else the token in the API: the server may not know under which name it is seen from here.
    const place = this.#network.place(answer.downloadUrl)
    const token = textField(answer.token, 4096)
    if (place !== undefined) return place
    if (token === '') throw new Failure('ELSEWHERE', 'The content is in another place')
    return `${this.#address}/${encodeURIComponent(token)}`
  }

  /** Address of content that is not encrypted, for the browser's own download. */
  plainAddress(signal: AbortSignal, password?: string): Promise<string> {
    return persist(signal, this.#onWaiting, () => this.#open(signal, password))
  }

  /** Writes the decrypted content to a place, and commits it if the tag is right. Anything else leaves nothing there. */
  async fetchInto(place: Place, signal: AbortSignal, onProgress: OnProgress): Promise<Blob | undefined> {
    const fileKey = this.#fileKey
    const { size } = this.#share.info
    if (fileKey === undefined) throw new TypeError('unlock comes first')
    const stop = new AbortController()
    const end = (): void => stop.abort(signal.reason)
    signal.addEventListener('abort', end)
    try {
      signal.throwIfAborted()
      const decryptor = await createPartDecryptor(fileKey)
      let received = 0
      const ask = (at: number): Promise<Uint8Array> | undefined => {
        if (at >= size) return undefined
        const range = this.#range(at, Math.min(size, at + RANGE), stop.signal, (count) => {
          received += count
          onProgress(received, size)
        })
        range.catch(() => {}) // reported when it is its turn
        return range
      }
      let next = ask(0)
      for (let at = 0; next !== undefined; at += RANGE) {
        const part = await next
        next = ask(at + RANGE)
        await place.write(await decryptor.update(part))
      }
      decryptor.final()
      stop.signal.throwIfAborted()
      return await place.commit()
    } catch (error) {
      await place.discard().catch(() => {}) // the first failure is the one to report
      throw asFailure(error)
    } finally {
      stop.abort()
      signal.removeEventListener('abort', end)
    }
  }

  /** Bytes `start` to `end` of the ciphertext; what came before an interruption is not asked for again. */
  #range(start: number, end: number, signal: AbortSignal, onBytes: (count: number) => void): Promise<Uint8Array> {
    const part = new Uint8Array(end - start)
    let filled = 0
    return persist(signal, this.#onWaiting, async (progress) => {
      const wait = withSilence(signal)
      try {
        const response = await this.#respond(start + filled, end, wait.signal)
        const reader = response.body!.getReader()
        for (;;) {
          const { done, value } = await reader.read()
          if (done) break
          wait.heard()
          if (filled + value.length > part.length) throw new Failure('ANSWER', 'More came than was asked for')
          part.set(value, filled)
          filled += value.length
          onBytes(value.length)
          progress()
        }
      } catch (cause) {
        wait.signal.throwIfAborted()
        throw cause instanceof Failure
          ? cause
          : new Failure('UNREACHABLE', 'The content was cut', { isPassing: true, cause })
      } finally {
        wait.end()
      }
      if (filled < part.length) throw new Failure('UNREACHABLE', 'The content was cut', { isPassing: true })
      return part
    })
  }

  async #respond(start: number, end: number, signal: AbortSignal): Promise<Response> {
    const { size } = this.#share.info
    for (let isAgain = false; ; isAgain = true) {
      this.#content ??= await this.#open(signal)
      try {
        const headers = { Range: `bytes=${start}-${end - 1}` }
        const response = await this.#network.ask(this.#content, { headers, signal })
        const isWhole = response.status === 200 && start === 0 && end === size
        const isRange =
          response.status === 206 && response.headers.get('content-range') === `bytes ${start}-${end - 1}/${size}`
        if (isWhole || isRange) return response
        throw new Failure('ANSWER', 'Another range came than was asked for')
      } catch (error) {
        // The address has run out, or the file was replaced: what the share says now tells which.
        const isOver = error instanceof Failure && (error.code === 'REPLACED' || error.status === 403)
        if (!isOver || isAgain) throw error
        this.#content = undefined
        await this.#assertSame(signal)
      }
    }
  }

  async #assertSame(signal: AbortSignal): Promise<void> {
    const before = this.#share
    await this.describe(signal)
    if (!sameKey(before.fileKey, this.#share.fileKey) || before.info.size !== this.#share.info.size) {
      throw new Failure('REPLACED', 'The file was replaced by another version')
    }
  }

  wipe(): void {
    this.#fileKey?.wipe()
  }
}
