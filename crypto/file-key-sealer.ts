/**
 * Unwrapped file keys at rest: sealed with AES-256-GCM under a key that only the unlocked private key yields, so that a copy of
 * them is worth as little as the locked key pair. For a cache that saves the RSA operation; where it lies is not known here.
 * @module
 */
import { hkdf } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { primitives } from '#primitives'
import { concat, utf8, wipe } from './bytes.ts'
import { assertUsable, FileKey } from './file-key.ts'
import { UserKeyPair } from './key-pair.ts'

/** Nonce 12, key 32, tag 16. */
export const SEALED_BYTES = 60
export const SEAL_ID_BYTES = 16

/** What a file key belongs to. IV and tag are part of it: another version of the file is another thing. */
export interface SealedIdentity {
  readonly name: string
  readonly iv: Uint8Array
  readonly tag: Uint8Array
}

export interface FileKeySealer {
  /** 16 bytes to find a record by; to others they are random. */
  idOf(identity: SealedIdentity): Uint8Array
  /** 60 bytes, under a fresh nonce, bound to the identity. IV and tag are the file key's own. */
  seal(name: string, fileKey: FileKey): Uint8Array
  /** The file key, or `undefined` for anything that was not sealed here for this identity. */
  open(identity: SealedIdentity, sealed: Uint8Array): FileKey | undefined
  /** Overwrites the derived keys. */
  wipe(): void
}

const SALT = utf8('sealsync file keys, sealed, 1')

const encode = ({ name, iv, tag }: SealedIdentity) => concat(iv, tag, utf8(name))

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
    idOf: (identity) => hmac(sha256, idKey, encode(identity)).subarray(0, SEAL_ID_BYTES),
    seal(name, fileKey) {
      assertUsable(fileKey)
      const nonce = primitives.randomBytes(12)
      const cipher = primitives.gcmEncrypt(sealKey, nonce, encode({ name, iv: fileKey.iv, tag: fileKey.tag }))
      return concat(nonce, cipher.update(fileKey.key), cipher.final())
    },
    open(identity, sealed) {
      if (sealed.length !== SEALED_BYTES) return undefined
      const cipher = primitives.gcmDecrypt(sealKey, sealed.subarray(0, 12), encode(identity))
      const key = cipher.update(sealed.subarray(12, 44))
      if (cipher.final(sealed.subarray(44))) return new FileKey(key, identity.iv, identity.tag)
      wipe(key)
      return undefined
    },
    wipe: () => wipe(derived),
  }
}
