/**
 * A small object store that speaks as much S3 as our server and its clients use, in memory, on loopback. It checks every
 * signature by its own reading of the rules, from the raw request, and misbehaves on request.
 */
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { freePort } from './ports.ts'

export type S3Operation =
  | 'HeadBucket'
  | 'ListObjects'
  | 'ListMultipartUploads'
  | 'CreateMultipartUpload'
  | 'UploadPart'
  | 'ListParts'
  | 'CompleteMultipartUpload'
  | 'AbortMultipartUpload'
  | 'GetObject'
  | 'HeadObject'
  | 'DeleteObject'
  | 'PutObject'

export type S3Fault =
  | { status: number; code: string; headers?: Record<string, string> }
  /** Reads the request, then breaks the connection without doing anything. */
  | { cut: true }
  /** Breaks the connection after that many bytes of the answer's body. */
  | { cutAfterBytes: number }
  /** Does what was asked, then breaks the connection. */
  | { loseAnswer: true }
  /** Answers 200 and an error in the body, as completing may. */
  | { lateError: string }
  /** Stores the part and answers with another ETag. */
  | { wrongEtag: true }
  /** Answers 200 with this body, or these headers, without doing more. */
  | { garbage: string }
  /** Adds headers to the answer. */
  | { headers: Record<string, string> }
  /** Calls back and never answers. */
  | { hang: () => void }

export interface S3Server {
  readonly options: {
    endpoint: string
    bucket: string
    region: string
    accessKeyId: string
    secretAccessKey: string
    pauseMs: number
  }
  readonly objects: Map<string, Buffer>
  /** Objects that came in one request: what the server writes about itself. */
  readonly notes: Map<string, Buffer>
  readonly uploads: Map<string, { key: string; parts: Map<number, { etag: string; bytes: Buffer }> }>
  /** Operation and status of every answer, in order. */
  readonly log: { operation: S3Operation; status: number; agent: string }[]
  /** Milliseconds that its clock is ahead of the real one. */
  clockAheadMs: number
  /** Parts per page of a listing. */
  pageSize: number
  fail(on: S3Operation, fault: S3Fault, times?: number): void
  /** Forgets all faults. */
  calm(): void
  /** Refuses connections, or takes them again at the same port. */
  stop(): Promise<void>
  start(): Promise<void>
}

interface Query {
  raw: string[]
  get(name: string): string | undefined
}

class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly headers: Record<string, string> = {},
  ) {
    super(code)
  }
}

const md5 = (bytes: Uint8Array) => createHash('md5').update(bytes).digest('hex')
const NO_BODY = new Set(['HeadBucket', 'HeadObject'])

function parseQuery(text: string): Query {
  const raw = text === '' ? [] : text.split('&')
  return {
    raw,
    get(name) {
      const pair = raw.find((one) => decodeURIComponent(one.split('=')[0]!) === name)
      return pair === undefined ? undefined : decodeURIComponent(pair.slice(pair.indexOf('=') + 1))
    },
  }
}

interface Claim {
  credential: string
  date: string
  signedHeaders: string
  signature: string
  payload: string
  query: string[]
}

function claimOf(request: IncomingMessage, query: Query): Claim {
  if (query.get('X-Amz-Signature') !== undefined) {
    return {
      credential: query.get('X-Amz-Credential') ?? '',
      date: query.get('X-Amz-Date') ?? '',
      signedHeaders: query.get('X-Amz-SignedHeaders') ?? '',
      signature: query.get('X-Amz-Signature') ?? '',
      payload: 'UNSIGNED-PAYLOAD',
      query: query.raw.filter((one) => !one.startsWith('X-Amz-Signature=')),
    }
  }
  const header = /^AWS4-HMAC-SHA256 Credential=(.+?),\s*SignedHeaders=(.+?),\s*Signature=([0-9a-f]{64})$/.exec(
    request.headers.authorization ?? '',
  )
  if (header === null) throw new Refusal(403, 'AccessDenied')
  return {
    credential: header[1]!,
    date: String(request.headers['x-amz-date']),
    signedHeaders: header[2]!,
    signature: header[3]!,
    payload: String(request.headers['x-amz-content-sha256']),
    query: query.raw,
  }
}

interface Identity {
  accessKeyId: string
  secretAccessKey: string
  region: string
}

function checkSignature(request: IncomingMessage, path: string, query: Query, who: Identity, now: number): Claim {
  const claim = claimOf(request, query)
  const at = Date.parse(claim.date.replace(/(....)(..)(..T..)(..)(..Z)/, '$1-$2-$3:$4:$5'))
  const day = claim.date.slice(0, 8)
  if (claim.credential !== `${who.accessKeyId}/${day}/${who.region}/s3/aws4_request`) {
    throw new Refusal(403, 'InvalidAccessKeyId')
  }
  if (!claim.signedHeaders.split(';').includes('host')) throw new Refusal(403, 'AccessDenied')
  const expires = query.get('X-Amz-Expires')
  if (expires === undefined ? Math.abs(now - at) > 900_000 : at > now + 900_000) {
    throw new Refusal(403, 'RequestTimeTooSkewed')
  }
  if (expires !== undefined && now > at + Number(expires) * 1000) throw new Refusal(403, 'AccessDenied')
  const headers = claim.signedHeaders.split(';').map((name) => `${name}:${String(request.headers[name]).trim()}\n`)
  const canonical = [
    request.method,
    path,
    claim.query
      .map((one) => (one.includes('=') ? one : `${one}=`))
      .sort()
      .join('&'),
    headers.join(''),
    claim.signedHeaders,
    claim.payload,
  ].join('\n')
  const scope = claim.credential.slice(who.accessKeyId.length + 1)
  const text = `AWS4-HMAC-SHA256\n${claim.date}\n${scope}\n${createHash('sha256').update(canonical).digest('hex')}`
  let key: string | Buffer = `AWS4${who.secretAccessKey}`
  for (const step of [...scope.split('/'), text]) key = createHmac('sha256', key).update(step).digest()
  if ((key as Buffer).toString('hex') !== claim.signature) throw new Refusal(403, 'SignatureDoesNotMatch')
  return claim
}

function operationOf(method: string, key: string, query: Query): S3Operation | undefined {
  const has = (name: string) => query.get(name) !== undefined
  if (key === '') {
    if (method === 'HEAD') return 'HeadBucket'
    if (method === 'GET') return has('uploads') ? 'ListMultipartUploads' : 'ListObjects'
    return undefined
  }
  if (method === 'POST') return has('uploads') ? 'CreateMultipartUpload' : 'CompleteMultipartUpload'
  if (method === 'PUT') return has('uploadId') ? 'UploadPart' : 'PutObject'
  if (method === 'DELETE') return has('uploadId') ? 'AbortMultipartUpload' : 'DeleteObject'
  if (method === 'HEAD') return 'HeadObject'
  return has('uploadId') ? 'ListParts' : 'GetObject'
}

interface Reply {
  status: number
  headers?: Record<string, string>
  body?: Buffer
}

const quote = (text: string) => text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;')
const xml = (root: string, content: string): Reply => ({
  status: 200,
  headers: { 'content-type': 'application/xml' },
  body: Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?>\n<${root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${content}</${root}>`,
  ),
})

/** Starts a store with one empty bucket. The caller stops it. */
export async function startS3Server(): Promise<S3Server> {
  const faults: { on: S3Operation; fault: S3Fault; times: number }[] = []
  const sockets = new Set<Socket>()
  const store: S3Server = {
    options: {
      endpoint: '',
      bucket: 'test-bucket',
      region: 'eu-test-1',
      accessKeyId: 'test:access',
      secretAccessKey: randomBytes(20).toString('base64'),
      pauseMs: 1,
    },
    objects: new Map(),
    notes: new Map(),
    uploads: new Map(),
    log: [],
    clockAheadMs: 0,
    pageSize: 1000,
    fail: (on, fault, times = 1) => void faults.push({ on, fault, times }),
    calm: () => void faults.splice(0),
    async stop() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
    start: () => listen(),
  }
  const take = (operation: S3Operation): S3Fault | undefined => {
    const rule = faults.find(({ on, times }) => on === operation && times > 0)
    if (rule === undefined) return undefined
    rule.times--
    return rule.fault
  }
  const server = createServer((request, response) => {
    request.on('error', () => {})
    response.on('error', () => {})
    handle(store, take, request, response).catch(() => response.destroy())
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
  })
  const port = await freePort()
  const listen = () => new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  await listen()
  store.options.endpoint = `http://127.0.0.1:${port}`
  return store
}

async function handle(
  store: S3Server,
  take: (operation: S3Operation) => S3Fault | undefined,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const [path = '', search = ''] = (request.url ?? '').split('?')
  const query = parseQuery(search)
  const [, bucket = '', ...rest] = path.split('/')
  const key = rest.join('/')
  const operation = operationOf(request.method ?? '', key, query)
  if (operation === undefined) return void response.writeHead(405).end()
  const chunks: Buffer[] = []
  const fault = take(operation)
  if (fault !== undefined && 'hang' in fault) {
    // Part of the body at most: the client is still sending when something happens to it.
    for await (const chunk of request) if ((chunk as Buffer).length > 0) break
    return fault.hang()
  }
  for await (const chunk of request) chunks.push(chunk as Buffer)
  if (!request.complete) return
  let reply: Reply
  try {
    const now = Date.now() + store.clockAheadMs
    const { payload } = checkSignature(request, path, query, store.options, now)
    const body = Buffer.concat(chunks)
    if (payload !== 'UNSIGNED-PAYLOAD' && payload !== createHash('sha256').update(body).digest('hex')) {
      throw new Refusal(400, 'XAmzContentSHA256Mismatch')
    }
    if (bucket !== store.options.bucket) throw new Refusal(404, 'NoSuchBucket')
    reply = misbehave(fault, () => act(store, operation, key, query, request, body))
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    const { code, status, headers } = error
    reply = { ...xml('Error', `<Code>${code}</Code><Message>No &lt;way&gt;</Message>`), status }
    reply.headers = { ...reply.headers, ...headers }
  }
  store.log.push({ operation, status: reply.status, agent: String(request.headers['user-agent'] ?? '') })
  if (fault !== undefined && ('cut' in fault || 'loseAnswer' in fault)) return void response.destroy()
  const body = reply.body ?? Buffer.alloc(0)
  response.writeHead(reply.status, { 'content-length': body.length, ...reply.headers })
  if (fault !== undefined && 'cutAfterBytes' in fault) {
    response.write(body.subarray(0, fault.cutAfterBytes), () => response.destroy())
    return
  }
  response.end(NO_BODY.has(operation) ? undefined : body)
}

function misbehave(fault: S3Fault | undefined, work: () => Reply): Reply {
  if (fault === undefined || 'cutAfterBytes' in fault || 'loseAnswer' in fault) return work()
  if ('cut' in fault) return { status: 0 }
  if ('status' in fault) throw new Refusal(fault.status, fault.code, fault.headers)
  if ('lateError' in fault) return { ...xml('Error', `<Code>${fault.lateError}</Code>`), status: 200 }
  if ('garbage' in fault) return { status: 200, body: Buffer.from(fault.garbage) }
  const reply = work()
  if ('wrongEtag' in fault) return { ...reply, headers: { etag: `"${'0'.repeat(32)}"` } }
  return 'headers' in fault ? { ...reply, headers: { ...reply.headers, ...fault.headers } } : reply
}

function act(
  store: S3Server,
  operation: S3Operation,
  key: string,
  query: Query,
  request: IncomingMessage,
  body: Buffer,
): Reply {
  const { objects, notes, uploads } = store
  const uploadId = query.get('uploadId') ?? ''
  const upload = uploads.get(uploadId)
  const open = () => {
    if (upload?.key !== key) throw new Refusal(404, 'NoSuchUpload')
    return upload
  }
  switch (operation) {
    case 'HeadBucket':
      return { status: 200 }
    case 'ListObjects':
      return xml(
        'ListBucketResult',
        [...objects.keys()].map((one) => `<Contents><Key>${one}</Key></Contents>`).join(''),
      )
    case 'ListMultipartUploads': {
      const wanted = [...uploads].filter(([, one]) => one.key.startsWith(query.get('prefix') ?? ''))
      const list = wanted.map(([id, one]) => `<Upload><Key>${one.key}</Key><UploadId>${quote(id)}</UploadId></Upload>`)
      return xml('ListMultipartUploadsResult', list.join(''))
    }
    case 'CreateMultipartUpload': {
      const id = `${randomBytes(12).toString('base64url')}&"<é`
      uploads.set(id, { key, parts: new Map() })
      return xml('InitiateMultipartUploadResult', `<Key>${key}</Key><UploadId>${quote(id)}</UploadId>`)
    }
    case 'UploadPart': {
      const etag = md5(body)
      open().parts.set(Number(query.get('partNumber')), { etag, bytes: body })
      return { status: 200, headers: { etag: `"${etag}"` } }
    }
    case 'ListParts':
      return listParts(open().parts, Number(query.get('part-number-marker') ?? 0), store.pageSize)
    case 'CompleteMultipartUpload': {
      const content = assemble(open().parts, body.toString())
      objects.set(key, content)
      uploads.delete(uploadId)
      return xml('CompleteMultipartUploadResult', `<Key>${key}</Key><ETag>&quot;${md5(content)}-1&quot;</ETag>`)
    }
    case 'AbortMultipartUpload':
      open()
      uploads.delete(uploadId)
      return { status: 204 }
    case 'PutObject':
      notes.set(key, body)
      return { status: 200, headers: { etag: `"${md5(body)}"` } }
    case 'DeleteObject':
      objects.delete(key)
      notes.delete(key)
      return { status: 204 }
    default:
      return content(objects.get(key) ?? notes.get(key), request.headers.range)
  }
}

function listParts(parts: Map<number, { etag: string; bytes: Buffer }>, after: number, pageSize: number): Reply {
  const all = [...parts].sort(([a], [b]) => a - b).filter(([number]) => number > after)
  const page = all.slice(0, pageSize)
  const isTruncated = all.length > page.length
  const list = page.map(
    ([number, { etag, bytes }]) =>
      `<Part><PartNumber>${number}</PartNumber><ETag>&quot;${etag}&quot;</ETag><Size>${bytes.length}</Size></Part>`,
  )
  const next = isTruncated ? `<NextPartNumberMarker>${page.at(-1)?.[0]}</NextPartNumberMarker>` : ''
  return xml('ListPartsResult', `<IsTruncated>${isTruncated}</IsTruncated>${next}${list.join('')}`)
}

function assemble(parts: Map<number, { etag: string; bytes: Buffer }>, document: string): Buffer {
  const named = [...document.matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>"([^"]*)"<\/ETag>/g)]
  const found = named.map(([, number, etag], index) => {
    const part = parts.get(Number(number))
    if (part === undefined || part.etag !== etag) throw new Refusal(400, 'InvalidPart')
    if (index < named.length - 1 && part.bytes.length < 5 * 1024 * 1024) throw new Refusal(400, 'EntityTooSmall')
    return part.bytes
  })
  if (found.length === 0) throw new Refusal(400, 'MalformedXML')
  return Buffer.concat(found)
}

function content(bytes: Buffer | undefined, range: string | undefined): Reply {
  if (bytes === undefined) throw new Refusal(404, 'NoSuchKey')
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? '')
  if (match === null) return { status: 200, body: bytes }
  const [start, end] = [Number(match[1]), match[2] === '' ? bytes.length : Math.min(Number(match[2]) + 1, bytes.length)]
  if (start >= bytes.length) throw new Refusal(416, 'InvalidRange')
  const headers = { 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` }
  return { status: 206, headers, body: bytes.subarray(start, end) }
}
