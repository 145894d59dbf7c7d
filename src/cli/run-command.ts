/** Runs one command: signals, settings, messages and exit codes are the same for all. @module */
import type { Command } from 'commander'
import { systemClock } from '../environment.ts'
import { cancelled, SyncError, toSyncError } from '../errors.ts'
import { tidyOwnDirectory } from '../local/tidy.ts'
import { VERSION } from '../version.ts'
import { type Context, createContext, outputOf, requireSettings } from './context.ts'
import { hideTyping, showTyping } from './echo.ts'
import { exitCodeOf, signalExit } from './exit-codes.ts'
import { type Log, logged } from './log-file.ts'
import type { CommandSpec } from './nouns/command.ts'
import { longFlag } from './options/option.ts'
import { homeDirectory } from './profile.ts'
import { hasFromEnvironment, isInteractive } from './secrets.ts'

/** True when somebody at a terminal may be asked for a password, because nothing else says it. */
function mayAskForPassword({ options, settings }: Context, spec: CommandSpec): boolean {
  if (!isInteractive()) return false
  const takes = (flag: string) => spec.options?.some((option) => longFlag(option) === flag) === true
  if (takes('--password-file')) return options.passwordFile === undefined && options.user !== undefined
  const isSaid =
    settings.text('key-password-file') !== undefined ||
    settings.text('key-password-command') !== undefined ||
    hasFromEnvironment('SEALSYNC_KEY_PASSWORD')
  return takes('--key-password-file') && !isSaid
}

/** The first signal aborts and lets everything end cleanly; the second ends at once. */
function watchSignals(isServer: boolean): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    if (isServer && name === 'SIGHUP' && process.stdin.isTTY !== true) continue
    process.on(name, () => {
      const error = new SyncError('cancelled', name, `Stopped by ${name}`)
      if (stop.signal.aborted) process.exit(signalExit(error))
      stop.abort(error)
      // Cancelling at the server is best effort and has its own limit; nothing may hold the exit for longer.
      if (!isServer) setTimeout(() => process.exit(signalExit(error)), 4_800).unref()
    })
  }
  return stop.signal
}

/** As it is called: `backup run`. */
function nameOf(command: Command): string {
  const names: string[] = []
  for (let at: Command | null = command; at?.parent; at = at.parent) names.unshift(at.name())
  return names.join(' ')
}

/**
 * Whatever the command throws becomes a message and an exit code.
 *
 * @param command - Its options, as commander has read them.
 * @param args - Its arguments.
 * @returns the exit code.
 */
export async function runCommand(spec: CommandSpec, command: Command, args: readonly unknown[]): Promise<number> {
  const signal = watchSignals(spec.isServer === true)
  const output = outputOf(command.optsWithGlobals())
  const begun = systemClock.monotonic()
  let log: Log | undefined
  const ended = (exitCode: number): number => {
    log?.write('info', 'ended', { exitCode, ms: Math.round(systemClock.monotonic() - begun) })
    log?.close()
    return exitCode
  }
  try {
    await tidyOwnDirectory(homeDirectory(), systemClock)
    const context = await createContext(command, signal)
    log = context.log
    log.write('info', 'command', { command: nameOf(command), version: VERSION })
    if (!spec.withProblems) requireSettings(context)
    if (mayAskForPassword(context, spec)) hideTyping()
    const action = (await spec.action!()) as (context: Context, ...rest: unknown[]) => Promise<number | undefined>
    return ended((await action(context, ...args)) ?? 0)
  } catch (thrown) {
    const error = toSyncError(signal.aborted ? cancelled(signal) : thrown)
    const exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
    const said = log === undefined ? output : logged(output, log)
    said.error(error, exitCode)
    return ended(exitCode)
  } finally {
    showTyping()
  }
}
