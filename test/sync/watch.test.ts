/** `client.watch`: when runs are due, that changes on either side arrive, and what ends it. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { RunEvent, SyncSummary, WatchOptions } from '../../src/client/index.ts'
import { type Client, createClient } from '../../src/client.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { createSchedule, type ScheduleOptions } from '../../src/sync/watch.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, user1, type World } from '../support/cli.ts'
import { fakeClock, settle } from '../support/clock.ts'

describe('when a run is due', () => {
  function start(options: ScheduleOptions) {
    const clock = fakeClock('manual')
    const stop = new AbortController()
    const schedule = createSchedule(clock, options, stop.signal)
    /** Times at which something was due, and what. */
    const due: [seconds: number, what: string][] = []
    const wait = async () => {
      const what = await schedule.next()
      due.push([clock.monotonic() / 1_000, what])
    }
    /** Lets time pass, a second at a time. */
    const pass = async (seconds: number, each?: () => void) => {
      for (let i = 0; i < seconds; i++) {
        each?.()
        clock.advance(1_000)
        await settle()
      }
    }
    const run = (seconds: number, isWell = true) => {
      schedule.begin()
      clock.advance(seconds * 1_000)
      return schedule.ended(isWell)
    }
    return { clock, schedule, stop, due, wait, pass, run }
  }
  const rarely = { rescanMs: 900_000 }

  test('changes are waited for until there is quiet, but not for ever', async () => {
    const { schedule, due, wait, pass, run } = start(rarely)
    run(0)
    void wait()
    await pass(5)
    schedule.changed()
    await pass(1)
    schedule.changed()
    await pass(10)
    expect(due).toEqual([[8, 'run']])
    run(0)
    void wait()
    await pass(60, schedule.changed)
    expect(due).toEqual([
      [8, 'run'],
      [46, 'run'],
    ])
  })

  test('what changes during a run calls for another one, after a rest as long as the run deserves', async () => {
    const { schedule, clock, due, wait, pass } = start(rarely)
    schedule.begin()
    schedule.changed()
    clock.advance(10_000)
    schedule.ended(true)
    void wait()
    await pass(100)
    expect(due).toEqual([[50, 'run']])
  })

  test('what changed before a run began is done with', async () => {
    const { schedule, due, wait, pass, run } = start(rarely)
    schedule.changed()
    run(0)
    void wait()
    await pass(100)
    expect(due).toEqual([])
  })

  test('the server is asked, and everything is looked at, by the clock', async () => {
    const { due, wait, pass, run } = start({ rescanMs: 150_000, pollMs: 60_000 })
    run(0)
    for (let i = 0; i < 3; i++) {
      void wait()
      await pass(60)
    }
    expect(due).toEqual([
      [60, 'poll'],
      [120, 'poll'],
      [150, 'rescan'],
    ])
  })

  test('runs that looked at some places do not put off the one that looks at everything; where not all is told, it comes sooner', async () => {
    const { schedule, clock, due, wait, pass } = start({ rescanMs: 150_000 })
    schedule.begin()
    schedule.ended(true)
    await pass(100)
    schedule.begin()
    schedule.ended(true, false)
    void wait()
    await pass(60)
    expect(due).toEqual([[150, 'rescan']])
    schedule.isBlind = true
    schedule.begin()
    schedule.ended(true)
    void wait()
    await pass(70)
    expect(due.at(-1)).toEqual([220, 'rescan'])
    // But not most of the time.
    schedule.begin()
    clock.advance(30_000)
    schedule.ended(true)
    void wait()
    await pass(200)
    expect(due.at(-1)).toEqual([380, 'rescan'])
  })

  test('failures are tried again, less and less often, whatever changes', async () => {
    const { schedule, due, wait, pass, run } = start({ rescanMs: 60_000, pollMs: 1_000 })
    const delays = Array.from({ length: 9 }, () => run(0, false))
    expect(delays.map((ms) => ms! / 1_000)).toEqual([5, 10, 20, 40, 80, 160, 300, 300, 300])
    void wait()
    await pass(400, schedule.changed)
    expect(due).toEqual([[300, 'rescan']])
    expect(run(0)).toBeUndefined()
    expect(run(0, false)).toBe(5_000)
  })

  test('a signal ends the waiting', async () => {
    const { stop, schedule, pass, run, due } = start(rarely)
    run(0)
    const waiting = schedule.next()
    await pass(1)
    stop.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    await expect(schedule.next()).rejects.toThrow('enough')
    expect(due).toEqual([])
  })
})

let world: World
/** Looks at a whole tree at the server. */
let searches = 0
beforeAll(async () => {
  const onRequest = ({ path }: { path: string }) => {
    // A path is looked up by a search, too.
    if (/\/nodes\/search\?(?!.*filter=parentPath)/.test(path)) searches++
  }
  world = await createWorld({ recorder: { onRequest } })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

/** A client with a directory of its own, and what it tells. */
async function createWatcher(name: string, directory: string | undefined = world.path(`${name}-home`)) {
  const told: RunEvent[] = []
  const runs: (SyncSummary | undefined)[] = []
  const waiting = new Set<() => void>()
  const look = () => {
    for (const one of [...waiting]) one()
  }
  const client: Client = createClient(world.server.url, {
    authorizer: (origin) =>
      passwordAuthorizer(origin, { userName: user1, password: async () => accountPassword(user1) }),
    keyPassword: async () => KEY_PASSWORD,
    retryForMs: 0,
    ...(directory === '' ? {} : { directory }),
    onEvent: (event) => {
      told.push(event)
      look()
    },
  })
  const local = world.path(name)
  const remote = `/room/${name}`
  const stop = new AbortController()
  onTestFinished(async () => {
    stop.abort()
    await client.close()
  })
  await client.session.login()
  return {
    client,
    local,
    remote,
    told,
    runs,
    stop,
    /** Resolves when it ends, with what it ended with. */
    start(options: Partial<WatchOptions> = {}): Promise<unknown> {
      const watching = client.watch(local, remote, {
        direction: 'both',
        signal: stop.signal,
        async onRun(run) {
          try {
            const summary = await run()
            runs.push(summary)
            return summary
          } finally {
            look()
          }
        },
        ...options,
      })
      return watching.catch((error) => error)
    },
    /** Resolves when it is so, now or after something has been told. */
    until: (isSo: () => boolean): Promise<void> =>
      new Promise((resolve) => {
        const one = () => {
          if (!isSo()) return
          waiting.delete(one)
          resolve()
        }
        waiting.add(one)
        one()
      }),
  }
}

const isDone = (path: string) => (event: RunEvent) => event.type === 'file-done' && event.path === path

describe('a pair that is watched by a program', () => {
  test('changes on either side arrive until the signal aborts, which is no error', async () => {
    const { client, local, remote, told, runs, stop, start, until } = await createWatcher('both')
    makeTree(local, { a: 'one' })
    const ended = start({ pollMs: 1_000 })
    await until(() => runs[0]?.transferred === 1)
    writeFileSync(join(local, 'b'), 'two')
    await until(() => told.some(isDone('b')))
    await client.put(`${remote}/c`, Buffer.from('three'))
    await until(() => told.some(isDone('c')))
    stop.abort(new Error('enough'))
    expect(await ended).toBeUndefined()
    expect(readFileSync(join(local, 'c'), 'utf8')).toBe('three')
    const names = []
    for await (const { name } of client.list(remote)) names.push(name)
    expect(names).toEqual(['a', 'b', 'c'])
  })

  test('a change here is looked at where it is', async () => {
    const { local, told, runs, stop, start, until } = await createWatcher('where')
    makeTree(local, { a: 'one', 'sub/b': 'two', 'sub/skipped.tmp': 'x', 'sub/.syncignore': '*.tmp' })
    const ended = start({ direction: 'push' })
    await until(() => runs[0]?.transferred === 3)
    searches = 0
    writeFileSync(join(local, 'sub/b'), 'three')
    mkdirSync(join(local, 'new'))
    writeFileSync(join(local, 'new/c'), 'four')
    await until(() => told.some(isDone('new/c')) && told.filter(isDone('sub/b')).length === 2)
    await until(() => runs.length === 2)
    // Rules decide about what has not changed itself.
    writeFileSync(join(local, 'sub/.syncignore'), '')
    await until(() => told.some(isDone('sub/skipped.tmp')))
    await until(() => runs.length === 3)
    expect(searches).toBe(0)
    expect(runs.map((run) => run?.files)).toEqual([3, 4, 5])
    stop.abort()
    expect(await ended).toBeUndefined()
  })

  test('what no event tells is found by the clock', async () => {
    const { client, local, remote, told, runs, stop, start, until } = await createWatcher('clock')
    makeTree(local, { a: 'one', kept: 'two' })
    const ended = start({ direction: 'push', rescanMs: 1_000 })
    await until(() => runs[0]?.transferred === 2)
    await client.remove(`${remote}/a`)
    await until(() => told.filter(isDone('a')).length === 2)
    stop.abort()
    expect(await ended).toBeUndefined()
  })

  test('what failed in a place is tried again there', async () => {
    const { local, told, runs, stop, start, until } = await createWatcher('again')
    makeTree(local, { a: 'one' })
    const ended = start({ direction: 'push' })
    await until(() => runs.length === 1)
    world.server.faults.add({ on: { method: 'POST', path: '/uploads$' }, times: 1, do: { status: 501 } })
    searches = 0
    writeFileSync(join(local, 'b'), 'two')
    await until(() => told.some(isDone('b')))
    expect(told.some(({ type }) => type === 'run-again')).toBe(true)
    expect(searches).toBe(0)
    stop.abort()
    expect(await ended).toBeUndefined()
  })

  test('an abort during a run ends that run, and one before the first prevents it', async () => {
    const { local, told, runs, stop, start, until } = await createWatcher('aborted')
    makeTree(local, { a: 'one', b: 'two' })
    const ended = start({ jobs: 1 })
    await until(() => told.some(({ type }) => type === 'planned'))
    stop.abort()
    expect(await ended).toBeUndefined()
    expect(runs).toMatchObject([{ stoppedBy: { class: 'cancelled' } }])
    expect(await start()).toBeUndefined()
    expect(runs).toHaveLength(1)
  })

  test('what the server or the network do is tried again', async () => {
    const { local, told, runs, stop, start, until } = await createWatcher('failing')
    makeTree(local, { a: 'one' })
    world.server.faults.add({ on: { path: '/nodes' }, times: 1_000_000, do: { status: 501 } })
    const ended = start({ direction: 'push' })
    await until(() => told.some(({ type }) => type === 'run-again'))
    expect(told.at(-1)).toEqual({ type: 'run-again', delayMs: 5_000 })
    expect(runs).toEqual([])
    stop.abort()
    expect(await ended).toBeUndefined()
  })

  test('what another run cannot cure ends it, with the error of the last one', async () => {
    const { local, remote, runs, start, until } = await createWatcher('gone')
    expect(await start({ direction: 'push' })).toMatchObject({ code: 'SOURCE_MISSING' })
    makeTree(local, { a: 'one', 'sub/b': 'two' })
    const ended = start({ direction: 'push', delete: true })
    await until(() => runs.length === 1)
    rmSync(local, { recursive: true })
    expect(await ended).toMatchObject({ class: 'safety', code: 'ROOT_MISSING' })
    expect(runs).toHaveLength(1)
    const again = await createWatcher('gone-too')
    expect(await again.client.stat(`${remote}/sub/b`)).toMatchObject({ size: 3 })
  })

  test('options of one run count for that run only', async () => {
    const { local, remote, runs, client, stop, start } = await createWatcher('own-options')
    makeTree(local, { a: 'one', 'b.tmp': 'two' })
    let count = 0
    const ended = start({
      direction: 'push',
      rescanMs: 1_000,
      async onRun(run) {
        const summary = await run(count++ === 0 ? { selection: { patterns: ['*.tmp'] } } : {})
        runs.push(summary)
        if (runs.length === 2) stop.abort()
        return summary
      },
    })
    expect(await ended).toBeUndefined()
    expect(runs.map((run) => run?.transferred)).toEqual([1, 1])
    expect((await client.stat(`${remote}/b.tmp`)).size).toBe(3)
  })

  test('what runs write down is no change, wherever it is', async () => {
    const { client, local, remote, runs, stop, start } = await createWatcher('inside', world.path('inside/own'))
    makeTree(local, { a: 'one', 'own/': '' })
    let isSecond = false
    const ended = start({
      direction: 'push',
      rescanMs: 3_000,
      async onRun(run) {
        const summary = await run({ selection: { patterns: ['/own/'] } })
        runs.push(summary)
        if (isSecond) stop.abort()
        isSecond = true
        return summary
      },
    })
    const begun = performance.now()
    expect(await ended).toBeUndefined()
    // Not by what was written, which would have been two seconds after it.
    expect(performance.now() - begun).toBeGreaterThan(3_000)
    expect(runs).toHaveLength(2)
    expect((await client.stat(`${remote}/a`)).size).toBe(3)
  })

  test('what cannot work is said before anything is done', async () => {
    const { start, local } = await createWatcher('wrong')
    mkdirSync(local)
    const codes = []
    for (const wrong of [{ pollMs: 10 }, { rescanMs: Number.NaN }, { dryRun: true }, { planned: [] }]) {
      codes.push(await start(wrong as Partial<WatchOptions>))
    }
    expect(codes.map((error) => (error as { code?: string }).code)).toEqual(Array(4).fill('OPTION_INVALID'))
    const forgetful = await createWatcher('forgetful', '')
    mkdirSync(forgetful.local)
    expect(await forgetful.start()).toMatchObject({ code: 'DIRECTORY_NEEDED' })
  })
})
