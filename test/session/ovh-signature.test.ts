import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { HttpRequest } from '../../src/http/types.ts'
import type { AuthContext } from '../../src/session/authorizer.ts'
import { accessRules, OVH_REGIONS, ovhEndpoint, ovhUrl } from '../../src/session/authorizers/ovh-regions.ts'
import { ovhSignature, ovhSignatureAuthorizer } from '../../src/session/authorizers/ovh-signature.ts'
import { fakeClock } from '../support/clock.ts'
import { contextOf } from '../support/oauth.ts'
import { errorOf } from '../support/servers.ts'

const SHARED = new URL('../../../shared/auth/ovh-signing.json', import.meta.url)

interface Worked {
  id: string
  method: HttpRequest['method']
  signedUrl: string
  body: string
  timestamp: string | null
  signature: string | null
  headers?: Record<string, string>
}

interface Facts {
  applicationKey: string
  applicationSecret: string
  consumerKey: string
  signatures: Worked[]
  recursiveRules: { input: string; paths: string[] }[]
  credentialRequests: { id: string; method: string; url: string; headers: Record<string, string>; body: string }[]
}

const NONE: Facts = {
  applicationKey: '',
  applicationSecret: '',
  consumerKey: '',
  signatures: [],
  recursiveRules: [],
  credentialRequests: [],
}
const isThere = existsSync(SHARED)
const facts: Facts = isThere ? JSON.parse(readFileSync(SHARED, 'utf8')) : NONE

describe.skipIf(!isThere)('worked examples (need ../shared)', () => {
  const worked = facts.signatures

  test('there are nineteen', () => expect(worked).toHaveLength(19))

  test.each(worked.filter(({ signature }) => signature !== null))('$id: the same signature', (one) => {
    const { applicationSecret, consumerKey } = facts
    const { method, signedUrl: url, signature } = one
    const given = { applicationSecret, consumerKey, url, body: Buffer.from(one.body), timestamp: one.timestamp! }
    expect(ovhSignature({ ...given, method })).toBe(signature)
    expect(ovhSignature({ ...given, method: method.toLowerCase() })).toBe(signature)
    if (one.body === '') expect(ovhSignature({ ...given, method, body: undefined })).toBe(signature)
  })

  // A path that was signed as typed goes out under another URL: that example shows what not to do.
  const sendable = worked.filter(({ signature, id }) => signature !== null && id !== 'path-space')
  test.each(sendable)('$id: the same headers, with the time learnt from the server', async (one) => {
    const { applicationKey, applicationSecret, consumerKey } = facts
    const endpoint = `${new URL(one.signedUrl).origin}/1.0`
    const way = ovhSignatureAuthorizer({ endpoint, applicationKey, applicationSecret })
    const asked: HttpRequest[] = []
    const send: AuthContext['send'] = async (request) => {
      asked.push(request)
      return { status: 200, headers: {}, body: Buffer.from(one.timestamp!) }
    }
    const request: HttpRequest = {
      method: one.method,
      url: one.signedUrl,
      ...(one.body === '' ? {} : { body: Buffer.from(one.body) }),
    }
    const signed = await way.sign!(request, { v: 1, accessToken: consumerKey }, contextOf(send, fakeClock()))
    expect(signed.url).toBe(one.signedUrl)
    expect(signed.headers?.['x-ovh-signature']).toBe(one.signature)
    const lower = Object.entries(one.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value])
    if (lower.length > 0) expect(signed.headers).toEqual(Object.fromEntries(lower))
    expect(asked).toMatchObject([{ method: 'GET', url: `${endpoint}/auth/time` }])
    expect(asked[0]?.headers).toEqual({ accept: 'application/json', 'x-ovh-application': applicationKey })
  })

  test('recursive rules', () => {
    for (const { input, paths } of facts.recursiveRules) {
      expect(accessRules(input, 'read-only')).toEqual(paths.map((path) => ({ method: 'GET', path })))
    }
  })

  test.each(facts.credentialRequests)('request for a consumer key: $id', async (one) => {
    const { method, url, headers, body } = one
    const { accessRules: rules, redirection, allowedIPs } = JSON.parse(body)
    const way = ovhSignatureAuthorizer({
      endpoint: 'ovh-eu',
      applicationKey: facts.applicationKey,
      applicationSecret: 's',
      accessRules: rules,
      ...(redirection === null ? {} : { redirection, allowedIPs }),
    })
    const sent: HttpRequest[] = []
    const send: AuthContext['send'] = async (request) => {
      sent.push(request)
      return { status: 500, headers: {}, body: Buffer.from('') }
    }
    await errorOf(way.authorize(contextOf(send, fakeClock(), { openUrl: async () => {}, askSecret: async () => '' })))
    expect(sent).toMatchObject([{ method, url }])
    expect(Buffer.from(sent[0]!.body!).toString()).toBe(body)
    const { accept: _, ...rest } = sent[0]!.headers!
    expect(rest).toEqual(Object.fromEntries(Object.entries(headers).map(([name, v]) => [name.toLowerCase(), v])))
  })
})

describe('known answers', () => {
  const keys = { applicationSecret: 'madeUpSecret', consumerKey: 'madeUpConsumer' }
  // Made with: printf '%s' 'SECRET+CONSUMER+METHOD+URL+BODY+TIME' | openssl dgst -sha1 -r
  const known: [string, Omit<Parameters<typeof ovhSignature>[0], keyof typeof keys>, string][] = [
    [
      'GET',
      { method: 'GET', url: 'https://api.test/1.0/me', timestamp: '1700000000' },
      'ff54804a52388661aac62fd14980a38d0c89e0da',
    ],
    [
      'a body beyond ASCII',
      {
        method: 'POST',
        url: 'https://api.test/1.0/note',
        body: Buffer.from('{"text":"Größe ✓"}'),
        timestamp: '1700000001',
      },
      '125bc73501cd33acff476efbd8f0191591c8187c',
    ],
    [
      'path and query',
      {
        method: 'delete',
        url: 'https://api.test/1.0/a%20b/%C3%A9?x=1+2&y=%2B',
        timestamp: '1700000002',
      },
      '91815867103c92b2928d31acbad8ed718eba42ba',
    ],
    [
      'an empty body',
      { method: 'POST', url: 'https://api.test/1.0/empty', body: new Uint8Array(0), timestamp: '1700000004' },
      '9ef20ce472d98a7c09790996421da159d0a3ef12',
    ],
    [
      'bytes that are no text',
      { method: 'PUT', url: 'https://api.test/1.0/raw', body: Uint8Array.of(0, 255, 128), timestamp: '1700000005' },
      '4e2d13df74dc245848135f4a1849c99487523e8c',
    ],
  ]
  test.each(known)('%s', (_what, signed, hex) => expect(ovhSignature({ ...keys, ...signed })).toBe(`$1$${hex}`))

  test('empty parts keep their separators', () => {
    const empty = { applicationSecret: '', consumerKey: '', method: 'PUT', url: 'https://api.test/v2/x' }
    expect(ovhSignature({ ...empty, body: Buffer.from('{}'), timestamp: '1700000003' })).toBe(
      '$1$bb55dcd33e1439aa2c09f483000aa3b876216a73',
    )
  })

  const python = spawnSync('python3', ['-c', 'print(1)']).status === 0
  test.skipIf(!python)('Python agrees (needs python3)', () => {
    const script = `
import hashlib, json, sys
for c in json.load(sys.stdin):
    text = "+".join([c["applicationSecret"], c["consumerKey"], c["method"].upper(), c["url"], ""]).encode()
    print("$1$" + hashlib.sha1(text + bytes(c["body"]) + b"+" + c["timestamp"].encode()).hexdigest())`
    const cases = Array.from({ length: 40 }, (_, i) => ({
      applicationSecret: `sécret ${i}`,
      consumerKey: `key+${i}`,
      method: ['get', 'POST', 'Put', 'DELETE'][i % 4]!,
      url: ovhUrl('ovh-eu', ['zone', `ä/${i}`, '€'], { q: `${i} +&`, all: i % 2 === 0, none: null }),
      body: Array.from({ length: i * 3 }, (_, at) => (at * 37 + i) % 256),
      timestamp: String(1_700_000_000 + i),
    }))
    const { stdout } = spawnSync('python3', ['-c', script], { input: JSON.stringify(cases) })
    const ours = cases.map((one) => ovhSignature({ ...one, body: Uint8Array.from(one.body) }))
    expect(ours).toEqual(stdout.toString().trim().split('\n'))
  })
})

describe('addresses', () => {
  test.each([
    ['/me', 'https://eu.api.ovh.com/1.0/me'],
    ['/domain/zone/a b/é', 'https://eu.api.ovh.com/1.0/domain/zone/a%20b/%C3%A9'],
    ['/a%20b', 'https://eu.api.ovh.com/1.0/a%2520b'],
    ["/a\\b#c[d]~*'()!", "https://eu.api.ovh.com/1.0/a%5Cb%23c%5Bd%5D~*'()!"],
    ['/v1/call', 'https://eu.api.ovh.com/v1/call'],
    ['/v1', 'https://eu.api.ovh.com/v1'],
    ['/v2?x=1', 'https://eu.api.ovh.com/v2?x=1'],
    ['/v2/iam/policy', 'https://eu.api.ovh.com/v2/iam/policy'],
    ['/v10/call', 'https://eu.api.ovh.com/1.0/v10/call'],
    ['/v2x', 'https://eu.api.ovh.com/1.0/v2x'],
    ['/x/v2/y', 'https://eu.api.ovh.com/1.0/x/v2/y'],
    ['/auth/time', 'https://eu.api.ovh.com/1.0/auth/time'],
    ['//evil.test/x', 'https://eu.api.ovh.com/1.0//evil.test/x'],
    [['a/b', '?', '%2e'], 'https://eu.api.ovh.com/1.0/a%2Fb/%3F/%252e'],
  ])('%s', (path, url) => {
    expect(ovhUrl('ovh-eu', path)).toBe(url)
    expect(new URL(url).href).toBe(url)
  })

  test('queries: form encoding, null as text, nothing for undefined, lists repeated, after what is there', () => {
    const query = { active: true, off: false, owner: null, none: undefined, from: 3, list: ['a', 'b+/ü'] }
    expect(ovhUrl('ovh-ca', '/cloud?x=1', query)).toBe(
      'https://ca.api.ovh.com/1.0/cloud?x=1&active=true&off=false&owner=null&from=3&list=a&list=b%2B%2F%C3%BC',
    )
  })

  test.each([
    '',
    'me',
    'https://evil.test',
    '/..',
    '/a/../b',
    '/.',
    '/a/./b',
    '/a/..',
    '/x?a b',
    '/x?é',
    '/x?a#b',
    '/\ud800',
  ])('%j is refused', (path) => {
    expect(() => ovhUrl('ovh-eu', path)).toThrow(expect.objectContaining({ class: 'usage', code: 'PATH_INVALID' }))
  })

  test('regions', () => {
    expect(OVH_REGIONS).toHaveLength(7)
    const withTokens = OVH_REGIONS.filter((name) => ovhEndpoint(name).tokenUrl !== undefined)
    expect(withTokens).toEqual(['ovh-eu', 'ovh-ca', 'ovh-us'])
    expect(ovhEndpoint('ovh-us')).toMatchObject({
      url: 'https://api.us.ovhcloud.com/1.0',
      tokenUrl: 'https://us.ovhcloud.com/auth/oauth2/token',
    })
    for (const name of ['', 'ovh-mars', 'OVH-EU', 'constructor', '__proto__', 'eu.api.ovh.com']) {
      let error: Error | undefined
      try {
        ovhEndpoint(name)
      } catch (thrown) {
        error = thrown as Error
      }
      expect(error, name).toMatchObject({ class: 'usage', code: 'REGION_UNKNOWN' })
      for (const known of OVH_REGIONS) expect(error?.message).toContain(known)
    }
  })

  test.each([
    ['HTTPS://API.test/1.0', 'URL_INVALID'],
    ['https://API.test/1.0', 'URL_INVALID'],
    ['https://api.test:443/1.0', 'URL_INVALID'],
    ['https://api.test/x/../1.0', 'URL_INVALID'],
    ['https://me:pw@api.test/1.0', 'URL_INVALID'],
    ['https://api.test/1.0?x', 'URL_INVALID'],
    ['http://api.test/1.0', 'URL_INSECURE'],
    ['http://localhost/1.0', 'URL_INSECURE'],
    ['ftp://api.test/1.0', 'URL_INVALID'],
  ])('the endpoint %s is refused', (url, code) => {
    expect(() => ovhEndpoint(url)).toThrow(expect.objectContaining({ code }))
  })

  test.each([
    ['ovh-eu', 'https://eu.api.ovh.com/auth/?credentialToken=x', true],
    ['ovh-eu', 'https://www.ovh.com/auth/', true],
    ['https://eu.api.ovh.com/1.0', 'https://www.ovh.com/auth/', true],
    ['ovh-eu', 'https://ovh.com/', true],
    ['ovh-us', 'https://us.ovhcloud.com/auth/', true],
    ['ovh-us', 'https://www.ovh.com/auth/', false],
    ['kimsufi-eu', 'https://eu.api.kimsufi.com/auth/', true],
    ['ovh-eu', 'http://eu.api.ovh.com/auth/', false],
    ['ovh-eu', 'https://evilovh.com/', false],
    ['ovh-eu', 'https://ovh.com.evil.test/', false],
    ['ovh-eu', 'https://ovh.com@evil.test/', false],
    ['ovh-eu', 'https://me@ovh.com/', false],
    ['ovh-eu', 'https://www.ovh.com:8443/', false],
    ['ovh-eu', 'https://127.0.0.1/', false],
    ['ovh-eu', 'javascript:alert(1)', false],
    ['https://api.test/1.0', 'https://api.test/auth', true],
    ['https://api.test/1.0', 'https://www.api.test/auth', false],
    ['https://api.test/1.0', 'https://api.test:8443/auth', false],
    ['http://127.0.0.1:8080/1.0', 'http://127.0.0.1:9/auth', true],
    ['http://127.0.0.1:8080/1.0', 'http://localhost/auth', false],
    ['http://127.0.0.1:8080/1.0', 'https://www.ovh.com/auth/', false],
  ])('at %s, is %s a login page? %s', (endpoint, page, is) => {
    expect(ovhEndpoint(endpoint).isLoginPage(new URL(page))).toBe(is)
  })

  test('rule sets', () => {
    const methods = (mode: Parameters<typeof accessRules>[1]) => accessRules('/', mode).map(({ method }) => method)
    expect(methods('read-only')).toEqual(['GET'])
    expect(methods('read-write')).toEqual(['GET', 'POST', 'PUT', 'DELETE'])
    expect(methods('read-write-safe')).toEqual(['GET', 'POST', 'PUT'])
    expect(accessRules('/sms/', 'read-write-safe').map(({ method, path }) => `${method} ${path}`)).toEqual([
      'GET /sms',
      'POST /sms',
      'PUT /sms',
      'GET /sms/*',
      'POST /sms/*',
      'PUT /sms/*',
    ])
  })
})
