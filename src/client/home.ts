/** What can be done with the directory of a client without a login. @module */
import { homePaths } from '../local/home.ts'
import { clearFileKeyCaches } from '../transfer/file-key-cache.ts'

/**
 * Removes all caches of file keys of a client's directory; the keys are unwrapped again when they are needed.
 *
 * @param directory - As given to `createClient`.
 * @returns how many files, and their bytes.
 */
export const clearKeyCache = (directory: string): Promise<{ readonly files: number; readonly bytes: number }> =>
  clearFileKeyCaches(homePaths(directory).fileKeys)
