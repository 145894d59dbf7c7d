/** SHA-256 of a local file in one state. @module */
import { createHash } from 'node:crypto'
import { openStable } from '../local/stable-read.ts'

/**
 * SHA-256 of a file.
 *
 * @returns 32 bytes in hex.
 * @throws {SyncError} `SOURCE_CHANGED`, or of class `local_io`.
 */
export async function hashFile(path: string, shown: string, signal: AbortSignal): Promise<string> {
  const reader = await openStable(path, shown)
  try {
    const hash = createHash('sha256')
    await reader.each((piece) => hash.update(piece), signal)
    await reader.verify()
    return hash.digest('hex')
  } finally {
    await reader.close()
  }
}
