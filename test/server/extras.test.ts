/** What clients call beside files and rooms: users, groups, the log, comments, favorites, what they keep, and what there is none of. */
import { expect, test } from 'vitest'
import { addUser, administer } from '../../src/server/index.ts'
import {
  addMember,
  ask,
  enter,
  type Json,
  logIn,
  makeRoom,
  type Person,
  signUp,
  startWorld,
  uploadClassic,
  type World,
} from './support.ts'

async function place(): Promise<{ world: World; root: Person; ann: Person; room: number; file: Json }> {
  const world = await startWorld()
  const { id } = await addUser(world.dir, { name: 'root', password: 'root-pw', isAdmin: true })
  const root = await enter(world, id, 'root')
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { json: file } = await uploadClassic(ann, room, 'f', Buffer.from('f'))
  return { world, root, ann, room, file }
}

test('users: administrators only; made, found, changed, locked, and removed when nobody loses by it', async () => {
  const { world, root, ann, room } = await place()
  for (const path of ['/v4/users', '/v4/groups', '/v4/roles', '/v4/eventlog/events', `/v4/users/${root.id}`]) {
    expect((await ann.call('GET', path)).status, path).toBe(403)
  }
  const body = { firstName: 'Bob', lastName: 'B', userName: 'bob', email: 'bob@example.org' }
  expect((await root.call('POST', '/v4/users', body)).json.errorCode).toBe(-80000)
  const made = await root.call('POST', '/v4/users', { ...body, authData: { method: 'basic', password: 'bob-pw' } })
  expect([made.status, made.json]).toMatchObject([201, { ...body, isLocked: false, isEncryptionEnabled: false }])
  expect((await root.call('POST', '/v4/users', { ...body, authData: { password: 'x' } })).status).toBe(409)
  const bob = await enter(world, made.json.id, 'bob')
  expect((await bob.call('GET', '/v4/user/account')).json).toMatchObject({ firstName: 'Bob', email: 'bob@example.org' })
  const list = await root.call('GET', '/v4/users?filter=userName:cn:B|isLocked:eq:false&limit=5')
  expect(list.json).toMatchObject({ range: { total: 1, limit: 5 }, items: [{ id: bob.id, userName: 'bob' }] })
  expect((await root.call('GET', '/v4/users')).json.items.map(({ userName }: Json) => userName)).toEqual([
    'ann',
    'bob',
    'root',
  ])
  expect((await root.call('PUT', `/v4/users/${bob.id}`, { lastName: 'C', isLocked: true })).json).toMatchObject({
    lastName: 'C',
    isLocked: true,
  })
  expect((await bob.call('GET', '/v4/user/account')).status).toBe(401)
  expect((await root.call('PUT', `/v4/users/${bob.id}`, { userName: 'ANN' })).status).toBe(409)
  expect((await root.call('PUT', `/v4/users/${bob.id}`, { userName: 'rob', isLocked: false })).json.userName).toBe(
    'rob',
  )
  expect((await logIn(world, 'rob', 'bob-pw')).status).toBe(200)
  expect((await logIn(world, 'bob', 'bob-pw')).status).toBe(400)
  expect((await root.call('GET', `/v4/users/${ann.id}/last_admin_rooms`)).json.items).toMatchObject([{ id: room }])
  expect((await root.call('DELETE', `/v4/users/${ann.id}`)).status).toBe(409)
  expect((await root.call('DELETE', `/v4/users/${bob.id}`)).status).toBe(204)
  expect((await root.call('GET', `/v4/users/${bob.id}`)).json.errorCode).toBe(-70501)
  expect((await root.call('GET', `/v4/users/${root.id}/roles`)).json.items).toHaveLength(5)
})

test('groups: made, renamed, their members, and no room is left without anybody who manages it', async () => {
  const { root, ann, room } = await place()
  const { json: group } = await root.call('POST', '/v4/groups', { name: 'staff' })
  expect(group).toMatchObject({ name: 'staff', cntUsers: 0 })
  expect((await root.call('POST', '/v4/groups', { name: 'Staff' })).status).toBe(409)
  expect((await root.call('POST', `/v4/groups/${group.id}/users`, { ids: [ann.id, root.id] })).json.cntUsers).toBe(2)
  expect((await root.call('POST', `/v4/groups/${group.id}/users`, { ids: [999] })).json.errorCode).toBe(-70501)
  expect((await root.call('PUT', `/v4/groups/${group.id}`, { name: 'crew' })).json.name).toBe('crew')
  const members = await root.call('GET', `/v4/groups/${group.id}/users`)
  expect(members.json.items).toMatchObject([{ userInfo: { userName: 'root' } }, { userInfo: { userName: 'ann' } }])
  expect((await root.call('GET', `/v4/users/${ann.id}/groups`)).json.items).toMatchObject([{ name: 'crew' }])
  const permissions = (await ann.call('GET', `/v4/nodes/${room}`)).json.permissions
  await ann.call('PUT', `/v4/nodes/rooms/${room}/groups`, { items: [{ id: group.id, permissions }] })
  await ann.call('DELETE', `/v4/nodes/rooms/${room}/users`, { ids: [ann.id] })
  expect((await root.call('GET', `/v4/groups/${group.id}/last_admin_rooms`)).json.items).toMatchObject([{ id: room }])
  expect((await root.call('DELETE', `/v4/groups/${group.id}`)).status).toBe(409)
  const both = { ids: [ann.id, root.id] }
  expect((await root.call('DELETE', `/v4/groups/${group.id}/users`, both)).status).toBe(409)
  expect((await root.call('DELETE', `/v4/groups/${group.id}/users`, { ids: [root.id] })).json.cntUsers).toBe(1)
  await addMember(ann, room, ann.id, permissions)
  expect((await root.call('DELETE', `/v4/groups/${group.id}`)).status).toBe(204)
  expect((await root.call('GET', `/v4/groups/${group.id}`)).json.errorCode).toBe(-30000)
})

test('the log: who did what to which node, by time, user, kind and outcome', async () => {
  const { world, root, ann, room, file } = await place()
  await ann.call('POST', `/v4/nodes/files/${file.id}/downloads`)
  await ann.call('DELETE', `/v4/nodes/${file.id}`)
  await logIn(world, 'ann', 'wrong')
  await logIn(world, 'nobody', 'wrong')
  const { operationList } = (await root.call('GET', '/v4/eventlog/operations')).json
  const id = (name: string) => operationList.find((one: Json) => one.name === name).id
  const deleted = await root.call('GET', `/v4/eventlog/events?type=${id('file.delete')}`)
  expect(deleted.json).toMatchObject({
    range: { total: 1 },
    items: [{ userId: ann.id, userName: 'ann', message: 'Deleted file /R/f', objectId1: file.id, authParentSource: String(room), status: 0 }],
  }) // biome-ignore format: one line reads better
  const failed = await root.call('GET', '/v4/eventlog/events?status=2')
  expect(failed.json.items).toMatchObject([{ operationName: 'user.login', userId: ann.id, userIp: '127.0.0.1' }])
  const all = (await root.call('GET', `/v4/eventlog/events?user_id=${ann.id}&sort=time:asc`)).json.items
  expect(all.map(({ operationName }: Json) => operationName)).toEqual([
    'user.login', 'room.create', 'file.create', 'file.download', 'file.delete', 'user.login',
  ]) // biome-ignore format: one line reads better
  expect((await root.call('GET', '/v4/eventlog/events?date_start=2200-01-01')).json.items).toEqual([])
  expect((await root.call('GET', '/v4/eventlog/events?offset=1&limit=2')).json.items).toHaveLength(2)
  const page = await administer(world.dir, 'audit', { user: 'ann', after: all.at(-2).id })
  expect(page).toMatchObject({ isMore: false, items: [{ operation: 'user.login', status: 2 }] })
})

test('comments and favorites: with the rights of the room, gone with the node', async () => {
  const { world, ann, room, file } = await place()
  const bob = await signUp(world, 'bob')
  const path = `/v4/nodes/${file.id}/comments`
  expect((await bob.call('GET', path)).status).toBe(404)
  await addMember(ann, room, bob.id)
  expect((await bob.call('POST', path, { text: '' })).json.errorCode).toBe(-80000)
  expect((await bob.call('POST', path, { text: 'x'.repeat(65_536) })).json.errorCode).toBe(-80007)
  const { json: comment } = await bob.call('POST', path, { text: 'hm' })
  expect(comment).toMatchObject({ text: 'hm', createdBy: { id: bob.id }, isChanged: false, isDeleted: false })
  expect((await ann.call('PUT', `/v4/nodes/comments/${comment.id}`, { text: 'no' })).status).toBe(403)
  expect((await bob.call('PUT', `/v4/nodes/comments/${comment.id}`, { text: 'oh' })).json).toMatchObject({
    text: 'oh',
    isChanged: true,
  })
  expect((await ann.call('GET', path)).json).toMatchObject({ range: { total: 1 }, items: [{ text: 'oh' }] })
  expect((await ann.call('GET', `/v4/nodes/${file.id}`)).json.cntComments).toBe(1)
  expect((await ann.call('POST', `/v4/nodes/${file.id}/favorite`)).json).toMatchObject({
    id: file.id,
    isFavorite: true,
  })
  const favorites = (person: Person) =>
    person.call('GET', '/v4/nodes/search?search_string=*&depth_level=-1&filter=isFavorite:eq:true')
  expect((await favorites(ann)).json.items).toMatchObject([{ id: file.id, isFavorite: true }])
  expect((await favorites(bob)).json.items).toEqual([])
  expect((await ann.call('DELETE', `/v4/nodes/${file.id}/favorite`)).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/${file.id}`)).json.isFavorite).toBe(false)
  expect((await ann.call('DELETE', `/v4/nodes/comments/${comment.id}`)).status).toBe(204)
  expect((await ann.call('DELETE', `/v4/nodes/comments/${comment.id}`)).json.errorCode).toBe(-41400)
})

test('what clients keep for a user: set, added to, filtered, removed', async () => {
  const { ann } = await place()
  const path = '/v4/user/profileAttributes'
  const items = [
    { key: 'Color', value: 'red' },
    { key: 'size', value: '7' },
  ]
  expect((await ann.call('POST', path, { items })).json.items).toEqual([
    { key: 'color', value: 'red' },
    { key: 'size', value: '7' },
  ])
  expect((await ann.call('PUT', path, { items: [{ key: 'COLOR', value: 'blue' }] })).status).toBe(200)
  expect((await ann.call('GET', `${path}?filter=key:eq:color`)).json).toMatchObject({
    range: { total: 1 },
    items: [{ value: 'blue' }],
  })
  for (const [bad, code] of [
    [[{ key: 'a b', value: '' }], -80023],
    [[{ key: 'a', value: 'x'.repeat(4097) }], -80007],
    [
      [
        { key: 'a', value: '1' },
        { key: 'A', value: '2' },
      ],
      -80015,
    ],
  ] as const) {
    expect((await ann.call('PUT', path, { items: bad })).json.errorCode).toBe(code)
  }
  expect((await ann.call('DELETE', `${path}/color`)).status).toBe(204)
  expect((await ann.call('DELETE', `${path}/color`)).status).toBe(404)
  expect((await ann.call('PUT', '/v4/user/account', { firstName: 'Anna' })).json).toMatchObject({
    firstName: 'Anna',
    userName: 'ann',
  })
  expect((await ann.call('PUT', '/v4/user/account', { userName: 'other' })).status).toBe(400)
})

test('several files at once, and logging out here and everywhere', async () => {
  const { world, ann, room, file } = await place()
  const { json: other } = await uploadClassic(ann, room, 'g', Buffer.from('g'))
  const body = { objectIds: [file.id, other.id], classification: 4 }
  expect((await ann.call('PUT', '/v4/nodes/files', body)).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/${other.id}`)).json.classification).toBe(4)
  expect((await ann.call('PUT', '/v4/nodes/files', { ...body, objectIds: [room] })).json.errorCode).toBe(-40751)
  const second = await enter(world, ann.id, 'ann')
  expect((await ann.call('POST', '/v4/user/logout')).status).toBe(204)
  expect((await ann.call('GET', '/v4/user/account')).status).toBe(401)
  const third = await enter(world, ann.id, 'ann')
  expect((await second.call('POST', '/v4/user/logout?everywhere=true')).status).toBe(204)
  expect((await third.call('GET', '/v4/user/account')).status).toBe(401)
})

test('what there is none of is said as the API says it', async () => {
  const { world, root, ann, room, file } = await place()
  const answers: [Person, string, string, Json, number, Json][] = [
    [ann, 'GET', '/v4/user/subscriptions/nodes', undefined, 200, { items: [] }],
    [ann, 'PUT', '/v4/user/subscriptions/nodes', { objectIds: [file.id], isSubscribed: false }, 204, undefined],
    [ann, 'PUT', '/v4/user/subscriptions/nodes', { objectIds: [file.id], isSubscribed: true }, 400, { errorCode: -80061 }],
    [ann, 'POST', `/v4/user/subscriptions/nodes/${file.id}`, undefined, 400, { errorCode: -80061 }],
    [ann, 'GET', `/v4/nodes/rooms/${room}/webhooks`, undefined, 200, { items: [] }],
    [ann, 'PUT', `/v4/nodes/rooms/${room}/webhooks`, { items: [] }, 200, { items: [] }],
    [root, 'GET', '/v4/settings/webhooks', undefined, 200, { items: [] }],
    [root, 'POST', '/v4/settings/webhooks', {}, 403, { errorCode: -91001 }],
    [ann, 'POST', '/v4/settings/webhooks', {}, 403, {}],
    [ann, 'GET', '/v4/config/info/product_packages', undefined, 200, { packages: [] }],
    [ann, 'GET', `/v4/nodes/rooms/${room}/policies`, undefined, 200, { defaultExpirationPeriod: 0 }],
    [ann, 'PUT', `/v4/nodes/rooms/${room}/policies`, { defaultExpirationPeriod: 0 }, 204, undefined],
    [ann, 'PUT', `/v4/nodes/rooms/${room}/policies`, { defaultExpirationPeriod: 9 }, 403, {}],
    [ann, 'PUT', `/v4/nodes/rooms/${room}/guest_users`, { items: [] }, 403, {}],
    [ann, 'POST', '/v4/nodes/files/generate_verdict_info', { nodeIds: [file.id, 99] }, 200, [{ nodeId: file.id, verdict: 'NO_SCANNING' }]],
    [ann, 'DELETE', '/v4/user/account/avatar', undefined, 200, { isCustomAvatar: false }],
    [ann, 'POST', '/v4/user/account/avatar', {}, 400, {}],
    [root, 'PUT', '/v4/user/account/customer', { enableCustomerEncryption: true }, 204, undefined],
  ] // biome-ignore format: a table
  for (const [who, method, path, body, status, json] of answers) {
    const answer = await who.call(method, path, body)
    expect([answer.status, answer.json], `${method} ${path}`).toMatchObject([status, json])
  }
  expect((await ask(`${world.api}/v4/auth/ping`)).body.toString()).toMatch(/^OK /)
  expect((await ask(`${world.api}/v4/auth/login`, { method: 'POST', json: {} })).json.errorCode).toBe(-10100)
})
