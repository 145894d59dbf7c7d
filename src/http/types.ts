/**
 * HTTP as one function type. Behaviour is added by wrapping a `Send` with another, visibly, in client.ts. Bodies are bytes,
 * never streams, so that every request can be repeated, stamped and given a length.
 * @module
 */

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Absolute. */
  readonly url: string
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
  readonly signal?: AbortSignal
  /** True: answer as soon as the headers are there, with the body as `stream` when the status is 2xx. */
  readonly stream?: boolean
  /** True: may be repeated although its method is not idempotent (RFC 9110 §9.2.2), or although it is a PUT with effects. */
  readonly repeatable?: boolean
  /** Told when a connection begins to carry it, unless its body is large or its answer is a stream; again when it is repeated. */
  readonly onStart?: () => void
  /** Told when all of a large body (1 MiB or more) is on its way; again when it is repeated. Of smaller ones nobody is told. */
  readonly onSent?: () => void
  /** Shown in logs and errors instead of the URL: a path template without ids, tokens or query. */
  readonly label?: string
}

/** An answer of a server. */
export interface HttpResponse {
  readonly status: number
  /** Names in lower case; repeated headers joined with ", ", `set-cookie` with a line end. */
  readonly headers: Readonly<Record<string, string>>
  /** The whole body, unless `stream` is set. */
  readonly body: Uint8Array
  /** Chunks of any size that belong to the receiver; must be read to the end or left by `return()`. */
  readonly stream?: AsyncIterable<Uint8Array>
}

/** Sends one request. Rejects with class `network` or `tls` when there is no answer; any status is an answer. */
export type Send = (request: HttpRequest) => Promise<HttpResponse>
