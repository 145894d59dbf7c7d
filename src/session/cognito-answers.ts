/**
 * Calls to Cognito's one endpoint, and what its answers mean: exceptions by name, and the parameters of challenges.
 * @module
 */
import { type ErrorClass, SyncError, type SyncErrorCode } from '../errors.ts'
import type { HttpRequest, HttpResponse } from '../http/types.ts'
import type { AuthContext } from './authorizer.ts'
import { type Fields, isFields, notJson, parseFields, rateLimited, textOf, unavailable } from './srp-answers.ts'

export type Operation =
  | 'InitiateAuth'
  | 'RespondToAuthChallenge'
  | 'GetTokensFromRefreshToken'
  | 'RevokeToken'
  | 'GetUser'

/** An answer: the fields of a success, or the exception's name (empty when there is none) and our error for it. */
export type Reply =
  | { readonly fields: Fields }
  | { readonly fields: undefined; readonly exception: string; readonly error: SyncError }

/** Sends one operation; none of them is signed. Rejects only when there is no answer. */
export async function callCognito(
  endpoint: string,
  operation: Operation,
  body: Fields,
  context: AuthContext,
): Promise<Reply> {
  const request: HttpRequest = {
    method: 'POST',
    url: endpoint,
    label: operation,
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': `AWSCognitoIdentityProviderService.${operation}`,
      'cache-control': 'no-store',
    },
    body: Buffer.from(JSON.stringify(body)),
    ...(context.signal === undefined ? {} : { signal: context.signal }),
  }
  const response = await context.send(request)
  // Operations without a result may answer with nothing at all.
  const fields = response.body.length === 0 ? {} : parseFields(response.body)
  const exception = exceptionOf(response, fields)
  if (response.status === 200 && fields !== undefined && exception === '') return { fields }
  return { fields: undefined, exception, error: problemOf(response, exception, context.clock.now()) }
}

/** The exception's name: from the body, perhaps behind a namespace, else from a header. */
function exceptionOf({ headers }: HttpResponse, fields: Fields | undefined): string {
  const type = textOf(fields?.__type)?.split('#').at(-1) ?? headers['x-amzn-errortype']?.split(':')[0] ?? ''
  return /^[A-Za-z]{1,80}$/.test(type) ? type : ''
}

type Meaning = readonly [ErrorClass, SyncErrorCode, string, string]

const WRONG_CREDENTIALS: Meaning = [
  'auth',
  'WRONG_CREDENTIALS',
  'The server refused the user name or the password',
  'Check both. The server says the same of disabled users, too many tries, a wrong client secret and a late answer.',
]
const ENROLMENT: Meaning = [
  'auth',
  'ENROLMENT_REQUIRED',
  'The account has to set up a second factor first',
  'Set it up with another program, then log in again.',
]
const NEW_PASSWORD_REFUSED: Meaning = [
  'auth',
  'NEW_PASSWORD_REFUSED',
  'The server refused the new password',
  'Choose another: longer, of more kinds of characters, and not used before.',
]
const HOOK: Meaning = [
  'permission',
  'REFUSED_BY_HOOK',
  'The login was refused by a rule of the service',
  'Ask whoever runs the service.',
]

const MEANINGS: ReadonlyMap<string, Meaning> = new Map<string, Meaning>([
  ['NotAuthorizedException', WRONG_CREDENTIALS],
  // The same for both: who has an account is nobody's business.
  ['UserNotFoundException', WRONG_CREDENTIALS],
  [
    'UserNotConfirmedException',
    ['auth', 'ACCOUNT_UNCONFIRMED', 'The account is not confirmed yet', 'Confirm it first, then log in.'],
  ],
  [
    'PasswordResetRequiredException',
    ['auth', 'PASSWORD_RESET_REQUIRED', 'The password has to be reset', 'Reset it, then log in with the new one.'],
  ],
  ['CodeMismatchException', ['auth', 'CODE_WRONG', 'The code was refused', 'Log in again with a fresh code.']],
  ['ExpiredCodeException', ['auth', 'CODE_EXPIRED', 'The code has expired', 'Log in again with a fresh code.']],
  ['InvalidPasswordException', NEW_PASSWORD_REFUSED],
  ['PasswordHistoryPolicyViolationException', NEW_PASSWORD_REFUSED],
  ['MFAMethodNotFoundException', ENROLMENT],
  ['SoftwareTokenMFANotFoundException', ENROLMENT],
  [
    'ResourceNotFoundException',
    ['usage', 'POOL_UNKNOWN', 'The server does not know this pool or client', 'Check the pool id and the client id.'],
  ],
  ['UserLambdaValidationException', HOOK],
  ['UnexpectedLambdaException', HOOK],
  ['InvalidLambdaResponseException', HOOK],
  [
    'ForbiddenException',
    ['permission', 'BLOCKED', 'A firewall rule of the service blocks this', 'Ask whoever runs the service.'],
  ],
])

const BUSY = new Set(['TooManyRequestsException', 'LimitExceededException'])

/** The error for an answer that is no success. What the server wrote for people stays out. */
function problemOf(response: HttpResponse, exception: string, now: number): SyncError {
  const { status } = response
  if (status === 429 || BUSY.has(exception)) return rateLimited(response, now)
  if (status >= 500 || exception === 'InternalErrorException') return unavailable(response, now)
  const meaning = MEANINGS.get(exception)
  if (meaning !== undefined) {
    const [kind, code, message, hint] = meaning
    const skew = meaning === WRONG_CREDENTIALS ? skewHint(response, now) : ''
    return new SyncError(kind, code, message, { hint: hint + skew, status })
  }
  if (exception === '') return notJson(response)
  return new SyncError('usage', 'LOGIN_CONFIGURATION', `The server refused the request (${exception})`, {
    hint: 'Check pool, client and its secret, and that the client may log in with SRP and renew logins.',
    status,
  })
}

const MAX_SKEW_MINUTES = 5

/** The service refuses answers with a wrong time, and does not say so. */
function skewHint({ headers }: HttpResponse, now: number): string {
  const minutes = Math.round((now - Date.parse(headers.date ?? '')) / 60_000)
  if (!(Math.abs(minutes) > MAX_SKEW_MINUTES)) return ''
  return ` This computer’s clock is ${Math.abs(minutes)} minutes ${minutes > 0 ? 'ahead of' : 'behind'} the server’s.`
}

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** The time as the service wants it, whatever the locale: `Mon Jan 5 04:07:09 UTC 2026`. */
export function cognitoTimestamp(now: number): string {
  const date = new Date(now)
  const time = date.toISOString().slice(11, 19)
  const day = `${DAYS[date.getUTCDay()]} ${MONTHS[date.getUTCMonth()]} ${date.getUTCDate()}`
  return `${day} ${time} UTC ${date.getUTCFullYear()}`
}

// ---- Challenges ----------------------------------------------------------------------------------------------------------

/** How a one-time code reaches the user. */
export type CodeKind = 'sms' | 'totp' | 'email'

/** Challenges that want a code: its kind, and the field it is answered in. */
export const CODE_CHALLENGES: ReadonlyMap<string, readonly [CodeKind, string]> = new Map([
  ['SMS_MFA', ['sms', 'SMS_MFA_CODE']],
  ['SOFTWARE_TOKEN_MFA', ['totp', 'SOFTWARE_TOKEN_MFA_CODE']],
  ['EMAIL_OTP', ['email', 'EMAIL_OTP_CODE']],
  ['SMS_OTP', ['sms', 'SMS_OTP_CODE']],
])

const FACTORS = ['SMS_MFA', 'SOFTWARE_TOKEN_MFA', 'EMAIL_MFA'] as const
/** A second factor, as the pool calls it. */
export type Factor = (typeof FACTORS)[number]

/** A parameter that is JSON inside JSON. */
function nested(parameters: Fields, name: string): unknown {
  try {
    return JSON.parse(textOf(parameters[name]) ?? 'null')
  } catch {
    return undefined
  }
}

const texts = (value: unknown): string[] => (Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [])

/** Factors the server names; all that exist when it names none. */
export function factorsOf(parameters: Fields): readonly Factor[] {
  const named = texts(nested(parameters, 'MFAS_CAN_CHOOSE'))
  const known = FACTORS.filter((factor) => named.includes(factor))
  return known.length > 0 ? known : FACTORS
}

const PREFIX = 'userAttributes.'

/** What a `NEW_PASSWORD_REQUIRED` challenge says: the account's attributes, and the names of those it wants. */
export function attributesOf(parameters: Fields): { attributes: ReadonlyMap<string, string>; required: string[] } {
  const found = nested(parameters, 'userAttributes')
  const entries = isFields(found) ? Object.entries(found) : []
  const attributes = new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
  const required = texts(nested(parameters, 'requiredAttributes')).map((name) =>
    name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name,
  )
  return { attributes, required }
}

/** The error for a challenge that cannot be answered here. */
export function challengeError(name: string): SyncError {
  if (name === 'MFA_SETUP') {
    const [kind, code, message, hint] = ENROLMENT
    return new SyncError(kind, code, message, { hint })
  }
  if (name === 'DEVICE_SRP_AUTH' || name === 'DEVICE_PASSWORD_VERIFIER') {
    return new SyncError('auth', 'DEVICE_REQUIRED', 'The service wants a remembered device', {
      hint: 'Devices are not remembered here; ask whoever runs the service to allow logins without.',
    })
  }
  const shown = /^[A-Z_]{1,60}$/.test(name) ? name : 'unknown'
  return new SyncError('auth', 'CHALLENGE_UNSUPPORTED', `The service asks for something unknown here (${shown})`, {
    hint: 'Log in with another program, or ask for another way to log in.',
  })
}
