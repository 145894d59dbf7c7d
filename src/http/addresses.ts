/**
 * Which addresses and URLs we talk to: https everywhere, plain http only on literal loopback addresses; storage URLs that a
 * server hands us only at public addresses, unless the server itself is on loopback or a private network.
 * @module
 */
import { BlockList, isIP } from 'node:net'
import { SyncError } from '../errors.ts'

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8)
loopback.addAddress('::1', 'ipv6')

const nonPublic = new BlockList()
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  nonPublic.addSubnet(net, bits)
}
for (const [net, bits] of [
  ['::', 128],
  ['64:ff9b:1::', 48],
  ['::', 96],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const) {
  nonPublic.addSubnet(net, bits, 'ipv6')
}

/** How far from us an IP address is. */
export type Reach = 'loopback' | 'private' | 'public'

/** The 16 bytes of an IPv6 address; its zone counts for nothing. */
export function ipv6Bytes(address: string): Uint8Array {
  // The URL standard has one way to write an address: hexadecimal, also where a dotted IPv4 address stood.
  const [head = '', tail] = new URL(`http://[${address.replace(/%.*$/, '')}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':'))
  const [left, right] = [groups(head), groups(tail ?? '')]
  const all = [...left, ...Array(8 - left.length - right.length).fill('0'), ...right]
  return Uint8Array.from(all.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]))
}

/** Prefixes of addresses that hold an IPv4 address: where they begin, how many bytes they have. */
const EMBEDDING: readonly (readonly [prefix: string, length: number])[] = [
  ['::ffff:0:0', 12], // mapped, RFC 4291 §2.5.5.2
  ['::ffff:0:0:0', 12], // translated, RFC 7915
  ['64:ff9b::', 12], // NAT64, RFC 6052 §2.1
  ['2002::', 2], // 6to4, RFC 3056 §2
]

/** The IPv4 address that a gateway, or our own system, makes of this IPv6 address. */
function embeddedIpv4(address: string): string | undefined {
  const bytes = ipv6Bytes(address)
  for (const [prefix, length] of EMBEDDING) {
    const begin = ipv6Bytes(prefix)
    if (bytes.subarray(0, length).every((byte, at) => byte === begin[at])) {
      return bytes.subarray(length, length + 4).join('.')
    }
  }
  return undefined
}

/** How far an IP address is; an IPv6 address that stands for an IPv4 one is as far as that one. */
export function reachOf(address: string): Reach {
  const family = isIP(address)
  const ipv4 = family === 6 ? embeddedIpv4(address) : undefined
  if (ipv4 !== undefined) return reachOf(ipv4)
  if (isLoopback(address)) return 'loopback'
  return nonPublic.check(address, family === 6 ? 'ipv6' : 'ipv4') ? 'private' : 'public'
}

/** Whether a host is a literal address of this machine. Unlike `reachOf`, not one that a gateway would translate into it. */
export function isLoopback(host: string): boolean {
  const family = isIP(host)
  return family !== 0 && loopback.check(host, family === 6 ? 'ipv6' : 'ipv4')
}

/** The host of a URL without the brackets of an IPv6 literal. */
export const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '')

/**
 * Reads a URL that a server sent.
 *
 * @throws {SyncError} `URL_INVALID`, also for one that carries a user name or password.
 */
export function parseForeignUrl(text: string, base?: string): URL {
  const url = URL.canParse(text, base) ? new URL(text, base) : undefined
  if (url === undefined || url.username !== '' || url.password !== '') {
    throw new SyncError('server', 'URL_INVALID', 'The server sent an address that cannot be used')
  }
  return url
}

/**
 * Reads a server's base URL.
 *
 * @param allow.path - Whether it may have a path (default: no).
 * @throws {SyncError} `URL_INVALID`; `URL_INSECURE` for http beyond 127.0.0.0/8 and ::1.
 */
export function parseBaseUrl(text: string, allow: { path?: boolean } = {}): URL {
  let url: URL
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `https://${text}`)
  } catch (cause) {
    throw new SyncError('usage', 'URL_INVALID', 'The server address is not a URL', {
      hint: 'Write it like https://files.example.org',
      cause,
    })
  }
  if (
    (url.protocol !== 'https:' && url.protocol !== 'http:') ||
    url.username ||
    url.password ||
    url.search ||
    url.hash
  ) {
    throw new SyncError('usage', 'URL_INVALID', 'The server address must be a plain http(s) URL', {
      hint: 'Leave out user names, passwords and queries.',
    })
  }
  if (url.pathname !== '/' && allow.path !== true) {
    throw new SyncError('usage', 'URL_INVALID', 'The server address must not have a path', {
      hint: `Use ${url.origin}`,
    })
  }
  checkGivenScheme(url)
  return url
}

/** The host that was found to be of this machine last: it is asked about for every request. */
let lastLoopback: string | undefined

const INSECURE_HINT = 'Use https; plain http is for 127.0.0.1 and [::1] only.'

/** Plain http only to a literal loopback address: a name could resolve to anything. */
function isAllowedScheme(url: URL): boolean {
  if (url.protocol === 'https:' || (url.protocol === 'http:' && url.hostname === lastLoopback)) return true
  if (url.protocol !== 'http:' || !isLoopback(hostOf(url))) return false
  lastLoopback = url.hostname
  return true
}

/** Of an address that a server sent, or that is about to be dialled. */
export function checkScheme(url: URL): void {
  if (isAllowedScheme(url)) return
  throw new SyncError('tls', 'URL_INSECURE', 'Refusing to talk to this server without TLS', { hint: INSECURE_HINT })
}

/** Of an address that somebody wrote: a mistake of theirs, which nothing but another address mends. */
export function checkGivenScheme(url: URL): void {
  if (isAllowedScheme(url)) return
  throw new SyncError('usage', 'URL_INSECURE', `Refusing to talk to ${url.host || 'this server'} without TLS`, {
    hint: INSECURE_HINT,
  })
}
