/**
 * What is told of each request: for the access log, and for the metrics. Nothing that opens anything is in it: no query, no header but the
 * name of the program, and of a path only what is an id.
 * @module
 */
import { createWriteStream, type WriteStream } from 'node:fs'

/** One request that is over. */
export interface AccessEntry {
  /** Milliseconds since the epoch. */
  time: number
  address: string
  /** Id of the user, if it came with a good login. */
  user?: number
  method: string
  /** Pattern of the route; absent where there is none. */
  route?: string
  path: string
  /** 499: the client went away, or a fault cut the connection. */
  status: number
  ms: number
  bytesIn: number
  bytesOut: number
  agent?: string
}

/** A path with what is no id of a node or user, and might be a token, left out. */
export function safePath(route: string | undefined, path: string): string {
  if (route === undefined) {
    // What nobody knows here may be a path with a token in it that somebody has mistyped.
    return path.slice(0, 200).replace(/[^/]{16,}/g, '…')
  }
  const given = path.split('/')
  return route
    .split('/')
    .map((segment, at) => (segment.startsWith(':') ? (/^\d+$/.test(given[at] ?? '') ? given[at] : '…') : segment))
    .join('/')
}

/** So much waits for a slow disk; what comes then is left out. */
const MAX_WAITING = 4 * 1024 * 1024

/** A file of lines of JSON, which can be moved away and opened anew. */
export class AccessLog {
  readonly #path: string
  readonly #onError: (error: unknown) => void
  #stream: WriteStream
  /** Lines that were left out. */
  dropped = 0

  constructor(path: string, onError: (error: unknown) => void) {
    this.#path = path
    this.#onError = onError
    this.#stream = this.#open()
  }

  #open(): WriteStream {
    const stream = createWriteStream(this.#path, { flags: 'a', mode: 0o600 })
    stream.on('error', this.#onError)
    return stream
  }

  write({ time, ...entry }: AccessEntry): void {
    if (this.#stream.destroyed || this.#stream.writableLength > MAX_WAITING) {
      this.dropped++
      return
    }
    this.#stream.write(`${JSON.stringify({ time: new Date(time).toISOString(), ...entry })}\n`)
  }

  /** Goes on in a new file of that name: the old one was moved away. */
  reopen(): void {
    this.#stream.end()
    this.#stream = this.#open()
  }

  close(): Promise<void> {
    const stream = this.#stream
    if (stream.destroyed) return Promise.resolve()
    return new Promise((resolve) => {
      stream.once('close', () => resolve())
      stream.end()
    })
  }
}
