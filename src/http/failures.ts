/**
 * Failures of the wire as errors of ours. TLS failures are told apart by their code, since what to do about them differs;
 * none of them is worth a second try.
 * @module
 */
import { cancelled, SyncError, type SyncErrorCode, systemCode } from '../errors.ts'
import type { HttpRequest } from './types.ts'

interface TlsFailure {
  readonly code: SyncErrorCode
  readonly what: string
  readonly hint: string
  readonly matches: RegExp
}

const CHECK_AUTHORITY = 'Check the server name and certificate; a private authority is named with --ca-file.'

/** First match counts. The names are those of OpenSSL's verification results, of its alerts and of Node. */
const TLS_FAILURES: readonly TlsFailure[] = Object.freeze([
  {
    code: 'CERT_EXPIRED',
    what: 'certificate outside its validity',
    hint: 'Check the clock of this machine; else the operator of the server has to renew its certificate.',
    matches: /^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/,
  },
  {
    code: 'CERT_NAME',
    what: 'certificate of another name',
    hint: 'Use the name that the certificate was made for.',
    matches: /^(ERR_TLS_CERT_ALTNAME_|HOSTNAME_MISMATCH)/,
  },
  {
    code: 'CLIENT_CERT_REFUSED',
    what: 'client certificate missing or refused',
    hint: 'The server wants a client certificate that it accepts; set clientCertificate, or ask its operator.',
    matches: /^ERR_SSL_.*_ALERT_(.*CERTIFICATE.*|UNKNOWN_CA|ACCESS_DENIED)$/,
  },
  {
    code: 'TLS_VERSION',
    what: 'no TLS version in common',
    hint: 'The server has to offer TLS 1.2 or newer, or what minTls asks for.',
    matches: /^ERR_SSL_(.*ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|.*VERSION_TOO_LOW)$/,
  },
  {
    code: 'CERT_UNTRUSTED',
    what: 'certificate of an unknown authority',
    hint: CHECK_AUTHORITY,
    matches:
      /^(CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_EXCEEDED$|ERROR_IN_CERT_)/,
  },
  {
    code: 'TLS_FAILED',
    what: 'no agreement on TLS',
    hint: CHECK_AUTHORITY,
    matches: /^(ERR_TLS_|ERR_SSL_|EPROTO$)/,
  },
])

/** Code of the system, of TLS or of the HTTP library, wherever in the chain of causes it stands. */
export function codeOf(error: unknown): string {
  let at = error
  for (let depth = 0; at instanceof Error && depth < 5; depth++) {
    const code = systemCode(at)
    if (code !== undefined) return code
    at = at instanceof AggregateError ? at.errors[0] : at.cause
  }
  return 'UNKNOWN'
}

/** The words of the system for a connection that was never made, and of HTTP/2 for a request that was not processed (RFC 9113 §8.7). */
const UNSENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ENETDOWN',
  'UND_ERR_CONNECT_TIMEOUT',
  'HTTP2_REFUSED_STREAM',
  'HTTP2_UNSENT',
  'HTTP2_HTTP_1_1_REQUIRED',
])

/** True when a request with this failure has certainly not reached the server, so that it may be sent again. */
export const isUnsent = (error: unknown): boolean =>
  error instanceof SyncError && error.class === 'network' && UNSENT.has(codeOf(error.cause))

/** The error as a cause: its words and its code only. Parsers add the bytes they choked on, which may hold tokens. */
export function bareCause(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof SyncError) return error
  const code = codeOf(error)
  const bare = Object.assign(new Error(error.message), code === 'UNKNOWN' ? {} : { code })
  Object.defineProperty(bare, 'name', { value: error.name })
  return bare
}

/** @returns the error when `error` is a failure of TLS, else `undefined`. */
export function tlsError(error: unknown, where: string): SyncError | undefined {
  const system = codeOf(error)
  const failure = TLS_FAILURES.find(({ matches }) => matches.test(system))
  if (failure === undefined) return undefined
  const { code, what, hint } = failure
  return new SyncError('tls', code, `No secure connection for ${where}: ${what} (${system})`, {
    hint,
    cause: bareCause(error),
  })
}

/** Turns what a request failed with into one of ours. */
export function wireError(error: unknown, request: HttpRequest): unknown {
  if (request.signal?.aborted) return cancelled(request.signal)
  if (error instanceof SyncError) return error
  if (error instanceof Error && error.cause instanceof SyncError) return error.cause
  const where = `${request.method} ${request.label ?? new URL(request.url).host}`
  return (
    tlsError(error, where) ??
    new SyncError('network', 'NETWORK', `No answer to ${where} (${codeOf(error)})`, {
      hint: 'Check the address and the network, then run again.',
      retryable: true,
      cause: bareCause(error),
    })
  )
}
