/**
 * The seam between the session and the ways to log in, and grants as plain JSON that a store can keep. Each way is one file in
 * authorizers/ and knows nothing of the others.
 *
 * Four verbs do the work: authorize, renew, sign, revoke. Two more ask questions that only the way itself can answer, because
 * services disagree about them: `judge` (what does this answer say about the grant?) and `check` (does it still hold?).
 * @module
 */
import type { Clock, Ui } from '../environment.ts'
import type { SyncError, SyncErrorCode } from '../errors.ts'
import type { HttpRequest, HttpResponse, Send } from '../http/types.ts'

/** Who is logged in, as an id token says (OpenID Connect Core §2). */
export interface Identity {
  /** As the server says them: foreign text, for display only. */
  readonly claims: Readonly<Record<string, unknown>>
  /** True: signature, issuer, audience and end were checked. */
  readonly verified: boolean
  /**
   * Why not: no keys are known, they could not be read, the signature is none of theirs, it is for somebody else, or is past its end.
   */
  readonly reason?: 'no-keys' | 'keys-unreachable' | 'signature' | 'issuer' | 'audience' | 'expired'
}

/** What a server says of a token (RFC 7662 §2.2): its own texts, for display. Times in milliseconds since the epoch. */
export interface Introspection {
  readonly active: boolean
  readonly scope?: string
  readonly clientId?: string
  readonly userName?: string
  readonly subject?: string
  readonly audience?: string
  readonly issuer?: string
  readonly tokenType?: string
  readonly expiresAt?: number
  readonly issuedAt?: number
  readonly notBefore?: number
}

/** What a client calls itself, for servers that want to know. */
export interface ClientName {
  readonly appVersion?: string
  readonly userAgent?: string
}

/** What a login yields. */
export interface Grant {
  /** Version of this record. */
  readonly v: 1
  /** The token, or whatever takes its place: a consumer key, say. */
  readonly accessToken: string
  readonly refreshToken?: string
  /** Wall-clock end of the access token, milliseconds since the epoch. Absent: no end is known. */
  readonly expiresAt?: number
  /** Lifetime the server announced, in milliseconds. Absent with `expiresAt`. */
  readonly lifetimeMs?: number
  /** Separated by spaces. */
  readonly scope?: string
  /** What only the authorizer understands: ids and texts that belong to the tokens. */
  readonly extra?: Readonly<Record<string, string>>
}

/** What an authorizer works with during one call. */
export interface AuthContext {
  /** Without a grant. Waits out a 429 or 503; for `authorize` nothing else is sent again. */
  readonly send: Send
  readonly clock: Clock
  readonly ui?: Ui
  readonly signal?: AbortSignal
  /** For what somebody should know although the login goes on: a scope that was narrowed, say. */
  readonly warn?: (message: string, code?: SyncErrorCode) => void
}

/**
 * What an answer says about the grant: `ok`, nothing; `expired`, renew it and send again once; `sign-again`, the same grant is
 * good but the stamp was not (a clock, say), send again once. An error ends the request.
 */
export type Verdict = 'ok' | 'expired' | 'sign-again' | SyncError

/** One way to log in: how a grant is obtained, renewed, sent along and revoked. */
export interface Authorizer {
  readonly name: string
  /** Of the client that logs in, as the server knows it. */
  readonly clientId?: string
  /**
   * Set when a login needs no person, so that a session may log in by itself at its first request. `once`: with something that gets
   * locked or is spent when it is sent too often, so that after a refusal only `login()` tries again; `again`: after a minute.
   */
  readonly unattended?: 'again' | 'once'
  /** What it sends as its name besides; goes into dumps. */
  clientName?(): ClientName
  /** Takes over the name of a dump, as far as none was chosen here. */
  adoptName?(name: ClientName): void
  /** Obtains a first grant; may ask the user through `context.ui`. */
  authorize(context: AuthContext): Promise<Grant>
  /** Extends a grant without the user. Absent or refused (`GRANT_REFUSED`): somebody has to log in again. */
  renew?(grant: Grant, context: AuthContext): Promise<Grant>
  /** True: `renew` is of use only for grants with a refresh token. */
  readonly needsRefreshToken?: boolean
  /** Stamps one request, the bytes of which do not change afterwards. Default: `Authorization: Bearer`. */
  sign?(request: HttpRequest, grant: Grant, context: AuthContext): HttpRequest | Promise<HttpRequest>
  /** Ends the grant at the server (logout). */
  revoke?(grant: Grant, context: AuthContext): Promise<void>
  /** Reads an answer to a stamped request. Default: 401 is `expired`, a 403 for a missing scope is `SCOPE_MISSING`. */
  judge?(response: HttpResponse, request: HttpRequest): Verdict
  /** Asks the server whether the grant holds (RFC 7662, say). Default: the session sends its probe. */
  check?(grant: Grant, context: AuthContext): Promise<boolean | Introspection>
  /** Who is logged in, from an id token of the login; `undefined` when there is none. */
  identify?(grant: Grant, context: AuthContext): Promise<Identity | undefined>
}
