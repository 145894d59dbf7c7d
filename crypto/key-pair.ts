/**
 * User key pairs: generate, lock with a password, unlock, change the password. The locked format is private-key.ts, file keys
 * are file-key.ts.
 *
 * The key pair of a download share and the rescue key pairs of rooms and of the system are the same objects under another
 * password: make one with `generateKeyPair`, lock it with the share or rescue password (which is never sent), and wrap the
 * file keys for its public key.
 * @module
 */
import { primitives } from '#primitives'
import { copy, equal, toPem, utf8, wipe } from './bytes.ts'
import type { KeyPairContainer, PrivateKeyContainer } from './containers.ts'
import { SyncError } from './errors.ts'
import type { RsaUnwrapper } from './primitives/types.ts'
import {
  checkPrivateKey,
  type KeyProtection,
  openPrivateKey,
  readLockedPrivateKey,
  sealPrivateKey,
} from './private-key.ts'
import { importPublicKey, importSpki, type PublicKey } from './public-key.ts'
import { KEY_PAIR_PROFILES, type KeyPairVersion } from './versions.ts'

const keyWiped = () => new SyncError('internal', 'KEY_UNUSABLE', 'The key pair was wiped')

/** An unlocked key pair. Keep it for the run, then `wipe()` it. */
export class UserKeyPair {
  readonly version: KeyPairVersion
  readonly publicKey: PublicKey
  #unwrapper: RsaUnwrapper | undefined
  readonly #pkcs8: Uint8Array
  static #read: (pair: UserKeyPair) => Uint8Array
  static {
    UserKeyPair.#read = (pair) => {
      // Locking a wiped key would replace the only copy of it by zeros.
      if (pair.#unwrapper === undefined) throw keyWiped()
      return pair.#pkcs8
    }
  }

  /** @internal */
  constructor(version: KeyPairVersion, publicKey: PublicKey, unwrapper: RsaUnwrapper, pkcs8: Uint8Array) {
    this.version = version
    this.publicKey = publicKey
    this.#unwrapper = unwrapper
    this.#pkcs8 = pkcs8
  }

  /** @internal The private key's DER, for locking only. */
  static privateKeyOf(pair: UserKeyPair): Uint8Array {
    return UserKeyPair.#read(pair)
  }

  /** @internal */
  get unwrapper(): RsaUnwrapper {
    if (this.#unwrapper === undefined) throw keyWiped()
    return this.#unwrapper
  }

  /**
   * Overwrites our copy of the private key and lets go of the engine's, which lives on until it is collected (best effort).
   * Afterwards only the public key is usable; anything else throws `KEY_UNUSABLE`.
   */
  wipe(): void {
    wipe(this.#pkcs8)
    this.#unwrapper = undefined
  }

  toJSON(): object {
    return { version: this.version, fingerprint: this.publicKey.fingerprint, privateKey: '[redacted]' }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `UserKeyPair(${this.version}, ${this.publicKey.fingerprint.slice(0, 16)}…)`
  }
}

async function assemble(version: KeyPairVersion, publicKey: PublicKey, pkcs8: Uint8Array): Promise<UserKeyPair> {
  const unwrapper = await primitives.rsaUnwrapper(pkcs8, KEY_PAIR_PROFILES[version].oaep)
  return new UserKeyPair(version, publicKey, unwrapper, pkcs8)
}

/**
 * Makes a new key pair, unlocked: RSA with public exponent 65537 and 2048 (`A`) or 4096 bits. Takes about a second.
 *
 * @param version - Default `RSA-4096`. Make `A` only for servers that know nothing else.
 */
export async function generateKeyPair(version: KeyPairVersion = 'RSA-4096'): Promise<UserKeyPair> {
  const made = await primitives.rsaGenerate(KEY_PAIR_PROFILES[version].modulusBits)
  const { pkcs8, spki } = checkPrivateKey(made.pkcs8, version)
  wipe(made.pkcs8)
  return assemble(version, await importSpki(spki, version), pkcs8)
}

/**
 * A key pair from its private key alone.
 *
 * @param der - PKCS#8 (PrivateKeyInfo); copied.
 * @throws {SyncError} when the numbers in it do not belong together, or are not of this version.
 * @internal
 */
export async function restoreKeyPair(der: Uint8Array, version: KeyPairVersion): Promise<UserKeyPair> {
  const { pkcs8, spki } = checkPrivateKey(copy(der), version)
  return assemble(version, await importSpki(spki, version), pkcs8)
}

/** A password as text, or as the bytes to use. */
export type Password = string | Uint8Array

function encodePassword(password: Password): { bytes: Uint8Array; legacy: Uint8Array | undefined } {
  let text: string | undefined
  if (typeof password === 'string') {
    text = password
  } else {
    try {
      text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(password)
    } catch {
      // Not UTF-8: the bytes are meant as they are, and there is no other reading of them.
    }
  }
  if (password.length === 0) throw new SyncError('usage', 'PASSWORD_EMPTY', 'The encryption password is empty')
  if (text !== undefined && /\p{Surrogate}/u.test(text)) {
    throw new SyncError('usage', 'PASSWORD_INVALID', 'The encryption password is not valid Unicode text')
  }
  const bytes = typeof password === 'string' ? utf8(password) : copy(password)
  // Early clients turned each character into one byte (ISO-8859-1). For ASCII both readings are the same.
  const codes = text === undefined ? [] : Array.from(text, (char) => char.codePointAt(0)!)
  const differs = codes.some((code) => code > 0x7f) && codes.every((code) => code <= 0xff)
  return { bytes, legacy: differs ? Uint8Array.from(codes) : undefined }
}

/**
 * Locks a key pair with a password: PBES2, PBKDF2-HMAC-SHA1 with 1,300,000 iterations and a 20-byte salt, AES-256-CBC. The
 * password's bytes are its UTF-8 encoding, not normalised.
 *
 * @throws {SyncError} `PASSWORD_EMPTY`; `PASSWORD_INVALID` for text with unpaired surrogates; `KEY_UNUSABLE` for a wiped pair.
 * @see RFC 8018 §6.2, RFC 5958 §3
 */
export function lockKeyPair(pair: UserKeyPair, password: Password): Promise<KeyPairContainer> {
  return lockWith(pair, password)
}

/** As `lockKeyPair`, with chosen parameters. For tests: weaker protection must not be reachable by option. @internal */
export async function lockWith(
  pair: UserKeyPair,
  password: Password,
  protection?: KeyProtection,
): Promise<KeyPairContainer> {
  const { bytes, legacy } = encodePassword(password)
  try {
    const { version, publicKey } = pair
    const privateKey = await sealPrivateKey(UserKeyPair.privateKeyOf(pair), bytes, protection)
    return {
      privateKeyContainer: { version, privateKey },
      publicKeyContainer: { version, publicKey: toPem(publicKey.spki, 'PUBLIC KEY') },
    }
  } finally {
    wipe(bytes, legacy)
  }
}

/**
 * Unlocks a key pair. Tries the password as UTF-8 and then, where that differs and is possible, as ISO-8859-1. Afterwards
 * checks that all numbers of the private key belong together and to the public key, because the server could alter both.
 *
 * @param container - As parsed by `parseKeyPairContainer`.
 * @throws {SyncError} `KEY_PASSWORD_WRONG` for a wrong password and for a private key that was altered, without saying which;
 * `KEY_CONTAINER_INVALID`, `KEY_CONTAINER_UNSUPPORTED`, `KEY_ITERATIONS_REFUSED`, `PUBLIC_KEY_INVALID` before anything is
 * derived.
 */
export async function unlockKeyPair(container: KeyPairContainer, password: Password): Promise<UserKeyPair> {
  const { version } = container.privateKeyContainer
  if (container.publicKeyContainer.version !== version) {
    throw new SyncError('key', 'KEY_VERSION_MISMATCH', 'The private and the public key have different versions')
  }
  return unlock(container.privateKeyContainer, password, () => importPublicKey(container.publicKeyContainer))
}

/**
 * Unlocks a private key that came without its public one, as the key of a download share does. The public key is computed from it;
 * that all its numbers belong together is checked as for `unlockKeyPair`.
 *
 * @param container - As parsed by `parsePrivateKeyContainer`.
 * @throws {SyncError} as `unlockKeyPair`.
 */
export const unlockPrivateKey = (container: PrivateKeyContainer, password: Password): Promise<UserKeyPair> =>
  unlock(container, password)

/** @param expected - The public key that it has to belong to; read before anything is derived. */
async function unlock(
  { version, privateKey }: PrivateKeyContainer,
  password: Password,
  expected?: () => Promise<PublicKey>,
): Promise<UserKeyPair> {
  const { bytes, legacy } = encodePassword(password)
  try {
    const locked = readLockedPrivateKey(privateKey)
    const publicKey = await expected?.()
    for (const candidate of legacy === undefined ? [bytes] : [bytes, legacy]) {
      const opened = await openPrivateKey(locked, candidate, version)
      if (opened === undefined) continue
      try {
        const own = publicKey ?? (await importSpki(opened.spki, version))
        if (equal(opened.spki, own.spki)) return await assemble(version, own, opened.pkcs8)
      } catch {
        // Numbers that add up and that the engine still refuses: the same answer as for a wrong password.
      }
      wipe(opened.pkcs8)
    }
  } finally {
    wipe(bytes, legacy)
  }
  throw new SyncError('key', 'KEY_PASSWORD_WRONG', 'The encryption password does not open this key pair', {
    hint: 'This is the password that protects your key pair, not the one of the account.',
  })
}

/**
 * Locks a key pair again under another password.
 *
 * @throws {SyncError} as `unlockKeyPair` and `lockKeyPair`.
 */
export async function changePassword(
  container: KeyPairContainer,
  current: Password,
  next: Password,
): Promise<KeyPairContainer> {
  const pair = await unlockKeyPair(container, current)
  try {
    return await lockKeyPair(pair, next)
  } finally {
    pair.wipe()
  }
}

/** How a locked key pair is protected, without opening it. Fewer than 1,300,000 iterations: worth locking again. */
export function keyProtection(container: KeyPairContainer): { prf: string; iterations: number; current: boolean } {
  const { prf, iterations } = readLockedPrivateKey(container.privateKeyContainer.privateKey)
  return { prf: `HMAC-${prf}`, iterations, current: iterations >= 1_300_000 }
}
