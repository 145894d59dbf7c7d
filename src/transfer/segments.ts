/**
 * Large content on its way down: several ranges in flight, handed over strictly in order to another thread that decrypts and
 * writes. Chunks go there as they came from the network, without being copied; how many segments may wait for their turn is
 * bounded over all files of a run. What an earlier run left goes through the same decryptor, so that the one tag covers everything.
 * @module
 */
import { setMaxListeners } from 'node:events'
import type { FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Clock } from '../environment.ts'
import { cancelled } from '../errors.ts'
import { type DownloadContext, sizeOf } from './content.ts'
import { type DecryptionThread, startDecryptionThread } from './decryption-thread.ts'
import { createPermits, type Permits } from './permits.ts'
import { type Address, createAddress, isNoRanges, readStretch } from './ranges.ts'

/** Smaller files come in one piece, and are sooner fetched again than their leftovers looked after. */
export const LARGE_BYTES = 8 * 1024 * 1024
const SEGMENT_BYTES = 4 * 1024 * 1024
/** Of one file at once. */
const REQUESTS = 4
/** Of one file at once where what is asked for takes long to come. */
const MOST_REQUESTS = 8
/** Handed over together: orders cost something, too. */
const BATCH_BYTES = 512 * 1024
/** Handed over and not written yet, of one file. The network waits then. */
const BEHIND_BYTES = 2 * 1024 * 1024
/** Of all files, unless told otherwise. */
const MEMORY_BYTES = 48 * 1024 * 1024

/** What large files of a run share. */
export interface LargeFiles {
  /** One for each segment in memory. */
  readonly permits: Permits
  /** Started when first needed. */
  thread(): DecryptionThread
  close(): Promise<void>
}

/** @param memory - Bytes of content that may be held at once, over all files. Default 48 MiB. */
export function createLargeFiles(memory = MEMORY_BYTES): LargeFiles {
  let thread: DecryptionThread | undefined
  return {
    permits: createPermits(Math.max(1, Math.floor(memory / SEGMENT_BYTES))),
    thread() {
      thread ??= startDecryptionThread()
      return thread
    },
    close: async () => thread?.close(),
  }
}

/** An open file that large content is written to. */
export interface LargeTarget {
  readonly fd: number
  /** For errors. */
  readonly name: string
  /** Bytes at its beginning that an earlier run decrypted. They are not asked for again, and count for nothing until the tag has matched. */
  readonly found: number
  /** Make the SHA-256 of the content. */
  readonly isHashed?: boolean
}

/**
 * Fetches and decrypts content into a file; resolves only when all of it is verified. However it ends, the file is not touched any
 * more then, and what is in it follows on without a gap.
 *
 * @returns SHA-256 of the content, hex, where it was asked for.
 */
export async function downloadLarge(
  context: DownloadContext,
  files: LargeFiles,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  target: LargeTarget,
  shown: string,
  signal: AbortSignal,
  address: Address = createAddress(context, node.id, signal),
): Promise<string | undefined> {
  const size = sizeOf(node)
  let sha256: string | undefined
  const plaintext = files.thread().open(target.fd, target.name, fileKey, target.isHashed)
  const confirm = (bytes: number) => context.onEvent?.({ type: 'part-confirmed', path: shown, bytes })
  const outlet = createOutlet((chunks) => plaintext.write(chunks), confirm)
  const job = { context, permits: files.permits, address, size, signal, outlet }
  try {
    for (let at = 0; at < target.found; at += SEGMENT_BYTES) {
      if (signal.aborted) throw cancelled(signal)
      const bytes = Math.min(SEGMENT_BYTES, target.found - at)
      await plaintext.replay(bytes)
      confirm(bytes)
    }
    const reached = await fetchInSegments(job, target.found)
    if (reached < size) await fetchInOneGo(job, reached)
    await outlet.settle()
    sha256 = await plaintext.end()
  } finally {
    await plaintext.forget()
  }
  if (fileKey !== undefined) context.keyring.confirm(fileKey)
  return sha256
}

/** Hands chunks over in batches, and knows what has become of them. */
interface Outlet {
  /** Waits while too much has not been written yet. */
  take(chunk: Uint8Array): Promise<void> | undefined
  /** Resolves when all that was taken is written. */
  settle(): Promise<void>
}

function createOutlet(write: (chunks: Uint8Array[]) => Promise<void>, confirm: (bytes: number) => void): Outlet {
  let batch: Uint8Array[] = []
  let batched = 0
  let behind = 0
  let last: Promise<void> = Promise.resolve()

  function flush(): void {
    const bytes = batched
    behind += bytes
    const before = last
    const written = write(batch)
    // When one before it has failed nobody looks at it any more.
    written.catch(() => {})
    last = before
      .then(() => written)
      .then(() => {
        behind -= bytes
        confirm(bytes)
      })
    last.catch(() => {}) // told when awaited
    ;[batch, batched] = [[], 0]
  }

  return {
    take(chunk) {
      batch.push(chunk)
      batched += chunk.length
      if (batched < BATCH_BYTES) return undefined
      flush()
      return behind > BEHIND_BYTES ? last : undefined
    },
    settle() {
      if (batched > 0) flush()
      return last
    },
  }
}

/** What the two ways to fetch large content need. */
interface Job {
  readonly context: DownloadContext
  readonly permits: Permits
  readonly address: Address
  readonly size: number
  readonly signal: AbortSignal
  readonly outlet: Outlet
}

interface Segment {
  readonly length: number
  arrived: number
  /** What has arrived before it was this segment's turn. */
  chunks: Uint8Array[]
  isNext: boolean
  readonly complete: Promise<void>
}

/** What is asked for before the oldest segment is there: as much as is on its way anyway, so that the line is never idle. */
function createPipe({ monotonic }: Clock) {
  let delay = Number.POSITIVE_INFINITY
  let since: number | undefined
  let bytes = 0
  return {
    /** Says that the first chunk of a segment came, so long after it was asked for. Milliseconds. */
    began(waited: number) {
      delay = Math.min(delay, waited)
    },
    arrived(length: number) {
      since ??= monotonic()
      bytes += length
    },
    /** Bandwidth times delay, and as much again: what is asked for at that moment comes when the rest has come. */
    capacity: () =>
      since === undefined || delay === Number.POSITIVE_INFINITY
        ? 0
        : (2 * delay * bytes) / Math.max(1, monotonic() - since),
  }
}

/**
 * The first segment goes alone until it begins to come: it shows whether the server sends ranges at all.
 *
 * @returns how far it got: to the end, unless the server sends whole files only.
 */
async function fetchInSegments(job: Job, start: number): Promise<number> {
  const { permits, size, outlet } = job
  const { clock } = job.context
  const stop = new AbortController()
  const signal = AbortSignal.any([job.signal, stop.signal])
  setMaxListeners(0, signal)
  const segments: Segment[] = []
  const pipe = createPipe(clock)
  let asked = start
  let reached = start
  let requests = 1
  /** Bytes that were asked for and have not come. */
  let outstanding = 0
  let isOver = false

  function ask(): void {
    const end = Math.min(asked + SEGMENT_BYTES, size)
    const askedAt = clock.monotonic()
    // The very first one waits for its address and its connection, too.
    const isAlone = asked === start
    const arrived = (chunk: Uint8Array, isFirst: boolean) => {
      if (isFirst && !isAlone) pipe.began(clock.monotonic() - askedAt)
      pipe.arrived(chunk.length)
      outstanding -= chunk.length
      requests = REQUESTS
      askMore()
    }
    outstanding += end - asked
    segments.push(fetchSegment(job, asked, end, arrived, signal))
    asked = end
  }
  /** Whoever has a segment goes on with that one. Nobody waits for another, so files cannot block each other. */
  function askMore(): void {
    const hasRoom = () =>
      segments.length < requests || (segments.length < MOST_REQUESTS && outstanding < pipe.capacity())
    while (!isOver && asked < size && hasRoom() && permits.takeFree()) ask()
  }
  /** What has arrived of it goes now, and the rest as it comes. */
  async function handOver(segment: Segment): Promise<void> {
    segment.isNext = true
    let room: Promise<void> | undefined
    for (const chunk of segment.chunks) room = outlet.take(chunk)
    segment.chunks = []
    await room
  }

  try {
    while (reached < size) {
      askMore()
      if (segments.length === 0) {
        await permits.take(signal)
        ask()
      }
      const next = segments[0]!
      await handOver(next)
      await next.complete
      reached += next.length
      segments.shift()
      permits.give()
    }
    return size
  } catch (error) {
    isOver = true
    stop.abort()
    await Promise.allSettled(segments.map(({ complete }) => complete))
    // What has arrived behind the last byte that was handed over need not be fetched again.
    let follows = true
    for (const segment of segments) {
      permits.give()
      if (follows) {
        await handOver(segment).catch(() => {})
        reached += segment.arrived
      }
      follows &&= segment.arrived === segment.length
    }
    await outlet.settle()
    if (!isNoRanges(error)) throw error
    return reached
  }
}

function fetchSegment(
  { context, address, size, outlet }: Job,
  start: number,
  end: number,
  arrived: (chunk: Uint8Array, isFirst: boolean) => void,
  signal: AbortSignal,
): Segment {
  const take = (chunk: Uint8Array) => {
    const isFirst = segment.arrived === 0
    segment.arrived += chunk.length
    arrived(chunk, isFirst)
    if (segment.isNext) return outlet.take(chunk)
    segment.chunks.push(chunk)
    return undefined
  }
  const complete = readStretch(context, address, { start, end, size }, take, { orWhole: false, signal })
  complete.catch(() => {}) // told when awaited
  const segment: Segment = { length: end - start, arrived: 0, chunks: [], isNext: false, complete }
  return segment
}

/** From a server that does not send ranges. */
async function fetchInOneGo({ context, permits, address, size, signal, outlet }: Job, start: number): Promise<void> {
  await permits.take(signal)
  try {
    await readStretch(context, address, { start, end: size, size }, outlet.take, { orWhole: true, signal })
  } finally {
    await outlet.settle()
    permits.give()
  }
}
