/** The surface of OVH’s Python client, in the order of its documentation, in our names. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import {
  accessRules,
  loadOvhConfig,
  ovhOAuth2Authorizer,
  ovhSignature,
  ovhSignatureAuthorizer,
  Session,
} from '../../src/session/index.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import {
  APPLICATION_KEY,
  APPLICATION_SECRET,
  CONSUMER_KEY,
  ovhServer,
  ovhWorld,
  QUERY_ID,
} from '../support/ovh-server.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

test('request_consumerkey, time_delta, get, post, put, delete, call, raw_call, logout', async () => {
  const options = {
    accessRules: accessRules('/me', 'read-write'),
    redirection: 'https://app.example/done',
    allowedIPs: ['192.0.2.0/24'],
  }
  const { session, server, opened, warned } = await ovhWorld({ confirmAfter: 2 }, { out: true, options })
  expect(await errorOf(session.get('/me'))).toMatchObject({ code: 'LOGIN_NEEDED' })
  // request_consumerkey(access_rules, redirect_url, allowedIPs), and the person who confirms it
  await session.login()
  expect(opened).toEqual([expect.stringContaining('credentialToken')])
  expect(warned[0]).toContain('GET /me')
  expect(JSON.parse(server.to('/auth/credential')[0]!.body.toString())).toMatchObject({
    accessRules: ['GET', 'POST', 'PUT', 'DELETE']
      .flatMap((method) => [{ method, path: '/me' }])
      .concat(['GET', 'POST', 'PUT', 'DELETE'].map((method) => ({ method, path: '/me/*' }))),
    redirection: 'https://app.example/done',
    allowedIPs: ['192.0.2.0/24'],
  })
  // time_delta: asked for once
  expect(await session.get('/me', { query: { a: 'b c', list: [1, 2] } })).toMatchObject({ method: 'GET', path: '/me' })
  expect(server.to('/auth/time')).toHaveLength(1)
  expect(await session.post('/me/x', { json: { ü: 1 } })).toMatchObject({ method: 'POST', body: '{"ü":1}' })
  expect(await session.put('/me/x', { json: {} })).toMatchObject({ method: 'PUT' })
  expect(await session.delete('/me/x')).toMatchObject({ method: 'DELETE' })
  // _need_auth=False
  expect(await session.get('/auth/time', { auth: false, headers: { 'x-ovh-application': APPLICATION_KEY } })).toEqual(
    expect.any(Number),
  )
  // call, raw_call
  const raw = await session.raw('GET', '/me')
  expect([raw.status, raw.headers['content-type']]).toEqual([200, 'application/json'])
  // signing for another library
  const signed = await session.sign({ method: 'GET', url: `${server.endpoint}/me` })
  expect((await fetch(signed.url, { headers: { ...signed.headers } })).status).toBe(200)
  expect(session.clientId).toBe(APPLICATION_KEY)
  const error = await errorOf(session.get('/sms'))
  expect(error).toMatchObject({ code: 'RULE_MISSING', serverCode: 'NOT_GRANTED_CALL', requestId: QUERY_ID })
  await session.logout()
  expect(server.to('/auth/logout')).toHaveLength(1)
})

test('a consumer key that is there: no login, no person', async () => {
  const server = await ovhServer({ now: () => Date.now() })
  const application = { applicationKey: APPLICATION_KEY, applicationSecret: APPLICATION_SECRET }
  const way = ovhSignatureAuthorizer({ endpoint: server.endpoint, ...application, consumerKey: CONSUMER_KEY })
  const session = Session.create(server.endpoint, way)
  onTestFinished(() => session.close())
  expect(await session.get('/me')).toMatchObject({ path: '/me' })
})

test('ovh.conf, variables, and both kinds of login', async () => {
  const directory = await freshDirectory()
  const file = join(directory, 'own.conf')
  await writeFile(
    file,
    '[default]\nendpoint=ovh-ca\n[ovh-ca]\napplication_key=a\napplication_secret=b\nconsumer_key=c\n',
    { mode: 0o600 },
  )
  const quiet = { cwd: directory, home: directory, systemFile: join(directory, 'none') }
  expect(await loadOvhConfig({ files: [file], env: {}, ...quiet })).toMatchObject({
    kind: 'signature',
    endpoint: 'ovh-ca',
    applicationKey: 'a',
  })
  const env = { OVH_ENDPOINT: 'ovh-eu', OVH_CLIENT_ID: 'id', OVH_CLIENT_SECRET: 'secret' }
  expect(await loadOvhConfig({ env, ...quiet })).toMatchObject({ kind: 'oauth2', endpoint: 'ovh-eu', clientId: 'id' })
})

test('client id and secret: bearer, by itself, renewed at its end', async () => {
  const clock = fakeClock()
  let issued = 0
  const server = await httpServer(({ path, headers }, response) =>
    path === '/token'
      ? json(response, { access_token: `token-${++issued}`, token_type: 'Bearer', expires_in: 3600, scope: 'all' })
      : json(response, { authorization: headers.authorization }),
  )
  const endpoint = `${server.origin}/1.0`
  const way = ovhOAuth2Authorizer({
    endpoint,
    clientId: 'id',
    clientSecret: 'secret',
    tokenUrl: `${server.origin}/token`,
  })
  const session = Session.create(endpoint, way, { clock, random: steadyRandom() })
  onTestFinished(() => session.close())
  expect(await session.get('/me')).toEqual({ authorization: 'Bearer token-1' })
  clock.advance(3_600_000)
  expect(await session.get('/me')).toEqual({ authorization: 'Bearer token-2' })
})

test('the signature by itself', () => {
  expect(
    ovhSignature({
      applicationSecret: 'a',
      consumerKey: 'b',
      method: 'GET',
      url: 'https://x.example/',
      timestamp: '1',
    }),
  ).toMatch(/^\$1\$[0-9a-f]{40}$/)
})
