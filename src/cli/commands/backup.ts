/** backup run, list, show, restore and prune; drill. @module */
import { join, resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { type DrillReport, drillBackup } from '../../sync/backup/drill.ts'
import type { BackupEntry, FileEntry } from '../../sync/backup/manifest.ts'
import { futureText, pruneBackup, runsFromFuture } from '../../sync/backup/prune.ts'
import {
  entriesBelow,
  listRuns,
  openRun,
  type RestoreOptions,
  type RestoreSummary,
  restoreBackup,
} from '../../sync/backup/restore.ts'
import { type BackupSummary, runBackup, unpinnedText } from '../../sync/backup/run.ts'
import type { Runs } from '../../sync/backup/runs.ts'
import type { SetPlace } from '../../sync/backup/set.ts'
import type { StatePlace } from '../../sync/backup/state.ts'
import type { RunSummary } from '../../sync/outcome.ts'
import type { RunContext, RunEvent } from '../../sync/run.ts'
import { type RunEnd, reported } from '../automation.ts'
import { checkSetName, loadSet, remoteTarget } from '../backup-config.ts'
import { connect } from '../connect.ts'
import { accountName, type Context, namesOf, requireSettings, text } from '../context.ts'
import { display, isoTime, plural, showBytes } from '../display.ts'
import { exitCodeOf, exitCodeOfRun, signalExit } from '../exit-codes.ts'
import { createProgress, hintsOf, summaryFields } from '../output.ts'
import { homeDirectory } from '../profile.ts'
import { parseDuration } from '../settings.ts'
import { parseLimit } from './sync.ts'

const wrongOption = (message: string) => new SyncError('usage', 'OPTION_INVALID', message)

const loadOf = (context: Context, name: string) => {
  const config = text(context.options, 'config')
  return config === undefined ? loadSet(name) : loadSet(name, resolve(config))
}

/** The set by its configuration, or where there is none, by `--target`. */
async function placeOf(context: Context, name: string): Promise<SetPlace> {
  const target = text(context.options, 'target')
  if (target === undefined) return loadOf(context, name)
  return { name: checkSetName(name), target: remoteTarget(target, () => wrongOption('--target takes a remote path')) }
}

interface Tools {
  readonly run: RunContext
  readonly state: StatePlace
}

/** Runs `work` with what it needs, and closes it, whatever happens. */
async function withTools<T>(
  context: Context,
  onEvent: RunContext['onEvent'],
  work: (tools: Tools) => Promise<T>,
): Promise<T> {
  const { client, profile } = await connect(context, onEvent)
  try {
    const directory = join(homeDirectory(), 'backup')
    return await work({ run: client.context, state: { directory, account: accountName(profile) } })
  } finally {
    await client.close()
  }
}

/** As `withTools`, for commands that end in a summary, whatever happens. */
async function summarized<T extends RunSummary>(
  context: Context,
  verb: string,
  direction: 'upload' | 'download',
  work: (tools: Tools) => Promise<T>,
  show: (summary: T, seconds: number) => { readonly text: string; readonly object: object },
  onEvent: (event: RunEvent) => void = () => {},
): Promise<RunEnd> {
  const { output } = context
  const begun = performance.now()
  const progress = await createProgress(output, verb)
  let summary: T
  try {
    const tell = (event: RunEvent) => {
      onEvent(event)
      progress.onEvent(event)
    }
    summary = await withTools(context, tell, work)
  } catch (thrown) {
    progress.stop()
    const error = toSyncError(context.signal.aborted ? cancelled(context.signal) : thrown)
    const exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
    output.error(error, exitCode)
    return { exitCode, summary: { stoppedBy: { code: error.code, message: error.message } } }
  }
  progress.stop()
  const exitCode = exitCodeOfRun(summary, direction)
  const { stoppedBy, pending } = summary
  if (stoppedBy !== undefined) output.warn(`stopped: ${stoppedBy.message}`)
  for (const hint of new Set([stoppedBy?.hint, ...hintsOf(summary)])) {
    if (hint !== undefined) output.info(`  ${hint}`)
  }
  const { text: line, object } = show(summary, (performance.now() - begun) / 1000)
  const fields = summaryFields({
    ...object,
    failed: summary.failed,
    ...(pending && { pending }),
    ...(stoppedBy === undefined ? {} : { stoppedBy }),
  })
  if (output.json) output.result('', { type: 'summary', exitCode, ...fields })
  else output.info(line)
  return { exitCode, summary: fields }
}

const waitOf = ({ options }: Context): { waitMs?: number } => {
  const value = text(options, 'wait')
  const waitMs = value === undefined ? undefined : parseDuration(value)
  if (value !== undefined && waitMs === undefined) throw wrongOption('--wait takes a time such as 10m')
  return waitMs === undefined ? {} : { waitMs }
}

const jobsOf = ({ settings }: Context): { jobs?: number } => {
  const jobs = settings.number('jobs')
  return jobs === undefined ? {} : { jobs }
}

/** Makes a point in time, and tells who watches over it. */
export async function run(context: Context, name: string): Promise<number> {
  const work = (onEvent: (event: RunEvent) => void) => runSet(context, name, onEvent)
  // A look is no run that anybody waits for.
  if (context.options.dryRun === true) return (await work(() => {})).exitCode
  // Where a set is, its configuration says; which may be what is wrong.
  return (await reported(context, { command: 'backup', local: name, remote: '' }, work)).exitCode
}

async function runSet(context: Context, name: string, onEvent: (event: RunEvent) => void): Promise<RunEnd> {
  requireSettings(context)
  const set = await loadOf(context, name)
  const { options, settings, signal } = context
  const maxDelete = parseLimit(text(options, 'maxDelete'), 'max-delete')
  const [partSize, memory] = [settings.number('part-size'), settings.number('memory')]
  const dryRun = options.dryRun === true
  const work = ({ run: runContext, state }: Tools): Promise<BackupSummary> =>
    runBackup(runContext, set, {
      state,
      signal,
      dryRun,
      names: namesOf(context),
      acceptSources: options.acceptSources === true,
      acceptRuns: options.acceptRuns === true,
      ...waitOf(context),
      ...jobsOf(context),
      ...(maxDelete === undefined ? {} : { maxDelete }),
      ...(partSize === undefined ? {} : { partSize }),
      ...(memory === undefined ? {} : { memory }),
    })
  const show = (summary: BackupSummary, seconds: number) => {
    const { run: id, isComplete, files, bytes, transferred, created, changed, unchanged, removed, ignored } = summary
    const counts = `${created} new, ${changed} changed, ${unchanged} unchanged, ${removed} gone, ${ignored} ignored`
    const what = dryRun ? 'Would back up' : id === undefined ? 'No new run; sent' : `Run ${id}:`
    const state = dryRun || summary.failed.length === 0 ? '' : `, ${plural(summary.failed.length, 'problem')}`
    return {
      text: `${what} ${plural(files, 'file')}: ${counts}; ${showBytes(bytes)} in ${seconds.toFixed(1)} s${state}`,
      object: { run: id, isComplete, dryRun, files, bytes, transferred, created, changed, unchanged, removed, ignored },
    }
  }
  return summarized(context, 'Backing up', 'upload', work, show, onEvent)
}

/** Says what is not right or not known about the runs of a set. */
function tellRuns({ output }: Context, { problems, isPinned, notes, missing }: Runs): number {
  if (!isPinned && notes.length > 0) output.warn(unpinnedText(notes, missing))
  for (const { path, error } of problems) output.warn(`${display(path, 200)}: ${error.message}`)
  const [worst] = problems
  return worst === undefined ? 0 : exitCodeOf(worst.error)
}

export async function list(context: Context, name: string): Promise<number> {
  const place = await placeOf(context, name)
  const { output, signal } = context
  const runs = await withTools(context, undefined, (tools) => listRuns(tools.run, place, tools.state, signal))
  const code = tellRuns(context, runs)
  const now = systemClock.now()
  const future = runsFromFuture(runs.notes, now)
  if (future.length > 0) output.warn(futureText(future, now))
  for (const { run: id, startedAt, files, bytes, addedBytes, isComplete } of runs.notes) {
    const added = `+${showBytes(addedBytes)}`
    output.result(
      `${id}  ${String(files).padStart(9)} files  ${showBytes(bytes).padStart(9)}  ${added.padStart(10)}  ${isComplete ? 'complete' : 'partial'}`,
      { type: 'run', run: id, startedAt, files, bytes, addedBytes, isComplete },
    )
  }
  return code
}

const KINDS = Object.freeze({ file: '-', directory: 'd', symlink: 'l' })

function showMode({ kind, mode }: BackupEntry): string {
  const bits = [...'rwxrwxrwx'].map((letter, at) => (mode & (0o400 >> at) ? letter : '-')).join('')
  return `${KINDS[kind]}${bits}`
}

/** What is to be known of a file that is not just as it was when the run began. */
function stateText({ isOlder, isInconsistent }: FileEntry): string {
  if (isOlder === true) return '  (older version: it could not be read)'
  return isInconsistent === true ? '  (inconsistent: it was being written; its beginning, as it was at one moment)' : ''
}

export async function show(context: Context, name: string, wanted: string, path?: string): Promise<number> {
  const place = await placeOf(context, name)
  const { output, signal } = context
  const { runs, manifest } = await withTools(context, undefined, (tools) =>
    openRun(tools.run, place, wanted, tools.state, signal),
  )
  const code = tellRuns(context, runs)
  for (const entry of entriesBelow(manifest.entries, path === undefined ? [] : [path])) {
    const size = entry.kind === 'file' ? String(entry.size) : '-'
    const time = isoTime(Number(BigInt(entry.mtimeNs) / 1_000_000n)).replace(/\.\d+Z$/, '')
    const more = entry.kind === 'symlink' ? ` -> ${display(entry.target, 200)}` : ''
    const state = entry.kind === 'file' ? stateText(entry) : ''
    output.result(
      `${showMode(entry)} ${String(entry.uid).padStart(5)} ${String(entry.gid).padStart(5)} ${size.padStart(12)} ${time} ${display(entry.path)}${more}${state}`,
      { type: 'entry', ...entry },
    )
  }
  for (const { path: where, code: why } of manifest.failed)
    if (why !== 'INCONSISTENT') output.warn(`not in this run: ${display(where, 200)} (${why})`)
  return code
}

/** Restores a run, and tells who watches over it. */
export async function restore(context: Context, name: string, places: readonly string[]): Promise<number> {
  const run = { command: 'restore', local: resolve(places.at(-1)!), remote: name }
  return (await reported(context, run, (onEvent) => restoreSet(context, name, places, onEvent))).exitCode
}

async function restoreSet(
  context: Context,
  name: string,
  places: readonly string[],
  onEvent: (event: RunEvent) => void,
): Promise<RunEnd> {
  requireSettings(context)
  if (places.length > 2) throw wrongOption('One run and one directory are enough: restore NAME [RUN] DIRECTORY')
  const target = resolve(places.at(-1)!)
  const place = await placeOf(context, name)
  const { options, settings, signal } = context
  const onConflict = settings.text('on-conflict')
  if (onConflict !== undefined && !['fail', 'skip', 'overwrite'].includes(onConflict)) {
    throw wrongOption('Here --on-conflict takes fail, skip or overwrite')
  }
  const work = ({ run: runContext, state }: Tools) =>
    restoreBackup(runContext, place, target, {
      state,
      signal,
      run: places.length === 2 ? places[0]! : 'latest',
      paths: (options.path as string[] | undefined) ?? [],
      trustTimes: options.trustTimes === true,
      ...waitOf(context),
      ...jobsOf(context),
      ...(onConflict === undefined ? {} : { onConflict: onConflict as NonNullable<RestoreOptions['onConflict']> }),
    })
  const show = (summary: RestoreSummary, seconds: number) => {
    const { run: id, isPinned, files, bytes, transferred, skipped } = summary
    if (!isPinned) {
      context.output.warn(
        'This machine knows nothing of the set, so an older state at the server could not be noticed; is this the newest run?',
      )
    }
    return {
      text: `Restored ${plural(transferred, 'file')} (${showBytes(bytes)}) of run ${id} in ${seconds.toFixed(1)} s; ${skipped} were there, ${summary.failed.length} failed`,
      object: { run: id, isPinned, files, bytes, transferred, skipped },
    }
  }
  return summarized(context, 'Restoring', 'download', work, show, onEvent)
}

export async function prune(context: Context, name: string): Promise<number> {
  const set = await loadOf(context, name)
  const { options, output, signal } = context
  const maxDelete = parseLimit(text(options, 'maxDelete'), 'max-delete')
  const dryRun = options.dryRun === true
  const done = await withTools(context, undefined, (tools) =>
    pruneBackup(tools.run, set, {
      state: tools.state,
      signal,
      dryRun,
      acceptFuture: options.acceptFuture === true,
      ...waitOf(context),
      ...(maxDelete === undefined ? {} : { maxDelete }),
    }),
  )
  const { kept, removed, files, bytes } = done
  if (!output.json)
    for (const id of removed) output[dryRun ? 'result' : 'done'](`${dryRun ? 'would remove' : 'removed'} ${id}`, {})
  const verb = dryRun ? 'Would remove' : 'Removed'
  const line = `${verb} ${plural(removed.length, 'run')} of ${kept.length + removed.length} and ${plural(files, 'file')} (${showBytes(bytes)}) of the history`
  if (output.json) output.result('', { type: 'summary', exitCode: 0, dryRun, kept, removed, files, bytes })
  else output.info(line)
  return 0
}

function showReport({ set, at, run: id, files, sampled, bytes, isRight, isPinned, failed }: DrillReport): string {
  const head = `Drill of ${set}, ${at}: ${sampled} of ${plural(files, 'file')} (${showBytes(bytes)}) of run ${id} restored and compared`
  const lines = failed.map(({ path, code, message }) => `  ${display(path || '-', 200)}: ${display(message)} (${code})`)
  const pin = isPinned ? [] : ['  This machine knew nothing of the set, so an older state could not be noticed.']
  return [`${head}: ${isRight ? 'all right' : 'NOT RIGHT'}`, ...lines, ...pin].join('\n')
}

export async function drill(context: Context, name: string): Promise<number> {
  const place = await placeOf(context, name)
  const { options, output, signal } = context
  const sample = parseLimit(text(options, 'sample'), 'sample')
  const { report, summary } = await withTools(context, undefined, (tools) =>
    drillBackup(tools.run, place, {
      state: tools.state,
      signal,
      ...jobsOf(context),
      ...(sample === undefined ? {} : { sample }),
    }),
  )
  const stamp = report.at.replace(/[-:]|\.\d+/g, '')
  const path = resolve(text(options, 'report') ?? join(homeDirectory(), 'drills', `${name}-${stamp}.json`))
  await writePrivateFile(path, `${JSON.stringify(report, undefined, 1)}\n`)
  const exitCode = exitCodeOfRun(summary, 'download')
  output.result(showReport(report), { type: 'summary', exitCode, ...report, report: path })
  output.info(`The report is in ${path}`)
  return exitCode
}
