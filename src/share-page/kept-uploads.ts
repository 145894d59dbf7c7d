/**
 * What is kept of uploads that are under way, so that they can be gone on with after the page was closed or loaded again: in the browser's
 * database, for this origin only, removed when the upload ends.
 *
 * The file key is kept as a `CryptoKey` that no script can read, ours included; it can encrypt here and nothing else. Who can read the files of the
 * browser can read it on the disk, as they can read the file that is being sent, which lies on the same disk. Plaintext and passwords are not kept.
 * @module
 */
import type { KeptEncryption } from '../../crypto/index.ts'

const DATABASE = 'sealsync-share'
const UPLOADS = 'uploads'
/** Servers drop an upload that nobody goes on with, and keys are kept no longer than they are good for. */
const LIFETIME_MS = 24 * 3_600_000

/** A part of which something may have left. */
export interface KeptPart {
  /** SHA-256 of what is sent. */
  readonly digest: Uint8Array
  /** What acknowledged it: the ETag, or `''` where the server itself took it. */
  readonly receipt: string | undefined
}

export interface KeptUpload {
  /** The upload's id at the server. */
  readonly id: string
  /** Server and share. */
  readonly share: string
  readonly isDirect: boolean
  readonly partSize: number
  readonly file: { readonly name: string; readonly size: number; readonly lastModified: number }
  readonly storedName: string
  readonly startedAt: number
  /** Absent where the room is not encrypted. */
  readonly encryption: KeptEncryption | undefined
  /** For whom the file key was wrapped, in the order of `encryption.wrapped`. */
  readonly recipients: readonly { readonly userId: number; readonly fingerprint: string }[]
  readonly parts: readonly KeptPart[]
}

const asked = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

export class KeptUploads {
  readonly #database: IDBDatabase

  private constructor(database: IDBDatabase) {
    this.#database = database
  }

  /** `undefined` where the browser keeps nothing, as in private windows of some. */
  static async open(): Promise<KeptUploads | undefined> {
    try {
      const request = indexedDB.open(DATABASE, 1)
      request.onupgradeneeded = () => request.result.createObjectStore(UPLOADS, { keyPath: 'id' })
      return new KeptUploads(await asked(request))
    } catch {
      return undefined
    }
  }

  #store(mode: IDBTransactionMode): { store: IDBObjectStore; committed: Promise<void> } {
    const transaction = this.#database.transaction(UPLOADS, mode, { durability: 'strict' })
    const committed = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve()
      transaction.onabort = () => reject(transaction.error)
    })
    return { store: transaction.objectStore(UPLOADS), committed }
  }

  /** Resolves when it is durable. */
  async put(upload: KeptUpload): Promise<void> {
    const { store, committed } = this.#store('readwrite')
    store.put(upload)
    await committed
  }

  async remove(id: string): Promise<void> {
    const { store, committed } = this.#store('readwrite')
    store.delete(id)
    await committed
  }

  /** Those of a share; what is too old is removed, whatever share it is of. */
  async list(share: string, now: number): Promise<KeptUpload[]> {
    const { store, committed } = this.#store('readwrite')
    const all = (await asked(store.getAll())) as KeptUpload[]
    for (const { id, startedAt } of all) if (!isFresh(startedAt, now)) store.delete(id)
    await committed
    return all.filter((one) => one.share === share && isFresh(one.startedAt, now))
  }
}

const isFresh = (startedAt: number, now: number): boolean => startedAt <= now && now - startedAt < LIFETIME_MS
