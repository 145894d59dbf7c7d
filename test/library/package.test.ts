/**
 * The package as others get it: packed, unpacked beside its dependencies, compiled against with every check, run, and bundled. The
 * programs in programs/ are what people would write.
 */
import { execFile } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accountPassword, createWorld, KEY_PASSWORD, type World } from '../support/cli.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const exec = promisify(execFile)
const REQUIRE = "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url)"

let base: string
let world: World
const node = (args: readonly string[]) =>
  exec(process.execPath, args, { cwd: base, env: { PATH: process.env.PATH ?? '' } })

/** Links a package of the project into the application's, unless it is optional. */
function link(name: string): void {
  const path = join(base, 'node_modules', name)
  mkdirSync(dirname(path), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules', name), path, 'dir')
}

beforeAll(async () => {
  base = mkdtempSync(join(tmpdir(), 'sealsync-package-'))
  await exec('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', base], { cwd: ROOT })
  const [tarball] = readdirSync(base)
  await exec('tar', ['-xzf', tarball!], { cwd: base })
  mkdirSync(join(base, 'node_modules'))
  renameSync(join(base, 'package'), join(base, 'node_modules/sealsync'))
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  for (const name of [...Object.keys(dependencies), '@types/node']) link(name)
  cpSync(join(ROOT, 'test/library/programs'), join(base, 'src'), { recursive: true })
  writeFileSync(join(base, 'package.json'), JSON.stringify({ type: 'module' }))
  const compilerOptions = {
    target: 'es2023',
    module: 'nodenext',
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    outDir: 'out',
    rootDir: 'src',
    types: ['node'],
  }
  writeFileSync(join(base, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }))
  world = await createWorld()
})
afterAll(async () => {
  await world.close()
  rmSync(base, { recursive: true, force: true })
})

test('compiled with every check against the packed package, the programs do what they say', async () => {
  await node([join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', base]).catch((error) => {
    throw new Error(error.stdout)
  })
  const run = async (name: string) => {
    const work = mkdtempSync(join(base, `${name}-`))
    const { stdout } = await node([
      join(base, `out/${name}.js`),
      world.server.url,
      'anna',
      accountPassword('anna'),
      KEY_PASSWORD,
      work,
    ])
    return JSON.parse(stdout)
  }
  const stream = await run('upload-stream')
  expect(stream).toMatchObject({ same: true })
  expect(stream.told.at(-1)).toBe(stream.bytes)
  expect(stream.told.length).toBeGreaterThan(1)
  expect(await run('backup')).toEqual({
    runs: true,
    complete: true,
    transferred: 1,
    letter: 'first',
    right: true,
    files: 1,
    planned: true,
  })
  expect(await run('two-way')).toEqual({
    stoppedBy: true,
    early: true,
    failed: 0,
    local: 24,
    remote: 24,
    transferredAgain: 0,
  })
  const { stdout } = await node(['--test-reporter=tap', join(base, 'out/own-test.js')])
  expect(stdout).toMatch(/^# pass 1$/m)
  expect(stdout).toMatch(/^# fail 0$/m)
})

test('a bundle of the library needs no hints and no optional package, and says what is missing where it is needed', async () => {
  const away = mkdtempSync(join(tmpdir(), 'sealsync-bundle-'))
  try {
    const program = (format: 'esm' | 'cjs') => `
      import { createClient, passwordAuthorizer } from 'sealsync'
      import { startServer } from 'sealsync/server'
      async function main() {
        const [url, userName, secret, keySecret] = process.argv.slice(2)
        const client = createClient(url, {
          authorizer: (origin) => passwordAuthorizer(origin, { userName, password: async () => secret }),
          keyPassword: async () => keySecret,
        })
        await client.session.login()
        await client.put('/room/bundled-${format}', new Uint8Array(9_000_000).fill(7))
        const bytes = await (await client.get('/room/bundled-${format}')).bytes()
        const right = bytes.length === 9_000_000 && bytes.every((byte) => byte === 7)
        await client.close()
        const missing = await startServer().then(() => undefined, (error) => error.code)
        console.log(JSON.stringify({ right, missing }))
      }
      void main()
    `
    for (const format of ['esm', 'cjs'] as const) {
      const outfile = join(away, format === 'esm' ? 'app.mjs' : 'app.cjs')
      const { warnings } = await build({
        stdin: { contents: program(format), resolveDir: base },
        bundle: true,
        platform: 'node',
        target: 'node20',
        format,
        outfile,
        logLevel: 'silent',
        // One of the dependencies (undici) is CommonJS, which esbuild cannot have call for parts of Node in a module by itself.
        ...(format === 'esm' ? { banner: { js: REQUIRE } } : {}),
      })
      expect(warnings.filter(({ id }) => id !== 'empty-import-meta')).toEqual([])
      const args = [outfile, world.server.url, 'anna', accountPassword('anna'), KEY_PASSWORD]
      const { stdout } = await exec(process.execPath, args, { cwd: away, env: { PATH: process.env.PATH ?? '' } })
      expect(JSON.parse(stdout), format).toEqual({ right: true, missing: 'LMDB_MISSING' })
    }
  } finally {
    rmSync(away, { recursive: true, force: true })
  }
})
