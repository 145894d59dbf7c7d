import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { SCRIPTING_CLIENT } from '../../src/session/oauth.ts'
import { browse, contextOf, embedded, expectNoSecret, tokenServer, works } from '../support/oauth.ts'
import { dialer, errorOf, json } from '../support/servers.ts'

const CANARY = 'canary-51c0d'
const BASIC = `Basic ${Buffer.from('dracoon_legacy_scripting:').toString('base64')}`

describe('a code that is pasted', () => {
  test('from the scripting client’s own page at the embedded server', async () => {
    const url = await embedded()
    let opened = ''
    const ui = {
      openUrl: async (page: string) => {
        opened = page
      },
      askSecret: async () => {
        const fill = { username: 'ann', password: `${CANARY}-pw` }
        const back = await browse(opened, fill, (at) => at.includes('/oauth/callback'))
        return ` ${new URL(back).searchParams.get('code')}\n`
      },
    }
    const way = authorizationCodeAuthorizer(url, { client: SCRIPTING_CLIENT })
    const grant = await way.authorize(contextOf(dialer(), systemClock, ui))
    expect(await works(url, grant)).toBe(true)
    expect(new URL(opened).searchParams.get('redirect_uri')).toBe(`${url}/oauth/callback`)
  })

  test('a server without metadata: scripting client, its header, the verifier, the same redirect', async () => {
    const server = await tokenServer()
    const ui = { openUrl: async () => {}, askSecret: async () => ' pasted-code ' }
    await authorizationCodeAuthorizer(server.origin).authorize(contextOf(dialer(), systemClock, ui))
    expect(server.seen.at(-1)?.headers.authorization).toBe(BASIC)
    expect(Object.fromEntries(server.tokenCalls[0]!)).toMatchObject({
      code: 'pasted-code',
      redirect_uri: `${server.origin}/oauth/callback`,
      code_verifier: expect.stringMatching(/^[\w-]{43}$/),
    })
  })

  test('a wrong one is refused and not shown; no terminal is an error', async () => {
    const server = await tokenServer((_form, response) => json(response, { error: 'invalid_grant' }, 400))
    const way = authorizationCodeAuthorizer(server.origin)
    const login = (askSecret: () => Promise<string>) =>
      errorOf(way.authorize(contextOf(dialer(), systemClock, { openUrl: async () => {}, askSecret })))
    const error = await login(async () => CANARY)
    expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    expectNoSecret(error, CANARY)
    const none = new Error('no terminal')
    expect(await login(() => Promise.reject(none))).toBe(none)
    expect(server.tokenCalls).toHaveLength(1)
  })

  test('nothing pasted ends without a request', async () => {
    const server = await tokenServer()
    const ui = { openUrl: async () => {}, askSecret: async () => '  ' }
    const error = await errorOf(
      authorizationCodeAuthorizer(server.origin).authorize(contextOf(dialer(), systemClock, ui)),
    )
    expect(error).toMatchObject({ name: 'SyncError' })
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('the whole address will do: its state and issuer are checked', async () => {
    const metadata = (origin: string) => ({
      issuer: origin,
      authorization_endpoint: `${origin}/oauth/authorize`,
      token_endpoint: `${origin}/oauth/token`,
      authorization_response_iss_parameter_supported: true,
    })
    const server = await tokenServer(undefined, metadata)
    const login = (answer: (state: string) => string) => {
      let state = ''
      const ui = {
        openUrl: async (url: string) => {
          state = new URL(url).searchParams.get('state') ?? ''
        },
        askSecret: async () => ` ${answer(state)}\n`,
      }
      return authorizationCodeAuthorizer(server.origin).authorize(contextOf(dialer(), systemClock, ui))
    }
    const iss = encodeURIComponent(server.origin)
    const page = `${server.origin}/oauth/callback`
    await login((state) => `${page}?code=a%2Bb&state=${state}&iss=${iss}`)
    await login((state) => `com.example.app:/done?code=second&state=${state}&iss=${iss}`)
    await login(() => 'urn:code:with?colons')
    expect(server.tokenCalls.map((form) => form.get('code'))).toEqual(['a+b', 'second', 'urn:code:with?colons'])
    const wrong: ((state: string) => string)[] = [
      () => `${page}?code=${CANARY}&state=other&iss=${iss}`,
      () => `${page}?code=${CANARY}&iss=${iss}`,
      (state) => `${page}?code=${CANARY}&state=${state}`,
      (state) => `${page}?code=${CANARY}&state=${state}&iss=https://evil.test`,
      (state) => `${page}?code=${CANARY}&state=${state}&state=${state}&iss=${iss}`,
    ]
    for (const answer of wrong) {
      const error = await errorOf(login(answer))
      expect(error).toMatchObject({ class: 'auth', code: 'STATE_MISMATCH' })
      expectNoSecret(error, CANARY)
    }
    const denied = await errorOf(login((state) => `${page}?error=access_denied&state=${state}&iss=${iss}`))
    expect(denied).toMatchObject({ code: 'LOGIN_DENIED' })
    expect(server.tokenCalls).toHaveLength(3)
  })
})
