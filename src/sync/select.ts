/**
 * What of a tree takes part. Patterns are those of .gitignore; a `.syncignore` counts for its directory and below. What does
 * not take part is invisible on both sides: never transferred, never deleted.
 * @module
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ignore, { type Ignore } from 'ignore'
import { SyncError, systemCode } from '../errors.ts'
import type { LocalEntry } from './tree.ts'

export interface SelectionOptions {
  /** Lines of a .gitignore in their order: the last one that matches decides, `!` includes. They go before `.syncignore`. */
  readonly patterns?: readonly string[]
  /** Only these paths below the root, with all they hold. */
  readonly paths?: readonly string[]
  /** Larger files stay out. Bytes. */
  readonly maxSize?: number
  /** Files modified within this time stay out. Milliseconds. */
  readonly minAgeMs?: number
}

export interface Selection {
  /** Reads the directory's own rules; directories are entered parents first. */
  enter(source: string, path: readonly string[]): void
  takes(path: readonly string[], kind: LocalEntry['kind']): boolean
  /** True as long as nothing that was seen leaves anything out. */
  readonly isEverything: boolean
  /** Whether a file of this size and time takes part. */
  takesFile(size: number, modifiedAt: number): boolean
}

export const IGNORE_FILE = '.syncignore'
const MAX_RULES = 1024 * 1024

const rules = (lines: string | readonly string[]): Ignore =>
  // Letters count, as they do for git on most systems.
  ignore({ ignorecase: false, allowRelativePaths: true }).add(lines as string)

/**
 * @param now - Milliseconds since the epoch.
 * @throws {SyncError} `PATH_INVALID` for a path that leads out of the root.
 */
export function createSelection(options: SelectionOptions, now: number): Selection {
  const { maxSize, minAgeMs } = options
  const own = options.patterns?.length ? rules(options.patterns) : undefined
  const wanted = options.paths?.map(components)
  /** By directory, components joined. */
  const local = new Map<string, Ignore>()

  function isIgnored(path: readonly string[], kind: LocalEntry['kind']): boolean {
    const name = (components: readonly string[]) => `${components.join('/')}${kind === 'directory' ? '/' : ''}`
    const verdict = own?.test(name(path))
    if (verdict?.ignored) return true
    if (verdict?.unignored || local.size === 0) return false
    // The rules of the deepest directory come last, so they decide.
    for (let depth = path.length - 1; depth >= 0; depth--) {
      const found = local.get(path.slice(0, depth).join('/'))?.test(name(path.slice(depth)))
      if (found?.ignored) return true
      if (found?.unignored) return false
    }
    return false
  }

  return {
    get isEverything() {
      return (own ?? wanted ?? maxSize ?? minAgeMs) === undefined && local.size === 0
    },
    enter(source, path) {
      const text = readRules(join(source, IGNORE_FILE))
      if (text !== undefined) local.set(path.join('/'), rules(text))
    },
    takes(path, kind) {
      if (wanted !== undefined && !wanted.some((one) => isOnWay(path, one, kind))) return false
      return !isIgnored(path, kind)
    },
    takesFile(size, modifiedAt) {
      if (maxSize !== undefined && size > maxSize) return false
      return minAgeMs === undefined || now - modifiedAt >= minAgeMs
    },
  }
}

/** True for what is at or below `wanted`, and for the directories that lead there. */
function isOnWay(path: readonly string[], wanted: readonly string[], kind: LocalEntry['kind']): boolean {
  const depth = Math.min(path.length, wanted.length)
  if (path.length < wanted.length && kind !== 'directory') return false
  for (let at = 0; at < depth; at++) if (path[at] !== wanted[at]) return false
  return true
}

function components(path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (path.startsWith('/') || parts.includes('..') || parts.length === 0) {
    throw new SyncError('usage', 'PATH_INVALID', `Not a path below the root: ${path}`, {
      hint: 'Paths in a list of files are relative to the local directory.',
    })
  }
  return parts
}

/** The rules of one directory; `undefined` where it has none. What is no regular file is no rules. */
function readRules(path: string): string | undefined {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0))
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ELOOP') return undefined
    throw error
  }
  try {
    const info = fstatSync(fd)
    if (!info.isFile()) return undefined
    if (info.size > MAX_RULES) throw new SyncError('limit', 'FILTER_TOO_LONG', `${IGNORE_FILE} is longer than 1 MiB`)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}
