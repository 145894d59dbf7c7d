/**
 * Reading the API's answers: what a refusal means, and the errors for it. The service's own words stay out; the number of the
 * call goes in, because its support asks for it.
 * @module
 */
import { SyncError } from '../../errors.ts'
import { retryAfterMs } from '../../http/retry.ts'
import type { HttpRequest, HttpResponse } from '../../http/types.ts'

type Fields = Record<string, unknown>

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body).toString('utf8'))
  } catch {
    return undefined
  }
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const text = (value: unknown) => (typeof value === 'string' ? value : '')

function refusalOf({ body }: HttpResponse): { code: string; message: string } {
  const value = parse(body)
  return isFields(value) ? { code: text(value.errorCode), message: text(value.message) } : { code: '', message: '' }
}

/** The number of the call for a message, when it is made of harmless letters. */
function queryOf({ headers }: HttpResponse): string {
  const id = headers['x-ovh-queryid'] ?? ''
  return /^[\w.-]{1,80}$/.test(id) ? ` (query ${id})` : ''
}

/** Whether the answer complains about the time or the signature, so that learning the time again may help. */
export function isAboutTime(response: HttpResponse): boolean {
  if (response.status !== 400 && response.status !== 403) return false
  const { code, message } = refusalOf(response)
  if (/TIME_?OUT|TIMESTAMP/.test(code)) return true
  return response.status === 400 && /timestamp|signature/i.test(`${code} ${message}`)
}

/** Method and path as a rule would name them; without query and, where the caller gave a label, without ids. */
function callOf(request: HttpRequest | undefined): string {
  if (request === undefined) return 'this call'
  const path = request.label?.startsWith('/') ? request.label : new URL(request.url).pathname
  return `${request.method} ${path.replace(/^\/1\.0(?=\/)/, '').replace(/[^\x21-\x7e]/g, '?')}`
}

const LOGIN_AGAIN = 'Log in again; the key is unknown, expired, or nobody has confirmed it.'

/**
 * The error of a 401 or 403.
 *
 * @param request - Named in the error for a missing rule.
 * @returns `undefined` for any other status.
 */
export function ovhRefusal(response: HttpResponse, request?: HttpRequest): SyncError | undefined {
  const { status } = response
  if (status !== 401 && status !== 403) return undefined
  const { code } = refusalOf(response)
  const query = queryOf(response)
  if (status === 401 || code === 'NOT_CREDENTIAL' || code === 'INVALID_CREDENTIAL') {
    const message = `The server does not accept the login${query}`
    return new SyncError('auth', 'LOGIN_NEEDED', message, { status, hint: LOGIN_AGAIN })
  }
  if (code === 'NOT_GRANTED_CALL') {
    return new SyncError('auth', 'RULE_MISSING', `The login has no rule for ${callOf(request)}${query}`, {
      status,
      hint: 'Log in again with a rule for it.',
    })
  }
  if (code === 'INVALID_KEY') {
    return new SyncError('usage', 'APPLICATION_KEY_WRONG', `The server does not know the application key${query}`, {
      status,
      hint: 'Check the application key, and that it was made in this region.',
    })
  }
  return new SyncError('permission', 'FORBIDDEN', `${callOf(request)} is not permitted${query}`, {
    status,
    hint: 'The login may also be limited to other source addresses.',
  })
}

/** The error of an answer that is no success. */
export function ovhFailure(response: HttpResponse, request: HttpRequest, now: number): SyncError {
  const { status } = response
  if (isAboutTime(response)) {
    const message = `The server refuses the time or the signature of ${callOf(request)}${queryOf(response)}`
    return new SyncError('auth', 'SIGNATURE_REFUSED', message, { status, hint: 'Check the application secret.' })
  }
  const refused = ovhRefusal(response, request)
  if (refused !== undefined) return refused
  const what = `${callOf(request)} failed (${status})${queryOf(response)}`
  const wait = retryAfterMs(response.headers, now)
  const after = wait === undefined ? {} : { retryAfterMs: wait }
  if (status === 429) return new SyncError('rate_limit', 'RATE_LIMITED', what, { status, retryable: true, ...after })
  if (status >= 500) return new SyncError('server', 'SERVER', what, { status, retryable: true, ...after })
  if (status === 400) return new SyncError('usage', 'BAD_REQUEST', what, { status })
  return new SyncError('server', 'ANSWER_UNEXPECTED', what, {
    status,
    hint: 'Is this the address of such an API? A proxy or login portal may stand in between.',
  })
}

/**
 * The JSON of a success.
 *
 * @throws {SyncError} what `ovhFailure` says; `ANSWER_INVALID` when it is no JSON.
 */
export function ovhAnswer(response: HttpResponse, request: HttpRequest, now: number): unknown {
  if (response.status < 200 || response.status > 299) throw ovhFailure(response, request, now)
  const value = parse(response.body)
  if (value === undefined) throw invalidAnswer(response, request)
  return value
}

/** Like `ovhAnswer`, for an answer that is an object. */
export function ovhFields(response: HttpResponse, request: HttpRequest, now: number): Fields {
  const value = ovhAnswer(response, request, now)
  if (!isFields(value)) throw invalidAnswer(response, request)
  return value
}

export const invalidAnswer = (response: HttpResponse, request: HttpRequest): SyncError =>
  new SyncError('server', 'ANSWER_INVALID', `The answer to ${callOf(request)} makes no sense${queryOf(response)}`, {
    status: response.status,
    hint: 'A proxy or the login page of a network may stand in between.',
  })
