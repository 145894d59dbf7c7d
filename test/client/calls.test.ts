/** What a client offers besides runs: entries, rooms and members, keys, recycle bin and versions, the account. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Client } from '../../src/client.ts'
import { createWorld, giveKeyPair, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
let anna: Client
let bob: Client
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'] })
  anna = await world.client('anna')
  bob = await world.client('bob')
})
afterAll(() => world.close())

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const one of source) found.push(one)
  return found
}

const paths = async (source: AsyncIterable<{ path: string }>) => (await all(source)).map(({ path }) => path)

describe('entries', () => {
  test('are listed, walked and found by their paths', async () => {
    await anna.mkdir('/room/tree/a/b', { parents: true })
    await anna.put('/room/tree/a/b/deep.txt', randomBytes(3))
    await anna.put('/room/tree/Top.TXT', randomBytes(3))
    await anna.put('/room/tree/c.bin', randomBytes(3))
    expect(await paths(anna.list())).toEqual(['/room'])
    expect(await paths(anna.list('/room/tree'))).toEqual(['/room/tree/a', '/room/tree/c.bin', '/room/tree/Top.TXT'])
    expect(await paths(anna.list('/room/tree/c.bin'))).toEqual(['/room/tree/c.bin'])
    const walked = await paths(anna.walk())
    expect(walked[0]).toBe('/room')
    expect(walked.indexOf('/room/tree/a/b')).toBeLessThan(walked.indexOf('/room/tree/a/b/deep.txt'))
    expect((await paths(anna.find('/room', '*.txt'))).sort()).toEqual(['/room/tree/Top.TXT', '/room/tree/a/b/deep.txt'])
    expect(await paths(anna.find('/room', '*', { type: 'folder' }))).toEqual([
      '/room/tree',
      '/room/tree/a',
      '/room/tree/a/b',
    ])
    expect(await anna.stat('/room/tree/c.bin')).toMatchObject({ type: 'file', size: 3, isEncrypted: true })
    expect(await errorOf(anna.stat('/room/none'))).toMatchObject({ code: 'REMOTE_MISSING' })
    expect(await errorOf(all(anna.walk('/none')))).toMatchObject({ code: 'REMOTE_MISSING' })
  })

  test('are moved, copied and renamed', async () => {
    const content = randomBytes(20)
    await anna.mkdir('/room/moves/to', { parents: true })
    await anna.put('/room/moves/x', content)
    expect((await anna.move('/room/moves/x', '/room/moves/to')).path).toBe('/room/moves/to/x')
    expect((await anna.move('/room/moves/to/x', '/room/moves/y')).path).toBe('/room/moves/y')
    expect((await anna.copy('/room/moves/y', '/room/moves/to/z')).path).toBe('/room/moves/to/z')
    expect((await anna.rename('/room/moves/to/z', 'w:1')).name).toBe('w%3A1')
    expect(Buffer.from(await (await anna.get('/room/moves/to/w:1')).bytes())).toEqual(content)
    await anna.copy('/room/moves/y', '/room/moves/to')
    expect(await errorOf(anna.copy('/room/moves/y', '/room/moves/to'))).toMatchObject({ code: 'EXISTS' })
    await anna.copy('/room/moves/y', '/room/moves/to', { onConflict: 'overwrite' })
    expect(await errorOf(anna.move('/room/moves/y', '/room/no/where'))).toMatchObject({ code: 'REMOTE_MISSING' })
    expect(await errorOf(anna.move('/room', '/other'))).toMatchObject({ code: 'IS_CONTAINER' })
    expect(await errorOf(anna.rename('/room/moves/y', 'a/b'))).toMatchObject({ code: 'PATH_INVALID' })
  })

  test('are removed only as far as was said', async () => {
    await anna.mkdir('/room/gone')
    await anna.put('/room/gone/a', randomBytes(1))
    await anna.put('/room/gone/b', randomBytes(1))
    expect(await errorOf(anna.remove(['/room/gone/a', '/room/gone/none']))).toMatchObject({ code: 'REMOTE_MISSING' })
    expect(await errorOf(anna.remove(['/room/gone/a', '/room/gone']))).toMatchObject({ code: 'IS_CONTAINER' })
    expect(await errorOf(anna.remove('/room', { recursive: true }))).toMatchObject({ code: 'ROOM_DELETE' })
    expect(await paths(anna.list('/room/gone'))).toEqual(['/room/gone/a', '/room/gone/b'])
    expect((await anna.remove('/room/gone/a')).map(({ path }) => path)).toEqual(['/room/gone/a'])
    await anna.remove('/room/gone', { recursive: true })
    expect(await errorOf(anna.stat('/room/gone'))).toMatchObject({ code: 'REMOTE_MISSING' })
  })

  test('an aborted call rejects with the reason', async () => {
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    for (const work of [
      all(anna.list('/room', { signal })),
      all(anna.walk('/room', { signal })),
      anna.stat('/room', { signal }),
      anna.mkdir('/room/aborted', { signal }),
      anna.whoami({ signal }),
      anna.keys.list({ signal }),
    ]) {
      expect(await errorOf(work)).toBe(reason)
    }
  })
})

test('removed files and older versions come back, or go for good', async () => {
  const [old, now] = [randomBytes(10), randomBytes(20)]
  const room = '/bin'
  await anna.rooms.create(room)
  await anna.put('/bin/f', old)
  await anna.put('/bin/f', now)
  const [version] = await all(anna.versions.list('/bin/f'))
  expect(version).toMatchObject({ name: 'f', size: 10, parentPath: '/bin/' })
  await anna.versions.restore('/bin/f', version!.id)
  expect(Buffer.from(await (await anna.get('/bin/f')).bytes())).toEqual(old)
  expect(await errorOf(anna.versions.restore('/bin/f', version!.id))).toMatchObject({ code: 'NOT_FOUND' })
  await anna.remove('/bin/f')
  const deleted = await all(anna.trash.list('/bin'))
  expect(deleted).toMatchObject([{ name: 'f', cntVersions: 2 }])
  await anna.trash.restore([deleted[0]!.lastDeletedNodeId])
  expect(Buffer.from(await (await anna.get('/bin/f')).bytes())).toEqual(old)
  const [last] = await all(anna.versions.list('/bin/f'))
  await anna.versions.purge([last!.id])
  expect(await all(anna.versions.list('/bin/f'))).toEqual([])
  await anna.remove('/bin/f')
  await anna.trash.empty('/bin')
  expect(await all(anna.trash.list('/bin'))).toEqual([])
  expect(await errorOf(all(anna.versions.list('/bin')))).toMatchObject({ code: 'TARGET_IS_ROOT' })
})

test('a room gets a member, who reads once the key is trusted and the file keys are handed out', async () => {
  expect(await errorOf(bob.rooms.create('/bobs'))).toMatchObject({ code: 'NO_KEY_PAIR' })
  const pair = await giveKeyPair(bob)
  expect((await bob.keys.status()).keyPairs).toMatchObject([{ fingerprint: pair.publicKey.fingerprint }])
  expect(await errorOf(bob.keys.create())).toMatchObject({ code: 'KEY_PAIR_EXISTS' })
  await anna.rooms.create('/shared')
  expect(await errorOf(anna.rooms.create('/shared'))).toMatchObject({ code: 'EXISTS' })
  expect(await errorOf(anna.rooms.create('/'))).toMatchObject({ code: 'PATH_INVALID' })
  const content = randomBytes(30)
  await anna.put('/shared/f', content)
  await anna.rooms.addMember('/shared', 'bob', { role: 'read' })
  expect(await all(anna.rooms.members('/shared'))).toMatchObject([
    { name: 'anna', role: 'admin', hasKeyPair: true },
    { name: 'bob', role: 'read', hasKeyPair: true },
  ])
  expect(await errorOf(anna.rooms.addMember('/shared', 'nobody'))).toMatchObject({ code: 'USER_UNKNOWN' })
  expect(await errorOf(bob.get('/shared/f'))).toMatchObject({ code: 'FILE_KEY_MISSING' })
  const { fingerprint } = pair.publicKey
  expect((await anna.keys.list()).keys).toContainEqual(expect.objectContaining({ name: 'bob', state: 'new' }))
  expect(await anna.keys.verify('bob', fingerprint)).toMatchObject({ name: 'bob', isTrusted: false })
  expect(await errorOf(anna.keys.verify('bob', '0'.repeat(64)))).toMatchObject({ code: 'FINGERPRINT_DIFFERS' })
  expect(await anna.keys.trust('bob', { fingerprint })).toMatchObject({ name: 'bob', keys: [{ fingerprint }] })
  expect((await anna.keys.status()).missingFileKeys).toBe(1)
  expect(await anna.keys.distribute({ room: '/shared' })).toMatchObject({ handedOut: 1, skipped: 0, refused: [] })
  expect(Buffer.from(await (await bob.get('/shared/f')).bytes())).toEqual(content)
  // What is stored from now on is handed out at once.
  const { refused } = await anna.put('/shared/g', content)
  expect(refused).toEqual([])
  expect(Buffer.from(await (await bob.get('/shared/g')).bytes())).toEqual(content)
  expect(await anna.keys.forget('bob')).toMatchObject({ name: 'bob', count: 1 })
  expect(await anna.keys.trustAll()).toMatchObject({ trusted: [{ name: 'bob' }], changed: [], rescueKeys: [] })
  await anna.rooms.removeMember('/shared', 'bob')
  expect(await errorOf(bob.stat('/shared/f'))).toMatchObject({ class: 'not_found' })
})

test('the account and the server say who they are', async () => {
  expect(await anna.whoami()).toMatchObject({ userName: 'anna', hasKeyPair: true })
  expect(await anna.serverInfo()).toMatchObject({ origin: world.server.url, usesObjectStorage: true })
})
