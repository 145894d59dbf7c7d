/** Only the case of a name changes, on a disk that takes both for one: what stands there gets the new name, whatever else has changed. */
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { RemoteNode } from '../../src/api/wire.ts'
import { foldKey } from '../../src/local/names.ts'
import { isChange } from '../../src/sync/plan-file.ts'
import { type Direction, reconcile, type SyncStep } from '../../src/sync/reconcile.ts'
import { createRecord, type SyncRecord } from '../../src/sync/records.ts'
import { createBlocked } from '../../src/sync/scan.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'
import { foldingEnv, noFolding } from '../support/folding.ts'
import fc from '../support/property.ts'

describe.skipIf(noFolding)(`at the command line${noFolding}`, () => {
  let world: World
  beforeAll(async () => {
    world = await createWorld()
  })
  afterAll(() => world.close())

  const sync = async (args: readonly string[], env: Record<string, string> = {}) => {
    const run = await world.cli([...args, '--key-password-file', world.keyPasswordFile, '--json'], { env })
    return { code: run.code, summary: run.json.at(-1), stderr: run.stderr }
  }
  /** As editors and people do it on such a disk. */
  const rename = (from: string, to: string) => {
    renameSync(from, `${from}-between`)
    renameSync(`${from}-between`, to)
  }

  test('pull, and back by push and both', async () => {
    const [source, disk] = [world.path('source'), world.path('disk')]
    makeTree(source, { Readme: 'one', Edited: 'old', 'Dir/file': 'two', z: 'z' })
    makeTree(disk, {})
    const folding = foldingEnv(disk)
    expect((await sync(['push', source, '/room/t'])).code).toBe(0)
    expect((await sync(['pull', '/room/t', disk], folding)).code).toBe(0)

    rename(join(source, 'Readme'), join(source, 'README'))
    rename(join(source, 'Dir'), join(source, 'DIR'))
    rename(join(source, 'Edited'), join(source, 'EDITED'))
    writeFileSync(join(source, 'EDITED'), 'edited, too')
    writeFileSync(join(source, 'new'), 'new')
    expect((await sync(['push', source, '/room/t', '--delete'])).code).toBe(0)
    const pulled = await sync(['pull', '/room/t', disk, '--delete'], folding)
    expect(pulled).toMatchObject({ code: 0, summary: { failed: [] } })
    const names = (path: string) =>
      readdirSync(path)
        .filter((name) => !name.startsWith('.sealsync'))
        .sort()
    expect(names(disk)).toEqual(['DIR', 'EDITED', 'README', 'new', 'z'])
    expect(names(join(disk, 'DIR'))).toEqual(['file'])
    expect(readFileSync(join(disk, 'README'), 'utf8')).toBe('one')
    expect(readFileSync(join(disk, 'EDITED'), 'utf8')).toBe('edited, too')
    expect((await sync(['pull', '/room/t', disk, '--delete'], folding)).summary).toMatchObject({
      exitCode: 0,
      transferred: 0,
    })

    // The other way round.
    for (const [direction, name] of [
      ['push', 'readme'],
      ['both', 'ReadMe'],
    ] as const) {
      rename(join(disk, names(disk).find((one) => /^readme/i.test(one))!), join(disk, name))
      rename(
        join(disk, names(disk).find((one) => /^dir$/i.test(one))!),
        join(disk, direction === 'push' ? 'dir' : 'Dir'),
      )
      const edited = direction === 'push' ? 'edited' : 'Edited'
      rename(join(disk, names(disk).find((one) => /^edited$/i.test(one))!), join(disk, edited))
      writeFileSync(join(disk, edited), `edited here: ${direction}`)
      const sent = await sync([direction, disk, '/room/t', '--delete'], folding)
      expect(sent).toMatchObject({ code: 0, summary: { failed: [] } })
      expect(
        (await world.list('/room/t'))
          .map((node) => node.name)
          .filter((one) => !one.startsWith('.'))
          .sort(),
      ).toEqual(names(disk))
      expect((await world.cli(['cat', `/room/t/${edited}`, '--key-password-file', world.keyPasswordFile])).stdout).toBe(
        `edited here: ${direction}`,
      )
    }
  })
})

interface Thing {
  readonly id: number
  readonly content: number
  readonly mtime: number
}

const nameAt = (n: number) => ['ab', 'Ab', 'AB', 'cd', 'Cd', 'CD'][n % 6]!

/** What somebody does on one side; on the local one a name that differs in case only is the same place. */
interface Edit {
  readonly side: 'local' | 'remote'
  readonly act: 'write' | 'rename' | 'delete'
  readonly name: number
  readonly to: number
}

test('property: both sides end up alike on a disk that folds case, and nothing is planned twice', () => {
  const edits = fc.array(
    fc.record({
      side: fc.constantFrom('local', 'remote') as fc.Arbitrary<Edit['side']>,
      act: fc.constantFrom('write', 'rename', 'rename', 'delete') as fc.Arbitrary<Edit['act']>,
      name: fc.nat(5),
      to: fc.nat(5),
    }),
    { maxLength: 5 },
  )
  const directions = fc.constantFrom('push', 'pull', 'both') as fc.Arbitrary<Direction>
  fc.assert(
    fc.property(directions, fc.array(edits, { minLength: 1, maxLength: 4 }), (direction, rounds) => {
      let next = 1
      const trees = { local: new Map<string, Thing>(), remote: new Map<string, Thing>() }
      const records = new Map<string, SyncRecord>()
      const same = (tree: Map<string, Thing>, name: string) =>
        [...tree.keys()].find((one) => foldKey(one) === foldKey(name))
      const source = direction === 'pull' ? 'remote' : 'local'
      const entry = (name: string) => {
        const { id, mtime } = trees.local.get(name)!
        return {
          kind: 'file',
          path: [name],
          source: name,
          size: 1,
          mtimeMs: mtime,
          ctimeMs: mtime,
          ino: id,
          dev: 1,
        } as const
      }
      const item = (name: string) => {
        const { id, mtime } = trees.remote.get(name)!
        const node = { id, type: 'file', name, size: 1, timestampModification: mtime } as RemoteNode
        return { kind: 'file', path: [name], node, roomId: 1 } as const
      }
      const plan = (): SyncStep[] =>
        reconcile(
          {
            local: new Map([...trees.local.keys()].map((name) => [name, entry(name)])),
            remote: new Map([...trees.remote.keys()].map((name) => [name, item(name)])),
            records: new Map(records),
            blocked: createBlocked(),
            isFirst: false,
            isIncomplete: false,
            foldsCase: true,
          },
          {
            direction,
            delete: true,
            onConflict: 'overwrite',
            prefer: 'local',
            conflictName: (name) => `${name} (copy)`,
          },
        )
      const remember = (name: string) => records.set(name, createRecord(entry(name), item(name).node))
      const carryOut = (step: SyncStep) => {
        const name = step.path[0]!
        if (step.do === 'move-local' || step.do === 'move-remote') {
          const tree = step.do === 'move-local' ? trees.local : trees.remote
          const from = step.from[0]!
          expect([undefined, from]).toContain(
            step.do === 'move-local' ? same(tree, name) : tree.has(name) ? name : undefined,
          )
          tree.set(name, tree.get(from)!)
          tree.delete(from)
          const record = records.get(from)
          records.delete(from)
          if (record !== undefined) records.set(name, { ...record, path: name })
          if (!step.isCaseOnly) remember(name)
        } else if (step.do === 'upload') {
          expect(same(trees.remote, name) ?? name).toBe(name)
          trees.remote.set(name, { ...trees.local.get(name)!, id: next++ })
          remember(name)
        } else if (step.do === 'download') {
          expect(same(trees.local, name) ?? name).toBe(name)
          trees.local.set(name, { ...trees.remote.get(name)!, id: next++ })
          remember(name)
        } else if (step.do === 'delete-local' || step.do === 'delete-remote') {
          trees[step.do === 'delete-local' ? 'local' : 'remote'].delete(name)
          records.delete(name)
        } else if (step.do === 'adopt') {
          remember(name)
        } else if (step.do === 'forget') {
          records.delete(name)
        } else {
          throw new Error(`not expected: ${step.do}`)
        }
      }
      for (const round of rounds) {
        for (const { side, act, name, to } of round) {
          if (direction !== 'both' && side !== source) continue
          const tree = trees[side]
          const there = same(tree, nameAt(name))
          if (act === 'write') {
            const old = there === undefined ? undefined : tree.get(there)
            const id = side === 'local' && old !== undefined ? old.id : next++
            tree.set(there ?? nameAt(name), { id, content: next, mtime: 1_000 * next++ })
          } else if (there !== undefined && act === 'delete') {
            tree.delete(there)
          } else if (there !== undefined && (same(tree, nameAt(to)) ?? there) === there) {
            const thing = tree.get(there)!
            tree.delete(there)
            tree.set(nameAt(to), thing)
          }
        }
        for (let run = 0; run < 2; run++) for (const step of plan()) carryOut(step)
        const shape = (tree: Map<string, Thing>) => [...tree].map(([name, { content }]) => `${name}=${content}`).sort()
        expect(shape(trees.remote)).toEqual(shape(trees.local))
        expect(plan().filter(isChange)).toEqual([])
      }
    }),
    { numRuns: process.env.SEALSYNC_FULL ? 50_000 : 2_000 },
  )
})
