import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/environment.ts'
import { authorizationCodeAuthorizer } from '../../src/session/authorizers/authorization-code.ts'
import { contextOf, expectNoSecret, grantOf, startCodeLogin as start, tokenServer } from '../support/oauth.ts'
import { dialer, errorOf, httpServer, json, type Rejection } from '../support/servers.ts'

const CANARY = 'canary-51c0d'

describe('metadata', () => {
  const good = (origin: string) => ({
    issuer: origin,
    authorization_endpoint: `${origin}/oauth/authorize`,
    token_endpoint: `${origin}/oauth/token`,
  })
  const hostile: [string, (origin: string) => unknown][] = [
    ['another issuer', (origin) => ({ ...good(origin), issuer: 'https://evil.test' })],
    ['an issuer with a path', (origin) => ({ ...good(origin), issuer: `${origin}/x` })],
    ['no issuer', (origin) => ({ ...good(origin), issuer: undefined })],
    ['a token endpoint elsewhere', (origin) => ({ ...good(origin), token_endpoint: 'https://evil.test/token' })],
    ['a login page elsewhere', (origin) => ({ ...good(origin), authorization_endpoint: 'https://evil.test/' })],
    ['a revocation elsewhere', (origin) => ({ ...good(origin), revocation_endpoint: 'https://evil.test/' })],
    ['another port', (origin) => ({ ...good(origin), token_endpoint: 'http://127.0.0.1:1/token' })],
    ['the host as user name', (origin) => ({ ...good(origin), token_endpoint: `${origin}@evil.test/token` })],
    ['a user name', (origin) => ({ ...good(origin), token_endpoint: origin.replace('//', '//me@') })],
    ['a script', (origin) => ({ ...good(origin), authorization_endpoint: 'javascript:alert(1)' })],
    ['no URL', (origin) => ({ ...good(origin), token_endpoint: 'nonsense' })],
    ['a number', (origin) => ({ ...good(origin), token_endpoint: 5 })],
    ['null', (origin) => ({ ...good(origin), authorization_endpoint: null })],
    ['a list', () => []],
  ]
  test.each(hostile)('naming %s is refused before anybody types a password', async (_what, metadata) => {
    const server = await tokenServer(undefined, metadata)
    const error = await errorOf(start(server.origin))
    expect(error).toMatchObject({ class: 'auth', code: 'METADATA_REFUSED' })
    expect(server.tokenCalls).toHaveLength(0)
    const way = authorizationCodeAuthorizer(server.origin)
    for (const verb of [way.renew!, way.revoke!]) {
      const refused: Rejection = await errorOf(verb(grantOf(systemClock, CANARY), contextOf(dialer(), systemClock)))
      expect(refused).toMatchObject({ code: 'METADATA_REFUSED' })
      expectNoSecret(refused, CANARY)
    }
    expect(server.tokenCalls).toHaveLength(0)
  })

  test('odd values that nobody needs change nothing', async () => {
    const server = await tokenServer(undefined, (origin) => ({
      ...good(origin),
      token_endpoint_auth_methods_supported: 5,
      scopes_supported: null,
    }))
    const { grant, back, secret } = await start(server.origin)
    await fetch(back({ code: 'c', state: secret }))
    await grant
  })

  test.each([
    ['404', 404, 'text/plain'],
    ['500', 500, 'text/html'],
    ['HTML', 200, 'text/html'],
    ['a redirect', 302, 'text/html'],
  ])('%s: the usual endpoints', async (_what, status, type) => {
    const server = await httpServer(({ path }, response) => {
      if (!path.startsWith('/.well-known/')) return json(response, { access_token: 'a', token_type: 'bearer' })
      return response.writeHead(status, { 'content-type': type, location: 'https://evil.test/' }).end('<p>')
    })
    const { grant, url, back, secret } = await start(server.origin)
    expect(url.origin + url.pathname).toBe(`${server.origin}/oauth/authorize`)
    await fetch(back({ code: 'c', state: secret }))
    expect(await grant).toMatchObject({ accessToken: 'a' })
  })

  test('OpenID’s document serves where OAuth’s is missing, also below a path', async () => {
    const server = await httpServer(({ path, headers }, response) => {
      const issuer = `http://${headers.host}/realm`
      if (path === '/realm/.well-known/openid-configuration') {
        return json(response, {
          issuer,
          authorization_endpoint: `${issuer}/auth`,
          token_endpoint: `${issuer}/token`,
        })
      }
      if (path === '/realm/token') return json(response, { access_token: 'a', token_type: 'bearer' })
      return response.writeHead(404).end()
    })
    const { grant, url, back, secret } = await start(`${server.origin}/realm`)
    expect(url.pathname).toBe('/realm/auth')
    await fetch(back({ code: 'c', state: secret }))
    expect(await grant).toMatchObject({ accessToken: 'a' })
    expect(server.seen.map(({ path }) => path)).toEqual([
      '/.well-known/oauth-authorization-server/realm',
      '/realm/.well-known/openid-configuration',
      '/realm/token',
    ])
  })

  test('another host is taken when it is allowed by name, and only with TLS', async () => {
    const elsewhere = await tokenServer()
    const at = (endpoint: string) => tokenServer(undefined, (origin) => ({ ...good(origin), token_endpoint: endpoint }))
    const server = await at(`${elsewhere.origin}/oauth/token`)
    const allowedHosts = [new URL(elsewhere.origin).host]
    const { grant, back, secret } = await start(server.origin, { allowedHosts })
    await fetch(back({ code: 'c', state: secret }))
    await grant
    expect(elsewhere.tokenCalls).toHaveLength(1)
    const plain = await at('http://tokens.example.test/token')
    const error = await errorOf(start(plain.origin, { allowedHosts: ['tokens.example.test'] }))
    expect(error).toMatchObject({ class: 'tls', code: 'URL_INSECURE' })
  })

  test('configured endpoints: nothing else is asked; plain http only on loopback', async () => {
    const server = await tokenServer()
    const endpoints = { authorization: `${server.origin}/there`, token: `${server.origin}/oauth/token` }
    const { grant, url, back, secret } = await start('https://unreachable.test', { endpoints })
    expect(url.origin + url.pathname).toBe(endpoints.authorization)
    await fetch(back({ code: 'c', state: secret }))
    await grant
    expect(server.seen.map(({ path }) => path)).toEqual(['/oauth/token'])
    for (const [token, code] of [
      ['http://tokens.example.test/', 'URL_INSECURE'],
      ['http://localhost/', 'URL_INSECURE'],
      ['ftp://tokens.example.test/', 'URL_INSECURE'],
      ['https://me@tokens.example.test/', 'ENDPOINT_INVALID'],
      ['nonsense', 'ENDPOINT_INVALID'],
    ] as const) {
      const make = async () => authorizationCodeAuthorizer('https://x.test', { endpoints: { token } })
      expect(await errorOf(make())).toMatchObject({ code })
    }
    const error = await errorOf(start('https://x.test', { endpoints: { token: endpoints.token } }))
    expect(error).toMatchObject({ class: 'usage', code: 'ENDPOINT_MISSING' })
  })

  test('metadata that was good once is kept when it cannot be read for a moment', async () => {
    let down = false
    const server = await httpServer(({ path, headers }, response) => {
      const origin = `http://${headers.host}`
      if (path.startsWith('/.well-known/')) {
        return down ? response.writeHead(500).end() : json(response, { ...good(origin), token_endpoint: `${origin}/t` })
      }
      return json(response, { access_token: 'a', token_type: 'bearer' })
    })
    const way = authorizationCodeAuthorizer(server.origin)
    const context = contextOf(dialer(), systemClock)
    await way.renew!(grantOf(systemClock, '0'), context)
    down = true
    await way.renew!(grantOf(systemClock, '0'), context)
    expect(server.seen.filter(({ method }) => method === 'POST').map(({ path }) => path)).toEqual(['/t', '/t'])
  })
})
