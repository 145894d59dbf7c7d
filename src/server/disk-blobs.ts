/**
 * Storage on the server's own disk: parts and chunks of uploads become blob files, or bytes in the metadata store when they
 * are few. Presigned URLs lead back to this server.
 * @module
 */
import type { BlobFiles, Received } from './blob-files.ts'
import {
  type BlobStore,
  type FinishedContent,
  type Incoming,
  matchParts,
  type NamedPart,
  type Receipt,
} from './blobs.ts'
import { ApiError, badRequest } from './errors.ts'
import type { Segment } from './records.ts'
import type { Signer } from './signing.ts'
import type { Store, Tx } from './store.ts'

/** Content up to this size is kept in the metadata store, where one flush serves many files. */
const INLINE_LIMIT = 16 * 1024
/** Of one classic upload: 64 GiB in chunks of 1 MiB. */
const MAX_CHUNKS = 65_536
const MD5_OF_NOTHING = 'd41d8cd98f00b204e9800998ecf8427e'

/** How long content that nothing refers to is kept: an administrator has to find out that the metadata was not the right one. */
export const STRAY_MS = 48 * 3_600_000

/** Of the content that a file is a piece of. */
const contentIdOf = (name: string): string => name.slice(0, name.indexOf('-'))

export class DiskBlobs implements BlobStore {
  readonly isDirectOnly = false
  readonly hosts: readonly string[] = []
  readonly #files: BlobFiles
  readonly #store: Store
  readonly #now: () => number
  readonly #partUrl: (uploadId: string, part: number, size: number) => string

  /** @param partUrlLifetimeS - Seconds. */
  constructor(files: BlobFiles, store: Store, signer: Signer, now: () => number, partUrlLifetimeS: number) {
    this.#files = files
    this.#store = store
    this.#now = now
    this.#partUrl = (uploadId, part, size) => signer.partUrl({ uploadId, part, size }, now(), partUrlLifetimeS)
  }

  open(uploadId: string): Promise<Incoming> {
    return Promise.resolve(new DiskIncoming(this.#files, uploadId, this.#partUrl))
  }

  async read(segments: readonly Segment[], start: number, end: number): Promise<AsyncIterable<Uint8Array>> {
    return begun(this.#files.read(segments, start, end))
  }

  freeBytes(): Promise<number> {
    return this.#files.freeBytes()
  }

  contentUrl(): undefined {
    return undefined
  }

  release(tx: Tx, _contentId: string, segments: readonly Segment[]): void {
    tx.afterCommit(() => this.#files.discard(segments))
  }

  #isClaimed(name: string): boolean {
    const content = this.#store.contents.get(contentIdOf(name))
    return content?.segments.some((segment) => segment.file === name) === true
  }

  async recover(): Promise<void> {
    // Metadata that was put back may refer to what other metadata did not know.
    for (const name of await this.#files.listAside()) {
      if (!this.#isClaimed(name)) await this.#recordAside([name])
      else {
        await this.#files.bringBack(name)
        await this.#store.write((tx) => tx.remove(this.#store.asides, name))
      }
    }
    // What no content record claims stays where it is: most likely an upload was cut short, but that is for a person to say.
  }

  /**
   * Moves files aside that nothing claims.
   *
   * @param isOpen - Whether an upload under way writes the content with this id.
   * @returns how many.
   */
  async setAside(names: readonly string[], isOpen: (id: string) => boolean): Promise<number> {
    const there = new Set(await this.#files.list())
    let moved = 0
    for (const name of names) {
      if (!there.has(name) || isOpen(contentIdOf(name))) continue
      await this.#recordAside([name])
      // Looked at last, with nothing to wait for in between: an upload may have ended well meanwhile.
      if (this.#isClaimed(name)) continue
      await this.#files.setAside(name)
      moved++
    }
    return moved
  }

  /** Time runs from when this store first saw them without an owner. */
  async #recordAside(names: readonly string[]): Promise<void> {
    const { asides } = this.#store
    const fresh = names.filter((name) => !asides.doesExist(name))
    if (fresh.length === 0) return
    const foundAt = this.#now()
    await this.#store.write((tx) => {
      for (const name of fresh) tx.put(asides, name, { foundAt })
    })
  }

  async sweep(): Promise<void> {}

  /** Removes what was moved aside more than 48 hours ago. Answers how many files. */
  async removeAsides(): Promise<number> {
    const { asides } = this.#store
    const due = [...asides.getRange({})].filter(({ value }) => value.foundAt + STRAY_MS < this.#now())
    for (const { key } of due) {
      // Metadata that was put back knows it again: the next start brings it back.
      if (this.#isClaimed(key)) continue
      await this.#files.removeAside(key)
      await this.#store.write((tx) => tx.remove(asides, key))
    }
    return due.length
  }

  async close(): Promise<void> {}
}

class DiskIncoming implements Incoming {
  readonly #files: BlobFiles
  readonly #id: string
  readonly #partUrl: (uploadId: string, part: number, size: number) => string
  #inlineBytes = 0
  readonly #parts = new Map<number, Received & { etag: string }>()
  /** Classic route: content in order. */
  #segments: Segment[] = []
  #length = 0
  readonly #synced: Promise<void>[] = []
  /** MD5 of the content, while it is a single chunk. */
  #hash: string | undefined = MD5_OF_NOTHING

  constructor(files: BlobFiles, id: string, partUrl: (uploadId: string, part: number, size: number) => string) {
    this.#files = files
    this.#id = id
    this.#partUrl = partUrl
  }

  partUrl(part: number, size: number, baseUrl: string): string {
    return `${baseUrl}${this.#partUrl(this.#id, part, size)}`
  }

  async #receive(body: AsyncIterable<Uint8Array>, isWanted: () => boolean): Promise<Received> {
    const received = await this.#files.receive(this.#id, body, Math.max(0, INLINE_LIMIT - this.#inlineBytes))
    if (!isWanted()) {
      this.#files.discard([received.segment])
      throw new ApiError(404, -20501, 'Upload not found')
    }
    if (received.segment.data !== undefined) this.#inlineBytes += received.size
    return received
  }

  async putPart(number: number, body: AsyncIterable<Uint8Array>, isWanted: () => boolean): Promise<Receipt> {
    const received = await this.#receive(body, isWanted)
    const before = this.#parts.get(number)
    if (before !== undefined) this.#files.discard([before.segment])
    this.#parts.set(number, { ...received, etag: received.md5 })
    return received
  }

  async putChunk(
    start: number | undefined,
    body: AsyncIterable<Uint8Array>,
    isWanted: () => boolean,
  ): Promise<Receipt> {
    if (this.#segments.length >= MAX_CHUNKS) throw badRequest(-80021, 'Too many chunks')
    const received = await this.#receive(body, isWanted)
    if (received.size === 0) {
      this.#files.discard([received.segment])
      return received
    }
    this.#synced.push(received.synced)
    const length = this.#length
    const at = start === undefined || start > length ? length : start
    const before = this.#segments
    this.#segments = [...slice(before, 0, at), received.segment, ...slice(before, at + received.size, length)]
    const live = new Set(this.#segments.map((segment) => segment.file))
    this.#files.discard(before.filter((segment) => !live.has(segment.file)))
    this.#hash = before.length === 0 ? received.md5 : undefined
    this.#length = Math.max(length, at + received.size)
    return received
  }

  async fromParts(named: readonly NamedPart[]): Promise<FinishedContent> {
    const parts = matchParts(named, this.#parts)
    await this.#onDisk(
      parts.map(({ segment }) => segment),
      parts.map(({ synced }) => synced),
    )
    return {
      segments: parts.filter(({ size }) => size > 0).map(({ segment }) => segment),
      size: parts.reduce((sum, { size }) => sum + size, 0),
      hash: parts.length === 1 ? parts[0]?.md5 : undefined,
    }
  }

  async fromChunks(): Promise<FinishedContent> {
    await this.#onDisk(this.#segments, this.#synced)
    return { segments: this.#segments, size: this.#length, hash: this.#hash }
  }

  async #onDisk(segments: readonly Segment[], synced: readonly Promise<void>[]): Promise<void> {
    await Promise.all(synced)
    if (segments.some((segment) => segment.file !== undefined)) await this.#files.syncNames()
  }

  claim(tx: Tx, content: FinishedContent): void {
    const live = new Set(content.segments.map((segment) => segment.file))
    tx.afterCommit(() => this.#files.discard(this.#all().filter((segment) => !live.has(segment.file))))
  }

  discard(): void {
    this.#files.discard(this.#all())
  }

  #all(): Segment[] {
    return [...this.#segments, ...[...this.#parts.values()].map(({ segment }) => segment)]
  }
}

/** A stream whose first bytes are there, so that a failure to get them can still be answered. */
async function begun(source: AsyncGenerator<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  let first: IteratorResult<Uint8Array> | undefined = await source.next()
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        const result = first ?? (await source.next())
        first = undefined
        return result
      },
      return: () => source.return(undefined),
    }),
  }
}

/** Whether the metadata refers to files of content at all. */
export function usesFiles(store: Store): boolean {
  for (const { value } of store.contents.getRange({})) {
    if (value.segments.some(({ file }) => file !== undefined)) return true
  }
  return false
}

/** The parts of `segments` between two offsets. */
function slice(segments: readonly Segment[], start: number, end: number): Segment[] {
  const result: Segment[] = []
  let at = 0
  for (const segment of segments) {
    const from = Math.max(start - at, 0)
    const to = Math.min(end - at, segment.size)
    if (from < to) result.push({ ...segment, offset: segment.offset + from, size: to - from })
    at += segment.size
  }
  return result
}
