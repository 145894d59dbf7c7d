import { describe, expect, test } from 'vitest'
import { limitsAt, withRate } from '../../src/http/rate.ts'
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

describe('timetables', () => {
  /** Thursday 15 January 2026, local time. */
  const at = (hours: number, minutes = 0, day = 15) => new Date(2026, 0, day, hours, minutes).getTime()

  test('the entry whose time came last counts, around midnight and the week', () => {
    const daily = [
      { minute: 8 * 60, up: 1 },
      { minute: 18 * 60, up: 2 },
    ]
    const ups = [at(8), at(17, 59), at(18), at(23), at(0), at(7, 59)].map((now) => limitsAt(daily, now).up)
    expect(ups).toEqual([1, 1, 2, 2, 2, 2])

    const weekly = [
      { day: 1, minute: 8 * 60, up: 1 },
      { day: 5, minute: 18 * 60, up: 2 },
    ]
    // Thursday, Friday, Sunday, Monday before and after.
    const times = [at(12), at(18, 0, 16), at(12, 0, 18), at(7, 59, 19), at(8, 0, 19)]
    expect(times.map((now) => limitsAt(weekly, now).up)).toEqual([1, 2, 2, 2, 1])
  })

  test('what is for a day goes before what is for every day at the same time', () => {
    const thursday = { day: 4, minute: 60, up: 2 }
    const daily = { minute: 60, up: 1 }
    for (const plan of [
      [thursday, daily],
      [daily, thursday],
    ]) {
      expect(limitsAt(plan, at(1)).up).toBe(2)
      expect(limitsAt(plan, at(1, 0, 16)).up).toBe(1)
    }
  })

  test('a change counts for those who wait already, in either direction', async () => {
    const clock = fakeClock('auto', at(7, 59))
    const plan = [
      { minute: 8 * 60, up: 10_000 },
      { minute: 8 * 60 + 1 },
      { minute: 8 * 60 + 2, up: 1_000 },
      { minute: 7 * 60, up: 1_000 },
    ]
    const sent: number[] = []
    const send = withRate(
      async (request) => {
        sent.push(clock.monotonic())
        return echo(request)
      },
      plan,
      clock,
    )
    await send(put(160_000))
    // A minute at 1,000 and then 100,000 bytes at 10,000.
    await send(put(1_000_000))
    expect(sent).toEqual([0, 70_000])
    // What is left after another 50 s is free from 8:01 on.
    await send(put(1))
    await send(put(1))
    expect(sent.slice(2)).toEqual([120_000, 120_000])
    clock.advance(60_000)
    await send(put(10_000))
    await send(put(1))
    expect(sent.slice(4)).toEqual([180_000, 190_000])
  })
})
