/** Bundles everything that benchmarks consist of into one directory; each file then runs on its own. @module */
import { readdirSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

export const here = (path) => fileURLToPath(new URL(path, import.meta.url))

const typescript = (folder) =>
  readdirSync(here(folder))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => here(`${folder}/${name}`))
    .sort()

export const cases = typescript('cases').map((path) => basename(path, '.ts'))

/** @param outdir - Gets one `.mjs` for each case and program, and `report.mjs`. */
export async function buildAll(outdir) {
  await build({
    entryPoints: [...typescript('cases'), ...typescript('programs'), here('report.ts')].map((path) => ({
      in: path,
      out: basename(path, '.ts'),
    })),
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    alias: { '#primitives': here('../crypto/primitives/node.ts') },
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    logLevel: 'warning',
  })
}
