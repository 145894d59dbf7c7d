/**
 * The error classes of the clients that the session is modelled on, each one caused at a server, and what they are called here. The
 * table in docs/session/coming-from.md has the same rows.
 */
import { readFileSync } from 'node:fs'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { call } from '../../src/api/api.ts'
import {
  type Authorizer,
  accessTokenAuthorizer,
  authorizationCodeFlow,
  clientCredentialsAuthorizer,
  cognitoSrpAuthorizer,
  importProtonSession,
  jwtBearerAuthorizer,
  memoryGrantStore,
  ovhOAuth2Authorizer,
  ovhSignatureAuthorizer,
  passwordAuthorizer,
  protonSrpAuthorizer,
  refreshTokenAuthorizer,
  Session,
} from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { CLIENT_ID, cognitoServer, POOL } from '../support/cognito-server.ts'
import { contextOf, grantOf, tokenServer } from '../support/oauth.ts'
import { ovhServer, ovhWorld, refuse } from '../support/ovh-server.ts'
import { type ProtonServerOptions, protonServer } from '../support/proton-server.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'
import { createAuthority } from '../support/tls.ts'

const authority = createAuthority()
afterAll(() => authority.remove())

const closed = (session: Session) => {
  onTestFinished(() => session.close())
  return session
}

/** A request with a login at a Proton-style server that answers it so. */
async function proton(
  status: number,
  Code: number,
  more: Partial<ProtonServerOptions> = {},
  password = 'the right one',
) {
  const server = await protonServer({
    alter: (step, answer) => (step === 'api' && Code !== 0 ? { status, body: { Code, Error: 'x' } } : answer),
    ...more,
  })
  const options = { userName: 'ann', password: async () => password, modulusKey: server.modulusKey }
  const way = protonSrpAuthorizer(server.origin, options)
  const session = closed(Session.create(server.origin, way, { clock: fakeClock(), retryForMs: 0, autoLogin: false }))
  return { server, session }
}

const protonCall = (status: number, code: number) => async () => {
  const { server, session } = await proton(status, code)
  await session.adopt(server.seat())
  return session.get('/x')
}

const bearer: Authorizer = { name: 'x', authorize: async ({ clock }) => grantOf(clock, 'x') }

/** A request to a server that answers it so. */
const generic =
  (answer: (response: import('node:http').ServerResponse) => unknown, https = false) =>
  async () => {
    const server = await httpServer((_seen, response) => answer(response), https ? authority.issue() : undefined)
    const session = closed(Session.create(server.origin, bearer, { clock: fakeClock(), retryForMs: 0 }))
    await session.login()
    return session.get('/x')
  }

const ovh = (status: number, errorCode: string) => async () => {
  const { session } = await ovhWorld({
    fault: ({ target }, response) => target.endsWith('/me') && refuse(response, status, errorCode) !== undefined,
  })
  return session.get('/me')
}

/** A call of the DRACOON client. */
const dracoon = (status: number, errorCode?: number) => async () => {
  const server = await httpServer((_seen, response) =>
    json(response, { code: status, message: 'No', ...(errorCode === undefined ? {} : { errorCode }) }, status),
  )
  const send = dialer()
  return call({ origin: server.origin, send, sendPlain: send }, { method: 'GET', path: '/v4/nodes' })
}

/** A login with a token endpoint that answers so. */
const oauth =
  (body: unknown, status = 400) =>
  async () => {
    const server = await tokenServer((_form, response) => json(response, body, status))
    const way = clientCredentialsAuthorizer(server.origin, { client: { id: 'a', secret: 'b' } })
    return way.authorize(contextOf(dialer(), fakeClock()))
  }

/** An SRP login at a pool that answers so. */
const pool =
  (exception: string, status = 400) =>
  async () => {
    const server = await cognitoServer({
      alter: (_operation, _answer) => ({ status, body: { __type: exception, message: 'x' } }),
    })
    const account = {
      poolId: POOL,
      clientId: CLIENT_ID,
      endpoint: server.origin,
      userName: 'ann',
      password: async () => 'x',
    }
    return cognitoSrpAuthorizer(account).authorize(contextOf(dialer(), fakeClock()))
  }

const REFUSE_GRANT = (_form: unknown, response: import('node:http').ServerResponse) =>
  json(response, { error: 'invalid_grant' }, 400)

type Row = readonly [model: string, theirs: string, ours: string, cause: () => Promise<unknown>]

const ROWS: readonly Row[] = [
  [
    'Proton',
    'ProtonAPIError 401, after one renewal',
    'auth LOGIN_NEEDED',
    async () => {
      const { server, session } = await proton(200, 0)
      await session.adopt(server.seat())
      server.forget()
      return session.get('/x')
    },
  ],
  ['Proton', 'ProtonAPIError 403', 'auth SCOPE_MISSING', protonCall(403, 403)],
  ['Proton', 'ProtonAPIError 429', 'rate_limit RATE_LIMITED', protonCall(429, 2028)],
  ['Proton', 'ProtonAPIError 503', 'server UNAVAILABLE', protonCall(503, 503)],
  ['Proton', 'ProtonAPIError 2001', 'permission REQUEST_REFUSED', protonCall(422, 2001)],
  ['Proton', 'ProtonAPIError 5001, 5003', 'usage CLIENT_REJECTED', protonCall(422, 5003)],
  [
    'Proton',
    'ProtonAPIError 8002',
    'auth WRONG_CREDENTIALS',
    async () => (await proton(200, 0, {}, 'wrong')).session.login(),
  ],
  ['Proton', 'ProtonAPIError 9001, 12087', 'auth HUMAN_VERIFICATION', protonCall(422, 9001)],
  ['Proton', 'ProtonAPIError 10002', 'auth ACCOUNT_DELETED', protonCall(422, 10_002)],
  ['Proton', 'ProtonAPIError 10003', 'auth ACCOUNT_DISABLED', protonCall(422, 10_003)],
  ['Proton', 'ProtonAPIError 10004', 'permission REQUEST_REFUSED', protonCall(422, 10_004)],
  ['Proton', 'ProtonAPIError 10013', 'auth GRANT_REFUSED', protonCall(422, 10_013)],
  [
    'Proton',
    'ValueError: invalid modulus',
    'auth SERVER_NOT_TRUSTED',
    async () => {
      const { session } = await proton(200, 0, { modulus: (key) => key.message('AAAA').replace('AAAA', 'AAAB') })
      return session.login()
    },
  ],
  [
    'Proton',
    'ValueError: invalid server proof',
    'auth SERVER_NOT_TRUSTED',
    async () => {
      const { session } = await proton(200, 0, {
        alter: (step, answer) =>
          step === 'login' ? { body: { ...answer.body, ServerProof: Buffer.alloc(256).toString('base64') } } : answer,
      })
      return session.login()
    },
  ],
  ['Proton', 'a dump that is none', 'usage SESSION_INVALID', async () => importProtonSession({})],
  [
    'Proton',
    'TLSPinningError',
    'tls PIN_MISMATCH',
    async () => {
      const server = await httpServer((_seen, response) => json(response, {}), authority.issue())
      const pins = [0, 1].map((fill) => `sha256/${Buffer.alloc(32, fill).toString('base64')}`)
      const session = closed(Session.create(server.origin, bearer, { transport: { ca: [authority.cert], pins } }))
      await session.login()
      return session.get('/x')
    },
  ],
  [
    'Proton',
    'NewConnectionError',
    'network NETWORK',
    async () => {
      const session = closed(Session.create('http://127.0.0.1:1', bearer, { retryForMs: 0 }))
      await session.login()
      return session.get('/x')
    },
  ],
  [
    'Proton',
    'ConnectionTimeOutError',
    'network TIMEOUT_TOTAL',
    async () => {
      const server = await httpServer(() => {})
      const session = closed(
        Session.create(server.origin, bearer, { retryForMs: 0, transport: { totalTimeoutMs: 50 } }),
      )
      await session.login()
      return session.get('/x')
    },
  ],
  ['Proton', 'UnknownConnectionError', 'tls CERT_UNTRUSTED', generic((response) => json(response, {}), true)],

  ['DRACOON', 'HTTPBadRequestError', 'permission REQUEST_REFUSED', dracoon(400)],
  ['DRACOON', 'HTTPUnauthorizedError', 'auth UNAUTHORIZED', dracoon(401)],
  ['DRACOON', 'HTTPUnauthorizedError, -10003', 'auth ACCOUNT_LOCKED', dracoon(401, -10_003)],
  ['DRACOON', 'HTTPPaymentRequiredError', 'permission PAYMENT', dracoon(402)],
  ['DRACOON', 'HTTPForbiddenError', 'permission FORBIDDEN', dracoon(403)],
  ['DRACOON', 'HTTPForbiddenError, -40761 (CryptoMissingFileKeyError)', 'key FILE_KEY_MISSING', dracoon(403, -40_761)],
  ['DRACOON', 'HTTPNotFoundError', 'not_found NOT_FOUND', dracoon(404)],
  ['DRACOON', 'HTTPNotFoundError, -70020 (CryptoMissingKeypairError)', 'key NO_KEY_PAIR', dracoon(404, -70_020)],
  ['DRACOON', 'HTTPConflictError (FileConflictError)', 'conflict EXISTS', dracoon(409)],
  ['DRACOON', 'HTTPPreconditionsFailedError', 'permission PRECONDITION', dracoon(412)],
  ['DRACOON', 'HTTPTooManyRequestsError', 'rate_limit RATE_LIMITED', dracoon(429)],
  ['DRACOON', 'HTTPStorageError (507)', 'quota QUOTA', dracoon(507)],
  ['DRACOON', 'HTTPInternalServerError, HTTPBadGatewayError', 'server SERVER', dracoon(502)],
  ['DRACOON', 'HTTPUnknownError', 'permission REQUEST_REFUSED', dracoon(418)],
  [
    'DRACOON',
    'ClientDisconnectedError',
    'auth LOGIN_NEEDED',
    async () => Session.create('http://127.0.0.1:1', bearer).get('/x'),
  ],
  ['DRACOON', 'InvalidClientError', 'auth CLIENT_REFUSED', oauth({ error: 'invalid_client' }, 401)],
  [
    'DRACOON',
    'HTTPBadRequestError: wrong password',
    'auth WRONG_CREDENTIALS',
    async () => {
      const server = await tokenServer(REFUSE_GRANT)
      const way = passwordAuthorizer(server.origin, { userName: 'a', password: async () => 'b' })
      return way.authorize(contextOf(dialer(), fakeClock()))
    },
  ],

  ['OVH', 'BadParametersError', 'usage BAD_REQUEST', ovh(400, 'X')],
  ['OVH', 'NotGrantedCall', 'auth RULE_MISSING', ovh(403, 'NOT_GRANTED_CALL')],
  ['OVH', 'NotCredential', 'auth LOGIN_NEEDED', ovh(403, 'NOT_CREDENTIAL')],
  ['OVH', 'InvalidCredential', 'auth LOGIN_NEEDED', ovh(403, 'INVALID_CREDENTIAL')],
  ['OVH', 'InvalidKey: unknown at the service', 'usage APPLICATION_KEY_WRONG', ovh(403, 'INVALID_KEY')],
  [
    'OVH',
    'InvalidKey: none given',
    'usage APPLICATION_KEY_WRONG',
    async () => ovhSignatureAuthorizer({ endpoint: 'ovh-eu', applicationKey: '', applicationSecret: 'x' }),
  ],
  ['OVH', 'Forbidden', 'permission FORBIDDEN', ovh(403, 'FORBIDDEN')],
  ['OVH', 'ResourceNotFoundError', 'not_found NOT_FOUND', ovh(404, 'X')],
  ['OVH', 'ResourceConflictError', 'conflict CONFLICT', ovh(409, 'X')],
  ['OVH', 'ResourceExpiredError', 'not_found GONE', ovh(460, 'X')],
  ['OVH', 'APIError 429', 'rate_limit RATE_LIMITED', ovh(429, 'X')],
  ['OVH', 'APIError 500', 'server SERVER', ovh(500, 'X')],
  [
    'OVH',
    'InvalidResponse',
    'server ANSWER_NOT_JSON',
    async () => {
      const { session } = await ovhWorld({
        fault: ({ target }, response) => target.endsWith('/me') && response.end('<p>') !== undefined,
      })
      return session.get('/me')
    },
  ],
  [
    'OVH',
    'InvalidRegion',
    'usage REGION_UNKNOWN',
    async () => ovhSignatureAuthorizer({ endpoint: 'ovh-xx', applicationKey: 'a', applicationSecret: 'x' }),
  ],
  [
    'OVH',
    'OAuth2FailureError',
    'auth CLIENT_REFUSED',
    async () => {
      const server = await httpServer((_seen, response) => json(response, { error: 'invalid_client' }, 401))
      const options = { clientId: 'a', clientSecret: 'b', tokenUrl: `${server.origin}/token` }
      const way = ovhOAuth2Authorizer({ endpoint: `${server.origin}/1.0`, ...options })
      return way.authorize(contextOf(dialer(), fakeClock()))
    },
  ],
  [
    'OVH',
    'HTTPError, NetworkError',
    'network NETWORK',
    async () => {
      const server = await ovhServer({ now: () => Date.UTC(2026, 1) })
      const way = ovhSignatureAuthorizer({
        endpoint: `${server.origin.replace(/\d+$/, '1')}/1.0`,
        applicationKey: 'a',
        applicationSecret: 'x',
      })
      const store = memoryGrantStore({ v: 1, accessToken: 'x' })
      return closed(Session.create('http://127.0.0.1:1/1.0', way, { store, retryForMs: 0 })).get('/me')
    },
  ],

  ['User pool', 'NotAuthorizedException', 'auth WRONG_CREDENTIALS', pool('NotAuthorizedException')],
  ['User pool', 'UserNotFoundException', 'auth WRONG_CREDENTIALS', pool('UserNotFoundException')],
  ['User pool', 'UserNotConfirmedException', 'auth ACCOUNT_UNCONFIRMED', pool('UserNotConfirmedException')],
  [
    'User pool',
    'PasswordResetRequiredException',
    'auth PASSWORD_RESET_REQUIRED',
    pool('PasswordResetRequiredException'),
  ],
  ['User pool', 'CodeMismatchException', 'auth CODE_WRONG', pool('CodeMismatchException')],
  ['User pool', 'ExpiredCodeException', 'auth CODE_EXPIRED', pool('ExpiredCodeException')],
  ['User pool', 'InvalidPasswordException', 'auth NEW_PASSWORD_REFUSED', pool('InvalidPasswordException')],
  [
    'User pool',
    'SoftwareTokenMFANotFoundException',
    'auth ENROLMENT_REQUIRED',
    pool('SoftwareTokenMFANotFoundException'),
  ],
  ['User pool', 'ResourceNotFoundException', 'usage POOL_UNKNOWN', pool('ResourceNotFoundException')],
  ['User pool', 'InvalidParameterException', 'usage LOGIN_CONFIGURATION', pool('InvalidParameterException')],
  ['User pool', 'TooManyRequestsException', 'rate_limit RATE_LIMITED', pool('TooManyRequestsException')],
  ['User pool', 'InternalErrorException', 'server UNAVAILABLE', pool('InternalErrorException', 500)],
  ['User pool', 'UserLambdaValidationException', 'permission REFUSED_BY_HOOK', pool('UserLambdaValidationException')],
  ['User pool', 'ForbiddenException', 'permission BLOCKED', pool('ForbiddenException')],
  [
    'User pool',
    'ForceChangePasswordException',
    'auth NEW_PASSWORD_REQUIRED',
    async () => {
      const server = await cognitoServer({ challenges: [{ name: 'NEW_PASSWORD_REQUIRED' }] })
      const account = { poolId: POOL, clientId: CLIENT_ID, endpoint: server.origin, userName: 'ann' }
      return cognitoSrpAuthorizer({ ...account, password: async () => 'the right one' }).authorize(
        contextOf(dialer(), fakeClock()),
      )
    },
  ],
  [
    'User pool',
    'SoftwareTokenMFAChallengeException',
    'auth CODE_REQUIRED',
    async () => {
      const server = await cognitoServer({ challenges: [{ name: 'SOFTWARE_TOKEN_MFA' }] })
      const account = { poolId: POOL, clientId: CLIENT_ID, endpoint: server.origin, userName: 'ann' }
      return cognitoSrpAuthorizer({ ...account, password: async () => 'the right one' }).authorize(
        contextOf(dialer(), fakeClock()),
      )
    },
  ],

  [
    'Service account',
    'a key that cannot be read',
    'key KEY_INVALID',
    async () => {
      const server = await tokenServer()
      const way = jwtBearerAuthorizer(server.origin, { issuer: 'a', key: { pem: 'x' } })
      return way.authorize(contextOf(dialer(), fakeClock()))
    },
  ],
  [
    'Service account',
    'an unknown environment',
    'usage ENVIRONMENT_UNKNOWN',
    async () =>
      clientCredentialsAuthorizer('https://x.example', { client: { id: 'a', secret: 'b' }, environment: 'test' }),
  ],
  [
    'Service account',
    'a client without a secret',
    'usage CLIENT_INVALID',
    async () => clientCredentialsAuthorizer('https://x.example', { client: { id: 'a' } }),
  ],

  ['OAuth', 'invalid_client', 'auth CLIENT_REFUSED', oauth({ error: 'invalid_client' }, 401)],
  ['OAuth', 'invalid_grant', 'auth GRANT_REFUSED', oauth({ error: 'invalid_grant' })],
  ['OAuth', 'unauthorized_client', 'auth CLIENT_NOT_ALLOWED', oauth({ error: 'unauthorized_client' })],
  ['OAuth', 'unsupported_grant_type', 'auth GRANT_TYPE_UNSUPPORTED', oauth({ error: 'unsupported_grant_type' })],
  ['OAuth', 'invalid_scope', 'auth SCOPE_REFUSED', oauth({ error: 'invalid_scope' })],
  ['OAuth', 'access_denied', 'auth LOGIN_DENIED', oauth({ error: 'access_denied' })],
  ['OAuth', 'expired_token', 'auth DEVICE_CODE_EXPIRED', oauth({ error: 'expired_token' })],
  ['OAuth', 'server_error, temporarily_unavailable', 'server SERVER', oauth({ error: 'temporarily_unavailable' })],
  ['OAuth', 'invalid_request and any other', 'auth OAUTH_REFUSED', oauth({ error: 'invalid_request' })],
  ['OAuth', 'MissingTokenError', 'server OAUTH_ANSWER', oauth({ token_type: 'bearer' }, 200)],
  ['OAuth', 'a token of another type', 'server OAUTH_ANSWER', oauth({ access_token: 'a', token_type: 'mac' }, 200)],
  [
    'OAuth',
    'insufficient_scope (RFC 6750)',
    'auth SCOPE_MISSING',
    generic((response) => json(response, {}, 403, { 'www-authenticate': 'Bearer error="insufficient_scope"' })),
  ],
  [
    'OAuth',
    'TokenExpiredError, no way to renew',
    'auth LOGIN_NEEDED',
    async () => {
      const clock = fakeClock()
      const { refreshToken: _, ...grant } = grantOf(clock, 'x', 0)
      const way: Authorizer = { name: 'x', authorize: async () => grant }
      return Session.create('http://127.0.0.1:1', way, { clock, store: memoryGrantStore(grant) }).get('/x')
    },
  ],
  [
    'OAuth',
    'a refresh token that was used before',
    'auth TOKEN_REFUSED',
    async () => {
      const server = await tokenServer()
      const way = refreshTokenAuthorizer(server.origin, { client: { id: 'a' }, refreshToken: async () => 'once' })
      await way.authorize(contextOf(dialer(), fakeClock()))
      return way.authorize(contextOf(dialer(), fakeClock()))
    },
  ],
  [
    'OAuth',
    'MismatchingStateError',
    'auth STATE_UNKNOWN',
    async () => {
      const flow = authorizationCodeFlow('https://x.example', {
        client: { id: 'a' },
        redirectUri: 'https://y.example/',
      })
      return flow.redeem('code', 'another state')
    },
  ],
  [
    'OAuth',
    'InsecureTransportError',
    'usage URL_INSECURE',
    async () => clientCredentialsAuthorizer('http://x.example', { client: { id: 'a', secret: 'b' } }),
  ],
  [
    'OAuth',
    'a token with a line end',
    'usage TOKEN_MALFORMED',
    async () => accessTokenAuthorizer(async () => 'a\nb').authorize(contextOf(dialer(), fakeClock())),
  ],
]

test.each(ROWS)('%s: %s is %s', async (_model, _theirs, ours, cause) => {
  const error = await errorOf(cause())
  expect(`${error.class} ${error.code}`, error.stack).toBe(ours)
})

test('the table in docs/session/coming-from.md has these rows', () => {
  const text = readFileSync(new URL('../../docs/session/coming-from.md', import.meta.url), 'utf8')
  const table = text.slice(text.indexOf('## Errors'))
  const rows = [...table.matchAll(/^\| ([^|]+) \| ([^|]+) \| `([a-z_]+)` \| `([A-Z_]+)` \|$/gm)]
  expect(rows.map(([, ...cells]) => cells.map((cell) => cell.trim()).join(' | '))).toEqual(
    ROWS.map(([model, theirs, ours]) => `${model} | ${theirs} | ${ours.replace(' ', ' | ')}`),
  )
})
