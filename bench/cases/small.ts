/**
 * Many small files: 10,000 of 4 KiB up, 4,000 down unless --full (BENCH_FILES sets both), and a mixed tree for the memory.
 * Up is held against the requests alone, down against the RSA operations alone, of which each file needs one.
 * @module
 */
import { join } from 'node:path'
import { compare, isFull, type Side } from '../harness.ts'
import { opensslRsa } from '../openssl.ts'
import { rate, runProgram } from '../processes.ts'
import { createWorkbench, MiB, type Workbench } from '../workbench.ts'

const BYTES = 4096
const given = process.env.BENCH_FILES
const UP = Number(given ?? 10_000)
const DOWN = Number(given ?? (isFull ? 10_000 : 4_000))
const PER_FOLDER = 1000
const DEFAULT_CONCURRENCY_MB = 160

const target = (bench: Workbench) => join(bench.base, 'target')

async function upload(storage: 's3' | 'classic'): Promise<void> {
  const bench = await createWorkbench({ storage })
  try {
    const tree = bench.makeTree('tree', UP, BYTES, PER_FOLDER)
    const bare = join(process.env.BENCH_PROGRAMS!, 'bare-requests.mjs')
    const ours: Side = {
      name: 'ours',
      run: async () => rate(UP, bench.sync(['upload', '--contents', tree, await bench.newRoom()], { expect: UP })),
    }
    const requests: Side = {
      name: 'bare requests',
      run: () => rate(UP, runProgram([process.execPath, bare, bench.url, String(UP), String(BYTES)])),
    }
    await compare([
      {
        name: `upload ${UP} x 4 KiB, ${storage} route`,
        unit: 'files/s',
        sides: [ours, requests],
        goals: { 'bare requests': { atLeast: 0.45, stretch: 0.6 } },
        peakMB: { atMost: DEFAULT_CONCURRENCY_MB },
      },
    ])
  } finally {
    await bench.close()
  }
}

async function download(): Promise<void> {
  const bench = await createWorkbench()
  const rsa = opensslRsa('private')
  const remove = () => bench.remove(target(bench))
  const get = (room: string) => rate(DOWN, bench.sync(['download', room, target(bench)], { expect: DOWN }))
  const seed = () => bench.seed({ count: DOWN, size: BYTES, perFolder: PER_FOLDER, withKeys: true })
  try {
    // Other files each time: a key that was opened once is not opened again.
    const rooms = await Promise.all(Array.from({ length: Number(process.env.BENCH_ROUNDS ?? 5) + 1 }, seed))
    const known = rooms[0]!
    const cold: Side = { name: 'ours', run: () => get(rooms.pop()!), after: remove }
    const warm: Side = { name: 'ours', run: () => get(known), after: remove }
    const name = `download ${DOWN} x 4 KiB`
    await compare([
      {
        name,
        unit: 'files/s',
        sides: [cold, rsa],
        goals: { [rsa.name]: { atLeast: 0.75, stretch: 0.9 } },
        peakMB: { atMost: DEFAULT_CONCURRENCY_MB },
      },
      {
        name: `${name}, keys known`,
        unit: 'files/s',
        sides: [warm, rsa],
        goals: { [rsa.name]: { atLeast: 5 } },
      },
    ])
  } finally {
    await bench.close()
  }
}

/** 1,000 small files, 40 of 1 MiB and 4 of 32 MiB at once. */
async function mixed(): Promise<void> {
  const bench = await createWorkbench()
  try {
    const parts = [
      { count: 1000, size: BYTES },
      { count: 40, size: MiB },
      { count: 4, size: 32 * MiB },
    ]
    const trees = parts.map(({ count, size }, i) => bench.makeTree(`tree${i}`, count, size, PER_FOLDER))
    const files = parts.reduce((sum, { count }) => sum + count, 0)
    const rooms: string[] = []
    for (const { count, size } of parts) rooms.push(await bench.seed({ count, size, withKeys: true }))
    const up: Side = {
      name: 'ours',
      run: async () => rate(files, bench.sync(['upload', ...trees, await bench.newRoom()], { expect: files })),
    }
    const down: Side = {
      name: 'ours',
      run: () => rate(files, bench.sync(['download', ...rooms, `${target(bench)}/`], { expect: files })),
      after: () => bench.remove(target(bench)),
    }
    const peakMB = { atMost: DEFAULT_CONCURRENCY_MB }
    await compare([
      { name: 'upload a mixed tree, 172 MB', unit: 'files/s', sides: [up], peakMB },
      { name: 'download a mixed tree, 172 MB', unit: 'files/s', sides: [down], peakMB },
    ])
  } finally {
    await bench.close()
  }
}

await upload('s3')
if (isFull) await upload('classic')
await download()
await mixed()
