/**
 * A file that is being decrypted into, step by step and in order: what an earlier run left there, then ciphertext, then the tag.
 * Everything here is synchronous; it runs in a thread of its own, see decryption-thread.ts.
 * @module
 */
import { createHash } from 'node:crypto'
import { readSync, writeSync } from 'node:fs'
import { createFileDecryptor } from '../../crypto/file-cipher.ts'
import type { FileKey } from '../../crypto/file-key.ts'
import { localError, SyncError } from '../errors.ts'

/** What is written is UNVERIFIED until `end` has returned. After a failure every further step fails the same way. */
export interface PlaintextFile {
  /** Takes in the next `bytes` bytes that are there: plaintext of an earlier run, not to be trusted. */
  replay(bytes: number): void
  /** Decrypts and writes what follows. */
  write(chunks: readonly Uint8Array[]): void
  /**
   * Ends the content and checks the tag.
   *
   * @returns SHA-256 of all of it, hex, where it was asked for.
   * @throws {SyncError} `CONTENT_TAMPERED`.
   */
  end(): string | undefined
}

const REPLAY_BYTES = 256 * 1024

/**
 * @param fd - Open for reading and writing.
 * @param shown - For errors.
 * @param fileKey - Absent: the content is not encrypted.
 * @param isHashed - Make the SHA-256 of the plaintext.
 */
export function openPlaintextFile(
  fd: number,
  shown: string,
  fileKey: FileKey | undefined,
  isHashed = false,
): PlaintextFile {
  const decryptor = fileKey && createFileDecryptor(fileKey)
  const hash = isHashed ? createHash('sha256') : undefined
  let position = 0

  function append(piece: Uint8Array): void {
    try {
      for (let at = 0; at < piece.length; ) at += writeSync(fd, piece, at, piece.length - at, position + at)
    } catch (error) {
      throw localError(error, `write ${shown}`)
    }
    hash?.update(piece)
    position += piece.length
  }

  function readAt(piece: Uint8Array, from: number): number {
    try {
      return readSync(fd, piece, 0, piece.length, from)
    } catch (error) {
      throw localError(error, `read what is there of ${shown}`)
    }
  }

  let failure: { readonly error: unknown } | undefined
  function attempt<T>(step: () => T): T {
    if (failure !== undefined) throw failure.error
    try {
      return step()
    } catch (error) {
      failure = { error }
      throw error
    }
  }

  function replay(bytes: number): void {
    const buffer = Buffer.allocUnsafeSlow(Math.min(bytes, REPLAY_BYTES))
    for (const end = position + bytes; position < end; ) {
      const read = readAt(buffer.subarray(0, Math.min(buffer.length, end - position)), position)
      if (read === 0) throw new SyncError('changed', 'PARTIAL_CHANGED', 'The partial file became shorter')
      const piece = buffer.subarray(0, read)
      hash?.update(piece)
      decryptor?.replay(piece)
      position += read
    }
  }

  function write(chunks: readonly Uint8Array[]): void {
    for (const chunk of chunks) {
      if (decryptor === undefined) append(chunk)
      else decryptor.updateEach(chunk, append)
    }
  }

  return {
    replay: (bytes) => attempt(() => replay(bytes)),
    write: (chunks) => attempt(() => write(chunks)),
    end: () =>
      attempt(() => {
        decryptor?.final()
        return hash?.digest('hex')
      }),
  }
}
