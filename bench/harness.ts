/**
 * Measures sides against each other: in every round each side runs once, in turn, so that a change of the machine's mood meets
 * all of them; medians and pair-wise ratios are printed with the idle share of the processors before and after.
 * @module
 */
import { cpus } from 'node:os'
import { performance } from 'node:perf_hooks'

export interface Side {
  readonly name: string
  /** Measures once; the result is in the comparison's unit. */
  run(): number | Promise<number>
}

export interface Comparison {
  readonly name: string
  readonly unit: string
  /** The first is ours; the others are what it is compared with. */
  readonly sides: readonly [Side, ...Side[]]
  /** Wanted ratio of ours to another side, by that side's name. */
  readonly goals?: Readonly<Record<string, { readonly atLeast?: number; readonly atMost?: number }>>
}

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
const QUIET = 0.85

const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const short = (value: number) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2))
const print = (line: string) => process.stdout.write(`${line}\n`)

/** Share of all processors' time spent idle during half a second. */
async function idleShare(): Promise<number> {
  const read = () => {
    const times = cpus().map(({ times }) => times)
    const idle = times.reduce((sum, time) => sum + time.idle, 0)
    return {
      idle,
      total: times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0),
    }
  }
  const before = read()
  await new Promise((resolve) => setTimeout(resolve, 500))
  const after = read()
  return (after.idle - before.idle) / Math.max(1, after.total - before.total)
}

/** Runs comparisons and prints one table row per pair. A goal is judged only when the machine was quiet before and after. */
export async function compare(comparisons: readonly Comparison[]): Promise<void> {
  print(`\nnode ${process.version}, OpenSSL ${process.versions.openssl}, ${cpus().length} processors, ${ROUNDS} rounds`)
  print('| case | ours | other side | ratio (range) | goal | idle before, after |')
  print('| --- | --- | --- | --- | --- | --- |')
  for (const { name, unit, sides, goals } of comparisons) {
    for (const side of sides) await side.run() // warm-up, not counted
    const before = await idleShare()
    const results = sides.map((): number[] => [])
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, side] of sides.entries()) results[i]!.push(await side.run())
    }
    const after = await idleShare()
    const idle = `${(before * 100).toFixed(0)} %, ${(after * 100).toFixed(0)} %`
    const ours = results[0]!
    if (sides.length === 1) print(`| ${name} | ${short(median(ours))} ${unit} | - | - | - | ${idle} |`)
    for (const [i, side] of sides.entries()) {
      if (i === 0) continue
      const ratios = ours.map((value, round) => value / results[i]![round]!)
      const ratio = median(ratios)
      const { atLeast, atMost } = goals?.[side.name] ?? {}
      const wanted = atLeast !== undefined ? `≥ ${atLeast}` : atMost !== undefined ? `≤ ${atMost}` : '-'
      const met = ratio >= (atLeast ?? 0) && ratio <= (atMost ?? Number.POSITIVE_INFINITY)
      const verdict =
        wanted === '-' ? '' : Math.min(before, after) < QUIET ? ' (not judged: busy)' : met ? ' met' : ' MISSED'
      const range = `${short(Math.min(...ratios))}…${short(Math.max(...ratios))}`
      const other = `${side.name} ${short(median(results[i]!))}`
      print(
        `| ${name} | ${short(median(ours))} ${unit} | ${other} | ${short(ratio)} (${range}) | ${wanted}${verdict} | ${idle} |`,
      )
    }
  }
}

/** Milliseconds that `work` takes. */
export async function time(work: () => unknown): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}
