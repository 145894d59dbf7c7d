/** 100,000 files (BENCH_TREE) that are all there already: start, lists of both sides, compare, nothing to do. @module */
import { compare, type Side } from '../harness.ts'
import { installed, rcloneOptions } from '../peers.ts'
import { runProgram } from '../processes.ts'
import { createWorkbench } from '../workbench.ts'

const FILES = Number(process.env.BENCH_TREE ?? 100_000)
const PER_FOLDER = 500

const bench = await createWorkbench()
try {
  const tree = bench.makeTree('tree', FILES, 1, PER_FOLDER)
  // Links: the same times, and no second tree on the disk.
  const copy = `${tree}-copy`
  runProgram(['cp', '-al', tree, copy])
  const room = await bench.seed({ count: FILES, size: 1, perFolder: PER_FOLDER, withKeys: false })
  const seconds = (command: readonly string[], env?: { env: NodeJS.ProcessEnv }) => {
    const usage = runProgram(command, env)
    return { value: usage.seconds, peakMB: usage.peakMB }
  }
  const ours: Side = {
    name: 'ours',
    run() {
      const usage = bench.sync(['upload', '--contents', tree, room], { expect: 0 })
      return { value: usage.seconds, peakMB: usage.peakMB }
    },
  }
  const peers = installed(
    [
      { name: 'find -printf', needs: ['find'], run: () => seconds(['find', tree, '-printf', '%p %s %T@\\n']) },
      {
        name: 'rclone sync, local',
        needs: ['rclone'],
        run: () => seconds(['rclone', 'sync', '-q', tree, copy], rcloneOptions(bench)),
      },
    ],
    'rescan',
  )
  await compare([
    {
      name: `rescan ${FILES} files, no change`,
      unit: 's',
      better: 'less',
      sides: [ours, ...peers],
      goals: { 'find -printf': { atMost: 3, stretch: 2.2 } },
      peakMB: { atMost: 160 },
    },
  ])
} finally {
  await bench.close()
}
