import { mkdirSync, readdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWorld, runCli, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

const names = (json: Record<string, unknown>[]) => json.map(({ name }) => name)
const MACHINE = ['encrypt, output checked', 'decrypt', 'open file keys, all processors']

test('without a login it measures the machine, with a URL also the server’s answers', async () => {
  const alone = await runCli(world.path('nobody'), ['bench', '--json'])
  expect(alone.code, alone.stderr).toBe(0)
  expect(names(alone.json)).toEqual(MACHINE)
  for (const { type, value } of alone.json) {
    expect(type).toBe('measure')
    expect(value).toBeGreaterThan(0)
  }
  const server = await runCli(world.path('nobody'), ['bench', world.server.url, '--json'])
  expect(names(server.json)).toEqual([...MACHINE, 'answer of the server, median'])
})

test('with a room it sends a file and fetches it, and leaves nothing behind on either side', async () => {
  const TMPDIR = world.path('tmp')
  mkdirSync(TMPDIR)
  const args = ['bench', '--room', '/room', '--size', '6', '--key-password-file', world.keyPasswordFile, '--json']
  const run = await world.cli(args, { env: { TMPDIR } })
  expect(run.code, run.stderr).toBe(0)
  expect(names(run.json).slice(-2)).toEqual(['upload', 'download'])
  expect((await world.cli(['ls', '/room', '--json'])).json).toEqual([])
  expect(readdirSync(TMPDIR)).toEqual([])
})

test('a room that is not there, another server and wrong sizes are refused', async () => {
  const missing = await world.cli(['bench', '--room', '/nowhere', '--json'])
  expect(missing.json.at(-1)).toMatchObject({ type: 'error', code: 'REMOTE_MISSING' })
  const elsewhere = await world.cli(['bench', 'http://127.0.0.1:9', '--room', '/room', '--json'])
  expect(elsewhere.json.at(-1)).toMatchObject({ type: 'error', exitCode: 2, code: 'ROOM_ELSEWHERE' })
  const size = await world.cli(['bench', '--size', '0', '--json'])
  expect(size.json.at(-1)).toMatchObject({ type: 'error', exitCode: 2, code: 'OPTION_INVALID' })
})
