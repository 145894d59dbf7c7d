/** Restoring over what is damaged, and restoring again after a restore that was killed. */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  lstatSync,
  lutimesSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { restoreBackup } from '../../src/sync/backup/restore.ts'
import type { ConflictAction as OnConflict } from '../../src/sync/conflicts.ts'
import { type Backup, createBackup } from '../support/backup.ts'
import { accountPassword, createWorld, KEY_PASSWORD, makeTree, snapshot, user1, type World } from '../support/cli.ts'

/** Starts of the ranges of content that were asked for. */
const starts: number[] = []

let world: World
beforeAll(async () => {
  world = await createWorld({
    recorder: {
      onRequest({ method, path, headers }) {
        if (method === 'GET' && path.includes('/downloads/'))
          starts.push(Number(/^bytes=(\d+)-/.exec(headers.range ?? 'bytes=0-')![1]))
      },
    },
  })
})
afterAll(() => world.close())

const LARGE = 9_000_000

/** What a file looks like from outside, link targets too. */
function looks(root: string): Record<string, string> {
  const found: Record<string, string> = {}
  const visit = (path: string) => {
    const info = lstatSync(join(root, path), { bigint: true })
    const target = info.isSymbolicLink() ? ` -> ${readlinkSync(join(root, path))}` : ''
    const mode = info.isSymbolicLink() ? '' : ` ${(info.mode & 0o7777n).toString(8)}`
    found[path] = `${info.mtimeNs / 1000n}${mode}${target}`
    if (info.isDirectory()) for (const name of readdirSync(join(root, path)).sort()) visit(join(path, name))
  }
  visit('')
  return found
}

/** Other bytes in the same place: neither size nor time tell. */
function damage(path: string): void {
  const { size, atimeMs, mtimeMs } = lstatSync(path)
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.from([0xff]), 0, 1, Math.floor(size / 2)) // no file here has such a byte
  closeSync(fd)
  utimesSync(path, atimeMs / 1000, mtimeMs / 1000)
}

describe('what is there is compared by its content', () => {
  const names = ['f', 'dir/f', 'dir/deep/er/f', 'dir/middle', 'large']

  async function restored() {
    const backup = await createBackup(world)
    const { source } = backup
    const middle = Buffer.alloc(700_000, 'm')
    makeTree(source, { f: 'flat file', 'dir/f': 'in a directory', 'dir/deep/er/f': 'deep below', fine: 'f' })
    makeTree(source, { 'dir/middle': middle, large: Buffer.alloc(LARGE, 'l'), 'dir/empty': '' })
    symlinkSync('f', join(source, 'link'))
    lutimesSync(join(source, 'link'), 1_500_000_000, 1_500_000_000)
    for (const name of [...names, 'fine', 'dir/deep', 'dir'])
      utimesSync(join(source, name), 1_577_836_800, 1_577_836_800)
    chmodSync(join(source, 'dir/f'), 0o640)
    expect((await backup.run()).failed).toEqual([])
    const { root, content } = await backup.restore()
    const again = (onConflict?: OnConflict, trustTimes = false) =>
      restoreBackup(backup.context, backup.set, root, {
        state: backup.state,
        trustTimes,
        ...(onConflict === undefined ? {} : { onConflict }),
      })
    return { ...backup, root, content, again }
  }

  test('damage of equal size and time is mended, told or left alone, as one says', async () => {
    const { source, content, again } = await restored()
    const right = snapshot(source)
    for (const name of names) damage(join(content, name))
    const damaged = snapshot(content)
    expect(
      Object.keys(right)
        .filter((name) => right[name] !== damaged[name])
        .sort(),
    ).toEqual([...names].sort())
    for (const onConflict of ['fail', undefined] as const) {
      const { failed } = await again(onConflict)
      expect(failed.map(({ path }) => path).sort()).toEqual(names.map((name) => join(source, name)).sort())
      expect(new Set(failed.map(({ error }) => error.code))).toEqual(new Set(['TARGET_DIFFERS']))
    }
    expect(await again('skip')).toMatchObject({ failed: [], transferred: 0, skipped: 7 })
    expect(await again('overwrite', true)).toMatchObject({ failed: [], transferred: 0, skipped: 7 })
    expect(snapshot(content)).toEqual(damaged)
    expect(await again('overwrite')).toMatchObject({ failed: [], transferred: 5, skipped: 2 })
    expect(snapshot(content)).toEqual(right)
    expect(looks(content)).toEqual(looks(source))
    expect(await again('overwrite')).toMatchObject({ failed: [], transferred: 0, skipped: 7 })
  })

  test('permissions, times and links come back where the content is right', async () => {
    const { source, content, again } = await restored()
    chmodSync(join(content, 'f'), 0o666)
    chmodSync(join(content, 'dir/f'), 0o4750)
    chmodSync(join(content, 'dir'), 0o700)
    utimesSync(join(content, 'dir/deep/er/f'), 1, 1)
    lutimesSync(join(content, 'link'), 1, 1)
    rmSync(join(content, 'fine'))
    symlinkSync('/etc/passwd', join(content, 'fine'))
    expect((await again('fail')).failed).toMatchObject([
      { path: join(source, 'fine'), error: { code: 'KINDS_DIFFER' } },
    ])
    expect(await again('overwrite')).toMatchObject({ failed: [], transferred: 1, skipped: 6 })
    expect(looks(content)).toEqual(looks(source))
    rmSync(join(content, 'link'))
    symlinkSync('elsewhere', join(content, 'link'))
    expect((await again('overwrite')).failed).toEqual([])
    expect(looks(content)).toEqual(looks(source))
    expect(snapshot(content)).toEqual(snapshot(source))
  })
})

const CHILD = fileURLToPath(new URL('../support/restore-child.mjs', import.meta.url))

interface Restored {
  readonly calls: number
  readonly codes: readonly string[]
  readonly transferred: number
  readonly skipped: number
}

/** A restore in a process of its own; `undefined` when it was killed. */
async function restore(
  { set, state }: Backup,
  target: string,
  when: 'before' | 'after' | 'part' = 'before',
  at = 0,
): Promise<Restored | undefined> {
  const account = [world.server.url, user1, accountPassword(user1), KEY_PASSWORD]
  const args = [CHILD, ...account, JSON.stringify(set), state.directory, target, when, String(at)]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    stderr += chunk
  })
  const [code, signal] = await once(child, 'close')
  if (signal === 'SIGKILL') return undefined
  expect([code, stderr]).toEqual([0, ''])
  return JSON.parse(stdout)
}

const temporary = (root: string) =>
  (readdirSync(root, { recursive: true }) as string[]).filter((path) => path.includes('.sealsync-'))

describe('a restore that is killed goes on when it is given again', () => {
  test('before and after calls that change the disk', { timeout: 3_600_000 }, async () => {
    const backup = await createBackup(world)
    const { source, context, set, state } = backup
    makeTree(source, {
      a: 'a',
      'sub/b': 'b',
      'sub/deep/c': 'c',
      'closed/d': 'd',
      'sub/middle': Buffer.alloc(300_000, 'm'),
    })
    if (process.env.SEALSYNC_FULL) makeTree(source, { large: Buffer.alloc(LARGE, 'l') })
    const files = process.env.SEALSYNC_FULL ? 6 : 5
    symlinkSync('a', join(source, 'link'))
    symlinkSync('../../nowhere', join(source, 'sub/deep/dangling'))
    lutimesSync(join(source, 'link'), 1_500_000_000, 1_500_000_000)
    chmodSync(join(source, 'closed'), 0o500)
    expect((await backup.run()).failed).toEqual([])
    const right = looks(source)
    const whole = (await restore(backup, world.path('whole')))!
    expect(whole).toMatchObject({ codes: [], transferred: files })
    expect(looks(join(world.path('whole'), source))).toEqual(right)

    const stride = process.env.SEALSYNC_FULL ? 1 : Math.ceil(whole.calls / 8)
    let kills = 0
    for (let at = 1; at <= whole.calls; at += stride) {
      for (const when of at % 2 === 0 || stride === 1 ? (['before', 'after'] as const) : (['after'] as const)) {
        const target = world.path(`killed-${when}-${at}`)
        if ((await restore(backup, target, when, at)) === undefined) kills++
        const shown = `${when} call ${at} of ${whole.calls}`
        const summary = await restoreBackup(context, set, target, { state })
        expect([summary.failed, summary.transferred + summary.skipped], shown).toEqual([[], files])
        expect(looks(join(target, source)), shown).toEqual(right)
        expect(temporary(target), shown).toEqual([])
        rmSync(target, { recursive: true })
      }
    }
    // Calls in parallel: some runs make fewer.
    expect(kills).toBeGreaterThan(whole.calls / stride / 2)
    if (process.env.SEALSYNC_FULL) process.stdout.write(`restore: ${kills} kills at ${whole.calls} calls\n`)
    chmodSync(join(source, 'closed'), 0o700)
  })

  test('inside a large file, without fetching again what is there', async () => {
    const backup = await createBackup(world)
    makeTree(backup.source, { large: randomBytes(LARGE) })
    await backup.run()
    const target = world.path('large-killed')
    expect(await restore(backup, target, 'part', 5)).toBeUndefined()
    expect(temporary(target)).not.toEqual([])
    starts.length = 0
    expect(await restore(backup, target)).toMatchObject({ codes: [], transferred: 1 })
    // The manifest is read from its beginning.
    expect(starts.filter((start) => start === 0)).toHaveLength(1)
    expect(Math.max(...starts)).toBeGreaterThan(0)
    expect(snapshot(join(target, backup.source))).toEqual(snapshot(backup.source))
    expect(temporary(target)).toEqual([])
  })

  test('but not in a directory that somebody has made anew, nor with another run or other paths', async () => {
    const backup = await createBackup(world)
    const { source, context, set, state } = backup
    makeTree(source, { a: 'a', b: 'b' })
    const first = await backup.run()
    await backup.run()
    const target = world.path('anew')
    const again = (more: object = {}) => restoreBackup(context, set, target, { state, ...more })
    const refused = { class: 'conflict', code: 'TARGET_NOT_EMPTY' }
    expect(await again()).toMatchObject({ failed: [], transferred: 2 })
    rmSync(join(target, source, 'b'))
    expect(await again()).toMatchObject({ failed: [], transferred: 1, skipped: 1 })
    await expect(again({ run: first.run })).rejects.toMatchObject(refused)
    await expect(again({ paths: [`${source}/a`] })).rejects.toMatchObject(refused)
    rmSync(target, { recursive: true })
    makeTree(target, { theirs: 't' })
    await expect(again()).rejects.toMatchObject(refused)
    expect(snapshot(target)).toEqual({ theirs: 't' })
  })
})
