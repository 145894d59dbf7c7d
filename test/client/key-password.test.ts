/** Another encryption password: the same key pair under a new lock, whatever the server does meanwhile. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { keyProtection, type Password, unlockKeyPair } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { createKeyPair, getKeyPairs, relockKeyPair } from '../../src/api/account.ts'
import type { Client, ClientOptions } from '../../src/client.ts'
import { createClient } from '../../src/client.ts'
import { addUser } from '../../src/server/index.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
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
let world: World
beforeAll(async () => {
  world = await createWorld({ keyPair: false })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

/** An account of its own for each test. */
let user: string
let directory: string
let count = 0
beforeEach(async () => {
  user = `user${++count}`
  directory = world.path(`kept-${user}`)
  await addUser(world.path('server'), { name: user, password: accountPassword(user) })
})

async function open(more: Partial<ClientOptions> = {}): Promise<Client> {
  const client = createClient(world.server.url, {
    authorizer: (origin) => passwordAuthorizer(origin, { userName: user, password: async () => accountPassword(user) }),
    keyPassword: async () => KEY_PASSWORD,
    directory,
    account: user,
    retryForMs: 0,
    ...more,
  })
  await client.session.login()
  return client
}
const asNext = async (): Promise<Password> => NEXT
const opens = async (client: Client, password: string) => {
  const pairs = await getKeyPairs(client.api)
  for (const pair of pairs) (await unlockKeyPair(pair, password)).wipe()
  return pairs.length
}
/** What is kept of an unfinished change. */
const kept = () => readdirSync(join(directory, 'key-pairs')).filter((name) => name.endsWith('.change'))
const cheap = () => ({ prf: 'SHA-1', iterations: 1_000, salt: randomBytes(20), iv: randomBytes(16) }) as const
const POST = { method: 'POST', path: '/v4/user/account/keypair$' }

test('the new password opens the same key pair, the old one does not; what was uploaded and pinned before stays', async () => {
  makeTree(world.path('before'), { a: 'sent before' })
  await using client = await open()
  await giveKeyPair(client)
  await makeRoom(client, `room-${user}`)
  await client.upload([world.path('before')], `/room-${user}`)
  const [old] = (await client.keys.status()).keyPairs
  expect(old).toMatchObject({ iterations: 1_000, current: false })
  const told: Password[] = []
  const changed = await client.keys.changePassword(async () => Buffer.from(NEXT), {
    onChanged: async (password) => void told.push(Buffer.from(password).toString()),
  })
  const { fingerprint, version } = old!
  expect(changed.keyPairs).toEqual([{ version, fingerprint, iterations: 1_300_000, formerIterations: 1_000 }])
  expect([told, kept()]).toEqual([[NEXT], []])
  expect(await opens(client, NEXT)).toBe(1)
  expect(await errorOf(opens(client, KEY_PASSWORD))).toMatchObject({ code: 'KEY_PASSWORD_WRONG' })

  // The same client goes on, and a later one uploads without any password.
  makeTree(world.path('after'), { b: 'sent after' })
  expect((await client.download([`/room-${user}/before`], world.path('down'))).failed).toEqual([])
  await using later = await open({ keyPassword: () => Promise.reject(new Error('nobody to ask')) })
  expect((await later.upload([world.path('after')], `/room-${user}`)).failed).toEqual([])
  await using reader = await open({ keyPassword: asNext })
  expect((await reader.download([`/room-${user}`], world.path('all'))).failed).toEqual([])
  expect(readFileSync(world.path('all', `room-${user}`, 'after', 'b'), 'utf8')).toBe('sent after')
})

test('a wrong password is told before the new one is asked for; rules of the server hold; without a key pair there is nothing to do', async () => {
  await using client = await open({ keyPassword: async () => 'wrong' })
  expect(await errorOf(client.keys.changePassword(asNext))).toMatchObject({ code: 'NO_KEY_PAIR' })
  await giveKeyPair(client)
  const asked: string[] = []
  const next = async () => {
    asked.push('new')
    return NEXT
  }
  expect(await errorOf(client.keys.changePassword(next))).toMatchObject({ code: 'KEY_PASSWORD_WRONG' })
  expect(asked).toEqual([])
  const rules = JSON.stringify({ encryptionPasswordPolicies: { minLength: 99 } })
  const headers = { 'Content-Type': 'application/json' }
  world.server.faults.add({ on: { path: 'policies/passwords$' }, do: { status: 200, headers, body: rules } })
  const current = async () => KEY_PASSWORD
  expect(await errorOf(client.keys.changePassword(next, { current }))).toMatchObject({ code: 'PASSWORD_REFUSED' })
  expect(await opens(client, KEY_PASSWORD)).toBe(1)
})

test('both versions of a key pair are locked again', async () => {
  await using client = await open()
  await giveKeyPair(client)
  await createKeyPair(client.api, await lockWith(await unlockFixture('A'), KEY_PASSWORD, cheap()))
  expect((await client.keys.changePassword(asNext)).keyPairs.map(({ version }) => version).sort()).toEqual([
    'A',
    'RSA-4096',
  ])
  expect(await opens(client, NEXT)).toBe(2)
})

test('a server that replaces no lock is told, and nothing has changed', async () => {
  await using client = await open()
  await giveKeyPair(client)
  const [before] = await getKeyPairs(client.api)
  const headers = { 'Content-Type': 'application/json' }
  const body = JSON.stringify({ code: 409, errorCode: -70021, message: 'exists' })
  for (const answer of [{ status: 409, headers, body }, { status: 400 }]) {
    world.server.faults.add({ on: POST, do: answer })
    const error = await errorOf(client.keys.changePassword(asNext))
    expect(error).toMatchObject({ code: 'KEY_LOCK_KEPT', hint: expect.stringContaining('keys replace') })
    expect([await getKeyPairs(client.api), kept()]).toEqual([[before], []])
  }
})

test('a lost answer is none: what lies there counts', async () => {
  await using client = await open()
  await giveKeyPair(client)
  world.server.faults.add({ on: POST, do: { loseAnswer: true } })
  await client.keys.changePassword(asNext)
  expect([await opens(client, NEXT), kept()]).toEqual([1, []])
})

test('interrupted before and after the server has the new lock, the same call completes it', async () => {
  await using client = await open()
  await giveKeyPair(client)
  world.server.faults.add({ on: POST, do: { cutRequestAfterBytes: 10 } })
  expect(await errorOf(client.keys.changePassword(asNext))).toMatchObject({ class: 'network' })
  expect([await opens(client, KEY_PASSWORD), kept().length]).toEqual([1, 1])
  const noFollow = () => Promise.reject(new Error('killed here'))
  expect(await errorOf(client.keys.changePassword(asNext, { onChanged: noFollow }))).toMatchObject({
    message: 'killed here',
  })
  expect([await opens(client, NEXT), kept().length]).toEqual([1, 1])
  await using again = await open()
  const { keyPairs } = await again.keys.changePassword(asNext)
  expect(keyPairs).toMatchObject([{ iterations: 1_300_000, formerIterations: 1_000 }])
  expect([await opens(client, NEXT), kept()]).toEqual([1, []])
})

test('a lock at the server that does not open is replaced from what is kept', async () => {
  await using client = await open()
  const pair = await giveKeyPair(client)
  world.server.faults.add({ on: POST, do: { cutRequestAfterBytes: 10 } })
  await errorOf(client.keys.changePassword(asNext))
  const [there] = await getKeyPairs(client.api)
  await relockKeyPair(client.api, await lockWith(pair, 'nobody knows it', cheap()), there!.privateKeyContainer)
  await client.keys.changePassword(asNext)
  expect(await opens(client, NEXT)).toBe(1)
})

test('a lock that somebody else has put there meanwhile stays', async () => {
  await using client = await open()
  const pair = await giveKeyPair(client)
  const [there] = await getKeyPairs(client.api)
  const meanwhile = async () => {
    await relockKeyPair(client.api, await lockWith(pair, 'theirs', cheap()), there!.privateKeyContainer)
    return NEXT
  }
  expect(await errorOf(client.keys.changePassword(meanwhile))).toMatchObject({ code: 'KEY_LOCK_CHANGED' })
  expect(await opens(client, 'theirs')).toBe(1)
})

test('one at a time; what is kept and damaged stops it', async () => {
  await using client = await open()
  await giveKeyPair(client)
  const second = async () => {
    expect(await errorOf(client.keys.changePassword(asNext))).toMatchObject({ code: 'LOCKED' })
    return NEXT
  }
  world.server.faults.add({ on: POST, do: { cutRequestAfterBytes: 10 } })
  await errorOf(client.keys.changePassword(second))
  const [name] = kept()
  mkdirSync(join(directory, 'key-pairs'), { recursive: true })
  writeFileSync(join(directory, 'key-pairs', name!), 'damaged', { mode: 0o600 })
  expect(await errorOf(client.keys.changePassword(asNext))).toMatchObject({ code: 'KEY_CHANGE_DAMAGED' })
  expect(keyProtection((await getKeyPairs(client.api))[0]!).iterations).toBe(1_000)
})
