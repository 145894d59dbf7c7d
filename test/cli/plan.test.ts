/** Dry runs, plans and applying them, for uploads and downloads; and that looking changes nothing. */
import { rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { MemoryRecorder } from '../../src/server/recorder.ts'
import { isChange, type PlanLine, planLine } from '../../src/sync/plan-file.ts'
import { createWorld, listFiles, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
const recorder = new MemoryRecorder()
beforeAll(async () => {
  world = await createWorld({ recorder })
})
afterAll(() => world.close())
beforeEach(() => void recorder.requests.splice(0))

const cli = (...args: string[]) => world.cli([...args, '--key-password-file', world.keyPasswordFile])
/** Without the encryption password: a look needs none. */
const plain = (...args: string[]) => world.cli(args)
const summary = (result: { json: Record<string, unknown>[] }) => result.json.at(-1)!
const steps = (result: { json: Record<string, unknown>[] }) => result.json.filter(({ type }) => type === 'step')
const methods = () => new Set(recorder.requests.map(({ method }) => method))
/** Without what is remembered of the server's rooms and the lock directory: a look may take note of the former. */
const files = (root: string) => listFiles(root).filter((path) => !/^(pins|locks)\//.test(path))

test('an upload: the table, a plan, drift, and carrying it out', async () => {
  const [tree, file] = [world.path('up'), world.path('up.json')]
  makeTree(tree, { a: 'a', 'sub/b': 'bb', changed: '1' })
  makeTree(world.path('up first'), { changed: 'old', same: 's' })
  const client = await world.client()
  await client.upload([world.path('up first')], '/room/up', { contents: true })
  const args = ['upload', '--contents', tree, '/room/up']
  const table = await plain(...args, '-n')
  expect(table.code).toBe(0)
  expect(table.stdout.trimEnd().split('\n')).toEqual([
    'make folder there              sub  (new here)',
    'upload                    1 B  a  (new here)',
    'upload                    1 B  changed  (they differ)',
    'upload                    2 B  sub/b  (new here)',
  ])
  expect(table.stderr).toContain(`${tree} → /room/up: 1 make folder there, 3 upload; 4 B to transfer`)
  expect((await plain(...args, '-n', '--detailed-exitcode')).code).toBe(11)
  const plan = await plain('plan', ...args, '-o', file, '--json', '--detailed-exitcode')
  expect(plan.code).toBe(11)
  expect(plan.json).toMatchObject([
    { type: 'step', do: 'make-folder', path: 'sub' },
    { type: 'step', do: 'upload', path: 'a', bytes: 1 },
    { type: 'step', do: 'upload', path: 'changed', of: expect.stringMatching(/^local 1 \S+, remote \d+ 3$/) },
    { type: 'step', do: 'upload', path: 'sub/b', bytes: 2 },
    { type: 'summary', exitCode: 11, direction: 'upload', local: tree, remote: '/room/up', bytes: 4, failed: [] },
  ])

  writeFileSync(`${tree}/later`, 'x')
  const drifted = await cli('apply', file, '--json')
  expect(drifted.code).toBe(9)
  expect(summary(drifted)).toMatchObject({
    stoppedBy: { code: 'PLAN_DRIFTED', message: expect.stringContaining('later') },
  })
  rmSync(`${tree}/later`)
  const done = await cli('apply', file, '--json')
  expect(summary(done)).toMatchObject({ exitCode: 0, transferred: 3, skipped: 0 })
  expect((await plain(...args, '-n', '--detailed-exitcode', '--json')).json).toMatchObject([
    { type: 'summary', exitCode: 0, counts: {}, bytes: 0 },
  ])
  // Everything it planned is done.
  expect((await cli('apply', file)).code).toBe(9)
})

test('a download: the table, a plan, drift on the server and on the disk, and carrying it out', async () => {
  const [target, file] = [world.path('down'), world.path('down.json')]
  const client = await world.client()
  makeTree(world.path('there'), { a: 'a', 'sub/b': 'bb', 'sub/c': 'ccc' })
  await client.upload([world.path('there')], '/room/down', { contents: true })
  makeTree(target, { a: 'mine' })
  const args = ['download', '--contents', '/room/down', target]
  const table = await plain(...args, '-n')
  expect(table.code).toBe(0)
  expect(table.stdout.trimEnd().split('\n')).toEqual([
    'make directory here            sub  (new there)',
    'conflict                       a  (they differ)',
    'download                  2 B  sub/b  (new there)',
    'download                  3 B  sub/c  (new there)',
  ])
  expect(table.stderr).toContain(
    `${target} ← /room/down: 1 make directory here, 1 conflict, 2 download; 5 B to transfer`,
  )
  expect((await plain('plan', ...args, '--on-conflict', 'overwrite', '-o', file)).code).toBe(0)
  const before = snapshot(target)

  makeTree(world.path('there'), { late: 'x' })
  await client.upload([world.path('there')], '/room/down', { contents: true })
  expect(summary(await cli('apply', file, '--json'))).toMatchObject({
    exitCode: 9,
    stoppedBy: { code: 'PLAN_DRIFTED' },
  })
  expect(snapshot(target)).toEqual(before)
  expect((await plain('plan', ...args, '--on-conflict', 'overwrite', '-o', file)).code).toBe(0)
  writeFileSync(`${target}/a`, 'edited')
  expect(summary(await cli('apply', file, '--json'))).toMatchObject({
    exitCode: 9,
    stoppedBy: { message: expect.stringMatching(/: a$/) },
  })
  expect((await plain('plan', ...args, '--on-conflict', 'overwrite', '-o', file)).code).toBe(0)
  expect(summary(await cli('apply', file, '--json'))).toMatchObject({ exitCode: 0, transferred: 4 })
  const { '.sealsync-bin/': bin, ...now } = snapshot(target)
  expect(bin).toBe('')
  // What was replaced can be had back.
  const kept = Object.fromEntries(Object.entries(now).filter(([path]) => !path.startsWith('.sealsync-bin/')))
  expect(kept).toEqual(snapshot(world.path('there')))
})

test.each(['skip', 'newer', 'rename', 'overwrite', 'fail'] as const)(
  'what a dry run says is what the run does: on conflict %s, with and without comparing contents',
  async (onConflict) => {
    const [tree, target] = [world.path(`what ${onConflict}`), world.path(`back ${onConflict}`)]
    const client = await world.client()
    makeTree(tree, { differs: '1', compared: '2', same: 's', 'kind/x': 'x', new: 'n' })
    const remote = `/room/what ${onConflict}`
    await client.upload([tree], remote, { contents: true })
    makeTree(target, { differs: 'other', compared: '3', kind: 'a file' })
    utimesSync(`${target}/compared`, 1_000_000_000, 1_000_000_000)
    for (const checksum of [false, true]) {
      const equal = new Set(['same', ...(onConflict === 'overwrite' ? ['differs', 'compared'] : [])])
      const options = { contents: true, onConflict, checksum }
      const before = snapshot(target)
      const { steps, ...look } = await client.download([remote], target, { ...options, dryRun: true })
      const told = steps.filter(isChange).map(planLine)
      expect([look.transferred, snapshot(target)]).toEqual([0, before])
      const done = await client.download([remote], target, { ...options, planned: told })
      const after = snapshot(target)
      const changed = Object.keys(after).filter((path) => before[path] !== after[path])
      const failed = done.failed.map(({ path }) => path)
      // What is compared comes out equal or not: only the run finds out.
      const isEqual = ({ path, other }: PlanLine) => checksum && [path, other].some((one) => equal.has(one ?? ''))
      const paths = (what: string) => told.filter((step) => step.do === what && !isEqual(step)).map(({ path }) => path)
      expect(changed.sort()).toEqual(paths('download').sort())
      expect(failed.sort()).toEqual(paths('conflict').sort())
      rmSync(`${target}/new`)
    }
  },
)

test('looking sends GET requests only, needs no key, and leaves nothing on the disk', async () => {
  const tree = world.path('look')
  makeTree(tree, { a: 'a', 'sub/b': 'b', 'bad.\u0001': 'c' })
  const client = await world.client()
  makeTree(world.path('look there'), { a: 'other', c: 'c' })
  await client.upload([world.path('look there')], '/room/look', { contents: true })
  const home = files(world.home)
  const disk = snapshot(tree)
  const remote = await world.list('/room')
  const nowhere = world.path('not', 'there')
  const commands = [
    ['upload', tree, '/room/look', '-n'],
    ['upload', tree, '/room/look/new/deeper', '-n', '--checksum'],
    ['upload', '--contents', tree, '/room/look', '-n', '--on-conflict', 'rename'],
    ['download', '/room/look', nowhere, '-n'],
    ['download', '--contents', '/room/look', tree, '-n', '--checksum'],
    ['plan', 'upload', tree, '/room/look'],
    ['plan', 'download', '/room/look', nowhere],
    ['push', tree, '/room/look', '-n'],
    ['pull', '/room/look', world.path('not', 'either'), '-n'],
    ['both', tree, '/room/look again', '-n'],
  ]
  recorder.requests.splice(0)
  const codes = await Promise.all(commands.map(async (args) => [args.join(' '), (await plain(...args)).code]))
  expect(codes).toEqual(commands.map((args) => [args.join(' '), 0]))
  expect(methods()).toEqual(new Set(['GET']))
  expect(files(world.home)).toEqual(home)
  expect(snapshot(tree)).toEqual(disk)
  expect(snapshot(world.path('not'))).toEqual({})
  expect(await world.list('/room')).toEqual(remote)
})

test('what is in the way of a directory is told once, in the plan and in the run', async () => {
  const client = await world.client()
  makeTree(world.path('way'), { 'dir/a': 'a', 'dir/deep/b': 'b', 'linked/c': 'c', fine: 'f' })
  await client.upload([world.path('way')], '/room/way', { contents: true })
  const [target, elsewhere] = [world.path('way back'), world.path('elsewhere')]
  makeTree(target, { dir: 'a file' })
  makeTree(elsewhere, {})
  symlinkSync(elsewhere, `${target}/linked`)
  const told = await plain('download', '--contents', '/room/way', target, '-n', '--json')
  expect(steps(told)).toMatchObject([
    { do: 'conflict', path: 'dir' },
    { do: 'conflict', path: 'linked' },
    { do: 'download', path: 'fine' },
  ])
  const done = summary(await cli('download', '--contents', '/room/way', target, '--json'))
  expect(done).toMatchObject({
    exitCode: 12,
    transferred: 1,
    failed: [
      { path: 'dir', code: 'KINDS_DIFFER' },
      { path: 'linked', code: 'KINDS_DIFFER' },
    ],
  })
  expect(snapshot(elsewhere)).toEqual({})
})

test('what apply refuses', async () => {
  const file = world.path('refused.json')
  const plan = { format: 'sealsync-plan', version: 1, direction: 'upload', options: {}, steps: [] }
  const wrong = [
    { ...plan, sources: [], target: '/room' },
    { ...plan, sources: [1], target: '/room' },
    { ...plan, sources: ['/tmp'] },
    { ...plan, direction: 'sideways', sources: ['/tmp'], target: '/room' },
    { ...plan, direction: 'push', sources: ['/tmp'], target: '/room' },
  ]
  for (const one of wrong) {
    writeFileSync(file, JSON.stringify(one))
    expect((await plain('apply', file, '--json')).json).toMatchObject([{ exitCode: 2, code: 'PLAN_INVALID' }])
  }
})
