import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { primitives } from '#primitives'
import { createFileEncryptor, parseFileKey, unlockKeyPair, unwrapFileKey, wrapFileKey } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { failure, fixturePkcs8, toBase64, unlockFixture } from './support.ts'

const VERSIONS = ['A', 'RSA-4096'] as const
const MASK_HASH = { A: 'sha1', 'RSA-4096': 'sha256' } as const

function opensslVersion(): string | undefined {
  try {
    return execFileSync('openssl', ['version'], { encoding: 'utf8' }).trim()
  } catch {
    console.warn('SKIPPED, not installed: the OpenSSL command line')
    return undefined
  }
}

const installed = opensslVersion()
const folder = mkdtempSync(join(tmpdir(), 'sealsync-openssl-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = (name: string, content: string | Uint8Array) => {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}
const openssl = (...args: string[]) =>
  new Uint8Array(execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 20 }))
const oaep = (hash: string) =>
  ['rsa_padding_mode:oaep', 'rsa_oaep_md:sha256', `rsa_mgf1_md:${hash}`].flatMap((option) => ['-pkeyopt', option])

describe.skipIf(installed === undefined)(`the OpenSSL command line (${installed})`, () => {
  test.each(VERSIONS)('opens the %s pair we lock and the file key we wrap', async (version) => {
    const pair = await unlockFixture(version)
    const password = 'Grüße 🐙 from here'
    for (const prf of ['SHA-1', 'SHA-256', 'SHA-512'] as const) {
      const [salt, iv] = [primitives.randomBytes(20), primitives.randomBytes(16)]
      const locked = await lockWith(pair, password, { prf, iterations: 20_000, salt, iv })
      const pem = file('locked.pem', locked.privateKeyContainer.privateKey)
      const plain = openssl('pkcs8', '-in', pem, '-passin', `file:${file('password', password)}`)
      const key = file('plain.pem', plain)
      expect(openssl('pkcs8', '-topk8', '-nocrypt', '-in', key, '-outform', 'DER')).toEqual(await fixturePkcs8(version))
      expect(openssl('pkey', '-in', key, '-pubout').toString()).toBe(
        new TextEncoder().encode(locked.publicKeyContainer.publicKey).toString(),
      )
      expect(Buffer.from(openssl('pkey', '-in', key, '-check', '-noout')).toString()).toMatch(/valid/i)
      const fileKey = createFileEncryptor().final()
      const wrapped = await wrapFileKey(fileKey, pair.publicKey)
      const content = file('wrapped', wrapped.key)
      expect(openssl('pkeyutl', '-decrypt', '-inkey', key, '-in', content, ...oaep(MASK_HASH[version]))).toEqual(
        fileKey.key,
      )
    }
  })

  test.each(VERSIONS)('makes %s pairs and file keys we open', async (version) => {
    const bits = version === 'A' ? 2048 : 4096
    const key = file('made.pem', openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', `rsa_keygen_bits:${bits}`))
    const publicKey = Buffer.from(openssl('pkey', '-in', key, '-pubout')).toString()
    const publicFile = file('public.pem', publicKey)
    const pass = ['-passout', `file:${file('password', 'pa ss')}`]
    for (const [prf, iterations] of [
      ['hmacWithSHA1', '30000'],
      ['hmacWithSHA224', '1000'],
      ['hmacWithSHA256', '30000'],
      ['hmacWithSHA384', '1000'],
      ['hmacWithSHA512', '1000'],
    ] as const) {
      const args = ['pkcs8', '-topk8', '-in', key, '-v2', 'aes-256-cbc', '-v2prf', prf, '-iter', iterations, ...pass]
      const privateKey = Buffer.from(openssl(...args)).toString()
      const container = { privateKeyContainer: { version, privateKey }, publicKeyContainer: { version, publicKey } }
      const pair = await unlockKeyPair(container, 'pa ss')
      const secret = primitives.randomBytes(32)
      const wrap = ['pkeyutl', '-encrypt', '-pubin', '-inkey', publicFile, '-in', file('secret', secret)]
      const wrapped = (hash: string) =>
        parseFileKey({
          key: toBase64(openssl(...wrap, ...oaep(hash))),
          iv: toBase64(new Uint8Array(12)),
          tag: toBase64(new Uint8Array(16)),
          version: version === 'A' ? 'A' : 'RSA-4096/AES-256-GCM',
        })
      expect((await unwrapFileKey(wrapped(MASK_HASH[version]), pair)).key).toEqual(secret)
      const otherHash = version === 'A' ? 'sha256' : 'sha1'
      expect(await failure(() => unwrapFileKey(wrapped(otherHash), pair))).toBe('integrity KEY_UNWRAP_FAILED')
    }
  })

  test.each(['-scrypt', '-v2 aes-128-cbc', '-v2 des3', '-v1 PBE-SHA1-3DES'])(
    'protection we do not read is named so: %s',
    async (options) => {
      const pair = await unlockFixture('A')
      const locked = await lockWith(pair, 'x', {
        prf: 'SHA-1',
        iterations: 1_000,
        salt: new Uint8Array(20),
        iv: new Uint8Array(16),
      })
      const pem = file('locked.pem', locked.privateKeyContainer.privateKey)
      const pass = `file:${file('password', 'x')}`
      const key = file('plain.pem', openssl('pkcs8', '-in', pem, '-passin', pass))
      const args = ['pkcs8', '-topk8', '-in', key, '-passout', pass, ...options.split(' ')]
      const privateKey = Buffer.from(openssl(...args)).toString()
      const altered = { ...locked, privateKeyContainer: { version: 'A', privateKey } } as const
      expect(await failure(() => unlockKeyPair(altered, 'x'))).toBe('key KEY_CONTAINER_UNSUPPORTED')
    },
  )
})
