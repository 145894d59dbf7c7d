/**
 * Accounts: adding, listing and removing. Works on the store directly, so it can run beside a live server. Key pairs of users are
 * handled by the account routes.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { SyncError } from '../../crypto/errors.ts'
import { BlobFiles } from './blob-files.ts'
import { findUser, foldUserName, hashPassword } from './credentials.ts'
import { usesFiles } from './disk-blobs.ts'
import { checkPlace, identityOf } from './identity.ts'
import { isServed } from './instance-lock.ts'
import { authenticatorUri, newSecret } from './one-time-codes.ts'
import { openStore, type Store } from './store.ts'

function checkNewName(name: string): string {
  const normal = name.normalize('NFC')
  if (!/^[^\s\u0000-\u001f\u007f:|]{1,150}$/u.test(normal) || /\p{Surrogate}/u.test(normal)) {
    throw new SyncError('usage', 'BAD_USER_NAME', 'That user name cannot be used', {
      hint: 'Use 1 to 150 characters without spaces, colons and bars.',
    })
  }
  return normal
}

function checkNewPassword(password: string): void {
  if (password.length > 0 && password.length <= 1024) return
  throw new SyncError('usage', 'BAD_PASSWORD', 'A password has 1 to 1024 characters')
}

async function withStore<T>(dataDir: string, work: (store: Store) => Promise<T>): Promise<T> {
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

const noSuchUser = (): SyncError => new SyncError('not_found', 'NO_SUCH_USER', 'There is no user of that name')

/** An account to be made. */
export interface NewAccount {
  readonly name: string
  readonly password: string
  /** Also ask for a one-time code at each login. */
  readonly oneTimeCodes?: boolean
}

/**
 * Adds an account to a data directory, whether or not a server is running on it.
 *
 * @returns its id and, with one-time codes, the address for an authenticator app, which is shown this once.
 * @throws {SyncError} `USER_EXISTS`, `BAD_USER_NAME`, `BAD_PASSWORD`.
 */
export async function addUser(dataDir: string, account: NewAccount): Promise<{ id: number; authenticator?: string }> {
  const name = checkNewName(account.name)
  checkNewPassword(account.password)
  const salt = new Uint8Array(randomBytes(16))
  const passwordHash = new Uint8Array(await hashPassword(account.password, salt))
  return withStore(dataDir, (store) =>
    store.write((tx) => {
      if (store.userNames.doesExist(foldUserName(name))) {
        throw new SyncError('conflict', 'USER_EXISTS', 'A user of that name exists already')
      }
      const id = store.nextId(tx, 'user')
      const secret = account.oneTimeCodes === true ? newSecret() : undefined
      const factor = secret === undefined ? {} : { oneTimeCodes: { secret, lastStep: -1 } }
      tx.put(store.users, id, { id, name, createdAt: Date.now(), salt, passwordHash, epoch: 1, ...factor })
      tx.put(store.userNames, foldUserName(name), id)
      return { id, ...(secret === undefined ? {} : { authenticator: authenticatorUri(name, secret) }) }
    }),
  )
}

/** Changes a password; every token of the user becomes void. */
export async function setPassword(dataDir: string, account: { name: string; password: string }): Promise<void> {
  checkNewPassword(account.password)
  const salt = new Uint8Array(randomBytes(16))
  const passwordHash = new Uint8Array(await hashPassword(account.password, salt))
  await withStore(dataDir, (store) =>
    store.write((tx) => {
      const user = findUser(store, account.name)
      if (user === undefined) throw noSuchUser()
      tx.put(store.users, user.id, { ...user, salt, passwordHash, epoch: user.epoch + 1 })
    }),
  )
}

/** Removes an account with its key pairs, file keys, memberships and places in groups. Rooms and files stay. */
export async function removeUser(dataDir: string, name: string): Promise<void> {
  await withStore(dataDir, (store) =>
    store.write((tx) => {
      const user = findUser(store, name)
      if (user === undefined) throw noSuchUser()
      const { id } = user
      tx.remove(store.users, id)
      tx.remove(store.userNames, foldUserName(user.name))
      for (const { key } of [...store.memberships.getRange({ start: [id, 0], end: [id + 1, 0] })]) {
        tx.remove(store.memberships, key)
        tx.remove(store.members, [key[1], key[0]])
      }
      for (const key of [...store.userGroups.getKeys({ start: [id, 0], end: [id + 1, 0] })]) {
        tx.remove(store.userGroups, key)
        tx.remove(store.groupUsers, [key[1], key[0]])
      }
      for (const { key } of [...store.keyPairs.getRange({ start: [id, ''], end: [id + 1, ''] })]) {
        tx.remove(store.keyPairs, key)
      }
      for (const { key } of [...store.userFileKeys.getRange({ start: [id, '', 0], end: [id + 1, '', 0] })]) {
        tx.remove(store.userFileKeys, key)
        tx.remove(store.fileKeys, [key[2], key[0], key[1]])
      }
    }),
  )
}

/** A group to be made, of accounts that are there. */
export interface NewGroup {
  readonly name: string
  readonly users: readonly string[]
}

/**
 * Makes a group of accounts, or adds accounts to one, whether or not a server is running on the directory.
 *
 * @returns its id.
 * @throws {SyncError} `BAD_USER_NAME`, `NO_SUCH_USER`.
 */
export async function addGroup(dataDir: string, group: NewGroup): Promise<{ id: number }> {
  const name = checkNewName(group.name)
  return withStore(dataDir, (store) =>
    store.write((tx) => {
      const known = [...store.groups.getRange({})].find(({ value }) => foldUserName(value.name) === foldUserName(name))
      const id = known?.key ?? store.nextId(tx, 'group')
      if (known === undefined) tx.put(store.groups, id, { id, name, createdAt: Date.now() })
      for (const one of group.users) {
        const user = findUser(store, one)
        if (user === undefined) throw noSuchUser()
        tx.put(store.groupUsers, [id, user.id], 1)
        tx.put(store.userGroups, [user.id, id], 1)
      }
      return { id }
    }),
  )
}

/** All accounts by id. */
export async function listUsers(dataDir: string): Promise<{ id: number; name: string; createdAt: number }[]> {
  return withStore(dataDir, async (store) =>
    [...store.users.getRange({})].map(({ value }) => ({ id: value.id, name: value.name, createdAt: value.createdAt })),
  )
}
