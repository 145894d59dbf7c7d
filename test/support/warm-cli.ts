/**
 * The command line in processes that are started once and run many commands, one at a time: most of the time of a short command is to
 * start Node and to load the program. A process ends with a kill, with what nobody caught, when it is told to, so that what it left has no
 * living owner, and with the process of the tests.
 * @module
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { CliResult } from './cli.ts'
import { type ShimPlan, shimEnv, shimLines } from './shim.ts'

/** The command line as it is installed, or (where a test file is run by itself) as it was compiled last. */
export const MAIN = process.env.TEST_MAIN ?? fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url))

/** Of each kind; each holds some 80 MB. */
const MOST_IDLE = 4

const CHILD = fileURLToPath(new URL('warm-cli-child.mjs', import.meta.url))

export interface WarmRun extends CliResult {
  /** The process that ran it. */
  readonly pid: number
  /** Ends the process that ran it; otherwise it takes the next command. */
  retire(): Promise<void>
  /** Lets it take the next command. */
  release(): void
}

export interface WarmCli {
  /** Runs a command; with a plan in a process with the shim. Call `retire` or `release` afterwards. */
  run(home: string, args: readonly string[], env?: Record<string, string>, plan?: ShimPlan): Promise<WarmRun>
  close(): Promise<void>
}

type Said = Omit<CliResult, 'json'>

/** Sends a message and resolves to the answer, or to the end of the process. */
function ask(child: ChildProcess, message: object): Promise<Said> {
  return new Promise((resolve) => {
    const onExit = (code: number | null, signal: NodeJS.Signals | null) =>
      resolve({ code, signal, stdout: '', stderr: '' })
    child.once('exit', onExit)
    child.once('message', (answer) => {
      child.off('exit', onExit)
      resolve({ signal: null, ...(answer as Omit<Said, 'signal'>) })
    })
    // Where it does not arrive, the end of the process is the answer.
    child.send(message, () => {})
  })
}

const isThere = (child: ChildProcess) => child.connected && child.exitCode === null && child.signalCode === null

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

export function createWarmCli(): WarmCli {
  const idle: Record<'shimmed' | 'plain', ChildProcess[]> = { shimmed: [], plain: [] }
  const all = new Set<ChildProcess>()

  async function take(kind: 'shimmed' | 'plain'): Promise<ChildProcess> {
    for (let free = idle[kind].pop(); free !== undefined; free = idle[kind].pop()) {
      // One that has ended meanwhile never answers, and the end of one that is about to would be taken for that of the command.
      if (!isThere(free)) continue
      free.channel?.ref()
      const { code } = await ask(free, {})
      free.removeAllListeners('message')
      if (code === 0 && isThere(free)) return free
    }
    const env = { PATH: process.env.PATH ?? '', ...(kind === 'shimmed' ? shimEnv({ kinds: [], roots: [] }) : {}) }
    const child = fork(CHILD, [MAIN], { env, execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    all.add(child)
    child.once('exit', () => all.delete(child))
    // Nobody has to close it: it ends when this process does.
    child.unref()
    return child
  }

  return {
    async run(home, args, env, plan) {
      const kind = plan === undefined ? 'plain' : 'shimmed'
      const child = await take(kind)
      // Until it has answered this process waits for it, and no longer.
      child.channel?.ref()
      const said = await ask(child, {
        args,
        env: { PATH: process.env.PATH ?? '', SEALSYNC_HOME: home, SEALSYNC_RETRY_FOR: '5s', ...env },
        ...(plan === undefined ? {} : { plan: shimLines(plan) }),
      })
      child.removeAllListeners('message')
      child.channel?.unref()
      const json = said.stdout.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))
      return {
        ...said,
        json,
        pid: child.pid ?? 0,
        retire: () => end(child),
        release() {
          if (said.signal !== null || !isThere(child)) return
          if (idle[kind].length < MOST_IDLE) idle[kind].push(child)
          else void end(child)
        },
      }
    },
    async close() {
      await Promise.all([...all].map(end))
    },
  }
}
