/**
 * A second, independent implementation of the protocol for tests to talk to: `peer_client.py`, driven one process per user, beside
 * an embedded server and the built command line.
 * @module
 */
import { spawn, spawnSync } from 'node:child_process'
import { createCipheriv } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, onTestFinished, test as plainTest } from 'vitest'
import { addUser, type RunningServer, type ServerOptions, startServer } from '../../src/server/index.ts'
import { type CliResult, runCli } from '../support/cli.ts'

const SCRIPT = fileURLToPath(new URL('peer_client.py', import.meta.url))

const runs = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0
const lacking = [
  ...(runs('python3', '-c', 'import ctypes, sys; ctypes.CDLL("libcrypto.so.3"); sys.exit(sys.version_info < (3, 9))')
    ? []
    : ['python3 with libcrypto 3']),
  ...(runs('openssl', 'version') ? [] : ['openssl']),
]
export const test: typeof plainTest = plainTest.skipIf(lacking.length > 0) as typeof plainTest
export const title = (text: string) => (lacking.length > 0 ? `${text} (needs ${lacking.join(' and ')})` : text)

// RSA keys that several tests use, because making one takes seconds.
const keys = mkdtempSync(join(tmpdir(), 'sealsync-peer-keys-'))
afterAll(() => rmSync(keys, { recursive: true, force: true }))

function start() {
  // One file of tests after another uses this, and each removes it at its end.
  mkdirSync(keys, { recursive: true })
  return spawn('python3', ['-B', SCRIPT, keys], { stdio: ['pipe', 'pipe', 'inherit'] })
}

// biome-ignore lint/suspicious/noExplicitAny: answers are checked by the assertions of the tests.
export type Json = any
export type Args = Record<string, unknown>

class PeerError extends Error {
  constructor(
    message: string,
    readonly status: number | undefined,
    readonly json: Json,
  ) {
    super(message)
  }
}

/** One Python process: one user of the second implementation. */
export class Peer {
  readonly #child: ReturnType<typeof start> = start()
  readonly #waiting = new Map<number, { resolve(value: Json): void; reject(error: Error): void }>()
  #count = 0
  id = 0

  constructor() {
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const { id, result, error } = JSON.parse(line)
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) waiting?.resolve(result)
      else waiting?.reject(new PeerError(error.message, error.status, error.json))
    })
    this.#child.on('close', (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the peer ended with ${code}`))
    })
  }

  call(name: string, args: Args = {}): Promise<Json> {
    const id = ++this.#count
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#child.stdin.write(`${JSON.stringify({ id, call: name, args })}\n`)
    })
  }

  raw(method: string, path: string, more: Args = {}): Promise<Json> {
    return this.call('raw', { method, path: path.startsWith('/v4') ? `/api${path}` : path, ...more })
  }

  /** The error of a call that has to fail. */
  async fail(name: string, args: Args): Promise<PeerError> {
    const outcome = await this.call(name, args).catch((error: unknown) => error)
    expect(outcome).toBeInstanceOf(PeerError)
    return outcome as PeerError
  }

  close(): void {
    this.#child.stdin.end()
  }
}

export interface World {
  readonly dir: string
  readonly server: RunningServer
  /** Makes an account and its peer, logged in. */
  enter(name: string): Promise<Peer>
  file(name: string, content: Uint8Array): string
  path(name: string): string
}

export const passwordOf = (name: string) => `${name}'s account: pässword & more`

export async function world(options: Partial<ServerOptions> = {}): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), 'sealsync-peer-'))
  const data = join(dir, 'server')
  const server = await startServer({ data: data, ...options })
  const peers: Peer[] = []
  onTestFinished(async () => {
    for (const peer of peers) peer.close()
    await server.close()
    rmSync(dir, { recursive: true, force: true })
  })
  const path = (name: string) => join(dir, name)
  return {
    dir: data,
    server,
    path,
    file(name, content) {
      writeFileSync(path(name), content, { mode: 0o600 })
      return path(name)
    },
    async enter(name) {
      const { id } = await addUser(data, { name, password: passwordOf(name) })
      const peer = new Peer()
      peers.push(peer)
      peer.id = id
      await peer.call('login', { base: server.url, user: name, password: passwordOf(name) })
      return peer
    },
  }
}

/** The command line, logged in as a user. */
export async function cliOf(place: World, name: string) {
  const home = place.path(`home-${name}`)
  mkdirSync(home, { mode: 0o700 })
  const run = async (...args: string[]): Promise<CliResult> => {
    const result = await runCli(home, [...args, '--json'])
    expect(result.code, `sync ${args.join(' ')}\n${result.stdout}${result.stderr}`).toBe(0)
    return result
  }
  const secret = place.file(`login-${name}`, Buffer.from(`${passwordOf(name)}\n`))
  await run('login', place.server.url, '--user', name, '--password-file', secret)
  return run
}

/** Reproducible content that does not compress. */
export function content(size: number): Buffer {
  const key = Buffer.alloc(32, size % 251)
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

export const expectSame = (path: string, wanted: Uint8Array) => {
  const found = readFileSync(path)
  expect(found.length).toBe(wanted.length)
  expect(Buffer.compare(found, wanted)).toBe(0)
}

export async function clean(...peers: Peer[]): Promise<void> {
  for (const peer of peers) expect(await peer.call('findings')).toEqual([])
}
