import { describe, expect, test, vi } from 'vitest'
import {
  createFileEncryptor,
  encryptBytes,
  FileKey,
  formatFileKey,
  type KeyPairVersion,
  parseFileKey,
  rewrapFileKey,
  type UserKeyPair,
  unwrapFileKey,
  wrapFileKey,
  wrapFileKeyForEach,
} from '../../crypto/index.ts'
import fc from '../support/property.ts'
import { failure, fixturePublicKey, SEED, seededRandom, unlockFixture } from './support.ts'

const VERSIONS = ['A', 'RSA-4096'] as const
const pairs = {} as Record<KeyPairVersion, UserKeyPair>
for (const version of VERSIONS) pairs[version] = await unlockFixture(version)

const newFileKey = () => createFileEncryptor().final()

describe.each(VERSIONS)('file keys for %s', (version) => {
  const pair = pairs[version]

  test('unwrap undoes wrap for random keys', async () => {
    const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
    const nonZero = exactly(32).filter((key) => key.some((byte) => byte !== 0))
    await fc.assert(
      fc.asyncProperty(nonZero, exactly(12), exactly(16), async (key, iv, tag) => {
        const wrapped = parseFileKey(formatFileKey(await wrapFileKey(new FileKey(key, iv, tag), pair.publicKey)))
        const opened = await unwrapFileKey(wrapped, pair)
        expect([opened.key, opened.iv, opened.tag]).toEqual([key, iv, tag])
      }),
      { numRuns: 30 },
    )
  })

  test('many at once are wrapped like one by one', async () => {
    const fileKeys = Array.from({ length: 20 }, () => newFileKey())
    const wrapped = await Promise.all(fileKeys.map((fileKey) => wrapFileKey(fileKey, pair.publicKey)))
    for (const [i, one] of wrapped.entries()) {
      expect((await unwrapFileKey(one, pair)).key).toEqual(fileKeys[i]!.key)
    }
  })

  test('wrapping the same key twice gives two ciphertexts', async () => {
    const fileKey = newFileKey()
    const [one, two] = await wrapFileKeyForEach(fileKey, [pair.publicKey, pair.publicKey])
    expect(one!.key).not.toEqual(two!.key)
    expect(one!.key.buffer).not.toBe(two!.key.buffer)
  })

  test('an all-zero or wiped key is not wrapped', async () => {
    const zero = new FileKey(new Uint8Array(32), new Uint8Array(12), new Uint8Array(16))
    expect(await failure(() => wrapFileKey(zero, pair.publicKey))).toBe('internal KEY_UNUSABLE')
    const fileKey = newFileKey()
    fileKey.wipe()
    expect(await failure(() => wrapFileKeyForEach(fileKey, [pair.publicKey]))).toBe('internal KEY_UNUSABLE')
    const encryptor = createFileEncryptor()
    const made = encryptor.final()
    encryptor.abandon()
    expect(await failure(() => wrapFileKey(made, pair.publicKey))).toBe('internal KEY_UNUSABLE')
  })

  test('a damaged wrapped key gives one uniform error, wherever the damage is', async () => {
    const { bytes, random } = seededRandom(SEED)
    const wrapped = await wrapFileKey(newFileKey(), pair.publicKey)
    const length = wrapped.key.length
    const damaged = [new Uint8Array(length), new Uint8Array(length).fill(255), bytes(length)]
    for (let i = 0; i < 20; i++) {
      const key = new Uint8Array(wrapped.key)
      key[random(length)]! ^= 1 << random(8)
      damaged.push(key)
    }
    const errors = new Set<string>()
    for (const key of damaged) {
      const error = await unwrapFileKey({ ...wrapped, key }, pair).then(
        () => expect.unreachable(),
        (reason) => reason,
      )
      errors.add(JSON.stringify([error.name, error.class, error.code, error.message, error.hint, String(error.cause)]))
    }
    expect([...errors].map((text) => JSON.parse(text)[2])).toEqual(['KEY_UNWRAP_FAILED'])
  })

  test('versions that do not fit and wrong lengths are refused before any RSA', async () => {
    const unwrap = vi.spyOn(pair.unwrapper, 'unwrap')
    const wrapped = await wrapFileKey(newFileKey(), pair.publicKey)
    const other = pairs[version === 'A' ? 'RSA-4096' : 'A']
    const otherVersion = version === 'A' ? 'RSA-4096/AES-256-GCM' : 'A'
    expect(await failure(() => unwrapFileKey(wrapped, other))).toBe('key KEY_VERSION_MISMATCH')
    for (const odd of [otherVersion, 'B', '', 'a', 'rsa-4096/aes-256-gcm'] as ('A' | 'RSA-4096/AES-256-GCM')[]) {
      expect(await failure(() => unwrapFileKey({ ...wrapped, version: odd }, pair))).toBe('key KEY_VERSION_MISMATCH')
    }
    for (const field of ['key', 'iv', 'tag'] as const) {
      for (const value of [wrapped[field].subarray(1), new Uint8Array([...wrapped[field], 0]), new Uint8Array(0)]) {
        expect(await failure(() => unwrapFileKey({ ...wrapped, [field]: value }, pair))).toBe(
          'integrity FILE_KEY_INVALID',
        )
      }
    }
    expect(unwrap).not.toHaveBeenCalled()
    unwrap.mockRestore()
  })
})

test('one file key goes to many recipients of both versions, in order, while the event loop turns', async () => {
  const recipients = Array.from({ length: 60 }, (_, i) => pairs[VERSIONS[i % 2]!].publicKey)
  let turns = 0
  let next = setImmediate(function turn() {
    turns++
    next = setImmediate(turn)
  })
  const fileKey = newFileKey()
  const wrapped = await wrapFileKeyForEach(fileKey, recipients)
  clearImmediate(next)
  expect(turns).toBeGreaterThan(0)
  expect(wrapped.map(({ version }) => version)).toEqual(
    recipients.map(({ version }) => (version === 'A' ? 'A' : 'RSA-4096/AES-256-GCM')),
  )
  for (const i of [0, 1, 58, 59]) {
    expect((await unwrapFileKey(wrapped[i]!, pairs[VERSIONS[i % 2]!])).key).toEqual(fileKey.key)
  }
  expect(await wrapFileKeyForEach(fileKey, [])).toEqual([])
})

test('handing on: wrapped for one pair, opened by it, wrapped for the other; IV and tag unchanged', async () => {
  const fileKey = encryptBytes(new Uint8Array(5)).fileKey
  const old = await wrapFileKey(fileKey, pairs.A.publicKey)
  const [moved] = await rewrapFileKey(old, pairs.A, [await fixturePublicKey('RSA-4096')])
  expect([moved!.version, moved!.iv, moved!.tag]).toEqual(['RSA-4096/AES-256-GCM', fileKey.iv, fileKey.tag])
  expect((await unwrapFileKey(moved!, pairs['RSA-4096'])).key).toEqual(fileKey.key)
})

test('file keys have their lengths', () => {
  const make = (...lengths: [number, number, number]) => {
    const [key, iv, tag] = lengths.map((length) => new Uint8Array(length)) as [Uint8Array, Uint8Array, Uint8Array]
    return () => new FileKey(key, iv, tag)
  }
  expect(make(32, 12, 16)).not.toThrow()
  for (let length = 0; length < 32; length++) {
    expect(make(length, 12, 16)).toThrow(RangeError)
    if (length !== 12) expect(make(32, length, 16)).toThrow(RangeError)
    if (length !== 16) expect(make(32, 12, length)).toThrow(RangeError)
  }
})
