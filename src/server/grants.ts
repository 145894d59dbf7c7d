/**
 * OAuth grants: clients, authorization codes, access and refresh tokens. Only SHA-256 hashes of codes and tokens are
 * kept. The HTTP side is in routes/oauth.ts, passwords are in users.ts.
 * @module
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { OAuthError } from './errors.ts'
import type { TokenRecord, UserRecord } from './records.ts'
import type { Store, Tx } from './store.ts'

const CODE_LIFETIME_MS = 60_000
const REFRESH_LIFETIME_MS = 30 * 86_400_000
/**
 * A redeemed refresh token stays good for this long: parallel workers redeem the same one. Later it is a sign that somebody
 * else has it, and ends the login (RFC 9700 §4.14.2).
 */
const REFRESH_GRACE_MS = 60_000
const MAX_CODES = 10_000
/** A redeemed code that comes again within this time ends what came of it (RFC 6749 §4.1.2). */
const CODE_MEMORY_MS = 600_000

export interface Client {
  id: string
  /** For people; absent: the id. */
  name?: string
  /** Public clients have no secret and must use PKCE. */
  isPublic: boolean
  grants: readonly string[]
  /** SHA-256 of its secret; absent where that is empty, or where there is none. */
  secretHash?: Uint8Array
  /** Addresses that were registered for it; the built-in ones have none. */
  redirectUris?: readonly string[]
}

/** Clients that every server has. */
export const BUILT_IN_CLIENTS: readonly Client[] = Object.freeze([
  {
    id: 'dracoon_legacy_scripting',
    isPublic: false,
    grants: ['password', 'authorization_code', 'refresh_token'],
  },
  { id: 'sealsync', isPublic: true, grants: ['authorization_code', 'refresh_token'] },
])

export function findClient(store: Store, id: string | undefined | null): Client | undefined {
  if (id === undefined || id === null || id.length > 64) return undefined
  const builtIn = BUILT_IN_CLIENTS.find((client) => client.id === id)
  if (builtIn !== undefined || id === '') return builtIn
  const record = store.clients.get(id)
  return record && { ...record, isPublic: record.secretHash === undefined }
}

/** Whether a client has brought its secret. */
export function isSecretRight({ secretHash }: Client, secret: string): boolean {
  if (secretHash === undefined) return secret === ''
  return timingSafeEqual(createHash('sha256').update(secret).digest(), secretHash)
}

/** An address on this machine without its port, which a program cannot choose beforehand (RFC 8252 §7.3). */
const withoutPort = (uri: string): string =>
  uri.replace(/^(http:\/\/(?:127\.0\.0\.1|\[::1\]|localhost))(?::[0-9]{1,5})?(?=\/|$)/, '$1')

/** Whether a client may be sent to this address. Loopback addresses match with any port, the rest exactly. */
export function isRedirectAllowed(client: Client, uri: string, baseUrl: string): boolean {
  if (!URL.canParse(uri)) return false
  const { redirectUris = [] } = client
  if (redirectUris.some((one) => one === uri || withoutPort(one) === withoutPort(uri))) return true
  // Who has addresses of its own gets nothing sent elsewhere.
  if (redirectUris.length > 0) return false
  if (uri === `${baseUrl}/oauth/callback`) return true
  return client.isPublic && /^http:\/\/(127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?\/callback$/.test(uri) && URL.canParse(uri)
}

interface Code {
  userId: number
  epoch: number
  clientId: string
  redirectUri: string
  challenge: string | undefined
  expiresAt: number
  /** Once it was redeemed: what its tokens belong to. */
  family?: string
}

export interface TokenReply {
  access_token: string
  token_type: 'bearer'
  refresh_token: string
  expires_in: number
  expires_in_inactive: number
  scope: 'all'
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex')
const freshToken = (): string => randomBytes(32).toString('base64url')
const freshFamily = (): string => randomBytes(12).toString('hex')
const invalidGrant = (what: string): OAuthError => new OAuthError(400, 'invalid_grant', what)

export class Grants {
  readonly #store: Store
  readonly #now: () => number
  readonly #lifetimeS: number
  readonly #codes = new Map<string, Code>()

  constructor(store: Store, now: () => number, accessTokenLifetimeS: number) {
    this.#store = store
    this.#now = now
    this.#lifetimeS = accessTokenLifetimeS
  }

  /** An authorization code: single use, 60 seconds. */
  issueCode(user: UserRecord, client: Client, redirectUri: string, challenge: string | undefined): string {
    const now = this.#now()
    for (const [key, code] of this.#codes) {
      if (code.expiresAt >= now && this.#codes.size < MAX_CODES) break
      this.#codes.delete(key)
    }
    const code = freshToken()
    this.#codes.set(digest(code), {
      userId: user.id,
      epoch: user.epoch,
      clientId: client.id,
      redirectUri,
      challenge,
      expiresAt: now + CODE_LIFETIME_MS,
    })
    return code
  }

  /** Tokens for a code. Clients with a challenge must bring its verifier. */
  async redeemCode(
    client: Client,
    code: string,
    redirectUri: string | undefined,
    verifier: string | undefined,
  ): Promise<TokenReply> {
    const key = digest(code)
    const record = this.#codes.get(key)
    this.#codes.delete(key)
    const { family } = record ?? {}
    if (family !== undefined) await this.#store.write((tx) => this.#dropFamily(tx, family))
    if (
      record === undefined ||
      family !== undefined ||
      record.expiresAt < this.#now() ||
      record.clientId !== client.id
    ) {
      throw invalidGrant('Invalid authorization code')
    }
    const mayOmit = redirectUri === undefined && !client.isPublic
    if (!mayOmit && redirectUri !== record.redirectUri) throw invalidGrant('redirect_uri does not match')
    if (record.challenge !== undefined || verifier !== undefined) checkVerifier(record.challenge, verifier)
    const fresh = freshFamily()
    this.#codes.set(key, { ...record, family: fresh, expiresAt: this.#now() + CODE_MEMORY_MS })
    return this.#store.write((tx) => this.#issue(tx, { id: record.userId, epoch: record.epoch }, client, fresh))
  }

  /** A fresh pair of tokens for a user who has just proved who they are. */
  issue(user: Pick<UserRecord, 'id' | 'epoch'>, client: Client): Promise<TokenReply> {
    return this.#store.write((tx) => this.#issue(tx, user, client, freshFamily()))
  }

  #issue(tx: Tx, user: Pick<UserRecord, 'id' | 'epoch'>, client: Client, family: string): TokenReply {
    const [access, refresh, now] = [freshToken(), freshToken(), this.#now()]
    const common = { userId: user.id, epoch: user.epoch, clientId: client.id, family }
    const put = (token: string, record: TokenRecord): void => {
      tx.put(this.#store.tokens, digest(token), record)
      tx.put(this.#store.families, [family, digest(token)], 1)
    }
    put(access, { ...common, kind: 'access', expiresAt: now + this.#lifetimeS * 1000 })
    put(refresh, { ...common, kind: 'refresh', expiresAt: now + REFRESH_LIFETIME_MS })
    return {
      access_token: access,
      token_type: 'bearer',
      refresh_token: refresh,
      expires_in: this.#lifetimeS,
      expires_in_inactive: this.#lifetimeS,
      scope: 'all',
    }
  }

  /** A new pair for a refresh token. The old one stays good for a grace period; after it, it ends the login. */
  async refresh(client: Client, token: string): Promise<TokenReply> {
    const reply = await this.#store.write((tx) => {
      const key = digest(token)
      const record = this.#store.tokens.get(key)
      const now = this.#now()
      if (record?.kind !== 'refresh' || record.clientId !== client.id || record.expiresAt < now) {
        throw invalidGrant('Invalid refresh token')
      }
      if (record.rotatedAt !== undefined && now > record.rotatedAt + REFRESH_GRACE_MS) {
        this.#dropFamily(tx, record.family)
        return undefined
      }
      const user = this.#store.users.get(record.userId)
      if (user?.epoch !== record.epoch || user.disabledAt !== undefined) throw invalidGrant('Invalid refresh token')
      if (record.rotatedAt === undefined) tx.put(this.#store.tokens, key, { ...record, rotatedAt: now })
      return this.#issue(tx, user, client, record.family)
    })
    if (reply === undefined) throw invalidGrant('Refresh token was replaced')
    return reply
  }

  /** Voids a token; with a refresh token goes all that came from the same login. Unknown tokens are no error. */
  revoke(client: Client, token: string): Promise<void> {
    return this.#store.write((tx) => {
      const record = this.#store.tokens.get(digest(token))
      if (record === undefined || record.clientId !== client.id) return
      if (record.kind === 'access') this.#drop(tx, digest(token), record)
      else this.#dropFamily(tx, record.family)
    })
  }

  /** Ends the login that an access token belongs to. */
  end(token: string): Promise<void> {
    return this.#store.write((tx) => {
      const record = this.#store.tokens.get(digest(token))
      if (record !== undefined) this.#dropFamily(tx, record.family)
    })
  }

  #drop(tx: Tx, key: string, record: TokenRecord): void {
    tx.remove(this.#store.tokens, key)
    tx.remove(this.#store.families, [record.family, key])
  }

  #dropFamily(tx: Tx, family: string): void {
    for (const { key } of [...this.#store.families.getRange({ start: [family, ''], end: [family, '~'] })]) {
      tx.remove(this.#store.families, key)
      tx.remove(this.#store.tokens, key[1])
    }
  }

  /** The user an access token stands for, if it is good. */
  userOf(token: string): UserRecord | undefined {
    const record = this.#store.tokens.get(digest(token))
    if (record?.kind !== 'access' || record.expiresAt < this.#now()) return undefined
    const user = this.#store.users.get(record.userId)
    return user?.epoch === record.epoch && user.disabledAt === undefined ? user : undefined
  }

  /** Forgets tokens that have run out. */
  async sweep(): Promise<void> {
    const now = this.#now()
    await this.#store.write((tx) => {
      for (const { key, value } of [...this.#store.tokens.getRange({})]) {
        // Replaced refresh tokens stay until they run out: only so can one that comes again be known.
        if (value.expiresAt < now) this.#drop(tx, key, value)
      }
    })
  }
}

function checkVerifier(challenge: string | undefined, verifier: string | undefined): void {
  const actual = createHash('sha256')
    .update(verifier ?? '')
    .digest('base64url')
  const [a, b] = [Buffer.from(actual), Buffer.from(challenge ?? '')]
  if (verifier === undefined || a.length !== b.length || !timingSafeEqual(a, b)) {
    throw invalidGrant('code_verifier does not match')
  }
}
