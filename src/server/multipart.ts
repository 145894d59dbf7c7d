/**
 * Takes one file out of a `multipart/form-data` body while it streams by. Memory stays at one network chunk plus the
 * length of a boundary, whatever the size of the file. Storing the bytes is up to the caller.
 * @module
 */
import { badRequest } from './errors.ts'

const MAX_HEADER = 16 * 1024

/** The boundary of a multipart content type, or undefined for any other. */
export function boundaryOf(contentType: string | undefined): string | undefined {
  if (contentType === undefined || !/^multipart\/form-data\s*(;|$)/i.test(contentType)) return undefined
  const match = /;\s*boundary=(?:"([^"]{1,70})"|([^;\s"]{1,70}))/i.exec(contentType)
  const boundary = match?.[1] ?? match?.[2]
  if (boundary === undefined) throw badRequest(undefined, 'Multipart body without boundary')
  return boundary
}

/**
 * The content of the part named `file`; other parts are skipped.
 *
 * @throws {ApiError} 400 when the body is malformed, ends early or has no such part.
 */
export async function* filePart(source: AsyncIterable<Uint8Array>, boundary: string): AsyncGenerator<Uint8Array> {
  const delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1')
  // The first boundary has no line break before it; supplying one makes it look like the others.
  let buffer: Buffer = Buffer.from('\r\n')
  let state: 'content' | 'after-boundary' | 'headers' | 'end' = 'content'
  let wanted = false
  let found = false
  for await (const chunk of source) {
    if (state === 'end') continue
    buffer = Buffer.concat([buffer, chunk])
    for (let more = true; more; ) {
      more = false
      if (state === 'content') {
        const at = buffer.indexOf(delimiter)
        const length = at === -1 ? Math.max(0, buffer.length - delimiter.length + 1) : at
        if (wanted && length > 0) yield buffer.subarray(0, length)
        buffer = buffer.subarray(at === -1 ? length : at + delimiter.length)
        if (at !== -1) {
          state = 'after-boundary'
          wanted = false
          more = true
        }
      } else if (state === 'after-boundary') {
        if (buffer.length < 2) continue
        const mark = buffer.subarray(0, 2).toString('latin1')
        if (mark === '--') state = 'end'
        else if (mark === '\r\n') {
          state = 'headers'
          more = true
        } else throw badRequest(undefined, 'Malformed multipart body')
      } else if (state === 'headers') {
        const at = buffer.indexOf('\r\n\r\n')
        if (at === -1) {
          if (buffer.length > MAX_HEADER) throw badRequest(undefined, 'Multipart headers are too long')
          continue
        }
        const headers = buffer.subarray(0, at).toString('utf8')
        wanted = !found && /^content-disposition:[^\r\n]*;\s*name="?file"?(\s*;|\s*$)/im.test(headers)
        found ||= wanted
        buffer = buffer.subarray(at + 4)
        state = 'content'
        more = true
      }
    }
  }
  if (state !== 'end' || !found) throw badRequest(undefined, 'Multipart body is incomplete')
}
