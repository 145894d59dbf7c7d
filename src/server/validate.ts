/**
 * Checks of foreign input: JSON fields, names, times, base64, wrapped file keys and key pair containers. Each check
 * throws an `ApiError` with the code that clients know; whether the caller may do something is decided elsewhere.
 * @module
 */
import { ApiError, badRequest } from './errors.ts'
import type { FileKeyRecord, KeyVersion } from './records.ts'

/** A parsed JSON object. Read it through the functions below only: they look at own properties. */
export type Fields = Readonly<Record<string, unknown>>

const MAX_NAME = 150
const MAX_PATH = 4096
const MAX_NOTES = 255
const MAX_PEM = 64 * 1024
const MAX_DEPTH = 32
/** What one AES-GCM stream with a 12-byte IV can hold: 2^36 - 32 bytes. */
export const MAX_ENCRYPTED_SIZE = 2 ** 36 - 32

/** Parses JSON text, refusing deep nesting before the parser sees it. */
export function parseJson(text: string): unknown {
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (inString) {
      if (c === 0x5c) i++
      else if (c === 0x22) inString = false
    } else if (c === 0x22) inString = true
    else if (c === 0x5b || c === 0x7b) {
      if (++depth > MAX_DEPTH) throw badRequest(undefined, 'JSON is nested too deeply')
    } else if (c === 0x5d || c === 0x7d) depth--
  }
  try {
    return JSON.parse(text)
  } catch {
    throw badRequest(undefined, 'Body is not valid JSON')
  }
}

export function asFields(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badRequest(-80000, 'Expected a JSON object')
  }
  return value as Fields
}

/** An own property, with null read as absent. */
export function field(fields: Fields, name: string): unknown {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined
  return value === null ? undefined : value
}

export function optionalString(fields: Fields, name: string): string | undefined {
  const value = field(fields, name)
  if (value === undefined) return undefined
  if (typeof value !== 'string') throw badRequest(-80000, `${name} must be a string`)
  return value
}

export function optionalBoolean(fields: Fields, name: string): boolean | undefined {
  const value = field(fields, name)
  if (value === undefined) return undefined
  if (typeof value !== 'boolean') throw badRequest(-80005, `${name} must be a boolean`)
  return value
}

/** An integer from 0 to 2^53 - 1. */
export function optionalInteger(fields: Fields, name: string): number | undefined {
  const value = field(fields, name)
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw badRequest(-80002, `${name} must be an integer`)
  if (value < 0) throw badRequest(-80001, `${name} must not be negative`)
  return value
}

export function requiredInteger(fields: Fields, name: string): number {
  const value = optionalInteger(fields, name)
  if (value === undefined) throw badRequest(-80000, `${name} is mandatory`)
  return value
}

export function optionalArray(fields: Fields, name: string): readonly unknown[] | undefined {
  const value = field(fields, name)
  if (value === undefined) return undefined
  if (!Array.isArray(value)) throw badRequest(-80000, `${name} must be an array`)
  return value
}

export function idList(fields: Fields, name: string): number[] {
  const list = optionalArray(fields, name)
  if (list === undefined || list.length === 0) throw badRequest(-80000, `${name} is mandatory`)
  return list.map((id) => {
    if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 1) throw badRequest(-80001, `${name}: bad id`)
    return id
  })
}

/** An id from a path or a query: decimal digits only. */
export function parseId(text: string): number | undefined {
  if (!/^[0-9]{1,16}$/.test(text)) return undefined
  const id = Number(text)
  return Number.isSafeInteger(id) ? id : undefined
}

const ILLEGAL_NAME = /[\\<>:"|?*/\u0000-\u001f\u007f]|^-|\.$|^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)/i
const LONE_SURROGATE = /\p{Surrogate}/u

/** A node name in NFC, or 400 with the code for bad names. */
export function checkName(value: unknown): string {
  if (value === undefined || value === null || value === '') throw badRequest(-80000, 'name is mandatory')
  if (typeof value !== 'string') throw badRequest(-40755, 'Bad node name')
  const name = value.normalize('NFC')
  if (name.length > MAX_NAME || ILLEGAL_NAME.test(name) || LONE_SURROGATE.test(name) || name.trim() === '') {
    throw badRequest(-40755, 'Bad node name')
  }
  return name
}

export function checkPathLength(parentPath: string, name: string): void {
  if (parentPath.length + name.length > MAX_PATH) throw badRequest(-41200, 'Path is too long')
}

export function optionalNotes(fields: Fields): string | undefined {
  const notes = optionalString(fields, 'notes')
  if (notes !== undefined && notes.length > MAX_NOTES) throw badRequest(-80007, 'notes are too long')
  return notes
}

export function optionalClassification(fields: Fields): number | undefined {
  const value = optionalInteger(fields, 'classification')
  if (value !== undefined && (value < 1 || value > 4)) throw badRequest(-40756, 'Invalid classification')
  return value
}

const TIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?$/i

/** Milliseconds since the epoch of an RFC 3339 time; a time without a zone is taken as UTC. */
export function parseTime(text: string): number | undefined {
  const match = TIME.exec(text)
  if (match === null) return undefined
  const zone = match[8]
  const ms = Date.parse(zone === undefined ? `${text}Z` : text.replace(/([+-]\d\d)(\d\d)$/, '$1:$2').toUpperCase())
  return Number.isNaN(ms) ? undefined : ms
}

export function optionalTime(fields: Fields, name: string): number | undefined {
  const text = optionalString(fields, name)
  if (text === undefined || text === '') return undefined
  const ms = parseTime(text)
  if (ms === undefined) throw badRequest(undefined, `${name} is not a valid date`)
  return ms
}

/** `{enableExpiration, expireAt}`: undefined when absent, 0 when switched off. */
export function optionalExpiration(fields: Fields, now: number): number | undefined {
  const value = field(fields, 'expiration')
  if (value === undefined) return undefined
  const expiration = asFields(value)
  if (optionalBoolean(expiration, 'enableExpiration') !== true) return 0
  const expireAt = optionalTime(expiration, 'expireAt')
  if (expireAt === undefined) throw badRequest(-80006, 'expireAt is mandatory')
  if (expireAt <= now) throw badRequest(-80006, 'expireAt is in the past')
  return expireAt
}

export type ConflictStrategy = 'autorename' | 'overwrite' | 'fail'

export function conflictStrategy(fields: Fields): ConflictStrategy {
  const value = optionalString(fields, 'resolutionStrategy') ?? 'autorename'
  if (value !== 'autorename' && value !== 'overwrite' && value !== 'fail') {
    throw badRequest(-80000, 'Unknown resolutionStrategy')
  }
  if (optionalBoolean(fields, 'keepShareLinks') === true && value !== 'overwrite') {
    throw badRequest(-80034, 'keepShareLinks needs resolutionStrategy overwrite')
  }
  return value
}

/** Length in bytes of canonical base64, or -1: `Buffer.from` alone would skip junk. */
function base64Length(text: string): number {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return -1
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes.length : -1
}

/** The key pair version that opens file keys of `version`. */
export function keyVersionOf(version: string): KeyVersion {
  if (version === 'A') return 'A'
  if (version === 'RSA-4096/AES-256-GCM') return 'RSA-4096'
  throw badRequest(-80062, 'Unknown file key version')
}

/** A wrapped file key: 12-byte IV, 16-byte tag, and 256 or 512 bytes of key by version. */
export function parseFileKey(value: unknown): FileKeyRecord {
  const fields = asFields(value)
  const [key, iv, tag, version] = ['key', 'iv', 'tag', 'version'].map((name) => field(fields, name))
  if (typeof key !== 'string' || typeof iv !== 'string' || typeof tag !== 'string' || typeof version !== 'string') {
    throw badRequest(-80062, 'Invalid file key')
  }
  const wrapped = keyVersionOf(version) === 'A' ? 256 : 512
  if (base64Length(key) !== wrapped || base64Length(iv) !== 12 || base64Length(tag) !== 16) {
    throw badRequest(-80062, 'Invalid file key')
  }
  return { key, iv, tag, version }
}

function isPem(text: unknown, label: string): text is string {
  if (typeof text !== 'string' || text.length > MAX_PEM) return false
  const body = text.trim()
  return body.startsWith(`-----BEGIN ${label}-----`) && body.endsWith(`-----END ${label}-----`)
}

/** One half of a key pair: checks version and PEM label, nothing inside. */
function parseKeyHalf(value: unknown, name: 'privateKey' | 'publicKey'): { version: KeyVersion; pem: string } {
  const [label, code] = name === 'publicKey' ? ['PUBLIC KEY', -70022] : ['ENCRYPTED PRIVATE KEY', -70023]
  if (value === undefined) throw badRequest(-80000, `${name}Container is mandatory`)
  const fields = asFields(value)
  const version = field(fields, 'version')
  const pem = field(fields, name)
  if ((version !== 'A' && version !== 'RSA-4096') || !isPem(pem, label as string)) {
    throw badRequest(code as number, `Invalid ${name} format`)
  }
  return { version, pem }
}

export function parsePrivateKey(value: unknown): { version: KeyVersion; pem: string } {
  return parseKeyHalf(value, 'privateKey')
}

/** A key pair container whose halves agree on the version. */
export function parseKeyPair(fields: Fields): { version: KeyVersion; privateKey: string; publicKey: string } {
  const publicHalf = parseKeyHalf(field(fields, 'publicKeyContainer'), 'publicKey')
  const privateHalf = parseKeyHalf(field(fields, 'privateKeyContainer'), 'privateKey')
  if (publicHalf.version !== privateHalf.version) throw badRequest(-70022, 'Versions of the two keys differ')
  return { version: publicHalf.version, privateKey: privateHalf.pem, publicKey: publicHalf.pem }
}

export interface Page {
  offset: number
  limit: number
}

/** `offset` and `limit` of a listing; a limit above `max` counts as `max`. */
export function pageOf(query: URLSearchParams, max = 500): Page {
  const read = (name: string, fallback: number, least: number): number => {
    const text = query.get(name)
    if (text === null || text === '') return fallback
    const value = parseId(text)
    if (value === undefined || value < least) throw new ApiError(400, -80024, `Invalid ${name}`)
    return value
  }
  return { offset: read('offset', 0, 0), limit: Math.min(read('limit', max, 1), max) }
}

/** The answer of a listing whose items are all at hand. */
export function pageReply<T>(items: readonly T[], page: Page): { range: Page & { total: number }; items: T[] } {
  return {
    range: { ...page, total: items.length },
    items: items.slice(page.offset, page.offset + page.limit),
  }
}
