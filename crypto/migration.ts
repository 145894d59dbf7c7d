/**
 * Handing keys on: from an old key pair to a new one, from one holder of a file key to the next. Key pairs are key-pair.ts,
 * wrapping is file-key.ts; which files and recipients there are is for the caller to know.
 * @module
 */
import type { KeyPairContainer, PrivateKeyContainer, WrappedFileKey } from './containers.ts'
import { SyncError } from './errors.ts'
import { unwrapFileKey, wrapFileKeyForEach } from './file-key.ts'
import { generateKeyPair, lockKeyPair, type Password, type UserKeyPair, unlockKeyPair } from './key-pair.ts'
import type { PublicKey } from './public-key.ts'

/** What a change from an `A` key pair to an `RSA-4096` one has made. */
export interface KeyPairMigration {
  /** The new `RSA-4096` pair. Wipe both pairs when done. */
  readonly pair: UserKeyPair
  /** The new pair, locked: what the server keeps. */
  readonly locked: KeyPairContainer
  /** The old `A` pair: it opens the file keys that are to be wrapped again. */
  readonly previous: UserKeyPair
  /** The old private key under the current password and protection, which the server wants beside the new pair. */
  readonly previousPrivateKey: PrivateKeyContainer
}

/**
 * Begins the move from version `A` to `RSA-4096`: opens the old pair, makes a new one, locks both with the same password. Then
 * `rewrapFileKey` moves each file key. The old pair may be deleted on the server only after the last one has arrived there.
 *
 * @throws {SyncError} `KEY_PAIR_CURRENT` when the pair is not of version `A`; else as `unlockKeyPair`.
 */
export async function migrateKeyPair(container: KeyPairContainer, password: Password): Promise<KeyPairMigration> {
  if (container.privateKeyContainer.version !== 'A') {
    throw new SyncError('usage', 'KEY_PAIR_CURRENT', 'The key pair has the current version already')
  }
  const previous = await unlockKeyPair(container, password)
  const pair = await generateKeyPair('RSA-4096')
  const [locked, { privateKeyContainer: previousPrivateKey }] = await Promise.all([
    lockKeyPair(pair, password),
    lockKeyPair(previous, password),
  ])
  return { pair, locked, previous, previousPrivateKey }
}

/**
 * Hands a file key on: opens it with a key pair (one's own, an old one, a rescue or share key pair) and wraps it for others.
 * IV and tag stay as they are; no content is touched.
 *
 * @returns one wrapped key per public key, in the same order.
 * @throws {SyncError} as `unwrapFileKey`.
 */
export async function rewrapFileKey(
  wrapped: WrappedFileKey,
  from: UserKeyPair,
  to: readonly PublicKey[],
): Promise<WrappedFileKey[]> {
  const fileKey = await unwrapFileKey(wrapped, from)
  try {
    return await wrapFileKeyForEach(fileKey, to)
  } finally {
    fileKey.wipe()
  }
}
