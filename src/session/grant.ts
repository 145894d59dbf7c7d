/**
 * Reading grants and dumped sessions that come from outside: a store, a file, another machine.
 * @module
 */
import { SyncError } from '../errors.ts'
import type { Grant } from './authorizer.ts'
import { type DumpedCookies, readCookies } from './cookies.ts'

/** A login as plain JSON, tokens included: keep it like a password. */
export interface SessionDump {
  readonly type: 'sealsync-session'
  readonly v: 1
  readonly origin: string
  /** Name of the authorizer that made it. */
  readonly method: string
  /** Absent: nobody was logged in. */
  readonly grant?: Grant
  /** What the client called itself, where the server wants that to stay the same. */
  readonly appVersion?: string
  readonly userAgent?: string
  /** Where the session keeps them. */
  readonly cookies?: DumpedCookies
}

type Fields = Record<string, unknown>

const isText = (value: unknown): value is string => typeof value === 'string'
const isTime = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value)
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The known fields of a grant, or `undefined` when it is none. */
export function readGrant(value: unknown): Grant | undefined {
  if (!isFields(value)) return undefined
  const { v, accessToken, refreshToken, expiresAt, lifetimeMs, scope, extra } = value
  // What goes into a header is visible ASCII, wherever it was kept meanwhile.
  if (v !== 1 || !isText(accessToken) || !/^[\x21-\x7e]+$/.test(accessToken)) return undefined
  if ((expiresAt === undefined) !== (lifetimeMs === undefined)) return undefined
  const hasEnd = isTime(expiresAt) && isTime(lifetimeMs)
  if (expiresAt !== undefined && !hasEnd) return undefined
  const texts = isFields(extra)
    ? Object.entries(extra).filter((entry): entry is [string, string] => isText(entry[1]))
    : []
  return {
    v,
    accessToken,
    ...(hasEnd ? { expiresAt, lifetimeMs } : {}),
    ...(isText(refreshToken) ? { refreshToken } : {}),
    ...(isText(scope) ? { scope } : {}),
    ...(texts.length > 0 ? { extra: Object.fromEntries(texts) } : {}),
  }
}

/** Reads the text of a stored grant. */
export function parseGrant(text: string): Grant | undefined {
  try {
    return readGrant(JSON.parse(text))
  } catch {
    return undefined
  }
}

/** What goes into a header. */
const CLIENT_NAME = /^[\x20-\x7e]{1,256}$/

const invalid = (message: string, cause?: unknown) =>
  new SyncError('usage', 'SESSION_INVALID', message, {
    hint: 'It must come unchanged from an export of this program, of a version not newer than this one.',
    cause,
  })

/**
 * Reads a dumped session.
 *
 * @param dump - What `dump()` returned, or its JSON.
 * @throws {SyncError} `SESSION_INVALID`; the message shows nothing of the content.
 */
export function parseDump(dump: unknown): SessionDump {
  let value = dump
  if (isText(dump)) {
    try {
      value = JSON.parse(dump)
    } catch {
      throw invalid('The exported session is not JSON') // the parser's own message would quote it
    }
  }
  if (!isFields(value) || value.type !== 'sealsync-session') throw invalid('This is not an exported session')
  if (value.v !== 1) throw invalid('The exported session has a version that is not known here')
  const { origin, method, appVersion, userAgent } = value
  const grant = value.grant === undefined ? undefined : readGrant(value.grant)
  const isBroken = value.grant !== undefined && grant === undefined
  const cookies = readCookies(value.cookies)
  if (isBroken || !isText(origin) || !URL.canParse(origin) || !isText(method)) {
    throw invalid('The exported session is damaged')
  }
  if (![appVersion, userAgent].every((name) => name === undefined || (isText(name) && CLIENT_NAME.test(name)))) {
    throw invalid('The exported session is damaged')
  }
  return {
    type: 'sealsync-session',
    v: 1,
    origin,
    method,
    ...(grant === undefined ? {} : { grant }),
    ...(isText(appVersion) ? { appVersion } : {}),
    ...(isText(userAgent) ? { userAgent } : {}),
    ...(cookies === undefined ? {} : { cookies }),
  }
}
