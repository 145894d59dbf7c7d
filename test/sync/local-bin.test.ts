import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { BIN_NAME } from '../../src/local/atomic-file.ts'
import { createSafeTree } from '../../src/local/safe-tree.ts'
import { createLocalBin, dropFromBin, pruneBin } from '../../src/sync/local-bin.ts'

const base = mkdtempSync(join(tmpdir(), 'sealsync-bin-'))
afterAll(() => rmSync(base, { recursive: true }))

test('keeps what is replaced, takes what is removed', () => {
  const root = join(base, 'kept')
  mkdirSync(join(root, 'sub'), { recursive: true })
  writeFileSync(join(root, 'sub/a'), 'a')
  writeFileSync(join(root, 'b'), 'b')
  const bin = createLocalBin(createSafeTree(root), '20260101T000000Z-abcdef')
  bin.keep(['sub', 'a'])
  bin.take(['b'])
  expect(readFileSync(join(root, bin.placeOf(['sub', 'a'])), 'utf8')).toBe('a')
  expect(readFileSync(join(root, bin.placeOf(['b'])), 'utf8')).toBe('b')
  expect(readdirSync(root).sort()).toEqual([BIN_NAME, 'sub'])
  expect(readdirSync(join(root, 'sub'))).toEqual(['a'])
  dropFromBin(root, bin.placeOf(['sub', 'a']))
  expect(readdirSync(join(root, BIN_NAME, '20260101T000000Z-abcdef'))).toEqual(['b'])
  dropFromBin(root, bin.placeOf(['b']))
  expect(readdirSync(root)).toEqual(['sub'])
})

/** Two runs, whose time nobody doubts. */
const runsAt = (startedAt: number) => [
  { id: 'now', startedAt },
  { id: 'before', startedAt },
]

test('forgets a run after 30 days, and nothing that is not one', () => {
  const root = join(base, 'pruned')
  const names = ['20260101T000000Z-abcdef', '20260115T120000Z-abcdef', 'mine']
  for (const name of names) mkdirSync(join(root, BIN_NAME, name), { recursive: true })
  const left = () => readdirSync(join(root, BIN_NAME)).sort()
  const pruneAt = (now: number) => pruneBin(root, runsAt(now), now)
  pruneAt(Date.UTC(2026, 0, 31))
  expect(left()).toEqual(names)
  pruneAt(Date.UTC(2026, 0, 31) + 1)
  expect(left()).toEqual(names.slice(1))
  pruneBin(join(base, 'nowhere'), [], Date.UTC(2026, 5))
})

test.skipIf(process.platform === 'win32')('nothing behind a link is removed', () => {
  const run = '20260101T000000Z-abcdef'
  const outside = join(base, 'outside')
  mkdirSync(join(outside, 'sub'), { recursive: true })
  writeFileSync(join(outside, 'sub/a'), 'theirs')
  for (const [name, link] of [
    ['top', [BIN_NAME]],
    ['run', [BIN_NAME, run]],
    ['below', [BIN_NAME, run, 'sub']],
  ] as const) {
    const root = join(base, `linked-${name}`)
    mkdirSync(join(root, ...link.slice(0, -1)), { recursive: true })
    symlinkSync(link.length === 3 ? join(outside, 'sub') : outside, join(root, ...link))
    try {
      dropFromBin(root, [BIN_NAME, ...(link.length === 1 ? [] : [run]), 'sub', 'a'].join('/'))
    } catch (error) {
      expect(error).toMatchObject({ code: 'PATH_BLOCKED' })
    }
    pruneBin(root, runsAt(Date.UTC(2026, 5)), Date.UTC(2026, 5))
    expect(readFileSync(join(outside, 'sub/a'), 'utf8')).toBe('theirs')
  }
})

test('what is old goes with all that is in it', () => {
  const root = join(base, 'deep')
  const old = join(root, BIN_NAME, '20260101T000000Z-abcdef')
  mkdirSync(join(old, 'a/b/c'), { recursive: true })
  for (const path of ['f', 'a/f', 'a/b/c/f']) writeFileSync(join(old, path), 'x')
  pruneBin(root, runsAt(Date.UTC(2026, 5)), Date.UTC(2026, 5))
  expect(readdirSync(join(root, BIN_NAME))).toEqual([])
})
