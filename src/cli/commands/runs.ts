/** runs, status, resume, retry, forget and undo: what runs did, and what can still be done about it. @module */
import { type History, openHistory, placesOfPair, type RunFilter, type RunRecord } from '../../client/index.ts'
import { systemClock } from '../../environment.ts'
import { SyncError } from '../../errors.ts'
import { withClient } from '../connect.ts'
import { accountName, type Context, measured, requireProfile, text } from '../context.ts'
import { display, plural } from '../display.ts'
import { EXIT } from '../exit-codes.ts'
import { homeDirectory } from '../profile.ts'
import { parseDuration } from '../settings.ts'
import { runAgain, runOne } from './sync.ts'

/** What runs of this account did. */
async function historyOf(context: Context): Promise<History> {
  const { output } = context
  return openHistory({
    directory: homeDirectory(),
    account: accountName(await requireProfile(context)),
    clock: systemClock,
    onEvent(event) {
      if (event.type === 'warning') output.warn(event.message)
    },
  })
}

/** All pairs, or the one that was named. */
function filterOf({ signal }: Context, local: string | undefined, remote: string | undefined): RunFilter {
  if (local === undefined || remote !== undefined) return { local, remote, signal }
  throw new SyncError('usage', 'OPTION_INVALID', 'Name both, the local and the remote directory')
}

const timeOf = (ms: number) => new Date(ms).toISOString().replace('T', ' ').slice(0, 19)

function describe({ outcome, endedAt, counts = {}, error }: RunRecord): string {
  if (endedAt === undefined) return 'not ended (running, or killed)'
  const parts = Object.entries(counts).flatMap(([name, count]) =>
    count > 0 && name !== 'bytes' ? [`${count} ${name}`] : [],
  )
  return [outcome ?? '', ...(error === undefined ? [] : [`${error.code}: ${error.message}`]), ...parts].join(', ')
}

/** Lists runs, newest first. */
export async function runs(context: Context, local?: string, remote?: string): Promise<void> {
  const limit = Number(text(context.options, 'limit') ?? 20)
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw new SyncError('usage', 'OPTION_INVALID', '--limit takes a number from 1')
  const history = await historyOf(context)
  const found = await history.runs(filterOf(context, local, remote))
  for (const { pair, run } of found.slice(0, limit)) {
    const { local: here, remote: there } = placesOfPair(pair)
    context.output.result(
      `${run.id}  ${timeOf(run.startedAt)}  ${run.command.padEnd(8)} ${display(`${here} ${there}`)}: ${display(describe(run))}`,
      {
        type: 'run',
        local: here,
        remote: there,
        ...run,
      },
    )
  }
  if (found.length === 0) context.output.info('No runs yet.')
}

/** Clocks differ, and are set; no more than that. */
const CLOCK_SKEW_MS = 3_600_000

/** How each pair stands; for monitoring, with `--max-age`, exit code 3 when the last success is too long ago. */
export async function status(context: Context, local?: string, remote?: string): Promise<number> {
  const limit = text(context.options, 'maxAge')
  const maxAge = limit === undefined ? undefined : parseDuration(limit)
  if (limit !== undefined && maxAge === undefined) {
    throw new SyncError('usage', 'OPTION_INVALID', '--max-age takes a time such as 26h')
  }
  const now = systemClock.now()
  let isOverdue = false
  const history = await historyOf(context)
  const pairs = await history.status(filterOf(context, local, remote))
  for (const { pair, files, last, success } of pairs) {
    const { local: here, remote: there } = placesOfPair(pair)
    const ageMs = success?.endedAt === undefined ? undefined : now - success.endedAt
    // A success in the future tells of a wrong clock, not of when it was.
    const late = maxAge !== undefined && (ageMs === undefined || ageMs > maxAge || ageMs < -CLOCK_SKEW_MS)
    isOverdue ||= late
    const age = ageMs === undefined ? 'never a success' : `last success ${ageText(ageMs)} ago`
    // Of transfers runs are remembered, and no files.
    const known = files === 0 ? '' : `${plural(files, 'file')} known; `
    const lastText = last === undefined ? 'no runs' : `last run ${last.id}: ${describe(last)}`
    context.output.result(
      `${display(`${here} ${there}`)}: ${age}${late ? ' (overdue)' : ''}; ${known}${display(lastText)}`,
      {
        type: 'status',
        local: here,
        remote: there,
        files,
        overdue: late,
        ...(success?.endedAt === undefined
          ? {}
          : { lastSuccess: new Date(success.endedAt).toISOString(), ageSeconds: Math.round(ageMs! / 1000) }),
        ...(last === undefined ? {} : { lastRun: last }),
      },
    )
  }
  if (pairs.length === 0) {
    context.output.info('Nothing is synchronized yet.')
    return maxAge === undefined ? EXIT.done : EXIT.partial
  }
  return isOverdue ? EXIT.partial : EXIT.done
}

function ageText(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 1) return 'less than a minute'
  if (minutes < 120) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`
}

/** Runs again what did not come to a good end. */
const again =
  (which: 'resume' | 'retry') =>
  async (context: Context, local?: string, remote?: string): Promise<number> => {
    const history = await historyOf(context)
    const repeats = await history.repeats(which, filterOf(context, local, remote))
    let worst: number = EXIT.done
    for (const one of repeats) {
      const run = runAgain(context, one.command, one.pair, (client, how) => client.repeat(one, how))
      const { exitCode } = await runOne(context, run)
      if (exitCode !== EXIT.done) worst = exitCode
    }
    if (repeats.length === 0) context.output.info('The last runs came to a good end; there is nothing to do.')
    return worst
  }

/** Continues runs that were interrupted. */
export const resume = again('resume')

/** Tries again what failed in the last run, and nothing else. */
export const retry = again('retry')

/** Forgets what is remembered of two places. The server is not asked, so they may be gone. */
export async function forget(context: Context, local: string, remote: string): Promise<void> {
  const { output, signal } = context
  const history = await historyOf(context)
  for (const pair of await history.forget(local, remote, { signal })) {
    const { local: here, remote: there } = placesOfPair(pair)
    output.done(`Forgotten: ${display(`${here} ${there}`)}`, { type: 'forgotten', local: here, remote: there })
  }
}

/** Takes back what a run did. */
export async function undo(context: Context, runId: string): Promise<number> {
  const { output, signal } = context
  const dryRun = context.options.dryRun === true
  const waitMs = measured(context, 'wait', parseDuration, '10m') ?? 0
  const { undone, skipped } = await withClient(context, (client) => client.undo(runId, { dryRun, signal, waitMs }))
  const verb = dryRun ? 'would take back' : 'took back'
  for (const deed of undone)
    output[dryRun ? 'result' : 'done'](
      `${verb}: ${deed.do} ${display(deed.path === '' ? 'the folder itself' : deed.path)}`,
      { type: 'undone', ...deed },
    )
  for (const { deed, error } of skipped) {
    output.warn(`${deed.path}: ${error.message}`)
    if (output.json) output.result('', { type: 'skipped', path: deed.path, code: error.code, message: error.message })
  }
  const exitCode = skipped.length > 0 ? EXIT.partial : EXIT.done
  if (output.json) output.result('', { type: 'summary', exitCode, undone: undone.length, skipped: skipped.length })
  else output.info(`${undone.length} ${dryRun ? 'to take back' : 'taken back'}, ${skipped.length} left alone`)
  return exitCode
}
