import { expect, test } from 'vitest'
import { mapLimit } from '../../src/session/index.ts'
import { settle } from '../support/clock.ts'
import { errorOf } from '../support/servers.ts'

test('at most so many at once, results in order, items taken as they are worked on', async () => {
  let [running, most, taken] = [0, 0, 0]
  const ends: (() => void)[] = []
  async function* endless() {
    for (;;) {
      if (taken === 20) return
      yield taken++
    }
  }
  const all = mapLimit(endless(), 3, async (item, index) => {
    most = Math.max(most, ++running)
    await new Promise<void>((resolve) => ends.push(resolve))
    running--
    return `${item} ${index}`
  })
  await settle()
  expect([most, taken]).toEqual([3, 3])
  let isDone = false
  all.finally(() => {
    isDone = true
  })
  while (!isDone) {
    ends.pop()?.()
    await settle()
  }
  expect(await all).toEqual(Array.from({ length: 20 }, (_, n) => `${n} ${n}`))
  expect(most).toBe(3)
})

test('the first failure ends it, when what has begun is over', async () => {
  const done: number[] = []
  const error = await errorOf(
    mapLimit([0, 1, 2, 3, 4, 5, 6, 7], 2, async (item) => {
      if (item === 2) throw new Error('two')
      await settle()
      done.push(item)
    }),
  )
  expect(error.message).toBe('two')
  expect(done.length).toBeLessThan(5)
})

test('a source that fails, an abort, nothing at all, a limit that is none', async () => {
  const failing = (function* () {
    yield 1
    throw new Error('source')
  })()
  expect((await errorOf(mapLimit(failing, 2, async (one) => one))).message).toBe('source')
  const stop = AbortSignal.abort(new Error('stopped'))
  expect((await errorOf(mapLimit([1], 1, async (one) => one, { signal: stop }))).message).toBe('stopped')
  expect(await mapLimit([], 1, async (one) => one)).toEqual([])
  for (const limit of [0, -1, 1.5, Number.NaN]) {
    expect(await errorOf(mapLimit([1], limit, async (one) => one))).toBeInstanceOf(RangeError)
  }
})
