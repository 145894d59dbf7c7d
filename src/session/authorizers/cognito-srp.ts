/**
 * Login at an AWS Cognito user pool: USER_SRP_AUTH, then whatever else the pool asks for. The arithmetic is crypto/srp.ts,
 * calls and their meaning are cognito-answers.ts.
 *
 * The service never proves that it knows the password's verifier: TLS alone says who answers.
 * @module
 */
import { createHmac } from 'node:crypto'
import { fromBase64, toBase64 } from '../../../crypto/bytes.ts'
import { createCognitoEphemeral, signForCognito } from '../../../crypto/srp.ts'
import { SyncError } from '../../errors.ts'
import { parseBaseUrl } from '../../http/addresses.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import {
  attributesOf,
  CODE_CHALLENGES,
  type CodeKind,
  callCognito,
  challengeError,
  cognitoTimestamp,
  type Factor,
  factorsOf,
  type Operation,
  type Reply,
} from '../cognito-answers.ts'
import { readIdentity } from '../identity.ts'
import { lifetimeOf } from '../oauth/exchange.ts'
import {
  checkPassword,
  type Fields,
  invalidAnswer,
  isFields,
  loginExpired,
  requireText,
  requireToken,
  textOf,
} from '../srp-answers.ts'

/** What a login asks a one-time code for. */
export interface CodeRequest {
  readonly kind: CodeKind
  /** Where the code was sent, as the server puts it: show it through a filter. */
  readonly destination?: string
  /** 1 at first; higher when the code before was wrong. */
  readonly attempt: number
}

/** What a login asks a new password for. */
export interface NewPasswordRequest {
  /** What the server knows of the account; names and values are its own texts. */
  readonly attributes: ReadonlyMap<string, string>
  /** Names of the attributes it wants besides the password. */
  readonly missing: readonly string[]
  /** Why the password before was refused. */
  readonly refused?: 'policy' | 'history'
}

/** A new password, and what else the pool wants of the user. */
export interface NewPassword {
  readonly password: string
  readonly attributes?: Readonly<Record<string, string>>
}

/** How a user of a user pool logs in. */
export interface CognitoSrpOptions {
  /** `REGION_NAME`, at most 55 characters. */
  readonly poolId: string
  readonly clientId: string
  readonly clientSecret?: string
  /** Default: the region's public endpoint. */
  readonly endpoint?: string
  /** As the person types it; may be an alias. */
  readonly userName: string
  /** Asked for once per login. A wrong password is never sent twice: accounts get locked. */
  password(): Promise<string>
  /** A one-time code. Default: asks through `ui.askSecret`. */
  code?(request: CodeRequest): Promise<string>
  newPassword?(request: NewPasswordRequest): Promise<NewPassword>
  chooseFactor?(choices: readonly Factor[]): Promise<Factor>
  /** Which token stamps requests. Default `access`. */
  readonly stamp?: 'access' | 'id'
  /** `rotate` is for pools whose refresh tokens change (`GetTokensFromRefreshToken`). Default `keep`. */
  readonly refreshTokens?: 'keep' | 'rotate'
  /** User name in the secret hash of a renewal. Default: the id that the login brought. */
  readonly renewalName?: string
  /** Passed to the service's hooks with each step of a login. */
  readonly clientMetadata?: Readonly<Record<string, string>>
}

const POOL_ID = /^([\w-]+)_([0-9A-Za-z]+)$/

function parsePoolId(id: string): { region: string; poolName: string } {
  const [, region, poolName] = (id.length <= 55 && POOL_ID.exec(id)) || []
  if (region === undefined || poolName === undefined) {
    throw new SyncError('usage', 'POOL_ID_INVALID', 'The pool id is not one', { hint: 'It looks like REGION_NAME.' })
  }
  return { region, poolName }
}

/** `SECRET_HASH`: proves the client's secret for one user name. */
export const cognitoSecretHash = (userName: string, clientId: string, clientSecret: string): string =>
  createHmac('sha256', clientSecret)
    .update(userName + clientId)
    .digest('base64')

/** More rounds than any pool has challenges. */
const MAX_ROUNDS = 8
/** Times somebody is asked for the same thing. */
const MAX_ATTEMPTS = 3

/** What changes during a login. */
interface Round {
  readonly userId: string
  readonly name: string
  readonly session: string | undefined
  readonly parameters: Fields
}

function readRound(fields: Fields, userId: string): Round {
  const parameters = isFields(fields.ChallengeParameters) ? fields.ChallengeParameters : {}
  return { userId, name: requireText(fields, 'ChallengeName'), session: textOf(fields.Session), parameters }
}

/**
 * A login by password at a Cognito user pool.
 *
 * @throws {SyncError} at once: `POOL_ID_INVALID`, `URL_INVALID`, `URL_INSECURE`. From `authorize`: `WRONG_CREDENTIALS`,
 * `SERVER_NOT_TRUSTED`, `PASSWORD_INVALID`, `CODE_REQUIRED`, `CODE_WRONG`, `CODE_EXPIRED`, `NEW_PASSWORD_REQUIRED`,
 * `NEW_PASSWORD_REFUSED`, `FACTOR_CHOICE_REQUIRED`, `ENROLMENT_REQUIRED`, `DEVICE_REQUIRED`, `CHALLENGE_UNSUPPORTED`, and
 * those of cognito-answers.ts.
 */
export function cognitoSrpAuthorizer(options: CognitoSrpOptions): Authorizer {
  const { clientId, clientSecret } = options
  const { region, poolName } = parsePoolId(options.poolId)
  const endpoint = parseBaseUrl(options.endpoint ?? `https://cognito-idp.${region}.amazonaws.com/`, { path: true }).href
  const metadata = options.clientMetadata === undefined ? {} : { ClientMetadata: options.clientMetadata }

  const call = (operation: Operation, body: Fields, context: AuthContext) =>
    callCognito(endpoint, operation, body, context)

  /** It names the user of the very request it goes into. */
  const secretHash = (userName: string): Record<string, string> =>
    clientSecret === undefined ? {} : { SECRET_HASH: cognitoSecretHash(userName, clientId, clientSecret) }

  const initiate = (flow: string, parameters: Fields, context: AuthContext) =>
    call('InitiateAuth', { AuthFlow: flow, ClientId: clientId, AuthParameters: parameters, ...metadata }, context)

  const respond = ({ name, session, userId }: Round, answer: Record<string, string>, context: AuthContext) =>
    call(
      'RespondToAuthChallenge',
      {
        ChallengeName: name,
        ClientId: clientId,
        ...(session === undefined ? {} : { Session: session }),
        ChallengeResponses: { USERNAME: userId, ...answer, ...secretHash(userId) },
        ...metadata,
      },
      context,
    )

  /** The two rounds that prove the password. Nothing skips the second: a result without it would prove nothing. */
  async function provePassword(password: string, context: AuthContext): Promise<{ userId: string; fields: Fields }> {
    const ephemeral = createCognitoEphemeral()
    const { userName } = options
    const start = { USERNAME: userName, SRP_A: ephemeral.hex, ...secretHash(userName) }
    const first = succeed(await initiate('USER_SRP_AUTH', start, context))
    const round = readRound(first, '')
    if (round.name !== 'PASSWORD_VERIFIER') throw challengeError(round.name)
    const { parameters } = round
    const userId = requireText(parameters, 'USER_ID_FOR_SRP')
    const block = requireText(parameters, 'SECRET_BLOCK')
    const secretBlock = fromBase64(block)
    if (secretBlock === undefined) throw invalidAnswer()
    const timestamp = cognitoTimestamp(context.clock.now())
    const signature = signForCognito(ephemeral, {
      poolName,
      userId,
      password,
      salt: requireText(parameters, 'SALT'),
      serverEphemeral: requireText(parameters, 'SRP_B'),
      secretBlock,
      timestamp,
    })
    const answer = {
      PASSWORD_CLAIM_SECRET_BLOCK: block,
      TIMESTAMP: timestamp,
      PASSWORD_CLAIM_SIGNATURE: toBase64(signature),
    }
    return { userId, fields: succeed(await respond({ ...round, userId }, answer, context)) }
  }

  async function askCode(kind: CodeKind, parameters: Fields, attempt: number, context: AuthContext): Promise<string> {
    const { ui } = context
    const ask = options.code ?? (ui && (() => ui.askSecret(`Code from the ${CODE_SOURCES[kind]}`)))
    if (ask === undefined) {
      throw new SyncError('auth', 'CODE_REQUIRED', `The account needs a code from the ${CODE_SOURCES[kind]}`, {
        hint: 'Log in where the code can be typed, or supply it to the program.',
      })
    }
    const destination = textOf(parameters.CODE_DELIVERY_DESTINATION)
    return (await ask({ kind, attempt, ...(destination === undefined ? {} : { destination }) })).trim()
  }

  async function answerNewPassword(parameters: Fields, refused: string): Promise<Record<string, string>> {
    const { attributes, required } = attributesOf(parameters)
    const missing = required.filter((name) => !attributes.get(name))
    if (options.newPassword === undefined) {
      throw new SyncError('auth', 'NEW_PASSWORD_REQUIRED', 'The account has to choose a new password first', {
        hint: 'Change it with another program, or supply a new one to this.',
      })
    }
    const reason = refused === 'PasswordHistoryPolicyViolationException' ? 'history' : 'policy'
    const chosen = await options.newPassword({ attributes, missing, ...(refused === '' ? {} : { refused: reason }) })
    checkPassword(chosen.password)
    const given = new Map(Object.entries(chosen.attributes ?? {}))
    const values = required.map((name) => [name, given.get(name) ?? attributes.get(name)] as const)
    if (values.some(([, value]) => !value)) {
      throw new SyncError('usage', 'ATTRIBUTE_MISSING', 'The service wants more than a new password', {
        hint: 'Supply a value for each attribute that it names.',
      })
    }
    return {
      NEW_PASSWORD: chosen.password,
      ...Object.fromEntries(values.map(([name, value]) => [`userAttributes.${name}`, value!])),
    }
  }

  async function chooseFactor(parameters: Fields): Promise<Record<string, string>> {
    if (options.chooseFactor === undefined) {
      throw new SyncError('auth', 'FACTOR_CHOICE_REQUIRED', 'The account has several second factors', {
        hint: 'Choose one with the option for it.',
      })
    }
    return { ANSWER: await options.chooseFactor(factorsOf(parameters)) }
  }

  /** What goes into the answer to a challenge; `refused` names the exception that the try before has met. */
  async function answer(
    round: Round,
    attempt: number,
    refused: string,
    context: AuthContext,
  ): Promise<Record<string, string>> {
    const code = CODE_CHALLENGES.get(round.name)
    if (code !== undefined) return { [code[1]]: await askCode(code[0], round.parameters, attempt, context) }
    if (round.name === 'NEW_PASSWORD_REQUIRED') return answerNewPassword(round.parameters, refused)
    if (round.name === 'SELECT_MFA_TYPE') return chooseFactor(round.parameters)
    throw challengeError(round.name)
  }

  /** One challenge, asked again with the same session while the answer is only mistyped. */
  async function meet(round: Round, context: AuthContext): Promise<Fields> {
    let refused = ''
    for (let attempt = 1; ; attempt++) {
      const reply = await respond(round, await answer(round, attempt, refused, context), context)
      if (reply.fields !== undefined) return reply.fields
      if (attempt >= MAX_ATTEMPTS || !ASK_AGAIN.has(reply.exception)) throw reply.error
      refused = reply.exception
    }
  }

  function toGrant(answer: Fields, userId: string, context: AuthContext, previous?: Grant): Grant {
    const result = answer.AuthenticationResult
    if (!isFields(result)) throw invalidAnswer()
    const kind = result.TokenType ?? 'Bearer'
    if (typeof kind !== 'string' || kind.toLowerCase() !== 'bearer') {
      throw new SyncError('server', 'TOKEN_TYPE', 'The server sent a token that is not a bearer token')
    }
    const { ExpiresIn: seconds } = result
    const lifetimeMs = lifetimeOf(Number.isSafeInteger(seconds) && Number(seconds) >= 0 ? Number(seconds) : undefined)
    const wantsId = options.stamp === 'id' || result.IdToken !== undefined
    const refreshToken =
      result.RefreshToken === undefined && previous !== undefined
        ? previous.refreshToken
        : requireToken(result, 'RefreshToken')
    return {
      v: 1,
      accessToken: requireToken(result, 'AccessToken'),
      ...(refreshToken === undefined ? {} : { refreshToken }),
      expiresAt: context.clock.now() + lifetimeMs,
      lifetimeMs,
      extra: { userId, ...(wantsId ? { idToken: requireToken(result, 'IdToken') } : {}) },
    }
  }

  async function authorize(context: AuthContext): Promise<Grant> {
    const password = await options.password()
    checkPassword(password)
    let { userId, fields } = await provePassword(password, context)
    for (let left = MAX_ROUNDS; fields.AuthenticationResult === undefined; left--) {
      if (left === 0) throw invalidAnswer()
      fields = await meet(readRound(fields, userId), context)
    }
    return toGrant(fields, userId, context)
  }

  async function renew(grant: Grant, context: AuthContext): Promise<Grant> {
    const { refreshToken } = grant
    if (refreshToken === undefined) throw loginExpired()
    const userId = grant.extra?.userId ?? options.userName
    const hashed = secretHash(options.renewalName ?? userId)
    const reply =
      options.refreshTokens === 'rotate'
        ? await call('GetTokensFromRefreshToken', tokenOfClient('RefreshToken', refreshToken), context)
        : await initiate('REFRESH_TOKEN_AUTH', { REFRESH_TOKEN: refreshToken, ...hashed }, context)
    if (reply.fields !== undefined) return toGrant(reply.fields, userId, context, grant)
    throw GRANT_ENDED.has(reply.exception) ? grantRefused() : reply.error
  }

  const tokenOfClient = (name: string, token: string): Fields => ({
    [name]: token,
    ClientId: clientId,
    ...(clientSecret === undefined ? {} : { ClientSecret: clientSecret }),
  })

  return {
    name: 'cognito-srp',
    clientId: options.clientId,
    unattended: 'once',
    needsRefreshToken: true,
    authorize,
    renew,
    sign(request, grant) {
      const token = options.stamp === 'id' ? grant.extra?.idToken : grant.accessToken
      // A grant from another setting; the session cannot tell.
      if (token === undefined) throw loginExpired()
      return { ...request, headers: { ...request.headers, authorization: `Bearer ${token}` } }
    },
    async revoke({ refreshToken }, context) {
      const reply = refreshToken && (await call('RevokeToken', tokenOfClient('Token', refreshToken), context))
      if (reply && reply.fields !== undefined) return
      if (!reply || NOT_REVOCABLE.has(reply.exception)) {
        context.warn?.('The login is forgotten here, but the service does not revoke it: it ends by itself.')
        return
      }
      // A token the service no longer takes is as good as revoked.
      if (!GRANT_ENDED.has(reply.exception)) throw reply.error
    },
    async identify(grant, context) {
      const token = grant.extra?.idToken
      if (token === undefined) return undefined
      const issuer = `https://cognito-idp.${region}.amazonaws.com/${options.poolId}`
      const keysUrl = `${endpoint.replace(/\/+$/, '')}/${options.poolId}/.well-known/jwks.json`
      return readIdentity(token, { issuer, clientId, keysUrl }, context)
    },
    async check({ accessToken }, context) {
      const reply = await call('GetUser', { AccessToken: accessToken }, context)
      if (reply.fields !== undefined) return true
      if (GRANT_ENDED.has(reply.exception)) return false
      throw reply.error
    },
  }
}

const CODE_SOURCES: Readonly<Record<CodeKind, string>> = Object.freeze({
  sms: 'text message',
  totp: 'authenticator app',
  email: 'e-mail',
})

const ASK_AGAIN = new Set([
  'CodeMismatchException',
  'InvalidPasswordException',
  'PasswordHistoryPolicyViolationException',
])
const GRANT_ENDED = new Set(['NotAuthorizedException', 'UserNotFoundException', 'RefreshTokenReuseException'])
const NOT_REVOCABLE = new Set(['UnsupportedTokenTypeException', 'UnsupportedOperationException'])

function succeed(reply: Reply): Fields {
  if (reply.fields === undefined) throw reply.error
  return reply.fields
}

const grantRefused = () =>
  new SyncError('auth', 'GRANT_REFUSED', 'The login is no longer valid', { hint: 'Log in again: sync login' })
