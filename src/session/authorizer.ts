/**
 * The seam between the session and the ways to log in: four verbs, and grants as plain JSON that a store can keep. Each way
 * is one file in authorizers/ and knows nothing of the others.
 * @module
 */
import type { Clock, Ui } from '../environment.ts'
import type { HttpRequest, Send } from '../http/types.ts'

/** What a login yields. */
export interface Grant {
  /** Version of this record. */
  readonly v: 1
  readonly accessToken: string
  readonly refreshToken?: string
  /** Wall-clock end of the access token, milliseconds since the epoch. */
  readonly expiresAt: number
  /** Lifetime the server announced, in milliseconds. */
  readonly lifetimeMs: number
  readonly scope?: string
}

export interface AuthContext {
  /** Without a grant and without repeating. */
  readonly send: Send
  readonly clock: Clock
  readonly ui?: Ui
  readonly signal?: AbortSignal
}

export interface Authorizer {
  readonly name: string
  /** Obtains a first grant; may ask the user through `context.ui`. */
  authorize(context: AuthContext): Promise<Grant>
  /** Extends a grant without the user. Absent or refused: somebody has to log in again. */
  renew?(grant: Grant, context: AuthContext): Promise<Grant>
  /** Stamps one request. Default: `Authorization: Bearer`. */
  sign?(request: HttpRequest, grant: Grant, context: AuthContext): HttpRequest | Promise<HttpRequest>
  /** Ends the grant at the server (logout). */
  revoke?(grant: Grant, context: AuthContext): Promise<void>
}
