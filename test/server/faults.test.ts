/**
 * Misbehaving on purpose, and recording what arrived.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { type FaultRule, MemoryRecorder, parseFaultPlan } from '../../src/server/index.ts'
import { ask, download, type Json, makeRoom, openUpload, signUp, startWorld, uploadClassic } from './support.ts'

test('status, headers and body; after and times; first matching rule wins', async () => {
  const faults: FaultRule[] = [
    {
      on: { method: 'get', path: '/public/time$' },
      after: 1,
      times: 2,
      do: { status: 429, headers: { 'Retry-After': '1' } },
    },
    { on: { path: '/public/time$' }, after: 2, do: { status: 503, body: '<html>' } },
  ]
  const world = await startWorld({ faults })
  const time = () => ask(`${world.api}/v4/public/time`)
  const replies = [await time(), await time(), await time(), await time(), await time(), await time(), await time()]
  expect(replies.map(({ status }) => status)).toEqual([200, 429, 429, 200, 503, 200, 200])
  expect(replies[1]?.headers['retry-after']).toBe('1')
  expect(replies[1]?.json).toMatchObject({ code: 429 })
  expect(replies[4]?.body.toString()).toBe('<html>')
  expect(world.server.faults.hits).toHaveLength(3)
  expect(world.server.faults.hits[0]).toMatchObject({ method: 'GET', path: '/api/v4/public/time' })
})

test('a fault replaces the action; clear ends it', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const make = () => ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'f' })
  world.server.faults.add({ on: { method: 'POST', path: '/folders$' }, times: 9, do: { status: 500 } })
  expect((await make()).status).toBe(500)
  expect((await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.range.total).toBe(0)
  world.server.faults.clear()
  expect((await make()).status).toBe(201)
})

test('a lost answer: done, but the connection breaks', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  world.server.faults.add({ on: { method: 'POST', path: '/folders$' }, do: { loseAnswer: true } })
  await expect(ann.call('POST', '/v4/nodes/folders', { parentId: room, name: 'f' })).rejects.toThrow()
  expect((await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.range.total).toBe(1)
})

test('garbage and delay', async () => {
  const world = await startWorld({ faults: [{ on: { path: '/time' }, do: { garbage: true } }] })
  const garbage = await ask(`${world.api}/v4/public/time`)
  expect([garbage.status, garbage.json, garbage.headers['content-type']]).toEqual([200, undefined, 'text/html'])
  world.server.faults.add({ on: { path: '/time' }, do: { delayMs: 60 } })
  const start = performance.now()
  expect((await ask(`${world.api}/v4/public/time`)).json).toHaveProperty('time')
  expect(performance.now() - start).toBeGreaterThanOrEqual(55)
})

test('held requests wait until they are let go; whose client has gone is not served', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { faults } = world.server
  const names = async () =>
    (await ann.call('GET', `/v4/nodes?parent_id=${room}`)).json.items.map(({ name }: Json) => name)
  const on = { method: 'POST', path: '/folders$' }
  faults.add({ on, times: 9, do: { hold: true } })
  const make = (name: string) => ann.call('POST', '/v4/nodes/folders', { parentId: room, name })
  const both = Promise.all([make('one'), make('two')])
  await faults.until(2)
  expect(await names()).toEqual([])
  faults.release()
  expect((await both).map(({ status }) => status)).toEqual([201, 201])
  // The rule goes on; what it holds goes when the rules are dropped.
  const third = make('three')
  await faults.until(3)
  expect(await names()).toEqual(['one', 'two'])
  faults.clear()
  expect((await third).status).toBe(201)

  faults.add({ on, do: { hold: true } })
  const stop = new AbortController()
  const gone = fetch(`${world.api}/v4/nodes/folders`, {
    method: 'POST',
    signal: stop.signal,
    headers: { authorization: `Bearer ${ann.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ parentId: room, name: 'never' }),
  })
  await faults.until(4)
  stop.abort()
  await expect(gone).rejects.toThrow()
  await expect.poll(() => faults.held).toBe(0)
  faults.clear()
  expect(await names()).toEqual(['one', 'three', 'two'])
})

test('downloads cut short or with one bit flipped', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const bytes = randomBytes(1_000_000)
  const { id } = (await uploadClassic(ann, await makeRoom(ann, 'R'), 'f', bytes)).json
  const path = '/v4/downloads/'
  for (const cutAfterBytes of [0, 1, 300_000]) {
    world.server.faults.add({ on: { path }, do: { cutAfterBytes } })
    await expect(download(ann, id), String(cutAfterBytes)).rejects.toThrow()
  }
  world.server.faults.add({ on: { path }, do: { flipByteAt: 700_001 } })
  const flipped = await download(ann, id)
  const wrong = [...flipped.body.keys()].filter((at) => flipped.body[at] !== bytes[at])
  expect(wrong).toEqual([700_001])
  expect((flipped.body[700_001] ?? 0) ^ (bytes[700_001] ?? 0)).toBe(1)
  expect((await download(ann, id)).body.equals(bytes)).toBe(true)
})

test('how many bytes come through before a cut', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const { id } = (await uploadClassic(ann, await makeRoom(ann, 'R'), 'f', randomBytes(500_000))).json
  const { downloadUrl } = (await ann.call('POST', `/v4/nodes/files/${id}/downloads`)).json
  world.server.faults.add({ on: { path: '/v4/downloads/' }, do: { cutAfterBytes: 123_456 } })
  const reply = await fetch(downloadUrl)
  let got = 0
  await expect(
    (async () => {
      for await (const chunk of reply.body as AsyncIterable<Uint8Array>) got += chunk.length
    })(),
  ).rejects.toThrow()
  expect(got).toBe(123_456)
})

test('a request cut in the middle leaves nothing behind, and the recorder saw exactly that much', async () => {
  const recorder = new MemoryRecorder()
  const world = await startWorld({ recorder })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { uploadUrl } = await openUpload(ann, room, 'f')
  const bytes = randomBytes(200_000)
  world.server.faults.add({ on: { method: 'POST', path: '/v4/uploads/' }, do: { cutRequestAfterBytes: 100_000 } })
  await expect(ask(uploadUrl, { method: 'POST', body: bytes })).rejects.toThrow()
  const cut = recorder.requests.at(-1)
  expect(cut && Buffer.from(recorder.bodyOf(cut)).equals(bytes.subarray(0, 100_000))).toBe(true)
  expect((await ask(uploadUrl, { method: 'POST', body: 'rest' })).status).toBe(201)
  expect((await ask(uploadUrl, { method: 'PUT', json: {} })).json.size).toBe(4)
})

test('the recorder sees every byte, faults included, and no credentials', async () => {
  const recorder = new MemoryRecorder()
  const world = await startWorld({ recorder })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { uploadUrl } = await openUpload(ann, room, 'f')
  const bytes = randomBytes(150_000)
  world.server.faults.add({ on: { method: 'POST', path: '/v4/uploads/' }, do: { status: 503 } })
  expect((await ask(uploadUrl, { method: 'POST', body: bytes })).status).toBe(503)
  expect((await ask(uploadUrl, { method: 'POST', body: bytes })).status).toBe(201)
  const chunks = recorder.requests.filter(
    ({ method, path }) => method === 'POST' && path.startsWith('/api/v4/uploads/'),
  )
  expect(chunks).toHaveLength(2)
  for (const request of chunks) expect(Buffer.from(recorder.bodyOf(request)).equals(bytes)).toBe(true)
  const json = recorder.requests.find(({ path }) => path === '/api/v4/nodes/files/uploads')
  expect(json && JSON.parse(Buffer.from(recorder.bodyOf(json)).toString())).toEqual({ parentId: room, name: 'f' })
  expect(JSON.stringify(recorder.requests)).not.toContain(ann.token)
})

test('fault plans are checked', () => {
  const plan: FaultRule[] = [
    { on: { method: 'PUT', path: '/s3/' }, after: 2, times: 3, do: { status: 403 } },
    { on: { path: '.' }, do: { loseAnswer: true } },
    { on: { path: '.' }, do: { flipByteAt: 0 } },
    { on: { path: '.' }, do: { hold: true } },
  ]
  expect(parseFaultPlan(JSON.stringify(plan))).toEqual(plan)
  const bad: Json[] = [
    {},
    [{}],
    [{ on: {}, do: { status: 500 } }],
    [{ on: { path: '(' }, do: { status: 500 } }],
    [{ on: { path: '.' }, do: {} }],
    [{ on: { path: '.' }, do: { status: 500, garbage: true } }],
    [{ on: { path: '.' }, do: { status: 42 } }],
    [{ on: { path: '.' }, do: { delayMs: -1 } }],
    [{ on: { path: '.' }, do: { garbage: false } }],
    [{ on: { path: '.' }, do: { hold: 5 } }],
    [{ on: { path: '.' }, do: { status: 500 }, times: 1.5 }],
    [{ on: { path: '.' }, do: { status: 500 }, tmies: 1 }],
  ]
  for (const value of bad) {
    expect(() => parseFaultPlan(JSON.stringify(value)), JSON.stringify(value)).toThrowError(
      expect.objectContaining({ code: 'BAD_FAULT_PLAN' }),
    )
  }
  expect(() => parseFaultPlan('nope')).toThrowError(expect.objectContaining({ code: 'BAD_FAULT_PLAN' }))
})
