/**
 * Rules that come from others do not count before somebody here has accepted them: a `.syncignore` decides what is sent, and one
 * that a run fetched, changed, moved or deleted was written by whoever may write into the room. Before a run touches such a file
 * here, a note is kept with what it said until then. That stays in force, whatever the file says, until `accept` removes the note.
 * @module
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, realpathSync, unlinkSync } from 'node:fs'
import { basename, dirname, join, sep } from 'node:path'
import { localError, SyncError, systemCode } from '../errors.ts'
import { writePrivateFile } from '../local/atomic-file.ts'
import { foldKey } from '../local/names.ts'
import { tooLong } from './ignore-rules.ts'
import type { EntryFailure } from './tree.ts'

export const IGNORE_FILE = '.syncignore'
/** Settings of whoever works in its directory; see cli/settings.ts. */
const SETTINGS_FILE = 'sealsync.toml'

/** Notes that are kept; a file beyond that is not fetched. */
const MAX_NOTES = 10_000
const SUFFIX = '.json'
/** Some file systems do not see these in a name. */
const INVISIBLE = /[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/gu

/** The name of a rule file, for every name that some disk takes for it. */
function ruleNameOf(name: string): string | undefined {
  const plain = foldKey(name.replace(INVISIBLE, ''))
  return [IGNORE_FILE, SETTINGS_FILE].find((one) => one === plain)
}

/** Stands for what is there and cannot be read as rules; no text is equal to it. */
export const UNREADABLE: Uint8Array = Uint8Array.of(0)

interface Note {
  /** Absolute real path. */
  readonly path: string
  /** Named in an option: held as soon as a run is about to write it. */
  readonly isHeld: boolean
  /** What it said before, base64; absent: it was not there. */
  readonly before?: string
  /** Of what was found there since; hex. Known wherever somebody puts it. */
  readonly found?: string
}

/** A rule file that waits for somebody. */
export interface HeldRule {
  readonly path: string
  /** What counts meanwhile; `undefined`: nothing. */
  readonly before: Uint8Array | undefined
  /** What it says now; `undefined` where it is gone. */
  readonly now: Uint8Array | undefined
}

/** What is known at the beginning of a look. */
export interface RulesInForce {
  /**
   * The rules that count at a path.
   *
   * @param path - Absolute.
   * @param found - What is there; `undefined`: nothing.
   */
  at(path: string, found: Uint8Array | undefined): { readonly bytes: Uint8Array | undefined; readonly isHeld: boolean }
}

/** What a run is about to do here, as far as it matters. */
interface Step {
  readonly do: string
  readonly path: readonly string[]
  readonly from?: readonly string[]
}

export interface HeldRules {
  look(): RulesInForce
  /**
   * To be called before a run changes anything below a directory. What it wrote has to be noted afterwards.
   *
   * @throws {SyncError} `TOO_MANY_RULES` (class `limit`), or of class `local_io`.
   */
  hold(root: string, steps: Iterable<Step>): Promise<void>
  /** Remembers what came, and returns what of it waits. */
  note(root: string): Promise<HeldRule[]>
  /** Says that a file is read for its rules, although its name does not tell; throws `RULES_NOT_ACCEPTED` if it waits. */
  requireAccepted(path: string): Promise<void>
  /** What waits at or below a path. */
  list(path: string): HeldRule[]
  /** Lets everything at or below a path count as it is now; returns what waited. */
  accept(path: string): Promise<HeldRule[]>
}

/** Where notes are kept. */
interface Notes {
  all(): Map<string, Note>
  put(note: Note): Promise<void>
  remove(path: string): void
}

const STEPS: ReadonlySet<string> = new Set(['download', 'keep-both', 'move-local', 'delete-local'])

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** What a rule file is told with. */
export function notAccepted(path: string, { before, now }: Pick<HeldRule, 'before' | 'now'>): EntryFailure {
  const what =
    now === undefined
      ? 'These rules were removed by what came from the server'
      : before === undefined
        ? 'These rules came from the server'
        : 'These rules were changed by what came from the server'
  const rest = before === undefined ? 'they do not count' : 'those from before count'
  const error = new SyncError('permission', 'RULES_NOT_ACCEPTED', `${what}; ${rest} until somebody accepts them`, {
    hint: 'Look at them: sync rules list DIRECTORY. Then: sync rules accept DIRECTORY',
  })
  return { path, error }
}

/** @param directory - Private; default: memory. */
export function createHeldRules(directory?: string): HeldRules {
  const notes = directory === undefined ? notesInMemory() : notesOnDisk(directory)

  /** Where a look has found what waits elsewhere. */
  const strays = new Set<string>()

  const beforeOf = ({ before }: Note) => (before === undefined ? undefined : Buffer.from(before, 'base64'))

  function waiting(note: Note): HeldRule | undefined {
    if (!note.isHeld) return undefined
    const [before, now] = [beforeOf(note), readQuietly(note.path)]
    return isSame(before, now) ? undefined : { path: note.path, before, now }
  }

  const below = (top: string): Note[] =>
    [...notes.all().values()].filter(
      ({ path }) => path === top || path.startsWith(top.endsWith(sep) ? top : `${top}${sep}`),
    )

  const list = (path: string): HeldRule[] => below(realPath(path)).flatMap((note) => waiting(note) ?? [])

  async function holdOne(known: Map<string, Note>, path: string): Promise<void> {
    if (known.get(path)?.isHeld) return
    if (known.size >= MAX_NOTES && !known.has(path)) {
      throw new SyncError('limit', 'TOO_MANY_RULES', `More than ${MAX_NOTES} rule files came from the server`, {
        hint: 'Accept or remove some: sync rules list',
      })
    }
    const before = readQuietly(path)
    const note = {
      path,
      isHeld: true,
      ...(before === undefined ? {} : { before: Buffer.from(before).toString('base64') }),
    }
    known.set(path, note)
    await notes.put(note)
  }

  return {
    look() {
      const known = notes.all()
      const strange = new Set([...known.values()].flatMap(({ isHeld, found }) => (isHeld && found ? [found] : [])))
      return {
        at(path, found) {
          if (known.size === 0) return { bytes: found, isHeld: false }
          const place = placeOf(path)
          const note = known.get(place)
          if (note?.isHeld) {
            const before = beforeOf(note)
            return { bytes: before, isHeld: !isSame(before, found) }
          }
          // Moved or copied here from where it waits.
          const isStrange = found !== undefined && strange.has(hashOf(found))
          if (isStrange) strays.add(place)
          return { bytes: isStrange ? undefined : found, isHeld: isStrange }
        },
      }
    },
    async hold(root, steps) {
      let known: Map<string, Note> | undefined
      let top: string | undefined
      for (const { do: action, path, from } of steps) {
        if (!STEPS.has(action)) continue
        known ??= notes.all()
        for (const one of from === undefined ? [path] : [path, from]) {
          const name = ruleNameOf(one.at(-1)!)
          if (name === undefined && known.size === 0) continue
          top ??= realPath(root)
          const place = join(top, ...one.slice(0, -1), name ?? one.at(-1)!)
          if (name !== undefined || known.has(place)) await holdOne(known, place)
        }
        if (from === undefined || known.size === 0) continue
        top ??= realPath(root)
        // A directory takes along what is in it.
        const [source, target] = [join(top, ...from), join(top, ...path)]
        for (const note of [...known.values()]) {
          if (!note.path.startsWith(`${source}${sep}`)) continue
          const moved = { ...note, path: target + note.path.slice(source.length) }
          known.set(moved.path, moved)
          await notes.put(moved)
        }
      }
    },
    async note(root) {
      for (const path of strays) await notes.put({ path, isHeld: true })
      strays.clear()
      const held = list(root)
      const known = notes.all()
      for (const { path, now } of held) {
        const note = known.get(path)
        const found = now && hashOf(now)
        if (note !== undefined && found !== undefined && note.found !== found) await notes.put({ ...note, found })
      }
      return held
    },
    async requireAccepted(path) {
      const place = realPath(path)
      const note = notes.all().get(place)
      if (note === undefined) return notes.put({ path: place, isHeld: false })
      const held = waiting(note)
      if (held === undefined) return
      const { message, hint } = notAccepted(path, held).error
      // Nothing can go on without it.
      throw new SyncError('changed', 'RULES_NOT_ACCEPTED', `${path}: ${message}`, hint === undefined ? {} : { hint })
    },
    list,
    async accept(path) {
      const accepted: HeldRule[] = []
      for (const note of below(realPath(path))) {
        const held = waiting(note)
        if (held !== undefined) accepted.push(held)
        if (note.isHeld) notes.remove(note.path)
      }
      const texts = new Set(accepted.flatMap(({ now }) => (now === undefined ? [] : [hashOf(now)])))
      for (const { found, ...note } of notes.all().values()) {
        if (found !== undefined && texts.has(found)) await notes.put(note)
      }
      return accepted
    },
  }
}

const isSame = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0

/** Bytes of rules that are looked at; more count as none. */
export const MAX_RULE_BYTES = 1024 * 1024

function readQuietly(path: string): Uint8Array | undefined {
  try {
    return readRuleFile(path)
  } catch {
    return UNREADABLE
  }
}

/** Reads a file of at most so many bytes; `undefined` when nothing is there. What is no regular file is no rules. */
export function readRuleFile(path: string, max = MAX_RULE_BYTES): Buffer | undefined {
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
    if (info.size > max) throw tooLong()
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Without links on the way to it. */
function placeOf(path: string): string {
  try {
    return join(realpathSync(dirname(path)), basename(path))
  } catch {
    return path
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return placeOf(path)
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith(SUFFIX))
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw localError(error, 'read which rules are accepted')
  }
}

/** @throws {SyncError} `RULES_LOST` (class `safety`): without the note what it was about would count. */
function parseNote(bytes: Uint8Array | undefined, file: string): Note | undefined {
  if (bytes === undefined) return undefined // accepted meanwhile
  try {
    const { path, isHeld, before, found } = JSON.parse(Buffer.from(bytes).toString('utf8'))
    const isText = (value: unknown) => value === undefined || typeof value === 'string'
    if (typeof path === 'string' && typeof isHeld === 'boolean' && isText(before) && isText(found)) {
      return { path, isHeld, ...(before === undefined ? {} : { before }), ...(found === undefined ? {} : { found }) }
    }
  } catch {
    // Told below.
  }
  throw new SyncError('safety', 'RULES_LOST', `Which rules are accepted cannot be read: ${file} is damaged`, {
    hint: `Remove it, and look at the ${IGNORE_FILE} files that came from the server.`,
  })
}

function notesInMemory(): Notes {
  const notes = new Map<string, Note>()
  return {
    all: () => new Map(notes),
    put: async (note) => void notes.set(note.path, note),
    remove: (path) => void notes.delete(path),
  }
}

function notesOnDisk(directory: string): Notes {
  const fileOf = (path: string) => join(directory, hashOf(Buffer.from(path)) + SUFFIX)
  return {
    all() {
      const notes = new Map<string, Note>()
      for (const name of namesIn(directory)) {
        const file = join(directory, name)
        const note = parseNote(readRuleFile(file, 2 * MAX_RULE_BYTES), file)
        if (note !== undefined) notes.set(note.path, note)
      }
      return notes
    },
    put: (note) => writePrivateFile(fileOf(note.path), JSON.stringify(note)),
    remove(path) {
      try {
        unlinkSync(fileOf(path))
      } catch (error) {
        if (systemCode(error) !== 'ENOENT') throw localError(error, 'accept the rules')
      }
    },
  }
}
