import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type PruneOptions, pruneBackup, runsToKeep } from '../../src/sync/backup/prune.ts'
import { listRuns } from '../../src/sync/backup/restore.ts'
import { nextRun, type Retention, type RunNote } from '../../src/sync/backup/set.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { readRemoteTree } from '../../src/sync/tree.ts'
import { type Backup, createBackup } from '../support/backup.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

describe('which runs stay', () => {
  const note = (run: string, isComplete = true): RunNote => ({
    run,
    node: 1,
    sha256: '',
    seal: '',
    size: 0,
    startedAt: '',
    files: 0,
    bytes: 0,
    addedBytes: 0,
    isComplete,
  })
  const at = (text: string) => `${text.replace(/[- ]/g, '').replace(/^(\d{8})(\d\d)$/, '$1T$2')}0000Z`
  const keep = (times: string[], how: Retention, partial: string[] = []) => {
    const notes = [...times, ...partial].sort().map((time) => note(at(time), !partial.includes(time)))
    const kept = runsToKeep(notes, how)
    return [...times, ...partial].sort().filter((time) => kept.has(at(time)))
  }

  test('the last ones, and always the newest', () => {
    const times = ['2026-01-01 00', '2026-01-01 06', '2026-01-02 00']
    expect(keep(times, { last: 2 })).toEqual(times.slice(1))
    expect(keep(times, {})).toEqual(times.slice(2))
    expect(keep(times, { last: 9 })).toEqual(times)
    expect(keep([], { last: 9 })).toEqual([])
  })

  test('the newest of each day, week, month and year, in UTC, counting only those that have runs', () => {
    const days = ['2026-03-01 01', '2026-03-01 23', '2026-03-05 00', '2026-03-09 12', '2026-03-09 13']
    expect(keep(days, { daily: 3 })).toEqual(['2026-03-01 23', '2026-03-05 00', '2026-03-09 13'])
    expect(keep(days, { daily: 2 })).toEqual(['2026-03-05 00', '2026-03-09 13'])
    // A Sunday and the Monday after it are two weeks.
    const weeks = ['2026-03-02 00', '2026-03-08 23', '2026-03-09 00', '2026-03-15 00']
    expect(keep(weeks, { weekly: 9 })).toEqual(['2026-03-08 23', '2026-03-15 00'])
    const months = ['2025-12-31 23', '2026-01-01 00', '2026-01-31 23', '2026-02-01 00']
    expect(keep(months, { monthly: 9 })).toEqual(['2025-12-31 23', '2026-01-31 23', '2026-02-01 00'])
    expect(keep(months, { yearly: 9 })).toEqual(['2025-12-31 23', '2026-02-01 00'])
    expect(keep(months, { last: 1, yearly: 2 })).toEqual(['2025-12-31 23', '2026-02-01 00'])
  })

  test('a partial run does not push a complete one out', () => {
    const complete = ['2026-01-01 00', '2026-01-02 00']
    const partial = ['2026-01-02 12', '2026-01-03 00']
    expect(keep(complete, { daily: 9 }, partial)).toEqual(['2026-01-01 00', '2026-01-02 00', '2026-01-03 00'])
    expect(keep(complete, { last: 1 }, partial)).toEqual(['2026-01-02 00', '2026-01-03 00'])
  })

  test('ids sort as runs do, also when the clock goes back', () => {
    const first = nextRun(Date.UTC(2026, 0, 1, 0, 0, 0), undefined)
    expect(first).toBe('20260101T000000Z')
    expect(nextRun(Date.UTC(2026, 0, 1, 0, 0, 0, 500), first)).toBe('20260101T000001Z')
    expect(nextRun(Date.UTC(2025, 0, 1), '20261231T235959Z')).toBe('20270101T000000Z')
  })
})

const prune = (backup: Backup, last: number, options: Partial<PruneOptions> = {}) =>
  pruneBackup(backup.context, { ...backup.set, keep: { last } }, { state: backup.state, ...options })

async function historyOf({ context, set }: Backup): Promise<string[]> {
  const { node, roomId } = await requireRemote(context.api, `${set.target}/history`)
  const entries = await readRemoteTree(context.api, node, roomId)
  return entries.flatMap(({ node: { type, name } }) => (type === 'file' ? [name] : [])).sort()
}

/** Five runs, each with another state. */
async function fiveRuns() {
  const backup = await createBackup(world)
  const states: Record<string, string>[] = []
  makeTree(backup.source, { steady: 's' })
  for (let n = 0; n < 5; n++) {
    makeTree(backup.source, { often: `${n}`, [`once${n}/f`]: `${n}` })
    if (n > 0) rmSync(join(backup.source, `once${n - 1}`), { recursive: true })
    expect((await backup.run()).failed).toEqual([])
    states.push(snapshot(backup.source))
  }
  return { backup, states }
}

const runsOf = async (backup: Backup) => (await listRuns(backup.context, backup.set, backup.state)).notes

test('what no kept run refers to goes to the recycle bin, all else stays', async () => {
  const { backup, states } = await fiveRuns()
  const before = await historyOf(backup)
  expect(before).toHaveLength(8)
  expect(await prune(backup, 2, { dryRun: true })).toMatchObject({ files: 6 })
  expect(await historyOf(backup)).toEqual(before)
  const done = await prune(backup, 2)
  expect([done.kept.length, done.removed.length, done.files, done.bytes]).toEqual([2, 3, 6, 6])
  expect(await historyOf(backup)).toEqual(['f', 'often'])
  for (const [at, { run }] of (await runsOf(backup)).entries()) {
    const { summary, content } = await backup.restore(run)
    expect(summary.failed).toEqual([])
    expect(snapshot(content)).toEqual(states[3 + at])
  }
  // Nothing that was pruned is taken for dropped, here or by a machine that knows nothing.
  expect(await backup.run()).toMatchObject({ failed: [], unchanged: 3 })
  const unknown = await listRuns(backup.context, backup.set, { ...backup.state, account: 'somebody' })
  expect(unknown).toMatchObject({ isPinned: false, problems: [], missing: 0 })
})

test('nothing goes when any manifest cannot be trusted, when it would be too much, or when nobody says what stays', async () => {
  const { backup } = await fiveRuns()
  const runs = await runsOf(backup)
  await expect(prune(backup, 1, { maxDelete: { files: 3 } })).rejects.toMatchObject({ code: 'TOO_MANY_DELETIONS' })
  await expect(prune(backup, 0)).rejects.toMatchObject({ class: 'usage', code: 'NOTHING_KEPT' })
  const stranger = { state: { ...backup.state, account: 'somebody' } }
  await expect(prune(backup, 1, stranger)).rejects.toMatchObject({ class: 'safety', code: 'NOT_PINNED' })
  // A manifest that would go is broken: that is no reason to go on.
  const { id } = await backup.remote(`runs/${runs[0]!.run}.json`)
  const { id: other } = await backup.remote(`runs/${runs[1]!.run}.json`)
  const context = backup.through((request) => ({
    ...request,
    url: request.url.replace(`/files/${id}/`, `/files/${other}/`),
  }))
  await expect(prune({ ...backup, context }, 1)).rejects.toMatchObject({ class: 'integrity' })
  await backup.remove(`runs/${runs[4]!.run}.json`)
  await expect(prune(backup, 1)).rejects.toMatchObject({ class: 'integrity', code: 'MANIFEST_DROPPED' })
  expect(await historyOf(backup)).toHaveLength(8)
})

test('one that was interrupted is no alarm, and ends the next time', async () => {
  const { backup, states } = await fiveRuns()
  world.server.faults.add({ on: { method: 'DELETE', path: '/nodes$' }, after: 1, do: { status: 403 } })
  await expect(prune(backup, 1)).rejects.toMatchObject({ class: 'permission' })
  expect(await backup.run()).toMatchObject({ failed: [] })
  expect((await runsOf(backup)).length).toBe(2)
  expect((await prune(backup, 1)).removed).toHaveLength(1)
  expect(await historyOf(backup)).toEqual([])
  expect(snapshot((await backup.restore()).content)).toEqual(states[4])
  mkdirSync(join(backup.source, 'empty'))
  writeFileSync(join(backup.source, 'more'), '')
  expect(await backup.run()).toMatchObject({ failed: [], created: 1 })
})
