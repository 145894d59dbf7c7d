/** Lists that people and programs write: paths, rules. A byte order mark belongs to no line. @module */
import { closeSync, openSync, readSync } from 'node:fs'
import { localError, SyncError, systemCode } from '../errors.ts'

const MAX_BYTES = 64 * 1024 * 1024
const PIECE = 64 * 1024
/** Standard input that is shared with a terminal or a socket may have nothing to read yet. */
const PAUSE_MS = 10

/**
 * Reads a list whole.
 *
 * @param path - `-` for standard input; may be a pipe.
 * @throws {SyncError} `LIST_TOO_LONG` (class `limit`) above 64 MiB; of class `local_io`.
 */
export function readList(path: string): Buffer {
  const pieces: Buffer[] = []
  let length = 0
  let fd = 0
  try {
    if (path !== '-') fd = openSync(path, 'r')
    for (;;) {
      const piece = Buffer.alloc(PIECE)
      const count = readOrWait(fd, piece)
      if (count === 0) return Buffer.concat(pieces, length)
      length += count
      pieces.push(piece.subarray(0, count))
      if (length > MAX_BYTES) throw new SyncError('limit', 'LIST_TOO_LONG', `${path} is longer than 64 MiB`)
    }
  } catch (error) {
    throw localError(error, `read ${path}`)
  } finally {
    if (fd !== 0) closeSync(fd)
  }
}

function readOrWait(fd: number, piece: Buffer): number {
  for (;;) {
    try {
      return readSync(fd, piece)
    } catch (error) {
      if (systemCode(error) === 'EOF') return 0
      if (systemCode(error) !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
    }
  }
}

const notText = (name: string, hint: string) =>
  new SyncError('usage', 'LIST_NOT_TEXT', `${name} is no text in UTF-8`, { hint })

/**
 * The lines of a list of rules.
 *
 * @throws {SyncError} `LIST_NOT_TEXT` (class `usage`): what cannot be read right must not let anything through.
 */
export function rulesOf(bytes: Uint8Array, name: string): string[] {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw notText(name, 'Save it in UTF-8.')
  }
  if (text.includes('\0')) throw notText(name, 'Save it in UTF-8.')
  return text.split(/\r?\n/)
}

/**
 * The paths of a list: one a line, or with NUL bytes behind them as `find -print0` makes it. Empty ones are passed over.
 *
 * @throws {SyncError} `LIST_NOT_TEXT` (class `usage`) for NUL bytes in lines.
 */
export function pathsOf(bytes: Uint8Array, name: string, isNulTerminated: boolean): string[] {
  // A name that is not UTF-8 is nowhere, and that is told.
  const text = new TextDecoder('utf-8').decode(bytes)
  if (!isNulTerminated && text.includes('\0')) {
    throw notText(name, 'It has NUL bytes: use --files-from0 for lists of find -print0, or save it in UTF-8.')
  }
  return text.split(isNulTerminated ? '\0' : /\r?\n/).filter((path) => path !== '')
}
