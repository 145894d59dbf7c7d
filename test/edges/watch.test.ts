/**
 * Directories that are renamed, moved in, replaced or made anew are heard of again. The kernel tells all watches of a process in
 * one order, so a change elsewhere that is seen means that everything before it has been told: no test waits for time to pass.
 */
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createTreeWatcher } from '../../src/local/tree-watcher.ts'
import fc from '../support/property.ts'

const RUNS = process.env.SEALSYNC_FULL ? 500 : 40

function openWatch(root: (base: string) => string, passOver: (base: string) => string[] = () => []) {
  const base = mkdtempSync(join(tmpdir(), 'sealsync-watch-'))
  const [tree, aside, bell] = ['tree', 'aside', 'bell'].map((name) => join(base, name)) as [string, string, string]
  for (const directory of [tree, aside, bell]) mkdirSync(directory)
  let events = 0
  let strokes = 0
  const told = new Set<string>()
  const watcher = createTreeWatcher(root(base), {
    onChange: (place) => {
      events++
      told.add(place)
    },
    passOver: passOver(base),
  })
  let heard = () => {}
  const ear = watch(bell, () => heard())
  let stamp = 0
  /** Everything that was changed before has been told now. */
  async function settled(): Promise<void> {
    const name = join(bell, `${strokes++}`)
    const told = new Promise<void>((resolve) => {
      heard = () => setImmediate(resolve)
    })
    mkdirSync(name)
    await told
  }
  const end = () => {
    watcher.close()
    ear.close()
    rmSync(base, { recursive: true, force: true })
  }
  return {
    base,
    tree,
    aside,
    refresh: watcher.refresh,
    /** Looks only where something was told. */
    refreshTold(): Promise<unknown> {
      const places = [...told]
      told.clear()
      return watcher.refresh(places)
    },
    /** The places that are told of what is done. */
    async tells(work: () => void): Promise<string[]> {
      await settled()
      told.clear()
      work()
      await settled()
      return [...told].sort()
    },
    settled,
    /** Whether what is done is told. */
    async hears(work: () => void): Promise<boolean> {
      await settled()
      const before = events
      work()
      await settled()
      return events > before
    },
    put: (directory: string) => () => writeFileSync(join(directory, `file ${stamp++}`), 'x'),
    end,
  }
}

function directoriesOf(top: string): string[] {
  const found = [top]
  for (const { name } of readdirSync(top, { withFileTypes: true }).filter((one) => one.isDirectory())) {
    found.push(...directoriesOf(join(top, name)))
  }
  return found
}

describe.skipIf(process.platform !== 'linux')('what is told after a look', () => {
  const names = ['a', 'b', 'c']
  const place = fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'))
  const change = fc.oneof(
    fc.record({ do: fc.constant('make' as const), at: place }),
    fc.record({ do: fc.constant('move' as const), at: place, to: place }),
    fc.record({ do: fc.constant('out' as const), at: place }),
    fc.record({ do: fc.constant('in' as const), at: place }),
    fc.record({ do: fc.constant('remove' as const), at: place }),
    fc.record({ do: fc.constant('again' as const), at: place }),
    fc.record({ do: fc.constant('look' as const) }),
    fc.record({ do: fc.constant('look where told' as const) }),
    fc.record({ do: fc.constant('replace' as const) }),
  )
  type Change = typeof change extends fc.Arbitrary<infer T> ? T : never

  function apply({ tree, aside, base }: { tree: string; aside: string; base: string }, one: Change): void {
    const at = 'at' in one ? join(tree, one.at) : tree
    const isFree = (path: string) => !existsSync(path) && existsSync(dirname(path))
    const spare = join(aside, 'spare')
    if (one.do === 'make') mkdirSync(at, { recursive: true })
    if (one.do === 'move' && existsSync(at) && isFree(join(tree, one.to)) && !`${one.to}/`.startsWith(`${one.at}/`)) {
      renameSync(at, join(tree, one.to))
    }
    if (one.do === 'out' && existsSync(at) && !existsSync(spare)) renameSync(at, spare)
    if (one.do === 'in' && existsSync(spare) && isFree(at)) renameSync(spare, at)
    if (one.do === 'remove') rmSync(at, { recursive: true, force: true })
    if (one.do === 'again' && existsSync(at)) {
      const below = directoriesOf(at)
      rmSync(at, { recursive: true })
      for (const path of below) mkdirSync(path)
    }
    if (one.do === 'replace') {
      const old = join(base, `old ${Math.random()}`)
      renameSync(tree, old)
      mkdirSync(tree)
      for (const name of readdirSync(old)) renameSync(join(old, name), join(tree, name))
    }
  }

  test('whatever was moved, replaced or made anew: every directory that is there', async () => {
    let checked = 0
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 12 }), fc.boolean(), async (changes, isWhereTold) => {
        const world = openWatch((base) => join(base, 'tree'))
        try {
          await world.refresh()
          for (const one of changes) {
            // The look that every run begins with, at any moment.
            if (one.do === 'look') await world.refresh()
            else if (one.do === 'look where told') await world.refreshTold()
            else apply(world, one)
          }
          await world.settled()
          await (isWhereTold ? world.refreshTold() : world.refresh())
          for (const directory of directoriesOf(world.tree)) {
            checked++
            expect([directory, await world.hears(world.put(directory))]).toEqual([directory, true])
          }
          if (existsSync(join(world.aside, 'spare'))) {
            expect(await world.hears(world.put(join(world.aside, 'spare')))).toBe(false)
          }
        } finally {
          world.end()
        }
      }),
      { numRuns: RUNS },
    )
    console.log(`watch: ${checked} directories heard after ${RUNS} series of changes`)
  })

  test('without another look: everything that makes one due', async () => {
    const world = openWatch((base) => join(base, 'tree'))
    onTestFinished(world.end)
    const { tree, aside, base, hears } = world
    mkdirSync(join(tree, 'old/sub'), { recursive: true })
    mkdirSync(join(aside, 'x/y/z'), { recursive: true })
    await world.refresh()
    const steps: [string, () => void][] = [
      ['a rename', () => renameSync(join(tree, 'old'), join(tree, 'new'))],
      ['two levels below it', world.put(join(tree, 'new/sub'))],
      ['a move in', () => renameSync(join(aside, 'x'), join(tree, 'x'))],
      ['a move out', () => renameSync(join(tree, 'x'), join(aside, 'x'))],
      ['a removal', () => rmSync(join(tree, 'new'), { recursive: true })],
      ['another root', () => renameSync(tree, join(base, 'tree before'))],
      ['a root of this name again', () => mkdirSync(tree)],
    ]
    const told = []
    for (const [what, work] of steps) told.push([what, await hears(work)])
    expect(told).toEqual(steps.map(([what]) => [what, true]))
  })

  test('and where: the place itself, below the root', async () => {
    const world = openWatch((base) => join(base, 'tree'))
    onTestFinished(world.end)
    const { tree, aside, tells } = world
    mkdirSync(join(tree, 'sub/deep'), { recursive: true })
    writeFileSync(join(tree, 'sub/file'), 'x')
    symlinkSync(aside, join(tree, 'link'))
    await world.refresh()
    const at = (path: string) => join(tree, path)
    expect(await tells(() => writeFileSync(at('sub/deep/new'), 'x'))).toEqual(['sub/deep/new'])
    expect(await tells(() => writeFileSync(at('sub/file'), 'y'))).toEqual(['sub/file'])
    expect(await tells(() => mkdirSync(at('fresh')))).toEqual(['fresh'])
    await world.refreshTold()
    expect(await tells(() => writeFileSync(at('fresh/a'), 'x'))).toEqual(['fresh/a'])
    const moved = await tells(() => renameSync(at('sub'), at('fresh/sub')))
    expect(moved).toEqual(expect.arrayContaining(['sub', 'fresh/sub']))
    await world.refreshTold()
    expect(await tells(() => writeFileSync(at('fresh/sub/deep/b'), 'x'))).toEqual(['fresh/sub/deep/b'])
    // Through a link nothing is looked at.
    await world.refresh(['link', 'fresh/nothing'])
    expect(await tells(() => writeFileSync(join(aside, 'c'), 'x'))).toEqual([])
    expect(await tells(() => renameSync(tree, `${tree} before`))).toContain('')
  })

  test('a link as the root: below its target, and when it gets another one', async () => {
    const world = openWatch((base) => join(base, 'link'))
    onTestFinished(world.end)
    const link = join(world.base, 'link')
    symlinkSync(world.tree, link)
    await world.refresh()
    expect(await world.hears(world.put(world.tree))).toBe(true)
    expect(
      await world.hears(() => {
        symlinkSync(world.aside, `${link}2`)
        renameSync(`${link}2`, link)
      }),
    ).toBe(true)
    await world.refresh()
    expect(await world.hears(world.put(world.aside))).toBe(true)
    expect(await world.hears(world.put(world.tree))).toBe(false)
  })

  test('when the system has no more watches, that is said; what is watched stays so, the rest is later', async () => {
    const world = openWatch((base) => join(base, 'tree'))
    onTestFinished(world.end)
    await world.refresh()
    for (const name of ['a', 'b', 'c']) mkdirSync(join(world.tree, name))
    const original = fs.watch
    let left = 1
    const replace = (watchOf: unknown) => {
      Object.assign(fs, { watch: watchOf })
      syncBuiltinESMExports()
    }
    replace((...args: Parameters<typeof original>) => {
      if (left-- <= 0) throw Object.assign(new Error('no more watches'), { code: 'ENOSPC' })
      return original(...args)
    })
    try {
      expect(await world.refresh()).toMatchObject({ code: 'ENOSPC' })
    } finally {
      replace(original)
    }
    const heard = async () => {
      const told = []
      for (const name of ['.', 'a', 'b', 'c']) told.push(await world.hears(world.put(join(world.tree, name))))
      return told.filter((isHeard) => isHeard).length
    }
    expect(await heard()).toBe(2)
    expect(await world.refresh()).toBeUndefined()
    expect(await heard()).toBe(4)
  })

  test('not what we leave beside files, nor what is left out; a root below that is heard all the same', async () => {
    const world = openWatch(
      (base) => join(base, 'tree'),
      (base) => [join(base, 'tree/own'), base],
    )
    onTestFinished(world.end)
    for (const name of ['own/deep', '.sealsync-bin/run', 'other'])
      mkdirSync(join(world.tree, name), { recursive: true })
    await world.refresh()
    const heard = async (path: string) => world.hears(() => writeFileSync(join(world.tree, path), 'x'))
    // Nor when it is said to have changed.
    await world.refresh(['own', 'own/deep', 'other'])
    expect(await heard('own/deep/state')).toBe(false)
    expect(await heard('.sealsync-bin/run/file')).toBe(false)
    expect(await heard('other/.sealsync-0123456789abcdef.part')).toBe(false)
    expect(await heard('other/file')).toBe(true)
  })
})
