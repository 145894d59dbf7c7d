/**
 * Repeating requests, for as long as patience lasts: one pure decision, jitter, `Retry-After` as a floor for everybody, and one
 * gate per server that lets a single request try while nothing gets through. No layer above loops over this one.
 * @module
 */
import type { Clock, Random } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import { codeOf, isUnsent } from './failures.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

/** How long a request is repeated, in milliseconds: longer than a server takes to start. */
export const RETRY_FOR_MS = 120_000
/** Failures of one request, while others get through, after which it is about the request and not about the server. */
const TRIES = 5
const BASE_MS = 500
const CAP_MS = 30_000
/** Longest pause between two tries of a server that is away. */
const AWAY_CAP_MS = 10_000
/** Longest wait a server may ask for. */
const MAX_RETRY_AFTER_MS = 300_000
/** Waiting that a person should be told of. */
const TOLD_AFTER_MS = 2_000
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

/** With full jitter at first; later with some time in any case, or bad luck with dice would make it a hammer. */
const backoff = (attempt: number, random: number, cap: number): number => {
  const window = Math.min(cap, BASE_MS * 2 ** Math.min(attempt - 1, 20))
  return attempt < TRIES ? random * window : (0.5 + random / 2) * window
}

/**
 * How long to wait before the next try, or `undefined` when there is none. A 429 or 503 means that the server did nothing, and
 * so does a connection that was never made: those are repeated for every method.
 *
 * @param attempt - 1 for the first try that failed.
 * @param random - In [0, 1).
 * @param leftMs - What is left of the patience; only a `Retry-After` may be longer. Default: more than enough.
 */
export function retryDelay(
  attempt: number,
  request: HttpRequest,
  outcome: Outcome,
  random: number,
  leftMs: number = Number.POSITIVE_INFINITY,
): number | undefined {
  if (leftMs <= 0) return undefined
  const { error } = outcome
  if (error !== undefined) {
    if (!(error instanceof SyncError) || !error.retryable) return undefined
    if (!isRepeatable(request) && !isUnsent(error)) return undefined
  } else {
    const status = outcome.status!
    if (!STATUSES.has(status)) return undefined
    if (status !== 429 && !(status === 503 && request.repeatable !== false) && !isRepeatable(request)) return undefined
  }
  const floor = outcome.retryAfterMs ?? 0
  if (floor > MAX_RETRY_AFTER_MS) return undefined
  return floor + Math.min(leftMs, backoff(attempt, random, error === undefined ? CAP_MS : AWAY_CAP_MS))
}

export interface RetryOptions {
  readonly clock: Clock
  readonly random: Random
  /** How long a request is repeated, in milliseconds; 0: not at all. Default 2 minutes. */
  readonly retryForMs?: number
  onRetry?(event: { label: string; attempt: number; delayMs: number; reason: string; status?: number }): void
  /** Told once for each time that a server is away. `leftMs`: how long it is waited for. */
  onWaiting?(event: { origin: string; reason: string; leftMs: number }): void
}

export interface RetryScope {
  /**
   * Only answers that say "later" (429, 503) are waited out, and connections that were never made, unless there is no such host:
   * for logins, which somebody counts.
   */
  readonly busyOnly?: boolean
}

/** Wraps a `Send` with repeating. */
export type Retry = (send: Send, scope?: RetryScope) => Send

/** What of a URL tells servers apart. */
const originOf = (url: string): string => url.slice(0, url.indexOf('/', 8))

/** What all requests to one server know of each other. */
interface Gate {
  /** Nobody sends before. */
  notBefore: number
  /** Requests that have failed since the last one that got through. */
  readonly failing: Set<object>
  /** When the first of those failed. */
  since: number
  /** Requests that got through. */
  successes: number
  /** While the server is away: tries so far, and whether one is under way or about to be. */
  tries: number
  isTrying: boolean
  /** Those that wait for the one that tries; `undefined`: it is their turn, or nobody has to wait any more. */
  readonly waiting: Set<(failure?: unknown) => void>
  isTold: boolean
}

const newGate = (): Gate => ({
  notBefore: 0,
  failing: new Set(),
  since: 0,
  successes: 0,
  tries: 0,
  isTrying: false,
  waiting: new Set(),
  isTold: false,
})

/** Two that fail with nothing in between are taken for the server; one alone may have a fault of its own. */
const isClosed = ({ failing }: Gate) => failing.size > 1

/** Wakes who waits longest, to try next. */
function passOn(gate: Gate): void {
  const [next] = gate.waiting
  gate.isTrying = next !== undefined
  next?.()
}

function wakeAll(gate: Gate, failure?: unknown): void {
  gate.isTrying = false
  for (const wake of [...gate.waiting]) wake(failure)
}

/** Makes a wrapper. All requests through what it wraps share the gates: one for each server. */
export function createRetry(options: RetryOptions): Retry {
  const { clock, random, retryForMs = RETRY_FOR_MS } = options
  const gates = new Map<string, Gate>()

  /** Waits until a request may be sent; true: it is the one that tries while the server is away. */
  async function enter(gate: Gate, signal: AbortSignal | undefined): Promise<boolean> {
    let isTrying = false
    if (isClosed(gate)) {
      if (gate.isTrying) await turnOf(gate, signal)
      if (isClosed(gate)) {
        gate.isTrying = true
        isTrying = true
      }
    }
    try {
      if (isTrying && gate.tries > 0) {
        const leftMs = Math.max(0, gate.since + retryForMs - clock.monotonic())
        const delayMs = Math.min(leftMs, backoff(gate.tries, random.next(), AWAY_CAP_MS))
        if (delayMs > 0) await clock.sleep(delayMs, signal)
      }
      // Once more after each wait: another request may have moved it meanwhile.
      for (let wait = gate.notBefore - clock.monotonic(); wait > 0; wait = gate.notBefore - clock.monotonic()) {
        await clock.sleep(wait, signal)
      }
    } catch (error) {
      if (isTrying) passOn(gate)
      throw error
    }
    return isTrying
  }

  function turnOf(gate: Gate, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void) => {
        gate.waiting.delete(wake)
        signal?.removeEventListener('abort', stop)
        how()
      }
      const wake = (failure?: unknown) => settle(() => (failure === undefined ? resolve() : reject(failure)))
      const stop = () => settle(() => reject(cancelled(signal!)))
      if (signal?.aborted) return reject(cancelled(signal))
      gate.waiting.add(wake)
      signal?.addEventListener('abort', stop, { once: true })
    })
  }

  function succeeded(gate: Gate): void {
    gate.successes++
    if (gate.failing.size === 0) return
    gate.failing.clear()
    gate.tries = 0
    gate.isTold = false
    wakeAll(gate)
  }

  return (send, { busyOnly = false } = {}) =>
    async (request) => {
      const origin = originOf(request.url)
      let gate = gates.get(origin)
      if (gate === undefined) {
        gate = newGate()
        gates.set(origin, gate)
      }
      /** When it failed first, how often others got through since it failed last, and how many got through by then. */
      const ticket = {}
      let since: number | undefined
      let unlucky = 1
      let before = 0
      /** What the server asked for takes nothing from the patience, up to a limit. */
      let asked = 0
      for (let attempt = 1; ; attempt++) {
        const mustWait = isClosed(gate) || gate.notBefore > clock.monotonic()
        const isTrying = mustWait && (await enter(gate, request.signal))
        let response: HttpResponse | undefined
        let outcome: Outcome
        try {
          response = await send(request)
          outcome = { status: response.status, retryAfterMs: retryAfterMs(response.headers, clock.now()) }
        } catch (error) {
          outcome = { error }
        }
        const isAway = isOutage(outcome)
        if (!isAway) {
          // Any other answer says that the server is there; a reason of our own says nothing about it.
          if (response !== undefined) succeeded(gate)
          else if (isTrying) passOn(gate)
          if (response === undefined) throw outcome.error
          if (response.status !== 429) return response
        }
        const now = clock.monotonic()
        if (outcome.retryAfterMs !== undefined && outcome.retryAfterMs <= MAX_RETRY_AFTER_MS) {
          gate.notBefore = Math.max(gate.notBefore, now + outcome.retryAfterMs)
        }
        if (isAway) {
          if (gate.failing.size === 0) gate.since = now
          gate.failing.add(ticket)
          if (since !== undefined && gate.successes > before && outcome.retryAfterMs === undefined) unlucky++
          before = gate.successes
        }
        since ??= now
        const begun = isAway && isClosed(gate) ? Math.min(since, gate.since) : since
        asked = Math.min(MAX_RETRY_AFTER_MS, asked + (outcome.retryAfterMs ?? 0))
        const leftMs = begun + retryForMs + asked - now
        const isOver = unlucky >= TRIES || (busyOnly && outcome.error !== undefined && !isComing(outcome.error))
        const delayMs = isOver ? undefined : retryDelay(attempt, request, outcome, random.next(), leftMs)
        if (isTrying && isAway) {
          gate.tries++
          // Nobody who waits has more patience left than who tries: the server is away for that long.
          if (leftMs <= 0) wakeAll(gate, awayError(outcome, request))
          else passOn(gate)
        } else if (isClosed(gate) && gate.tries === 0) {
          gate.tries = 1
        }
        if (delayMs === undefined) {
          if (response !== undefined) return response
          throw outcome.error
        }
        const reason = outcome.error instanceof SyncError ? outcome.error.message : `status ${outcome.status}`
        const status = response === undefined ? {} : { status: response.status }
        options.onRetry?.({ label: request.label ?? request.method, attempt, delayMs, reason, ...status })
        if (isAway && !gate.isTold && (isClosed(gate) || now + delayMs - since >= TOLD_AFTER_MS)) {
          gate.isTold = true
          options.onWaiting?.({ origin, reason, leftMs })
        }
        // While the server is away, the gate says when to go on.
        if (!isClosed(gate) || !isAway) await clock.sleep(delayMs, request.signal)
      }
    }
}

/** True for what may hit every request to this server alike. */
const isOutage = ({ error, status }: Outcome): boolean =>
  error === undefined
    ? STATUSES.has(status!) && status !== 429
    : error instanceof SyncError && error.class === 'network' && error.retryable

/** True for a server that is not there yet, under a name that somebody may have just typed. */
const isComing = (error: unknown): boolean =>
  isUnsent(error) && error instanceof SyncError && codeOf(error.cause) !== 'ENOTFOUND'

/** For those who were never sent. */
const awayError = ({ error, status }: Outcome, request: HttpRequest): unknown =>
  error ??
  new SyncError('server', 'SERVER', `The server does not answer ${request.label ?? request.method} (${status})`, {
    status: status!,
    retryable: true,
    hint: 'Try again later.',
  })

export const withRetry = (send: Send, options: RetryOptions): Send => createRetry(options)(send)
