/**
 * Accounts through the API, for administrators. What is done is ../admin/users.ts; the caller's own account is account.ts.
 * @module
 */
import { MANAGE } from '../access.ts'
import {
  addUser,
  hashNewPassword,
  type Profile,
  removeUser,
  roomsOnlyManagedBy,
  setDisabled,
  setPassword,
  summaryOf,
  updateProfile,
} from '../admin/users.ts'
import { type Call, created, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest } from '../errors.ts'
import { splitFilter } from '../listing.ts'
import { NODE_TYPES, type NodeRecord, type UserRecord } from '../records.ts'
import { asFields, type Fields, field, optionalBoolean, optionalString, pageOf, pageReply } from '../validate.ts'
import { dateView, userInfo, type Wire } from '../view.ts'
import { administratorOf, asApi, byCaller, rolesOf } from './roles.ts'

const noUser = (): ApiError => new ApiError(404, -70501, 'User not found')
const MAX_TEXT = 150

function userView({ app: { store } }: Call, user: UserRecord): Wire {
  const { hasKeyPair, isDisabled, lastLoginAt, createdAt } = summaryOf(store, user)
  let manages = false
  for (const { value } of store.memberships.getRange({ start: [user.id, 0], end: [user.id + 1, 0] })) {
    manages ||= (value & MANAGE) !== 0
  }
  const optional = { email: user.email, phone: user.phone }
  return {
    id: user.id,
    userName: user.name,
    login: user.name,
    firstName: user.firstName ?? user.name,
    lastName: user.lastName ?? '',
    avatarUuid: userInfo(store, user.id).avatarUuid,
    isLocked: isDisabled,
    lockStatus: isDisabled ? 1 : 0,
    createdAt: dateView(createdAt),
    ...(lastLoginAt === undefined ? {} : { lastLoginSuccessAt: dateView(lastLoginAt) }),
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined)),
    hasManageableRooms: manages,
    isEncryptionEnabled: hasKeyPair,
    isNonmemberViewer: false,
    authData: { method: 'basic', login: user.name, mustChangePassword: false },
    language: user.language ?? 'en-US',
    userRoles: rolesOf(user),
  }
}

function userOf(call: Call): UserRecord {
  administratorOf(call)
  const user = call.app.store.users.get(call.id('id', noUser))
  if (user === undefined) throw noUser()
  return user
}

type Test = (user: UserRecord) => boolean

/** Filters of lists of users; what this server does not know of a user matches nobody. */
function testsOf(text: string | null): Test[] {
  return splitFilter(text).map(({ field: name, operator, value }): Test => {
    const wanted = value.normalize('NFC').toLowerCase()
    const isIn = (own: string | undefined): boolean =>
      operator === 'eq' ? own?.toLowerCase() === wanted : own?.toLowerCase().includes(wanted) === true
    if (name === 'userName' || name === 'login' || name === 'displayName') return (user) => isIn(user.name)
    if (name === 'firstName') return (user) => isIn(user.firstName ?? user.name)
    if (name === 'lastName') return (user) => isIn(user.lastName ?? '')
    if (name === 'email') return (user) => isIn(user.email)
    if (name === 'isLocked') return (user) => String(user.disabledAt !== undefined) === wanted
    if (name === 'effectiveRoles' || name === 'hasRole') return (user) => String(user.isAdmin === true) === wanted
    throw badRequest(undefined, 'Invalid filter')
  })
}

/** By name, unless it is asked for in the order in which they were made. */
function sorted(users: UserRecord[], text: string | null): UserRecord[] {
  const [name, order] = (text ?? 'userName:asc').split(':')
  if (name !== 'createdAt') users.sort((a, b) => (a.name.toLowerCase() < b.name.toLowerCase() ? -1 : 1))
  return order === 'desc' ? users.reverse() : users
}

function list(call: Call): Reply {
  administratorOf(call)
  const tests = testsOf(call.query.get('filter'))
  const users = [...call.app.store.users.getRange({})].map(({ value }) => value)
  const found = users.filter((user) => tests.every((test) => test(user)))
  const { range, items } = pageReply(sorted(found, call.query.get('sort')), pageOf(call.query))
  return ok({ range, items: items.map((user) => userView(call, user)) })
}

/** What a body says of the owner of an account. */
export function profileOf(body: Fields): Partial<Profile> {
  const profile: Partial<Profile> = {}
  const name = optionalString(body, 'userName') ?? optionalString(body, 'login')
  if (name !== undefined) profile.name = name
  for (const key of ['firstName', 'lastName', 'email', 'phone', 'language'] as const) {
    const text = optionalString(body, key)
    if (text === undefined) continue
    if (text.length > MAX_TEXT) throw badRequest(-80007, `${key} is too long`)
    profile[key] = text
  }
  return profile
}

async function add(call: Call): Promise<Reply> {
  administratorOf(call)
  const { store } = call.app
  const body = await call.json()
  const auth = asFields(field(body, 'authData') ?? {})
  const { name, ...profile } = profileOf(body)
  const wanted = name ?? optionalString(auth, 'login')
  const password = optionalString(auth, 'password') ?? optionalString(body, 'password')
  if (wanted === undefined || wanted === '') throw badRequest(-80000, 'userName is mandatory')
  // No mail is sent from here in which somebody could be told one.
  if (password === undefined || password === '') throw badRequest(-80000, 'authData.password is mandatory here')
  const account = { name: wanted, password: await asApi(hashNewPassword(password)) }
  const { id } = await asApi(addUser(store, byCaller(call), account))
  const user = await asApi(updateProfile(store, byCaller(call), id, profile))
  return created(userView(call, user))
}

async function update(call: Call): Promise<Reply> {
  const { store } = call.app
  const { id } = userOf(call)
  const body = await call.json()
  const isLocked = optionalBoolean(body, 'isLocked')
  const auth = asFields(field(body, 'authData') ?? {})
  const password = optionalString(auth, 'password')
  const user = await asApi(updateProfile(store, byCaller(call), id, profileOf(body)))
  if (password !== undefined && password !== '') {
    await asApi(setPassword(store, byCaller(call), user.name, await hashNewPassword(password)))
  }
  if (isLocked !== undefined && isLocked !== (user.disabledAt !== undefined)) {
    await asApi(setDisabled(store, byCaller(call), user.name, isLocked))
  }
  return ok(userView(call, store.users.get(id) ?? user))
}

async function remove(call: Call): Promise<Reply> {
  const { name } = userOf(call)
  await asApi(removeUser(call.app.store, byCaller(call), name, { force: false }))
  return noContent()
}

function roomView({ id, name, type, parentId }: NodeRecord): Wire {
  return { id, name, type: NODE_TYPES[type], ...(parentId === 0 ? {} : { parentId }) }
}

/** Groups of a user, as the API lists them. */
export function groupsOf({ app: { store }, query }: Call, user: UserRecord): Reply {
  const groups = [...store.userGroups.getKeys({ start: [user.id, 0], end: [user.id + 1, 0] })].flatMap(([, id]) => {
    const group = store.groups.get(id)
    return group === undefined ? [] : { id, name: group.name, isMember: true, createdAt: dateView(group.createdAt) }
  })
  return ok(pageReply(groups, pageOf(query)))
}

export const userRoutes: RouteTable = {
  'GET /v4/users': list,
  'POST /v4/users': add,
  'GET /v4/users/:id': (call) => ok(userView(call, userOf(call))),
  'PUT /v4/users/:id': update,
  'DELETE /v4/users/:id': remove,
  'GET /v4/users/:id/roles': (call) => ok(rolesOf(userOf(call))),
  'GET /v4/users/:id/groups': (call) => groupsOf(call, userOf(call)),
  'GET /v4/users/:id/last_admin_rooms': (call) =>
    ok({ items: roomsOnlyManagedBy(call.app.store, userOf(call)).map(roomView) }),
  // Nobody keeps any about others.
  'GET /v4/users/:id/userAttributes': (call) => {
    userOf(call)
    return ok(pageReply([], pageOf(call.query)))
  },
}
