/**
 * What a Proton-style server's answers mean: the codes in their bodies, scopes, the second factor, and sessions that its
 * Python client has dumped.
 * @module
 */
import { type ErrorClass, SyncError, type SyncErrorCode } from '../errors.ts'
import { parseBaseUrl } from '../http/addresses.ts'
import type { HttpResponse } from '../http/types.ts'
import type { Grant, Verdict } from './authorizer.ts'
import { type Fields, isFields, notJson, parseFields, rateLimited, textOf, unavailable } from './srp-answers.ts'

const SUCCESS: readonly unknown[] = [1000, 1001]

/** The body's code decides, then the status. */
export const isSuccess = ({ status }: HttpResponse, fields: Fields): boolean =>
  status >= 200 && status < 300 && SUCCESS.includes(fields.Code)

/** Where the answer comes from, and what to do when the server no longer takes the human verification. */
export interface Surroundings {
  readonly base: string
  /** Milliseconds since the epoch. */
  readonly now: number
  dropHuman(): void
}

const LOGIN_AGAIN = 'Log in again: sync login'
const CLIENT = 'Update this program, or set the client version that the server expects.'

const MEANINGS: Readonly<Record<number, readonly [ErrorClass, SyncErrorCode, string, string]>> = Object.freeze({
  401: ['auth', 'GRANT_REFUSED', 'The login has expired', LOGIN_AGAIN],
  403: ['auth', 'SCOPE_MISSING', 'The login does not cover this', 'Log out and in again, with the second factor.'],
  2001: ['permission', 'REQUEST_REFUSED', 'The server refused a value', 'Check the user name and the options.'],
  5001: ['usage', 'CLIENT_REJECTED', 'The server wants to know the client’s version', CLIENT],
  5003: ['usage', 'CLIENT_REJECTED', 'The server refuses this version of the client', CLIENT],
  6003: ['permission', 'REQUEST_REFUSED', 'The server refused the user name', 'Check the user name.'],
  8002: [
    'auth',
    'WRONG_CREDENTIALS',
    'The server refused the user name or the password',
    'Check both and log in again.',
  ],
  10002: ['auth', 'ACCOUNT_DELETED', 'The account is deleted', 'Ask whoever manages the account.'],
  10003: ['auth', 'ACCOUNT_DISABLED', 'The account is disabled', 'Ask whoever manages the account.'],
  10004: ['permission', 'REQUEST_REFUSED', 'The account’s plan does not cover this', 'It needs a paid plan.'],
  10013: ['auth', 'GRANT_REFUSED', 'The login is no longer valid', LOGIN_AGAIN],
})

const HUMAN_WANTED = 9001
const HUMAN_REFUSED = 12_087

function humanVerification(code: number, fields: Fields, base: string, status: number): SyncError {
  const token = isFields(fields.Details) ? textOf(fields.Details.HumanVerificationToken) : undefined
  // Foreign text in an address that a person opens: nothing but what an address can hold anyway.
  const page = token && /^[\x21-\x7e]+$/.test(token) && `${base}/core/v4/captcha?Token=${encodeURIComponent(token)}`
  const message = code === HUMAN_WANTED ? 'The server wants a sign that a person logs in' : 'The sign was refused'
  return new SyncError('auth', 'HUMAN_VERIFICATION', message, {
    hint: page ? `Solve the task on ${page}, then log in with the result.` : 'Log in with the web client first.',
    status,
  })
}

/** The error that a status or a code of the table stands for. */
function known(response: HttpResponse, fields: Fields | undefined, around: Surroundings): SyncError | undefined {
  const { status } = response
  const code = typeof fields?.Code === 'number' ? fields.Code : undefined
  // These come with all kinds of codes in the body.
  if (status === 429 || (code === 429 && status !== 401)) return rateLimited(response, around.now)
  if (status === 503 || (code === 503 && status !== 401)) return unavailable(response, around.now)
  if (fields !== undefined && (code === HUMAN_WANTED || code === HUMAN_REFUSED)) {
    if (code === HUMAN_REFUSED) around.dropHuman()
    return humanVerification(code, fields, around.base, status)
  }
  const meaning = (code === undefined ? undefined : MEANINGS[code]) ?? MEANINGS[status]
  if (meaning === undefined) return undefined
  const [kind, name, message, hint] = meaning
  return new SyncError(kind, name, message, { hint, status })
}

/**
 * The error of an answer to one of our own calls that is no success.
 *
 * @returns always one: `RATE_LIMITED`, `UNAVAILABLE`, `HUMAN_VERIFICATION`, those of the table above, `SERVER` (retryable),
 * `ANSWER_NOT_JSON`, or `REQUEST_REFUSED` with the server's number.
 */
export function problemOf(response: HttpResponse, fields: Fields | undefined, around: Surroundings): SyncError {
  const { status } = response
  const found = known(response, fields, around)
  if (found !== undefined) return found
  if (status >= 500) {
    return new SyncError('server', 'SERVER', `The login failed at the server (${status})`, { status, retryable: true })
  }
  if (fields === undefined) return notJson(response)
  return requestRefused(fields, status)
}

const requestRefused = ({ Code: code }: Fields, status: number) =>
  new SyncError(
    'permission',
    'REQUEST_REFUSED',
    `The server refused the request (${Number.isSafeInteger(code) ? `code ${code}` : `status ${status}`})`,
    { status },
  )

const isJson = ({ headers }: HttpResponse) => /\bjson\b/i.test(headers['content-type'] ?? '')

/**
 * What an answer to a stamped request says about the grant. Codes that concern only the request leave it to the caller, as
 * long as the status shows that it failed.
 */
export function judgeProton(response: HttpResponse, around: Surroundings): Verdict {
  const { status } = response
  const fields = isJson(response) ? parseFields(response.body) : undefined
  if (status === 401 || (fields?.Code === 401 && status !== 429 && status !== 503)) return 'expired'
  const found = known(response, fields, around)
  if (found !== undefined) return found
  const hidden = status < 300 && typeof fields?.Code === 'number' && !SUCCESS.includes(fields.Code)
  return hidden ? requestRefused(fields, status) : 'ok'
}

/** The scopes of an answer or a dump, separated by spaces: a text, a list, or a list under another name. */
export function protonScope(fields: Fields): string | undefined {
  const found = fields.Scope ?? fields.Scopes
  const words = Array.isArray(found) ? found : typeof found === 'string' ? found.split(' ') : undefined
  return words?.filter((word) => typeof word === 'string' && /^[\x21-\x7e]+$/.test(word)).join(' ')
}

const TOTP = 1

/** What a login answer asks for next. Old servers say it by the scope alone. */
export function secondFactorOf(answer: Fields): 'none' | 'code' | 'unsupported' {
  const factors = answer['2FA']
  const enabled = isFields(factors) ? factors.Enabled : undefined
  if (typeof enabled === 'number') return enabled === 0 ? 'none' : enabled & TOTP ? 'code' : 'unsupported'
  return protonScope(answer)?.split(' ').includes('twofactor') ? 'code' : 'none'
}

const invalidDump = (message: string) =>
  new SyncError('usage', 'SESSION_INVALID', message, { hint: 'It must be a dump of the Python client, logged in.' })

/**
 * Reads a session that Proton's Python client has dumped. Its cookies and client version are left out: the version is an
 * option of the authorizer.
 *
 * @param dump - The dump, or its JSON.
 * @param baseUrl - The server it must belong to, if given.
 * @returns a grant for `session.adopt`.
 * @throws {SyncError} `SESSION_INVALID`; `SESSION_OTHER_SERVER` when its `api_url` has another origin than `baseUrl`.
 */
export function importProtonSession(dump: unknown, baseUrl?: string): Grant {
  const value = typeof dump === 'string' ? parseFields(Buffer.from(dump)) : dump
  if (!isFields(value) || !isFields(value.session_data)) throw invalidDump('This is not a dumped session')
  const { api_url: url, session_data: data } = value
  if (baseUrl !== undefined) {
    const origin = typeof url === 'string' && URL.canParse(url) ? new URL(url).origin : undefined
    if (origin !== parseBaseUrl(baseUrl, { path: true }).origin) {
      throw new SyncError('usage', 'SESSION_OTHER_SERVER', 'The dumped session belongs to another server')
    }
  }
  const [uid, accessToken, refreshToken] = [data.UID, data.AccessToken, data.RefreshToken].map(textOf)
  const tokens = [uid, accessToken, refreshToken]
  if (!tokens.every((token) => token !== undefined && /^[\x21-\x7e]+$/.test(token))) {
    throw invalidDump('The dumped session holds no login')
  }
  const scope = protonScope(data)
  return {
    v: 1,
    accessToken: accessToken!,
    refreshToken: refreshToken!,
    ...(scope === undefined ? {} : { scope }),
    extra: { uid: uid!, ...(typeof data.PasswordMode === 'number' ? { passwordMode: String(data.PasswordMode) } : {}) },
  }
}
