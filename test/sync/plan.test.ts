import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { RemoteNode } from '../../src/api/wire.ts'
import {
  type ConflictAction,
  freeName,
  planDownload,
  planUpload,
  sameTime,
  type UploadStep,
} from '../../src/sync/plan.ts'
import { type LocalEntry, type RemoteEntry, remoteKey } from '../../src/sync/tree.ts'

const local = (path: string, more: Partial<LocalEntry> = {}): LocalEntry => ({
  kind: 'file',
  path: path.split('/'),
  source: `/src/${path}`,
  size: 1,
  mtimeMs: 1_700_000_000_123,
  ctimeMs: 1_700_000_000_123,
  ino: 1,
  dev: 1,
  ...more,
})
const directory = (path: string, more: Partial<LocalEntry> = {}) => local(path, { kind: 'directory', size: 0, ...more })

let nextId = 1
const node = (name: string, more: Partial<RemoteNode> = {}): RemoteNode => ({
  id: nextId++,
  type: 'file',
  name,
  size: 1,
  timestampModification: 1_700_000_000_123,
  ...more,
})
const remote = (path: string, more: Partial<RemoteNode> = {}): RemoteEntry => {
  const names = path.split('/')
  return { node: node(names.at(-1)!, more), path: names, roomId: 7 }
}
const index = (entries: readonly RemoteEntry[]) => new Map(entries.map((entry) => [remoteKey(entry.path), entry]))
const plan = (entries: readonly LocalEntry[], there: readonly RemoteEntry[] = [], checksum = false) =>
  planUpload(entries, index(there), { checksum })
const brief = (steps: readonly UploadStep[]) =>
  steps.map((step) => `${step.do} ${step.shown}${step.do === 'fail' ? ` ${step.error.code}` : ''}`)

describe('what one file needs', () => {
  test.each<[string, Partial<RemoteNode> | undefined, boolean, string]>([
    ['nothing there', undefined, false, 'upload a'],
    ['the same size and time', {}, false, 'skip a'],
    ['the same second, where the server keeps seconds', { timestampModification: 1_700_000_000_000 }, false, 'skip a'],
    ['another size', { size: 2 }, false, 'upload a'],
    ['another time', { timestampModification: 1_700_000_000_128 }, false, 'upload a'],
    ['a time that the server does not tell', { timestampModification: undefined } as never, false, 'upload a'],
    ['a folder of this name', { type: 'folder' }, false, 'fail a EXISTS'],
    ['a room of this name', { type: 'room' }, false, 'fail a EXISTS'],
  ])('%s', (_what, there, checksum, expected) => {
    const steps = plan([local('a')], there === undefined ? [] : [remote('a', there)], checksum)
    expect(brief(steps)).toEqual([expected])
  })

  test('what replaces a file names it; a checksum is asked for only where the size is the same', () => {
    const there = [remote('a'), remote('b', { size: 9 })]
    expect(plan([local('a'), local('b')], there, true)).toMatchObject([
      { do: 'upload', compareWith: { id: there[0]!.node.id }, replaces: { id: there[0]!.node.id } },
      { do: 'upload', replaces: { id: there[1]!.node.id } },
    ])
  })

  test.each<[ConflictAction, Partial<RemoteNode>, Partial<UploadStep> & object]>([
    ['overwrite', { size: 2 }, { do: 'upload', replaces: expect.objectContaining({ size: 2 }) }],
    ['skip', { size: 2 }, { do: 'skip' }],
    ['fail', { size: 2 }, { do: 'fail' }],
    ['rename', { size: 2 }, { do: 'upload', path: ['d', 'a (2).tar'] }],
    ['newer', { size: 2, timestampModification: 1_600_000_000_000 }, { do: 'upload', replaces: expect.anything() }],
    ['newer', { size: 2, timestampModification: 1_700_000_000_123 }, { do: 'skip' }],
    ['newer', { size: 2, timestampModification: 1_800_000_000_000 }, { do: 'skip' }],
    ['newer', { size: 2, timestampModification: undefined } as never, { do: 'skip' }],
    // What is equal is no conflict, whatever was asked for.
    ['rename', {}, { do: 'skip' }],
    ['fail', {}, { do: 'skip' }],
  ])('a difference, --on-conflict %s, %j', (onConflict, there, expected) => {
    const entries = [directory('d'), local('d/a.tar'), local('d/a (1).tar')]
    const known = [remote('d', { type: 'folder' }), remote('d/a.tar', there)]
    const step = planUpload(entries, index(known), { checksum: false, onConflict }).find(
      ({ shown }) => shown === 'd/a.tar',
    )
    expect(step).toMatchObject(expected)
  })

  test('with a checksum a conflict is one only after the comparison', () => {
    const there = [remote('a')]
    const steps = (onConflict: ConflictAction) => planUpload([local('a')], index(there), { checksum: true, onConflict })
    expect(steps('fail')).toMatchObject([{ do: 'upload', compareWith: {}, refusal: { code: 'EXISTS' } }])
    expect(steps('rename')).toMatchObject([{ do: 'upload', compareWith: {}, path: ['a (1)'] }])
    expect(steps('rename')[0]).not.toHaveProperty('replaces')
    expect(steps('skip')).toMatchObject([{ do: 'skip' }])
  })

  test('free names', () => {
    const taken = new Set(['x (1).tar', 'x (2).tar', '.rc (1)'])
    const free = (name: string) => freeName(name, (candidate) => !taken.has(candidate))
    expect(['x.tar', 'x', '.rc', 'a.b.c', 'x.'].map(free)).toEqual([
      'x (3).tar',
      'x (1)',
      '.rc (2)',
      'a.b (1).c',
      'x (1).',
    ])
  })
})

describe('names that meet', () => {
  const composed = '\u00e9'
  const decomposed = 'e\u0301'

  test('two files that would be one: neither is uploaded, both are reported', () => {
    expect(brief(plan([local(composed), local(decomposed)]))).toEqual([
      `fail ${composed} EXISTS`,
      `fail ${decomposed} EXISTS`,
    ])
  })

  test('also where one of them is unchanged', () => {
    expect(brief(plan([local(composed), local(decomposed)], [remote(composed)]))).toEqual([
      `fail ${composed} EXISTS`,
      `fail ${decomposed} EXISTS`,
    ])
  })

  test('a directory that is there already has no step: what it meets does not take another entry’s place', () => {
    const entries = [directory(composed), local('innocent'), local(decomposed)]
    const steps = plan(entries, [remote(composed, { type: 'folder' })])
    expect(brief(steps)).toEqual(['upload innocent', `fail ${decomposed} EXISTS`])
    expect(brief(plan([directory(composed), local(decomposed)], [remote(composed, { type: 'folder' })]))).toEqual([
      `fail ${decomposed} EXISTS`,
    ])
  })

  test('of two directories that would be one the second fails with all that is in it', () => {
    const entries = [directory(composed), directory(decomposed), local(`${composed}/f`), local(`${decomposed}/f`)]
    expect(brief(plan(entries))).toEqual([
      `make-folder ${composed}`,
      `fail ${decomposed} EXISTS`,
      `upload ${composed}/f`,
      `fail ${decomposed}/f EXISTS`,
    ])
  })

  test.each([[[]], [[remote('x', { type: 'folder' })]]])(
    'directories of one name from two sources become one; files of one name are both refused',
    (there) => {
      const one = (path: string, kind: 'file' | 'directory') => local(path, { kind, source: `/one/${path}` })
      const two = (path: string, kind: 'file' | 'directory') => local(path, { kind, source: `/two/${path}` })
      const entries = [
        one('x', 'directory'),
        one('x/a', 'file'),
        one('x/same', 'file'),
        two('x', 'directory'),
        two('x/b', 'file'),
        two('x/same', 'file'),
      ]
      expect(brief(plan(entries, there)).filter((step) => !step.startsWith('make-folder'))).toEqual([
        'upload x/a',
        'fail x/same EXISTS',
        'upload x/b',
        'fail x/same EXISTS',
      ])
    },
  )

  test('a source that is named twice counts once', () => {
    const entries = [directory('x'), local('x/a')]
    expect(brief(plan([...entries, ...entries]))).toEqual(['make-folder x', 'upload x/a'])
  })

  test('what is below a directory without a place on the server is reported file by file', () => {
    const long = 'x'.repeat(151)
    const entries = [directory(long), directory(`${long}/d`), local(`${long}/d/f`)]
    expect(brief(plan(entries))).toEqual([`fail ${long} NAME_TOO_LONG`, `fail ${long}/d/f NAME_TOO_LONG`])
  })

  test('directories are stored as deep as they can be listed again, not deeper', () => {
    const deep = (levels: number) => Array.from({ length: levels }, () => 'd').join('/')
    const entries = [directory(deep(256)), local(`${deep(256)}/f`), directory(deep(257)), local(`${deep(257)}/f`)]
    expect(plan(entries).map((step) => step.do)).toEqual(['make-folder', 'upload', 'fail', 'fail'])
  })
})

describe('downwards', () => {
  const down = (entries: readonly RemoteEntry[], foldCase = false) =>
    planDownload(entries, { foldCase, platform: 'linux' }).map(
      (step) => `${step.do} ${step.do === 'fail' ? step.error.code : step.path.join('/')}`,
    )

  test('names are restored; hostile ones fail with all that is in them', () => {
    const entries = [
      remote('a%3Ab'),
      remote('..', { type: 'folder' }),
      { ...remote('x'), path: ['..', 'passwd'] },
      { ...remote('x'), path: ['a/b'], node: node('a/b') },
      { ...remote('x'), path: ['%2E%2E'], node: node('%2E%2E') },
    ]
    expect(down(entries)).toEqual([
      'download a:b',
      'fail NAME_UNSAFE',
      'fail NAME_UNSAFE',
      'fail NAME_UNSAFE',
      'download %2E%2E',
    ])
  })

  test('two files that would be one are both refused; directories that meet are not', () => {
    const entries = [remote('A'), remote('a'), remote('D', { type: 'folder' }), remote('d', { type: 'folder' })]
    expect(down(entries, true)).toEqual(['fail EXISTS', 'fail EXISTS', 'make-directory D', 'make-directory d'])
    expect(down(entries, false)).toEqual(['download A', 'download a', 'make-directory D', 'make-directory d'])
  })
})

test('times are equal within the coarser of two resolutions, and no further', () => {
  expect(sameTime(5000.4, 5000)).toBe(true)
  expect(sameTime(5000, 5999)).toBe(true)
  expect(sameTime(5001, 5999)).toBe(false)
  expect(sameTime(5000, 6000)).toBe(false)
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 40), max: 2 ** 42 }), (ms) => sameTime(ms, ms) && sameTime(ms, ms - 0.0001)),
  )
})

/** What the server has after a plan was carried out. */
function apply(steps: readonly UploadStep[], before: readonly RemoteEntry[]): RemoteEntry[] {
  const after = index(before)
  for (const step of steps) {
    if (step.do !== 'make-folder' && step.do !== 'upload') continue
    const content =
      step.do === 'upload'
        ? { size: step.entry.size, timestampModification: Math.floor(step.entry.mtimeMs) }
        : { type: 'folder' as const }
    after.set(remoteKey(step.path), { node: node(step.path.at(-1)!, content), path: step.path, roomId: 7 })
  }
  return [...after.values()]
}

const names = fc.constantFrom(
  'a',
  'b',
  'A',
  '\u00e9',
  'e\u0301',
  'a:b',
  'a%3Ab',
  '%41',
  '-',
  'con',
  'nul.txt',
  'x.',
  '👩‍🚀',
  ' ',
)
const trees = fc
  .array(
    fc.record({
      path: fc.array(names, { minLength: 1, maxLength: 4 }),
      kind: fc.constantFrom('file' as const, 'directory' as const),
      size: fc.integer({ min: 0, max: 2 }),
      mtimeMs: fc.double({ min: 1, max: 2 ** 42, noNaN: true }),
    }),
    { maxLength: 20 },
  )
  .map(toTree)

/** A tree that a disk could hold: parents first, every name once. */
function toTree(wanted: readonly Pick<LocalEntry, 'path' | 'kind' | 'size' | 'mtimeMs'>[]): LocalEntry[] {
  const found = new Map<string, LocalEntry>()
  for (const { path, ...rest } of wanted) {
    for (let depth = 1; depth < path.length; depth++) {
      const above = path.slice(0, depth).join('/')
      if (!found.has(above)) found.set(above, directory(above))
    }
    const isBelowFile = path.some((_name, depth) => found.get(path.slice(0, depth).join('/'))?.kind === 'file')
    if (!isBelowFile && !found.has(path.join('/'))) found.set(path.join('/'), { ...local(path.join('/')), ...rest })
  }
  return [...found.values()].filter(({ path }) =>
    path.slice(0, -1).every((_name, depth) => found.get(path.slice(0, depth + 1).join('/'))?.kind === 'directory'),
  )
}

test('planning a plan that was carried out yields only skips', () => {
  fc.assert(
    fc.property(trees, trees, (entries, others) => {
      const before = apply(plan(others), [])
      const first = plan(entries, before)
      const second = plan(entries, apply(first, before))
      const isFailed = (step: UploadStep) => step.do === 'fail'
      expect(second.filter((step) => step.do !== 'skip' && !isFailed(step))).toEqual([])
      // What could not be done still cannot, and nothing is dropped: each file has one step.
      expect(brief(second.filter(isFailed))).toEqual(brief(first.filter(isFailed)))
      const files = entries.filter(({ kind }) => kind === 'file').length
      const fileSteps = first.filter((step) => step.do !== 'make-folder')
      const failedDirectories = fileSteps.filter(({ shown }) =>
        entries.some((entry) => entry.kind === 'directory' && entry.path.join('/') === shown),
      )
      expect(fileSteps.length - failedDirectories.length).toBe(files)
    }),
    { numRuns: 300 },
  )
})
