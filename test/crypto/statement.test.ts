/** Signed statements, and digests of content that only its file key can compare. */
import { expect, test } from 'vitest'
import { contentMac, FileKey, isSignedStatement, signStatement } from '../../crypto/index.ts'
import { hex, unlockFixture } from './support.ts'

const bytes = (length: number, value: number) => new Uint8Array(length).fill(value)

test.each(['A', 'RSA-4096'] as const)('a statement is signed by one key pair, for one purpose: %s', async (version) => {
  const pair = await unlockFixture(version)
  const statement = new TextEncoder().encode('this is mine')
  const signature = await signStatement(pair, 'test', statement)
  expect(signature).toHaveLength(version === 'A' ? 256 : 512)
  const isRight = (purpose: string, what: Uint8Array, by = signature, of = pair.publicKey) =>
    isSignedStatement(of, purpose, what, by)
  expect(await isRight('test', statement)).toBe(true)
  expect(await isRight('test 2', statement)).toBe(false)
  expect(await isRight('test', statement.subarray(1))).toBe(false)
  expect(await isRight('test', statement, signature.subarray(1))).toBe(false)
  const flipped = signature.slice()
  flipped[9]! ^= 1
  expect(await isRight('test', statement, flipped)).toBe(false)
  const { publicKey } = await unlockFixture(version === 'A' ? 'RSA-4096' : 'A')
  expect(await isRight('test', statement, signature, publicKey)).toBe(false)
})

test('a wiped key pair signs nothing', async () => {
  const { pairFromPkcs8, fixturePkcs8 } = await import('./support.ts')
  const pair = await pairFromPkcs8(await fixturePkcs8('A'), 'A')
  pair.wipe()
  await expect(async () => signStatement(pair, 'test', bytes(1, 1))).rejects.toMatchObject({ code: 'KEY_UNUSABLE' })
})

test('the MAC of content depends on its digest, key and IV, and on nothing else', () => {
  const digest = bytes(32, 3)
  const mac = (key: number, iv: number, tag: number) =>
    contentMac(new FileKey(bytes(32, key), bytes(12, iv), bytes(16, tag)), digest)
  // HMAC-SHA-256 under HKDF-SHA-256, computed with Python's hmac module.
  expect(mac(1, 2, 0)).toEqual(hex('203292970df2ddb2b8d33434abfd667b645a429de1e6274e982610d62e91f597'))
  expect(mac(1, 2, 9)).toEqual(mac(1, 2, 0))
  expect(mac(2, 2, 0)).not.toEqual(mac(1, 2, 0))
  expect(mac(1, 3, 0)).not.toEqual(mac(1, 2, 0))
  expect(() => contentMac(new FileKey(bytes(32, 1), bytes(12, 2), bytes(16, 0)), digest.subarray(1))).toThrow(
    RangeError,
  )
})
