import { describe, expect, test } from 'vitest'
import {
  createFileDecryptor,
  createPartDecryptor,
  createPartEncryptor,
  decryptBytes,
  encryptBytes,
  FileKey,
  type PartEncryptor,
  parseKeyPairContainer,
  parsePrivateKeyContainer,
  resumePartEncryptor,
  unlockPrivateKey,
  unwrapFileKey,
  wrapFileKey,
} from '../../crypto/index.ts'
import fc from '../support/property.ts'
import { failure, quickFixture, SEED, seededRandom, unlockFixture } from './support.ts'

const { bytes } = seededRandom(SEED)
const pair = await unlockFixture('RSA-4096')

/** Parts of these lengths; the last one has the rest. */
function split(content: Uint8Array, blocks: readonly number[]): Uint8Array[] {
  const parts: Uint8Array[] = []
  let at = 0
  for (const count of blocks) {
    if (at + count * 16 >= content.length) break
    parts.push(content.subarray(at, at + count * 16))
    at += count * 16
  }
  return [...parts, content.subarray(at)]
}

async function encryptAll(encryptor: PartEncryptor, parts: readonly Uint8Array[]) {
  const made = []
  for (const part of parts) made.push(await encryptor.update(part))
  const [wrapped] = encryptor.final()
  return { made, ciphertext: Buffer.concat(made.map(({ ciphertext }) => ciphertext)), wrapped: wrapped! }
}

const content = fc
  .record({ length: fc.oneof(fc.nat(100), fc.nat(150_000)), blocks: fc.array(fc.integer({ min: 1, max: 5000 })) })
  .map(({ length, blocks }) => ({ plain: bytes(length), blocks }))

describe('parts by WebCrypto', () => {
  test('are the same stream as the other cipher makes and takes, wherever they are divided', async () => {
    await fc.assert(
      fc.asyncProperty(content, async ({ plain, blocks }) => {
        const { ciphertext, wrapped } = await encryptAll(
          await createPartEncryptor([pair.publicKey]),
          split(plain, blocks),
        )
        expect(Buffer.compare(decryptBytes(ciphertext, await unwrapFileKey(wrapped, pair)), plain)).toBe(0)

        const other = encryptBytes(plain)
        const decryptor = await createPartDecryptor(other.fileKey)
        const opened = []
        for (const part of split(other.ciphertext, blocks)) opened.push(await decryptor.update(part))
        decryptor.final()
        expect(Buffer.compare(Buffer.concat(opened), plain)).toBe(0)
      }),
      { numRuns: 25 },
    )
  })

  test('any change of ciphertext, IV, tag, length or order is found', async () => {
    const plain = bytes(5000)
    const { ciphertext, fileKey } = encryptBytes(plain)
    const failing = async (parts: readonly Uint8Array[], key = fileKey) => {
      const decryptor = await createPartDecryptor(key)
      for (const part of parts) await decryptor.update(part)
      return failure(() => decryptor.final())
    }
    const changed = (data: Uint8Array, at: number) => data.map((byte, i) => (i === at ? byte ^ 1 : byte))
    for (const at of [0, 15, 16, 2500, 4999])
      expect(await failing([changed(ciphertext, at)])).toBe('integrity CONTENT_TAMPERED')
    expect(await failing([ciphertext.subarray(0, 4999)])).toBe('integrity CONTENT_TAMPERED')
    expect(await failing([])).toBe('integrity CONTENT_TAMPERED')
    expect(await failing([ciphertext, new Uint8Array(0)])).toBe('nothing')
    expect(await failing([ciphertext.subarray(16, 32), ciphertext.subarray(0, 16), ciphertext.subarray(32)])).toBe(
      'integrity CONTENT_TAMPERED',
    )
    expect(await failing([ciphertext], new FileKey(fileKey.key, changed(fileKey.iv, 3), fileKey.tag))).toBe(
      'integrity CONTENT_TAMPERED',
    )
    expect(await failing([ciphertext], new FileKey(fileKey.key, fileKey.iv, changed(fileKey.tag, 3)))).toBe(
      'integrity CONTENT_TAMPERED',
    )
  })

  test('an empty file has a real tag', async () => {
    const { wrapped } = await encryptAll(await createPartEncryptor([pair.publicKey]), [])
    createFileDecryptor(await unwrapFileKey(wrapped, pair)).final()
  })

  test('the key is for all recipients, and readable for no script', async () => {
    const old = await unlockFixture('A')
    const plain = bytes(40)
    const encryptor = await createPartEncryptor([pair.publicKey, old.publicKey])
    for (const key of [encryptor.kept.counterKey, encryptor.kept.macKey]) {
      expect(key.extractable).toBe(false)
      await expect(globalThis.crypto.subtle.exportKey('raw', key)).rejects.toThrow()
    }
    const { ciphertext } = await encryptor.update(plain)
    const [forPair, forOld] = encryptor.final()
    expect(Buffer.compare(decryptBytes(ciphertext, await unwrapFileKey(forPair!, pair)), plain)).toBe(0)
    expect(Buffer.compare(decryptBytes(ciphertext, await unwrapFileKey(forOld!, old)), plain)).toBe(0)

    const [later] = (await encryptor.wrapFor([old.publicKey]))!
    expect(Buffer.compare(decryptBytes(ciphertext, await unwrapFileKey(later!, old)), plain)).toBe(0)
    encryptor.wipe()
    expect(await failure(() => encryptor.wrapFor([old.publicKey]))).toBe('internal KEY_UNUSABLE')
    const resumed = await resumePartEncryptor(encryptor.kept, [])
    await expect(resumed.wrapFor([old.publicKey])).rejects.toThrow(TypeError)
    await resumed.update(plain)
    resumed.final()
    expect(await resumed.wrapFor([old.publicKey])).toBeUndefined()
  })

  test('a later one goes on with the same content, and with no other', async () => {
    const plain = bytes(1000)
    const parts = split(plain, [10, 10, 10])
    const first = await createPartEncryptor([pair.publicKey])
    const sent = [await first.update(parts[0]!), await first.update(parts[1]!)]
    const digests = sent.map(({ digest }) => digest)

    const second = await encryptAll(await resumePartEncryptor(first.kept, digests), parts)
    expect(second.made.slice(0, 2)).toEqual(sent)
    expect(Buffer.compare(decryptBytes(second.ciphertext, await unwrapFileKey(second.wrapped, pair)), plain)).toBe(0)

    const changed = await resumePartEncryptor(first.kept, digests)
    await changed.update(parts[0]!)
    await expect(changed.update(bytes(160))).rejects.toMatchObject({ code: 'RESUME_MISMATCH', class: 'changed' })
    await expect(changed.update(parts[1]!)).rejects.toThrow(TypeError)
    expect(() => changed.final()).toThrow(TypeError)

    const shorter = await resumePartEncryptor(first.kept, digests)
    await shorter.update(parts[0]!)
    await expect(async () => shorter.final()).rejects.toMatchObject({ code: 'RESUME_MISMATCH' })
  })

  test('what would spoil a content is refused', async () => {
    const encryptor = await createPartEncryptor([pair.publicKey])
    const both = [encryptor.update(bytes(16)), encryptor.update(bytes(16))]
    await expect(both[1]).rejects.toThrow(TypeError)
    await both[0]
    await encryptor.update(bytes(5))
    await expect(encryptor.update(bytes(1))).rejects.toThrow(RangeError)
    const { fileKey } = encryptBytes(bytes(1))
    fileKey.wipe()
    await expect(createPartDecryptor(fileKey)).rejects.toMatchObject({ code: 'KEY_UNUSABLE' })
  })
})

describe('a private key without its public half', () => {
  test.each(['A', 'RSA-4096'] as const)('%s: opens with its password, and only with that', async (version) => {
    const { container, password } = quickFixture(version)
    const { privateKeyContainer } = parseKeyPairContainer(container)
    const opened = await unlockPrivateKey(parsePrivateKeyContainer(privateKeyContainer), password)
    const { ciphertext, fileKey } = encryptBytes(bytes(10))
    const wrapped = await wrapFileKey(fileKey, opened.publicKey)
    const other = await unlockFixture(version)
    expect(opened.publicKey.fingerprint).toBe(other.publicKey.fingerprint)
    expect(decryptBytes(ciphertext, await unwrapFileKey(wrapped, other))).toHaveLength(10)
    await expect(unlockPrivateKey(privateKeyContainer, 'wrong')).rejects.toMatchObject({ code: 'KEY_PASSWORD_WRONG' })
  })

  test('what is none is refused', async () => {
    for (const json of [undefined, null, 1, {}, { version: 'A' }, { version: 1, privateKey: 'x' }]) {
      expect(await failure(() => parsePrivateKeyContainer(json))).toBe('key KEY_CONTAINER_INVALID')
    }
    expect(await failure(() => parsePrivateKeyContainer({ version: 'B', privateKey: 'x' }))).toBe(
      'key KEY_VERSION_UNKNOWN',
    )
  })
})
