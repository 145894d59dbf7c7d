/**
 * The life of a grant: loaded, used, renewed ahead of its end by one caller for all (and one process for all), replayed once
 * after a 401, revoked. Stamps requests to its own origin only, so that a storage URL never sees a token.
 * @module
 */
import type { Clock, Ui } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import type { Retry } from '../http/retry.ts'
import type { HttpRequest, HttpResponse, Send } from '../http/types.ts'
import type { AuthContext, Authorizer, Grant, Verdict } from './authorizer.ts'
import { readGrant, type SessionDump } from './grant.ts'
import type { GrantStore } from './grant-store.ts'

export interface SessionOptions {
  /** Scheme, host and port that tokens are for. */
  readonly origin: string
  readonly authorizer: Authorizer
  readonly store: GrantStore
  /** Without repeating. */
  readonly send: Send
  /** Adds repeating; to logins only of what the server was too busy for, because accounts get locked. Default: none. */
  readonly retry?: Retry
  readonly clock: Clock
  readonly ui?: Ui
  /** URL for `check({ online: true })` where the authorizer cannot ask: any that needs a login. Default: the origin. */
  readonly probe?: string
  readonly onWarning?: (message: string) => void
}

/** How a login stands. */
export interface SessionCheck {
  readonly valid: boolean
  /** `missing`: there is none; `expired`: no way to renew it; `refused`: the server says so. */
  readonly reason?: 'missing' | 'expired' | 'refused'
  readonly expiresAt?: number
  readonly scope?: string
}

/** The part of a session that deals with grants; requests.ts adds the convenient calls. */
export interface GrantSession {
  readonly origin: string
  /** Sends with the grant's stamp; requests to other origins go out as they are. */
  readonly send: Send
  /** Sends without a stamp, for public calls. */
  readonly sendPlain: Send
  /** Logs in now, whatever the store holds. */
  login(signal?: AbortSignal): Promise<void>
  /** Takes a grant that was obtained elsewhere, and stores it. */
  adopt(grant: Grant): Promise<void>
  /** Revokes at the server and forgets here; forgets here even when the server cannot be reached, and then throws. */
  logout(signal?: AbortSignal): Promise<void>
  /** Renews now, for every process that shares the store. */
  renew(signal?: AbortSignal): Promise<void>
  /** True when a grant is stored. */
  hasGrant(): Promise<boolean>
  /** By expiry, or with `online` by asking the server. Does not log in. */
  check(options?: { readonly online?: boolean; readonly signal?: AbortSignal }): Promise<SessionCheck>
  /**
   * The login as plain JSON, for another machine. Tokens that rotate are for one owner: forget them here, or there.
   *
   * @throws {SyncError} `LOGIN_NEEDED` when there is none.
   */
  dump(): Promise<SessionDump>
}

const MARGIN_MS = 60_000

const loginNeeded = (message: string, cause?: unknown) =>
  new SyncError('auth', 'LOGIN_NEEDED', message, { hint: 'Log in first: sync login URL', cause })

/** RFC 6750 §3.1: a 401 is about the token, a 403 with this error about its scope. */
function judgeBearer({ status, headers }: HttpResponse): Verdict {
  if (status === 401) return 'expired'
  if (status === 403 && /\berror="?insufficient_scope\b/.test(headers['www-authenticate'] ?? '')) {
    return new SyncError('auth', 'SCOPE_MISSING', 'The login does not cover this', {
      status,
      hint: 'Log in again with the scope that is needed.',
    })
  }
  return 'ok'
}

const sameTokens = (a: Grant, b: Grant) => a.accessToken === b.accessToken && a.refreshToken === b.refreshToken

/**
 * Takes a failed renewal or signature past the wrapper that repeats requests: a refresh token must not be sent again and
 * again, and what a signature asks for was repeated already.
 */
class NoGrant extends Error {
  readonly reason: unknown
  constructor(reason: unknown) {
    super('no grant')
    this.reason = reason
  }
}

/** Waits for `work`, or until the caller gives up; the work itself goes on for those who still wait. */
function orGiveUp<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work
  return new Promise((resolve, reject) => {
    const give = () => reject(cancelled(signal))
    if (signal.aborted) return give()
    signal.addEventListener('abort', give, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', give))
  })
}

export function createGrantSession(options: SessionOptions): GrantSession {
  const { origin, authorizer, store, clock } = options
  const retry = options.retry ?? ((send) => send)
  const requests = retry(options.send)
  const logins = retry(options.send, { busyOnly: true })
  let current: { grant: Grant; endsAt: number } | undefined
  let renewal: Promise<Grant> | undefined
  /** Its renewal failed on the way. The next and last try waits for its end: the server may have spent the refresh token. */
  let kept: Grant | undefined
  /** A renewal that could not be stored: the server has spent `from`, so the next try goes on with `next`. */
  let unstored: { readonly from: Grant; readonly next: Grant } | undefined

  const context = (send: Send, signal?: AbortSignal): AuthContext => ({
    send,
    clock,
    ...(options.ui === undefined ? {} : { ui: options.ui }),
    ...(signal === undefined ? {} : { signal }),
    ...(options.onWarning === undefined ? {} : { warn: options.onWarning }),
  })

  const leftOf = ({ lifetimeMs = Number.POSITIVE_INFINITY, expiresAt = Number.POSITIVE_INFINITY }: Grant) =>
    Math.min(lifetimeMs, expiresAt - clock.now())

  // Lifetimes run on the monotonic clock; the wall clock only bridges restarts.
  function adopt(grant: Grant): Grant {
    current = { grant, endsAt: clock.monotonic() + leftOf(grant) }
    return grant
  }

  const margin = (grant: Grant) => Math.min(MARGIN_MS, (grant.lifetimeMs ?? Number.POSITIVE_INFINITY) / 2)
  const isFresh = () => current !== undefined && clock.monotonic() < current.endsAt - margin(current.grant)
  const isAlive = () => current !== undefined && clock.monotonic() < current.endsAt
  const canRenew = ({ refreshToken }: Grant) =>
    authorizer.renew !== undefined && !(authorizer.needsRefreshToken === true && refreshToken === undefined)
  /** Whether another process has renewed it, and not so long ago that this has ended, too. */
  const isNewer = (found: Grant, stale: Grant) =>
    found.accessToken !== stale.accessToken && leftOf(found) > (canRenew(found) ? margin(found) : 0)
  /** What the stored grant has become, stored or not. */
  const latest = (stored: Grant) =>
    unstored !== undefined && sameTokens(unstored.from, stored) ? unstored.next : undefined

  /** Under the store's lock: take what another process has renewed, else renew and store before use. */
  async function renewNow(stale: Grant): Promise<Grant> {
    // A look without the lock first: of many processes that meet the end, only the first few have to queue.
    const newer = await store.load()
    if (newer !== undefined && isNewer(newer, stale)) return adopt(newer)
    return store.exclusive(async () => {
      const stored = await store.load()
      if (stored === undefined) {
        current = undefined
        throw loginNeeded('The login is gone: somebody logged out')
      }
      if (isNewer(stored, stale)) return adopt(stored)
      // Where renewing fails, it may still be good for a moment.
      if (stored.accessToken !== stale.accessToken) adopt(stored)
      if (authorizer.renew === undefined) throw loginNeeded('The login has expired')
      try {
        const next = latest(stored) ?? (await authorizer.renew(stored, context(requests)))
        unstored = { from: stored, next }
        await store.save(next)
        unstored = undefined
        return adopt(next)
      } catch (error) {
        if (error instanceof SyncError && error.code === 'GRANT_REFUSED') {
          const again = await store.load()
          if (again !== undefined && again.refreshToken !== stored.refreshToken) return adopt(again)
          await store.clear()
          current = undefined
          throw loginNeeded('The login has expired', error)
        }
        throw error
      }
    })
  }

  /** However many callers wait, one renewal runs; it outlives a caller that gives up, so that its outcome is stored. */
  function renew(stale: Grant, signal?: AbortSignal): Promise<Grant> {
    if (renewal === undefined) {
      renewal = renewNow(stale).finally(() => {
        renewal = undefined
      })
      renewal.catch(() => {}) // reported to those who wait
    }
    return orGiveUp(renewal, signal)
  }

  async function load(): Promise<{ grant: Grant; endsAt: number } | undefined> {
    if (current === undefined) {
      const stored = await store.load()
      if (stored !== undefined && current === undefined) adopt(stored)
    }
    return current
  }

  async function usable(signal?: AbortSignal): Promise<Grant> {
    const loaded = await load()
    if (loaded === undefined) throw loginNeeded('Not logged in')
    const { grant } = loaded
    if (isFresh() || ((kept === grant || !canRenew(grant)) && isAlive())) return grant
    try {
      return await renew(grant, signal)
    } catch (error) {
      // The answer may be lost while the old token is still good for a moment.
      const outage = error instanceof SyncError && ['network', 'server', 'rate_limit'].includes(error.class)
      if (outage && current !== undefined && isAlive()) {
        kept = current.grant
        return kept
      }
      throw error
    }
  }

  async function stamp(request: HttpRequest, grant: Grant): Promise<HttpRequest> {
    if (authorizer.sign) return authorizer.sign(request, grant, context(requests, request.signal))
    return { ...request, headers: { ...request.headers, authorization: `Bearer ${grant.accessToken}` } }
  }

  /**
   * Sends with the stamp of the grant in force, a fresh one for each repetition: a signature may carry the time, and the grant
   * may have been renewed during the wait.
   */
  async function attempt(request: HttpRequest) {
    let used: Grant | undefined
    const stamped: Send = async (plain) => {
      const noGrant = (error: unknown) => {
        throw new NoGrant(error)
      }
      used = await usable(request.signal).catch(noGrant)
      return options.send(await stamp(plain, used).catch(noGrant))
    }
    try {
      const response = await retry(stamped)(request)
      const verdict = authorizer.judge?.(response, request) ?? judgeBearer(response)
      if (verdict instanceof SyncError) throw verdict
      return { response, verdict, used: used! }
    } catch (error) {
      throw error instanceof NoGrant ? error.reason : error
    }
  }

  async function send(request: HttpRequest): Promise<HttpResponse> {
    if (new URL(request.url).origin !== origin) return requests(request)
    const { response, verdict, used } = await attempt(request)
    if (verdict === 'ok') return response
    if (verdict === 'expired' && current?.grant === used) await renew(used, request.signal)
    const again = await attempt(request)
    if (again.verdict === 'sign-again') {
      const { status } = again.response
      throw new SyncError('auth', 'SIGNATURE_REFUSED', 'The server does not accept how requests are signed', {
        status,
        hint: 'Check the keys of the application and the clock of this machine.',
      })
    }
    return again.response
  }

  async function keep(grant: Grant): Promise<void> {
    await store.exclusive(() => store.save(grant))
    adopt(grant)
  }

  /** What the server says: from the authorizer, else by a request that needs a login. */
  async function holds(signal: AbortSignal | undefined): Promise<boolean> {
    if (authorizer.check !== undefined) return authorizer.check(await usable(signal), context(requests, signal))
    const url = new URL(options.probe ?? '/', origin).href
    const { status } = await send({ method: 'GET', url, label: 'check', ...(signal && { signal }) })
    if (status >= 500 || status === 429) {
      throw new SyncError('server', 'SERVER', `The server cannot say now (${status})`, { status, retryable: true })
    }
    return status !== 401
  }

  return {
    origin,
    send,
    sendPlain: requests,
    async login(signal) {
      await keep(await authorizer.authorize(context(logins, signal)))
    },
    async adopt(grant) {
      const read = readGrant(grant)
      if (read === undefined) throw new SyncError('usage', 'GRANT_INVALID', 'This is not a grant')
      await keep(read)
    },
    async logout(signal) {
      // Under the lock, so that a renewal that is under way does not leave a newer grant behind.
      await store.exclusive(async () => {
        try {
          const stored = await store.load()
          if (stored !== undefined) await authorizer.revoke?.(latest(stored) ?? stored, context(requests, signal))
        } finally {
          await store.clear()
          current = undefined
        }
      })
    },
    async renew(signal) {
      const loaded = await load()
      if (loaded === undefined) throw loginNeeded('Not logged in')
      await renew(loaded.grant, signal)
    },
    hasGrant: async () => (await store.load()) !== undefined,
    async check({ online = false, signal } = {}) {
      const loaded = await load()
      if (loaded === undefined) return { valid: false, reason: 'missing' }
      if (!isAlive() && !canRenew(loaded.grant)) return { valid: false, reason: 'expired' }
      if (online) {
        try {
          if (!(await holds(signal))) return { valid: false, reason: 'refused' }
        } catch (error) {
          // An outage says nothing about the login, so it stays an error.
          if (error instanceof SyncError && error.class === 'auth') return { valid: false, reason: 'refused' }
          throw error
        }
      }
      const { expiresAt, scope } = (current ?? loaded).grant
      return {
        valid: true,
        ...(expiresAt === undefined ? {} : { expiresAt }),
        ...(scope === undefined ? {} : { scope }),
      }
    },
    async dump() {
      const grant = await store.load()
      if (grant === undefined) throw loginNeeded('Not logged in')
      return { type: 'sealsync-session', v: 1, origin, method: authorizer.name, grant }
    },
  }
}
