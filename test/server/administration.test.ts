/** A server is administered: through it and without it, with what an account that goes would take along. */
import { createHash, randomBytes } from 'node:crypto'
import { statSync, writeFileSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { addUser, administer, checkStore, collectGarbage, startServer } from '../../src/server/index.ts'
import {
  addKeyPair,
  addMember,
  ask,
  BASIC,
  blobsIn,
  download,
  enter,
  fileKeyBody,
  freshDir,
  type Json,
  logIn,
  makeRoom,
  openUpload,
  signUp,
  startWorld,
  uploadClassic,
} from './support.ts'

const ALL: Json = Object.fromEntries(
  'manage read create change delete manageDownloadShare manageUploadShare readRecycleBin restoreRecycleBin deleteRecycleBin'
    .split(' ')
    .map((name) => [name, true]),
)

describe.each([{ isServed: true }, { isServed: false }])('with a server that runs: %j', ({ isServed }) => {
  /** A directory with two accounts; the server runs on, or has ended. */
  const place = async () => {
    const world = await startWorld()
    const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
    const settle = async () => {
      if (!isServed) await world.server.close()
      return world.dir
    }
    return { world, ann, bob, settle }
  }

  test('accounts: list, show, password, quota, roles, disabled and enabled', async () => {
    const { settle } = await place()
    const dir = await settle()
    const list = await administer(dir, 'user.list', {})
    expect(list.map(({ name, isDisabled, usedBytes }) => ({ name, isDisabled, usedBytes }))).toEqual([
      { name: 'ann', isDisabled: false, usedBytes: 0 },
      { name: 'bob', isDisabled: false, usedBytes: 0 },
    ])
    expect(await administer(dir, 'user.show', { name: 'ANN' })).toMatchObject({ name: 'ann', logins: 1, groups: [] })
    await administer(dir, 'user.disabled', { name: 'bob', isDisabled: true })
    expect(await administer(dir, 'user.show', { name: 'bob' })).toMatchObject({ isDisabled: true, logins: 0 })
    await administer(dir, 'user.quota', { name: 'ann', bytes: 1000 })
    await administer(dir, 'user.admin', { name: 'ann', isAdmin: true })
    expect(await administer(dir, 'user.show', { name: 'ann' })).toMatchObject({ quota: 1000, isAdmin: true })
    expect(await administer(dir, 'user.quota', { name: 'ann' })).not.toHaveProperty('quota')
    await expect(administer(dir, 'user.show', { name: 'nobody' })).rejects.toMatchObject({
      class: 'not_found',
      code: 'NO_SUCH_USER',
    })
  })

  test('groups and rooms: members, owners, quotas, and nobody is left without a manager', async () => {
    const { world, ann, settle } = await place()
    const room = await makeRoom(ann, 'R')
    const dir = world.dir
    const { id: group } = await administer(dir, 'group.add', { name: 'staff', users: ['bob'] })
    const both = { items: [{ id: group, permissions: ALL }] }
    expect((await ann.call('PUT', `/v4/nodes/rooms/${room}/groups`, both)).status).toBe(204)
    expect((await ann.call('DELETE', `/v4/nodes/rooms/${room}/users`, { ids: [ann.id] })).status).toBe(204)
    await settle()
    await expect(administer(dir, 'group.remove', { name: 'staff' })).rejects.toMatchObject({ code: 'ROOM_UNMANAGED' })
    const takeOut = administer(dir, 'group.take-out', { name: 'staff', users: ['bob'] })
    await expect(takeOut).rejects.toMatchObject({ class: 'safety', code: 'ROOM_UNMANAGED' })
    expect(await administer(dir, 'group.list', {})).toMatchObject([{ name: 'staff', members: ['bob'], rooms: ['/R'] }])
    expect(await administer(dir, 'room.owner', { path: '/R', user: 'ann' })).toMatchObject({
      admins: expect.arrayContaining(['ann', 'bob']),
      unreadable: 0,
    })
    expect(await administer(dir, 'group.remove', { name: 'staff' })).toMatchObject({ members: ['bob'] })
    expect(await administer(dir, 'room.quota', { path: '/R', bytes: 5000 })).toMatchObject({ quota: 5000 })
    expect(await administer(dir, 'room.recycle', { path: '/R', days: 3 })).toMatchObject({ recycleDays: 3 })
    expect(await administer(dir, 'room.list', {})).toMatchObject([{ path: '/R', quota: 5000, admins: ['ann'] }])
    await expect(administer(dir, 'room.quota', { path: '/S', bytes: 1 })).rejects.toMatchObject({
      code: 'NO_SUCH_ROOM',
    })
    expect(await administer(dir, 'stats', {})).toMatchObject({ users: 2, rooms: 1, groups: 0 })
    const { items } = await administer(dir, 'audit', { operation: 'group.delete' })
    expect(items).toMatchObject([{ userId: 0, message: 'Removed the group staff' }])
  })

  test('a user whose keys nobody else has: told, refused, and removed when that is said; the files stay', async () => {
    const { world, ann, bob, settle } = await place()
    const room = await makeRoom(ann, 'E', true)
    await addKeyPair(bob)
    await addMember(ann, room, bob.id, ALL)
    const shared = fileKeyBody()
    const list = { items: [{ userId: bob.id, fileKey: shared }] }
    await uploadClassic(ann, room, 'both', Buffer.from('b'), { fileKey: shared, userFileKeyList: list })
    await uploadClassic(ann, room, 'mine', Buffer.from('m'), { fileKey: fileKeyBody() })
    const { id } = (await uploadClassic(ann, room, 'gone', Buffer.from('g'), { fileKey: fileKeyBody() })).json
    expect((await ann.call('DELETE', `/v4/nodes/${id}`)).status).toBe(204)
    const dir = await settle()
    const plan = await administer(dir, 'user.plan-removal', { name: 'ann' })
    expect(plan).toMatchObject({ unreadable: 2, roomsWithoutAdmin: [], usedBytes: 3 })
    expect(plan.unreadablePaths.sort()).toEqual(['/E/gone', '/E/mine'])
    expect(await administer(dir, 'user.plan-removal', { name: 'bob' })).toMatchObject({ unreadable: 0 })
    const removal = administer(dir, 'user.remove', { name: 'ann', force: false })
    await expect(removal).rejects.toMatchObject({ class: 'safety', code: 'USER_NEEDED' })
    expect(await administer(dir, 'user.show', { name: 'ann' })).toMatchObject({ hasKeyPair: true })
    expect(await administer(dir, 'user.remove', { name: 'ann', force: true })).toMatchObject({ unreadable: 2 })
    expect(await checkStore(dir)).toMatchObject({ problems: [], files: 3 })
    const again = isServed ? world : await startWorld({ data: dir })
    const left = await enter(again, bob.id, 'bob')
    expect((await left.call('GET', `/v4/nodes?parent_id=${room}`)).json.items.map(({ name }: Json) => name)).toEqual([
      'both',
      'mine',
    ])
  })

  test('clients: made with a secret that is shown once, listed without it, removed with their logins', async () => {
    const { settle } = await place()
    const dir = await settle()
    const uri = 'https://app.example.org/done'
    const made = await administer(dir, 'client.add', { id: 'app', redirectUris: [uri], grants: ['password'] })
    expect(made.secret).toMatch(/^[\w-]{43}$/)
    const own = (await administer(dir, 'client.list', {})).filter(({ isBuiltIn }) => !isBuiltIn)
    expect(own).toEqual([
      { id: 'app', name: 'app', isPublic: false, isBuiltIn: false, redirectUris: [uri], grants: ['password'], createdAt: expect.any(Number) },
    ]) // biome-ignore format: one line reads better
    for (const [client, code] of [
      [{ id: 'app' }, 'BAD_CLIENT'],
      [{ id: 'app', redirectUris: [uri] }, 'CLIENT_EXISTS'],
      [{ id: 'sealsync', isPublic: true }, 'CLIENT_EXISTS'],
      [{ id: 'a b', redirectUris: [uri] }, 'BAD_CLIENT'],
      [{ id: 'b', redirectUris: ['http://example.org/'] }, 'BAD_CLIENT'],
      [{ id: 'b', redirectUris: ['javascript:alert(1)'] }, 'BAD_CLIENT'],
      [{ id: 'b', redirectUris: [`${uri}#x`] }, 'BAD_CLIENT'],
      [{ id: 'b', redirectUris: [uri], grants: ['implicit'] }, 'BAD_CLIENT'],
      [{ id: 'b', redirectUris: [uri], secret: 'short' }, 'BAD_CLIENT'],
      [{ id: 'b', isPublic: true, grants: ['password'] }, 'BAD_CLIENT'],
    ] as const) {
      await expect(administer(dir, 'client.add', client), JSON.stringify(client)).rejects.toMatchObject({ code })
    }
    expect(await administer(dir, 'client.remove', { id: 'app' })).toEqual({ id: 'app', logins: 0 })
    await expect(administer(dir, 'client.remove', { id: 'sealsync' })).rejects.toMatchObject({ code: 'NO_SUCH_CLIENT' })
  })
})

describe('the socket', () => {
  test('is its owner’s only, wants its token, and is gone with the server; also where the path is too long', async () => {
    const long = join(await freshDir(), 'd'.repeat(60), 'e'.repeat(60))
    await mkdir(long, { recursive: true })
    for (const data of [await freshDir(), long]) {
      const server = await startServer({ data, users: [{ name: 'ann', password: 'x' }] })
      const place = JSON.parse(await readFile(join(data, 'admin.json'), 'utf8'))
      expect([statSync(join(data, 'admin.json')).mode & 0o777, statSync(place.path).mode & 0o777]).toEqual([
        0o600, 0o600,
      ])
      const answer = await new Promise<string>((resolve, reject) => {
        const headers = { authorization: 'Bearer wrong' }
        const req = request({ socketPath: place.path, path: '/user.list', method: 'POST', headers }, (res) => {
          let text = ''
          res.on('data', (chunk) => (text += chunk))
          res.on('end', () => resolve(text))
        })
        req.on('error', reject)
        req.end('{}')
      })
      expect(JSON.parse(answer).error.code).toBe('ADMIN_REFUSED')
      expect(await administer(data, 'user.list', {})).toMatchObject([{ name: 'ann' }])
      expect((await administer(data, 'stats', {})).server).toMatchObject({ uploads: 0 })
      await server.close()
      expect(() => statSync(place.path)).toThrow()
      expect(() => statSync(join(data, 'admin.json'))).toThrow()
    }
  })

  test('what a killed server left of it does no harm', async () => {
    const data = await freshDir()
    await addUser(data, { name: 'ann', password: 'x' })
    writeFileSync(join(data, 'admin.json'), JSON.stringify({ path: join(data, 'admin.sock'), token: 'x' }))
    writeFileSync(join(data, 'admin.sock'), 'no socket')
    expect(await administer(data, 'user.list', {})).toMatchObject([{ name: 'ann' }])
    const server = await startServer({ data })
    expect((await administer(data, 'stats', {})).server).toBeDefined()
    await server.close()
  })
})

test('a disabled user is out at once: tokens, addresses of uploads and downloads, and new logins', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { json: file } = await uploadClassic(ann, room, 'f', Buffer.from('content'))
  const { json: link } = await ann.call('POST', `/v4/nodes/files/${file.id}/downloads`)
  const { uploadUrl } = await openUpload(ann, room, 'g')
  expect((await download(ann, file.id)).status).toBe(200)
  await administer(world.dir, 'user.disabled', { name: 'ann', isDisabled: true })
  expect((await ann.call('GET', '/v4/user/account')).status).toBe(401)
  expect((await ask(link.downloadUrl)).status).toBe(404)
  expect((await ask(uploadUrl, { method: 'POST', body: Buffer.from('x') })).status).toBe(404)
  const form = { grant_type: 'refresh_token', refresh_token: ann.refreshToken }
  const headers = { authorization: BASIC }
  expect((await ask(`${world.server.url}/oauth/token`, { method: 'POST', headers, form })).status).toBe(400)
  expect((await logIn(world, 'ann', 'ann-pw')).json).toMatchObject({
    error: 'invalid_grant',
    error_description: 'The account is disabled',
  })
  await administer(world.dir, 'user.disabled', { name: 'ann', isDisabled: false })
  expect((await ann.call('GET', '/v4/user/account')).status).toBe(401)
  const again = await enter(world, ann.id, 'ann')
  expect((await download(again, file.id)).body.toString()).toBe('content')
  const { items } = await administer(world.dir, 'audit', { operation: 'user.login' })
  expect(items.map(({ status }) => status)).toEqual([0, 2, 0])
})

test('the quota of a user: counted over uploads, copies, overwriting and the bin, refused beyond', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const used = async () => (await administer(world.dir, 'user.show', { name: 'ann' })).usedBytes
  const { json: file } = await uploadClassic(ann, room, 'f', randomBytes(600))
  await administer(world.dir, 'user.quota', { name: 'ann', bytes: 1000 })
  expect(await used()).toBe(600)
  const tooMuch = await ann.call('POST', '/v4/nodes/files/uploads', { parentId: room, name: 'g', size: 401 })
  expect([tooMuch.status, tooMuch.json.errorCode]).toEqual([507, -90200])
  const { json: folder } = await ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'd' })
  const copied = await ann.call('POST', `/v4/nodes/${folder.id}/copy_to`, { items: [{ id: file.id }] })
  expect([copied.status, copied.json.errorCode]).toEqual([507, -90200])
  // Not said beforehand: found out at the end.
  const { uploadUrl } = await openUpload(ann, room, 'h')
  await ask(uploadUrl, { method: 'POST', body: randomBytes(500) })
  expect((await ask(uploadUrl, { method: 'PUT', json: {} })).status).toBe(507)
  await ask(uploadUrl, { method: 'DELETE' })
  // What is replaced is in the bin, and still there.
  await uploadClassic(ann, room, 'f', randomBytes(300), { resolutionStrategy: 'overwrite' })
  expect(await used()).toBe(900)
  expect((await ann.call('GET', '/v4/user/account/customer')).json).toMatchObject({ spaceLimit: 1000, spaceUsed: 900 })
  expect((await ann.call('DELETE', `/v4/nodes/${room}/deleted_nodes`)).status).toBe(204)
  expect(await used()).toBe(300)
  expect((await ann.call('DELETE', `/v4/nodes/${room}`)).status).toBe(204)
  expect(await used()).toBe(0)
  expect(await checkStore(world.dir)).toMatchObject({ problems: [] })
})

test('recycle bins lose what their room does not keep any longer, and nothing else', async () => {
  let now = Date.now()
  const world = await startWorld({ clock: { now: () => now }, accessTokenLifetimeS: 30 * 86_400 })
  const ann = await signUp(world, 'ann')
  const [short, forever] = [await makeRoom(ann, 'short'), await makeRoom(ann, 'forever')]
  await administer(world.dir, 'room.recycle', { path: '/short', days: 2 })
  for (const room of [short, forever]) {
    const { json } = await uploadClassic(ann, room, 'old', randomBytes(50_000))
    await ann.call('DELETE', `/v4/nodes/${json.id}`)
  }
  now += 86_400_000
  const { json: young } = await uploadClassic(ann, short, 'young', randomBytes(50_000))
  await ann.call('DELETE', `/v4/nodes/${young.id}`)
  now += 1.5 * 86_400_000
  await collectGarbage(world.dir)
  const names = async (room: number) =>
    (await ann.call('GET', `/v4/nodes/${room}/deleted_nodes`)).json.items.map(({ name }: Json) => name)
  expect([await names(short), await names(forever)]).toEqual([['young'], ['old']])
  expect(await checkStore(world.dir)).toMatchObject({ problems: [], strays: 0 })
  await world.server.close()
  now += 86_400_000
  // Without a server it goes by the clock of this machine, which is behind: nothing goes.
  await collectGarbage(world.dir)
  expect(await blobsIn(world.dir)).toHaveLength(2)
})

test('files that an upload is still writing are no strays, those that nobody knows are moved and not deleted', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const bytes = randomBytes(60_000)
  const { uploadUrl } = await openUpload(ann, room, 'f')
  await ask(uploadUrl, { method: 'POST', body: bytes })
  writeFileSync(join(world.dir, 'blobs', `${'0'.repeat(32)}-${'1'.repeat(12)}`), 'stray')
  expect(await checkStore(world.dir, { repair: true })).toMatchObject({ strays: 1, setAside: 1, problems: [] })
  const { json } = await ask(uploadUrl, { method: 'PUT', json: {} })
  const { body } = await download(ann, json.id)
  expect(createHash('sha256').update(body).digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'))
  expect(await checkStore(world.dir)).toMatchObject({ strays: 1, problems: [] })
  await collectGarbage(world.dir)
  expect(await readFile(join(world.dir, 'blobs', '.strays', `${'0'.repeat(32)}-${'1'.repeat(12)}`), 'utf8')).toBe(
    'stray',
  )
})

test('OAuth clients of integrators: secret, grants and addresses are theirs', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const uri = 'https://app.example.org/done'
  const { secret = '' } = await administer(world.dir, 'client.add', {
    id: 'app',
    name: 'The App',
    redirectUris: [uri, 'http://127.0.0.1/back'],
    grants: ['authorization_code', 'refresh_token'],
  })
  const basic = (word: string) => ({ authorization: `Basic ${Buffer.from(`app:${word}`).toString('base64')}` })
  const token = (headers: Record<string, string>, form: Record<string, string>) =>
    ask(`${world.server.url}/oauth/token`, { method: 'POST', headers, form })
  const password = { grant_type: 'password', username: 'ann', password: 'ann-pw' }
  expect((await token(basic(''), password)).status).toBe(401)
  expect((await token(basic(`${secret}x`), password)).status).toBe(401)
  expect((await token(basic(secret), password)).json.error).toBe('unauthorized_client')
  const authorize = (redirect: string) =>
    `${world.server.url}/oauth/authorize?${new URLSearchParams({ response_type: 'code', client_id: 'app', redirect_uri: redirect })}`
  for (const bad of ['https://evil.example/done', `${uri}/more`, 'http://127.0.0.1:99@evil.example/back', 'nothing']) {
    expect((await ask(authorize(bad))).status, bad).toBe(400)
  }
  const page = await ask(authorize(uri))
  expect(page.body.toString()).toContain('The App asks for access')
  expect((await ask(authorize('http://127.0.0.1:4711/back'))).status).toBe(200)
  const sent = await ask(authorize(uri), { method: 'POST', form: { username: 'ann', password: 'ann-pw' } })
  const code = new URL(String(sent.headers.location)).searchParams.get('code') ?? ''
  const form = { grant_type: 'authorization_code', code, redirect_uri: uri }
  const { json } = await token(basic(secret), form)
  const account = () => ask(`${world.api}/v4/user/account`, { token: json.access_token })
  expect((await account()).json.id).toBe(ann.id)
  expect(await administer(world.dir, 'client.remove', { id: 'app' })).toEqual({ id: 'app', logins: 1 })
  expect((await account()).status).toBe(401)
  expect((await token(basic(secret), { grant_type: 'refresh_token', refresh_token: json.refresh_token })).status).toBe(
    401,
  )
})
