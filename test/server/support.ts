/**
 * What the server tests share: a server on a fresh directory, a plain HTTP client, accounts with made-up key pairs and
 * both kinds of upload. Keys are well-formed but open nothing, because the server never looks inside.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { addUser, type RunningServer, type ServerOptions, startServer } from '../../src/server/index.ts'

export interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: Buffer
  /** The body as JSON. Loosely typed on purpose: tests assert what is inside. */
  json: Json
}

// biome-ignore lint/suspicious/noExplicitAny: bodies are checked by the assertions of the tests.
export type Json = any

export interface Ask {
  method?: string
  headers?: Record<string, string>
  json?: unknown
  form?: Record<string, string>
  body?: Uint8Array | string
  token?: string
  /** Sends the body in these pieces with chunked transfer encoding. */
  chunks?: (Uint8Array | string)[]
}

/** One request over a real socket. Rejects when the connection breaks. */
export function ask(url: string, options: Ask = {}): Promise<Answer> {
  const headers: Record<string, string> = { ...options.headers }
  let body: Uint8Array | string | undefined = options.body
  if (options.json !== undefined) {
    body = JSON.stringify(options.json)
    headers['content-type'] ??= 'application/json'
  }
  if (options.form !== undefined) {
    body = new URLSearchParams(options.form).toString()
    headers['content-type'] ??= 'application/x-www-form-urlencoded'
  }
  if (options.token !== undefined) headers.authorization ??= `Bearer ${options.token}`
  if (body !== undefined && options.chunks === undefined) headers['content-length'] ??= String(Buffer.byteLength(body))
  const { hostname, port, pathname, search } = new URL(url)
  return new Promise((resolve, reject) => {
    const req = request(
      { hostname, port, path: pathname + search, method: options.method ?? 'GET', headers, agent: false },
      (res) => {
        const parts: Buffer[] = []
        res.on('data', (part: Buffer) => parts.push(part))
        res.on('error', reject)
        res.on('aborted', () => reject(new Error('aborted')))
        res.on('end', () => {
          const bytes = Buffer.concat(parts)
          let json: Json
          try {
            json = JSON.parse(bytes.toString())
          } catch {
            json = undefined
          }
          resolve({ status: res.statusCode ?? 0, headers: res.headers, body: bytes, json })
        })
      },
    )
    req.on('error', reject)
    for (const chunk of options.chunks ?? []) req.write(chunk)
    req.end(options.chunks === undefined ? body : undefined)
  })
}

export async function freshDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sealsync-server-'))
  onTestFinished(() => rm(dir, { recursive: true, force: true }))
  return dir
}

/** Files of content, without what the server writes about itself. */
export const blobsIn = async (dir: string): Promise<string[]> =>
  (await readdir(join(dir, 'blobs'))).filter((name) => !name.startsWith('.'))

export interface World {
  dir: string
  server: RunningServer
  /** `${base}/v4/...` */
  api: string
}

/** A server that ends with the test. */
export async function startWorld(options: Partial<ServerOptions> = {}): Promise<World> {
  const dir = options.data ?? (await freshDir())
  const server = await startServer({ data: dir, ...options })
  onTestFinished(() => server.close())
  return { dir, server, api: `${server.url}/api` }
}

export const BASIC = `Basic ${Buffer.from('dracoon_legacy_scripting:').toString('base64')}`

export interface Person {
  id: number
  name: string
  token: string
  refreshToken: string
  /** Calls the API as this person. */
  call(method: string, path: string, json?: unknown, headers?: Record<string, string>): Promise<Answer>
}

export async function logIn(world: World, name: string, password: string): Promise<Answer> {
  return ask(`${world.server.url}/oauth/token`, {
    method: 'POST',
    headers: { authorization: BASIC },
    form: { grant_type: 'password', username: name, password },
  })
}

/** Adds an account and logs in. */
export async function signUp(world: World, name: string): Promise<Person> {
  const { id } = await addUser(world.dir, { name, password: `${name}-pw` })
  return enter(world, id, name)
}

export async function enter(world: World, id: number, name: string): Promise<Person> {
  const reply = await logIn(world, name, `${name}-pw`)
  if (reply.status !== 200) throw new Error(`login: ${reply.status} ${reply.body}`)
  const token: string = reply.json.access_token
  return {
    id,
    name,
    token,
    refreshToken: reply.json.refresh_token,
    call: (method, path, json, headers = {}) =>
      ask(`${world.api}${path}`, { method, token, headers, ...(json === undefined ? {} : { json }) }),
  }
}

export type KeyVersion = 'A' | 'RSA-4096'

export function keyPairBody(version: KeyVersion = 'RSA-4096'): Json {
  const text = randomBytes(48).toString('base64')
  return {
    privateKeyContainer: {
      version,
      privateKey: `-----BEGIN ENCRYPTED PRIVATE KEY-----\n${text}\n-----END ENCRYPTED PRIVATE KEY-----\n`,
    },
    publicKeyContainer: { version, publicKey: `-----BEGIN PUBLIC KEY-----\n${text}\n-----END PUBLIC KEY-----\n` },
  }
}

const ONE_IV = randomBytes(12).toString('base64')
const ONE_TAG = randomBytes(16).toString('base64')

/** A wrapped file key of the right shape. IV and tag belong to the content, so they are the same for every recipient. */
export function fileKeyBody(version: KeyVersion = 'RSA-4096'): Json {
  return {
    key: randomBytes(version === 'A' ? 256 : 512).toString('base64'),
    iv: ONE_IV,
    tag: ONE_TAG,
    version: version === 'A' ? 'A' : 'RSA-4096/AES-256-GCM',
  }
}

export async function addKeyPair(person: Person, version: KeyVersion = 'RSA-4096'): Promise<Json> {
  const body = keyPairBody(version)
  const reply = await person.call('POST', '/v4/user/account/keypair', body)
  if (reply.status !== 204) throw new Error(`keypair: ${reply.status} ${reply.body}`)
  return body
}

/** A room at the top; encrypted if asked for, with a key pair for its owner. */
export async function makeRoom(person: Person, name: string, encrypted = false): Promise<number> {
  const reply = await person.call('POST', '/v4/nodes/rooms', { name, adminIds: [person.id] })
  if (reply.status !== 201) throw new Error(`room: ${reply.status} ${reply.body}`)
  if (encrypted) {
    await person.call('POST', '/v4/user/account/keypair', keyPairBody())
    const locked = await person.call('PUT', `/v4/nodes/rooms/${reply.json.id}/encrypt`, { isEncrypted: true })
    if (locked.status !== 200) throw new Error(`encrypt: ${locked.status} ${locked.body}`)
  }
  return reply.json.id
}

export const READ_ONLY: Json = Object.fromEntries(
  'manage read create change delete manageDownloadShare manageUploadShare readRecycleBin restoreRecycleBin deleteRecycleBin'
    .split(' ')
    .map((name) => [name, name === 'read']),
)

export async function addMember(
  admin: Person,
  roomId: number,
  id: number,
  permissions: Json = READ_ONLY,
): Promise<void> {
  const reply = await admin.call('PUT', `/v4/nodes/rooms/${roomId}/users`, { items: [{ id, permissions }] })
  if (reply.status !== 204) throw new Error(`member: ${reply.status} ${reply.body}`)
}

export async function openUpload(person: Person, parentId: number, name: string, more: Json = {}): Promise<Json> {
  const reply = await person.call('POST', '/v4/nodes/files/uploads', { parentId, name, ...more })
  if (reply.status !== 201) throw new Error(`open: ${reply.status} ${reply.body}`)
  return reply.json
}

/** A whole classic upload in one chunk; answers the finishing reply. */
export async function uploadClassic(
  person: Person,
  parentId: number,
  name: string,
  bytes: Uint8Array,
  finish: Json = {},
  more: Json = {},
): Promise<Answer> {
  const { uploadUrl } = await openUpload(person, parentId, name, { size: bytes.length, ...more })
  const sent = await ask(uploadUrl, { method: 'POST', body: bytes })
  if (sent.status !== 201) throw new Error(`chunk: ${sent.status} ${sent.body}`)
  return ask(uploadUrl, { method: 'PUT', json: finish })
}

export async function partUrl(person: Person, uploadId: string, part: number, size: number): Promise<string> {
  const reply = await person.call('POST', `/v4/nodes/files/uploads/${uploadId}/s3_urls`, {
    size,
    firstPartNumber: part,
    lastPartNumber: part,
  })
  if (reply.status !== 201) throw new Error(`s3_urls: ${reply.status} ${reply.body}`)
  return reply.json.urls[0].url
}

/** A whole direct upload; answers the finishing reply and the upload id. */
export async function uploadDirect(
  person: Person,
  parentId: number,
  name: string,
  parts: readonly Uint8Array[],
  finish: Json = {},
): Promise<{ reply: Answer; uploadId: string }> {
  const { uploadId } = await openUpload(person, parentId, name, { directS3Upload: true })
  const list: Json[] = []
  for (const [index, bytes] of parts.entries()) {
    const url = await partUrl(person, uploadId, index + 1, bytes.length)
    const sent = await ask(url, { method: 'PUT', body: bytes })
    if (sent.status !== 200) throw new Error(`part: ${sent.status} ${sent.body}`)
    list.push({ partNumber: index + 1, partEtag: String(sent.headers.etag).replaceAll('"', '') })
  }
  return { reply: await finishDirect(person, uploadId, { parts: list, ...finish }), uploadId }
}

/** Finishes a direct upload. What it fails with is in the answer, or in the status where the server has answered before that. */
export async function finishDirect(person: Person, uploadId: string, body: Json): Promise<Answer> {
  const reply = await person.call('PUT', `/v4/nodes/files/uploads/${uploadId}/s3`, body)
  if (reply.status !== 202) return reply
  const { status, errorDetails } = await settled(person, uploadId)
  return status === 'error' ? { ...reply, status: errorDetails.code, json: errorDetails } : reply
}

/** The status of an upload when it is over. */
export async function settled(person: Person, uploadId: string): Promise<Json> {
  for (;;) {
    const { status, json } = await person.call('GET', `/v4/nodes/files/uploads/${uploadId}`)
    if (status !== 200) throw new Error(`upload: ${status} ${JSON.stringify(json)}`)
    if (json.status === 'done' || json.status === 'error') return json
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

export async function download(person: Person, fileId: number, headers: Record<string, string> = {}): Promise<Answer> {
  const reply = await person.call('POST', `/v4/nodes/files/${fileId}/downloads`)
  if (reply.status !== 200) throw new Error(`downloads: ${reply.status} ${reply.body}`)
  return ask(reply.json.downloadUrl, { headers })
}
