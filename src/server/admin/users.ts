/**
 * What is done to accounts and groups when a server is administered: each function is one unit of work of the store. Over which way they
 * are called is administer.ts; who may call them through the API is routes/users.ts.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { SyncError } from '../../../crypto/errors.ts'
import { MANAGE, membersOf } from '../access.ts'
import { audit } from '../audit.ts'
import { findUser, foldUserName, hashPassword } from '../credentials.ts'
import { isRescueHolder } from '../holders.ts'
import { authenticatorUri, newSecret } from '../one-time-codes.ts'
import type { GroupRecord, NodeRecord, UserRecord } from '../records.ts'
import type { Store, Tx } from '../store.ts'
import { usageOf } from '../tree.ts'
import { pathOf } from './paths.ts'

/** By whom and when something is done. */
export interface By {
  /** 0: whoever administers the server at its own machine. */
  userId: number
  now: number
  address?: string
}

/** @throws {SyncError} `BAD_USER_NAME` */
export function checkNewName(name: string): string {
  const normal = name.normalize('NFC')
  if (!/^[^\s\u0000-\u001f\u007f:|]{1,150}$/u.test(normal) || /\p{Surrogate}/u.test(normal)) {
    throw new SyncError('usage', 'BAD_USER_NAME', 'That user name cannot be used', {
      hint: 'Use 1 to 150 characters without spaces, colons and bars.',
    })
  }
  return normal
}

/** What is kept of a password: scrypt under a fresh salt, both in base64. */
export interface HashedPassword {
  salt: string
  hash: string
}

/** @throws {SyncError} `BAD_PASSWORD` */
export async function hashNewPassword(password: string): Promise<HashedPassword> {
  if (password.length === 0 || password.length > 1024) {
    throw new SyncError('usage', 'BAD_PASSWORD', 'A password has 1 to 1024 characters')
  }
  const salt = new Uint8Array(randomBytes(16))
  const hash = await hashPassword(password, salt)
  return { salt: Buffer.from(salt).toString('base64'), hash: hash.toString('base64') }
}

const stored = ({ salt, hash }: HashedPassword): Pick<UserRecord, 'salt' | 'passwordHash'> => ({
  salt: Uint8Array.from(Buffer.from(salt, 'base64')),
  passwordHash: Uint8Array.from(Buffer.from(hash, 'base64')),
})

export const noSuchUser = (): SyncError => new SyncError('not_found', 'NO_SUCH_USER', 'There is no user of that name')
const noSuchGroup = (): SyncError => new SyncError('not_found', 'NO_SUCH_GROUP', 'There is no group of that name')

function userOf(store: Store, name: string): UserRecord {
  const user = findUser(store, name)
  if (user === undefined) throw noSuchUser()
  return user
}

/** An account as an administrator sees it. Times in milliseconds since the epoch, sizes in bytes. */
export interface UserSummary {
  id: number
  name: string
  createdAt: number
  isAdmin: boolean
  isDisabled: boolean
  oneTimeCodes: boolean
  hasKeyPair: boolean
  /** Absent: no limit. */
  quota?: number
  /** Of the files that it made. */
  usedBytes: number
  lastLoginAt?: number
}

export function summaryOf(store: Store, user: UserRecord): UserSummary {
  const [pair] = store.keyPairs.getKeys({ start: [user.id, ''], end: [user.id + 1, ''], limit: 1 })
  return {
    id: user.id,
    name: user.name,
    createdAt: user.createdAt,
    isAdmin: user.isAdmin === true,
    isDisabled: user.disabledAt !== undefined,
    oneTimeCodes: user.oneTimeCodes !== undefined,
    hasKeyPair: pair !== undefined,
    ...(user.quota === undefined ? {} : { quota: user.quota }),
    usedBytes: usageOf(store, user.id),
    ...(user.lastLoginAt === undefined ? {} : { lastLoginAt: user.lastLoginAt }),
  }
}

export const listUsers = (store: Store): UserSummary[] =>
  [...store.users.getRange({})].map(({ value }) => summaryOf(store, value))

/** An account with what it belongs to. */
export interface UserDetails extends UserSummary {
  groups: string[]
  /** Rooms that it is a member of by itself. */
  rooms: { path: string; isAdmin: boolean }[]
  logins: number
}

/** @throws {SyncError} `NO_SUCH_USER` */
export function showUser(store: Store, name: string, now: number): UserDetails {
  const user = userOf(store, name)
  const groups = [...store.userGroups.getKeys({ start: [user.id, 0], end: [user.id + 1, 0] })].map(
    ([, id]) => store.groups.get(id)?.name ?? '',
  )
  const rooms = [...store.memberships.getRange({ start: [user.id, 0], end: [user.id + 1, 0] })].map(
    ({ key, value }) => ({ path: pathOf(store, key[1]), isAdmin: (value & MANAGE) !== 0 }),
  )
  const families = new Set<string>()
  for (const { value } of store.tokens.getRange({})) {
    const isGood = value.userId === user.id && value.epoch === user.epoch && value.expiresAt >= now
    if (isGood && user.disabledAt === undefined) families.add(value.family)
  }
  return { ...summaryOf(store, user), groups, rooms, logins: families.size }
}

/** An account to be made. */
export interface NewAccount {
  readonly name: string
  readonly password: string
  /** Also ask for a one-time code at each login. */
  readonly oneTimeCodes?: boolean
  /** May look after users, groups and the event log through the API. */
  readonly isAdmin?: boolean
}

/** An account to be made; its password is hashed already. */
export interface NewUser {
  name: string
  password: HashedPassword
  oneTimeCodes?: boolean
  isAdmin?: boolean
}

/** Makes an account inside a unit of work. */
export function putUser(
  store: Store,
  tx: Tx,
  by: By,
  account: NewUser,
  more: Partial<UserRecord> = {},
): { id: number; authenticator?: string } {
  const name = checkNewName(account.name)
  if (store.userNames.doesExist(foldUserName(name))) {
    throw new SyncError('conflict', 'USER_EXISTS', 'A user of that name exists already')
  }
  const id = store.nextId(tx, 'user')
  const secret = account.oneTimeCodes === true ? newSecret() : undefined
  tx.put(store.users, id, {
    ...more,
    id,
    name,
    createdAt: by.now,
    ...stored(account.password),
    epoch: 1,
    ...(secret === undefined ? {} : { oneTimeCodes: { secret, lastStep: -1 } }),
    ...(account.isAdmin === true ? { isAdmin: true } : {}),
  })
  tx.put(store.userNames, foldUserName(name), id)
  audit({ store, tx, ...by }, { operation: 'user.create', message: `Made the account ${name}` })
  return { id, ...(secret === undefined ? {} : { authenticator: authenticatorUri(name, secret) }) }
}

/**
 * Makes an account.
 *
 * @returns its id and, with one-time codes, the address for an authenticator app, which is shown this once.
 * @throws {SyncError} `USER_EXISTS`, `BAD_USER_NAME`.
 */
export const addUser = (store: Store, by: By, account: NewUser): Promise<{ id: number; authenticator?: string }> =>
  store.write((tx) => putUser(store, tx, by, account))

/** Changes the record of an account, and says so in the audit log. */
function change(
  store: Store,
  by: By,
  name: string,
  operation: string,
  message: (user: UserRecord) => string,
  work: (user: UserRecord) => UserRecord,
): Promise<UserSummary> {
  return store.write((tx) => {
    const user = userOf(store, name)
    const changed = work(user)
    tx.put(store.users, user.id, changed)
    audit({ store, tx, ...by }, { operation, message: message(user) })
    return summaryOf(store, changed)
  })
}

/** Changes a password; every token of the user becomes void. */
export const setPassword = (store: Store, by: By, name: string, password: HashedPassword): Promise<UserSummary> =>
  change(
    store,
    by,
    name,
    'user.password',
    (user) => `Changed the password of ${user.name}`,
    (user) => ({ ...user, ...stored(password), epoch: user.epoch + 1 }),
  )

/** Disables an account, which makes its tokens void at once and for good, or lets it log in again. */
export const setDisabled = (store: Store, by: By, name: string, isDisabled: boolean): Promise<UserSummary> =>
  change(
    store,
    by,
    name,
    isDisabled ? 'user.disable' : 'user.enable',
    (user) => `${isDisabled ? 'Disabled' : 'Enabled'} the account ${user.name}`,
    ({ disabledAt, ...user }) =>
      isDisabled ? { ...user, disabledAt: disabledAt ?? by.now, epoch: user.epoch + 1 } : user,
  )

/** Makes an account an administrator's, or an ordinary one. */
export const setAdmin = (store: Store, by: By, name: string, isAdmin: boolean): Promise<UserSummary> =>
  change(
    store,
    by,
    name,
    'user.role',
    (user) => `${isAdmin ? 'Made' : 'No longer'} an administrator: ${user.name}`,
    ({ isAdmin: _before, ...user }) => (isAdmin ? { ...user, isAdmin: true } : user),
  )

/** Sets how many bytes of files an account may make; undefined for no limit. What is there stays. */
export const setUserQuota = (store: Store, by: By, name: string, bytes: number | undefined): Promise<UserSummary> =>
  change(
    store,
    by,
    name,
    'user.quota',
    (user) => `Quota of ${user.name}: ${bytes ?? 'none'}`,
    ({ quota: _before, ...user }) => (bytes === undefined ? user : { ...user, quota: bytes }),
  )

/** What the removal of an account would mean. */
export interface RemovalPlan {
  id: number
  name: string
  /** Rooms that would be left without anybody who manages them. */
  roomsWithoutAdmin: string[]
  /** Encrypted files whose keys nobody else has: their number, and the paths of the first of them. */
  unreadable: number
  unreadablePaths: string[]
  usedBytes: number
}

const MAX_TOLD = 100

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`

const isNeeded = (plan: RemovalPlan): boolean => plan.unreadable > 0 || plan.roomsWithoutAdmin.length > 0

/** Files that only this user holds keys of. Rescue keys count as somebody else. */
function* onlyReadableBy(store: Store, userId: number): Generator<number> {
  let last = -1
  const seen = new Set<number>()
  for (const [, , fileId] of store.userFileKeys.getKeys({ start: [userId, '', 0], end: [userId + 1, '', 0] })) {
    // Two versions of a key pair have a key of the same file each.
    if (fileId === last || seen.has(fileId)) continue
    last = fileId
    let isAlone = true
    for (const key of store.fileKeys.getKeys({ start: [fileId, 0, ''], end: [fileId + 1, 0, ''] })) {
      if (key[1] !== userId && (isRescueHolder(key[1]) || store.users.doesExist(key[1]))) isAlone = false
    }
    if (!isAlone) continue
    seen.add(fileId)
    yield fileId
  }
}

/** Rooms that this user manages and nobody else does. */
export function roomsOnlyManagedBy(store: Store, user: UserRecord): NodeRecord[] {
  const rooms: NodeRecord[] = []
  for (const { value: room } of store.nodes.getRange({})) {
    if (room.type !== 0) continue
    const managers = [...membersOf(store, room.id)].filter(([, bits]) => (bits & MANAGE) !== 0).map(([id]) => id)
    if (managers.includes(user.id) && managers.every((id) => id === user.id)) rooms.push(room)
  }
  return rooms
}

function planOf(store: Store, user: UserRecord): RemovalPlan {
  let unreadable = 0
  const unreadablePaths: string[] = []
  for (const id of onlyReadableBy(store, user.id)) {
    unreadable++
    if (unreadablePaths.length < MAX_TOLD) unreadablePaths.push(pathOf(store, id))
  }
  const roomsWithoutAdmin = roomsOnlyManagedBy(store, user).map(({ id }) => pathOf(store, id))
  const { id, name } = user
  return { id, name, roomsWithoutAdmin, unreadable, unreadablePaths, usedBytes: usageOf(store, user.id) }
}

/**
 * What removing an account would mean; changes nothing.
 *
 * @throws {SyncError} `NO_SUCH_USER`
 */
export const planRemoval = (store: Store, name: string): RemovalPlan => planOf(store, userOf(store, name))

/** What is bound to a user and goes with it; files and rooms stay. */
function forget(store: Store, tx: Tx, { id, name }: UserRecord): void {
  tx.remove(store.users, id)
  tx.remove(store.userNames, foldUserName(name))
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
  for (const key of [...store.favorites.getKeys({ start: [id, 0], end: [id + 1, 0] })]) tx.remove(store.favorites, key)
  for (const key of [...store.attributes.getKeys({ start: [id, ''], end: [id + 1, ''] })]) {
    tx.remove(store.attributes, key)
  }
}

/**
 * Removes an account with its key pairs, file keys, memberships and places in groups. Rooms and files stay.
 *
 * @param options.force - Even if files become unreadable, or rooms are left without anybody who manages them.
 * @throws {SyncError} `NO_SUCH_USER`; `USER_NEEDED` when somebody would lose something.
 */
export function removeUser(store: Store, by: By, name: string, options: { force: boolean }): Promise<RemovalPlan> {
  return store.write((tx) => {
    const user = userOf(store, name)
    const plan = planOf(store, user)
    if (isNeeded(plan) && !options.force) {
      const lost = [
        ...(plan.unreadable > 0 ? [`${counted(plan.unreadable, 'file')} that nobody else can open`] : []),
        ...(plan.roomsWithoutAdmin.length > 0
          ? [`${counted(plan.roomsWithoutAdmin.length, 'room')} that nobody else manages`]
          : []),
      ]
      throw new SyncError('safety', 'USER_NEEDED', `${user.name} has ${lost.join(' and ')}. Nothing was changed`, {
        hint: 'See them with -n. Let somebody else get the keys (sync keys distribute, as that user), or the rooms (sync serve room owner); or disable the account instead.',
      })
    }
    forget(store, tx, user)
    audit({ store, tx, ...by }, { operation: 'user.delete', message: `Removed the account ${user.name}` })
    return plan
  })
}

/** A group as an administrator sees it. */
export interface GroupSummary {
  id: number
  name: string
  createdAt: number
  members: string[]
  rooms: string[]
}

export function groupSummary(store: Store, group: GroupRecord): GroupSummary {
  const members = [...store.groupUsers.getKeys({ start: [group.id, 0], end: [group.id + 1, 0] })].flatMap(
    ([, id]) => store.users.get(id)?.name ?? [],
  )
  const rooms = [...store.groupRooms.getKeys({ start: [group.id, 0], end: [group.id + 1, 0] })].map(([, id]) =>
    pathOf(store, id),
  )
  return { ...group, members, rooms }
}

export const listGroups = (store: Store): GroupSummary[] =>
  [...store.groups.getRange({})].map(({ value }) => groupSummary(store, value))

export function findGroup(store: Store, name: string): GroupRecord | undefined {
  const folded = foldUserName(name)
  for (const { value } of store.groups.getRange({})) if (foldUserName(value.name) === folded) return value
  return undefined
}

/** @throws {SyncError} `NO_SUCH_GROUP` */
export function showGroup(store: Store, name: string): GroupSummary {
  const group = findGroup(store, name)
  if (group === undefined) throw noSuchGroup()
  return groupSummary(store, group)
}

/** Puts users into a group inside a unit of work, or takes them out. */
export function putInGroup(store: Store, tx: Tx, groupId: number, userId: number, isIn: boolean): void {
  if (isIn) {
    tx.put(store.groupUsers, [groupId, userId], 1)
    tx.put(store.userGroups, [userId, groupId], 1)
  } else {
    tx.remove(store.groupUsers, [groupId, userId])
    tx.remove(store.userGroups, [userId, groupId])
  }
}

/**
 * Makes a group of accounts, or adds accounts to one.
 *
 * @throws {SyncError} `BAD_USER_NAME`, `NO_SUCH_USER`.
 */
export function addGroup(store: Store, by: By, name: string, users: readonly string[]): Promise<GroupSummary> {
  const wanted = checkNewName(name)
  return store.write((tx) => {
    const known = findGroup(store, wanted)
    const group = known ?? { id: store.nextId(tx, 'group'), name: wanted, createdAt: by.now }
    if (known === undefined) tx.put(store.groups, group.id, group)
    for (const one of users) putInGroup(store, tx, group.id, userOf(store, one).id, true)
    const message = `${known === undefined ? 'Made' : 'Added to'} the group ${group.name}: ${users.join(', ')}`
    audit({ store, tx, ...by }, { operation: known === undefined ? 'group.create' : 'group.members', message })
    return groupSummary(store, group)
  })
}

const isManaged = (store: Store, roomId: number): boolean =>
  [...membersOf(store, roomId).values()].some((bits) => (bits & MANAGE) !== 0)

/**
 * Does something to a group, unless that leaves one of its rooms with nobody who manages it.
 *
 * @throws {SyncError} `ROOM_UNMANAGED`
 */
export function keepingManagers(store: Store, groupId: number, work: () => void): void {
  const rooms = [...store.groupRooms.getKeys({ start: [groupId, 0], end: [groupId + 1, 0] })]
    .map(([, roomId]) => roomId)
    .filter((roomId) => isManaged(store, roomId))
  work()
  const lost = rooms.find((roomId) => !isManaged(store, roomId))
  if (lost === undefined) return
  const message = `Nobody would manage ${pathOf(store, lost)} any more. Nothing was changed`
  throw new SyncError('safety', 'ROOM_UNMANAGED', message, {
    hint: 'Give the room to somebody first: sync serve room owner.',
  })
}

/**
 * Takes accounts out of a group.
 *
 * @throws {SyncError} `NO_SUCH_GROUP`, `NO_SUCH_USER`, `ROOM_UNMANAGED`.
 */
export function removeFromGroup(store: Store, by: By, name: string, users: readonly string[]): Promise<GroupSummary> {
  return store.write((tx) => {
    const group = findGroup(store, name)
    if (group === undefined) throw noSuchGroup()
    keepingManagers(store, group.id, () => {
      for (const one of users) putInGroup(store, tx, group.id, userOf(store, one).id, false)
    })
    const message = `Took out of the group ${group.name}: ${users.join(', ')}`
    audit({ store, tx, ...by }, { operation: 'group.members', message })
    return groupSummary(store, group)
  })
}

/**
 * Removes a group, not its members, inside a unit of work.
 *
 * @throws {SyncError} `ROOM_UNMANAGED`
 */
export function dropGroup(store: Store, tx: Tx, by: By, { id, name }: GroupRecord): void {
  keepingManagers(store, id, () => {
    for (const key of [...store.groupUsers.getKeys({ start: [id, 0], end: [id + 1, 0] })]) {
      tx.remove(store.groupUsers, key)
      tx.remove(store.userGroups, [key[1], key[0]])
    }
    for (const key of [...store.groupRooms.getKeys({ start: [id, 0], end: [id + 1, 0] })]) {
      tx.remove(store.groupRooms, key)
      tx.remove(store.roomGroups, [key[1], key[0]])
    }
    tx.remove(store.groups, id)
  })
  audit({ store, tx, ...by }, { operation: 'group.delete', message: `Removed the group ${name}` })
}

/** @throws {SyncError} `NO_SUCH_GROUP`, `ROOM_UNMANAGED`. */
export function removeGroup(store: Store, by: By, name: string): Promise<GroupSummary> {
  return store.write((tx) => {
    const group = findGroup(store, name)
    if (group === undefined) throw noSuchGroup()
    const before = groupSummary(store, group)
    dropGroup(store, tx, by, group)
    return before
  })
}

/** What an account says of its owner, and what it is called. */
export type Profile = Pick<UserRecord, 'name' | 'firstName' | 'lastName' | 'email' | 'phone' | 'language'>

/**
 * Changes what an account says of its owner; an empty text takes it away.
 *
 * @throws {SyncError} `NO_SUCH_USER`, `BAD_USER_NAME`, `USER_EXISTS`.
 */
export function updateProfile(store: Store, by: By, id: number, changes: Partial<Profile>): Promise<UserRecord> {
  return store.write((tx) => {
    const user = store.users.get(id)
    if (user === undefined) throw noSuchUser()
    const name = changes.name === undefined ? user.name : checkNewName(changes.name)
    const holder = store.userNames.get(foldUserName(name))
    if (holder !== undefined && holder !== id) {
      throw new SyncError('conflict', 'USER_EXISTS', 'A user of that name exists already')
    }
    tx.remove(store.userNames, foldUserName(user.name))
    tx.put(store.userNames, foldUserName(name), id)
    const texts = Object.entries({ ...user, ...changes, name }).filter(([, value]) => value !== '')
    const changed = Object.fromEntries(texts) as unknown as UserRecord
    tx.put(store.users, id, changed)
    audit({ store, tx, ...by }, { operation: 'user.change', message: `Changed the account ${user.name}` })
    return changed
  })
}
