/**
 * A request whose answer is read as a whole: by callbacks, without a stream. Most requests are of this kind, many
 * thousands in a run.
 * @module
 */
import type { Dispatcher } from 'undici'
import { SyncError } from '../errors.ts'
import type { Transport } from './options.ts'
import type { HttpResponse } from './types.ts'

export type RawHeaders = Readonly<Record<string, string | string[] | undefined>>

/** Headers without a prototype, repeated ones joined. */
export function joined(received: RawHeaders): Record<string, string> {
  const headers: Record<string, string> = Object.create(null)
  for (const name of Object.keys(received)) {
    const value = received[name]
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return headers
}

export const isSuccess = (status: number): boolean => status >= 200 && status < 300

/** @throws {SyncError} `ENCODING_UNEXPECTED`. */
export function checkEncoding(headers: Readonly<Record<string, string>>): void {
  const encoding = headers['content-encoding']
  if (encoding === undefined || encoding === 'identity') return
  throw new SyncError('server', 'ENCODING_UNEXPECTED', 'The server sent an encoded body that nobody asked for')
}

export const tooLarge = (limit: number): SyncError =>
  new SyncError('server', 'ANSWER_TOO_LARGE', `The answer is longer than ${limit} bytes`)

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

/** @throws {SyncError} `ENCODING_UNEXPECTED`, `ANSWER_TOO_LARGE`, `STALLED`; what `wireError` translates. */
export function askWhole(
  dispatcher: Dispatcher,
  options: Dispatcher.DispatchOptions,
  transport: Transport,
  signal: AbortSignal | undefined,
): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = []
    const check = createStallCheck(transport.stallMs)
    let [length, limit, since] = [0, 0, 0]
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
      signal?.removeEventListener('abort', onAbort)
      how()
    }
    const finish = () => {
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
      settle(() => resolve({ ...answer!, body: body.length > limit ? body.subarray(0, limit) : body }))
    }
    if (signal?.aborted) return reject(signal.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    dispatcher.dispatch(options, {
      onRequestStart(controller) {
        running = controller
        if (failure !== undefined) controller.abort(failure)
      },
      onResponseStart(_controller, status, received) {
        if (status < 200) return
        const headers = joined(received)
        answer = { status, headers }
        limit = limitOf(status, transport)
        since = performance.now()
        try {
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
        finish()
        stop(new Error('The rest is not needed'))
      },
      onResponseEnd() {
        if (failure === undefined) finish()
      },
      onResponseError(_controller, error) {
        settle(() => reject(error))
      },
    })
  })
}
