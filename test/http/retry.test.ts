import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { SyncError } from '../../src/errors.ts'
import { type Outcome, retryAfterMs, retryDelay, withRetry } from '../../src/http/retry.ts'
import type { HttpRequest, HttpResponse } from '../../src/http/types.ts'
import { fakeClock, settle, steadyRandom } from '../support/clock.ts'
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

  test('full jitter below a limit that doubles up to 30 s, five tries', () => {
    const at = (attempt: number, random: number) => retryDelay(attempt, request(), { status: 500 }, random)
    expect([1, 2, 3, 4, 5, 6].map((attempt) => at(attempt, 0))).toEqual([0, 0, 0, 0, undefined, undefined])
    expect([1, 2, 3, 4].map((attempt) => at(attempt, 0.5))).toEqual([250, 500, 1000, 2000])
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

  test('gives up after five tries with the last answer, or the last error', async () => {
    let tries = 0
    const options = { clock: fakeClock(), random: steadyRandom() }
    const busy = withRetry(async () => reply(500 + (++tries === 5 ? 4 : 0)), options)
    expect((await busy(request())).status).toBe(504)
    expect(tries).toBe(5)
    const errors: Error[] = []
    const down = withRetry(async () => {
      errors.push(networkError())
      throw errors.at(-1)
    }, options)
    expect(await errorOf(down(request()))).toBe(errors[4])
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

  test('an outage spends the shared budget, and then every request fails at its first try', async () => {
    let sent = 0
    const send = withRetry(
      async () => {
        sent++
        throw networkError()
      },
      { clock: fakeClock(), random: steadyRandom() },
    )
    for (let i = 0; i < 100; i++) await errorOf(send(request()))
    // 40 to start with and one in ten.
    expect(sent - 100).toBeGreaterThanOrEqual(40)
    expect(sent - 100).toBeLessThanOrEqual(51)
    const before = sent
    for (let i = 0; i < 5; i++) await errorOf(send(request()))
    expect(sent - before).toBeLessThanOrEqual(6)
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
