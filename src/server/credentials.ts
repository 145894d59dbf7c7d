/** Who somebody is by name, password (scrypt) and one-time code, as the records of a server say. @module */
import { scrypt, timingSafeEqual } from 'node:crypto'
import { audit } from './audit.ts'
import { checkCode } from './one-time-codes.ts'
import type { UserRecord } from './records.ts'
import type { Store } from './store.ts'

const HASH_BYTES = 32
const SCRYPT = { N: 16384, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }

/** scrypt of a password; 32 bytes. */
export function hashPassword(password: string, salt: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password.normalize('NFC'), salt, HASH_BYTES, SCRYPT, (error, key) => (error ? reject(error) : resolve(key)))
  })
}

/** The form in which user names are compared. */
export function foldUserName(name: string): string {
  return name.normalize('NFC').toLowerCase()
}

export function findUser(store: Store, name: string): UserRecord | undefined {
  if (name.length > 150) return undefined
  const id = store.userNames.get(foldUserName(name))
  return id === undefined ? undefined : store.users.get(id)
}

/** The user, if the password is right. Takes as long for unknown users as for wrong passwords. */
export async function checkPassword(store: Store, name: string, password: string): Promise<UserRecord | undefined> {
  const user = findUser(store, name)
  const hash = await hashPassword(password, user?.salt ?? new Uint8Array(16))
  const matches = timingSafeEqual(hash, user?.passwordHash ?? new Uint8Array(HASH_BYTES))
  return matches ? user : undefined
}

/** Notes a try to log in to an account, and when it succeeded. Names that nobody has are not worth a row. */
export function noteLogin(
  store: Store,
  name: string,
  { isGood, address, now }: { isGood: boolean; address: string; now: number },
): Promise<void> {
  if (findUser(store, name) === undefined) return Promise.resolve()
  return store.write((tx) => {
    const user = findUser(store, name)
    if (user === undefined) return
    if (isGood) tx.put(store.users, user.id, { ...user, lastLoginAt: now })
    audit(
      { store, tx, userId: user.id, now, address },
      { operation: 'user.login', message: isGood ? 'Logged in' : 'Was refused a login', status: isGood ? 0 : 2 },
    )
  })
}

/**
 * Uses up a one-time code.
 *
 * @returns false for a wrong code, or one that was used.
 */
export function useCode(store: Store, id: number, code: string, now: number): Promise<boolean> {
  return store.write((tx) => {
    const user = store.users.get(id)
    if (user?.oneTimeCodes === undefined) return false
    const { secret, lastStep } = user.oneTimeCodes
    const step = checkCode(secret, code, now, lastStep)
    if (step === undefined) return false
    tx.put(store.users, id, { ...user, oneTimeCodes: { secret, lastStep: step } })
    return true
  })
}
