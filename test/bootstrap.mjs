/**
 * What `npm run demo` and `npm test` need before anything else, in plain JavaScript without packages: installs the
 * dependencies when they are missing or older than the lockfile, and builds.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Runs a program with our terminal; ends this process with its code when it fails. */
export function run(program, args, options = {}) {
  const shell = process.platform === 'win32' && program === 'npm'
  const { status, error } = spawnSync(program, args, { cwd: ROOT, stdio: 'inherit', shell, ...options })
  if (error) throw error
  if (status !== 0) {
    console.error(`failed: ${program} ${args.join(' ')}`)
    process.exit(status ?? 1)
  }
}

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Node.js 20.19 or newer is needed; this is ${process.versions.node}.`)
  process.exit(2)
}

export function install() {
  const lock = createHash('sha256')
    .update(readFileSync(join(ROOT, 'package-lock.json')))
    .digest('hex')
  const stamp = join(ROOT, 'node_modules', '.installed-lock')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return
  console.log('Installing dependencies…')
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'])
  writeFileSync(stamp, lock)
}

/** Types of everything, then the program. */
export function checkTypes() {
  run(process.execPath, [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'test/tsconfig.json'])
}

export function build() {
  console.log('Building…')
  run(process.execPath, [join(ROOT, 'build.mjs')])
}
