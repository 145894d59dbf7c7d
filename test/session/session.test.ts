import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { judgeAnswer } from '../../src/api/api.ts'
import { type Clock, systemClock } from '../../src/environment.ts'
import { SyncError } from '../../src/errors.ts'
import { createRetry } from '../../src/http/retry.ts'
import type { Authorizer, Grant } from '../../src/session/authorizer.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { fileGrantStore, type GrantStore, memoryGrantStore } from '../../src/session/grant-store.ts'
import { createGrantSession } from '../../src/session/session.ts'
import { type FakeClock, fakeClock, settle, steadyRandom } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { expectNoSecret, grantOf, tokenServer } from '../support/oauth.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-7f3a9'

/** An API that accepts some tokens, a token endpoint that hands out the next, and a session between them. */
async function world(options: { store?: GrantStore; accepts?: (token: string) => boolean; onToken?: OnToken } = {}) {
  const clock = fakeClock()
  const auth = await tokenServer(options.onToken)
  const api = await httpServer(({ headers }, response) => {
    const token = String(headers.authorization).replace(/^Bearer /, '')
    json(response, {}, (options.accepts ?? (() => true))(token) ? 200 : 401)
  })
  const send = dialer()
  const store = options.store ?? memoryGrantStore(grantOf(clock, '0'))
  const session = createGrantSession({
    origin: api.origin,
    authorizer: passwordAuthorizer(auth.origin, { userName: 'ann', password: async () => `${CANARY}-password` }),
    store,
    send,
    clock,
  })
  const call = async () => (await session.send({ method: 'GET', url: `${api.origin}/api/x` })).status
  const tokens = () => api.seen.map(({ headers }) => headers.authorization)
  return { clock, auth, api, send, store, session, call, tokens }
}
type OnToken = Parameters<typeof tokenServer>[0]

const lost: OnToken = (_form, response) => response.destroy()
const refuse: OnToken = (_form, response) => json(response, { error: 'invalid_grant' }, 400)
const loginNeeded = { class: 'auth', code: 'LOGIN_NEEDED' }

describe('renewal ahead of the end', () => {
  test('a fresh grant is used as it is; a minute before its end it is renewed, once, and stored', async () => {
    const { clock, auth, call, tokens, store } = await world()
    await call()
    clock.advance(3_600_000 - 60_001)
    await call()
    expect(auth.tokenCalls).toHaveLength(0)
    clock.advance(1)
    await call()
    await call()
    expect(auth.tokenCalls).toHaveLength(1)
    expect(Object.fromEntries(auth.tokenCalls[0]!)).toMatchObject({
      grant_type: 'refresh_token',
      refresh_token: 'refresh-0',
    })
    expect(tokens()).toEqual(['Bearer access-0', 'Bearer access-0', 'Bearer access-1', 'Bearer access-1'])
    expect(await store.load()).toMatchObject({ accessToken: 'access-1', refreshToken: 'refresh-1' })
  })

  test('a short lifetime is renewed at its half', async () => {
    const clock = fakeClock()
    const made = await world({ store: memoryGrantStore(grantOf(clock, '0', 40_000)) })
    await made.call()
    made.clock.advance(19_999)
    await made.call()
    expect(made.auth.tokenCalls).toHaveLength(0)
    made.clock.advance(1)
    await made.call()
    expect(made.auth.tokenCalls).toHaveLength(1)
  })

  test('the wall clock may jump: lifetimes run on the other one', async () => {
    const { clock, auth, call } = await world()
    await call()
    clock.jump(-86_400_000)
    await call()
    clock.jump(2 * 86_400_000)
    await call()
    expect(auth.tokenCalls).toHaveLength(0)
    clock.advance(3_600_000)
    await call()
    expect(auth.tokenCalls).toHaveLength(1)
  })

  test('a stored grant from a wrong clock lives no longer than it was given', async () => {
    const clock = fakeClock()
    const grant = { ...grantOf(clock, '0'), expiresAt: clock.now() + 10 * 86_400_000 }
    const made = await world({ store: memoryGrantStore(grant) })
    await made.call()
    made.clock.advance(3_600_000)
    await made.call()
    expect(made.auth.tokenCalls).toHaveLength(1)
  })

  test('the new pair is stored before it is used, and without a new refresh token the old one stays', async () => {
    const steps: string[] = []
    const clock = fakeClock()
    const inner = memoryGrantStore(grantOf(clock, '0', 0))
    const store: GrantStore = {
      ...inner,
      async save(grant) {
        await settle()
        steps.push(`stored ${grant.accessToken}`)
        await inner.save(grant)
      },
    }
    const made = await world({
      store,
      accepts: (token) => steps.push(`used ${token}`) > 0,
      onToken: (_form, response) =>
        json(response, { access_token: 'access-new', token_type: 'bearer', expires_in: 3600 }),
    })
    await made.call()
    expect(steps).toEqual(['stored access-new', 'used access-new'])
    expect(await store.load()).toMatchObject({ accessToken: 'access-new', refreshToken: 'refresh-0' })
  })

  test('a renewal that cannot be stored is not used', async () => {
    const clock = fakeClock()
    const full = new SyncError('local_io', 'LOCAL_ENOSPC', 'Cannot write')
    const store: GrantStore = { ...memoryGrantStore(grantOf(clock, '0', 0)), save: () => Promise.reject(full) }
    const made = await world({ store })
    expect(await errorOf(made.call())).toBe(full)
    expect(made.api.seen).toHaveLength(0)
  })

  test('fifty callers at once cause one renewal', async () => {
    const clock = fakeClock()
    const inner = memoryGrantStore(grantOf(clock, '0', 0))
    let locks = 0
    const store: GrantStore = {
      ...inner,
      exclusive(work) {
        locks++
        return inner.exclusive(work)
      },
    }
    const made = await world({ store })
    expect(await Promise.all(Array.from({ length: 50 }, made.call))).toEqual(Array(50).fill(200))
    expect(made.auth.tokenCalls).toHaveLength(1)
    // The others wait for that one; they do not queue for the lock.
    expect(locks).toBe(1)
    expect(new Set(made.tokens())).toEqual(new Set(['Bearer access-1']))
  })

  test('a failed renewal is not remembered as the answer for later callers', async () => {
    let tries = 0
    const clock = fakeClock()
    const made = await world({
      store: memoryGrantStore(grantOf(clock, '0', 0)),
      onToken: (_form, response) =>
        ++tries === 1
          ? json(response, { error: 'x' }, 500)
          : json(response, { access_token: 'access-ok', token_type: 'bearer' }),
    })
    expect(await errorOf(made.call())).toMatchObject({ class: 'server', retryable: true })
    expect(await made.call()).toBe(200)
    expect(tries).toBe(2)
  })
})

describe('401', () => {
  test('one renewal and one replay, of the same bytes', async () => {
    const { api, auth, session, tokens } = await world({ accepts: (token) => token === 'access-1' })
    const body = Buffer.from('the body')
    const answer = await session.send({ method: 'POST', url: `${api.origin}/api/x`, body })
    expect(answer.status).toBe(200)
    expect(auth.tokenCalls).toHaveLength(1)
    expect(tokens()).toEqual(['Bearer access-0', 'Bearer access-1'])
    expect(api.seen.map((one) => one.body)).toEqual(['the body', 'the body'])
  })

  test('a second 401 is the answer', async () => {
    const { auth, call, api } = await world({ accepts: () => false })
    expect(await call()).toBe(401)
    expect(auth.tokenCalls).toHaveLength(1)
    expect(api.seen).toHaveLength(2)
  })

  test('fifty at once: still one renewal', async () => {
    const { auth, call } = await world({ accepts: (token) => token === 'access-1' })
    expect(await Promise.all(Array.from({ length: 50 }, call))).toEqual(Array(50).fill(200))
    expect(auth.tokenCalls).toHaveLength(1)
  })

  test.each([
    ['{"code":401,"errorCode":-10006}', 1, 0],
    ['{"errorCode" : -10006 , "message":"no"}', 1, 0],
    ['{"errorCode":-100061}', 2, 1],
    ['{"errorCode":-10001}', 2, 1],
    ['', 2, 1],
  ])('with the body %s: %i request(s), %i renewal(s)', async (body, requests, renewals) => {
    const clock = fakeClock()
    const auth = await tokenServer()
    const api = await httpServer((_request, response) => response.writeHead(401).end(body))
    const session = createGrantSession({
      origin: api.origin,
      authorizer: {
        ...passwordAuthorizer(auth.origin, { userName: 'a', password: async () => 'b' }),
        judge: judgeAnswer,
      },
      store: memoryGrantStore(grantOf(clock, '0')),
      send: dialer(),
      clock,
    })
    expect((await session.send({ method: 'GET', url: api.origin })).status).toBe(401)
    expect(api.seen).toHaveLength(requests)
    expect(auth.tokenCalls).toHaveLength(renewals)
  })
})

test('a token goes to its own origin only', async () => {
  const { session, api, auth, call } = await world()
  const other = await httpServer((_request, response) => response.writeHead(401).end())
  const elsewhere = [
    `${other.origin}/part`,
    `http://127.0.0.2:${api.port}/x`,
    api.origin.replace('127.0.0.1', '[::1]'),
    api.origin.replace('http:', 'https:'),
    `${other.origin}/${api.origin}`,
  ]
  for (const url of elsewhere) await session.send({ method: 'GET', url }).catch(() => {})
  expect(other.seen).toHaveLength(2)
  for (const seen of [...other.seen, ...api.seen]) expect(seen.headers.authorization).toBeUndefined()
  expect(auth.tokenCalls).toHaveLength(0)
  await call()
  expect(api.seen.at(-1)?.headers.authorization).toBe('Bearer access-0')
  for (const seen of api.seen) expect(seen.path).not.toContain('access-')
})

describe('the refresh token is refused or its answer lost', () => {
  test('refused: the store is emptied and somebody has to log in', async () => {
    const clock = fakeClock()
    const store = memoryGrantStore(grantOf(clock, CANARY, 0))
    const made = await world({ store, onToken: refuse })
    const error = await errorOf(made.call())
    expect(error).toMatchObject(loginNeeded)
    expectNoSecret(error, CANARY)
    expect(await store.load()).toBeUndefined()
    expect(await errorOf(made.call())).toMatchObject(loginNeeded)
    expect(made.auth.tokenCalls).toHaveLength(1)
    expect(made.api.seen).toHaveLength(0)
  })

  test('refused, but another has stored a newer one meanwhile: adopted, never deleted', async () => {
    const clock = fakeClock()
    const store = memoryGrantStore(grantOf(clock, '0', 0))
    const made = await world({
      store,
      async onToken(_form, response) {
        await store.save(grantOf(clock, 'newer'))
        json(response, { error: 'invalid_grant' }, 400)
      },
    })
    expect(await made.call()).toBe(200)
    expect(made.tokens()).toEqual(['Bearer access-newer'])
    expect(await store.load()).toMatchObject({ refreshToken: 'refresh-newer' })
  })

  test('an unknown client is an error that keeps the login', async () => {
    const clock = fakeClock()
    const store = memoryGrantStore(grantOf(clock, '0', 0))
    const made = await world({ store, onToken: (_f, response) => json(response, { error: 'invalid_client' }, 401) })
    expect(await errorOf(made.call())).toMatchObject({ class: 'auth', code: 'CLIENT_REFUSED' })
    expect(await store.load()).toMatchObject({ refreshToken: 'refresh-0' })
  })

  test('no refresh token at all', async () => {
    const clock = fakeClock()
    const { refreshToken: _, ...grant } = grantOf(clock, '0', 0)
    const made = await world({ store: memoryGrantStore(grant) })
    expect(await errorOf(made.call())).toMatchObject({ class: 'auth' })
    expect(made.auth.tokenCalls).toHaveLength(0)
  })

  test.each([
    ['lost', lost],
    ['500', ((_f, response) => response.writeHead(500).end()) satisfies OnToken],
    ['429', ((_f, response) => response.writeHead(429).end()) satisfies OnToken],
    ['HTML', ((_f, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')) satisfies OnToken],
  ])('answer %s: the access token serves until its end, then one more try', async (_what, onToken) => {
    const { clock, auth, call, tokens } = await world({ onToken })
    await call()
    clock.advance(3_600_000 - 30_000)
    for (let i = 0; i < 5; i++) expect(await call()).toBe(200)
    // The refresh token may be spent by now: it is not tried again while nobody needs it.
    expect(auth.tokenCalls).toHaveLength(1)
    clock.advance(30_000)
    expect(['network', 'server', 'rate_limit']).toContain((await errorOf(call())).class)
    expect(auth.tokenCalls).toHaveLength(2)
    expect(new Set(tokens())).toEqual(new Set(['Bearer access-0']))
    expect(auth.tokenCalls.map((form) => form.get('refresh_token'))).toEqual(['refresh-0', 'refresh-0'])
  })

  test('answer lost, then refused: log in again', async () => {
    let tries = 0
    const { clock, call, store } = await world({
      onToken: (...call) => (++tries === 1 ? lost : refuse)!(...call),
    })
    await call()
    clock.advance(3_600_000 - 30_000)
    expect(await call()).toBe(200)
    clock.advance(30_000)
    expect(await errorOf(call())).toMatchObject(loginNeeded)
    expect(await store.load()).toBeUndefined()
    expect(tries).toBe(2)
  })

  test.each([
    ['a busy token endpoint did nothing, and is asked again', 503, 6],
    ['an answer from a gateway may hide a renewal that happened, and is not', 502, 1],
    ['nor is one that got lost', undefined, 1],
  ])('%s (%s): %s request(s)', async (_name, status, requests) => {
    const clock = fakeClock()
    const auth = await tokenServer((_form, response) =>
      status === undefined ? response.destroy() : response.writeHead(status).end(),
    )
    const api = await httpServer((_request, response) => response.end())
    const send = dialer()
    const session = createGrantSession({
      origin: api.origin,
      authorizer: passwordAuthorizer(auth.origin, { userName: 'a', password: async () => 'b' }),
      store: memoryGrantStore(grantOf(clock, '0', 0)),
      send,
      retry: createRetry({ clock, random: steadyRandom(), retryForMs: 1 }),
      clock,
    })
    const error = await errorOf(session.send({ method: 'GET', url: api.origin }))
    expect(error).toMatchObject({ class: status === undefined ? 'network' : 'server' })
    expect(auth.tokenCalls).toHaveLength(requests)
  })
})

describe('two processes, one store', () => {
  async function pair() {
    const path = join(await freshDirectory(), 'grant.json')
    const clock: FakeClock = fakeClock()
    await fileGrantStore(path, systemClock).save(grantOf(clock, '0', 120_000))
    const auth = await tokenServer()
    const api = await httpServer((_request, response) => response.end())
    const open = () =>
      createGrantSession({
        origin: api.origin,
        authorizer: passwordAuthorizer(auth.origin, { userName: 'a', password: async () => 'b' }),
        store: fileGrantStore(path, systemClock),
        send: dialer(),
        clock,
      })
    const request = { method: 'GET', url: api.origin } as const
    return { clock, auth, api, request, path, a: open(), b: open() }
  }

  test('what one has renewed the other adopts', async () => {
    const { clock, auth, api, request, a, b } = await pair()
    await a.send(request)
    await b.send(request)
    clock.advance(90_000)
    await a.send(request)
    await b.send(request)
    await b.send(request)
    expect(auth.tokenCalls).toHaveLength(1)
    expect(api.seen.map(({ headers }) => headers.authorization).slice(2)).toEqual(Array(3).fill('Bearer access-1'))
  })

  test('both at once: one renewal', async () => {
    const { clock, auth, request, a, b } = await pair()
    await Promise.all([a.send(request), b.send(request)])
    clock.advance(90_000)
    await Promise.all([a.send(request), b.send(request), a.send(request), b.send(request)])
    expect(auth.tokenCalls).toHaveLength(1)
  })

  test('when one logs out the other has to log in', async () => {
    const { clock, auth, request, a, b } = await pair()
    await b.send(request)
    await a.logout()
    clock.advance(120_000)
    expect(await errorOf(b.send(request))).toMatchObject(loginNeeded)
    expect(auth.tokenCalls).toHaveLength(0)
    expect(await b.hasGrant()).toBe(false)
  })
})

describe('login and logout', () => {
  test('nobody logged in', async () => {
    const { session, api, call } = await world({ store: memoryGrantStore() })
    expect(await session.hasGrant()).toBe(false)
    expect(await errorOf(call())).toMatchObject(loginNeeded)
    expect(api.seen).toHaveLength(0)
    await session.logout()
  })

  test('login stores, whatever was there; logout revokes both tokens and forgets', async () => {
    const { session, auth, call, tokens, store } = await world()
    await session.login()
    expect(await store.load()).toMatchObject({ accessToken: 'access-1' })
    await call()
    expect(tokens()).toEqual(['Bearer access-1'])
    await session.logout()
    expect(auth.revoked).toEqual(['refresh-1', 'access-1'])
    const hints = auth.seen
      .filter(({ path }) => path === '/oauth/revoke')
      .map(({ body }) => new URLSearchParams(body).get('token_type_hint'))
    expect(hints).toEqual(['refresh_token', 'access_token'])
    expect(await session.hasGrant()).toBe(false)
    expect(await errorOf(call())).toMatchObject(loginNeeded)
  })

  test('logout forgets here even when the server is down, and says so', async () => {
    const clock = fakeClock()
    const down = await httpServer((_request, response) => response.destroy())
    const store = memoryGrantStore(grantOf(clock, CANARY))
    const session = createGrantSession({
      origin: down.origin,
      authorizer: passwordAuthorizer(down.origin, { userName: 'a', password: async () => 'b' }),
      store,
      send: dialer(),
      clock,
    })
    const error = await errorOf(session.logout())
    expect(error).toMatchObject({ class: 'network' })
    expectNoSecret(error, CANARY)
    expect(await store.load()).toBeUndefined()
    expect(await errorOf(session.send({ method: 'GET', url: down.origin }))).toMatchObject(loginNeeded)
  })

  test('logout during a renewal: what the renewal brings is revoked and does not come back', async () => {
    const clock = fakeClock()
    let answer = () => {}
    const store = memoryGrantStore(grantOf(clock, '0', 0))
    const made = await world({
      store,
      onToken: (_form, response) => {
        answer = () =>
          json(response, { access_token: 'late', refresh_token: 'late-refresh', token_type: 'bearer', expires_in: 60 })
      },
    })
    const calling = made.call()
    await expect.poll(() => made.auth.tokenCalls.length).toBe(1)
    const leaving = made.session.logout()
    await settle()
    answer()
    await calling
    await leaving
    expect(await store.load()).toBeUndefined()
    expect(made.auth.revoked).toEqual(['late-refresh', 'late'])
  })

  test('a failed login changes nothing', async () => {
    const { session, store } = await world({ onToken: refuse })
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ class: 'auth', code: 'WRONG_CREDENTIALS' })
    expectNoSecret(error, CANARY)
    expect(await store.load()).toMatchObject({ accessToken: 'access-0' })
  })
})

test('an authorizer may stamp in its own way', async () => {
  const clock: Clock = fakeClock()
  const api = await httpServer((_request, response) => response.end())
  const authorizer: Authorizer = {
    name: 'own',
    authorize: async () => grantOf(clock, 'own'),
    sign: (request, grant: Grant) => ({ ...request, headers: { ...request.headers, 'x-own': grant.accessToken } }),
  }
  const session = createGrantSession({
    origin: api.origin,
    authorizer,
    store: memoryGrantStore(),
    send: dialer(),
    clock,
  })
  await session.login()
  await session.send({ method: 'GET', url: api.origin, headers: { 'x-kept': 'yes' } })
  expect(api.seen[0]?.headers).toMatchObject({ 'x-own': 'access-own', 'x-kept': 'yes' })
  expect(api.seen[0]?.headers.authorization).toBeUndefined()
})

test('a damaged store means: log in', async () => {
  const path = join(await freshDirectory(), 'grant.json')
  const made = await world({ store: fileGrantStore(path, fakeClock()) })
  for (const content of [
    '',
    '{',
    'null',
    '[]',
    '{"v":2}',
    '{"v":1,"accessToken":"a","expiresAt":1}',
    '{"v":1,"accessToken":"a\\nb"}',
    `"${CANARY}"`,
    '\0\0',
  ]) {
    await writeFile(path, content, { mode: 0o600 })
    const error = await errorOf(made.call())
    expect(error).toMatchObject(loginNeeded)
    expectNoSecret(error, CANARY)
  }
})
