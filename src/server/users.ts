/**
 * Accounts and groups of a data directory, for programs that start a server of their own: adding, listing and removing. It works beside
 * a live server. What is done in the store is admin/users.ts.
 * @module
 */
import { administer } from './admin/administer.ts'
import { hashNewPassword, type NewAccount, type UserSummary } from './admin/users.ts'

/**
 * Adds an account to a data directory, whether or not a server is running on it.
 *
 * @returns its id and, with one-time codes, the address for an authenticator app, which is shown this once.
 * @throws {SyncError} `USER_EXISTS`, `BAD_USER_NAME`, `BAD_PASSWORD`.
 */
export async function addUser(dataDir: string, account: NewAccount): Promise<{ id: number; authenticator?: string }> {
  const { password, ...rest } = account
  return administer(dataDir, 'user.add', { ...rest, password: await hashNewPassword(password) })
}

/**
 * Changes a password; every token of the user becomes void.
 *
 * @throws {SyncError} `NO_SUCH_USER`, `BAD_PASSWORD`.
 */
export async function setPassword(dataDir: string, account: { name: string; password: string }): Promise<void> {
  const password = await hashNewPassword(account.password)
  await administer(dataDir, 'user.password', { name: account.name, password })
}

/**
 * Removes an account with its key pairs, file keys, memberships and places in groups, whatever becomes unreadable by that. Rooms and
 * files stay.
 *
 * @throws {SyncError} `NO_SUCH_USER`
 */
export async function removeUser(dataDir: string, name: string): Promise<void> {
  await administer(dataDir, 'user.remove', { name, force: true })
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
export async function addGroup(dataDir: string, { name, users }: NewGroup): Promise<{ id: number }> {
  const { id } = await administer(dataDir, 'group.add', { name, users })
  return { id }
}

/** All accounts by id. */
export const listUsers = (dataDir: string): Promise<UserSummary[]> => administer(dataDir, 'user.list', {})
