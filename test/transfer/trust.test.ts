/** Who gets file keys: new, changed, extra, swapped, readded, renewed and made-up keys, against the embedded server. @module */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { generateKeyPair, lockKeyPair, type UserKeyPair } from '../../crypto/index.ts'
import { getAccount } from '../../src/api/account.ts'
import { getFileKey, listMissingFileKeys } from '../../src/api/file-keys.ts'
import {
  createRoom,
  deleteNodes,
  encryptRoom,
  listChildren,
  putRoomMembers,
  removeRoomMembers,
} from '../../src/api/nodes.ts'
import { type Client, createClient } from '../../src/client.ts'
import { MemoryRecorder } from '../../src/server/recorder.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { RunEvent } from '../../src/sync/run.ts'
import { createDistributor, distributeFileKeys, type RefusedMember } from '../../src/transfer/distribute.ts'
import { listMembers } from '../../src/transfer/members.ts'
import { placePath } from '../../src/transfer/places.ts'
import { accountPassword, createWorld, giveKeyPair, KEY_PASSWORD, makeTree, type World } from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

const READ_ONLY = {
  manage: false,
  read: true,
  create: false,
  change: false,
  delete: false,
  manageDownloadShare: false,
  manageUploadShare: false,
  readRecycleBin: false,
  restoreRecycleBin: false,
  deleteRecycleBin: false,
}

const recorder = new MemoryRecorder()
let world: World
let pairs: UserKeyPair[]
const ids = new Map<string, number>()
beforeAll(async () => {
  ;[world, pairs] = await Promise.all([
    createWorld({ users: ['anna', 'bob', 'carl'], recorder }),
    Promise.all([generateKeyPair('A'), generateKeyPair('A'), generateKeyPair('A'), generateKeyPair('RSA-4096')]),
  ])
  for (const name of ['anna', 'bob', 'carl']) ids.set(name, (await getAccount((await world.client(name)).api)).id)
})
afterAll(() => world.close())

/** Pins of anna on one machine; fresh for each test. */
let machine: string
let events: RunEvent[]
let opened: Client[]
beforeEach(async () => {
  machine = mkdtempSync(join(world.base, 'machine-'))
  events = []
  opened = []
  await setKey('bob', 0)
  await setKey('carl', 2)
})
afterEach(async () => {
  world.server.faults.clear()
  for (const client of opened) await client.close()
})

async function open(name: string, more: Partial<Parameters<typeof createClient>[1]> = {}): Promise<Client> {
  const client = createClient(world.server.url, {
    authorizer: (origin) => passwordAuthorizer(origin, { userName: name, password: async () => accountPassword(name) }),
    keyPassword: async () => KEY_PASSWORD,
    onEvent: (event) => events.push(event),
    ...more,
  })
  opened.push(client)
  await client.session.login()
  return client
}
/** A run without anybody at a terminal. */
const unattended = () => open('anna', { directory: machine })
const attended = () => open('anna', { directory: machine, trustNewMembers: true })

/** Gives a member this key pair and no other. */
async function setKey(name: string, ...numbers: number[]): Promise<void> {
  const client = await world.client(name)
  for (const version of ['A', 'RSA-4096']) {
    const url = `${client.origin}/api/v4/user/account/keypair?version=${version}`
    await client.api.send({ method: 'DELETE', url })
  }
  for (const number of numbers) await giveKeyPair(client, pairs[number])
}

let count = 0
/** An encrypted room of anna's with these members. */
async function makeRoom(...members: string[]): Promise<string> {
  const { api } = await world.client()
  const room = await createRoom(api, `trust ${++count}`, ids.get('anna')!)
  await encryptRoom(api, room.id)
  for (const name of members)
    await putRoomMembers(api, room.id, 'users', [{ id: ids.get(name)!, permissions: READ_ONLY }])
  return `/${room.name}`
}
const roomId = async (room: string) => (await requireRemote((await world.client()).api, room)).node.id

async function upload(client: Client, room: string, name: string) {
  makeTree(world.path('up', String(++count)), { [name]: `content of ${name}` })
  const done = await client.upload([world.path('up', String(count), name)], room)
  expect(done).toMatchObject({ transferred: 1, failed: [] })
  return (done.pending ?? []).map(({ name, error }) => [name, error.class, error.code])
}
async function distribute(client: Client, room?: string) {
  const refused: RefusedMember[] = []
  const scope = room === undefined ? {} : { roomId: await roomId(room) }
  const done = await distributeFileKeys(client.api, client.keyring, { ...scope, onRefused: (one) => refused.push(one) })
  return { ...done, codes: refused.map(({ error }) => error.code) }
}
/** Members who can open the file. */
async function readers(path: string): Promise<string[]> {
  const able: string[] = []
  const { node } = await requireRemote((await world.client()).api, path)
  for (const name of ['bob', 'carl']) {
    const { api } = await world.client(name)
    const has = await getFileKey(api, node.id).then(
      () => true,
      () => false,
    )
    if (has) able.push(name)
  }
  return able
}
const fingerprintOf = (number: number) => pairs[number]!.publicKey.fingerprint
const label = (name: string) => `${name} (user ${ids.get(name)})`

/** The next answers about missing keys, changed. */
async function forge(room: string, change: (answer: Answer) => void): Promise<void> {
  const { api, origin } = await world.client()
  const url = `${origin}/api/v4/nodes/missingFileKeys?room_id=${await roomId(room)}&limit=100`
  const { body } = await api.send({ method: 'GET', url })
  const answer = JSON.parse(Buffer.from(body).toString('utf8')) as Answer
  change(answer)
  const headers = { 'Content-Type': 'application/json' }
  const empty = JSON.stringify({ ...answer, items: [], users: [], files: [] })
  const on = { path: '/missingFileKeys$' }
  world.server.faults.add({ on, do: { status: 200, headers, body: JSON.stringify(answer) } })
  world.server.faults.add({ on, times: 9, do: { status: 200, headers, body: empty } })
}
interface Answer {
  items: { userId: number; fileId: number }[]
  users: { id: number; publicKeyContainer: { version: string; publicKey: string } }[]
}
async function containerOf(number: number) {
  const { publicKeyContainer } = await lockKeyPair(pairs[number]!, KEY_PASSWORD)
  return publicKeyContainer
}

describe('members', () => {
  test('1 a new member gets nothing from a run that nobody watches, and everything once trusted', async () => {
    const room = await makeRoom('bob')
    const anna = await unattended()
    expect(await upload(anna, room, 'f')).toEqual([[label('bob'), 'changed', 'MEMBER_NEW']])
    expect(await readers(`${room}/f`)).toEqual([])
    const warning = events.find((event) => event.type === 'warning' && event.code === 'MEMBER_NEW')
    expect(warning).toMatchObject({ message: expect.stringContaining(fingerprintOf(0).slice(0, 4)) })

    const [bob] = await listMembers(anna.api, anna.keyring)
    expect(bob).toMatchObject({ userId: ids.get('bob'), name: 'bob' })
    await anna.keyring.pins.trust(bob!.userId, bob!.keys, false)
    const later = await unattended()
    expect(await distribute(later, room)).toEqual({ handedOut: 1, skipped: 0, codes: [] })
    const reader = await open('bob')
    expect(await reader.download([`${room}/f`], `${world.path('bob', room)}/`)).toMatchObject({
      transferred: 1,
      failed: [],
    })
    expect(await upload(later, room, 'g')).toEqual([])
    expect(await readers(`${room}/g`)).toEqual(['bob'])
  })

  test('2 with a person there the first key is pinned, and counts from then on', async () => {
    const room = await makeRoom('bob', 'carl')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    expect(events.filter((event) => event.type === 'key-pinned')).toMatchObject([
      { member: label('bob'), fingerprint: fingerprintOf(0) },
      { member: label('carl'), fingerprint: fingerprintOf(2) },
    ])
    expect(await upload(await unattended(), room, 'g')).toEqual([])
    expect(await readers(`${room}/g`)).toEqual(['bob', 'carl'])
    // Another machine knows nobody yet.
    machine = mkdtempSync(join(world.base, 'machine-'))
    expect((await upload(await unattended(), room, 'h')).map(([, , code]) => code)).toEqual([
      'MEMBER_NEW',
      'MEMBER_NEW',
    ])
  })

  test('3 a changed key stops hand-outs for that member only, with a person there as well', async () => {
    const room = await makeRoom('bob', 'carl')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    await setKey('bob', 1)
    for (const run of [await attended(), await unattended()]) {
      expect(await upload(run, room, `g${++count}`)).toEqual([[label('bob'), 'integrity', 'MEMBER_KEY_CHANGED']])
      expect(await readers(`${room}/g${count - 1}`)).toEqual(['carl'])
    }
  })

  test('4 the old key being back does not end the doubt', async () => {
    const room = await makeRoom('bob')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    await setKey('bob', 1)
    expect((await distribute(await attended(), room)).codes).toEqual(['MEMBER_KEY_CHANGED'])
    await setKey('bob', 0)
    const anna = await attended()
    expect((await distribute(anna, room)).codes).toEqual(['MEMBER_KEY_CHANGED'])
    await anna.keyring.pins.trust(ids.get('bob')!, [pairs[0]!.publicKey], true)
    expect(await distribute(anna, room)).toEqual({ handedOut: 1, skipped: 0, codes: [] })
  })

  test('5 an extra key of another version is a change', async () => {
    const room = await makeRoom('bob')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    await giveKeyPair(await world.client('bob'), pairs[3])
    expect(await distribute(await attended(), room)).toMatchObject({ handedOut: 0, codes: ['MEMBER_KEY_CHANGED'] })
    const { keys, doubts } = await (await unattended()).keyring.pins.read()
    expect(keys.find(({ userId }) => userId === ids.get('bob'))?.version).toBe('A')
    expect(doubts.map(({ version }) => version)).toEqual(['RSA-4096'])
  })

  test('6 a key that is swapped between looking and wrapping', async () => {
    const room = await makeRoom('bob')
    await upload(await unattended(), room, 'f')
    const anna = await unattended()
    const [bob] = await listMembers(anna.api, anna.keyring)
    await anna.keyring.pins.trust(bob!.userId, bob!.keys, true)
    const forged = await containerOf(1)
    await forge(room, ({ users }) => Object.assign(users[0]!, { publicKeyContainer: forged }))
    const sent = recorder.requests.filter(
      ({ method, path }) => method === 'POST' && path.endsWith('/files/keys'),
    ).length
    expect(await distribute(anna, room)).toEqual({ handedOut: 0, skipped: 1, codes: ['MEMBER_KEY_CHANGED'] })
    expect(
      recorder.requests.filter(({ method, path }) => method === 'POST' && path.endsWith('/files/keys')).length,
    ).toBe(sent)
  })

  test('7 two keys for one member in one answer are not first use', async () => {
    const room = await makeRoom('bob')
    await upload(await unattended(), room, 'f')
    const forged = await containerOf(1)
    await forge(room, ({ users }) => users.push({ id: ids.get('bob')!, publicKeyContainer: forged }))
    expect(await distribute(await attended(), room)).toMatchObject({ handedOut: 0, codes: ['MEMBER_KEY_CHANGED'] })
    expect(await readers(`${room}/f`)).toEqual([])
  })

  test('6b a key that is swapped within one run, after it was pinned', async () => {
    const room = await makeRoom('bob')
    await upload(await unattended(), room, 'f')
    const anna = await attended()
    const codes: string[] = []
    const distributor = createDistributor(anna.api, anna.keyring, { onRefused: ({ error }) => codes.push(error.code) })
    distributor.include(await roomId(room))
    await distributor.flush()
    expect(await readers(`${room}/f`)).toEqual(['bob'])
    await upload(await open('anna'), room, 'g')
    const forged = await containerOf(1)
    for (let round = 0; round < 2; round++) {
      await forge(room, ({ users }) => Object.assign(users[0]!, { publicKeyContainer: forged }))
      distributor.include(await roomId(room))
      await distributor.flush()
      world.server.faults.clear()
    }
    expect(await readers(`${room}/g`)).toEqual([])
    // Said, and said once.
    expect(codes).toEqual(['MEMBER_KEY_CHANGED'])
  })

  test('8 removed and added again: with the same key as before, and with another', async () => {
    const room = await makeRoom('bob')
    const { api } = await world.client()
    const id = await roomId(room)
    expect(await upload(await attended(), room, 'f')).toEqual([])
    const back = async () => {
      await removeRoomMembers(api, id, 'users', [ids.get('bob')!])
      expect(await upload(await unattended(), room, `while away ${++count}`)).toEqual([])
      await putRoomMembers(api, id, 'users', [{ id: ids.get('bob')!, permissions: READ_ONLY }])
    }
    await back()
    expect(await distribute(await unattended(), room)).toEqual({ handedOut: 1, skipped: 0, codes: [] })
    await back()
    await setKey('bob', 1)
    expect((await distribute(await attended(), room)).codes).toEqual(['MEMBER_KEY_CHANGED'])
  })

  test('9 a key pair that its owner has renewed: all files again, once somebody says so', async () => {
    const room = await makeRoom('bob')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    expect(await upload(await attended(), room, 'g')).toEqual([])
    await setKey('bob', 1)
    const anna = await unattended()
    expect(await distribute(anna, room)).toMatchObject({ handedOut: 0, skipped: 2 })
    const [bob] = await listMembers(anna.api, anna.keyring)
    expect(bob!.keys.map(({ fingerprint }) => fingerprint)).toEqual([fingerprintOf(1)])
    await anna.keyring.pins.trust(bob!.userId, bob!.keys, true)
    expect(await distribute(await unattended(), room)).toEqual({ handedOut: 2, skipped: 0, codes: [] })
  })

  test('10 damaged pins: nobody is new, one by one they come back, and the run goes on', async () => {
    const room = await makeRoom('bob', 'carl')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    const pins = join(machine, 'pins')
    const path = join(pins, readdirSync(pins).find((name) => name.endsWith('.pins'))!)
    const bytes = readFileSync(path)
    bytes[bytes.length - 30]! ^= 1
    writeFileSync(path, bytes)
    expect(await upload(await attended(), room, 'g')).toEqual([
      [label('bob'), 'safety', 'PINS_LOST'],
      [label('carl'), 'safety', 'PINS_LOST'],
    ])
    expect(events.some((event) => event.type === 'warning' && event.code === 'PINS_DAMAGED')).toBe(true)
    expect(readdirSync(pins).some((name) => name.includes('.corrupt-'))).toBe(true)
    const anna = await attended()
    await anna.keyring.pins.trust(ids.get('bob')!, [pairs[0]!.publicKey], false)
    expect((await distribute(anna, room)).codes).toEqual(['PINS_LOST'])
    expect(await readers(`${room}/g`)).toEqual(['bob'])
  })

  test('11 the same user id on another server is somebody else', async () => {
    const room = await makeRoom('bob')
    expect(await upload(await attended(), room, 'f')).toEqual([])
    const other = await createWorld({ users: ['anna', 'bob'], storage: 'classic' })
    try {
      const bob = await other.client('bob')
      expect((await getAccount(bob.api)).id).toBe(ids.get('bob'))
      await giveKeyPair(bob, pairs[0])
      const anna = createClient(other.server.url, {
        authorizer: (origin) =>
          passwordAuthorizer(origin, { userName: 'anna', password: async () => accountPassword('anna') }),
        keyPassword: async () => KEY_PASSWORD,
        directory: machine,
      })
      opened.push(anna)
      await anna.session.login()
      await putRoomMembers(anna.api, (await requireRemote(anna.api, '/room')).node.id, 'users', [
        { id: ids.get('bob')!, permissions: READ_ONLY },
      ])
      expect(await upload(anna, '/room', 'g')).toEqual([[label('bob'), 'changed', 'MEMBER_NEW']])
    } finally {
      await other.close()
    }
  })

  test('12 a key that the server makes up for this account itself', async () => {
    const room = await makeRoom('bob')
    await upload(await unattended(), room, 'f')
    const forged = await containerOf(1)
    const anna = ids.get('anna')!
    await forge(room, (answer) => {
      answer.items = answer.items.map(({ fileId }) => ({ userId: anna, fileId }))
      answer.users = [{ id: anna, publicKeyContainer: forged }]
    })
    expect(await distribute(await attended(), room)).toEqual({ handedOut: 0, skipped: 1, codes: ['OWN_KEY_CHANGED'] })
    const own = await containerOf(3)
    world.server.faults.clear()
    await forge(room, (answer) => {
      answer.items = answer.items.map(({ fileId }) => ({ userId: anna, fileId }))
      answer.users = [{ id: anna, publicKeyContainer: own }]
    })
    expect((await distribute(await attended(), room)).codes).toEqual(['OWN_KEY_CHANGED'])
  })

  test('a rescue key is called so, and never trusted at first sight', async () => {
    const { api, origin } = await world.client()
    const room = await createRoom(api, `rescue ${++count}`, ids.get('anna')!)
    const rescue = await lockKeyPair(pairs[1]!, KEY_PASSWORD)
    const body = Buffer.from(JSON.stringify({ isEncrypted: true, dataRoomRescueKey: rescue }))
    const url = `${origin}/api/v4/nodes/rooms/${room.id}/encrypt`
    const made = await api.send({ method: 'PUT', url, headers: { 'content-type': 'application/json' }, body })
    expect(made.status).toBe(200)
    const anna = await unattended()
    const id = 2 ** 52 + room.id
    const label = `rescue key (id:${id})`
    expect(await upload(anna, `/${room.name}`, 'f')).toEqual([[label, 'integrity', 'RESCUE_KEY_NEW']])
    const found = (await listMembers(anna.api, anna.keyring)).find(({ userId }) => userId === id)
    expect(found).toMatchObject({ isRescueKey: true })
    const at = await attended()
    expect(await distribute(at, `/${room.name}`)).toEqual({ handedOut: 0, skipped: 1, codes: ['RESCUE_KEY_NEW'] })
    expect((await distribute(at)).codes).toContain('RESCUE_KEY_NEW')
    expect((await at.keyring.pins.read()).keys.map(({ userId }) => userId)).not.toContain(id)
    await anna.keyring.pins.trust(id, found!.keys, true)
    expect(await distribute(anna, `/${room.name}`)).toEqual({ handedOut: 1, skipped: 0, codes: [] })
  })

  test('without a place for pins one run still notices, and trusts nobody by itself', async () => {
    const room = await makeRoom('bob')
    expect(await upload(await open('anna'), room, 'f')).toEqual([[label('bob'), 'changed', 'MEMBER_NEW']])
    const anna = await open('anna', { trustNewMembers: true })
    expect(await distribute(anna, room)).toMatchObject({ handedOut: 1 })
    await setKey('bob', 1)
    expect((await distribute(anna, room)).codes).toEqual(['MEMBER_KEY_CHANGED'])
  })

  test('many files and few members who may have them: every page is gone through', async () => {
    const room = await makeRoom('bob', 'carl')
    const anna = await unattended()
    await anna.keyring.pins.trust(ids.get('carl')!, [pairs[2]!.publicKey], false)
    const files = Object.fromEntries(Array.from({ length: 130 }, (_, i) => [`file ${i}`, `${i}`]))
    makeTree(world.path('many', String(++count)), files)
    const done = await anna.upload([world.path('many', String(count))], room, { contents: true })
    expect(done).toMatchObject({ transferred: 130, failed: [], pending: [{ name: label('bob') }] })
    const left = await listMissingFileKeys(anna.api, { roomId: await roomId(room), offset: 0 })
    expect(new Set(left.items.map(({ userId }) => userId))).toEqual(new Set([ids.get('bob')]))
    expect(left.range?.total).toBeGreaterThanOrEqual(100)
    const carl = await open('carl')
    expect(await carl.download([room], world.path('carl', String(count)))).toMatchObject({
      transferred: 130,
      failed: [],
    })
  })
})

describe('rooms', () => {
  /** The server says of all rooms that they are not encrypted. */
  async function downgrade(): Promise<void> {
    const { api, origin } = await world.client()
    const { body } = await api.send({ method: 'GET', url: `${origin}/api/v4/nodes?parent_id=0&limit=500` })
    const plain = Buffer.from(body).toString('utf8').replaceAll('"isEncrypted":true', '"isEncrypted":false')
    const headers = { 'Content-Type': 'application/json' }
    world.server.faults.add({ on: { path: '/v4/nodes$' }, times: 99, do: { status: 200, headers, body: plain } })
  }
  const uploadsSince = (from: number) =>
    recorder.requests.slice(from).filter(({ method, path }) => method !== 'GET' && !path.startsWith('/oauth'))

  test('one that was encrypted and is not any more: nothing is sent, nothing is fetched', async () => {
    const room = await makeRoom()
    expect(await upload(await unattended(), room, 'f')).toEqual([])
    await downgrade()
    const from = recorder.requests.length
    makeTree(world.path('plain'), { secret: 'secret content', 'sub/also': 'x' })
    for (const target of [room, `${room}/new folder`]) {
      for (const source of ['plain', 'plain/secret']) {
        const run = (await unattended()).upload([world.path(source)], target)
        const error = await run.then(
          (done) => done.stoppedBy,
          (thrown) => thrown,
        )
        expect(error).toMatchObject({ class: 'safety', code: 'ROOM_NOT_ENCRYPTED' })
      }
    }
    const out = (await unattended()).download([`${room}/f`], `${world.path('out of plain')}/`)
    expect(await errorOf(out)).toMatchObject({ class: 'safety', code: 'ROOM_NOT_ENCRYPTED' })
    expect(uploadsSince(from).map(({ method, path }) => `${method} ${path}`)).toEqual([])
  })

  test('seen once in a list is enough, and looking is still possible', async () => {
    const room = await makeRoom()
    const looker = await unattended()
    for await (const _node of listChildren(looker.api, 0)) void 0
    await looker.keyring.pins.close()
    await downgrade()
    const anna = await unattended()
    for await (const _node of listChildren(anna.api, 0)) void 0
    const { id } = (await requireRemote(anna.api, room)).node
    expect((await anna.keyring.pins.read()).encrypted.map((place) => place.id)).toContain(id)
    expect(await errorOf(listChildren(anna.api, id).next())).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
    // Once somebody says that it is meant to be so.
    await anna.keyring.pins.forgetPlace(id, placePath([room.slice(1)]))
    world.server.faults.clear()
    await downgrade()
    const after = await unattended()
    await requireRemote(after.api, room)
    await after.api.places!.enter(id)
  })

  test('one that somebody really has switched off, others go on', async () => {
    const [off, on] = [await makeRoom(), await makeRoom()]
    expect(await upload(await unattended(), on, 'f')).toEqual([])
    const anna = await unattended()
    expect(await upload(anna, off, 'f')).toEqual([])
    await deleteNodes(anna.api, [(await requireRemote(anna.api, `${off}/f`)).node.id])
    const id = await roomId(off)
    const { api, origin } = await world.client()
    const send = (method: 'DELETE' | 'PUT', path: string, body = '{}') =>
      api.send({
        method,
        url: `${origin}/api/v4/nodes/${path}`,
        headers: { 'content-type': 'application/json' },
        body: Buffer.from(body),
      })
    expect((await send('DELETE', `${id}/deleted_nodes`)).status).toBe(204)
    expect((await send('PUT', `rooms/${id}/encrypt`, '{"isEncrypted":false}')).status).toBe(200)
    makeTree(world.path('off'), { f: 'secret' })
    expect(await errorOf((await unattended()).upload([world.path('off')], off))).toMatchObject({
      code: 'ROOM_NOT_ENCRYPTED',
    })
    expect(await upload(await unattended(), on, 'g')).toEqual([])
    const after = await unattended()
    await after.keyring.pins.forgetPlace(id, placePath([off.slice(1)]))
    expect(await upload(after, off, 'plain now')).toEqual([])
  })
})
