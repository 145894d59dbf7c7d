/** Permissions and times of files, as they are brought back from a manifest or the server. @module */
import { fchmodSync, fstatSync, futimesSync } from 'node:fs'
import { systemCode } from '../errors.ts'

/** Seconds since the epoch. The system cuts what it gets to microseconds, so half of one keeps it from losing another. */
export const secondsOf = (mtimeNs: string): FileTime => fileTime(Number(BigInt(mtimeNs) / 1000n) / 1e6 + 5e-7)

/** A time as the functions of Node's file system take it. */
export type FileTime = number | string

/** @param seconds - Since the epoch. A negative number would be taken for 'now', its text is not. */
export const fileTime = (seconds: number): FileTime => (seconds < 0 ? String(seconds) : seconds)

/** A `Date` keeps milliseconds, and what is before 1970. */
export interface FileTimes {
  readonly atime: Date | FileTime
  readonly mtime: Date | FileTime
}

/** What any file system can hold: FAT from 1980 on, many until 2038. Seconds since the epoch. */
const [FIRST, LAST] = [Date.UTC(1980, 0, 2) / 1000, 2 ** 31 - 1]

/**
 * Sets the times of an open file. Most file systems take what is nearest to a time that they cannot hold; for those that refuse
 * it, that is done here. Errors are those of the system.
 */
export function setTimes(fd: number, { atime, mtime }: FileTimes): void {
  try {
    futimesSync(fd, atime, mtime)
  } catch (error) {
    if (!['EINVAL', 'EOVERFLOW', 'ERANGE'].includes(systemCode(error) ?? '')) throw error
    futimesSync(fd, holdable(atime), holdable(mtime))
  }
}

function holdable(time: Date | FileTime): number {
  const seconds = time instanceof Date ? time.getTime() / 1000 : Number(time)
  return Math.min(Math.max(seconds, FIRST), LAST)
}

/** Answers of file systems that cannot do something at all. */
const CANNOT: readonly string[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']

/**
 * Sets the permissions of an open file or directory, where its file system keeps any (FAT and some network shares do not). Errors are
 * those of the system.
 */
export function setMode(fd: number, mode: number): void {
  try {
    fchmodSync(fd, mode)
  } catch (error) {
    const user = process.geteuid?.()
    // The owner is refused only where there is nothing to set.
    if (!CANNOT.includes(systemCode(error) ?? '') || (user !== 0 && fstatSync(fd).uid !== user)) throw error
  }
}

/** Permission bits that a file may get: never setuid, setgid or sticky. */
export const FILE_MODE = 0o777
