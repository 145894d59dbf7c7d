/** The surface of authorizers for service accounts, in our names, against a certified provider and a token endpoint. */
import { generateKeyPairSync } from 'node:crypto'
import { decodeJwt } from 'jose'
import { expect, onTestFinished, test } from 'vitest'
import {
  clientCredentialsAuthorizer,
  fileGrantStore,
  jwtBearerAuthorizer,
  Session,
  type SessionSettings,
  withApiKey,
} from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { tokenServer } from '../support/oauth.ts'
import { PROGRAM_SECRET, startProvider } from '../support/provider.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string

/** An API that says what reached it. */
const mirror = () =>
  httpServer(({ headers }, response) =>
    json(response, { authorization: headers.authorization, key: headers['x-api-key'] }),
  )

function opened(api: string, way: Parameters<typeof Session.create>[1], settings?: SessionSettings) {
  const session = Session.create(api, way, settings)
  onTestFinished(() => session.close())
  return session
}

test('at a certified provider: secrets in both places, and a key', async () => {
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig' }
  const provider = await startProvider(600, jwk)
  const api = await mirror()
  const clients = [
    { id: 'by-basic', secret: PROGRAM_SECRET },
    { id: 'by-post', secret: PROGRAM_SECRET, auth: 'client_secret_post' as const },
    { id: 'by-key', key: { pem, kid: 'one' } },
  ]
  for (const client of clients) {
    const session = opened(api.origin, clientCredentialsAuthorizer(provider.origin, { client }))
    expect(await session.get('/x')).toMatchObject({ authorization: `Bearer ${await session.accessToken()}` })
    expect(session.clientId).toBe(client.id)
    expect(await session.check()).toMatchObject({ valid: true })
  }
  expect(provider.granted).toEqual(Array(3).fill('client_credentials'))
})

test('environments, scope, further parameters, an API key beside the login', async () => {
  const server = await tokenServer()
  const api = await mirror()
  const environments = {
    live: { token: 'https://live.example/token' },
    test: { token: `${server.origin}/oauth/token` },
  }
  const client = { id: 'program', secret: 'x' }
  const options = { client, environments, environment: 'test', scope: 'files', parameters: { audience: 'api' } }
  const way = withApiKey(clientCredentialsAuthorizer('https://live.example', options), {
    header: 'x-api-key',
    value: 'key',
  })
  const session = opened(api.origin, way)
  expect(await session.get('/x')).toEqual({ authorization: 'Bearer access-1', key: 'key' })
  expect(Object.fromEntries(server.tokenCalls[0]!)).toMatchObject({ scope: 'files', audience: 'api' })
})

test('a signed assertion, renewed by a new one; valid and expired; the same login for the next process', async () => {
  const clock = fakeClock()
  const server = await tokenServer()
  const api = await mirror()
  const way = () =>
    jwtBearerAuthorizer(server.origin, {
      issuer: 'program',
      subject: 'ann',
      key: { pem, kid: 'one' },
      claims: { role: 'x' },
    })
  const path = `${await freshDirectory()}/grant.json`
  const session = opened(api.origin, way(), { clock, store: fileGrantStore(path) })
  expect(await session.check()).toEqual({ valid: false, reason: 'missing' })
  await session.get('/x')
  const claims = decodeJwt(server.tokenCalls[0]!.get('assertion')!)
  expect(claims).toMatchObject({ iss: 'program', sub: 'ann', aud: `${server.origin}/oauth/token`, role: 'x' })
  expect(claims.exp! - claims.iat!).toBe(300)
  clock.advance(3_600_000)
  await session.get('/x')
  const ids = server.tokenCalls.map((form) => decodeJwt(form.get('assertion')!).jti)
  expect(new Set(ids).size).toBe(2)
  const next = opened(api.origin, way(), { clock, store: fileGrantStore(path) })
  expect(await next.get('/x')).toMatchObject({ authorization: 'Bearer access-2' })
  expect(server.tokenCalls).toHaveLength(2)
})

test('before_request: header and signature for the own server only; AuthorizedSession: fetch', async () => {
  const server = await tokenServer()
  const api = await mirror()
  const session = opened(api.origin, clientCredentialsAuthorizer(server.origin, { client: { id: 'a', secret: 'b' } }))
  expect((await session.sign({ method: 'GET', url: `${api.origin}/x` })).headers).toEqual({
    authorization: 'Bearer access-1',
  })
  expect(await errorOf(session.sign({ method: 'GET', url: `${server.origin}/x` }))).toMatchObject({
    code: 'ORIGIN_FOREIGN',
  })
  expect(await (await session.fetch(`${api.origin}/x`)).json()).toMatchObject({ authorization: 'Bearer access-1' })
})
