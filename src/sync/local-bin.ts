/**
 * The recycle bin of a synchronized directory: what a run removes or replaces on this disk goes into `.sealsync-bin`, under the
 * run's id and its own path, and stays there for a month.
 * @module
 */
import { lstatSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { localError, systemCode } from '../errors.ts'
import { BIN_NAME } from '../local/atomic-file.ts'
import type { SafeTree } from '../local/safe-tree.ts'
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
  try {
    rmSync(join(root, place), { force: true })
  } catch (error) {
    throw localError(error, `take ${place} out of the bin`)
  }
}

/** Removes directories that were made for a place in the bin, up to that of the run; the first that is not empty ends this. */
export function dropEmptyDirectories(root: string, place: string): void {
  const parts = place.split('/')
  for (let length = parts.length - 1; length >= 1; length--) {
    try {
      rmdirSync(join(root, ...parts.slice(0, length)))
    } catch {
      return
    }
  }
}

/** Removes what runs put into the bin more than a month ago, as far as it can be removed; how long ago is in the run's id. */
export function pruneBin(root: string, now: number): void {
  let runs: string[]
  try {
    if (!lstatSync(join(root, BIN_NAME)).isDirectory()) return
    runs = readdirSync(join(root, BIN_NAME))
  } catch {
    return
  }
  for (const run of runs) {
    const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-/.exec(run) ?? []
    if (year === undefined) continue
    const at = Date.UTC(+year, +month! - 1, +day!, +hour!, +minute!, +second!)
    if (now - at <= KEEP_MS) continue
    try {
      rmSync(join(root, BIN_NAME, run), { recursive: true, force: true })
    } catch {
      // What cannot be removed stops no run; the next one tries again.
    }
  }
}
