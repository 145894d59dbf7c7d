/**
 * What the SRP logins share: JSON answers as fields of unknown type, checks of what goes into headers and passwords, and the
 * errors of a server that is busy or makes no sense. Texts of the server are data and stay out of messages.
 * @module
 */
import { SyncError } from '../errors.ts'
import { retryAfterMs } from '../http/retry.ts'
import type { HttpResponse } from '../http/types.ts'

export type Fields = Readonly<Record<string, unknown>>

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The JSON object of a body; `undefined` when it is none. */
export function parseFields(body: Uint8Array): Fields | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString('utf8'))
    return isFields(value) ? value : undefined
  } catch {
    return undefined // the parser's own message would quote it
  }
}

const MAX_TEXT = 8_192

/** A text of reasonable length, else `undefined`. */
export const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' && value.length <= MAX_TEXT ? value : undefined

/** @throws {SyncError} `ANSWER_INVALID` when the text is missing. */
export function requireText(fields: Fields, name: string): string {
  const text = textOf(fields[name])
  if (text === undefined) throw invalidAnswer()
  return text
}

/**
 * A token or id that goes into a header: nothing but visible ASCII.
 *
 * @throws {SyncError} `ANSWER_INVALID` when it is missing, `TOKEN_MALFORMED` when it has other characters.
 */
export function requireToken(fields: Fields, name: string): string {
  const text = requireText(fields, name)
  if (!/^[\x21-\x7e]+$/.test(text)) {
    throw new SyncError('server', 'TOKEN_MALFORMED', 'The server sent a token with characters no token can have')
  }
  return text
}

export const invalidAnswer = () =>
  new SyncError('server', 'ANSWER_INVALID', 'The server’s answer to the login has not the form it should have', {
    hint: 'Is this the address of a server of this kind, in a version that is known here?',
  })

export const notJson = ({ status }: HttpResponse) =>
  new SyncError('server', 'ANSWER_NOT_JSON', `The server’s answer is not JSON (status ${status})`, {
    hint: 'A proxy or the login page of a network may stand in between.',
    status,
  })

export function rateLimited({ headers, status }: HttpResponse, now: number): SyncError {
  const wait = retryAfterMs(headers, now)
  return new SyncError('rate_limit', 'RATE_LIMITED', 'The server has had too many requests', {
    hint: 'Wait, then try again.',
    retryable: true,
    status,
    ...(wait === undefined ? {} : { retryAfterMs: wait }),
  })
}

export function unavailable({ headers, status }: HttpResponse, now: number): SyncError {
  const wait = retryAfterMs(headers, now)
  return new SyncError('server', 'UNAVAILABLE', 'The server is not available', {
    hint: 'Try again later.',
    retryable: true,
    status,
    ...(wait === undefined ? {} : { retryAfterMs: wait }),
  })
}

export const loginExpired = () =>
  new SyncError('auth', 'LOGIN_EXPIRED', 'The login has expired', { hint: 'Log in again: sync login' })

/** @throws {SyncError} `PASSWORD_INVALID` for an empty one and for one that has no UTF-8 form. */
export function checkPassword(password: string): void {
  if (password === '' || /\p{Surrogate}/u.test(password)) {
    throw new SyncError('usage', 'PASSWORD_INVALID', 'The password is empty or not valid text')
  }
}
