/** Runs the command that the command line names: signals, settings, messages and exit codes are the same for all. @module */
import { CommanderError } from 'commander'
import { systemClock } from '../environment.ts'
import { cancelled, SyncError, toSyncError } from '../errors.ts'
import { tidyOwnDirectory } from '../local/tidy.ts'
import { createProgram, type Run } from './commander.ts'
import { type Context, createContext, outputOf, requireSettings } from './context.ts'
import { EXIT, exitCodeOf, signalExit } from './exit-codes.ts'
import { createOutput } from './output.ts'
import { homeDirectory } from './profile.ts'

/** The first signal aborts and lets everything end cleanly; the second ends at once. */
function watchSignals(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      const error = new SyncError('cancelled', name, `Stopped by ${name}`)
      if (stop.signal.aborted) process.exit(signalExit(error))
      stop.abort(error)
      // Cancelling at the server is best effort and has its own limit; nothing may hold the exit for longer.
      setTimeout(() => process.exit(signalExit(error)), 4_800).unref()
    })
  }
  return stop.signal
}

/** @param argv - As `process.argv`. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  const signal = watchSignals()
  let exitCode = 0
  /** Whatever a command throws becomes a message and an exit code. */
  const run: Run = async (spec, command, args) => {
    const output = outputOf(command.optsWithGlobals())
    try {
      await tidyOwnDirectory(homeDirectory(), systemClock)
      const context = await createContext(command, signal)
      if (!spec.withProblems) requireSettings(context)
      const action = (await spec.action!()) as (context: Context, ...rest: unknown[]) => Promise<number | undefined>
      exitCode = (await action(context, ...args)) ?? 0
    } catch (thrown) {
      const error = toSyncError(signal.aborted ? cancelled(signal) : thrown)
      exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
      output.error(error, exitCode)
    }
  }

  try {
    await createProgram(argv.slice(2), run).parseAsync(argv as string[])
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return 0
    if (argv.includes('--json')) {
      const output = createOutput({ json: true, quiet: true, verbose: false })
      output.result('', { type: 'error', exitCode: EXIT.usage, class: 'usage', code: 'USAGE', message: error.message })
    }
    return EXIT.usage
  }
  return exitCode
}
