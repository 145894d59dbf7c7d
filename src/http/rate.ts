/**
 * A limit on bytes per second, for all requests through one wrapper together. Request bodies wait before they are sent, as a
 * whole, so uploads go in steps of a part; answers are slowed down by reading them slowly.
 * @module
 */
import type { Clock } from '../environment.ts'
import type { Send } from './types.ts'

export interface RateLimits {
  /** Bytes per second; absent: no limit. */
  readonly up?: number
  readonly down?: number
}

/** Bytes that may go at once after a pause, as time. */
const BURST_MS = 250

/** Hands out time: who takes bytes waits until those taken before have had theirs. */
function createPace(bytesPerSecond: number, clock: Clock) {
  let freeAt = clock.monotonic()
  return async (bytes: number, signal: AbortSignal | undefined): Promise<void> => {
    const now = clock.monotonic()
    freeAt = Math.max(freeAt, now - BURST_MS)
    const wait = freeAt - now
    freeAt += (bytes * 1_000) / bytesPerSecond
    if (wait > 0) await clock.sleep(wait, signal)
  }
}

type Pace = ReturnType<typeof createPace>

async function* paced(
  stream: AsyncIterable<Uint8Array>,
  pace: Pace,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    await pace(chunk.length, signal)
    yield chunk
  }
}

/** Wraps a `Send` with limits. */
export function withRate(send: Send, limits: RateLimits, clock: Clock): Send {
  const up = limits.up === undefined ? undefined : createPace(limits.up, clock)
  const down = limits.down === undefined ? undefined : createPace(limits.down, clock)
  if (up === undefined && down === undefined) return send
  return async (request) => {
    if (request.body !== undefined) await up?.(request.body.length, request.signal)
    const response = await send(request)
    if (response.stream === undefined || down === undefined) return response
    return { ...response, stream: paced(response.stream, down, request.signal) }
  }
}
