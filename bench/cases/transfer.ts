/**
 * The whole program against the embedded server, one large file and many small ones, both storage routes: time, throughput and
 * peak resident memory of `sync upload` and `sync download`. The embedded server computes an MD5 of everything it receives and
 * syncs before it answers, so it is part of what is measured. BENCH_MB (2000) and BENCH_FILES (10000) set the sizes.
 * @module
 */
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'

const ROOT = process.env.BENCH_ROOT ?? '.'
const MAIN = join(ROOT, 'dist/src/cli/main.js')
const LARGE_MB = Number(process.env.BENCH_MB ?? 2000)
const SMALL_FILES = Number(process.env.BENCH_FILES ?? 10_000)
const print = (line: string) => process.stdout.write(`${line}\n`)

const base = mkdtempSync(join(tmpdir(), 'sealsync-bench-'))
const env = { ...process.env, SEALSYNC_HOME: join(base, 'home'), SEALSYNC_KEY_PASSWORD_FILE: join(base, 'key') }
/** Prints the peak of resident memory when a process ends. */
const REPORT = `data:text/javascript,${encodeURIComponent(
  "import { writeSync } from 'node:fs'; process.on('exit', () => writeSync(2, 'PEAK ' + process.resourceUsage().maxRSS + '\\n'))",
)}`

async function cli(
  args: readonly string[],
): Promise<{ seconds: number; peakMiB: number; bytes: number; files: number }> {
  const begun = performance.now()
  const child = spawn(process.execPath, ['--import', REPORT, MAIN, ...args, '--json', '-q'], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [out, err] = ['', '']
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  child.stderr.on('data', (chunk) => {
    err += chunk
  })
  const [code] = await once(child, 'close')
  const seconds = (performance.now() - begun) / 1000
  if (code !== 0) throw new Error(`sync ${args.join(' ')} ended with ${code}: ${err}`)
  const last = JSON.parse(out.trim().split('\n').at(-1) ?? '{}')
  const peak = Number(/PEAK (\d+)/.exec(err)?.[1] ?? 0)
  return { seconds, peakMiB: peak / 1024, bytes: last.bytes ?? 0, files: last.transferred ?? 0 }
}

function makeSources(): void {
  mkdirSync(join(base, 'large'))
  const fd = openSync(join(base, 'large/file'), 'w')
  const block = randomBytes(1_000_000)
  for (let i = 0; i < LARGE_MB; i++) writeSync(fd, block)
  closeSync(fd)
  for (let i = 0; i < SMALL_FILES; i++) {
    if (i % 100 === 0) mkdirSync(join(base, 'small', String(i / 100)), { recursive: true })
    writeFileSync(
      join(base, 'small', String(Math.floor(i / 100)), String(i)),
      block.subarray(i % 9000, (i % 9000) + 4096),
    )
  }
  for (const name of ['password', 'key']) writeFileSync(join(base, name), `${name} of the benchmark\n`, { mode: 0o600 })
}

function row(what: string, run: { seconds: number; peakMiB: number; bytes: number; files: number }): void {
  const { seconds, peakMiB, bytes, files } = run
  const mb = (bytes / 1e6 / seconds).toFixed(0)
  print(`| ${what} | ${seconds.toFixed(1)} | ${mb} | ${(files / seconds).toFixed(0)} | ${peakMiB.toFixed(0)} |`)
}

try {
  makeSources()
  print(
    `\nnode ${process.version}, ${cpus().length} processors; one file of ${LARGE_MB} MB, ${SMALL_FILES} files of 4 KiB`,
  )
  print('| run | s | MB/s | files/s | peak MiB |')
  print('| --- | --- | --- | --- | --- |')
  await cli(['serve', 'user', 'add', 'bench', '--data', join(base, 'data'), '--password-file', join(base, 'password')])
  for (const storage of ['s3', 'classic']) {
    const serve = ['serve', '--data', join(base, 'data'), '--storage', storage, '--json', '-q']
    const server = spawn(process.execPath, [MAIN, ...serve], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(server.stdout, 'data')) as [Buffer]
    const { url } = JSON.parse(line.toString())
    await cli(['login', url, '--user', 'bench', '--password-file', join(base, 'password')])
    if (storage === 's3') await cli(['keys', 'create'])
    await cli(['room', 'create', `/${storage}`])
    for (const source of ['large', 'small']) {
      row(`${storage}: upload ${source}`, await cli(['upload', join(base, source), `/${storage}`]))
      row(`${storage}: upload ${source} again`, await cli(['upload', join(base, source), `/${storage}`]))
      row(`${storage}: download ${source}`, await cli(['download', `/${storage}/${source}`, join(base, 'out')]))
      rmSync(join(base, 'out'), { recursive: true })
    }
    server.kill('SIGTERM')
    await once(server, 'close')
  }
  const begun = performance.now()
  const copy = spawnSync('openssl', [
    'enc',
    '-aes-256-ctr',
    '-pass',
    'pass:x',
    '-in',
    join(base, 'large/file'),
    '-out',
    join(base, 'enc'),
  ])
  if (copy.status === 0) {
    const seconds = (performance.now() - begun) / 1000
    print(`\nfor scale: openssl enc -aes-256-ctr of the large file to disk takes ${seconds.toFixed(1)} s here`)
  }
} finally {
  rmSync(base, { recursive: true, force: true })
}
