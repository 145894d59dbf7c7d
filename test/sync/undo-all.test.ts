/** What is left at the server when a run is taken back: nothing that was not there before it. */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

let world: World
let client: Client
beforeAll(async () => {
  world = await createWorld()
  client = await world.openClient({ directory: world.path('kept') })
})
afterAll(async () => {
  await client.close()
  await world.close()
})

const names = async (path: string) => (await world.list(path)).map(({ name }) => name)
const paths = async () => {
  const all: string[] = []
  for await (const { path } of client.walk('/room')) all.push(path)
  return all
}

test('a first push leaves neither folders nor its manifest, and can be done again', async () => {
  const local = world.path('tree')
  makeTree(local, { a: 'a', 'sub/b': 'b', 'empty/': '' })
  const { runId } = await client.push(local, '/room/deep/er/tree')
  expect(await names('/room/deep/er/tree')).toEqual(['.sealsync-manifest', 'a', 'empty', 'sub'])
  const { skipped } = await client.undo(runId)
  expect([skipped, await paths()]).toEqual([[], []])
  expect(await client.undo(runId)).toEqual({ undone: [], skipped: [] })
  expect(await client.push(local, '/room/deep/er/tree')).toMatchObject({ transferred: 2, failed: [] })
  expect(await names('/room/deep/er/tree')).toEqual(['.sealsync-manifest', 'a', 'empty', 'sub'])
})

test('what others have put there stays, and with it what leads there and describes it', async () => {
  const local = world.path('shared')
  makeTree(local, { a: 'a', 'sub/b': 'b' })
  const { runId } = await client.push(local, '/room/shared')
  await client.put('/room/shared/theirs', Buffer.from('x'))
  await client.put('/room/shared/a', Buffer.from('changed'))
  const { skipped } = await client.undo(runId)
  expect(skipped.map(({ deed }) => deed.path)).toEqual(['a'])
  expect(await names('/room/shared')).toEqual(['.sealsync-manifest', 'a', 'theirs'])
})

test('a later push has its own manifest; taking back the first one is no failure for that', async () => {
  const local = world.path('twice')
  makeTree(local, { a: 'a' })
  const first = await client.push(local, '/room/twice')
  writeFileSync(world.path('twice', 'b'), 'b')
  const second = await client.push(local, '/room/twice')
  expect((await client.undo(second.runId)).skipped).toEqual([])
  expect((await client.undo(first.runId)).skipped).toEqual([])
  expect(await names('/room')).not.toContain('twice')
})

test('an upload leaves no folder that it has made', async () => {
  const before = await paths()
  makeTree(world.path('up'), { x: 'x' })
  const { runId } = await client.upload([world.path('up')], '/room/new/er/')
  expect(await names('/room/new/er')).toEqual(['up'])
  expect((await client.undo(runId)).skipped).toEqual([])
  expect(await paths()).toEqual(before)
})
