/**
 * A digest of content that only who can open the content can compute or compare: HMAC under its own file key. For machines that have to
 * remember what they have stored, and must not be able to tell anybody what it was.
 * @module
 */
import { hkdf } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { utf8, wipe } from './bytes.ts'
import { assertUsable, type FileKey } from './file-key.ts'

const SALT = utf8('sealsync content, authenticated, 1')

/**
 * HMAC-SHA-256 of a digest, under a key that HKDF derives from the file key. It commits to the file key, too, which the tag of the content
 * does not: no other key and content have the same one.
 *
 * @param digest - SHA-256 of the plaintext, 32 bytes.
 * @returns 32 bytes.
 * @throws {SyncError} `KEY_UNUSABLE` for a wiped file key.
 * @see RFC 2104, RFC 5869
 */
export function contentMac(fileKey: FileKey, digest: Uint8Array): Uint8Array {
  if (digest.length !== 32) throw new RangeError('digest')
  assertUsable(fileKey)
  const key = hkdf(sha256, fileKey.key, SALT, fileKey.iv, 32)
  const mac = hmac(sha256, key, digest)
  wipe(key)
  return mac
}
