/**
 * Authorization code logins of a web application: the browser of somebody else goes to the server and comes back to a page of
 * the application, which hands over what it got. Many such logins wait at the same time.
 * @module
 */
import { createHash } from 'node:crypto'
import { type Clock, systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { createDialer, type DialerOptions } from '../../http/undici.ts'
import type { AuthContext, Grant } from '../authorizer.ts'
import { type OAuthClient, standardClient } from './client.ts'
import { type CodeLogin, finishLogin, isFromServer, loginUrl, startLogin } from './code.ts'
import { type ServerOptions, serverFinder } from './server.ts'

/** How logins of visitors of a web application go. */
export interface CodeFlowOptions extends ServerOptions {
  readonly client: OAuthClient
  /** The application's own page, exactly as it is registered. */
  readonly redirectUri: string
  readonly scope?: string
  /** Further parameters of the address (`prompt`, `audience`). */
  readonly parameters?: Readonly<Record<string, string>>
  /** How long a login may wait for its code. Default 10 minutes. */
  readonly timeoutMs?: number
  /** How many logins may wait; the oldest is forgotten for a new one. Default 1,000. */
  readonly maxPending?: number
  readonly transport?: DialerOptions
  readonly clock?: Clock
  readonly onWarning?: (message: string) => void
}

/** Logins of visitors of a web application (RFC 6749 §4.1, with PKCE). */
export interface AuthorizationCodeFlow {
  /** Starts a login. `state` is the one in the address: tie it to the visitor's cookie. */
  authorizationUrl(): Promise<{ readonly url: string; readonly state: string }>
  /**
   * Redeems what came back. A state serves once; a wrong `iss` does not spend it.
   *
   * @param iss - As it came; required where the server announces it (RFC 9207).
   * @returns a grant for `session.adopt`, with the authorization code authorizer of the same client to renew it.
   * @throws {SyncError} `STATE_UNKNOWN` for a state that was never given out, is spent, or too old; `ISSUER_WRONG`; else those
   * of a token request.
   */
  redeem(code: string, state: string, iss?: string): Promise<Grant>
  /** Logins that wait. */
  pending(): number
  /** Closes connections. */
  close(): Promise<void>
}

interface Pending {
  readonly login: CodeLogin
  readonly endsAt: number
}

/** States are looked up by their hash, so that the time of a look-up tells nothing about them. */
const keyOf = (state: string) => createHash('sha256').update(state).digest('base64')

/**
 * Logins for a web application.
 *
 * @param issuer - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {SyncError} `ENDPOINT_INVALID`, `URL_INSECURE` for configured endpoints.
 */
export function authorizationCodeFlow(issuer: string, options: CodeFlowOptions): AuthorizationCodeFlow {
  const { redirectUri, scope, timeoutMs = 600_000, maxPending = 1_000 } = options
  const clock = options.clock ?? systemClock
  const client = standardClient(options.client)
  const find = serverFinder(issuer, options)
  const dialer = createDialer(options.transport)
  const context: AuthContext = {
    send: dialer.send,
    clock,
    ...(options.onWarning === undefined ? {} : { warn: options.onWarning }),
  }
  /** In order of age. */
  const waiting = new Map<string, Pending>()

  function forgetOld(room: number): void {
    for (const [key, { endsAt }] of waiting) {
      if (clock.monotonic() < endsAt && waiting.size <= maxPending - room) return
      waiting.delete(key)
    }
  }

  return {
    async authorizationUrl() {
      const { server } = await find(context)
      const login = startLogin({ server, client, redirectUri, scope })
      const url = await loginUrl(login, options.parameters)
      forgetOld(1)
      waiting.set(keyOf(login.state), { login, endsAt: clock.monotonic() + timeoutMs })
      return { url, state: login.state }
    },
    async redeem(code, state, iss) {
      forgetOld(0)
      const key = keyOf(state)
      const login = waiting.get(key)?.login
      if (login === undefined) {
        throw new SyncError(
          'auth',
          'STATE_UNKNOWN',
          'This login is not expected: finished, too old, or never started',
          {
            hint: 'Start the login again.',
          },
        )
      }
      if (!isFromServer(login.server, iss === undefined ? [] : [iss])) {
        throw new SyncError('auth', 'ISSUER_WRONG', 'The answer to the login comes from another server')
      }
      const query = new URLSearchParams({ code, state, ...(iss === undefined ? {} : { iss }) })
      waiting.delete(key) // before the request: two at once must not both be sent
      return finishLogin(login, query, context)
    },
    pending() {
      forgetOld(0)
      return waiting.size
    },
    close: () => dialer.close(),
  }
}
