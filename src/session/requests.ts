/**
 * The convenient calls of a session: URL and query from parts, JSON in and out, and a typed error for every answer that is
 * not a success. What is sent and judged is session.ts's business.
 * @module
 */
import { type ErrorClass, SyncError, type SyncErrorCode } from '../errors.ts'
import { describedBy } from '../http/answer-details.ts'
import { retryAfterMs } from '../http/retry.ts'
import { pathTemplate as template } from '../http/trace.ts'
import type { HttpRequest, HttpResponse, Send } from '../http/types.ts'

type QueryValue = string | number | boolean | bigint | null | undefined

/** How one call goes. */
export interface CallOptions {
  /** Appended to the path's own query. Arrays repeat the name; `undefined` is left out, `null` becomes empty. */
  readonly query?: Readonly<Record<string, QueryValue | readonly QueryValue[]>>
  /** Sent as JSON. Only one of `json`, `form` and `body`. */
  readonly json?: unknown
  /** Sent as a form (application/x-www-form-urlencoded). */
  readonly form?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
  /** Further headers; never `authorization`, which is the session's. */
  readonly headers?: Readonly<Record<string, string>>
  /** False: a public call, without a login. */
  readonly auth?: boolean
  /** May be repeated although its method is not idempotent (RFC 9110 §9.2.2). */
  readonly repeatable?: boolean
  readonly signal?: AbortSignal
}

/** Calls by method, with JSON both ways. */
export interface Requests {
  /** The parsed JSON of the answer; `undefined` for an empty one (204). */
  get(path: string, options?: CallOptions): Promise<unknown>
  post(path: string, options?: CallOptions): Promise<unknown>
  put(path: string, options?: CallOptions): Promise<unknown>
  patch(path: string, options?: CallOptions): Promise<unknown>
  delete(path: string, options?: CallOptions): Promise<unknown>
  /** Any status, and the bytes as they came. */
  raw(method: HttpRequest['method'], path: string, options?: CallOptions): Promise<HttpResponse>
}

const misuse = (code: SyncErrorCode, message: string) => new SyncError('usage', code, message)

function addQuery(url: URL, query: CallOptions['query'] = {}): void {
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) url.searchParams.append(name, one === null ? '' : String(one))
    }
  }
}

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/

function checkHeaders(headers: Readonly<Record<string, string>> = {}): Record<string, string> {
  const checked: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(headers)) {
    const lower = name.toLowerCase()
    if (lower === 'authorization' || lower === 'proxy-authorization' || lower === 'cookie') {
      throw misuse('HEADER_FORBIDDEN', `The header ${lower} belongs to the session`)
    }
    // A line end would start another header (RFC 9110 §5.5).
    if (!HEADER_NAME.test(lower) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
      throw misuse('HEADER_INVALID', 'A header has a name or a value that cannot be sent')
    }
    checked[lower] = value
  }
  return checked
}

function encodeBody({ json, form, body }: CallOptions): { type?: string; bytes?: Uint8Array } {
  if ([json, form, body].filter((one) => one !== undefined).length > 1) {
    throw misuse('BODY_TWICE', 'A request has one body: json, form or body')
  }
  if (json !== undefined) return { type: 'application/json', bytes: Buffer.from(JSON.stringify(json)) }
  if (form !== undefined) {
    return { type: 'application/x-www-form-urlencoded', bytes: Buffer.from(new URLSearchParams(form).toString()) }
  }
  return body === undefined ? {} : { bytes: body }
}

const EXCERPT = 120

/** The beginning of an answer for a message: what could be a secret, or move a cursor, is cut out. */
function excerpt(body: Uint8Array): string {
  const text = Buffer.from(body.subarray(0, 2_000)).toString('utf8').replace(/\s+/g, ' ')
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '?')
    .replace(/"[^"]*"?/g, '"[…]"')
    .replace(/=[^\s"<>&]+/g, '=[…]')
    .replace(/[\w.~+/=-]{16,}/g, '[…]')
    .slice(0, EXCERPT)
}

function parseBody({ body, headers }: HttpResponse, label: string): unknown {
  if (body.length === 0) return undefined
  try {
    return JSON.parse(Buffer.from(body).toString('utf8'))
  } catch {
    const type = (headers['content-type'] ?? 'no type').replace(/[^\x20-\x7e]/g, '?').slice(0, 60)
    throw new SyncError('server', 'ANSWER_NOT_JSON', `The answer to ${label} is not JSON (${type}): ${excerpt(body)}`, {
      hint: 'A proxy or the login page of a network may stand in between.',
    })
  }
}

const MEANINGS: Readonly<Record<number, readonly [ErrorClass, SyncErrorCode, string]>> = Object.freeze({
  400: ['usage', 'BAD_REQUEST', 'was not understood'],
  401: ['auth', 'LOGIN_NEEDED', 'needs a login'],
  403: ['permission', 'FORBIDDEN', 'is not permitted'],
  404: ['not_found', 'NOT_FOUND', 'found nothing there'],
  409: ['conflict', 'CONFLICT', 'conflicts with what is there'],
  410: ['not_found', 'GONE', 'found nothing there any more'],
  413: ['limit', 'TOO_LARGE', 'sent more than the server takes'],
  429: ['rate_limit', 'RATE_LIMITED', 'came too often'],
  460: ['not_found', 'GONE', 'found nothing there any more'],
  507: ['quota', 'QUOTA', 'found no space left'],
})

const LOGIN_HINT = 'Log in again: sync login URL'

/** The error of an answer that is no success. The body is data and stays out of the message. */
function failure(response: HttpResponse, label: string, now: number): SyncError {
  const { status } = response
  const [kind, code, text] = MEANINGS[status] ?? ['server', 'SERVER', 'failed at the server']
  const retryAfter = retryAfterMs(response.headers, now)
  return new SyncError(kind, code, `${label} ${text} (${status})`, {
    status,
    retryable: status === 429 || status >= 500,
    ...(code === 'LOGIN_NEEDED' ? { hint: LOGIN_HINT } : {}),
    ...(retryAfter === undefined ? {} : { retryAfterMs: retryAfter }),
  })
}

/**
 * Makes the calls.
 *
 * @param base - Paths are below it: `https://HOST`, or `https://HOST/1.0`.
 */
export function createRequests(
  base: string,
  send: Send,
  sendPlain: Send,
  now: () => number,
  secrets: readonly string[] = [],
): Requests {
  const prefix = base.replace(/\/+$/, '')

  async function raw(method: HttpRequest['method'], path: string, options: CallOptions = {}): Promise<HttpResponse> {
    if (!path.startsWith('/')) throw misuse('PATH_INVALID', 'A path starts with a slash')
    const url = new URL(prefix + path) // with the slash, no path can lead to another host
    addQuery(url, options.query)
    const { type, bytes } = encodeBody(options)
    const request: HttpRequest = {
      method,
      url: url.href,
      label: template(url.pathname),
      headers: {
        accept: 'application/json',
        ...(type === undefined ? {} : { 'content-type': type }),
        ...checkHeaders(options.headers),
      },
      ...(bytes === undefined ? {} : { body: bytes }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.repeatable === undefined ? {} : { repeatable: options.repeatable }),
    }
    return (options.auth === false ? sendPlain : send)(request)
  }

  const json = (method: HttpRequest['method']) => async (path: string, options?: CallOptions) => {
    const response = await raw(method, path, options)
    const label = `${method} ${template(path)}`
    try {
      if (response.status >= 200 && response.status < 300) return parseBody(response, label)
      throw failure(response, label, now())
    } catch (error) {
      throw describedBy(error, response, secrets)
    }
  }
  return {
    get: json('GET'),
    post: json('POST'),
    put: json('PUT'),
    patch: json('PATCH'),
    delete: json('DELETE'),
    raw,
  }
}
