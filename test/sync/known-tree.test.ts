/** When nothing is listed because nothing has changed: how often that is, and that it never makes a difference. */
import { cpSync, mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { getAccount } from '../../src/api/account.ts'
import { callFor } from '../../src/api/api.ts'
import {
  createFolder,
  deleteNode,
  listChildren,
  moveNodes,
  putRoomMembers,
  updateFile,
  updateFolder,
} from '../../src/api/nodes.ts'
import { restoreDeleted } from '../../src/api/recycle-bin.ts'
import { parseRaw, type RemoteNode } from '../../src/api/wire.ts'
import type { Client } from '../../src/client.ts'
import { pairOf, type SyncOptions } from '../../src/sync/jobs/pair.ts'
import { planLine } from '../../src/sync/plan-file.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { SyncSummary } from '../../src/sync/run-job.ts'
import { openState, stateDirectory } from '../../src/sync/state.ts'
import { createWorld, makeRoom, makeTree, type World } from '../support/cli.ts'
import fc from '../support/property.ts'
import { SEED } from '../support/seed.ts'

const SCRIPTS = process.env.SEALSYNC_FULL ? 100 : 15

let world: World
let anna: Client
/** What was searched for since it was last asked. */
const searches = { all: 0, changes: 0 }
beforeAll(async () => {
  const onRequest = ({ path }: { path: string }) => {
    // A path is looked up by a search, too.
    if (path.includes('filter=parentPath')) return
    if (/\/nodes\/search\?.*offset=0/.test(path)) searches[path.includes('filter=') ? 'changes' : 'all']++
  }
  world = await createWorld({ recorder: { onRequest }, users: ['anna', 'berta'] })
  anna = await world.client()
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const TREE = { a: 'a', b: 'b', 'sub/c': 'c', 'sub/d': 'd', 'sub/deep/e': 'e', 'other/f': 'f', 'empty/': '' }

/** What is asked for while something is done. */
async function asksFor(work: () => Promise<unknown>): Promise<'nothing' | 'changes' | 'all'> {
  Object.assign(searches, { all: 0, changes: 0 })
  await work()
  return searches.all > 0 ? 'all' : searches.changes > 0 ? 'changes' : 'nothing'
}

let count = 0
function createPair(room = '/room', client = anna, whole?: string) {
  const name = `known${++count}`
  const [local, remote, directory] = [world.path(name), whole ?? `${room}/${name}`, world.path(`${name}-state`)]
  mkdirSync(local)
  makeTree(local, TREE)
  const run = (options: Partial<SyncOptions> = {}, state = directory): Promise<SyncSummary> =>
    client.sync(local, remote, { direction: 'push', state: { directory: state, account: 'anna' }, ...options })
  return {
    local,
    remote,
    directory,
    path: (...names: string[]) => join(local, ...names),
    run,
    /** A run in which nothing fails, and what it asked for. */
    looks: (options?: Partial<SyncOptions>) =>
      asksFor(async () => {
        const { failed, stoppedBy } = await run(options)
        expect([failed, stoppedBy]).toEqual([[], undefined])
      }),
    async root(): Promise<RemoteNode> {
      return (await requireRemote(anna.api, remote)).node
    },
    async node(path: string): Promise<RemoteNode> {
      return (await requireRemote(anna.api, `${remote}/${path}`)).node
    },
    /** What somebody else stores. */
    async put(path: string, content: string) {
      const source = world.path(`${name}-other-${++count}`)
      makeTree(source, { [path]: content })
      const later = new Date(Date.now() + count * 1_000)
      utimesSync(join(source, path), later, later)
      expect(await anna.upload([source], remote, { contents: true, onConflict: 'overwrite' })).toMatchObject({
        failed: [],
      })
    },
  }
}
type Pair = ReturnType<typeof createPair>

/** Two runs: the first sends, the second finds all that is there in the records. */
async function settled(room?: string, client?: Client): Promise<Pair> {
  const pair = createPair(room, client)
  await pair.run()
  await pair.run()
  return pair
}

describe('nothing is listed', () => {
  test('after a run that found nothing but what is recorded, in any direction and with any selection', async () => {
    const pair = await settled()
    for (const direction of ['push', 'pull', 'both'] as const) expect(await pair.looks({ direction })).toBe('nothing')
    expect(await pair.looks({ selection: { patterns: ['*.x', 'sub/'] } })).toBe('nothing')
    expect(await pair.looks({ selection: { maxSize: 0 } })).toBe('nothing')
    expect(await pair.looks({ checksum: true }), 'nothing is believed when contents are compared').toBe('all')
    expect(await pair.looks(), 'it wrote down what it saw').toBe('changes')
    expect(await pair.looks()).toBe('nothing')
  })

  test('after the first push of a machine that finds all that is there', async () => {
    for (const direction of ['push', 'pull', 'both'] as const) {
      const { run, directory } = await settled()
      const other = `${directory}-${direction}`
      const looks = () => asksFor(() => run({ direction, manifest: false }, other))
      const second = direction === 'push' ? 'nothing' : 'all'
      expect([direction, await looks(), await looks(), await looks()]).toEqual([direction, 'all', second, 'nothing'])
    }
  })

  test('but not when that left something out', async () => {
    const { run, directory, path } = await settled()
    const other = `${directory}-other`
    const selection = { patterns: ['sub/'] }
    expect(await asksFor(() => run({ selection }, other))).toBe('all')
    expect(await asksFor(() => run({}, other)), 'it was not looked at').toBe('all')
    makeTree(path(), { 'sub/c': 'changed' })
    expect((await run({}, other)).transferred).toBe(1)
  })

  test('and what has changed here is sent all the same', async () => {
    const pair = await settled()
    writeFileSync(pair.path('sub/c'), 'changed')
    writeFileSync(pair.path('new'), 'new')
    expect(await pair.looks()).toBe('nothing')
    expect(await pair.looks()).toBe('changes')
    expect(await pair.looks()).toBe('nothing')
    rmSync(pair.path('b'))
    expect(await pair.looks({ delete: true })).toBe('nothing')
    expect(await pair.looks({ delete: true }), 'what was forgotten may be there').toBe('all')
    const names: string[] = []
    for await (const { name } of listChildren(anna.api, (await pair.root()).id)) names.push(name)
    expect(names.sort()).toEqual(['.sealsync-manifest', 'a', 'empty', 'new', 'other', 'sub'])
  })
})

describe('what has changed is listed', () => {
  const changes: Record<string, (pair: Pair) => Promise<unknown>> = {
    'a new file': (pair) => pair.put('sub/deep/new', 'new'),
    'a new version': (pair) => pair.put('sub/deep/e', 'other'),
    'a new folder': async (pair) => createFolder(anna.api, (await pair.node('sub/deep')).id, 'x'),
    'a renamed file': async (pair) => updateFile(anna.api, (await pair.node('sub/deep/e')).id, { name: 'x' }),
    'a renamed folder': async (pair) => updateFolder(anna.api, (await pair.node('sub/deep')).id, { name: 'x' }),
    'another time': async (pair) =>
      updateFile(anna.api, (await pair.node('sub/deep/e')).id, { timestampModification: 0 }),
    'a file moved inside': async (pair) =>
      moveNodes(anna.api, (await pair.root()).id, [{ id: (await pair.node('sub/deep/e')).id }], 'fail'),
    'a folder moved out': async (pair) => {
      const { node } = await requireRemote(anna.api, '/room')
      await moveNodes(anna.api, node.id, [{ id: (await pair.node('sub/deep')).id, name: `out${++count}` }], 'fail')
    },
    'a deleted file': async (pair) => deleteNode(anna.api, (await pair.node('sub/deep/e')).id),
    'a deleted folder': async (pair) => deleteNode(anna.api, (await pair.node('sub')).id),
  }
  test.each(Object.entries(changes))('after %s', async (_name, change) => {
    const pair = await settled()
    expect(await pair.looks()).toBe('nothing')
    await change(pair)
    expect(await pair.looks({ onConflict: 'overwrite' })).toBe('changes')
  })

  test('after something came back from the recycle bin', async () => {
    const pair = await settled()
    const { id } = await pair.node('other/f')
    await deleteNode(anna.api, id)
    rmSync(pair.path('other/f'))
    await pair.run()
    await pair.run()
    expect(await pair.looks()).toBe('nothing')
    await restoreDeleted(anna.api, [id], { resolution: 'fail' })
    expect(await pair.looks()).toBe('changes')
  })

  test.each([
    ['cannot tell', 400, '{"code":400,"errorCode":-80002}'],
    ['tells of too much', 200, '{"range":{"offset":0,"limit":500,"total":9999},"items":[]}'],
  ])('but everything, where the server %s', async (_name, status, body) => {
    const pair = await settled()
    await pair.put('sub/deep/new', 'new')
    world.server.faults.add({
      on: { method: 'GET', path: '/nodes/search$' },
      after: 1, // the look-up of the path
      do: { status, headers: { 'Content-Type': 'application/json' }, body },
    })
    expect(await pair.looks()).toBe('all')
  })
})

describe('everything is listed', () => {
  test('after rights have changed', async () => {
    const berta = await world.client('berta')
    const room = await makeRoom(anna, `rights${++count}`, false)
    const { id } = await getAccount(berta.api)
    const rights = { ...room.permissions!, manage: false }
    await putRoomMembers(anna.api, room.id, 'users', [{ id: id, permissions: rights }])
    const pair = await settled(`/${room.name}`, berta)
    expect(await pair.looks()).toBe('nothing')
    // The folder is as it was, and so is its version.
    await putRoomMembers(anna.api, room.id, 'users', [{ id: id, permissions: { ...rights, deleteRecycleBin: false } }])
    expect(await pair.looks()).toBe('all')
    expect(await pair.looks()).toBe('nothing')
  })

  test('in part, as long as records do not say all: what takes no part, names that we would store otherwise', async () => {
    const hidden = await settled()
    await hidden.put('theirs.x', 'x')
    const selection = { patterns: ['*.x'] }
    for (const isFirst of [true, false]) expect(await hidden.looks({ selection }), String(isFirst)).toBe('changes')
    const named = await settled()
    await updateFile(anna.api, (await named.node('a')).id, { name: 'z%41' })
    await named.run({ direction: 'pull' })
    for (const isFirst of [true, false]) expect(await named.looks(), String(isFirst)).toBe('all')
  })

  test('always, where there are rooms below: they have rights of their own', async () => {
    const room = await makeRoom(anna, `rooms${++count}`, false)
    const pair = createPair('', anna, `/${room.name}`)
    const inside = { name: 'inside', parentId: room.id, inheritPermissions: true }
    const made = (await callFor(anna.api, { method: 'POST', path: '/v4/nodes/rooms', json: inside }, parseRaw)) as {
      id: number
    }
    await pair.run({ direction: 'both' })
    await pair.run({ direction: 'both' })
    expect(await pair.looks({ direction: 'both' })).toBe('all')
    expect(await pair.looks({ direction: 'both' })).toBe('all')
    await deleteNode(anna.api, made.id)
    rmSync(pair.path('inside'), { recursive: true })
    for (const what of ['all', 'all', 'nothing']) expect(await pair.looks({ direction: 'both' })).toBe(what)
  })

  test('after a day, or when the clock was set back', async () => {
    const pair = await settled()
    expect(await pair.looks()).toBe('nothing')
    const directory = stateDirectory(pair.directory, pairOf('anna', pair.local, pair.remote))
    const rewrite = async (ms: number) => {
      const state = await openState(directory, pairOf('anna', pair.local, pair.remote), 0, () => {})
      state.setListed({ ...state.listed!, at: Date.now() + ms })
      await state.flush()
      await state.close()
    }
    const at = async () => {
      const state = await openState(directory, pairOf('anna', pair.local, pair.remote), 0, () => {})
      await state.close()
      return state.listed?.at
    }
    const before = await at()
    await pair.put('sub/c', 'another')
    const both = { direction: 'both' } as const
    for (const what of ['changes', 'changes', 'nothing']) expect(await pair.looks(both)).toBe(what)
    expect(await at(), 'changes do not make it younger').toBe(before)
    for (const ms of [60_000, -25 * 3_600_000]) {
      await rewrite(ms)
      expect(await pair.looks(both)).toBe('all')
      expect(await pair.looks(both)).toBe('nothing')
    }
  })
})

/** What somebody does on the server. Numbers choose among what is there. */
async function edit(pair: Pair, { act, from, to }: { act: string; from: number; to: number }): Promise<void> {
  const root = await pair.root()
  const nodes: RemoteNode[] = []
  const folders: RemoteNode[] = [root]
  for (const folder of folders) {
    for await (const node of listChildren(anna.api, folder.id)) {
      nodes.push(node)
      if (node.type !== 'file') folders.push(node)
    }
  }
  const node = nodes[from % Math.max(1, nodes.length)]
  const target = folders[to % folders.length]!
  const ignored = () => undefined
  if (act === 'put') await pair.put(`p${to % 3}`, `content ${from}`)
  else if (act === 'mkdir') await createFolder(anna.api, target.id, `n${from % 4}`).catch(ignored)
  else if (node === undefined) return
  else if (act === 'delete') await deleteNode(anna.api, node.id)
  else if (act === 'move') await moveNodes(anna.api, target.id, [{ id: node.id }], 'fail').catch(ignored)
  else if (act === 'time' && node.type === 'file') await updateFile(anna.api, node.id, { timestampModification: from })
  else if (act === 'rename') {
    const name = `r${to % 5}`
    await (node.type === 'file' ? updateFile : updateFolder)(anna.api, node.id, { name }).catch(ignored)
  }
}

const rounds = fc.array(
  fc.record({
    edits: fc.array(
      fc.record({
        act: fc.constantFrom('put', 'mkdir', 'delete', 'move', 'time', 'rename'),
        from: fc.nat(50),
        to: fc.nat(50),
      }),
      { maxLength: 2 },
    ),
    here: fc.option(fc.constantFrom('a', 'sub/c', 'fresh'), { freq: 2 }),
    direction: fc.constantFrom('push' as const, 'pull' as const, 'both' as const),
    delete: fc.boolean(),
    patterns: fc.constantFrom([], [], ['r*'], ['sub/', '!sub/deep/']),
  }),
  { minLength: 2, maxLength: 5 },
)

test(`plans are those that a listing leads to, whatever somebody does there (seed ${SEED})`, async () => {
  const saved = { nothing: 0, changes: 0, all: 0 }
  await fc.assert(
    fc.asyncProperty(rounds, async (script) => {
      const pair = await settled()
      for (const { edits, here, direction, delete: deletes, patterns } of script) {
        for (const one of edits) await edit(pair, one)
        if (here !== null) {
          mkdirSync(pair.path('sub'), { recursive: true })
          writeFileSync(pair.path(here), `here ${++count}`)
        }
        const how: Partial<SyncOptions> = {
          direction,
          delete: deletes,
          selection: { patterns },
          onConflict: 'overwrite',
          acceptRoots: true,
          maxDelete: { files: 99 },
        }
        // The same state, but without a memory of a listing: removing a record ends it.
        const other = world.path(`state-${++count}`)
        cpSync(pair.directory, other, { recursive: true })
        const itself = pairOf('anna', pair.local, pair.remote)
        const state = await openState(stateDirectory(other, itself), itself, 0, () => {})
        for (const [key, record] of [...state.records()].slice(0, 1)) {
          state.remove(key)
          state.put(key, record)
        }
        await state.flush()
        await state.close()
        const plans: SyncSummary[] = []
        saved[await asksFor(async () => plans.push(await pair.run({ ...how, dryRun: true })))]++
        const asked = await asksFor(async () => plans.push(await pair.run({ ...how, dryRun: true }, other)))
        if (state.records().size > 0) expect(asked).toBe('all')
        const shown = ({ steps, kept, ignored, files, failed }: SyncSummary) => ({
          // Names of conflicts have the time in them.
          steps: steps.map((step) => JSON.stringify(planLine(step)).replace(/\d\d\.\d\d\.\d\d/, 'now')),
          kept,
          ignored,
          files,
          failed,
        })
        expect(shown(plans[0]!)).toEqual(shown(plans[1]!))
        await pair.run(how)
        await pair.run(how)
      }
    }),
    { numRuns: SCRIPTS, endOnFailure: true },
  )
  expect(Math.min(saved.nothing, saved.changes), JSON.stringify(saved)).toBeGreaterThan(0)
})
