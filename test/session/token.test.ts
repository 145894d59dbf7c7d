import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { HttpRequest } from '../../src/http/types.ts'
import type { Authorizer } from '../../src/session/authorizer.ts'
import { withApiKey } from '../../src/session/authorizers/api-key.ts'
import {
  accessTokenAuthorizer,
  importedGrantAuthorizer,
  refreshTokenAuthorizer,
} from '../../src/session/authorizers/token.ts'
import { Session } from '../../src/session/index.ts'
import { fakeClock } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { contextOf, expectNoSecret, grantOf, tokenServer } from '../support/oauth.ts'
import { dialer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-70ce4'
const client = { id: 'sealsync' }

describe('an access token kept in a file', () => {
  async function world(first: string) {
    const path = join(await freshDirectory(), 'token')
    await writeFile(path, first)
    let good = 'token-one'
    const api = await httpServer(({ headers }, response) =>
      json(response, {}, headers.authorization === `Bearer ${good}` ? 200 : 401),
    )
    const authorizer = accessTokenAuthorizer(() => readFile(path, 'utf8'))
    const session = Session.create(api.origin, authorizer, { clock: fakeClock() })
    return {
      api,
      session,
      write: (text: string) => writeFile(path, text),
      accept: (token: string) => {
        good = token
      },
    }
  }

  test('is read again when the server does not take it any more', async () => {
    const { session, api, write, accept } = await world(' token-one\n')
    await session.login()
    await session.get('/x')
    accept('token-two')
    await write('token-two\r\n')
    await session.get('/x')
    expect(api.seen.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer token-one',
      'Bearer token-one',
      'Bearer token-two',
    ])
    await session.get('/x')
    expect(api.seen).toHaveLength(4)
    await session.close()
  })

  test('the same one is refused, and a new one later still helps', async () => {
    const { session, write, accept, api } = await world('token-one')
    await session.login()
    accept('token-two')
    const error = await errorOf(session.get('/x'))
    expect(error).toMatchObject({ class: 'auth', code: 'TOKEN_REFUSED' })
    expectNoSecret(error, 'token-one')
    expect(api.seen).toHaveLength(1)
    expect(await session.hasGrant()).toBe(true)
    await write('token-two')
    await session.get('/x')
    await session.close()
  })

  test.each([
    ['nothing', ' \n'],
    ['two lines', `${CANARY}\n${CANARY}`],
    ['a space', `${CANARY} x`],
    ['a control character', `${CANARY}\u0007`],
    ['a letter beyond ASCII', `${CANARY}ü`],
  ])('%s is no token', async (_name, text) => {
    const { session } = await world(text)
    const error = await errorOf(session.login())
    expect(error).toMatchObject({ class: 'usage', code: 'TOKEN_MALFORMED' })
    expectNoSecret(error, CANARY)
    expect(await session.hasGrant()).toBe(false)
    await session.close()
  })
})

describe('a refresh token alone', () => {
  test('the login is its first renewal; then the store has the good one', async () => {
    const clock = fakeClock()
    const server = await tokenServer()
    const way = refreshTokenAuthorizer(server.origin, { client, refreshToken: async () => `${CANARY}\n` })
    const context = contextOf(dialer(), clock)
    const grant = await way.authorize(context)
    expect(grant).toMatchObject({ accessToken: 'access-1', refreshToken: 'refresh-1' })
    await way.renew!(grant, context)
    expect(server.tokenCalls.map((form) => form.get('refresh_token'))).toEqual([CANARY, 'refresh-1'])
    await way.revoke!(grant, context)
    expect(server.revoked).toEqual(['refresh-1', 'access-1'])
  })

  test('without rotation the same one stays', async () => {
    const server = await tokenServer((_form, response) => json(response, { access_token: 'a', token_type: 'bearer' }))
    const way = refreshTokenAuthorizer(server.origin, { client, refreshToken: async () => CANARY })
    expect(await way.authorize(contextOf(dialer(), fakeClock()))).toMatchObject({ refreshToken: CANARY })
  })

  test('refused, and not shown', async () => {
    const server = await tokenServer((_form, response) => json(response, { error: 'invalid_grant' }, 400))
    const way = refreshTokenAuthorizer(server.origin, { client, refreshToken: async () => CANARY })
    const error = await errorOf(way.authorize(contextOf(dialer(), fakeClock())))
    expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
    expectNoSecret(error, CANARY)
  })
})

describe('a grant from elsewhere', () => {
  test('is used, renewed at its end, and ended', async () => {
    const clock = fakeClock()
    const auth = await tokenServer()
    const api = await httpServer(({ headers }, response) => json(response, headers.authorization))
    const authorizer = importedGrantAuthorizer(auth.origin, { client, grant: async () => grantOf(clock, '0') })
    const session = Session.create(api.origin, authorizer, { clock })
    await session.login()
    expect(await session.get('/')).toBe('Bearer access-0')
    clock.advance(3_600_000)
    expect(await session.get('/')).toBe('Bearer access-1')
    await session.logout()
    expect(auth.revoked).toEqual(['refresh-1', 'access-1'])
    await session.close()
  })

  test.each([
    ['a newline in the token', { v: 1, accessToken: `${CANARY}\n` }],
    ['no token', { v: 1 }],
    ['another version', { v: 2, accessToken: CANARY }],
    ['nothing', null],
  ])('%s is none', async (_name, value) => {
    const read = async () => value as never
    const way = importedGrantAuthorizer('https://x.test', { client, grant: read })
    const error = await errorOf(way.authorize(contextOf(dialer(), fakeClock())))
    expect(error).toMatchObject({ class: 'usage', code: 'GRANT_INVALID' })
    expectNoSecret(error, CANARY)
  })
})

describe('an API key beside the login', () => {
  test('goes with each request to the server, beside the stamp, and nowhere else', async () => {
    const clock = fakeClock()
    const auth = await tokenServer()
    const api = await httpServer((_request, response) => json(response, {}))
    const other = await httpServer((_request, response) => json(response, {}))
    const inner = importedGrantAuthorizer(auth.origin, { client, grant: async () => grantOf(clock, '0') })
    const way = withApiKey(inner, { header: 'X-Api-Key', value: CANARY })
    expect(way.name).toBe(inner.name)
    const session = Session.create(api.origin, way, { clock })
    await session.login()
    await session.get('/x')
    await session.get('/x', { headers: { 'x-api-key': 'mine' } })
    for (const { headers } of api.seen) {
      expect(headers).toMatchObject({ 'x-api-key': CANARY, authorization: 'Bearer access-0' })
    }
    await session.send({ method: 'GET', url: `${other.origin}/part` })
    expect(other.seen[0]?.headers['x-api-key']).toBeUndefined()
    clock.advance(3_600_000)
    await session.get('/x')
    expect(api.seen.at(-1)?.headers).toMatchObject({ 'x-api-key': CANARY, authorization: 'Bearer access-1' })
    await session.logout()
    for (const { headers } of auth.seen) expect(headers['x-api-key']).toBeUndefined()
    expect(auth.revoked).toHaveLength(2)
    expect(JSON.stringify(way)).not.toContain(CANARY)
    await session.close()
  })

  test('a stamp of the login’s own sees the key, and all verbs pass through, `this` included', async () => {
    class Signing implements Authorizer {
      readonly name = 'signing'
      #key = 'k'
      authorize = async () => ({ v: 1 as const, accessToken: this.#key })
      async renew() {
        return { v: 1 as const, accessToken: `${this.#key}2` }
      }
      async revoke() {
        this.#key = 'gone'
      }
      judge() {
        return this.#key === 'k' ? ('ok' as const) : ('expired' as const)
      }
      async check() {
        return this.#key === 'k'
      }
      sign(request: HttpRequest) {
        return {
          ...request,
          headers: { ...request.headers, signed: Object.keys(request.headers ?? {}).join() + this.#key },
        }
      }
    }
    const way = withApiKey(new Signing(), { header: 'x-key', value: 'a b' })
    const context = contextOf(dialer(), fakeClock())
    const grant = await way.authorize(context)
    const request = await way.sign!({ method: 'GET', url: 'https://x.test' }, grant, context)
    expect(request.headers).toEqual({ 'x-key': 'a b', signed: 'x-keyk' })
    expect(await way.renew!(grant, context)).toMatchObject({ accessToken: 'k2' })
    expect(await way.check!(grant, context)).toBe(true)
    const response = { status: 200, headers: {}, body: new Uint8Array(0) }
    expect(way.judge!(response, request)).toBe('ok')
    await way.revoke!(grant, context)
    expect(await way.check!(grant, context)).toBe(false)
    const plain = withApiKey(
      accessTokenAuthorizer(async () => 'x'),
      { header: 'x-key', value: 'v' },
    )
    expect([plain.check, plain.judge, plain.revoke]).toEqual([undefined, undefined, undefined])
  })

  test.each([
    ['authorization', 'v', 'HEADER_FORBIDDEN'],
    ['Authorization', 'v', 'HEADER_FORBIDDEN'],
    ['cookie', 'v', 'HEADER_FORBIDDEN'],
    ['Host', 'v', 'HEADER_FORBIDDEN'],
    ['x key', 'v', 'HEADER_INVALID'],
    ['x-key:', 'v', 'HEADER_INVALID'],
    ['', 'v', 'HEADER_INVALID'],
    ['x-key', '', 'HEADER_INVALID'],
    ['x-key', `${CANARY}\r\nauthorization: x`, 'HEADER_INVALID'],
    ['x-key', `${CANARY} `, 'HEADER_INVALID'],
    ['x-key', `${CANARY}ü`, 'HEADER_INVALID'],
  ])('%j with the value %j cannot be', async (header, value, code) => {
    const make = async () =>
      withApiKey(
        accessTokenAuthorizer(async () => 'x'),
        { header, value },
      )
    const error = await errorOf(make())
    expect(error).toMatchObject({ class: 'usage', code })
    expectNoSecret(error, CANARY)
  })
})
