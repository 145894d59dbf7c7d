/**
 * Logging in over OAuth as the existing clients do it, and as a PKCE client does.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { addUser, removeUser, setPassword } from '../../src/server/index.ts'
import { ask, BASIC, enter, type Json, logIn, signUp, startWorld, type World } from './support.ts'

const REDIRECT = 'http://127.0.0.1:5123/callback'

const token = (world: World, form: Record<string, string>, headers: Record<string, string> = {}) =>
  ask(`${world.server.url}/oauth/token`, { method: 'POST', form, headers })

/** Posts the login form and answers the address it leads to. */
async function authorize(world: World, fields: Record<string, string>): Promise<URL> {
  const reply = await ask(`${world.server.url}/oauth/authorize`, { method: 'POST', form: fields })
  expect(reply.status, reply.body.toString()).toBe(302)
  return new URL(String(reply.headers.location))
}

test('the whole login sequence of the script client', async () => {
  const world = await startWorld()
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const reply = await logIn(world, 'ann', 'pw')
  expect(reply.status).toBe(200)
  expect(reply.headers['cache-control']).toBe('no-store')
  expect(reply.json).toMatchObject({
    token_type: 'bearer',
    expires_in: 28800,
    expires_in_inactive: 28800,
    scope: 'all',
  })
  const headers = { authorization: `Bearer ${reply.json.access_token}` }
  const paths = [
    '/v4/user/account?more_info=false',
    '/v4/public/system/info',
    '/v4/public/system/info/auth/openid',
    '/v4/public/system/info/auth/ad',
    '/v4/config/info/defaults',
    '/v4/config/info/infrastructure',
    '/v4/config/info/general',
  ]
  const replies = await Promise.all(paths.map((path) => ask(`${world.api}${path}`, { headers })))
  expect(replies.map(({ status }) => status)).toEqual(paths.map(() => 200))
  for (const { body } of replies) expect(body.toString()).not.toMatch(/[:,[]null/)
  expect(replies[0]?.json).toMatchObject({ userName: 'ann', isLocked: false, isEncryptionEnabled: false })
  expect(replies[0]?.json.userRoles.items[0]).toMatchObject({ id: 4 })
  expect(Object.keys(replies[1]?.json)).toEqual(
    expect.arrayContaining([
      'languageDefault',
      'hideLoginInputFields',
      's3Hosts',
      's3EnforceDirectUpload',
      'useS3Storage',
    ]),
  )
  expect(replies[6]?.json).toMatchObject({ cryptoEnabled: true, useS3Storage: false, s3TagsEnabled: false })
})

test('client credentials are taken from Basic in both alphabets and from the form', async () => {
  const world = await startWorld()
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const form = { grant_type: 'password', username: 'ann', password: 'pw' }
  const bare = Buffer.from('dracoon_legacy_scripting:').toString('base64url')
  expect((await token(world, form, { authorization: `Basic ${bare}` })).status).toBe(200)
  expect((await token(world, { ...form, client_id: 'dracoon_legacy_scripting', client_secret: '' })).status).toBe(200)
  const wrongSecret = `Basic ${Buffer.from('dracoon_legacy_scripting:x').toString('base64')}`
  for (const headers of [
    {},
    { authorization: wrongSecret },
    { authorization: `Basic ${Buffer.from('no:').toString('base64')}` },
  ]) {
    const reply = await token(world, form, headers)
    expect(reply.status).toBe(401)
    expect(reply.json.error).toBe('invalid_client')
  }
})

test('wrong passwords are refused alike and slowed down', async () => {
  let now = Date.UTC(2026, 0, 1)
  const world = await startWorld({ clock: { now: () => now } })
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const unknown = await logIn(world, 'bob', 'pw')
  const wrong = await logIn(world, 'ann', 'nope')
  expect(unknown.status).toBe(400)
  expect(wrong.json).toEqual(unknown.json)
  expect(wrong.json.error).toBe('invalid_grant')
  for (let n = 0; n < 4; n++) await logIn(world, 'ann', 'nope')
  const blocked = await logIn(world, 'ann', 'pw')
  expect(blocked.status).toBe(429)
  expect(Number(blocked.headers['retry-after'])).toBeGreaterThan(0)
  now += 61_000
  expect((await logIn(world, 'ann', 'pw')).status).toBe(200)
})

test('a refresh token rotates and stays good for a minute; later it ends the login', async () => {
  let now = Date.UTC(2026, 0, 1)
  const world = await startWorld({ clock: { now: () => now }, accessTokenLifetimeS: 100 })
  const ann = await signUp(world, 'ann')
  const form = {
    grant_type: 'refresh_token',
    refresh_token: ann.refreshToken,
    client_id: 'dracoon_legacy_scripting',
    client_secret: '',
  }
  const replies: Json[] = []
  // The stale Bearer header is what one client really sends here.
  for (let n = 0; n < 4; n++) replies.push(await token(world, form, { authorization: `Bearer ${ann.token}` }))
  expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200])
  expect(new Set(replies.map(({ json }) => json.access_token)).size).toBe(4)
  for (const { json } of replies) {
    expect((await ask(`${world.api}/v4/user/ping`, { token: json.access_token })).status).toBe(200)
  }
  expect((await ann.call('GET', '/v4/user/ping')).status).toBe(200)
  const next = await token(world, { ...form, refresh_token: replies[3].json.refresh_token })
  expect(next.status).toBe(200)
  now += 61_000
  const late = await token(world, form)
  expect(late.status).toBe(400)
  expect(late.json.error).toBe('invalid_grant')
  // Somebody has had the old one: nothing that came of this login is good any more (RFC 9700 §4.14.2).
  expect((await token(world, { ...form, refresh_token: next.json.refresh_token })).json.error).toBe('invalid_grant')
  const ended = await ask(`${world.api}/v4/user/ping`, { token: next.json.access_token })
  expect(ended.json).toMatchObject({ code: 401, errorCode: -10012 })
})

test('revoking an access token spares the refresh token; revoking that ends the login', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  const other = await enter(world, ann.id, 'ann')
  const revoke = (value: string, hint: string) =>
    ask(`${world.server.url}/oauth/revoke`, {
      method: 'POST',
      headers: { authorization: BASIC },
      form: { token: value, token_type_hint: hint },
    })
  expect((await revoke(ann.token, 'access_token')).status).toBe(200)
  expect((await ann.call('GET', '/v4/user/ping')).status).toBe(401)
  const renewed = await token(
    world,
    { grant_type: 'refresh_token', refresh_token: ann.refreshToken },
    { authorization: BASIC },
  )
  expect(renewed.status).toBe(200)
  expect((await revoke(renewed.json.refresh_token, 'refresh_token')).status).toBe(200)
  expect((await ask(`${world.api}/v4/user/ping`, { token: renewed.json.access_token })).status).toBe(401)
  expect((await revoke('unknown', 'refresh_token')).status).toBe(200)
  expect((await other.call('GET', '/v4/user/ping')).status).toBe(200)
})

test('authorization code with PKCE: state, issuer, single use, right verifier only', async () => {
  let now = Date.UTC(2026, 0, 1)
  const world = await startWorld({ clock: { now: () => now } })
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const verifier = randomBytes(32).toString('base64url')
  const challenge = createHash('sha256').update(verifier).digest('base64url')
  const request = {
    response_type: 'code',
    client_id: 'sealsync',
    redirect_uri: REDIRECT,
    state: 's&1"<',
    code_challenge: challenge,
    code_challenge_method: 'S256',
  }
  const form = await ask(`${world.server.url}/oauth/authorize?${new URLSearchParams(request)}`)
  expect(form.status).toBe(200)
  expect(form.body.toString()).toContain('name="password"')
  expect(form.body.toString()).not.toContain('s&1"<')
  expect(form.headers['content-security-policy']).toContain("default-src 'none'")
  const again = await ask(`${world.server.url}/oauth/authorize`, {
    method: 'POST',
    form: { ...request, username: 'ann', password: 'x' },
  })
  expect(again.status).toBe(401)
  const login = { ...request, username: 'ann', password: 'pw' }
  const url = await authorize(world, login)
  expect(url.origin + url.pathname).toBe(REDIRECT)
  expect(url.searchParams.get('state')).toBe(request.state)
  expect(url.searchParams.get('iss')).toBe(world.server.url)
  const code = url.searchParams.get('code') ?? ''
  const exchange = {
    grant_type: 'authorization_code',
    client_id: 'sealsync',
    redirect_uri: REDIRECT,
    code,
    code_verifier: verifier,
  }
  const first = await token(world, exchange)
  expect(first.status).toBe(200)
  expect((await ask(`${world.api}/v4/user/ping`, { token: first.json.access_token })).status).toBe(200)
  expect((await token(world, exchange)).json.error).toBe('invalid_grant')
  // A code that comes twice was stolen (RFC 6749 §4.1.2).
  expect((await ask(`${world.api}/v4/user/ping`, { token: first.json.access_token })).status).toBe(401)
  for (const change of [
    { code_verifier: `${verifier}x` },
    { code_verifier: '' },
    { redirect_uri: 'http://127.0.0.1:9/callback' },
  ]) {
    const fresh = (await authorize(world, login)).searchParams.get('code') ?? ''
    expect((await token(world, { ...exchange, ...change, code: fresh })).json.error, JSON.stringify(change)).toBe(
      'invalid_grant',
    )
  }
  const late = (await authorize(world, login)).searchParams.get('code') ?? ''
  now += 61_000
  expect((await token(world, { ...exchange, code: late })).json.error).toBe('invalid_grant')
})

test('unregistered redirect addresses get a page, never a redirect', async () => {
  const world = await startWorld()
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const base = {
    response_type: 'code',
    client_id: 'sealsync',
    code_challenge: 'a'.repeat(43),
    code_challenge_method: 'S256',
  }
  for (const uri of [
    'https://evil.example/callback',
    'http://127.0.0.1:1/other',
    'http://127.0.0.1:1/callback?x=1',
    'http://localhost:1/callback',
    'http://127.0.0.1.evil.example/callback',
    'http://127.0.0.1:1@evil.example/callback',
  ]) {
    const reply = await ask(`${world.server.url}/oauth/authorize`, {
      method: 'POST',
      form: { ...base, redirect_uri: uri, username: 'ann', password: 'pw' },
    })
    expect(reply.status, uri).toBe(400)
    expect(reply.headers.location).toBeUndefined()
  }
  for (const uri of [REDIRECT, 'http://[::1]:40000/callback', `${world.server.url}/oauth/callback`]) {
    expect(
      (await authorize(world, { ...base, redirect_uri: uri, username: 'ann', password: 'pw' })).searchParams.get(
        'code',
      ),
    ).toBeTruthy()
  }
  const noPkce = await authorize(world, {
    response_type: 'code',
    client_id: 'sealsync',
    redirect_uri: REDIRECT,
    state: 'x',
  })
  expect(noPkce.searchParams.get('error')).toBe('invalid_request')
  expect(noPkce.searchParams.get('state')).toBe('x')
})

test('the script client may leave out redirect_uri and PKCE in the code exchange', async () => {
  const world = await startWorld()
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const redirect_uri = `${world.server.url}/oauth/callback`
  const url = await authorize(world, {
    response_type: 'code',
    client_id: 'dracoon_legacy_scripting',
    redirect_uri,
    username: 'ann',
    password: 'pw',
  })
  const code = url.searchParams.get('code') ?? ''
  const page = await ask(url.href)
  expect(page.body.toString()).toContain(code)
  expect((await token(world, { grant_type: 'authorization_code', code }, { authorization: BASIC })).status).toBe(200)
  const evil = await ask(`${world.server.url}/oauth/callback?code=${encodeURIComponent('<script>')}`)
  expect(evil.body.toString()).not.toContain('<script>')
})

test('grants and metadata', async () => {
  const world = await startWorld()
  await addUser(world.dir, { name: 'ann', password: 'pw' })
  const password = await token(world, {
    grant_type: 'password',
    client_id: 'sealsync',
    username: 'ann',
    password: 'pw',
  })
  expect(password.status).toBe(400)
  expect((await token(world, { grant_type: 'implicit' }, { authorization: BASIC })).json.error).toBe(
    'unsupported_grant_type',
  )
  const metadata = await ask(`${world.server.url}/.well-known/oauth-authorization-server`)
  expect(metadata.json).toMatchObject({
    issuer: world.server.url,
    authorization_response_iss_parameter_supported: true,
    code_challenge_methods_supported: ['S256'],
  })
})

test('accounts: duplicates, bad names, password change and removal end logins', async () => {
  const world = await startWorld()
  const ann = await signUp(world, 'ann')
  await expect(addUser(world.dir, { name: 'ANN', password: 'x' })).rejects.toMatchObject({
    class: 'conflict',
    code: 'USER_EXISTS',
  })
  for (const name of ['', 'a b', 'a:b', 'a\n', 'x'.repeat(151)]) {
    await expect(addUser(world.dir, { name, password: 'x' })).rejects.toMatchObject({
      class: 'usage',
      code: 'BAD_USER_NAME',
    })
  }
  await setPassword(world.dir, { name: 'ann', password: 'new' })
  expect((await ann.call('GET', '/v4/user/ping')).status).toBe(401)
  const fresh = await logIn(world, 'ann', 'new')
  expect(fresh.status).toBe(200)
  await removeUser(world.dir, 'ann')
  expect((await ask(`${world.api}/v4/user/ping`, { token: fresh.json.access_token })).status).toBe(401)
})
