/** Rooms, folders and files as a tree, and who may use a room. @module */
import { SyncError } from '../errors.ts'
import { type Api, call, callFor } from './api.ts'
import {
  PAGE,
  type Permissions,
  parseNode,
  parseNodePage,
  parseRoomUsers,
  type RemoteNode,
  type RoomUser,
} from './wire.ts'

/** More nodes than this under one parent are not believed. */
const MAX_NODES = 10_000_000

interface Page<T> {
  readonly range: { readonly total: number }
  readonly items: readonly T[]
}

/** Reads a paged list to its end. A page that brings nothing before the end is an error, never "no more". */
async function* pages<T>(fetch: (offset: number) => Promise<Page<T>>): AsyncGenerator<T> {
  for (let offset = 0, before = 0; ; ) {
    const { range, items } = await fetch(offset)
    if (range.total > MAX_NODES) throw new SyncError('limit', 'LIST_TOO_LONG', 'The server lists too many entries')
    // What has moved to an earlier page would be passed over in silence.
    if (range.total < before) throw new SyncError('changed', 'LIST_CHANGED', 'The list changed while it was read')
    before = range.total
    yield* items
    offset += items.length
    if (offset >= range.total) return
    if (items.length === 0) throw new SyncError('server', 'LIST_CUT', 'The server’s list ended before its end')
  }
}

/** The children of a room or folder; 0 is the root, which holds rooms. */
export const listChildren = (api: Api, parentId: number, signal?: AbortSignal): AsyncGenerator<RemoteNode> =>
  pages((offset) =>
    callFor(
      api,
      {
        method: 'GET',
        path: '/v4/nodes',
        query: { parent_id: parentId, offset, limit: PAGE, sort: 'name:asc' },
        signal,
      },
      parseNodePage,
    ),
  )

export const getNode = (api: Api, id: number, signal?: AbortSignal): Promise<RemoteNode> =>
  callFor(api, { method: 'GET', path: `/v4/nodes/${id}`, signal }, parseNode)

/** @throws {SyncError} `EXISTS` when the name is taken. */
export const createFolder = (api: Api, parentId: number, name: string, signal?: AbortSignal): Promise<RemoteNode> =>
  callFor(api, { method: 'POST', path: '/v4/nodes/folders', json: { parentId, name }, signal }, parseNode)

/** A top room with this account as its only administrator. */
export const createRoom = (api: Api, name: string, adminId: number, signal?: AbortSignal): Promise<RemoteNode> =>
  callFor(
    api,
    {
      method: 'POST',
      path: '/v4/nodes/rooms',
      json: { name, adminIds: [adminId], inheritPermissions: false, recycleBinRetentionPeriod: 0 },
      signal,
    },
    parseNode,
  )

/** Switches encryption on for an empty top room, without rescue key. */
export const encryptRoom = (api: Api, roomId: number, signal?: AbortSignal): Promise<RemoteNode> =>
  callFor(
    api,
    {
      method: 'PUT',
      path: `/v4/nodes/rooms/${roomId}/encrypt`,
      json: { isEncrypted: true, useDataSpaceRescueKey: false },
      signal,
    },
    parseNode,
  )

/** Files and folders go to the room's recycle bin. */
export async function deleteNode(api: Api, id: number, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: `/v4/nodes/${id}`, signal })
}

/** @param granted - Members only, or everybody who could become one. */
export const listRoomUsers = (
  api: Api,
  roomId: number,
  granted: boolean,
  signal?: AbortSignal,
): AsyncGenerator<RoomUser> =>
  pages((offset) =>
    callFor(
      api,
      {
        method: 'GET',
        path: `/v4/nodes/rooms/${roomId}/users`,
        query: { offset, limit: PAGE, filter: `isGranted:eq:${granted ? 'true' : 'any'}` },
        signal,
      },
      parseRoomUsers,
    ),
  )

export async function putRoomUser(
  api: Api,
  roomId: number,
  userId: number,
  permissions: Permissions,
  signal?: AbortSignal,
): Promise<void> {
  const json = { items: [{ id: userId, permissions }] }
  await call(api, { method: 'PUT', path: `/v4/nodes/rooms/${roomId}/users`, json, signal, repeatable: true })
}

export async function removeRoomUser(api: Api, roomId: number, userId: number, signal?: AbortSignal): Promise<void> {
  const json = { ids: [userId] }
  await call(api, { method: 'DELETE', path: `/v4/nodes/rooms/${roomId}/users`, json, signal, repeatable: true })
}
