/**
 * OAuth endpoints: token, revoke, the login page, the page that shows a code, and metadata. Grants themselves are in
 * ../grants.ts.
 * @module
 */
import type { Call, Reply, RouteTable } from '../call.ts'
import { checkPassword, foldUserName, noteLogin, useCode } from '../credentials.ts'
import { OAuthError } from '../errors.ts'
import { type Client, findClient, isRedirectAllowed, isSecretRight, type TokenReply } from '../grants.ts'
import type { LoginOutcome } from '../login-limits.ts'
import type { UserRecord } from '../records.ts'
import { callbackPage, errorPage, loginPage, type PageReply } from './oauth-pages.ts'

/** Authorize parameters that the login form carries along. */
const CARRIED = [
  'response_type',
  'client_id',
  'redirect_uri',
  'scope',
  'state',
  'code_challenge',
  'code_challenge_method',
]

const badClient = (): OAuthError =>
  new OAuthError(401, 'invalid_client', 'Unknown client', { 'WWW-Authenticate': 'Basic realm="oauth"' })

/** Client id and secret from a Basic header in either base64 alphabet, padded or not. */
function basicCredentials(header: string | undefined): [string, string] | undefined {
  const match = /^Basic +([A-Za-z0-9+/_=-]+)$/i.exec(header ?? '')
  if (match?.[1] === undefined) return undefined
  const text = Buffer.from(match[1].replaceAll('-', '+').replaceAll('_', '/'), 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon === -1 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)]
}

/** The client that calls: from the form or a Basic header. Other headers are ignored. */
function clientOf(call: Call, form: URLSearchParams): Client {
  const basic = basicCredentials(call.headers.authorization)
  const [id, secret] = basic ?? [form.get('client_id') ?? '', form.get('client_secret') ?? '']
  const client = findClient(call.app.store, id)
  if (client === undefined || !isSecretRight(client, secret)) throw badClient()
  return client
}

function required(form: URLSearchParams, name: string): string {
  const value = form.get(name)
  if (value === null || value === '') throw new OAuthError(400, 'invalid_request', `${name} is missing`)
  return value
}

async function token(call: Call): Promise<Reply> {
  const form = await call.form()
  const client = clientOf(call, form)
  const grant = required(form, 'grant_type')
  if (!['password', 'authorization_code', 'refresh_token'].includes(grant)) {
    throw new OAuthError(400, 'unsupported_grant_type', 'Unknown grant type')
  }
  if (!client.grants.includes(grant))
    throw new OAuthError(400, 'unauthorized_client', 'Grant is not allowed for this client')
  return {
    status: 200,
    headers: { 'Cache-Control': 'no-store', Pragma: 'no-cache' },
    json: await redeem(call, client, form, grant),
  }
}

async function redeem(call: Call, client: Client, form: URLSearchParams, grant: string): Promise<TokenReply> {
  const { grants } = call.app
  if (grant === 'refresh_token') return grants.refresh(client, required(form, 'refresh_token'))
  if (grant === 'authorization_code') {
    const uri = form.get('redirect_uri') ?? undefined
    return grants.redeemCode(client, required(form, 'code'), uri, form.get('code_verifier') ?? undefined)
  }
  const [name, password] = [required(form, 'username'), required(form, 'password')]
  const user = await logIn(call, name, password, form.get('otp'))
  if (user === 'code-missing') throw new OAuthError(400, 'mfa_required', 'A one-time code is needed (otp)')
  if (user === 'disabled') throw new OAuthError(400, 'invalid_grant', 'The account is disabled')
  if (user === undefined) throw new OAuthError(400, 'invalid_grant', 'Invalid user name or password')
  return grants.issue(user, client)
}

/** Checks password and one-time code, as often as the limits allow. */
async function logIn(
  { app, address }: Call,
  name: string,
  password: string,
  code: string | null,
): Promise<UserRecord | 'code-missing' | 'disabled' | undefined> {
  const { user, outcome } = await app.logins.attempt<{ user?: UserRecord; outcome: LoginOutcome }>(
    foldUserName(name.slice(0, 200)),
    address,
    app.now,
    async () => {
      const found = await checkPassword(app.store, name, password)
      if (found === undefined) return { outcome: 'bad-password' }
      if (found.oneTimeCodes === undefined) return { user: found, outcome: 'good' }
      if (!code) return { outcome: 'half' }
      return (await useCode(app.store, found.id, code, app.now()))
        ? { user: found, outcome: 'good' }
        : { outcome: 'bad-code' }
    },
  )
  if (outcome === 'half') return 'code-missing'
  await noteLogin(app.store, name, {
    isGood: user !== undefined && user.disabledAt === undefined,
    address,
    now: app.now(),
  })
  return user?.disabledAt === undefined ? user : 'disabled'
}

async function revoke(call: Call): Promise<Reply> {
  const form = await call.form()
  const client = clientOf(call, form)
  await call.app.grants.revoke(client, required(form, 'token'))
  return { status: 200, json: {} }
}

interface AuthorizeRequest {
  client: Client
  redirectUri: string
  state: string | undefined
  challenge: string | undefined
}

/** Checks an authorize request. What cannot be redirected safely becomes a page; the rest goes back to the client. */
function checkAuthorize(call: Call, fields: URLSearchParams): AuthorizeRequest | Reply {
  const client = findClient(call.app.store, fields.get('client_id'))
  if (client === undefined) return errorPage('This application is not known here.')
  const [ownUri = client.isPublic ? '' : `${call.baseUrl}/oauth/callback`] = client.redirectUris ?? []
  const redirectUri = fields.get('redirect_uri') || ownUri
  if (!isRedirectAllowed(client, redirectUri, call.baseUrl))
    return errorPage('This redirect address is not registered.')
  const state = fields.get('state') ?? undefined
  const refuse = (error: string): Reply => redirect(call, redirectUri, { error, state })
  if (fields.get('response_type') !== 'code') return refuse('unsupported_response_type')
  if (!client.grants.includes('authorization_code')) return refuse('unauthorized_client')
  const challenge = fields.get('code_challenge') || undefined
  if (challenge === undefined)
    return client.isPublic ? refuse('invalid_request') : { client, redirectUri, state, challenge }
  const isS256 = fields.get('code_challenge_method') === 'S256' && /^[A-Za-z0-9_-]{43}$/.test(challenge)
  return isS256 ? { client, redirectUri, state, challenge } : refuse('invalid_request')
}

function redirect(call: Call, uri: string, values: Record<string, string | undefined>): Reply {
  const url = new URL(uri)
  for (const [name, value] of Object.entries({ ...values, iss: call.baseUrl })) {
    if (value !== undefined) url.searchParams.set(name, value)
  }
  return {
    status: 302,
    headers: { Location: url.href, 'Cache-Control': 'no-store', 'Referrer-Policy': 'no-referrer' },
  }
}

const isReply = (value: AuthorizeRequest | Reply): value is Reply => 'status' in value

function carried(fields: URLSearchParams): [string, string][] {
  return CARRIED.flatMap((name) => {
    const value = fields.get(name)
    return value === null ? [] : [[name, value] as [string, string]]
  })
}

const nameOf = ({ id, name }: Client): string => name ?? id

function showLogin(call: Call): Reply {
  const request = checkAuthorize(call, call.query)
  return isReply(request) ? request : loginPage(carried(call.query), nameOf(request.client))
}

async function submitLogin(call: Call): Promise<Reply> {
  const form = await call.form()
  // The form posts its fields; the query counts only where the form is silent.
  for (const [name, value] of call.query) if (!form.has(name)) form.append(name, value)
  const request = checkAuthorize(call, form)
  if (isReply(request)) return request
  const again = (message: string, status: number): PageReply =>
    loginPage(carried(form), nameOf(request.client), { message, status })
  const [name, password] = [form.get('username') ?? '', form.get('password') ?? '']
  if (name === '' || password === '') return again('Enter user name and password.', 400)
  try {
    const user = await logIn(call, name, password, form.get('otp'))
    if (user === 'code-missing') return again('Enter the one-time code of your authenticator app too.', 401)
    if (user === undefined) return again('User name, password or code is wrong.', 401)
    if (user === 'disabled') return again('This account is disabled.', 403)
    const code = call.app.grants.issueCode(user, request.client, request.redirectUri, request.challenge)
    return redirect(call, request.redirectUri, { code, state: request.state })
  } catch (error) {
    if (error instanceof OAuthError && error.status === 429) return again('Too many failed logins. Wait a minute.', 429)
    throw error
  }
}

function metadata({ baseUrl }: Call): Reply {
  return {
    status: 200,
    json: {
      issuer: baseUrl,
      authorization_endpoint: `${baseUrl}/oauth/authorize`,
      token_endpoint: `${baseUrl}/oauth/token`,
      revocation_endpoint: `${baseUrl}/oauth/revoke`,
      response_types_supported: ['code'],
      response_modes_supported: ['query'],
      grant_types_supported: ['authorization_code', 'refresh_token', 'password'],
      scopes_supported: ['all'],
      token_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post'],
      revocation_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post'],
      code_challenge_methods_supported: ['S256'],
      authorization_response_iss_parameter_supported: true,
    },
  }
}

export const oauthRoutes: RouteTable = {
  'POST /oauth/token': token,
  'POST /oauth/revoke': revoke,
  'GET /oauth/authorize': showLogin,
  'POST /oauth/authorize': submitLogin,
  'GET /oauth/callback': ({ query }) => callbackPage(query.get('code'), query.get('error')),
  'GET /.well-known/oauth-authorization-server': metadata,
}
