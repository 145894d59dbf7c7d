/** upload and download. @module */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { cancelled, toSyncError } from '../../errors.ts'
import { takeLock } from '../../local/lock.ts'
import type { RunSummary } from '../../sync/outcome.ts'
import type { ConflictAction } from '../../sync/conflicts.ts'
import type { DownloadOptions, RunEvent, UploadOptions } from '../../sync/run.ts'
import { type RunEnd, reported } from '../automation.ts'
import { connect } from '../connect.ts'
import { accountName, type Context, journalPath, lockPath, namesOf, requireSettings, statesPath } from '../context.ts'
import { exitCodeOfRun } from '../exit-codes.ts'
import { createProgress, printSummary, summaryFields } from '../output.ts'
import { printPlan } from '../plan-table.ts'
import { parseDuration } from '../settings.ts'
import { measured } from './sync.ts'

export type TransferOptions = Omit<UploadOptions, 'journal'> & DownloadOptions

export interface TransferRun {
  readonly direction: 'upload' | 'download'
  /** Local paths are absolute. */
  readonly sources: readonly string[]
  readonly target: string
  readonly dryRun: boolean
  /** Read when the run begins, so that what is wrong with them is told like everything else. */
  readonly options: () => TransferOptions
}

export interface TransferEnd extends RunEnd {
  readonly outcome: RunSummary
}

/** One transfer as the command line describes it. */
export function transferOf(context: Context, direction: 'upload' | 'download', paths: readonly string[]): TransferRun {
  const [sources, target] = [paths.slice(0, -1), paths.at(-1)!]
  const places =
    direction === 'upload'
      ? { sources: sources.map((path) => resolve(path)), target }
      : { sources, target: resolve(target) }
  const options = () => transferOptions(context, direction)
  return { direction, ...places, dryRun: context.options.dryRun === true, options }
}

function transferOptions(context: Context, direction: 'upload' | 'download'): TransferOptions {
  const { signal, options, settings } = context
  const jobs = settings.number('jobs')
  const memory = settings.number('memory')
  const onConflict = settings.text('on-conflict') as ConflictAction | undefined
  const partSize = direction === 'upload' ? settings.number('part-size') : undefined
  return {
    signal,
    contents: options.contents === true,
    checksum: options.checksum === true,
    names: namesOf(context),
    requireEncryption: settings.flag('require-encryption'),
    ...(direction === 'upload' ? { allowPlain: settings.flag('allow-plain') } : {}),
    ...(jobs === undefined ? {} : { jobs }),
    ...(memory === undefined ? {} : { memory }),
    ...(onConflict === undefined ? {} : { onConflict }),
    ...(partSize === undefined ? {} : { partSize }),
  }
}

const placesOf = ({ direction, sources, target }: TransferRun) => {
  const named = sources.join(' ')
  return direction === 'upload' ? { local: named, remote: target } : { local: target, remote: named }
}

const NOTHING: RunSummary = Object.freeze({ files: 0, bytes: 0, transferred: 0, skipped: 0, ignored: 0, failed: [] })

/** Runs one transfer, says what became of it, and tells who watches over it. */
export async function runTransfer(context: Context, run: TransferRun): Promise<TransferEnd> {
  // A look is no run that anybody waits for.
  if (run.dryRun) return carryOut(context, run, () => {})
  const places = { command: run.direction, ...placesOf(run) }
  return reported(context, places, (onEvent) => carryOut(context, run, onEvent))
}

async function carryOut(context: Context, run: TransferRun, onEvent: (event: RunEvent) => void): Promise<TransferEnd> {
  const { direction, sources, target, dryRun } = run
  const [verb, doing] = direction === 'upload' ? ['Uploaded', 'Uploading'] : ['Downloaded', 'Downloading']
  const begun = performance.now()
  const progress = await createProgress(context.output, doing)
  let outcome: RunSummary | undefined
  let exitCode: number
  try {
    requireSettings(context)
    const options = { ...run.options(), dryRun }
    const { client, profile } = await connect(context, (event) => {
      onEvent(event)
      progress.onEvent(event)
    })
    try {
      const account = accountName(profile)
      const state = { directory: statesPath(), account }
      const work = (how: UploadOptions) => client[direction](sources, target, { ...options, state, ...how })
      outcome = dryRun ? await work({}) : await locked(context, account, run, work)
    } finally {
      await client.close()
    }
    exitCode = exitCodeOfRun(outcome, direction)
  } catch (thrown) {
    const error = toSyncError(context.signal.aborted ? cancelled(context.signal) : thrown)
    // What was done is told, also when something went wrong on the way out.
    outcome = { ...(outcome ?? NOTHING), stoppedBy: outcome?.stoppedBy ?? error }
    exitCode = exitCodeOfRun(outcome, direction)
  } finally {
    progress.stop()
  }
  if (dryRun && outcome.stoppedBy === undefined) {
    const { steps = [], failed } = outcome
    exitCode = printPlan(context, { direction, ...placesOf(run), steps, kept: 0, failed }, exitCode)
  } else {
    printSummary(context.output, verb!, outcome, exitCode, performance.now() - begun)
  }
  return { outcome, exitCode, summary: summaryFields(outcome) }
}

/** Holds the lock of an account, direction and places while `work` runs. */
async function locked(
  context: Context,
  account: string,
  { direction, sources, target }: TransferRun,
  work: (how: UploadOptions) => Promise<RunSummary>,
): Promise<RunSummary> {
  const id = createHash('sha256')
    .update([account, direction, ...sources, target].join('\0'))
    .digest('hex')
    .slice(0, 32)
  const waitMs = measured(context, 'wait', parseDuration, '10m') ?? 0
  const lock = await takeLock(lockPath(`${id}.lock`), { clock: systemClock, waitMs, signal: context.signal })
  try {
    return await work(direction === 'upload' ? { journal: journalPath(`${id}.journal`) } : {})
  } finally {
    await lock.release()
  }
}

const transfer =
  (direction: 'upload' | 'download') =>
  async (context: Context, paths: readonly string[]): Promise<number> =>
    (await runTransfer(context, transferOf(context, direction, paths))).exitCode

export const upload = transfer('upload')
export const download = transfer('download')
