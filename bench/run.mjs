#!/usr/bin/env node
/**
 * Runs benchmarks: `node bench/run.mjs [case...] [--rounds N] [--node PATH]`. Each file in cases/ is bundled and run in a process
 * of its own, so that cases do not warm each other up or share memory. What a case measures is in its file; how, in harness.ts.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '5' }, node: { type: 'string', default: process.execPath } },
})
const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const known = readdirSync(here('cases'))
  .filter((name) => name.endsWith('.ts'))
  .map((name) => name.slice(0, -3))
  .sort()
const unknown = positionals.filter((name) => !known.includes(name))
if (unknown.length > 0) {
  process.stderr.write(`no such case: ${unknown.join(', ')}; there are: ${known.join(', ')}\n`)
  process.exit(2)
}

const folder = mkdtempSync(join(tmpdir(), 'sealsync-bench-'))
let failed = 0
try {
  for (const name of positionals.length > 0 ? positionals : known) {
    const outfile = join(folder, `${name}.mjs`)
    await build({
      entryPoints: [here(`cases/${name}.ts`)],
      outfile,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      alias: { '#primitives': here('../crypto/primitives/node.ts') },
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
      logLevel: 'warning',
    })
    const env = { ...process.env, BENCH_ROUNDS: values.rounds, BENCH_ROOT: here('..') }
    const { status } = spawnSync(values.node, [outfile], { stdio: 'inherit', env })
    if (status !== 0) failed++
  }
} finally {
  rmSync(folder, { recursive: true })
}
process.exitCode = failed > 0 ? 1 : 0
