/**
 * The project's error class and the helpers to make the errors that several layers share. Every code names one cause; the
 * exit code follows from `class` by the table in cli/exit-codes.ts.
 * @module
 */
import { SyncError } from '../crypto/errors.ts'

export { type ErrorClass, SyncError, type SyncErrorOptions } from '../crypto/errors.ts'

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
})

/** System error code (`ENOENT`, …) of anything thrown, if it has one. */
export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
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
  return new SyncError('local_io', `LOCAL_${code}`, `Cannot ${what} (${code})`, {
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

/** Anything thrown, as one of ours; what is not expected becomes class `internal`. */
export function toSyncError(error: unknown): SyncError {
  if (error instanceof SyncError) return error
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof Error && error.name === 'TimeoutError') {
    return new SyncError('network', 'TIMEOUT', 'It took too long', { retryable: true, cause: error })
  }
  if (error instanceof Error && error.name === 'AbortError') {
    return new SyncError('cancelled', 'CANCELLED', 'The operation was cancelled', { cause: error })
  }
  return new SyncError('internal', 'INTERNAL', `Unexpected: ${message}`, {
    hint: 'This is a defect of this program; please report it with the output of --verbose.',
    cause: error,
  })
}
