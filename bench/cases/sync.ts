/**
 * `sync push` of 100,000 files (BENCH_TREE): the first look at a tree that is all there, a run with nothing to do, and one where
 * 1 % has changed; beside rclone (crypt) and restic, which keep their copies on the local disk. Then a state of a million places.
 * @module
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import type { SyncRecord } from '../../src/sync/records.ts'
import { openState } from '../../src/sync/state.ts'
import { compare, type Side } from '../harness.ts'
import { installed, rcloneOptions, resticInit, resticOptions } from '../peers.ts'
import { isInstalled, runProgram } from '../processes.ts'
import { createWorkbench } from '../workbench.ts'

const FILES = Number(process.env.BENCH_TREE ?? 100_000)
const PER_FOLDER = 500
const PLACES = Number(process.env.BENCH_PLACES ?? 1_000_000)

const bench = await createWorkbench()
try {
  const tree = bench.makeTree('tree', FILES, 1, PER_FOLDER)
  const room = await bench.seed({ count: FILES, size: 1, perFolder: PER_FOLDER, withKeys: false })
  const states = join(bench.base, 'home', 'sync')
  const timed = ({ seconds, peakMB }: ReturnType<typeof runProgram>) => ({ value: seconds, peakMB })
  const push = (expect: number) => timed(bench.sync(['push', tree, room], { expect }))
  const rclone = () => timed(runProgram(['rclone', 'sync', '-q', tree, 'bench:tree'], rcloneOptions(bench)))
  const restic = () => timed(runProgram(['restic', '-q', 'backup', tree], resticOptions(bench)))

  await compare([
    {
      name: `first push of ${FILES} files that are there`,
      unit: 's',
      better: 'less',
      sides: [
        {
          name: 'ours',
          run: () => push(0),
          after: () => rmSync(states, { recursive: true, force: true }),
        },
      ],
      peakMB: { atMost: 400 },
    },
  ])

  push(0)
  if (isInstalled('rclone')) rclone()
  if (isInstalled('restic')) {
    resticInit(bench)
    restic()
  }
  const peers = (): Side[] =>
    installed(
      [
        { name: 'rclone sync, crypt -> local', needs: ['rclone'], run: rclone },
        { name: 'restic -> local', needs: ['restic'], run: restic },
      ],
      'sync',
    )
  await compare([
    {
      name: `push of ${FILES} files, no change`,
      unit: 's',
      better: 'less',
      sides: [{ name: 'ours', run: () => push(0) }, ...peers()],
      goals: { 'rclone sync, crypt -> local': { atMost: 1 }, 'restic -> local': { atMost: 1 } },
      peakMB: { atMost: 400 },
    },
  ])

  // Every side sees a tree that has changed since it last ran.
  const folders = readdirSync(tree).map((name) => join(tree, name))
  let stamp = 0
  const change = () => {
    stamp++
    for (const folder of folders) {
      const names = readdirSync(folder)
      for (let at = 0; at < names.length; at += 100) writeFileSync(join(folder, names[at]!), String(stamp % 10))
    }
  }
  const changed = folders.reduce((sum, folder) => sum + Math.ceil(readdirSync(folder).length / 100), 0)
  const [first, ...others] = [{ name: 'ours', run: () => push(changed) }, ...peers()]
  const afterChange = (side: Side): Side => ({
    name: side.name,
    run() {
      change()
      return side.run()
    },
  })
  await compare([
    {
      name: `push of ${FILES} files, ${changed} changed`,
      unit: 's',
      better: 'less',
      sides: [afterChange(first!), ...others.map(afterChange)],
    },
  ])

  await measureState()
} finally {
  await bench.close()
}

async function measureState(): Promise<void> {
  const directory = join(bench.base, 'million')
  mkdirSync(directory, { mode: 0o700 })
  const pair = { account: 'bench', local: '/tree', remote: '/room' }
  const open = () => openState(directory, pair, 0, () => {})
  const write = async () => {
    rmSync(join(directory, 'records'), { force: true })
    const state = await open()
    for (let n = 0; n < PLACES; n++) {
      const path = `folder${Math.floor(n / 1000)}/sub${Math.floor(n / 100) % 10}/file-${n}.dat`
      const times = { mtimeMs: 1_577_836_800_000.25 + n, ctimeMs: 1_577_836_800_000.5 + n, ino: n }
      const one: SyncRecord = {
        kind: 'file',
        path,
        local: { size: n, ...times },
        remote: { id: n, size: n, modified: 1_577_836_800_000 + n },
        seal: Buffer.alloc(28, n).toString('base64'),
      }
      state.put(path, one)
    }
    await state.flush()
    await state.close()
  }
  const read = async () => {
    const state = await open()
    if (state.records().size !== PLACES) throw new Error('records are missing')
    await state.close()
  }
  const timed = (name: string, work: () => Promise<void>) => ({
    name,
    unit: 's',
    better: 'less' as const,
    sides: [
      {
        name: 'ours',
        async run() {
          const begun = performance.now()
          await work()
          return (performance.now() - begun) / 1000
        },
      },
    ] as [Side],
  })
  await compare([timed(`state of ${PLACES} places, written one by one`, write)])
  await compare([timed(`state of ${PLACES} places, read`, read)])
}
