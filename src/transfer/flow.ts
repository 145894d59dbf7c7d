/** Bounded concurrency over async iterables, and the pool of buffers that bounds memory. @module */
import { cancelled } from '../errors.ts'

/**
 * Runs `work` on up to `window` items at once; yields results in input order; pulls no further ahead than that. However it
 * ends, everything in flight has settled by then.
 */
export async function* mapInOrder<I, O>(
  source: AsyncIterable<I>,
  window: number,
  work: (item: I) => Promise<O>,
): AsyncGenerator<O> {
  const inFlight: Promise<O>[] = []
  try {
    for await (const item of source) {
      const job = work(item)
      job.catch(() => {}) // reported when awaited below
      inFlight.push(job)
      if (inFlight.length >= window) yield await inFlight.shift()!
    }
    while (inFlight.length > 0) yield await inFlight.shift()!
  } finally {
    await Promise.allSettled(inFlight)
  }
}

export interface SlabPool {
  /** Bytes per slab. */
  readonly size: number
  /** Waits for a free slab. Its content is whatever was left in it. */
  take(signal?: AbortSignal): Promise<Uint8Array>
  give(slab: Uint8Array): void
}

/**
 * A fixed number of equal buffers, which other threads may fill, made when first needed and used again and again. A file needs one slab to make progress
 * and gives it back when the part is acknowledged, so files cannot block each other for good.
 */
export function createSlabPool(count: number, size: number): SlabPool {
  const free: Uint8Array[] = []
  const waiting: ((slab: Uint8Array) => void)[] = []
  let made = 0
  return {
    size,
    async take(signal) {
      if (signal?.aborted) throw cancelled(signal)
      const slab = free.pop()
      if (slab !== undefined) return slab
      if (made < count) {
        made++
        return Buffer.from(new SharedArrayBuffer(size))
      }
      return new Promise((resolve, reject) => {
        const stop = () => {
          waiting.splice(waiting.indexOf(deliver), 1)
          reject(cancelled(signal!))
        }
        const deliver = (given: Uint8Array) => {
          signal?.removeEventListener('abort', stop)
          resolve(given)
        }
        waiting.push(deliver)
        signal?.addEventListener('abort', stop, { once: true })
      })
    },
    give(slab) {
      const next = waiting.shift()
      if (next === undefined) free.push(slab)
      else next(slab)
    },
  }
}
