/** An upload does without the encryption password where the own key pair has been unlocked before, and only there. */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { generateKeyPair, type KeyPairContainer, SyncError } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { getKeyPairs } from '../../src/api/account.ts'
import type { ClientOptions } from '../../src/client.ts'
import { systemClock } from '../../src/environment.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWorld, KEY_PASSWORD, makeRoom, makeTree, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
/** A key pair of somebody else. */
let foreign: KeyPairContainer
beforeAll(async () => {
  world = await createWorld()
  const protection = { prf: 'SHA-1', iterations: 1_000, salt: randomBytes(20), iv: randomBytes(16) } as const
  foreign = await lockWith(await generateKeyPair('RSA-4096'), 'their password', protection)
})
afterAll(() => world.close())

/** A machine that knows nothing, and a room, for each test. */
let room: string
let directory: string
let asked: number
let tests = 0
beforeEach(async () => {
  room = `room${++tests}`
  await makeRoom(await world.client(), room)
  directory = world.path(`kept${tests}`)
  asked = 0
})
afterEach(() => world.server.faults.clear())

/** A client of a later process; it counts how often the encryption password is asked for. */
const open = (more: Partial<ClientOptions> = {}) =>
  world.openClient({
    directory,
    account: 'anna',
    keyPassword: async () => {
      asked++
      return KEY_PASSWORD
    },
    ...more,
  })

/** Sends one file in a process of its own; returns how often the password was asked for. */
async function send(name: string, more: Partial<ClientOptions> = {}): Promise<number> {
  const before = asked
  makeTree(world.path(`src-${room}`), { [name]: `content of ${name}` })
  await using client = await open(more)
  const { failed, stoppedBy } = await client.upload([world.path(`src-${room}`, name)], `/${room}`)
  if (stoppedBy !== undefined) throw stoppedBy
  expect(failed).toEqual([])
  return asked - before
}

/** What the server answers when it is asked for the key pairs. */
function show(pairs: readonly KeyPairContainer[]): void {
  world.server.faults.add({
    on: { method: 'GET', path: '/account/keypairs$' },
    times: 99,
    do: { status: 200, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(pairs) },
  })
}

const shown = async () => {
  const [pair] = await getKeyPairs((await world.client()).api)
  return pair!
}

test('once it was unlocked, an upload asks for no password, and what it stores opens', async () => {
  expect(await send('a')).toBe(1)
  expect(await send('b')).toBe(0)
  await using client = await open()
  const { stoppedBy } = await client.download([`/${room}/a`, `/${room}/b`], `${world.path(`back-${room}`)}/`)
  expect(stoppedBy).toBeUndefined()
  expect(readFileSync(world.path(`back-${room}`, 'b'), 'utf8')).toBe('content of b')
  const entry = await client.put(`/${room}/c`, Buffer.from('put'))
  expect(entry.bytes).toBe(3)
})

test('a download proves it as well', async () => {
  await (await world.client()).put(`/${room}/there`, Buffer.from('there'))
  {
    await using client = await open()
    await client.download([`/${room}/there`], `${world.path(`back-${room}`)}/`)
  }
  expect(asked).toBe(1)
  expect(await send('a')).toBe(0)
})

test('another public key is not wrapped for: it is unlocked, and refused', async () => {
  await send('a')
  const { privateKeyContainer } = await shown()
  const { version, publicKey } = foreign.publicKeyContainer
  show([{ privateKeyContainer, publicKeyContainer: { version, publicKey } }])
  const changed = { code: 'OWN_KEY_CHANGED', class: 'integrity' }
  expect(await errorOf(send('b'))).toMatchObject(changed)
  expect(asked).toBe(2)
  // Also where nobody has a password to give: it is not as if one was missing.
  const keyPassword = async () => {
    throw new SyncError('key', 'PASSWORD_NEEDED', 'nobody is here')
  }
  expect(await errorOf(send('b', { keyPassword }))).toMatchObject(changed)
  expect((await world.list(`/${room}`)).map(({ name }) => name)).toEqual(['a'])
})

test('a whole key pair of somebody else is not taken either', async () => {
  await send('a')
  show([foreign])
  expect(await errorOf(send('b'))).toMatchObject({ code: 'OWN_KEY_CHANGED', class: 'integrity' })
  expect(asked).toBe(2)
})

test('a locked key pair that is not the one that was opened is opened again', async () => {
  await send('a')
  const pair = await unlockFixture('RSA-4096')
  const protection = { prf: 'SHA-1', iterations: 1_001, salt: randomBytes(20), iv: randomBytes(16) } as const
  show([await lockWith(pair, KEY_PASSWORD, protection)])
  expect(await send('b')).toBe(1)
  expect(await send('c')).toBe(0)
  show([await lockWith(pair, 'another password', { ...protection, salt: randomBytes(20) })])
  world.server.faults.clear()
  expect(await send('d')).toBe(1)
})

test('what was proven of one login is nothing for another', async () => {
  await send('a')
  expect(await send('b', { account: 'somebody else' })).toBe(1)
  expect(await send('c', { account: 'somebody else' })).toBe(0)
  expect(await send('d')).toBe(0)
})

test('a key that was only trusted, as that of a member is, proves nothing', async () => {
  {
    await using client = await open()
    const key = await client.keyring.importKey((await shown()).publicKeyContainer)
    await client.keyring.pins.trust(await client.keyring.userId(), [key], true)
  }
  expect(await send('a')).toBe(1)
})

test('after 30 days, and when a clock was set back, it is proven again', async () => {
  const at = (days: number) => ({
    environment: { clock: { ...systemClock, now: () => Date.now() + days * 86_400_000 } },
  })
  await send('a')
  expect(await send('b', at(29))).toBe(0)
  expect(await send('c', at(31))).toBe(1)
  expect(await send('d')).toBe(1)
})

test('it is proven again after the pins were damaged or removed, and where there are none', async () => {
  await send('a')
  const pins = join(directory, 'pins')
  const [name] = readdirSync(pins).filter((one) => one.endsWith('.pins'))
  const bytes = readFileSync(join(pins, name!))
  expect(statSync(join(pins, name!)).mode & 0o777).toBe(0o600)
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(join(pins, name!), bytes)
  expect(await send('b')).toBe(1)
  expect(await send('c')).toBe(0)
  rmSync(pins, { recursive: true })
  expect(await send('d')).toBe(1)
  const withoutDirectory = async () => {
    await using client = await world.openClient({
      keyPassword: async () => {
        asked++
        return KEY_PASSWORD
      },
    })
    const before = asked
    await client.put(`/${room}/e`, Buffer.from('e'))
    return asked - before
  }
  expect(await withoutDirectory()).toBe(1)
})

test('without a password an upload works, and says so where one is needed', async () => {
  const missing = {
    keyPassword: async () => {
      throw new SyncError('key', 'PASSWORD_NEEDED', 'there is none')
    },
  }
  expect(await errorOf(send('a', missing))).toMatchObject({ code: 'PASSWORD_NEEDED' })
  await send('a')
  await send('b', missing)
  await using client = await open(missing)
  const { failed, stoppedBy } = await client.download([`/${room}/b`], `${world.path(`back-${room}`)}/`)
  expect(stoppedBy?.code ?? failed[0]?.error.code).toBe('PASSWORD_NEEDED')
})

test('keys of what was sent while it was locked are known once it is unlocked', async () => {
  await send('a')
  for (const name of ['b', 'c']) expect(await send(name)).toBe(0)
  const kept = () => readdirSync(join(directory, 'file-keys')).map((name) => name.replace(/.*\./, ''))
  expect(kept().sort()).toEqual(['keys', 'locked', 'locked'])
  for (const name of readdirSync(join(directory, 'file-keys'))) {
    expect(statSync(join(directory, 'file-keys', name)).mode & 0o777).toBe(0o600)
  }
  // No key of theirs is asked for.
  const before = world.server.faults.hits.length
  world.server.faults.add({ on: { path: '/user_file_key$' }, times: 99, do: { delayMs: 0 } })
  {
    await using client = await open()
    await client.download([`/${room}/b`, `/${room}/c`], `${world.path(`back-${room}`)}/`)
  }
  expect(world.server.faults.hits.length).toBe(before)
  expect(readFileSync(world.path(`back-${room}`, 'c'), 'utf8')).toBe('content of c')
  expect(kept()).toEqual(['keys'])
})
