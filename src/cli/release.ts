/**
 * What a publisher says of the newest release: a signed text (JWS, RFC 7515, as flattened JSON; EdDSA with Ed25519, RFC 8037). Nothing
 * in it is believed before the signature is right. src/packaging/sign-release.mjs makes them.
 * @module
 */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { SyncError } from '../errors.ts'

/** The only header that is taken: another algorithm, or a text that was signed for another purpose, is not. */
export const RELEASE_HEADER = '{"alg":"EdDSA","typ":"sealsync-release+json"}'

/** Bytes of an answer that are read at most. */
export const MAX_RELEASE = 64 * 1024

/** Public key of our releases, 32 bytes in base64; empty as long as there are none, and then --update-key says it. */
export const RELEASE_KEY: string = ''

export interface Release {
  readonly version: string
  /** When it was published, milliseconds since 1970. */
  readonly releasedMs: number
  /** From then on the text says nothing any more, milliseconds since 1970. */
  readonly expiresMs: number
  /** Where to read about it and get it. */
  readonly url: string | undefined
}

/**
 * @param base64 - 32 bytes, in base64 or base64url.
 * @throws {SyncError} `OPTION_INVALID`.
 */
export function releaseKey(base64: string): KeyObject {
  const bytes = Buffer.from(base64, 'base64')
  if (!/^[\w+/-]{43}=?$/.test(base64) || bytes.length !== 32) {
    throw new SyncError('usage', 'OPTION_INVALID', '--update-key takes an Ed25519 public key: 32 bytes in base64')
  }
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: bytes.toString('base64url') }, format: 'jwk' })
}

const VERSION_FORM = /^(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,64}))?$/

const invalid = (why: string, cause?: unknown) =>
  new SyncError('integrity', 'RELEASE_INVALID', `What was said of the newest release is not to be believed: ${why}`, {
    hint: 'Is --update-url the right address, and --update-key the key of its publisher?',
    cause,
  })

function objectIn(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw invalid('it is not JSON', cause)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid('it is no object')
  return { ...value }
}

/** An ISO time, in milliseconds since 1970. */
function timeIn(fields: Record<string, unknown>, name: string): number {
  const text = fields[name]
  const ms = typeof text === 'string' && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(ms)) throw invalid(`"${name}" is no time`)
  return ms
}

/**
 * Reads a signed text.
 *
 * @param bytes - As the server has sent it.
 * @throws {SyncError} `RELEASE_INVALID`.
 */
export function readRelease(bytes: Uint8Array, key: KeyObject): Release {
  const { protected: header, payload, signature } = objectIn(Buffer.from(bytes).toString('utf8'))
  if (typeof header !== 'string' || typeof payload !== 'string' || typeof signature !== 'string') {
    throw invalid('it is not signed')
  }
  if (header !== Buffer.from(RELEASE_HEADER).toString('base64url')) throw invalid('it is signed for something else')
  if (!verify(null, Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, 'base64url'))) {
    throw invalid('its signature is not of this key')
  }
  const fields = objectIn(Buffer.from(payload, 'base64url').toString('utf8'))
  const { name, version, url } = fields
  if (name !== 'sealsync') throw invalid('it is about another program')
  if (typeof version !== 'string' || !VERSION_FORM.test(version)) throw invalid('"version" is no version')
  if (url !== undefined && !(typeof url === 'string' && /^https:\/\/\S{1,2000}$/.test(url))) {
    throw invalid('"url" is no https URL')
  }
  return { version, url, releasedMs: timeIn(fields, 'released'), expiresMs: timeIn(fields, 'expires') }
}

/** Identifiers of a pre-release, as semver orders them: numbers before words, and by value. */
function comparePre(a: string, b: string): number {
  const [left, right] = [a.split('.'), b.split('.')]
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [one, other] = [left[i], right[i]]
    if (one === other) continue
    if (one === undefined || other === undefined) return one === undefined ? -1 : 1
    const [isNumber, isOtherNumber] = [/^\d+$/.test(one), /^\d+$/.test(other)]
    if (isNumber && isOtherNumber) return Math.sign(Number(one) - Number(other))
    if (isNumber !== isOtherNumber) return isNumber ? -1 : 1
    return one < other ? -1 : 1
  }
  return 0
}

/** @returns less than, equal to or greater than 0, as semver orders versions. */
export function compareVersions(a: string, b: string): number {
  const [, ...left] = VERSION_FORM.exec(a) ?? []
  const [, ...right] = VERSION_FORM.exec(b) ?? []
  for (let i = 0; i < 3; i++) {
    const difference = Number(left[i] ?? 0) - Number(right[i] ?? 0)
    if (difference !== 0) return difference
  }
  const [pre, otherPre] = [left[3], right[3]]
  if (pre === otherPre) return 0
  if (pre === undefined || otherPre === undefined) return pre === undefined ? 1 : -1
  return comparePre(pre, otherPre)
}
