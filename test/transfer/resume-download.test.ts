import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { MemoryRecorder } from '../../src/server/index.ts'
import { createWorld, makeTree, type World } from '../support/cli.ts'

const MIB = 1024 * 1024
const SIZE = 12 * MIB + 12_345
const content = randomBytes(SIZE)

let world: World
const recorder = new MemoryRecorder()
beforeAll(async () => {
  world = await createWorld({ recorder })
  makeTree(world.path('src'), { big: content, small: 'small' })
  await (await world.client()).upload([world.path('src')], '/room')
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

let counter = 0
const freshTarget = () => world.path(`out${++counter}`)
const temps = (target: string) => readdirSync(target).filter((name) => name.startsWith('.sealsync-'))
const tempOf = (target: string, kind: string) => join(target, temps(target).find((name) => name.endsWith(kind))!)
const get = async (target: string, source = '/room/src/big', signal?: AbortSignal) =>
  (await world.client()).download([source], `${target}/`, {
    onConflict: 'overwrite',
    ...(signal === undefined ? {} : { signal }),
  })

/** Of one request. */
const SEGMENT = 4 * MIB

/**
 * Lets that many bytes of content through and then nothing, until the rules are cleared.
 *
 * @returns how many requests meet that: the one that is cut, its repetition, and those that follow beside it.
 */
function stopAfter(bytes: number): number {
  const on = { method: 'GET', path: '/downloads/' }
  const after = Math.floor(bytes / SEGMENT)
  world.server.faults.add({ on, after, do: { cutAfterBytes: bytes % SEGMENT } })
  world.server.faults.add({ on, after, times: 999, do: { hold: true } })
  return after === 0 ? 5 : 4
}

/** A download that was stopped with about `bytes` on the disk. */
async function interrupted(bytes: number, target = freshTarget(), source?: string): Promise<string> {
  const affected = stopAfter(bytes)
  const stop = new AbortController()
  const met = world.server.faults.until(world.server.faults.hits.length + affected)
  const run = get(target, source, stop.signal)
  await met
  stop.abort(new Error('enough'))
  expect((await run).stoppedBy).toBeDefined()
  world.server.faults.clear()
  return target
}

/** First bytes of all ranges of content asked for since. */
const startsSince = (index: number) =>
  recorder.requests
    .slice(index)
    .filter(({ path }) => path.includes('/downloads/'))
    .map(({ headers }) => Number(/bytes=(\d+)-/.exec(headers.range ?? 'bytes=0-')![1]))

/** The next run delivers, whatever it found. */
async function completes(target: string): Promise<number[]> {
  const since = recorder.requests.length
  expect(await get(target)).toMatchObject({ transferred: 1, failed: [] })
  expect(readFileSync(join(target, 'big')).equals(content)).toBe(true)
  expect(temps(target)).toEqual([])
  return startsSince(since)
}

describe('an interrupted download', () => {
  test('leaves a private part and record, without lock; the next run asks only for the rest', async () => {
    const target = await interrupted(7 * MIB)
    expect(
      temps(target)
        .map((name) => name.slice(name.lastIndexOf('.')))
        .sort(),
    ).toEqual(['.info', '.part'])
    for (const name of temps(target)) expect(statSync(join(target, name)).mode & 0o777).toBe(0o600)
    const found = statSync(tempOf(target, '.part')).size
    expect(found).toBeGreaterThan(6 * MIB)
    expect(Math.min(...(await completes(target)))).toBe(found)
  })

  test('with everything on the disk but the last steps, asks for nothing', async () => {
    const target = await interrupted(2 * MIB)
    writeFileSync(tempOf(target, '.part'), content)
    expect(await completes(target)).toEqual([])
  })

  test('with next to nothing on the disk, leaves nothing', async () => {
    expect(temps(await interrupted(1000))).toEqual([])
  })

  test('its part is no content for an upload', async () => {
    const target = await interrupted(3 * MIB)
    expect(await (await world.client()).upload([target], '/room')).toMatchObject({ files: 0, ignored: 2 })
  })

  test('keeps its bytes for progress: those that were there count as confirmed once', async () => {
    const target = await interrupted(5 * MIB)
    const { runDownload } = await import('../../src/sync/jobs/transfer.ts')
    const { api, keyring, clock } = await world.client()
    let confirmed = 0
    const context = {
      api,
      keyring,
      clock,
      random: { next: () => 0 },
      onEvent: (event: { type: string; bytes?: number }) => {
        if (event.type === 'part-confirmed') confirmed += event.bytes!
      },
    }
    expect(await runDownload(context, ['/room/src/big'], `${target}/`)).toMatchObject({ transferred: 1 })
    expect(confirmed).toBe(SIZE)
  })
})

describe('what lies on the disk is not believed', () => {
  const flip = (path: string, at: number) => {
    const byte = readFileSync(path).subarray(at, at + 1)
    const fd = openSync(path, 'r+')
    writeSync(fd, Buffer.from([byte[0]! ^ 1]), 0, 1, at)
  }

  test.each([
    ['first byte', 0],
    ['a byte in the first block', 1000],
    ['a byte at a border of blocks', MIB],
    ['a byte in the middle', 3 * MIB + 7],
    ['last byte', -1],
  ])('altered %s: fetched again from zero, never delivered', async (_what, at) => {
    const target = await interrupted(6 * MIB)
    const part = tempOf(target, '.part')
    flip(part, at < 0 ? statSync(part).size - 1 : at)
    expect(await completes(target)).toContain(0)
  })

  test.each<[string, (part: string) => void]>([
    ['garbage at its end', (part) => appendFileSync(part, randomBytes(100_000))],
    ['zeros at its end, as after a power cut', (part) => appendFileSync(part, Buffer.alloc(100_000))],
    ['larger than the file', (part) => appendFileSync(part, Buffer.alloc(SIZE))],
    ['another content of the right length', (part) => writeFileSync(part, randomBytes(SIZE))],
    ['readable by others', (part) => chmodSync(part, 0o644)],
    ['with a second name', (part) => linkSync(part, `${part}.second`)],
    [
      'another file in its place',
      (part) => {
        copyFileSync(part, `${part}2`)
        chmodSync(`${part}2`, 0o600)
        renameSync(`${part}2`, part)
      },
    ],
    ['gone', (part) => unlinkSync(part)],
  ])('a part that is %s: from zero', async (_what, alter) => {
    const target = await interrupted(6 * MIB)
    alter(tempOf(target, '.part'))
    const since = recorder.requests.length
    expect(await get(target)).toMatchObject({ transferred: 1, failed: [] })
    expect(readFileSync(join(target, 'big')).equals(content)).toBe(true)
    expect(startsSince(since)).toContain(0)
    expect(temps(target).filter((name) => !name.endsWith('.second'))).toEqual([])
  })

  test('a part that became shorter is continued where it ends', async () => {
    const target = await interrupted(6 * MIB)
    truncateSync(tempOf(target, '.part'), 2 * MIB + 3)
    expect(Math.min(...(await completes(target)))).toBe(2 * MIB + 3)
  })

  test.each<[string, (info: string) => void]>([
    ['empty', (info) => writeFileSync(info, '')],
    ['garbage', (info) => writeFileSync(info, randomBytes(200))],
    ['huge', (info) => writeFileSync(info, Buffer.alloc(MIB))],
    ['cut', (info) => truncateSync(info, 20)],
    ['altered', (info) => writeFileSync(info, readFileSync(info, 'utf8').replace('big', 'bug'))],
    ['about another size', (info) => writeFileSync(info, readFileSync(info, 'utf8').replace(String(SIZE), '99'))],
    ['readable by others', (info) => chmodSync(info, 0o644)],
    ['gone', (info) => unlinkSync(info)],
    [
      'a link',
      (info) => {
        renameSync(info, `${info}2`)
        symlinkSync(`${info}2`, info)
      },
    ],
  ])('a record that is %s: from zero', async (_what, alter) => {
    const target = await interrupted(6 * MIB)
    alter(tempOf(target, '.info'))
    const since = recorder.requests.length
    expect(await get(target)).toMatchObject({ transferred: 1, failed: [] })
    expect(readFileSync(join(target, 'big')).equals(content)).toBe(true)
    expect(startsSince(since)).toContain(0)
  })

  test.each(['link to a file', 'dangling link', 'directory'])(
    'a %s in the place of the part is not followed and not written to',
    async (what) => {
      const target = await interrupted(6 * MIB)
      const part = tempOf(target, '.part')
      const precious = world.path(`precious${++counter}`)
      if (what !== 'dangling link') writeFileSync(precious, content.subarray(0, 6 * MIB), { mode: 0o600 })
      unlinkSync(part)
      if (what === 'directory') mkdirSync(part)
      else symlinkSync(precious, part)
      expect(await get(target)).toMatchObject({ transferred: 1, failed: [] })
      expect(readFileSync(join(target, 'big')).equals(content)).toBe(true)
      if (what !== 'dangling link') expect(readFileSync(precious).equals(content.subarray(0, 6 * MIB))).toBe(true)
      else expect(() => statSync(precious)).toThrow()
    },
  )

  test('altered on the disk and on the way too: refused, nothing is left, the good file stays', async () => {
    const target = freshTarget()
    makeTree(target, { big: 'good old content' })
    await interrupted(6 * MIB, target)
    flip(tempOf(target, '.part'), 5)
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, times: 99, do: { flipByteAt: 100 } })
    expect((await get(target)).failed.map(({ error }) => error.code)).toEqual(['CONTENT_TAMPERED'])
    expect(readdirSync(target)).toEqual(['big'])
    expect(readFileSync(join(target, 'big'), 'utf8')).toBe('good old content')
  })
})

describe('what cannot be continued does not stay', () => {
  test('the part of an older version goes when the new one has arrived', async () => {
    const dir = world.path('versions')
    makeTree(dir, { big: content })
    const client = await world.client()
    await client.upload([dir], '/room')
    const target = await interrupted(6 * MIB, freshTarget(), '/room/versions/big')
    const next = randomBytes(SIZE)
    writeFileSync(join(dir, 'big'), next)
    expect(await client.upload([dir], '/room')).toMatchObject({ transferred: 1 })
    const since = recorder.requests.length
    expect(await get(target, '/room/versions/big')).toMatchObject({ transferred: 1 })
    expect(readFileSync(join(target, 'big')).equals(next)).toBe(true)
    expect(Math.min(...startsSince(since))).toBe(0)
    expect(temps(target)).toEqual([])
  })

  test('a part that may be continued survives other downloads to the directory, for two weeks', async () => {
    const target = await interrupted(6 * MIB)
    await get(target, '/room/src/small')
    expect(temps(target)).toHaveLength(2)
    const longAgo = Date.now() / 1000 - 15 * 24 * 3600
    utimesSync(tempOf(target, '.info'), longAgo, longAgo)
    await get(target, '/room/src/small')
    expect(readdirSync(target)).toEqual(['small'])
  })

  test('the part of a file that is there by other means goes', async () => {
    const target = await interrupted(6 * MIB)
    writeFileSync(join(target, 'big'), content)
    const { mtime } = statSync(world.path('src/big'))
    utimesSync(join(target, 'big'), mtime, mtime)
    expect(await get(target)).toMatchObject({ skipped: 1 })
    expect(temps(target)).toEqual([])
  })
})
