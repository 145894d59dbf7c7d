/** What goes wrong during a login, one row each: the error a caller sees, what is stored afterwards, and that no secret shows. */
import type { ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Ui } from '../../src/environment.ts'
import {
  type AuthorizationCodeOptions,
  authorizationCodeAuthorizer,
} from '../../src/session/authorizers/authorization-code.ts'
import { deviceCodeAuthorizer } from '../../src/session/authorizers/device-code.ts'
import { memoryGrantStore, Session } from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { expectNoSecret, tokenServer } from '../support/oauth.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'
import { createAuthority, hasProgram, type TestAuthority } from '../support/tls.ts'

const CANARY = 'canary-m15be'
const NEW = `access-${CANARY}-1`
const answer = { access_token: NEW, refresh_token: `refresh-${CANARY}-1`, token_type: 'Bearer', expires_in: 3600 }

type Reply = (response: ServerResponse) => unknown
const send =
  (body: unknown, status = 200): Reply =>
  (response) =>
    json(response, body, status)
const text =
  (body: string, status: number, headers: Record<string, string>): Reply =>
  (response) =>
    response.writeHead(status, headers).end(body)

/** A browser login: `visit` stands for the browser, with the address it was sent to. */
async function browserLogin(
  visit: (url: URL, origin: string) => unknown,
  reply: Reply = send(answer),
  more: AuthorizationCodeOptions = {},
) {
  const clock = fakeClock('manual')
  const server = await tokenServer(
    (_form, response) => reply(response),
    (issuer) => ({
      issuer,
      authorization_endpoint: `${issuer}/oauth/authorize`,
      token_endpoint: `${issuer}/oauth/token`,
      authorization_response_iss_parameter_supported: true,
    }),
  )
  const ui: Ui = {
    openUrl: async (url) => void visit(new URL(url), server.origin),
    askSecret: () => Promise.reject(new Error('nobody asks')),
  }
  const way = authorizationCodeAuthorizer(server.origin, { client: { id: 'sealsync' }, ...more })
  const store = memoryGrantStore()
  const session = Session.create(server.origin, way, { clock, store, ui })
  onTestFinished(() => session.close())
  return { clock, server, store, login: () => session.login() }
}

/** Name, what comes back (state and issuer as they should be), the code that ends the login: none when it goes on. */
const BROWSER: [string, (state: string, iss: string) => string, string?][] = [
  ['no state', (_state, iss) => `code=${CANARY}&iss=${iss}`],
  ['a wrong state', (state, iss) => `code=${CANARY}&state=${state.slice(1)}x&iss=${iss}`],
  ['the state twice', (state, iss) => `code=${CANARY}&state=${state}&state=${state}&iss=${iss}`],
  ['the state and another', (state, iss) => `code=${CANARY}&state=${state}&state=x&iss=${iss}`],
  ['another issuer', (state) => `code=${CANARY}&state=${state}&iss=https://mixed.up.test`],
  ['no issuer', (state) => `code=${CANARY}&state=${state}`],
  ['the issuer twice', (state, iss) => `code=${CANARY}&state=${state}&iss=${iss}&iss=${iss}`],
  ['an error of another issuer', (state) => `error=access_denied&state=${state}&iss=https://mixed.up.test`],
  ['neither code nor error', (state, iss) => `state=${state}&iss=${iss}`],
  ['two codes', (state, iss) => `code=${CANARY}&code=b&state=${state}&iss=${iss}`, 'OAUTH_ANSWER'],
  ['an empty code', (state, iss) => `code=&state=${state}&iss=${iss}`, 'OAUTH_ANSWER'],
  ['a refusal', (state, iss) => `error=access_denied&state=${state}&iss=${iss}`, 'LOGIN_DENIED'],
  ['a failure', (state, iss) => `error=server_error&state=${state}&iss=${iss}`, 'SERVER'],
  ['a scope refused', (state, iss) => `error=invalid_scope&state=${state}&iss=${iss}`, 'SCOPE_REFUSED'],
  ['an odd error', (state, iss) => `error=${CANARY}%0D%0A<b>&state=${state}&iss=${iss}`, 'LOGIN_DENIED'],
  ['a token instead', (state, iss) => `code=c&token=${CANARY}&state=${state}&iss=${iss}`, 'OAUTH_ANSWER'],
]

describe('a login page that comes back with', () => {
  test.each(BROWSER)('%s', async (_name, queryOf, code) => {
    let page = Promise.resolve(new Response())
    let right = ''
    const { store, server, login } = await browserLogin((url, origin) => {
      const [back, state] = [url.searchParams.get('redirect_uri')!, url.searchParams.get('state')!]
      page = fetch(`${back}?${queryOf(state, encodeURIComponent(origin))}`)
      right = `${back}?${new URLSearchParams({ code: 'right', state, iss: origin })}`
    })
    const ended = login().then(
      () => undefined,
      (error) => error,
    )
    await expect.poll(() => right).not.toBe('')
    const answered = await page
    const shown = await answered.text()
    expect(shown).not.toContain('Logged in')
    expect(shown).not.toContain(CANARY)
    expect(answered.status).toBe(code === undefined ? 400 : 200)
    if (code === undefined) {
      expect(await (await fetch(right)).text()).toContain('Logged in')
      expect(await ended).toBeUndefined()
      expect(await store.load()).toMatchObject({ accessToken: NEW })
      expect(server.tokenCalls.map((form) => form.get('code'))).toEqual(['right'])
      return
    }
    const error = await ended
    expect(error).toMatchObject({ name: 'SyncError', code })
    expectNoSecret(error, CANARY)
    expect(await store.load()).toBeUndefined()
    expect(server.tokenCalls).toHaveLength(0)
  })

  test.each<[string, Reply, string]>([
    ['HTML', text('<p>', 200, { 'content-type': 'text/html' }), 'OAUTH_ANSWER'],
    ['a redirect', text('', 302, { location: '/' }), 'OAUTH_ANSWER'],
    ['invalid_grant', send({ error: 'invalid_grant' }, 400), 'GRANT_REFUSED'],
    ['a newline in the token', send({ ...answer, access_token: 'a\nb' }), 'TOKEN_MALFORMED'],
    ['nothing', (response) => response.destroy(), 'NETWORK'],
  ])(
    'the right code, which the token endpoint answers with %s: no login, and no page that says so',
    async (_name, reply, code) => {
      let page = Promise.resolve('')
      const { store, login } = await browserLogin((url, iss) => {
        const state = url.searchParams.get('state')!
        const back = `${url.searchParams.get('redirect_uri')}?${new URLSearchParams({ code: CANARY, state, iss })}`
        page = fetch(back).then((response) => response.text())
      }, reply)
      const error = await errorOf(login())
      expect(error).toMatchObject({ name: 'SyncError', code })
      expectNoSecret(error, CANARY)
      expect(await page).toContain('Not logged in')
      expect(await store.load()).toBeUndefined()
    },
  )

  test('nobody: the browser was closed', async () => {
    let opened = false
    const { clock, store, login } = await browserLogin(() => {
      opened = true
    })
    const failed = errorOf(login())
    await expect.poll(() => opened && clock.pending() > 0).toBe(true)
    clock.advance(300_000)
    expect(await failed).toMatchObject({ class: 'auth', code: 'LOGIN_TIMEOUT' })
    expect(await store.load()).toBeUndefined()
  })

  test('a port that is taken', async () => {
    const other = await httpServer((_request, response) => response.end())
    let opened = false
    const redirectUri = `http://127.0.0.1:${other.port}/callback`
    const { store, login } = await browserLogin(() => (opened = true), send(answer), { redirectUri })
    expect(await errorOf(login())).toMatchObject({ class: 'usage', code: 'PORT_TAKEN' })
    expect(opened).toBe(false)
    expect(await store.load()).toBeUndefined()
  })
})

test('a device code that nobody types in', async () => {
  const clock = fakeClock()
  const server = await httpServer(({ path, headers }, response) => {
    const origin = `http://${headers.host}`
    const device = { device_code: CANARY, user_code: 'A-B', verification_uri: `${origin}/go`, expires_in: 60 }
    if (path === '/device') return json(response, device)
    return json(response, { error: 'authorization_pending' }, 400)
  })
  const endpoints = { token: `${server.origin}/token`, deviceAuthorization: `${server.origin}/device` }
  const way = deviceCodeAuthorizer(server.origin, { client: { id: 'sealsync' }, endpoints })
  const store = memoryGrantStore()
  const ui: Ui = { openUrl: async () => {}, showCode: async () => {}, askSecret: async () => '' }
  const session = Session.create(server.origin, way, { clock, store, ui })
  const error = await errorOf(session.login())
  expect(error).toMatchObject({ class: 'auth', code: 'DEVICE_CODE_EXPIRED' })
  expectNoSecret(error, CANARY)
  expect(clock.monotonic()).toBe(60_000)
  expect(await store.load()).toBeUndefined()
  await session.close()
})

describe.skipIf(!hasProgram('openssl'))('metadata over TLS (needs openssl)', () => {
  let authority: TestAuthority
  beforeAll(() => {
    authority = createAuthority()
  })
  afterAll(() => authority.remove())

  test.each([
    [
      'a token endpoint without TLS on the same host',
      'token_endpoint',
      (origin: string) => origin.replace('https:', 'http:'),
    ],
    ['a login page without TLS', 'authorization_endpoint', (origin: string) => origin.replace('https:', 'http:')],
    ['revocation at a program on this machine', 'revocation_endpoint', () => 'http://127.0.0.1:9'],
    ['a token endpoint on another host', 'token_endpoint', () => 'https://evil.test'],
  ])('%s: refused before anybody types a password', async (_name, endpoint, originOf) => {
    const { cert, key } = authority.issue()
    const server = await httpServer(
      ({ headers }, response) => {
        const issuer = `https://${headers.host}`
        json(response, {
          issuer,
          authorization_endpoint: `${issuer}/authorize`,
          token_endpoint: `${issuer}/token`,
          [endpoint]: `${originOf(issuer)}/x`,
        })
      },
      { cert, key },
    )
    const store = memoryGrantStore()
    const openUrl = () => Promise.reject(new Error('nothing opens'))
    const ui: Ui = { openUrl, askSecret: openUrl }
    const way = authorizationCodeAuthorizer(server.origin, { client: { id: 'sealsync' } })
    const session = Session.create(server.origin, way, { store, ui, transport: { ca: [authority.cert] } })
    expect(await errorOf(session.login())).toMatchObject({ class: 'auth', code: 'METADATA_REFUSED' })
    expect(server.seen.map(({ path }) => path)).toEqual(['/.well-known/oauth-authorization-server'])
    expect(await store.load()).toBeUndefined()
    await session.close()
  })
})
