/**
 * HTTP/2 (RFC 9113), where a server agrees to it in the handshake of TLS: requests side by side on one connection. A dispatcher, as
 * undici's agent is one, so limits, time-outs and reading are those of every other request. Loaded only when it is asked for.
 *
 * Written here because undici's own drops what is under way at a GOAWAY, never closes idle connections, and hears 1xx answers for ever.
 * What the protocol says was not processed (a refused stream, one beyond a GOAWAY) has an error of its own, so that it is sent again
 * whatever its method; nothing else is.
 * @module
 */
import { validateHeaderName, validateHeaderValue } from 'node:http'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { Dispatcher } from 'undici'
import { systemCode } from '../errors.ts'
import type { Connect } from './connect.ts'
import type { Transport } from './options.ts'

type Options = Dispatcher.DispatchOptions
type Handler = Dispatcher.DispatchHandler

const MiB = 1024 * 1024
/** Of one answer, and of all on a connection: what may be on its way to us unread. */
const STREAM_WINDOW = MiB
const CONNECTION_WINDOW = 4 * MiB
/** Of a connection, in MB: bodies of all requests at once, which are below 1 MiB, and the windows. */
const MAX_MEMORY = 128
/** Servers that were found to have no HTTP/2. */
const MAX_KNOWN = 100

/** Headers about a connection, of which there is only one here. */
const OF_CONNECTIONS = new Set(['connection', 'host', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade'])

const failed = (code: string, cause?: unknown) => Object.assign(new Error(`HTTP/2: ${code}`, { cause }), { code })

/** `NGHTTP2_REFUSED_STREAM` by its number. */
const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants).flatMap(([name, value]) =>
    /^NGHTTP2_(?!ERR_|FLAG_|HCAT_|NV_|SETTINGS_|DEFAULT_|STREAM_STATE|SESSION_)/.test(name) && typeof value === 'number'
      ? [[value, name.slice('NGHTTP2_'.length)] as const]
      : [],
  ),
)

/** One connection. */
interface Peer {
  readonly session: ClientHttp2Session
  /** Requests under way. */
  active: number
  /** False: those under way end, and no others begin. */
  isOpen: boolean
  /** The last request that the server has taken, once it said that it takes no more. */
  last: number | undefined
  idle: NodeJS.Timeout | undefined
}

/** What is known of one server. */
interface Server {
  readonly origin: string
  peer: Peer | undefined
  isConnecting: boolean
  readonly waiting: Waiting[]
}

interface Waiting {
  readonly options: Options
  readonly handler: Handler
}

export interface Http2Settings {
  readonly transport: Transport
  /** Offers both protocols. */
  readonly connect: Connect
  /** For servers without HTTP/2. */
  readonly agent: Dispatcher
  /** Gives away a connection that was made, and on which nothing was said. */
  readonly handOver: (origin: string, socket: Socket) => void
  /** Bytes of an answer's headers. */
  readonly maxHeaders: number
}

/** Headers as they are sent; those that HTTP does not allow are refused. */
function headersOf({ method, path, origin, headers }: Options): Record<string, string> {
  const sent: Record<string, string> = {
    ':method': method,
    ':scheme': 'https',
    ':authority': new URL(origin!).host,
    ':path': path,
  }
  for (const [name, value] of Object.entries(headers as Record<string, string>)) {
    const key = name.toLowerCase()
    if (OF_CONNECTIONS.has(key)) continue
    validateHeaderName(key)
    validateHeaderValue(key, value)
    sent[key] = value
  }
  return sent
}

/** The headers of an answer without those of the protocol, and their size. */
function receivedOf(given: IncomingHttpHeaders): { headers: Record<string, string | string[]>; bytes: number } {
  const headers: Record<string, string | string[]> = Object.create(null)
  let bytes = 0
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || name.startsWith(':')) continue
    headers[name] = value
    for (const one of Array.isArray(value) ? value : [value]) bytes += name.length + one.length + 4
  }
  return { headers, bytes }
}

/** What is under way, as its handler holds it. */
class Controller implements Dispatcher.DispatchController {
  paused = false
  reason: Error | null = null
  stream: ClientHttp2Stream | undefined
  constructor(
    readonly onAbort: (reason: Error) => void,
    readonly onPause: (isPaused: boolean) => void,
  ) {}

  get aborted(): boolean {
    return this.reason !== null
  }

  abort(reason: Error): void {
    if (this.aborted) return
    this.reason = reason
    this.onAbort(reason)
  }

  pause(): void {
    this.paused = true
    this.stream?.pause()
    this.onPause(true)
  }

  resume(): void {
    this.paused = false
    this.stream?.resume()
    this.onPause(false)
  }
}

/** For what was never begun. */
const idle = () =>
  new Controller(
    () => {},
    () => {},
  )

/** Makes the dispatcher. Closing it lets what is under way end. */
export function createHttp2(settings: Http2Settings): { readonly dispatcher: Dispatcher; close(): Promise<void> } {
  const { transport, agent, maxHeaders } = settings
  const { connections, headersTimeoutMs, bodyTimeoutMs, keepAliveMs = 20_000 } = transport
  const servers = new Map<string, Server>()
  /** Those without HTTP/2. */
  const others = new Set<string>()
  const peers = new Set<Peer>()
  let isClosed = false
  let allGone = () => {}

  /** Lets nothing else begin on a connection. */
  function retire(server: Server, peer: Peer): void {
    peer.isOpen = false
    if (server.peer === peer) server.peer = undefined
    if (peer.active === 0) peer.session.destroy()
  }

  /** The server has no HTTP/2. */
  function giveUp(server: Server): void {
    const { origin } = server
    servers.delete(origin)
    if (others.size >= MAX_KNOWN) others.clear()
    others.add(origin)
    for (const { options, handler } of server.waiting.splice(0)) agent.dispatch(options, handler)
  }

  function open(server: Server, socket: Socket): Peer {
    const session = connect(server.origin, {
      createConnection: () => socket,
      maxSessionMemory: MAX_MEMORY,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW, maxHeaderListSize: maxHeaders },
    })
    const peer: Peer = { session, active: 0, isOpen: true, last: undefined, idle: undefined }
    peers.add(peer)
    session.unref()
    session.on('connect', () => {
      if (!session.destroyed) session.setLocalWindowSize(CONNECTION_WINDOW)
    })
    session.on('error', () => retire(server, peer))
    session.on('goaway', (_code, last) => {
      peer.last = last
      retire(server, peer)
    })
    // There may be more room now.
    session.on('remoteSettings', () => serve(server))
    session.on('close', () => {
      clearTimeout(peer.idle)
      peers.delete(peer)
      retire(server, peer)
      serve(server)
      if (server.peer === undefined && !server.isConnecting && servers.get(server.origin) === server) {
        servers.delete(server.origin)
      }
      if (peers.size === 0) allGone()
    })
    return peer
  }

  function dial(server: Server): void {
    if (server.isConnecting) return
    server.isConnecting = true
    const refuse = (error: Error) => {
      servers.delete(server.origin)
      for (const { handler } of server.waiting.splice(0)) handler.onResponseError?.(idle(), error)
    }
    settings.connect(new URL(server.origin)).then((socket) => {
      server.isConnecting = false
      if (isClosed) {
        socket.destroy()
        refuse(failed('UND_ERR_CLOSED'))
      } else if (socket instanceof TLSSocket && socket.alpnProtocol === 'h2') {
        server.peer = open(server, socket)
        serve(server)
      } else {
        settings.handOver(server.origin, socket)
        giveUp(server)
      }
    }, refuse)
  }

  /** Begins what waits, as far as it may. */
  function serve(server: Server): void {
    while (server.waiting.length > 0) {
      const { peer } = server
      if (peer === undefined) {
        dial(server)
        return
      }
      const { session, active } = peer
      if (session.closed || session.destroyed) {
        retire(server, peer)
        continue
      }
      const { maxConcurrentStreams = connections } = session.remoteSettings
      if (active >= Math.max(1, Math.min(connections, maxConcurrentStreams))) return
      start(server, peer, server.waiting.shift()!)
    }
  }

  function ended(server: Server, peer: Peer): void {
    peer.active--
    if (peer.active === 0) {
      if (!peer.isOpen || isClosed) retire(server, peer)
      else {
        peer.session.unref()
        peer.idle = setTimeout(() => retire(server, peer), keepAliveMs).unref()
      }
    }
    serve(server)
  }

  /** Why a request has no answer, or only half of one. */
  function failureOf(server: Server, peer: Peer, stream: ClientHttp2Stream, cause: Error | undefined): Error {
    if (peer.last !== undefined && stream.id !== undefined && stream.id > peer.last)
      return failed('HTTP2_UNSENT', cause)
    const code = systemCode(cause)
    if (code !== undefined && !code.startsWith('ERR_HTTP2_')) return cause!
    const name = NAMES.get(stream.rstCode) ?? 'UNKNOWN'
    if (name === 'HTTP_1_1_REQUIRED') giveUp(server)
    return failed(`HTTP2_${name}`, cause)
  }

  function start(server: Server, peer: Peer, { options, handler }: Waiting): void {
    let [isDone, isAnswered] = [false, false]
    /** Bytes of the body that are still to come, where the answer says how long it is. */
    let left: number | undefined
    let timer: NodeJS.Timeout | undefined
    let stream: ClientHttp2Stream | undefined
    const fail = (error: Error) => {
      if (isDone) return
      isDone = true
      clearTimeout(timer)
      stream?.close(constants.NGHTTP2_CANCEL)
      handler.onResponseError?.(controller, error)
    }
    const allow = (ms: number, code: string) => {
      clearTimeout(timer)
      timer = setTimeout(() => {
        // A connection on which nothing comes may be dead.
        retire(server, peer)
        fail(failed(code))
      }, ms)
    }
    const controller = new Controller(fail, (isPaused) => {
      if (isPaused) clearTimeout(timer)
      else if (isAnswered && !isDone) allow(bodyTimeoutMs, 'BODY_TIMEOUT')
    })
    /** What the handler throws ends its request. */
    const tell = (what: () => void) => {
      if (isDone) return
      try {
        what()
      } catch (error) {
        fail(error as Error)
      }
    }
    const heads = (received: IncomingHttpHeaders, isFinal: boolean) =>
      tell(() => {
        const { headers, bytes } = receivedOf(received)
        if (bytes > maxHeaders) throw failed('UND_ERR_HEADERS_OVERFLOW')
        if (isFinal) {
          isAnswered = true
          const length = headers['content-length']
          const hasBody = options.method !== 'HEAD' && Number(received[':status']) !== 304
          if (hasBody && typeof length === 'string') left = Number(length)
          allow(bodyTimeoutMs, 'BODY_TIMEOUT')
        }
        handler.onResponseStart?.(controller, Number(received[':status']), headers, '')
      })

    tell(() => handler.onRequestStart?.(controller, {}))
    if (isDone) return
    const body = options.body as Uint8Array | null | undefined
    let headers: Record<string, string>
    try {
      headers = headersOf(options)
      if (body) headers['content-length'] = String(body.length)
    } catch (error) {
      fail(error as Error)
      return
    }
    try {
      stream = peer.session.request(headers, { endStream: !body?.length })
    } catch (error) {
      retire(server, peer)
      fail(failed('HTTP2_UNSENT', error))
      return
    }
    peer.active++
    clearTimeout(peer.idle)
    peer.session.ref()
    if (keepAliveMs === 0) retire(server, peer)
    controller.stream = stream
    allow(headersTimeoutMs, 'HEADERS_TIMEOUT')
    let cause: Error | undefined
    stream
      .on('headers', (received) => heads(received, false))
      .once('response', (received) => heads(received, true))
      .on('data', (chunk: Buffer) => {
        timer?.refresh()
        if (left !== undefined) left -= chunk.length
        tell(() => handler.onResponseData?.(controller, chunk))
      })
      .once('end', () => {
        // A stream that was reset ends, too. One that was reset without an error shows by its length only.
        const isWhole = !stream.aborted && stream.rstCode === constants.NGHTTP2_NO_ERROR && (left ?? 0) === 0
        if (!isAnswered || !isWhole) return
        tell(() => handler.onResponseEnd?.(controller, {}))
        isDone = true
        clearTimeout(timer)
        // An answer may come before all was sent.
        if (!stream.writableFinished) stream.close(constants.NGHTTP2_CANCEL)
      })
      .once('error', (error) => {
        cause = error
      })
      .once('close', () => {
        if (!isDone) fail(failureOf(server, peer, stream, cause))
        ended(server, peer)
      })
    if (body?.length) stream.end(body)
  }

  class Http2Dispatcher extends Dispatcher {
    override dispatch(options: Options, handler: Handler): boolean {
      const { origin } = new URL(options.origin!)
      if (others.has(origin)) return agent.dispatch(options, handler)
      const server = servers.get(origin) ?? { origin, peer: undefined, isConnecting: false, waiting: [] }
      servers.set(origin, server)
      server.waiting.push({ options, handler })
      serve(server)
      return true
    }
  }

  return {
    // The interceptor that does nothing gives handlers of older versions the shape of today's.
    dispatcher: new Http2Dispatcher().compose((dispatch) => dispatch),
    async close() {
      isClosed = true
      const gone = new Promise<void>((resolve) => {
        allGone = resolve
      })
      if (peers.size === 0) return
      for (const { active, session } of peers) if (active === 0) session.destroy()
      await gone
    },
  }
}
