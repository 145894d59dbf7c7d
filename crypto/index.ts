/**
 * Public surface of `sealsync/crypto`: the file format's key pairs, file keys and content cipher. Pure: bytes in, bytes out.
 * @module
 */
export {
  type FileKeyJson,
  formatFileKey,
  type KeyPairContainer,
  type PrivateKeyContainer,
  type PublicKeyContainer,
  parseFileKey,
  parseKeyPairContainer,
  parsePublicKeyContainer,
  type WrappedFileKey,
} from './containers.ts'
export { type ErrorClass, SyncError, type SyncErrorOptions } from './errors.ts'
export {
  type ContentCheck,
  checkFileSize,
  createContentCheck,
  createFileDecryptor,
  createFileEncryptor,
  decryptBytes,
  encryptBytes,
  type FileDecryptor,
  type FileEncryptor,
  MAX_FILE_BYTES,
} from './file-cipher.ts'
export { FileKey, unwrapFileKey, wrapFileKey } from './file-key.ts'
export {
  changePassword,
  generateKeyPair,
  keyProtection,
  lockKeyPair,
  type Password,
  UserKeyPair,
  unlockKeyPair,
} from './key-pair.ts'
export { importPublicKey, type PublicKey } from './public-key.ts'
export type { FileKeyVersion, KeyPairVersion } from './versions.ts'
