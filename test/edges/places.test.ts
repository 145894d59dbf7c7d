/**
 * No plaintext goes to a place that was ever encrypted, and none comes from it, whatever the server calls the place now; and to
 * other places it goes only where somebody has agreed to that.
 * @module
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { getAccount } from '../../src/api/account.ts'
import { createFolder, createRoom, deleteNode, encryptRoom, listChildren } from '../../src/api/nodes.ts'
import { type Client, type ClientOptions, createClient } from '../../src/client.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { openFileKey } from '../../src/transfer/content.ts'
import { placePath } from '../../src/transfer/places.ts'
import { accountPassword, createWorld, KEY_PASSWORD, type World } from '../support/cli.ts'
import { type Json, type Liar, startLiar } from '../support/liar.ts'
import { errorOf } from '../support/servers.ts'

const CANARY = 'CANARY-PLAINTEXT'
let world: World
let liar: Liar
let room: { readonly id: number; readonly name: string }
let directory: string
const clients: Client[] = []

beforeAll(async () => {
  world = await createWorld({ users: ['anna'] })
  liar = await startLiar(world.server.url)
  const { api } = await world.client()
  const made = await createRoom(api, 'Secret', (await getAccount(api)).id)
  room = await encryptRoom(api, made.id)
  await createFolder(api, room.id, 'sub')
  await createRoom(api, 'open', (await getAccount(api)).id)
})
afterAll(async () => {
  await liar.close()
  await world.close()
})
beforeEach(() => {
  directory = mkdtempSync(join(world.base, 'places-'))
})
afterEach(async () => {
  liar.honest()
  for (const client of clients.splice(0)) await client.close()
})

/** The next process of the same machine. */
async function open(more: Partial<ClientOptions> = {}): Promise<Client> {
  const client = createClient(liar.origin, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: 'anna', password: async () => accountPassword('anna') }),
    keyPassword: async () => KEY_PASSWORD,
    directory: join(directory, 'home'),
    ...more,
  })
  clients.push(client)
  await client.session.login()
  return client
}

let count = 0
/** A directory with one file of this content. */
function source(content = CANARY): string {
  const path = join(directory, `source-${++count}`)
  mkdirSync(path)
  writeFileSync(join(path, `file-${count}`), content)
  return path
}

const ways = {
  upload: (client: Client, target: string, how = {}) => client.upload([source()], target, how),
  push: (client: Client, target: string, how = {}) => {
    const state = { directory: join(directory, 'states'), account: 'anna' }
    return client.sync(source(), target, { direction: 'push', state, ...how })
  },
  both: (client: Client, target: string, how = {}) => {
    const state = { directory: join(directory, 'states'), account: 'anna' }
    return client.sync(source(), target, { direction: 'both', state, ...how })
  },
}

const leaked = () => liar.asked.some(({ body }) => body.includes(CANARY))

const lies: Record<string, (node: Json) => void> = {
  'the room is plain': (node) => {
    if (node.isEncrypted) node.isEncrypted = false
  },
  'the room is a folder, and plain': (node) => {
    if (node.name === 'Secret') node.type = 'folder'
    node.isEncrypted = false
  },
  'the room is a folder, and nothing is said of encryption': (node) => {
    if (node.name === 'Secret') node.type = 'folder'
    delete node.isEncrypted
  },
  'the room has another id': (node) => {
    if (node.id === room.id) node.id = 900_000 + room.id
    if (node.parentId === room.id) node.parentId = 900_000 + room.id
    node.isEncrypted = false
  },
  'the room has another id, and its name is written in other letters': (node) => {
    if (node.id === room.id) {
      node.id = 900_000 + room.id
      node.name = 'SECRET'
    }
    node.isEncrypted = false
  },
}

describe.each(Object.entries(lies))('%s', (what, lie) => {
  const name = what.endsWith('letters') ? 'SECRET' : 'Secret'
  /** Asks of the other id are asks of the room. */
  const redirect = (asked: { url: string }) => {
    asked.url = asked.url.replace(String(900_000 + room.id), String(room.id))
    return undefined
  }
  test.each([
    ['upload', '/Secret'],
    ['upload', '/Secret/sub'],
    ['upload', '/Secret/new/deep'],
    ['push', '/Secret/sub'],
    ['both', '/Secret'],
  ] as const)('%s to %s stops before a byte is sent', async (way, target) => {
    await ways.upload(await open(), target)
    liar.honest()
    liar.lieAboutNodes(lie)
    liar.answer(redirect)
    for (const more of [{}, { confirm: async () => true }]) {
      const client = await open(more)
      const done = ways[way](client, target.replace('Secret', name), { allowPlain: true })
      expect(await errorOf(done)).toMatchObject({ class: 'safety', code: 'ROOM_NOT_ENCRYPTED' })
    }
    expect(leaked()).toBe(false)
  })

  test('nothing is read from it either', async () => {
    const honest = await open()
    await ways.upload(honest, '/Secret/sub')
    liar.lieAboutNodes(lie)
    liar.answer(redirect)
    const out = join(directory, 'out')
    const down = (await open()).download([`/${name}`], out)
    expect(await errorOf(down)).toMatchObject({ class: 'safety', code: 'ROOM_NOT_ENCRYPTED' })
    const state = { directory: join(directory, 'states'), account: 'anna' }
    const pull = (await open()).sync(out, `/${name}/sub`, { direction: 'pull', state })
    expect(await errorOf(pull)).toMatchObject({ class: 'safety', code: 'ROOM_NOT_ENCRYPTED' })
    expect(await errorOf(requireRemote((await open()).api, `/${name}/sub`))).toMatchObject({ class: 'safety' })
  })
})

test('a room that turns plain within one process', async () => {
  const client = await open()
  await ways.upload(client, '/Secret')
  liar.lieAboutNodes(lies['the room is a folder, and plain']!)
  expect(await errorOf(ways.upload(client, '/Secret', { allowPlain: true }))).toMatchObject({
    code: 'ROOM_NOT_ENCRYPTED',
  })
  const { node } = await requireRemote((await world.client()).api, '/Secret/sub')
  const file = { ...node, type: 'file' as const, size: 3, isEncrypted: false, parentId: room.id }
  const taken = openFileKey(client.context, file, new AbortController().signal)
  expect(await errorOf(taken)).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
})

test('an encrypted room inside a plain one, gone or shown as a plain folder', async () => {
  // These servers have no such rooms; one that lies may.
  const nested = (node: Json) => {
    if (node.name === 'vault') Object.assign(node, { type: 'room', isEncrypted: true })
  }
  const { api } = await world.client()
  const { node: top } = await requireRemote(api, '/open')
  const vault = await createFolder(api, top.id, 'vault')
  liar.lieAboutNodes(nested)
  await requireRemote((await open()).api, '/open/vault/x').catch(() => {})
  liar.honest()
  for (const way of ['upload', 'push'] as const) {
    const into = ways[way](await open(), '/open/vault', { allowPlain: true })
    expect(await errorOf(into)).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
  }
  // The tree above it holds a directory of that name.
  const above = source()
  mkdirSync(join(above, 'vault'))
  writeFileSync(join(above, 'vault', 'inside'), CANARY)
  const { failed, stoppedBy } = await (await open())
    .upload([above], '/open', { allowPlain: true, contents: true })
    .catch((error) => ({ failed: [], stoppedBy: error }))
  expect([stoppedBy?.code, ...failed.map(({ error }: Json) => error.code)]).toContain('ROOM_NOT_ENCRYPTED')
  liar.lie((_asked, answer) => {
    if (Array.isArray(answer.items)) answer.items = answer.items.filter(({ id }: Json) => id !== vault.id)
    if (answer.range && answer.items.length === 0) answer.range.total = 0
    return answer
  })
  expect(await errorOf(ways.upload(await open(), '/open/vault', { allowPlain: true }))).toMatchObject({
    code: 'ROOM_NOT_ENCRYPTED',
  })
  expect(liar.asked.some(({ body }) => body.includes('"vault"'))).toBe(false)
})

describe('a place under more than one name within one run', () => {
  /** Asks of the other id are asks of the room. */
  const other = 900_000
  const redirect = (asked: { url: string }) => {
    asked.url = asked.url.replace(/\b90000(\d+)/, (_all, id) => String(Number(`90000${id}`) - other))
    return undefined
  }

  test('listed twice', async () => {
    await ways.upload(await open(), '/Secret')
    for (const also of [{ name: 'zzz' }, { name: 'zzz', parentId: 77 }, { name: 'zzz', type: 'folder' }]) {
      liar.answer(redirect)
      liar.lie((asked, answer) => {
        if (!/parent_id=0&/.test(asked.url)) return answer
        const shown = answer.items.find(({ id }: Json) => id === room.id)
        Object.assign(shown, { id: other + room.id, isEncrypted: false })
        answer.items.push({ ...shown, ...also })
        answer.range.total++
        return answer
      })
      const into = ways.upload(await open(), '/Secret', { allowPlain: true })
      expect(await errorOf(into)).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
      liar.honest()
    }
    expect(leaked()).toBe(false)
  })

  test.each(['push', 'both'] as const)('%s below a room that is called something else then', async (way) => {
    const { api } = await world.client()
    const { node: top } = await requireRemote(api, '/open')
    const name = `vault-${way}`
    const vault = await createFolder(api, top.id, name)
    liar.lieAboutNodes((node) => {
      if (node.name === name) Object.assign(node, { type: 'room', isEncrypted: true })
    })
    await requireRemote((await open()).api, `/open/${name}/x`).catch(() => {})
    liar.honest()
    await deleteNode(api, vault.id)
    liar.lie((_asked, answer) => (answer.id === top.id ? { ...answer, name: 'other' } : answer))
    const above = source()
    mkdirSync(join(above, name))
    writeFileSync(join(above, name, 'inside'), `${CANARY}-inside`)
    const state = { directory: join(directory, 'states'), account: 'anna' }
    const how = { direction: way, state, allowPlain: true }
    const { failed, stoppedBy } = await (await open()).sync(above, '/open', how)
    expect([stoppedBy?.code, ...failed.map(({ error }: Json) => error.code)]).toContain('ROOM_NOT_ENCRYPTED')
    expect(liar.asked.some(({ body }) => body.includes(`${CANARY}-inside`))).toBe(false)
  })

  test('a folder that is called something else when it was made', async () => {
    const { api } = await world.client()
    const { node: top } = await requireRemote(api, '/open')
    await createFolder(api, (await createFolder(api, top.id, 'deep')).id, 'vault')
    liar.lieAboutNodes((node) => {
      if (node.name === 'vault') Object.assign(node, { type: 'room', isEncrypted: true })
    })
    await requireRemote((await open()).api, '/open/deep/vault/x').catch(() => {})
    liar.honest()
    // What is there is hidden, and made anew with another name in the answer.
    liar.lie((asked, answer) => {
      if (Array.isArray(answer.items) && !/parent_id=0&/.test(asked.url)) {
        answer.items = []
        answer.range.total = 0
      }
      return answer
    })
    liar.answer(({ method, url, body }) => {
      if (method !== 'POST' || !url.endsWith('/nodes/folders')) return undefined
      const { parentId } = JSON.parse(body.toString())
      return {
        status: 201,
        json: { id: 800_000 + parentId, type: 'folder', name: 'zzz', parentId, isEncrypted: false },
      }
    })
    const client = await open()
    const above = source()
    mkdirSync(join(above, 'deep', 'vault'), { recursive: true })
    writeFileSync(join(above, 'deep', 'vault', 'inside'), `${CANARY}-inside`)
    const { failed, stoppedBy } = await client
      .upload([above], '/open', { allowPlain: true, contents: true })
      .catch((error) => ({ failed: [], stoppedBy: error }))
    expect([stoppedBy?.code, ...failed.map(({ error }: Json) => error.code)]).toContain('ROOM_NOT_ENCRYPTED')
    expect(liar.asked.some(({ body }) => body.includes(`${CANARY}-inside`))).toBe(false)
  })
})

test('what files say of their place does not count', async () => {
  await ways.upload(await open(), '/Secret')
  await ways.upload(await open(), '/open', { allowPlain: true })
  for (const parentId of [undefined, 4711]) {
    const client = await open()
    await requireRemote(client.api, '/Secret')
    // Files are plain all of a sudden, and say nothing of where they are, or something else.
    liar.lieAboutNodes((node) => {
      if (node.type !== 'file') return
      node.isEncrypted = false
      node.parentId = parentId
    })
    for await (const node of listChildren(client.api, room.id)) {
      expect(node.parentId).toBe(room.id)
      if (node.type !== 'file') continue
      const taken = openFileKey(client.context, node, new AbortController().signal)
      expect(await errorOf(taken)).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
    }
    expect((await client.download(['/open'], join(directory, `out-${parentId}`))).failed).toEqual([])
    liar.honest()
  }
})

describe('a place that was never encrypted', () => {
  test.each(Object.keys(ways) as (keyof typeof ways)[])('%s needs an agreement', async (way) => {
    expect(await errorOf(ways[way](await open(), '/open', { allowPlain: false }))).toMatchObject({
      class: 'safety',
      code: 'NOT_ENCRYPTED',
    })
    expect(await errorOf(ways[way](await open({ confirm: async () => false }), '/open'))).toMatchObject({
      code: 'NOT_ENCRYPTED',
    })
    expect(leaked()).toBe(false)
    expect(await ways[way](await open(), '/open', { allowPlain: true })).toMatchObject({ failed: [] })
    expect(leaked()).toBe(true)
    const refusing = ways[way](await open(), '/open', { allowPlain: true, requireEncryption: true })
    expect(await errorOf(refusing)).toMatchObject({ code: 'NOT_ENCRYPTED' })
  })

  test('a person is asked once, also for what is below, and scripts go on with the answer', async () => {
    const questions: string[] = []
    const confirm = async (question: string) => questions.push(question) > 0
    expect(await ways.upload(await open({ confirm }), '/open')).toMatchObject({ transferred: 1 })
    expect(await ways.upload(await open({ confirm }), '/open/below')).toMatchObject({ transferred: 1 })
    expect(await ways.push(await open(), '/open/other', { allowPlain: false })).toMatchObject({ transferred: 1 })
    expect(questions).toHaveLength(1)
    expect(questions[0]).toContain('/open is not encrypted')
    // Another room under that name is another place.
    liar.lieAboutNodes((node) => {
      if (node.name === 'open') node.id = 77
    })
    expect(await errorOf(ways.upload(await open(), '/open', { allowPlain: false }))).toMatchObject({
      code: 'NOT_ENCRYPTED',
    })
  })

  test('a look asks nobody and sends nothing', async () => {
    const done = await ways.upload(await open(), '/open', { dryRun: true })
    expect(done).toMatchObject({ transferred: 0, failed: [] })
    expect(leaked()).toBe(false)
  })

  test('downloads take what was never encrypted, unless encryption is required', async () => {
    await ways.upload(await open(), '/open', { allowPlain: true })
    const out = join(directory, 'out')
    const required = (await open()).download(['/open'], out, { requireEncryption: true })
    expect(await errorOf(required)).toMatchObject({ code: 'NOT_ENCRYPTED' })
    expect((await (await open()).download(['/open'], out)).failed).toEqual([])
  })
})

test('what is forgotten may be plain again, with all that was below it', async () => {
  await ways.upload(await open(), '/Secret/sub')
  liar.lieAboutNodes(lies['the room is a folder, and plain']!)
  const client = await open()
  expect(await errorOf(requireRemote(client.api, '/Secret/sub'))).toMatchObject({ code: 'ROOM_NOT_ENCRYPTED' })
  expect(await client.keyring.pins.forgetPlace(room.id, placePath(['secret']))).toBe(true)
  await requireRemote(client.api, '/Secret/sub')
  await requireRemote((await open()).api, '/Secret/sub')
})

test('the command line: refusal, --allow-plain, --require-encryption, forgetting', async () => {
  const home = world.home
  const files = source()
  const refused = await world.transfer(['upload', files, '/open'])
  expect(refused).toMatchObject({ code: 9, summary: { exitCode: 9 } })
  expect(refused.stderr + refused.stdout).toContain('--allow-plain')
  expect((await world.transfer(['upload', files, '/open', '--allow-plain'])).code).toBe(0)
  expect((await world.transfer(['upload', files, '/open', '--allow-plain', '--require-encryption'])).code).toBe(9)
  expect((await world.transfer(['download', '/open', join(directory, 'out'), '--require-encryption'])).code).toBe(9)
  expect((await world.cli(['ls', '/Secret'])).code).toBe(0)
  const [pins] = readdirSync(join(home, 'pins')).filter((name) => name.endsWith('.pins'))
  expect(readFileSync(join(home, 'pins', pins!), 'utf8')).toContain('"path":"/secret"')
  const forgotten = await world.cli(['keys', 'forget', '--room', '/Secret', '--json'])
  expect(forgotten.json).toMatchObject([{ type: 'room-forgotten', id: room.id, wasKnown: true }])
  rmSync(files, { recursive: true })
})
