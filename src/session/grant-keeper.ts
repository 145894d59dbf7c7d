/**
 * Keeps a grant alive: loaded from its store, renewed ahead of its end by one caller for all (and one process for all), obtained
 * by itself where no person is needed for that. What is sent with it is session.ts's business.
 * @module
 */
import type { Clock, Random } from '../environment.ts'
import { cancelled, SyncError } from '../errors.ts'
import type { Authorizer, Grant } from './authorizer.ts'
import type { GrantStore } from './grant-store.ts'

export interface KeeperOptions {
  readonly authorizer: Authorizer
  readonly store: GrantStore
  readonly clock: Clock
  /** Obtains a first grant. */
  readonly authorize: (signal?: AbortSignal) => Promise<Grant>
  /** Extends one; only called where the authorizer can. */
  readonly extend: (grant: Grant) => Promise<Grant>
  /** Log in without being asked, where the authorizer needs no person for it. */
  readonly autoLogin: boolean
  /** How long before its end a grant is renewed, at most half its lifetime, in milliseconds. Default a minute. */
  readonly expiryMarginMs?: number | undefined
  /** Up to so much more, by chance, so that many machines do not renew at once. Default 0. */
  readonly expiryJitterMs?: number | undefined
  readonly random?: Random | undefined
}

export interface GrantKeeper {
  /** The grant in force, if one is stored; it may have ended. */
  load(): Promise<Grant | undefined>
  /** A grant that can be used now: renewed, or obtained, if needed. */
  usable(signal?: AbortSignal): Promise<Grant>
  /** One in place of `stale`, which the server does not take any more: renewed, or obtained. */
  replace(stale: Grant, signal?: AbortSignal): Promise<Grant>
  /** Renews unless somebody has renewed `stale` already. */
  renew(stale: Grant, signal?: AbortSignal): Promise<Grant>
  /** True while `grant` is what requests go out with. */
  isCurrent(grant: Grant): boolean
  /** Stores a grant and uses it from now on. */
  keep(grant: Grant): Promise<void>
  /** Ends the one that is stored, under the store's lock, and forgets it whatever `end` does. */
  drop(end: (grant: Grant) => Promise<void>): Promise<void>
  canRenew(grant: Grant): boolean
  isAlive(): boolean
}

const MARGIN_MS = 60_000
/** A refused login that nobody asked for is not repeated before. */
const LOGIN_PAUSE_MS = 60_000

export const loginNeeded = (message: string, cause?: unknown) =>
  new SyncError('auth', 'LOGIN_NEEDED', message, { hint: 'Log in first: sync login URL', cause })

const sameTokens = (a: Grant, b: Grant) => a.accessToken === b.accessToken && a.refreshToken === b.refreshToken

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

/** However many callers wait, one piece of work runs; it outlives a caller that gives up, so that its outcome is stored. */
function singleFlight<A, T>(work: (argument: A) => Promise<T>): (argument: A, signal?: AbortSignal) => Promise<T> {
  let flight: Promise<T> | undefined
  return (argument, signal) => {
    if (flight === undefined) {
      flight = work(argument).finally(() => {
        flight = undefined
      })
      flight.catch(() => {}) // reported to those who wait
    }
    return orGiveUp(flight, signal)
  }
}

export function createGrantKeeper(options: KeeperOptions): GrantKeeper {
  const { authorizer, store, clock, expiryMarginMs = MARGIN_MS, expiryJitterMs = 0 } = options
  let current: { grant: Grant; endsAt: number; early: number } | undefined
  /** Its renewal failed on the way. The next and last try waits for its end: the server may have spent the refresh token. */
  let kept: Grant | undefined
  /** A renewal that could not be stored: the server has spent `from`, so the next try goes on with `next`. */
  let unstored: { readonly from: Grant; readonly next: Grant } | undefined
  /** Why the session does not log in by itself: somebody logged out, or the server said no. */
  let held: { readonly until: number; readonly error: unknown } | undefined

  const leftOf = ({ lifetimeMs = Number.POSITIVE_INFINITY, expiresAt = Number.POSITIVE_INFINITY }: Grant) =>
    Math.min(lifetimeMs, expiresAt - clock.now())

  // Lifetimes run on the monotonic clock; the wall clock only bridges restarts.
  function adopt(grant: Grant): Grant {
    const early = expiryJitterMs === 0 ? 0 : (options.random?.next() ?? 0) * expiryJitterMs
    current = { grant, endsAt: clock.monotonic() + leftOf(grant), early }
    return grant
  }

  const margin = (grant: Grant, early = 0) =>
    Math.min(expiryMarginMs + early, (grant.lifetimeMs ?? Number.POSITIVE_INFINITY) / 2)
  const isFresh = () =>
    current !== undefined && clock.monotonic() < current.endsAt - margin(current.grant, current.early)
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
  const renew = singleFlight(async (stale: Grant): Promise<Grant> => {
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
        const next = latest(stored) ?? (await options.extend(stored))
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
  })

  /** Under the store's lock, so that of many processes that start at once one logs in. */
  const logIn = singleFlight((stale: Grant | undefined) =>
    store.exclusive(async () => {
      const stored = await store.load()
      if (stored !== undefined && stored.accessToken !== stale?.accessToken && leftOf(stored) > 0) return adopt(stored)
      try {
        const grant = await options.authorize()
        await store.save(grant)
        return adopt(grant)
      } catch (error) {
        // Accounts get locked: what the server has refused is not sent again by itself.
        if (error instanceof SyncError && error.class === 'auth' && !error.retryable) {
          const pause = authorizer.unattended === 'once' ? Number.POSITIVE_INFINITY : LOGIN_PAUSE_MS
          held = { until: clock.monotonic() + pause, error }
        }
        throw error
      }
    }),
  )

  const logsInByItself = () => options.autoLogin && authorizer.unattended !== undefined

  /** Logs in without being asked, or throws `needed`. */
  async function obtain(needed: unknown, stale: Grant | undefined, signal: AbortSignal | undefined): Promise<Grant> {
    if (!logsInByItself()) throw needed
    if (held !== undefined && clock.monotonic() < held.until) throw held.error
    return logIn(stale, signal)
  }

  /** Nothing but a login helps. */
  const isOver = (error: unknown) =>
    error instanceof SyncError && (error.code === 'LOGIN_NEEDED' || error.code === 'LOGIN_EXPIRED')

  async function load() {
    if (current === undefined) {
      const stored = await store.load()
      if (stored !== undefined && current === undefined) adopt(stored)
    }
    return current
  }

  return {
    load: async () => (await load())?.grant,
    async usable(signal) {
      const loaded = await load()
      if (loaded === undefined) return obtain(loginNeeded('Not logged in'), undefined, signal)
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
        if (isOver(error)) return obtain(error, grant, signal)
        throw error
      }
    },
    replace: (stale, signal) =>
      renew(stale, signal).catch((error) => {
        if (isOver(error)) return obtain(error, stale, signal)
        throw error
      }),
    renew,
    isCurrent: (grant) => current?.grant === grant,
    async keep(grant) {
      await store.exclusive(() => store.save(grant))
      held = undefined
      adopt(grant)
    },
    async drop(end) {
      held = { until: Number.POSITIVE_INFINITY, error: loginNeeded('Not logged in') }
      // Under the lock, so that a renewal that is under way does not leave a newer grant behind.
      await store.exclusive(async () => {
        try {
          const stored = await store.load()
          if (stored !== undefined) await end(latest(stored) ?? stored)
        } finally {
          await store.clear()
          current = undefined
        }
      })
    },
    canRenew,
    isAlive,
  }
}
