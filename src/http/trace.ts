/**
 * Hooks that are told what goes over the wire: requests, answers, connections, TLS, repetitions. An allow-list: no bodies, no
 * queries, no ids in paths, and of headers the values of those that say nothing secret. A hook that fails changes nothing.
 * @module
 */
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { SyncError } from '../errors.ts'
import { requestIdOf } from './answer-details.ts'
import type { HttpRequest, Send } from './types.ts'

/** A request as it goes out. */
export interface RequestTrace {
  /** Counts from 1; a repetition has a number of its own. */
  readonly id: number
  readonly method: string
  readonly origin: string
  /** A path, ids in it as `{id}`, without its query. */
  readonly path: string
  /** Of the body. */
  readonly bytes: number
}

/** What became of a request. */
export interface ResponseTrace extends RequestTrace {
  /** Absent when there was no answer. */
  readonly status?: number
  /** Why there was none: a code of ours. */
  readonly error?: string
  /** From the request to the end of the answer; to its headers where it is read as a stream. */
  readonly ms: number
  /** Of the answer's body; absent where it is read as a stream. */
  readonly receivedBytes?: number
  /** Under which the server knows the request. */
  readonly requestId?: string
}

/** The headers of a request, or of the answer to it. */
export interface HeaderTrace {
  /** That of the request. */
  readonly id: number
  readonly direction: 'request' | 'response'
  /** Names in lower case; values that might be secret as `[…]`. */
  readonly headers: Readonly<Record<string, string>>
}

/** A connection that was made. */
export interface ConnectTrace {
  readonly origin: string
  /** The address that was connected to: of the proxy, where there is one. */
  readonly address?: string
  readonly port?: number
  readonly proxied: boolean
  /** TCP, proxy and TLS. */
  readonly ms: number
}

/** What was agreed on for a connection with TLS. */
export interface TlsTrace {
  readonly origin: string
  /** `TLSv1.3`. */
  readonly protocol: string
  readonly cipher: string
  /** What HTTP was agreed on (ALPN): `http/1.1`, `h2`; absent: nothing was said. */
  readonly alpn?: string
}

/** A request that is about to be sent again. */
export interface RetryTrace {
  readonly label: string
  readonly attempt: number
  readonly delayMs: number
  readonly reason: string
  readonly status?: number
}

/** Functions that are told what goes over the wire; those that are missing are not called. */
export interface TraceHooks {
  onRequest?(event: RequestTrace): void
  onResponse?(event: ResponseTrace): void
  onHeaders?(event: HeaderTrace): void
  onConnect?(event: ConnectTrace): void
  onTls?(event: TlsTrace): void
  onRetry?(event: RetryTrace): void
}

/** Tells a hook; what goes wrong in it is its own affair. */
export function tell<E>(hook: ((event: E) => unknown) | undefined, event: E): void {
  if (hook === undefined) return
  try {
    const result: unknown = hook(Object.freeze(event))
    if (result instanceof Promise) result.catch(() => {})
  } catch {}
}

/** A path without ids and values. */
export const pathTemplate = (path: string): string =>
  path.replace(/\?.*$/s, '').replace(/\/(\d+|[A-Za-z0-9_-]{20,})(?=\/|$)/g, '/{id}')

/** Hooks as one that tells them all. */
export function allHooks(hooks: readonly (TraceHooks | undefined)[]): TraceHooks {
  const there = hooks.filter((one) => one !== undefined)
  const each = <K extends keyof TraceHooks>(name: K) => {
    const told = there.filter((one) => one[name] !== undefined)
    if (told.length === 0) return {}
    // biome-ignore lint/suspicious/noExplicitAny: the event is that of its hook.
    return { [name]: (event: any) => told.forEach((one) => void tell((same) => one[name]?.(same), event)) }
  }
  return {
    ...each('onRequest'),
    ...each('onResponse'),
    ...each('onHeaders'),
    ...each('onConnect'),
    ...each('onTls'),
    ...each('onRetry'),
  }
}

/** Headers that say nothing secret. */
const HARMLESS: ReadonlySet<string> = new Set([
  'accept', 'accept-encoding', 'accept-ranges', 'age', 'allow', 'alt-svc', 'cache-control', 'connection', 'content-encoding',
  'content-length', 'content-range', 'content-type', 'date', 'expires', 'last-modified', 'pragma', 'range', 'retry-after', 'server',
  'strict-transport-security', 'trailer', 'transfer-encoding', 'upgrade', 'user-agent', 'vary', 'via', 'x-request-id',
]) // biome-ignore format: a list

const shownHeaders = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value]) => {
      const lower = name.toLowerCase()
      return [lower, HARMLESS.has(lower) ? value : '[…]']
    }),
  )

/** Wraps a `Send` with the hooks of requests and answers. */
export function withTrace(send: Send, hooks: TraceHooks, now: () => number): Send {
  if ([hooks.onRequest, hooks.onResponse, hooks.onHeaders].every((hook) => hook === undefined)) return send
  let count = 0
  return async (request: HttpRequest) => {
    const { origin, pathname } = new URL(request.url)
    const asked = {
      id: ++count,
      method: request.method,
      origin,
      path: pathTemplate(request.label?.startsWith('/') ? request.label : pathname),
      bytes: request.body?.length ?? 0,
    }
    const began = now()
    tell(hooks.onRequest, { ...asked })
    const tellHeaders = (direction: HeaderTrace['direction'], headers: HttpRequest['headers'] = {}) => {
      if (hooks.onHeaders !== undefined)
        tell(hooks.onHeaders, { id: asked.id, direction, headers: shownHeaders(headers) })
    }
    tellHeaders('request', request.headers)
    try {
      const response = await send(request)
      const requestId = requestIdOf(response.headers)
      tellHeaders('response', response.headers)
      tell(hooks.onResponse, {
        ...asked,
        status: response.status,
        ms: now() - began,
        ...(response.stream === undefined ? { receivedBytes: response.body.length } : {}),
        ...(requestId === undefined ? {} : { requestId }),
      })
      return response
    } catch (error) {
      const code = error instanceof SyncError ? error.code : 'CANCELLED'
      tell(hooks.onResponse, { ...asked, error: code, ms: now() - began })
      throw error
    }
  }
}

/** Tells of a connection that was made. */
export function traceSocket(hooks: TraceHooks, origin: string, socket: Socket, proxied: boolean, ms: number): void {
  const { remoteAddress: address, remotePort: port } = socket
  tell(hooks.onConnect, {
    origin,
    ...(address === undefined ? {} : { address }),
    ...(port === undefined ? {} : { port }),
    proxied,
    ms,
  })
  if (!(socket instanceof TLSSocket)) return
  const { alpnProtocol: alpn } = socket
  tell(hooks.onTls, {
    origin,
    protocol: socket.getProtocol() ?? 'unknown',
    cipher: socket.getCipher().name,
    ...(typeof alpn === 'string' ? { alpn } : {}),
  })
}
