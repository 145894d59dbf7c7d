/**
 * Authorization code with PKCE S256 (RFC 6749 §4.1, 7636) in the system's browser. With a loopback redirect (RFC 8252 §7.3)
 * the code arrives at a listener of ours; with any other registered redirect the page shows it and the user pastes it.
 * @module
 */
import { timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import * as oauth from 'oauth4webapi'
import { cancelled, SyncError, systemCode } from '../../errors.ts'
import { hostOf, reachOf } from '../../http/addresses.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import {
  clientAuth,
  defaultServer,
  discover,
  type OAuthClient,
  oauthError,
  PUBLIC_CLIENT,
  refreshGrant,
  requestOptions,
  revokeGrant,
  SCRIPTING_CLIENT,
  toGrant,
} from '../oauth.ts'

export interface AuthorizationCodeOptions {
  /** Default: the public client where the server's metadata offers public clients, else the scripting client. */
  readonly client?: OAuthClient
  /**
   * Default: `http://127.0.0.1:0/callback` (a port from the system) for public clients, the server's own `/oauth/callback`
   * page otherwise. A loopback URI with a port listens on exactly that port.
   */
  readonly redirectUri?: string
  /** Default `all`. */
  readonly scope?: string
  /** Longest wait for the user. Default 5 minutes. */
  readonly timeoutMs?: number
}

const PAGE = (title: string, text: string) =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><body><h1>${title}</h1><p>${text}</p></body></html>`
const PAGE_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': "default-src 'none'",
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  connection: 'close',
}

interface Plan {
  server: oauth.AuthorizationServer
  client: OAuthClient
  redirectUri: string
}

async function choose(origin: string, options: AuthorizationCodeOptions, context: AuthContext): Promise<Plan> {
  const metadata = await discover(origin, context)
  const server = { ...defaultServer(origin), ...metadata }
  const methods: unknown = metadata?.token_endpoint_auth_methods_supported
  const offersPublic = Array.isArray(methods) && methods.includes('none')
  const client = options.client ?? (offersPublic ? PUBLIC_CLIENT : SCRIPTING_CLIENT)
  const isPublic = client.secret === undefined
  const redirectUri = options.redirectUri ?? (isPublic ? 'http://127.0.0.1:0/callback' : `${origin}/oauth/callback`)
  return { server, client, redirectUri }
}

const isLoopback = (url: URL) =>
  url.protocol === 'http:' && isIP(hostOf(url)) !== 0 && reachOf(hostOf(url)) === 'loopback'

const sameText = (a: string, b: string) =>
  a.length === b.length && timingSafeEqual(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1'))

interface Listener {
  redirectUri: string
  /** Query of the one right request. */
  result: Promise<URLSearchParams>
  close(): void
}

/** Waits for the browser. Wrong requests get 400 and change nothing: anybody on this machine can send them. */
async function listen(redirect: URL, state: string): Promise<Listener> {
  let succeed: (query: URLSearchParams) => void = () => {}
  const result = new Promise<URLSearchParams>((resolve) => {
    succeed = resolve
  })
  let host = ''
  let done = false
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL('/', `http://${host}`)
    // Some request targets are no URL, and throwing here would end the process.
    const isUrl = URL.canParse(request.url ?? '', url)
    if (isUrl) url.href = new URL(request.url ?? '', url).href
    const right =
      isUrl &&
      !done &&
      request.method === 'GET' &&
      request.headers.host === host &&
      url.host === host &&
      url.pathname === redirect.pathname &&
      url.searchParams.getAll('state').length === 1 &&
      sameText(url.searchParams.get('state')!, state)
    if (!right) {
      response.writeHead(400, PAGE_HEADERS).end(PAGE('Not this page', 'This request does not belong to a login.'))
      return
    }
    done = true
    const ok = url.searchParams.has('code')
    const [title, text] = ok
      ? ['Logged in', 'You can close this window and go back to the terminal.']
      : ['Not logged in', 'The login was refused. The terminal says more.']
    response.writeHead(200, PAGE_HEADERS).end(PAGE(title, text))
    succeed(url.searchParams)
  }
  const server: Server = createServer({ requestTimeout: 10_000, maxHeaderSize: 16_384 }, answer)
  const address = hostOf(redirect)
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const taken = systemCode(error) === 'EADDRINUSE'
      reject(
        new SyncError(
          'usage',
          taken ? 'PORT_TAKEN' : 'LISTEN_FAILED',
          `Cannot listen on ${redirect.host} for the login`,
          {
            hint: taken
              ? 'Another program uses the port of --redirect-uri.'
              : 'Use --no-browser, or another --redirect-uri.',
            cause: error,
          },
        ),
      )
    })
    server.listen(Number(redirect.port || 0), address, resolve)
  })
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  const actual = new URL(redirect)
  actual.port = String(port)
  host = actual.host
  return {
    redirectUri: actual.href,
    result,
    close() {
      server.close()
      // The page that is being written may finish; idle connections must not keep the process alive.
      server.closeIdleConnections()
      setTimeout(() => server.closeAllConnections(), 500).unref()
    },
  }
}

async function withDeadline<T>(work: Promise<T>, timeoutMs: number, context: AuthContext): Promise<T> {
  const stop = new AbortController()
  const timeout = context.clock.sleep(timeoutMs, stop.signal).then(
    () => {
      throw new SyncError('auth', 'LOGIN_TIMEOUT', 'Nobody finished the login in the browser', {
        hint: 'Run the login again.',
      })
    },
    () => new Promise<never>(() => {}),
  )
  const abort = new Promise<never>((_resolve, reject) => {
    const give = () => reject(cancelled(context.signal!))
    if (context.signal?.aborted) give()
    context.signal?.addEventListener('abort', give, { once: true, signal: stop.signal })
  })
  try {
    return await Promise.race([work, timeout, abort])
  } finally {
    stop.abort()
  }
}

export function authorizationCodeAuthorizer(origin: string, options: AuthorizationCodeOptions = {}): Authorizer {
  const authorize = async (context: AuthContext): Promise<Grant> => {
    const ui = context.ui
    if (ui === undefined) throw new SyncError('auth', 'LOGIN_NEEDED', 'Nobody is there to log in with a browser')
    const { server, client, redirectUri } = await choose(origin, options, context)
    const verifier = oauth.generateRandomCodeVerifier()
    const state = oauth.generateRandomState()
    const redirect = new URL(redirectUri)
    // A server on this machine has a page of its own for codes; that address is not ours to listen on.
    const isOurs = isLoopback(redirect) && redirect.origin !== origin
    const listener = isOurs ? await listen(redirect, state) : undefined
    try {
      const url = new URL(server.authorization_endpoint!)
      const finalRedirect = listener?.redirectUri ?? redirectUri
      for (const [name, value] of Object.entries({
        response_type: 'code',
        client_id: client.id,
        redirect_uri: finalRedirect,
        scope: options.scope ?? 'all',
        state,
        code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
      })) {
        url.searchParams.set(name, value)
      }
      await ui.openUrl(url.href)
      const answer =
        listener?.result ?? ui.askSecret('Code shown by the server').then((text) => pasted(text, state, server))
      const query = await withDeadline(answer, options.timeoutMs ?? 300_000, context)
      const id = { client_id: client.id }
      const checked = oauth.validateAuthResponse(server, id, query, state)
      const response = await oauth.authorizationCodeGrantRequest(
        server,
        id,
        clientAuth(client),
        checked,
        finalRedirect,
        verifier,
        requestOptions(context.send, context.signal),
      )
      return toGrant(await oauth.processAuthorizationCodeResponse(server, id, response), context)
    } catch (error) {
      throw oauthError(error, 'The login')
    } finally {
      listener?.close()
    }
  }
  // Renewal and revocation need the same choice of client; the metadata is asked for again.
  return {
    name: 'authorization-code',
    authorize,
    async renew(grant, context) {
      const { server, client } = await choose(origin, options, context)
      return refreshGrant(server, client, grant, context)
    },
    async revoke(grant, context) {
      const { server, client } = await choose(origin, options, context)
      return revokeGrant(server, client, grant, context)
    },
  }
}

/** A pasted code stands in for the redirect; the person is the check that it belongs to this login. */
function pasted(text: string, state: string, server: oauth.AuthorizationServer): URLSearchParams {
  const query = new URLSearchParams({ code: text.trim(), state })
  if (server.authorization_response_iss_parameter_supported) query.set('iss', server.issuer)
  return query
}
