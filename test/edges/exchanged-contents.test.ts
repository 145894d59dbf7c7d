/**
 * A server that shows other contents than the ones that are known: another one under the same node, an older one under a new node, two
 * files swapped. Every way down names the file, ends with class integrity, and leaves the local file alone.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { RemoteNode } from '../../src/api/wire.ts'
import type { Client } from '../../src/client.ts'
import type { HttpRequest, HttpResponse } from '../../src/http/types.ts'
import { pairOf, type SyncOptions } from '../../src/sync/jobs/pair.ts'
import { createKnownContents, type KnownFile } from '../../src/sync/known-contents.ts'
import { readKnownPlaces } from '../../src/sync/known-places.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { openState, stateDirectory } from '../../src/sync/state.ts'
import { undoRun } from '../../src/sync/undo.ts'
import { verifyRemote } from '../../src/sync/verify.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'
import fc from '../support/property.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
  lieIn(anna)
})
afterAll(() => world.close())
beforeEach(() => {
  lies.shown.clear()
  lies.served.clear()
})

interface Content {
  readonly key: unknown
  readonly bytes: Uint8Array
}

/** What the server shows instead: other ids by name, and contents by id. */
const lies = { shown: new Map<string, Partial<RemoteNode>>(), served: new Map<number, Content>(), bump: 0 }

const answer = (body: Uint8Array | object): HttpResponse => {
  const bytes = body instanceof Uint8Array ? body : Buffer.from(JSON.stringify(body))
  const type = body instanceof Uint8Array ? 'application/octet-stream' : 'application/json'
  return { status: 200, headers: { 'content-type': type, 'content-length': String(bytes.length) }, body: bytes }
}

function lieIn(client: Client): void {
  const api = client.api as { send: Client['api']['send']; sendPlain: Client['api']['sendPlain'] }
  const [send, sendPlain] = [api.send, api.sendPlain]
  api.send = async (request: HttpRequest) => {
    const [, id, what] = /\/files\/(\d+)\/(downloads|user_file_key)/.exec(request.url) ?? []
    const served = lies.served.get(Number(id))
    if (served !== undefined)
      return answer(what === 'downloads' ? { downloadUrl: `${world.server.url}/lie/${id}` } : (served.key as object))
    const response = await send(request)
    if (lies.shown.size === 0 || request.method !== 'GET' || !/\/nodes(\/search)?\?/.test(request.url)) return response
    const page = JSON.parse(Buffer.from(response.body).toString())
    for (const node of page.items ?? []) Object.assign(node, lies.shown.get(node.name))
    return answer(page)
  }
  api.sendPlain = async (request: HttpRequest) => {
    const [, id] = /\/lie\/(\d+)/.exec(request.url) ?? []
    if (id === undefined) return sendPlain(request)
    const { bytes } = lies.served.get(Number(id))!
    const [, from, to] = /bytes=(\d+)-(\d*)/.exec(request.headers?.range ?? '') ?? []
    const part = from === undefined ? bytes : bytes.subarray(Number(from), to ? Number(to) + 1 : undefined)
    const range =
      from === undefined ? {} : { 'content-range': `bytes ${from}-${Number(from) + part.length - 1}/${bytes.length}` }
    const { headers } = answer(part)
    const status = from === undefined ? 200 : 206
    const stream = (async function* () {
      yield Uint8Array.from(part)
    })()
    return { status, headers: { ...headers, ...range }, body: part, ...(request.stream ? { stream } : {}) }
  }
}

const nodeOf = async (path: string): Promise<RemoteNode> => (await requireRemote(anna.api, path)).node

/** What the server has under a file now: its key, and its ciphertext. */
async function capture(path: string): Promise<Content & { readonly id: number }> {
  const { id } = await nodeOf(path)
  const base = `${world.server.url}/api/v4/nodes/files/${id}`
  const json = async (url: string, method: 'GET' | 'POST') =>
    JSON.parse(Buffer.from((await anna.session.send({ method, url, label: 'test' })).body).toString())
  const { downloadUrl } = await json(`${base}/downloads`, 'POST')
  const { body } = await anna.api.sendPlain({ method: 'GET', url: downloadUrl })
  return { id, key: await json(`${base}/user_file_key`, 'GET'), bytes: Uint8Array.from(body) }
}

let count = 0

/** Stores one file somewhere else; returns where. */
async function store(name: string, content: string): Promise<string> {
  const directory = world.path(`stored${++count}`)
  makeTree(directory, { [name]: content })
  expect((await anna.upload([directory], '/room')).failed).toEqual([])
  return `/room/stored${count}/${name}`
}

/** A folder that was pushed and pulled in two versions. */
async function createPlace() {
  const name = `exchanged${++count}`
  const remote = `/room/${name}`
  const [source, local] = [world.path(`${name}-source`), world.path(`${name}-local`)]
  mkdirSync(source)
  mkdirSync(local)
  let time = 1_700_000_000
  const write = (files: Record<string, string>) => {
    makeTree(source, files)
    time += 100
    for (const file of Object.keys(files)) utimesSync(join(source, file), time, time)
  }
  const state = (who: string) => ({ directory: world.path(`${name}-state-${who}`), account: 'anna' })
  const run = (who: string, at: string, direction: SyncOptions['direction'], more: Partial<SyncOptions> = {}) =>
    anna.sync(at, remote, { direction, state: state(who), ...more })
  const pull = (more?: Partial<SyncOptions>) => run('pull', local, 'pull', more)
  write({ a: 'a, version 1', b: 'b, version 1', c: 'c' })
  await run('push', source, 'push')
  await pull()
  const old = await capture(`${remote}/a`)
  write({ a: 'a, version 2' })
  await run('push', source, 'push')
  expect((await pull()).failed).toEqual([])
  const files = { a: 'a, version 2', b: 'b, version 1', c: 'c' }
  const ids = { a: (await nodeOf(`${remote}/a`)).id, b: (await nodeOf(`${remote}/b`)).id }
  const here = () =>
    Object.fromEntries(Object.entries(snapshot(local)).filter(([path]) => !path.startsWith('.sealsync-bin')))
  return { name, remote, source, local, old, files, ids, here, pull, run, write, state: state('pull') }
}

type Place = Awaited<ReturnType<typeof createPlace>>

/** Newer than everything that was seen, and listed anew. */
const newer = (name: string, id: number) => {
  const timestampModification = new Date(1_800_000_000_000 + ++lies.bump * 60_000).toISOString()
  lies.shown.set(name, { id, timestampModification } as never)
}

const LIES: Record<string, { code: string; names: string[]; tell(place: Place): Promise<void> }> = {
  'an older version under a new node': {
    code: 'CONTENT_SET_BACK',
    names: ['a'],
    async tell({ old }) {
      newer('a', 990_001)
      lies.served.set(990_001, old)
    },
  },
  'an older version under its own node': {
    code: 'CONTENT_SET_BACK',
    names: ['a'],
    async tell({ old }) {
      newer('a', old.id)
      lies.served.set(old.id, old)
    },
  },
  'an older version under the node of the newer one': {
    code: 'CONTENT_SWAPPED',
    names: ['a'],
    async tell({ old, ids }) {
      newer('a', ids.a)
      lies.served.set(ids.a, old)
    },
  },
  'two files swapped under new nodes': {
    code: 'CONTENT_SWAPPED',
    names: ['a', 'b'],
    async tell({ remote }) {
      const [a, b] = [await capture(`${remote}/a`), await capture(`${remote}/b`)]
      newer('a', 990_002)
      newer('b', 990_003)
      lies.served.set(990_002, b)
      lies.served.set(990_003, a)
    },
  },
  'two files swapped with their nodes': {
    code: 'CONTENT_SWAPPED',
    names: ['a', 'b'],
    async tell({ ids }) {
      newer('a', ids.b)
      newer('b', ids.a)
    },
  },
  'the content of another file under the node': {
    code: 'CONTENT_SWAPPED',
    names: ['a'],
    async tell({ remote, ids }) {
      const b = await capture(`${remote}/b`)
      newer('a', ids.a)
      lies.served.set(ids.a, b)
    },
  },
  'a version from before anybody looked': {
    code: 'CONTENT_SET_BACK',
    names: ['c'],
    async tell() {
      // Of another place: never seen by this pair.
      const other = await capture(await store('older', 'an older c'))
      newer('c', 1)
      lies.served.set(1, other)
    },
  },
}

describe.each(Object.entries(LIES))('%s', (_what, { code, names, tell }) => {
  const told = names.map((path) => ({ path, error: { class: 'integrity', code } }))
  const byName = (a: { path: string }, b: { path: string }) => (a.path < b.path ? -1 : 1)

  test('pull and both tell, and leave the local files alone', async () => {
    const place = await createPlace()
    await tell(place)
    for (const direction of ['pull', 'both'] as const) {
      const run = await place.run('pull', place.local, direction, { delete: true })
      const failed = run.failed.filter(({ path }) => !path.startsWith('.sealsync'))
      expect([...failed].sort(byName), direction).toMatchObject(told)
      expect(place.here(), direction).toEqual(place.files)
    }
    // The truth is good again.
    lies.shown.clear()
    lies.served.clear()
    expect((await place.pull()).failed).toEqual([])
    expect(place.here()).toEqual(place.files)
  })

  test('a download, a look at a file, and a check by what the pair knows', async () => {
    const place = await createPlace()
    await tell(place)
    const target = world.path(`${place.name}-download`)
    const run = await anna.download([place.remote], target, { contents: true, state: place.state })
    expect([...run.failed].sort(byName)).toMatchObject(told)
    for (const name of names) expect(Object.keys(snapshot(target))).not.toContain(name)
    const known = await readKnownPlaces(place.state, [place.remote], 0, () => {})
    const shown = lies.shown.get(names[0]!)!
    const seal = await sealOfShown(Number(shown.id))
    const path = place.remote.slice(1).split('/').concat(names[0]!)
    expect(() =>
      known.judge(path, { ...(shownFile as RemoteNode), id: Number(shown.id), name: names[0]! }, seal),
    ).toThrow(expect.objectContaining({ class: 'integrity', code }))
    const { tally } = await verifyRemote(anna.context, place.remote, {})
    expect(tally.failed.map(({ path: one }) => one)).toEqual(expect.arrayContaining(names))
  })
})

const shownFile = { type: 'file', isEncrypted: true, size: 1 }

async function sealOfShown(id: number): Promise<string> {
  const served = lies.served.get(id)
  const key =
    served?.key ??
    JSON.parse(
      Buffer.from(
        (
          await anna.session.send({
            method: 'GET',
            url: `${world.server.url}/api/v4/nodes/files/${id}/user_file_key`,
            label: 'test',
          })
        ).body,
      ).toString(),
    )
  const { iv, tag } = key as { iv: string; tag: string }
  return Buffer.concat([Buffer.from(iv, 'base64'), Buffer.from(tag, 'base64')]).toString('base64')
}

test('who has looked may take it as it is', async () => {
  const place = await createPlace()
  await LIES['an older version under a new node']!.tell(place)
  const run = await place.pull({ acceptRoots: true })
  expect(run.failed.filter(({ path }) => path === 'a')).toEqual([])
  expect(readFileSync(join(place.local, 'a'), 'utf8')).toBe('a, version 1')
})

test('what an undo brings back is no surprise to the pair that undid it', async () => {
  const place = await createPlace()
  const state = await openState(
    stateDirectory(world.path(`${place.name}-state-push`), pairOf('anna', place.source, place.remote)),
    pairOf('anna', place.source, place.remote),
    Date.now(),
    () => {},
  )
  const { undone, skipped } = await undoRun(anna.context, state, state.runs()[0]!.id)
  await state.close()
  expect([undone.length, skipped]).toEqual([1, []])
  // The same pair looks at it the other way round; its own file is in the bin then.
  const again = await place.run('push', place.source, 'pull', { onConflict: 'overwrite' })
  expect(again.failed.filter(({ path }) => path === 'a')).toEqual([])
  expect(readFileSync(join(place.source, 'a'), 'utf8')).toBe('a, version 1')
  // To everybody else it is what a server does that sets files back.
  expect((await place.pull()).failed).toMatchObject([{ path: 'a', error: { code: 'CONTENT_SET_BACK' } }])
  expect(place.here()).toEqual(place.files)
})

test('a machine without a memory is held to the manifest', async () => {
  const place = await createPlace()
  await LIES['two files swapped under new nodes']!.tell(place)
  const fresh = world.path(`${place.name}-fresh`)
  const run = await place.run('fresh', fresh, 'pull')
  expect(run.failed.map(({ path, error }) => [path, error.class]).sort()).toEqual([
    ['a', 'integrity'],
    ['b', 'integrity'],
  ])
  expect(snapshot(fresh)).toEqual({ c: 'c' })
})

test('what people do is no exchange: new versions, moves, also over what was deleted', async () => {
  const place = await createPlace()
  place.write({ b: 'b, version 2', d: 'd' })
  await place.run('push', place.source, 'push')
  expect((await place.pull()).failed).toEqual([])
  rmSync(join(place.source, 'd'))
  await place.run('push', place.source, 'push', { delete: true })
  writeFileSync(join(place.source, 'new'), 'x')
  renameSync(join(place.source, 'c'), join(place.source, 'd'))
  await place.run('push', place.source, 'push', { delete: true })
  // The pair sees both at once: `d` is another node, that of `c`.
  const run = await place.pull({ delete: true })
  expect(run.failed).toEqual([])
  expect(place.here()).toEqual({ a: 'a, version 2', b: 'b, version 2', d: 'c', new: 'x' })
})

/** Files of a pair that is up to date with what people did at an honest server. */
type Act = { readonly do: 'replace' | 'move' | 'delete' | 'create'; readonly at: number; readonly to: number }
const acts = fc.array(
  fc.record({
    do: fc.constantFrom('replace', 'move', 'delete', 'create') as fc.Arbitrary<Act['do']>,
    at: fc.nat(50),
    to: fc.nat(50),
  }),
  { maxLength: 30 },
)

/**
 * An honest server. A name that something was moved away from in a round is not used again in it: whoever looks only then could not
 * tell that from two files that were swapped.
 */
class Server {
  readonly left = new Set<string>()
  files = new Map<string, { id: number; seal: string }>()
  /** Everything that was ever there, by place. */
  history: { place: string; id: number; seal: string }[] = []
  #next = 0
  act({ do: what, at, to }: Act): void {
    const places = [...this.files.keys()]
    const place = places[at % Math.max(1, places.length)]
    const target = `f${to % 8}`
    if (what === 'create' && this.#isFree(target)) this.#put(target)
    else if (what === 'replace' && place !== undefined) this.#put(place)
    else if (what === 'delete' && place !== undefined) this.files.delete(place)
    else if (what === 'move' && place !== undefined && this.#isFree(target)) {
      this.files.set(target, this.files.get(place)!)
      this.files.delete(place)
      this.left.add(place)
    }
  }
  #isFree = (place: string) => !this.files.has(place) && !this.left.has(place)
  #put(place: string): void {
    const file = { id: ++this.#next, seal: `seal ${this.#next}` }
    this.files.set(place, file)
    this.history.push({ place, ...file })
  }
}

const nodeAs = (id: number) => ({ id, type: 'file', name: 'x', size: 1 }) as RemoteNode

/** A file leaves its place, another one takes it, and the first is moved on over what was deleted. */
const MOVED_TWICE: Act[][] = [
  [
    { do: 'create', at: 0, to: 0 },
    { do: 'create', at: 0, to: 2 },
    { do: 'create', at: 0, to: 41 },
    { do: 'delete', at: 0, to: 0 },
  ],
  [
    { do: 'create', at: 0, to: 30 },
    { do: 'move', at: 10, to: 0 },
  ],
  [{ do: 'create', at: 0, to: 9 }],
  [
    { do: 'delete', at: 13, to: 0 },
    { do: 'move', at: 4, to: 46 },
  ],
]

test('property: an honest history is never an alarm, and no exchange goes unnoticed', () => {
  let judged = 0
  fc.assert(
    fc.property(fc.array(acts, { minLength: 1, maxLength: 6 }), (rounds) => {
      const server = new Server()
      const records = new Map<string, KnownFile>()
      const superseded = new Map<string, string>()
      const gone = new Map<string, string>()
      for (const round of rounds) {
        server.left.clear()
        for (const one of round) server.act(one)
        const isThere = (key: string) => server.files.has(key)
        const known = createKnownContents({ records: () => records, superseded, isThere })
        // What is known under its node and moved to where nothing was, is moved here, too, and not fetched.
        for (const [key, record] of [...records]) {
          const to = [...server.files].find(([, { id }]) => id === record.remote.id)?.[0]
          if (to === undefined || to === key || records.has(to) || server.files.has(key)) continue
          records.delete(key)
          gone.set(key, record.seal!)
          records.set(to, { ...record, path: to })
        }
        for (const [place, { id, seal }] of server.files) {
          known.judge(place, nodeAs(id), seal)
          judged++
        }
        for (const [key, { seal }] of [...records]) {
          if (server.files.has(key)) continue
          records.delete(key)
          gone.set(key, seal!)
        }
        for (const [place, { id, seal }] of server.files) {
          const last = records.get(place)?.seal ?? gone.get(place)
          if (last !== undefined && last !== seal) superseded.set(last, place)
          gone.delete(place)
          superseded.delete(seal)
          records.set(place, { kind: 'file', path: place, remote: { id, size: 1 }, seal })
        }
      }
      // Whatever was known once and is not what stands there now, under any node.
      const known = createKnownContents({ records: () => records, superseded })
      const seen = new Set([...superseded.keys(), ...[...records.values()].map(({ seal }) => seal!)])
      for (const [place, record] of records) {
        for (const { seal } of server.history) {
          if (!seen.has(seal) || seal === record.seal) continue
          for (const id of [record.remote.id, 1, 10_000]) {
            expect(() => known.judge(place, nodeAs(id), seal), `${seal} as ${id} at ${place}`).toThrow(/./)
            judged++
          }
        }
        // Content under a known node, and nodes that are older.
        expect(() => known.judge(place, nodeAs(record.remote.id), 'never seen')).toThrow(/./)
        expect(() => known.judge(place, nodeAs(record.remote.id - 1), 'never seen')).toThrow(/./)
        expect(() => known.judge(place, nodeAs(10_001), 'never seen')).not.toThrow()
      }
    }),
    { numRuns: process.env.SEALSYNC_FULL ? 20_000 : 1_000, examples: [[MOVED_TWICE]] },
  )
  if (process.env.SEALSYNC_FULL) process.stdout.write(`${judged} contents judged\n`)
})
