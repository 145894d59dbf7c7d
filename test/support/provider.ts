/** A certified OpenID provider with one public native client, refresh tokens that rotate, and reuse that ends the login. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

export interface TestProvider {
  readonly origin: string
  /** Grant types of the token requests that succeeded, in order. */
  readonly granted: string[]
  /** Grants revoked because a spent refresh token came again. */
  readonly revoked: () => number
}

export async function startProvider(accessTokenSeconds = 3600): Promise<TestProvider> {
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
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
      },
    ],
    scopes: ['all', 'openid', 'offline_access'],
    features: { devInteractions: { enabled: true }, revocation: { enabled: true, allowedPolicy: () => true } },
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
