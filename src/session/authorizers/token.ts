/**
 * Logins without a login: an access token, a refresh token, or a whole grant that somebody else obtained.
 * @module
 */
import { SyncError } from '../../errors.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { readGrant } from '../grant.ts'
import { type OAuthClient, standardClient } from '../oauth/client.ts'
import { grantVerbs, isToken, refreshGrant } from '../oauth/exchange.ts'
import { type ServerOptions, serverFinder } from '../oauth/server.ts'

async function readToken(read: () => Promise<string>): Promise<string> {
  const text = (await read()).trim()
  if (isToken(text)) return text
  throw new SyncError('usage', 'TOKEN_MALFORMED', 'The token is empty or has characters no token can have', {
    hint: 'It must be a single line, as it was issued.',
  })
}

/**
 * An access token that is kept elsewhere, in a file for example (`SEALSYNC_ACCESS_TOKEN_FILE`). It is read at login and again
 * whenever the server no longer takes it: somebody may have put a new one there.
 *
 * @param read - Yields the token; space around it is ignored.
 * @throws {SyncError} `TOKEN_MALFORMED`; from `renew` also `TOKEN_REFUSED` while it is the same one.
 */
export function accessTokenAuthorizer(read: () => Promise<string>): Authorizer {
  return {
    name: 'access-token',
    unattended: 'again',
    authorize: async () => ({ v: 1, accessToken: await readToken(read) }),
    // Not GRANT_REFUSED: the stored grant stays, so that the next request looks for a new token again.
    async renew(grant) {
      const accessToken = await readToken(read)
      if (accessToken !== grant.accessToken) return { v: 1, accessToken }
      throw new SyncError('auth', 'TOKEN_REFUSED', 'The server does not take the access token (any more)', {
        hint: 'Put a new one in its place.',
      })
    },
  }
}

/** The client and the server that a refresh token is for. */
export interface TokenClientOptions extends ServerOptions {
  /** The client that the token was issued to. */
  readonly client: OAuthClient
}

/**
 * A refresh token that was obtained elsewhere; the login is its first renewal. Servers that rotate spend it by that: from then
 * on the session's store has the good one.
 *
 * @param origin - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {SyncError} from `authorize`: `TOKEN_MALFORMED`, and those of a token request.
 */
export function refreshTokenAuthorizer(
  origin: string,
  options: TokenClientOptions & { readonly refreshToken: () => Promise<string> },
): Authorizer {
  const locate = locator(origin, options)
  /** Sent before, and replaced or refused: once more would end the login for good where servers look for that. */
  let spent: string | undefined
  return {
    name: 'refresh-token',
    clientId: options.client.id,
    unattended: 'once',
    async authorize(context) {
      const refreshToken = await readToken(options.refreshToken)
      if (refreshToken === spent) {
        throw new SyncError(
          'auth',
          'TOKEN_REFUSED',
          'The refresh token was used before, and is good for one use only',
          {
            hint: 'Put a new one in its place.',
          },
        )
      }
      const { server, client } = await locate(context)
      try {
        const grant = await refreshGrant(server, client, { v: 1, accessToken: '', refreshToken }, context)
        if (grant.refreshToken !== refreshToken) spent = refreshToken
        return grant
      } catch (error) {
        if (error instanceof SyncError && error.code === 'GRANT_REFUSED') spent = refreshToken
        throw error
      }
    },
    ...grantVerbs(locate, options),
  }
}

/**
 * A grant that was obtained elsewhere, by an authorization code flow of a web application for example.
 *
 * @param origin - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {SyncError} from `authorize`: `GRANT_INVALID`.
 */
export function importedGrantAuthorizer(
  origin: string,
  options: TokenClientOptions & { readonly grant: () => Promise<Grant> },
): Authorizer {
  return {
    name: 'imported-grant',
    clientId: options.client.id,
    unattended: 'once',
    async authorize() {
      const grant = readGrant(await options.grant())
      if (grant !== undefined) return grant
      throw new SyncError('usage', 'GRANT_INVALID', 'This is not a grant')
    },
    ...grantVerbs(locator(origin, options), options),
  }
}

function locator(origin: string, options: TokenClientOptions) {
  const client = standardClient(options.client)
  const find = serverFinder(origin, options)
  return async (context: AuthContext) => ({ server: (await find(context)).server, client })
}
