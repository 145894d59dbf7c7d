/** Directories that only their owner may enter, made or mended. @module */
import { chmodSync, lstatSync, mkdirSync, statSync } from 'node:fs'
import { SyncError } from '../../crypto/errors.ts'
import { localError, systemCode } from '../errors.ts'

/** Whether there is anything at a path, a link that leads nowhere included. */
function isTaken(path: string): boolean {
  try {
    lstatSync(path)
    return true
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false
    throw localError(error, `use the directory ${path}`)
  }
}

/**
 * Makes a directory with mode 0700, or gives an existing one that mode.
 *
 * @throws {SyncError} `NOT_A_DIRECTORY` when something else is in its place.
 */
export function privateDirectory(path: string): void {
  try {
    if (!isTaken(path)) mkdirSync(path, { recursive: true, mode: 0o700 })
    const info = statSync(path)
    if (!info.isDirectory()) {
      throw new SyncError('usage', 'NOT_A_DIRECTORY', `${path} is not a directory`, {
        hint: 'Move it away, or give another directory with --data.',
      })
    }
    if (process.platform !== 'win32' && (info.mode & 0o077) !== 0) chmodSync(path, 0o700)
  } catch (error) {
    throw localError(error, `use the directory ${path}`)
  }
}
