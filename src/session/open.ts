/**
 * Opens sessions: the transport, repeating, the life of the grant and the convenient calls, wired together.
 * @module
 */

import { type Clock, type Random, systemClock, systemRandom, type Ui } from '../environment.ts'
import { SyncError, type SyncErrorCode } from '../errors.ts'
import { parseBaseUrl } from '../http/addresses.ts'
import { createDispatcher } from '../http/dispatcher.ts'
import { createFetch, type Fetch } from '../http/fetch.ts'
import { createInFlight } from '../http/in-flight.ts'
import { withKnownPins } from '../http/options.ts'
import { createReadOnly, readingOnly } from '../http/read-only.ts'
import { createSecrets } from '../http/redact.ts'
import { createRetry, type Retry } from '../http/retry.ts'
import { allHooks, type TraceHooks, tell, withTrace } from '../http/trace.ts'
import type { HttpRequest, Send } from '../http/types.ts'
import { createDialer, type Dialer, type DialerOptions } from '../http/undici.ts'
import type { Authorizer } from './authorizer.ts'
import { createCookies, type DumpedCookies } from './cookies.ts'
import { parseDump, type SessionDump } from './grant.ts'
import { type GrantStore, memoryGrantStore } from './grant-store.ts'
import { createLog, type Logger, logHooks } from './log.ts'
import { createRequests, type Requests } from './requests.ts'
import { createGrantSession, type GrantSession } from './session.ts'

export { readServerPins } from '../http/connect.ts'
export { withKnownPins } from '../http/options.ts'
export { memoryPinStore, type PinStore, type ServerPin } from '../http/pins.ts'
export { proxyFromEnvironment } from '../http/proxy.ts'
export { createDialer, type DialerOptions as TransportOptions } from '../http/undici.ts'

/** A request that is about to be sent again. */
export interface RetryEvent {
  readonly label: string
  readonly attempt: number
  readonly delayMs: number
  readonly reason: string
  /** Of the answer, if there was one. */
  readonly status?: number
}

export interface WaitingEvent {
  readonly origin: string
  readonly reason: string
  readonly leftMs: number
}

/** How a session is set up; all may be left out. */
export interface SessionSettings {
  /** Where the login is kept. Default: memory. */
  readonly store?: GrantStore
  /** How connections are made: proxy, authorities, pins, timeouts. */
  readonly transport?: DialerOptions
  readonly ui?: Ui
  /** Path for `check({ online: true })` where the way to log in cannot ask by itself. Default: the base URL. */
  readonly probe?: string
  /** `code` names what some warnings are about: `SCOPE_NARROWED`. */
  readonly onWarning?: (message: string, code?: SyncErrorCode) => void
  /** Connections that others use, too; they end with the session. `transport` says how they were made. Default: its own. */
  readonly dialer?: Dialer
  /** Sends in place of a dialer of its own; `transport` has no place beside it. */
  readonly send?: Send
  /**
   * Send nothing that might change something: only GET, HEAD and OPTIONS leave, to whatever server, and of its own one what `reads` names
   * (`POST /search/{name}`). Login, renewal and logout do. Others are refused with `READ_ONLY` before they are sent. A token that
   * `accessToken` or `authHeader` hands out can do what the server lets it do. Default false.
   */
  readonly readOnly?: boolean | { readonly reads: readonly string[] }
  /** Keep cookies of the session's own server, and put them into dumps. Default false. */
  readonly cookies?: boolean
  /** Told what happens; secrets are cut out before. */
  readonly logger?: Logger
  /** Told of requests, answers, connections and TLS, by an allow-list. */
  readonly trace?: TraceHooks
  readonly onRetry?: (event: RetryEvent) => void
  /** How long a request is repeated while there is no answer to it, in milliseconds; 0: not at all. Default 2 minutes. */
  readonly retryForMs?: number
  /** Told once for each time that the server is away: what is waited for, why, and for how many milliseconds at most. */
  readonly onWaiting?: (event: WaitingEvent) => void
  /** Repeating that is shared with other senders. Default: its own, by the settings above. */
  readonly retry?: Retry
  /** Log in by itself at the first request where no person is needed for it. Default true; false: `login()` comes first. */
  readonly autoLogin?: boolean
  /** How long before its end a login is renewed, at most half its lifetime, in milliseconds. Default 60,000. */
  readonly expiryMarginMs?: number
  /** Up to so much earlier still, by chance, so that many machines do not renew at once. Default 0. */
  readonly expiryJitterMs?: number
  readonly clock?: Clock
  /** For jitter only. */
  readonly random?: Random
}

/** A login and everything that is sent with it. Nothing secret shows in `JSON.stringify` or `util.inspect`. */
export interface Session extends GrantSession, Requests {
  readonly baseUrl: string
  /** `fetch` with the login, for SDKs that take one; see `createFetch` for how it differs from the built-in one. */
  readonly fetch: Fetch
  /** A dispatcher for undici and for the built-in `fetch`, with the login. Closing it leaves the session open. */
  dispatcher(): ReturnType<typeof createDispatcher>
  /** Requests that are under way; one whose answer is read as a stream counts to its end. */
  inFlight(): number
  /** Resolves when none is: before `close`, or before a program ends. */
  idle(): Promise<void>
  /** Closes connections; the login stays in its store. */
  close(): Promise<void>
}

const DAY_MS = 86_400_000

function checkDuration(name: string, ms: number | undefined): void {
  if (ms === undefined || (Number.isFinite(ms) && ms >= 0 && ms <= DAY_MS)) return
  throw new SyncError('usage', 'OPTION_INVALID', `${name} must be milliseconds from 0 to ${DAY_MS}`)
}

/**
 * Opens a session. Nothing is sent before the first call.
 *
 * @param baseUrl - `https://HOST` or `https://HOST/PATH`; plain http for literal loopback addresses only.
 * @throws {SyncError} `URL_INVALID`, `URL_INSECURE`, `TLS_DISABLED`.
 */
function create(baseUrl: string, authorizer: Authorizer, settings: SessionSettings = {}): Session {
  return open(baseUrl, authorizer, settings)
}

function dialerOf(origin: string, { dialer, send, transport }: SessionSettings, trace: TraceHooks): Dialer {
  if (dialer !== undefined) return dialer
  if (send !== undefined) return { send, close: async () => {} }
  return createDialer({ ownOrigins: [origin], ...withKnownPins(origin, transport), trace })
}

/** @throws {SyncError} `TLS_DISABLED` where the environment has switched the checks of all certificates off. */
export function requireCertificateChecks(): void {
  if (process.env.NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    throw new SyncError('tls', 'TLS_DISABLED', 'NODE_TLS_REJECT_UNAUTHORIZED=0 would switch certificate checks off', {
      hint: 'Unset it; name a private authority with --ca-file.',
    })
  }
}

function open(
  baseUrl: string,
  authorizer: Authorizer,
  settings: SessionSettings,
  keptCookies?: DumpedCookies,
): Session {
  requireCertificateChecks()
  const { origin, href } = parseBaseUrl(baseUrl, { path: true })
  const clock = settings.clock ?? systemClock
  if (settings.transport !== undefined && (typeof settings.transport !== 'object' || settings.transport === null)) {
    throw new SyncError('usage', 'TRANSPORT_INVALID', 'transport must be an object')
  }
  if (settings.send !== undefined && settings.transport !== undefined) {
    throw new SyncError('usage', 'TRANSPORT_INVALID', 'A session has either a send of its own or transport settings')
  }
  const secrets = createSecrets()
  const log = createLog(settings.logger, secrets)
  const hooks = allHooks([settings.trace, settings.logger && logHooks(log), settings.transport?.trace])
  const dialer = dialerOf(origin, settings, hooks)
  const traced = withTrace(dialer.send, hooks, () => clock.monotonic())
  const cookies = settings.cookies === true ? createCookies(origin, keptCookies) : undefined
  const send = cookies?.wrap(traced) ?? traced
  const inFlight = createInFlight()
  const { ui, probe, onWarning, onRetry, onWaiting, retryForMs, autoLogin = true } = settings
  const random = settings.random ?? systemRandom
  const { expiryMarginMs, expiryJitterMs, readOnly } = settings
  checkDuration('retryForMs', retryForMs)
  checkDuration('expiryMarginMs', expiryMarginMs)
  checkDuration('expiryJitterMs', expiryJitterMs)
  const grants = createGrantSession({
    origin,
    authorizer,
    store: settings.store ?? memoryGrantStore(),
    send,
    log,
    secrets,
    retry:
      settings.retry ??
      createRetry({
        clock,
        random,
        ...(retryForMs === undefined ? {} : { retryForMs }),
        onRetry(event) {
          onRetry?.(event)
          tell(hooks.onRetry, { ...event })
        },
        onWaiting(event) {
          onWaiting?.(event)
          log('warn', 'the server is away', { ...event })
        },
      }),
    clock,
    random,
    autoLogin,
    ...(expiryMarginMs === undefined ? {} : { expiryMarginMs }),
    ...(expiryJitterMs === undefined ? {} : { expiryJitterMs }),
    probe: probe === undefined ? href : href.replace(/\/+$/, '') + probe,
    ...(ui === undefined ? {} : { ui }),
    ...(onWarning === undefined ? {} : { onWarning }),
  })
  const check = readOnly ? createReadOnly(origin, readOnly === true ? [] : readOnly.reads) : undefined
  const guard = (one: Send) => (check === undefined ? one : readingOnly(one, check))
  const stamped = inFlight.wrap(guard(grants.send))
  const plain = inFlight.wrap(guard(grants.sendPlain))
  return Object.freeze({
    ...grants,
    send: stamped,
    sendPlain: plain,
    async sign(request: HttpRequest) {
      check?.(request)
      return grants.sign(request)
    },
    ...createRequests(href, stamped, plain, () => clock.now(), secrets.list),
    baseUrl: href,
    fetch: createFetch(stamped),
    dispatcher: () => createDispatcher(stamped),
    async dump() {
      const { userAgent } = settings.transport ?? {}
      return {
        ...(userAgent === undefined ? {} : { userAgent }),
        ...(await grants.dump()),
        ...(cookies === undefined ? {} : { cookies: await cookies.dump() }),
      }
    },
    inFlight: inFlight.count,
    idle: inFlight.idle,
    close: () => dialer.close(),
  })
}

/**
 * Opens a session with a login that was dumped elsewhere, and stores it; a dump without a login leaves the store as it is.
 *
 * @param dump - What `dump()` returned, or its JSON.
 * @param authorizer - Of the kind that made it.
 * @throws {SyncError} `SESSION_INVALID`; `SESSION_OTHER_SERVER` when it belongs to another server than `baseUrl`;
 * `SESSION_OTHER_METHOD` when another kind of authorizer made it.
 */
async function load(
  dump: SessionDump | string,
  baseUrl: string,
  authorizer: Authorizer,
  settings: SessionSettings = {},
): Promise<Session> {
  const { origin, method, grant, appVersion, userAgent, cookies } = parseDump(dump)
  if (new URL(origin).origin !== parseBaseUrl(baseUrl, { path: true }).origin) {
    throw new SyncError('usage', 'SESSION_OTHER_SERVER', 'The exported session belongs to another server')
  }
  if (method !== authorizer.name) {
    throw new SyncError('usage', 'SESSION_OTHER_METHOD', 'The exported session was made by another way to log in')
  }
  authorizer.adoptName?.({
    ...(appVersion === undefined ? {} : { appVersion }),
    ...(userAgent === undefined ? {} : { userAgent }),
  })
  const named =
    userAgent === undefined || settings.send !== undefined
      ? settings
      : { ...settings, transport: { userAgent, ...settings.transport } }
  const session = open(baseUrl, authorizer, named, cookies)
  if (grant !== undefined) await session.adopt(grant)
  return session
}

/** Opens sessions: `create` a new one, `load` one that was dumped. */
export const Session = Object.freeze({ create, load })
