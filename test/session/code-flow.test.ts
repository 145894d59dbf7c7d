import { describe, expect, onTestFinished, test } from 'vitest'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { Session } from '../../src/session/index.ts'
import { authorizationCodeFlow, type CodeFlowOptions } from '../../src/session/oauth.ts'
import { fakeClock } from '../support/clock.ts'
import { browse, expectNoSecret, tokenServer } from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-c0def'
const redirectUri = 'https://app.example.test/back'

const withIss = (origin: string) => ({
  issuer: origin,
  authorization_endpoint: `${origin}/oauth/authorize?tenant=7`,
  token_endpoint: `${origin}/oauth/token`,
  authorization_response_iss_parameter_supported: true,
})

async function world(more: Partial<CodeFlowOptions> = {}, metadata?: (origin: string) => unknown) {
  const clock = fakeClock()
  const server = await tokenServer(undefined, metadata)
  const client = { id: 'app', secret: `${CANARY}-secret` }
  const flow = authorizationCodeFlow(server.origin, { client, redirectUri, clock, ...more })
  onTestFinished(() => flow.close())
  return { clock, server, flow }
}

test('at a certified provider, and the session goes on with the grant', async () => {
  const provider = await startProvider()
  const client = { id: 'sealsync' }
  const back = 'http://127.0.0.1:9/callback'
  const flow = authorizationCodeFlow(provider.origin, { client, redirectUri: back, scope: 'openid offline_access' })
  onTestFinished(() => flow.close())
  const { url, state } = await flow.authorizationUrl()
  const at = new URL(await browse(url, { login: 'ann', password: 'any' }, (one) => one.startsWith(back)))
  expect(at.searchParams.get('state')).toBe(state)
  const grant = await flow.redeem(at.searchParams.get('code')!, state, at.searchParams.get('iss')!)
  const api = await httpServer(({ headers }, response) => json(response, headers.authorization))
  const session = Session.create(api.origin, authorizationCodeAuthorizer(provider.origin, { client }))
  await session.adopt(grant)
  expect(await session.get('/')).toBe(`Bearer ${grant.accessToken}`)
  await session.renew()
  expect(await session.get('/')).not.toBe(`Bearer ${grant.accessToken}`)
  await session.logout()
  expect(provider.granted).toEqual(['authorization_code', 'refresh_token'])
  await session.close()
})

test('what the address and the redemption hold', async () => {
  const { server, flow } = await world({ scope: 'a b', parameters: { prompt: 'consent', state: 'mine' } }, withIss)
  const { url, state } = await flow.authorizationUrl()
  const query = Object.fromEntries(new URL(url).searchParams)
  expect(query).toEqual({
    tenant: '7',
    prompt: 'consent',
    response_type: 'code',
    client_id: 'app',
    redirect_uri: redirectUri,
    scope: 'a b',
    state,
    code_challenge: expect.stringMatching(/^[\w-]{43}$/),
    code_challenge_method: 'S256',
  })
  expect(state).toMatch(/^[\w-]{43}$/)
  expect(await flow.redeem('the+code', state, server.origin)).toMatchObject({ accessToken: 'access-1' })
  expect(Object.fromEntries(server.tokenCalls[0]!)).toEqual({
    grant_type: 'authorization_code',
    code: 'the+code',
    redirect_uri: redirectUri,
    code_verifier: expect.stringMatching(/^[\w-]{43}$/),
  })
  expect(server.seen.at(-1)?.headers.authorization).toMatch(/^Basic /)
  // The metadata is read once.
  await flow.authorizationUrl()
  expect(server.seen.filter(({ path }) => path.startsWith('/.well-known/'))).toHaveLength(1)
})

test('several logins at once, each with its own verifier, in any order', async () => {
  const { createHash } = await import('node:crypto')
  const { server, flow } = await world()
  const started = await Promise.all(Array.from({ length: 5 }, () => flow.authorizationUrl()))
  expect(new Set(started.map(({ state }) => state)).size).toBe(5)
  expect(flow.pending()).toBe(5)
  for (const { url, state } of [...started].reverse()) {
    await flow.redeem('c', state)
    const verifier = server.tokenCalls.at(-1)!.get('code_verifier')!
    const challenge = createHash('sha256').update(verifier).digest('base64url')
    expect(new URL(url).searchParams.get('code_challenge')).toBe(challenge)
  }
  expect(flow.pending()).toBe(0)
})

describe('a state', () => {
  const unknown = { class: 'auth', code: 'STATE_UNKNOWN' }

  test('serves once, also for two at the same time', async () => {
    const { server, flow } = await world()
    const { state } = await flow.authorizationUrl()
    const both = await Promise.allSettled([flow.redeem(CANARY, state), flow.redeem(CANARY, state)])
    expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
    const error = await errorOf(flow.redeem(CANARY, state))
    expect(error).toMatchObject(unknown)
    expectNoSecret(error, CANARY, state)
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('that was never given out is refused, and ends no other login', async () => {
    const { server, flow } = await world()
    const { state } = await flow.authorizationUrl()
    for (const wrong of ['', 'x', `${state}x`, state.slice(1), '__proto__', state.toUpperCase()]) {
      expect(await errorOf(flow.redeem('c', wrong))).toMatchObject(unknown)
    }
    expect(server.tokenCalls).toHaveLength(0)
    await flow.redeem('c', state)
  })

  test('is spent by a code that the server refuses', async () => {
    const clock = fakeClock()
    const server = await tokenServer((_form, response) => json(response, { error: 'invalid_grant' }, 400))
    const flow = authorizationCodeFlow(server.origin, { client: { id: 'app' }, redirectUri, clock })
    onTestFinished(() => flow.close())
    const { state } = await flow.authorizationUrl()
    const error = await errorOf(flow.redeem(CANARY, state))
    expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    expectNoSecret(error, CANARY, state)
    expect(await errorOf(flow.redeem(CANARY, state))).toMatchObject(unknown)
  })

  test('lives ten minutes by default, whatever the wall clock does', async () => {
    const { clock, flow } = await world()
    const [first, second] = [await flow.authorizationUrl(), await flow.authorizationUrl()]
    clock.jump(86_400_000)
    clock.advance(599_999)
    await flow.redeem('c', first.state)
    clock.advance(1)
    expect(await errorOf(flow.redeem('c', second.state))).toMatchObject(unknown)
    expect(flow.pending()).toBe(0)
  })

  test('is forgotten, the oldest first, when too many wait', async () => {
    const { flow } = await world({ maxPending: 3 })
    const states: string[] = []
    for (let i = 0; i < 5; i++) states.push((await flow.authorizationUrl()).state)
    expect(flow.pending()).toBe(3)
    for (const state of states.slice(0, 2)) expect(await errorOf(flow.redeem('c', state))).toMatchObject(unknown)
    for (const state of states.slice(2)) await flow.redeem('c', state)
  })
})

test.each([
  ['missing', undefined],
  ['empty', ''],
  ['another', 'https://evil.test'],
])('an issuer that is %s where it is announced ends nothing', async (_name, iss) => {
  const { server, flow } = await world({}, withIss)
  const { state } = await flow.authorizationUrl()
  const error = await errorOf(flow.redeem(CANARY, state, iss))
  expect(error).toMatchObject({ class: 'auth', code: 'ISSUER_WRONG' })
  expectNoSecret(error, CANARY, state)
  expect(server.tokenCalls).toHaveLength(0)
  await flow.redeem('c', state, server.origin)
})

test('an empty code is refused without a request', async () => {
  const { server, flow } = await world()
  const { state } = await flow.authorizationUrl()
  expect(await errorOf(flow.redeem('', state))).toMatchObject({ code: 'OAUTH_ANSWER' })
  expect(server.tokenCalls).toHaveLength(0)
})
