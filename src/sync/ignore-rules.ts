/**
 * The rules of .gitignore (gitignore(5), `wildmatch.c`), with a bound on what they cost: a list of them may come from others.
 * No regular expressions, which take exponential time for some rules: a star that does not fit is tried one place further, and
 * no star before it again. So a rule costs at most its length times that of the path.
 * @module
 */
import { SyncError } from '../errors.ts'
import { sameNameKey } from '../local/names.ts'

/** What all rules of a list may cost for one name: 0.1 µs each at worst, a tenth of that for most names. */
const MAX_COST = 50_000
/** UTF-16 units. */
const MAX_RULE = 4096

export type Verdict = 'ignored' | 'unignored' | undefined

export interface IgnoreRules {
  /**
   * What the last rule that fits says of a path, or of a directory that it is in.
   *
   * @param path - Components below the directory of the rules.
   */
  test(path: readonly string[], isDirectory: boolean): Verdict
  /** As of MAX_COST. */
  readonly cost: number
}

/** A character, any but a slash, any number of them, or one of a set. */
type Token = string | typeof ANY | typeof STAR | CharacterSet
const ANY = Symbol('?')
const STAR = Symbol('*')
/** Any number of components. */
const DEEP = Symbol('**')

interface CharacterSet {
  readonly isNegated: boolean
  readonly ranges: readonly (readonly [string, string])[]
}

type Segment = readonly Token[] | typeof DEEP

interface Rule {
  readonly isNegated: boolean
  readonly directoriesOnly: boolean
  /** Without a slash in it: fits a name at any depth. */
  readonly anywhere: boolean
  readonly fits: readonly (((name: string) => boolean) | typeof DEEP)[]
  readonly cost: number
}

/**
 * Reads a list of rules.
 *
 * @throws {SyncError} `FILTER_TOO_LONG` (class `limit`) where they would cost too much.
 */
export function parseRules(lines: readonly string[]): IgnoreRules {
  const rules: Rule[] = []
  let cost = 0
  for (const line of lines) {
    const rule = parseRule(sameNameKey(line))
    if (rule === undefined) continue
    rules.push(rule)
    cost += rule.cost
    if (cost > MAX_COST) throw tooLong()
  }
  // The last one decides.
  rules.reverse()
  /** Directories that were asked for, as `a/b`. */
  const directories = new Map<string, Verdict>()

  function decide(path: readonly string[], isDirectory: boolean): Verdict {
    const name = path.at(-1)!
    for (const { directoriesOnly, anywhere, fits, isNegated } of rules) {
      if (directoriesOnly && !isDirectory) continue
      const isFit = anywhere ? (fits[0] as (name: string) => boolean)(name) : fitsPath(fits, path)
      if (isFit) return isNegated ? 'unignored' : 'ignored'
    }
    return undefined
  }

  /** Nothing in a directory that is ignored can be taken in again. */
  function ofDirectory(path: readonly string[]): Verdict {
    if (path.length === 0) return undefined
    const key = path.join('/')
    if (directories.has(key)) return directories.get(key)
    const verdict = ofDirectory(path.slice(0, -1)) === 'ignored' ? 'ignored' : decide(path, true)
    directories.set(key, verdict)
    return verdict
  }

  return {
    cost,
    test(path, isDirectory) {
      if (rules.length === 0) return undefined
      const names = path.map(sameNameKey)
      if (isDirectory) return ofDirectory(names)
      return ofDirectory(names.slice(0, -1)) === 'ignored' ? 'ignored' : decide(names, false)
    },
  }
}

export const tooLong = (): SyncError =>
  new SyncError('limit', 'FILTER_TOO_LONG', 'There are too many rules, or too long ones', {
    hint: `There may be ${MAX_COST} rules without wildcards, fewer with; one may be ${MAX_RULE} characters long.`,
  })

function parseRule(line: string): Rule | undefined {
  let text = withoutTrailingSpaces(line)
  if (text === '' || text.startsWith('#')) return undefined
  if (text.length > MAX_RULE) throw tooLong()
  const isNegated = text.startsWith('!')
  if (isNegated) text = text.slice(1)
  const directoriesOnly = text.endsWith('/')
  if (directoriesOnly) text = text.slice(0, -1)
  const anywhere = !text.includes('/')
  if (text.startsWith('/')) text = text.slice(1)
  const segments = text === '' ? undefined : parseSegments(text, anywhere)
  if (segments === undefined) return undefined
  // What is in a directory, not the directory itself.
  if (segments.at(-1) === DEEP) segments.push([STAR])
  const cost = segments.reduce((sum, segment) => sum + costOf(segment), 0)
  const fits = segments.map((segment) => (segment === DEEP ? DEEP : fitterOf(segment)))
  return { isNegated, directoriesOnly, anywhere, fits, cost }
}

function withoutTrailingSpaces(line: string): string {
  const text = line.endsWith('\r') ? line.slice(0, -1) : line
  let end = text.length
  while (end > 0 && text[end - 1] === ' ') end--
  if (end === text.length) return text
  let backslashes = 0
  while (backslashes < end && text[end - 1 - backslashes] === '\\') backslashes++
  // A space that is quoted stays.
  return text.slice(0, backslashes % 2 === 1 ? end + 1 : end)
}

/**
 * A pattern for single names: `*`, `?` and `[…]`, with a backslash before what is meant as it is.
 *
 * @returns `undefined` for one that no name can fit.
 */
export function nameMatcher(pattern: string): ((name: string) => boolean) | undefined {
  if (pattern.length > MAX_RULE) throw tooLong()
  const [segment, ...more] = parseSegments(pattern, true) ?? []
  return segment === undefined || segment === DEEP || more.length > 0 ? undefined : fitterOf(segment)
}

/** @returns `undefined` for a rule that nothing can fit. */
function parseSegments(text: string, anywhere: boolean): Segment[] | undefined {
  const segments: Segment[] = []
  let tokens: Token[] = []
  let isDeep = false
  const finish = () => {
    segments.push(isDeep ? DEEP : tokens)
    tokens = []
    isDeep = false
  }
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!
    if (char === '/') {
      finish()
    } else if (char === '\\') {
      const next = text[++at]
      if (next === undefined || next === '/') return undefined
      tokens.push(next)
    } else if (char === '?') {
      tokens.push(ANY)
    } else if (char === '*') {
      let end = at
      while (text[end] === '*') end++
      const isWhole = tokens.length === 0 && (end === text.length || text[end] === '/')
      isDeep = isWhole && end - at > 1 && !anywhere
      tokens.push(STAR)
      at = end - 1
    } else if (char === '[') {
      const set = parseSet(text, at)
      if (set === undefined) return undefined
      tokens.push(set.set)
      at = set.end
    } else {
      tokens.push(char)
    }
  }
  finish()
  return segments
}

const CLASSES: Readonly<Record<string, readonly (readonly [string, string])[]>> = Object.freeze({
  alnum: [['0', '9'], ['A', 'Z'], ['a', 'z']],
  alpha: [['A', 'Z'], ['a', 'z']],
  blank: [[' ', ' '], ['\t', '\t']],
  cntrl: [['\0', '\x1f'], ['\x7f', '\x7f']],
  digit: [['0', '9']],
  graph: [['!', '~']],
  lower: [['a', 'z']],
  print: [[' ', '~']],
  punct: [['!', '/'], [':', '@'], ['[', '`'], ['{', '~']],
  space: [[' ', ' '], ['\t', '\n'], ['\r', '\r']],
  upper: [['A', 'Z']],
  xdigit: [['0', '9'], ['A', 'F'], ['a', 'f']],
}) // biome-ignore format: a table

/**
 * Reads `[…]`. A `]` right behind the bracket is a member.
 *
 * @returns the set and where its end is; `undefined` for one that has no end or names no class.
 */
function parseSet(text: string, start: number): { set: CharacterSet; end: number } | undefined {
  let at = start + 1
  const isNegated = text[at] === '!' || text[at] === '^'
  if (isNegated) at++
  const ranges: (readonly [string, string])[] = []
  /** What a range could begin with. */
  let before: string | undefined
  for (let isFirst = true; isFirst || text[at] !== ']'; isFirst = false) {
    let char = text[at]
    if (char === undefined) return undefined
    if (char === '[' && text[at + 1] === ':') {
      const close = text.indexOf(']', at + 2)
      if (close === -1) return undefined
      if (text[close - 1] === ':' && close - 1 > at + 1) {
        const found = CLASSES[text.slice(at + 2, close - 1)]
        if (found === undefined) return undefined
        ranges.push(...found)
        before = undefined
        at = close + 1
        continue
      }
    }
    const isRange = char === '-' && before !== undefined && text[at + 1] !== undefined && text[at + 1] !== ']'
    if (isRange) char = text[++at]!
    if (char === '\\') char = text[++at]
    if (char === undefined) return undefined
    ranges.push(isRange ? [before!, char] : [char, char])
    before = isRange ? undefined : char
    at++
  }
  return { set: { isNegated, ranges }, end: at }
}

/** Rules without wildcards, or with one star in front or behind, are compared as texts. */
function fitterOf(tokens: readonly Token[]): (name: string) => boolean {
  const isText = (token: Token) => typeof token === 'string'
  if (tokens.every(isText)) {
    const text = tokens.join('')
    return (name) => name === text
  }
  if (tokens[0] === STAR && tokens.slice(1).every(isText)) {
    const text = tokens.slice(1).join('')
    return (name) => name.endsWith(text)
  }
  if (tokens.at(-1) === STAR && tokens.slice(0, -1).every(isText)) {
    const text = tokens.slice(0, -1).join('')
    return (name) => name.startsWith(text)
  }
  if (isAmidst(tokens)) {
    const text = tokens.slice(1, -1).join('')
    return (name) => name.includes(text)
  }
  const last = tokens.lastIndexOf(STAR)
  if (last === -1) return (name) => name.length === tokens.length && fitsName(tokens, name)
  // What is behind the last star can only be at the end: there is nothing to try.
  const [front, end] = [tokens.slice(0, last + 1), tokens.slice(last + 1)]
  return (name) => {
    const at = name.length - end.length
    return at >= 0 && fitsName(end, name.slice(at)) && fitsName(front, name.slice(0, at))
  }
}

/** A text with a star on either side. */
const isAmidst = (tokens: readonly Token[]): boolean =>
  tokens.length > 2 &&
  tokens[0] === STAR &&
  tokens.at(-1) === STAR &&
  tokens.slice(1, -1).every((token) => typeof token === 'string')

/** A text between stars is looked for all over the name. */
const AMIDST = 10
/** The same for each token of what is looked for with wildcards in it. */
const SEARCH = 20

/** A comparison of texts ends at the first letter that differs; a search compares all of them again at each place. */
function costOf(segment: Segment): number {
  if (segment === DEEP) return 1
  const wildcards = segment.filter((token) => typeof token !== 'string').length
  if (isAmidst(segment)) return AMIDST
  if (wildcards === 0) return 1
  const [first, last] = [segment.indexOf(STAR), segment.lastIndexOf(STAR)]
  let [longest, run] = [0, 0]
  for (let at = first + 1; at < last; at++) {
    run = segment[at] === STAR ? 0 : run + 1
    longest = Math.max(longest, run)
  }
  return Math.ceil(wildcards + segment.length / 4 + SEARCH * longest)
}

function fitsToken(token: Token, char: string): boolean {
  if (typeof token === 'string') return token === char
  if (token === ANY) return true
  if (typeof token === 'symbol') return false
  return token.ranges.some(([from, to]) => char >= from && char <= to) !== token.isNegated
}

/** The last star takes more when what is behind it does not fit; those before it cannot make up for that. */
function fitsName(tokens: readonly Token[], name: string): boolean {
  let [at, token, retryAt, retryToken] = [0, 0, 0, -1]
  while (at < name.length) {
    const next = tokens[token]
    if (next === STAR) {
      if (token === tokens.length - 1) return true
      retryAt = at
      retryToken = ++token
    } else if (next !== undefined && fitsToken(next, name[at]!)) {
      at++
      token++
    } else if (retryToken !== -1) {
      at = ++retryAt
      token = retryToken
    } else {
      return false
    }
  }
  while (tokens[token] === STAR) token++
  return token === tokens.length
}

/** The same, with components for letters and `**` for a star. */
function fitsPath(fits: Rule['fits'], path: readonly string[]): boolean {
  let [at, part, retryAt, retryPart] = [0, 0, 0, -1]
  while (at < path.length) {
    const next = fits[part]
    if (next === DEEP) {
      retryAt = at
      retryPart = ++part
    } else if (next?.(path[at]!)) {
      at++
      part++
    } else if (retryPart !== -1) {
      at = ++retryAt
      part = retryPart
    } else {
      return false
    }
  }
  while (fits[part] === DEEP) part++
  return part === fits.length
}
