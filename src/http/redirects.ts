/**
 * Redirects of presigned addresses: some object stores move a bucket, or send a reader to a mirror. Only GET, HEAD and PUT, three times
 * at most, over https wherever it began so, and with no header of ours but those that the new address is signed for.
 * @module
 */
import { SyncError } from '../errors.ts'
import { checkScheme, parseForeignUrl } from './addresses.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

const MAX_REDIRECTS = 3
/** With another method the answer to a PUT would be a GET's. */
const KEEPING = new Set([307, 308])
const ALL = new Set([301, 302, 303, 307, 308])

const refused = (status: number, why: string) =>
  new SyncError('server', 'REDIRECT', `The storage redirects ${why}`, {
    status,
    hint: 'Ask the operator of the server what its storage does.',
  })

/** What may go along to another address: what says which bytes are meant, and what its signature covers (AWS, `X-Amz-SignedHeaders`). */
function headersFor(url: URL, headers: HttpRequest['headers'] = {}): Record<string, string> {
  const signed = new Set((url.searchParams.get('X-Amz-SignedHeaders') ?? '').toLowerCase().split(';'))
  const kept = Object.entries(headers).filter(
    ([name]) =>
      name === 'range' || name === 'content-type' || (signed.has(name) && !/^(authorization|cookie|host)$/.test(name)),
  )
  return Object.fromEntries(kept)
}

function nextRequest(request: HttpRequest, { status, headers }: HttpResponse): HttpRequest | undefined {
  const { location } = headers
  const isRead = request.method === 'GET' || request.method === 'HEAD'
  if (location === undefined || !ALL.has(status) || !(isRead || (request.method === 'PUT' && KEEPING.has(status)))) {
    return undefined
  }
  const url = parseForeignUrl(location, request.url)
  if (new URL(request.url).protocol === 'https:' && url.protocol !== 'https:')
    throw refused(status, 'to where there is no TLS')
  checkScheme(url)
  url.hash = ''
  return { ...request, url: url.href, headers: headersFor(url, request.headers) }
}

/**
 * Wraps a `Send` that carries no login. Which addresses may be connected to is the dialer's check, at each of them.
 *
 * @throws {SyncError} `REDIRECT` for more than three, or to plain http; `URL_INVALID`, `URL_INSECURE`.
 */
export const withRedirects =
  (send: Send): Send =>
  async (first) => {
    let request = first
    for (let followed = 0; ; followed++) {
      const response = await send(request)
      const next = nextRequest(request, response)
      if (next === undefined) return response
      if (followed === MAX_REDIRECTS) throw refused(response.status, 'round and round')
      request = next
    }
  }
