/**
 * Repeating requests: one pure decision, full jitter, `Retry-After` as a floor for everybody, and a budget that ends an
 * outage early. No layer above loops over this one.
 * @module
 */
import type { Clock, Random } from '../environment.ts'
import { SyncError } from '../errors.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

const TRIES = 5
const BASE_MS = 500
const CAP_MS = 30_000
/** Longest wait a server may ask for. */
const MAX_RETRY_AFTER_MS = 300_000
const STATUSES = new Set([408, 425, 429, 500, 502, 503, 504])

/** RFC 9110 §9.2.2, and what the caller has declared. */
const isRepeatable = (request: HttpRequest) =>
  request.repeatable ?? (request.method === 'GET' || request.method === 'HEAD')

/**
 * Milliseconds of a `Retry-After` header (RFC 9110 §10.2.3): seconds, or a date measured with the answer's own `Date`.
 */
export function retryAfterMs(headers: Readonly<Record<string, string>>, now: number): number | undefined {
  const value = headers['retry-after']?.trim()
  if (value === undefined) return undefined
  if (/^\d+$/.test(value)) return Number(value) * 1000
  const at = Date.parse(value)
  if (Number.isNaN(at)) return undefined
  const base = Date.parse(headers.date ?? '')
  return Math.max(0, at - (Number.isNaN(base) ? now : base))
}

export interface Outcome {
  readonly status?: number
  readonly error?: unknown
  readonly retryAfterMs?: number | undefined
}

/**
 * How long to wait before the next try, or `undefined` when there is none. A 429 or 503 means that the server did nothing,
 * so those are repeated for every method.
 *
 * @param attempt - 1 for the first try that failed.
 * @param random - In [0, 1).
 */
export function retryDelay(
  attempt: number,
  request: HttpRequest,
  outcome: Outcome,
  random: number,
): number | undefined {
  if (attempt >= TRIES) return undefined
  if (outcome.error !== undefined) {
    if (!(outcome.error instanceof SyncError) || !outcome.error.retryable || !isRepeatable(request)) return undefined
  } else {
    const status = outcome.status!
    if (!STATUSES.has(status)) return undefined
    if (status !== 429 && !(status === 503 && request.repeatable !== false) && !isRepeatable(request)) return undefined
  }
  const floor = outcome.retryAfterMs ?? 0
  if (floor > MAX_RETRY_AFTER_MS) return undefined
  return floor + random * Math.min(CAP_MS, BASE_MS * 2 ** (attempt - 1))
}

export interface RetryOptions {
  readonly clock: Clock
  readonly random: Random
  onRetry?(event: { label: string; attempt: number; delayMs: number; reason: string; status?: number }): void
}

/** Wraps a `Send` with repeating. */
export type Retry = (send: Send) => Send

/** Makes a wrapper. All requests through what it wraps share the `Retry-After` gate and the budget. */
export function createRetry(options: RetryOptions): Retry {
  const { clock, random } = options
  let notBefore = 0
  let requests = 0
  let retries = 0
  return (send) => async (request) => {
    requests++
    for (let attempt = 1; ; attempt++) {
      // Once more after each wait: another request may have moved the gate meanwhile.
      for (let wait = notBefore - clock.monotonic(); wait > 0; wait = notBefore - clock.monotonic()) {
        await clock.sleep(wait, request.signal)
      }
      let response: HttpResponse | undefined
      let outcome: Outcome
      try {
        response = await send(request)
        outcome = { status: response.status, retryAfterMs: retryAfterMs(response.headers, clock.now()) }
      } catch (error) {
        outcome = { error }
      }
      if (response !== undefined && response.status < 400) return response
      const delayMs = retryDelay(attempt, request, outcome, random.next())
      // One request in ten, and a few to start with: in an outage everything fails, and waiting for all of it helps nobody.
      if (delayMs === undefined || retries >= 40 + requests / 10) {
        if (response !== undefined) return response
        throw outcome.error
      }
      retries++
      if (outcome.retryAfterMs !== undefined) notBefore = Math.max(notBefore, clock.monotonic() + outcome.retryAfterMs)
      const reason = outcome.error instanceof SyncError ? outcome.error.message : `status ${outcome.status}`
      const status = response === undefined ? {} : { status: response.status }
      options.onRetry?.({ label: request.label ?? request.method, attempt, delayMs, reason, ...status })
      await clock.sleep(delayMs, request.signal)
    }
  }
}

export const withRetry = (send: Send, options: RetryOptions): Send => createRetry(options)(send)
