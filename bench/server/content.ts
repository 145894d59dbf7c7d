/**
 * The content that the discarding server hands out: one pattern over and over, which costs nothing to make. It is a valid
 * ciphertext all the same: any bytes are the ciphertext of something, and only the tag has to be found.
 * @module
 */
import { createCipheriv, createHash } from 'node:crypto'
import { FileKey } from '../../crypto/index.ts'

const PATTERN_BYTES = 1024 * 1024

/** Bytes that look random, the same ones always. */
export const pattern: Buffer = createCipheriv('aes-256-ctr', Buffer.alloc(32, 7), Buffer.alloc(16, 9)).update(
  Buffer.alloc(PATTERN_BYTES),
)

/**
 * The key under which `size` bytes of the pattern are the ciphertext of something.
 *
 * @param id - Another one makes another key.
 */
export function keyForPattern(size: number, id: number): FileKey {
  const key = createHash('sha256').update(`key ${id}`).digest()
  const iv = createHash('sha256').update(`iv ${id}`).digest().subarray(0, 12)
  // GCM encrypts with CTR from counter 2 (NIST SP 800-38D §7.1); undoing that gives the plaintext, encrypting it the tag.
  const undo = createCipheriv('aes-256-ctr', key, Buffer.concat([iv, Buffer.from([0, 0, 0, 2])]))
  const seal = createCipheriv('aes-256-gcm', key, iv)
  for (let at = 0; at < size; at += PATTERN_BYTES) {
    seal.update(undo.update(pattern.subarray(0, Math.min(PATTERN_BYTES, size - at))))
  }
  seal.final()
  return new FileKey(new Uint8Array(key), new Uint8Array(iv), new Uint8Array(seal.getAuthTag()))
}
