/**
 * `npm run test:soak -- --times 20 [--load] FILES…`: runs test files again and again, to find the ones that depend on how fast
 * the machine is or on what else it does. FILES are parts of paths, as for `npm test`; without them all files run.
 *
 * - `--times N`: how often; 20 unless told otherwise.
 * - `--load`: beside endless loops that leave about a quarter of a core: seven of them on one core, which the tests share with
 *   them where there is `taskset` (Linux); elsewhere seven for each core.
 * - `--project NAME`: `native` (the default), `portable`, or `all`.
 *
 * Each run takes another SEALSYNC_SEED, unless there is one. Prints a line for each run and what failed in it, then the counts; ends with 1 if anything was red.
 * @module
 */
import { spawn, spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build, install, ROOT } from './bootstrap.mjs'

/** Loops for each core: beside them, two busy processes of the tests get two ninths of it. */
const LOOPS = 7

const { values, positionals: files } = parseArgs({
  options: {
    times: { type: 'string', default: '20' },
    load: { type: 'boolean', default: false },
    project: { type: 'string', default: 'native' },
  },
  allowPositionals: true,
})
const times = Number(values.times)
if (!Number.isSafeInteger(times) || times < 1) {
  console.error('--times takes a number from 1 on')
  process.exit(2)
}

install()
build()
const directory = mkdtempSync(join(tmpdir(), 'sealsync-soak-'))
const report = join(directory, 'report.json')
const oneCore = values.load && spawnSync('taskset', ['--version'], { stdio: 'ignore' }).status === 0
const loops = values.load ? Array.from({ length: LOOPS * (oneCore ? 1 : availableParallelism()) }, startLoop) : []
process.on('exit', () => {
  for (const loop of loops) loop.kill('SIGKILL')
  rmSync(directory, { recursive: true, force: true })
})
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => process.exit(130))

/** How often each test failed. */
const failures = new Map()
let green = 0
for (let run = 1; run <= times; run++) {
  const begun = performance.now()
  const seed = process.env.SEALSYNC_SEED ?? String(randomInt(2 ** 31))
  const failed = await runOnce(seed)
  const seconds = ((performance.now() - begun) / 1000).toFixed(0)
  if (failed.length === 0) green++
  console.log(`run ${run} of ${times}: ${failed.length === 0 ? 'green' : 'RED'}, ${seconds} s, SEALSYNC_SEED=${seed}`)
  for (const { name, message } of failed) {
    failures.set(name, (failures.get(name) ?? 0) + 1)
    console.log(`  ${name}\n    ${message.split('\n').slice(0, 12).join('\n    ')}`)
  }
}
for (const [name, count] of failures) console.log(`failed ${count} times: ${name}`)
console.log(`${green} green, ${times - green} red${values.load ? ', beside a load' : ''}`)
process.exit(green === times ? 0 : 1)

function pinned(program, args) {
  return oneCore ? ['taskset', ['-c', '0', program, ...args]] : [program, args]
}

function startLoop() {
  const [program, args] = pinned(process.execPath, ['-e', 'for (;;);'])
  return spawn(program, args, { stdio: 'ignore' })
}

/** What failed in a run of the files. */
async function runOnce(seed) {
  rmSync(report, { force: true })
  const [program, args] = pinned(process.execPath, [
    join(ROOT, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--config',
    'test/vitest.config.ts',
    ...(values.project === 'all' ? [] : ['--project', `${values.project}*`]),
    '--reporter=json',
    `--outputFile=${report}`,
    ...files,
  ])
  const env = {
    ...process.env,
    TEST_MAIN: join(ROOT, 'dist/bin/main.js'),
    SEALSYNC_TEST_SHARED: '1',
    SEALSYNC_SEED: seed,
  }
  const child = spawn(program, args, { cwd: ROOT, env, stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr = (stderr + text).slice(-4_000)
  })
  const [code] = await once(child, 'close')
  if (!existsSync(report)) return [{ name: 'the run itself', message: stderr }]
  const results = JSON.parse(readFileSync(report, 'utf8')).testResults
  const failed = results.flatMap((file) => {
    const tests = file.assertionResults.filter(({ status }) => status === 'failed')
    if (tests.length === 0 && file.status === 'failed') return [{ name: file.name, message: file.message }]
    return tests.map(({ fullName, failureMessages }) => ({ name: fullName, message: failureMessages.join('\n') }))
  })
  if (failed.length === 0 && code !== 0) return [{ name: 'the run itself', message: stderr }]
  return failed
}
