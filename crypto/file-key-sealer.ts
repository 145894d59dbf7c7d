/**
 * Unwrapped file keys at rest: sealed with AES-256-GCM under a key that only the unlocked private key yields, so that a copy of
 * them is worth as little as the locked key pair. For a cache that saves the RSA operation; where it lies is not known here.
 * @module
 */
import { hkdf } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { primitives } from '#primitives'
import { concat, copy, utf8, wipe } from './bytes.ts'
import { assertUsable, FileKey } from './file-key.ts'
import { UserKeyPair } from './key-pair.ts'

/** Nonce 12; key 32, IV 12, tag 16 of the file key; tag 16. */
export const SEALED_BYTES = 88
export const SEAL_ID_BYTES = 16

export interface FileKeySealer {
  /** 16 bytes to find a record by; to others they are random. */
  idOf(name: string): Uint8Array
  /** 88 bytes, under a fresh nonce, bound to the name of what the file key belongs to. */
  seal(name: string, fileKey: FileKey): Uint8Array
  /** The file key with its IV and tag, or `undefined` for anything that was not sealed here under this name. */
  open(name: string, sealed: Uint8Array): FileKey | undefined
  /** Overwrites the derived keys. */
  wipe(): void
}

const SALT = utf8('sealsync file keys, sealed, 2')

/**
 * Derives the sealing keys (HKDF with SHA-256) from an unlocked private key.
 *
 * @param scope - Keys of one scope do not open what another has sealed.
 * @throws {SyncError} `KEY_UNUSABLE` for a wiped pair.
 * @see RFC 5869
 */
export function createFileKeySealer(pair: UserKeyPair, scope: string): FileKeySealer {
  const derived = hkdf(sha256, UserKeyPair.privateKeyOf(pair), SALT, utf8(`${pair.version}\0${scope}`), 64)
  const sealKey = derived.subarray(0, 32)
  const idKey = derived.subarray(32)
  return {
    idOf: (name) => hmac(sha256, idKey, utf8(name)).subarray(0, SEAL_ID_BYTES),
    seal(name, fileKey) {
      assertUsable(fileKey)
      const nonce = primitives.randomBytes(12)
      const cipher = primitives.gcmEncrypt(sealKey, nonce, utf8(name))
      const plain = concat(fileKey.key, fileKey.iv, fileKey.tag)
      const sealed = concat(nonce, cipher.update(plain), cipher.final())
      wipe(plain)
      return sealed
    },
    open(name, sealed) {
      if (sealed.length !== SEALED_BYTES) return undefined
      const cipher = primitives.gcmDecrypt(sealKey, sealed.subarray(0, 12), utf8(name))
      const plain = cipher.update(sealed.subarray(12, 72))
      const isOurs = cipher.final(sealed.subarray(72))
      const fileKey = isOurs
        ? new FileKey(copy(plain.subarray(0, 32)), copy(plain.subarray(32, 44)), copy(plain.subarray(44)))
        : undefined
      wipe(plain)
      return fileKey
    },
    wipe: () => wipe(derived),
  }
}
