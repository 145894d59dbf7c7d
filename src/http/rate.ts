/**
 * A limit on bytes per second, for all requests through one wrapper together; it may change with the time of day. Request
 * bodies wait before they are sent, as a whole, so uploads go in steps of a part; answers are slowed down by reading them slowly.
 * @module
 */
import type { Clock } from '../environment.ts'
import type { Send } from './types.ts'

/** How fast content may go, over all transfers. */
export interface RateLimits {
  /** Bytes per second; absent: no limit. */
  readonly up?: number
  readonly down?: number
}

/** Limits from a time of day on, until the next entry. */
export interface RateEntry extends RateLimits {
  /** Since midnight, local time. */
  readonly minute: number
  /** 0 is Sunday. Absent: every day. */
  readonly day?: number
}

/** Limits, or a timetable of them with at least one entry. */
export type RatePlan = RateLimits | readonly RateEntry[]

const DAY = 24 * 60
const WEEK = 7 * DAY

const isTimetable = (plan: RatePlan): plan is readonly RateEntry[] => Array.isArray(plan)

/**
 * The limits in force: of a timetable, those of the entry whose time came last.
 *
 * @param now - Milliseconds since the epoch.
 */
export function limitsAt(plan: RatePlan, now: number): RateLimits {
  if (!isTimetable(plan)) return plan
  const date = new Date(now)
  const minute = date.getHours() * 60 + date.getMinutes()
  const ageOf = (entry: RateEntry) =>
    entry.day === undefined
      ? (minute - entry.minute + DAY) % DAY
      : ((date.getDay() - entry.day) * DAY + minute - entry.minute + WEEK) % WEEK
  let latest: { age: number; entry: RateEntry } | undefined
  for (const entry of plan) {
    const age = ageOf(entry)
    // At the same time, what is for this day goes before what is for every day.
    const isNewer = latest === undefined || age < latest.age || (age === latest.age && entry.day !== undefined)
    if (isNewer) latest = { age, entry }
  }
  return latest?.entry ?? {}
}

/** Bytes that may go at once after a pause, as time. */
const BURST_MS = 250
const MINUTE_MS = 60_000

/** Hands out time: who takes bytes waits until those taken before have had theirs, at the rates of that time. */
function createPace(plan: RatePlan, side: 'up' | 'down', clock: Clock) {
  /** Bytes handed out, and how many of them have had their time. */
  let taken = 0
  let paid = 0
  let settledAt = clock.monotonic()
  let rate = limitsAt(plan, clock.now())[side]
  const settle = () => {
    const now = clock.monotonic()
    if (rate === undefined) paid = taken
    else paid = Math.min(paid + ((now - settledAt) * rate) / 1_000, taken + (rate * BURST_MS) / 1_000)
    settledAt = now
    rate = limitsAt(plan, clock.now())[side]
  }
  return async (bytes: number, signal: AbortSignal | undefined): Promise<void> => {
    settle()
    const before = taken
    taken += bytes
    // Less than a byte is what is left of rounding.
    while (rate !== undefined && before - paid >= 1) {
      const wait = ((before - paid) * 1_000) / rate
      // Entries begin with a minute.
      const untilChange = isTimetable(plan) ? MINUTE_MS - (clock.now() % MINUTE_MS) : Number.POSITIVE_INFINITY
      await clock.sleep(Math.min(wait, untilChange), signal)
      settle()
    }
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
export function withRate(send: Send, plan: RatePlan, clock: Clock): Send {
  const [up, down] = (['up', 'down'] as const).map((side) => {
    const isLimited = isTimetable(plan) ? plan.some((entry) => entry[side] !== undefined) : plan[side] !== undefined
    return isLimited ? createPace(plan, side, clock) : undefined
  })
  if (up === undefined && down === undefined) return send
  return async (request) => {
    if (request.body !== undefined) await up?.(request.body.length, request.signal)
    const response = await send(request)
    if (response.stream === undefined || down === undefined) return response
    return { ...response, stream: paced(response.stream, down, request.signal) }
  }
}
