/** A disk without second names (FAT, some network shares), by the shim; see test/support/shim.ts. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'
import { noShim, shimEnv } from '../support/shim.ts'

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
})
