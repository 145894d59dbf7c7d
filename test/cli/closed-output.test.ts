import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, MAIN, makeTree, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const json = { 'Content-Type': 'application/json' }

test('a reader of the output that goes away does not stop an upload half-way', async () => {
  makeTree(world.path('pipe'), Object.fromEntries(Array.from({ length: 60 }, (_, at) => [`f${at}`, `${at}`])))
  const args = ['upload', world.path('pipe'), '/room', '--json', '-v', '--key-password-file', world.keyPasswordFile]
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.once('data', () => {
    child.stdout.destroy()
    child.stderr.destroy()
  })
  const [code] = await once(child, 'exit')
  expect(code).toBe(0)
  expect((await world.cli(['ls', '/room/pipe', '--json'])).json).toHaveLength(60)
})

test('cat into a reader that goes away ends quietly', async () => {
  const big = new Uint8Array(20 * 1024 * 1024).fill(7)
  makeTree(world.path('cat'), { big })
  await (await world.client()).upload([world.path('cat')], '/room')
  const child = spawn(process.execPath, [MAIN, 'cat', '/room/cat/big', '--key-password-file', world.keyPasswordFile], {
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: world.home },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stderr = ''
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  child.stdout.once('data', () => child.stdout.destroy())
  const [code] = await once(child, 'exit')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
})

test('JSON output has no character that a terminal would obey', async () => {
  const client = await world.client()
  const { node } = await requireRemote(client.api, '/room')
  const name = 'x\u009b31m\u202etxt\u{e0041}'
  const item = { id: 99, type: 'file', name, size: 1 }
  const body = JSON.stringify({ range: { offset: 0, limit: 500, total: 1 }, items: [item] })
  // What is searched for ahead finds nothing, so that it is listed.
  world.server.faults.add({ on: { path: '/v4/nodes/search$' }, do: { status: 404 } })
  world.server.faults.add({ on: { path: '/v4/nodes$' }, after: 1, do: { status: 200, headers: json, body } })
  const run = await world.cli(['ls', `/${node.name}`, '--json'])
  expect(run.json[0]).toMatchObject({ name })
  expect(run.stdout).toMatch(/^[\x20-\x7e\n]*$/)
})
