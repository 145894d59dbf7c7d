/**
 * SRP-6a, the client's side: proving a password without sending it. One arithmetic for three ways to write and hash numbers:
 * Proton (SHA-512 four times, little-endian, 256 bytes), Cognito (SHA-256, Java's signed bytes) and RFC 5054, whose published
 * example proves the shared part. Requests, password hashing and signed moduli are the session's business.
 *
 * Nothing here is constant in time except the comparison of proofs: each secret exponent is used once per login, and the
 * password's number appears in products with a fresh random one.
 * @module
 */
import { hkdf } from '@noble/hashes/hkdf.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha1 } from '@noble/hashes/legacy.js'
import { sha256, sha512 } from '@noble/hashes/sha2.js'
import { concat, copy, equal, toBigInt, utf8, wipe } from './bytes.ts'
import { SyncError } from './errors.ts'

/** A prime modulus and a generator. */
export interface SrpGroup {
  readonly N: bigint
  readonly g: bigint
}

/** How a kind of service writes numbers and hashes them. */
interface Profile {
  hash(...parts: readonly Uint8Array[]): Uint8Array
  encode(number: bigint): Uint8Array
  decode(bytes: Uint8Array): bigint
}

/** The client's pair: a, and A = g^a mod N. */
interface Ephemeral {
  readonly a: bigint
  readonly A: bigint
}

const notTrusted = (message: string) =>
  new SyncError('auth', 'SERVER_NOT_TRUSTED', message, {
    hint: 'Do not log in here before this is explained: somebody else may be answering for the server.',
  })

const requireLength = (bytes: Uint8Array, length: number, what: string) => {
  if (bytes.length !== length) throw notTrusted(`${what} has ${bytes.length} bytes instead of ${length}`)
}

const randomBytes = (length: number) => globalThis.crypto.getRandomValues(new Uint8Array(length))

/** base^exponent mod modulus; the exponent is not negative, the base may be. */
export function modPow(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n % modulus
  let power = ((base % modulus) + modulus) % modulus
  for (let left = exponent; left > 0n; left >>= 1n) {
    if (left & 1n) result = (result * power) % modulus
    power = (power * power) % modulus
  }
  return result
}

/** S = (B − k·g^x)^(a + u·x) mod N (RFC 5054 §2.6). The exponent is reduced mod N − 1, because N is prime. */
export function premaster(
  { N, g }: SrpGroup,
  numbers: { readonly a: bigint; readonly B: bigint; readonly k: bigint; readonly u: bigint; readonly x: bigint },
): bigint {
  const { a, B, k, u, x } = numbers
  return modPow(B - k * modPow(g, x, N), (a + u * x) % (N - 1n), N)
}

/** Both sides' ephemerals to the shared number; refuses those that would make it independent of the password. */
function exchange(profile: Profile, group: SrpGroup, mine: Ephemeral, B: bigint, k: bigint, x: bigint) {
  if (B % group.N === 0n) throw notTrusted('The server sent a login value that is a multiple of the modulus')
  const u = profile.decode(profile.hash(profile.encode(mine.A), profile.encode(B)))
  if (u === 0n) throw notTrusted('The server sent a login value that takes the password out of the proof')
  return { u, S: premaster(group, { a: mine.a, B, k, u, x }) }
}

/** Unsigned big-endian bytes of a fixed length. */
function bigEndian(number: bigint, length: number): Uint8Array {
  const out = new Uint8Array(length)
  let left = number
  for (let at = length - 1; at >= 0; at--) {
    out[at] = Number(left & 0xffn)
    left >>= 8n
  }
  return out
}

const bitLength = (number: bigint) => (number === 0n ? 0 : number.toString(2).length)

// ---- RFC 5054 ------------------------------------------------------------------------------------------------------------

/**
 * The client's numbers as RFC 5054 has them (SHA-1, numbers padded to the length of N). No service here speaks it; its
 * appendix B is the published example that the arithmetic above is held against.
 *
 * @throws {SyncError} `SERVER_NOT_TRUSTED` when B is a multiple of N.
 * @see RFC 5054 §2.5.3, §2.6, appendix B
 */
export function rfc5054(
  group: SrpGroup,
  login: {
    readonly userName: string
    readonly password: string
    readonly salt: Uint8Array
    readonly a: bigint
    readonly B: bigint
  },
): { readonly k: bigint; readonly x: bigint; readonly A: bigint; readonly u: bigint; readonly S: bigint } {
  const length = Math.ceil(bitLength(group.N) / 8)
  const profile: Profile = {
    hash: (...parts) => sha1(concat(...parts)),
    encode: (number) => bigEndian(number, length),
    decode: toBigInt,
  }
  const k = toBigInt(profile.hash(profile.encode(group.N), profile.encode(group.g)))
  const x = toBigInt(profile.hash(login.salt, profile.hash(utf8(`${login.userName}:${login.password}`))))
  const A = modPow(group.g, login.a, group.N)
  return { k, x, A, ...exchange(profile, group, { a: login.a, A }, login.B, k, x) }
}

// ---- Proton --------------------------------------------------------------------------------------------------------------

/** Length of every number on Proton's wire, in bytes. */
export const PROTON_BYTES = 256

const COUNTERS = [0, 1, 2, 3].map((counter) => Uint8Array.of(counter))

/** 256 bytes: SHA-512 over the input and a counter byte, for the counters 0 to 3. */
export function protonHash(...parts: readonly Uint8Array[]): Uint8Array {
  const input = concat(...parts)
  return concat(...COUNTERS.map((counter) => sha512(concat(input, counter))))
}

const proton: Profile = {
  hash: protonHash,
  encode: (number) => bigEndian(number, PROTON_BYTES).reverse(),
  decode: (bytes) => toBigInt(copy(bytes).reverse()),
}

export interface ProtonProofs {
  /** A, 256 bytes little-endian. */
  readonly clientEphemeral: Uint8Array
  /** M1, 256 bytes. */
  readonly clientProof: Uint8Array
  /** M2, 256 bytes: what the server has to answer; see `checkServerProof`. */
  readonly expectedServerProof: Uint8Array
}

/**
 * Reads a modulus whose signature was checked: 2048 bits, and 2 generates its whole group.
 *
 * @param modulus - 256 bytes, little-endian.
 * @throws {SyncError} `SERVER_NOT_TRUSTED`.
 */
export function protonGroup(modulus: Uint8Array): SrpGroup {
  requireLength(modulus, PROTON_BYTES, 'The modulus')
  const N = proton.decode(modulus)
  // 2 is no square modulo N: true for every modulus the service has published, and for few numbers that are not prime.
  const fits = bitLength(N) === 2048 && N % 8n === 3n && modPow(2n, (N - 1n) / 2n, N) === N - 1n
  if (!fits) throw notTrusted('The modulus is not one for logins')
  return { N, g: 2n }
}

/**
 * Proves the password to a Proton server.
 *
 * @param group - From `protonGroup`.
 * @param serverEphemeral - B, 256 bytes little-endian.
 * @param passwordHash - The whole bcrypt string, 60 ASCII characters beginning with `$2y$10$`.
 * @param random - a, 32 bytes little-endian. Default: from the system, top bit set. A parameter for known answers only.
 * @throws {SyncError} `SERVER_NOT_TRUSTED` when the length is wrong or B is none an honest server sends.
 */
export function proveToProton(
  group: SrpGroup,
  serverEphemeral: Uint8Array,
  passwordHash: string,
  random?: Uint8Array,
): ProtonProofs {
  const { N, g } = group
  requireLength(serverEphemeral, PROTON_BYTES, 'The server’s ephemeral')
  if (passwordHash.length !== 60) throw new RangeError('bcrypt string length')
  const secret = random ?? randomBytes(32)
  if (secret.length !== 32) throw new RangeError('ephemeral length')
  if (random === undefined) secret[31]! |= 0x80

  const modulus = proton.encode(N)
  const k = proton.decode(protonHash(proton.encode(g), modulus))
  const B = proton.decode(serverEphemeral)
  if (isTrivial(B, N) || isTrivial(k % N, N)) throw notTrusted('The server sent a login value that proves nothing')

  const x = proton.decode(protonHash(utf8(passwordHash), modulus))
  const a = proton.decode(secret)
  const A = modPow(g, a, N)
  const { S } = exchange(proton, group, { a, A }, B, k, x)

  const clientEphemeral = proton.encode(A)
  const key = proton.encode(S)
  const clientProof = protonHash(clientEphemeral, serverEphemeral, key)
  const expectedServerProof = protonHash(clientEphemeral, clientProof, key)
  wipe(key, random === undefined ? secret : undefined)
  return { clientEphemeral, clientProof, expectedServerProof }
}

/** 0, 1, N − 1 and everything that is no residue at all. */
const isTrivial = (number: bigint, N: bigint) => number <= 1n || number >= N - 1n

/**
 * Compares the server's proof, in constant time.
 *
 * @param received - 256 bytes; `undefined` when the server sent none.
 * @throws {SyncError} `SERVER_NOT_TRUSTED` when it is missing or another.
 */
export function checkServerProof(proofs: ProtonProofs, received: Uint8Array | undefined): void {
  if (received === undefined || !equal(received, proofs.expectedServerProof)) {
    throw notTrusted('The server did not prove that it knows this account')
  }
}

// ---- Cognito -------------------------------------------------------------------------------------------------------------

/** The 3072-bit group (RFC 3526 §4, group 15). */
export const COGNITO_GROUP: SrpGroup = Object.freeze({
  N: BigInt(
    `0x${[
      'ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd',
      'ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed',
      'ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f',
      '83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b',
      'e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510',
      '15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7',
      'abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c',
      'bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a93ad2caffffffffffffffff',
    ].join('')}`,
  ),
  g: 2n,
})

/** Longest B, in hexadecimal digits: that of N. */
const MAX_HEX_DIGITS = 768
const MAX_SALT_DIGITS = 1024

/** Big-endian two's complement in the fewest bytes, as Java writes it: a zero byte in front when the top bit is set. */
export const signedBytes = (number: bigint): Uint8Array => bigEndian(number, Math.floor(bitLength(number) / 8) + 1)

const cognito: Profile = {
  hash: (...parts) => sha256(concat(...parts)),
  encode: signedBytes,
  decode: toBigInt,
}

export interface CognitoEphemeral extends Ephemeral {
  /** A for the wire: lower-case hexadecimal without leading zeros. */
  readonly hex: string
}

/**
 * Makes the client's ephemeral.
 *
 * @param random - a, 128 bytes big-endian. Default: from the system. A parameter for known answers only.
 */
export function createCognitoEphemeral(random: Uint8Array = randomBytes(128)): CognitoEphemeral {
  if (random.length !== 128) throw new RangeError('ephemeral length')
  const { N, g } = COGNITO_GROUP
  const a = toBigInt(random)
  const A = modPow(g, a, N)
  return { a, A, hex: A.toString(16) }
}

export interface CognitoChallenge {
  /** The part of the pool id after its underscore. */
  readonly poolName: string
  /** `USER_ID_FOR_SRP`. */
  readonly userId: string
  readonly password: string
  /** `SALT`, hexadecimal, any number of digits. */
  readonly salt: string
  /** `SRP_B`, hexadecimal. */
  readonly serverEphemeral: string
  /** `SECRET_BLOCK`, decoded. */
  readonly secretBlock: Uint8Array
  /** As sent beside the signature. */
  readonly timestamp: string
}

function parseHex(text: string, maxDigits: number, what: string): bigint {
  if (text.length > maxDigits || !/^[0-9a-f]+$/i.test(text)) throw notTrusted(`${what} is not a number of this group`)
  return BigInt(`0x${text}`)
}

/**
 * Signs a challenge of a Cognito pool with the password.
 *
 * @returns 32 bytes, `PASSWORD_CLAIM_SIGNATURE`.
 * @throws {SyncError} `SERVER_NOT_TRUSTED` when B or the salt is not plain hexadecimal or too long, or B mod N or u is zero.
 */
export function signForCognito(ephemeral: CognitoEphemeral, challenge: CognitoChallenge): Uint8Array {
  const { poolName, userId, password, secretBlock, timestamp } = challenge
  const { N, g } = COGNITO_GROUP
  const B = parseHex(challenge.serverEphemeral, MAX_HEX_DIGITS, 'The server’s ephemeral')
  const salt = parseHex(challenge.salt, MAX_SALT_DIGITS, 'The salt')
  const k = toBigInt(cognito.hash(signedBytes(N), signedBytes(g)))
  const identity = cognito.hash(utf8(`${poolName}${userId}:${password}`))
  const x = toBigInt(cognito.hash(signedBytes(salt), identity))
  const { u, S } = exchange(cognito, COGNITO_GROUP, ephemeral, B, k, x)

  const shared = signedBytes(S)
  const key = hkdf(sha256, shared, signedBytes(u), utf8('Caldera Derived Key'), 16)
  const signature = hmac(sha256, key, concat(utf8(poolName), utf8(userId), secretBlock, utf8(timestamp)))
  wipe(shared, key, identity)
  return signature
}
