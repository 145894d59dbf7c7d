/**
 * `sync push --watch` over 100,000 files (BENCH_TREE): one file changes; how long until it is at the server, and what processor time the
 * program has taken for it. And what it takes while nothing happens.
 * @module
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { compare, type Side } from '../harness.ts'
import { createWorkbench, MAIN } from '../workbench.ts'

const FILES = Number(process.env.BENCH_TREE ?? 100_000)
const PER_FOLDER = 500
const IDLE_MS = 10_000
/** Processor time is counted in these. */
const TICKS_A_SECOND = 100

if (!existsSync('/proc/self/stat')) {
  process.stdout.write('skipped: there is no /proc here to read processor times from\n')
  process.exit(0)
}
const bench = await createWorkbench()
try {
  const tree = bench.makeTree('tree', FILES, 1, PER_FOLDER)
  const room = await bench.seed({ count: FILES, size: 1, perFolder: PER_FOLDER, withKeys: false })
  bench.sync(['push', tree, room], { expect: 0 })
  const events = join(bench.base, 'events')
  const env = { ...process.env, SEALSYNC_HOME: join(bench.base, 'home'), SEALSYNC_SESSION_STORE: 'file' }
  const key = { SEALSYNC_KEY_PASSWORD_FILE: join(bench.base, 'key') }
  const args = [MAIN, 'push', tree, room, '--watch', '--events', events, '-q']
  const child = spawn(process.execPath, args, { env: { ...env, ...key }, stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit')
  const cpuSeconds = () => {
    const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND
  }
  const peakMB = () =>
    (Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024) / 1e6
  const count = (type: string) =>
    existsSync(events)
      ? readFileSync(events, 'utf8')
          .split('\n')
          .filter((line) => line.includes(`"${type}"`)).length
      : 0
  const until = async (isSo: () => boolean) => {
    while (!isSo()) {
      if (child.exitCode !== null) throw new Error(`the watch has ended with ${child.exitCode}`)
      await sleep(20)
    }
  }
  await until(() => count('summary') === 1)
  const folders = readdirSync(tree).map((name) => join(tree, name))
  let stamp = 0
  async function change(): Promise<{ seconds: number; cpu: number }> {
    const folder = folders[(stamp * 7) % folders.length]!
    const [runs, files, cpu, begun] = [count('summary'), count('file-done'), cpuSeconds(), performance.now()]
    writeFileSync(join(folder, readdirSync(folder)[stamp % 100]!), String(stamp % 10))
    stamp++
    await until(() => count('file-done') > files)
    const seconds = (performance.now() - begun) / 1000
    await until(() => count('summary') > runs)
    return { seconds, cpu: cpuSeconds() - cpu }
  }
  const side = (run: () => Promise<number>): [Side] => [
    { name: 'ours', run: async () => ({ value: await run(), peakMB: peakMB() }) },
  ]
  const common = { unit: 's', better: 'less' } as const
  await compare([
    {
      ...common,
      name: `one change among ${FILES} files, until it is uploaded`,
      sides: side(async () => (await change()).seconds),
    },
  ])
  await compare([
    {
      ...common,
      name: `one change among ${FILES} files, processor time`,
      sides: side(async () => (await change()).cpu),
    },
  ])
  await compare([
    {
      ...common,
      name: `${IDLE_MS / 1000} s without a change, processor time`,
      sides: side(async () => {
        const before = cpuSeconds()
        await sleep(IDLE_MS)
        return cpuSeconds() - before
      }),
    },
  ])
  child.kill('SIGINT')
  await ended
} finally {
  await bench.close()
}
