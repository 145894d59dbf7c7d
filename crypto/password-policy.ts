/**
 * The rules a server publishes for encryption passwords. The server never sees such a password, so only the client can apply
 * them, and does so when a key pair is made or its password changed, never when one is unlocked.
 * @module
 */

/** Kinds of characters; `alpha` is a letter of either case, `special` anything that is neither letter nor digit. */
export type CharacterKind = 'alpha' | 'uppercase' | 'lowercase' | 'numeric' | 'special'

/** `encryptionPasswordPolicies` as the server sends it; whatever is absent is not asked for. */
export interface PasswordPolicy {
  /** In characters. */
  readonly minLength?: number
  readonly characterRules?: {
    /** Also `all` (upper, lower, numeric, special) and `none`; unknown words are ignored. */
    readonly mustContainCharacters?: readonly string[]
    /** How many of the listed kinds must occur. */
    readonly numberOfCharacteristicsToEnforce?: number
  }
  readonly rejectUserInfo?: boolean
  readonly rejectKeyboardPatterns?: boolean
}

/** A rule of the server that a password does not follow. */
export type PasswordViolation =
  | { readonly rule: 'minLength'; readonly minLength: number }
  | { readonly rule: 'characters'; readonly required: number; readonly missing: readonly CharacterKind[] }
  | { readonly rule: 'userInfo' }
  | { readonly rule: 'keyboardPattern' }

const KINDS: Readonly<Record<CharacterKind, RegExp>> = Object.freeze({
  alpha: /\p{L}/u,
  uppercase: /\p{Lu}/u,
  lowercase: /\p{Ll}/u,
  numeric: /\p{Nd}/u,
  special: /[^\p{L}\p{Nd}]/u,
})

const ALL: readonly CharacterKind[] = ['uppercase', 'lowercase', 'numeric', 'special']
const isKind = (word: string): word is CharacterKind => Object.hasOwn(KINDS, word)

/** Rows of the two common Latin layouts, which differ in y and z and in what stands beyond the letters. */
const KEYBOARD_ROWS = ['1234567890', 'qwertyuiop', 'qwertzuiopü', 'asdfghjkl', 'asdfghjklöä', 'zxcvbnm', 'yxcvbnm']
const PATTERN_LENGTH = 4

function hasKeyboardPattern(lower: string): boolean {
  for (const row of KEYBOARD_ROWS) {
    for (const line of [row, [...row].reverse().join('')]) {
      for (let at = 0; at + PATTERN_LENGTH <= line.length; at++) {
        if (lower.includes(line.slice(at, at + PATTERN_LENGTH))) return true
      }
    }
  }
  return false
}

/** Shorter pieces of a name occur in too many good passwords. */
const SHORTEST_USER_INFO = 3

/**
 * Checks a new encryption password against the server's policy.
 *
 * @param userInfo - First name, last name, e-mail address and user name, for `rejectUserInfo`.
 * @returns every rule that is broken; empty when the password will do.
 */
export function checkPassword(
  password: string,
  policy: PasswordPolicy,
  userInfo: readonly string[] = [],
): PasswordViolation[] {
  const violations: PasswordViolation[] = []
  const { minLength = 1, characterRules } = policy
  if ([...password].length < Math.max(1, minLength)) violations.push({ rule: 'minLength', minLength })

  const words = characterRules?.mustContainCharacters ?? []
  const kinds = [...new Set(words.flatMap((word) => (word === 'all' ? ALL : isKind(word) ? [word] : [])))]
  const required = Math.min(characterRules?.numberOfCharacteristicsToEnforce ?? kinds.length, kinds.length)
  const missing = kinds.filter((kind) => !KINDS[kind].test(password))
  if (kinds.length - missing.length < required) violations.push({ rule: 'characters', required, missing })

  const lower = password.toLowerCase()
  const pieces = userInfo.flatMap((info) => [info, ...info.split(/[@.\s]+/)]).map((piece) => piece.toLowerCase())
  if (policy.rejectUserInfo && pieces.some((piece) => piece.length >= SHORTEST_USER_INFO && lower.includes(piece))) {
    violations.push({ rule: 'userInfo' })
  }
  if (policy.rejectKeyboardPatterns && hasKeyboardPattern(lower)) violations.push({ rule: 'keyboardPattern' })
  return violations
}

/** What passwords are guessed by first, in any spelling. */
const COMMON_WORDS =
  /pass?w[o0]r[dt]|passwort|kennwort|letmein|welcome|willkommen|qwert[yz]|admin|login|master|secret|geheim|dragon|monkey|football|fussball|baseball|iloveyou|sunshine|princess|starwars|shadow|superman|hallo|hello|abc123|monday|summer|winter|sommer|januar|january|dracoon|changeme|default|test/g

const LOOKALIKES: Readonly<Record<string, string>> = Object.freeze({
  '0': 'o',
  '1': 'l',
  '3': 'e',
  '4': 'a',
  '5': 's',
  '7': 't',
  '@': 'a',
  $: 's',
})

/** Signs besides letters of other scripts, of which there are far more. */
const POOLS: readonly (readonly [RegExp, number])[] = [
  [/[a-z]/, 26],
  [/[A-Z]/, 26],
  [/[0-9]/, 10],
  [/[ -/:-@[-`{-~]/, 33],
  [/[^ -~]/, 100],
]

/** True for a sign that says little behind the one before: the same, its neighbour, or the next key. */
function follows(before: string, char: string): boolean {
  const step = char.codePointAt(0)! - before.codePointAt(0)!
  return Math.abs(step) <= 1 || KEYBOARD_ROWS.some((row) => row.includes(before + char) || row.includes(char + before))
}

/** Below that many bits a password is a matter of time for whoever has the locked key and machines for it. */
const ENOUGH_BITS = 50

/**
 * Estimates whether a password can be guessed: by its length, without what repeats, is a row of the keyboard or the alphabet, a word
 * that everybody takes, or a name of its owner. It sees no other words, so it praises nothing.
 *
 * @param userInfo - As for {@link checkPassword}.
 */
export function isWeakPassword(password: string, userInfo: readonly string[] = []): boolean {
  // What says nothing in a thousand signs says little in the rest.
  const start = password.slice(0, 1_000)
  const once = /^(.+?)\1+$/su.exec(start)?.[1] ?? start
  const lower = once.toLowerCase()
  const plain = lower.replace(/[013457@$]/g, (char) => LOOKALIKES[char]!)
  const names = userInfo.flatMap((info) => info.toLowerCase().split(/[@.\s]+/))
  const known = [
    ...[plain, lower].flatMap((text) =>
      [...text.matchAll(COMMON_WORDS)].map(({ 0: word, index }) => ({ word, index })),
    ),
    ...names
      .filter((name) => name.length >= SHORTEST_USER_INFO)
      .map((word) => ({ word, index: lower.indexOf(word) }))
      .filter(({ index }) => index !== -1),
  ]
  // A word counts as its first sign.
  const isKnown = (at: number) => known.some(({ word, index }) => at > index && at < index + word.length)
  const chars = Array.from(lower).filter((_char, at) => !isKnown(at))
  const signs = chars.filter((char, at) => at === 0 || !follows(chars[at - 1]!, char)).length
  const pool = POOLS.reduce((size, [kind, more]) => size + (kind.test(once) ? more : 0), 0)
  return signs * Math.log2(Math.max(2, pool)) < ENOUGH_BITS
}
