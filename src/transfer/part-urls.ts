/**
 * Presigned URLs of one upload's parts: asked for many at a time and ahead of the parts, since each question is a round trip. One that
 * was refused is no good any more, nor are those that came with it.
 * @module
 */
import type { Api } from '../api/api.ts'
import { getPartUrls } from '../api/uploads.ts'
import type { Clock } from '../environment.ts'

export interface PartUrls {
  /** Asks for what will be needed first. What goes wrong is told by `take`. */
  begin(): void
  /** The URL for a part of so many bytes; each is given once. */
  take(number: number, length: number, signal?: AbortSignal): Promise<PartUrl>
}

export interface PartUrl {
  readonly url: string
  /** Says that it was refused: those that came with it are forgotten. */
  refused(): void
}

/** What is known of the parts when an upload begins. */
export interface PartPlan {
  /** Bytes of each part but the last. */
  readonly partSize: number
  /** Bytes of the file; absent while nobody knows. */
  readonly size?: number | undefined
}

/** Asked for at once. */
const AT_ONCE = 64
const UNKNOWN_AT_ONCE = 4
/** URLs last for minutes, and nobody says how many. */
const FRESH_MS = 4 * 60_000

/** What one question brings. */
interface Batch {
  readonly urls: Promise<ReadonlyMap<number, string>>
  readonly askedAt: number
  /** Bytes of each part. */
  readonly length: number
}

/** @param stop - Ends what is asked for ahead. */
export function createPartUrls(
  api: Api,
  uploadId: string,
  { partSize, size }: PartPlan,
  clock: Clock,
  stop?: AbortSignal,
): PartUrls {
  /** The last part, and how long it is. */
  const last = size === undefined ? undefined : Math.max(1, Math.ceil(size / partSize))
  const lastLength = size === undefined || last === undefined ? undefined : size - (last - 1) * partSize
  const lengthOf = (number: number) => (number === last ? lastLength : partSize)
  const ready = new Map<number, Batch>()

  /** @param reach - Number of the last part that is asked for at the same time. */
  function ask(first: number, reach: number, length: number, signal: AbortSignal | undefined): Batch {
    const urls = getPartUrls(api, uploadId, { first, last: reach, size: length }, signal)
    const batch: Batch = { urls, askedAt: clock.monotonic(), length }
    for (let number = first; number <= reach; number++) ready.set(number, batch)
    urls.catch(() => forget(batch)) // told to those who wait
    return batch
  }

  function forget(batch: Batch): void {
    for (const [number, other] of ready) if (other === batch) ready.delete(number)
  }

  /** How far one question reaches: parts of one size, of which none has been asked for. */
  function reachFrom(first: number, length: number): number {
    if (length !== partSize) return first
    const end = last === undefined ? first + UNKNOWN_AT_ONCE - 1 : Math.min(last, first + AT_ONCE - 1)
    let reach = first
    while (reach < end && lengthOf(reach + 1) === partSize && !isReady(reach + 1)) reach++
    return reach
  }

  function isReady(number: number): boolean {
    const batch = ready.get(number)
    return batch !== undefined && clock.monotonic() - batch.askedAt < FRESH_MS
  }

  return {
    begin() {
      const length = lengthOf(1)
      if (last === undefined || length === undefined) return
      ask(1, reachFrom(1, length), length, stop)
      if (last > 1 && last <= AT_ONCE + 1 && lastLength !== partSize) ask(last, last, lastLength!, stop)
    },
    async take(number, length, signal = stop) {
      let batch = ready.get(number)
      if (batch === undefined || batch.length !== length || !isReady(number)) {
        batch = ask(number, reachFrom(number, length), length, signal)
      }
      ready.delete(number)
      const url = (await batch.urls).get(number)
      if (url !== undefined) return { url, refused: () => forget(batch) }
      // The server sent fewer than it was asked for.
      const single = ask(number, number, length, signal)
      ready.delete(number)
      return { url: (await single.urls).get(number)!, refused: () => {} }
    },
  }
}
