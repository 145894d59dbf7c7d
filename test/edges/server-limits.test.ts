/**
 * What strangers and members can use up of the embedded server: tries of passwords and codes, work, connections, uploads and
 * searches. All of it in parallel, which is how it is done.
 */

import { once } from 'node:events'
import { statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Shares } from '../../src/server/connections.ts'
import { addUser } from '../../src/server/index.ts'
import { LoginLimits } from '../../src/server/login-limits.ts'
import { codeAt } from '../../src/server/one-time-codes.ts'
import { addressOf } from '../../src/server/proxies.ts'
import { ask, BASIC, makeRoom, openUpload, signUp, startWorld, uploadClassic, type World } from '../server/support.ts'

const TRIES = process.env.SEALSYNC_FULL ? 300 : 60

const byToken = (world: World, username: string, password: string, more: Record<string, string> = {}) =>
  ask(`${world.server.url}/oauth/token`, {
    method: 'POST',
    headers: { authorization: BASIC },
    form: { grant_type: 'password', username, password, ...more },
  })

const byForm = (world: World, username: string, password: string, more: Record<string, string> = {}) =>
  ask(`${world.server.url}/oauth/authorize`, {
    method: 'POST',
    form: {
      response_type: 'code',
      client_id: 'sealsync',
      redirect_uri: 'http://127.0.0.1:5123/callback',
      code_challenge: 'a'.repeat(43),
      code_challenge_method: 'S256',
      username,
      password,
      ...more,
    },
  })

const many = <T>(count: number, work: (n: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => work(n)))

test.each([
  ['token endpoint', byToken, 400, 200],
  ['login page', byForm, 401, 302],
] as const)(
  'passwords at once, %s: five are tried, whatever way the name is written',
  async (_where, login, wrong, right) => {
    let now = Date.now()
    const world = await startWorld({ clock: { now: () => now } })
    await addUser(world.dir, { name: 'ann', password: 'pw' })
    const answers = await many(TRIES, (n) =>
      login(world, n % 2 === 0 ? 'ann' : 'ANN', n === TRIES - 1 ? 'pw' : `guess ${n}`),
    )
    const statuses = answers.map(({ status }) => status)
    expect(statuses.filter((status) => status === wrong)).toHaveLength(5)
    expect(statuses.filter((status) => status === 429)).toHaveLength(TRIES - 5)
    // Not even the right one, at either door.
    expect([(await byToken(world, 'ann', 'pw')).status, (await byForm(world, 'ann', 'pw')).status]).toEqual([429, 429])
    now += 61_000
    expect((await login(world, 'ann', 'pw')).status).toBe(right)
  },
)

test('names at once from one address: thirty are tried; others are not kept out once the time is over', async () => {
  let now = Date.now()
  const world = await startWorld({ clock: { now: () => now } })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const logins = many(TRIES, (n) => byToken(world, `nobody ${n}`.replace(' ', '-'), 'x'))
  // Files go on meanwhile.
  const sent = await uploadClassic(ann, room, 'f', Buffer.alloc(100_000))
  expect(sent.status).toBe(201)
  const statuses = (await logins).map(({ status }) => status)
  expect(statuses.filter((status) => status === 400)).toHaveLength(30)
  expect(statuses.filter((status) => status === 429)).toHaveLength(TRIES - 30)
  now += 61_000
  expect((await byToken(world, 'ann', 'ann-pw')).status).toBe(200)
})

test('many right logins at once all come through', async () => {
  const world = await startWorld()
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const statuses = (await many(16, () => byToken(world, 'ann', 'pw'))).map(({ status }) => status)
  expect(statuses).toEqual(Array(16).fill(200))
})

test('one-time codes at once: five a minute, thirty a day, and a missing one does not count', async () => {
  let now = Date.UTC(2026, 0, 1)
  const world = await startWorld({ clock: { now: () => now } })
  const { authenticator } = await addUser(world.dir, { name: 'ann', password: 'pw', oneTimeCodes: true })
  const text = new URL(authenticator!).searchParams.get('secret')!
  const bits = [...text]
    .map((char) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(char).toString(2).padStart(5, '0'))
    .join('')
  const secret = Uint8Array.from(bits.match(/.{8}/g)!, (byte) => Number.parseInt(byte, 2))
  const good = () => [-1, 0, 1].map((step) => codeAt(secret, Math.floor(now / 30_000) + step))
  const wrong = () => ['000000', '111111', '222222', '333333'].find((code) => !good().includes(code))!
  for (let n = 0; n < 8; n++) expect((await byToken(world, 'ann', 'pw')).json.error).toBe('mfa_required')
  for (let minute = 0; minute < 6; minute++) {
    const login = minute % 2 === 0 ? byToken : byForm
    const answers = await many(12, () => login(world, 'ann', 'pw', { otp: wrong() }))
    expect(
      answers.filter(({ status }) => status !== 429),
      `minute ${minute}`,
    ).toHaveLength(5)
    now += 61_000
  }
  expect((await byToken(world, 'ann', 'pw', { otp: good()[1]! })).status).toBe(429)
  now += 86_400_000
  expect((await byToken(world, 'ann', 'pw', { otp: good()[1]! })).status).toBe(200)
})

test('work on passwords: one at a time, and addresses take turns', async () => {
  const limits = new LoginLimits()
  let running = 0
  let most = 0
  const order: string[] = []
  const attempt = (address: string, n: number) =>
    limits.attempt(`${address} ${n}`, address, Date.now, async () => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setImmediate(resolve))
      order.push(address)
      running--
      return { outcome: 'good' as const }
    })
  const strangers = many(40, (n) => attempt('192.0.2.1', n))
  const mine = attempt('192.0.2.2', 0)
  await Promise.all([strangers, mine])
  expect(most).toBe(1)
  expect(order.indexOf('192.0.2.2')).toBeLessThan(4)
  // More than may wait are turned away at once.
  const results = await Promise.allSettled(Array.from({ length: 100 }, (_, n) => attempt('192.0.2.3', n)))
  expect(results.filter(({ status }) => status === 'rejected')).toHaveLength(100 - 65)
})

test('an address is an IPv4 address or a network of IPv6', () => {
  const of = (remoteAddress: string) => addressOf({ remoteAddress })
  expect(of('::ffff:192.0.2.7')).toBe('192.0.2.7')
  expect(of('2001:db8:1:2:3:4:5:6')).toBe(of('2001:db8:1:2::9'))
  expect(of('2001:db8::1')).toBe('2001:db8:0:0::/64')
  expect(of('fe80::1%eth0')).toBe('fe80:0:0:0::/64')
  expect(of('::1')).toBe('0:0:0:0::/64')
})

test('shares are given back', () => {
  const shares = new Shares(2)
  const [one, two] = [shares.take('a'), shares.take('a')]
  expect([one, two, shares.take('a'), shares.take('b')].map((share) => share !== undefined)).toEqual([
    true,
    true,
    false,
    true,
  ])
  one?.()
  expect(shares.take('a')).toBeDefined()
})

/** A connection that says `text` and nothing more; ends with the test. */
async function half(world: World, text: string): Promise<Socket> {
  const socket = connect(world.server.port, '127.0.0.1')
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  if (text !== '') socket.write(text)
  return socket
}

const closed = (socket: Socket): Promise<unknown> =>
  socket.destroyed ? Promise.resolve() : once(socket.resume(), 'close')
const answered = async (socket: Socket): Promise<string> => String((await once(socket, 'data'))[0])

/** Half-sent bodies: two chunks of content and a form. */
async function halves(world: World): Promise<Socket[]> {
  const ann = await signUp(world, 'ann')
  const { uploadUrl } = await openUpload(ann, await makeRoom(ann, 'R'), 'f')
  const head = (path: string) => `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nx`
  const content = new URL(uploadUrl).pathname
  return Promise.all([content, content, '/oauth/token'].map((path) => half(world, head(path))))
}

test('idle connections of an address make room for others', async () => {
  const world = await startWorld({ connectionLimits: { socketsPerAddress: 12 } })
  const ann = await signUp(world, 'ann')
  const idle: Socket[] = []
  for (let n = 0; n < 12; n++) idle.push(await half(world, n % 2 === 0 ? '' : 'GET / HTT'))
  expect((await ann.call('GET', '/v4/user/ping')).status).toBe(200)
  await closed(idle[0]!)
})

test('half-sent bodies of an address are bounded', async () => {
  const world = await startWorld({ connectionLimits: { bodiesPerAddress: 3 } })
  const time = async () => (await ask(`${world.api}/v4/public/time`)).status
  const bodies = await halves(world)
  // Until the server has seen all three, others still come through.
  await expect.poll(time, { interval: 5 }).toBe(429)
  bodies[0]!.destroy()
  await expect.poll(time, { interval: 5 }).toBe(200)
})

test('half-sent bodies run out of time', async () => {
  const world = await startWorld({ connectionLimits: { textMs: 1_000, slowMs: 1_000, lookMs: 100 } })
  await Promise.all((await halves(world)).map(closed))
  expect((await ask(`${world.api}/v4/public/time`)).status).toBe(200)
})

test('uploads: the oldest that nobody uses makes room for the thousand and first, and only of the same user', async () => {
  let now = Date.now()
  const world = await startWorld({ clock: { now: () => now } })
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const rooms = [await makeRoom(ann, 'A'), await makeRoom(bob, 'B')]
  const other = await openUpload(bob, rooms[1]!, 'b')
  const first = await openUpload(ann, rooms[0]!, 'first')
  now += 1000
  for (let n = 1; n < 1000; n += 37) await many(Math.min(37, 1000 - n), (k) => openUpload(ann, rooms[0]!, `f${n + k}`))
  const full = await ann.call('POST', '/v4/nodes/files/uploads', { parentId: rooms[0], name: 'more' })
  expect([full.status, full.headers['retry-after']]).toEqual([429, '5'])
  expect((await openUpload(bob, rooms[1]!, 'b2')).uploadId).toBeDefined()
  now += 61_000
  expect((await openUpload(ann, rooms[0]!, 'more')).uploadId).toBeDefined()
  const status = (person: typeof ann, id: string) => person.call('GET', `/v4/nodes/files/uploads/${id}`)
  expect((await status(ann, first.uploadId)).status).toBe(404)
  expect((await status(bob, other.uploadId)).status).toBe(200)
})

test('filters and searches have a bounded cost', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  for (const name of ['one', 'two', 'three']) await ann.call('POST', '/v4/nodes/folders', { parentId: room, name })
  const list = async (query: string) => {
    const { status, json } = await ann.call('GET', `/v4/nodes${query}`)
    return status === 200 ? json.items.map(({ name }: { name: string }) => name) : status
  }
  const some = (n: number, text: string, join: string) => Array.from({ length: n }, () => text).join(join)
  expect(await list(`?parent_id=${room}&filter=name:cn:${some(5000, 'b', ':')}`)).toBe(400)
  expect(await list(`?parent_id=${room}&filter=${some(21, 'name:cn:a', '|')}`)).toBe(400)
  expect(await list(`/search?search_string=${some(600, 'a', '')}`)).toBe(400)
  expect(await list(`/search?search_string=${some(30, 'a*', '')}`)).toBe(400)
  expect(await list(`?parent_id=${room}&filter=name:eq:one:two:${some(50, 'x', ':')}`)).toEqual(['one', 'two'])
  expect(await list(`?parent_id=${room}&filter=name:neq:one:two`)).toEqual(['three'])
  expect(await list(`?parent_id=${room}&filter=name:cn:n:r|type:eq:folder`)).toEqual(['one', 'three'])
  expect(await list(`?parent_id=${room}&filter=size:ge:5:0`)).toEqual(['one', 'three', 'two'])
  expect(await list(`?parent_id=${room}&filter=size:le:x`)).toEqual([])
  expect(await list('/search?depth_level=-1&search_string=t***o')).toEqual(['two'])
})

test('two Host headers are refused; db is for its owner only', async () => {
  const world = await startWorld()
  for (const hosts of ['Host: localhost\r\nHost: localhost', 'Host: localhost\r\nhost: evil.example']) {
    const socket = await half(world, `GET /api/v4/public/time HTTP/1.1\r\n${hosts}\r\n\r\n`)
    expect(await answered(socket)).toMatch(/^HTTP\/1\.1 400 /)
  }
  for (const name of ['.', 'db', 'blobs']) expect(statSync(join(world.dir, name)).mode & 0o777, name).toBe(0o700)
})
