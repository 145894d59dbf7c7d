/**
 * Measures sides against each other: in every round each side runs once, in turn, so that a change of the machine's mood meets
 * all of them; medians and pair-wise ratios are printed with the idle share of the processors before and after.
 * @module
 */
import { appendFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { performance } from 'node:perf_hooks'
import type { Entry } from './results.ts'
import { type Conditions, type Goal, judge, median, pairwise, short, showGoal } from './statistics.ts'

/** What a whole process used. */
export interface Sample {
  /** In the comparison's unit. */
  readonly value: number
  readonly cpuSecondsPerGiB?: number | undefined
  /** Peak of resident memory, millions of bytes. */
  readonly peakMB?: number | undefined
}

export interface Side {
  readonly name: string
  /** Measures once; the result is in the comparison's unit. */
  run(): number | Sample | Promise<number | Sample>
  /** Undoes what `run` left, not counted. */
  after?(): void
}

export interface Comparison {
  readonly name: string
  readonly unit: string
  /** Which way is better. Default: more. */
  readonly better?: 'more' | 'less'
  /** The first is ours; the others are what it is compared with. */
  readonly sides: readonly [Side, ...Side[]]
  /** Wanted ratio of ours to another side, by that side's name. */
  readonly goals?: Readonly<Record<string, Goal>>
  /** Most memory that ours may need, millions of bytes. */
  readonly peakMB?: Goal
  /** Wanted of our own value. */
  readonly goal?: Goal
  /** It waits more than it works: nothing has to be warm. */
  readonly isSlow?: boolean
}

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
/** Whether everything was asked for, not only what is quick. */
export const isFull = process.env.BENCH_FULL === '1'
const CASE = process.env.BENCH_CASE ?? ''

const print = (line: string) => process.stdout.write(`${line}\n`)
const printCells = (cells: readonly string[]) =>
  print(`| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)

/** Keeps an entry for the report of the whole run. */
type WithoutCase<T> = T extends Entry ? Omit<T, 'case'> : never
export function record(entry: WithoutCase<Entry>): void {
  const file = process.env.BENCH_RECORD
  if (file !== undefined) appendFileSync(file, `${JSON.stringify({ ...entry, case: CASE })}\n`)
}

/** Says by name what is not measured here. */
export function skip(name: string, reason: string): void {
  print(`skipped: ${name}: ${reason}`)
  record({ kind: 'skip', name, reason })
}

/** Share of all processors' time spent idle during half a second. */
export async function idleShare(): Promise<number> {
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

type Use = Omit<Sample, 'value'>
const useOf = (samples: readonly Use[]): Use => {
  const of = (pick: (sample: Use) => number | undefined) => {
    const values = samples.map(pick).filter((value) => value !== undefined)
    return values.length === 0 ? undefined : median(values)
  }
  return { cpuSecondsPerGiB: of((sample) => sample.cpuSecondsPerGiB), peakMB: of((sample) => sample.peakMB) }
}

async function measure(side: Side): Promise<Sample> {
  try {
    const result = await side.run()
    return typeof result === 'number' ? { value: result } : result
  } finally {
    side.after?.()
  }
}

const percent = (share: number) => `${(share * 100).toFixed(0)} %`
const shortMaybe = (value: number | undefined) => (value === undefined ? '-' : short(value))

function printRow(
  name: string,
  unit: string,
  better: 'more' | 'less',
  conditions: Conditions,
  ours: readonly number[],
  other: { name: string; values: readonly number[] } | undefined,
  goal: Goal | undefined,
): void {
  const ratio = other && pairwise(ours, other.values)
  const value = median(ours)
  const verdict = judge(ratio?.median ?? value, goal, conditions)
  const theirs = other && { name: other.name, value: median(other.values) }
  const { idle, rounds } = conditions
  const cells = [
    name,
    `${short(value)} ${unit}`,
    theirs === undefined ? '-' : `${theirs.name} ${short(theirs.value)}`,
    ratio === undefined ? '-' : `${short(ratio.median)} (${short(ratio.min)}…${short(ratio.max)})`,
    verdict === '' ? '-' : `${showGoal(goal)} ${verdict}`,
    idle.map(percent).join(', '),
  ]
  printCells(cells)
  record({
    kind: 'row',
    name,
    unit,
    better,
    ours: value,
    ...(theirs === undefined ? {} : { other: theirs }),
    ...(ratio === undefined ? {} : { ratio }),
    goal,
    verdict,
    idle,
    rounds,
  })
}

/** Prints one table row per pair. A goal is judged only when the machine was quiet before and after. */
export async function compare(comparisons: readonly Comparison[]): Promise<void> {
  print(`\nnode ${process.version}, OpenSSL ${process.versions.openssl}, ${cpus().length} processors, ${ROUNDS} rounds`)
  print('| case | ours | other side | ratio (range) | goal (stretch) | idle before, after |')
  print('| --- | --- | --- | --- | --- | --- |')
  const uses: string[][] = []
  for (const { name, unit, better = 'more', sides, goals, goal, peakMB, isSlow } of comparisons) {
    if (isSlow !== true) for (const side of sides) await measure(side) // warm-up, not counted
    const before = await idleShare()
    const results = sides.map((): Sample[] => [])
    for (let round = 0; round < ROUNDS; round++) {
      for (const [i, side] of sides.entries()) results[i]!.push(await measure(side))
    }
    const conditions: Conditions = { idle: [before, await idleShare()], rounds: ROUNDS }
    const values = results.map((samples) => samples.map(({ value }) => value))
    const ours = values[0]!
    if (sides.length === 1 || goal !== undefined) printRow(name, unit, better, conditions, ours, undefined, goal)
    for (const [i, side] of sides.entries()) {
      const { cpuSecondsPerGiB, peakMB: peak } = useOf(results[i]!)
      if (cpuSecondsPerGiB !== undefined || peak !== undefined) {
        uses.push([name, side.name, shortMaybe(cpuSecondsPerGiB), shortMaybe(peak)])
        record({
          kind: 'use',
          name,
          side: side.name,
          ...(cpuSecondsPerGiB === undefined ? {} : { cpuSecondsPerGiB }),
          ...(peak === undefined ? {} : { peakMB: peak }),
        })
      }
      if (i > 0) {
        printRow(name, unit, better, conditions, ours, { name: side.name, values: values[i]! }, goals?.[side.name])
      }
    }
    const peaks = results[0]!.map((sample) => sample.peakMB).filter((peak) => peak !== undefined)
    if (peakMB !== undefined && peaks.length > 0) {
      printRow(`${name}: peak memory`, 'MB', 'less', conditions, peaks, undefined, peakMB)
    }
  }
  if (uses.length === 0) return
  print('\n| case | side | CPU s per GiB | peak MB |')
  print('| --- | --- | --- | --- |')
  for (const cells of uses) printCells(cells)
}

/** Milliseconds that `work` takes. */
export async function time(work: () => unknown): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}
