/**
 * The recycle bin of a synchronized directory: what a run removes or replaces on this disk goes into `.sealsync-bin`, under the
 * run's id and its own path, and stays there for a month.
 * @module
 */
import { lstatSync, readdirSync, renameSync, rmdirSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { localError, systemCode, toSyncError } from '../errors.ts'
import { BIN_NAME } from '../local/atomic-file.ts'
import { createSafeTree, type SafeTree } from '../local/safe-tree.ts'
import { keepCopy } from '../local/target.ts'

/** Milliseconds that things stay. */
const KEEP_MS = 30 * 24 * 60 * 60_000

export interface LocalBin {
  /** Where something goes, below the root; nothing is done yet. */
  placeOf(path: readonly string[]): string
  /** Keeps a copy of a file that is about to be replaced. */
  keep(path: readonly string[]): void
  /** Takes a file, a link, or a directory with all that is in it, away. */
  take(path: readonly string[]): void
}

export function createLocalBin(tree: SafeTree, runId: string): LocalBin {
  /** Does something with a file and its place in the bin, in the directories that were opened for both. */
  function withPlaces(path: readonly string[], work: (source: string, target: string) => void): void {
    const [parents, name] = [path.slice(0, -1), path.at(-1)!]
    tree.within(parents, (from) => tree.within([BIN_NAME, runId, ...parents], (to) => work(from.at(name), to.at(name))))
  }
  return {
    placeOf: (path) => [BIN_NAME, runId, ...path].join('/'),
    keep(path) {
      try {
        // A second name costs nothing, and the first is never gone.
        withPlaces(path, keepCopy)
      } catch (error) {
        if (systemCode(error) === 'EEXIST') return // kept by an attempt before
        throw localError(error, `keep the old ${path.join('/')}`)
      }
    },
    take(path) {
      try {
        withPlaces(path, renameSync)
      } catch (error) {
        throw localError(error, `move ${path.join('/')} into the bin`)
      }
    },
  }
}

/** Takes one copy out of the bin again, because what it was kept for did not come to be; with the directories that were made for it. */
export function dropFromBin(root: string, place: string): void {
  dropCopy(root, place)
  dropEmptyDirectories(root, place)
}

/** The same while a run goes on, to which a directory that is gone would look like one that somebody has replaced. */
export function dropCopy(root: string, place: string): void {
  const parts = place.split('/')
  const above = parts.slice(0, -1)
  if (!isDirectory(join(root, ...above))) return
  const tree = createSafeTree(root)
  try {
    tree.within(above, (directory) => rmSync(directory.at(parts.at(-1)!), { force: true }))
  } catch (error) {
    throw localError(error, `take ${place} out of the bin`)
  } finally {
    tree.close()
  }
}

/** Removes directories that were made for a place in the bin, up to that of the run; the first that is not empty ends this. */
export function dropEmptyDirectories(root: string, place: string): void {
  const parts = place.split('/')
  let length = parts.length - 1
  while (length > 0 && !isDirectory(join(root, ...parts.slice(0, length)))) length--
  if (length === 0) return
  const tree = createSafeTree(root)
  try {
    for (; length >= 1; length--) {
      const name = parts[length - 1]!
      tree.within(parts.slice(0, length - 1), (directory) => rmdirSync(directory.at(name)))
    }
  } catch {
    // Something is in it, or it is not ours to remove.
  } finally {
    tree.close()
  }
}

const isDirectory = (path: string): boolean => {
  try {
    return lstatSync(path).isDirectory()
  } catch {
    return false
  }
}

/** The longest step between two runs that counts as time; a longer one may be a clock that was set. Milliseconds. */
const MOST_STEP_MS = KEEP_MS / 2

/**
 * Removes what runs put into the bin more than a month ago, as far as it can be removed. Clocks may be wrong for a while, so a month is what the steps from run to
 * run add up to: one that leads far away counts little, and coming back takes it away again.
 *
 * @param runs - Those that are remembered, newest first. What an older one left goes by its id, and the earlier one of `now` and
 * the run before.
 * @param now - Milliseconds since the epoch.
 */
export function pruneBin(root: string, runs: readonly RunTime[], now: number): void {
  if (!isDirectory(join(root, BIN_NAME))) return
  const ages = agesOf(runs, now)
  const today = Math.min(now, runs[1]?.startedAt ?? 0)
  const isOver = (run: string) => (ages.get(run) ?? today - (timeIn(run) ?? today)) > KEEP_MS
  const tree = createSafeTree(root)
  try {
    const there = tree.within([BIN_NAME], ({ path }) => readdirSync(path, { withFileTypes: true }))
    for (const run of there) {
      if (!run.isDirectory() || !isOver(run.name)) continue
      try {
        removeTree(tree, [BIN_NAME, run.name])
      } catch (error) {
        // What cannot be removed stops no run; the next one tries again. A directory that somebody has replaced does.
        if (toSyncError(error).class === 'safety') throw error
      }
    }
  } finally {
    tree.close()
  }
}

/** When a run began, in milliseconds since the epoch by the clock of then. */
export interface RunTime {
  readonly id: string
  readonly startedAt: number
}

function agesOf(runs: readonly RunTime[], now: number): Map<string, number> {
  const ages = new Map<string, number>()
  let [age, later] = [0, now]
  for (const { id, startedAt } of runs) {
    age += Math.max(-MOST_STEP_MS, Math.min(later - startedAt, MOST_STEP_MS))
    later = startedAt
    ages.set(id, age)
  }
  return ages
}

/** The time in the id of a run. */
function timeIn(id: string): number | undefined {
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-/.exec(id) ?? []
  return year === undefined ? undefined : Date.UTC(+year, +month! - 1, +day!, +hour!, +minute!, +second!)
}

/** Removes a directory and what is in it, each entry in the directory that was opened for it: never behind a link. */
function removeTree(tree: SafeTree, path: readonly string[]): void {
  const name = path.at(-1)!
  tree.within(path, (directory) => {
    for (const entry of readdirSync(directory.path, { withFileTypes: true })) {
      if (entry.isDirectory()) removeTree(tree, [...path, entry.name])
      else unlinkSync(directory.at(entry.name))
    }
  })
  tree.within(path.slice(0, -1), (above) => rmdirSync(above.at(name)))
}
