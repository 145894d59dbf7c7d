/** Disks that refuse, fill up, break or can do less than others, by the shim; see test/support/shim.ts. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, MAIN, makeTree, runCli, snapshot, type World } from '../support/cli.ts'
import { isRoot, NOBODY } from '../support/files.ts'
import { noShim, type ShimPlan, shimEnv } from '../support/shim.ts'
import { leftovers } from '../support/sweep.ts'

let world: World
let count = 0
const fresh = (name: string) => world.path(`${name}-${++count}`)
const CRASH = /^ +at |node:internal|defect of this program/m

beforeAll(async () => {
  world = await createWorld()
  const files = Object.fromEntries(Array.from({ length: 12 }, (_, n) => [`small${n}`, `content ${n}`]))
  makeTree(world.path('source'), { ...files, 'sub/deep': 'deep' })
  makeTree(world.path('large'), { big: Buffer.alloc(20 * 1024 * 1024, 'seal\n') })
  const client = await world.client()
  await client.upload([world.path('source'), world.path('large')], '/room')
})
afterAll(() => world.close())

const key = () => ['--key-password-file', world.keyPasswordFile]
const files = (root: string) =>
  Object.fromEntries(Object.entries(snapshot(root)).filter(([path]) => !path.startsWith('.sealsync-')))

describe.skipIf(noShim)(`a disk that refuses${noShim}`, () => {
  const download = (from: string, target: string, plan: Omit<ShimPlan, 'roots'>) =>
    world.cli(['download', from, target, '--contents', '--json', ...key()], {
      env: shimEnv({ roots: [target], ...plan }),
    })

  test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'])('%s from a write of a large download on', async (errno) => {
    for (const at of [2, 5]) {
      const target = fresh('large-out')
      await mkdir(target)
      const run = await download('/room/large', target, { kinds: ['write'], at, times: 'always', errno })
      expect(run.stderr).not.toMatch(CRASH)
      expect([run.code, run.json.at(-1)]).toMatchObject([10, { failed: [{ path: 'big', code: `LOCAL_${errno}` }] }])
      expect(readdirSync(target)).toEqual([])
    }
  })

  test.each([
    ['open', 'EACCES'],
    ['write', 'EIO'],
    ['fsync', 'EIO'],
    ['rename', 'EPERM'],
  ] as const)('%s of one small file fails with %s: the others go on, nothing is left over', async (kind, errno) => {
    const target = fresh('small-out')
    await mkdir(target)
    // The first is that of the probe.
    const run = await download('/room/source', target, { kinds: [kind], at: 4, errno })
    expect(run.stderr).not.toMatch(CRASH)
    expect(run.json.at(-1)).toMatchObject({ exitCode: 10, failed: [{ code: `LOCAL_${errno}` }], transferred: 12 })
    expect(leftovers([target])).toEqual([])
    expect((await download('/room/source', target, { kinds: [] })).code).toBe(0)
    expect(files(target)).toEqual(files(world.path('source')))
  })
})

describe.skipIf(noShim)(`a disk that can do less${noShim}`, () => {
  test('times of two seconds: nothing is fetched or sent again', async () => {
    const target = fresh('coarse')
    await mkdir(target)
    const env = shimEnv({ kinds: [], roots: [target], timeStep: 2 })
    const run = (args: string[]) => world.cli([...args, '--json', ...key()], { env })
    expect((await run(['download', '/room/source', target, '--contents'])).code).toBe(0)
    expect(statSync(join(target, 'small1')).mtimeMs % 2000).toBe(0)
    const again = await run(['download', '/room/source', target, '--contents'])
    expect([again.code, again.json.at(-1)]).toMatchObject([0, { transferred: 0, skipped: 13 }])
  })
})

test('times before 1970 and after 9999 come back, or what is nearest, and are not sent again', async () => {
  const [source, remote, back] = [fresh('times'), `/room/times-${++count}`, fresh('times-back')]
  const times: Record<string, string> = {
    y1905: '-2051222400.25',
    y1969: '-1.5',
    y2400: '13569465600',
    far: '9999999999999',
  }
  makeTree(source, Object.fromEntries(Object.keys(times).map((name) => [name, name])))
  for (const [name, time] of Object.entries(times)) utimesSync(join(source, name), time, time)
  const time = (root: string, name: string) => statSync(join(root, name)).mtimeMs
  // Which of them this disk has is up to it.
  const upload = () => world.transfer(['upload', source, remote, '--contents'])
  await world.cli(['mkdir', remote])
  expect((await upload()).summary).toMatchObject({ exitCode: 0, transferred: 4 })
  expect((await upload()).summary).toMatchObject({ exitCode: 0, transferred: 0, skipped: 4 })
  const download = () => world.transfer(['download', remote, back, '--contents'])
  expect((await download()).summary).toMatchObject({ exitCode: 0, transferred: 4 })
  expect((await download()).summary).toMatchObject({ exitCode: 0, transferred: 0, skipped: 4 })
  for (const name of ['y1905', 'y1969', 'y2400']) {
    expect(Math.abs(time(back, name) - time(source, name)), name).toBeLessThan(1.001)
  }
  expect(time(back, 'far')).toBeGreaterThan(Date.UTC(2200, 0))
})

test.skipIf(!isRoot)('a directory that may not be written to stops nothing but what belongs into it', async () => {
  const [home, target] = [fresh('other-home'), fresh('unwritable')]
  makeTree(target, { 'sub/': '' })
  await chmod(join(target, 'sub'), 0o555)
  const { cpSync, chownSync } = await import('node:fs')
  cpSync(world.home, home, { recursive: true })
  const own = (path: string): void => {
    chownSync(path, NOBODY, NOBODY)
    if (statSync(path).isDirectory()) for (const name of readdirSync(path)) own(join(path, name))
  }
  const password = fresh('key-password')
  writeFileSync(password, readFileSync(world.keyPasswordFile), { mode: 0o600 })
  for (const path of [home, target, password]) own(path)
  const args = ['pull', '/room/source', target, '--json', '--key-password-file', password]
  const run = await runCli(home, args, { uid: NOBODY })
  expect([run.code, run.json.at(-1)]).toMatchObject([
    10,
    { failed: [{ path: 'sub/deep', code: 'LOCAL_EACCES' }], transferred: 12 },
  ])
})

describe.skipIf(process.platform !== 'linux')('an output that takes nothing', () => {
  const into = async (args: string[], which: 'stdout' | 'both') => {
    const full = openSync('/dev/full', 'w')
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: {
        PATH: process.env.PATH ?? '',
        SEALSYNC_HOME: world.home,
        SEALSYNC_KEY_PASSWORD_FILE: world.keyPasswordFile,
      },
      stdio: ['ignore', full, which === 'both' ? full : 'pipe'],
    })
    let stderr = ''
    child.stderr?.setEncoding('utf8').on('data', (chunk) => {
      stderr += chunk
    })
    const [code] = await once(child, 'close')
    return { code, stderr }
  }

  test('does not end the work, and results that were not written are told', async () => {
    const remote = `/room/full-${++count}`
    const push = await into(['push', world.path('source'), remote, '--json', '-v'], 'both')
    expect(push.code).toBe(10)
    expect((await world.list(remote)).filter(({ type }) => type === 'file').length).toBeGreaterThanOrEqual(12)
    const ls = await into(['ls', '/room/source', '--json'], 'stdout')
    expect(ls).toEqual({ code: 10, stderr: expect.stringContaining('Cannot write the output (ENOSPC)') })
    const cat = await into(['cat', '/room/source/small1'], 'stdout')
    expect(cat.code).toBe(10)
    expect(cat.stderr).not.toMatch(CRASH)
  })
})
