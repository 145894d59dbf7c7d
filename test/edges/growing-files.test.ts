/** Files that something writes to all the time, such as logs: what is there when they are opened is stored, and told as such. */
import { createHash } from 'node:crypto'
import { appendFileSync, closeSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exitCodeOfRun } from '../../src/cli/exit-codes.ts'
import { systemRandom } from '../../src/environment.ts'
import { MANIFEST_NAME } from '../../src/local/atomic-file.ts'
import { openStable } from '../../src/local/stable-read.ts'
import { runBackup } from '../../src/sync/backup/run.ts'
import { runSync } from '../../src/sync/jobs/pair.ts'
import { runUpload } from '../../src/sync/jobs/transfer.ts'
import type { RunContext } from '../../src/sync/run.ts'
import { readTreeManifest } from '../../src/sync/tree-manifest.ts'
import { createBackup } from '../support/backup.ts'
import { createWorld, makeTree, snapshot, type World } from '../support/cli.ts'

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

/** Does something to the file whenever a part of it has arrived; ends by itself only when it is told. */
function restless(context: RunContext, log: string, write: (path: string, count: number) => void) {
  const state = { isQuiet: false, count: 0 }
  const onEvent: RunContext['onEvent'] = (event) => {
    const isLog = event.type === 'part-confirmed' && event.path.endsWith('log')
    if (isLog && !state.isQuiet) write(log, ++state.count)
  }
  return { state, context: { ...context, onEvent } }
}

const grow = (path: string, count: number) => appendFileSync(path, `line ${count}\n`)
/** In place, too: no length of it stays as it was. */
const overwrite = (path: string, count: number) => {
  const fd = openSync(path, 'r+')
  writeSync(fd, `${count}`.padStart(8), 0)
  closeSync(fd)
  grow(path, count) // which shows also where clocks are coarse
}

async function contextOf(): Promise<RunContext> {
  const { api, keyring, clock } = await world.client()
  return { api, keyring, clock, random: systemRandom }
}

async function fetched(path: string, as: string): Promise<string> {
  const target = world.path(as)
  expect(await (await world.client()).download([path], `${target}/`)).toMatchObject({ failed: [] })
  return readFileSync(join(target, path.split('/').at(-1)!), 'utf8')
}

const codes = ({ failed }: { readonly failed: readonly { readonly error: { readonly code: string } }[] }) =>
  failed.map(({ error }) => error.code)

const digestOf = (text: string) => createHash('sha256').update(text).digest('base64')

/** Small files go in one go, larger ones while they are read; from 8 MiB on that is done in another thread where there is one. */
const SIZES = [20, 300_000, 9_000_000]
const firstOf = (size: number) => `${'0123456789'.repeat(size / 10)}`

describe('a file that always grows', () => {
  test.each(SIZES)('of %i bytes is uploaded as far as it was there', async (size) => {
    const [dir, to] = [world.path(`up${size}`), `/room/up${size}`]
    makeTree(dir, { log: firstOf(size), calm: 'c' })
    const log = join(dir, 'log')
    const { context } = restless(await contextOf(), log, grow)
    const summary = await runUpload(context, [dir], '/room')
    // One that is read in one go was in one state then.
    const isRead = size <= 256 * 1024
    expect(codes(summary)).toEqual(isRead ? [] : ['INCONSISTENT'])
    expect(summary.transferred).toBe(2)
    expect(exitCodeOfRun(summary, 'upload')).toBe(isRead ? 0 : 3)
    const stored = await fetched(`${to}/log`, `down${size}`)
    expect(readFileSync(log, 'utf8').startsWith(stored)).toBe(true)
    expect(stored.length).toBeGreaterThanOrEqual(size)
    expect(await fetched(`${to}/calm`, `down${size}`)).toBe('c')
  })

  test('is pushed, keeps nothing from being deleted, is marked in the manifest, and sent again until it rests', async () => {
    const local = world.path('pushed')
    makeTree(local, { log: firstOf(300_000), calm: 'c', gone: 'g' })
    const log = join(local, 'log')
    const { state, context } = restless(await contextOf(), log, grow)
    const where = { directory: world.path('pairs'), account: 'anna' }
    const push = () => runSync(context, local, '/room/pushed', { direction: 'push', delete: true, state: where })
    const entry = async () => {
      const node = (await world.list('/room/pushed')).find(({ name }) => name === MANIFEST_NAME)!
      const { manifest } = await readTreeManifest(context, node, new AbortController().signal)
      return manifest.entries.find(({ path }) => path === 'log')
    }
    const first = await push()
    expect([codes(first), first.transferred]).toEqual([['INCONSISTENT'], 3])
    expect(exitCodeOfRun(first, 'upload')).toBe(3)
    expect(await entry()).toMatchObject({ isInconsistent: true, sha256: expect.any(String) })
    rmSync(join(local, 'gone'))
    const second = await push()
    expect([codes(second), second.transferred, second.deleted]).toEqual([['INCONSISTENT'], 1, 1])
    state.isQuiet = true
    expect(await push()).toMatchObject({ failed: [], transferred: 1 })
    expect(await entry()).not.toHaveProperty('isInconsistent')
    expect(await fetched('/room/pushed/log', 'pushed-down')).toBe(readFileSync(log, 'utf8'))
    expect(await push()).toMatchObject({ failed: [], transferred: 0 })
  })

  test.each(SIZES.slice(0, 2))(
    'of %i bytes is backed up, marked in the manifest, and completed when it rests',
    async (size) => {
      const backup = await createBackup(world)
      const log = join(backup.source, 'log')
      makeTree(backup.source, { log: firstOf(size), calm: 'c' })
      const { state, context } = restless(backup.context, log, grow)
      const run = () => runBackup(context, backup.set, { state: backup.state })
      for (let runs = 0; runs < 2; runs++) {
        const before = readFileSync(log, 'utf8')
        const summary = await run()
        const isRead = size <= 256 * 1024
        expect([codes(summary), exitCodeOfRun(summary, 'upload')]).toEqual(isRead ? [[], 0] : [['INCONSISTENT'], 3])
        // Nothing is missing, so it is as good as any other when runs are pruned.
        expect(summary.isComplete).toBe(true)
        const { manifest } = await backup.manifest(summary.run!)
        const entry = manifest.entries.find(({ path }) => `/${path}` === log)
        expect(entry?.kind === 'file' && entry.isInconsistent).toBe(isRead ? undefined : true)
        expect(manifest.failed).toEqual(isRead ? [] : [{ path: log, code: 'INCONSISTENT' }])
        const { summary: restored, content } = await backup.restore()
        expect(restored.failed).toEqual([])
        const stored = readFileSync(join(content, 'log'), 'utf8')
        expect(stored.startsWith(before) && readFileSync(log, 'utf8').startsWith(stored)).toBe(true)
      }
      state.isQuiet = true
      expect(await run()).toMatchObject({ failed: [], isComplete: true, changed: 1, unchanged: 1 })
      expect(snapshot((await backup.restore()).content)).toEqual(snapshot(backup.source))
      expect(await run()).toMatchObject({ failed: [], changed: 0, unchanged: 2, bytes: 0 })
    },
  )
})

test('a file whose beginning changes, too, is told; what was stored of it before stays', async () => {
  const dir = world.path('torn')
  makeTree(dir, { log: firstOf(300_000), calm: 'c' })
  const { context } = restless(await contextOf(), join(dir, 'log'), overwrite)
  const summary = await runUpload(context, [dir], '/room')
  expect([codes(summary), summary.transferred]).toEqual([['SOURCE_CHANGED'], 1])
  expect((await world.list('/room/torn')).map(({ name }) => name)).toEqual(['calm'])

  const backup = await createBackup(world)
  makeTree(backup.source, { log: firstOf(300_000) })
  expect((await backup.run()).failed).toEqual([])
  const before = snapshot(backup.source)
  writeFileSync(join(backup.source, 'log'), firstOf(300_010))
  const torn = restless(backup.context, join(backup.source, 'log'), overwrite)
  const run = await runBackup(torn.context, backup.set, { state: backup.state })
  expect(run).toMatchObject({ isComplete: false, failed: [{ error: { code: 'SOURCE_CHANGED' } }] })
  expect(snapshot((await backup.restore()).content)).toEqual(before)
})

test('the beginning of a file is read twice', async () => {
  const path = world.path('prefix')
  writeFileSync(path, 'beginning')
  const reader = await openStable(path, 'shown')
  const { signal } = new AbortController()
  try {
    const digest = digestOf('beginning')
    expect(await reader.verifyPrefix(digest, signal)).toBe(true)
    appendFileSync(path, ' and more')
    expect(await reader.verifyPrefix(digest, signal)).toBe(false)
    await expect(reader.verify()).rejects.toMatchObject({ code: 'SOURCE_CHANGED' })
    await expect(reader.verifyPrefix(digestOf('another'), signal)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' })
    writeFileSync(path, 'begin')
    await expect(reader.verifyPrefix(digest, signal)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' })
  } finally {
    await reader.close()
  }
})
