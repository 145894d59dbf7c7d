import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { deleteNode } from '../../src/api/nodes.ts'
import { loadSet, parseSet } from '../../src/cli/backup-config.ts'
import { SyncError } from '../../src/errors.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeTree, runCli, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const backup = (args: readonly string[], home = world.home) =>
  runCli(home, [...args, '--key-password-file', world.keyPasswordFile, '--json'])

function configure(name: string, text: string): void {
  mkdirSync(join(world.home, 'backups'), { recursive: true, mode: 0o700 })
  writeFileSync(join(world.home, 'backups', `${name}.toml`), text, { mode: 0o600 })
}

test('a set from its first run to a restore on another machine', async () => {
  const source = world.path('www')
  makeTree(source, { 'index.html': 'hello', 'log/x.log': 'noise', 'data/a': 'a' })
  configure(
    'web1',
    `target = "/room/backups/web1"\nsources = ["${source}"]\nexclude = ["*.log"]\none-file-system = true\n[keep]\nlast = 1\n`,
  )
  const dry = await backup(['backup', 'run', 'web1', '--dry-run'])
  expect([dry.code, dry.json.at(-1)]).toMatchObject([
    0,
    { type: 'summary', direction: 'backup', created: 2, counts: { upload: 2 }, bytes: 6 },
  ])
  const first = await backup(['backup', 'run', 'web1'])
  expect([first.code, first.json.at(-1)]).toMatchObject([0, { exitCode: 0, isComplete: true, created: 2, bytes: 6 }])
  writeFileSync(join(source, 'index.html'), 'changed')
  const second = await backup(['backup', 'run', 'web1'])
  expect(second.json.at(-1)).toMatchObject({ changed: 1, unchanged: 1, bytes: 7 })
  const runs = (await backup(['backup', 'list', 'web1'])).json
  expect(runs).toMatchObject([
    { type: 'run', files: 2, addedBytes: 6, isComplete: true },
    { files: 2, addedBytes: 7 },
  ])
  const shown = await world.cli([
    ...['backup', 'show', 'web1', String(runs[0]!.run), `${source}/data`],
    ...['--key-password-file', world.keyPasswordFile],
  ])
  expect(shown.stdout.trim().split('\n')).toHaveLength(2)
  expect(shown.stdout).toMatch(/^d\S+ .*\/data\n-\S+ +\d+ +\d+ +1 \S+ .*\/data\/a\n$/)

  // Another machine: a login, and the target.
  const home = world.path('other machine')
  mkdirSync(home, { mode: 0o700 })
  const login = ['login', world.server.url, '--user', 'anna', '--password-file', world.path('password-anna')]
  expect((await runCli(home, login)).code).toBe(0)
  const there = ['--target', '/room/backups/web1']
  const target = world.path('restored')
  const restored = await backup(['backup', 'restore', 'web1', String(runs[0]!.run), target, ...there], home)
  expect([restored.code, restored.json.at(-1)]).toMatchObject([0, { transferred: 2, isPinned: false, failed: [] }])
  expect(restored.stderr).toContain('knows nothing of the set')
  expect(snapshot(join(target, source))).toEqual({ 'index.html': 'hello', 'data/': '', 'data/a': 'a', 'log/': '' })
  expect((await backup(['backup', 'restore', 'web1', target, ...there], home)).code).toBe(12)
  const over = await backup(['backup', 'restore', 'web1', target, '--on-conflict', 'overwrite', ...there], home)
  expect([over.code, over.json.at(-1)]).toMatchObject([0, { transferred: 1, skipped: 1 }])
  expect(readFileSync(join(target, source, 'index.html'), 'utf8')).toBe('changed')

  // Damage that size and time do not show: passed over only if one says so.
  const { atimeMs, mtimeMs } = statSync(join(target, source, 'index.html'))
  writeFileSync(join(target, source, 'index.html'), 'damaged')
  utimesSync(join(target, source, 'index.html'), atimeMs / 1000, mtimeMs / 1000)
  const mend = ['backup', 'restore', 'web1', target, '--on-conflict', 'overwrite', ...there]
  expect((await backup([...mend, '--trust-times'], home)).json.at(-1)).toMatchObject({ transferred: 0, skipped: 2 })
  expect((await backup(mend, home)).json.at(-1)).toMatchObject({ exitCode: 0, transferred: 1, skipped: 1 })
  expect(readFileSync(join(target, source, 'index.html'), 'utf8')).toBe('changed')

  const report = world.path('report.json')
  const drill = await backup(['drill', 'web1', '--sample', '100%', '--report', report])
  expect([drill.code, drill.json.at(-1)]).toMatchObject([0, { isRight: true, isPinned: true, sampled: 2, files: 2 }])
  expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({ format: 'sealsync-drill', isRight: true })
  const prune = await backup(['backup', 'prune', 'web1', '--accept-future'])
  expect([prune.code, prune.json.at(-1)]).toMatchObject([0, { removed: [runs[0]!.run], files: 1 }])

  rmSync(source, { recursive: true })
  const gone = await backup(['backup', 'run', 'web1'])
  expect([gone.code, gone.json.at(-1)]).toMatchObject([9, { type: 'summary', stoppedBy: { code: 'SOURCE_MISSING' } }])
  const { api } = await world.client()
  const { node } = await requireRemote(api, `/room/backups/web1/files${source}/data/a`)
  await deleteNode(api, node.id)
  const wrong = await backup(['drill', 'web1'])
  expect([wrong.code, wrong.json.at(-1)]).toMatchObject([7, { isRight: false, failed: [{ code: 'CONTENT_DROPPED' }] }])
  expect(readdirSync(join(world.home, 'drills'))).toHaveLength(1)
})

test('a run and a restore are planned, looked at, applied, and listed', async () => {
  const source = world.path('planned')
  makeTree(source, { a: 'a', b: 'b' })
  configure('planned', `target = "/room/backups/planned"\nsources = ["${source}"]\n`)
  const [runPlan, restorePlan, target] = [
    world.path('run.plan'),
    world.path('restore.plan'),
    world.path('planned-back'),
  ]
  const planned = await backup(['plan', 'backup', 'planned', '-o', runPlan, '--detailed-exitcode'])
  expect([planned.code, planned.json.at(-1)]).toMatchObject([11, { direction: 'backup', counts: { upload: 2 } }])
  const applied = await backup(['apply', runPlan])
  expect([applied.code, applied.json.at(-1)]).toMatchObject([0, { transferred: 2, failed: [] }])
  expect((await backup(['apply', runPlan])).json.at(-1)).toMatchObject({
    exitCode: 9,
    stoppedBy: { code: 'PLAN_DRIFTED' },
  })
  const limited = await backup(['backup', 'restore', 'planned', target, '--exclude', 'b', '-n'])
  expect([limited.code, limited.json.at(-1)]).toMatchObject([0, { direction: 'restore', counts: { download: 1 } }])
  expect((await backup(['plan', 'restore', 'planned', target, '-o', restorePlan])).code).toBe(0)
  const back = await backup(['apply', restorePlan])
  expect([back.code, back.json.at(-1)]).toMatchObject([0, { transferred: 2, failed: [] }])
  expect(snapshot(join(target, source))).toEqual({ a: 'a', b: 'b' })
  const runs = (await world.cli(['runs', '--json'])).json.filter(({ remote }) => remote === '/room/backups/planned')
  expect(runs.map(({ command, outcome }) => [command, outcome])).toEqual([
    ['restore', 'done'],
    ['backup', 'stopped'],
    ['backup', 'done'],
  ])
  const undone = await world.cli(['undo', String(runs[0]!.id), '--json'])
  expect([undone.code, existsSync(join(target, source))]).toEqual([0, false])
  expect((await world.cli(['undo', String(runs[2]!.id), '--json'])).json.at(-1)).toMatchObject({
    exitCode: 2,
    code: 'RUN_NOT_UNDONE',
  })
})

test('what is wrong with a configuration or a command is told before anything is done: 2', async () => {
  expect((await backup(['backup', 'run', 'nothing'])).json.at(-1)).toMatchObject({
    exitCode: 2,
    stoppedBy: { code: 'BACKUP_MISSING' },
  })
  configure('open', 'target = "/room/x"\nsources = ["/etc"]\n')
  chmodSync(join(world.home, 'backups', 'open.toml'), 0o666)
  const open = await backup(['backup', 'run', 'open'])
  expect([open.code, open.stderr]).toEqual([2, expect.stringContaining('other users can change it')])
  const sample = await backup(['drill', 'x', '--target', '/room/x', '--sample', '200%'])
  expect(sample.json.at(-1)).toMatchObject({ exitCode: 2, code: 'OPTION_INVALID' })
})

describe('configurations', () => {
  const right = { target: '/room/b', sources: ['/etc', '/home/'] }
  const parse = (values: Record<string, unknown>) =>
    parseSet('name', values, (why) => new SyncError('usage', 'BACKUP_CONFIG', why))

  test('of another name, or that are none, are refused', async () => {
    await expect(loadSet('../x')).rejects.toMatchObject({ class: 'usage', code: 'BACKUP_NAME' })
    const path = world.path('broken.toml')
    writeFileSync(path, 'target = \n', { mode: 0o600 })
    await expect(loadSet('broken', path)).rejects.toMatchObject({ class: 'usage', code: 'BACKUP_CONFIG' })
    await expect(loadSet('folder', world.base)).rejects.toMatchObject({ class: 'usage', code: 'BACKUP_CONFIG' })
  })

  test('are read', () => {
    const keep = { last: 3, daily: 7, weekly: 4, monthly: 12, yearly: 2 }
    expect(parse({ ...right, exclude: ['*.tmp'], 'one-file-system': true, 'max-size': '2G', keep })).toEqual({
      name: 'name',
      target: '/room/b',
      sources: ['/etc', '/home'],
      exclude: ['*.tmp'],
      oneFileSystem: true,
      maxSize: 2 * 1024 ** 3,
      keep,
    })
    expect(parse({ target: '/room//b/', sources: ['/'] })).toMatchObject({ target: '/room/b', sources: ['/'] })
  })

  test.each([
    ['an unknown setting', { ...right, source: ['/x'] }, '"source"'],
    ['no target', { sources: ['/etc'] }, '"target"'],
    ['a relative target', { ...right, target: 'room/b' }, '"target"'],
    ['the root as target', { ...right, target: '/' }, '"target"'],
    ['no sources', { target: '/room/b' }, '"sources"'],
    ['an empty list of sources', { ...right, sources: [] }, '"sources"'],
    ['sources of another type', { ...right, sources: '/etc' }, '"sources"'],
    ['a relative source', { ...right, sources: ['etc'] }, '"sources"'],
    ['a source with dots', { ...right, sources: ['/a/../b'] }, '"sources"'],
    ['a source twice', { ...right, sources: ['/a', '/a/'] }, '"sources"'],
    ['a source in another', { ...right, sources: ['/a/b', '/a'] }, '"sources"'],
    ['a source in the root', { ...right, sources: ['/', '/a'] }, '"sources"'],
    ['excludes of another type', { ...right, exclude: [1] }, '"exclude"'],
    ['a flag of another type', { ...right, 'one-file-system': 'yes' }, '"one-file-system"'],
    ['a size that is none', { ...right, 'max-size': 'large' }, '"max-size"'],
    ['an unknown period', { ...right, keep: { hourly: 1 } }, '"hourly"'],
    ['a count that is none', { ...right, keep: { daily: -1 } }, '"keep.daily"'],
    ['a keep that is no table', { ...right, keep: 3 }, '"keep"'],
  ])('with %s are refused by its name', (_name, values, key) => {
    expect(() => parse(values)).toThrow(expect.objectContaining({ message: expect.stringContaining(key) }))
  })
})
