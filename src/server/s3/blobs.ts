/**
 * Storage in an S3-compatible object store: one object per content, put together by a multipart upload. Bytes go between
 * client and store; this server signs the URLs and keeps a record of everything that has to go away again, so that neither
 * a crash nor an outage leaves objects or uploads behind.
 * @module
 */
import { type BlobStore, type FinishedContent, type Incoming, matchParts, type NamedPart } from '../blobs.ts'
import { STRAY_MS } from '../disk-blobs.ts'
import { type ApiError, badRequest } from '../errors.ts'
import type { ContentRecord, Segment, StrayRecord } from '../records.ts'
import type { Store, Tx } from '../store.ts'
import { keyOf, type ObjectStore, type StoredPart } from './objects.ts'

/** Removals at a time. */
const PARALLEL = 8

const directOnly = (): ApiError => badRequest(-90033, 'Direct upload is mandatory')

export interface S3BlobsOptions {
  /** Serves content that was stored before there was an object store. */
  before: BlobStore
  partUrlLifetimeS: number
  now(): number
  /** Told when something could not be removed; it is tried again later. */
  onError?: ((error: unknown) => void) | undefined
}

export class S3Blobs implements BlobStore {
  readonly isDirectOnly = true
  readonly hosts: readonly string[]
  readonly #store: Store
  readonly #objects: ObjectStore
  readonly #options: S3BlobsOptions
  /** Ids of uploads under way: their strays are not to be removed. */
  readonly #open = new Set<string>()
  /** Ids of uploads that this run has opened and not finished. */
  readonly #own = new Set<string>()
  readonly #due = new Set<string>()
  readonly #removals = new Set<Promise<void>>()

  constructor(store: Store, objects: ObjectStore, options: S3BlobsOptions) {
    this.#store = store
    this.#objects = objects
    this.#options = options
    this.hosts = [objects.host]
  }

  async open(uploadId: string): Promise<Incoming> {
    this.#open.add(uploadId)
    this.#own.add(uploadId)
    try {
      // Recorded before it exists: a crash in between leaves a record too many, never an upload that nobody knows.
      await this.#store.write((tx) => tx.put(this.#store.strays, uploadId, {}))
      const created = await this.#objects.createUpload(keyOf(uploadId))
      await this.#store.write((tx) => tx.put(this.#store.strays, uploadId, { uploadId: created.uploadId }))
      return new S3Incoming(this.#objects, uploadId, created, {
        partUrlLifetimeS: this.#options.partUrlLifetimeS,
        claim: (tx) => {
          tx.remove(this.#store.strays, uploadId)
          tx.afterCommit(() => {
            this.#open.delete(uploadId)
            this.#own.delete(uploadId)
          })
        },
        discard: () => this.#discard(uploadId),
      })
    } catch (error) {
      this.#discard(uploadId)
      throw error
    }
  }

  #discard(id: string): void {
    this.#open.delete(id)
    this.#remove(id)
  }

  async read(segments: readonly Segment[], start: number, end: number): Promise<AsyncIterable<Uint8Array>> {
    const object = segments[0]?.object
    if (object === undefined || start >= end) return this.#options.before.read(segments, start, end)
    return this.#objects.read(keyOf(object), start, end)
  }

  freeBytes(): Promise<undefined> {
    return Promise.resolve(undefined)
  }

  contentUrl({ segments }: ContentRecord, lifetimeS: number): string | undefined {
    const object = segments[0]?.object
    return object === undefined ? undefined : this.#objects.contentUrl(keyOf(object), lifetimeS)
  }

  release(tx: Tx, contentId: string, segments: readonly Segment[]): void {
    if (segments[0]?.object === undefined) {
      this.#options.before.release(tx, contentId, segments)
      return
    }
    tx.put(this.#store.strays, contentId, { isWhole: true })
    tx.afterCommit(() => this.#remove(contentId))
  }

  async recover(): Promise<void> {
    await this.#options.before.recover()
    await this.sweep()
  }

  async sweep(): Promise<void> {
    for (const { key } of this.#store.strays.getRange({})) if (!this.#open.has(key)) this.#due.add(key)
    this.#work()
    while (this.#removals.size > 0) await Promise.all(this.#removals)
    await this.#options.before.sweep()
  }

  async close(): Promise<void> {
    this.#due.clear()
    this.#objects.close()
    while (this.#removals.size > 0) await Promise.all(this.#removals)
    await this.#options.before.close()
  }

  #remove(id: string): void {
    this.#due.add(id)
    this.#work()
  }

  /** Keeps some removals going for as long as any are due. */
  #work(): void {
    for (const id of this.#due) {
      if (this.#removals.size >= PARALLEL) return
      this.#due.delete(id)
      const removal = this.#clear(id)
        .catch((error: unknown) => {
          // Most likely all others would fail too; their records stay, and the next sweep finds them.
          this.#due.clear()
          this.#options.onError?.(error)
        })
        .finally(() => {
          this.#removals.delete(removal)
          this.#work()
        })
      this.#removals.add(removal)
    }
  }

  async #clear(id: string): Promise<void> {
    const stray = this.#store.strays.get(id)
    if (stray === undefined) return
    const key = keyOf(id)
    if (stray.uploadId !== undefined) await this.#objects.abortUpload(key, stray.uploadId)
    else if (stray.isWhole !== true) {
      for (const uploadId of await this.#objects.findUploads(key)) await this.#objects.abortUpload(key, uploadId)
    }
    if (!(await this.#mayRemove(id, key, stray))) return
    // Also after an upload: it may have been put together without becoming a node.
    await this.#objects.remove(key)
    await this.#store.write((tx) => tx.remove(this.#store.strays, id))
    this.#own.delete(id)
  }

  /**
   * Deleted content and uploads of this run go at once. What an earlier run left may belong to newer metadata, if somebody has
   * put older one back: an object stays for a while.
   */
  async #mayRemove(id: string, key: string, stray: StrayRecord): Promise<boolean> {
    if (stray.isWhole === true || this.#own.has(id)) return true
    if (stray.foundAt !== undefined) return stray.foundAt + STRAY_MS < this.#options.now()
    if ((await this.#objects.sizeOf(key)) === undefined) return true
    const foundAt = this.#options.now()
    await this.#store.write((tx) => tx.put(this.#store.strays, id, { foundAt }))
    return false
  }
}

interface Hooks {
  partUrlLifetimeS: number
  claim(tx: Tx): void
  discard(): void
}

class S3Incoming implements Incoming {
  readonly #objects: ObjectStore
  readonly #id: string
  readonly #upload: { uploadId: string; hasMd5Etags: boolean }
  readonly #hooks: Hooks
  /** What was put together, or may have been: its answer can have been lost. */
  #attempt: { named: string; parts: StoredPart[]; isDone: boolean } | undefined

  constructor(objects: ObjectStore, id: string, upload: { uploadId: string; hasMd5Etags: boolean }, hooks: Hooks) {
    this.#objects = objects
    this.#id = id
    this.#upload = upload
    this.#hooks = hooks
  }

  partUrl(part: number, size: number): string {
    return this.#objects.partUrl(keyOf(this.#id), this.#upload.uploadId, part, size, this.#hooks.partUrlLifetimeS)
  }

  putPart(): Promise<never> {
    return Promise.reject(directOnly())
  }

  putChunk(): Promise<never> {
    return Promise.reject(directOnly())
  }

  fromChunks(): Promise<never> {
    return Promise.reject(directOnly())
  }

  async fromParts(list: readonly NamedPart[]): Promise<FinishedContent> {
    const key = keyOf(this.#id)
    const { uploadId, hasMd5Etags } = this.#upload
    const named = JSON.stringify(list)
    if (this.#attempt?.named !== named) {
      const parts = matchParts(list, await this.#objects.listParts(key, uploadId))
      this.#attempt = { named, parts, isDone: false }
    }
    const { parts } = this.#attempt
    const size = parts.reduce((sum, part) => sum + part.size, 0)
    // Nothing needs no object; not every store makes one of an empty part.
    if (size > 0 && !this.#attempt.isDone) {
      await this.#objects.completeUpload(key, uploadId, parts, size)
      this.#attempt.isDone = true
    }
    const hash = parts.length === 1 && hasMd5Etags ? parts[0]?.etag.toLowerCase() : undefined
    return {
      segments: size === 0 ? [] : [{ object: this.#id, offset: 0, size }],
      size,
      hash: /^[0-9a-f]{32}$/.test(hash ?? '') ? hash : undefined,
    }
  }

  claim(tx: Tx, content: FinishedContent): void {
    if (content.segments.length > 0) this.#hooks.claim(tx)
    else tx.afterCommit(() => this.#hooks.discard())
  }

  discard(): void {
    this.#hooks.discard()
  }
}
