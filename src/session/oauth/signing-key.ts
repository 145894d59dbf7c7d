/**
 * Private keys that sign JWTs: read from PEM, JWK or PKCS#12, matched with an algorithm, and the signature itself (RFC 7515).
 * @module
 */
import { createPrivateKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { MAX_PEM_BYTES } from '../../../crypto/bytes.ts'
import { systemCode } from '../../errors.ts'
import { keyError, keyInvalid, legacyEncryption, passphraseWrong } from './key-errors.ts'

/** How statements are signed (RFC 7518 §3.1, RFC 8037). */
export type SigningAlgorithm = 'RS256' | 'PS256' | 'ES256' | 'EdDSA'

/** A private key as it is kept. PEM: PKCS#8, encrypted PKCS#8, PKCS#1 or SEC 1; PKCS#12: the bytes of the file. */
export type SigningKey = {
  /** Header parameter that tells the server which key it was. Default: that of the JWK. */
  readonly kid?: string
  /** Default: by the kind of key, RS256 for RSA. */
  readonly algorithm?: SigningAlgorithm
} & (
  | { readonly pem: string; readonly passphrase?: string }
  | { readonly jwk: JsonWebKey }
  | { readonly pkcs12: Uint8Array; readonly passphrase: string }
)

/** A key, or a function that reads it: asked for each signature, so that a file can be replaced. */
export type SigningKeySource = SigningKey | (() => Promise<SigningKey>)

function readPem(pem: string, passphrase: string | undefined): KeyObject {
  if (pem.length > MAX_PEM_BYTES) throw keyInvalid()
  const isEncrypted = pem.includes('ENCRYPTED')
  if (isEncrypted && passphrase === undefined) {
    throw keyError('KEY_PASSPHRASE_NEEDED', 'The private key is encrypted', 'Give its passphrase.')
  }
  try {
    return createPrivateKey({ key: pem, format: 'pem', ...(passphrase === undefined ? {} : { passphrase }) })
  } catch (error) {
    if (!isEncrypted) throw keyInvalid()
    throw /UNSUPPORTED/.test(systemCode(error) ?? '') ? legacyEncryption() : passphraseWrong()
  }
}

function readJwk(jwk: JsonWebKey): KeyObject {
  try {
    return createPrivateKey({ key: jwk, format: 'jwk' })
  } catch {
    throw keyInvalid()
  }
}

async function readPkcs12(file: Uint8Array, passphrase: string): Promise<KeyObject> {
  const { openPkcs12 } = await import('./pkcs12.ts')
  const der = await openPkcs12(file, passphrase)
  try {
    return createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' })
  } catch {
    throw keyInvalid()
  } finally {
    der.fill(0)
  }
}

const MIN_RSA_BITS = 2048

/** Algorithms a key can be used with, the usual one first (RFC 7518 §3.1, RFC 8037). */
function algorithmsOf(key: KeyObject): readonly SigningAlgorithm[] {
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {}
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return (modulusLength ?? 0) >= MIN_RSA_BITS ? ['RS256', 'PS256'] : []
    case 'ec':
      return namedCurve === 'prime256v1' ? ['ES256'] : []
    case 'ed25519':
      return ['EdDSA']
    default:
      return []
  }
}

interface OpenKey {
  readonly key: KeyObject
  readonly algorithm: SigningAlgorithm
  readonly kid: string | undefined
}

/**
 * Reads a private key.
 *
 * @throws {SyncError} `KEY_INVALID`; `KEY_PASSPHRASE_NEEDED`, `KEY_PASSPHRASE_WRONG`; `KEY_LEGACY_ENCRYPTION` for RC2 and 3DES;
 * `KEY_UNSUITABLE` for a kind that signs none of the algorithms, or not the one asked for (RSA needs 2048 bits or more).
 */
export async function openSigningKey(source: SigningKeySource): Promise<OpenKey> {
  const given = typeof source === 'function' ? await source() : source
  const key =
    'pem' in given
      ? readPem(given.pem, given.passphrase)
      : 'jwk' in given
        ? readJwk(given.jwk)
        : await readPkcs12(given.pkcs12, given.passphrase)
  const usable = algorithmsOf(key)
  const algorithm = given.algorithm ?? usable[0]
  if (algorithm === undefined || !usable.includes(algorithm)) {
    throw keyError(
      'KEY_UNSUITABLE',
      'The private key does not fit the signature algorithm',
      'Use RSA of 2048 bits or more (RS256, PS256), P-256 (ES256) or Ed25519 (EdDSA).',
    )
  }
  const ownKid = 'jwk' in given && typeof given.jwk.kid === 'string' ? given.jwk.kid : undefined
  return { key, algorithm, kid: given.kid ?? ownKid }
}

/** A signed JWT with exactly these claims (RFC 7519). Errors: those of {@link openSigningKey}. */
export async function signJwt(claims: Readonly<Record<string, unknown>>, source: SigningKeySource): Promise<string> {
  const { key, algorithm, kid } = await openSigningKey(source)
  const { SignJWT } = await import('jose')
  return new SignJWT({ ...claims })
    .setProtectedHeader({ alg: algorithm, typ: 'JWT', ...(kid === undefined ? {} : { kid }) })
    .sign(key)
}
