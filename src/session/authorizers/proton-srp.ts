/**
 * Login at Proton-style servers: SRP with a signed modulus and bcrypt, a second factor where the account has one, and tokens
 * that belong to a session id. The arithmetic is crypto/srp.ts, the signature of the modulus pgp-signed-message.ts, what
 * answers mean proton-answers.ts.
 *
 * After an answer that fails a check (modulus, ephemeral, server proof) nothing more is sent: whoever answered does not know
 * the account, so its tokens are not used either, not even to log out.
 * @module
 */
import { checkPrime } from 'node:crypto'
import { type } from 'node:os'
import { encodeBase64, hash } from 'bcryptjs'
import { concat, fromBase64, toBase64, utf8 } from '../../../crypto/bytes.ts'
import { checkServerProof, type ProtonProofs, protonGroup, proveToProton, type SrpGroup } from '../../../crypto/srp.ts'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { parseBaseUrl } from '../../http/addresses.ts'
import type { HttpRequest } from '../../http/types.ts'
import { VERSION } from '../../version.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { openSignedMessage, type PinnedKey, PROTON_MODULUS_KEY } from '../pgp-signed-message.ts'
import { isSuccess, judgeProton, problemOf, protonScope, secondFactorOf } from '../proton-answers.ts'
import {
  checkPassword,
  type Fields,
  invalidAnswer,
  loginExpired,
  parseFields,
  requireText,
  requireToken,
  textOf,
} from '../srp-answers.ts'

/** How a login by SRP-6a goes. */
export interface ProtonSrpOptions {
  readonly userName: string
  /** Asked for once per login. A wrong password is never sent twice: accounts get locked. */
  password(): Promise<string>
  /** Code of the second factor, or a recovery code. Default: asks through `ui.askSecret`. */
  code?(): Promise<string>
  /** Where the auth routes are below the base URL: `/auth` (default), `/auth/v4`, `/core/v4/auth`. */
  readonly authPath?: string
  /** `x-pm-appversion`: `Name_1.2.3` or `platform-product@1.2.3`. Default `Other`. */
  readonly appVersion?: string
  /** Default: this program, its version and the system. */
  readonly userAgent?: string
  /** `x-pm-apiversion`. Default: not sent. */
  readonly apiVersion?: string
  /** `accept` of every request. Default: the request's own. */
  readonly accept?: string
  readonly clientSecret?: string
  /** `Intent` of newer servers. Default: not sent. */
  readonly intent?: 'Proton' | 'SSO' | 'Auto'
  /** `RedirectURI` of a renewal. Default `http://protonmail.ch`. */
  readonly redirectUri?: string
  /** Who signs the modulus. Default: Proton's published key. */
  readonly modulusKey?: PinnedKey
  /** From the page that `HUMAN_VERIFICATION` names; dropped once the server refuses it. */
  readonly humanVerification?: { readonly type: string; readonly token: string }
}

const MIN_SALT = 10
const MAX_SALT = 256

/**
 * The bcrypt string that stands for a password: cost 10, 60 ASCII characters. bcrypt reads the first 72 bytes of the password.
 *
 * @param salt - 10 to 256 bytes; with `proton` behind it, the first 16 count.
 * @throws {SyncError} `PASSWORD_INVALID` for an empty password, one with NUL, and one that is not valid Unicode.
 */
export async function hashProtonPassword(password: string, salt: Uint8Array): Promise<string> {
  checkPassword(password)
  if (password.includes('\0')) throw new SyncError('usage', 'PASSWORD_INVALID', 'The password holds a NUL')
  if (salt.length < MIN_SALT || salt.length > MAX_SALT) throw invalidAnswer()
  const salt16 = concat(salt, utf8('proton')).subarray(0, 16)
  // The prefix is part of what is hashed on, so it is exactly this one. The asynchronous form lets other work run in between.
  return hash(password, `$2y$10$${encodeBase64(salt16, 16)}`)
}

/**
 * Whether N is a safe prime, given that 2^q = −1 mod N for q = (N − 1) / 2: if q is prime and 3 does not divide N, then N is
 * prime by Pocklington's theorem. In the background.
 */
const isSafePrime = (N: bigint) =>
  new Promise<boolean>((resolve, reject) => {
    checkPrime((N - 1n) / 2n, (error, prime) => (error ? reject(error) : resolve(prime && N % 3n !== 0n)))
  })

/** N from its signed message. Only the published key is known to sign safe primes; for others it is checked here. */
async function readModulus(message: string, key: PinnedKey): Promise<SrpGroup> {
  const modulus = fromBase64(openSignedMessage(message, key))
  if (modulus === undefined) throw invalidAnswer()
  const group = protonGroup(modulus)
  const isPublished = key.fingerprint.toLowerCase() === PROTON_MODULUS_KEY.fingerprint
  if (!isPublished && !(await isSafePrime(group.N))) {
    throw new SyncError('auth', 'SERVER_NOT_TRUSTED', 'The modulus is not a safe prime', {
      hint: 'Tell the server’s administrator.',
    })
  }
  return group
}

const CURRENT_VERSIONS: readonly unknown[] = [3, 4]
const OLD_VERSIONS: readonly unknown[] = [0, 1, 2]

function checkVersion(version: unknown): void {
  if (CURRENT_VERSIONS.includes(version)) return
  if (!OLD_VERSIONS.includes(version)) throw invalidAnswer()
  throw new SyncError(
    'auth',
    'PASSWORD_OUTDATED',
    'The account’s password is stored in a form that is not used any more',
    {
      hint: 'Change the password in the web client, then log in again.',
    },
  )
}

/** Answers the challenge of `info`. */
async function prove(info: Fields, password: string, key: PinnedKey): Promise<ProtonProofs> {
  checkVersion(info.Version)
  const group = await readModulus(requireText(info, 'Modulus'), key)
  const serverEphemeral = fromBase64(requireText(info, 'ServerEphemeral'))
  const salt = fromBase64(requireText(info, 'Salt'))
  if (serverEphemeral === undefined || salt === undefined) throw invalidAnswer()
  return proveToProton(group, serverEphemeral, await hashProtonPassword(password, salt))
}

/** Checks the server's proof first: before that, nothing in the answer means anything. */
function readLogin(answer: Fields, proofs: ProtonProofs): Grant {
  const proof = textOf(answer.ServerProof)
  checkServerProof(proofs, proof === undefined ? undefined : fromBase64(proof))
  const scope = protonScope(answer)
  const userId = textOf(answer.UserID)
  const mode = answer.PasswordMode
  return {
    v: 1,
    accessToken: requireToken(answer, 'AccessToken'),
    refreshToken: requireToken(answer, 'RefreshToken'),
    ...(scope === undefined ? {} : { scope }),
    extra: {
      uid: requireToken(answer, 'UID'),
      ...(typeof mode === 'number' ? { passwordMode: String(mode) } : {}),
      ...(userId === undefined ? {} : { userId }),
    },
  }
}

/**
 * A login by password at a Proton-style server. A grant has no known end: the session renews it after a 401.
 *
 * @param baseUrl - Of the API: `https://HOST` or `https://HOST/PATH`.
 * @throws {SyncError} from `authorize`: `SERVER_NOT_TRUSTED`, `WRONG_CREDENTIALS`, `CODE_REQUIRED`, `CODE_WRONG`,
 * `SECOND_FACTOR_UNSUPPORTED`, `PASSWORD_INVALID`, `PASSWORD_OUTDATED`, and those of proton-answers.ts.
 */
export function protonSrpAuthorizer(baseUrl: string, options: ProtonSrpOptions): Authorizer {
  const base = parseBaseUrl(baseUrl, { path: true }).href.replace(/\/+$/, '')
  const routes = `${base}${options.authPath ?? '/auth'}`
  const modulusKey = options.modulusKey ?? PROTON_MODULUS_KEY
  let human = options.humanVerification
  let { appVersion, userAgent } = options

  const headersOf = (grant: Grant | undefined): Record<string, string> => ({
    'x-pm-appversion': appVersion ?? 'Other',
    'user-agent': userAgent ?? `sealsync/${VERSION} (${type()})`,
    ...(options.apiVersion === undefined ? {} : { 'x-pm-apiversion': options.apiVersion }),
    ...(options.accept === undefined ? {} : { accept: options.accept }),
    ...(human === undefined
      ? {}
      : { 'x-pm-human-verification-token-type': human.type, 'x-pm-human-verification-token': human.token }),
    ...(grant === undefined
      ? {}
      : { 'x-pm-uid': grant.extra?.uid ?? '', authorization: `Bearer ${grant.accessToken}` }),
  })

  const dropHuman = () => {
    human = undefined
  }

  /** One call below the auth path; every answer but a success is thrown as an error. */
  async function call(
    context: AuthContext,
    [method, path]: [HttpRequest['method'], string],
    body: Fields | undefined,
    grant?: Grant,
  ): Promise<Fields> {
    const request: HttpRequest = {
      method,
      url: routes + path,
      label: new URL(routes + path).pathname,
      headers: {
        accept: 'application/json',
        ...headersOf(grant),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: Buffer.from(JSON.stringify(body)) }),
      ...(context.signal === undefined ? {} : { signal: context.signal }),
    }
    const response = await context.send(request)
    const fields = parseFields(response.body)
    if (fields !== undefined && isSuccess(response, fields)) return fields
    throw problemOf(response, fields, { base, now: context.clock.now(), dropHuman })
  }

  const end = (grant: Grant, context: AuthContext) => call(context, ['DELETE', ''], undefined, grant)

  async function askCode(context: AuthContext): Promise<string> {
    const { ui } = context
    const ask = options.code ?? (ui && (() => ui.askSecret('Code of the second factor')))
    if (ask === undefined) {
      throw new SyncError('auth', 'CODE_REQUIRED', 'The account needs a second factor, and nobody is there to ask', {
        hint: 'Log in where the code can be typed, or supply it to the program.',
      })
    }
    return (await ask()).trim()
  }

  async function secondFactor(grant: Grant, context: AuthContext): Promise<Grant> {
    try {
      const TwoFactorCode = await askCode(context)
      const scope = protonScope(await call(context, ['POST', '/2fa'], { TwoFactorCode }, grant))
      return scope === undefined ? grant : { ...grant, scope }
    } catch (error) {
      // The password was right, so a login exists that nobody will use. The first error matters more than this one.
      await end(grant, context).catch(() => {})
      if (error instanceof SyncError && error.code === 'WRONG_CREDENTIALS') throw wrongCode(error)
      throw error
    }
  }

  async function renew(grant: Grant, context: AuthContext): Promise<Grant> {
    const { refreshToken } = grant
    if (refreshToken === undefined || grant.extra?.uid === undefined) throw loginExpired()
    const body = {
      ResponseType: 'token',
      GrantType: 'refresh_token',
      RefreshToken: refreshToken,
      RedirectURI: options.redirectUri ?? 'http://protonmail.ch',
    }
    const answer = await call(context, ['POST', '/refresh'], body, grant)
    const scope = protonScope(answer)
    return {
      ...grant,
      accessToken: requireToken(answer, 'AccessToken'),
      refreshToken: answer.RefreshToken === undefined ? refreshToken : requireToken(answer, 'RefreshToken'),
      ...(scope === undefined ? {} : { scope }),
    }
  }

  return {
    name: 'proton-srp',
    unattended: 'once',
    clientName: () => ({
      ...(appVersion === undefined ? {} : { appVersion }),
      ...(userAgent === undefined ? {} : { userAgent }),
    }),
    adoptName(name) {
      appVersion ??= name.appVersion
      userAgent ??= name.userAgent
    },
    needsRefreshToken: true,
    async authorize(context) {
      const password = await options.password()
      checkPassword(password)
      const account = {
        Username: options.userName,
        ...(options.clientSecret === undefined ? {} : { ClientSecret: options.clientSecret }),
      }
      const intent = options.intent === undefined ? {} : { Intent: options.intent }
      const info = await call(context, ['POST', '/info'], { ...account, ...intent })
      const SRPSession = requireText(info, 'SRPSession')
      const proofs = await prove(info, password, modulusKey)
      const answer = await call(context, ['POST', ''], {
        ...account,
        ClientEphemeral: toBase64(proofs.clientEphemeral),
        ClientProof: toBase64(proofs.clientProof),
        SRPSession,
      })
      const grant = readLogin(answer, proofs)
      switch (secondFactorOf(answer)) {
        case 'none':
          return grant
        case 'code':
          return secondFactor(grant, context)
        case 'unsupported':
          await end(grant, context).catch(() => {})
          throw new SyncError('auth', 'SECOND_FACTOR_UNSUPPORTED', 'The account’s second factor is a security key', {
            hint: 'Add an authenticator app to the account; security keys cannot be used here.',
          })
      }
    },
    renew,
    sign: (request, grant) => ({ ...request, headers: { ...request.headers, ...headersOf(grant) } }),
    async revoke(grant, context) {
      try {
        await end(grant, context)
      } catch (error) {
        // The access token is past its end, the login is not: only a fresh token can end it.
        if (!isRefused(error)) throw error
        try {
          await end(await renew(grant, context), context)
        } catch (again) {
          if (!isRefused(again)) throw again
        }
      }
    },
    judge: (response) => judgeProton(response, { base, now: systemClock.now(), dropHuman }),
  }
}

const isRefused = (error: unknown) =>
  error instanceof SyncError && (error.code === 'GRANT_REFUSED' || error.code === 'LOGIN_EXPIRED')

const wrongCode = ({ status }: SyncError) =>
  new SyncError('auth', 'CODE_WRONG', 'The code of the second factor was refused', {
    hint: 'Log in again with a fresh code.',
    ...(status === undefined ? {} : { status }),
  })
