/**
 * The plan against a simple model of two trees: whatever people do on both sides, and wherever a run is killed, further runs
 * bring both sides together, and no content is ever lost.
 */

import { expect, test } from 'vitest'
import type { RemoteNode } from '../../src/api/wire.ts'
import { namesConflicts } from '../../src/sync/jobs/pair.ts'
import { isChange } from '../../src/sync/plan-file.ts'
import { type Direction, type ReconcileOptions, reconcile, type SyncStep } from '../../src/sync/reconcile.ts'
import { createRecord, type SyncRecord } from '../../src/sync/records.ts'
import { createBlocked, keyOf, parentKey, type RemoteItem } from '../../src/sync/scan.ts'
import type { LocalEntry } from '../../src/sync/tree.ts'
import fc from '../support/property.ts'
import { SEED } from '../support/seed.ts'

const RUNS = process.env.SEALSYNC_FULL ? 50_000 : 2_500

/** One file or directory of the model; `content` tells contents apart. */
interface Thing {
  readonly kind: 'file' | 'directory'
  readonly content: number
  /** Inode or node id. */
  readonly id: number
  readonly mtime: number
  readonly ctime: number
}
type Tree = Map<string, Thing>

class World {
  local: Tree = new Map()
  remote: Tree = new Map()
  records = new Map<string, SyncRecord>()
  /** Contents in the bins of both sides. */
  bins = new Set<number>()
  isSettled = false
  #next = 1
  next = () => this.#next++

  entry(path: string): LocalEntry {
    const { kind, content, id, mtime, ctime } = this.local.get(path)!
    const size = kind === 'file' ? 1 + (content % 3) : 0
    return { kind, path: path.split('/'), source: `/${path}`, size, mtimeMs: mtime, ctimeMs: ctime, ino: id, dev: 1 }
  }
  item(path: string): RemoteItem {
    const { kind, content, id, mtime } = this.remote.get(path)!
    const node: RemoteNode = {
      id,
      type: kind === 'file' ? 'file' : 'folder',
      name: path.split('/').at(-1)!,
      ...(kind === 'file' ? { size: 1 + (content % 3), timestampModification: mtime } : {}),
    }
    return { kind, path: path.split('/'), node, roomId: 1 }
  }
  contents(): Set<number> {
    const all = new Set(this.bins)
    for (const tree of [this.local, this.remote])
      for (const { kind, content } of tree.values()) if (kind === 'file') all.add(content)
    return all
  }
}

const below = (tree: Tree, path: string) => [...tree.keys()].filter((key) => key === path || key.startsWith(`${path}/`))

function moveIn(tree: Tree, from: string, to: string, change: (thing: Thing) => Thing = (thing) => thing): void {
  for (const key of below(tree, from)) {
    const thing = tree.get(key)!
    tree.delete(key)
    tree.set(to + key.slice(from.length), key === from ? change(thing) : thing)
  }
}

const NAMES = ['a', 'b', 'c']
const DIRS = ['x', 'y', 'x/z']

/** What somebody does on one side. Numbers choose among what is possible. */
interface Edit {
  readonly side: 'local' | 'remote'
  readonly act: 'write' | 'delete' | 'move' | 'mkdir' | 'touch' | 'turn'
  readonly from: number
  readonly to: number
}

function edit(world: World, { side, act, from, to }: Edit): void {
  const tree = world[side]
  const stamp = world.next() * 1_000
  const places = ['', ...DIRS.filter((dir) => tree.get(dir)?.kind === 'directory')]
  const place = (n: number) => places[n % places.length]!
  const target = (n: number) => [place(n), NAMES[Math.floor(n / 7) % NAMES.length]!].filter(Boolean).join('/')
  const things = [...tree.keys()].sort()
  const chosen = things[from % Math.max(1, things.length)]
  const fresh = (kind: Thing['kind']): Thing => ({
    kind,
    content: world.next(),
    id: world.next(),
    mtime: stamp,
    ctime: stamp,
  })
  if (act === 'write') {
    const path = target(to)
    const old = tree.get(path)
    if (old?.kind === 'directory') return
    // What people overwrite or delete themselves is theirs to lose; a server keeps it in its bin.
    if (old !== undefined) world.bins.add(old.content)
    const thing = fresh('file')
    tree.set(path, side === 'local' && old !== undefined ? { ...thing, id: old.id } : thing)
  } else if (act === 'mkdir') {
    const path = DIRS[to % DIRS.length]!
    if (tree.has(path) || (path.includes('/') && tree.get(parentKey(path))?.kind !== 'directory')) return
    tree.set(path, fresh('directory'))
  } else if (chosen === undefined) {
    return
  } else if (act === 'delete') {
    for (const key of below(tree, chosen)) {
      const thing = tree.get(key)!
      if (thing.kind === 'file') world.bins.add(thing.content)
      tree.delete(key)
    }
  } else if (act === 'turn') {
    // A file becomes a directory with a file in it, a directory a file.
    const { kind } = tree.get(chosen)!
    for (const key of below(tree, chosen)) {
      const thing = tree.get(key)!
      if (thing.kind === 'file') world.bins.add(thing.content)
      tree.delete(key)
    }
    tree.set(chosen, fresh(kind === 'file' ? 'directory' : 'file'))
    if (kind === 'file') tree.set(`${chosen}/a`, fresh('file'))
  } else if (act === 'touch') {
    const thing = tree.get(chosen)!
    if (side === 'local' && thing.kind === 'file') tree.set(chosen, { ...thing, ctime: stamp })
  } else {
    const isDirectory = tree.get(chosen)!.kind === 'directory'
    const path = isDirectory ? DIRS[to % DIRS.length]! : target(to)
    const parent = parentKey(path)
    if (tree.has(path) || path.startsWith(`${chosen}/`) || (parent !== '' && tree.get(parent)?.kind !== 'directory'))
      return
    moveIn(tree, chosen, path, (thing) => ({ ...thing, ctime: side === 'local' ? stamp : thing.ctime }))
  }
}

const conflictName = namesConflicts('host', 0)

function plan(world: World, options: Omit<ReconcileOptions, 'conflictName'>): SyncStep[] {
  return reconcile(
    {
      local: new Map([...world.local.keys()].sort().map((key) => [key, world.entry(key)])),
      remote: new Map([...world.remote.keys()].sort().map((key) => [key, world.item(key)])),
      records: new Map(world.records),
      blocked: createBlocked(),
      isFirst: !world.isSettled,
      isIncomplete: false,
    },
    { ...options, conflictName },
  )
}

/** Carries steps out as apply.ts does; `crash` steps are done before the power fails. */
function apply(world: World, steps: readonly SyncStep[], crash: number): { conflicts: number; isDone: boolean } {
  let conflicts = 0
  let failures = 0
  let done = 0
  const { local, remote } = world
  const remember = (key: string) => world.records.set(key, createRecord(world.entry(key), world.item(key).node))
  const same = (key: string) => local.get(key)!.content === remote.get(key)!.content
  const upload = (key: string, isNew: boolean) => {
    const parent = parentKey(key)
    if (parent !== '' && remote.get(parent)?.kind !== 'directory') throw new Error(`no folder for ${key}`)
    const old = remote.get(key)
    if (isNew && old !== undefined) throw new Error(`${key} is there`)
    if (old !== undefined) world.bins.add(old.content)
    const { content, mtime } = local.get(key)!
    remote.set(key, { kind: 'file', content, id: world.next(), mtime, ctime: 0 })
    remember(key)
  }
  const download = (key: string) => {
    const parent = parentKey(key)
    if (parent !== '' && local.get(parent)?.kind !== 'directory') throw new Error(`no directory for ${key}`)
    const old = local.get(key)
    if (old !== undefined) world.bins.add(old.content)
    const { content, mtime } = remote.get(key)!
    local.set(key, { kind: 'file', content, id: world.next(), mtime, ctime: world.next() })
    remember(key)
  }
  for (const step of steps) {
    if (step.do === 'keep' || (step.isLate && failures > 0)) continue
    if (done++ >= crash) return { conflicts, isDone: false }
    const { key } = step
    switch (step.do) {
      case 'move-remote':
      case 'move-local': {
        const tree = step.do === 'move-remote' ? remote : local
        const from = keyOf(step.from)
        expect(tree.has(key), `${step.do} onto ${key}`).toBe(false)
        expect(tree.has(from), `${step.do} of ${from}`).toBe(true)
        moveIn(tree, from, key, (thing) => (step.do === 'move-local' ? { ...thing, ctime: world.next() } : thing))
        for (const [old, record] of [...world.records]) {
          if (old !== from && !old.startsWith(`${from}/`)) continue
          world.records.delete(old)
          const path = key + old.slice(from.length)
          world.records.set(path, { ...record, path })
        }
        if (step.kind === 'file') remember(key)
        break
      }
      case 'make-folder':
        expect(remote.has(key)).toBe(false)
        remote.set(key, { kind: 'directory', content: 0, id: world.next(), mtime: 0, ctime: 0 })
        if (local.has(key)) remember(key)
        break
      case 'make-directory':
        expect(local.has(key)).toBe(false)
        local.set(key, { kind: 'directory', content: 0, id: world.next(), mtime: 0, ctime: 0 })
        if (remote.has(key)) remember(key)
        break
      case 'adopt':
        remember(key)
        break
      case 'forget':
        world.records.delete(key)
        break
      case 'upload':
        if (step.unlessSame && same(key)) remember(key)
        else upload(key, step.replaces === undefined)
        break
      case 'download':
        if (step.unlessSame && same(key)) remember(key)
        else download(key)
        break
      case 'conflict':
        if (step.unlessSame && same(key)) remember(key)
        else {
          conflicts++
          if (step.error.code !== 'KINDS_DIFFER') failures++
        }
        break
      case 'keep-both': {
        if (step.unlessSame && same(key)) {
          remember(key)
          break
        }
        const copy = keyOf(step.copy)
        expect(local.has(copy) || remote.has(copy)).toBe(false)
        moveIn(local, key, copy)
        world.records.delete(key)
        download(key)
        upload(copy, true)
        break
      }
      case 'move-aside': {
        const copy = keyOf(step.copy)
        expect(local.has(copy) || remote.has(copy)).toBe(false)
        moveIn(local, key, copy)
        for (const known of [...world.records.keys()])
          if (known === key || known.startsWith(`${key}/`)) world.records.delete(known)
        break
      }
      case 'take-link':
        throw new Error('there are no links here')
      case 'delete-remote':
      case 'delete-local': {
        if (failures > 0) break
        if (step.do === 'delete-local' && step.whole !== undefined) {
          for (const known of below(local, key)) {
            const thing = local.get(known)!
            if (thing.kind === 'file') world.bins.add(thing.content)
            local.delete(known)
            world.records.delete(known)
          }
          break
        }
        const tree = step.do === 'delete-remote' ? remote : local
        const thing = tree.get(key)!
        if (thing.kind === 'directory' && below(tree, key).length > 1) break
        if (thing.kind === 'file') world.bins.add(thing.content)
        tree.delete(key)
        world.records.delete(key)
        break
      }
    }
  }
  world.isSettled = true
  return { conflicts, isDone: true }
}

const files = (tree: Tree) =>
  [...tree]
    .filter(([, { kind }]) => kind === 'file')
    .map(([key, { content }]) => `${key}=${content}`)
    .sort()
const shape = (tree: Tree) =>
  [...tree].map(([key, { kind, content }]) => `${key}=${kind === 'file' ? content : 'dir'}`).sort()

const edits = fc.array(
  fc.record({
    side: fc.constantFrom('local' as const, 'remote' as const),
    act: fc.constantFrom('write', 'write', 'delete', 'move', 'mkdir', 'touch', 'turn') as fc.Arbitrary<Edit['act']>,
    from: fc.nat(100),
    to: fc.nat(100),
  }),
  { maxLength: 8 },
)
/** Rounds of edits, each followed by a run that may be killed. */
const rounds = fc.array(fc.record({ edits, crash: fc.option(fc.nat(12), { freq: 3 }) }), { minLength: 1, maxLength: 5 })

function runRounds(
  direction: Direction,
  how: { delete: boolean; prefer?: 'local' | 'remote' | 'newer'; onConflict?: 'overwrite' },
  script: readonly { edits: readonly Edit[]; crash: number | null }[],
  check: (world: World, conflicts: number) => void,
): void {
  const world = new World()
  for (const { edits: changes, crash } of script) {
    for (const one of changes) edit(world, one)
    const before = world.contents()
    if (crash !== null) apply(world, plan(world, { direction, ...how }), crash)
    let conflicts = 0
    // After the run that was killed, or that is the first, a second one finishes; a third has nothing to do.
    for (let run = 0; run < 3; run++)
      ({ conflicts } = apply(world, plan(world, { direction, ...how }), Number.POSITIVE_INFINITY))
    for (const content of before) if (!world.contents().has(content)) throw new Error(`content ${content} was lost`)
    if (conflicts === 0) {
      const left = plan(world, { direction, ...how }).filter(isChange)
      expect(left, 'a plan that was carried out plans nothing').toEqual([])
    }
    check(world, conflicts)
  }
}

const property = (body: (script: { edits: Edit[]; crash: number | null }[]) => void) =>
  fc.assert(fc.property(rounds, body), { numRuns: RUNS })

test(`both ways, with deletions: the trees end up equal (seed ${SEED})`, () => {
  property((script) =>
    runRounds('both', { delete: true }, script, (world, conflicts) => {
      if (conflicts === 0) expect(shape(world.remote)).toEqual(shape(world.local))
    }),
  )
})

test(`both ways, without deletions: nothing disappears from either side by a run (seed ${SEED})`, () => {
  property((script) => {
    const world = new World()
    for (const { edits: changes, crash } of script) {
      for (const one of changes) edit(world, one)
      const before = world.contents()
      for (const limit of [crash ?? 99, 99, 99]) {
        const steps = plan(world, { direction: 'both', delete: false })
        expect(steps.filter((step) => step.do === 'delete-local' || step.do === 'delete-remote')).toEqual([])
        apply(world, steps, limit)
      }
      for (const content of before) expect(world.contents().has(content)).toBe(true)
    }
  })
})

test(`a side that is preferred wins, and what it replaces is in a bin (seed ${SEED})`, () => {
  property((script) =>
    runRounds('both', { delete: true, prefer: 'local' }, script, (world, conflicts) => {
      if (conflicts === 0) expect(shape(world.remote)).toEqual(shape(world.local))
    }),
  )
})

test(`mirrors end up as their source, which is never touched (seed ${SEED})`, () => {
  for (const direction of ['push', 'pull'] as const) {
    const [source, target] = direction === 'push' ? (['local', 'remote'] as const) : (['remote', 'local'] as const)
    property((script) => {
      const world = new World()
      for (const { edits: changes, crash } of script) {
        for (const one of changes) edit(world, one)
        const before = files(world[source])
        const all = world.contents()
        let conflicts = 0
        for (const limit of [crash ?? 99, 99, 99]) {
          const steps = plan(world, { direction, delete: true, onConflict: 'overwrite' })
          ;({ conflicts } = apply(world, steps, limit))
        }
        expect(files(world[source])).toEqual(before)
        for (const content of all) expect(world.contents().has(content)).toBe(true)
        if (conflicts === 0) expect(files(world[target])).toEqual(before)
      }
    })
  }
})
