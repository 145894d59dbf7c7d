/**
 * The tree: listing, searching, names, permissions, members, moving, the recycle bin.
 * @module
 */
import { expect, test } from 'vitest'
import {
  type Answer,
  addKeyPair,
  addMember,
  download,
  fileKeyBody,
  type Json,
  makeRoom,
  type Person,
  READ_ONLY,
  signUp,
  startWorld,
  uploadClassic,
} from './support.ts'

const ALL = Object.fromEntries(Object.keys(READ_ONLY).map((name) => [name, true]))
const names = (reply: Answer): string[] => reply.json.items.map((node: Json) => node.name)
const listing = (person: Person, parent: number, query = '') =>
  person.call('GET', `/v4/nodes?parent_id=${parent}${query}`)
const folder = async (person: Person, parentId: number, name: string): Promise<number> => {
  const reply = await person.call('POST', '/v4/nodes/folders', { parentId, name })
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json.id
}
const file = async (person: Person, parentId: number, name: string, content = name, more: Json = {}): Promise<Json> => {
  const reply = await uploadClassic(person, parentId, name, Buffer.from(content), more)
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json
}

test('pages of a folder: type first, then name, with a steady total', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  await ann.call('POST', '/v4/nodes/rooms', { name: 'zsub', parentId: room })
  for (const name of ['b', 'A', 'c']) await folder(ann, room, name)
  for (const name of ['z.txt', 'B.txt', 'a.txt', 'ä.txt']) await file(ann, room, name, 'x'.repeat(name.length))
  const all = await listing(ann, room)
  expect(names(all)).toEqual(['zsub', 'A', 'b', 'c', 'a.txt', 'B.txt', 'z.txt', 'ä.txt'])
  const paged: string[] = []
  for (let offset = 0; offset < 9; offset += 3) {
    const page = await listing(ann, room, `&offset=${offset}&limit=3`)
    expect(page.json.range).toEqual({ offset, limit: 3, total: 8 })
    paged.push(...names(page))
  }
  expect(paged).toEqual(names(all))
  expect(names(await listing(ann, room, '&sort=name:desc'))).toEqual([
    'zsub',
    'c',
    'b',
    'A',
    'ä.txt',
    'z.txt',
    'B.txt',
    'a.txt',
  ])
  expect(names(await listing(ann, room, '&filter=type:eq:file&sort=size:desc&limit=2'))).toEqual(['a.txt', 'B.txt'])
  expect(names(await listing(ann, room, '&filter=type:eq:room:folder%7Cname:cn:B'))).toEqual(['zsub', 'b'])
  expect((await listing(ann, room, '&limit=9999')).json.range.limit).toBe(500)
  for (const bad of ['limit=0', 'limit=x', 'offset=-1', 'offset=1e3']) {
    expect((await listing(ann, room, `&${bad}`)).json, bad).toMatchObject({ code: 400, errorCode: -80024 })
  }
  expect(all.body.toString()).not.toMatch(/[:,[]null/)
  expect(all.json.items[4]).toMatchObject({
    parentId: room,
    parentPath: '/R/',
    size: 5,
    isEncrypted: false,
    type: 'file',
  })
  expect(Object.values(all.json.items[4].permissions)).toHaveLength(10)
})

test('a filter on branchVersion shows what changed, all the way up', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const other = await makeRoom(ann, 'Other')
  const [deep, quiet] = [await folder(ann, await folder(ann, room, 'a'), 'b'), await folder(ann, room, 'quiet')]
  const version = async (id: number): Promise<number> => (await ann.call('GET', `/v4/nodes/${id}`)).json.branchVersion
  const before = await Promise.all([room, deep, quiet, other].map(version))
  const made = await file(ann, deep, 'f', '12345')
  const after = await Promise.all([room, deep, quiet, other].map(version))
  expect(after[0]).toBeGreaterThan(before[0] ?? 0)
  expect(after[1]).toBeGreaterThan(before[1] ?? 0)
  expect(after.slice(2)).toEqual(before.slice(2))
  expect((await ann.call('GET', `/v4/nodes/${room}`)).json.size).toBe(5)
  const changed = await ann.call('GET', `/v4/nodes?filter=branchVersion:ge:${(before[0] ?? 0) + 1}`)
  expect(names(changed)).toEqual(['R'])
  await ann.call('DELETE', `/v4/nodes/${made.id}`)
  expect(await version(room)).toBeGreaterThan(after[0] ?? 0)
  expect((await ann.call('GET', `/v4/nodes/${room}`)).json.size).toBe(0)
})

test('every change raises the versions of all that is above it', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const bob = await signUp(world, 'bob')
  const room = await makeRoom(ann, 'R')
  const nested = (await ann.call('POST', '/v4/nodes/rooms', { name: 'nested', parentId: room, adminIds: [ann.id] }))
    .json.id
  const [above, aside] = [await folder(ann, nested, 'above'), await folder(ann, nested, 'aside')]
  const place = await folder(ann, above, 'place')
  const one = await file(ann, place, 'one', '1')
  const other = await file(ann, aside, 'other', '2')
  const version = async (id: number): Promise<number> => (await ann.call('GET', `/v4/nodes/${id}`)).json.branchVersion
  const deleted = '/v4/nodes/deleted_nodes/actions/restore'
  const steps: [string, () => Promise<unknown>][] = [
    ['upload', () => file(ann, place, 'new', '3')],
    ['new version', () => file(ann, place, 'new', '4', { resolutionStrategy: 'overwrite' })],
    ['times', () => ann.call('PUT', `/v4/nodes/files/${one.id}`, { timestampModification: '2020-01-01T00:00:00Z' })],
    ['notes', () => ann.call('PUT', `/v4/nodes/files/${one.id}`, { notes: 'n' })],
    ['rename', () => ann.call('PUT', `/v4/nodes/files/${one.id}`, { name: 'renamed' })],
    ['new folder', () => folder(ann, place, 'x')],
    ['move in', () => ann.call('POST', `/v4/nodes/${place}/move_to`, { items: [{ id: other.id }] })],
    ['move out', () => ann.call('POST', `/v4/nodes/${aside}/move_to`, { items: [{ id: other.id }] })],
    ['copy', () => ann.call('POST', `/v4/nodes/${place}/copy_to`, { items: [{ id: other.id, name: 'copy' }] })],
    ['delete', () => ann.call('DELETE', `/v4/nodes/${one.id}`)],
    ['restore', () => ann.call('POST', deleted, { deletedNodeIds: [one.id] })],
    ['delete many', () => ann.call('DELETE', '/v4/nodes', { nodeIds: [one.id] })],
  ]
  const all = [place, above, nested, room]
  for (const [name, step] of steps) {
    const before = await Promise.all(all.map(version))
    const answer = (await step()) as { status?: number }
    if (answer.status !== undefined) expect(answer.status, name).toBeLessThan(300)
    const after = await Promise.all(all.map(version))
    for (const [index, was] of before.entries()) expect(after[index], `${name} ${index}`).toBeGreaterThan(was)
  }
  for (const [name, path] of [
    ['folder', `/v4/nodes/folders/${above}`],
    ['room', `/v4/nodes/rooms/${nested}`],
  ] as const) {
    const before = await version(room)
    expect((await ann.call('PUT', path, { name: `${name} renamed` })).status, name).toBe(200)
    expect(await version(room), name).toBeGreaterThan(before)
  }
  const before = await version(room)
  await addMember(ann, nested, bob.id)
  expect(await version(room), 'members').toBeGreaterThan(before)
})

test('search: paths, wildcards, depth, sorting by path', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const bob = await signUp(world, 'bob')
  const room = await makeRoom(ann, 'Room')
  const sub = await folder(ann, room, 'Sub')
  const deep = await folder(ann, sub, 'Deep')
  for (const parent of [room, sub, deep]) for (const name of ['name', 'name2', 'Name']) await file(ann, parent, name)
  const search = (person: Person, query: Record<string, string>) =>
    person.call('GET', `/v4/nodes/search?${new URLSearchParams(query)}`)
  const filter = 'parentPath:eq:/Room/Sub/'
  for (const depth_level of ['-1', '2', '3']) {
    const reply = await search(ann, { search_string: 'name', filter, depth_level })
    expect(reply.json.items.map((node: Json) => [node.name, node.parentPath])).toEqual([['name', '/Room/Sub/']])
    expect(reply.json.range.total).toBe(1)
  }
  expect((await search(ann, { search_string: 'name', filter, depth_level: '1' })).json.range.total).toBe(0)
  expect(
    (await search(ann, { search_string: 'name', filter: 'parentPath:eq:/room/sub/', depth_level: '-1' })).json.range
      .total,
  ).toBe(0)
  expect((await search(ann, { search_string: 'nam', filter, depth_level: '-1' })).json.range.total).toBe(0)
  expect((await search(bob, { search_string: 'name', filter, depth_level: '-1' })).json.range.total).toBe(0)
  expect(names(await search(ann, { search_string: 'n*2', filter, depth_level: '-1' }))).toEqual(['name2'])
  expect((await search(ann, { search_string: 'name', depth_level: '-1' })).json.range.total).toBe(9)
  expect(names(await search(ann, { search_string: 'name', parent_id: String(sub) }))).toEqual(['name', 'Name', 'name2'])
  const tree = await search(ann, {
    search_string: '*',
    depth_level: '-1',
    filter: 'type:eq:folder',
    sort: 'parentPath:asc',
  })
  expect(names(tree)).toEqual(['Sub', 'Deep'])
  expect((await search(ann, { search_string: '*' })).json.range.total).toBe(1)
  expect((await search(bob, { search_string: '*', depth_level: '-1' })).json.range.total).toBe(0)
})

test('a search that somebody pages through stays as it began, without what may not be seen any more', async () => {
  let now = Date.now()
  const world = await startWorld({ clock: { now: () => now } })
  const ann = await signUp(world, 'ann')
  const bob = await signUp(world, 'bob')
  const room = await makeRoom(ann, 'R')
  await addMember(ann, room, bob.id)
  const ids: number[] = []
  for (const name of ['a', 'b', 'c', 'd', 'e']) ids.push((await file(ann, room, name)).id)
  const page = async (person: Person, offset: number, parent = room) => {
    const query = new URLSearchParams({ search_string: '*', parent_id: String(parent), depth_level: '-1' })
    return person.call('GET', `/v4/nodes/search?${query}&limit=2&offset=${offset}`)
  }
  expect(names(await page(ann, 0))).toEqual(['a', 'b'])
  expect(names(await page(bob, 0))).toEqual(['a', 'b'])
  expect(names(await page(bob, 0, 0))).toEqual(['R', 'a'])
  // A new one at the front, a new name, and one that is gone: the places of the others stay.
  await file(ann, room, 'A first')
  await ann.call('PUT', `/v4/nodes/files/${ids[0]}`, { name: 'z' })
  await ann.call('DELETE', `/v4/nodes/${ids[3]}`)
  expect((await page(ann, 2)).json).toMatchObject({ range: { total: 5 }, items: [{ name: 'c' }] })
  expect(names(await page(ann, 4))).toEqual(['e'])
  await ann.call('DELETE', `/v4/nodes/rooms/${room}/users`, { ids: [bob.id] })
  expect((await page(bob, 2)).status).toBe(404)
  expect(names(await page(bob, 2, 0))).toEqual([])
  // Whoever begins again, or waits too long, gets what is there now.
  expect(names(await page(ann, 0))).toEqual(['A first', 'b'])
  await file(ann, room, '0')
  now += 61_000
  expect(names(await page(ann, 2))).toEqual(['b', 'c'])
})

test('names: what is refused, and what is the same name', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const make = (name: unknown) => ann.call('POST', '/v4/nodes/folders', { parentId: room, name })
  const bad = [
    'a/b',
    'a\\b',
    'a:b',
    'a|b',
    'a?',
    'a*',
    '<a',
    'a>',
    'a"',
    '-a',
    'a.',
    '.',
    '..',
    'CON',
    'con.txt',
    'Lpt1',
    'NUL.a.b',
    'x'.repeat(151),
    'a\u0000b',
    'a\nb',
    '\ud800',
    ' ',
  ]
  for (const name of bad)
    expect((await make(name)).json, JSON.stringify(name)).toMatchObject({ code: 400, errorCode: -40755 })
  for (const name of ['.hidden', 'CONSOLE', 'com10', 'a-', 'x'.repeat(150), '日本', '😀', '__proto__', 'constructor']) {
    expect((await make(name)).status, name).toBe(201)
  }
  expect((await make('é')).status).toBe(201)
  expect((await make('e\u0301')).json).toMatchObject({ code: 409, errorCode: -41001 })
  expect((await make('É')).status).toBe(201)
  expect((await make('')).json).toMatchObject({ code: 400, errorCode: -80000 })
  expect((await ann.call('POST', '/v4/nodes/rooms', { name: 'R', adminIds: [ann.id] })).status).toBe(409)
})

test('rooms need an admin, and 0 is no parent', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const make = (body: Json) => ann.call('POST', '/v4/nodes/rooms', body)
  expect((await make({ name: 'a' })).json.errorCode).toBe(-40006)
  expect((await make({ name: 'a', parentId: 0, adminIds: [ann.id] })).status).toBe(400)
  expect((await make({ name: 'a', adminIds: [999] })).json).toMatchObject({ code: 404, errorCode: -70501 })
  expect((await ann.call('GET', '/v4/nodes')).json.range.total).toBe(0)
  const room = await make({ name: 'a', parentId: null, adminIds: [ann.id], timestampModificiation: 'x' })
  expect(room.status).toBe(201)
  expect(room.json).not.toHaveProperty('parentId')
  expect(room.json.parentPath).toBe('/')
})

test('encrypting a room: only empty, at the top, with a key pair; what is below inherits', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const encrypt = (id: number) => ann.call('PUT', `/v4/nodes/rooms/${id}/encrypt`, { isEncrypted: true })
  const room = await makeRoom(ann, 'R')
  expect((await encrypt(room)).json).toMatchObject({ code: 403, errorCode: -70020 })
  await addKeyPair(ann)
  const made = await file(ann, room, 'f')
  expect((await encrypt(room)).json.errorCode).toBe(-40008)
  await ann.call('DELETE', `/v4/nodes/${made.id}`)
  expect((await encrypt(room)).json.errorCode).toBe(-40012)
  expect((await ann.call('DELETE', `/v4/nodes/${room}/deleted_nodes`)).status).toBe(204)
  const done = await encrypt(room)
  expect(done.status).toBe(200)
  expect(done.json).toMatchObject({
    isEncrypted: true,
    encryptionInfo: { userKeyState: 'available', roomKeyState: 'none' },
  })
  expect((await encrypt(room)).json.errorCode).toBe(-40002)
  const sub = await ann.call('POST', '/v4/nodes/rooms', { name: 's', parentId: room, inheritPermissions: true })
  expect(sub.json.isEncrypted).toBe(true)
  expect((await listing(ann, room)).json.items[0].isEncrypted).toBe(true)
})

test('permissions: strangers see nothing, members do what they may', async () => {
  const world = await startWorld()
  const [ann, bob, eve] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'eve')]
  const room = await makeRoom(ann, 'R')
  const dir = await folder(ann, room, 'd')
  const made = await file(ann, dir, 'f', 'text')
  for (const id of [room, dir, made.id]) {
    expect((await eve.call('GET', `/v4/nodes/${id}`)).json, String(id)).toMatchObject({ code: 404, errorCode: -41000 })
    expect((await eve.call('DELETE', `/v4/nodes/${id}`)).status).toBe(404)
  }
  expect((await eve.call('GET', '/v4/nodes')).json.range.total).toBe(0)
  expect((await listing(eve, dir)).status).toBe(404)
  expect((await eve.call('POST', `/v4/nodes/files/${made.id}/downloads`)).json).toMatchObject({
    code: 404,
    errorCode: -40751,
  })
  expect((await eve.call('GET', `/v4/nodes/rooms/${room}/users`)).status).toBe(404)
  await addMember(ann, room, bob.id)
  expect((await download(bob, made.id)).body.toString()).toBe('text')
  const attempts: [string, string, Json][] = [
    ['POST', '/v4/nodes/folders', { parentId: dir, name: 'x' }],
    ['POST', '/v4/nodes/files/uploads', { parentId: dir, name: 'x' }],
    ['PUT', `/v4/nodes/files/${made.id}`, { name: 'y' }],
    ['DELETE', `/v4/nodes/${made.id}`, undefined],
    ['DELETE', `/v4/nodes/${room}`, undefined],
    ['PUT', `/v4/nodes/rooms/${room}/users`, { items: [{ id: bob.id, permissions: ALL }] }],
    ['PUT', `/v4/nodes/rooms/${room}/encrypt`, { isEncrypted: true }],
    ['GET', `/v4/nodes/${room}/deleted_nodes`, undefined],
    ['POST', '/v4/nodes/rooms', { name: 'sub', parentId: room }],
  ]
  for (const [method, path, body] of attempts) {
    const reply = await bob.call(method, path, body)
    expect(reply.json, `${method} ${path}`).toMatchObject({ code: 403, message: 'Forbidden' })
    expect(reply.json).not.toHaveProperty('errorCode')
  }
  // Creating without deleting: no overwriting.
  await addMember(ann, room, bob.id, { ...READ_ONLY, create: true })
  const over = await uploadClassic(bob, dir, 'f', Buffer.from('evil'), { resolutionStrategy: 'overwrite' })
  expect(over.status).toBe(403)
  expect((await download(ann, made.id)).body.toString()).toBe('text')
  // Without reading, files are out of sight.
  await addMember(ann, room, bob.id, { ...READ_ONLY, read: false, create: true })
  expect(names(await listing(bob, room))).toEqual(['d'])
  expect((await listing(bob, dir)).json).toMatchObject({ range: { total: 0 }, items: [] })
  expect((await bob.call('GET', `/v4/nodes/${made.id}`)).status).toBe(404)
})

test('download links die with the right to read', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'R')
  const made = await file(ann, room, 'f')
  await addMember(ann, room, bob.id)
  const { downloadUrl } = (await bob.call('POST', `/v4/nodes/files/${made.id}/downloads`)).json
  expect((await fetch(downloadUrl)).status).toBe(200)
  expect((await ann.call('DELETE', `/v4/nodes/rooms/${room}/users`, { ids: [bob.id] })).status).toBe(204)
  expect((await fetch(downloadUrl)).status).toBe(404)
})

test('members: list with public keys, candidates for admins only, last admin stays', async () => {
  const world = await startWorld()
  const [ann, bob, eve] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'eve')]
  const pair = await addKeyPair(bob)
  const room = await makeRoom(ann, 'R')
  await addMember(ann, room, bob.id)
  const users = (person: Person, filter?: string) =>
    person.call(
      'GET',
      `/v4/nodes/rooms/${room}/users${filter === undefined ? '' : `?filter=${encodeURIComponent(filter)}`}`,
    )
  const logins = (reply: Answer): string[] => reply.json.items.map((item: Json) => item.login)
  const list = await users(ann)
  expect(logins(list)).toEqual(['ann', 'bob'])
  expect(list.json.items[1]).toMatchObject({
    id: bob.id,
    isGranted: true,
    permissions: READ_ONLY,
    publicKeyContainer: pair.publicKeyContainer,
  })
  expect(list.json.items[0]).not.toHaveProperty('publicKeyContainer')
  expect(logins(await users(ann, 'isGranted:eq:false|user:cn:EV'))).toEqual(['eve'])
  expect(logins(await users(ann, 'isGranted:eq:any'))).toEqual(['ann', 'bob', 'eve'])
  expect(logins(await users(bob, 'isGranted:eq:any'))).toEqual(['ann', 'bob'])
  const remove = (ids: number[]) => ann.call('DELETE', `/v4/nodes/rooms/${room}/users`, { ids })
  expect((await remove([ann.id])).json).toMatchObject({ code: 400, errorCode: -40006 })
  const demote = await ann.call('PUT', `/v4/nodes/rooms/${room}/users`, {
    items: [{ id: ann.id, permissions: READ_ONLY }],
  })
  expect(demote.json.errorCode).toBe(-40006)
  expect((await ann.call('GET', `/v4/nodes/${room}`)).json.permissions.manage).toBe(true)
  expect(
    (await ann.call('PUT', `/v4/nodes/rooms/${room}/users`, { items: [{ id: 999, permissions: ALL }] })).json.errorCode,
  ).toBe(-70501)
  await addMember(ann, room, eve.id, ALL)
  expect((await remove([ann.id])).status).toBe(204)
  expect((await users(ann)).status).toBe(404)
  expect(logins(await users(eve))).toEqual(['bob', 'eve'])
})

test('a room inside a room one is not in: the way there is visible, the rest is not', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const top = await makeRoom(ann, 'Top')
  await file(ann, top, 'secret')
  const sub = (await ann.call('POST', '/v4/nodes/rooms', { name: 'Sub', parentId: top, adminIds: [ann.id, bob.id] }))
    .json.id
  await ann.call('POST', '/v4/nodes/rooms', { name: 'Hidden', parentId: top })
  expect(names(await bob.call('GET', '/v4/nodes'))).toEqual(['Top'])
  const inside = await listing(bob, top)
  expect(names(inside)).toEqual(['Sub'])
  expect(inside.json.range.total).toBe(1)
  expect((await file(bob, sub, 'x')).parentPath).toBe('/Top/Sub/')
  expect((await ann.call('GET', `/v4/nodes/${sub}/parents`)).json.items).toEqual([
    { id: top, name: 'Top', type: 'room' },
  ])
})

test('renaming and deleting keep the listing right', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const [a, b] = [await folder(ann, room, 'a'), await folder(ann, room, 'b')]
  const inner = await file(ann, a, 'f')
  expect((await ann.call('PUT', `/v4/nodes/folders/${a}`, { name: 'b' })).status).toBe(409)
  expect((await ann.call('PUT', `/v4/nodes/folders/${a}`, { name: 'A', notes: 'n' })).json).toMatchObject({
    name: 'A',
    notes: 'n',
  })
  expect((await ann.call('GET', `/v4/nodes/${inner.id}`)).json.parentPath).toBe('/R/A/')
  expect((await ann.call('PUT', `/v4/nodes/folders/${inner.id}`, { name: 'x' })).status).toBe(404)
  expect((await ann.call('DELETE', '/v4/nodes', { nodeIds: [a, inner.id] })).json.errorCode).toBe(-41054)
  expect((await ann.call('DELETE', '/v4/nodes', { nodeIds: [a, b] })).status).toBe(204)
  expect((await listing(ann, room)).json.range.total).toBe(0)
  expect((await ann.call('GET', `/v4/nodes/${inner.id}`)).status).toBe(404)
  expect((await listing(ann, a)).status).toBe(404)
})

test('recycle bin: overwritten and deleted files, versions, restoring, purging', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const dir = await folder(ann, room, 'd')
  const first = await file(ann, dir, 'f', 'one')
  const second = await file(ann, dir, 'f', 'two!', { resolutionStrategy: 'overwrite' })
  await ann.call('DELETE', `/v4/nodes/${second.id}`)
  const bin = await ann.call('GET', `/v4/nodes/${room}/deleted_nodes`)
  expect(bin.json.items).toEqual([
    expect.objectContaining({
      name: 'f',
      type: 'file',
      parentPath: '/R/d/',
      cntVersions: 2,
      lastDeletedNodeId: second.id,
    }),
  ])
  const versions = await ann.call('GET', `/v4/nodes/${room}/deleted_nodes/versions?name=f&type=file`)
  expect(versions.json.items.map((item: Json) => item.id).sort()).toEqual([first.id, second.id])
  expect((await ann.call('GET', `/v4/nodes/deleted_nodes/${first.id}`)).json).toMatchObject({
    id: first.id,
    size: 3,
    parentId: dir,
  })
  expect((await ann.call('GET', '/v4/nodes/deleted_nodes/99999')).json.errorCode).toBe(-41100)
  const restore = (ids: number[], more: Json = {}) =>
    ann.call('POST', '/v4/nodes/deleted_nodes/actions/restore', { deletedNodeIds: ids, ...more })
  expect((await restore([first.id])).status).toBe(204)
  expect((await download(ann, first.id)).body.toString()).toBe('one')
  expect((await restore([second.id], { resolutionStrategy: 'fail' })).status).toBe(409)
  expect((await restore([second.id], { parentId: room })).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/${second.id}`)).json).toMatchObject({ parentPath: '/R/', name: 'f' })
  expect((await ann.call('GET', `/v4/nodes/${room}`)).json.size).toBe(7)
  // A folder takes its content along and brings it back.
  await ann.call('DELETE', `/v4/nodes/${dir}`)
  expect((await ann.call('GET', `/v4/nodes/${first.id}`)).status).toBe(404)
  expect((await restore([dir])).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/${first.id}`)).json.parentPath).toBe('/R/d/')
  await ann.call('DELETE', `/v4/nodes/${dir}`)
  expect((await ann.call('DELETE', '/v4/nodes/deleted_nodes', { deletedNodeIds: [dir] })).status).toBe(204)
  expect((await restore([dir])).status).toBe(404)
  expect((await ann.call('GET', `/v4/nodes/${room}/deleted_nodes`)).json.range.total).toBe(0)
})

test('encrypted files go back to their own room only', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const [one, two] = [await makeRoom(ann, 'One', true), await makeRoom(ann, 'Two', true)]
  const made = await file(ann, one, 'f', 'x', { fileKey: fileKeyBody() })
  await ann.call('DELETE', `/v4/nodes/${made.id}`)
  const restore = (parentId: number) =>
    ann.call('POST', '/v4/nodes/deleted_nodes/actions/restore', { deletedNodeIds: [made.id], parentId })
  expect((await restore(two)).json).toMatchObject({ code: 400, errorCode: -40013 })
  expect((await restore(one)).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/files/${made.id}/user_file_key`)).status).toBe(200)
})

test('moving and copying keep content and keys; plain and encrypted do not mix', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const [enc, plain] = [await makeRoom(ann, 'Enc', true), await makeRoom(ann, 'Plain')]
  const [a, b] = [await folder(ann, enc, 'a'), await folder(ann, enc, 'b')]
  const key = fileKeyBody()
  const made = await file(ann, a, 'f', 'x'.repeat(50_000), { fileKey: key })
  const move = (target: number, id: number, more: Json = {}) =>
    ann.call('POST', `/v4/nodes/${target}/move_to`, { items: [{ id }], ...more })
  expect((await move(b, made.id)).json).toMatchObject({ id: b, cntFiles: 1, size: 50_000 })
  expect((await ann.call('GET', `/v4/nodes/${made.id}`)).json.parentPath).toBe('/Enc/b/')
  expect((await ann.call('GET', `/v4/nodes/${a}`)).json).toMatchObject({ cntFiles: 0, size: 0 })
  expect((await move(plain, made.id)).json.errorCode).toBe(-40001)
  const open = await file(ann, plain, 'open')
  expect((await move(enc, open.id)).json.errorCode).toBe(-40002)
  const inB = await folder(ann, b, 'in')
  expect((await move(inB, b)).json).toMatchObject({ code: 409, errorCode: -41304 })
  expect((await move(a, enc)).json.errorCode).toBe(-41052)
  const copy = await ann.call('POST', `/v4/nodes/${a}/copy_to`, { items: [{ id: b, name: 'bb' }] })
  expect(copy.status).toBe(201)
  const copied = (await listing(ann, (await listing(ann, a)).json.items[0].id)).json.items.find(
    (node: Json) => node.type === 'file',
  )
  expect((await ann.call('GET', `/v4/nodes/files/${copied.id}/user_file_key`)).json).toEqual(key)
  await ann.call('DELETE', `/v4/nodes/${b}`)
  await ann.call('DELETE', `/v4/nodes/${enc}/deleted_nodes`)
  expect((await download(ann, copied.id)).body.length).toBe(50_000)
})

test('a quota stops uploads before and at the end', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  await ann.call('PUT', `/v4/nodes/rooms/${room}`, { quota: 10 })
  const opened = await ann.call('POST', '/v4/nodes/files/uploads', { parentId: room, name: 'x', size: 11 })
  expect(opened.json).toMatchObject({ code: 507, errorCode: -40200 })
  expect((await uploadClassic(ann, room, 'f', Buffer.alloc(11), {}, { size: 1 })).json.errorCode).toBe(-40200)
  expect((await uploadClassic(ann, room, 'f', Buffer.alloc(10))).status).toBe(201)
})
