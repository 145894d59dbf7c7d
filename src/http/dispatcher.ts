/**
 * A `Send` as a dispatcher of undici, for programs that use its `request`, its `fetch`, or the built-in one. Nothing is dialled here,
 * so requests have the login, the repeating and the limits of the `Send`.
 * @module
 */
import { Dispatcher } from 'undici'
import { SyncError } from '../errors.ts'
import { bodyBytes } from './fetch.ts'
import { pathTemplate } from './trace.ts'
import type { HttpRequest, HttpResponse, Send } from './types.ts'

type Options = Dispatcher.DispatchOptions
type Handler = Dispatcher.DispatchHandler

const unsupported = (what: string) =>
  new SyncError('usage', 'OPTION_INVALID', `This dispatcher does not do that: ${what}`)

function headersOf(given: Options['headers']): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  const add = (name: string, value: unknown) => {
    if (value === undefined || value === null) return
    const key = name.toLowerCase()
    const text = Array.isArray(value) ? value.join(', ') : String(value)
    headers[key] = headers[key] === undefined ? text : `${headers[key]}, ${text}`
  }
  if (given === undefined || given === null) return headers
  if (Array.isArray(given)) for (let at = 0; at < given.length; at += 2) add(String(given[at]), given[at + 1])
  else if (Symbol.iterator in given) for (const [name, value] of given) add(name, value)
  else for (const [name, value] of Object.entries(given)) add(name, value)
  // The connection is the dialer’s business.
  for (const name of ['host', 'connection', 'content-length', 'transfer-encoding', 'keep-alive']) delete headers[name]
  return headers
}

async function bytesOf(body: unknown): Promise<Uint8Array | undefined> {
  if (body === undefined || body === null) return undefined
  if (typeof body === 'string') return Buffer.from(body)
  if (body instanceof Uint8Array) return body
  if (body instanceof ArrayBuffer) return new Uint8Array(body)
  if (typeof body === 'object' && Symbol.asyncIterator in body) return bodyBytes(body as AsyncIterable<unknown>)
  throw unsupported('bodies other than text, bytes and streams')
}

function addressOf({ origin, path, query }: Options): string {
  if (origin === undefined) throw unsupported('requests without an origin')
  // Below the origin, whatever the path is: a path such as //host must not lead elsewhere.
  const url = new URL(new URL(origin).origin + (path.startsWith('/') ? path : `/${path}`))
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(one ?? ''))
  }
  return url.href
}

/** What a handler holds to stop or slow down a request. */
class Controller implements Dispatcher.DispatchController {
  readonly stop = new AbortController()
  #resumed: (() => void) | undefined
  #pause: Promise<void> | undefined

  get aborted(): boolean {
    return this.stop.signal.aborted
  }

  get paused(): boolean {
    return this.#pause !== undefined
  }

  get reason(): Error | null {
    return this.aborted ? (this.stop.signal.reason as Error) : null
  }

  abort(reason: Error): void {
    this.stop.abort(reason)
    this.resume()
  }

  pause(): void {
    this.#pause ??= new Promise((resolve) => {
      this.#resumed = resolve
    })
  }

  resume(): void {
    this.#resumed?.()
    this.#pause = undefined
    this.#resumed = undefined
  }

  /** Ends when the handler wants more. */
  async ready(): Promise<void> {
    while (this.#pause !== undefined) await this.#pause
    if (this.aborted) throw this.stop.signal.reason
  }
}

const listed = (headers: HttpResponse['headers']): Record<string, string | string[]> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, value.includes('\n') ? value.split('\n') : value]),
  )

async function run(send: Send, options: Options, handler: Handler, controller: Controller): Promise<void> {
  const { method, upgrade } = options
  if (upgrade || (method as string) === 'CONNECT') throw unsupported('upgrades and tunnels')
  const url = addressOf(options)
  handler.onRequestStart?.(controller, {})
  await controller.ready()
  const body = await bytesOf(options.body)
  const response = await send({
    method: method as HttpRequest['method'],
    url,
    label: pathTemplate(new URL(url).pathname),
    headers: headersOf(options.headers),
    stream: true,
    signal: controller.stop.signal,
    ...(body === undefined ? {} : { body }),
  })
  handler.onResponseStart?.(controller, response.status, listed(response.headers), '')
  for await (const chunk of response.stream ?? [response.body]) {
    await controller.ready()
    if (chunk.length > 0) handler.onResponseData?.(controller, Buffer.from(chunk))
  }
  await controller.ready()
  handler.onResponseEnd?.(controller, {})
}

class SendDispatcher extends Dispatcher {
  readonly #send: Send

  constructor(send: Send) {
    super()
    this.#send = send
  }

  override dispatch(options: Options, handler: Handler): boolean {
    const controller = new Controller()
    run(this.#send, options, handler, controller).catch((error) => handler.onResponseError?.(controller, error))
    return true
  }

  // The connections belong to others.
  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | undefined {
    if (callback === undefined) return Promise.resolve()
    queueMicrotask(callback)
    return undefined
  }

  override destroy(...given: unknown[]): Promise<void> {
    const callback = given.find((one): one is () => void => typeof one === 'function')
    if (callback !== undefined) queueMicrotask(callback)
    return Promise.resolve()
  }
}

/** Makes a dispatcher of a `Send`. Closing it closes no connections. */
export function createDispatcher(send: Send): Dispatcher {
  // The interceptor that does nothing gives handlers of older versions, the built-in `fetch` among them, the shape of today's.
  return new SendDispatcher(send).compose((dispatch) => dispatch)
}
