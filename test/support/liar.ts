/**
 * A proxy in front of a server that changes what it says: the server that a client must not trust. Requests go through whole;
 * JSON answers can be changed, requests can be answered in the server's place, and all bodies are kept.
 * @module
 */
import { createServer, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'

// biome-ignore lint/suspicious/noExplicitAny: answers are changed as a test likes, and checked by what becomes of them.
export type Json = any

export interface Asked {
  readonly method: string
  /** Path with its query; may be changed before the server is asked. */
  url: string
  readonly body: Buffer
}

export interface Liar {
  readonly origin: string
  /** Requests that came, with their bodies. */
  readonly asked: readonly Asked[]
  /** Changes each node of an answer. */
  lieAboutNodes(change: (node: Json) => void): void
  /** Changes a whole answer: what it returns is sent instead. */
  lie(change: (asked: Asked, answer: Json) => Json): void
  /** Answers in the server's place, unless it returns nothing. */
  answer(how: (asked: Asked) => { status?: number; json?: Json; body?: Buffer } | undefined): void
  /** From here on everything goes through as it is; nothing is kept any more of what was asked. */
  honest(): void
  close(): Promise<void>
}

const nodesOf = (answer: Json): Json[] => [
  ...(Array.isArray(answer?.items) ? answer.items : []),
  ...(typeof answer?.id === 'number' && answer.type ? [answer] : []),
]

export async function startLiar(target: string): Promise<Liar> {
  const { hostname, port } = new URL(target)
  let asked: Asked[] = []
  let change: (asked: Asked, answer: Json) => Json = (_asked, answer) => answer
  let instead: (asked: Asked) => { status?: number; json?: Json; body?: Buffer } | undefined = () => undefined
  const server = createServer(async (incoming, response) => {
    const chunks: Buffer[] = []
    incoming.on('error', () => {})
    response.on('error', () => {})
    for await (const chunk of incoming) chunks.push(chunk)
    const one: Asked = { method: incoming.method ?? '', url: incoming.url ?? '', body: Buffer.concat(chunks) }
    asked.push(one)
    const own = instead(one)
    if (own !== undefined) {
      response.writeHead(own.status ?? 200, { 'content-type': 'application/json' })
      response.end(own.body ?? JSON.stringify(own.json))
      return
    }
    const { method, url: path } = one
    const outgoing = send({ hostname, port, method, path, headers: incoming.headers }, async (answer) => {
      const parts: Buffer[] = []
      for await (const part of answer) parts.push(part)
      let body = Buffer.concat(parts)
      const headers = { ...answer.headers }
      if (/json/.test(headers['content-type'] ?? '') && body.length > 0) {
        body = Buffer.from(JSON.stringify(change(one, JSON.parse(body.toString('utf8')))))
        delete headers['transfer-encoding']
        headers['content-length'] = String(body.length)
      }
      response.writeHead(answer.statusCode ?? 500, headers).end(body)
    })
    outgoing.on('error', () => response.destroy())
    outgoing.end(one.body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get asked() {
      return asked
    },
    lie(how) {
      change = how
    },
    lieAboutNodes(how) {
      change = (_asked, answer) => {
        for (const node of nodesOf(answer)) how(node)
        return answer
      }
    },
    answer(how) {
      instead = how
    },
    honest() {
      asked = []
      change = (_asked, answer) => answer
      instead = () => undefined
    },
    close() {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}
