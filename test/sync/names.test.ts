/** `names: 'escape'` in runs: what one side cannot hold comes back exactly as it was. */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Api } from '../../src/api/api.ts'
import { createFolder, deleteNode } from '../../src/api/nodes.ts'
import type { Client } from '../../src/client.ts'
import { systemRandom } from '../../src/environment.ts'
import type { HttpRequest } from '../../src/http/types.ts'
import { compareTrees } from '../../src/sync/compare.ts'
import { pairOf, runSync, type SyncOptions } from '../../src/sync/jobs/pair.ts'
import { runDownload, runUpload } from '../../src/sync/jobs/transfer.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import type { RunContext } from '../../src/sync/run.ts'
import { openState, stateDirectory } from '../../src/sync/state.ts'
import { undoRun } from '../../src/sync/undo.ts'
import { createBackup } from '../support/backup.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
let anna: Client
beforeAll(async () => {
  world = await createWorld()
  anna = await world.client()
})
afterAll(() => world.close())

const escaping = { contents: true, names: 'escape' } as const
const LONG = 'x'.repeat(255)
const COLONS = ':'.repeat(60)
/** All that a Linux disk holds; those too long for the server first. */
const TREE = {
  [LONG]: 'long',
  [COLONS]: 'colons',
  [`${'\u00fc'.repeat(100)}${'y'.repeat(55)}/f`]: 'in a long directory',
  ...Object.fromEntries(
    [
      'CON',
      'nul.txt',
      'trailing ',
      'trailing.',
      '-x',
      '%41',
      '%=CON',
      '%=a=3Ab',
      '%=',
      'a:b',
      'a%3Ab',
      'tab\there',
    ].map((name) => [name, `content of ${JSON.stringify(name)}`]),
  ),
}
const TOO_LONG = 3

const stateOf = (name: string) => ({ directory: world.path(`${name}-state`), account: 'anna' })
const files = (root: string) =>
  Object.fromEntries(Object.entries(snapshot(root)).filter(([path]) => !path.startsWith('.sealsync-bin')))

test('uploads and downloads: reported without the option, exact with it, and nothing moves again', async () => {
  const [tree, copy] = [world.path('tree'), world.path('copy')]
  makeTree(tree, TREE)
  const reported = await anna.upload([tree], '/room/reported', { contents: true })
  expect(reported.failed.map(({ error }) => error.code).sort()).toEqual([
    'NAME_TOO_LONG',
    'NAME_TOO_LONG',
    'NAME_TOO_LONG',
  ])
  const all = Object.keys(TREE).length
  const up = await anna.upload([tree], '/room/tree', escaping)
  expect(up).toMatchObject({ files: all, transferred: all, failed: [] })
  expect(await anna.upload([tree], '/room/tree', escaping)).toMatchObject({ transferred: 0, skipped: all, failed: [] })
  expect(await anna.download(['/room/tree'], copy, escaping)).toMatchObject({ transferred: all, failed: [] })
  expect(snapshot(copy)).toEqual(snapshot(tree))
  expect(await anna.download(['/room/tree'], copy, escaping)).toMatchObject({
    transferred: 0,
    skipped: all,
    failed: [],
  })
  expect(await anna.upload([copy], '/room/tree', escaping)).toMatchObject({ transferred: 0, skipped: all, failed: [] })
  const options = { contents: false, names: 'escape' } as const
  expect(await compareTrees(anna.context, tree, '/room/tree', options)).toMatchObject({
    compared: all,
    differences: [],
    failed: [],
  })
  // What differs goes beside it under a name that fits, too.
  writeFileSync(`${tree}/${LONG}`, 'changed')
  const beside = { ...escaping, onConflict: 'rename' } as const
  expect(await anna.upload([tree], '/room/tree', beside)).toMatchObject({ transferred: 1, failed: [] })
  writeFileSync(`${tree}/${COLONS}`, 'changed')
  rmSync(`${tree}/${LONG}`)
  expect(await anna.upload([tree], '/room/tree', beside)).toMatchObject({ transferred: 1, failed: [] })
  await anna.download(['/room/tree'], copy, { ...escaping, onConflict: 'skip' })
  expect(snapshot(copy)[`${COLONS} (1)`]).toBe('changed')
})

test('a pair: names that are too long are changed, renamed, deleted and brought back like others', async () => {
  const [here, there] = [world.path('here'), world.path('there')]
  makeTree(here, TREE)
  mkdirSync(there)
  const both = (local: string, more: Partial<SyncOptions> = {}) =>
    anna.sync(local, '/room/pair', { direction: 'both', names: 'escape', state: stateOf(local), ...more })
  expect(await both(here)).toMatchObject({ transferred: Object.keys(TREE).length, failed: [] })
  expect(await both(there)).toMatchObject({ transferred: Object.keys(TREE).length, failed: [] })
  expect(files(there)).toEqual(files(here))
  expect((await both(here)).steps).toEqual([])

  writeFileSync(`${there}/${LONG}`, 'changed there')
  renameSync(`${there}/${COLONS}`, `${there}/${COLONS}2`)
  rmSync(`${there}/%=CON`)
  expect(await both(there, { delete: true })).toMatchObject({ transferred: 1, moved: 1, deleted: 1, failed: [] })
  const before = files(here)
  const run = await both(here, { delete: true })
  expect(run).toMatchObject({ transferred: 1, moved: 1, deleted: 1, failed: [] })
  expect(files(here)).toEqual(files(there))

  const renamed = await both(here)
  expect(renamed.steps).toEqual([])
  renameSync(`${here}/${LONG}`, `${here}/${LONG.slice(1)}`)
  const moved = await both(here)
  expect(moved).toMatchObject({ moved: 1, failed: [] })
  const state = stateOf(here)
  const pair = pairOf('anna', here, '/room/pair')
  for (const id of [moved.runId, run.runId]) {
    const opened = await openState(stateDirectory(state.directory, pair), pair, 0, () => {})
    expect((await undoRun(anna.context, opened, id)).skipped.map(({ deed }) => deed)).toEqual([])
    await opened.flush()
    await opened.close()
    // The name on the server is back as well; on this disk a move there is taken back by the next run.
    if (id === moved.runId) expect(await both(here)).toMatchObject({ failed: [] })
  }
  expect(files(here)[COLONS]).toBe(before[COLONS])
  expect(files(here)[LONG]).toBe('long')
})

/** A server that holds names which no server should. Its own names for them are harmless. */
function hostile(names: Readonly<Record<string, string>>): RunContext {
  /** What the server is asked, under its own names. */
  const harmless = (request: HttpRequest): HttpRequest => {
    const text = request.body === undefined ? '' : Buffer.from(request.body as Uint8Array).toString()
    if (!text.startsWith('{')) return request
    const fields = JSON.parse(text)
    for (const field of ['name', 'fileName']) {
      const own = Object.keys(names).find((one) => names[one] === fields[field])
      if (own !== undefined) fields[field] = own
    }
    return { ...request, body: Buffer.from(JSON.stringify(fields)) }
  }
  const api: Api = {
    ...anna.api,
    sendPlain: (request) => anna.api.sendPlain(harmless(request)),
    async send(request) {
      const response = await anna.api.send(harmless(request))
      const text = Buffer.from(response.body).toString()
      if (!text.startsWith('{')) return response
      const json = JSON.parse(text, (key, value) => (key === 'name' ? (names[value] ?? value) : value))
      return { ...response, body: Buffer.from(JSON.stringify(json)) }
    },
  }
  const { keyring, clock } = anna
  return { api, keyring, clock, random: systemRandom }
}

test('names of the server that would leave the directory stay in it, and go back as they were', async () => {
  const names = { one: '../escaped', two: '..', three: 'sub/file', four: 'nul\0', five: '/etc', six: '%41' }
  const context = hostile(names)
  const harmless = world.path('harmless')
  makeTree(harmless, { one: '1', 'two/in': '2', three: '3', four: '4', 'five/in': '5', six: '6', 'sub/file': '7' })
  await anna.upload([harmless], '/room/hostile', { contents: true })
  const [outer, local] = [world.path('outer'), world.path('outer', 'inner')]
  mkdirSync(local, { recursive: true })
  const reported = await runDownload(context, ['/room/hostile'], local, { contents: true })
  expect(reported.failed.map(({ error }) => error.code)).toEqual(Array(5).fill('NAME_UNSAFE'))
  expect(snapshot(local)).toEqual({ '%41': '6', 'sub/': '', 'sub/file': '7' })
  rmSync(local, { recursive: true })

  const state = stateOf('hostile')
  const sync = (direction: SyncOptions['direction'], more: Partial<SyncOptions> = {}) =>
    runSync(context, local, '/room/hostile', { direction, names: 'escape', state, ...more })
  const expected = {
    '%=%41': '6',
    '%!..=2Fescaped': '1',
    '%!.=2E/': '',
    '%!.=2E/in': '2',
    '%!=2Fetc/': '',
    '%!=2Fetc/in': '5',
    '%!nul=00': '4',
    '%!sub=2Ffile': '3',
    'sub/': '',
    'sub/file': '7',
  }
  expect(await sync('pull')).toMatchObject({ transferred: 7, failed: [] })
  expect(snapshot(local)).toEqual(expected)
  expect(Object.keys(snapshot(outer)).every((path) => path.startsWith('inner/'))).toBe(true)
  const again = world.path('outer', 'again')
  expect(await runDownload(context, ['/room/hostile'], again, escaping)).toMatchObject({ transferred: 7, failed: [] })
  expect(snapshot(again)).toEqual(expected)
  expect(await runUpload(context, [again], '/room/hostile', escaping)).toMatchObject({ transferred: 0, skipped: 7 })

  // Changed here, and gone there: both go up under the names that they had.
  writeFileSync(`${local}/%!..=2Fescaped`, 'changed')
  await deleteNode(anna.api, (await requireRemote(anna.api, '/room/hostile/two')).node.id)
  expect(await sync('both')).toMatchObject({ failed: [] })
  expect(await sync('push')).toMatchObject({ transferred: 1, failed: [] })
  const look = world.path('look')
  await anna.download(['/room/hostile'], look, { contents: true })
  expect(snapshot(look)).toEqual({ ...snapshot(harmless), one: 'changed' })
})

test('names that other clients have typed as they look like ours', async () => {
  const { node } = await requireRemote(anna.api, '/room')
  const typed = await createFolder(anna.api, node.id, 'typed')
  for (const name of ['%41', '%2541', 'x%2D', '%=a', '%25=a']) await createFolder(anna.api, typed.id, name)
  const local = world.path('typed')
  expect(await anna.download(['/room/typed'], local, escaping)).toMatchObject({ failed: [] })
  expect(Object.keys(snapshot(local))).toHaveLength(5)
  await deleteNode(anna.api, typed.id)
  expect(await anna.upload([local], '/room/typed', escaping)).toMatchObject({ failed: [] })
  expect((await world.list('/room/typed')).map(({ name }) => name).sort()).toEqual(
    ['%41', '%2541', 'x%2D', '%=a', '%25=a'].sort(),
  )
})

test('a backup takes names in that are too long for the server', async () => {
  const backup = await createBackup(world)
  makeTree(backup.source, TREE)
  const reported = await backup.run()
  expect(reported.failed).toHaveLength(TOO_LONG)
  expect(await backup.run({ names: 'escape' })).toMatchObject({ created: TOO_LONG, failed: [] })
  writeFileSync(`${backup.source}/${LONG}`, 'changed')
  const changed = await backup.run({ names: 'escape' })
  expect(changed).toMatchObject({ changed: 1, created: 0, removed: 0, failed: [], isComplete: true })
  rmSync(`${backup.source}/${COLONS}`)
  expect(await backup.run({ names: 'escape' })).toMatchObject({ changed: 0, removed: 1, failed: [] })
  const { content } = await backup.restore(changed.run)
  expect(snapshot(content)).toEqual({ ...snapshot(backup.source), [COLONS]: 'colons' })
})
