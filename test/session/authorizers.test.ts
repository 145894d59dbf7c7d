import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { addUser, startServer } from '../../src/server/index.ts'
import type { Grant } from '../../src/session/authorizer.ts'
import {
  type AuthorizationCodeOptions,
  authorizationCodeAuthorizer,
} from '../../src/session/authorizers/authorization-code.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { defaultServer, refreshGrant, SCRIPTING_CLIENT } from '../../src/session/oauth.ts'
import { fakeClock, settle } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { browse, contextOf, expectNoSecret, grantOf, tokenServer } from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { dialer, errorOf, httpServer, json, type Rejection } from '../support/servers.ts'

const CANARY = 'canary-51c0d'
const CHROMIUM = '/usr/bin/chromium'
const BASIC = `Basic ${Buffer.from('dracoon_legacy_scripting:').toString('base64')}`

/** The embedded server with one account. */
async function embedded() {
  const dataDir = await freshDirectory()
  await addUser(dataDir, { name: 'ann', password: `${CANARY}-pw` })
  const server = await startServer({ dataDir })
  onTestFinished(() => server.close())
  return server.url
}

const works = async (url: string, grant: Grant) => {
  const headers = { authorization: `Bearer ${grant.accessToken}` }
  return (await dialer()({ method: 'GET', url: `${url}/api/v4/user/account`, headers })).status === 200
}

describe('password', () => {
  const authorizer = (origin: string, password: string) =>
    passwordAuthorizer(origin, { userName: 'ann', password: async () => password })

  test('logs in at the embedded server, renews, revokes', async () => {
    const url = await embedded()
    const context = contextOf(dialer(), systemClock)
    const way = authorizer(url, `${CANARY}-pw`)
    const grant = await way.authorize(context)
    expect(await works(url, grant)).toBe(true)
    const next = await way.renew!(grant, context)
    expect(next.accessToken).not.toBe(grant.accessToken)
    expect(await works(url, next)).toBe(true)
    await way.revoke!(next, context)
    expect(await works(url, next)).toBe(false)
    expect(await errorOf(way.renew!(next, context))).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    await way.revoke!(next, context)
  })

  test('a wrong password is refused, sent once, and never shown', async () => {
    let asked = 0
    const server = await tokenServer((_form, response) =>
      json(response, { error: 'invalid_grant', error_description: `no ${CANARY}` }, 400),
    )
    const way = passwordAuthorizer(server.origin, { userName: 'ann', password: async () => CANARY + ++asked })
    const error = await errorOf(way.authorize(contextOf(dialer(), systemClock)))
    expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED', retryable: false })
    expectNoSecret(error, CANARY)
    expect(server.tokenCalls).toHaveLength(1)
    expect(asked).toBe(1)
    const real = await errorOf(authorizer(await embedded(), CANARY).authorize(contextOf(dialer(), systemClock)))
    expect(real).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
  })

  test('the scripting client has an empty secret, sent raw', async () => {
    const server = await tokenServer()
    await authorizer(server.origin, 'pä ss&=+%').authorize(contextOf(dialer(), systemClock))
    expect(server.seen[0]).toMatchObject({ method: 'POST', path: '/oauth/token' })
    expect(server.seen[0]?.headers.authorization).toBe(BASIC)
    expect(server.seen[0]?.headers.authorization).toBe('Basic ZHJhY29vbl9sZWdhY3lfc2NyaXB0aW5nOg==')
    expect(Object.fromEntries(server.tokenCalls[0]!)).toMatchObject({
      grant_type: 'password',
      username: 'ann',
      password: 'pä ss&=+%',
    })
  })

  test('other clients: secret raw in the header, public ones in the form', async () => {
    const server = await tokenServer()
    for (const client of [{ id: 'a_b', secret: 's e:c%r_t' }, { id: 'public' }]) {
      const way = passwordAuthorizer(server.origin, { userName: 'u', password: async () => 'p', client })
      await way.authorize(contextOf(dialer(), systemClock))
    }
    expect(Buffer.from(server.seen[0]!.headers.authorization!.slice(6), 'base64').toString()).toBe('a_b:s e:c%r_t')
    expect(server.seen[1]?.headers.authorization).toBeUndefined()
    expect(server.tokenCalls[1]?.get('client_id')).toBe('public')
  })
})

describe('token answers', () => {
  const login = async (body: unknown, status = 200, headers: Record<string, string> = {}) => {
    const clock = fakeClock()
    const server = await tokenServer((_form, response) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers })
      response.end(typeof body === 'string' ? body : JSON.stringify(body))
    })
    const way = passwordAuthorizer(server.origin, { userName: 'u', password: async () => `${CANARY}-pw` })
    const grant = await way.authorize(contextOf(dialer(), clock))
    expect(grant.expiresAt).toBe(clock.now() + grant.lifetimeMs!)
    return grant
  }
  const good = { access_token: `${CANARY}-a`, refresh_token: `${CANARY}-r`, token_type: 'bearer', expires_in: 3600 }

  test.each(['bearer', 'Bearer', 'BEARER'])('token_type %s', async (token_type) => {
    expect(await login({ ...good, token_type })).toMatchObject({
      v: 1,
      accessToken: `${CANARY}-a`,
      lifetimeMs: 3_600_000,
    })
  })

  test.each([
    ['3600', 3_600_000],
    ['"3600"', 3_600_000],
    ['59.5', 59_500],
    ['0', 30_000],
    ['1', 30_000],
    ['86400', 86_400_000],
    ['99999999999', 86_400_000],
    ['1e300', 86_400_000],
    ['1e999', 300_000],
    ['-1', 300_000],
    ['"-5"', 300_000],
    ['"soon"', 300_000],
    ['""', 300_000],
    ['null', 300_000],
    ['true', 300_000],
    ['[1]', 300_000],
    ['{}', 300_000],
  ])('expires_in %s lives %i ms', async (text, lifetimeMs) => {
    const { expires_in: _, ...rest } = good
    const grant = await login(JSON.stringify(rest).replace('}', `,"expires_in":${text}}`))
    expect(grant).toMatchObject({ lifetimeMs, accessToken: `${CANARY}-a` })
  })

  test('expires_in missing lives five minutes; scope is kept', async () => {
    const { expires_in: _, ...rest } = good
    expect(await login({ ...rest, scope: 'all' })).toMatchObject({ lifetimeMs: 300_000, scope: 'all' })
  })

  const { token_type: _type, ...untyped } = good
  const { access_token: _token, ...empty } = good
  const refused: [string, unknown, number, Record<string, string>, object][] = [
    ['HTML', '<html>canary-51c0d', 200, { 'content-type': 'text/html' }, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['garbage called JSON', '{"access_token":"canary-51c0d', 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['a list', [good], 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['nothing', '', 200, {}, { class: 'server' }],
    ['no token_type', untyped, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['token_type of another kind', { ...good, token_type: 'mac' }, 200, {}, { class: 'server' }],
    ['token_type dpop', { ...good, token_type: 'dpop' }, 200, {}, { class: 'server' }],
    ['token_type that is no text', { ...good, token_type: 7 }, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['no access_token', empty, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['an empty one', { ...good, access_token: '' }, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['a newline in it', { ...good, access_token: `${CANARY}\r\nx: y` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a space in it', { ...good, access_token: `${CANARY} x` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a letter beyond ASCII in it', { ...good, access_token: `${CANARY}ü` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a newline in the other', { ...good, refresh_token: `${CANARY}\n` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a refresh token that is no text', { ...good, refresh_token: {} }, 200, {}, { class: 'server' }],
    ['302', '', 302, { location: '/oauth/elsewhere' }, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['307', '', 307, { location: '/oauth/elsewhere' }, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['201', good, 201, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['204', '', 204, {}, { class: 'server' }],
    ['205', '', 205, {}, { class: 'server' }],
    ['500', '<h1>no', 500, { 'content-type': 'text/html' }, { class: 'server', code: 'SERVER', retryable: true }],
    ['503 with JSON', { error: 'server_error' }, 503, {}, { class: 'server', code: 'SERVER', retryable: true }],
    ['429', '', 429, {}, { class: 'rate_limit', code: 'RATE_LIMITED', retryable: true }],
    ['a status of its own', '', 901, {}, { class: 'server' }],
    ['401', '', 401, { 'www-authenticate': 'Basic realm="x"' }, { class: 'auth', code: 'OAUTH_REFUSED' }],
    ['invalid_client', { error: 'invalid_client' }, 400, {}, { class: 'auth', code: 'OAUTH_REFUSED' }],
    ['an error with escapes', { error: '\u001b[2Jx' }, 400, {}, { class: 'auth', code: 'OAUTH_REFUSED' }],
  ]
  test.each(refused)('%s is refused', async (_what, body, status, headers, expected) => {
    const error = await errorOf(login(body, status, headers))
    expect(error).toMatchObject({ ...expected, name: 'SyncError' })
    expectNoSecret(error, CANARY)
    expect(error.message).not.toMatch(/[\u0000-\u001f]/)
  })

  test('a redirect is not followed', async () => {
    const server = await tokenServer((_f, response) => response.writeHead(307, { location: '/oauth/revoke' }).end())
    const context = contextOf(dialer(), systemClock)
    const grant = grantOf(systemClock, CANARY)
    expectNoSecret(await errorOf(refreshGrant(defaultServer(server.origin), SCRIPTING_CLIENT, grant, context)), CANARY)
    expect(server.revoked).toEqual([])
    expect(server.seen).toHaveLength(1)
  })
})

/** Starts a login and hands out its URL once the browser would open. */
async function start(origin: string, options: AuthorizationCodeOptions = {}, more: { signal?: AbortSignal } = {}) {
  const clock = fakeClock('manual')
  let show: (url: URL) => void = () => {}
  const shown = new Promise<URL>((resolve) => {
    show = resolve
  })
  const ui = {
    openUrl: async (url: string) => show(new URL(url)),
    askSecret: () => Promise.reject(new Error('nobody asks')),
  }
  let state = 'running'
  const grant = authorizationCodeAuthorizer(origin, { client: { id: 'sealsync' }, ...options })
    .authorize(contextOf(dialer(), clock, ui, more.signal))
    .finally(() => {
      state = 'done'
    })
  grant.catch(() => {})
  const url = await Promise.race([shown, grant.then(() => Promise.reject(new Error('no browser')))])
  const redirect = new URL(url.searchParams.get('redirect_uri')!)
  const back = (query: Record<string, string> | [string, string][], path = redirect.pathname) => {
    const target = new URL(path, redirect)
    target.search = new URLSearchParams(query).toString()
    return target.href
  }
  return { clock, grant, url, redirect, back, stateOf: () => state, secret: url.searchParams.get('state')! }
}

describe('authorization code', () => {
  const pageMetadata = (origin: string) => ({
    issuer: origin,
    authorization_endpoint: `${origin}/oauth/authorize`,
    token_endpoint: `${origin}/oauth/token`,
    revocation_endpoint: `${origin}/oauth/revoke`,
    authorization_response_iss_parameter_supported: true,
  })

  test('at a certified provider: login, renewal, rotation, revocation', async () => {
    const provider = await startProvider()
    const way = authorizationCodeAuthorizer(provider.origin, { client: { id: 'sealsync' } })
    let opened = new URL('http://x')
    const ui = {
      openUrl: async (url: string) => {
        opened = new URL(url)
        void browse(url, { login: 'ann', password: 'any' }, (at) => at.includes('/callback')).then((at) => fetch(at))
      },
      askSecret: () => Promise.reject(new Error('nobody asks')),
    }
    const context = contextOf(dialer(), systemClock, ui)
    const grant = await way.authorize(context)
    expect(grant).toMatchObject({ lifetimeMs: 3_600_000, refreshToken: expect.any(String) })
    expect(Object.fromEntries(opened.searchParams)).toMatchObject({
      response_type: 'code',
      client_id: 'sealsync',
      code_challenge_method: 'S256',
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      state: expect.stringMatching(/^[\w-]{43}$/),
      redirect_uri: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/callback$/),
    })
    const next = await way.renew!(grant, context)
    expect(next.refreshToken).not.toBe(grant.refreshToken)
    const last = await way.renew!(next, context)
    await way.revoke!(last, context)
    expect(await errorOf(way.renew!(last, context))).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    expect(provider.granted).toEqual(['authorization_code', 'refresh_token', 'refresh_token'])
  })

  test('at the embedded server, which offers the public client', async () => {
    const url = await embedded()
    const fill = { username: 'ann', password: `${CANARY}-pw` }
    const ui = {
      openUrl: async (page: string) => {
        expect(new URL(page).searchParams.get('client_id')).toBe('sealsync')
        void browse(page, fill, (at) => at.includes('/callback')).then((at) => fetch(at))
      },
      askSecret: () => Promise.reject(new Error('nobody asks')),
    }
    const way = authorizationCodeAuthorizer(url)
    const context = contextOf(dialer(), systemClock, ui)
    const grant = await way.authorize(context)
    expect(await works(url, grant)).toBe(true)
    const next = await way.renew!(grant, context)
    await way.revoke!(next, context)
    expect(await works(url, next)).toBe(false)
  })

  test.skipIf(!existsSync(CHROMIUM))('in a real browser (needs chromium)', async () => {
    const { chromium } = await import('playwright-core')
    const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync']
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [...flags, '--disable-background-networking', '--disable-component-update'],
    })
    onTestFinished(() => browser.close())
    const url = await embedded()
    const page = await browser.newPage()
    const driven: Promise<void>[] = []
    const openUrl = async (start: string) => {
      const drive = async () => {
        await page.goto(start)
        await page.fill('input[name=username]', 'ann')
        await page.fill('input[name=password]', `${CANARY}-pw`)
        await Promise.all([page.waitForURL(/127\.0\.0\.1:\d+\/callback/), page.click('button, input[type=submit]')])
      }
      driven.push(drive())
    }
    const ui = { openUrl, askSecret: () => Promise.reject(new Error('nobody asks')) }
    const grant = await authorizationCodeAuthorizer(url).authorize(contextOf(dialer(), systemClock, ui))
    await Promise.all(driven)
    expect(await works(url, grant)).toBe(true)
    const text = await page.textContent('body')
    expect(text).toContain('Logged in')
    const { accessToken, refreshToken } = grant
    for (const secret of [accessToken, refreshToken!]) expect(await page.content()).not.toContain(secret)
  })

  test('wrong requests get 400 and the login goes on; the right one ends it, once', async () => {
    const server = await tokenServer()
    const { grant, redirect, back, secret, stateOf } = await start(server.origin)
    const right = { code: 'the-code', state: secret }
    const raw = (text: string) =>
      new Promise<string>((resolve) => {
        let answer = ''
        const socket = connect(Number(redirect.port), '127.0.0.1', () => socket.write(text))
        socket.on('data', (data) => {
          answer += data
        })
        socket.on('error', () => {})
        socket.on('close', () => resolve(answer))
      })
    const wrong: [string, RequestInit?][] = [
      [back({ code: 'x' })],
      [back({ code: 'x', state: 'wrong' })],
      [back({ code: 'x', state: `${secret.slice(0, -1)}!` })],
      [back({ code: 'x', state: `${secret}x` })],
      [back({ code: 'x', state: '' })],
      [back({ code: 'x', state: 'ü'.repeat(43) })],
      [
        back([
          ['code', 'x'],
          ['state', secret],
          ['state', secret],
        ]),
      ],
      [
        back([
          ['code', 'x'],
          ['state', secret],
          ['state', 'other'],
        ]),
      ],
      [back({ error: 'access_denied', state: 'wrong' })],
      [back(right, '/')],
      [back(right, '/callback/')],
      [back(right, '/Callback')],
      [back(right, '/favicon.ico')],
      [back(right), { method: 'POST', body: 'x' }],
      [back(right), { method: 'HEAD' }],
      [back(right), { method: 'PUT', body: 'x' }],
      [back(right), { method: 'DELETE' }],
    ]
    for (const [url, init] of wrong) {
      const answer = await fetch(url, init)
      expect(answer.status, url).toBe(400)
      expect(answer.headers.get('referrer-policy')).toBe('no-referrer')
      expect(await answer.text()).not.toContain(secret)
    }
    const path = `${redirect.pathname}?code=x&state=${secret}`
    for (const host of ['evil.test', 'localhost', `localhost:${redirect.port}`, '127.0.0.1', `127.0.0.1:1`]) {
      expect(await raw(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`), host).toMatch(/^HTTP\/1.1 400/)
    }
    for (const target of ['//', '///', 'http://[', '/\\\\[', '*', 'http://evil.test/callback', `//evil.test${path}`]) {
      const answer = await raw(`GET ${target} HTTP/1.1\r\nHost: ${redirect.host}\r\n\r\n`)
      expect(answer, target).toMatch(/^HTTP\/1.1 400/)
    }
    expect(await raw('nonsense\r\n\r\n')).toMatch(/^HTTP\/1.1 400/)
    expect(await raw(`GET ${path} HTTP/1.1\r\n\r\n`)).toMatch(/^HTTP\/1.1 400/)
    await settle()
    expect(stateOf()).toBe('running')
    expect(server.tokenCalls).toHaveLength(0)

    const page = await fetch(back(right))
    expect(page.status).toBe(200)
    expect(page.headers.get('referrer-policy')).toBe('no-referrer')
    const text = await page.text()
    for (const hidden of [secret, 'the-code']) expect(text).not.toContain(hidden)
    expect(await grant).toMatchObject({ accessToken: 'access-1' })
    expect(Object.fromEntries(server.tokenCalls[0]!)).toMatchObject({
      grant_type: 'authorization_code',
      code: 'the-code',
      client_id: 'sealsync',
      redirect_uri: redirect.href,
      code_verifier: expect.stringMatching(/^[\w-]{43,128}$/),
    })
    await expect
      .poll(() =>
        fetch(back(right)).then(
          ({ status }) => status,
          () => 'closed',
        ),
      )
      .toBe('closed')
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('it listens on the literal loopback address only, with fresh secrets each time', async () => {
    const server = await tokenServer()
    const [one, two] = [await start(server.origin), await start(server.origin, { redirectUri: 'http://[::1]:0/back' })]
    expect(one.redirect.hostname).toBe('127.0.0.1')
    expect(two.redirect.hostname).toBe('[::1]')
    expect(two.redirect.pathname).toBe('/back')
    expect(Number(two.redirect.port)).toBeGreaterThan(0)
    for (const name of ['state', 'code_challenge']) {
      expect(one.url.searchParams.get(name)).not.toBe(two.url.searchParams.get(name))
    }
    for (const { back, secret, grant } of [one, two]) {
      expect((await fetch(back({ code: 'c', state: secret }))).status).toBe(200)
      await grant
    }
  })

  test.each([
    ['none', {}, 'OAUTH_ANSWER'],
    ['another', { iss: 'http://127.0.0.1:1' }, 'OAUTH_ANSWER'],
    ['its host only', { iss: 'http://127.0.0.1' }, 'OAUTH_ANSWER'],
  ])('where the server announces iss, %s in the answer is refused', async (_which, iss, code) => {
    const server = await tokenServer(undefined, pageMetadata)
    const { grant, back, secret } = await start(server.origin)
    await fetch(back({ code: 'c', state: secret, ...iss }))
    expect(await errorOf(grant)).toMatchObject({ code })
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('with the right iss it goes on', async () => {
    const server = await tokenServer(undefined, pageMetadata)
    const { grant, back, secret } = await start(server.origin)
    await fetch(back({ code: 'c', state: secret, iss: server.origin }))
    expect(await grant).toMatchObject({ accessToken: 'access-1' })
  })

  test('a doubled code is refused', async () => {
    const server = await tokenServer()
    const { grant, back, secret } = await start(server.origin)
    await fetch(
      back([
        ['code', 'a'],
        ['code', 'b'],
        ['state', secret],
      ]),
    )
    expect(await errorOf(grant)).toMatchObject({ name: 'SyncError' })
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('the person says no', async () => {
    const server = await tokenServer()
    const { grant, back, secret } = await start(server.origin)
    const page = await fetch(back({ error: 'access_denied', error_description: `<b>${CANARY}`, state: secret }))
    expect(await page.text()).not.toContain(CANARY)
    const error = await errorOf(grant)
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_DENIED' })
    expectNoSecret(error, CANARY, secret)
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('a code that the server does not take', async () => {
    const server = await tokenServer((_form, response) => json(response, { error: 'invalid_grant' }, 400))
    const { grant, back, secret } = await start(server.origin)
    await fetch(back({ code: CANARY, state: secret }))
    const error = await errorOf(grant)
    expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    expectNoSecret(error, CANARY, secret)
  })

  test('a fixed port that is taken fails at once', async () => {
    const [server, other] = [await tokenServer(), await httpServer((_request, response) => response.end())]
    const error = await errorOf(start(server.origin, { redirectUri: `http://127.0.0.1:${other.port}/callback` }))
    expect(error).toMatchObject({ class: 'usage', code: 'PORT_TAKEN' })
  })

  test('nobody comes: five minutes, no sooner, and the port is free again', async () => {
    const server = await tokenServer()
    const { clock, grant, redirect, stateOf } = await start(server.origin)
    await settle()
    clock.advance(299_999)
    await settle()
    expect(stateOf()).toBe('running')
    clock.advance(1)
    expect(await errorOf(grant)).toMatchObject({ class: 'auth', code: 'LOGIN_TIMEOUT' })
    await expect
      .poll(() =>
        fetch(redirect).then(
          () => 'open',
          () => 'closed',
        ),
      )
      .toBe('closed')
  })

  test('the signal ends the wait, also when it comes while the browser opens', async () => {
    const server = await tokenServer()
    const reason = new Error('enough')
    const stop = new AbortController()
    const { grant, redirect } = await start(server.origin, {}, { signal: stop.signal })
    stop.abort(reason)
    expect(await errorOf(grant)).toBe(reason)
    await expect
      .poll(() =>
        fetch(redirect).then(
          () => 'open',
          () => 'closed',
        ),
      )
      .toBe('closed')

    const early = new AbortController()
    const ui = {
      openUrl: async () => early.abort(reason),
      askSecret: () => Promise.reject(new Error('nobody asks')),
    }
    const way = authorizationCodeAuthorizer(server.origin, { client: { id: 'sealsync' } })
    expect(await errorOf(way.authorize(contextOf(dialer(), fakeClock('manual'), ui, early.signal)))).toBe(reason)
  })

  test('no browser to open, or nobody to ask', async () => {
    const server = await tokenServer()
    const way = authorizationCodeAuthorizer(server.origin, { client: { id: 'sealsync' } })
    expect(await errorOf(way.authorize(contextOf(dialer(), systemClock)))).toMatchObject({
      class: 'auth',
      code: 'LOGIN_NEEDED',
    })
    const broken = new Error('no browser here')
    const ui = { openUrl: () => Promise.reject(broken), askSecret: () => Promise.reject(broken) }
    expect(await errorOf(way.authorize(contextOf(dialer(), systemClock, ui)))).toBe(broken)
  })
})

describe('metadata', () => {
  const good = (origin: string) => ({
    issuer: origin,
    authorization_endpoint: `${origin}/oauth/authorize`,
    token_endpoint: `${origin}/oauth/token`,
  })
  const hostile: [string, (origin: string) => unknown][] = [
    ['another issuer', (origin) => ({ ...good(origin), issuer: 'https://evil.test' })],
    ['an issuer with a path', (origin) => ({ ...good(origin), issuer: `${origin}/x` })],
    ['no issuer', (origin) => ({ ...good(origin), issuer: undefined })],
    ['a token endpoint elsewhere', (origin) => ({ ...good(origin), token_endpoint: 'https://evil.test/token' })],
    ['a login page elsewhere', (origin) => ({ ...good(origin), authorization_endpoint: 'https://evil.test/' })],
    ['a revocation elsewhere', (origin) => ({ ...good(origin), revocation_endpoint: 'https://evil.test/' })],
    ['another port', (origin) => ({ ...good(origin), token_endpoint: 'http://127.0.0.1:1/token' })],
    ['the host as user name', (origin) => ({ ...good(origin), token_endpoint: `${origin}@evil.test/token` })],
    ['a user name', (origin) => ({ ...good(origin), token_endpoint: origin.replace('//', '//me@') })],
    ['a script', (origin) => ({ ...good(origin), authorization_endpoint: 'javascript:alert(1)' })],
    ['no URL', (origin) => ({ ...good(origin), token_endpoint: 'nonsense' })],
    ['a number', (origin) => ({ ...good(origin), token_endpoint: 5 })],
    ['null', (origin) => ({ ...good(origin), authorization_endpoint: null })],
    ['a list', () => []],
  ]
  test.each(hostile)('naming %s is refused before anybody types a password', async (_what, metadata) => {
    const server = await tokenServer(undefined, metadata)
    const error = await errorOf(start(server.origin))
    expect(error).toMatchObject({ class: 'auth', code: 'METADATA_REFUSED' })
    expect(server.tokenCalls).toHaveLength(0)
    const way = authorizationCodeAuthorizer(server.origin)
    for (const verb of [way.renew!, way.revoke!]) {
      const refused: Rejection = await errorOf(verb(grantOf(systemClock, CANARY), contextOf(dialer(), systemClock)))
      expect(refused).toMatchObject({ code: 'METADATA_REFUSED' })
      expectNoSecret(refused, CANARY)
    }
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('odd values that nobody needs change nothing', async () => {
    const server = await tokenServer(undefined, (origin) => ({
      ...good(origin),
      token_endpoint_auth_methods_supported: 5,
      scopes_supported: null,
    }))
    const { grant, back, secret } = await start(server.origin)
    await fetch(back({ code: 'c', state: secret }))
    await grant
  })

  test.each([
    ['404', 404, 'text/plain'],
    ['500', 500, 'text/html'],
    ['HTML', 200, 'text/html'],
    ['a redirect', 302, 'text/html'],
  ])('%s: the usual endpoints', async (_what, status, type) => {
    const server = await httpServer(({ path }, response) => {
      if (!path.startsWith('/.well-known/')) return json(response, { access_token: 'a', token_type: 'bearer' })
      return response.writeHead(status, { 'content-type': type, location: 'https://evil.test/' }).end('<p>')
    })
    const { grant, url, back, secret } = await start(server.origin)
    expect(url.origin + url.pathname).toBe(`${server.origin}/oauth/authorize`)
    await fetch(back({ code: 'c', state: secret }))
    expect(await grant).toMatchObject({ accessToken: 'a' })
  })
})

describe('a code that is pasted', () => {
  test('from the scripting client’s own page at the embedded server', async () => {
    const url = await embedded()
    let opened = ''
    const ui = {
      openUrl: async (page: string) => {
        opened = page
      },
      askSecret: async () => {
        const fill = { username: 'ann', password: `${CANARY}-pw` }
        const back = await browse(opened, fill, (at) => at.includes('/oauth/callback'))
        return ` ${new URL(back).searchParams.get('code')}\n`
      },
    }
    const way = authorizationCodeAuthorizer(url, { client: SCRIPTING_CLIENT })
    const grant = await way.authorize(contextOf(dialer(), systemClock, ui))
    expect(await works(url, grant)).toBe(true)
    expect(new URL(opened).searchParams.get('redirect_uri')).toBe(`${url}/oauth/callback`)
  })

  test('a server without metadata: scripting client, its header, the verifier, the same redirect', async () => {
    const server = await tokenServer()
    const ui = { openUrl: async () => {}, askSecret: async () => ' pasted-code ' }
    await authorizationCodeAuthorizer(server.origin).authorize(contextOf(dialer(), systemClock, ui))
    expect(server.seen.at(-1)?.headers.authorization).toBe(BASIC)
    expect(Object.fromEntries(server.tokenCalls[0]!)).toMatchObject({
      code: 'pasted-code',
      redirect_uri: `${server.origin}/oauth/callback`,
      code_verifier: expect.stringMatching(/^[\w-]{43}$/),
    })
  })

  test('a wrong one is refused and not shown; no terminal is an error', async () => {
    const server = await tokenServer((_form, response) => json(response, { error: 'invalid_grant' }, 400))
    const way = authorizationCodeAuthorizer(server.origin)
    const login = (askSecret: () => Promise<string>) =>
      errorOf(way.authorize(contextOf(dialer(), systemClock, { openUrl: async () => {}, askSecret })))
    const error = await login(async () => CANARY)
    expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    expectNoSecret(error, CANARY)
    const none = new Error('no terminal')
    expect(await login(() => Promise.reject(none))).toBe(none)
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('nothing pasted ends without a request', async () => {
    const server = await tokenServer()
    const ui = { openUrl: async () => {}, askSecret: async () => '  ' }
    const error = await errorOf(
      authorizationCodeAuthorizer(server.origin).authorize(contextOf(dialer(), systemClock, ui)),
    )
    expect(error).toMatchObject({ name: 'SyncError' })
    expect(server.tokenCalls).toHaveLength(0)
  })
})
