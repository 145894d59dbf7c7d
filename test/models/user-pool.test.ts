/** The surface of the SRP authorizers for user pools, in our names, against a pool on loopback. */
import { expect, onTestFinished, test } from 'vitest'
import {
  type CognitoSrpOptions,
  cognitoSrpAuthorizer,
  memoryGrantStore,
  oneTimeCode,
  oneTimeCodes,
  Session,
} from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { CLIENT_ID, type CognitoServerOptions, cognitoServer, POOL, USER_ID } from '../support/cognito-server.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

async function world(pool: CognitoServerOptions, options: Partial<CognitoSrpOptions> = {}) {
  const server = await cognitoServer(pool)
  const api = await httpServer(({ headers }, response) => {
    const token = String(headers.authorization).replace('Bearer ', '')
    json(response, { token }, server.live(token) || options.stamp === 'id' ? 200 : 401)
  })
  const clock = fakeClock()
  const store = memoryGrantStore()
  const way = cognitoSrpAuthorizer({
    poolId: POOL,
    clientId: CLIENT_ID,
    endpoint: server.origin,
    userName: 'ann@example.org',
    password: async () => 'the right one',
    ...options,
  })
  const session = Session.create(api.origin, way, { store, clock })
  onTestFinished(() => session.close())
  return { server, api, session, store, clock }
}

test('authenticate, check_token, renew_access_token, get_user, authorizers for other libraries, logout', async () => {
  const { server, api, session, store, clock } = await world({ clientSecret: 'secret' }, { clientSecret: 'secret' })
  await session.get('/x')
  expect(server.operations()).toEqual(['InitiateAuth', 'RespondToAuthChallenge'])
  expect((await store.load())?.extra).toMatchObject({ userId: USER_ID, idToken: expect.any(String) })
  expect(await session.check()).toMatchObject({ valid: true, expiresAt: clock.now() + 3_600_000 })
  expect(await session.check({ online: true })).toMatchObject({ valid: true })
  const before = await session.accessToken()
  await session.renew()
  expect(await session.accessToken()).not.toBe(before)
  server.expire()
  await session.get('/x')
  clock.advance(3_600_000)
  expect(await (await session.fetch(`${api.origin}/y`)).json()).toEqual({ token: await session.accessToken() })
  expect(await session.identity()).toMatchObject({ verified: false })
  await session.logout()
  expect(server.operations().at(-1)).toBe('RevokeToken')
})

test('a new password, a text message, and a code of an app, one after the other; nobody attends', async () => {
  const clock = fakeClock()
  const secret = 'GEZDGNBVGY3TQOJQ'
  const code = await oneTimeCode(secret, clock)
  const asked: string[] = []
  const codes = oneTimeCodes(() => secret, clock)
  const { session } = await world(
    {
      challenges: [
        {
          name: 'NEW_PASSWORD_REQUIRED',
          parameters: { requiredAttributes: '["userAttributes.name"]', userAttributes: '{}' },
          accepts: (said) =>
            said.NEW_PASSWORD === 'Better-1' && said['userAttributes.name'] === 'Ann'
              ? true
              : 'InvalidPasswordException',
        },
        { name: 'SMS_MFA', accepts: (said) => (said.SMS_MFA_CODE === '4711' ? true : 'CodeMismatchException') },
        {
          name: 'SOFTWARE_TOKEN_MFA',
          accepts: (said) => (said.SOFTWARE_TOKEN_MFA_CODE === code ? true : 'CodeMismatchException'),
        },
      ],
    },
    {
      async newPassword({ missing }) {
        asked.push(...missing)
        return { password: 'Better-1', attributes: { name: 'Ann' } }
      },
      async code({ kind }) {
        asked.push(kind)
        return kind === 'sms' ? '4711' : codes()
      },
    },
  )
  await session.get('/x')
  expect(asked).toEqual(['name', 'sms', 'totp'])
})

test('TokenType.ID_TOKEN, refresh tokens that rotate, a wrong password', async () => {
  const byId = await world({ rotates: true }, { stamp: 'id', refreshTokens: 'rotate' })
  await byId.session.get('/x')
  expect(byId.api.seen[0]!.headers.authorization).toBe(`Bearer ${(await byId.store.load())?.extra?.idToken}`)
  const before = (await byId.store.load())?.refreshToken
  await byId.session.renew()
  expect((await byId.store.load())?.refreshToken).not.toBe(before)
  const wrong = await world({}, { password: async () => 'wrong' })
  for (let i = 0; i < 2; i++)
    expect(await errorOf(wrong.session.get('/x'))).toMatchObject({ code: 'WRONG_CREDENTIALS' })
  expect(wrong.server.operations()).toHaveLength(2)
})
