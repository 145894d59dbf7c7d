/**
 * Each call to the file system of each command fails once, with errors in turn: the run ends with a right exit code and without
 * a stack trace, leaves nothing behind, and the same command again comes to the end that a run without a fault has. A few of
 * them always, all with SEALSYNC_FULL=1.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CHANGES, LOOKS, noShim } from '../support/shim.ts'
import { type Bench, COMMANDS, type Command, createBench, sweepErrors } from '../support/sweep.ts'

const ERRNOS = [
  ...['EIO', 'ENOSPC', 'EACCES', 'EDQUOT', 'EROFS', 'EPERM'],
  ...['EMFILE', 'ENOMEM', 'EBUSY', 'ESTALE', 'EFBIG', 'ENAMETOOLONG'],
]
const isFull = process.env.SEALSYNC_FULL === '1'
const FEW: readonly Command[] = [COMMANDS.download, COMMANDS.upload, COMMANDS.login]
const TEN_MINUTES = 600_000

describe.skipIf(noShim)(`faults of the disk${noShim}`, () => {
  let bench: Bench
  beforeAll(async () => {
    bench = await createBench()
  })
  afterAll(() => bench.close())

  test.each(isFull ? (Object.values(COMMANDS) as Command[]) : FEW)(
    '$name',
    async (command) => {
      const kinds = isFull ? [...CHANGES, ...LOOKS] : CHANGES
      const sweep = await sweepErrors(bench, command, { kinds, errnos: ERRNOS, most: isFull ? 120 : 6 })
      console.log(`${sweep.name}: ${sweep.runs} faults among ${sweep.calls} calls`)
      expect(sweep.problems).toEqual([])
      expect(sweep.runs).toBeGreaterThan(0)
    },
    isFull ? 10 * TEN_MINUTES : TEN_MINUTES,
  )
})
