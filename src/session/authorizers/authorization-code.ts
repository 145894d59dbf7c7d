/**
 * Authorization code with PKCE S256 (RFC 6749 §4.1, 7636) in the system's browser. With a loopback redirect (RFC 8252 §7.3)
 * the code arrives at a listener of ours; with any other registered redirect the page shows it, or the address bar does, and the
 * user pastes it.
 * @module
 */
import { cancelled, SyncError } from '../../errors.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'
import { isPublic, type OAuthClient, PUBLIC_CLIENT, SCRIPTING_CLIENT } from '../oauth/client.ts'
import { belongsTo, type CodeLogin, finishLogin, loginUrl, newState, startLogin } from '../oauth/code.ts'
import { grantVerbs } from '../oauth/exchange.ts'
import { type Arrival, isLoopback, type Listener, listen, type Pages } from '../oauth/loopback.ts'
import { type Found, type ServerOptions, serverFinder } from '../oauth/server.ts'

/** How a login in the browser goes. */
export interface AuthorizationCodeOptions extends ServerOptions {
  /** Default: the public client where the server's metadata offers public clients, else the scripting client. */
  readonly client?: OAuthClient
  /**
   * Default: `http://127.0.0.1:0/callback` (a port from the system) for public clients, the server's own `/oauth/callback`
   * page otherwise. A loopback URI with a port listens on exactly that port.
   */
  readonly redirectUri?: string
  /** Default `all`. */
  readonly scope?: string
  /** Further parameters of the login page's address (`prompt`, `audience`). */
  readonly parameters?: Readonly<Record<string, string>>
  /** Longest wait for the user. Default 5 minutes. */
  readonly timeoutMs?: number
  /**
   * Also ask for the address that the browser ends at, since it may run on another machine, where our listener is not. Whichever comes
   * first counts. Default: false, unless there is no listener.
   */
  readonly ask?: boolean
  /** What the browser shows at the end. */
  readonly pages?: Pages
}

function chooseClient({ metadata }: Found, options: AuthorizationCodeOptions): OAuthClient {
  const methods: unknown = metadata?.token_endpoint_auth_methods_supported
  const offersPublic = Array.isArray(methods) && methods.includes('none')
  return options.client ?? (offersPublic ? PUBLIC_CLIENT : SCRIPTING_CLIENT)
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

/**
 * Logs in with a browser.
 *
 * @param origin - `https://HOST` of the authorization server, with a path where its issuer has one.
 * @throws {SyncError} `ENDPOINT_INVALID`, `URL_INSECURE`, `REDIRECT_INVALID` at once. From `authorize`: `LOGIN_NEEDED` without a person, `LOGIN_TIMEOUT`, `LOGIN_DENIED`, `PORT_TAKEN`,
 * `METADATA_REFUSED`, `STATE_MISMATCH` for a pasted address of another login, and those of a token request.
 */
export function authorizationCodeAuthorizer(origin: string, options: AuthorizationCodeOptions = {}): Authorizer {
  const find = serverFinder(origin, options)
  if (options.redirectUri !== undefined && !URL.canParse(options.redirectUri)) {
    throw new SyncError('usage', 'REDIRECT_INVALID', 'The redirect URI is not an absolute URL', {
      hint: 'Give it as it is registered, like http://127.0.0.1/callback.',
    })
  }
  // Renewal and revocation need the same choice of client.
  const locate = async (context: AuthContext) => {
    const found = await find(context)
    return { server: found.server, client: chooseClient(found, options) }
  }

  const authorize = async (context: AuthContext): Promise<Grant> => {
    const { ui } = context
    if (ui === undefined) throw new SyncError('auth', 'LOGIN_NEEDED', 'Nobody is there to log in with a browser')
    const { server, client } = await locate(context)
    const usual = isPublic(client) ? 'http://127.0.0.1:0/callback' : `${origin.replace(/\/+$/, '')}/oauth/callback`
    const redirect = new URL(options.redirectUri ?? usual)
    const state = newState()
    // A server on this machine has a page of its own for codes; that address is not ours to listen on.
    const isOurs = isLoopback(redirect) && redirect.origin !== new URL(origin).origin
    const accepts = (query: URLSearchParams) => belongsTo({ server, state }, query)
    const listener = isOurs ? await listen(redirect, accepts, options.pages) : undefined
    const over = new AbortController()
    try {
      const redirectUri = listener?.redirectUri ?? options.redirectUri ?? usual
      const login = startLogin({ server, client, redirectUri, scope: options.scope ?? 'all', state })
      await ui.openUrl(await loginUrl(login, options.parameters))
      const answer = arrival(options.ask === true, listener, login, () =>
        ui.askSecret('Code shown by the server, or the address it led to', over.signal),
      )
      return await finish(login, await withDeadline(answer, options.timeoutMs ?? 300_000, context), context)
    } finally {
      over.abort()
      listener?.close()
    }
  }
  return {
    name: 'authorization-code',
    clientId: (options.client ?? PUBLIC_CLIENT).id,
    authorize,
    ...grantVerbs(locate, options),
  }
}

/** Redeems the code; the browser learns how that went. */
async function finish(login: CodeLogin, { query, answer }: Arrival, context: AuthContext): Promise<Grant> {
  try {
    const grant = await finishLogin(login, query, context)
    answer(true)
    return grant
  } catch (error) {
    answer(false)
    throw error
  }
}

async function arrival(
  alsoAsks: boolean,
  listener: Listener | undefined,
  login: CodeLogin,
  ask: () => Promise<string>,
): Promise<Arrival> {
  const typed = async () => ({ query: pasted(await ask(), login), answer: () => {} })
  if (listener === undefined) return typed()
  return alsoAsks ? Promise.race([listener.result, typed()]) : listener.result
}

/** An address with a query, and not a code that happens to hold a colon. */
const ADDRESS = /^[a-z][a-z0-9+.-]*:\/\S*[?&](code|error)=/i

/** A pasted code stands in for the redirect, and the person is the check that it belongs here; an address is checked. */
function pasted(text: string, login: CodeLogin): URLSearchParams {
  const trimmed = text.trim()
  if (ADDRESS.test(trimmed) && URL.canParse(trimmed)) {
    const query = new URL(trimmed).searchParams
    if (belongsTo(login, query)) return query
    throw new SyncError('auth', 'STATE_MISMATCH', 'The pasted address belongs to another login', {
      hint: 'Run the login again and paste the address it ends at.',
    })
  }
  const { server, state } = login
  const announced = server.authorization_response_iss_parameter_supported === true
  return new URLSearchParams({ code: trimmed, state, ...(announced ? { iss: server.issuer } : {}) })
}
