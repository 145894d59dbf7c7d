/** `sealsync/session` as a library: calls, their errors, checks, and moving a login. */
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import {
  type Authorizer,
  type CallOptions,
  type Grant,
  memoryGrantStore,
  Session,
  type SessionSettings,
} from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { expectNoSecret, grantOf } from '../support/oauth.ts'
import { type Answer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-91ab'

const bearer: Authorizer = { name: 'test', authorize: async ({ clock }) => grantOf(clock, CANARY) }

/** A logged-in session with a server that does as told. */
async function world(answer: Answer, settings: SessionSettings = {}, authorizer = bearer, path = '') {
  const clock = fakeClock()
  const api = await httpServer(answer)
  const session = Session.create(api.origin + path, authorizer, { clock, random: steadyRandom(), ...settings })
  await session.login()
  return { api, session, clock }
}

const ok: Answer = (_request, response) => json(response, { fine: true })

describe('what is sent', () => {
  test('path below the base, query, JSON, headers, and the stamp', async () => {
    const { api, session } = await world(ok, {}, bearer, '/base/')
    const value = await session.post('/items?kept=1', {
      query: { q: 'a b&c=d/é', list: [1, 'two', true], nothing: undefined, empty: null },
      json: { name: 'ü', list: [1] },
      headers: { 'X-Own': 'yes' },
    })
    expect(value).toEqual({ fine: true })
    expect(api.seen[0]).toMatchObject({
      method: 'POST',
      path: '/base/items?kept=1&q=a+b%26c%3Dd%2F%C3%A9&list=1&list=two&list=true&empty=',
      body: '{"name":"ü","list":[1]}',
      headers: {
        authorization: `Bearer access-${CANARY}`,
        accept: 'application/json',
        'content-type': 'application/json',
        'x-own': 'yes',
      },
    })
  })

  test('each method, a form, bytes, and public calls without a stamp', async () => {
    const { api, session } = await world(ok)
    await session.get('/a')
    await session.put('/a', { form: { a: 'b c', d: '&' } })
    await session.patch('/a', { body: Buffer.from([0xff, 0x00]) })
    await session.delete('/a')
    await session.get('/public', { auth: false })
    expect(api.seen.map(({ method }) => method)).toEqual(['GET', 'PUT', 'PATCH', 'DELETE', 'GET'])
    expect(api.seen[1]).toMatchObject({ body: 'a=b+c&d=%26' })
    expect(api.seen[1]!.headers['content-type']).toBe('application/x-www-form-urlencoded')
    expect(api.seen.map(({ headers }) => headers.authorization !== undefined)).toEqual([true, true, true, true, false])
  })

  test('no path leads to another host', async () => {
    const { api, session } = await world(ok, {}, bearer, '/base')
    const paths = [
      '//evil.example/x',
      '/@evil.example',
      '/\\\\evil.example',
      '/https://evil.example',
      '/../../x',
      '/:1/x',
    ]
    for (const path of paths) await session.get(path)
    expect(api.seen).toHaveLength(paths.length)
  })

  test.each<[string, string, string, CallOptions]>([
    ['a path without a slash', 'PATH_INVALID', 'items', {}],
    ['the authorization header', 'HEADER_FORBIDDEN', '/', { headers: { Authorization: 'x' } }],
    ['a cookie', 'HEADER_FORBIDDEN', '/', { headers: { cookie: 'x' } }],
    ['a header with a line end', 'HEADER_INVALID', '/', { headers: { 'x-a': 'b\r\nx-c: d' } }],
    ['a header name with a space', 'HEADER_INVALID', '/', { headers: { 'x a': 'b' } }],
    ['two bodies', 'BODY_TWICE', '/', { json: 1, form: {} }],
  ])('%s is refused before anything is sent', async (_name, code, path, options) => {
    const { api, session } = await world(ok)
    expect(await errorOf(session.get(path, options))).toMatchObject({ class: 'usage', code })
    expect(api.seen).toHaveLength(0)
  })
})

describe('what comes back', () => {
  test('204 and an empty body are undefined; raw gives any status and the bytes', async () => {
    const { session } = await world(({ path }, response) => {
      if (path === '/204') response.writeHead(204).end()
      else if (path === '/empty') response.writeHead(200).end()
      else response.writeHead(418, { 'x-kind': 'pot' }).end('short and stout')
    })
    expect(await session.get('/204')).toBeUndefined()
    expect(await session.delete('/empty')).toBeUndefined()
    const raw = await session.raw('GET', '/pot')
    expect([raw.status, raw.headers['x-kind'], Buffer.from(raw.body).toString()]).toEqual([
      418,
      'pot',
      'short and stout',
    ])
  })

  test('a portal page instead of JSON: a typed error with an excerpt, without what could be a secret', async () => {
    const page = `<html>Welcome to\n the <b>airport</b> ${CANARY}-0123456789abcdef token=${'a'.repeat(40)}</html>`
    const { session } = await world((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html\u00e9' }).end(page),
    )
    const error = await errorOf(session.get('/x/123456/list?token=abc'))
    expect(error).toMatchObject({ class: 'server', code: 'ANSWER_NOT_JSON' })
    expect(error.message).toContain('Welcome to the <b>airport</b>')
    expect(error.message).toContain('GET /x/{id}/list')
    expectNoSecret(error, CANARY, 'aaaaaaaaaaaaaaaa', 'token=abc')
  })

  test('an answer that breaks off: no short value shows, and nothing that a terminal would obey', async () => {
    const cut = '{"pin":"canary-1","note":"\u001b[2J\u202e'
    for (const body of [cut, `pin=canary-1&x=\u001b[2J\u202e`, `<p \u001b]0;x\u0007 title='a'>\u2028\u0000`]) {
      const { session } = await world((_request, response) => response.writeHead(200).end(body))
      const error = await errorOf(session.get('/x'))
      expect(error).toMatchObject({ code: 'ANSWER_NOT_JSON' })
      expect(error.message).not.toMatch(/[\p{Cc}\p{Cf}\u2028]/u)
      expectNoSecret(error, 'canary-1')
    }
  })

  test.each([
    [400, 'usage', 'BAD_REQUEST'],
    [401, 'auth', 'LOGIN_NEEDED'],
    [403, 'permission', 'FORBIDDEN'],
    [404, 'not_found', 'NOT_FOUND'],
    [409, 'conflict', 'CONFLICT'],
    [413, 'limit', 'TOO_LARGE'],
    [418, 'server', 'SERVER'],
    [429, 'rate_limit', 'RATE_LIMITED'],
    [500, 'server', 'SERVER'],
    [507, 'quota', 'QUOTA'],
    [302, 'server', 'SERVER'],
  ])('status %i becomes %s %s', async (status, kind, code) => {
    const { session } = await world((_request, response) =>
      response.writeHead(status, { 'retry-after': '1', location: '/elsewhere' }).end(`{"message":"${CANARY}"}`),
    )
    const error = await errorOf(session.get('/x'))
    expect(error).toMatchObject({ class: kind, code })
    expectNoSecret(error, CANARY)
  })

  test('a scope that is missing: log in again, without a renewal', async () => {
    let renewals = 0
    const renew = async (grant: Grant) => {
      renewals++
      return grant
    }
    const authorizer: Authorizer = { ...bearer, renew }
    const { api, session } = await world(
      (_request, response) =>
        response.writeHead(403, { 'www-authenticate': 'Bearer error="insufficient_scope", scope="write"' }).end(),
      {},
      authorizer,
    )
    expect(await errorOf(session.put('/x'))).toMatchObject({ class: 'auth', code: 'SCOPE_MISSING' })
    expect([api.seen.length, renewals]).toEqual([1, 0])
  })
})

describe('repetition', () => {
  test('one gate for all: after a 429 nobody sends before its time, and every try is stamped afresh', async () => {
    let stamps = 0
    let refusals = 1
    const authorizer: Authorizer = {
      ...bearer,
      sign: async (request) => ({ ...request, headers: { ...request.headers, 'x-stamp': String(++stamps) } }),
    }
    const { api, session, clock } = await world(
      (_request, response) =>
        refusals-- > 0 ? response.writeHead(429, { 'retry-after': '20' }).end() : json(response, {}),
      {},
      authorizer,
    )
    await session.get('/a')
    await Promise.all([session.get('/b'), session.post('/c')])
    expect(clock.monotonic()).toBeGreaterThanOrEqual(20_000)
    const seen = api.seen.map(({ path, headers }) => `${path} ${headers['x-stamp']}`)
    expect(seen.slice(0, 2)).toEqual(['/a 1', '/a 2'])
    expect(new Set(seen).size).toBe(4)
  })

  test('a stamp that was not accepted is made again once', async () => {
    let stamps = 0
    const authorizer: Authorizer = {
      ...bearer,
      sign: async (request) => ({ ...request, headers: { ...request.headers, 'x-stamp': String(++stamps) } }),
      judge: ({ status }) => (status === 400 ? 'sign-again' : 'ok'),
    }
    const { api, session } = await world(
      ({ headers }, response) => json(response, {}, headers['x-stamp'] === '2' ? 200 : 400),
      {},
      authorizer,
    )
    expect(await session.get('/a')).toEqual({})
    expect(await errorOf(session.get('/a'))).toMatchObject({ class: 'auth', code: 'SIGNATURE_REFUSED' })
    expect(api.seen).toHaveLength(4)
  })

  test('who gives up gets an answer at once; the renewal goes on for the others', async () => {
    let finish = () => {}
    const waits = new Promise<void>((resolve) => {
      finish = resolve
    })
    const authorizer: Authorizer = {
      ...bearer,
      async renew(_grant, { clock }) {
        await waits
        return grantOf(clock, 'renewed')
      },
    }
    const { session, clock, api } = await world(ok, {}, authorizer)
    clock.advance(3_600_000)
    const stop = new AbortController()
    const first = errorOf(session.get('/first', { signal: stop.signal }))
    const second = session.get('/second')
    stop.abort(new Error('given up'))
    expect((await first).message).toBe('given up')
    finish()
    await second
    expect(api.seen.map(({ path, headers }) => `${path} ${headers.authorization}`)).toEqual([
      '/second Bearer access-renewed',
    ])
  })
})

describe('check', () => {
  test('by expiry, without a request', async () => {
    const { session, clock, api } = await world(ok)
    expect(await session.check()).toEqual({ valid: true, expiresAt: clock.now() + 3_600_000 })
    clock.advance(3_600_000)
    expect(await session.check()).toEqual({ valid: false, reason: 'expired' })
    await session.logout()
    expect(await session.check()).toEqual({ valid: false, reason: 'missing' })
    expect(api.seen).toHaveLength(0)
  })

  test('online, by a request that needs the login; an outage is not an answer', async () => {
    let status = 200
    const { session, api } = await world((_request, response) => response.writeHead(status).end(), { probe: '/me' })
    expect(await session.check({ online: true })).toMatchObject({ valid: true })
    expect(api.seen[0]!.path).toBe('/me')
    status = 401
    expect(await session.check({ online: true })).toEqual({ valid: false, reason: 'refused' })
    status = 500
    expect(await errorOf(session.check({ online: true }))).toMatchObject({ class: 'server' })
  })

  test('online, by the way to log in itself', async () => {
    let holds = true
    const { session, api } = await world(ok, {}, { ...bearer, check: async () => holds })
    expect(await session.check({ online: true })).toMatchObject({ valid: true })
    holds = false
    expect(await session.check({ online: true })).toEqual({ valid: false, reason: 'refused' })
    expect(api.seen).toHaveLength(0)
  })
})

describe('moving a login', () => {
  test('dumped as JSON, loaded elsewhere, and stored there', async () => {
    const { session, api } = await world(ok)
    const dump = JSON.parse(JSON.stringify(await session.dump()))
    const store = memoryGrantStore()
    const moved = await Session.load(dump, api.origin, bearer, { clock: fakeClock(), store })
    await moved.get('/x')
    expect(api.seen[0]!.headers.authorization).toBe(`Bearer access-${CANARY}`)
    expect(await store.load()).toEqual(dump.grant)
    expect((await Session.load(JSON.stringify(dump), api.origin, bearer)).origin).toBe(api.origin)
  })

  test.each([
    ['no JSON', (): unknown => `{"grant":"${CANARY}"`, 'SESSION_INVALID'],
    ['something else', (): unknown => ({ grant: CANARY }), 'SESSION_INVALID'],
    ['null', (): unknown => null, 'SESSION_INVALID'],
    ['a later version', (dump: object): unknown => ({ ...dump, v: 2 }), 'SESSION_INVALID'],
    ['no grant', (dump: object): unknown => ({ ...dump, grant: { v: 1 } }), 'SESSION_INVALID'],
    ['no origin', (dump: object): unknown => ({ ...dump, origin: CANARY }), 'SESSION_INVALID'],
    ['another server', (dump: object): unknown => ({ ...dump, origin: 'https://x.example' }), 'SESSION_OTHER_SERVER'],
    ['another method', (dump: object): unknown => ({ ...dump, method: 'other' }), 'SESSION_OTHER_METHOD'],
  ])('%s is refused, and quoted nowhere', async (_name, alter, code) => {
    const { session, api } = await world(ok)
    const bad = alter(await session.dump()) as string
    const error = await errorOf(Session.load(bad, api.origin, bearer))
    expect(error).toMatchObject({ class: 'usage', code })
    expectNoSecret(error, CANARY)
  })

  test('without a login the dump is that of a session that has to log in', async () => {
    const session = Session.create('http://127.0.0.1:1', bearer)
    const dump = await session.dump()
    expect(dump).toEqual({ type: 'sealsync-session', v: 1, origin: 'http://127.0.0.1:1', method: 'test' })
    const moved = await Session.load(JSON.stringify(dump), 'http://127.0.0.1:1', bearer)
    expect(await moved.check()).toEqual({ valid: false, reason: 'missing' })
    expect(await errorOf(session.adopt({ v: 1, accessToken: 'a\nb' }))).toMatchObject({ code: 'GRANT_INVALID' })
  })
})

test('a session shows no secret, however one looks at it', async () => {
  const { session } = await world(ok)
  await session.get('/x')
  for (const view of [inspect(session, { depth: 9, showHidden: true }), JSON.stringify(session), String(session)]) {
    expect(view).not.toContain(CANARY)
  }
})

test('a login goes to its own server only, and over https only', async () => {
  const other = await httpServer(ok)
  const { session } = await world(ok)
  await session.send({ method: 'GET', url: `${other.origin}/x` })
  expect(other.seen[0]!.headers.authorization).toBeUndefined()
  for (const url of ['http://files.example.org', 'http://localhost:1', 'ftp://x.example', 'https://a:b@x.example']) {
    expect(() => Session.create(url, bearer), url).toThrow(/TLS|URL/)
  }
})
