/**
 * What a backup set is, and where its parts are below its target: `files/` is the current state under real names, `history/`
 * what was changed or removed, by the run that did, and `runs/` one manifest per run. A set that is only written has `added/` instead of the
 * first two: what each run has stored.
 * @module
 */
import { isAbsolute, normalize } from 'node:path'
import { SyncError } from '../../errors.ts'

/** A backup set as it is configured. */
export interface BackupSet {
  readonly name: string
  /** Remote room or folder: `/room/backups/NAME`. */
  readonly target: string
  /** Absolute paths of directories, none within another. */
  readonly sources: readonly string[]
  /** Lines of a .gitignore; they match whole paths, so `/home/` and the like start at the root. */
  readonly exclude: readonly string[]
  readonly oneFileSystem: boolean
  /** Larger files stay out. Bytes. */
  readonly maxSize?: number | undefined
  /** Leave out what is of no use anywhere else; see `SelectionOptions`. Default true. */
  readonly defaultExcludes?: boolean | undefined
  /** Leave out what is in caches. Default false. */
  readonly excludeCaches?: boolean | undefined
  readonly keep: Retention
}

/** Runs that stay, each number by itself; see `runsToKeep`. */
export interface Retention {
  readonly last?: number | undefined
  readonly daily?: number | undefined
  readonly weekly?: number | undefined
  readonly monthly?: number | undefined
  readonly yearly?: number | undefined
}

/** True for a plain absolute path at or below another one. */
const isAtOrBelow = (path: string, above: string) => `${path}/`.startsWith(above === '/' ? above : `${above}/`)

/**
 * What is wrong with the sources of a set; `undefined` when nothing is.
 *
 * @param sources - Without slashes at their ends.
 */
export function sourceProblem(sources: readonly string[]): string | undefined {
  const open = sources.find((source) => !isAbsolute(source) || normalize(source) !== source)
  if (open !== undefined) return `"sources" takes absolute paths: ${open}`
  if (sources.length === 0) return '"sources" names nothing'
  for (const [at, source] of sources.entries()) {
    const other = sources.find((one, index) => index !== at && isAtOrBelow(one, source))
    if (other !== undefined) return `"sources" has ${other} twice: it is at or below ${source}`
  }
  return undefined
}

/** Where a set is, and how it is called: all that reading it needs. */
export type SetPlace = Pick<BackupSet, 'name' | 'target'>

/** Folder of the current state. */
export const FILES = 'files'
/** Folder of what is out of date, by the runs that replaced or removed it. */
export const HISTORY = 'history'
/** Folder of all contents of a set that is only written, by the runs that have stored them. */
export const ADDED = 'added'
/** Folder of the manifests. */
export const RUNS = 'runs'

/** What a run knows about another: enough to tell whether its manifest is still the same. */
export interface RunNote {
  readonly run: string
  /** Of the manifest: node, SHA-256 of its text (hex), IV and tag (base64), bytes. */
  readonly node: number
  readonly sha256: string
  readonly seal: string
  readonly size: number
  /** ISO 8601. */
  readonly startedAt: string
  readonly files: number
  readonly bytes: number
  /** Bytes of content that the run sent. */
  readonly addedBytes: number
  readonly isComplete: boolean
}

/** When a run began by the clock of its machine, in UTC, and the number of the run. */
const RUN = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-([1-9]\d{0,14})$/

/** True for the id of a run of a set. */
export const isRunId = (text: string): boolean => RUN.test(text) && !Number.isNaN(timeOfRun(text))

/** Milliseconds since the epoch, by a clock that may have been wrong. Only the number says which run came after which. */
export function timeOfRun(run: string): number {
  const [, year, month, day, hour, minute, second] = RUN.exec(run) ?? []
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
}

const numberOf = (run: string): number => Number(RUN.exec(run)?.[7])

/** Orders runs as they were made, whatever the clock said. Two machines may have given the same number. */
export const compareRuns = (a: string, b: string): number => numberOf(a) - numberOf(b) || (a < b ? -1 : a > b ? 1 : 0)

/** The last second that a year of four digits can name. */
const LAST_MS = Date.UTC(9999, 11, 31, 23, 59, 59)

/**
 * The id of a new run: its time, and a number that is one more than any there is.
 *
 * @param now - Milliseconds since the epoch.
 */
export function nextRun(now: number, known: Iterable<string>): string {
  let number = 0
  for (const run of known) number = Math.max(number, numberOf(run))
  const time = new Date(Math.min(Math.max(now, 0), LAST_MS)).toISOString().replace(/[-:]|\.\d+/g, '')
  return `${time}-${number + 1}`
}

/** A path of components as people write it. */
export const showSourcePath = (path: readonly string[]): string => `/${path.join('/')}`

/** The names in a path. */
export const componentsOf = (path: string): string[] => path.split('/').filter((part) => part !== '')

/** True for what is at or below `above`. */
export const isWithin = (path: readonly string[], above: readonly string[]): boolean =>
  above.length <= path.length && above.every((part, at) => path[at] === part)

/**
 * The run that somebody means.
 *
 * @param wanted - An id, or `latest`.
 * @throws {SyncError} `RUN_MISSING` (class `not_found`).
 */
export function findRun(runs: readonly RunNote[], wanted: string): RunNote {
  const found = wanted === 'latest' ? runs.at(-1) : runs.find(({ run }) => run === wanted)
  if (found !== undefined) return found
  throw new SyncError(
    'not_found',
    'RUN_MISSING',
    wanted === 'latest' ? 'There are no runs' : `There is no run ${wanted}`,
    {
      hint: 'See what there is: sync backup list NAME',
    },
  )
}
