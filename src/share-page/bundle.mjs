/**
 * Makes the page behind links: a directory of files that any web server can serve, which name each other by their content.
 * @module
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Browsers with a private file system, locks and modules in workers. */
const TARGET = ['chrome108', 'firefox114', 'safari16.4']

const digest = (data, algorithm, encoding) => createHash(algorithm).update(data).digest(encoding)

/** Bundles one script and what it loads later; the main one comes first. */
async function bundle(entry, define) {
  const { metafile, outputFiles } = await build({
    entryPoints: [join(HERE, entry)],
    alias: { '#primitives': join(ROOT, 'crypto/primitives/portable.ts') },
    define,
    bundle: true,
    splitting: true,
    minify: true,
    platform: 'browser',
    conditions: ['browser'],
    format: 'esm',
    target: TARGET,
    outdir: '/',
    entryNames: '[name]-[hash]',
    chunkNames: '[name]-[hash]',
    legalComments: 'none',
    metafile: true,
    write: false,
    absWorkingDir: ROOT,
    logLevel: 'warning',
  })
  const files = outputFiles.map(({ path, contents }) => [basename(path.replaceAll('\\', '/')), Buffer.from(contents)])
  const [main] = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint !== undefined)
  return { main: basename(main), files, inputs: Object.keys(metafile.inputs) }
}

/**
 * Writes the page to a directory of its own, which is emptied before.
 *
 * @param {string} out
 * @param {(inputs: readonly string[]) => string} licensesOf - Text of the licenses of what is in it.
 */
export async function bundleSharePage(out, licensesOf) {
  const worker = await bundle('worker.ts', {})
  const page = await bundle('page.ts', { WORKER_FILE: JSON.stringify(`./${worker.main}`) })
  const style = readFileSync(join(HERE, 'style.css'))
  const styleName = `style-${digest(style, 'sha256', 'hex').slice(0, 8).toUpperCase()}.css`
  const script = page.files.find(([name]) => name === page.main)[1]
  const checked = (name, data) => `"./${name}" integrity="sha384-${digest(data, 'sha384', 'base64')}" crossorigin`
  const html = readFileSync(join(HERE, 'index.html'), 'utf8')
    .replace('"./style.css"', checked(styleName, style))
    .replace('"./page.js"', checked(page.main, script))
  const files = [
    ...worker.files,
    ...page.files,
    [styleName, style],
    ['index.html', Buffer.from(html)],
    ['config.json', Buffer.from('{}\n')],
    ['LICENSES.txt', Buffer.from(licensesOf([...worker.inputs, ...page.inputs]))],
  ]
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  for (const [name, data] of files) writeFileSync(join(out, name), data)
}
