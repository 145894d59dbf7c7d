import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, type KeyObject, verify } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { type JwtBearerOptions, jwtBearerAuthorizer } from '../../src/session/authorizers/jwt-bearer.ts'
import type { SigningKeySource } from '../../src/session/oauth.ts'
import { fakeClock } from '../support/clock.ts'

import { contextOf, expectNoSecret, tokenServer } from '../support/oauth.ts'
import { dialer, errorOf, json } from '../support/servers.ts'

const PASSPHRASE = 'canary pässphrase'
const ISSUER = 'service@example.test'
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const p256 = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const ed25519 = generateKeyPairSync('ed25519')
const pemOf = (key: KeyObject, type: 'pkcs8' | 'pkcs1' | 'sec1' = 'pkcs8') =>
  key.export({ format: 'pem', type }).toString()

/** Logs in and hands out the statement that arrived. */
async function login(key: SigningKeySource, more: Partial<JwtBearerOptions> = {}) {
  const clock = fakeClock()
  const server = await tokenServer()
  const way = jwtBearerAuthorizer(server.origin, { issuer: ISSUER, key, ...more })
  const context = contextOf(dialer(), clock)
  const grant = await way.authorize(context)
  const form = server.tokenCalls[0]!
  return { clock, server, way, context, grant, form, assertion: form.get('assertion')! }
}

/** Verified without a library: RFC 7515 §5.2 and RFC 7518 §3.4 with what Node has. */
function verifyWithNode(assertion: string, key: KeyObject): unknown {
  const [header, payload, signature] = assertion.split('.') as [string, string, string]
  const { alg } = JSON.parse(Buffer.from(header, 'base64url').toString())
  const options = {
    RS256: { key },
    PS256: { key, padding: 6, saltLength: 32 },
    ES256: { key, dsaEncoding: 'ieee-p1363' as const },
    EdDSA: { key },
  }[alg as 'RS256']
  const bytes = Buffer.from(signature, 'base64url')
  const digest = alg === 'EdDSA' ? null : 'sha256'
  expect(verify(digest, Buffer.from(`${header}.${payload}`), options, bytes)).toBe(true)
  const flipped = Buffer.from(bytes)
  flipped[9]! ^= 1
  expect(verify(digest, Buffer.from(`${header}.${payload}`), options, flipped)).toBe(false)
  return JSON.parse(Buffer.from(payload, 'base64url').toString())
}

describe('each key and algorithm, checked twice', () => {
  const encrypted = rsa.privateKey.export({
    format: 'pem',
    type: 'pkcs8',
    cipher: 'aes-256-cbc',
    passphrase: PASSPHRASE,
  })
  test.each<[string, SigningKeySource, string, KeyObject]>([
    ['RS256 from PKCS#8', { pem: pemOf(rsa.privateKey) }, 'RS256', rsa.publicKey],
    ['RS256 from PKCS#1', { pem: pemOf(rsa.privateKey, 'pkcs1') }, 'RS256', rsa.publicKey],
    ['RS256 from encrypted PKCS#8', { pem: encrypted.toString(), passphrase: PASSPHRASE }, 'RS256', rsa.publicKey],
    ['RS256 from a JWK', { jwk: rsa.privateKey.export({ format: 'jwk' }) }, 'RS256', rsa.publicKey],
    ['PS256', { pem: pemOf(rsa.privateKey), algorithm: 'PS256' }, 'PS256', rsa.publicKey],
    ['ES256 from PKCS#8', { pem: pemOf(p256.privateKey) }, 'ES256', p256.publicKey],
    ['ES256 from SEC 1', { pem: pemOf(p256.privateKey, 'sec1') }, 'ES256', p256.publicKey],
    ['ES256 from a JWK', { jwk: p256.privateKey.export({ format: 'jwk' }) }, 'ES256', p256.publicKey],
    ['EdDSA', { pem: pemOf(ed25519.privateKey) }, 'EdDSA', ed25519.publicKey],
    ['a key that is read when needed', async () => ({ pem: pemOf(rsa.privateKey) }), 'RS256', rsa.publicKey],
  ])('%s', async (_name, key, algorithm, publicKey) => {
    const { assertion, server, clock, grant } = await login(key)
    expect(decodeProtectedHeader(assertion)).toEqual({ alg: algorithm, typ: 'JWT' })
    const { payload } = await jwtVerify(assertion, publicKey, {
      algorithms: [algorithm],
      issuer: ISSUER,
      subject: ISSUER,
      audience: `${server.origin}/oauth/token`,
      currentDate: new Date(clock.now()),
    })
    expect(verifyWithNode(assertion, publicKey)).toEqual(payload)
    expect(grant).toMatchObject({ accessToken: 'access-1' })
  })
})

test('claims: what was set, ours besides, a fresh id each time, the time of the clock', async () => {
  const { form, assertion, clock, way, context, grant, server } = await login(
    { pem: pemOf(ed25519.privateKey), kid: 'key-7' },
    {
      subject: 'ann@example.test',
      audience: 'https://aud.test',
      scope: 'a b',
      validitySeconds: 60,
      claims: { box_sub_type: 'enterprise', target: ['x'], n: 5 },
      parameters: { resource: 'https://api.test' },
    },
  )
  const now = Math.floor(clock.now() / 1000)
  expect(Object.fromEntries(form)).toEqual({
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    client_id: ISSUER,
    scope: 'a b',
    resource: 'https://api.test',
    assertion,
  })
  expect(decodeProtectedHeader(assertion)).toEqual({ alg: 'EdDSA', typ: 'JWT', kid: 'key-7' })
  const claims = verifyWithNode(assertion, ed25519.publicKey)
  expect(claims).toEqual({
    iss: ISSUER,
    sub: 'ann@example.test',
    aud: 'https://aud.test',
    iat: now,
    exp: now + 60,
    jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
    box_sub_type: 'enterprise',
    target: ['x'],
    n: 5,
  })
  clock.advance(3_600_000)
  const next = await way.renew!(grant, context)
  expect(next.accessToken).toBe('access-2')
  const again = verifyWithNode(server.tokenCalls[1]!.get('assertion')!, ed25519.publicKey) as Record<string, unknown>
  expect(again).toMatchObject({ iat: now + 3600, exp: now + 3660 })
  expect(again.jti).not.toBe((claims as Record<string, unknown>).jti)
  expect(server.tokenCalls[1]?.get('grant_type')).toBe('urn:ietf:params:oauth:grant-type:jwt-bearer')
})

test('five minutes by default and at most; the kid of a JWK; a client that authenticates besides', async () => {
  const jwk = { ...p256.privateKey.export({ format: 'jwk' }), kid: 'own' }
  const { assertion, server } = await login({ jwk }, { client: { id: 'c', secret: 's s' } })
  const { exp, iat } = verifyWithNode(assertion, p256.publicKey) as { exp: number; iat: number }
  expect(exp - iat).toBe(300)
  expect(decodeProtectedHeader(assertion).kid).toBe('own')
  expect(server.seen.at(-1)?.headers.authorization).toBe(`Basic ${Buffer.from('c:s+s').toString('base64')}`)
  for (const validitySeconds of [0, -1, 86_401, 1.5, Number.NaN]) {
    expect(() => jwtBearerAuthorizer('https://x.test', { issuer: 'i', key: { jwk }, validitySeconds })).toThrow(
      RangeError,
    )
  }
  for (const name of ['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti']) {
    const make = async () => jwtBearerAuthorizer('https://x.test', { issuer: 'i', key: { jwk }, claims: { [name]: 1 } })
    expect(await errorOf(make())).toMatchObject({ class: 'usage', code: 'CLAIM_RESERVED' })
  }
})

test('a statement the server refuses', async () => {
  const server = await tokenServer((_form, response) => json(response, { error: 'invalid_grant' }, 400))
  const way = jwtBearerAuthorizer(server.origin, { issuer: ISSUER, key: { pem: pemOf(p256.privateKey) } })
  const error = await errorOf(way.authorize(contextOf(dialer(), fakeClock())))
  expect(error).toMatchObject({ class: 'auth', code: 'GRANT_REFUSED' })
  expectNoSecret(error, server.tokenCalls[0]!.get('assertion')!)
})

describe('keys that cannot be used end before a request', () => {
  const encrypted = rsa.privateKey
    .export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: PASSPHRASE })
    .toString()
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
  const p384 = generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).privateKey
  const x25519 = generateKeyPairSync('x25519').privateKey
  const publicPem = rsa.publicKey.export({ format: 'pem', type: 'spki' }).toString()
  test.each<[string, SigningKeySource, string]>([
    ['nothing', { pem: '' }, 'KEY_INVALID'],
    ['garbage', { pem: `-----BEGIN PRIVATE KEY-----\n${PASSPHRASE}\n-----END PRIVATE KEY-----\n` }, 'KEY_INVALID'],
    ['too much', { pem: 'x'.repeat(65_537) }, 'KEY_INVALID'],
    ['a public key', { pem: publicPem }, 'KEY_INVALID'],
    ['a public JWK', { jwk: rsa.publicKey.export({ format: 'jwk' }) }, 'KEY_INVALID'],
    ['an empty JWK', { jwk: {} }, 'KEY_INVALID'],
    ['a symmetric JWK', { jwk: { kty: 'oct', k: 'AAAA' } }, 'KEY_INVALID'],
    ['no passphrase', { pem: encrypted }, 'KEY_PASSPHRASE_NEEDED'],
    ['a wrong passphrase', { pem: encrypted, passphrase: 'canary pässphrasE' }, 'KEY_PASSPHRASE_WRONG'],
    ['RSA of 1024 bits', { pem: pemOf(small) }, 'KEY_UNSUITABLE'],
    ['P-384', { pem: pemOf(p384) }, 'KEY_UNSUITABLE'],
    ['X25519', { pem: pemOf(x25519) }, 'KEY_UNSUITABLE'],
    ['RSA for ES256', { pem: pemOf(rsa.privateKey), algorithm: 'ES256' }, 'KEY_UNSUITABLE'],
    ['no PKCS#12', { pkcs12: Buffer.from('nonsense'), passphrase: PASSPHRASE }, 'KEY_INVALID'],
    ['an empty PKCS#12', { pkcs12: new Uint8Array(0), passphrase: PASSPHRASE }, 'KEY_INVALID'],
    ['a huge PKCS#12', { pkcs12: new Uint8Array(65_537), passphrase: PASSPHRASE }, 'KEY_INVALID'],
  ])('%s', async (_name, key, code) => {
    const server = await tokenServer()
    const way = jwtBearerAuthorizer(server.origin, { issuer: ISSUER, key })
    const error = await errorOf(way.authorize(contextOf(dialer(), fakeClock())))
    expect(error).toMatchObject({ class: 'key', code })
    expectNoSecret(error, PASSPHRASE, pemOf(rsa.privateKey).slice(100, 160))
    expect(server.tokenCalls).toHaveLength(0)
  })
})

const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] })
const attempt = (work: () => unknown) => {
  try {
    work()
    return true
  } catch {
    return false
  }
}
const hasOpenssl = attempt(() => openssl('version'))
const hasLegacy = hasOpenssl && attempt(() => openssl('list', '-providers', '-provider', 'legacy'))

describe.skipIf(!hasOpenssl)('PKCS#12 as the openssl command writes it (needs openssl)', () => {
  const files = new Map<string, Uint8Array>()
  beforeAll(() => {
    const directory = mkdtempSync(join(tmpdir(), 'sealsync-test-'))
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
    writeFileSync(key, pemOf(rsa.privateKey))
    openssl('req', '-x509', '-key', key, '-subj', '/CN=test', '-days', '2', '-out', cert)
    const write = (name: string, ...args: string[]) => {
      const out = join(directory, name)
      openssl('pkcs12', '-export', '-inkey', key, '-in', cert, '-out', out, '-passout', `pass:${PASSPHRASE}`, ...args)
      files.set(name, readFileSync(out))
    }
    write('usual')
    write('aes128', '-keypbe', 'AES-128-CBC', '-certpbe', 'AES-128-CBC', '-macalg', 'sha512', '-iter', '5000')
    write('plain', '-keypbe', 'NONE', '-certpbe', 'NONE')
    if (hasLegacy) write('legacy', '-legacy')
    openssl('pkcs12', '-export', '-nokeys', '-in', cert, '-out', join(directory, 'c'), '-passout', `pass:${PASSPHRASE}`)
    files.set('only a certificate', readFileSync(join(directory, 'c')))
    rmSync(directory, { recursive: true })
  })
  const use = (name: string, passphrase = PASSPHRASE) => login({ pkcs12: files.get(name)!, passphrase })

  test.each(['usual', 'aes128', 'plain'])('%s', async (name) => {
    const { assertion } = await use(name)
    verifyWithNode(assertion, rsa.publicKey)
    verifyWithNode(assertion, createPublicKey(rsa.privateKey))
  })

  test('a wrong passphrase, and a changed or cut file', async () => {
    expect(await errorOf(use('usual', 'canary pässphrasE'))).toMatchObject({ code: 'KEY_PASSPHRASE_WRONG' })
    expect(await errorOf(use('usual', ''))).toMatchObject({ code: 'KEY_PASSPHRASE_WRONG' })
    const file = files.get('usual')!
    const changed = Uint8Array.from(file)
    changed[600]! ^= 1
    const error = await errorOf(login({ pkcs12: changed, passphrase: PASSPHRASE }))
    expect(error.code).toMatch(/^KEY_(PASSPHRASE_WRONG|INVALID)$/)
    expectNoSecret(error, PASSPHRASE)
    const cut = await errorOf(login({ pkcs12: file.subarray(0, 900), passphrase: PASSPHRASE }))
    expect(cut).toMatchObject({ class: 'key', code: 'KEY_INVALID' })
  })

  test('a file without a key', async () => {
    expect(await errorOf(use('only a certificate'))).toMatchObject({ code: 'KEY_INVALID' })
  })

  test.skipIf(!hasLegacy)('RC2 and 3DES are named, with what to do (needs the legacy provider)', async () => {
    const error = await errorOf(use('legacy'))
    expect(error).toMatchObject({ class: 'key', code: 'KEY_LEGACY_ENCRYPTION' })
    expect(error.hint).toContain('openssl')
    expectNoSecret(error, PASSPHRASE)
  })
})
