import { afterAll, beforeAll, expect, test } from 'vitest'
import { getAccount } from '../../src/api/account.ts'
import { encryptRoom } from '../../src/api/nodes.ts'
import { parseNode, parseJson } from '../../src/api/wire.ts'
import { MemoryRecorder } from '../../src/server/index.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeRoom, makeTree, type World } from '../support/cli.ts'

let world: World
const recorder = new MemoryRecorder()
beforeAll(async () => {
  world = await createWorld({ recorder })
})
afterAll(() => world.close())

async function subRoom(parentId: number, name: string) {
  const { api } = await world.client()
  const { id } = await getAccount(api)
  const { body } = await api.send({
    method: 'POST',
    url: `${api.origin}/api/v4/nodes/rooms`,
    headers: { 'content-type': 'application/json' },
    body: Buffer.from(JSON.stringify({ name, parentId, adminIds: [id], inheritPermissions: false })),
  })
  return parseNode(parseJson(body), 'body')
}

test('each file is encrypted as its own room asks, not as the target does', async () => {
  const client = await world.client()
  const top = await makeRoom(client, 'plain', false)
  const sub = await subRoom(top.id, 'secret')
  await encryptRoom(client.api, sub.id)
  makeTree(world.path('src'), { open: 'for everybody', 'secret/f': 'SECRET-CANARY-1234', 'secret/deep/g': 'SECRET-CANARY-5678' })
  const summary = await client.upload([world.path('src')], '/plain', { contents: true })
  console.log(summary, JSON.stringify(recorder.entries ?? Object.keys(recorder)).includes('CANARY'))
  const { node } = await requireRemote(client.api, '/plain/secret/f')
  console.log(node)
})
