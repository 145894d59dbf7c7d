/** Proxies of our own, on loopback: HTTP with CONNECT, and SOCKS 5. Small, strict, and with the faults that tests ask for. */
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

export interface TestProxy {
  readonly port: number
  /** What was asked for, as `host:port`, in order; also what was refused. */
  readonly asked: string[]
  /** Logins presented: `user:password`. */
  readonly logins: string[]
  readonly connections: () => number
}

export interface TestProxyOptions {
  /** `user:password` that is asked for. */
  readonly login?: string
  /** Where a connection leads, whatever was asked for. */
  readonly leadsTo?: number
  /** HTTP: status of every answer to CONNECT. SOCKS: code of every reply. */
  readonly reply?: number
  /** Accepts connections and never says a word. */
  readonly silent?: boolean
  /** Bytes sent right behind the answer. */
  readonly extra?: string
  readonly tls?: { cert: string; key: string }
}

async function open(server: Server): Promise<{ port: number; connections: () => number }> {
  const sockets = new Set<Socket>()
  let connections = 0
  server.on('connection', (socket: Socket) => {
    connections++
    sockets.add(socket.on('error', () => {}).on('close', () => sockets.delete(socket)))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return { port: (server.address() as AddressInfo).port, connections: () => connections }
}

/** Connects to `host:port`, or to `leadsTo`, and joins both sides. */
function join(client: Socket, authority: string, leadsTo: number | undefined, ready: (joined: boolean) => void): void {
  const [, host = '', port] = /^\[?(.*?)\]?:(\d+)$/.exec(authority) ?? []
  const target = leadsTo === undefined ? connect(Number(port), host) : connect(leadsTo, '127.0.0.1')
  let joined = false
  target.once('connect', () => {
    joined = true
    ready(true)
    client.pipe(target).pipe(client)
  })
  target.on('error', () => joined || ready(false)).on('close', () => client.destroy())
  client.on('error', () => {}).on('close', () => target.destroy())
  onTestFinished(() => void target.destroy())
}

export async function connectProxy(options: TestProxyOptions = {}): Promise<TestProxy> {
  const [asked, logins]: [string[], string[]] = [[], []]
  const server: HttpServer = options.tls === undefined ? createHttpServer() : createHttpsServer(options.tls)
  // Absolute-form is not for us.
  server.on('request', (_request, response) => response.writeHead(418).end())
  server.on('connect', (request, client: Socket) => {
    asked.push(request.url ?? '')
    if (options.silent) return
    const [, encoded] = /^Basic (.+)$/.exec(request.headers['proxy-authorization'] ?? '') ?? []
    if (encoded !== undefined) logins.push(Buffer.from(encoded, 'base64').toString())
    if (options.login !== undefined && logins.at(-1) !== options.login) {
      return client.end(
        'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="canary"\r\nContent-Length: 6\r\n\r\ncanary',
      )
    }
    if (options.reply !== undefined) return client.end(`HTTP/1.1 ${options.reply} canary\r\n\r\ncanary`)
    join(client, request.url ?? '', options.leadsTo, (joined) => {
      if (joined) client.write(`HTTP/1.1 200 Connection established\r\n\r\n${options.extra ?? ''}`)
      else client.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
    })
  })
  server.on('tlsClientError', () => {})
  return { ...(await open(server)), asked, logins }
}

/** RFC 1928 and 1929, one message per packet: enough for a client that waits for answers. */
export async function socksProxy(options: TestProxyOptions = {}): Promise<TestProxy> {
  const [asked, logins]: [string[], string[]] = [[], []]
  const next = (client: Socket) => new Promise<Buffer>((resolve) => client.once('data', resolve))
  const talk = async (client: Socket) => {
    const methods = await next(client)
    if (options.silent) return
    const method = options.login === undefined ? 0 : 2
    if (!methods.subarray(2, 2 + methods[1]!).includes(method)) return client.end(Buffer.of(5, 0xff))
    client.write(Buffer.of(5, method))
    if (method === 2) {
      const login = await next(client)
      const user = login.subarray(2, 2 + login[1]!).toString()
      logins.push(`${user}:${login.subarray(3 + login[1]!).toString()}`)
      const fits = logins.at(-1) === options.login
      client.write(Buffer.of(1, fits ? 0 : 1))
      if (!fits) return client.end()
    }
    const request = await next(client)
    const authority = socksAuthority(request)
    asked.push(authority)
    if (options.reply !== undefined) return client.end(Buffer.of(5, options.reply, 0, 1, 0, 0, 0, 0, 0, 0))
    client.pause()
    join(client, authority, options.leadsTo, (joined) => {
      // In two pieces, and with a name as bound address: clients must not count on ten bytes.
      client.write(Buffer.of(5, joined ? 0 : 5, 0))
      client.write(
        Buffer.concat([Buffer.of(3, 4), Buffer.from('here'), Buffer.of(0, 80), Buffer.from(options.extra ?? '')]),
      )
    })
  }
  const server = createServer((client) => void talk(client))
  return { ...(await open(server)), asked, logins }
}

function socksAuthority(request: Buffer): string {
  const kind = request[3]
  const port = request.readUInt16BE(request.length - 2)
  if (kind === 1) return `${request.subarray(4, 8).join('.')}:${port}`
  if (kind === 3) return `${request.subarray(5, 5 + request[4]!).toString()}:${port}`
  return `[${request.subarray(4, 20).toString('hex').match(/..../g)!.join(':')}]:${port}`
}
