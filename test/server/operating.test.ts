/** What operators need: pages, health, figures, the access log, proxies, limits, certificates, the first account, and an orderly end. */
import { once } from 'node:events'
import { readFileSync, renameSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { connect as tlsConnect } from 'node:tls'
import { expect, onTestFinished, test } from 'vitest'
import { type AccessEntry, addUser, administer, startServer } from '../../src/server/index.ts'
import { Proxies } from '../../src/server/proxies.ts'
import { Rates } from '../../src/server/rates.ts'
import { createAuthority } from '../support/tls.ts'
import {
  ask,
  download,
  enter,
  freshDir,
  logIn,
  makeRoom,
  openUpload,
  signUp,
  startWorld,
  uploadClassic,
} from './support.ts'

test('a page at / says what it is, with nothing that runs or comes from elsewhere', async () => {
  const { server } = await startWorld()
  const page = await ask(`${server.url}/`)
  expect([page.status, page.headers['content-type']]).toEqual([200, 'text/html; charset=utf-8'])
  expect(page.headers['content-security-policy']).toContain("default-src 'none'")
  expect(page.body.toString()).toContain(`sync login ${server.url}`)
  expect(page.body.toString()).not.toMatch(/<script|src=|href=/)
  expect((await ask(`${server.url}/nothing`)).status).toBe(404)
})

test('alive and ready, for whoever does not know its names; nothing else is', async () => {
  const { server } = await startWorld()
  for (const path of ['/healthz', '/readyz']) {
    const { status, body } = await ask(`${server.url}${path}`, { headers: { host: 'elsewhere.example' } })
    expect([status, body.toString()]).toEqual([200, path === '/healthz' ? 'ok\n' : 'ready\n'])
  }
  expect((await ask(`${server.url}/`, { headers: { host: 'elsewhere.example' } })).status).toBe(421)
})

test('the first account: by the link of the start, once', async () => {
  const dir = await freshDir()
  const first = await startServer({ data: dir, offerSetup: true })
  await first.close()
  const server = await startServer({ data: dir, offerSetup: true })
  onTestFinished(() => server.close())
  const url = server.setupUrl ?? ''
  const code = new URL(url).searchParams.get('code') ?? ''
  expect((await ask(first.setupUrl?.replace(/^.*\/setup/, `${server.url}/setup`) ?? '')).status).toBe(404)
  expect((await ask(`${server.url}/setup?code=x`)).status).toBe(404)
  expect((await ask(url)).body.toString()).toContain('<form method="post" action="/setup">')
  const post = (form: Record<string, string>) => ask(`${server.url}/setup`, { method: 'POST', form })
  const form = { code, username: 'chief', password: 'chief-pw', again: 'chief-pw' }
  expect((await post({ ...form, again: 'other' })).status).toBe(400)
  expect((await post({ ...form, username: 'a b' })).status).toBe(400)
  expect((await post({ ...form, code: 'x' })).status).toBe(404)
  expect((await post(form)).status).toBe(201)
  expect((await post({ ...form, username: 'second' })).status).toBe(404)
  const world = { dir, server, api: `${server.url}/api` }
  const chief = await enter(world, 1, 'chief')
  expect((await chief.call('GET', '/v4/users')).json.items).toMatchObject([{ userName: 'chief' }])
  const again = await freshDir()
  await addUser(again, { name: 'x', password: 'x' })
  const other = await startServer({ data: again, offerSetup: true })
  expect(other.setupUrl).toBeUndefined()
  await other.close()
})

test('figures and the access log tell of each request, and give nothing away', async () => {
  const log = join(await freshDir(), 'access.log')
  const seen: AccessEntry[] = []
  const world = await startWorld({ accessLog: log, metricsPort: 0, onRequest: (entry) => seen.push(entry) })
  const { server } = world
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'Secret room')
  const { json: file } = await uploadClassic(ann, room, 'secret file', Buffer.alloc(1000))
  await download(ann, file.id)
  await ann.call('GET', '/v4/nodes/search?search_string=secret')
  await ask(`${server.url}/${ann.token}`)
  await logIn(world, 'ann', 'wrong-password')
  const figures = (await ask(server.metricsUrl ?? '')).body.toString()
  expect(figures).toMatch(
    /sealsync_request_seconds_count\{method="GET",route="\/api\/v4\/nodes\/search",status="2xx"\} 1\n/,
  )
  expect(figures).toMatch(/sealsync_request_seconds_count\{method="POST",route="\/oauth\/token",status="4xx"\} 1\n/)
  expect(figures).toMatch(/\nsealsync_users 1\n/)
  expect((await ask((server.metricsUrl ?? '').replace('metrics', ''))).status).toBe(404)
  expect((await ask(`${server.url}/metrics`)).status).toBe(404)
  renameSync(log, `${log}.1`)
  server.reload()
  await ask(`${server.url}/healthz`)
  await server.close()
  const before = readFileSync(`${log}.1`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const after = readFileSync(log, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(after).toMatchObject([{ path: '/healthz', status: 200 }])
  expect(before.length + after.length).toBe(seen.length)
  expect(before.find(({ route }) => route === '/api/v4/downloads/:token')).toMatchObject({
    path: '/api/v4/downloads/…',
    bytesOut: 1000,
  })
  expect(before.find(({ path }) => path.endsWith(`/files/${file.id}/downloads`))).toMatchObject({
    user: ann.id,
    method: 'POST',
  })
  const all = readFileSync(`${log}.1`, 'utf8')
  for (const secret of [ann.token, ann.refreshToken, 'ann-pw', 'wrong-password', 'secret', 'Secret'])
    expect(all).not.toContain(secret)
})

test('behind a proxy: its word counts for who asks and how, nobody else’s', async () => {
  const seen: AccessEntry[] = []
  const options = { onRequest: (entry: AccessEntry) => seen.push(entry), allowedHosts: ['files.example.org'] }
  const headers = {
    'x-forwarded-for': '203.0.113.9, 198.51.100.7',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'files.example.org',
  }
  const [trusting, other] = [await startWorld({ ...options, trustProxy: ['127.0.0.0/8'] }), await startWorld(options)]
  expect((await ask(`${trusting.server.url}/`, { headers })).body.toString()).toContain(
    'sync login https://files.example.org',
  )
  expect((await ask(`${other.server.url}/`, { headers })).body.toString()).toContain(`sync login ${other.server.url}`)
  expect(seen.map(({ address }) => address)).toEqual(['198.51.100.7', '127.0.0.1'])
  await expect(startServer({ data: await freshDir(), host: '0.0.0.0' })).rejects.toMatchObject({ code: 'TLS_REQUIRED' })
  await expect(startServer({ data: await freshDir(), trustProxy: ['proxy.example'] })).rejects.toMatchObject({
    code: 'OPTION_INVALID',
  })
  const proxies = new Proxies(['10.0.0.0/8', 'fd00::/8'])
  const from = (remoteAddress: string, forwarded?: string) =>
    proxies.originOf({
      socket: { remoteAddress },
      headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
    } as never).address
  expect(from('10.1.2.3', '1.2.3.4')).toBe('1.2.3.4')
  expect(from('::ffff:10.1.2.3', '6.6.6.6, 1.2.3.4, 10.9.9.9')).toBe('1.2.3.4')
  expect(from('fd00::1', '2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64')
  expect(from('10.1.2.3', 'not an address')).toBe('10.1.2.3')
  expect(from('9.9.9.9', '1.2.3.4')).toBe('9.9.9.9')
  expect([
    proxies.mayComeDirectly({ remoteAddress: '127.0.0.1' }),
    proxies.mayComeDirectly({ remoteAddress: '9.9.9.9' }),
  ]).toEqual([true, false])
})

test('requests per second: each user, and each address without a login, has its own', async () => {
  const rates = new Rates(2)
  for (let at = 0; at < 20; at++) rates.take('a', 0)
  expect(() => rates.take('a', 0)).toThrow('Too many requests')
  rates.take('b', 0)
  rates.take('a', 500)
  expect(() => rates.take('a', 500)).toThrow('Too many requests')
  const world = await startWorld({ requestsPerSecond: 1 })
  const [ann, bob] = [await signUp(world, 'ann'), await signUp(world, 'bob')]
  const answers = await Promise.all(Array.from({ length: 40 }, () => ann.call('GET', '/v4/user/ping')))
  const refused = answers.filter(({ status }) => status === 429)
  expect(refused.length).toBeGreaterThan(0)
  expect(Number(refused[0]?.headers['retry-after'])).toBeGreaterThan(0)
  expect((await bob.call('GET', '/v4/user/ping')).status).toBe(200)
  expect((await ask(`${world.server.url}/healthz`)).status).toBe(200)
})

test('another certificate from now on, without a restart', async () => {
  const authority = createAuthority()
  onTestFinished(() => authority.remove())
  const [one, two] = [authority.issue(), authority.issue()]
  const server = await startServer({ data: await freshDir(), tls: one })
  onTestFinished(() => server.close())
  const shown = async () => {
    const socket = tlsConnect({ port: server.port, host: '127.0.0.1', rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    const { fingerprint256 } = socket.getPeerCertificate()
    socket.destroy()
    return fingerprint256
  }
  const first = await shown()
  expect(await shown()).toBe(first)
  server.reload(two)
  expect(await shown()).not.toBe(first)
})

test('it stops when what is under way has ended: no new connections, not ready, nothing is cut', async () => {
  const world = await startWorld({ drainMs: 60_000 })
  const ann = await signUp(world, 'ann')
  const room = await makeRoom(ann, 'R')
  const { uploadUrl } = await openUpload(ann, room, 'f')
  const url = new URL(uploadUrl)
  const sending = request({
    port: url.port,
    host: '127.0.0.1',
    path: url.pathname,
    method: 'POST',
    headers: { 'content-length': 10 },
  })
  const answered = once(sending, 'response')
  await new Promise<void>((resolve) => sending.write('12345', () => resolve()))
  const requests = async () => (await administer(world.dir, 'stats', {})).server?.requests ?? 0
  while ((await requests()) === 0) await new Promise((resolve) => setImmediate(resolve))
  const closed = world.server.close()
  const ready = await ask(`${world.server.url}/readyz`).then(
    ({ status }) => status,
    () => 'refused',
  )
  expect([503, 'refused']).toContain(ready)
  sending.end('67890')
  const [answer] = await answered
  expect([answer.statusCode, answer.headers.connection]).toEqual([201, 'close'])
  await closed
})
