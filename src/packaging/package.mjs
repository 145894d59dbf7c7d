/**
 * `npm run package`: makes all packages of this checkout in dist/packages/, with Node and npm and nothing else, and leaves the rest of
 * dist/ alone. Two runs for one commit make the same bytes.
 *
 * `--out DIR`: somewhere else. `--level N`: of the compression, 1 to 22; 1 is for tests.
 *
 * Debian packages and the archive are packed with zstd, which is in the runtime that goes into them: so it is one version everywhere,
 * while xz is not in Node. dpkg reads it since 1.21.18 (Debian 12, Ubuntu 22.04), which is no loss: the native parts need
 * glibc 2.34.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
// All of it: older versions of Node have no zstd, and only learn here that they are not the right one.
import zlib from 'node:zlib'
import { install } from '../../test/bootstrap.mjs'
import { readTar, writeAr, writeTar } from './archive.mjs'
import { controlText, copyrightText, spdxText } from './documents.mjs'
import { npm } from './fetch.mjs'
import { archiveLayout, debianLayout } from './layout.mjs'

// A clean clone has no packages yet, and what follows needs some.
if (!existsSync(fileURLToPath(new URL('../../node_modules/esbuild', import.meta.url)))) install()
const { readProgram, readRuntime } = await import('./program.mjs')

const HERE = fileURLToPath(new URL('.', import.meta.url))
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CACHE = join(ROOT, 'node_modules/.cache/sealsync-package')
const BEST = 22

const own = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const { values } = parseArgs({
  options: { out: { type: 'string' }, level: { type: 'string' } },
})
const OUT = resolve(values.out ?? join(ROOT, 'dist/packages'))
const level = Number(values.level ?? BEST)
if (!Number.isInteger(level) || level < 1 || level > BEST) throw new Error('--level takes a number from 1 to 22')

const say = (text) => process.stdout.write(`${text}\n`)

/** When the commit was made, in seconds since 1970: the time of everything in the packages. */
function epochOfCommit() {
  const given = process.env.SOURCE_DATE_EPOCH
  if (given !== undefined && /^\d+$/.test(given)) return Number(given)
  const { status, stdout } = spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: ROOT, encoding: 'utf8' })
  // An archive of the sources knows no commit.
  return status === 0 ? Number(stdout) : Date.UTC(1980, 0, 1) / 1_000
}

/** Runs a step that has to succeed. */
function run(args, options = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', ...options })
  if (status !== 0) throw new Error(`${args.join(' ')} failed:\n${stdout}${stderr}`)
  return stdout
}

/** The npm package, built in a directory of its own: dist/ may hold what earlier builds have left. */
function npmPackage(epoch) {
  const stage = mkdtempSync(join(tmpdir(), 'sealsync-npm-'))
  // What npm is to leave out may hold much.
  const left = new Set(own.files.flatMap((file) => (file.startsWith('!') ? join(ROOT, file.slice(1)) : [])))
  try {
    // With its sources, because imports by name (#primitives) lead to what is compiled beside them.
    for (const name of ['tsconfig.json', 'crypto', 'src'])
      cpSync(join(ROOT, name), join(stage, name), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules'), join(stage, 'node_modules'))
    cpSync(join(ROOT, 'package.json'), join(stage, 'package.json'))
    run([join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', stage])
    unlinkSync(join(stage, 'node_modules'))
    run([join(ROOT, 'build.mjs'), '--bin', join(stage, 'dist/bin')])
    for (const name of own.files.filter((file) => !/^(?:dist\/|!)/.test(file))) {
      cpSync(join(ROOT, name), join(stage, name), { recursive: true, filter: (path) => !left.has(path) })
    }
    const { status, stdout, stderr } = npm(['pack', '--ignore-scripts', '--json', '--pack-destination', stage], stage)
    if (status !== 0) throw new Error(`npm pack failed:\n${stderr}`)
    const [{ filename }] = Object.values(JSON.parse(stdout))
    const files = readTar(zlib.gunzipSync(readFileSync(join(stage, filename))), () => true)
    const entries = [...files].map(([path, { data }]) => ({ path: `package/${path}`, data, mode: modeIn(path) }))
    return [filename, zlib.gzipSync(writeTar(entries, epoch), { level: 9 })]
  } finally {
    rmSync(stage, { recursive: true, force: true })
  }
}

const modeIn = (path) => (Object.values(own.bin).includes(path) || path === 'dist/src/cli/main.js' ? 0o755 : 0o644)

/** What the program says of itself: manual pages and completions. */
function selfDescription(app, runtime) {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-describe-'))
  try {
    for (const [path, data] of app) {
      mkdirSync(join(directory, 'app', path, '..'), { recursive: true })
      writeFileSync(join(directory, 'app', path), data)
    }
    const env = { PATH: '', SEALSYNC_HOME: join(directory, 'home'), LC_ALL: 'C.UTF-8' }
    const call = (...args) => run([join(directory, 'app/bin/main.js'), ...args], { env, cwd: directory })
    const man = join(directory, 'man')
    call('man', man)
    const names = readdirSync(man, { recursive: true })
      .filter((name) => /\.\d$/.test(name))
      .sort()
    return {
      runtime,
      app,
      manuals: new Map(names.map((name) => [name, readFileSync(join(man, name))])),
      completions: {
        bash: call('completion', 'bash'),
        zsh: call('completion', 'zsh'),
        fish: call('completion', 'fish'),
      },
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** @param {Buffer} tar */
const compress = (tar) =>
  zlib.zstdCompressSync(tar, {
    pledgedSrcSize: tar.length,
    params: { [zlib.constants.ZSTD_c_compressionLevel]: level, [zlib.constants.ZSTD_c_checksumFlag]: 1 },
  })

function debianPackage(contents, epoch) {
  const files = debianLayout(contents, join(HERE, 'systemd'), join(HERE, 'debian/sealsync.sysusers'))
  const sums = files
    .map(({ path, data }) => `${createHash('md5').update(data).digest('hex')}  ${path}\n`)
    .sort((a, b) => (a.slice(34) < b.slice(34) ? -1 : 1))
  const bytes = files.reduce((sum, { data }) => sum + data.length, 0)
  const scripts = ['postinst', 'prerm', 'postrm'].map((name) => ({
    path: `./${name}`,
    data: readFileSync(join(HERE, 'debian', name)),
    mode: 0o755,
  }))
  const control = [
    { path: './' },
    { path: './control', data: Buffer.from(controlText(own, bytes)) },
    { path: './md5sums', data: Buffer.from(sums.join('')) },
    ...scripts,
  ]
  const data = [{ path: './' }, ...files.map((entry) => ({ ...entry, path: `./${entry.path}` }))]
  const members = [
    ['debian-binary', Buffer.from('2.0\n')],
    ['control.tar.zst', compress(writeTar(control, epoch))],
    ['data.tar.zst', compress(writeTar(data, epoch))],
  ]
  return [`${own.name}_${own.version}_amd64.deb`, writeAr(members, epoch)]
}

function linuxArchive(contents, epoch) {
  const top = `${own.name}-${own.version}-linux-x64`
  const files = archiveLayout(contents, join(HERE, 'systemd')).map((entry) => ({
    ...entry,
    path: `${top}/${entry.path}`,
  }))
  return [`${top}.tar.zst`, compress(writeTar(files, epoch))]
}

/** Everything but the npm package, which any Node makes. */
async function selfContained(epoch, runtime) {
  const { files: app, parts: taken } = await readProgram(ROOT, CACHE)
  const parts = [...taken, runtime.part]
  const spdx = spdxText(own, parts, epoch)
  const contents = {
    ...selfDescription(app, runtime.program),
    spdx,
    copyright: copyrightText(readFileSync(join(ROOT, 'LICENSE'), 'utf8'), parts),
    changelog: readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8'),
  }
  return [
    debianPackage(contents, epoch),
    linuxArchive(contents, epoch),
    [`${own.name}-${own.version}.spdx.json`, Buffer.from(spdx)],
  ]
}

/**
 * Goes on in the runtime that is packed, where it runs: what is compressed does not depend on the Node of whoever builds.
 *
 * @param {string} path - Where the runtime is kept, to be started.
 * @returns {number | undefined} the exit code; `undefined` when this is that runtime, or when it does not run here.
 */
function inRuntime(path, pin) {
  if (process.platform !== 'linux' || process.arch !== 'x64' || process.execPath === path) return undefined
  if (!existsSync(path)) {
    // Another build may be doing the same.
    const fresh = `${path}.${process.pid}`
    writeFileSync(fresh, readRuntime(pin, CACHE).program, { mode: 0o755 })
    renameSync(fresh, path)
  }
  const { status } = spawnSync(path, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  return status ?? 1
}

async function main() {
  mkdirSync(CACHE, { recursive: true })
  const pin = JSON.parse(readFileSync(join(HERE, 'runtime.json'), 'utf8'))
  const path = join(realpathSync(CACHE), `${pin.name}-${pin.version}`)
  const code = inRuntime(path, pin)
  if (code !== undefined) return code
  if (zlib.zstdCompressSync === undefined)
    throw new Error('on this machine, packages can be made with Node 22.15 and newer')
  const runtime = readRuntime(pin, CACHE)
  if (process.execPath === path && !readFileSync(path).equals(runtime.program)) {
    throw new Error(`${path} is not what it was made as; remove it`)
  }
  const epoch = epochOfCommit()
  const packages = [npmPackage(epoch), ...(await selfContained(epoch, runtime))]
  rmSync(OUT, { recursive: true, force: true })
  mkdirSync(OUT, { recursive: true })
  const sums = packages.map(([name, data]) => {
    writeFileSync(join(OUT, name), data)
    say(`${name}  ${(data.length / 1e6).toFixed(1)} MB`)
    return `${createHash('sha256').update(data).digest('hex')}  ${name}\n`
  })
  writeFileSync(join(OUT, 'SHA256SUMS'), sums.join(''))
  return 0
}

process.exitCode = await main()
