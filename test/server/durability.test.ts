/**
 * What survives: a restart, and a process killed at any moment.
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { addUser, checkStore } from '../../src/server/index.ts'
import { freePort } from '../support/ports.ts'
import {
  ask,
  blobsIn,
  download,
  enter,
  fileKeyBody,
  freshDir,
  type Json,
  makeRoom,
  openUpload,
  type Person,
  signUp,
  startWorld,
  uploadClassic,
  type World,
} from './support.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CHILD = join(ROOT, 'node_modules/.cache/sealsync-test/server-child.mjs')

beforeAll(async () => {
  await mkdir(join(CHILD, '..'), { recursive: true })
  await build({
    stdin: {
      contents: `import { startServer } from './src/server/index.ts'
        const server = await startServer({ data: process.argv[2] })
        process.stdout.write(server.url + '\\n')`,
      resolveDir: ROOT,
      loader: 'ts',
    },
    bundle: true,
    platform: 'node',
    format: 'esm',
    external: ['lmdb'],
    outfile: CHILD,
    logLevel: 'error',
  })
})

/** A server in a process of its own, so that it can be killed. */
async function spawnServer(dir: string): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [CHILD, dir], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout?.once('data', (data: Buffer) => resolve(data.toString().trim()))
    child.once('exit', (code) => reject(new Error(`server ended with ${code}`)))
  })
  return { child, url }
}

const killed = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    child.once('exit', () => resolve())
    child.kill('SIGKILL')
  })

test('a clean restart keeps users, tokens, rooms, files, keys and the bin', async () => {
  const dataDir = await freshDir()
  const first = await startWorld({ data: dataDir, port: await freePort() })
  const ann = await signUp(first, 'ann')
  const room = await makeRoom(ann, 'Enc', true)
  const key = fileKeyBody()
  const bytes = randomBytes(100_000)
  const { json: node } = await uploadClassic(ann, room, 'f', bytes, { fileKey: key })
  const { json: gone } = await uploadClassic(ann, room, 'g', Buffer.from('x'), { fileKey: key })
  await ann.call('DELETE', `/v4/nodes/${gone.id}`)
  const before = (await ann.call('GET', `/v4/nodes/${node.id}`)).json
  const { downloadUrl } = (await ann.call('POST', `/v4/nodes/files/${node.id}/downloads`)).json
  await first.server.close()
  expect((await stat(dataDir)).mode & 0o777).toBe(0o700)
  const second = await startWorld({ data: dataDir, port: first.server.port })
  const call = (path: string) => ask(`${second.api}${path}`, { token: ann.token })
  expect((await call(`/v4/nodes/${node.id}`)).json).toEqual(before)
  expect((await ask(downloadUrl)).body.equals(bytes)).toBe(true)
  expect((await call(`/v4/nodes/files/${node.id}/user_file_key`)).json).toEqual(key)
  expect((await call(`/v4/nodes/${room}/deleted_nodes`)).json.items[0].lastDeletedNodeId).toBe(gone.id)
  const again: World = second
  expect((await enter(again, ann.id, 'ann')).token).toBeTruthy()
})

test('secrets on disk: no token, no password, no plain file of the client', async () => {
  const dataDir = await freshDir()
  const world = await startWorld({ data: dataDir })
  const ann = await signUp(world, 'ann')
  await world.server.close()
  const { readFile } = await import('node:fs/promises')
  const bytes = await readFile(join(dataDir, 'db', 'data.mdb'))
  expect(bytes.includes(Buffer.from('userNames'))).toBe(true)
  for (const secret of [ann.token, ann.refreshToken, 'ann-pw']) expect(bytes.includes(Buffer.from(secret))).toBe(false)
})

test('open uploads end with a restart; what they and others left is moved aside when that is said, live files stay', async () => {
  const dataDir = await freshDir()
  const first = await startWorld({ data: dataDir })
  const ann = await signUp(first, 'ann')
  const room = await makeRoom(ann, 'R')
  const bytes = randomBytes(50_000)
  const { json: node } = await uploadClassic(ann, room, 'f', bytes)
  const { uploadUrl, uploadId } = await openUpload(ann, room, 'open')
  await ask(uploadUrl, { method: 'POST', body: randomBytes(60_000) })
  await writeFile(join(dataDir, 'blobs', 'stray-1'), 'x')
  expect(await blobsIn(dataDir)).toHaveLength(3)
  await first.server.close()
  const second = await startWorld({ data: dataDir })
  const again = await enter(second, ann.id, 'ann')
  expect(await blobsIn(dataDir)).toHaveLength(3)
  expect(await checkStore(dataDir)).toMatchObject({ strays: 2, setAside: 0, problems: [] })
  expect(await checkStore(dataDir, { repair: true })).toMatchObject({ strays: 2, setAside: 2, problems: [] })
  expect(await blobsIn(dataDir)).toHaveLength(1)
  expect(await readdir(join(dataDir, 'blobs', '.strays'))).toHaveLength(2)
  expect((await download(again, node.id)).body.equals(bytes)).toBe(true)
  expect((await again.call('GET', `/v4/nodes/files/uploads/${uploadId}`)).json.errorCode).toBe(-20501)
})

/** Uploads and overwrites until the server dies; tells what was confirmed. */
async function work(
  person: Person,
  room: number,
  lane: number,
  confirmed: Map<string, string>,
  onConfirmed: () => void,
): Promise<void> {
  for (let n = 0; ; n++) {
    const name = `lane${lane}-${n % 6}`
    const bytes = randomBytes(n % 2 === 0 ? 500 : 40_000)
    try {
      // Between asking and knowing, either content is right.
      confirmed.delete(name)
      const reply = await uploadClassic(person, room, name, bytes, { resolutionStrategy: 'overwrite' })
      if (reply.status !== 201) throw new Error(`refused: ${reply.status} ${reply.body}`)
      confirmed.set(name, createHash('sha256').update(bytes).digest('hex'))
      onConfirmed()
    } catch (error) {
      if (String(error).includes('refused')) throw error
      return
    }
  }
}

test('killed while busy, four times: everything confirmed is there, nothing is half there', async () => {
  const dir = await freshDir()
  await addUser(dir, { name: 'ann', password: 'ann-pw' })
  const confirmed = new Map<string, string>()
  let room = 0
  for (const uploads of [1, 4, 9, 16]) {
    const { child, url } = await spawnServer(dir)
    const world = { dir, api: `${url}/api`, server: { url } } as World
    const ann = await enter(world, 1, 'ann')
    if (room === 0) room = await makeRoom(ann, 'R')
    let left = uploads
    let lanes: Promise<void>[] = []
    await new Promise<void>((resolve) => {
      const onConfirmed = () => --left === 0 && resolve()
      lanes = [0, 1, 2, 3].map((lane) => work(ann, room, lane, confirmed, onConfirmed))
    })
    await killed(child)
    await Promise.all(lanes)
    const checked = await startWorld({ data: dir })
    await check(await enter(checked, 1, 'ann'), room, confirmed, dir)
    await checked.server.close()
  }
  expect(confirmed.size).toBeGreaterThan(0)
})

async function check(person: Person, room: number, confirmed: Map<string, string>, dir: string): Promise<void> {
  const { items, range } = (await person.call('GET', `/v4/nodes?parent_id=${room}`)).json
  expect(items.length).toBe(range.total)
  const sizes: number[] = items.map((node: Json) => node.size)
  const container = (await person.call('GET', `/v4/nodes/${room}`)).json
  expect(container).toMatchObject({ cntFiles: items.length, size: sizes.reduce((sum, size) => sum + size, 0) })
  const byName = new Map<string, Json>(items.map((node: Json) => [node.name, node]))
  for (const [name, digest] of confirmed) {
    const node = byName.get(name)
    expect(node, name).toBeDefined()
    const { body } = await download(person, node.id)
    expect(createHash('sha256').update(body).digest('hex'), name).toBe(digest)
  }
  for (const node of items) expect((await download(person, node.id)).body.length).toBe(node.size)
  const bin = (await person.call('GET', `/v4/nodes/${room}/deleted_nodes`)).json.items
  let large = sizes.filter((size) => size > 16_384).length
  for (const { name } of bin) {
    const versions = (await person.call('GET', `/v4/nodes/${room}/deleted_nodes/versions?type=file&name=${name}`)).json
    large += versions.items.filter((item: Json) => item.size > 16_384).length
  }
  expect((await checkStore(dir, { repair: true })).problems).toEqual([])
  expect(await blobsIn(dir)).toHaveLength(large)
}

/** Makes, keeps, uses and revokes links and file requests until the server dies. Tells which files are confirmed. */
async function shareWork(person: Person, world: World, room: number, lane: number, done: (name: string) => void) {
  for (let n = 0; ; n++) {
    try {
      const name = `shared${lane}`
      const overwrite = { resolutionStrategy: 'overwrite', keepShareLinks: n % 2 === 0 }
      const file = await uploadClassic(person, room, name, randomBytes(100), overwrite)
      const link = await person.call('POST', '/v4/shares/downloads', { nodeId: file.json.id, maxDownloads: 2 })
      const { downloadUrl } = (
        await ask(`${world.api}/v4/public/shares/downloads/${link.json.accessKey}`, { method: 'POST' })
      ).json
      await ask(downloadUrl)
      const box = await person.call('POST', '/v4/shares/uploads', { targetId: room, maxSlots: 2 })
      const sent = await ask(`${world.api}/v4/public/shares/uploads/${box.json.accessKey}`, {
        method: 'POST',
        json: { name: `sent${lane}-${n}`, size: 40_000 },
      })
      await ask(sent.json.uploadUrl, { method: 'POST', body: randomBytes(40_000) })
      if ((await ask(sent.json.uploadUrl, { method: 'PUT' })).status === 201) done(`sent${lane}-${n}`)
      if (n % 3 === 0) await person.call('DELETE', `/v4/shares/uploads/${box.json.id}`)
      if (n % 4 === 1) await person.call('DELETE', `/v4/nodes/${file.json.id}`)
    } catch {
      return
    }
  }
}

test('killed while links and file requests are busy: what is there is whole', async () => {
  const dir = await freshDir()
  await addUser(dir, { name: 'ann', password: 'ann-pw' })
  const confirmed = new Set<string>()
  let room = 0
  for (const count of [1, 5, 12]) {
    const { child, url } = await spawnServer(dir)
    const world = { dir, api: `${url}/api`, server: { url } } as World
    const ann = await enter(world, 1, 'ann')
    if (room === 0) room = await makeRoom(ann, 'R')
    let left = count
    let lanes: Promise<void>[] = []
    await new Promise<void>((resolve) => {
      const done = (name: string) => {
        confirmed.add(name)
        if (--left === 0) resolve()
      }
      lanes = [0, 1, 2].map((lane) => shareWork(ann, world, room, lane + 10 * count, done))
    })
    await killed(child)
    await Promise.all(lanes)
    expect((await checkStore(dir, { readContent: true })).problems).toEqual([])
    const checked = await startWorld({ data: dir })
    const person = await enter(checked, 1, 'ann')
    const names = (await person.call('GET', `/v4/nodes?parent_id=${room}`)).json.items.map((node: Json) => node.name)
    for (const name of confirmed) expect(names).toContain(name)
    await checked.server.close()
  }
})

test('accounts can be added while the server runs in another process', async () => {
  const dir = await freshDir()
  const { url } = await spawnServer(dir)
  const world = { dir, api: `${url}/api`, server: { url } } as World
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  expect(bob.id).toBe(ann.id + 1)
  expect((await bob.call('GET', '/v4/user/account')).json.userName).toBe('bob')
})
