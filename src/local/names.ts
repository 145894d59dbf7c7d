/**
 * Names between a local disk and the server. Upwards: what the server forbids is escaped as `%XX`, reversibly. Downwards:
 * `localName` is the only way from a remote name to a local one; it decodes our escapes and then refuses everything that
 * could leave the directory or mean something else to this platform.
 *
 * With `names: 'escape'` what would be refused gets a name that begins with `%=` on the other side: a local name that is too long
 * for the server is packed into Han characters there, a remote name that this disk cannot hold, or that would not come back
 * as it was, has its odd characters as `=XX` here (behind `%!` if no server should have it). Then both functions undo each other,
 * letter by letter, for all names that they take.
 * @module
 */
import { SyncError } from '../errors.ts'

/** Longest name the server takes, in UTF-16 units. */
export const MAX_REMOTE_NAME = 150

/** Longest name that most disks take, in bytes, or units on Windows. */
const MAX_LOCAL_NAME = 255

const FORBIDDEN = /[\\<>:"|?*\u0000-\u001f]/
const RESERVED = /^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)/i
const HEX_PAIR = /^%[0-9A-Fa-f]{2}/
/** Anything that may have to be escaped, or is worth a closer look: most names have nothing of the kind. */
const UNUSUAL = /[\\<>:"|?*%\u0000-\u001f\ud800-\udfff]|^-|\.$|^(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\.|$)/i

/** Begin names that stand for what the other side cannot hold; the second for what the server would refuse as well. */
const MARK = '%='
const HOSTILE_MARK = '%!'

/** What the other side cannot hold is refused and reported, or escaped reversibly. */
export type Names = 'report' | 'escape'

export interface NameRules {
  /** Default `report`. */
  readonly names?: Names | undefined
  /** Of the disk. Default: this one. */
  readonly platform?: NodeJS.Platform | undefined
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const escapeChar = (char: string) =>
  Array.from(encoder.encode(char), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')

/**
 * The name under which a local name goes to the server: `%XX` for each UTF-8 byte of `\ < > : " | ? *`, C0 controls, a
 * leading `-`, a trailing `.`, the first letter of a reserved name, and `%` before two hex digits.
 *
 * @throws {SyncError} `NAME_TOO_LONG` above 150 UTF-16 units after escaping; `NAME_INVALID` for names that are no Unicode text.
 */
export function escapeName(name: string, rules: NameRules = {}): string {
  if (name.length <= MAX_REMOTE_NAME && !UNUSUAL.test(name)) return name
  if (/\p{Surrogate}/u.test(name)) throw invalidName('is not valid Unicode text')
  if (rules.names === 'escape') return unmark(name, rules) ?? escapeOrPack(name)
  const escaped = encode(name)
  if (escaped.length > MAX_REMOTE_NAME) throw tooLong(escaped)
  return escaped
}

function encode(name: string): string {
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
  return out
}

const decode = (name: string): string =>
  name.replace(/(?:%[0-9A-F]{2})+/g, (run) => {
    try {
      return decodeURIComponent(run)
    } catch {
      return run
    }
  })

const tooLong = ({ length }: string) =>
  new SyncError('usage', 'NAME_TOO_LONG', `The name has ${length} characters, the server takes 150`, {
    hint: 'Rename the file (characters that the server forbids count three each), or see --names.',
  })

/**
 * Undoes `escapeName`. Only what `escapeName` would have escaped is decoded: a `%41` that somebody typed stays as it is.
 */
export function unescapeName(name: string): string {
  return faithful(name, decode(name), escapeName)
}

/** What a name stands for: a faithful escape is one that this text would be escaped to again. */
function faithful(name: string, decoded: string, escaped: (name: string) => string): string {
  if (decoded === name) return name
  try {
    return escaped(decoded) === name ? decoded : name
  } catch {
    return name
  }
}

/** As `escapeName`, whatever `name` stands for here; what gets too long is packed. */
function escapeOrPack(name: string): string {
  const escaped = encode(name)
  // What looks as if it had been packed must not be taken for that.
  const plain = unpack(escaped) === undefined ? escaped : escapeChar('%') + escaped.slice(1)
  if (plain.length <= MAX_REMOTE_NAME) return plain
  // Longer ones fit on few disks.
  if (encoder.encode(name).length > MAX_LOCAL_NAME) throw tooLong(plain)
  return pack(name)
}

/** Han characters that no normalization changes: 14 bits each. */
const HAN = 0x4e00
const HAN_BITS = 14

/** The longest local name takes 148 characters. */
function pack(name: string): string {
  let [out, bits, held] = [MARK, 0, 0]
  for (const byte of encoder.encode(name)) {
    bits = (bits << 8) | byte
    held += 8
    if (held < HAN_BITS) continue
    held -= HAN_BITS
    out += String.fromCharCode(HAN + (bits >> held))
    bits &= (1 << held) - 1
  }
  return held === 0 ? out : out + String.fromCharCode(HAN + (bits << (HAN_BITS - held)))
}

/** Undoes `pack`; `undefined` for what it cannot have made. */
function unpack(name: string): string | undefined {
  if (!name.startsWith(MARK)) return undefined
  const bytes: number[] = []
  let [bits, held] = [0, 0]
  for (const char of name.slice(MARK.length)) {
    const value = char.charCodeAt(0) - HAN
    if (value < 0 || value >= 1 << HAN_BITS) return undefined
    bits = (bits << HAN_BITS) | value
    held += HAN_BITS
    for (; held >= 8; held -= 8) bytes.push((bits >> (held - 8)) & 0xff)
    bits &= (1 << held) - 1
  }
  // The last character may have room for a byte that no name has.
  if (bytes.at(-1) === 0) bytes.pop()
  try {
    return decoder.decode(Uint8Array.from(bytes))
  } catch {
    return undefined
  }
}

/** What some disk cannot hold after a mark, and what escapes it. */
const ODD = /[=\\/:*?"<>|\u0000-\u001f]|[. ]$|~(?=\d)/g

/** A remote name as one that any disk can hold, unless it gets too long. */
const mark = (remote: string): string =>
  (isLegal(remote) ? MARK : HOSTILE_MARK) +
  remote.replace(ODD, (char) => `=${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`)

/** True for names that the server takes. */
const isLegal = (name: string): boolean =>
  name !== '' &&
  name.length <= MAX_REMOTE_NAME &&
  !FORBIDDEN.test(name) &&
  !/\/|^-|\.$/.test(name) &&
  !RESERVED.test(name)

/** The remote name that a local one stands for; `undefined` for one that stands for itself. */
function unmark(name: string, rules: NameRules): string | undefined {
  if (!name.startsWith(MARK) && !name.startsWith(HOSTILE_MARK)) return undefined
  const remote = name
    .slice(MARK.length)
    .replace(/=([0-7][0-9A-F])/g, (_escape, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return mark(remote) === name && plainName(remote, rules) === undefined ? remote : undefined
}

/** The local name of a remote one, where that needs no mark. */
function plainName(remote: string, rules: NameRules): string | undefined {
  const name = faithful(remote, unpack(remote) ?? decode(remote), escapeOrPack)
  try {
    checkLocalName(name, rules.platform)
    return escapeName(name, rules) === remote ? name : undefined
  } catch {
    return undefined
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
  if (name.length > MAX_LOCAL_NAME / 3) {
    const length = platform === 'win32' ? name.length : encoder.encode(name).length
    if (length > MAX_LOCAL_NAME) throw hostile('is longer than 255 bytes')
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
export function localName(remote: string, rules: NameRules = {}): string {
  const plain = rules.names === 'escape' ? plainName(remote, rules) : unescapeName(remote)
  const name = plain ?? mark(remote)
  checkLocalName(name, rules.platform)
  return name
}

/** Names are compared in this form and stored as they are. */
export const sameNameKey = (name: string): string => name.normalize('NFC')

/** Key under which names collide on file systems that fold case. */
export const foldKey = (name: string): string => name.normalize('NFC').toLowerCase().toUpperCase().toLowerCase()
