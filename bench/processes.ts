/** Runs whole programs and says what they used: wall time here, processor time and peak memory by GNU time. @module */
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import type { Sample } from './harness.ts'

export interface Usage {
  readonly seconds: number
  /** Of all its processes; unknown where GNU time is missing. */
  readonly cpuSeconds?: number | undefined
  /** Millions of bytes, of the largest of its processes. */
  readonly peakMB?: number | undefined
  readonly stdout: string
}

const GIB = 2 ** 30
/** No side may take longer than this. */
const LIMIT_MS = 20 * 60_000

/** Finds programs once. */
const found = new Map<string, boolean>()
export function isInstalled(program: string): boolean {
  let is = found.get(program)
  if (is === undefined) {
    is = spawnSync('sh', ['-c', 'command -v "$1"', 'sh', program], { stdio: 'ignore' }).status === 0
    found.set(program, is)
  }
  return is
}

/** The shell's own `time` says nothing of memory. */
const GNU_TIME = '/usr/bin/time'
const hasTime = (() => {
  const { status, stderr } = spawnSync(GNU_TIME, ['-f', '%M', 'true'], { encoding: 'utf8' })
  return status === 0 && /^\d+\s*$/.test(stderr)
})()

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** Exit codes besides 0 that are fine. */
  readonly mayFail?: boolean
}

/** Runs a program to its end. @throws {Error} with what it wrote when it fails. */
export function runProgram(command: readonly string[], options: RunOptions = {}): Usage {
  const report = join(tmpdir(), `sealsync-bench-time-${process.pid}`)
  const [program, ...args] = hasTime ? [GNU_TIME, '-q', '-f', '%U %S %M', '-o', report, ...command] : command
  const begun = performance.now()
  const { status, stdout, stderr, error } = spawnSync(program!, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
    maxBuffer: 2 ** 28,
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  const seconds = (performance.now() - begun) / 1000
  const used =
    hasTime && error === undefined ? readFileSync(report, 'utf8').trim().split(/\s+/).slice(-3).map(Number) : []
  rmSync(report, { force: true })
  if (error !== undefined) throw error
  if (status !== 0 && options.mayFail !== true) {
    throw new Error(`${command.join(' ')} ended with ${status}: ${stderr.slice(-2000)}${stdout.slice(-2000)}`)
  }
  if (!hasTime) return { seconds, stdout }
  const [user, system, peakKiB] = used
  return { seconds, cpuSeconds: user! + system!, peakMB: (peakKiB! * 1024) / 1e6, stdout }
}

/** A pipeline; it fails when any of its programs does. */
export const runShell = (script: string, args: readonly string[], options: RunOptions = {}): Usage =>
  runProgram(['bash', '-ceu', `set -o pipefail; ${script}`, 'bash', ...args], options)

/** As GB/s. */
export const throughput = (bytes: number, { seconds, cpuSeconds, peakMB }: Usage): Sample => ({
  value: bytes / 1e9 / seconds,
  cpuSecondsPerGiB: cpuSeconds === undefined ? undefined : (cpuSeconds * GIB) / bytes,
  peakMB,
})

/** As so many a second. */
export const rate = (count: number, { seconds, peakMB }: Usage): Sample => ({ value: count / seconds, peakMB })
