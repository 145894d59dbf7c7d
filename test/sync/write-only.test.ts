/** A host that can only write: what it sends without any private key, what it remembers, and what others make of that. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { generateKeyPair } from '../../crypto/index.ts'
import { deleteNode } from '../../src/api/nodes.ts'
import type { BackupSetOptions } from '../../src/client/backups.ts'
import type { Role } from '../../src/client/rooms.ts'
import type { Client, ClientOptions } from '../../src/client.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { RunEvent } from '../../src/sync/run.ts'
import { readRemoteTree } from '../../src/sync/tree.ts'
import {
  accountPassword,
  createWorld,
  giveKeyPair,
  KEY_PASSWORD,
  makeTree,
  snapshot,
  type World,
} from '../support/cli.ts'
import { errorOf } from '../support/servers.ts'

let world: World
/** The trusted machine of the host's account, which has its private key, and somebody else's. */
let keeper: Client
let anna: Client
/** What the keeper has made for hosts. */
let keyFile: string
/** The public key of anna: with it hosts hand keys out to her. */
let annasKey: string
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'web1'] })
  anna = await world.client('anna')
  keeper = await world.openClient({ directory: world.path('keeper'), trustNewMembers: true }, 'web1')
  await giveKeyPair(keeper, await generateKeyPair('RSA-4096'))
  await role('append')
  keyFile = await keeper.keys.exportPublic()
  annasKey = await anna.keys.exportPublic()
})
afterAll(async () => {
  await keeper.close()
  await world.close()
})
afterEach(() => world.server.faults.clear())

const role = (name: Role) => anna.rooms.changeMembers('/room', { add: [{ kind: 'user', name: 'web1', role: name }] })

/** A host with its own directory; it has no password to give. */
interface Host {
  readonly directory: string
  readonly source: string
  readonly set: BackupSetOptions
  readonly events: RunEvent[]
  /** In a process of its own: nothing is left in memory between. */
  with<T>(work: (client: Client) => Promise<T>, more?: Partial<ClientOptions>): Promise<T>
  run(options?: Parameters<Client['backups']['run']>[1]): ReturnType<Client['backups']['run']>
}

let hosts = 0
async function createHost(): Promise<Host> {
  const name = `host${++hosts}`
  const directory = world.path(name)
  const source = world.path(`${name}-source`)
  const events: RunEvent[] = []
  const keyPassword = async () => {
    throw new Error('nobody asks for the encryption password here')
  }
  const host: Host = {
    directory,
    source,
    events,
    set: { name, target: `/room/backups/${name}`, sources: [source] },
    async with(work, more) {
      events.length = 0
      const onEvent = (event: RunEvent) => void events.push(event)
      await using client = await world.openClient({ directory, writeOnly: true, keyPassword, onEvent, ...more }, 'web1')
      return await work(client)
    },
    run: (options) => host.with((client) => client.backups.run(host.set, options)),
  }
  makeTree(source, { 'a.txt': 'first a', 'deep/b.txt': 'first b', 'deep/er/c.bin': Buffer.alloc(9_000_000, 7) })
  for (const file of [keyFile, annasKey]) {
    const { fingerprint } = await keeper.keys.readPublic(file)
    await host.with((client) => client.keys.pinPublic(file, fingerprint))
  }
  return host
}

let restored = 0
/** Restores with a client that has a private key; returns what was in the source. */
async function restore(client: Client, { set, source }: Host, run = 'latest') {
  const root = world.path(`back${++restored}`)
  const { failed, stoppedBy } = await client.backups.restore(set, root, { run })
  expect([stoppedBy, ...failed.map(({ path, error }) => [path, error.code])]).toEqual([undefined])
  return snapshot(join(root, source))
}

const sent = ({ events }: Host) => events.flatMap((event) => (event.type === 'file-done' ? [event.path] : [])).sort()

/** Files below a folder of the set, by path. */
async function stored({ set }: Host, folder: string): Promise<Map<string, number>> {
  const { node, roomId } = await requireRemote(anna.api, `${set.target}/${folder}`)
  const found = new Map<string, number>()
  for (const entry of await readRemoteTree(anna.api, node, roomId))
    if (entry.node.type === 'file') found.set(entry.path.join('/'), entry.node.id)
  return found
}

test('it stores what is new and what has changed, and others restore every run of it', async () => {
  const host = await createHost()
  const first = await host.run()
  expect(first).toMatchObject({ failed: [], isComplete: true, created: 3, changed: 0 })
  const before = snapshot(host.source)
  writeFileSync(join(host.source, 'a.txt'), 'second a')
  rmSync(join(host.source, 'deep/b.txt'))
  writeFileSync(join(host.source, 'new.txt'), 'new')
  const second = await host.run()
  expect(second).toMatchObject({ failed: [], isComplete: true, created: 1, changed: 1, unchanged: 1, removed: 1 })
  expect(sent(host)).toEqual([join(host.source, 'a.txt'), join(host.source, 'new.txt')])
  const third = await host.run()
  expect(third).toMatchObject({ failed: [], transferred: 0, unchanged: 3 })
  expect(sent(host)).toEqual([])
  // Nothing was moved or replaced: each run has put its contents into a folder of its own.
  const top = host.source.slice(1)
  expect([...(await stored(host, `added/${second.run}`)).keys()].sort()).toEqual([`${top}/a.txt`, `${top}/new.txt`])
  expect(await restore(keeper, host)).toEqual(snapshot(host.source))
  expect(await restore(keeper, host, first.run)).toEqual(before)
  // Members whose keys were brought to the host get the keys of what it sends.
  expect(await restore(anna, host, first.run)).toEqual(before)
  const { report } = await keeper.backups.drill(host.set)
  expect(report).toMatchObject({ isRight: true, sampled: 3, run: third.run })
})

test('what has moved is not sent again, and is restored where it is now', async () => {
  const host = await createHost()
  await host.run()
  renameSync(join(host.source, 'deep'), join(host.source, 'elsewhere'))
  renameSync(join(host.source, 'a.txt'), join(host.source, 'renamed.txt'))
  const { failed, removed, transferred } = await host.run()
  expect({ failed, removed, transferred }).toEqual({ failed: [], removed: 0, transferred: 0 })
  expect(await restore(keeper, host)).toEqual(snapshot(host.source))
  expect(await host.run()).toMatchObject({ failed: [], transferred: 0, moved: 0 })
  expect(await restore(keeper, host)).toEqual(snapshot(host.source))
})

test('a file in the place of a directory, and the other way round', async () => {
  const host = await createHost()
  await host.run()
  rmSync(join(host.source, 'deep'), { recursive: true })
  rmSync(join(host.source, 'a.txt'))
  makeTree(host.source, { deep: 'a file now', 'a.txt/x': 'a directory now' })
  expect(await host.run({ maxDelete: { share: 1 } })).toMatchObject({ failed: [], isComplete: true })
  expect(await restore(keeper, host)).toEqual(snapshot(host.source))
  expect(await host.run()).toMatchObject({ failed: [], transferred: 0 })
})

test('nothing that it keeps says what a content was: not even its digest', async () => {
  const host = await createHost()
  await host.run()
  const { createHash } = await import('node:crypto')
  const kept = Object.keys(snapshot(host.directory)).filter((name) => !name.endsWith('/'))
  const all = Buffer.concat(kept.map((name) => readFileSync(join(host.directory, name))))
  for (const content of ['first a', 'first b', Buffer.alloc(9_000_000, 7)]) {
    for (const algorithm of ['sha256', 'sha1', 'md5']) {
      const digest = createHash(algorithm).update(content).digest()
      for (const form of [digest, digest.toString('hex'), digest.toString('base64')])
        expect(all.includes(form)).toBe(false)
    }
  }
  expect(kept.filter((name) => name.startsWith('file-keys') || name.includes('.keys'))).toEqual([])
})

test('what is touched is sent again, since nothing says that it is the same', async () => {
  const host = await createHost()
  await host.run()
  utimesSync(join(host.source, 'a.txt'), new Date(), new Date(1_700_000_000_000))
  expect(await host.run()).toMatchObject({ failed: [], changed: 1 })
  expect(sent(host)).toEqual([join(host.source, 'a.txt')])
})

test('an account that may only add, and sees no file, is enough', async () => {
  await role('upload')
  try {
    const host = await createHost()
    const first = await host.run()
    expect(first).toMatchObject({ failed: [], isComplete: true, created: 3 })
    const before = snapshot(host.source)
    writeFileSync(join(host.source, 'a.txt'), 'second a')
    expect(await host.run()).toMatchObject({ failed: [], isComplete: true, changed: 1, unchanged: 2 })
    expect(await host.run()).toMatchObject({ failed: [], transferred: 0 })
    await role('append')
    expect(await restore(keeper, host)).toEqual(snapshot(host.source))
    expect(await restore(keeper, host, first.run)).toEqual(before)
  } finally {
    await role('append')
  }
})

test('whoever prunes elsewhere leaves what the host goes on with, also while a run of it is under way', async () => {
  const host = await createHost()
  await host.run()
  writeFileSync(join(host.source, 'a.txt'), 'second a')
  await host.run()
  // One that was interrupted: its content has no manifest yet.
  writeFileSync(join(host.source, 'a.txt'), 'third a')
  await host.with(async (client) => {
    const { api } = client.context
    const context = {
      ...client.context,
      api: {
        ...api,
        send: (request: Parameters<typeof api.send>[0]) => {
          const body = request.body === undefined ? '' : Buffer.from(request.body).toString('latin1')
          if (body.includes('.json.gz')) throw new Error('killed before its manifest')
          return api.send(request)
        },
      },
    }
    const { runBackup } = await import('../../src/sync/backup/run.ts')
    const set = { exclude: [], oneFileSystem: false, keep: {}, ...host.set }
    const state = { directory: client.context.home.states, account: await client.context.home.account() }
    await runBackup(context, set, { state }).catch(() => {})
  })
  const pruning = { ...host.set, keep: { last: 1 } }
  expect(await errorOf(anna.backups.prune(pruning))).toMatchObject({ code: 'NOT_PINNED' })
  const trusted = await world.openClient({ directory: world.path(`pruner-${host.set.name}`) }, 'anna')
  try {
    const done = await trusted.backups.prune(pruning, { acceptRuns: true })
    expect(done).toMatchObject({ removed: [expect.any(String)], files: 1 })
    // Nobody else has the key of what the interrupted run has sent, so that is sent again.
    const fourth = await host.run()
    expect(fourth).toMatchObject({ failed: [], isComplete: true, transferred: 1 })
    expect(await restore(trusted, host)).toEqual(snapshot(host.source))
    writeFileSync(join(host.source, 'a.txt'), 'fifth a')
    expect(await host.run()).toMatchObject({ failed: [], isComplete: true })
    const again = await trusted.backups.prune(pruning)
    expect(again).toMatchObject({ removed: [expect.any(String), fourth.run], files: 3 })
    expect(await restore(trusted, host)).toEqual(snapshot(host.source))
    expect((await trusted.backups.list(host.set)).problems).toEqual([])
  } finally {
    await trusted.close()
  }
})

test('what is gone from the server is told, and stored again', async () => {
  const host = await createHost()
  const first = await host.run()
  const files = await stored(host, `added/${first.run}`)
  await deleteNode(anna.api, files.get(`${host.source.slice(1)}/a.txt`)!)
  const second = await host.run()
  expect(second.failed.map(({ path, error }) => [path, error.code])).toEqual([
    [join(host.source, 'a.txt'), 'CONTENT_DROPPED'],
  ])
  expect(second).toMatchObject({ transferred: 1, isComplete: true })
  expect(await restore(keeper, host)).toEqual(snapshot(host.source))
  expect(await host.run()).toMatchObject({ failed: [] })
  const manifests = await stored(host, 'runs')
  await deleteNode(anna.api, manifests.get(`${(await keeper.backups.list(host.set)).notes.at(-1)!.run}.json.gz`)!)
  const last = await host.run()
  expect(last.failed.map(({ error }) => error.code)).toEqual(['MANIFEST_DROPPED'])
  expect(await restore(keeper, host)).toEqual(snapshot(host.source))
})

const CHILD = fileURLToPath(new URL('../support/backup-child.mjs', import.meta.url))
/** At which of the requests that change something a run is killed; at last it is not. The full set kills at each. */
const KILLS = (most: number, some: readonly (number | 'manifest')[]) =>
  process.env.SEALSYNC_FULL ? [...Array(most).keys(), 'manifest' as const] : some

test('killed at one request after the other, what is visible is whole, and the last run is as if nothing had been', async () => {
  const host = await createHost()
  makeTree(host.source, Object.fromEntries(Array.from({ length: 8 }, (_, at) => [`many/${at}.txt`, `content ${at}`])))
  const set = JSON.stringify({ exclude: [], oneFileSystem: false, keep: {}, ...host.set })
  let kills = 0
  const run = async (limit: number | 'manifest') => {
    // What was asked for has been done at the server, and nobody here knows.
    const when = limit === 'manifest' || limit % 2 === 0 ? 'after' : 'before'
    const account = [world.server.url, 'web1', accountPassword('web1'), 'none', set, join(host.directory, 'sync')]
    const args = [CHILD, ...account, String(limit), when, 'write-only']
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (chunk) => {
      stderr += chunk
    })
    const [code, signal] = await once(child, 'close')
    expect([stderr, signal === 'SIGKILL' ? 0 : code]).toEqual(['', 0])
    if (signal === 'SIGKILL') kills++
  }
  for (const limit of KILLS(80, [1, 24, 'manifest'])) await run(limit)
  await run(0)
  for (const client of [anna, keeper]) expect(await restore(client, host)).toEqual(snapshot(host.source))
  for (const at of [1, 2, 3]) writeFileSync(join(host.source, `many/${at}.txt`), `another ${at}`)
  renameSync(join(host.source, 'deep'), join(host.source, 'moved'))
  for (const limit of KILLS(30, [7, 'manifest'])) await run(limit)
  await run(0)
  // Also whoever got the keys from a run that was killed, or from the next one.
  for (const client of [anna, keeper]) expect(await restore(client, host)).toEqual(snapshot(host.source))
  expect((await keeper.backups.list(host.set)).problems).toEqual([])
  if (process.env.SEALSYNC_FULL) console.log(`${kills} kills`)
  expect(kills).toBeGreaterThanOrEqual(5)
}, 240_000)

test('two kinds of sets do not mix', async () => {
  const host = await createHost()
  await host.run()
  expect(await errorOf(keeper.backups.run(host.set))).toMatchObject({ code: 'SET_OTHER_KIND', class: 'safety' })
  const other = { ...host.set, name: 'other', target: '/room/backups/other' }
  expect(await anna.backups.run(other)).toMatchObject({ failed: [] })
  expect(await errorOf(host.with((client) => client.backups.run(other)))).toMatchObject({ code: 'SET_OTHER_KIND' })
})

test('a host that has lost what it knew begins a line of its own, which has to be accepted', async () => {
  const host = await createHost()
  await host.run()
  const pruner = await world.openClient({ directory: world.path(`lost-${host.set.name}`) }, 'anna')
  try {
    const keeping = { ...host.set, keep: { last: 9 } }
    await pruner.backups.prune(keeping, { acceptRuns: true })
    for (const name of readdirSync(join(host.directory, 'sync')))
      rmSync(join(host.directory, 'sync', name), { recursive: true })
    const second = await host.run()
    expect(second).toMatchObject({ failed: [], created: 3 })
    const { problems } = await pruner.backups.list(host.set)
    expect(problems.map(({ error }) => error.code)).toEqual(['MANIFEST_FOREIGN'])
  } finally {
    await pruner.close()
  }
})

test('uploads and pushes go without the private key; everything that needs it is refused before anything is done', async () => {
  const host = await createHost()
  const target = `/room/plain-${host.set.name}`
  await anna.mkdir(target)
  const codes = { code: 'PRIVATE_KEY_ELSEWHERE', class: 'key' }
  await host.with(async (client) => {
    const upload = await client.upload([host.source], `${target}/`)
    expect(upload).toMatchObject({ failed: [], transferred: 3 })
    const push = await client.push(host.source, `${target}/pushed`)
    expect(push).toMatchObject({ failed: [], transferred: 3 })
    expect(await client.push(host.source, `${target}/pushed`)).toMatchObject({ failed: [], transferred: 0 })
    await client.put(`${target}/put`, Buffer.from('put'))
    expect(await errorOf(client.download([`${target}/put`], `${world.path('nothing')}/`))).toMatchObject(codes)
    expect(await errorOf(client.pull(`${target}/pushed`, world.path('nothing')))).toMatchObject(codes)
    expect(await errorOf(client.both(host.source, `${target}/pushed`))).toMatchObject(codes)
    expect(await errorOf(client.upload([host.source], `${target}/`, { checksum: true }))).toMatchObject(codes)
    expect(await errorOf(client.backups.restore(host.set, world.path('nothing')))).toMatchObject(codes)
    expect(await errorOf(client.get(`${target}/put`).then(({ bytes }) => bytes()))).toMatchObject(codes)
    expect(await errorOf(client.keys.exportPublic())).toMatchObject(codes)
  })
  expect(readdirSync(world.base)).not.toContain('nothing')
  const root = world.path(`pushed-${host.set.name}`)
  expect((await keeper.pull(`${target}/pushed`, root)).failed).toEqual([])
  expect(snapshot(root)).toMatchObject(snapshot(host.source))
})

test('a machine that nobody has brought the public key to sends nothing', async () => {
  const keyPassword = async () => KEY_PASSWORD
  const options = { directory: world.path('bare'), writeOnly: true, keyPassword }
  await using client = await world.openClient(options, 'web1')
  const source = world.path('bare-source')
  mkdirSync(source)
  writeFileSync(join(source, 'a'), 'a')
  const set = { name: 'bare', target: '/room/backups/bare', sources: [source] }
  const { stoppedBy } = await client.backups.run(set).catch((error) => ({ stoppedBy: error }))
  expect(stoppedBy).toMatchObject({ code: 'PUBLIC_KEY_NEEDED', class: 'key' })
})
