/**
 * The local socket of a running server through which it is administered: HTTP with JSON, for nobody but the owner of the data directory.
 * Its place and a token are in a file there with mode 0600; the socket is beside it, or in a directory of its own where the path would be
 * too long for a socket. What can be asked for is operations.ts.
 * @module
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { chmodSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type ErrorClass, SyncError, type SyncErrorCode } from '../../../crypto/errors.ts'
import { localError, systemCode, toSyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { isServed } from '../instance-lock.ts'
import {
  type AdminContext,
  type AnswerOf,
  type ArgumentsOf,
  OPERATIONS,
  type OperationName,
  operate,
} from './operations.ts'

/** Longest path of a socket in bytes: 104 with its end on macOS, 108 on Linux. */
const MAX_SOCKET_PATH = 100
const MAX_REQUEST = 16 * 1024 * 1024
const MAX_ANSWER = 256 * 1024 * 1024
/** A check, or a long list, may take its time; a server that hangs does not get more. */
const ANSWER_MS = 10 * 60_000

const placeFile = (dataDir: string): string => join(dataDir, 'admin.json')

/** Where a server listens for its administrator. */
interface SocketPlace {
  path: string
  token: string
}

async function readPlace(dataDir: string): Promise<SocketPlace | undefined> {
  let text: string
  try {
    text = await readFile(placeFile(dataDir), 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw localError(error, `read ${placeFile(dataDir)}`)
  }
  try {
    const { path, token } = JSON.parse(text)
    return typeof path === 'string' && typeof token === 'string' ? { path, token } : undefined
  } catch {
    // Cut short by a crash; the next start writes it anew.
    return undefined
  }
}

const isSame = (a: string, b: string): boolean => {
  const [one, other] = [Buffer.from(a), Buffer.from(b)]
  return one.length === other.length && timingSafeEqual(one, other)
}

async function readAll(source: AsyncIterable<Uint8Array>, most: number): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of source) {
    size += chunk.length
    if (size > most) throw new SyncError('usage', 'ADMIN_REFUSED', 'That is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function answer(context: AdminContext, token: string, req: IncomingMessage): Promise<object> {
  const name = (req.url ?? '').slice(1)
  if (!isSame(req.headers.authorization ?? '', `Bearer ${token}`) || req.method !== 'POST') {
    throw new SyncError('auth', 'ADMIN_REFUSED', 'The server does not take this for its administrator')
  }
  if (!Object.hasOwn(OPERATIONS, name)) {
    throw new SyncError('usage', 'ADMIN_REFUSED', `The server that runs does not know ${name}`, {
      hint: 'It is of another version than this program: restart it.',
    })
  }
  const args = JSON.parse(await readAll(req, MAX_REQUEST))
  const value = await operate(context, name as OperationName, args)
  return { value: value ?? null }
}

function send(res: ServerResponse, status: number, json: object): void {
  const bytes = Buffer.from(JSON.stringify(json))
  res.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': bytes.length, Connection: 'close' })
  res.end(bytes)
}

/**
 * Listens for the administrator, until `close`.
 *
 * @throws what the system says when there can be no socket.
 */
export async function listenForAdmin(context: AdminContext): Promise<{ close(): Promise<void> }> {
  const { dataDir } = context
  const token = randomBytes(32).toString('hex')
  let directory: string | undefined
  let path = resolve(dataDir, 'admin.sock')
  if (process.platform === 'win32') path = `\\\\.\\pipe\\sealsync-${randomBytes(16).toString('hex')}`
  else if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    // mkdtemp makes it with mode 0700.
    directory = await mkdtemp(join(tmpdir(), 'sealsync-admin-'))
    path = join(directory, 'admin.sock')
  } else await rm(path, { force: true })
  const server = createServer((req, res) => {
    req.on('error', () => undefined)
    res.on('error', () => undefined)
    answer(context, token, req).then(
      (json) => send(res, 200, json),
      (thrown: unknown) => {
        const { class: kind, code, message, hint } = toSyncError(thrown)
        send(res, 400, { error: { kind, code, message, hint } })
      },
    )
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(path, () => done())
  })
  if (process.platform !== 'win32') chmodSync(path, 0o600)
  server.unref()
  await writePrivateFile(placeFile(dataDir), JSON.stringify({ path, token }))
  return {
    async close() {
      await rm(placeFile(dataDir), { force: true })
      await new Promise<void>((done) => {
        server.close(() => done())
        server.closeAllConnections()
      })
      if (directory !== undefined) await rm(directory, { recursive: true, force: true })
    },
  }
}

/** Nobody listens there. */
export class NoAdminSocket extends Error {}

function post(place: SocketPlace, name: string, body: string): Promise<string> {
  return new Promise((done, fail) => {
    const options = { socketPath: place.path, path: `/${name}`, method: 'POST', timeout: ANSWER_MS }
    const headers = { authorization: `Bearer ${place.token}`, 'content-length': Buffer.byteLength(body) }
    const req = request({ ...options, headers, agent: false }, (res) => {
      readAll(res, MAX_ANSWER).then(done, fail)
    })
    req.on('timeout', () => req.destroy(new Error('no answer')))
    req.on('error', (error) => {
      const isAway = ['ENOENT', 'ECONNREFUSED', 'EACCES'].includes(systemCode(error) ?? '')
      fail(isAway ? new NoAdminSocket() : error)
    })
    req.end(body)
  })
}

/**
 * Asks the server that runs on a data directory.
 *
 * @throws {NoAdminSocket} when none does; what the operation throws; {SyncError} `ADMIN_REFUSED`, `ADMIN_BROKEN`.
 */
export async function askServer<N extends OperationName>(
  dataDir: string,
  name: N,
  args: ArgumentsOf<N>,
): Promise<AnswerOf<N>> {
  const place = (await isServed(dataDir)) ? await readPlace(dataDir) : undefined
  if (place === undefined) throw new NoAdminSocket()
  const text = await post(place, name, JSON.stringify(args)).catch((cause: unknown) => {
    if (cause instanceof NoAdminSocket || cause instanceof SyncError) throw cause
    throw new SyncError('server', 'ADMIN_BROKEN', 'The server that runs did not answer its administrator', {
      hint: 'Look whether it was done before you try again.',
      cause,
    })
  })
  const { value, error } = JSON.parse(text) as { value?: AnswerOf<N>; error?: ToldError }
  if (error === undefined) return value as AnswerOf<N>
  const { kind, code, message, hint } = error
  throw new SyncError(kind, code, message, hint === undefined ? {} : { hint })
}

interface ToldError {
  kind: ErrorClass
  code: SyncErrorCode
  message: string
  hint?: string
}
