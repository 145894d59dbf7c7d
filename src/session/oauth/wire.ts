/**
 * Lets oauth4webapi speak through a `Send`: the bytes and their limits are ours, the messages are the library's.
 * @module
 */
import * as oauth from 'oauth4webapi'
import { SyncError } from '../../errors.ts'
import { retryAfterMs } from '../../http/retry.ts'
import type { HttpRequest, HttpResponse } from '../../http/types.ts'
import type { AuthContext } from '../authorizer.ts'

export interface WireOptions {
  /** What is being done, for messages: `The login`. Given: 429 and 5xx become errors here, with their `Retry-After`. */
  readonly what?: string
  /** The request does the same when it arrives twice. */
  readonly repeatable?: boolean
  /** Gets the id token of the answer, unchecked. */
  readonly onIdToken?: (token: string) => void
}

/** The time for an answer that names none, and for one that names nonsense, in seconds. */
export const DEFAULT_LIFETIME_SECONDS = 300

/** Options for the library's request functions. Redirects come back as they are and are then refused (RFC 9700 §4.12). */
export function requestOptions(context: AuthContext, { what, repeatable, onIdToken }: WireOptions = {}) {
  return {
    [oauth.allowInsecureRequests]: true, // http is limited to loopback by the dialer
    [oauth.customFetch]: async (
      url: string,
      init: { method: string; headers: Record<string, string>; body?: unknown },
    ): Promise<Response> => {
      // Our dialler names the program; the library would name itself.
      const { 'user-agent': _library, ...headersWithoutAgent } = init.headers
      const request: HttpRequest = {
        method: init.method as HttpRequest['method'],
        url,
        headers: headersWithoutAgent,
        label: new URL(url).pathname,
        ...(init.body === undefined || init.body === null ? {} : { body: Buffer.from(String(init.body)) }),
        ...(context.signal === undefined ? {} : { signal: context.signal }),
        ...(repeatable === undefined ? {} : { repeatable }),
      }
      const answer = await context.send(request)
      if (what !== undefined) refuseBusy(answer, what, context)
      return toResponse(answer, onIdToken)
    },
  }
}

/** A 429 or 5xx says nothing about the login, only about the moment. */
function refuseBusy({ status, headers }: HttpResponse, what: string, { clock }: AuthContext): void {
  if (status !== 429 && status < 500) return
  const wait = retryAfterMs(headers, clock.now())
  const options = { status, retryable: true, ...(wait === undefined ? {} : { retryAfterMs: wait }) }
  if (status === 429) throw new SyncError('rate_limit', 'RATE_LIMITED', `${what}: too many tries`, options)
  throw new SyncError('server', 'SERVER', `${what} failed at the server (${status})`, options)
}

function toResponse({ status, headers, body }: HttpResponse, onIdToken: WireOptions['onIdToken']): Response {
  const bodyless = status === 204 || status === 205 || status === 304
  // With a challenge the library would not look at the body, which says more: `invalid_grant` or `invalid_client`.
  const { 'www-authenticate': _challenge, ...others } = headers
  // A `Response` cannot carry the made-up statuses that some proxies send.
  return new Response(bodyless ? null : tidy(body, onIdToken), { status: status > 599 ? 502 : status, headers: others })
}

const isPositive = (value: unknown): boolean =>
  (typeof value === 'number' || (typeof value === 'string' && value.trim() !== '')) &&
  Number.isFinite(Number(value)) &&
  Number(value) >= 0

/**
 * Puts right what would make the library refuse an otherwise good answer: durations that are texts or nonsense, and an id token,
 * which is for display only and is checked when somebody wants to see it.
 */
function tidy(body: Uint8Array, onIdToken: WireOptions['onIdToken']): Uint8Array<ArrayBuffer> {
  const bytes = body as Uint8Array<ArrayBuffer>
  let answer: unknown
  try {
    answer = JSON.parse(Buffer.from(body).toString('utf8'))
  } catch {
    return bytes
  }
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) return bytes
  const { expires_in: lifetime, interval, id_token: identity, ...rest } = answer as Record<string, unknown>
  if (typeof identity === 'string' && /^[\w-]{1,8000}\.[\w-]{1,8000}\.[\w-]{0,8000}$/.test(identity))
    onIdToken?.(identity)
  const isDevice = 'device_code' in rest
  return Buffer.from(
    JSON.stringify({
      ...rest,
      ...(isPositive(lifetime) ? { expires_in: Number(lifetime) } : {}),
      ...(isDevice && !(isPositive(lifetime) && Number(lifetime) > 0) ? { expires_in: DEFAULT_LIFETIME_SECONDS } : {}),
      ...(isPositive(interval) && Number(interval) > 0 ? { interval: Number(interval) } : {}),
    }),
  ) as Uint8Array<ArrayBuffer>
}
