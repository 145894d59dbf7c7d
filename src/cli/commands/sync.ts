/** Runs over a pair of directories. Push, pull and both begin in watch.ts. @module */
import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Client } from '../../client.ts'
import { systemClock } from '../../environment.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { takeLock } from '../../local/lock.ts'
import { pathsOf, readList, rulesOf } from '../../local/text-list.ts'
import type { Limit } from '../../sync/guards.ts'
import { createHeldRules } from '../../sync/held-rules.ts'
import { isChange, planLine } from '../../sync/plan-file.ts'
import type { Direction } from '../../sync/reconcile.ts'
import type { RunEvent } from '../../sync/run.ts'
import type { SelectionOptions } from '../../sync/select.ts'
import { stateDirectory } from '../../sync/state.ts'
import { pairOf, type SyncOptions, type SyncSummary } from '../../sync/sync-run.ts'
import { reported } from '../automation.ts'
import { connect } from '../connect.ts'
import {
  accountName,
  type Context,
  lockPath,
  namesOf,
  requireSettings,
  rulesPath,
  statesPath,
  text,
} from '../context.ts'
import { plural, showBytes } from '../display.ts'
import { EXIT, exitCodeOfRun } from '../exit-codes.ts'
import { createProgress, hintsOf, pendingText, summaryFields } from '../output.ts'
import { printPlan } from '../plan-table.ts'
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

/** The number that a flag gives. */
export function measured(
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

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path // that it is not there is told by who reads it
  }
}

/** Paths as they are from the local root; what is not below it stays as it was given, and is told. */
function relativePaths(paths: readonly string[], local: string): string[] {
  const roots = [local, realPath(local)].map((root) => (root.endsWith('/') ? root : `${root}/`))
  return paths.map((path) => {
    const root = roots.find((one) => `${path}/`.startsWith(one))
    return root === undefined ? path : path.slice(root.length)
  })
}

/** What `--files-from` and `--files-from0` name together; `undefined` without them. */
function listedPaths({ options, output }: Context, local: string): string[] | undefined {
  const lists = [text(options, 'filesFrom'), text(options, 'filesFrom0')]
  if (lists.every((list) => list === undefined)) return undefined
  const paths = lists.flatMap((list, at) => (list === undefined ? [] : pathsOf(readList(list), list, at === 1)))
  if (paths.length === 0) output.warn('The list of files names nothing, so nothing takes part')
  return relativePaths(paths, local)
}

/**
 * Looks whether lists that are named in options were changed by what came from a server.
 *
 * @param local - Absolute path of the local root; lists elsewhere are nobody's but the user's.
 * @throws {SyncError} `RULES_NOT_ACCEPTED` (class `changed`).
 */
export async function requireAcceptedLists({ options }: Context, local: string): Promise<void> {
  const lists = ['filterFrom', 'filesFrom', 'filesFrom0'].flatMap((name) => text(options, name) ?? [])
  if (lists.every((list) => list === '-')) return
  const rules = createHeldRules(rulesPath())
  const top = realPath(local)
  for (const list of lists) {
    if (list !== '-' && `${realPath(resolve(list))}/`.startsWith(`${top}/`)) await rules.requireAccepted(list)
  }
}

/**
 * What takes part.
 *
 * @param local - Absolute path of the local root.
 */
export function selectionOf(context: Context, local: string): SelectionOptions {
  const { options } = context
  const filters = text(options, 'filterFrom')
  const fromInput = ['filterFrom', 'filesFrom', 'filesFrom0'].filter((name) => text(options, name) === '-')
  if (fromInput.length > 1) {
    throw new SyncError('usage', 'OPTION_INVALID', 'Only one list can come from standard input')
  }
  const fromFile = filters === undefined ? [] : rulesOf(readList(filters), filters)
  const patterns = [...fromFile.filter((line) => line !== ''), ...((options.patterns as string[]) ?? [])]
  const paths = listedPaths(context, local)
  const maxSize = measured(context, 'max-size', parseSize, '100M')
  const minAgeMs = measured(context, 'min-age', parseDuration, '10m')
  return {
    ...(patterns.length === 0 ? {} : { patterns }),
    ...(paths === undefined ? {} : { paths }),
    ...(maxSize === undefined ? {} : { maxSize }),
    ...(minAgeMs === undefined ? {} : { minAgeMs }),
  }
}

/**
 * What the command line says about a run.
 *
 * @param local - Absolute path of the local root.
 */
export function syncOptions(context: Context, direction: Direction, local: string): Omit<SyncOptions, 'state'> {
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
    selection: selectionOf(context, local),
    delete: options.delete === true,
    checksum: options.checksum === true,
    oneFileSystem: options.oneFileSystem === true,
    names: namesOf(context),
    acceptRoots: options.acceptRoots === true,
    manifest: options.manifest !== false,
    requireEncryption: settings.flag('require-encryption'),
    allowPlain: settings.flag('allow-plain'),
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
const nothing = (local: string, remote: string): SyncSummary => ({
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
})

export function exitCodeOfSync(summary: SyncSummary, direction: Direction): number {
  const codes = [exitCodeOfRun(summary, direction === 'push' ? 'upload' : 'download')]
  if (codes[0] !== EXIT.done && codes[0] !== EXIT.partial) return codes[0]!
  if (summary.conflicts.length > 0) return EXIT.conflicts
  return summary.left > 0 ? EXIT.partial : codes[0]!
}

export interface PairRun {
  readonly direction: Direction
  readonly local: string
  readonly remote: string
  readonly dryRun?: boolean
  /** Read when the run begins, so that what is wrong with them is told like everything else. */
  readonly options: () => Omit<SyncOptions, 'state'>
}

export interface PairEnd {
  readonly outcome: SyncSummary
  readonly exitCode: number
  /** As `--json` prints it. */
  readonly summary: object
}

/** How a run gets its client. */
export interface Link {
  open(onEvent: (event: RunEvent) => void): Promise<Pick<Awaited<ReturnType<typeof connect>>, 'client' | 'profile'>>
  /** Called when the run is over. */
  release(): Promise<void>
}

/** A client for one run. */
function linkForOne(context: Context): Link {
  let client: Client | undefined
  return {
    async open(onEvent) {
      const opened = await connect(context, onEvent)
      client = opened.client
      return opened
    },
    release: async () => client?.close(),
  }
}

/** Runs one pair under its lock, says what became of it, and tells who watches over it. */
export async function runPair(context: Context, run: PairRun, link = linkForOne(context)): Promise<PairEnd> {
  const { direction, local, remote } = run
  // A look is no run that anybody waits for.
  if (run.dryRun) return carryOut(context, run, link, () => {})
  return reported(context, { command: direction, local, remote }, (onEvent) => carryOut(context, run, link, onEvent))
}

async function carryOut(
  context: Context,
  { direction, local, remote, dryRun = false, options }: PairRun,
  link: Link,
  onEvent: (event: RunEvent) => void,
): Promise<PairEnd> {
  const begun = performance.now()
  const progress = await createProgress(context.output, VERBS[direction])
  let summary: SyncSummary | undefined
  let exitCode: number
  try {
    requireSettings(context)
    await requireAcceptedLists(context, local)
    const how = { ...options(), dryRun }
    try {
      const { client, profile } = await link.open((event) => {
        onEvent(event)
        progress.onEvent(event)
      })
      summary = await locked(context, accountName(profile), local, remote, (state) =>
        client.sync(local, remote, { ...how, state }),
      )
    } finally {
      await link.release()
    }
    exitCode = exitCodeOfSync(summary, direction)
  } catch (thrown) {
    const error = toSyncError(context.signal.aborted ? cancelled(context.signal) : thrown)
    // What was done is told, also when something went wrong on the way out.
    summary = { ...(summary ?? nothing(local, remote)), stoppedBy: summary?.stoppedBy ?? error }
    exitCode = exitCodeOfSync(summary, direction)
  } finally {
    progress.stop()
  }
  if (dryRun && summary.stoppedBy === undefined) {
    const steps = summary.steps.filter(isChange).map(planLine)
    const kept = summary.steps.filter((step) => step.do === 'keep').length
    exitCode = printPlan(
      context,
      { direction, ...summary.pair, steps, kept, failed: summary.failed, pending: summary.pending },
      exitCode,
    )
  } else {
    printSync(context, summary, exitCode, performance.now() - begun)
  }
  return { outcome: summary, exitCode, summary: syncFields(summary) }
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

/** One run as the command line describes it. */
export function pairRunOf(context: Context, direction: Direction, first: string, second: string): PairRun {
  const [local, remote] = direction === 'pull' ? [second, first] : [first, second]
  const options = () => syncOptions(context, direction, resolve(local))
  return { direction, local: resolve(local), remote, dryRun: context.options.dryRun === true, options }
}

/** The summary as programs read it; the plan is told elsewhere. */
const syncFields = ({ runId, pair: _pair, steps: _steps, ...rest }: SyncSummary) => ({
  run: runId,
  ...summaryFields(rest),
})

function printSync({ output }: Context, summary: SyncSummary, exitCode: number, ms: number): void {
  const { stoppedBy, transferred, bytes, moved, deleted, kept, left, conflicts, failed, pending, files } = summary
  if (stoppedBy !== undefined) output.error(stoppedBy, exitCode, { plain: true })
  if (output.json) {
    output.result('', { type: 'summary', exitCode, ...syncFields(summary) })
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
  for (const hint of hintsOf({ failed: [], ...(pending && { pending }) })) output.info(`  ${hint}`)
  output.info(
    `${plural(files, 'file')}: ${transferred} transferred (${showBytes(bytes)}) in ${(ms / 1000).toFixed(1)} s${told.join('')}${pendingText(summary)}`,
  )
}
