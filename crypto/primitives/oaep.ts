/**
 * RSAES-OAEP encoding by hand (RFC 8017 §7.1), for the one combination that engines do not offer: a mask hash other than
 * the label hash. The RSA operation itself is the engine's.
 * @module
 */
import { concat, copy, wipe } from '../bytes.ts'
import type { HashName } from './types.ts'

export interface OaepHashes {
  /** Digest for label and mask; both must be of the hashes named. */
  digest(name: HashName, data: Uint8Array): Uint8Array
  readonly hash: HashName
  readonly mgf1Hash: HashName
}

/** MGF1 (RFC 8017 §B.2.1), xored onto `target` in place. */
function mask(target: Uint8Array, seed: Uint8Array, hashes: OaepHashes): void {
  const block = new Uint8Array(seed.length + 4)
  block.set(seed)
  for (let counter = 0, at = 0; at < target.length; counter++) {
    new DataView(block.buffer).setUint32(seed.length, counter)
    for (const byte of hashes.digest(hashes.mgf1Hash, block)) {
      if (at === target.length) break
      target[at++]! ^= byte
    }
  }
  wipe(block)
}

/**
 * EME-OAEP encoding.
 *
 * @param seed - As long as the label hash; from the operating system's generator.
 * @param length - Modulus length in bytes.
 * @returns the encoded message, `length` bytes, to be raised to the public exponent.
 */
export function oaepEncode(
  message: Uint8Array,
  label: Uint8Array,
  seed: Uint8Array,
  length: number,
  hashes: OaepHashes,
): Uint8Array {
  const labelHash = hashes.digest(hashes.hash, label)
  const data = new Uint8Array(length - labelHash.length - 1)
  if (message.length > data.length - labelHash.length - 1) throw new RangeError('message too long for this modulus')
  data.set(labelHash)
  data[data.length - message.length - 1] = 1
  data.set(message, data.length - message.length)
  mask(data, seed, hashes)
  const maskedSeed = copy(seed)
  mask(maskedSeed, data, hashes)
  return concat(new Uint8Array(1), maskedSeed, data)
}

/**
 * EME-OAEP decoding. Every check runs to the end whatever the earlier ones said, and there is one answer for all failures.
 *
 * @param encoded - The result of the private operation, modulus length in bytes.
 * @returns the message, or `undefined`.
 */
export function oaepDecode(encoded: Uint8Array, label: Uint8Array, hashes: OaepHashes): Uint8Array | undefined {
  const labelHash = hashes.digest(hashes.hash, label)
  const hashLength = labelHash.length
  if (encoded.length < 2 * hashLength + 2) return undefined
  const seed = copy(encoded.subarray(1, 1 + hashLength))
  const data = copy(encoded.subarray(1 + hashLength))
  mask(seed, data, hashes)
  mask(data, seed, hashes)
  let bad = encoded[0]!
  for (let i = 0; i < hashLength; i++) bad |= data[i]! ^ labelHash[i]!
  let found = 0
  let start = 0
  for (let i = hashLength; i < data.length; i++) {
    const isOne = +(data[i] === 1)
    const isZero = +(data[i] === 0)
    start |= -(isOne & (1 - found)) & (i + 1)
    bad |= (1 - found) & (1 - isOne) & (1 - isZero)
    found |= isOne
  }
  bad |= 1 - found
  const message = bad === 0 ? copy(data.subarray(start)) : undefined
  wipe(seed, data)
  return message
}
