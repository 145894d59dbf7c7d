/**
 * Reading a file so that what was read is one state of it: opened once without following links, read only through that
 * handle, and compared with itself at the end. A file that changed meanwhile is not content, it is an error to try again. Of one that
 * never stops growing, what was there when it was opened is content if it reads the same twice.
 * @module
 */
import { createHash } from 'node:crypto'
import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync, readSync } from 'node:fs'
import { type FileHandle, lstat, open } from 'node:fs/promises'
import { localError, SyncError } from '../errors.ts'

// O_NONBLOCK: opening a FIFO that took the file's place must not hang.
const FLAGS = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0)

const changed = (path: string) =>
  new SyncError('changed', 'SOURCE_CHANGED', `The file changed while it was read: ${path}`, {
    hint: 'Run again when the program that writes it is done.',
  })

const notAFile = (path: string) =>
  new SyncError('usage', 'NOT_A_FILE', `Not a regular file: ${path}`, { hint: 'Only regular files have content.' })

const same = (a: BigIntStats, b: BigIntStats) =>
  a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs && a.ino === b.ino && a.dev === b.dev

/** What tells one state of a file from another. Nanoseconds and numbers as decimal text: they exceed what a number holds. */
export interface SourceIdentity {
  readonly size: number
  readonly mtimeNs: string
  readonly ctimeNs: string
  readonly dev: string
  readonly ino: string
}

const identityOf = ({ size, mtimeNs, ctimeNs, dev, ino }: BigIntStats): SourceIdentity => ({
  size: Number(size),
  mtimeNs: String(mtimeNs),
  ctimeNs: String(ctimeNs),
  dev: String(dev),
  ino: String(ino),
})

export interface StableReader {
  /** For `readAt` in another thread, while it is open here. */
  readonly fd: number
  /** The state that was opened. */
  readonly identity: SourceIdentity
  readonly size: number
  /** Milliseconds since the epoch. */
  readonly modifiedAt: number
  /** Fills `target` from `position`; fewer bytes than asked for is an error. */
  read(target: Uint8Array, position: number): Promise<void>
  /** Hands all `size` bytes to `take`, up to a mebibyte at a time, in a buffer that is used again. */
  each(take: (piece: Uint8Array) => void, signal: AbortSignal): Promise<void>
  /**
   * Throws unless handle and path still show what was opened.
   *
   * @throws {SyncError} `SOURCE_CHANGED`.
   */
  verify(): Promise<void>
  /**
   * Reads the `size` bytes again, and throws unless they are what was read. What was added behind them does not matter, nor
   * that the file has another name by now.
   *
   * @param sha256 - Of what was read, base64.
   * @returns true when nothing was added or changed at all, as `verify` means it.
   * @throws {SyncError} `SOURCE_CHANGED`.
   */
  verifyPrefix(sha256: string, signal: AbortSignal): Promise<boolean>
  close(): Promise<void>
}

/** Read at once, when everything is read. */
const PIECE_BYTES = 1024 * 1024

/** Opens a regular file; `shown` names it in errors. Errors are of class `local_io`, `usage` or `changed`. */
export async function openStable(path: string, shown: string): Promise<StableReader> {
  let handle: FileHandle
  try {
    handle = await open(path, FLAGS)
  } catch (error) {
    throw localError(error, `read ${shown}`)
  }
  try {
    const before = await handle.stat({ bigint: true })
    if (!before.isFile()) throw notAFile(shown)
    const read = async (target: Uint8Array, position: number) => {
      for (let at = 0; at < target.length; ) {
        const { bytesRead } = await handle.read(target, at, target.length - at, position + at).catch((error) => {
          throw localError(error, `read ${shown}`)
        })
        if (bytesRead === 0) throw changed(shown)
        at += bytesRead
      }
    }
    const size = Number(before.size)
    const each = async (take: (piece: Uint8Array) => void, signal: AbortSignal) => {
      const buffer = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, size))
      for (let at = 0; at < size; at += buffer.length) {
        signal.throwIfAborted()
        const piece = buffer.subarray(0, Math.min(buffer.length, size - at))
        await read(piece, at)
        take(piece)
      }
    }
    const isAsOpened = async () => {
      const [now, there] = [await handle.stat({ bigint: true }), await lstat(path, { bigint: true })]
      return same(before, now) && same(before, there)
    }
    return {
      fd: handle.fd,
      identity: identityOf(before),
      size,
      modifiedAt: Number(before.mtimeNs / 1_000_000n),
      read,
      each,
      async verify() {
        if (!(await isAsOpened().catch(() => false))) throw changed(shown)
      },
      async verifyPrefix(sha256, signal) {
        const hash = createHash('sha256')
        await each((piece) => hash.update(piece), signal)
        if (hash.digest('base64') !== sha256) throw changed(shown)
        return isAsOpened().catch(() => false)
      },
      // Nothing was written: what a disk says of closing it changes nothing.
      close: () => handle.close().catch(() => {}),
    }
  } catch (error) {
    await handle.close().catch(() => {})
    throw localError(error, `read ${shown}`)
  }
}

/** As `read` of a `StableReader` that another thread has opened; waits for the disk. */
export function readAt(fd: number, target: Uint8Array, position: number, shown: string): void {
  try {
    for (let at = 0; at < target.length; ) {
      const count = readSync(fd, target, at, target.length - at, position + at)
      if (count === 0) throw changed(shown)
      at += count
    }
  } catch (error) {
    throw localError(error, `read ${shown}`)
  }
}

/** Files up to this size are read in one go, synchronously: promises cost more than the disk here. */
export const SMALL_FILE = 256 * 1024

/**
 * Reads a small file whole.
 *
 * @returns `undefined` when it is larger than `SMALL_FILE`.
 */
export function readSmallStable(
  path: string,
  shown: string,
): { bytes: Uint8Array; modifiedAt: number; identity: SourceIdentity } | undefined {
  let fd: number | undefined
  try {
    fd = openSync(path, FLAGS)
    const before = fstatSync(fd, { bigint: true })
    if (!before.isFile()) throw notAFile(shown)
    if (before.size > SMALL_FILE) return undefined
    // One byte more shows a file that has grown.
    const bytes = Buffer.allocUnsafeSlow(Number(before.size) + 1)
    let length = 0
    for (let count = -1; count !== 0 && length < bytes.length; length += count) {
      count = readSync(fd, bytes, length, bytes.length - length, length)
    }
    const after = fstatSync(fd, { bigint: true })
    const there = lstatSync(path, { bigint: true })
    if (BigInt(length) !== before.size || !same(before, after) || !same(before, there)) throw changed(shown)
    const modifiedAt = Number(before.mtimeNs / 1_000_000n)
    return { bytes: bytes.subarray(0, length), modifiedAt, identity: identityOf(before) }
  } catch (error) {
    throw localError(error, `read ${shown}`)
  } finally {
    try {
      if (fd !== undefined) closeSync(fd)
    } catch {
      // As above.
    }
  }
}
