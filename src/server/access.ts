/**
 * Who may see and do what: permission bits of a user in a room, and whether a node can be reached at all. One instance
 * serves one request, because it remembers what it looked up; it never writes.
 * @module
 */
import { forbidden, nodeNotFound } from './errors.ts'
import { FILE, type NodeRecord, ROOM } from './records.ts'
import type { Store } from './store.ts'

/** The ten permissions in wire order; bit n of a permission set is name n. */
export const PERMISSION_NAMES = [
  'manage',
  'read',
  'create',
  'change',
  'delete',
  'manageDownloadShare',
  'manageUploadShare',
  'readRecycleBin',
  'restoreRecycleBin',
  'deleteRecycleBin',
] as const
export const MANAGE = 1
export const READ = 2
export const CREATE = 4
export const CHANGE = 8
export const DELETE = 16
export const DOWNLOAD_SHARE = 32
export const UPLOAD_SHARE = 64
export const READ_BIN = 128
export const RESTORE_BIN = 256
export const DELETE_BIN = 512
export const ALL_PERMISSIONS = 1023

/** True for who may add to a room, and destroy nothing of what is in it. */
export const isAppendOnly = (bits: number): boolean => (bits & CREATE) !== 0 && (bits & (DELETE | MANAGE)) === 0

export class Access {
  readonly userId: number
  readonly #store: Store
  readonly #bits = new Map<number, number>()
  readonly #paths = new Map<number, string | undefined>([[0, '/']])
  #browsable: Set<number> | undefined
  #groups: readonly number[] | undefined
  #favorites: ReadonlySet<number> | undefined

  constructor(store: Store, userId: number) {
    this.#store = store
    this.userId = userId
  }

  /** What this looks at. */
  get store(): Store {
    return this.#store
  }

  /** Permission bits in a room, those inherited from its parent rooms included. */
  bits(roomId: number): number {
    const known = this.#bits.get(roomId)
    if (known !== undefined) return known
    let bits = this.#store.members.get([roomId, this.userId]) ?? 0
    for (const groupId of this.#ownGroups()) bits |= this.#store.roomGroups.get([roomId, groupId]) ?? 0
    const room = this.#store.nodes.get(roomId)
    if (room?.inherit === true && room.parentId !== 0) bits |= this.bits(room.parentId)
    this.#bits.set(roomId, bits)
    return bits
  }

  #ownGroups(): readonly number[] {
    this.#groups ??= [...this.#store.userGroups.getKeys({ start: [this.userId, 0], end: [this.userId + 1, 0] })].map(
      ([, groupId]) => groupId,
    )
    return this.#groups
  }

  /** Whether this user has marked a node. */
  isFavorite(nodeId: number): boolean {
    const range = { start: [this.userId, 0], end: [this.userId + 1, 0] }
    this.#favorites ??= new Set([...this.#store.favorites.getKeys(range)].map(([, id]) => id))
    return this.#favorites.has(nodeId)
  }

  /** Full path of a container with a slash at either end, or undefined if a deleted folder is on the way. */
  pathOf(containerId: number): string | undefined {
    if (this.#paths.has(containerId)) return this.#paths.get(containerId)
    const node = this.#store.nodes.get(containerId)
    const parent = node === undefined ? undefined : this.pathOf(node.parentId)
    const path = node === undefined || parent === undefined ? undefined : `${parent}${node.name}/`
    this.#paths.set(containerId, path)
    return path
  }

  /** Whether this user may know of the node. The node must be reachable; see `find`. */
  sees(node: NodeRecord): boolean {
    const bits = this.bits(node.roomId)
    if (node.type === FILE) return (bits & READ) !== 0
    return bits !== 0 || (node.type === ROOM && this.#browsableRooms().has(node.id))
  }

  /** A node that exists, is in no recycle bin and is visible; else undefined. */
  find(id: number): NodeRecord | undefined {
    const node = this.#store.nodes.get(id)
    if (node === undefined || this.pathOf(node.parentId) === undefined || !this.sees(node)) return undefined
    return node
  }

  /** Like `find`, but answers 404 for what cannot be seen. */
  node(id: number, notFound = nodeNotFound): NodeRecord {
    const node = this.find(id)
    if (node === undefined) throw notFound()
    return node
  }

  /** Answers 403 unless all of `bits` are granted in the room of the node. */
  require(node: NodeRecord, bits: number): void {
    if ((this.bits(node.roomId) & bits) !== bits) throw forbidden()
  }

  /** Rooms to pass through on the way to a room of one's own. */
  #browsableRooms(): Set<number> {
    if (this.#browsable !== undefined) return this.#browsable
    const rooms = new Set<number>()
    const { memberships, groupRooms } = this.#store
    const own = [...memberships.getKeys({ start: [this.userId, 0], end: [this.userId + 1, 0] })]
    for (const id of this.#ownGroups()) {
      for (const key of groupRooms.getKeys({ start: [id, 0], end: [id + 1, 0] })) own.push(key)
    }
    for (const key of own) {
      let id = key[1]
      while (id !== 0 && !rooms.has(id)) {
        rooms.add(id)
        id = this.#store.nodes.get(id)?.parentId ?? 0
      }
    }
    this.#browsable = rooms
    return rooms
  }
}

/** Users who hold any permission in the room, with their bits, inherited ones included. */
export function membersOf(store: Store, roomId: number): Map<number, number> {
  const members = new Map<number, number>()
  let id = roomId
  while (id !== 0) {
    for (const { key, value } of store.members.getRange({ start: [id, 0], end: [id + 1, 0] })) {
      members.set(key[1], (members.get(key[1]) ?? 0) | value)
    }
    for (const { key, value } of store.roomGroups.getRange({ start: [id, 0], end: [id + 1, 0] })) {
      for (const [, userId] of store.groupUsers.getKeys({ start: [key[1], 0], end: [key[1] + 1, 0] })) {
        members.set(userId, (members.get(userId) ?? 0) | value)
      }
    }
    const room = store.nodes.get(id)
    id = room?.inherit === true ? room.parentId : 0
  }
  return members
}

/** Made once for each set: every node of a listing has one. */
const flagsOf = new Map<number, Readonly<Record<string, boolean>>>()

export function permissionFlags(bits: number): Readonly<Record<string, boolean>> {
  let flags = flagsOf.get(bits)
  if (flags === undefined) {
    flags = Object.freeze(
      Object.fromEntries(PERMISSION_NAMES.map((name, index) => [name, (bits & (1 << index)) !== 0])),
    )
    flagsOf.set(bits, flags)
  }
  return flags
}
