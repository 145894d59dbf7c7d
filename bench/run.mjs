#!/usr/bin/env node
/**
 * Runs benchmarks: `node bench/run.mjs [case...] [--full] [--rounds N] [--node PATH] [--out FILE] [--against FILE|baseline] [--store]`.
 * Each file in cases/ runs in a process of its own, so that cases do not warm each other up or share memory. What a case
 * measures is in its file; how, in harness.ts; what becomes of it, in report.ts.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { buildAll, cases, here } from './build.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    full: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    node: { type: 'string', default: process.execPath },
    out: { type: 'string' },
    against: { type: 'string' },
    store: { type: 'boolean', default: false },
  },
})
const unknown = positionals.filter((name) => !cases.includes(name))
if (unknown.length > 0) {
  process.stderr.write(`no such case: ${unknown.join(', ')}; there are: ${cases.join(', ')}\n`)
  process.exit(2)
}
if (!existsSync(here('../dist/bin/main.js'))) {
  process.stderr.write('the program is not built: npm run build\n')
  process.exit(2)
}

/** Only with --full: they take long, or measure a real server and its disk along with the client. */
const LONG = ['crypto-memory', 'many', 'roundtrips', 'transfer', 'wan']
const chosen = positionals.length > 0 ? positionals : cases.filter((name) => values.full || !LONG.includes(name))

const folder = mkdtempSync(join(tmpdir(), 'sealsync-bench-build-'))
const record = join(folder, 'entries')
let failed = 0
try {
  await buildAll(folder)
  writeFileSync(record, '')
  for (const name of chosen) {
    process.stdout.write(`\n== ${name}\n`)
    const env = {
      ...process.env,
      BENCH_ROUNDS: values.rounds,
      BENCH_FULL: values.full ? '1' : '0',
      BENCH_ROOT: here('..').replace(/\/$/, ''),
      BENCH_PROGRAMS: folder,
      BENCH_CASE: name,
      BENCH_RECORD: record,
    }
    const { status } = spawnSync(values.node, [join(folder, `${name}.mjs`)], { stdio: 'inherit', env })
    if (status !== 0) {
      failed++
      process.stderr.write(`case ${name} failed\n`)
    }
  }
  const { report } = await import(join(folder, 'report.mjs'))
  failed += report(readFileSync(record, 'utf8'), {
    node: values.node,
    results: here('results'),
    root: here('..'),
    out: values.out,
    against: values.against,
    store: values.store,
  })
} finally {
  rmSync(folder, { recursive: true })
}
process.exitCode = failed > 0 ? 1 : 0
