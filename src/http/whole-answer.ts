/**
 * A request whose answer is read as a whole: by callbacks, without a stream. Most requests are of this kind, many
 * thousands in a run.
 * @module
 */
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import type { Dispatcher } from 'undici'
import { SyncError, systemCode } from '../errors.ts'
import type { Transport } from './options.ts'
import type { HttpRequest, HttpResponse } from './types.ts'

export type RawHeaders = Readonly<Record<string, string | string[] | undefined>>

/** Headers without a prototype, repeated ones joined: with a comma, cookies (which may hold one) with a line end. */
export function joined(received: RawHeaders): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  for (const name of Object.keys(received)) {
    const value = received[name]
    if (value === undefined) continue
    headers[name] = Array.isArray(value) ? value.join(name === 'set-cookie' ? '\n' : ', ') : value
  }
  return headers
}

export const isSuccess = (status: number): boolean => status >= 200 && status < 300

/** Newer versions of Node have it. */
const { zstdDecompress: zstd } = zlib as unknown as { zstdDecompress?: typeof zlib.gunzip }

const DECODERS: ReadonlyMap<string, (body: Uint8Array, options: { maxOutputLength: number }) => Promise<Buffer>> =
  new Map([
    ['gzip', promisify<Uint8Array, { maxOutputLength: number }, Buffer>(zlib.gunzip)],
    ['x-gzip', promisify<Uint8Array, { maxOutputLength: number }, Buffer>(zlib.gunzip)],
    ['deflate', promisify<Uint8Array, { maxOutputLength: number }, Buffer>(zlib.inflate)],
    ['br', promisify<Uint8Array, { maxOutputLength: number }, Buffer>(zlib.brotliDecompress)],
    ...(zstd === undefined
      ? []
      : ([['zstd', promisify<Uint8Array, { maxOutputLength: number }, Buffer>(zstd)]] as const)),
  ])

/** What is asked for where compression is wanted. */
export const ENCODINGS = zstd === undefined ? 'gzip, br' : 'gzip, br, zstd'

/** A small answer may be of one letter; a large one that unpacks to more than this many times itself was made to do so. */
const MAX_RATIO = 200
const FREE_BYTES = 1024 * 1024

const encodingOf = (headers: Readonly<Record<string, string>>) =>
  headers['content-encoding']?.trim().toLowerCase() || 'identity'

/**
 * Whoever asked: some proxies compress what is JSON all the same.
 *
 * @param isContent - The answer is file content, which nothing may have changed on its way.
 * @throws {SyncError} `ENCODING_UNEXPECTED`.
 */
export function checkEncoding(headers: Readonly<Record<string, string>>, isContent = false): void {
  const encoding = encodingOf(headers)
  if (encoding === 'identity' || (!isContent && DECODERS.has(encoding))) return
  throw new SyncError('server', 'ENCODING_UNEXPECTED', 'The server sent an encoded body that nobody asked for', {
    hint: 'A proxy in between may have changed it.',
  })
}

/**
 * The answer with its body decoded.
 *
 * @param limit - Longest body, in bytes, before decoding and after.
 * @throws {SyncError} `ANSWER_TOO_LARGE`; `ENCODING_INVALID` for a body that is not what it says.
 */
async function decoded(answer: HttpResponse, limit: number): Promise<HttpResponse> {
  const encoding = encodingOf(answer.headers)
  const decode = DECODERS.get(encoding)
  if (decode === undefined || answer.body.length === 0) return answer
  const most = Math.min(limit, Math.max(FREE_BYTES, answer.body.length * MAX_RATIO))
  // The length was that of the encoded body.
  const { 'content-encoding': _encoding, 'content-length': _length, ...headers } = answer.headers
  try {
    return { ...answer, headers, body: await decode(answer.body, { maxOutputLength: most }) }
  } catch (error) {
    // What the server says of a failure is not worth another one: its status tells enough.
    if (!isSuccess(answer.status)) return { ...answer, headers, body: new Uint8Array(0) }
    if (systemCode(error) === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(most)
    throw new SyncError('server', 'ENCODING_INVALID', `The answer is not ${encoding}, as its header says`, {
      hint: 'A proxy in between may have changed it.',
      retryable: true,
    })
  }
}

/** A whole answer, from what arrived of its body; never longer than may be kept. */
export function wholeAnswer(
  head: Omit<HttpResponse, 'body'>,
  body: Uint8Array,
  limit: number,
): HttpResponse | Promise<HttpResponse> {
  const answer = { ...head, body: body.length > limit ? body.subarray(0, limit) : body }
  return encodingOf(head.headers) === 'identity' ? answer : decoded(answer, limit)
}

/**
 * Resolves when the connection of an answer that has just ended can be used again, which the HTTP library allows one turn of the event
 * loop later: who asks the next thing before makes another connection, and waits for it.
 */
export const connectionIsFree = (): Promise<void> =>
  // Not at once: the library asks for its turn when this has been called.
  Promise.resolve().then(() => new Promise((resolve) => void setImmediate(resolve)))

/** So many answers that say nothing yet (1xx) are heard before the one that counts. */
const MAX_INTERIM = 16

/** Counts interim answers, each of which makes the HTTP library wait anew. */
export function createInterimCheck(): () => void {
  let heard = 0
  return () => {
    if (++heard <= MAX_INTERIM) return
    throw new SyncError('server', 'ANSWER_ENDLESS', 'The server goes on announcing an answer that does not come')
  }
}

export const tooLarge = (limit: number): SyncError =>
  new SyncError('server', 'ANSWER_TOO_LARGE', `The answer is longer than ${limit} bytes`)

const tooLong = (ms: number) =>
  new SyncError('network', 'TIMEOUT_ANSWER', `The answer took longer than ${ms} ms`, {
    hint: 'Check the network, or allow more with answerTimeoutMs (--answer-timeout).',
    retryable: true,
  })

const stalled = () =>
  new SyncError('network', 'STALLED', 'The answer comes in too slowly', {
    hint: 'Check the network, then run again.',
    retryable: true,
  })

/** Tells a body that trickles from one that flows. */
export function createStallCheck(stallMs: number): (waitedMs: number, bytes: number) => void {
  let [waited, received] = [0, 0]
  return (waitedMs, bytes) => {
    waited += waitedMs
    received += bytes
    if (waited <= stallMs) return
    if (received < (stallMs / 1000) * 1024) throw stalled()
    ;[waited, received] = [0, 0]
  }
}

/** What of an answer may be kept. */
export const limitOf = (status: number, { maxBodyBytes, maxErrorBytes }: Transport): number =>
  isSuccess(status) ? maxBodyBytes : maxErrorBytes

/** @throws {SyncError} `ENCODING_UNEXPECTED`, `ENCODING_INVALID`, `ANSWER_TOO_LARGE`, `ANSWER_ENDLESS`, `TIMEOUT_ANSWER`, `STALLED`; what `wireError` translates. */
export function askWhole(
  dispatcher: Dispatcher,
  options: Dispatcher.DispatchOptions,
  transport: Transport,
  { signal, onStart }: Pick<HttpRequest, 'signal' | 'onStart'>,
): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = []
    const check = createStallCheck(transport.stallMs)
    const checkInterim = createInterimCheck()
    let [length, limit, since] = [0, 0, 0]
    let timer: NodeJS.Timeout | undefined
    let answer: Omit<HttpResponse, 'body'> | undefined
    let running: Dispatcher.DispatchController | undefined
    let failure: Error | undefined
    /** Ends the request, or the next thing that it does. */
    const stop = (reason: unknown) => {
      failure = reason instanceof Error ? reason : new Error('Stopped', { cause: reason })
      running?.abort(failure)
      settle(() => reject(failure))
    }
    const onAbort = () => stop(signal!.reason)
    const settle = (how: () => void) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      how()
    }
    const finish = () => {
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
      resolve(wholeAnswer(answer!, body, limit))
    }
    if (signal?.aborted) return reject(signal.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    dispatcher.dispatch(options, {
      onRequestStart(controller) {
        running = controller
        if (failure !== undefined) return controller.abort(failure)
        onStart?.()
        // What waits for a connection is not waiting for the server.
        timer ??= setTimeout(() => stop(tooLong(transport.answerTimeoutMs)), transport.answerTimeoutMs)
      },
      onResponseStart(_controller, status, received) {
        try {
          if (status < 200) return checkInterim()
          const headers = joined(received)
          answer = { status, headers }
          limit = limitOf(status, transport)
          since = performance.now()
          checkEncoding(headers)
        } catch (error) {
          stop(error)
        }
      },
      onResponseData(_controller, chunk) {
        if (failure !== undefined) return
        const now = performance.now()
        try {
          check(now - since, chunk.length)
        } catch (error) {
          return stop(error)
        }
        since = now
        chunks.push(chunk)
        length += chunk.length
        if (length <= limit) return
        if (isSuccess(answer!.status)) return stop(tooLarge(limit))
        settle(finish)
        stop(new Error('The rest is not needed'))
      },
      onResponseEnd() {
        if (failure === undefined) settle(() => connectionIsFree().then(finish).catch(reject))
      },
      onResponseError(_controller, error) {
        settle(() => reject(error))
      },
    })
  })
}
