/**
 * The private half of a key pair at rest: PKCS#8 EncryptedPrivateKeyInfo (RFC 5958 §3) under PBES2 (RFC 8018 §6.2), and
 * the checks that make a foreign one safe to use. The pair as a whole is key-pair.ts.
 * @module
 */
import { primitives } from '#primitives'
import { fromPem, toBigInt, toPem, wipe } from './bytes.ts'
import {
  content,
  DerError,
  type DerNode,
  der,
  derInteger,
  derOid,
  oid,
  readDer,
  sequence,
  smallInteger,
  Tag,
} from './der.ts'
import { SyncError } from './errors.ts'
import type { PrfHash } from './primitives/types.ts'
import { encodeSpki, RSA_ENCRYPTION } from './public-key.ts'
import { KEY_PAIR_PROFILES, type KeyPairVersion } from './versions.ts'

const LABEL = 'ENCRYPTED PRIVATE KEY'
const PBES2 = '1.2.840.113549.1.5.13'
const PBKDF2 = '1.2.840.113549.1.5.12'
const AES_256_CBC = '2.16.840.1.101.3.4.1.42'
/** What other programs lock keys with: OpenSSL, forge and Bouncy Castle can be told to use any of these. */
const PRFS: ReadonlyMap<string, PrfHash> = new Map([
  ['1.2.840.113549.2.7', 'SHA-1'],
  ['1.2.840.113549.2.8', 'SHA-224'],
  ['1.2.840.113549.2.9', 'SHA-256'],
  ['1.2.840.113549.2.10', 'SHA-384'],
  ['1.2.840.113549.2.11', 'SHA-512'],
])
const PRF_OIDS: ReadonlyMap<PrfHash, string> = new Map([...PRFS].map(([id, name]) => [name, id]))

/** Iterations of newly locked keys. The other clients write the same; below it a key is worth locking again. */
export const CURRENT_ITERATIONS = 1_300_000
const MIN_ITERATIONS = 1_000
/** A server could otherwise hang us with one number. */
const MAX_ITERATIONS = 10_000_000

/** How a private key is protected. */
export interface KeyProtection {
  readonly prf: PrfHash
  readonly iterations: number
  readonly salt: Uint8Array
  readonly iv: Uint8Array
}

interface LockedPrivateKey extends KeyProtection {
  readonly ciphertext: Uint8Array
}

const invalid = (cause: unknown) =>
  new SyncError('key', 'KEY_CONTAINER_INVALID', 'The locked private key is not well-formed', {
    hint: 'The key pair on the server is damaged or comes from an incompatible program.',
    cause,
  })

const unsupported = (what: string) =>
  new SyncError('key', 'KEY_CONTAINER_UNSUPPORTED', `The private key is locked with an unsupported ${what}`, {
    hint: 'Only PBES2 with PBKDF2 (HMAC with SHA-1 or SHA-2 up to SHA-512) and AES-256-CBC is read.',
  })

function readPbkdf2(node: DerNode | undefined): Omit<KeyProtection, 'iv'> {
  const [saltNode, iterationsNode, ...optional] = sequence(node, 2, 4)
  const salt = content(saltNode, Tag.OctetString)
  if (salt.length < 8 || salt.length > 256) throw new DerError('salt length')
  const iterations = smallInteger(iterationsNode)
  if (optional[0]?.tag === Tag.Integer && smallInteger(optional.shift()) !== 32) throw new DerError('key length')
  let prf: PrfHash | undefined = 'SHA-1'
  if (optional[0] !== undefined) {
    // RFC 8018 wants NULL parameters; some writers leave them out.
    const [id, parameters] = sequence(optional.shift(), 1, 2)
    if (parameters !== undefined && content(parameters, Tag.Null).length !== 0) throw new DerError('PRF parameters')
    prf = PRFS.get(oid(id))
    if (prf === undefined) throw unsupported('PRF')
  }
  if (optional.length > 0) throw new DerError('trailing PBKDF2 parameters')
  if (iterations < MIN_ITERATIONS || iterations > MAX_ITERATIONS) {
    throw new SyncError('key', 'KEY_ITERATIONS_REFUSED', `The private key asks for ${iterations} PBKDF2 iterations`, {
      hint: `Between ${MIN_ITERATIONS} and ${MAX_ITERATIONS} are accepted; the key pair may have been tampered with.`,
    })
  }
  return { prf, iterations, salt }
}

/** Reads the header of a locked private key; nothing is derived yet. */
export function readLockedPrivateKey(pem: string): LockedPrivateKey {
  const bytes = fromPem(pem, LABEL)
  try {
    const [algorithm, encrypted] = sequence(readDer(bytes), 2)
    const [scheme, parameters] = sequence(algorithm, 2)
    if (oid(scheme) !== PBES2) throw unsupported('scheme')
    const [kdf, cipher] = sequence(parameters, 2)
    const [kdfId, kdfParameters] = sequence(kdf, 2)
    if (oid(kdfId) !== PBKDF2) throw unsupported('key derivation')
    const [cipherId, ivNode] = sequence(cipher, 2)
    if (oid(cipherId) !== AES_256_CBC) throw unsupported('cipher')
    const iv = content(ivNode, Tag.OctetString)
    const ciphertext = content(encrypted, Tag.OctetString)
    if (iv.length !== 16 || ciphertext.length === 0 || ciphertext.length % 16 !== 0) throw new DerError('lengths')
    return { ...readPbkdf2(kdfParameters), iv, ciphertext }
  } catch (error) {
    throw error instanceof SyncError ? error : invalid(error)
  }
}

const deriveKey = (password: Uint8Array, { prf, salt, iterations }: KeyProtection) =>
  primitives.pbkdf2(prf, password, salt, iterations, 32)

/**
 * One try to open a locked private key.
 *
 * @param password - The password's bytes in one encoding.
 * @returns DER of the PrivateKeyInfo in its canonical form and the SubjectPublicKeyInfo that belongs to it, or `undefined`
 * when this is not the password *or* the numbers inside do not belong together: the caller cannot tell which.
 */
export async function openPrivateKey(
  locked: LockedPrivateKey,
  password: Uint8Array,
  version: KeyPairVersion,
): Promise<{ pkcs8: Uint8Array; spki: Uint8Array } | undefined> {
  const key = await deriveKey(password, locked)
  let plain: Uint8Array | undefined
  try {
    plain = await primitives.cbcDecrypt(key, locked.iv, locked.ciphertext)
    return checkPrivateKey(plain, version)
  } catch {
    return undefined
  } finally {
    wipe(key, plain)
  }
}

/**
 * Locks a private key.
 *
 * @param pkcs8 - DER of the PrivateKeyInfo.
 * @returns PEM, label `ENCRYPTED PRIVATE KEY`.
 */
export async function sealPrivateKey(
  pkcs8: Uint8Array,
  password: Uint8Array,
  protection: KeyProtection = {
    prf: 'SHA-1',
    iterations: CURRENT_ITERATIONS,
    salt: primitives.randomBytes(20),
    iv: primitives.randomBytes(16),
  },
): Promise<string> {
  const key = await deriveKey(password, protection)
  try {
    const ciphertext = await primitives.cbcEncrypt(key, protection.iv, pkcs8)
    // HMAC-SHA1 is the default PRF and therefore left out (DER), as every other client writes it.
    const prf =
      protection.prf === 'SHA-1' ? [] : [der(Tag.Sequence, derOid(PRF_OIDS.get(protection.prf)!), der(Tag.Null))]
    const iterations = Uint8Array.from([24, 16, 8, 0], (shift) => (protection.iterations >>> shift) & 0xff)
    const kdf = der(Tag.Sequence, der(Tag.OctetString, protection.salt), derInteger(iterations), ...prf)
    const parameters = der(
      Tag.Sequence,
      der(Tag.Sequence, derOid(PBKDF2), kdf),
      der(Tag.Sequence, derOid(AES_256_CBC), der(Tag.OctetString, protection.iv)),
    )
    const info = der(Tag.Sequence, der(Tag.Sequence, derOid(PBES2), parameters), der(Tag.OctetString, ciphertext))
    return toPem(info, LABEL)
  } finally {
    wipe(key)
  }
}

function unsigned(node: DerNode | undefined): Uint8Array {
  const bytes = content(node, Tag.Integer)
  let start = 0
  while (start < bytes.length - 1 && bytes[start] === 0) start++
  return bytes.subarray(start)
}

/**
 * Checks that the numbers of an RSA private key belong together, since the container has no MAC and engines import altered
 * ones without complaint. Some old writers padded or did not pad their INTEGERs; the numbers are taken as unsigned and
 * written again canonically, which is safe because their relations prove them. (The arithmetic leaves BigInts behind, which
 * cannot be wiped.)
 *
 * @throws DerError for anything that is not such a key.
 */
export function checkPrivateKey(
  privateKeyInfo: Uint8Array,
  version: KeyPairVersion,
): { pkcs8: Uint8Array; spki: Uint8Array } {
  const [infoVersion, algorithm, octets] = sequence(readDer(privateKeyInfo), 3, 5)
  const [id, parameters] = sequence(algorithm, 1, 2)
  if (smallInteger(infoVersion) > 1 || oid(id) !== RSA_ENCRYPTION) throw new DerError('not an RSA key')
  if (parameters !== undefined) content(parameters, Tag.Null)
  const fields = sequence(readDer(content(octets, Tag.OctetString)), 9)
  if (smallInteger(fields[0]) !== 0) throw new DerError('multi-prime keys are not used here')
  const bits = KEY_PAIR_PROFILES[version].modulusBits
  const numbers = fields.slice(1).map(unsigned)
  if (numbers.some((number) => number.length > bits / 8)) throw new DerError('a number is too long')
  const [n, e, d, p, q, dP, dQ, qInv] = numbers.map(toBigInt) as [
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
  ]
  const hasBits = (number: Uint8Array, count: number) => number.length * 8 === count && number[0]! >= 0x80
  const sound =
    hasBits(numbers[0]!, bits) &&
    e === 65_537n &&
    hasBits(numbers[3]!, bits / 2) &&
    hasBits(numbers[4]!, bits / 2) &&
    p !== q &&
    p * q === n &&
    d > 1n &&
    d < n &&
    (d * e) % (p - 1n) === 1n &&
    (d * e) % (q - 1n) === 1n &&
    dP === d % (p - 1n) &&
    dQ === d % (q - 1n) &&
    qInv < p &&
    (qInv * q) % p === 1n
  if (!sound) throw new DerError('the numbers do not belong together')
  const integers = numbers.map(derInteger)
  const key = der(Tag.Sequence, derInteger(new Uint8Array(1)), ...integers)
  const octetString = der(Tag.OctetString, key)
  const pkcs8 = der(
    Tag.Sequence,
    derInteger(new Uint8Array(1)),
    der(Tag.Sequence, derOid(RSA_ENCRYPTION), der(Tag.Null)),
    octetString,
  )
  wipe(...integers, key, octetString)
  return { pkcs8, spki: encodeSpki(numbers[0]!, numbers[1]!) }
}
