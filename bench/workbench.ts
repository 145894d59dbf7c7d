/**
 * A place to measure in: a temporary directory, the discarding server in a process of its own, and our program logged in there
 * with a key pair. Everything goes away with `close`.
 * @module
 */
import { spawn } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { Agent, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Network, startNetwork } from './network.ts'
import { runProgram, type Usage } from './processes.ts'
import { fileName, folderName } from './server/room.ts'

const ROOT = process.env.BENCH_ROOT ?? '.'
const PROGRAMS = process.env.BENCH_PROGRAMS ?? '.'
export const MiB = 2 ** 20

export interface Workbench {
  readonly base: string
  readonly url: string
  /** Of the machine that is logged in. */
  readonly env: NodeJS.ProcessEnv
  /** For `curl --cacert`; absent without TLS. */
  readonly caFile?: string
  /** The network in front of the server, where there is one. */
  readonly network?: Network
  /** Runs our program and checks that it did what it should. */
  sync(args: readonly string[], options?: SyncOptions): Usage
  /** An empty encrypted room; returns its path. */
  newRoom(): Promise<string>
  /** A room with files that can be downloaded, or that only look like the local tree. */
  seed(files: { count: number; size: number; perFolder?: number; withKeys: boolean }): Promise<string>
  /** Puts a key pair there that is locked with few iterations, to see what unlocking costs. */
  useQuickKeyPair(): Promise<void>
  /** Random content; sparse: zeros that take no place on the disk. */
  makeFile(name: string, bytes: number, how?: { sparse: boolean }): string
  makeTree(name: string, count: number, bytes: number, perFolder: number): string
  /** A directory to download into, empty. */
  emptyDirectory(name: string): string
  remove(path: string): void
  close(): Promise<void>
}

export interface SyncOptions {
  /** Files that have to be transferred; more or fewer is an error. */
  readonly expect?: number
  /** Another build of the program. */
  readonly main?: string
  /** Flags for node. */
  readonly node?: readonly string[]
}

/** Modification time of all that is made here: whole seconds, long past. */
const MODIFIED_MS = Date.UTC(2020, 0)

/** Module by module, so that a profile says where time goes and a variant can change one of them. */
export const MAIN = join(ROOT, 'dist/src/cli/main.js')
/** As it is installed. */
export const BIN = join(ROOT, 'dist/bin/main.js')

export async function createWorkbench(
  options: { storage?: 's3' | 'classic'; tls?: boolean; isDistant?: boolean } = {},
): Promise<Workbench> {
  const base = mkdtempSync(join(tmpdir(), 'sealsync-bench-'))
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    SEALSYNC_HOME: join(base, 'home'),
    SEALSYNC_KEY_PASSWORD_FILE: join(base, 'key'),
    SEALSYNC_SESSION_STORE: 'file',
  }
  for (const name of ['password', 'key']) writeFileSync(join(base, name), `${name} of the benchmark\n`, { mode: 0o600 })
  const certificate = options.tls === true ? makeCertificate(base) : []
  const server = spawn(
    process.execPath,
    [join(PROGRAMS, 'discard-server.mjs'), options.storage ?? 's3', ...certificate],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const [line] = (await once(server.stdout, 'data')) as [Buffer]
  const near = line.toString().trim()
  const network = options.isDistant === true ? await startNetwork(Number(new URL(near).port)) : undefined
  const url = network === undefined ? near : `${new URL(near).protocol}//127.0.0.1:${network.port}`
  const [caFile] = certificate
  let rooms = 0

  const post = async (path: string, body?: unknown): Promise<void> => {
    const send = near.startsWith('https:') ? httpsRequest : httpRequest
    const sent = send(near + path, {
      method: 'POST',
      agent: new Agent({ keepAlive: false }),
      headers: { 'content-type': 'application/json' },
      ...(caFile === undefined ? {} : { ca: readFileSync(caFile), agent: undefined }),
    })
    sent.end(body === undefined ? '' : JSON.stringify(body))
    const [response] = await once(sent, 'response')
    response.resume()
    if (response.statusCode >= 300) throw new Error(`POST ${path}: ${response.statusCode}`)
    await once(response, 'end')
  }

  const bench: Workbench = {
    base,
    url,
    env,
    ...(caFile === undefined ? {} : { caFile }),
    ...(network === undefined ? {} : { network }),
    sync(args, { expect, main = MAIN, node = [] } = {}) {
      const usage = runProgram([process.execPath, ...node, main, ...args, '--json', '-q'], { env })
      if (expect === undefined) return usage
      const summary = JSON.parse(usage.stdout.trim().split('\n').at(-1) ?? '{}')
      if (summary.transferred !== expect) {
        throw new Error(`sync ${args.join(' ')}: ${expect} files expected: ${usage.stdout.slice(-500)}`)
      }
      return usage
    },
    async newRoom() {
      const name = `room${++rooms}`
      await post(`/bench/rooms/${name}`)
      return `/${name}`
    },
    async seed({ count, size, perFolder = 0, withKeys }) {
      const room = `room${++rooms}`
      await post('/bench/files', { room, count, size, perFolder, modified: MODIFIED_MS, withKeys })
      return `/${room}`
    },
    async useQuickKeyPair() {
      const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 4096 })
      const passphrase = readFileSync(join(base, 'key'), 'utf8').trimEnd()
      const common = { version: 'RSA-4096', createdAt: new Date(MODIFIED_MS).toISOString(), createdBy: 1 }
      await post('/bench/key-pair', {
        privateKeyContainer: {
          ...common,
          privateKey: privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }),
        },
        publicKeyContainer: { ...common, publicKey: publicKey.export({ type: 'spki', format: 'pem' }) },
      })
    },
    makeFile(name, bytes, how) {
      const path = join(base, name)
      const fd = openSync(path, 'w')
      const block = randomBytes(MiB)
      // Shifted each time, so that nothing finds equal blocks.
      for (let at = 0; how?.sparse !== true && at < bytes; at += MiB) {
        block.writeUInt32LE(at / MiB, 0)
        for (let i = 4; i < MiB; i += 4096) block.writeUInt32LE((at / MiB + i * 2_654_435) >>> 0, i)
        writeSync(fd, block, 0, Math.min(MiB, bytes - at))
      }
      ftruncateSync(fd, bytes)
      closeSync(fd)
      return path
    },
    makeTree(name, count, bytes, perFolder) {
      const top = join(base, name)
      mkdirSync(top)
      const block = randomBytes(bytes + 9000)
      for (let i = 0, folder = top; i < count; i++) {
        if (i % perFolder === 0) {
          folder = join(top, folderName(i / perFolder))
          mkdirSync(folder)
        }
        const path = join(folder, fileName(i))
        writeFileSync(path, block.subarray(i % 9000, (i % 9000) + bytes))
        utimesSync(path, MODIFIED_MS / 1000, MODIFIED_MS / 1000)
      }
      return top
    },
    emptyDirectory(name) {
      const path = join(base, name)
      rmSync(path, { recursive: true, force: true })
      mkdirSync(path)
      return path
    },
    remove: (path) => rmSync(path, { recursive: true, force: true }),
    async close() {
      await network?.close()
      server.stdin.end()
      if (server.exitCode === null) await once(server, 'exit')
      rmSync(base, { recursive: true, force: true })
    },
  }
  try {
    const ca = caFile === undefined ? [] : ['--ca-file', caFile]
    bench.sync(['login', url, '--user', 'bench', '--password-file', join(base, 'password'), ...ca])
    bench.sync(['keys', 'create'])
  } catch (error) {
    await bench.close()
    throw error
  }
  return bench
}

function makeCertificate(base: string): [cert: string, key: string] {
  const [cert, key] = [join(base, 'cert.pem'), join(base, 'key.pem')]
  const subject = ['-subj', '/CN=bench', '-addext', 'subjectAltName=IP:127.0.0.1']
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key]
  runProgram(['openssl', 'req', '-x509', '-days', '2', ...newKey, ...subject, '-out', cert])
  return [cert, key]
}

/** A change to the compiled program, to see what something costs that is never switched off otherwise. */
export interface Variant {
  readonly name: string
  /** Below dist/. */
  readonly file: string
  readonly find: string
  readonly replace: string
}

/** A copy of the build with a change in it; `undefined` when the place for it is not there (any more). */
export function buildVariant({ base }: Workbench, { name, file, find, replace }: Variant): string | undefined {
  const text = readFileSync(join(ROOT, 'dist', file), 'utf8')
  if (text.split(find).length !== 2) return undefined
  const copy = join(base, `variant-${name.replaceAll(/\W+/g, '-')}`)
  mkdirSync(copy)
  for (const entry of readdirSync(ROOT)) {
    if (entry === 'package.json') cpSync(join(ROOT, entry), join(copy, entry))
    if (entry === 'node_modules') symlinkSync(join(ROOT, entry), join(copy, entry))
    if (entry === 'dist') cpSync(join(ROOT, entry), join(copy, entry), { recursive: true })
  }
  writeFileSync(join(copy, 'dist', file), text.replace(find, replace))
  return join(copy, 'dist/src/cli/main.js')
}
