/** A file becomes a directory, a directory a file, a file a link, a link a file: on either side, in every direction. */
import { lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createFolder, deleteNode } from '../../src/api/nodes.ts'
import type { Client } from '../../src/client.ts'
import { BIN_NAME } from '../../src/local/atomic-file.ts'
import { pairOf, type SyncOptions } from '../../src/sync/jobs/pair.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { openState, stateDirectory } from '../../src/sync/state.ts'
import { undoRun } from '../../src/sync/undo.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
})
afterAll(() => world.close())

let count = 0

const TREE = { 'dir/f': 'in dir', 'dir/sub/g': 'deep', file: 'a file', link: 'a link later', gone: 'gone', stays: 's' }

/** A tree on both sides. */
async function createPlace(direction: SyncOptions['direction']) {
  const name = `kinds${++count}`
  const [local, remote] = [world.path(name), `/room/${name}`]
  const state = { directory: world.path(`${name}-state`), account: 'anna' }
  const run = (more: Partial<SyncOptions> = {}) => anna.sync(local, remote, { direction, state, ...more })
  if (direction === 'push') {
    makeTree(local, TREE)
  } else {
    makeTree(world.path(`${name}-up`), TREE)
    const root = (await requireRemote(anna.api, '/room')).node
    await createFolder(anna.api, root.id, name)
    await anna.upload([world.path(`${name}-up`)], remote, { contents: true })
    mkdirSync(local)
  }
  expect((await run()).failed).toEqual([])
  expect((await run()).failed).toEqual([])
  const there = async () => {
    const target = world.path(`${name}-look${++count}`)
    expect((await anna.download([remote], target, { contents: true })).failed).toEqual([])
    return snapshot(target)
  }
  const here = () => Object.fromEntries(Object.entries(snapshot(local)).filter(([path]) => !path.startsWith(BIN_NAME)))
  const put = async (files: Record<string, string>) => {
    const source = world.path(`${name}-put${++count}`)
    makeTree(source, files)
    expect((await anna.upload([source], remote, { contents: true })).failed).toEqual([])
  }
  const remove = async (path: string) =>
    deleteNode(anna.api, (await requireRemote(anna.api, `${remote}/${path}`)).node.id)
  const pair = pairOf('anna', local, remote)
  const undo = async (runId: string) => {
    const opened = await openState(stateDirectory(state.directory, pair), pair, Date.now(), () => {})
    const result = await undoRun(anna.context, opened, runId)
    await opened.close()
    return result
  }
  return { name, local, remote, run, here, there, put, remove, undo, at: (...path: string[]) => join(local, ...path) }
}

const NEW = { dir: 'a file now', 'file/': '', 'file/in': 'in', stays: 's' }

/** What people do on the local side. */
function turnHere(at: (...path: string[]) => string): void {
  for (const name of ['dir', 'file', 'link', 'gone']) rmSync(at(name), { recursive: true })
  writeFileSync(at('dir'), 'a file now')
  mkdirSync(at('file'))
  writeFileSync(at('file', 'in'), 'in')
  symlinkSync('stays', at('link'))
}

const withoutLinks = (files: Record<string, unknown>, local: string) =>
  Object.fromEntries(
    Object.entries(files).filter(
      ([path]) => !lstatSync(join(local, path), { throwIfNoEntry: false })?.isSymbolicLink(),
    ),
  )

describe('changed here', () => {
  test.each(['push', 'both'] as const)(
    '%s with deletions follows, and then there is nothing to do',
    async (direction) => {
      const place = await createPlace(direction)
      turnHere(place.at)
      const before = await place.there()
      const run = await place.run({ delete: true })
      expect(run).toMatchObject({ failed: [], conflicts: [], left: 0 })
      expect(await place.there()).toEqual(NEW)
      expect(await place.run({ delete: true })).toMatchObject({ failed: [], steps: [] })
      // And back.
      expect((await place.undo(run.runId)).skipped).toEqual([])
      expect(await place.there()).toEqual(before)
    },
  )

  test('push without deletions says what to do, and does the rest', async () => {
    const place = await createPlace('push')
    turnHere(place.at)
    writeFileSync(place.at('new'), 'new')
    const run = await place.run()
    expect(run.failed.map(({ path, error }) => [path, error.code])).toEqual([
      ['dir', 'KINDS_DIFFER'],
      ['file', 'KINDS_DIFFER'],
    ])
    expect(run.failed[0]!.error.hint).toContain('--delete')
    expect(await place.there()).toMatchObject({ new: 'new', file: 'a file', 'dir/f': 'in dir' })
  })

  test('both without deletions keeps both', async () => {
    const place = await createPlace('both')
    turnHere(place.at)
    const run = await place.run()
    expect(run.failed).toEqual([])
    expect(run.conflicts.map(({ path }) => path)).toEqual(['dir', 'file'])
    const there = await place.there()
    expect(there).toMatchObject({ 'dir/f': 'in dir', file: 'a file', gone: 'gone' })
    const copies = Object.entries(there).filter(([path]) => path.includes('(conflict'))
    expect(copies.map(([, content]) => content).sort()).toEqual(['', 'a file now', 'in'])
    // What is gone here stays there, and the link is nothing.
    expect(withoutLinks(place.here(), place.local)).toEqual(
      Object.fromEntries(Object.entries(there).filter(([path]) => path !== 'gone' && path !== 'link')),
    )
    expect(await place.run()).toMatchObject({ failed: [], conflicts: [], transferred: 0 })
  })

  test('a target that somebody has changed is not removed unless told, and ordinary deletions do not wait for it', async () => {
    const place = await createPlace('push')
    await place.put({ 'dir/f': 'changed there' })
    turnHere(place.at)
    const run = await place.run({ delete: true })
    expect(run.failed).toMatchObject([{ path: 'dir', error: { code: 'KINDS_DIFFER' } }])
    const there = await place.there()
    expect(there).toMatchObject({ 'dir/f': 'changed there', 'file/in': 'in' })
    expect(Object.keys(there)).not.toContain('gone')
    expect((await place.run({ delete: true, onConflict: 'overwrite' })).failed).toEqual([])
    expect(await place.there()).toEqual(NEW)
  })
})

async function turnThere({ remove, put }: Awaited<ReturnType<typeof createPlace>>): Promise<void> {
  for (const name of ['dir', 'file', 'link', 'gone']) await remove(name)
  await put({ dir: 'a file now', 'file/in': 'in' })
}

describe('changed there', () => {
  test.each(['pull', 'both'] as const)('%s with deletions follows; the old is in the bin', async (direction) => {
    const place = await createPlace(direction)
    // What takes no part goes along.
    symlinkSync('nowhere', place.at('dir', 'l'))
    await turnThere(place)
    const run = await place.run({ delete: true })
    expect(run).toMatchObject({ failed: [], conflicts: [], left: 0 })
    expect(place.here()).toEqual(NEW)
    expect(await place.run({ delete: true })).toMatchObject({ failed: [], steps: [] })
    const [bin] = readdirSync(place.at(BIN_NAME))
    expect(Object.keys(snapshot(place.at(BIN_NAME, bin!)))).toEqual(
      expect.arrayContaining(['dir/f', 'dir/sub/g', 'file', 'gone', 'link']),
    )
    expect((await place.undo(run.runId)).skipped).toEqual([])
    expect(place.here()).toMatchObject({ 'dir/f': 'in dir', 'dir/sub/g': 'deep', file: 'a file', gone: 'gone' })
  })

  test('pull without deletions says what to do', async () => {
    const place = await createPlace('pull')
    await turnThere(place)
    const run = await place.run()
    expect(run.failed.map(({ path, error }) => [path, error.code])).toEqual([
      ['dir', 'KINDS_DIFFER'],
      ['file', 'KINDS_DIFFER'],
    ])
    expect(place.here()).toMatchObject({ 'dir/f': 'in dir', file: 'a file' })
  })
})

describe('a link in the way', () => {
  test('pull: without deletions it is told, with them it goes into the bin; undo brings it back', async () => {
    const place = await createPlace('pull')
    rmSync(place.at('file'))
    symlinkSync('stays', place.at('file'))
    rmSync(place.at('dir'), { recursive: true })
    symlinkSync('.', place.at('dir'))
    const told = await place.run()
    expect(told.failed.map(({ path, error }) => [path, error.code])).toEqual([
      ['dir', 'KINDS_DIFFER'],
      ['file', 'KINDS_DIFFER'],
    ])
    const run = await place.run({ delete: true })
    expect(run).toMatchObject({ failed: [], left: 0 })
    expect(place.here()).toMatchObject({ 'dir/f': 'in dir', 'dir/sub/g': 'deep', file: 'a file' })
    expect(await place.run({ delete: true })).toMatchObject({ failed: [], steps: [] })
    expect((await place.undo(run.runId)).skipped).toEqual([])
    expect(lstatSync(place.at('file')).isSymbolicLink()).toBe(true)
    expect(lstatSync(place.at('dir')).isSymbolicLink()).toBe(true)
  })

  test('both: what was changed there meanwhile comes, and the link is kept beside it', async () => {
    const place = await createPlace('both')
    rmSync(place.at('file'))
    symlinkSync('stays', place.at('file'))
    await place.remove('file')
    await place.put({ file: 'another file' })
    const run = await place.run({ delete: true })
    expect(run.failed).toEqual([])
    expect(run.conflicts).toHaveLength(1)
    expect(place.here()).toMatchObject({ file: 'another file' })
    expect(lstatSync(place.at(run.conflicts[0]!.copy)).isSymbolicLink()).toBe(true)
    expect(await place.run({ delete: true })).toMatchObject({ failed: [], steps: [] })
  })
})
