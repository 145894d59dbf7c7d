/**
 * What of a tree takes part. Patterns are those of .gitignore; a `.syncignore` counts for its directory and below. What does
 * not take part is invisible on both sides: never transferred, never deleted.
 * @module
 */
import { closeSync, lstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { SyncError } from '../errors.ts'
import { sameNameKey } from '../local/names.ts'
import { rulesOf } from '../local/text-list.ts'
import { IGNORE_FILE, MAX_RULE_BYTES, notAccepted, type RulesInForce, readRuleFile, UNREADABLE } from './held-rules.ts'
import { type IgnoreRules, parseRules, tooLong } from './ignore-rules.ts'
import { createScope, isAtOrBelowAny } from './scope.ts'
import type { EntryFailure, LocalEntry } from './tree.ts'

/** What takes part in a run. */
export interface SelectionOptions {
  /** Lines of a .gitignore in their order: the last one that matches decides, `!` includes. They go before `.syncignore`. */
  readonly patterns?: readonly string[]
  /** Only these paths below the root, with all they hold; see `Selection.missing`. */
  readonly paths?: readonly string[]
  /** Nobody asks for these paths by name: they may be gone. */
  readonly pathsMayBeGone?: boolean
  /** Larger files stay out. Bytes. */
  readonly maxSize?: number
  /** Files modified within this time stay out. Milliseconds. */
  readonly minAgeMs?: number
  /**
   * Files that are of no use anywhere else stay out, unless a pattern or a `.syncignore` takes them in: `.DS_Store`, `Thumbs.db`,
   * `desktop.ini`, `~$*`, `*.part`. Default: true for what is sent or compared, false for what is fetched. What is asked for by its name
   * is no junk.
   */
  readonly defaultExcludes?: boolean
  /** What is in a directory with a `CACHEDIR.TAG` stays out, but for that. Default false. */
  readonly excludeCaches?: boolean
}

export interface Selection {
  /** Reads the directory's own rules; directories are entered parents first. */
  enter(source: string, path: readonly string[]): void
  /** Looks whether a directory is a cache, where that matters; `enter` does so, too. */
  lookForCache(source: string, path: readonly string[]): void
  takes(path: readonly string[], kind: LocalEntry['kind']): boolean
  /** True as long as nothing that was seen leaves anything out, junk aside. */
  readonly isEverything: boolean
  /** Whether a file of this name is left out as junk, as long as no rule takes it in. */
  isJunk(name: string): boolean
  /** Rule files that do not count before somebody accepts them. */
  readonly unaccepted: readonly EntryFailure[]
  /**
   * What was asked for by name and cannot be had: `PATH_MISSING`, `PATH_LEFT_OUT` by a rule, `PATH_INVALID`. For when everything
   * has been looked at.
   *
   * @param isThere - Whether there is something of this key, as `keyOf` makes it.
   */
  missing(isThere: (key: string) => boolean): EntryFailure[]
  /** Whether a file of this size and time takes part. */
  takesFile(size: number, modifiedAt: number): boolean
}

/** Of all lists of a tree together: bytes, and their cost at any one place. */
const MAX_ALL_BYTES = 64 * MAX_RULE_BYTES
const MAX_WAY_COST = 100_000

/**
 * @param now - Milliseconds since the epoch.
 * @param inForce - Which rule files count. Default: all.
 * @throws {SyncError} `FILTER_TOO_LONG`.
 */
export function createSelection(options: SelectionOptions, now: number, inForce?: RulesInForce): Selection {
  const { maxSize, minAgeMs } = options
  const own = options.patterns?.length ? parseRules(options.patterns) : undefined
  const wanted = options.paths && createList(options.paths)
  /** By directory, components joined. */
  const local = new Map<string, IgnoreRules>()
  const unaccepted: EntryFailure[] = []
  let bytes = 0

  const junk = options.defaultExcludes ? JUNK : undefined
  /** Directories that are caches, components joined. */
  const caches = new Set<string>()

  function isIgnored(path: readonly string[], kind: LocalEntry['kind']): boolean {
    const isDirectory = kind === 'directory'
    if (caches.size > 0 && path.at(-1) !== CACHE_TAG && caches.has(path.slice(0, -1).join('/'))) return true
    const verdict = own?.test(path, isDirectory)
    if (verdict === 'ignored') return true
    if (verdict === 'unignored') return false
    const isJunk = !isDirectory && junk?.test(path.at(-1)!) === true && wanted?.names(path) !== true
    if (local.size === 0) return isJunk
    // The rules of the deepest directory come last, so they decide.
    for (let depth = path.length - 1; depth >= 0; depth--) {
      const found = local.get(path.slice(0, depth).join('/'))?.test(path.slice(depth), isDirectory)
      if (found !== undefined) return found === 'ignored'
    }
    return isJunk
  }

  function lookForCache(source: string, path: readonly string[]): void {
    if (options.excludeCaches && isCache(source)) caches.add(path.join('/'))
  }

  function addRules(path: readonly string[], lines: readonly string[]): void {
    const rules = parseRules(lines)
    let cost = rules.cost + (own?.cost ?? 0)
    for (let depth = 0; depth < path.length; depth++) cost += local.get(path.slice(0, depth).join('/'))?.cost ?? 0
    for (const line of lines) bytes += line.length
    if (cost > MAX_WAY_COST || bytes > MAX_ALL_BYTES) throw tooLong()
    local.set(path.join('/'), rules)
  }

  return {
    unaccepted,
    get isEverything() {
      return (own ?? wanted ?? maxSize ?? minAgeMs) === undefined && local.size === 0 && caches.size === 0
    },
    isJunk: (name) => junk?.test(name) === true,
    lookForCache,
    enter(source, path) {
      lookForCache(source, path)
      const place = join(source, IGNORE_FILE)
      const { found, failure } = readRules(place)
      const rules = inForce?.at(place, found) ?? { bytes: found, isHeld: false }
      // What waits cannot do harm by being unreadable.
      if (failure !== undefined && !rules.isHeld) throw failure
      if (rules.isHeld)
        unaccepted.push(notAccepted([...path, IGNORE_FILE].join('/'), { before: rules.bytes, now: found }))
      if (rules.bytes !== undefined) addRules(path, rulesOf(rules.bytes, IGNORE_FILE))
    },
    takes(path, kind) {
      if (wanted?.has(path, kind) === false) return false
      const isOut = isIgnored(path, kind)
      if (isOut) wanted?.leaveOut(path)
      return !isOut
    },
    missing: (isThere) => (options.pathsMayBeGone ? [] : (wanted?.missing(isThere) ?? [])),
    takesFile(size, modifiedAt) {
      if (maxSize !== undefined && size > maxSize) return false
      return minAgeMs === undefined || now - modifiedAt >= minAgeMs
    },
  }
}

/** What systems and programs put beside files for themselves. */
const JUNK = /^(?:\.DS_Store|Thumbs\.db|desktop\.ini|~\$.*|.*\.part)$/is

/** Options of runs that send something, or compare what would be sent. */
export const withoutJunk = (options: SelectionOptions = {}): SelectionOptions => ({
  ...options,
  defaultExcludes: options.defaultExcludes ?? true,
})

/** The file that marks a cache, and how it begins; see https://bford.info/cachedir/ */
const CACHE_TAG = 'CACHEDIR.TAG'
const CACHE_SIGNATURE = 'Signature: 8a477f597d28d172789f06886806bc55'

/** A tag that cannot be read is none. */
function isCache(directory: string): boolean {
  let fd: number | undefined
  try {
    const path = join(directory, CACHE_TAG)
    // Not of a pipe, which would be waited for.
    if (!lstatSync(path, { throwIfNoEntry: false })?.isFile()) return false
    fd = openSync(path, 'r')
    const head = Buffer.alloc(CACHE_SIGNATURE.length)
    return readSync(fd, head, 0, head.length, 0) === head.length && head.toString('latin1') === CACHE_SIGNATURE
  } catch {
    return false
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

/** Paths by name, in any form of their letters. */
function createList(paths: readonly string[]) {
  /** As they were given, by key. The empty key is the root. */
  const listed = new Map<string, string>()
  const invalid: EntryFailure[] = []
  const leftOut = new Set<string>()
  for (const path of paths) {
    const parts = path.split('/').filter((part) => part !== '' && part !== '.')
    if (path.startsWith('/') || parts.includes('..')) {
      invalid.push({ path, error: outside() })
      continue
    }
    listed.set(sameNameKey(parts.join('/')), parts.join('/'))
  }
  const scope = createScope(listed.keys())
  return {
    /** True for what is at or below a path of the list, and for the directories that lead there. */
    has(path: readonly string[], kind: LocalEntry['kind']): boolean {
      const key = sameNameKey(path.join('/'))
      return scope.covers(key) || (kind === 'directory' && scope.above.has(key))
    },
    /** True for exactly a path of the list. */
    names: (path: readonly string[]): boolean => listed.has(sameNameKey(path.join('/'))),
    /** A rule is against it. */
    leaveOut(path: readonly string[]): void {
      const key = sameNameKey(path.join('/'))
      if (listed.has(key) || scope.above.has(key)) leftOut.add(key)
    },
    missing(isThere: (key: string) => boolean): EntryFailure[] {
      const failures = [...invalid]
      for (const [key, path] of listed) {
        if (isAtOrBelowAny(leftOut, key)) failures.push({ path, error: ruledOut() })
        else if (key !== '' && !isThere(key)) failures.push({ path, error: notThere() })
      }
      return failures
    },
  }
}

const outside = () =>
  new SyncError('usage', 'PATH_INVALID', 'This is no path below the directory', {
    hint: 'Paths in a list of files are relative to the local directory, or begin with its own.',
  })

const notThere = () => new SyncError('not_found', 'PATH_MISSING', 'There is no file or directory of this name')

const ruledOut = () =>
  new SyncError('usage', 'PATH_LEFT_OUT', 'It was asked for by name, and a rule leaves it out', {
    hint: `Take the rule out of ${IGNORE_FILE} or the options, or the path out of the list.`,
  })

function readRules(path: string): { found: Uint8Array | undefined; failure?: unknown } {
  try {
    return { found: readRuleFile(path) }
  } catch (failure) {
    return { found: UNREADABLE, failure }
  }
}
