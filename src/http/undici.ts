/**
 * The one `Send` that dials. How connections are made is in connect.ts, and which options there are in options.ts; here are
 * the requests: limits, timeouts, caps. Repeating is retry.ts.
 * @module
 */
import type { Readable } from 'node:stream'
import pLimit from 'p-limit'
import { Agent } from 'undici'
import { cancelled, SyncError } from '../errors.ts'
import { checkScheme, parseForeignUrl } from './addresses.ts'
import { type Connect, createConnect } from './connect.ts'
import { wireError } from './failures.ts'
import type { LargeBodySender } from './large-body.ts'
import { type DialerOptions, parseTransport, type Transport } from './options.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

export type { ClientCertificate, DialerOptions } from './options.ts'

/** Bytes; bodies from there on are sent by large-body.ts. */
const LARGE_BODY = 1024 * 1024
const MAX_HEADERS = 32 * 1024
const MAX_URL = 8 * 1024

/**
 * Makes a dialer with its own connections. `close` lets them end.
 *
 * @throws {SyncError} class `usage` for options that cannot be used, all of them at once; see `parseTransport`.
 */
export function createDialer(options: DialerOptions = {}): { send: Send; close(): Promise<void> } {
  const transport = parseTransport(options)
  const connect = createConnect(transport)
  const agent = createAgent(transport, connect)
  const limit = pLimit(transport.connections)
  let largeBodies: Promise<LargeBodySender> | undefined
  const client: Client = {
    agent,
    transport,
    // Loaded when it is needed: most runs send nothing large.
    largeBodies: () =>
      (largeBodies ??= import('./large-body.ts').then((module) =>
        module.createLargeBodySender(transport, connect, MAX_HEADERS),
      )),
  }
  return {
    send: (request) => {
      const isLarge = (request.body?.length ?? 0) >= LARGE_BODY
      return isLarge ? limit(() => dial(client, request)) : dial(client, request)
    },
    async close() {
      await agent.close()
      await largeBodies?.then((sender) => sender.close())
    },
  }
}

interface Client {
  readonly agent: Agent
  readonly transport: Transport
  readonly largeBodies: () => Promise<LargeBodySender>
}

function createAgent(transport: Transport, connect: Connect): Agent {
  const { keepAliveMs = 20_000 } = transport
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

async function dial(client: Client, asked: HttpRequest): Promise<HttpResponse> {
  if (asked.signal?.aborted) throw cancelled(asked.signal)
  const url = parseForeignUrl(asked.url)
  checkScheme(url)
  if (url.href.length > MAX_URL) throw new SyncError('limit', 'URL_TOO_LONG', 'The URL is longer than 8 KiB')
  const { transport } = client
  const { request, end } = withDeadline(asked, transport.totalTimeoutMs)
  let streams = false
  try {
    const { status, headers, body } = await ask(client, request, url)
    const ok = status >= 200 && status < 300
    const encoding = headers['content-encoding']
    if (encoding !== undefined && encoding !== 'identity') {
      // A body that is here already still says that it was cut off; nobody would listen.
      body.on('error', () => {}).destroy()
      throw new SyncError('server', 'ENCODING_UNEXPECTED', 'The server sent an encoded body that nobody asked for')
    }
    streams = ok && request.stream === true
    if (streams) {
      return { status, headers, body: new Uint8Array(0), stream: readStream(body, request, transport, end) }
    }
    return { status, headers, body: await readBody(body, request, transport, ok) }
  } finally {
    if (!streams) end()
  }
}

interface Answer {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: Readable
}

async function ask({ agent, transport, largeBodies }: Client, request: HttpRequest, url: URL): Promise<Answer> {
  const { userAgent, headers, isOwn } = transport
  const { method, body = null, signal = null } = request
  const sent = {
    'accept-encoding': 'identity',
    ...(userAgent === undefined ? {} : { 'user-agent': userAgent }),
    ...(isOwn(url.origin) ? headers : {}),
    ...request.headers,
  }
  try {
    if (body !== null && body.length >= LARGE_BODY) {
      const answer = await (await largeBodies()).send(request, body, sent, url)
      return { status: answer.statusCode!, headers: joined(answer.headersDistinct), body: answer }
    }
    const path = url.pathname + url.search
    const answer = await agent.request({ origin: url.origin, path, method, headers: sent, body, signal })
    return { status: answer.statusCode, headers: joined(answer.headers), body: answer.body }
  } catch (error) {
    throw wireError(error, request)
  }
}

/** Headers without a prototype, repeated ones joined. */
function joined(received: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(received)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return headers
}

/** The chunks of a body, unless it trickles: only time spent waiting for the server counts, not what the reader takes. */
async function* flowing(body: Readable, stallMs: number): AsyncGenerator<Uint8Array> {
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
  body: Readable,
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

async function readBody(
  body: Readable,
  request: HttpRequest,
  transport: Transport,
  strict: boolean,
): Promise<Uint8Array> {
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
