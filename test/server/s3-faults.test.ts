/**
 * An object store that refuses, stalls, cuts and forgets, and a server that stops at the wrong moment: what is left at the
 * store afterwards is what nodes refer to, and nothing else. Here clients are plain requests; s3-client-faults.test.ts has
 * the command line.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { BlobFiles } from '../../src/server/blob-files.ts'
import type { ServerOptions } from '../../src/server/index.ts'
import { ObjectStore } from '../../src/server/s3/objects.ts'
import { openStore } from '../../src/server/store.ts'
import { type S3Server, startS3Server } from '../support/s3-server.ts'
import {
  ask,
  download,
  enter,
  finishDirect,
  type Json,
  makeRoom,
  openUpload,
  type Person,
  partUrl,
  settled,
  signUp,
  startWorld,
  uploadDirect,
  type World,
} from './support.ts'

const MIB = 1024 * 1024
const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex')

afterEach(() => vi.useRealTimers())

interface Scene {
  store: S3Server
  world: World
  ann: Person
  room: number
  errors: unknown[]
}

async function startStore(): Promise<S3Server> {
  const store = await startS3Server()
  onTestFinished(() => store.stop())
  return store
}

async function scene(options: Partial<ServerOptions> = {}): Promise<Scene> {
  const store = await startStore()
  const errors: unknown[] = []
  const world = await startWorld({ s3: store.options, onError: (error) => errors.push(error), ...options })
  const ann = await signUp(world, 'ann')
  return { store, world, ann, room: await makeRoom(ann, 'R'), errors }
}

/** The same directory with a new server, and a login there. */
async function restart({ store, world, ann }: Scene): Promise<{ world: World; ann: Person }> {
  await world.server.close()
  const next = await startWorld({ data: world.dir, s3: store.options })
  return { world: next, ann: await enter(next, ann.id, 'ann') }
}

const expectNothing = async (store: S3Server): Promise<void> => {
  await expect.poll(() => [store.uploads.size, store.objects.size]).toEqual([0, 0])
}

/** Opens an upload and puts its parts; answers the list to finish it with. */
async function sendParts({ ann, room }: Scene, name: string, parts: readonly Uint8Array[]) {
  const { uploadId } = await openUpload(ann, room, name, { directS3Upload: true })
  const list: Json[] = []
  for (const [index, bytes] of parts.entries()) {
    const sent = await ask(await partUrl(ann, uploadId, index + 1, bytes.length), { method: 'PUT', body: bytes })
    expect(sent.status).toBe(200)
    list.push({ partNumber: index + 1, partEtag: String(sent.headers.etag) })
  }
  const finish = (more: Json = {}) => finishDirect(ann, uploadId, { parts: list, ...more })
  return { uploadId, list, finish }
}

const listed = async ({ ann, room }: Scene): Promise<string[]> =>
  (await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.items.map((node: Json) => node.name)

test('part URLs: the announced length, this upload, until they run out', async () => {
  const one = await scene({ urlLifetimeS: 60 })
  const { ann, room, store } = one
  const { uploadId } = await openUpload(ann, room, 'f', { directS3Upload: true })
  const url = await partUrl(ann, uploadId, 1, 10)
  const put = async (target: string, bytes = Buffer.alloc(10)) => {
    const { status, body } = await ask(target, { method: 'PUT', body: bytes })
    return [status, /<Code>(.*)<\/Code>/.exec(body.toString())?.[1]]
  }
  expect(await put(url, Buffer.alloc(11))).toEqual([403, 'SignatureDoesNotMatch'])
  expect(await put(url.replace('partNumber=1', 'partNumber=2'))).toEqual([403, 'SignatureDoesNotMatch'])
  expect(await put(url.replace('X-Amz-Expires=60', 'X-Amz-Expires=600'))).toEqual([403, 'SignatureDoesNotMatch'])
  store.clockAheadMs = 61_000
  expect(await put(url)).toEqual([403, 'AccessDenied'])
  store.clockAheadMs = 0
  expect(await put(await partUrl(ann, uploadId, 1, 10))).toEqual([200, undefined])
  expect((await ann.call('DELETE', `/v4/nodes/files/uploads/${uploadId}`)).status).toBe(204)
  await expectNothing(store)
  expect(await put(url)).toEqual([404, 'NoSuchUpload'])
})

test('parts that are not what is there: the codes of the API, and nothing is put together', async () => {
  const one = await scene()
  one.store.pageSize = 1
  const { uploadId, finish, list } = await sendParts(one, 'f', [randomBytes(5 * MIB), randomBytes(20)])
  const refused = async (parts: Json) => (await finish({ parts })).json
  const wrong = { partNumber: 2, partEtag: '0'.repeat(32) }
  expect(await refused([wrong])).toMatchObject({ code: 400, errorCode: -80045 })
  expect(await refused([{ ...list[0], partNumber: 3 }])).toMatchObject({ code: 400, errorCode: -80045 })
  expect(await refused([list[0], list[0]])).toMatchObject({ code: 400, errorCode: -80045 })
  expect(await refused(list.toReversed())).toMatchObject({ code: 400, errorCode: -80046 })
  expect((await one.ann.call('GET', `/v4/nodes/files/uploads/${uploadId}`)).json).toEqual({ status: 'transfer' })
  expect(one.store.objects.size).toBe(0)
  // One part alone is as good as it was.
  expect((await finish({ parts: [list[1]] })).status).toBe(202)
  expect((await settled(one.ann, uploadId)).node.size).toBe(20)
  expect(one.store.uploads.size).toBe(0)
})

test('long lists of parts come in pages; the hash of one part is its MD5, except under a key service', async () => {
  const one = await scene()
  one.store.pageSize = 1
  const parts = [randomBytes(5 * MIB), randomBytes(5 * MIB), randomBytes(3)]
  const { uploadId, finish } = await sendParts(one, 'three', parts)
  expect((await finish()).status).toBe(202)
  const { node } = await settled(one.ann, uploadId)
  expect(node).not.toHaveProperty('hash')
  expect((await download(one.ann, node.id)).body.equals(Buffer.concat(parts))).toBe(true)
  const single = await uploadDirect(one.ann, one.room, 'single', [parts[2]!])
  expect((await settled(one.ann, single.uploadId)).node.hash).toBe(md5(parts[2]!))
  one.store.fail('CreateMultipartUpload', { headers: { 'x-amz-server-side-encryption': 'aws:kms' } })
  const sealed = await uploadDirect(one.ann, one.room, 'sealed', [parts[2]!])
  expect((await settled(one.ann, sealed.uploadId)).node).not.toHaveProperty('hash')
})

test('a finish that the room refuses can be done differently; cancelled after that, its object goes', async () => {
  const one = await scene()
  await uploadDirect(one.ann, one.room, 'taken', [Buffer.from('1')])
  const second = await sendParts(one, 'taken', [Buffer.from('22')])
  expect((await second.finish({ resolutionStrategy: 'fail' })).json).toMatchObject({ code: 409, errorCode: -41001 })
  expect((await second.finish({ resolutionStrategy: 'autorename' })).status).toBe(202)
  expect((await settled(one.ann, second.uploadId)).node.name).toBe('taken (1)')
  const third = await sendParts(one, 'taken', [Buffer.from('333')])
  expect((await third.finish({ resolutionStrategy: 'fail' })).status).toBe(409)
  expect(one.store.objects.size).toBe(3)
  await one.ann.call('DELETE', `/v4/nodes/files/uploads/${third.uploadId}`)
  await expect.poll(() => one.store.objects.size).toBe(2)
  expect(await listed(one)).toEqual(['taken', 'taken (1)'])
})

test.each([
  ['its answer is lost', { loseAnswer: true }],
  ['its answer breaks off', { cutAfterBytes: 20 }],
  ['the connection breaks first', { cut: true }],
  ['the store is busy', { status: 503, code: 'SlowDown' }],
  ['the store fails', { status: 500, code: 'InternalError' }],
  ['the store fails after its 200', { lateError: 'InternalError' }],
  ['a gateway answers', { garbage: '<html><body>Bad gateway</body></html>' }],
] as const)('completing while %s', async (_what, fault) => {
  const one = await scene()
  const { uploadId, finish } = await sendParts(one, 'f', [Buffer.from('content')])
  one.store.fail('CompleteMultipartUpload', fault, 2)
  // What no store says is not repeated on our own, but the client may finish again.
  const replies = 'garbage' in fault ? [502, 502, 202] : [202]
  for (const status of replies) expect((await finish()).status).toBe(status)
  const { node } = await settled(one.ann, uploadId)
  expect((await download(one.ann, node.id)).body.toString()).toBe('content')
  expect([one.store.uploads.size, one.store.objects.size]).toEqual([0, 1])
})

test('completing fails for good: an error, no node, and the client may try again or give up', async () => {
  const one = await scene()
  const first = await sendParts(one, 'f', [Buffer.from('content')])
  one.store.fail('CompleteMultipartUpload', { loseAnswer: true }, 1)
  one.store.fail('CompleteMultipartUpload', { cut: true }, 3)
  expect((await first.finish()).json).toMatchObject({ code: 504, errorCode: -90027 })
  expect(await listed(one)).toEqual([])
  // It had happened: finishing again finds the object.
  expect((await first.finish()).status).toBe(202)
  expect(await listed(one)).toEqual(['f'])
  const second = await sendParts(one, 'g', [Buffer.from('more')])
  one.store.fail('CompleteMultipartUpload', { status: 403, code: 'AccessDenied' })
  expect((await second.finish()).json).toMatchObject({ code: 502, errorCode: -90027 })
  await one.ann.call('DELETE', `/v4/nodes/files/uploads/${second.uploadId}`)
  await expect.poll(() => [one.store.uploads.size, one.store.objects.size]).toEqual([0, 1])
  const third = await sendParts(one, 'h', [Buffer.from('more')])
  one.store.uploads.clear()
  expect((await third.finish()).json).toMatchObject({ code: 404, errorCode: -90034 })
  expect(await listed(one)).toEqual(['f'])
})

test('a finish that takes long is answered early, and its failure shows in the status', async () => {
  const store = await startStore()
  const errors: unknown[] = []
  const world = await startWorld({ s3: { ...store.options, timeoutMs: 300 }, onError: (error) => errors.push(error) })
  const ann = await signUp(world, 'ann')
  const one = { store, world, ann, room: await makeRoom(ann, 'R'), errors }
  const { uploadId, list, finish } = await sendParts(one, 'f', [Buffer.from('content')])
  // Longer than the server waits before it answers.
  store.fail('CompleteMultipartUpload', { hang: () => {} }, 4)
  expect((await ann.call('PUT', `/v4/nodes/files/uploads/${uploadId}/s3`, { parts: list })).status).toBe(202)
  await expect.poll(() => errors.length).toBe(1)
  expect(await settled(ann, uploadId)).toMatchObject({
    status: 'error',
    errorDetails: { code: 504, errorCode: -90027 },
  })
  expect((await finish()).status).toBe(202)
  expect(await settled(ann, uploadId)).toMatchObject({ status: 'done', node: { size: 7 } })
})

test('no answer from the store: 504, the operator is told without secrets, and the next start cleans up', async () => {
  const one = await scene()
  const opened = await sendParts(one, 'open', [Buffer.from('part')])
  await one.store.stop()
  const open = await one.ann.call('POST', '/v4/nodes/files/uploads', {
    parentId: one.room,
    name: 'x',
    directS3Upload: true,
  })
  expect(open.json).toMatchObject({ code: 504, errorCode: -90027 })
  expect((await opened.finish()).json).toMatchObject({ code: 504, errorCode: -90027 })
  await one.ann.call('DELETE', `/v4/nodes/files/uploads/${opened.uploadId}`)
  expect(await listed(one)).toEqual([])
  const told = one.errors.map((error) => `${error} ${(error as Error).cause}`).join('\n')
  expect(told).toContain('CreateMultipartUpload: no answer (ECONNREFUSED)')
  expect(told).not.toContain(one.store.options.secretAccessKey)
  expect(told).not.toMatch(/X-Amz|Signature|sealsync\//)
  await one.store.start()
  expect(one.store.uploads.size).toBe(1)
  await restart(one)
  await expectNothing(one.store)
})

test('a store that says nothing at all does not hold a request for ever', async () => {
  const store = await startStore()
  const world = await startWorld({ s3: { ...store.options, timeoutMs: 500 } })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  store.fail('CreateMultipartUpload', { hang: () => {} })
  const body = { parentId: room, name: 'x', directS3Upload: true }
  expect((await ann.call('POST', '/v4/nodes/files/uploads', body)).json).toMatchObject({ code: 504, errorCode: -90027 })
  expect((await ann.call('POST', '/v4/nodes/files/uploads', body)).status).toBe(201)
})

test('opening while the store is busy or confused', async () => {
  const one = await scene()
  one.store.fail('CreateMultipartUpload', { status: 503, code: 'SlowDown' }, 2)
  await openUpload(one.ann, one.room, 'a', { directS3Upload: true })
  for (const garbage of ['<InitiateMultipartUploadResult/>', '<!DOCTYPE x><x/>', '{}', '']) {
    one.store.fail('CreateMultipartUpload', { garbage })
    const body = { parentId: one.room, name: 'x', directS3Upload: true }
    expect((await one.ann.call('POST', '/v4/nodes/files/uploads', body)).json).toMatchObject({ errorCode: -90027 })
  }
  // Done, but nobody knows its id: it is found by its name.
  one.store.fail('CreateMultipartUpload', { loseAnswer: true })
  const lost = await one.ann.call('POST', '/v4/nodes/files/uploads', {
    parentId: one.room,
    name: 'x',
    directS3Upload: true,
  })
  expect(lost.json).toMatchObject({ code: 504, errorCode: -90027 })
  await expect.poll(() => one.store.uploads.size).toBe(1)
})

test('a restart in the middle leaves nothing of open uploads, put together or not, known by id or not', async () => {
  const one = await scene()
  const kept = await uploadDirect(one.ann, one.room, 'kept', [Buffer.from('kept')])
  await settled(one.ann, kept.uploadId)
  const open = await sendParts(one, 'open', [randomBytes(100)])
  const refused = await sendParts(one, 'kept', [Buffer.from('22')])
  expect((await refused.finish({ resolutionStrategy: 'fail' })).status).toBe(409)
  await one.world.server.close()
  // As a crash between the two steps of opening leaves it.
  const objects = new ObjectStore(one.store.options, Date.now)
  await objects.createUpload('sealsync/unknown')
  await objects.createUpload('sealsync/unknown')
  await objects.createUpload('somebody/else')
  objects.close()
  const records = await openStore(one.world.dir, new BlobFiles(one.world.dir), { isServed: true })
  await records.write((tx) => tx.put(records.strays, 'unknown', {}))
  await records.close()
  expect([one.store.uploads.size, one.store.objects.size]).toEqual([4, 2])
  const { ann } = await restart(one)
  expect([...one.store.uploads.values()].map(({ key }) => key)).toEqual(['somebody/else'])
  // Put together, and no node: newer metadata might know it, so it stays for two days.
  expect(one.store.objects.size).toBe(2)
  for (const { uploadId } of [open, refused]) {
    expect((await ann.call('GET', `/v4/nodes/files/uploads/${uploadId}`)).json.errorCode).toBe(-20501)
  }
  expect(await listed({ ...one, ann })).toEqual(['kept'])
})

test('what could not be removed is removed later; an upload that nobody continues ends after a day', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  let now = Date.now()
  const one = await scene({ clock: { now: () => now } })
  const { uploadId } = await uploadDirect(one.ann, one.room, 'f', [Buffer.from('f')])
  const { node } = await settled(one.ann, uploadId)
  await one.ann.call('DELETE', `/v4/nodes/${node.id}`)
  one.store.fail('DeleteObject', { status: 403, code: 'AccessDenied' })
  expect((await one.ann.call('DELETE', `/v4/nodes/${one.room}/deleted_nodes`)).status).toBe(204)
  await expect.poll(() => one.errors.length).toBe(1)
  expect(one.store.objects.size).toBe(1)
  await openUpload(one.ann, one.room, 'idle', { directS3Upload: true })
  vi.advanceTimersByTime(600_000)
  await expect.poll(() => one.store.objects.size).toBe(0)
  expect(one.store.uploads.size).toBe(1)
  now += 25 * 3_600_000
  one.store.clockAheadMs = 25 * 3_600_000
  vi.advanceTimersByTime(600_000)
  await expectNothing(one.store)
})
