/**
 * The command line against an object store that misbehaves: it gets through where it can, says why where it cannot, and
 * leaves nothing half-stored.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'
import { type S3Server, startS3Server } from '../support/s3-server.ts'

const MIB = 1024 * 1024

let store: S3Server
let world: World
let expected = 0
beforeAll(async () => {
  store = await startS3Server()
  world = await createWorld({ s3: store.options })
})
afterAll(async () => {
  await world?.close()
  await store?.stop()
})

/** After every test: one object for each file that is there, and no upload under way. */
afterEach(async () => {
  store.calm()
  await expect.poll(() => [store.uploads.size, store.objects.size]).toEqual([0, expected])
})

let counter = 0
async function upload(
  files: Record<string, Uint8Array>,
  during?: (child: { kill(signal: NodeJS.Signals): boolean }) => Promise<void>,
) {
  const name = `scene${++counter}`
  makeTree(world.path(name), files)
  const run = await world.transfer(
    ['upload', world.path(name), '/room', '--part-size', '5M'],
    during === undefined ? {} : { during },
  )
  expected += run.summary.transferred
  return { run, name }
}

const expectTree = (name: string) => expect(snapshot(world.path('out', name))).toEqual(snapshot(world.path(name)))

async function expectSame(name: string): Promise<void> {
  const client = await world.client()
  expect(await client.download([`/room/${name}`], `${world.path('out')}/`)).toMatchObject({
    transferred: 1,
    failed: [],
  })
  expectTree(name)
}

const twoParts = () => ({ file: randomBytes(5 * MIB + 5) })

test.each([
  ['a presigned URL that has expired: another one is fetched', { status: 403, code: 'AccessDenied' }, 1],
  ['a busy store', { status: 503, code: 'SlowDown' }, 2],
  ['a busy store that says how long', { status: 503, code: 'SlowDown', headers: { 'retry-after': '0' } }, 2],
  ['connections that break before anything is stored', { cut: true }, 2],
  ['answers that are lost', { loseAnswer: true }, 2],
] as const)('upload through %s', async (_what, fault, times) => {
  store.fail('UploadPart', fault, times)
  const before = store.log.length
  const { run, name } = await upload(twoParts())
  expect(run.summary, run.stderr).toMatchObject({ exitCode: 0, transferred: 1 })
  const parts = store.log.slice(before).filter(({ operation }) => operation === 'UploadPart')
  expect(parts).toHaveLength(2 + times)
  await expectSame(name)
})

test('clocks 14 minutes apart are fine; when the store refuses every URL, that is said, and nothing stays', async () => {
  store.clockAheadMs = 14 * 60_000
  expect((await upload(twoParts())).run.summary.exitCode).toBe(0)
  store.fail('UploadPart', { status: 403, code: 'AccessDenied' }, 100)
  const { run } = await upload(twoParts())
  store.clockAheadMs = 0
  expect(run.summary.exitCode).toBe(3)
  expect(run.summary.failed.map(({ code }) => code)).toEqual(['STORAGE_REFUSED'])
  expect(run.stdout + run.stderr).not.toMatch(/X-Amz|Signature/)
})

test.each([
  ['creating', 'CreateMultipartUpload', { status: 503, code: 'SlowDown' }],
  ['listing', 'ListParts', { cut: true }],
  ['completing', 'CompleteMultipartUpload', { loseAnswer: true }],
] as const)('trouble of the server with the store while %s goes unnoticed', async (_what, operation, fault) => {
  store.fail(operation, fault, 2)
  const { run, name } = await upload(twoParts())
  expect(run.summary, run.stderr).toMatchObject({ exitCode: 0, transferred: 1 })
  await expectSame(name)
})

test.each([
  ['a URL that has expired', { status: 403, code: 'AccessDenied' }],
  ['a busy store', { status: 503, code: 'SlowDown' }],
  ['content that breaks off', { cutAfterBytes: 3 * MIB }],
  ['a broken connection', { cut: true }],
] as const)('download through %s', async (_what, fault) => {
  const { run, name } = await upload(twoParts())
  expect(run.summary, run.stderr).toMatchObject({ exitCode: 0, transferred: 1 })
  store.fail('GetObject', fault, 1)
  const down = await world.transfer(['download', `/room/${name}`, `${world.path('out')}/`])
  expect(down.summary, down.stderr).toMatchObject({ exitCode: 0, failed: [] })
  expectTree(name)
})

test('a changed byte at the store is found: 7, and nothing is kept', async () => {
  const { name } = await upload({ file: randomBytes(20_000) })
  const bytes = [...store.objects.values()].at(-1)!
  bytes[10_000]! ^= 1
  const down = await world.transfer(['download', `/room/${name}`, `${world.path('changed')}/`])
  expect(down.summary.exitCode).toBe(7)
  expect(snapshot(world.path('changed', name))).toEqual({})
})

test('a wrong ETag: the file is not made, and the upload is given up', async () => {
  store.fail('UploadPart', { wrongEtag: true }, 100)
  const { run, name } = await upload({ file: randomBytes(1000) })
  expect(run.summary).toMatchObject({ transferred: 0 })
  expect(run.summary.exitCode).not.toBe(0)
  expect(await world.list(`/room/${name}`)).toEqual([])
})

test('Ctrl-C in the middle of a part leaves the multipart upload for the next run, which ends it', async () => {
  const hung = new Promise<void>((resolve) => store.fail('UploadPart', { hang: resolve }))
  const { run, name } = await upload(twoParts(), async (child) => {
    await hung
    child.kill('SIGINT')
  })
  expect(run.code).toBe(130)
  expect(await world.list(`/room/${name}`)).toEqual([])
  expect(store.uploads.size).toBe(1)
  store.calm()
  const again = await world.transfer(['upload', world.path(name), '/room'])
  expected += again.summary.transferred
  expect(again.summary).toMatchObject({ exitCode: 0, transferred: 1 })
  await expectSame(name)
})

test('the store goes away: 5, no file, and all is well when it is back', async () => {
  await store.stop()
  const { run, name } = await upload({ file: randomBytes(1000) })
  await store.start()
  expect(run.summary).toMatchObject({ exitCode: 5, transferred: 0 })
  expect(run.stdout + run.stderr).not.toMatch(/X-Amz|Signature/)
  expect(await world.list(`/room/${name}`)).toEqual([])
  const again = await world.transfer(['upload', world.path(name), '/room'])
  expected += again.summary.transferred
  expect(again.summary).toMatchObject({ exitCode: 0, transferred: 1 })
  await expectSame(name)
})
