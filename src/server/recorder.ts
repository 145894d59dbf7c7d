/**
 * The byte recorder: shows tests everything that reached the server. Active only when one is passed in; what it does
 * with the bytes is its own affair.
 * @module
 */
import type { IncomingHttpHeaders } from 'node:http'

/** One request as it arrived. The Authorization header is left out. */
export interface RecordedRequest {
  /** Counts up from 1 per server. */
  id: number
  method: string
  /** Path with query. */
  path: string
  headers: IncomingHttpHeaders
}

/** Sees all requests; for tests. */
export interface Recorder {
  /** Called once per request, before anything else happens to it. */
  onRequest?(request: RecordedRequest): void
  /** Called for every chunk of a request body, in order, on every route. */
  onBody?(request: RecordedRequest, chunk: Uint8Array): void
}

/** A recorder that keeps everything in memory. */
export class MemoryRecorder implements Recorder {
  readonly requests: RecordedRequest[] = []
  readonly #bodies = new Map<number, Uint8Array[]>()

  onRequest(request: RecordedRequest): void {
    this.requests.push(request)
  }

  onBody(request: RecordedRequest, chunk: Uint8Array): void {
    const chunks = this.#bodies.get(request.id)
    if (chunks === undefined) this.#bodies.set(request.id, [Uint8Array.from(chunk)])
    else chunks.push(Uint8Array.from(chunk))
  }

  /** The body of one request, as far as it was received. */
  bodyOf(request: RecordedRequest): Uint8Array {
    return Buffer.concat(this.#bodies.get(request.id) ?? [])
  }
}
