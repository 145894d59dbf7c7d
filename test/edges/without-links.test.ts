/** A disk without second names (FAT, some network shares), by the shim; see test/support/shim.ts. */
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'
import { noShim, type ShimPlan, shimEnv } from '../support/shim.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const key = () => ['--key-password-file', world.keyPasswordFile]
const files = (root: string) =>
  Object.fromEntries(Object.entries(snapshot(root)).filter(([path]) => !path.startsWith('.sealsync-')))

describe.skipIf(noShim)(`a disk that can do less${noShim}`, () => {
  test('without second names: what was renamed arrives, and a conflict leaves both', async () => {
    const [mine, theirs, remote] = [world.path('mine'), world.path('theirs'), '/room/links']
    const onFat = (args: string[]) => {
      const plan = { kinds: ['link'], roots: [theirs], at: 1, times: 'always', errno: 'EPERM' } as const
      return world.cli([...args, ...key()], { env: shimEnv(plan) })
    }
    const push = (...more: string[]) => world.cli(['push', mine, remote, ...more, ...key()])
    makeTree(mine, { a: 'one', b: 'two' })
    mkdirSync(theirs)
    expect((await push()).code).toBe(0)
    expect((await onFat(['pull', remote, theirs])).code).toBe(0)
    renameSync(join(mine, 'a'), join(mine, 'renamed'))
    makeTree(mine, { b: 'replaced', new: 'new' })
    expect((await push('--delete')).code).toBe(0)
    const pull = await onFat(['pull', remote, theirs, '--delete'])
    expect([pull.code, pull.stderr]).toMatchObject([0, expect.not.stringContaining('warning')])
    expect(files(theirs)).toEqual({ renamed: 'one', b: 'replaced', new: 'new' })
    // What was replaced is in the bin, whole.
    const bin = Object.entries(snapshot(join(theirs, '.sealsync-bin'))).filter(([path]) => path.endsWith('/b'))
    expect(bin.map(([, content]) => content)).toEqual(['two'])
    writeFileSync(join(mine, 'b'), 'changed here')
    writeFileSync(join(theirs, 'b'), 'changed there, too')
    expect((await push()).code).toBe(0)
    expect((await onFat(['both', theirs, remote])).code).toBe(12)
    expect(Object.values(files(theirs)).sort()).toEqual(['changed here', 'changed there, too', 'new', 'one'])
  })

  test('an undo that is killed there goes on when it is given again; what was read-only is kept, too', async () => {
    const [mine, remote] = [world.path('source'), '/room/undone']
    const push = () => world.cli(['push', mine, remote, '--delete', ...key()])
    makeTree(mine, { a: 'one', b: 'two' })
    chmodSync(join(mine, 'a'), 0o444)
    expect((await push()).code).toBe(0)
    const pull = (target: string) => {
      const env = shimEnv({ kinds: [], roots: [target], noLinks: true })
      return world.cli(['pull', remote, target, ...key()], { env })
    }
    const targets = Array.from({ length: 3 }, (_, n) => world.path(`undone-${n}`))
    for (const target of targets) {
      mkdirSync(target)
      expect((await pull(target)).code).toBe(0)
    }
    rmSync(join(mine, 'a'))
    makeTree(mine, { a: 'another', b: 'replaced' })
    expect((await push()).code).toBe(0)
    for (const [n, target] of targets.entries()) {
      const pulled = await pull(target)
      expect([pulled.code, files(target)]).toEqual([0, { a: 'another', b: 'replaced' }])
      const id = String((await world.cli(['runs', target, remote, '--json'])).json[0]!.id)
      const plan = { kinds: ['rename', 'rmdir'], roots: [target], noLinks: true, at: n + 1 } as const
      const undo = (how: Partial<ShimPlan>) => world.cli(['undo', id], { env: shimEnv({ ...plan, ...how }) })
      await undo({ do: 'kill-after' })
      const again = await undo({ kinds: [] })
      expect([n, again.code, again.stderr, files(target)]).toMatchObject([
        n,
        0,
        expect.any(String),
        { a: 'one', b: 'two' },
      ])
    }
  })

  test('nor permissions and links: pull and restore bring what can be held, and tell what cannot', async () => {
    const [mine, theirs, back, remote] = [world.path('rich'), world.path('poor'), world.path('poor-back'), '/room/poor']
    for (const directory of [theirs, back]) mkdirSync(directory)
    const fault = { kinds: ['chmod', 'symlink'], at: 1, times: 'always', errno: 'EPERM', noLinks: true } as const
    const poor = (root: string, ...args: string[]) =>
      world.cli([...args, ...key()], { env: shimEnv({ ...fault, roots: [root] }) })
    makeTree(mine, { a: 'one', 'sub/b': 'two' })
    chmodSync(join(mine, 'a'), 0o755)
    symlinkSync('a', join(mine, 'link'))
    const push = () => world.cli(['push', mine, remote, ...key()])
    expect((await push()).code).toBe(0)
    // Only the link is told.
    const onlyLink = { exitCode: 10, failed: [{ path: 'link' }] }
    const first = await poor(theirs, 'pull', remote, theirs, '--json')
    expect(first.json.at(-1)).toMatchObject(onlyLink)
    makeTree(mine, { a: 'replaced' })
    expect((await push()).code).toBe(0)
    expect((await poor(theirs, 'pull', remote, theirs, '--json')).json.at(-1)).toMatchObject(onlyLink)
    expect(files(theirs)).toEqual({ a: 'replaced', 'sub/': '', 'sub/b': 'two' })
    mkdirSync(join(world.home, 'backups'), { recursive: true, mode: 0o700 })
    const set = `target = "/room/poor-set"\nsources = ["${join(mine, 'sub')}"]\n`
    writeFileSync(join(world.home, 'backups', 'poor.toml'), set, { mode: 0o600 })
    expect((await world.cli(['backup', 'run', 'poor', ...key()])).code).toBe(0)
    const restored = await poor(back, 'backup', 'restore', 'poor', back)
    expect([restored.code, files(join(back, mine))]).toEqual([0, { 'sub/': '', 'sub/b': 'two' }])
  })
})
