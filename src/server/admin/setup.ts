/**
 * The first account of a new server: whoever has the link that its start prints may make it, once. Only a hash of the code is kept, and a
 * new start makes a new one as long as there is no account. The page is routes/pages.ts.
 * @module
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { SyncError } from '../../../crypto/errors.ts'
import type { Store } from '../store.ts'
import { type HashedPassword, putUser } from './users.ts'

const LIFETIME_MS = 86_400_000

const digest = (code: string): Buffer => createHash('sha256').update(code).digest()

/** The code for a store without accounts; undefined when there are any. */
export function offerSetup(store: Store, now: number): Promise<string | undefined> {
  const code = randomBytes(24).toString('base64url')
  return store.write((tx) => {
    if (store.users.getCount({ limit: 1 }) > 0) return undefined
    tx.put(store.meta, 'setup', Uint8Array.from(digest(code)))
    tx.put(store.meta, 'setupUntil', now + LIFETIME_MS)
    return code
  })
}

/** Whether this code makes the first account. */
export function isSetupCode(store: Store, code: string, now: number): boolean {
  const wanted = store.meta.get('setup')
  const until = store.meta.get('setupUntil')
  if (!(wanted instanceof Uint8Array) || typeof until !== 'number' || until < now) return false
  return store.users.getCount({ limit: 1 }) === 0 && timingSafeEqual(digest(code), wanted)
}

/**
 * Makes the first account, an administrator's, and uses up the code.
 *
 * @throws {SyncError} `ADMIN_REFUSED` when the code is not, or not any more, the right one; `BAD_USER_NAME`.
 */
export function makeFirstUser(
  store: Store,
  code: string,
  account: { name: string; password: HashedPassword },
  { now, address }: { now: number; address: string },
): Promise<{ id: number }> {
  return store.write((tx) => {
    if (!isSetupCode(store, code, now)) throw new SyncError('auth', 'ADMIN_REFUSED', 'This link is not good any more')
    const made = putUser(store, tx, { userId: 0, now, address }, { ...account, isAdmin: true })
    tx.remove(store.meta, 'setup')
    tx.remove(store.meta, 'setupUntil')
    return made
  })
}
