/** The surface of a general OAuth component, in our names, against a certified OpenID provider. */
import { expect, onTestFinished, test } from 'vitest'
import {
  authorizationCodeAuthorizer,
  deviceCodeAuthorizer,
  encryptedFileGrantStore,
  fileGrantStore,
  memoryGrantStore,
  Session,
  type Ui,
} from '../../src/session/index.ts'
import { freshDirectory } from '../support/files.ts'
import { browse } from '../support/oauth.ts'
import { startProvider } from '../support/provider.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

const PERSON = { login: 'ann', password: 'any' }
const client = { id: 'sealsync' }

/** A person with a browser. */
const ui: Ui = {
  async openUrl(page) {
    void browse(page, PERSON, (at) => at.includes('/callback')).then((at) => fetch(at))
  },
  async showCode({ verificationUriComplete }) {
    browse(verificationUriComplete!, PERSON, () => false).catch(() => {})
  },
  askSecret: () => Promise.reject(new Error('nobody asks')),
}

test('discovery, code with PKCE, id token, renewal with rotation, introspection, revocation', async () => {
  const provider = await startProvider()
  const api = await httpServer(({ headers }, response) => json(response, { authorization: headers.authorization }))
  const way = authorizationCodeAuthorizer(provider.origin, {
    client,
    scope: 'openid offline_access all',
    introspect: true,
  })
  const session = Session.create(api.origin, way, { ui })
  onTestFinished(() => session.close())
  await session.login()
  expect(await session.identity()).toMatchObject({ verified: true, claims: { sub: 'ann', iss: provider.origin } })
  const [before, refresh] = [await session.accessToken(), (await session.dump()).grant?.refreshToken]
  await session.renew()
  expect(await session.accessToken()).not.toBe(before)
  expect((await session.dump()).grant?.refreshToken).not.toBe(refresh)
  expect(await session.check({ online: true })).toMatchObject({ valid: true, scope: expect.stringContaining('openid') })
  const dump = await session.dump()
  await session.logout()
  const twin = await Session.load(dump, api.origin, way, { autoLogin: false })
  expect(await twin.check({ online: true })).toMatchObject({
    valid: false,
    reason: 'refused',
    introspection: { active: false },
  })
  await twin.close()
  expect(provider.granted.slice(0, 2)).toEqual(['authorization_code', 'refresh_token'])
})

test('device authorization, and who is logged in', async () => {
  const provider = await startProvider()
  const way = deviceCodeAuthorizer(provider.origin, { client, scope: 'openid all' })
  const session = Session.create(provider.origin, way, { ui })
  onTestFinished(() => session.close())
  await session.login()
  expect(session.clientId).toBe('sealsync')
  expect(await session.identity()).toMatchObject({ verified: true, claims: { sub: 'ann' } })
})

test('token storage: memory, a file, an encrypted one', async () => {
  const directory = await freshDirectory()
  const grant = { v: 1, accessToken: 'a', refreshToken: 'r' } as const
  const secret = async () => Buffer.from('secret')
  for (const store of [
    memoryGrantStore(),
    fileGrantStore(`${directory}/plain`),
    encryptedFileGrantStore(`${directory}/sealed`, secret),
  ]) {
    const session = Session.create('https://x.example', { name: 'x', authorize: async () => grant }, { store })
    await session.login()
    expect(await store.load()).toEqual(grant)
    await session.logout()
    expect(await store.load()).toBeUndefined()
    expect(await errorOf(session.accessToken())).toMatchObject({ code: 'LOGIN_NEEDED' })
  }
})
