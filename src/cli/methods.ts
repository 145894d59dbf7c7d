/** The ways to log in that the command line offers, and which options belong to which. @module */
import { resolve } from 'node:path'
import { SyncError, type SyncErrorCode } from '../errors.ts'

export const METHODS = Object.freeze([
  'browser',
  'device',
  'password',
  'client-credentials',
  'jwt',
  'access-token',
  'refresh-token',
] as const)
export type MethodName = (typeof METHODS)[number]

export const isMethod = (value: unknown): value is MethodName => METHODS.includes(value as MethodName)

export interface LoginOption {
  readonly name: string
  /** Absent for a switch. */
  readonly argument?: string
  readonly summary: string
  readonly methods: readonly MethodName[]
  /** Names a file: kept with its whole path. */
  readonly file?: true
  /** Only needed to log in, and not kept in the profile. */
  readonly once?: true
  readonly choices?: readonly string[]
  /** Given alone, it says which method is meant. */
  readonly decides?: true
}

const WITH_CLIENT = ['browser', 'device', 'password', 'client-credentials', 'jwt', 'refresh-token'] as const
const OAUTH = WITH_CLIENT
/** A renewal asks for what was granted before (RFC 6749 §6). */
const WITH_SCOPE = ['browser', 'device', 'password', 'client-credentials', 'jwt'] as const

export const LOGIN_OPTIONS: readonly LoginOption[] = Object.freeze([
  { name: 'user', argument: 'name', summary: 'log in with user name and password', methods: ['password'], decides: true },
  { name: 'password-file', argument: 'file', summary: 'file that holds the account password', methods: ['password'], once: true },
  { name: 'password-command', argument: 'command', summary: 'program that prints the account password', methods: ['password'], once: true },
  { name: 'device', summary: 'log in on another device, with a code shown here', methods: ['device'], decides: true },
  { name: 'no-browser', summary: 'print the address of the login page instead of opening it', methods: ['browser'], once: true },
  { name: 'code', argument: 'file', summary: 'file with the code shown after the login, or with the one-time code; - for standard input', methods: ['browser', 'password'], once: true },
  { name: 'otp-secret-file', argument: 'file', summary: 'file that holds the secret of an authenticator app, to make one-time codes of', methods: ['password'], once: true },
  { name: 'otp-command', argument: 'command', summary: 'program that prints a one-time code', methods: ['password'], once: true },
  { name: 'redirect-uri', argument: 'uri', summary: 'registered redirect URI of the client', methods: ['browser'] },
  { name: 'client-id', argument: 'id', summary: 'OAuth client', methods: WITH_CLIENT },
  { name: 'client-secret-file', argument: 'file', summary: 'file that holds its secret', methods: WITH_CLIENT, file: true },
  { name: 'client-auth', argument: 'kind', summary: 'how the client shows its secret or key', methods: WITH_CLIENT, choices: ['basic', 'raw-basic', 'post', 'private-key-jwt'] },
  { name: 'client-key-file', argument: 'file', summary: 'its private key (PEM or JWK), for private-key-jwt', methods: WITH_CLIENT, file: true },
  { name: 'scope', argument: 'scope', summary: 'what to ask for (default: all)', methods: WITH_SCOPE },
  { name: 'issuer', argument: 'url', summary: 'the server that grants logins, if it is another one', methods: OAUTH },
  { name: 'token-url', argument: 'url', summary: 'its token endpoint, where it publishes no metadata', methods: ['password', 'client-credentials', 'jwt', 'refresh-token'] },
  { name: 'introspect', summary: 'ask that server what it knows of the token when the login is looked at (RFC 7662)', methods: WITH_CLIENT },
  { name: 'jwt-key-file', argument: 'file', summary: 'log in with an assertion signed by this key (PEM, JWK or PKCS#12)', methods: ['jwt'], file: true, decides: true },
  { name: 'jwt-key-password-file', argument: 'file', summary: 'file that holds the password of that key', methods: ['jwt'], file: true },
  { name: 'jwt-issuer', argument: 'name', summary: 'issuer of the assertion', methods: ['jwt'] },
  { name: 'jwt-subject', argument: 'name', summary: 'whom it speaks for', methods: ['jwt'] },
  { name: 'jwt-audience', argument: 'url', summary: 'whom it speaks to (default: the token endpoint)', methods: ['jwt'] },
  { name: 'jwt-algorithm', argument: 'name', summary: 'RS256, ES256 or EdDSA (default: by the key)', methods: ['jwt'], choices: ['RS256', 'ES256', 'EdDSA'] },
  { name: 'jwt-key-id', argument: 'id', summary: 'key id in its header', methods: ['jwt'] },
  { name: 'access-token-file', argument: 'file', summary: 'use the access token in this file; read again when it is refused', methods: ['access-token'], file: true, decides: true },
  { name: 'refresh-token-file', argument: 'file', summary: 'log in with the refresh token in this file', methods: ['refresh-token'], once: true, decides: true },
  { name: 'api-key-header', argument: 'name', summary: 'header for an API key beside the login', methods: METHODS },
  { name: 'api-key-file', argument: 'file', summary: 'file that holds the API key', methods: METHODS, file: true },
]) // biome-ignore format: a table

/** What a method cannot do without. */
const NEEDED: Readonly<Partial<Record<MethodName, readonly string[]>>> = Object.freeze({
  password: ['user'],
  'client-credentials': ['client-id'],
  jwt: ['jwt-key-file', 'jwt-issuer'],
  'access-token': ['access-token-file'],
  'refresh-token': ['refresh-token-file'],
})

/** Options that are of use only together: the first needs one of the others. */
const TOGETHER: readonly (readonly [string, readonly string[], SyncErrorCode])[] = Object.freeze([
  ['client-secret-file', ['client-id'], 'CLIENT_ID_MISSING'],
  ['client-key-file', ['client-id'], 'CLIENT_ID_MISSING'],
  ['client-auth', ['client-id'], 'CLIENT_ID_MISSING'],
  ['api-key-header', ['api-key-file'], 'OPTION_MISSING'],
  ['api-key-file', ['api-key-header'], 'OPTION_MISSING'],
] as const)

/** Options of which only one can be used. */
const EITHER = Object.freeze([
  ['password-file', 'password-command'],
  ['code', 'otp-secret-file'],
  ['code', 'otp-command'],
  ['otp-secret-file', 'otp-command'],
  ['client-secret-file', 'client-key-file'],
] as const)

interface Problem {
  readonly code: SyncErrorCode
  readonly message: string
  readonly hint?: string
}

export interface LoginChoice {
  readonly method: MethodName
  /** Values by flag name, files with their whole path. */
  readonly values: Readonly<Record<string, string>>
  /** Those of them that the profile keeps. */
  readonly kept: Readonly<Record<string, string>>
}

/**
 * Decides how to log in. All mistakes are reported together.
 *
 * @param given - Values by flag name; `method` among them.
 * @throws {SyncError} the code of the one mistake, or `LOGIN_OPTIONS` for several.
 */
export function chooseMethod(given: Readonly<Record<string, string>>): LoginChoice {
  const problems: Problem[] = []
  const options = LOGIN_OPTIONS.filter(({ name }) => given[name] !== undefined)
  const deciding = options.filter(({ decides }) => decides)
  const inferred = [...new Set(deciding.flatMap(({ methods }) => methods))]
  const flags = (list: readonly { name: string }[]) => list.map(({ name }) => `--${name}`).join(' and ')
  if (given.method !== undefined && !isMethod(given.method)) {
    problems.push({ code: 'OPTION_INVALID', message: `--method takes one of ${METHODS.join(', ')}` })
  } else if (given.method === undefined && inferred.length > 1) {
    problems.push({
      code: 'METHODS_TWO',
      message: `${flags(deciding)} are different ways to log in`,
      hint: 'Choose one.',
    })
  }
  const passwordWithoutUser = ['password-file', 'password-command'].some((name) => given[name] !== undefined)
  if (given.method === undefined && passwordWithoutUser && given.user === undefined) {
    problems.push({
      code: 'USER_MISSING',
      message: '--password-file and --password-command need --user',
      hint: 'Without --user the login happens in the browser.',
    })
  }
  const method = isMethod(given.method) ? given.method : (inferred[0] ?? 'browser')
  if (problems.length === 0) {
    for (const { name, methods } of options) {
      if (methods.includes(method)) continue
      problems.push({ code: 'OPTION_UNUSED', message: `--${name} has no meaning for a login by ${method}` })
    }
  }
  for (const name of NEEDED[method] ?? []) {
    if (given[name] === undefined)
      problems.push({ code: 'OPTION_MISSING', message: `A login by ${method} needs --${name}` })
  }
  for (const [name, others, code] of TOGETHER) {
    if (given[name] === undefined || others.some((other) => given[other] !== undefined)) continue
    problems.push({ code, message: `--${name} needs ${others.map((other) => `--${other}`).join(' or ')}` })
  }
  for (const [one, other] of EITHER) {
    if (given[one] === undefined || given[other] === undefined) continue
    problems.push({ code: 'OPTION_TWICE', message: `--${one} and --${other}: give one of them` })
  }
  const [first, second] = problems
  if (first !== undefined) {
    const message = second === undefined ? first.message : problems.map(({ message }) => message).join('; ')
    const hint = problems.find((problem) => problem.hint !== undefined)?.hint
    throw new SyncError(
      'usage',
      second === undefined ? first.code : 'LOGIN_OPTIONS',
      message,
      hint === undefined ? {} : { hint },
    )
  }
  const values = Object.fromEntries(
    options.map(({ name, argument }) => {
      const isPath = argument === 'file' && given[name] !== '-'
      return [name, isPath ? resolve(given[name]!) : given[name]!]
    }),
  )
  const once = new Set(LOGIN_OPTIONS.filter(({ once }) => once).map(({ name }) => name))
  return { method, values, kept: Object.fromEntries(Object.entries(values).filter(([name]) => !once.has(name))) }
}
