/** Servers that answer whatever a test wants, on loopback, over real sockets. */
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
  request as startRequest,
} from 'node:http'
import {
  createSecureServer,
  type IncomingHttpHeaders,
  type SecureServerOptions,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, createServer as createRawServer, type Server as NetServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { createDialer, type DialerOptions } from '../../src/http/undici.ts'

/** Listens on a free port of 127.0.0.1 until the test ends; resolves to the port. */
async function open(server: NetServer, port = 0): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return (server.address() as AddressInfo).port
}

export interface Seen {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

export interface TestServer {
  /** Of a TLS server: another certificate, for connections from now on. */
  setKey(tls: { cert: string; key: string }): void
  readonly origin: string
  readonly port: number
  /** Requests received, in order; complete ones only. */
  readonly seen: Seen[]
  /** Connections made. */
  readonly connections: () => number
}

export type Answer = (request: Seen, response: ServerResponse, raw: IncomingMessage) => unknown

/** An HTTP server. `answer` gets each request once its body is complete. */
export async function httpServer(answer: Answer, tls?: { cert: string; key: string }): Promise<TestServer> {
  const seen: Seen[] = []
  let connections = 0
  const listener: RequestListener = (raw, response) => {
    const parts: Buffer[] = []
    raw.on('data', (part: Buffer) => parts.push(part))
    raw.on('error', () => {})
    response.setMaxListeners(0).on('error', () => {})
    raw.on('end', async () => {
      const { method = '', url: path = '', headers } = raw
      const request = { method, path, headers, body: Buffer.concat(parts).toString() }
      seen.push(request)
      await answer(request, response, raw)
    })
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
  server.on('tlsClientError', () => {})
  server.on('connection', () => connections++)
  const port = await open(server)
  return {
    origin: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    port,
    seen,
    connections: () => connections,
    setKey: (next) => 'setSecureContext' in server && server.setSecureContext(next),
  }
}

/** A server that speaks bytes. `talk` gets each connection with what came first. */
export async function rawServer(talk: (socket: Socket, first: string) => unknown): Promise<TestServer> {
  let connections = 0
  const server = createRawServer((socket) => {
    connections++
    socket.once('data', (data) => talk(socket, data.toString('latin1')))
  })
  const port = await open(server)
  return { origin: `http://127.0.0.1:${port}`, port, seen: [], connections: () => connections, setKey: () => {} }
}

export const json = (response: ServerResponse, body: unknown, status = 200, headers: Record<string, string> = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))

/** Our dialer, closed with the test. */
export function dialer(options: DialerOptions = {}) {
  const made = createDialer(options)
  onTestFinished(() => made.close())
  return made.send
}

/** What a promise was rejected with. */
export async function errorOf(work: Promise<unknown>): Promise<Rejection> {
  try {
    await work
  } catch (error) {
    return error as Rejection
  }
  throw new Error('It did not fail')
}

// biome-ignore lint/suspicious/noExplicitAny: what was thrown is checked by the assertions of the tests.
export type Rejection = any

export interface Http2TestServer {
  readonly origin: string
  readonly port: number
  /** Methods and paths of the streams that came, in order. */
  readonly seen: string[]
  readonly sessions: ServerHttp2Session[]
  /** Connections made. */
  readonly connections: () => number
}

/** An HTTP/2 server. `answer` gets each stream, once its body is complete; `options.whileSending`: at once. With `allowHTTP1` requests of that have the answer `one`. */
export async function http2Server(
  tls: { cert: string; key: string },
  answer: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, body: string) => unknown,
  { whileSending = false, ...options }: SecureServerOptions & { whileSending?: boolean } = {},
): Promise<Http2TestServer> {
  const server = createSecureServer({ ...tls, ...options })
  const seen: string[] = []
  const sessions: ServerHttp2Session[] = []
  let connections = 0
  server.on('connection', () => connections++).on('tlsClientError', () => {})
  server.on('session', (session) => sessions.push(session.on('error', () => {})))
  server.on('stream', (stream, headers) => {
    seen.push(`${headers[':method']} ${headers[':path']}`)
    stream.on('error', () => {})
    if (whileSending) return void answer(stream, headers, '')
    const parts: Buffer[] = []
    stream.on('data', (part: Buffer) => parts.push(part))
    stream.on('end', () => void answer(stream, headers, Buffer.concat(parts).toString()))
  })
  if (options.allowHTTP1) {
    server.on('request', (request, response) => {
      if (request.httpVersionMajor === 1) request.resume().on('end', () => response.end('one'))
    })
  }
  const port = await open(server)
  return { origin: `https://127.0.0.1:${port}`, port, seen, sessions, connections: () => connections }
}

/** A server in front of another one, which passes everything on and keeps what was asked for; with `tls` over HTTP/2 as well. */
export async function recorder(target: string, tls?: { cert: string; key: string }): Promise<Http2TestServer> {
  const seen: string[] = []
  const sessions: ServerHttp2Session[] = []
  let connections = 0
  const pass = (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const { method, url = '' } = incoming
    seen.push(`${method} ${url.replace(/\?.*/, '')}`)
    const headers = Object.fromEntries(
      Object.entries(incoming.headers).filter(([name]) => !/^:|^host$|^connection$/.test(name)),
    )
    const passed = startRequest(new URL(url, target), { method, headers }, (answer) => {
      const { connection: _, 'keep-alive': _alive, 'transfer-encoding': _coding, ...rest } = answer.headers
      outgoing.writeHead(answer.statusCode!, rest)
      answer.pipe(outgoing)
    })
    passed.on('error', () => outgoing.destroy())
    incoming.pipe(passed)
  }
  const server =
    tls === undefined
      ? createServer(pass)
      : createSecureServer({ ...tls, allowHTTP1: true }, pass as never).on('session', (one) => sessions.push(one))
  server.on('connection', () => connections++).on('tlsClientError', () => {})
  const port = await open(server)
  return {
    origin: `http${tls === undefined ? '' : 's'}://127.0.0.1:${port}`,
    port,
    seen,
    sessions,
    connections: () => connections,
  }
}
