import { expect, test } from 'vitest'
import { createSlabPool } from '../../src/transfer/flow.ts'
import { createPartWindow, partsInFlight } from '../../src/transfer/part-window.ts'
import { fakeClock } from '../support/clock.ts'

const PART = 8 * 1024 * 1024

/** Parts over a line, each as fast as its connection or its share of the bandwidth lets it. Bytes per second; `Infinity`: no limit. */
function send(most: number, parts: number, line: { bandwidth: number; connection: number }): number[] {
  const clock = fakeClock()
  const window = createPartWindow(most, clock)
  const seen: number[] = []
  for (let part = 0; part < parts; part++) {
    const sending = window.sending()
    seen.push(sending)
    const rate = Math.min(line.bandwidth, sending * line.connection)
    clock.advance((PART / rate) * 1000)
    window.acknowledged(PART)
  }
  return seen
}

test('where one connection fills the line there are two, and a third one is only tried now and then', () => {
  const seen = send(13, 200, { bandwidth: 3e6, connection: 3e6 })
  expect(Math.max(...seen)).toBe(3)
  expect(seen.filter((sending) => sending === 2).length).toBeGreaterThan(150)
})

test('where each connection is slow there are as many as there is memory for, or as bring something', () => {
  expect(send(9, 400, { bandwidth: Number.POSITIVE_INFINITY, connection: 1e6 }).at(-1)).toBe(9)
  const seen = send(13, 400, { bandwidth: 5e6, connection: 1e6 })
  expect(seen.at(-1)).toBeGreaterThanOrEqual(5)
  expect(Math.max(...seen)).toBeLessThanOrEqual(6)
})

test('never more than there may be, whatever the line does', () => {
  for (const most of [1, 2, 3, 7]) {
    const clock = fakeClock()
    const window = createPartWindow(most, clock)
    for (let part = 0; part < 300; part++) {
      clock.advance((part * 7919) % 1013)
      window.acknowledged(PART)
      expect(window.sending()).toBeGreaterThanOrEqual(Math.min(2, most))
      expect(window.sending()).toBeLessThanOrEqual(most)
    }
  }
})

test('parts in flight follow the memory, and leave some for other files', () => {
  expect([1, 2, 6, 16, 64].map((count) => partsInFlight(createSlabPool(count, 8)))).toEqual([3, 3, 3, 13, 61])
})
