import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { restoreBackup } from '../../src/sync/backup/restore.ts'
import { createBackup, uploadsIn } from '../support/backup.ts'
import { createWorld, makeRoom, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const done = { failed: [], isComplete: true }

describe('points in time', () => {
  test('each run comes back as it was; what has not changed is not sent again', async () => {
    const backup = await createBackup(world)
    const { source } = backup
    makeTree(source, { a: 'a', 'sub/b': 'b', 'sub/c': 'c', 'gone/x': 'x', 'gone/deep/y': 'y', 'empty/': '' })
    const first = await backup.run()
    expect(first).toMatchObject({ ...done, created: 5, changed: 0, unchanged: 0, removed: 0, bytes: 5 })
    const before = snapshot(source)

    writeFileSync(join(source, 'a'), 'changed')
    rmSync(join(source, 'gone'), { recursive: true })
    writeFileSync(join(source, 'new'), 'new')
    chmodSync(join(source, 'sub/c'), 0o600) // touched: compared, not sent
    backup.events.length = 0
    const second = await backup.run()
    expect(second).toMatchObject({ ...done, created: 1, changed: 1, unchanged: 2, removed: 2 })
    expect(uploadsIn(backup.events).sort()).toEqual([`${source}/a`, `${source}/new`])
    const now = snapshot(source)

    backup.events.length = 0
    const third = await backup.run()
    expect(third).toMatchObject({ ...done, created: 0, changed: 0, unchanged: 4, removed: 0, bytes: 0 })
    expect(uploadsIn(backup.events)).toEqual([])

    for (const [run, wanted] of [
      [first.run, before],
      [second.run, now],
      [third.run, now],
      ['latest', now],
    ] as const) {
      const { summary, content } = await backup.restore(run!)
      expect(summary).toMatchObject({ failed: [], isPinned: true })
      expect(snapshot(content)).toEqual(wanted)
    }
    // The current state is there under real names, for any client.
    const root = source.slice(1)
    expect((await backup.remote(`files/${root}/a`)).size).toBe(7)
    await expect(backup.remote(`files/${root}/gone`)).rejects.toMatchObject({ code: 'REMOTE_MISSING' })
    expect((await backup.remote(`history/${second.run}/${root}/a`)).size).toBe(1)
    expect((await backup.remote(`history/${second.run}/${root}/gone/deep/y`)).size).toBe(1)
  })

  test.runIf(process.platform === 'linux')('what has not changed is not even read', async () => {
    const backup = await createBackup(world)
    const size = 40_000_000
    makeTree(backup.source, { large: randomBytes(size), small: 'x' })
    /** Bytes that this process has asked the system to read, ever; the server in it would have to read content, too. */
    const asked = () => Number(/^rchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))![1])
    const reading = async () => {
      const before = asked()
      expect(await backup.run()).toMatchObject(done)
      return asked() - before
    }
    expect(await reading()).toBeGreaterThan(size)
    expect(await reading()).toBeLessThan(size / 4)
    writeFileSync(join(backup.source, 'small'), 'y')
    expect(await reading()).toBeLessThan(size / 4)
    chmodSync(join(backup.source, 'large'), 0o600) // touched: compared, not sent
    expect(await reading()).toBeGreaterThan(size)
  })

  test.runIf(process.platform === 'linux' && process.getuid?.() === 0)(
    'a restore that does not fit is refused before anything is fetched',
    async () => {
      const backup = await createBackup(world)
      makeTree(backup.source, { large: randomBytes(3_000_000) })
      await backup.run()
      const target = world.path('no-space')
      mkdirSync(target)
      const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', target])
      expect(mount.status, String(mount.stderr)).toBe(0)
      try {
        await expect(restoreBackup(backup.context, backup.set, target, { state: backup.state })).rejects.toMatchObject({
          class: 'local_io',
          code: 'LOCAL_ENOSPC',
        })
      } finally {
        // It is busy while anything in it is open: nothing may be, after a refusal either.
        expect(spawnSync('umount', [target]).status).toBe(0)
      }
    },
  )

  test('modes, times and links come back, setuid does not, and only what was asked for', async () => {
    const backup = await createBackup(world)
    const { source } = backup
    makeTree(source, { 'bin/tool': '#!', 'bin/large': randomBytes(700_000), 'private/key': 'k' })
    chmodSync(join(source, 'bin/tool'), 0o4755)
    chmodSync(join(source, 'private/key'), 0o400)
    chmodSync(join(source, 'private'), 0o500)
    symlinkSync('/etc/passwd', join(source, 'bin/link'))
    symlinkSync('../missing', join(source, 'dangling'))
    utimesSync(join(source, 'bin/tool'), 1_600_000_000.123457, 1_600_000_000.123457)
    lutimesSync(join(source, 'bin/link'), 1_500_000_000.5, 1_500_000_000.5)
    utimesSync(join(source, 'bin'), 1_400_000_000, 1_400_000_000.25)
    expect(await backup.run()).toMatchObject({ ...done, created: 3, ignored: 0 })
    const { summary, content } = await backup.restore()
    expect(summary.failed).toEqual([])
    const micros = (path: string) => lstatSync(path, { bigint: true }).mtimeNs / 1000n
    for (const path of ['bin/tool', 'bin/large', 'bin/link', 'bin', 'private/key', 'private', 'dangling', '.']) {
      expect(micros(join(content, path)), path).toBe(micros(join(source, path)))
    }
    const mode = (path: string) => lstatSync(join(content, path)).mode & 0o7777
    expect([mode('bin/tool'), mode('private/key'), mode('private')]).toEqual([0o755, 0o400, 0o500])
    expect(snapshot(content)['bin/large']).toBe(snapshot(source)['bin/large'])
    expect(readlinkSync(join(content, 'bin/link'))).toBe('/etc/passwd')
    expect(readlinkSync(join(content, 'dangling'))).toBe('../missing')
    const part = await backup.restore('latest', { paths: [`${source}/private`] })
    expect(snapshot(part.content)).toEqual({ 'private/': '', 'private/key': 'k' })
    await expect(backup.restore('latest', { paths: ['/no/such'] })).rejects.toMatchObject({ code: 'PATH_MISSING' })
    for (const root of [content, part.content, source]) chmodSync(join(root, 'private'), 0o700)
  })

  test('a file that becomes a directory, a directory that becomes a file, and one that becomes a link', async () => {
    const backup = await createBackup(world)
    const { source } = backup
    makeTree(source, { one: '1', 'two/f': '2', three: '3', 'four/g': '4' })
    const first = await backup.run()
    const before = snapshot(source)
    for (const name of ['one', 'two', 'three', 'four']) rmSync(join(source, name), { recursive: true })
    makeTree(source, { 'one/inner': 'i', two: 'file now' })
    symlinkSync('one', join(source, 'three'))
    symlinkSync('one', join(source, 'four'))
    const second = await backup.run()
    expect(second).toMatchObject({ ...done, removed: 4, created: 2 })
    expect(snapshot((await backup.restore(first.run)).content)).toEqual(before)
    const { content } = await backup.restore()
    expect(snapshot(content)).toEqual({ 'one/': '', 'one/inner': 'i', two: 'file now' })
    expect(readlinkSync(join(content, 'three'))).toBe('one')
  })

  test('names that the server forbids, and what a set leaves out', async () => {
    const names = ['a:b', 'con', '-x', 'dot.', 'per%41cent', 'new\nline', 'é', 'x'.repeat(140)]
    const backup = await createBackup(world, { exclude: ['*.tmp', '!keep.tmp', 'cache/'], maxSize: 1000 })
    const { source } = backup
    makeTree(source, Object.fromEntries(names.map((name, at) => [name, `${at}`])))
    makeTree(source, { 'x.tmp': '', 'keep.tmp': '', 'cache/c': '', large: 'x'.repeat(1001) })
    const wanted = snapshot(source)
    for (const name of ['x.tmp', 'cache/', 'cache/c', 'large']) delete wanted[name]
    expect(await backup.run()).toMatchObject({ ...done, created: names.length + 1, ignored: 3 })
    expect(snapshot((await backup.restore()).content)).toEqual(wanted)
    // One that cannot be stored is told, and the others are.
    writeFileSync(join(source, 'y'.repeat(151)), 'too long')
    const partial = await backup.run()
    expect(partial).toMatchObject({ isComplete: false, failed: [{ error: { code: 'NAME_TOO_LONG' } }] })
    expect(snapshot((await backup.restore()).content)).toEqual(wanted)
  })

  test('several sources, and a new set may not begin where something else is', async () => {
    const other = world.path('second source')
    makeTree(other, { o: 'o' })
    const backup = await createBackup(world)
    const both = { ...backup.set, sources: [backup.source, other] }
    makeTree(backup.source, { f: 'f' })
    const twice = await createBackup(world, { ...both, name: 'both', target: '/room/both' })
    expect(await twice.run()).toMatchObject({ ...done, created: 2 })
    const { root } = await twice.restore()
    expect([existsSync(join(root, other, 'o')), existsSync(join(root, backup.source, 'f'))]).toEqual([true, true])
    makeTree(world.path('files'), { theirs: 'x' })
    const client = await world.client()
    await client.upload([world.path('files')], '/room/taken')
    const blocked = await createBackup(world, { target: '/room/taken', sources: [backup.source] })
    await expect(blocked.run()).rejects.toMatchObject({ class: 'safety', code: 'TARGET_NOT_EMPTY' })
    await makeRoom(client, 'plain', false)
    const plain = await createBackup(world, { target: '/plain/b', sources: [backup.source] })
    await expect(plain.run()).rejects.toMatchObject({ class: 'safety', code: 'NOT_ENCRYPTED' })
  })
})

test('what is there already is kept, or replaced, as one says; never what came meanwhile', async () => {
  const backup = await createBackup(world)
  const { source, context, set, state } = backup
  makeTree(source, { same: 's', differs: 'backup', 'dir/f': 'f' })
  symlinkSync('same', join(source, 'link'))
  await backup.run()
  const { root, content } = await backup.restore()
  const again = (onConflict?: 'fail' | 'skip' | 'overwrite') =>
    restoreBackup(context, set, root, { state, ...(onConflict === undefined ? {} : { onConflict }) })
  // The same restore finds all there; another one, or one into a directory of somebody else's, does not begin.
  expect(await again()).toMatchObject({ failed: [], transferred: 0, skipped: 3 })
  const others = world.path('others')
  makeTree(others, { theirs: 't' })
  for (const [directory, paths] of [
    [root, [`${source}/dir`]],
    [others, []],
  ] as const) {
    await expect(restoreBackup(context, set, directory, { state, paths })).rejects.toMatchObject({
      class: 'conflict',
      code: 'TARGET_NOT_EMPTY',
    })
  }
  makeTree(content, { differs: 'mine' })
  expect((await again()).failed.map(({ error }) => error.code)).toEqual(['TARGET_DIFFERS'])
  rmSync(join(content, 'link'))
  symlinkSync('differs', join(content, 'link'))
  const codes = async (how: 'fail' | 'skip') => (await again(how)).failed.map(({ error }) => error.code)
  expect(await codes('fail')).toEqual(['TARGET_DIFFERS', 'TARGET_DIFFERS'])
  expect(await codes('skip')).toEqual([])
  expect(snapshot(content).differs).toBe('mine')
  expect(await again('overwrite')).toMatchObject({ failed: [], transferred: 1, skipped: 2 })
  expect(snapshot(content)).toEqual(snapshot(source))
  expect(readlinkSync(join(content, 'link'))).toBe('same')
  // While the content is on its way, somebody makes a file of that name.
  const fresh = world.path('meanwhile')
  const onEvent = ({ type, path }: { type: string; path?: string }) => {
    if (type === 'file-started' && path === `${source}/same`) makeTree(join(fresh, source), { same: 'theirs' })
  }
  const summary = await restoreBackup({ ...context, onEvent }, set, fresh, { state })
  expect(summary.failed).toMatchObject([{ path: `${source}/same`, error: { code: 'LOCAL_CHANGED' } }])
  expect(snapshot(join(fresh, source))).toEqual({ ...snapshot(source), same: 'theirs' })
})

describe('what must not be taken for deletions', () => {
  test('a source that is missing, empty, or on another device stops the run; nothing moves', async () => {
    const backup = await createBackup(world)
    const { source } = backup
    makeTree(source, { a: 'a', b: 'b' })
    const { run } = await backup.run()
    renameSync(source, `${source}-away`)
    await expect(backup.run()).rejects.toMatchObject({ class: 'safety', code: 'SOURCE_MISSING' })
    mkdirSync(source)
    await expect(backup.run()).rejects.toMatchObject({ class: 'safety', code: 'SOURCE_EMPTY' })
    expect((await backup.restore()).summary).toMatchObject({ run, transferred: 2, failed: [] })
    rmSync(source, { recursive: true })
    renameSync(`${source}-away`, source)
    const path = join(backup.directory, 'set.json')
    const memory = JSON.parse(readFileSync(path, 'utf8'))
    memory.sources[source] = { dev: 1, ino: 1, bornMs: 1 }
    writeFileSync(path, JSON.stringify(memory))
    await expect(backup.run()).rejects.toMatchObject({ class: 'safety', code: 'SOURCE_CHANGED' })
    for (const name of ['a', 'b']) rmSync(join(source, name))
    expect(await backup.run({ acceptSources: true })).toMatchObject({ ...done, removed: 2 })
    expect((await backup.restore(run)).summary).toMatchObject({ transferred: 2, failed: [] })
  })

  test('more files gone than may be stop the run, unless somebody says so', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, Object.fromEntries(Array.from({ length: 30 }, (_, at) => [`d${at % 3}/f${at}`, `${at}`])))
    await backup.run()
    for (const name of ['d0', 'd1']) rmSync(join(backup.source, name), { recursive: true })
    await expect(backup.run()).rejects.toMatchObject({ class: 'safety', code: 'TOO_MANY_DELETIONS' })
    const root = backup.source.slice(1)
    expect((await backup.remote(`files/${root}/d0/f0`)).size).toBe(1)
    expect(await backup.run({ maxDelete: { share: 0.7 } })).toMatchObject({ ...done, removed: 20 })
  })

  test('a dry run says what it would do, and does nothing', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a', b: 'bb' })
    expect(await backup.run({ dryRun: true })).toMatchObject({ created: 2, bytes: 3, failed: [] })
    await expect(backup.restore()).rejects.toMatchObject({ code: 'SET_MISSING' })
    await backup.run()
    writeFileSync(join(backup.source, 'a'), 'other')
    rmSync(join(backup.source, 'b'))
    expect(await backup.run({ dryRun: true })).toMatchObject({ changed: 1, removed: 1, bytes: 5 })
    expect((await backup.remote(`files/${backup.source.slice(1)}/b`)).size).toBe(2)
  })
})
