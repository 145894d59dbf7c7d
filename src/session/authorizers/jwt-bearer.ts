/**
 * JWT bearer grant (RFC 7523): a signed statement about who asks, for service accounts. Renewal makes a new one.
 * @module
 */
import { randomUUID } from 'node:crypto'
import { SyncError } from '../../errors.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { type OAuthClient, standardClient } from '../oauth/client.ts'
import { grantVerbs, requestToken } from '../oauth/exchange.ts'
import { requireEndpoint, type Server, type ServerOptions, serverFinder } from '../oauth/server.ts'
import { type SigningKeySource, signJwt } from '../oauth/signing-key.ts'

/** How a login with a signed statement goes (RFC 7523). */
export interface JwtBearerOptions extends ServerOptions {
  /** Who signs: claim `iss`, often the client's id. */
  readonly issuer: string
  /** For whom: claim `sub`. Default: `issuer`. */
  readonly subject?: string
  /** Claim `aud`. Default: the token endpoint. */
  readonly audience?: string
  readonly key: SigningKeySource
  /** Sent as a parameter; servers that want it in the JWT get it in `claims`. */
  readonly scope?: string
  /** How long each statement is good, 1 to 86,400 seconds. Default 300; few servers take more. */
  readonly validitySeconds?: number
  /** Further claims. */
  readonly claims?: Readonly<Record<string, unknown>>
  /** For servers that want the client to authenticate besides. Default: none, and no `client_id`. */
  readonly client?: OAuthClient
  /** Further parameters of the token request. */
  readonly parameters?: Readonly<Record<string, string>>
}

const JWT_GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
const DEFAULT_VALIDITY_SECONDS = 300
const MAX_VALIDITY_SECONDS = 86_400
const OURS = ['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti']

function checkOptions({ claims = {}, validitySeconds = DEFAULT_VALIDITY_SECONDS }: JwtBearerOptions): void {
  if (!Number.isInteger(validitySeconds) || validitySeconds < 1 || validitySeconds > MAX_VALIDITY_SECONDS) {
    throw new RangeError('validitySeconds must be an integer from 1 to 86400')
  }
  const taken = OURS.find((name) => Object.hasOwn(claims, name))
  if (taken !== undefined) {
    throw new SyncError('usage', 'CLAIM_RESERVED', `The claim ${taken} is set here and cannot be given`)
  }
}

/** A statement with a fresh id, from now on (RFC 7523 §3). No `nbf`: it would only make a slow server clock matter. */
async function assertionOf(options: JwtBearerOptions, server: Server, context: AuthContext): Promise<string> {
  const iat = Math.floor(context.clock.now() / 1000)
  return signJwt(
    {
      ...options.claims,
      iss: options.issuer,
      sub: options.subject ?? options.issuer,
      aud: options.audience ?? requireEndpoint(server, 'token'),
      iat,
      exp: iat + (options.validitySeconds ?? DEFAULT_VALIDITY_SECONDS),
      jti: randomUUID(),
    },
    options.key,
  )
}

/**
 * Logs in with a signed JWT.
 *
 * @param origin - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {RangeError} for a validity beyond 24 h.
 * @throws {SyncError} `CLAIM_RESERVED`, `ENDPOINT_INVALID`, `URL_INSECURE`. From `authorize` and `renew`: those of reading a key
 * (`KEY_INVALID`, `KEY_PASSPHRASE_NEEDED`, `KEY_PASSPHRASE_WRONG`, `KEY_LEGACY_ENCRYPTION`, `KEY_UNSUITABLE`) and of a token request;
 * `GRANT_REFUSED` may also mean that the clock here is wrong.
 */
export function jwtBearerAuthorizer(origin: string, options: JwtBearerOptions): Authorizer {
  checkOptions(options)
  const client = standardClient(options.client ?? { id: options.issuer })
  const find = serverFinder(origin, options)
  const locate = async (context: AuthContext) => ({ server: (await find(context)).server, client })

  const ask = async (what: string, context: AuthContext, previous?: Grant) => {
    const { server } = await locate(context)
    return requestToken({
      server,
      client,
      context,
      what,
      grantType: JWT_GRANT,
      parameters: { ...options.parameters, assertion: await assertionOf(options, server, context) },
      scope: options.scope,
      ...(previous?.scope === undefined ? {} : { previous: { v: 1, accessToken: '', scope: previous.scope } }),
    })
  }
  return {
    name: 'jwt-bearer',
    clientId: client.id,
    unattended: 'again',
    ...grantVerbs(locate, options),
    needsRefreshToken: false,
    authorize: (context) => ask('The login', context),
    renew: (grant, context) => ask('Renewing the login', context, grant),
  }
}
