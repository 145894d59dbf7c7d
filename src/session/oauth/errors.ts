/**
 * Failed OAuth exchanges as errors of ours. What a server says is data: only its error codes decide, and its texts go nowhere.
 * @module
 */
import * as oauth from 'oauth4webapi'
import { type ErrorClass, SyncError, type SyncErrorCode } from '../../errors.ts'

const LOGIN_AGAIN = 'Log in again: sync login'

export const loginAgain = (code: SyncErrorCode, message: string, cause?: unknown) =>
  new SyncError('auth', code, message, { hint: LOGIN_AGAIN, cause })

/** The library's error as a cause: its text only, because what it carries besides are whole answers, tokens included. */
export const bare = (error: Error & { code?: string }) => new Error(`${error.name}: ${error.code ?? error.message}`)

/** The `error` of an answer (RFC 6749 §5.2), if that is why the exchange failed. */
export const errorCodeOf = (error: unknown): string | undefined =>
  error instanceof oauth.ResponseBodyError || error instanceof oauth.AuthorizationResponseError
    ? error.error
    : undefined

const CLIENT_HINT = 'Check --client-id, --client-secret-file and --redirect-uri with the server’s administrator.'

/** Class, code, what happened, what to do (RFC 6749 §4.1.2.1, §5.2; RFC 8628 §3.5). */
const MEANINGS: ReadonlyMap<string, readonly [ErrorClass, SyncErrorCode, string, string]> = new Map([
  ['invalid_grant', ['auth', 'GRANT_REFUSED', 'was refused: wrong or expired credentials', LOGIN_AGAIN]],
  [
    'invalid_client',
    ['auth', 'CLIENT_REFUSED', 'was refused: the client is not known, or its proof is wrong', CLIENT_HINT],
  ],
  [
    'unauthorized_client',
    [
      'auth',
      'CLIENT_NOT_ALLOWED',
      'was refused: the client may not log in this way',
      'Let the administrator allow it.',
    ],
  ],
  [
    'unsupported_grant_type',
    [
      'auth',
      'GRANT_TYPE_UNSUPPORTED',
      'was refused: the server does not know this way to log in',
      'Choose another one.',
    ],
  ],
  ['invalid_scope', ['auth', 'SCOPE_REFUSED', 'was refused: the scope is not available', 'Ask for another scope.']],
  ['server_error', ['server', 'SERVER', 'failed at the server', 'Try again later.']],
  ['temporarily_unavailable', ['server', 'SERVER', 'failed at the server', 'Try again later.']],
  ['access_denied', ['auth', 'LOGIN_DENIED', 'was denied', LOGIN_AGAIN]],
  ['expired_token', ['auth', 'DEVICE_CODE_EXPIRED', 'was not finished in time', 'Run the login again.']],
])

/** Turns a failed OAuth exchange into one of our errors. */
export function oauthError(error: unknown, what: string): unknown {
  if (error instanceof SyncError) return error
  if (error instanceof oauth.ResponseBodyError) return refusal(error, what, error.status)
  if (error instanceof oauth.AuthorizationResponseError) {
    return MEANINGS.has(error.error)
      ? refusal(error, what)
      : loginAgain('LOGIN_DENIED', `${what} was denied in the browser`, bare(error))
  }
  if (error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError) {
    return notOAuth(error, what)
  }
  return error
}

function refusal(error: oauth.ResponseBodyError | oauth.AuthorizationResponseError, what: string, status?: number) {
  const more = { cause: bare(error), ...(status === undefined ? {} : { status }) }
  const meaning = MEANINGS.get(error.error)
  if (meaning !== undefined) {
    const [kind, code, text, hint] = meaning
    return new SyncError(kind, code, `${what} ${text}`, { ...more, hint })
  }
  const shown = error.error.replace(/[^\w.-]/g, '?').slice(0, 60)
  return new SyncError('auth', 'OAUTH_REFUSED', `${what} was refused (${shown})`, { ...more, hint: CLIENT_HINT })
}

/** An answer that follows no rule of OAuth: a proxy's page, a redirect, a token without its type. */
function notOAuth(error: oauth.OperationProcessingError | oauth.UnsupportedOperationError, what: string): SyncError {
  const status = error.cause instanceof Response ? error.cause.status : undefined
  const more = { cause: bare(error), ...(status === undefined ? {} : { status }) }
  if (status === 401) {
    return new SyncError('auth', 'OAUTH_REFUSED', `${what} was refused (401)`, {
      ...more,
      hint: 'The server does not know this client; see --client-id.',
    })
  }
  return new SyncError('server', 'OAUTH_ANSWER', `${what}: the server’s answer is not OAuth`, {
    ...more,
    hint: 'Is this the address of a compatible server? A proxy or login portal may stand in between.',
  })
}
