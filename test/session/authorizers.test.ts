import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { type PasswordOptions, passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { defaultServer, refreshGrant, SCRIPTING_CLIENT } from '../../src/session/oauth.ts'
import { fakeClock } from '../support/clock.ts'
import { contextOf, embedded, expectNoSecret, grantOf, tokenServer, works } from '../support/oauth.ts'
import { dialer, errorOf, json } from '../support/servers.ts'

const CANARY = 'canary-51c0d'
const BASIC = `Basic ${Buffer.from('dracoon_legacy_scripting:').toString('base64')}`

describe('password', () => {
  const authorizer = (origin: string, password: string) =>
    passwordAuthorizer(origin, { userName: 'ann', password: async () => password })

  test('logs in at the embedded server, renews, revokes', async () => {
    const url = await embedded()
    const context = contextOf(dialer(), systemClock)
    const way = authorizer(url, `${CANARY}-pw`)
    const grant = await way.authorize(context)
    expect(await works(url, grant)).toBe(true)
    const next = await way.renew!(grant, context)
    expect(next.accessToken).not.toBe(grant.accessToken)
    expect(await works(url, next)).toBe(true)
    await way.revoke!(next, context)
    expect(await works(url, next)).toBe(false)
    expect(await errorOf(way.renew!(next, context))).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    await way.revoke!(next, context)
  })

  test('a wrong password is refused, sent once, and never shown', async () => {
    let asked = 0
    const server = await tokenServer((_form, response) =>
      json(response, { error: 'invalid_grant', error_description: `no ${CANARY}` }, 400),
    )
    const way = passwordAuthorizer(server.origin, { userName: 'ann', password: async () => CANARY + ++asked })
    const error = await errorOf(way.authorize(contextOf(dialer(), systemClock)))
    expect(error).toMatchObject({ class: 'auth', code: 'WRONG_CREDENTIALS', retryable: false })
    expectNoSecret(error, CANARY)
    expect(server.tokenCalls).toHaveLength(1)
    expect(asked).toBe(1)
    const real = await errorOf(authorizer(await embedded(), CANARY).authorize(contextOf(dialer(), systemClock)))
    expect(real).toMatchObject({ class: 'auth', code: 'WRONG_CREDENTIALS' })
  })

  test('the scripting client has an empty secret, sent raw', async () => {
    const server = await tokenServer()
    await authorizer(server.origin, 'pä ss&=+%').authorize(contextOf(dialer(), systemClock))
    expect(server.seen[0]).toMatchObject({ method: 'POST', path: '/oauth/token' })
    expect(server.seen[0]?.headers.authorization).toBe(BASIC)
    expect(server.seen[0]?.headers.authorization).toBe('Basic ZHJhY29vbl9sZWdhY3lfc2NyaXB0aW5nOg==')
    expect(Object.fromEntries(server.tokenCalls[0]!)).toMatchObject({
      grant_type: 'password',
      username: 'ann',
      password: 'pä ss&=+%',
    })
  })

  test('other clients: secret raw in the header, public ones in the form', async () => {
    const server = await tokenServer()
    for (const client of [{ id: 'a_b', secret: 's e:c%r_t' }, { id: 'public' }]) {
      const way = passwordAuthorizer(server.origin, { userName: 'u', password: async () => 'p', client })
      await way.authorize(contextOf(dialer(), systemClock))
    }
    expect(Buffer.from(server.seen[0]!.headers.authorization!.slice(6), 'base64').toString()).toBe('a_b:s e:c%r_t')
    expect(server.seen[1]?.headers.authorization).toBeUndefined()
    expect(server.tokenCalls[1]?.get('client_id')).toBe('public')
  })
})

describe('a one-time code beside the password', () => {
  const PASSWORD = `${CANARY}-pw`
  async function world(answers: object[], more: Partial<PasswordOptions> = {}) {
    const asked: string[] = []
    const server = await tokenServer((_form, response) => {
      const answer = answers.shift() ?? { error: 'invalid_grant' }
      return json(response, answer, 'error' in answer ? 400 : 200)
    })
    const code = async () => {
      asked.push('code')
      return ' 123456\n'
    }
    const options = { userName: 'ann', password: async () => PASSWORD, code, scope: 'all', ...more }
    const way = passwordAuthorizer(server.origin, options)
    const login = () => way.authorize(contextOf(dialer(), systemClock))
    return { server, asked, login }
  }
  const good = { access_token: 'a', token_type: 'bearer' }

  test('is asked for when the server wants one, and sent once', async () => {
    const { server, asked, login } = await world([{ error: 'mfa_required' }, good])
    expect(await login()).toMatchObject({ accessToken: 'a' })
    expect(asked).toEqual(['code'])
    expect(server.tokenCalls.map((form) => form.get('otp'))).toEqual([null, '123456'])
    expect(Object.fromEntries(server.tokenCalls[1]!)).toMatchObject({
      username: 'ann',
      password: PASSWORD,
      scope: 'all',
    })
  })

  test('has the name and the trigger that the server uses', async () => {
    const more = { codeParameter: 'totp', codeError: 'otp_needed' }
    const { server, login } = await world([{ error: 'otp_needed' }, good], more)
    await login()
    expect(server.tokenCalls[1]?.get('totp')).toBe('123456')
  })

  test.each<[string, object[], Partial<PasswordOptions>, string, number, number]>([
    ['not asked for after a wrong password', [], {}, 'WRONG_CREDENTIALS', 1, 0],
    ['not asked for when another code is wanted', [{ error: 'other' }], {}, 'OAUTH_REFUSED', 1, 0],
    ['wrong: once only', [{ error: 'mfa_required' }, { error: 'invalid_grant' }], {}, 'WRONG_CREDENTIALS', 2, 1],
    ['wanted again: once only', [{ error: 'mfa_required' }, { error: 'mfa_required' }], {}, 'OAUTH_REFUSED', 2, 1],
    ['empty: the login ends', [{ error: 'mfa_required' }], { code: async () => ' ' }, 'CODE_MISSING', 1, 0],
  ])('%s', async (_name, answers, more, code, requests, asks) => {
    const { server, asked, login } = await world(answers, more)
    const error = await errorOf(login())
    expect(error).toMatchObject({ class: 'auth', code })
    expectNoSecret(error, CANARY, '123456')
    expect(server.tokenCalls).toHaveLength(requests)
    expect(asked).toHaveLength(asks)
  })

  test('nobody to ask: the server’s refusal stands; what means a wrong password cannot be the trigger', async () => {
    const server = await tokenServer((_form, response) => json(response, { error: 'mfa_required' }, 400))
    const options = { userName: 'ann', password: async () => PASSWORD }
    const way = passwordAuthorizer(server.origin, options)
    expect(await errorOf(way.authorize(contextOf(dialer(), systemClock)))).toMatchObject({ code: 'OAUTH_REFUSED' })
    expect(server.tokenCalls).toHaveLength(1)
    expect(() => passwordAuthorizer(server.origin, { ...options, codeError: 'invalid_grant' })).toThrow(TypeError)
  })

  test('metadata is read only when asked for', async () => {
    const server = await tokenServer(undefined, (issuer) => ({ issuer, token_endpoint: `${issuer}/oauth/token` }))
    const options = { userName: 'ann', password: async () => PASSWORD }
    await passwordAuthorizer(server.origin, options).authorize(contextOf(dialer(), systemClock))
    expect(server.seen).toHaveLength(1)
    await passwordAuthorizer(server.origin, { ...options, metadata: true }).authorize(contextOf(dialer(), systemClock))
    expect(server.seen[1]?.path).toBe('/.well-known/oauth-authorization-server')
  })
})

describe('token answers', () => {
  const login = async (body: unknown, status = 200, headers: Record<string, string> = {}) => {
    const clock = fakeClock()
    const server = await tokenServer((_form, response) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers })
      response.end(typeof body === 'string' ? body : JSON.stringify(body))
    })
    const way = passwordAuthorizer(server.origin, { userName: 'u', password: async () => `${CANARY}-pw` })
    const grant = await way.authorize(contextOf(dialer(), clock))
    expect(grant.expiresAt).toBe(clock.now() + grant.lifetimeMs!)
    return grant
  }
  const good = { access_token: `${CANARY}-a`, refresh_token: `${CANARY}-r`, token_type: 'bearer', expires_in: 3600 }

  test.each(['bearer', 'Bearer', 'BEARER'])('token_type %s', async (token_type) => {
    expect(await login({ ...good, token_type })).toMatchObject({
      v: 1,
      accessToken: `${CANARY}-a`,
      lifetimeMs: 3_600_000,
    })
  })

  test.each([
    ['3600', 3_600_000],
    ['"3600"', 3_600_000],
    ['59.5', 59_500],
    ['0', 30_000],
    ['1', 30_000],
    ['86400', 86_400_000],
    ['99999999999', 86_400_000],
    ['1e300', 86_400_000],
    ['1e999', 300_000],
    ['-1', 300_000],
    ['"-5"', 300_000],
    ['"soon"', 300_000],
    ['""', 300_000],
    ['null', 300_000],
    ['true', 300_000],
    ['[1]', 300_000],
    ['{}', 300_000],
  ])('expires_in %s lives %i ms', async (text, lifetimeMs) => {
    const { expires_in: _, ...rest } = good
    const grant = await login(JSON.stringify(rest).replace('}', `,"expires_in":${text}}`))
    expect(grant).toMatchObject({ lifetimeMs, accessToken: `${CANARY}-a` })
  })

  test('expires_in missing lives five minutes; scope is kept', async () => {
    const { expires_in: _, ...rest } = good
    expect(await login({ ...rest, scope: 'all' })).toMatchObject({ lifetimeMs: 300_000, scope: 'all' })
  })

  const { token_type: _type, ...untyped } = good
  const { access_token: _token, ...empty } = good
  const refused: [string, unknown, number, Record<string, string>, object][] = [
    ['HTML', '<html>canary-51c0d', 200, { 'content-type': 'text/html' }, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['garbage called JSON', '{"access_token":"canary-51c0d', 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['a list', [good], 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['nothing', '', 200, {}, { class: 'server' }],
    ['no token_type', untyped, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['token_type of another kind', { ...good, token_type: 'mac' }, 200, {}, { class: 'server' }],
    ['token_type dpop', { ...good, token_type: 'dpop' }, 200, {}, { class: 'server' }],
    ['token_type that is no text', { ...good, token_type: 7 }, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['no access_token', empty, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['an empty one', { ...good, access_token: '' }, 200, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['a newline in it', { ...good, access_token: `${CANARY}\r\nx: y` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a space in it', { ...good, access_token: `${CANARY} x` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a letter beyond ASCII in it', { ...good, access_token: `${CANARY}ü` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a newline in the other', { ...good, refresh_token: `${CANARY}\n` }, 200, {}, { code: 'TOKEN_MALFORMED' }],
    ['a refresh token that is no text', { ...good, refresh_token: {} }, 200, {}, { class: 'server' }],
    ['302', '', 302, { location: '/oauth/elsewhere' }, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['307', '', 307, { location: '/oauth/elsewhere' }, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['201', good, 201, {}, { class: 'server', code: 'OAUTH_ANSWER' }],
    ['204', '', 204, {}, { class: 'server' }],
    ['205', '', 205, {}, { class: 'server' }],
    ['500', '<h1>no', 500, { 'content-type': 'text/html' }, { class: 'server', code: 'SERVER', retryable: true }],
    ['503 with JSON', { error: 'server_error' }, 503, {}, { class: 'server', code: 'SERVER', retryable: true }],
    ['429', '', 429, {}, { class: 'rate_limit', code: 'RATE_LIMITED', retryable: true }],
    ['a status of its own', '', 901, {}, { class: 'server' }],
    ['401', '', 401, { 'www-authenticate': 'Basic realm="x"' }, { class: 'auth', code: 'OAUTH_REFUSED' }],
    ['invalid_client', { error: 'invalid_client' }, 400, {}, { class: 'auth', code: 'CLIENT_REFUSED' }],
    ['unauthorized_client', { error: 'unauthorized_client' }, 400, {}, { class: 'auth', code: 'CLIENT_NOT_ALLOWED' }],
    ['no such grant', { error: 'unsupported_grant_type' }, 400, {}, { class: 'auth', code: 'GRANT_TYPE_UNSUPPORTED' }],
    ['invalid_scope', { error: 'invalid_scope' }, 400, {}, { class: 'auth', code: 'SCOPE_REFUSED' }],
    ['429 with a wait', '', 429, { 'retry-after': '30' }, { code: 'RATE_LIMITED', retryAfterMs: 30_000 }],
    ['429 with JSON', { error: 'slow_down' }, 429, {}, { class: 'rate_limit', code: 'RATE_LIMITED' }],
    ['503 with a wait', '', 503, { 'retry-after': '5' }, { code: 'SERVER', retryAfterMs: 5_000, status: 503 }],
    [
      'a challenge with a reason',
      { error: 'invalid_grant' },
      401,
      { 'www-authenticate': 'Bearer' },
      { class: 'auth', code: 'WRONG_CREDENTIALS' },
    ],
    ['an error with escapes', { error: '\u001b[2Jx' }, 400, {}, { class: 'auth', code: 'OAUTH_REFUSED' }],
  ]
  test.each(refused)('%s is refused', async (_what, body, status, headers, expected) => {
    const error = await errorOf(login(body, status, headers))
    expect(error).toMatchObject({ ...expected, name: 'SyncError' })
    expectNoSecret(error, CANARY)
    expect(error.message).not.toMatch(/[\u0000-\u001f]/)
  })

  test('a redirect is not followed', async () => {
    const server = await tokenServer((_f, response) => response.writeHead(307, { location: '/oauth/revoke' }).end())
    const context = contextOf(dialer(), systemClock)
    const grant = grantOf(systemClock, CANARY)
    expectNoSecret(await errorOf(refreshGrant(defaultServer(server.origin), SCRIPTING_CLIENT, grant, context)), CANARY)
    expect(server.revoked).toEqual([])
    expect(server.seen).toHaveLength(1)
  })
})
