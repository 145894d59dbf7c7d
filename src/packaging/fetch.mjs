/** Packages of the registry that go into ours without being dependencies of every checkout: fetched by npm, and compared with a digest that is written down here. @module */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { readTar } from './archive.mjs'

/**
 * @typedef {object} Pin
 * @property {string} name
 * @property {string} version - Exact.
 * @property {string} integrity - As npm writes it: `sha512-BASE64`.
 */

const hasDigest = (bytes, { integrity }) =>
  `sha512-${createHash('sha512').update(bytes).digest('base64')}` === integrity

/** The error when a package cannot be had; its message says why npm could not get it. */
export class FetchError extends Error {
  name = 'FetchError'
}

/**
 * Gets the archive of a package, once for a checkout.
 *
 * @param {Pin} pin
 * @param {string} cache - Directory that keeps it.
 * @returns {Buffer}
 */
function fetchArchive(pin, cache) {
  const { name, version } = pin
  const place = join(cache, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`)
  if (existsSync(place)) {
    const kept = readFileSync(place)
    if (hasDigest(kept, pin)) return kept
  }
  // In a directory of its own, because another build may be doing the same.
  const own = join(cache, `fetch-${process.pid}`)
  mkdirSync(own, { recursive: true })
  try {
    const args = ['pack', `${name}@${version}`, '--prefer-offline', '--ignore-scripts', '--pack-destination', own]
    const { status, stderr } = npm(args, own)
    const [file] = readdirSync(own)
    if (status !== 0 || file === undefined) throw new FetchError(`npm cannot get ${name}@${version}:\n${stderr}`)
    const bytes = readFileSync(join(own, file))
    if (!hasDigest(bytes, pin)) throw new Error(`${name}@${version} is not the package that is expected here`)
    renameSync(join(own, file), place)
    return bytes
  } finally {
    rmSync(own, { recursive: true, force: true })
  }
}

/**
 * Runs npm, without what an npm that started us has put into the environment for its own command.
 *
 * @param {readonly string[]} args
 * @param {string} cwd
 */
export function npm(args, cwd) {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^npm_(?:command|lifecycle|package)_|^npm_config_(?:prefix|global|local_prefix)$/i.test(name),
    ),
  )
  const windows = process.platform === 'win32'
  return spawnSync(windows ? 'npm.cmd' : 'npm', args, { cwd, env, encoding: 'utf8', shell: windows })
}

/**
 * Files of a package.
 *
 * @param {Pin} pin
 * @param {string} cache
 * @param {(path: string) => boolean} wanted
 * @returns {Map<string, { mode: number, data: Buffer }>} by path.
 */
export function fetchFiles(pin, cache, wanted) {
  return readTar(gunzipSync(fetchArchive(pin, cache)), wanted)
}
