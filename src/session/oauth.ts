/**
 * What the OAuth authorizers share: the server's endpoints, client credentials, token answers to grants, renewal and
 * revocation. Messages are oauth4webapi's; the bytes go through our own `Send`.
 * @module
 */
import * as oauth from 'oauth4webapi'
import { SyncError } from '../errors.ts'
import { checkScheme } from '../http/addresses.ts'
import type { HttpRequest, Send } from '../http/types.ts'
import type { AuthContext, Grant } from './authorizer.ts'

export interface OAuthClient {
  readonly id: string
  /** Absent: a public client. Empty is a secret too. */
  readonly secret?: string
}

/** The client that every server of this kind knows for scripts: its secret is empty. */
export const SCRIPTING_CLIENT: OAuthClient = Object.freeze({ id: 'dracoon_legacy_scripting', secret: '' })
/** The public client of the embedded server (PKCE, loopback redirect). */
export const PUBLIC_CLIENT: OAuthClient = Object.freeze({ id: 'sealsync' })

/** Endpoints of a server without metadata. */
export const defaultServer = (origin: string): oauth.AuthorizationServer => ({
  issuer: origin,
  authorization_endpoint: `${origin}/oauth/authorize`,
  token_endpoint: `${origin}/oauth/token`,
  revocation_endpoint: `${origin}/oauth/revoke`,
})

/**
 * Basic with the raw `id:secret`: the servers compare without the form encoding of RFC 6749 §2.3.1, and one of the clients
 * that everybody uses has an empty secret.
 */
const rawBasic =
  (secret: string): oauth.ClientAuth =>
  (_as, client, _body, headers) => {
    headers.set('authorization', `Basic ${Buffer.from(`${client.client_id}:${secret}`).toString('base64')}`)
  }

export const clientAuth = (client: OAuthClient): oauth.ClientAuth =>
  client.secret === undefined ? oauth.None() : rawBasic(client.secret)

/** Lets oauth4webapi speak through a `Send`. Redirects come back as they are and are then refused. */
export function requestOptions(send: Send, signal: AbortSignal | undefined) {
  return {
    [oauth.allowInsecureRequests]: true, // http is limited to loopback by the dialer
    [oauth.customFetch]: async (
      url: string,
      init: { method: string; headers: Record<string, string>; body?: unknown },
    ): Promise<Response> => {
      // Our dialler names the program; the library would name itself.
      const { 'user-agent': _library, ...headersWithoutAgent } = init.headers
      const request: HttpRequest = {
        method: init.method as HttpRequest['method'],
        url,
        headers: headersWithoutAgent,
        label: new URL(url).pathname,
        ...(init.body === undefined || init.body === null ? {} : { body: Buffer.from(String(init.body)) }),
        ...(signal === undefined ? {} : { signal }),
      }
      const { status, headers, body } = await send(request)
      const bodyless = status === 204 || status === 205 || status === 304
      // A `Response` cannot carry the made-up statuses that some proxies send.
      return new Response(bodyless ? null : withoutOddLifetime(body), { status: status > 599 ? 502 : status, headers })
    },
  }
}

/** Drops an `expires_in` that is no duration: the default lifetime then applies, instead of a refused answer. */
function withoutOddLifetime(body: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = body as Uint8Array<ArrayBuffer>
  let answer: unknown
  try {
    answer = JSON.parse(Buffer.from(body).toString('utf8'))
  } catch {
    return bytes
  }
  if (typeof answer !== 'object' || answer === null || !('expires_in' in answer)) return bytes
  const { expires_in: seconds, ...rest } = answer
  const isText = typeof seconds === 'string' && seconds.trim() !== ''
  const isDuration = (isText || typeof seconds === 'number') && Number.isFinite(Number(seconds)) && Number(seconds) >= 0
  return isDuration ? bytes : (Buffer.from(JSON.stringify(rest)) as Uint8Array<ArrayBuffer>)
}

const MIN_LIFETIME_MS = 30_000
const MAX_LIFETIME_MS = 24 * 3_600_000
const DEFAULT_LIFETIME_MS = 5 * 60_000

/** Checks a token answer and makes a grant of it. */
export function toGrant(answer: oauth.TokenEndpointResponse, context: AuthContext, previous?: Grant): Grant {
  const refreshToken = answer.refresh_token ?? previous?.refreshToken
  for (const token of [answer.access_token, refreshToken]) {
    // A token ends up in a header: nothing but visible ASCII (RFC 6750 §2.1).
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
      throw new SyncError('server', 'TOKEN_MALFORMED', 'The server sent a token with characters no token can have')
    }
  }
  if (answer.token_type !== 'bearer') {
    throw new SyncError('server', 'TOKEN_TYPE', 'The server sent a token that is not a bearer token')
  }
  const seconds = answer.expires_in
  const lifetimeMs =
    seconds !== undefined && Number.isFinite(seconds)
      ? Math.min(MAX_LIFETIME_MS, Math.max(MIN_LIFETIME_MS, seconds * 1000))
      : DEFAULT_LIFETIME_MS
  const scope = answer.scope ?? previous?.scope
  return {
    v: 1,
    accessToken: answer.access_token,
    expiresAt: context.clock.now() + lifetimeMs,
    lifetimeMs,
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(scope === undefined ? {} : { scope }),
  }
}

const loginAgain = (code: string, message: string, cause?: unknown) =>
  new SyncError('auth', code, message, { hint: 'Log in again: sync login', cause })

/** The library's error as a cause: its text only, because what it carries besides are whole answers, tokens included. */
const bare = (error: Error & { code?: string }) => new Error(`${error.name}: ${error.code ?? error.message}`)

/** Turns a failed OAuth exchange into one of our errors; server texts are data and stay out of the message. */
export function oauthError(error: unknown, what: string): unknown {
  if (error instanceof SyncError) return error
  if (error instanceof oauth.ResponseBodyError) {
    const { error: code, status } = error
    if (code === 'invalid_grant') {
      return loginAgain('GRANT_REFUSED', `${what} was refused: wrong or expired credentials`, bare(error))
    }
    if (status >= 500) {
      return new SyncError('server', 'SERVER', `${what} failed at the server (${status})`, { status, retryable: true })
    }
    return new SyncError(
      'auth',
      'OAUTH_REFUSED',
      `${what} was refused (${code.replace(/[^\w.-]/g, '?').slice(0, 60)})`,
      {
        hint: 'Check --client-id, --client-secret-file and --redirect-uri with the server’s administrator.',
        status,
        cause: bare(error),
      },
    )
  }
  if (error instanceof oauth.AuthorizationResponseError) {
    return loginAgain('LOGIN_DENIED', `${what} was denied in the browser`, bare(error))
  }
  if (
    error instanceof oauth.OperationProcessingError ||
    error instanceof oauth.UnsupportedOperationError ||
    error instanceof oauth.WWWAuthenticateChallengeError
  ) {
    const answer = error instanceof oauth.WWWAuthenticateChallengeError ? error.response : error.cause
    const status = answer instanceof Response ? answer.status : undefined
    if (status === 429) {
      return new SyncError('rate_limit', 'RATE_LIMITED', `${what}: too many tries`, { status, retryable: true })
    }
    if (status === 401) {
      return new SyncError('auth', 'OAUTH_REFUSED', `${what} was refused (401)`, {
        hint: 'The server does not know this client; see --client-id.',
        status,
        cause: bare(error),
      })
    }
    const busy = status !== undefined && status >= 500
    return new SyncError('server', busy ? 'SERVER' : 'OAUTH_ANSWER', `${what}: the server’s answer is not OAuth`, {
      ...(status === undefined ? {} : { status }),
      hint: 'Is this the address of a compatible server? A proxy or login portal may stand in between.',
      retryable: busy,
      cause: bare(error),
    })
  }
  return error
}

/** Renewal with the refresh token (RFC 6749 §6). */
export async function refreshGrant(
  server: oauth.AuthorizationServer,
  client: OAuthClient,
  grant: Grant,
  context: AuthContext,
): Promise<Grant> {
  if (grant.refreshToken === undefined) throw loginAgain('LOGIN_EXPIRED', 'The login has expired')
  const as = server
  const options = requestOptions(context.send, context.signal)
  try {
    const id = { client_id: client.id }
    const answer = await oauth.refreshTokenGrantRequest(as, id, clientAuth(client), grant.refreshToken, options)
    return toGrant(await oauth.processRefreshTokenResponse(as, id, answer), context, grant)
  } catch (error) {
    throw oauthError(error, 'Renewing the login')
  }
}

/** Revokes the refresh token, then the access token (RFC 7009 §2.1); an unknown token counts as done. */
export async function revokeGrant(
  server: oauth.AuthorizationServer,
  client: OAuthClient,
  grant: Grant,
  context: AuthContext,
): Promise<void> {
  const tokens: [string, string][] = []
  if (grant.refreshToken !== undefined) tokens.push([grant.refreshToken, 'refresh_token'])
  tokens.push([grant.accessToken, 'access_token'])
  for (const [token, hint] of tokens) {
    try {
      const answer = await oauth.revocationRequest(server, { client_id: client.id }, clientAuth(client), token, {
        ...requestOptions(context.send, context.signal),
        additionalParameters: { token_type_hint: hint },
      })
      await oauth.processRevocationResponse(answer)
    } catch (error) {
      throw oauthError(error, 'Logging out')
    }
  }
}

/**
 * The server's metadata (RFC 8414), if it publishes any.
 *
 * @returns `undefined` when there is none; then the default endpoints apply.
 * @throws {SyncError} `METADATA_REFUSED` when the metadata names another issuer or endpoints on another host.
 */
export async function discover(origin: string, context: AuthContext): Promise<oauth.AuthorizationServer | undefined> {
  const issuer = new URL(origin)
  let answer: Response
  try {
    answer = await oauth.discoveryRequest(issuer, {
      ...requestOptions(context.send, context.signal),
      algorithm: 'oauth2',
    })
  } catch (error) {
    throw oauthError(error, 'Reading the server’s metadata')
  }
  if (answer.status !== 200 || !/\bjson\b/.test(answer.headers.get('content-type') ?? '')) return undefined
  let server: oauth.AuthorizationServer
  try {
    server = await oauth.processDiscoveryResponse(issuer, answer)
  } catch (cause) {
    throw refusedMetadata(cause)
  }
  for (const url of [server.authorization_endpoint, server.token_endpoint, server.revocation_endpoint]) {
    if (url === undefined) continue
    if (!URL.canParse(url)) throw refusedMetadata()
    const endpoint = new URL(url)
    if (endpoint.host !== issuer.host || endpoint.username !== '') throw refusedMetadata()
    checkScheme(endpoint)
  }
  return server
}

const refusedMetadata = (cause?: unknown) =>
  new SyncError('auth', 'METADATA_REFUSED', 'The server’s OAuth metadata names another server', {
    hint: 'Do not log in here before this is explained: passwords and codes would go elsewhere.',
    cause,
  })
