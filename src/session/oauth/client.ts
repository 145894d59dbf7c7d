/**
 * OAuth clients: who asks, and how it proves that at the token endpoint (RFC 6749 §2.3, RFC 7523 §2.2).
 * @module
 */
import { randomUUID } from 'node:crypto'
import * as oauth from 'oauth4webapi'
import type { Clock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { type SigningKeySource, signJwt } from './signing-key.ts'

/**
 * How a client proves who it is. `client_secret_basic` encodes id and secret as a form first, as RFC 6749 §2.3.1 wants it;
 * `raw_basic` sends them as they are, which is what many servers compare.
 */
export type ClientAuthMethod = 'client_secret_basic' | 'raw_basic' | 'client_secret_post' | 'private_key_jwt'

/** A client as an authorization server knows it. */
export interface OAuthClient {
  readonly id: string
  /** Absent, and without `key`: a public client. Empty is a secret too. */
  readonly secret?: string
  /** Default: `private_key_jwt` with a `key`; with a secret as the authorizer says. */
  readonly auth?: ClientAuthMethod
  /** For `private_key_jwt`. */
  readonly key?: SigningKeySource
  /** Audience of that proof. Default: the server's issuer. */
  readonly audience?: string
}

/** The client that every server of this kind knows for scripts: its secret is empty. */
export const SCRIPTING_CLIENT: OAuthClient = Object.freeze({ id: 'dracoon_legacy_scripting', secret: '' })
/** The public client of the embedded server (PKCE, loopback redirect). */
export const PUBLIC_CLIENT: OAuthClient = Object.freeze({ id: 'sealsync' })

/** True for a client that can prove nothing. */
export const isPublic = (client: OAuthClient): boolean => client.secret === undefined && client.key === undefined

/** The client with the method of RFC 6749 where it names none. */
export const standardClient = (client: OAuthClient): OAuthClient =>
  client.auth === undefined && client.secret !== undefined && client.key === undefined
    ? { ...client, auth: 'client_secret_basic' }
    : client

/** As the value of a form field (RFC 6749 appendix B). */
const formEncode = (text: string) => new URLSearchParams([['', text]]).toString().slice(1)

const basic =
  (secret: string, encode: (text: string) => string): oauth.ClientAuth =>
  (_as, { client_id: id }, _body, headers) => {
    headers.set('authorization', `Basic ${Buffer.from(`${encode(id)}:${encode(secret)}`).toString('base64')}`)
  }

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
const ASSERTION_SECONDS = 60

const privateKeyJwt =
  (client: OAuthClient, key: SigningKeySource, clock: Clock): oauth.ClientAuth =>
  async (server, { client_id: id }, body) => {
    const iat = Math.floor(clock.now() / 1000)
    const audience = client.audience ?? server.issuer
    const claims = { iss: id, sub: id, aud: audience, jti: randomUUID(), iat, exp: iat + ASSERTION_SECONDS }
    body.set('client_id', id)
    body.set('client_assertion_type', ASSERTION_TYPE)
    body.set('client_assertion', await signJwt(claims, key))
  }

/**
 * The proof that goes with each request of this client.
 *
 * @param client - Without `auth`, a secret goes as raw Basic: the servers this began with compare it that way, and one of the
 * clients that everybody uses there has an empty secret.
 * @throws {SyncError} `CLIENT_INVALID` when the method lacks its secret or key.
 */
export function clientAuth(client: OAuthClient, clock: Clock): oauth.ClientAuth {
  const { secret, key } = client
  const method = client.auth ?? (key !== undefined ? 'private_key_jwt' : secret !== undefined ? 'raw_basic' : 'none')
  if (method === 'none') return oauth.None()
  if (method === 'private_key_jwt') {
    if (key === undefined) throw incomplete('a private key')
    return privateKeyJwt(client, key, clock)
  }
  if (secret === undefined) throw incomplete('a secret')
  if (method === 'client_secret_post') return postSecret(secret)
  return basic(secret, method === 'raw_basic' ? (text) => text : formEncode)
}

const postSecret =
  (secret: string): oauth.ClientAuth =>
  (_as, { client_id: id }, body) => {
    body.set('client_id', id)
    body.set('client_secret', secret)
  }

const incomplete = (what: string) =>
  new SyncError('usage', 'CLIENT_INVALID', `The OAuth client lacks ${what} for its way to authenticate`)
