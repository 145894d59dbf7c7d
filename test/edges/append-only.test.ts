/**
 * Ransomware on a host whose account may only add: with the login of that host it calls every route that changes something, on everything it
 * can name, overwrites, renames, floods and gives its key pair away. Then all of the last good run is restored.
 */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { generateKeyPair, type KeyPairContainer } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { getNode, listChildren } from '../../src/api/nodes.ts'
import type { RemoteNode } from '../../src/api/wire.ts'
import type { BackupSetOptions } from '../../src/client/backups.ts'
import type { Client } from '../../src/client.ts'
import { addRoutes } from '../../src/server/routes/index.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { readRemoteTree } from '../../src/sync/tree.ts'
import { createWorld, giveKeyPair, makeTree, snapshot, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
let anna: Client
/** Where the private key of the host's account is. */
let keeper: Client
/** What a thief has: the login of the host, and its public key. */
let thief: Client
let set: BackupSetOptions
let source: string
/** The last good run. */
let good: string
let before: Record<string, string>
let stored: readonly RemoteNode[]

beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'web1'] })
  anna = await world.client('anna')
  keeper = await world.openClient({ directory: world.path('keeper') }, 'web1')
  await giveKeyPair(keeper, await generateKeyPair('RSA-4096'))
  await anna.rooms.changeMembers('/room', { add: [{ kind: 'user', name: 'web1', role: 'append' }] })
  thief = await world.openClient({ directory: world.path('host'), writeOnly: true }, 'web1')
  for (const file of [await keeper.keys.exportPublic(), await anna.keys.exportPublic()])
    await thief.keys.pinPublic(file, (await keeper.keys.readPublic(file)).fingerprint)
  source = world.path('source')
  makeTree(source, { 'a.txt': 'a', 'deep/b.bin': randomBytes(9_000_000), 'deep/c.txt': 'c' })
  set = { name: 'web1', target: '/room/web1', sources: [source] }
  await thief.backups.run(set)
  writeFileSync(join(source, 'a.txt'), 'second a')
  good = (await thief.backups.run(set)).run!
  before = snapshot(source)
  stored = await everything()
})
afterAll(async () => {
  await thief.close()
  await keeper.close()
  await world.close()
})
beforeEach(() => world.server.faults.clear())

/** All that is in the room, as its administrator sees it. */
async function everything(): Promise<RemoteNode[]> {
  const { node, roomId } = await requireRemote(anna.api, '/room')
  const below = (await readRemoteTree(anna.api, node, roomId)).map((entry) => entry.node)
  return [await getNode(anna.api, node.id), ...below]
}

const named = ({ id, type, name, parentId, size, isEncrypted }: RemoteNode) =>
  type === 'file' ? { id, type, name, parentId, size, isEncrypted } : { id, type, name, parentId, isEncrypted }

let restores = 0
/** Both who are trusted get all of the last good run, from the nodes that it was stored under. */
async function expectAllThere(): Promise<void> {
  for (const old of stored) expect(named(await getNode(anna.api, old.id))).toEqual(named(old))
  for (const client of [anna, keeper]) {
    const root = world.path(`back${++restores}`)
    const { failed, stoppedBy } = await client.backups.restore(set, root, { run: good })
    expect([stoppedBy, failed]).toEqual([undefined, []])
    expect(snapshot(join(root, source))).toEqual(before)
  }
}

/** Any request with the login of the host. */
async function ask(method: string, path: string, body?: unknown): Promise<{ status: number; text: string }> {
  const url = `${world.server.url}/api${path.replace(/^\/api/, '')}`
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }
  const send = () => thief.session.fetch(url, { method, ...json })
  // Some of what is asked for ends the login; a thief has the password, too.
  const response = await send().catch(async (error) => {
    if (error.class !== 'auth') throw error
    await thief.session.login()
    return send()
  })
  return { status: response.status, text: await response.text() }
}

const ALL = {
  manage: true,
  read: true,
  create: true,
  change: true,
  delete: true,
  manageDownloadShare: true,
  manageUploadShare: true,
  readRecycleBin: true,
  restoreRecycleBin: true,
  deleteRecycleBin: true,
}

test('no route that changes something destroys anything, whatever it is called with', async () => {
  const routes: string[] = []
  addRoutes({ add: (method: string, path: string) => void routes.push(`${method} ${path}`) } as never)
  const changing = routes.filter((route) => /^(?:POST|PUT|DELETE|PATCH) \/api\//.test(route))
  expect(changing.length).toBeGreaterThan(25)
  const ids = stored.map(({ id }) => id)
  const web1 = (await thief.whoami()).id
  const fileKey = { key: randomBytes(512).toString('base64'), iv: randomBytes(12).toString('base64') }
  const item = (id: number) => ({
    id,
    name: `ransom-${id}`,
    userId: web1,
    fileId: id,
    permissions: ALL,
    fileKey: { ...fileKey, tag: randomBytes(16).toString('base64'), version: 'RSA-4096/AES-256-GCM' },
  })
  const answers = new Map<string, Set<number>>()
  for (const route of changing) {
    const [method, path] = route.split(' ') as [string, string]
    for (const id of path.includes(':') ? ids : [ids[0]!]) {
      const body = {
        name: `ransom-${id}`,
        fileName: 'a.txt',
        parentId: ids[0],
        nodeIds: [id],
        deletedNodeIds: [id],
        ids: [id, web1],
        items: [item(id)],
        resolutionStrategy: 'overwrite',
        quota: 1,
        recycleBinRetentionPeriod: 0,
        isEncrypted: false,
        expireAt: '2026-01-01T00:00:00Z',
        expiration: { enableExpiration: true, expireAt: '2027-01-01T00:00:00Z' },
        timestampModification: '2001-01-01T00:00:00Z',
      }
      const url = `${path.replace(/:\w+/g, String(id))}?version=RSA-4096&use_key=room_rescue_key`
      const { status } = await ask(method, url, body)
      answers.set(route, (answers.get(route) ?? new Set()).add(status))
    }
  }
  await thief.session.login()
  const worst = [...answers].filter(([, statuses]) => [...statuses].some((status) => status >= 500))
  expect(worst).toEqual([])
  await expectAllThere()
}, 120_000)

test('it overwrites, renames, moves, copies over and deletes nothing', async () => {
  const file = stored.find(({ name, type }) => name === 'a.txt' && type === 'file')!
  const other = stored.find(({ name, type }) => name === 'c.txt' && type === 'file')!
  const folder = stored.find(({ name, type }) => name === 'deep' && type === 'folder')!
  const { node: runs } = await requireRemote(anna.api, '/room/web1/runs')
  for await (const manifest of listChildren(anna.api, runs.id)) {
    const put = thief.put(`/room/web1/runs/${manifest.name}`, Buffer.from('ransom'), { onConflict: 'overwrite' })
    expect(await errorOf(put)).toMatchObject({ class: 'permission' })
  }
  const forbidden: [string, string, unknown?][] = [
    ['DELETE', `/v4/nodes/${file.id}`],
    ['DELETE', `/v4/nodes/${folder.id}`],
    ['DELETE', '/v4/nodes', { nodeIds: [file.id] }],
    ['PUT', `/v4/nodes/files/${file.id}`, { name: 'ransom' }],
    ['PUT', `/v4/nodes/folders/${folder.id}`, { name: 'ransom' }],
    ['POST', `/v4/nodes/${runs.id}/move_to`, { items: [{ id: file.id }], resolutionStrategy: 'overwrite' }],
    [
      'POST',
      `/v4/nodes/${other.parentId}/copy_to`,
      { items: [{ id: file.id, name: 'c.txt' }], resolutionStrategy: 'overwrite' },
    ],
    ['GET', `/v4/nodes/${stored[0]!.id}/deleted_nodes`],
    ['DELETE', `/v4/nodes/${stored[0]!.id}/deleted_nodes`],
    ['DELETE', '/v4/user/account/keypair?version=RSA-4096'],
  ]
  for (const [method, path, body] of forbidden) {
    const { status, text } = await ask(method, path, body)
    // What cannot be copied without a key is refused before.
    expect([method, path, status, text]).toEqual([
      method,
      path,
      expect.toSatisfy((code) => code === 403 || code === 400),
      text,
    ])
  }
  await expectAllThere()
})

test('it cannot exchange the locked private key by pretending to renew it, nor spoil keys of others', async () => {
  const protection = () => ({ prf: 'SHA-1', iterations: 1000, salt: randomBytes(20), iv: randomBytes(16) }) as const
  const locked = async (version: 'A' | 'RSA-4096'): Promise<KeyPairContainer> =>
    lockWith(await generateKeyPair(version), 'ransom', protection())
  const [fresh, other] = [await locked('A'), await locked('RSA-4096')]
  const migration = { ...fresh, previousPrivateKey: other.privateKeyContainer }
  expect((await ask('POST', '/v4/user/account/keypairs', migration)).status).toBe(403)
  const { publicKeyContainer, privateKeyContainer } = JSON.parse((await ask('GET', '/v4/user/account/keypair')).text)
  const relocked = {
    publicKeyContainer,
    privateKeyContainer: other.privateKeyContainer,
    previousPrivateKey: privateKeyContainer,
  }
  expect((await ask('POST', '/v4/user/account/keypair', relocked)).status).toBe(403)
  const file = stored.find(({ name, type }) => name === 'a.txt' && type === 'file')!
  const key = await ask('GET', `/v4/nodes/files/${file.id}/user_file_key`)
  const garbage = { ...JSON.parse(key.text), key: randomBytes(512).toString('base64') }
  const { id: userId } = await anna.whoami()
  const given = await ask('POST', '/v4/nodes/files/keys', { items: [{ userId, fileId: file.id, fileKey: garbage }] })
  expect(given.status).toBe(204)
  await expectAllThere()
})

test('the address that a part was sent to takes nothing any more when the file is there', async () => {
  const folder = (await requireRemote(anna.api, '/room/web1')).node
  const opened = await ask('POST', '/v4/nodes/files/uploads', {
    parentId: folder.id,
    name: 'mine',
    size: 4,
    directS3Upload: true,
  })
  const { uploadId } = JSON.parse(opened.text)
  const urls = await ask('POST', `/v4/nodes/files/uploads/${uploadId}/s3_urls`, {
    size: 4,
    firstPartNumber: 1,
    lastPartNumber: 1,
  })
  const { url } = JSON.parse(urls.text).urls[0]
  const first = await fetch(url, { method: 'PUT', body: 'good' })
  const partEtag = first.headers.get('etag')!.replaceAll('"', '')
  const fileKey = {
    key: randomBytes(512).toString('base64'),
    iv: randomBytes(12).toString('base64'),
    tag: randomBytes(16).toString('base64'),
    version: 'RSA-4096/AES-256-GCM',
  }
  const parts = [{ partNumber: 1, partEtag }]
  const done = await ask('PUT', `/v4/nodes/files/uploads/${uploadId}/s3`, {
    parts,
    resolutionStrategy: 'fail',
    fileName: 'mine',
    fileKey,
  })
  expect(done.status).toBe(202)
  await expect
    .poll(async () => JSON.parse((await ask('GET', `/v4/nodes/files/uploads/${uploadId}`)).text).status)
    .toBe('done')
  expect((await fetch(url, { method: 'PUT', body: 'evil' })).status).toBeGreaterThanOrEqual(400)
  const { node } = JSON.parse((await ask('GET', `/v4/nodes/files/uploads/${uploadId}`)).text)
  const { downloadUrl } = JSON.parse((await ask('POST', `/v4/nodes/files/${node.id}/downloads`)).text)
  expect(await (await fetch(downloadUrl)).text()).toBe('good')
})

test('it can fill the room, up to its quota, and nothing makes way for that', async () => {
  const used = (await anna.stat('/room')).size ?? 0
  await anna.rooms.setQuota('/room', used + 3_000_000)
  let count = 0
  for (;;) {
    const put = thief.put(`/room/flood-${count}`, randomBytes(1_000_000))
    const error = await put.then(
      () => undefined,
      (thrown) => thrown,
    )
    if (error !== undefined) {
      expect(error).toMatchObject({ class: 'quota' })
      break
    }
    count++
    expect(count).toBeLessThan(4)
  }
  writeFileSync(join(source, 'late.bin'), randomBytes(1_000_000))
  const full = await thief.backups.run(set)
  expect(full.stoppedBy ?? full.failed[0]?.error).toMatchObject({ class: 'quota' })
  await expectAllThere()
  // Somebody who may clears what was put there, and the host goes on.
  await anna.remove(Array.from({ length: count }, (_, at) => `/room/flood-${at}`))
  await anna.rooms.setQuota('/room', 0)
  expect(await thief.backups.run(set)).toMatchObject({ failed: [], isComplete: true })
  await expectAllThere()
})
