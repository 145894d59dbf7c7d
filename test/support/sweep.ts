/**
 * Sweeps: each command of the table is run again and again, and each time another of its system calls fails, or is the last thing that the
 * process does (shim.ts). Then the same command is given once more, and everything has to be as after a run without any fault.
 *
 *     const bench = await createBench()
 *     const { runs, problems } = await sweepKills(bench, COMMANDS.pull, { kinds: ['rename', 'link'], most: 20 })
 *     expect(problems).toEqual([])
 *
 * A new command is covered by one more entry in `COMMANDS`: what it needs beforehand, its arguments, and how to see that it is done.
 * Each attempt has a home directory, local directories and a remote folder of its own, so attempts know nothing of each other.
 * @module
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deleteNode, listChildren } from '../../src/api/nodes.ts'
import { addUser } from '../../src/server/index.ts'
import { ensureFolder, requireRemote } from '../../src/sync/remote-path.ts'
import {
  accountPassword,
  type CliResult,
  createWorld,
  giveKeyPair,
  makeRoom,
  makeTree,
  runCli,
  snapshot,
  user1,
  type World,
} from './cli.ts'
import { type Call, type CallKind, countCalls, type ShimPlan, shimEnv } from './shim.ts'

export interface Bench {
  readonly world: World
  /** A copy of a home directory in which somebody is logged in. */
  newHome(): string
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
  /** Exit code of a run without a fault; default 0. */
  readonly done?: number
  /** Exit codes of the command after it was cut; default 0 only. A removal finds nothing more to remove, for instance. */
  readonly again?: readonly number[]
}

export async function createBench(): Promise<Bench> {
  const world = await createWorld({ users: [user1, 'bob'] })
  let count = 0
  return {
    world,
    next: () => ++count,
    newHome() {
      const home = world.path(`home-${++count}`)
      cpSync(world.home, home, { recursive: true })
      return home
    },
    close: () => world.close(),
  }
}

const unlocked = (bench: Bench) => ['--key-password-file', bench.world.keyPasswordFile]

function same(what: string, found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${what}: ${a}, not ${b}`)
}

/** Files below a directory, without what we keep there. */
function filesOf(root: string): Record<string, string> {
  return Object.fromEntries(Object.entries(snapshot(root)).filter(([path]) => !path.startsWith('.sealsync-')))
}

/** Files below a remote folder, by content. */
async function remoteFiles(bench: Bench, remote: string): Promise<Record<string, string>> {
  const copy = bench.world.path(`copy-${bench.next()}`)
  const client = await bench.world.client()
  const { failed } = await client.download([remote], copy, { contents: true })
  if (failed.length > 0) throw new Error(`${remote} cannot be read: ${failed[0]!.error.message}`)
  const found = filesOf(copy)
  rmSync(copy, { recursive: true, force: true })
  return found
}

async function store(bench: Bench, files: Record<string, string | Uint8Array>, remote: string): Promise<string> {
  const tree = bench.world.path(`stored-${bench.next()}`)
  makeTree(tree, files)
  const { failed } = await (await bench.world.client()).upload([tree], remote, { contents: true })
  if (failed.length > 0) throw new Error(failed[0]!.error.message)
  return tree
}

async function removeRemote(bench: Bench, path: string): Promise<void> {
  const { api } = await bench.world.client()
  await deleteNode(api, (await requireRemote(api, path)).node.id)
}

/** A command that is part of the preparation. */
async function ready({ world }: Bench, home: string, args: readonly string[]): Promise<CliResult> {
  const run = await runCli(home, args, { env: { SEALSYNC_KEY_PASSWORD_FILE: world.keyPasswordFile } })
  if (run.code !== 0) throw new Error(`${args.join(' ')}: exit ${run.code} ${run.stderr}`)
  return run
}

const FILES = { a: 'one', b: 'two', 'sub/c': 'three', 'sub/deep/d': 'four' }
const MEGABYTES = Buffer.alloc(9 * 1024 * 1024, 'large\n')

/** A directory that was pulled, and a remote folder in which since then one file was replaced, renamed, removed, added. */
async function changedThere(bench: Bench): Promise<{ home: string; local: string; remote: string; wanted: object }> {
  const [n, home] = [bench.next(), bench.newHome()]
  const [local, remote] = [bench.world.path(`pulled-${n}`), `/room/pulled-${n}`]
  const source = await store(bench, FILES, remote)
  await ready(bench, home, ['pull', remote, local])
  const pusher = bench.newHome()
  await ready(bench, pusher, ['push', source, remote])
  writeFileSync(join(source, 'a'), 'replaced')
  rmSync(join(source, 'b'))
  renameSync(join(source, 'sub/c'), join(source, 'sub/e'))
  writeFileSync(join(source, 'new'), 'new')
  await ready(bench, pusher, ['push', source, remote, '--delete'])
  return { home, local, remote, wanted: filesOf(source) }
}

async function changedHere(bench: Bench): Promise<{ home: string; local: string; remote: string; wanted: object }> {
  const [n, home] = [bench.next(), bench.newHome()]
  const [local, remote] = [bench.world.path(`pushed-${n}`), `/room/pushed-${n}`]
  makeTree(local, FILES)
  await ready(bench, home, ['push', local, remote])
  writeFileSync(join(local, 'a'), 'replaced')
  rmSync(join(local, 'b'))
  renameSync(join(local, 'sub/c'), join(local, 'sub/e'))
  writeFileSync(join(local, 'new'), 'new')
  return { home, local, remote, wanted: filesOf(local) }
}

function upload(name: string, files: Record<string, string | Uint8Array>): Command {
  return {
    name,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`up-${n}`), `/room/up-${n}`]
      makeTree(local, files)
      const { api } = await bench.world.client()
      await ensureFolder(api, (await requireRemote(api, '/room')).node.id, `up-${n}`, neverAborted)
      const check = async () => same('there', await remoteFiles(bench, remote), filesOf(local))
      return { args: ['upload', local, remote, '--contents', ...unlocked(bench)], home, roots: [local], check }
    },
  }
}

function download(name: string, files: Record<string, string | Uint8Array>): Command {
  return {
    name,
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`down-${n}`), `/room/down-${n}`]
      const source = await store(bench, files, remote)
      mkdirSync(local)
      const check = () => same('here', filesOf(local), filesOf(source))
      return { args: ['download', remote, local, '--contents', ...unlocked(bench)], home, roots: [local], check }
    },
  }
}

/** A backup set with a source of its own. */
async function backupSet(bench: Bench): Promise<{ home: string; name: string; source: string; target: string }> {
  const [n, home] = [bench.next(), bench.newHome()]
  const [name, source] = [`set${n}`, bench.world.path(`source-${n}`)]
  const target = `/room/backups/${name}`
  makeTree(source, FILES)
  mkdirSync(join(home, 'backups'), { recursive: true, mode: 0o700 })
  writeFileSync(
    join(home, 'backups', `${name}.toml`),
    `target = "${target}"\nsources = ["${source}"]\n[keep]\nlast = 1\n`,
    {
      mode: 0o600,
    },
  )
  return { home, name, source, target }
}

const neverAborted = new AbortController().signal

/** Undoes the last run of a pair. */
async function undoOf(home: string, local: string, remote: string): Promise<string[]> {
  const runs = await runCli(home, ['runs', local, remote, '--json'])
  return ['undo', String(runs.json[0]!.id)]
}

async function remoteNames(bench: Bench, path: string): Promise<string[]> {
  const { api } = await bench.world.client()
  const names: string[] = []
  for await (const node of listChildren(api, (await requireRemote(api, path)).node.id)) names.push(node.name)
  return names.sort()
}

/** An empty home directory, and how to log in there. */
function loggedOut({ world, next }: Bench, name = user1): { home: string; args: string[] } {
  const home = world.path(`fresh-home-${next()}`)
  mkdirSync(home, { mode: 0o700 })
  return { home, args: ['login', world.server.url, '--user', name, '--password-file', world.path(`password-${name}`)] }
}

export const COMMANDS = {
  upload: upload('upload', FILES),
  uploadLarge: upload('upload of a large file', { large: MEGABYTES, small: 'small' }),
  download: download('download', FILES),
  downloadLarge: download('download of a large file', { large: MEGABYTES, small: 'small' }),
  firstPush: {
    name: 'first push',
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`push-${n}`), `/room/push-${n}`]
      makeTree(local, FILES)
      const check = async () => same('there', await remoteFiles(bench, remote), filesOf(local))
      return { args: ['push', local, remote, ...unlocked(bench)], home, roots: [local], check }
    },
  },
  push: {
    name: 'push of changes',
    async start(bench) {
      const { home, local, remote, wanted } = await changedHere(bench)
      const check = async () => same('there', await remoteFiles(bench, remote), wanted)
      return { args: ['push', local, remote, '--delete', ...unlocked(bench)], home, roots: [local], check }
    },
  },
  firstPull: {
    name: 'first pull',
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const [local, remote] = [bench.world.path(`pull-${n}`), `/room/pull-${n}`]
      const source = await store(bench, FILES, remote)
      const check = () => same('here', filesOf(local), filesOf(source))
      return { args: ['pull', remote, local, ...unlocked(bench)], home, roots: [local], check }
    },
  },
  pull: {
    name: 'pull of changes',
    async start(bench) {
      const { home, local, remote, wanted } = await changedThere(bench)
      const check = () => same('here', filesOf(local), wanted)
      return { args: ['pull', remote, local, '--delete', ...unlocked(bench)], home, roots: [local], check }
    },
  },
  both: {
    name: 'both, with a conflict',
    done: 12,
    again: [0, 12],
    async start(bench) {
      const { home, local, remote } = await changedThere(bench)
      await ready(bench, home, ['both', local, remote, '--delete'])
      writeFileSync(join(local, 'mine'), 'mine')
      writeFileSync(join(local, 'a'), 'changed here')
      await store(bench, { theirs: 'theirs' }, remote)
      await removeRemote(bench, `${remote}/a`)
      await store(bench, { a: 'changed there' }, remote)
      const check = async () => {
        const here = filesOf(local)
        same('there', await remoteFiles(bench, remote), here)
        const copies = Object.keys(here).filter((name) => /^a.+/.test(name))
        if (copies.length !== 1) throw new Error(`not one copy of a: ${Object.keys(here)}`)
        same('both contents', [here.a, here[copies[0]!]].sort(), ['changed here', 'changed there'])
        same('the others', [here.mine, here.theirs], ['mine', 'theirs'])
      }
      return { args: ['both', local, remote, ...unlocked(bench)], home, roots: [local], check }
    },
  },
  undoPull: {
    name: 'undo of a pull',
    async start(bench) {
      const { home, local, remote } = await changedThere(bench)
      const before = filesOf(local)
      await ready(bench, home, ['pull', remote, local, '--delete'])
      const check = () => same('here', filesOf(local), before)
      return { args: await undoOf(home, local, remote), home, roots: [local], check }
    },
  },
  undoPush: {
    name: 'undo of a push',
    async start(bench) {
      const { home, local, remote } = await changedHere(bench)
      const before = await remoteFiles(bench, remote)
      await ready(bench, home, ['push', local, remote, '--delete'])
      const check = async () => same('there', await remoteFiles(bench, remote), before)
      return { args: await undoOf(home, local, remote), home, roots: [local], check }
    },
  },
  backupRun: {
    name: 'backup run',
    async start(bench) {
      const { home, name, source, target } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      writeFileSync(join(source, 'a'), 'replaced')
      rmSync(join(source, 'b'))
      const check = async () =>
        same('current state', await remoteFiles(bench, `${target}/files${source}`), filesOf(source))
      return { args: ['backup', 'run', name, ...unlocked(bench)], home, roots: [source], check }
    },
  },
  restore: {
    name: 'backup restore',
    async start(bench) {
      const { home, name, source } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      const target = bench.world.path(`restored-${bench.next()}`)
      const check = () => same('restored', filesOf(join(target, source)), filesOf(source))
      return { args: ['backup', 'restore', name, target, ...unlocked(bench)], home, roots: [target], check }
    },
  },
  prune: {
    name: 'backup prune',
    async start(bench) {
      const { home, name, source, target } = await backupSet(bench)
      await ready(bench, home, ['backup', 'run', name])
      writeFileSync(join(source, 'a'), 'replaced')
      await ready(bench, home, ['backup', 'run', name])
      const check = async () => {
        const runs = await remoteNames(bench, `${target}/runs`)
        if (runs.length !== 1) throw new Error(`${runs.length} runs are left`)
      }
      return { args: ['backup', 'prune', name, ...unlocked(bench)], home, check }
    },
  },
  verify: {
    name: 'verify',
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      await store(bench, FILES, `/room/verify-${n}`)
      return { args: ['verify', `/room/verify-${n}`, ...unlocked(bench)], home, check: () => {} }
    },
  },
  mkdir: {
    name: 'mkdir',
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      const check = async () => same('there', await remoteNames(bench, `/room/made-${n}`), ['sub'])
      return { args: ['mkdir', '-p', `/room/made-${n}/sub`], home, check }
    },
  },
  rm: {
    name: 'rm',
    again: [0, 2],
    async start(bench) {
      const [n, home] = [bench.next(), bench.newHome()]
      await store(bench, { a: 'a', b: 'b' }, `/room/rm-${n}`)
      const check = async () => same('there', await remoteNames(bench, `/room/rm-${n}`), ['b'])
      return { args: ['rm', `/room/rm-${n}/a`], home, check }
    },
  },
  login: {
    name: 'login',
    async start(bench) {
      const { home, args } = loggedOut(bench)
      const check = async () => same('whoami', (await runCli(home, ['whoami'])).code, 0)
      return { args, home, check }
    },
  },
  logout: {
    name: 'logout',
    again: [0, 2, 4],
    async start(bench) {
      const { home, args } = loggedOut(bench)
      await ready(bench, home, args)
      const check = async () => {
        const who = await runCli(home, ['whoami'])
        if (who.code === 0) throw new Error('still logged in')
      }
      return { args: ['logout'], home, check }
    },
  },
  keysCreate: {
    name: 'keys create',
    again: [0, 12],
    async start(bench) {
      const name = `user${bench.next()}`
      const { world } = bench
      await addUser(world.path('server'), { name, password: accountPassword(name) })
      writeFileSync(world.path(`password-${name}`), `${accountPassword(name)}\n`, { mode: 0o600 })
      const { home, args } = loggedOut(bench, name)
      await ready(bench, home, args)
      const check = async () => {
        const status = await runCli(home, ['keys', 'status', '--json'])
        same('keys status', status.code, 0)
      }
      return { args: ['keys', 'create', ...unlocked(bench)], home, check }
    },
  },
  trust: {
    name: 'keys trust',
    async start(bench) {
      const home = bench.newHome()
      await shareWithBob(bench)
      const check = async () => {
        const list = await runCli(home, ['keys', 'list', '--json'])
        same('bob', list.json.find(({ user }) => user === 'bob')?.state, 'trusted')
      }
      return { args: ['keys', 'trust', 'bob'], home, check }
    },
  },
} satisfies Record<string, Command>

const shared = new WeakMap<Bench, Promise<void>>()

/** A room with a second member who has a key pair. */
function shareWithBob(bench: Bench): Promise<void> {
  let sharing = shared.get(bench)
  sharing ??= (async () => {
    const { world } = bench
    await giveKeyPair(await world.client('bob'))
    await makeRoom(await world.client(), 'shared')
    await ready(bench, world.home, ['room', 'members', '/shared', '--add', 'bob', '--role', 'read'])
  })()
  shared.set(bench, sharing)
  return sharing
}

export interface SweepOptions {
  readonly kinds: readonly CallKind[]
  /** Only calls for which this is true; default all. */
  readonly only?: (call: Call) => boolean
  /** So many of the calls at most, spread over all of them. Default all. */
  readonly most?: number
  /** Attempts at once. Default 2. */
  readonly jobs?: number
}

export interface SweepResult {
  readonly name: string
  /** Calls of a run without a fault. */
  readonly calls: number
  /** Runs that met their fault. */
  readonly runs: number
  /** What went wrong, a line each. */
  readonly problems: readonly string[]
}

function spread<T>(items: readonly T[], most: number): T[] {
  if (items.length <= most) return [...items]
  return Array.from({ length: most }, (_, i) => items[Math.floor((i * items.length) / most)]!)
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

/** The call numbers of a command that a sweep goes through. */
async function numbered(bench: Bench, command: Command, options: SweepOptions) {
  const attempt = await command.start(bench)
  let first: CliResult | undefined
  const where = { kinds: options.kinds, roots: rootsOf(attempt) }
  const calls = await countCalls(where, async (env) => {
    first = await runCli(attempt.home, attempt.args, { env: { ...attempt.env, ...env } })
  })
  if (first?.code !== (command.done ?? 0))
    throw new Error(`${command.name} without a fault: exit ${first?.code} ${first?.stderr}`)
  await attempt.check()
  const all = calls.flatMap((call, i) => ((options.only?.(call) ?? true) ? [{ call, at: i + 1 }] : []))
  return { calls: calls.length, chosen: spread(all, options.most ?? Number.POSITIVE_INFINITY) }
}

async function inParallel<T>(items: readonly T[], jobs: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: jobs }, worker))
}

const lastLine = (text: string) => text.trim().split('\n').slice(0, 2).join(' / ')

/** The same command once more, without a fault; adds what is wrong afterwards. */
async function runAgain(command: Command, attempt: Attempt, where: string, problems: string[]): Promise<void> {
  const run = await runCli(attempt.home, attempt.againArgs ?? attempt.args, { env: { ...attempt.env } })
  if (!(command.again ?? [0]).includes(run.code ?? -1) || isCrash(run.stderr)) {
    problems.push(`${where}: again: exit ${run.code}: ${lastLine(run.stderr)}`)
  }
  try {
    await attempt.check()
  } catch (error) {
    problems.push(`${where}: ${(error as Error).message}`)
  }
  const left = leftovers(rootsOf(attempt))
  if (left.length > 0) problems.push(`${where}: left over: ${left.join(' ')}`)
}

/** Kills before and after each call; the same command again must come to the end that a run without a kill has. */
export async function sweepKills(bench: Bench, command: Command, options: SweepOptions): Promise<SweepResult> {
  const { calls, chosen } = await numbered(bench, command, options)
  const problems: string[] = []
  let runs = 0
  const faults = chosen.flatMap((one) => (['kill-before', 'kill-after'] as const).map((how) => ({ ...one, how })))
  await inParallel(faults, options.jobs ?? 2, async ({ call, at, how }) => {
    const attempt = await command.start(bench)
    const plan: ShimPlan = { kinds: options.kinds, roots: rootsOf(attempt), at, do: how }
    const run = await runCli(attempt.home, attempt.args, { env: { ...attempt.env, ...shimEnv(plan) } })
    if (run.signal !== 'SIGKILL') return // calls in parallel: this time there were fewer
    runs++
    await runAgain(command, attempt, `${command.name}: ${how} ${at} (${call.kind} ${tail(call.path)})`, problems)
  })
  return { name: command.name, calls, runs, problems }
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
  const problems: string[] = []
  let runs = 0
  const faults = chosen.flatMap((one, i) =>
    (options.each ? errnos : [errnos[i % errnos.length]!]).map((errno) => ({ ...one, errno })),
  )
  await inParallel(faults, options.jobs ?? 2, async ({ call, at, errno }) => {
    const attempt = await command.start(bench)
    const log = bench.world.path(`log-${bench.next()}`)
    const plan: ShimPlan = { kinds: options.kinds, roots: rootsOf(attempt), at, times, do: 'fail', errno, log }
    const run = await runCli(attempt.home, attempt.args, { env: { ...attempt.env, ...shimEnv(plan) } })
    const met = (existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0) >= at
    rmSync(log, { force: true })
    if (!met) return
    runs++
    const where = `${command.name}: ${errno} at ${at} (${call.kind} ${tail(call.path)})`
    if (!codes.includes(run.code ?? -1) || isCrash(run.stderr)) {
      problems.push(`${where}: exit ${run.code ?? run.signal}: ${lastLine(run.stderr)}`)
    }
    // What cannot be removed stays, and so does what the next run goes on with.
    const isKept = (name: string) => /^\.sealsync-[\w-]{22}\./.test(name)
    if (!['unlink', 'rmdir', 'stat', 'readdir'].includes(call.kind)) {
      const left = leftovers(rootsOf(attempt), isKept)
      if (left.length > 0) problems.push(`${where}: exit ${run.code}, left over: ${left.join(' ')}`)
    }
    await runAgain(command, attempt, where, problems)
  })
  return { name: command.name, calls, runs, problems }
}
