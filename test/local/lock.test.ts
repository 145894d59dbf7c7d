import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { takeLock } from '../../src/local/lock.ts'
import { fakeClock } from '../support/clock.ts'
import { buildScript, freshDirectory, isRoot, NOBODY, runScript } from '../support/files.ts'

const onLinux = process.platform === 'linux'
const locked = { class: 'conflict', code: 'LOCKED' }

/** A process that has ended: its pid, and the lock it would have left. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['-e', ''])
  await new Promise((resolve) => child.on('close', resolve))
  return child.pid!
}

const holder = (more: object) =>
  JSON.stringify({ pid: process.pid, host: hostname(), started: 'then', id: 'an-id', ...more })

describe('one lock, one holder', () => {
  test('the second taker waits its time and is then told who holds it', async () => {
    const path = join(await freshDirectory(), 'made', 'x.lock')
    const lock = await takeLock(path, { clock: systemClock, waitMs: 0 })
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe('600')
    const clock = fakeClock()
    await expect(takeLock(path, { clock, waitMs: 1000 })).rejects.toMatchObject({
      ...locked,
      message: expect.stringContaining(`pid ${process.pid}`),
    })
    expect(clock.monotonic()).toBeGreaterThanOrEqual(1000)
    await lock.release()
    const again = await takeLock(path, { clock, waitMs: 0 })
    await again.release()
    expect(await readdir(join(path, '..'))).toEqual([])
  })

  test('a waiting taker gets it when it is given back', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    const first = await takeLock(path, { clock: systemClock, waitMs: 0 })
    let done = false
    const second = takeLock(path, { clock: systemClock, waitMs: 60_000 }).then((lock) => {
      done = true
      return lock
    })
    await readFile(path)
    expect(done).toBe(false)
    await first.release()
    await (await second).release()
    expect(done).toBe(true)
  })

  test('release leaves a lock alone that is somebody else’s by now', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    const lock = await takeLock(path, { clock: systemClock, waitMs: 0 })
    await writeFile(path, holder({ id: 'theirs' }))
    await lock.release()
    expect(JSON.parse(await readFile(path, 'utf8')).id).toBe('theirs')
  })

  test('waiting ends with the signal', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    const lock = await takeLock(path, { clock: systemClock, waitMs: 0 })
    const stop = new AbortController()
    const waiting = takeLock(path, { clock: fakeClock('manual'), waitMs: 60_000, signal: stop.signal })
    const reason = new Error('enough')
    stop.abort(reason)
    await expect(waiting).rejects.toBe(reason)
    await lock.release()
  })
})

describe('locks left behind', () => {
  test('of a dead process: taken over', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    await writeFile(path, holder({ pid: await deadPid() }))
    const lock = await takeLock(path, { clock: fakeClock(), waitMs: 0 })
    expect(JSON.parse(await readFile(path, 'utf8')).pid).toBe(process.pid)
    await lock.release()
    expect(await readdir(join(path, '..'))).toEqual([])
  })

  test.skipIf(!onLinux)('of a process whose pid was given to another: taken over (Linux)', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    const lock = await takeLock(path, { clock: systemClock, waitMs: 0 })
    const mine = JSON.parse(await readFile(path, 'utf8'))
    await lock.release()
    // Our own pid, but started at another time: another process had it.
    await writeFile(path, JSON.stringify({ ...mine, id: 'old', started: `${mine.started}0` }))
    await (await takeLock(path, { clock: fakeClock(), waitMs: 0 })).release()
    // And a pid that is another process's now, since the boot before this one.
    await writeFile(path, JSON.stringify({ ...mine, id: 'old', started: 'another-boot/1' }))
    await (await takeLock(path, { clock: fakeClock(), waitMs: 0 })).release()
    // The real one still counts.
    await writeFile(path, JSON.stringify({ ...mine, id: 'other' }))
    await expect(takeLock(path, { clock: fakeClock(), waitMs: 500 })).rejects.toMatchObject(locked)
  })

  test.skipIf(!onLinux)('of a process that is a zombie: taken over (Linux)', async () => {
    const directory = await freshDirectory()
    const path = join(directory, 'x.lock')
    const script = await buildScript(
      directory,
      "import { takeLock } from './src/local/lock.ts'; import { systemClock } from './src/environment.ts'",
      'await takeLock(process.argv[2], { clock: systemClock, waitMs: 0 }); say(process.pid); process.exit(0)',
    )
    // The shell becomes a program that never looks at its children.
    const parent = spawn('sh', ['-c', '"$0" "$1" "$2" & exec sleep 60', process.execPath, script, path])
    onTestFinished(() => void parent.kill('SIGKILL'))
    const pid = await new Promise((resolve) => parent.stdout.once('data', (data) => resolve(Number(data))))
    const state = async () => /\) (.)/.exec(await readFile(`/proc/${pid}/stat`, 'utf8'))?.[1]
    while ((await state()) !== 'Z') await systemClock.sleep(10)
    await (await takeLock(path, { clock: fakeClock(), waitMs: 0 })).release()
  })

  test('on another host: never taken over', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    await writeFile(path, holder({ pid: await deadPid(), host: `${hostname()}-elsewhere` }))
    await expect(takeLock(path, { clock: fakeClock(), waitMs: 60_000 })).rejects.toMatchObject(locked)
  })

  test.each([
    '',
    '{',
    'null',
    '5',
    '[]',
    '{}',
    '{"pid":1}',
    holder({ pid: 0 }),
    holder({ pid: -1 }),
    holder({ pid: '1' }),
    holder({ id: 7 }),
    '\0\0\0',
  ])('cut by a crash (%j): taken over after a moment, even by one who does not wait', async (content) => {
    const path = join(await freshDirectory(), 'x.lock')
    await writeFile(path, content)
    const clock = fakeClock()
    await (await takeLock(path, { clock, waitMs: 0 })).release()
    // Its writer got time to finish.
    expect(clock.monotonic()).toBeGreaterThanOrEqual(500)
  })

  test('with the guard of somebody who died while taking it over: taken over', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    const pid = await deadPid()
    for (const guard of [holder({ pid, id: 'guard' }), '']) {
      await writeFile(path, holder({ pid }))
      await writeFile(`${path}.break`, guard)
      await (await takeLock(path, { clock: fakeClock(), waitMs: 0 })).release()
    }
    expect(await readdir(join(path, '..'))).toEqual([])
    // While somebody alive is at it, the others wait for their turn or give up.
    const guard = await takeLock(`${path}.break`, { clock: systemClock, waitMs: 0 })
    await writeFile(path, holder({ pid }))
    await expect(takeLock(path, { clock: fakeClock(), waitMs: 200 })).rejects.toMatchObject(locked)
    await guard.release()
    await (await takeLock(path, { clock: fakeClock(), waitMs: 0 })).release()
  })

  test('one that is just being written is waited for', async () => {
    const path = join(await freshDirectory(), 'x.lock')
    const real = await takeLock(path, { clock: systemClock, waitMs: 0 })
    const content = await readFile(path, 'utf8')
    await writeFile(path, '')
    const clock = fakeClock()
    let looks = 0
    const slow = {
      ...clock,
      async sleep(ms: number) {
        if (++looks === 3) await writeFile(path, content)
        return clock.sleep(ms)
      },
    }
    await expect(takeLock(path, { clock: slow, waitMs: 0 })).rejects.toMatchObject(locked)
    await real.release()
  })

  test.skipIf(!isRoot)('a lock that cannot be read is not taken away (needs root to become nobody)', async () => {
    const directory = await freshDirectory()
    const script = await buildScript(
      directory,
      "import { takeLock } from './src/local/lock.ts'; import { systemClock } from './src/environment.ts'",
      "await takeLock(process.argv[2], { clock: systemClock, waitMs: 0 }); say('taken')",
    )
    const shared = join(directory, 'shared')
    await mkdir(shared)
    await (await import('node:fs/promises')).chmod(shared, 0o777)
    const path = join(shared, 'x.lock')
    const lock = await takeLock(path, { clock: systemClock, waitMs: 0 })
    expect(await runScript(script, [path], { uid: NOBODY }).lines).toEqual([
      { error: 'LOCAL_EACCES', class: 'local_io' },
    ])
    await lock.release()
    expect(await runScript(script, [path], { uid: NOBODY }).lines).toEqual(['taken'])
  })
})

describe('between processes', () => {
  test('of many that find a stale lock exactly one takes it over, time after time', async () => {
    const directory = await freshDirectory()
    // Each child writes its name into a witness file that must not exist: two holders at a time would collide.
    const script = await buildScript(
      directory,
      `import { takeLock } from './src/local/lock.ts'
       import { systemClock } from './src/environment.ts'
       import { once } from 'node:events'
       import { openSync, closeSync, unlinkSync, existsSync } from 'node:fs'`,
      `const [dir] = process.argv.slice(2)
       say('ready')
       for await (const data of process.stdin) for (const round of data.toString().trim().split('\\n')) {
         if (round === 'end') process.exit(0)
         const path = dir + '/' + round + '.lock'
         const lock = await takeLock(path, { clock: systemClock, waitMs: 60000 })
         const witness = path + '.witness'
         closeSync(openSync(witness, 'wx'))
         await new Promise((resolve) => setImmediate(resolve))
         unlinkSync(witness)
         await lock.release()
         say(round)
       }`,
    )
    const pid = await deadPid()
    const rounds = Array.from({ length: 25 }, (_, i) => `round-${i}`)
    const locks = join(directory, 'locks')
    await mkdir(locks)
    for (const round of rounds) await writeFile(join(locks, `${round}.lock`), holder({ pid, id: `dead-${round}` }))
    const children = Array.from({ length: 6 }, () => runScript(script, [locks]))
    for (const child of children) expect(await child.first).toBe('ready')
    for (const child of children) child.tell(`${rounds.join('\n')}\nend\n`)
    for (const child of children) expect(await child.lines).toEqual(['ready', ...rounds])
    expect(await readdir(locks)).toEqual([])
  })

  test('of many takers that do not wait exactly one wins; killed, its lock is free', async () => {
    const directory = await freshDirectory()
    const script = await buildScript(
      directory,
      "import { takeLock } from './src/local/lock.ts'; import { systemClock } from './src/environment.ts'",
      `say('ready')
       await new Promise((resolve) => process.stdin.once('data', resolve))
       await takeLock(process.argv[2], { clock: systemClock, waitMs: 0 })
       say('taken')
       await new Promise(() => process.stdin.resume())`,
    )
    const path = join(directory, 'x.lock')
    await writeFile(path, holder({ pid: await deadPid(), id: 'dead' }))
    const children = Array.from({ length: 8 }, () => runScript(script, [path]))
    for (const child of children) expect(await child.first).toBe('ready')
    for (const child of children) child.tell('go\n')
    // The losers end by themselves; the winner holds on.
    const losers: unknown[] = []
    const running = new Set(children)
    const winner = await new Promise<(typeof children)[number]>((resolve) => {
      for (const child of children) {
        void child.lines.then((lines) => {
          losers.push(lines[1])
          running.delete(child)
          for (const last of running) if (running.size === 1) resolve(last)
        })
      }
    })
    await winner.until(2)
    expect(losers).toEqual(Array(7).fill({ error: 'LOCKED', class: 'conflict' }))
    await expect(takeLock(path, { clock: fakeClock(), waitMs: 200 })).rejects.toMatchObject(locked)
    winner.kill()
    await winner.lines
    await (await takeLock(path, { clock: fakeClock(), waitMs: 0 })).release()
  })
})
