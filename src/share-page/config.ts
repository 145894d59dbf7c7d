/**
 * Which server this page is for. That is decided by whoever puts the page up, in `config.json` beside it, and by nothing else: a link
 * names a share, and never a place to get it from or to send a password to.
 * @module
 */
import { Failure } from './failure.ts'

export interface Config {
  /** Origin of the server's API. */
  readonly api: string
  /** Origins of object stores that content may come from and go to, besides the server's. */
  readonly storage: readonly string[]
  /** Refuses shares of rooms that are not encrypted: no password is sent anywhere then. */
  readonly encryptedOnly: boolean
}

const setup = (what: string) => new Failure('SETUP', `config.json: ${what}`)

const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/

/** An origin, as `https://host` or `https://host:port`; without TLS only on this machine. */
function readOrigin(value: unknown, name: string): string {
  let url: URL
  try {
    url = new URL(String(value))
  } catch {
    throw setup(`${name} is not a URL`)
  }
  const isSafe = url.protocol === 'https:' || (url.protocol === 'http:' && LOOPBACK.test(url.hostname))
  if (!isSafe) throw setup(`${name} has to begin with https://`)
  if (`${url.origin}/` !== url.href) throw setup(`${name} has to be an origin: scheme, host and port, and no more`)
  return url.origin
}

/**
 * Reads the configuration.
 *
 * @param json - What `config.json` holds. Unknown fields are refused: a misspelt one would be a restriction that is not there.
 * @param own - Origin of the page, which is that of the server unless something else is said.
 */
export function readConfig(json: unknown, own: string): Config {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw setup('not an object')
  const { api, storage = [], encryptedOnly = false, ...unknown } = json as Record<string, unknown>
  const [misspelt] = Object.keys(unknown)
  if (misspelt !== undefined) throw setup(`${misspelt} is not known`)
  if (!Array.isArray(storage) || storage.length > 20) throw setup('storage is not a list')
  if (typeof encryptedOnly !== 'boolean') throw setup('encryptedOnly is not true or false')
  return {
    api: api === undefined ? own : readOrigin(api, 'api'),
    storage: storage.map((one) => readOrigin(one, 'storage')),
    encryptedOnly,
  }
}

/** Which share a link is for. */
export interface Link {
  readonly kind: 'download' | 'upload'
  /** Letters, digits, `-` and `_`: nothing that could lead to another place. */
  readonly key: string
}

const IN_PATH = /\/(download|upload)-shares\/([A-Za-z0-9_-]{1,128})\/?$/
const IN_HASH = /^#\/?(?:public\/)?(download|upload)-shares\/([A-Za-z0-9_-]{1,128})\/?$/

/**
 * Reads what the page was opened with: `/public/download-shares/KEY`, or, from a host of files that knows one path only,
 * `…/index.html#/download-shares/KEY`.
 */
export function readLink({ pathname, hash }: { pathname: string; hash: string }): Link | undefined {
  const [, kind, key] = IN_PATH.exec(pathname) ?? IN_HASH.exec(hash) ?? []
  return key === undefined ? undefined : { kind: kind as Link['kind'], key }
}
