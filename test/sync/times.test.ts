import { mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readSmallStable } from '../../src/local/stable-read.ts'
import { sameTime } from '../../src/sync/conflicts.ts'
import fc from '../support/property.ts'

const now = 1_763_800_000_000

test('a time is the same after it went to the server, and after it came back onto a disk', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sealsync-times-'))
  const path = join(dir, 'f')
  writeFileSync(path, '')
  try {
    // Any fraction of a millisecond, also those just below a whole one that copying programs leave behind.
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999_999_999 }), (nanoseconds) => {
        utimesSync(path, now / 1000, now / 1000 + nanoseconds / 1e9)
        const local = statSync(path).mtimeMs
        const sent = readSmallStable(path, 'f')!.modifiedAt
        expect(Number.isInteger(sent)).toBe(true)
        expect(sameTime(sent, local)).toBe(true)
        utimesSync(path, new Date(now), new Date(sent))
        expect(sameTime(sent, statSync(path).mtimeMs)).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('times that differ are told apart, unless one side keeps whole seconds only', () => {
  expect(sameTime(now + 5, now + 7)).toBe(false)
  expect(sameTime(now + 5, now + 1_005)).toBe(false)
  expect(sameTime(now, now + 999)).toBe(true)
  expect(sameTime(now, now + 1_000)).toBe(false)
  expect(sameTime(now + 1_000, now + 400)).toBe(false)
})
