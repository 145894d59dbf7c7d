/**
 * AWS Signature Version 4 for S3: URLs that carry their permission in the query, and signed headers for our own requests.
 * Pure; sending is client.ts.
 * @module
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
 */
import { createHash, createHmac } from 'node:crypto'

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
}

export interface Signable {
  readonly method: string
  /** Without a query; its path must be percent-encoded already. */
  readonly url: URL
  readonly query?: Readonly<Record<string, string>>
  /** Names in lower case. All of them are signed; `host` is added. */
  readonly headers?: Readonly<Record<string, string>>
}

/** Longest lifetime of a presigned URL, in seconds. */
export const MAX_LIFETIME_S = 7 * 86_400

const ALGORITHM = 'AWS4-HMAC-SHA256'
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()

/** Percent-encoding of everything but RFC 3986's unreserved characters, as the signature demands. */
const encode = (text: string): string =>
  encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)

/** `20130524T000000Z` */
const timestamp = (ms: number): string => new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, '')

const scopeOf = ({ region }: Credentials, time: string): string => `${time.slice(0, 8)}/${region}/s3/aws4_request`

/** A query in canonical form: encoded, then sorted by name. */
export function canonicalQuery(query: Readonly<Record<string, string>>): string {
  return Object.entries(query)
    .map(([name, value]): [string, string] => [encode(name), encode(value)])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}

const sortedHeaders = ({ url, headers }: Signable): [string, string][] =>
  Object.entries({ ...headers, host: url.host }).sort(([a], [b]) => (a < b ? -1 : 1))

const signedNames = (request: Signable): string =>
  sortedHeaders(request)
    .map(([name]) => name)
    .join(';')

function signatureOf(credentials: Credentials, request: Signable, query: string, payload: string, time: string) {
  const headers = sortedHeaders(request)
    .map(([name, value]) => `${name}:${value.trim()}\n`)
    .join('')
  const canonical = [request.method, request.url.pathname, query, headers, signedNames(request), payload].join('\n')
  const toSign = [ALGORITHM, time, scopeOf(credentials, time), sha256(canonical)].join('\n')
  const [date = '', ...rest] = scopeOf(credentials, time).split('/')
  const key = rest.reduce((last, step) => hmac(last, step), hmac(`AWS4${credentials.secretAccessKey}`, date))
  return hmac(key, toSign).toString('hex')
}

/**
 * A URL that anybody may use for this one request. The body is not signed.
 *
 * @param now - Milliseconds since the epoch.
 * @param lifetimeS - Seconds; at most seven days are granted.
 */
export function presign(credentials: Credentials, request: Signable, now: number, lifetimeS: number): string {
  const time = timestamp(now)
  const query = canonicalQuery({
    ...request.query,
    'X-Amz-Algorithm': ALGORITHM,
    'X-Amz-Credential': `${credentials.accessKeyId}/${scopeOf(credentials, time)}`,
    'X-Amz-Date': time,
    'X-Amz-Expires': String(Math.min(lifetimeS, MAX_LIFETIME_S)),
    'X-Amz-SignedHeaders': signedNames(request),
  })
  const signature = signatureOf(credentials, request, query, 'UNSIGNED-PAYLOAD', time)
  return `${request.url.origin}${request.url.pathname}?${query}&X-Amz-Signature=${signature}`
}

/** All headers of a signed request: those given, plus the ones that carry the signature. */
export function signedHeaders(
  credentials: Credentials,
  request: Signable,
  body: string,
  now: number,
): Record<string, string> {
  const time = timestamp(now)
  const payload = sha256(body)
  const headers = { ...request.headers, 'x-amz-content-sha256': payload, 'x-amz-date': time }
  const complete = { ...request, headers }
  const signature = signatureOf(credentials, complete, canonicalQuery(request.query ?? {}), payload, time)
  const credential = `${credentials.accessKeyId}/${scopeOf(credentials, time)}`
  return {
    ...headers,
    host: request.url.host,
    authorization: `${ALGORITHM} Credential=${credential},SignedHeaders=${signedNames(complete)},Signature=${signature}`,
  }
}
