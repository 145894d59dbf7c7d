/** push, pull and both: one run, or with `--watch` a run, and then another whenever there is reason for one. @module */
import type { Direction, RunEvent, SyncSummary, WatchedRun } from '../../client/index.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { connect } from '../connect.ts'
import { type Context, measured, requireSettings, text } from '../context.ts'
import { signalExit } from '../exit-codes.ts'
import { waitingLine } from '../output.ts'
import { camelCase, parseDuration } from '../settings.ts'
import { type JobEnd, type JobRun, type Link, runOf, runOne } from './sync.ts'

const MIN_TIME_MS = 1_000

/** Tells what happens between two runs. */
const between =
  ({ output }: Context) =>
  (event: RunEvent): void => {
    if (event.type === 'run-again') output.info(`The next try is in ${Math.round(event.delayMs / 1_000)} s.`)
    if (event.type === 'waiting') output.info(waitingLine(event))
    if (event.type !== 'warning') return
    const { code, message } = event
    const isRefused = code === 'WATCH_REFUSED'
    output.warn(isRefused ? `${message}; see --rescan` : message)
    if (isRefused && output.json) output.result('', { type: 'warning', code, message })
  }

/** One client for all runs. */
function createKeptLink(context: Context): Link & { close(): Promise<void> } {
  let opened: Awaited<ReturnType<typeof connect>> | undefined
  let listener = between(context)
  return {
    async open(onEvent) {
      listener = onEvent
      opened ??= await connect(context, (event) => listener(event))
      return opened
    },
    release: async () => {
      listener = between(context)
    },
    close: async () => opened?.client.close(),
  }
}

function timeOption(context: Context, flag: string): number | undefined {
  const ms = measured(context, flag, parseDuration, '5m')
  if (ms === undefined || ms >= MIN_TIME_MS) return ms
  throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a time from 1s`)
}

function requireRepeatable({ options }: Context, run: JobRun): void {
  if (run.dryRun) throw new SyncError('usage', 'OPTION_INVALID', '--watch and --dry-run do not go together')
  for (const flag of ['files-from', 'files-from0', 'filter-from']) {
    if (text(options, camelCase(flag)) !== '-') continue
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} - can be read once only; with --watch, name a file`)
  }
}

/**
 * Runs a pair again and again, until a signal or a failure that another run cannot cure.
 *
 * @returns the exit code.
 */
async function watch(context: Context, direction: Direction, run: JobRun): Promise<number> {
  const { signal } = context
  requireRepeatable(context, run)
  const times = { pollMs: timeOption(context, 'poll'), rescanMs: timeOption(context, 'rescan') }
  const link = createKeptLink(context)
  let last: JobEnd | undefined
  const onRun = async (start: WatchedRun): Promise<SyncSummary> => {
    last = await runOne(context, { ...run, start: (_, options) => start(options) }, link)
    return last.outcome
  }
  try {
    requireSettings(context)
    const { client } = await link.open(between(context))
    await client.watch(run.local, run.remote, { direction, signal, ...times, onRun })
    return signalExit(toSyncError(cancelled(signal)))
  } catch (error) {
    // What stopped the last run has been told.
    if (last?.outcome.stoppedBy === error) return last!.exitCode
    if (last !== undefined) throw error
    const fail = () => Promise.reject(error)
    return (await runOne(context, { ...run, start: fail })).exitCode
  } finally {
    await link.close()
  }
}

const command =
  (direction: Direction) =>
  async (context: Context, first: string, second: string): Promise<number> => {
    const run = runOf(context, direction, [first, second])
    if (context.options.watch === true) return watch(context, direction, run)
    return (await runOne(context, run)).exitCode
  }

export const push = command('push')
export const pull = command('pull')
export const both = command('both')
