/** What servers do wrong after a login, one row each: the error a caller sees, what is stored afterwards, and that no secret shows. */
import type { ServerResponse } from 'node:http'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { DialerOptions } from '../../src/http/undici.ts'
import type { Grant } from '../../src/session/authorizer.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { type GrantStore, memoryGrantStore, Session } from '../../src/session/index.ts'
import { type FakeClock, fakeClock, steadyRandom } from '../support/clock.ts'
import { expectNoSecret, grantOf, tokenServer } from '../support/oauth.ts'
import { errorOf, httpServer, json, rawServer } from '../support/servers.ts'

const CANARY = 'canary-m15be'
const OLD = `access-${CANARY}-0`
const NEW = `access-${CANARY}-1`
const SECRETS = [CANARY, 'canary-password', 'canary-client']

interface World {
  readonly clock: FakeClock
  readonly store: GrantStore
  readonly session: ReturnType<typeof Session.create>
  /** Stamps that arrived at the API. */
  readonly stamps: () => (string | undefined)[]
  readonly apiOrigin: string
}

/** A session with an API that takes everything, and a login that ended a moment ago unless `lifetimeMs` says otherwise. */
async function world(tokenUrl: string, transport: DialerOptions = {}, lifetimeMs = 0): Promise<World> {
  const clock = fakeClock()
  const store = memoryGrantStore(grantOf(clock, `${CANARY}-0`, lifetimeMs))
  const api = await httpServer((_request, response) => json(response, {}))
  const authorizer = passwordAuthorizer(api.origin, {
    userName: 'ann',
    password: async () => 'canary-password',
    client: { id: 'app', secret: 'canary-client' },
    endpoints: { token: tokenUrl },
  })
  const session = Session.create(api.origin, authorizer, {
    clock,
    store,
    transport,
    autoLogin: false,
    random: steadyRandom(),
  })
  onTestFinished(() => session.close())
  return {
    clock,
    store,
    session,
    stamps: () => api.seen.map((one) => one.headers.authorization),
    apiOrigin: api.origin,
  }
}

const answer = { access_token: NEW, refresh_token: `refresh-${CANARY}-1`, token_type: 'Bearer', expires_in: 3600 }
const without = (name: keyof typeof answer) =>
  Object.fromEntries(Object.entries(answer).filter(([key]) => key !== name))

type Reply = (response: ServerResponse) => unknown
const send =
  (body: unknown, status = 200, headers: Record<string, string> = {}): Reply =>
  (response) =>
    json(response, body, status, headers)
const text =
  (body: string, status = 200, headers: Record<string, string> = { 'content-type': 'application/json' }): Reply =>
  (response) =>
    response.writeHead(status, headers).end(body)

const trickle: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  const timer = setInterval(() => response.write(' '), 20)
  response.on('close', () => clearInterval(timer))
}
const endless: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  const block = Buffer.alloc(65_536, ' ')
  const more = () => {
    while (!response.destroyed && response.write(block));
  }
  response.on('drain', more)
  more()
}
const stopsHalfway: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json' })
  response.write(JSON.stringify(answer).slice(0, 40))
}
const cut: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': '5000' })
  response.write(JSON.stringify(answer), () => response.destroy())
}

/** Name, what the token endpoint does, the code that a caller sees, what the store then holds. */
const REFUSED: [string, Reply, string, string | undefined, DialerOptions?][] = [
  ['no token_type', send(without('token_type')), 'OAUTH_ANSWER', OLD],
  ['token_type mac', send({ ...answer, token_type: 'mac' }), 'OAUTH_ANSWER', OLD],
  ['token_type DPoP', send({ ...answer, token_type: 'DPoP' }), 'TOKEN_TYPE', OLD],
  ['token_type as a list', send({ ...answer, token_type: ['bearer'] }), 'OAUTH_ANSWER', OLD],
  ['no access_token', send(without('access_token')), 'OAUTH_ANSWER', OLD],
  ['an access_token that is a number', send({ ...answer, access_token: 5 }), 'OAUTH_ANSWER', OLD],
  ['a newline in the token', send({ ...answer, access_token: `${NEW}\r\nx-admin: 1` }), 'TOKEN_MALFORMED', OLD],
  ['a NUL in the token', send({ ...answer, access_token: `${NEW}\u0000` }), 'TOKEN_MALFORMED', OLD],
  ['a newline in the refresh token', send({ ...answer, refresh_token: 'a\nb' }), 'TOKEN_MALFORMED', OLD],
  ['a token longer than any header', send({ ...answer, access_token: CANARY.repeat(2_000) }), 'TOKEN_MALFORMED', OLD],
  ['a scope that is no text', send({ ...answer, scope: ['all'] }), 'OAUTH_ANSWER', OLD],
  ['HTML', text(`<html>${CANARY}`, 200, { 'content-type': 'text/html' }), 'OAUTH_ANSWER', OLD],
  ['HTML with 403', text('<p>', 403, { 'content-type': 'text/html' }), 'OAUTH_ANSWER', OLD],
  ['HTML called JSON', text(`<html>${CANARY}`), 'OAUTH_ANSWER', OLD],
  ['a list', send([answer]), 'OAUTH_ANSWER', OLD],
  ['null', text('null'), 'OAUTH_ANSWER', OLD],
  ['brackets without end', text('['.repeat(200_000)), 'OAUTH_ANSWER', OLD],
  ['nothing', text(''), 'OAUTH_ANSWER', OLD],
  ['an error with status 200', send({ error: 'invalid_grant' }), 'OAUTH_ANSWER', OLD],
  ['301', text('', 301, { location: '/elsewhere' }), 'OAUTH_ANSWER', OLD],
  ['302', text('', 302, { location: '/elsewhere' }), 'OAUTH_ANSWER', OLD],
  ['307', text('', 307, { location: 'https://evil.test/' }), 'OAUTH_ANSWER', OLD],
  ['308', text('', 308, { location: '//evil.test/' }), 'OAUTH_ANSWER', OLD],
  ['no headers for too long', () => {}, 'NETWORK', OLD, { headersTimeoutMs: 150 }],
  ['a body that stops', stopsHalfway, 'NETWORK', OLD, { bodyTimeoutMs: 150 }],
  ['a body that trickles', trickle, 'STALLED', OLD, { stallMs: 150 }],
  ['a body without end', endless, 'ANSWER_TOO_LARGE', OLD, { maxBodyBytes: 1_000_000 }],
  ['a long error answer', text('x'.repeat(1_000_000), 400), 'OAUTH_ANSWER', OLD],
  ['a body that is cut', cut, 'NETWORK', OLD],
  ['no answer', (response) => response.destroy(), 'NETWORK', OLD],
  ['compression nobody asked for', text('x', 200, { 'content-encoding': 'gzip' }), 'ENCODING_INVALID', OLD],
  ['invalid_grant', send({ error: 'invalid_grant', error_description: CANARY }, 400), 'LOGIN_NEEDED', undefined],
  [
    'invalid_grant with 401',
    send({ error: 'invalid_grant' }, 401, { 'www-authenticate': 'Basic' }),
    'LOGIN_NEEDED',
    undefined,
  ],
  ['invalid_client', send({ error: 'invalid_client' }, 401), 'CLIENT_REFUSED', OLD],
  ['unauthorized_client', send({ error: 'unauthorized_client' }, 400), 'CLIENT_NOT_ALLOWED', OLD],
  ['unsupported_grant_type', send({ error: 'unsupported_grant_type' }, 400), 'GRANT_TYPE_UNSUPPORTED', OLD],
  ['invalid_scope', send({ error: 'invalid_scope' }, 400), 'SCOPE_REFUSED', OLD],
  ['server_error with 400', send({ error: 'server_error' }, 400), 'SERVER', OLD],
  ['headers in the error', send({ error: 'x\r\nset-cookie: a=b', error_uri: CANARY }, 400), 'OAUTH_REFUSED', OLD],
  ['escapes in the error', send({ error: '\u001b]0;x\u0007', error_description: CANARY }, 400), 'OAUTH_REFUSED', OLD],
  ['an error that is endless', send({ error: `e${'0'.repeat(50_000)}` }, 400), 'OAUTH_REFUSED', OLD],
  ['an error that is an object', send({ error: { code: CANARY } }, 400), 'OAUTH_ANSWER', OLD],
  ['404', text('', 404), 'OAUTH_ANSWER', OLD],
  ['500', text(CANARY, 500), 'SERVER', OLD],
  ['503 for ever', text('', 503), 'SERVER', OLD],
  ['503 for an hour', text('', 503, { 'retry-after': '3600' }), 'SERVER', OLD],
  ['429 for a day', text('', 429, { 'retry-after': '86400' }), 'RATE_LIMITED', OLD],
]

test('the table is as long as it should be', () => {
  expect(REFUSED.length + GOOD.length).toBeGreaterThanOrEqual(60)
})

describe('a token endpoint that answers a renewal with', () => {
  test.each(REFUSED)('%s', async (_name, reply, code, stored, transport) => {
    const server = await tokenServer((_form, response) => reply(response))
    const { session, store, stamps } = await world(`${server.origin}/oauth/token`, transport)
    const error = await errorOf(session.get('/x'))
    expect(error).toMatchObject({ name: 'SyncError', code })
    expect(error.message).toMatch(/^[\x20-\x7e‘’“”]{1,200}$/)
    expectNoSecret(error, ...SECRETS)
    expect((await store.load())?.accessToken).toBe(stored)
    expect(stamps()).toEqual([])
    // Neither followed nor, but for a busy server, repeated.
    expect(server.seen.every(({ path }) => path === '/oauth/token')).toBe(true)
    if (!/^(503 for ever)/.test(_name)) expect(server.tokenCalls).toHaveLength(1)
  })

  test.each([
    ['503 for an hour', 503, '3600', 3_600_000],
    ['429 for a day', 429, '86400', 86_400_000],
    ['503 until a date', 503, 'Thu, 15 Jan 2026 13:00:00 GMT', 3_600_000],
  ])('%s: the error says how long', async (_name, status, wait, retryAfterMs) => {
    const date = 'Thu, 15 Jan 2026 12:00:00 GMT'
    const server = await tokenServer((_form, response) =>
      response.writeHead(status, { 'retry-after': wait, date }).end(),
    )
    const { session } = await world(`${server.origin}/oauth/token`)
    expect(await errorOf(session.get('/x'))).toMatchObject({ status, retryAfterMs, retryable: true })
  })
})

/** Name, what the token endpoint does, what is stored then. Odd, but good enough to go on. */
const GOOD: [string, Reply, Partial<Grant>][] = [
  ['no expires_in', send(without('expires_in')), { lifetimeMs: 300_000 }],
  ['a negative expires_in', send({ ...answer, expires_in: -3600 }), { lifetimeMs: 300_000 }],
  ['a huge expires_in', send({ ...answer, expires_in: 1e15 }), { lifetimeMs: 86_400_000 }],
  ['expires_in beyond numbers', text(JSON.stringify(answer).replace('3600', '1e999')), { lifetimeMs: 300_000 }],
  ['expires_in zero', send({ ...answer, expires_in: 0 }), { lifetimeMs: 30_000 }],
  ['expires_in as a text', send({ ...answer, expires_in: '7200' }), { lifetimeMs: 7_200_000 }],
  ['expires_in as a fraction', send({ ...answer, expires_in: 59.5 }), { lifetimeMs: 59_500 }],
  ['expires_in as words', send({ ...answer, expires_in: 'an hour' }), { lifetimeMs: 300_000 }],
  ['expires_in as an object', send({ ...answer, expires_in: { s: 1 } }), { lifetimeMs: 300_000 }],
  ['no new refresh token', send(without('refresh_token')), { refreshToken: `refresh-${CANARY}-0` }],
  ['token_type BEARER', send({ ...answer, token_type: 'BEARER' }), {}],
  ['JSON called text', text(JSON.stringify(answer), 200, { 'content-type': 'text/plain' }), {}],
  ['an ID token that nobody asked for', send({ ...answer, id_token: 'nonsense' }), {}],
  [
    'a prototype',
    text(JSON.stringify(answer).replace('{', '{"__proto__":{"scope":"admin"},')),
    { scope: undefined as never },
  ],
  ['headers of a proxy', send(answer, 200, { 'set-cookie': CANARY, refresh: '0; url=https://evil.test' }), {}],
]

describe('a token endpoint that goes on with', () => {
  test.each(GOOD)('%s', async (_name, reply, stored) => {
    const server = await tokenServer((_form, response) => reply(response))
    const { session, store, stamps } = await world(`${server.origin}/oauth/token`)
    await session.get('/x')
    expect(stamps()).toEqual([`Bearer ${NEW}`])
    const { refreshToken, accessToken, ...rest } = (await store.load())!
    expect({ accessToken, refreshToken: refreshToken!, scope: undefined, ...rest }).toMatchObject({
      accessToken: NEW,
      refreshToken: answer.refresh_token,
      ...stored,
    })
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('two answers at once: the first counts', async () => {
    const body = (n: number) => JSON.stringify({ ...answer, access_token: `access-${CANARY}-${n}` })
    const http = (n: number) =>
      `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body(n).length}\r\n\r\n${body(n)}`
    const server = await rawServer((socket) => socket.write(http(1) + http(2)))
    const { session, store, stamps } = await world(`${server.origin}/token`)
    await session.get('/x')
    await session.get('/x')
    expect(stamps()).toEqual([`Bearer ${NEW}`, `Bearer ${NEW}`])
    expect(await store.load()).toMatchObject({ accessToken: NEW })
  })
})

describe('renewals that go wrong in two steps', () => {
  test('the answer is lost: the old token serves to its end, the same refresh token is tried once more, then refused', async () => {
    let n = 0
    const server = await tokenServer((_form, response) =>
      ++n === 1 ? response.destroy() : json(response, { error: 'invalid_grant' }, 400),
    )
    const { session, store, clock, stamps } = await world(`${server.origin}/oauth/token`, {}, 50_000)
    clock.advance(30_000)
    await session.get('/x')
    await session.get('/x')
    expect(stamps()).toEqual([`Bearer ${OLD}`, `Bearer ${OLD}`])
    expect(n).toBe(1)
    clock.advance(20_000)
    const error = await errorOf(session.get('/x'))
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
    expectNoSecret(error, ...SECRETS)
    expect(server.tokenCalls.map((form) => form.get('refresh_token'))).toEqual(Array(2).fill(`refresh-${CANARY}-0`))
    expect(await store.load()).toBeUndefined()
  })

  test('a rotated token that is refused next time', async () => {
    let n = 0
    const server = await tokenServer((_form, response) =>
      ++n === 1 ? json(response, answer) : json(response, { error: 'invalid_grant' }, 400),
    )
    const { session, store, clock } = await world(`${server.origin}/oauth/token`)
    await session.get('/x')
    clock.advance(3_600_000)
    expect(await errorOf(session.get('/x'))).toMatchObject({ code: 'LOGIN_NEEDED' })
    expect(server.tokenCalls.map((form) => form.get('refresh_token'))).toEqual([
      `refresh-${CANARY}-0`,
      `refresh-${CANARY}-1`,
    ])
    expect(await store.load()).toBeUndefined()
  })

  test('invalid_grant while a newer token is in the store: adopted, not deleted', async () => {
    let store: GrantStore = memoryGrantStore()
    let clock = fakeClock()
    const server = await tokenServer(async (_form, response) => {
      await store.save(grantOf(clock, `${CANARY}-newer`))
      json(response, { error: 'invalid_grant' }, 400)
    })
    const made = await world(`${server.origin}/oauth/token`)
    store = made.store
    clock = made.clock
    await made.session.get('/x')
    expect(made.stamps()).toEqual([`Bearer access-${CANARY}-newer`])
    expect(await store.load()).toMatchObject({ refreshToken: `refresh-${CANARY}-newer` })
  })

  test('the scope gets narrower: said once, and stored', async () => {
    const server = await tokenServer((_form, response) => json(response, { ...answer, scope: 'read\u001b[2J' }))
    const clock = fakeClock()
    const warnings: string[] = []
    const store = memoryGrantStore({ ...grantOf(clock, '0', 0), scope: 'read\u001b[2J write' })
    const way = passwordAuthorizer(server.origin, { userName: 'a', password: async () => 'b' })
    const onWarning = (message: string) => void warnings.push(message)
    const session = Session.create(server.origin, way, { clock, store, onWarning })
    await session.renew()
    await session.renew()
    expect(warnings).toEqual([expect.stringMatching(/^[\x20-\x7e]*missing: write$/)])
    expect((await store.load())?.scope).toBe('read\u001b[2J')
    await session.close()
  })
})

describe('clocks', () => {
  test.each([
    ['an hour behind', -3_600_000],
    ['an hour ahead', 3_600_000],
    ['a year ahead', 31_536_000_000],
  ])('that jump: %s changes nothing in a running session', async (_name, ms) => {
    const server = await tokenServer()
    const { session, clock, stamps } = await world(`${server.origin}/oauth/token`, {}, 7_200_000)
    await session.get('/x')
    clock.jump(ms)
    await session.get('/x')
    clock.jump(-ms)
    await session.get('/x')
    expect(stamps()).toEqual(Array(3).fill(`Bearer ${OLD}`))
    expect(server.tokenCalls).toHaveLength(0)
    clock.advance(7_200_000)
    await session.get('/x')
    expect(server.tokenCalls).toHaveLength(1)
  })

  test.each([
    ['an hour ahead: renewed once at the start', 3_600_000, 1],
    ['an hour behind: good for its own lifetime, no longer', -3_600_000, 0],
  ])('that are off when the session starts: %s', async (_name, ms, renewals) => {
    const server = await tokenServer()
    const { session, clock } = await world(`${server.origin}/oauth/token`, {}, 1_800_000)
    clock.jump(ms)
    await session.get('/x')
    await session.get('/x')
    expect(server.tokenCalls).toHaveLength(renewals)
    clock.advance(1_800_000)
    await session.get('/x')
    expect(server.tokenCalls.length).toBeLessThanOrEqual(1)
    expect(server.tokenCalls.length).toBe(1)
  })
})
