/**
 * The one `Send` that dials. Connection limits, timeouts, address rules and the translation of failures live here; repeating
 * is retry.ts.
 * @module
 */
import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns'
import { isIP } from 'node:net'
import { rootCertificates } from 'node:tls'
import { Agent, type Dispatcher } from 'undici'
import { cancelled, SyncError, systemCode } from '../errors.ts'
import { checkScheme, hostOf, parseForeignUrl, type Reach, reachOf } from './addresses.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

/** Largest JSON answer read, in bytes; error answers are cut at 64 KiB. */
const MAX_BODY = 16 * 1024 * 1024
const MAX_ERROR_BODY = 64 * 1024
const MAX_HEADERS = 32 * 1024
const MAX_URL = 8 * 1024

export interface DialerOptions {
  /** Connections per origin. Default 16. */
  connections?: number
  connectTimeoutMs?: number
  headersTimeoutMs?: number
  /** Longest pause inside a body. */
  bodyTimeoutMs?: number
  /** Bodies that stay below 1 KiB/s over this much waiting count as stalled. Default 2 minutes. */
  stallMs?: number
  /** PEM of additional certificate authorities. */
  ca?: string[]
  userAgent?: string
  /** Addresses this dialer may connect to; checked on the address actually used. Default: all. */
  allow?: (reach: Reach) => boolean
}

const TLS_CODES = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/

const refused = (host: string) =>
  new SyncError('safety', 'ADDRESS_REFUSED', `Refusing to connect to ${host}: not a public address`, {
    hint: 'The server named a storage address inside a private network.',
  })

function codeOf(error: unknown): string {
  let at = error
  for (let depth = 0; at instanceof Error && depth < 5; depth++) {
    const code = systemCode(at)
    if (code !== undefined) return code
    at = at instanceof AggregateError ? at.errors[0] : at.cause
  }
  return 'UNKNOWN'
}

/** Turns a failure of the wire into one of ours. */
function wireError(error: unknown, request: HttpRequest): unknown {
  if (request.signal?.aborted) return cancelled(request.signal)
  if (error instanceof SyncError) return error
  if (error instanceof Error && error.cause instanceof SyncError) return error.cause
  const code = codeOf(error)
  const where = `${request.method} ${request.label ?? new URL(request.url).host}`
  if (TLS_CODES.test(code)) {
    return new SyncError('tls', 'TLS_FAILED', `No secure connection for ${where} (${code})`, {
      hint: 'Check the server name and certificate; a private authority is named with --ca-file.',
      cause: error,
    })
  }
  return new SyncError('network', 'NETWORK', `No answer to ${where} (${code})`, {
    hint: 'Check the address and the network, then run again.',
    retryable: true,
    cause: error,
  })
}

function connector(allow: (reach: Reach) => boolean) {
  return {
    lookup(
      host: string,
      options: LookupOptions,
      done: (error: Error | null, address: string | LookupAddress[], family?: number) => void,
    ): void {
      dnsLookup(host, { ...options, all: true }, (error, found) => {
        if (error) return done(error, [])
        const usable = found.filter(({ address }) => allow(reachOf(address)))
        if (usable.length === 0) return done(refused(host), [])
        if (options.all) done(null, usable)
        else done(null, usable[0]!.address, usable[0]!.family)
      })
    },
  }
}

/** Makes a dialer with its own connections. `close` lets them end. */
export function createDialer(options: DialerOptions = {}): { send: Send; close(): Promise<void> } {
  const allow = options.allow ?? (() => true)
  const agent = new Agent({
    connections: options.connections ?? 16,
    pipelining: 1,
    keepAliveTimeout: 20_000,
    headersTimeout: options.headersTimeoutMs ?? 60_000,
    bodyTimeout: options.bodyTimeoutMs ?? 60_000,
    maxHeaderSize: MAX_HEADERS,
    connect: {
      timeout: options.connectTimeoutMs ?? 10_000,
      ...connector(allow),
      ...(options.ca === undefined ? {} : { ca: [...rootCertificates, ...options.ca] }),
      minVersion: 'TLSv1.2',
      rejectUnauthorized: true,
    },
  })
  const config: Dialing = {
    agent,
    allow,
    userAgent: options.userAgent,
    stallMs: options.stallMs ?? 120_000,
    checked: new Set(),
  }
  return { send: (request) => dial(config, request), close: () => agent.close() }
}

interface Dialing {
  readonly agent: Agent
  readonly allow: (reach: Reach) => boolean
  readonly userAgent: string | undefined
  readonly stallMs: number
  /** Origins that passed: a run makes thousands of requests to a few. */
  readonly checked: Set<string>
}

/** A name is checked by its addresses, when they are looked up for a connection. */
function checkOrigin({ allow, checked }: Dialing, url: URL): void {
  if (checked.has(url.origin)) return
  checkScheme(url)
  const host = hostOf(url)
  if (isIP(host) !== 0 && !allow(reachOf(host))) throw refused(host)
  if (checked.size < 1_000) checked.add(url.origin)
}

async function dial(config: Dialing, request: HttpRequest): Promise<HttpResponse> {
  const { agent, userAgent, stallMs } = config
  if (request.signal?.aborted) throw cancelled(request.signal)
  const url = parseForeignUrl(request.url)
  checkOrigin(config, url)
  if (url.href.length > MAX_URL) throw new SyncError('limit', 'URL_TOO_LONG', 'The URL is longer than 8 KiB')
  let answer: Dispatcher.ResponseData
  try {
    answer = await agent.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: request.method,
      headers: {
        'accept-encoding': 'identity',
        ...(userAgent === undefined ? {} : { 'user-agent': userAgent }),
        ...request.headers,
      },
      body: request.body ?? null,
      signal: request.signal ?? null,
    })
  } catch (error) {
    throw wireError(error, request)
  }
  const headers: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(answer.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value
  }
  const status = answer.statusCode
  const ok = status >= 200 && status < 300
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') {
    answer.body.destroy()
    throw new SyncError('server', 'ENCODING_UNEXPECTED', `The server sent content encoding "${encoding}" unasked`)
  }
  if (ok && request.stream) {
    return { status, headers, body: new Uint8Array(0), stream: readStream(answer.body, request, stallMs) }
  }
  return { status, headers, body: await readBody(answer.body, request, stallMs, ok) }
}

type Body = Dispatcher.ResponseData['body']

/** The chunks of a body, unless it trickles: only time spent waiting for the server counts, not what the reader takes. */
async function* flowing(body: Body, stallMs: number): AsyncGenerator<Uint8Array> {
  let [waited, received, since] = [0, 0, performance.now()]
  for await (const chunk of body) {
    waited += performance.now() - since
    received += (chunk as Uint8Array).length
    if (waited > stallMs) {
      if (received < (stallMs / 1000) * 1024) throw stalled()
      ;[waited, received] = [0, 0]
    }
    yield chunk as Uint8Array
    since = performance.now()
  }
}

const stalled = () =>
  new SyncError('network', 'STALLED', 'The answer comes in too slowly', {
    hint: 'Check the network, then run again.',
    retryable: true,
  })

async function* readStream(body: Body, request: HttpRequest, stallMs: number): AsyncGenerator<Uint8Array> {
  try {
    yield* flowing(body, stallMs)
  } catch (error) {
    throw wireError(error, request)
  } finally {
    body.destroy()
  }
}

async function readBody(body: Body, request: HttpRequest, stallMs: number, strict: boolean): Promise<Uint8Array> {
  const limit = strict ? MAX_BODY : MAX_ERROR_BODY
  const chunks: Uint8Array[] = []
  let length = 0
  try {
    for await (const chunk of flowing(body, stallMs)) {
      chunks.push(chunk)
      length += chunk.length
      if (length <= limit) continue
      if (!strict) break
      throw new SyncError('server', 'ANSWER_TOO_LARGE', `The answer is longer than ${limit} bytes`)
    }
  } catch (error) {
    throw wireError(error, request)
  } finally {
    body.destroy()
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks).subarray(0, limit)
}
