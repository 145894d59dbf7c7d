/**
 * Where an authorization server listens: its metadata (RFC 8414, OpenID Connect Discovery), endpoints that were configured, or
 * the usual paths of servers without metadata.
 * @module
 */
import * as oauth from 'oauth4webapi'
import { SyncError } from '../../errors.ts'
import { checkGivenScheme, checkScheme } from '../../http/addresses.ts'
import type { AuthContext } from '../authorizer.ts'
import { bare, oauthError } from './errors.ts'
import { requestOptions } from './wire.ts'

/** Absolute URLs; https, or http on a loopback address. */
export interface Endpoints {
  readonly authorization?: string
  readonly token?: string
  readonly revocation?: string
  readonly introspection?: string
  readonly deviceAuthorization?: string
  /** Keys of the issuer (JWKS), to check id tokens with. */
  readonly keys?: string
}

/** Where an authorization server has its endpoints (RFC 8414). */
export interface ServerOptions {
  /** Used as they are, and no metadata is read. Default: what the metadata says. */
  readonly endpoints?: Endpoints
  /** Further hosts (`host` or `host:port`) on which the metadata may place endpoints. Default: the issuer's own only. */
  readonly allowedHosts?: readonly string[]
  /** Ask the introspection endpoint (RFC 7662) when a login is checked. Default: when `endpoints.introspection` is given. */
  readonly introspect?: boolean
}

export type Server = oauth.AuthorizationServer

/** Endpoints of a server without metadata. */
export function defaultServer(issuer: string): Server {
  const base = issuer.replace(/\/+$/, '')
  return {
    issuer,
    authorization_endpoint: `${base}/oauth/authorize`,
    token_endpoint: `${base}/oauth/token`,
    revocation_endpoint: `${base}/oauth/revoke`,
  }
}

const METADATA_NAMES = {
  authorization: 'authorization_endpoint',
  token: 'token_endpoint',
  revocation: 'revocation_endpoint',
  introspection: 'introspection_endpoint',
  deviceAuthorization: 'device_authorization_endpoint',
  keys: 'jwks_uri',
} as const satisfies Record<keyof Endpoints, string>

const KINDS = Object.keys(METADATA_NAMES) as (keyof Endpoints)[]

function checkConfigured(text: string, what: string): void {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || url.username !== '' || url.password !== '') {
    throw new SyncError('usage', 'ENDPOINT_INVALID', `${what} is not a URL that can be used`)
  }
  checkGivenScheme(url)
}

/** A server whose endpoints were configured: nothing else is asked. */
function configuredServer(issuer: string, endpoints: Endpoints): Server {
  const server: Record<string, string> & { issuer: string } = { issuer }
  for (const kind of KINDS) {
    const url = endpoints[kind]
    if (url === undefined) continue
    checkConfigured(url, `The ${kind} endpoint`)
    server[METADATA_NAMES[kind]] = url
  }
  return server
}

/**
 * The server's metadata, if it publishes any: OAuth's (RFC 8414 §3), else OpenID's.
 *
 * @param issuer - `https://HOST`, or with a path.
 * @param allowedHosts - Hosts besides the issuer's that endpoints may be on.
 * @returns `undefined` when there is none; then the usual endpoints apply.
 * @throws {SyncError} `METADATA_REFUSED` when it names another issuer (RFC 8414 §3.3), or endpoints on another host or without
 * TLS; `URL_INSECURE` for an http endpoint beyond loopback.
 */
export async function discover(
  issuer: string,
  context: AuthContext,
  allowedHosts: readonly string[] = [],
): Promise<Server | undefined> {
  for (const algorithm of ['oauth2', 'oidc'] as const) {
    const server = await readMetadata(new URL(issuer), algorithm, context)
    if (server === undefined) continue
    checkEndpoints(server, new URL(issuer), allowedHosts)
    return server
  }
  return undefined
}

async function readMetadata(
  issuer: URL,
  algorithm: 'oauth2' | 'oidc',
  context: AuthContext,
): Promise<Server | undefined> {
  let answer: Response
  try {
    answer = await oauth.discoveryRequest(issuer, { ...requestOptions(context), algorithm })
  } catch (error) {
    throw oauthError(error, 'Reading the server’s metadata')
  }
  if (answer.status !== 200 || !/\bjson\b/.test(answer.headers.get('content-type') ?? '')) return undefined
  try {
    return await oauth.processDiscoveryResponse(issuer, answer)
  } catch (error) {
    throw refusedMetadata(error)
  }
}

/** Where the issuer's keys are, if that is a place that endpoints may be at. */
export function keysUrlOf(server: Server, allowedHosts: readonly string[] = []): string | undefined {
  const { jwks_uri: text, issuer } = server
  if (typeof text !== 'string' || !URL.canParse(text) || !URL.canParse(issuer)) return undefined
  const [url, home] = [new URL(text), new URL(issuer)]
  const isNear = url.host === home.host || allowedHosts.includes(url.host)
  return isNear && (url.protocol === 'https:' || url.protocol === home.protocol) ? url.href : undefined
}

function checkEndpoints(server: Server, issuer: URL, allowedHosts: readonly string[]): void {
  for (const kind of KINDS) {
    // No credentials go there, and not knowing keys is no reason to refuse a login.
    if (kind === 'keys') continue
    const url = server[METADATA_NAMES[kind]]
    if (url === undefined) continue
    // The library checks the issuer only: an endpoint may be anything.
    if (typeof url !== 'string' || !URL.canParse(url)) throw refusedMetadata()
    const endpoint = new URL(url)
    const known = endpoint.host === issuer.host || allowedHosts.includes(endpoint.host)
    if (!known || endpoint.username !== '' || endpoint.password !== '') throw refusedMetadata()
    // Loopback is no better than the server: metadata of a far one must not lead to a program on this machine.
    if (issuer.protocol === 'https:' && endpoint.protocol !== 'https:') throw refusedMetadata()
    checkScheme(endpoint)
  }
}

const refusedMetadata = (error?: unknown) =>
  new SyncError('auth', 'METADATA_REFUSED', 'The server’s OAuth metadata names another server', {
    hint: 'Do not log in here before this is explained: passwords and codes would go elsewhere.',
    ...(error instanceof Error ? { cause: bare(error) } : {}),
  })

/** What is known about a server, and whether that came from its metadata. */
export interface Found {
  readonly server: Server
  readonly metadata: Server | undefined
}

/**
 * A function that finds the server: its configured endpoints, else its metadata (asked for once), else the usual paths.
 *
 * @throws {SyncError} `ENDPOINT_INVALID` or `URL_INSECURE` at once, for the issuer and configured endpoints; later those of {@link discover}.
 */
export function serverFinder(issuer: string, options: ServerOptions): (context: AuthContext) => Promise<Found> {
  checkConfigured(issuer, 'The issuer')
  const configured = options.endpoints === undefined ? undefined : configuredServer(issuer, options.endpoints)
  // Kept once it was good: a renewal must not end up at the usual paths because the metadata could not be read for a moment.
  let metadata: Server | undefined
  return async (context) => {
    if (configured !== undefined) return { server: configured, metadata: undefined }
    metadata ??= await discover(issuer, context, options.allowedHosts)
    return { server: { ...defaultServer(issuer), ...metadata }, metadata }
  }
}

/**
 * An endpoint the caller cannot do without.
 *
 * @throws {SyncError} `ENDPOINT_MISSING`.
 */
export function requireEndpoint(server: Server, kind: keyof Endpoints): string {
  const url = server[METADATA_NAMES[kind]]
  if (url !== undefined) return url
  throw new SyncError('usage', 'ENDPOINT_MISSING', `No ${kind} endpoint of this server is known`, {
    hint: `Its metadata names none; set endpoints.${kind}.`,
  })
}
