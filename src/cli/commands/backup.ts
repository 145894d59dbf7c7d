/** backup run, list, show, restore and prune; drill. @module */
import { join, resolve } from 'node:path'
import type {
  BackupEntry,
  BackupSet,
  BackupSummary,
  ConflictAction,
  DrillReport,
  FileEntry,
  RestoreSummary,
  Runs,
  SetPlace,
  SyncSummary,
} from '../../client/index.ts'
import { SyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { checkSetName, loadSet, remoteTarget } from '../backup-config.ts'
import { withClient } from '../connect.ts'
import { type Context, measured, text } from '../context.ts'
import { display, isoTime, plural, showBytes } from '../display.ts'
import { exitCodeOf, exitCodeOfRun } from '../exit-codes.ts'
import { pendingText } from '../output.ts'
import { homeDirectory } from '../profile.ts'
import { parseDuration } from '../settings.ts'
import { type JobRun, limitsOf, parseLimit, runOne, selectionOf } from './sync.ts'

const wrongOption = (message: string) => new SyncError('usage', 'OPTION_INVALID', message)

const loadOf = (context: Context, name: string) => {
  const config = text(context.options, 'setFile')
  return config === undefined ? loadSet(name) : loadSet(name, resolve(config))
}

/** The set by its configuration, or where there is none, by `--target`. */
async function placeOf(context: Context, name: string): Promise<SetPlace> {
  const target = text(context.options, 'target')
  if (target === undefined) return loadOf(context, name)
  return { name: checkSetName(name), target: remoteTarget(target, () => wrongOption('--target takes a remote path')) }
}

const waitOf = (context: Context) => measured(context, 'wait', parseDuration, '10m')

/** Makes a point in time. */
export async function run(context: Context, name: string): Promise<number> {
  const { exitCode } = await runOne(context, { ...backupRun(context, name), dryRun: context.options.dryRun === true })
  return exitCode
}

/** A run of a set as the command line describes it. */
export function backupRun(context: Context, name: string): JobRun {
  const { options } = context
  let set: BackupSet | undefined
  return {
    command: 'backup',
    // Where a set is, its configuration says; which may be what is wrong.
    local: name,
    remote: '',
    roots: [],
    async prepare() {
      set = await loadOf(context, name)
    },
    options: () => ({
      ...limitsOf(context),
      set,
      acceptSources: options.acceptSources === true,
      acceptRuns: options.acceptRuns === true,
      maxDelete: parseLimit(text(options, 'maxDelete'), 'max-delete'),
    }),
    start: (client, told) => client.backups.run(set as BackupSet, told),
    tell: tellBackup,
  }
}

function tellBackup(summary: SyncSummary, seconds: number): { readonly text: string; readonly fields: object } {
  const { run: id, isComplete, created, changed, unchanged, removed, ...all } = summary as BackupSummary
  const { files, bytes, ignored, left, failed } = all
  const counts = `${created} new, ${changed} changed, ${unchanged} unchanged, ${removed} gone, ${ignored} ignored`
  const what = id === undefined ? 'No new run; sent' : `Run ${id}:`
  const more = `${left === 0 ? '' : `, ${left} left for the next run`}${failed.length === 0 ? '' : `, ${plural(failed.length, 'problem')}`}`
  return {
    text: `${what} ${plural(files, 'file')}: ${counts}; ${showBytes(bytes)} in ${seconds.toFixed(1)} s${more}${pendingText(summary)}`,
    fields: { isStored: id !== undefined, isComplete, created, changed, unchanged, removed, bytes },
  }
}

/** Says what is not right about the runs of a set. */
function tellRuns({ output }: Context, { problems }: Runs): number {
  for (const { path, error } of problems) output.warn(`${display(path, 200)}: ${error.message}`)
  const [worst] = problems
  return worst === undefined ? 0 : exitCodeOf(worst.error)
}

export async function list(context: Context, name: string): Promise<number> {
  const place = await placeOf(context, name)
  const { output, signal } = context
  const runs = await withClient(context, (client) => client.backups.list(place, { signal }))
  const code = tellRuns(context, runs)
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
  const paths = path === undefined ? [] : [path]
  const { runs, entries, failed } = await withClient(context, (client) =>
    client.backups.show(place, { run: wanted, paths, signal }),
  )
  const code = tellRuns(context, runs)
  for (const entry of entries) {
    const size = entry.kind === 'file' ? String(entry.size) : '-'
    const time = isoTime(Number(BigInt(entry.mtimeNs) / 1_000_000n)).replace(/\.\d+Z$/, '')
    const more = entry.kind === 'symlink' ? ` -> ${display(entry.target, 200)}` : ''
    const state = entry.kind === 'file' ? stateText(entry) : ''
    output.result(
      `${showMode(entry)} ${String(entry.uid).padStart(5)} ${String(entry.gid).padStart(5)} ${size.padStart(12)} ${time} ${display(entry.path)}${more}${state}`,
      { type: 'entry', ...entry },
    )
  }
  for (const { path: where, code: why } of failed)
    if (why !== 'INCONSISTENT') output.warn(`not in this run: ${display(where, 200)} (${why})`)
  return code
}

/** Restores a run. */
export async function restore(context: Context, name: string, places: readonly string[]): Promise<number> {
  const dryRun = context.options.dryRun === true
  return (await runOne(context, { ...restoreRun(context, name, places), dryRun })).exitCode
}

/** A restore as the command line describes it: a run, if it is not the latest, then the directory. */
export function restoreRun(context: Context, name: string, places: readonly string[]): JobRun {
  const target = resolve(places.at(-1)!)
  let place: SetPlace | undefined
  return {
    command: 'restore',
    local: target,
    remote: name,
    roots: [target],
    async prepare() {
      if (places.length > 2) throw wrongOption('One run and one directory are enough: restore NAME [RUN] DIRECTORY')
      place = await placeOf(context, name)
    },
    options: () => ({
      ...limitsOf(context),
      // Paths are those of the machine that was backed up.
      selection: selectionOf(context, '/'),
      run: places.length === 2 ? places[0]! : 'latest',
      paths: (context.options.path as string[] | undefined) ?? [],
      trustTimes: context.options.trustTimes === true,
      onConflict: context.settings.text('on-conflict') as ConflictAction | undefined,
    }),
    start: (client, told) => client.backups.restore(place as SetPlace, target, told),
    tell: tellRestore,
  }
}

function tellRestore(summary: SyncSummary, seconds: number): { readonly text: string; readonly fields: object } {
  const { run: id, isPinned, bytes, transferred, skipped, left, failed } = summary as RestoreSummary
  const more = left === 0 ? '' : `, ${left} left for the next run`
  return {
    text: `Restored ${plural(transferred, 'file')} (${showBytes(bytes)}) of run ${id} in ${seconds.toFixed(1)} s; ${skipped} were there, ${failed.length} failed${more}`,
    fields: { point: id, isPinned },
  }
}

export async function prune(context: Context, name: string): Promise<number> {
  const set = await loadOf(context, name)
  const { options, output, signal } = context
  const maxDelete = parseLimit(text(options, 'maxDelete'), 'max-delete')
  const dryRun = options.dryRun === true
  const done = await withClient(context, (client) =>
    client.backups.prune(set, {
      signal,
      dryRun,
      acceptRuns: options.acceptRuns === true,
      acceptFuture: options.acceptFuture === true,
      waitMs: waitOf(context),
      maxDelete,
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
  const jobs = context.settings.number('jobs')
  const { report, summary } = await withClient(context, (client) =>
    client.backups.drill(place, { signal, jobs, sample }),
  )
  const stamp = report.at.replace(/[-:]|\.\d+/g, '')
  const path = resolve(text(options, 'report') ?? join(homeDirectory(), 'drills', `${name}-${stamp}.json`))
  await writePrivateFile(path, `${JSON.stringify(report, undefined, 1)}\n`)
  const exitCode = exitCodeOfRun(summary, 'download')
  // What is all right nobody has to read; it is in the report, too.
  const say = report.isRight ? output.done : output.result
  say(showReport(report), { type: 'summary', exitCode, ...report, report: path })
  output.info(`The report is in ${path}`)
  return exitCode
}
