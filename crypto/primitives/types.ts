/**
 * What a platform must supply. Node gets node.ts, everything else portable.ts, chosen by the `#primitives` entry of the
 * package's import map. Both pass the same tests. Lengths and formats are checked by the callers, one floor up.
 * @module
 */

export type HashName = 'SHA-1' | 'SHA-256'
/** Hashes that a key derivation may be made with. */
export type PrfHash = HashName | 'SHA-224' | 'SHA-384' | 'SHA-512'

/** RSAES-OAEP parameters (RFC 8017 §7.1). */
export interface OaepParams {
  readonly hash: HashName
  readonly mgf1Hash: HashName
  /** Default: empty. */
  readonly label?: Uint8Array
}

/** One direction of one AES-256-GCM stream: 12-byte IV, 16-byte tag (NIST SP 800-38D). */
export interface GcmStream {
  /** Transforms a chunk of any length. The result belongs to the caller. */
  update(chunk: Uint8Array): Uint8Array
  /**
   * Transforms a chunk piece by piece; for bulk data this is the quick form, it leaves no garbage behind. `use` gets each
   * piece with its offset in the chunk; its memory is given back when `use` returns.
   */
  updateEach(chunk: Uint8Array, use: (piece: Uint8Array, offset: number) => void): void
}

export interface GcmEncryptStream extends GcmStream {
  /** Ends the stream; returns the 16-byte tag. */
  final(): Uint8Array
}

export interface GcmDecryptStream extends GcmStream {
  /** Ends the stream; false when it does not have this 16-byte tag. */
  final(tag: Uint8Array): boolean
}

/** GMAC: the tag of data that is authenticated and not encrypted (NIST SP 800-38D §3). */
export interface GmacStream {
  /** Takes a chunk of any length. */
  update(chunk: Uint8Array): void
  /** Ends the stream; returns the 16-byte tag. */
  final(): Uint8Array
}

export interface RsaWrapper {
  /** One OAEP encryption with a fresh random seed. */
  wrap(plain: Uint8Array): Promise<Uint8Array>
}

export interface RsaUnwrapper {
  /** One OAEP decryption; rejects, without saying why, when the input does not open. */
  unwrap(wrapped: Uint8Array): Promise<Uint8Array>
}

export interface Primitives {
  readonly name: 'native' | 'portable'
  /** From the operating system's generator. */
  randomBytes(length: number): Uint8Array
  sha256(data: Uint8Array): Uint8Array
  /** Plain equality, quick, for data that is no secret to the observer. */
  sameBytes(a: Uint8Array, b: Uint8Array): boolean
  /** Lets the event loop turn once, between pieces of long synchronous work. */
  pause(): Promise<void>
  /** RFC 8018 §5.2; never blocks the event loop. */
  pbkdf2(prf: PrfHash, password: Uint8Array, salt: Uint8Array, iterations: number, length: number): Promise<Uint8Array>
  /** AES-256-CBC with PKCS#7 padding. */
  cbcEncrypt(key: Uint8Array, iv: Uint8Array, plain: Uint8Array): Promise<Uint8Array>
  /** Rejects when the padding is wrong. */
  cbcDecrypt(key: Uint8Array, iv: Uint8Array, cipher: Uint8Array): Promise<Uint8Array>
  /**
   * AES-256 in counter mode, which is its own inverse (NIST SP 800-38A §6.5): the keystream alone, without authentication.
   *
   * @param counter - 16 bytes, the first counter block; counted up as one big-endian number.
   */
  ctr(key: Uint8Array, counter: Uint8Array, data: Uint8Array): Uint8Array
  gmac(key: Uint8Array, iv: Uint8Array): GmacStream
  /** @param aad - Additional data; the file format has none, published test vectors do. */
  gcmEncrypt(key: Uint8Array, iv: Uint8Array, aad?: Uint8Array): GcmEncryptStream
  /** @param aad - As above. */
  gcmDecrypt(key: Uint8Array, iv: Uint8Array, aad?: Uint8Array): GcmDecryptStream
  /** A new RSA key pair with public exponent 65537; DER of PrivateKeyInfo and SubjectPublicKeyInfo. */
  rsaGenerate(modulusBits: number): Promise<{ pkcs8: Uint8Array; spki: Uint8Array }>
  /** @param spki - DER of a checked SubjectPublicKeyInfo. */
  rsaWrapper(spki: Uint8Array, params: OaepParams): Promise<RsaWrapper>
  /** @param pkcs8 - DER of a checked PrivateKeyInfo. */
  rsaUnwrapper(pkcs8: Uint8Array, params: OaepParams): Promise<RsaUnwrapper>
  /** RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes (RFC 8017 §8.1). */
  rsaSign(pkcs8: Uint8Array, data: Uint8Array): Promise<Uint8Array>
  /** True for a signature of that kind by the private key of this public one. */
  rsaVerify(spki: Uint8Array, data: Uint8Array, signature: Uint8Array): Promise<boolean>
}
