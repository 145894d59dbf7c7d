/**
 * Requests of the page: only to the places of its configuration, without cookies, redirects and referrer, answers bounded; and going
 * on after the network was away.
 * @module
 */
import type { Config } from './config.ts'
import { asFailure, Failure, type FailureCode } from './failure.ts'

const MAX_JSON = 16 * 1024 * 1024
const MAX_ERROR = 64 * 1024

export interface Ask {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly json?: unknown
  readonly body?: Uint8Array
  readonly headers?: Readonly<Record<string, string>>
  readonly signal: AbortSignal
}

const CODES: Readonly<Record<number, FailureCode>> = {
  [-20501]: 'GONE',
  [-20503]: 'GONE',
  [-40000]: 'GONE',
  [-40200]: 'QUOTA',
  [-40751]: 'GONE',
  [-40755]: 'NAME_REFUSED',
  [-40761]: 'NOT_READY',
  [-40763]: 'MEMBERS_CHANGED',
  [-41000]: 'GONE',
  [-50000]: 'GONE',
  [-50001]: 'REPLACED',
  [-50002]: 'USED_UP',
  [-50009]: 'PASSWORD_WRONG',
  [-50501]: 'GONE',
  [-50502]: 'PASSWORD_WRONG',
  [-50504]: 'FULL',
  [-50505]: 'NO_RECIPIENTS',
  [-50506]: 'FULL',
  [-51000]: 'LOCKED',
  [-70501]: 'MEMBERS_CHANGED',
  [-80037]: 'TOO_LARGE',
  [-80062]: 'MEMBERS_CHANGED',
  [-90034]: 'GONE',
  [-90200]: 'QUOTA',
  [-90201]: 'QUOTA',
}

const PASSING = new Set([408, 425, 429, 500, 502, 503, 504])
/** Longer than this nobody is kept waiting without being asked. */
const MAX_WAIT_MS = 120_000

export const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined

/** Text of an answer, as far as it is not longer than it may be. */
async function textOf(response: Response, limit: number): Promise<string> {
  const reader = response.body?.getReader()
  const chunks: Uint8Array<ArrayBuffer>[] = []
  let size = 0
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined }
    if (done) return new Blob(chunks).text()
    size += value.length
    if (size > limit) {
      await reader?.cancel()
      throw new Failure('ANSWER', 'The answer is too long')
    }
    chunks.push(value)
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Failure('ANSWER', 'The answer is not JSON', { cause })
  }
}

/** The failure that an answer tells of. */
async function failureOf(response: Response): Promise<Failure> {
  const { status } = response
  const text = await textOf(response, MAX_ERROR).catch(() => '')
  let errorCode: number | undefined
  try {
    errorCode = numberOf((JSON.parse(text) as { errorCode?: unknown }).errorCode)
  } catch {
    // Not from the API itself; the status has to do.
  }
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retryAfterMs = seconds >= 0 ? seconds * 1000 : undefined
  const code = CODES[errorCode ?? 0] ?? (status === 404 ? 'GONE' : status === 507 ? 'QUOTA' : 'SERVER')
  const isPassing = PASSING.has(status)
  return new Failure(code, `The server answered with status ${status}`, { status, errorCode, isPassing, retryAfterMs })
}

const SILENCE_MS = 60_000

export class Network {
  readonly #config: Config
  readonly #hosts: ReadonlySet<string>

  constructor(config: Config) {
    this.#config = config
    this.#hosts = new Set([config.api, ...config.storage])
  }

  /** Address of something in the API. */
  api(path: string): string {
    return `${this.#config.api}/api/v4/public/shares${path}`
  }

  /**
   * Where an address leads that the server named, if that is a place of the configuration. The server itself is known by its name: behind
   * a proxy it does not know whether it is asked with TLS.
   */
  place(address: unknown): string | undefined {
    if (typeof address !== 'string' || address.length > 8192 || !URL.canParse(address)) return undefined
    const url = new URL(address)
    if (url.username !== '' || url.password !== '') return undefined
    if (this.#hosts.has(url.origin)) return url.href
    const api = new URL(this.#config.api)
    return url.host === api.host ? `${this.#config.api}${url.pathname}${url.search}` : undefined
  }

  /**
   * One request.
   *
   * @throws {Failure} for every answer but 2xx; `ELSEWHERE` before anything is sent to a place that is none of the configuration.
   */
  async ask(address: string, { method = 'GET', json, body, headers, signal }: Ask): Promise<Response> {
    if (!this.#hosts.has(new URL(address).origin)) throw new Failure('ELSEWHERE', 'An address leads to another place')
    signal.throwIfAborted()
    let response: Response
    try {
      response = await fetch(address, {
        method,
        headers: { ...(json === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
        ...(json === undefined && body === undefined
          ? {}
          : { body: json === undefined ? new Blob([body as Uint8Array<ArrayBuffer>]) : JSON.stringify(json) }),
        signal,
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'error',
        referrerPolicy: 'no-referrer',
      })
    } catch (cause) {
      signal.throwIfAborted()
      throw new Failure('UNREACHABLE', 'The server cannot be reached', { isPassing: true, cause })
    }
    if (response.ok) return response
    throw await failureOf(response)
  }

  /** One request of whose answer only the headers count; what else comes is read, so that the connection is free again. */
  async askHeaders(address: string, ask: Ask): Promise<Headers> {
    const response = await this.ask(address, ask)
    await textOf(response, MAX_ERROR).catch(() => '')
    return response.headers
  }

  /** One request whose answer is JSON, or empty. */
  async askJson(address: string, ask: Ask): Promise<Record<string, unknown>> {
    const response = await this.ask(address, ask)
    let text: string
    try {
      text = await textOf(response, MAX_JSON)
    } catch (cause) {
      ask.signal.throwIfAborted()
      throw cause instanceof Failure
        ? cause
        : new Failure('UNREACHABLE', 'The answer was cut', { isPassing: true, cause })
    }
    const json = text === '' ? {} : parse(text)
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new Failure('ANSWER', 'The answer is not an object')
    }
    return json as Record<string, unknown>
  }
}

/** Told when something is waited for, and with `undefined` when it goes on. */
export type OnWaiting = (why: 'offline' | 'server' | undefined) => void

const TRIES = 8
const FIRST_WAIT_MS = 500
/** Browsers tell workers when the network is back; not all, and not always. */
const OFFLINE_MS = 3000

/** Resolves after this time, or when the network comes back; rejects when aborted. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer)
      self.removeEventListener('online', done)
      signal.removeEventListener('abort', stop)
    }
    const done = (): void => {
      end()
      resolve()
    }
    const stop = (): void => {
      end()
      reject(signal.reason)
    }
    const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1))
    self.addEventListener('online', done)
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
  })
}

const jitter = (): number => globalThis.crypto.getRandomValues(new Uint8Array(1))[0]! / 255

/**
 * Does something until it works, as long as what stops it may pass: while the browser is offline, for as long as the person waits; else a
 * few times, with growing pauses. For what can be repeated.
 *
 * @param work - Given a function that says that there was progress, after which failures are counted from the beginning.
 */
export async function persist<T>(
  signal: AbortSignal,
  onWaiting: OnWaiting,
  work: (progress: () => void) => Promise<T>,
): Promise<T> {
  let failures = 0
  let isWaiting = false
  const tell = (why: 'offline' | 'server' | undefined): void => {
    if (why !== undefined || isWaiting) onWaiting(why)
    isWaiting = why !== undefined
  }
  const progress = (): void => {
    failures = 0
    tell(undefined)
  }
  for (;;) {
    try {
      const result = await work(progress)
      tell(undefined)
      return result
    } catch (error) {
      signal.throwIfAborted()
      const failure = asFailure(error)
      const { isPassing, retryAfterMs = 0 } = failure
      if (!isPassing || retryAfterMs > MAX_WAIT_MS) throw failure
      const isOffline = failure.code === 'UNREACHABLE' && !navigator.onLine
      if (!isOffline && ++failures >= TRIES) throw failure
      tell(isOffline ? 'offline' : 'server')
      const backoff = Math.min(30_000, FIRST_WAIT_MS * 2 ** Math.min(failures, 10)) * (0.5 + jitter() / 2)
      await pause(isOffline ? OFFLINE_MS : Math.max(backoff, retryAfterMs), signal)
    }
  }
}

/** Ends a wait that hears nothing for too long. */
export function withSilence(signal: AbortSignal): { signal: AbortSignal; heard(): void; end(): void } {
  const control = new AbortController()
  const stop = (): void => control.abort(signal.reason)
  signal.addEventListener('abort', stop)
  if (signal.aborted) stop()
  const silent = (): void => control.abort(new Failure('UNREACHABLE', 'The server is silent', { isPassing: true }))
  let timer = setTimeout(silent, SILENCE_MS)
  return {
    signal: control.signal,
    heard() {
      clearTimeout(timer)
      timer = setTimeout(silent, SILENCE_MS)
    },
    end() {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
    },
  }
}
