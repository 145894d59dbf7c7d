/**
 * File requests: who makes and sees them, both ways of sending by them, keys for the members of an encrypted room, and what a
 * visitor cannot do: see more, send more, hold more, or get at what others send.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { checkStore } from '../../src/server/check.ts'
import { addGroup } from '../../src/server/users.ts'
import { fakeClock } from '../support/clock.ts'
import { request, send, share, visitor } from './shares.ts'
import {
  type Answer,
  addKeyPair,
  addMember,
  ask,
  blobsIn,
  download,
  fileKeyBody,
  type Json,
  makeRoom,
  type Person,
  READ_ONLY,
  signUp,
  startWorld,
  uploadClassic,
  type World,
} from './support.ts'

const said = ({ status, json }: Answer): Json => [status, json?.errorCode]
const filesIn = async (person: Person, room: number): Promise<Json[]> =>
  (await person.call('GET', `/v4/nodes?parent_id=${room}`)).json.items

/** A direct upload by a file request; answers the finishing reply and the channel. */
async function sendDirect(
  world: World,
  key: string,
  name: string,
  bytes: Uint8Array,
  keys?: Json,
): Promise<{ reply: Answer; uploadUrl: string }> {
  const { uploadUrl } = await visitor(world).open(key, name, { size: bytes.length, directS3Upload: true })
  const wanted = { size: bytes.length, firstPartNumber: 1, lastPartNumber: 1 }
  const urls = await ask(`${uploadUrl}/s3_urls`, { method: 'POST', json: wanted })
  expect(urls.status, urls.body.toString()).toBe(201)
  const sent = await ask(urls.json.urls[0].url, { method: 'PUT', body: bytes })
  expect(sent.status, sent.body.toString()).toBe(200)
  const parts = [{ partNumber: 1, partEtag: String(sent.headers.etag).replaceAll('"', '') }]
  const json = { parts, ...(keys === undefined ? {} : { userFileKeyList: keys }) }
  return { reply: await ask(`${uploadUrl}/s3`, { method: 'PUT', json }), uploadUrl }
}

async function settled(uploadUrl: string): Promise<Json> {
  for (;;) {
    const { json } = await ask(uploadUrl)
    if (json.status === 'done' || json.status === 'error') return json
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('a file request for a plain folder: made, seen, served, told and revoked', async () => {
  const world = await startWorld()
  const [ann, bob, eve] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'eve')]
  const room = await makeRoom(ann, 'Room')
  await addMember(ann, room, bob.id)
  const folder = (await ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'Inbox' })).json.id
  const made = await request(ann, folder, { maxSlots: 3, maxSize: 1000, filesExpiryPeriod: 7, showUploadedFiles: true })
  expect(made).toMatchObject({
    name: 'Inbox',
    targetId: folder,
    targetPath: '/Room/Inbox',
    targetType: 'folder',
    isProtected: false,
    isEncrypted: false,
    cntFiles: 0,
    cntUploads: 0,
    maxSlots: 3,
    maxSize: 1000,
    filesExpiryPeriod: 7,
    dataUrl: `${world.server.url}/public/upload-shares/${made.accessKey}`,
  })
  expect((await ann.call('GET', `/v4/nodes/${folder}`)).json).toMatchObject({
    cntUploadShares: 1,
    cntDownloadShares: 0,
  })
  const anybody = visitor(world)
  expect((await anybody.wanted(made.accessKey)).json).toEqual({
    isProtected: false,
    createdAt: made.createdAt,
    name: 'Inbox',
    isEncrypted: false,
    showUploadedFiles: true,
    maxSlots: 3,
    maxSize: 1000,
    creatorName: '',
    remainingSlots: 3,
    remainingSize: 1000,
    uploadedFiles: [],
  })
  const reply = await send(world, made.accessKey, 'r.txt', Buffer.from('report'))
  expect(reply.status, reply.body.toString()).toBe(201)
  expect(reply.json).toMatchObject({ name: 'r.txt', size: 6, hash: expect.stringMatching(/^[0-9a-f]{32}$/) })
  // The same name again is another file, and says nothing of what is there.
  const direct = await startWorld({ storage: 's3', data: (await closeFor(world)).dir })
  const second = await sendDirect(direct, made.accessKey, 'r.txt', Buffer.from('another'))
  expect(second.reply.status, second.reply.body.toString()).toBe(202)
  expect(await settled(second.uploadUrl)).toEqual({ status: 'done', fileName: 'r.txt', size: 7 })
  const own = { ...ann, call: callAt(direct, ann) }
  const files = await filesIn(own, folder)
  expect(files.map(({ name }) => name)).toEqual(['r (1).txt', 'r.txt'])
  expect(files[0]).toMatchObject({ createdBy: { userType: 'external', userName: 'File request Inbox' } })
  const expiry = Date.parse(files[0].expireAt) - Date.parse(files[0].createdAt)
  expect(expiry).toBe(7 * 86_400_000)
  expect((await download(own, files[1].id)).body.toString()).toBe('report')
  // Who sent what, when and from where: for those who look after it.
  const details = (await own.call('GET', `/v4/shares/uploads/${made.id}`)).json
  expect(details).toMatchObject({ cntFiles: 2, cntUploads: 2 })
  expect(details.uploadedFiles).toMatchObject([
    { name: 'r.txt', size: 7, nodeId: files[0].id, senderAddress: '127.0.0.1' },
    { name: 'r.txt', size: 6, nodeId: files[1].id },
  ])
  const events = (await own.call('GET', `/v4/nodes/rooms/${room}/events`)).json.items
  const used = events.filter((event: Json) => event.operationName === 'uploadshare.used')
  expect(used[0]).toMatchObject({
    userName: 'File request Inbox',
    message: expect.stringContaining('7 bytes from 127.0.0.1'),
  })
  const shown = (await visitor(direct).wanted(made.accessKey)).json
  expect(shown).toMatchObject({ remainingSlots: 1, remainingSize: 987 })
  expect(shown.uploadedFiles).toMatchObject([
    { name: 'r.txt', size: 7 },
    { name: 'r.txt', size: 6 },
  ])
  expect(JSON.stringify(shown)).not.toContain('127.0.0.1')
  await own.call('DELETE', `/v4/nodes/${files[0].id}`)
  expect((await own.call('GET', `/v4/shares/uploads/${made.id}`)).json).toMatchObject({ cntFiles: 1, cntUploads: 2 })

  // Rights.
  const path = `/v4/shares/uploads/${made.id}`
  for (const method of ['GET', 'DELETE']) {
    expect(said(await callAt(direct, bob)(method, path))).toEqual([403, undefined])
    expect(said(await callAt(direct, eve)(method, path))).toEqual([404, -60500])
    expect(said(await own.call(method, `/v4/shares/downloads/${made.id}`))).toEqual([404, -60000])
  }
  expect(said(await callAt(direct, bob)('POST', '/v4/shares/uploads', { targetId: folder }))).toEqual([403, undefined])
  const changes = { resetMaxSlots: true, resetMaxSize: true, resetFilesExpiryPeriod: true, name: 'Box' }
  const changed = (await own.call('PUT', path, changes)).json
  expect([changed.maxSlots, changed.maxSize, changed.filesExpiryPeriod, changed.name]).toEqual([
    undefined,
    undefined,
    undefined,
    'Box',
  ])
  expect((await visitor(direct).wanted(made.accessKey)).json.maxSlots).toBe(2 ** 31 - 1)
  const open = await visitor(direct).open(made.accessKey, 'late', { size: 1 })
  expect((await own.call('DELETE', path)).status).toBe(204)
  expect(said(await ask(open.uploadUrl, { method: 'POST', body: 'x' }))).toEqual([404, -50501])
  expect(said(await visitor(direct).wanted(made.accessKey))).toEqual([404, -50501])
  // What was sent stays.
  expect(await filesIn(own, folder)).toHaveLength(1)
  await direct.server.close()
  expect((await checkStore(world.dir, { readContent: true })).problems).toEqual([])
})

async function closeFor(world: World): Promise<World> {
  await world.server.close()
  return world
}

/** Calls of a person at another server on the same data. */
const callAt =
  (world: World, { token }: Person): Person['call'] =>
  (method, path, json, headers = {}) =>
    ask(`${world.api}${path}`, { method, token, headers, ...(json === undefined ? {} : { json }) })

test('an encrypted room: one key for each member who is listed, and for nobody else, by either way', async () => {
  const world = await startWorld({ storage: 's3' })
  const [ann, bob, kim] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'kim')]
  const room = await makeRoom(ann, 'Enc', true)
  await addKeyPair(bob)
  await addKeyPair(kim)
  // Bob comes by a group; who has no key pair is not listed.
  const { id: group } = await addGroup(world.dir, { name: 'Team', users: ['bob'] })
  await ann.call('PUT', `/v4/nodes/rooms/${room}/groups`, { items: [{ id: group, permissions: READ_ONLY }] })
  await addMember(ann, room, (await signUp(world, 'poor')).id)
  const made = await request(ann, room)
  const anybody = visitor(world)
  const info = (await anybody.wanted(made.accessKey)).json
  expect(info.isEncrypted).toBe(true)
  const ids = info.userUserPublicKeyList.items.map((item: Json) => item.id)
  expect(ids.sort()).toEqual([ann.id, bob.id].sort())
  expect(info.userUserPublicKeyList.items[0].publicKeyContainer.publicKey).toContain('BEGIN PUBLIC KEY')
  const keyFor = (userId: number, more: Json = {}) => ({ userId, fileKey: { ...fileKeyBody(), ...more } })
  const both = [keyFor(ann.id), keyFor(bob.id)]
  const bytes = randomBytes(1000)
  const { uploadUrl } = await anybody.open(made.accessKey, 'f', { size: 1000 })
  await ask(uploadUrl, { method: 'POST', body: bytes })
  const finish = async (items: Json): Promise<Json> => said(await ask(uploadUrl, { method: 'PUT', json: { items } }))
  expect(said(await ask(uploadUrl, { method: 'PUT' }))).toEqual([400, -40763])
  expect(await finish([keyFor(ann.id)])).toEqual([400, -40763])
  expect(await finish([keyFor(ann.id), keyFor(ann.id)])).toEqual([400, -40763])
  expect(await finish([...both, keyFor(kim.id)])).toEqual([404, -70501])
  expect(await finish([...both, keyFor(2 ** 52 + room)])).toEqual([404, -70501])
  expect(await finish([keyFor(ann.id), keyFor(bob.id, { tag: randomBytes(16).toString('base64') })])).toEqual([
    400, -80062,
  ])
  expect(await finish([keyFor(ann.id), { userId: bob.id, fileKey: fileKeyBody('A') }])).toEqual([400, -80062])
  expect(await finish([keyFor(ann.id), { userId: bob.id, fileKey: { ...fileKeyBody(), iv: '' } }])).toEqual([
    400, -80062,
  ])
  expect(await finish([{ userId: -1, fileKey: fileKeyBody() }])).toEqual([400, -80001])
  expect(await filesIn(ann, room)).toEqual([])
  // Somebody came meanwhile: the visitor looks again, and the same channel is finished.
  await addMember(ann, room, kim.id)
  expect(await finish(both)).toEqual([400, -40763])
  expect(await finish([...both, keyFor(kim.id)])).toEqual([201, undefined])
  const [file] = await filesIn(ann, room)
  for (const person of [ann, bob, kim]) {
    expect((await person.call('GET', `/v4/nodes/files/${file.id}/user_file_key`)).status).toBe(200)
  }
  expect((await ann.call('GET', '/v4/nodes/missingFileKeys')).json.items).toEqual([])
  const direct = await sendDirect(world, made.accessKey, 'g', bytes, [...both, keyFor(kim.id)])
  expect(direct.reply.status).toBe(202)
  expect((await settled(direct.uploadUrl)).status).toBe('done')
  const failed = await sendDirect(world, made.accessKey, 'h', bytes, both)
  expect(
    failed.reply.status === 202
      ? (await settled(failed.uploadUrl)).errorDetails.errorCode
      : failed.reply.json.errorCode,
  ).toBe(-40763)
  expect(await filesIn(ann, room)).toHaveLength(2)
  // A room in which nobody has a key pair any more.
  for (const person of [ann, bob, kim]) {
    await person.call('DELETE', '/v4/user/account/keypair?version=RSA-4096')
  }
  expect(said(await anybody.wanted(made.accessKey))).toEqual([400, -50505])
  expect(said(await anybody.call('POST', `uploads/${made.accessKey}`, { name: 'x' }))).toEqual([400, -50505])
})

test('keys for a plain room are refused; nothing needs one', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const made = await request(ann, await makeRoom(ann, 'Room'))
  const reply = await send(world, made.accessKey, 'f', Buffer.from('x'), [{ userId: ann.id, fileKey: fileKeyBody() }])
  expect(said(reply)).toEqual([400, -40001])
})

test('a protected file request says little, and the same to whoever does not know the password', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Enc', true)
  const secret = { password: 'sésame', notes: 'private', showUploadedFiles: true, maxSize: 10 }
  const made = await request(ann, room, secret)
  const anybody = visitor(world)
  const reduced = (await anybody.wanted(made.accessKey)).json
  expect(Object.keys(reduced).sort()).toEqual(
    ['createdAt', 'creatorName', 'isEncrypted', 'isProtected', 'maxSlots', 'name', 'showUploadedFiles'].sort(),
  )
  expect(said(await anybody.wanted(made.accessKey, 'wrong'))).toEqual([401, -50502])
  expect(said(await anybody.call('POST', `uploads/${made.accessKey}`, { name: 'f' }))).toEqual([401, -50502])
  expect(said(await anybody.call('POST', `uploads/${made.accessKey}`, { name: 'f', password: 'x' }))).toEqual([
    401, -50502,
  ])
  expect((await anybody.wanted(made.accessKey, 'sésame')).json).toMatchObject({ notes: 'private', remainingSize: 10 })
  // An older way: as it is.
  const plain = { headers: { 'X-Sds-Share-Password': 'not base64!' } }
  expect(said(await anybody.call('GET', `uploads/${made.accessKey}`, undefined, plain))).toEqual([401, -50502])
  await anybody.open(made.accessKey, 'f', { password: 'sésame' })
  const tries = await Promise.all(Array.from({ length: 12 }, (_, n) => anybody.wanted(made.accessKey, `wrong ${n}`)))
  expect(tries.filter(({ json }) => json.errorCode === -50502)).toHaveLength(5)
  expect(said(await anybody.call('POST', `uploads/${made.accessKey}`, { name: 'f', password: 'sésame' }))).toEqual([
    403, -51000,
  ])
  clock.advance(60_001)
  await anybody.open(made.accessKey, 'f', { password: 'sésame' })
  // Unknown and ended ones: one answer, with or without a password.
  const gone = await request(ann, room)
  await ann.call('DELETE', `/v4/shares/uploads/${gone.id}`)
  const seen = ({ status, headers: { date: _date, ...headers }, body }: Answer) => ({
    status,
    headers,
    body: body.toString(),
  })
  for (const password of [undefined, 'x']) {
    const unknown = seen(await anybody.wanted('A'.repeat(32), password))
    expect(unknown.status).toBe(404)
    for (const key of [gone.accessKey, 'x', '%00', 'y'.repeat(3000)]) {
      expect(seen(await anybody.wanted(key, password))).toEqual(unknown)
    }
  }
})

test('slots and sizes hold, however many come at once', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const made = await request(ann, room, { maxSlots: 2, maxSize: 100 })
  const anybody = visitor(world)
  const open = (body: Json) => anybody.call('POST', `uploads/${made.accessKey}`, body)
  for (const [body, status, code] of [
    [{}, 400, -80000],
    [{ name: '../../etc/passwd' }, 400, -40755],
    [{ name: '<script>alert(1)</script>' }, 400, -40755],
    [{ name: 'x'.repeat(151) }, 400, -40755],
    [{ name: 'a\u0000b' }, 400, -40755],
    [{ name: 'a', size: -1 }, 400, -80001],
    [{ name: 'a', size: 1.5 }, 400, -80002],
    [{ name: 'a', size: 1e300 }, 400, -80002],
    [{ name: 'a', size: Number.MAX_SAFE_INTEGER }, 507, -50504],
    [{ name: 'a', size: 101 }, 507, -50504],
    [{ name: 'a', timestampModification: 'yesterday' }, 400, undefined],
  ] as const) {
    expect(said(await open(body)), JSON.stringify(body)).toEqual([status, code])
  }
  // Six channels are open before the first is finished: two become files, and no byte too many.
  const urls: string[] = []
  for (let index = 0; index < 6; index++) {
    const { uploadUrl } = await anybody.open(made.accessKey, `f${index}`, { size: 60 })
    expect((await ask(uploadUrl, { method: 'POST', body: Buffer.alloc(index < 3 ? 60 : 20) })).status).toBe(201)
    urls.push(uploadUrl)
  }
  const codes = (await Promise.all(urls.map((url) => ask(url, { method: 'PUT' })))).map(({ status }) => status)
  expect(codes.filter((status) => status === 201).length).toBeLessThanOrEqual(2)
  const files = await filesIn(ann, room)
  expect(files.length).toBe(codes.filter((status) => status === 201).length)
  expect(files.reduce((sum, { size }) => sum + size, 0)).toBeLessThanOrEqual(100)
  // More than was announced does not get in, by either way.
  const other = await request(ann, room)
  const { uploadUrl } = await anybody.open(other.accessKey, 'small', { size: 10 })
  expect(said(await ask(uploadUrl, { method: 'POST', body: Buffer.alloc(11) }))).toEqual([507, -50504])
  const direct = await startWorld({ storage: 's3', data: (await closeFor(world)).dir })
  const second = await visitor(direct).open(other.accessKey, 'small', { size: 10, directS3Upload: true })
  const parts = (body: Json) => ask(`${second.uploadUrl}/s3_urls`, { method: 'POST', json: body })
  expect(said(await parts({ size: 11, firstPartNumber: 1, lastPartNumber: 1 }))).toEqual([507, -50504])
  expect(said(await parts({ size: -1, firstPartNumber: 1, lastPartNumber: 1 }))).toEqual([400, -80001])
  expect(said(await parts({ size: 1, firstPartNumber: 1, lastPartNumber: 10_001 }))).toEqual([400, -80001])
  expect((await parts({ size: 10, firstPartNumber: 1, lastPartNumber: 2 })).status).toBe(201)
  const json = { parts: [{ partNumber: 1, partEtag: 'f'.repeat(32) }] }
  expect(said(await ask(`${second.uploadUrl}/s3`, { method: 'PUT', json }))).toEqual([400, -80045])
  expect((await ask(second.uploadUrl, { method: 'DELETE' })).status).toBe(204)
  expect(said(await ask(second.uploadUrl))).toEqual([404, -20501])
})

test('a room that is full, and a disk that would be', async () => {
  const world = await startWorld({ reserveBytes: Number.MAX_SAFE_INTEGER })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const made = await request(ann, room)
  const open = (key: string, body: Json) => visitor(world).call('POST', `uploads/${key}`, body)
  expect(said(await open(made.accessKey, { name: 'a', size: 1 }))).toEqual([507, -90201])
  // Members may use what visitors must leave.
  expect((await uploadClassic(ann, room, 'a', Buffer.from('x'))).status).toBe(201)
  const again = await startWorld({ data: (await closeFor(world)).dir })
  await callAt(again, ann)('PUT', `/v4/nodes/rooms/${room}`, { quota: 10 })
  const wanted = { name: 'b', size: 11 }
  expect(said(await visitor(again).call('POST', `uploads/${made.accessKey}`, wanted))).toEqual([507, -40200])
  // A quota that shrinks meanwhile is looked at in the end, too.
  const { uploadUrl } = await visitor(again).open(made.accessKey, 'b', { size: 9 })
  await ask(uploadUrl, { method: 'POST', body: Buffer.alloc(9) })
  await callAt(again, ann)('PUT', `/v4/nodes/rooms/${room}`, { quota: 5 })
  expect(said(await ask(uploadUrl, { method: 'PUT' }))).toEqual([507, -40200])
})

test('ten thousand files in a request: it bounds what is open, and goes on when some are done', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const made = await request(ann, room)
  const anybody = visitor(world)
  const codes: number[] = []
  const urls: string[] = []
  for (let index = 0; index < 100; index++) {
    const reply = await anybody.call('POST', `uploads/${made.accessKey}`, { name: `f${index}`, size: 1 })
    codes.push(reply.status)
    if (reply.status === 201) urls.push(reply.json.uploadUrl)
    else expect(Number(reply.headers['retry-after'])).toBeGreaterThan(0)
  }
  expect(urls).toHaveLength(32)
  expect(codes.slice(32).every((status) => status === 429)).toBe(true)
  // Other requests are not affected.
  const other = await request(ann, room)
  await anybody.open(other.accessKey, 'x')
  await ask(urls[0] ?? '', { method: 'POST', body: 'x' })
  expect((await ask(urls[0] ?? '', { method: 'PUT' })).status).toBe(201)
  await anybody.open(made.accessKey, 'next')
  // What nobody has used for long makes room, and is gone with all that was sent.
  clock.advance(61_000)
  await anybody.open(made.accessKey, 'after')
  expect(await filesIn(ann, room)).toHaveLength(1)
})

test('an abandoned upload tells how far it came, and ends with the server that held it', async () => {
  const clock = fakeClock()
  const world = await startWorld({ clock })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const made = await request(ann, room)
  const { uploadUrl } = await visitor(world).open(made.accessKey, 'big', { size: 100_000 })
  await ask(uploadUrl, { method: 'POST', body: Buffer.alloc(50_000) })
  expect(await blobsIn(world.dir)).toHaveLength(1)
  expect((await ask(uploadUrl)).json).toEqual({ status: 'transfer', fileName: 'big', size: 50_000 })
  // A tab that was closed: the next day somebody goes on elsewhere, with a server that was restarted.
  const again = await startWorld({ data: (await closeFor(world)).dir, clock })
  expect(said(await ask(`${again.server.url}${new URL(uploadUrl).pathname}`))).toEqual([404, -20501])
  // What had arrived is left to `serve check --repair`: a start deletes nothing.
  expect(await blobsIn(world.dir)).toHaveLength(1)
  expect((await send(again, made.accessKey, 'small', Buffer.from('x'))).status).toBe(201)
})

test('channels of a request are out of reach for others: other requests, members, other routes', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Room')
  const [one, two] = [await request(ann, room), await request(ann, room)]
  const link = await share(ann, room)
  const { uploadId, uploadUrl } = await visitor(world).open(one.accessKey, 'f', { size: 1 })
  await ask(uploadUrl, { method: 'POST', body: 'x' })
  const own = await ann.call('POST', '/v4/nodes/files/uploads', { parentId: room, name: 'own' })
  const base = `${world.api}/v4/public/shares/uploads`
  for (const [key, id, code] of [
    [two.accessKey, uploadId, -20501],
    [one.accessKey, own.json.uploadId, -20501],
    [link.accessKey, uploadId, -50501],
    ['x', uploadId, -50501],
  ] as const) {
    for (const method of ['GET', 'POST', 'PUT', 'DELETE']) {
      const reply = await ask(`${base}/${key}/${id}`, { method, ...(method === 'POST' ? { body: 'y' } : {}) })
      expect(said(reply), `${method} ${key} ${id}`).toEqual([404, code])
    }
  }
  for (const method of ['GET', 'PUT', 'DELETE']) {
    expect((await ann.call(method, `/v4/nodes/files/uploads/${uploadId}`, {})).status).toBe(404)
    if (method !== 'GET')
      expect((await ask(`${world.api}/v4/uploads/${uploadId}`, { method, json: {} })).status).toBe(404)
  }
  expect((await ask(uploadUrl, { method: 'PUT' })).status).toBe(201)
  // Once done it is done.
  expect(said(await ask(uploadUrl, { method: 'PUT' }))).toEqual([400, -20503])
  expect(said(await ask(uploadUrl, { method: 'POST', body: 'z' }))).toEqual([400, -20503])
  expect((await ask(uploadUrl)).json).toEqual({ status: 'done', fileName: 'f', size: 1 })
})
