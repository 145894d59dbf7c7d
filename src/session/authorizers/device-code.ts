/**
 * Device authorization grant (RFC 8628): a code is shown here and typed in on any other device. Nothing is opened from here,
 * since the address is whatever the server says.
 * @module
 */
import * as oauth from 'oauth4webapi'
import { SyncError } from '../../errors.ts'
import { checkScheme } from '../../http/addresses.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { clientAuth, type OAuthClient, standardClient } from '../oauth/client.ts'
import { errorCodeOf, oauthError } from '../oauth/errors.ts'
import { askToken, grantVerbs, lifetimeOf } from '../oauth/exchange.ts'
import { requireEndpoint, type Server, type ServerOptions, serverFinder } from '../oauth/server.ts'
import { requestOptions } from '../oauth/wire.ts'

/** How a login with a code on another device goes (RFC 8628). */
export interface DeviceCodeOptions extends ServerOptions {
  readonly client: OAuthClient
  readonly scope?: string
  /** Further parameters of the first request (`audience`). */
  readonly parameters?: Readonly<Record<string, string>>
}

const WHAT = 'The login'
const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
const MIN_INTERVAL_MS = 5_000
const MAX_INTERVAL_MS = 60_000
/** Nobody sits before a code for longer, whatever the server says. */
const MAX_LIFETIME_MS = 3_600_000
const SLOW_DOWN_MS = 5_000

const clamp = (ms: number) => Math.min(MAX_INTERVAL_MS, Math.max(MIN_INTERVAL_MS, ms))

/** What the server answered to the first request (RFC 8628 §3.2), checked. */
interface Device {
  readonly deviceCode: string
  readonly userCode: string
  readonly verificationUri: string
  readonly verificationUriComplete: string | undefined
  readonly lifetimeMs: number
  readonly intervalMs: number
}

const unusable = (what: string) =>
  new SyncError('server', 'DEVICE_ANSWER', `The server sent ${what} that cannot be shown to a person`)

/** https, or on loopback like the server itself: a person will type secrets there. */
function checkPage(text: string, server: Server): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || url.username !== '' || url.password !== '') throw unusable('an address')
  if (url.protocol !== 'https:') {
    checkScheme(url)
    if (new URL(server.issuer).protocol === 'https:') throw unusable('an address')
  }
  return url.href
}

async function start(
  server: Server,
  client: OAuthClient,
  options: DeviceCodeOptions,
  context: AuthContext,
): Promise<Device> {
  requireEndpoint(server, 'deviceAuthorization')
  const id = { client_id: client.id }
  const scope = options.scope === undefined ? {} : { scope: options.scope }
  let answer: oauth.DeviceAuthorizationResponse
  try {
    const auth = clientAuth(client, context.clock)
    const parameters = { ...options.parameters, ...scope }
    const wire = requestOptions(context, { what: WHAT })
    const response = await oauth.deviceAuthorizationRequest(server, id, auth, parameters, wire)
    answer = await oauth.processDeviceAuthorizationResponse(server, id, response)
  } catch (error) {
    throw oauthError(error, WHAT)
  }
  if (!/^[\x20-\x7e]{1,64}$/.test(answer.user_code)) throw unusable('a code')
  const verificationUri = checkPage(answer.verification_uri, server)
  const complete = answer.verification_uri_complete
  // With the code in it the address leads to the same place, or is not shown.
  const isSame =
    complete !== undefined && new URL(checkPage(complete, server)).origin === new URL(verificationUri).origin
  return {
    deviceCode: answer.device_code,
    userCode: answer.user_code,
    verificationUri,
    verificationUriComplete: isSame ? complete : undefined,
    lifetimeMs: Math.min(MAX_LIFETIME_MS, lifetimeOf(answer.expires_in)),
    intervalMs: clamp((answer.interval ?? 5) * 1000),
  }
}

/** What one poll came to. */
type Polled = { readonly grant: Grant } | 'pending' | 'slow_down' | { readonly hiccup: number }

/** A failure of the moment: the network, or a busy server. The value is how long it asked us to wait, in milliseconds. */
const hiccupOf = (error: unknown): number | undefined =>
  error instanceof SyncError && error.retryable && ['network', 'server', 'rate_limit'].includes(error.class)
    ? (error.retryAfterMs ?? 0)
    : undefined

async function poll(ask: () => Promise<Grant>): Promise<Polled> {
  try {
    return { grant: await ask() }
  } catch (error) {
    const code = errorCodeOf(error)
    if (code === 'authorization_pending') return 'pending'
    if (code === 'slow_down') return 'slow_down'
    const hiccup = hiccupOf(error)
    if (hiccup !== undefined) return { hiccup }
    throw oauthError(error, WHAT)
  }
}

const expired = () =>
  new SyncError('auth', 'DEVICE_CODE_EXPIRED', 'Nobody typed in the code in time', { hint: 'Run the login again.' })

/** Polls until somebody has decided or the code has expired (RFC 8628 §3.5). */
async function waitForGrant(device: Device, context: AuthContext, ask: () => Promise<Grant>): Promise<Grant> {
  const { clock, signal } = context
  const endsAt = clock.monotonic() + device.lifetimeMs
  let intervalMs = device.intervalMs
  let waitMs = intervalMs
  for (;;) {
    const leftMs = endsAt - clock.monotonic()
    await clock.sleep(Math.min(waitMs, leftMs), signal)
    if (clock.monotonic() >= endsAt) throw expired()
    const outcome = await poll(ask)
    if (outcome === 'slow_down') intervalMs = clamp(intervalMs + SLOW_DOWN_MS)
    if (typeof outcome === 'string') waitMs = intervalMs
    else if ('grant' in outcome) return outcome.grant
    // The wait doubles while the network is away, and is as before once it is back.
    else waitMs = Math.max(outcome.hiccup, Math.min(MAX_INTERVAL_MS, waitMs * 2))
  }
}

/**
 * Logs in with a code that is typed in elsewhere.
 *
 * @param origin - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {SyncError} from `authorize`: `LOGIN_NEEDED` when there is nobody to show the code to, `ENDPOINT_MISSING`,
 * `DEVICE_ANSWER` for a code or address that cannot be shown, `URL_INSECURE`, `LOGIN_DENIED`, `DEVICE_CODE_EXPIRED`, and those of a
 * token request.
 */
export function deviceCodeAuthorizer(origin: string, options: DeviceCodeOptions): Authorizer {
  const client = standardClient(options.client)
  const find = serverFinder(origin, options)
  const locate = async (context: AuthContext) => ({ server: (await find(context)).server, client })
  return {
    name: 'device-code',
    clientId: client.id,
    async authorize(context) {
      const show = context.ui?.showCode
      if (show === undefined) throw new SyncError('auth', 'LOGIN_NEEDED', 'Nobody is there to type in a code')
      const { server } = await locate(context)
      const device = await start(server, client, options, context)
      const { userCode, verificationUri, verificationUriComplete, lifetimeMs } = device
      await show.call(context.ui, {
        userCode,
        verificationUri,
        expiresInMs: lifetimeMs,
        ...(verificationUriComplete === undefined ? {} : { verificationUriComplete }),
      })
      const parameters = { device_code: device.deviceCode }
      return waitForGrant(device, context, () =>
        // The loop here says when to ask again.
        askToken({
          server,
          client,
          context,
          what: WHAT,
          grantType: DEVICE_GRANT,
          parameters,
          asked: options.scope,
          repeatable: false,
        }),
      )
    },
    ...grantVerbs(locate, options),
  }
}
