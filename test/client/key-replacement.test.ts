/** A new key pair that takes over all file keys: at every moment each of them is at the server for a key pair that is there. */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { type UserKeyPair, unlockKeyPair, unwrapFileKey } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { createKeyPair, getKeyPairs } from '../../src/api/account.ts'
import { collect } from '../../src/client/context.ts'
import { type Client, type ClientOptions, createClient } from '../../src/client.ts'
import { addUser } from '../../src/server/index.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { encryptedFiles, ownFileKey } from '../../src/transfer/move-file-keys.ts'
import { unlockFixture } from '../crypto/support.ts'
import {
  accountPassword,
  createWorld,
  giveKeyPair,
  KEY_PASSWORD,
  makeRoom,
  makeTree,
  type World,
} from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

const NEXT = 'a new encryption pässword'
// Each replacement makes two key pairs and derives keys a dozen times.
vi.setConfig({ testTimeout: 300_000 })
let world: World
beforeAll(async () => {
  world = await createWorld({ keyPair: false })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

let user: string
let directory: string
let count = 0
beforeEach(async () => {
  user = `user${++count}`
  directory = world.path(`kept-${user}`)
  await addUser(world.path('server'), { name: user, password: accountPassword(user) })
})

async function open(more: Partial<ClientOptions> = {}, name = user): Promise<Client> {
  const client = createClient(world.server.url, {
    authorizer: (origin) => passwordAuthorizer(origin, { userName: name, password: async () => accountPassword(name) }),
    keyPassword: async () => KEY_PASSWORD,
    directory,
    account: name,
    retryForMs: 0,
    trustNewMembers: true,
    ...more,
  })
  await client.session.login()
  return client
}
const asNext = async () => NEXT
const kept = () => readdirSync(join(directory, 'key-pairs')).filter((name) => name.endsWith('.change'))
const cheap = () => ({ prf: 'SHA-1', iterations: 1_000, salt: randomBytes(20), iv: randomBytes(16) }) as const

/** An encrypted room with three files, one of which has an older version in the bin. */
async function furnish(client: Client): Promise<string> {
  const room = `/room-${user}`
  const tree = world.path(`tree-${user}`)
  await makeRoom(client, room.slice(1))
  makeTree(tree, { a: 'first', b: 'b', 'sub/c': 'c' })
  await client.upload([tree], room)
  await client.put(`${room}/tree-${user}/a`, Buffer.from('second'), { onConflict: 'overwrite' })
  return `${room}/tree-${user}`
}

/** How many files there are, all of which open with a key pair that is at the server, under one of the two passwords. */
async function reachable(client: Client): Promise<number> {
  const pairs: UserKeyPair[] = []
  for (const container of await getKeyPairs(client.api)) {
    const opening = unlockKeyPair(container, KEY_PASSWORD).catch(() => unlockKeyPair(container, NEXT))
    pairs.push(await opening)
  }
  let files = 0
  for await (const { id, path } of encryptedFiles(client.api, { folders: 0, bins: 0 })) {
    const opened = []
    for (const pair of pairs) {
      const wrapped = await ownFileKey(client.api, id, pair.version)
      if (wrapped !== undefined) opened.push(await unwrapFileKey(wrapped, pair))
    }
    expect([path, opened.length > 0]).toEqual([path, true])
    files++
  }
  return files
}

test('all file keys move, those of older versions too; the old key pair is gone, others have to compare the new one', async () => {
  await using client = await open()
  await giveKeyPair(client)
  const tree = await furnish(client)
  const bob = `${user}-bob`
  await addUser(world.path('server'), { name: bob, password: accountPassword(bob) })
  await using other = await open({ directory: world.path(`kept-${bob}`) }, bob)
  await giveKeyPair(other, await unlockFixture('A'))
  await client.rooms.addMember(tree.split('/').slice(0, 2).join('/'), bob)
  await client.keys.distribute()
  const [old] = (await client.keys.status()).keyPairs
  const plan = await client.keys.planReplacement()
  expect(plan).toMatchObject({
    rooms: [{ room: `/room-${user}`, files: 4, binned: 1, absent: 0 }],
    unreached: { folders: 0, bins: 0 },
    unreadable: 0,
    unfinishedSince: undefined,
  })
  await other.put(`${tree}/theirs`, Buffer.from('of bob')) // pins our old key

  const container = world.path(`rescue-${user}.json`)
  const { papers } = await client.rescue.create({ file: container })
  const told: unknown[] = []
  const done = await client.keys.replace(asNext, { onChanged: async (password) => void told.push(password) })
  expect(done).toMatchObject({ files: 5, absent: 0, left: 0, former: [{ fingerprint: old!.fingerprint }] })
  expect([told, kept(), await reachable(client)]).toEqual([[NEXT], [], 5])
  // What is on paper opens the new key pair.
  expect(done.rescue).toMatchObject([{ kind: 'file', path: container }])
  const secret = await client.rescue.read(papers.map((paper) => paper.lines().join('\n')))
  expect((await client.rescue.drill(secret, { files: 2 })).report).toMatchObject({ isRight: true, sampled: 2 })
  const { keyPairs, unfinished } = await client.keys.status()
  expect(keyPairs).toMatchObject([{ version: 'RSA-4096', fingerprint: done.keyPair.fingerprint, current: true }])
  expect([done.keyPair.fingerprint === old!.fingerprint, unfinished]).toEqual([false, undefined])

  // The same client goes on, a later one needs the new password, and the older version comes back.
  await client.put(`${tree}/after`, Buffer.from('after'))
  await using later = await open({ keyPassword: asNext })
  const [version] = await collect(later.versions.list(`${tree}/a`))
  await later.versions.restore(`${tree}/a`, version!.id)
  await later.download([tree], world.path(`down-${user}`))
  expect(readFileSync(world.path(`down-${user}`, `tree-${user}`, 'a'), 'utf8')).toBe('first')
  // Bob is told, and hands out nothing before he has compared.
  await using friend = await open({ directory: world.path(`kept-${bob}`) }, bob)
  await friend.put(`${tree}/again`, Buffer.from('of bob'))
  const { refused } = await friend.keys.distribute()
  expect(refused.map(({ error }) => error.code)).toEqual(['MEMBER_KEY_CHANGED'])
  await friend.keys.trust(user, { fingerprint: done.keyPair.fingerprint })
  expect((await friend.keys.distribute()).refused).toEqual([])
  await using last = await open({ keyPassword: asNext })
  expect(await reachable(last)).toBe(7)
})

test('killed after every single request that changes something, and gone on with: nothing is ever out of reach', async () => {
  await using first = await open()
  await giveKeyPair(first)
  await furnish(first)
  const steps: string[] = []
  for (let isDone = false; !isDone; ) {
    await using client = await open()
    const { send } = client.api
    const killed = Object.assign(client.api, {
      async send(request: Parameters<typeof send>[0]) {
        const answer = await send(request)
        if (request.method === 'GET') return answer
        steps.push(`${request.method} ${request.label}`)
        throw new Error('killed')
      },
    })
    const end = await client.keys.replace(asNext).then(
      () => undefined,
      (error) => error,
    )
    Object.assign(killed, { send })
    isDone = end === undefined
    if (!isDone) expect(end).toMatchObject({ message: 'killed' })
    expect(await reachable(client)).toBe(4)
    expect(steps.length).toBeLessThan(12)
  }
  expect(kept()).toEqual([])
  expect(steps).toEqual([
    'POST /api/v4/user/account/keypair',
    'POST /api/v4/nodes/files/keys',
    'DELETE /api/v4/user/account/keypair',
    'POST /api/v4/user/account/keypairs',
    'POST /api/v4/nodes/files/keys',
    'DELETE /api/v4/user/account/keypair',
  ])
  await using later = await open({ keyPassword: asNext })
  expect((await later.download([`/room-${user}`], world.path(`down-${user}`))).failed).toEqual([])
})

test('lost answers are none, whichever request they belong to', async () => {
  await using client = await open()
  await giveKeyPair(client)
  await furnish(client)
  for (const method of ['POST', 'DELETE']) {
    world.server.faults.add({ on: { method, path: 'keypair' }, times: 2, do: { loseAnswer: true } })
  }
  world.server.faults.add({ on: { method: 'POST', path: 'files/keys$' }, do: { loseAnswer: true } })
  const failure = await client.keys.replace(asNext).then(
    () => undefined,
    (error) => error,
  )
  // Without any patience a lost answer of file keys ends the run; the next one goes on.
  expect([undefined, 'network']).toContain(failure?.class)
  if (failure !== undefined) await client.keys.replace(asNext)
  expect([await reachable(client), kept()]).toEqual([4, []])
})

test('an account of the older version moves to RSA-4096; one with both settles that first', async () => {
  await using client = await open()
  await createKeyPair(client.api, await lockWith(await unlockFixture('A'), KEY_PASSWORD, cheap()))
  await furnish(client)
  const first = await client.keys.replace(async () => KEY_PASSWORD)
  expect(first).toMatchObject({ former: [{ version: 'A' }], keyPair: { version: 'RSA-4096' }, files: 4 })
  await createKeyPair(client.api, await lockWith(await unlockFixture('A'), KEY_PASSWORD, cheap()))
  const second = await client.keys.replace(asNext)
  expect(second).toMatchObject({ former: [first.keyPair], files: 4 })
  expect(await reachable(client)).toBe(4)
})

test('what cannot be moved stops it before anything is made; a file key that does not open, before anything is deleted', async () => {
  await using client = await open()
  await giveKeyPair(client)
  const tree = await furnish(client)
  await client.remove(`${tree}/sub`, { recursive: true })
  const next = () => Promise.reject(new Error('not asked'))
  expect(await errorOf(client.keys.replace(next))).toMatchObject({ code: 'KEYS_STRANDED', class: 'safety' })
  expect((await client.keys.planReplacement()).unreached).toEqual({ folders: 1, bins: 0 })
  await client.trash.empty(`/room-${user}`)

  const headers = { 'Content-Type': 'application/json' }
  const [file] = await collect(encryptedFiles(client.api, { folders: 0, bins: 0 }))
  const broken = (times: number, after = 0) => {
    const body = JSON.stringify({
      version: 'RSA-4096/AES-256-GCM',
      key: randomBytes(512).toString('base64'),
      iv: randomBytes(12).toString('base64'),
      tag: randomBytes(16).toString('base64'),
    })
    world.server.faults.add({
      on: { method: 'GET', path: `files/${file!.id}/user_file_key$` },
      times,
      after,
      do: { status: 200, headers, body },
    })
  }
  broken(100)
  expect(await errorOf(client.keys.replace(asNext))).toMatchObject({
    code: 'KEYS_STRANDED',
    message: expect.stringContaining(file!.path),
  })
  world.server.faults.clear()
  expect([(await getKeyPairs(client.api)).length, kept().length]).toEqual([2, 1])
  expect((await client.keys.status()).unfinished).toMatchObject({ kind: 'pair' })
  expect(await errorOf(client.keys.changePassword(asNext))).toMatchObject({ code: 'KEY_CHANGE_UNFINISHED' })
  expect(await errorOf(client.keys.replace(async () => 'yet another pässword'))).toMatchObject({
    code: 'KEY_PASSWORD_WRONG',
    message: expect.stringContaining('has begun with'),
  })
  await client.keys.undoReplacement()
  expect([(await getKeyPairs(client.api)).length, kept(), await reachable(client)]).toEqual([1, [], 2])
  expect(await errorOf(client.keys.undoReplacement())).toMatchObject({ code: 'KEY_CHANGE_NONE' })

  broken(100)
  const done = await client.keys.replace(asNext, { leaveBehind: true })
  expect(done).toMatchObject({ files: 1, left: 1, leftFiles: [{ path: file!.path }] })
})

test('a server that does not keep keys for two pairs, and a wrong password: nothing is deleted', async () => {
  await using client = await open()
  await giveKeyPair(client)
  await furnish(client)
  expect(await errorOf(client.keys.replace(asNext, { current: async () => 'wrong' }))).toMatchObject({
    code: 'KEY_PASSWORD_WRONG',
  })
  world.server.faults.add({ on: { method: 'POST', path: 'files/keys$' }, times: 9, do: { status: 204 } })
  expect(await errorOf(client.keys.replace(asNext))).toMatchObject({ code: 'KEYS_NOT_TAKEN' })
  await client.keys.undoReplacement()
  expect(await reachable(client)).toBe(4)
  world.server.faults.clear()
  // Too late to take it back once the old pair is gone.
  world.server.faults.add({ on: { method: 'POST', path: 'keypairs$' }, do: { status: 403 } })
  expect(await errorOf(client.keys.replace(asNext))).toMatchObject({ code: 'FORBIDDEN' })
  expect(await errorOf(client.keys.undoReplacement())).toMatchObject({ code: 'KEY_CHANGE_UNFINISHED' })
  expect(await reachable(client)).toBe(4)
  expect(await client.keys.replace(asNext)).toMatchObject({ files: 4 })
})
