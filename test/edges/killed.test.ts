/** What a killed process leaves that nobody should find: secrets on this disk, uploads at the server. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, makeTree, runCli, user1, type World } from '../support/cli.ts'
import { noShim, shimEnv } from '../support/shim.ts'

const requests: string[] = []
let world: World
beforeAll(async () => {
  world = await createWorld({ recorder: { onRequest: ({ method, path }) => void requests.push(`${method} ${path}`) } })
})
afterAll(() => world.close())

const leftIn = (home: string) =>
  readdirSync(home, { recursive: true, encoding: 'utf8' }).filter((name) => /\.part$|\.lock$|\.break$/.test(name))

describe.skipIf(noShim)(`a login that is killed while it is stored${noShim}`, () => {
  test.each(['whoami', 'logout'])('leaves no token behind once there was a %s', async (command) => {
    const home = world.path(`killed-${command}`)
    mkdirSync(home, { mode: 0o700 })
    const password = ['--password-file', world.path(`password-${user1}`)]
    const env = shimEnv({ kinds: ['rename'], roots: [home], at: 1, do: 'kill-before' })
    const login = ['login', world.server.url, '--user', user1, '--session-store', 'file', ...password]
    expect((await runCli(home, login, { env })).signal).toBe('SIGKILL')
    const parts = leftIn(home).filter((name) => name.endsWith('.part'))
    expect(readFileSync(join(home, parts[0]!), 'utf8')).toContain('refresh')
    await runCli(home, [command])
    expect(leftIn(home)).toEqual([])
  })
})

test('an upload of one part whose client is killed is cancelled by the next run', async () => {
  const source = world.path('one-part')
  makeTree(source, { small: 'small', middle: Buffer.alloc(300 * 1024, 'x') })
  const args = ['upload', source, '/room', '--json', '--jobs', '2', '--key-password-file', world.keyPasswordFile]
  const held = { method: 'PUT', path: '/' }
  world.server.faults.add({ on: held, times: 9, do: { hold: true } })
  const both = world.server.faults.until(world.server.faults.hits.length + 2)
  const killed = await world.cli(args, {
    async during(child) {
      await both
      child.kill('SIGKILL')
    },
  })
  world.server.faults.clear()
  expect(killed.signal).toBe('SIGKILL')
  const cancelled = () => requests.filter((line) => /^DELETE .*\/uploads\//.test(line)).length
  expect(cancelled()).toBe(0)
  makeTree(source, { small: 'changed' })
  expect((await world.cli(args)).code).toBe(0)
  expect(cancelled()).toBe(2)
  expect(leftIn(world.home)).toEqual([])
})
