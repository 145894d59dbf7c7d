/** The surface of DRACOON’s clients as far as logins go, in our names, against the embedded server. */
import { expect, onTestFinished, test } from 'vitest'
import {
  accessTokenAuthorizer,
  authorizationCodeAuthorizer,
  authorizationCodeFlow,
  importedGrantAuthorizer,
  passwordAuthorizer,
  refreshTokenAuthorizer,
  Session,
} from '../../src/session/index.ts'
import { browse, embedded } from '../support/oauth.ts'
import { errorOf } from '../support/servers.ts'

const PASSWORD = 'canary-51c0d-pw'
const ACCOUNT = '/api/v4/user/account'
const client = { id: 'sealsync' }

const opened = (session: Session) => {
  onTestFinished(() => session.close())
  return session
}

test('connect by password, test_connection, the token, refresh, logout', async () => {
  const url = await embedded()
  const session = opened(
    Session.create(url, passwordAuthorizer(url, { userName: 'ann', password: async () => PASSWORD }), {
      probe: ACCOUNT,
    }),
  )
  expect(await session.get(ACCOUNT)).toMatchObject({ userName: 'ann' })
  expect(await session.check({ online: true })).toMatchObject({ valid: true })
  const first = await session.accessToken()
  expect(await session.authHeader()).toBe(`Bearer ${first}`)
  await session.renew()
  expect(await session.accessToken()).not.toBe(first)
  expect((await session.dump()).grant?.refreshToken).toEqual(expect.any(String))
  const stale = await session.accessToken()
  await session.logout()
  const answer = await fetch(url + ACCOUNT, { headers: { authorization: `Bearer ${stale}` } })
  expect(answer.status).toBe(401)
  const wrong = Session.create(url, passwordAuthorizer(url, { userName: 'ann', password: async () => 'wrong' }))
  expect(await errorOf(wrong.get(ACCOUNT))).toMatchObject({
    code: 'WRONG_CREDENTIALS',
    hint: expect.stringContaining('Active Directory'),
  })
  await wrong.close()
})

test('get_code_url, connect by code: with a listener of its own, and in a web application', async () => {
  const url = await embedded()
  const fill = { username: 'ann', password: PASSWORD }
  const ui = {
    openUrl: async (page: string) => {
      void browse(page, fill, (at) => at.includes('/callback')).then((at) => fetch(at))
    },
    askSecret: async () => '',
  }
  const session = opened(Session.create(url, authorizationCodeAuthorizer(url, { client }), { ui }))
  expect(await errorOf(session.get(ACCOUNT))).toMatchObject({ code: 'LOGIN_NEEDED' })
  await session.login()
  expect(await session.get(ACCOUNT)).toMatchObject({ userName: 'ann' })

  const redirectUri = 'http://127.0.0.1:1/callback'
  const flow = authorizationCodeFlow(url, { client, redirectUri })
  onTestFinished(() => flow.close())
  const { url: page } = await flow.authorizationUrl()
  const back = new URL(await browse(page, fill, (at) => at.startsWith(redirectUri))).searchParams
  const grant = () => flow.redeem(back.get('code')!, back.get('state')!, back.get('iss') ?? undefined)
  const web = opened(Session.create(url, importedGrantAuthorizer(url, { client, grant })))
  expect(await web.get(ACCOUNT)).toMatchObject({ userName: 'ann' })
})

test('connect by refresh token, and with an access token', async () => {
  const url = await embedded()
  const script = { id: 'dracoon_legacy_scripting', secret: '' }
  const first = opened(
    Session.create(url, passwordAuthorizer(url, { userName: 'ann', password: async () => PASSWORD, client: script })),
  )
  await first.login()
  const { grant } = await first.dump()
  const byToken = opened(
    Session.create(
      url,
      accessTokenAuthorizer(async () => grant!.accessToken),
    ),
  )
  expect(await byToken.get(ACCOUNT)).toMatchObject({ userName: 'ann' })
  const refreshToken = async () => grant!.refreshToken!
  const byRefresh = opened(Session.create(url, refreshTokenAuthorizer(url, { client: script, refreshToken })))
  expect(await byRefresh.get(ACCOUNT)).toMatchObject({ userName: 'ann' })
})

test('errors say what the server said', async () => {
  const url = await embedded()
  const session = opened(
    Session.create(url, passwordAuthorizer(url, { userName: 'ann', password: async () => PASSWORD })),
  )
  expect(await errorOf(session.get('/api/v4/nodes/999999'))).toMatchObject({
    code: 'NOT_FOUND',
    status: 404,
    serverCode: expect.any(Number),
    serverMessage: expect.any(String),
  })
})
