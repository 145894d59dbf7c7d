/**
 * The project's error class and the helpers to make the errors that several layers share. Every code names one cause; the
 * exit code follows from `class` by the table in cli/exit-codes.ts.
 * @module
 */
import { SyncError } from '../crypto/errors.ts'

export {
  type ErrorClass,
  type ServerAnswer,
  SyncError,
  type SyncErrorCode,
  type SyncErrorOptions,
} from '../crypto/errors.ts'

const LOCAL_HINTS: Readonly<Record<string, string>> = Object.freeze({
  ENOENT: 'It does not exist (any more).',
  EACCES: 'Permission to it is missing.',
  EPERM: 'Permission to it is missing.',
  ENOSPC: 'The disk is full; free some space and run again.',
  EDQUOT: 'The disk quota is used up; free some space and run again.',
  EROFS: 'The file system is read-only.',
  ENOTDIR: 'A part of the path is not a directory.',
  EISDIR: 'It is a directory.',
  ELOOP: 'A symbolic link stands in the way.',
  ENAMETOOLONG: 'The name is too long for this file system.',
  EIO: 'The disk does not work as it should; look at what the system says about it.',
  EFBIG: 'The file is too large for this file system.',
  EMFILE: 'Too many files are open; raise the limit (ulimit -n), or use fewer --jobs.',
  ENFILE: 'Too many files are open on this machine.',
  ESTALE: 'The network file system has lost it; run again.',
})

/** What libuv has no name for, by number. */
const UNNAMED: Readonly<Record<string, Readonly<Record<number, string>>>> = Object.freeze({
  linux: { 116: 'ESTALE', 117: 'EUCLEAN', 122: 'EDQUOT', 123: 'ENOMEDIUM' },
  darwin: { 69: 'EDQUOT', 70: 'ESTALE' },
})

/** System error code (`ENOENT`, …) of anything thrown, if it has one; `E117` for numbers without a name. */
export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (typeof code !== 'string') return undefined
  if (code !== 'UNKNOWN' && !code.startsWith('Unknown system error')) return code
  const number = Math.abs(Number((error as NodeJS.ErrnoException).errno ?? code.replace(/\D/g, '')))
  return UNNAMED[process.platform]?.[number] ?? `E${number}`
}

/**
 * Wraps a failed disk operation: class `local_io`, code `LOCAL_` plus the system's code (`LOCAL_ENOSPC`). Aborts and our own
 * errors pass through unwrapped.
 *
 * @param what - What was being done, without the path's secrets: `read photos/a.jpg`.
 */
export function localError(error: unknown, what: string): unknown {
  const code = systemCode(error)
  if (error instanceof SyncError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) return error
  const hint = LOCAL_HINTS[code]
  // Directories in use go by numbers, which tell nobody anything; see local/safe-tree.ts.
  const shown = what.replace(/\/proc\/self\/fd\/\d+\//g, '')
  return new SyncError('local_io', `LOCAL_${code as `E${string}`}`, `Cannot ${shown} (${code})`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  })
}

/** Codes after which nothing more can be written to this disk. */
export const isDiskFatal = (error: unknown): boolean =>
  error instanceof SyncError && /^LOCAL_(ENOSPC|EDQUOT|EROFS)$/.test(error.code)

/** The error of a cancelled operation: `signal.reason` when that is an error, else one of class `cancelled`. */
export function cancelled(signal: AbortSignal): Error {
  return signal.reason instanceof Error
    ? signal.reason
    : new SyncError('cancelled', 'CANCELLED', 'The operation was cancelled')
}

/** System calls of Node's `fs`, as its errors name them; reading and writing are those of sockets, too. */
const FILE_CALLS =
  /^(?:access|open|close|f?stat|lstat|f(?:data)?sync|ftruncate|rename|link|symlink|readlink|unlink|rmdir|rm|mkdir|mkdtemp|scandir|opendir|f?chmod|[fl]?utime|copyfile|realpath|statfs)$/
const DISK_CODES = /^E(?:IO|NOSPC|DQUOT|ROFS|FBIG|STALE|ISDIR)$/

/** The name of a failed call to the file system; `undefined` for other errors. */
function fileCall(error: unknown): string | undefined {
  const code = systemCode(error)
  const { syscall, path } = error as NodeJS.ErrnoException
  if (code === undefined || syscall === undefined) return undefined
  const isOfFile = /^(?:read|write)$/.test(syscall)
    ? path !== undefined || DISK_CODES.test(code)
    : FILE_CALLS.test(syscall)
  return isOfFile ? syscall : undefined
}

/**
 * Anything thrown, as one of ours; what is not expected becomes class `internal`. A disk may fail anywhere, and that is no defect of
 * ours: `local_io`, though whoever made the call could have said better what for.
 */
export function toSyncError(error: unknown): SyncError {
  if (error instanceof SyncError) return error
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof Error && error.name === 'TimeoutError') {
    return new SyncError('network', 'TIMEOUT', 'It took too long', { retryable: true, cause: error })
  }
  if (error instanceof Error && error.name === 'AbortError') {
    return new SyncError('cancelled', 'CANCELLED', 'The operation was cancelled', { cause: error })
  }
  const call = fileCall(error)
  if (call !== undefined) {
    const { path } = error as NodeJS.ErrnoException
    return localError(error, `${call} ${path ?? 'a file'}`) as SyncError
  }
  return new SyncError('internal', 'INTERNAL', `Unexpected: ${message}`, {
    hint: 'This is a defect of this program; please report it with the output of --verbose.',
    cause: error,
  })
}
