/**
 * An API key beside a login: some gateways want to know which application calls, whoever is logged in.
 * @module
 */
import { SyncError } from '../../errors.ts'
import type { HttpRequest } from '../../http/types.ts'
import type { AuthContext, Authorizer, Grant } from '../authorizer.ts'

/** A key that goes along in a header of its own. */
export interface ApiKey {
  /** Name of the header, `x-api-key` for example; never `authorization`. */
  readonly header: string
  /** Visible ASCII; spaces inside are allowed. */
  readonly value: string
}

const NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/
/** They carry the login, or frame the message. */
const FORBIDDEN = new Set(['authorization', 'proxy-authorization', 'cookie', 'host', 'content-length', 'connection'])

/**
 * The same way to log in, with an API key in each request to its server.
 *
 * @throws {SyncError} `HEADER_FORBIDDEN`, `HEADER_INVALID`; the value is not shown.
 */
export function withApiKey(authorizer: Authorizer, { header, value }: ApiKey): Authorizer {
  const name = header.toLowerCase()
  if (FORBIDDEN.has(name)) throw new SyncError('usage', 'HEADER_FORBIDDEN', `An API key cannot go into ${name}`)
  // A line end would start another header (RFC 9110 §5.5).
  if (!NAME.test(name) || !/^[\x21-\x7e]+( +[\x21-\x7e]+)*$/.test(value)) {
    throw new SyncError('usage', 'HEADER_INVALID', 'The API key has a header name or a value that cannot be sent')
  }
  const stamp = async (request: HttpRequest, grant: Grant, context: AuthContext): Promise<HttpRequest> => {
    if (authorizer.sign !== undefined) return authorizer.sign(request, grant, context)
    return { ...request, headers: { ...request.headers, authorization: `Bearer ${grant.accessToken}` } }
  }
  const {
    renew,
    needsRefreshToken = false,
    revoke,
    judge,
    check,
    identify,
    clientName,
    adoptName,
    clientId,
    unattended,
  } = authorizer
  return {
    name: authorizer.name,
    needsRefreshToken,
    ...(clientId !== undefined && { clientId }),
    ...(unattended !== undefined && { unattended }),
    authorize: (context) => authorizer.authorize(context),
    ...(renew && { renew: renew.bind(authorizer) }),
    ...(revoke && { revoke: revoke.bind(authorizer) }),
    ...(judge && { judge: judge.bind(authorizer) }),
    ...(check && { check: check.bind(authorizer) }),
    ...(clientName && { clientName: clientName.bind(authorizer) }),
    ...(adoptName && { adoptName: adoptName.bind(authorizer) }),
    ...(identify && { identify: identify.bind(authorizer) }),
    async sign(request, grant, context) {
      // Before the stamp, which may be a signature over the headers.
      const keyed = { ...request, headers: { ...request.headers, [name]: value } }
      return stamp(keyed, grant, context)
    },
  }
}
