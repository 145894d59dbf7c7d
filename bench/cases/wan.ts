/**
 * Distance, against the discarding server behind the delay proxy: one large file (BENCH_MB, 200) at RTT 200 ms and 25 Mbit/s as a
 * share of the link, and 256 small files (BENCH_FILES) at RTT 600 ms. Whole processes; the seconds of waiting are those that the
 * same command does not need on the same machine without a network.
 * @module
 */
import { join } from 'node:path'
import { compare, type Side } from '../harness.ts'
import { type Counts, type Link, NEAR } from '../network.ts'
import type { Usage } from '../processes.ts'
import { createWorkbench, MiB, type Workbench } from '../workbench.ts'

const LARGE = Number(process.env.BENCH_MB ?? 200) * 1_000_000
const FILES = Number(process.env.BENCH_FILES ?? 256)
const SMALL_BYTES = 4096
const NARROW: Link = { oneWayMs: 100, bytesPerSecond: 25e6 / 8, windowBytes: MiB }
const FAR: Link = { oneWayMs: 300, bytesPerSecond: 0, windowBytes: MiB }
const target = (bench: Workbench) => join(bench.base, 'target')
const print = (line: string) => process.stdout.write(`${line}\n`)

/** Says how a run used the network. */
function told(name: string, { connections, requests }: Counts, { seconds, cpuSeconds = 0, peakMB = 0 }: Usage): void {
  const used = `${requests.length} requests, ${connections} connections`
  print(`${name}: ${seconds.toFixed(1)} s, ${used}, ${cpuSeconds.toFixed(2)} CPU s, ${peakMB.toFixed(0)} MB`)
}

/** Runs behind a link, and leaves the network without one. */
async function behind(bench: Workbench, link: Link, name: string, args: readonly string[], expect: number) {
  await bench.network!.set(link)
  const usage = bench.sync(args, { expect })
  const counts = await bench.network!.set(NEAR)
  told(name, counts, usage)
  return { usage, counts }
}

const bench = await createWorkbench({ isDistant: true })
try {
  const { bytesPerSecond } = NARROW
  const file = bench.makeFile('large', LARGE)
  const large = await bench.seed({ count: 1, size: LARGE, withKeys: true })
  const tree = bench.makeTree('small', FILES, SMALL_BYTES, 1000)
  const remove = () => bench.remove(target(bench))
  const up = async (source: string) => ['upload', source, await bench.newRoom()]

  const share =
    (name: string, args: () => Promise<string[]>): Side['run'] =>
    async () => {
      const { usage, counts } = await behind(bench, NARROW, name, await args(), 1)
      const contentMs = Math.max(counts.contentUpMs, counts.contentDownMs)
      print(
        `  from the first to the last byte of content: ${((100_000 * LARGE) / bytesPerSecond / contentMs).toFixed(1)} %`,
      )
      return { value: (100 * LARGE) / bytesPerSecond / usage.seconds, peakMB: usage.peakMB }
    }
  /** Seconds that distance costs. */
  const waiting =
    (name: string, args: () => Promise<string[]>): Side['run'] =>
    async () => {
      const far = await behind(bench, FAR, name, await args(), FILES)
      remove()
      const near = await behind(bench, NEAR, `${name}, near`, await args(), FILES)
      return { value: far.usage.seconds - near.usage.seconds, peakMB: far.usage.peakMB }
    }
  const atLeast = 93
  const label = `${LARGE / 1e6} MB, RTT 200 ms, 25 Mbit/s`
  const small = `${FILES} x 4 KiB, RTT 600 ms`
  await compare([
    {
      name: `up, ${label}`,
      unit: '% of the link',
      sides: [{ name: 'ours', run: share('up', () => up(file)) }],
      isSlow: true,
      goal: { atLeast },
      peakMB: { atMost: 132 },
    },
    {
      name: `down, ${label}`,
      unit: '% of the link',
      sides: [
        {
          name: 'ours',
          run: share('down', async () => ['download', `${large}/f000000`, bench.emptyDirectory('target')]),
          after: remove,
        },
      ],
      isSlow: true,
      goal: { atLeast },
      peakMB: { atMost: 132 },
    },
  ])
  const rooms: string[] = []
  /** Other files each time: a key that was opened once is not opened again. */
  const room = async () => {
    if (rooms.length === 0) rooms.push(await bench.seed({ count: FILES, size: SMALL_BYTES, withKeys: true }))
    return rooms.pop()!
  }
  await compare([
    {
      name: `waiting, up, ${small}`,
      unit: 's',
      better: 'less',
      sides: [{ name: 'ours', run: waiting('up', () => up(tree)) }],
      isSlow: true,
      goal: { atMost: 8 },
    },
    {
      name: `waiting, down, ${small}`,
      unit: 's',
      better: 'less',
      sides: [
        { name: 'ours', run: waiting('down', async () => ['download', await room(), target(bench)]), after: remove },
      ],
      isSlow: true,
      goal: { atMost: 8 },
    },
  ])
} finally {
  await bench.close()
}
