/** A session’s login with other HTTP clients: header, signature, `fetch`, undici, axios and got. */
import axios from 'axios'
import got from 'got'
import { fetch as undiciFetch, request as undiciRequest } from 'undici'
import { describe, expect, onTestFinished, test } from 'vitest'
import { SyncError } from '../../src/errors.ts'
import { type Authorizer, memoryGrantStore, Session, type SessionSettings } from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { grantOf } from '../support/oauth.ts'
import { ovhWorld } from '../support/ovh-server.ts'
import { type Answer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-any-client'

/** A way to log in that needs nobody, and an API that takes what it hands out until it is told otherwise. */
async function world(options: { answer?: Answer; settings?: SessionSettings; way?: Partial<Authorizer> } = {}) {
  const clock = fakeClock()
  const good = new Set<string>()
  let made = 0
  const grant = () => {
    const next = grantOf(clock, `${CANARY}-${++made}`)
    good.add(next.accessToken)
    return next
  }
  const api = await httpServer((seen, response, raw) => {
    const token = String(seen.headers.authorization).replace('Bearer ', '')
    if (!good.has(token)) return json(response, { error: 'no' }, 401)
    return options.answer === undefined ? json(response, { fine: seen.path }) : options.answer(seen, response, raw)
  })
  const other = await httpServer((_seen, response) => json(response, { other: true }))
  const way: Authorizer = {
    name: 'test',
    clientId: 'client-1',
    unattended: 'again',
    authorize: async () => grant(),
    renew: async () => grant(),
    ...options.way,
  }
  const session = Session.create(api.origin, way, { clock, random: steadyRandom(), retryForMs: 0, ...options.settings })
  onTestFinished(() => session.close())
  return { api, other, session, clock, expire: () => good.clear(), made: () => made }
}

const noLogin = (server: { seen: readonly { headers: object }[] }) =>
  expect(JSON.stringify(server.seen)).not.toContain(CANARY)

describe('the login by itself', () => {
  test('fifty first requests at once: one login; the client is known', async () => {
    const { session, api, made } = await world()
    await Promise.all(Array.from({ length: 50 }, () => session.get('/x')))
    expect(made()).toBe(1)
    expect(new Set(api.seen.map(({ headers }) => headers.authorization)).size).toBe(1)
    expect(session.clientId).toBe('client-1')
  })

  test('not when it is switched off, nor where a person is needed, nor after a logout', async () => {
    const off = await world({ settings: { autoLogin: false } })
    expect(await errorOf(off.session.get('/x'))).toMatchObject({ code: 'LOGIN_NEEDED' })
    const { authorize, renew } = {
      authorize: async () => grantOf(fakeClock(), 'x'),
      renew: async () => grantOf(fakeClock(), 'x'),
    }
    const person = Session.create(off.api.origin, { name: 'person', authorize, renew })
    expect(await errorOf(person.get('/x'))).toMatchObject({ code: 'LOGIN_NEEDED' })
    const left = await world()
    await left.session.get('/x')
    await left.session.logout()
    expect(await errorOf(left.session.get('/x'))).toMatchObject({ code: 'LOGIN_NEEDED' })
    await left.session.login()
    expect(await left.session.get('/x')).toEqual({ fine: '/x' })
  })

  test.each([
    ['again', 2],
    ['once', 1],
  ] as const)('what the server refused is not sent again at once (%s)', async (unattended, afterAMinute) => {
    let tries = 0
    const authorize = async () => {
      tries++
      throw new SyncError('auth', 'WRONG_CREDENTIALS', 'No', { status: 401 })
    }
    const { session, clock } = await world({ way: { unattended, authorize } })
    for (let i = 0; i < 3; i++) expect(await errorOf(session.get('/x'))).toMatchObject({ code: 'WRONG_CREDENTIALS' })
    expect(tries).toBe(1)
    clock.advance(60_000)
    expect(await errorOf(session.get('/x'))).toMatchObject({ code: 'WRONG_CREDENTIALS' })
    expect(tries).toBe(afterAMinute)
    expect(await errorOf(session.login())).toMatchObject({ code: 'WRONG_CREDENTIALS' })
    expect(tries).toBe(afterAMinute + 1)
  })

  test('an outage at the login is no refusal: the next request tries again', async () => {
    let tries = 0
    const { session } = await world({
      way: {
        async authorize({ clock }) {
          if (++tries === 1) throw new SyncError('server', 'SERVER', 'Down', { retryable: true })
          return grantOf(clock, CANARY)
        },
      },
    })
    expect(await errorOf(session.accessToken())).toMatchObject({ code: 'SERVER' })
    expect(await session.accessToken()).toBe(`access-${CANARY}`)
  })

  test('a login that has ended for good is followed by a new one, also in the middle of a request', async () => {
    const clock = fakeClock()
    const refuse = async () => {
      throw new SyncError('auth', 'GRANT_REFUSED', 'No')
    }
    const store = memoryGrantStore(grantOf(clock, 'old'))
    const { session, made } = await world({ way: { renew: refuse }, settings: { store } })
    expect(await session.get('/x')).toEqual({ fine: '/x' })
    expect(made()).toBe(1)
  })
})

describe('header and signature', () => {
  test('renewed ahead of the end, for many at once', async () => {
    const { session, clock, made } = await world()
    expect(await session.authHeader()).toBe(`Bearer access-${CANARY}-1`)
    clock.advance(3_599_000)
    const headers = await Promise.all(
      Array.from({ length: 20 }, () => session.authHeader({ url: `${session.origin}/y` })),
    )
    expect(new Set(headers)).toEqual(new Set([`Bearer access-${CANARY}-2`]))
    expect([await session.accessToken(), made()]).toEqual([`access-${CANARY}-2`, 2])
  })

  test.each(['http://127.0.0.2/x', 'https://127.0.0.1/x', 'http://127.0.0.1.example/x', 'http://[::1]/x'])(
    'not for %s',
    async (url) => {
      const { session, made } = await world()
      expect(await errorOf(session.authHeader({ url }))).toMatchObject({ class: 'usage', code: 'ORIGIN_FOREIGN' })
      expect(await errorOf(session.sign({ method: 'GET', url }))).toMatchObject({ code: 'ORIGIN_FOREIGN' })
      expect(made()).toBe(0)
    },
  )

  test('where each request is signed there is no header, and what is signed is what must be sent', async () => {
    const { session, server } = await ovhWorld()
    expect(await errorOf(session.authHeader())).toMatchObject({ class: 'usage', code: 'SIGN_NEEDED' })
    const signed = await session.sign({
      method: 'POST',
      url: `${server.endpoint}/me/x?a=1`,
      body: Buffer.from('{"b":2}'),
    })
    const answer = await fetch(signed.url, { method: signed.method, headers: { ...signed.headers }, body: '{"b":2}' })
    expect(await answer.json()).toMatchObject({ method: 'POST', body: '{"b":2}' })
    expect(server.to('/me/x').at(-1)?.isSigned).toBe(true)
  })

  test('margin and jitter', async () => {
    const { session, clock, made } = await world({
      settings: { expiryMarginMs: 10_000, expiryJitterMs: 4_000, random: steadyRandom(0.5) },
    })
    await session.get('/x')
    clock.advance(3_600_000 - 12_001)
    await session.get('/x')
    expect(made()).toBe(1)
    clock.advance(1)
    await session.get('/x')
    expect(made()).toBe(2)
    for (const expiryMarginMs of [-1, Number.NaN, 1e12, '5' as unknown as number]) {
      expect(() =>
        Session.create(
          'http://127.0.0.1:1',
          { name: 'x', authorize: async () => grantOf(clock, 'x') },
          { expiryMarginMs },
        ),
      ).toThrow(/expiryMarginMs/)
    }
  })
})

describe('fetch', () => {
  test('method, headers, body, renewal after a 401, and the answer', async () => {
    const { session, api, expire, made } = await world({
      answer: ({ body }, response) =>
        response
          .writeHead(201, { 'content-type': 'text/plain', 'set-cookie': ['a=1; Expires=Wed, 21 Oct 2026', 'b=2'] })
          .end(`got ${body}`),
    })
    await session.fetch(api.origin)
    expire()
    const headers = { 'x-own': 'ü', authorization: 'Bearer of-the-sdk' }
    const answer = await session.fetch(new URL('/a?b=c#d', api.origin), { method: 'POST', body: 'text', headers })
    expect([answer.status, await answer.text(), answer.url]).toEqual([201, 'got text', `${api.origin}/a?b=c`])
    expect(answer.headers.getSetCookie()).toEqual(['a=1; Expires=Wed, 21 Oct 2026', 'b=2'])
    expect(api.seen.slice(1)).toMatchObject([
      { method: 'POST', path: '/a?b=c', body: 'text' },
      { method: 'POST', path: '/a?b=c', body: 'text', headers: { authorization: `Bearer access-${CANARY}-2` } },
    ])
    expect(made()).toBe(2)
  })

  test('bodies of all kinds arrive whole, and can be sent again', async () => {
    const { session, api, expire } = await world()
    await session.get('/x')
    const stream = new ReadableStream({
      start(controller) {
        controller.enqueue(Buffer.from('in '))
        controller.enqueue(Buffer.from('parts'))
        controller.close()
      },
    })
    const bodies: [BodyInit, string][] = [
      [Buffer.from('bytes'), 'bytes'],
      [new URLSearchParams({ a: 'b c' }), 'a=b+c'],
      [new Blob(['blob']), 'blob'],
      [stream, 'in parts'],
    ]
    for (const [body, expected] of bodies) {
      expire()
      await session.fetch(`${api.origin}/x`, { method: 'PUT', body, duplex: 'half' } as RequestInit)
      expect(api.seen.slice(-2).map((one) => one.body)).toEqual([expected, expected])
    }
    await session.fetch(new Request(`${api.origin}/y`, { method: 'POST', body: 'request' }))
    expect(api.seen.at(-1)).toMatchObject({ method: 'POST', path: '/y', body: 'request' })
  })

  test('to another server: as it is, without the login', async () => {
    const { session, api, other } = await world({
      answer: (_seen, response) => response.writeHead(302, { location: `${other.origin}/stolen` }).end(),
    })
    expect(await (await session.fetch(`${other.origin}/x`, { headers: { authorization: 'own' } })).json()).toEqual({
      other: true,
    })
    expect(other.seen[0]!.headers.authorization).toBe('own')
    const error = await errorOf(session.fetch(`${api.origin}/x`))
    expect(error).toMatchObject({ code: 'REDIRECT' })
    expect(other.seen).toHaveLength(1)
    const manual = await session.fetch(`${api.origin}/x`, { redirect: 'manual' })
    expect([manual.status, manual.headers.get('location')]).toEqual([302, `${other.origin}/stolen`])
    noLogin(other)
  })

  test('redirects on the same server are followed, three at most, and never with a body', async () => {
    const { session, api } = await world({
      answer({ path }, response) {
        const n = Number(path.slice(1))
        if (n === 0) return json(response, { end: true })
        return response.writeHead(307, { location: `/${n - 1}` }).end()
      },
    })
    const answer = await session.fetch(`${api.origin}/3`)
    expect([await answer.json(), answer.redirected, answer.url]).toEqual([{ end: true }, true, `${api.origin}/0`])
    expect(await errorOf(session.fetch(`${api.origin}/4`))).toMatchObject({ code: 'REDIRECT' })
    expect(await errorOf(session.fetch(`${api.origin}/1`, { redirect: 'error' }))).toMatchObject({ code: 'REDIRECT' })
    expect(await errorOf(session.fetch(`${api.origin}/1`, { method: 'POST', body: 'x' }))).toMatchObject({
      code: 'REDIRECT',
    })
  })

  test('an answer is read as it comes, left when the reader leaves, and ended by its signal', async () => {
    let closed = () => {}
    const ended = new Promise<void>((resolve) => {
      closed = resolve
    })
    const { session, api } = await world({
      answer(_seen, response) {
        response.on('close', () => closed())
        response.writeHead(200).write('first')
      },
    })
    const answer = await session.fetch(`${api.origin}/events`)
    const reader = answer.body!.getReader()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('first')
    await reader.cancel()
    await ended
    const stop = new AbortController()
    const again = await session.fetch(`${api.origin}/events`, { signal: stop.signal })
    const second = again.body!.getReader()
    await second.read()
    stop.abort()
    expect((await errorOf(second.read())).name).toBe('AbortError')
    expect((await errorOf(session.fetch(api.origin, { signal: AbortSignal.abort() }))).name).toBe('AbortError')
  })

  test.each([
    ['a header with a line end', { headers: { 'x-a': 'b\r\nauthorization: c' } }],
    ['a method that is none', { method: 'GET /x' }],
    ['a body for GET', { method: 'GET', body: 'x' }],
  ])('%s is refused before anything is sent', async (_name, init) => {
    const { session, api } = await world()
    expect(await errorOf(session.fetch(api.origin, init))).toBeInstanceOf(TypeError)
    expect(api.seen).toHaveLength(0)
  })

  test('an endless body stream is cut off, not held', async () => {
    const { session, api } = await world()
    const chunk = new Uint8Array(8 * 1024 * 1024)
    const body = new ReadableStream({ pull: (controller) => controller.enqueue(chunk) })
    const error = await errorOf(session.fetch(api.origin, { method: 'POST', body, duplex: 'half' } as RequestInit))
    expect(error).toMatchObject({ class: 'limit', code: 'TOO_LARGE' })
    expect(api.seen).toHaveLength(0)
  })
})

describe('undici', () => {
  test('its request and its fetch, and the built-in one', async () => {
    const { session, api, expire } = await world()
    const dispatcher = session.dispatcher()
    const plain = await undiciRequest(`${api.origin}/a?x=1`, {
      dispatcher,
      method: 'POST',
      body: 'text',
      headers: { 'x-own': 'y' },
    })
    expect(await plain.body.json()).toEqual({ fine: '/a?x=1' })
    expire()
    const fetched = await undiciFetch(`${api.origin}/b`, { dispatcher, method: 'PUT', body: 'more' })
    expect(await fetched.json()).toEqual({ fine: '/b' })
    const builtIn = await fetch(`${api.origin}/c`, { dispatcher } as RequestInit)
    expect(await builtIn.json()).toEqual({ fine: '/c' })
    expect(api.seen.map(({ path, body }) => `${path} ${body}`)).toEqual(['/a?x=1 text', '/b more', '/b more', '/c '])
    await dispatcher.close()
    expect(await session.get('/still')).toEqual({ fine: '/still' })
  })

  test('other servers see nothing of the login, also after a redirect of its fetch', async () => {
    const { session, api, other } = await world({
      answer: (_seen, response) => response.writeHead(302, { location: `${other.origin}/next` }).end(),
    })
    const dispatcher = session.dispatcher()
    expect(await (await undiciFetch(`${api.origin}/x`, { dispatcher })).json()).toEqual({ other: true })
    await (await undiciRequest(`${other.origin}//${new URL(api.origin).host}/y`, { dispatcher })).body.dump()
    expect(other.seen).toHaveLength(2)
    noLogin(other)
  })

  test('failures and aborts reach the caller; large answers wait for their reader', async () => {
    const { session, api } = await world({ answer: (_seen, response) => response.end(Buffer.alloc(3_000_000, 1)) })
    const dispatcher = session.dispatcher()
    const { body } = await undiciRequest(api.origin, { dispatcher })
    let length = 0
    for await (const chunk of body) length += (chunk as Buffer).length
    expect(length).toBe(3_000_000)
    const signal = AbortSignal.abort()
    expect((await errorOf(undiciRequest(api.origin, { dispatcher, signal }))).name).toBe('AbortError')
    expect(await errorOf(undiciRequest('http://127.0.0.1:1/x', { dispatcher }))).toMatchObject({ code: 'NETWORK' })
    expect(await errorOf(undiciRequest('http://files.example.org/x', { dispatcher }))).toMatchObject({
      code: 'URL_INSECURE',
    })
  })
})

describe('axios and got', () => {
  test('axios, by its fetch adapter', async () => {
    const { session, api, other, expire } = await world()
    const client = axios.create({ baseURL: api.origin, adapter: 'fetch', env: { fetch: session.fetch } } as object)
    expect((await client.get('/a', { params: { b: 'c' } })).data).toEqual({ fine: '/a?b=c' })
    expire()
    expect((await client.post('/b', { c: 1 })).data).toEqual({ fine: '/b' })
    expect(api.seen.at(-1)).toMatchObject({ body: '{"c":1}' })
    expect((await client.get(`${other.origin}/x`)).data).toEqual({ other: true })
    noLogin(other)
  })

  test('axios, by a header for the own server only', async () => {
    const { session, api, other } = await world()
    const client = axios.create({ baseURL: api.origin, proxy: false, maxRedirects: 0 })
    client.interceptors.request.use(async (config) => {
      const url = client.getUri(config)
      if (new URL(url).origin === session.origin) config.headers.set('authorization', await session.authHeader({ url }))
      return config
    })
    expect((await client.get('/a')).data).toEqual({ fine: '/a' })
    expect((await client.get(`${other.origin}/x`)).data).toEqual({ other: true })
    noLogin(other)
  })

  test('got, by a hook that runs before each request, redirects included', async () => {
    const { session, api, other } = await world({
      answer: ({ path }, response) =>
        path === '/away'
          ? response.writeHead(302, { location: `${other.origin}/next` }).end()
          : json(response, { fine: path }),
    })
    const client = got.extend({
      hooks: {
        beforeRequest: [
          async (options) => {
            const url = options.url as URL
            if (url.origin === session.origin) options.headers.authorization = await session.authHeader({ url })
          },
        ],
      },
    })
    expect(await client(`${api.origin}/a`).json()).toEqual({ fine: '/a' })
    expect(await client(`${api.origin}/away`).json()).toEqual({ other: true })
    expect(other.seen).toHaveLength(1)
    noLogin(other)
  })
})
