/** Finds the requests in what a client sends over one connection (HTTP/1.1, RFC 9112). @module */
import { type BodyReader, chunked, fixedLength, parseHead } from './http.ts'

/** Beyond this it is no HTTP that could be counted. */
const MAX_HEAD = 64 * 1024

/** A method, or the beginning of one. */
const isHttp = (head: Buffer) => /^[A-Z]*( |$)/.test(head.subarray(0, 20).toString('latin1'))

/** Ids, keys and other long names in paths say nothing. */
const template = (path: string) => path.replace(/\/(\d+|[A-Za-z0-9_-]{20,})(?=\/|$)/g, '/*')

/**
 * @param found - Told of each request when its head is complete, as `METHOD PATH`.
 * @returns what gets all bytes in order. After anything that is no HTTP it counts nothing any more.
 */
export function createRequestCounter(found: (request: string) => void): (chunk: Buffer) => void {
  let head = Buffer.alloc(0)
  let body: BodyReader | undefined
  let isOver = false
  return (chunk) => {
    for (let rest = chunk; rest.length > 0 && !isOver; ) {
      if (body !== undefined) {
        const { used, done } = body.take(rest)
        rest = rest.subarray(used)
        if (done) body = undefined
        continue
      }
      head = Buffer.concat([head, rest])
      if (!isHttp(head)) {
        isOver = true
        return
      }
      const end = head.indexOf('\r\n\r\n')
      if (end === -1) {
        isOver = head.length > MAX_HEAD
        return
      }
      const { method, path, headers } = parseHead(head.subarray(0, end).toString('latin1'))
      rest = Buffer.from(head.subarray(end + 4))
      head = Buffer.alloc(0)
      found(`${method} ${template(path)}`)
      const length = Number(headers['content-length'] ?? 0)
      if (headers['transfer-encoding'] === 'chunked') body = chunked(() => {})
      else if (length > 0) body = fixedLength(length, () => {})
    }
  }
}
