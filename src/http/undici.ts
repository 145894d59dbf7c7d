/**
 * The one `Send` that dials. How connections are made is in connect.ts, and which options there are in options.ts; here are
 * the requests: limits, timeouts, caps. Repeating is retry.ts.
 * @module
 */
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import pLimit from 'p-limit'
import { Agent, type Dispatcher } from 'undici'
import { cancelled, SyncError } from '../errors.ts'
import { checkScheme, parseForeignUrl } from './addresses.ts'
import { type Connect, createConnect } from './connect.ts'
import { wireError } from './failures.ts'
import type { createHttp2 } from './http2.ts'
import type { LargeBodySender } from './large-body.ts'
import { type DialerOptions, parseTransport, type Transport } from './options.ts'
import { withEnd } from './stream-end.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'
import {
  askWhole,
  checkEncoding,
  connectionIsFree,
  createInterimCheck,
  createStallCheck,
  ENCODINGS,
  isSuccess,
  joined,
  limitOf,
  tooLarge,
  wholeAnswer,
} from './whole-answer.ts'

export type { ClientCertificate, DialerOptions } from './options.ts'

/** Bytes; bodies from there on are sent by large-body.ts. */
const LARGE_BODY = 1024 * 1024
const MAX_HEADERS = 32 * 1024
const MAX_URL = 8 * 1024

/** Sends over its own connections. */
export interface Dialer {
  readonly send: Send
  /** Lets the connections end. */
  close(): Promise<void>
}

/**
 * Makes a dialer with its own connections. `close` lets them end.
 *
 * @throws {SyncError} class `usage` for options that cannot be used, all of them at once; see `parseTransport`.
 */
export function createDialer(options: DialerOptions = {}): Dialer {
  const transport = parseTransport(options)
  const connect = createConnect(transport)
  /** Connections that were made to ask for HTTP/2, by origin, for who takes what the server has instead. */
  const made = new Map<string, Socket>()
  const agent = createAgent(transport, (origin) => {
    const socket = made.get(origin.origin)
    made.delete(origin.origin)
    return socket === undefined || socket.destroyed ? connect(origin) : Promise.resolve(socket)
  })
  const limit = pLimit(transport.connections)
  let largeBodies: Promise<LargeBodySender> | undefined
  let http2: Promise<ReturnType<typeof createHttp2>> | undefined
  const client: Client = {
    agent,
    transport,
    // Loaded when it is asked for.
    async http2() {
      http2 ??= import('./http2.ts').then((module) =>
        module.createHttp2({
          transport,
          connect: (origin) => connect(origin, { http2: true }),
          agent,
          handOver: (origin, socket) => void made.set(origin, socket),
          maxHeaders: MAX_HEADERS,
        }),
      )
      return (await http2).dispatcher
    },
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
      await (await http2)?.close()
      await agent.close()
      for (const socket of made.values()) socket.destroy()
      await largeBodies?.then((sender) => sender.close())
    },
  }
}

interface Client {
  readonly agent: Agent
  readonly transport: Transport
  readonly http2: () => Promise<Dispatcher>
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

const unsendable = (code: 'HEADER_INVALID' | 'OPTION_INVALID', what: string) =>
  new SyncError('usage', code, `A request cannot be sent: ${what}`, {
    hint: 'This is a mistake of the program that makes the request; nothing was sent.',
  })

/** What HTTP cannot carry is a mistake of the caller's: to send it again would not help. */
function checkRequest({ method, body }: HttpRequest, headers: Readonly<Record<string, unknown>>, url: URL): void {
  if (typeof method !== 'string' || !/^[A-Za-z]{1,20}$/.test(method))
    throw unsendable('OPTION_INVALID', 'its method is none')
  if (body !== undefined && !(body instanceof Uint8Array)) throw unsendable('OPTION_INVALID', 'its body is not bytes')
  for (const [name, value] of Object.entries(headers)) {
    const isHeader = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)
    if (!isHeader || typeof value !== 'string' || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
      throw unsendable('HEADER_INVALID', 'a header has a name or a value that HTTP does not allow')
    }
    // The server that is connected to is the one that is meant.
    if (name.toLowerCase() === 'host' && value !== url.host)
      throw unsendable('HEADER_INVALID', 'its host is not that of its URL')
  }
}

async function dial(client: Client, asked: HttpRequest): Promise<HttpResponse> {
  if (asked.signal?.aborted) throw cancelled(asked.signal)
  const url = parseForeignUrl(asked.url)
  checkScheme(url)
  if (url.href.length > MAX_URL) throw new SyncError('limit', 'URL_TOO_LONG', 'The URL is longer than 8 KiB')
  const { agent, transport, largeBodies } = client
  const { userAgent, headers, isOwn, totalTimeoutMs, compression, http2 } = transport
  const { request, end } = withDeadline(asked, totalTimeoutMs)
  const { method, body = null, signal } = request
  const sent: Record<string, string> = {
    'accept-encoding': asked.stream !== true && compression && isOwn(url.origin) ? ENCODINGS : 'identity',
    ...(userAgent === undefined ? {} : { 'user-agent': userAgent }),
    ...(isOwn(url.origin) ? headers : {}),
    ...request.headers,
  }
  const what = { origin: url.origin, path: url.pathname + url.search, method, headers: sent, body }
  let streams = false
  try {
    checkRequest(request, sent, url)
    if (body !== null && body.length >= LARGE_BODY) {
      const answer = await (await largeBodies()).send(request, body, sent, url)
      return await read({ status: answer.statusCode!, headers: joined(answer.headersDistinct) }, answer, transport)
    }
    const dispatcher = http2 && url.protocol === 'https:' ? await client.http2() : agent
    if (request.stream !== true) return await askWhole(dispatcher, what, transport, request)
    const answer = await dispatcher.request({ ...what, signal: signal ?? null, onInfo: createInterimCheck() })
    const head = { status: answer.statusCode, headers: joined(answer.headers) }
    if (!isSuccess(head.status)) return await read(head, answer.body, transport)
    checkEncodingOf(head, answer.body, true)
    streams = true
    return { ...head, body: new Uint8Array(0), stream: readStream(answer.body, request, transport, end) }
  } catch (error) {
    throw wireError(error, request)
  } finally {
    if (!streams) end()
  }
}

type Head = Pick<HttpResponse, 'status' | 'headers'>

function checkEncodingOf({ headers }: Head, body: Readable, isContent = false): void {
  try {
    checkEncoding(headers, isContent)
  } catch (error) {
    // A body that is here already still says that it was cut off; nobody would listen.
    body.on('error', () => {}).destroy()
    throw error
  }
}

/** The chunks of a body, unless it trickles: only time spent waiting for the server counts, not what the reader takes. */
async function* flowing(body: Readable, stallMs: number): AsyncGenerator<Uint8Array> {
  const check = createStallCheck(stallMs)
  let since = performance.now()
  for await (const chunk of body) {
    check(performance.now() - since, (chunk as Uint8Array).length)
    yield chunk as Uint8Array
    since = performance.now()
  }
}

function readStream(body: Readable, request: HttpRequest, { stallMs }: Transport, end: () => void) {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    try {
      yield* flowing(body, stallMs)
      await connectionIsFree()
    } catch (error) {
      throw wireError(error, request)
    }
  }
  return withEnd(chunks(), () => {
    end()
    body.on('error', () => {}).destroy()
  })
}

/** Reads a body as `askWhole` does. */
async function read(head: Head, body: Readable, transport: Transport): Promise<HttpResponse> {
  checkEncodingOf(head, body)
  const limit = limitOf(head.status, transport)
  const chunks: Uint8Array[] = []
  let length = 0
  try {
    for await (const chunk of flowing(body, transport.stallMs)) {
      chunks.push(chunk)
      length += chunk.length
      if (length <= limit) continue
      if (!isSuccess(head.status)) break
      throw tooLarge(limit)
    }
  } finally {
    body.destroy()
  }
  return wholeAnswer(head, Buffer.concat(chunks), limit)
}
