/** push, pull, both and what belongs to them, at the command line: output, plans, exit codes. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const cli = (...args: string[]) => world.cli([...args, '--key-password-file', world.keyPasswordFile])
/** For commands that need no key. */
const plain = (...args: string[]) => world.cli(args)
const summary = (result: { json: Record<string, unknown>[] }) => result.json.at(-1)!

test('plan, review, apply; and what it says of drift', async () => {
  const [tree, file] = [world.path('planned'), world.path('plan.json')]
  makeTree(tree, { a: 'a', 'sub/b': 'bb' })
  const table = await cli('push', tree, '/room/planned', '-n')
  expect(table.code).toBe(0)
  expect(table.stdout).toMatch(/^make folder there .+ sub {2}\(new here\)$/m)
  expect(table.stdout).toMatch(/^upload +2 B {2}sub\/b {2}\(new here\)$/m)
  expect(table.stderr).toContain('1 make folder there, 2 upload; 3 B to transfer')
  expect((await cli('push', tree, '/room/planned', '-n', '--detailed-exitcode')).code).toBe(11)
  expect((await cli('plan', 'push', tree, '/room/planned', '-o', file, '--json')).json).toMatchObject([
    { type: 'step', do: 'make-folder', path: 'sub' },
    { type: 'step', do: 'upload', path: 'a', bytes: 1 },
    { type: 'step', do: 'upload', path: 'sub/b', bytes: 2 },
    { type: 'summary', exitCode: 0, bytes: 3 },
  ])
  writeFileSync(`${tree}/later`, 'x')
  const drifted = await cli('apply', file, '--json')
  expect(drifted.code).toBe(9)
  expect(summary(drifted)).toMatchObject({
    stoppedBy: { code: 'PLAN_DRIFTED', message: expect.stringContaining('later') },
  })
  rmSync(`${tree}/later`)
  expect((await cli('apply', file)).code).toBe(0)
  expect((await cli('push', tree, '/room/planned', '-n', '--detailed-exitcode')).code).toBe(0)
  writeFileSync(file, '{"format":"other"}')
  expect((await cli('apply', file)).code).toBe(2)
})

test('exit codes: 12 conflicts, 9 safety, 8 another run, 3 left over, 2 usage', async () => {
  const tree = world.path('codes')
  makeTree(tree, { a: 'a', b: 'b' })
  const args = [tree, '/room/codes']
  expect((await cli('both', ...args)).code).toBe(0)
  const client = await world.client()
  writeFileSync(`${tree}/a`, 'mine')
  makeTree(world.path('theirs'), { a: 'theirs!' })
  await client.upload([world.path('theirs')], '/room/codes', { contents: true })
  const conflict = await cli('both', ...args, '--json')
  expect(conflict.code).toBe(12)
  expect(summary(conflict)).toMatchObject({ exitCode: 12, conflicts: [{ path: 'a' }], failed: [] })

  makeTree(tree, { big: 'x'.repeat(5000) })
  expect((await cli('push', ...args, '--max-transfer', '1K')).code).toBe(3)
  renameSync(tree, `${tree}-away`)
  const missing = await cli('push', ...args, '--json')
  expect(missing.code).toBe(9)
  expect(summary(missing)).toMatchObject({ stoppedBy: { code: 'ROOT_MISSING' } })
  renameSync(`${tree}-away`, tree)

  const wrong = [
    ['push', tree, 'room'],
    ['push', tree, '/'],
    ['push', world.path('nowhere'), '/room/x'],
    ['push', tree, '/room/codes', '--max-delete', '120%'],
    ['push', tree, '/room/codes', '--max-size', 'huge'],
    ['push', tree, '/room/codes', '--on-conflict', 'rename'],
    ['both', tree, '/room/codes', '--prefer', 'me'],
    ['pull', '/nothing', world.path('x')],
    ['push', tree],
    ['undo', 'nothing'],
    ['verify', '/room', '--sample', '0%'],
  ]
  const codes = await Promise.all(wrong.map(async (one) => [one.join(' '), (await plain(...one)).code]))
  expect(codes).toEqual(wrong.map((one) => [one.join(' '), 2]))
})

test('a second run of a pair ends at once, or waits', async () => {
  const tree = world.path('locked')
  makeTree(tree, { a: 'a' })
  const { faults } = world.server
  // The others meet it in the middle.
  faults.add({ on: { method: 'POST', path: '/files/uploads$' }, do: { hold: true } })
  const held = faults.until(faults.hits.length + 1)
  const first = cli('push', tree, '/room/locked')
  await held
  const waiting = cli('push', tree, '/room/locked', '--wait', '10m')
  expect((await cli('push', tree, '/room/locked')).code).toBe(8)
  faults.clear()
  expect([(await first).code, (await waiting).code]).toEqual([0, 0])
})

test('diff and check say what differs, and change nothing', async () => {
  const tree = world.path('compared')
  makeTree(tree, { same: 's', changed: '1', gone: 'g' })
  expect((await cli('push', tree, '/room/compared')).code).toBe(0)
  expect((await plain('diff', tree, '/room/compared')).code).toBe(0)
  // The same size and time: only the content tells.
  const { atime, mtime } = await import('node:fs').then(({ statSync }) => statSync(`${tree}/changed`))
  writeFileSync(`${tree}/changed`, '2')
  const { utimesSync } = await import('node:fs')
  utimesSync(`${tree}/changed`, atime, mtime)
  expect((await plain('diff', tree, '/room/compared')).code).toBe(0)
  const check = await cli('check', tree, '/room/compared', '--json')
  expect(check.code).toBe(11)
  expect(check.json.filter(({ type }) => type !== 'file')).toEqual([
    { type: 'difference', path: 'changed', what: 'differs' },
    { type: 'summary', exitCode: 11, compared: 3, differences: 1, failed: [] },
  ])
  rmSync(`${tree}/gone`)
  makeTree(tree, { fresh: 'f' })
  const diff = await plain('diff', tree, '/room/compared')
  expect(diff.code).toBe(11)
  expect(diff.stdout.trim().split('\n').sort()).toEqual(['only here   fresh', 'only there  gone'])
})

test('verify reads everything, and notices what the server dropped, swapped or set back: 7', async () => {
  const tree = world.path('verified')
  makeTree(tree, { a: 'version 1', b: 'b', c: 'c', d: 'd' })
  expect((await cli('push', tree, '/room/verified')).code).toBe(0)
  const good = await cli('verify', '/room/verified', '--json')
  expect(summary(good)).toMatchObject({ exitCode: 0, files: 4, verified: 4, compared: 4, failed: [] })
  const sample = await cli('verify', '/room/verified', '--sample', '1%', '--json')
  expect(summary(sample)).toMatchObject({ exitCode: 0, compared: 4 })

  const client = await world.client()
  const { node: b } = await requireRemote(client.api, '/room/verified/b')
  await client.session.send({ method: 'DELETE', url: `${client.origin}/api/v4/nodes/${b.id}`, label: 'delete' })
  makeTree(world.path('other'), { c: 'other content' })
  await client.upload([world.path('other')], '/room/verified', { contents: true })
  const bad = await cli('verify', '/room/verified', '--json')
  expect(bad.code).toBe(7)
  expect(summary(bad)).toMatchObject({
    failed: [
      { path: 'b', code: 'CONTENT_DROPPED' },
      { path: 'c', code: 'CONTENT_REPLACED' },
    ],
  })
})

test('runs, status and undo', async () => {
  const tree = world.path('past')
  makeTree(tree, { a: 'one', b: 'b', 'sub/c': 'c' })
  expect((await cli('push', tree, '/room/past')).code).toBe(0)
  writeFileSync(`${tree}/a`, 'two')
  rmSync(`${tree}/b`)
  renameSync(`${tree}/sub`, `${tree}/moved`)
  expect((await cli('push', tree, '/room/past', '--delete')).code).toBe(0)
  const list = (await plain('runs', tree, '/room/past', '--json')).json
  expect(list).toMatchObject([
    { command: 'push', outcome: 'done', counts: { transferred: 1, deleted: 1, moved: 1 } },
    { command: 'push', outcome: 'done', counts: { transferred: 3 } },
  ])
  const status = await plain('status', tree, '/room/past', '--json', '--max-age', '1h')
  expect(status.code).toBe(0)
  expect(status.json).toMatchObject([{ files: 2, overdue: false, lastRun: { outcome: 'done' } }])
  expect((await plain('status', tree, '/room/past', '--max-age', '0s')).code).toBe(3)

  const id = String(list[0]!.id)
  expect((await plain('undo', id, '-n')).stdout.split('\n').filter((line) => line.startsWith('would'))).toHaveLength(3)
  expect((await plain('undo', id)).code).toBe(0)
  const look = world.path('past-look')
  expect((await cli('download', '--contents', '/room/past', look)).code).toBe(0)
  expect(snapshot(look)).toEqual({ a: 'one', b: 'b', 'sub/': '', 'sub/c': 'c' })
})

test('undo of a pull brings back what it replaced and removed here', async () => {
  const tree = world.path('pulled')
  const client = await world.client()
  makeTree(world.path('source'), { a: 'old', b: 'b', c: 'c' })
  await client.upload([world.path('source')], '/room/pulled', { contents: true })
  expect((await cli('pull', '/room/pulled', tree)).code).toBe(0)
  makeTree(world.path('source'), { a: 'newer' })
  await client.upload([world.path('source')], '/room/pulled', { contents: true })
  const { node } = await requireRemote(client.api, '/room/pulled/b')
  await client.session.send({ method: 'DELETE', url: `${client.origin}/api/v4/nodes/${node.id}`, label: 'delete' })
  expect((await cli('pull', '/room/pulled', tree, '--delete')).code).toBe(0)
  const files = () =>
    Object.fromEntries(Object.entries(snapshot(tree)).filter(([path]) => !path.startsWith('.sealsync-')))
  expect(files()).toEqual({ a: 'newer', c: 'c' })
  const [last] = (await plain('runs', tree, '/room/pulled', '--json')).json
  expect((await plain('undo', String(last!.id))).code).toBe(0)
  expect(files()).toEqual({ a: 'old', b: 'b', c: 'c' })
  // What has changed since is left alone.
  const [, pull] = (await plain('runs', '--json')).json.filter(
    ({ local, command }) => local === tree && command === 'pull',
  )
  writeFileSync(`${tree}/c`, 'edited')
  expect((await plain('undo', String(pull!.id))).code).toBe(3)
  expect(readFileSync(`${tree}/c`, 'utf8')).toBe('edited')
})

test('what failed is tried again by retry, and what was interrupted by resume', async () => {
  const tree = world.path('retried')
  makeTree(tree, { a: 'a', b: 'b', c: 'c' })
  world.server.faults.add({
    on: { method: 'POST', path: '/files/uploads$' },
    do: { status: 400, headers: { 'Content-Type': 'application/json' }, body: '{"code":400,"errorCode":-40755}' },
  })
  expect((await cli('push', tree, '/room/retried', '-j', '1')).code).toBe(3)
  const retried = await cli('retry', tree, '/room/retried', '--json')
  expect(retried.code).toBe(0)
  expect(summary(retried)).toMatchObject({ transferred: 1 })
  expect((await cli('retry', tree, '/room/retried')).stderr).toContain('nothing to do')
  mkdirSync(`${tree}/more`)
  makeTree(tree, { 'more/d': 'd' })
  world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, times: 99, do: { status: 507 } })
  expect((await cli('push', tree, '/room/retried')).code).toBe(6)
  world.server.faults.clear()
  expect(summary(await cli('resume', tree, '/room/retried', '--json'))).toMatchObject({ exitCode: 0, transferred: 1 })
})

test('--names escape: what the server cannot hold goes there all the same; plans, retry and verify follow', async () => {
  const [tree, back, file] = [world.path('names'), world.path('names back'), world.path('names.json')]
  const long = 'n'.repeat(200)
  makeTree(tree, { [long]: 'long', a: 'a' })
  const reported = await cli('push', tree, '/room/names', '--json')
  expect(reported.code).toBe(3)
  expect(summary(reported)).toMatchObject({ transferred: 1, failed: [{ path: long, code: 'NAME_TOO_LONG' }] })
  expect((await plain('diff', tree, '/room/names')).code).toBe(3)
  expect((await plain('plan', 'push', tree, '/room/names', '--names', 'escape', '-o', file)).code).toBe(0)
  expect(summary(await cli('apply', file, '--json'))).toMatchObject({ exitCode: 0, transferred: 1, failed: [] })
  expect((await plain('diff', tree, '/room/names', '--names', 'escape')).code).toBe(0)
  expect(summary(await cli('verify', '/room/names', '--json'))).toMatchObject({ exitCode: 0, compared: 2 })

  writeFileSync(`${tree}/${long}`, 'longer')
  world.server.faults.add({ on: { method: 'POST', path: '/files/uploads$' }, do: { status: 507 } })
  expect((await cli('push', tree, '/room/names', '--names', 'escape')).code).not.toBe(0)
  expect(summary(await cli('resume', tree, '/room/names', '--json'))).toMatchObject({ transferred: 1, failed: [] })

  const down = ['download', '--contents', '/room/names', back]
  expect((await plain('plan', ...down, '--names', 'escape', '-o', file)).code).toBe(0)
  expect((await cli('apply', file)).code).toBe(0)
  expect(snapshot(back)).toEqual(snapshot(tree))
})
