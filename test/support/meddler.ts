/**
 * A proxy in front of a server, which does to single requests what networks and storage do at their worst and the server's
 * own fault plan cannot: requests are received whole, and what the server gets is made of that.
 * @module
 */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Meddling =
  /** Only the first half of the body arrives, and that seems to be all. */
  | 'truncated'
  /** Arrives twice; the second answer comes back. */
  | 'twice'
  /** Arrives, and once more behind the next request. */
  | 'again later'
  /** Arrives behind the next request of its method. */
  | 'overtaken'
  /** Never arrives, and the connection stays open. */
  | 'stalled'
  /** The answer has another ETag. */
  | 'wrong ETag'

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export interface Place {
  readonly method: string
  /** Source of a regular expression for the path without its query. */
  readonly path: string
  /** Skips that many matches first. */
  readonly after?: number
}

export interface Meddler {
  readonly origin: string
  /** Meddles with the next request at that place. */
  meddle(place: Place, how: Meddling): void
  /** How many requests were meddled with, ever. */
  readonly hits: () => number
  /** Resolves when everything that came in has arrived; meddles with nothing any more. */
  settled(): Promise<void>
  close(): Promise<void>
}

export async function startMeddler(target: string): Promise<Meddler> {
  let rule: { place: Place; seen: number; how: Meddling } | undefined
  let hits = 0
  const underWay = new Set<Promise<unknown>>()
  /** What waits for a later request. */
  let waiting: { isNext(method: string): boolean; go(): Promise<unknown> } | undefined

  const deliver = async (method: string, path: string, headers: IncomingHttpHeaders, body: Buffer): Promise<Answer> => {
    const length = body.length > 0 || method !== 'GET' ? { 'content-length': String(body.length) } : {}
    const { 'transfer-encoding': _replaced, ...rest } = headers
    const outgoing = send(new URL(path, target), { method, headers: { ...rest, ...length }, agent: false })
    outgoing.end(body)
    const [incoming] = await once(outgoing, 'response')
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk)
    return { status: incoming.statusCode, headers: incoming.headers, body: Buffer.concat(chunks) }
  }

  const take = (method: string, path: string): Meddling | undefined => {
    if (rule === undefined || rule.place.method !== method || !new RegExp(rule.place.path).test(path)) return undefined
    if (rule.seen++ < (rule.place.after ?? 0)) return undefined
    const { how } = rule
    rule = undefined
    hits++
    return how
  }

  async function handle(
    { method = '', url = '', headers }: IncomingMessage,
    body: Buffer,
    gone: Promise<unknown>,
  ): Promise<Answer> {
    const arrive = (content = body) => deliver(method, url, headers, content)
    switch (take(method, url.replace(/\?.*/, ''))) {
      case 'truncated':
        return arrive(body.subarray(0, Math.floor(body.length / 2)))
      case 'twice':
        await arrive()
        return arrive()
      case 'again later': {
        const answer = await arrive()
        waiting = { isNext: () => true, go: () => arrive() }
        return answer
      }
      case 'overtaken':
        return new Promise((resolve, reject) => {
          waiting = { isNext: (next) => next === method, go: () => arrive().then(resolve, reject) }
        })
      case 'stalled':
        await gone
        throw new Error('nobody waits')
      case 'wrong ETag': {
        const answer = await arrive()
        return { ...answer, headers: { ...answer.headers, etag: '"0123456789abcdef0123456789abcdef"' } }
      }
    }
    const behind = waiting?.isNext(method) ? waiting : undefined
    if (behind !== undefined) waiting = undefined
    try {
      return await arrive()
    } finally {
      await behind?.go().catch(() => {})
    }
  }

  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = []
    incoming.on('error', () => {}).on('data', (chunk: Buffer) => chunks.push(chunk))
    const gone = new Promise((resolve) => outgoing.on('error', () => {}).on('close', resolve))
    incoming.on('end', () => {
      const work = handle(incoming, Buffer.concat(chunks), gone).then(
        ({ status, headers: { 'transfer-encoding': _whole, connection: _ours, ...rest }, body }) =>
          outgoing.writeHead(status, rest).end(body),
        () => outgoing.destroy(),
      )
      underWay.add(work)
      work.finally(() => underWay.delete(work))
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    meddle: (place, how) => {
      rule = { place, seen: 0, how }
    },
    hits: () => hits,
    async settled() {
      while (underWay.size > 0) await Promise.all(underWay)
      rule = undefined
      await waiting?.go().catch(() => {})
      waiting = undefined
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
