/** Questions that need not wait for each other do not: one is held back, and the others come all the same. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import { toSyncError } from '../../src/errors.ts'
import { storageOf } from '../../src/transfer/storage-routes.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

const MiB = 1024 * 1024
let world: World
let anna: Client
/** `METHOD path` of all requests since `reset`, and who waits for one. */
let requests: string[] = []
let onRequest: () => void = () => {}
const reset = () => {
  requests = []
  onRequest = () => {}
}
/** Resolves when a request of each kind has come. */
const until = (...patterns: RegExp[]) =>
  new Promise<void>((resolve) => {
    onRequest = () => patterns.every((pattern) => requests.some((request) => pattern.test(request))) && resolve()
    onRequest()
  })
const count = (pattern: RegExp) => requests.filter((request) => pattern.test(request)).length

beforeAll(async () => {
  world = await createWorld({
    recorder: {
      onRequest({ method, path }) {
        requests.push(`${method} ${path}`)
        onRequest()
      },
    },
  })
  makeTree(world.path('deep'), { 'a/b/file': 'deep', 'a/b/other': 'too' })
  anna = await world.client()
  expect(await anna.upload([world.path('deep')], '/room')).toMatchObject({ transferred: 2, failed: [] })
})
afterAll(() => world.close())
beforeEach(reset)
afterEach(() => world.server.faults.clear())

let serial = 0
const source = (files: Record<string, string | Uint8Array>) => {
  const path = world.path(`source${++serial}`)
  makeTree(path, files)
  return path
}
const hold = (method: string, path: string) => world.server.faults.add({ on: { method, path }, do: { hold: true } })

describe('asked together', () => {
  test('all parts of a path: the upper ones need not be known', async () => {
    hold('GET', '/v4/nodes$')
    reset()
    const found = anna.stat('/room/deep/a/b/file')
    await until(
      /GET .*nodes\?/,
      ...['deep', 'a', 'b', 'file'].map((name) => new RegExp(`search\\?search_string=${name}&`)),
    )
    world.server.faults.clear()
    expect(await found).toMatchObject({ path: '/room/deep/a/b/file', type: 'file' })
    // One listing for the top, and the file itself.
    expect(count(/nodes\?/)).toBe(1)
  })

  test('what is in a folder, and the way there', async () => {
    hold('GET', '/v4/nodes$')
    reset()
    const names = (async () => {
      const all: string[] = []
      for await (const { path } of anna.list('/room/deep/a/b')) all.push(path)
      return all
    })()
    await until(/GET .*nodes\?/, /search_string=\*&.*parentPath/)
    world.server.faults.clear()
    expect(await names).toEqual(['/room/deep/a/b/file', '/room/deep/a/b/other'])
  })

  test('storage and key pairs, while both sides are looked at; once for a client', async () => {
    const client = await world.openClient()
    try {
      hold('GET', '/v4/nodes$')
      reset()
      const run = client.upload([source({ a: 'a' })], '/room')
      await until(/GET .*nodes\?/, /system\/info/, /keypairs/)
      world.server.faults.clear()
      expect(await run).toMatchObject({ transferred: 1, failed: [] })
      await client.upload([source({ b: 'b' })], '/room')
      expect([count(/system\/info/), count(/keypairs/)]).toEqual([1, 1])
    } finally {
      await client.close()
    }
  })

  test('the root of a pair, by its id, while the way there is looked up', async () => {
    const local = source({ a: 'a' })
    const push = () => anna.push(local, '/room/pair', { state: { directory: world.path('states'), account: 'anna' } })
    await push()
    await push()
    hold('GET', '/v4/nodes$')
    reset()
    const run = push()
    await until(/GET .*nodes\?/, /GET .*nodes\/\d+$/)
    world.server.faults.clear()
    expect(await run).toMatchObject({ steps: [], failed: [] })
  })

  test('file key and address of what is downloaded', async () => {
    const client = await world.openClient({ keyCache: false })
    try {
      hold('GET', '/user_file_key$')
      reset()
      const run = client.download(['/room/deep/a/b/file'], `${world.path('down')}/`)
      await until(/user_file_key/, /POST .*\/downloads$/)
      // Content is not: its key has to be judged first.
      expect(count(/GET .*\/downloads\//)).toBe(0)
      world.server.faults.clear()
      expect(await run).toMatchObject({ transferred: 1, failed: [] })
      expect(snapshot(world.path('down'))).toEqual({ file: 'deep' })
    } finally {
      await client.close()
    }
  })

  test('what is replaced, and its new content', async () => {
    const path = source({ 'same/a': 'one' })
    await anna.upload([join(path, 'same')], '/room')
    makeTree(path, { 'same/a': 'another' })
    hold('POST', '/v4/uploads/')
    reset()
    const run = anna.upload([join(path, 'same')], '/room', { onConflict: 'overwrite' })
    await until(/POST .*\/v4\/uploads\//, /GET .*nodes\/\d+$/)
    world.server.faults.clear()
    expect(await run).toMatchObject({ transferred: 1, failed: [] })
  })
})

describe('a search that is no look-up', () => {
  const parentPath = { method: 'GET', path: '/nodes/search$' }
  test.each([
    ['finds nothing', 200, '{"range":{"offset":0,"limit":500,"total":0},"items":[]}'],
    ['finds something of this name somewhere else', 200, other('file', 77)],
    ['finds another case', 200, other('FILE', 1)],
    ['is refused', 400, '{"code":400}'],
    ['is not there', 404, '{"code":404}'],
    ['is no JSON', 200, '<html>'],
  ])('%s: then the way is listed', async (_what, status, body) => {
    world.server.faults.add({
      on: parentPath,
      times: 99,
      do: { status, headers: { 'Content-Type': 'application/json' }, body },
    })
    expect(await anna.stat('/room/deep/a/b/file')).toMatchObject({ path: '/room/deep/a/b/file', type: 'file' })
    const names: string[] = []
    for await (const { name } of anna.list('/room/deep/a/b')) names.push(name)
    expect(names).toEqual(['file', 'other'])
    await expect(anna.stat('/room/deep/a/b/none')).rejects.toMatchObject({ code: 'REMOTE_MISSING' })
  })

  function other(name: string, parentId: number): string {
    const node = { id: 999, type: 'file', name, parentId, size: 1 }
    return JSON.stringify({ range: { offset: 0, limit: 500, total: 1 }, items: [node] })
  }

  test('names that would mean something else to it are not searched for', async () => {
    reset()
    for (const name of ['a*b', 'a|name:cn:b', 'a:b', '100%']) {
      await expect(anna.stat(`/room/${name}`)).rejects.toMatchObject({ code: 'REMOTE_MISSING' })
    }
    expect(count(/nodes\/search/)).toBe(0)
  })
})

describe('routes', () => {
  test('a small file goes through the server: three requests', async () => {
    reset()
    expect(await anna.upload([source({ small: 'small' })], '/room')).toMatchObject({ transferred: 1, failed: [] })
    const sent = requests
      .filter((request) => /uploads|\/s3\//.test(request))
      .map((request) => request.replace(/[0-9a-f]{20,}|[\w-]{30,}/g, '*'))
    expect(sent.map((request) => request.replace('/api/v4', '').split('?')[0])).toEqual([
      'POST /nodes/files/uploads',
      'POST /uploads/*',
      'PUT /uploads/*',
    ])
  })

  test('one of a single byte does not: what went there could not be sent again', async () => {
    reset()
    expect(await anna.upload([source({ byte: 'x' })], '/room')).toMatchObject({ transferred: 1, failed: [] })
    expect([count(/PUT .*\/s3\//), count(/\/v4\/uploads\//)]).toEqual([1, 0])
  })

  test('a server that refuses what it said it takes gets it directly, at once', async () => {
    world.server.faults.add({
      on: { method: 'POST', path: '/v4/nodes/files/uploads$' },
      do: { status: 400, headers: { 'Content-Type': 'application/json' }, body: '{"code":400,"errorCode":-90033}' },
    })
    const client = await world.openClient()
    try {
      reset()
      expect(await client.upload([source({ refused: 'refused' })], '/room')).toMatchObject({
        transferred: 1,
        failed: [],
      })
      expect([count(/PUT .*\/s3\//), count(/\/v4\/uploads\//)]).toEqual([1, 0])
    } finally {
      await client.close()
    }
  })

  test('a large file asks for the URLs of all its parts in two questions', async () => {
    reset()
    const path = source({ large: randomBytes(31 * MiB) })
    expect(await anna.upload([path], '/room', { partSize: 5 * MiB })).toMatchObject({ transferred: 1, failed: [] })
    expect([count(/s3_urls/), count(/PUT .*\/s3\//)]).toEqual([2, 7])
  })
})

test('one question of several runs: who gives it up does not give it up for others', async () => {
  const client = await world.openClient()
  try {
    world.server.faults.add({ on: { path: '/public/system/info' }, times: 1, do: { hold: true } })
    const stop = new AbortController()
    const held = until(/public\/system\/info/)
    const first = storageOf(client.api, stop.signal).catch((error) => error)
    const second = storageOf(client.api)
    await held
    stop.abort()
    expect(toSyncError(await first)).toMatchObject({ class: 'cancelled' })
    expect(await second).toEqual({ isObjectStorage: true, takesThrough: expect.any(Boolean) })
    expect(count(/public\/system\/info/)).toBe(2)
    await storageOf(client.api)
    expect(count(/public\/system\/info/)).toBe(2)
  } finally {
    await client.close()
  }
})

test('the same of the key pairs: an upload that is given up leaves another one its key', async () => {
  const client = await world.openClient()
  try {
    world.server.faults.add({ on: { path: '/user/account/keypairs' }, times: 1, do: { hold: true } })
    const [one, other] = [source({ one: '1' }), source({ other: '2' })]
    const stop = new AbortController()
    const held = until(/account\/keypairs/)
    const first = client.upload([one], '/room', { signal: stop.signal }).catch((error) => error)
    await held
    const second = client.upload([other], '/room')
    stop.abort()
    await first
    expect(await second).toMatchObject({ transferred: 1, failed: [] })
  } finally {
    await client.close()
  }
})
