import { describe, expect, test } from 'vitest'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { Session } from '../../src/session/index.ts'
import { introspectGrant } from '../../src/session/oauth.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { contextOf, expectNoSecret, grantOf, tokenServer } from '../support/oauth.ts'
import { type Answer, dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-1a7r0'
const client = { id: 'app', secret: 'canary-secret' }

/** A session whose server answers introspection and revocation as told. */
async function world(answer: Answer) {
  const clock = fakeClock()
  const server = await httpServer(answer)
  const endpoints = {
    token: `${server.origin}/token`,
    introspection: `${server.origin}/introspect`,
    revocation: `${server.origin}/revoke`,
  }
  const authorizer = passwordAuthorizer(server.origin, {
    userName: 'ann',
    password: () => Promise.reject(new Error('nobody logs in')),
    client,
    endpoints,
  })
  const session = Session.create(server.origin, authorizer, { clock, random: steadyRandom() })
  await session.adopt(grantOf(clock, CANARY))
  return { clock, server, session, authorizer }
}

describe('introspection', () => {
  test.each([
    [true, { active: true, scope: 'all' }],
    [false, { active: false }],
    [false, { active: false, scope: 'all', exp: 9_999_999_999 }],
  ])('the answer is %s for %j', async (valid, body) => {
    const { server, session } = await world((_request, response) => json(response, body))
    expect((await session.check({ online: true })).valid).toBe(valid)
    expect(server.seen).toHaveLength(1)
    expect(Object.fromEntries(new URLSearchParams(server.seen[0]!.body))).toEqual({
      token: `access-${CANARY}`,
      token_type_hint: 'access_token',
    })
    expect(server.seen[0]).toMatchObject({ method: 'POST', path: '/introspect' })
    expect(server.seen[0]?.headers.authorization).toBe(`Basic ${Buffer.from('app:canary-secret').toString('base64')}`)
    await session.close()
  })

  test('what else the server says is passed on, as far as it has the form it should have', async () => {
    const body = {
      active: true,
      scope: 'all',
      client_id: 'app',
      username: 'ann',
      sub: 7,
      aud: ['a', 'b', 1],
      iss: 'x'.repeat(2_000),
      exp: 2_000_000_000,
      iat: 'soon',
      other: 'x',
    }
    const { session } = await world((_request, response) => json(response, body))
    expect(await session.check({ online: true })).toMatchObject({
      valid: true,
      introspection: { active: true, scope: 'all', clientId: 'app', userName: 'ann', audience: 'a b', expiresAt: 2e12 },
    })
    const { introspection } = await session.check({ online: true })
    expect(Object.keys(introspection!)).toHaveLength(6)
    expect(await session.check()).not.toHaveProperty('introspection')
    await session.close()
  })

  test.each<[string, Answer, string]>([
    ['active as a text', (_r, response) => json(response, { active: 'true' }), 'OAUTH_ANSWER'],
    ['active as a number', (_r, response) => json(response, { active: 1 }), 'OAUTH_ANSWER'],
    ['nothing', (_r, response) => json(response, {}), 'OAUTH_ANSWER'],
    ['a list', (_r, response) => json(response, [{ active: true }]), 'OAUTH_ANSWER'],
    ['HTML', (_r, response) => response.writeHead(200, { 'content-type': 'text/html' }).end(CANARY), 'OAUTH_ANSWER'],
    ['a redirect', (_r, response) => response.writeHead(307, { location: '/else' }).end(), 'OAUTH_ANSWER'],
    ['401', (_r, response) => response.writeHead(401).end(), 'INTROSPECTION_REFUSED'],
    ['403', (_r, response) => json(response, { error: 'access_denied' }, 403), 'INTROSPECTION_REFUSED'],
    ['an unknown client', (_r, response) => json(response, { error: 'invalid_client' }, 400), 'INTROSPECTION_REFUSED'],
    ['500', (_r, response) => response.writeHead(500).end(), 'SERVER'],
  ])('%s is an error: it says nothing about the login', async (_name, answer, code) => {
    const { session } = await world(answer)
    const error = await errorOf(session.check({ online: true }))
    expect(error).toMatchObject({ name: 'SyncError', code })
    expectNoSecret(error, CANARY, 'canary-secret')
    expect(await session.hasGrant()).toBe(true)
    await session.close()
  })

  test('a busy endpoint is asked again', async () => {
    let n = 0
    const { session, clock } = await world((_request, response) =>
      ++n === 1 ? response.writeHead(503, { 'retry-after': '7' }).end() : json(response, { active: true }),
    )
    expect((await session.check({ online: true })).valid).toBe(true)
    expect(clock.sleeps[0]).toBe(7_000)
    await session.close()
  })

  test('only where it is wanted: without, the session asks its own way', async () => {
    const server = await tokenServer()
    const options = { userName: 'u', password: async () => 'p' }
    expect(passwordAuthorizer(server.origin, options).check).toBeUndefined()
    const wanted = passwordAuthorizer(server.origin, { ...options, introspect: true })
    const clock = fakeClock()
    expect(await errorOf(wanted.check!(grantOf(clock, '0'), contextOf(dialer(), clock)))).toMatchObject({
      class: 'usage',
      code: 'ENDPOINT_MISSING',
    })
    const issuer = { issuer: server.origin }
    expect(
      await errorOf(introspectGrant(issuer, client, grantOf(clock, '0'), contextOf(dialer(), clock))),
    ).toMatchObject({
      code: 'ENDPOINT_MISSING',
    })
  })
})

describe('revocation', () => {
  test('503 is waited out by Retry-After, for each token, and then all is done', async () => {
    const perToken = new Map<string, number>()
    const { session, clock, server } = await world(({ body }, response) => {
      const token = new URLSearchParams(body).get('token') ?? ''
      const n = (perToken.get(token) ?? 0) + 1
      perToken.set(token, n)
      return n === 1 ? response.writeHead(503, { 'retry-after': '9' }).end() : response.writeHead(200).end()
    })
    await session.logout()
    expect([...perToken]).toEqual([
      [`refresh-${CANARY}`, 2],
      [`access-${CANARY}`, 2],
    ])
    expect(clock.sleeps.filter((ms) => ms === 9_000)).toHaveLength(2)
    expect(server.seen).toHaveLength(4)
    expect(await session.hasGrant()).toBe(false)
    await session.close()
  })

  test('a lost answer is asked for again: revoking twice is the same', async () => {
    let n = 0
    const { session, server } = await world((_request, response) =>
      ++n === 1 ? response.destroy() : response.writeHead(200).end(),
    )
    await session.logout()
    expect(server.seen).toHaveLength(3)
    await session.close()
  })

  test.each<[string, Answer, string]>([
    ['503 for ever', (_r, response) => response.writeHead(503).end(), 'SERVER'],
    ['a wait of an hour', (_r, response) => response.writeHead(503, { 'retry-after': '3600' }).end(), 'SERVER'],
    ['429 for ever', (_r, response) => response.writeHead(429).end(), 'RATE_LIMITED'],
    ['a redirect', (_r, response) => response.writeHead(307, { location: '/else' }).end(), 'OAUTH_ANSWER'],
    ['an unknown client', (_r, response) => json(response, { error: 'invalid_client' }, 401), 'CLIENT_REFUSED'],
    [
      'HTML with 404',
      (_r, response) => response.writeHead(404, { 'content-type': 'text/html' }).end('<p>'),
      'OAUTH_ANSWER',
    ],
  ])('%s: forgotten here, and said', async (_name, answer, code) => {
    const { session, server } = await world(answer)
    const error = await errorOf(session.logout())
    expect(error).toMatchObject({ name: 'SyncError', code })
    expectNoSecret(error, CANARY)
    expect(await session.hasGrant()).toBe(false)
    expect(server.seen.every(({ path }) => path === '/revoke')).toBe(true)
    await session.close()
  })

  test('a kind of token that the server does not revoke is passed over', async () => {
    const { session, server } = await world(({ body }, response) =>
      body.includes('token_type_hint=access_token')
        ? json(response, { error: 'unsupported_token_type' }, 400)
        : response.writeHead(200).end(),
    )
    await session.logout()
    expect(server.seen).toHaveLength(2)
    await session.close()
  })
})
