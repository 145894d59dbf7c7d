/**
 * File keys: a fresh AES-256 key and IV per upload attempt, wrapped once per recipient. They are made by the encryptor in
 * file-cipher.ts, never by hand, so that one key and IV meet one content only.
 * @module
 */
import { primitives } from '#primitives'
import { copy, wipe } from './bytes.ts'
import type { WrappedFileKey } from './containers.ts'
import { SyncError } from './errors.ts'
import type { UserKeyPair } from './key-pair.ts'
import type { PublicKey } from './public-key.ts'
import { KEY_PAIR_PROFILES } from './versions.ts'

/** An unwrapped file key: secret `key` (32 bytes), public `iv` (12) and `tag` (16). Wipe it when done. */
export class FileKey {
  readonly iv: Uint8Array
  readonly tag: Uint8Array
  readonly #key: Uint8Array

  /** @internal */
  constructor(key: Uint8Array, iv: Uint8Array, tag: Uint8Array) {
    if (key.length !== 32 || iv.length !== 12 || tag.length !== 16) throw new RangeError('file key lengths')
    this.#key = key
    this.iv = iv
    this.tag = tag
  }

  /** 32 bytes. @internal */
  get key(): Uint8Array {
    return this.#key
  }

  wipe(): void {
    wipe(this.#key)
  }

  toJSON(): object {
    return { fileKey: '[redacted]' }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return 'FileKey([redacted])'
  }
}

const isZero = (key: Uint8Array) => key.every((byte) => byte === 0)

/** Refuses an all-zero key: a wiped one, or one that a defective client handed out. */
export function assertUsable(fileKey: FileKey): void {
  if (isZero(fileKey.key)) throw new SyncError('internal', 'KEY_UNUSABLE', 'The file key is empty or was wiped')
}

/**
 * Wraps a file key for one recipient (RSAES-OAEP, SHA-256, empty label; mask hash by the key's version).
 *
 * @throws {SyncError} `KEY_UNUSABLE` for an all-zero or wiped key.
 * @see RFC 8017 §7.1.1
 */
export async function wrapFileKey(fileKey: FileKey, publicKey: PublicKey): Promise<WrappedFileKey> {
  assertUsable(fileKey)
  const key = await publicKey.wrapper.wrap(fileKey.key)
  const { fileKeyVersion } = KEY_PAIR_PROFILES[publicKey.version]
  return { version: fileKeyVersion, key: new Uint8Array(key), iv: copy(fileKey.iv), tag: copy(fileKey.tag) }
}

/** Wraps in flight at once: enough for all cores, and at most about a millisecond of work on the main thread. */
const WRAPS_PER_TURN = 16

/**
 * Wraps a file key for many recipients, of either version, without holding up the event loop.
 *
 * @returns one wrapped key per public key, in the same order.
 * @throws {SyncError} `KEY_UNUSABLE` for an all-zero or wiped key.
 */
export async function wrapFileKeyForEach(
  fileKey: FileKey,
  publicKeys: readonly PublicKey[],
): Promise<WrappedFileKey[]> {
  const wrapped: WrappedFileKey[] = []
  for (let at = 0; at < publicKeys.length; at += WRAPS_PER_TURN) {
    if (at > 0) await primitives.pause()
    const turn = publicKeys.slice(at, at + WRAPS_PER_TURN)
    wrapped.push(...(await Promise.all(turn.map((publicKey) => wrapFileKey(fileKey, publicKey)))))
  }
  return wrapped
}

/**
 * Unwraps a file key that was wrapped for this key pair (RSAES-OAEP).
 *
 * @param wrapped - As parsed by `parseFileKey`; `key` is 256 bytes for `A`, 512 for `RSA-4096`.
 * @param pair - Unlocked, of the version that `wrapped` names.
 * @throws {SyncError} before any RSA: `KEY_VERSION_MISMATCH` when the versions differ, `FILE_KEY_INVALID` for wrong lengths,
 * `KEY_UNUSABLE` for a wiped pair; `KEY_UNWRAP_FAILED` for everything else, without saying why.
 * @see RFC 8017 §7.1.2
 */
export async function unwrapFileKey(wrapped: WrappedFileKey, pair: UserKeyPair): Promise<FileKey> {
  const { fileKeyVersion, wrappedLength } = KEY_PAIR_PROFILES[pair.version]
  if (wrapped.version !== fileKeyVersion) {
    throw new SyncError('key', 'KEY_VERSION_MISMATCH', 'The file key was made for another version of key pair', {
      hint: 'Unlock the key pair of that version, or have the file key handed out again.',
    })
  }
  if (wrapped.key.length !== wrappedLength || wrapped.iv.length !== 12 || wrapped.tag.length !== 16) {
    throw new SyncError('integrity', 'FILE_KEY_INVALID', 'The file key has wrong lengths')
  }
  const { unwrapper } = pair
  let key: Uint8Array | undefined
  try {
    key = await unwrapper.unwrap(wrapped.key)
  } catch {
    // One answer for every failure; the engine's reason would be an oracle.
  }
  if (key?.length !== 32 || isZero(key)) {
    wipe(key)
    throw new SyncError('integrity', 'KEY_UNWRAP_FAILED', 'The file key does not open with this key pair', {
      hint: 'It was damaged or made for another key pair; someone who can open the file can hand it out again.',
    })
  }
  return new FileKey(key, copy(wrapped.iv), copy(wrapped.tag))
}
