/**
 * `sync backup run` of 4,000 files of 100 bytes (BENCH_TREE): the first run, and one with nothing to do; beside restic, which keeps its
 * copy on the local disk. With `--full` also of a hundred times as many, which says whether memory grows.
 * @module
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compare, type Sample, type Side } from '../harness.ts'
import { installed, resticInit, resticOptions } from '../peers.ts'
import { isInstalled, runProgram, type Usage } from '../processes.ts'
import { BIN, createWorkbench } from '../workbench.ts'

const FILES = Number(process.env.BENCH_TREE ?? 4_000)
const PER_FOLDER = 500

const bench = await createWorkbench()
try {
  for (const count of process.env.BENCH_FULL === '1' ? [FILES, 100 * FILES] : [FILES]) await measure(count)
} finally {
  await bench.close()
}

async function measure(count: number): Promise<void> {
  const tree = bench.makeTree(`tree-${count}`, count, 100, PER_FOLDER)
  const configs = join(bench.base, 'home/backups')
  mkdirSync(configs, { recursive: true, mode: 0o700 })
  let sets = 0
  const begin = async () => {
    const room = await bench.newRoom()
    const set = `set${count}-${++sets}`
    const config = `sources = [${JSON.stringify(tree)}]\ntarget = "${room}/${set}"\n`
    writeFileSync(join(configs, `${set}.toml`), config, { mode: 0o600 })
    return set
  }
  const run = (set: string) => bench.sync(['backup', 'run', set], { main: BIN })
  const processor = ({ cpuSeconds = Number.NaN, peakMB }: Usage): Sample => ({ value: cpuSeconds, peakMB })
  const restic = () => runProgram(['restic', '-q', 'backup', tree], resticOptions(bench))
  const sides = (ours: () => Promise<Sample> | Sample, theirs: () => Sample): [Side, ...Side[]] => [
    { name: 'ours', run: ours },
    ...installed([{ name: 'restic -> local', needs: ['restic'], run: theirs }], 'backup'),
  ]
  const common = { unit: 'CPU s', better: 'less' } as const
  await compare([
    {
      ...common,
      name: `first run of a set of ${count} files`,
      sides: sides(
        async () => processor(run(await begin())),
        () => {
          rmSync(join(bench.base, 'restic'), { recursive: true, force: true })
          resticInit(bench)
          return processor(restic())
        },
      ),
      peakMB: { atMost: 160 },
    },
  ])
  const set = await begin()
  run(set)
  run(set)
  if (isInstalled('restic')) {
    resticInit(bench)
    restic()
  }
  await compare([
    {
      ...common,
      name: `a run of ${count} files, no change`,
      sides: sides(
        () => processor(run(set)),
        () => processor(restic()),
      ),
      peakMB: { atMost: 160 },
    },
  ])
}
