/**
 * Rooms: creating, configuring, switching encryption on. Their members are handled in members.ts.
 * @module
 */
import { type Access, ALL_PERMISSIONS, CREATE, MANAGE, READ } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, created, ok, type Reply } from '../call.ts'
import { ApiError, badRequest, forbidden, nodeNotFound } from '../errors.ts'
import { dropHolder, giveKeyPair, keyPairsOf, RESCUE_BASE, SYSTEM_RESCUE } from '../holders.ts'
import { type NodeRecord, ROOM } from '../records.ts'
import { hasShares } from '../shares.ts'
import { binOf, type Change, createNode, settleName, updateNode } from '../tree.ts'
import {
  asFields,
  checkName,
  checkPathLength,
  type Fields,
  field,
  idList,
  optionalArray,
  optionalBoolean,
  optionalInteger,
  pageOf,
  pageReply,
  parseKeyPair,
} from '../validate.ts'
import { dateOf, dateView, fullNodeView, preferredKeyPair, userInfo } from '../view.ts'
import { setMember } from './members.ts'
import { attributesOf } from './nodes.ts'

const needsAdmin = (): ApiError => badRequest(-40006, 'At least one admin is required')

/** The room named in the path, for its admins. */
export function managedRoom(call: Call, access: Access): NodeRecord {
  const room = access.node(call.id())
  if (room.type !== ROOM) throw nodeNotFound()
  access.require(room, MANAGE)
  return room
}

function adminsOf(body: Fields): number[] {
  const list = optionalArray(body, 'adminIds')
  return list === undefined || list.length === 0 ? [] : [...new Set(idList(body, 'adminIds'))]
}

/** Attributes that both creating and changing a room take. */
function roomAttributes(body: Fields, now: number): Partial<NodeRecord> {
  const { expireAt: _unused, ...attributes } = attributesOf(body, now)
  const quota = optionalInteger(body, 'quota')
  const retentionDays = optionalInteger(body, 'recycleBinRetentionPeriod')
  if (retentionDays !== undefined && retentionDays > 9999) throw badRequest(-80018, 'Not between 0 and 9999')
  // 0 means none.
  if (quota !== undefined) attributes.quota = quota
  if (retentionDays !== undefined) attributes.retentionDays = retentionDays
  return attributes
}

async function createRoom(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const name = checkName(field(body, 'name'))
  const parentId = optionalInteger(body, 'parentId')
  if (parentId === 0) throw badRequest(-80001, 'parentId must be absent for rooms at the top')
  const admins = adminsOf(body)
  const inherit = optionalBoolean(body, 'inheritPermissions') ?? (parentId !== undefined && admins.length === 0)
  if (parentId === undefined && inherit) throw badRequest(-40017, 'Rooms at the top cannot inherit permissions')
  if (!inherit && admins.length === 0) throw needsAdmin()
  const attributes = roomAttributes(body, call.app.now())
  const view = await call.change((change, access) => {
    const parent = parentId === undefined ? undefined : parentRoom(access, parentId)
    checkPathLength(parent === undefined ? '/' : (access.pathOf(parent.id) ?? ''), name)
    if (store.names.doesExist([parentId ?? 0, name])) throw new ApiError(409, -41001, 'Node exists already')
    const room = createNode(change, {
      ...attributes,
      type: ROOM,
      name,
      parentId: parentId ?? 0,
      encrypted: parent?.encrypted ?? false,
      size: 0,
      inherit,
    })
    addAdmins(change, room.id, admins)
    return fullNodeView(store, room, access)
  })
  return created(view)
}

function parentRoom(access: Access, id: number): NodeRecord {
  const parent = access.node(id)
  if (parent.type !== ROOM) throw new ApiError(404, -40000, 'Container not found')
  access.require(parent, MANAGE | CREATE)
  return parent
}

function addAdmins(change: Change, roomId: number, admins: readonly number[]): void {
  for (const id of admins) setMember(change, roomId, id, ALL_PERMISSIONS)
}

async function updateRoom(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const attributes = roomAttributes(body, call.app.now())
  const name = field(body, 'name') === undefined ? undefined : checkName(field(body, 'name'))
  const view = await call.change((change, access) => {
    const room = managedRoom(call, access)
    if (name !== undefined) {
      settleName(change, room.parentId, name, ROOM, 'fail', () => undefined, room.id)
      checkPathLength(access.pathOf(room.parentId) ?? '/', name)
    }
    const updated = updateNode(change, room, { ...attributes, ...(name === undefined ? {} : { name }) })
    return fullNodeView(store, updated, access)
  })
  return ok(view)
}

async function configureRoom(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const attributes = roomAttributes(body, call.app.now())
  const admins = adminsOf(body)
  const inherit = optionalBoolean(body, 'inheritPermissions')
  const view = await call.change((change, access) => {
    const room = managedRoom(call, access)
    if (room.parentId === 0 && inherit === true) throw badRequest(-40017, 'Rooms at the top cannot inherit permissions')
    addAdmins(change, room.id, admins)
    if (inherit === false && room.inherit === true && !hasOwnAdmin(call, room.id)) throw needsAdmin()
    const updated = updateNode(change, room, { ...attributes, ...(inherit === undefined ? {} : { inherit }) })
    return fullNodeView(store, updated, access)
  })
  return ok(view)
}

function hasOwnAdmin({ app }: Call, roomId: number): boolean {
  const range = app.store.members.getRange({ start: [roomId, 0], end: [roomId + 1, 0] })
  return [...range].some(({ value }) => (value & MANAGE) !== 0)
}

async function encryptRoom(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const wanted = optionalBoolean(body, 'isEncrypted')
  if (wanted === undefined) throw badRequest(-80000, 'isEncrypted is mandatory')
  const rescueField = field(body, 'dataRoomRescueKey')
  const rescue = rescueField === undefined ? undefined : parseKeyPair(asFields(rescueField))
  const useSystemKey = optionalBoolean(body, 'useDataSpaceRescueKey') === true
  if (useSystemKey && rescue !== undefined) throw badRequest(-40004, 'Only one rescue key is allowed')
  if (useSystemKey && keyPairsOf(store, SYSTEM_RESCUE).length === 0) {
    throw badRequest(-40004, 'There is no system rescue key')
  }
  const view = await call.change((change, access) => {
    const room = managedRoom(call, access)
    checkEncrypt(change, room, wanted)
    dropHolder(change, RESCUE_BASE + room.id)
    if (wanted && rescue !== undefined) giveKeyPair(change, RESCUE_BASE + room.id, rescue)
    const { systemRescue: _old, ...plain } = room
    const updated = updateNode(change, plain, {
      encrypted: wanted,
      ...(wanted && useSystemKey ? { systemRescue: true } : {}),
    })
    return fullNodeView(store, updated, access)
  })
  return ok(view)
}

function checkEncrypt({ store, userId }: Change, room: NodeRecord, wanted: boolean): void {
  if (room.parentId !== 0) throw forbidden('Only rooms at the top can be encrypted')
  if (wanted === room.encrypted) {
    throw wanted ? badRequest(-40002, 'Room is encrypted') : badRequest(-40001, 'Room is not encrypted')
  }
  const isEmpty = (room.rooms ?? 0) + (room.folders ?? 0) + (room.files ?? 0) === 0
  if (!isEmpty) throw badRequest(wanted ? -40008 : -40003, 'Room is not empty')
  if (binOf(store, room.id).length > 0) throw badRequest(wanted ? -40012 : -40018, 'Recycle bin is not empty')
  if (hasShares(store, room.id)) throw badRequest(-40023, 'Room has shares')
  if (wanted && preferredKeyPair(store, userId) === undefined) {
    throw new ApiError(403, -70020, 'User does not have a keypair')
  }
}

/** What was done in a room, newest first unless told otherwise. */
function listEvents(call: Call): Reply {
  const { store } = call.app
  const room = call.access.node(call.id())
  if (room.type !== ROOM) throw nodeNotFound()
  call.access.require(room, READ)
  const [from, until] = ['date_start', 'date_end'].map((name) => dateOf(call.query.get(name)))
  const userId = call.queryId('user_id')
  const isOldestFirst = call.query.get('sort') === 'time:asc'
  const found = [...store.events.getRange({ start: [room.id, 0], end: [room.id + 1, 0] })]
    .map(({ value }) => value)
    .filter(
      (event) =>
        (from === undefined || event.time >= from) &&
        (until === undefined || event.time <= until) &&
        (userId === undefined || event.userId === userId) &&
        // All that is noted was done.
        call.query.get('status') !== '2',
    )
  if (!isOldestFirst) found.reverse()
  const { range, items } = pageReply(found, pageOf(call.query))
  return ok({
    range,
    items: items.map((event) => ({
      id: event.id,
      time: dateView(event.time),
      userId: event.userId,
      userName: userInfo(store, event.userId).userName,
      message: event.message,
      operationName: event.operation,
      status: 0,
    })),
  })
}

export const roomRoutes: RouteTable = {
  'POST /v4/nodes/rooms': createRoom,
  'PUT /v4/nodes/rooms/:id': updateRoom,
  'PUT /v4/nodes/rooms/:id/config': configureRoom,
  'PUT /v4/nodes/rooms/:id/encrypt': encryptRoom,
  'GET /v4/nodes/rooms/:id/events': listEvents,
}
