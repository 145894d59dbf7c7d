/** Runs that look only where something has changed: what they do is what a look at everything would have done. */
import { existsSync, mkdirSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { moveNodes, updateFolder } from '../../src/api/nodes.ts'
import type { Client } from '../../src/client.ts'
import type { ScopedOptions } from '../../src/sync/jobs/pair.ts'
import { isChange, planLine } from '../../src/sync/plan-file.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'
import fc from '../support/property.ts'

const SCRIPTS = process.env.SEALSYNC_FULL ? 200 : 15

let world: World
let anna: Client
/** Folders that were listed, and searches, since it was last asked. */
const asked = { lists: 0, searches: 0 }
beforeAll(async () => {
  const onRequest = ({ path }: { path: string }) => {
    // A path is looked up by a search, too.
    if (/\/nodes\/search\?(?!.*filter=parentPath)/.test(path)) asked.searches++
    else if (/\/nodes\?/.test(path)) asked.lists++
  }
  world = await createWorld({ recorder: { onRequest } })
  anna = await world.client()
})
afterAll(() => world.close())

const TREE = { a: 'a', 'sub/c': 'c', 'sub/d': 'd', 'sub/deep/e': 'e', 'other/f': 'f', 'other/g/h': 'h', 'empty/': '' }

let count = 0
function createPair() {
  const name = `scoped${++count}`
  const [local, remote, directory] = [world.path(name), `/room/${name}`, world.path(`${name}-state`)]
  mkdirSync(local)
  makeTree(local, TREE)
  const run = async (options: Partial<ScopedOptions> = {}) => {
    const how: ScopedOptions = { direction: 'push', delete: true, state: { directory, account: 'anna' }, ...options }
    const summary = await anna.sync(local, remote, { maxDelete: { share: 1 }, maxChange: { share: 1 }, ...how })
    const lines = summary.steps.filter(isChange).map(planLine)
    return { ...summary, lines }
  }
  const node = async (path: string) => (await requireRemote(anna.api, join(remote, path))).node
  return { local, remote, run, node, path: (...names: string[]) => join(local, ...names) }
}

describe('a run over some places', () => {
  test('sees what is new, changed and gone there, and nothing else', async () => {
    const { run, path } = createPair()
    await run()
    makeTree(path(), { 'sub/c': 'longer', 'sub/new/x': 'x', a: 'other', 'other/f': 'changed' })
    rmSync(path('sub/d'))
    Object.assign(asked, { lists: 0, searches: 0 })
    const { lines, files } = await run({ places: ['sub/c', 'sub/new', 'sub/d'] })
    expect(lines.map(({ do: action, path: place }) => [action, place])).toEqual([
      ['make-folder', 'sub/new'],
      ['upload', 'sub/c'],
      ['upload', 'sub/new/x'],
      ['delete-remote', 'sub/d'],
    ])
    expect(asked.searches).toBe(0)
    expect(files).toBe(7)
    expect((await run()).lines.map(({ path: place }) => place)).toEqual(['a', 'other/f'])
  })

  test('finds what was moved between them', async () => {
    const { run, path, node } = createPair()
    await run()
    const before = await node('sub/deep/e')
    renameSync(path('sub/deep'), path('other/deeper'))
    const { lines } = await run({ places: ['sub/deep', 'other/deeper'] })
    expect(lines.map(({ do: action, path: place }) => [action, place])).toEqual([['move-remote', 'other/deeper']])
    expect((await node('other/deeper/e')).id).toBe(before.id)
    expect((await run()).lines).toEqual([])
  })

  test('takes the number of all files for that of those that may be deleted', async () => {
    const { run, path } = createPair()
    makeTree(path(), Object.fromEntries(Array.from({ length: 30 }, (_, at) => [`many/${at}`, `${at}`])))
    await run()
    rmSync(path('many'), { recursive: true })
    await expect(run({ places: ['many'], maxDelete: { share: 0.5 } })).rejects.toMatchObject({
      code: 'TOO_MANY_DELETIONS',
    })
    // All that it looks at is gone, and yet the side is not empty.
    expect((await run({ places: ['many'], maxDelete: { files: 30 } })).deleted).toBeGreaterThanOrEqual(30)
  })

  const misleading: [string, (pair: ReturnType<typeof createPair>) => Promise<void> | void, string[]][] = [
    ['the way there is gone', ({ path }) => rmSync(path('sub'), { recursive: true }), ['sub/c']],
    [
      'the way there is a link',
      ({ path }) => {
        renameSync(path('sub'), path('elsewhere'))
        symlinkSync('elsewhere', path('sub'))
      },
      ['sub/c'],
    ],
    ['the way there is new', ({ path }) => makeTree(path(), { 'fresh/deep/x': 'x' }), ['fresh/deep/x']],
    [
      'somebody has moved the folder above',
      async ({ node, path }) => {
        const [from, to] = [await node('sub'), await node('other')]
        await moveNodes(anna.api, to.id, [{ id: from.id }], 'fail')
        makeTree(path(), { 'sub/c': 'changed' })
      },
      ['sub/c'],
    ],
    [
      'somebody has renamed it',
      async ({ node, path }) => {
        await updateFolder(anna.api, (await node('sub')).id, { name: 'was-sub' })
        makeTree(path(), { 'sub/c': 'changed' })
      },
      ['sub/c'],
    ],
    ['the root is among them', ({ path }) => makeTree(path(), { 'other/f': 'changed' }), ['']],
  ]
  test.each(misleading)('where %s, everything is looked at', async (_what, change, places) => {
    const pair = createPair()
    await pair.run()
    await change(pair)
    const whole = await pair.run({ dryRun: true })
    const { lines, left, failed } = await pair.run({ places })
    expect([lines, left, failed]).toEqual([whole.lines, 0, []])
    expect(lines.length).toBeGreaterThan(0)
    expect((await pair.run()).lines).toEqual([])
  })

  test('that never ran before is a run over everything', async () => {
    const { run } = createPair()
    expect((await run({ places: ['sub/c'] })).transferred).toBe(6)
  })
})

const names = ['a', 'sub', 'c', 'd']
const place = fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'))
const change = fc.oneof(
  fc.record({ do: fc.constant('write' as const), at: place, size: fc.integer({ min: 0, max: 9 }) }),
  fc.record({ do: fc.constant('move' as const), at: place, to: place }),
  fc.record({ do: fc.constant('remove' as const), at: place }),
  fc.record({ do: fc.constant('make' as const), at: place }),
  fc.record({ do: fc.constant('touch' as const), at: place }),
)
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never

/** Does it, if that is possible, and says where a watcher would have heard of something. */
function apply(local: string, one: Change, stamp: number): string[] {
  const at = join(local, one.at)
  const above = dirname(at)
  const isDirectory = (path: string) => existsSync(path) && statSync(path).isDirectory()
  if (!isDirectory(above)) return []
  if (one.do === 'write') {
    if (isDirectory(at)) return []
    writeFileSync(at, 'x'.repeat(one.size) + stamp)
  } else if (one.do === 'make') {
    if (existsSync(at)) return []
    mkdirSync(at)
  } else if (!existsSync(at)) return []
  else if (one.do === 'touch') utimesSync(at, stamp, stamp)
  else if (one.do === 'remove') rmSync(at, { recursive: true })
  else {
    const to = join(local, one.to)
    if (existsSync(to) || !isDirectory(dirname(to)) || `${to}/`.startsWith(`${at}/`)) return []
    renameSync(at, to)
    return [one.at, one.to]
  }
  return [one.at]
}

test.each(['push', 'both'] as const)(
  'whatever has changed: %s leaves nothing for a look at everything',
  async (direction) => {
    let steps = 0
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(change, { maxLength: 6 }), { minLength: 1, maxLength: 3 }), async (bursts) => {
        const { local, run } = createPair()
        let stamp = 1_000_000
        await run({ direction })
        for (const burst of bursts) {
          const places = burst.flatMap((one) => apply(local, one, ++stamp))
          const { lines, failed, left } = await run({ direction, places })
          expect([failed, left]).toEqual([[], 0])
          steps += lines.length
          expect((await run({ direction, dryRun: true })).lines).toEqual([])
        }
      }),
      { numRuns: SCRIPTS },
    )
    console.log(`scoped runs, ${direction}: ${steps} steps`)
  },
)
