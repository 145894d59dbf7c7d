import { describe, expect, test } from 'vitest'
import { createSlabPool, inAnyOrder } from '../../src/transfer/flow.ts'
import fc from '../support/property.ts'

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

describe('inAnyOrder', () => {
  test('does everything once, keeps the window, and never pulls further ahead', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 12 }),
        fc.integer({ min: 1, max: 5 }),
        async (waits, window) => {
          let [pulled, running, most, settled] = [0, 0, 0, 0]
          async function* source() {
            for (const item of waits.keys()) {
              pulled++
              expect(pulled - settled).toBeLessThanOrEqual(window)
              yield item
            }
          }
          const out: number[] = []
          for await (const item of inAnyOrder(source(), { most: window }, async (at) => {
            most = Math.max(most, ++running)
            await turns(waits[at]!)
            running--
            settled++
            return at
          })) {
            out.push(item)
          }
          expect(out.toSorted((a, b) => a - b)).toEqual([...waits.keys()])
          expect(most).toBeLessThanOrEqual(window)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('what ends first comes first, and makes room, however long the oldest takes', async () => {
    const ends: (() => void)[] = []
    async function* source() {
      for (let at = 0; at < 6; at++) yield at
    }
    const work = (at: number) => new Promise<number>((resolve) => ends.push(() => resolve(at)))
    const results = inAnyOrder(source(), { most: 3 }, work)
    const next = async (at: number) => {
      const found = results.next()
      await turns(2)
      ends[at]!()
      return (await found).value
    }
    for (const at of [2, 1, 3, 5, 4, 0]) expect(await next(at)).toBe(at)
    expect(await results.next()).toEqual({ done: true, value: undefined })
  })

  test('what has been sent makes room for another one before it has ended, up to the window', async () => {
    const begun: (() => void)[] = []
    let running = 0
    async function* source() {
      for (let at = 0; at < 8; at++) yield at
    }
    const ends: (() => void)[] = []
    const work = async (_at: number, sent: () => void) => {
      begun.push(sent)
      running++
      await new Promise<void>((resolve) => ends.push(resolve))
      running--
    }
    const all = (async () => {
      for await (const _ of inAnyOrder(source(), { most: 4, sending: () => 2 }, work)) void _
    })()
    await turns(2)
    expect(begun).toHaveLength(2)
    begun[0]!()
    begun[0]!() // once is enough
    await turns(2)
    expect(begun).toHaveLength(3)
    begun[1]!()
    begun[2]!()
    await turns(2)
    expect(begun).toHaveLength(4) // as many as may be there at all
    for (let at = 0; at < 8; at++) {
      begun[at]!()
      ends[at]!()
      await turns(3)
      expect(running).toBeLessThanOrEqual(4)
    }
    await all
    expect(begun).toHaveLength(8)
  })

  test.each(['the work', 'the source', 'the consumer'])(
    'when %s fails, all has settled and the source is closed',
    async (who) => {
      let running = 0
      let closed = false
      async function* source() {
        try {
          for (let at = 0; at < 10; at++) {
            if (who === 'the source' && at === 5) throw new Error(who)
            yield at
          }
        } finally {
          closed = true
        }
      }
      const work = async (at: number) => {
        running++
        await turns(10 - at)
        running--
        if (who === 'the work' && at === 4) throw new Error(who)
        return at
      }
      const consume = async () => {
        for await (const at of inAnyOrder(source(), { most: 3 }, work))
          if (who === 'the consumer' && at === 4) throw new Error(who)
      }
      await expect(consume()).rejects.toThrow(who)
      expect({ running, closed }).toEqual({ running: 0, closed: true })
    },
  )
})

describe('slabs', () => {
  test('never more than allowed, never one at two places, and nobody waits for ever', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.record({ parts: fc.integer({ min: 1, max: 6 }), abortAt: fc.option(fc.nat(8)) }), {
          minLength: 1,
          maxLength: 8,
        }),
        async (count, files) => {
          const pool = createSlabPool(count, 8)
          const held = new Set<Uint8Array>()
          const upload = async ({ parts, abortAt }: { parts: number; abortAt: number | null }) => {
            const stop = new AbortController()
            if (abortAt !== null) turns(abortAt).then(() => stop.abort(new Error('stopped')))
            async function* slabs() {
              for (let part = 0; part < parts; part++) yield await pool.take(stop.signal)
            }
            const send = async (slab: Uint8Array) => {
              expect(held.has(slab)).toBe(false)
              held.add(slab)
              expect(held.size).toBeLessThanOrEqual(count)
              await turns(2)
              held.delete(slab)
              pool.give(slab)
            }
            for await (const _sent of inAnyOrder(slabs(), { most: 3 }, send)) void _sent
          }
          const done = await Promise.allSettled(files.map(upload))
          done.forEach((result, at) => {
            if (files[at]!.abortAt === null) expect(result.status).toBe('fulfilled')
          })
          // All came back.
          const all = await Promise.all(Array.from({ length: count }, () => pool.take()))
          expect(new Set(all).size).toBe(count)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('one who gives up waiting gets none, and the next one in line does', async () => {
    const pool = createSlabPool(1, 8)
    const slab = await pool.take()
    const stop = new AbortController()
    const first = pool.take(stop.signal)
    const second = pool.take()
    stop.abort(new Error('stopped'))
    await expect(first).rejects.toThrow('stopped')
    pool.give(slab)
    expect(await second).toBe(slab)
    await expect(pool.take(stop.signal)).rejects.toThrow('stopped')
  })
})
