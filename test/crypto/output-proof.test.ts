/** The proof of one's own output, on both engines, against GCM as Node has it. */
import { createCipheriv, randomBytes } from 'node:crypto'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { primitives } from '#primitives'
import { createResumableEncryptor, decryptBytes, type ResumableEncryptor } from '../../crypto/index.ts'
import { createOutputProof, multiply } from '../../crypto/output-proof.ts'
import fc from '../support/property.ts'
import { failure, hex, SEED, seededRandom } from './support.ts'

const { random } = seededRandom(SEED)

/** What the format makes of it. */
function encrypt(plain: Uint8Array) {
  const [key, iv] = [randomBytes(32), randomBytes(12)]
  const cipher = createCipheriv('aes-256-gcm', key, iv)
  const ciphertext = Buffer.concat([cipher.update(plain), cipher.final()])
  return { key: new Uint8Array(key), iv: new Uint8Array(iv), ciphertext, tag: new Uint8Array(cipher.getAuthTag()) }
}

const xor = (a: Uint8Array, b: Uint8Array) => a.map((byte, i) => byte ^ b[i]!)
const block = (left: number, right: number) => {
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(left))
  new DataView(bytes.buffer).setBigUint64(8, BigInt(right))
  return bytes
}

describe('multiplication in GF(2^128)', () => {
  /** Algorithm 1 of SP 800-38D, to the letter. */
  function reference(x: Uint8Array, y: Uint8Array): Uint8Array {
    const number = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
    let [z, v] = [0n, number(y)]
    for (let i = 127n; i >= 0n; i--) {
      if ((number(x) >> i) & 1n) z ^= v
      v = v & 1n ? (v >> 1n) ^ (0xe1n << 120n) : v >> 1n
    }
    return hex(z.toString(16).padStart(32, '0'))
  }
  const element = fc.uint8Array({ minLength: 16, maxLength: 16 })

  test('is what the standard says, whatever the factors', () => {
    const one = hex(`80${'00'.repeat(15)}`)
    fc.assert(
      fc.property(element, element, (x, y) => {
        expect(multiply(x, y)).toEqual(reference(x, y))
        expect(multiply(x, y)).toEqual(multiply(y, x))
        expect(multiply(x, one)).toEqual(x)
      }),
      { numRuns: 300 },
    )
  })

  test('makes the tag of the published example (GCM, test cases 13 and 14)', () => {
    const [hash, mask] = [hex('dc95c078a2408989ad48a21492842087'), hex('530f8afbc74536b9a963b4f1c4cb738b')]
    const ciphertext = hex('cea7403d4d606b6e074ec5d3baf39d18')
    expect(primitives.ctr(new Uint8Array(32), new Uint8Array(16), new Uint8Array(16))).toEqual(hash)
    const tag = xor(multiply(xor(multiply(ciphertext, hash), block(0, 128)), hash), mask)
    expect(tag).toEqual(hex('d0d1c8a799996bf0265b98b5d48ab919'))
  })
})

/** 0, 1, 15, 16, 17 bytes, around 64 KiB and above, and 240 others. */
const LENGTHS = [0, 1, 15, 16, 17, 31, 32, 33, 65_535, 65_536, 65_537, 70_001, 200_000].concat(
  Array.from({ length: 240 }, () => random([64, 5_000, 80_000][random(3)]!)),
)

test(`tag and GMAC of one part differ by ((len‖0) ⊕ (0‖len))·H: ${LENGTHS.length} lengths`, () => {
  for (const length of LENGTHS) {
    const { key, iv, ciphertext, tag } = encrypt(randomBytes(length))
    const proof = createOutputProof(key, iv)
    const hash = primitives.ctr(key, new Uint8Array(16), new Uint8Array(16))
    proof.absorb(ciphertext)
    expect(xor(proof.endPart(), tag), `${length}`).toEqual(multiply(block(8 * length, 8 * length), hash))
    expect(proof.proves(tag), `${length}`).toBe(true)
    tag[random(16)]! ^= 1 << random(8)
    expect(proof.proves(tag), `${length}`).toBe(false)
  }
})

test('parts of any number of whole blocks prove the whole; a flipped bit, another order, a missing part do not', () => {
  const parts = fc.record({ blocks: fc.array(fc.nat(40), { maxLength: 6 }), rest: fc.nat(100) })
  fc.assert(
    fc.property(parts, fc.nat(), ({ blocks, rest }, at) => {
      const size = blocks.reduce((sum, one) => sum + 16 * one, rest)
      const { key, iv, ciphertext, tag } = encrypt(randomBytes(size))
      const proves = (bytes: Uint8Array, cuts: readonly number[]) => {
        const proof = createOutputProof(key, iv)
        let from = 0
        for (const length of [...cuts.map((one) => 16 * one), rest]) {
          // In two pieces, which may end anywhere.
          const middle = from + (at % (length + 1))
          proof.absorb(bytes.subarray(from, middle))
          proof.absorb(bytes.subarray(middle, from + length))
          proof.endPart()
          from += length
        }
        return proof.proves(tag)
      }
      expect(proves(ciphertext, blocks)).toBe(true)
      if (size === 0) return
      const flipped = Uint8Array.from(ciphertext)
      flipped[at % size]! ^= 1 << (at % 8)
      expect(proves(flipped, blocks)).toBe(false)
      const first = blocks[0] ?? 0
      if (first > 0 && size > 16 * first) expect(proves(ciphertext.subarray(16 * first), blocks.slice(1))).toBe(false)
      if (size >= 32)
        expect(proves(Buffer.concat([ciphertext.subarray(16), ciphertext.subarray(0, 16)]), blocks)).toBe(false)
    }),
    { numRuns: 200 },
  )
})

test('only the last part ends within a block', () => {
  const { key, iv } = encrypt(new Uint8Array(0))
  const proof = createOutputProof(key, iv)
  for (const length of [32, 5]) {
    proof.absorb(new Uint8Array(length))
    proof.endPart()
  }
  proof.absorb(new Uint8Array(16))
  expect(() => proof.endPart()).toThrow(RangeError)
})

const PART = 16_000
const SIZE = 2 * PART + 777
const plain = new Uint8Array(randomBytes(SIZE))

interface Flip {
  /** Made when this is reached; `absorbed`: of a part that is taken in while it is made, as part makers do. */
  readonly when: 'copied' | 'absorbed' | 'proven' | 'sent'
  readonly at: number
}

/** Encrypts into part buffers as a part maker does; returns what would have been sent. */
function upload(flip?: Flip, encryptor = createResumableEncryptor({ checkOutput: { size: SIZE } })) {
  const parts: Uint8Array[] = []
  for (let from = 0; from < SIZE; from += PART) {
    const slab = new Uint8Array(Math.min(PART, SIZE - from))
    const reach = (when: Flip['when']) => {
      if (flip?.when === when && flip.at >= from && flip.at < from + slab.length)
        slab[flip.at - from]! ^= 1 << (flip.at % 8)
    }
    encryptor.updateInto(plain.subarray(from, from + slab.length), slab, 0)
    reach('copied')
    const number = parts.length + 1
    if (flip?.when === 'absorbed') encryptor.absorb(slab)
    reach('absorbed')
    encryptor.digest(number, flip?.when === 'absorbed' ? undefined : slab)
    reach('proven')
    parts.push(Uint8Array.from(slab))
    reach('sent')
    encryptor.confirm(number, slab)
  }
  return { ciphertext: Buffer.concat(parts), fileKey: encryptor.final() }
}

afterEach(() => void vi.restoreAllMocks())

/** Alters what the cipher gives out, as bad memory on the way to the part would. */
function spoilOutput(at: number): void {
  const make = primitives.gcmEncrypt
  vi.spyOn(primitives, 'gcmEncrypt').mockImplementation((key, iv, aad) => {
    const real = make(key, iv, aad)
    let position = 0
    return {
      ...real,
      updateEach: (chunk, use) =>
        real.updateEach(chunk, (piece, offset) => {
          const here = at - position
          if (here >= 0 && here < piece.length) piece[here]! ^= 1 << (at % 8)
          position += piece.length
          use(piece, offset)
        }),
    }
  })
}

test('1,000 flips between cipher and socket: in the cipher’s output, in the part before, while and after it is digested, while it is sent', async () => {
  const { ciphertext, fileKey } = upload()
  expect(Buffer.compare(decryptBytes(ciphertext, fileKey), plain)).toBe(0)
  const count = { copied: 0, absorbed: 0, proven: 0, sent: 0, output: 0 }
  for (let i = 0; i < 1_000; i++) {
    const at = random(SIZE)
    const when = (['copied', 'absorbed', 'proven', 'sent', 'output'] as const)[i % 5]!
    if (when === 'output') spoilOutput(at)
    const run = () => (when === 'output' ? upload() : upload({ when, at }))
    expect(await failure(run), `${when} ${at}`).toBe('integrity OUTPUT_CHECK_FAILED')
    vi.restoreAllMocks()
    count[when]++
  }
  expect(count).toEqual({ copied: 200, absorbed: 200, proven: 200, sent: 200, output: 200 })
})

test('a part that is not looked at, or twice, is no proof', async () => {
  const encryptor = createResumableEncryptor({ checkOutput: { size: SIZE } })
  const slab = new Uint8Array(PART)
  encryptor.updateInto(plain.subarray(0, PART), slab, 0)
  expect(() => encryptor.confirm(1, slab)).toThrow(TypeError)
  expect(() => encryptor.digest(2, slab)).toThrow(RangeError)
  encryptor.digest(1, slab)
  expect(() => encryptor.digest(1, slab)).toThrow(RangeError)
  encryptor.updateInto(plain.subarray(PART), new Uint8Array(SIZE), 0)
  expect(await failure(() => encryptor.final())).toBe('integrity OUTPUT_CHECK_FAILED')
})

describe('samples', () => {
  const PIECE = 64
  /** A cipher that computes wrong keystream in some pieces, and a right tag of what came out. */
  function spoilKeystream(isWrong: (piece: number) => boolean): void {
    const make = primitives.gcmEncrypt
    vi.spyOn(primitives, 'gcmEncrypt').mockImplementation((key, iv, aad) => {
      const real = make(key, iv, aad)
      let count = 0
      const spoil = (chunk: Uint8Array) => (isWrong(count++) ? chunk.map((byte) => byte ^ 1) : chunk)
      return {
        ...real,
        update: (chunk) => real.update(spoil(chunk)),
        updateEach: (chunk, use) => real.updateEach(spoil(chunk), use),
      }
    })
  }
  function run(pieces: number, encryptor: ResumableEncryptor): void {
    const slab = new Uint8Array(pieces * PIECE)
    for (let at = 0; at < slab.length; at += PIECE) encryptor.updateInto(new Uint8Array(PIECE), slab, at)
    encryptor.digest(1, slab)
    encryptor.final()
  }
  const sampled = (pieces: number) => createResumableEncryptor({ checkOutput: { size: pieces * PIECE } })

  test.each([
    ['the first piece', (piece: number) => piece === 0],
    ['the last piece', (piece: number) => piece === 99],
    ['64 that follow each other from a multiple of 64 on', (piece: number) => piece >= 64 && piece < 128],
    ['all', () => true],
  ])('wrong keystream in %s is seen, though the tag is right', async (_what, isWrong) => {
    spoilKeystream(isWrong)
    const pieces = _what.startsWith('64') ? 200 : 100
    expect(await failure(() => run(pieces, sampled(pieces)))).toBe('integrity OUTPUT_CHECK_FAILED')
  })

  test('one in 64 is decrypted, chosen at random; with `true` all are', async () => {
    const draw = primitives.randomBytes
    for (const chosen of [1, 17, 62]) {
      for (const wrong of [1, 17, 62]) {
        spoilKeystream((piece) => piece === wrong)
        vi.spyOn(primitives, 'randomBytes').mockImplementation((length) =>
          length === 1 ? Uint8Array.of(chosen + 64) : draw(length),
        )
        const expected = chosen === wrong ? 'integrity OUTPUT_CHECK_FAILED' : 'nothing'
        expect(await failure(() => run(64, sampled(64)))).toBe(expected)
        vi.restoreAllMocks()
      }
    }
    spoilKeystream((piece) => piece === 33)
    expect(await failure(() => run(64, createResumableEncryptor({ checkOutput: true })))).toBe(
      'integrity OUTPUT_CHECK_FAILED',
    )
  })
})
