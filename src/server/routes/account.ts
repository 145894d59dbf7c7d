/**
 * The caller's own account: profile, quota, key pairs. Private keys come and go locked; they are opaque here.
 * @module
 */
import { type Access, isAppendOnly, MANAGE } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, noContent, ok, type Reply } from '../call.ts'
import { ApiError } from '../errors.ts'
import { KEY_VERSIONS, type KeyPairRecord, type KeyVersion, type UserRecord } from '../records.ts'
import type { Store } from '../store.ts'
import { type Change, destroyLive, purge, usageOf } from '../tree.ts'
import { asFields, field, parseKeyPair, parsePrivateKey } from '../validate.ts'
import { dateView, keyPairView, preferredKeyPair, type Wire } from '../view.ts'
import { rolesOf } from './roles.ts'

/**
 * No limit. The API says -1, on which clients that read unsigned numbers give up; the largest numbers that every client
 * reads say the same: exact in a double, and 31 bits for what the API calls an int32.
 */
const UNLIMITED_SPACE = Number.MAX_SAFE_INTEGER
const UNLIMITED_ACCOUNTS = 2 ** 31 - 1

const noKeyPair = (): ApiError => new ApiError(404, -70020, 'User does not have a keypair')
const exists = (): ApiError => new ApiError(409, -70021, 'User does already have a keypair')

/** The caller's account. */
export function account({ app: { store } }: Call, user: UserRecord): Wire {
  let manages = false
  for (const { value } of store.memberships.getRange({ start: [user.id, 0], end: [user.id + 1, 0] })) {
    manages ||= (value & MANAGE) !== 0
  }
  return {
    id: user.id,
    customerId: 1,
    userName: user.name,
    login: user.name,
    firstName: user.firstName ?? user.name,
    lastName: user.lastName ?? '',
    ...(user.email === undefined ? {} : { email: user.email }),
    ...(user.phone === undefined ? {} : { phone: user.phone }),
    ...(user.lastLoginAt === undefined ? {} : { lastLoginSuccessAt: dateView(user.lastLoginAt) }),
    isLocked: false,
    lockStatus: 0,
    hasManageableRooms: manages,
    userRoles: rolesOf(user),
    language: user.language ?? 'en-US',
    authData: { method: 'basic', login: user.name, mustChangePassword: false },
    needsToChangePassword: false,
    needsToChangeUserName: false,
    needsToAcceptEULA: false,
    mustSetEmail: false,
    isEncryptionEnabled: preferredKeyPair(store, user.id) !== undefined,
  }
}

function customer({ app, user }: Call): Reply {
  let spaceUsed = 0
  for (const { value } of app.store.children.getRange({ start: [0, 0, '', 0], end: [1, 0, '', 0] })) {
    spaceUsed += app.store.nodes.get(value)?.size ?? 0
  }
  return ok({
    id: 1,
    name: 'sealsync',
    isProviderCustomer: false,
    // What counts for the caller: an own quota, or all that is there.
    spaceLimit: user.quota ?? UNLIMITED_SPACE,
    spaceUsed: user.quota === undefined ? spaceUsed : usageOf(app.store, user.id),
    accountsLimit: UNLIMITED_ACCOUNTS,
    accountsUsed: app.store.users.getCount({}),
    customerEncryptionEnabled: true,
  })
}

function versionOf(query: URLSearchParams): KeyVersion | undefined {
  const text = query.get('version')
  if (text === null || text === '') return undefined
  const version = KEY_VERSIONS.find((known) => known === text)
  if (version === undefined) throw new ApiError(400, -70022, 'Unknown key pair version')
  return version
}

function getKeyPair({ app, user, query }: Call): Reply {
  const version = versionOf(query)
  const pair = version === undefined ? preferredKeyPair(app.store, user.id) : app.store.keyPairs.get([user.id, version])
  if (pair === undefined) throw noKeyPair()
  return ok(keyPairView(pair))
}

function listKeyPairs({ app, user }: Call): Reply {
  const pairs = KEY_VERSIONS.map((version) => app.store.keyPairs.get([user.id, version])).filter(
    (pair) => pair !== undefined,
  )
  if (pairs.length === 0) throw noKeyPair()
  return ok(pairs.map(keyPairView))
}

type GivenKeyPair = Pick<KeyPairRecord, 'version' | 'privateKey' | 'publicKey'>

function putKeyPair(store: Store, change: Change, pair: GivenKeyPair): void {
  const { tx, userId, now } = change
  if (store.keyPairs.doesExist([userId, pair.version])) throw exists()
  tx.put(store.keyPairs, [userId, pair.version], { ...pair, createdAt: now, createdBy: userId })
}

const samePem = (a: string, b: string) => a.replace(/\s/g, '') === b.replace(/\s/g, '')

/**
 * The lock of a key pair that is there is replaced, in one step, for whoever sends the same public key and shows by
 * `previousPrivateKey` that the lock that is there is the one that they know. Everything else meets a key pair that exists.
 */
function relock(store: Store, change: Change, pair: GivenKeyPair, known: string): boolean {
  const there = store.keyPairs.get([change.userId, pair.version])
  if (there === undefined || !samePem(there.publicKey, pair.publicKey)) return false
  if (!samePem(there.privateKey, known)) return false
  change.tx.put(store.keyPairs, [change.userId, pair.version], { ...there, privateKey: pair.privateKey })
  return true
}

async function addKeyPair(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const pair = parseKeyPair(body)
  const previousField = field(body, 'previousPrivateKey')
  const previous = previousField === undefined ? undefined : parsePrivateKey(asFields(previousField))
  await call.change((change, access) => {
    // Whoever has the login can show the lock that is there, and put one in its place that nobody opens.
    if (previous !== undefined) requireKeysToLose(call, access)
    const isRelocked = previous?.version === pair.version && relock(store, change, pair, previous.pem)
    if (!isRelocked) putKeyPair(store, change, pair)
  })
  return noContent()
}

/**
 * What is done with an own key pair can make files useless as surely as deleting them. Who may only add to a room may not do that to what
 * was added there.
 */
function requireKeysToLose(call: Call, access: Access): void {
  const { store } = call.app
  const seen = new Set<number>()
  for (const version of KEY_VERSIONS) {
    const range = {
      start: [access.userId, version, 0],
      end: [access.userId, version, Number.MAX_SAFE_INTEGER],
    } as const
    for (const [, , fileId] of store.userFileKeys.getKeys({ start: [...range.start], end: [...range.end] })) {
      const roomId = (store.nodes.get(fileId) ?? store.deleted.get(fileId))?.roomId
      if (roomId === undefined || seen.has(roomId)) continue
      seen.add(roomId)
      if (isAppendOnly(access.bits(roomId)))
        throw new ApiError(403, undefined, 'The key pair opens files in a room that this user may only add to')
    }
  }
}

/** A new pair beside an older one, whose private key comes along under the new password. */
async function migrateKeyPair(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const pair = parseKeyPair(body)
  const previousField = field(body, 'previousPrivateKey')
  const previous = previousField === undefined ? undefined : parsePrivateKey(asFields(previousField))
  await call.change((change, access) => {
    putKeyPair(store, change, pair)
    if (previous === undefined) return
    requireKeysToLose(call, access)
    const old = store.keyPairs.get([change.userId, previous.version])
    if (old === undefined || previous.version === pair.version)
      throw new ApiError(400, -70023, 'No such previous key pair')
    change.tx.put(store.keyPairs, [change.userId, previous.version], { ...old, privateKey: previous.pem })
  })
  return noContent()
}

/** Deletes a key pair, the file keys made for it, and then files that nobody can open any more. */
async function deleteKeyPair(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const version = versionOf(call.query) ?? 'A'
  await call.change((change, access) => {
    const { tx, userId } = change
    if (!store.keyPairs.doesExist([userId, version])) throw noKeyPair()
    requireKeysToLose(call, access)
    tx.remove(store.keyPairs, [userId, version])
    const range = store.userFileKeys.getRange({
      start: [userId, version, 0],
      end: [userId, version, Number.MAX_SAFE_INTEGER],
    })
    for (const { key } of [...range]) {
      const fileId = key[2]
      tx.remove(store.userFileKeys, key)
      tx.remove(store.fileKeys, [fileId, userId, version])
      const [left] = [...store.fileKeys.getKeys({ start: [fileId, 0, ''], end: [fileId + 1, 0, ''], limit: 1 })]
      if (left === undefined) destroyFile(change, fileId)
    }
  })
  return noContent()
}

function destroyFile(change: Change, fileId: number): void {
  const live = change.store.nodes.get(fileId)
  if (live !== undefined) destroyLive(change, live)
  const binned = change.store.deleted.get(fileId)
  if (binned !== undefined) purge(change, binned)
}

export const accountRoutes: RouteTable = {
  'GET /v4/user/account': (call) => ok(account(call, call.user)),
  'GET /v4/user/account/customer': customer,
  'GET /v4/user/ping': ({ user, app }) => {
    void user
    return { status: 200, headers: { 'Content-Type': 'text/plain' }, body: `OK ${dateView(app.now())}` }
  },
  'GET /v4/user/account/keypair': getKeyPair,
  'POST /v4/user/account/keypair': addKeyPair,
  'DELETE /v4/user/account/keypair': deleteKeyPair,
  'GET /v4/user/account/keypairs': listKeyPairs,
  'POST /v4/user/account/keypairs': migrateKeyPair,
}
