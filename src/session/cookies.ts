/**
 * Cookies of a session's own server, for services that keep something in them beside the login: kept only where somebody asks for it,
 * sent to that origin only. The rules (RFC 6265) are those of `tough-cookie`.
 * @module
 */
import type { CookieJar } from 'tough-cookie'
import { SyncError } from '../errors.ts'
import type { Send } from '../http/types.ts'

const MAX_COOKIES = 50
const MAX_COOKIE = 4_096

/** Cookies as plain JSON, values included: keep them like a login. */
export type DumpedCookies = readonly Readonly<Record<string, unknown>>[]

export interface Cookies {
  /** Adds them to requests, and takes them from answers. */
  wrap(send: Send): Send
  dump(): Promise<DumpedCookies>
}

const invalid = () => new SyncError('usage', 'SESSION_INVALID', 'The cookies of the exported session are damaged')

/** @param kept - Of a dump. */
export function createCookies(origin: string, kept: DumpedCookies = []): Cookies {
  let made: Promise<CookieJar> | undefined
  const open = async () => {
    const { CookieJar, version } = await import('tough-cookie')
    const options = { version: `tough-cookie@${version}`, storeType: 'MemoryCookieStore', rejectPublicSuffixes: true }
    return CookieJar.deserialize({ ...options, cookies: [...kept] })
  }
  const jar = () => {
    made ??= open().catch(() => {
      throw invalid()
    })
    return made
  }
  const countOf = async (from: CookieJar) => (await from.serialize()).cookies.length

  async function take(set: string | undefined, url: string): Promise<void> {
    if (set === undefined) return
    const into = await jar()
    for (const one of set.split('\n', MAX_COOKIES)) {
      if (one.length > MAX_COOKIE) continue
      // A server that sets what it may not set is not a reason to fail.
      const cookie = await into.setCookie(one, url, { ignoreError: true }).catch(() => undefined)
      if (cookie === undefined || (await countOf(into)) <= MAX_COOKIES) continue
      await into.store.removeCookie(cookie.domain ?? '', cookie.path ?? '/', cookie.key)
    }
  }

  return {
    wrap: (send) => async (request) => {
      if (new URL(request.url).origin !== origin) return send(request)
      const cookie = await (await jar()).getCookieString(request.url)
      const response = await send(cookie === '' ? request : { ...request, headers: { ...request.headers, cookie } })
      await take(response.headers['set-cookie'], request.url)
      return response
    },
    dump: async () => (await (await jar()).serialize()).cookies as DumpedCookies,
  }
}

/** Checks the cookies of a dump. */
export function readCookies(value: unknown): DumpedCookies | undefined {
  if (value === undefined) return undefined
  const isCookie = (one: unknown) =>
    typeof one === 'object' &&
    one !== null &&
    Object.values(one).every((part) => !(typeof part === 'string' && part.length > MAX_COOKIE))
  if (Array.isArray(value) && value.length <= MAX_COOKIES && value.every(isCookie)) return value as DumpedCookies
  throw invalid()
}
