import { existsSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ovhOAuth2Authorizer } from '../../src/session/authorizers/ovh-oauth2.ts'
import { Session } from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { expectNoSecret } from '../support/oauth.ts'
import { errorOf, httpServer, json, type Seen } from '../support/servers.ts'

const CANARY = 'canary-'
const SHARED = new URL('../../../shared/auth/ovh-signing.json', import.meta.url)

/** A token endpoint, an API on another port that accepts what `accepts` says, and a session. */
async function world(
  onToken?: (response: ServerResponse, n: number) => unknown,
  onCall?: (seen: Seen, response: ServerResponse) => unknown,
  client = { clientId: 'EU.client', clientSecret: 'canary-s:ec%r et+é' },
) {
  const clock = fakeClock()
  const tokens = await httpServer((_request, response) => {
    const n = tokens.seen.length
    if (onToken !== undefined) return onToken(response, n)
    return json(response, { access_token: `canary-${n}`, token_type: 'Bearer', expires_in: 3600, scope: 'all' })
  })
  const api = await httpServer((seen, response) => (onCall ?? ((_seen, answer) => json(answer, {})))(seen, response))
  const endpoint = `${api.origin}/1.0`
  const authorizer = ovhOAuth2Authorizer({ endpoint, tokenUrl: `${tokens.origin}/auth/oauth2/token`, ...client })
  const session = Session.create(endpoint, authorizer, { clock, random: steadyRandom() })
  onTestFinished(() => session.close())
  return { clock, tokens, api, session }
}

test('raw Basic, one form, bearer without signatures; the end comes, the next token is asked for', async () => {
  const { clock, tokens, api, session } = await world()
  await session.login()
  await session.get('/me')
  await session.get('/v2/x', { query: { a: true } })
  await session.post('/y', { json: { z: 1 } })
  expect(tokens.seen).toMatchObject([
    { method: 'POST', path: '/auth/oauth2/token', body: 'grant_type=client_credentials&scope=all' },
  ])
  const { headers } = tokens.seen[0]!
  expect(headers['content-type']).toMatch(/^application\/x-www-form-urlencoded/)
  expect(Buffer.from(headers.authorization!.slice(6), 'base64').toString()).toBe('EU.client:canary-s:ec%r et+é')
  expect(api.seen.map(({ path }) => path)).toEqual(['/1.0/me', '/v2/x?a=true', '/1.0/y'])
  for (const seen of api.seen) {
    expect(seen.headers.authorization).toBe('Bearer canary-1')
    expect(Object.keys(seen.headers).filter((name) => name.startsWith('x-ovh'))).toEqual([])
  }
  clock.advance(3_600_000)
  await session.get('/me')
  expect(api.seen.at(-1)?.headers.authorization).toBe('Bearer canary-2')
  expect(tokens.seen).toHaveLength(2)
  expect(await session.check()).toMatchObject({ valid: true, scope: 'all' })
})

test.skipIf(!existsSync(SHARED))('the worked exchange (needs ../shared)', async () => {
  const wire = JSON.parse(readFileSync(SHARED, 'utf8')).oauth2Wire
  const text = Buffer.from(wire[0].headers.Authorization.slice(6), 'base64').toString()
  const [, clientId = '', clientSecret = ''] = /^([^:]*):(.*)$/.exec(text) ?? []
  const { tokens, session } = await world(undefined, undefined, { clientId, clientSecret })
  await session.login()
  expect(tokens.seen[0]?.headers.authorization).toBe(wire[0].headers.Authorization)
  expect(tokens.seen[0]?.body).toBe(wire[0].body)
  expect(tokens.seen[0]?.path).toBe(wire[0].path)
})

test('a 401 brings one new token and one replay', async () => {
  const { tokens, api, session } = await world(undefined, ({ headers }, response) =>
    json(response, { errorCode: 'INVALID_CREDENTIAL' }, headers.authorization === 'Bearer canary-2' ? 200 : 401),
  )
  await session.login()
  await session.get('/me')
  expect(tokens.seen).toHaveLength(2)
  expect(api.seen).toHaveLength(2)
})

test.each([
  ['NOT_GRANTED_CALL', { class: 'auth', code: 'RULE_MISSING' }],
  ['FORBIDDEN', { class: 'permission', code: 'FORBIDDEN' }],
])('a 403 %s is not a matter of tokens', async (errorCode, expected) => {
  const { tokens, session } = await world(undefined, (_seen, response) => json(response, { errorCode }, 403))
  await session.login()
  const error = await errorOf(session.get('/me'))
  expect(error).toMatchObject(expected)
  expectNoSecret(error, CANARY)
  expect(tokens.seen).toHaveLength(1)
})

test('a token goes to its own API only', async () => {
  const other = await httpServer((_request, response) => json(response, {}))
  const { session } = await world()
  await session.login()
  await session.send({ method: 'GET', url: other.origin })
  expect(other.seen[0]?.headers.authorization).toBeUndefined()
})

describe('token answers', () => {
  const good = { access_token: 'canary-token', token_type: 'bearer', expires_in: 3600 }
  test.each<[string, (response: ServerResponse) => unknown, object]>([
    ['HTML with 503', (r) => r.writeHead(503).end('<h1>canary-page'), { class: 'server', retryable: true }],
    ['429', (r) => r.writeHead(429).end('canary-page'), { class: 'rate_limit', retryable: true }],
    ['HTML with 200', (r) => r.end('<h1>canary-page'), { code: 'ANSWER_INVALID' }],
    ['200 without a token', (r) => json(r, { token_type: 'bearer' }), { code: 'ANSWER_INVALID' }],
    ['200 with an error', (r) => json(r, { error: 'canary-error' }), { code: 'ANSWER_INVALID' }],
    ['a list', (r) => json(r, [good]), { code: 'ANSWER_INVALID' }],
    ['an empty token', (r) => json(r, { ...good, access_token: '' }), { code: 'TOKEN_MALFORMED' }],
    ['a line end in it', (r) => json(r, { ...good, access_token: 'canary\r\n' }), { code: 'TOKEN_MALFORMED' }],
    ['another type', (r) => json(r, { ...good, token_type: 'mac' }), { code: 'TOKEN_TYPE' }],
    ['invalid_client', (r) => json(r, { error: 'invalid_client' }, 401), { class: 'auth', code: 'CLIENT_REFUSED' }],
    ['400', (r) => json(r, { error: 'canary' }, 400), { class: 'auth', code: 'OAUTH_REFUSED' }],
    ['a redirect', (r) => r.writeHead(307, { location: '/elsewhere' }).end(), { class: 'server' }],
    ['a dropped connection', (r) => r.destroy(), { class: 'network' }],
  ])('%s', async (what, answer, expected) => {
    const { tokens, session } = await world(answer)
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ name: 'SyncError', ...expected })
    expectNoSecret(error, CANARY, 'Basic ', Buffer.from('EU.client:canary').toString('base64').slice(0, 16))
    // What is busy is asked again for a while: it did nothing, and nothing can be locked by it.
    if (what === 'HTML with 503' || what === '429') expect(tokens.seen.length).toBeGreaterThan(1)
    else expect(tokens.seen).toHaveLength(1)
    expect(await session.hasGrant()).toBe(false)
  })

  test.each([
    [60, 60_000],
    ['60', 60_000],
    [1, 30_000],
    [10 ** 9, 86_400_000],
    [-1, 300_000],
    [1.5, 300_000],
    [null, 300_000],
    [undefined, 300_000],
    ['soon', 300_000],
    [[60], 300_000],
  ])('expires_in %j lives %i ms', async (expires_in, lifetimeMs) => {
    const { session } = await world((response) => json(response, { ...good, expires_in }))
    await session.login()
    expect((await session.dump()).grant).toMatchObject({ lifetimeMs, accessToken: 'canary-token' })
    expect((await session.dump()).grant).not.toHaveProperty('refreshToken')
  })

  test('regions without OAuth2', () => {
    const options = { clientId: 'c', clientSecret: 's' }
    for (const endpoint of ['kimsufi-ca', 'soyoustart-eu', 'http://127.0.0.1:1/1.0']) {
      expect(() => ovhOAuth2Authorizer({ endpoint, ...options })).toThrow(
        expect.objectContaining({ class: 'usage', code: 'OAUTH_UNAVAILABLE' }),
      )
    }
    expect(ovhOAuth2Authorizer({ endpoint: 'ovh-ca', ...options }).name).toBe('ovh-oauth2')
  })
})
