/**
 * Public surface of `sealsync/crypto`: the file format's key pairs, file keys and content cipher. Pure: bytes in, bytes out.
 * @module sealsync/crypto
 */
export {
  type FileKeyJson,
  formatFileKey,
  type KeyPairContainer,
  type PrivateKeyContainer,
  type PublicKeyContainer,
  parseFileKey,
  parseKeyPairContainer,
  parsePrivateKeyContainer,
  parsePublicKeyContainer,
  type WrappedFileKey,
} from './containers.ts'
export { contentMac } from './content-mac.ts'
export { type ErrorClass, SyncError, type SyncErrorOptions } from './errors.ts'
export {
  type ContentCheck,
  type ContentVerifier,
  checkFileSize,
  createContentCheck,
  createContentVerifier,
  createFileDecryptor,
  createFileEncryptor,
  decryptBytes,
  encryptBytes,
  type FileDecryptor,
  type FileEncryptor,
  MAX_FILE_BYTES,
  type OutputCheck,
} from './file-cipher.ts'
export { FileKey, unwrapFileKey, wrapFileKey, wrapFileKeyForEach } from './file-key.ts'
export {
  changePassword,
  generateKeyPair,
  keyProtection,
  lockKeyPair,
  type Password,
  UserKeyPair,
  unlockKeyPair,
  unlockPrivateKey,
} from './key-pair.ts'
export { type KeyPairMigration, migrateKeyPair, rewrapFileKey } from './migration.ts'
export {
  createPartDecryptor,
  createPartEncryptor,
  type EncryptedPart,
  type KeptEncryption,
  type PartDecryptor,
  type PartEncryptor,
  resumePartEncryptor,
} from './part-cipher.ts'
export {
  type CharacterKind,
  checkPassword,
  isWeakPassword,
  type PasswordPolicy,
  type PasswordViolation,
} from './password-policy.ts'
export { importPublicKey, type PublicKey } from './public-key.ts'
export {
  createResumableEncryptor,
  type EncryptionSecrets,
  type ResumableEncryptor,
  resumeFileEncryptor,
  type SealedEncryption,
} from './resumable.ts'
export { isSignedStatement, signStatement } from './statement.ts'
export type { FileKeyVersion, KeyPairVersion } from './versions.ts'
export { decryptStream, type EncryptedStream, encryptStream } from './web-streams.ts'
