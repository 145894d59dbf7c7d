/**
 * Signed requests as OVHcloud's API wants them: an application (key and secret) asks for a consumer key, a person confirms it
 * in the browser, and from then on each request carries a hash over itself, both secrets and the server's time.
 *
 * SHA-1 is what the service asks for. Nothing here rests on collisions being hard.
 * @module
 */
import { createHash } from 'node:crypto'
import { cancelled, SyncError, type SyncErrorCode } from '../../errors.ts'
import type { HttpRequest, HttpResponse } from '../../http/types.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { invalidAnswer, isAboutTime, ovhAnswer, ovhFailure, ovhFields, ovhRefusal } from './ovh-answers.ts'
import { type AccessRule, type OvhEndpoint, ovhEndpoint, ovhUrl } from './ovh-regions.ts'

/** Itself, or where to get it; asked anew for each use and not kept. */
export type Secret = string | (() => string | Promise<string>)

/** How requests are signed for an application. */
export interface OvhSignatureOptions {
  /** Name of a region, or the URL of a compatible server; see `ovhEndpoint`. */
  readonly endpoint: string
  readonly applicationKey: string
  readonly applicationSecret: Secret
  /** One that was confirmed before. Absent: a login asks for a new one. */
  readonly consumerKey?: Secret
  /** What a new consumer key may do; see `accessRules`. */
  readonly accessRules?: readonly AccessRule[]
  /** Where the browser goes after the confirmation. */
  readonly redirection?: string
  /** Addresses or networks (`192.0.2.0/24`) the key may be used from. Default: all. */
  readonly allowedIPs?: readonly string[]
  /** Pause between two looks whether the key is confirmed. Default 3 s. */
  readonly intervalMs?: number
  /** Longest wait for the confirmation. Default 5 minutes. */
  readonly timeoutMs?: number
}

const INTERVAL_MS = 3_000
const TIMEOUT_MS = 5 * 60_000
const CREDENTIAL = '/auth/currentCredential'
const VISIBLE = /^[\x21-\x7e]+$/

export interface Signed {
  readonly applicationSecret: string
  readonly consumerKey: string
  readonly method: string
  /** Absolute, with its query, exactly as sent. */
  readonly url: string
  /** Exactly the bytes sent. */
  readonly body?: Uint8Array | undefined
  /** Unix time in whole seconds, as in the header. */
  readonly timestamp: string
}

/** The signature of one request: `$1$` and 40 lower-case hex digits. */
export function ovhSignature({ applicationSecret, consumerKey, method, url, body, timestamp }: Signed): string {
  const hash = createHash('sha1').update(`${applicationSecret}+${consumerKey}+${method.toUpperCase()}+${url}+`)
  if (body !== undefined) hash.update(body)
  return `$1$${hash.update(`+${timestamp}`).digest('hex')}`
}

/** Waits for `work`, or until the caller gives up; the work goes on for the others. */
async function orGiveUp<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work
  const done = new AbortController()
  const abort = new Promise<never>((_resolve, reject) => {
    const give = () => reject(cancelled(signal))
    if (signal.aborted) give()
    signal.addEventListener('abort', give, { once: true, signal: done.signal })
  })
  try {
    return await Promise.race([work, abort])
  } finally {
    done.abort()
  }
}

interface ServerClock {
  /** Unix time at the server, in whole seconds. */
  seconds(context: AuthContext): Promise<number>
  /** Makes the next call ask again. */
  forget(): void
}

// The years 2020 to 2100: what lies beyond is no clock.
const isPlausible = (seconds: unknown): seconds is number =>
  Number.isInteger(seconds) && Number(seconds) >= 1_577_836_800 && Number(seconds) < 4_102_444_800

/** The server's clock, asked once for however many callers, and from then on carried by our monotonic one. */
function serverClock(endpoint: string, applicationKey: string): ServerClock {
  const request: HttpRequest = {
    method: 'GET',
    url: ovhUrl(endpoint, '/auth/time'),
    label: '/auth/time',
    headers: { accept: 'application/json', 'x-ovh-application': applicationKey },
  }
  let startMs: number | undefined
  let flight: Promise<number> | undefined

  async function ask({ send, clock }: AuthContext): Promise<number> {
    const response = await send(request)
    const seconds = ovhAnswer(response, request, clock.now())
    if (!isPlausible(seconds)) throw invalidAnswer(response, request)
    // Counted from the answer, not from the middle: `send` may have waited between two tries.
    startMs = seconds * 1000 - clock.monotonic()
    return startMs
  }
  return {
    async seconds(context) {
      if (startMs === undefined && flight === undefined) {
        flight = ask(context).finally(() => {
          flight = undefined
        })
        flight.catch(() => {}) // reported to those who wait
      }
      const start = startMs ?? (await orGiveUp(flight!, context.signal))
      return Math.floor((start + context.clock.monotonic()) / 1000)
    },
    forget() {
      startMs = undefined
    },
  }
}

const ask = async (secret: Secret) => (typeof secret === 'string' ? secret : await secret())

const misuse = (code: SyncErrorCode, message: string) => new SyncError('usage', code, message)

/** The body of a request for a consumer key. */
function credentialRequest({ accessRules = [], redirection, allowedIPs }: OvhSignatureOptions): string {
  if (accessRules.length === 0) throw misuse('RULES_NEEDED', 'A login needs rules: what it may do')
  const rules = accessRules.map(({ method, path }) => ({ method: method.toUpperCase(), path }))
  for (const { method, path } of rules) {
    if (!/^(GET|POST|PUT|DELETE)$/.test(method) || !/^\/[\x21-\x7e]*$/.test(path)) {
      throw misuse('RULE_INVALID', 'An access rule is a method (GET, POST, PUT, DELETE) and a path')
    }
  }
  if (redirection !== undefined && !(URL.canParse(redirection) && /^https?:$/.test(new URL(redirection).protocol))) {
    throw misuse('URL_INVALID', 'The page to return to is no http(s) URL')
  }
  return JSON.stringify({ accessRules: rules, redirection: redirection ?? null, allowedIPs: allowedIPs ?? null })
}

/** What the person is about to allow, in our words. */
function describe({ accessRules = [], allowedIPs = [], redirection }: OvhSignatureOptions): string {
  const rules = accessRules.map(({ method, path }) => `${method.toUpperCase()} ${path}`).join(', ')
  const places = allowedIPs.length === 0 ? '' : `; from ${allowedIPs.join(', ')} only`
  const back = redirection === undefined ? '' : `; the browser then goes to ${new URL(redirection).host}`
  return `The login asks for ${rules}${places}${back}`
}

/** @throws {SyncError} `LOGIN_PAGE_FOREIGN`. */
function checkLoginPage(text: unknown, endpoint: OvhEndpoint): URL {
  const url = typeof text === 'string' && text.length <= 8_192 && URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !endpoint.isLoginPage(url)) {
    throw new SyncError('auth', 'LOGIN_PAGE_FOREIGN', 'The server names a login page that is not its own', {
      hint: 'Do not log in here before this is explained: the password would go elsewhere.',
    })
  }
  return url
}

/**
 * A login by consumer key. Grants have no end and no renewal; the application's secret stays in the closure.
 *
 * `authorize` throws `RULES_NEEDED`, `RULE_INVALID`, `URL_INVALID`, `LOGIN_NEEDED` (nobody to ask), `APPLICATION_KEY_WRONG`,
 * `LOGIN_PAGE_FOREIGN`, `LOGIN_DENIED`, `LOGIN_TIMEOUT`; requests `LOGIN_NEEDED`, `RULE_MISSING`, `APPLICATION_KEY_WRONG`,
 * `FORBIDDEN`, `ORIGIN_FOREIGN`, and `ANSWER_INVALID` for a server that does not know its time.
 *
 * @throws {SyncError} `REGION_UNKNOWN`, `URL_INVALID`, `URL_INSECURE`; `APPLICATION_KEY_WRONG` for one that is no key.
 */
export function ovhSignatureAuthorizer(options: OvhSignatureOptions): Authorizer {
  const { applicationKey } = options
  const endpoint = ovhEndpoint(options.endpoint)
  if (!VISIBLE.test(applicationKey)) throw misuse('APPLICATION_KEY_WRONG', 'The application key is empty or malformed')
  const time = serverClock(options.endpoint, applicationKey)

  async function sign(request: HttpRequest, { accessToken }: Grant, context: AuthContext): Promise<HttpRequest> {
    const url = endpoint.sentUrl(request.url)
    const method = request.method.toUpperCase() as HttpRequest['method']
    const applicationSecret = await ask(options.applicationSecret)
    if (applicationSecret === '') {
      throw new SyncError('auth', 'LOGIN_NEEDED', 'The application secret is missing', {
        hint: 'It was shown once, when the application was made.',
      })
    }
    const timestamp = String(await time.seconds(context))
    const { body } = request
    const type = body === undefined ? {} : { 'content-type': 'application/json' }
    return {
      ...request,
      method,
      url,
      headers: {
        ...type,
        ...request.headers,
        'x-ovh-application': applicationKey,
        'x-ovh-consumer': accessToken,
        'x-ovh-timestamp': timestamp,
        'x-ovh-signature': ovhSignature({
          applicationSecret,
          consumerKey: accessToken,
          method,
          url,
          body,
          timestamp,
        }),
      },
    }
  }

  /** One signed call of our own, and a second one when the first came at the wrong time. */
  async function call(method: 'GET' | 'POST', path: string, grant: Grant, context: AuthContext) {
    const { signal } = context
    const request: HttpRequest = {
      method,
      url: ovhUrl(options.endpoint, path),
      label: path,
      headers: { accept: 'application/json' },
      ...(signal === undefined ? {} : { signal }),
    }
    let response = await context.send(await sign(request, grant, context))
    if (isAboutTime(response)) {
      time.forget()
      response = await context.send(await sign(request, grant, context))
    }
    return { request, response }
  }

  /** Where the consumer key stands: `validated`, `pendingValidation`, `refused`, `expired`. */
  async function stateOf(grant: Grant, context: AuthContext): Promise<string> {
    const { request, response } = await call('GET', CREDENTIAL, grant, context)
    const refused = ovhRefusal(response, request)
    // Until somebody has confirmed it, the key is not one. Once it is, the rules may leave out just this question.
    if (refused?.code === 'LOGIN_NEEDED') return 'pendingValidation'
    if (refused?.code === 'RULE_MISSING') return 'validated'
    const { status } = ovhFields(response, request, context.clock.now())
    if (typeof status !== 'string') throw invalidAnswer(response, request)
    return status
  }

  async function requestKey(body: string, context: AuthContext): Promise<{ grant: Grant; page: URL }> {
    const request: HttpRequest = {
      method: 'POST',
      url: ovhUrl(options.endpoint, '/auth/credential'),
      label: '/auth/credential',
      headers: {
        accept: 'application/json',
        'content-type': 'application/json',
        'x-ovh-application': applicationKey,
      },
      body: Buffer.from(body),
      ...(context.signal === undefined ? {} : { signal: context.signal }),
    }
    const response = await context.send(request)
    const { consumerKey, validationUrl } = ovhFields(response, request, context.clock.now())
    if (typeof consumerKey !== 'string' || !VISIBLE.test(consumerKey)) throw invalidAnswer(response, request)
    return { grant: { v: 1, accessToken: consumerKey }, page: checkLoginPage(validationUrl, endpoint) }
  }

  async function confirmed(grant: Grant, context: AuthContext): Promise<void> {
    const { clock, signal } = context
    const interval = options.intervalMs ?? INTERVAL_MS
    const end = clock.monotonic() + (options.timeoutMs ?? TIMEOUT_MS)
    let pause = interval
    for (let left = end - clock.monotonic(); left > 0; left = end - clock.monotonic()) {
      await clock.sleep(Math.min(pause, left), signal)
      pause = interval
      try {
        const state = await stateOf(grant, context)
        if (state === 'validated') return
        if (state !== 'pendingValidation') {
          throw new SyncError('auth', 'LOGIN_DENIED', 'The login was refused in the browser')
        }
      } catch (error) {
        // The person is still busy: an outage now must not cost them the login.
        if (!(error instanceof SyncError) || !error.retryable) throw error
        pause = Math.max(interval, error.retryAfterMs ?? 0)
      }
    }
    throw new SyncError('auth', 'LOGIN_TIMEOUT', 'Nobody finished the login in the browser', {
      hint: 'Run the login again.',
    })
  }

  async function authorize(context: AuthContext): Promise<Grant> {
    if (options.consumerKey !== undefined) {
      const consumerKey = await ask(options.consumerKey)
      if (!VISIBLE.test(consumerKey)) {
        throw new SyncError('auth', 'LOGIN_NEEDED', 'The consumer key is empty or malformed', {
          hint: 'Leave it out to ask for a new one.',
        })
      }
      return { v: 1, accessToken: consumerKey }
    }
    const body = credentialRequest(options)
    const { ui, warn } = context
    if (ui === undefined) throw new SyncError('auth', 'LOGIN_NEEDED', 'Nobody is there to confirm the login')
    const { grant, page } = await requestKey(body, context)
    warn?.(describe(options))
    await ui.openUrl(page.href)
    await confirmed(grant, context)
    return grant
  }

  return {
    name: 'ovh-signature',
    clientId: applicationKey,
    ...(options.consumerKey === undefined ? {} : { unattended: 'once' }),
    authorize,
    sign,
    judge(response: HttpResponse, request) {
      if (isAboutTime(response)) {
        time.forget()
        return 'sign-again'
      }
      return ovhRefusal(response, request) ?? 'ok'
    },
    check: async (grant, context) => (await stateOf(grant, context)) === 'validated',
    async revoke(grant, context) {
      const { request, response } = await call('POST', '/auth/logout', grant, context)
      // A key that is unknown or expired is as good as revoked.
      if (ovhRefusal(response, request)?.code === 'LOGIN_NEEDED') return
      if (response.status < 200 || response.status > 299) throw ovhFailure(response, request, context.clock.now())
    },
  }
}
