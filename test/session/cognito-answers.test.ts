import { getDiffieHellman } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { cognitoSecretHash, cognitoSrpAuthorizer } from '../../src/session/authorizers/cognito-srp.ts'
import { cognitoTimestamp } from '../../src/session/cognito-answers.ts'
import { shared } from '../crypto/support.ts'
import { fakeClock } from '../support/clock.ts'
import {
  CLIENT_ID,
  type CognitoAnswer,
  type CognitoServerOptions,
  cognitoServer,
  POOL,
} from '../support/cognito-server.ts'
import { contextOf, expectNoSecret } from '../support/oauth.ts'
import { dialer, errorOf } from '../support/servers.ts'

const CANARY = 'canary-c0641'

async function login(options: CognitoServerOptions) {
  const server = await cognitoServer(options)
  const account = {
    poolId: POOL,
    clientId: CLIENT_ID,
    userName: 'ann@example.test',
    password: async () => 'the right one',
  }
  const way = cognitoSrpAuthorizer({ ...account, endpoint: server.origin })
  return { server, grant: way.authorize(contextOf(dialer(), fakeClock())) }
}

describe('answers', () => {
  const at = (operation: string, answer: CognitoAnswer): CognitoServerOptions => ({
    alter: (here) => (here === operation ? answer : undefined),
  })
  const exception = (name: string, status = 400) => ({ status, body: { __type: name, message: `${CANARY} text` } })
  const parameter = (name: string, value: unknown): CognitoServerOptions => ({
    alter(operation, answer) {
      if (operation !== 'InitiateAuth') return undefined
      const { ChallengeParameters, ...rest } = answer.body
      return { body: { ...rest, ChallengeParameters: { ...ChallengeParameters, [name]: value } } }
    },
  })
  const result = (change: object): CognitoServerOptions => ({
    alter(operation, { body }) {
      if (operation !== 'RespondToAuthChallenge') return undefined
      return { body: { AuthenticationResult: { ...body.AuthenticationResult, ...change } } }
    },
  })
  const n = BigInt(`0x${getDiffieHellman('modp15').getPrime('hex')}`)

  test.each<[string, object]>([
    ['NotAuthorizedException', { class: 'auth', code: 'WRONG_CREDENTIALS' }],
    ['UserNotFoundException', { class: 'auth', code: 'WRONG_CREDENTIALS' }],
    ['UserNotConfirmedException', { class: 'auth', code: 'ACCOUNT_UNCONFIRMED' }],
    ['PasswordResetRequiredException', { class: 'auth', code: 'PASSWORD_RESET_REQUIRED' }],
    ['CodeMismatchException', { class: 'auth', code: 'CODE_WRONG' }],
    ['ExpiredCodeException', { class: 'auth', code: 'CODE_EXPIRED' }],
    ['InvalidPasswordException', { class: 'auth', code: 'NEW_PASSWORD_REFUSED' }],
    ['SoftwareTokenMFANotFoundException', { class: 'auth', code: 'ENROLMENT_REQUIRED' }],
    ['MFAMethodNotFoundException', { class: 'auth', code: 'ENROLMENT_REQUIRED' }],
    ['ResourceNotFoundException', { class: 'usage', code: 'POOL_UNKNOWN' }],
    ['InvalidParameterException', { class: 'usage', code: 'LOGIN_CONFIGURATION' }],
    ['TooManyRequestsException', { class: 'rate_limit', code: 'RATE_LIMITED', retryable: true }],
    ['LimitExceededException', { class: 'rate_limit', code: 'RATE_LIMITED', retryable: true }],
    ['InternalErrorException', { class: 'server', code: 'UNAVAILABLE', retryable: true }],
    ['UserLambdaValidationException', { class: 'permission', code: 'REFUSED_BY_HOOK' }],
    ['ForbiddenException', { class: 'permission', code: 'BLOCKED' }],
    ['OperationNotEnabledException', { class: 'usage', code: 'LOGIN_CONFIGURATION' }],
    ['MadeUpException', { class: 'usage', code: 'LOGIN_CONFIGURATION' }],
  ])('%s', async (name, expected) => {
    for (const [operation, requests] of [
      ['InitiateAuth', 1],
      ['RespondToAuthChallenge', 2],
    ] as const) {
      const { server, grant } = await login(at(operation, exception(name)))
      const error = await errorOf(grant)
      expect(error).toMatchObject({ name: 'SyncError', ...expected })
      expectNoSecret(error, CANARY)
      expect(server.seen).toHaveLength(requests)
    }
  })

  test('who has an account does not show', async () => {
    const views = await Promise.all(
      ['NotAuthorizedException', 'UserNotFoundException'].map(async (name) => {
        const { message, hint, code, status } = await errorOf((await login(at('InitiateAuth', exception(name)))).grant)
        return { message, hint, code, status }
      }),
    )
    expect(views[0]).toEqual(views[1])
  })

  const html = { body: `<html>${CANARY}`, headers: { 'content-type': 'text/html' } }
  test.each<[string, CognitoServerOptions, object]>([
    ['the name behind a namespace', at('InitiateAuth', exception('a.b#ForbiddenException')), { code: 'BLOCKED' }],
    [
      'the name in a header',
      at('InitiateAuth', { status: 400, body: '', headers: { 'x-amzn-errortype': 'ForbiddenException:http://x' } }),
      { code: 'BLOCKED' },
    ],
    ['an exception with status 200', at('InitiateAuth', exception('ForbiddenException', 200)), { code: 'BLOCKED' }],
    ['a name that is none', at('InitiateAuth', exception(`${CANARY} \u001b[2J`)), { code: 'ANSWER_NOT_JSON' }],
    ['HTML', at('InitiateAuth', html), { class: 'server', code: 'ANSWER_NOT_JSON' }],
    ['HTML after the password', at('RespondToAuthChallenge', html), { class: 'server', code: 'ANSWER_NOT_JSON' }],
    ['a list', at('InitiateAuth', { body: [CANARY] }), { class: 'server', code: 'ANSWER_NOT_JSON' }],
    ['nothing', at('InitiateAuth', { body: '' }), { class: 'server', code: 'ANSWER_INVALID' }],
    ['a redirect', at('InitiateAuth', { ...html, status: 307, headers: { location: '/' } }), { class: 'server' }],
    [
      '429 with Retry-After',
      at('InitiateAuth', { ...html, status: 429, headers: { 'retry-after': '7' } }),
      { class: 'rate_limit', code: 'RATE_LIMITED', retryable: true, retryAfterMs: 7000 },
    ],
    [
      '503',
      at('RespondToAuthChallenge', { ...html, status: 503, headers: { 'retry-after': '9' } }),
      { class: 'server', code: 'UNAVAILABLE', retryable: true, retryAfterMs: 9000 },
    ],
    [
      'tokens without a proof',
      at('InitiateAuth', { body: { AuthenticationResult: { AccessToken: CANARY, RefreshToken: CANARY } } }),
      { class: 'server', code: 'ANSWER_INVALID' },
    ],
    [
      'another first challenge',
      at('InitiateAuth', { body: { ChallengeName: 'SMS_MFA', Session: 'x' } }),
      { class: 'auth', code: 'CHALLENGE_UNSUPPORTED' },
    ],
    ['B = 0', parameter('SRP_B', '0'), { class: 'auth', code: 'SERVER_NOT_TRUSTED' }],
    ['B = N', parameter('SRP_B', n.toString(16)), { class: 'auth', code: 'SERVER_NOT_TRUSTED' }],
    ['B too long', parameter('SRP_B', (2n * n).toString(16)), { class: 'auth', code: 'SERVER_NOT_TRUSTED' }],
    ['B that is no number', parameter('SRP_B', `0x${CANARY}`), { class: 'auth', code: 'SERVER_NOT_TRUSTED' }],
    ['a salt that is no number', parameter('SALT', CANARY), { class: 'auth', code: 'SERVER_NOT_TRUSTED' }],
    ['no salt', parameter('SALT', undefined), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no block', parameter('SECRET_BLOCK', 7), { class: 'server', code: 'ANSWER_INVALID' }],
    ['a block that is not base64', parameter('SECRET_BLOCK', `${CANARY}!`), { code: 'ANSWER_INVALID' }],
    ['no user id', parameter('USER_ID_FOR_SRP', ''), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no access token', result({ AccessToken: undefined }), { class: 'server', code: 'ANSWER_INVALID' }],
    ['no refresh token', result({ RefreshToken: undefined }), { class: 'server', code: 'ANSWER_INVALID' }],
    ['a newline in a token', result({ AccessToken: `${CANARY}\r\nx: y` }), { code: 'TOKEN_MALFORMED' }],
    ['a newline in the id token', result({ IdToken: `${CANARY}\n` }), { code: 'TOKEN_MALFORMED' }],
    ['another kind of token', result({ TokenType: 'mac' }), { code: 'TOKEN_TYPE' }],
    [
      'a result that is none',
      at('RespondToAuthChallenge', { body: { AuthenticationResult: 1 } }),
      { code: 'ANSWER_INVALID' },
    ],
  ])('%s', async (_name, server, expected) => {
    const made = await login(server)
    const error = await errorOf(made.grant)
    expect(error).toMatchObject({ name: 'SyncError', ...expected })
    expectNoSecret(error, CANARY, 'refresh-')
    expect(made.server.operations().filter((one) => one === 'RespondToAuthChallenge').length).toBeLessThan(2)
  })

  test.each<[unknown, number]>([
    [undefined, 300_000],
    ['3600', 300_000],
    [-1, 300_000],
    [0, 30_000],
    [60, 60_000],
    [1e9, 86_400_000],
  ])('ExpiresIn %s lives %i ms', async (ExpiresIn, lifetimeMs) => {
    expect(await (await login(result({ ExpiresIn }))).grant).toMatchObject({ lifetimeMs })
  })
})

describe('small parts', () => {
  test.each([
    [Date.UTC(2026, 0, 5, 4, 7, 9), 'Mon Jan 5 04:07:09 UTC 2026'],
    [Date.UTC(2026, 11, 31, 0, 0, 1), 'Thu Dec 31 00:00:01 UTC 2026'],
    [Date.UTC(2024, 1, 29, 23, 59, 59, 999), 'Thu Feb 29 23:59:59 UTC 2024'],
  ])('time %i', (now, text) => expect(cognitoTimestamp(now)).toBe(text))

  test('secret hash', () => {
    // Made with Python: hmac over "zoë" and the client id, key "sécret".
    expect(cognitoSecretHash('zoë', CLIENT_ID, 'sécret')).toBe('vKof7NsvUUiG6QtFBpW0bea/SfCR1FW+FU28zWqfkwY=')
  })

  interface Examples {
    cases: { id: string; unixMs: number; TIMESTAMP: string }[]
    secretHash: { username: string; clientId: string; clientSecret: string; SECRET_HASH: string }[]
  }
  const examples = shared<Examples>('auth/cognito-srp.json')
  test.skipIf(examples === undefined)('worked examples: times and secret hashes', () => {
    for (const { unixMs, TIMESTAMP } of examples!.cases) expect(cognitoTimestamp(unixMs)).toBe(TIMESTAMP)
    for (const { username, clientId, clientSecret, SECRET_HASH } of examples!.secretHash) {
      expect(cognitoSecretHash(username, clientId, clientSecret)).toBe(SECRET_HASH)
    }
  })
})
