/**
 * A certified OpenID provider: a public native client, programs that prove who they are in three ways, refresh tokens that
 * rotate, and reuse that ends the login.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** A client that logs in as itself. */
const program = (id: string, method: string, more: object) => ({
  client_id: id,
  token_endpoint_auth_method: method,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  ...more,
})

export interface TestProvider {
  readonly origin: string
  /** Grant types of the token requests that succeeded, in order. */
  readonly granted: string[]
  /** Grants revoked because a spent refresh token came again. */
  readonly revoked: () => number
}

/** With characters that the form encoding of RFC 6749 §2.3.1 changes. */
export const PROGRAM_SECRET = 'canary:+/ %25=&'

/** @param publicKey - Of the client `by-key`, as a JWK. */
export async function startProvider(accessTokenSeconds = 3600, publicKey?: object): Promise<TestProvider> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const [warn, info] = [console.warn, console.info]
  console.warn = () => {}
  console.info = () => {}
  // @ts-expect-error: the package brings no types.
  const { Provider } = await import('oidc-provider')
  const provider = new Provider(origin, {
    clients: [
      {
        client_id: 'sealsync',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback'],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
      },
      program('by-basic', 'client_secret_basic', { client_secret: PROGRAM_SECRET }),
      program('by-post', 'client_secret_post', { client_secret: PROGRAM_SECRET }),
      ...(publicKey === undefined ? [] : [program('by-key', 'private_key_jwt', { jwks: { keys: [publicKey] } })]),
    ],
    scopes: ['all', 'openid', 'offline_access'],
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true, allowedPolicy: () => true },
    },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: async () => true,
    ttl: {
      AccessToken: accessTokenSeconds,
      RefreshToken: 86_400,
      Grant: 86_400,
      Session: 86_400,
      Interaction: 3600,
      AuthorizationCode: 60,
      ClientCredentials: accessTokenSeconds,
      DeviceCode: 600,
      IdToken: 3600,
    },
    findAccount: (_ctx: unknown, id: string) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    cookies: { keys: ['test'] },
  })
  console.warn = warn
  console.info = info
  const granted: string[] = []
  let revoked = 0
  provider.on('grant.success', (ctx: { oidc: { params?: { grant_type?: string } } }) => {
    granted.push(ctx.oidc.params?.grant_type ?? '')
  })
  provider.on('grant.revoked', () => revoked++)
  server.on('request', provider.callback())
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { origin, granted, revoked: () => revoked }
}
