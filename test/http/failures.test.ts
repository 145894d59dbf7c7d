/** What hangs on an error of the wire: its words and its code, and nothing of what was received. */
import { describe, expect, test } from 'vitest'
import { expectNoSecret } from '../support/oauth.ts'
import { dialer, errorOf, rawServer } from '../support/servers.ts'

const CANARY = 'canary-received'

/** Broken in the middle of a packet: the parsers add the rest of it to their error. */
const BROKEN: [string, string][] = [
  ['a chunk without a size', `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ{"access_token":"${CANARY}"}\r\n`],
  ['a header that is none', `HTTP/1.1 200 OK\r\nset cookie: ${CANARY}\r\n\r\n`],
  ['a status that is none', `HTTP/1.1 abc ${CANARY}\r\n\r\n`],
  ['another protocol', `220 ${CANARY}\r\n`],
]

describe.each(BROKEN)('%s', (_name, answer) => {
  test('from the server', async () => {
    const server = await rawServer((socket) => socket.end(answer))
    const error = await errorOf(dialer()({ method: 'GET', url: server.origin, label: '/x' }))
    expect(error).toMatchObject({ class: 'network', code: 'NETWORK', retryable: true })
    expect(error.cause).toMatchObject({ name: 'HTTPParserError', message: expect.stringContaining('HTTP/1.1') })
    expectNoSecret(error, CANARY)
  })

  test('from the proxy', async () => {
    const proxy = await rawServer((socket) => socket.end(answer))
    const send = dialer({ proxy: `http://127.0.0.1:${proxy.port}`, proxyUser: 'user', proxyPassword: 'canary-proxy' })
    const error = await errorOf(send({ method: 'GET', url: 'http://127.0.0.1:9/', label: '/x' }))
    expect(error).toMatchObject({ class: 'network', code: 'PROXY_FAILED' })
    expectNoSecret(error, CANARY, 'canary-proxy')
  })
})

test('the code of the system is kept', async () => {
  const server = await rawServer((socket) => socket.resetAndDestroy())
  const error = await errorOf(dialer()({ method: 'GET', url: server.origin, label: '/x' }))
  expect(error).toMatchObject({
    code: 'NETWORK',
    cause: { code: expect.stringMatching(/^(ECONNRESET|UND_ERR_SOCKET)$/) },
  })
})
