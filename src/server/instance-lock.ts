/**
 * One running server per data directory: a lock file that names its owner. Tools that only write metadata need no lock, but
 * want to know of it.
 * @module
 */
import { join } from 'node:path'
import { SyncError } from '../../crypto/errors.ts'
import { systemClock } from '../environment.ts'
import { isHeldHere, type Lock, takeLock } from '../local/lock.ts'
import { privateDirectory } from './private-directory.ts'

const lockFile = (dataDir: string): string => join(dataDir, 'server.lock')

/**
 * Takes the lock.
 *
 * @throws {SyncError} `SERVER_RUNNING` when a server has it that lives, or lives elsewhere.
 */
export async function takeInstanceLock(dataDir: string): Promise<Lock> {
  privateDirectory(dataDir)
  const path = lockFile(dataDir)
  try {
    return await takeLock(path, { clock: systemClock, waitMs: 0 })
  } catch (error) {
    if (!(error instanceof SyncError) || error.code !== 'LOCKED') throw error
    throw new SyncError('conflict', 'SERVER_RUNNING', `Another server is using this data directory: ${error.message}`, {
      hint: `Stop it, or give this one a directory of its own. If it runs nowhere any more, remove ${path}`,
      cause: error,
    })
  }
}

/** Whether a live server of this machine uses the directory: it has checked what is in it. */
export const isServed = (dataDir: string): Promise<boolean> =>
  isHeldHere(lockFile(dataDir)).catch((error) => {
    // What is no directory is served by nobody; whoever opens it says what it is.
    if (error instanceof SyncError && error.code === 'LOCAL_ENOTDIR') return false
    throw error
  })
