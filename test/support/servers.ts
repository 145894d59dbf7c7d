/** Servers that answer whatever a test wants, on loopback, over real sockets. */
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
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
