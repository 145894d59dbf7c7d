/**
 * Signed requests to one bucket of an object store: connections, limits, repeats, and what failed. What the requests mean
 * is objects.ts.
 * @module
 */
import { setMaxListeners } from 'node:events'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { isIP } from 'node:net'
import { SyncError } from '../../../crypto/errors.ts'
import { systemClock } from '../../environment.ts'
import { ApiError } from '../errors.ts'
import { isLoopback } from '../hosts.ts'
import { type Credentials, canonicalQuery, presign, signedHeaders } from './sign.ts'
import { childText, parseXml } from './xml.ts'

/** Where content goes, and the keys to it. */
export interface S3Options {
  /** `https://HOST[:PORT]`; plain http on loopback only. */
  endpoint: string
  bucket: string
  /** Default `us-east-1`. */
  region?: string
  accessKeyId: string
  secretAccessKey: string
  /** The bucket is the first part of the path instead of the host name. Always so for IP addresses. */
  pathStyle?: boolean
  /** Longest silence before an answer counts as lost. Default 20 s; completing an upload may take six times as long. */
  timeoutMs?: number
  /** First pause before a repeat; each further one is four times as long. Default 100 ms. */
  pauseMs?: number
}

export interface StoreRequest {
  /** Name of the operation, for errors. */
  readonly name: string
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** Object key; '' is the bucket itself. */
  readonly key: string
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** Whether it may be sent again when its answer was lost or is a 500. Refusals for load are always repeated. */
  readonly repeatable: boolean
  readonly isSlow?: boolean
}

export interface StoreAnswer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

const MAX_BODY = 2 * 1024 * 1024
const TRIES = 4
const TIMEOUT_MS = 20_000
const BUSY = new Set([429, 503])
const FAILED = new Set([500, 502, 504])

/**
 * The store did not do what was asked. Clients see status 504 (no answer) or 502, both with −90027; the cause says which
 * operation failed and how. Neither holds a URL or a key.
 */
export class StoreFailure extends ApiError {
  /** Error code of the store, such as `NoSuchUpload`; '' when there was no answer. */
  readonly code: string
  /** Status of its answer; 0 when there was none. */
  readonly storeStatus: number

  constructor(name: string, storeStatus: number, code: string) {
    const isSilent = storeStatus === 0
    super(isSilent ? 504 : 502, -90027, isSilent ? 'Object storage does not answer' : 'Object storage failed')
    this.code = isSilent ? '' : code
    this.storeStatus = storeStatus
    this.cause = new Error(`Object storage, ${name}: ${isSilent ? `no answer (${code})` : `${storeStatus} ${code}`}`)
  }
}

/** Checks what an operator typed. */
function parseEndpoint(options: S3Options): URL {
  const bad = (message: string, hint: string) => new SyncError('usage', 'S3_OPTIONS', message, { hint })
  const url = URL.canParse(options.endpoint) ? new URL(options.endpoint) : undefined
  const isPlain = url !== undefined && !url.username && !url.password && !url.search && !url.hash
  if (!isPlain || url.pathname !== '/' || !/^https?:$/.test(url.protocol)) {
    throw bad('The S3 endpoint must be a plain http(s) URL', 'Write it like https://s3.example.org')
  }
  if (url.protocol === 'http:' && !isLoopback(url.hostname.replace(/^\[|\]$/g, ''))) {
    throw bad('The S3 endpoint needs TLS', 'Use https; plain http is for loopback only.')
  }
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(options.bucket)) {
    throw bad('That is no name of a bucket', 'Use 3 to 63 lower-case letters, digits, dots and hyphens.')
  }
  if (!/^[a-z0-9-]{1,64}$/.test(options.region ?? 'us-east-1')) {
    throw bad('That is no name of a region', 'Use one like us-east-1.')
  }
  for (const key of [options.accessKeyId, options.secretAccessKey]) {
    if (!/^[\x21-\x7e]{1,512}$/.test(key)) throw bad('An S3 key is empty or has odd characters', 'Check the key files.')
  }
  return url
}

export class StoreClient {
  /** Host that clients will be sent to. */
  readonly host: string
  readonly #base: string
  readonly #credentials: Credentials
  readonly #agent: HttpAgent
  readonly #request: typeof httpRequest
  readonly #now: () => number
  readonly #timeoutMs: number
  readonly #pauseMs: number
  readonly #closing = new AbortController()

  /** @throws {SyncError} `S3_OPTIONS`. */
  constructor(options: S3Options, now: () => number) {
    const url = parseEndpoint(options)
    const isPath = options.pathStyle === true || isIP(url.hostname.replace(/^\[|\]$/g, '')) !== 0
    this.#base = isPath ? `${url.origin}/${options.bucket}` : `${url.protocol}//${options.bucket}.${url.host}`
    this.host = new URL(this.#base).host
    const { accessKeyId, secretAccessKey, region = 'us-east-1' } = options
    this.#credentials = { accessKeyId, secretAccessKey, region }
    const isTls = url.protocol === 'https:'
    const limits = { keepAlive: true, maxSockets: 32 }
    this.#agent = isTls ? new HttpsAgent({ ...limits, minVersion: 'TLSv1.2' }) : new HttpAgent(limits)
    this.#request = isTls ? httpsRequest : httpRequest
    this.#now = now
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS
    this.#pauseMs = options.pauseMs ?? 100
    setMaxListeners(0, this.#closing.signal)
  }

  #url(key: string): URL {
    return new URL(key === '' ? this.#base : `${this.#base}/${key}`)
  }

  /** A URL by which a client does one thing to one object. `headers` must be sent as given. */
  presign(
    method: 'GET' | 'PUT',
    key: string,
    lifetimeS: number,
    more: { query?: Record<string, string>; headers?: Record<string, string> } = {},
  ): string {
    return presign(this.#credentials, { method, url: this.#url(key), ...more }, this.#now(), lifetimeS)
  }

  /**
   * Sends a request and reads the answer, which is one of success.
   *
   * @throws {StoreFailure}
   */
  async send(request: StoreRequest): Promise<StoreAnswer> {
    return this.#repeating(request, async () => {
      const response = await this.#dial(request)
      const body = await readText(response, request.name)
      const status = response.statusCode ?? 0
      // Completing an upload sends 200 early, to keep the connection alive, and may still fail.
      const code = status < 300 && !/<Error[\s>]/.test(body) ? undefined : errorCode(body)
      if (code !== undefined) throw new StoreFailure(request.name, status < 300 ? 500 : status, code)
      return { status, headers: response.headers, body }
    })
  }

  /**
   * Starts reading content; resolves once the store has begun to send it.
   *
   * @throws {StoreFailure}
   */
  async stream(request: StoreRequest): Promise<IncomingMessage> {
    return this.#repeating(request, async () => {
      const response = await this.#dial(request)
      const status = response.statusCode ?? 0
      if (status === 200 || status === 206) return response
      throw new StoreFailure(request.name, status, errorCode(await readText(response, request.name)))
    })
  }

  /** Ends all requests; those under way fail. */
  close(): void {
    this.#closing.abort()
    this.#agent.destroy()
  }

  async #repeating<T>(request: StoreRequest, work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work()
      } catch (error) {
        if (!(error instanceof StoreFailure) || attempt === TRIES || this.#closing.signal.aborted) throw error
        const { storeStatus } = error
        const isLost = storeStatus === 0 || FAILED.has(storeStatus)
        if (!BUSY.has(storeStatus) && !(isLost && request.repeatable)) throw error
        await systemClock.sleep(this.#pauseMs * 4 ** (attempt - 1), this.#closing.signal).catch(() => {
          throw error
        })
      }
    }
  }

  #dial({ name, method, key, query = {}, headers, body = '', isSlow }: StoreRequest): Promise<IncomingMessage> {
    const url = this.#url(key)
    const hasBody = method === 'POST' || method === 'PUT'
    const given = { ...headers, ...(hasBody ? { 'content-length': String(Buffer.byteLength(body)) } : {}) }
    const signed = signedHeaders(this.#credentials, { method, url, query, headers: given }, body, this.#now())
    const text = canonicalQuery(query)
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => reject(new StoreFailure(name, 0, why))
      const outgoing = this.#request(text === '' ? url : `${url}?${text}`, {
        method,
        headers: { ...signed, 'accept-encoding': 'identity' },
        agent: this.#agent,
        signal: this.#closing.signal,
        timeout: this.#timeoutMs * (isSlow === true ? 6 : 1),
        maxHeaderSize: 32 * 1024,
      })
      outgoing.on('timeout', () => outgoing.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })))
      outgoing.on('response', resolve)
      outgoing.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? 'BROKEN'))
      outgoing.end(body)
    })
  }
}

async function readText(response: IncomingMessage, name: string): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > MAX_BODY) throw new StoreFailure(name, response.statusCode ?? 0, 'AnswerTooLong')
      chunks.push(chunk)
    }
  } catch (error) {
    if (error instanceof StoreFailure) throw error
    throw new StoreFailure(name, 0, 'CUT')
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** The code in an error document; what else it says stays out of our messages. */
function errorCode(body: string): string {
  try {
    const code = childText(parseXml(body), 'Code') ?? ''
    return /^[A-Za-z0-9.]{1,64}$/.test(code) ? code : 'Unknown'
  } catch {
    // A gateway's page, or a HEAD request, which has no body.
    return 'Unknown'
  }
}
