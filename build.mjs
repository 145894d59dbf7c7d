/**
 * `npm run build`: compiles everything into dist/ for those who import the package, and puts the command line together from few
 * files in dist/bin/, because to find and load a file costs more than what is in it. What a command seldom needs, and what has
 * native parts, stays where npm has put it and is loaded from there. `node build.mjs --bin DIR` makes only that, somewhere else; with
 * `--self-contained` everything that is JavaScript is in it, for packages without npm, and nothing is written beside it for debuggers.
 *
 * These files are CommonJS: Node finds, reads and links such a file in half the time that an ES module takes. esbuild divides only ES
 * modules into parts, so they are made first, and each is turned into CommonJS then.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build, transform } from 'esbuild'
import { bundleSharePage } from './src/share-page/bundle.mjs'

const ROOT = fileURLToPath(new URL('.', import.meta.url))
const { bin, 'self-contained': isSelfContained = false } = parseArgs({
  options: { bin: { type: 'string' }, 'self-contained': { type: 'boolean' } },
}).values
const BIN = bin === undefined ? join(ROOT, 'dist/bin') : resolve(bin)
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

/** Packages that nearly every command needs; of no other one is anything in dist/bin/. */
const BUNDLED = new Set([
  '@noble/hashes',
  'commander',
  'env-paths',
  'is-safe-filename',
  'oauth4webapi',
  'p-limit',
  'smol-toml',
  'undici',
  'yocto-queue',
])

const TARGET = 'node20.19'

const packageOf = (path) => /^(?:@[^/]+\/)?[^/]+/.exec(path)[0]

/** The parts of undici that are used; its index loads fetch, WebSocket, caches and mocks as well. */
const UNDICI = `
  import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'
  import api from 'undici/lib/api/index.js'
  Object.assign(Dispatcher.prototype, api)
  export { Dispatcher }
  export { default as Agent } from 'undici/lib/dispatcher/agent.js'
  export { default as buildConnector } from 'undici/lib/core/connect.js'`

/** What is put in the place of modules that load more than is used of them. */
const INSTEAD = {
  undici: UNDICI,
  // As a module with all its parts as exports, it has to open standard input and more to be made.
  'node:process': 'module.exports = process',
  // For commands that are programs of their own; there are none.
  'node:child_process': 'module.exports = {}',
  // HTTP/2 is offered to no server.
  './client-h2.js': 'module.exports = undefined',
  // Native parts that make long texts faster, which none of ours are.
  'msgpackr-extract': 'module.exports = undefined',
}

/** As imports are written, also on Windows. */
const slashed = (path) => path.replaceAll('\\', '/')
const inSource = (...paths) => paths.map((path) => slashed(join(ROOT, 'src', path)))

/** What is needed from the first moment on. */
const FIRST = inSource(
  'cli/child-environment.ts',
  'cli/streams.ts',
  'cli/display.ts',
  'cli/exit-codes.ts',
  'cli/methods.ts',
  'cli/options/settings.ts',
  'errors.ts',
  'version.ts',
)

/** What reads a command line: there, whatever else is loaded. */
const PROGRAM = inSource('cli/commander.ts', 'cli/nouns/index.ts', 'cli/options/shared.ts', 'cli/topics.ts')

/** What every command needs. */
const COMMAND = inSource('cli/run-command.ts', 'cli/context.ts', 'cli/output.ts')

/** What every command needs that talks to a server, also what it loads later. */
const CONNECTED = inSource(
  'cli/connect.ts',
  'cli/authorizers.ts',
  'client.ts',
  'local/native.ts',
  'session/grant-store.ts',
  'session/authorizers/password.ts',
)

const AT_FIRST = /\/cli\/(?:main|coreutils|child-environment)\.ts$/
const BEFORE_COMMANDS = /\/cli\/(?:program|usage|completion\/answer)\.ts$/
const NOT_CONNECTED =
  /\/(?:cli\/(?:run-command|output)|cli\/commands\/(?:config|profile|rules|serve)|server\/index)\.ts$/

function companions(path) {
  if (AT_FIRST.test(path)) return FIRST
  if (BEFORE_COMMANDS.test(path)) return [...FIRST, ...PROGRAM]
  return [...FIRST, ...PROGRAM, ...COMMAND, ...(NOT_CONNECTED.test(path) ? [] : CONNECTED)]
}

/**
 * Makes every part that is loaded by itself say that it needs what will have been loaded anyway. Else there would be a small file
 * for each set of parts that share something.
 */
const together = {
  name: 'together',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^\.|main\.ts$/ }, ({ path, kind, resolveDir }) =>
      kind === 'dynamic-import' || (kind === 'entry-point' && path.endsWith('main.ts'))
        ? { path: slashed(resolve(resolveDir, path)), namespace: 'together' }
        : undefined,
    )
    onLoad({ filter: /./, namespace: 'together' }, ({ path }) => ({
      contents: [
        ...(path.endsWith('/cli/main.ts') ? ['#!/usr/bin/env node'] : []),
        ...companions(path).map((one) => `import '${one}'`),
        `export * from '${path}'`,
      ].join('\n'),
      resolveDir: ROOT,
    }))
  },
}

const packages = {
  name: 'packages',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(undici|node:process|msgpackr-extract|\.\/client-h2\.js)$/ }, ({ path }) => ({
      path,
      namespace: 'instead',
    }))
    onResolve({ filter: /^node:child_process$/ }, ({ path, importer }) =>
      slashed(importer).includes('/node_modules/commander/')
        ? { path, namespace: 'instead' }
        : { path, external: true },
    )
    onLoad({ filter: /./, namespace: 'instead' }, ({ path }) => ({ contents: INSTEAD[path], resolveDir: ROOT }))
    onLoad({ filter: /[\\/]src[\\/]version\.ts$/ }, () => ({ contents: `export const VERSION = '${version}'` }))
    onResolve({ filter: /^[^./#]/ }, ({ path, kind }) =>
      kind === 'entry-point' || path.startsWith('node:') || isSelfContained || BUNDLED.has(packageOf(path))
        ? undefined
        : { external: true },
    )
  },
}

function compile() {
  const { status } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', join(ROOT, 'tsconfig.json')],
    { stdio: 'inherit' },
  )
  if (status !== 0) process.exit(status ?? 1)
  chmodSync(join(ROOT, 'dist/src/cli/main.js'), 0o755)
}

async function bundle() {
  const { metafile, outputFiles } = await build({
    // Threads are looked for beside the file that starts them.
    entryPoints: ['src/cli/main.ts', 'src/transfer/encryption-worker.ts', 'src/transfer/decryption-worker.ts'].map(
      (path) => join(ROOT, path),
    ),
    entryNames: '[name]',
    outdir: BIN,
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: TARGET,
    // Names stay, so that a stack trace says where something happened.
    minifySyntax: true,
    sourcemap: isSelfContained ? false : 'inline',
    sourcesContent: false,
    legalComments: 'none',
    metafile: true,
    write: false,
    alias: { '#primitives': join(ROOT, 'crypto/primitives/node.ts') },
    plugins: [together, packages],
    absWorkingDir: ROOT,
    logLevel: 'warning',
  })
  rmSync(BIN, { recursive: true, force: true })
  mkdirSync(BIN, { recursive: true })
  writeFileSync(join(BIN, 'package.json'), '{ "type": "commonjs" }\n')
  for (const { path, text } of outputFiles) await writeCommonJs(basename(path), text)
  chmodSync(join(BIN, 'main.js'), 0o755)
  return Object.keys(metafile.inputs)
}

/** Writes a part, with its source map. */
async function writeCommonJs(name, esm) {
  const source = esm
    // Parts are required, when they are asked for; packages may be of either kind.
    .replaceAll(/\bimport\("(\.\/[\w.-]+)"\)/g, 'Promise.resolve().then(() => require("$1"))')
    .replaceAll('import.meta.url', 'require("node:url").pathToFileURL(__filename).href')
  const { code, map } = await transform(source, {
    format: 'cjs',
    platform: 'node',
    target: TARGET,
    sourcemap: isSelfContained ? false : 'external',
    sourcesContent: false,
    sourcefile: name,
  })
  writeFileSync(join(BIN, name), isSelfContained ? code : `${code}//# sourceMappingURL=${name}.map\n`)
  if (!isSelfContained) writeFileSync(join(BIN, `${name}.map`), map)
}

/** The licenses of packages that parts were taken from. */
function licensesOf(inputs) {
  const names = new Set(inputs.flatMap((path) => /^node_modules\/(.*)/.exec(path)?.[1] ?? []).map(packageOf))
  const texts = [...names].sort().map((name) => {
    const directory = join(ROOT, 'node_modules', name)
    const { version: its, license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'))
    const file = readdirSync(directory).find((entry) => /^licen[cs]e([-.].*)?$/i.test(entry))
    if (file === undefined) throw new Error(`${name} has no license text`)
    return `${name} ${its} (${license})\n\n${readFileSync(join(directory, file), 'utf8').trim()}\n`
  })
  const head = 'The files in this directory contain parts of these packages.\n'
  return [head, ...texts].join(`\n${'-'.repeat(80)}\n\n`)
}

if (bin === undefined) compile()
writeFileSync(join(BIN, 'LICENSES.txt'), licensesOf(await bundle()))
// Beside it, where the server looks for it.
await bundleSharePage(join(dirname(BIN), 'share-page'), licensesOf)
