/** With very few open files allowed, everything gets through all the same. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, MAIN, makeTree, runProgram, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

test.skipIf(process.platform === 'win32')(
  'uploads and downloads with 80 open files and 64 in flight (POSIX)',
  async () => {
    const files = Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`f${i}`, `content ${i}`]))
    makeTree(world.path('src'), { ...files, large: Buffer.alloc(12_000_000, 'x') })
    const limited = (...args: string[]) =>
      runProgram('sh', ['-c', 'ulimit -n 80; exec "$0" "$@"', process.execPath, MAIN, ...args, '-j', '64', '--json'], {
        PATH: process.env.PATH ?? '',
        SEALSYNC_HOME: world.home,
        SEALSYNC_KEY_PASSWORD_FILE: world.keyPasswordFile,
      })
    const up = await limited('upload', world.path('src'), '/room')
    expect(up.code, up.stderr).toBe(0)
    const down = await limited('download', '/room/src', world.path('out'))
    expect(down.code, down.stderr + down.stdout).toBe(0)
    expect(snapshot(world.path('out/src'))).toEqual(snapshot(world.path('src')))
  },
)
