/**
 * Just enough of an HTTP/1.1 server for one well-behaved client at a time per connection: bodies that nobody wants cost one
 * read into a buffer that is used again, which is what lets the other side be measured and not this one.
 * @module
 */
import { createServer, Socket } from 'node:net'
import { createServer as createTlsServer, type TlsOptions } from 'node:tls'

export interface Head {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
}

export interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly json?: unknown
  /** JSON that was written before. */
  readonly text?: string
  /** A stretch of the endless content; see content.ts. */
  readonly content?: { readonly start: number; readonly length: number }
}

/** A request whose head is here: what becomes of its body. */
export type Plan =
  | { readonly keep: (body: unknown) => Answer | Promise<Answer> }
  | { readonly discard: (bytes: number) => Answer }

export type Handler = (head: Head) => Plan

const READ_BYTES = 256 * 1024
const MAX_HEAD = 64 * 1024
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

/** Counts down a body of known length, or follows the chunks of one without. */
export interface BodyReader {
  /** Bytes of content so far. */
  readonly received: number
  /** @returns how many bytes of the input belong to the body; `done` when it has ended. */
  take(input: Buffer): { used: number; done: boolean }
}

export function fixedLength(length: number, each: (piece: Buffer) => void): BodyReader {
  let left = length
  return {
    get received() {
      return length - left
    },
    take(input) {
      const used = Math.min(left, input.length)
      if (used > 0) each(input.subarray(0, used))
      left -= used
      return { used, done: left === 0 }
    },
  }
}

export function chunked(each: (piece: Buffer) => void): BodyReader {
  let received = 0
  let line = ''
  let left = 0
  let state: 'size' | 'data' | 'end' | 'trailer' = 'size'
  return {
    get received() {
      return received
    },
    take(input) {
      for (let at = 0; at < input.length; ) {
        if (state === 'data') {
          const piece = input.subarray(at, at + left)
          each(piece)
          received += piece.length
          left -= piece.length
          at += piece.length
          if (left === 0) state = 'end'
          continue
        }
        const char = String.fromCharCode(input[at++]!)
        if (char === '\r') continue
        if (char !== '\n') {
          line += char
        } else if (state === 'end') {
          state = 'size'
        } else if (state === 'size') {
          left = Number.parseInt(line, 16)
          state = left === 0 ? 'trailer' : 'data'
          line = ''
        } else if (line === '') {
          return { used: at, done: true }
        } else {
          line = ''
        }
      }
      return { used: input.length, done: false }
    },
  }
}

export function parseHead(text: string): Head {
  const [first = '', ...lines] = text.split('\r\n')
  const [method = '', target = '/'] = first.split(' ')
  const [path = '/', query = ''] = target.split('?')
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
  }
  return { method, path, query: new URLSearchParams(query), headers }
}

/** Writes an answer; long content follows as fast as the socket takes it. */
function send(socket: Socket, answer: Answer, pattern: Buffer, hasBody: boolean): void {
  const { status, headers = {}, json, content } = answer
  const text = answer.text ?? (json === undefined ? '' : JSON.stringify(json))
  const length = content?.length ?? Buffer.byteLength(text)
  const lines = [
    `HTTP/1.1 ${status} -`,
    `content-type: ${content === undefined ? 'application/json' : 'application/octet-stream'}`,
    `content-length: ${length}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ]
  const head = `${lines.join('\r\n')}\r\n\r\n`
  if (content === undefined || !hasBody) {
    socket.write(hasBody ? head + text : head)
    return
  }
  socket.write(head)
  let { start, length: left } = content
  const more = () => {
    while (left > 0) {
      const from = start % pattern.length
      const piece = pattern.subarray(from, from + left)
      start += piece.length
      left -= piece.length
      if (!socket.write(piece)) {
        if (left > 0) socket.once('drain', more)
        return
      }
    }
  }
  more()
}

/** Feeds a connection's bytes through `handle`. What is kept of them is copied: the buffer is used again. */
function createConnection(socket: Socket, handle: Handler, pattern: Buffer): (input: Buffer) => void {
  let head = Buffer.alloc(0)
  let body: BodyReader | undefined
  let finish: () => void = () => {}

  function begin(parsed: Head): void {
    const plan = handle(parsed)
    const kept: Buffer[] = []
    const each = 'keep' in plan ? (piece: Buffer) => kept.push(Buffer.from(piece)) : () => {}
    const isChunked = parsed.headers['transfer-encoding'] === 'chunked'
    const reader = isChunked ? chunked(each) : fixedLength(Number(parsed.headers['content-length'] ?? 0), each)
    body = reader
    finish = () => {
      const reply = (answer: Answer) => send(socket, answer, pattern, parsed.method !== 'HEAD')
      if ('discard' in plan) return reply(plan.discard(reader.received))
      const text = Buffer.concat(kept).toString('utf8')
      const isJson = parsed.headers['content-type']?.startsWith('application/json') === true
      const answer = plan.keep(isJson && text !== '' ? JSON.parse(text) : text)
      if (answer instanceof Promise) answer.then(reply, () => socket.destroy())
      else reply(answer)
    }
    if (parsed.headers.expect !== undefined) socket.write(CONTINUE)
  }

  return (input) => {
    for (let rest = input; ; ) {
      if (body !== undefined) {
        const { used, done } = body.take(rest)
        rest = rest.subarray(used)
        if (!done) return
        body = undefined
        finish()
      }
      if (rest.length === 0) return
      head = Buffer.concat([head, rest])
      const end = head.indexOf('\r\n\r\n')
      if (end === -1) {
        if (head.length > MAX_HEAD) socket.destroy()
        return
      }
      rest = Buffer.from(head.subarray(end + 4))
      const text = head.subarray(0, end).toString('latin1')
      head = Buffer.alloc(0)
      begin(parseHead(text))
    }
  }
}

/**
 * Listens on a free loopback port.
 *
 * @param pattern - What content consists of, over and over.
 */
export function listen(
  handle: Handler,
  pattern: Buffer,
  tls?: TlsOptions,
): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>()
  const serve = (socket: Socket, feed: (input: Buffer) => void) => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
    return feed
  }
  const shared = Buffer.allocUnsafeSlow(READ_BYTES)
  const server =
    tls === undefined
      ? createServer({ pauseOnConnect: true }, (accepted) => {
          // The same connection in a socket that reads into one buffer again and again, which only its constructor can be told.
          const { _handle: handleOfSocket } = accepted as unknown as { _handle: unknown }
          let feed: (input: Buffer) => void = () => {}
          const onread = {
            buffer: shared,
            callback(bytes: number) {
              feed(shared.subarray(0, bytes))
              return true
            },
          }
          const options = { handle: handleOfSocket, onread } as unknown as ConstructorParameters<typeof Socket>[0]
          const socket = new Socket(options)
          feed = serve(socket, createConnection(socket, handle, pattern))
          socket.read(0)
        })
      : createTlsServer(tls, (socket) => {
          socket.on('data', serve(socket, createConnection(socket, handle, pattern)))
        })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : 0,
        // The server still counts the sockets whose connections were taken over, so its own word would never come.
        async close() {
          server.close()
          for (const socket of sockets) socket.destroy()
        },
      })
    })
  })
}
