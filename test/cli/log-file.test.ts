/** The log of commands: what is in it, what never is, and that it changes nothing else. */
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, KEY_PASSWORD, listFiles, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
  makeTree(world.path('in'), { 'private name.txt': 'content', other: 'x' })
})
afterAll(() => world.close())

const records = (file: string): Record<string, unknown>[] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const key = () => ['--key-password-file', world.keyPasswordFile]

test('one record a line, in a private file that grows; what failed is in it', async () => {
  const file = world.path('log')
  const log = ['--log-file', file]
  const up = await world.cli(['upload', world.path('in'), '/room', ...key(), ...log])
  expect(up.code).toBe(0)
  expect(statSync(file).mode & 0o777).toBe(0o600)
  const first = records(file)
  expect(first[0]).toMatchObject({ level: 'info', event: 'command', command: 'upload', pid: expect.any(Number) })
  expect(first).toContainEqual(expect.objectContaining({ event: 'file-done', path: 'in/private name.txt', bytes: 7 }))
  expect(first.at(-1)).toMatchObject({ event: 'ended', exitCode: 0, ms: expect.any(Number) })
  expect((await world.cli(['stat', '/room/nothing', ...log])).code).toBe(2)
  const all = records(file)
  expect(all.slice(0, first.length)).toEqual(first)
  expect(all.slice(first.length)).toMatchObject([
    { event: 'command', command: 'stat' },
    { level: 'error', event: 'failed', code: 'REMOTE_MISSING', exitCode: 2 },
    { event: 'ended', exitCode: 2 },
  ])
  expect(all.filter(({ level }) => level === 'debug')).toEqual([])
})

test('as much as was asked for, without names where they are not wanted', async () => {
  const debug = world.path('debug')
  const run = (...more: string[]) => world.cli(['ls', '/room/in', '-v', ...more])
  expect((await run('--log-file', debug, '--log-level', 'debug')).code).toBe(0)
  expect(records(debug)).toContainEqual(
    expect.objectContaining({ level: 'debug', event: 'session', message: 'response', status: 200 }),
  )
  const errors = world.path('errors')
  await run('--log-file', errors, '--log-level', 'error')
  expect(() => readFileSync(errors)).toThrow('ENOENT')
  const quiet = world.path('redacted')
  const hidden = ['--log-file', quiet, '--log-level', 'debug', '--log-redact', 'names', '--trace-http']
  writeFileSync(world.path('in', 'private name.txt'), 'changed')
  await world.cli(['upload', world.path('in'), '/room', ...key(), ...hidden])
  await world.cli(['cat', '/room/in/private name.txt', ...key(), ...hidden])
  await world.cli(['stat', '/room/in/private nothing', ...hidden])
  const text = readFileSync(quiet, 'utf8')
  expect(text).toContain('REMOTE_MISSING')
  for (const name of ['private', '/room', 'in/']) expect(text).not.toContain(name)
})

test('--trace-http shows requests and headers, none that could be a secret', async () => {
  const env = { SEALSYNC_HEADER: 'X-Canary: canary-of-a-header' }
  const said = await world.cli(['ls', '/room', '--trace-http'], { env, fresh: true })
  expect(said.stderr).toMatch(/^> 1 GET http:\/\/127\.0\.0\.1:\d+\/api\/v4\/nodes/m)
  expect(said.stderr).toMatch(/^> 1 authorization: \[…\]$/m)
  expect(said.stderr).toMatch(/^< 1 content-type: application\/json/m)
  const file = world.path('traced')
  const run = await world.cli(
    ['download', '/room/in', world.path('out'), '--trace-http', '--log-file', file, ...key()],
    { env, fresh: true },
  )
  expect([run.code, run.stderr.includes('authorization')]).toEqual([0, false])
  const traced = records(file)
  expect(traced).toContainEqual(expect.objectContaining({ event: 'http-headers', direction: 'request' }))
  expect(traced).toContainEqual(
    expect.objectContaining({ event: 'http-response', status: 200, path: '/api/v4/nodes/files/{id}/downloads' }),
  )
  const { accessToken = '' } = JSON.parse(readFileSync(grantFile(), 'utf8')) as { accessToken?: string }
  for (const text of [said.stderr, readFileSync(file, 'utf8')]) {
    for (const secret of ['canary-of-a-header', KEY_PASSWORD, accessToken.slice(0, 20)])
      expect(text).not.toContain(secret)
  }
})

function grantFile(): string {
  const [name] = listFiles(world.home).filter((path) => /grant-[0-9a-f]+\.json$/.test(path))
  return join(world.home, name!)
}

test('a log that cannot be written is warned of once, and changes nothing', async () => {
  mkdirSync(world.path('directory'))
  symlinkSync(world.path('elsewhere'), world.path('link'))
  for (const name of ['directory', 'link', 'none/log']) {
    const run = await world.cli(['ls', '/room', '--log-file', world.path(name), '--log-level', 'debug'])
    expect([run.code, run.stdout]).toEqual([0, 'in/\n'])
    expect(run.stderr.match(/warning: /g), name).toHaveLength(1)
  }
  expect(() => readFileSync(world.path('elsewhere'))).toThrow('ENOENT')
  expect((await world.cli(['ls', '--log-level', 'much'])).code).toBe(2)
})
