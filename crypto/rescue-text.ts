/**
 * Rescue secrets as text that a person copies from paper: letters that are hard to confuse, in short lines that each have a
 * checksum, whole or split into shares. What a secret opens is rescue-key.ts and key-pair.ts.
 *
 * A line is up to 12 letters and 2 more, which are the remainder of (line number, letters), read as one number, modulo 1021. That is
 * prime and more than 32: one wrong letter, two neighbours of the twelve exchanged, or a line in another place never go unnoticed, and
 * anything else only once in a thousand times. The whole secret has four bytes of SHA-256 besides.
 * @module
 */
import { primitives } from '#primitives'
import { concat, copy, equal, toHex, utf8, wipe } from './bytes.ts'
import { SyncError } from './errors.ts'

/** What a secret is for: `key` (32 bytes) opens one's own key pair, `room` (20 bytes) is the rescue password of a room. */
export type RescueKind = 'key' | 'room'

/** A whole secret. */
export interface RescueSecret {
  readonly kind: RescueKind
  readonly secret: Uint8Array
}

/** One share of a secret. */
export interface RescueShare {
  readonly kind: RescueKind
  /** So many shares give the secret back; fewer say nothing about it. */
  readonly needed: number
  readonly of: number
  /** The same for all shares of one secret: 8 hexadecimal digits. */
  readonly set: string
  /** From 1. */
  readonly number: number
  readonly share: Uint8Array
}

/** What a text stands for. */
export type RescueText = RescueSecret | RescueShare

/** Crockford's base 32: no I, L, O and U. */
const LETTERS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
/** What else somebody may write for a letter. */
const ALSO: Readonly<Record<string, string>> = Object.freeze({ O: '0', I: '1', L: '1' })
const LINE_LETTERS = 12
const CHECK_LETTERS = 2
const MODULUS = 1021
const SECRET_BYTES: Readonly<Record<RescueKind, number>> = Object.freeze({ key: 32, room: 20 })
const CHECKSUM_BYTES = 4
const KINDS: readonly RescueKind[] = ['key', 'room']
/** Most shares: one byte each for how many there are and which one it is. */
export const MAX_SHARES = 255

const wrongLine = (number: number, why: string) =>
  new SyncError('usage', 'RESCUE_LINE_WRONG', `Line ${number} of the rescue text is not right: ${why}`, {
    hint: 'Compare it with the paper letter by letter. There is no I, L, O or U in it.',
  })

const invalid = (why: string) =>
  new SyncError('usage', 'RESCUE_TEXT_INVALID', `This is no rescue text: ${why}`, {
    hint: 'Type all lines of one paper, from the first to the last.',
  })

function checksumOf(kind: RescueKind, secret: Uint8Array): Uint8Array {
  return primitives.sha256(concat(utf8(`sealsync rescue ${kind}\n`), secret)).subarray(0, CHECKSUM_BYTES)
}

/** Bytes in front of what a text carries: the kind; of a share also how many are needed, how many there are, which it is, and the set. */
const HEAD_BYTES = { whole: 1, share: 8 }

const bodyBytes = (kind: RescueKind) => SECRET_BYTES[kind] + CHECKSUM_BYTES

/** By the first byte of a text; `undefined` for what there is not. */
function formOf(first: number): { kind: RescueKind; isShare: boolean; bytes: number } | undefined {
  const kind = KINDS[(first & 0x0f) - 1]
  const isShare = first >> 4 === 1
  if (kind === undefined || first >> 5 !== 0) return undefined
  const bytes = isShare ? HEAD_BYTES.share + bodyBytes(kind) + 1 : HEAD_BYTES.whole + bodyBytes(kind)
  return { kind, isShare, bytes }
}

const lettersFor = (bytes: number) => Math.ceil((bytes * 8) / 5)

const linesFor = (bytes: number) => Math.ceil(lettersFor(bytes) / LINE_LETTERS)

function toLetters(bytes: Uint8Array): string {
  let text = ''
  let [held, bits] = [0, 0]
  for (const byte of bytes) {
    held = (held << 8) | byte
    for (bits += 8; bits >= 5; bits -= 5) text += LETTERS[(held >> (bits - 5)) & 31]!
    held &= 31
  }
  return bits === 0 ? text : text + LETTERS[(held << (5 - bits)) & 31]!
}

/** @returns `undefined` when bits are left that are not zero. */
function fromLetters(text: string, length: number): Uint8Array | undefined {
  const bytes = new Uint8Array(length)
  let [held, bits, at] = [0, 0, 0]
  for (const letter of text) {
    held = ((held << 5) | LETTERS.indexOf(letter)) & 0xfff
    bits += 5
    if (bits < 8) continue
    bits -= 8
    bytes[at++] = (held >> bits) & 0xff
  }
  return at === length && (held & ((1 << bits) - 1)) === 0 ? bytes : undefined
}

function checkLetters(letters: string, number: number): string {
  let rest = number % MODULUS
  for (const letter of letters) rest = (rest * 32 + LETTERS.indexOf(letter)) % MODULUS
  return LETTERS[rest >> 5]! + LETTERS[rest & 31]!
}

/** Lines of a payload, in groups of four letters; the last group of a line is its checksum. */
function toLines(payload: Uint8Array): string[] {
  const chunks = toLetters(payload).match(/.{1,12}/g) ?? []
  return chunks.map((letters, at) => [...(letters.match(/.{1,4}/g) ?? []), checkLetters(letters, at + 1)].join(' '))
}

/**
 * Writes a secret as lines of text.
 *
 * @param secret - 32 bytes (`key`) or 20 (`room`).
 * @returns lines of letters in groups, to be printed with their numbers.
 */
export function formatRescueSecret({ kind, secret }: RescueSecret): readonly string[] {
  if (secret.length !== SECRET_BYTES[kind])
    throw new RangeError(`A secret of this kind has ${SECRET_BYTES[kind]} bytes`)
  const payload = concat(Uint8Array.of(KINDS.indexOf(kind) + 1), secret, checksumOf(kind, secret))
  try {
    return toLines(payload)
  } finally {
    wipe(payload)
  }
}

/**
 * Splits a secret into shares (Shamir, over the secret with its checksum), each written as lines of text.
 *
 * @param needed - So many of them give it back: 2 to `of`.
 * @param of - At most 255.
 * @returns the lines of each share, and the id of the set.
 * @throws {SyncError} `RESCUE_SHARES_INVALID`.
 */
export async function splitRescueSecret(
  { kind, secret }: RescueSecret,
  needed: number,
  of: number,
): Promise<{ readonly set: string; readonly shares: readonly (readonly string[])[] }> {
  if (!Number.isSafeInteger(needed) || !Number.isSafeInteger(of) || needed < 2 || of < needed || of > MAX_SHARES) {
    throw new SyncError(
      'usage',
      'RESCUE_SHARES_INVALID',
      `Shares are K of N, from 2 of 2 to ${MAX_SHARES} of ${MAX_SHARES}`,
    )
  }
  if (secret.length !== SECRET_BYTES[kind])
    throw new RangeError(`A secret of this kind has ${SECRET_BYTES[kind]} bytes`)
  const { split } = await import('shamir-secret-sharing')
  const body = concat(secret, checksumOf(kind, secret))
  const set = primitives.randomBytes(4)
  const form = (KINDS.indexOf(kind) + 1) | 0x10
  const made = await split(body, of, needed)
  const shares = made.map((share, at) => {
    const payload = concat(Uint8Array.of(form, needed, of, at + 1), set, share)
    const lines = toLines(payload)
    wipe(payload, share)
    return lines
  })
  wipe(body)
  return { set: toHex(set), shares }
}

/** What a person has typed for one letter each; everything that only groups letters is left out. */
function readLetters(line: string, number: number): string {
  let letters = ''
  for (const char of line.toUpperCase()) {
    if (/[\s\-–_.,]/.test(char)) continue
    const letter = ALSO[char] ?? char
    if (!LETTERS.includes(letter)) throw wrongLine(number, `${JSON.stringify(char)} is no letter of it`)
    letters += letter
  }
  return letters
}

/** @returns the letters without their checksum. */
function checkLine(line: string, number: number, most = LINE_LETTERS): string {
  const all = readLetters(line, number)
  const expected = most + CHECK_LETTERS
  if (all.length !== expected) throw wrongLine(number, `it has ${all.length} letters instead of ${expected}`)
  const letters = all.slice(0, -CHECK_LETTERS)
  if (checkLetters(letters, number) !== all.slice(-CHECK_LETTERS)) {
    throw wrongLine(number, 'a letter is wrong, or it is another line')
  }
  return letters
}

/** How many letters without checksum a line has in a text of so many bytes. */
const lettersOfLine = (bytes: number, number: number) =>
  Math.min(LINE_LETTERS, lettersFor(bytes) - LINE_LETTERS * (number - 1))

function formOfLetters(letters: string) {
  const first = LETTERS.indexOf(letters[0]!) * 8 + (LETTERS.indexOf(letters[1]!) >> 2)
  const form = formOf(first)
  if (form === undefined) throw invalid('it begins in another way, perhaps made by a newer program')
  return form
}

/** A text that is typed line by line. */
export interface RescueReader {
  /** Number of the line that comes next; `undefined` when all are there. */
  readonly next: number | undefined
  /** How many lines there are; `undefined` before the first. */
  readonly lines: number | undefined
  /** Takes the next line. Throws `RESCUE_LINE_WRONG`, and goes on waiting for it then. */
  add(line: string): void
  /** What the text stands for, when all lines are there. */
  result(): RescueText
}

/** Reads a text line by line, each of which is checked at once. */
export function createRescueReader(): RescueReader {
  const given: string[] = []
  let form: ReturnType<typeof formOf>
  return {
    get next() {
      return form !== undefined && given.length === linesFor(form.bytes) ? undefined : given.length + 1
    },
    get lines() {
      return form && linesFor(form.bytes)
    },
    add(line) {
      const number = given.length + 1
      const letters = checkLine(line, number, form === undefined ? LINE_LETTERS : lettersOfLine(form.bytes, number))
      form ??= formOfLetters(letters)
      given.push(letters)
    },
    result() {
      if (form === undefined || given.length < linesFor(form.bytes)) {
        const wanted = form === undefined ? '' : ` of ${linesFor(form.bytes)}`
        throw new SyncError('usage', 'RESCUE_TEXT_SHORT', `The rescue text ends after line ${given.length}${wanted}`, {
          hint: 'Type all lines of the paper. If a part of it is lost, it cannot be made up for.',
        })
      }
      const payload = fromLetters(given.join(''), form.bytes)
      if (payload === undefined) throw invalid('its last letter is wrong')
      return parsePayload(payload, form.kind, form.isShare)
    },
  }
}

function parsePayload(payload: Uint8Array, kind: RescueKind, isShare: boolean): RescueText {
  if (!isShare) return { kind, secret: openBody(payload.subarray(HEAD_BYTES.whole), kind) }
  const [, needed = 0, of = 0, number = 0] = payload
  if (needed < 2 || of < needed || number < 1 || number > of) throw invalid('there can be no such share')
  const share = copy(payload.subarray(HEAD_BYTES.share))
  return { kind, needed, of, number, set: toHex(payload.subarray(4, HEAD_BYTES.share)), share }
}

function openBody(body: Uint8Array, kind: RescueKind): Uint8Array {
  const secret = copy(body.subarray(0, SECRET_BYTES[kind]))
  if (!equal(body.subarray(SECRET_BYTES[kind]), checksumOf(kind, secret))) {
    throw invalid('its lines do not belong together, or several letters are wrong')
  }
  return secret
}

/** A number before a line, as it is printed. */
const NUMBERED = /^\s*(\d{1,2})\s*[:.)]\s*(\S.*)$/

/**
 * Reads a text: its lines with or without their numbers and whatever is printed around them, or all letters in one line, as a QR
 * code has them.
 *
 * @throws {SyncError} `RESCUE_LINE_WRONG`, which names the line; `RESCUE_TEXT_SHORT`, `RESCUE_TEXT_INVALID`.
 */
export function parseRescueText(text: string): RescueText {
  const all = text.split(/\r?\n/).filter((line) => line.trim() !== '')
  const numbered = all.map((line) => NUMBERED.exec(line)).filter((match) => match !== null)
  numbered.forEach(([, number], at) => {
    if (Number(number) !== at + 1) throw wrongLine(at + 1, `line ${number} stands in its place`)
  })
  let lines = numbered.length > 0 ? numbered.map(([, , line]) => line!) : all
  const [only] = lines
  if (lines.length === 1 && only !== undefined) {
    const width = LINE_LETTERS + CHECK_LETTERS
    lines = readLetters(only, 1).match(new RegExp(`.{1,${width}}`, 'g')) ?? []
  }
  const reader = createRescueReader()
  for (const line of lines) {
    if (reader.next === undefined) throw invalid('there is more behind its last line')
    reader.add(line)
  }
  return reader.result()
}

/** True for one share of several. */
export const isRescueShare = (text: RescueText): text is RescueShare => 'share' in text

/**
 * Puts shares together.
 *
 * @throws {SyncError} `RESCUE_SHARES_MIXED` for shares of different secrets; `RESCUE_SHARES_FEW` when there are too few;
 * `RESCUE_SHARES_WRONG` when they do not give back what was split.
 */
export async function combineRescueShares(given: readonly RescueShare[]): Promise<RescueSecret> {
  const [first] = given
  if (first === undefined) throw invalid('there is no share')
  const { kind, needed, of, set } = first
  const other = given.find((one) => one.set !== set || one.kind !== kind || one.needed !== needed || one.of !== of)
  if (other !== undefined) {
    throw new SyncError('usage', 'RESCUE_SHARES_MIXED', `These shares are of different sets: ${set} and ${other.set}`, {
      hint: 'Take shares that name the same set.',
    })
  }
  const byNumber = new Map(given.map((one) => [one.number, one.share]))
  if (byNumber.size < needed) {
    throw new SyncError(
      'usage',
      'RESCUE_SHARES_FEW',
      `There are ${byNumber.size} different shares, and ${needed} are needed`,
      {
        hint: `Find ${needed - byNumber.size} more of set ${set}; fewer say nothing about the secret.`,
      },
    )
  }
  const { combine } = await import('shamir-secret-sharing')
  const body = await combine([...byNumber.values()]).catch(() => new Uint8Array(bodyBytes(kind)))
  try {
    const secret = copy(body.subarray(0, SECRET_BYTES[kind]))
    if (equal(body.subarray(SECRET_BYTES[kind]), checksumOf(kind, secret))) return { kind, secret }
  } finally {
    wipe(body)
  }
  throw new SyncError('usage', 'RESCUE_SHARES_WRONG', 'These shares do not belong together', {
    hint: 'One of them was typed with several wrong letters, or was changed.',
  })
}

/**
 * The rescue password of a room, as other programs are given it: the letters of the secret, and one of each kind that servers ask for.
 *
 * @param secret - 20 bytes.
 */
export const roomRescuePassword = (secret: Uint8Array): string =>
  `${(toLetters(secret).match(/.{1,4}/g) ?? []).join('-')}-rk1`
