/**
 * Many calls, few at once.
 * @module
 */
import pLimit from 'p-limit'
import { cancelled } from '../errors.ts'

/**
 * Runs `work` on all items, at most `limit` at once; the results are in the order of the items. The first failure ends it: what has begun
 * is waited for, nothing more is begun, and the failure is thrown.
 *
 * @param limit - 1 or more.
 * @throws {RangeError} for another limit.
 */
export async function mapLimit<I, O>(
  items: Iterable<I> | AsyncIterable<I>,
  limit: number,
  work: (item: I, index: number) => Promise<O>,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<O[]> {
  if (!Number.isInteger(limit) || limit < 1) throw new RangeError('The limit must be a whole number from 1')
  const run = pLimit(limit)
  const results: O[] = []
  const running = new Set<Promise<void>>()
  let failure: { readonly reason: unknown } | undefined
  const fail = (reason: unknown) => {
    failure ??= { reason }
  }
  let index = 0
  try {
    for await (const item of items) {
      if (signal?.aborted) fail(cancelled(signal))
      if (failure !== undefined) break
      const at = index++
      const job: Promise<void> = run(async () => {
        results[at] = await work(item, at)
      })
        .catch(fail)
        .finally(() => running.delete(job))
      running.add(job)
      // Items are taken only as fast as they are worked on: there may be no end to them.
      if (running.size >= limit) await Promise.race(running)
    }
  } catch (error) {
    fail(error)
  }
  await Promise.all(running)
  if (failure !== undefined) throw failure.reason
  return results
}
