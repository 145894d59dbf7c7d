import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import type { Grant } from '../../src/session/authorizer.ts'
import { type ProtonSrpOptions, protonSrpAuthorizer } from '../../src/session/authorizers/proton-srp.ts'
import { memoryGrantStore } from '../../src/session/grant-store.ts'
import { Session } from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { contextOf, expectNoSecret } from '../support/oauth.ts'
import {
  N,
  type ProtonAnswer,
  type ProtonServer,
  type ProtonServerOptions,
  protonServer,
} from '../support/proton-server.ts'
import { dialer, errorOf } from '../support/servers.ts'
import { pgpKey, toBytes } from '../support/srp.ts'

const CANARY = 'canary-9d1e7'
const askNobody = { openUrl: async () => {}, askSecret: () => Promise.reject(new Error('nobody asks')) }

const way = (server: ProtonServer, options: Partial<ProtonSrpOptions> = {}) =>
  protonSrpAuthorizer(server.origin, {
    userName: 'ann',
    password: async () => 'the right one',
    modulusKey: server.modulusKey,
    ...options,
  })

/** A server, a login with it, and what came of that. */
async function login(server: ProtonServerOptions = {}, options: Partial<ProtonSrpOptions> = {}) {
  const made = await protonServer(server)
  const context = contextOf(dialer(), fakeClock())
  return { server: made, context, way: way(made, options), grant: way(made, options).authorize(context) }
}

/** A server with somebody logged in. */
async function seated(options: ProtonServerOptions = {}) {
  const server = await protonServer(options)
  return { server, context: contextOf(dialer(), fakeClock()), way: way(server), grant: server.seat() }
}

const alter =
  (step: string, change: (body: ProtonAnswer['body'], answer: ProtonAnswer) => Partial<ProtonAnswer>) =>
  (at: string, answer: ProtonAnswer) =>
    at === step ? { ...answer, ...change(structuredClone(answer.body), answer) } : undefined

describe('login', () => {
  test('tokens, session id and scope; no lifetime is invented', async () => {
    const { server, grant } = await login()
    expect(await grant).toEqual({
      v: 1,
      accessToken: expect.stringMatching(/^access-/),
      refreshToken: expect.stringMatching(/^refresh-/),
      scope: 'full self loggedin',
      extra: { uid: expect.stringMatching(/^uid-/), passwordMode: '1', userId: 'user-1' },
    })
    expect(server.steps()).toEqual(['info', 'login'])
    for (const { headers, body } of server.seen) {
      expect(headers).toMatchObject({ 'x-pm-appversion': 'Other', 'content-type': 'application/json' })
      expect(headers['user-agent']).toMatch(/^sealsync\/\d+\.\d+\.\d+ \(\w+\)$/)
      expect(headers.authorization ?? headers['x-pm-uid'] ?? headers['x-pm-apiversion']).toBeUndefined()
      expect(body).not.toContain('the right one')
    }
  })

  test('options: prefix, versions, client, intent', async () => {
    const { server, grant } = await login(
      { authPath: '/core/v4/auth' },
      {
        authPath: '/core/v4/auth',
        appVersion: 'linux-drive@1.2.3',
        userAgent: 'Client/1.2.3 (Linux)',
        apiVersion: '3',
        accept: 'application/vnd.protonmail.v1+json',
        clientSecret: 'of the client',
        intent: 'Proton',
        humanVerification: { type: 'captcha', token: 'solved' },
      },
    )
    await grant
    expect(server.seen.map(({ path }) => path)).toEqual(['/core/v4/auth/info', '/core/v4/auth'])
    expect(server.seen[0]?.headers).toMatchObject({
      'x-pm-appversion': 'linux-drive@1.2.3',
      'user-agent': 'Client/1.2.3 (Linux)',
      'x-pm-apiversion': '3',
      accept: 'application/vnd.protonmail.v1+json',
      'x-pm-human-verification-token-type': 'captcha',
      'x-pm-human-verification-token': 'solved',
    })
    const [info, auth] = server.seen.map(({ body }) => JSON.parse(body))
    expect(info).toEqual({ Username: 'ann', ClientSecret: 'of the client', Intent: 'Proton' })
    expect(Object.keys(auth).sort()).toEqual([
      'ClientEphemeral',
      'ClientProof',
      'ClientSecret',
      'SRPSession',
      'Username',
    ])
  })

  test.each(['pässwörd-密码-🔑', ' blank ', '0123456789'.repeat(8)])('password %s', async (password) => {
    const { grant } = await login({ password }, { password: async () => password })
    expect((await grant).extra?.uid).toMatch(/^uid-/)
  })

  test('a wrong password is sent once, and never shown', async () => {
    let asked = 0
    const { server, grant } = await login({}, { password: async () => `${CANARY}${++asked}` })
    const error = await errorOf(grant)
    expect(error).toMatchObject({ class: 'auth', code: 'WRONG_CREDENTIALS', retryable: false, status: 422 })
    expectNoSecret(error, CANARY, 'Text for people')
    expect(asked).toBe(1)
    expect(server.steps()).toEqual(['info', 'login'])
  })

  test.each(['', 'a\0b', '\ud800'])('a password that cannot be one is not sent: %j', async (password) => {
    const { server, grant } = await login({}, { password: async () => password })
    expect(await errorOf(grant)).toMatchObject({ class: 'usage', code: 'PASSWORD_INVALID' })
    expect(server.steps()).not.toContain('login')
  })

  test('an abort ends it with its reason', async () => {
    const server = await protonServer()
    const stop = new AbortController()
    const password = async () => {
      stop.abort(new Error('enough'))
      return 'the right one'
    }
    const context = contextOf(dialer(), systemClock, undefined, stop.signal)
    expect((await errorOf(way(server, { password }).authorize(context))).message).toBe('enough')
    expect(server.seen).toHaveLength(0)
  })
})

describe('second factor', () => {
  test.each([undefined, 1, 3])('2FA.Enabled %s: one code, and the scopes it brings', async (factors) => {
    const { server, grant } = await login(
      { code: '123456', ...(factors && { factors }) },
      { code: async () => ' 123456\n' },
    )
    expect(await grant).toMatchObject({ scope: 'full self loggedin' })
    expect(server.steps()).toEqual(['info', 'login', '2fa'])
    expect(server.seen[2]?.headers).toMatchObject({
      'x-pm-uid': (await grant).extra?.uid,
      authorization: `Bearer ${(await grant).accessToken}`,
    })
  })

  test('asks the person when there is no callback', async () => {
    const server = await protonServer({ code: '123456' })
    const ui = { ...askNobody, askSecret: async () => '123456' }
    expect(await way(server).authorize(contextOf(dialer(), systemClock, ui))).toMatchObject({
      scope: expect.anything(),
    })
  })

  test.each<[string, ProtonServerOptions, Partial<ProtonSrpOptions>, string]>([
    ['nobody to ask', { code: '1' }, {}, 'CODE_REQUIRED'],
    ['a wrong code', { code: '1' }, { code: async () => CANARY }, 'CODE_WRONG'],
    ['a security key only', { code: '1', factors: 2 }, { code: async () => CANARY }, 'SECOND_FACTOR_UNSUPPORTED'],
  ])('%s: an error, and no login stays at the server', async (_name, server, options, code) => {
    const made = await login(server, options)
    const error = await errorOf(made.grant)
    expect(error).toMatchObject({ class: 'auth', code })
    expectNoSecret(error, CANARY)
    expect(made.server.live()).toBe(0)
    expect(made.server.steps().filter((step) => step === '2fa')).toHaveLength(code === 'CODE_WRONG' ? 1 : 0)
  })
})

describe('a server that does not prove itself', () => {
  const proof = (change: (proof: Buffer) => unknown) =>
    alter('login', (body) => ({ body: { ...body, ServerProof: change(Buffer.from(body.ServerProof, 'base64')) } }))
  const info = (change: object) => alter('info', (body) => ({ body: { ...body, ...change } }))
  const le = (number: bigint) => toBytes(number, 256).reverse().toString('base64')
  const flipped = (at: number) =>
    proof((bytes) => {
      bytes[at]! ^= 1
      return bytes.toString('base64')
    })
  const composite = (N * 3n) >> 1n

  test.each<[string, ProtonServerOptions, string]>([
    ['modulus signed by another key', { modulus: () => pgpKey().message(le(N)) }, 'info'],
    ['modulus with another signature', { modulus: (key) => key.message(le(N), { signed: le(N + 8n) }) }, 'info'],
    ['modulus without a signature', { modulus: () => le(N) }, 'info'],
    ['modulus of 255 bytes', { modulus: (key) => key.message(toBytes(N >> 8n, 255).toString('base64')) }, 'info'],
    ['modulus of 2047 bits', { modulus: (key) => key.message(le(N >> 1n)) }, 'info'],
    ['modulus that is no prime', { modulus: (key) => key.message(le(composite)) }, 'info'],
    ['B = 0', { alter: info({ ServerEphemeral: le(0n) }) }, 'info'],
    ['B = 1', { alter: info({ ServerEphemeral: le(1n) }) }, 'info'],
    ['B = N − 1', { alter: info({ ServerEphemeral: le(N - 1n) }) }, 'info'],
    ['B = N', { alter: info({ ServerEphemeral: le(N) }) }, 'info'],
    ['B of 255 bytes', { alter: info({ ServerEphemeral: Buffer.alloc(255, 7).toString('base64') }) }, 'info'],
    ['B of 257 bytes', { alter: info({ ServerEphemeral: Buffer.alloc(257, 7).toString('base64') }) }, 'info'],
    ['no proof', { alter: proof(() => undefined) }, 'login'],
    ['an empty proof', { alter: proof(() => '') }, 'login'],
    ['first bit of the proof wrong', { alter: flipped(0) }, 'login'],
    ['last bit of the proof wrong', { alter: flipped(255) }, 'login'],
    ['proof cut', { alter: proof((bytes) => bytes.subarray(0, 255).toString('base64')) }, 'login'],
    ['proof too long', { alter: proof((bytes) => `${bytes.toString('base64').slice(0, -2)}AA`) }, 'login'],
    ['proof that is no text', { alter: proof(() => ({})) }, 'login'],
    [
      'proof wrong, second factor wanted',
      {
        code: '1',
        alter: alter('login', (body) => ({ body: { ...body, ServerProof: 'AAAA', '2FA': { Enabled: 1 } } })),
      },
      'login',
    ],
  ])('%s', async (_name, options, last) => {
    const { server, grant } = await login(options, { code: async () => '1' })
    const error = await errorOf(grant)
    expect(error).toMatchObject({ class: 'auth', code: 'SERVER_NOT_TRUSTED', retryable: false })
    expectNoSecret(error, 'access-', 'refresh-', 'the right one')
    // Nothing follows, and not a single request carries what came with the answer.
    expect(server.steps().at(-1)).toBe(last)
    expect(server.seen.every(({ headers }) => headers.authorization === undefined)).toBe(true)
  })

  test('nothing is stored', async () => {
    const server = await protonServer({ alter: flipped(3) })
    const store = memoryGrantStore()
    const session = Session.create(server.origin, way(server), { store })
    expect(await errorOf(session.login())).toMatchObject({ code: 'SERVER_NOT_TRUSTED' })
    expect(await store.load()).toBeUndefined()
    await session.logout()
    expect(server.steps()).toEqual(['info', 'login'])
    await session.close()
  })
})

describe('answers', () => {
  const at = (step: string, answer: ProtonAnswer) => ({
    alter: (here: string) => (here === step ? answer : undefined),
  })
  const refused = (Code: unknown, status = 422) => ({
    status,
    body: { Code, Error: `${CANARY} text`, Details: { x: CANARY } },
  })
  const html = { body: `<html>${CANARY}`, headers: { 'content-type': 'text/html' } }
  const field = (step: string, name: string, value: unknown) => ({
    alter: alter(step, (body) => ({ body: { ...body, [name]: value } })),
  })

  test.each<[string, ProtonServerOptions, object]>([
    ['8002', at('login', refused(8002)), { class: 'auth', code: 'WRONG_CREDENTIALS' }],
    ['8002 with status 200', at('info', refused(8002, 200)), { class: 'auth', code: 'WRONG_CREDENTIALS' }],
    ['10002', at('info', refused(10_002)), { class: 'auth', code: 'ACCOUNT_DELETED' }],
    ['10003', at('info', refused(10_003)), { class: 'auth', code: 'ACCOUNT_DISABLED' }],
    ['10004', at('info', refused(10_004)), { class: 'permission', code: 'REQUEST_REFUSED' }],
    ['2001', at('info', refused(2001)), { class: 'permission', code: 'REQUEST_REFUSED' }],
    ['6003', at('info', refused(6003)), { class: 'permission', code: 'REQUEST_REFUSED' }],
    ['5001', at('info', refused(5001, 400)), { class: 'usage', code: 'CLIENT_REJECTED' }],
    ['5003', at('info', refused(5003, 400)), { class: 'usage', code: 'CLIENT_REJECTED' }],
    ['403', at('info', refused(403, 403)), { class: 'auth', code: 'SCOPE_MISSING' }],
    ['an unknown code', at('info', refused(77_777)), { class: 'permission', code: 'REQUEST_REFUSED', status: 422 }],
    ['an unknown code, 200', at('info', refused(77_777, 200)), { class: 'permission', code: 'REQUEST_REFUSED' }],
    ['a code that is text', at('info', refused('1000', 200)), { class: 'permission', code: 'REQUEST_REFUSED' }],
    ['no code', at('info', { body: { UID: CANARY } }), { class: 'permission', code: 'REQUEST_REFUSED' }],
    [
      '429 with another code',
      at('info', { ...refused(2028, 429), headers: { 'retry-after': '7' } }),
      {
        class: 'rate_limit',
        code: 'RATE_LIMITED',
        retryable: true,
        retryAfterMs: 7000,
      },
    ],
    ['429 as code only', at('info', refused(429, 200)), { class: 'rate_limit', code: 'RATE_LIMITED' }],
    ['429 without JSON', at('info', { ...html, status: 429 }), { class: 'rate_limit', code: 'RATE_LIMITED' }],
    [
      '503',
      at('info', { ...html, status: 503, headers: { 'retry-after': '9' } }),
      {
        class: 'server',
        code: 'UNAVAILABLE',
        retryable: true,
        retryAfterMs: 9000,
      },
    ],
    ['500', at('info', { ...html, status: 500 }), { class: 'server', code: 'SERVER', retryable: true }],
    ['success with status 500', at('info', refused(1000, 500)), { class: 'server', code: 'SERVER' }],
    ['HTML', at('info', html), { class: 'server', code: 'ANSWER_NOT_JSON' }],
    ['HTML after the password', at('login', html), { class: 'server', code: 'ANSWER_NOT_JSON' }],
    [
      'a redirect',
      at('info', { status: 307, body: '', headers: { location: '/elsewhere' } }),
      { code: 'ANSWER_NOT_JSON' },
    ],
    ['a list', at('info', { body: [CANARY] }), { class: 'server', code: 'ANSWER_NOT_JSON' }],
    ['version 2', field('info', 'Version', 2), { class: 'auth', code: 'PASSWORD_OUTDATED' }],
    ['version 0', field('info', 'Version', 0), { class: 'auth', code: 'PASSWORD_OUTDATED' }],
    ['version 5', field('info', 'Version', 5), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no version', field('info', 'Version', undefined), { class: 'server', code: 'ANSWER_INVALID' }],
    ['a short salt', field('info', 'Salt', 'AAAAAAAAAAAA'), { class: 'server', code: 'ANSWER_INVALID' }],
    ['a salt that is not base64', field('info', 'Salt', `${CANARY}!`), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no SRPSession', field('info', 'SRPSession', ''), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no modulus', field('info', 'Modulus', 5), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no UID', field('login', 'UID', undefined), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no access token', field('login', 'AccessToken', undefined), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no refresh token', field('login', 'RefreshToken', ''), { class: 'server', code: 'ANSWER_INVALID' }],
    ['a newline in a token', field('login', 'AccessToken', `${CANARY}\r\nx: y`), { code: 'TOKEN_MALFORMED' }],
    ['a newline in the other', field('login', 'RefreshToken', `${CANARY}\n`), { code: 'TOKEN_MALFORMED' }],
    ['a newline in the id', field('login', 'UID', `${CANARY}\n`), { code: 'TOKEN_MALFORMED' }],
  ])('%s', async (_name, server, expected) => {
    const made = await login(server)
    const error = await errorOf(made.grant)
    expect(error).toMatchObject({ name: 'SyncError', ...expected })
    expectNoSecret(error, CANARY, 'the right one', 'access-')
    expect(made.server.steps().filter((step) => step === 'login').length).toBeLessThan(2)
  })

  test('human verification: the page is named, and a refused token is dropped', async () => {
    const token = 'to/ken+='
    const wanted = { status: 422, body: { Code: 9001, Details: { HumanVerificationToken: token } } }
    const first = await login(at('login', wanted))
    const error = await errorOf(first.grant)
    expect(error).toMatchObject({ class: 'auth', code: 'HUMAN_VERIFICATION', retryable: false })
    expect(error.hint).toContain(`${first.server.origin}/core/v4/captcha?Token=to%2Fken%2B%3D,`)
    expect(first.server.steps()).toEqual(['info', 'login'])

    const odd = await login(at('info', { body: { Code: 9001, Details: { HumanVerificationToken: 'a\u001b[2J' } } }))
    expect((await errorOf(odd.grant)).hint).not.toContain('captcha')

    const server = await protonServer(at('info', { status: 422, body: { Code: 12_087 } }))
    const kept = way(server, { humanVerification: { type: 'captcha', token: 'stale' } })
    for (let i = 0; i < 2; i++) {
      const context = contextOf(dialer(), systemClock)
      expect(await errorOf(kept.authorize(context))).toMatchObject({ code: 'HUMAN_VERIFICATION' })
    }
    expect(server.seen.map(({ headers }) => headers['x-pm-human-verification-token'])).toEqual(['stale', undefined])
  })
})

describe('renewal and logout', () => {
  test('a renewal sends the id and the old token along, and keeps what the answer leaves out', async () => {
    const { server, context, way, grant: first } = await seated()
    server.expire()
    const next = await way.renew!(first, context)
    expect(next).toMatchObject({ extra: first.extra!, scope: first.scope })
    expect([next.accessToken, next.refreshToken]).not.toContain(first.accessToken)
    expect(next.refreshToken).not.toBe(first.refreshToken)
    const seen = server.seen.at(-1)!
    expect(seen.headers).toMatchObject({ 'x-pm-uid': first.extra?.uid, authorization: `Bearer ${first.accessToken}` })
    expect(JSON.parse(seen.body)).toEqual({
      ResponseType: 'token',
      GrantType: 'refresh_token',
      RefreshToken: first.refreshToken,
      RedirectURI: 'http://protonmail.ch',
    })
    expect(next).not.toHaveProperty('expiresAt')
  })

  test.each<[string, ProtonAnswer, object]>([
    ['10013', { status: 422, body: { Code: 10_013 } }, { class: 'auth', code: 'GRANT_REFUSED' }],
    ['401', { status: 401, body: '' }, { class: 'auth', code: 'GRANT_REFUSED' }],
    ['503', { status: 503, body: '' }, { class: 'server', code: 'UNAVAILABLE' }],
    ['HTML', { body: '<p>' }, { class: 'server', code: 'ANSWER_NOT_JSON' }],
    ['no token', { body: { Code: 1000 } }, { class: 'server', code: 'ANSWER_INVALID' }],
    ['a bad token', { body: { Code: 1000, AccessToken: 'a b' } }, { class: 'server', code: 'TOKEN_MALFORMED' }],
  ])('refused: %s', async (_name, answer, expected) => {
    const server = await protonServer({ alter: (step) => (step === 'refresh' ? answer : undefined) })
    const grant: Grant = { v: 1, accessToken: CANARY, refreshToken: CANARY, extra: { uid: 'uid-1' } }
    const error = await errorOf(way(server).renew!(grant, contextOf(dialer(), fakeClock())))
    expect(error).toMatchObject(expected)
    expectNoSecret(error, CANARY)
    expect(server.steps()).toEqual(['refresh'])
  })

  test('a grant without its id or refresh token is not sent', async () => {
    const { server, context, way, grant } = await seated()
    const { refreshToken: _, ...rest } = grant
    const { extra: __, ...bare } = grant
    for (const one of [rest, bare]) {
      expect(await errorOf(way.renew!(one, context))).toMatchObject({ class: 'auth', code: 'LOGIN_EXPIRED' })
    }
    expect(server.steps()).toEqual([])
  })

  test('logout ends the session, also when the access token has expired', async () => {
    for (const expired of [false, true]) {
      const { server, context, way, grant } = await seated()
      if (expired) server.expire()
      await way.revoke!(grant, context)
      expect(server.live()).toBe(0)
      expect(server.steps()).toEqual(expired ? ['logout', 'refresh', 'logout'] : ['logout'])
    }
  })

  test('logout of a login that is gone is done; an outage is an error', async () => {
    const gone = await seated()
    gone.server.forget()
    await gone.way.revoke!(gone.grant, gone.context)
    const down = await seated({ alter: (step) => (step === 'logout' ? { status: 503, body: '' } : undefined) })
    expect(await errorOf(down.way.revoke!(down.grant, down.context))).toMatchObject({ code: 'UNAVAILABLE' })
  })
})

test('through a session: login, request, 401, renewal, replay, logout', async () => {
  const server = await protonServer({ code: '123456' })
  const store = memoryGrantStore()
  const settings = {
    store,
    clock: fakeClock(),
    random: steadyRandom(),
    ui: { ...askNobody, askSecret: async () => '123456' },
  }
  const session = Session.create(server.origin, way(server, { appVersion: 'Test_1.0' }), settings)
  await session.login()
  expect(await session.get('/mail/v4/messages')).toEqual({ Code: 1000, Path: '/mail/v4/messages' })
  const { uid } = (await store.load())!.extra!
  expect(server.seen.at(-1)?.headers).toMatchObject({ 'x-pm-uid': uid, 'x-pm-appversion': 'Test_1.0' })

  server.expire()
  expect(await Promise.all([1, 2, 3].map((n) => session.get(`/n/${n}`)))).toHaveLength(3)
  expect(server.steps().filter((step) => step === 'refresh')).toHaveLength(1)
  expect((await store.load())?.extra?.uid).toBe(uid)
  expect(await session.check({ online: true })).toMatchObject({ valid: true, scope: 'full self loggedin' })

  const twin = await Session.load(await session.dump(), server.origin, way(server))
  expect(await twin.get('/again')).toMatchObject({ Path: '/again' })
  await twin.close()

  await session.logout()
  expect(server.live()).toBe(0)
  expect(await errorOf(session.get('/x'))).toMatchObject({ code: 'LOGIN_NEEDED' })
  await session.close()
})

test('through a session: a refresh token that is refused ends the login', async () => {
  const server = await protonServer()
  const store = memoryGrantStore(server.seat())
  const session = Session.create(server.origin, way(server), { store, autoLogin: false })
  server.forget()
  expect(await errorOf(session.get('/x'))).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
  expect(await store.load()).toBeUndefined()
  await session.close()
})
