/**
 * The life of a grant: loaded, used, renewed ahead of its end by one caller for all (and one process for all), replayed once
 * after a 401, revoked. Stamps requests to its own origin only, so that a storage URL never sees a token.
 * @module
 */
import type { Clock, Ui } from '../environment.ts'
import { SyncError } from '../errors.ts'
import type { HttpRequest, Send } from '../http/types.ts'
import type { AuthContext, Authorizer, Grant } from './authorizer.ts'
import type { GrantStore } from './grant-store.ts'

export interface SessionOptions {
  /** Scheme, host and port that tokens are for. */
  readonly origin: string
  readonly authorizer: Authorizer
  readonly store: GrantStore
  /** For tokens: without repeating. */
  readonly send: Send
  /** For requests: may repeat. Default: `send`. */
  readonly sendRequests?: Send
  readonly clock: Clock
  readonly ui?: Ui
}

export interface Session {
  readonly origin: string
  /** Sends with the grant's stamp; requests to other origins go out as they are. */
  readonly send: Send
  /** Logs in now, whatever the store holds. */
  login(signal?: AbortSignal): Promise<void>
  /** Revokes at the server and forgets here; forgets here even when the server cannot be reached, and then throws. */
  logout(signal?: AbortSignal): Promise<void>
  /** True when a grant is stored. */
  hasGrant(): Promise<boolean>
}

const MARGIN_MS = 60_000

const loginNeeded = (message: string) =>
  new SyncError('auth', 'LOGIN_NEEDED', message, { hint: 'Log in first: sync login URL' })

export function createSession(options: SessionOptions): Session {
  const { origin, authorizer, store, clock } = options
  const requests = options.sendRequests ?? options.send
  let current: { grant: Grant; endsAt: number } | undefined
  let renewal: Promise<Grant> | undefined
  /** Its renewal failed on the way. The next and last try waits for its end: the server may have spent the refresh token. */
  let kept: Grant | undefined

  const context = (signal?: AbortSignal): AuthContext => ({
    send: options.send,
    clock,
    ...(options.ui === undefined ? {} : { ui: options.ui }),
    ...(signal === undefined ? {} : { signal }),
  })

  // Lifetimes run on the monotonic clock; the wall clock only bridges restarts.
  function adopt(grant: Grant): Grant {
    const left = Math.min(grant.lifetimeMs, grant.expiresAt - clock.now())
    current = { grant, endsAt: clock.monotonic() + left }
    return grant
  }

  const margin = (grant: Grant) => Math.min(MARGIN_MS, grant.lifetimeMs / 2)
  const isFresh = () => current !== undefined && clock.monotonic() < current.endsAt - margin(current.grant)
  const isAlive = () => current !== undefined && clock.monotonic() < current.endsAt

  /** Under the store's lock: take what another process has renewed, else renew and store before use. */
  async function renewNow(stale: Grant): Promise<Grant> {
    return store.exclusive(async () => {
      const stored = await store.load()
      if (stored === undefined) throw loginNeeded('The login is gone: somebody logged out')
      if (stored.accessToken !== stale.accessToken) return adopt(stored)
      if (authorizer.renew === undefined) throw loginNeeded('The login has expired')
      try {
        const next = await authorizer.renew(stored, context())
        await store.save(next)
        return adopt(next)
      } catch (error) {
        if (error instanceof SyncError && error.code === 'GRANT_REFUSED') {
          const again = await store.load()
          if (again !== undefined && again.refreshToken !== stored.refreshToken) return adopt(again)
          await store.clear()
          current = undefined
          throw loginNeeded('The login has expired')
        }
        throw error
      }
    })
  }

  /** However many callers wait, one renewal runs. */
  function renew(stale: Grant): Promise<Grant> {
    renewal ??= renewNow(stale).finally(() => {
      renewal = undefined
    })
    return renewal
  }

  async function grant(): Promise<Grant> {
    if (current === undefined) {
      const stored = await store.load()
      if (stored === undefined) throw loginNeeded('Not logged in')
      if (current === undefined) adopt(stored)
    }
    const { grant } = current!
    if (isFresh() || (kept === grant && isAlive())) return grant
    try {
      return await renew(grant)
    } catch (error) {
      // The answer may be lost while the old token is still good for a moment.
      const outage = error instanceof SyncError && ['network', 'server', 'rate_limit'].includes(error.class)
      if (outage && isAlive()) {
        kept = grant
        return grant
      }
      throw error
    }
  }

  async function stamp(request: HttpRequest, grant: Grant): Promise<HttpRequest> {
    if (authorizer.sign) return authorizer.sign(request, grant, context(request.signal))
    return { ...request, headers: { ...request.headers, authorization: `Bearer ${grant.accessToken}` } }
  }

  return {
    origin,
    async send(request) {
      if (new URL(request.url).origin !== origin) return requests(request)
      const first = await grant()
      const response = await requests(await stamp(request, first))
      if (response.status !== 401 || isForbidden(response.body)) return response
      const next = current?.grant === first ? await renew(first) : await grant()
      return requests(await stamp(request, next))
    },
    async login(signal) {
      const fresh = await authorizer.authorize(context(signal))
      await store.exclusive(() => store.save(fresh))
      adopt(fresh)
    },
    async logout(signal) {
      // Under the lock, so that a renewal that is under way does not leave a newer grant behind.
      await store.exclusive(async () => {
        const stored = await store.load()
        try {
          if (stored !== undefined) await authorizer.revoke?.(stored, context(signal))
        } finally {
          await store.clear()
          current = undefined
        }
      })
    },
    hasGrant: async () => (await store.load()) !== undefined,
  }
}

/** A 401 with −10006 means that this app or user may not do this at all: renewing would not help. */
const isForbidden = (body: Uint8Array) => /"errorCode"\s*:\s*-10006\b/.test(Buffer.from(body).toString('latin1'))
