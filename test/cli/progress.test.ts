/** What is said of how far a run is: its line at any width, and the time that is left. */

import { describe, expect, test } from 'vitest'
import { createEstimate } from '../../src/cli/estimate.ts'
import { columnsOf, cut, durationText, fileLine, phaseLine, progressLine } from '../../src/cli/progress-line.ts'
import fc from '../support/property.ts'

const letters = ['█', '░'] as const

const state = fc.record({
  verb: fc.constantFrom('Uploading', 'Synchronizing', 'handing out'),
  share: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom(0, 1)),
  files: fc.nat(2_000_000),
  allFiles: fc.nat(2_000_000),
  bytes: fc.maxSafeNat(),
  allBytes: fc.maxSafeNat(),
  rate: fc.option(fc.double({ min: 0, max: 1e12, noNaN: true }), { nil: undefined }),
  secondsLeft: fc.option(fc.double({ min: 0, noNaN: true }), { nil: undefined }),
  phase: fc.option(fc.constantFrom('unlocking the key', 'looking at both sides', 'waiting for the server'), {
    nil: undefined,
  }),
})
const width = fc.integer({ min: 1, max: 250 })
const name = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom(
    '写真/東京タワー.jpg',
    '👩‍👩‍👧 Familie 🇩🇪',
    'e\u0301\u0302té'.repeat(30),
    '\u001b[31mrot\u202e',
    'ﾊﾝｶｸ',
  ),
)

describe('the line of a run', () => {
  test('is never wider than the terminal, nor has it anything that moves the cursor', () => {
    fc.assert(
      fc.property(state, width, (state, width) => {
        const line = progressLine(state, width, letters)
        expect(columnsOf(line)).toBeLessThanOrEqual(width)
        expect(line).toMatch(/^[^\p{Cc}]*$/u)
      }),
    )
  })

  test('nor that of a file, whatever its name', () => {
    fc.assert(
      fc.property(name, fc.maxSafeNat(), fc.maxSafeNat(), width, (name, bytes, allBytes, width) => {
        const line = fileLine({ name, bytes, allBytes }, width, letters)
        expect(columnsOf(line)).toBeLessThanOrEqual(width)
        expect(line).toMatch(/^[^\p{Cc}]*$/u)
      }),
    )
  })

  test('nor that of a phase', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, noNaN: true }), width, (seconds, width) => {
        expect(columnsOf(phaseLine('Uploading', 'looking at both sides', seconds, width))).toBeLessThanOrEqual(width)
      }),
    )
  })

  const half = {
    verb: 'Uploading',
    share: 0.5,
    files: 12,
    allFiles: 345,
    bytes: 617_000_000,
    allBytes: 1_234_000_000,
    rate: 12_300_000,
    secondsLeft: 50,
  }

  test('says the most useful things first', () => {
    const at = (width: number) => progressLine(half, width, letters)
    expect(at(120)).toBe(
      'Uploading  ███████████████░░░░░░░░░░░░░░░   50%  617.0 MB of 1.2 GB  12/345 files  12.3 MB/s  ETA 0:50',
    )
    expect(at(80)).toBe('Uploading  ████░░░░   50%  617.0 MB of 1.2 GB  12/345 files  12.3 MB/s  ETA 0:50')
    expect(at(40)).toBe('Uploading   50%  12.3 MB/s  ETA 0:50')
    expect(at(16)).toBe(' 50%  ETA 0:50')
    expect(at(4)).toBe(' 50%')
    expect(at(3)).toBe('50%')
    expect(at(2)).toBe('5…')
  })

  test('says what is waited for, and no time that nobody knows', () => {
    const { rate: _rate, secondsLeft: _left, ...unknown } = half
    expect(progressLine(unknown, 80, letters)).not.toContain('ETA')
    expect(progressLine({ ...half, phase: 'unlocking the key' }, 80, letters)).toContain('unlocking the key')
    expect(progressLine({ ...half, secondsLeft: 98 * 3600 }, 80, letters)).toContain('ETA >1 d')
    expect(progressLine({ ...half, share: 0.999999 }, 80, letters)).toContain(' 99%')
  })
})

test('columns: wide letters, and such as are put over others', () => {
  expect(columnsOf('abc')).toBe(3)
  expect(columnsOf('東京')).toBe(4)
  expect(columnsOf('e\u0301')).toBe(1)
  expect(columnsOf('👍')).toBe(2)
  expect(columnsOf('❤\ufe0f')).toBe(2)
  expect(columnsOf('한글')).toBe(4)
  expect(columnsOf('█░…·')).toBe(4)
  expect(cut('東京タワー', 5)).toBe('東京…')
  expect(cut('東京タワー', 4)).toBe('東…')
  expect(cut('東京', 4)).toBe('東京')
  expect(cut('ab', 0)).toBe('')
})

test('durations', () => {
  expect([0, 0.2, 59, 60, 3599.1, 86_399, 86_400, Number.POSITIVE_INFINITY, Number.NaN].map(durationText)).toEqual([
    '0:00',
    '0:01',
    '0:59',
    '1:00',
    '1:00:00',
    '23:59:59',
    '>1 d',
    '>1 d',
    '>1 d',
  ])
})

describe('how fast it goes', () => {
  test('a steady rate is found, whatever the pieces are', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 1e3, max: 1e9, noNaN: true }),
        fc.double({ min: 10, max: 2_000, noNaN: true }),
        fc.integer({ min: 8, max: 400 }),
        (rate, every, pieces) => {
          const estimate = createEstimate(0)
          let now = 0
          for (let at = 0; at < pieces; at++) {
            now += every
            estimate.add((rate * every) / 1000, now)
          }
          const found = estimate.rate(now)
          if (now < 3_000) expect(found).toBeUndefined()
          else expect(found! / rate).toSatisfy((share: number) => share > 0.7 && share < 1.4)
        },
      ),
    )
  })

  test('it follows a change within a minute, and a burst does not throw it', () => {
    const estimate = createEstimate(0)
    let now = 0
    const go = (rate: number, seconds: number) => {
      for (let at = 0; at < seconds; at++) {
        now += 1_000
        estimate.add(rate, now)
      }
      return estimate.rate(now)!
    }
    expect(go(1_000, 60)).toBeCloseTo(1_000, -2)
    expect(go(5_000, 90)).toBeGreaterThan(4_500)
    const before = estimate.rate(now)!
    estimate.add(10_000, now)
    expect(estimate.rate(now)! / before).toBeLessThan(1.2)
  })

  test('nothing is known at first, nor when nothing comes any more', () => {
    const estimate = createEstimate(1_000)
    expect(estimate.rate(1_000)).toBeUndefined()
    estimate.add(1e9, 1_001)
    expect(estimate.rate(10_000)).toBeUndefined()
    estimate.add(1e9, 10_000)
    expect(estimate.rate(10_000)).toBeGreaterThan(0)
    expect(estimate.rate(25_000)).toBeLessThan(estimate.rate(10_000)!)
    expect(estimate.rate(45_000)).toBeUndefined()
    // What is taken back makes nothing slower, and a clock that jumps nothing faster.
    estimate.add(-1e9, 46_000)
    estimate.add(Number.NaN, 46_000)
    expect(estimate.rate(30_000)).toBeGreaterThan(0)
  })
})
