/**
 * Each call to the file system of each command fails, with one of twelve errors: the run ends with a right exit code and without
 * a stack trace, leaves nothing behind, and the same command again comes to the end that a run without a fault has. A few of
 * them always. With SEALSYNC_FULL each call once, with errors in turn; SEALSYNC_SWEEP_EACH=1 is each call with each error, which takes
 * a day, and SEALSYNC_SWEEP_MOST=N goes through N calls of each command.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Call, CHANGES, LOOKS, noShim } from '../support/shim.ts'
import { type Bench, type Command, createBench, sweepErrors } from '../support/sweep.ts'
import { COMMANDS } from '../support/sweep-commands.ts'

const ERRNOS = [
  ...['EIO', 'ENOSPC', 'EACCES', 'EDQUOT', 'EROFS', 'EPERM'],
  ...['EMFILE', 'ENOTEMPTY', 'EBUSY', 'ESTALE', 'ELOOP', 'ENAMETOOLONG'],
]
const isFull = Boolean(process.env.SEALSYNC_FULL)
const each = Boolean(process.env.SEALSYNC_SWEEP_EACH)
const most = Number(process.env.SEALSYNC_SWEEP_MOST ?? Number.MAX_SAFE_INTEGER)

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
        ...(isFull ? { errnos: ERRNOS, most, each } : few),
      })
      faults += sweep.runs
      process.stdout.write(`${sweep.name}: ${sweep.runs} faults at ${sweep.sites} kinds of ${sweep.calls} calls\n`)
      expect(sweep.problems).toEqual([])
    },
    10 * 3_600_000,
  )

  // Where it was wrong once: settings that the disk does not give are no wrong settings, and what a run takes out of its own bin again
  // must not look like a directory that somebody has replaced.
  test.each([
    [
      'settings of the user',
      COMMANDS.mkdir,
      ({ kind, path }: Call) => kind === 'open-read' && path.endsWith('/config.toml'),
    ],
    [
      'settings of a profile',
      COMMANDS.mkdir,
      ({ kind, path }: Call) => kind === 'stat' && path.endsWith('/profile-default.json'),
    ],
    [
      'the name of a file that replaces another',
      COMMANDS.pull,
      ({ kind, path }: Call) => kind === 'rename' && path.endsWith('/a'),
    ],
  ] as const)('%s', async (_name, command: Command, only) => {
    const codes = command === COMMANDS.pull ? [0, 3, 10] : [10]
    const sweep = await sweepErrors(bench, command, {
      kinds: ['open-read', 'stat', 'rename'],
      only,
      errnos: ['EMFILE', 'EIO'],
      codes,
      jobs: 1,
    })
    expect(sweep.problems).toEqual([])
    expect(sweep.runs).toBeGreaterThan(0)
  })
})
