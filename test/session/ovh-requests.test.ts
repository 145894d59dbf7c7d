import { inspect } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ovhUrl } from '../../src/session/authorizers/ovh-regions.ts'
import { Session } from '../../src/session/index.ts'
import { type FakeClock, fakeClock } from '../support/clock.ts'
import { expectNoSecret } from '../support/oauth.ts'
import {
  CONSUMER_KEY,
  expectedSignature,
  type OvhPlan,
  type OvhServer,
  ovhWorld,
  QUERY_ID,
  refuse,
} from '../support/ovh-server.ts'
import { errorOf, httpServer, json } from '../support/servers.ts'

const CANARY = 'canary-'
const HOUR = 3_600_000

const timesOf = (server: OvhServer, path: string) =>
  server.to(path).map(({ headers }) => Number(headers['x-ovh-timestamp']))
const seconds = (clock: FakeClock) => Math.floor((clock.now() + HOUR) / 1000)

describe('requests', () => {
  test('path, query and body beyond ASCII are signed as they are sent', async () => {
    const { session, server } = await ovhWorld()
    expect(await session.get('/me')).toMatchObject({ method: 'GET', path: '/me' })
    const query = { fieldType: 'TXT', sub: 'a b+c/ü', ok: true, list: ['x', '~*'] }
    await session.get('/domain/zone/a b/é', { query })
    await session.get('/sms?x=1', { query: { y: 2 } })
    const json = { name: 'Zoë ✓', none: null, list: [1, { a: null }] }
    expect(await session.post('/me/contact', { json })).toMatchObject({ body: JSON.stringify(json) })
    await session.put('/me/x', { json: {} })
    await session.post('/order/cart/assign')
    await session.delete('/me/api/credential/7', { query: { force: true } })
    await session.raw('POST', '/me/raw', { body: Uint8Array.of(0, 255, 128, 13, 10) })
    const calls = server.calls.filter(({ target }) => target !== '/1.0/auth/time')
    expect(calls).toHaveLength(8)
    expect(calls.every(({ isSigned }) => isSigned)).toBe(true)
    expect(calls[1]?.target).toMatch(/^\/1\.0\/domain\/zone\/a%20b\/%C3%A9\?fieldType=TXT&sub=a\+b%2Bc%2F%C3%BC/)
    expect(calls.map(({ headers }) => headers['content-type'])).toEqual([
      undefined,
      undefined,
      undefined,
      'application/json',
      'application/json',
      undefined,
      undefined,
      'application/json',
    ])
    expect(server.to('/auth/time')).toHaveLength(1)
    expect(server.to('/auth/time')[0]?.headers).not.toHaveProperty('x-ovh-consumer')
    for (const { headers } of server.calls) expect(headers).not.toHaveProperty('authorization')
  })

  test('/v1 and /v2 are beside /1.0, /v10 is below; a fragment and a lone question mark are not sent', async () => {
    const { session, server } = await ovhWorld()
    await session.get('/v2/iam/policy', { query: { pageSize: 10 } })
    await session.get('/v1/call')
    await session.get('/v10/call')
    await session.send({ method: 'GET', url: ovhUrl(server.endpoint, '/v2/ü') })
    await session.send({ method: 'GET', url: `${server.endpoint}/me?#fragment` })
    expect(server.calls.map(({ target }) => target)).toEqual([
      '/1.0/auth/time',
      '/v2/iam/policy?pageSize=10',
      '/v1/call',
      '/1.0/v10/call',
      '/v2/%C3%BC',
      '/1.0/me',
    ])
    expect(server.calls.slice(1).every(({ isSigned }) => isSigned)).toBe(true)
  })

  test('the checker itself notices one changed byte', async () => {
    const { session, server } = await ovhWorld()
    await session.post('/me', { json: { a: 1 } })
    const call = server.to('/me')[0]!
    expect(expectedSignature(call)).toBe(call.headers['x-ovh-signature'])
    for (const changed of [{ target: '/1.0/me?' }, { method: 'PUT' }, { body: Buffer.from('{"a":2}') }]) {
      expect(expectedSignature({ ...call, ...changed })).not.toBe(call.headers['x-ovh-signature'])
    }
  })

  test('after a 503 and a 429 each repetition has the time of its own', async () => {
    let fails = 2
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/me') || fails-- <= 0) return undefined
      response.writeHead(fails === 1 ? 503 : 429, { 'retry-after': '120' }).end('<h1>busy')
      return true
    }
    const { session, server } = await ovhWorld({ fault })
    await session.post('/me', { json: { a: 1 } })
    const [first = 0, ...rest] = timesOf(server, '/me')
    expect(rest).toEqual([first + 120, first + 240])
    expect(new Set(server.to('/me').map(({ headers }) => headers['x-ovh-signature'])).size).toBe(3)
    expect(server.to('/auth/time')).toHaveLength(1)
  })

  test('a redirect is an answer, not a way to go', async () => {
    const other = await httpServer((_request, response) => json(response, {}))
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/me')) return undefined
      response.writeHead(307, { location: `${other.origin}/1.0/me` }).end()
      return true
    }
    const { session } = await ovhWorld({ fault })
    expectNoSecret(await errorOf(session.get('/me')), CANARY)
    expect(other.seen).toHaveLength(0)
  })

  test('nothing of the login goes to another origin', async () => {
    const other = await httpServer((_request, response) => json(response, {}))
    const { session, server, authorizer, store } = await ovhWorld()
    await session.send({ method: 'GET', url: `${other.origin}/1.0/me` })
    expect(Object.keys(other.seen[0]!.headers).filter((name) => name.startsWith('x-ovh'))).toEqual([])
    const strayed = Session.create(other.origin, authorizer, { store, clock: fakeClock() })
    onTestFinished(() => strayed.close())
    const error = await errorOf(strayed.get('/me'))
    expect(error).toMatchObject({ class: 'usage', code: 'ORIGIN_FOREIGN' })
    expectNoSecret(error, CANARY)
    expect(other.seen).toHaveLength(1)
    expect(server.calls).toHaveLength(0)
  })

  test('without a secret or a login nothing is sent', async () => {
    const { session, server } = await ovhWorld({}, { options: { applicationSecret: '' } })
    expect(await errorOf(session.get('/me'))).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
    const none = await ovhWorld({}, { out: true })
    expect(await errorOf(none.session.get('/me'))).toMatchObject({ class: 'auth', code: 'LOGIN_NEEDED' })
    expect([...server.calls, ...none.server.calls]).toHaveLength(0)
  })
})

describe('time', () => {
  test('our clock is an hour off and jumps: the server’s time goes on', async () => {
    const { session, server, clock } = await ovhWorld()
    const begin = seconds(clock)
    await session.get('/me')
    clock.jump(-26 * HOUR)
    clock.advance(90_400)
    await session.get('/me')
    clock.jump(400 * HOUR)
    clock.advance(700)
    await session.get('/me')
    expect(timesOf(server, '/me')).toEqual([begin, begin + 90, begin + 91])
    expect(server.to('/auth/time')).toHaveLength(1)
  })

  test('parallel first calls ask once; who gives up does not stop the others', async () => {
    let answer = () => {}
    const asked = new Promise<void>((resolve) => {
      answer = resolve
    })
    let begin = 0
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/auth/time')) return undefined
      void asked.then(() => json(response, begin))
      return true
    }
    const { session, server, clock } = await ovhWorld({ fault })
    begin = seconds(clock)
    const stop = new AbortController()
    const early = errorOf(session.get('/me', { signal: stop.signal }))
    const calls = Array.from({ length: 20 }, () => session.get('/me'))
    await expect.poll(() => server.to('/auth/time').length).toBe(1)
    const reason = new Error('enough')
    stop.abort(reason)
    expect(await early).toBe(reason)
    answer()
    await Promise.all(calls)
    expect(server.to('/auth/time')).toHaveLength(1)
    expect(server.to('/me')).toHaveLength(20)
  })

  test.each([
    ['HTML', '<html>canary-page'],
    ['nothing', ''],
    ['null', 'null'],
    ['a text', '"1767600000"'],
    ['an object', '{"time":1767600000}'],
    ['negative', '-1767600000'],
    ['huge', '99999999999999999999'],
    ['milliseconds', '1767600000000'],
    ['zero', '0'],
    ['a fraction', '1767600000.5'],
    ['infinite', '1e999'],
    ['two', '1767600000 1767600000'],
  ])('an answer that is no time (%s) is refused, and asked for anew by the next call', async (_what, body) => {
    let wrong = true
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!wrong || !target.endsWith('/auth/time')) return undefined
      response.writeHead(200, { 'content-type': 'application/json' }).end(body)
      return true
    }
    const { session, server } = await ovhWorld({ fault })
    const error = await errorOf(session.get('/me'))
    expect(error).toMatchObject({ class: 'server', code: 'ANSWER_INVALID', retryable: false })
    expectNoSecret(error, CANARY)
    expect(server.to('/me')).toHaveLength(0)
    wrong = false
    await session.get('/me')
  })

  test('the time endpoint may be busy for a moment; a refused key there is named', async () => {
    let fails = 1
    const busy = await ovhWorld({
      fault: ({ target }, response) => {
        if (!target.endsWith('/auth/time') || fails-- <= 0) return undefined
        response.writeHead(503).end()
        return true
      },
    })
    await busy.session.get('/me')
    expect(busy.server.to('/auth/time')).toHaveLength(2)
    const wrong = await ovhWorld({}, { options: { applicationKey: 'unknown' } })
    const error = await errorOf(wrong.session.get('/me'))
    expect(error).toMatchObject({ class: 'usage', code: 'APPLICATION_KEY_WRONG' })
    expect(error.message).toContain(QUERY_ID)
  })

  // A machine that slept: its monotonic clock stood still.
  test('a stale time is learnt again, once, and the request goes out again', async () => {
    let slept = 0
    const made = await ovhWorld({ now: () => fakeStart + slept + made.clock.monotonic() })
    await made.session.get('/me')
    slept = 10 * HOUR
    expect(await made.session.post('/me', { json: { a: 1 } })).toMatchObject({ body: '{"a":1}' })
    expect(made.server.to('/auth/time')).toHaveLength(2)
    const [first = 0, stale = 0, fresh = 0] = timesOf(made.server, '/me')
    expect([stale - first, fresh - first]).toEqual([0, 36_000])
  })

  test('twenty stale requests at once all get through', async () => {
    let slept = 0
    const made = await ovhWorld({ now: () => fakeStart + slept + made.clock.monotonic() })
    await made.session.get('/me')
    slept = -10 * HOUR
    await Promise.all(Array.from({ length: 20 }, () => made.session.get('/me')))
    expect(timesOf(made.server, '/me').length).toBeLessThanOrEqual(41)
    expect(made.server.to('/auth/time').length).toBeLessThanOrEqual(21)
  })

  test.each([
    ['403', 403, 'QUERY_TIME_OUT', 'No'],
    ['400', 400, '', 'Invalid timestamp'],
  ])('refused for ever (%s): one more try, then the answer', async (_what, status, code, message) => {
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/me')) return undefined
      refuse(response, status, code, `${message} canary-text`)
      return true
    }
    const { session, server } = await ovhWorld({ fault })
    const error = await errorOf(session.get('/me'))
    expect(error).toMatchObject({ name: 'SyncError', status })
    expectNoSecret(error, CANARY)
    expect(server.to('/me')).toHaveLength(2)
    expect(server.to('/auth/time')).toHaveLength(2)
  })

  test('a wrong application secret ends after two tries and is not shown', async () => {
    const { session, server } = await ovhWorld({}, { options: { applicationSecret: 'canary-wrong' } })
    const error = await errorOf(session.get('/me'))
    expect(error).toMatchObject({ name: 'SyncError', status: 400 })
    expectNoSecret(error, CANARY)
    expect(server.to('/me').map(({ isSigned }) => isSigned)).toEqual([false, false])
  })
})

const fakeStart = Date.UTC(2026, 0, 15, 12)

describe('refusals', () => {
  const cases: [number, string, object][] = [
    [401, '', { class: 'auth', code: 'LOGIN_NEEDED' }],
    [401, 'INVALID_CREDENTIAL', { class: 'auth', code: 'LOGIN_NEEDED' }],
    [403, 'NOT_CREDENTIAL', { class: 'auth', code: 'LOGIN_NEEDED' }],
    [403, 'INVALID_CREDENTIAL', { class: 'auth', code: 'LOGIN_NEEDED' }],
    [403, 'NOT_GRANTED_CALL', { class: 'auth', code: 'RULE_MISSING' }],
    [403, 'INVALID_KEY', { class: 'usage', code: 'APPLICATION_KEY_WRONG' }],
    [403, 'FORBIDDEN', { class: 'permission', code: 'FORBIDDEN' }],
    [403, 'canary-code', { class: 'permission', code: 'FORBIDDEN' }],
  ]
  test.each(cases)('%i %s', async (status, code, expected) => {
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.includes('/sms')) return undefined
      refuse(response, status, code, `canary-text ${CONSUMER_KEY}`)
      return true
    }
    const { session, server, store } = await ovhWorld({ fault })
    const error = await errorOf(session.post('/sms/123/jobs?tag=canary-query', { json: { text: 'canary-body' } }))
    expect(error).toMatchObject({ ...expected, status, retryable: false })
    expect(error.message).toContain(QUERY_ID)
    if (code === 'NOT_GRANTED_CALL') expect(error.message).toContain('POST /sms/{id}/jobs')
    expectNoSecret(error, CANARY)
    expect(server.to('/jobs')).toHaveLength(1)
    // Whether the key is gone for good is for a person to say.
    expect(await store.load()).toMatchObject({ accessToken: CONSUMER_KEY })
  })

  test.each([
    ['HTML', '<html>canary-page', {}],
    ['nothing', '', {}],
    ['a list', '["canary-page"]', {}],
    ['a code that is no text', '{"errorCode":{"a":"canary-page"}}', {}],
    ['an odd number of the call', '{}', { 'x-ovh-queryid': 'canary-1\u00e9 <b>' }],
    ['a long one', '{}', { 'x-ovh-queryid': `canary-${'x'.repeat(90)}` }],
  ])('403 with %s', async (_what, body, headers) => {
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/me')) return undefined
      response.writeHead(403, headers).end(body)
      return true
    }
    const error = await errorOf((await ovhWorld({ fault })).session.get('/me'))
    expect(error).toMatchObject({ class: 'permission', code: 'FORBIDDEN', status: 403 })
    expectNoSecret(error, CANARY)
  })

  test('a dropped connection and a dead server say nothing of the keys', async () => {
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('/me')) return undefined
      response.destroy()
      return true
    }
    const { session } = await ovhWorld({ fault })
    const error = await errorOf(session.get('/me'))
    expect(error).toMatchObject({ class: 'network' })
    expectNoSecret(error, CANARY)
  })
})

describe('check, export, logout', () => {
  test('an export goes on elsewhere, and a check asks the server', async () => {
    const { session, server, authorizer, clock } = await ovhWorld()
    const dump = await session.dump()
    expect(dump).toMatchObject({ method: 'ovh-signature', grant: { v: 1, accessToken: CONSUMER_KEY } })
    expect(dump.grant?.expiresAt).toBeUndefined()
    const other = await Session.load(JSON.stringify(dump), server.endpoint, authorizer, { clock })
    onTestFinished(() => other.close())
    await other.get('/me')
    expect(await other.check({ online: true })).toEqual({ valid: true })
    await session.logout()
    expect(await other.check({ online: true })).toMatchObject({ valid: false, reason: 'refused' })
    for (const view of [inspect(session, { depth: 9 }), JSON.stringify(session)]) expect(view).not.toContain(CANARY)
  })

  test('logout is signed, ends the key, and forgets it here', async () => {
    const { session, server, store } = await ovhWorld()
    await session.logout()
    expect(server.to('/auth/logout')).toMatchObject([{ method: 'POST', isSigned: true }])
    expect(server.keys.has(CONSUMER_KEY)).toBe(false)
    expect(await store.load()).toBeUndefined()
    expect(await errorOf(session.get('/me'))).toMatchObject({ code: 'LOGIN_NEEDED' })
  })

  test('a key that is gone already is logged out; a refusal is an error', async () => {
    const gone = await ovhWorld({ fault: ({ target }, response) => target.endsWith('logout') && notThere(response) })
    await gone.session.logout()
    const kept = await ovhWorld({ fault: ({ target }, response) => target.endsWith('logout') && notGranted(response) })
    const error = await errorOf(kept.session.logout())
    expect(error).toMatchObject({ class: 'auth', code: 'RULE_MISSING' })
    expect(error.message).toContain('POST /auth/logout')
    expectNoSecret(error, CANARY)
    expect(await kept.store.load()).toBeUndefined()
  })

  test('logout after a long wait is signed anew', async () => {
    let fails = 1
    const fault: OvhPlan['fault'] = ({ target }, response) => {
      if (!target.endsWith('logout') || fails-- <= 0) return undefined
      response.writeHead(503, { 'retry-after': '200' }).end()
      return true
    }
    const { session, server } = await ovhWorld({ fault })
    await session.logout()
    expect(server.keys.has(CONSUMER_KEY)).toBe(false)
    expect(server.to('/auth/logout').at(-1)?.isSigned).toBe(true)
  })
})

const notThere = (response: Parameters<typeof refuse>[0]) => {
  refuse(response, 403, 'NOT_CREDENTIAL')
  return true
}
const notGranted = (response: Parameters<typeof refuse>[0]) => {
  refuse(response, 403, 'NOT_GRANTED_CALL')
  return true
}
