import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { primitives } from '#primitives'
import { fromPem, toBigInt } from '../../crypto/bytes.ts'
import { readDer, sequence } from '../../crypto/der.ts'
import {
  decryptBytes,
  formatFileKey,
  keyProtection,
  parseFileKey,
  parseKeyPairContainer,
  unlockKeyPair,
  unwrapFileKey,
} from '../../crypto/index.ts'
import { oaepEncode } from '../../crypto/primitives/oaep.ts'
import type { HashName } from '../../crypto/primitives/types.ts'
import { readLockedPrivateKey, sealPrivateKey } from '../../crypto/private-key.ts'
import { KEY_PAIR_PROFILES } from '../../crypto/versions.ts'
import { base64, hex, shared, toBase64 } from './support.ts'

interface Example {
  name: string
  password: string
  passwordBytesHex: string
  userKeyPair: { privateKeyContainer: { privateKey: string }; publicKeyContainer: { publicKey: string } }
  protection: { prfEncodedInAsn1: boolean; iterations: number; saltHex: string; ivHex: string }
  plainPrivateKeyPkcs8Pem: string
  plainFileKey: { key: string; iv: string; tag: string }
  oaep: { hash: HashName; mgf1Hash: HashName; seedHex: string }
  encryptedFileKey: { key: string }
  plaintextBase64: string
  ciphertextBase64: string
  encryptedInChunksOf: number[]
}

const examples = shared<{ examples: Example[] }>('dracoon/examples.json')?.examples ?? []

/** The RSA public operation with nothing in between. */
function rawRsa(spki: Uint8Array, message: Uint8Array): Uint8Array {
  const bits = sequence(readDer(spki), 2)[1]!.content
  const [n, e] = sequence(readDer(bits.subarray(1)), 2).map(({ content }) => toBigInt(content))
  let result = 1n
  let base = toBigInt(message)
  for (let exponent = e!; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * base) % n!
    base = (base * base) % n!
  }
  return hex(result.toString(16).padStart(message.length * 2, '0'))
}

describe.skipIf(examples.length === 0)('worked examples of the format', () => {
  test('there are five', () => expect(examples).toHaveLength(5))

  test.each(examples)('$name opens', async (example) => {
    const container = parseKeyPairContainer(example.userKeyPair)
    expect(keyProtection(container).iterations).toBe(example.protection.iterations)
    const pair = await unlockKeyPair(container, example.password)
    const key = await unwrapFileKey(parseFileKey(example.encryptedFileKey), pair)
    expect(toBase64(key.key)).toBe(example.plainFileKey.key)
    expect(toBase64(decryptBytes(base64(example.ciphertextBase64), key))).toBe(example.plaintextBase64)
  })

  test.each(examples)('$name: the locked private key is made again byte for byte', async (example) => {
    const { saltHex, ivHex, iterations } = example.protection
    const protection = { prf: 'SHA-1', iterations, salt: hex(saltHex), iv: hex(ivHex) } as const
    const password = hex(example.passwordBytesHex)
    const pkcs8 = fromPem(example.plainPrivateKeyPkcs8Pem, 'PRIVATE KEY')
    const made = await sealPrivateKey(pkcs8, password, protection)
    const given = example.userKeyPair.privateKeyContainer.privateKey
    // We never write the PRF, so of the one example that does only the parts can be equal.
    if (example.protection.prfEncodedInAsn1) expect(readLockedPrivateKey(made)).toEqual(readLockedPrivateKey(given))
    else expect(made).toBe(given.replaceAll('\r\n', '\n'))
  })

  test.each(examples)('$name: the wrapped key is made again byte for byte', (example) => {
    const { hash, mgf1Hash, seedHex } = example.oaep
    const container = parseKeyPairContainer(example.userKeyPair)
    const { version } = container.publicKeyContainer
    expect(KEY_PAIR_PROFILES[version].oaep).toEqual({ hash, mgf1Hash })
    const digest = (name: HashName, data: Uint8Array) =>
      createHash(name.replace('-', '').toLowerCase()).update(data).digest()
    const length = KEY_PAIR_PROFILES[version].modulusBits / 8
    const key = base64(example.plainFileKey.key)
    const encoded = oaepEncode(key, new Uint8Array(0), hex(seedHex), length, { digest, hash, mgf1Hash })
    const spki = fromPem(container.publicKeyContainer.publicKey, 'PUBLIC KEY')
    expect(toBase64(rawRsa(spki, encoded))).toBe(example.encryptedFileKey.key)
  })

  test.each(examples)('$name: the ciphertext is made again byte for byte', (example) => {
    const { key, iv, tag } = example.plainFileKey
    const stream = primitives.gcmEncrypt(base64(key), base64(iv))
    const plain = base64(example.plaintextBase64)
    const out: Uint8Array[] = []
    let at = 0
    for (const size of example.encryptedInChunksOf) {
      out.push(stream.update(plain.subarray(at, at + size)))
      at += size
    }
    expect(at).toBe(plain.length)
    expect(toBase64(Buffer.concat(out))).toBe(example.ciphertextBase64)
    expect(toBase64(stream.final())).toBe(tag)
  })

  test.each(examples)('$name: containers come out as they went in', (example) => {
    expect(formatFileKey(parseFileKey(example.encryptedFileKey))).toEqual(example.encryptedFileKey)
  })
})
