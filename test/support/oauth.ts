/** What the session tests share: a small OAuth server under control, grants, and a browser made of plain requests. */
import type { ServerResponse } from 'node:http'
import { inspect } from 'node:util'
import { expect, onTestFinished } from 'vitest'
import type { Clock, Ui } from '../../src/environment.ts'
import type { Send } from '../../src/http/types.ts'
import { addUser, startServer } from '../../src/server/index.ts'
import type { AuthContext, Grant } from '../../src/session/authorizer.ts'
import {
  type AuthorizationCodeOptions,
  authorizationCodeAuthorizer,
} from '../../src/session/authorizers/authorization-code.ts'
import { fakeClock } from './clock.ts'
import { freshDirectory } from './files.ts'
import { dialer, httpServer, json, type Seen, type TestServer } from './servers.ts'

export const grantOf = (clock: Clock, name: string, lifetimeMs = 3_600_000): Grant => ({
  v: 1,
  accessToken: `access-${name}`,
  refreshToken: `refresh-${name}`,
  expiresAt: clock.now() + lifetimeMs,
  lifetimeMs,
})

export const contextOf = (send: Send, clock: Clock, ui?: Ui, signal?: AbortSignal): AuthContext => ({
  send,
  clock,
  ...(ui === undefined ? {} : { ui }),
  ...(signal === undefined ? {} : { signal }),
})

export interface TokenServer extends TestServer {
  /** Forms received at the token endpoint. */
  readonly tokenCalls: URLSearchParams[]
  /** Tokens revoked, in order. */
  readonly revoked: string[]
}

type OnToken = (form: URLSearchParams, response: ServerResponse, seen: Seen) => unknown

/** A server with a token endpoint that does as told; by default it counts upwards from `access-1`. */
export async function tokenServer(onToken?: OnToken, metadata?: (origin: string) => unknown): Promise<TokenServer> {
  const tokenCalls: URLSearchParams[] = []
  const revoked: string[] = []
  const server = await httpServer((request, response) => {
    const form = new URLSearchParams(request.body)
    if (request.path === '/oauth/token') {
      tokenCalls.push(form)
      const n = tokenCalls.length
      if (onToken !== undefined) return onToken(form, response, request)
      return json(response, {
        access_token: `access-${n}`,
        refresh_token: `refresh-${n}`,
        token_type: 'Bearer',
        expires_in: 3600,
      })
    }
    if (request.path === '/oauth/revoke') {
      revoked.push(form.get('token') ?? '')
      return response.writeHead(200).end()
    }
    if (request.path.startsWith('/.well-known/') && metadata !== undefined) {
      return json(response, metadata(`http://${request.headers.host}`))
    }
    return response.writeHead(404).end()
  })
  return { ...server, tokenCalls, revoked }
}

/** Fails when a secret shows in an error, however one looks at it. */
export function expectNoSecret(error: unknown, ...secrets: string[]): void {
  expect(error).toBeInstanceOf(Error)
  const views = [
    inspect(error, { depth: 9, showHidden: true }),
    JSON.stringify(error),
    JSON.stringify(error, Object.getOwnPropertyNames(error)),
    String(error),
    (error as Error).stack ?? '',
  ]
  for (const secret of secrets) for (const view of views) expect(view).not.toContain(secret)
}

/** A browser's memory and manners, as far as a login needs them: cookies, redirects, one form after another. */
export async function browse(start: string, fill: Record<string, string>, stopAt: (url: string) => boolean) {
  const cookies = new Map<string, string>()
  let url = start
  let body: URLSearchParams | undefined
  for (let step = 0; step < 20; step++) {
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(body === undefined ? {} : { method: 'POST', body }),
    })
    body = undefined
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      cookies.set(name, value)
    }
    const location = response.headers.get('location')
    if (location !== null) {
      url = new URL(location, url).href
      if (stopAt(url)) return url
      continue
    }
    const page = await response.text()
    const form = /<form[^>]*>/.exec(page)?.[0]
    if (form === undefined) throw new Error(`No form on ${url} (${response.status}): ${page.slice(0, 300)}`)
    const action = unescapeHtml(/action="([^"]*)"/.exec(form)?.[1] ?? url)
    body = new URLSearchParams()
    for (const [field] of page.matchAll(/<input[^>]*>/g)) {
      const name = /name="([^"]*)"/.exec(field)?.[1]
      if (name !== undefined) body.set(name, fill[name] ?? unescapeHtml(/value="([^"]*)"/.exec(field)?.[1] ?? ''))
    }
    url = new URL(action, url).href
  }
  throw new Error('The login goes round in circles')
}

const unescapeHtml = (text: string) =>
  text
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&')

/** The embedded server with one account: ann, `canary-51c0d-pw`. */
export async function embedded() {
  const dataDir = await freshDirectory()
  await addUser(dataDir, { name: 'ann', password: 'canary-51c0d-pw' })
  const server = await startServer({ data: dataDir })
  onTestFinished(() => server.close())
  return server.url
}

/** Whether the embedded server takes the token. */
export const works = async (url: string, grant: Grant) => {
  const headers = { authorization: `Bearer ${grant.accessToken}` }
  return (await dialer()({ method: 'GET', url: `${url}/api/v4/user/account`, headers })).status === 200
}

/** Starts a login and hands out its URL once the browser would open. */
export async function startCodeLogin(
  origin: string,
  options: AuthorizationCodeOptions = {},
  more: { signal?: AbortSignal } = {},
) {
  const clock = fakeClock('manual')
  let show: (url: URL) => void = () => {}
  const shown = new Promise<URL>((resolve) => {
    show = resolve
  })
  const ui = {
    openUrl: async (url: string) => show(new URL(url)),
    askSecret: () => Promise.reject(new Error('nobody asks')),
  }
  let state = 'running'
  const grant = authorizationCodeAuthorizer(origin, { client: { id: 'sealsync' }, ...options })
    .authorize(contextOf(dialer(), clock, ui, more.signal))
    .finally(() => {
      state = 'done'
    })
  grant.catch(() => {})
  const url = await Promise.race([shown, grant.then(() => Promise.reject(new Error('no browser')))])
  const redirect = new URL(url.searchParams.get('redirect_uri')!)
  const back = (query: Record<string, string> | [string, string][], path = redirect.pathname) => {
    const target = new URL(path, redirect)
    target.search = new URLSearchParams(query).toString()
    return target.href
  }
  return { clock, grant, url, redirect, back, stateOf: () => state, secret: url.searchParams.get('state')! }
}
