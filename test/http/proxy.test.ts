import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { withRetry } from '../../src/http/retry.ts'
import type { DialerOptions } from '../../src/http/undici.ts'
import { fakeClock, steadyRandom } from '../support/clock.ts'
import { freshDirectory } from '../support/files.ts'
import { freePort } from '../support/ports.ts'
import { connectProxy, socksProxy, type TestProxy, type TestProxyOptions } from '../support/proxies.ts'
import { dialer, errorOf, httpServer, rawServer } from '../support/servers.ts'
import { createAuthority, hasProgram, runServer, type TestAuthority, tlsServer } from '../support/tls.ts'

const ok = () => httpServer((_request, response) => response.end('ok'))
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
/** A port on which nothing listens. */
const NOBODY = 9
const LOGIN = { proxyUser: 'someone', proxyPassword: 'pass:canary ä' }

/** Asks through a proxy, with retrying, and gives the error: it must not hold the password, nor what the proxy said. */
async function failure(options: DialerOptions, url: string) {
  const clock = fakeClock()
  const send = withRetry(dialer(options), { clock, random: steadyRandom(), retryForMs: 1 })
  const error = await errorOf(send({ method: 'GET', url }))
  expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/canary|Basic /)
  return error
}

const KINDS: [kind: string, open: (options?: TestProxyOptions) => Promise<TestProxy>][] = [
  ['http', connectProxy],
  ['socks5', socksProxy],
  ['socks5h', socksProxy],
]

describe.each(KINDS)('a proxy of our own: %s', (kind, open) => {
  const at = ({ port }: { port: number }) => `${kind}://127.0.0.1:${port}`

  test('carries requests, several over one tunnel', async () => {
    const [server, proxy] = [await ok(), await open()]
    const send = dialer({ proxy: at(proxy), connections: 1 })
    for (let i = 0; i < 3; i++) {
      const body = Buffer.alloc(200_000, 0x61)
      expect(text((await send({ method: 'POST', url: `${server.origin}/${i}`, body })).body)).toBe('ok')
    }
    expect(server.seen.map(({ path }) => path)).toEqual(['/0', '/1', '/2'])
    expect(server.seen[2]?.body).toHaveLength(200_000)
    expect(proxy.asked).toEqual([`127.0.0.1:${server.port}`])
    // What is for the proxy stays there.
    expect(Object.keys(server.seen[0]?.headers ?? {}).filter((name) => name.startsWith('proxy'))).toEqual([])
  })

  test('gets the login, from either place', async () => {
    const [server, proxy] = [await ok(), await open({ login: 'someone:pass:canary ä' })]
    const url = `${kind}://someone:pass%3Acanary%20%C3%A4@127.0.0.1:${proxy.port}`
    for (const options of [{ proxy: at(proxy), ...LOGIN }, { proxy: url }]) {
      expect((await dialer(options)({ method: 'GET', url: server.origin })).status).toBe(200)
    }
    expect(proxy.logins).toEqual(Array(2).fill('someone:pass:canary ä'))
  })

  test('refuses the login, or misses one: told at once, tried once', async () => {
    const [server, proxy] = [await ok(), await open({ login: 'other:canary' })]
    for (const options of [{ proxy: at(proxy), ...LOGIN }, { proxy: at(proxy) }]) {
      expect(await failure(options, server.origin)).toMatchObject({
        class: 'network',
        code: 'PROXY_AUTH',
        retryable: false,
        hint: expect.stringContaining('proxyUser'),
      })
    }
    expect(proxy.connections()).toBe(2)
    expect(server.connections()).toBe(0)
  })

  test('is not asked for exceptions', async () => {
    const [server, proxy] = [await ok(), await open()]
    for (const noProxy of [['127.0.0.0/8'], `a.test,127.0.0.1:${server.port}`]) {
      expect((await dialer({ proxy: at(proxy), noProxy })({ method: 'GET', url: server.origin })).status).toBe(200)
    }
    expect(proxy.connections()).toBe(0)
  })

  test('is down, silent, or hangs up', async () => {
    const server = await ok()
    const down = { proxy: at({ port: NOBODY }), ...LOGIN }
    const silent = { proxy: at(await open({ silent: true })), connectTimeoutMs: 200 }
    const gone = { proxy: at(await open({ leadsTo: NOBODY })) }
    for (const options of [down, silent, gone]) {
      const error = await failure(options, server.origin)
      expect(error).toMatchObject({ class: 'network', code: 'PROXY_FAILED', retryable: true })
    }
    expect(server.connections()).toBe(0)
  })

  test('says more than its answer: that would be an answer to nothing', async () => {
    const server = await ok()
    const proxy = await open({ extra: 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary' })
    expect(await failure({ proxy: at(proxy) }, server.origin)).toMatchObject({ code: 'PROXY_FAILED', retryable: false })
    expect(server.seen).toEqual([])
  })

  test('speaks something else', async () => {
    const server = await ok()
    const other = await httpServer((_request, response) => response.writeHead(200).end('canary'))
    expect(await failure({ proxy: at(other), connectTimeoutMs: 500 }, server.origin)).toMatchObject({
      class: 'network',
      code: 'PROXY_FAILED',
    })
    expect(server.connections()).toBe(0)
  })
})

describe('answers of an HTTP proxy', () => {
  test.each([
    [302, false],
    [403, false],
    [500, true],
    [502, true],
    [503, true],
    [504, true],
  ])('status %i: worth another try: %s', async (reply, retryable) => {
    const proxy = await connectProxy({ reply })
    const error = await failure({ proxy: `http://127.0.0.1:${proxy.port}` }, 'http://127.0.0.1:9/')
    expect(error).toMatchObject({ code: 'PROXY_FAILED', retryable, message: expect.stringContaining(String(reply)) })
    expect(proxy.asked).toHaveLength(retryable ? 6 : 1)
  })
})

test.each([
  [1, true],
  [2, false],
  [3, true],
  [4, true],
  [5, true],
  [6, true],
  [7, false],
  [8, false],
  [99, false],
])('reply %i of a SOCKS proxy: worth another try: %s', async (reply, retryable) => {
  const proxy = await socksProxy({ reply })
  const error = await failure({ proxy: `socks5://127.0.0.1:${proxy.port}` }, 'http://127.0.0.1:9/')
  expect(error).toMatchObject({ code: 'PROXY_FAILED', retryable })
})

describe('loopback targets', () => {
  test('go directly when the proxy is elsewhere', async () => {
    const server = await ok()
    for (const proxy of ['http://192.0.2.1:3128', 'socks5h://proxy.invalid', 'https://localhost:1']) {
      const send = dialer({ proxy, ...LOGIN })
      expect((await send({ method: 'GET', url: server.origin })).status).toBe(200)
    }
  })
})

describe.skipIf(!hasProgram('openssl'))('TLS through a proxy (needs openssl)', () => {
  let authority: TestAuthority
  beforeAll(() => {
    authority = createAuthority()
  })
  afterAll(() => authority.remove())

  test.each(KINDS)('%s: the certificate must have the name in the URL', async (kind, open) => {
    const ca = [authority.cert]
    const right = await tlsServer(authority.issue())
    const wrong = await tlsServer(authority.issue({ names: 'DNS:elsewhere.test' }))
    const proxy = await open()
    const send = dialer({ ca, proxy: `${kind}://127.0.0.1:${proxy.port}` })
    expect(text((await send({ method: 'GET', url: `https://localhost:${right.port}/` })).body)).toBe('ok')
    expect(text((await send({ method: 'GET', url: right.origin })).body)).toBe('ok')
    expect(await errorOf(send({ method: 'GET', url: wrong.origin }))).toMatchObject({ class: 'tls', code: 'CERT_NAME' })
    expect(wrong.requests).toEqual([])
    // Names go to the proxy unless it is not to resolve them.
    expect(proxy.asked[0]).toBe(`${kind === 'socks5' ? '127.0.0.1' : 'localhost'}:${right.port}`)
  })

  test('the proxy itself may have TLS, and is verified', async () => {
    const ca = [authority.cert]
    const server = await tlsServer(authority.issue())
    const proxy = await connectProxy({ tls: authority.issue(), login: 'someone:pass:canary ä' })
    const send = dialer({ ca, proxy: `https://127.0.0.1:${proxy.port}`, ...LOGIN })
    expect(text((await send({ method: 'GET', url: server.origin })).body)).toBe('ok')
    const expired = authority.issue({ from: '20200101000000Z', to: '20200201000000Z' })
    for (const [tls, code] of [
      [authority.issue({ names: 'DNS:elsewhere.test' }), 'CERT_NAME'],
      [expired, 'CERT_EXPIRED'],
    ] as const) {
      const bad = await connectProxy({ tls })
      const error = await failure({ ca, proxy: `https://127.0.0.1:${bad.port}`, ...LOGIN }, server.origin)
      expect(error).toMatchObject({ class: 'tls', code, message: expect.stringContaining('the proxy') })
      // No password for a stranger.
      expect(bad.asked).toEqual([])
    }
  })

  test.each(KINDS)('%s: the time for connecting covers the TLS of a silent target too', async (kind, open) => {
    const silent = await rawServer(() => {})
    const proxy = await open()
    const options = { proxy: `${kind}://127.0.0.1:${proxy.port}`, connectTimeoutMs: 200 }
    const error = await failure(options, silent.origin.replace('http:', 'https:'))
    expect(error).toMatchObject({ class: 'network', code: 'PROXY_FAILED', retryable: true })
    expect(new Set(proxy.asked)).toEqual(new Set([`127.0.0.1:${silent.port}`]))
  })

  test.each(KINDS)('%s: a target that hangs up during TLS is worth another try', async (kind, open) => {
    for (const hangUp of ['destroy', 'resetAndDestroy'] as const) {
      const server = await rawServer((socket) => socket[hangUp]())
      const proxy = await open()
      const options = { proxy: `${kind}://127.0.0.1:${proxy.port}`, ca: [authority.cert] }
      const error = await failure(options, server.origin.replace('http:', 'https:'))
      expect(error).toMatchObject({ class: 'network', retryable: true })
      expect(server.connections()).toBe(6)
    }
  })

  describe('with a rule for addresses', () => {
    const allow: DialerOptions['allow'] = (reach) => reach === 'public'

    test.each(KINDS)('%s: addresses and names are checked here, and the proxy is never asked', async (kind, open) => {
      const proxy = await open()
      const send = dialer({ proxy: `${kind}://127.0.0.1:${proxy.port}`, allow })
      for (const host of ['127.0.0.1', '[::1]', '10.0.0.1', '[64:ff9b::10.0.0.1]', 'localhost']) {
        const error = await errorOf(send({ method: 'GET', url: `https://${host}/` }))
        expect(error, host).toMatchObject({ class: 'safety', code: 'ADDRESS_REFUSED', retryable: false })
      }
      expect(proxy.connections()).toBe(0)
    })

    test('a name without an address here is refused, unless that is left to the proxy', async () => {
      const server = await tlsServer(authority.issue({ names: 'DNS:no-such-host.invalid' }))
      const proxy = await connectProxy({ leadsTo: server.port })
      const options = { proxy: `http://127.0.0.1:${proxy.port}`, allow, ca: [authority.cert] }
      const request = { method: 'GET', url: 'https://no-such-host.invalid/' } as const
      const error = await errorOf(dialer(options)(request))
      // A machine without any name server answers in another way.
      expect(['ADDRESS_UNCHECKED', 'NETWORK']).toContain(error.code)
      expect(proxy.connections()).toBe(0)
      const trusting = dialer({ ...options, proxyResolves: true })
      expect(text((await trusting(request)).body)).toBe('ok')
      expect(proxy.asked).toEqual(['no-such-host.invalid:443'])
      for (const url of ['https://10.0.0.1/', 'https://[64:ff9b::a00:1]/']) {
        expect(await errorOf(trusting({ method: 'GET', url }))).toMatchObject({ code: 'ADDRESS_REFUSED' })
      }
      expect(proxy.connections()).toBe(1)
    })

    test('the proxy is asked for the address that was checked', async () => {
      const server = await tlsServer(authority.issue())
      const proxy = await connectProxy()
      const options = { proxy: `http://127.0.0.1:${proxy.port}`, ca: [authority.cert] }
      const send = dialer({ ...options, allow: (reach) => reach === 'loopback', family: 4 })
      expect(text((await send({ method: 'GET', url: `https://localhost:${server.port}/` })).body)).toBe('ok')
      expect(proxy.asked).toEqual([`127.0.0.1:${server.port}`])
    })
  })
})

describe.skipIf(!hasProgram('tinyproxy'))('tinyproxy', () => {
  /** @param lines - More of its configuration. */
  async function tinyproxy(...lines: string[]): Promise<string> {
    const [directory, port] = [await freshDirectory(), await freePort()]
    const path = join(directory, 'tinyproxy.conf')
    await writeFile(
      path,
      [`Port ${port}`, 'Listen 127.0.0.1', 'Timeout 30', 'LogLevel Critical', ...lines, ''].join('\n'),
    )
    await chmod(path, 0o644)
    await runServer('tinyproxy', ['-d', '-c', path], port)
    return `http://127.0.0.1:${port}`
  }

  test('with a login', async () => {
    const server = await ok()
    const proxy = await tinyproxy('BasicAuth someone canary')
    const send = dialer({ proxy, proxyUser: 'someone', proxyPassword: 'canary' })
    for (let i = 0; i < 3; i++) expect((await send({ method: 'GET', url: server.origin })).status).toBe(200)
    expect(server.seen[0]?.headers).not.toHaveProperty('via')
    for (const login of [{}, { proxyUser: 'someone', proxyPassword: 'wrong-canary' }]) {
      expect(await failure({ proxy, ...login }, server.origin)).toMatchObject({ code: 'PROXY_AUTH', retryable: false })
    }
    expect(server.seen).toHaveLength(3)
  })

  test('does not allow the port', async () => {
    const server = await ok()
    const proxy = await tinyproxy('ConnectPort 443')
    expect(await failure({ proxy }, server.origin)).toMatchObject({ code: 'PROXY_FAILED', retryable: false })
    expect(server.connections()).toBe(0)
  })

  test('cannot reach the target', async () => {
    const proxy = await tinyproxy()
    const error = await failure({ proxy }, `http://127.0.0.1:${NOBODY}`)
    expect(error).toMatchObject({ code: 'PROXY_FAILED' })
  })
})

describe.skipIf(!hasProgram('microsocks'))('microsocks', () => {
  async function microsocks(...args: string[]): Promise<number> {
    const port = await freePort()
    await runServer('microsocks', ['-i', '127.0.0.1', '-p', String(port), ...args], port)
    return port
  }

  test.each(['socks5', 'socks5h'])('%s without and with a login', async (kind) => {
    const server = await ok()
    const open = `${kind}://127.0.0.1:${await microsocks()}`
    expect((await dialer({ proxy: open })({ method: 'GET', url: server.origin })).status).toBe(200)
    const closed = `${kind}://127.0.0.1:${await microsocks('-u', 'someone', '-P', 'canary')}`
    const send = dialer({ proxy: closed, proxyUser: 'someone', proxyPassword: 'canary' })
    for (let i = 0; i < 3; i++) expect((await send({ method: 'GET', url: server.origin })).status).toBe(200)
    for (const login of [{}, { proxyUser: 'someone', proxyPassword: 'wrong-canary' }]) {
      expect(await failure({ proxy: closed, ...login }, server.origin)).toMatchObject({
        code: 'PROXY_AUTH',
        retryable: false,
      })
    }
    expect(server.seen).toHaveLength(4)
  })

  test('cannot reach the target', async () => {
    const proxy = `socks5://127.0.0.1:${await microsocks()}`
    const error = await failure({ proxy }, `http://127.0.0.1:${NOBODY}`)
    expect(error).toMatchObject({ code: 'PROXY_FAILED', retryable: true })
  })
})
