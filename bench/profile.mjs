#!/usr/bin/env node
/** `node bench/profile.mjs [upload|download|small-up|small-down|rescan] [DIRECTORY]`; see programs/profile.ts. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildAll, here } from './build.mjs'

const folder = mkdtempSync(join(tmpdir(), 'sealsync-bench-build-'))
try {
  await buildAll(folder)
  const env = { ...process.env, BENCH_ROOT: here('..').replace(/\/$/, ''), BENCH_PROGRAMS: folder }
  const args = [join(folder, 'profile.mjs'), ...process.argv.slice(2)]
  process.exitCode = spawnSync(process.execPath, args, { stdio: 'inherit', env }).status ?? 1
} finally {
  rmSync(folder, { recursive: true })
}
