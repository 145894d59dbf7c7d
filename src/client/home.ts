/** What can be done with the directory of a client without a login. @module */
import { systemClock } from '../environment.ts'
import { homePaths } from '../local/home.ts'
import { clearFileKeyCaches } from '../transfer/file-key-cache.ts'
import { type KeyChange, keyChangesOf } from './key-change.ts'

/**
 * Removes all caches of file keys of a client's directory; the keys are unwrapped again when they are needed.
 *
 * @param directory - As given to `createClient`.
 * @returns how many files, and their bytes.
 */
export const clearKeyCache = (directory: string): Promise<{ readonly files: number; readonly bytes: number }> =>
  clearFileKeyCaches(homePaths(directory).fileKeys)

/**
 * A change of the key pairs of an account that has begun and is not complete; `undefined` where there is none.
 *
 * @param directory - As given to `createClient`, as is `account`.
 * @throws {SyncError} `KEY_CHANGE_DAMAGED`.
 */
export const readKeyChange = (directory: string, account: string): Promise<KeyChange | undefined> =>
  keyChangesOf(homePaths(directory).keyPairs, account, systemClock).read()
