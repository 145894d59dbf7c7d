import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import {
  createFileDecryptor,
  parseFileKey,
  parseKeyPairContainer,
  unlockKeyPair,
  unwrapFileKey,
} from '../../crypto/index.ts'

interface Example {
  name: string
  password: string
  userKeyPair: unknown
  encryptedFileKey: unknown
  plainFileKey: { key: string }
  plaintextBase64: string
  ciphertextBase64: string
}

const file = new URL('../../../shared/dracoon/examples.json', import.meta.url)
const examples: Example[] = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).examples : []

describe.skipIf(examples.length === 0)('worked examples of the format', () => {
  test.each<Example>(examples)('$name opens', async (example) => {
    const pair = await unlockKeyPair(parseKeyPairContainer(example.userKeyPair), example.password)
    const key = await unwrapFileKey(parseFileKey(example.encryptedFileKey), pair)
    expect(Buffer.from(key.key).toString('base64')).toBe(example.plainFileKey.key)
    const decryptor = createFileDecryptor(key)
    const out = decryptor.update(Buffer.from(example.ciphertextBase64, 'base64'))
    decryptor.final()
    expect(Buffer.from(out).toString('base64')).toBe(example.plaintextBase64)
  })
})
