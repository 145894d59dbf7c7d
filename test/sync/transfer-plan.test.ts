/** What uploads and downloads decide, where nothing is remembered of the places. */

import { describe, expect, test } from 'vitest'
import type { RemoteNode } from '../../src/api/wire.ts'
import type { SyncError } from '../../src/errors.ts'
import { type ConflictAction, freeName, sameTime } from '../../src/sync/conflicts.ts'
import { planTransfer } from '../../src/sync/jobs/transfer.ts'
import type { SyncStep } from '../../src/sync/reconcile.ts'
import { arrangeRemote, createBlocked, keyOf, takeIn } from '../../src/sync/scan.ts'
import { createSelection } from '../../src/sync/select.ts'
import type { LocalEntry, RemoteEntry } from '../../src/sync/tree.ts'
import fc from '../support/property.ts'

const TIME = 1_700_000_000_123

const local = (path: string, more: Partial<LocalEntry> = {}): LocalEntry => ({
  kind: 'file',
  path: path.split('/'),
  source: `/src/${path}`,
  size: 1,
  mtimeMs: TIME,
  ctimeMs: TIME,
  ino: 1,
  dev: 1,
  ...more,
})
const directory = (path: string, more: Partial<LocalEntry> = {}) => local(path, { kind: 'directory', size: 0, ...more })
let nextId = 1
const remote = (path: string, more: Partial<RemoteNode> = {}): RemoteEntry => {
  const names = path.split('/')
  const node = { id: nextId++, type: 'file', name: names.at(-1)!, size: 1, timestampModification: TIME, ...more }
  return { node: node as RemoteNode, path: names, roomId: 7 }
}
const arrange = (there: readonly RemoteEntry[], foldCase = false) =>
  arrangeRemote(there, { selection: createSelection({}, 1), blocked: createBlocked(), foldCase, names: undefined })

function up(
  entries: readonly LocalEntry[],
  there: readonly RemoteEntry[] = [],
  how: Parameters<typeof planTransfer>[1] = {},
) {
  const items = new Map<string, LocalEntry>()
  const failures: [string, string][] = []
  const [blocked, met] = [createBlocked(), new Set<string>()]
  const block = (path: readonly string[], error: SyncError) => {
    failures.push([path.join('/'), error.code])
    blocked.add(keyOf(path))
  }
  for (const entry of entries) takeIn(entry, { items, met, names: undefined, block })
  const { items: found } = arrange(there)
  for (const map of [items, found]) for (const key of map.keys()) if (blocked.has(key)) map.delete(key)
  const steps = planTransfer({ direction: 'push', local: items, remote: found }, { onConflict: 'overwrite', ...how })
  return { steps, failures }
}
const brief = (steps: readonly SyncStep[]) =>
  steps.filter(({ do: action }) => action !== 'adopt').map((step) => `${step.do} ${step.path.join('/')}`)

describe('what one file needs', () => {
  test.each<[string, Partial<RemoteNode> | undefined, string[]]>([
    ['nothing there', undefined, ['upload a']],
    ['the same size and time', {}, []],
    ['the same second, where the server keeps seconds', { timestampModification: 1_700_000_000_000 }, []],
    ['another size', { size: 2 }, ['upload a']],
    ['another time', { timestampModification: 1_700_000_000_128 }, ['upload a']],
    ['a time that the server does not tell', { timestampModification: undefined } as never, ['upload a']],
    ['a folder of this name', { type: 'folder' }, ['conflict a']],
    ['a room of this name', { type: 'room' }, ['conflict a']],
  ])('%s', (_what, there, expected) => {
    expect(brief(up([local('a')], there === undefined ? [] : [remote('a', there)]).steps)).toEqual(expected)
  })

  test('what replaces a file names it; contents are compared only when told to, where the size is the same', () => {
    const there = [remote('a', { timestampModification: 1 }), remote('b', { size: 9 })]
    const entries = [local('a'), local('b')]
    const [a, b] = up(entries, there).steps
    expect([a, b]).toMatchObject([{ replaces: { node: { id: there[0]!.node.id } } }, { replaces: {} }])
    expect(a).not.toHaveProperty('unlessSame')
    const [c, d] = up(entries, there, { checksum: true }).steps
    expect(c).toMatchObject({ unlessSame: true })
    expect(d).not.toHaveProperty('unlessSame')
  })

  test.each<[ConflictAction, Partial<RemoteNode>, object | undefined]>([
    ['overwrite', { size: 2 }, { do: 'upload', replaces: {} }],
    ['skip', { size: 2 }, undefined],
    ['fail', { size: 2 }, { do: 'conflict', error: { code: 'TARGET_DIFFERS' } }],
    ['rename', { size: 2 }, { do: 'upload', path: ['d', 'a (2).tar'], beside: {} }],
    ['newer', { size: 2, timestampModification: 1_600_000_000_000 }, { do: 'upload', replaces: {} }],
    ['newer', { size: 2, timestampModification: TIME }, undefined],
    ['newer', { size: 2, timestampModification: 1_800_000_000_000 }, undefined],
    ['newer', { size: 2, timestampModification: undefined } as never, undefined],
    // What is equal is no conflict, whatever was asked for.
    ['rename', {}, undefined],
    ['fail', {}, undefined],
  ])('a difference, --on-conflict %s, %j', (onConflict, there, expected) => {
    const entries = [directory('d'), local('d/a.tar'), local('d/a (1).tar')]
    const known = [remote('d', { type: 'folder' }), remote('d/a.tar', there)]
    const step = up(entries, known, { onConflict }).steps.find(
      (one) => one.do !== 'adopt' && one.path.join('/') !== 'd/a (1).tar',
    )
    if (expected === undefined) expect(step).toBeUndefined()
    else expect(step).toMatchObject(expected)
  })

  test('with a checksum a conflict is one only after the comparison', () => {
    const steps = (onConflict: ConflictAction) =>
      up([local('a')], [remote('a', { timestampModification: 1 })], { checksum: true, onConflict }).steps
    expect(steps('fail')).toMatchObject([{ do: 'conflict', unlessSame: {}, error: { code: 'TARGET_DIFFERS' } }])
    expect(steps('rename')).toMatchObject([{ do: 'upload', unlessSame: true, path: ['a (1)'] }])
    expect(steps('rename')[0]).not.toHaveProperty('replaces')
    expect(steps('skip')).toEqual([])
  })

  test('free names', () => {
    const taken = new Set(['x (1).tar', 'x (2).tar', '.rc (1)'])
    const free = (name: string) => freeName(name, (candidate) => !taken.has(candidate))
    const found = ['x (3).tar', 'x (1)', '.rc (2)', 'a.b (1).c', 'x (1).']
    expect(['x.tar', 'x', '.rc', 'a.b.c', 'x.'].map(free)).toEqual(found)
  })
})

describe('names that meet', () => {
  const composed = '\u00e9'
  const decomposed = 'e\u0301'

  test('two files that would be one: neither is uploaded, and both are told', () => {
    for (const there of [[], [remote(composed)]]) {
      const { steps, failures } = up([local(composed), local(decomposed), local('innocent')], there)
      expect(brief(steps)).toEqual(['upload innocent'])
      expect(failures.sort()).toEqual([
        [decomposed, 'EXISTS'],
        [composed, 'EXISTS'],
      ])
    }
  })

  test('directories of one name from two sources become one; files of one name are refused', () => {
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
    const { steps, failures } = up(entries)
    expect(brief(steps)).toEqual(['make-folder x', 'upload x/a', 'upload x/b'])
    expect(new Set(failures.map(([path, code]) => `${path} ${code}`))).toEqual(new Set(['x/same EXISTS']))
  })

  test('a source that is named twice counts once', () => {
    const entries = [directory('x'), local('x/a')]
    const { steps, failures } = up([...entries, ...entries])
    expect([brief(steps), failures]).toEqual([['make-folder x', 'upload x/a'], []])
  })

  test('a directory without a place on the server is told once, with all that is below it', () => {
    const long = 'x'.repeat(151)
    const { steps, failures } = up([directory(long), directory(`${long}/d`), local(`${long}/d/f`)])
    expect([brief(steps), failures]).toEqual([[], [[long, 'NAME_TOO_LONG']]])
  })

  test('directories are stored as deep as they can be listed again, not deeper', () => {
    const deep = (levels: number) => Array.from({ length: levels }, () => 'd').join('/')
    const entries = [directory(deep(256)), local(`${deep(256)}/f`), directory(deep(257)), local(`${deep(257)}/f`)]
    const { steps, failures } = up(entries)
    expect(steps.map((step) => step.do)).toEqual(['make-folder', 'upload'])
    expect(failures).toEqual([[deep(257), 'TREE_TOO_DEEP']])
  })

  test('downwards names are restored; hostile ones fail with all that is in them', () => {
    const { items, failures } = arrange([
      remote('a%3Ab'),
      remote('..', { type: 'folder' }),
      { ...remote('x'), path: ['..', 'passwd'] },
      { ...remote('a/b'), path: ['a/b'] },
    ])
    expect([...items.keys()]).toEqual(['a:b'])
    expect(failures.map(({ error }) => error.code)).toEqual(['NAME_UNSAFE', 'NAME_UNSAFE'])
  })

  test('on a disk that folds case two files that would be one are both refused', () => {
    const entries = [remote('A'), remote('a')]
    expect(arrange(entries, true).failures.map(({ error }) => error.code)).toEqual(['EXISTS', 'EXISTS'])
    expect(arrange(entries).failures).toEqual([])
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
