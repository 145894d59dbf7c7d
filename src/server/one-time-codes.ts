/**
 * Second factor: time-based one-time codes as every authenticator app makes them (RFC 6238 with SHA-1, 6 digits, 30 s; HOTP is
 * RFC 4226, the secret's text form RFC 4648 §6).
 * @module
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

const STEP_MS = 30_000
const DIGITS = 6
const SECRET_BYTES = 20
/** Steps before and after now that count too: clocks differ, and people are slow. */
const TOLERANCE = 1

export const newSecret = (): Uint8Array => new Uint8Array(randomBytes(SECRET_BYTES))

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

function base32(bytes: Uint8Array): string {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, '0')).join('')
  return (bits.match(/.{5}/g) ?? []).map((five) => ALPHABET[Number.parseInt(five, 2)]).join('')
}

/** The address that authenticator apps read, from a picture or as it is. 20 bytes have no padding. */
export const authenticatorUri = (userName: string, secret: Uint8Array): string =>
  `otpauth://totp/sealsync:${encodeURIComponent(userName)}?secret=${base32(secret)}&issuer=sealsync`

/** The code of a step (RFC 4226 §5.3). */
export function codeAt(secret: Uint8Array, step: number): string {
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(step))
  const mac = createHmac('sha1', secret).update(counter).digest()
  const offset = mac[mac.length - 1]! & 0x0f
  return String((mac.readUInt32BE(offset) & 0x7fff_ffff) % 10 ** DIGITS).padStart(DIGITS, '0')
}

/**
 * Checks a code.
 *
 * @param lastStep - Of the last code that was accepted: each serves once (RFC 6238 §5.2).
 * @returns the step it belongs to, or `undefined` for a wrong or used one.
 */
export function checkCode(secret: Uint8Array, code: string, now: number, lastStep = -1): number | undefined {
  if (!/^\d{6}$/.test(code)) return undefined
  const current = Math.floor(now / STEP_MS)
  let found: number | undefined
  for (let step = Math.max(0, current - TOLERANCE); step <= current + TOLERANCE; step++) {
    const same = timingSafeEqual(Buffer.from(codeAt(secret, step)), Buffer.from(code))
    if (same && step > lastStep) found = step
  }
  return found
}
