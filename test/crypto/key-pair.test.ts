import { createCipheriv, createDecipheriv, pbkdf2Sync } from 'node:crypto'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { primitives } from '#primitives'
import { toPem } from '../../crypto/bytes.ts'
import {
  changePassword,
  encryptBytes,
  generateKeyPair,
  importPublicKey,
  type KeyPairContainer,
  keyProtection,
  lockKeyPair,
  migrateKeyPair,
  parseKeyPairContainer,
  rewrapFileKey,
  UserKeyPair,
  unlockKeyPair,
  unwrapFileKey,
  wrapFileKey,
} from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { type KeyProtection, openPrivateKey, readLockedPrivateKey, sealPrivateKey } from '../../crypto/private-key.ts'
import { failure, fixturePkcs8, hex, pairFromPkcs8, quickFixture, unlockFixture } from './support.ts'

const quick = (prf: KeyProtection['prf'] = 'SHA-1', iterations = 1_000): KeyProtection => ({
  prf,
  iterations,
  salt: primitives.randomBytes(20),
  iv: primitives.randomBytes(16),
})

const pair = await unlockFixture('A')
const latin1 = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'))

/** The pair locked with these very password bytes. */
async function lockedWithBytes(password: Uint8Array, protection = quick()): Promise<KeyPairContainer> {
  const { container } = quickFixture('A')
  const privateKey = await sealPrivateKey(UserKeyPair.privateKeyOf(pair), password, protection)
  return { ...container, privateKeyContainer: { version: 'A', privateKey } }
}

/** Until restored: what is to take 1,300,000 iterations takes 1,300, where only the way through the functions matters. */
function quickDerivation() {
  const { pbkdf2 } = primitives
  return vi
    .spyOn(primitives, 'pbkdf2')
    .mockImplementation((prf, password, salt, iterations, length) =>
      pbkdf2(prf, password, salt, iterations === 1_300_000 ? 1_300 : iterations, length),
    )
}

describe('lock and unlock', () => {
  test('a new RSA-4096 pair, locked as every client writes it', async () => {
    const made = await generateKeyPair()
    const derive = vi.spyOn(primitives, 'pbkdf2')
    const locked = await lockKeyPair(made, 'Correct-horse-7')
    expect(
      derive.mock.calls.map(([prf, , salt, iterations, length]) => [prf, salt.length, iterations, length]),
    ).toEqual([['SHA-1', 20, 1_300_000, 32]])
    derive.mockRestore()
    expect(keyProtection(locked)).toEqual({ prf: 'HMAC-SHA-1', iterations: 1_300_000, current: true })
    expect(locked.privateKeyContainer.privateKey).toMatch(
      /^-----BEGIN ENCRYPTED PRIVATE KEY-----\n([A-Za-z0-9+/]{64}\n)+[A-Za-z0-9+/=]{1,64}\n-----END ENCRYPTED PRIVATE KEY-----\n$/,
    )
    expect(locked.publicKeyContainer.publicKey).toMatch(/^-----BEGIN PUBLIC KEY-----\n[^-]+-----END PUBLIC KEY-----\n$/)
    const opened = await unlockKeyPair(parseKeyPairContainer(JSON.parse(JSON.stringify(locked))), 'Correct-horse-7')
    expect([opened.version, opened.publicKey.fingerprint]).toEqual(['RSA-4096', made.publicKey.fingerprint])
    const { fileKey } = encryptBytes(new Uint8Array(3))
    expect((await unwrapFileKey(await wrapFileKey(fileKey, made.publicKey), opened)).key).toEqual(fileKey.key)
  })

  test('a new A pair', async () => {
    const made = await generateKeyPair('A')
    const opened = await unlockKeyPair(await lockWith(made, 'pw', quick('SHA-512')), 'pw')
    expect([opened.version, opened.publicKey.fingerprint]).toEqual(['A', made.publicKey.fingerprint])
  })

  test('two locks of one pair share neither salt nor IV', async () => {
    const derive = quickDerivation()
    const [one, two] = await Promise.all([lockKeyPair(pair, 'x'), lockKeyPair(pair, 'x')])
    derive.mockRestore()
    const read = (locked: KeyPairContainer) => readLockedPrivateKey(locked.privateKeyContainer.privateKey)
    expect(read(one).salt).not.toEqual(read(two).salt)
    expect(read(one).iv).not.toEqual(read(two).iv)
  })

  test('the password is not trimmed or normalised; bytes and text mean the same', async () => {
    for (const password of [' a ', 'a\n', '\uFEFFa', 'e\u0301', '\u00E9', '🐙', 'x'.repeat(1000)]) {
      const locked = await lockWith(pair, password, quick())
      await unlockKeyPair(locked, password)
      await unlockKeyPair(locked, Buffer.from(password))
      for (const other of [password.trim(), password.normalize('NFC'), password.normalize('NFD'), `${password}\n`]) {
        if (other === password || other === '') continue
        expect(await failure(() => unlockKeyPair(locked, other)), JSON.stringify(other)).toBe('key KEY_PASSWORD_WRONG')
      }
    }
  })

  test('bytes that are not UTF-8 are taken as they are', async () => {
    const password = Uint8Array.of(0xff, 0xfe, 0x80)
    const locked = await lockedWithBytes(password)
    expect((await unlockKeyPair(locked, password)).publicKey.fingerprint).toBe(pair.publicKey.fingerprint)
  })

  test('empty passwords and unpaired surrogates are refused, locking and unlocking', async () => {
    const { container } = quickFixture('A')
    for (const empty of ['', new Uint8Array(0)]) {
      expect(await failure(() => lockKeyPair(pair, empty))).toBe('usage PASSWORD_EMPTY')
      expect(await failure(() => unlockKeyPair(container, empty))).toBe('usage PASSWORD_EMPTY')
    }
    for (const broken of ['\uD800', 'a\uDC00b']) {
      expect(await failure(() => lockKeyPair(pair, broken))).toBe('usage PASSWORD_INVALID')
      expect(await failure(() => unlockKeyPair(container, broken))).toBe('usage PASSWORD_INVALID')
    }
  })

  test('the caller keeps its password bytes', async () => {
    const password = new Uint8Array(Buffer.from('grün'))
    const locked = await lockWith(pair, password, quick())
    await unlockKeyPair(locked, password)
    expect(Buffer.from(password).toString()).toBe('grün')
  })
})

describe('ISO-8859-1 passwords', () => {
  const derivations = async (locked: KeyPairContainer, password: string) => {
    const spy = vi.spyOn(primitives, 'pbkdf2')
    const result = await failure(() => unlockKeyPair(locked, password))
    const tried = spy.mock.calls.length
    spy.mockRestore()
    return [result, tried]
  }

  test('are tried second, only where they differ and exist', async () => {
    expect(await derivations(await lockedWithBytes(latin1('Grüße')), 'Grüße')).toEqual(['nothing', 2])
    expect(await derivations(await lockWith(pair, 'Grüße', quick()), 'Grüße')).toEqual(['nothing', 1])
    const { container } = quickFixture('A')
    expect(await derivations(container, 'ascii only')).toEqual(['key KEY_PASSWORD_WRONG', 1])
    expect(await derivations(container, 'above ÿ: Ā')).toEqual(['key KEY_PASSWORD_WRONG', 1])
    expect(await derivations(container, 'ÿ')).toEqual(['key KEY_PASSWORD_WRONG', 2])
  })

  // One wrong key in about 256 leaves padding that looks right. The salt is searched for which that happens, with the UTF-8
  // bytes being the wrong ones: a reader that stops at "the padding was fine" then never tries ISO-8859-1.
  test('are also tried when the UTF-8 attempt happens to leave right padding', async () => {
    const password = 'Schlüssel'
    const pkcs8 = UserKeyPair.privateKeyOf(pair)
    const iv = new Uint8Array(16).fill(7)
    for (let count = 0; ; count++) {
      const salt = new Uint8Array(20)
      new DataView(salt.buffer).setUint32(0, count)
      const cipher = createCipheriv('aes-256-cbc', pbkdf2Sync(latin1(password), salt, 1_000, 32, 'sha1'), iv)
      const ciphertext = Buffer.concat([cipher.update(pkcs8), cipher.final()])
      const wrongKey = pbkdf2Sync(password, salt, 1_000, 32, 'sha1')
      try {
        const decipher = createDecipheriv('aes-256-cbc', wrongKey, iv)
        decipher.update(ciphertext)
        decipher.final()
      } catch {
        continue
      }
      await expect(primitives.cbcDecrypt(wrongKey, iv, ciphertext)).resolves.toBeDefined()
      const locked = await lockedWithBytes(latin1(password), { prf: 'SHA-1', iterations: 1_000, salt, iv })
      expect(await derivations(locked, password)).toEqual(['nothing', 2])
      return
    }
  })
})

describe('before anything is derived', () => {
  test.each([0, 1, 999, 10_000_001, 2 ** 31, 2 ** 32 - 1])('%i iterations are refused', async (iterations) => {
    const { container, password } = quickFixture('A')
    const locked = readLockedPrivateKey(container.privateKeyContainer.privateKey)
    const derive = vi.spyOn(primitives, 'pbkdf2').mockResolvedValue(new Uint8Array(32))
    const privateKey = await sealPrivateKey(new Uint8Array(64), new Uint8Array(1), { ...locked, iterations })
    derive.mockClear()
    const altered = { ...container, privateKeyContainer: { version: 'A', privateKey } } as const
    expect(await failure(() => unlockKeyPair(altered, password))).toBe('key KEY_ITERATIONS_REFUSED')
    expect(await failure(() => keyProtection(altered))).toBe('key KEY_ITERATIONS_REFUSED')
    expect(derive).not.toHaveBeenCalled()
    derive.mockRestore()
  })

  test('1,000 and 10,000,000 iterations are read', async () => {
    const derive = vi.spyOn(primitives, 'pbkdf2').mockResolvedValue(new Uint8Array(32))
    for (const iterations of [1_000, 10_000_000]) {
      const pem = await sealPrivateKey(new Uint8Array(64), new Uint8Array(1), quick('SHA-256', iterations))
      expect(readLockedPrivateKey(pem)).toMatchObject({ prf: 'SHA-256', iterations })
    }
    derive.mockRestore()
  })

  test('bad public keys and halves of different versions are refused', async () => {
    const derive = vi.spyOn(primitives, 'pbkdf2')
    const { container, password } = quickFixture('A')
    const other = quickFixture('RSA-4096').container
    const mixed = { ...container, publicKeyContainer: other.publicKeyContainer }
    expect(await failure(() => unlockKeyPair(mixed, password))).toBe('key KEY_VERSION_MISMATCH')
    const wrongSize = { version: 'A', publicKey: other.publicKeyContainer.publicKey } as const
    expect(await failure(() => unlockKeyPair({ ...container, publicKeyContainer: wrongSize }, password))).toBe(
      'key PUBLIC_KEY_INVALID',
    )
    expect(await failure(() => importPublicKey({ ...wrongSize, publicKey: 'nonsense' }))).toBe(
      'key KEY_CONTAINER_INVALID',
    )
    expect(derive).not.toHaveBeenCalled()
    derive.mockRestore()
  })
})

describe('change of password and migration', () => {
  let derive: ReturnType<typeof quickDerivation>
  beforeEach(() => {
    derive = quickDerivation()
  })
  afterEach(() => derive.mockRestore())

  test('the new password opens, the old one no longer', async () => {
    const { container, password } = quickFixture('A')
    const changed = await changePassword(container, password, 'ganz neu ß')
    expect(keyProtection(changed).current).toBe(true)
    expect((await unlockKeyPair(changed, 'ganz neu ß')).publicKey.fingerprint).toBe(pair.publicKey.fingerprint)
    expect(await failure(() => unlockKeyPair(changed, password))).toBe('key KEY_PASSWORD_WRONG')
    expect(await failure(() => changePassword(container, 'no', 'new'))).toBe('key KEY_PASSWORD_WRONG')
  })

  test('A becomes RSA-4096 and the file keys move over', async () => {
    const { container, password } = quickFixture('A')
    const { pair: next, locked, previous, previousPrivateKey } = await migrateKeyPair(container, password)
    expect([next.version, locked.publicKeyContainer.version, previousPrivateKey.version]).toEqual([
      'RSA-4096',
      'RSA-4096',
      'A',
    ])
    const reopened = await unlockKeyPair({ ...container, privateKeyContainer: previousPrivateKey }, password)
    expect(reopened.publicKey.fingerprint).toBe(previous.publicKey.fingerprint)
    const { fileKey } = encryptBytes(new Uint8Array(8))
    const [moved] = await rewrapFileKey(await wrapFileKey(fileKey, reopened.publicKey), previous, [next.publicKey])
    const fresh = await unlockKeyPair(locked, password)
    expect((await unwrapFileKey(moved!, fresh)).key).toEqual(fileKey.key)
    expect(await failure(() => migrateKeyPair(locked, password))).toBe('usage KEY_PAIR_CURRENT')
  })
})

describe('secrets', () => {
  test('neither JSON nor inspection nor errors show them', async () => {
    const { fileKey } = encryptBytes(new Uint8Array(4))
    const pkcs8 = Buffer.from(UserKeyPair.privateKeyOf(pair))
    const shown = [fileKey, pair, { fileKey, pair }, [pair]].map(
      (value) => JSON.stringify(value) + inspect(value, { depth: 9, showHidden: true }) + String(value),
    )
    const secrets = [Buffer.from(fileKey.key), pkcs8.subarray(-200, -150)]
    for (const text of shown) {
      for (const secret of secrets) {
        for (const form of [
          secret.toString('hex'),
          secret.toString('base64').slice(0, 40),
          secret.join(','),
          secret.join(', '),
        ]) {
          expect(text).not.toContain(form)
        }
      }
    }
    expect(shown[0]).toContain('[redacted]')
    expect(shown[1]).toContain('[redacted]')
    const canary = 'canary-Passw0rd-ü'
    const error = await unlockKeyPair(quickFixture('A').container, canary).catch((reason) => reason)
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('canary')
  })

  test('wiping overwrites them, and a wiped pair neither locks nor opens anything', async () => {
    const own = await unlockFixture('A')
    const pkcs8 = UserKeyPair.privateKeyOf(own)
    const { fileKey } = encryptBytes(new Uint8Array(1))
    const wrapped = await wrapFileKey(fileKey, own.publicKey)
    own.wipe()
    expect(pkcs8.every((byte) => byte === 0)).toBe(true)
    expect(await failure(() => lockKeyPair(own, 'pw'))).toBe('internal KEY_UNUSABLE')
    expect(await failure(() => unwrapFileKey(wrapped, own))).toBe('internal KEY_UNUSABLE')
    const { key } = fileKey
    fileKey.wipe()
    expect(key.every((byte) => byte === 0)).toBe(true)
  })

  test('derived keys, decrypted private keys and password bytes are overwritten after use', async () => {
    const { container, password } = quickFixture('A')
    const seen: Uint8Array[] = []
    const { pbkdf2, cbcDecrypt } = primitives
    const spies = [
      vi.spyOn(primitives, 'pbkdf2').mockImplementation(async (prf, bytes, salt, iterations, length) => {
        const key = await pbkdf2(prf, bytes, salt, iterations, length)
        seen.push(bytes, key)
        return key
      }),
      vi.spyOn(primitives, 'cbcDecrypt').mockImplementation(async (...args) => {
        const plain = await cbcDecrypt(...args)
        seen.push(plain)
        return plain
      }),
    ]
    await unlockKeyPair(container, password)
    expect(seen).toHaveLength(3)
    await unlockKeyPair(container, 'wrong').catch(() => {})
    for (const spy of spies) spy.mockRestore()
    for (const secret of seen) expect(secret.every((byte) => byte === 0)).toBe(true)
  })
})

test('numbers with other INTEGER paddings, as old writers made them, are read and written again canonically', async () => {
  const pkcs8 = await fixturePkcs8('A')
  expect(UserKeyPair.privateKeyOf(await pairFromPkcs8(pkcs8, 'A'))).toEqual(pkcs8)
  const { derInteger, der, readDer, Tag, sequence, derOid } = await import('../../crypto/der.ts')
  const [, , octets] = sequence(readDer(pkcs8), 3)
  const numbers = sequence(readDer(octets!.content), 9).map(({ content }) => content)
  const build = (integer: (content: Uint8Array, i: number) => Uint8Array) =>
    der(
      Tag.Sequence,
      derInteger(new Uint8Array(1)),
      der(Tag.Sequence, derOid('1.2.840.113549.1.1.1'), der(Tag.Null)),
      der(
        Tag.OctetString,
        der(Tag.Sequence, ...numbers.map((number, i) => (i === 0 ? der(Tag.Integer, number) : integer(number, i)))),
      ),
    )
  const strip = (number: Uint8Array) => number.subarray(number[0] === 0 ? 1 : 0)
  for (const variant of [
    build((number) => der(Tag.Integer, strip(number))),
    build((number) => der(Tag.Integer, new Uint8Array(3), strip(number))),
  ]) {
    expect(variant).not.toEqual(pkcs8)
    const locked = await lockedWithBytes(latin1('pw'))
    const privateKey = await sealPrivateKey(variant, latin1('pw'), quick())
    const opened = await unlockKeyPair({ ...locked, privateKeyContainer: { version: 'A', privateKey } }, 'pw')
    expect(UserKeyPair.privateKeyOf(opened)).toEqual(pkcs8)
  }
})

test('an attempt to open never says why it failed', async () => {
  const { container, password } = quickFixture('A')
  const locked = readLockedPrivateKey(container.privateKeyContainer.privateKey)
  const right = new TextEncoder().encode(password)
  expect(await openPrivateKey(locked, right, 'A')).toBeDefined()
  expect(await openPrivateKey(locked, right, 'RSA-4096')).toBeUndefined()
  expect(await openPrivateKey(locked, hex('00'), 'A')).toBeUndefined()
  expect(toPem(new Uint8Array(1), 'X')).toBe('-----BEGIN X-----\nAA==\n-----END X-----\n')
})
