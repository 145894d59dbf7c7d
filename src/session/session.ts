/**
 * Requests with a login: stamped with the grant in force, sent again once after a 401, and the verbs of a login. Stamps requests
 * to its own origin only, so that a storage URL never sees a token. How a grant is kept alive is in grant-keeper.ts.
 * @module
 */
import type { Clock, Random, Ui } from '../environment.ts'
import { SyncError, type SyncErrorCode } from '../errors.ts'
import { describedBy } from '../http/answer-details.ts'
import { createSecrets, type Secrets } from '../http/redact.ts'
import type { Retry } from '../http/retry.ts'
import type { HttpRequest, HttpResponse, Send } from '../http/types.ts'
import type { AuthContext, Authorizer, Grant, Identity, Introspection, Verdict } from './authorizer.ts'
import { readGrant, type SessionDump } from './grant.ts'
import { createGrantKeeper, loginNeeded } from './grant-keeper.ts'
import type { GrantStore } from './grant-store.ts'
import type { Log } from './log.ts'

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
  readonly onWarning?: (message: string, code?: SyncErrorCode) => void
  readonly log?: Log
  /** Takes note of the tokens that are used, to be cut out of what is shown. */
  readonly secrets?: Secrets
  /** Log in at the first request where no person is needed for it. Default false. */
  readonly autoLogin?: boolean
  /** See `SessionSettings`. */
  readonly expiryMarginMs?: number
  readonly expiryJitterMs?: number
  /** For jitter only. */
  readonly random?: Random
}

/** How a login stands. */
export interface SessionCheck {
  readonly valid: boolean
  /** `missing`: there is none; `expired`: no way to renew it; `refused`: the server says so. */
  readonly reason?: 'missing' | 'expired' | 'refused'
  readonly expiresAt?: number
  readonly scope?: string
  /** What the server says of the token, where it was asked and says more than whether it holds. */
  readonly introspection?: Introspection
}

/** The part of a session that deals with grants; requests.ts adds the convenient calls. */
export interface GrantSession {
  readonly origin: string
  /** Sends with the grant's stamp; requests to other origins go out as they are. */
  readonly send: Send
  /** Sends without a stamp, for public calls. */
  readonly sendPlain: Send
  /** The client that logs in, where the way to log in has one: a client id, an application key. */
  readonly clientId: string | undefined
  /**
   * The access token, or what takes its place; renewed, or obtained, if needed. Send it to `origin` only.
   *
   * @throws {SyncError} `LOGIN_NEEDED`; those of a renewal or a login.
   */
  accessToken(signal?: AbortSignal): Promise<string>
  /**
   * The value of an `Authorization` header, for other HTTP clients; renewed, or obtained, if needed.
   *
   * @param options.url - Where it is going to be sent.
   * @throws {SyncError} `ORIGIN_FOREIGN` when `url` is not at `origin`; `SIGN_NEEDED` where each request is signed by itself: see
   * `sign`; those of {@link accessToken}.
   */
  authHeader(options?: { readonly url?: string | URL; readonly signal?: AbortSignal }): Promise<string>
  /**
   * The request with everything that the login adds to it: a header, several, or a signature over method, URL and body, which must be
   * sent as they are then.
   *
   * @throws {SyncError} `ORIGIN_FOREIGN` for a request that is not to `origin`; those of {@link accessToken}.
   */
  sign(request: HttpRequest): Promise<HttpRequest>
  /**
   * Who is logged in, as the id token of the login says: for display, and with whether it could be checked. `undefined` without one;
   * servers send it for the scope `openid`. Does not log in.
   *
   * @throws {SyncError} `LOGIN_NEEDED`, `TOKEN_MALFORMED`.
   */
  identity(signal?: AbortSignal): Promise<Identity | undefined>
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
   * Without a login it is that of a session that has to log in.
   */
  dump(): Promise<SessionDump>
}

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

/** Whether an answer is what an error is about. */
const isAbout = (error: unknown, { status }: HttpResponse) =>
  error instanceof SyncError && (error.status === status || (error.status === undefined && error.class === 'server'))

const SECRET_NAME = /token|secret|password|assertion|code|proof|otp|verifier|answer|hash|new_/i

/** Values of a login's requests that a server might repeat in its answer. */
function noteSent({ headers = {}, body }: HttpRequest, secrets: Secrets): void {
  secrets.add(headers.authorization?.replace(/^\S+ /, ''))
  if (body === undefined || body.length > 65_536) return
  const text = Buffer.from(body).toString('utf8')
  const isForm = /form-urlencoded/.test(headers['content-type'] ?? '')
  for (const [name, value] of isForm ? new URLSearchParams(text) : jsonTexts(text)) {
    if (SECRET_NAME.test(name) && !/_(type|hint|method)/.test(name)) secrets.add(value)
  }
}

function jsonTexts(text: string): [string, string][] {
  try {
    const found: [string, string][] = []
    JSON.parse(text, (name, value) => {
      if (typeof value === 'string') found.push([name, value])
      return value
    })
    return found
  } catch {
    return []
  }
}

export function createGrantSession(options: SessionOptions): GrantSession {
  const { origin, authorizer, store, clock } = options
  const retry = options.retry ?? ((send) => send)
  const requests = retry(options.send)
  const logins = retry(options.send, { busyOnly: true })

  const { log = () => {}, secrets = createSecrets() } = options

  const warn = (message: string, code?: SyncErrorCode) => {
    log('warn', message, { code })
    options.onWarning?.(message, code)
  }

  function noteGrant(grant: Grant): Grant {
    secrets.add(grant.accessToken, grant.refreshToken)
    return grant
  }

  /** One call of the authorizer: an error that an answer has caused gets what that answer said. */
  async function ask<T>(
    send: Send,
    signal: AbortSignal | undefined,
    work: (context: AuthContext) => T | Promise<T>,
  ): Promise<T> {
    let last: HttpResponse | undefined
    const noting: Send = async (request) => {
      noteSent(request, secrets)
      last = undefined
      last = await send(request)
      return last
    }
    try {
      return await work({
        send: noting,
        clock,
        warn,
        ...(options.ui === undefined ? {} : { ui: options.ui }),
        ...(signal === undefined ? {} : { signal }),
      })
    } catch (error) {
      if (last === undefined || !isAbout(error, last)) throw error
      throw describedBy(error, last, secrets.list)
    }
  }

  /** The same for what changes the login, which the log is told of. */
  async function change<T>(
    what: 'login' | 'renewal' | 'logout',
    send: Send,
    signal: AbortSignal | undefined,
    work: (context: AuthContext) => T | Promise<T>,
  ): Promise<T> {
    try {
      const result = await ask(send, signal, work)
      log('info', `${what} done`, { origin, method: authorizer.name })
      return result
    } catch (error) {
      if (error instanceof SyncError) {
        const { code, status, serverCode, requestId } = error
        log('error', `${what} failed`, { origin, method: authorizer.name, code, status, serverCode, requestId })
      }
      throw error
    }
  }

  const logIn = async (signal?: AbortSignal) =>
    noteGrant(await change('login', logins, signal, (context) => authorizer.authorize(context)))

  const keeper = createGrantKeeper({
    authorizer,
    store,
    clock,
    authorize: logIn,
    extend: async (grant) =>
      noteGrant(await change('renewal', requests, undefined, (context) => authorizer.renew!(grant, context))),
    autoLogin: options.autoLogin ?? false,
    expiryMarginMs: options.expiryMarginMs,
    expiryJitterMs: options.expiryJitterMs,
    random: options.random,
  })

  const isOwn = (url: string | URL) => new URL(url).origin === origin

  function checkOwn(url: string | URL): void {
    if (isOwn(url)) return
    throw new SyncError('usage', 'ORIGIN_FOREIGN', 'The request goes to another server than the login is for', {
      hint: 'A login is sent to its own server only.',
    })
  }

  async function stamp(request: HttpRequest, grant: Grant): Promise<HttpRequest> {
    noteGrant(grant)
    if (authorizer.sign) {
      return ask(requests, request.signal, (context) => authorizer.sign!(request, grant, context))
    }
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
      used = await keeper.usable(request.signal).catch(noGrant)
      return options.send(await stamp(plain, used).catch(noGrant))
    }
    try {
      const response = await retry(stamped)(request)
      const verdict = authorizer.judge?.(response, request) ?? judgeBearer(response)
      if (verdict instanceof SyncError) throw describedBy(verdict, response, secrets.list)
      return { response, verdict, used: used! }
    } catch (error) {
      throw error instanceof NoGrant ? error.reason : error
    }
  }

  async function send(request: HttpRequest): Promise<HttpResponse> {
    if (!isOwn(request.url)) return requests(request)
    const { response, verdict, used } = await attempt(request)
    if (verdict === 'ok') return response
    if (verdict === 'expired' && keeper.isCurrent(used)) await keeper.replace(used, request.signal)
    const again = await attempt(request)
    if (again.verdict === 'sign-again') {
      const { status } = again.response
      const refused = new SyncError('auth', 'SIGNATURE_REFUSED', 'The server does not accept how requests are signed', {
        status,
        hint: 'Check the keys of the application and the clock of this machine.',
      })
      throw describedBy(refused, again.response, secrets.list)
    }
    return again.response
  }

  /** What the server says: from the authorizer, else by a request that needs a login. */
  async function holds(signal: AbortSignal | undefined): Promise<boolean | Introspection> {
    if (authorizer.check !== undefined) {
      const grant = await keeper.usable(signal)
      return ask(requests, signal, (context) => authorizer.check!(grant, context))
    }
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
    clientId: authorizer.clientId,
    accessToken: async (signal) => (await keeper.usable(signal)).accessToken,
    async authHeader({ url, signal } = {}) {
      if (url !== undefined) checkOwn(url)
      const plain: HttpRequest = {
        method: 'GET',
        url: url === undefined ? origin : String(url),
        ...(signal && { signal }),
      }
      const { headers } = await stamp(plain, await keeper.usable(signal))
      if (headers?.authorization !== undefined) return headers.authorization
      throw new SyncError('usage', 'SIGN_NEEDED', 'This login has no header that is good for every request', {
        hint: 'Use session.sign, session.fetch or session.dispatcher.',
      })
    },
    async sign(request) {
      checkOwn(request.url)
      return stamp(request, await keeper.usable(request.signal))
    },
    async identity(signal) {
      const grant = await keeper.load()
      if (grant === undefined) throw loginNeeded('Not logged in')
      return ask(requests, signal, (context) => authorizer.identify?.(grant, context))
    },
    async login(signal) {
      await keeper.keep(await logIn(signal))
    },
    async adopt(grant) {
      const read = readGrant(grant)
      if (read === undefined) throw new SyncError('usage', 'GRANT_INVALID', 'This is not a grant')
      await keeper.keep(read)
    },
    logout: (signal) =>
      keeper.drop((grant) =>
        change('logout', requests, signal, (context) => authorizer.revoke?.(noteGrant(grant), context)),
      ),
    async renew(signal) {
      const grant = await keeper.load()
      if (grant === undefined) throw loginNeeded('Not logged in')
      await keeper.renew(grant, signal)
    },
    hasGrant: async () => (await store.load()) !== undefined,
    async check({ online = false, signal } = {}) {
      const loaded = await keeper.load()
      if (loaded === undefined) return { valid: false, reason: 'missing' }
      if (!keeper.isAlive() && !keeper.canRenew(loaded)) return { valid: false, reason: 'expired' }
      let introspection: Introspection | undefined
      if (online) {
        try {
          const answer = await holds(signal)
          if (typeof answer === 'object') introspection = answer
          if (answer === false || introspection?.active === false) {
            return { valid: false, reason: 'refused', ...(introspection && { introspection }) }
          }
        } catch (error) {
          // An outage says nothing about the login, so it stays an error.
          if (error instanceof SyncError && error.class === 'auth') return { valid: false, reason: 'refused' }
          throw error
        }
      }
      const { expiresAt, scope } = (await keeper.load()) ?? loaded
      return {
        valid: true,
        ...(expiresAt === undefined ? {} : { expiresAt }),
        ...(scope === undefined ? {} : { scope }),
        ...(introspection && { introspection }),
      }
    },
    async dump() {
      const grant = await store.load()
      return {
        type: 'sealsync-session',
        v: 1,
        origin,
        method: authorizer.name,
        ...(grant === undefined ? {} : { grant }),
        ...authorizer.clientName?.(),
      }
    },
  }
}
