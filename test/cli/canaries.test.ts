/** One sweep for secrets: passwords, tokens and keys in everything the command line prints, passes on and leaves behind. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, KEY_PASSWORD, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const filesBelow = (directory: string): string[] =>
  readdirSync(directory).flatMap((name) => {
    const path = join(directory, name)
    return statSync(path).isDirectory() ? filesBelow(path) : [path]
  })

test('verbose runs of all commands: nothing secret in output, arguments, or any file but the login itself', async () => {
  const grantFile = () => filesBelow(world.home).find((path) => /grant-[0-9a-f]+\.json$/.test(path))!
  const tokens = () => {
    const { accessToken, refreshToken } = JSON.parse(readFileSync(grantFile(), 'utf8'))
    return [accessToken, refreshToken] as string[]
  }
  const secrets = new Set(['account password of anna', KEY_PASSWORD, ...tokens()])
  makeTree(world.path('src'), { a: 'small', b: Buffer.alloc(9_000_000, 'b') })
  const key = ['--key-password-file', world.keyPasswordFile]
  const password = ['--user', 'anna', '--password-file', world.path('password-anna')]
  const commands = [
    ['login', world.server.url, ...password],
    ['whoami'],
    ['session', 'show', '--online'],
    ['session', 'renew'],
    ['profile', 'show'],
    ['config', 'show', '--origin'],
    ['doctor'],
    ['keys', 'status'],
    ['upload', world.path('src'), '/room', ...key],
    ['download', '/room/src', world.path('out'), ...key],
    ['cat', '/room/src/a', ...key],
    ['login', world.server.url, '--user', 'anna', '--password-file', world.keyPasswordFile],
    ['upload', world.path('src'), '/room', '--key-password-file', world.path('password-anna'), '--checksum'],
    ['logout'],
  ]
  const seen: string[] = []
  for (const args of commands) {
    const run = await world.cli([...args, '-v', '--json'], {
      async during({ pid }) {
        // Linux shows every process's arguments to everybody.
        if (process.platform === 'linux') seen.push(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
      },
    })
    seen.push(run.stdout, run.stderr)
    if (args[0] !== 'logout') for (const token of tokens()) secrets.add(token)
    for (const path of filesBelow(world.home)) {
      if (args[0] === 'logout' || path !== grantFile()) seen.push(readFileSync(path, 'latin1'))
    }
  }
  expect(secrets.size).toBeGreaterThanOrEqual(6)
  expect(seen.join('').length).toBeGreaterThan(3_000)
  for (const secret of secrets) {
    for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64')]) {
      expect(seen.filter((text) => text.includes(form))).toEqual([])
    }
  }
})
