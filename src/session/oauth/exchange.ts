/**
 * The exchanges that all OAuth authorizers share: tokens for a grant, renewal, introspection, revocation.
 * @module
 */
import * as oauth from 'oauth4webapi'
import { SyncError } from '../../errors.ts'
import type { AuthContext, Authorizer, Grant, Introspection } from '../authorizer.ts'
import { readIdentity } from '../identity.ts'
import { clientAuth, type OAuthClient } from './client.ts'
import { bare, loginAgain, oauthError } from './errors.ts'
import { type Found, keysUrlOf, requireEndpoint, type Server, type ServerOptions } from './server.ts'
import { DEFAULT_LIFETIME_SECONDS, requestOptions } from './wire.ts'

const MIN_LIFETIME_MS = 30_000
const MAX_LIFETIME_MS = 24 * 3_600_000

/** A lifetime in milliseconds, within 30 s and 24 h; five minutes where the server names none. */
export const lifetimeOf = (seconds: number | undefined): number =>
  Math.min(MAX_LIFETIME_MS, Math.max(MIN_LIFETIME_MS, (seconds ?? DEFAULT_LIFETIME_SECONDS) * 1000))

/** What goes into a header is visible ASCII (RFC 6750 §2.1), and fits into one: servers take 8 to 32 KiB of headers. */
export const isToken = (text: string): boolean => /^[\x21-\x7e]{1,16384}$/.test(text)

/**
 * Checks a token answer (RFC 6749 §5.1) and makes a grant of it.
 *
 * @param previous - The grant that was renewed: what the answer leaves out stays.
 * @param asked - The scope that was asked for.
 * @throws {SyncError} `TOKEN_MALFORMED`, `TOKEN_TYPE`.
 */
export function toGrant(
  answer: oauth.TokenEndpointResponse,
  context: AuthContext,
  previous?: Grant,
  asked?: string,
  idToken: string | undefined = previous?.extra?.idToken,
): Grant {
  const refreshToken = answer.refresh_token ?? previous?.refreshToken
  for (const token of [answer.access_token, refreshToken]) {
    if (token !== undefined && !isToken(token)) {
      throw new SyncError('server', 'TOKEN_MALFORMED', 'The server sent a token with characters no token can have')
    }
  }
  if (answer.token_type !== 'bearer') {
    throw new SyncError('server', 'TOKEN_TYPE', 'The server sent a token that is not a bearer token')
  }
  const lifetimeMs = lifetimeOf(answer.expires_in)
  const scope = answer.scope ?? previous?.scope
  warnWhenNarrower(previous?.scope ?? asked, answer.scope, context, refreshToken !== undefined)
  return {
    v: 1,
    accessToken: answer.access_token,
    expiresAt: context.clock.now() + lifetimeMs,
    lifetimeMs,
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(scope === undefined ? {} : { scope }),
    ...(idToken === undefined ? {} : { extra: { idToken } }),
  }
}

/** RFC 6749 §3.3. Said once: a renewal is compared with the grant before it, not with what was asked for at first. */
function warnWhenNarrower(
  expected: string | undefined,
  granted: string | undefined,
  context: AuthContext,
  canRenew: boolean,
): void {
  if (expected === undefined || granted === undefined) return
  const there = new Set(granted.split(/\s+/))
  // Servers grant `offline_access` by a refresh token and seldom repeat its name.
  const missing = expected.split(/\s+/).filter((one) => one !== '' && !there.has(one))
  const shown = missing.filter((one) => !(one === 'offline_access' && canRenew))
  if (shown.length === 0) return
  const names = shown.map((one) => one.replace(/[^\w.:/-]/g, '?').slice(0, 100)).join(', ')
  context.warn?.(`The server did not grant all of the scope that was asked for; missing: ${names}`, 'SCOPE_NARROWED')
}

export interface TokenRequest {
  readonly server: Server
  readonly client: OAuthClient
  readonly context: AuthContext
  /** What is being done, for messages. */
  readonly what: string
  readonly grantType: string
  readonly parameters: Readonly<Record<string, string>>
  readonly scope?: string | undefined
  /** Scope that an earlier request of the same login asked for. Default: `scope`. */
  readonly asked?: string | undefined
  readonly previous?: Grant
  /** The same request may be sent again: nothing is spent by it. */
  readonly repeatable?: boolean
}

/** One request to the token endpoint; throws what the library throws, for those who look at the server's error code. */
export async function askToken(request: TokenRequest): Promise<Grant> {
  const { server, client, context, what, scope, repeatable, previous } = request
  let idToken: string | undefined
  const onIdToken = (token: string) => {
    idToken = token
  }
  requireEndpoint(server, 'token')
  const id = { client_id: client.id }
  const answer = await oauth.genericTokenEndpointRequest(
    server,
    id,
    clientAuth(client, context.clock),
    request.grantType,
    { ...request.parameters, ...(scope === undefined ? {} : { scope }) },
    requestOptions(context, { what, onIdToken, ...(repeatable === undefined ? {} : { repeatable }) }),
  )
  const tokens = await oauth.processGenericTokenEndpointResponse(server, id, answer)
  return toGrant(tokens, context, previous, request.asked ?? scope, idToken)
}

/**
 * One request to the token endpoint.
 *
 * @throws {SyncError} `GRANT_REFUSED` for wrong or expired credentials; `CLIENT_REFUSED`, `OAUTH_REFUSED`, `CLIENT_NOT_ALLOWED`,
 * `GRANT_TYPE_UNSUPPORTED`, `SCOPE_REFUSED`; `RATE_LIMITED`, `SERVER` with `retryAfterMs` where the server says; `OAUTH_ANSWER`,
 * `TOKEN_TYPE`, `TOKEN_MALFORMED` for answers against the rules.
 */
export async function requestToken(request: TokenRequest): Promise<Grant> {
  try {
    return await askToken(request)
  } catch (error) {
    throw oauthError(error, request.what)
  }
}

/**
 * Renewal with the refresh token (RFC 6749 §6). Without a new one in the answer the old one stays.
 *
 * @throws {SyncError} `LOGIN_EXPIRED` without a refresh token; else those of {@link requestToken}.
 */
export async function refreshGrant(
  server: Server,
  client: OAuthClient,
  grant: Grant,
  context: AuthContext,
): Promise<Grant> {
  if (grant.refreshToken === undefined) throw loginAgain('LOGIN_EXPIRED', 'The login has expired')
  return requestToken({
    server,
    client,
    context,
    what: 'Renewing the login',
    grantType: 'refresh_token',
    parameters: { refresh_token: grant.refreshToken },
    previous: grant,
  })
}

/**
 * Revokes the refresh token, then the access token (RFC 7009 §2.1); an unknown token counts as done. A server without a
 * revocation endpoint is named in a warning: its tokens end by themselves.
 */
export async function revokeGrant(
  server: Server,
  client: OAuthClient,
  grant: Grant,
  context: AuthContext,
): Promise<void> {
  if (server.revocation_endpoint === undefined) {
    context.warn?.('The server cannot end a login; it stays good there until it expires')
    return
  }
  const tokens: [string, string][] = []
  if (grant.refreshToken !== undefined) tokens.push([grant.refreshToken, 'refresh_token'])
  tokens.push([grant.accessToken, 'access_token'])
  const what = 'Logging out'
  for (const [token, hint] of tokens) {
    try {
      const auth = clientAuth(client, context.clock)
      const answer = await oauth.revocationRequest(server, { client_id: client.id }, auth, token, {
        ...requestOptions(context, { what, repeatable: true }),
        additionalParameters: { token_type_hint: hint },
      })
      await oauth.processRevocationResponse(answer)
    } catch (error) {
      // Not asked to know this kind of token: nothing is left to do (RFC 7009 §2.2.1).
      if (error instanceof oauth.ResponseBodyError && error.error === 'unsupported_token_type') continue
      throw oauthError(error, what)
    }
  }
}

/**
 * Asks whether the access token holds (RFC 7662 §2).
 *
 * @returns what `active` says.
 * @throws {SyncError} `ENDPOINT_MISSING`; `INTROSPECTION_REFUSED` when the client may not ask: that says nothing of the login.
 */
export async function introspectGrant(
  server: Server,
  client: OAuthClient,
  grant: Grant,
  context: AuthContext,
): Promise<boolean> {
  return (await askIntrospection(server, client, grant, context)).active
}

const shown = (value: unknown) => (typeof value === 'string' && value.length <= 1_000 ? value : undefined)
/** Of a server's number of seconds. */
const timeOf = (value: unknown) => (Number.isSafeInteger(value) ? Number(value) * 1000 : undefined)

/** The fields of an answer that tell something; what has another form than it should is left out. */
function toIntrospection(answer: oauth.IntrospectionResponse): Introspection {
  const audience = Array.isArray(answer.aud)
    ? answer.aud.filter((one) => typeof one === 'string').join(' ')
    : answer.aud
  const fields = {
    scope: shown(answer.scope),
    clientId: shown(answer.client_id),
    userName: shown(answer.username),
    subject: shown(answer.sub),
    audience: shown(audience),
    issuer: shown(answer.iss),
    tokenType: shown(answer.token_type),
    expiresAt: timeOf(answer.exp),
    issuedAt: timeOf(answer.iat),
    notBefore: timeOf(answer.nbf),
  }
  const there = Object.entries(fields).filter(([, value]) => value !== undefined)
  return { active: answer.active, ...Object.fromEntries(there) }
}

async function askIntrospection(
  server: Server,
  client: OAuthClient,
  grant: Grant,
  context: AuthContext,
): Promise<Introspection> {
  requireEndpoint(server, 'introspection')
  const what = 'Checking the login'
  const id = { client_id: client.id }
  try {
    const auth = clientAuth(client, context.clock)
    const answer = await oauth.introspectionRequest(server, id, auth, grant.accessToken, {
      ...requestOptions(context, { what, repeatable: true }),
      additionalParameters: { token_type_hint: 'access_token' },
    })
    return toIntrospection(await oauth.processIntrospectionResponse(server, id, answer))
  } catch (error) {
    const known = oauthError(error, what)
    if (known instanceof SyncError && known.class === 'auth') {
      throw new SyncError('permission', 'INTROSPECTION_REFUSED', 'The client may not ask whether a login holds', {
        hint: 'Leave introspection off, or let the administrator allow it for this client.',
        ...(known.status === undefined ? {} : { status: known.status }),
        cause: bare(known),
      })
    }
    throw known
  }
}

/** Where to send what, for the verbs after the login. */
export type Locate = (context: AuthContext) => Promise<Pick<Found, 'server'> & { readonly client: OAuthClient }>

/** Renewal by refresh token, revocation, and introspection where it is wanted. */
export function grantVerbs(
  locate: Locate,
  options: ServerOptions = {},
): Required<Pick<Authorizer, 'renew' | 'revoke' | 'needsRefreshToken' | 'identify'>> & Pick<Authorizer, 'check'> {
  const introspect = options.introspect ?? options.endpoints?.introspection !== undefined
  return {
    needsRefreshToken: true,
    async renew(grant, context) {
      const { server, client } = await locate(context)
      return refreshGrant(server, client, grant, context)
    },
    async revoke(grant, context) {
      const { server, client } = await locate(context)
      return revokeGrant(server, client, grant, context)
    },
    async identify(grant, context) {
      const token = grant.extra?.idToken
      if (token === undefined) return undefined
      const { server, client } = await locate(context)
      return readIdentity(
        token,
        { issuer: server.issuer, clientId: client.id, keysUrl: keysUrlOf(server, options.allowedHosts) },
        context,
      )
    },
    ...(introspect
      ? {
          async check(grant: Grant, context: AuthContext) {
            const { server, client } = await locate(context)
            return askIntrospection(server, client, grant, context)
          },
        }
      : {}),
  }
}
