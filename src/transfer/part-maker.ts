/**
 * Where parts come from: one file, read and encrypted in order into buffers that the caller owns. Here on the main thread; for
 * large files there is encryption-thread.ts.
 * @module
 */
import { createHash } from 'node:crypto'
import type { FileEncryptor, FileKey, ResumableEncryptor } from '../../crypto/index.ts'
import type { StableReader } from '../local/stable-read.ts'

export interface PartMaker {
  /**
   * Fills `target` with what is sent of the next `target.length` bytes. Calls need not wait for each other, but come in order.
   *
   * @param number - Of the part, from 1.
   * @param offset - Of its first byte in the file.
   * @returns its digest where there are digests; see `ResumableEncryptor`.
   */
  make(number: number, offset: number, target: Uint8Array): Promise<Uint8Array | undefined>
  /**
   * Looks at the memory of an encrypted part once more, when it has been sent.
   *
   * @throws {SyncError} `OUTPUT_CHECK_FAILED` when it is not what `make` left there.
   */
  confirm(number: number, target: Uint8Array): Promise<void>
  /** After the last part: ends the content; returns the key that opens it, where there is one. */
  end(): Promise<FileKey | undefined>
  /** SHA-256 of the plaintext, base64, where it was asked for; there after `end`. */
  sha256(): string | undefined
  /** Gives up, and wipes the key. */
  abandon(): void
}

const READ_BYTES = 256 * 1024

/**
 * @param encryptor - Absent for plain content.
 * @param isHashed - Make the SHA-256 of the plaintext, too.
 */
export function createPartMaker(
  reader: StableReader,
  encryptor: FileEncryptor | ResumableEncryptor | undefined,
  isHashed = false,
): PartMaker {
  const hash = isHashed ? createHash('sha256') : undefined
  let sha256: string | undefined
  const buffers = encryptor && [0, 1].map(() => Buffer.allocUnsafeSlow(Math.min(READ_BYTES, reader.size)))
  let last: Promise<unknown> = Promise.resolve()

  /** Reads into one buffer while the other is encrypted. */
  async function encrypt(
    cipher: FileEncryptor | ResumableEncryptor,
    target: Uint8Array,
    offset: number,
  ): Promise<void> {
    // The cipher has one order; another one would be another content under the same key.
    if (cipher.bytes !== offset) throw new Error('parts out of order')
    const read = (at: number) => {
      const piece = buffers!.reverse()[0]!.subarray(0, Math.min(READ_BYTES, target.length - at))
      const filled = reader.read(piece, offset + at).then(() => piece)
      filled.catch(() => {}) // reported when awaited below
      return filled
    }
    let ahead: Promise<Uint8Array> | undefined
    try {
      for (let at = 0; at < target.length; ) {
        const piece = await (ahead ?? read(at))
        const next = at + piece.length
        ahead = next < target.length ? read(next) : undefined
        hash?.update(piece)
        cipher.updateInto(piece, target, at)
        if ('absorb' in cipher) cipher.absorb(target.subarray(at, next))
        at = next
      }
    } finally {
      await ahead?.catch(() => {}) // a read must not fill a buffer after the file is closed
    }
  }

  return {
    make(number, offset, target) {
      const made = last.then(async () => {
        if (encryptor === undefined) {
          await reader.read(target, offset)
          hash?.update(target)
          return undefined
        }
        await encrypt(encryptor, target, offset)
        return 'digest' in encryptor ? encryptor.digest(number) : undefined
      })
      // What comes after a failure fails as well.
      last = made
      return made
    },
    async confirm(number, target) {
      if (encryptor !== undefined && 'confirm' in encryptor) encryptor.confirm(number, target)
    },
    async end() {
      sha256 = hash?.digest('base64')
      return encryptor?.final()
    },
    sha256: () => sha256,
    abandon: () => encryptor?.abandon(),
  }
}
