import { generateKeyPairSync } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import {
  type ClientCredentialsOptions,
  clientCredentialsAuthorizer,
} from '../../src/session/authorizers/client-credentials.ts'
import { Session } from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { contextOf, expectNoSecret, tokenServer } from '../support/oauth.ts'
import { PROGRAM_SECRET, startProvider } from '../support/provider.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const SECRET = 'canary-c11e47'

describe('at a certified provider', () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'RS256' }

  test.each([
    ['client_secret_basic, form-encoded', { id: 'by-basic', secret: PROGRAM_SECRET }],
    ['client_secret_post', { id: 'by-post', secret: PROGRAM_SECRET, auth: 'client_secret_post' as const }],
    ['private_key_jwt', { id: 'by-key', key: { pem, kid: 'one' } }],
  ])('%s: login, again, introspection, revocation', async (_name, client) => {
    const provider = await startProvider(600, jwk)
    const way = clientCredentialsAuthorizer(provider.origin, { client, introspect: true })
    const context = contextOf(dialer(), systemClock)
    const grant = await way.authorize(context)
    expect(grant).toMatchObject({ lifetimeMs: 600_000 })
    expect(grant.refreshToken).toBeUndefined()
    const next = await way.renew!(grant, context)
    expect(next.accessToken).not.toBe(grant.accessToken)
    expect(await way.check!(next, context)).toMatchObject({ active: true })
    await way.revoke!(next, context)
    expect(await way.check!(next, context)).toEqual({ active: false })
    await way.revoke!(next, context)
    expect(provider.granted).toEqual(['client_credentials', 'client_credentials'])
  })

  test.each([
    ['a wrong secret', { id: 'by-basic', secret: SECRET }],
    [
      'the raw secret where the encoded one is wanted',
      { id: 'by-basic', secret: PROGRAM_SECRET, auth: 'raw_basic' as const },
    ],
    ['another key', { id: 'by-key', key: { pem: otherKey(), kid: 'one' } }],
    ['an unknown client', { id: 'nobody', secret: SECRET }],
  ])('%s is refused, and not shown', async (_name, client) => {
    const provider = await startProvider(600, jwk)
    const way = clientCredentialsAuthorizer(provider.origin, { client })
    const error = await errorOf(way.authorize(contextOf(dialer(), systemClock)))
    expect(error).toMatchObject({ class: 'auth', code: 'CLIENT_REFUSED' })
    expectNoSecret(error, SECRET, PROGRAM_SECRET)
    expect(provider.granted).toEqual([])
  })
})

function otherKey() {
  return generateKeyPairSync('rsa', { modulusLength: 2048 })
    .privateKey.export({ format: 'pem', type: 'pkcs8' })
    .toString()
}

/** What a login of this client looks like on the wire. */
async function onTheWire(client: ClientCredentialsOptions['client'], more: Partial<ClientCredentialsOptions> = {}) {
  const server = await tokenServer()
  await clientCredentialsAuthorizer(server.origin, { client, ...more }).authorize(contextOf(dialer(), fakeClock()))
  return { authorization: server.seen.at(-1)?.headers.authorization, form: Object.fromEntries(server.tokenCalls[0]!) }
}
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`

test('how each method looks on the wire', async () => {
  const [id, secret] = ['a b:c', 'x +/%ü']
  const grant_type = 'client_credentials'
  expect(await onTheWire({ id, secret })).toEqual({
    authorization: basic('a+b%3Ac:x+%2B%2F%25%C3%BC'),
    form: { grant_type },
  })
  expect(await onTheWire({ id, secret, auth: 'raw_basic' })).toEqual({
    authorization: basic(`${id}:${secret}`),
    form: { grant_type },
  })
  expect(await onTheWire({ id, secret, auth: 'client_secret_post' })).toEqual({
    authorization: undefined,
    form: { grant_type, client_id: id, client_secret: secret },
  })
  const parameters = { audience: 'api' }
  expect(await onTheWire({ id, secret: '' }, { scope: 'a b', parameters })).toEqual({
    authorization: basic('a+b%3Ac:'),
    form: { grant_type, scope: 'a b', audience: 'api' },
  })
})

test('a proof by key: fresh, short, for the issuer or the audience that was set', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'k1' }
  const clock = fakeClock()
  const server = await tokenServer()
  const login = (audience?: string) =>
    clientCredentialsAuthorizer(server.origin, {
      client: { id: 'me', key: { jwk }, ...(audience === undefined ? {} : { audience }) },
    }).authorize(contextOf(dialer(), clock))
  await login()
  await login('https://aud.test/token')
  const [one, two] = server.tokenCalls.map((form) => form.get('client_assertion')!)
  expect(decodeProtectedHeader(one!)).toEqual({ alg: 'ES256', typ: 'JWT', kid: 'k1' })
  const now = Math.floor(clock.now() / 1000)
  const claims = decodeJwt(one!)
  expect(claims).toEqual({
    iss: 'me',
    sub: 'me',
    aud: server.origin,
    iat: now,
    exp: now + 60,
    jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
  })
  expect(decodeJwt(two!).aud).toBe('https://aud.test/token')
  expect(decodeJwt(two!).jti).not.toBe(claims.jti)
  expect(server.tokenCalls[0]?.get('client_assertion_type')).toBe(
    'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
  )
})

test('environments by name; an unknown one lists those there are', async () => {
  const [eu, us] = [await tokenServer(), await tokenServer()]
  const environments = {
    eu: { token: `${eu.origin}/oauth/token` },
    us: { token: `${us.origin}/oauth/token` },
  }
  const client = { id: 'a', secret: SECRET }
  const way = clientCredentialsAuthorizer('https://unused.test', { client, environments, environment: 'us' })
  await way.authorize(contextOf(dialer(), fakeClock()))
  expect([eu.tokenCalls.length, us.tokenCalls.length]).toEqual([0, 1])
  for (const environment of ['asia', 'toString', '__proto__', '']) {
    const make = async () => clientCredentialsAuthorizer('https://x.test', { client, environments, environment })
    const error = await errorOf(make())
    expect(error).toMatchObject({ class: 'usage', code: 'ENVIRONMENT_UNKNOWN' })
    expect(error.message).toContain('eu, us')
  }
  const warnings: string[] = []
  await way.revoke!(
    { v: 1, accessToken: 'x' },
    { ...contextOf(dialer(), fakeClock()), warn: (text) => warnings.push(text) },
  )
  expect(warnings).toHaveLength(1)
  expect(us.seen).toHaveLength(1)
})

test('a client that can prove nothing, or lacks what its method needs', async () => {
  const server = await tokenServer()
  const make = async (client: ClientCredentialsOptions['client']) =>
    clientCredentialsAuthorizer(server.origin, { client }).authorize(contextOf(dialer(), fakeClock()))
  for (const client of [
    { id: 'a' },
    { id: 'a', secret: SECRET, auth: 'private_key_jwt' as const },
    { id: 'a', key: { jwk: {} }, auth: 'client_secret_post' as const },
  ]) {
    const error = await errorOf(make(client))
    expect(error).toMatchObject({ class: 'usage', code: 'CLIENT_INVALID' })
    expectNoSecret(error, SECRET)
  }
  expect(server.tokenCalls).toHaveLength(0)
})

test('in a session: asked again before the end, without a person or a refresh token', async () => {
  const clock = fakeClock()
  let n = 0
  const server = await httpServer(({ path, headers }, response) => {
    if (path.startsWith('/.well-known/')) return response.writeHead(404).end()
    if (path === '/oauth/token') {
      return json(response, { access_token: `token-${++n}`, token_type: 'bearer', expires_in: 600 })
    }
    return json(response, { as: headers.authorization })
  })
  const client = { id: 'a', secret: SECRET }
  const session = Session.create(server.origin, clientCredentialsAuthorizer(server.origin, { client }), { clock })
  await session.login()
  expect(await session.get('/x')).toEqual({ as: 'Bearer token-1' })
  clock.advance(545_000)
  expect(await session.get('/x')).toEqual({ as: 'Bearer token-2' })
  expect(n).toBe(2)
  await session.close()
})

test('a busy token endpoint: its wait is in the error, and a narrower scope is said once', async () => {
  let busy = true
  const server = await tokenServer((_form, response) =>
    busy
      ? response.writeHead(503, { 'retry-after': '17' }).end()
      : json(response, { access_token: 'a', token_type: 'bearer', scope: 'read' }),
  )
  const warnings: string[] = []
  const context = { ...contextOf(dialer(), fakeClock()), warn: (text: string) => void warnings.push(text) }
  const way = clientCredentialsAuthorizer(server.origin, { client: { id: 'a', secret: SECRET }, scope: 'read write' })
  expect(await errorOf(way.authorize(context))).toMatchObject({ code: 'SERVER', status: 503, retryAfterMs: 17_000 })
  busy = false
  const grant = await way.authorize(context)
  await way.renew!(await way.renew!(grant, context), context)
  expect(warnings).toEqual([expect.stringMatching(/missing: write$/)])
})
