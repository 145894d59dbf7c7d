/**
 * Killed at any step, and then the same command once more: it comes to the end that it would have come to, with exit code 0, and leaves
 * nothing behind. Before and after calls that change something on the disk, and before and after pieces of requests.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CHANGES, NETWORK, noShim } from '../support/shim.ts'
import { type Bench, COMMANDS, type Command, createBench, sweepKills } from '../support/sweep.ts'

const isFull = Boolean(process.env.SEALSYNC_FULL)

let bench: Bench
beforeAll(async () => {
  bench = await createBench()
})
afterAll(() => bench.close())

/** Calls that are gone through, of the disk and of the network; each is the end of two runs, one before and one after it. */
const SWEEPS: readonly [command: Command, disk: number, network: number][] = isFull
  ? [
      [COMMANDS.pull, 40, 8],
      [COMMANDS.firstPull, 12, 4],
      [COMMANDS.firstPush, 12, 8],
      [COMMANDS.push, 20, 12],
      [COMMANDS.both, 30, 10],
      [COMMANDS.undoPull, 20, 4],
      [COMMANDS.undoPush, 12, 10],
    ]
  : [
      [COMMANDS.pull, 7, 1],
      [COMMANDS.push, 3, 3],
      [COMMANDS.both, 5, 2],
      [COMMANDS.undoPull, 5, 0],
      [COMMANDS.undoPush, 2, 3],
    ]

describe.skipIf(noShim)(`killed, and the same again${noShim}`, () => {
  let kills = 0
  test.each(SWEEPS.map((sweep) => [sweep[0].name, ...sweep] as const))(
    '%s',
    async (_name, command, disk, network) => {
      for (const [kinds, most] of [
        [CHANGES, disk],
        [NETWORK, network],
      ] as const) {
        if (most === 0) continue
        const { runs, calls, problems } = await sweepKills(bench, command, { kinds, most })
        kills += runs
        process.stdout.write(`${command.name}: ${runs} kills at ${Math.min(most, calls)} of ${calls} calls\n`)
        expect(problems).toEqual([])
      }
    },
    3_600_000,
  )
  afterAll(() => process.stdout.write(`${kills} kills\n`))
})
