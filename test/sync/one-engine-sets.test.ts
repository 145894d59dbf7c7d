/** What the runs and restores of backup sets have in common with all other runs; for those see one-engine.test.ts. */
import {
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { BackupSetOptions } from '../../src/client/backups.ts'
import type { PlanFile } from '../../src/client/runs.ts'
import type { Client } from '../../src/client.ts'
import type { SyncSummary } from '../../src/sync/run-job.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
let client: Client
let sent: string[] = []
beforeAll(async () => {
  world = await createWorld()
  client = await world.openClient({
    trustNewMembers: true,
    directory: world.path('kept'),
    onEvent: (event) => {
      if (event.type === 'file-done') sent.push(event.path)
    },
  })
})
afterAll(async () => {
  await client.close()
  await world.close()
})
afterEach(() => {
  world.server.faults.clear()
  sent = []
})

let count = 0
const fresh = (what: string) => `${what}${++count}`
const codes = ({ failed }: SyncSummary) => failed.map(({ path, error }) => [path, error.code])
const json = { 'Content-Type': 'application/json' }
const again = (plan: PlanFile) => JSON.parse(JSON.stringify(plan)) as PlanFile

/** A set whose places at the server are there already. */
async function createSet(files: Record<string, string> = {}): Promise<BackupSetOptions & { readonly source: string }> {
  const name = fresh('set')
  const source = world.path(name)
  mkdirSync(source)
  const set = { name, target: `/room/backups/${name}`, sources: [source], source }
  expect(await client.backups.run(set)).toMatchObject({ failed: [], isComplete: true })
  makeTree(source, files)
  return set
}

async function restored(
  set: BackupSetOptions & { readonly source: string },
  run?: string,
): Promise<Record<string, string>> {
  const target = world.path(fresh('restored'))
  expect((await client.backups.restore(set, target, { run })).failed).toEqual([])
  return snapshot(join(target, set.source))
}

describe('a run of a set', () => {
  test('makes folders of one depth at the same time', async () => {
    const set = await createSet(Object.fromEntries(Array.from({ length: 8 }, (_, at) => [`d${at}/f`, `${at}`])))
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/folders$' }, times: 8, do: { hold: true } })
    const going = client.backups.run(set)
    await world.server.faults.until(world.server.faults.hits.length + 8)
    world.server.faults.clear()
    expect(await going).toMatchObject({ transferred: 8, failed: [], isComplete: true })
  })

  test('a folder that the server fails to make costs its own files, not the run', async () => {
    const set = await createSet({ 'a/f': 'x', 'b/f': 'x', 'c/f': 'x', top: 'x' })
    const answer = { status: 400, headers: json, body: '{"code":400,"errorCode":-40755}' }
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/folders$' }, do: answer })
    const summary = await client.backups.run(set)
    expect(summary).toMatchObject({ transferred: 3, isComplete: false })
    expect(summary.run).toBeDefined()
    expect(new Set(codes(summary).map(([, code]) => code))).toEqual(new Set(['NAME_REFUSED']))
    expect(await client.backups.run(set)).toMatchObject({ transferred: 1, failed: [], isComplete: true })
    expect(await restored(set)).toEqual(snapshot(set.source))
  })

  test('ends at a limit with a partial point in time; the next run goes on', async () => {
    const set = await createSet({ a: 'aaaa', b: 'bbbb', c: 'cccc' })
    const limited = await client.backups.run(set, { maxTransfer: 9, jobs: 1 })
    expect(limited).toMatchObject({ transferred: 2, left: 1, failed: [], isComplete: false })
    expect(Object.keys(await restored(set))).toHaveLength(2)
    expect(await client.backups.run(set)).toMatchObject({ transferred: 1, isComplete: true })
    expect(await restored(set)).toEqual(snapshot(set.source))
  })

  test('two at once: one is refused and damages nothing, or waits for the other', async () => {
    const set = await createSet({ a: 'a', b: 'b' })
    world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, do: { hold: true } })
    const first = client.backups.run(set)
    await world.server.faults.until(world.server.faults.hits.length + 1)
    await expect(client.backups.run(set)).rejects.toMatchObject({ code: 'LOCKED' })
    await expect(client.backups.prune({ ...set, keep: { last: 1 } })).rejects.toMatchObject({ code: 'LOCKED' })
    const waiting = client.backups.run(set, { waitMs: 600_000 })
    world.server.faults.clear()
    expect(await first).toMatchObject({ transferred: 2, failed: [] })
    expect(await waiting).toMatchObject({ transferred: 0, failed: [] })
  })

  test('is listed under the id of its point in time, and is not taken back', async () => {
    const set = await createSet({ a: 'a' })
    const { run, runId } = await client.backups.run(set)
    expect(runId).toBe(run)
    const [{ run: listed, pair } = {}] = await client.runs({ remote: set.target })
    expect([listed?.id, listed?.command, listed?.outcome]).toEqual([run, 'backup', 'done'])
    expect(pair).toMatchObject({
      local: set.source,
      remote: set.target,
      backup: { direction: 'backup', set: set.name },
    })
    expect(await client.status({ remote: set.target })).toMatchObject([{ files: 1, success: { id: run } }])
    expect((await client.backups.list(set)).notes.at(-1)?.run).toBe(run)
    await expect(client.undo(run!)).rejects.toMatchObject({ code: 'RUN_NOT_UNDONE' })
    await expect(client.undo(run!, { dryRun: true })).rejects.toMatchObject({ code: 'RUN_NOT_UNDONE' })
  })

  test('that was stopped is resumed, one in which something failed is tried again as a whole', async () => {
    const set = await createSet({ a: 'a', b: 'b' })
    const stop = new AbortController()
    world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, do: { hold: true } })
    const going = client.backups.run(set, { signal: stop.signal })
    await world.server.faults.until(world.server.faults.hits.length + 1)
    stop.abort()
    const stopped = await going
    expect([stopped.stoppedBy?.class, stopped.run, stopped.isComplete]).toEqual(['cancelled', undefined, false])
    world.server.faults.clear()
    expect(await client.resume({ remote: set.target })).toMatchObject([{ failed: [], files: 2, isComplete: true }])
    expect(await restored(set)).toEqual(snapshot(set.source))
    makeTree(set.source, { c: 'c' })
    world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, times: 1, do: { status: 400 } })
    expect((await client.backups.run(set)).failed).toHaveLength(1)
    expect(await client.retry({ remote: set.target })).toMatchObject([{ failed: [], transferred: 1, isComplete: true }])
  })

  test('is planned, and carried out as long as nothing has changed', async () => {
    const set = await createSet({ a: 'a' })
    await client.backups.run(set)
    const dry = await client.backups.run(set, { dryRun: true })
    expect(dry.steps).toEqual([])
    makeTree(set.source, { b: 'b' })
    rmSync(join(set.source, 'a'))
    const summary = await client.backups.run(set, { dryRun: true })
    expect(summary).toMatchObject({ runId: '', transferred: 0, created: 1, removed: 1, bytes: 1 })
    expect(summary.steps.map(({ do: action, path }) => [action, `/${path.join('/')}`])).toEqual([
      ['upload', join(set.source, 'b')],
      ['delete-remote', join(set.source, 'a')],
    ])
  })

  test('a guard that stops it keeps the plan, which can be applied', async () => {
    const set = await createSet(Object.fromEntries(Array.from({ length: 12 }, (_, at) => [`f${at}`, 'x'])))
    const before = await client.backups.run(set)
    for (let at = 0; at < 11; at++) rmSync(join(set.source, `f${at}`))
    const error = await client.backups.run(set).catch((thrown) => thrown)
    expect(error).toMatchObject({ class: 'safety', code: 'TOO_MANY_DELETIONS' })
    const path = /sync apply (\S+)$/.exec(error.hint)![1]!
    const plan = JSON.parse(readFileSync(path, 'utf8')) as PlanFile
    expect(await client.apply(again(plan))).toMatchObject({ failed: [], deleted: 11, isComplete: true })
    expect(await restored(set)).toEqual({ f11: 'x' })
    expect(Object.keys(await restored(set, before.run))).toHaveLength(12)
    await expect(client.apply(again(plan))).rejects.toMatchObject({ code: 'PLAN_DRIFTED' })
    const options = { set: { ...(plan.options.set as object), sources: [1] } }
    await expect(client.apply({ ...plan, options })).rejects.toMatchObject({ code: 'PLAN_INVALID' })
  })

  test('what was moved is not sent again, and older points in time have it where it was', async () => {
    const set = await createSet({ 'dir/a': 'a', 'dir/b': 'b' })
    const first = await client.backups.run(set)
    const before = snapshot(set.source)
    renameSync(join(set.source, 'dir'), join(set.source, 'moved'))
    sent = []
    expect(await client.backups.run(set)).toMatchObject({ failed: [], moved: 1, transferred: 0, removed: 0 })
    expect(sent).toEqual([])
    expect(await restored(set)).toEqual(snapshot(set.source))
    expect(await restored(set, first.run)).toEqual(before)
  })
})

describe('what is in the sources is in the point in time', () => {
  test('also what an earlier run had sent and did not live to see', async () => {
    const set = await createSet({ small: 's' })
    makeTree(set.source, { large: Buffer.alloc(11 * 1024 * 1024, 'l') })
    const stop = new AbortController()
    const put = { method: 'PUT', path: '/uploads/[^/]+/s3$|/uploads/[^/]+$' }
    world.server.faults.add({ on: put, after: 1, do: { hold: true } })
    const going = client.backups.run(set, { signal: stop.signal, jobs: 1 })
    await world.server.faults.until(world.server.faults.hits.length + 1)
    stop.abort()
    await going.catch(() => undefined)
    world.server.faults.clear()
    expect(await client.backups.run(set)).toMatchObject({ failed: [], isComplete: true })
    expect(Object.keys(await restored(set)).sort()).toEqual(['large', 'small'])
  })

  test('and what is not any more is not in the way of the next one', async () => {
    const set = await createSet({ keep: 'k', 'x.tmp': 'x', 'dir/y.tmp': 'y', big: 'b' })
    await client.backups.run(set)
    makeTree(set.source, { big: 'b'.repeat(100) })
    const less = { ...set, exclude: ['*.tmp'], maxSize: 50 }
    expect(await client.backups.run(less)).toMatchObject({ failed: [], removed: 3, deleted: 3, isComplete: true })
    expect(await client.backups.run(less)).toMatchObject({ failed: [], removed: 0, isComplete: true })
    expect(await restored(less)).toEqual({ keep: 'k', 'dir/': '' })
  })

  test('also where a move is refused', async () => {
    const set = await createSet({ 'dir/a': 'a', 'dir/b': 'b' })
    await client.backups.run(set)
    renameSync(join(set.source, 'dir'), join(set.source, 'moved'))
    const answer = { status: 409, headers: json, body: '{"code":409,"errorCode":-41001}' }
    world.server.faults.add({ on: { method: 'PUT', path: '/nodes/folders/' }, do: answer })
    const refused = await client.backups.run(set)
    expect(refused).toMatchObject({ moved: 0, isComplete: false })
    expect(await restored(set)).toEqual(snapshot(set.source))
    world.server.faults.clear()
    expect(await client.backups.run(set)).toMatchObject({ failed: [], moved: 1, transferred: 0, isComplete: true })
    expect(await restored(set)).toEqual(snapshot(set.source))
  })

  test('content that is gone from the server is told below what was moved, too', async () => {
    const set = await createSet({ 'dir/a': 'a', 'dir/b': 'b' })
    await client.backups.run(set)
    await client.remove(`${set.target}/files${set.source}/dir/a`)
    renameSync(join(set.source, 'dir'), join(set.source, 'moved'))
    const summary = await client.backups.run(set)
    expect(codes(summary)).toEqual([[join(set.source, 'dir/a'), 'CONTENT_DROPPED']])
    expect(summary).toMatchObject({ transferred: 1, isComplete: true })
    expect(await restored(set)).toEqual(snapshot(set.source))
  })

  test('an older version is called one, also after a move', async () => {
    const set = await createSet({ 'dir/a': 'a', 'dir/b': 'b' })
    await client.backups.run(set)
    renameSync(join(set.source, 'dir'), join(set.source, 'moved'))
    writeFileSync(join(set.source, 'moved/a'), 'changed')
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/files/uploads$' }, times: 1, do: { status: 400 } })
    expect((await client.backups.run(set)).failed).toHaveLength(1)
    const { entries } = await client.backups.show(set)
    const marks = entries.flatMap((entry) => (entry.kind === 'file' ? [[entry.path, entry.isOlder]] : []))
    expect(marks).toEqual([
      [join(set.source, 'moved/a'), true],
      [join(set.source, 'moved/b'), undefined],
    ])
  })
})

describe('a restore', () => {
  const SECONDS = 1_500_000_000
  const prepare = async (files: Record<string, string>) => {
    const set = await createSet(files)
    for (const path of Object.keys(files)) utimesSync(join(set.source, path), SECONDS, SECONDS)
    await client.backups.run(set)
    const target = world.path(fresh('back'))
    return { set, target, content: join(target, set.source) }
  }

  test('takes filters and limits', async () => {
    const { set, target, content } = await prepare({
      'a.log': 'x',
      'sub/b.log': 'x',
      'sub/c': 'cc',
      large: 'x'.repeat(1000),
    })
    const selection = { patterns: ['*.log'], maxSize: 500 }
    expect(await client.backups.restore(set, target, { selection })).toMatchObject({ failed: [], transferred: 1 })
    expect(snapshot(content)).toEqual({ 'sub/': '', 'sub/c': 'cc' })
    const limited = await client.backups.restore(set, world.path(fresh('limited')), { maxTransfer: 5 })
    expect(limited.left).toBeGreaterThan(0)
    expect(limited.bytes).toBeLessThanOrEqual(5)
    const paths = { paths: [`${set.source.slice(1)}/sub/c`, 'none'] }
    const some = await client.backups.restore(set, world.path(fresh('some')), { selection: paths })
    expect([some.transferred, codes(some)]).toEqual([1, [['none', 'PATH_MISSING']]])
  })

  test('a file that differs, and something of another kind, are told with the same codes, and kept or replaced', async () => {
    const { set, target, content } = await prepare({ differs: 'there', 'dir/x': 'x', file: 'f', new: 'n' })
    makeTree(content, { differs: 'here', dir: 'a file', 'file/below': 'y' })
    const summary = await client.backups.restore(set, target, { onConflict: 'fail' })
    expect(codes(summary).sort()).toEqual([
      [join(set.source, 'differs'), 'TARGET_DIFFERS'],
      [join(set.source, 'dir'), 'KINDS_DIFFER'],
      [join(set.source, 'file'), 'KINDS_DIFFER'],
    ])
    expect(summary).toMatchObject({ transferred: 1 })
    expect(snapshot(content)).toEqual({ differs: 'here', dir: 'a file', 'file/': '', 'file/below': 'y', new: 'n' })
    const over = await client.backups.restore(set, target, { onConflict: 'overwrite' })
    expect(over).toMatchObject({ failed: [], transferred: 3 })
    expect(snapshot(content)).toEqual(snapshot(set.source))
    expect((await client.undo(over.runId)).skipped).toEqual([])
    expect(snapshot(content)).toEqual({ differs: 'here', dir: 'a file', 'file/': '', 'file/below': 'y', new: 'n' })
  })

  test('a link takes the place of something, which can be had back', async () => {
    const { set, target, content } = await prepare({ a: 'a' })
    symlinkSync('a', join(set.source, 'link'))
    await client.backups.run(set)
    makeTree(content, { link: 'precious' })
    const summary = await client.backups.restore(set, target, { onConflict: 'overwrite' })
    expect(summary.failed).toEqual([])
    expect(readlinkSync(join(content, 'link'))).toBe('a')
    expect((await client.undo(summary.runId)).skipped).toEqual([])
    expect(readFileSync(join(content, 'link'), 'utf8')).toBe('precious')
  })

  test('a link in the place of a directory makes way for all that is in it', async () => {
    const { set, target, content } = await prepare({ 'dir/a': 'a' })
    symlinkSync('a', join(set.source, 'dir/link'))
    await client.backups.run(set)
    mkdirSync(content, { recursive: true })
    symlinkSync('/etc', join(content, 'dir'))
    expect(await client.backups.restore(set, target, { onConflict: 'overwrite' })).toMatchObject({ failed: [] })
    expect(snapshot(content)).toEqual(snapshot(set.source))
    expect(readlinkSync(join(content, 'dir/link'))).toBe('a')
  })

  test('what a limit has left keeps its own time', async () => {
    const { set, target, content } = await prepare({ a: 'there' })
    makeTree(content, { a: 'other' })
    const how = { onConflict: 'overwrite', maxTransfer: 0 } as const
    expect(await client.backups.restore(set, target, how)).toMatchObject({ left: 1 })
    expect(statSync(join(content, 'a')).mtimeMs).toBeGreaterThan(SECONDS * 1000)
    expect(readFileSync(join(content, 'a'), 'utf8')).toBe('other')
  })

  test('lists of files may name links and directories above the sources', async () => {
    const { set, target } = await prepare({ a: 'a' })
    symlinkSync('a', join(set.source, 'link'))
    await client.backups.run(set)
    const paths = [set.source.split('/')[1]!, `${set.source.slice(1)}/link`]
    expect(await client.backups.restore(set, target, { selection: { paths } })).toMatchObject({
      failed: [],
      transferred: 1,
    })
  })

  test('the rules in it are one’s own', async () => {
    const { set, target, content } = await prepare({ '.syncignore': '*.tmp\n', 'x.tmp': 'x', y: 'y' })
    expect((await client.backups.restore(set, target)).failed).toEqual([])
    const pushed = await client.push(content, `/room/${fresh('pushed')}`, { manifest: false })
    expect([pushed.transferred, pushed.failed, pushed.pending]).toEqual([2, [], undefined])
  })

  test('puts what differs beside what is there', async () => {
    const { set, target, content } = await prepare({ 'a.txt': 'there' })
    makeTree(content, { 'a.txt': 'here' })
    expect(await client.backups.restore(set, target, { onConflict: 'rename' })).toMatchObject({ transferred: 1 })
    expect(Object.values(snapshot(content)).sort()).toEqual(['here', 'there'])
    expect(snapshot(content)['a.txt']).toBe('here')
  })

  test('is listed, resumed, and taken back', async () => {
    const { set, target, content } = await prepare({ a: 'a', 'sub/b': 'b' })
    const stop = new AbortController()
    world.server.faults.add({ on: { path: '/downloads$' }, times: 99, do: { hold: true } })
    const going = client.backups.restore(set, target, {
      signal: stop.signal,
      run: (await client.backups.list(set)).notes.at(-1)!.run,
    })
    await world.server.faults.until(world.server.faults.hits.length + 1)
    stop.abort()
    await going.catch(() => undefined)
    world.server.faults.clear()
    const first = await client.backups.restore(set, target)
    expect(first).toMatchObject({ failed: [], transferred: 2 })
    const [{ run } = {}] = await client.runs({ local: target })
    expect([run?.id, run?.command]).toEqual([first.runId, 'restore'])
    writeFileSync(join(content, 'mine'), 'm')
    expect((await client.undo(first.runId)).undone.length).toBeGreaterThan(1)
    expect(snapshot(content)).toEqual({ mine: 'm' })
  })

  test('tries again what failed', async () => {
    const { set, target, content } = await prepare({ a: 'a', b: 'b' })
    const { notes } = await client.backups.list(set)
    expect((await client.backups.restore(set, target, { run: notes.at(-1)!.run })).failed).toEqual([])
    rmSync(join(content, 'a'))
    mkdirSync(join(content, 'a'))
    expect(codes(await client.backups.restore(set, target))).toEqual([[join(set.source, 'a'), 'KINDS_DIFFER']])
    rmSync(join(content, 'a'), { recursive: true })
    rmSync(join(content, 'b'))
    expect(await client.retry({ local: target })).toMatchObject([{ failed: [], transferred: 1 }])
    expect(snapshot(content)).toEqual({ a: 'a' })
  })

  test('two at once: the second is refused', async () => {
    const { set, target } = await prepare({ a: 'a' })
    world.server.faults.add({ on: { path: '/downloads$' }, times: 99, do: { hold: true } })
    const first = client.backups.restore(set, target)
    await world.server.faults.until(world.server.faults.hits.length + 1)
    await expect(client.backups.restore(set, target)).rejects.toMatchObject({ code: 'LOCKED' })
    world.server.faults.clear()
    expect(await first).toMatchObject({ transferred: 1, failed: [] })
  })
})
