/**
 * The one place where connections are made: addresses, proxy, TLS, client certificate, pins, local address, family, timeouts.
 * Every HTTP client of this layer dials through it.
 * @module
 */
import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns'
import { lookup } from 'node:dns/promises'
import { isIP, type Socket } from 'node:net'
import { type SecureContext, TLSSocket } from 'node:tls'
import { buildConnector } from 'undici'
import { SyncError, systemCode } from '../errors.ts'
import { hostOf, parseBaseUrl, reachOf } from './addresses.ts'
import { tlsError, wireError } from './failures.ts'
import { type DialerOptions, parseTransport, type Transport } from './options.ts'
import { chainPins, checkAccepted, checkFirstUse, checkPin, type ServerPin } from './pins.ts'
import { isProxied, type ProxyServer } from './proxy.ts'
import { traceSocket } from './trace.ts'
import { openTunnel, proxyFailed } from './tunnel.ts'

/**
 * Opens a connection to an http or https origin, ready for the first byte of a request. With `http2` that protocol is offered, too: which
 * one the server has chosen says `alpnProtocol` of the socket.
 */
export type Connect = (origin: URL, options?: { readonly http2?: boolean }) => Promise<Socket>

interface Target {
  readonly url: URL
  /** Name or IP address, without brackets. */
  readonly host: string
  readonly port: number
}

type Dial = (target: Target, tunnel?: Socket) => Promise<Socket>

const refused = (host: string) =>
  new SyncError('safety', 'ADDRESS_REFUSED', `Refusing to connect to ${host}: not a public address`, {
    hint: 'The server named a storage address inside a private network.',
  })

const portOf = (url: URL) => Number(url.port || (url.protocol === 'https:' ? 443 : 80))

/** The system's lookup, less the addresses that are not allowed. */
function allowedLookup(allow: NonNullable<Transport['allow']>) {
  return (
    host: string,
    options: LookupOptions,
    done: (error: Error | null, address: string | LookupAddress[], family?: number) => void,
  ): void => {
    dnsLookup(host, { ...options, all: true }, (error, found) => {
      if (error) return done(error, [])
      const usable = found.filter(({ address }) => allow(reachOf(address)))
      if (usable.length === 0) return done(refused(host), [])
      if (options.all) done(null, usable)
      else done(null, usable[0]!.address, usable[0]!.family)
    })
  }
}

/** TCP, and TLS where the URL says so; inside `tunnel` when there is one. */
function createDial(
  transport: Transport,
  contextOf: () => SecureContext,
  allow: Transport['allow'],
  { own = false, http2 = false } = {},
): Dial {
  const { connectTimeoutMs, bindAddress, family, pins, firstUse, tcpKeepAliveMs } = transport
  const { accepted, checkServer } = own ? transport : { accepted: undefined, checkServer: undefined }
  const common = {
    timeout: connectTimeoutMs,
    allowH2: http2,
    // One that is known by its fingerprint is held against that instead, before anything is sent.
    rejectUnauthorized: accepted === undefined,
    keepAlive: tcpKeepAliveMs > 0,
    keepAliveInitialDelay: tcpKeepAliveMs,
    // A resumed session shows no certificate to compare.
    ...([pins, firstUse, accepted, checkServer].every((one) => one === undefined) ? {} : { maxCachedSessions: 0 }),
    ...(allow === undefined ? {} : { lookup: allowedLookup(allow) }),
    ...(family === undefined ? {} : { family }),
  }
  const plain = buildConnector(common)
  let secure: typeof plain | undefined
  const connectorFor = ({ protocol }: URL) => {
    if (protocol !== 'https:') return plain
    secure ??= buildConnector({ ...common, secureContext: contextOf() })
    return secure
  }
  return ({ url, host, port }, tunnel) =>
    new Promise((resolve, reject) => {
      const options = {
        hostname: host,
        host: url.host,
        protocol: url.protocol,
        port: String(port),
        ...(bindAddress === undefined ? {} : { localAddress: bindAddress }),
        ...(tunnel === undefined ? {} : { httpSocket: tunnel }),
      }
      connectorFor(url)(options, (error, socket) => {
        if (error !== null) return reject(error)
        try {
          if (accepted !== undefined && url.protocol === 'https:') checkAccepted(socket, accepted)
          resolve(socket)
        } catch (refusal) {
          socket.destroy()
          reject(refusal)
        }
      })
    })
}

/** An address of the other family would be dialled all the same: only names are looked up by family. */
function checkFamily(host: string, family: Transport['family']): void {
  if (family === undefined || isIP(host) === 0 || isIP(host) === family) return
  throw new SyncError('network', 'ADDRESS_FAMILY', `Cannot reach ${host}: connections are limited to IPv${family}`, {
    hint: 'Change family or bindAddress, or use another address.',
  })
}

/**
 * What the proxy is asked for: an address where it must be one of those allowed, or where the proxy is not to resolve names;
 * else the name.
 */
async function tunnelHost(transport: Transport, { kind }: ProxyServer, host: string): Promise<string> {
  const { allow, family, proxyResolves } = transport
  const isGuarded = allow !== undefined && !proxyResolves
  if (isIP(host) !== 0 || (kind !== 'socks5' && !isGuarded)) return host
  let found: LookupAddress[]
  try {
    // IPv4 first: a proxy without IPv6 is more common than the other way round.
    found = await lookup(host, { all: true, verbatim: false, ...(family === undefined ? {} : { family }) })
  } catch (cause) {
    if (!isGuarded || systemCode(cause) !== 'ENOTFOUND') throw cause
    throw new SyncError(
      'safety',
      'ADDRESS_UNCHECKED',
      `Refusing to connect to ${host}: its address cannot be checked`,
      {
        hint: 'If the proxy itself refuses private addresses, set proxyResolves.',
        cause,
      },
    )
  }
  const usable = allow === undefined ? found : found.filter(({ address }) => allow(reachOf(address)))
  const [first] = usable
  if (first === undefined) throw refused(host)
  return first.address
}

async function dialProxy(dial: Dial, { kind, host, port }: ProxyServer): Promise<Socket> {
  const url = new URL(`${kind === 'https' ? 'https' : 'http'}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`)
  try {
    return await dial({ url, host, port })
  } catch (cause) {
    throw tlsError(cause, 'the proxy') ?? proxyFailed('cannot be reached', { retryable: true, cause })
  }
}

/** Rejects when the tunnel ends, or after `ms`. The TLS inside would not tell: it just ends, too. */
function lossOf(tunnel: Socket, ms: number): { lost: Promise<never>; stop: () => void } {
  let timer: NodeJS.Timeout | undefined
  const lost = new Promise<never>((_, reject) => {
    const fail = (what: string) => reject(proxyFailed(what, { retryable: true }))
    timer = setTimeout(() => fail('did not connect in time'), Math.max(1, ms))
    tunnel.once('close', () => fail('closed the connection'))
  })
  lost.catch(() => {}) // reported to those who wait
  return { lost, stop: () => clearTimeout(timer) }
}

/** @param toProxy - Without `allow`: the proxy is the user's own choice. */
async function dialThrough(transport: Transport, proxy: ProxyServer, toProxy: Dial, inside: Dial, target: Target) {
  const end = performance.now() + transport.connectTimeoutMs
  const host = await tunnelHost(transport, proxy, target.host)
  const tunnel = await dialProxy(toProxy, proxy)
  // Whoever waits is told otherwise; without a listener an error would end the process.
  tunnel.on('error', () => {})
  const { lost, stop } = lossOf(tunnel, end - performance.now())
  try {
    const authorization = await Promise.race([transport.proxyAuthorization?.(proxy.host), lost])
    await Promise.race([openTunnel(tunnel, proxy, host, target.port, authorization), lost])
    return target.url.protocol === 'https:' ? await Promise.race([inside(target, tunnel), lost]) : tunnel
  } catch (error) {
    tunnel.destroy()
    throw error
  } finally {
    stop()
  }
}

/** What a check of the caller's refuses is not tried again. */
async function askCheck(check: NonNullable<Transport['checkServer']>, socket: Socket, origin: string): Promise<void> {
  try {
    if (socket instanceof TLSSocket) await check(chainPins(socket), origin)
  } catch (cause) {
    if (cause instanceof SyncError) throw cause
    throw new SyncError('tls', 'SERVER_NOT_TRUSTED', 'The server was refused by a check of this program', { cause })
  }
}

/**
 * Makes the function that connects. It rejects with `ADDRESS_REFUSED`, `ADDRESS_UNCHECKED`, `ADDRESS_FAMILY`, `PIN_MISMATCH`,
 * `PROXY_AUTH`, `PROXY_FAILED`, or an error of the system or of TLS, for `wireError` to translate. Whether a scheme is
 * allowed at all is the caller's check.
 */
export function createConnect(transport: Transport): Connect {
  const { proxy, exceptions, contexts, pins, firstUse, checkServer, isOwn, allow, family } = transport
  const toProxy = createDial(transport, () => contexts.other, undefined)
  const dials = (http2: boolean) => ({
    toOwn: createDial(transport, () => contexts.own, allow, { own: true, http2 }),
    toOther: createDial(transport, () => contexts.other, allow, { http2 }),
  })
  const [one, both] = [dials(false), transport.http2 ? dials(true) : undefined]
  return async (url, { http2 = false } = {}) => {
    const target = { url, host: hostOf(url), port: portOf(url) }
    const own = isOwn(url.origin)
    const { toOwn, toOther } = http2 && both !== undefined ? both : one
    const dial = own ? toOwn : toOther
    checkFamily(target.host, family)
    if (isIP(target.host) !== 0 && allow?.(reachOf(target.host)) === false) throw refused(target.host)
    const began = performance.now()
    const proxied = proxy !== undefined && isProxied(proxy, exceptions, target.host, target.port)
    const socket = proxied ? await dialThrough(transport, proxy, toProxy, dial, target) : await dial(target)
    if (transport.trace !== undefined) {
      traceSocket(transport.trace, url.origin, socket, proxied, performance.now() - began)
    }
    // An alert after the handshake (TLS 1.3: about our certificate) must not be lost in the end of the stream behind it.
    socket.once('error', (error) => socket.destroy(error))
    const isChecked = [pins, firstUse, checkServer].some((one) => one !== undefined)
    if (!isChecked || !own || url.protocol !== 'https:') return socket
    try {
      if (pins !== undefined) checkPin(socket, pins)
      if (firstUse !== undefined) await checkFirstUse(socket, url.origin, firstUse)
      if (checkServer !== undefined) await askCheck(checkServer, socket, url.origin)
      return socket
    } catch (error) {
      socket.destroy()
      throw error
    }
  }
}

/**
 * Reads the pins of the certificates that a server presents, its own first. Everything but pins is checked as for any other
 * connection, so what is read belongs to a server that would be trusted without them. Nothing is asked of the server.
 *
 * @param url - `https://HOST`.
 * @throws {SyncError} `PINS_INVALID` for a server without TLS; what a request throws.
 */
export async function readServerPins(url: string, options: DialerOptions = {}): Promise<ServerPin[]> {
  const { origin } = parseBaseUrl(url, { path: true })
  const { pins: _, pinStore: _store, backupPins: _backup, ...others } = options
  const transport = parseTransport(others)
  let socket: Socket
  try {
    socket = await createConnect(transport)(new URL(origin))
  } catch (error) {
    throw wireError(error, { method: 'GET', url: origin })
  }
  try {
    if (socket instanceof TLSSocket) return chainPins(socket)
  } finally {
    socket.destroy()
  }
  throw new SyncError('usage', 'PINS_INVALID', 'A server without TLS has no key to pin', {
    hint: 'Use an https address.',
  })
}
