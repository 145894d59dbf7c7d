/**
 * What can go wrong on the page, as a closed list of codes. What is said about each is in words.ts.
 * @module
 */

export type FailureCode =
  | 'ANSWER'
  | 'BUG'
  | 'CANCELLED'
  | 'CHANGED'
  | 'ELSEWHERE'
  | 'FULL'
  | 'GONE'
  | 'KEY_INVALID'
  | 'LOCKED'
  | 'MEMBERS_CHANGED'
  | 'NAME_REFUSED'
  | 'NOT_READY'
  | 'NO_RECIPIENTS'
  | 'NO_SPACE'
  | 'PASSWORD_WRONG'
  | 'PLAIN_REFUSED'
  | 'QUOTA'
  | 'REPLACED'
  | 'SERVER'
  | 'SETUP'
  | 'TAMPERED'
  | 'TOO_LARGE'
  | 'UNCERTAIN'
  | 'UNREACHABLE'
  | 'USED_UP'

export interface FailureOptions {
  /** Whether the same may work a moment later. */
  readonly isPassing?: boolean
  readonly retryAfterMs?: number | undefined
  readonly status?: number
  /** The server's own number. */
  readonly errorCode?: number | undefined
  readonly cause?: unknown
}

/** An expected failure. */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly code: FailureCode
  readonly isPassing: boolean
  readonly retryAfterMs: number | undefined
  readonly status: number | undefined
  readonly errorCode: number | undefined

  constructor(code: FailureCode, message: string, options: FailureOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.isPassing = options.isPassing ?? false
    this.retryAfterMs = options.retryAfterMs
    this.status = options.status
    this.errorCode = options.errorCode
  }
}

/** A failure as it goes from the worker to the page. */
export interface PlainFailure {
  readonly code: FailureCode
  readonly message: string
  readonly retryAfterMs: number | undefined
}

const CRYPTO_CODES: Readonly<Record<string, FailureCode>> = {
  CONTENT_TAMPERED: 'TAMPERED',
  FILE_TOO_LARGE: 'TOO_LARGE',
  KEY_PASSWORD_WRONG: 'PASSWORD_WRONG',
  PASSWORD_EMPTY: 'PASSWORD_WRONG',
  PASSWORD_INVALID: 'PASSWORD_WRONG',
  RESUME_MISMATCH: 'CHANGED',
}

/** Whatever was thrown, as one of ours. */
export function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error
  const { name, message, code } = error as { name?: unknown; message?: unknown; code?: unknown }
  const text = typeof message === 'string' ? message : 'Unknown error'
  if (name === 'AbortError') return new Failure('CANCELLED', 'Cancelled')
  if (name === 'QuotaExceededError') return new Failure('NO_SPACE', 'The browser has no space left', { cause: error })
  if (name === 'NotReadableError' || name === 'NotFoundError') return new Failure('CHANGED', text, { cause: error })
  // Key material that a server sent: whatever is wrong with it, it opens nothing.
  if (name === 'SyncError') return new Failure(CRYPTO_CODES[String(code)] ?? 'KEY_INVALID', text, { cause: error })
  return new Failure('BUG', text, { cause: error })
}
