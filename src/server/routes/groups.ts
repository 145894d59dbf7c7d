/** Groups of accounts through the API, for administrators. What is done is ../admin/users.ts. @module */
import { MANAGE, membersOf } from '../access.ts'
import { addGroup, dropGroup, findGroup, keepingManagers, putInGroup } from '../admin/users.ts'
import { audit } from '../audit.ts'
import { type Call, created, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError } from '../errors.ts'
import { splitFilter } from '../listing.ts'
import { type GroupRecord, NODE_TYPES } from '../records.ts'
import { checkName, field, idList, pageOf, pageReply } from '../validate.ts'
import { dateView, userInfo, type Wire } from '../view.ts'
import { administratorOf, asApi, byCaller, ROLES } from './roles.ts'

const noGroup = (): ApiError => new ApiError(404, -30000, 'Group not found')

function groupView({ app: { store } }: Call, { id, name, createdAt }: GroupRecord): Wire {
  return {
    id,
    name,
    createdAt: dateView(createdAt),
    createdBy: userInfo(store, 0),
    cntUsers: store.groupUsers.getCount({ start: [id, 0], end: [id + 1, 0] }),
    groupRoles: { items: [] },
  }
}

function groupOf(call: Call): GroupRecord {
  administratorOf(call)
  const group = call.app.store.groups.get(call.id('id', noGroup))
  if (group === undefined) throw noGroup()
  return group
}

function list(call: Call): Reply {
  administratorOf(call)
  const wanted = splitFilter(call.query.get('filter'))
    .filter(({ field: name }) => name === 'name')
    .map(({ value }) => value.normalize('NFC').toLowerCase())
  const groups = [...call.app.store.groups.getRange({})]
    .map(({ value }) => value)
    .filter(({ name }) => wanted.every((text) => name.toLowerCase().includes(text)))
  const { range, items } = pageReply(groups, pageOf(call.query))
  return ok({ range, items: items.map((group) => groupView(call, group)) })
}

async function add(call: Call): Promise<Reply> {
  administratorOf(call)
  const { store } = call.app
  const name = checkName(field(await call.json(), 'name'))
  if (findGroup(store, name) !== undefined) throw new ApiError(409, undefined, 'Group exists already')
  const { id } = await asApi(addGroup(store, byCaller(call), name, []))
  return created(groupView(call, store.groups.get(id) ?? { id, name, createdAt: call.app.now() }))
}

async function rename(call: Call): Promise<Reply> {
  const { store } = call.app
  const group = groupOf(call)
  const name = checkName(field(await call.json(), 'name'))
  const taken = findGroup(store, name)
  if (taken !== undefined && taken.id !== group.id) throw new ApiError(409, undefined, 'Group exists already')
  await store.write((tx) => {
    tx.put(store.groups, group.id, { ...group, name })
    const message = `Renamed the group ${group.name} to ${name}`
    audit({ store, tx, ...byCaller(call) }, { operation: 'group.change', message })
  })
  return ok(groupView(call, { ...group, name }))
}

async function remove(call: Call): Promise<Reply> {
  const { store } = call.app
  const group = groupOf(call)
  await asApi(store.write((tx) => dropGroup(store, tx, byCaller(call), group)))
  return noContent()
}

function listMembers(call: Call): Reply {
  const { store } = call.app
  const group = groupOf(call)
  const isWanted = splitFilter(call.query.get('filter')).some(
    ({ field: name, value }) => name === 'isMember' && value !== 'true',
  )
  const users = [...store.users.getRange({})].map(({ key }) => ({
    userInfo: userInfo(store, key),
    isMember: store.groupUsers.doesExist([group.id, key]),
  }))
  return ok(pageReply(isWanted ? users : users.filter(({ isMember }) => isMember), pageOf(call.query)))
}

async function changeMembers(call: Call, isIn: boolean): Promise<Reply> {
  const { store } = call.app
  const group = groupOf(call)
  const ids = [...new Set(idList(await call.json(), 'ids'))]
  const change = store.write((tx) => {
    keepingManagers(store, group.id, () => {
      for (const id of ids) {
        if (!store.users.doesExist(id)) throw new ApiError(404, -70501, 'User not found')
        putInGroup(store, tx, group.id, id, isIn)
      }
    })
    const message = `${isIn ? 'Added to' : 'Took out of'} the group ${group.name}: ${ids.length}`
    audit({ store, tx, ...byCaller(call) }, { operation: 'group.members', message })
  })
  await asApi(change)
  return ok(groupView(call, group))
}

/** Rooms that nobody manages but through this group. */
function lastAdminRooms(call: Call): Reply {
  const { store } = call.app
  const group = groupOf(call)
  const members = new Set(
    [...store.groupUsers.getKeys({ start: [group.id, 0], end: [group.id + 1, 0] })].map(([, userId]) => userId),
  )
  const items: Wire[] = []
  for (const [, roomId] of store.groupRooms.getKeys({ start: [group.id, 0], end: [group.id + 1, 0] })) {
    const room = store.nodes.get(roomId)
    const managers = [...membersOf(store, roomId)].filter(([, bits]) => (bits & MANAGE) !== 0).map(([id]) => id)
    if (room === undefined || !managers.every((id) => members.has(id))) continue
    items.push({ id: room.id, name: room.name, type: NODE_TYPES[room.type] })
  }
  return ok({ items })
}

/** Users with a role: all of them have that of making rooms. */
function usersWithRole(call: Call): Reply {
  administratorOf(call)
  const id = call.id('id', () => new ApiError(404, undefined, 'Role not found'))
  if (!ROLES.some((role) => role.id === id)) throw new ApiError(404, undefined, 'Role not found')
  const { store } = call.app
  const users = [...store.users.getRange({})].filter(({ value }) => value.isAdmin === true || id === 4)
  const items = users.map(({ key }) => ({ userInfo: userInfo(store, key), isMember: true }))
  return ok(pageReply(items, pageOf(call.query)))
}

export const groupRoutes: RouteTable = {
  'GET /v4/groups': list,
  'POST /v4/groups': add,
  'GET /v4/groups/:id': (call) => ok(groupView(call, groupOf(call))),
  'PUT /v4/groups/:id': rename,
  'DELETE /v4/groups/:id': remove,
  'GET /v4/groups/:id/users': listMembers,
  'POST /v4/groups/:id/users': (call) => changeMembers(call, true),
  'DELETE /v4/groups/:id/users': (call) => changeMembers(call, false),
  'GET /v4/groups/:id/last_admin_rooms': lastAdminRooms,
  'GET /v4/groups/:id/roles': (call) => {
    groupOf(call)
    return ok({ items: [] })
  },
  'GET /v4/roles': (call) => {
    administratorOf(call)
    return ok({ items: ROLES })
  },
  'GET /v4/roles/:id/users': usersWithRole,
  'GET /v4/roles/:id/groups': (call) => {
    administratorOf(call)
    return ok(pageReply([], pageOf(call.query)))
  },
}
