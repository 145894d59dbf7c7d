/**
 * A server, an account and the built command line for black-box tests: real processes, real sockets, real files. Key pairs
 * come from the fixtures and are locked with few iterations here, so that a test does not spend its time on them; and what is
 * not the subject of a test goes through the library, because each process of the command line takes most of a second.
 * @module
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { UserKeyPair } from '../../crypto/index.ts'
import { lockWith } from '../../crypto/key-pair.ts'
import { createKeyPair, getAccount } from '../../src/api/account.ts'
import { createRoom, encryptRoom, listChildren } from '../../src/api/nodes.ts'
import type { RemoteNode } from '../../src/api/wire.ts'
import { type Client, type ClientOptions, createClient } from '../../src/client.ts'
import { addUser, type RunningServer, type ServerOptions, startServer } from '../../src/server/index.ts'
import { passwordAuthorizer } from '../../src/session/authorizers/password.ts'
import { requireRemote } from '../../src/sync/remote-path.ts'
import { unlockFixture } from '../crypto/support.ts'
import { createWarmCli, MAIN } from './warm-cli.ts'

export { MAIN } from './warm-cli.ts'

export const KEY_PASSWORD = 'encryption pässword'
export const accountPassword = (name: string) => `account password of ${name}`

export interface CliResult {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  /** Lines of stdout as JSON. */
  readonly json: Record<string, unknown>[]
}

export interface CliOptions {
  /** Starts the program as people do, in a process of its own; without it only what needs one gets one. */
  readonly fresh?: boolean
  readonly env?: Record<string, string>
  readonly uid?: number
  readonly input?: string
  /** Called with the process while it runs. */
  readonly during?: (child: {
    kill(signal: NodeJS.Signals): boolean
    readonly pid?: number | undefined
  }) => Promise<void>
}

const warm = createWarmCli()

/** What a process reads when it starts, or hides at once: everything but our own settings, and the passwords. */
const isForOneProcess = (variable: string) => !/^SEALSYNC_(?!(?:KEY_|SHARE_)?PASSWORD$)/.test(variable)

/**
 * Runs the built command line: in a process that has run other commands before, unless the test needs one for itself. Signals, standard
 * input, another user and most variables always do.
 */
export async function runCli(home: string, args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const { fresh, input, uid, during, env = {} } = options
  const needsOwn = input !== undefined || uid !== undefined || during !== undefined
  if (fresh || needsOwn || Object.keys(env).some(isForOneProcess)) return startCli(home, args, options)
  const run = await warm.run(home, args, env)
  run.release()
  const { code, signal, stdout, stderr, json } = run
  return { code, signal, stdout, stderr, json }
}

/** Runs the built command line in a process of its own. */
async function startCli(home: string, args: readonly string[], options: CliOptions): Promise<CliResult> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    // A server that is away for good is not waited for as long as people would.
    env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: home, SEALSYNC_RETRY_FOR: '5s', ...options.env },
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  })
  let stdout = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr?.setEncoding('utf8').on('data', (chunk) => {
    stderr += chunk
  })
  if (options.input !== undefined) child.stdin?.end(options.input)
  const closed = once(child, 'close')
  await options.during?.(child)
  const [code, signal] = (await closed) as [number | null, NodeJS.Signals | null]
  const json = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
  return { code, signal, stdout, stderr, json }
}

/** Runs any program; for what has to happen around the command line. */
export async function runProgram(program: string, args: readonly string[], env: Record<string, string>) {
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    stderr += chunk
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout, stderr }
}

export interface World {
  readonly base: string
  readonly home: string
  readonly server: RunningServer
  /** Runs a command as the first user. */
  cli(args: readonly string[], options?: CliOptions): Promise<CliResult>
  /** Upload or download: with the encryption password and `--json`; returns the summary too. */
  transfer(args: readonly string[], options?: CliOptions): Promise<CliResult & { summary: Summary }>
  /** A library client of a user, logged in. */
  client(user?: string): Promise<Client>
  /** One with settings of its own, logged in; whoever asks for it closes it. */
  openClient(more?: Partial<ClientOptions>, user?: string): Promise<Client>
  /** What is in a remote room or folder, by name. */
  list(path: string): Promise<RemoteNode[]>
  keyPasswordFile: string
  /** Path below the world's directory. */
  path(...names: string[]): string
  close(): Promise<void>
}

export interface Summary {
  type: 'summary'
  exitCode: number
  files: number
  bytes: number
  transferred: number
  skipped: number
  ignored: number
  failed: { path: string; code: string; message: string }[]
}

let sharedPair: Promise<UserKeyPair> | undefined

/** Gives the account a key pair that unlocks at once. */
export async function giveKeyPair(client: Client, pair?: UserKeyPair): Promise<UserKeyPair> {
  sharedPair ??= unlockFixture('RSA-4096')
  const chosen = pair ?? (await sharedPair)
  const random = (length: number) => globalThis.crypto.getRandomValues(new Uint8Array(length))
  const protection = { prf: 'SHA-1', iterations: 1000, salt: random(20), iv: random(16) } as const
  await createKeyPair(client.api, await lockWith(chosen, KEY_PASSWORD, protection))
  return chosen
}

export async function makeRoom(client: Client, name: string, encrypted = true): Promise<RemoteNode> {
  const room = await createRoom(client.api, name, (await getAccount(client.api)).id)
  return encrypted ? encryptRoom(client.api, room.id) : room
}

export const user1 = 'anna'

/** A running server with the accounts, the first one logged in at the command line, with a key pair and the room `/room`. */
export async function createWorld(
  options: Omit<ServerOptions, 'users'> & { users?: readonly string[]; keyPair?: boolean } = {},
): Promise<World> {
  const base = mkdtempSync(join(tmpdir(), 'sealsync-cli-'))
  chmodSync(base, 0o755)
  const { users = [user1], keyPair = true, ...serverOptions } = options
  const dataDir = join(base, 'server')
  const home = join(base, 'home')
  mkdirSync(home, { mode: 0o700 })
  const server = await startServer({ data: dataDir, storage: 's3', ...serverOptions })
  const secret = (name: string, content: string) => {
    const path = join(base, name)
    writeFileSync(path, content, { mode: 0o600 })
    return path
  }
  for (const name of users) {
    await addUser(dataDir, { name, password: accountPassword(name) })
    secret(`password-${name}`, `${accountPassword(name)}\n`)
  }
  const keyPasswordFile = secret('key-password', `${KEY_PASSWORD}\n`)
  const clients = new Map<string, Promise<Client>>()
  const openClient = async (more: Partial<ClientOptions> = {}, name = user1) => {
    const made = createClient(server.url, {
      authorizer: (origin) =>
        passwordAuthorizer(origin, { userName: name, password: async () => accountPassword(name) }),
      keyPassword: async () => KEY_PASSWORD,
      ...more,
    })
    await made.session.login()
    return made
  }
  const client = (name = user1) => {
    let opening = clients.get(name)
    if (opening === undefined) {
      opening = openClient({ trustNewMembers: true, confirm: async () => true, retryForMs: 5_000 }, name)
      clients.set(name, opening)
    }
    return opening
  }
  const cli = (args: readonly string[], more?: CliOptions) => runCli(home, args, more)
  const world: World = {
    base,
    home,
    server,
    keyPasswordFile,
    client,
    openClient,
    cli,
    async transfer(args, more) {
      const result = await cli([...args, '--key-password-file', keyPasswordFile, '--json'], more)
      const summary = result.json.at(-1) as unknown as Summary
      if (summary?.type !== 'summary') throw new Error(`no summary: ${result.stdout}${result.stderr}`)
      return { ...result, summary }
    },
    path: (...names) => join(base, ...names),
    async list(path) {
      const { api } = await client()
      const found: RemoteNode[] = []
      const { node } = await requireRemote(api, path)
      for await (const child of listChildren(api, node.id)) found.push(child)
      return found.sort((a, b) => (a.name < b.name ? -1 : 1))
    },
    async close() {
      for (const opening of clients.values()) await (await opening).close()
      await server.close()
      rmSync(base, { recursive: true, force: true })
    },
  }
  const logIn = async () => {
    const login = await cli(['login', server.url, '--user', user1, '--password-file', join(base, `password-${user1}`)])
    if (login.code !== 0) throw new Error(login.stderr)
  }
  const furnish = async () => {
    const first = await client()
    await giveKeyPair(first)
    await makeRoom(first, 'room')
  }
  await Promise.all([logIn(), keyPair && furnish()])
  return world
}

/** All files below a directory with a digest (or the text, when short) of their content; directories end with a slash. */
export function snapshot(root: string): Record<string, string> {
  const found: Record<string, string> = {}
  const visit = (dir: string, prefix: string) => {
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      const path = `${prefix}${entry.name}`
      if (entry.isDirectory()) {
        found[`${path}/`] = ''
        visit(join(dir, entry.name), `${path}/`)
      } else if (entry.isFile()) {
        const content = readFileSync(join(dir, entry.name))
        found[path] =
          content.length <= 32 ? content.toString('latin1') : createHash('sha256').update(content).digest('hex')
      }
    }
  }
  if (existsSync(root)) visit(root, '')
  return Object.fromEntries(Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** Paths of all files below a directory. */
export function listFiles(root: string): string[] {
  return Object.keys(snapshot(root)).filter((name) => !name.endsWith('/'))
}

/** Writes files; names with a slash make directories. */
export function makeTree(root: string, files: Record<string, string | Uint8Array>): void {
  mkdirSync(root, { recursive: true })
  for (const [name, content] of Object.entries(files)) {
    const path = join(root, name)
    mkdirSync(join(path, '..'), { recursive: true })
    if (name.endsWith('/')) mkdirSync(path, { recursive: true })
    else writeFileSync(path, content)
  }
}
