import { describe, expect, test } from 'vitest'
import { accessRules } from '../../src/session/authorizers/ovh-regions.ts'
import { ovhSignatureAuthorizer } from '../../src/session/authorizers/ovh-signature.ts'
import { fakeClock, settle } from '../support/clock.ts'
import { contextOf, expectNoSecret } from '../support/oauth.ts'
import { APPLICATION_KEY, CONSUMER_KEY, type OvhPlan, type OvhServer, ovhWorld, refuse } from '../support/ovh-server.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-'
const NEW_KEY = 'canary-consumer-key-new-1'
const polls = (server: OvhServer) => server.to('/auth/currentCredential').length

describe('a new consumer key', () => {
  test('asked for, shown, confirmed after a while, used, and ended', async () => {
    const options = { redirection: 'https://app.example.test/done?x=1', allowedIPs: ['192.0.2.0/24'] }
    const made = await ovhWorld({ confirmAfter: 4 }, { out: true, options })
    const { session, server, clock, store, opened, warned } = made
    await session.login()
    expect(await store.load()).toEqual({ v: 1, accessToken: NEW_KEY })
    expect(opened).toEqual([`${server.origin}/auth/?credentialToken=canary-page`])
    expect(warned).toHaveLength(1)
    for (const shown of ['GET /me, POST /me, PUT /me, GET /me/*', '192.0.2.0/24', 'app.example.test']) {
      expect(warned[0]).toContain(shown)
    }
    expect(warned[0]).not.toContain('DELETE')
    expect(warned[0]).not.toContain(CANARY)
    expect(polls(server)).toBe(5)
    expect(clock.sleeps).toEqual(Array(5).fill(3_000))
    const [request] = server.to('/auth/credential')
    expect(JSON.parse(request!.body.toString())).toEqual({
      accessRules: accessRules('/me', 'read-write-safe'),
      ...options,
    })
    for (const header of ['x-ovh-consumer', 'x-ovh-signature', 'x-ovh-timestamp']) {
      expect(request!.headers).not.toHaveProperty(header)
    }
    await session.get('/me/bill')
    expect(await errorOf(session.delete('/me/bill/7'))).toMatchObject({ code: 'RULE_MISSING' })
    expect(await errorOf(session.get('/sms'))).toMatchObject({ code: 'RULE_MISSING' })
    await session.logout()
    expect(server.keys.has(NEW_KEY)).toBe(false)
  })

  test('the rules are shown before the browser opens', async () => {
    const order: string[] = []
    const server = (await ovhWorld()).server
    const way = ovhSignatureAuthorizer({
      endpoint: server.endpoint,
      applicationKey: APPLICATION_KEY,
      applicationSecret: 'x',
      accessRules: accessRules('/', 'read-only'),
    })
    const stop = new AbortController()
    const ui = {
      openUrl: async () => {
        order.push('open')
        stop.abort()
      },
      askSecret: async () => '',
    }
    const context = {
      ...contextOf(dialer(), fakeClock(), ui, stop.signal),
      warn: (text: string) => void order.push(text),
    }
    await errorOf(way.authorize(context))
    expect(order).toEqual(['The login asks for GET /*', 'open'])
  })

  test('a key that was confirmed before is taken as it is', async () => {
    for (const consumerKey of [CONSUMER_KEY, () => CONSUMER_KEY, async () => CONSUMER_KEY]) {
      const { session, server, opened } = await ovhWorld({}, { out: true, options: { consumerKey } })
      await session.login()
      expect(server.calls).toHaveLength(0)
      expect(opened).toHaveLength(0)
      await session.get('/me')
    }
    const bad = await ovhWorld({}, { out: true, options: { consumerKey: 'canary key\r\nx: y' } })
    const error = await errorOf(bad.session.login())
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
    expectNoSecret(error, CANARY)
  })

  test('nobody confirms: the deadline, no sooner, and nothing is stored', async () => {
    const options = { intervalMs: 7_000, timeoutMs: 60_000 }
    const made = await ovhWorld({ confirmAfter: Number.POSITIVE_INFINITY }, { out: true, options })
    const before = made.clock.monotonic()
    const error = await errorOf(made.session.login())
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_TIMEOUT' })
    expectNoSecret(error, CANARY)
    expect(made.clock.monotonic() - before).toBe(60_000)
    expect(polls(made.server)).toBe(9)
    expect(await made.store.load()).toBeUndefined()
  })

  test('the signal ends the wait at once', async () => {
    const made = await ovhWorld({ confirmAfter: 9 }, { out: true, mode: 'manual' })
    const stop = new AbortController()
    const login = errorOf(made.session.login(stop.signal))
    await expect.poll(() => made.clock.pending()).toBe(1)
    made.clock.advance(3_000)
    await expect.poll(() => made.clock.pending()).toBe(1)
    expect(polls(made.server)).toBe(1)
    const reason = new Error('enough')
    stop.abort(reason)
    expect(await login).toBe(reason)
    made.clock.advance(60_000)
    await settle()
    expect(polls(made.server)).toBe(1)
    expect(await made.store.load()).toBeUndefined()
  })

  test.each(['refused', 'expired'])('%s in the browser', async (status) => {
    const { session, server } = await ovhWorld({ status }, { out: true })
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_DENIED' })
    expectNoSecret(error, CANARY)
    expect(polls(server)).toBe(1)
  })

  test('still pending by its own words, or rules that leave the question out', async () => {
    const answers = ['{"status":"pendingValidation"}', '{"status":"pendingValidation"}', '{"status":"validated"}']
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/auth/currentCredential')) return undefined
      response.writeHead(200, { 'content-type': 'application/json' }).end(answers.shift())
      return true
    }
    const made = await ovhWorld({ fault }, { out: true })
    await made.session.login()
    expect(polls(made.server)).toBe(3)
    const silent = await ovhWorld(
      { fault: ({ target }, response) => target.endsWith('currentCredential') && notGranted(response) },
      { out: true },
    )
    await silent.session.login()
    expect(await silent.store.load()).toEqual({ v: 1, accessToken: NEW_KEY })
  })

  test('an outage during the wait costs time only, and Retry-After is obeyed', async () => {
    const faults: (OvhPlan['fault'] & object)[] = [
      (_call, response) => Boolean(response.writeHead(503).end('<h1>busy')),
      (_call, response) => Boolean(response.writeHead(429, { 'retry-after': '40' }).end()),
      (_call, response) => Boolean(response.destroy()),
    ]
    const fault: OvhPlan['fault'] = (call, response) =>
      call.target.endsWith('currentCredential') ? faults.shift()?.(call, response) : undefined
    const { session, clock, server } = await ovhWorld({ fault }, { out: true })
    await session.login()
    // A busy server is asked again like everywhere (here without jitter); a cut connection costs one round.
    expect(clock.sleeps).toEqual([3_000, 0, 40_000, 3_000])
    expect(polls(server)).toBe(4)
  })

  test.each<[string, (response: Parameters<typeof refuse>[0]) => unknown, object]>([
    ['HTML', (response) => response.end('<html>canary-page'), { code: 'ANSWER_INVALID' }],
    ['no status', (response) => json(response, { state: 'canary' }), { code: 'ANSWER_INVALID' }],
    ['404', (response) => response.writeHead(404).end('canary-page'), { code: 'ANSWER_UNEXPECTED' }],
    ['a redirect', (response) => response.writeHead(302, { location: '/x' }).end(), { code: 'ANSWER_UNEXPECTED' }],
    ['another address', (response) => refuse(response, 403, 'FORBIDDEN'), { code: 'FORBIDDEN' }],
    [
      'a time that is never right',
      (response) => refuse(response, 403, 'QUERY_TIME_OUT'),
      { code: 'SIGNATURE_REFUSED' },
    ],
  ])('asking for the state fails (%s)', async (_what, answer, expected) => {
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/auth/currentCredential')) return undefined
      answer(response)
      return true
    }
    const { session, store } = await ovhWorld({ fault }, { out: true })
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ name: 'SyncError', ...expected })
    expectNoSecret(error, CANARY)
    expect(await store.load()).toBeUndefined()
  })
})

const notGranted = (response: Parameters<typeof refuse>[0]) => {
  refuse(response, 403, 'NOT_GRANTED_CALL')
  return true
}

describe('the login page', () => {
  test.each<[string, (origin: string) => unknown]>([
    ['on another host', () => 'https://evil.test/auth/'],
    ['http elsewhere', () => 'http://evil.test/auth/'],
    ['with the host as user name', (origin) => `${origin}@evil.test/`],
    ['with a user name', (origin) => origin.replace('//', '//me@')],
    ['localhost, a name', (origin) => origin.replace('127.0.0.1', 'localhost')],
    ['a script', () => 'javascript:alert(1)'],
    ['a file', () => 'file:///etc/passwd'],
    ['no URL', () => 'canary-nonsense'],
    ['a number', () => 5],
    ['null', () => null],
    ['without end', (origin) => `${origin}/${'x'.repeat(9_000)}`],
  ])('%s is refused before anybody types a password', async (_what, validationUrl) => {
    const wrap = (origin: string) => validationUrl(origin) ?? { none: true }
    const { session, opened, store, server } = await ovhWorld({ validationUrl: wrap }, { out: true })
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_PAGE_FOREIGN' })
    expectNoSecret(error, CANARY)
    expect(opened).toHaveLength(0)
    expect(polls(server)).toBe(0)
    expect(await store.load()).toBeUndefined()
  })
})

describe('asking for a key fails', () => {
  const good = { consumerKey: NEW_KEY, validationUrl: 'http://127.0.0.1/auth' }
  test.each<[string, (response: Parameters<typeof refuse>[0]) => unknown, object]>([
    ['an unknown application', (r) => refuse(r, 403, 'INVALID_KEY', 'canary'), { code: 'APPLICATION_KEY_WRONG' }],
    ['forbidden', (r) => refuse(r, 403, 'FORBIDDEN', 'canary'), { class: 'permission' }],
    ['bad rules', (r) => refuse(r, 400, 'BAD', 'canary'), { class: 'usage', code: 'BAD_REQUEST' }],
    ['busy', (r) => r.writeHead(503).end('<h1>canary'), { class: 'server', retryable: true }],
    ['too often', (r) => r.writeHead(429, { 'retry-after': '9' }).end(), { class: 'rate_limit', retryAfterMs: 9_000 }],
    ['HTML', (r) => r.end('<html>canary'), { code: 'ANSWER_INVALID' }],
    ['a list', (r) => json(r, [good]), { code: 'ANSWER_INVALID' }],
    ['a redirect', (r) => r.writeHead(307, { location: 'http://127.0.0.1:1/' }).end(), { class: 'server' }],
    ['no key', (r) => json(r, { ...good, consumerKey: undefined }), { code: 'ANSWER_INVALID' }],
    ['a key with a line end', (r) => json(r, { ...good, consumerKey: `${NEW_KEY}\r\n` }), { code: 'ANSWER_INVALID' }],
    ['an empty key', (r) => json(r, { ...good, consumerKey: '' }), { code: 'ANSWER_INVALID' }],
  ])('%s', async (what, answer, expected) => {
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/auth/credential')) return undefined
      answer(response)
      return true
    }
    const { session, server, opened } = await ovhWorld({ fault }, { out: true })
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ name: 'SyncError', ...expected })
    expectNoSecret(error, CANARY)
    // What is busy is asked again for a while: nothing was made yet, and nothing can be locked by it.
    if (what === 'busy' || what === 'too often') expect(server.calls.length).toBeGreaterThan(1)
    else expect(server.calls).toHaveLength(1)
    expect(opened).toHaveLength(0)
  })

  test('what is wrong already here is not sent', async () => {
    const login = async (options: object) => {
      const made = await ovhWorld({}, { out: true, options })
      const error = await errorOf(made.session.login())
      expect(made.server.calls).toHaveLength(0)
      return error
    }
    expect(await login({ accessRules: [] })).toMatchObject({ class: 'usage', code: 'RULES_NEEDED' })
    for (const rule of [
      { method: 'HEAD', path: '/' },
      { method: 'GET', path: 'sms' },
      { method: 'GET', path: '/a\u001b[2J' },
    ]) {
      expect(await login({ accessRules: [rule] })).toMatchObject({ class: 'usage', code: 'RULE_INVALID' })
    }
    expect(await login({ redirection: 'javascript:alert(1)' })).toMatchObject({ code: 'URL_INVALID' })
    const server = await httpServer((_request, response) => json(response, {}))
    for (const applicationKey of ['', 'a b', 'a\r\nb']) {
      const options = { endpoint: `${server.origin}/1.0`, applicationKey, applicationSecret: 's' }
      expect(() => ovhSignatureAuthorizer(options)).toThrow(expect.objectContaining({ code: 'APPLICATION_KEY_WRONG' }))
    }
    const alone = ovhSignatureAuthorizer({
      endpoint: `${server.origin}/1.0`,
      applicationKey: 'a',
      applicationSecret: 's',
      accessRules: accessRules('/', 'read-only'),
    })
    const error = await errorOf(alone.authorize(contextOf(dialer(), fakeClock())))
    expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
    expect(server.seen).toHaveLength(0)
  })
})
