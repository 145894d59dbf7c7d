import { describe, expect, test } from 'vitest'
import { judge, median, pairwise, short, showGoal } from '../../bench/statistics.ts'

const quiet = { idle: [0.95, 0.9], rounds: 5 } as const

describe('numbers', () => {
  test('a median of an odd and of an even number of values', () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 1, 2, 9])).toBe(3)
  })

  test('ratios are taken round by round, so that what slows both sides of a round changes nothing', () => {
    expect(pairwise([10, 5, 2], [20, 10, 4])).toEqual({ median: 0.5, min: 0.5, max: 0.5 })
    expect(pairwise([1, 4, 9], [1, 1, 1])).toEqual({ median: 4, min: 1, max: 9 })
  })
})

test('figures for tables', () => {
  expect([1234.5, 12.34, 1.234, 0.01234, 0, -1.65].map(short)).toEqual([
    '1235',
    '12.3',
    '1.23',
    '0.012',
    '0.00',
    '-1.65',
  ])
})

describe('verdicts', () => {
  test('lower bounds', () => {
    const goal = { atLeast: 0.6, stretch: 0.75 }
    expect(judge(0.59, goal, quiet)).toBe('MISSED')
    expect(judge(0.6, goal, quiet)).toBe('met')
    expect(judge(0.75, goal, quiet)).toBe('met, stretch too')
  })

  test('upper bounds', () => {
    const goal = { atMost: 3, stretch: 2.2 }
    expect(judge(3.1, goal, quiet)).toBe('MISSED')
    expect(judge(3, goal, quiet)).toBe('met')
    expect(judge(2.2, goal, quiet)).toBe('met, stretch too')
  })

  test('a machine that was busy before or after judges nothing, however good the figure', () => {
    for (const idle of [
      [0.84, 0.99],
      [0.99, 0.84],
    ] as const) {
      expect(judge(100, { atLeast: 1 }, { idle, rounds: 5 })).toBe('not judged: busy')
    }
    expect(judge(100, { atLeast: 1 }, { idle: [0.85, 0.85], rounds: 5 })).toBe('met')
  })

  test('fewer than five rounds judge nothing', () => {
    expect(judge(0, { atLeast: 1 }, { ...quiet, rounds: 4 })).toBe('not judged: few rounds')
  })

  test('what is not a number misses every goal', () => {
    expect(judge(Number.NaN, { atLeast: 1 }, quiet)).toBe('MISSED')
    expect(judge(Number.NaN, { atMost: 1 }, quiet)).toBe('MISSED')
  })

  test('without a goal there is no verdict', () => {
    expect(judge(1, undefined, quiet)).toBe('')
    expect(showGoal(undefined)).toBe('-')
    expect(showGoal({ atMost: 3, stretch: 2.2 })).toBe('≤ 3 (2.2)')
  })
})
