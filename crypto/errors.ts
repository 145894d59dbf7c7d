/**
 * The one error class of the project and the closed list of its classes. A code names one cause; the functions that raise it
 * say so in their docstrings.
 * @module
 */

import type { SyncErrorCode } from './error-codes.ts'

export type { SyncErrorCode } from './error-codes.ts'

/** What a caller can do about an error. The exit code of the command line follows from it. */
export type ErrorClass =
  | 'usage'
  | 'auth'
  | 'key'
  | 'permission'
  | 'not_found'
  | 'conflict'
  | 'quota'
  | 'rate_limit'
  | 'server'
  | 'network'
  | 'tls'
  | 'integrity'
  | 'local_io'
  | 'changed'
  | 'limit'
  | 'safety'
  | 'cancelled'
  | 'internal'

export interface SyncErrorOptions {
  /** What to do about it: one sentence for a person. */
  hint?: string
  retryable?: boolean
  cause?: unknown
  /** HTTP status of the answer that caused this, if one did. */
  status?: number
  /** DRACOON `errorCode` of that answer (a negative integer). */
  errorCode?: number
  /** Milliseconds the server asked to wait before the next try. */
  retryAfterMs?: number
}

/** Every expected failure. `message` says what happened and never holds a secret; `code` is stable. */
export class SyncError extends Error {
  override readonly name = 'SyncError'
  readonly class: ErrorClass
  readonly code: SyncErrorCode
  readonly hint: string | undefined
  readonly retryable: boolean
  readonly status: number | undefined
  readonly errorCode: number | undefined
  readonly retryAfterMs: number | undefined

  constructor(kind: ErrorClass, code: SyncErrorCode, message: string, options: SyncErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.class = kind
    this.code = code
    this.hint = options.hint
    this.retryable = options.retryable ?? false
    this.status = options.status
    this.errorCode = options.errorCode
    this.retryAfterMs = options.retryAfterMs
  }
}
