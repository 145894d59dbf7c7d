import { describe, expect, test } from 'vitest'
import {
  createFileDecryptor,
  decryptBytes,
  type KeyPairVersion,
  keyProtection,
  parseFileKey,
  parseKeyPairContainer,
  type UserKeyPair,
  unlockKeyPair,
  unwrapFileKey,
} from '../../crypto/index.ts'
import { base64, failure, fileFixtures, keyPairFixtures, toBase64, unlockFixture } from './support.ts'

describe('key pairs locked by OpenSSL and Python', () => {
  test('there are 18', () => expect(keyPairFixtures).toHaveLength(18))

  test.each(keyPairFixtures)('$name', async ({ keyPair, password, passwordEncoding, expect: expected }) => {
    const container = parseKeyPairContainer(keyPair)
    expect(keyProtection(container)).toEqual({ ...expected, current: expected.iterations === 1_300_000 })
    const pair = await unlockKeyPair(container, password)
    expect(pair.version).toBe(container.publicKeyContainer.version)
    // As bytes the password has one meaning less: bytes that are UTF-8 open, the ISO-8859-1 bytes open as themselves.
    const bytes = Buffer.from(password, passwordEncoding === 'UTF-8' ? 'utf8' : 'latin1')
    if (expected.iterations < 100_000) expect((await unlockKeyPair(container, bytes)).version).toBe(pair.version)
  })

  test.each(keyPairFixtures.filter(({ expect: { iterations } }) => iterations <= 10_000))(
    '$name: a wrong password does not open it',
    async ({ keyPair, password }) => {
      const container = parseKeyPairContainer(keyPair)
      for (const wrong of [
        `${password} `,
        password.slice(0, -1),
        password.toUpperCase(),
        'ü',
        password.normalize('NFD'),
      ]) {
        if (wrong === password) continue
        expect(await failure(() => unlockKeyPair(container, wrong))).toBe('key KEY_PASSWORD_WRONG')
      }
    },
  )
})

describe('file keys and contents made by OpenSSL and Python', () => {
  const pairs = new Map<KeyPairVersion, Promise<UserKeyPair>>(
    (['A', 'RSA-4096'] as const).map((version) => [version, unlockFixture(version)]),
  )
  const [refused, good] = [
    fileFixtures.filter(({ refused }) => refused),
    fileFixtures.filter(({ refused }) => !refused),
  ]

  test('there are 14 good ones and 12 to refuse', () => expect([good.length, refused.length]).toEqual([14, 12]))

  test.each(good)('$name', async ({ keyPairVersion, fileKey, plainKey, plaintext, ciphertext }) => {
    const key = await unwrapFileKey(parseFileKey(fileKey), (await pairs.get(keyPairVersion))!)
    expect(toBase64(key.key)).toBe(plainKey)
    expect(toBase64(decryptBytes(base64(ciphertext), key))).toBe(plaintext)
    const decryptor = createFileDecryptor(key)
    for (const byte of base64(ciphertext)) decryptor.update(Uint8Array.of(byte))
    decryptor.final()
    expect(decryptor.bytes).toBe(base64(plaintext).length)
  })

  test.each(refused)('$name is refused', async ({ keyPairVersion, fileKey }) => {
    const pair = (await pairs.get(keyPairVersion))!
    const unwrap = () => unwrapFileKey(parseFileKey(fileKey), pair)
    expect(await failure(unwrap)).toBe('integrity KEY_UNWRAP_FAILED')
  })
})
