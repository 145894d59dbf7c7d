/**
 * Rescue keys of rooms and of the system: who may set, read and remove them, for which files they are recipients, and starting
 * from them.
 * @module
 */
import { expect, test } from 'vitest'
import { BlobFiles } from '../../src/server/blob-files.ts'
import { RESCUE_BASE, SYSTEM_RESCUE } from '../../src/server/holders.ts'
import { openStore } from '../../src/server/store.ts'
import { addGroup, addUser } from '../../src/server/users.ts'
import {
  addKeyPair,
  addMember,
  enter,
  fileKeyBody,
  freshDir,
  type Json,
  keyPairBody,
  makeRoom,
  type Person,
  READ_ONLY,
  signUp,
  startWorld,
  uploadClassic,
  type World,
} from './support.ts'

const missing = async (person: Person, query = ''): Promise<Json> => {
  const reply = await person.call('GET', `/v4/nodes/missingFileKeys?limit=100${query}`)
  expect(reply.status, reply.body.toString()).toBe(200)
  return reply.json
}
const handOut = (person: Person, items: Json) => person.call('POST', '/v4/nodes/files/keys', { items })
const upload = async (person: Person, room: number, name: string): Promise<number> => {
  const reply = await uploadClassic(person, room, name, Buffer.from(name), { fileKey: fileKeyBody() })
  expect(reply.status, reply.body.toString()).toBe(201)
  return reply.json.id
}

/** A server with one administrator, `ann`. */
async function withAdmin(): Promise<{ world: World; ann: Person }> {
  const dir = await freshDir()
  const { id } = await addUser(dir, { name: 'ann', password: 'ann-pw' })
  const store = await openStore(dir, new BlobFiles(dir), { isServed: false })
  await store.write((tx) => {
    const user = store.users.get(id)
    if (user !== undefined) tx.put(store.users, id, { ...user, isAdmin: true })
  })
  await store.close()
  const world = await startWorld({ data: dir })
  return { world, ann: await enter(world, id, 'ann') }
}

test('the rescue key of a room comes, migrates and goes', async () => {
  const world = await startWorld()
  const [ann, bob, eve] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'eve')]
  const room = await makeRoom(ann, 'Enc', true)
  const plain = await makeRoom(ann, 'Plain')
  await addMember(ann, room, bob.id)
  const path = `/v4/nodes/rooms/${room}/keypair`
  const code = async (person: Person, method: string, where: string, body?: Json): Promise<Json> => {
    const { status, json } = await person.call(method, where, body)
    return [status, json?.errorCode]
  }
  const old = keyPairBody('A')
  expect(await code(ann, 'GET', path)).toEqual([404, -40007])
  expect(await code(ann, 'GET', `${path}s`)).toEqual([404, -40007])
  expect(await code(ann, 'DELETE', path)).toEqual([404, -40007])
  expect(await code(bob, 'POST', path, old)).toEqual([403, undefined])
  expect(await code(eve, 'GET', path)).toEqual([404, -41000])
  expect(await code(ann, 'POST', `/v4/nodes/rooms/${plain}/keypair`, old)).toEqual([400, -40001])
  expect(await code(ann, 'POST', path, { ...old, publicKeyContainer: { version: 'A', publicKey: 'x' } })).toEqual([
    400, -70022,
  ])
  const first = await upload(ann, room, 'before')
  expect(await code(ann, 'POST', path, old)).toEqual([204, undefined])
  expect(await code(ann, 'POST', path, keyPairBody('A'))).toEqual([409, -70021])
  expect((await bob.call('GET', path)).json).toMatchObject(old)
  // Files that were there before get the key, too; rooms below are covered.
  const below = await ann.call('POST', '/v4/nodes/rooms', { name: 'Below', parentId: room })
  expect((await ann.call('GET', `/v4/nodes/rooms/${below.json.id}/keypair`)).json).toMatchObject(old)
  expect(await code(ann, 'POST', `/v4/nodes/rooms/${below.json.id}/keypair`, keyPairBody())).toEqual([403, undefined])
  const second = await upload(ann, below.json.id, 'below')
  const rescue = RESCUE_BASE + room
  const list = await missing(ann)
  expect(list.items).toEqual([
    { userId: rescue, fileId: first },
    { userId: rescue, fileId: second },
  ])
  expect(list.users).toMatchObject([{ id: rescue, publicKeyContainer: old.publicKeyContainer }])
  const forOld = fileKeyBody('A')
  expect((await handOut(ann, [{ userId: rescue, fileId: first, fileKey: fileKeyBody() }])).json.errorCode).toBe(-70501)
  expect((await handOut(ann, [{ userId: rescue, fileId: first, fileKey: forOld }])).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/files/${first}/data_room_file_key`)).json).toEqual(forOld)
  expect(await code(bob, 'GET', `/v4/nodes/files/${second}/data_room_file_key`)).toEqual([404, -40761])
  expect(await code(eve, 'GET', `/v4/nodes/files/${first}/data_room_file_key`)).toEqual([404, -40751])

  // A newer pair beside it, with the older one under a new password.
  const fresh = keyPairBody()
  const relocked = keyPairBody('A').privateKeyContainer
  expect(await code(ann, 'POST', `${path}s`, { ...fresh, previousPrivateKey: relocked })).toEqual([204, undefined])
  const both = (await ann.call('GET', `${path}s`)).json
  expect(both).toMatchObject([fresh, { privateKeyContainer: relocked, publicKeyContainer: old.publicKeyContainer }])
  expect((await ann.call('GET', path)).json).toMatchObject(fresh)
  const moved = await missing(ann, `&room_id=${room}&use_key=previous_room_rescue_key`)
  expect(moved.items).toEqual([{ userId: rescue, fileId: first }])
  expect(moved.files).toEqual([{ id: first, fileKeyContainer: forOld }])
  expect((await handOut(ann, [{ userId: rescue, fileId: first, fileKey: fileKeyBody() }])).status).toBe(204)
  expect((await missing(ann, `&room_id=${room}&use_key=previous_room_rescue_key`)).items).toEqual([])
  // Without a version the older one goes, with the file keys for it, and nothing else.
  expect(await code(ann, 'DELETE', path)).toEqual([204, undefined])
  expect((await ann.call('GET', `${path}s`)).json).toMatchObject([fresh])
  expect(await code(ann, 'GET', `/v4/nodes/files/${first}/data_room_file_key?version=A`)).toEqual([404, -40761])
  expect(await code(ann, 'DELETE', `${path}?version=RSA-4096`)).toEqual([204, undefined])
  expect((await missing(ann)).items).toEqual([])
  expect(await code(ann, 'GET', `/v4/nodes/missingFileKeys?room_id=${room}&use_key=room_rescue_key`)).toEqual([
    400, -40024,
  ])
  expect(await code(bob, 'GET', `/v4/nodes/missingFileKeys?room_id=${room}&use_key=room_rescue_key`)).toEqual([
    403,
    undefined,
  ])
  expect((await ann.call('GET', `/v4/nodes/${first}`)).status).toBe(200)
})

test('who lost their key pair gets back in with the rescue key of the room', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Enc', true)
  await ann.call('POST', `/v4/nodes/rooms/${room}/keypair`, keyPairBody())
  const id = await upload(ann, room, 'f')
  const rescue = RESCUE_BASE + room
  await handOut(ann, [{ userId: rescue, fileId: id, fileKey: fileKeyBody() }])
  await ann.call('DELETE', '/v4/user/account/keypair?version=RSA-4096')
  await addKeyPair(ann)
  const lost = await missing(ann, `&use_key=room_rescue_key`)
  expect(lost.items).toEqual([{ userId: ann.id, fileId: id }])
  // Only the key of this very content is taken.
  const other = { ...fileKeyBody(), iv: Buffer.alloc(12, 7).toString('base64') }
  expect((await handOut(ann, [{ userId: ann.id, fileId: id, fileKey: other }])).json.errorCode).toBe(-80062)
  expect((await handOut(ann, [{ userId: ann.id, fileId: id, fileKey: fileKeyBody() }])).status).toBe(204)
  expect((await ann.call('GET', `/v4/nodes/files/${id}/user_file_key`)).status).toBe(200)
  // Nothing of a room that is gone stays.
  expect((await ann.call('DELETE', `/v4/nodes/${room}`)).status).toBe(204)
})

test('the rescue key of the system: set by an administrator, chosen by room, told as a recipient', async () => {
  const { world, ann } = await withAdmin()
  const bob = await signUp(world, 'bob')
  const path = '/v4/settings/keypair'
  const pair = keyPairBody()
  expect((await ann.call('POST', path, pair)).json.errorCode).toBe(-70020)
  await addKeyPair(ann)
  await addKeyPair(bob)
  expect((await bob.call('POST', path, pair)).status).toBe(403)
  expect((await bob.call('GET', path)).status).toBe(404)
  const room = await makeRoom(bob, 'Room')
  const encrypt = { isEncrypted: true, useDataSpaceRescueKey: true }
  expect((await bob.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, encrypt)).json.errorCode).toBe(-40004)
  expect((await ann.call('POST', path, pair)).status).toBe(204)
  expect((await bob.call('GET', path)).json).toMatchObject(pair)
  const both = { ...encrypt, dataRoomRescueKey: keyPairBody() }
  expect((await bob.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, both)).json.errorCode).toBe(-40004)
  expect((await bob.call('PUT', `/v4/nodes/rooms/${room}/encrypt`, encrypt)).status).toBe(200)
  const other = await makeRoom(bob, 'Other', true)
  const id = await upload(bob, room, 'f')
  await upload(bob, other, 'without')
  const list = await missing(bob)
  expect(list.items).toEqual([{ userId: SYSTEM_RESCUE, fileId: id }])
  expect(list.users).toMatchObject([{ id: SYSTEM_RESCUE, publicKeyContainer: pair.publicKeyContainer }])
  expect((await handOut(bob, [{ userId: SYSTEM_RESCUE, fileId: id, fileKey: fileKeyBody() }])).status).toBe(204)
  expect((await bob.call('GET', `/v4/nodes/files/${id}/data_space_file_key`)).status).toBe(200)
  // Whoever has its password still has to be an administrator of the room.
  expect((await missing(ann, '&use_key=system_rescue_key')).items).toEqual([])
  await addMember(bob, room, ann.id, { ...READ_ONLY, manage: true })
  const start = await missing(ann, '&use_key=system_rescue_key')
  expect(start.items).toEqual([{ userId: ann.id, fileId: id }])
  // Not for files of rooms that did not choose it.
  const elsewhere = (await bob.call('GET', `/v4/nodes?parent_id=${other}`)).json.items[0].id
  expect((await handOut(bob, [{ userId: SYSTEM_RESCUE, fileId: elsewhere, fileKey: fileKeyBody() }])).status).toBe(404)
  expect((await bob.call('DELETE', path)).status).toBe(403)
  expect((await ann.call('DELETE', path)).status).toBe(204)
  expect((await bob.call('GET', `/v4/nodes/files/${id}/data_space_file_key`)).json.errorCode).toBe(-40761)
})

test('members of groups get file keys like others, and lose them with the group', async () => {
  const world = await startWorld()
  const [ann, bob, eve] = [await signUp(world, 'ann'), await signUp(world, 'bob'), await signUp(world, 'eve')]
  const { id: group } = await addGroup(world.dir, { name: 'Team', users: ['bob', 'eve'] })
  const room = await makeRoom(ann, 'Enc', true)
  await addKeyPair(bob)
  const fileId = await upload(ann, room, 'f')
  const items = [{ id: group, permissions: READ_ONLY }]
  expect((await ann.call('PUT', `/v4/nodes/rooms/${room}/groups`, { items })).status).toBe(204)
  expect((await missing(ann)).items).toEqual([{ userId: bob.id, fileId }])
  // Eve has no key pair yet.
  await addKeyPair(eve)
  const both = (await missing(ann)).items
  expect(both).toEqual([bob, eve].map(({ id }) => ({ userId: id, fileId })))
  expect(
    (
      await handOut(
        ann,
        both.map((item: Json) => ({ ...item, fileKey: fileKeyBody() })),
      )
    ).status,
  ).toBe(204)
  expect((await missing(ann)).items).toEqual([])
  expect((await eve.call('GET', `/v4/nodes/files/${fileId}/user_file_key`)).status).toBe(200)
  // Who comes into the group later is missed then.
  const kim = await signUp(world, 'kim')
  await addKeyPair(kim)
  await addGroup(world.dir, { name: 'Team', users: ['kim'] })
  expect((await missing(bob)).items).toEqual([{ userId: kim.id, fileId }])
  expect((await ann.call('DELETE', `/v4/nodes/rooms/${room}/groups`, { ids: [group] })).status).toBe(204)
  expect((await missing(ann)).items).toEqual([])
  expect((await eve.call('GET', `/v4/nodes/files/${fileId}/user_file_key`)).status).toBe(404)
})
