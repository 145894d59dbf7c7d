/**
 * What can be wrong with a private key. OpenSSL's and the parsers' reasons are left out: they help nobody who holds the file.
 * @module
 */
import { SyncError, type SyncErrorCode } from '../../errors.ts'

export const keyError = (code: SyncErrorCode, message: string, hint: string) =>
  new SyncError('key', code, message, { hint })

export const keyInvalid = () =>
  keyError('KEY_INVALID', 'The private key cannot be read', 'It must be PEM, JWK or PKCS#12 and hold a private key.')

export const passphraseWrong = () =>
  keyError('KEY_PASSPHRASE_WRONG', 'The passphrase does not open the private key', 'Check the passphrase and the file.')

export const legacyEncryption = () =>
  keyError(
    'KEY_LEGACY_ENCRYPTION',
    'The private key is encrypted in a way that is no longer safe (RC2 or 3DES)',
    'Convert it: openssl pkcs12 -legacy -in old.p12 -nocerts -out key.pem, or export it again with AES-256.',
  )
