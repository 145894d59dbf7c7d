/**
 * Rescue keys: an X25519 key pair of its own that one's user key pair is sealed for, by HPKE (RFC 9180: base mode,
 * DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM). The public half seals again and again, for instance a new key pair; the private
 * half, a seed of 32 bytes, is on paper (rescue-text.ts).
 * @module
 */
import { primitives } from '#primitives'
import { concat, copy, toHex, utf8, wipe } from './bytes.ts'
import { SyncError } from './errors.ts'
import { restoreKeyPair, UserKeyPair } from './key-pair.ts'
import type { KeyPairVersion } from './versions.ts'

/** Bytes of the seed, and of a public key. */
export const RESCUE_KEY_BYTES = 32

/** What `sealKeyPair` has made. */
export interface SealedKeyPair {
  /** The encapsulated key: 32 bytes. */
  readonly enc: Uint8Array
  /** The private key (PKCS#8), encrypted, with the tag behind it. */
  readonly sealed: Uint8Array
}

/** Memory of its own, as WebCrypto wants it. */
const bufferOf = (bytes: Uint8Array): ArrayBuffer => copy(bytes).buffer

/** Key pairs are sealed for what they belong to: it goes into HPKE's `info`, and there is no additional data. */
const infoOf = (context: Uint8Array) => bufferOf(concat(utf8('sealsync rescue container 1\n'), context))

/** Loaded when it is needed, which is seldom. */
async function createSuite() {
  const [{ Aes256Gcm, CipherSuite, HkdfSha256 }, { DhkemX25519HkdfSha256 }] = await Promise.all([
    import('@hpke/core'),
    import('@hpke/dhkem-x25519'),
  ])
  return new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() })
}

/** The private half of a new rescue key: 32 random bytes. */
export const generateRescueSeed = (): Uint8Array => primitives.randomBytes(RESCUE_KEY_BYTES)

/**
 * The public key of a rescue key: that of DeriveKeyPair of the seed (RFC 9180 §7.1.3).
 *
 * @returns 32 bytes.
 */
export async function rescuePublicKey(seed: Uint8Array): Promise<Uint8Array> {
  const { kem } = await createSuite()
  const { publicKey } = await kem.deriveKeyPair(bufferOf(seed))
  return new Uint8Array(await kem.serializePublicKey(publicKey))
}

/** Name of a rescue key, which says nothing about it: 16 hexadecimal digits. */
export const rescueKeyId = (publicKey: Uint8Array): string =>
  toHex(primitives.sha256(concat(utf8('sealsync rescue key\n'), publicKey)).subarray(0, 8))

/**
 * Seals the private key of a key pair for a rescue key.
 *
 * @param publicKey - 32 bytes.
 * @param context - What the sealed key belongs to; opened with anything else, it does not open.
 */
export async function sealKeyPair(
  pair: UserKeyPair,
  publicKey: Uint8Array,
  context: Uint8Array,
): Promise<SealedKeyPair> {
  const suite = await createSuite()
  const recipientPublicKey = await suite.kem.deserializePublicKey(bufferOf(publicKey))
  const plain = bufferOf(UserKeyPair.privateKeyOf(pair))
  try {
    const { enc, ct } = await suite.seal({ recipientPublicKey, info: infoOf(context) }, plain)
    return { enc: new Uint8Array(enc), sealed: new Uint8Array(ct) }
  } finally {
    wipe(new Uint8Array(plain))
  }
}

/**
 * Opens a sealed key pair, and checks that all its numbers belong together.
 *
 * @param seed - 32 bytes.
 * @param context - As it was sealed with.
 * @returns the key pair, unlocked; wipe it.
 * @throws {SyncError} `RESCUE_CONTAINER_TAMPERED` (class `integrity`) when it does not open, whatever the reason.
 */
export async function openKeyPair(
  { enc, sealed }: SealedKeyPair,
  seed: Uint8Array,
  context: Uint8Array,
  version: KeyPairVersion,
): Promise<UserKeyPair> {
  const suite = await createSuite()
  let plain: Uint8Array | undefined
  try {
    const { privateKey: recipientKey } = await suite.kem.deriveKeyPair(bufferOf(seed))
    const how = { recipientKey, enc: bufferOf(enc), info: infoOf(context) }
    plain = new Uint8Array(await suite.open(how, bufferOf(sealed)))
    return await restoreKeyPair(plain, version)
  } catch (cause) {
    throw new SyncError(
      'integrity',
      'RESCUE_CONTAINER_TAMPERED',
      'The rescue container does not open: it was changed',
      {
        hint: 'Take another copy of it: from a file, or from the server.',
        cause,
      },
    )
  } finally {
    wipe(plain)
  }
}
