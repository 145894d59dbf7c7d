/**
 * Resource owner password grant (RFC 6749 §4.3): only when somebody asks for it, for scripts on servers that allow it.
 * @module
 */
import { SyncError } from '../../errors.ts'
import type { AuthContext, Authorizer } from '../authorizer.ts'
import { type OAuthClient, SCRIPTING_CLIENT } from '../oauth/client.ts'
import { errorCodeOf, oauthError } from '../oauth/errors.ts'
import { askToken, grantVerbs } from '../oauth/exchange.ts'
import { defaultServer, type ServerOptions, serverFinder } from '../oauth/server.ts'

/** How a login by user and password goes (RFC 6749 §4.3). */
export interface PasswordOptions extends ServerOptions {
  readonly userName: string
  /** Asked for once per login. A wrong password is never sent twice: accounts get locked. */
  password(): Promise<string>
  /** Default: the scripting client with its empty secret. */
  readonly client?: OAuthClient
  readonly scope?: string
  /** Read the server's metadata. Default: only the usual paths, or `endpoints`. */
  readonly metadata?: boolean
  /** Asks for a one-time code; only called when the server wants one, once per login. Empty: the login ends. */
  readonly code?: () => Promise<string>
  /** Form field for that code. Default `otp`. */
  readonly codeParameter?: string
  /** Error code with which the server says that the password was right and a one-time code is missing. Default `mfa_required`. */
  readonly codeError?: string
}

/**
 * Logs in with user name and password.
 *
 * @param origin - `https://HOST` of the authorization server.
 * `authorize` throws `WRONG_CREDENTIALS`, `CODE_MISSING`, and those of a token request.
 *
 * @throws {TypeError} when `codeError` is `invalid_grant`: a wrong password would be sent twice.
 */
export function passwordAuthorizer(origin: string, options: PasswordOptions): Authorizer {
  const { client = SCRIPTING_CLIENT, scope, codeParameter = 'otp', codeError = 'mfa_required' } = options
  if (codeError === 'invalid_grant') throw new TypeError('invalid_grant is what servers say to a wrong password')
  const found = serverFinder(origin, options)
  const useMetadata = options.metadata === true || options.endpoints !== undefined
  const locate = async (context: AuthContext) => ({
    server: useMetadata ? (await found(context)).server : defaultServer(origin),
    client,
  })
  return {
    name: 'password',
    clientId: client.id,
    unattended: 'once',
    async authorize(context) {
      const { server } = await locate(context)
      const credentials = { username: options.userName, password: await options.password() }
      const what = 'The login'
      const ask = (parameters: Record<string, string>) =>
        askToken({ server, client, context, what, grantType: 'password', parameters, scope })
      try {
        return await ask(credentials).catch(async (error) => {
          if (options.code === undefined || errorCodeOf(error) !== codeError) throw error
          return ask({ ...credentials, [codeParameter]: await readCode(options.code) })
        })
      } catch (error) {
        throw wrongPassword(oauthError(error, what))
      }
    },
    ...grantVerbs(locate, options),
  }
}

/** What the server says of wrong credentials, it says here of the password alone. */
function wrongPassword(error: unknown): unknown {
  if (!(error instanceof SyncError) || error.code !== 'GRANT_REFUSED') return error
  return new SyncError('auth', 'WRONG_CREDENTIALS', 'The server refused the user name or the password', {
    hint: 'Check both. Only local accounts and those of Active Directory can log in by password: others use the browser.',
    cause: error.cause,
    ...(error.status === undefined ? {} : { status: error.status }),
  })
}

async function readCode(code: () => Promise<string>): Promise<string> {
  const text = (await code()).trim()
  if (text === '') throw new SyncError('auth', 'CODE_MISSING', 'The server wants a one-time code and there is none')
  return text
}
