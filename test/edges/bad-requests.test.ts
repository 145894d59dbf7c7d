/** What a program must not ask for: said at once, as a mistake of its own, over either protocol, and never repeated or sent. */
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { accessTokenAuthorizer, Session, type SessionSettings } from '../../src/session/index.ts'
import { errorOf, http2Server, httpServer, json } from '../support/servers.ts'
import { createAuthority } from '../support/tls.ts'

const authority = createAuthority()
afterAll(() => authority.remove())
const issued = authority.issue()

const REQUESTS: [name: string, code: string, request: object][] = [
  ['a header with a line end', 'HEADER_INVALID', { headers: { 'x-a': 'b\r\nx-c: d' } }],
  ['a header with a NUL', 'HEADER_INVALID', { headers: { 'x-a': 'b\0' } }],
  ['a header beyond Latin-1', 'HEADER_INVALID', { headers: { 'x-a': 'b\u2028' } }],
  ['a header whose name is none', 'HEADER_INVALID', { headers: { 'x a': 'b' } }],
  ['a header of the protocol', 'HEADER_INVALID', { headers: { ':path': '/other' } }],
  ['a number for a header', 'HEADER_INVALID', { headers: { 'x-a': 5 } }],
  ['an object for a header', 'HEADER_INVALID', { headers: { 'x-a': { b: 'c' } } }],
  ['the host of somebody else', 'HEADER_INVALID', { headers: { Host: 'elsewhere.example' } }],
  ['another request for a method', 'OPTION_INVALID', { method: 'GET /y HTTP/1.1\r\nHost: x\r\n\r\nGET' }],
  ['a number for a method', 'OPTION_INVALID', { method: 5 }],
  ['a text for a body', 'OPTION_INVALID', { method: 'POST', body: 'täxt' }],
  ['an object for a body', 'OPTION_INVALID', { method: 'POST', body: { length: 3 } }],
]

describe.each(['HTTP/1.1', 'HTTP/2'])('over %s', (protocol) => {
  test('nothing of it is sent', async () => {
    const isH2 = protocol === 'HTTP/2'
    const server = isH2
      ? await http2Server(issued, (stream) => stream.respond({ ':status': 200 }, { endStream: true }))
      : await httpServer((_seen, response) => json(response, {}), issued)
    const retries: unknown[] = []
    const session = Session.create(
      server.origin,
      accessTokenAuthorizer(async () => 'token'),
      { transport: { ca: [authority.cert], http2: isH2 }, onRetry: (event) => retries.push(event) },
    )
    onTestFinished(() => session.close())
    for (const [name, code, request] of REQUESTS) {
      for (const stream of [false, true]) {
        const asked = { method: 'GET', url: `${server.origin}/x`, stream, ...request } as never
        expect([name, await errorOf(session.send(asked))]).toEqual([
          name,
          expect.objectContaining({ class: 'usage', code, retryable: false }),
        ])
      }
    }
    expect([server.seen, retries]).toEqual([[], []])
    const own = new URL(server.origin).host
    expect((await session.send({ method: 'GET', url: server.origin, headers: { host: own } })).status).toBe(200)
  })
})

test.each<[string, SessionSettings]>([
  ['transport', { transport: 5 as never }],
  ['transport', { transport: null as never }],
  ['retryForMs', { retryForMs: 'x' as never }],
  ['retryForMs', { retryForMs: -1 }],
  ['expiryMarginMs', { expiryMarginMs: Number.NaN }],
  ['readOnly', { readOnly: { reads: ['GET'] } }],
  ['readOnly', { readOnly: { reads: [5 as never] } }],
  ['http2', { transport: { http2: 'on' as never } }],
  ['compression', { transport: { compression: 1 as never } }],
])('settings that cannot be meant are refused when a session is made: %s', (name, settings) => {
  const make = () =>
    Session.create(
      'https://files.example.org',
      accessTokenAuthorizer(async () => 'x'),
      settings,
    )
  expect(make).toThrow(new RegExp(name))
})
