import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type DialerOptions, parseTransport } from '../../src/http/options.ts'
import { parseException, parseProxy, proxyFromEnvironment } from '../../src/http/proxy.ts'
import { createDialer } from '../../src/http/undici.ts'
import { createAuthority, hasProgram, type TestAuthority } from '../support/tls.ts'

const PIN = `sha256/${Buffer.alloc(32, 1).toString('base64')}`
const BACKUP = `sha256/${Buffer.alloc(32, 2).toString('base64')}`

/** What options were refused with. Secrets in these tests contain `canary`. */
function refusal(options: DialerOptions) {
  try {
    createDialer(options)
  } catch (error) {
    expect(inspect(error, { depth: 9 })).not.toContain('canary')
    return error as Error & { code: string }
  }
  throw new Error('They were taken')
}

/** Options as a file may hold them, of any type. */
const loose = (options: Record<string, unknown>) => options as DialerOptions

describe('options that cannot be used', () => {
  test.each([
    ['TRANSPORT_INVALID', { connections: 0 }],
    ['TRANSPORT_INVALID', { connections: 1.5 }],
    ['TRANSPORT_INVALID', { connectTimeoutMs: 0 }],
    ['TRANSPORT_INVALID', { headersTimeoutMs: -1 }],
    ['TRANSPORT_INVALID', { bodyTimeoutMs: Number.NaN }],
    ['TRANSPORT_INVALID', { totalTimeoutMs: '5' }],
    ['TRANSPORT_INVALID', { keepAliveMs: -1 }],
    ['TRANSPORT_INVALID', { maxBodyBytes: 2 ** 40 }],
    ['TRANSPORT_INVALID', { maxErrorBytes: 0 }],
    ['TRANSPORT_INVALID', { minTls: 'TLSv1.1' }],
    ['TRANSPORT_INVALID', { family: 5 }],
    ['TRANSPORT_INVALID', { bindAddress: 'eth0' }],
    ['TRANSPORT_INVALID', { bindAddress: '127.0.0.1', family: 6 }],
    ['TRANSPORT_INVALID', { proxyResolves: 'yes' }],
    ['TRANSPORT_INVALID', { ownOrigins: ['files.example.org'] }],
    ['TRANSPORT_INVALID', { ca: 'not a list' }],
    ['CA_INVALID', { ca: ['canary'] }],
    ['CA_INVALID', { ca: ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'] }],
    ['CA_INVALID', { ca: ['-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n'] }],
    ['PINS_INVALID', { pins: [] }],
    ['PINS_INVALID', { pins: [PIN] }],
    ['PINS_INVALID', { pins: [PIN, PIN] }],
    ['PINS_INVALID', { pins: [PIN, 'sha256/AAAA'] }],
    ['PINS_INVALID', { pins: [PIN, BACKUP.replace('sha256', 'sha1')] }],
    ['PINS_INVALID', { pins: [PIN, `${BACKUP.slice(0, -2)}B=`] }],
    ['CLIENT_CERT_INVALID', { clientCertificate: 'canary' }],
    ['CLIENT_CERT_INVALID', { clientCertificate: { cert: 'canary', key: 'canary' } }],
    ['CLIENT_CERT_INVALID', { clientCertificate: { cert: '', key: 'canary' } }],
    ['CLIENT_CERT_INVALID', { clientCertificate: { pfx: Buffer.from('canary') } }],
    ['CLIENT_CERT_INVALID', { clientCertificate: { pfx: '' } }],
    ['HEADERS_INVALID', { headers: ['x'] }],
    ['HEADERS_INVALID', { headers: { 'x-a': 5 } }],
    ['HEADERS_INVALID', { headers: { 'x-a': 'canary\r\nx-b: 1' } }],
    ['HEADERS_INVALID', { headers: { 'x a': '1' } }],
    ['HEADERS_INVALID', { headers: { 'x-a': '1', 'X-A': '2' } }],
    ['HEADERS_INVALID', { headers: { Authorization: 'canary' } }],
    ['HEADERS_INVALID', { headers: { cookie: 'canary' } }],
    ['HEADERS_INVALID', { headers: { HOST: 'canary' } }],
    ['HEADERS_INVALID', { headers: { 'proxy-authorization': 'canary' } }],
    ['HEADERS_INVALID', { headers: { 'accept-encoding': 'gzip' } }],
    ['HEADERS_INVALID', { headers: { 'content-length': '5' } }],
    ['HEADERS_INVALID', { headers: JSON.parse('{"__proto__": "canary"}') }],
    ['HEADERS_INVALID', { userAgent: 'a\nb' }],
    ['HEADERS_INVALID', { userAgentSuffix: '' }],
    ['PROXY_INVALID', { proxy: 'proxy.test:3128' }],
    ['PROXY_INVALID', { proxy: 5 }],
    ['PROXY_INVALID', { proxyUser: 'u' }],
    ['PROXY_INVALID', { proxy: 'http://p.test', proxyPassword: 'canary' }],
    ['PROXY_INVALID', { proxy: 'http://u:canary@p.test', proxyUser: 'u' }],
    ['PROXY_INVALID', { proxy: 'http://u:canary%@p.test' }],
    ['PROXY_INVALID', { proxy: 'http://p.test', proxyUser: 'a:b', proxyPassword: 'canary' }],
    ['PROXY_INVALID', { proxy: 'http://p.test', proxyUser: 'u', proxyPassword: 'canary\n' }],
    ['PROXY_INVALID', { proxy: 'socks5://p.test', proxyUser: 'u' }],
    ['PROXY_INVALID', { proxy: 'socks5://p.test', proxyUser: 'u', proxyPassword: 'canary'.repeat(50) }],
    ['PROXY_INVALID', { noProxy: ['a.test', 'b c'] }],
  ])('%s: %j', (code, options) => {
    expect(refusal(loose(options))).toMatchObject({ class: 'usage', code, retryable: false, hint: expect.any(String) })
  })

  test('all problems are told at once', () => {
    const error = refusal({ connections: 0, pins: [PIN], headers: { host: 'canary' }, proxy: 'canary' })
    expect(error.code).toBe('TRANSPORT_INVALID')
    for (const name of ['connections', 'pins', 'header host', 'proxy must look like']) {
      expect(error.message).toContain(name)
    }
  })
})

test('options that can be used, and what they become', () => {
  const transport = parseTransport({
    keepAliveMs: 0,
    pins: [PIN, BACKUP],
    bindAddress: '::1',
    headers: { 'X-Team': 'blue' },
    userAgent: 'sealsync',
    userAgentSuffix: 'nightly',
    ownOrigins: ['https://A.test:443/'],
  })
  expect(transport).toMatchObject({ keepAliveMs: 0, family: 6, userAgent: 'sealsync|nightly' })
  expect({ ...transport.headers }).toEqual({ 'x-team': 'blue' })
  expect(['https://a.test', 'https://b.test', 'https://a.test:8443'].map(transport.isOwn)).toEqual([true, false, false])
  expect(parseTransport({}).isOwn('https://anything.test')).toBe(true)
})

describe.skipIf(!hasProgram('openssl'))('certificates in options (needs openssl)', () => {
  let authority: TestAuthority
  beforeAll(() => {
    authority = createAuthority()
  })
  afterAll(() => authority.remove())

  test('client certificates: right ones are taken, wrong ones are named', () => {
    const [plain, locked] = [authority.issue(), authority.issue({ encrypted: true })]
    const { cert, key } = locked
    for (const clientCertificate of [
      { cert: plain.cert, key: plain.key },
      { cert, key, passphrase: 'key-canary' },
      { pfx: locked.p12, passphrase: 'p12-canary' },
      { pfx: locked.p12.toString('base64'), passphrase: 'p12-canary' },
    ]) {
      const { own, other } = parseTransport({ clientCertificate }).contexts
      expect(own).not.toBe(other)
    }
    for (const [code, clientCertificate] of [
      ['CLIENT_CERT_PASSPHRASE', { cert, key, passphrase: 'canary' }],
      ['CLIENT_CERT_PASSPHRASE', { cert, key }],
      ['CLIENT_CERT_PASSPHRASE', { pfx: locked.p12, passphrase: 'canary' }],
      ['CLIENT_CERT_PASSPHRASE', { pfx: locked.p12 }],
      ['CLIENT_CERT_MISMATCH', { cert, key: plain.key }],
    ] as const) {
      expect(refusal({ clientCertificate })).toMatchObject({ class: 'usage', code })
    }
  })

  test('several authorities in one text, with words between them; one broken spoils it', () => {
    const text = `A test\n${authority.cert}\r\n# another\n${authority.issue().cert}`
    expect(() => parseTransport({ ca: [text] })).not.toThrow()
    expect(refusal({ ca: [text.replace(/MII../, 'AAAAA')] })).toMatchObject({ code: 'CA_INVALID' })
  })
})

describe('the proxy setting', () => {
  test.each([
    ['http://p.test', { kind: 'http', host: 'p.test', port: 80, login: undefined }],
    ['http://P.test:3128/', { kind: 'http', host: 'p.test', port: 3128, login: undefined }],
    ['https://p.test', { kind: 'https', host: 'p.test', port: 443, login: undefined }],
    ['socks5://P.test', { kind: 'socks5', host: 'p.test', port: 1080, login: undefined }],
    ['socks5h://[::1]:9050', { kind: 'socks5h', host: '::1', port: 9050, login: undefined }],
    ['http://[::1]:8080', { kind: 'http', host: '::1', port: 8080, login: undefined }],
    [
      'http://u:p%40%3A%C3%A4@p.test:1',
      { kind: 'http', host: 'p.test', port: 1, login: { user: 'u', password: 'p@:ä' } },
    ],
    ['http://u@p.test', { kind: 'http', host: 'p.test', port: 80, login: { user: 'u', password: '' } }],
  ])('%s', (text, proxy) => {
    expect(parseProxy(text)).toEqual(proxy)
  })

  test('a login of its own', () => {
    expect(parseProxy('socks5://p.test', 'u', 'a b')).toMatchObject({ login: { user: 'u', password: 'a b' } })
  })

  test.each([
    '',
    'p.test',
    'p.test:3128',
    'http:p.test',
    'ftp://p.test',
    'socks4://p.test',
    'socks://p.test',
    'http://p.test/path',
    'http://p.test?q',
    'http://p.test#f',
    'http://p.test:0',
    'http://p.test:70000',
    'socks5://',
    'socks5://a b',
    'socks5://a%20b',
    'http://:canary@p.test',
  ])('%j is none', (text) => {
    const problem = parseProxy(text)
    expect(problem).toEqual(expect.any(String))
    expect(problem).not.toContain('canary')
  })
})

describe('exceptions', () => {
  test.each([
    ['*', 'a.test', 443, true],
    ['a.test', 'a.test', 443, true],
    ['a.test', 'b.a.test', 443, true],
    ['A.TEST', 'a.test', 443, true],
    ['a.test.', 'a.test', 443, true],
    ['a.test', 'ba.test', 443, false],
    ['.a.test', 'b.a.test', 443, true],
    ['.a.test', 'a.test', 443, true],
    ['*.a.test', 'b.a.test', 443, true],
    ['.a.test', 'xa.test', 443, false],
    ['bücher.test', 'xn--bcher-kva.test', 443, true],
    ['a.test:443', 'a.test', 443, true],
    ['a.test:443', 'a.test', 8443, false],
    ['*:8443', 'a.test', 8443, true],
    ['10.0.0.1', '10.0.0.1', 443, true],
    ['10.0.0.1', '10.0.0.2', 443, false],
    ['10.0.0.1:80', '10.0.0.1', 443, false],
    ['10.0.0.1', 'a.10.0.0.1', 443, false],
    ['10.0.0.0/8', '10.255.0.1', 443, true],
    ['10.0.0.0/8', '11.0.0.1', 443, false],
    ['10.0.0.0/8', '::ffff:10.1.1.1', 443, true],
    ['0.0.0.0/0', '9.9.9.9', 443, true],
    ['10.0.0.0/8', 'ten.test', 443, false],
    ['::1', '::1', 443, true],
    ['0:0:0:0:0:0:0:1', '::1', 443, true],
    ['[::1]', '::1', 443, true],
    ['[::1]:443', '::1', 443, true],
    ['[::1]:443', '::1', 80, false],
    ['fd00::/8', 'fd12::1', 443, true],
    ['[fd00::]/8', 'fd12::1', 443, true],
    ['fd00::/8', 'fe80::1', 443, false],
    ['fd00::/8', '10.0.0.1', 443, false],
  ])('%s for %s:%i is %s', (entry, host, port, expected) => {
    expect(parseException(entry)?.(host, port)).toBe(expected)
  })

  test.each([
    '',
    ' ',
    'a b',
    'http://a.test',
    'a.test:0',
    'a.test:99999',
    '10.0.0.0/33',
    '::/129',
    'a/8',
    '[a.test]',
    'a..b',
  ])('%j is none', (entry) => {
    expect(parseException(entry)).toBeUndefined()
  })
})

describe('the environment', () => {
  const HTTPS = 'https://files.test'
  test.each([
    [HTTPS, {}, undefined],
    [HTTPS, { HTTPS_PROXY: 'http://upper' }, 'http://upper'],
    [HTTPS, { HTTPS_PROXY: 'http://upper', https_proxy: 'http://lower' }, 'http://lower'],
    [HTTPS, { HTTPS_PROXY: 'http://upper', https_proxy: '' }, 'http://upper'],
    [HTTPS, { HTTPS_PROXY: 'http://own', all_proxy: 'http://all' }, 'http://own'],
    [HTTPS, { ALL_PROXY: 'socks5h://all' }, 'socks5h://all'],
    [HTTPS, { http_proxy: 'http://plain' }, undefined],
    [HTTPS, { https_proxy: 'p.test:3128' }, 'http://p.test:3128'],
    ['http://127.0.0.1', { http_proxy: 'http://plain', https_proxy: 'http://tls' }, 'http://plain'],
    ['http://127.0.0.1', { HTTP_PROXY: 'http://plain' }, 'http://plain'],
    ['http://127.0.0.1', { HTTP_PROXY: 'http://header', REQUEST_METHOD: 'GET' }, undefined],
    ['http://127.0.0.1', { http_proxy: 'http://own', REQUEST_METHOD: 'GET' }, 'http://own'],
  ])('%s with %j', (origin, env, proxy) => {
    expect(proxyFromEnvironment(env, origin).proxy).toBe(proxy)
  })

  test('its exceptions; those that cannot be read are left out', () => {
    const env = { https_proxy: 'http://p', no_proxy: ' a.test, .b.test\t10.0.0.0/8,,bad entry/9 ', NO_PROXY: 'c.test' }
    expect(proxyFromEnvironment(env, HTTPS)).toEqual({
      proxy: 'http://p',
      noProxy: ['a.test', '.b.test', '10.0.0.0/8', 'bad'],
    })
    expect(proxyFromEnvironment({ no_proxy: 'a.test' }, HTTPS)).toEqual({})
    expect(parseTransport({ noProxy: 'a.test, b.test' }).exceptions).toHaveLength(2)
  })

  test('one that cannot be used is refused, not passed by', () => {
    expect(refusal(proxyFromEnvironment({ all_proxy: 'socks4://u:canary@p' }, HTTPS))).toMatchObject({
      class: 'usage',
      code: 'PROXY_INVALID',
    })
  })
})
