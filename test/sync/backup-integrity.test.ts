/** A server that drops, swaps or rolls back what a backup consists of, and a machine that has forgotten. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { takeLock } from '../../src/local/lock.ts'
import { drillBackup } from '../../src/sync/backup/drill.ts'
import { type BackupEntry, parseRunManifest } from '../../src/sync/backup/manifest.ts'
import { listRuns } from '../../src/sync/backup/read.ts'
import { restoreBackup } from '../../src/sync/backup/restore.ts'
import { runBackup } from '../../src/sync/backup/run.ts'
import { writeManifest } from '../../src/sync/manifest.ts'
import { lockOf } from '../../src/sync/run-job.ts'
import { type Backup, createBackup, uploadsIn } from '../support/backup.ts'
import { createWorld, listFiles, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const codes = (summary: { readonly failed: readonly { readonly error: { readonly code: string } }[] }) =>
  summary.failed.map(({ error }) => error.code)

const listed = (backup: Backup) => listRuns(backup.context, backup.set, backup.state)

const FORMAT = { format: 'sealsync-manifest', version: 1 }

/** Puts a file into the room as any other client would. */
async function put(backup: Backup, folder: string, name: string, content: string | Uint8Array): Promise<void> {
  const client = await world.client()
  makeTree(world.path('put'), { [name]: content })
  await client.upload([world.path('put', name)], `${backup.set.target}/${folder}/`)
  rmSync(world.path('put'), { recursive: true })
}

async function textOf(backup: Backup, path: string): Promise<string> {
  const client = await world.client()
  const target = world.path('fetched')
  await client.download([`${backup.set.target}/${path}`], `${target}/`)
  const [content] = Object.values(snapshot(target))
  const text = gunzipSync(readFileSync(join(target, listFiles(target)[0]!))).toString()
  rmSync(target, { recursive: true })
  expect(content).toBeDefined()
  return text
}

describe('a machine that has forgotten', () => {
  test('knows again from the newest manifest, sends nothing twice, and says that it has no pin', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a', 'sub/b': 'b', c: 'c' })
    const first = await backup.run()
    expect(await listed(backup)).toMatchObject({ isPinned: true, problems: [] })
    rmSync(backup.directory, { recursive: true })
    // The same content under another time has to be read, not sent.
    utimesSync(join(backup.source, 'c'), 1_500_000_000, 1_500_000_000)
    backup.events.length = 0
    expect((await backup.restore()).summary).toMatchObject({ run: first.run, isPinned: false, failed: [] })
    backup.events.length = 0
    expect(await backup.run()).toMatchObject({ failed: [], created: 0, changed: 0, unchanged: 3, bytes: 0 })
    expect(uploadsIn(backup.events)).toEqual([])
    expect(backup.events).toContainEqual(expect.objectContaining({ type: 'warning', code: 'NOT_PINNED' }))
    expect((await listed(backup)).notes.map(({ run }) => run)).toHaveLength(2)
    expect(await listed(backup)).toMatchObject({ isPinned: true, problems: [] })
  })

  test('a damaged index is put aside and costs no transfer', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a', b: 'b' })
    await backup.run()
    for (const name of ['records', 'set.json']) writeFileSync(join(backup.directory, name), 'damaged\n')
    backup.events.length = 0
    expect(await backup.run()).toMatchObject({ failed: [], unchanged: 2, bytes: 0 })
    expect(uploadsIn(backup.events)).toEqual([])
    expect(readdirSync(backup.directory).filter((name) => name.includes('.corrupt-'))).toHaveLength(2)
  })

  test('of the files alone makes no deletions of it: the newest manifest says what there was', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a', b: 'b' })
    await backup.run()
    rmSync(join(backup.directory, 'records'))
    for (const name of ['a', 'b']) rmSync(join(backup.source, name))
    await expect(backup.run()).rejects.toMatchObject({ class: 'safety', code: 'SOURCE_EMPTY' })
    makeTree(backup.source, { a: 'a' })
    utimesSync(join(backup.source, 'a'), 1_500_000_000, 1_500_000_000)
    expect(await backup.run()).toMatchObject({ failed: [], created: 0, changed: 0, unchanged: 1, removed: 1, bytes: 0 })
  })

  test('does not take an older manifest under a newer name, nor one that somebody made', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a' })
    const first = await backup.run()
    const second = await backup.run()
    const old = await textOf(backup, `runs/${first.run}.json.gz`)
    await backup.remove(`runs/${second.run}.json.gz`)
    await put(backup, 'runs', `${second.run}.json.gz`, gzipSync(old))
    // With a pin and without.
    expect((await listed(backup)).problems).toMatchObject([{ error: { code: 'MANIFEST_SWAPPED' } }])
    await expect(backup.restore()).rejects.toMatchObject({ class: 'integrity', code: 'MANIFEST_SWAPPED' })
    rmSync(backup.directory, { recursive: true })
    await expect(backup.restore()).rejects.toMatchObject({ class: 'integrity', code: 'MANIFEST_SWAPPED' })
    await backup.remove(`runs/${second.run}.json.gz`)
    await put(backup, 'runs', `${second.run}.json.gz`, gzipSync('{}'))
    await expect(backup.restore()).rejects.toMatchObject({ class: 'integrity', code: 'MANIFEST_INVALID' })
  })
})

describe('manifests', () => {
  test('one that is gone is told by every command until somebody accepts it; backups go on', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a' })
    const first = await backup.run()
    const second = await backup.run()
    await backup.remove(`runs/${second.run}.json.gz`)
    expect((await listed(backup)).problems).toMatchObject([
      { path: `runs/${second.run}.json.gz`, error: { class: 'integrity', code: 'MANIFEST_DROPPED' } },
    ])
    // The newest is not silently another one.
    await expect(backup.restore()).rejects.toMatchObject({ code: 'MANIFEST_DROPPED' })
    const named = await backup.restore(first.run)
    expect(codes(named.summary)).toEqual(['MANIFEST_DROPPED'])
    expect(snapshot(named.content)).toEqual({ a: 'a' })
    writeFileSync(join(backup.source, 'b'), 'b')
    const third = await backup.run()
    expect(codes(third)).toEqual(['MANIFEST_DROPPED'])
    expect(third).toMatchObject({ created: 1, isComplete: true })
    expect(codes(await backup.run())).toEqual(['MANIFEST_DROPPED'])
    expect(codes((await backup.restore()).summary)).toEqual(['MANIFEST_DROPPED'])
    expect(codes(await backup.run({ acceptRuns: true }))).toEqual([])
    expect(codes(await backup.run())).toEqual([])
  })

  test('content that was swapped under the same node is noticed by its key', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a' })
    const first = await backup.run()
    const second = await backup.run()
    const [old, now] = [
      await backup.remote(`runs/${first.run}.json.gz`),
      await backup.remote(`runs/${second.run}.json.gz`),
    ]
    const context = backup.through((request) => ({
      ...request,
      url: request.url.replace(`/files/${now.id}/`, `/files/${old.id}/`),
    }))
    expect((await listRuns(context, backup.set, backup.state)).problems).toMatchObject([
      { path: `runs/${second.run}.json.gz`, error: { code: 'MANIFEST_SWAPPED' } },
    ])
    expect(codes(await runBackup(context, backup.set, { state: backup.state }))).toEqual(['MANIFEST_SWAPPED'])
  })

  test('one from elsewhere counts only if it follows from what is known', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a' })
    const first = await backup.run()
    // Another machine goes on with the set.
    const elsewhere = { ...backup.state, directory: world.path('elsewhere') }
    writeFileSync(join(backup.source, 'a'), 'changed there')
    const theirs = await runBackup(backup.context, backup.set, { state: elsewhere })
    expect(theirs.failed).toEqual([])
    backup.events.length = 0
    expect(await backup.run()).toMatchObject({ failed: [], bytes: 0, unchanged: 1 })
    expect((await listed(backup)).notes.map(({ run }) => run).slice(0, 2)).toEqual([first.run, theirs.run])
    // One that knows nothing of the pin is nobody's.
    const text = JSON.parse(await textOf(backup, `runs/${first.run}.json.gz`))
    await put(
      backup,
      'runs',
      '20990101T000000Z-9.json.gz',
      gzipSync(JSON.stringify({ ...text, run: '20990101T000000Z-9' })),
    )
    const { problems } = await listed(backup)
    expect(problems).toMatchObject([{ path: 'runs/20990101T000000Z-9.json.gz', error: { code: 'MANIFEST_FOREIGN' } }])
    expect((await backup.restore()).summary.run).not.toBe('20990101T000000Z-9')
  })

  test('a target that was deleted and made again is no backup any more', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a' })
    await backup.run()
    await backup.remove('')
    await expect(backup.run()).rejects.toMatchObject({ class: 'integrity', code: 'TARGET_REPLACED' })
    expect(await backup.run({ acceptRuns: true })).toMatchObject({ isComplete: true, bytes: 1 })
    expect((await backup.restore()).summary).toMatchObject({ failed: [expect.anything()].slice(1), transferred: 1 })
  })
})

describe('files', () => {
  test('one that is gone or was replaced at the server is told once, and stored again', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { dropped: 'd', replaced: 'r', fine: 'f' })
    await backup.run()
    const root = `files${backup.source}`
    await backup.remove(`${root}/dropped`)
    await backup.remove(`${root}/replaced`)
    await put(backup, root, 'replaced', 'by somebody')
    const second = await backup.run()
    expect(codes(second)).toEqual(['CONTENT_DROPPED', 'CONTENT_DROPPED'])
    expect(second.failed.map(({ path }) => path).sort()).toEqual([
      `${backup.source}/dropped`,
      `${backup.source}/replaced`,
    ])
    expect(second).toMatchObject({ isComplete: true, bytes: 2, unchanged: 1 })
    expect(await backup.run()).toMatchObject({ failed: [], bytes: 0, unchanged: 3 })
    expect((await backup.restore()).summary).toMatchObject({ failed: [], transferred: 3 })
    // What only the older run had is told when it is asked for; the others come back.
    const first = (await listed(backup)).notes[0]!.run
    const { summary, content } = await backup.restore(first)
    expect(codes(summary)).toEqual(['CONTENT_DROPPED', 'CONTENT_DROPPED'])
    expect(snapshot(content)).toEqual({ fine: 'f' })
  })

  test('one that was replaced at the server and is gone here goes to the history', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { theirs: 't', fine: 'f' })
    await backup.run()
    const root = `files${backup.source}`
    await backup.remove(`${root}/theirs`)
    await put(backup, root, 'theirs', 'by somebody')
    rmSync(join(backup.source, 'theirs'))
    const second = await backup.run()
    expect(second).toMatchObject({ failed: [], removed: 1, deleted: 1, isComplete: true })
    expect((await backup.remote(`history/${second.run}${backup.source}/theirs`)).size).toBe(11)
  })

  test('older content under the same node, and changed bytes, are never restored', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'old!', b: 'b' })
    await backup.run()
    const old = await backup.remote(`files${backup.source}/a`)
    writeFileSync(join(backup.source, 'a'), 'new!')
    await backup.run()
    const now = await backup.remote(`files${backup.source}/a`)
    const context = backup.through((request) => ({
      ...request,
      url: request.url.replace(`/files/${now.id}/`, `/files/${old.id}/`),
    }))
    const target = world.path('rolled back')
    const summary = await restoreBackup(context, backup.set, target, { state: backup.state })
    expect(summary.failed).toMatchObject([{ path: `${backup.source}/a`, error: { code: 'CONTENT_SWAPPED' } }])
    expect(snapshot(join(target, backup.source))).toEqual({ b: 'b' })
    const drill = await drillBackup(context, backup.set, { state: backup.state, sample: { share: 1 } })
    expect(drill.report).toMatchObject({ isRight: false, sampled: 2, failed: [{ code: 'CONTENT_SWAPPED' }] })
    expect(existsSync(join(backup.directory, 'drill'))).toBe(false)
    expect((await drillBackup(backup.context, backup.set, { state: backup.state })).report).toMatchObject({
      isRight: true,
      isPinned: true,
      sampled: 2,
      failed: [],
    })
    const { manifest } = await backup.manifest((await listed(backup)).notes[1]!.run)
    world.server.faults.add({ on: { method: 'GET', path: '/storage|/downloads/' }, after: 1, do: { flipByteAt: 0 } })
    const tampered = await drillBackup(backup.context, backup.set, { state: backup.state, sample: { files: 1 } })
    expect(tampered.summary.failed.map(({ error }) => error.class)).toEqual(['integrity'])
    expect(manifest.entries.filter(({ kind }) => kind === 'file')).toHaveLength(2)
  })

  test('one that cannot be sent keeps its version from before, and the run is partial', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { log: 'v1', calm: 'c' })
    await backup.run()
    writeFileSync(join(backup.source, 'log'), 'v2')
    world.server.faults.add({ on: { method: 'POST', path: '/nodes/files/uploads$' }, do: { status: 400 } })
    const run = await backup.run()
    expect(run).toMatchObject({ isComplete: false, failed: [{ path: join(backup.source, 'log') }] })
    const { manifest } = await backup.manifest(run.run!)
    const older = manifest.entries.filter((entry) => entry.kind === 'file' && entry.isOlder === true)
    expect(older.map(({ path }) => `/${path}`)).toEqual([join(backup.source, 'log')])
    const { content, summary } = await backup.restore()
    expect(summary.failed).toEqual([])
    expect(snapshot(content)).toEqual({ calm: 'c', log: 'v1' })
    expect((await backup.remote(`files${backup.source}/log`)).size).toBe(2)
    expect(await backup.run()).toMatchObject({ isComplete: true, failed: [] })
    expect(snapshot((await backup.restore()).content).log).toBe('v2')
  })

  test('one that changes once it was read is stored as it was then, and again by the next run', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { log: 'v1', calm: 'c' })
    await backup.run()
    writeFileSync(join(backup.source, 'log'), 'v2')
    const restless = {
      ...backup.context,
      onEvent: (event: { type: string; path?: string }) => {
        if (event.type === 'part-confirmed' && event.path?.endsWith('/log'))
          writeFileSync(join(backup.source, 'log'), 'v3')
      },
    }
    expect(await runBackup(restless, backup.set, { state: backup.state })).toMatchObject({
      isComplete: true,
      failed: [],
    })
    expect(snapshot((await backup.restore()).content).log).toBe('v2')
    expect(await backup.run()).toMatchObject({ isComplete: true, failed: [], bytes: 2 })
    expect(snapshot((await backup.restore()).content).log).toBe('v3')
  })

  test('what could not be listed is not gone', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { a: 'a', b: 'b' })
    await backup.run()
    rmSync(join(backup.source, 'b'))
    const deep = 'd'.repeat(140)
    // Deeper than a path may be long; made step by step.
    execFileSync('sh', ['-ec', 'for n in $(seq 32); do mkdir "$1"; cd -P "$1"; done', 'sh', deep], {
      cwd: backup.source,
    })
    const run = await backup.run()
    expect(run).toMatchObject({ isComplete: false, removed: 0, failed: [{ error: { code: 'LOCAL_ENAMETOOLONG' } }] })
    expect((await backup.remote(`files${backup.source}/b`)).size).toBe(1)
    expect((await backup.restore('latest', { paths: [`${backup.source}/b`] })).summary).toMatchObject({
      transferred: 1,
    })
    execFileSync('rm', ['-rf', join(backup.source, deep)])
    expect(await backup.run()).toMatchObject({ isComplete: true, removed: 1 })
  })
})

test('a set is used by one at a time', async () => {
  const backup = await createBackup(world)
  mkdirSync(backup.source)
  const lock = await takeLock(lockOf(backup.directory), { clock: backup.context.clock, waitMs: 0 })
  await expect(backup.run()).rejects.toMatchObject({ code: 'LOCKED' })
  const waiting = backup.run({ waitMs: 60_000 })
  await lock.release()
  expect(await waiting).toMatchObject({ isComplete: true })
})

describe('a manifest that somebody made', () => {
  const head = {
    set: 's',
    run: '20260101T000000Z-1',
    startedAt: '',
    endedAt: '',
    host: '',
    sources: [],
    options: { exclude: [], oneFileSystem: false },
    runs: [],
    isComplete: true,
    addedBytes: 0,
    failed: [],
  }
  const common = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '0' }
  const seal = Buffer.alloc(28).toString('base64')
  const file = { kind: 'file', path: 'a', ...common, size: 1, sha256: '0'.repeat(64), node: 1, seal }
  const parse = (entries: unknown[], more: object = {}) =>
    parseRunManifest(gzipSync(JSON.stringify({ ...FORMAT, ...head, ...more, entries })), 'it')

  test('is read when it is right, also when it was written by us', async () => {
    expect(parse([file]).entries).toEqual([file])
    mkdirSync(world.path('written'), { recursive: true })
    const path = world.path('written', 'm.json.gz')
    await writeManifest(path, head, [file as BackupEntry])
    expect(parseRunManifest(readFileSync(path), 'it').entries).toEqual([file])
  })

  test.each([
    ['a way out', { path: '../a' }],
    ['a way out in the middle', { path: 'a/../../b' }],
    ['an absolute path', { path: '/a' }],
    ['NUL', { path: 'a\0b' }],
    ['an empty part', { path: 'a//b' }],
    ['the root as a file', { path: '' }],
    ['a name that is too long', { path: 'x'.repeat(256) }],
    ['no digest', { sha256: undefined }],
    ['no permissions', { mode: undefined }],
    ['a size that is none', { size: -1 }],
    ['a node that is none', { node: '1' }],
    ['a mode that is none', { mode: 1.5 }],
    ['a digest that is none', { sha256: 'zz' }],
    ['a time that is none', { mtimeNs: 'now' }],
    ['a kind that is none', { kind: 'device' }],
  ])('is refused with %s', (_name, change) => {
    expect(() => parse([{ ...file, ...change }])).toThrow(
      expect.objectContaining({ class: 'integrity', code: 'MANIFEST_INVALID' }),
    )
  })

  test('is refused when a path is there twice, or with a run that is none', () => {
    expect(() => parse([file, file])).toThrow(expect.objectContaining({ code: 'MANIFEST_INVALID' }))
    expect(() => parse([file], { run: '../x' })).toThrow(expect.objectContaining({ code: 'MANIFEST_INVALID' }))
    expect(() => parseRunManifest(gzipSync('['.repeat(100_000)), 'it')).toThrow(
      expect.objectContaining({ code: 'MANIFEST_INVALID' }),
    )
  })

  test('cannot lead a restore through a link of its own', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { 'dir/f': 'x' })
    const { run } = await backup.run()
    const { manifest } = await backup.manifest(run!)
    const outside = world.path('outside')
    mkdirSync(outside)
    const dir = `${backup.source.slice(1)}/dir`
    const entries = manifest.entries
      .filter(({ path }) => path !== dir)
      .concat({ kind: 'symlink', path: dir, ...common, target: outside })
    rmSync(backup.directory, { recursive: true })
    await backup.remove(`runs/${run}.json.gz`)
    await put(backup, 'runs', `${run}.json.gz`, gzipSync(JSON.stringify({ ...FORMAT, ...manifest, entries })))
    const { summary, content } = await backup.restore()
    expect(codes(summary)).toEqual(['KINDS_DIFFER'])
    expect(listFiles(outside)).toEqual([])
    expect(snapshot(content)).toEqual({ 'dir/': '', 'dir/f': 'x' })
  })
})
