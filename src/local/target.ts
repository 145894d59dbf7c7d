/**
 * What the file system of a target can do, found out by trying: with one file of ours, once per target and run, without a trace. What it
 * cannot do has another way: names that meet are refused together, times are compared as the disk keeps them, and a second
 * name that it does not know is a copy (`keepCopy`).
 * @module
 */
import {
  closeSync,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { localError, systemCode } from '../errors.ts'
import { temporaryName } from './atomic-file.ts'
import { FILE_MODE, secondsOf, setMode, setTimes } from './attributes.ts'

export interface Target {
  /** Takes `a` and `A` for one name. */
  readonly foldsCase: boolean
  /** Times may be so much off, in milliseconds: 2,000 on FAT. */
  readonly resolutionMs: number
  /** The time that a file has after it was given this one. Milliseconds since the epoch. */
  heldTime(ms: number): number
}

/** What can be said of that without writing. */
export const usuallyFoldsCase = (platform: NodeJS.Platform = process.platform): boolean =>
  platform === 'darwin' || platform === 'win32'

/** What is likely, for runs that must not write. */
export const likelyTarget = (): Target => ({ foldsCase: usuallyFoldsCase(), resolutionMs: 0, heldTime: (ms) => ms })

/** Odd in every unit that times are rounded to. */
const ODD_MS = Date.UTC(2001, 8, 9, 1, 46, 41, 123)
/** Every file system holds what is between these. */
const [EARLY_MS, LATE_MS] = [Date.UTC(1980, 0, 2), Date.UTC(2038, 0, 1)]
/** Times outside of that which are remembered; a tree has few of them, or very many equal ones. */
const REMEMBERED = 10_000

/** @throws {SyncError} of class `local_io` when nothing can be written there. */
export function probeTarget(directory: string): Target {
  const held = new Map<number, number>()
  return withProbe(directory, (path) => ({
    foldsCase: answersTo(path.toUpperName),
    resolutionMs: resolutionOf(timeAfter(path.file, ODD_MS)),
    heldTime(ms) {
      if (ms >= EARLY_MS && ms <= LATE_MS) return ms
      let time = held.get(ms)
      if (time === undefined) {
        time = withProbe(directory, ({ file }) => timeAfter(file, ms))
        if (held.size < REMEMBERED) held.set(ms, time)
      }
      return time
    },
  }))
}

/** True when this directory's file system takes `a` and `A` for one name. */
export const foldsCase = (directory: string): boolean =>
  withProbe(directory, ({ toUpperName }) => answersTo(toUpperName))

function withProbe<T>(directory: string, look: (path: { file: string; toUpperName: string }) => T): T {
  const name = temporaryName()
  const file = join(directory, name)
  try {
    writeFileSync(file, '', { flag: 'wx', mode: 0o600 })
    return look({ file, toUpperName: join(directory, name.toUpperCase()) })
  } catch (error) {
    throw localError(error, `write to ${directory}`)
  } finally {
    removeQuietly(file)
  }
}

function answersTo(path: string): boolean {
  try {
    lstatSync(path)
    return true
  } catch {
    return false
  }
}

function timeAfter(file: string, ms: number): number {
  const fd = openSync(file, 'r+')
  try {
    setTimes(fd, { atime: new Date(ms), mtime: new Date(ms) })
  } catch {
    // Then it has the time at which it was made.
  } finally {
    closeSync(fd)
  }
  return lstatSync(file).mtimeMs
}

function resolutionOf(time: number): number {
  const off = Math.abs(time - ODD_MS)
  if (off < 1) return 0
  return off < 1000 ? 1000 : 2000
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true })
  } catch {
    // A later run looks for what is left.
  }
}

/** Answers of file systems that know no second names, or not for this file. */
const NO_LINKS: readonly string[] = ['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV', 'EINVAL']

/** True for the error of a `link` that cannot succeed whatever is tried again. */
export const isWithoutLinks = (error: unknown): boolean => NO_LINKS.includes(systemCode(error) ?? '')

/**
 * Gives a file a second name, or where that is not possible a copy with the same time: whole, or not there. Errors are those of the
 * system, `EEXIST` when something has the name.
 */
export function keepCopy(source: string, target: string): void {
  try {
    linkSync(source, target)
    return
  } catch (error) {
    if (!isWithoutLinks(error)) throw error
  }
  if (answersTo(target)) throw Object.assign(new Error('It exists'), { code: 'EEXIST' })
  const copy = join(dirname(target), temporaryName())
  try {
    const { atimeNs, mtimeNs, mode } = lstatSync(source, { bigint: true })
    copyContent(source, copy)
    // What forbids writing has a copy that does, too; only Windows flushes no file that is open for reading.
    const fd = openSync(copy, process.platform === 'win32' ? 'r+' : 'r')
    try {
      setMode(fd, Number(mode) & FILE_MODE)
      setTimes(fd, { atime: secondsOf(`${atimeNs}`), mtime: secondsOf(`${mtimeNs}`) })
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(copy, target)
  } catch (error) {
    removeQuietly(copy)
    throw error
  }
}

/** Node's own copy fails where permissions cannot be set. */
function copyContent(source: string, target: string): void {
  const from = openSync(source, 'r')
  try {
    const to = openSync(target, 'wx', 0o600)
    try {
      const buffer = Buffer.allocUnsafe(2 ** 18)
      for (let length = readSync(from, buffer); length > 0; length = readSync(from, buffer)) {
        for (let at = 0; at < length; ) at += writeSync(to, buffer, at, length - at)
      }
    } finally {
      closeSync(to)
    }
  } finally {
    closeSync(from)
  }
}
