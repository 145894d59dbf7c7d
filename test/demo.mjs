/**
 * `npm run demo`: the main job end to end on the embedded server, with everything it needs installed and built first. All
 * data lives in a throw-away directory; ends with 0 only when every byte came back. `--small` is what the tests run: the same steps with a
 * few megabytes, on what is built already.
 * @module
 */
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  cpSync,
  createReadStream,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { build, install, ROOT } from './bootstrap.mjs'

const started = performance.now()
const small = process.argv.includes('--small')
if (!small) {
  install()
  build()
}

const MAIN = join(ROOT, 'dist/bin/main.js')
const base = mkdtempSync(join(tmpdir(), 'sealsync-demo-'))
const env = { ...process.env, SEALSYNC_HOME: join(base, 'home') }
for (const name of Object.keys(env)) if (name.startsWith('SEALSYNC_') && name !== 'SEALSYNC_HOME') delete env[name]
const rows = []
let server

function fail(message) {
  console.error(`\nDEMO FAILED: ${message}`)
  cleanUp()
  process.exit(1)
}

function cleanUp() {
  server?.kill('SIGTERM')
  rmSync(base, { recursive: true, force: true })
}
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => fail(signal))

/** Runs the command line as a user would; shows the command and its progress, returns what it printed. */
async function sync(args, { json = false } = {}) {
  console.log(`\n$ sync ${args.join(' ').replaceAll(base, '$DEMO')}`)
  const child = spawn(process.execPath, [MAIN, ...args, ...(json ? ['--json'] : ['-v'])], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  child.stdout.on('data', (chunk) => {
    out += chunk
    if (!json) process.stdout.write(chunk)
  })
  child.stderr.on('data', (chunk) => process.stderr.write(String(chunk).replace(/^done .*\n/gm, '')))
  const [code] = await once(child, 'close')
  if (code !== 0) fail(`exit code ${code}`)
  return out
}

/** A transfer with its summary, put into the table at the end. */
async function transfer(title, args) {
  const begun = performance.now()
  const out = await sync(args, { json: true })
  const summary = JSON.parse(out.trim().split('\n').at(-1))
  const seconds = (performance.now() - begun) / 1000
  console.log(
    `  ${summary.transferred} transferred, ${summary.skipped} unchanged, ${summary.ignored} ignored, ${summary.failed.length} failed`,
  )
  rows.push([title, summary.transferred, summary.bytes, seconds])
  return summary
}

// ---- a real tree: the installed dependencies, and the edge cases ----
const PART = (small ? 1 : 8) * 1024 * 1024
const LARGE = small ? 20 : 300
/** Appears in the content of a file; must never appear at the server. */
const CANARY = `canary ${randomBytes(16).toString('hex')} of the demo`

async function makeTree(root) {
  const put = (name, content) => {
    const path = join(root, name)
    mkdirSync(join(path, '..'), { recursive: true })
    writeFileSync(path, content)
  }
  put('edge/empty file', '')
  mkdirSync(join(root, 'edge/empty directory'))
  put('edge/one byte', 'x')
  put('edge/part minus one', randomBytes(PART - 1))
  put('edge/part exactly', randomBytes(PART))
  put('edge/part plus one', randomBytes(PART + 1))
  put('edge/canary.txt', CANARY.repeat(50))
  put('edge/ünïcode – 文件 – файл.txt', 'unicode')
  put('edge/emoji 🦭🔐.txt', 'emoji')
  put(`edge/${'n'.repeat(146)}.txt`, 'a name of 150 characters')
  // Windows has no such names.
  if (process.platform !== 'win32') {
    for (const name of [
      'a:b',
      'what?',
      'all*',
      '-leading',
      'trailing.',
      'CON',
      'pipe|"quote"<>',
      'back\\slash',
      '100%41',
    ]) {
      put(`edge/${name}`, `content of ${name}`)
    }
    symlinkSync('one byte', join(root, 'edge/a link'))
  }
  put(`edge/${Array.from({ length: 12 }, (_, i) => `level ${i + 1}`).join('/')}/deep.txt`, 'twelve levels down')
  const handle = await open(join(root, 'edge/large'), 'w')
  for (let i = 0; i < LARGE; i++) await handle.write(randomBytes(1_000_000))
  await handle.close()
}

function* files(root, dir = root) {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name)
    if (entry.isDirectory()) {
      yield { path: relative(root, path), directory: true }
      yield* files(root, path)
    } else if (entry.isFile()) {
      yield { path: relative(root, path), directory: false }
    }
  }
}

async function digest(path) {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk)
  return hash.digest('hex')
}

async function compare(left, right) {
  let count = 0
  const expected = [...files(left)]
  for (const { path, directory } of expected) {
    const there = join(right, path)
    if (!existsSync(there)) fail(`missing after the download: ${path}`)
    if (directory) {
      if (!lstatSync(there).isDirectory()) fail(`not a directory: ${path}`)
      continue
    }
    if ((await digest(join(left, path))) !== (await digest(there))) fail(`different content: ${path}`)
    count++
  }
  if ([...files(right)].length !== expected.length) fail('the download has entries that the source does not have')
  return count
}

/** Looks for plaintext, and for the password, in everything the server has stored. */
function searchServer(dir, needles) {
  let bytes = 0
  for (const { path, directory } of files(dir)) {
    if (directory) continue
    const content = readFileSync(join(dir, path))
    bytes += content.length
    for (const [what, needle] of needles) if (content.includes(needle)) fail(`${what} is in the server's ${path}`)
  }
  return bytes
}

/** The plain keys of a few uploaded files, opened with the library as any client would. */
async function unwrapSome(url, accountPassword, keyPassword) {
  const { createClient, passwordAuthorizer } = await import(new URL('../dist/src/index.js', import.meta.url))
  const { getFileKey } = await import(new URL('../dist/src/api/file-keys.js', import.meta.url))
  const { requireRemote } = await import(new URL('../dist/src/sync/remote-path.js', import.meta.url))
  const client = createClient(url, {
    authorizer: (origin) => passwordAuthorizer(origin, { userName: 'demo', password: async () => accountPassword }),
    keyPassword: async () => keyPassword,
  })
  await client.session.login()
  const keys = []
  for (const path of ['/demo/edge/one byte', '/demo/edge/large', '/demo/edge/canary.txt']) {
    const { node } = await requireRemote(client.api, path)
    const fileKey = await client.keyring.unwrap(await getFileKey(client.api, node.id))
    keys.push(Buffer.from(fileKey.key))
  }
  await client.session.logout()
  await client.close()
  return keys
}

const secret = (name, value) => {
  const path = join(base, name)
  writeFileSync(path, `${value}\n`, { mode: 0o600 })
  return path
}

try {
  const accountPassword = `account-${randomBytes(9).toString('hex')}`
  const keyPassword = `key-${randomBytes(9).toString('hex')} äöü 🔑`
  const passwordFile = secret('password', accountPassword)
  const keyFile = secret('key-password', keyPassword)
  const data = join(base, 'server')
  const tree = join(base, 'tree')
  const back = join(base, 'back')

  console.log(`\nMaking edge cases (about ${Math.round((3 * PART) / 1e6) + LARGE} MB)…`)
  mkdirSync(tree)
  await makeTree(tree)
  // A copy, so that whatever else uses the dependencies meanwhile does not change the source under the comparison.
  const dependencies = join(tree, 'node_modules')
  cpSync(join(ROOT, 'node_modules', small ? 'commander' : ''), dependencies, {
    recursive: true,
    verbatimSymlinks: true,
    preserveTimestamps: true,
  })

  await sync(['serve', 'user', 'add', 'demo', '--data', data, '--password-file', passwordFile])
  console.log('\n$ sync serve --data $DEMO/server --storage s3 &')
  server = spawn(process.execPath, [MAIN, 'serve', '--data', data, '--storage', 's3', '--json', '-q'], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(server.stdout, 'data')
  const { url } = JSON.parse(String(line))
  console.log(`  serving at ${url}`)

  await sync(['login', url, '--user', 'demo', '--password-file', passwordFile])
  await sync(['keys', 'create', '--key-password-file', keyFile])
  await sync(['room', 'create', '/demo'])

  const keys = ['--key-password-file', keyFile, '--require-encryption']
  const up = await transfer('upload', ['upload', join(tree, 'edge'), dependencies, '/demo', ...keys])
  const again = await transfer('upload again', ['upload', join(tree, 'edge'), dependencies, '/demo', ...keys])
  if (again.transferred !== 0 || again.skipped !== up.transferred) fail('the second upload transferred something')
  await transfer('download', [
    'download',
    '/demo/edge',
    '/demo/node_modules',
    `${back}/`,
    '--key-password-file',
    keyFile,
  ])

  console.log('\nComparing every byte…')
  const begun = performance.now()
  let count = await compare(join(tree, 'edge'), join(back, 'edge'))
  count += await compare(dependencies, join(back, 'node_modules'))
  rows.push(['compare', count, up.bytes, (performance.now() - begun) / 1000])
  if (count !== up.transferred) fail(`${count} files compared, ${up.transferred} uploaded`)
  console.log(`  ${count} files are identical`)

  console.log('\nSearching the server for plaintext, keys and passwords…')
  const fileKeys = await unwrapSome(url, accountPassword, keyPassword)
  const license = readFileSync(join(ROOT, 'LICENSE')).subarray(0, 400)
  const stored = searchServer(data, [
    ['plaintext', CANARY],
    ['plaintext', readFileSync(join(tree, 'edge/part exactly')).subarray(1000, 1064)],
    ['plaintext', license],
    ['a private key', 'BEGIN PRIVATE KEY'],
    ['a private key', 'BEGIN RSA PRIVATE KEY'],
    ['the encryption password', keyPassword],
    ['the account password', accountPassword],
    ...fileKeys.flatMap((key) => [
      ['a file key', key],
      ['a file key', key.toString('base64')],
      ['a file key', key.toString('hex')],
    ]),
  ])
  console.log(
    `  none in ${(stored / 1e6).toFixed(0)} MB of server data; it holds wrapped file keys and ciphertext only`,
  )

  await sync(['logout'])
  console.log('\n                  files         MB   seconds     MB/s')
  for (const [title, count, bytes, seconds] of rows) {
    const mb = bytes / 1e6
    console.log(
      `${title.padEnd(14)}${String(count).padStart(9)}${mb.toFixed(1).padStart(11)}${seconds.toFixed(1).padStart(10)}${(mb / seconds).toFixed(1).padStart(9)}`,
    )
  }
  console.log(`\nThe demo succeeded in ${((performance.now() - started) / 1000).toFixed(0)} s.`)
} catch (error) {
  fail(error.stack)
}
cleanUp()
