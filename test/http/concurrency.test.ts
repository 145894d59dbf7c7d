import { describe, expect, test } from 'vitest'
import { SyncError } from '../../src/errors.ts'
import { createConcurrency } from '../../src/http/concurrency.ts'
import type { HttpRequest, HttpResponse } from '../../src/http/types.ts'
import { fakeClock, settle } from '../support/clock.ts'
import { dialer, httpServer } from '../support/servers.ts'

const ORIGIN = 'https://api.example'
const answer = (status: number): HttpResponse => ({ status, headers: {}, body: new Uint8Array(0) })

/** Requests that are answered when a test says so. */
function world(most = 128) {
  const clock = fakeClock()
  const concurrency = createConcurrency(most, clock)
  const pending: { readonly request: HttpRequest; readonly end: (how: number | Error) => void }[] = []
  const send = concurrency.wrap((request) => {
    request.onStart?.()
    return new Promise((resolve, reject) => {
      pending.push({ request, end: (how) => (how instanceof Error ? reject(how) : resolve(answer(how))) })
    })
  })
  const ask = (count: number, more: Partial<HttpRequest> = {}, origin = ORIGIN) =>
    Array.from({ length: count }, () => send({ method: 'GET', url: `${origin}/nodes`, ...more }))
  /** All that are under way are answered, so many milliseconds later. */
  const turn = async (ms: number, how: number | Error = 200) => {
    await settle()
    clock.advance(ms)
    const now = pending.splice(0)
    for (const { end } of now) end(how)
    await settle()
    return now.length
  }
  return { concurrency, allowed: (origin = ORIGIN) => concurrency.allowed(origin), pending, ask, turn }
}

const quiet = (work: Promise<unknown>[]) => work.map((one) => one.catch((error) => error))

describe('requests at once', () => {
  test('a near server gets 16, however many there are to send', async () => {
    const { ask, turn, allowed } = world()
    const all = ask(500)
    // The first answers are fast, and those that follow wait for each other.
    expect(await turn(2)).toBe(16)
    while ((await turn(20)) > 0) void 0
    await Promise.all(all)
    expect(allowed()).toBeLessThanOrEqual(32)
  })

  test('as long as answers take no longer there are more, up to as many as there may be', async () => {
    const { ask, turn, allowed } = world(100)
    const all = ask(600)
    const seen: number[] = []
    for (let now = await turn(50); now > 0; now = await turn(50)) seen.push(now)
    await Promise.all(all)
    expect(seen.slice(0, 4)).toEqual([16, 32, 64, 100])
    expect(allowed()).toBe(100)
  })

  test('the farther a server is, the more there are from the beginning', async () => {
    const { ask, turn, allowed } = world()
    const first = ask(2)
    await turn(600)
    await Promise.all(first)
    expect(allowed()).toBe(60)
    const few = world(20)
    few.ask(1)
    await few.turn(5_000)
    expect(few.allowed()).toBe(20)
  })

  test('what was never full says nothing of more, and neither do long bodies', async () => {
    const { ask, turn, allowed } = world()
    for (let round = 0; round < 20; round++) {
      const some = ask(5)
      await turn(50)
      await Promise.all(some)
    }
    expect(allowed()).toBe(16)
    const large = ask(64, { method: 'PUT', body: new Uint8Array(100_000) })
    while ((await turn(50)) > 0) void 0
    await Promise.all(large)
    expect(allowed()).toBe(16)
  })

  test.each([
    ['429', 429],
    ['503', 503],
    [
      'no more open files',
      new SyncError('network', 'NETWORK', 'none', { cause: Object.assign(new Error(), { code: 'EMFILE' }) }),
    ],
    ['a time-out', new SyncError('network', 'TIMEOUT_ANSWER', 'too long', { retryable: true })],
  ])('%s halves them, once for all that were under way, down to one', async (_name, how) => {
    const { ask, turn, allowed } = world()
    for (const expected of [8, 4, 2, 1, 1]) {
      const some = quiet(ask(allowed()))
      await turn(50, how)
      await Promise.all(some)
      expect(allowed()).toBe(expected)
    }
    // Then one more for as many good answers as there may be at once.
    const all = ask(40)
    const seen: number[] = []
    for (let now = await turn(50); now > 0; now = await turn(50)) seen.push(now)
    await Promise.all(all)
    expect(seen.slice(0, 4)).toEqual([1, 2, 3, 4])
  })

  test('other failures, and other answers, halve nothing', async () => {
    const { ask, turn, allowed } = world()
    for (const how of [404, 500, new SyncError('network', 'NETWORK', 'reset', { retryable: true })]) {
      const some = quiet(ask(4))
      await turn(50, how)
      await Promise.all(some)
    }
    expect(allowed()).toBe(16)
  })

  test('servers know nothing of each other', async () => {
    const { ask, turn, allowed, concurrency } = world()
    let changes = 0
    const stop = concurrency.onChange(() => changes++)
    const some = ask(3, {}, 'https://storage.example')
    await turn(50, 503)
    await Promise.all(some)
    expect([allowed('https://storage.example'), allowed(), changes]).toEqual([8, 16, 1])
    stop()
    const more = ask(3, {}, 'https://storage.example')
    await turn(50, 503)
    await Promise.all(more)
    expect([allowed('https://storage.example'), changes]).toEqual([4, 1])
  })

  test('who gives up waiting takes nobody’s place', async () => {
    const { ask, turn, pending } = world(1)
    const stop = new AbortController()
    const first = ask(1)
    const second = quiet(ask(1, { signal: stop.signal }))
    const third = ask(1)
    await settle()
    expect(pending).toHaveLength(1)
    stop.abort(new Error('stopped'))
    expect(await second[0]).toMatchObject({ message: 'stopped' })
    await turn(1)
    await turn(1)
    expect((await Promise.all([...first, ...third])).map(({ status }) => status)).toEqual([200, 200])
    expect(quiet(ask(1, { signal: stop.signal }))).toHaveLength(1)
  })
})

test('one request after the other needs one connection; two that need not wait for each other have two', async () => {
  const server = await httpServer((_request, response) => response.end('{}'))
  const send = dialer()
  const ask = (more: Partial<HttpRequest> = {}) => send({ method: 'GET', url: `${server.origin}/x`, ...more })
  for (let i = 0; i < 10; i++) await ask()
  expect(server.connections()).toBe(1)
  for (let i = 0; i < 5; i++) {
    for await (const _chunk of (await ask({ stream: true })).stream!) void _chunk
    await ask()
  }
  expect(server.connections()).toBe(1)
  await Promise.all([ask(), ask()])
  await Promise.all([ask(), ask()])
  expect(server.connections()).toBe(2)
})
