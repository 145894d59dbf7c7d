/**
 * One run of a backup set: a push of its sources whose bin is the history, and whose last deed is a manifest that makes it a point in
 * time. A run that is killed leaves content without a manifest; the next one goes on from there.
 * @module
 */
import { type Stats, statSync } from 'node:fs'
import pLimit from 'p-limit'
import { SyncError, toSyncError } from '../../errors.ts'
import type { Names } from '../../local/names.ts'
import { isChange, planLine, recordedOf, requireSamePlan } from '../plan-file.ts'
import { bytesOf } from '../reconcile.ts'
import type { SyncRecord } from '../records.ts'
import { never, type RunContext, report, type StatePlace } from '../run.ts'
import {
  type Begun,
  type Job,
  type Known,
  type Limits,
  type Plan,
  type Running,
  runJob,
  type SyncSummary,
} from '../run-job.ts'
import { withSavedPlan } from '../saved-plan.ts'
import { createBlocked, type RemoteItem, scanRemote } from '../scan.ts'
import { createSelection } from '../select.ts'
import { type Pair, stateDirectory } from '../state.ts'
import type { EntryFailure } from '../tree.ts'
import { removeDeadDrill } from './drill.ts'
import { type BackupGuards, guardRemoved, guardSources } from './guards.ts'
import type { Manifest } from './manifest.ts'
import { beginMemory, openMemory, pairOfSet, readMemory, requireState, type SetMemory, writeMemory } from './memory.ts'
import { countFiles, countRemoved, movesOf, rebuild, stepsOf, writingSteps } from './plan.ts'
import { finish } from './point.ts'
import { tellFuture } from './prune.ts'
import { openRuns, type Runs, readRun, tellUnpinned } from './runs.ts'
import { type BackupSet, isRunId, nextRun, type RunNote, showSourcePath, sourceProblem } from './set.ts'
import { attributesOf, type SourceScan, scanSources } from './source.ts'
import { createHistory, findNode, findStore, makeStore, type Store } from './store.ts'
import { keysNotHandedOut, knownContents, lookAtRuns, makeAdded, requireKind } from './write-only.ts'

/** How a run of a set goes. */
export interface BackupOptions extends BackupGuards, Limits {
  /** What is remembered of sets. Default: in the directory of the client. */
  readonly state?: StatePlace | undefined
  /** Take what the server has for what it should have, from now on. */
  readonly acceptRuns?: boolean | undefined
}

/** What became of a run of a set. */
export interface BackupSummary extends SyncSummary {
  /** The point in time; absent: there is no new one. */
  readonly run?: string
  readonly isComplete: boolean
  readonly created: number
  readonly changed: number
  readonly unchanged: number
  readonly removed: number
}

/**
 * Makes a point in time of a set.
 *
 * @returns the summary, also when something stopped the run (`stoppedBy`) after it had begun to change things.
 * @throws {SyncError} for what is wrong before anything is changed: of class `safety` when a guard says no, of class
 * `integrity` when what the server has cannot be the backup, `LOCKED` when the set is in use.
 */
export async function runBackup(
  context: RunContext,
  set: BackupSet,
  options: BackupOptions = {},
): Promise<BackupSummary> {
  const problem = sourceProblem(set.sources)
  if (problem !== undefined) throw new SyncError('usage', 'BACKUP_CONFIG', `Backup ${set.name}: ${problem}`)
  const state = await requireState(context, options)
  const pair = pairOfSet(state, set, set.sources)
  const made: Made = {}
  const job = backupJob(context, set, pair, stateDirectory(state.directory, pair), options, made)
  const summary = await runJob(context, job, options)
  const bytes = options.dryRun ? summary.steps.reduce((sum, step) => sum + bytesOf(step), 0) : summary.bytes
  return {
    ...summary,
    bytes,
    ...countsOf(made, summary),
    isComplete: made.note?.isComplete ?? made.wouldBeComplete ?? false,
  }
}

/** What becomes of a run beside its summary. */
interface Made {
  plan?: SetPlan
  note?: RunNote
  /** What was stored in the end. */
  counts?: { readonly created: number; readonly changed: number }
  /** Of a run that was only planned. */
  wouldBeComplete?: boolean
}

/** Files that are sent: those that were not known before, and those that were. */
function countSent({ steps, records }: SetPlan, isSent: (key: string) => boolean) {
  let [created, changed] = [0, 0]
  for (const { do: action, key } of steps) {
    if (action !== 'upload' || !isSent(key)) continue
    if (records.get(key)?.kind === 'file') changed++
    else created++
  }
  return { created, changed }
}

/** Those of them that have another node now. */
const countStored = (plan: SetPlan, current: ReadonlyMap<string, SyncRecord>) =>
  countSent(plan, (key) => {
    const now = current.get(key)?.remote.id
    return now !== undefined && now !== plan.records.get(key)?.remote.id
  })

function countsOf({ plan, note, counts }: Made, { skipped }: SyncSummary) {
  const run = note === undefined ? {} : { run: note.run }
  if (plan === undefined) return { ...run, created: 0, changed: 0, unchanged: 0, removed: 0 }
  return { ...run, ...(counts ?? countSent(plan, () => true)), unchanged: skipped, removed: plan.removed }
}

interface SetPlan extends Plan {
  readonly scan: SourceScan
  readonly store: Store | undefined
  readonly runs: Runs
  /** What is remembered of the set, and what of that counts. */
  readonly known: SetMemory | undefined
  readonly memory: SetMemory | undefined
  /** Ids of runs at the server that are not known here. */
  readonly listed: readonly string[]
  readonly isWriteOnly: boolean
  /** The records are those of a manifest, and not what is remembered. */
  readonly isRebuilt: boolean
  /** Files that are gone from the sources. */
  readonly removed: number
  readonly startedAt: number
}

function backupJob(
  context: RunContext,
  set: BackupSet,
  pair: Pair,
  directory: string,
  options: BackupOptions,
  made: Made,
): Job<SetPlan> {
  const { api } = context
  const { isWriteOnly } = context.keyring
  let store: Store | undefined
  let run = ''
  const lost = new Set<number>()
  return {
    command: 'backup',
    pair,
    directory,
    recorded: () => recordedOf({ set, names: options.names }),
    runId: () => run,
    isSending: true,
    alwaysSends: true,
    isHashed: () => true,
    async look(state) {
      const plan = await look(context, { set, pair, directory }, state, options)
      made.plan = plan
      // Also after those that are gone, or did not come to their end: an id stands for one run for ever.
      const ids = [...plan.runs.notes, ...(plan.known?.runs ?? [])].map((note) => note.run)
      for (const id of plan.listed) ids.push(id)
      run = nextRun(plan.startedAt, [...ids, ...state.runs().flatMap(({ id }) => (isRunId(id) ? [id] : []))])
      if (options.dryRun === true) made.wouldBeComplete = plan.scan.failures.length === 0
      store = plan.store
      return plan
    },

    async makeRemote(plan, signal) {
      store = await makeStore(api, set, isWriteOnly, signal)
      if (isWriteOnly) return plan.steps.length === 0 ? store.files : makeAdded(context, store, run, signal)
      // Somebody else's folder may have this name.
      if (
        plan.memory === undefined &&
        (await listFiles(context, store, plan.startedAt, signal, options.names)).size > 0
      )
        throw notEmpty(set)
      return store.files
    },

    async begin({ state, signal }, plan): Promise<Begun> {
      const { records, runs, memory } = plan
      if (plan.isRebuilt || isWriteOnly)
        for (const key of state.records().keys()) if (!records.has(key)) state.remove(key)
      if (plan.isRebuilt) for (const [key, record] of records) state.put(key, record)
      if (memory === undefined) {
        const begun = beginMemory(set, store!.target.id, plan.known, runs.notes, isWriteOnly)
        await writeMemory(directory, begun)
      }
      if (isWriteOnly) return { show: showSourcePath, attributesOf, acceptAny: true, isCautious: false, addsOnly: true }
      return {
        show: showSourcePath,
        attributesOf,
        acceptAny: true,
        isCautious: false,
        remoteBin: createHistory(api, store!.history, run, options.names, signal),
        failed: await findLost(context, plan, state, lost, signal),
      }
    },

    async end(running, plan, _begun, done) {
      requireSameSources(set, plan.scan)
      const told: EntryFailure[] = []
      const tell = (failure: EntryFailure) => {
        told.push(failure)
        report(context, failure.path, failure.error)
      }
      const { note, memory } = await finish(running, set, { plan, store: store!, run, directory, done, lost, tell })
      made.note = note
      made.counts = countStored(plan, running.state.current())
      // A place that the manifest does not have any more is forgotten with it.
      const moves = movesOf(plan.steps)
      for (const [key, { kind }] of plan.records) {
        const isGone = kind === 'file' && !isThere(key, plan) && moves.to(key) === undefined
        if (isGone && !plan.scan.isIncomplete) running.state.remove(key)
      }
      await running.state.flush()
      await writeMemory(directory, memory)
      return told
    },
  }
}

/** True for the key of what is in the sources; what is a directory now is no file any more, where nothing at the server says so. */
function isThere(key: string, { scan, isWriteOnly }: SetPlan): boolean {
  const here = scan.items.get(key)
  return here !== undefined && (!isWriteOnly || here.kind === 'file')
}

async function look(
  context: RunContext,
  { set, pair, directory }: { readonly set: BackupSet; readonly pair: Pair; readonly directory: string },
  state: Known,
  options: BackupOptions,
): Promise<SetPlan> {
  const { api, clock } = context
  const signal = options.signal ?? never
  const startedAt = clock.now()
  await removeDeadDrill(directory, clock)
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const known = await (options.dryRun ? readMemory(directory) : openMemory(context, directory))
  const scan = await lookHere(set, known, startedAt, signal, options.names, context)
  const memory = options.acceptRuns ? undefined : known
  const { store, container, roomId } = await findStore(api, set, signal)
  const { isWriteOnly } = context.keyring
  requireKind(set, isWriteOnly, store?.isWriteOnly, known?.isWriteOnly)
  if (memory !== undefined && store?.target.id !== memory.targetId) throw replaced(set)
  const found: Found = { set, store, known, memory, scan, state, startedAt, signal, options }
  const seen = isWriteOnly ? await lookUnread(context, found) : await lookThere(context, found)
  const { runs, remote, records } = seen
  tellFuture(context, runs, startedAt)
  guardSources(scan, records, known, options)
  const steps = (isWriteOnly ? writingSteps : stepsOf)(scan, remote, records)
  const removed = scan.isIncomplete ? 0 : countRemoved(steps, scan, records)
  if (options.planned !== undefined) requireSamePlan(options.planned, steps.filter(isChange).map(planLine))
  else if (!options.dryRun) {
    try {
      guardRemoved('files are gone from the sources', removed, countFiles(records), options)
    } catch (error) {
      const stopped = { command: 'backup', options: { set, names: options.names }, steps, now: startedAt } as const
      throw await withSavedPlan(error, directory, { pair, ...stopped })
    }
  }
  return {
    steps,
    files: scan.files,
    skipped: scan.files - steps.filter((step) => step.do === 'upload').length,
    ignored: scan.ignored,
    // Of a set that is only written, each run makes its own.
    container: { node: isWriteOnly ? undefined : store?.files, above: container, missing: [], roomId },
    remote,
    records,
    failures: [...runs.problems, ...scan.failures, ...seen.lost],
    missing: [],
    selection: { unaccepted: [] },
    leftovers: [],
    scan,
    store,
    runs,
    known,
    memory,
    listed: seen.listed,
    isWriteOnly,
    isRebuilt: seen.isRebuilt,
    removed,
    startedAt,
  }
}

/** What a look at the server begins with. */
interface Found {
  readonly set: BackupSet
  readonly store: Store | undefined
  readonly known: SetMemory | undefined
  readonly memory: SetMemory | undefined
  readonly scan: SourceScan
  readonly state: Known
  readonly startedAt: number
  readonly signal: AbortSignal
  readonly options: BackupOptions
}

/** What is at the server, or was when it was stored. */
interface Seen extends Pick<SetPlan, 'runs' | 'remote' | 'records' | 'listed' | 'isRebuilt'> {
  /** Contents that are gone from there. */
  readonly lost: readonly EntryFailure[]
}

const NO_RUNS: Runs = Object.freeze({ notes: [], problems: [], isPinned: false, missing: 0 })

async function lookThere(
  context: RunContext,
  { set, store, known, memory, scan, state, startedAt, signal, options }: Found,
): Promise<Seen> {
  const runs = store === undefined ? NO_RUNS : await openRuns(context, set, store, memory, signal)
  const remote =
    store === undefined
      ? new Map<string, RemoteItem>()
      : await listFiles(context, store, startedAt, signal, options.names)
  if (known === undefined && runs.notes.length === 0 && remote.size > 0) throw notEmpty(set)
  if (known === undefined && runs.notes.length > 0) tellUnpinned(context, runs)
  const newest = await newestToKnow(context, set, runs, state, signal)
  const records = newest === undefined ? state.records() : rebuild(newest, scan, remote, state.records())
  return { runs, remote, records, listed: [], isRebuilt: newest !== undefined, lost: [] }
}

/** The same where nothing there can be read: what is remembered says what was stored. */
async function lookUnread(context: RunContext, { store, memory, scan, state, signal }: Found): Promise<Seen> {
  const { listed, ...runs } =
    store === undefined ? { ...NO_RUNS, listed: [] } : await lookAtRuns(context, store, memory, signal)
  const unusable = store === undefined ? new Set<number>() : await keysNotHandedOut(context, store, state, signal)
  const isAnew = memory === undefined
  const written = await knownContents(context, store, scan, state.records(), unusable, isAnew, signal)
  return { runs, listed, ...written, isRebuilt: false }
}

/** The manifest that the records are made from: of a run that this machine does not know, or of the last one where there are none. */
async function newestToKnow(
  context: RunContext,
  set: BackupSet,
  { newest, notes }: Runs,
  state: Known,
  signal: AbortSignal,
): Promise<Manifest | undefined> {
  const last = notes.at(-1)
  if (newest !== undefined || last === undefined || state.records().size > 0) return newest
  return readRun(context, set, last, signal)
}

/** Sources that were there are not just missing, they may not be mounted. */
async function lookHere(
  set: BackupSet,
  memory: SetMemory | undefined,
  now: number,
  signal: AbortSignal,
  names: Names | undefined,
  { onEvent }: Pick<RunContext, 'onEvent'>,
): Promise<SourceScan> {
  try {
    const scan = await scanSources(set, now, signal, names, (path) => onEvent?.({ type: 'ignored', path }))
    // What went away while it was looked at would look deleted.
    requireSameSources(set, scan)
    return scan
  } catch (thrown) {
    const error = toSyncError(thrown)
    const isKnown = memory !== undefined && Object.keys(memory.sources).length > 0
    if (!isKnown || (error.code !== 'SOURCE_MISSING' && error.code !== 'SOURCE_NOT_DIRECTORY')) throw thrown
    throw new SyncError('safety', error.code, error.message, {
      hint: 'Is its disk mounted? Nothing was done. If it is gone for good, take it out of the set.',
      cause: error,
    })
  }
}

async function listFiles(
  context: RunContext,
  store: Store,
  now: number,
  signal: AbortSignal,
  names: Names | undefined,
): Promise<Map<string, RemoteItem>> {
  const scan = await scanRemote(context.api, store.files, store.roomId, {
    selection: createSelection({}, now),
    blocked: createBlocked(),
    names,
    foldCase: false,
    signal,
  })
  for (const { path, error } of scan.failures) {
    context.onEvent?.({ type: 'warning', code: error.code, message: `files/${path}: ${error.message}` })
  }
  return scan.items
}

const replaced = ({ target }: BackupSet) =>
  new SyncError('integrity', 'TARGET_REPLACED', `${target} is not the folder that the backup was in`, {
    hint: 'Nothing was done. To begin again there: --accept-runs',
  })

const notEmpty = ({ target }: BackupSet) =>
  new SyncError('safety', 'TARGET_NOT_EMPTY', `${target}/files holds something that is no backup of this set`, {
    hint: 'Choose another target, or move that away.',
  })

/** A disk that went away meanwhile has not lost its files. */
function requireSameSources({ sources }: BackupSet, { roots }: SourceScan): void {
  for (const source of sources) {
    let now: Stats | undefined
    try {
      now = statSync(source, { throwIfNoEntry: false })
    } catch {
      // A disk that does not answer is as good as none.
    }
    if (now?.dev === roots[source]?.dev && now?.ino === roots[source]?.ino) continue
    throw new SyncError('safety', 'SOURCE_CHANGED', `${source} went away during the run`, {
      hint: 'Is its disk mounted? There is no new run.',
    })
  }
}

/** Requests at once. */
const LOOKS = 16

/**
 * Finds files whose content should be at the server and is not, and forgets it. Content that is not at its place may only have been
 * moved into the history, by a run that did not end.
 */
async function findLost(
  context: RunContext,
  { records, remote, scan, steps }: SetPlan,
  state: Pick<Running['state'], 'remove'>,
  nodes: Set<number>,
  signal: AbortSignal,
): Promise<EntryFailure[]> {
  const limit = pLimit(LOOKS)
  const lost: EntryFailure[] = []
  const look = async (key: string, record: SyncRecord) => {
    const node = await findNode(context.api, record.remote.id, signal)
    if (node !== undefined && node.size === record.remote.size) return
    state.remove(key)
    nodes.add(record.remote.id)
    lost.push({ path: `/${record.path}`, error: dropped() })
  }
  const looks: Promise<void>[] = []
  const moves = movesOf(steps)
  for (const [key, record] of records) {
    const place = scan.items.has(key) ? key : moves.to(key)
    if (record.kind !== 'file' || place === undefined || scan.items.get(place)?.kind !== 'file') continue
    const there = remote.get(key)
    const isThere = there?.node.id === record.remote.id && there.node.size === record.remote.size
    if (!isThere) looks.push(limit(() => look(key, record)))
  }
  await Promise.all(looks)
  for (const { path, error } of lost) report(context, path, error)
  return lost
}

const dropped = () =>
  new SyncError(
    'integrity',
    'CONTENT_DROPPED',
    'What was stored of this file is gone from the server or was replaced there',
    {
      hint: 'It is stored again as it is now; what older runs had of it may be lost. See who has access to the room.',
    },
  )
