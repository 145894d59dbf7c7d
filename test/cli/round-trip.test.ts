import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createWorld, listFiles, MAIN, makeTree, snapshot, type World } from '../support/cli.ts'

const WHOLE_SECOND = 1_700_000_000
const PART = 5 * 1024 * 1024

const isFull = process.env.SEALSYNC_FULL === '1'

describe.each(['s3', 'classic'] as const)('upload and download over the %s route', (storage) => {
  /** What does not depend on the route; over the second one with SEALSYNC_FULL=1. */
  const onceTest = test.skipIf(storage === 'classic' && !isFull)
  let world: World
  beforeAll(async () => {
    world = await createWorld({ storage })
    makeTree(world.path('dir'), {
      empty: '',
      'one byte': 'x',
      'part-1': randomBytes(PART - 1),
      part: randomBytes(PART),
      'part+1': randomBytes(PART + 1),
      'three parts': randomBytes(2 * PART + 12345),
      'small limit': randomBytes(256 * 1024),
      'small limit+1': randomBytes(256 * 1024 + 1),
      'empty directory/': '',
      'a/b/c/d/e/f/g/h/i/j/k/l/deep': 'deep',
      'ünïcode – 文件': 'unicode',
      'emoji 🦭🔐': 'emoji',
      [`${'n'.repeat(150)}`]: 'long name',
      'a:b?c*d': 'forbidden',
      '-leading': 'dash',
      'trailing.': 'dot',
      'CON.txt': 'reserved',
      '100%41': 'percent',
      'back\\slash|"<>': 'more',
    })
    makeTree(world.path('more'), { 'x/y': '1', z: '2' })
    symlinkSync('one byte', world.path('dir', 'link'))
    utimesSync(world.path('dir', 'trailing.'), WHOLE_SECOND, WHOLE_SECOND)
  })
  afterAll(() => world.close())

  test('brings every byte back, and every name', async () => {
    const up = await world.transfer(['upload', world.path('dir'), '/room', '--part-size', '5M'])
    expect(up.stderr).not.toContain('error')
    expect(up.summary).toMatchObject({ exitCode: 0, files: 18, transferred: 18, skipped: 0, ignored: 1, failed: [] })
    const down = await world.transfer(['download', '/room/dir', world.path('back')])
    expect(down.summary).toMatchObject({ exitCode: 0, files: 18, transferred: 18, failed: [] })
    rmSync(world.path('dir', 'link'))
    expect(snapshot(world.path('back', 'dir'))).toEqual(snapshot(world.path('dir')))
    expect(statSync(world.path('back/dir/part')).mtime).toEqual(
      new Date(Math.floor(statSync(world.path('dir/part')).mtimeMs)),
    )
  })

  test('transfers nothing again in either direction, also by checksum', async () => {
    for (const more of [[], ['--checksum']]) {
      const up = await world.transfer(['upload', world.path('dir'), '/room', ...more])
      expect(up.summary).toMatchObject({ exitCode: 0, transferred: 0, skipped: 18, bytes: 0 })
      const down = await world.transfer(['download', '/room/dir', world.path('back'), ...more])
      expect(down.summary).toMatchObject({ exitCode: 0, transferred: 0, skipped: 18, bytes: 0 })
    }
  })

  test('uploads what changed as a new version; --checksum sees what size and time hide', async () => {
    writeFileSync(world.path('dir/one byte'), 'xy')
    writeFileSync(world.path('dir/trailing.'), 'DOT')
    utimesSync(world.path('dir/trailing.'), WHOLE_SECOND, WHOLE_SECOND)
    const quick = await world.transfer(['upload', world.path('dir'), '/room'])
    expect(quick.summary).toMatchObject({ exitCode: 0, transferred: 1, skipped: 17 })
    const careful = await world.transfer(['upload', world.path('dir'), '/room', '--checksum'])
    expect(careful.summary).toMatchObject({ exitCode: 0, transferred: 1, skipped: 17 })
    expect((await world.cli(['cat', '/room/dir/trailing.', '--key-password-file', world.keyPasswordFile])).stdout).toBe(
      'DOT',
    )
  })

  onceTest('keeps local files that differ (12), and replaces them when told to', async () => {
    writeFileSync(world.path('back/dir/emoji 🦭🔐'), 'mine!')
    const kept = await world.transfer(['download', '/room/dir', world.path('back')])
    expect(kept.code).toBe(12)
    expect(kept.summary.failed.map((entry) => entry.code)).toContain('TARGET_DIFFERS')
    expect(readFileSync(world.path('back/dir/emoji 🦭🔐'), 'utf8')).toBe('mine!')
    const replaced = await world.transfer([
      'download',
      '/room/dir',
      world.path('back'),
      '--checksum',
      '--on-conflict',
      'overwrite',
    ])
    expect(replaced.code).toBe(0)
    expect(snapshot(world.path('back', 'dir'))).toEqual(snapshot(world.path('dir')))
  })

  onceTest('--on-conflict, both ways', async () => {
    const source = world.path('conflict/f.txt')
    const at = (seconds: number) => utimesSync(source, seconds, seconds)
    const up = async (how: string) =>
      (await world.transfer(['upload', source, '/room/c/', '--on-conflict', how])).summary
    const remote = async () =>
      Object.fromEntries((await world.cli(['ls', '/room/c', '--json'])).json.map(({ name, size }) => [name, size]))
    makeTree(world.path('conflict'), { 'f.txt': 'one' })
    at(2_000_000)
    expect((await up('fail')).transferred).toBe(1)
    makeTree(world.path('conflict'), { 'f.txt': 'second' })
    at(1_000_000)
    expect(await up('fail')).toMatchObject({ exitCode: 12, failed: [{ code: 'TARGET_DIFFERS' }] })
    expect(await up('skip')).toMatchObject({ exitCode: 0, skipped: 1 })
    expect(await up('newer')).toMatchObject({ exitCode: 0, skipped: 1 })
    expect(await up('rename')).toMatchObject({ exitCode: 0, transferred: 1 })
    expect(await remote()).toEqual({ 'f.txt': 3, 'f (1).txt': 6 })
    at(3_000_000)
    expect(await up('newer')).toMatchObject({ exitCode: 0, transferred: 1 })
    expect(await remote()).toEqual({ 'f.txt': 6, 'f (1).txt': 6 })

    const target = world.path('conflict-back')
    const down = async (how: string) =>
      (await world.transfer(['download', '/room/c/f.txt', `${target}/`, '--on-conflict', how])).summary
    makeTree(target, { 'f.txt': 'mine', 'f (1).txt': 'mine too' })
    utimesSync(join(target, 'f.txt'), 4_000_000, 4_000_000)
    expect(await down('skip')).toMatchObject({ exitCode: 0, skipped: 1 })
    expect(await down('newer')).toMatchObject({ exitCode: 0, skipped: 1 })
    expect(await down('rename')).toMatchObject({ exitCode: 0, transferred: 1 })
    expect(snapshot(target)).toEqual({ 'f.txt': 'mine', 'f (1).txt': 'mine too', 'f (2).txt': 'second' })
    utimesSync(join(target, 'f.txt'), 2_500_000, 2_500_000)
    expect(await down('newer')).toMatchObject({ exitCode: 0, transferred: 1 })
    expect(snapshot(target)['f.txt']).toBe('second')
  })

  onceTest('--contents, several sources, single files and folders made on the way', async () => {
    const up = await world.transfer([
      'upload',
      world.path('more/x'),
      world.path('more/z'),
      '/room/new/er',
      '--contents',
    ])
    expect(up.summary).toMatchObject({ exitCode: 0, transferred: 2 })
    const down = await world.transfer(['download', '/room/new/er', world.path('single'), '--contents'])
    expect(down.code).toBe(0)
    expect(snapshot(world.path('single'))).toEqual({ y: '1', z: '2' })
    const one = await world.transfer(['download', '/room/new/er/z', `${world.path('one')}/`])
    expect(one.code).toBe(0)
    expect(snapshot(world.path('one'))).toEqual({ z: '2' })
  })

  test('the server has neither plaintext nor secrets', async () => {
    const canary = `canary ${randomBytes(8).toString('hex')}`
    makeTree(world.path('secret'), { 'small canary': canary, 'large canary': Buffer.alloc(PART, canary) })
    expect((await world.transfer(['upload', world.path('secret'), '/room'])).code).toBe(0)
    const stored = listFiles(world.path('server'))
    expect(stored.length).toBeGreaterThan(2)
    for (const name of stored) {
      const bytes = readFileSync(world.path('server', name))
      expect(bytes.includes(canary), name).toBe(false)
      expect(bytes.includes('BEGIN PRIVATE KEY'), name).toBe(false)
      expect(bytes.includes('encryption pässword'), name).toBe(false)
    }
  })

  test('a plain room works too, and is refused with --require-encryption (9)', async () => {
    expect((await world.cli(['room', 'create', '/plain', '--plain'])).code).toBe(0)
    const refused = await world.transfer(['upload', world.path('more'), '/plain', '--require-encryption'])
    expect(refused.code).toBe(9)
    expect((await world.cli(['ls', '/plain'])).stdout).toBe('')
    // A script that did not say so sends nothing where the server could read it.
    expect((await world.transfer(['upload', world.path('more'), '/plain'])).code).toBe(9)
    expect((await world.cli(['ls', '/plain'])).stdout).toBe('')
    const up = await world.transfer(['upload', world.path('more'), '/plain', '--allow-plain'])
    expect(up.summary).toMatchObject({ exitCode: 0, transferred: 2 })
    expect((await world.transfer(['download', '/plain/more', world.path('plain')])).code).toBe(0)
    expect(snapshot(world.path('plain/more'))).toEqual(snapshot(world.path('more')))
  })

  onceTest('a download under a directory in the way is reported, other files go on', async () => {
    mkdirSync(world.path('blocked/more/z'), { recursive: true })
    const down = await world.transfer(['download', '/plain/more', world.path('blocked')])
    expect(down.code).toBe(12)
    expect(down.summary).toMatchObject({ transferred: 1, failed: [{ path: 'more/z', code: 'KINDS_DIFFER' }] })
  })

  test('cat prints exactly the content, also of a large file', async () => {
    const large = randomBytes(17 * 1024 * 1024)
    makeTree(world.path('cat'), { large })
    expect((await world.transfer(['upload', world.path('cat'), '/room'])).code).toBe(0)
    const file = world.path('cat-out')
    const out = openSync(file, 'w')
    const child = spawn(
      process.execPath,
      [MAIN, 'cat', '/room/cat/large', '--key-password-file', world.keyPasswordFile],
      {
        env: { ...process.env, SEALSYNC_HOME: world.home },
        stdio: ['ignore', out, 'inherit'],
      },
    )
    const [code] = await once(child, 'close')
    closeSync(out)
    expect(code).toBe(0)
    const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
    expect(digest(readFileSync(file))).toBe(digest(large))
    expect(snapshot(`${world.home}/tmp`)).toEqual({})
  })
})
