/**
 * Between node:http and the handlers: Host check, routing, faults, recording, errors to answers, streaming with
 * back-pressure. What the routes do is not its concern.
 * @module
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type AccessEntry, safePath } from './access-log.ts'
import { type App, Call, type Handler, type Reply } from './call.ts'
import type { Connections, WatchedBody } from './connections.ts'
import { ApiError, OAuthError, StorageError } from './errors.ts'
import type { FaultAction, FaultPlan } from './faults.ts'
import type { Proxies } from './proxies.ts'
import type { Rates } from './rates.ts'
import type { RecordedRequest, Recorder } from './recorder.ts'
import type { Router } from './router.ts'

const MAX_URL = 16 * 1024

export interface PlumbingOptions {
  app: App
  router: Router<Handler>
  scheme: 'http' | 'https'
  isHostAllowed(host: string): boolean
  connections: Connections
  faults: FaultPlan
  recorder: Recorder | undefined
  onError: ((error: unknown) => void) | undefined
  proxies: Proxies
  rates: Rates | undefined
  /** True when the server is about to stop: connections end with their answers. */
  isDraining(): boolean
  /** Told of each request when it is over. */
  onRequest(entry: AccessEntry): void
}

/** What becomes known of a request on its way. */
interface Trace {
  route?: string
  call?: Call
  status?: number
  bytesIn: number
  bytesOut: number
}

/** Raised when a fault destroyed the connection: there is nobody to answer. */
class Cut extends Error {}

export interface Listener {
  (req: IncomingMessage, res: ServerResponse): void
  /** Resolves when nothing works on a request any more; a client that went away does not end that at once. */
  idle(): Promise<void>
  /** Requests that are worked on. */
  underWay(): number
}

/** The listener for a node:http server. */
export function createListener(options: PlumbingOptions): Listener {
  let requests = 0
  const underWay = new Set<Promise<void>>()
  const listener = (req: IncomingMessage, res: ServerResponse): void => {
    const record: RecordedRequest | undefined = options.recorder && {
      id: ++requests,
      method: req.method ?? '',
      path: req.url ?? '',
      headers: withoutAuthorization(req.headers),
    }
    if (record !== undefined) options.recorder?.onRequest?.(record)
    // Without a listener, a client that goes away in the middle would end the process.
    req.on('error', () => undefined)
    res.on('error', () => undefined)
    res.on('close', options.connections.request(req))
    const trace: Trace = { bytesIn: 0, bytesOut: 0 }
    const begun = performance.now()
    const work = serve(options, req, res, record, trace)
      .catch((error: unknown) => {
        if (!res.destroyed && isNews(error)) options.onError?.(error)
        res.destroy()
      })
      .finally(() => {
        underWay.delete(work)
        tell(options, req, trace, performance.now() - begun)
      })
    underWay.add(work)
  }
  const idle = async (): Promise<void> => {
    while (underWay.size > 0) await Promise.all(underWay)
  }
  return Object.assign(listener, { idle, underWay: () => underWay.size })
}

function tell(options: PlumbingOptions, req: IncomingMessage, trace: Trace, ms: number): void {
  const { route, call, status = 499, bytesIn, bytesOut } = trace
  const [path = ''] = (req.url ?? '').split('?', 1)
  const agent = req.headers['user-agent']
  const user = call?.resolvedUser
  try {
    options.onRequest({
      time: options.app.now(),
      address: options.proxies.originOf(req).address,
      ...(user === undefined ? {} : { user: user.id }),
      method: req.method ?? '',
      ...(route === undefined ? {} : { route }),
      path: safePath(route, path),
      status,
      ms: Math.round(ms * 10) / 10,
      bytesIn,
      bytesOut,
      ...(agent === undefined ? {} : { agent: agent.slice(0, 200) }),
    })
  } catch (error) {
    options.onError?.(error)
  }
}

/** A cause is what the operator should know and the client need not. */
const isNews = (error: unknown): boolean => !(error instanceof ApiError) || error.cause !== undefined

function withoutAuthorization(headers: IncomingMessage['headers']): IncomingMessage['headers'] {
  const { authorization: _secret, ...rest } = headers
  return rest
}

async function serve(
  options: PlumbingOptions,
  req: IncomingMessage,
  res: ServerResponse,
  record: RecordedRequest | undefined,
  trace: Trace,
): Promise<void> {
  const url = req.url ?? '/'
  const mark = url.indexOf('?')
  const path = mark === -1 ? url : url.slice(0, mark)
  const method = req.method ?? 'GET'
  const fault = options.faults.take(method, path)
  let watch: WatchedBody | undefined
  let reply: Reply
  try {
    watch = options.connections.body(req)
    const body = bodyOf(req, watch, fault, record, options.recorder, trace)
    if (fault !== undefined) await keepWaiting(fault, options.faults, res)
    reply =
      (await interfere(fault, body)) ?? (await answer(options, req, { method, path, url, mark, body, watch, trace }))
  } catch (error) {
    if (error instanceof Cut || res.destroyed || req.socket.destroyed) {
      res.destroy()
      return
    }
    reply = errorReply(error)
    if ((reply.status >= 500 || reply.status === 410) && isNews(error)) options.onError?.(error)
  } finally {
    watch?.end()
  }
  if (fault !== undefined && 'loseAnswer' in fault) {
    if (reply.stream !== undefined) await dispose(reply.stream)
    res.destroy()
    return
  }
  if (isPublic(path)) reply = { ...reply, headers: { ...reply.headers, ...CORS } }
  if (options.isDraining()) res.shouldKeepAlive = false
  await send(res, method, distort(reply, fault), trace)
}

/** Pages of other origins may use links: there is no login that they could misuse. */
const isPublic = (path: string): boolean => path.startsWith('/api/v4/public/shares/') || path.startsWith('/s3/')

const CORS = Object.freeze({
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Expose-Headers':
    'Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Retry-After',
})

const PREFLIGHT: Reply = Object.freeze({
  status: 204,
  headers: {
    'Access-Control-Allow-Methods': 'GET, HEAD, POST, PUT, DELETE, OPTIONS',
    'Access-Control-Allow-Headers': 'Content-Type, Content-Range, Range, X-Sds-Date-Format, X-Sds-Share-Password',
    'Access-Control-Max-Age': '86400',
  },
})

/** Faults that keep a request waiting; it ends there if its client does not wait as long. */
async function keepWaiting(fault: FaultAction, faults: FaultPlan, res: ServerResponse): Promise<void> {
  const onGone = (gone: () => void): unknown => res.once('close', gone)
  if ('hold' in fault) await faults.hold(onGone)
  if ('delayMs' in fault) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, fault.delayMs)
      onGone(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
  if (res.destroyed) throw new Cut()
}

/** Faults that replace the answer; undefined lets the request go on. */
async function interfere(fault: FaultAction | undefined, body: AsyncIterable<Uint8Array>): Promise<Reply | undefined> {
  if (fault === undefined) return undefined
  if (!('status' in fault) && !('garbage' in fault)) return undefined
  // Read to the end, so that the recorder sees all that the client sent.
  for await (const _chunk of body);
  if ('garbage' in fault) {
    return { status: 200, headers: { 'Content-Type': 'text/html' }, body: '<!doctype html><title>Gateway</title>' }
  }
  return {
    status: fault.status,
    headers: { 'Content-Type': 'application/json', ...fault.headers },
    body: fault.body ?? JSON.stringify(new ApiError(fault.status).toBody()),
  }
}

async function answer(
  options: PlumbingOptions,
  req: IncomingMessage,
  request: {
    method: string
    path: string
    url: string
    mark: number
    body: AsyncIterable<Uint8Array>
    watch: WatchedBody
    trace: Trace
  },
): Promise<Reply> {
  const { proxies } = options
  const origin = proxies.originOf(req)
  const host = origin.host ?? req.headers.host ?? ''
  // Node keeps the first; something in front of this server may go by the other (RFC 9112 §3.2).
  if (req.rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host').length > 1) {
    throw new ApiError(400, undefined, 'More than one Host header', { Connection: 'close' })
  }
  if (!proxies.isProxy(req.socket) && options.scheme === 'http' && !proxies.mayComeDirectly(req.socket)) {
    throw new ApiError(403, undefined, 'This server is reached through its proxy', { Connection: 'close' })
  }
  // Whoever looks after the machine may not know its names, and gets to know nothing.
  const isProbe = request.path === '/healthz' || request.path === '/readyz'
  if (!isProbe && !options.isHostAllowed(host)) throw new ApiError(421, undefined, 'Host is not served here')
  if (request.url.length > MAX_URL) throw new ApiError(414, undefined, 'URL is too long')
  let path: string
  try {
    path = decodePath(request.path)
  } catch {
    throw new ApiError(400, undefined, 'Malformed path')
  }
  if (request.method === 'OPTIONS' && isPublic(request.path)) return PREFLIGHT
  const match = options.router.find(request.method, path)
  if (match === undefined) throw new ApiError(404, undefined, 'No such endpoint')
  if (match === 'method') throw new ApiError(405, undefined, 'Method is not allowed here')
  request.trace.route = match.pattern
  const call = new Call(options.app, {
    method: request.method,
    path,
    query: new URLSearchParams(request.mark === -1 ? '' : request.url.slice(request.mark + 1)),
    params: match.params,
    headers: req.headers,
    baseUrl: `${origin.scheme ?? options.scheme}://${host}`,
    address: origin.address,
    body: request.body,
    watch: request.watch,
  })
  request.trace.call = call
  if (options.rates !== undefined && !isProbe) {
    const user = call.knownUser
    options.rates.take(user === undefined ? call.address : `user ${user.id}`, performance.now())
  }
  return match.handler(call)
}

/** Percent-decoding by segment; an encoded slash must not make new segments. */
function decodePath(path: string): string {
  if (!path.includes('%')) return path
  return path
    .split('/')
    .map((segment) => {
      const decoded = decodeURIComponent(segment)
      if (decoded.includes('/')) throw new TypeError('Slash inside a segment')
      return decoded
    })
    .join('/')
}

async function* bodyOf(
  req: IncomingMessage,
  watch: WatchedBody,
  fault: FaultAction | undefined,
  record: RecordedRequest | undefined,
  recorder: Recorder | undefined,
  trace: Trace,
): AsyncGenerator<Uint8Array> {
  const cutAt = fault !== undefined && 'cutRequestAfterBytes' in fault ? fault.cutRequestAfterBytes : undefined
  let seen = 0
  if (cutAt === 0) {
    req.destroy()
    throw new Cut()
  }
  watch.isWaiting = true
  // Leaving early must not destroy the connection: an answer is still to be sent over it.
  for await (const chunk of req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    watch.received(chunk.length)
    trace.bytesIn += chunk.length
    const rest = cutAt === undefined ? chunk.length : cutAt - seen
    const kept = rest < chunk.length ? chunk.subarray(0, rest) : chunk
    seen += kept.length
    if (record !== undefined) recorder?.onBody?.(record, kept)
    if (cutAt !== undefined && seen >= cutAt) {
      req.destroy()
      throw new Cut()
    }
    watch.isWaiting = false
    yield kept
    watch.isWaiting = true
  }
  if (!req.complete) throw new Cut()
}

function errorReply(error: unknown): Reply {
  if (error instanceof ApiError) return { status: error.status, headers: error.headers, json: error.toBody() }
  if (error instanceof OAuthError) {
    return {
      status: error.status,
      headers: { 'Cache-Control': 'no-store', ...error.headers },
      json: { error: error.error, error_description: error.message },
    }
  }
  if (error instanceof StorageError) {
    const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${error.code}</Code><Message>${error.message}</Message></Error>`
    return { status: error.status, headers: { 'Content-Type': 'application/xml' }, body }
  }
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return errorReply(new ApiError(507, -90201, 'Exceeds the free disk space'))
  }
  return errorReply(new ApiError(500, undefined, 'Unexpected error'))
}

/** Applies faults that spoil the body of an answer. */
function distort(reply: Reply, fault: FaultAction | undefined): Reply & { cutAt?: number } {
  if (fault === undefined || !('flipByteAt' in fault || 'cutAfterBytes' in fault)) return reply
  const whole = bytesOf(reply)
  const stream = reply.stream ?? (whole === undefined ? undefined : once(whole))
  const headers = {
    ...contentType(reply),
    ...reply.headers,
    ...(whole === undefined ? {} : { 'Content-Length': whole.length }),
  }
  const { status } = reply
  if ('cutAfterBytes' in fault) {
    return { status, headers, cutAt: fault.cutAfterBytes, ...(stream === undefined ? {} : { stream }) }
  }
  return { status, headers, ...(stream === undefined ? {} : { stream: flip(stream, fault.flipByteAt) }) }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

async function* flip(source: AsyncIterable<Uint8Array>, at: number): AsyncGenerator<Uint8Array> {
  let offset = 0
  for await (const chunk of source) {
    if (at >= offset && at < offset + chunk.length) {
      const copy = Uint8Array.from(chunk)
      copy[at - offset] = (copy[at - offset] ?? 0) ^ 1
      yield copy
    } else yield chunk
    offset += chunk.length
  }
}

function bytesOf(reply: Reply): Uint8Array | undefined {
  if (reply.json !== undefined) return Buffer.from(JSON.stringify(reply.json))
  if (typeof reply.body === 'string') return Buffer.from(reply.body)
  return reply.body
}

function contentType(reply: Reply): Record<string, string> {
  return reply.json === undefined ? {} : { 'Content-Type': 'application/json' }
}

async function send(
  res: ServerResponse,
  method: string,
  reply: Reply & { cutAt?: number },
  trace: Trace,
): Promise<void> {
  const bytes = bytesOf(reply)
  trace.status = reply.status
  const bodyless = reply.status === 204 || reply.status === 304
  res.writeHead(reply.status, {
    ...contentType(reply),
    'X-Content-Type-Options': 'nosniff',
    ...(bodyless || reply.stream !== undefined ? {} : { 'Content-Length': bytes?.length ?? 0 }),
    ...reply.headers,
  })
  if (reply.stream === undefined || method === 'HEAD') {
    if (reply.stream !== undefined) await dispose(reply.stream)
    if (method !== 'HEAD') trace.bytesOut += bytes?.length ?? 0
    res.end(method === 'HEAD' ? undefined : bytes)
    return
  }
  let sent = 0
  for await (const chunk of reply.stream) {
    const rest = reply.cutAt === undefined ? chunk.length : reply.cutAt - sent
    const kept = rest < chunk.length ? chunk.subarray(0, Math.max(rest, 0)) : chunk
    sent += kept.length
    trace.bytesOut = sent
    if (res.destroyed) return
    if (kept.length > 0 && !res.write(kept)) await drained(res)
    if (reply.cutAt !== undefined && sent >= reply.cutAt) {
      await flushed(res)
      res.destroy()
      return
    }
  }
  res.end()
}

async function dispose(stream: AsyncIterable<Uint8Array>): Promise<void> {
  await stream[Symbol.asyncIterator]().return?.()
}

function drained(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      res.off('drain', done)
      res.off('close', done)
      resolve()
    }
    res.on('drain', done)
    res.on('close', done)
  })
}

/** Resolves when what was written has left for the network, so that a cut comes after it and not before. */
function flushed(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (res.destroyed) resolve()
    else {
      res.write('', () => resolve())
      res.once('close', () => resolve())
    }
  })
}
