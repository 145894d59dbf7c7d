/** Rooms, and who may use them. @module */
import { getAccount } from '../api/account.ts'
import {
  createRoom,
  deleteNode,
  encryptRoom,
  listChildren,
  listRoomUsers,
  putRoomUser,
  removeRoomUser,
} from '../api/nodes.ts'
import type { Permissions, RemoteNode, RoomUser } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { escapeName } from '../local/names.ts'
import { parseRemotePath, requireRemote } from '../sync/remote-path.ts'
import { type Abortable, type ClientContext, collect } from './context.ts'
import { list as listEntries, type RemoteEntry } from './entries.ts'

/** What a member may do: look; also change contents; also manage the room. */
export type Role = 'read' | 'edit' | 'admin'

/** Somebody who has access to a room. */
export interface RoomMember {
  readonly userId: number
  readonly name: string | undefined
  readonly role: Role
  /** Without one, nobody can give them file keys. */
  readonly hasKeyPair: boolean
}

/** How a room is made. */
export interface RoomOptions extends Abortable {
  /** Do not encrypt it. Default false. */
  readonly plain?: boolean | undefined
}

/** The room that a run of before has made, and did not come to encrypt: plain, empty, and of nobody else. */
async function unfinishedRoom(
  { api }: ClientContext,
  name: string,
  accountId: number,
  signal: AbortSignal | undefined,
): Promise<RemoteNode | undefined> {
  const { node } = await requireRemote(api, `/${name}`, signal)
  if (node.type !== 'room' || node.isEncrypted) return undefined
  for await (const _child of listChildren(api, node.id, signal)) return undefined
  for await (const { userInfo } of listRoomUsers(api, node.id, true, signal)) {
    if (userInfo.id !== accountId) return undefined
  }
  return node
}

/**
 * Makes a top room with this account as its only administrator, encrypted unless told otherwise. One that was made and not
 * encrypted, because somebody was interrupted, is taken up.
 *
 * @param path - `/NAME`.
 * @throws {SyncError} `PATH_INVALID`, `NO_KEY_PAIR`, `EXISTS`. No plain room is left behind where an encrypted one was wanted.
 */
export async function create(context: ClientContext, path: string, options: RoomOptions): Promise<RemoteEntry> {
  const { api, keyring } = context
  const { plain = false, signal } = options
  const [name, ...rest] = parseRemotePath(path)
  if (name === undefined || rest.length > 0) {
    throw new SyncError('usage', 'PATH_INVALID', 'A room is made at the top: /NAME')
  }
  const account = await getAccount(api, signal)
  if (!plain && (await keyring.containers(signal)).length === 0) {
    throw new SyncError('key', 'NO_KEY_PAIR', 'An encrypted room needs your key pair first', {
      hint: 'Make one: sync keys create',
    })
  }
  let isNew = true
  let room = await createRoom(api, escapeName(name), account.id, signal).catch(async (error) => {
    if (plain || !(error instanceof SyncError) || error.code !== 'EXISTS') throw error
    const unfinished = await unfinishedRoom(context, name, account.id, signal)
    if (unfinished === undefined) throw error
    isNew = false
    return unfinished
  })
  if (!plain) {
    try {
      room = await encryptRoom(api, room.id, signal)
    } catch (error) {
      // A plain room under the name of an encrypted one would be a trap.
      if (isNew) await deleteNode(api, room.id).catch(() => {})
      throw error
    }
  }
  return { ...room, path: `/${room.name}` }
}

/** The rooms at the top that this account may see. */
export const list = (context: ClientContext, options: Abortable): AsyncGenerator<RemoteEntry> =>
  listEntries(context, '/', options)

function permissionsOf(role: Role): Permissions {
  const manage = role === 'admin'
  const edit = manage || role === 'edit'
  return {
    manage,
    read: true,
    create: edit,
    change: edit,
    delete: edit,
    manageDownloadShare: manage,
    manageUploadShare: manage,
    readRecycleBin: edit,
    restoreRecycleBin: edit,
    deleteRecycleBin: manage,
  }
}

const roleOf = (permissions: Permissions | undefined): Role =>
  permissions?.manage ? 'admin' : permissions?.create ? 'edit' : 'read'

/** @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`. */
export async function requireRoom({ api }: ClientContext, path: string, signal?: AbortSignal): Promise<RemoteNode> {
  const { node } = await requireRemote(api, path, signal)
  if (node.type === 'room') return node
  throw new SyncError('usage', 'NOT_A_ROOM', `Not a room: ${path}`)
}

function requireUser(users: readonly RoomUser[], name: string): RoomUser {
  const user = users.find(({ userInfo }) => userInfo.userName === name)
  if (user !== undefined) return user
  throw new SyncError('not_found', 'USER_UNKNOWN', `There is no user ${name}, or they cannot be in this room`)
}

/**
 * The members of a room.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`, `FORBIDDEN` for who may not see them.
 */
export async function* members(
  context: ClientContext,
  path: string,
  { signal }: Abortable,
): AsyncGenerator<RoomMember> {
  const room = await requireRoom(context, path, signal)
  for await (const { userInfo, permissions, publicKeyContainer } of listRoomUsers(context.api, room.id, true, signal)) {
    yield {
      userId: userInfo.id,
      name: userInfo.userName,
      role: roleOf(permissions),
      hasKeyPair: publicKeyContainer !== undefined && publicKeyContainer !== null,
    }
  }
}

/** What a member may do. */
export interface AddMemberOptions extends Abortable {
  /** Default `edit`. */
  readonly role?: Role | undefined
}

/**
 * Makes somebody a member of a room, or gives a member another role. In an encrypted room they can read nothing before their key
 * is trusted (`keys.trust`) and the file keys are handed out (`keys.distribute`).
 *
 * @param user - Their user name.
 * @returns the room.
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`, `USER_UNKNOWN`, `FORBIDDEN`.
 */
export async function addMember(
  context: ClientContext,
  path: string,
  user: string,
  { role = 'edit', signal }: AddMemberOptions,
): Promise<RemoteNode> {
  const room = await requireRoom(context, path, signal)
  const everybody = await collect(listRoomUsers(context.api, room.id, false, signal))
  await putRoomUser(context.api, room.id, requireUser(everybody, user).userInfo.id, permissionsOf(role), signal)
  return room
}

/**
 * Takes somebody out of a room. What they have read before, and its keys, they may have kept.
 *
 * @throws {SyncError} as `addMember`.
 */
export async function removeMember(
  context: ClientContext,
  path: string,
  user: string,
  { signal }: Abortable,
): Promise<void> {
  const room = await requireRoom(context, path, signal)
  const all = await collect(listRoomUsers(context.api, room.id, true, signal))
  await removeRoomUser(context.api, room.id, requireUser(all, user).userInfo.id, signal)
}
