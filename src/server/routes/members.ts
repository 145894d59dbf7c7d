/**
 * Members of rooms, users and groups: who is in, who could be, with which permissions. Public keys come along, so that clients can check
 * them before handing out file keys.
 * @module
 */
import { type Access, MANAGE, membersOf, PERMISSION_NAMES, permissionFlags } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, noContent, ok, type Reply } from '../call.ts'
import { ApiError, badRequest, nodeNotFound } from '../errors.ts'
import { splitFilter } from '../listing.ts'
import { type NodeRecord, ROOM } from '../records.ts'
import type { Store } from '../store.ts'
import { type Change, type Edit, note, touch } from '../tree.ts'
import {
  asFields,
  field,
  idList,
  optionalArray,
  optionalBoolean,
  pageOf,
  pageReply,
  requiredInteger,
} from '../validate.ts'
import { preferredKeyPair, publicKeyView, userInfo, type Wire } from '../view.ts'

/** Sets someone's own permissions in a room; 0 removes the membership. Unknown users are 404. */
export function setMember(
  { store, tx }: Pick<Edit, 'store' | 'tx'>,
  roomId: number,
  userId: number,
  bits: number,
): void {
  if (bits === 0) {
    tx.remove(store.members, [roomId, userId])
    tx.remove(store.memberships, [userId, roomId])
    return
  }
  if (!store.users.doesExist(userId)) throw new ApiError(404, -70501, 'User not found')
  tx.put(store.members, [roomId, userId], bits)
  tx.put(store.memberships, [userId, roomId], bits)
}

function roomOf(call: Call, access: Access): NodeRecord {
  const room = access.node(call.id())
  if (room.type !== ROOM || access.bits(room.id) === 0) throw nodeNotFound()
  return room
}

function memberView(store: Store, userId: number, bits: number): Wire {
  const pair = preferredKeyPair(store, userId)
  const name = store.users.get(userId)?.name ?? ''
  return {
    id: userId,
    login: name,
    displayName: name,
    email: '',
    userInfo: userInfo(store, userId),
    isGranted: bits !== 0,
    ...(bits === 0 ? {} : { permissions: permissionFlags(bits) }),
    ...(pair === undefined ? {} : { publicKeyContainer: publicKeyView(pair) }),
  }
}

interface MemberFilter {
  granted: boolean | undefined
  tests: ((user: { id: number; name: string; bits: number }) => boolean)[]
}

function parseFilter(text: string | null, isAdmin: boolean): MemberFilter {
  const filter: MemberFilter = { granted: true, tests: [] }
  for (const { field: name, operator, value } of splitFilter(text)) {
    if (name === 'isGranted' && operator === 'eq') {
      if (!['any', 'true', 'false'].includes(value)) throw badRequest(undefined, 'Invalid filter')
      // Others than admins get to know members only.
      if (isAdmin) filter.granted = value === 'any' ? undefined : value === 'true'
    } else if (name === 'user' && operator === 'cn') {
      const wanted = value.normalize('NFC').toLowerCase()
      filter.tests.push((user) => user.name.toLowerCase().includes(wanted))
    } else if (name === 'userId' && operator === 'eq') {
      const ids = value.split(':')
      filter.tests.push((user) => ids.includes(String(user.id)))
    } else if (name === 'permissionsManage' && operator === 'eq') {
      filter.tests.push((user) => String((user.bits & MANAGE) !== 0) === value)
    } else if (name !== 'effectivePerm') throw badRequest(undefined, 'Invalid filter')
  }
  return filter
}

function listMembers(call: Call): Reply {
  const { store } = call.app
  const room = roomOf(call, call.access)
  const members = membersOf(store, room.id)
  const filter = parseFilter(call.query.get('filter'), (call.access.bits(room.id) & MANAGE) !== 0)
  const found: { id: number; name: string; bits: number }[] = []
  for (const { value } of store.users.getRange({})) {
    const user = { id: value.id, name: value.name, bits: members.get(value.id) ?? 0 }
    if (filter.granted !== undefined && filter.granted !== (user.bits !== 0)) continue
    if (filter.tests.every((test) => test(user))) found.push(user)
  }
  const reply = pageReply(found, pageOf(call.query))
  return ok({ range: reply.range, items: reply.items.map(({ id, bits }) => memberView(store, id, bits)) })
}

function bitsOf(value: unknown): number {
  const fields = asFields(value)
  let bits = 0
  PERMISSION_NAMES.forEach((name, index) => {
    if (optionalBoolean(fields, name) === true) bits |= 1 << index
  })
  return bits
}

/** Carries out a change of members, unless it would leave the room without an admin. */
async function changeMembers(call: Call, work: (change: Change, room: NodeRecord) => void): Promise<Reply> {
  const { store } = call.app
  await call.change((change, access) => {
    const room = roomOf(call, access)
    access.require(room, MANAGE)
    work(change, room)
    const admins = [...membersOf(store, room.id).values()].filter((bits) => (bits & MANAGE) !== 0)
    if (admins.length === 0) throw badRequest(-40006, 'At least one admin is required')
    touch(change, room.id, 0)
    note(change, room.id, 'room.members', `Changed the members of room ${room.name}`)
  })
  return noContent()
}

/** Who is to have which permissions. */
async function entriesIn(call: Call): Promise<{ id: number; bits: number }[]> {
  const items = optionalArray(await call.json(), 'items')
  if (items === undefined || items.length === 0) throw badRequest(-80000, 'items is mandatory')
  return items.map((item) => {
    const fields = asFields(item)
    return { id: requiredInteger(fields, 'id'), bits: bitsOf(field(fields, 'permissions')) }
  })
}

async function putMembers(call: Call): Promise<Reply> {
  void call.user
  const entries = await entriesIn(call)
  return changeMembers(call, (change, room) => {
    for (const { id, bits } of entries) {
      if (!change.store.users.doesExist(id)) throw new ApiError(404, -70501, 'User not found')
      setMember(change, room.id, id, bits)
    }
  })
}

async function deleteMembers(call: Call): Promise<Reply> {
  void call.user
  const ids = idList(await call.json(), 'ids')
  return changeMembers(call, (change, room) => {
    for (const id of ids) {
      if (!change.store.users.doesExist(id)) throw new ApiError(404, -70501, 'User not found')
      setMember(change, room.id, id, 0)
    }
  })
}

function setGroup({ store, tx }: Change, roomId: number, groupId: number, bits: number): void {
  if (!store.groups.doesExist(groupId)) throw new ApiError(404, -30000, 'Group not found')
  if (bits === 0) {
    tx.remove(store.roomGroups, [roomId, groupId])
    tx.remove(store.groupRooms, [groupId, roomId])
    return
  }
  tx.put(store.roomGroups, [roomId, groupId], bits)
  tx.put(store.groupRooms, [groupId, roomId], bits)
}

/** Permissions of a group in a room, those in the rooms above included where the room has them. */
function groupBits(store: Store, roomId: number, groupId: number): number {
  let bits = 0
  for (let id = roomId; id !== 0; ) {
    bits |= store.roomGroups.get([id, groupId]) ?? 0
    const room = store.nodes.get(id)
    id = room?.inherit === true ? room.parentId : 0
  }
  return bits
}

function listGroups(call: Call): Reply {
  const { store } = call.app
  const room = roomOf(call, call.access)
  const isAdmin = (call.access.bits(room.id) & MANAGE) !== 0
  let granted: boolean | undefined = true
  const tests: ((group: { id: number; name: string; bits: number }) => boolean)[] = []
  for (const { field: name, operator, value } of splitFilter(call.query.get('filter'))) {
    if (name === 'isGranted' && operator === 'eq') {
      if (!['any', 'true', 'false'].includes(value)) throw badRequest(undefined, 'Invalid filter')
      if (isAdmin) granted = value === 'any' ? undefined : value === 'true'
    } else if (name === 'name' && operator === 'cn') {
      const wanted = value.normalize('NFC').toLowerCase()
      tests.push((group) => group.name.toLowerCase().includes(wanted))
    } else if (name === 'groupId' && operator === 'eq') {
      const ids = value.split(':')
      tests.push((group) => ids.includes(String(group.id)))
    } else if (name === 'permissionsManage' && operator === 'eq') {
      tests.push((group) => String((group.bits & MANAGE) !== 0) === value)
    } else if (name !== 'effectivePerm') throw badRequest(undefined, 'Invalid filter')
  }
  const found = [...store.groups.getRange({})]
    .map(({ value: { id, name } }) => ({ id, name, bits: groupBits(store, room.id, id) }))
    .filter((group) => (granted ?? group.bits !== 0) === (group.bits !== 0) && tests.every((test) => test(group)))
  const { range, items } = pageReply(found, pageOf(call.query))
  return ok({
    range,
    items: items.map(({ id, name, bits }) => ({
      id,
      name,
      isGranted: bits !== 0,
      newGroupMemberAcceptance: 'autoallow',
      ...(bits === 0 ? {} : { permissions: permissionFlags(bits) }),
    })),
  })
}

async function putGroups(call: Call): Promise<Reply> {
  void call.user
  const entries = await entriesIn(call)
  return changeMembers(call, (change, room) => {
    for (const { id, bits } of entries) setGroup(change, room.id, id, bits)
  })
}

async function deleteGroups(call: Call): Promise<Reply> {
  void call.user
  const ids = idList(await call.json(), 'ids')
  return changeMembers(call, (change, room) => {
    for (const id of ids) setGroup(change, room.id, id, 0)
  })
}

export const memberRoutes: RouteTable = {
  'GET /v4/nodes/rooms/:id/users': listMembers,
  'PUT /v4/nodes/rooms/:id/users': putMembers,
  'DELETE /v4/nodes/rooms/:id/users': deleteMembers,
  'GET /v4/nodes/rooms/:id/groups': listGroups,
  'PUT /v4/nodes/rooms/:id/groups': putGroups,
  'DELETE /v4/nodes/rooms/:id/groups': deleteGroups,
}
