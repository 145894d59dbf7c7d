/** What errors say of the answers that caused them, and what they keep back. */
import { inspect } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { answerDetails } from '../../src/http/answer-details.ts'
import { createSecrets, redact } from '../../src/http/redact.ts'
import { cognitoSrpAuthorizer } from '../../src/session/authorizers/cognito-srp.ts'
import { protonSrpAuthorizer } from '../../src/session/authorizers/proton-srp.ts'
import { type Authorizer, Session } from '../../src/session/index.ts'
import { CLIENT_ID, cognitoServer, POOL } from '../support/cognito-server.ts'
import { grantOf } from '../support/oauth.ts'
import { ovhWorld, QUERY_ID, refuse } from '../support/ovh-server.ts'
import fc from '../support/property.ts'
import { protonServer } from '../support/proton-server.ts'
import { type Answer, errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-9d2e'
const way: Authorizer = { name: 'test', unattended: 'again', authorize: async ({ clock }) => grantOf(clock, CANARY) }

async function failing(answer: Answer) {
  const api = await httpServer(answer)
  const session = Session.create(api.origin, way, { retryForMs: 0 })
  onTestFinished(() => session.close())
  return errorOf(session.post('/x', { json: { password: `${CANARY}-sent` } }))
}

const details = (body: unknown, status = 400, headers: Record<string, string> = {}) =>
  answerDetails({
    status,
    headers: { 'content-type': 'application/json', ...headers },
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
  })

test.each([
  [
    'DRACOON',
    { code: 404, message: 'Not Found', debugInfo: 'Node not found', errorCode: -41_000 },
    -41_000,
    'Not Found: Node not found',
  ],
  ['Proton', { Code: 8002, Error: 'Incorrect login credentials' }, 8002, 'Incorrect login credentials'],
  ['OVH', { message: 'Invalid signature', errorCode: 'INVALID_CREDENTIAL' }, 'INVALID_CREDENTIAL', 'Invalid signature'],
  ['OAuth', { error: 'invalid_grant', error_description: 'Token is gone' }, 'invalid_grant', 'Token is gone'],
  ['Cognito', { __type: 'com.x#NotAuthorizedException', message: 'No' }, 'NotAuthorizedException', 'No'],
  ['problem details', { title: 'Odd', detail: 'Very odd', status: 400 }, undefined, 'Very odd'],
  ['an error inside', { error: { code: 7, message: 'Deep' } }, undefined, 'Deep'],
  ['words as the error', { error: 'it did not work' }, undefined, 'it did not work'],
  ['nothing', {}, undefined, undefined],
  ['a list', [1], undefined, undefined],
])('code and words of %s', (_name, body, serverCode, serverMessage) => {
  expect(details(body)).toMatchObject({ serverCode, serverMessage })
})

test.each([
  ['a list', { errors: [{ field: 'name', message: 'too long' }, { name: 'size' }, 7] }],
  ['texts by field', { errors: { name: ['too long', 'x'], size: 'refused', odd: 7 } }],
  [
    'invalid-params',
    {
      'invalid-params': [
        { name: 'name', reason: 'too long' },
        { name: 'size', reason: 'refused' },
      ],
    },
  ],
  ['Proton', { Code: 2001, Details: { name: 'too long', size: 'refused' } }],
])('refused fields as %s', (_name, body) => {
  expect(details(body).fieldErrors).toEqual([
    { field: 'name', message: 'too long' },
    { field: 'size', message: 'refused' },
  ])
  expect(details(body, 500).fieldErrors).toEqual([])
})

test('everything is bounded', () => {
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`field ${n}`, 'x '.repeat(2_000)]))
  const found = details({ message: 'long '.repeat(5_000), errors: many }, 400, { server: 's '.repeat(5_000) })
  expect(found.fieldErrors).toHaveLength(0) // more than 64 KiB of JSON is not read
  const less = details({
    message: 'long '.repeat(2_000),
    errors: Object.fromEntries(Object.entries(many).slice(0, 12)),
  })
  expect(less.serverMessage).toHaveLength(1_000)
  expect(less.fieldErrors).toHaveLength(12)
  for (const { message } of less.fieldErrors) expect(message).toHaveLength(300)
  expect(found.headers.server).toHaveLength(300)
  expect(details('x '.repeat(100_000)).body()).toHaveLength(64 * 1024)
  expect(details({ errors: Array(300).fill({ field: 'a', message: 'b' }) }).fieldErrors).toHaveLength(50)
})

test('of very many answers only the newest are held, whatever they are', () => {
  const errors = Array.from({ length: 200 }, (_, at) => details({ message: `no ${at}`, errors: { name: 'bad' } }))
  expect(errors.filter((one) => one.body() !== '')).toEqual(errors.slice(-64))
  expect(errors.filter(({ fieldErrors }) => fieldErrors.length > 0)).toHaveLength(64)
  expect(errors.filter(({ headers }) => headers['content-type'] !== undefined)).toHaveLength(64)
  expect(errors.map(({ serverMessage }) => serverMessage)).toEqual(errors.map((_, at) => `no ${at}`))
})

test('headers: those that tell something, and no others', () => {
  const shown = details('{}', 429, {
    'retry-after': '5',
    'x-request-id': 'abc',
    'x-ratelimit-remaining': '0',
    'www-authenticate': `Bearer ${CANARY}0123456789abcdef, error="invalid_token"`,
    'set-cookie': `a=${CANARY}`,
    location: `https://x.example/?code=${CANARY}`,
    authorization: CANARY,
    'x-own': CANARY,
  }).headers
  expect(Object.keys(shown).sort()).toEqual([
    'content-type',
    'retry-after',
    'www-authenticate',
    'x-ratelimit-remaining',
    'x-request-id',
  ])
  expect(JSON.stringify(shown)).not.toContain(CANARY)
  expect(shown['www-authenticate']).toContain('invalid_token')
})

describe('redaction', () => {
  test.each([
    ['JSON', `{"access_token":"${CANARY}","a":1}`],
    ['JSON that was cut', `{"access_token":"${CANARY}`],
    ['JSON with escapes', `{"client_secret":"a\\"${CANARY}"}`],
    ['a list in JSON', `{"tokens":["${CANARY}","${CANARY}"]}`],
    ['a form', `a=b&refresh_token=${CANARY}&c=d`],
    ['a query', `see https://x.example/cb?code=${CANARY}#x`],
    ['a scheme', `Authorization: Bearer ${CANARY}`],
    ['something long', `key ${CANARY}${'0123456789abcdef'.repeat(2)}`],
    ['a JWT', `eyJhbGciOiJSUzI1NiJ9.${Buffer.from(CANARY.repeat(9)).toString('base64url')}.c2ln`],
    ['a password', `{"Password": "${CANARY}"}`],
  ])('%s', (_name, text) => {
    expect(redact(text)).not.toContain(CANARY)
  })

  test('words stay readable; known secrets go in every form', () => {
    const words = 'The field timestampModification of node 1234567 is internationalization-unfriendly'
    expect(redact(words)).toBe(words)
    const secrets = createSecrets()
    secrets.add('p+ä/?', undefined, '', 'abc')
    expect(redact('p+ä/? and p%2B%C3%A4%2F%3F in abc', secrets.list)).toBe('[…] and […] in abc')
    for (let n = 0; n < 1_000; n++) secrets.add(`secret-${n}`)
    expect(secrets.list).toHaveLength(64)
  })

  test('nothing moves a cursor, whatever comes; a long text takes no longer than it must', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (text) => {
        expect(redact(text)).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u)
      }),
    )
    for (const text of [
      '"',
      '"token',
      'token=',
      'a=',
      '"token":"\\',
      'Bearer ',
      'aA1.',
      '"token":[',
      'a-token-',
      ' ',
    ]) {
      const long = text.repeat(80_000 / text.length)
      const began = performance.now()
      redact(long, [], 64 * 1024)
      // A search that grows with the square of the length would take minutes.
      expect(performance.now() - began, text).toBeLessThan(10_000)
    }
  })
})

describe('errors carry it', () => {
  test('of a call: and nothing that was sent comes back', async () => {
    const error = await failing(({ headers }, response) =>
      json(
        response,
        { message: `\u001b[31mNo: ${headers.authorization}`, errorCode: -80_000, errors: { name: [`${CANARY}-sent`] } },
        400,
        { 'x-request-id': 'r-1' },
      ),
    )
    expect(error).toMatchObject({ code: 'BAD_REQUEST', status: 400, serverCode: -80_000, requestId: 'r-1' })
    expect(error.serverMessage).toBe('No: Bearer […]'.replace('No', '?[31mNo'))
    expect(error.fieldErrors).toEqual([{ field: 'name', message: expect.any(String) }])
    expect(error.headers['x-request-id']).toBe('r-1')
    expect(error.body()).not.toContain('access-')
    for (const view of [inspect(error, { depth: 9, showHidden: true }), JSON.stringify(error), error.stack]) {
      expect(view).not.toContain(CANARY)
      expect(view).not.toContain('31mNo')
    }
  })

  test.each([401, 403, 404, 409, 410, 413, 429, 460, 500, 503, 507])('the id of the request at %i', async (status) => {
    const error = await failing((_seen, response) => json(response, { Code: 1 }, status, { 'x-request-id': 'id-2' }))
    expect(error).toMatchObject({ status, requestId: 'id-2', serverCode: 1 })
  })

  test('an answer that is no JSON, and none at all', async () => {
    const html = await failing((_seen, response) => response.writeHead(200, { 'x-request-id': 'p-1' }).end('<p>portal'))
    expect(html).toMatchObject({ code: 'ANSWER_NOT_JSON', status: 200, requestId: 'p-1' })
    expect(html.body()).toBe('<p>portal')
    const none = await failing((_seen, response) => response.destroy())
    expect(none).toMatchObject({
      code: 'NETWORK',
      status: undefined,
      serverCode: undefined,
      fieldErrors: [],
      headers: {},
    })
    expect(none.body()).toBe('')
  })

  test('of a Proton-style login and call', async () => {
    const server = await protonServer({
      alter: (step, answer) =>
        step === 'api'
          ? { status: 422, body: { Code: 2001, Error: 'Odd value', Details: { Name: 'too long' } } }
          : answer,
    })
    const options = { userName: 'ann', password: async () => 'wrong', modulusKey: server.modulusKey }
    const session = Session.create(server.origin, protonSrpAuthorizer(server.origin, options))
    onTestFinished(() => session.close())
    expect(await errorOf(session.get('/x'))).toMatchObject({
      code: 'WRONG_CREDENTIALS',
      status: 422,
      serverCode: 8002,
      serverMessage: 'Text for people',
    })
    await session.adopt(server.seat())
    expect(await errorOf(session.get('/x'))).toMatchObject({
      serverCode: 2001,
      fieldErrors: [{ field: 'Name', message: 'too long' }],
    })
  })

  test('of a user pool', async () => {
    const server = await cognitoServer({
      alter: (_operation, answer) => ({ ...answer, headers: { 'x-amzn-requestid': 'aws-1' } }),
    })
    const account = { poolId: POOL, clientId: CLIENT_ID, endpoint: server.origin, userName: 'ann' }
    const session = Session.create(server.origin, cognitoSrpAuthorizer({ ...account, password: async () => 'wrong' }))
    expect(await errorOf(session.login())).toMatchObject({
      code: 'WRONG_CREDENTIALS',
      status: 400,
      serverCode: 'NotAuthorizedException',
      serverMessage: 'Text for people',
      requestId: 'aws-1',
    })
    await session.close()
  })

  test.each([
    [400, 'BAD', 'BAD_REQUEST'],
    [403, 'NOT_GRANTED_CALL', 'RULE_MISSING'],
    [403, 'NOT_CREDENTIAL', 'LOGIN_NEEDED'],
    [404, 'X', 'NOT_FOUND'],
    [429, 'X', 'RATE_LIMITED'],
    [500, 'X', 'SERVER'],
  ])('of signed requests: the query’s id at %i %s', async (status, errorCode, code) => {
    const { session } = await ovhWorld({
      fault(call, response) {
        if (!call.target.endsWith('/me')) return false
        refuse(response, status, errorCode)
        return true
      },
    })
    const error = await errorOf(session.get('/me', { signal: AbortSignal.timeout(60_000) }))
    expect(error).toMatchObject({ code, status, serverCode: errorCode, requestId: QUERY_ID, serverMessage: 'No' })
  })
})
