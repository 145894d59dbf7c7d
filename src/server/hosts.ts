/**
 * Which Host headers are served, and where the server may listen. A page on a foreign site must not reach a loopback
 * server through a name it controls.
 * @module
 */
import { isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'

/** Host header to host name: no port, no brackets, lower case. Undefined for anything malformed. */
function nameOf(host: string): string | undefined {
  const match = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$/.exec(host)
  return match?.[1]?.replace(/^\[|\]$/g, '').toLowerCase()
}

export function isLoopback(name: string): boolean {
  return name === 'localhost' || name === '::1' || (isIPv4(name) && name.startsWith('127.'))
}

/** The test for Host headers of a server that listens on `host`. */
export function hostFilter(host: string, extra: readonly string[]): (header: string) => boolean {
  const names = new Set([host, ...extra].map((name) => name.replace(/^\[|\]$/g, '').toLowerCase()))
  if (host === '0.0.0.0' || host === '::') {
    for (const list of Object.values(networkInterfaces())) for (const item of list ?? []) names.add(item.address)
  }
  return (header) => {
    const name = nameOf(header)
    return name !== undefined && (isLoopback(name) || names.has(name))
  }
}
