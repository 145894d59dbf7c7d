/** Further settings of TLS, of proxies and of compressed answers: each works, and none opens what it should not. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import type { TlsTrace } from '../../src/http/trace.ts'
import type { DialerOptions } from '../../src/http/undici.ts'
import { freshDirectory } from '../support/files.ts'
import { dialer, errorOf, httpServer, json, rawServer } from '../support/servers.ts'
import { createAuthority } from '../support/tls.ts'

const authority = createAuthority()
const other = createAuthority()
afterAll(() => {
  authority.remove()
  other.remove()
})

const served = (issued = authority.issue()) => httpServer((_seen, response) => json(response, { fine: true }), issued)
const ask = async (origin: string, options: DialerOptions) =>
  (await dialer(options)({ method: 'GET', url: `${origin}/x` })).status

/** Sets variables for one test. */
function withEnv(values: Record<string, string>) {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name]
    process.env[name] = value
    onTestFinished(() => {
      if (before === undefined) delete process.env[name]
      else process.env[name] = before
    })
  }
}

describe('authorities', () => {
  test('of a directory, what is no certificate in it passed over; none at all is refused', async () => {
    const directory = await freshDirectory()
    copyFileSync(authority.certPath, join(directory, 'own.pem'))
    writeFileSync(join(directory, 'broken.crt'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----')
    writeFileSync(join(directory, 'notes.txt'), 'x')
    mkdirSync(join(directory, 'below.pem'))
    const server = await served()
    expect(await ask(server.origin, { caDirectory: directory })).toBe(200)
    expect(await errorOf(ask(server.origin, {}))).toMatchObject({ code: 'CERT_UNTRUSTED' })
    for (const path of [await freshDirectory(), '/missing', authority.certPath]) {
      expect(() => dialer({ caDirectory: path })).toThrow(/caDirectory/)
    }
  })

  test('those of the environment stay beside given ones', async () => {
    const [server, elsewhere] = [await served(), await served(other.issue())]
    withEnv({ NODE_EXTRA_CA_CERTS: authority.certPath })
    expect(await ask(server.origin, { ca: [other.cert] })).toBe(200)
    expect(await ask(elsewhere.origin, { ca: [other.cert] })).toBe(200)
  })

  test('directories that SSL_CERT_DIR names', async () => {
    const directory = await freshDirectory()
    copyFileSync(authority.certPath, join(directory, '0a1b2c3d.0'))
    const server = await served()
    withEnv({ SSL_CERT_DIR: `/missing:${directory}` })
    expect(await ask(server.origin, {})).toBe(200)
  })
})

describe('exactly one certificate', () => {
  const fingerprint = (pem: string) =>
    execFileSync('openssl', ['x509', '-noout', '-fingerprint', '-sha256'], { input: pem })
      .toString()
      .trim()
      .split('=')[1]!

  test.each([
    ['of an unknown authority', () => authority.issue()],
    ['of another name', () => authority.issue({ names: 'DNS:elsewhere.example' })],
    ['past its end', () => authority.issue({ from: '20200101000000Z', to: '20200201000000Z' })],
  ])('%s: by fingerprint, or as it is', async (_name, issue) => {
    const issued = issue()
    const server = await served(issued)
    const leaf = readFileSync(issued.certPath, 'utf8').match(
      /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/,
    )![0]
    const hex = fingerprint(leaf)
    for (const acceptCertificate of [hex, hex.replaceAll(':', '').toLowerCase(), `sha256:${hex}`, leaf]) {
      expect(await ask(server.origin, { acceptCertificate })).toBe(200)
    }
  })

  test('another one is refused before anything is sent, also one that would be trusted', async () => {
    const server = await served()
    const options = { acceptCertificate: 'ab'.repeat(32), ca: [authority.cert] }
    expect(await errorOf(ask(server.origin, options))).toMatchObject({
      class: 'tls',
      code: 'CERT_OTHER',
      retryable: false,
    })
    expect(server.seen).toHaveLength(0)
  })

  test('other origins are checked as ever', async () => {
    const issued = authority.issue()
    const server = await served(issued)
    const acceptCertificate = fingerprint(issued.cert)
    const options = { acceptCertificate, ownOrigins: ['https://files.example.org'] }
    expect(await errorOf(ask(server.origin, options))).toMatchObject({ code: 'CERT_UNTRUSTED' })
  })

  test.each(['', 'x', 'ab'.repeat(31), `${'ab'.repeat(32)}00`, 7 as never, `${other.cert}\n${other.cert}`])(
    'what is neither is refused: %#',
    (acceptCertificate) => {
      expect(() => dialer({ acceptCertificate })).toThrow(/acceptCertificate/)
    },
  )
})

describe('a check of one’s own', () => {
  test('sees the chain, and may refuse it before anything is sent', async () => {
    const server = await served()
    const chains: number[] = []
    const ca = [authority.cert]
    const checkServer = async (chain: readonly unknown[], origin: string) => {
      expect(origin).toBe(server.origin)
      chains.push(chain.length)
    }
    expect(await ask(server.origin, { ca, checkServer })).toBe(200)
    expect(chains).toEqual([expect.any(Number)])
    expect(chains[0]).toBeGreaterThan(0)
    const refuse = () => {
      throw new Error('not this one')
    }
    expect(await errorOf(ask(server.origin, { ca, checkServer: refuse }))).toMatchObject({
      class: 'tls',
      code: 'SERVER_NOT_TRUSTED',
      retryable: false,
    })
    expect(server.seen).toHaveLength(1)
    expect(() => dialer({ checkServer: 'yes' as never })).toThrow(/checkServer/)
  })
})

describe('what OpenSSL reads', () => {
  test('ciphers and groups', async () => {
    const server = await served()
    const seen: TlsTrace[] = []
    const options = {
      ciphers: 'TLS_AES_128_GCM_SHA256',
      groups: 'P-256',
      trace: { onTls: (event: TlsTrace) => void seen.push(event) },
    }
    expect(await ask(server.origin, { ca: [authority.cert], ...options })).toBe(200)
    expect(seen).toMatchObject([{ cipher: 'TLS_AES_128_GCM_SHA256', protocol: 'TLSv1.3' }])
  })

  test('a list of revoked certificates', async () => {
    const directory = dirname(authority.certPath)
    const openssl = (...args: string[]) =>
      execFileSync('openssl', ['ca', '-config', 'ca.cnf', ...args], { cwd: directory, stdio: 'pipe' })
    const key = ['-keyfile', 'ca.key', '-cert', authority.certPath]
    const [good, bad] = [authority.issue(), authority.issue()]
    openssl('-revoke', bad.certPath, ...key)
    openssl('-gencrl', '-crldays', '2', '-out', 'list.crl', ...key)
    const crl = readFileSync(join(directory, 'list.crl'), 'utf8')
    const options = { ca: [authority.cert], crl }
    expect(await ask((await served(good)).origin, options)).toBe(200)
    const revoked = await served(bad)
    expect(await errorOf(ask(revoked.origin, options))).toMatchObject({ class: 'tls', code: 'CERT_UNTRUSTED' })
    expect(revoked.seen).toHaveLength(0)
  })

  test.each<DialerOptions>([
    { ciphers: 'nonsense' },
    { groups: 'nonsense' },
    { crl: 'nonsense' },
    { ciphers: 7 as never },
    { groups: '' },
  ])('what it does not understand is refused: %#', (options) => {
    expect(() => dialer(options)).toThrow(/OpenSSL/)
  })
})

describe('a proxy with a proof of one’s own', () => {
  /** Says what it was told, and connects to nobody. */
  async function proxy() {
    const heard: string[] = []
    const server = await rawServer((socket, first) => {
      heard.push(first)
      socket.end('HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n')
    })
    return { heard, url: `http://127.0.0.1:${server.port}` }
  }

  test('is asked for it with the proxy’s name, once for each connection', async () => {
    const { heard, url } = await proxy()
    const proxyAuthorization = async (host: string) => `Negotiate ${Buffer.from(host).toString('base64')}`
    expect(await errorOf(ask('https://files.example.org', { proxy: url, proxyAuthorization }))).toMatchObject({
      code: 'PROXY_FAILED',
    })
    expect(heard[0]).toMatch(/^CONNECT files\.example\.org:443/)
    expect(heard[0]).toMatch(/proxy-authorization: Negotiate MTI3LjAuMC4x\r\n/i)
  })

  test('one that would start another header is not sent', async () => {
    const { heard, url } = await proxy()
    const options = { proxy: url, proxyAuthorization: () => 'Negotiate x\r\nx-other: y' }
    expect(await errorOf(ask('https://files.example.org', options))).toMatchObject({ code: 'PROXY_INVALID' })
    expect(heard).toHaveLength(0)
  })
})

describe('compressed answers', () => {
  const packed = (bytes: Buffer) =>
    httpServer(({ headers }, response) => {
      const isWanted = String(headers['accept-encoding']).includes('gzip')
      response.writeHead(200, {
        'content-type': 'application/json',
        ...(isWanted ? { 'content-encoding': 'gzip' } : {}),
      })
      response.end(isWanted ? gzipSync(bytes) : bytes)
    })

  test('are asked for where it is wanted, of own servers, and never for streams', async () => {
    const bytes = Buffer.from(JSON.stringify({ list: Array.from({ length: 5_000 }, (_, n) => `entry ${n}`) }))
    const server = await packed(bytes)
    const request = { method: 'GET', url: server.origin } as const
    const send = dialer({ compression: true })
    expect(Buffer.from((await send(request)).body).equals(bytes)).toBe(true)
    const streamed = await send({ ...request, stream: true })
    let length = 0
    for await (const chunk of streamed.stream!) length += chunk.length
    expect(length).toBe(bytes.length)
    await dialer({ compression: true, ownOrigins: ['https://x.example'] })(request)
    await dialer()(request)
    expect(server.seen.map(({ headers }) => /gzip, br/.test(String(headers['accept-encoding'])))).toEqual([
      true,
      false,
      false,
      false,
    ])
  })

  test('that unpack to more than they should are cut off', async () => {
    const server = await packed(Buffer.alloc(8 * 1024 * 1024, 'a'))
    const send = dialer({ compression: true })
    const error = await errorOf(send({ method: 'GET', url: server.origin }))
    expect(error).toMatchObject({ class: 'server', code: 'ANSWER_TOO_LARGE' })
  })
})
