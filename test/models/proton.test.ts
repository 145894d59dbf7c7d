/** The surface of Proton’s Python client, in the order of its documentation, in our names: docs/session/coming-from.md. */
import { afterAll, expect, onTestFinished, test } from 'vitest'
import {
  filePinStore,
  importProtonSession,
  oneTimeCode,
  oneTimeCodes,
  protonSrpAuthorizer,
  readServerPins,
  Session,
} from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { type ProtonServerOptions, protonServer } from '../support/proton-server.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'
import { createAuthority } from '../support/tls.ts'

const authority = createAuthority()
afterAll(() => authority.remove())

const opened = (session: Session) => {
  onTestFinished(() => session.close())
  return session
}

test('Session, authenticate, provide_2fa, api_request, refresh, dump, load, logout', async () => {
  const clock = fakeClock()
  const secret = 'GEZDGNBVGY3TQOJQ'
  const options: ProtonServerOptions = { code: await oneTimeCode(secret, clock), factors: 1 }
  const server = await protonServer(options)
  const way = protonSrpAuthorizer(server.origin, {
    userName: 'ann',
    password: async () => 'the right one',
    code: oneTimeCodes(() => secret, clock),
    appVersion: 'Model_1.0',
    userAgent: 'Model/1.0 (Linux)',
    modulusKey: server.modulusKey,
  })
  // Session(api_url, appversion, user_agent)
  const session = opened(Session.create(server.origin, way, { clock, cookies: true }))
  expect(await session.check()).toEqual({ valid: false, reason: 'missing' })
  // authenticate, provide_2fa: by the first request
  expect(await session.get('/tests/ping')).toMatchObject({ Code: 1000 })
  expect(server.steps()).toEqual(['info', 'login', '2fa', 'api'])
  expect(server.seen.at(-1)!.headers).toMatchObject({
    'x-pm-appversion': 'Model_1.0',
    'user-agent': 'Model/1.0 (Linux)',
  })
  // UID, AccessToken, RefreshToken, Scope
  const { grant } = await session.dump()
  expect(grant).toMatchObject({
    accessToken: expect.any(String),
    refreshToken: expect.any(String),
    scope: 'full self loggedin',
  })
  expect(grant!.extra).toMatchObject({ uid: expect.any(String), passwordMode: '1', userId: 'user-1' })
  // api_request(endpoint, jsondata, additional_headers, method, params)
  await session.post('/calendar/v1/x', { json: { Name: 'ü' }, headers: { 'x-own': '1' }, query: { Page: 2 } })
  expect(server.seen.at(-1)).toMatchObject({
    method: 'POST',
    path: '/calendar/v1/x?Page=2',
    body: '{"Name":"ü"}',
    headers: { 'x-own': '1' },
  })
  for (const method of ['put', 'patch', 'delete'] as const) await session[method]('/x')
  expect((await session.raw('GET', '/x')).status).toBe(200)
  // refresh()
  await session.renew()
  server.expire()
  await session.get('/x')
  expect(server.steps().filter((step) => step === 'refresh')).toHaveLength(2)
  // dump(), load()
  const dump = JSON.stringify(await session.dump())
  const later = protonSrpAuthorizer(server.origin, {
    userName: 'ann',
    password: async () => '',
    modulusKey: server.modulusKey,
  })
  const twin = opened(await Session.load(dump, server.origin, later, { clock }))
  expect(await twin.get('/x')).toMatchObject({ Code: 1000 })
  expect(server.seen.at(-1)!.headers['x-pm-appversion']).toBe('Model_1.0')
  // logout()
  await twin.logout()
  expect(server.live()).toBe(0)
  expect(await twin.hasGrant()).toBe(false)
})

test('a dump of the Python client goes on here', async () => {
  const server = await protonServer()
  const { accessToken, refreshToken, extra } = server.seat()
  const dump = {
    api_url: server.origin,
    appversion: 'Other',
    'User-Agent': 'None',
    cookies: {},
    session_data: {
      UID: extra!.uid,
      AccessToken: accessToken,
      RefreshToken: refreshToken,
      PasswordMode: 1,
      Scope: ['full', 'self'],
    },
  }
  const way = protonSrpAuthorizer(server.origin, {
    userName: 'ann',
    password: async () => '',
    modulusKey: server.modulusKey,
  })
  const session = opened(Session.create(server.origin, way, { autoLogin: false }))
  await session.adopt(importProtonSession(dump, server.origin))
  expect(await session.get('/x')).toMatchObject({ Code: 1000 })
  const error = await errorOf(Promise.resolve().then(() => importProtonSession(dump, 'https://other.example')))
  expect(error).toMatchObject({ code: 'SESSION_OTHER_SERVER' })
})

test('tls_pinning: given pins, and the key that is seen first', async () => {
  const [old, next] = [authority.issue(), authority.issue()]
  const server = await httpServer((_seen, response) => json(response, { Code: 1000 }), old)
  const ca = [authority.cert]
  const [leaf] = await readServerPins(server.origin, { ca })
  const backup = `sha256/${Buffer.alloc(32).toString('base64')}`
  const way = { name: 'x', unattended: 'again', authorize: async () => ({ v: 1, accessToken: 'a' }) as const } as const
  const pinStore = filePinStore(`${await freshDirectory()}/pins.json`)
  const ways = [{ pins: [leaf!.pin, backup] }, { pins: 'first-use', pinStore }] as const
  const visit = async (pins: (typeof ways)[number]) => {
    const session = Session.create(server.origin, way, { transport: { ca, ...pins }, retryForMs: 0 })
    try {
      return await session.get('/x')
    } finally {
      await session.close()
    }
  }
  for (const pins of ways) expect(await visit(pins)).toEqual({ Code: 1000 })
  server.setKey(next)
  for (const pins of ways) expect(await errorOf(visit(pins))).toMatchObject({ class: 'tls', code: 'PIN_MISMATCH' })
  expect(server.seen).toHaveLength(2)
})
