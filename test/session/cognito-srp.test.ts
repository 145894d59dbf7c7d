import { describe, expect, onTestFinished, test } from 'vitest'
import type { Grant } from '../../src/session/authorizer.ts'
import {
  type CodeRequest,
  type CognitoSrpOptions,
  cognitoSecretHash,
  cognitoSrpAuthorizer,
  type NewPasswordRequest,
} from '../../src/session/authorizers/cognito-srp.ts'
import { memoryGrantStore } from '../../src/session/grant-store.ts'
import { Session } from '../../src/session/index.ts'
import { failure } from '../crypto/support.ts'
import { fakeClock } from '../support/clock.ts'
import {
  CLIENT_ID,
  type CognitoServer,
  type CognitoServerOptions,
  cognitoServer,
  POOL,
  USER_ID,
} from '../support/cognito-server.ts'
import { contextOf, expectNoSecret } from '../support/oauth.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-c0641'
const LOGIN = ['InitiateAuth', 'RespondToAuthChallenge']

const way = (server: CognitoServer, options: Partial<CognitoSrpOptions> = {}) =>
  cognitoSrpAuthorizer({
    poolId: POOL,
    clientId: CLIENT_ID,
    endpoint: server.origin,
    userName: 'ann@example.test',
    password: async () => 'the right one',
    ...options,
  })

async function login(server: CognitoServerOptions = {}, options: Partial<CognitoSrpOptions> = {}) {
  const made = await cognitoServer(server)
  const clock = fakeClock()
  const context = contextOf(dialer(), clock)
  const authorizer = way(made, options)
  return { server: made, clock, context, way: authorizer, grant: authorizer.authorize(context) }
}

describe('login', () => {
  test('tokens, lifetime and the id that belongs to them', async () => {
    const { server, clock, grant } = await login()
    expect(await grant).toEqual({
      v: 1,
      accessToken: expect.stringMatching(/^[\w.-]+$/),
      refreshToken: 'refresh-1',
      expiresAt: clock.now() + 3_600_000,
      lifetimeMs: 3_600_000,
      extra: { userId: USER_ID, idToken: expect.stringMatching(/^[\w.-]+$/) },
    })
    expect(server.operations()).toEqual(LOGIN)
    for (const { headers, path, body } of server.seen) {
      expect(path).toBe('/')
      expect(headers).toMatchObject({ 'content-type': 'application/x-amz-json-1.1', 'cache-control': 'no-store' })
      expect(headers.authorization).toBeUndefined()
      expect(body).not.toContain('the right one')
    }
    const [first, second] = server.bodies()
    expect(first).toEqual({
      AuthFlow: 'USER_SRP_AUTH',
      ClientId: CLIENT_ID,
      AuthParameters: { USERNAME: 'ann@example.test', SRP_A: expect.stringMatching(/^[1-9a-f][0-9a-f]+$/) },
    })
    expect(Object.keys(second.ChallengeResponses).sort()).toEqual([
      'PASSWORD_CLAIM_SECRET_BLOCK',
      'PASSWORD_CLAIM_SIGNATURE',
      'TIMESTAMP',
      'USERNAME',
    ])
    expect(second.ChallengeResponses).toMatchObject({ USERNAME: USER_ID, TIMESTAMP: 'Thu Jan 15 12:00:00 UTC 2026' })
  })

  test('with a client secret: each request hashes the name it carries', async () => {
    const clientSecret = `${CANARY}-sécret`
    const { server, context, way, grant } = await login({ clientSecret }, { clientSecret, clientMetadata: { a: 'b' } })
    await way.renew!(await grant, context)
    const [first, second, third] = server.bodies()
    expect(first.AuthParameters.SECRET_HASH).toBe(cognitoSecretHash('ann@example.test', CLIENT_ID, clientSecret))
    expect(second.ChallengeResponses.SECRET_HASH).toBe(cognitoSecretHash(USER_ID, CLIENT_ID, clientSecret))
    expect(third.AuthParameters.SECRET_HASH).toBe(cognitoSecretHash(USER_ID, CLIENT_ID, clientSecret))
    expect(first.ClientMetadata).toEqual({ a: 'b' })
    for (const { body } of server.seen) expect(body).not.toContain(CANARY)
    await way.revoke!(await grant, context)
    expect(server.bodies().at(-1)).toEqual({ Token: 'refresh-1', ClientId: CLIENT_ID, ClientSecret: clientSecret })
  })

  test.each(['pässwörd-密码-🔑', ' blank ', 'x'.repeat(300)])('password %s', async (password) => {
    expect(await (await login({ password }, { password: async () => password })).grant).toMatchObject({ v: 1 })
  })

  test('a wrong password is sent once, and never shown', async () => {
    let asked = 0
    const { server, grant } = await login({}, { password: async () => `${CANARY}${++asked}` })
    const error = await errorOf(grant)
    expect(error).toMatchObject({ class: 'auth', code: 'WRONG_CREDENTIALS', retryable: false, status: 400 })
    expectNoSecret(error, CANARY, 'Text for people')
    expect(asked).toBe(1)
    expect(server.operations()).toEqual(LOGIN)
  })

  test('an answer that comes too late, or from a wrong clock: sent once, and the hint names the difference', async () => {
    const late: CognitoServerOptions['alter'] = (operation, answer) =>
      operation === 'RespondToAuthChallenge'
        ? {
            status: 400,
            body: { __type: 'NotAuthorizedException', message: `late ${CANARY}` },
            headers: { date: 'Thu, 15 Jan 2026 12:42:00 GMT' },
          }
        : answer
    const { server, grant } = await login({ alter: late })
    const error = await errorOf(grant)
    expect(error).toMatchObject({ code: 'WRONG_CREDENTIALS', retryable: false })
    expect(error.hint).toContain('42 minutes behind')
    expectNoSecret(error, CANARY)
    expect(server.operations()).toEqual(LOGIN)
  })

  test.each(['', '\ud800'])('a password that cannot be one is not sent: %j', async (password) => {
    const { server, grant } = await login({}, { password: async () => password })
    expect(await errorOf(grant)).toMatchObject({ class: 'usage', code: 'PASSWORD_INVALID' })
    expect(server.seen).toHaveLength(0)
  })

  test.each(['', 'pool', 'eu-1_', '_x', 'eu-1_a-b', `eu-1_${'x'.repeat(60)}`, 'e/u_x'])(
    'pool id %s',
    async (poolId) => {
      const make = () => cognitoSrpAuthorizer({ poolId, clientId: 'c', userName: 'u', password: async () => 'p' })
      expect(await failure(make)).toBe('usage POOL_ID_INVALID')
    },
  )

  test('without an endpoint it is that of the region; plain http is refused', async () => {
    let url = ''
    const options = { poolId: POOL, clientId: 'c', userName: 'u', password: async () => 'p' }
    const send = async (request: { url: string }) => {
      url = request.url
      throw new Error('stop')
    }
    await errorOf(cognitoSrpAuthorizer(options).authorize(contextOf(send, fakeClock())))
    expect(url).toBe('https://cognito-idp.eu-test-1.amazonaws.com/')
    const insecure = () => cognitoSrpAuthorizer({ ...options, endpoint: 'http://pool.test' })
    expect(await failure(insecure)).toBe('usage URL_INSECURE')
  })
})

describe('further challenges', () => {
  const code = (name: string, field: string) => ({
    name,
    accepts: (responses: Record<string, string>) => (responses[field] === '123456' ? true : 'CodeMismatchException'),
  })

  test.each([
    ['SMS_MFA', 'SMS_MFA_CODE', 'sms'],
    ['SOFTWARE_TOKEN_MFA', 'SOFTWARE_TOKEN_MFA_CODE', 'totp'],
    ['EMAIL_OTP', 'EMAIL_OTP_CODE', 'email'],
    ['SMS_OTP', 'SMS_OTP_CODE', 'sms'],
  ])('%s', async (name, field, kind) => {
    const asked: CodeRequest[] = []
    const parameters = { CODE_DELIVERY_DESTINATION: '+*******99' }
    const ask = async (request: CodeRequest) => {
      asked.push(request)
      return ' 123456\n'
    }
    const { server, grant } = await login({ challenges: [{ ...code(name, field), parameters }] }, { code: ask })
    await grant
    expect(asked).toEqual([{ kind, attempt: 1, destination: '+*******99' }])
    expect(server.bodies().at(-1).ChallengeResponses).toEqual({ USERNAME: USER_ID, [field]: '123456' })
  })

  test('a mistyped code is asked for again, a few times', async () => {
    const answers = ['1', '2', '123456']
    const challenges = [code('SOFTWARE_TOKEN_MFA', 'SOFTWARE_TOKEN_MFA_CODE')]
    const fine = await login({ challenges }, { code: async ({ attempt }) => answers[attempt - 1]! })
    expect(await fine.grant).toMatchObject({ v: 1 })
    const wrong = await login({ challenges }, { code: async () => CANARY })
    const error = await errorOf(wrong.grant)
    expect(error).toMatchObject({ class: 'auth', code: 'CODE_WRONG' })
    expectNoSecret(error, CANARY)
    expect(wrong.server.operations()).toHaveLength(2 + 3)
  })

  test('the person is asked when there is no callback', async () => {
    const server = await cognitoServer({ challenges: [code('SMS_MFA', 'SMS_MFA_CODE')] })
    const questions: string[] = []
    const ui = {
      openUrl: async () => {},
      askSecret: async (question: string) => {
        questions.push(question)
        return '123456'
      },
    }
    await way(server).authorize(contextOf(dialer(), fakeClock(), ui))
    expect(questions).toEqual(['Code from the text message'])
  })

  test('several in a row: choice, code, new password', async () => {
    const requests: NewPasswordRequest[] = []
    let tries = 0
    const verdicts: (string | true)[] = ['InvalidPasswordException', 'PasswordHistoryPolicyViolationException', true]
    const { server, grant } = await login(
      {
        challenges: [
          {
            name: 'SELECT_MFA_TYPE',
            parameters: { MFAS_CAN_CHOOSE: '["SOFTWARE_TOKEN_MFA","OTHER","SMS_MFA"]' },
            accepts: ({ ANSWER }) => ANSWER === 'SOFTWARE_TOKEN_MFA' || 'InvalidParameterException',
          },
          code('SOFTWARE_TOKEN_MFA', 'SOFTWARE_TOKEN_MFA_CODE'),
          {
            name: 'NEW_PASSWORD_REQUIRED',
            parameters: {
              userAttributes: '{"email":"a@b.test","__proto__":"x","name":""}',
              requiredAttributes: '["userAttributes.name","userAttributes.email"]',
            },
            accepts: () => verdicts[tries++]!,
          },
        ],
      },
      {
        chooseFactor: async (choices) => {
          expect(choices).toEqual(['SMS_MFA', 'SOFTWARE_TOKEN_MFA'])
          return 'SOFTWARE_TOKEN_MFA'
        },
        code: async () => '123456',
        newPassword: async (request) => {
          requests.push(request)
          return { password: `${CANARY}-new`, attributes: { name: 'Ann', other: 'x' } }
        },
      },
    )
    await grant
    expect(requests.map(({ refused }) => refused)).toEqual([undefined, 'policy', 'history'])
    expect(requests[0]?.missing).toEqual(['name'])
    expect(requests[0]?.attributes.get('email')).toBe('a@b.test')
    expect(server.bodies().at(-1).ChallengeResponses).toEqual({
      USERNAME: USER_ID,
      NEW_PASSWORD: `${CANARY}-new`,
      'userAttributes.name': 'Ann',
      'userAttributes.email': 'a@b.test',
    })
    // Each step answers the session of the step before.
    const sessions = server.bodies().map(({ Session }) => Session)
    expect(new Set(sessions.slice(1)).size).toBe(4)
  })

  test.each<[string, string]>([
    ['SMS_MFA', 'CODE_REQUIRED'],
    ['SELECT_MFA_TYPE', 'FACTOR_CHOICE_REQUIRED'],
    ['NEW_PASSWORD_REQUIRED', 'NEW_PASSWORD_REQUIRED'],
    ['MFA_SETUP', 'ENROLMENT_REQUIRED'],
    ['DEVICE_SRP_AUTH', 'DEVICE_REQUIRED'],
    ['CUSTOM_CHALLENGE', 'CHALLENGE_UNSUPPORTED'],
    ['PASSWORD_VERIFIER', 'CHALLENGE_UNSUPPORTED'],
    [`made up ${CANARY}`, 'CHALLENGE_UNSUPPORTED'],
  ])('%s without a callback: %s', async (name, expected) => {
    const { server, grant } = await login({ challenges: [{ name }] })
    const error = await errorOf(grant)
    expect(error).toMatchObject({ class: 'auth', code: expected })
    expectNoSecret(error, CANARY)
    expect(server.operations()).toEqual(LOGIN)
  })

  test('a server that never ends asking', async () => {
    const challenges = Array.from({ length: 20 }, () => ({ name: 'SMS_MFA' }))
    const { server, grant } = await login({ challenges }, { code: async () => '1' })
    expect(await errorOf(grant)).toMatchObject({ class: 'server', code: 'ANSWER_INVALID' })
    expect(server.seen.length).toBeLessThan(12)
  })

  test('an attribute that nobody supplies', async () => {
    const parameters = { requiredAttributes: '["userAttributes.name"]' }
    const options = { newPassword: async () => ({ password: 'x' }) }
    const { grant } = await login({ challenges: [{ name: 'NEW_PASSWORD_REQUIRED', parameters }] }, options)
    expect(await errorOf(grant)).toMatchObject({ class: 'usage', code: 'ATTRIBUTE_MISSING' })
  })
})

describe('renewal, check and logout', () => {
  const refused = { class: 'auth', code: 'GRANT_REFUSED' }

  test('a renewal keeps the refresh token, which the answer leaves out', async () => {
    const { server, context, way, grant } = await login()
    const first = await grant
    const next = await way.renew!(first, context)
    expect(next).toMatchObject({ refreshToken: 'refresh-1', extra: { userId: USER_ID }, lifetimeMs: 3_600_000 })
    expect(next.accessToken).not.toBe(first.accessToken)
    expect(next.extra?.idToken).not.toBe(first.extra?.idToken)
    expect(server.bodies().at(-1)).toEqual({
      AuthFlow: 'REFRESH_TOKEN_AUTH',
      ClientId: CLIENT_ID,
      AuthParameters: { REFRESH_TOKEN: 'refresh-1' },
    })
    server.forget()
    expect(await errorOf(way.renew!(next, context))).toMatchObject(refused)
  })

  test('a pool whose refresh tokens change', async () => {
    const clientSecret = 's'
    const { server, context, way, grant } = await login({ clientSecret }, { clientSecret, refreshTokens: 'rotate' })
    const first = await grant
    const next = await way.renew!(first, context)
    expect(next.refreshToken).toBe('refresh-2')
    expect(server.bodies().at(-1)).toEqual({ RefreshToken: 'refresh-1', ClientId: CLIENT_ID, ClientSecret: 's' })
    expect(await errorOf(way.renew!(first, context))).toMatchObject(refused)
  })

  test.each<[string, number, object]>([
    ['NotAuthorizedException', 400, refused],
    ['InvalidParameterException', 400, { class: 'usage', code: 'LOGIN_CONFIGURATION' }],
    ['TooManyRequestsException', 400, { class: 'rate_limit', code: 'RATE_LIMITED' }],
    ['InternalErrorException', 500, { class: 'server', code: 'UNAVAILABLE' }],
  ])('renewal: %s', async (name, status, expected) => {
    const server = await cognitoServer({ alter: () => ({ status, body: { __type: name, message: CANARY } }) })
    const grant: Grant = { v: 1, accessToken: CANARY, refreshToken: CANARY }
    const error = await errorOf(way(server).renew!(grant, contextOf(dialer(), fakeClock())))
    expect(error).toMatchObject(expected)
    expectNoSecret(error, CANARY)
    expect(server.seen).toHaveLength(1)
  })

  test('without a refresh token nothing is sent', async () => {
    const server = await cognitoServer()
    const work = way(server).renew!({ v: 1, accessToken: 'a' }, contextOf(dialer(), fakeClock()))
    expect(await errorOf(work)).toMatchObject({ class: 'auth', code: 'LOGIN_EXPIRED' })
    expect(server.seen).toHaveLength(0)
  })

  test('check asks the service; logout revokes, and what is revoked already counts as done', async () => {
    const { server, context, way, grant } = await login()
    const first = await grant
    expect(await way.check!(first, context)).toBe(true)
    await way.revoke!(first, context)
    expect(server.live(first.accessToken)).toBe(false)
    expect(await way.check!(first, context)).toBe(false)
    await way.revoke!(first, context)
  })

  test('check: an outage is no answer', async () => {
    const { context, way, grant } = await login({
      alter: (operation) => (operation === 'GetUser' ? { status: 503, body: '' } : undefined),
    })
    expect(await errorOf(way.check!(await grant, context))).toMatchObject({ class: 'server', code: 'UNAVAILABLE' })
  })

  test('a pool that cannot revoke: said, but no failure', async () => {
    const { context, way, grant } = await login({ revocable: false })
    const warnings: string[] = []
    await way.revoke!(await grant, { ...context, warn: (message) => void warnings.push(message) })
    expect(warnings).toEqual([expect.stringContaining('does not revoke')])
  })
})

describe('through a session', () => {
  /** An API that takes what the pool has handed out and not ended. */
  async function world(options: Partial<CognitoSrpOptions> = {}) {
    const pool = await cognitoServer()
    const api = await httpServer(({ headers }, response) => {
      const token = String(headers.authorization).replace(/^Bearer /, '')
      const name = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString() || '{}').name ?? ''
      const alive = options.stamp === 'id' ? name.startsWith('id-') : pool.live(token)
      json(response, { name }, alive ? 200 : 401)
    })
    const store = memoryGrantStore()
    const session = Session.create(api.origin, way(pool, options), { store, clock: fakeClock(), autoLogin: false })
    onTestFinished(() => session.close())
    return { pool, api, store, session }
  }

  test('login, request, 401, renewal, replay, logout', async () => {
    const { pool, api, store, session } = await world()
    await session.login()
    expect(await session.get('/x')).toEqual({ name: 'access-1' })
    pool.expire()
    expect(await session.get('/y')).toEqual({ name: 'access-2' })
    expect(api.seen.map(({ path }) => path)).toEqual(['/x', '/y', '/y'])
    expect(await session.check({ online: true })).toMatchObject({ valid: true })
    expect((await store.load())?.refreshToken).toBe('refresh-1')
    await session.logout()
    expect(pool.operations()).toEqual([...LOGIN, 'InitiateAuth', 'GetUser', 'RevokeToken'])
    expect(await errorOf(session.get('/z'))).toMatchObject({ code: 'LOGIN_NEEDED' })
  })

  test('a refused refresh token ends the login', async () => {
    const { pool, store, session } = await world()
    await session.login()
    pool.forget()
    expect(await errorOf(session.get('/x'))).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
    expect(await store.load()).toBeUndefined()
  })

  test('stamped with the id token', async () => {
    const { session } = await world({ stamp: 'id' })
    await session.login()
    expect(await session.get('/x')).toEqual({ name: 'id-1' })
  })
})
