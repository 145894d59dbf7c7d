import { randomBytes } from 'node:crypto'
/**
 * Key pairs and file keys: rules of the containers, what is missing for whom, handing keys out, losing them.
 * @module
 */
import { expect, test } from 'vitest'
import {
  addKeyPair,
  addMember,
  fileKeyBody,
  type Json,
  keyPairBody,
  makeRoom,
  type Person,
  READ_ONLY,
  signUp,
  startWorld,
  uploadClassic,
} from './support.ts'

const missing = async (person: Person, query = ''): Promise<Json> => {
  const reply = await person.call('GET', `/v4/nodes/missingFileKeys?limit=100${query}`)
  expect(reply.status, reply.body.toString()).toBe(200)
  return reply.json
}
const share = (person: Person, items: Json) => person.call('POST', '/v4/nodes/files/keys', { items })
const upload = async (person: Person, room: number, name: string, more: Json = {}): Promise<number> => {
  const reply = await uploadClassic(person, room, name, Buffer.from(name), { fileKey: fileKeyBody(), ...more })
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json.id
}

test('key pairs: preferred one, versions, duplicates, bad containers', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const get = (query = '') => ann.call('GET', `/v4/user/account/keypair${query}`)
  expect((await get()).json).toMatchObject({ code: 404, errorCode: -70020 })
  expect((await ann.call('GET', '/v4/user/account/keypairs')).json.errorCode).toBe(-70020)
  const old = await addKeyPair(ann, 'A')
  const current = await addKeyPair(ann)
  expect((await get()).json).toMatchObject(current)
  expect((await get('?version=A')).json).toMatchObject(old)
  expect((await get('?version=RSA-4096')).json).toMatchObject(current)
  expect((await get('?version=B')).json).toMatchObject({ code: 400, errorCode: -70022 })
  expect((await ann.call('GET', '/v4/user/account/keypairs')).json).toMatchObject([current, old])
  expect((await ann.call('GET', '/v4/user/account')).json.isEncryptionEnabled).toBe(true)
  const post = async (body: Json) => (await ann.call('POST', '/v4/user/account/keypair', body)).json
  expect(await post(keyPairBody())).toMatchObject({ code: 409, errorCode: -70021 })
  expect((await get()).json).toMatchObject(current)
  const good = keyPairBody()
  const pub = good.publicKeyContainer
  const priv = good.privateKeyContainer
  expect(await post({ ...good, publicKeyContainer: { ...pub, publicKey: 'x' } })).toMatchObject({
    code: 400,
    errorCode: -70022,
  })
  expect(await post({ ...good, publicKeyContainer: { ...pub, version: 'A' } })).toMatchObject({ errorCode: -70022 })
  expect(await post({ ...good, privateKeyContainer: { ...priv, version: 'B' } })).toMatchObject({ errorCode: -70023 })
  const open = priv.privateKey.replaceAll('ENCRYPTED ', '')
  expect(await post({ ...good, privateKeyContainer: { ...priv, privateKey: open } })).toMatchObject({
    errorCode: -70023,
  })
  expect((await ann.call('DELETE', '/v4/user/account/keypair')).status).toBe(204)
  expect((await get('?version=A')).status).toBe(404)
  expect((await get()).json).toMatchObject(current)
})

test('the lock of a key pair is replaced for who knows the one that is there; anything else meets a key pair that exists', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const first = await addKeyPair(ann)
  const lockOf = (body: Json) => body.privateKeyContainer
  const post = async (body: Json) => (await ann.call('POST', '/v4/user/account/keypair', body)).status
  const next = { ...first, privateKeyContainer: lockOf(keyPairBody()) }
  const refused = [
    first,
    next,
    { ...next, previousPrivateKey: lockOf(keyPairBody()) },
    { ...next, previousPrivateKey: { ...lockOf(first), version: 'A' } },
    { ...keyPairBody(), previousPrivateKey: lockOf(first) },
  ]
  for (const body of refused) expect(await post(body)).toBe(409)
  expect((await ann.call('GET', '/v4/user/account/keypair')).json).toMatchObject(first)
  expect(await post({ ...next, previousPrivateKey: { version: 'RSA-4096', privateKey: 'none' } })).toBe(400)
  expect(await post({ ...next, previousPrivateKey: lockOf(first) })).toBe(204)
  expect((await ann.call('GET', '/v4/user/account/keypair')).json).toMatchObject(next)
  // Another account has nothing of it.
  const bob = await signUp(world, 'bob')
  expect((await bob.call('GET', '/v4/user/account/keypair')).status).toBe(404)
})

test('missing file keys: two members, handed out once, then nothing is missing', async () => {
  const world = await startWorld()
  const [ann, bob, eve] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'eve')]
  const room = await makeRoom(ann, 'Enc', true)
  const key = fileKeyBody()
  const id = await upload(ann, room, 'f', { fileKey: key })
  expect(await missing(ann)).toEqual({ range: { offset: 0, limit: 100, total: 0 }, items: [], users: [], files: [] })
  const pair = await addKeyPair(bob)
  await addMember(ann, room, bob.id)
  await addMember(ann, room, eve.id)
  const list = await missing(ann)
  expect(list.items).toEqual([{ userId: bob.id, fileId: id }])
  expect(list.users).toMatchObject([{ id: bob.id, publicKeyContainer: pair.publicKeyContainer }])
  expect(list.files).toEqual([{ id, fileKeyContainer: key }])
  expect((await missing(bob)).items).toEqual([])
  expect((await bob.call('GET', `/v4/nodes/files/${id}/user_file_key`)).json).toMatchObject({
    code: 404,
    errorCode: -40761,
  })
  expect((await bob.call('GET', `/v4/nodes/${id}`)).json.encryptionInfo.userKeyState).toBe('pending')
  const forBob = fileKeyBody()
  expect((await share(bob, [{ userId: eve.id, fileId: id, fileKey: forBob }])).json).toMatchObject({
    code: 403,
    errorCode: -40761,
  })
  expect((await share(ann, [{ userId: 999, fileId: id, fileKey: forBob }])).json).toMatchObject({
    code: 404,
    errorCode: -70501,
  })
  expect((await share(ann, [{ userId: bob.id, fileId: id, fileKey: { ...forBob, iv: 'AAAA' } }])).json.errorCode).toBe(
    -80062,
  )
  // A key for other content could never open this one, and would stay for good.
  for (const other of [{ iv: randomBytes(12) }, { tag: randomBytes(16) }]) {
    const [name, bytes] = Object.entries(other)[0]!
    const fileKey = { ...forBob, [name]: bytes.toString('base64') }
    expect((await share(ann, [{ userId: bob.id, fileId: id, fileKey }])).json.errorCode).toBe(-80062)
  }
  expect((await share(ann, [{ userId: bob.id, fileId: id, fileKey: forBob }])).status).toBe(204)
  expect((await share(ann, [{ userId: bob.id, fileId: id, fileKey: fileKeyBody() }])).status).toBe(204)
  expect((await bob.call('GET', `/v4/nodes/files/${id}/user_file_key`)).json).toEqual(forBob)
  expect((await missing(ann)).items).toEqual([])
  expect((await bob.call('GET', `/v4/nodes/${id}`)).json.encryptionInfo.userKeyState).toBe('available')
})

test('filters, other rooms and more than a hundred missing keys', async () => {
  const world = await startWorld()
  const [ann, bob, cy] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'cy')]
  const [room, other] = [await makeRoom(ann, 'Enc', true), await makeRoom(ann, 'Other', true)]
  await addKeyPair(bob)
  await addKeyPair(cy)
  for (const person of [bob, cy]) for (const id of [room, other]) await addMember(ann, id, person.id)
  const ids: number[] = []
  for (let n = 0; n < 60; n++) ids.push(await upload(ann, room, `f${n}`))
  const elsewhere = await upload(ann, other, 'g')
  expect((await missing(ann, `&file_id=${ids[3]}`)).items).toEqual([
    { userId: bob.id, fileId: ids[3] },
    { userId: cy.id, fileId: ids[3] },
  ])
  expect((await missing(ann, `&room_id=${other}&fileId=1`)).items).toHaveLength(2)
  expect((await missing(ann, `&room_id=${other}&user_id=${cy.id}`)).items).toEqual([
    { userId: cy.id, fileId: elsewhere },
  ])
  const seen = new Set<string>()
  for (let round = 0; round < 10; round++) {
    const list = await missing(ann, '&limit=500')
    expect(list.items.length).toBeLessThanOrEqual(100)
    if (list.items.length === 0) break
    const userIds = list.users.map((user: Json) => user.id)
    const fileIds = list.files.map((item: Json) => item.id)
    expect(new Set(userIds).size).toBe(userIds.length)
    expect(new Set(fileIds).size).toBe(fileIds.length)
    for (const { userId, fileId } of list.items) {
      expect(userIds).toContain(userId)
      expect(fileIds).toContain(fileId)
      seen.add(`${userId}/${fileId}`)
    }
    expect(
      (
        await share(
          ann,
          list.items.map((item: Json) => ({ ...item, fileKey: fileKeyBody() })),
        )
      ).status,
    ).toBe(204)
  }
  expect(seen.size).toBe(122)
})

test('a classic finish may bring keys for others', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'Enc', true)
  await addKeyPair(bob)
  await addMember(ann, room, bob.id)
  const forBob = fileKeyBody()
  const id = await upload(ann, room, 'f', { userFileKeyList: { items: [{ userId: bob.id, fileKey: forBob }] } })
  expect((await bob.call('GET', `/v4/nodes/files/${id}/user_file_key`)).json).toEqual(forBob)
  expect((await missing(ann)).items).toEqual([])
})

test('changing key pairs: the old one opens what the new one lacks', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  await addKeyPair(ann, 'A')
  const room = await makeRoom(ann, 'R')
  await ann.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, { isEncrypted: true })
  const oldKey = fileKeyBody('A')
  const id = await upload(ann, room, 'f', { fileKey: oldKey })
  const relocked = keyPairBody('A').privateKeyContainer
  const migrated = await ann.call('POST', '/v4/user/account/keypairs', {
    ...keyPairBody(),
    previousPrivateKey: relocked,
  })
  expect(migrated.status).toBe(204)
  expect((await ann.call('GET', '/v4/user/account/keypair?version=A')).json.privateKeyContainer.privateKey).toBe(
    relocked.privateKey,
  )
  expect((await missing(ann)).items).toEqual([])
  const list = await missing(ann, '&use_key=previous_user_key')
  expect(list.items).toEqual([{ userId: ann.id, fileId: id }])
  expect(list.users[0].publicKeyContainer.version).toBe('RSA-4096')
  expect(list.files[0].fileKeyContainer).toEqual(oldKey)
  const fresh = fileKeyBody()
  await share(ann, [{ userId: ann.id, fileId: id, fileKey: fresh }])
  expect((await ann.call('GET', `/v4/nodes/files/${id}/user_file_key`)).json).toEqual(fresh)
  expect((await ann.call('GET', `/v4/nodes/files/${id}/user_file_key?version=A`)).json).toEqual(oldKey)
  expect((await ann.call('DELETE', '/v4/user/account/keypair')).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/files/${id}/user_file_key`)).json).toEqual(fresh)
})

test('deleting a key pair drops its file keys and the files nobody can open', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'Enc', true)
  await addKeyPair(bob)
  await addMember(ann, room, bob.id)
  const [shared, own] = [await upload(ann, room, 'shared'), await upload(ann, room, 'own')]
  await share(ann, [{ userId: bob.id, fileId: shared, fileKey: fileKeyBody() }])
  expect((await ann.call('DELETE', '/v4/user/account/keypair?version=RSA-4096')).status).toBe(204)
  expect((await bob.call('GET', `/v4/nodes/${shared}`)).status).toBe(200)
  expect((await bob.call('GET', `/v4/nodes/${own}`)).status).toBe(404)
  await addKeyPair(ann)
  expect((await ann.call('GET', `/v4/nodes/files/${shared}/user_file_key`)).json.errorCode).toBe(-40761)
  expect((await missing(bob)).items).toEqual([{ userId: ann.id, fileId: shared }])
})

test('a room rescue key comes first and is echoed back', async () => {
  const world = await startWorld()
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const room = await makeRoom(ann, 'Enc')
  await addKeyPair(ann)
  await addKeyPair(bob)
  const rescue = keyPairBody()
  await ann.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, { isEncrypted: true, dataRoomRescueKey: rescue })
  await addMember(ann, room, bob.id, { ...READ_ONLY, read: true })
  const id = await upload(ann, room, 'f')
  const list = await missing(ann)
  expect(list.items).toHaveLength(2)
  expect(list.items[1]).toEqual({ userId: bob.id, fileId: id })
  expect(list.users[0]).toMatchObject({ id: list.items[0].userId, publicKeyContainer: rescue.publicKeyContainer })
  expect(
    (
      await share(
        ann,
        list.items.map((item: Json) => ({ ...item, fileKey: fileKeyBody() })),
      )
    ).status,
  ).toBe(204)
  expect((await missing(ann)).items).toEqual([])
  expect((await missing(ann, '&use_key=room_rescue_key')).items).toEqual([])
})
