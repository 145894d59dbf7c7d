import { afterAll, beforeAll, expect, test } from 'vitest'
import { generateKeyPair } from '../../crypto/index.ts'
import { getFileKey, listMissingFileKeys } from '../../src/api/file-keys.ts'
import { listRoomUsers, putRoomMembers } from '../../src/api/nodes.ts'
import { systemClock } from '../../src/environment.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { distributeFileKeys } from '../../src/transfer/distribute.ts'
import { createKeyring } from '../../src/transfer/keyring.ts'
import { createPins } from '../../src/transfer/pins.ts'
import { createWorld, giveKeyPair, KEY_PASSWORD, makeRoom, makeTree, type World } from '../support/cli.ts'

const READ_ONLY = {
  manage: false,
  read: true,
  create: false,
  change: false,
  delete: false,
  manageDownloadShare: false,
  manageUploadShare: false,
  readRecycleBin: false,
  restoreRecycleBin: false,
  deleteRecycleBin: false,
}

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'], keyPair: false })
})
afterAll(() => world.close())

async function addMember(roomId: number, name: string): Promise<void> {
  const { api } = await world.client()
  for await (const user of listRoomUsers(api, roomId, false)) {
    if (user.userInfo.userName === name)
      await putRoomMembers(api, roomId, 'users', [{ id: user.userInfo.id, permissions: READ_ONLY }])
  }
}

test('what only the older key pair opens is handed out as well, also to our own newer one', async () => {
  const anna = await world.client()
  await giveKeyPair(anna, await generateKeyPair('A'))
  const room = await makeRoom(anna, 'old')
  makeTree(world.path('src'), { a: 'written with the older key pair', b: 'this too' })
  expect(await anna.upload([world.path('src')], '/old')).toMatchObject({ transferred: 2, failed: [] })

  await giveKeyPair(anna)
  const bob = await world.client('bob')
  await giveKeyPair(bob)
  await addMember(room.id, 'bob')
  // A client that was started after the second key pair was made.
  const { cli, keyPasswordFile } = world
  const run = await cli(['keys', 'distribute', '--trust-new-members', '--json', '--key-password-file', keyPasswordFile])
  expect(run.json.at(-1)).toMatchObject({ type: 'distribution', handedOut: 4, skipped: 0 })
  for (const holder of ['current', 'previous'] as const) {
    expect((await listMissingFileKeys(anna.api, { holder, offset: 0 })).items).toEqual([])
  }
  const { node } = await requireRemote(anna.api, '/old/src/a')
  expect((await getFileKey(anna.api, node.id)).version).toBe('RSA-4096/AES-256-GCM')
  expect(await bob.download(['/old/src'], world.path('of-bob'))).toMatchObject({ transferred: 2, failed: [] })
})

test('a server that takes keys but keeps listing them does not make it run for ever', async () => {
  const anna = await world.client()
  await makeRoom(anna, 'loop')
  makeTree(world.path('one'), { f: 'x' })
  const item = { userId: 77, fileId: 88 }
  const container = { ...(await anna.keyring.containers())[0]!.publicKeyContainer }
  const { node } = await requireRemote(anna.api, '/old/src/a')
  const { body: own } = await anna.api.send({
    method: 'GET',
    url: `${anna.origin}/api/v4/nodes/files/${node.id}/user_file_key`,
  })
  const fileKeyContainer = JSON.parse(Buffer.from(own).toString('utf8'))
  const body = JSON.stringify({
    range: { offset: 0, limit: 100, total: 1 },
    items: [item],
    users: [{ id: 77, publicKeyContainer: container }],
    files: [{ id: 88, fileKeyContainer }],
  })
  const json = { 'Content-Type': 'application/json' }
  world.server.faults.add({ on: { path: '/missingFileKeys$' }, times: 99, do: { status: 200, headers: json, body } })
  world.server.faults.add({ on: { path: '/files/keys$' }, times: 99, do: { status: 204 } })
  const pins = createPins({ origin: anna.origin, clock: systemClock, trustNew: true })
  const keyring = createKeyring(anna.api, async () => KEY_PASSWORD, undefined, pins)
  await expect(distributeFileKeys(anna.api, keyring)).rejects.toMatchObject({ code: 'KEYS_NOT_TAKEN' })
  world.server.faults.clear()
})
