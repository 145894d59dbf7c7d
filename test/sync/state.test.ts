/** What is remembered of a pair: through kills, tidying and damage. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openAppendLog } from '../../src/local/append-log.ts'
import type { SyncRecord } from '../../src/sync/records.ts'
import { openState, type ReadLogs, type SyncState } from '../../src/sync/state.ts'
import { freshDirectory } from '../support/files.ts'
import fc from '../support/property.ts'

const pair = { account: 'anna', local: '/tree', remote: '/room' }
const open = (directory: string): Promise<SyncState> => openState(directory, pair, 0, () => {})
const record = (n: number): SyncRecord => {
  const local = { size: n, mtimeMs: n + 0.25, ctimeMs: n + 0.5, ino: n }
  return {
    kind: 'file',
    path: `folder/file ${n}`,
    local,
    remote: { id: n, size: n, modified: n },
    seal: 's'.repeat(40),
  }
}
const put = (state: SyncState, n: number) => state.put(record(n).path, record(n))
const numbers = ({ records }: SyncState) => [...records().values()].map(({ remote }) => remote.id)
const listed = { rootId: 1, version: 5, rights: 'read', names: 'report', at: 7 } as const

test('what was put is there for the next process, without a word of farewell', async () => {
  const directory = await freshDirectory()
  const state = await open(directory)
  for (let n = 0; n < 600; n++) put(state, n)
  await null
  const next = await open(directory)
  expect(next.records().get('folder/file 599')).toEqual(record(599))
  expect(numbers(next)).toHaveLength(600)
  expect(numbers(state), 'as it was when it was opened').toEqual([])
})

test('puts and removals keep their order', async () => {
  const directory = await freshDirectory()
  const state = await open(directory)
  for (const n of [1, 2, 3]) put(state, n)
  state.remove(record(2).path)
  state.remove(record(3).path)
  put(state, 3)
  await state.flush()
  expect(numbers(await open(directory))).toEqual([1, 3])
})

test('a listing holds until a record is removed, and exactly until one is put', async () => {
  const directory = await freshDirectory()
  const looks = async (state: SyncState) => {
    await state.flush()
    const { listed: found, isAsListed } = await open(directory)
    expect([found, isAsListed && found !== undefined]).toEqual([
      state.listed,
      state.isAsListed && state.listed !== undefined,
    ])
    return [found?.version, isAsListed]
  }
  const state = await open(directory)
  put(state, 1)
  state.setListed(listed)
  expect(await looks(state)).toEqual([5, true])
  put(state, 2)
  expect(await looks(state)).toEqual([5, false])
  state.setListed({ ...listed, version: 6 })
  expect(await looks(state)).toEqual([6, true])
  state.remove(record(2).path)
  expect((await looks(state))[0]).toBeUndefined()
})

test('a log of many short or outdated lines is tidied up when it is closed', async () => {
  for (const isAsListed of [true, false]) {
    const directory = await freshDirectory()
    const state = await open(directory)
    for (let n = 0; n < 10_000; n++) {
      put(state, n)
      await null
    }
    const linesOf = () => readFileSync(join(directory, 'records'), 'utf8').split('\n').length
    expect(linesOf()).toBeGreaterThan(9_000)
    state.setListed(listed)
    if (!isAsListed) put(state, 0)
    await state.close()
    expect(linesOf()).toBeLessThan(100)
    const next = await open(directory)
    expect(next.records().get('folder/file 9999')).toEqual(record(9999))
    expect([numbers(next).length, next.listed, next.isAsListed]).toEqual([10_000, listed, isAsListed])
  }
})

test('a log that makes no sense is put aside, with all that is in it', async () => {
  const directory = await freshDirectory()
  const state = await open(directory)
  put(state, 1)
  await state.close()
  const scope = JSON.stringify([pair.account, pair.local, pair.remote])
  const log = await openAppendLog(
    join(directory, 'records'),
    scope,
    (lines) => [...lines].length > 0,
    () => {},
    0,
  )
  log.append({ put: [[0, '', 'no size']] })
  await log.close()
  const told: string[] = []
  const next = await openState(directory, pair, 9, (keptAs) => told.push(keptAs))
  expect(numbers(next)).toEqual([])
  expect(told).toEqual([join(directory, 'records.corrupt-9')])
  expect(readdirSync(directory)).toContain('records.corrupt-9')
})

test('what could not be written is told by whoever waits for it', async () => {
  const directory = await freshDirectory()
  const state = await open(directory)
  mkdirSync(join(directory, 'records'))
  put(state, 1)
  await null
  await expect(state.flush()).rejects.toMatchObject({ class: 'local_io' })
  expect(() => state.remove(record(1).path)).toThrow()
})

describe('a log that was read before', () => {
  const said = ({ records, roots, listed: list, isAsListed, manifest, superseded, readmitted }: SyncState) => [
    [...records()].sort(),
    roots,
    list,
    list !== undefined && isAsListed,
    manifest,
    [...superseded()].sort(),
    [...readmitted()].sort(),
  ]
  const number = fc.nat({ max: 5 })
  const act = fc.oneof(
    fc.record({ do: fc.constant('put' as const), number, seal: fc.constantFrom('a', 'b', 'c') }),
    fc.record({ do: fc.constant('remove' as const), number }),
    fc.record({ do: fc.constant('listed' as const) }),
    fc.record({ do: fc.constant('roots' as const), number }),
    fc.record({ do: fc.constant('readmit' as const), number }),
  )

  test('says what it would say if it were read again', async () => {
    let reopened = 0
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(act, { maxLength: 8 }), { maxLength: 4 }), async (sessions) => {
        const directory = await freshDirectory()
        const known: ReadLogs = new Map()
        const openKnown = () => openState(directory, pair, 0, () => {}, known)
        for (const acts of sessions) {
          if (known.size > 0) reopened++
          const state = await openKnown()
          for (const one of acts) {
            const path = 'number' in one ? record(one.number).path : ''
            if (one.do === 'put') state.put(path, { ...record(one.number), seal: one.seal.repeat(40) })
            if (one.do === 'remove') state.remove(path)
            if (one.do === 'listed') state.setListed(listed)
            if (one.do === 'roots')
              state.setRoots({ dev: 1, ino: one.number, remoteId: 3, isEncrypted: true, isSettled: true })
            if (one.do === 'readmit') state.readmit([path])
          }
          await state.close()
          const [again, fresh] = [await openKnown(), await open(directory)]
          expect(said(again)).toEqual(said(fresh))
          await again.close()
          await fresh.close()
        }
      }),
      { numRuns: 60 },
    )
    expect(reopened).toBeGreaterThan(20)
  })

  test('is read again when somebody else has written to it', async () => {
    const directory = await freshDirectory()
    const known: ReadLogs = new Map()
    const first = await openState(directory, pair, 0, () => {}, known)
    put(first, 1)
    await first.close()
    const other = await open(directory)
    put(other, 2)
    await other.close()
    const again = await openState(directory, pair, 0, () => {}, known)
    expect(numbers(again)).toEqual([1, 2])
    put(again, 3)
    await again.close()
    expect(numbers(await open(directory))).toEqual([1, 2, 3])
  })
})
