/**
 * The listener that a browser comes back to after a login (RFC 8252 §7.3): literal loopback address, one right request. What
 * makes a query right is for the caller to say.
 * @module
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { SyncError, systemCode } from '../../errors.ts'
import { hostOf, isLoopback as isLoopbackHost } from '../../http/addresses.ts'

/** Plain text; markup in it is shown, not obeyed. */
export interface Page {
  readonly title: string
  readonly text: string
}

/** What the browser shows in the end. */
export interface Pages {
  readonly success?: Page
  readonly failure?: Page
}

/** The right request. The browser waits for its page until the login is through. */
export interface Arrival {
  readonly query: URLSearchParams
  answer(success: boolean): void
}

export interface Listener {
  readonly redirectUri: string
  readonly result: Promise<Arrival>
  close(): void
}

const SUCCESS: Page = { title: 'Logged in', text: 'You can close this window and go back to the terminal.' }
const FAILURE: Page = { title: 'Not logged in', text: 'The login was refused. The terminal says more.' }
const STRAY: Page = { title: 'Not this page', text: 'This request does not belong to a login.' }

const PAGE_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': "default-src 'none'",
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  connection: 'close',
}

const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)

function write(response: ServerResponse, status: number, page: Page): void {
  const [title, text] = [escapeHtml(page.title), escapeHtml(page.text)]
  response
    .writeHead(status, PAGE_HEADERS)
    .end(
      `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><body><h1>${title}</h1><p>${text}</p></body></html>`,
    )
}

/** True for an address a listener may have: http on a literal loopback address. */
export const isLoopback = (url: URL): boolean => url.protocol === 'http:' && isLoopbackHost(hostOf(url))

/** The URL that was asked for, if it has exactly this host. Some request targets are no URL: throwing would end the process. */
function targetOf(request: IncomingMessage, host: string): URL | undefined {
  const target = request.url ?? ''
  const base = `http://${host}/`
  if (request.headers.host !== host || !URL.canParse(target, base)) return undefined
  const url = new URL(target, base)
  return url.host === host ? url : undefined
}

/**
 * Waits for the browser. Wrong requests get 400 and change nothing: anybody on this machine can send them.
 *
 * @param redirect - Port 0 takes a free one from the system.
 * @param accepts - Whether a query belongs to the login.
 * @throws {SyncError} `PORT_TAKEN`, `LISTEN_FAILED`.
 */
export async function listen(
  redirect: URL,
  accepts: (query: URLSearchParams) => boolean,
  pages: Pages = {},
): Promise<Listener> {
  let succeed: (arrival: Arrival) => void = () => {}
  const result = new Promise<Arrival>((resolve) => {
    succeed = resolve
  })
  let host = ''
  let done = false
  const server = createServer({ requestTimeout: 10_000, maxHeaderSize: 16_384 }, (request, response) => {
    const url = targetOf(request, host)
    const right =
      !done &&
      url !== undefined &&
      request.method === 'GET' &&
      url.pathname === redirect.pathname &&
      accepts(url.searchParams)
    if (!right) return write(response, 400, STRAY)
    done = true
    succeed({
      query: url.searchParams,
      answer: (success) => write(response, 200, success ? (pages.success ?? SUCCESS) : (pages.failure ?? FAILURE)),
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, redirect)))
    server.listen(Number(redirect.port || 0), hostOf(redirect), resolve)
  })
  const bound = server.address()
  const actual = new URL(redirect)
  actual.port = String(typeof bound === 'object' && bound !== null ? bound.port : 0)
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

function listenError(error: Error, redirect: URL): SyncError {
  const taken = systemCode(error) === 'EADDRINUSE'
  const code = taken ? 'PORT_TAKEN' : 'LISTEN_FAILED'
  return new SyncError('usage', code, `Cannot listen on ${redirect.host} for the login`, {
    hint: taken ? 'Another program uses the port of --redirect-uri.' : 'Use --no-browser, or another --redirect-uri.',
    cause: error,
  })
}
