/**
 * Names between a local disk and the server. Upwards: what the server forbids is escaped as `%XX`, reversibly. Downwards:
 * `localName` is the only way from a remote name to a local one; it decodes our escapes and then refuses everything that
 * could leave the directory or mean something else to this platform.
 * @module
 */
import { SyncError } from '../errors.ts'

/** Longest name the server takes, in UTF-16 units. */
export const MAX_REMOTE_NAME = 150

const FORBIDDEN = /[\\<>:"|?*\u0000-\u001f]/
const RESERVED = /^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)/i
const HEX_PAIR = /^%[0-9A-Fa-f]{2}/
/** Anything that may have to be escaped, or is worth a closer look: most names have nothing of the kind. */
const UNUSUAL = /[\\<>:"|?*%\u0000-\u001f\ud800-\udfff]|^-|\.$|^(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\.|$)/i

const encoder = new TextEncoder()
const escapeChar = (char: string) =>
  Array.from(encoder.encode(char), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')

/**
 * The name under which a local name goes to the server: `%XX` for each UTF-8 byte of `\ < > : " | ? *`, C0 controls, a
 * leading `-`, a trailing `.`, the first letter of a reserved name, and `%` before two hex digits.
 *
 * @throws {SyncError} `NAME_TOO_LONG` above 150 UTF-16 units after escaping; `NAME_INVALID` for names that are no Unicode text.
 */
export function escapeName(name: string): string {
  if (name.length <= MAX_REMOTE_NAME && !UNUSUAL.test(name)) return name
  if (/\p{Surrogate}/u.test(name)) throw invalidName('is not valid Unicode text')
  let out = ''
  const chars = Array.from(name)
  let at = 0
  chars.forEach((char, index) => {
    const mustEscape =
      FORBIDDEN.test(char) ||
      (char === '-' && index === 0) ||
      (char === '.' && index === chars.length - 1) ||
      (char === '%' && HEX_PAIR.test(name.slice(at))) ||
      (index === 0 && RESERVED.test(name))
    out += mustEscape ? escapeChar(char) : char
    at += char.length
  })
  if (out.length > MAX_REMOTE_NAME) {
    throw new SyncError('usage', 'NAME_TOO_LONG', `The name has ${out.length} characters, the server takes 150`, {
      hint: 'Rename the file; characters that the server forbids count three each.',
    })
  }
  return out
}

/**
 * Undoes `escapeName`. Only what `escapeName` would have escaped is decoded: a `%41` that somebody typed stays as it is.
 */
export function unescapeName(name: string): string {
  if (!name.includes('%')) return name
  const decoded = name.replace(/(?:%[0-9A-F]{2})+/g, (run) => {
    try {
      return decodeURIComponent(run)
    } catch {
      return run
    }
  })
  if (decoded === name) return name
  // A faithful escape is one that this text would be escaped to again.
  try {
    return escapeName(decoded) === name ? decoded : name
  } catch {
    return name
  }
}

const invalidName = (why: string) =>
  new SyncError('usage', 'NAME_INVALID', `The name ${why}`, { hint: 'Rename it; it was left out.' })

const hostile = (why: string) =>
  new SyncError('usage', 'NAME_UNSAFE', `The remote name ${why}`, {
    hint: 'It could not be stored under this name without risk and was left out.',
  })

const WINDOWS_RESERVED = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(\.|$)/i

/** Throws unless `name` is one plain path component on this platform. */
export function checkLocalName(name: string, platform: NodeJS.Platform = process.platform): void {
  if (name === '' || name === '.' || name === '..') throw hostile('is empty or means a directory')
  if (name.includes('/') || name.includes('\0')) throw hostile('contains a separator or NUL')
  if (/\p{Surrogate}/u.test(name)) throw hostile('is not valid Unicode text')
  // NTFS counts UTF-16 units, the others bytes; a unit is three bytes at most.
  if (name.length > 85 && (platform === 'win32' ? name.length : encoder.encode(name).length) > 255) {
    throw hostile('is longer than 255 bytes')
  }
  if (platform !== 'win32') return
  if (/[\\:*?"<>|\u0000-\u001f]/.test(name)) throw hostile('contains a character Windows forbids')
  if (/[. ]$/.test(name)) throw hostile('ends with a dot or space')
  if (WINDOWS_RESERVED.test(name)) throw hostile('is reserved on Windows')
  if (/~\d/.test(name)) throw hostile('looks like a short (8.3) name')
}

/**
 * The one way from a remote name to a local path component.
 *
 * @throws {SyncError} `NAME_UNSAFE`.
 */
export function localName(remote: string, platform: NodeJS.Platform = process.platform): string {
  const name = unescapeName(remote)
  checkLocalName(name, platform)
  return name
}

/** Names are compared in this form and stored as they are. */
export const sameNameKey = (name: string): string => name.normalize('NFC')

/** Key under which names collide on file systems that fold case. */
export const foldKey = (name: string): string => name.normalize('NFC').toLowerCase().toUpperCase().toLowerCase()
