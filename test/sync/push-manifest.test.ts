/** The manifest of a pushed tree: what it brings to another machine, what it makes `verify` notice, and what it cannot do. */
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deleteNode, updateFile } from '../../src/api/nodes.ts'
import { restoreDeleted } from '../../src/api/recycle-bin.ts'
import type { Client } from '../../src/client.ts'
import { systemRandom } from '../../src/environment.ts'
import { MANIFEST_NAME } from '../../src/local/atomic-file.ts'
import { compareTrees } from '../../src/sync/compare.ts'
import { pairOf, runSync, type SyncOptions } from '../../src/sync/jobs/pair.ts'
import type { SyncRecord } from '../../src/sync/records.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { RunContext, RunEvent } from '../../src/sync/run.ts'
import type { SyncSummary } from '../../src/sync/run-job.ts'
import { type ManifestPin, openState, stateDirectory } from '../../src/sync/state.ts'
import { parseTreeManifest, readTreeManifest, type TreeManifest } from '../../src/sync/tree-manifest.ts'
import { undoRun } from '../../src/sync/undo.ts'
import { verifyRemote } from '../../src/sync/verify.ts'
import {
  accountPassword,
  createWorld,
  KEY_PASSWORD,
  makeRoom,
  makeTree,
  snapshot,
  user1,
  type World,
} from '../support/cli.ts'

let world: World
let anna: Client
let umask: number
beforeAll(async () => {
  umask = process.umask(0o022)
  world = await createWorld()
  anna = await world.client()
})
afterAll(async () => {
  process.umask(umask)
  await world.close()
})
afterEach(() => world.server.faults.clear())

const sha256 = (content: string | Uint8Array) => createHash('sha256').update(content).digest('hex')

let count = 0

/** A remote directory, and machines that each have a copy and a state of their own. */
function createPlace(remote = `/room/place${count + 1}`) {
  const base = `place${++count}`
  function machine(name: string) {
    const local = world.path(`${base}-${name}`)
    const directory = world.path(`${base}-${name}-state`)
    const events: RunEvent[] = []
    mkdirSync(local, { recursive: true })
    const { api, keyring, clock } = anna
    const context: RunContext = {
      api,
      keyring,
      clock,
      random: systemRandom,
      onEvent: (event) => void events.push(event),
    }
    const state = { directory, account: 'anna' }
    const run = (direction: SyncOptions['direction'], options: Partial<SyncOptions>): Promise<SyncSummary> => {
      events.length = 0
      return runSync(context, local, remote, { direction, state, ...options })
    }
    const withState = async <T>(work: (state: Awaited<ReturnType<typeof openState>>) => T): Promise<Awaited<T>> => {
      const pair = pairOf('anna', local, remote)
      const opened = await openState(stateDirectory(directory, pair), pair, Date.now(), () => {})
      try {
        return await work(opened)
      } finally {
        await opened.flush()
        await opened.close()
      }
    }
    return {
      local,
      context,
      events,
      withState,
      path: (...names: string[]) => join(local, ...names),
      push: (options: Partial<SyncOptions> = {}) => run('push', options),
      pull: (options: Partial<SyncOptions> = {}) => run('pull', options),
      both: (options: Partial<SyncOptions> = {}) => run('both', options),
      pin: () => withState((opened): ManifestPin | undefined => opened.manifest),
      /** As the command line does it: with all that is known here. */
      async verify(through: RunContext = context) {
        events.length = 0
        const { known, pin } = await withState((opened) => ({
          known: new Map<string, SyncRecord>(opened.records()),
          pin: opened.manifest,
        }))
        return codes(await verifyRemote(through, remote, { known, pin }))
      },
      warnings: () => events.flatMap((event) => (event.type === 'warning' ? [event.code] : [])),
    }
  }
  const node = async (path: string) => (await requireRemote(anna.api, `${remote}/${path}`)).node
  return {
    remote,
    machine,
    node,
    remove: async (path: string) => deleteNode(anna.api, (await node(path)).id),
    /** What a machine that knows nothing finds. */
    verify: async () => codes(await verifyRemote(anna.context, remote)),
    async manifest(): Promise<TreeManifest> {
      const found = await readTreeManifest(anna.context, await node(MANIFEST_NAME), new AbortController().signal)
      return found.manifest
    },
    /** Puts a file there by the plain commands, under any name. */
    async put(name: string, content: string | Uint8Array) {
      const source = world.path(`${base}-put`)
      makeTree(source, { fresh: content })
      expect((await anna.upload([join(source, 'fresh')], remote)).failed).toEqual([])
      rmSync(source, { recursive: true })
      await updateFile(anna.api, (await node('fresh')).id, { name })
    },
    /** Puts the manifest there that a member of the room has made. */
    async forge(content: string | object) {
      await this.remove(MANIFEST_NAME).catch(() => {})
      await this.put(MANIFEST_NAME, typeof content === 'string' ? content : gzipSync(JSON.stringify(content)))
    },
  }
}

const codes = ({ tally }: Awaited<ReturnType<typeof verifyRemote>>): Record<string, string> =>
  Object.fromEntries(tally.failed.map(({ path, error }) => [path, `${error.class} ${error.code}`]))

const failures = ({ failed }: SyncSummary): Record<string, string> =>
  Object.fromEntries(failed.map(({ path, error }) => [path, `${error.class} ${error.code}`]))

function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink()
  } catch {
    return false
  }
}

const modeOf = (path: string) => statSync(path).mode & 0o7777

describe('a manifest', () => {
  test('says what was pushed, is never a file here, and is sent again only if something has changed', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    const large = Buffer.alloc(9 * 2 ** 20, 'large')
    makeTree(here.local, { 'a.txt': 'one', 'sub/empty': '', large })
    chmodSync(here.path('a.txt'), 0o640)
    symlinkSync('../a.txt', here.path('sub', 'link'))
    expect(await here.push()).toMatchObject({ failed: [], transferred: 3, files: 3, bytes: 3 + large.length })
    expect(here.events.filter((event) => 'path' in event && event.path === MANIFEST_NAME)).toEqual([])

    const { entries, ...head } = await place.manifest()
    expect(head).toMatchObject({ sequence: 1, previous: [], host: expect.any(String) })
    const byPath = Object.fromEntries(entries.map((entry) => [entry.path, entry]))
    const id = async (path: string) => (await place.node(path)).id
    const ns = (path: string) => String(lstatSync(here.path(path), { bigint: true }).mtimeNs)
    const seal = expect.stringMatching(/^[A-Za-z0-9+/]{38}==$/)
    expect(byPath).toEqual({
      'a.txt': {
        kind: 'file',
        path: 'a.txt',
        mode: 0o640,
        mtimeNs: ns('a.txt'),
        size: 3,
        node: await id('a.txt'),
        seal,
        sha256: sha256('one'),
      },
      sub: { kind: 'directory', path: 'sub', mode: 0o755, mtimeNs: ns('sub'), node: await id('sub') },
      'sub/empty': expect.objectContaining({ size: 0, sha256: sha256(''), seal }),
      large: expect.objectContaining({ size: large.length, sha256: sha256(large), seal }),
      'sub/link': { kind: 'symlink', path: 'sub/link', mode: 0o777, mtimeNs: ns('sub/link'), target: '../a.txt' },
    })

    // Nothing changed: nothing is asked to change, by nobody, and no password is needed.
    const before = await place.node(MANIFEST_NAME)
    const locked: RunContext = { ...here.context, keyring: { ...here.context.keyring, ownKey: forbidden } }
    const asked: string[] = []
    const watched = watch(locked, (method) => asked.push(method))
    const again = await runSync(watched, here.local, place.remote, {
      direction: 'push',
      state: { directory: `${here.local}-state`, account: 'anna' },
    })
    expect(again).toMatchObject({ failed: [], steps: [] })
    expect(asked.filter((method) => method !== 'GET')).toEqual([])
    expect((await place.node(MANIFEST_NAME)).id).toBe(before.id)

    // Only a link: a new manifest, which names the one before.
    symlinkSync('nowhere', here.path('dangling'))
    expect(await here.push()).toMatchObject({ failed: [], steps: [] })
    const next = await place.manifest()
    expect(next).toMatchObject({ sequence: 2, previous: [expect.stringMatching(/^[0-9a-f]{64}$/)] })
    expect(next.entries.find(({ path }) => path === 'dangling')).toMatchObject({ target: 'nowhere' })

    // It takes part in nothing.
    expect(await there.pull()).toMatchObject({ failed: [], transferred: 3 })
    expect(existsSync(there.path(MANIFEST_NAME))).toBe(false)
    expect(await there.both({ delete: true })).toMatchObject({ failed: [], steps: [], deleted: 0 })
    expect((await compareTrees(anna.context, here.local, place.remote, { contents: false })).differences).toEqual([])
    const copy = world.path(`${place.remote.slice(6)}-copy`)
    expect((await anna.download([place.remote], copy, { contents: true })).failed).toEqual([])
    expect(existsSync(join(copy, MANIFEST_NAME))).toBe(false)
    writeFileSync(here.path(MANIFEST_NAME), 'somebody’s')
    expect(await here.push({ delete: true })).toMatchObject({ failed: [], steps: [] })
    expect(readFileSync(here.path(MANIFEST_NAME), 'utf8')).toBe('somebody’s')
    expect((await place.manifest()).sequence).toBe(2)
    expect((await anna.download([`${place.remote}/${MANIFEST_NAME}`], `${copy}/`)).transferred).toBe(1)
  })

  test('is not stored for plain rooms, for a part of the tree, or if it is not wanted', async () => {
    await makeRoom(anna, 'plain', false)
    const plain = createPlace('/plain/x')
    makeTree(plain.machine('a').local, { a: 'a' })
    expect(await plain.machine('a').push()).toMatchObject({ failed: [], transferred: 1 })
    await expect(plain.node(MANIFEST_NAME)).rejects.toMatchObject({ class: 'not_found' })

    const place = createPlace()
    const here = place.machine('a')
    makeTree(here.local, { a: 'a', b: 'b' })
    for (const options of [{ selection: { paths: ['a'] } }, { manifest: false }, { dryRun: true }])
      expect(await here.push(options)).toMatchObject({ failed: [] })
    await expect(place.node(MANIFEST_NAME)).rejects.toMatchObject({ class: 'not_found' })
    expect(await here.push()).toMatchObject({ failed: [], steps: [] })
    const known = (await place.manifest()).entries.map((one) => [one.path, 'sha256' in one])
    // Only what was read for it has a digest.
    expect(Object.fromEntries(known)).toEqual({ a: true, b: false })
    expect(await place.verify()).toEqual({})
  })

  test('does not make the state grow for ever', async () => {
    const place = createPlace()
    const here = place.machine('a')
    makeTree(here.local, { a: 'a' })
    await here.push()
    const pin = (await here.pin())!
    const previous = Array(256).fill(sha256(''))
    const log = join(stateDirectory(`${here.local}-state`, pairOf('anna', here.local, place.remote)), 'records')
    for (let times = 0; times < 20; times++) {
      await here.withState((state) => {
        for (let more = 0; more < 5; more++) state.setManifest({ ...pin, previous })
      })
    }
    expect(statSync(log).size).toBeLessThan(1.2 * 2 ** 20)
    expect(await here.pin()).toEqual({ ...pin, previous })
    expect((await here.push()).steps).toEqual([])
  })

  test('is stored when a limit was reached, and holds what has arrived', async () => {
    await makeRoom(anna, 'own')
    const place = createPlace('/own')
    const here = place.machine('a')
    makeTree(here.local, { a: 'a', b: 'x'.repeat(5000) })
    expect(await here.push({ maxTransfer: 100 })).toMatchObject({ failed: [], left: 1 })
    expect((await place.manifest()).entries.map(({ path }) => path)).toEqual(['a'])
    expect(await place.verify()).toEqual({})
  })

  test('knows the digest of a file of which an earlier run has sent the beginning', async () => {
    const place = createPlace()
    const here = place.machine('a')
    const content = randomBytes(21 * 2 ** 20)
    makeTree(here.local, { large: content })
    const stop = new AbortController()
    const state = { directory: `${here.local}-state`, account: 'anna' }
    const onEvent = ({ type }: RunEvent) => void (type === 'part-confirmed' && stop.abort(new Error('stopped')))
    const options = { direction: 'push', state, partSize: 5 * 2 ** 20, jobs: 1 } as const
    const stopping = { ...here.context, onEvent }
    const first = await runSync(stopping, here.local, place.remote, { ...options, signal: stop.signal })
    expect(first.stoppedBy?.message).toContain('stopped')
    let parts = 0
    const counting = watch(here.context, (method, isPlain) => {
      if (isPlain && method === 'PUT') parts++
    })
    expect(await runSync(counting, here.local, place.remote, options)).toMatchObject({ failed: [], transferred: 1 })
    // Of five, and the one of the manifest.
    expect(parts).toBeLessThan(6)
    expect((await place.manifest()).entries).toMatchObject([{ path: 'large', sha256: sha256(content) }])
  })

  test('knows digests of files that were moved or touched, and learns from the one that is there', async () => {
    const place = createPlace()
    const here = place.machine('a')
    makeTree(here.local, { 'dir/a': 'aaa', b: 'b' })
    await here.push()
    const digests = async () =>
      Object.fromEntries(
        (await place.manifest()).entries.flatMap((one) => (one.kind === 'file' ? [[one.path, one.sha256]] : [])),
      )
    expect(await digests()).toEqual({ 'dir/a': sha256('aaa'), b: sha256('b') })
    renameSync(here.path('dir'), here.path('moved'))
    chmodSync(here.path('b'), 0o600)
    expect(await here.push()).toMatchObject({ failed: [], transferred: 0, moved: 1 })
    expect(await digests()).toEqual({ 'moved/a': sha256('aaa'), b: sha256('b') })
    // Without its state the machine finds the files equal and reads none of them.
    rmSync(`${here.local}-state`, { recursive: true })
    expect(await here.push()).toMatchObject({ failed: [], transferred: 0 })
    expect(here.warnings()).toEqual(['MANIFEST'])
    expect(await digests()).toEqual({ 'moved/a': sha256('aaa'), b: sha256('b') })
    expect((await place.manifest()).sequence).toBe(3)
  })
})

const forbidden = () => Promise.reject(new Error('the key pair was unlocked'))

/** Tells of every request. */
function watch(context: RunContext, onRequest: (method: string, isPlain: boolean) => void): RunContext {
  const { api } = context
  const told =
    (send: typeof api.send, isPlain: boolean): typeof api.send =>
    (request) => {
      onRequest(request.method, isPlain)
      return send(request)
    }
  return { ...context, api: { ...api, send: told(api.send, false), sendPlain: told(api.sendPlain, true) } }
}

/** As if the server took one node for another. */
const through = (context: RunContext, from: number, to: number): RunContext => ({
  ...context,
  api: {
    ...context.api,
    send: (request) => context.api.send({ ...request, url: request.url.replace(`/files/${from}/`, `/files/${to}/`) }),
  },
})

describe('a pull', () => {
  test('brings permissions, links and exact times to a fresh machine, and again what has changed', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { 'run.sh': '#!/bin/sh', 'sub/deep/private': 'p', 'sub/open': 'o', readonly: 'r' })
    chmodSync(here.path('run.sh'), 0o4755)
    chmodSync(here.path('sub', 'deep', 'private'), 0o600)
    chmodSync(here.path('sub', 'open'), 0o666)
    chmodSync(here.path('readonly'), 0o444)
    chmodSync(here.path('sub', 'deep'), 0o700)
    const time = 1_700_000_000.123456
    utimesSync(here.path('run.sh'), time, time)
    const links = { up: 'sub/open', 'sub/deep/back': '../../run.sh', 'sub/dangling': './none', 'sub/dir': 'deep' }
    for (const [name, target] of Object.entries(links)) symlinkSync(target, here.path(name))
    expect(await here.push()).toMatchObject({ failed: [] })
    expect(await there.pull()).toMatchObject({ failed: [], transferred: 4 })
    expect(there.warnings()).toEqual([])
    expect(snapshot(there.local)).toEqual(snapshot(here.local))
    for (const [name, target] of Object.entries(links)) expect(readlinkSync(there.path(name))).toBe(target)
    // Never setuid, and nothing for others that a new file of this user would not be.
    expect(modeOf(there.path('run.sh'))).toBe(0o755)
    expect(modeOf(there.path('sub', 'open'))).toBe(0o644)
    expect(modeOf(there.path('sub', 'deep', 'private'))).toBe(0o600)
    expect(modeOf(there.path('readonly'))).toBe(0o444)
    expect(modeOf(there.path('sub', 'deep'))).toBe(0o700)
    expect(Math.abs(statSync(there.path('run.sh')).mtimeMs - time * 1000)).toBeLessThan(0.002)
    // What it has set is no change of anybody's, in any direction.
    for (const run of [there.pull, there.push, there.both]) expect((await run()).steps).toEqual([])

    chmodSync(here.path('run.sh'), 0o700)
    symlinkSync('run.sh', here.path('later'))
    unlinkSync(here.path('up'))
    await here.push()
    expect(await there.pull({ delete: true })).toMatchObject({ failed: [], steps: [], deleted: 0 })
    expect(modeOf(there.path('run.sh'))).toBe(0o700)
    expect(readlinkSync(there.path('later'))).toBe('run.sh')
    expect(readlinkSync(there.path('up'))).toBe('sub/open')
    expect((await there.pull()).steps).toEqual([])
  })

  test('can be taken back with its links', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { 'sub/a': 'a' })
    symlinkSync('a', here.path('sub', 'kept'))
    symlinkSync('a', here.path('sub', 'other'))
    const pushed = await here.push()
    const pulled = await there.pull()
    unlinkSync(there.path('sub', 'other'))
    symlinkSync('elsewhere', there.path('sub', 'other'))
    const undone = await there.withState((state) => undoRun(there.context, state, pulled.runId))
    expect(undone.skipped.map(({ deed }) => deed.path)).toEqual(['sub/other', 'sub'])
    expect(existsSync(there.path('sub', 'a'))).toBe(false)
    expect(() => lstatSync(there.path('sub', 'kept'))).toThrow('ENOENT')
    // A push, too; the next one stores the files and says so in a new manifest.
    expect((await here.withState((state) => undoRun(here.context, state, pushed.runId))).skipped).toEqual([])
    expect(await here.push()).toMatchObject({ failed: [], transferred: 1 })
    expect(await place.verify()).toEqual({})
    expect(await here.verify()).toEqual({})
  })

  test('leaves alone what is in the way, what was changed here, and what another content has', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { a: 'a', b: 'b', 'sub/c': 'c' })
    for (const name of ['a', 'b']) chmodSync(here.path(name), 0o751)
    for (const name of ['file', 'sub/link']) symlinkSync('a', here.path(name))
    await here.push()
    makeTree(there.local, { file: 'mine', 'sub/': '' })
    symlinkSync('mine', there.path('sub', 'link'))
    // Somebody else has stored another b since.
    await place.remove('b')
    await place.put('b', 'other')
    expect(await there.pull()).toMatchObject({ failed: [] })
    expect(there.warnings()).toEqual(['LINK_PASSED_OVER', 'LINK_PASSED_OVER'])
    expect(readFileSync(there.path('file'), 'utf8')).toBe('mine')
    expect(readlinkSync(there.path('sub', 'link'))).toBe('mine')
    expect(modeOf(there.path('a'))).toBe(0o751)
    const asNew = 0o666 & ~process.umask()
    expect(modeOf(there.path('b'))).toBe(asNew)
    expect(await createPlace(place.remote).machine('c').pull({ manifest: false })).toMatchObject({ failed: [] })
    expect(modeOf(world.path(`place${count}-c`, 'a'))).toBe(asNew)
  })
})

describe('verify', () => {
  test('names what was dropped, swapped or set back, also where nothing is known', async () => {
    const place = createPlace()
    const here = place.machine('a')
    makeTree(here.local, { dropped: 'd', rolled: 'old!', swapped: 'good', fine: 'fine', other: 'evil' })
    await here.push()
    const old = await place.node('rolled')
    writeFileSync(here.path('rolled'), 'new!')
    await here.push()
    expect(await here.verify()).toEqual({})
    expect(await place.verify()).toEqual({})
    // The new version goes, the old one is back.
    await place.remove('rolled')
    const { id: parentId } = (await requireRemote(anna.api, place.remote)).node
    await restoreDeleted(anna.api, [old.id], { parentId, resolution: 'fail' })
    await place.remove('dropped')
    const [from, to] = [await place.node('swapped'), await place.node('other')]
    const wrong = {
      dropped: 'integrity CONTENT_DROPPED',
      rolled: 'integrity CONTENT_REPLACED',
      swapped: 'integrity CONTENT_SWAPPED',
    }
    expect(await here.verify(through(here.context, from.id, to.id))).toEqual(wrong)
    expect(codes(await verifyRemote(through(anna.context, from.id, to.id), place.remote))).toEqual(wrong)
  })

  test('compares contents with their SHA-256, too', async () => {
    const place = createPlace()
    const here = place.machine('a')
    makeTree(here.local, { a: 'aaa' })
    await here.push()
    const { entries, ...head } = await place.manifest()
    const changed = entries.map((one) => ({ ...one, sha256: sha256('bbb') }))
    await place.forge({ format: 'sealsync-manifest', version: 1, ...head, entries: changed })
    expect(await place.verify()).toEqual({ a: 'integrity CONTENT_SWAPPED' })
  })

  test('notices a manifest that is gone, another one, older, or made by somebody else; push tells and replaces it', async () => {
    const place = createPlace()
    const here = place.machine('a')
    makeTree(here.local, { a: 'a' })
    await here.push()
    const first = { node: await place.node(MANIFEST_NAME), manifest: await place.manifest() }
    writeFileSync(here.path('a'), 'changed')
    await here.push()
    const { manifest: second } = { manifest: await place.manifest() }
    const cases: [string, () => Promise<unknown>][] = [
      [
        'MANIFEST_ROLLED_BACK',
        async () => {
          const { id: parentId } = (await requireRemote(anna.api, place.remote)).node
          await restoreDeleted(anna.api, [first.node.id], { parentId, resolution: 'overwrite' })
        },
      ],
      ['MANIFEST_DROPPED', () => place.remove(MANIFEST_NAME)],
      ['MANIFEST_SWAPPED', async () => forgeAs((await here.pin())!.sequence, [])],
      ['MANIFEST_FOREIGN', async () => forgeAs((await here.pin())!.sequence + 1, [sha256('guessed')])],
      ['MANIFEST_FOREIGN', async () => forgeAs((await here.pin())!.sequence + 1000, [(await here.pin())!.sha256])],
      ['MANIFEST_INVALID', () => place.forge('{}')],
    ]
    const forgeAs = (sequence: number, previous: string[]) =>
      place.forge({ format: 'sealsync-manifest', version: 1, ...second, sequence, previous })
    for (const [code, meddle] of cases) {
      await meddle()
      const told = { [MANIFEST_NAME]: `integrity ${code}` }
      expect(await here.verify()).toEqual(told)
      const pin = (await here.pin())!
      expect(failures(await here.push())).toEqual(told)
      expect(await place.manifest()).toMatchObject({
        sequence: pin.sequence + 1,
        previous: [pin.sha256, ...pin.previous],
      })
      expect(failures(await here.push())).toEqual({})
      expect(await here.verify()).toEqual({})
    }
    // Content of another node under the same one.
    const [now, other] = [await place.node(MANIFEST_NAME), await place.node('a')]
    expect(await here.verify(through(here.context, now.id, other.id))).toMatchObject({
      [MANIFEST_NAME]: expect.stringMatching(/MANIFEST_UNREADABLE|STORAGE_REFUSED/),
    })
  })

  test('follows what other machines have stored since', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { a: 'a' })
    await here.push()
    await there.pull()
    expect(await there.verify()).toEqual({})
    for (const text of ['1', '22', '333']) {
      writeFileSync(here.path('more'), text)
      await here.push()
    }
    expect(await there.verify()).toEqual({})
    expect(failures(await there.pull())).toEqual({})
    expect((await there.pin())?.sequence).toBe(4)
    // And the other way round: what it stores is a successor, and said to nobody.
    writeFileSync(there.path('theirs'), 't')
    expect(failures(await there.push())).toEqual({})
    expect(await here.verify()).toEqual({})
    expect(failures(await here.push())).toEqual({})
    expect(here.warnings()).toEqual([])
    expect((await place.manifest()).sequence).toBe(6)
  })

  test('one that nobody can tell about any more is taken with a warning, where the known one was only taken', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { a: 'a' })
    await here.push()
    await there.pull()
    const forgeAs = async (sequence: number) =>
      place.forge({ format: 'sealsync-manifest', version: 1, ...(await place.manifest()), sequence })
    await forgeAs(257)
    expect(failures(await there.pull())).toEqual({ [MANIFEST_NAME]: 'integrity MANIFEST_FOREIGN' })
    await forgeAs(258)
    expect(await there.verify()).toEqual({})
    expect(there.warnings()).toEqual(['NOT_PINNED'])
    expect(failures(await there.pull())).toEqual({})
    expect(there.warnings()).toEqual(['NOT_PINNED'])
    expect(await there.pin()).toMatchObject({ sequence: 258 })
    expect(await here.verify()).toEqual({ [MANIFEST_NAME]: 'integrity MANIFEST_FOREIGN' })
  })

  test('a pull tells of an older manifest, takes nothing from it, and may be told that it is right', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { a: 'a' })
    await here.push()
    const first = await place.node(MANIFEST_NAME)
    chmodSync(here.path('a'), 0o700)
    await here.push()
    await there.pull()
    const { id: parentId } = (await requireRemote(anna.api, place.remote)).node
    await restoreDeleted(anna.api, [first.id], { parentId, resolution: 'overwrite' })
    const told = { [MANIFEST_NAME]: 'integrity MANIFEST_ROLLED_BACK' }
    for (const _twice of [1, 2]) expect(failures(await there.pull())).toEqual(told)
    expect(modeOf(there.path('a'))).toBe(0o700)
    expect(failures(await there.pull({ acceptRoots: true }))).toEqual({})
    expect(failures(await there.pull())).toEqual({})
    await place.remove(MANIFEST_NAME)
    expect(failures(await there.pull())).toEqual({ [MANIFEST_NAME]: 'integrity MANIFEST_DROPPED' })
    expect(failures(await there.pull({ acceptRoots: true }))).toEqual({})
    expect(failures(await there.pull())).toEqual({})
  })
})

test('a run that is killed after any request: the next one goes on, and the manifest is right', async () => {
  const child = fileURLToPath(new URL('../support/killed-child.mjs', import.meta.url))
  const place = createPlace()
  const here = place.machine('a')
  let isKilled = true
  let kills = 0
  for (let limit = 1; isKilled; limit++) {
    makeTree(here.local, { [`new${limit}`]: `new ${limit}`, changed: `content ${limit}` })
    const directory = `${here.local}-state`
    const args = [world.server.url, user1, accountPassword(user1), KEY_PASSWORD, here.local, place.remote, directory]
    const running = spawn(process.execPath, [child, ...args, String(limit)], { stdio: ['ignore', 'ignore', 'inherit'] })
    const [code, signal] = await once(running, 'close')
    isKilled = signal === 'SIGKILL'
    if (!isKilled) expect(code).toBe(0)
    else kills++
    expect(failures(await here.push())).toEqual({})
    const names = (await world.list(place.remote)).map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    expect(await here.verify()).toEqual({})
    expect(await place.verify()).toEqual({})
    const { sequence, entries } = await place.manifest()
    expect(entries.map(({ path }) => path).sort()).toEqual(names.filter((name) => name !== MANIFEST_NAME))
    expect((await here.push()).steps).toEqual([])
    expect((await place.manifest()).sequence).toBe(sequence)
  }
  // Three files, three requests each and more.
  expect(kills).toBeGreaterThanOrEqual(9)
})

describe('a hostile manifest', () => {
  const file = { kind: 'file', path: 'a/b', mode: 0o644, mtimeNs: '0', size: 1, sha256: sha256('x'), node: 7 }
  const seal = Buffer.alloc(28).toString('base64')
  const head = { format: 'sealsync-manifest', version: 1, sequence: 1, previous: [], startedAt: 'x', host: 'h' }
  const parse = (entries: object[], more: object = {}) =>
    parseTreeManifest(gzipSync(JSON.stringify({ ...head, ...more, entries })))
  const invalid = expect.objectContaining({ class: 'integrity', code: 'MANIFEST_INVALID' })

  test.each([
    ['a way out', { path: '../a' }],
    ['a way out in the middle', { path: 'a/../../b' }],
    ['an absolute path', { path: '/a' }],
    ['no path', { path: '' }],
    ['NUL', { path: 'a\0b' }],
    ['an empty part', { path: 'a//b' }],
    ['a name that is too long', { path: 'x'.repeat(256) }],
    ['too many levels', { path: 'x/'.repeat(300).concat('x') }],
    ['a size that is none', { size: -1 }],
    ['a node that is none', { node: '1' }],
    ['a mode that is none', { mode: 1.5 }],
    ['a digest that is none', { sha256: 'zz' }],
    ['a seal that is none', { seal: 'zz' }],
    ['a time that is none', { mtimeNs: 'now' }],
    ['a kind that is none', { kind: 'device' }],
    ['a link without a target', { kind: 'symlink' }],
    ['a link to NUL', { kind: 'symlink', target: 'a\0' }],
  ])('is refused with %s', (_name, change) => {
    expect(parse([{ ...file, seal }]).entries).toEqual([{ ...file, seal }])
    expect(() => parse([{ ...file, seal, ...change }])).toThrow(invalid)
  })

  test('is refused as a whole when its head is not right, or a path is there twice', () => {
    for (const more of [
      { sequence: -1 },
      { previous: ['x'] },
      { previous: Array(257).fill(sha256('')) },
      { version: 2 },
    ])
      expect(() => parse([file], more)).toThrow(invalid)
    expect(() => parse([file, file])).toThrow(invalid)
    for (const bytes of ['['.repeat(100_000), '', 'null', '\xff'])
      for (const form of [Buffer.from(bytes, 'latin1'), gzipSync(Buffer.from(bytes, 'latin1'))])
        expect(() => parseTreeManifest(form)).toThrow(invalid)
  })

  test('may be compressed in several pieces, and not without bound', () => {
    const plain = Buffer.from(JSON.stringify({ ...head, entries: [file] }))
    const pieces = [plain.subarray(0, 20), plain.subarray(20)].map((piece) => gzipSync(piece))
    expect(parseTreeManifest(Buffer.concat(pieces)).entries).toEqual([file])
    const mebibyte = gzipSync(Buffer.alloc(1024 * 1024, ' '))
    for (const bytes of [
      Buffer.concat([...Array<Buffer>(481).fill(mebibyte), ...pieces]),
      Buffer.concat(pieces).subarray(0, -9),
      Buffer.from([0x1f, 0x8b]),
    ])
      expect(() => parseTreeManifest(bytes)).toThrow(invalid)
  })

  test('that cannot be read is a warning for a pull, and a failure for verify', async () => {
    const place = createPlace()
    const there = place.machine('b')
    const here = place.machine('a')
    makeTree(here.local, { a: 'a' })
    await here.push({ manifest: false })
    for (const content of ['no JSON', '{}']) {
      await place.forge(content)
      expect(await place.verify()).toEqual({ [MANIFEST_NAME]: 'integrity MANIFEST_INVALID' })
      expect(await there.pull()).toMatchObject({ failed: [] })
      expect(there.warnings()).toEqual(['MANIFEST_INVALID'])
    }
    expect(snapshot(there.local)).toEqual({ a: 'a' })
  })

  test('leads no link out of the directory, and overwrites, removes and opens nothing', async () => {
    const place = createPlace()
    const [here, there] = [place.machine('a'), place.machine('b')]
    makeTree(here.local, { 'sub/deep/a': 'a', '.ssh/config': 'c', other: 'o' })
    await here.push()
    const { entries, ...rest } = await place.manifest()
    const link = (path: string, target: string) => ({ kind: 'symlink', path, target })
    const bad = [
      link('root', '/etc/passwd'),
      link('up', '..'),
      link('sub/up', '../../x'),
      link('sub/deep/far', '../../../x'),
      link('through', 'sub/deep/other/../../x'),
      link('middle', 'sub/../../x'),
      link('nowhere/link', 'sub'),
      link('sub/deep/a/link', 'sub'),
      link('.sealsync-bin', 'sub'),
      link('.sealsync-manifest', 'sub'),
      link('sub/deep/a', '../b'),
      link('.ssh', 'sub'),
    ]
    const good = [link('sub/deep/root', '../..'), link('ok', './sub//deep/')]
    const files = entries.filter(({ path }) => !bad.some((one) => one.path === path))
    const open = files.map((one) => ({
      ...one,
      mode: 0o7777,
      mtimeNs: '1',
      // Said of another content.
      ...(one.path === 'other' ? { seal } : {}),
    }))
    await place.forge({ format: 'sealsync-manifest', version: 1, ...rest, entries: [...bad, ...good, ...open] })
    const refused = [{ path: 'other', error: { class: 'integrity', code: 'CONTENT_SWAPPED' } }]
    expect((await there.pull()).failed).toMatchObject(refused)
    // Ten by name, the others as a number.
    expect(there.warnings()).toEqual(Array(11).fill('LINK_PASSED_OVER'))
    const { other: _refused, ...others } = snapshot(here.local)
    expect(snapshot(there.local)).toEqual(others)
    for (const { path, target } of good) expect(readlinkSync(there.path(path))).toBe(target)
    for (const { path } of bad) expect(isLink(there.path(path)), path).toBe(false)
    expect(modeOf(there.path('.ssh', 'config'))).toBe(0o755)
    expect(statSync(there.path('.ssh', 'config')).mtimeMs).toBeGreaterThan(Date.UTC(2020, 0))
    expect((await there.pull()).steps).toMatchObject([{ do: 'download', path: ['other'] }])
  })
})
