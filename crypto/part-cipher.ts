/**
 * File content in parts, by WebCrypto: the same stream as file-cipher.ts makes, for browsers, whose processors do AES, while our own
 * portable cipher is some thirty times slower. WebCrypto has no GCM that takes its input in pieces, but all that is needed for one:
 *
 * - counter mode from IV ‖ 2 on gives and takes the ciphertext (NIST SP 800-38D §7.1);
 * - its GCM without plaintext is GMAC, which gives the hash of each part; output-proof.ts has the arithmetic that makes the tag of them.
 *
 * The keys are non-extractable `CryptoKey`s: a script can use them, and never read them. They can be kept in a browser's database.
 *
 * DANGER: as in output-proof.ts, a GMAC of a part may never leave this file.
 * @module
 */
import { primitives } from '#primitives'
import { copy, equal, toHex, wipe } from './bytes.ts'
import type { WrappedFileKey } from './containers.ts'
import { SyncError } from './errors.ts'
import { checkFileSize, outputWrong, tampered } from './file-cipher.ts'
import { assertUsable, FileKey, wrapFileKeyForEach } from './file-key.ts'
import { lengths, multiply, power, xor } from './output-proof.ts'
import type { PublicKey } from './public-key.ts'

/** Asked for when needed: Node loads it then, and seldom needs it. */
const web = () => globalThis.crypto.subtle
const own = (bytes: Uint8Array) => bytes as Uint8Array<ArrayBuffer>

const BLOCK = 16
/** Pieces that are decrypted again to see whether they were encrypted rightly: the first, the last, and one in 64. */
const PIECE = 65_536
const SAMPLED = 64

/** The two uses of one file key: non-extractable. */
interface ContentKeys {
  readonly counterKey: CryptoKey
  readonly macKey: CryptoKey
  /** 12 bytes. */
  readonly iv: Uint8Array
}

async function importKeys(key: Uint8Array, iv: Uint8Array): Promise<ContentKeys> {
  const [counterKey, macKey] = await Promise.all([
    web().importKey('raw', own(key), 'AES-CTR', false, ['encrypt', 'decrypt']),
    web().importKey('raw', own(key), 'AES-GCM', false, ['encrypt']),
  ])
  return { counterKey, macKey, iv: copy(iv) }
}

/** Counter mode from a block of the file on: its first one has the number 2. */
async function keystreamed({ counterKey, iv }: ContentKeys, data: Uint8Array, block: number): Promise<Uint8Array> {
  const counter = new Uint8Array(BLOCK)
  counter.set(iv)
  new DataView(counter.buffer).setUint32(12, block)
  return new Uint8Array(await web().encrypt({ name: 'AES-CTR', counter, length: 32 }, counterKey, own(data)))
}

/** Makes the tag of a ciphertext that comes in parts. */
async function createTagger(keys: ContentKeys) {
  const zero = new Uint8Array(BLOCK)
  const [hashKey, mask] = await Promise.all([
    web().encrypt({ name: 'AES-CTR', counter: zero, length: 32 }, keys.counterKey, zero),
    keystreamed(keys, zero, 1),
  ]).then(([hash, mask]) => [new Uint8Array(hash), mask] as const)
  let sum: Uint8Array = zero
  let total = 0
  let known = { blocks: 0, power: power(hashKey, 0) }
  return {
    get bytes() {
      return total
    },
    /** Only the last part may have a length that is no multiple of 16. */
    async absorb(part: Uint8Array): Promise<void> {
      if (part.length === 0) return
      const parameters = { name: 'AES-GCM', iv: own(keys.iv), additionalData: own(part) }
      const gmac = new Uint8Array(await web().encrypt(parameters, keys.macKey, new Uint8Array()))
      const blocks = Math.ceil(part.length / BLOCK)
      if (known.blocks !== blocks) known = { blocks, power: power(hashKey, blocks) }
      sum = xor(multiply(sum, known.power), gmac, mask, multiply(lengths(part.length, 0), hashKey))
      total += part.length
    },
    tag(): Uint8Array {
      const tag = xor(sum, mask, multiply(lengths(0, total), hashKey))
      wipe(hashKey, mask, sum, known.power)
      return tag
    },
  }
}

/** Refuses calls that overlap, come after the end, or begin within a block; each of them would spoil the content. */
class Turns {
  #isBusy = false
  #hasEnded = false

  async take<T>(at: number, length: number, work: () => Promise<T>): Promise<T> {
    if (this.#isBusy || this.#hasEnded) throw new TypeError('this cipher is busy or has ended')
    if (length > 0 && at % BLOCK !== 0) throw new RangeError('only the last part may end within a block')
    checkFileSize(at + length)
    this.#isBusy = true
    try {
      return await work()
    } catch (error) {
      this.#hasEnded = true
      throw error
    } finally {
      this.#isBusy = false
    }
  }

  end(): void {
    if (this.#isBusy || this.#hasEnded) throw new TypeError('this cipher is busy or has ended')
    this.#hasEnded = true
  }
}

/** Decrypts one content, part by part, from its first byte to its last. */
export interface PartDecryptor {
  /** Bytes so far. */
  readonly bytes: number
  /**
   * Decrypts the next part. What it returns is UNVERIFIED until `final()` has returned.
   *
   * @param part - Of any length that is a multiple of 16 bytes; the last one of any length.
   */
  update(part: Uint8Array): Promise<Uint8Array>
  /**
   * Ends the content and checks the tag.
   *
   * @throws {SyncError} `CONTENT_TAMPERED`: nothing that came out of `update` may be used.
   */
  final(): void
}

/** Starts decrypting one file. The file key may be wiped when this has resolved. */
export async function createPartDecryptor(fileKey: FileKey): Promise<PartDecryptor> {
  assertUsable(fileKey)
  const keys = await importKeys(fileKey.key, fileKey.iv)
  const expected = copy(fileKey.tag)
  const tagger = await createTagger(keys)
  const turns = new Turns()
  return {
    get bytes() {
      return tagger.bytes
    },
    update(part) {
      const at = tagger.bytes
      return turns.take(at, part.length, async () => {
        const [plain] = await Promise.all([keystreamed(keys, part, 2 + at / BLOCK), tagger.absorb(part)])
        return plain
      })
    },
    final() {
      turns.end()
      if (!equal(tagger.tag(), expected)) throw tampered()
    },
  }
}

/**
 * What has to be kept to go on with an encryption after the page was loaded again. Nobody can read the key from it: a script can only
 * use it, in the same browser. Whoever reads the browser's files can, so keep it no longer than the upload.
 */
export interface KeptEncryption extends ContentKeys {
  /** The file key as wrapped for each recipient, without the tag. */
  readonly wrapped: readonly Omit<WrappedFileKey, 'tag' | 'iv'>[]
}

/** One part, encrypted. */
export interface EncryptedPart {
  readonly ciphertext: Uint8Array
  /** SHA-256 of the ciphertext: to be stored durably before its first byte is sent. */
  readonly digest: Uint8Array
}

/** Encrypts one content, part by part, from its first byte to its last; single use. */
export interface PartEncryptor {
  /** Bytes so far. */
  readonly bytes: number
  readonly kept: KeptEncryption
  /**
   * Encrypts the next part.
   *
   * @param part - Of any length that is a multiple of 16 bytes; the last one of any length.
   * @throws {SyncError} `OUTPUT_CHECK_FAILED`; in a resumed encryption `RESUME_MISMATCH` (class `changed`): it must be abandoned, and
   * nothing more may be sent.
   */
  update(part: Uint8Array): Promise<EncryptedPart>
  /**
   * Ends the content.
   *
   * @returns the file key, tag included, wrapped for each recipient, in their order.
   * @throws {SyncError} `RESUME_MISMATCH` when fewer parts came than have been sent.
   */
  final(): WrappedFileKey[]
  /**
   * Wraps the file key for others than it was made for, after `final`. A resumed encryption cannot: it has a key that it cannot read.
   *
   * @returns in their order, or `undefined` when it cannot.
   */
  wrapFor(recipients: readonly PublicKey[]): Promise<WrappedFileKey[] | undefined>
  /** Overwrites the copy of the file key that `wrapFor` needs. */
  wipe(): void
}

/** Starts encrypting one file under a fresh key and IV, which is wrapped for the recipients at once. */
export async function createPartEncryptor(recipients: readonly PublicKey[]): Promise<PartEncryptor> {
  const [key, iv] = [primitives.randomBytes(32), primitives.randomBytes(12)]
  const wrapped = await wrapFileKeyForEach(new FileKey(key, iv, new Uint8Array(16)), recipients)
  const keys = await importKeys(key, iv)
  return encryptor({ ...keys, wrapped: wrapped.map(({ version, key }) => ({ version, key })) }, [], key)
}

/**
 * DANGER: encrypts under a key and IV that have been used. That is safe for exactly one purpose, sending the rest of the same content:
 * feed the same file from byte 0, cut it into the same parts, and give up at the first failure. A part is given out only if it is what
 * was sent under its number.
 *
 * @param sent - Digests of all parts of which anything may have been sent, in order, from the first one on.
 */
export const resumePartEncryptor = (kept: KeptEncryption, sent: readonly Uint8Array[]): Promise<PartEncryptor> =>
  encryptor(kept, sent)

const mismatch = () =>
  new SyncError('changed', 'RESUME_MISMATCH', 'The file does not encrypt to what was sent of it before', {
    hint: 'It was changed meanwhile; it is sent again from the beginning, under a new key.',
  })

async function encryptor(kept: KeptEncryption, sent: readonly Uint8Array[], key?: Uint8Array): Promise<PartEncryptor> {
  const tagger = await createTagger(kept)
  const turns = new Turns()
  const expected = sent.map(toHex)
  let count = 0
  let tag: Uint8Array | undefined
  return {
    kept,
    get bytes() {
      return tagger.bytes
    },
    update(part) {
      const at = tagger.bytes
      return turns.take(at, part.length, async () => {
        const ciphertext = await keystreamed(kept, part, 2 + at / BLOCK)
        await checkSamples(kept, part, ciphertext, at / BLOCK)
        const [digest] = await Promise.all([web().digest('SHA-256', own(ciphertext)), tagger.absorb(ciphertext)])
        const known = expected[count++]
        if (known !== undefined && known !== toHex(new Uint8Array(digest))) throw mismatch()
        return { ciphertext, digest: new Uint8Array(digest) }
      })
    },
    final() {
      turns.end()
      if (count < expected.length) throw mismatch()
      const made = tagger.tag()
      tag = made
      return kept.wrapped.map(({ version, key }) => ({ version, key: copy(key), iv: copy(kept.iv), tag: copy(made) }))
    },
    async wrapFor(recipients) {
      if (tag === undefined) throw new TypeError('this cipher has not ended')
      return key && wrapFileKeyForEach(new FileKey(key, kept.iv, tag), recipients)
    },
    wipe: () => wipe(key),
  }
}

/** The tag is made of the ciphertext as it stands there; that it decrypts to what was read is seen by decrypting some of it. */
async function checkSamples(
  keys: ContentKeys,
  plain: Uint8Array,
  ciphertext: Uint8Array,
  block: number,
): Promise<void> {
  const pieces = Math.ceil(plain.length / PIECE)
  const chosen = new Set([0, pieces - 1])
  const random = primitives.randomBytes(Math.ceil(pieces / SAMPLED))
  for (const [index, byte] of random.entries()) chosen.add(Math.min(index * SAMPLED + (byte % SAMPLED), pieces - 1))
  for (const piece of chosen) {
    if (piece < 0) continue
    const at = piece * PIECE
    const again = await keystreamed(keys, ciphertext.subarray(at, at + PIECE), 2 + block + at / BLOCK)
    if (!equal(again, plain.subarray(at, at + PIECE))) throw outputWrong()
  }
}
