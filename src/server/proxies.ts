/**
 * Proxies in front of the server: whose word is taken for where a request comes from. Without any, that is the other end of the
 * connection.
 * @module
 */
import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, type Socket } from 'node:net'
import { SyncError } from '../../crypto/errors.ts'
import { isLoopback } from './hosts.ts'

/** Who is at the other end; see householdOf. */
export const addressOf = (socket: Pick<Socket, 'remoteAddress'>): string =>
  householdOf(plain(socket.remoteAddress ?? ''))

/** An IPv4 address, or the /64 network of an IPv6 address, which is one household. */
function householdOf(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.replace(/%.*$/, '').split('::')
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  while (tail !== undefined && groups.length + rest.length < 8) groups.push('0')
  return `${[...groups, ...rest].slice(0, 4).join(':')}::/64`
}

/** Where a request comes from, as far as that is known. */
export interface Origin {
  /** An IPv4 address, or the /64 network of an IPv6 one. */
  address: string
  /** How the client reached the proxy; undefined without one. */
  scheme: 'http' | 'https' | undefined
  /** What the client asked for, when a proxy says it. */
  host: string | undefined
}

/** Addresses without the form that IPv4 has in a socket of both kinds. */
const plain = (address: string): string => address.toLowerCase().replace(/^::ffff:(?=\d+\.)/, '')

const last = (header: string | string[] | undefined): string | undefined => {
  const text = Array.isArray(header) ? header.join(',') : header
  return text?.split(',').at(-1)?.trim()
}

export class Proxies {
  readonly #list = new BlockList()
  readonly isUsed: boolean

  /**
   * @param trusted - Addresses and networks: `10.0.0.2`, `10.0.0.0/8`, `fd00::/8`.
   * @throws {SyncError} `OPTION_INVALID`
   */
  constructor(trusted: readonly string[]) {
    this.isUsed = trusted.length > 0
    for (const one of trusted) {
      const [address = '', bits, rest] = one.split('/')
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
      const most = family === 'ipv6' ? 128 : 32
      const length = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
      if (isIP(address) === 0 || rest !== undefined || length < 0 || length > most) {
        throw new SyncError('usage', 'OPTION_INVALID', `Not an address or a network of a proxy: ${one}`)
      }
      this.#list.addSubnet(address, length, family)
    }
  }

  #has(address: string): boolean {
    const family = isIP(address)
    return family !== 0 && this.#list.check(address, family === 6 ? 'ipv6' : 'ipv4')
  }

  /** Whether the other end of a connection is such a proxy. */
  isProxy({ remoteAddress }: Pick<Socket, 'remoteAddress'>): boolean {
    return this.isUsed && this.#has(plain(remoteAddress ?? ''))
  }

  /** Whether somebody may come here without a proxy, when the connection is not encrypted: from this machine only. */
  mayComeDirectly({ remoteAddress }: Pick<Socket, 'remoteAddress'>): boolean {
    return !this.isUsed || isLoopback(plain(remoteAddress ?? ''))
  }

  /** Takes the nearest address that is no proxy's. What stands before it may be made up. */
  originOf({ socket, headers }: IncomingMessage): Origin {
    let address = plain(socket.remoteAddress ?? '')
    if (!this.isProxy(socket)) return { address: householdOf(address), scheme: undefined, host: undefined }
    const header = headers['x-forwarded-for']
    const hops = (Array.isArray(header) ? header.join(',') : (header ?? '')).split(',').map((hop) => plain(hop.trim()))
    for (const hop of hops.reverse()) {
      if (isIP(hop) === 0) break
      address = hop
      if (!this.#has(hop)) break
    }
    const scheme = last(headers['x-forwarded-proto'])?.toLowerCase()
    return {
      address: householdOf(address),
      scheme: scheme === 'https' || scheme === 'http' ? scheme : undefined,
      host: last(headers['x-forwarded-host']),
    }
  }
}
