/**
 * The one `Send` that dials. How connections are made is in connect.ts, and which options there are in options.ts; here are
 * the requests: limits, timeouts, caps. Repeating is retry.ts.
 * @module
 */
import { Agent, type Dispatcher } from 'undici'
import { cancelled, SyncError } from '../errors.ts'
import { checkScheme, parseForeignUrl } from './addresses.ts'
import { createConnect } from './connect.ts'
import { wireError } from './failures.ts'
import { type DialerOptions, parseTransport, type Transport } from './options.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

export type { ClientCertificate, DialerOptions } from './options.ts'

const MAX_HEADERS = 32 * 1024
const MAX_URL = 8 * 1024

/**
 * Makes a dialer with its own connections. `close` lets them end.
 *
 * @throws {SyncError} class `usage` for options that cannot be used, all of them at once; see `parseTransport`.
 */
export function createDialer(options: DialerOptions = {}): { send: Send; close(): Promise<void> } {
  const transport = parseTransport(options)
  const agent = createAgent(transport)
  return { send: (request) => dial(agent, transport, request), close: () => agent.close() }
}

function createAgent(transport: Transport): Agent {
  const { keepAliveMs = 20_000 } = transport
  const connect = createConnect(transport)
  return new Agent({
    connections: transport.connections,
    // 0 asks the server to close after each answer.
    pipelining: keepAliveMs === 0 ? 0 : 1,
    keepAliveTimeout: Math.max(1, keepAliveMs),
    // A server may announce more time than was asked for here.
    ...(transport.keepAliveMs === undefined ? {} : { keepAliveMaxTimeout: Math.max(1, keepAliveMs) }),
    headersTimeout: transport.headersTimeoutMs,
    bodyTimeout: transport.bodyTimeoutMs,
    maxHeaderSize: MAX_HEADERS,
    connect: ({ protocol, host }, done) => {
      connect(new URL(`${protocol}//${host}`)).then(
        (socket) => done(null, socket),
        (error) => done(error, null),
      )
    },
  })
}

interface Deadline {
  readonly request: HttpRequest
  readonly end: () => void
}

/** Puts an end to the whole request, its body included; `end` must be called when it is over. */
function withDeadline(request: HttpRequest, totalTimeoutMs: number | undefined): Deadline {
  if (totalTimeoutMs === undefined) return { request, end: () => {} }
  const { signal } = request
  const stop = new AbortController()
  const forward = () => stop.abort(signal?.reason)
  const timer = setTimeout(() => stop.abort(tooLong(totalTimeoutMs)), totalTimeoutMs)
  signal?.addEventListener('abort', forward, { once: true })
  const end = () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', forward)
  }
  return { request: { ...request, signal: stop.signal }, end }
}

const tooLong = (ms: number) =>
  new SyncError('network', 'TIMEOUT_TOTAL', `The request took longer than ${ms} ms`, {
    hint: 'Check the network, or allow more with totalTimeoutMs.',
    retryable: true,
  })

async function dial(agent: Agent, transport: Transport, asked: HttpRequest): Promise<HttpResponse> {
  if (asked.signal?.aborted) throw cancelled(asked.signal)
  const url = parseForeignUrl(asked.url)
  checkScheme(url)
  if (url.href.length > MAX_URL) throw new SyncError('limit', 'URL_TOO_LONG', 'The URL is longer than 8 KiB')
  const { request, end } = withDeadline(asked, transport.totalTimeoutMs)
  let streams = false
  try {
    const answer = await ask(agent, transport, request, url)
    const headers = joined(answer)
    const status = answer.statusCode
    const ok = status >= 200 && status < 300
    const encoding = headers['content-encoding']
    if (encoding !== undefined && encoding !== 'identity') {
      // A body that is here already still says that it was cut off; nobody would listen.
      answer.body.on('error', () => {}).destroy()
      throw new SyncError('server', 'ENCODING_UNEXPECTED', 'The server sent an encoded body that nobody asked for')
    }
    streams = ok && request.stream === true
    if (streams) {
      return { status, headers, body: new Uint8Array(0), stream: readStream(answer.body, request, transport, end) }
    }
    return { status, headers, body: await readBody(answer.body, request, transport, ok) }
  } finally {
    if (!streams) end()
  }
}

async function ask(agent: Agent, transport: Transport, request: HttpRequest, url: URL) {
  const { userAgent, headers, isOwn } = transport
  try {
    return await agent.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: request.method,
      headers: {
        'accept-encoding': 'identity',
        ...(userAgent === undefined ? {} : { 'user-agent': userAgent }),
        ...(isOwn(url.origin) ? headers : {}),
        ...request.headers,
      },
      body: request.body ?? null,
      signal: request.signal ?? null,
    })
  } catch (error) {
    throw wireError(error, request)
  }
}

/** Headers without a prototype, repeated ones joined. */
function joined(answer: Dispatcher.ResponseData): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(answer.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return headers
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

async function* readStream(
  body: Body,
  request: HttpRequest,
  { stallMs }: Transport,
  end: () => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* flowing(body, stallMs)
  } catch (error) {
    throw wireError(error, request)
  } finally {
    end()
    body.destroy()
  }
}

async function readBody(body: Body, request: HttpRequest, transport: Transport, strict: boolean): Promise<Uint8Array> {
  const limit = strict ? transport.maxBodyBytes : transport.maxErrorBytes
  const chunks: Uint8Array[] = []
  let length = 0
  try {
    for await (const chunk of flowing(body, transport.stallMs)) {
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
  return (chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)).subarray(0, limit)
}
