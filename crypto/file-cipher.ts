/**
 * File content: one AES-256-GCM stream per file, no additional data, ciphertext as long as the plaintext; the tag travels
 * in the file key (NIST SP 800-38D; RFC 5116). Encryptors make their own key, work once, and end with the file key.
 * @module
 */
import { primitives } from '#primitives'
import { equal, wipe } from './bytes.ts'
import { SyncError } from './errors.ts'
import { assertUsable, FileKey } from './file-key.ts'
import type { GcmDecryptStream, GcmEncryptStream } from './primitives/types.ts'

/** Longest content under one key and 12-byte IV: 2^39 − 256 bits (NIST SP 800-38D §5.2.1.1). */
export const MAX_FILE_BYTES = 68_719_476_704

/**
 * Refuses content that the format cannot hold; call it before the first request.
 *
 * @throws {SyncError} `FILE_TOO_LARGE` above 68,719,476,704 bytes.
 */
export function checkFileSize(bytes: number): void {
  if (!(bytes <= MAX_FILE_BYTES)) {
    throw new SyncError('limit', 'FILE_TOO_LARGE', `A file of ${bytes} bytes is over the format's limit`, {
      hint: `At most ${MAX_FILE_BYTES} bytes (64 GiB − 32) can be encrypted under one key; split the file.`,
    })
  }
}

/** Counts bytes, refuses the limit and use after the end, all before a byte reaches the cipher. */
class Meter {
  bytes = 0
  ended = false

  take(chunk: Uint8Array, target?: Uint8Array, offset = 0): void {
    if (this.ended) throw new TypeError('this cipher has ended; make a new one')
    if (target !== undefined && !(offset >= 0 && offset + chunk.length <= target.length)) {
      throw new RangeError('the chunk does not fit into the target')
    }
    checkFileSize(this.bytes + chunk.length)
    this.bytes += chunk.length
  }

  end(): void {
    if (this.ended) throw new TypeError('this cipher has ended; make a new one')
    this.ended = true
  }
}

/** Encrypts one content, from its first byte to its last; single use. */
export interface FileEncryptor {
  /** Plaintext bytes so far. */
  readonly bytes: number
  /** Encrypts a chunk of any length; the result belongs to the caller. */
  update(chunk: Uint8Array): Uint8Array
  /** Encrypts `chunk` into `target` at `offset` without leaving garbage; they must not overlap. */
  updateInto(chunk: Uint8Array, target: Uint8Array, offset: number): void
  /**
   * Encrypts a chunk of any length piece by piece, without leaving garbage: the quickest form. `use` gets each piece with its
   * offset in the chunk, and must be done with it when it returns: the memory is given back then.
   */
  updateEach(chunk: Uint8Array, use: (piece: Uint8Array, offset: number) => void): void
  /** Ends the content; returns the key that opens it. An encryptor works once. */
  final(): FileKey
  /** Ends an attempt that was given up and wipes its key. */
  abandon(): void
}

/** For output that nobody may see. */
const drop = () => {}

/** @internal */
export const outputWrong = () =>
  new SyncError('integrity', 'OUTPUT_CHECK_FAILED', 'What was encrypted does not decrypt to what was read', {
    hint: 'Nothing was stored. Memory or processor may be faulty; test the machine.',
  })

/**
 * How an encryptor checks its own output, so that bad memory or a bug cannot store an unreadable file. `true`: it decrypts all of
 * it again, which about doubles the processor time. With the size of the whole content, in bytes: it decrypts the first piece, the last one and one in
 * 64, chosen at random; that all of it is what the tag is of has to be proven besides, see output-proof.ts.
 */
export type OutputCheck = boolean | { readonly size: number }

interface PieceCheck {
  /** @param at - Of the first byte in the content. */
  update(plain: Uint8Array, cipher: Uint8Array, at: number): void
  final(tag: Uint8Array): void
}

const SAMPLED = 64

/** Decrypts some pieces, each by itself: GCM encrypts as counter mode does, from IV ‖ 2 on (SP 800-38D §7.1). */
function createSamples(key: Uint8Array, iv: Uint8Array, size: number): PieceCheck {
  const counter = new Uint8Array(16)
  counter.set(iv)
  let count = 0
  let chosen = 0
  return {
    update(plain, cipher, at) {
      if (count % SAMPLED === 0) chosen = primitives.randomBytes(1)[0]! % SAMPLED
      const isSample = count === 0 || count % SAMPLED === chosen || at + plain.length === size
      count++
      if (!isSample) return
      const within = at % 16
      const padded = new Uint8Array(within + cipher.length)
      padded.set(cipher, within)
      new DataView(counter.buffer).setUint32(12, 2 + Math.floor(at / 16))
      if (!primitives.sameBytes(primitives.ctr(key, counter, padded).subarray(within), plain)) throw outputWrong()
    },
    final() {},
  }
}

/** Decrypts what an encryptor made with a second, independent cipher object and compares. */
function createFullCheck(key: Uint8Array, iv: Uint8Array): PieceCheck {
  const gcm = primitives.gcmDecrypt(key, iv)
  return {
    update(plain: Uint8Array, cipher: Uint8Array): void {
      gcm.updateEach(cipher, (piece, at) => {
        if (!primitives.sameBytes(piece, plain.subarray(at, at + piece.length))) throw outputWrong()
      })
    },
    final(tag: Uint8Array): void {
      if (!gcm.final(tag)) throw outputWrong()
    },
  }
}

function createCheck(key: Uint8Array, iv: Uint8Array, how: OutputCheck): PieceCheck | undefined {
  if (how === false) return undefined
  return how === true ? createFullCheck(key, iv) : createSamples(key, iv, how.size)
}

/**
 * Starts encrypting one file under a fresh key and IV from the operating system.
 *
 * @param options.checkOutput - Decrypt all output with a second cipher object before it counts; see `OutputCheck`. Failing it
 * throws `OUTPUT_CHECK_FAILED`.
 */
export const createFileEncryptor = (options: { checkOutput?: boolean } = {}): FileEncryptor =>
  encryptUnder(primitives.randomBytes(32), primitives.randomBytes(12), options)

/**
 * Encrypts under a given key (32 bytes) and IV (12 bytes). Not for callers outside this directory: two contents under one key
 * and IV give both away. Fresh ones come from `createFileEncryptor`, used ones only through resumable.ts.
 *
 * @internal
 */
export function encryptUnder(
  key: Uint8Array,
  iv: Uint8Array,
  { checkOutput = false }: { checkOutput?: OutputCheck | undefined },
): FileEncryptor {
  const gcm = primitives.gcmEncrypt(key, iv)
  const check = createCheck(key, iv, checkOutput)
  const meter = new Meter()
  /** The check works piece by piece too, and so finds its bytes in the processor's cache. */
  const checkPiece = (chunk: Uint8Array, cipher: Uint8Array, at: number) =>
    check?.update(chunk.subarray(at, at + cipher.length), cipher, meter.bytes - chunk.length + at)
  return {
    get bytes() {
      return meter.bytes
    },
    update(chunk) {
      meter.take(chunk)
      const out = gcm.update(chunk)
      checkPiece(chunk, out, 0)
      return out
    },
    updateInto(chunk, target, offset) {
      meter.take(chunk, target, offset)
      gcm.updateEach(chunk, (piece, at) => {
        target.set(piece, offset + at)
        // What is checked is what stands there.
        checkPiece(chunk, target.subarray(offset + at, offset + at + piece.length), at)
      })
    },
    updateEach(chunk, use) {
      meter.take(chunk)
      gcm.updateEach(chunk, (piece, at) => {
        checkPiece(chunk, piece, at)
        use(piece, at)
      })
    },
    final() {
      meter.end()
      const tag = gcm.final()
      check?.final(tag)
      return new FileKey(key, iv, tag)
    },
    abandon() {
      meter.ended = true
      wipe(key)
    },
  }
}

/** Decrypts one content, from its first byte to its last. */
export interface FileDecryptor {
  /** Bytes so far, replayed ones included. */
  readonly bytes: number
  /** Decrypts a chunk of any length. What it returns is UNVERIFIED until `final()` has returned. */
  update(chunk: Uint8Array): Uint8Array
  /** Decrypts `chunk` into `target` at `offset` without leaving garbage; unverified as above; they must not overlap. */
  updateInto(chunk: Uint8Array, target: Uint8Array, offset: number): void
  /** Decrypts piece by piece, as the encryptor's `updateEach` does; unverified as above. */
  updateEach(chunk: Uint8Array, use: (piece: Uint8Array, offset: number) => void): void
  /**
   * Takes in plaintext that an interrupted run already decrypted and stored, in place of the ciphertext it came from, so that
   * the one tag still covers everything: encrypting it again gives that ciphertext. It must begin at byte 0, before any
   * `update`; what was altered on disk meanwhile fails `final()` like altered ciphertext.
   */
  replay(plaintext: Uint8Array): void
  /**
   * Ends the content and checks the tag.
   *
   * @throws {SyncError} `CONTENT_TAMPERED`: nothing that came out of `update` may be used.
   */
  final(): void
}

/** @internal */
export const tampered = () =>
  new SyncError('integrity', 'CONTENT_TAMPERED', 'The content does not match its authentication tag', {
    hint: 'It was changed, cut or swapped on the server or on the way. Nothing of it was kept.',
  })

/** Starts decrypting one file; also right for an empty one, whose tag is as real as any. */
export function createFileDecryptor(fileKey: FileKey): FileDecryptor {
  assertUsable(fileKey)
  const gcm: GcmDecryptStream = primitives.gcmDecrypt(fileKey.key, fileKey.iv)
  const meter = new Meter()
  let again: GcmEncryptStream | undefined
  let updated = false
  return {
    get bytes() {
      return meter.bytes
    },
    update(chunk) {
      meter.take(chunk)
      updated = true
      return gcm.update(chunk)
    },
    updateInto(chunk, target, offset) {
      meter.take(chunk, target, offset)
      updated = true
      gcm.updateEach(chunk, (piece, at) => target.set(piece, offset + at))
    },
    updateEach(chunk, use) {
      meter.take(chunk)
      updated = true
      gcm.updateEach(chunk, use)
    },
    replay(plaintext) {
      if (updated) throw new TypeError('replay comes before update')
      meter.take(plaintext)
      again ??= primitives.gcmEncrypt(fileKey.key, fileKey.iv)
      again.updateEach(plaintext, (ciphertext) => gcm.updateEach(ciphertext, drop))
    },
    final() {
      meter.end()
      if (!gcm.final(fileKey.tag)) throw tampered()
    },
  }
}

/** Checks the tag of a ciphertext without giving the plaintext away. */
export interface ContentVerifier {
  /** Takes a chunk of ciphertext of any length. */
  update(ciphertext: Uint8Array): void
  /**
   * Ends the content and checks the tag.
   *
   * @throws {SyncError} `CONTENT_TAMPERED`.
   */
  final(): void
}

/** Decrypts only to verify: tells whether stored ciphertext is what a file key was made for, and gives no plaintext out. */
export function createContentVerifier(fileKey: FileKey): ContentVerifier {
  const decryptor = createFileDecryptor(fileKey)
  return {
    update: (ciphertext) => decryptor.updateEach(ciphertext, drop),
    final: () => decryptor.final(),
  }
}

/** Compares plaintext with what was encrypted, by computing the tag again. */
export interface ContentCheck {
  update(plaintext: Uint8Array): void
  /** True when exactly this content was encrypted under the file key. */
  matches(): boolean
}

/**
 * Tells whether plaintext is what a file key was made for, by recomputing the tag. The keystream this makes is dropped at
 * once and never leaves: sent, it would be a second text under one key and IV.
 */
export function createContentCheck(fileKey: FileKey): ContentCheck {
  assertUsable(fileKey)
  const gcm: GcmEncryptStream = primitives.gcmEncrypt(fileKey.key, fileKey.iv)
  const meter = new Meter()
  return {
    update(plaintext) {
      meter.take(plaintext)
      gcm.updateEach(plaintext, drop)
    },
    matches() {
      meter.end()
      return equal(gcm.final(), fileKey.tag)
    },
  }
}

/** Encrypts a small content in one go. */
export function encryptBytes(plaintext: Uint8Array): { ciphertext: Uint8Array; fileKey: FileKey } {
  const encryptor = createFileEncryptor()
  const ciphertext = encryptor.update(plaintext)
  return { ciphertext, fileKey: encryptor.final() }
}

/**
 * Decrypts and checks a small content in one go.
 *
 * @throws {SyncError} `CONTENT_TAMPERED`.
 */
export function decryptBytes(ciphertext: Uint8Array, fileKey: FileKey): Uint8Array {
  const decryptor = createFileDecryptor(fileKey)
  const plaintext = decryptor.update(ciphertext)
  try {
    decryptor.final()
  } catch (error) {
    wipe(plaintext)
    throw error
  }
  return plaintext
}
