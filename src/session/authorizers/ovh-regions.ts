/**
 * What both OVHcloud logins share about addresses: the regions, URLs that are sent exactly as they were built, and access
 * rules. Custom endpoints are for compatible servers and tests.
 * @module
 */
import { SyncError } from '../../errors.ts'
import { hostOf, isLoopback as isLoopbackHost, parseBaseUrl } from '../../http/addresses.ts'

interface Region {
  readonly endpoint: string
  /** Absent: this region has no OAuth2. */
  readonly tokenUrl?: string
  /** Login pages are on this domain or below it. */
  readonly domain: string
}

const REGIONS: Readonly<Record<string, Region>> = Object.freeze({
  'ovh-eu': {
    endpoint: 'https://eu.api.ovh.com/1.0',
    tokenUrl: 'https://www.ovh.com/auth/oauth2/token',
    domain: 'ovh.com',
  },
  'ovh-ca': {
    endpoint: 'https://ca.api.ovh.com/1.0',
    tokenUrl: 'https://ca.ovh.com/auth/oauth2/token',
    domain: 'ovh.com',
  },
  'ovh-us': {
    endpoint: 'https://api.us.ovhcloud.com/1.0',
    tokenUrl: 'https://us.ovhcloud.com/auth/oauth2/token',
    domain: 'ovhcloud.com',
  },
  'kimsufi-eu': { endpoint: 'https://eu.api.kimsufi.com/1.0', domain: 'kimsufi.com' },
  'kimsufi-ca': { endpoint: 'https://ca.api.kimsufi.com/1.0', domain: 'kimsufi.com' },
  'soyoustart-eu': { endpoint: 'https://eu.api.soyoustart.com/1.0', domain: 'soyoustart.com' },
  'soyoustart-ca': { endpoint: 'https://ca.api.soyoustart.com/1.0', domain: 'soyoustart.com' },
})

/** Names that `ovhEndpoint` knows. */
export const OVH_REGIONS: readonly string[] = Object.freeze(Object.keys(REGIONS))

/** Where an API is, and what else belongs to it. */
export interface OvhEndpoint {
  /** Without a slash at the end: base URL for `Session.create`. */
  readonly url: string
  readonly origin: string
  /** Absent: no OAuth2 here, or a custom endpoint. */
  readonly tokenUrl?: string
  /**
   * The URL a request goes out with: `/v1` and `/v2` are beside `/1.0`, not below it, and a fragment is never sent.
   *
   * @throws {SyncError} `ORIGIN_FOREIGN` for another server than this one.
   */
  sentUrl(url: string): string
  /** Whether a person may be sent to this page to log in. */
  isLoginPage(url: URL): boolean
}

const ROOT_VERSION = /\/1\.0$/
/** `/v10` is an ordinary path. */
const OTHER_VERSION = /^\/v[12](?=\/|$)/

/**
 * Looks a region up.
 *
 * @param nameOrUrl - One of `OVH_REGIONS`, or the URL of a compatible server with its path: `http://127.0.0.1:8080/1.0`.
 * @throws {SyncError} `REGION_UNKNOWN`; `URL_INVALID`, `URL_INSECURE` for a custom one.
 */
export function ovhEndpoint(nameOrUrl: string): OvhEndpoint {
  if (Object.hasOwn(REGIONS, nameOrUrl)) return endpointOf(REGIONS[nameOrUrl]!)
  if (!nameOrUrl.includes('://')) {
    throw new SyncError('usage', 'REGION_UNKNOWN', `There is no such region; known are ${OVH_REGIONS.join(', ')}`, {
      hint: 'Name one of them as the endpoint.',
    })
  }
  const endpoint = nameOrUrl.replace(/\/+$/, '')
  const region = Object.values(REGIONS).find((one) => one.endpoint === endpoint)
  return endpointOf(region ?? { endpoint, domain: '' })
}

function endpointOf({ endpoint, tokenUrl, domain }: Region): OvhEndpoint {
  const base = parseBaseUrl(endpoint, { path: true })
  if (base.href.replace(/\/+$/, '') !== endpoint) {
    throw new SyncError('usage', 'URL_INVALID', 'The endpoint is not written in its plain form', {
      hint: `Write it like ${base.href}`,
    })
  }
  const isLocal = isLoopback(base)
  const root = base.pathname
  return {
    url: endpoint,
    origin: base.origin,
    ...(tokenUrl === undefined ? {} : { tokenUrl }),
    sentUrl(text) {
      const url = new URL(text)
      if (url.origin !== base.origin) {
        throw new SyncError('usage', 'ORIGIN_FOREIGN', 'The request goes to another server than the login is for', {
          hint: 'Open the session with the URL of the endpoint.',
        })
      }
      const below = url.pathname.startsWith(`${root}/`) ? url.pathname.slice(root.length) : ''
      const isOther = ROOT_VERSION.test(root) && OTHER_VERSION.test(below)
      const path = isOther ? root.replace(ROOT_VERSION, '') + below : url.pathname
      return url.origin + path + url.search
    },
    isLoginPage(url) {
      if (url.username !== '' || url.password !== '') return false
      if (isLocal) return isLoopback(url)
      if (url.protocol !== 'https:') return false
      if (domain === '') return url.host === base.host
      return url.port === '' && (url.hostname === domain || url.hostname.endsWith(`.${domain}`))
    },
  }
}

const isLoopback = (url: URL) => /^https?:$/.test(url.protocol) && isLoopbackHost(hostOf(url))

type OvhQueryValue = string | number | boolean | bigint | null | undefined
/** `null` is the text "null", `undefined` is left out, lists repeat the name. */
export type OvhQuery = Readonly<Record<string, OvhQueryValue | readonly OvhQueryValue[]>>

const wrongPath = (message: string, cause?: unknown) =>
  new SyncError('usage', 'PATH_INVALID', message, {
    hint: 'Write the path as it reads, without percent signs, and give a query apart from it.',
    cause,
  })

function encodeSegment(text: string): string {
  try {
    return encodeURIComponent(text)
  } catch (cause) {
    throw wrongPath('The path has a letter that is only half there', cause)
  }
}

/**
 * Builds the URL of a call, once and for all: nothing on the way changes it any more, so that what is signed is what is sent.
 *
 * @param endpoint - See `ovhEndpoint`.
 * @param path - As it reads, `/domain/zone/é x`: each segment is percent-encoded. Behind a `?`, a query that is encoded
 * already. As a list: the segments, in which a slash is a letter like any other.
 * @param query - Appended, encoded as a form.
 * @throws {SyncError} `PATH_INVALID` for what a URL parser would change (`..`, say); `REGION_UNKNOWN`.
 */
export function ovhUrl(endpoint: string, path: string | readonly string[], query: OvhQuery = {}): string {
  const { url: base, sentUrl } = ovhEndpoint(endpoint)
  const [typed, given] = typeof path === 'string' ? splitPath(path) : [path, '']
  const pairs = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined) pairs.append(name, String(one))
  }
  const search = [given, pairs.toString()].filter((part) => part !== '').join('&')
  const text = `${base}/${typed.map(encodeSegment).join('/')}${search === '' ? '' : `?${search}`}`
  const url = new URL(text)
  if (url.href !== text || url.hash !== '') throw wrongPath('The path would change on its way')
  return sentUrl(text)
}

function splitPath(path: string): [string[], string] {
  if (!path.startsWith('/')) throw wrongPath('A path starts with a slash')
  const [, before = '', query = ''] = /^\/([^?]*)\??(.*)$/s.exec(path) ?? []
  return [before.split('/'), query]
}

/** A method, and a path that it is allowed for. */
export interface AccessRule {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** `*` stands for anything. */
  readonly path: string
}

/** Methods that are allowed together: to read, to write, to write without deleting. */
export type AccessMode = 'read-only' | 'read-write' | 'read-write-safe'

const METHODS: Readonly<Record<AccessMode, readonly AccessRule['method'][]>> = Object.freeze({
  'read-only': ['GET'],
  'read-write': ['GET', 'POST', 'PUT', 'DELETE'],
  'read-write-safe': ['GET', 'POST', 'PUT'],
})

/**
 * Rules for a path and everything below it; a wildcard alone would leave the path itself out.
 *
 * @param path - `/sms`, `/sms/` and `/sms/*` mean the same; `/` means everything.
 * @param mode - `read-write-safe` deletes nothing.
 */
export function accessRules(path: string, mode: AccessMode): AccessRule[] {
  const top = path.replace(/[*/ ]+$/, '')
  return [...(top === '' ? [] : [top]), `${top}/*`].flatMap((one) =>
    METHODS[mode].map((method) => ({ method, path: one })),
  )
}
