import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { primitives } from '#primitives'
import {
  createResumableEncryptor,
  decryptBytes,
  formatFileKey,
  generateKeyPair,
  type ResumableEncryptor,
  resumeFileEncryptor,
  type SealedEncryption,
  unwrapFileKey,
  type WrappedFileKey,
} from '../../crypto/index.ts'

const owner = await generateKeyPair('A')
const unwrap = (wrapped: WrappedFileKey) => unwrapFileKey(wrapped, owner)
const content = randomBytes(1000)
const PART = 304
const parts = [0, 1, 2, 3].map((index) => content.subarray(index * PART, (index + 1) * PART))

interface Interrupted {
  sealed: SealedEncryption
  sent: Map<number, Uint8Array>
  ciphertext: Uint8Array[]
}

/** Encrypts and proves the first `count` parts, as an upload that is interrupted then. */
async function interrupt(count: number): Promise<Interrupted> {
  const encryptor = createResumableEncryptor({ checkOutput: true })
  const sealed = await encryptor.seal(owner.publicKey)
  const ciphertext = parts.slice(0, count).map((part) => encryptor.update(part))
  const sent = new Map(ciphertext.map((bytes, index) => [index + 1, encryptor.digest(index + 1, bytes)]))
  return { sealed, sent, ciphertext }
}

const resume = ({ sealed, sent }: Interrupted) => resumeFileEncryptor(sealed, unwrap, sent, { checkOutput: true })
const mismatch = { class: 'changed', code: 'RESUME_MISMATCH' }

function encryptAll(encryptor: ResumableEncryptor, pieces: readonly Uint8Array[]): Uint8Array[] {
  return pieces.map((piece, index) => {
    const bytes = encryptor.update(piece)
    encryptor.digest(index + 1, bytes)
    return bytes
  })
}

test.each([0, 1, 3, 4])(
  'after %i parts it goes on with the same ciphertext, and ends with the right tag',
  async (count) => {
    const before = await interrupt(count)
    const encryptor = await resume(before)
    const ciphertext = encryptAll(encryptor, parts)
    expect(ciphertext.slice(0, count)).toEqual(before.ciphertext)
    expect(Buffer.compare(decryptBytes(Buffer.concat(ciphertext), encryptor.final()), content)).toBe(0)
  },
)

test('what was sealed opens for its owner alone, and says nothing', async () => {
  const { sealed, sent } = await interrupt(2)
  const other = await generateKeyPair('A')
  const wrong = resumeFileEncryptor(sealed, (wrapped) => unwrapFileKey(wrapped, other), sent)
  await expect(wrong).rejects.toMatchObject({ code: 'KEY_UNWRAP_FAILED' })
  const { key } = await unwrap(sealed.fileKey)
  const text = JSON.stringify([formatFileKey(sealed.fileKey), formatFileKey(sealed.digestKey)])
  expect(text).not.toContain(Buffer.from(key).toString('base64'))
  expect(Buffer.compare(key, (await unwrap(sealed.digestKey)).key)).not.toBe(0)
})

test('one bit that differs in any part that was sent ends it before that part, or the tag, gets out', async () => {
  for (const index of [0, 1, 2]) {
    const encryptor = await resume(await interrupt(3))
    const changed = parts.map((part) => Uint8Array.from(part))
    changed[index]![17]! ^= 1
    const ciphertext = changed.map((part) => encryptor.update(part))
    ciphertext.slice(0, index).forEach((bytes, at) => void encryptor.digest(at + 1, bytes))
    expect(() => encryptor.digest(index + 1, ciphertext[index]!)).toThrowError(expect.objectContaining(mismatch))
    expect(() => encryptor.final()).toThrowError(expect.objectContaining(mismatch))
  }
})

test.each([
  ['shorter', 0, PART - 1],
  ['longer', 0, PART + 1],
  ['another', PART, 2 * PART],
])('a part that is %s is refused, and so is everything after it', async (_what, from, to) => {
  const encryptor = await resume(await interrupt(2))
  const whole = encryptor.update(content)
  const refused = expect.objectContaining(mismatch)
  expect(() => encryptor.digest(1, whole.subarray(from, to))).toThrowError(refused)
  expect(() => encryptor.digest(1, whole.subarray(0, PART))).toThrowError(refused)
  expect(() => encryptor.digest(4, whole.subarray(3 * PART))).toThrowError(refused)
  expect(() => encryptor.final()).toThrowError(refused)
})

test('a part that was sent and is not compared refuses the end', async () => {
  const encryptor = await resume(await interrupt(2))
  encryptor.digest(1, encryptor.update(content).subarray(0, PART))
  expect(() => encryptor.final()).toThrowError(expect.objectContaining(mismatch))
})

test('after its end or when given up it makes no digests, with whatever key', async () => {
  for (const end of [(e: ResumableEncryptor) => e.abandon(), (e: ResumableEncryptor) => e.final()]) {
    const encryptor = createResumableEncryptor()
    end(encryptor)
    expect(() => encryptor.digest(1, content)).toThrow(TypeError)
  }
  const encryptor = createResumableEncryptor()
  for (const number of [0, -1, 1.5, 2 ** 32]) expect(() => encryptor.digest(number, content)).toThrow(RangeError)
  encryptor.abandon()
  await expect(encryptor.seal(owner.publicKey)).rejects.toMatchObject({ code: 'KEY_UNUSABLE' })
})

test('the digest is GMAC of the part’s GMAC, with the part’s number as nonce', async () => {
  const { sealed, sent, ciphertext } = await interrupt(2)
  const { key } = await unwrap(sealed.digestKey)
  const nonce = new Uint8Array(12)
  nonce[11] = 2
  const file = await unwrap(sealed.fileKey)
  const gmac = primitives.gcmEncrypt(file.key, file.iv, ciphertext[1]!).final()
  expect(primitives.gcmEncrypt(key, nonce, gmac).final()).toEqual(sent.get(2))
})
