/**
 * Every way to log in that needs no person, each against everything that a server can answer at its worst: an error that says so, nothing
 * kept, no secret shown, nothing sent anywhere else, and no hammering.
 */
import { generateKeyPairSync } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { gzipSync } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import {
  type Authorizer,
  clientCredentialsAuthorizer,
  cognitoSrpAuthorizer,
  jwtBearerAuthorizer,
  memoryGrantStore,
  ovhOAuth2Authorizer,
  ovhSignatureAuthorizer,
  passwordAuthorizer,
  protonSrpAuthorizer,
  refreshTokenAuthorizer,
  Session,
} from '../../src/session/index.ts'
import { expectNoSecret } from '../support/oauth.ts'
import { errorOf, httpServer } from '../support/servers.ts'

const SECRET = 'canary-5ec4e7-of-the-user'
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = String(privateKey.export({ type: 'pkcs8', format: 'pem' }))
const application = { applicationKey: 'a'.repeat(16), applicationSecret: SECRET }
const asked = async () => SECRET

const WAYS: Record<string, (origin: string) => Authorizer> = {
  password: (origin) => passwordAuthorizer(origin, { userName: 'ann', password: asked, client: { id: 'app' } }),
  'client credentials': (origin) => clientCredentialsAuthorizer(origin, { client: { id: 'app', secret: SECRET } }),
  'JWT bearer': (origin) => jwtBearerAuthorizer(origin, { issuer: 'app', key: { pem } }),
  'refresh token': (origin) => refreshTokenAuthorizer(origin, { client: { id: 'app' }, refreshToken: asked }),
  Proton: (origin) => protonSrpAuthorizer(origin, { userName: 'ann', password: asked, appVersion: 'Test_1.0' }),
  'user pool': (origin) =>
    cognitoSrpAuthorizer({ poolId: 'eu-1_Test', clientId: 'app', endpoint: origin, userName: 'ann', password: asked }),
  'OVH service account': (origin) =>
    ovhOAuth2Authorizer({ endpoint: origin, tokenUrl: `${origin}/token`, clientId: 'app', clientSecret: SECRET }),
  'OVH application': (origin) =>
    ovhSignatureAuthorizer({ endpoint: origin, ...application, accessRules: [{ method: 'GET', path: '/*' }] }),
}

const JSON_TYPE = { 'content-type': 'application/json' }
const said =
  (body: string | Uint8Array, status = 200, headers: Record<string, string> = {}) =>
  (response: ServerResponse) =>
    response.writeHead(status, { ...JSON_TYPE, ...headers }).end(body)
const bomb = gzipSync(`{"access_token":"${'a'.repeat(17 * 1024 * 1024)}"}`)
const pollution = '{"__proto__":{"access_token":"x"},"constructor":{"prototype":{"isAdmin":true}}}'

/** What is answered to whatever is asked. */
const ANSWERS: Record<string, (response: ServerResponse, other: string) => unknown> = {
  'a compressed bomb': said(bomb, 200, { 'content-encoding': 'gzip' }),
  'an error that is a compressed bomb': said(bomb, 400, { 'content-encoding': 'gzip' }),
  'a body of 17 MiB': said(`{"a":"${'x'.repeat(17 * 1024 * 1024)}"}`),
  'lists in lists in lists': said('['.repeat(200_000)),
  'a list': said('[]'),
  nothing: said('null'),
  'a number': said('12'),
  'half of it': said('{"access_token":"abc'),
  'a page': said('<html>Log in here</html>', 200, { 'content-type': 'text/html' }),
  prototypes: said(pollution),
  'wrong types': said(
    '{"access_token":{"a":1},"token_type":["bearer"],"expires_in":"never","Code":"1000","Session":7}',
  ),
  'a header of 40 KiB': said('{}', 200, { 'x-long': 'y'.repeat(40_000) }),
  'a redirect to somebody else': (response, other) => response.writeHead(307, { location: `${other}/steal` }).end(),
  'another server for everything': (response, other) =>
    said(JSON.stringify({ issuer: other, token_endpoint: `${other}/token`, revocation_endpoint: `${other}/token` }))(
      response,
    ),
  'a broken connection': (response) => response.destroy(),
  'an error of its own': said('{"error":"server_error","message":"no","Code":5}', 500),
}

/** Those that look for metadata. */
const OAUTH = ['password', 'client credentials', 'JWT bearer', 'refresh token']

for (const metadata of ['', 'without metadata, ']) {
  const ways = metadata === '' ? Object.keys(WAYS) : OAUTH
  test.each(ways.flatMap((way) => Object.keys(ANSWERS).map((answer) => [way, answer] as const)))(
    `${metadata}%s: %s`,
    async (way, answer) => {
      const other = await httpServer((_seen, response) => response.writeHead(500).end())
      const server = await httpServer(({ path }, response) => {
        if (metadata !== '' && path.startsWith('/.well-known/')) return response.writeHead(404).end()
        return ANSWERS[answer]!(response, other.origin)
      })
      const store = memoryGrantStore()
      const session = Session.create(server.origin, WAYS[way]!(server.origin), { store, retryForMs: 0 })
      onTestFinished(() => session.close())
      const error = await errorOf(session.login())
      expect(error, String(error?.stack)).toMatchObject({
        name: 'SyncError',
        class: expect.not.stringMatching('internal'),
      })
      expectNoSecret(error, SECRET)
      expect(await store.load()).toBeUndefined()
      expect(other.seen).toEqual([])
      expect(server.seen.length).toBeLessThanOrEqual(4)
      expect(error.message.length).toBeLessThan(1_000)
      expect(({} as { isAdmin?: boolean }).isAdmin).toBeUndefined()
    },
  )
}
