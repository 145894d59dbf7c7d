/** Links at the command line: what is printed, exit codes, and `kill -9` in the middle; the same command goes on. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { createWorld, runCli, type World } from '../support/cli.ts'
import { untilDirectory } from '../support/files.ts'

const MiB = 1024 * 1024
const PASSWORD = 'Tulpe-92-Kegel-Brot'
const large = randomBytes(20 * MiB)
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Starts of the ranges that were asked for of what is behind links, and parts that were sent. */
const starts: number[] = []
let parts = 0
let world: World
let guest: string
let password: string[]
beforeAll(async () => {
  world = await createWorld({
    recorder: {
      onRequest({ method, path, headers }) {
        if (method === 'GET' && /\/public\/shares\/downloads\/[^/]+\/[^/]+/.test(path)) {
          starts.push(Number(/^bytes=(\d+)-/.exec(headers.range ?? 'bytes=0-')![1]))
        }
        if (method === 'PUT' && path.startsWith('/s3/')) parts++
      },
    },
  })
  const client = await world.client()
  await client.put('/room/file', Buffer.from('hello'))
  await client.put('/room/large', large)
  await client.mkdir('/room/inbox')
  guest = world.path('guest')
  mkdirSync(join(guest, 'requests'), { recursive: true, mode: 0o700 })
  writeFileSync(world.path('link-password'), `${PASSWORD}\n`, { mode: 0o600 })
  password = ['--password-file', world.path('link-password')]
})
afterAll(() => world.close())
afterEach(() => world.server.faults.clear())

const key = () => ['--key-password-file', world.keyPasswordFile]
const hits = (count = 1) => world.server.faults.until(world.server.faults.hits.length + count)

test('share: one link or many, passwords that are made, told apart and wrong, and what is behind a link', async () => {
  const made = await world.cli(['share', 'create', '/room/file', '--generate-password', '--expires', '7d', ...key()])
  const [link = '', said = ''] = made.stdout.split('\n')
  expect([made.code, link, said]).toEqual([
    0,
    expect.stringMatching(/^http:\/\/127.*\/public\/download-shares\/\w+$/),
    expect.stringMatching(/^Password: [\w-]{23}$/),
  ])
  expect(link).not.toContain(said.slice(10))
  const env = { SEALSYNC_SHARE_PASSWORD: said.slice(10) }
  const cat = await runCli(guest, ['cat', link], { env })
  expect([cat.code, cat.stdout]).toEqual([0, 'hello'])
  const wrong = await runCli(guest, ['download', link, world.path('none'), ...password, '--json'])
  expect([wrong.code, wrong.json.at(-1)]).toMatchObject([13, { type: 'summary', transferred: 0 }])
  expect((await runCli(guest, ['download', link, world.path('none')])).code).toBe(13)
  const info = await runCli(guest, ['share', 'info', link, '--json'])
  expect(info.json).toMatchObject([{ kind: 'download', fileName: 'file', encrypted: true, protected: true, size: 5 }])
  // Each file by itself, under one password, and the two apart.
  const each = await world.cli(['share', 'create', '/room', '--each', '--split', ...password, ...key()])
  expect(each.code, each.stderr).toBe(0)
  expect(each.stdout.match(/download-shares/g)).toHaveLength(2)
  expect(each.stdout.split('\n').findIndex((line) => line.includes(PASSWORD))).toBeGreaterThan(3)
  const links = each.stdout.match(/http\S+/g)!
  const several = await runCli(guest, ['download', ...links, `${world.path('several')}/`, ...password])
  expect([several.code, readdirSync(world.path('several')).sort()]).toEqual([0, ['file', 'large']])
  expect(digest(readFileSync(world.path('several', 'large')))).toBe(digest(large))
  const listed = await world.cli(['share', 'list', '/room/file', '--json'])
  expect(listed.json).toHaveLength(2)
  expect((await world.cli(['share', 'revoke', '/room/file'])).code).toBe(2)
  expect((await world.cli(['share', 'revoke', ...listed.json.map(({ id }) => String(id))])).code).toBe(0)
  expect((await runCli(guest, ['share', 'info', link])).code).toBe(2)
  expect((await world.cli(['share', 'create', '/room', ...password, ...key()])).code).toBe(2)
  const plan = await world.cli(['share', 'create', '/room', '--each', '-n', '--json', ...password, ...key()])
  expect(plan.json.map(({ path, link: none }) => [path, none])).toEqual([
    ['/room/file', undefined],
    ['/room/large', undefined],
  ])
})

const partSize = (directory: string): number => {
  const part = readdirSync(directory).find((name) => name.endsWith('.part'))
  return part === undefined ? 0 : statSync(join(directory, part)).size
}

test('a download of a link that was killed goes on where it was, and counts once more', async () => {
  const client = await world.client()
  const [share] = await client.shares.create('/room/large', { password: async () => PASSWORD })
  const target = world.path('killed')
  mkdirSync(target)
  const hit = hits()
  const on = { method: 'GET', path: '/public/shares/downloads/[^/]+/[^/]+' }
  world.server.faults.add({ on, after: 2, times: 99, do: { hold: true } })
  const args = ['download', share!.link, `${target}/`, ...password]
  const killed = await runCli(guest, args, {
    during: async (child) => {
      await hit
      await untilDirectory(target, () => partSize(target) >= 7 * MiB)
      child.kill('SIGKILL')
    },
  })
  expect([killed.signal, readdirSync(target)]).toEqual(['SIGKILL', expect.not.arrayContaining(['large'])])
  world.server.faults.clear()
  const before = partSize(target)
  const since = starts.length
  const again = await runCli(guest, args)
  expect(again.code, again.stderr).toBe(0)
  expect(Math.min(...starts.slice(since))).toBe(before)
  expect(digest(readFileSync(join(target, 'large')))).toBe(digest(large))
  expect((await client.shares.get(share!.link)).downloads).toBe(2)
})

test('sending to a request that was killed goes on: no file twice, no part that was received', async () => {
  const client = await world.client()
  const { link } = await client.requests.create('/room/inbox')
  const [small, big] = [world.path('small.txt'), world.path('big.bin')]
  writeFileSync(small, 'small')
  writeFileSync(big, large)
  const requests = join(guest, 'requests')
  const kept = (end: string) => {
    const name = readdirSync(requests).find((one) => one.endsWith(end))
    return name === undefined ? '' : readFileSync(join(requests, name), 'utf8')
  }
  const hit = hits()
  world.server.faults.add({ on: { method: 'PUT', path: '^/s3/' }, after: 2, times: 99, do: { hold: true } })
  const args = ['upload', '--to-request', link, small, big, '--part-size', '5M', '--json']
  const killed = await runCli(guest, args, {
    during: async (child) => {
      await hit
      await untilDirectory(
        requests,
        () => kept('.uploads').includes('"received"') && kept('.sent').includes('"receipt"'),
      )
      child.kill('SIGKILL')
    },
  })
  expect(killed.signal).toBe('SIGKILL')
  // The key of what was interrupted is there for who has the link only.
  const left = readdirSync(requests).map((name) => readFileSync(join(requests, name), 'utf8'))
  expect(left.filter((text) => text.includes(new URL(link).pathname.split('/').at(-1)!))).toEqual([])
  world.server.faults.clear()
  const since = parts
  const again = await runCli(guest, args)
  expect(again.code, again.stderr).toBe(0)
  expect(parts - since).toBeLessThan(4)
  expect(again.json.at(-1)).toMatchObject({
    type: 'summary',
    transferred: 1,
    skipped: 1,
    receipts: [
      { path: small, bytes: 5, sha256: digest(Buffer.from('small')), earlier: true },
      { path: big, bytes: large.length, sha256: digest(large), earlier: false },
    ],
  })
  expect(readdirSync(requests)).toEqual([])
  const names: string[] = []
  for await (const { name } of client.list('/room/inbox')) names.push(name)
  expect(names).toEqual(['big.bin', 'small.txt'])
  expect(digest(await (await client.get('/room/inbox/big.bin')).bytes())).toBe(digest(large))
  const shown = await world.cli(['request', 'show', link])
  expect(shown.stdout).toMatch(/20\d\d-\d\d-\d\dT\S+ +21\.0 MB {2}big\.bin/)
})
