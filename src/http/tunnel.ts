/**
 * What is said to a proxy before the target hears us: CONNECT (RFC 9110 §9.3.6) with Basic authentication (RFC 7617), and
 * SOCKS 5 (RFC 1928) with user name and password (RFC 1929). Timeouts are the caller's.
 *
 * Written here because both HTTP clients of this layer dial through one function: the agents of undici keep their sockets to
 * themselves, and the SOCKS one is experimental, without timeouts of ours.
 * @module
 */
import { request as httpRequest } from 'node:http'
import { isIPv4, isIPv6, type Socket } from 'node:net'
import { SyncError } from '../errors.ts'
import { ipv6Bytes } from './addresses.ts'
import { bareCause } from './failures.ts'
import type { ProxyServer } from './proxy.ts'

/** The proxy cannot be reached, or does not connect us. */
export const proxyFailed = (what: string, { retryable, cause }: { retryable: boolean; cause?: unknown }) =>
  new SyncError('network', 'PROXY_FAILED', `The proxy ${what}`, {
    hint: 'Check the proxy setting, and that the proxy runs and may reach the server.',
    retryable,
    cause: bareCause(cause),
  })

const loginRefused = ({ login }: ProxyServer) =>
  new SyncError(
    'network',
    'PROXY_AUTH',
    login === undefined
      ? 'The proxy asks for a user name and a password'
      : 'The proxy refused the user name and password',
    { hint: 'Set proxyUser and proxyPassword to a login of the proxy.' },
  )

/** No server of ours speaks first: more bytes would be the answer to a question not yet asked. */
const surplus = () => proxyFailed('sent more than its answer', { retryable: false })

/**
 * Asks the proxy at the other end of `socket` to connect it to `host`. Afterwards the socket speaks with the target.
 *
 * @param host - Name or IP address, without brackets.
 * @param authorization - For an HTTP proxy, in place of its login: the value of the header.
 * @throws {SyncError} `PROXY_AUTH`, `PROXY_FAILED`.
 */
export function openTunnel(
  socket: Socket,
  proxy: ProxyServer,
  host: string,
  port: number,
  authorization?: string,
): Promise<void> {
  return proxy.kind.startsWith('socks')
    ? socksTunnel(socket, proxy, host, port)
    : httpTunnel(socket, proxy, host, port, authorization)
}

/** Statuses after which another try may help. */
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504])

function httpTunnel(
  socket: Socket,
  proxy: ProxyServer,
  host: string,
  port: number,
  authorization: string | undefined,
): Promise<void> {
  const authority = `${isIPv6(host) ? `[${host}]` : host}:${port}`
  const { login } = proxy
  const basic = login && `Basic ${Buffer.from(`${login.user}:${login.password}`).toString('base64')}`
  const proof = authorization ?? basic
  // A line end would start another header (RFC 9110 §5.5).
  if (proof !== undefined && !/^[\x21-\x7e]+( [\x21-\x7e]+)*$/.test(proof)) {
    throw new SyncError('usage', 'PROXY_INVALID', 'What proxyAuthorization returned cannot be sent')
  }
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      method: 'CONNECT',
      path: authority,
      createConnection: () => socket,
      setHost: false,
      maxHeaderSize: 16 * 1024,
      headers: {
        host: authority,
        ...(proof && { 'proxy-authorization': proof }),
      },
    })
    request.on('error', (cause) => reject(proxyFailed('did not answer', { retryable: true, cause })))
    request.once('connect', ({ statusCode = 0 }, _socket, head) => {
      // 401 is what tinyproxy says to a wrong password.
      if (statusCode === 407 || statusCode === 401) return reject(loginRefused(proxy))
      if (statusCode < 200 || statusCode > 299) {
        return reject(proxyFailed(`refused to connect (status ${statusCode})`, { retryable: PASSING.has(statusCode) }))
      }
      if (head.length > 0) return reject(surplus())
      resolve()
    })
    request.end()
  })
}

/** RFC 1928 §6; whether another try may help. */
const SOCKS_REPLIES: Readonly<Record<number, readonly [string, boolean]>> = Object.freeze({
  1: ['failed', true],
  2: ['does not allow this connection', false],
  3: ['cannot reach the network', true],
  4: ['cannot reach the host', true],
  5: ['found the connection refused', true],
  6: ['gave up on the way', true],
  7: ['does not know the command', false],
  8: ['does not know this kind of address', false],
})

/** Bytes that follow the kind of an address in a reply, port included; a name has its length before it. */
const BOUND_LENGTH: Readonly<Record<number, number>> = Object.freeze({ 1: 4 + 2, 4: 16 + 2 })

async function socksTunnel(socket: Socket, proxy: ProxyServer, host: string, port: number): Promise<void> {
  const { login } = proxy
  const reader = readerOf(socket)
  socket.write(Uint8Array.from(login === undefined ? [5, 1, 0] : [5, 2, 0, 2]))
  const [version, method] = await reader.take(2)
  if (version !== 5) throw proxyFailed('does not speak SOCKS 5', { retryable: false })
  if (method === 2 && login !== undefined) {
    socket.write(Buffer.concat([Uint8Array.of(1), counted(login.user), counted(login.password)]))
    const [, status] = await reader.take(2)
    if (status !== 0) throw loginRefused(proxy)
  } else if (method !== 0) {
    throw loginRefused(proxy)
  }
  socket.write(Buffer.concat([Uint8Array.of(5, 1, 0), socksAddress(host), Uint8Array.of(port >> 8, port & 255)]))
  const [replyVersion, reply = 1, , kind = 0] = await reader.take(4)
  if (replyVersion !== 5) throw proxyFailed('does not speak SOCKS 5', { retryable: false })
  if (reply !== 0) {
    const [what, retryable] = SOCKS_REPLIES[reply] ?? [`refused to connect (reply ${reply})`, false]
    throw proxyFailed(what, { retryable })
  }
  const length = kind === 3 ? (await reader.take(1))[0]! + 2 : BOUND_LENGTH[kind]
  if (length === undefined) throw proxyFailed('does not speak SOCKS 5', { retryable: false })
  await reader.take(length)
  if (!reader.isEmpty()) throw surplus()
}

const counted = (text: string) => {
  const bytes = Buffer.from(text)
  return Buffer.concat([Uint8Array.of(bytes.length), bytes])
}

/** RFC 1928 §5: kind and address. Names of URLs are at most 253 bytes where a server can have them; longer ones end here. */
function socksAddress(host: string): Uint8Array {
  if (isIPv4(host)) return Uint8Array.from([1, ...host.split('.').map(Number)])
  if (isIPv6(host)) return Uint8Array.from([4, ...ipv6Bytes(host)])
  if (host.length > 255) throw proxyFailed('cannot be asked for a name this long', { retryable: false })
  return Buffer.concat([Uint8Array.of(3), counted(host)])
}

/** Reads a socket by lengths. All that has come is taken out of it at once: a rest left there would wake us again and again. */
function readerOf(socket: Socket) {
  let held = new Uint8Array(0)
  return {
    async take(count: number): Promise<Uint8Array> {
      while (held.length < count) {
        const bytes: Uint8Array | null = socket.read()
        if (bytes !== null) held = Buffer.concat([held, bytes])
        else if (socket.readableEnded || socket.destroyed)
          throw proxyFailed('closed the connection', { retryable: true })
        else await readable(socket)
      }
      const taken = held.subarray(0, count)
      held = held.subarray(count)
      return taken
    },
    isEmpty: () => held.length === 0,
  }
}

const readable = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    const events = ['readable', 'end', 'close', 'error'] as const
    const done = () => {
      for (const event of events) socket.off(event, done)
      resolve()
    }
    for (const event of events) socket.on(event, done)
  })
