/**
 * What a restore brings back beside contents: permissions and times of files that were there already, links, and permissions and times of
 * directories. Links come last of all, so that nothing is ever written through one, and directories are finished when nothing more is
 * written below.
 * @module
 */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lutimesSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  symlinkSync,
} from 'node:fs'
import { localError, SyncError } from '../../errors.ts'
import { temporaryName } from '../../local/atomic-file.ts'
import { FILE_MODE, secondsOf, setMode, setTimes } from '../../local/attributes.ts'
import type { HeldDirectory, SafeTree } from '../../local/safe-tree.ts'
import type { ConflictAction } from '../conflicts.ts'
import { lookAt } from '../local-move.ts'
import { targetDiffers } from '../plan/files.ts'
import type { DirectoryEntry, FileEntry, LinkEntry } from './manifest.ts'
import { componentsOf } from './set.ts'

/** Never setuid or setgid. */
const DIRECTORY_MODE = 0o1777

/** To the microsecond: that is what a restored file has of its time. */
export const isSameTime = (mtimeMs: number, mtimeNs: string): boolean =>
  Math.abs(mtimeMs - Number(BigInt(mtimeNs)) / 1e6) < 0.002

/** A directory that an earlier restore has finished may forbid its owner to write; it is finished again at the end. */
export function makeEnterable(tree: SafeTree, { path }: DirectoryEntry): void {
  tree.within(componentsOf(path), (directory) => {
    try {
      accessSync(directory.path, constants.R_OK | constants.W_OK | constants.X_OK)
    } catch {
      try {
        onDirectory(directory, (fd) => setMode(fd, (fstatSync(fd).mode & DIRECTORY_MODE) | 0o700))
      } catch {
        // What cannot be written there is told by its name.
      }
    }
  })
}

/** Gives a file of the right content its permissions and time. */
export function repairFile(tree: SafeTree, { path, mode, mtimeNs }: FileEntry): void {
  const parts = componentsOf(path)
  tree.within(parts.slice(0, -1), (directory) => {
    const place = directory.at(parts.at(-1)!)
    const info = lookAt(place)
    if (info === undefined || !info.isFile()) return
    const isRight = (info.mode & 0o7777) === (mode & FILE_MODE) && isSameTime(info.mtimeMs, mtimeNs)
    if (!isRight) repair(place, mode, mtimeNs, info)
  })
}

function repair(path: string, mode: number, mtimeNs: string, info: Stats): void {
  try {
    const fd = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0))
    try {
      if (fstatSync(fd).ino !== info.ino) throw targetDiffers()
      setMode(fd, mode & FILE_MODE)
      setTimes(fd, { atime: secondsOf(mtimeNs), mtime: secondsOf(mtimeNs) })
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw localError(error, 'set permissions and time')
  }
}

/** For what is never replaced. */
const inTheWay = () =>
  new SyncError('conflict', 'KINDS_DIFFER', 'Here it is a directory, in the backup a link', {
    hint: 'Rename it, or move it away, then run again.',
  })

/** How links come back. */
export interface LinkHow {
  readonly onConflict: ConflictAction
  /** Moves what stands there into the bin. */
  takeAway(path: readonly string[], was: Stats): void
  /** Writes down that a link is about to be made. */
  before(entry: LinkEntry): void
}

/** Makes a link, unless it is there. */
export function restoreLink(tree: SafeTree, entry: LinkEntry, how: LinkHow): void {
  const parts = componentsOf(entry.path)
  const parent = parts.slice(0, -1)
  tree.within(parent, (directory) => {
    const place = directory.at(parts.at(-1)!)
    try {
      const info = lookAt(place)
      if (info !== undefined) {
        if (isToStay(place, info, entry, how.onConflict)) return
        tree.check(parent)
        how.takeAway(parts, info)
      }
      makeLink(directory, place, entry, () => {
        tree.check(parent)
        how.before(entry)
      })
    } catch (error) {
      throw localError(error, `make the link ${entry.path}`)
    }
  })
}

function isToStay(place: string, info: Stats, { target, mtimeNs }: LinkEntry, onConflict: ConflictAction): boolean {
  const isSame = info.isSymbolicLink() && readlinkSync(place) === target
  if (isSame && onConflict === 'overwrite') lutimesSync(place, secondsOf(mtimeNs), secondsOf(mtimeNs))
  if (isSame || onConflict === 'skip') return true
  if (info.isDirectory()) throw inTheWay()
  if (onConflict !== 'overwrite') throw targetDiffers()
  return false
}

/** In one step, so that whoever is killed leaves no link without its time. */
function makeLink(directory: HeldDirectory, place: string, { target, mtimeNs }: LinkEntry, before: () => void): void {
  const time = secondsOf(mtimeNs)
  const temporary = directory.at(temporaryName())
  symlinkSync(target, temporary)
  try {
    lutimesSync(temporary, time, time)
    if (lookAt(place) !== undefined) throw targetDiffers()
    before()
    renameSync(temporary, place)
  } finally {
    rmSync(temporary, { force: true })
  }
}

function onDirectory({ path, flags }: HeldDirectory, work: (fd: number) => void): void {
  const fd = openSync(path, constants.O_RDONLY | flags)
  try {
    work(fd)
  } finally {
    closeSync(fd)
  }
}

/** Gives a directory its permissions and time. */
export function finishDirectory(tree: SafeTree, { path, mode, mtimeNs }: DirectoryEntry): void {
  try {
    tree.within(componentsOf(path), (directory) =>
      onDirectory(directory, (fd) => {
        setMode(fd, mode & DIRECTORY_MODE)
        setTimes(fd, { atime: secondsOf(mtimeNs), mtime: secondsOf(mtimeNs) })
      }),
    )
  } catch (error) {
    throw localError(error, `finish the directory ${path}`)
  }
}
