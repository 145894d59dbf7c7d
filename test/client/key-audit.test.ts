/** Who can open what: counts by room and member, and what somebody should look at; by the library and the command line. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWorld, giveKeyPair, makeRoom, makeTree, user1, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld({ users: [user1, 'bob', 'eve', 'dan'] })
  anna = await world.client()
  const bob = await world.client('bob')
  await giveKeyPair(bob, await unlockFixture('A'))
  await makeRoom(anna, 'alone')
  await makeRoom(anna, 'plain', false)
  await anna.rooms.create('/room/inner')
  makeTree(world.path('tree'), { a: 'a', b: 'b', 'sub/c': 'c' })
  await anna.upload([world.path('tree')], '/room')
  await anna.rooms.addMember('/room', 'bob')
  await anna.rooms.addMember('/room', 'eve')
  await anna.keys.trust('bob')
  await anna.keys.distribute()
  // Bob trusts nobody, so nobody has the key of his file; Anna's next file comes from where Bob's key is not known.
  await using doubting = await world.openClient({ trustNewMembers: false }, 'bob')
  await doubting.put('/room/of-bob', Buffer.from('of bob'))
  await using other = await world.openClient({ trustNewMembers: false })
  await other.put('/room/inner/new', Buffer.from('new'))
  await other.put('/alone/one', Buffer.from('one'))
})
afterAll(() => world.close())

test('the library counts what members have and lack, and what hangs on one person', async () => {
  const { rooms, findings } = await anna.keys.audit()
  const short = rooms.map(({ room, files, onlyMine, members }) => ({
    room,
    files,
    onlyMine,
    members: members.map(({ name, version, has, lacks }) => [name, version, has, lacks]),
  }))
  expect(short).toEqual([
    { room: '/alone', files: 1, onlyMine: 1, members: [['anna', 'RSA-4096', 1, 0]] },
    {
      room: '/room',
      files: 4,
      onlyMine: 0,
      members: [
        ['anna', 'RSA-4096', 3, 1],
        ['bob', 'A', 3, 0],
        ['eve', undefined, 0, 3],
      ],
    },
    {
      room: '/room/inner',
      files: 1,
      onlyMine: 1,
      members: [
        ['anna', 'RSA-4096', 1, 0],
        ['bob', 'A', 0, 1],
        ['eve', undefined, 0, 1],
      ],
    },
  ])
  expect(findings.map(({ code, room, name, count }) => [code, room, name, count])).toEqual([
    ['LOCK_WEAK', undefined, 'you', undefined],
    ['KEYS_SINGLE', '/alone', undefined, 1],
    ['KEYS_LACKING_OWN', '/room', 'anna', 1],
    ['KEY_WEAK', undefined, 'bob', undefined],
    ['KEY_PAIR_NONE', undefined, 'eve', undefined],
    ['KEYS_LACKING', '/room/inner', 'bob', 1],
    ['KEYS_SINGLE', '/room/inner', undefined, 1],
  ])
  const { rooms: some } = await anna.keys.audit({ room: '/room/inner/new', quick: true })
  expect(some.map(({ room, members }) => [room, members[0]?.has])).toEqual([['/room/inner', 1]])
  expect(await errorOf(anna.keys.audit({ room: '/nowhere' }))).toMatchObject({ code: 'REMOTE_MISSING' })
})

test('a member sees the same; where members are not shown, those who lack keys are known all the same', async () => {
  const bob = await world.client('bob')
  const { findings } = await bob.keys.audit({ room: '/room' })
  expect(findings).toContainEqual(
    expect.objectContaining({ code: 'KEYS_LACKING', name: 'anna', room: '/room', count: 1 }),
  )
  const refusal = { status: 403, headers: { 'Content-Type': 'application/json' }, body: '{"code":403}' }
  world.server.faults.add({ on: { method: 'GET', path: 'rooms/\\d+/users$' }, times: 99, do: refusal })
  const { rooms } = await anna.keys.audit({ room: '/room/inner' }).finally(() => world.server.faults.clear())
  expect(rooms).toMatchObject([
    { membersKnown: false, onlyMine: undefined, members: [{ has: 0, lacks: 1, isRescueKey: false, trust: 'trusted' }] },
  ])
})

test('the command says it as text, as a table and as JSON, and with --check by its exit code', async () => {
  const text = await world.cli(['keys', 'audit', '/room'])
  expect([text.code, text.stderr]).toEqual([0, ''])
  expect(text.stdout).toMatch(
    /^\/room {2}4 files\n {2}you +3 of 4 files\n {2}bob \(id:\d+\) +3 of 3 files {2}RSA-2048 {2}new/m,
  )
  expect(text.stdout).toContain('eve (id:')
  expect(text.stdout).toContain('- you lack the keys of 1 file of /room: somebody who has them must hand them out')
  const table = await world.cli(['keys', 'audit', '--csv', '-q'])
  expect(table.stdout.split('\n')[0]).toBe('room,user,id,kind,key,fingerprint,trust,has,lacks')
  expect(table.stdout).toMatch(/^\/room\/inner,bob,\d+,member,A,[0-9a-f]{64},new,0,1$/m)
  const checked = await world.cli(['keys', 'audit', '--check', '--json'])
  expect([checked.code, checked.json.at(-1)]).toMatchObject([3, { type: 'key-audit', rooms: 3 }])
  expect(checked.json.filter(({ type }) => type === 'room-audit')).toHaveLength(3)
  expect((await world.cli(['keys', 'audit', '--csv', '--json'])).code).toBe(2)
})
