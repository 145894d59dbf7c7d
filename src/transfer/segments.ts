/**
 * Large content on its way down: several ranges in flight, each into a slab of its own, decrypted and written strictly in order by
 * another thread. Slabs come from one pool for all files, which bounds the memory of a run. What an earlier run left goes through
 * the same decryptor, so that the one tag covers everything.
 * @module
 */
import { setMaxListeners } from 'node:events'
import type { FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { cancelled } from '../errors.ts'
import { type DownloadContext, sizeOf } from './content.ts'
import { type DecryptionThread, startDecryptionThread } from './decryption-thread.ts'
import { createSlabPool, type SlabPool } from './flow.ts'
import { type Address, createAddress, isNoRanges, readStretch, type Stretch } from './ranges.ts'

/** Smaller files come in one piece, and are sooner fetched again than their leftovers looked after. */
export const LARGE_BYTES = 8 * 1024 * 1024
const SEGMENT_BYTES = 4 * 1024 * 1024
/** Of one file at once. */
const REQUESTS = 4
/** Segments of one file on their way to the disk: one that is written, and one for afterwards. */
const WRITES = 2
/** Of all files, unless told otherwise. */
const MEMORY_BYTES = 48 * 1024 * 1024

/** What large files of a run share. */
export interface LargeFiles {
  readonly slabs: SlabPool
  /** Started when first needed. */
  thread(): DecryptionThread
  close(): Promise<void>
}

/** @param memory - Bytes of content that may be held at once, over all files. Default 48 MiB. */
export function createLargeFiles(memory = MEMORY_BYTES): LargeFiles {
  let thread: DecryptionThread | undefined
  return {
    slabs: createSlabPool(Math.max(1, Math.floor(memory / SEGMENT_BYTES)), SEGMENT_BYTES),
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
}

/** What the two ways to fetch large content need. */
interface Job {
  readonly context: DownloadContext
  readonly slabs: SlabPool
  readonly address: Address
  readonly size: number
  readonly signal: AbortSignal
  /** Decrypts and writes what follows, and tells. */
  write(content: Uint8Array): Promise<void>
}

/**
 * Fetches and decrypts content into a file; resolves only when all of it is verified. However it ends, the file is not touched any
 * more then, and what is in it follows on without a gap.
 */
export async function downloadLarge(
  context: DownloadContext,
  files: LargeFiles,
  node: RemoteNode,
  fileKey: FileKey | undefined,
  target: LargeTarget,
  shown: string,
  signal: AbortSignal,
): Promise<void> {
  const size = sizeOf(node)
  const plaintext = files.thread().open(target.fd, target.name, fileKey)
  const confirm = (bytes: number) => context.onEvent?.({ type: 'part-confirmed', path: shown, bytes })
  const address = createAddress(context.api, node.id, signal)
  const write = (content: Uint8Array) => plaintext.write(content).then(() => confirm(content.length))
  const job = { context, slabs: files.slabs, address, size, signal, write }
  try {
    for (let at = 0; at < target.found; at += SEGMENT_BYTES) {
      if (signal.aborted) throw cancelled(signal)
      const bytes = Math.min(SEGMENT_BYTES, target.found - at)
      await plaintext.replay(bytes)
      confirm(bytes)
    }
    const reached = await fetchInSegments(job, target.found)
    if (reached < size) await fetchInOneGo(job, reached)
    await plaintext.end()
  } finally {
    await plaintext.forget()
  }
  if (fileKey !== undefined) context.keyring.confirm(fileKey)
}

interface Segment {
  readonly slab: Uint8Array
  readonly length: number
  /** Bytes in the slab so far. */
  arrived: number
  readonly complete: Promise<void>
}

/**
 * The first segment goes alone: it shows whether the server sends ranges at all.
 *
 * @returns how far it got: to the end, unless the server sends whole files only.
 */
async function fetchInSegments(job: Job, start: number): Promise<number> {
  const { slabs, size } = job
  const stop = new AbortController()
  const signal = AbortSignal.any([job.signal, stop.signal])
  setMaxListeners(0, signal)
  const arriving: Segment[] = []
  const writing: Promise<void>[] = []
  let asked = start
  let reached = start
  let requests = 1

  function write({ slab, arrived }: Segment): void {
    reached += arrived
    const written = job.write(slab.subarray(0, arrived)).finally(() => slabs.give(slab))
    written.catch(() => {}) // told when awaited
    writing.push(written)
  }

  try {
    while (reached < size) {
      while (asked < size && arriving.length < requests) {
        // Whoever has a slab goes on with that one. Nobody waits for another, so files cannot block each other.
        const isIdle = arriving.length + writing.length === 0
        const slab = slabs.takeFree() ?? (isIdle ? await slabs.take(signal) : undefined)
        if (slab === undefined) break
        arriving.push(fetchSegment(job, { start: asked, end: Math.min(asked + slabs.size, size), size }, slab, signal))
        asked = Math.min(asked + slabs.size, size)
      }
      if (arriving.length === 0 || writing.length === WRITES) {
        await writing.shift()
        continue
      }
      await arriving[0]!.complete
      write(arriving.shift()!)
      requests = REQUESTS
    }
    for (const written of writing) await written
    return size
  } catch (error) {
    stop.abort()
    await Promise.allSettled(arriving.map(({ complete }) => complete))
    const isWritable = (await Promise.allSettled(writing)).every(({ status }) => status === 'fulfilled')
    let follows = isWritable
    // What has arrived behind the last byte that was written need not be fetched again.
    for (const segment of arriving) {
      if (follows) write(segment)
      else slabs.give(segment.slab)
      follows &&= segment.arrived === segment.length
    }
    await Promise.allSettled(writing)
    if (!isNoRanges(error) || !isWritable) throw error
    return reached
  }
}

function fetchSegment({ context, address }: Job, stretch: Stretch, slab: Uint8Array, signal: AbortSignal): Segment {
  const take = (chunk: Uint8Array) => {
    slab.set(chunk, segment.arrived)
    segment.arrived += chunk.length
    return undefined
  }
  const complete = readStretch(context, address, stretch, take, { orWhole: false, signal })
  complete.catch(() => {}) // told when awaited
  const segment = { slab, length: stretch.end - stretch.start, arrived: 0, complete }
  return segment
}

/** From a server that does not send ranges. */
async function fetchInOneGo({ context, slabs, address, size, signal, write }: Job, start: number): Promise<void> {
  const slab = await slabs.take(signal)
  let fill = 0
  const flush = async () => {
    const full = slab.subarray(0, fill)
    fill = 0
    await write(full)
  }
  try {
    const take = async (chunk: Uint8Array) => {
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + slab.length - fill)
        slab.set(piece, fill)
        fill += piece.length
        at += piece.length
        if (fill === slab.length) await flush()
      }
    }
    await readStretch(context, address, { start, end: size, size }, take, { orWhole: true, signal })
  } finally {
    await flush().finally(() => slabs.give(slab))
  }
}
