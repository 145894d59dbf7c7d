import { describe, expect, test, vi } from 'vitest'
import { primitives } from '#primitives'
import {
  checkFileSize,
  createContentCheck,
  createContentVerifier,
  createFileDecryptor,
  createFileEncryptor,
  decryptBytes,
  encryptBytes,
  FileKey,
  MAX_FILE_BYTES,
} from '../../crypto/index.ts'
import fc from '../support/property.ts'
import { failure, SEED, seededRandom } from './support.ts'

const MiB = 1024 * 1024
const native = primitives.name === 'native'
const { bytes: randomBytes, random } = seededRandom(SEED)
console.info(`random tests on ${primitives.name}: SEALSYNC_SEED=${SEED}`)

/** Cuts `data` at these places and feeds it to `take`. */
function feed(data: Uint8Array, cuts: readonly number[], take: (chunk: Uint8Array) => void): void {
  let at = 0
  for (const cut of [...cuts, data.length]) {
    take(data.subarray(at, cut))
    at = cut
  }
}

/** Encrypts under a given key, which only a test may do. */
function encryptUnder({ key, iv }: FileKey, plain: Uint8Array): Uint8Array {
  return primitives.gcmEncrypt(key, iv).update(plain)
}

const sizes = [
  ...Array.from({ length: 201 }, (_, i) => i),
  ...[4096, 65_536, 131_072, MiB].flatMap((size) => [
    size - 17,
    size - 16,
    size - 1,
    size,
    size + 1,
    size + 15,
    size + 16,
  ]),
]

describe('content cipher', () => {
  test(`sizes 0…200 and around blocks, slices and parts: ${sizes.length} sizes`, () => {
    const source = randomBytes(MiB + 16)
    for (const size of sizes) {
      const plain = source.subarray(0, size)
      const { ciphertext, fileKey } = encryptBytes(plain)
      expect(ciphertext.length).toBe(size)
      if (size >= 16) expect(Buffer.compare(ciphertext, plain)).not.toBe(0)
      expect(Buffer.compare(decryptBytes(ciphertext, fileKey), plain)).toBe(0)
    }
  })

  test('any chunking of any input gives the same bytes and the same tag', () => {
    const arbitrary = fc
      .tuple(
        fc.uint8Array({ maxLength: 3000 }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 }),
      )
      .map(([data, places]) => ({
        data,
        cuts: places.map((place) => Math.floor(place * data.length)).sort((a, b) => a - b),
      }))
    fc.assert(
      fc.property(arbitrary, fc.boolean(), ({ data, cuts }, checkOutput) => {
        const encryptor = createFileEncryptor({ checkOutput })
        const parts: Uint8Array[] = []
        feed(data, cuts, (chunk) => parts.push(encryptor.update(chunk)))
        const fileKey = encryptor.final()
        const cipher = Buffer.concat(parts)
        expect(Buffer.compare(cipher, encryptUnder(fileKey, data))).toBe(0)
        const decryptor = createFileDecryptor(fileKey)
        const out = new Uint8Array(data.length + 3)
        let at = 3
        feed(
          cipher,
          cuts.toReversed().map((cut) => data.length - cut),
          (chunk) => {
            decryptor.updateInto(chunk, out, at)
            at += chunk.length
          },
        )
        decryptor.final()
        expect(Buffer.compare(out.subarray(3), data)).toBe(0)
      }),
      { numRuns: 300 },
    )
  })

  test('cuts of 1, 15, 16, 17 and 65,535 bytes, into a target and piece by piece, with and without the output check', () => {
    const plain = randomBytes(200_003)
    for (const step of [1, 15, 16, 17, 65_535, 65_536, 65_537]) {
      const part = plain.subarray(0, Math.min(plain.length, step * 2_000))
      const cuts = Array.from({ length: Math.ceil(part.length / step) - 1 }, (_, i) => (i + 1) * step)
      const encryptor = createFileEncryptor({ checkOutput: step % 2 === 0 })
      const cipher = new Uint8Array(part.length)
      feed(part, cuts, (chunk) => encryptor.updateInto(chunk, cipher, encryptor.bytes))
      const fileKey = encryptor.final()
      expect(Buffer.compare(decryptBytes(cipher, fileKey), part)).toBe(0)
      const decryptor = createFileDecryptor(fileKey)
      const back = new Uint8Array(part.length)
      feed(cipher, cuts, (chunk) => {
        const start = decryptor.bytes
        decryptor.updateEach(chunk, (piece, offset) => back.set(piece, start + offset))
      })
      decryptor.final()
      expect(Buffer.compare(back, part)).toBe(0)
    }
  })

  test('every single flipped bit of key, IV and tag is refused, and so is one of the ciphertext', async () => {
    const { ciphertext, fileKey } = encryptBytes(randomBytes(75))
    const { key, iv, tag } = fileKey
    const flip = (bytes: Uint8Array, bit: number) => {
      const copy = new Uint8Array(bytes)
      copy[bit >> 3]! ^= 1 << (bit & 7)
      return copy
    }
    let refused = 0
    const expectRefusal = async (content: Uint8Array, altered: FileKey) => {
      expect(await failure(() => decryptBytes(content, altered))).toBe('integrity CONTENT_TAMPERED')
      refused++
    }
    for (let bit = 0; bit < 256; bit++) await expectRefusal(ciphertext, new FileKey(flip(key, bit), iv, tag))
    for (let bit = 0; bit < 96; bit++) await expectRefusal(ciphertext, new FileKey(key, flip(iv, bit), tag))
    for (let bit = 0; bit < 128; bit++) await expectRefusal(ciphertext, new FileKey(key, iv, flip(tag, bit)))
    for (let bit = 0; bit < 600; bit++) await expectRefusal(flip(ciphertext, bit), fileKey)
    expect(refused).toBe(256 + 96 + 128 + 600)
    for (const wrong of [
      ciphertext.subarray(0, 74),
      Buffer.concat([ciphertext, new Uint8Array(1)]),
      new Uint8Array(0),
    ]) {
      await expectRefusal(wrong, fileKey)
    }
  })

  test('the tag of an empty file counts', async () => {
    const { fileKey } = encryptBytes(new Uint8Array(0))
    expect(decryptBytes(new Uint8Array(0), fileKey)).toHaveLength(0)
    const forged = new FileKey(fileKey.key, fileKey.iv, new Uint8Array(16))
    expect(await failure(() => decryptBytes(new Uint8Array(0), forged))).toBe('integrity CONTENT_TAMPERED')
  })

  test('every encryptor has its own key and IV', () => {
    const keys = Array.from({ length: 50 }, () => encryptBytes(new Uint8Array(1)).fileKey)
    expect(new Set(keys.map(({ key }) => Buffer.from(key).toString('hex'))).size).toBe(50)
    expect(new Set(keys.map(({ iv }) => Buffer.from(iv).toString('hex'))).size).toBe(50)
  })

  test('results belong to the caller: plain arrays that later calls leave alone', () => {
    const encryptor = createFileEncryptor()
    const first = encryptor.update(new Uint8Array(40))
    const before = new Uint8Array(first)
    encryptor.update(new Uint8Array(100_000))
    expect(first).toEqual(before)
    expect(Buffer.isBuffer(first)).toBe(false)
  })

  test('misuse is told apart from bad content', () => {
    const encryptor = createFileEncryptor()
    const small = new Uint8Array(9)
    for (const offset of [0, -1, 5, Number.NaN]) {
      expect(() => encryptor.updateInto(new Uint8Array(10), small, offset)).toThrow(RangeError)
    }
    expect(encryptor.bytes).toBe(0)
    encryptor.final()
    expect(() => encryptor.update(new Uint8Array(1))).toThrow(TypeError)
    expect(() => encryptor.final()).toThrow(TypeError)
    const given = createFileEncryptor()
    given.abandon()
    expect(() => given.update(new Uint8Array(1))).toThrow(TypeError)
    const { ciphertext, fileKey } = encryptBytes(small)
    const decryptor = createFileDecryptor(fileKey)
    expect(() => decryptor.updateInto(ciphertext, new Uint8Array(8), 0)).toThrow(RangeError)
    decryptor.update(ciphertext)
    decryptor.final()
    expect(() => decryptor.final()).toThrow(TypeError)
  })

  test('a wiped file key opens and checks nothing', async () => {
    const { fileKey } = encryptBytes(new Uint8Array(9))
    fileKey.wipe()
    for (const use of [createFileDecryptor, createContentVerifier, createContentCheck]) {
      expect(await failure(() => use(fileKey))).toBe('internal KEY_UNUSABLE')
    }
  })

  test('the limit of 2^36 − 32 bytes is refused before a byte is encrypted', async () => {
    checkFileSize(MAX_FILE_BYTES)
    for (const size of [MAX_FILE_BYTES + 1, Number.POSITIVE_INFINITY, Number.NaN]) {
      expect(await failure(() => checkFileSize(size))).toBe('limit FILE_TOO_LARGE')
    }
    const sparse = { length: MAX_FILE_BYTES } as Uint8Array
    const encryptor = createFileEncryptor()
    encryptor.update(new Uint8Array(1))
    expect(await failure(() => encryptor.update(sparse))).toBe('limit FILE_TOO_LARGE')
    expect(encryptor.bytes).toBe(1)
  })
})

describe('output check', () => {
  test.each(['update', 'updateInto', 'updateEach'] as const)(
    'a flipped bit of the output is caught (%s)',
    async (method) => {
      const plain = randomBytes(150_000)
      const make = primitives.gcmEncrypt
      const spy = vi.spyOn(primitives, 'gcmEncrypt').mockImplementation((key, iv) => {
        const real = make(key, iv)
        return {
          ...real,
          update(chunk) {
            const out = real.update(chunk)
            out[out.length >> 1]! ^= 4
            return out
          },
          updateEach: (chunk, use) =>
            real.updateEach(chunk, (piece, offset) => {
              piece[piece.length >> 1]! ^= 4
              use(piece, offset)
            }),
        }
      })
      try {
        const run = (checkOutput: boolean) => {
          const encryptor = createFileEncryptor({ checkOutput })
          if (method === 'update') encryptor.update(plain)
          else if (method === 'updateEach') encryptor.updateEach(plain, () => {})
          else encryptor.updateInto(plain, new Uint8Array(plain.length), 0)
          encryptor.final()
        }
        expect(await failure(() => run(true))).toBe('integrity OUTPUT_CHECK_FAILED')
        expect(await failure(() => run(false))).toBe('nothing')
      } finally {
        spy.mockRestore()
      }
    },
  )
})

describe('verify, compare, resume', () => {
  const plain = randomBytes(300_000)
  const { ciphertext, fileKey } = encryptBytes(plain)

  test('decrypt to verify', async () => {
    const verify = (content: Uint8Array) => {
      const verifier = createContentVerifier(fileKey)
      feed(content, [1, 17, 70_000], (chunk) => verifier.update(chunk))
      verifier.final()
    }
    expect(await failure(() => verify(ciphertext))).toBe('nothing')
    const altered = new Uint8Array(ciphertext)
    altered[299_999]! ^= 128
    expect(await failure(() => verify(altered))).toBe('integrity CONTENT_TAMPERED')
  })

  test('same content?', () => {
    const same = (content: Uint8Array) => {
      const check = createContentCheck(fileKey)
      feed(content, [3, 65_536], (chunk) => check.update(chunk))
      return check.matches()
    }
    expect(same(plain)).toBe(true)
    expect(same(plain.subarray(1))).toBe(false)
    const altered = new Uint8Array(plain)
    altered[7]! ^= 1
    expect(same(altered)).toBe(false)
  })

  test.each([0, 1, 16, 65_535, 65_536, 200_001, 300_000])('resume after %i bytes', async (done) => {
    const resume = (stored: Uint8Array) => {
      const decryptor = createFileDecryptor(fileKey)
      feed(stored, [done >> 1], (chunk) => decryptor.replay(chunk))
      const rest = decryptor.update(ciphertext.subarray(done))
      decryptor.final()
      expect(decryptor.bytes).toBe(plain.length)
      return rest
    }
    expect(Buffer.compare(resume(plain.subarray(0, done)), plain.subarray(done))).toBe(0)
    if (done === 0) return
    const altered = plain.slice(0, done)
    altered[random(done)]! ^= 1
    expect(await failure(() => resume(altered))).toBe('integrity CONTENT_TAMPERED')
  })

  test('replay after update is a mistake of the caller', () => {
    const decryptor = createFileDecryptor(fileKey)
    decryptor.update(ciphertext.subarray(0, 5))
    expect(() => decryptor.replay(plain)).toThrow(TypeError)
  })
})

describe.skipIf(!native || process.env.SEALSYNC_FULL !== '1')('slow: more than 4 GiB (native, SEALSYNC_FULL=1)', () => {
  test('counter and length go on beyond 2^32 bytes', () => {
    const key = createFileEncryptor().final()
    const { key: secret, iv } = key
    const [encrypt, decrypt] = [primitives.gcmEncrypt(secret, iv), primitives.gcmDecrypt(secret, iv)]
    const zeros = new Uint8Array(8 * MiB)
    const [cipher, plain] = [new Uint8Array(8 * MiB), new Uint8Array(8 * MiB)]
    const rounds = 520 // 4.06 GiB
    for (let round = 0; round < rounds; round++) {
      encrypt.updateEach(zeros, (piece, at) => cipher.set(piece, at))
      decrypt.updateEach(cipher, (piece, at) => plain.set(piece, at))
      expect(Buffer.compare(plain, zeros)).toBe(0)
    }
    // The keystream of the last block, from its counter alone: GCM blocks are numbered from 2.
    const counter = Buffer.concat([iv, new Uint8Array(4)])
    counter.writeUInt32BE(2 + (rounds * 8 * MiB) / 16 - 1, 12)
    return import('node:crypto').then(({ createCipheriv }) => {
      const block = createCipheriv('aes-256-ecb', secret, null).setAutoPadding(false).update(counter)
      expect(Buffer.compare(block, cipher.subarray(-16))).toBe(0)
      expect(decrypt.final(encrypt.final())).toBe(true)
    })
  })
})
