/**
 * Sweeps: each command of the table in sweep-commands.ts is run again and again, and each time another of its system calls fails, or is
 * the last thing that the process does (shim.ts). Then the same command is given once more, and everything has to be as after a run
 * without any fault.
 *
 *     const bench = await createBench()
 *     const { runs, problems } = await sweepKills(bench, COMMANDS.pull, { kinds: ['rename', 'link'], most: 20 })
 *     expect(problems).toEqual([])
 *
 * A new command is covered by one more entry in `COMMANDS`. Commands run in processes that are already there (warm-cli.ts); those with a
 * fault end when they leave anything behind.
 * @module
 */
import { cpSync, existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type CliResult, createWorld, user1, type World } from './cli.ts'
import { type Call, type CallKind, readCalls, type ShimPlan } from './shim.ts'
import { createWarmCli, type WarmCli } from './warm-cli.ts'

export interface Bench {
  readonly world: World
  /** A copy of a home directory in which somebody is logged in. */
  newHome(): string
  /** Runs a command without any fault. */
  run(home: string, args: readonly string[], env?: Record<string, string>): Promise<CliResult>
  /** Processes for runs with a fault. */
  readonly warm: WarmCli
  /** A number that no other attempt has. */
  next(): number
  close(): Promise<void>
}

/** One try of a command, from a fresh start. */
export interface Attempt {
  readonly args: readonly string[]
  readonly home: string
  /** Directories whose files belong to the run; `home` always does. */
  readonly roots?: readonly string[]
  readonly env?: Record<string, string>
  /** For the run after the fault, if it is not the same command. */
  readonly againArgs?: readonly string[]
  /** Throws unless all is as it should be after a run without a fault. */
  check(): Promise<void> | void
}

export interface Command {
  readonly name: string
  start(bench: Bench): Promise<Attempt>
  /** Nothing tells its files from each other, so one will do. */
  readonly alike?: boolean
  /** Kills in a short sweep: calls to the disk, calls to the network; default one of the disk. Each is two kills. */
  readonly kills?: readonly [disk: number, network: number]
  /** Exit code of a run without a fault; default 0. */
  readonly done?: number
  /** Exit codes of the command after it was cut; default 0 only. A removal finds nothing more to remove, for instance. */
  readonly again?: readonly number[]
}

export async function createBench(): Promise<Bench> {
  const world = await createWorld({ users: [user1, 'bob'] })
  const warm = createWarmCli()
  let count = 0
  return {
    world,
    warm,
    next: () => ++count,
    newHome() {
      const home = world.path(`home-${++count}`)
      cpSync(world.home, home, { recursive: true })
      return home
    },
    async run(home, args, env) {
      const run = await warm.run(home, args, env)
      run.release()
      return run
    },
    async close() {
      await warm.close()
      await world.close()
    },
  }
}

export interface SweepOptions {
  readonly kinds: readonly CallKind[]
  /** Only calls for which this is true; default all. */
  readonly only?: (call: Call) => boolean
  /** Of calls that do the same to the same file only the first. */
  readonly distinct?: boolean
  /** So many of the calls at most, spread over all of them. Default all. */
  readonly most?: number
  /** Which ones, from 0 to below 1: where between two of them. Default 0. */
  readonly offset?: number
  /** Attempts at once. Default 2. */
  readonly jobs?: number
}

export interface SweepResult {
  readonly name: string
  /** Calls of a run without a fault. */
  readonly calls: number
  /** Of those, the ones that were gone through. */
  readonly sites: number
  /** Runs that met their fault. */
  readonly runs: number
  /** What went wrong, a line each. */
  readonly problems: readonly string[]
}

function spread<T>(items: readonly T[], most: number, offset = 0): T[] {
  if (items.length <= most) return [...items]
  return Array.from({ length: most }, (_, i) => items[Math.floor(((i + offset) * items.length) / most)]!)
}

const rootsOf = (attempt: Attempt) => [attempt.home, ...(attempt.roots ?? [])]

/** Our temporary files and locks, wherever they are. */
export function leftovers(roots: readonly string[], isKept: (name: string) => boolean = () => false): string[] {
  const found: string[] = []
  const visit = (directory: string) => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name)
      if (entry.isDirectory()) visit(path)
      else if (/^\.sealsync-.*\.(?:part|info)$|\.lock$|\.break$/.test(entry.name) && !isKept(entry.name))
        found.push(path)
    }
  }
  for (const root of roots) if (existsSync(root)) visit(root)
  return found
}

/** What a message must not look like. */
const isCrash = (text: string) => /^ +at |node:internal|defect of this program|UnhandledPromise/m.test(text)

/** What is the same but for numbers and random names. */
function place(path: string, isAlike: boolean): string {
  const one = isAlike ? path.replace(/(?:\/sub)?(?:\/deep)?\/[a-d]$/, '/*') : path
  return tail(one).replace(/[\w-]{20,}|[0-9a-f]{8,}|\d+/g, '#')
}

/** The first call of each kind, to each file, for the first time, the second time, and so on, in any order of parallel files. */
function distinct(calls: readonly { call: Call; at: number }[], isAlike = false): { call: Call; at: number }[] {
  const times = new Map<string, number>()
  const sites = new Map<string, { call: Call; at: number }>()
  for (const one of calls) {
    const exactly = `${one.call.kind} ${one.call.path}`
    const time = (times.get(exactly) ?? 0) + 1
    times.set(exactly, time)
    // After that it is a loop.
    const site = `${one.call.kind} ${Math.min(time, 6)} ${place(one.call.path, isAlike)}`
    if (!sites.has(site)) sites.set(site, one)
  }
  return [...sites.values()]
}

/** The call numbers of a command that a sweep goes through. */
async function numbered(bench: Bench, command: Command, options: SweepOptions) {
  const attempt = await command.start(bench)
  const log = bench.world.path(`log-${bench.next()}`)
  const plan: ShimPlan = { kinds: options.kinds, roots: rootsOf(attempt), log }
  const run = await bench.warm.run(attempt.home, attempt.args, attempt.env, plan)
  run.release()
  const calls = readCalls(log)
  if (run.code !== (command.done ?? 0))
    throw new Error(`${command.name} without a fault: exit ${run.code} ${run.stderr}`)
  await attempt.check()
  const all = calls.flatMap((call, i) => ((options.only?.(call) ?? true) ? [{ call, at: i + 1 }] : []))
  const some = options.distinct ? distinct(all, command.alike) : all
  return { calls: calls.length, chosen: spread(some, options.most ?? Number.POSITIVE_INFINITY, options.offset) }
}

async function inParallel<T>(items: readonly T[], jobs: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: jobs }, worker))
}

/** What is wrong, told at once: a sweep may take hours. */
function createProblems(): { readonly problems: string[]; add(line: string): void } {
  const problems: string[] = []
  return {
    problems,
    add(line) {
      problems.push(line)
      process.stderr.write(`${line}\n`)
    },
  }
}

const lastLine = (text: string) => text.trim().split('\n').slice(0, 2).join(' / ')

/** The same command once more, without a fault; adds what is wrong afterwards. */
async function runAgain(
  bench: Bench,
  command: Command,
  attempt: Attempt,
  where: string,
  add: (problem: string) => void,
): Promise<void> {
  const run = await bench.run(attempt.home, attempt.againArgs ?? attempt.args, attempt.env)
  if (!(command.again ?? [0]).includes(run.code ?? -1) || isCrash(run.stderr)) {
    add(`${where}: again: exit ${run.code}: ${lastLine(run.stderr)}`)
  }
  try {
    await attempt.check()
  } catch (error) {
    add(`${where}: ${(error as Error).message}`)
  }
  // A lock whose holder was cut before it could write its name is taken for nobody's after a minute (local/lock.ts).
  const left = leftovers(rootsOf(attempt)).filter((path) => !path.endsWith('.lock') || statSync(path).size > 0)
  if (left.length > 0) add(`${where}: left over: ${left.join(' ')}`)
}

/** Kills before and after each call; the same command again must come to the end that a run without a kill has. */
export async function sweepKills(bench: Bench, command: Command, options: SweepOptions): Promise<SweepResult> {
  const { calls, chosen } = await numbered(bench, command, options)
  const { problems, add } = createProblems()
  let runs = 0
  const faults = chosen.flatMap((one) => (['kill-before', 'kill-after'] as const).map((how) => ({ ...one, how })))
  await inParallel(faults, options.jobs ?? 2, async ({ call, at, how }) => {
    const attempt = await command.start(bench)
    const plan: ShimPlan = { kinds: options.kinds, roots: rootsOf(attempt), at, do: how }
    const run = await bench.warm.run(attempt.home, attempt.args, attempt.env, plan)
    await run.retire()
    if (run.signal !== 'SIGKILL') return // calls in parallel: this time there were fewer
    runs++
    await runAgain(bench, command, attempt, `${command.name}: ${how} ${at} (${call.kind} ${tail(call.path)})`, add)
  })
  return { name: command.name, calls, sites: chosen.length, runs, problems }
}

/** The end of a path is what tells calls apart. */
const tail = (path: string) => path.split('/').slice(-3).join('/')

export interface ErrorSweepOptions extends SweepOptions {
  readonly errnos: readonly string[]
  /** Each call with each error; otherwise with one, in turn. */
  readonly each?: boolean
  readonly times?: number | 'always'
  /** Exit codes that are right; default: done, some failed, local disk. */
  readonly codes?: readonly number[]
}

/**
 * Lets each call fail. The run must end with a right exit code and no stack trace, and leave no temporary files of single files; the
 * same command again must come to the end that a run without a fault has.
 */
export async function sweepErrors(bench: Bench, command: Command, options: ErrorSweepOptions): Promise<SweepResult> {
  const { calls, chosen } = await numbered(bench, command, options)
  const { errnos, codes = [0, 3, 10, command.done ?? 0], times = 1 } = options
  const { problems, add } = createProblems()
  let runs = 0
  const faults = chosen.flatMap((one, i) =>
    (options.each ? errnos : [errnos[i % errnos.length]!]).map((errno) => ({ ...one, errno })),
  )
  await inParallel(faults, options.jobs ?? 2, async ({ at, errno }) => {
    const attempt = await command.start(bench)
    const log = bench.world.path(`log-${bench.next()}`)
    const plan: ShimPlan = { kinds: options.kinds, roots: rootsOf(attempt), at, times, do: 'fail', errno, log }
    const run = await bench.warm.run(attempt.home, attempt.args, attempt.env, plan)
    const met = readCalls(log)[at - 1]
    rmSync(log, { force: true })
    // What is left belongs to nobody only once its process is gone.
    // And who was once refused `statx` asks the kernel by other calls from then on, which are not numbered.
    const isSpoilt = errno === 'EPERM' && met?.kind === 'stat'
    if (isSpoilt || leftovers(rootsOf(attempt)).length > 0) await run.retire()
    else run.release()
    if (met === undefined) return
    runs++
    const where = `${command.name}: ${errno} at ${at} (${met.kind} ${tail(met.path)})`
    if (!codes.includes(run.code ?? -1) || isCrash(run.stderr)) {
      add(`${where}: exit ${run.code ?? run.signal}: ${lastLine(run.stderr)}`)
    }
    // What cannot be removed stays, and so does what the next run goes on with.
    const isKept = (name: string) => /^\.sealsync-[\w-]{22}\./.test(name)
    if (!['unlink', 'rmdir', 'stat', 'readdir'].includes(met.kind) && !/\.(?:lock|break)$/.test(met.path)) {
      const left = leftovers(rootsOf(attempt), isKept)
      if (left.length > 0) add(`${where}: exit ${run.code}, left over: ${left.join(' ')}`)
    }
    await runAgain(bench, command, attempt, where, add)
  })
  return { name: command.name, calls, sites: chosen.length, runs, problems }
}
