/** Rooms, and who may use them. @module */
import { getAccount } from '../api/account.ts'
import {
  createRoom,
  createSubroom,
  deleteNode,
  encryptRoom,
  listChildren,
  listRoomEvents,
  listRoomGroups,
  listRoomUsers,
  putRoomMembers,
  removeRoomMembers,
  updateRoom,
} from '../api/nodes.ts'
import type { LogEvent, Permissions, RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { escapeName } from '../local/names.ts'
import { parseRemotePath, requireRemote } from '../sync/remote-path.ts'
import { requireName } from './arrange.ts'
import { type Abortable, type ClientContext, collect } from './context.ts'
import { list as listEntries, pathOf, type RemoteEntry } from './entries.ts'
import type { PreparedRoomRescue } from './rescue-papers.ts'

/**
 * What a member may do: look; also change contents; also manage the room. `append`: look and add, but neither replace, rename, move nor
 * delete; `upload`: add, and see no file.
 */
export type Role = 'read' | 'upload' | 'append' | 'edit' | 'admin'

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
  /** Do not encrypt it. Default false. A room in a room is as that one. */
  readonly plain?: boolean | undefined
  /** Of a room in a room: this account is its only member at first. Default false: it has the members of the room above. */
  readonly ownMembers?: boolean | undefined
  /**
   * Of an encrypted room at the top: a rescue key, which can open all its files; `rescue.prepareForRoom` makes one, which is trusted
   * here then. `system`: that of the whole server, which has to be trusted by itself. Default: none.
   */
  readonly rescue?: 'system' | PreparedRoomRescue | undefined
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

async function createBelow(
  context: ClientContext,
  path: string,
  { plain = false, ownMembers = false, signal }: RoomOptions,
): Promise<RemoteEntry> {
  const { api } = context
  const names = parseRemotePath(path)
  const above = pathOf(names.slice(0, -1))
  const parent = await requireRoom(context, above, signal)
  if ((parent.isEncrypted === true) === plain) {
    const how = plain ? 'encrypted' : 'not encrypted'
    throw new SyncError('conflict', 'ENCRYPTION_DIFFERS', `A room in ${above} is as that one, which is ${how}`, {
      hint: plain ? 'Leave out --plain.' : 'Make an encrypted room at the top, or use --plain.',
    })
  }
  const adminId = ownMembers ? (await getAccount(api, signal)).id : undefined
  const room = await createSubroom(api, parent.id, escapeName(names.at(-1)!), adminId, signal)
  return { ...room, path: pathOf([...names.slice(0, -1), room.name]) }
}

/**
 * Makes a room. One at the top has this account as its only administrator, and is encrypted unless told otherwise; one that was made and
 * not encrypted, because somebody was interrupted, is taken up. One in a room is encrypted as that one is.
 *
 * @param path - `/NAME`, or `/ROOM/NAME`.
 * @throws {SyncError} `PATH_INVALID`, `NO_KEY_PAIR`, `EXISTS`, `ENCRYPTION_DIFFERS`, `NOT_A_ROOM`. No plain room is left behind where an
 * encrypted one was wanted.
 */
export async function create(context: ClientContext, path: string, options: RoomOptions): Promise<RemoteEntry> {
  const { api, keyring } = context
  const { plain = false, rescue, signal } = options
  const [name, ...rest] = parseRemotePath(path)
  if (name === undefined) throw new SyncError('usage', 'PATH_INVALID', 'A room has a name: /NAME')
  if (rescue !== undefined && (plain || rest.length > 0)) {
    throw new SyncError('usage', 'OPTION_INVALID', 'Only an encrypted room at the top has a rescue key of its own')
  }
  if (rest.length > 0) return createBelow(context, path, options)
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
      room = await encryptRoom(api, room.id, signal, typeof rescue === 'object' ? rescue.container : rescue)
      if (typeof rescue === 'object') await keyring.pins.trustRescueKey(rescue)
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
    read: role !== 'upload',
    create: edit || role === 'append' || role === 'upload',
    change: edit,
    delete: edit,
    manageDownloadShare: manage,
    manageUploadShare: manage,
    readRecycleBin: edit,
    restoreRecycleBin: edit,
    deleteRecycleBin: manage,
  }
}

function roleOf(permissions: Permissions | undefined): Role {
  if (permissions?.manage) return 'admin'
  if (!permissions?.create) return 'read'
  if (permissions.delete || permissions.change) return 'edit'
  return permissions.read ? 'append' : 'upload'
}

/** @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`. */
export async function requireRoom({ api }: ClientContext, path: string, signal?: AbortSignal): Promise<RemoteNode> {
  const { node } = await requireRemote(api, path, signal)
  if (node.type === 'room') return node
  throw new SyncError('usage', 'NOT_A_ROOM', `Not a room: ${path}`)
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

/** A group that has access to a room. */
export interface RoomGroupMember {
  readonly groupId: number
  readonly name: string
  readonly role: Role
}

/**
 * The groups that are members of a room.
 *
 * @throws {SyncError} as `members`.
 */
export async function* groups(
  context: ClientContext,
  path: string,
  { signal }: Abortable,
): AsyncGenerator<RoomGroupMember> {
  const room = await requireRoom(context, path, signal)
  for await (const { id, name, permissions } of listRoomGroups(context.api, room.id, true, signal)) {
    yield { groupId: id, name, role: roleOf(permissions) }
  }
}

/** Who is added to a room, or given another role. */
export interface NewMember {
  readonly kind: 'user' | 'group'
  /** User name, or name of the group. */
  readonly name: string
  readonly role: Role
}

/** Who is in a room after a change. */
export interface MemberChanges extends Abortable {
  readonly add?: readonly NewMember[] | undefined
  readonly remove?: readonly Pick<NewMember, 'kind' | 'name'>[] | undefined
}

function idsByName<T>(
  wanted: readonly Pick<NewMember, 'name'>[],
  all: readonly T[],
  of: (one: T) => { readonly id: number; readonly name: string | undefined },
  kind: NewMember['kind'],
): number[] {
  return wanted.map(({ name }) => {
    const found = all.map(of).filter((one) => one.name === name)
    if (found.length === 1) return found[0]!.id
    if (found.length > 1) {
      throw new SyncError('usage', 'USER_AMBIGUOUS', `More than one ${kind} is called ${name}`)
    }
    throw new SyncError('not_found', 'USER_UNKNOWN', `There is no ${kind} ${name}, or they cannot be in this room`)
  })
}

/**
 * Adds users and groups to a room, gives them other roles, and takes others out, after all of them have been found. In an encrypted room
 * who is new can read nothing before their key is trusted (`keys.trust`) and the file keys are handed out (`keys.distribute`).
 *
 * @returns the room.
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`, `USER_UNKNOWN`, `USER_AMBIGUOUS`, `FORBIDDEN`.
 */
export async function changeMembers(
  context: ClientContext,
  path: string,
  { add = [], remove = [], signal }: MemberChanges,
): Promise<RemoteNode> {
  const { api } = context
  const room = await requireRoom(context, path, signal)
  const plan: { readonly kind: 'users' | 'groups'; readonly put: NewMember[]; ids: number[]; gone: number[] }[] = []
  for (const kind of ['user', 'group'] as const) {
    const [put, out] = [add.filter((one) => one.kind === kind), remove.filter((one) => one.kind === kind)]
    if (put.length + out.length === 0) continue
    const granted = put.length === 0
    const find = async (wanted: readonly Pick<NewMember, 'name'>[]) =>
      kind === 'user'
        ? idsByName(wanted, await users(granted), ({ userInfo: { id, userName: name } }) => ({ id, name }), kind)
        : idsByName(wanted, await everyGroup(granted), (group) => group, kind)
    plan.push({ kind: `${kind}s`, put, ids: await find(put), gone: await find(out) })
  }
  for (const { kind, put, ids } of plan) {
    const items = put.map(({ role }, at) => ({ id: ids[at]!, permissions: permissionsOf(role) }))
    if (items.length > 0) await putRoomMembers(api, room.id, kind, items, signal)
  }
  for (const { kind, gone } of plan) if (gone.length > 0) await removeRoomMembers(api, room.id, kind, gone, signal)
  return room

  async function users(granted: boolean) {
    return collect(listRoomUsers(api, room.id, granted, signal))
  }
  async function everyGroup(granted: boolean) {
    return collect(listRoomGroups(api, room.id, granted, signal))
  }
}

/** What a member may do. */
export interface AddMemberOptions extends Abortable {
  /** Default `edit`. */
  readonly role?: Role | undefined
}

/**
 * Makes a user a member of a room, or gives a member another role; see `changeMembers`.
 *
 * @param user - Their user name.
 * @returns the room.
 */
export const addMember = (
  context: ClientContext,
  path: string,
  user: string,
  { role = 'edit', signal }: AddMemberOptions,
): Promise<RemoteNode> => changeMembers(context, path, { add: [{ kind: 'user', name: user, role }], signal })

/**
 * Takes a user out of a room. What they have read before, and its keys, they may have kept.
 *
 * @throws {SyncError} as `changeMembers`.
 */
export async function removeMember(
  context: ClientContext,
  path: string,
  user: string,
  { signal }: Abortable,
): Promise<void> {
  await changeMembers(context, path, { remove: [{ kind: 'user', name: user }], signal })
}

const placed = (path: string, room: RemoteNode): RemoteEntry => ({
  ...room,
  path: pathOf([...parseRemotePath(path).slice(0, -1), room.name]),
})

/**
 * Gives a room another name.
 *
 * @param name - Without slashes.
 * @throws {SyncError} `EXISTS`, `REMOTE_MISSING`, `NOT_A_ROOM`, `PATH_INVALID`, `FORBIDDEN`.
 */
export async function rename(
  context: ClientContext,
  path: string,
  name: string,
  { signal }: Abortable,
): Promise<RemoteEntry> {
  requireName(name)
  const { id } = await requireRoom(context, path, signal)
  return placed(path, await updateRoom(context.api, id, { name: escapeName(name) }, signal))
}

/**
 * Limits what may be in a room.
 *
 * @param bytes - 0: no limit of its own.
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`, `FORBIDDEN`.
 */
export async function setQuota(
  context: ClientContext,
  path: string,
  bytes: number,
  { signal }: Abortable,
): Promise<RemoteEntry> {
  if (!Number.isSafeInteger(bytes) || bytes < 0) throw new RangeError('A quota counts bytes')
  const { id } = await requireRoom(context, path, signal)
  return placed(path, await updateRoom(context.api, id, { quota: bytes }, signal))
}

/**
 * Deletes a room for good, with all that is in it, and its recycle bin.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`, `FORBIDDEN`.
 */
export async function remove(context: ClientContext, path: string, { signal }: Abortable): Promise<RemoteEntry> {
  const room = await requireRoom(context, path, signal)
  await deleteNode(context.api, room.id, signal)
  return placed(path, room)
}

/** Which part of a room's history is asked for. Milliseconds since the epoch. */
export interface RoomHistoryOptions extends Abortable {
  readonly since?: number | undefined
  readonly until?: number | undefined
}

/**
 * What was done in a room, as its server has noted it, newest first.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM`, `FORBIDDEN`.
 */
export async function* history(
  context: ClientContext,
  path: string,
  { signal, ...when }: RoomHistoryOptions,
): AsyncGenerator<LogEvent> {
  const { id } = await requireRoom(context, path, signal)
  yield* listRoomEvents(context.api, id, when, signal)
}
