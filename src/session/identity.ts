/**
 * Who is logged in, for display: the claims of an id token (OpenID Connect Core §2), checked with the keys of its issuer where they
 * can be had. Nothing is decided by it here.
 * @module
 */
import type { JSONWebKeySet } from 'jose'
import { SyncError } from '../errors.ts'
import type { AuthContext, Identity } from './authorizer.ts'

/** What an id token is held against. */
export interface IdentitySource {
  readonly issuer: string
  readonly clientId: string
  /** Where the issuer publishes its keys (RFC 7517); absent: unknown. */
  readonly keysUrl?: string | undefined
}

const MAX_TOKEN = 16_384
const MAX_KEYS = 64 * 1024
const TOLERANCE_SECONDS = 60
/** Signatures that need nothing secret to be checked. */
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']

/** Loaded when somebody asks: most programs never do. */
type Jose = typeof import('jose')

function decode(token: string, { decodeJwt }: Jose): Record<string, unknown> {
  try {
    if (token.length <= MAX_TOKEN) return decodeJwt(token)
  } catch {}
  throw new SyncError('server', 'TOKEN_MALFORMED', 'The id token of the login cannot be read')
}

async function readKeys(url: string, { send, signal }: AuthContext): Promise<JSONWebKeySet | undefined> {
  const response = await send({
    method: 'GET',
    url,
    label: new URL(url).pathname,
    headers: { accept: 'application/json' },
    ...(signal === undefined ? {} : { signal }),
  })
  if (response.status !== 200 || response.body.length > MAX_KEYS) return undefined
  try {
    const keys = JSON.parse(Buffer.from(response.body).toString('utf8'))
    return Array.isArray(keys?.keys) ? keys : undefined
  } catch {
    return undefined
  }
}

function reasonOf(error: unknown, { errors }: Jose): NonNullable<Identity['reason']> {
  if (error instanceof errors.JWTExpired) return 'expired'
  if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'iss') return 'issuer'
  if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'aud') return 'audience'
  if (error instanceof errors.JWTClaimValidationFailed) return 'expired'
  return 'signature'
}

/**
 * Reads an id token.
 *
 * @throws {SyncError} `TOKEN_MALFORMED` for one that is none, or is longer than 16 KiB.
 */
export async function readIdentity(token: string, source: IdentitySource, context: AuthContext): Promise<Identity> {
  const jose = await import('jose')
  const claims = Object.freeze(decode(token, jose))
  const unverified = (reason: NonNullable<Identity['reason']>): Identity => ({ claims, verified: false, reason })
  if (source.keysUrl === undefined) return unverified('no-keys')
  const keys = await readKeys(source.keysUrl, context).catch((error) => {
    if (context.signal?.aborted) throw error
    return undefined
  })
  if (keys === undefined) return unverified('keys-unreachable')
  try {
    await jose.jwtVerify(token, jose.createLocalJWKSet(keys), {
      issuer: source.issuer,
      audience: source.clientId,
      algorithms: ALGORITHMS,
      currentDate: new Date(context.clock.now()),
      clockTolerance: TOLERANCE_SECONDS,
      requiredClaims: ['iss', 'aud', 'exp'],
    })
    return { claims, verified: true }
  } catch (error) {
    return unverified(reasonOf(error, jose))
  }
}
