/**
 * Resource owner password grant (RFC 6749 §4.3): only when somebody asks for it, for scripts on servers that allow it.
 * @module
 */
import * as oauth from 'oauth4webapi'
import type { Authorizer } from '../authorizer.ts'
import {
  clientAuth,
  defaultServer,
  type OAuthClient,
  oauthError,
  refreshGrant,
  requestOptions,
  revokeGrant,
  SCRIPTING_CLIENT,
  toGrant,
} from '../oauth.ts'

export interface PasswordOptions {
  readonly userName: string
  /** Asked for once per login. A wrong password is never sent twice: accounts get locked. */
  password(): Promise<string>
  /** Default: the scripting client with its empty secret. */
  readonly client?: OAuthClient
}

export function passwordAuthorizer(origin: string, options: PasswordOptions): Authorizer {
  const client = options.client ?? SCRIPTING_CLIENT
  const server = defaultServer(origin)
  return {
    name: 'password',
    async authorize(context) {
      const parameters = { username: options.userName, password: await options.password() }
      try {
        const id = { client_id: client.id }
        const answer = await oauth.genericTokenEndpointRequest(
          server,
          id,
          clientAuth(client),
          'password',
          parameters,
          requestOptions(context.send, context.signal),
        )
        return toGrant(await oauth.processGenericTokenEndpointResponse(server, id, answer), context)
      } catch (error) {
        throw oauthError(error, 'The login')
      }
    },
    renew: (grant, context) => refreshGrant(server, client, grant, context),
    revoke: (grant, context) => revokeGrant(server, client, grant, context),
  }
}
