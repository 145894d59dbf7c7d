/**
 * The program as it runs without npm and without a Node of the machine's own: the bundled command line, the packages that have
 * native parts with the files that are loaded of them, and a runtime.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'esbuild'
import { stripElf } from './elf.mjs'
import { fetchFiles } from './fetch.mjs'

/** Packages with native parts, and where each keeps those for Linux on x64 with glibc. */
const NATIVE = {
  lmdb: { name: '@lmdb/lmdb-linux-x64', file: 'node.napi.glibc.node' },
  '@napi-rs/keyring': { name: '@napi-rs/keyring-linux-x64-gnu', file: 'keyring.linux-x64-gnu.node' },
}

/** What they contain of others, besides what their own licenses say. */
const TAKEN_IN = {
  lmdb: [
    ['LMDB', 'dependencies/lmdb/libraries/liblmdb/COPYRIGHT'],
    ['LMDB', 'dependencies/lmdb/libraries/liblmdb/LICENSE'],
    ['LZ4', 'dependencies/lz4/lib/LICENSE'],
  ],
  '@napi-rs/keyring-linux-x64-gnu': [['Rust crates', 'LICENSE.third-party.md']],
}

/**
 * @typedef {object} Part - One package of others that is in ours.
 * @property {string} name
 * @property {string} version
 * @property {string} license - As SPDX has it.
 * @property {string} integrity - Of its archive: `sha512-BASE64`.
 * @property {string} text - Its license, and those of what is in it.
 */

/**
 * Node without what only debuggers read.
 *
 * @param {import('./fetch.mjs').Pin} pin
 * @param {string} cache
 * @returns {{ program: Buffer, part: Part }}
 */
export function readRuntime(pin, cache) {
  const files = fetchFiles(pin, cache, (path) => path === 'bin/node' || path === 'LICENSE')
  const text = files.get('LICENSE').data.toString('utf8')
  return { program: stripElf(files.get('bin/node').data), part: { ...pin, license: 'MIT', text } }
}

const LICENSE_NAME = /^licen[cs]e([-.].*)?$/i

/** A package that is installed, or comes from the registry where npm has left it out because of this machine. */
function readPackage(root, name, lock, cache) {
  const directory = join(root, 'node_modules', name)
  const { version, integrity } = lock.packages[`node_modules/${name}`]
  if (existsSync(directory)) {
    return { names: readdirSync(directory), read: (path) => readFileSync(join(directory, path)) }
  }
  const files = fetchFiles({ name, version, integrity }, cache, () => true)
  return { names: [...files.keys()], read: (path) => files.get(path).data }
}

/** Names and versions of a directory that may be nested: `a/node_modules/b` is b. */
const partOf = (directory, lock, texts) => {
  const { version, license, integrity } = lock.packages[directory]
  return { name: directory.replace(/^.*node_modules\//, ''), version, license, integrity, text: texts.join('\n\n') }
}

/** Files of the packages with native parts: those that are loaded, and no others. */
async function nativeFiles(root, lock, cache) {
  const { metafile } = await build({
    stdin: {
      contents: Object.keys(NATIVE)
        .map((name) => `import '${name}'`)
        .join('\n'),
      resolveDir: root,
    },
    absWorkingDir: root,
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
    metafile: true,
    external: ['@napi-rs/keyring-*', 'msgpackr-extract', '*.node'],
    logLevel: 'warning',
  })
  const paths = Object.keys(metafile.inputs).filter((path) => path.startsWith('node_modules/'))
  const directories = [...new Set(paths.map((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)[0]))]
  const files = new Map(paths.map((path) => [path, readFileSync(join(root, path))]))
  const parts = directories.map((directory) => {
    files.set(`${directory}/package.json`, readFileSync(join(root, directory, 'package.json')))
    const name = directory.replace(/^.*node_modules\//, '')
    return partOf(directory, lock, licenseTexts(name, readPackage(root, name, lock, cache)))
  })
  for (const { name, file } of Object.values(NATIVE)) {
    const pack = readPackage(root, name, lock, cache)
    files.set(`node_modules/${name}/package.json`, pack.read('package.json'))
    files.set(`node_modules/${name}/${file}`, stripElf(pack.read(file)))
    // Its main file, which tells where the package is.
    if (pack.names.includes('index.js')) files.set(`node_modules/${name}/index.js`, pack.read('index.js'))
    parts.push(partOf(`node_modules/${name}`, lock, licenseTexts(name, pack)))
  }
  return { files, parts }
}

function licenseTexts(name, pack) {
  const own = pack.names.filter((file) => LICENSE_NAME.test(file) && !file.includes('third-party'))
  const taken = (TAKEN_IN[name] ?? []).map(([what, path]) => `${what}, which is in it:\n\n${pack.read(path)}`)
  const texts = [...own.map((file) => String(pack.read(file)).trim()), ...taken]
  if (texts.length > 0) return texts
  const { license, author } = JSON.parse(pack.read('package.json'))
  return [`Its package says no more than: ${license}, by ${author?.name ?? author}.`]
}

/** The command line, put together by build.mjs, and the packages that parts were taken from. */
function bundledFiles(root, lock) {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-package-'))
  try {
    const bin = join(directory, 'bin')
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(root, 'build.mjs'), '--bin', bin, '--self-contained'],
      { encoding: 'utf8' },
    )
    if (status !== 0) throw new Error(`the program could not be put together:\n${stderr}`)
    // The page behind links is made beside it; its licenses go with it to browsers.
    const files = new Map(
      ['bin', 'share-page'].flatMap((part) =>
        readdirSync(join(directory, part)).map((name) => [
          `${part}/${name}`,
          readFileSync(join(directory, part, name)),
        ]),
      ),
    )
    const licenses = ['bin', 'share-page']
      .map((part) => files.get(`${part}/LICENSES.txt`))
      .join(`\n${'-'.repeat(80)}\n`)
    files.delete('bin/LICENSES.txt')
    const parts = licenses.split(/^-{80}$/m).flatMap((text) => {
      const [, name, version] = /^(\S+) (\d\S*) \(.*\)$/m.exec(text) ?? []
      if (name === undefined) return []
      const [directory] = Object.entries(lock.packages).find(
        ([path, one]) => path.endsWith(`node_modules/${name}`) && one.version === version,
      )
      return [partOf(directory, lock, [text.trim().replace(/^.*\n+/, '')])]
    })
    return { files, parts }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/**
 * Everything below the directory `app/`.
 *
 * @param {string} root - Of the project.
 * @param {string} cache
 * @returns {Promise<{ files: Map<string, Buffer>, parts: readonly Part[] }>}
 */
export async function readProgram(root, cache) {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const bundled = bundledFiles(root, lock)
  const native = await nativeFiles(root, lock, cache)
  // Tells the program by which name it was called, however the shell got to it.
  const sync = ['bin/sync.js', Buffer.from("require('./main.js')\n")]
  const parts = new Map([...bundled.parts, ...native.parts].map((part) => [`${part.name} ${part.version}`, part]))
  return {
    files: new Map([...bundled.files, sync, ...native.files]),
    parts: [...parts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, part]) => part),
  }
}
