/**
 * Byte helpers the formats need: strict base64, hex, concatenation, constant-time equality, wiping, PEM. Pure, no platform.
 * @module
 */
import { SyncError } from './errors.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const VALUE = new Int8Array(128).fill(-1)
for (let i = 0; i < 64; i++) VALUE[ALPHABET.charCodeAt(i)] = i

/** Standard base64 with padding (RFC 4648 §4). */
export function toBase64(bytes: Uint8Array): string {
  let out = ''
  for (let i = 0; i < bytes.length; i += 3) {
    const a = bytes[i]!
    const b = bytes[i + 1]
    const c = bytes[i + 2]
    out += ALPHABET[a >> 2]! + ALPHABET[((a & 3) << 4) | ((b ?? 0) >> 4)]!
    out += b === undefined ? '=' : ALPHABET[((b & 15) << 2) | ((c ?? 0) >> 6)]!
    out += c === undefined ? '=' : ALPHABET[c & 63]!
  }
  return out
}

/**
 * Canonical base64 only: standard alphabet, padding present, unused bits zero, nothing else (RFC 4648 §3.5).
 *
 * @returns the bytes, or `undefined` when `text` is anything but the one canonical encoding.
 */
export function fromBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0) return undefined
  const pad = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0
  const digits = text.length - pad
  const out = new Uint8Array((text.length / 4) * 3 - pad)
  let bits = 0
  let held = 0
  let at = 0
  for (let i = 0; i < digits; i++) {
    const code = text.charCodeAt(i)
    const value = code < 128 ? VALUE[code]! : -1
    if (value < 0) return undefined
    bits = ((bits << 6) | value) & 0xffff
    held += 6
    if (held >= 8) {
      held -= 8
      out[at++] = (bits >> held) & 0xff
    }
  }
  return (bits & ((1 << held) - 1)) === 0 ? out : undefined
}

/** Lower-case hex. */
export function toHex(bytes: Uint8Array): string {
  let out = ''
  for (const byte of bytes) out += byte.toString(16).padStart(2, '0')
  return out
}

/** Unsigned big-endian integer. No string in between: the numbers of private keys pass here. Bound the length first. */
export function toBigInt(unsigned: Uint8Array): bigint {
  let value = 0n
  for (const byte of unsigned) value = (value << 8n) | BigInt(byte)
  return value
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const out = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

/** Equality whose time depends on the lengths only. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  let difference = 0
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!
  return difference === 0
}

/** Overwrites secrets with zeros. Best effort: a runtime may have copied them before. */
export function wipe(...secrets: readonly (Uint8Array | undefined)[]): void {
  for (const secret of secrets) secret?.fill(0)
}

/** A copy of its own memory. (`slice` would be a view when the input is a Node Buffer.) */
export const copy = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes)

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Largest PEM text or DER object read, in bytes. */
export const MAX_PEM_BYTES = 65_536

const badPem = (what: string, cause?: unknown) =>
  new SyncError('key', 'KEY_CONTAINER_INVALID', `${what} is not a well-formed PEM object`, {
    hint: 'The key material is damaged or comes from an incompatible program.',
    cause,
  })

/**
 * Reads one PEM object with exactly this label (RFC 7468 §2, lax about line length and line ends only).
 *
 * @param pem - At most 65,536 characters; LF or CRLF; a final line end may be missing.
 * @throws {SyncError} `KEY_CONTAINER_INVALID`.
 */
export function fromPem(pem: string, label: string): Uint8Array {
  if (pem.length > MAX_PEM_BYTES) throw badPem(label)
  // No regular expression with a repeated group here: on 64 KiB of line ends it would backtrack for seconds.
  const lines = pem.split(/\r?\n/)
  while (lines.at(-1) === '') lines.pop()
  if (lines.length < 3 || lines[0] !== `-----BEGIN ${label}-----` || lines.at(-1) !== `-----END ${label}-----`) {
    throw badPem(label)
  }
  const bytes = fromBase64(lines.slice(1, -1).join(''))
  if (bytes === undefined || bytes.length === 0) throw badPem(label)
  return bytes
}

/** PEM with 64-column lines, LF line ends and a final newline. */
export function toPem(bytes: Uint8Array, label: string): string {
  const lines = toBase64(bytes).match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
