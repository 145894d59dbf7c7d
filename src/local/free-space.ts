/** Whether a disk can hold what is to come. @module */
import { statfs } from 'node:fs/promises'
import { SyncError } from '../errors.ts'

/**
 * Refuses at the start what would fill the disk at the end.
 *
 * @param root - Any path on it that exists.
 * @throws {SyncError} `LOCAL_ENOSPC`.
 */
export async function checkSpace(root: string, bytes: number): Promise<void> {
  let free: number
  try {
    const { bavail, bsize } = await statfs(root)
    free = bavail * bsize
  } catch {
    return // a file system that does not tell; a full disk is noticed when it is full
  }
  if (bytes > free) {
    throw new SyncError('local_io', 'LOCAL_ENOSPC', `${bytes} bytes do not fit into the ${free} that are free`, {
      hint: 'Free some space, or choose another disk.',
    })
  }
}
