import { describe, expect, test } from 'vitest'
import { SyncError } from '../../src/errors.ts'
import { createRetry, type Outcome, retryAfterMs, retryDelay, withRetry } from '../../src/http/retry.ts'
import type { HttpRequest, HttpResponse } from '../../src/http/types.ts'
import { fakeClock, settle, steadyRandom } from '../support/clock.ts'
import fc from '../support/property.ts'
import { errorOf } from '../support/servers.ts'

const request = (method: HttpRequest['method'] = 'GET', more: Partial<HttpRequest> = {}): HttpRequest => ({
  method,
  url: 'https://x.test/',
  ...more,
})
const networkError = (retryable = true) => new SyncError('network', 'NETWORK', 'No answer', { retryable })
const reply = (status: number, headers: Record<string, string> = {}): HttpResponse => ({
  status,
  headers,
  body: new Uint8Array(),
})

describe('the decision', () => {
  const idle = new Set([408, 425, 429, 500, 502, 503, 504])

  test('which statuses are tried again, by method and what the caller declared', () => {
    const methods: HttpRequest['method'][] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']
    for (let status = 100; status < 1000; status++) {
      for (const method of methods) {
        for (const repeatable of [undefined, true, false]) {
          const asked = request(method, repeatable === undefined ? {} : { repeatable })
          const isSafe = repeatable ?? (method === 'GET' || method === 'HEAD')
          const expected = idle.has(status) && (isSafe || status === 429 || (status === 503 && repeatable !== false))
          const delay = retryDelay(1, asked, { status }, 0.5)
          expect(delay !== undefined, `${method} ${status} ${repeatable}`).toBe(expected)
        }
      }
    }
  })

  test('which errors are tried again', () => {
    const table: [HttpRequest, unknown, boolean][] = [
      [request('GET'), networkError(), true],
      [request('GET'), networkError(false), false],
      [request('GET'), new SyncError('tls', 'TLS_FAILED', 'x'), false],
      [request('GET'), new SyncError('safety', 'ADDRESS_REFUSED', 'x'), false],
      [request('GET'), new Error('a defect'), false],
      [request('GET'), new DOMException('stop', 'AbortError'), false],
      [request('GET', { repeatable: false }), networkError(), false],
      [request('POST'), networkError(), false],
      [request('PUT'), networkError(), false],
      [request('DELETE'), networkError(), false],
      [request('POST', { repeatable: true }), networkError(), true],
      [request('PUT', { repeatable: true }), networkError(), true],
    ]
    for (const [asked, error, expected] of table) {
      expect(retryDelay(1, asked, { error }, 0) !== undefined).toBe(expected)
    }
  })

  test('what was never sent is tried again for every method, even where repeating is forbidden', () => {
    const unsent = (code: string) =>
      new SyncError('network', 'NETWORK', 'x', { retryable: true, cause: Object.assign(new Error('x'), { code }) })
    for (const method of ['POST', 'PUT', 'DELETE'] as const) {
      for (const more of [{}, { repeatable: false }]) {
        expect(retryDelay(1, request(method, more), { error: unsent('ECONNREFUSED') }, 0)).toBe(0)
        expect(retryDelay(1, request(method, more), { error: unsent('EAI_AGAIN') }, 0)).toBe(0)
        expect(retryDelay(1, request(method, more), { error: unsent('ECONNRESET') }, 0)).toBeUndefined()
      }
    }
  })

  test('full jitter below a limit that doubles up to 30 s, 10 s without an answer; never none for long', () => {
    const at = (attempt: number, random: number) => retryDelay(attempt, request(), { status: 500 }, random)
    expect([1, 2, 3, 4, 5, 6, 7, 99].map((attempt) => at(attempt, 0))).toEqual([0, 0, 0, 0, 4000, 8000, 15_000, 15_000])
    expect([1, 2, 3, 4].map((attempt) => at(attempt, 0.5))).toEqual([250, 500, 1000, 2000])
    expect(retryDelay(99, request(), { error: networkError() }, 0)).toBe(5_000)
  })

  test('only for as long as there is patience; what the server asks for may be longer', () => {
    expect(retryDelay(9, request(), { status: 500 }, 0.5, 1_000)).toBe(1_000)
    expect(retryDelay(9, request(), { status: 503, retryAfterMs: 60_000 }, 0.5, 1_000)).toBe(61_000)
    for (const left of [0, -1]) expect(retryDelay(1, request(), { status: 503 }, 0, left)).toBeUndefined()
  })

  test('Retry-After is a floor with jitter on top; above five minutes it ends the tries', () => {
    const at = (retryAfterMs: number, random: number) =>
      retryDelay(1, request('POST'), { status: 429, retryAfterMs }, random)
    expect(at(7000, 0)).toBe(7000)
    expect(at(7000, 0.5)).toBe(7250)
    expect(at(300_000, 0)).toBe(300_000)
    expect(at(300_001, 0)).toBeUndefined()
    expect(at(Number.POSITIVE_INFINITY, 0)).toBeUndefined()
  })

  test('property: a delay is finite, never negative and below floor plus 30 s', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.option(fc.integer({ min: 0, max: 300_000 }), { nil: undefined }),
        (attempt, random, floor) => {
          const outcome: Outcome = { status: 503, retryAfterMs: floor }
          const delay = retryDelay(attempt, request(), outcome, random)!
          expect(delay).toBeGreaterThanOrEqual(floor ?? 0)
          expect(delay).toBeLessThan((floor ?? 0) + 30_000)
        },
      ),
    )
  })
})

describe('Retry-After', () => {
  const now = Date.UTC(2026, 0, 1, 12)
  const date = 'Thu, 01 Jan 2026 11:00:00 GMT'
  test.each([
    [{}, undefined],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': '120' }, 120_000],
    [{ 'retry-after': ' 5 ' }, 5000],
    [{ 'retry-after': 'soon' }, undefined],
    [{ 'retry-after': '' }, undefined],
    // Measured with the answer's own clock, which is an hour behind ours.
    [{ 'retry-after': 'Thu, 01 Jan 2026 11:00:30 GMT', date }, 30_000],
    [{ 'retry-after': 'Thu, 01 Jan 2026 10:00:00 GMT', date }, 0],
    [{ 'retry-after': 'Thu, 01 Jan 2026 12:00:10 GMT' }, 10_000],
    [{ 'retry-after': 'Thu, 01 Jan 2026 12:00:10 GMT', date: 'nonsense' }, 10_000],
    [{ 'retry-after': '9'.repeat(400) }, Number.POSITIVE_INFINITY],
  ])('%j', (headers, expected) => {
    expect(retryAfterMs(headers as Record<string, string>, now)).toBe(expected)
  })

  test('odd values never make a negative or undefined wait', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (value, when) => {
        const ms = retryAfterMs({ 'retry-after': value, date: when }, now)
        expect(ms === undefined || ms >= 0).toBe(true)
      }),
    )
  })
})

describe('repeating', () => {
  test('ends with the first answer that is one; the caller sees only that', async () => {
    const clock = fakeClock()
    const answers = [reply(503), reply(500), networkError(), reply(200)]
    const events: unknown[] = []
    const send = withRetry(
      async () => {
        const next = answers.shift()!
        if (next instanceof Error) throw next
        return next
      },
      { clock, random: steadyRandom(0.5), onRetry: (event) => events.push(event) },
    )
    expect(await send(request('GET', { label: '/a/{id}' }))).toMatchObject({ status: 200 })
    expect(events).toEqual([
      { label: '/a/{id}', attempt: 1, delayMs: 250, reason: 'status 503', status: 503 },
      { label: '/a/{id}', attempt: 2, delayMs: 500, reason: 'status 500', status: 500 },
      { label: '/a/{id}', attempt: 3, delayMs: 1000, reason: 'No answer' },
    ])
    expect(clock.sleeps).toEqual([250, 500, 1000])
  })

  test('gives up when patience is over, with the last answer or the last error', async () => {
    for (const retryForMs of [0, 8_000, undefined]) {
      const clock = fakeClock()
      const options = { clock, random: steadyRandom(0.5), ...(retryForMs === undefined ? {} : { retryForMs }) }
      let tries = 0
      const busy = withRetry(async () => reply(++tries % 2 === 0 ? 503 : 500), options)
      expect((await busy(request())).status).toBe(tries % 2 === 0 ? 503 : 500)
      expect(clock.monotonic()).toBe(retryForMs ?? 120_000)
      const errors: Error[] = []
      const down = withRetry(async () => {
        errors.push(networkError())
        throw errors.at(-1)
      }, options)
      expect(await errorOf(down(request()))).toBe(errors.at(-1))
      expect(errors.length === 1).toBe(retryForMs === 0)
    }
  })

  test('five failures of one request, while others get through, are its own', async () => {
    const clock = fakeClock()
    let tries = 0
    const send = withRetry(
      async ({ url }) => {
        if (url === 'https://x.test/good') return reply(200)
        tries++
        // Others get through meanwhile.
        await send(request('GET', { url: 'https://x.test/good' }))
        throw networkError()
      },
      { clock, random: steadyRandom(0.5) },
    )
    await errorOf(send(request('GET', { url: 'https://x.test/bad' })))
    expect(tries).toBe(5)
    expect(clock.monotonic()).toBeLessThan(10_000)
  })

  test('one Retry-After holds back every request', async () => {
    const clock = fakeClock('manual')
    const started: string[] = []
    const send = withRetry(
      async ({ url }) => {
        started.push(url)
        return started.length === 1 ? reply(429, { 'retry-after': '10' }) : reply(200)
      },
      { clock, random: steadyRandom() },
    )
    const all = [send(request('GET', { url: 'a' }))]
    await settle()
    all.push(send(request('GET', { url: 'b' })), send(request('POST', { url: 'c' })))
    await settle()
    expect(started).toEqual(['a'])
    clock.advance(9999)
    await settle()
    expect(started).toEqual(['a'])
    clock.advance(1)
    await Promise.all(all)
    expect(started.slice(1).sort()).toEqual(['a', 'b', 'c'])
  })

  test('a gate that moves while somebody waits at it is waited for again', async () => {
    const clock = fakeClock('manual')
    const started: [string, number][] = []
    const waits: Record<string, string[]> = { a: ['10'], b: ['30'] }
    let release: (response: HttpResponse) => void = () => {}
    const first = new Promise<HttpResponse>((resolve) => {
      release = resolve
    })
    const send = withRetry(
      async ({ url }) => {
        started.push([url, clock.monotonic()])
        const wait = waits[url]?.shift()
        if (url === 'b' && wait !== undefined) return first
        return wait === undefined ? reply(200) : reply(429, { 'retry-after': wait })
      },
      { clock, random: steadyRandom() },
    )
    // b is under way when a's answer closes the gate; b's answer then closes it for longer.
    const all = [send(request('GET', { url: 'b' })), send(request('GET', { url: 'a' }))]
    await settle()
    all.push(send(request('GET', { url: 'c' })))
    await settle()
    clock.advance(5000)
    release(reply(429, { 'retry-after': '30' }))
    await settle()
    clock.advance(6000)
    await settle()
    expect(started.map(([url]) => url)).toEqual(['b', 'a'])
    for (let i = 0; i < 5; i++) {
      clock.advance(24_000)
      await settle()
    }
    await Promise.all(all)
    for (const [, at] of started.slice(2)) expect(at).toBeGreaterThanOrEqual(35_000)
  })

  describe('a server that is away', () => {
    /** Many requests at a server that is away until it is told otherwise; `away` is never sent more than one at a time. */
    function world(retryForMs?: number, count = 16) {
      const clock = fakeClock('manual')
      const events: unknown[] = []
      const state = { isAway: true, now: 0, most: 0, sent: 0, tried: new Set<string>() }
      const retry = createRetry({
        clock,
        random: steadyRandom(0.5),
        onWaiting: (event) => events.push(event),
        ...(retryForMs === undefined ? {} : { retryForMs }),
      })
      const send = retry(async ({ url }) => {
        state.sent++
        state.tried.add(url)
        state.most = Math.max(state.most, ++state.now)
        await settle()
        state.now--
        if (state.isAway) throw networkError()
        return reply(200)
      })
      const start = (from = 0) =>
        Array.from({ length: count }, (_, at) => send(request('GET', { url: `https://x.test/${from + at}` })))
      const pass = async (ms: number) => {
        for (let at = 0; at < ms; at += 500) {
          clock.advance(500)
          await settle()
          await settle()
        }
      }
      return { clock, events, state, send, start, pass }
    }

    test.each([6_000, 60_000])('for %i ms: one request at a time, in turn; then all go on', async (outage) => {
      const { events, state, start, pass } = world()
      const all = start()
      await settle()
      await settle()
      expect(state.sent).toBe(16)
      state.most = 0
      state.tried.clear()
      all.push(...start(100))
      await pass(outage)
      expect(state.most).toBe(1)
      expect(state.sent - 16).toBeLessThan(3 + outage / 2_000)
      expect(state.tried.size).toBeGreaterThan(1)
      state.isAway = false
      await pass(12_000)
      for (const one of await Promise.all(all)) expect(one.status).toBe(200)
      expect(events).toEqual([{ origin: 'https://x.test', reason: 'No answer', leftMs: 120_000 }])
    })

    test('for longer than anybody waits: all fail, those after them at their first try, until it is back', async () => {
      const { events, state, send, start, pass } = world(20_000)
      const all = Promise.allSettled(start())
      await pass(40_000)
      const results = await all
      expect(results.every(({ status }) => status === 'rejected')).toBe(true)
      const before = state.sent
      const late = await Promise.all(start(200).map((one) => errorOf(one)))
      expect(late.every((error) => error.code === 'NETWORK')).toBe(true)
      expect(state.sent - before).toBeLessThanOrEqual(16)
      expect(events).toHaveLength(1)
      state.isAway = false
      expect((await send(request())).status).toBe(200)
    })

    test('who waits can be stopped, whether it tries or not', async () => {
      const { state, send, start, pass } = world()
      const stop = new AbortController()
      const stopped = Array.from({ length: 4 }, () => errorOf(send(request('GET', { signal: stop.signal }))))
      const others = start()
      await pass(3_000)
      const reason = new Error('enough')
      stop.abort(reason)
      expect(await Promise.all(stopped)).toEqual([reason, reason, reason, reason])
      state.isAway = false
      await pass(12_000)
      expect((await Promise.all(others)).map(({ status }) => status)).toEqual(Array(16).fill(200))
    })

    test('another server is not waited for', async () => {
      const clock = fakeClock('manual')
      const send = withRetry(
        async ({ url }) => {
          if (url.startsWith('https://x')) throw networkError()
          return reply(200)
        },
        { clock, random: steadyRandom(0.5) },
      )
      const stop = new AbortController()
      const away = Array.from({ length: 4 }, () => errorOf(send(request('GET', { signal: stop.signal }))))
      await settle()
      expect((await send(request('GET', { url: 'https://y.test/' }))).status).toBe(200)
      stop.abort(new Error('enough'))
      await Promise.all(away)
    })

    test('logins wait out what is busy or not there yet, and nothing else', async () => {
      const clock = fakeClock()
      const answers = [reply(503, { 'retry-after': '1' }), reply(429, { 'retry-after': '2' }), reply(200)]
      const retry = createRetry({ clock, random: steadyRandom() })
      const send = retry(async () => answers.shift()!, { busyOnly: true })
      expect((await send(request('POST'))).status).toBe(200)
      expect(clock.monotonic()).toBe(3_000)
      let tries = 0
      const cut = retry(
        async () => {
          tries++
          throw networkError()
        },
        { busyOnly: true },
      )
      await errorOf(cut(request('GET')))
      expect(tries).toBe(1)
      // What never got there is counted by nobody; a name that does not exist was perhaps not meant.
      const unsent = (code: string) =>
        new SyncError('network', 'NETWORK', 'x', { retryable: true, cause: Object.assign(new Error('x'), { code }) })
      for (const [code, expected] of [
        ['ECONNREFUSED', 3],
        ['ENOTFOUND', 1],
      ] as const) {
        let sent = 0
        const starting = retry(
          async () => {
            if (++sent < 3) throw unsent(code)
            return reply(200)
          },
          { busyOnly: true },
        )
        await starting(request('POST')).catch(() => {})
        expect(sent).toBe(expected)
      }
    })
  })

  test('the signal ends a wait, with its reason', async () => {
    const clock = fakeClock('manual')
    const stop = new AbortController()
    let sent = 0
    const send = withRetry(
      async () => {
        sent++
        return reply(503)
      },
      { clock, random: steadyRandom(0.9) },
    )
    const waiting = send(request('GET', { signal: stop.signal }))
    await settle()
    const reason = new Error('enough')
    stop.abort(reason)
    expect(await errorOf(waiting)).toBe(reason)
    expect(sent).toBe(1)
  })
})
