/** What a later run does with an upload that was left in the middle of its last step. */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Client, createClient } from '../../src/client.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { transferPair } from '../../src/sync/jobs/transfer.ts'
import { journalOf } from '../../src/sync/run-job.ts'
import { stateDirectory } from '../../src/sync/state.ts'
import {
  accountPassword,
  createWorld,
  KEY_PASSWORD,
  makeRoom,
  makeTree,
  snapshot,
  user1,
  type World,
} from '../support/cli.ts'
import { fakeClock } from '../support/clock.ts'
import { UploadWatch } from '../support/upload-watch.ts'

const SIZE = 11 * 1024 * 1024
const STATUS = { method: 'GET', path: '/files/uploads/[^/]+$' }
const COMPLETE = { method: 'PUT', path: '/uploads/[^/]+/s3$' }
const json = { 'Content-Type': 'application/json' }
const watch = new UploadWatch()

const worlds: Partial<Record<'s3' | 'classic', World>> = {}
let client: Client
beforeAll(async () => {
  worlds.s3 = await createWorld({ recorder: watch })
  client = await fastClient(worlds.s3)
})
afterAll(async () => {
  await client.close()
  for (const world of Object.values(worlds)) await world.close()
})
beforeEach(() => watch.reset())
afterEach(() => {
  worlds.s3?.server.faults.clear()
  expect(watch.conflicts).toEqual([])
})

/** One whose waits take no time. */
async function fastClient(world: World): Promise<Client> {
  const made = createClient(world.server.url, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
    keyPassword: async () => KEY_PASSWORD,
    environment: { clock: fakeClock() },
  })
  await made.session.login()
  return made
}

let counter = 0
function scene(world: World, using: Client, into = '/room') {
  const name = `case${++counter}`
  makeTree(world.path(name), { 'sub/big': randomBytes(SIZE) })
  const state = { directory: world.path('states'), account: 'anna' }
  const pair = transferPair('upload', [world.path(name)], { target: into }, state)
  const journal = journalOf(stateDirectory(state.directory, pair))
  return {
    source: world.path(name),
    target: `/room/${name}`,
    state,
    journal,
    begun: () => readFileSync(journal, 'utf8'),
    run: (signal?: AbortSignal) =>
      using.upload([world.path(name)], '/room', {
        state,
        partSize: 5 * 1024 * 1024,
        ...(signal === undefined ? {} : { signal }),
      }),
    async expectArrived() {
      const out = world.path(`${name}-out`)
      expect(await using.download([`/room/${name}`], `${out}/`)).toMatchObject({ transferred: 1, failed: [] })
      expect(snapshot(out)).toEqual({ [`${name}/`]: '', ...prefixed(name, snapshot(world.path(name))) })
      expect(existsSync(journal)).toBe(false)
    },
  }
}

const prefixed = (name: string, files: Record<string, string>) =>
  Object.fromEntries(Object.entries(files).map(([path, content]) => [`${name}/${path}`, content]))

const refuseStatus = (times: number) =>
  worlds.s3!.server.faults.add({
    on: STATUS,
    times,
    do: { status: 404, headers: json, body: '{"code":404,"message":"","errorCode":-20501}' },
  })

/** Uploads with a server that does not come to an end; the upload stays in the journal as uncertain. */
async function uncertain(before: () => void = () => {}) {
  const upload = scene(worlds.s3!, client)
  before()
  worlds.s3!.server.faults.add({
    on: STATUS,
    times: 100_000,
    do: { status: 200, headers: json, body: '{"status":"finishing"}' },
  })
  const first = await upload.run()
  expect(first.failed.map(({ error }) => error.code)).toEqual(['UPLOAD_UNCERTAIN'])
  expect(upload.begun()).toContain('"do":"complete"')
  expect(watch.requests.filter((request) => request.startsWith('DELETE'))).toEqual([])
  worlds.s3!.server.faults.clear()
  watch.reset()
  return upload
}

/** Shows the next run the folder as it was before the file became visible. */
const hideListing = () =>
  worlds.s3!.server.faults.add({
    on: { method: 'GET', path: '/v4/nodes$' },
    after: 2,
    do: { status: 200, headers: json, body: '{"range":{"offset":0,"limit":500,"total":0},"items":[]}' },
  })

test('uncertain, then there: nothing is sent again, and the journal is empty', async () => {
  const upload = await uncertain()
  expect(await upload.run()).toMatchObject({ transferred: 0, skipped: 1, failed: [] })
  expect(watch.sent).toEqual([])
  await upload.expectArrived()
})

test.each([
  ['its status', () => {}],
  ['IV and tag under its name, when the server does not know the upload any more', () => refuseStatus(2)],
])('uncertain, and not listed yet: settled by %s', async (_what, status) => {
  const upload = await uncertain()
  hideListing()
  status()
  expect(await upload.run()).toMatchObject({ transferred: 1, failed: [] })
  expect(watch.sent).toEqual([])
  expect(watch.requests.filter((request) => /^PUT .*\/s3$/.test(request))).toEqual([])
  await upload.expectArrived()
})

test('uncertain for a second time: it stays in the journal', async () => {
  const upload = await uncertain()
  hideListing()
  worlds.s3!.server.faults.add({
    on: STATUS,
    times: 100_000,
    do: { status: 200, headers: json, body: '{"status":"finishing"}' },
  })
  expect((await upload.run()).failed.map(({ error }) => error.code)).toEqual(['UPLOAD_UNCERTAIN'])
  expect(existsSync(upload.journal)).toBe(true)
  worlds.s3!.server.faults.clear()
  expect(await upload.run()).toMatchObject({ skipped: 1, failed: [] })
  await upload.expectArrived()
})

test('the request to complete never arrived: the next run completes, and sends no part', async () => {
  const upload = await uncertain(() => {
    worlds.s3!.server.faults.add({ on: COMPLETE, do: { status: 202 } })
  })
  expect(await upload.run()).toMatchObject({ transferred: 1, failed: [] })
  expect(watch.sent).toEqual([])
  await upload.expectArrived()
})

test('an upload that the server refuses to complete is cancelled, and starts over under a new key', async () => {
  const upload = await uncertain(() => {
    worlds.s3!.server.faults.add({ on: COMPLETE, do: { status: 202 } })
  })
  worlds.s3!.server.faults.add({ on: COMPLETE, do: { status: 500 } })
  const before = watch.opened
  expect(await upload.run()).toMatchObject({ transferred: 1, failed: [] })
  expect(watch.opened - before).toBe(1)
  expect(watch.sent.map(({ part }) => part).sort()).toEqual([1, 2, 3])
  expect(watch.requests.filter((request) => request.startsWith('DELETE')).length).toBe(1)
  await upload.expectArrived()
})

test.each(['classic', 'a plain room'])('%s: cancelled and started over, never gone on with', async (which) => {
  const world = which === 'classic' ? await createWorld({ storage: 'classic' }) : worlds.s3!
  if (which === 'classic') worlds.classic = world
  const using = which === 'classic' ? await fastClient(world) : client
  const target = which === 'classic' ? '/room' : '/plain'
  if (which !== 'classic') await makeRoom(using, 'plain', false)
  const upload = scene(world, using, target)
  const stop = new AbortController()
  const path = which === 'classic' ? '/v4/uploads/' : '^/s3/'
  world.server.faults.add({ on: { path }, after: 1, times: 9, do: { hold: true } })
  const options = { state: upload.state, partSize: 5 * 1024 * 1024 }
  const held = world.server.faults.until(world.server.faults.hits.length + 1)
  const first = using.upload([upload.source], target, { ...options, signal: stop.signal })
  await held
  stop.abort()
  expect((await first).stoppedBy?.class).toBe('cancelled')
  expect(upload.begun()).not.toContain('"do":"send"')
  world.server.faults.clear()
  expect(await using.upload([upload.source], target, options)).toMatchObject({ transferred: 1, failed: [] })
  expect(existsSync(upload.journal)).toBe(false)
  if (which === 'classic') await using.close()
})
