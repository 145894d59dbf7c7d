import { describe, expect, test } from 'vitest'
import { type DeviceCode, systemClock, type Ui } from '../../src/environment.ts'
import { type DeviceCodeOptions, deviceCodeAuthorizer } from '../../src/session/authorizers/device-code.ts'
import { type FakeClock, fakeClock, settle } from '../support/clock.ts'
import { browse, contextOf, expectNoSecret } from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-de11ce'
const CLIENT = { id: 'sealsync' }

const uiOf = (shown: DeviceCode[]): Ui => ({
  openUrl: () => Promise.reject(new Error('nothing is opened')),
  showCode: async (code) => void shown.push(code),
  askSecret: () => Promise.reject(new Error('nobody asks')),
})

type Poll = object | number | 'lost' | ((origin: string) => unknown)

const token = { access_token: `${CANARY}-a`, refresh_token: `${CANARY}-r`, token_type: 'Bearer', expires_in: 3600 }
const pending = { error: 'authorization_pending' }

/** A server that answers the polls in turn, the last one for ever; an object with `error` goes with status 400. */
async function world(polls: Poll[], device: object = {}, options: Partial<DeviceCodeOptions> = {}) {
  const clock: FakeClock = fakeClock()
  const polledAt: number[] = []
  const server = await httpServer(({ path, headers }, response) => {
    const origin = `http://${headers.host}`
    if (path === '/.well-known/oauth-authorization-server') {
      return json(response, {
        issuer: origin,
        token_endpoint: `${origin}/token`,
        device_authorization_endpoint: `${origin}/device`,
      })
    }
    if (path === '/device') {
      return json(response, {
        device_code: `${CANARY}-device`,
        user_code: 'WDJB-MJHT',
        verification_uri: 'https://example.test/device',
        expires_in: 1800,
        ...device,
      })
    }
    if (path !== '/token') return response.writeHead(404).end()
    const poll = polls[Math.min(polledAt.length, polls.length - 1)]!
    polledAt.push(clock.monotonic() / 1000)
    if (poll === 'lost') return response.destroy()
    if (typeof poll === 'number') return response.writeHead(poll, { 'retry-after': '20' }).end()
    return json(response, poll, 'error' in poll ? 400 : 200)
  })
  const shown: DeviceCode[] = []
  const way = deviceCodeAuthorizer(server.origin, { client: CLIENT, scope: 'all', ...options })
  const login = (signal?: AbortSignal) => way.authorize(contextOf(dialer(), clock, uiOf(shown), signal))
  return { clock, server, shown, polledAt, login }
}

test('at a certified provider: code, browser elsewhere, grant, renewal, revocation', async () => {
  const provider = await startProvider()
  const clock = fakeClock()
  const shown: DeviceCode[] = []
  let decided: Promise<unknown> = Promise.resolve()
  const ui: Ui = {
    ...uiOf(shown),
    showCode: async (code) => {
      shown.push(code)
      // The last page is the one without a form.
      decided = browse(code.verificationUriComplete!, { login: 'ann', password: 'any' }, () => false)
      await decided.catch(() => {})
    },
  }
  const way = deviceCodeAuthorizer(provider.origin, { client: CLIENT, scope: 'openid offline_access' })
  const grant = await way.authorize(contextOf(dialer(), clock, ui))
  expect(await errorOf(decided)).toMatchObject({ message: expect.stringMatching(/^No form on .*\(200\)/) })
  expect(shown[0]).toMatchObject({
    userCode: expect.stringMatching(/^[A-Z]{4}-[A-Z]{4}$/),
    verificationUri: `${provider.origin}/device`,
    expiresInMs: 600_000,
  })
  expect(clock.sleeps).toEqual([5_000])
  const context = contextOf(dialer(), systemClock)
  const next = await way.renew!(grant, context)
  expect(next.refreshToken).not.toBe(grant.refreshToken)
  await way.revoke!(next, context)
  expect(await errorOf(way.renew!(next, context))).toMatchObject({ code: 'GRANT_REFUSED' })
  expect(provider.granted).toEqual(['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'])
})

test('at a certified provider: the person says no', async () => {
  const provider = await startProvider()
  const ui: Ui = {
    ...uiOf([]),
    showCode: async ({ verificationUri, userCode }) => {
      const page = await fetch(verificationUri)
      const cookie = page.headers
        .getSetCookie()
        .map((one) => one.split(';')[0])
        .join('; ')
      const xsrf = /name="xsrf" value="([^"]+)"/.exec(await page.text())?.[1] ?? ''
      const body = new URLSearchParams({ xsrf, user_code: userCode, confirm: 'yes', abort: 'yes' })
      await fetch(verificationUri, { method: 'POST', body, headers: { cookie } })
    },
  }
  const way = deviceCodeAuthorizer(provider.origin, { client: CLIENT })
  const error = await errorOf(way.authorize(contextOf(dialer(), fakeClock(), ui)))
  expect(error).toMatchObject({ class: 'auth', code: 'LOGIN_DENIED' })
})

describe('polling', () => {
  test.each([
    ['no interval', {}, 5],
    ['7 s', { interval: 7 }, 7],
    ['1 s: five at least', { interval: 1 }, 5],
    ['0', { interval: 0 }, 5],
    ['negative', { interval: -3 }, 5],
    ['an hour: a minute at most', { interval: 3600 }, 60],
    ['as a text', { interval: '9' }, 9],
    ['nonsense', { interval: 'soon' }, 5],
    ['null', { interval: null }, 5],
  ])('%s', async (_name, device, seconds) => {
    const { login, polledAt, server } = await world([pending, pending, token], device)
    expect(await login()).toMatchObject({ accessToken: `${CANARY}-a`, refreshToken: `${CANARY}-r` })
    expect(polledAt).toEqual([seconds, 2 * seconds, 3 * seconds])
    const form = new URLSearchParams(server.seen.at(-1)!.body)
    expect(Object.fromEntries(form)).toMatchObject({
      grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      device_code: `${CANARY}-device`,
      client_id: 'sealsync',
    })
    expect(new URLSearchParams(server.seen.find(({ path }) => path === '/device')!.body).get('scope')).toBe('all')
  })

  test('slow_down adds five seconds for good, each time, up to a minute', async () => {
    const slow = { error: 'slow_down' }
    const { login, polledAt } = await world([slow, pending, slow, pending, token])
    await login()
    expect(polledAt).toEqual([5, 15, 25, 40, 55])
    const many = await world([...Array(13).fill(slow), pending, token])
    await many.login()
    const [last, before] = [many.polledAt.at(-1)!, many.polledAt.at(-2)!]
    expect(last - before).toBe(60)
  })

  test('a network that is away for a while only makes the pauses longer', async () => {
    const { login, polledAt } = await world(['lost', 'lost', pending, token])
    await login()
    // Doubled twice, and as before once the server is back.
    expect(polledAt).toEqual([5, 15, 35, 40])
  })

  test('a busy server is asked again when it says so', async () => {
    const { login, polledAt } = await world([503, 429, 500, pending, token])
    await login()
    expect(polledAt).toEqual([5, 25, 65, 125, 130])
  })

  test.each([
    ['somebody says no', { error: 'access_denied' }, 'LOGIN_DENIED'],
    ['the server says it is too late', { error: 'expired_token' }, 'DEVICE_CODE_EXPIRED'],
    ['the code is unknown', { error: 'invalid_grant' }, 'GRANT_REFUSED'],
    ['the client may not', { error: 'unauthorized_client' }, 'CLIENT_NOT_ALLOWED'],
    ['another error', { error: 'whatever' }, 'OAUTH_REFUSED'],
    ['no token in the answer', { token_type: 'bearer' }, 'OAUTH_ANSWER'],
  ])('it ends when %s', async (_name, last, code) => {
    const { login, polledAt } = await world([pending, last])
    const error = await errorOf(login())
    expect(error).toMatchObject({ name: 'SyncError', code })
    expectNoSecret(error, CANARY)
    expect(polledAt).toHaveLength(2)
  })

  test.each([
    ['as announced', { expires_in: 32 }, 32],
    ['a text', { expires_in: '42' }, 42],
    ['missing: five minutes', { expires_in: undefined }, 300],
    ['nonsense: five minutes', { expires_in: 'later' }, 300],
    ['negative: five minutes', { expires_in: -1 }, 300],
    ['zero: five minutes', { expires_in: 0 }, 300],
  ])('it stops at the end of the code, %s, and does not ask after it', async (_name, device, seconds) => {
    const { login, polledAt, clock, shown } = await world([pending], device)
    const error = await errorOf(login())
    expect(error).toMatchObject({ class: 'auth', code: 'DEVICE_CODE_EXPIRED' })
    expectNoSecret(error, CANARY)
    expect(clock.monotonic()).toBe(seconds * 1000)
    expect(polledAt.at(-1)).toBeLessThan(seconds)
    expect(shown[0]?.expiresInMs).toBe(seconds * 1000)
  })

  test('also when the network stays away', async () => {
    const { login, clock } = await world(['lost'], { expires_in: 600 })
    expect(await errorOf(login())).toMatchObject({ code: 'DEVICE_CODE_EXPIRED' })
    expect(clock.monotonic()).toBe(600_000)
  })

  test('the signal ends the wait', async () => {
    const clock = fakeClock('manual')
    const { server } = await world([pending])
    const stop = new AbortController()
    const shown: DeviceCode[] = []
    const way = deviceCodeAuthorizer(server.origin, { client: CLIENT })
    const login = way.authorize(contextOf(dialer(), clock, uiOf(shown), stop.signal))
    login.catch(() => {})
    await expect.poll(() => clock.pending()).toBe(1)
    const reason = new Error('enough')
    stop.abort(reason)
    expect(await errorOf(login)).toBe(reason)
    await settle()
    expect(clock.pending()).toBe(0)
    expect(server.seen.filter(({ path }) => path === '/token')).toHaveLength(0)
  })
})

describe('what is shown', () => {
  test.each([
    ['the same place with the code in it', 'https://example.test/device?user_code=WDJB', true],
    ['another place', 'https://evil.test/device?user_code=WDJB', false],
  ])('%s', async (_name, complete, kept) => {
    const { login, shown } = await world([token], { verification_uri_complete: complete })
    await login()
    expect(shown).toEqual([
      {
        userCode: 'WDJB-MJHT',
        verificationUri: 'https://example.test/device',
        expiresInMs: 1_800_000,
        ...(kept ? { verificationUriComplete: complete } : {}),
      },
    ])
  })

  test.each([
    ['plain http', { verification_uri: 'http://example.test/device' }, 'URL_INSECURE'],
    ['a script', { verification_uri: 'javascript:alert(1)' }, 'URL_INSECURE'],
    ['a user name', { verification_uri: 'https://bank.test@evil.test/' }, 'DEVICE_ANSWER'],
    ['no address', { verification_uri: 'type it somewhere' }, 'DEVICE_ANSWER'],
    ['a script with the code', { verification_uri_complete: 'javascript:alert(1)' }, 'URL_INSECURE'],
    ['escapes in the code', { user_code: 'A\u001b[2J' }, 'DEVICE_ANSWER'],
    ['a line in the code', { user_code: 'A\nLogin at https://evil.test' }, 'DEVICE_ANSWER'],
    ['an endless code', { user_code: 'A'.repeat(65) }, 'DEVICE_ANSWER'],
    ['no code', { user_code: '' }, 'OAUTH_ANSWER'],
    ['no device code', { device_code: undefined }, 'OAUTH_ANSWER'],
  ])('%s is not, and nothing is polled', async (_name, device, code) => {
    const { login, shown, polledAt } = await world([token], device)
    const error = await errorOf(login())
    expect(error).toMatchObject({ name: 'SyncError', code })
    expectNoSecret(error, CANARY)
    expect(shown).toEqual([])
    expect(polledAt).toEqual([])
  })

  test('loopback is for loopback servers', async () => {
    const { login, shown } = await world([token], { verification_uri: 'http://127.0.0.1:9/device' })
    await login()
    expect(shown[0]?.verificationUri).toBe('http://127.0.0.1:9/device')
    const { server } = await world([token], { verification_uri: 'http://127.0.0.1:9/device' })
    const endpoints = { token: `${server.origin}/token`, deviceAuthorization: `${server.origin}/device` }
    const far = deviceCodeAuthorizer('https://far.test', { client: CLIENT, endpoints })
    expect(await errorOf(far.authorize(contextOf(dialer(), fakeClock(), uiOf([]))))).toMatchObject({
      code: 'DEVICE_ANSWER',
    })
  })
})

test('nobody to show it to, or no endpoint for it', async () => {
  const { server } = await world([token])
  const way = deviceCodeAuthorizer(server.origin, { client: CLIENT })
  const { showCode: _, ...mute } = uiOf([])
  for (const ui of [undefined, mute]) {
    expect(await errorOf(way.authorize(contextOf(dialer(), fakeClock(), ui)))).toMatchObject({ code: 'LOGIN_NEEDED' })
  }
  expect(server.seen).toEqual([])
  const bare = await httpServer((_request, response) => response.writeHead(404).end())
  const error = await errorOf(
    deviceCodeAuthorizer(bare.origin, { client: CLIENT }).authorize(contextOf(dialer(), fakeClock(), uiOf([]))),
  )
  expect(error).toMatchObject({ class: 'usage', code: 'ENDPOINT_MISSING' })
})
