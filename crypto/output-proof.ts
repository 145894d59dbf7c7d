/**
 * Proves that what stands in the buffers of an encryption is the ciphertext under its GCM tag: wrong
 * memory, a wrong copy or a buffer that was given away too early are seen, at a fraction of what decrypting it again costs.
 *
 * GCM (NIST SP 800-38D §6.4, §7.1) makes its tag of the ciphertext C and the additional data A as
 *
 *     tag = GHASH(A ‖ C ‖ bits of A as 64-bit ‖ bits of C as 64-bit) ⊕ E(J0),     GHASH over blocks X1 … Xm: Y ← (Y ⊕ Xi) · H
 *
 * with H = AES(key, 0), A and C padded to whole blocks. So the tag of a file (A empty) and the GMAC over the same ciphertext under the same key and
 * IV (all of it additional data, nothing encrypted) have the same blocks, but for the last one, which has the length in its right half or in its left:
 *
 *     tag ⊕ GMAC = ((len ‖ 0) ⊕ (0 ‖ len)) · H
 *
 * GHASH is linear, so this works part by part. For a part P of b blocks let S(P) = GMAC(P) ⊕ E(J0) ⊕ (len P ‖ 0)·H, which is the hash of its
 * blocks alone, times H. Then S(P ‖ Q) = S(P)·H^b(Q) ⊕ S(Q), and the tag of the whole is S ⊕ (0 ‖ len)·H ⊕ E(J0).
 *
 * DANGER: a second message under one key and IV. Nothing made here may leave this process or be stored: two GMACs of one key and IV
 * give H away, and with it the means to forge.
 * @module
 */
import { primitives } from '#primitives'
import { copy, equal, wipe } from './bytes.ts'
import type { GmacStream } from './primitives/types.ts'

const BLOCK = 16
/** x^128 = 1 + x + x^2 + x^7, in the bit order of GCM. */
const REDUCTION = 0xe1000000

/**
 * Product in GF(2^128) as GCM has it (SP 800-38D §6.3): bit 0 is the leftmost one. The same steps for all values.
 *
 * @param x - 16 bytes.
 * @param y - 16 bytes.
 */
export function multiply(x: Uint8Array, y: Uint8Array): Uint8Array {
  const words = new DataView(y.buffer, y.byteOffset, BLOCK)
  let [v0, v1, v2, v3] = [0, 4, 8, 12].map((at) => words.getUint32(at)) as [number, number, number, number]
  let [z0, z1, z2, z3] = [0, 0, 0, 0]
  for (let i = 0; i < 128; i++) {
    const isSet = -((x[i >> 3]! >> (7 - (i & 7))) & 1)
    z0 ^= v0 & isSet
    z1 ^= v1 & isSet
    z2 ^= v2 & isSet
    z3 ^= v3 & isSet
    const overflow = -(v3 & 1)
    v3 = (v3 >>> 1) | (v2 << 31)
    v2 = (v2 >>> 1) | (v1 << 31)
    v1 = (v1 >>> 1) | (v0 << 31)
    v0 = (v0 >>> 1) ^ (REDUCTION & overflow)
  }
  const product = new Uint8Array(BLOCK)
  const out = new DataView(product.buffer)
  for (const [at, word] of [z0, z1, z2, z3].entries()) out.setUint32(at * 4, word)
  return product
}

/** `base` to the power of `exponent`, which is at most 2^32. */
export function power(base: Uint8Array, exponent: number): Uint8Array {
  let result = new Uint8Array(BLOCK)
  result[0] = 0x80 // one
  let square = base
  for (let left = exponent; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = multiply(result, square) as Uint8Array<ArrayBuffer>
    square = multiply(square, square)
  }
  return result
}

/** The last block of GHASH, lengths in bytes. */
export function lengths(additional: number, ciphertext: number): Uint8Array {
  const block = new Uint8Array(BLOCK)
  const bits = new DataView(block.buffer)
  bits.setBigUint64(0, BigInt(additional) * 8n)
  bits.setBigUint64(8, BigInt(ciphertext) * 8n)
  return block
}

/** Of blocks of 16 bytes. */
export const xor = (...blocks: readonly Uint8Array[]): Uint8Array =>
  blocks.reduce((sum, block) => sum.map((byte, i) => byte ^ block[i]!), new Uint8Array(BLOCK))

export interface OutputProof {
  /**
   * GMAC (16 bytes) of one part under key and IV of the file, which is the same for the same bytes only: two contents that are not
   * chosen with knowledge of the key have the same one with a chance of their blocks to 2^128. SECRET.
   */
  of(part: Uint8Array): Uint8Array
  /** Takes in more of the next part. */
  absorb(piece: Uint8Array): void
  /** Ends the next part, and counts it; returns what `of` would. Only the last part may have a length that is no multiple of 16. */
  endPart(): Uint8Array
  /** True when the parts that have ended are the ciphertext that GCM gave this tag. */
  proves(tag: Uint8Array): boolean
  wipe(): void
}

/**
 * @param key - 32 bytes; copied.
 * @param iv - 12 bytes; copied.
 */
export function createOutputProof(key: Uint8Array, iv: Uint8Array): OutputProof {
  const [ownKey, ownIv] = [copy(key), copy(iv)]
  const hashKey = primitives.ctr(key, new Uint8Array(BLOCK), new Uint8Array(BLOCK))
  // Of nothing at all the hash is zero, so that the tag is E(J0) alone.
  const mask = primitives.gcmEncrypt(key, iv).final()
  let sum: Uint8Array = new Uint8Array(BLOCK)
  let total = 0
  let part: { readonly gmac: GmacStream; length: number } | undefined
  /** Parts are as long as each other, so that one power does for nearly all. */
  let known = { blocks: 0, power: power(hashKey, 0) }

  const begun = () => {
    part ??= { gmac: primitives.gmac(ownKey, ownIv), length: 0 }
    return part
  }

  return {
    of(ciphertext) {
      const gmac = primitives.gmac(ownKey, ownIv)
      gmac.update(ciphertext)
      return gmac.final()
    },
    absorb(piece) {
      const next = begun()
      next.gmac.update(piece)
      next.length += piece.length
    },
    endPart() {
      if (total % BLOCK !== 0) throw new RangeError('only the last part may end within a block')
      const { gmac, length } = begun()
      part = undefined
      const blocks = Math.ceil(length / BLOCK)
      if (known.blocks !== blocks) known = { blocks, power: power(hashKey, blocks) }
      const tag = gmac.final()
      const hash = xor(tag, mask, multiply(lengths(length, 0), hashKey))
      sum = xor(multiply(sum, known.power), hash)
      total += length
      return tag
    },
    proves: (tag) => equal(xor(sum, mask, multiply(lengths(0, total), hashKey)), tag),
    wipe: () => wipe(ownKey, hashKey, mask, sum, known.power),
  }
}
