/**
 * The wrapper of all runs, and what the command line says of one. Runs begin in transfer.ts (upload, download), watch.ts (push, pull, both)
 * and backup.ts.
 * @module
 */
import { realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import {
  type Client,
  type Command,
  type ConflictAction,
  createHeldRules,
  isChange,
  type Limit,
  type OutputChecking,
  type Pair,
  type PlacedCommand,
  type PlanLine,
  placesOfPair,
  planLine,
  type RunEvent,
  type SelectionOptions,
  type SyncSummary,
  type Told,
} from '../../client/index.ts'
import { cancelled, SyncError, toSyncError } from '../../errors.ts'
import { pathsOf, readList, rulesOf } from '../../local/text-list.ts'
import { reported } from '../automation.ts'
import { connect } from '../connect.ts'
import { type Context, measured, namesOf, requireSettings, rulesPath, text } from '../context.ts'
import { plural, showBytes } from '../display.ts'
import { EXIT, exitCodeOfRun } from '../exit-codes.ts'
import { createProgress, hintsOf, pendingText, summaryFields } from '../output.ts'
import { printPlan } from '../plan-table.ts'
import { parseDuration, parseSize } from '../settings.ts'

const VERBS: Readonly<Record<Command, string>> = {
  upload: 'Uploading',
  download: 'Downloading',
  push: 'Pushing',
  pull: 'Pulling',
  both: 'Synchronizing',
  backup: 'Backing up',
  restore: 'Restoring',
}

/** The number of files, or the share, of `--max-delete` and its like. */
export function parseLimit(value: string | undefined, flag: string): Limit | undefined {
  if (value === undefined) return undefined
  const match = /^(\d+)(%?)$/.exec(value)
  if (match === null || (match[2] === '%' && Number(match[1]) > 100)) {
    throw new SyncError('usage', 'OPTION_INVALID', `--${flag} takes a number of files or a share such as 20%`)
  }
  return match[2] === '%' ? { share: Number(match[1]) / 100 } : { files: Number(match[1]) }
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
    ...(options.defaultExcludes === false ? { defaultExcludes: false } : {}),
    ...(options.excludeCaches === true ? { excludeCaches: true } : {}),
  }
}

/** What the command line says about a run of any kind. */
export function limitsOf(context: Context): Told {
  const { options, settings, signal } = context
  return {
    signal,
    checksum: options.checksum === true,
    keepShareLinks: options.keepShareLinks === true ? true : undefined,
    names: namesOf(context),
    requireEncryption: settings.flag('require-encryption'),
    allowPlain: settings.flag('allow-plain'),
    // As long as nobody sets it, a run finds out how many.
    jobs: settings.all.some(({ name, origin }) => name === 'jobs' && origin === 'default')
      ? undefined
      : settings.number('jobs'),
    partSize: settings.number('part-size'),
    memory: settings.number('memory'),
    checkOutput: settings.text('check-output') as OutputChecking | undefined,
    maxTransfer: measured(context, 'max-transfer', parseSize, '10G'),
    maxDurationMs: measured(context, 'max-duration', parseDuration, '2h'),
    waitMs: measured(context, 'wait', parseDuration, '10m'),
  }
}

const isTransfer = (command: PlacedCommand): command is 'upload' | 'download' =>
  command === 'upload' || command === 'download'

/**
 * What the command line says about a run.
 *
 * @param local - Absolute path of the local root.
 */
export function toldOf(context: Context, command: PlacedCommand, local: string): Told {
  const { options, settings } = context
  const onConflict = settings.text('on-conflict') as ConflictAction | undefined
  const common = { ...limitsOf(context), selection: selectionOf(context, local) }
  const oneFileSystem = options.oneFileSystem === true
  if (isTransfer(command)) return { ...common, oneFileSystem, contents: options.contents === true, onConflict }
  if (onConflict === 'rename' && command !== 'both') {
    throw new SyncError('usage', 'OPTION_INVALID', '--on-conflict rename is not for mirrors', {
      hint: 'sync both keeps both versions by itself.',
    })
  }
  const maxDelete = parseLimit(text(options, 'maxDelete'), 'max-delete')
  const maxChange = parseLimit(text(options, 'maxChange'), 'max-change')
  return {
    ...common,
    oneFileSystem,
    delete: options.delete === true,
    acceptRoots: options.acceptRoots === true,
    manifest: options.manifest !== false,
    prefer: text(options, 'prefer') as Told['prefer'],
    ...(command === 'both' ? {} : { onConflict }),
    ...(maxDelete === undefined ? {} : { maxDelete }),
    ...(maxChange === undefined ? {} : { maxChange }),
  }
}

/** What there is to say about a run when it never got to one. */
export const nothing = ({ local, remote }: { readonly local: string; readonly remote: string }): SyncSummary => ({
  runId: '',
  pair: { account: '', local, remote },
  steps: [],
  files: 0,
  transferred: 0,
  bytes: 0,
  skipped: 0,
  moved: 0,
  deleted: 0,
  kept: 0,
  ignored: 0,
  left: 0,
  conflicts: [],
  failed: [],
})

function exitCodeOfSync(summary: SyncSummary, command: Command): number {
  const isSending = command === 'push' || command === 'upload' || command === 'backup'
  const code = exitCodeOfRun(summary, isSending ? 'upload' : 'download')
  if (code !== EXIT.done && code !== EXIT.partial) return code
  if (summary.conflicts.length > 0) return EXIT.conflicts
  return summary.left > 0 ? EXIT.partial : code
}

/** @typeParam C - What the run works with; see `Link`. */
export interface JobRun<C = Client> {
  readonly command: Command
  /** Between which places, in words. */
  readonly local: string
  readonly remote: string
  /** Absolute local paths below which lists of the user may have come from a server. */
  readonly roots: readonly string[]
  readonly dryRun?: boolean
  /** Read when the run begins, so that what is wrong with them is told like everything else. */
  readonly options: () => Told
  readonly start: (client: C, options: Told) => Promise<SyncSummary>
  /** Finds out what is to be done, before there is a client. */
  readonly prepare?: () => Promise<void>
  /** What there is to say beside what all runs say. Default: what they did. */
  readonly tell?: (
    summary: SyncSummary,
    seconds: number,
  ) => {
    readonly text: string
    readonly fields: object
    /** Of a dry run, where its steps do not say it. */
    readonly lines?: readonly PlanLine[]
  }
}

export interface JobEnd {
  readonly outcome: SyncSummary
  readonly exitCode: number
  /** As `--json` prints it. */
  readonly summary: object
}

/** How a run gets its client, or whatever it works with. */
export interface Link<C = Client> {
  open(onEvent: (event: RunEvent) => void): Promise<{ readonly client: C }>
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

/** Does one run, says what became of it, and tells who watches over it. */
export const runOne = (context: Context, run: JobRun, link = linkForOne(context)): Promise<JobEnd> =>
  runWith(context, run, link)

/** As `runOne`, with something else than a client. */
export async function runWith<C>(context: Context, run: JobRun<C>, link: Link<C>): Promise<JobEnd> {
  const { command, local, remote } = run
  // For a plan nobody waits.
  if (run.dryRun) return carryOut(context, run, link, () => {})
  return reported(context, { command, local, remote }, (onEvent) => carryOut(context, run, link, onEvent))
}

async function carryOut<C>(
  context: Context,
  run: JobRun<C>,
  link: Link<C>,
  onEvent: (event: RunEvent) => void,
): Promise<JobEnd> {
  const { command, local, remote, dryRun = false, tell } = run
  const begun = performance.now()
  const progress = await createProgress(context.output, VERBS[command])
  let summary: SyncSummary | undefined
  let exitCode: number
  try {
    requireSettings(context)
    for (const root of run.roots) await requireAcceptedLists(context, root)
    await run.prepare?.()
    const options = { ...run.options(), dryRun }
    try {
      const { client } = await link.open((event) => {
        onEvent(event)
        progress.onEvent(event)
      })
      summary = await run.start(client, options)
    } finally {
      await link.release()
    }
    exitCode = exitCodeOfSync(summary, command)
  } catch (thrown) {
    const error = toSyncError(context.signal.aborted ? cancelled(context.signal) : thrown)
    // What was done is told, also when something went wrong on the way out.
    summary = { ...(summary ?? nothing(run)), stoppedBy: summary?.stoppedBy ?? error }
    exitCode = exitCodeOfSync(summary, command)
  } finally {
    progress.stop()
  }
  const seconds = (performance.now() - begun) / 1000
  const isBegun = summary.stoppedBy === undefined || summary.runId !== '' || summary.transferred > 0
  const told = isBegun ? tell?.(summary, seconds) : undefined
  if (dryRun && summary.stoppedBy === undefined) {
    const steps = told?.lines ?? summary.steps.filter(isChange).map(planLine)
    const kept = summary.steps.filter((step) => step.do === 'keep').length
    exitCode = printPlan(
      context,
      {
        direction: command,
        ...(told?.lines === undefined ? placesOfPair(summary.pair) : { local, remote }),
        steps,
        kept,
        failed: summary.failed,
        pending: summary.pending,
        fields: told?.fields,
      },
      exitCode,
    )
  } else {
    printRun(context, summary, exitCode, told?.text ?? textOf(summary, seconds), told?.fields)
  }
  return { outcome: summary, exitCode, summary: { ...fieldsOf(summary), ...told?.fields } }
}

const isUp = (command: Command): boolean => command === 'upload' || command === 'push' || command === 'both'

/** One run as the command line describes it: sources, then the target. */
export function runOf(context: Context, command: PlacedCommand, places: readonly string[]): JobRun {
  const [sources, target = ''] = [places.slice(0, -1), places.at(-1)]
  if (sources.length === 0) throw new SyncError('usage', 'OPTION_INVALID', 'A source and a target are needed')
  const roots = (isUp(command) ? sources : [target]).map((path) => resolve(path))
  return {
    command,
    local: roots.join(' '),
    remote: isUp(command) ? target : sources.join(' '),
    roots,
    dryRun: context.options.dryRun === true,
    options: () => toldOf(context, command, roots[0] ?? ''),
    async start(client, options) {
      if (command !== 'download') return client.run(command, places, options)
      const found = await client.glob(sources, { signal: context.signal })
      return client.run(command, [...found, target], options)
    },
  }
}

/** A run that is known by what is remembered of it, or by its plan; how far it may go, and with what, the command line says. */
export function runAgain(context: Context, command: Command, pair: Pair, start: JobRun['start']): JobRun {
  const sources = pair.transfer?.direction === 'upload' ? pair.transfer.sources : undefined
  const { local, backup } = pair
  const places = placesOfPair(pair)
  const options = () =>
    command === 'backup' || command === 'restore' ? limitsOf(context) : toldOf(context, command, sources?.[0] ?? local)
  return { command, ...places, roots: backup === undefined ? (sources ?? [local]) : [], options, start }
}

/** The summary as programs read it; the plan is told elsewhere. */
const fieldsOf = ({ runId, pair: _pair, steps: _steps, ...rest }: SyncSummary) => ({
  run: runId,
  ...summaryFields(rest),
})

function printRun(
  { output }: Context,
  summary: SyncSummary,
  exitCode: number,
  line: string,
  fields: object | undefined,
): void {
  const { stoppedBy, failed, pending } = summary
  if (stoppedBy !== undefined) output.error(stoppedBy, exitCode, { plain: true })
  for (const hint of hintsOf({ failed: stoppedBy === undefined ? failed : [], ...(pending && { pending }) })) {
    output.info(`  ${hint}`)
  }
  if (output.json) {
    output.result('', { type: 'summary', exitCode, ...fieldsOf(summary), ...fields })
    return
  }
  // Of what was never begun there is nothing to sum up.
  if (stoppedBy?.class !== 'usage') output.info(line)
}

function textOf(summary: SyncSummary, seconds: number): string {
  const { transferred, bytes, skipped, moved, deleted, kept, left, ignored, conflicts, failed, files } = summary
  const extra = [
    [skipped, 'unchanged'],
    [moved, 'moved'],
    [deleted, 'deleted'],
    [kept, 'kept though gone on the other side (see --delete)'],
    [conflicts.length, 'conflicts, both kept'],
    [left, 'left for the next run'],
    [ignored, 'ignored'],
    [failed.length, 'failed'],
  ] as const
  const told = extra.filter(([count]) => count > 0).map(([count, what]) => `, ${count} ${what}`)
  const rate = bytes > 0 && seconds > 0 ? `, ${showBytes(Math.round(bytes / seconds))}/s` : ''
  return `${plural(files, 'file')}: ${transferred} transferred (${showBytes(bytes)}) in ${seconds.toFixed(1)} s${rate}${told.join('')}${pendingText(summary)}`
}
