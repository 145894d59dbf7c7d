import { createHash, randomBytes, randomInt } from 'node:crypto'
import { closeSync, createReadStream, mkdirSync, openSync, readdirSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type CliResult, createWorld, makeTree, type World } from '../support/cli.ts'
import { untilDirectory } from '../support/files.ts'

const MIB = 1024 * 1024

/** Bytes of one request. */
const SEGMENT = 4 * MIB

/** Bytes that are handed over together. */
const BATCH = MIB / 2

/** Starts of the ranges of content that were asked for. */
const starts: number[] = []

let world: World
beforeAll(async () => {
  world = await createWorld({
    recorder: {
      onRequest({ method, path, headers }) {
        if (method !== 'GET' || !path.includes('/downloads/')) return
        starts.push(Number(/^bytes=(\d+)-/.exec(headers.range ?? 'bytes=0-')![1]))
      },
    },
  })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const CONTENT = { method: 'GET', path: '/downloads/' }

/** Resolves when that many more faults have met their request. */
function moreHits(count = 1): Promise<void> {
  return world.server.faults.until(world.server.faults.hits.length + count)
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) hash.update(chunk)
  return hash.digest('hex')
}

/** A file of random bytes, uploaded; returns its digest. */
async function stored(name: string, mib: number): Promise<string> {
  mkdirSync(world.path(name))
  const fd = openSync(world.path(name, 'big'), 'w')
  for (let i = 0; i < mib; i++) writeSync(fd, randomBytes(MIB))
  closeSync(fd)
  expect(await (await world.client()).upload([world.path(name)], '/room')).toMatchObject({ transferred: 1 })
  const digest = await digestOf(world.path(name, 'big'))
  rmSync(world.path(name), { recursive: true })
  return digest
}

const temps = (dir: string) => readdirSync(dir).filter((name) => name.startsWith('.sealsync-'))
const partSize = (dir: string): number => {
  try {
    const part = temps(dir).find((name) => /^\.sealsync-[\w-]{22}\.part$/.test(name))
    return part === undefined ? 0 : statSync(join(dir, part)).size
  } catch {
    return 0
  }
}

const downloadOf = (source: string, target: string, during?: (kill: () => void) => Promise<void>): Promise<CliResult> =>
  world.cli(['download', source, `${target}/`, '--json', '--key-password-file', world.keyPasswordFile], {
    ...(during === undefined ? {} : { during: (child) => during(() => void child.kill('SIGKILL')) }),
  })

/** Kills a download that many times, each time later in the file, and then lets it end. */
async function killedAgainAndAgain(name: string, mib: number, kills: number): Promise<void> {
  const digest = await stored(name, mib)
  const source = `/room/${name}/big`
  const target = world.path(`${name}-out`)
  mkdirSync(target)
  let killed = 0
  let before = 0
  for (let i = 0; i < kills; i++) {
    const at = Math.floor((mib * MIB * i) / kills)
    const since = starts.length
    // Content stops a little behind the instant, so that no run can outpace the one who kills it. What is written last may
    // be short of what has arrived by one batch.
    const allowed = i === 0 ? 0 : at - before + BATCH + 1
    const after = Math.floor(allowed / SEGMENT)
    if (allowed > 0) {
      world.server.faults.add({ on: CONTENT, after, do: { cutAfterBytes: allowed % SEGMENT } })
    }
    world.server.faults.add({ on: CONTENT, after, times: 999, do: { hold: true } })
    const hit = moreHits()
    const run = await downloadOf(source, target, async (kill) => {
      // The temporary file is there before its content is asked for.
      await hit
      await untilDirectory(target, () => partSize(target) >= at)
      kill()
    })
    world.server.faults.clear()
    if (run.signal === 'SIGKILL') killed++
    const asked = starts.slice(since)
    // Nothing that was on the disk is asked for again.
    if (asked.length > 0) expect(Math.min(...asked)).toBeGreaterThanOrEqual(before)
    before = partSize(target)
    expect(readdirSync(target)).not.toContain('big')
  }
  expect(killed).toBe(kills)
  expect(before).toBeGreaterThan(((kills - 1) * mib * MIB) / kills - 1)
  const since = starts.length
  expect((await downloadOf(source, target)).code).toBe(0)
  expect(Math.min(...starts.slice(since))).toBe(before)
  expect(readdirSync(target).filter((name) => name !== '.sealsync-bin')).toEqual(['big'])
  expect(await digestOf(join(target, 'big'))).toBe(digest)
}

describe('kill -9', () => {
  test('at 7 instants of a download of 48 MiB: each run goes on, identical bytes, nothing left over', () =>
    killedAgainAndAgain('kills', 48, 7))

  test('at random instants, cuts and all: identical bytes, nothing left over, the good file there stays', async () => {
    const digest = await stored('random', 32)
    const target = world.path('random-out')
    makeTree(target, { big: 'good old content' })
    const source = '/room/random/big'
    for (let i = 0; i < 6; i++) {
      // A request that is cut is repeated four times at least, so the last of these always comes: all of them together bring less
      // than the file, and what is asked for behind the last one brings nothing.
      const last = 1 + randomInt(4)
      const hit = moreHits(last)
      world.server.faults.add({
        on: CONTENT,
        times: last,
        do: { cutAfterBytes: randomInt(Math.floor((5 * MIB) / last)) },
      })
      world.server.faults.add({ on: CONTENT, times: 999, do: { hold: true } })
      const run = await world.cli(
        [
          'download',
          source,
          `${target}/`,
          '--json',
          '--on-conflict',
          'overwrite',
          '--key-password-file',
          world.keyPasswordFile,
        ],
        {
          during: async (child) => {
            await hit
            child.kill('SIGKILL')
          },
        },
      )
      world.server.faults.clear()
      expect(run.signal).toBe('SIGKILL')
      expect(statSync(join(target, 'big')).size).toBe(16)
    }
    await world.transfer(['download', source, `${target}/`, '--on-conflict', 'overwrite'])
    expect(await digestOf(join(target, 'big'))).toBe(digest)
    expect(readdirSync(target).filter((name) => name !== '.sealsync-bin')).toEqual(['big'])
  })

  test('of a small download and of a cat: the next run there removes what they left', async () => {
    makeTree(world.path('few'), { a: randomBytes(3 * MIB), b: 'b', long: Buffer.alloc(20 * MIB, 'seal\n') })
    await (await world.client()).upload([world.path('few')], '/room')
    const target = world.path('few-out')
    // Both have their temporary file before they ask for content.
    world.server.faults.add({ on: CONTENT, times: 9, do: { hold: true } })
    mkdirSync(target)
    const content = moreHits()
    await downloadOf('/room/few/a', target, async (kill) => {
      await content
      kill()
    })
    expect(temps(target)).toHaveLength(1)
    const tmp = join(world.home, 'tmp')
    const contentOfCat = moreHits()
    await world.cli(['cat', '/room/few/long', '--key-password-file', world.keyPasswordFile], {
      during: async (child) => {
        await contentOfCat
        child.kill('SIGKILL')
      },
    })
    expect(temps(tmp)).toHaveLength(1)
    world.server.faults.clear()
    expect((await downloadOf('/room/few/b', target)).code).toBe(0)
    expect(readdirSync(target)).toEqual(['b'])
    const whole = await world.cli(['cat', '/room/few/long', '--key-password-file', world.keyPasswordFile])
    expect(whole.code).toBe(0)
    expect(temps(tmp)).toEqual([])
  })
})

describe('two processes', () => {
  test('at one file: it arrives, nothing is left over, the second one says so', async () => {
    const digest = await stored('two', 24)
    const target = world.path('two-out')
    const runs = await Promise.all([downloadOf('/room/two/big', target), downloadWhole(target)])
    expect(runs.map(({ code }) => code)).toContain(0)
    for (const { code } of runs) expect([0, 3, 12]).toContain(code)
    expect(readdirSync(target).filter((name) => name !== '.sealsync-bin')).toEqual(['big'])
    expect(await digestOf(join(target, 'big'))).toBe(digest)
  })
  const downloadWhole = (target: string) =>
    world.cli(['download', '/room/two', target, '--contents', '--json', '--key-password-file', world.keyPasswordFile])

  test.skipIf(process.platform === 'win32')('what a living one writes to is not removed by another', async () => {
    const digest = await stored('alive', 24)
    makeTree(world.path('other'), { small: 'small', middle: randomBytes(MIB) })
    await (await world.client()).upload([world.path('other')], '/room')
    const target = world.path('alive-out')
    mkdirSync(target)
    world.server.faults.add({ on: CONTENT, do: { cutAfterBytes: 5 * MIB } })
    world.server.faults.add({ on: CONTENT, do: { hold: true } })
    const hits = moreHits(2)
    const key = ['--key-password-file', world.keyPasswordFile]
    const first = await world.cli(['download', '/room/alive/big', `${target}/`, ...key], {
      async during(child) {
        await hits
        // However long the other one takes.
        child.kill('SIGSTOP')
        try {
          const there = temps(target).sort()
          expect(there.map((name) => name.slice(name.lastIndexOf('.')))).toEqual(['.info', '.lock', '.part'])
          expect((await downloadOf('/room/other/small', target)).code).toBe(0)
          expect(temps(target).sort()).toEqual(there)
        } finally {
          world.server.faults.clear()
          child.kill('SIGCONT')
        }
      },
    })
    expect(first.code, first.stderr).toBe(0)
    expect(readdirSync(target).sort()).toEqual(['big', 'small'])
    expect(await digestOf(join(target, 'big'))).toBe(digest)
  })
})

describe.skipIf(process.env.SEALSYNC_FULL !== '1')('kill -9, in full size (with SEALSYNC_FULL=1)', () => {
  test('at 20 instants of a download of 64 MiB', () => killedAgainAndAgain('more', 64, 20), 600_000)
  test('at 20 instants of a download of 1 GiB', () => killedAgainAndAgain('gigabyte', 1024, 20), 1_800_000)
})
