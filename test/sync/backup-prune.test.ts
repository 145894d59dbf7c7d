import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type PruneOptions, pruneBackup, runsToKeep } from '../../src/sync/backup/prune.ts'
import { listRuns } from '../../src/sync/backup/read.ts'
import { runBackup } from '../../src/sync/backup/run.ts'
import { compareRuns, isRunId, nextRun, type Retention, type RunNote } from '../../src/sync/backup/set.ts'
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
  const NOW = Date.UTC(2026, 11, 31)
  /** In the order in which they were made. */
  const keepOf = (order: string[], how: Retention, partial: string[] = []) => {
    const at = (time: string, number: number) =>
      `${time.replace(/[- ]/g, '').replace(/^(\d{8})(\d\d)$/, '$1T$2')}0000Z-${number + 1}`
    const notes = order.map((time, number) => note(at(time, number), !partial.includes(time)))
    const kept = runsToKeep(notes, how, NOW)
    return order.filter((time, number) => kept.has(at(time, number)))
  }
  const keep = (times: string[], how: Retention, partial: string[] = []) =>
    keepOf([...times, ...partial].sort(), how, partial)

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

  test('ids say when a run was, and which came after which, also when the clock jumps', () => {
    const first = nextRun(Date.UTC(2026, 0, 1), [])
    expect(first).toBe('20260101T000000Z-1')
    const later = nextRun(Date.UTC(2040, 0, 1), [first])
    expect(later).toBe('20400101T000000Z-2')
    const last = nextRun(Date.UTC(2026, 0, 2), [later, first])
    expect(last).toBe('20260102T000000Z-3')
    expect([last, later, first].sort(compareRuns)).toEqual([first, later, last])
    const many = Array.from({ length: 12 }, (_, at) => `20260101T000000Z-${at + 1}`)
    expect([...many].sort(compareRuns)).toEqual(many)
    expect(nextRun(Number.MAX_SAFE_INTEGER, many)).toBe('99991231T235959Z-13')
    for (const [at, run] of [first, later, last, nextRun(8.64e15, [])].entries())
      expect(isRunId(run), `${at}`).toBe(true)
    for (const none of ['20260101T000000Z', '20260101T000000Z-0', '20260101T000000Z-01', '20261301T000000Z-1', '-1'])
      expect(isRunId(none), none).toBe(false)
  })

  test('runs from the future stay, and take the place of no other', () => {
    const order = ['2026-03-01 03', '2026-03-02 03', '2040-01-01 03', '2050-01-01 03', '2026-03-03 03', '2026-03-04 03']
    expect(keepOf(order, { daily: 7 })).toEqual(order)
    expect(keepOf(order, { daily: 2 })).toEqual(order.slice(2))
    expect(keepOf(order, { last: 2 })).toEqual(order.slice(2))
    expect(keepOf(order, { yearly: 1 })).toEqual(order.slice(2).filter((time) => time !== '2026-03-03 03'))
    expect(keepOf(order.slice(0, 3), { last: 1 })).toEqual(order.slice(1, 3))
    expect(keepOf(order.slice(2, 4), { last: 1 })).toEqual(order.slice(2, 4))
  })

  test('after a clock that went back, days are days, and the run that was made last is the newest of its day', () => {
    const order = ['2026-03-01 03', '2026-03-05 20', '2026-03-02 03', '2026-03-03 03', '2026-03-04 03', '2026-03-05 03']
    expect(keepOf(order, { daily: 9 })).toEqual(order.filter((time) => time !== '2026-03-05 20'))
    expect(keepOf(order, { daily: 2 })).toEqual(order.slice(4))
    const set = ['2026-03-01 03', '2026-03-02 03', '2001-01-01 00', '2026-03-03 03']
    expect(keepOf(set, { daily: 3 })).toEqual(set.filter((time) => time !== '2001-01-01 00'))
    expect(keepOf(set.slice(0, 3), { daily: 2 })).toEqual(set.slice(0, 3)) // the newest always
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
  const { id } = await backup.remote(`runs/${runs[0]!.run}.json.gz`)
  const { id: other } = await backup.remote(`runs/${runs[1]!.run}.json.gz`)
  const context = backup.through((request) => ({
    ...request,
    url: request.url.replace(`/files/${id}/`, `/files/${other}/`),
  }))
  await expect(prune({ ...backup, context }, 1)).rejects.toMatchObject({ class: 'integrity' })
  await backup.remove(`runs/${runs[4]!.run}.json.gz`)
  await expect(prune(backup, 1)).rejects.toMatchObject({ class: 'integrity', code: 'MANIFEST_DROPPED' })
  expect(await historyOf(backup)).toHaveLength(8)
})

test('runs from the future are told by every run, and stop a prune unless somebody accepts them', async () => {
  const backup = await createBackup(world)
  makeTree(backup.source, { often: '0' })
  const at = (day: number | string) => ({
    ...backup.context,
    clock: {
      ...backup.context.clock,
      now: () => Date.parse(typeof day === 'string' ? day : `2031-12-0${day}T03:00:00Z`),
    },
  })
  const runAt = async (day: number | string) => {
    writeFileSync(join(backup.source, 'often'), `${day}`)
    const { run, failed } = await runBackup(at(day), backup.set, { state: backup.state })
    expect(failed).toEqual([])
    return run!
  }
  const early = [await runAt(2), await runAt(3)]
  const ahead = [await runAt('2040-01-01T03:00:00Z'), await runAt('2039-01-01T03:00:00Z')]
  backup.events.length = 0
  const late = [await runAt(4), await runAt(5), await runAt(6)]
  expect(backup.events).toContainEqual(expect.objectContaining({ type: 'warning', code: 'RUN_FROM_FUTURE' }))
  expect(late.map((run) => run.slice(0, 8))).toEqual(['20311204', '20311205', '20311206'])
  const all = [...early, ...ahead, ...late]
  expect((await runsOf(backup)).map(({ run }) => run)).toEqual(all)
  const pruneAt = (day: number, more: Partial<PruneOptions>) =>
    pruneBackup(at(day), { ...backup.set, keep: { daily: 4 } }, { state: backup.state, ...more })
  for (const dryRun of [true, false])
    await expect(pruneAt(6, { dryRun })).rejects.toMatchObject({ class: 'safety', code: 'RUN_FROM_FUTURE' })
  expect(await runsOf(backup)).toHaveLength(7)
  const accepted = { acceptFuture: true, maxDelete: { share: 1 } }
  expect((await pruneAt(6, { ...accepted, dryRun: true })).removed).toEqual(early.slice(0, 1))
  expect(await runsOf(backup)).toHaveLength(7)
  expect(await pruneAt(6, accepted)).toMatchObject({ removed: early.slice(0, 1), kept: all.slice(1) })
  // With a clock that went back, all are from the future, and none goes.
  await expect(pruneAt(1, {})).rejects.toMatchObject({ code: 'RUN_FROM_FUTURE' })
  expect((await pruneAt(1, accepted)).removed).toEqual([])
  for (const [run, content] of [
    [early[1], '3'],
    [ahead[0], '2040-01-01T03:00:00Z'],
    [late[2], '6'],
  ] as const)
    expect(readFileSync(join((await backup.restore(run)).content, 'often'), 'utf8')).toBe(content)
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
