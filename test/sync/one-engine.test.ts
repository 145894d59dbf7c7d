/**
 * What all runs have in common, whatever they are called: folders made together, one folder that fails, files that differ, filters, limits,
 * locks, room on the disk, and what can be listed, repeated and taken back afterwards.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import type { SyncSummary } from '../../src/sync/run-job.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
let client: Client
beforeAll(async () => {
  world = await createWorld()
  client = await world.openClient({
    trustNewMembers: true,
    directory: world.path('kept'),
  })
})
afterAll(async () => {
  await client.close()
  await world.close()
})
afterEach(() => world.server.faults.clear())

let count = 0
const fresh = (what: string) => `${what}${++count}`
const json = { 'Content-Type': 'application/json' }
const codes = ({ failed }: SyncSummary) => failed.map(({ path, error }) => [path, error.code])
const remotes = async (path: string) => {
  const found: string[] = []
  for await (const { path: one, type } of client.walk(path)) if (type === 'file') found.push(one.slice(path.length + 1))
  return found.sort()
}
const without = (files: Record<string, string>, start: string) =>
  Object.fromEntries(Object.entries(files).filter(([path]) => !path.startsWith(start)))

/** A run that sends a directory, as every command does it. */
const SENDING = {
  upload: (local: string, remote: string, how = {}) => client.upload([local], remote, { contents: true, ...how }),
  push: (local: string, remote: string, how = {}) => client.push(local, remote, how),
  both: (local: string, remote: string, how = {}) => client.both(local, remote, how),
}
/** The same, fetching. */
const FETCHING = {
  download: (remote: string, local: string, how = {}) => client.download([remote], local, { contents: true, ...how }),
  pull: (remote: string, local: string, how = {}) => client.pull(remote, local, how),
}

describe.each(Object.entries(SENDING))('%s', (name, run) => {
  test('makes folders of one depth at the same time', async () => {
    const local = world.path(fresh('folders'))
    makeTree(local, Object.fromEntries(Array.from({ length: 8 }, (_, at) => [`d${at}/f`, `${at}`])))
    const remote = `/room/${fresh(name)}`
    await client.mkdir(remote)
    // None is answered before all eight have been asked for.
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/folders$' }, times: 8, do: { hold: true } })
    const going = run(local, remote)
    await world.server.faults.until(world.server.faults.hits.length + 8)
    world.server.faults.clear()
    expect(await going).toMatchObject({ transferred: 8, failed: [] })
  })

  test('a folder that the server fails to make costs its own files, not the run', async () => {
    const local = world.path(fresh('failing'))
    makeTree(local, { 'a/f': 'x', 'b/f': 'x', 'c/f': 'x', top: 'x' })
    const remote = `/room/${fresh(name)}`
    await client.mkdir(remote)
    const answer = { status: 400, headers: json, body: '{"code":400,"errorCode":-40755}' }
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/folders$' }, do: answer })
    const summary = await run(local, remote)
    expect(summary.stoppedBy).toBeUndefined()
    expect(summary.transferred).toBe(3)
    expect(new Set(codes(summary).map(([, code]) => code))).toEqual(new Set(['NAME_REFUSED']))
    expect(await run(local, remote)).toMatchObject({ transferred: 1, failed: [] })
  })

  test('takes filters, rules of the directory and limits', async () => {
    const local = world.path(fresh('filters'))
    makeTree(local, {
      '.syncignore': '*.tmp\n',
      'a.tmp': 'x',
      'sub/b.tmp': 'x',
      'sub/c.log': 'x',
      large: 'x'.repeat(1000),
      'sub/d': 'dd',
      e: 'ee',
    })
    const remote = `/room/${fresh(name)}`
    const selection = { patterns: ['*.log'], maxSize: 500 }
    expect(await run(local, remote, { selection })).toMatchObject({ failed: [], transferred: 3 })
    expect((await remotes(remote)).filter((path) => !path.startsWith('.sealsync'))).toEqual([
      '.syncignore',
      'e',
      'sub/d',
    ])
    const other = `/room/${fresh(name)}`
    const limited = await run(local, other, { selection, maxTransfer: 9 })
    expect(limited).toMatchObject({ failed: [] })
    expect(limited.left).toBeGreaterThan(0)
    expect(limited.bytes).toBeLessThanOrEqual(9)
    const some = await run(local, `/room/${fresh(name)}`, { selection: { paths: ['sub/d', 'none'] } })
    expect([some.transferred, codes(some)]).toEqual([1, [['none', 'PATH_MISSING']]])
  })

  test('two at once: one is refused and damages nothing, or waits for the other', async () => {
    const local = world.path(fresh('twice'))
    makeTree(local, { a: 'a', b: 'b' })
    const remote = `/room/${fresh(name)}`
    await client.mkdir(remote)
    const post = { method: 'POST', path: '/files/uploads$' }
    world.server.faults.add({ on: post, do: { hold: true } })
    const first = run(local, remote)
    await world.server.faults.until(world.server.faults.hits.length + 1)
    await expect(run(local, remote)).rejects.toMatchObject({ code: 'LOCKED' })
    const waiting = run(local, remote, { waitMs: 600_000 })
    world.server.faults.clear()
    expect(await first).toMatchObject({ transferred: 2, failed: [] })
    expect(await waiting).toMatchObject({ transferred: 0, failed: [] })
  })

  test('is listed, and taken back', async () => {
    const local = world.path(fresh('undone'))
    makeTree(local, { 'sub/a': 'a' })
    const remote = `/room/${fresh(name)}`
    await client.mkdir(remote)
    const first = await run(local, remote, { manifest: false })
    writeFileSync(join(local, 'sub/a'), 'longer')
    const second = await run(local, remote, { manifest: false })
    expect(second.transferred).toBe(1)
    const listed = (await client.runs()).map(({ run: { id, command } }) => [id, command])
    expect(listed.slice(0, 2)).toEqual([
      [second.runId, name],
      [first.runId, name],
    ])
    expect(await client.undo(second.runId)).toMatchObject({ undone: [{ do: 'replaced-remote', path: 'sub/a' }] })
    expect(Buffer.from(await (await client.get(`${remote}/sub/a`)).bytes()).toString()).toBe('a')
    await client.undo(first.runId)
    expect(await remotes(remote)).toEqual([])
  })
})

describe.each(Object.entries(FETCHING))('%s', (name, run) => {
  const prepare = async (files: Record<string, string>) => {
    const remote = `/room/${fresh(name)}`
    for (const [path, text] of Object.entries(files)) {
      await client.put(`${remote}/${path}`, Buffer.from(text), { parents: true, modifiedAt: 1_600_000_000_000 })
    }
    return { remote, local: world.path(fresh('fetched')) }
  }

  test('takes filters and limits', async () => {
    const { remote, local } = await prepare({ 'a.log': 'x', 'sub/b.log': 'x', 'sub/c': 'cc', large: 'x'.repeat(1000) })
    const selection = { patterns: ['*.log'], maxSize: 500 }
    expect(await run(remote, local, { selection })).toMatchObject({ failed: [], transferred: 1 })
    expect(snapshot(local)).toEqual({ 'sub/': '', 'sub/c': 'cc' })
    const limited = await run(remote, world.path(fresh('limited')), { maxTransfer: 5 })
    expect(limited.left).toBeGreaterThan(0)
    expect(limited.bytes).toBeLessThanOrEqual(5)
  })

  test('a file that differs, and something of another kind, are told with the same codes, and kept', async () => {
    const { remote, local } = await prepare({ differs: 'there', 'dir/x': 'x', file: 'f', new: 'n' })
    makeTree(local, { differs: 'here', dir: 'a file', 'file/below': 'y' })
    const summary = await run(remote, local)
    expect(codes(summary).sort()).toEqual([
      ['differs', 'TARGET_DIFFERS'],
      ['dir', 'KINDS_DIFFER'],
      ['file', 'KINDS_DIFFER'],
    ])
    expect(summary).toMatchObject({ transferred: 1 })
    expect(snapshot(local)).toEqual({ differs: 'here', dir: 'a file', 'file/': '', 'file/below': 'y', new: 'n' })
  })

  test('what it replaces can be had back', async () => {
    const { remote, local } = await prepare({ a: 'there', b: 'b' })
    makeTree(local, { a: 'here' })
    utimesSync(join(local, 'a'), 1_500_000_000, 1_500_000_000)
    const summary = await run(remote, local, { onConflict: 'overwrite' })
    expect(readFileSync(join(local, 'a'), 'utf8')).toBe('there')
    expect((await client.undo(summary.runId)).skipped).toEqual([])
    expect(without(snapshot(local), '.sealsync-bin')).toEqual({ a: 'here' })
  })

  test('two at once: the second is refused', async () => {
    const { remote, local } = await prepare({ a: 'a' })
    mkdirSync(local)
    world.server.faults.add({ on: { path: '/downloads$' }, do: { hold: true } })
    const first = run(remote, local)
    await world.server.faults.until(world.server.faults.hits.length + 1)
    await expect(run(remote, local)).rejects.toMatchObject({ code: 'LOCKED' })
    world.server.faults.clear()
    expect(await first).toMatchObject({ transferred: 1, failed: [] })
  })
})

test('a transfer that was stopped goes on with `resume`, and a plan of one is applied', async () => {
  const local = world.path(fresh('resumed'))
  makeTree(local, { a: 'a', b: 'b', c: 'c' })
  const remote = `/room/${fresh('resumed')}`
  await client.mkdir(remote)
  const stop = new AbortController()
  world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, do: { hold: true } })
  const going = client.upload([local], remote, { contents: true, signal: stop.signal })
  await world.server.faults.until(world.server.faults.hits.length + 1)
  stop.abort()
  expect((await going).stoppedBy?.class).toBe('cancelled')
  world.server.faults.clear()
  const [again] = await client.resume({ local, remote })
  expect(again).toMatchObject({ failed: [], files: 3 })
  expect(await remotes(remote)).toEqual(['a', 'b', 'c'])
  expect(await client.status({ local, remote })).toMatchObject([{ success: { command: 'upload' } }])

  writeFileSync(join(local, 'd'), 'd')
  const plan = await client.plan('upload', [local, remote], { contents: true })
  expect(plan.steps.map(({ do: action, path }) => [action, path])).toEqual([['upload', 'd']])
  expect(await client.apply(JSON.parse(JSON.stringify(plan)))).toMatchObject({ transferred: 1, failed: [] })
  await expect(client.apply(plan)).rejects.toMatchObject({ code: 'PLAN_DRIFTED' })

  await client.forget(local, remote)
  await expect(client.status({ local, remote })).rejects.toMatchObject({ code: 'NO_RUNS' })
})

test('`retry` sends what failed, and nothing that is new', async () => {
  const local = world.path(fresh('retried'))
  makeTree(local, { 'a/f': 'x', 'b/f': 'x' })
  const remote = `/room/${fresh('retried')}`
  await client.mkdir(remote)
  const name = local.slice(local.lastIndexOf('/') + 1)
  await client.mkdir(`${remote}/${name}`)
  const answer = { status: 400, headers: json, body: '{"code":400,"errorCode":-40755}' }
  world.server.faults.add({ on: { method: 'POST', path: '/nodes/folders$' }, times: 1, do: answer })
  const first = await client.upload([local], remote)
  expect(first).toMatchObject({ transferred: 1 })
  expect(first.failed.length).toBeGreaterThan(0)
  makeTree(local, { new: 'n' })
  expect(await client.retry({ local, remote })).toMatchObject([{ transferred: 1, failed: [] }])
  expect(await remotes(remote)).toEqual([`${name}/a/f`, `${name}/b/f`])
})

test('a plan says what is done, not what is allowed', async () => {
  const local = world.path(fresh('planned'))
  makeTree(local, { a: 'a' })
  await client.rooms.create('/plain', { plain: true })
  const plan = await client.plan('upload', [local, '/plain'], { contents: true })
  const forged = { ...plan, options: { ...plan.options, allowPlain: true, requireEncryption: false } }
  await expect(client.apply(forged, { requireEncryption: true })).rejects.toMatchObject({ class: 'safety' })
})

test.runIf(process.platform === 'linux' && process.getuid?.() === 0).each(Object.entries(FETCHING))(
  '%s: what does not fit is told before anything is fetched',
  async (name, run) => {
    const remote = `/room/${fresh(name)}`
    await client.put(`${remote}/large`, Buffer.alloc(3_000_000), { parents: true })
    const target = world.path(fresh('small-disk'))
    mkdirSync(target)
    expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', target]).status).toBe(0)
    try {
      await expect(run(remote, target)).rejects.toMatchObject({ code: 'LOCAL_ENOSPC' })
    } finally {
      expect(spawnSync('umount', [target]).status).toBe(0)
    }
  },
)

test('two restores into one directory at once: the second is refused', async () => {
  const source = world.path(fresh('source'))
  makeTree(source, { a: 'a' })
  const set = { name: 'set', target: `/room/${fresh('set')}`, sources: [source] }
  expect(await client.backups.run(set)).toMatchObject({ transferred: 1, failed: [] })
  const target = world.path(fresh('restored'))
  world.server.faults.add({ on: { path: '/downloads$' }, times: 9, do: { hold: true } })
  const first = client.backups.restore(set, target)
  await world.server.faults.until(world.server.faults.hits.length + 1)
  await expect(client.backups.restore(set, target)).rejects.toMatchObject({ code: 'LOCKED' })
  world.server.faults.clear()
  expect(await first).toMatchObject({ transferred: 1, failed: [] })
  expect(await client.backups.restore(set, target)).toMatchObject({ transferred: 0, skipped: 1, failed: [] })
})
