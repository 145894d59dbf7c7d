/**
 * Requests with a large body, by Node's own client: it tells when a piece has left, so that a body goes to the system (over
 * TLS: through the cipher) piece by piece. As a whole, as undici sends it, it costs more time and a second copy of itself, and
 * nobody can tell a slow connection from a dead one.
 * @module
 */
import {
  Agent,
  type AgentOptions,
  type ClientRequest,
  type ClientRequestArgs,
  type IncomingMessage,
  request as startRequest,
} from 'node:http'
import type { Duplex } from 'node:stream'
import type { Connect } from './connect.ts'
import type { Transport } from './options.ts'
import type { HttpRequest } from './types.ts'

const PIECE_BYTES = 512 * 1024

export interface LargeBodySender {
  /**
   * Sends a request, and resolves when the headers of its answer are there. An answer that comes early ends the sending.
   *
   * @throws what `wireError` translates.
   */
  send(
    request: HttpRequest,
    body: Uint8Array,
    headers: Readonly<Record<string, string>>,
    url: URL,
  ): Promise<IncomingMessage>
  /** Ends idle connections; the others end with their requests. */
  close(): void
}

type Target = ClientRequestArgs & { origin?: string }

/** Keeps connections by origin, whatever its scheme. */
class OriginAgent extends Agent {
  constructor(
    readonly connect: Connect,
    options: AgentOptions,
  ) {
    super(options)
  }

  override getName(options?: Target): string {
    return options?.origin ?? ''
  }

  override createConnection(options: Target, done?: (error: Error | null, stream: Duplex) => void): undefined {
    this.connect(new URL(options.origin!)).then(
      (socket) => done?.(null, socket),
      (error) => done?.(error, undefined as unknown as Duplex),
    )
  }
}

const timeout = (what: string) => Object.assign(new Error(`Timeout: ${what}`), { code: what })

export function createLargeBodySender(transport: Transport, connect: Connect, maxHeaderSize: number): LargeBodySender {
  const { keepAliveMs = 20_000, headersTimeoutMs, bodyTimeoutMs, stallMs } = transport
  // How many there are at once is limited by who sends: an agent's own queue is never served again after a failed connection.
  const agent = new OriginAgent(connect, keepAliveMs > 0 ? { keepAlive: true, timeout: keepAliveMs } : {})
  return {
    send: ({ method, signal, onSent }, body, headers, url) =>
      new Promise((resolve, reject) => {
        const outgoing = startRequest({
          agent,
          ...{ origin: url.origin }, // for our agent
          method,
          hostname: url.hostname,
          path: url.pathname + url.search,
          headers: { host: url.host, ...headers, 'content-length': body.length },
          maxHeaderSize,
          ...(signal === undefined ? {} : { signal }),
        })
        let timer: NodeJS.Timeout | undefined
        const allow = (ms: number, what: string, on: ClientRequest | IncomingMessage = outgoing) => {
          clearTimeout(timer)
          timer = setTimeout(() => on.destroy(timeout(what)), ms)
        }
        let isAnswered = false
        outgoing.on('error', reject)
        outgoing.on('close', () => clearTimeout(timer))
        outgoing.on('response', (answer) => {
          isAnswered = true
          // Answers to uploads are short: one limit for all of it will do.
          allow(bodyTimeoutMs, 'BODY_TIMEOUT', answer)
          answer.once('end', () => {
            clearTimeout(timer)
            // Nothing can follow half a body. The end of a whole one may be known only later.
            if (at < body.length) outgoing.destroy()
            else if (!outgoing.writableEnded) allow(bodyTimeoutMs, 'SEND_TIMEOUT')
          })
          resolve(answer)
        })
        let at = 0
        const sendNext = () => {
          if (outgoing.destroyed) return
          if (at === body.length) {
            if (isAnswered) clearTimeout(timer)
            else allow(headersTimeoutMs, 'HEADERS_TIMEOUT')
            outgoing.end()
            onSent?.()
            return
          }
          if (isAnswered) return
          allow(stallMs, 'SEND_TIMEOUT')
          const piece = body.subarray(at, at + PIECE_BYTES)
          at += piece.length
          outgoing.write(piece, sendNext)
        }
        sendNext()
      }),
    close: () => agent.destroy(),
  }
}
