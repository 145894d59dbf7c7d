/** What a session lets others watch and replace: sending, log, trace, requests under way; and what none of them sees. */
import { generateKeyPairSync } from 'node:crypto'
import { exportJWK, SignJWT } from 'jose'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { HttpRequest } from '../../src/http/types.ts'
import {
  type Authorizer,
  clientCredentialsAuthorizer,
  cognitoSrpAuthorizer,
  fileGrantStore,
  type Logger,
  memoryGrantStore,
  passwordAuthorizer,
  Session,
  systemClock,
  type TraceHooks,
} from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { grantOf, tokenServer } from '../support/oauth.ts'
import { type Answer, errorOf, httpServer, json } from '../support/servers.ts'
import { createAuthority } from '../support/tls.ts'

const CANARY = 'canary-31f0c'
const SECRET = `${CANARY}-client-secret`

/** A logger and hooks that keep what they are told. */
function watch() {
  const lines: string[] = []
  const traced: [string, object][] = []
  const level = (name: string) => (message: string, fields?: object) =>
    void lines.push(`${name} ${message} ${JSON.stringify(fields)}`)
  const logger: Logger = { debug: level('debug'), info: level('info'), warn: level('warn'), error: level('error') }
  const hook = (name: string) => (event: object) => void traced.push([name, event])
  const trace: TraceHooks = {
    onRequest: hook('request'),
    onResponse: hook('response'),
    onConnect: hook('connect'),
    onTls: hook('tls'),
    onRetry: hook('retry'),
  }
  return { lines, traced, logger, trace, told: () => JSON.stringify([lines, traced]) }
}

async function world(answer: Answer, more: object = {}) {
  const auth = await tokenServer((_form, response) =>
    json(response, { access_token: `${CANARY}-access`, token_type: 'bearer', expires_in: 3600 }),
  )
  const api = await httpServer(answer)
  const way = clientCredentialsAuthorizer(auth.origin, { client: { id: 'program', secret: SECRET } })
  const session = Session.create(api.origin, way, { clock: fakeClock(), random: steadyRandom(), ...more })
  onTestFinished(() => session.close())
  return { auth, api, session }
}

describe('log and trace', () => {
  test('login, request, repetition and answer are told, without anything secret', async () => {
    const { logger, trace, lines, traced, told } = watch()
    let n = 0
    const { session, api } = await world(
      (_seen, response) =>
        ++n === 1
          ? response.writeHead(503).end()
          : json(response, { fine: true }, 200, { 'x-request-id': 'req-1', 'set-cookie': `a=${CANARY}` }),
      { logger, trace },
    )
    await session.get(`/items/123456/${'k'.repeat(30)}?token=${CANARY}`, { headers: { 'x-own': CANARY } })
    await session.fetch(`${api.origin}/other/99?secret=${CANARY}`, { method: 'POST', body: CANARY })
    expect(told()).not.toContain(CANARY)
    expect(told()).not.toContain('Bearer')
    const path = '/items/{id}/{id}'
    expect(traced.filter(([, event]) => 'path' in event && event.path === path)).toMatchObject([
      ['request', { method: 'GET', bytes: 0, origin: api.origin }],
      ['response', { status: 503 }],
      ['request', { method: 'GET' }],
      ['response', { status: 200, requestId: 'req-1', receivedBytes: 13 }],
    ])
    expect(traced.filter(([name]) => name === 'retry')).toMatchObject([['retry', { attempt: 1, status: 503 }]])
    expect(traced.find(([name]) => name === 'connect')).toMatchObject([
      'connect',
      { address: '127.0.0.1', proxied: false },
    ])
    expect(traced.at(-1)).toMatchObject(['response', { path: '/other/{id}', bytes: CANARY.length, status: 200 }])
    expect(lines.some((line) => line.startsWith('info login done'))).toBe(true)
    expect(lines.some((line) => line.startsWith('info repeating'))).toBe(true)
  })

  test('TLS: version, cipher and what HTTP was agreed on', async () => {
    const authority = createAuthority()
    onTestFinished(() => authority.remove())
    const server = await httpServer((_seen, response) => json(response, {}), authority.issue())
    const { trace, traced } = watch()
    const session = Session.create(
      server.origin,
      { name: 'x', authorize: async ({ clock }) => grantOf(clock, 'x') },
      { trace, transport: { ca: [authority.cert] } },
    )
    onTestFinished(() => session.close())
    await session.login()
    await session.get('/x')
    expect(traced.find(([name]) => name === 'tls')).toMatchObject([
      'tls',
      { origin: server.origin, protocol: 'TLSv1.3' },
    ])
  })

  test('a failed login is told with the codes of both sides, and no words of the server', async () => {
    const { logger, lines, told } = watch()
    const auth = await tokenServer((form, response) =>
      json(response, { error: 'invalid_client', error_description: `${form.get('client_secret')} is wrong` }, 401, {
        'x-request-id': 'login-7',
      }),
    )
    const client = { id: 'program', secret: SECRET, auth: 'client_secret_post' as const }
    const session = Session.create(auth.origin, clientCredentialsAuthorizer(auth.origin, { client }), { logger })
    const error = await errorOf(session.get('/x'))
    expect(error).toMatchObject({
      code: 'CLIENT_REFUSED',
      status: 401,
      serverCode: 'invalid_client',
      requestId: 'login-7',
    })
    expect(error.serverMessage).toBe('[…] is wrong')
    expect(error.body()).not.toContain(CANARY)
    expect(lines.filter((line) => line.startsWith('error'))).toHaveLength(1)
    expect(lines.at(-1)).toMatch(/CLIENT_REFUSED.*invalid_client.*login-7/)
    expect(told()).not.toContain(CANARY)
    await session.close()
  })

  test('hooks and loggers that fail, or never end, change nothing', async () => {
    const fail = () => {
      throw new Error('a hook')
    }
    const reject = async () => fail()
    const logger = { debug: fail, info: reject as () => void, warn: fail, error: fail }
    const trace = { onRequest: fail, onResponse: reject as () => void, onConnect: fail }
    const { session } = await world((_seen, response) => json(response, { fine: true }), { logger, trace })
    expect(await session.get('/x')).toEqual({ fine: true })
  })

  test('text that a server chose does not steer the log', async () => {
    const { logger, lines } = watch()
    const auth = await tokenServer((_form, response) =>
      json(response, { access_token: 'a', token_type: 'bearer', scope: 'x\u001b[2J', expires_in: 60 }),
    )
    const way = passwordAuthorizer(auth.origin, { userName: 'a', password: async () => 'b', scope: 'y\u001b[0m\nz' })
    const session = Session.create(auth.origin, way, { logger })
    await session.login()
    expect(lines.find((line) => line.startsWith('warn'))).toContain('SCOPE_NARROWED')
    for (const line of lines) expect(line).not.toMatch(/[\u0000-\u001f]/)
    await session.close()
  })
})

describe('requests under way', () => {
  test('counted to the end of their answers, and waited for', async () => {
    const held: (() => void)[] = []
    const { session, api } = await world((_seen, response) => {
      response.writeHead(200).write('begin')
      held.push(() => response.end('end'))
    })
    expect(session.inFlight()).toBe(0)
    await session.idle()
    const calls = [session.raw('GET', '/a'), session.raw('GET', '/b')]
    const streamed = await session.fetch(`${api.origin}/c`)
    await expect.poll(() => held.length).toBe(3)
    expect(session.inFlight()).toBe(3)
    let isIdle = false
    const idle = session.idle().then(() => {
      isIdle = true
    })
    for (const end of held) end()
    await Promise.all(calls)
    expect([session.inFlight(), isIdle]).toEqual([1, false])
    expect(await streamed.text()).toBe('beginend')
    await idle
    expect(session.inFlight()).toBe(0)
    const left = await session.fetch(`${api.origin}/d`)
    await left.body!.cancel()
    await session.idle()
  })

  test('failed and aborted ones are over, too', async () => {
    const { session } = await world((_seen, response) => response.destroy(), { retryForMs: 0 })
    await errorOf(session.get('/x'))
    await errorOf(session.get('/x', { signal: AbortSignal.abort() }))
    expect(session.inFlight()).toBe(0)
    await session.idle()
  })
})

describe('what can be replaced', () => {
  test('sending: everything goes through it, logins included, and nothing is dialled', async () => {
    const sent: HttpRequest[] = []
    const send = async (request: HttpRequest) => {
      sent.push(request)
      const body = request.url.includes('/oauth/') ? { access_token: 'tok', token_type: 'bearer' } : { fine: true }
      const headers = { 'content-type': 'application/json' }
      return {
        status: request.url.includes('well-known') ? 404 : 200,
        headers,
        body: Buffer.from(JSON.stringify(body)),
      }
    }
    const way = clientCredentialsAuthorizer('https://login.example', { client: { id: 'a', secret: 'b' } })
    const session = Session.create('https://api.example', way, { send })
    expect(await session.get('/x')).toEqual({ fine: true })
    expect(sent.map(({ url }) => new URL(url).pathname)).toContain('/oauth/token')
    expect(sent.at(-1)).toMatchObject({ url: 'https://api.example/x', headers: { authorization: 'Bearer tok' } })
    await session.send({ method: 'GET', url: 'https://elsewhere.example/x' })
    expect(sent.at(-1)!.headers).toBeUndefined()
    expect(() => Session.create('https://api.example', way, { send, transport: {} })).toThrow(/either/)
  })

  test('a session that only reads sends nothing else, by whatever way; its login goes on', async () => {
    const { session, api, auth } = await world((_seen, response) => json(response, { fine: true }), { readOnly: true })
    expect(await session.get('/x')).toEqual({ fine: true })
    expect((await session.fetch(`${api.origin}/x`, { method: 'HEAD' })).status).toBe(200)
    const url = `${api.origin}/x`
    for (const refused of [
      session.post('/x'),
      session.put('/x', { auth: false }),
      session.delete('/x'),
      session.raw('PATCH', '/x'),
      session.fetch(url, { method: 'POST' }),
      session.sign({ method: 'POST', url }),
      session.send({ method: 'post' as 'POST', url: `${auth.origin}/x` }),
    ]) {
      expect(await errorOf(refused)).toMatchObject({ class: 'permission', code: 'READ_ONLY' })
    }
    expect(api.seen.map(({ method }) => method)).toEqual(['GET', 'HEAD'])
    expect(auth.tokenCalls).toHaveLength(1)
  })

  test('the clock is exported, and stores take it by default', async () => {
    expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(60_000)
    const store = fileGrantStore(`${await freshDirectory()}/grant.json`)
    await store.exclusive(() => store.save(grantOf(systemClock, '1')))
    expect(await store.load()).toMatchObject({ accessToken: 'access-1' })
  })
})

describe('who is logged in', () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const unsigned = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 })

  interface Plan {
    readonly claims?: Record<string, unknown>
    readonly key?: typeof privateKey
    readonly keys?: Answer
    readonly token?: string
    readonly keysUrl?: (origin: string) => string | undefined
  }

  /** A session whose login has brought an id token. */
  async function loggedIn({ claims, key = privateKey, keys, token, keysUrl }: Plan) {
    const jwk = { ...(await exportJWK(publicKey)), kid: 'one', alg: 'RS256' }
    const server = await httpServer(async (seen, response, raw) => {
      const origin = `http://${seen.headers.host}`
      if (seen.path === '/keys') return keys === undefined ? json(response, { keys: [jwk] }) : keys(seen, response, raw)
      if (seen.path.startsWith('/.well-known/')) {
        return json(response, {
          issuer: origin,
          token_endpoint: `${origin}/oauth/token`,
          jwks_uri: keysUrl === undefined ? `${origin}/keys` : keysUrl(origin),
        })
      }
      const now = Math.floor(clock.now() / 1000)
      const made = new SignJWT({
        iss: origin,
        aud: 'app',
        sub: 'ann',
        iat: now,
        exp: now + 600,
        name: 'Änn',
        ...claims,
      })
      const id_token = token ?? (await made.setProtectedHeader({ alg: 'RS256', kid: 'one' }).sign(key))
      return json(response, { access_token: 'a', token_type: 'bearer', expires_in: 86_000, id_token })
    })
    const clock = fakeClock()
    const way = clientCredentialsAuthorizer(server.origin, { client: { id: 'app', secret: 'x' } })
    const store = memoryGrantStore()
    const session = Session.create(server.origin, way, { clock, store, retryForMs: 0 })
    onTestFinished(() => session.close())
    await session.login()
    return { session, clock, store, server }
  }

  test('checked with the keys of its issuer', async () => {
    const { session, store, clock } = await loggedIn({})
    expect(await session.identity()).toMatchObject({ verified: true, claims: { sub: 'ann', name: 'Änn' } })
    expect((await store.load())?.extra).toHaveProperty('idToken')
    clock.advance(700_000)
    expect(await session.identity()).toMatchObject({ verified: false, reason: 'expired', claims: { sub: 'ann' } })
  })

  test.each<[string, Plan, string]>([
    ['another key', { key: other.privateKey }, 'signature'],
    ['another issuer', { claims: { iss: 'https://evil.example' } }, 'issuer'],
    ['another client', { claims: { aud: 'others' } }, 'audience'],
    ['no end', { claims: { exp: undefined } }, 'expired'],
    ['keys that cannot be read', { keys: (_seen, response) => response.writeHead(500).end() }, 'keys-unreachable'],
    ['keys that are none', { keys: (_seen, response) => json(response, { keys: 'x' }) }, 'keys-unreachable'],
    [
      'keys without end',
      { keys: (_s, response) => response.end(`{"keys":["${'x'.repeat(200_000)}"]}`) },
      'keys-unreachable',
    ],
    ['no keys', { keysUrl: () => undefined }, 'no-keys'],
    ['keys on another host', { keysUrl: () => 'https://evil.example/keys' }, 'no-keys'],
    ['no signature at all', { token: `${unsigned({ alg: 'none' })}.${unsigned({ sub: 'ann' })}.` }, 'signature'],
  ])('%s: shown, but said to be unchecked', async (_name, plan, reason) => {
    const { session } = await loggedIn(plan)
    const identity = await session.identity()
    expect(identity).toMatchObject({ verified: false, reason })
    expect(identity?.claims.sub).toBe('ann')
  })

  test('what is no id token is left out, or refused; without one, and without a login', async () => {
    const odd = await loggedIn({ token: 'x.y.z' })
    expect(await errorOf(odd.session.identity())).toMatchObject({ code: 'TOKEN_MALFORMED' })
    const long = await loggedIn({ token: 'not a token' })
    expect(await long.session.identity()).toBeUndefined()
    const way: Authorizer = { name: 'x', authorize: async ({ clock }) => grantOf(clock, 'x') }
    const session = Session.create('http://127.0.0.1:1', way)
    expect(await errorOf(session.identity())).toMatchObject({ code: 'LOGIN_NEEDED' })
    await session.login()
    expect(await session.identity()).toBeUndefined()
  })

  test('a user pool: issuer and keys follow from its id', async () => {
    const jwk = { ...(await exportJWK(publicKey)), kid: 'one' }
    const server = await httpServer((_seen, response) => json(response, { keys: [jwk] }))
    const pool = 'eu-test-1_TestPool1'
    const idToken = await new SignJWT({ sub: 'ann' })
      .setProtectedHeader({ alg: 'RS256', kid: 'one' })
      .setIssuer(`https://cognito-idp.eu-test-1.amazonaws.com/${pool}`)
      .setAudience('app')
      .setExpirationTime('1h')
      .sign(privateKey)
    const way = cognitoSrpAuthorizer({
      poolId: pool,
      clientId: 'app',
      endpoint: server.origin,
      userName: 'ann',
      password: async () => 'x',
    })
    const store = memoryGrantStore({ v: 1, accessToken: 'a', extra: { idToken } })
    const session = Session.create(server.origin, way, { store })
    expect(await session.identity()).toMatchObject({ verified: true, claims: { sub: 'ann' } })
    expect(server.seen[0]!.path).toBe(`/${pool}/.well-known/jwks.json`)
    await session.close()
  })
})
