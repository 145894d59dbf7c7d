/**
 * Administers the server of a data directory: through the one that runs there, or directly on its store where none does. The store may be
 * open in several processes, so it does no harm when a server starts meanwhile.
 * @module
 */
import { BlobFiles } from '../blob-files.ts'
import { usesFiles } from '../disk-blobs.ts'
import { checkPlace, identityOf } from '../identity.ts'
import { isServed, takeInstanceLock } from '../instance-lock.ts'
import type { S3Options } from '../s3/client.ts'
import { createApp, sweep } from '../server.ts'
import { openStore, type Store } from '../store.ts'
import { type AnswerOf, type ArgumentsOf, type OperationName, operate } from './operations.ts'
import { askServer, NoAdminSocket } from './socket.ts'

/** Opens the store of a data directory for one piece of work. */
export async function withStore<T>(dataDir: string, work: (store: Store) => Promise<T>): Promise<T> {
  const content = new BlobFiles(dataDir)
  const store = await openStore(dataDir, content, { isServed: await isServed(dataDir) })
  try {
    await checkPlace(store, content, () => usesFiles(store))
    const mark = await identityOf(store)
    if ((await content.readMark()) === undefined) await content.writeMark(mark)
    return await work(store)
  } finally {
    await store.close()
  }
}

/**
 * Carries out one operation; see operations.ts for what there is.
 *
 * @throws {SyncError} what the operation throws; `ADMIN_BROKEN` when the server that runs did not answer.
 */
export async function administer<N extends OperationName>(
  dataDir: string,
  name: N,
  args: ArgumentsOf<N>,
): Promise<AnswerOf<N>> {
  try {
    return await askServer(dataDir, name, args)
  } catch (error) {
    if (!(error instanceof NoAdminSocket)) throw error
  }
  return withStore(dataDir, (store) => operate({ store, dataDir, now: Date.now }, name, args))
}

/**
 * Removes what has run out: logins, the outcomes of old uploads, what was deleted longer ago than its room keeps it, and content that
 * `check` moved aside more than 48 hours ago.
 *
 * @param s3 - The object store that content is in, if it is and no server runs.
 * @throws {SyncError} what starting a server throws.
 */
export async function collectGarbage(dataDir: string, s3?: S3Options): Promise<void> {
  try {
    await askServer(dataDir, 'gc', {})
    return
  } catch (error) {
    if (!(error instanceof NoAdminSocket)) throw error
  }
  const lock = await takeInstanceLock(dataDir)
  try {
    const files = new BlobFiles(dataDir)
    const store = await openStore(dataDir, files, { isServed: false })
    try {
      const { app, places, disk } = await createApp(store, files, s3 === undefined ? {} : { s3, storage: 's3' })
      try {
        await sweep(app, places)
        await disk.removeAsides()
      } finally {
        await app.blobs.close()
      }
    } finally {
      await store.close()
    }
  } finally {
    await lock.release()
  }
}
