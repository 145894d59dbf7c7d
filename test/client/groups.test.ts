/** Groups in rooms: their members get file keys like others, if their keys are trusted, and lose the room with the group. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addGroup } from '../../src/server/index.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWorld, giveKeyPair, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob', 'carla'] })
  await addGroup(world.path('server'), { name: 'staff', users: ['bob', 'carla'] })
})
afterAll(() => world.close())

test('who is in a room by a group gets keys after being trusted, as a member and not as a rescue key', async () => {
  const anna = await world.client()
  const [bob, carla] = [await world.client('bob'), await world.client('carla')]
  await giveKeyPair(bob, await unlockFixture('A'))
  await anna.put('/room/before', Buffer.from('before'))
  await anna.rooms.changeMembers('/room', { add: [{ kind: 'group', name: 'staff', role: 'read' }] })
  const listed: string[] = []
  for await (const { name } of anna.rooms.groups('/room')) listed.push(name)
  expect(listed).toEqual(['staff'])
  // Where nobody may trust, they are told as the new members that they are.
  await using careful = await world.openClient()
  const stored = await careful.put('/room/careful', Buffer.from('careful'))
  expect(stored.refused.map(({ error, member }) => [error.code, member.startsWith('bob')])).toEqual([
    ['MEMBER_NEW', true],
  ])
  const { handedOut, refused } = await anna.keys.distribute({ room: '/room' })
  expect([handedOut, refused]).toEqual([2, []])
  const read = async (client: typeof bob, name: string) =>
    Buffer.from(await (await client.get(`/room/${name}`)).bytes()).toString()
  expect([await read(bob, 'before'), await read(bob, 'careful')]).toEqual(['before', 'careful'])
  // Somebody whose key pair comes later gets what is there, and what is new.
  await giveKeyPair(carla)
  const { refused: none } = await anna.put('/room/after', Buffer.from('after'))
  expect(none).toEqual([])
  expect([await read(carla, 'before'), await read(bob, 'after'), await read(carla, 'after')]).toEqual([
    'before',
    'after',
    'after',
  ])
  await anna.rooms.changeMembers('/room', { remove: [{ kind: 'group', name: 'staff' }] })
  expect((await errorOf(bob.get('/room/before'))).code).toBe('REMOTE_MISSING')
})
