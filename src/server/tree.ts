/**
 * Changes to the tree of nodes: creating, linking, renaming, deleting into the recycle bin, restoring, destroying.
 * Every function works inside a unit of work of the store and keeps counters, sizes, versions and indexes right.
 * Permissions are checked by the callers.
 * @module
 */
import { audit } from './audit.ts'
import type { BlobStore } from './blobs.ts'
import { ApiError } from './errors.ts'
import { dropHolder, isShareHolder, RESCUE_BASE } from './holders.ts'
import { type DeletedRecord, FILE, FOLDER, NODE_TYPES, type NodeRecord, type NodeType, ROOM } from './records.ts'
import { dropShares, dropSharesBelow, rehomeShares } from './shares.ts'
import type { Store, Tx } from './store.ts'
import type { ConflictStrategy } from './validate.ts'

/** What every change needs to know: where to write, who does it, and when. */
export interface Change extends Edit {
  blobs: BlobStore
}

/** A change that leaves content alone. */
export interface Edit {
  store: Store
  tx: Tx
  /** 0: whoever administers the server at its own machine. */
  userId: number
  now: number
  /** Where it came from; for the audit log. */
  address?: string
}

const COUNTERS = { [ROOM]: 'rooms', [FOLDER]: 'folders', [FILE]: 'files' } as const
const MAX_NAME = 150

function childKey(node: NodeRecord): [number, number, string, number] {
  return [node.parentId, node.type, foldName(node.name), node.id]
}

/** The form of a name by which listings are sorted. */
export function foldName(name: string): string {
  return name.toLowerCase()
}

/** Raises the version of a container and all above it, and adds `sizeDelta` bytes to each. */
export function touch(change: Edit, containerId: number, sizeDelta: number): number {
  const version = change.store.nextVersion(change.tx, change.now)
  for (let id = containerId; id !== 0; ) {
    const node = change.store.nodes.get(id)
    if (node === undefined) break
    change.tx.put(change.store.nodes, id, { ...node, version, size: node.size + sizeDelta })
    id = node.parentId
  }
  return version
}

function count(change: Change, node: NodeRecord, delta: 1 | -1): void {
  const parent = change.store.nodes.get(node.parentId)
  if (parent === undefined) return
  const counter = COUNTERS[node.type]
  change.tx.put(change.store.nodes, parent.id, { ...parent, [counter]: (parent[counter] ?? 0) + delta })
}

/** Puts a node record in place below its parent. The name must be free. */
function link(change: Change, node: NodeRecord): NodeRecord {
  const { tx, store } = change
  const linked = { ...node, version: touch(change, node.parentId, node.size) }
  tx.put(store.nodes, linked.id, linked)
  tx.put(store.names, [linked.parentId, linked.name], linked.id)
  tx.put(store.children, childKey(linked), linked.id)
  count(change, linked, 1)
  return linked
}

/** Takes a node out of its parent; the record itself is removed too. */
function unlink(change: Change, node: NodeRecord): void {
  const { tx, store } = change
  tx.remove(store.names, [node.parentId, node.name])
  tx.remove(store.children, childKey(node))
  tx.remove(store.nodes, node.id)
  count(change, node, -1)
  touch(change, node.parentId, -node.size)
}

/** The node of that name, if any. */
export function childByName(store: Store, parentId: number, name: string): NodeRecord | undefined {
  const id = store.names.get([parentId, name])
  return id === undefined ? undefined : store.nodes.get(id)
}

/** A free name made from `name` by adding a number before its extension. */
function freeName(store: Store, parentId: number, name: string): string {
  const dot = name.lastIndexOf('.')
  const extension = dot > 0 && name.length - dot <= 20 ? name.slice(dot) : ''
  const stem = name.slice(0, name.length - extension.length)
  for (let n = 1; ; n++) {
    const suffix = ` (${n})${extension}`
    const candidate = `${stem.slice(0, MAX_NAME - suffix.length)}${suffix}`
    if (!store.names.doesExist([parentId, candidate])) return candidate
  }
}

/**
 * Makes room for a node of type `type` called `name`: finds another name, moves the old file to the recycle bin, or
 * answers 409.
 *
 * @returns the name to use.
 */
export function settleName(
  change: Change,
  parentId: number,
  name: string,
  type: NodeType,
  strategy: ConflictStrategy,
  mayOverwrite: (existing: NodeRecord) => void,
  ownId?: number,
): string {
  const existing = childByName(change.store, parentId, name)
  if (existing === undefined || existing.id === ownId) return name
  if (strategy === 'autorename') return freeName(change.store, parentId, name)
  if (existing.type !== FILE || type !== FILE) {
    if (strategy === 'overwrite') throw new ApiError(409, -40010, 'Container cannot be overwritten')
    throw new ApiError(409, existing.type === FILE ? -41001 : -40010, 'Node exists already')
  }
  if (strategy === 'fail') throw new ApiError(409, -41001, 'Node exists already')
  mayOverwrite(existing)
  moveToBin(change, existing)
  return name
}

export type NewNode = Pick<NodeRecord, 'type' | 'name' | 'parentId' | 'encrypted' | 'size'> &
  Partial<Omit<NodeRecord, 'id' | 'version'>>

/** Of each room so many events are kept. */
const EVENTS_KEPT = 1_000

/** Notes what was done in a room, for its administrators; the oldest notes make way. */
export function note(change: Edit, roomId: number, operation: string, message: string, nodeId = roomId): void {
  const { store, tx, userId, now } = change
  const id = audit(change, { operation, message, nodeId, roomId })
  if (roomId === 0) return
  const [last] = store.events.getKeys({ start: [roomId + 1, 0], end: [roomId, 0], reverse: true, limit: 1 })
  const number = (last?.[1] ?? 0) + 1
  tx.put(store.events, [roomId, number], { id, time: now, userId, operation, message: message.slice(0, 1_000) })
  if (number > EVENTS_KEPT) tx.remove(store.events, [roomId, number - EVENTS_KEPT])
}

/** A node in a note: `file /room/folder/name`. */
const noted = (store: Store, node: NodeRecord): string =>
  `${NODE_TYPES[node.type]} ${parentPathOf(store, node)}${node.name}`

/** Creates a node below its parent. `roomId` is found from the parent; rooms are their own. */
export function createNode(change: Change, fresh: NewNode): NodeRecord {
  const { store, tx, userId, now } = change
  const id = store.nextId(tx, 'node')
  const node: NodeRecord = {
    roomId: fresh.type === ROOM ? id : (store.nodes.get(fresh.parentId)?.roomId ?? 0),
    createdAt: now,
    createdBy: userId,
    updatedAt: now,
    updatedBy: userId,
    timestampCreation: now,
    timestampModification: now,
    ...(fresh.type === FILE ? {} : { rooms: 0, folders: 0, files: 0 }),
    ...fresh,
    id,
    version: 0,
  }
  const linked = link(change, node)
  if (linked.type === FILE && linked.encrypted) tx.put(store.encryptedFiles, [linked.roomId, id], 1)
  note(change, linked.roomId, `${NODE_TYPES[linked.type]}.create`, `Created ${noted(store, linked)}`, id)
  if (linked.type === FILE) charge(change, linked)
  return linked
}

/** Changes fields of a node in place; name and parent go through the indexes. */
export function updateNode(change: Edit, node: NodeRecord, changes: Partial<NodeRecord>): NodeRecord {
  const { store, tx } = change
  const updated: NodeRecord = { ...node, ...changes, updatedAt: change.now, updatedBy: change.userId }
  if (updated.name !== node.name) {
    tx.remove(store.names, [node.parentId, node.name])
    tx.remove(store.children, childKey(node))
    tx.put(store.names, [node.parentId, updated.name], node.id)
    tx.put(store.children, childKey(updated), node.id)
    const text = `Renamed ${noted(store, node)} to ${updated.name}`
    note(change, node.roomId, `${NODE_TYPES[node.type]}.rename`, text, node.id)
  }
  const version = touch(change, node.parentId, 0)
  const stored = { ...updated, version }
  tx.put(store.nodes, node.id, stored)
  return stored
}

/** Moves a file or folder, with all below it, to another container. The name must be free there. */
export function moveNode(change: Change, node: NodeRecord, target: NodeRecord, name: string): NodeRecord {
  const to = `${parentPathOf(change.store, target)}${target.name}/${name}`
  const text = `Moved ${noted(change.store, node)} to ${to}`
  for (const roomId of new Set([node.roomId, target.roomId]))
    note(change, roomId, `${NODE_TYPES[node.type]}.move`, text, node.id)
  unlink(change, node)
  const moved = link(change, { ...node, name, parentId: target.id })
  return rehome(change, moved, target.roomId)
}

/** Sets the room of a node and of everything below it. */
function rehome(change: Change, node: NodeRecord, roomId: number): NodeRecord {
  if (node.roomId === roomId) return node
  const { store, tx } = change
  rehomeShares(change, node, roomId)
  const rehomed = { ...node, roomId }
  tx.put(store.nodes, node.id, rehomed)
  if (node.type === FILE && node.encrypted) {
    tx.remove(store.encryptedFiles, [node.roomId, node.id])
    tx.put(store.encryptedFiles, [roomId, node.id], 1)
  }
  for (const child of childrenOf(store, node.id)) rehome(change, child, roomId)
  return rehomed
}

/** All direct children, in listing order. */
export function childrenOf(store: Store, parentId: number): NodeRecord[] {
  const found: NodeRecord[] = []
  for (const { value } of store.children.getRange({ start: [parentId, 0, '', 0], end: [parentId + 1, 0, '', 0] })) {
    const node = store.nodes.get(value)
    if (node !== undefined) found.push(node)
  }
  return found
}

function parentPathOf(store: Store, node: NodeRecord): string {
  let path = '/'
  for (let id = node.parentId; id !== 0; ) {
    const parent = store.nodes.get(id)
    if (parent === undefined) break
    path = `/${parent.name}${path}`
    id = parent.parentId
  }
  return path
}

/** Moves a file or folder to the recycle bin of its room. What is inside a folder goes along untouched; links to any of it end. */
export function moveToBin(change: Change, node: NodeRecord): void {
  const { store, tx, now, userId } = change
  const parentPath = parentPathOf(store, node)
  note(change, node.roomId, `${NODE_TYPES[node.type]}.delete`, `Deleted ${noted(store, node)}`, node.id)
  dropSharesBelow(change, node)
  unlink(change, node)
  const { downloadShares: _down, uploadShares: _up, ...rest } = node
  tx.put(store.deleted, node.id, { ...rest, deletedAt: now, deletedBy: userId, parentPath })
  tx.put(store.bins, [node.roomId, node.id], now)
}

/** Takes a node out of the recycle bin and links it below `parent` under a free name. */
export function restoreNode(change: Change, record: DeletedRecord, parent: NodeRecord, name: string): NodeRecord {
  const { store, tx } = change
  tx.remove(store.deleted, record.id)
  tx.remove(store.bins, [record.roomId, record.id])
  const { deletedAt: _at, deletedBy: _by, parentPath: _path, ...node } = record
  const what = `${NODE_TYPES[record.type]} ${record.parentPath}${record.name}`
  note(change, parent.roomId, `${NODE_TYPES[record.type]}.restore`, `Restored ${what}`, record.id)
  return rehome(change, link(change, { ...node, name, parentId: parent.id }), parent.roomId)
}

/** Deletes a live node: files and folders to the bin, rooms for good. */
export function deleteNode(change: Change, node: NodeRecord): void {
  if (node.type !== ROOM) {
    moveToBin(change, node)
    return
  }
  audit(change, { operation: 'room.delete', message: `Deleted ${noted(change.store, node)}`, nodeId: node.id })
  unlink(change, node)
  destroy(change, node)
}

/** Destroys a node from the recycle bin. */
export function purge(change: Change, record: DeletedRecord): void {
  const what = `${NODE_TYPES[record.type]} ${record.parentPath}${record.name}`
  note(change, record.roomId, `${NODE_TYPES[record.type]}.purge`, `Removed ${what} from the recycle bin`, record.id)
  change.tx.remove(change.store.deleted, record.id)
  change.tx.remove(change.store.bins, [record.roomId, record.id])
  destroy(change, record)
}

/** Destroys a live node without a stop in the bin. */
export function destroyLive(change: Change, node: NodeRecord): void {
  unlink(change, node)
  destroy(change, node)
}

/** Removes every trace of an unlinked node and of all below it; content goes once nothing else uses it. */
function destroy(change: Change, node: NodeRecord): void {
  const { store, tx } = change
  tx.remove(store.nodes, node.id)
  dropShares(change, node)
  forgetExtras(change, node.id)
  if (node.type === FILE) {
    setUsage(change, node.createdBy, usageOf(store, node.createdBy) - node.size)
    dropFileKeys(change, node.id)
    tx.remove(store.encryptedFiles, [node.roomId, node.id])
    if (node.contentId !== undefined) releaseContent(change, node.contentId)
    return
  }
  for (const child of childrenOf(store, node.id)) {
    tx.remove(store.names, [child.parentId, child.name])
    tx.remove(store.children, childKey(child))
    destroy(change, child)
  }
  if (node.type !== ROOM) return
  dropHolder(change, RESCUE_BASE + node.id)
  for (const record of binOf(store, node.id)) purge(change, record)
  for (const { key } of [...store.members.getRange({ start: [node.id, 0], end: [node.id + 1, 0] })]) {
    tx.remove(store.members, key)
    tx.remove(store.memberships, [key[1], key[0]])
  }
  for (const key of [...store.roomGroups.getKeys({ start: [node.id, 0], end: [node.id + 1, 0] })]) {
    tx.remove(store.roomGroups, key)
    tx.remove(store.groupRooms, [key[1], key[0]])
  }
  for (const key of [...store.events.getKeys({ start: [node.id, 0], end: [node.id + 1, 0] })]) {
    tx.remove(store.events, key)
  }
}

/** Bytes of all files that a user made and that are not gone for good. */
export const usageOf = (store: Store, userId: number): number => store.usage.get(userId) ?? 0

function setUsage({ store, tx }: Edit, userId: number, bytes: number): void {
  tx.put(store.usage, userId, Math.max(0, bytes))
}

/** @throws {ApiError} 507 when the user may not have as much. */
function charge(change: Edit, file: NodeRecord): void {
  checkUserQuota(change.store, file.createdBy, file.size)
  setUsage(change, file.createdBy, usageOf(change.store, file.createdBy) + file.size)
}

/** @throws {ApiError} 507 when the user may not have so many bytes more. */
export function checkUserQuota(store: Store, userId: number, bytes: number): void {
  const quota = store.users.get(userId)?.quota
  if (quota !== undefined && usageOf(store, userId) + bytes > quota) {
    throw new ApiError(507, -90200, 'Exceeds the quota of the user')
  }
}

/** Comments and favorites of a node that is gone. */
function forgetExtras({ store, tx }: Edit, nodeId: number): void {
  for (const key of [...store.nodeComments.getKeys({ start: [nodeId, 0], end: [nodeId + 1, 0] })]) {
    tx.remove(store.nodeComments, key)
    tx.remove(store.comments, key[1])
  }
}

/** Everything in a room's recycle bin. */
export function binOf(store: Store, roomId: number): DeletedRecord[] {
  const records: DeletedRecord[] = []
  for (const { key } of store.bins.getRange({ start: [roomId, 0], end: [roomId + 1, 0] })) {
    const record = store.deleted.get(key[1])
    if (record !== undefined) records.push(record)
  }
  return records
}

function dropFileKeys(change: Change, fileId: number): void {
  const { store, tx } = change
  for (const { key } of [...store.fileKeys.getRange({ start: [fileId, 0, ''], end: [fileId + 1, 0, ''] })]) {
    tx.remove(store.fileKeys, key)
    tx.remove(store.userFileKeys, [key[1], key[2], key[0]])
  }
}

function releaseContent(change: Change, contentId: string): void {
  const { store, tx, blobs } = change
  const content = store.contents.get(contentId)
  if (content === undefined) return
  if (content.refs > 1) {
    tx.put(store.contents, contentId, { ...content, refs: content.refs - 1 })
    return
  }
  tx.remove(store.contents, contentId)
  blobs.release(tx, contentId, content.segments)
}

/** Copies a file or folder below `target`: same content, same file keys, new ids. */
export function copyNode(
  change: Change,
  node: NodeRecord,
  target: NodeRecord,
  name: string,
  changes: Partial<NodeRecord> = {},
): NodeRecord {
  const { store, tx } = change
  const {
    id: _id,
    version: _version,
    roomId: _room,
    createdAt: _at,
    createdBy: _by,
    referenceId: _reference,
    downloadShares: _down,
    uploadShares: _up,
    ...rest
  } = node
  const empty = node.type === FILE ? {} : { size: 0, rooms: 0, folders: 0, files: 0 }
  const copy = createNode(change, {
    ...rest,
    ...changes,
    ...empty,
    name,
    parentId: target.id,
    updatedAt: change.now,
    updatedBy: change.userId,
  })
  if (node.contentId !== undefined) {
    const content = store.contents.get(node.contentId)
    if (content !== undefined) tx.put(store.contents, node.contentId, { ...content, refs: content.refs + 1 })
  }
  for (const { key, value } of [...store.fileKeys.getRange({ start: [node.id, 0, ''], end: [node.id + 1, 0, ''] })]) {
    if (isShareHolder(key[1])) continue
    tx.put(store.fileKeys, [copy.id, key[1], key[2]], value)
    tx.put(store.userFileKeys, [key[1], key[2], copy.id], 1)
  }
  for (const child of childrenOf(store, node.id)) copyNode(change, child, copy, child.name)
  return store.nodes.get(copy.id) ?? copy
}
