import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { hashProtonPassword, protonSrpAuthorizer } from '../../src/session/authorizers/proton-srp.ts'
import { Session } from '../../src/session/index.ts'
import { importProtonSession } from '../../src/session/proton-answers.ts'
import { failure, shared } from '../crypto/support.ts'
import { fakeClock } from '../support/clock.ts'
import { contextOf } from '../support/oauth.ts'
import { protonServer } from '../support/proton-server.ts'
import { dialer } from '../support/servers.ts'

const CANARY = 'canary-9d1e7'

describe('what answers say about the grant', () => {
  const judge = (status: number, body: unknown, type = 'application/json') => {
    const { judge } = protonSrpAuthorizer('http://127.0.0.1:1', { userName: 'a', password: async () => 'b' })
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const response = { status, headers: { 'content-type': type }, body: Buffer.from(text) }
    const verdict = judge!(response, { method: 'GET', url: 'http://127.0.0.1:1' })
    return typeof verdict === 'string' ? verdict : `${verdict.class} ${verdict.code}`
  }

  test.each<[number, unknown, string]>([
    [200, { Code: 1000 }, 'ok'],
    [200, { Code: 1001 }, 'ok'],
    [200, { other: 1 }, 'ok'],
    [200, [], 'ok'],
    [204, '', 'ok'],
    [401, { Code: 401 }, 'expired'],
    [401, '', 'expired'],
    [401, { Code: 8002 }, 'expired'],
    [422, { Code: 401 }, 'expired'],
    [403, { Code: 403 }, 'auth SCOPE_MISSING'],
    [403, '', 'auth SCOPE_MISSING'],
    [422, { Code: 10_013 }, 'auth GRANT_REFUSED'],
    [400, { Code: 5003 }, 'usage CLIENT_REJECTED'],
    [422, { Code: 9001 }, 'auth HUMAN_VERIFICATION'],
    [429, { Code: 2028 }, 'rate_limit RATE_LIMITED'],
    [503, '<html>', 'server UNAVAILABLE'],
    [200, { Code: 2501 }, 'permission REQUEST_REFUSED'],
    [404, { Code: 2501 }, 'ok'],
    [500, '', 'ok'],
  ])('%i %j: %s', (status, body, verdict) => expect(judge(status, body)).toBe(verdict))

  test('bodies that are not JSON are not read', () => {
    expect(judge(200, { Code: 2501 }, 'application/octet-stream')).toBe('ok')
    expect(judge(200, { Code: 2501 }, 'application/vnd.protonmail.v1+json')).toBe('permission REQUEST_REFUSED')
  })
})

describe('sessions of the Python client', () => {
  const data = { UID: 'uid-1', AccessToken: 'access-1', RefreshToken: 'refresh-1', PasswordMode: 2 }
  const dump = (Scope: unknown) => ({
    api_url: 'https://api.test',
    appversion: 'Other',
    'User-Agent': 'None',
    cookies: { a: 'b' },
    session_data: { ...data, Scope },
  })
  const grant = {
    v: 1,
    accessToken: 'access-1',
    refreshToken: 'refresh-1',
    scope: 'full self',
    extra: { uid: 'uid-1', passwordMode: '2' },
  }

  test('the scope is a list after the login and a text after the second factor', () => {
    expect(importProtonSession(dump(['full', 'self']))).toEqual(grant)
    expect(importProtonSession(dump('full self'))).toEqual(grant)
    expect(importProtonSession(JSON.stringify(dump('full self')), 'https://api.test/x')).toEqual(grant)
  })

  test.each<[string, unknown, string]>([
    ['no JSON', `{${CANARY}`, 'usage SESSION_INVALID'],
    ['null', null, 'usage SESSION_INVALID'],
    ['not logged in', { ...dump(''), session_data: {} }, 'usage SESSION_INVALID'],
    ['without the id', { ...dump(''), session_data: { ...data, UID: undefined } }, 'usage SESSION_INVALID'],
    ['a newline', { ...dump(''), session_data: { ...data, AccessToken: 'a\nb' } }, 'usage SESSION_INVALID'],
    ['another server', { ...dump(''), api_url: 'https://other.test' }, 'usage SESSION_OTHER_SERVER'],
    ['no server', { ...dump(''), api_url: 5 }, 'usage SESSION_OTHER_SERVER'],
  ])('refused: %s', async (_name, value, code) => {
    expect(await failure(() => importProtonSession(value, 'https://api.test'))).toBe(code)
  })

  test('an imported session works', async () => {
    const server = await protonServer()
    const account = { userName: 'ann', password: async () => 'the right one', modulusKey: server.modulusKey }
    const way = protonSrpAuthorizer(server.origin, account)
    const { accessToken, refreshToken, extra } = await way.authorize(contextOf(dialer(), fakeClock()))
    const session_data = { UID: extra?.uid, AccessToken: accessToken, RefreshToken: refreshToken, Scope: ['full'] }
    const session = Session.create(server.origin, way)
    await session.adopt(importProtonSession({ api_url: server.origin, session_data }, server.origin))
    server.expire()
    expect(await session.get('/x')).toMatchObject({ Code: 1000 })
    await session.close()
  })
})

describe('password hash', () => {
  // Made with Python's crypt module (libxcrypt) and prefix $2y$; the salt's 22 characters encoded by hand from the bytes.
  test.each([
    ['hello', '$2y$10$WycYznmHAwUAb1/wZ1PtZew8CwswVDkfJcgvCQHflfMGx7PqzaHJ2'],
    ['pässwörd-密码-🔑', '$2y$10$WycYznmHAwUAb1/wZ1PtZeyr7FEePdc0cG/8z6klygkJzRei5Y2JG'],
    ['0123456789'.repeat(8), '$2y$10$WycYznmHAwUAb1/wZ1PtZeajnmbh8YkiZ.aKABCc4WdpxJGQ6uS8e'],
  ])('%s', async (password, expected) => {
    const salt = createHash('sha256').update('salt').digest().subarray(0, 10)
    expect(await hashProtonPassword(password, salt)).toBe(expected)
  })

  test('only the first 72 bytes count', async () => {
    const salt = new Uint8Array(10)
    const long = 'x'.repeat(72)
    expect(await hashProtonPassword(`${long}a`, salt)).toBe(await hashProtonPassword(`${long}b`, salt))
    expect(await hashProtonPassword(`${long}a`, salt)).not.toBe(await hashProtonPassword(long.slice(1), salt))
  })

  test.each([0, 9, 257])('a salt of %i bytes is refused', async (length) => {
    expect(await failure(() => hashProtonPassword('x', new Uint8Array(length)))).toBe('server ANSWER_INVALID')
  })
})

interface Examples {
  bcryptBase64: { bytes: string; chars: string }[]
  cases: { id: string; password: string; salt: string; bcryptHash?: string }[]
}
const examples = shared<Examples>('auth/proton-srp.json')

describe.skipIf(examples === undefined)('password hashes of the worked examples', () => {
  test.each(examples?.cases.filter(({ bcryptHash }) => bcryptHash !== undefined) ?? [])('$id', async (example) => {
    const salt = Buffer.from(example.salt, 'base64')
    expect(await hashProtonPassword(example.password, salt)).toBe(example.bcryptHash)
  })

  test.each(examples?.bcryptBase64 ?? [])('salt $bytes', async ({ bytes, chars }) => {
    expect((await hashProtonPassword('x', Buffer.from(bytes, 'hex'))).slice(0, 29)).toBe(`$2y$10$${chars}`)
  })
})
