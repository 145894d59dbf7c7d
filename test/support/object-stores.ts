/**
 * Object stores to test with, and a look inside them: our own small one, and OpenStack Swift with its S3 interface, where
 * its Debian packages and the script that starts it are there.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { S3Options } from '../../src/server/index.ts'
import { presign } from '../../src/server/s3/sign.ts'
import { startS3Server } from './s3-server.ts'
import { untilAccepted } from './tls.ts'

export interface ObjectStoreUnderTest {
  readonly options: S3Options
  keys(): Promise<string[]>
  /** Keys of multipart uploads under way. */
  uploads(): Promise<string[]>
  read(key: string): Promise<Buffer>
  /** Files of content on its disk, parts included; undefined where there is no disk. */
  filesOnDisk(): number | undefined
  stop(): Promise<void>
}

const SCRIPT = fileURLToPath(new URL('../../../shared/tools/s3-server.py', import.meta.url))
const PYTHON = '/usr/bin/python3'
const hasProgram = (name: string) => spawnSync('which', [name]).status === 0

export const hasSwift =
  existsSync(SCRIPT) &&
  existsSync(PYTHON) &&
  hasProgram('memcached') &&
  spawnSync(PYTHON, ['-c', 'import swift.common.middleware.s3api']).status === 0

/** How long a store may say that it is busy; Swift also avoids a process of its own for a minute after some failures. */
const BUSY_MS = 90_000

/** Asks until the answer is something else than 503: on a busy machine one of Swift's processes may be late at any time. */
export async function whileBusy<T extends { status: number }>(ask: () => Promise<T>): Promise<T> {
  for (const end = performance.now() + BUSY_MS; ; ) {
    const answer = await ask()
    if (answer.status !== 503 || performance.now() > end) return answer
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}

async function request(
  options: S3Options,
  method: 'GET' | 'PUT' | 'DELETE',
  path: string,
  query: Record<string, string> = {},
) {
  const url = new URL(`${options.endpoint}/${options.bucket}${path}`)
  const credentials = { ...options, region: options.region ?? 'us-east-1' }
  const answer = await whileBusy(() =>
    fetch(presign(credentials, { method, url, query }, Date.now(), 60), {
      method,
      ...(method === 'PUT' ? { body: path } : {}),
    }),
  )
  const body = Buffer.from(await answer.arrayBuffer())
  // A repeated DELETE or PUT of a bucket may have been done the first time.
  const done = (method === 'DELETE' && answer.status === 404) || (path === '' && answer.status === 409)
  if (!answer.ok && !done) throw new Error(`${method} ${path}: ${answer.status} ${body}`)
  return body
}

function inspect(options: S3Options): Pick<ObjectStoreUnderTest, 'options' | 'keys' | 'uploads' | 'read'> {
  const keysIn = (document: Buffer) => [...document.toString().matchAll(/<Key>([^<]*)<\/Key>/g)].map((one) => one[1]!)
  return {
    options,
    // Without what the server writes about itself.
    keys: async () => keysIn(await request(options, 'GET', '')).filter((key) => key !== 'sealsync/store'),
    uploads: async () => keysIn(await request(options, 'GET', '', { uploads: '' })),
    read: (key) => request(options, 'GET', `/${key}`),
  }
}

export async function startOwn(): Promise<ObjectStoreUnderTest> {
  const store = await startS3Server()
  return { ...inspect(store.options), filesOnDisk: () => undefined, stop: () => store.stop() }
}

/** Runs the script until it says that it is ready, or why not. */
async function launch(directory: string): Promise<{ child: ChildProcess; said: Record<string, string> }> {
  const child = spawn(PYTHON, [SCRIPT], {
    env: { PATH: process.env.PATH ?? '', TMPDIR: directory, S3_STDIN: '1', S3_MAX_S: '900' },
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  const line = await new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('\n')) resolve(text)
    })
    child.once('exit', (code) => reject(new Error(`Swift ended with ${code}`)))
  })
  return { child, said: JSON.parse(line) }
}

/** The script waits for the one process that clients talk to; a bucket and an object need the others as well. */
async function untilUsable(options: S3Options, directory: string): Promise<void> {
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('-server.conf')) continue
    const [, port] = /^bind_port = (\d+)$/m.exec(readFileSync(join(directory, name), 'utf8')) ?? []
    await untilAccepted(Number(port))
  }
  await request(options, 'PUT', '')
  await request(options, 'PUT', '/probe')
  await request(options, 'GET', '/probe')
  await request(options, 'DELETE', '/probe')
}

/** Starts Swift in a directory of its own, with an empty bucket. */
export async function startSwift(): Promise<ObjectStoreUnderTest> {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-swift-'))
  let { child, said } = await launch(directory)
  // On a busy machine its five processes may take longer than the script waits.
  for (let tries = 1; said.error !== undefined; tries++) {
    if (tries === 8) throw new Error(said.error)
    ;({ child, said } = await launch(directory))
  }
  const { endpoint = '', bucket = '', region = '', accessKeyId = '', secretAccessKey = '' } = said
  const options: S3Options = { endpoint, bucket, region, accessKeyId, secretAccessKey, pathStyle: true }
  await untilUsable(options, directory)
  return {
    ...inspect(options),
    filesOnDisk: () =>
      readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => /\/objects\/.*\.data$/.test(name))
        .length,
    async stop() {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.stdin?.end()
      await ended
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
