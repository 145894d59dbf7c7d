/**
 * RSA public keys: strict parsing, what we accept, fingerprints, and the OAEP wrapper behind them.
 * @module
 */
import { primitives } from '#primitives'
import { copy, fromPem, toBigInt, toHex } from './bytes.ts'
import type { PublicKeyContainer } from './containers.ts'
import { content, DerError, der, derInteger, derOid, oid, readDer, sequence, Tag } from './der.ts'
import { SyncError } from './errors.ts'
import type { RsaWrapper } from './primitives/types.ts'
import { KEY_PAIR_PROFILES, type KeyPairVersion } from './versions.ts'

export const RSA_ENCRYPTION = '1.2.840.113549.1.1.1'

/** A checked public key, ready to wrap file keys. */
export interface PublicKey {
  readonly version: KeyPairVersion
  /** DER of SubjectPublicKeyInfo (RFC 5280 §4.1). */
  readonly spki: Uint8Array
  /** SHA-256 of `spki`, 64 lower-case hex digits: what two people compare. */
  readonly fingerprint: string
  /** @internal */
  readonly wrapper: RsaWrapper
}

const invalid = (message: string, cause?: unknown) =>
  new SyncError('key', 'PUBLIC_KEY_INVALID', message, {
    hint: 'The public key on the server is damaged or was tampered with; no file key is handed out to it.',
    cause,
  })

interface PrimeGroup {
  readonly product: bigint
  readonly primes: readonly number[]
}

/** The primes below 2^16, by threes with their product: one division of a BigInt, then quick ones of numbers below 2^48. */
function groupSmallPrimes(): readonly PrimeGroup[] {
  const sieve = new Uint8Array(65_536)
  const primes: number[] = []
  for (let i = 2; i < sieve.length; i++) {
    if (sieve[i] !== 0) continue
    primes.push(i)
    for (let j = i * i; j < sieve.length; j += i) sieve[j] = 1
  }
  return Array.from({ length: Math.ceil(primes.length / 3) }, (_, i) => {
    const three = primes.slice(3 * i, 3 * i + 3)
    return { product: BigInt(three.reduce((product, prime) => product * prime, 1)), primes: three }
  })
}

/** Made when the first key is checked: it takes some milliseconds. */
let smallPrimes: readonly PrimeGroup[] | undefined

function hasSmallFactor(modulus: bigint): boolean {
  smallPrimes ??= groupSmallPrimes()
  return smallPrimes.some(({ product, primes }) => {
    const rest = Number(modulus % product)
    return primes.some((prime) => rest % prime === 0)
  })
}

/** Modulus of a SubjectPublicKeyInfo for RSA; throws DerError. */
function readModulus(spki: Uint8Array): { modulus: Uint8Array; exponent: Uint8Array } {
  const [algorithm, bits] = sequence(readDer(spki), 2)
  const [id, parameters] = sequence(algorithm, 2)
  if (oid(id) !== RSA_ENCRYPTION || content(parameters, Tag.Null).length !== 0) throw new DerError('not an RSA key')
  const inner = content(bits, Tag.BitString)
  if (inner[0] !== 0) throw new DerError('unused bits')
  const [n, e] = sequence(readDer(inner.subarray(1)), 2)
  const modulus = content(n, Tag.Integer)
  const exponent = content(e, Tag.Integer)
  for (const number of [modulus, exponent]) {
    if (number.length === 0 || number[0]! >= 0x80) throw new DerError('negative number')
    if (number.length > 1 && number[0] === 0 && number[1]! < 0x80) throw new DerError('number not in its shortest form')
  }
  return { modulus: modulus[0] === 0 ? modulus.subarray(1) : modulus, exponent }
}

/**
 * Checks a SubjectPublicKeyInfo against its version and makes it usable: modulus of exactly the version's length, odd,
 * without a factor below 2^16; public exponent 65537.
 *
 * @throws {SyncError} `PUBLIC_KEY_INVALID`.
 */
export async function importSpki(spki: Uint8Array, version: KeyPairVersion): Promise<PublicKey> {
  const profile = KEY_PAIR_PROFILES[version]
  let parsed: ReturnType<typeof readModulus>
  try {
    parsed = readModulus(spki)
  } catch (cause) {
    throw invalid('The public key is not a DER-encoded RSA key', cause)
  }
  const { modulus, exponent } = parsed
  if (modulus.length * 8 !== profile.modulusBits || modulus[0]! < 0x80) {
    throw invalid(`The public key's modulus does not have the ${profile.modulusBits} bits of version ${version}`)
  }
  if (exponent.length !== 3 || toBigInt(exponent) !== 65_537n) throw invalid('The public exponent is not 65537')
  if (hasSmallFactor(toBigInt(modulus))) throw invalid('The public modulus has a tiny factor')
  try {
    return Object.freeze({
      version,
      spki: copy(spki),
      fingerprint: toHex(primitives.sha256(spki)),
      wrapper: await primitives.rsaWrapper(spki, profile.oaep),
    })
  } catch (cause) {
    throw invalid('The public key is refused by the RSA engine', cause)
  }
}

/**
 * Opens a public key container.
 *
 * @throws {SyncError} `KEY_CONTAINER_INVALID` (not PEM), `PUBLIC_KEY_INVALID`.
 */
export async function importPublicKey(container: PublicKeyContainer): Promise<PublicKey> {
  return importSpki(fromPem(container.publicKey, 'PUBLIC KEY'), container.version)
}

/** DER of a SubjectPublicKeyInfo with these numbers (unsigned big-endian). */
export function encodeSpki(modulus: Uint8Array, exponent: Uint8Array): Uint8Array {
  const key = der(Tag.Sequence, derInteger(modulus), derInteger(exponent))
  return der(
    Tag.Sequence,
    der(Tag.Sequence, derOid(RSA_ENCRYPTION), der(Tag.Null)),
    der(Tag.BitString, Uint8Array.of(0), key),
  )
}
