/**
 * The seam between the server and its storages: what a storage does for content on its way in, on its way out, and when
 * nobody refers to it any more. The server's own disk is in disk-blobs.ts, an object store in s3/blobs.ts.
 * @module
 */
import { badRequest } from './errors.ts'
import type { ContentRecord, Segment } from './records.ts'
import type { Tx } from './store.ts'

/** Fewest bytes of a part that is not the last. */
const MIN_PART = 5 * 1024 * 1024

/** Content that is complete and safe from a crash, though nothing refers to it yet. */
export interface FinishedContent {
  segments: Segment[]
  size: number
  /** MD5 in hex, where it is known. */
  hash: string | undefined
}

/** A part as the client names it when it finishes a direct upload. */
export interface NamedPart {
  number: number
  /** Perhaps with quotes. */
  etag: string
}

/** What arrived by one request. */
export interface Receipt {
  size: number
  /** MD5 of the body, in hex. */
  md5: string
}

/** Content of one upload on its way in. Ends with `claim` or `discard`. */
export interface Incoming {
  /** Where the client puts one part of exactly `size` bytes. */
  partUrl(part: number, size: number, baseUrl: string): string
  /**
   * Takes one part from a URL of this server; sending it again replaces it.
   *
   * @param isWanted - Asked at the end: bytes for an upload that ended meanwhile are dropped, which throws.
   */
  putPart(number: number, body: AsyncIterable<Uint8Array>, isWanted: () => boolean): Promise<Receipt>
  /**
   * Takes one chunk of a classic upload.
   *
   * @param start - Where to write it; undefined, or a place beyond the end, means to append.
   */
  putChunk(start: number | undefined, body: AsyncIterable<Uint8Array>, isWanted: () => boolean): Promise<Receipt>
  /** Content from the parts that the client names; -80045 or -80046 when they are not what is there. */
  fromParts(parts: readonly NamedPart[]): Promise<FinishedContent>
  /** Content from all chunks. */
  fromChunks(): Promise<FinishedContent>
  /** Inside the unit of work that makes the content visible. What is no part of it is removed after the commit. */
  claim(tx: Tx, content: FinishedContent): void
  /** Removes everything received. Does not wait for it. */
  discard(): void
}

export interface BlobStore {
  /** Content comes by presigned URLs only, never through this server. */
  readonly isDirectOnly: boolean
  /** Hosts of presigned URLs, where they are not this server. */
  readonly hosts: readonly string[]
  /** Prepares for the content of one upload. The id becomes that of the content. */
  open(uploadId: string): Promise<Incoming>
  /** Bytes `start` to `end` (exclusive) of content. Resolves once they can be had. */
  read(segments: readonly Segment[], start: number, end: number): Promise<AsyncIterable<Uint8Array>>
  /** Bytes that there is room for, where that is known. */
  freeBytes(): Promise<number | undefined>
  /** A URL where clients can read this content without the server, if there is one. */
  contentUrl(content: ContentRecord, lifetimeS: number): string | undefined
  /** Inside the unit of work that drops the last reference; the bytes go after the commit. */
  release(tx: Tx, contentId: string, segments: readonly Segment[]): void
  /** At start-up, before the first upload: removes what nothing refers to. */
  recover(): Promise<void>
  /** Now and then: removes what could not be removed before. */
  sweep(): Promise<void>
  close(): Promise<void>
}

/** ETags travel in quotes, in headers, documents and what clients repeat; they are kept without. */
export const bareEtag = (etag: string): string => etag.replaceAll('"', '')

/** Checks the parts that a client names against those received, and answers the latter in order. */
export function matchParts<P extends { etag: string; size: number }>(
  named: readonly NamedPart[],
  received: ReadonlyMap<number, P>,
): P[] {
  let last = 0
  return named.map(({ number, etag }, index) => {
    const part = received.get(number)
    if (part === undefined || part.etag.toLowerCase() !== bareEtag(etag).toLowerCase()) {
      throw badRequest(-80045, 'Invalid ETag')
    }
    if (number <= last) throw badRequest(-80045, 'Parts must be in ascending order')
    if (index < named.length - 1 && part.size < MIN_PART) throw badRequest(-80046, 'Part is too small')
    last = number
    return part
  })
}
