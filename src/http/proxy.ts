/**
 * Which proxy, and for which targets: reading of proxy addresses, of exceptions, and of the environment's variables. What is
 * said to a proxy is in tunnel.ts.
 * @module
 */
import { BlockList, isIP } from 'node:net'
import { domainToASCII } from 'node:url'
import { isLoopback } from './addresses.ts'

export interface ProxyServer {
  /** `socks5h`: the proxy resolves names; `socks5`: we do. */
  readonly kind: 'http' | 'https' | 'socks5' | 'socks5h'
  /** Name or IP address, without brackets. */
  readonly host: string
  readonly port: number
  readonly login: { readonly user: string; readonly password: string } | undefined
}

const DEFAULT_PORTS = Object.freeze({ http: 80, https: 443, socks5: 1080, socks5h: 1080 })
const isKind = (text: string): text is ProxyServer['kind'] => Object.hasOwn(DEFAULT_PORTS, text)

/** The port of a URL without one is the default of its scheme. */
export const PROXY_FORM = 'proxy must look like http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT or socks5h://…'

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** User name and password, or what is wrong with them. Never repeats one of them. */
function readLogin(
  url: URL,
  kind: ProxyServer['kind'],
  user?: string,
  password?: string,
): ProxyServer['login'] | string {
  const inUrl = url.username !== '' || url.password !== ''
  if (inUrl && (user !== undefined || password !== undefined)) {
    return 'the proxy login must be either in the proxy URL or in proxyUser and proxyPassword'
  }
  if (!inUrl && user === undefined) {
    return password === undefined ? undefined : 'proxyPassword needs proxyUser'
  }
  const login = {
    user: inUrl ? decoded(url.username) : user,
    password: inUrl ? decoded(url.password) : (password ?? ''),
  }
  if (typeof login.user !== 'string' || typeof login.password !== 'string' || login.user === '') {
    return 'the proxy login must have a user name, and its special characters must be percent-encoded in a URL'
  }
  if (/[\0-\x1f\x7f]/.test(login.user + login.password)) return 'the proxy login must not have control characters'
  // RFC 7617 §2, RFC 1929 §2.
  if (!kind.startsWith('socks')) {
    if (login.user.includes(':')) return 'the user name for an HTTP proxy must not have a colon'
  } else if ([login.user, login.password].some((text) => text === '' || Buffer.byteLength(text) > 255)) {
    return 'user name and password for a SOCKS proxy must have 1 to 255 bytes'
  }
  return { user: login.user, password: login.password }
}

/** Reads a proxy setting. @returns the proxy, or what is wrong with it; never any part of it, since it may hold a password. */
export function parseProxy(text: string, user?: string, password?: string): ProxyServer | string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const kind = url?.protocol.slice(0, -1) ?? ''
  if (url === undefined || !isKind(kind) || !text.includes('://')) return PROXY_FORM
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  const isPlain = (url.pathname === '/' || url.pathname === '') && url.search === '' && url.hash === ''
  if (!isPlain || (isIP(host) === 0 && !isName(host)) || url.port === '0') return PROXY_FORM
  const login = readLogin(url, kind, user, password)
  if (typeof login === 'string') return login
  return { kind, host, port: url.port === '' ? DEFAULT_PORTS[kind] : Number(url.port), login }
}

const isName = (text: string) => text.length <= 253 && /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(text)

/** Says whether a target is reached without the proxy. `host` is lower-case, without brackets. */
export type Exception = (host: string, port: number) => boolean

/** Addresses are compared as numbers, so that every way to write one counts. */
function addressException(address: string, bits?: number): Exception {
  const list = new BlockList()
  const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
  if (bits === undefined) list.addAddress(address, family)
  else list.addSubnet(address, bits, family)
  return (host) => isIP(host) !== 0 && list.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4')
}

/** As in curl: a name stands for itself and everything below it, with or without a leading dot. */
function nameException(text: string): Exception | undefined {
  // The conversion stops at the end of a host, wherever it finds one.
  const name = /[/?#@:\\%]/.test(text) ? '' : domainToASCII(text.replace(/^\*?\./, '').replace(/\.$/, ''))
  if (!isName(name)) return undefined
  return (host) => host === name || host.endsWith(`.${name}`)
}

/**
 * Reads one exception: `*`, a name, `.suffix`, an IP address, a network in CIDR form; all but networks also with a port
 * (`host:443`, `[::1]:443`). Names are not looked up to compare them with addresses.
 */
export function parseException(text: string): Exception | undefined {
  const entry = text.trim().toLowerCase()
  if (entry === '*') return () => true
  const cidr = /^\[?([0-9a-f.:]+)\]?\/(\d{1,3})$/.exec(entry)
  if (cidr !== null) {
    const [, address, bits] = [...cidr] as [string, string, string]
    const width = { 0: -1, 4: 32, 6: 128 }[isIP(address) as 0 | 4 | 6]
    return Number(bits) <= width ? addressException(address, Number(bits)) : undefined
  }
  if (isIP(entry) !== 0) return addressException(entry)
  const [, bracketed, plain, portText] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(entry) ?? []
  const port = portText === undefined ? undefined : Number(portText)
  if (port !== undefined && (port === 0 || port > 65_535)) return undefined
  const host = bracketed ?? plain ?? ''
  if (bracketed !== undefined && isIP(bracketed) !== 6) return undefined
  const rule = host === '*' ? () => true : isIP(host) !== 0 ? addressException(host) : nameException(host)
  return rule && ((name, at) => (port === undefined || port === at) && rule(name, at))
}

/** Exceptions in one text, as `no_proxy` has them. */
export const splitExceptions = (text: string): string[] => text.split(/[\s,]+/).filter((entry) => entry !== '')

/**
 * Whether a target is reached through the proxy. One on our own machine is not, unless the proxy is there too: elsewhere,
 * 127.0.0.1 would be another machine, and plain http would cross the network to get there.
 */
export function isProxied(proxy: ProxyServer, exceptions: readonly Exception[], host: string, port: number): boolean {
  if (isLoopback(host) && !isLoopback(proxy.host)) return false
  const name = host.toLowerCase().replace(/\.$/, '')
  return !exceptions.some((matches) => matches(name, port))
}

/**
 * Proxy options from the environment, to be spread into `DialerOptions`: `https_proxy` or `http_proxy` by the origin's scheme,
 * else `all_proxy`, with the exceptions of `no_proxy`. As in curl, lower case wins over upper case, an empty variable
 * counts as none, and an address without a scheme is an HTTP proxy. `HTTP_PROXY` is ignored where `REQUEST_METHOD` shows that
 * a request header could have set it. Exceptions that cannot be read are left out; a proxy that cannot is refused later.
 *
 * @param origin - Of the server, `https://HOST`.
 */
export function proxyFromEnvironment(
  env: Readonly<Record<string, string | undefined>>,
  origin: string,
): { proxy?: string; noProxy?: string[] } {
  const first = (...names: string[]) => names.map((name) => env[name]?.trim()).find(Boolean)
  const own = origin.startsWith('https:')
    ? first('https_proxy', 'HTTPS_PROXY')
    : first('http_proxy', ...(env.REQUEST_METHOD === undefined ? ['HTTP_PROXY'] : []))
  const proxy = own ?? first('all_proxy', 'ALL_PROXY')
  if (proxy === undefined) return {}
  const listed = splitExceptions(first('no_proxy', 'NO_PROXY') ?? '')
  return {
    proxy: proxy.includes('://') ? proxy : `http://${proxy}`,
    noProxy: listed.filter((entry) => parseException(entry) !== undefined),
  }
}
