/** What is done to rooms when a server is administered: each function is one unit of work of the store. @module */
import { SyncError } from '../../../crypto/errors.ts'
import { ALL_PERMISSIONS, MANAGE, membersOf } from '../access.ts'
import { findUser } from '../credentials.ts'
import { KEY_VERSIONS, type NodeRecord, ROOM } from '../records.ts'
import { setMember } from '../routes/members.ts'
import type { Store } from '../store.ts'
import { type Edit, note, touch, updateNode } from '../tree.ts'
import { pathOf, roomAt } from './paths.ts'
import { type By, noSuchUser } from './users.ts'

/** A room as an administrator sees it; sizes in bytes. */
export interface RoomSummary {
  id: number
  path: string
  isEncrypted: boolean
  size: number
  /** Absent: no limit. */
  quota?: number
  /** Days that deleted files are kept; 0: for ever. */
  recycleDays: number
  /** Names of those who manage it. */
  admins: string[]
  members: number
}

function summaryOf(store: Store, room: NodeRecord): RoomSummary {
  const members = membersOf(store, room.id)
  const admins = [...members].flatMap(([id, bits]) => ((bits & MANAGE) === 0 ? [] : (store.users.get(id)?.name ?? [])))
  return {
    id: room.id,
    path: pathOf(store, room.id),
    isEncrypted: room.encrypted,
    size: room.size,
    ...(room.quota === undefined || room.quota === 0 ? {} : { quota: room.quota }),
    recycleDays: room.retentionDays ?? 0,
    admins,
    members: members.size,
  }
}

function* roomsBelow(store: Store, parentId: number): Generator<NodeRecord> {
  for (const { value } of store.children.getRange({
    start: [parentId, ROOM, '', 0],
    end: [parentId, ROOM + 1, '', 0],
  })) {
    const room = store.nodes.get(value)
    if (room === undefined) continue
    yield room
    yield* roomsBelow(store, room.id)
  }
}

/** All rooms, each before those in it. */
export const listRooms = (store: Store): RoomSummary[] =>
  [...roomsBelow(store, 0)].map((room) => summaryOf(store, room))

function change(
  store: Store,
  by: By,
  path: string,
  work: (edit: Edit, room: NodeRecord) => void,
): Promise<RoomSummary> {
  return store.write((tx) => {
    const room = roomAt(store, path)
    if (room === undefined) throw new SyncError('not_found', 'NO_SUCH_ROOM', `There is no room ${path}`)
    work({ store, tx, ...by }, room)
    return summaryOf(store, store.nodes.get(room.id) ?? room)
  })
}

/** What became of a room that was given to somebody. */
export interface NewOwner extends RoomSummary {
  /** Encrypted files in it that the new owner cannot open, until somebody who can hands the keys on. */
  unreadable: number
}

/**
 * Makes a user an administrator of a room. Keys of its files come from those who have them, not from the server.
 *
 * @throws {SyncError} `NO_SUCH_ROOM`, `NO_SUCH_USER`.
 */
export async function setRoomOwner(store: Store, by: By, path: string, name: string): Promise<NewOwner> {
  let unreadable = 0
  const summary = await change(store, by, path, (edit, room) => {
    const user = findUser(store, name)
    if (user === undefined) throw noSuchUser()
    setMember(edit, room.id, user.id, ALL_PERMISSIONS)
    for (const key of store.encryptedFiles.getKeys({ start: [room.id, 0], end: [room.id + 1, 0] })) {
      if (!KEY_VERSIONS.some((version) => store.fileKeys.doesExist([key[1], user.id, version]))) unreadable++
    }
    touch(edit, room.id, 0)
    note(edit, room.id, 'room.members', `Made ${user.name} an administrator of room ${room.name}`)
  })
  return { ...summary, unreadable }
}

/**
 * Sets what a room may hold; 0 for no limit. What is there stays.
 *
 * @throws {SyncError} `NO_SUCH_ROOM`
 */
export const setRoomQuota = (store: Store, by: By, path: string, bytes: number): Promise<RoomSummary> =>
  change(store, by, path, (edit, room) => {
    updateNode(edit, room, { quota: bytes })
    note(edit, room.id, 'room.change', `Quota of room ${room.name}: ${bytes === 0 ? 'none' : bytes}`)
  })

/**
 * Sets for how many days deleted files are kept; 0 for ever.
 *
 * @throws {SyncError} `NO_SUCH_ROOM`
 */
export const setRecycleDays = (store: Store, by: By, path: string, days: number): Promise<RoomSummary> =>
  change(store, by, path, (edit, room) => {
    updateNode(edit, room, { retentionDays: days })
    note(edit, room.id, 'room.change', `Recycle bin of room ${room.name}: ${days === 0 ? 'no limit' : `${days} days`}`)
  })
