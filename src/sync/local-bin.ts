/**
 * The recycle bin of a synchronized directory: what a run removes or replaces on this disk goes into `.sealsync-bin`, under the
 * run's id and its own path, and stays there for a month.
 * @module
 */
import { lstatSync, readdirSync, renameSync, rmdirSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { localError, systemCode } from '../errors.ts'
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

/** Takes one copy out of the bin again, because what it was kept for did not come to be. */
export function dropFromBin(root: string, place: string): void {
  const parts = place.split('/')
  let length = parts.length - 1
  while (length > 0 && !isDirectory(join(root, ...parts.slice(0, length)))) length--
  if (length === 0) return
  const tree = createSafeTree(root)
  try {
    if (length === parts.length - 1) {
      tree.within(parts.slice(0, -1), (directory) => rmSync(directory.at(parts.at(-1)!), { force: true }))
    }
    // Directories that were made for it, up to that of the run; the first that is not empty ends this.
    for (; length >= 1; length--) {
      const name = parts[length - 1]!
      try {
        tree.within(parts.slice(0, length - 1), (directory) => rmdirSync(directory.at(name)))
      } catch {
        return
      }
    }
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

/** Removes what runs put into the bin more than a month ago; how long ago is in the run's id. */
export function pruneBin(root: string, now: number): void {
  if (!isDirectory(join(root, BIN_NAME))) return
  const tree = createSafeTree(root)
  try {
    const there = tree.within([BIN_NAME], ({ path }) => readdirSync(path, { withFileTypes: true }))
    const runs = there.filter((run) => run.isDirectory() && isOver(run.name, now))
    for (const { name } of runs) removeTree(tree, [BIN_NAME, name])
  } finally {
    tree.close()
  }
}

function isOver(run: string, now: number): boolean {
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-/.exec(run) ?? []
  if (year === undefined) return false
  const at = Date.UTC(+year, +month! - 1, +day!, +hour!, +minute!, +second!)
  return now - at > KEEP_MS
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
