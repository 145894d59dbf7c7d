/**
 * OVHcloud's API with a service account: OAuth2 client credentials (RFC 6749 §4.4). There is no refresh token; a grant is
 * renewed by asking for the next. For signed requests see ovh-signature.ts.
 * @module
 */
import { SyncError } from '../../errors.ts'
import type { HttpRequest } from '../../http/types.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { toGrant } from '../oauth.ts'
import { invalidAnswer, ovhFailure, ovhFields, ovhRefusal } from './ovh-answers.ts'
import { ovhEndpoint } from './ovh-regions.ts'
import type { Secret } from './ovh-signature.ts'

/** How a service account of a region logs in. */
export interface OvhOAuth2Options {
  /** Name of a region, or the URL of a compatible server; see `ovhEndpoint`. */
  readonly endpoint: string
  /** Needed for a compatible server, and only there. */
  readonly tokenUrl?: string
  readonly clientId: string
  readonly clientSecret: Secret
}

const LABEL = '/auth/oauth2/token'
const FORM = 'grant_type=client_credentials&scope=all'

/**
 * A login by client credentials. `authorize` and `renew` throw `CLIENT_REFUSED`, `OAUTH_REFUSED`, `SERVER`, `RATE_LIMITED`, `ANSWER_INVALID`,
 * `TOKEN_TYPE`, `TOKEN_MALFORMED`; requests `RULE_MISSING`, `FORBIDDEN`, `ORIGIN_FOREIGN`.
 *
 * @throws {SyncError} `REGION_UNKNOWN`; `OAUTH_UNAVAILABLE` for a region without OAuth2.
 */
export function ovhOAuth2Authorizer(options: OvhOAuth2Options): Authorizer {
  const { clientId, clientSecret } = options
  const endpoint = ovhEndpoint(options.endpoint)
  const tokenUrl = options.tokenUrl ?? endpoint.tokenUrl
  if (tokenUrl === undefined) {
    throw new SyncError('usage', 'OAUTH_UNAVAILABLE', 'This region has no OAuth2', {
      hint: 'Use an application key there.',
    })
  }

  async function ask(context: AuthContext): Promise<Grant> {
    const secret = typeof clientSecret === 'string' ? clientSecret : await clientSecret()
    const request: HttpRequest = {
      method: 'POST',
      url: tokenUrl!,
      label: LABEL,
      headers: {
        accept: 'application/json',
        'content-type': 'application/x-www-form-urlencoded',
        // Raw, not form-encoded first as RFC 6749 §2.3.1 has it: that is how the service compares.
        authorization: `Basic ${Buffer.from(`${clientId}:${secret}`).toString('base64')}`,
      },
      body: Buffer.from(FORM),
      ...(context.signal === undefined ? {} : { signal: context.signal }),
    }
    const response = await context.send(request)
    const { status } = response
    if (status === 400 || status === 401 || status === 403) {
      const hint = 'Check the client id and its secret, and that it was made in this region.'
      if (status === 401) throw new SyncError('auth', 'CLIENT_REFUSED', 'The client was refused', { status, hint })
      throw new SyncError('auth', 'OAUTH_REFUSED', `The login was refused (${status})`, { status, hint })
    }
    const now = context.clock.now()
    if (status !== 200) throw ovhFailure(response, request, now)
    const { access_token, token_type, expires_in, scope } = ovhFields(response, request, now)
    if (typeof access_token !== 'string' || typeof token_type !== 'string') throw invalidAnswer(response, request)
    const isDuration = ['number', 'string'].includes(typeof expires_in) && /^\d+$/.test(String(expires_in))
    return toGrant(
      {
        access_token,
        token_type: token_type.toLowerCase() as Lowercase<string>,
        ...(isDuration ? { expires_in: Number(expires_in) } : {}),
        ...(typeof scope === 'string' ? { scope } : {}),
      },
      context,
    )
  }

  return {
    name: 'ovh-oauth2',
    clientId,
    unattended: 'again',
    authorize: ask,
    renew: (_grant, context) => ask(context),
    sign: (request, { accessToken }) => ({
      ...request,
      url: endpoint.sentUrl(request.url),
      headers: { ...request.headers, authorization: `Bearer ${accessToken}` },
    }),
    judge(response, request) {
      const refused = ovhRefusal(response, request)
      // Asking for the next token is all it takes.
      return refused?.code === 'LOGIN_NEEDED' ? 'expired' : (refused ?? 'ok')
    },
  }
}
