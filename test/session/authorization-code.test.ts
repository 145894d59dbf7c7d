import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { fakeClock, settle } from '../support/clock.ts'
import {
  browse,
  contextOf,
  embedded,
  expectNoSecret,
  startCodeLogin as start,
  tokenServer,
  works,
} from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-51c0d'
const CHROMIUM = '/usr/bin/chromium'

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
      timeout: 0,
      args: [...flags, '--disable-background-networking', '--disable-component-update'],
    })
    onTestFinished(() => browser.close())
    const url = await embedded()
    const page = await browser.newPage()
    page.setDefaultTimeout(0)
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
    ['none', {}],
    ['an empty one', { iss: '' }],
    ['another', { iss: 'http://127.0.0.1:1' }],
    ['its host only', { iss: 'http://127.0.0.1' }],
    ['another, with an error', { iss: 'http://127.0.0.1:1', error: 'access_denied' }],
  ])('where the server announces iss, %s is a wrong request that ends nothing', async (_which, more) => {
    const server = await tokenServer(undefined, pageMetadata)
    const { grant, back, secret, stateOf } = await start(server.origin)
    const page = await fetch(back({ code: 'stray', state: secret, ...more }))
    expect(page.status).toBe(400)
    expect(await page.text()).not.toContain('Logged in')
    await settle()
    expect(stateOf()).toBe('running')
    expect(server.tokenCalls).toHaveLength(0)
    const right = await fetch(back({ code: 'right', state: secret, iss: server.origin }))
    expect(await right.text()).toContain('Logged in')
    expect(await grant).toMatchObject({ accessToken: 'access-1' })
    expect(server.tokenCalls.map((form) => form.get('code'))).toEqual(['right'])
  })

  test('two issuers, or a wrong one where none is announced, are wrong too; so is an answer without code and error', async () => {
    const server = await tokenServer()
    const { grant, back, secret } = await start(server.origin)
    const twice: [string, string][] = [
      ['code', 'x'],
      ['state', secret],
      ['iss', server.origin],
      ['iss', 'https://evil.test'],
    ]
    for (const url of [
      back(twice),
      back({ code: 'x', state: secret, iss: 'https://evil.test' }),
      back({ state: secret }),
    ]) {
      expect((await fetch(url)).status).toBe(400)
    }
    await fetch(back({ code: 'c', state: secret }))
    await grant
  })

  test('the page tells how it ended, also at the token endpoint, in words that can be set and are no markup', async () => {
    let fail = true
    const server = await tokenServer((_form, response) =>
      fail
        ? json(response, { error: 'invalid_grant' }, 400)
        : json(response, { access_token: 'a', token_type: 'bearer', expires_in: 60 }),
    )
    const pages = {
      success: { title: 'Fertig', text: '<b>Tom & "Jerry"</b>' },
      failure: { title: 'Schade', text: "<script>alert('x')</script>" },
    }
    const refused = await start(server.origin, { pages })
    const sorry = await (await fetch(refused.back({ code: 'c', state: refused.secret }))).text()
    expect(await errorOf(refused.grant)).toMatchObject({ code: 'GRANT_REFUSED' })
    expect(sorry).toContain('<h1>Schade</h1>')
    expect(sorry).not.toContain('<script')
    fail = false
    const good = await start(server.origin, { pages })
    const page = await (await fetch(good.back({ code: 'c', state: good.secret }))).text()
    expect(page).toContain('<h1>Fertig</h1><p>&#60;b&#62;Tom &#38; &#34;Jerry&#34;&#60;/b&#62;</p>')
    await good.grant
    const usual = await start(server.origin)
    expect(await (await fetch(usual.back({ error: 'access_denied', state: usual.secret }))).text()).toContain(
      'Not logged in',
    )
    expect(await errorOf(usual.grant)).toMatchObject({ code: 'LOGIN_DENIED' })
  })

  test('a fixed port and a path of its own', async () => {
    const server = await tokenServer()
    const { redirect: free, grant: first, back: end, secret: s } = await start(server.origin)
    await fetch(end({ code: 'c', state: s }))
    await first
    await expect
      .poll(() =>
        fetch(free).then(
          () => 'open',
          () => 'closed',
        ),
      )
      .toBe('closed')
    const uri = `http://127.0.0.1:${free.port}/login/done`
    const { grant, redirect, back, secret } = await start(server.origin, { redirectUri: uri })
    expect(redirect.href).toBe(uri)
    await fetch(back({ code: 'c', state: secret }))
    await grant
    expect(server.tokenCalls[1]?.get('redirect_uri')).toBe(uri)
  })

  test('further parameters go into the address, never in place of ours', async () => {
    const server = await tokenServer()
    const parameters = { prompt: 'login', state: 'mine', client_id: 'other' }
    const { url, grant, back, secret } = await start(server.origin, { parameters })
    expect(url.searchParams.get('prompt')).toBe('login')
    expect(secret).not.toBe('mine')
    expect(url.searchParams.get('client_id')).toBe('sealsync')
    await fetch(back({ code: 'c', state: secret }))
    await grant
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
