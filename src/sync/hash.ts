/** SHA-256 of a local file in one state. @module */
import { createHash } from 'node:crypto'
import { openStable, type SourceIdentity } from '../local/stable-read.ts'

const READ_BYTES = 1024 * 1024

/**
 * @returns the digest in hex, and the state of the file that it is of.
 * @throws {SyncError} `SOURCE_CHANGED`, or of class `local_io`.
 */
export async function hashFile(
  path: string,
  shown: string,
  signal: AbortSignal,
): Promise<{ sha256: string; identity: SourceIdentity }> {
  const reader = await openStable(path, shown)
  try {
    const hash = createHash('sha256')
    const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, reader.size))
    for (let at = 0; at < reader.size; at += buffer.length) {
      signal.throwIfAborted()
      const piece = buffer.subarray(0, Math.min(buffer.length, reader.size - at))
      await reader.read(piece, at)
      hash.update(piece)
    }
    await reader.verify()
    return { sha256: hash.digest('hex'), identity: reader.identity }
  } finally {
    await reader.close()
  }
}
