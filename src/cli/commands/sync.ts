/** push, pull, both, plan and apply. @module */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { systemClock } from '../../environment.ts'
import { cancelled, localError, SyncError, toSyncError } from '../../errors.ts'
import { writePrivateFile } from '../../local/atomic-file.ts'
import { takeLock } from '../../local/lock.ts'
import type { Limit } from '../../sync/guards.ts'
import { isChange, type PlanFile, type PlanLine, parsePlan, planLine } from '../../sync/plan-file.ts'
import type { Direction } from '../../sync/reconcile.ts'
import type { SelectionOptions } from '../../sync/select.ts'
import { pairOf, planFileOf, type SyncOptions, type SyncSummary, stateDirectory } from '../../sync/sync-run.ts'
import { connect } from '../connect.ts'
import { accountName, type Context, lockPath, requireSettings, statesPath, text } from '../context.ts'
import { display, plural, showBytes } from '../display.ts'
import { EXIT, exitCodeOf, exitCodeOfRun, signalExit } from '../exit-codes.ts'
import { createProgress } from '../output.ts'
import { camelCase, parseDuration, parseSize } from '../settings.ts'

const VERBS: Readonly<Record<Direction, string>> = { push: 'Pushing', pull: 'Pulling', both: 'Synchronizing' }

/** The number of files, or the share, of `--max-delete` and its like. */
export function parseLimit(value: string | undefined, flag: string): Limit | undefined {
  if (value === undefined) return undefined
  const match = /^(\d+)(%?)$/.exec(value)
  if (match === null || (match[2] === '%' && Number(match[1]) > 100)) {
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a number of files or a share such as 20%`)
  }
  return match[2] === '%' ? { share: Number(match[1]) / 100 } : { files: Number(match[1]) }
}

function measured(
  context: Context,
  flag: string,
  parse: (text: string) => number | undefined,
  example: string,
): number | undefined {
  const value = text(context.options, camelCase(flag))
  if (value === undefined) return undefined
  const number = parse(value)
  if (number !== undefined) return number
  throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a value such as ${example}`)
}

const lines = (path: string): string[] => {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8')
      .split(/\r?\n/)
      .filter((line) => line !== '')
  } catch (error) {
    throw localError(error, `read ${path}`)
  }
}

/** What takes part. */
export function selectionOf(context: Context): SelectionOptions {
  const { options } = context
  const filters = text(options, 'filterFrom')
  const patterns = [...(filters === undefined ? [] : lines(filters)), ...((options.patterns as string[]) ?? [])]
  const list = text(options, 'filesFrom')
  const maxSize = measured(context, 'max-size', parseSize, '100M')
  const minAgeMs = measured(context, 'min-age', parseDuration, '10m')
  return {
    ...(patterns.length === 0 ? {} : { patterns }),
    ...(list === undefined ? {} : { paths: lines(list) }),
    ...(maxSize === undefined ? {} : { maxSize }),
    ...(minAgeMs === undefined ? {} : { minAgeMs }),
  }
}

/** What the command line says about a run. */
export function syncOptions(context: Context, direction: Direction): Omit<SyncOptions, 'state'> {
  const { options, settings, signal } = context
  const onConflict = settings.text('on-conflict')
  const prefer = text(options, 'prefer')
  if (onConflict === 'rename' && direction !== 'both') {
    throw new SyncError('usage', 'OPTION_INVALID', '--on-conflict rename is not for mirrors', {
      hint: 'sync both keeps both versions by itself.',
    })
  }
  const maxDelete = parseLimit(text(options, 'maxDelete'), 'max-delete')
  const maxChange = parseLimit(text(options, 'maxChange'), 'max-change')
  const maxTransfer = measured(context, 'max-transfer', parseSize, '10G')
  const maxDurationMs = measured(context, 'max-duration', parseDuration, '2h')
  const jobs = settings.number('jobs')
  const partSize = settings.number('part-size')
  const memory = settings.number('memory')
  return {
    direction,
    signal,
    selection: selectionOf(context),
    delete: options.delete === true,
    checksum: options.checksum === true,
    oneFileSystem: options.oneFileSystem === true,
    acceptRoots: options.acceptRoots === true,
    requireEncryption: settings.flag('require-encryption'),
    dryRun: options.dryRun === true,
    ...(onConflict === undefined || direction === 'both'
      ? {}
      : { onConflict: onConflict as Exclude<SyncOptions['onConflict'], undefined> }),
    ...(prefer === undefined ? {} : { prefer: prefer as Exclude<SyncOptions['prefer'], undefined> }),
    ...(maxDelete === undefined ? {} : { maxDelete }),
    ...(maxChange === undefined ? {} : { maxChange }),
    ...(maxTransfer === undefined ? {} : { maxTransfer }),
    ...(maxDurationMs === undefined ? {} : { maxDurationMs }),
    ...(jobs === undefined ? {} : { jobs }),
    ...(partSize === undefined ? {} : { partSize }),
    ...(memory === undefined ? {} : { memory }),
  }
}

/** What there is to say about a run when it never got to one. */
const nothing = (local: string, remote: string, error: SyncError): SyncSummary => ({
  runId: '',
  pair: { account: '', local, remote },
  steps: [],
  files: 0,
  transferred: 0,
  bytes: 0,
  moved: 0,
  deleted: 0,
  kept: 0,
  ignored: 0,
  left: 0,
  conflicts: [],
  failed: [],
  stoppedBy: error,
})

export function exitCodeOfSync(summary: SyncSummary, direction: Direction): number {
  const codes = [exitCodeOfRun({ ...summary, skipped: 0 }, direction === 'push' ? 'upload' : 'download')]
  if (codes[0] !== EXIT.done && codes[0] !== EXIT.partial) return codes[0]!
  if (summary.conflicts.length > 0) return EXIT.conflicts
  return summary.left > 0 ? EXIT.partial : codes[0]!
}

/** Runs one pair under its lock and says what became of it. */
export async function runPair(
  context: Context,
  local: string,
  remote: string,
  options: Omit<SyncOptions, 'state'>,
): Promise<{ summary: SyncSummary; exitCode: number }> {
  const { direction } = options
  const begun = performance.now()
  const progress = await createProgress(context.output, VERBS[direction])
  let summary: SyncSummary
  let exitCode: number
  try {
    requireSettings(context)
    const { client, profile } = await connect(context, (event) => progress.onEvent(event))
    try {
      summary = await locked(context, accountName(profile), local, remote, (state) =>
        client.sync(local, remote, { ...options, state }),
      )
    } finally {
      await client.close()
    }
    exitCode = exitCodeOfSync(summary, direction)
  } catch (thrown) {
    const error = toSyncError(context.signal.aborted ? cancelled(context.signal) : thrown)
    summary = nothing(local, remote, error)
    exitCode = error.class === 'cancelled' ? signalExit(error) : exitCodeOf(error)
  } finally {
    progress.stop()
  }
  if (options.dryRun && summary.stoppedBy === undefined) {
    if (exitCode === EXIT.done && context.options.detailedExitcode && summary.steps.some(isChange)) {
      exitCode = EXIT.differences
    }
    printPlan(context, direction, summary, exitCode)
  } else {
    printSync(context, summary, exitCode, performance.now() - begun)
  }
  return { summary, exitCode }
}

/** Holds the lock of a pair while `work` runs. */
export async function locked<T>(
  context: Context,
  account: string,
  local: string,
  remote: string,
  work: (state: SyncOptions['state']) => Promise<T>,
): Promise<T> {
  const state = { directory: statesPath(), account }
  const directory = stateDirectory(state.directory, pairOf(account, local, remote))
  const waitMs = measured(context, 'wait', parseDuration, '10m') ?? 0
  const name = `${directory.slice(directory.lastIndexOf('/') + 1)}.lock`
  const lock = await takeLock(lockPath(name), { clock: systemClock, waitMs, signal: context.signal })
  try {
    return await work(state)
  } finally {
    await lock.release()
  }
}

const command =
  (direction: Direction) =>
  async (context: Context, first: string, second: string): Promise<number> => {
    const [local, remote] = direction === 'pull' ? [second, first] : [first, second]
    return (await runPair(context, resolve(local), remote, syncOptions(context, direction))).exitCode
  }

export const push = command('push')
export const pull = command('pull')
export const both = command('both')

/** Says what a run would do, and keeps it in a file for `apply`. */
export const plan =
  (direction: Direction) =>
  async (context: Context, first: string, second: string): Promise<number> => {
    const [local, remote] = direction === 'pull' ? [second, first] : [first, second]
    const options = { ...syncOptions(context, direction), dryRun: true }
    const { summary, exitCode } = await runPair(context, resolve(local), remote, options)
    const target = text(context.options, 'output')
    if (target === undefined || summary.stoppedBy !== undefined) return exitCode
    const state = { directory: statesPath(), account: summary.pair.account }
    const file = planFileOf(summary.pair, { ...options, state }, summary.steps, systemClock.now())
    await writePrivateFile(resolve(target), `${JSON.stringify(file, undefined, 1)}\n`)
    context.output.info(`The plan is in ${target}. To carry it out: sync apply ${target}`)
    return exitCode
  }

/** Carries out a plan that somebody has looked at, as long as nothing has changed since. */
export async function apply(context: Context, path: string): Promise<number> {
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (error) {
    throw localError(error, `read ${path}`)
  }
  const file: PlanFile = parsePlan(content)
  const options = { ...syncOptions(context, file.direction), ...(file.options as Partial<SyncOptions>) }
  const { exitCode } = await runPair(context, file.local, file.remote, { ...options, planned: file.steps })
  return exitCode
}

const ACTIONS: Readonly<Record<PlanLine['do'], string>> = {
  'move-remote': 'move there',
  'move-local': 'move here',
  'make-folder': 'make folder there',
  'make-directory': 'make directory here',
  upload: 'upload',
  download: 'download',
  adopt: 'remember',
  'keep-both': 'keep both',
  conflict: 'conflict',
  'delete-remote': 'delete there',
  'delete-local': 'delete here',
  keep: 'keep',
  forget: 'forget',
}

function printPlan({ output }: Context, direction: Direction, summary: SyncSummary, exitCode: number): void {
  const { pair, steps, failed } = summary
  const changes = steps.filter(isChange).map(planLine)
  const kept = steps.filter((step) => step.do === 'keep').length
  const bytes = changes.reduce((sum, line) => sum + line.bytes, 0)
  const arrow = { push: '→', pull: '←', both: '↔' }[direction]
  for (const line of changes) {
    const name = line.other === undefined ? line.path : `${line.other} → ${line.path}`
    const size = line.bytes > 0 ? showBytes(line.bytes) : ''
    output.result(`${ACTIONS[line.do].padEnd(19)} ${size.padStart(9)}  ${display(name)}  (${display(line.reason)})`, {
      type: 'step',
      ...line,
    })
  }
  const counts: Record<string, number> = {}
  for (const { do: action } of changes) counts[action] = (counts[action] ?? 0) + 1
  const parts = Object.entries(counts).map(([action, count]) => `${count} ${ACTIONS[action as PlanLine['do']]}`)
  const said = changes.length === 0 ? 'nothing to do' : `${parts.join(', ')}; ${showBytes(bytes)} to transfer`
  if (output.json) {
    output.result('', {
      type: 'summary',
      exitCode,
      direction,
      local: pair.local,
      remote: pair.remote,
      counts,
      bytes,
      kept,
      failed: failures(failed),
    })
  } else {
    output.info(`${pair.local} ${arrow} ${pair.remote}: ${said}${kept > 0 ? `; ${kept} kept (see --delete)` : ''}`)
  }
}

const failures = (failed: SyncSummary['failed']) =>
  failed.map(({ path, error }) => ({ path, code: error.code, message: error.message }))

function printSync({ output }: Context, summary: SyncSummary, exitCode: number, ms: number): void {
  const { stoppedBy, transferred, bytes, moved, deleted, kept, left, conflicts, failed, files, ignored, runId } =
    summary
  if (stoppedBy !== undefined) output.error(stoppedBy, exitCode, { plain: true })
  if (output.json) {
    output.result('', {
      type: 'summary',
      exitCode,
      run: runId,
      files,
      transferred,
      bytes,
      moved,
      deleted,
      kept,
      left,
      ignored,
      conflicts,
      failed: failures(failed),
      ...(stoppedBy === undefined ? {} : { stoppedBy: { code: stoppedBy.code, message: stoppedBy.message } }),
    })
    return
  }
  const extra = [
    [moved, 'moved'],
    [deleted, 'deleted'],
    [kept, 'kept though gone on the other side (see --delete)'],
    [conflicts.length, 'conflicts, both kept'],
    [left, 'left for the next run'],
    [failed.length, 'failed'],
  ] as const
  const told = extra.filter(([count]) => count > 0).map(([count, what]) => `, ${count} ${what}`)
  output.info(
    `${plural(files, 'file')}: ${transferred} transferred (${showBytes(bytes)}) in ${(ms / 1000).toFixed(1)} s${told.join('')}`,
  )
}
