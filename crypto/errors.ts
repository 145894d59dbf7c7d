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

/** What an error says besides its class, code and message. */
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

/**
 * What the answer said that caused an error. All texts are the server's: bounded, without secrets and control characters. Field errors,
 * headers and body are kept of the newest 64 answers of a process.
 */
export interface ServerAnswer {
  readonly status: number
  /** The server's own code: a number, or a name such as `invalid_grant`. */
  readonly serverCode: number | string | undefined
  /** Under which the server knows the request; good for asking its operator. */
  readonly requestId: string | undefined
  /** Up to 1,000 characters. */
  readonly serverMessage: string | undefined
  /** Fields that were refused (400, 422); up to 50. */
  readonly fieldErrors: readonly { readonly field: string; readonly message: string }[]
  /** Those that tell something about a failure. */
  readonly headers: Readonly<Record<string, string>>
  /** The beginning of the body, up to 64 KiB. */
  body(): string
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
  /** Hidden from what prints an error as a whole: a server's words are for those who ask for them. */
  #answer: ServerAnswer | undefined

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

  /** Takes note of the answer that caused this, unless another one did. */
  describe(answer: ServerAnswer): this {
    this.#answer ??= answer
    ;(this as { status: number | undefined }).status ??= answer.status
    return this
  }

  /** See `ServerAnswer`. `undefined` where no answer caused this. */
  get serverCode(): number | string | undefined {
    return this.#answer?.serverCode
  }

  get requestId(): string | undefined {
    return this.#answer?.requestId
  }

  get serverMessage(): string | undefined {
    return this.#answer?.serverMessage
  }

  get fieldErrors(): ServerAnswer['fieldErrors'] {
    return this.#answer?.fieldErrors ?? []
  }

  get headers(): ServerAnswer['headers'] {
    return this.#answer?.headers ?? {}
  }

  /** The beginning of the answer's body, redacted; empty where there is none. */
  body(): string {
    return this.#answer?.body() ?? ''
  }
}
