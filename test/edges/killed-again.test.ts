/**
 * Killed at any step, and then the same command once more: it comes to the end that it would have come to, with exit code 0, and leaves
 * nothing behind. Before and after calls that change something on the disk, and before and after pieces of requests.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CHANGES, NETWORK, noShim } from '../support/shim.ts'
import { type Bench, type Command, createBench, sweepKills } from '../support/sweep.ts'
import { COMMANDS } from '../support/sweep-commands.ts'

const isFull = Boolean(process.env.SEALSYNC_FULL)

describe.skipIf(noShim)(`killed, and the same again${noShim}`, () => {
  let bench: Bench
  let kills = 0
  beforeAll(async () => {
    bench = await createBench()
  })
  afterAll(async () => {
    await bench.close()
    process.stdout.write(`${kills} kills\n`)
  })

  const commands = (Object.values(COMMANDS) as Command[]).map((command, i) => ({ ...command, i }))
  test.each(commands.filter(({ kills }) => isFull || kills?.[0] !== 0 || kills?.[1] !== 0))(
    '$name',
    async (command) => {
      const [disk, network] = isFull ? [16, 6] : (command.kills ?? [1, 0])
      // Few kills of each command are at another place in each.
      const offset = isFull ? 0 : (command.i * 0.618) % 1
      const problems: string[] = []
      for (const [kinds, most] of [
        [CHANGES, disk],
        [NETWORK, network],
      ] as const) {
        if (most === 0) continue
        const sweep = await sweepKills(bench, command, { kinds, most, offset })
        kills += sweep.runs
        process.stdout.write(`${command.name}: ${sweep.runs} kills at ${sweep.sites} of ${sweep.calls} calls\n`)
        problems.push(...sweep.problems)
      }
      expect(problems).toEqual([])
    },
    3_600_000,
  )
})
