/** The tools of the sweeps themselves: that calls are counted, fail and kill as asked for, and each command runs without a fault. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runProgram } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { CHANGES, LOOKS, noShim, readCalls, type ShimPlan, shimEnv } from '../support/shim.ts'
import { type Bench, type Command, createBench, sweepKills } from '../support/sweep.ts'
import { COMMANDS } from '../support/sweep-commands.ts'

const SCRIPT = `
const fs = require('node:fs')
const root = process.argv[1]
const step = (name, work) => { try { work() } catch (error) { console.log(name, error.code) } }
step('write', () => fs.writeFileSync(root + '/a', 'x'.repeat(10)))
step('rename', () => fs.renameSync(root + '/a', root + '/b'))
const fd = fs.openSync(root)
step('link', () => fs.linkSync('/proc/self/fd/' + fd + '/b', root + '/c'))
step('stat', () => fs.lstatSync(root + '/b'))
step('elsewhere', () => fs.writeFileSync(root + '-other', ''))
`

describe.skipIf(noShim)(`the shim${noShim}`, () => {
  const runWith = async (plan: Partial<ShimPlan>) => {
    const [root, log] = [join(await freshDirectory(), 'root'), join(await freshDirectory(), 'log')]
    mkdirSync(root)
    writeFileSync(`${root}/old`, '')
    const env = shimEnv({ kinds: [...CHANGES, ...LOOKS], roots: [root], log, ...plan })
    const run = await runProgram(process.execPath, ['-e', SCRIPT, root], { PATH: process.env.PATH ?? '', ...env })
    return { ...run, root, calls: readCalls(log).map(({ kind, path }) => `${kind} ${path.replace(root, '')}`) }
  }

  test('numbers calls below the roots, by whatever path they get there', async () => {
    const { stdout, calls } = await runWith({})
    expect(stdout).toBe('')
    expect(calls).toEqual(['open /a', 'write /a', 'rename /b', 'open-read ', 'link /c', 'stat /b'])
    expect((await runWith({ kinds: ['rename', 'link'] })).calls).toEqual(['rename /b', 'link /c'])
  })

  test('lets calls fail, once or for ever', async () => {
    expect((await runWith({ kinds: ['rename'], at: 1, errno: 'EDQUOT' })).stdout).toBe(
      'rename Unknown system error -122\nlink ENOENT\nstat ENOENT\n',
    )
    const all = await runWith({ kinds: ['rename', 'link', 'stat'], at: 1, times: 'always', errno: 'EROFS' })
    expect(all.stdout).toBe('rename EROFS\nlink EROFS\nstat EROFS\n')
  })

  test('kills before and after a call; writes half', async () => {
    const before = await runWith({ kinds: ['rename'], at: 1, do: 'kill-before' })
    expect([before.code, readFileSync(`${before.root}/a`, 'utf8')]).toEqual([null, 'x'.repeat(10)])
    const after = await runWith({ kinds: ['rename'], at: 1, do: 'kill-after' })
    expect([after.code, readFileSync(`${after.root}/b`, 'utf8')]).toEqual([null, 'x'.repeat(10)])
    const short = await runWith({ kinds: ['write'], at: 1, do: 'short' })
    expect([short.calls, statSync(`${short.root}/b`).size]).toEqual([['write /a', 'write /a'], 10])
  })
})

describe.skipIf(noShim || process.env.SEALSYNC_FULL !== '1')(`sweeps (with SEALSYNC_FULL=1)${noShim}`, () => {
  let bench: Bench
  beforeAll(async () => {
    bench = await createBench()
  })
  afterAll(() => bench.close())

  test.each(Object.values(COMMANDS) as Command[])('$name comes to its end without a fault', async (command) => {
    expect((await sweepKills(bench, command, { kinds: ['write'], most: 0 })).problems).toEqual([])
  })
})
