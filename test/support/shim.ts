/**
 * Faults of the disk and sudden deaths, for real processes: shim.c between them and the C library. It is compiled once for a test file,
 * and what uses it is skipped by name where there is no compiler or no Linux:
 *
 *     describe.skipIf(noShim)(`a full disk${noShim}`, () => {
 *       test('…', async () => {
 *         const fault = { kinds: ['write'], roots: [target], at: 3, times: 'always', do: 'fail', errno: 'ENOSPC' } as const
 *         const run = await world.cli(['download', '/room/f', target], { env: shimEnv(fault) })
 *
 * A call is numbered when its kind is among `kinds` and its file is at or below one of `roots`; what is at `connect` and `send` has
 * no place and always counts. `countCalls` tells what a run does, so that a sweep knows the numbers to go through; see sweep.ts.
 * @module
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Calls that change something on the disk. */
export const CHANGES = [
  'open',
  'write',
  'fsync',
  'rename',
  'link',
  'symlink',
  'unlink',
  'rmdir',
  'mkdir',
  'utimes',
  'chmod',
  'truncate',
] as const
/** Calls that only look. */
export const LOOKS = ['stat', 'readdir', 'open-read', 'read'] as const
/** Calls to the server: new connections, and pieces of requests. */
export const NETWORK = ['connect', 'send'] as const

export type CallKind = (typeof CHANGES)[number] | (typeof LOOKS)[number] | (typeof NETWORK)[number]

/** Numbers of Linux; libuv knows no name for some of them, and programs see `Unknown system error -122`. */
const NUMBERS: Readonly<Record<string, number>> = { ...constants.errno, EDQUOT: 122, ESTALE: 116 }

export interface ShimPlan {
  readonly kinds: readonly CallKind[]
  /** Absolute. Links on the way to them are resolved. */
  readonly roots: readonly string[]
  /** Number of the call that is meddled with, from 1; absent: none, calls are only counted. */
  readonly at?: number
  /** How many calls from there on; default 1. */
  readonly times?: number | 'always'
  /** `short`: half of what is to be written is. */
  readonly do?: 'fail' | 'short' | 'kill-before' | 'kill-after'
  /** Name of the error of `fail`; default `EIO`. */
  readonly errno?: string
  /** File that gets a line for each numbered call. */
  readonly log?: string
  /** Files get no second names (`EPERM`); such a call is not numbered. */
  readonly noLinks?: boolean
  /** Times that are set are rounded down to so many seconds. */
  readonly timeStep?: number
}

let library: { readonly path?: string; readonly problem?: string } | undefined

function compile(): { readonly path?: string; readonly problem?: string } {
  if (process.platform !== 'linux') return { problem: 'it needs Linux' }
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-shim-'))
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }))
  const [source, path] = [fileURLToPath(new URL('shim.c', import.meta.url)), join(directory, 'shim.so')]
  for (const compiler of ['cc', 'gcc', 'clang']) {
    const made = spawnSync(compiler, ['-shared', '-fPIC', '-O2', '-o', path, source, '-ldl'], { encoding: 'utf8' })
    if (made.error !== undefined) continue
    // A compiler that is there and refuses it is a defect of the shim, and not to be passed over.
    if (made.status !== 0) throw new Error(`shim.c: ${made.stderr}`)
    return { path }
  }
  return { problem: 'there is no C compiler' }
}

/** Empty where the shim can be used, else why not, to be shown in the name of what is skipped. */
export const noShim: string = (() => {
  library ??= compile()
  return library.problem === undefined ? '' : ` (skipped: ${library.problem})`
})()

function settingsOf(plan: ShimPlan): Record<string, string> {
  const errno = NUMBERS[plan.errno ?? 'EIO']
  if (errno === undefined) throw new Error(`No such error: ${plan.errno}`)
  const roots = plan.roots.map((root) => (existsSync(root) ? realpathSync(root) : root))
  return {
    SHIM_KINDS: plan.kinds.join(','),
    SHIM_ROOTS: roots.join(':'),
    ...(plan.at === undefined ? {} : { SHIM_AT: String(plan.at), SHIM_DO: plan.do ?? 'fail' }),
    SHIM_TIMES: plan.times === 'always' ? '0' : String(plan.times ?? 1),
    SHIM_ERRNO: String(errno),
    ...(plan.log === undefined ? {} : { SHIM_LOG: plan.log }),
    ...(plan.noLinks ? { SHIM_NO_LINKS: '1' } : {}),
    ...(plan.timeStep === undefined ? {} : { SHIM_TIME_STEP: String(plan.timeStep) }),
  }
}

/** Environment for a process that is to be meddled with. */
export function shimEnv(plan: ShimPlan): Record<string, string> {
  if (library?.path === undefined) throw new Error(`No shim: ${library?.problem}`)
  // Calls that go to the kernel by another way than the C library could not be counted.
  return { LD_PRELOAD: library.path, UV_USE_IO_URING: '0', ...settingsOf(plan) }
}

/** The same for a process that already has a shim, and tells it what comes next (shim.c). */
export const shimLines = (plan: ShimPlan): string =>
  Object.entries(settingsOf(plan))
    .map(([name, value]) => `\n${name}=${value}`)
    .join('')

export interface Call {
  readonly kind: CallKind
  /** Absolute path; `-` for sockets. */
  readonly path: string
}

/** The calls of a log, in order: number n is at index n - 1. */
export function readCalls(log: string): Call[] {
  if (!existsSync(log)) return []
  const calls: Call[] = []
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const [, number, kind, path] = /^(\d+) ([\w-]+) (.*)$/s.exec(line) ?? []
    // Threads may write their lines in another order than they were numbered in.
    if (number !== undefined) calls[Number(number) - 1] = { kind: kind as CallKind, path: path! }
  }
  return calls
}

/** Which calls something makes: `run` gets the environment for the process to be counted. */
export async function countCalls(
  where: Pick<ShimPlan, 'kinds' | 'roots' | 'noLinks'>,
  run: (env: Record<string, string>) => Promise<unknown>,
): Promise<Call[]> {
  const directory = mkdtempSync(join(tmpdir(), 'sealsync-calls-'))
  try {
    const log = join(directory, 'log')
    await run(shimEnv({ ...where, log }))
    return readCalls(log)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
