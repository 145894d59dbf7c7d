/** A small certificate authority made by openssl, for servers and clients of one test file. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer, type Server, type TLSSocket, type TlsOptions } from 'node:tls'
import { onTestFinished } from 'vitest'

/** Whether a program is there; for `describe.skipIf`. */
export function hasProgram(name: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v "$1"`, 'sh', name], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

export interface Issued {
  readonly cert: string
  readonly key: string
  readonly certPath: string
  readonly keyPath: string
  /** PKCS#12 with the password `p12-canary`. */
  readonly p12: Buffer
}

export interface IssueOptions {
  /** Default `IP:127.0.0.1,DNS:localhost`. */
  readonly names?: string
  /** First and last moment, `YYYYMMDDHHMMSSZ`. Default: around now. */
  readonly from?: string
  readonly to?: string
  /** Encrypts the key with `key-canary`. */
  readonly encrypted?: boolean
}

export interface TestAuthority {
  readonly cert: string
  readonly certPath: string
  issue(options?: IssueOptions): Issued
  /** Removes its files. */
  remove(): void
}

const CONFIG = `
[ca]
default_ca = own
[own]
new_certs_dir = .
database = index.txt
serial = serial
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
`

const stamp = (at: number) => `${new Date(at).toISOString().replace(/[-:T]|\.\d+/g, '')}`

export function createAuthority(): TestAuthority {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-ca-'))
  const file = (name: string) => join(directory, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
  writeFileSync(file('ca.cnf'), CONFIG)
  writeFileSync(file('index.txt'), '')
  writeFileSync(file('serial'), '1000\n')
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-nodes',
    '-subj',
    '/CN=Test authority',
    '-days',
    '2',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
  )
  let count = 0
  return {
    cert: readFileSync(file('ca.pem'), 'utf8'),
    certPath: file('ca.pem'),
    issue({ names = 'IP:127.0.0.1,DNS:localhost', from, to, encrypted = false } = {}) {
      const name = `leaf-${++count}`
      const [cert, key, request] = [`${name}.pem`, `${name}.key`, `${name}.csr`]
      const protection = encrypted ? ['-passout', 'pass:key-canary'] : ['-nodes']
      openssl(
        'req',
        ...newKey,
        ...protection,
        '-subj',
        `/CN=${name}`,
        '-addext',
        `subjectAltName=${names}`,
        '-keyout',
        key,
        '-out',
        request,
      )
      const [start, end] = [from ?? stamp(Date.now() - 86_400_000), to ?? stamp(Date.now() + 86_400_000)]
      openssl(
        ...['ca', '-config', 'ca.cnf', '-batch', '-notext', '-cert', 'ca.pem', '-keyfile', 'ca.key', '-in', request],
        ...['-startdate', start, '-enddate', end, '-out', cert],
      )
      openssl(
        ...['pkcs12', '-export', '-in', cert, '-inkey', key, '-passin', 'pass:key-canary'],
        ...['-passout', 'pass:p12-canary', '-out', `${name}.p12`],
      )
      return {
        cert: readFileSync(file(cert), 'utf8'),
        key: readFileSync(file(key), 'utf8'),
        certPath: file(cert),
        keyPath: file(key),
        p12: readFileSync(file(`${name}.p12`)),
      }
    },
    remove: () => rmSync(directory, { recursive: true, force: true }),
  }
}

/** A TLS server of Node that answers every request with `ok`; resolves to its origin and the connections made. */
export async function tlsServer(options: TlsOptions, answer?: (socket: TLSSocket) => void) {
  const sockets = new Set<TLSSocket>()
  const requests: string[] = []
  let connections = 0
  const server: Server = createServer(options, (socket) => {
    sockets.add(socket.on('error', () => {}))
    if (answer !== undefined) return answer(socket)
    socket.on('data', (data) => {
      requests.push(data.toString('latin1'))
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  server.on('connection', () => connections++)
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return { origin: `https://127.0.0.1:${port}`, port, requests, connections: () => connections }
}

/** Runs a program that listens on `port`, until the test ends; resolves when it accepts connections. */
export async function runServer(command: string, args: readonly string[], port: number): Promise<void> {
  const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'ignore'] })
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`${command} ended with ${code}`)))
  })
  ended.catch(() => {})
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await gone
  })
  await Promise.race([untilAccepted(port), ended])
}

/** Resolves when something on loopback accepts connections. */
export async function untilAccepted(port: number): Promise<void> {
  const accepts = () =>
    new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
  while (!(await accepts())) await new Promise((resolve) => setTimeout(resolve, 20))
}
