/** Rescue keys by the library: made, kept, opened, renewed, revoked; whatever is wrong with paper, container or server. @module */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { toPem } from '../../crypto/bytes.ts'
import type { PublicKeyContainer } from '../../crypto/containers.ts'
import { importPublicKey } from '../../crypto/index.ts'
import { getKeyPairs } from '../../src/api/account.ts'
import type { RescueCreated } from '../../src/client/index.ts'
import { renewRescueContainers } from '../../src/client/rescue.ts'
import type { Client } from '../../src/client.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWorld, giveKeyPair, KEY_PASSWORD, makeRoom, user1, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
let anna: Client
let bob: Client
let directory: string
const textsOf = ({ papers }: Pick<RescueCreated, 'papers'>) => papers.map((paper) => paper.lines().join('\n'))
const secretOf = (made: Pick<RescueCreated, 'papers'>) => anna.rescue.read(textsOf(made))

beforeAll(async () => {
  world = await createWorld({ users: [user1, 'bob'] })
  const bare = await world.client()
  await makeRoom(bare, 'plain', false)
  await makeRoom(bare, 'gone', false)
  for (const name of ['a', 'b', 'c']) await bare.put(`/room/${name}`, Buffer.from(`content of ${name}`))
  bob = await world.openClient({ directory: mkdtempSync(join(world.base, 'bob-')) }, 'bob')
  await giveKeyPair(bob)
})
afterAll(async () => {
  await bob.close()
  await world.close()
})
beforeEach(async (context) => {
  directory = mkdtempSync(join(world.base, 'machine-'))
  const client = await world.openClient({ directory, confirm: async () => true })
  anna = client
  context.onTestFinished(async () => {
    world.server.faults.clear()
    await client.close()
  })
})

/** A client of a new machine that does not know the encryption password. */
async function otherMachine(user = user1): Promise<Client> {
  const keyPassword = () => Promise.reject(new Error('the encryption password was asked for'))
  return world.openClient({ directory: mkdtempSync(join(world.base, 'other-')), keyPassword }, user)
}

const container = (...names: string[]) => join(directory, ...names)

/** A public key that passes for one: the same, with another byte in its modulus. */
async function anotherKey({ version, publicKey }: PublicKeyContainer): Promise<PublicKeyContainer> {
  const der = Buffer.from(publicKey.replace(/-----[^-]+-----|\s/g, ''), 'base64')
  for (let byte = 0; byte < 4096; byte++) {
    der.writeUInt16BE(byte, 100)
    const made = { version, publicKey: toPem(der, 'PUBLIC KEY') }
    const isKey = await importPublicKey(made).then(
      () => true,
      () => false,
    )
    if (isKey && made.publicKey !== publicKey) return made
  }
  throw new Error('no other key')
}

describe('making one', () => {
  test('leaves a private container here and one at the server, both proven, and no secret', async () => {
    const made = await anna.rescue.create({ file: container('stick.json'), store: '/plain' })
    expect(made).toMatchObject({
      server: anna.origin,
      user: user1,
      keyId: expect.stringMatching(/^[0-9a-f]{16}$/),
      keyPairs: [{ version: 'RSA-4096' }],
      places: [
        { kind: 'file', path: container('stick.json') },
        { kind: 'server', path: `/plain/sealsync-rescue-${made.keyId}.json` },
      ],
    })
    expect(statSync(container('stick.json')).mode & 0o777).toBe(0o600)
    const there = await (await anna.get(made.places[1]!.path)).bytes()
    expect(Buffer.from(there)).toEqual(readFileSync(container('stick.json')))
    const lines = made.papers[0]!.lines()
    expect(made.papers).toHaveLength(1)
    expect(lines).toHaveLength(5)
    // Whoever prints what was made prints no secret.
    for (const said of [
      JSON.stringify(made),
      inspect(made, { depth: 9 }),
      there.toString(),
      readFileSync(container('stick.json'), 'utf8'),
    ]) {
      for (const line of lines) for (const group of line.split(' ').slice(0, 3)) expect(said).not.toContain(group)
    }
    const known = await anna.rescue.list()
    expect(known.own).toEqual([{ keyId: made.keyId, createdAt: made.createdAt, places: made.places }])
    for (const name of readdirSync(join(directory, 'rescue-keys'))) {
      expect(statSync(join(directory, 'rescue-keys', name)).mode & 0o777).toBe(0o600)
    }
  })

  test('asks for a place, and takes none that is there, is encrypted, or cannot be written', async () => {
    mkdirSync(container('stick'))
    writeFileSync(container('there'), 'mine')
    for (const [options, code] of [
      [{}, 'RESCUE_PLACE_NEEDED'],
      [{ store: '/room' }, 'RESCUE_STORE_ENCRYPTED'],
      [{ store: '/room/new/x.json' }, 'RESCUE_STORE_ENCRYPTED'],
      [{ store: '/none/x.json' }, 'REMOTE_MISSING'],
      [{ file: container('there') }, 'EXISTS'],
      [{ file: container('none', 'x.json') }, 'LOCAL_ENOENT'],
      [{ file: container('stick'), shares: { needed: 1, of: 3 } }, 'RESCUE_SHARES_INVALID'],
    ] as const) {
      expect(await errorOf(anna.rescue.create(options)), code).toMatchObject({ code })
    }
    expect(readFileSync(container('there'), 'utf8')).toBe('mine')
    expect(readdirSync(container('stick'))).toEqual([])
    expect((await anna.rescue.list()).own).toEqual([])
  })

  test('leaves nothing behind when one of the places fails in the end', async () => {
    mkdirSync(container('stick'))
    const fault = { on: { path: '/uploads' }, times: 99, do: { status: 507 } }
    world.server.faults.add(fault)
    expect(await errorOf(anna.rescue.create({ file: container('stick'), store: '/plain/x.json' }))).toMatchObject({
      class: 'quota',
    })
    expect(readdirSync(container('stick'))).toEqual([])
    expect((await anna.rescue.list()).own).toEqual([])
  })
})

describe('opening with one', () => {
  test('sets a new password on another machine, which needs the old one never', async () => {
    const made = await bob.rescue.create({ file: container('bob.json') })
    const machine = await otherMachine('bob')
    const [before] = await getKeyPairs(bob.api)
    const restored = await machine.rescue.restore(
      await machine.rescue.read(textsOf(made)),
      async () => 'Quite another one 17!',
      { file: container('bob.json') },
    )
    expect(restored).toMatchObject({ keyId: made.keyId, keyPairs: made.keyPairs })
    const [after] = await getKeyPairs(bob.api)
    expect(after!.publicKeyContainer).toEqual(before!.publicKeyContainer)
    expect(after!.privateKeyContainer).not.toEqual(before!.privateKeyContainer)
    await machine.keys.tryPassword('Quite another one 17!')
    expect(await errorOf(machine.keys.tryPassword(KEY_PASSWORD))).toMatchObject({ code: 'KEY_PASSWORD_WRONG' })
    // The paper stays valid, and a key pair that the server has lost comes back.
    await machine.api.send({ method: 'DELETE', url: `${bob.origin}/api/v4/user/account/keypair?version=RSA-4096` })
    await machine.rescue.restore(await machine.rescue.read(textsOf(made)), async () => KEY_PASSWORD, {
      file: container('bob.json'),
    })
    await bob.keys.tryPassword(KEY_PASSWORD)
    await machine.close()
  })

  test('takes k shares from the server alone, no fewer, and none of another set', async () => {
    const made = await anna.rescue.create({ store: '/plain', shares: { needed: 2, of: 3 } })
    const other = await anna.rescue.create({ store: '/plain', shares: { needed: 2, of: 3 } })
    expect(made.papers.map(({ share }) => share)).toEqual(
      [1, 2, 3].map((number) => ({ needed: 2, of: 3, number, set: made.papers[0]!.share!.set })),
    )
    const [texts, others] = [textsOf(made), textsOf(other)]
    const machine = await otherMachine()
    expect(await errorOf(machine.rescue.read([texts[0]!]))).toMatchObject({ code: 'RESCUE_SHARES_FEW' })
    expect(await errorOf(machine.rescue.read([texts[0]!, texts[0]!]))).toMatchObject({ code: 'RESCUE_SHARES_FEW' })
    expect(await errorOf(machine.rescue.read([texts[0]!, others[1]!]))).toMatchObject({ code: 'RESCUE_SHARES_MIXED' })
    const secret = await machine.rescue.read([texts[2]!, texts[0]!])
    const { report } = await machine.rescue.drill(secret, { store: made.places[0]!.path })
    expect(report).toMatchObject({ isRight: true, sampled: 3, container: made.places[0]!.path, failed: [] })
    await machine.close()
  })

  test('says what is wrong with paper and container', async () => {
    const made = await anna.rescue.create({ file: container('good.json') })
    const secret = await secretOf(made)
    const other = await anna.rescue.create({ file: container('other.json') })
    const ofBob = await bob.rescue.create({ file: container('bob.json') })
    const good = JSON.parse(readFileSync(container('good.json'), 'utf8'))
    const write = (name: string, content: unknown) => {
      writeFileSync(container(name), typeof content === 'string' ? content : JSON.stringify(content))
      return { file: container(name) }
    }
    const flipped = (text: string, at: number) =>
      `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`
    const [key] = good.keys
    const fails = async (how: { file?: string; store?: string }, given = secret) => {
      const before = await getKeyPairs(anna.api)
      const error = await errorOf(anna.rescue.restore(given, () => Promise.reject(new Error('asked')), how))
      expect(await getKeyPairs(anna.api)).toEqual(before)
      return `${error.class} ${error.code}`
    }
    expect(await fails(write('a', { ...good, keys: [{ ...key, sealed: flipped(key.sealed, 700) }] }))).toBe(
      'integrity RESCUE_CONTAINER_TAMPERED',
    )
    for (const change of [
      { server: 'https://other.example' },
      { userId: good.userId + 1 },
      { user: 'eve' },
      { createdAt: '2020-01-01T00:00:00.000Z' },
      { keys: [{ ...key, fingerprint: '0'.repeat(64) }] },
      { keys: [{ ...key, version: 'A' }] },
      { keys: [{ ...key, enc: flipped(key.enc, 5) }] },
    ]) {
      expect(await fails(write('b', { ...good, ...change })), JSON.stringify(change)).toBe(
        'integrity RESCUE_CONTAINER_TAMPERED',
      )
    }
    for (const content of [
      '',
      'no JSON',
      'null',
      '[]',
      readFileSync(container('good.json')).subarray(0, 900).toString(),
      { ...good, version: 2 },
      { ...good, keys: [] },
      { ...good, keys: [key, key] },
      { ...good, keys: [{ ...key, sealed: '*' }] },
      { ...good, pad: 'x'.repeat(70_000) },
    ]) {
      expect(await fails(write('c', content))).toBe('integrity RESCUE_CONTAINER_INVALID')
    }
    expect(await fails({ file: container('other.json') })).toBe('key RESCUE_KEY_OTHER')
    expect(await fails({ file: container('bob.json') }, await secretOf(ofBob))).toBe('key RESCUE_CONTAINER_OTHER')
    expect(await fails({ file: container('none.json') })).toBe('local_io LOCAL_ENOENT')
    expect(await fails({ store: '/plain/none.json' })).toBe('not_found REMOTE_MISSING')
    const machine = await otherMachine()
    expect(await errorOf(machine.rescue.drill(secret))).toMatchObject({ code: 'RESCUE_PLACE_NEEDED' })
    await machine.close()
    // What this machine has put somewhere needs no name.
    expect((await anna.rescue.drill(await secretOf(other), { files: 1 })).report).toMatchObject({ isRight: true })
  })

  test('stops when the server shows another key pair for the account', async () => {
    const made = await anna.rescue.create({ file: container('x.json') })
    const own = await getKeyPairs(anna.api)
    const other = JSON.stringify([{ ...own[0], publicKeyContainer: await anotherKey(own[0]!.publicKeyContainer) }])
    const headers = { 'Content-Type': 'application/json' }
    world.server.faults.add({ on: { path: '/keypairs$' }, times: 9, do: { status: 200, headers, body: other } })
    const error = await errorOf(anna.rescue.restore(await secretOf(made), async () => 'New password 17!'))
    expect(error).toMatchObject({ class: 'integrity', code: 'RESCUE_FINGERPRINT_DIFFERS' })
  })
})

describe('afterwards', () => {
  test('a new key pair is sealed in place, without the paper', async () => {
    const made = await anna.rescue.create({ file: container('x.json'), store: '/plain/renewed.json' })
    const old = readFileSync(container('x.json'), 'utf8')
    const pair = await unlockFixture('A')
    const renewed = await renewRescueContainers(anna.context, pair, {})
    expect(renewed).toEqual(made.places.map((place) => ({ keyId: made.keyId, ...place })))
    const now = readFileSync(container('x.json'), 'utf8')
    expect(now).not.toBe(old)
    expect(Buffer.from(await (await anna.get('/plain/renewed.json')).bytes()).toString()).toBe(now)
    expect(JSON.parse(now).keys).toMatchObject([{ version: 'A', fingerprint: pair.publicKey.fingerprint }])
    expect(statSync(container('x.json')).mode & 0o777).toBe(0o600)
    pair.wipe()
  })

  test('a place that is gone is told, and damaged knowledge stops', async () => {
    const made = await anna.rescue.create({ file: container('x.json'), store: '/gone/x.json' })
    await anna.rooms.remove('/gone')
    const pair = await unlockFixture('A')
    const renewed = await renewRescueContainers(anna.context, pair, {})
    expect(renewed).toEqual([
      { keyId: made.keyId, ...made.places[0] },
      { keyId: made.keyId, ...made.places[1], error: expect.objectContaining({ code: 'REMOTE_MISSING' }) },
    ])
    const [name] = readdirSync(join(directory, 'rescue-keys'))
    const path = join(directory, 'rescue-keys', name!)
    writeFileSync(path, readFileSync(path, 'utf8').replace(made.keyId, '0'.repeat(16)), { mode: 0o600 })
    expect(await errorOf(renewRescueContainers(anna.context, pair, {}))).toMatchObject({ code: 'RESCUE_KEYS_DAMAGED' })
    pair.wipe()
  })

  test('one that is revoked leaves no container', async () => {
    const made = await anna.rescue.create({ file: container('x.json'), store: '/plain/revoked.json' })
    const secret = await secretOf(made)
    expect((await anna.rescue.revoke(made.keyId)).places).toEqual(made.places)
    expect(readdirSync(directory)).not.toContain('x.json')
    expect(await errorOf(anna.get('/plain/revoked.json'))).toMatchObject({ code: 'REMOTE_MISSING' })
    expect((await anna.rescue.list()).own).toEqual([])
    expect(await errorOf(anna.rescue.drill(secret))).toMatchObject({ code: 'RESCUE_PLACE_NEEDED' })
    expect(await errorOf(anna.rescue.revoke(made.keyId))).toMatchObject({ code: 'RESCUE_KEY_UNKNOWN' })
  })
})

test('a drill opens files by the rescue key alone, and says which do not open', async () => {
  const made = await anna.rescue.create({ file: container('x.json') })
  const secret = await secretOf(made)
  const machine = await otherMachine()
  const open = (files?: number) => machine.rescue.drill(secret, { file: container('x.json'), files })
  expect((await open()).report).toMatchObject({
    format: 'sealsync-rescue-drill',
    user: user1,
    key: made.keyId,
    sampled: 3,
    bytes: 36,
    isRight: true,
  })
  expect((await open(2)).report).toMatchObject({ sampled: 2, bytes: 24 })
  // Content that the server has changed.
  world.server.faults.add({
    on: { method: 'GET', path: '^/s3/|^/api/v4/downloads/' },
    times: 99,
    do: { flipByteAt: 3 },
  })
  const { report, failed } = await open()
  expect(report).toMatchObject({ isRight: false, sampled: 3, bytes: 0 })
  expect(failed.map(({ error }) => error.class)).toEqual(['integrity', 'integrity', 'integrity'])
  await machine.close()
})
