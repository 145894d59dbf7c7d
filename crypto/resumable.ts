/**
 * Encryption that a later process can take up again. A restart has lost the cipher's state, so it encrypts the file from byte 0
 * under the same key and IV: right only if not one byte that was sent is different now. What proves that is a digest of each
 * part's ciphertext, made before the part leaves.
 *
 * The digest is made in two steps, so that the bytes are read once. The first is the GMAC of the part under the file's own key and IV,
 * which also proves what was encrypted (output-proof.ts), and must not get out. The second is GMAC (NIST SP 800-38D) of those 16 bytes under
 * a key of its own, with the part's number as nonce, which hides them. Several times as fast as SHA-256, and as hard to collide as the
 * file key is to know (a universal hash, then a pseudorandom function). The second key is kept like the file key, only wrapped for its owner.
 * @module
 */
import { primitives } from '#primitives'
import { copy, equal, wipe } from './bytes.ts'
import type { WrappedFileKey } from './containers.ts'
import { SyncError } from './errors.ts'
import { encryptUnder, type FileEncryptor, type OutputCheck, outputWrong } from './file-cipher.ts'
import { FileKey, wrapFileKey } from './file-key.ts'
import { createOutputProof, type OutputProof } from './output-proof.ts'
import type { PublicKey } from './public-key.ts'

/** What has to be kept to go on after a restart. Only the owner of the key pair can open it. */
export interface SealedEncryption {
  /** The tag is known at the end only; here it is zero. */
  readonly fileKey: WrappedFileKey
  /** Key of the digests in the same form; IV and tag are zero. */
  readonly digestKey: WrappedFileKey
}

/** An encryption that can be gone on with after an interruption. */
export interface ResumableEncryptor extends FileEncryptor {
  /** Wraps what is needed to go on for the owner; store it before anything is sent. */
  seal(owner: PublicKey): Promise<SealedEncryption>
  /**
   * Takes in ciphertext of the part that `digest` is made of next, where it is written: while it is still in the processor's cache, that is
   * done in half the time. What becomes of it later is seen by `confirm`.
   */
  absorb(ciphertext: Uint8Array): void
  /**
   * Digest (16 bytes) of the whole ciphertext of one part; store it before the first byte of the part is sent. In a resumed
   * encryption it also compares the part with what was stored then: a part may be sent only when this has returned. Every part
   * must come here, in order, all but the last one of a length that is a multiple of 16.
   *
   * @param partNumber - 1 to 2^32 − 1. One number stands for one part for ever.
   * @param ciphertext - What `absorb` has not taken in of it, as it stands in the memory that it will be sent from: what has gone wrong
   * until then fails `final`.
   * @throws {SyncError} `RESUME_MISMATCH` (class `changed`): this encryption must be abandoned, nothing more may be sent.
   */
  digest(partNumber: number, ciphertext?: Uint8Array): Uint8Array
  /**
   * Looks at the memory of a part once more, when it has been sent: it is what it was when `digest` was made.
   *
   * @throws {SyncError} `OUTPUT_CHECK_FAILED`: what was sent may be damaged.
   */
  confirm(partNumber: number, ciphertext: Uint8Array): void
  /**
   * Ends this encryptor before its first byte and gives its secrets to the one that works instead, in another thread:
   * transfer them there, and pass them to `takeOverEncryptor` once.
   */
  handOver(): EncryptionSecrets
}

/** What an encryption consists of that has not begun. Every array owns its memory; to be wiped by whoever holds it. */
export interface EncryptionSecrets {
  /** 32 bytes. */
  readonly key: Uint8Array<ArrayBuffer>
  /** 12 bytes. */
  readonly iv: Uint8Array<ArrayBuffer>
  /** 32 bytes. */
  readonly digestKey: Uint8Array<ArrayBuffer>
  /** See `resumeFileEncryptor`. */
  readonly sent: ReadonlyMap<number, Uint8Array>
}

interface Options {
  /** See there. With a size, or `true`, `final` also refuses unless the parts that `digest` has seen are what the tag is of. */
  readonly checkOutput?: OutputCheck
}

const NO_IV = new Uint8Array(12)
const NO_TAG = new Uint8Array(16)

const mismatch = () =>
  new SyncError('changed', 'RESUME_MISMATCH', 'The file does not encrypt to what was sent of it before', {
    hint: 'It was changed meanwhile; it is sent again from the beginning, under a new key.',
  })

/** Starts encrypting one file under fresh keys, so that it can be resumed. */
export const createResumableEncryptor = (options: Options = {}): ResumableEncryptor =>
  resumable(
    { key: primitives.randomBytes(32), iv: primitives.randomBytes(12), digestKey: primitives.randomBytes(32) },
    new Map(),
    options,
  )

/**
 * DANGER: encrypts under a key and IV that have been used. That is safe for exactly one purpose, sending the rest of the same
 * content: feed the same file from byte 0, cut it into the same parts, call `digest` for every part before sending it, and give
 * up at the first failure. `final` refuses unless every part in `sent` was found to be the same. For anything else, and whenever in
 * doubt, use a fresh encryptor.
 *
 * @param sealed - From `seal` of the interrupted encryption.
 * @param unwrap - Opens a key with the owner's key pair; its errors pass through.
 * @param sent - Digests of all parts of which anything may have been sent, by number.
 */
export async function resumeFileEncryptor(
  sealed: SealedEncryption,
  unwrap: (wrapped: WrappedFileKey) => Promise<FileKey>,
  sent: ReadonlyMap<number, Uint8Array>,
  options: Options = {},
): Promise<ResumableEncryptor> {
  const [fileKey, digestKey] = await Promise.all([unwrap(sealed.fileKey), unwrap(sealed.digestKey)])
  return resumable({ key: fileKey.key, iv: fileKey.iv, digestKey: digestKey.key }, sent, options)
}

/**
 * Takes an encryption over that was handed over by another thread; its secrets belong to the new encryptor. DANGER: the same
 * secrets twice would encrypt twice under one key and IV.
 */
export const takeOverEncryptor = (secrets: EncryptionSecrets, options: Options = {}): ResumableEncryptor =>
  resumable(secrets, secrets.sent, options)

function resumable(
  { key, iv, digestKey }: { key: Uint8Array; iv: Uint8Array; digestKey: Uint8Array },
  sent: ReadonlyMap<number, Uint8Array>,
  options: Options,
): ResumableEncryptor {
  const encryptor = encryptUnder(key, iv, options)
  const isChecked = options.checkOutput !== undefined && options.checkOutput !== false
  /** Made when first needed: most are handed over before. */
  let proof: OutputProof | undefined
  const gmacs = new Map<number, Uint8Array>()
  const proved = new Set<number>()
  let [ended, failed] = [false, false]
  const end = () => {
    ended = true
    proof?.wipe()
    wipe(digestKey, ...gmacs.values())
  }
  const begun = () => {
    if (ended) throw new TypeError('this cipher has ended; make a new one')
    proof ??= createOutputProof(key, iv)
    return proof
  }
  return {
    get bytes() {
      return encryptor.bytes
    },
    update: encryptor.update,
    updateInto: encryptor.updateInto,
    updateEach: encryptor.updateEach,
    async seal(owner) {
      const [wrapped, wrappedDigestKey] = await Promise.all([
        wrapFileKey(new FileKey(key, iv, NO_TAG), owner),
        wrapFileKey(new FileKey(digestKey, NO_IV, NO_TAG), owner),
      ])
      return { fileKey: wrapped, digestKey: wrappedDigestKey }
    },
    absorb: (ciphertext) => begun().absorb(ciphertext),
    digest(partNumber, ciphertext) {
      const parts = begun()
      if (!(Number.isInteger(partNumber) && partNumber >= 1 && partNumber < 2 ** 32))
        throw new RangeError('part number')
      if (failed) throw mismatch()
      if (partNumber !== proved.size + 1) throw new RangeError('parts come in order')
      if (ciphertext !== undefined) parts.absorb(ciphertext)
      const gmac = parts.endPart()
      gmacs.set(partNumber, gmac)
      const nonce = new Uint8Array(12)
      new DataView(nonce.buffer).setUint32(8, partNumber)
      const digest = primitives.gcmEncrypt(digestKey, nonce, gmac).final()
      const expected = sent.get(partNumber)
      // The digest of another content under this nonce must stay in here: two of them would give the digest key away.
      failed ||= expected !== undefined && !equal(digest, expected)
      if (failed) throw mismatch()
      proved.add(partNumber)
      return digest
    },
    confirm(partNumber, ciphertext) {
      const gmac = gmacs.get(partNumber)
      if (ended || gmac === undefined) throw new TypeError('there is no digest of this part')
      if (!equal(proof!.of(ciphertext), gmac)) throw outputWrong()
      gmacs.delete(partNumber)
    },
    final() {
      if (failed || [...sent.keys()].some((number) => !proved.has(number))) throw mismatch()
      if (ended) throw new TypeError('this cipher has ended; make a new one')
      const fileKey = encryptor.final()
      const isProven = !isChecked || (proof ?? createOutputProof(key, iv)).proves(fileKey.tag)
      end()
      if (isProven) return fileKey
      fileKey.wipe()
      throw outputWrong()
    },
    handOver() {
      if (ended || encryptor.bytes > 0 || proved.size > 0) throw new TypeError('this cipher has begun')
      const secrets = { key: copy(key), iv: copy(iv), digestKey: copy(digestKey), sent }
      end()
      encryptor.abandon()
      return secrets
    },
    abandon() {
      end()
      encryptor.abandon()
    },
  }
}
