/** Processor time of short commands as whole processes, against node itself. @module */
import { type Comparison, compare, type Side } from '../harness.ts'
import { runProgram } from '../processes.ts'
import { BIN, createWorkbench } from '../workbench.ts'

/** A single start is shorter than the clock's unrest. */
const TIMES = 5

const bench = await createWorkbench()
const { env } = bench

const cpu = (...args: string[]): number => {
  const { seconds, cpuSeconds = seconds } = runProgram([process.execPath, ...args], { env })
  return cpuSeconds * 1000
}

const side = (name: string, once: () => number | Promise<number>): Side => ({
  name,
  async run() {
    let sum = 0
    for (let i = 0; i < TIMES; i++) sum += await once()
    return sum / TIMES
  },
})

const node = side('node -e 0', () => cpu('-e', '0'))
const row = (name: string, once: () => number | Promise<number>, atMost?: number): Comparison => ({
  name,
  unit: 'CPU ms',
  better: 'less',
  sides: [side('ours', once), node],
  ...(atMost === undefined ? {} : { goals: { 'node -e 0': { atMost } } }),
})

try {
  const room = await bench.newRoom()
  let files = 0
  const upload = () => {
    const file = bench.makeFile(`small-${files++}`, 4096)
    return cpu(BIN, 'upload', file, room, '-q')
  }
  // From now on the own key is known.
  upload()
  await compare([
    row('--version', () => cpu(BIN, '--version'), 1.5),
    row('--help', () => cpu(BIN, '--help'), 1.5),
    row('ls /', () => cpu(BIN, 'ls', '/'), 3.5),
    row('upload of one small file', upload),
  ])
} finally {
  await bench.close()
}
