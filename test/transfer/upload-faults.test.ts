/**
 * What can happen to an upload on its way, at every step of it and over both routes. In the end there is exactly one node with
 * the right bytes; or a failure that says what it is, and only what was there before. SEALSYNC_FULL=1 adds the rest of the
 * matrix.
 */
import { randomBytes } from 'node:crypto'
import { rmSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Client, createClient } from '../../src/client.ts'
import { SyncError } from '../../src/errors.ts'
import type { FaultAction } from '../../src/server/index.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import {
  accountPassword,
  createWorld,
  KEY_PASSWORD,
  listFiles,
  makeTree,
  snapshot,
  user1,
  type World,
} from '../support/cli.ts'
import { fakeClock } from '../support/clock.ts'
import { type Meddler, type Meddling, type Place, startMeddler } from '../support/meddler.ts'

const isFull = process.env.SEALSYNC_FULL === '1'
const PART = 5 * 1024 * 1024

const ROUTES = ['s3', 'classic'] as const
type Route = (typeof ROUTES)[number]
type Kind = 'create' | 'part' | 'complete'

/** Steps of an upload of three parts, as the server sees them. */
const create = { kind: 'create', method: 'POST', path: '/v4/nodes/files/uploads$' } as const
const STEPS: Record<Route, Record<string, Place & { readonly kind: Kind }>> = {
  s3: {
    create,
    'first part': { kind: 'part', method: 'PUT', path: '^/s3/[^/]+/1$' },
    ...(isFull && { 'middle part': { kind: 'part', method: 'PUT', path: '^/s3/[^/]+/2$' } }),
    'last part': { kind: 'part', method: 'PUT', path: '^/s3/[^/]+/3$' },
    complete: { kind: 'complete', method: 'PUT', path: '/uploads/[^/]+/s3$' },
  },
  classic: {
    create,
    'first part': { kind: 'part', method: 'POST', path: '/v4/uploads/[^/]+$' },
    ...(isFull && { 'middle part': { kind: 'part', method: 'POST', path: '/v4/uploads/[^/]+$', after: 1 } }),
    'last part': { kind: 'part', method: 'POST', path: '/v4/uploads/[^/]+$', after: 2 },
    complete: { kind: 'complete', method: 'PUT', path: '/v4/uploads/[^/]+$' },
  },
}

/** Codes of failures: for both routes, or one each. The file arrives where there is none. */
type Ends = Partial<Record<Kind, string | Record<Route, string | undefined>>>

interface Fault {
  readonly do: FaultAction | Meddling
  readonly times?: number
  /** Where it makes sense; at every step unless given. */
  readonly at?: (route: Route, step: string) => boolean
  readonly ends?: Ends
}

const refused = (code: string): Ends => ({
  create: code,
  part: { s3: 'STORAGE_REFUSED', classic: code },
  complete: code,
})
const always = (code: string, complete?: string): Ends => ({
  create: code,
  part: code,
  ...(complete && { complete }),
})
const isStoredPart = (route: Route, step: string) => route === 's3' && step.endsWith('part')

const FAULTS: Record<string, Fault> = {
  'cut in the middle': { do: { cutRequestAfterBytes: 100 } },
  'done, and the answer lost': { do: { loseAnswer: true } },
  stalled: { do: 'stalled' },
  // A presigned URL is for a number of bytes; through the server, the receipt tells.
  truncated: {
    do: 'truncated',
    ends: {
      create: 'REQUEST_REFUSED',
      part: { s3: 'STORAGE_REFUSED', classic: undefined },
      complete: 'REQUEST_REFUSED',
    },
  },
  'delivered twice': { do: 'twice' },
  'delivered again later': { do: 'again later' },
  overtaken: { do: 'overtaken', at: (route, step) => isStoredPart(route, step) && step !== 'last part' },
  'answered with a wrong ETag': { do: 'wrong ETag', at: isStoredPart },
  'answered with 503': { do: { status: 503 } },
  'answered with 429': { do: { status: 429, headers: { 'Retry-After': '7' } } },
  // Of a presigned URL it says that the time is up.
  'answered with 403': {
    do: { status: 403 },
    ends: { create: 'FORBIDDEN', part: { s3: undefined, classic: 'FORBIDDEN' }, complete: 'FORBIDDEN' },
  },
  'answered with 503 without end': {
    do: { status: 503 },
    times: 99,
    ends: always('SERVER', 'UPLOAD_LOST'),
  },
}

const MORE_FAULTS: Record<string, Fault> = {
  'cut before it arrives': { do: { cutRequestAfterBytes: 0 } },
  'answered, but cut': { do: { cutAfterBytes: 1 } },
  'answered with 500': { do: { status: 500 } },
  'answered with 400': { do: { status: 400 }, ends: refused('REQUEST_REFUSED') },
  'answered with 404': { do: { status: 404 }, ends: refused('NOT_FOUND') },
  'answered with 409': { do: { status: 409 }, ends: refused('EXISTS') },
  'answered with 401': {
    do: { status: 401 },
    ends: {
      part: { s3: 'STORAGE_REFUSED', classic: 'UNAUTHORIZED' },
      complete: { s3: undefined, classic: 'UNAUTHORIZED' },
    },
  },
  'answered with something else': {
    do: { garbage: true },
    ends: { create: 'ANSWER_NOT_JSON', part: { s3: 'ANSWER_INVALID', classic: 'ANSWER_NOT_JSON' } },
  },
  'cut without end': { do: { cutRequestAfterBytes: 0 }, times: 99, ends: always('NETWORK', 'UPLOAD_LOST') },
  'done without end, and never answered': { do: { loseAnswer: true }, times: 99, ends: always('NETWORK') },
  'answered with 429 without end': { do: { status: 429 }, times: 99, ends: always('RATE_LIMITED', 'RATE_LIMITED') },
  'answered with 403 without end': { do: { status: 403 }, times: 99, ends: refused('FORBIDDEN') },
}

type Snapshot = ReturnType<typeof snapshot>

interface Scene {
  readonly world: World
  readonly content: { readonly new: Snapshot; readonly old: Snapshot }
  readonly meddler: Meddler
  readonly client: Client
  /** Waits for an answer for two seconds only. */
  readonly hasty: Client
}
const scenes = new Map<Route, Scene>()

async function openScene(route: Route): Promise<void> {
  const world = await createWorld({ storage: route })
  const meddler = await startMeddler(world.server.url)
  const clientWith = (transport: { headersTimeoutMs?: number }) =>
    createClient(meddler.origin, {
      authorizer: (origin) =>
        passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
      keyPassword: async () => KEY_PASSWORD,
      transport,
      // No waiting between tries.
      environment: { clock: fakeClock() },
      retryForMs: 8_000,
    })
  const [client, hasty] = [clientWith({}), clientWith({ headersTimeoutMs: 2_000 })]
  await Promise.all([client.session.login(), hasty.session.login()])
  makeTree(world.path('new'), { file: randomBytes(2 * PART + 54_321) })
  makeTree(world.path('old'), { file: 'what was there before' })
  const content = { new: snapshot(world.path('new')), old: snapshot(world.path('old')) }
  scenes.set(route, { world, content, meddler, client, hasty })
}
beforeAll(() => Promise.all(ROUTES.map(openScene)))
afterAll(async () => {
  for (const { world, meddler, client, hasty } of scenes.values()) {
    await client.close()
    await hasty.close()
    await meddler.close()
    await world.close()
  }
})

let counter = 0

/** Uploads with a fault at one step; returns the code of the failure, and `undefined` when the file arrived. */
async function outcome(route: Route, place: Place, fault: Fault, isReplacing: boolean): Promise<string | undefined> {
  const { world, content, meddler, client, hasty } = scenes.get(route)!
  const target = `/room/target ${++counter}`
  const upload = (one: Client, what: string) =>
    one.upload([world.path(what)], target, { contents: true, partSize: PART })
  if (isReplacing) expect(await upload(client, 'old')).toMatchObject({ transferred: 1 })
  const hits = () => world.server.faults.hits.length + meddler.hits()
  const before = hits()
  const { method, path, after = 0 } = place
  if (typeof fault.do === 'string') meddler.meddle(place, fault.do)
  else world.server.faults.add({ on: { method, path }, after, times: fault.times ?? 1, do: fault.do })
  const { transferred, failed } = await upload(fault.do === 'stalled' ? hasty : client, 'new')
  expect(hits()).toBeGreaterThan(before)
  world.server.faults.clear()
  await meddler.settled()

  const error = failed[0]?.error
  expect(transferred + failed.length).toBe(1)
  if (error !== undefined) expect(error).toBeInstanceOf(SyncError)
  const there = error === undefined ? 'new' : isReplacing ? 'old' : undefined
  expect((await world.list(target)).map(({ name }) => name)).toEqual(there === undefined ? [] : ['file'])
  if (there !== undefined) {
    const back = world.path('back')
    await (await world.client()).download([target], back, { contents: true })
    expect(snapshot(back)).toEqual(content[there])
    rmSync(back, { recursive: true })
  }
  return error?.code
}

const expected = ({ ends }: Fault, route: Route, kind: Kind): string | undefined => {
  const end = ends?.[kind]
  return typeof end === 'object' ? end[route] : end
}

/** The routes have a server each, so they need not wait for each other. */
async function atEveryStep(fault: Fault, isReplacing: boolean): Promise<void> {
  const found: Record<string, string> = {}
  const wanted: Record<string, string> = {}
  const over = async (route: Route) => {
    for (const [step, place] of Object.entries(STEPS[route])) {
      if (fault.at?.(route, step) === false) continue
      wanted[`${route}, ${step}`] = expected(fault, route, place.kind) ?? 'arrives'
      found[`${route}, ${step}`] = (await outcome(route, place, fault, isReplacing)) ?? 'arrives'
    }
  }
  await Promise.all(ROUTES.map(over))
  expect(found).toEqual(wanted)
}

/** What a store does that loses data without a word: what it had acknowledged is shorter when the file is put together. */
async function keepFewerBytes(route: Route): Promise<void> {
  const { world, client } = scenes.get(route)!
  const target = `/room/target ${++counter}`
  const data = world.path('server')
  const before = new Set(listFiles(data))
  const { faults } = world.server
  faults.add({ on: STEPS[route].complete!, do: { hold: true } })
  const held = faults.until(faults.hits.length + 1)
  const run = client.upload([world.path('new')], target, { contents: true, partSize: PART })
  await held
  const stored = listFiles(data).filter((name) => !before.has(name) && statSync(join(data, name)).size >= PART)
  expect(stored.length).toBeGreaterThan(0)
  const victim = join(data, stored[0]!)
  truncateSync(victim, statSync(victim).size - 1000)
  faults.release()
  await run
  // Whether the server notices is its affair; if it says that all is there, reading it must not.
  const back = world.path(`back ${route}`)
  const read = await client.download([target], back, { contents: true })
  expect({ route, transferred: read.transferred, failed: read.failed.length }).toEqual({
    route,
    transferred: 0,
    failed: 1,
  })
  expect(read.failed[0]?.error).toBeInstanceOf(SyncError)
  // What came may be gone on with, should the rest turn up.
  expect(listFiles(back).filter((name) => !name.startsWith('.sealsync-'))).toEqual([])
}

test('a store that keeps fewer bytes than it acknowledged: nothing of it is delivered as good', () =>
  Promise.all(ROUTES.map(keepFewerBytes)))

test.each(Object.entries(FAULTS))('%s', (_name, fault) => atEveryStep(fault, false))

describe.skipIf(!isFull)('the rest of the matrix (SEALSYNC_FULL=1)', () => {
  test.each(Object.entries(MORE_FAULTS))('%s', (_name, fault) => atEveryStep(fault, false))
  test.each(Object.entries({ ...FAULTS, ...MORE_FAULTS }))('%s, while a node is replaced', (_name, fault) =>
    atEveryStep(fault, true),
  )
})
