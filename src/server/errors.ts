/**
 * The error a route throws to answer with a status, an API error code and a short explanation. Turning it into bytes is
 * up to the HTTP plumbing; problems of starting or administering the server are `SyncError`s instead.
 * @module
 */
import { STATUS_CODES } from 'node:http'

/** An answer other than success. `debugInfo` reaches the client, so it never holds a secret. */
export class ApiError extends Error {
  readonly status: number
  readonly errorCode: number | undefined
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, errorCode?: number, debugInfo = '', headers: Record<string, string> = {}) {
    super(debugInfo)
    this.status = status
    this.errorCode = errorCode
    this.headers = headers
  }

  /** The JSON body of the answer; absent fields are left out, never null. */
  toBody(): Record<string, unknown> {
    return {
      code: this.status,
      message: STATUS_CODES[this.status] ?? 'Error',
      ...(this.message === '' ? {} : { debugInfo: this.message }),
      ...(this.errorCode === undefined ? {} : { errorCode: this.errorCode }),
    }
  }
}

/** An OAuth error: its body has another shape (RFC 6749 section 5.2). */
export class OAuthError extends Error {
  readonly status: number
  readonly error: string
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, error: string, description: string, headers: Record<string, string> = {}) {
    super(description)
    this.status = status
    this.error = error
    this.headers = headers
  }
}

/** Storage URLs answer in XML, as object stores do. */
export class StorageError extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

export const badRequest = (errorCode?: number, info = 'Bad request'): ApiError => new ApiError(400, errorCode, info)
export const forbidden = (info = 'Insufficient permissions'): ApiError => new ApiError(403, undefined, info)
export const nodeNotFound = (): ApiError => new ApiError(404, -41000, 'Node not found')
export const fileNotFound = (): ApiError => new ApiError(404, -40751, 'File not found')
export const unauthorized = (): ApiError =>
  new ApiError(401, -10012, 'Wrong token', { 'WWW-Authenticate': 'Bearer error="invalid_token"' })

/**
 * The node is there, its bytes are not: nothing that trying again would change.
 *
 * @param name - Of the file or object; for the operator.
 */
export const contentGone = (name: string): ApiError => unreadable('gone', name)
export const contentDamaged = (name: string): ApiError => unreadable('damaged', name)

function unreadable(how: 'gone' | 'damaged', name: string): ApiError {
  const error = new ApiError(410, -40751, `The content of this file is ${how}`)
  error.cause = new Error(`Content ${name} is ${how}`)
  return error
}
