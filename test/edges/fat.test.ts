/** A disk like FAT: names fold case, no links, no permission bits, times in steps of two seconds. Everything arrives all the same. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'
import { type Disk, mountFat, noFat } from '../support/fat.ts'

describe.skipIf(noFat !== '')(`on a disk like FAT${noFat}`, () => {
  let world: World
  let disk: Disk
  beforeAll(async () => {
    world = await createWorld()
    disk = await mountFat(world.path('fat'))
  })
  afterAll(async () => {
    await disk.unmount()
    await world.close()
  })

  const run = async (...args: string[]) => {
    const { code, json, stderr } = await world.transfer(args)
    return { code, summary: json.at(-1), stderr }
  }
  const content = (root: string) =>
    Object.fromEntries(Object.entries(snapshot(root)).filter(([path]) => !path.startsWith('.sealsync-')))

  test('download arrives, and again there is nothing to do', async () => {
    makeTree(world.path('down'), { 'a/b': 'ab', c: 'c' })
    utimesSync(world.path('down', 'c'), 1_700_000_001.5, 1_700_000_001.5)
    expect((await run('upload', world.path('down'), '/room')).code).toBe(0)
    const target = join(disk.root, 'target')
    expect(await run('download', '/room/down', target)).toMatchObject({ code: 0, summary: { transferred: 2 } })
    expect(content(join(target, 'down'))).toEqual(content(world.path('down')))
    expect(await run('download', '/room/down', target)).toMatchObject({ code: 0, summary: { transferred: 0 } })
  })

  test('pull follows renames, also of case only, replacements and deletions; what it replaces is in the bin', async () => {
    const [mine, theirs, remote] = [world.path('mine'), join(disk.root, 'theirs'), '/room/pulled']
    makeTree(mine, { Readme: 'one', 'Dir/file': 'two', moved: 'm', old: 'o', kept: 'k' })
    symlinkSync('kept', join(mine, 'link'))
    expect((await run('push', mine, remote)).code).toBe(0)
    const first = await run('pull', remote, theirs)
    // The link cannot be made here, and is told; all else is there.
    expect(first).toMatchObject({ code: 10, summary: { transferred: 5, failed: [{ path: 'link' }] } })
    rmSync(join(mine, 'link'))
    for (const [from, to] of [
      ['Readme', 'README'],
      ['Dir', 'DIR'],
      ['moved', 'elsewhere'],
    ] as const) {
      renameSync(join(mine, from), join(mine, 'between'))
      renameSync(join(mine, 'between'), join(mine, to))
    }
    rmSync(join(mine, 'old'))
    writeFileSync(join(mine, 'kept'), 'replaced')
    expect((await run('push', mine, remote, '--delete')).code).toBe(0)
    expect(await run('pull', remote, theirs, '--delete')).toMatchObject({ code: 0, summary: { failed: [] } })
    expect(content(theirs)).toEqual(content(mine))
    expect(readdirSync(theirs).filter((name) => !name.startsWith('.'))).toEqual(readdirSync(mine))
    const bin = Object.entries(snapshot(join(theirs, '.sealsync-bin'))).flatMap(([path, text]) =>
      path.endsWith('/') ? [] : [text],
    )
    expect(bin.sort()).toEqual(['k', 'o'])
    expect(await run('pull', remote, theirs, '--delete')).toMatchObject({ code: 0, summary: { transferred: 0 } })
  })

  test('both keeps both versions of a conflict, and undo brings back what was', async () => {
    const [mine, theirs, remote] = [world.path('both'), join(disk.root, 'both'), '/room/both']
    makeTree(mine, { a: 'a', b: 'b' })
    expect((await run('push', mine, remote)).code).toBe(0)
    mkdirSync(theirs)
    expect((await run('both', theirs, remote)).code).toBe(0)
    writeFileSync(join(mine, 'b'), 'changed here')
    writeFileSync(join(theirs, 'b'), 'and changed there')
    expect((await run('push', mine, remote)).code).toBe(0)
    const both = await run('both', theirs, remote)
    expect(both.code).toBe(12)
    expect(Object.values(content(theirs)).sort()).toEqual(['a', 'and changed there', 'changed here'])
    writeFileSync(join(mine, 'a'), 'a replaced')
    expect((await run('push', mine, remote)).code).toBe(0)
    const pulled = await run('both', theirs, remote)
    expect(readFileSync(join(theirs, 'a'), 'utf8')).toBe('a replaced')
    expect((await world.cli(['undo', String((pulled.summary as { run: string }).run)])).code).toBe(0)
    expect(readFileSync(join(theirs, 'a'), 'utf8')).toBe('a')
  })

  test('a backup is restored onto it', async () => {
    makeTree(world.path('source'), { 'x/y': 'xy', z: 'z' })
    writeFileSync(world.path('set.toml'), `target = "/room/set"\nsources = [${JSON.stringify(world.path('source'))}]\n`)
    const config = ['--set-file', world.path('set.toml')]
    expect((await run('backup', 'run', 'set', ...config)).code).toBe(0)
    const target = join(disk.root, 'restored')
    expect((await run('backup', 'restore', 'set', 'latest', target, ...config)).code).toBe(0)
    expect(content(join(target, world.path('source')))).toEqual(content(world.path('source')))
  })
})
