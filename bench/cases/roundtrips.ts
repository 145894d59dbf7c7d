/**
 * How often a command waits for the network: wall time at RTT 2 s less that without a network, in round trips. Connections count as
 * they do in life, one round trip each. Against the embedded server, whole processes, one of each.
 * @module
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Comparison, compare } from '../harness.ts'
import { NEAR, startNetwork } from '../network.ts'
import { runProgram } from '../processes.ts'
import { MAIN } from '../workbench.ts'

const RTT_MS = 2_000
const base = mkdtempSync(join(tmpdir(), 'sealsync-bench-'))
const at = (...names: string[]) => join(base, ...names)
const env = {
  ...process.env,
  SEALSYNC_HOME: at('home'),
  SEALSYNC_KEY_PASSWORD_FILE: at('key'),
  SEALSYNC_SESSION_STORE: 'file',
}
const sync = (...args: string[]) => runProgram([process.execPath, MAIN, ...args, '--json', '-q'], { env })
const print = (line: string) => process.stdout.write(`${line}\n`)

for (const name of ['password', 'key']) writeFileSync(at(name), `${name} of the benchmark\n`, { mode: 0o600 })
mkdirSync(at('out'))
sync('serve', 'user', 'add', 'bench', '--data', at('data'), '--password-file', at('password'))
const server = spawn(process.execPath, [MAIN, 'serve', '--data', at('data'), '--storage', 's3', '--json', '-q'], {
  env,
  stdio: ['ignore', 'pipe', 'inherit'],
})
try {
  const [line] = (await once(server.stdout, 'data')) as [Buffer]
  const network = await startNetwork(Number(new URL(JSON.parse(line.toString()).url).port))
  try {
    let serial = 0
    /** A directory with one new file, and the name that it goes by. */
    const fresh = (name: string) => {
      const path = at(`${name}${++serial}`)
      mkdirSync(path)
      writeFileSync(join(path, 'file'), `content ${serial}\n`)
      return path
    }
    const login = ['login', `http://127.0.0.1:${network.port}`, '--user', 'bench', '--password-file', at('password')]
    sync(...login)
    sync('keys', 'create')
    sync('room', 'create', '/room')
    const known = fresh('known')
    sync('upload', known, '/room')
    const pair = fresh('pair')
    sync('push', pair, '/room/pair')

    const timed = async (args: readonly string[], oneWayMs: number) => {
      await network.set({ ...NEAR, oneWayMs })
      const { seconds } = sync(...args)
      return { seconds, counts: await network.set(NEAR) }
    }
    /** @param make - Arguments; called before each of the two runs. */
    const roundTrips = (name: string, make: () => string[], atMost: number): Comparison => ({
      name,
      unit: 'round trips',
      better: 'less',
      sides: [
        {
          name: 'ours',
          async run() {
            const near = await timed(make(), 0)
            const { seconds, counts } = await timed(make(), RTT_MS / 2)
            const trips = ((seconds - near.seconds) * 1000) / RTT_MS
            const { requests, connections } = counts
            print(`${name}: ${trips.toFixed(1)} round trips, ${requests.length} requests, ${connections} connections`)
            if (process.env.BENCH_VERBOSE === '1') for (const request of requests) print(`  ${request}`)
            return trips
          },
        },
      ],
      isSlow: true,
      goal: { atMost },
    })
    await compare([
      roundTrips('login', () => login, 3.5),
      roundTrips('ls /room', () => ['ls', '/room'], 2.5),
      roundTrips('upload 1 new file into a new folder', () => ['upload', fresh('new'), '/room'], 8),
      roundTrips('upload, nothing to do', () => ['upload', known, '/room'], 4),
      roundTrips('download 1 file', () => ['download', `/room/${known.split('/').at(-1)}`, `${fresh('out')}/`], 6),
      roundTrips(
        'push, 1 file and manifest',
        () => {
          writeFileSync(join(pair, `file${++serial}`), 'more\n')
          return ['push', pair, '/room/pair']
        },
        10,
      ),
      roundTrips('push, no change', () => ['push', pair, '/room/pair'], 4),
    ])
  } finally {
    await network.close()
  }
} finally {
  server.kill('SIGTERM')
  if (server.exitCode === null) await once(server, 'close')
  rmSync(base, { recursive: true, force: true })
}
