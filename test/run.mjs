/**
 * `npm test`: installs what is missing, then lint, types, build and all tests; says what was skipped and ends with one line
 * of totals. `--full` adds the slow sets.
 * @module
 */

import { spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build, checkTypes, install, ROOT, run } from './bootstrap.mjs'

const full = process.argv.includes('--full')
const filters = process.argv.slice(2).filter((arg) => !arg.startsWith('--'))

install()
const bin = (name) => join(ROOT, 'node_modules', name)
console.log('Checking style…')
run(process.execPath, [bin('@biomejs/biome/bin/biome'), 'check', '.'])
checkTypes()
build()

// The full sets search, so they start from another number each time.
const seed = process.env.SEALSYNC_SEED ?? String(randomInt(2 ** 31))
if (full) console.log(`SEALSYNC_SEED=${seed}`)
const reports = mkdtempSync(join(tmpdir(), 'sealsync-test-'))
const report = join(reports, 'report.json')
const { status } = spawnSync(
  process.execPath,
  [
    bin('vitest/vitest.mjs'),
    'run',
    '--config',
    'test/vitest.config.ts',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...filters,
  ],
  {
    cwd: ROOT,
    stdio: 'inherit', // What is installed is tested; whoever runs single files has only compiled, perhaps.
    env: {
      ...process.env,
      TEST_MAIN: join(ROOT, 'dist/bin/main.js'),
      SEALSYNC_TEST_SHARED: '1',
      ...(full ? { SEALSYNC_FULL: '1', SEALSYNC_SEED: seed } : {}),
    },
  },
)
if (!existsSync(report)) process.exit(status || 1)
const totals = JSON.parse(readFileSync(report, 'utf8'))
rmSync(reports, { recursive: true, force: true })

const skipped = totals.testResults.flatMap((file) =>
  file.assertionResults
    .filter((test) => test.status === 'pending' || test.status === 'skipped')
    .map((test) => test.fullName),
)
for (const name of new Set(skipped)) console.log(`skipped: ${name}`)
const brokenFiles = totals.testResults.filter(
  (file) => file.status === 'failed' && file.assertionResults.length === 0,
).length
const failed = totals.numFailedTests + brokenFiles
if (skipped.length > 0) console.log(`${totals.numPassedTests} passed, ${failed} failed, ${skipped.length} skipped`)
else console.log(`${totals.numPassedTests} passed, ${failed} failed`)
process.exit(status !== 0 || failed > 0 ? status || 1 : 0)
