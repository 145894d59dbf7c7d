/** Runs over a pair of directories against a real server: what each direction does, and what stops it. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deleteNode, listChildren, updateFile } from '../../src/api/nodes.ts'
import { listDeleted } from '../../src/api/recycle-bin.ts'
import type { Client } from '../../src/client.ts'
import { SyncError } from '../../src/errors.ts'
import type { SyncOptions } from '../../src/sync/jobs/pair.ts'
import { isChange } from '../../src/sync/plan-file.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { SyncSummary } from '../../src/sync/run-job.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

let count = 0
/** A fresh pair of directories, with everything one needs to look at it. */
function createPair() {
  const name = `pair${++count}`
  const local = world.path(name)
  const remote = `/room/${name}`
  const directory = world.path(`${name}-state`)
  mkdirSync(local)
  const run = (direction: SyncOptions['direction'], options: Partial<SyncOptions> = {}): Promise<SyncSummary> =>
    anna.sync(local, remote, { direction, state: { directory, account: 'anna' }, ...options })
  return {
    name,
    local,
    remote,
    state: directory,
    path: (...names: string[]) => join(local, ...names),
    push: (options?: Partial<SyncOptions>) => run('push', options),
    pull: (options?: Partial<SyncOptions>) => run('pull', options),
    both: (options?: Partial<SyncOptions>) => run('both', options),
    /** What somebody else does, by the plain commands. */
    async putRemote(files: Record<string, string>) {
      const source = world.path(`${name}-other-${++count}`)
      makeTree(source, files)
      // Times that differ from those of files that are made in the same moment.
      const later = new Date(Date.now() + 5_000 + count * 1_000)
      for (const file of Object.keys(files)) if (!file.endsWith('/')) utimesSync(join(source, file), later, later)
      const done = await anna.upload([source], remote, { contents: true })
      expect(done.failed).toEqual([])
    },
    async deleteRemote(path: string) {
      await deleteNode(anna.api, (await requireRemote(anna.api, `${remote}/${path}`)).node.id)
    },
    async remoteFiles(): Promise<Record<string, string>> {
      const target = world.path(`${name}-look-${++count}`)
      const done = await anna.download([remote], target, { contents: true })
      expect(done.failed).toEqual([])
      return snapshot(target)
    },
    localFiles: (): Record<string, string> =>
      Object.fromEntries(Object.entries(snapshot(local)).filter(([path]) => !path.startsWith('.sealsync-bin'))),
  }
}

const stops = async (run: Promise<unknown>, code: string) => {
  const error = await run.then(
    () => undefined,
    (thrown) => thrown,
  )
  expect(error).toBeInstanceOf(SyncError)
  expect(error).toMatchObject({ class: 'safety', code })
}

const done = { failed: [], conflicts: [], left: 0 }

describe('push', () => {
  test('mirrors a tree; a second run does nothing at all', async () => {
    const pair = createPair()
    makeTree(pair.local, {
      'a.txt': 'one',
      'sub/b.txt': 'two',
      'sub/deep/c.txt': 'three',
      'empty/': '',
      'zero.txt': '',
    })
    expect(await pair.push()).toMatchObject({ ...done, transferred: 4, files: 4 })
    expect(await pair.remoteFiles()).toEqual(pair.localFiles())
    const again = await pair.push()
    expect(again.steps).toEqual([])
    expect(again).toMatchObject({ ...done, transferred: 0 })
  })

  test('changed files become new versions; what somebody else changed is left alone unless told otherwise', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b' })
    await pair.push()
    writeFileSync(pair.path('a'), 'changed here')
    await pair.putRemote({ b: 'changed there' })
    const run = await pair.push()
    expect(run.transferred).toBe(1)
    expect(run.failed).toMatchObject([{ path: 'b', error: { class: 'conflict', code: 'TARGET_CHANGED' } }])
    expect(await pair.remoteFiles()).toEqual({ a: 'changed here', b: 'changed there' })
    expect(await pair.push({ onConflict: 'overwrite' })).toMatchObject({ ...done, transferred: 1 })
    expect(await pair.remoteFiles()).toEqual({ a: 'changed here', b: 'b' })
  })

  test('a file that was only touched is compared, not sent again', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a' })
    await pair.push()
    chmodSync(pair.path('a'), 0o600)
    expect(await pair.push()).toMatchObject({ ...done, transferred: 0, steps: [{ do: 'upload', unlessSame: true }] })
    expect((await pair.push()).steps).toEqual([])
  })

  test('a small file of the same size but another time is sent without a look at what is there', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'one', b: 'x'.repeat(2 ** 20) })
    await pair.push()
    writeFileSync(pair.path('a'), 'two')
    const later = new Date(Date.now() + 5_000)
    utimesSync(pair.path('b'), later, later)
    const run = await pair.push()
    expect(run.steps.map((step) => step.do === 'upload' && step.unlessSame === true)).toEqual([false, true])
    // The large one has only another time: it is compared.
    expect(run).toMatchObject({ ...done, transferred: 1 })
  })

  test('what there is no key for is sent again rather than left', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'one' })
    await pair.push()
    chmodSync(pair.path('a'), 0o600)
    const { id } = (await world.list(pair.remote)).find(({ name }) => name === 'a')!
    world.server.faults.add({
      on: { method: 'GET', path: `/files/${id}/user_file_key$` },
      do: { status: 404, headers: { 'Content-Type': 'application/json' }, body: '{"code":404,"errorCode":-40761}' },
    })
    expect(await pair.push()).toMatchObject({ ...done, transferred: 1 })
  })

  test('renamed files and directories are moved on the server', async () => {
    const pair = createPair()
    const files = Object.fromEntries(Array.from({ length: 5 }, (_, n) => [`old/sub/${n}`, `content ${n}`]))
    makeTree(pair.local, { ...files, single: 'single', stays: 'x' })
    await pair.push()
    renameSync(pair.path('old'), pair.path('new'))
    mkdirSync(pair.path('other'))
    renameSync(pair.path('single'), pair.path('other/renamed'))
    const run = await pair.push()
    expect(run).toMatchObject({ ...done, transferred: 0, moved: 2 })
    expect(await pair.remoteFiles()).toEqual(pair.localFiles())
    expect((await pair.push()).steps).toEqual([])
  })

  test('deletes only when told, only what it knows, and into the recycle bin', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', 'gone/b': 'b', 'gone/c': 'c' })
    await pair.push()
    rmSync(pair.path('gone'), { recursive: true })
    expect(await pair.push()).toMatchObject({ ...done, deleted: 0, kept: 3 })
    expect(Object.keys(await pair.remoteFiles())).toEqual(['a', 'gone/', 'gone/b', 'gone/c'])
    expect(await pair.push({ delete: true })).toMatchObject({ ...done, deleted: 3 })
    expect(await pair.remoteFiles()).toEqual({ a: 'a' })
    const bin: string[] = []
    const { roomId } = await requireRemote(anna.api, pair.remote)
    for await (const { name } of listDeleted(anna.api, roomId)) bin.push(name)
    expect(bin).toEqual(expect.arrayContaining(['b', 'c']))
  })

  test('what does not take part is not there for either side', async () => {
    const pair = createPair()
    makeTree(pair.local, {
      '.syncignore': '*.tmp\n/cache/\n',
      a: 'a',
      'b.tmp': 'x',
      'cache/c': 'x',
      'sub/.syncignore': '!keep.tmp\n',
      'sub/keep.tmp': 'k',
      'sub/d.tmp': 'x',
    })
    symlinkSync('a', pair.path('link'))
    await pair.putRemote({ 'e.tmp': 'theirs', 'cache/f': 'theirs' })
    expect(await pair.push({ delete: true })).toMatchObject({ ...done, transferred: 4 })
    expect(await pair.push({ delete: true })).toMatchObject({ ...done, deleted: 0 })
    expect(Object.keys(await pair.remoteFiles())).toEqual([
      '.syncignore',
      'a',
      'cache/',
      'cache/f',
      'e.tmp',
      'sub/',
      'sub/.syncignore',
      'sub/keep.tmp',
    ])
  })

  test('selection by pattern, size, age and list', async () => {
    const pair = createPair()
    makeTree(pair.local, { 'a.jpg': 'a', 'b.txt': 'b', 'large.jpg': 'x'.repeat(1000), 'sub/c.jpg': 'c' })
    const old = new Date(Date.now() - 3_600_000)
    for (const name of ['a.jpg', 'b.txt', 'large.jpg']) utimesSync(pair.path(name), old, old)
    await pair.push({ selection: { patterns: ['*.txt'], maxSize: 999, minAgeMs: 60_000 } })
    expect(Object.keys(await pair.remoteFiles())).toEqual(['a.jpg', 'sub/'])
    await pair.push({ selection: { paths: ['sub/c.jpg'] } })
    expect(Object.keys(await pair.remoteFiles())).toEqual(['a.jpg', 'sub/', 'sub/c.jpg'])
    expect(await pair.push({ selection: { paths: ['../x'] } })).toMatchObject({
      transferred: 0,
      failed: [{ path: '../x', error: { class: 'usage', code: 'PATH_INVALID' } }],
    })
  })
})

describe('pull', () => {
  test('mirrors down, moves here what was moved there, and keeps in the bin what it replaces and removes', async () => {
    const pair = createPair()
    await pair.putRemote({ a: 'a', b: 'b', 'dir/c': 'c', gone: 'g' })
    expect(await pair.pull()).toMatchObject({ ...done, transferred: 4 })
    expect(pair.localFiles()).toEqual(await pair.remoteFiles())
    const { node } = await requireRemote(anna.api, `${pair.remote}/a`)
    await updateFile(anna.api, node.id, { name: 'renamed' })
    await pair.deleteRemote('gone')
    await pair.putRemote({ b: 'new version' })
    expect(await pair.pull({ delete: true })).toMatchObject({ ...done, transferred: 1, moved: 1, deleted: 1 })
    expect(pair.localFiles()).toEqual({ b: 'new version', 'dir/': '', 'dir/c': 'c', renamed: 'a' })
    const bin = Object.values(snapshot(pair.path('.sealsync-bin')))
    expect(bin).toEqual(expect.arrayContaining(['b', 'g']))
    expect((await pair.pull({ delete: true })).steps).toEqual([])
  })

  test('a file that was edited here is not replaced by a mirror', async () => {
    const pair = createPair()
    await pair.putRemote({ a: 'theirs' })
    await pair.pull()
    writeFileSync(pair.path('a'), 'mine')
    await pair.putRemote({ a: 'theirs again' })
    expect((await pair.pull()).failed).toMatchObject([{ error: { class: 'conflict' } }])
    expect(pair.localFiles()).toEqual({ a: 'mine' })
  })
})

describe('both ways', () => {
  test('the first run is a union', async () => {
    const pair = createPair()
    makeTree(pair.local, { mine: 'm', same: 's' })
    await pair.putRemote({ theirs: 't' })
    expect(await pair.both({ delete: true })).toMatchObject({ ...done, transferred: 3, deleted: 0 })
    expect(pair.localFiles()).toEqual(await pair.remoteFiles())
    expect(Object.keys(pair.localFiles())).toEqual(['mine', 'same', 'theirs'])
  })

  test('changes and deletions travel both ways; a change is worth more than a deletion', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b', c: 'c', d: 'd', e: 'e', f: 'f' })
    await pair.both()
    writeFileSync(pair.path('a'), 'a2')
    rmSync(pair.path('b'))
    rmSync(pair.path('e'))
    writeFileSync(pair.path('f'), 'f2')
    await pair.putRemote({ c: 'c2', e: 'e2' })
    await pair.deleteRemote('d')
    await pair.deleteRemote('f')
    expect(await pair.both({ delete: true })).toMatchObject({ ...done, deleted: 2 })
    expect(pair.localFiles()).toEqual({ a: 'a2', c: 'c2', e: 'e2', f: 'f2' })
    expect(await pair.remoteFiles()).toEqual(pair.localFiles())
  })

  test('a conflict keeps both, on both sides, and is told', async () => {
    const pair = createPair()
    makeTree(pair.local, { 'report.txt': 'old' })
    await pair.both()
    writeFileSync(pair.path('report.txt'), 'mine')
    await pair.putRemote({ 'report.txt': 'theirs' })
    const run = await pair.both()
    expect(run.conflicts).toMatchObject([
      { path: 'report.txt', copy: expect.stringMatching(/^report \(conflict .+\)\.txt$/) },
    ])
    expect(pair.localFiles()).toEqual({ 'report.txt': 'theirs', [run.conflicts[0]!.copy]: 'mine' })
    expect(await pair.remoteFiles()).toEqual(pair.localFiles())
    expect((await pair.both()).steps).toEqual([])
  })

  test('who is preferred wins', async () => {
    for (const [prefer, winner] of [
      ['local', 'mine'],
      ['remote', 'theirs'],
      ['newer', 'theirs'],
    ] as const) {
      const pair = createPair()
      makeTree(pair.local, { x: 'old' })
      await pair.both()
      writeFileSync(pair.path('x'), 'mine')
      await pair.putRemote({ x: 'theirs' })
      expect(await pair.both({ prefer })).toMatchObject({ ...done, transferred: 1 })
      expect(pair.localFiles()).toEqual({ x: winner })
      expect(await pair.remoteFiles()).toEqual({ x: winner })
    }
  })

  test('equal changes on both sides are no conflict', async () => {
    const pair = createPair()
    makeTree(pair.local, { x: 'old' })
    await pair.both()
    writeFileSync(pair.path('x'), 'the same')
    await pair.putRemote({ x: 'the same' })
    expect(await pair.both()).toMatchObject({ ...done, transferred: 0 })
    expect((await pair.both()).steps).toEqual([])
  })

  test('lost state means comparing, never deleting', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b' })
    await pair.both()
    rmSync(pair.path('a'))
    await pair.deleteRemote('b')
    rmSync(pair.state, { recursive: true })
    expect(await pair.both({ delete: true })).toMatchObject({ ...done, deleted: 0, transferred: 2 })
    expect(Object.keys(pair.localFiles())).toEqual(['a', 'b'])
  })

  test('damaged state is put aside, told, and treated as lost', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b' })
    await pair.both()
    rmSync(pair.path('a'))
    const [name] = Object.keys(snapshot(pair.state)).filter((path) => path.endsWith('/records'))
    const damaged = readFileSync(join(pair.state, name!))
    damaged.writeUInt8(damaged[damaged.length >> 1]! ^ 1, damaged.length >> 1)
    writeFileSync(join(pair.state, name!), damaged)
    expect(await pair.both({ delete: true })).toMatchObject({ ...done, deleted: 0, transferred: 1 })
    expect(Object.keys(snapshot(pair.state)).some((path) => path.includes('.corrupt-'))).toBe(true)
  })
})

describe('guards', () => {
  test('a source that is missing, or empty, or another directory, stops the run before it does anything', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b' })
    await pair.push()
    const before = await pair.remoteFiles()
    renameSync(pair.local, `${pair.local}-away`)
    await stops(pair.push({ delete: true }), 'ROOT_MISSING')
    mkdirSync(pair.local)
    await stops(pair.push({ delete: true }), 'SOURCE_EMPTY')
    expect(await pair.remoteFiles()).toEqual(before)
    expect(await pair.push({ delete: true, acceptRoots: true, maxDelete: { files: 2 } })).toMatchObject({ deleted: 2 })
  })

  test('what is left out is not missed', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', 'sub/b': 'b' })
    await pair.push()
    rmSync(pair.path('sub'), { recursive: true })
    const nothing = await pair.push({ selection: { paths: ['nothing'] }, delete: true })
    expect(nothing).toMatchObject({ transferred: 0, deleted: 0, failed: [{ error: { code: 'PATH_MISSING' } }] })
    expect(await pair.push({ selection: { patterns: ['/a'] }, acceptRoots: true, delete: true })).toMatchObject({
      deleted: 2,
    })
    expect(Object.keys(await pair.remoteFiles())).toEqual(['a'])
  })

  test('an emptied remote side does not empty this one', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a' })
    await pair.both()
    await pair.deleteRemote('a')
    await stops(pair.both({ delete: true }), 'SOURCE_EMPTY')
    await stops(pair.pull({ delete: true }), 'SOURCE_EMPTY')
    expect(pair.localFiles()).toEqual({ a: 'a' })
  })

  test('a remote directory that was replaced by another one is not mistaken for the first', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b' })
    await pair.both()
    await deleteNode(anna.api, (await requireRemote(anna.api, pair.remote)).node.id)
    await stops(pair.both({ delete: true }), 'REMOTE_MISSING')
    await pair.putRemote({ other: 'x' })
    await stops(pair.both({ delete: true }), 'REMOTE_CHANGED')
    expect(Object.keys(pair.localFiles())).toEqual(['a', 'b'])
    expect(await pair.both({ delete: true, acceptRoots: true })).toMatchObject({ ...done, deleted: 0, transferred: 3 })
  })

  test('too many deletions or changes stop the run; the plan is kept and can be applied', async () => {
    const pair = createPair()
    makeTree(pair.local, Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`f${n}`, `${n}`])))
    await pair.push()
    for (let n = 0; n < 11; n++) rmSync(pair.path(`f${n}`))
    await stops(pair.push({ delete: true }), 'TOO_MANY_DELETIONS')
    expect(Object.keys(await pair.remoteFiles())).toHaveLength(15)
    const saved = Object.keys(snapshot(pair.state)).find((path) => /plan-.*\.json$/.test(path))
    const plan = JSON.parse(readFileSync(join(pair.state, saved!), 'utf8'))
    expect(plan.steps).toHaveLength(11)
    expect(await pair.push({ delete: true, planned: plan.steps })).toMatchObject({ deleted: 11 })
    for (let n = 11; n < 15; n++) writeFileSync(pair.path(`f${n}`), 'changed')
    await stops(pair.push({ maxChange: { files: 3 } }), 'TOO_MANY_CHANGES')
    await stops(pair.push({ maxChange: { share: 0.5 } }), 'TOO_MANY_CHANGES')
    expect(await pair.push()).toMatchObject({ transferred: 4 })
  })

  test('a plan that does not fit any more is not applied', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a' })
    const dry = await pair.push({ dryRun: true })
    expect(dry.steps.filter(isChange)).toHaveLength(1)
    expect(await pair.push({ dryRun: true })).toMatchObject({ transferred: 0 })
    const { planLine } = await import('../../src/sync/plan-file.ts')
    writeFileSync(pair.path('b'), 'b')
    await stops(pair.push({ planned: dry.steps.map(planLine) }), 'PLAN_DRIFTED')
    rmSync(pair.path('b'))
    expect(await pair.push({ planned: dry.steps.map(planLine) })).toMatchObject({ transferred: 1 })
  })

  test('a directory that cannot be listed, or any failure, means no deletions', async () => {
    const pair = createPair()
    makeTree(pair.local, { a: 'a', b: 'b', c: 'c' })
    await pair.push()
    rmSync(pair.path('a'))
    writeFileSync(pair.path('b'), 'changed')
    world.server.faults.add({
      on: { method: 'POST', path: '/files/uploads$' },
      do: { status: 400, headers: { 'Content-Type': 'application/json' }, body: '{"code":400,"errorCode":-40755}' },
    })
    expect(await pair.push({ delete: true })).toMatchObject({ deleted: 0, kept: 1, failed: [{ path: 'b' }] })
    expect(Object.keys(await pair.remoteFiles())).toEqual(['a', 'b', 'c'])
    expect(await pair.push({ delete: true })).toMatchObject({ ...done, deleted: 1, transferred: 1 })
  })
})

test('limits end a run early, without deletions; the next one goes on', async () => {
  const pair = createPair()
  makeTree(pair.local, { a: 'x'.repeat(100), b: 'x'.repeat(100), c: 'x'.repeat(100) })
  expect(await pair.push({ maxTransfer: 250, jobs: 1 })).toMatchObject({ transferred: 2, left: 1 })
  expect(await pair.push({ maxDurationMs: 0 })).toMatchObject({ transferred: 0, left: 1 })
  expect(await pair.push()).toMatchObject({ transferred: 1, left: 0 })
})

test('names that meet, or that the other side cannot hold, are told and left alone', async () => {
  const pair = createPair()
  makeTree(pair.local, {
    'caf\u00e9': 'composed',
    'cafe\u0301': 'decomposed',
    fine: 'x',
    [`${'long'.repeat(50)}`]: 'x',
  })
  const run = await pair.push({ delete: true })
  expect(run.transferred).toBe(1)
  expect(run.failed.map(({ error }) => error.code).sort()).toEqual(['EXISTS', 'EXISTS', 'NAME_TOO_LONG'])
  const names: string[] = []
  for await (const { name } of listChildren(anna.api, (await requireRemote(anna.api, pair.remote)).node.id))
    names.push(name)
  expect(names).toEqual(['.sealsync-manifest', 'fine'])
})

test('a room that is not encrypted any more is not synchronized', async () => {
  const pair = createPair()
  makeTree(pair.local, { a: 'a' })
  await pair.push()
  const { node } = await requireRemote(anna.api, '/room')
  const { id } = (await requireRemote(anna.api, pair.remote)).node
  world.server.faults.add({
    on: { method: 'GET', path: '/v4/nodes$' },
    times: 1,
    do: {
      status: 200,
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        range: { offset: 0, limit: 500, total: 1 },
        items: [
          { ...node, isEncrypted: false, createdAt: undefined, updatedAt: undefined, timestampModification: undefined },
        ],
      }),
    },
  })
  world.server.faults.add({
    on: { method: 'GET', path: '/v4/nodes$' },
    times: 1,
    do: {
      status: 200,
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({
        range: { offset: 0, limit: 500, total: 1 },
        items: [
          {
            id,
            type: 'folder',
            name: pair.name,
            isEncrypted: false,
          },
        ],
      }),
    },
  })
  writeFileSync(pair.path('a'), 'secret')
  await stops(pair.push({ acceptRoots: true }), 'ROOM_NOT_ENCRYPTED')
  expect(existsSync(pair.path('a')) && statSync(pair.path('a')).size).toBe(6)
})
