/** Whom the server names as members of encrypted rooms, with the public keys it shows for them. Nothing is believed here. @module */
import { type PublicKey, SyncError } from '../../crypto/index.ts'
import type { Api } from '../api/api.ts'
import { listMissingFileKeys } from '../api/file-keys.ts'
import { createCensus, listChildren, listRoomUsers, listTooLong, MAX_ENTRIES } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { Keyring } from './keyring.ts'

export interface Member {
  readonly userId: number
  /** As the server says it; rescue keys have none. */
  readonly name?: string
  /** A member of no room: its private key can open every file of a room. */
  readonly isRescueKey?: true
  /** More than one where rooms show different ones. */
  readonly keys: readonly PublicKey[]
}

/** Everybody in the encrypted rooms of this account but the account itself, by id. */
export async function listMembers(api: Api, keyring: Keyring, signal?: AbortSignal): Promise<Member[]> {
  const found = new Map<number, { name?: string; isRescueKey?: true; keys: PublicKey[] }>()
  const add = async (userId: number, name: string | undefined, container: unknown) => {
    const member = found.get(userId) ?? { keys: [] }
    found.set(userId, { ...member, ...(name === undefined ? {} : { name }) })
    if (container === undefined || container === null) return
    try {
      const key = await keyring.importKey(container)
      if (!member.keys.some(({ fingerprint }) => fingerprint === key.fingerprint)) member.keys.push(key)
    } catch (error) {
      // A key that is none gets no file keys anyway.
      if (!(error instanceof SyncError) || error.class !== 'key') throw error
    }
  }
  let memberships = 0
  for (const room of await listEncryptedRooms(api, signal)) {
    for await (const { userInfo, publicKeyContainer } of listRoomUsers(api, room.id, true, signal)) {
      if (++memberships > (api.maxEntries ?? MAX_ENTRIES)) throw listTooLong()
      await add(userInfo.id, userInfo.userName, publicKeyContainer)
    }
  }
  const { users } = await listMissingFileKeys(api, { offset: 0 }, signal)
  for (const { id, publicKeyContainer } of users) {
    if (!found.has(id)) found.set(id, { isRescueKey: true, keys: [] })
    await add(id, undefined, publicKeyContainer)
  }
  found.delete(await keyring.userId(signal))
  return [...found].map(([userId, member]) => ({ userId, ...member })).sort((a, b) => a.userId - b.userId)
}

/** Names of the members of a room, or of all encrypted rooms of this account, by id. */
export async function listMemberNames(
  api: Api,
  roomId: number | undefined,
  signal?: AbortSignal,
): Promise<Map<number, string | undefined>> {
  const names = new Map<number, string | undefined>()
  const rooms = roomId === undefined ? (await listEncryptedRooms(api, signal)).map(({ id }) => id) : [roomId]
  for (const id of rooms) {
    for await (const { userInfo } of listRoomUsers(api, id, true, signal)) {
      names.set(userInfo.id, userInfo.userName)
      if (names.size > (api.maxEntries ?? MAX_ENTRIES)) throw listTooLong()
    }
  }
  return names
}

/** All encrypted rooms that this account sees. */
export async function listEncryptedRooms(api: Api, signal: AbortSignal | undefined): Promise<RemoteNode[]> {
  const rooms: RemoteNode[] = []
  const pending = [0]
  const count = createCensus(api)
  for (let parent = pending.pop(); parent !== undefined; parent = pending.pop()) {
    try {
      for await (const node of listChildren(api, parent, signal)) {
        // Rooms come first.
        if (node.type !== 'room') break
        count(node.id)
        if (node.isEncrypted === true) rooms.push(node)
        if (node.cntRooms !== 0) pending.push(node.id)
      }
    } catch (error) {
      // A room that is not encrypted any more: what is in it does not matter here.
      if (!(error instanceof SyncError) || error.class !== 'safety') throw error
    }
  }
  return rooms
}
