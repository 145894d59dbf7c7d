/**
 * Each call to the file system of each command fails once, with each of twelve errors: the run ends with a right exit code and without
 * a stack trace, leaves nothing behind, and the same command again comes to the end that a run without a fault has. A few of
 * them always, all with SEALSYNC_FULL.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CHANGES, LOOKS, noShim } from '../support/shim.ts'
import { type Bench, type Command, createBench, sweepErrors } from '../support/sweep.ts'
import { COMMANDS } from '../support/sweep-commands.ts'

const ERRNOS = [
  ...['EIO', 'ENOSPC', 'EACCES', 'EDQUOT', 'EROFS', 'EPERM'],
  ...['EMFILE', 'ENOTEMPTY', 'EBUSY', 'ESTALE', 'ELOOP', 'ENAMETOOLONG'],
]
const isFull = Boolean(process.env.SEALSYNC_FULL)

describe.skipIf(noShim)(`faults of the disk${noShim}`, () => {
  let bench: Bench
  let faults = 0
  beforeAll(async () => {
    bench = await createBench()
  })
  afterAll(async () => {
    await bench.close()
    process.stdout.write(`${faults} faults\n`)
  })

  test.each((Object.values(COMMANDS) as Command[]).map((command, i) => ({ ...command, i })))(
    '$name',
    async ({ i, ...command }) => {
      // Few faults of each command are at another place, and another error, in each.
      const few = { most: 1, offset: (i * 0.618) % 1, errnos: [ERRNOS[i % ERRNOS.length]!] }
      const sweep = await sweepErrors(bench, command, {
        kinds: [...CHANGES, ...LOOKS],
        distinct: true,
        ...(isFull ? { errnos: ERRNOS, each: true } : few),
      })
      faults += sweep.runs
      process.stdout.write(`${sweep.name}: ${sweep.runs} faults at ${sweep.sites} kinds of ${sweep.calls} calls\n`)
      expect(sweep.problems).toEqual([])
    },
    10 * 3_600_000,
  )
})
