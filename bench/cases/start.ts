/** How long the program takes to start, against node itself. @module */
import { compare, type Side } from '../harness.ts'
import { runProgram } from '../processes.ts'
import { BIN } from '../workbench.ts'

/** A single start is shorter than the clock's unrest. */
const TIMES = 5

const starts = (name: string, ...args: string[]): Side => ({
  name,
  run() {
    let seconds = 0
    for (let i = 0; i < TIMES; i++) seconds += runProgram([process.execPath, ...args]).seconds
    return (seconds * 1000) / TIMES
  },
})

const goals = { 'node -e 0': { atMost: 1.5 } }
await compare([
  {
    name: '--version',
    unit: 'ms',
    better: 'less',
    sides: [starts('ours', BIN, '--version'), starts('node -e 0', '-e', '0')],
    goals,
  },
  {
    name: '--help',
    unit: 'ms',
    better: 'less',
    sides: [starts('ours', BIN, '--help'), starts('node -e 0', '-e', '0')],
    goals,
  },
])
