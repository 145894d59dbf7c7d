/** What clients keep for a user, and what of an account its owner may change. Key pairs and quotas are account.ts. @module */
import { updateProfile } from '../admin/users.ts'
import { type Call, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest } from '../errors.ts'
import { splitFilter } from '../listing.ts'
import { asFields, type Fields, optionalArray, optionalString, pageOf, pageReply } from '../validate.ts'
import { userInfo, type Wire } from '../view.ts'
import { account } from './account.ts'
import { asApi, byCaller } from './roles.ts'
import { profileOf } from './users.ts'

const MAX_VALUE = 4096
/** Of one user. */
const MAX_ATTRIBUTES = 1_000

const keyOf = (text: string): string => {
  if (text.length > 255) throw badRequest(-80007, 'key is too long')
  if (!/^[A-Za-z0-9_-]+$/.test(text)) throw badRequest(-80023, 'key has illegal characters')
  return text.toLowerCase()
}

interface Entry {
  key: string
  value: string
}

function entriesOf({ app: { store }, user }: Call): Entry[] {
  const range = store.attributes.getRange({ start: [user.id, ''], end: [user.id + 1, ''] })
  return [...range].map(({ key, value }) => ({ key: key[1], value }))
}

function given(body: Fields): Entry[] {
  const items = optionalArray(body, 'items')
  if (items === undefined) throw badRequest(-80000, 'items is mandatory')
  const entries = items.map((item): Entry => {
    const fields = asFields(item)
    const value = optionalString(fields, 'value')
    if (value === undefined) throw badRequest(-80000, 'value is mandatory')
    if (value.length > MAX_VALUE) throw badRequest(-80007, 'value is too long')
    return { key: keyOf(optionalString(fields, 'key') ?? ''), value }
  })
  if (new Set(entries.map(({ key }) => key)).size < entries.length) throw badRequest(-80015, 'A key comes twice')
  return entries
}

function list(call: Call): Reply {
  let entries = entriesOf(call)
  for (const { field, operator, value } of splitFilter(call.query.get('filter'))) {
    if (field !== 'key' && field !== 'value') throw badRequest(undefined, 'Invalid filter')
    const wanted = value.toLowerCase()
    entries = entries.filter((entry) => {
      const own = entry[field].toLowerCase()
      if (operator === 'eq') return own === wanted
      return operator === 'sw' ? own.startsWith(wanted) : own.includes(wanted)
    })
  }
  if (call.query.get('sort')?.endsWith(':desc') === true) entries.reverse()
  return ok(pageReply(entries, pageOf(call.query)))
}

async function put(call: Call, mode: 'add' | 'replace'): Promise<Reply> {
  const { store } = call.app
  const { id } = call.user
  const entries = given(await call.json())
  await store.write((tx) => {
    if (mode === 'replace') for (const { key } of entriesOf(call)) tx.remove(store.attributes, [id, key])
    for (const { key, value } of entries) tx.put(store.attributes, [id, key], value)
    if (entriesOf(call).length > MAX_ATTRIBUTES) throw badRequest(undefined, 'Too many attributes')
  })
  return { status: mode === 'add' ? 200 : 201, json: { items: entriesOf(call) } }
}

async function remove(call: Call): Promise<Reply> {
  const { store } = call.app
  const { id } = call.user
  const key = keyOf(call.param('key'))
  await store.write((tx) => {
    if (!store.attributes.doesExist([id, key])) throw new ApiError(404, undefined, 'No such attribute')
    tx.remove(store.attributes, [id, key])
  })
  return noContent()
}

/** The owner changes what the account says, not what it is called: that is the name of the login. */
async function updateAccount(call: Call): Promise<Reply> {
  const { user } = call
  const { name, ...profile } = profileOf(await call.json())
  if (name !== undefined && name !== user.name) {
    throw badRequest(undefined, 'An administrator changes user names')
  }
  return ok(account(call, await asApi(updateProfile(call.app.store, byCaller(call), user.id, profile))))
}

export const avatarOf = ({ app, user, baseUrl }: Call): Wire => ({
  avatarUri: `${baseUrl}/api/v4/public/software/version`,
  avatarUuid: userInfo(app.store, user.id).avatarUuid,
  isCustomAvatar: false,
})

/** Ends this login, or all of the user's. */
async function logOut(call: Call): Promise<Reply> {
  const { user, app, query } = call
  const token = /^Bearer +(\S+)$/i.exec(call.headers.authorization ?? '')?.[1] ?? ''
  if (query.get('everywhere') === 'true') {
    await app.store.write((tx) => {
      const known = app.store.users.get(user.id)
      if (known !== undefined) tx.put(app.store.users, user.id, { ...known, epoch: known.epoch + 1 })
    })
  } else await app.grants.end(token)
  return noContent()
}

export const profileRoutes: RouteTable = {
  'GET /v4/user/profileAttributes': list,
  'PUT /v4/user/profileAttributes': (call) => put(call, 'add'),
  'POST /v4/user/profileAttributes': (call) => put(call, 'replace'),
  'DELETE /v4/user/profileAttributes/:key': remove,
  'PUT /v4/user/account': updateAccount,
  'POST /v4/user/logout': logOut,
  'GET /v4/user/account/avatar': (call) => ok(avatarOf(call)),
  'DELETE /v4/user/account/avatar': (call) => ok(avatarOf(call)),
  // There are no others to choose from.
  'POST /v4/user/account/avatar': (call) => {
    void call.user
    throw badRequest(undefined, 'This server keeps no pictures of users')
  },
}
