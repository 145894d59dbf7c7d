/**
 * One authorization code login (RFC 6749 §4.1) with PKCE S256 (RFC 7636): its start, what belongs to it, its redemption. How
 * the code travels is for others.
 * @module
 */
import { timingSafeEqual } from 'node:crypto'
import * as oauth from 'oauth4webapi'
import { SyncError } from '../../errors.ts'
import type { AuthContext, Grant } from '../authorizer.ts'
import type { OAuthClient } from './client.ts'
import { oauthError } from './errors.ts'
import { requestToken } from './exchange.ts'
import { requireEndpoint, type Server } from './server.ts'

/** A login that waits for its code. State and verifier are 32 random bytes each. */
export interface CodeLogin {
  readonly server: Server
  readonly client: OAuthClient
  readonly redirectUri: string
  readonly scope: string | undefined
  readonly state: string
  readonly verifier: string
}

export const newState = (): string => oauth.generateRandomState()

/** Starts a login. */
export function startLogin(plan: Omit<CodeLogin, 'verifier' | 'state'> & { readonly state?: string }): CodeLogin {
  return { ...plan, state: plan.state ?? newState(), verifier: oauth.generateRandomCodeVerifier() }
}

/**
 * The address for the browser.
 *
 * @param more - Further parameters (`prompt`, `audience`); never in place of ours.
 */
export async function loginUrl(login: CodeLogin, more: Readonly<Record<string, string>> = {}): Promise<string> {
  const url = new URL(requireEndpoint(login.server, 'authorization'))
  for (const [name, value] of Object.entries({
    ...more,
    response_type: 'code',
    client_id: login.client.id,
    redirect_uri: login.redirectUri,
    ...(login.scope === undefined ? {} : { scope: login.scope }),
    state: login.state,
    code_challenge: await oauth.calculatePKCECodeChallenge(login.verifier),
    code_challenge_method: 'S256',
  })) {
    url.searchParams.set(name, value)
  }
  return url.href
}

const sameText = (a: string, b: string) =>
  a.length === b.length && timingSafeEqual(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1'))

/** Whether the answer is from the server that was asked: required where it announces so (RFC 9207 §2.4), right in any case. */
export function isFromServer(server: Server, issuers: readonly (string | null)[]): boolean {
  if (issuers.length === 0) return server.authorization_response_iss_parameter_supported !== true
  return issuers.length === 1 && issuers[0] === server.issuer
}

/** Whether a redirect belongs to this login: its state, its server, and a code or an error. */
export function belongsTo(login: Pick<CodeLogin, 'server' | 'state'>, query: URLSearchParams): boolean {
  const states = query.getAll('state')
  return (
    states.length === 1 &&
    sameText(states[0]!, login.state) &&
    isFromServer(login.server, query.getAll('iss')) &&
    (query.has('code') || query.has('error'))
  )
}

/**
 * Redeems the code of a redirect that belongs to this login.
 *
 * @throws {SyncError} `LOGIN_DENIED` or another refusal from the redirect; `OAUTH_ANSWER` for one with two codes; else those of
 * {@link requestToken}.
 */
export async function finishLogin(login: CodeLogin, query: URLSearchParams, context: AuthContext): Promise<Grant> {
  const what = 'The login'
  let code: string | null
  try {
    code = oauth.validateAuthResponse(login.server, { client_id: login.client.id }, query, login.state).get('code')
  } catch (error) {
    throw oauthError(error, what)
  }
  if (!code || query.getAll('code').length !== 1) {
    throw new SyncError('server', 'OAUTH_ANSWER', 'The login came back without its code')
  }
  return requestToken({
    server: login.server,
    client: login.client,
    context,
    what,
    grantType: 'authorization_code',
    asked: login.scope,
    parameters: { code, redirect_uri: login.redirectUri, code_verifier: login.verifier },
  })
}
