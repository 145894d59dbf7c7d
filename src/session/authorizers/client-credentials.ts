/**
 * Client credentials grant (RFC 6749 §4.4): a program logs in as itself. There is nothing to renew with, so renewal asks again.
 * @module
 */
import { SyncError } from '../../errors.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { isPublic, type OAuthClient, standardClient } from '../oauth/client.ts'
import { grantVerbs, requestToken } from '../oauth/exchange.ts'
import { type Endpoints, type ServerOptions, serverFinder } from '../oauth/server.ts'

/** How a client logs in as itself (RFC 6749 §4.4). */
export interface ClientCredentialsOptions extends ServerOptions {
  /** With a secret (`client_secret_basic` unless it says otherwise) or a key. */
  readonly client: OAuthClient
  readonly scope?: string
  /** Further parameters of the token request (`audience`, `resource`). */
  readonly parameters?: Readonly<Record<string, string>>
  /** Endpoints by name, for services that have several installations. */
  readonly environments?: Readonly<Record<string, Endpoints>>
  /** Which of them. */
  readonly environment?: string
}

function chooseServer(options: ClientCredentialsOptions): ServerOptions {
  const { environments = {}, environment } = options
  if (environment === undefined) return options
  const endpoints = Object.hasOwn(environments, environment) ? environments[environment] : undefined
  if (endpoints !== undefined) return { ...options, endpoints }
  const known = Object.keys(environments).join(', ') || 'none'
  throw new SyncError('usage', 'ENVIRONMENT_UNKNOWN', `There is no environment of that name; known: ${known}`)
}

/**
 * Logs in as a client.
 *
 * @param origin - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {SyncError} `CLIENT_INVALID` for a public client; `ENVIRONMENT_UNKNOWN`, which lists the known ones;
 * `ENDPOINT_INVALID`, `URL_INSECURE`. From `authorize` and `renew`: those of a token request, and of reading a key.
 */
export function clientCredentialsAuthorizer(origin: string, options: ClientCredentialsOptions): Authorizer {
  const client = standardClient(options.client)
  if (isPublic(client)) throw new SyncError('usage', 'CLIENT_INVALID', 'This login needs a client secret or a key')
  const serverOptions = chooseServer(options)
  const find = serverFinder(origin, serverOptions)
  const locate = async (context: AuthContext) => ({ server: (await find(context)).server, client })

  const ask = async (what: string, context: AuthContext, previous?: Grant) => {
    const { server } = await locate(context)
    return requestToken({
      server,
      client,
      context,
      what,
      grantType: 'client_credentials',
      parameters: options.parameters ?? {},
      // A proof by key may be good for one request only; a secret is not spent.
      repeatable: client.secret !== undefined,
      scope: options.scope,
      ...(previous?.scope === undefined ? {} : { previous: { ...withoutTokens, scope: previous.scope } }),
    })
  }
  return {
    name: 'client-credentials',
    clientId: client.id,
    unattended: 'again',
    ...grantVerbs(locate, serverOptions),
    needsRefreshToken: false,
    authorize: (context) => ask('The login', context),
    renew: (grant, context) => ask('Renewing the login', context, grant),
  }
}

/** Only the scope of the last grant matters for the next one. */
const withoutTokens = { v: 1, accessToken: '' } as const
