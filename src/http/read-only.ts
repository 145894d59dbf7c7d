/**
 * What only reads. One check that every request passes before it is sent, whoever sends it and wherever it goes; logins, renewals and
 * logouts are not requests of the program's, and go their own way.
 * @module
 */
import { SyncError } from '../errors.ts'
import type { HttpRequest, Send } from './types.ts'

const READING = new Set(['GET', 'HEAD', 'OPTIONS'])
/** Headers by which a request says that it is another one. */
export const METHOD_OVERRIDE = /^x-(http-)?method(-override)?$/

/** Throws for a request that may change something. */
export type ReadOnlyCheck = (request: Pick<HttpRequest, 'method' | 'url' | 'headers' | 'label'>) => void

/**
 * Makes the check.
 *
 * @param origin - Where `reads` are.
 * @param reads - Calls that only read though their method says nothing of it: `POST /api/v4/nodes/files/{id}/downloads`, with `{…}` for
 * any one segment of the path.
 * @throws {SyncError} `OPTION_INVALID` for other texts. The check: `READ_ONLY` (class `permission`).
 */
export function createReadOnly(origin: string, reads: readonly string[] = []): ReadOnlyCheck {
  const patterns = reads.map((call) => {
    const [, method, path] = /^([A-Z]+) (\/[^?#\s]*)$/.exec(String(call)) ?? []
    if (method === undefined || path === undefined) {
      throw new SyncError('usage', 'OPTION_INVALID', 'readOnly takes calls such as "POST /search/{name}"')
    }
    const segments = path
      .split('/')
      .map((part) => (/^\{[^}]*\}$/.test(part) ? '[^/]+' : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')))
    return { method, path: new RegExp(`^${segments.join('/')}$`) }
  })
  const mayBeSent = ({ method, url, headers = {} }: Pick<HttpRequest, 'method' | 'url' | 'headers'>) => {
    if (Object.keys(headers).some((name) => METHOD_OVERRIDE.test(name.toLowerCase()))) return false
    if (READING.has(method.toUpperCase())) return true
    const at = new URL(url)
    return at.origin === origin && patterns.some((one) => one.method === method && one.path.test(at.pathname))
  }
  return (request) => {
    if (mayBeSent(request)) return
    const what = request.label ?? new URL(request.url).host
    throw new SyncError(
      'permission',
      'READ_ONLY',
      `Not sent: ${String(request.method).toUpperCase().slice(0, 10)} ${what} might change something at the server`,
      { hint: 'Only reading is allowed here (--read-only, readOnly).' },
    )
  }
}

/** A `Send` behind that check. */
export const readingOnly =
  (send: Send, check: ReadOnlyCheck): Send =>
  async (request) => {
    check(request)
    return send(request)
  }
