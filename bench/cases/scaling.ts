/**
 * How the figures grow: throughput and memory with the size of a file, files a second with --jobs. Up to 1 GiB; with --full up to
 * 16 GiB, of which downloads need that much place on the disk, uploads none (the files are sparse).
 * @module
 */
import { join } from 'node:path'
import { idleShare, isFull, record } from '../harness.ts'
import { rate, throughput } from '../processes.ts'
import { judge, median, short, showGoal } from '../statistics.ts'
import { createWorkbench, MiB } from '../workbench.ts'

/** The quick run draws the curves only; their goals are about sizes that take longer. */
const ROUNDS = isFull ? Number(process.env.BENCH_ROUNDS ?? 5) : 3
const given = process.env.BENCH_MIB
const SIZES = (isFull ? [1, 4, 16, 64, 256, 1024, 4096, 10_240, 16_384] : [1, 16, 256, 1024]).filter(
  (mib) => given === undefined || mib <= Number(given),
)
/** Downloads stay on the disk while they last. */
const MOST_DOWN = Number(process.env.BENCH_MIB ?? 4096)
const JOBS = isFull ? [1, 2, 4, 8, 16, 32] : [1, 4, 16, 32]
const FILES = Number(process.env.BENCH_FILES ?? (isFull ? 4000 : 500))
/** Memory may grow by so much between 1 GiB and the largest file, millions of bytes. */
const GROWTH = { atMost: 5 }

const print = (line: string) => process.stdout.write(`${line}\n`)
interface Measured {
  readonly value: number
  readonly peakMB?: number | undefined
}

/** Medians over the rounds; in a round every point has its turn. */
async function curve(
  name: string,
  x: string,
  unit: string,
  points: readonly number[],
  run: (x: number) => Promise<Measured>,
): Promise<Map<number, Measured>> {
  const samples = new Map(points.map((point) => [point, [] as Measured[]]))
  for (let round = 0; round < ROUNDS; round++) {
    for (const point of points) samples.get(point)!.push(await run(point))
  }
  const medians = new Map<number, Measured>()
  print(`\n| ${name}: ${x} | ${unit} | peak MB |\n| --- | --- | --- |`)
  for (const [point, all] of samples) {
    const peaks = all.map(({ peakMB }) => peakMB).filter((peak) => peak !== undefined)
    const value = median(all.map(({ value }) => value))
    const peakMB = peaks.length === 0 ? undefined : median(peaks)
    medians.set(point, { value, peakMB })
    print(`| ${point} | ${short(value)} | ${peakMB === undefined ? '-' : short(peakMB)} |`)
  }
  const of = (pick: (measured: Measured) => number | undefined) =>
    [...medians].flatMap(([at, measured]) => (pick(measured) === undefined ? [] : [{ x: at, y: pick(measured)! }]))
  record({ kind: 'series', name, x, y: unit, points: of(({ value }) => value) })
  record({ kind: 'series', name: `${name}: peak memory`, x, y: 'MB', points: of(({ peakMB }) => peakMB) })
  return medians
}

/** Throughput and memory at the largest size against those of 1 GiB (of the second largest in a short run). */
function judgeGrowth(name: string, sizes: readonly number[], measured: Map<number, Measured>, idle: [number, number]) {
  const most = sizes.at(-1)!
  const from = sizes.includes(1024) && most > 1024 ? 1024 : sizes.at(-2)
  if (from === undefined) return
  const conditions = { idle, rounds: ROUNDS }
  const [small, large] = [measured.get(from)!, measured.get(most)!]
  const row = (what: string, unit: string, value: number, goal: { atLeast: number } | { atMost: number }) => {
    const verdict = judge(value, goal, conditions)
    print(`${name}, ${from} to ${most} MiB: ${what} ${short(value)} ${unit}, goal ${showGoal(goal)} ${verdict}`)
    const better = 'atMost' in goal ? 'less' : 'more'
    const rest = { goal, verdict, idle, rounds: ROUNDS } as const
    record({ kind: 'row', name: `${name}, ${from} to ${most} MiB: ${what}`, unit, better, ours: value, ...rest })
  }
  row('speed kept', 'of 1', large.value / small.value, { atLeast: 0.9 })
  if (large.peakMB !== undefined && small.peakMB !== undefined) {
    row('memory grows by', 'MB', large.peakMB - small.peakMB, GROWTH)
  }
}

const bench = await createWorkbench()
try {
  let before = await idleShare()
  const ups = await curve('upload', 'MiB', 'GB/s', SIZES, async (mib) => {
    const file = bench.makeFile('source', mib * MiB, { sparse: true })
    return throughput(mib * MiB, bench.sync(['upload', file, await bench.newRoom()], { expect: 1 }))
  })
  judgeGrowth('upload', SIZES, ups, [before, await idleShare()])
  const rooms = new Map<number, string>()
  const sizesDown = SIZES.filter((mib) => mib <= MOST_DOWN)
  for (const mib of sizesDown) rooms.set(mib, await bench.seed({ count: 1, size: mib * MiB, withKeys: true }))
  before = await idleShare()
  const downs = await curve('download', 'MiB', 'GB/s', sizesDown, async (mib) => {
    const target = bench.emptyDirectory('target')
    const usage = bench.sync(['download', `${rooms.get(mib)}/f000000`, target], { expect: 1 })
    bench.remove(target)
    return throughput(mib * MiB, usage)
  })
  judgeGrowth('download', sizesDown, downs, [before, await idleShare()])

  const tree = bench.makeTree('tree', FILES, 4096, 1000)
  await curve(`upload ${FILES} x 4 KiB`, '--jobs', 'files/s', JOBS, async (jobs) =>
    rate(
      FILES,
      bench.sync(['upload', '-j', String(jobs), '--contents', tree, await bench.newRoom()], { expect: FILES }),
    ),
  )
  const room = await bench.seed({ count: FILES, size: 4096, perFolder: 1000, withKeys: true })
  await curve(`download ${FILES} x 4 KiB`, '--jobs', 'files/s', JOBS, async (jobs) => {
    const target = join(bench.base, 'target')
    const usage = bench.sync(['download', '-j', String(jobs), room, target], { expect: FILES })
    bench.remove(target)
    return rate(FILES, usage)
  })
} finally {
  await bench.close()
}
