/** Bounded concurrency over async iterables, and the pool of buffers that bounds memory. @module */
import { cancelled } from '../errors.ts'

/** How much may be in flight; see `inAnyOrder`. */
export interface Window {
  /** Items that have begun and not ended. */
  readonly most: number
  /** Of those, how many may still be on their way out; may change. Default: all. */
  readonly sending?: () => number
}

/**
 * Runs `work` on as many items at once as the window allows; yields results as they come, and pulls no further ahead. However it
 * ends, everything in flight has settled by then.
 *
 * @param work - Calls `sent` when an item is on its way and only its answer is waited for: that makes room for another one.
 */
export async function* inAnyOrder<I, O>(
  source: AsyncIterable<I>,
  { most, sending = () => most }: Window,
  work: (item: I, sent: () => void) => Promise<O>,
): AsyncGenerator<O> {
  const running = new Set<Promise<void>>()
  const results: O[] = []
  let failure: { readonly reason: unknown } | undefined
  let leaving = 0
  let wake = () => {}
  function begin(item: I): void {
    let isLeaving = true
    leaving++
    const sent = () => {
      if (isLeaving) leaving--
      isLeaving = false
      wake()
    }
    const job: Promise<void> = work(item, sent)
      .then(
        (result) => void results.push(result),
        (reason) => {
          failure ??= { reason }
        },
      )
      .finally(() => {
        running.delete(job)
        sent()
      })
    running.add(job)
  }
  const changed = () =>
    new Promise<void>((resolve) => {
      wake = resolve
    })
  try {
    for await (const item of source) {
      begin(item)
      while (failure === undefined && (running.size >= most || leaving >= sending())) {
        if (results.length > 0) yield results.shift()!
        else await changed()
      }
      if (failure !== undefined) throw failure.reason
    }
    while (running.size > 0 || results.length > 0) {
      if (failure !== undefined) throw failure.reason
      if (results.length > 0) yield results.shift()!
      else await changed()
    }
    if (failure !== undefined) throw failure.reason
  } finally {
    await Promise.allSettled(running)
  }
}

export interface SlabPool {
  /** Most slabs there are. */
  readonly count: number
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
    count,
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
