import { describe, expect, test } from 'vitest'
import { exitCodeOfRun } from '../../src/cli/exit-codes.ts'
import { type ErrorClass, SyncError, type SyncErrorCode } from '../../src/errors.ts'
import { createTally, runEntries, summarize } from '../../src/sync/outcome.ts'
import { settle } from '../support/clock.ts'

const never = new AbortController().signal
const outage = () => new SyncError('network', 'NETWORK', 'No answer', { retryable: true })
const entries = (count: number) => Array.from({ length: count }, (_, at) => ({ shown: `f${at}`, at }))

/** Runs entries of which some fail; tells what became of them. */
async function run(
  count: number,
  jobs: number,
  fail: (at: number) => SyncError | undefined | Promise<SyncError | undefined>,
  signal = never,
) {
  const tally = createTally()
  const tried: number[] = []
  await runEntries(
    entries(count),
    jobs,
    tally,
    async ({ at }) => {
      tried.push(at)
      const error = await fail(at)
      if (error !== undefined) throw error
      return 10
    },
    { signal },
  )
  return { ...summarize(tally, 0), tried }
}

describe('what stops a run', () => {
  test.each<[ErrorClass, SyncErrorCode]>([
    ['auth', 'LOGIN_NEEDED'],
    ['tls', 'TLS_FAILED'],
    ['quota', 'QUOTA'],
    ['permission', 'FORBIDDEN'],
    ['key', 'KEY_PASSWORD_WRONG'],
    ['key', 'NO_KEY_PAIR'],
    ['local_io', 'LOCAL_ENOSPC'],
    ['local_io', 'LOCAL_EROFS'],
  ])('%s %s: at once; it is reported with its entry', async (kind, code) => {
    const done = await run(10, 1, (at) => (at === 2 ? new SyncError(kind, code, 'x') : undefined))
    expect(done).toMatchObject({ transferred: 2, bytes: 20, stoppedBy: { code }, failed: [{ path: 'f2' }] })
    expect(done.tried).toEqual([0, 1, 2])
  })

  test.each<[ErrorClass, SyncErrorCode]>([
    ['local_io', 'LOCAL_EACCES'],
    ['changed', 'SOURCE_CHANGED'],
    ['conflict', 'EXISTS'],
    ['integrity', 'CONTENT_TAMPERED'],
    ['key', 'FILE_KEY_MISSING'],
    ['server', 'STORAGE_REFUSED'],
    ['safety', 'PATH_SWAPPED'],
    ['internal', 'INTERNAL'],
  ])('%s %s: is the entry’s own', async (kind, code) => {
    const done = await run(10, 1, (at) => (at % 2 === 0 ? new SyncError(kind, code, 'x') : undefined))
    expect(done).toMatchObject({ transferred: 5 })
    expect(done.stoppedBy).toBeUndefined()
    expect(done.failed).toHaveLength(5)
    expect(exitCodeOfRun(done, 'upload')).not.toBe(0)
  })
})

describe('network and server', () => {
  test.each([1, 3, 16])('an outage stops the run soon, %i at a time', async (jobs) => {
    const done = await run(1000, jobs, (at) => (at < 20 ? undefined : outage()))
    expect(done.stoppedBy).toMatchObject({ code: 'NETWORK' })
    expect(done.tried.length).toBeLessThan(20 + 3 + 2 * jobs)
    expect(exitCodeOfRun(done, 'upload')).toBe(5)
  })

  test.each([1, 16])('one file that the server fails at does not keep the rest away, %i at a time', async (jobs) => {
    const done = await run(100, jobs, (at) => (at === 5 || at === 6 ? outage() : undefined))
    expect(done).toMatchObject({ transferred: 98 })
    expect(done.stoppedBy).toBeUndefined()
    expect(exitCodeOfRun(done, 'upload')).toBe(3)
  })

  test('when nothing got through at all, that is an outage, too', async () => {
    const done = await run(1, 16, () => outage())
    expect(exitCodeOfRun(done, 'download')).toBe(5)
  })
})

test('a signal ends it: nothing new starts, what runs is awaited, the reason is told once', async () => {
  const stop = new AbortController()
  const reason = new SyncError('cancelled', 'SIGTERM', 'Stopped by SIGTERM')
  let running = 0
  const done = await run(
    100,
    4,
    async (at) => {
      running++
      await new Promise((resolve) => setImmediate(resolve))
      if (at === 5) stop.abort(reason)
      running--
      return stop.signal.aborted ? outage() : undefined
    },
    stop.signal,
  )
  expect(running).toBe(0)
  expect(done.tried.length).toBeLessThan(12)
  expect(done).toMatchObject({ failed: [], stoppedBy: { code: 'SIGTERM' } })
  expect(exitCodeOfRun(done, 'upload')).toBe(143)
})

test('never more at once than asked for, and every entry once', async () => {
  let now = 0
  let most = 0
  const done = await run(500, 7, async (at) => {
    most = Math.max(most, ++now)
    await new Promise((resolve) => (at % 3 === 0 ? setImmediate(resolve) : resolve(undefined)))
    now--
    return undefined
  })
  expect(most).toBe(7)
  expect(done.tried).toEqual(entries(500).map(({ at }) => at))
  expect(done).toMatchObject({ transferred: 500, bytes: 5000 })
})

test('a listener that throws ends the run as a bug, not as an unhandled rejection', async () => {
  const tally = createTally()
  await runEntries(
    entries(50),
    2,
    tally,
    async () => {
      throw new SyncError('conflict', 'EXISTS', 'x')
    },
    {
      signal: never,
      onFailure: () => {
        throw new Error('listener')
      },
    },
  )
  expect(tally.stoppedBy).toMatchObject({ class: 'internal' })
})

describe('a server that is too busy', () => {
  /** Runs entries that each wait for `next()`; tells how many are in flight. */
  async function world(jobs: number) {
    let busy = () => {}
    let inFlight = 0
    const waiting: (() => void)[] = []
    const done = runEntries(
      entries(200),
      jobs,
      createTally(),
      async () => {
        inFlight++
        await new Promise<void>((resolve) => waiting.push(resolve))
        inFlight--
        return 1
      },
      {
        signal: never,
        onBusy: (listener) => {
          busy = listener
          return () => {
            busy = () => {
              throw new Error('nobody listens any more')
            }
          }
        },
      },
    )
    const settle = () => new Promise((resolve) => setImmediate(resolve))
    const next = async (count = 1) => {
      for (let i = 0; i < count; i++) {
        waiting.shift()?.()
        await settle()
      }
      return inFlight
    }
    await settle()
    return { busy: () => busy(), next, done, inFlight: () => inFlight }
  }

  test('halves what is in flight, once for what was sent before, and recovers by ones', async () => {
    const { busy, next, done, inFlight } = await world(16)
    expect(inFlight()).toBe(16)
    for (let i = 0; i < 16; i++) busy() // all of them were refused
    expect(await next(8)).toBe(9) // one more is allowed after eight that got through
    expect(await next(8)).toBe(10)
    busy()
    expect(await next(7)).toBe(5)
    busy()
    expect(await next(4)).toBe(2)
    await next(300)
    await done
    expect(busy).toThrow('nobody listens')
  })

  test('one always goes on', async () => {
    const { busy, next, done } = await world(2)
    for (let i = 0; i < 5; i++) {
      busy()
      await next(1)
    }
    expect(await next(1)).toBe(1)
    await next(300)
    await done
  })
})

describe('no more open files', () => {
  const shortage = () => new SyncError('local_io', 'LOCAL_EMFILE', 'Cannot open')

  test('entries are tried again as others end, and all get through', async () => {
    let open = 0
    const tally = createTally()
    await runEntries(
      entries(60),
      16,
      tally,
      async () => {
        if (open >= 3) throw shortage()
        open++
        await new Promise((resolve) => setImmediate(resolve))
        open--
        return 1
      },
      { signal: never },
    )
    expect([tally.failed.length, tally.transferred]).toEqual([0, 60])
  })

  test('a shortage that stays is reported, for each entry', async () => {
    const done = await run(5, 4, () => shortage())
    expect(done.failed.map(({ error }) => error.code)).toEqual(Array(5).fill('LOCAL_EMFILE'))
    expect(done.stoppedBy).toBeUndefined()
    expect(done.tried).toHaveLength(25)
  })
})

test('as many at a time as the server bears, also when that changes, and never more than the jobs', async () => {
  let allowed = 2
  let changed = () => {}
  const pace = {
    allowed: () => allowed,
    onChange(listener: () => void) {
      changed = listener
      return () => {
        changed = () => {}
      }
    },
  }
  const ends: (() => void)[] = []
  let most = 0
  let atWork = 0
  const tally = createTally()
  const work = async () => {
    most = Math.max(most, ++atWork)
    await new Promise<void>((resolve) => ends.push(resolve))
    atWork--
    return 1
  }
  const done = runEntries(entries(60), 10, tally, work, { signal: never, pace })
  await settle()
  expect(ends).toHaveLength(2)
  // More begin at once, not when one has ended.
  allowed = 6
  changed()
  await settle()
  expect(ends).toHaveLength(6)
  allowed = 1
  changed()
  for (const end of ends.splice(0, 5)) end()
  await settle()
  expect([ends.length, atWork]).toEqual([1, 1])
  allowed = 99
  changed()
  for (let left = 1; left > 0; left = ends.length) {
    for (const end of ends.splice(0)) end()
    await settle()
  }
  await done
  expect([tally.transferred, most]).toEqual([60, 10])
})
