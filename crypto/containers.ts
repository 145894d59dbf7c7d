/**
 * Wire JSON to typed bytes and back. Strict on the way in: known versions, canonical base64, exact lengths. Unknown fields
 * are ignored, as the protocol asks. What the key material inside means is decided in private-key.ts and public-key.ts.
 * @module
 */
import { fromBase64, toBase64 } from './bytes.ts'
import { SyncError } from './errors.ts'
import {
  type FileKeyVersion,
  isKeyPairVersion,
  KEY_PAIR_PROFILES,
  type KeyPairVersion,
  keyPairVersionFor,
} from './versions.ts'

/** A public key as the server keeps it. */
export interface PublicKeyContainer {
  readonly version: KeyPairVersion
  /** PEM, label `PUBLIC KEY`. */
  readonly publicKey: string
}

/** A locked private key as the server keeps it. */
export interface PrivateKeyContainer {
  readonly version: KeyPairVersion
  /** PEM, label `ENCRYPTED PRIVATE KEY`. */
  readonly privateKey: string
}

/** A locked key pair, as the server keeps it. */
export interface KeyPairContainer {
  readonly privateKeyContainer: PrivateKeyContainer
  readonly publicKeyContainer: PublicKeyContainer
}

/** A file key wrapped for one recipient. */
export interface WrappedFileKey {
  readonly version: FileKeyVersion
  /** RSAES-OAEP ciphertext: 256 bytes (`A`) or 512. */
  readonly key: Uint8Array
  /** 12 bytes. */
  readonly iv: Uint8Array
  /** 16 bytes. */
  readonly tag: Uint8Array
}

/** The wire form of a wrapped file key. */
export interface FileKeyJson {
  readonly key: string
  readonly iv: string
  readonly tag: string
  readonly version: string
}

const field = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined

const unknownVersion = (what: string) =>
  new SyncError('key', 'KEY_VERSION_UNKNOWN', `The version of this ${what} is not known`, {
    hint: 'Update this program, or have the owner make a new RSA-4096 key pair.',
  })

const badContainer = (message: string) =>
  new SyncError('key', 'KEY_CONTAINER_INVALID', message, {
    hint: 'The key material is damaged or comes from an incompatible program.',
  })

/**
 * Reads a public key container.
 *
 * @throws {SyncError} `KEY_VERSION_UNKNOWN`, `KEY_CONTAINER_INVALID`.
 */
export function parsePublicKeyContainer(json: unknown): PublicKeyContainer {
  const version = field(json, 'version')
  const publicKey = field(json, 'publicKey')
  if (typeof version !== 'string' || typeof publicKey !== 'string') throw badContainer('Not a public key container')
  if (!isKeyPairVersion(version)) throw unknownVersion('public key')
  return { version, publicKey }
}

/**
 * Reads a locked key pair.
 *
 * @throws {SyncError} `KEY_VERSION_UNKNOWN`, `KEY_VERSION_MISMATCH` when the halves differ, `KEY_CONTAINER_INVALID`.
 */
export function parseKeyPairContainer(json: unknown): KeyPairContainer {
  const privateKeyContainer = parsePrivateKeyContainer(field(json, 'privateKeyContainer'))
  const { version } = privateKeyContainer
  const publicKeyContainer = parsePublicKeyContainer(field(json, 'publicKeyContainer'))
  if (publicKeyContainer.version !== version) {
    throw new SyncError('key', 'KEY_VERSION_MISMATCH', 'The private and the public key have different versions')
  }
  return { privateKeyContainer, publicKeyContainer }
}

/**
 * Reads a locked private key.
 *
 * @throws {SyncError} `KEY_VERSION_UNKNOWN`, `KEY_CONTAINER_INVALID`.
 */
export function parsePrivateKeyContainer(json: unknown): PrivateKeyContainer {
  const version = field(json, 'version')
  const privateKey = field(json, 'privateKey')
  if (typeof version !== 'string' || typeof privateKey !== 'string') throw badContainer('Not a key pair container')
  if (!isKeyPairVersion(version)) throw unknownVersion('key pair')
  return { version, privateKey }
}

const badFileKey = (message: string) =>
  new SyncError('integrity', 'FILE_KEY_INVALID', message, {
    hint: 'The file key was damaged on the server or on the way; someone who can open the file can hand it out again.',
  })

function exactBytes(value: unknown, length: number, name: string): Uint8Array {
  const bytes = typeof value === 'string' && value.length <= 1024 ? fromBase64(value) : undefined
  if (bytes?.length !== length) throw badFileKey(`The file key's ${name} is not ${length} bytes of base64`)
  return bytes
}

/**
 * Reads a wrapped file key.
 *
 * @throws {SyncError} `KEY_VERSION_UNKNOWN`; `FILE_KEY_INVALID` for wrong lengths or base64 that is not canonical.
 */
export function parseFileKey(json: unknown): WrappedFileKey {
  const version = field(json, 'version')
  if (typeof version !== 'string') throw badFileKey('Not a file key')
  if (version !== 'A' && version !== 'RSA-4096/AES-256-GCM') throw unknownVersion('file key')
  const { wrappedLength } = KEY_PAIR_PROFILES[keyPairVersionFor(version)]
  return {
    version,
    key: exactBytes(field(json, 'key'), wrappedLength, 'key'),
    iv: exactBytes(field(json, 'iv'), 12, 'IV'),
    tag: exactBytes(field(json, 'tag'), 16, 'tag'),
  }
}

/** The wire form of a wrapped file key. */
export const formatFileKey = (wrapped: WrappedFileKey): FileKeyJson => ({
  key: toBase64(wrapped.key),
  iv: toBase64(wrapped.iv),
  tag: toBase64(wrapped.tag),
  version: wrapped.version,
})
