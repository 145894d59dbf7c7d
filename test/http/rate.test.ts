import { expect, test } from 'vitest'
import { withRate } from '../../src/http/rate.ts'
import type { HttpRequest, Send } from '../../src/http/types.ts'
import { fakeClock } from '../support/clock.ts'
import { errorOf } from '../support/servers.ts'

const put = (bytes: number, signal?: AbortSignal): HttpRequest => ({
  method: 'PUT',
  url: 'https://x.test/',
  body: new Uint8Array(bytes),
  ...(signal === undefined ? {} : { signal }),
})

async function* chunks(count: number, bytes: number) {
  for (let i = 0; i < count; i++) yield new Uint8Array(bytes)
}

const echo: Send = async () => ({ status: 200, headers: {}, body: new Uint8Array(0) })

test('bodies wait for their turn: over all requests together no more than the rate', async () => {
  const clock = fakeClock()
  const sent: number[] = []
  const send = withRate(
    async (request) => {
      sent.push(clock.monotonic())
      return echo(request)
    },
    { up: 1_000 },
    clock,
  )
  for (let i = 0; i < 5; i++) await send(put(2_000))
  // The first goes at once and has to be paid for by the next.
  expect(sent).toEqual([0, 2_000, 4_000, 6_000, 8_000])
  await send({ method: 'GET', url: 'https://x.test/' })
  expect(clock.monotonic()).toBe(8_000)
})

test('answers are read at the rate, in total over streams; a pause earns only a short burst', async () => {
  const clock = fakeClock()
  const stream = () => chunks(10, 100)
  const send = withRate(async () => ({ ...(await echo(put(0))), stream: stream() }), { down: 1_000 }, clock)
  const read = async () => {
    let bytes = 0
    for await (const chunk of (await send({ method: 'GET', url: 'https://x.test/', stream: true })).stream!)
      bytes += chunk.length
    return bytes
  }
  expect(await read()).toBe(1_000)
  expect(clock.monotonic()).toBe(900)
  expect(await read()).toBe(1_000)
  expect(clock.monotonic()).toBe(1_900)
  clock.advance(3_600_000)
  await read()
  expect(clock.monotonic()).toBe(3_600_000 + 1_900 + 900 - 250)
})

test('a wait ends with its request, and without limits nothing is wrapped', async () => {
  const clock = fakeClock('manual')
  const send = withRate(echo, { up: 1 }, clock)
  await send(put(1_000))
  const stop = new AbortController()
  const waiting = errorOf(send(put(1, stop.signal)))
  stop.abort(new Error('given up'))
  expect((await waiting).message).toBe('given up')
  expect(withRate(echo, {}, clock)).toBe(echo)
})
