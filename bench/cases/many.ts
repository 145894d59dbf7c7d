/**
 * Pushes of very many files (BENCH_TREE; 300,000, with `--full` also a million) that are there: the first look, a run with nothing to do, and
 * one where 1 % has changed. Processor time and memory count.
 * @module
 */
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compare } from '../harness.ts'
import type { Usage } from '../processes.ts'
import { BIN, createWorkbench } from '../workbench.ts'

const FILES = Number(process.env.BENCH_TREE ?? 300_000)
const PER_FOLDER = 500
/** One in so many changes. */
const CHANGED = 100

for (const count of process.env.BENCH_FULL === '1' ? [FILES, 1_000_000] : [FILES]) await measure(count)

async function measure(count: number): Promise<void> {
  const bench = await createWorkbench()
  try {
    const tree = bench.makeTree('tree', count, 1, PER_FOLDER)
    const room = await bench.seed({ count, size: 1, perFolder: PER_FOLDER, withKeys: false })
    const states = join(bench.base, 'home/sync')
    const push = (expect: number) => bench.sync(['push', tree, room], { expect, main: BIN })
    const row = (name: string, run: () => Usage) =>
      compare([
        {
          name: `push of ${count} files, ${name}`,
          unit: 'CPU s',
          better: 'less',
          sides: [
            {
              name: 'ours',
              run() {
                const { cpuSeconds = Number.NaN, peakMB } = run()
                return { value: cpuSeconds, peakMB }
              },
            },
          ],
          peakMB: { atMost: 700 },
        },
      ])
    await row('first look', () => {
      rmSync(states, { recursive: true, force: true })
      return push(0)
    })
    await row('no change', () => push(0))
    const folders = readdirSync(tree).map((name) => join(tree, name))
    let stamp = 0
    await row('1 % changed', () => {
      stamp++
      let changed = 0
      for (const folder of folders) {
        for (const [at, name] of readdirSync(folder).entries()) {
          if (at % CHANGED !== 0) continue
          writeFileSync(join(folder, name), String(stamp % 10))
          changed++
        }
      }
      return push(changed)
    })
  } finally {
    await bench.close()
  }
}
