import { createHash, X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readServerPins } from '../../src/http/connect.ts'
import { withRetry } from '../../src/http/retry.ts'
import type { DialerOptions } from '../../src/http/undici.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { freePort } from '../support/ports.ts'
import { connectProxy } from '../support/proxies.ts'
import { dialer, errorOf, httpServer } from '../support/servers.ts'
import { createAuthority, hasProgram, type Issued, runServer, type TestAuthority, tlsServer } from '../support/tls.ts'

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
const other = (fill: number) => `sha256/${Buffer.alloc(32, fill).toString('base64')}`

/** The same hash in another way: out of the DER of the certificate. */
function pinFromDer(pem: string): string {
  const { raw, publicKey } = new X509Certificate(pem)
  const key = publicKey.export({ type: 'spki', format: 'der' })
  expect(raw.indexOf(key)).toBeGreaterThan(0)
  return `sha256/${createHash('sha256').update(key).digest('base64')}`
}

describe.skipIf(!hasProgram('openssl'))('TLS (needs openssl)', () => {
  let authority: TestAuthority
  let stranger: TestAuthority
  let server: Issued
  let client: Issued
  beforeAll(() => {
    authority = createAuthority()
    stranger = createAuthority()
    server = authority.issue()
    client = authority.issue({ names: 'email:client@example.org' })
  })
  afterAll(() => {
    authority.remove()
    stranger.remove()
  })

  const get = (options: DialerOptions, url: string) => dialer(options)({ method: 'GET', url })
  /** Fails, and at the first try. */
  const failure = (options: DialerOptions, url: string) =>
    errorOf(withRetry(dialer(options), { clock: fakeClock(), random: steadyRandom() })({ method: 'GET', url }))

  test('each thing that is wrong with a certificate has its code, and nothing is sent', async () => {
    const ca = [authority.cert]
    const cases: [code: string, issued: Issued, ca: string[] | undefined][] = [
      ['CERT_EXPIRED', authority.issue({ from: '20200101000000Z', to: '20200201000000Z' }), ca],
      ['CERT_EXPIRED', authority.issue({ from: '20990101000000Z', to: '20990201000000Z' }), ca],
      ['CERT_NAME', authority.issue({ names: 'DNS:elsewhere.test' }), ca],
      ['CERT_NAME', authority.issue({ names: 'IP:127.0.0.2' }), ca],
      ['CERT_UNTRUSTED', server, [stranger.cert]],
      ['CERT_UNTRUSTED', server, undefined],
    ]
    for (const [code, issued, trusted] of cases) {
      const { origin, requests, connections } = await tlsServer(issued)
      const error = await failure(trusted === undefined ? {} : { ca: trusted }, origin)
      expect(error).toMatchObject({ class: 'tls', code, retryable: false, hint: expect.any(String) })
      expect([requests, connections()]).toEqual([[], 1])
    }
  })

  test('several authorities in one text', async () => {
    const { origin } = await tlsServer(server)
    expect(text((await get({ ca: [`${stranger.cert}\n${authority.cert}`] }, origin)).body)).toBe('ok')
  })

  describe('client certificates', () => {
    const wanting = (more: object = {}) =>
      tlsServer({ ...server, ca: authority.cert, requestCert: true, rejectUnauthorized: true, ...more }, (socket) => {
        const name = socket.getPeerCertificate().subjectaltname ?? ''
        socket.on('data', () => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${name.length}\r\n\r\n${name}`))
      })

    test.each(['TLSv1.2', 'TLSv1.3'] as const)('PEM, locked PEM and PKCS#12 over %s', async (version) => {
      const locked = authority.issue({ names: 'email:locked@example.org', encrypted: true })
      const { origin } = await wanting({ minVersion: version, maxVersion: version })
      for (const [clientCertificate, name] of [
        [{ cert: client.cert, key: client.key }, 'client'],
        [{ cert: locked.cert, key: locked.key, passphrase: 'key-canary' }, 'locked'],
        [{ pfx: locked.p12, passphrase: 'p12-canary' }, 'locked'],
      ] as const) {
        const answer = await get({ ca: [authority.cert], clientCertificate }, origin)
        expect(text(answer.body)).toBe(`email:${name}@example.org`)
      }
    })

    test('is shown to own origins only, and never to a proxy', async () => {
      const asking = { ...server, ca: authority.cert, requestCert: true, rejectUnauthorized: false }
      const shown = (socket: TLSSocket) => {
        const found = socket.getPeerX509Certificate() === undefined ? 'none' : 'some'
        socket.on('data', () => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n${found}`))
      }
      const [own, foreign] = [await tlsServer(asking, shown), await tlsServer(asking, shown)]
      const proxy = await connectProxy({ tls: server })
      const { cert, key } = client
      const options = { ca: [authority.cert], clientCertificate: { cert, key }, ownOrigins: [own.origin] }
      for (const through of [{}, { proxy: `https://127.0.0.1:${proxy.port}` }]) {
        const send = dialer({ ...options, ...through })
        expect(text((await send({ method: 'GET', url: own.origin })).body)).toBe('some')
        expect(text((await send({ method: 'GET', url: foreign.origin })).body)).toBe('none')
      }
    })

    test.each(['-tls1_2', '-tls1_3'])('openssl s_server %s refuses a strange one with an alert', async (version) => {
      const port = await freePort()
      const args = [
        's_server',
        '-accept',
        String(port),
        '-cert',
        server.certPath,
        '-key',
        server.keyPath,
        '-www',
        version,
      ]
      await runServer('openssl', [...args, '-Verify', '2', '-verify_return_error', '-CAfile', authority.certPath], port)
      const url = `https://127.0.0.1:${port}/`
      const own = { ca: [authority.cert], clientCertificate: { cert: client.cert, key: client.key } }
      expect((await get(own, url)).status).toBe(200)
      const { cert, key } = stranger.issue()
      const error = await failure({ ...own, clientCertificate: { cert, key } }, url)
      expect(error).toMatchObject({ class: 'tls', code: 'CLIENT_CERT_REFUSED', retryable: false })
      // Without one: TLS 1.2 says no more than that the handshake failed.
      const missing = await failure({ ca: [authority.cert] }, url)
      expect(missing).toMatchObject({
        class: 'tls',
        code: version === '-tls1_3' ? 'CLIENT_CERT_REFUSED' : 'TLS_FAILED',
        retryable: false,
      })
    })
  })

  describe('versions', () => {
    test('TLS 1.3 can be asked for', async () => {
      const ca = [authority.cert]
      const old = await tlsServer({ ...server, maxVersion: 'TLSv1.2' })
      expect((await get({ ca }, old.origin)).status).toBe(200)
      expect(await failure({ ca, minTls: 'TLSv1.3' }, old.origin)).toMatchObject({
        class: 'tls',
        code: 'TLS_VERSION',
        retryable: false,
      })
      expect(old.requests).toHaveLength(1)
      const recent = await tlsServer({ ...server, minVersion: 'TLSv1.3' })
      expect((await get({ ca, minTls: 'TLSv1.3' }, recent.origin)).status).toBe(200)
    })
  })

  describe('pins', () => {
    test('of the chain are read without asking for anything', async () => {
      const { origin, requests } = await tlsServer({ ...server, cert: server.cert + authority.cert })
      const pins = await readServerPins(origin, { ca: [authority.cert], pins: [other(1), other(2)] })
      expect(pins.map(({ pin }) => pin)).toEqual([pinFromDer(server.cert), pinFromDer(authority.cert)])
      expect(pins[0]).toMatchObject({ issuer: 'CN=Test authority', validTo: expect.stringMatching(/GMT$/) })
      expect(requests).toEqual([])
      const proxy = await connectProxy()
      const through = await readServerPins(origin, { ca: [authority.cert], proxy: `http://127.0.0.1:${proxy.port}` })
      expect(through).toEqual(pins)
    })

    test('are not read from a server that is not trusted, or has no TLS', async () => {
      const { origin } = await tlsServer(server)
      expect(await errorOf(readServerPins(origin))).toMatchObject({ class: 'tls', code: 'CERT_UNTRUSTED' })
      const plain = await httpServer((_request, response) => response.end())
      expect(await errorOf(readServerPins(plain.origin))).toMatchObject({ class: 'usage', code: 'PINS_INVALID' })
      expect(await errorOf(readServerPins('http://files.example.org'))).toMatchObject({ code: 'URL_INSECURE' })
    })

    test.each(['TLSv1.2', 'TLSv1.3'] as const)(
      'over %s: the right key passes, and is shown anew for each connection',
      async (version) => {
        const { origin, connections } = await tlsServer(
          { ...server, minVersion: version, maxVersion: version },
          (socket) =>
            socket.on('data', () =>
              socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${socket.isSessionReused() ? 'r' : 'n'}`),
            ),
        )
        const send = dialer({ ca: [authority.cert], pins: [other(1), pinFromDer(server.cert)], keepAliveMs: 0 })
        let bodies = ''
        for (let i = 0; i < 4; i++) bodies += text((await send({ method: 'GET', url: origin })).body)
        // A resumed session would show no certificate.
        expect(bodies).toBe('nnnn')
        expect(connections()).toBe(4)
      },
    )

    test('another key, and that of the authority, end the connection before a byte of the request', async () => {
      const { origin, requests, connections } = await tlsServer(server)
      for (const pins of [
        [other(1), other(2)],
        [other(1), pinFromDer(authority.cert)],
      ]) {
        const error = await failure({ ca: [authority.cert], pins }, origin)
        expect(error).toMatchObject({ class: 'tls', code: 'PIN_MISMATCH', retryable: false, hint: expect.any(String) })
      }
      expect(requests).toEqual([])
      expect(connections()).toBe(2)
    })

    test('count inside a proxy’s tunnel, and for own origins only', async () => {
      const [own, foreign] = [await tlsServer(server), await tlsServer(authority.issue())]
      const proxy = await connectProxy()
      const options = { ca: [authority.cert], pins: [other(1), other(2)], ownOrigins: [own.origin] }
      for (const through of [{}, { proxy: `http://127.0.0.1:${proxy.port}` }]) {
        expect(await failure({ ...options, ...through }, own.origin)).toMatchObject({ code: 'PIN_MISMATCH' })
        expect((await get({ ...options, ...through }, foreign.origin)).status).toBe(200)
      }
      expect(own.requests).toEqual([])
    })

    test('do not replace verification', async () => {
      const { origin } = await tlsServer(server)
      const pins = [pinFromDer(server.cert), other(1)]
      expect(await failure({ pins }, origin)).toMatchObject({ code: 'CERT_UNTRUSTED' })
    })
  })

  test('the authority of s_server is trusted, and its pin is the one of its key', async () => {
    const port = await freePort()
    await runServer(
      'openssl',
      ['s_server', '-accept', String(port), '-cert', server.certPath, '-key', server.keyPath, '-www'],
      port,
    )
    const pins = [pinFromDer(server.cert), other(1)]
    const url = `https://127.0.0.1:${port}/`
    const answer = await get({ ca: [authority.cert], pins, minTls: 'TLSv1.3' }, url)
    expect(text(answer.body)).toContain('TLSv1.3')
    expect((await readServerPins(url, { ca: [authority.cert] }))[0]?.pin).toBe(pins[0])
  })
})
