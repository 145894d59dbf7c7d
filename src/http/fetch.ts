/**
 * A `Send` as `fetch` (https://fetch.spec.whatwg.org), for SDKs that take one. What is added to requests, and to which, is the
 * `Send`'s business.
 * @module
 */
import { SyncError } from '../errors.ts'
import { pathTemplate } from './trace.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

/** `fetch` as WHATWG has it; what differs is said at `createFetch`. */
export type Fetch = typeof globalThis.fetch

/** Bytes of a body that is read from a stream: it must be held as a whole to be sent again. */
const MAX_STREAMED = 64 * 1024 * 1024
const MAX_REDIRECTS = 3
const REDIRECTS = new Set([301, 302, 303, 307, 308])

const tooLarge = () =>
  new SyncError('limit', 'TOO_LARGE', `The body of the request is a stream of more than ${MAX_STREAMED} bytes`, {
    hint: 'Send it in parts, or as bytes.',
  })

/** The bytes of a body of any kind, since what is stamped or sent again has to be known. */
export async function bodyBytes(body: AsyncIterable<unknown>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of body) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : (chunk as Uint8Array)
    length += bytes.length
    if (length > MAX_STREAMED) throw tooLarge()
    chunks.push(bytes)
  }
  return Buffer.concat(chunks)
}

/** Chunks as a stream that asks for the next one when it is read; cancelling ends the request. */
function toStream(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]()
  return new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      const { done, value } = await iterator.next()
      if (done !== true) return controller.enqueue(new Uint8Array(value))
      controller.close()
      controller.byobRequest?.respond(0)
    },
    async cancel() {
      await iterator.return?.()
    },
  })
}

/** Statuses that have no body (fetch standard, "null body status"). */
const BODYLESS = new Set([204, 205, 304])

function toResponse({ status, headers, body, stream }: HttpResponse, url: string, redirected: boolean): Response {
  const content = stream !== undefined ? toStream(stream) : (body as Uint8Array<ArrayBuffer>)
  // A `Response` cannot carry the made-up statuses that some proxies send.
  const shown = status > 599 ? 502 : status
  const list = Object.entries(headers).flatMap(([name, value]) =>
    value.split('\n').map((one): [string, string] => [name, one]),
  )
  const response = new Response(BODYLESS.has(shown) ? null : content, { status: shown, headers: list })
  // What the constructor has no words for.
  Object.defineProperties(response, { url: { value: url }, redirected: { value: redirected } })
  return response
}

/** Where a redirect leads, if it is one that may be followed: the method stays, and so does the server. */
function nextUrl(request: HttpRequest, { status, headers }: HttpResponse): string | undefined {
  if (!REDIRECTS.has(status) || headers.location === undefined) return undefined
  const isSafe = request.method === 'GET' || request.method === 'HEAD'
  const next = URL.canParse(headers.location, request.url) ? new URL(headers.location, request.url) : undefined
  if (isSafe && next !== undefined && next.origin === new URL(request.url).origin) {
    next.hash = ''
    return next.href
  }
  throw new SyncError('server', 'REDIRECT', 'The server sends the request elsewhere, where it must not follow', {
    status,
    hint: 'Only GET and HEAD follow, and only on the same server; else ask with redirect: "manual".',
  })
}

/**
 * Makes a `fetch` of a `Send`.
 *
 * Unlike the built-in one it follows redirects on the same server only, for GET and HEAD, three at most; it sends no `Origin`, has no
 * cache, and rejects with a `SyncError` (an aborted one with the signal's reason). A body from a stream is read first, 64 MiB at most.
 */
export function createFetch(send: Send): Fetch {
  return async (input, init) => {
    const asked = new Request(input, init)
    const { hash } = new URL(asked.url)
    const url = hash === '' ? asked.url : asked.url.slice(0, -hash.length)
    const given = init?.body
    const body =
      given instanceof Uint8Array
        ? given
        : asked.body === null
          ? undefined
          : await bodyBytes(asked.body as unknown as AsyncIterable<unknown>)
    let request: HttpRequest = {
      method: asked.method as HttpRequest['method'],
      url,
      label: pathTemplate(new URL(url).pathname),
      headers: Object.fromEntries(asked.headers),
      stream: true,
      signal: asked.signal,
      ...(body === undefined ? {} : { body }),
    }
    for (let followed = 0; ; followed++) {
      const response = await send(request)
      const next = asked.redirect === 'manual' ? undefined : nextUrl(request, response)
      if (next === undefined) return toResponse(response, request.url, followed > 0)
      if (asked.redirect === 'error' || followed === MAX_REDIRECTS) {
        throw new SyncError('server', 'REDIRECT', 'The server redirects, and that is not followed (any more)', {
          status: response.status,
        })
      }
      request = { ...request, url: next, label: pathTemplate(new URL(next).pathname) }
    }
  }
}
