import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { generateKeyPair } from '../../crypto/index.ts'
import { createDownload } from '../../src/api/downloads.ts'
import { listChildren } from '../../src/api/nodes.ts'
import { type FaultHit, MemoryRecorder } from '../../src/server/index.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import {
  createWorld,
  giveKeyPair,
  KEY_PASSWORD,
  listFiles,
  makeTree,
  runCli,
  snapshot,
  type World,
} from '../support/cli.ts'

const isRoot = process.getuid?.() === 0

let world: World
beforeAll(async () => {
  world = await createWorld({ users: ['anna', 'bob'], storage: 's3' })
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const room = async () => (await world.client()).api
let counter = 0
/** A fresh source directory with files, and a fresh remote folder for it. */
function scene(files: Record<string, string | Uint8Array>): { dir: string; target: string } {
  const name = `scene${++counter}`
  makeTree(world.path(name), files)
  return { dir: world.path(name), target: `/room/${name}` }
}
const names = async (path: string) => (await world.list(path)).map(({ name }) => name)
const upload = (dir: string, target: string, ...more: string[]) =>
  world.transfer(['upload', dir, target, '--contents', ...more])
/** The scene's files are at the server; for tests whose subject is what comes after. */
async function stored(files: Record<string, string | Uint8Array>): Promise<{ dir: string; target: string }> {
  const made = scene(files)
  const client = await world.client()
  const summary = await client.upload([made.dir], made.target, { contents: true })
  expect(summary).toMatchObject({ transferred: Object.keys(files).length, failed: [] })
  return made
}
const hits = (since: number): FaultHit[] => world.server.faults.hits.slice(since)

describe('what is wrong before anything is transferred', () => {
  test('wrong account password: 4, and it is sent once', async () => {
    writeFileSync(world.path('wrong'), 'not the password', { mode: 0o600 })
    const login = await world.cli(
      [
        'login',
        world.server.url,
        '--user',
        'bob',
        '--password-file',
        world.path('wrong'),
        '--profile',
        'bob',
        '--json',
      ],
      {},
    )
    expect(login.code).toBe(4)
    expect(login.json.at(-1)).toMatchObject({ type: 'error', exitCode: 4, code: 'WRONG_CREDENTIALS' })
    expect(login.stderr).not.toContain('not the password')
  })

  test('wrong encryption password: 13, nothing uploaded', async () => {
    const { dir, target } = scene({ a: 'a' })
    const run = await runCli(world.home, ['upload', dir, target, '--json'], { env: { SEALSYNC_KEY_PASSWORD: 'wrong' } })
    expect(run.code).toBe(13)
    expect(run.json.at(-1)).toMatchObject({ type: 'summary', exitCode: 13, stoppedBy: { code: 'KEY_PASSWORD_WRONG' } })
    expect(await names('/room')).not.toContain(target.slice(6))
  })

  test('no way to ask for the encryption password: 13', async () => {
    const { dir } = scene({ a: 'a' })
    const run = await world.cli(['upload', dir, '/room', '--json'])
    expect(run.json.at(-1)).toMatchObject({ exitCode: 13, stoppedBy: { code: 'PASSWORD_NEEDED' } })
  })

  test('no key pair: 13', async () => {
    const home = world.path('home-bob')
    mkdirSync(home, { mode: 0o700 })
    const login = await runCli(home, [
      'login',
      world.server.url,
      '--user',
      'bob',
      '--password-file',
      world.path('password-bob'),
    ])
    expect(login.code).toBe(0)
    expect((await runCli(home, ['room', 'create', '/bobs'])).code).toBe(13)
    expect((await world.cli(['room', 'members', '/room', '--add', 'bob', '--role', 'read'])).code).toBe(0)
    const { dir } = scene({ a: 'a' })
    // Bob may read only: that is said first.
    expect((await runCli(home, ['upload', dir, '/room'])).code).toBe(6)
    expect((await world.cli(['room', 'members', '/room', '--add', 'bob', '--role', 'edit'])).code).toBe(0)
    expect((await runCli(home, ['upload', dir, '/room'])).code).toBe(13)
    expect((await world.cli(['room', 'members', '/room', '--remove', 'bob'])).code).toBe(0)
    expect((await runCli(home, ['ls', '/room'])).code).toBe(2)
  })

  test.each([
    ['no such room', '/nowhere', 'REMOTE_MISSING'],
    ['the root', '/', 'TARGET_IS_ROOT'],
    ['a relative path', 'room', 'PATH_INVALID'],
    ['a path with ..', '/room/../x', 'PATH_INVALID'],
  ])('%s as target: 2', async (_what, target, code) => {
    const { dir } = scene({ a: 'a' })
    const run = await world.transfer(['upload', dir, target])
    expect(run.code).toBe(2)
    expect(run.json.at(-1)).toMatchObject({ exitCode: 2, stoppedBy: { code } })
  })

  test('a file as target: 2; a missing source: 2; unknown options and numbers: 2', async () => {
    const { dir, target } = await stored({ a: 'a' })
    expect((await world.transfer(['upload', dir, `${target}/a`])).json.at(-1)).toMatchObject({
      exitCode: 2,
      stoppedBy: { code: 'TARGET_IS_FILE' },
    })
    expect((await world.transfer(['upload', `${dir}/nope`, target])).code).toBe(2)
    expect((await world.transfer(['upload', dir, target, '-j', '0'])).code).toBe(2)
    expect((await world.transfer(['upload', dir, target, '--part-size', '1M'])).code).toBe(2)
    expect((await world.cli(['upload', dir, target, '--frobnicate'])).code).toBe(2)
    expect((await world.cli(['upload', dir])).code).toBe(2)
  })

  test('a secret file that others can read: 2', async () => {
    const { dir, target } = scene({ a: 'a' })
    writeFileSync(world.path('open'), KEY_PASSWORD, { mode: 0o644 })
    const run = await world.cli(['upload', dir, target, '--key-password-file', world.path('open'), '--json'])
    expect(run.json.at(-1)).toMatchObject({ exitCode: 2, stoppedBy: { code: 'SECRET_FILE_OPEN' } })
  })

  test('a second run on the same places: 8', async () => {
    const { dir, target } = scene({ a: 'a' })
    const before = world.server.faults.hits.length
    world.server.faults.add({ on: { path: '/nodes/files/uploads$' }, do: { hold: true } })
    const first = upload(dir, target)
    await world.server.faults.until(before + 1)
    const second = await upload(dir, target)
    expect(second.code).toBe(8)
    world.server.faults.clear()
    expect((await first).code).toBe(0)
  })
})

describe('sources that do not hold still', () => {
  test.runIf(isRoot)('an unreadable file fails alone: 3', async () => {
    const { dir, target } = scene({ good: 'good', bad: 'bad' })
    // The whole of the run belongs to somebody who is not root, since root reads everything.
    const base = world.path('nobody')
    mkdirSync(base, { mode: 0o700 })
    const copy = (name: string) => {
      const to = join(base, name)
      writeFileSync(to, readFileSync(world.path(name)), { mode: 0o600 })
      chownSync(to, 65534, 65534)
      return to
    }
    chownSync(base, 65534, 65534)
    chmodSync(join(dir, 'bad'), 0)
    const login = await runCli(
      base,
      ['login', world.server.url, '--user', 'anna', '--password-file', copy('password-anna')],
      {
        uid: 65534,
      },
    )
    expect(login.code, login.stderr).toBe(0)
    const run = await runCli(
      base,
      ['upload', dir, target, '--contents', '--json', '--key-password-file', copy('key-password')],
      {
        uid: 65534,
      },
    )
    expect(run.json.at(-1)).toMatchObject({
      exitCode: 3,
      transferred: 1,
      failed: [{ path: 'bad', code: 'LOCAL_EACCES' }],
    })
    expect(await names(target)).toEqual(['good'])
  })

  test('a file that vanishes after the listing fails alone: 3', async () => {
    const { dir, target } = scene({ a: 'a', b: 'b' })
    world.server.faults.add({ on: { method: 'POST', path: '/v4/nodes/folders' }, do: { hold: true } })
    const before = world.server.faults.hits.length
    const run = upload(dir, target)
    await world.server.faults.until(before + 1)
    unlinkSync(join(dir, 'b'))
    world.server.faults.clear()
    expect((await run).summary).toMatchObject({
      exitCode: 3,
      transferred: 1,
      failed: [{ path: 'b', code: 'LOCAL_ENOENT' }],
    })
    expect(await names(target)).toEqual(['a'])
  })

  test('a file that keeps changing while it is read is stored as it is after three tries; nothing is encrypted twice under one key', async () => {
    const { dir, target } = scene({ log: randomBytes(6_000_000) })
    const before = world.server.faults.hits.length
    world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, times: 3, do: { hold: true } })
    const run = upload(dir, target)
    for (let attempt = 1; attempt <= 3; attempt++) {
      await world.server.faults.until(before + attempt)
      appendFileSync(join(dir, 'log'), 'x')
      world.server.faults.release()
    }
    expect((await run).summary).toMatchObject({
      exitCode: 0,
      transferred: 1,
      failed: [],
    })
    expect(await names(target)).toEqual(['log'])
  })

  test('a file that changes once gets a new key and arrives', async () => {
    const { dir, target } = scene({ log: randomBytes(6_000_000) })
    const before = world.server.faults.hits.length
    world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, do: { hold: true } })
    const run = upload(dir, target)
    await world.server.faults.until(before + 1)
    appendFileSync(join(dir, 'log'), 'x')
    world.server.faults.release()
    expect((await run).summary).toMatchObject({ exitCode: 0, transferred: 1 })
    expect((await world.transfer(['download', `${target}/log`, `${world.path('changed')}/`])).code).toBe(0)
    expect(readFileSync(world.path('changed/log')).equals(readFileSync(join(dir, 'log')))).toBe(true)
  })
})

describe('a server that misbehaves', () => {
  test.each([
    ['503 twice', { status: 503 }, 2],
    ['429 with Retry-After', { status: 429, headers: { 'Retry-After': '1' } }, 1],
    ['a cut answer', { cutAfterBytes: 5 }, 1],
  ])('%s is ridden out', async (_what, fault, times) => {
    const { dir, target } = scene({ a: 'a', b: randomBytes(300_000) })
    const before = world.server.faults.hits.length
    world.server.faults.add({ on: { method: 'GET', path: '/v4/nodes$' }, times, do: fault })
    world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, times, do: fault })
    expect((await upload(dir, target)).summary).toMatchObject({ exitCode: 0, transferred: 2 })
    expect(hits(before).length).toBeGreaterThanOrEqual(times)
    expect(await names(target)).toEqual(['a', 'b'])
  })

  test('garbage instead of JSON: 5', async () => {
    world.server.faults.add({ on: { method: 'GET', path: '/v4/nodes$' }, times: 99, do: { garbage: true } })
    const run = await world.cli(['ls', '/', '--json'])
    expect(run.json.at(-1)).toMatchObject({ type: 'error', exitCode: 5, code: 'ANSWER_NOT_JSON' })
  })

  test('503 without end: 5', async () => {
    world.server.faults.add({ on: { path: '/v4/nodes$' }, times: 99, do: { status: 503 } })
    expect((await world.cli(['ls', '/'])).code).toBe(5)
  })

  test('a part that the storage refuses fails its file alone: 3; nothing half-written at the server', async () => {
    const { dir, target } = scene({ a: 'a', b: 'b', c: randomBytes(300_000) })
    world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 1, do: { status: 400, body: '<Error/>' } })
    const run = await upload(dir, target, '-j', '1')
    expect(run.summary).toMatchObject({ exitCode: 3, transferred: 2, failed: [{ path: 'b', code: 'STORAGE_REFUSED' }] })
    expect(await names(target)).toEqual(['a', 'c'])
    expect((await upload(dir, target)).summary).toMatchObject({ exitCode: 0, transferred: 1, skipped: 2 })
  })

  test('a storage that is down stops the run: 5; run again, it completes', async () => {
    const { dir, target } = scene({ a: 'a', b: 'b' })
    world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, times: 999, do: { status: 503 } })
    const run = await upload(dir, target, '-j', '1')
    expect(run.summary).toMatchObject({ exitCode: 5, transferred: 0 })
    expect(await names(target)).toEqual([])
    world.server.faults.clear()
    expect((await upload(dir, target)).summary).toMatchObject({ exitCode: 0, transferred: 2 })
  })

  test('a lost answer to the last request: exactly one node, one version', async () => {
    for (const path of ['/s3$', '/uploads/[^/]+/s3$']) {
      const { dir, target } = scene({ once: randomBytes(1000) })
      world.server.faults.add({ on: { method: 'PUT', path }, do: { loseAnswer: true } })
      expect((await upload(dir, target)).summary).toMatchObject({ exitCode: 0, transferred: 1 })
      expect(await names(target)).toEqual(['once'])
      world.server.faults.clear()
    }
  })

  test('a token that expires in mid-run is renewed', async () => {
    const { dir, target } = scene(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`f${i}`, `content ${i}`])))
    world.server.faults.add({
      on: { method: 'POST', path: '/files/uploads$' },
      after: 5,
      times: 1,
      do: { status: 401 },
    })
    expect((await upload(dir, target)).summary).toMatchObject({ exitCode: 0, transferred: 20 })
  })

  test('a download that is cut continues where it stopped', async () => {
    const content = randomBytes(3_000_000)
    const { target } = await stored({ big: content })
    const before = world.server.faults.hits.length
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, times: 2, do: { cutAfterBytes: 1_000_000 } })
    const run = await world.transfer(['download', `${target}/big`, `${world.path('cut')}/`])
    expect(run.summary).toMatchObject({ exitCode: 0, transferred: 1, bytes: content.length })
    expect(hits(before).length).toBe(2)
    expect(readFileSync(world.path('cut/big')).equals(content)).toBe(true)
  })

  test('a download goes on although the server answers a range with everything', async () => {
    const content = randomBytes(2_000_000)
    const { target } = await stored({ big: content })
    // The stored ciphertext, as the server would send it whole.
    const { node } = await requireRemote((await world.client()).api, `${target}/big`)
    const api = (await world.client()).api
    const whole = await api.sendPlain({ method: 'GET', url: await createDownload(api, node.id) })
    const origin = createServer((request, response) => {
      const first = request.headers.range === undefined
      response.writeHead(200, { 'content-length': whole.body.length })
      if (!first) return response.end(whole.body)
      return response.write(whole.body.subarray(0, 700_000), () => response.destroy())
    })
    await once(origin.listen(0, '127.0.0.1'), 'listening')
    const { port } = origin.address() as AddressInfo
    const body = JSON.stringify({ downloadUrl: `http://127.0.0.1:${port}/content` })
    const headers = { 'Content-Type': 'application/json' }
    world.server.faults.add({
      on: { method: 'POST', path: '/downloads$' },
      times: 9,
      do: { status: 200, headers, body },
    })
    const run = await world.transfer(['download', `${target}/big`, `${world.path('whole')}/`])
    origin.close()
    expect(run.summary).toMatchObject({ exitCode: 0, transferred: 1 })
    expect(readFileSync(world.path('whole/big')).equals(content)).toBe(true)
  })

  test.each([0, 1_500_000, 2_999_999])(
    'byte %i flipped on the way down: 7, and nothing under the final name',
    async (at) => {
      const { target } = await stored({ big: randomBytes(3_000_000), other: 'other' })
      world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { flipByteAt: at } })
      const out = world.path(`flip${at}`)
      const run = await world.transfer(['download', `${target}/big`, `${out}/`])
      expect(run.summary).toMatchObject({ exitCode: 7, failed: [{ code: 'CONTENT_TAMPERED' }] })
      expect(readdirSync(out)).toEqual([])
    },
  )

  test('a flipped byte does not replace the good file that is there', async () => {
    const { target } = await stored({ f: 'first version' })
    const out = world.path('keep')
    makeTree(out, { f: 'older content' })
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { flipByteAt: 3 } })
    const run = await world.transfer(['download', `${target}/f`, `${out}/`, '--on-conflict', 'overwrite'])
    expect(run.code).toBe(7)
    expect(snapshot(out)).toEqual({ f: 'older content' })
  })

  test('cat prints nothing of a changed file: 7', async () => {
    const { target } = await stored({ f: 'secret content' })
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { flipByteAt: 0 } })
    const run = await world.cli(['cat', `${target}/f`, '--key-password-file', world.keyPasswordFile])
    expect(run).toMatchObject({ code: 7, stdout: '' })
  })

  test('hostile names are reported, never written, and shown harmlessly: 3', async () => {
    const { target } = await stored({ good: 'good' })
    const api = await room()
    const client = await world.client()
    const { node } = await requireRemote(api, target)
    const real: Record<string, unknown>[] = []
    for await (const child of listChildren(client.api, node.id)) real.push({ ...child, isEncrypted: true })
    const hostile = ['../escape', 'a/b', 'nul\u0000byte', '..', '.', '\u001b[31mred', 'safe'].map((name, index) => ({
      ...real[0],
      id: index === 6 ? real[0]!.id : 900_000 + index,
      name,
      createdAt: undefined,
      updatedAt: '2026-01-01T00:00:00Z',
      timestampModification: '2026-01-01T00:00:00Z',
    }))
    const body = JSON.stringify({ range: { offset: 0, limit: 500, total: hostile.length }, items: hostile })
    // Listings: the room, then the folder's children; the folder itself is searched for.
    world.server.faults.add({
      on: { method: 'GET', path: '/v4/nodes$' },
      after: 1,
      do: { status: 200, headers: { 'Content-Type': 'application/json' }, body },
    })
    const out = world.path('hostile')
    const run = await world.transfer(['download', target, out, '--contents'])
    expect(run.summary.failed.filter((entry) => entry.code === 'NAME_UNSAFE').length).toBe(5)
    expect(run.stderr).not.toContain('\u001b[31m')
    expect(run.stderr).not.toContain('\u0000')
    expect(listFiles(out)).toContain('safe')
    expect(existsSync(world.path('escape'))).toBe(false)
  })

  test('a directory of the target that is a link elsewhere is not followed', async () => {
    const { target } = await stored({ 'sub/file': 'content' })
    const out = world.path('linked')
    makeTree(world.path('elsewhere'), {})
    makeTree(out, {})
    symlinkSync(world.path('elsewhere'), join(out, 'sub'))
    const run = await world.transfer(['download', target, out, '--contents'])
    expect(run.code).toBe(12)
    expect(snapshot(world.path('elsewhere'))).toEqual({})
  })
})

describe('a full disk', () => {
  const mounted: string[] = []
  afterAll(() => {
    for (const path of mounted) spawnSync('umount', [path])
  })

  test.runIf(isRoot && process.platform === 'linux')('10, and nothing half-written', async () => {
    const { dir, target } = await stored({ fits: randomBytes(100_000), large: randomBytes(2_000_000) })
    const out = world.path('tmpfs')
    mkdirSync(out)
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', out])
    expect(mount.status, String(mount.stderr)).toBe(0)
    mounted.push(out)
    const early = await world.transfer(['download', target, out, '--contents'])
    expect(early.json.at(-1)).toMatchObject({ exitCode: 10, stoppedBy: { code: 'LOCAL_ENOSPC' } })
    expect(readdirSync(out)).toEqual([])
    // The disk fills up only after the check.
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { hold: true } })
    rmSync(join(dir, 'large'))
    writeFileSync(join(dir, 'medium'), randomBytes(900_000))
    expect((await upload(dir, target)).code).toBe(0)
    const before = world.server.faults.hits.length
    const late = world.transfer(['download', `${target}/medium`, `${out}/`])
    await world.server.faults.until(before + 1)
    writeFileSync(join(out, 'other'), randomBytes(800_000))
    world.server.faults.release()
    expect((await late).summary).toMatchObject({ exitCode: 10, failed: [{ code: 'LOCAL_ENOSPC' }] })
    expect(readdirSync(out)).toEqual(['other'])
  })
})

describe('Ctrl-C', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s in the middle of an upload leaves nothing behind; run again, it completes',
    async (name) => {
      const { dir, target } = scene({ big: randomBytes(20_000_000), small: 'small' })
      world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 1, times: 3, do: { hold: true } })
      const since = world.server.faults.hits.length
      const stopped = await world.transfer(['upload', dir, target, '--contents', '--part-size', '5M'], {
        during: async (child) => {
          await world.server.faults.until(since + 1)
          child.kill(name)
        },
      })
      expect(stopped.code).toBe(name === 'SIGINT' ? 130 : 143)
      expect(await names(target)).not.toContain('big')
      world.server.faults.clear()
      expect((await upload(dir, target)).code).toBe(0)
      expect((await world.transfer(['download', target, world.path(`again-${name}`), '--contents'])).code).toBe(0)
      expect(snapshot(world.path(`again-${name}`))).toEqual(snapshot(dir))
    },
  )

  test.each(['upload', 'download'] as const)(
    '%s, and the server answers nothing any more: ends all the same, and run again it completes',
    async (what) => {
      const { dir, target } = await (what === 'upload' ? scene : stored)({
        big: randomBytes(20_000_000),
        small: 'small',
      })
      const out = world.path(`silent-${what}`)
      const up = ['upload', dir, target, '--contents', '--part-size', '5M']
      const down = ['download', target, out, '--contents']
      const content = what === 'upload' ? { method: 'PUT', path: '^/s3/' } : { method: 'GET', path: '/downloads/' }
      const since = world.server.faults.hits.length
      world.server.faults.add({ on: content, after: what === 'upload' ? 1 : 0, times: 99, do: { hold: true } })
      const stopped = await world.transfer(what === 'upload' ? up : down, {
        during: async (child) => {
          await world.server.faults.until(since + 1)
          // Cancelling the upload there has no answer, either.
          world.server.faults.add({ on: { path: '' }, times: 99, do: { hold: true } })
          child.kill('SIGINT')
        },
      })
      expect(stopped.code).toBe(130)
      world.server.faults.clear()
      expect((await world.transfer(up)).code).toBe(0)
      expect((await world.transfer(down)).code).toBe(0)
      expect(snapshot(out)).toEqual(snapshot(dir))
    },
  )

  test('in the middle of a download: 130, no temporary file, run again completes', async () => {
    const { dir, target } = await stored({ big: randomBytes(20_000_000) })
    const out = world.path('stop-down')
    world.server.faults.add({ on: { method: 'GET', path: '/downloads/' }, do: { hold: true } })
    const since = world.server.faults.hits.length
    const stopped = await world.transfer(['download', target, out, '--contents'], {
      during: async (child) => {
        await world.server.faults.until(since + 1)
        child.kill('SIGINT')
      },
    })
    expect(stopped.code).toBe(130)
    expect(readdirSync(out)).toEqual([])
    world.server.faults.clear()
    expect((await world.transfer(['download', target, out, '--contents'])).code).toBe(0)
    expect(snapshot(out)).toEqual(snapshot(dir))
  })
})

describe('members', () => {
  test('every member with a valid key gets the keys of uploaded files, over several pages; others are skipped', async () => {
    const many = await createWorld({ users: ['anna', 'carl', 'dora', 'emil'], storage: 'classic' })
    try {
      for (const name of ['carl', 'dora']) {
        await giveKeyPair(await many.client(name), await generateKeyPair('A'))
      }
      for (const name of ['carl', 'dora', 'emil']) {
        expect((await many.cli(['room', 'members', '/room', '--add', name, '--role', 'read'])).code).toBe(0)
      }
      const files = Object.fromEntries(Array.from({ length: 130 }, (_, i) => [`file ${i}`, `content ${i}`]))
      makeTree(many.path('many'), files)
      expect((await many.transfer(['upload', many.path('many'), '/room', '--trust-new-members'])).code).toBe(0)
      for (const name of ['carl', 'dora']) {
        const client = await many.client(name)
        const summary = await client.download(['/room/many'], many.path(`of-${name}`))
        expect(summary).toMatchObject({ transferred: 130, failed: [] })
        expect(snapshot(many.path(`of-${name}/many`))).toEqual(files)
      }
      // Emil has no key pair yet; when he makes one, the keys of what is there are handed out.
      const emil = await many.client('emil')
      await giveKeyPair(emil, await generateKeyPair('A'))
      const early = await emil.download(['/room/many/file 1'], `${many.path('early')}/`)
      expect(early.failed.map(({ error }) => error.code)).toEqual(['FILE_KEY_MISSING'])
      expect((await many.cli(['keys', 'trust', 'emil'])).code).toBe(0)
      const given = await many.cli(['keys', 'distribute', '--json', '--key-password-file', many.keyPasswordFile])
      expect(given.json.at(-1)).toMatchObject({ type: 'distribution', handedOut: 130, skipped: 0 })
      expect(await emil.download(['/room/many'], many.path('of-emil'))).toMatchObject({ transferred: 130 })
    } finally {
      await many.close()
    }
  })
})

test('the server never receives plaintext, keys or passwords; the bearer token goes to no storage URL', async () => {
  const recorder = new MemoryRecorder()
  const own = await createWorld({ storage: 's3', recorder })
  try {
    const canary = 'canary of the recorder'
    makeTree(own.path('src'), { a: canary.repeat(10), b: Buffer.alloc(400_000, canary) })
    expect((await own.transfer(['upload', own.path('src'), '/room'])).code).toBe(0)
    expect((await own.transfer(['download', '/room/src', own.path('out')])).code).toBe(0)
    expect(recorder.requests.length).toBeGreaterThan(10)
    for (const request of recorder.requests) {
      const body = Buffer.from(recorder.bodyOf(request))
      expect(body.includes(canary), request.path).toBe(false)
      expect(body.includes(KEY_PASSWORD), request.path).toBe(false)
      expect(body.includes('BEGIN PRIVATE KEY'), request.path).toBe(false)
    }
  } finally {
    await own.close()
  }
})
