/** A server as an operator has it: options from a file, administered while it runs, a reload, an orderly end. Built command line. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, MAIN, runCli, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna'] })
})
afterAll(() => world.close())

test('from a file of options to an orderly end', async () => {
  const config = world.path('server.toml')
  writeFileSync(
    config,
    'data = "own"\naccess-log = "access.log"\nmetrics-port = 0\nmax-requests = 1000\ndrain = "20s"\n',
  )
  const env = { SEALSYNC_SERVER_CONFIG: config }
  const child = spawn(process.execPath, [MAIN, 'serve', '--json'], {
    env: { ...process.env, ...env, SEALSYNC_HOME: world.path('serve-home') },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const { url, setupUrl, metricsUrl } = JSON.parse(line.toString())
  expect([setupUrl, metricsUrl]).toEqual([expect.stringMatching(/\/setup\?code=/), expect.stringMatching(/\/metrics$/)])
  const sync = (...args: string[]) => runCli(world.home, args, { env })

  const password = world.path('own-password')
  expect((await sync('serve', 'user', 'add', 'bert', '--admin', '--password-to', password)).code).toBe(0)
  expect(statSync(password).mode & 0o777).toBe(0o600)
  expect((await fetch(setupUrl)).status).toBe(404)
  const listed = await sync('serve', 'user', 'list', '--json')
  expect(listed.json).toMatchObject([
    { type: 'user', user: 'bert', isAdmin: true, isDisabled: false, hasKeyPair: false },
  ])
  const login = await runCli(world.path('bert'), ['login', url, '--user', 'bert', '--password-file', password])
  expect([login.code, login.stderr.includes('error')]).toEqual([0, false])
  const log = await sync('serve', 'audit', '--user', 'bert', '--csv')
  expect(log.stdout).toMatch(
    /^id,time,user,operation,failed,message,node,address\r?\n\d+,[^,]+,bert,user\.login,false,Logged in,,127\.0\.0\.1\r?\n$/,
  )
  const wrong = await sync('serve', 'user', 'remove', 'nobody', '--dry-run', '--json')
  expect([wrong.code, wrong.json[0]]).toMatchObject([2, { class: 'not_found', code: 'NO_SUCH_USER' }])

  const log1 = world.path('access.log')
  expect(readFileSync(log1, 'utf8')).toContain('"route":"/oauth/token"')
  renameSync(log1, `${log1}.1`)
  child.kill('SIGHUP')
  await expect.poll(() => existsSync(log1)).toBe(true)
  expect((await fetch(`${url}/readyz`)).status).toBe(200)
  const closed = once(child, 'close')
  child.kill('SIGTERM')
  expect((await closed)[0]).toBe(0)
  expect((await sync('serve', 'stats')).stdout).toContain('not running')

  writeFileSync(config, 'data = "own"\nporrt = 1\n')
  const unknown = await sync('serve', 'stats', '--json')
  expect([unknown.code, unknown.json[0]?.code, unknown.json[0]?.message]).toEqual([
    2,
    'CONFIG_INVALID',
    expect.stringContaining('porrt'),
  ])
})
