/**
 * One run of any job: under its lock it looks at both sides, plans, carries the plan out, and remembers what it did. What is special
 * about a kind of job is in jobs/.
 * @module
 */
import { existsSync, mkdirSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import type { MissingFileKeys, RemoteNode } from '../api/wire.ts'
import { localError, SyncError, toSyncError } from '../errors.ts'
import { takeLock } from '../local/lock.ts'
import { escapeName, type Names } from '../local/names.ts'
import { sweepDirectory } from '../local/partial-file.ts'
import { shareKeysOf } from '../transfer/share-keys.ts'
import { storageOf } from '../transfer/storage-routes.ts'
import type { OutputChecking } from '../transfer/upload.ts'
import { type ApplyOptions, type ApplyResult, applySteps } from './apply/apply.ts'
import { notAccepted } from './held-rules.ts'
import { type Memory, memoryOfNothing, withoutRecords } from './memory.ts'
import type { Pending, RunSummary } from './outcome.ts'
import type { PlanLine } from './plan-file.ts'
import type { Direction, SyncStep } from './reconcile.ts'
import { recover } from './recovery.ts'
import { makeFolder } from './remote-path.ts'
import { memoryOf, never, type RunContext, report } from './run.ts'
import { keyOf, type RemoteItem } from './scan.ts'
import type { Selection } from './select.ts'
import { isFromHere, openState, type Pair, remembersPlaces, type SyncState } from './state.ts'
import type { EntryFailure } from './tree.ts'
import { openUploader, type Uploader } from './uploader.ts'

/** The kinds of runs. */
export type Command = Direction | 'upload' | 'download' | 'backup' | 'restore'

/** How far a run may go, and with what. */
export interface Limits {
  /** Files in flight. Default 16; of up to 256 KiB as many as the server bears, up to the connections there may be. */
  readonly jobs?: number | undefined
  /** Bytes per part, at least 5 MiB. Default 8 MiB. */
  readonly partSize?: number | undefined
  /** How the ciphertext of files from 8 MiB on is checked before it counts. Default `proof`. */
  readonly checkOutput?: OutputChecking | undefined
  /** Bytes of content that may be held in memory at once, over all files: at least 16 MiB. Default 48 MiB. */
  readonly memory?: number | undefined
  /** Bytes after which no more transfers begin. */
  readonly maxTransfer?: number | undefined
  /** Milliseconds after which no more transfers begin. */
  readonly maxDurationMs?: number | undefined
  /** How long to wait for another run of the same places to end. Milliseconds. */
  readonly waitMs?: number | undefined
  /** Links of files that are replaced at the server lead to the new ones then. Default false: they end. */
  readonly keepShareLinks?: boolean | undefined
  /** Plan only. */
  readonly dryRun?: boolean | undefined
  /** Do exactly this, or nothing. */
  readonly planned?: readonly PlanLine[] | undefined
  /** What to do with names that the other side cannot hold. Default `report`; the same in all runs of a pair. */
  readonly names?: Names | undefined
  readonly signal?: AbortSignal | undefined
}

/** What became of a run, or what it would do. */
export interface SyncSummary extends RunSummary {
  /** As in events, `sync runs` and `undo`. Empty: nothing was done, or nothing is remembered of it. */
  readonly runId: string
  readonly pair: Pair
  /** What would be done, or was to be done. */
  readonly steps: readonly SyncStep[]
  readonly moved: number
  readonly deleted: number
  /** Gone on one side and left on the other. */
  readonly kept: number
  /** Not begun because a limit was reached. */
  readonly left: number
  readonly conflicts: readonly { readonly path: string; readonly copy: string }[]
}

/** What a job is told of the runs before. */
export type Known = Pick<SyncState, 'roots' | 'listed' | 'isAsListed' | 'records' | 'runs' | 'deeds'>

/** A look begins no state. */
const NOTHING_KNOWN: Known = Object.freeze({
  roots: undefined,
  listed: undefined,
  isAsListed: false,
  records: () => new Map(),
  runs: () => [],
  deeds: () => [],
})

/** Where on the server things are, or will be. */
export interface Container {
  /** Absent: it has to be made. */
  readonly node: RemoteNode | undefined
  /** What is there of the way to it; id 0: nothing. */
  readonly above: Pick<RemoteNode, 'id' | 'isEncrypted'>
  readonly missing: readonly string[]
  readonly roomId: number
  /** Which file keys are missing in that room, where that was asked meanwhile. */
  readonly missingKeys?: Promise<MissingFileKeys> | undefined
}

/** What was found on both sides, and what follows from it. */
export interface Plan {
  readonly steps: readonly SyncStep[]
  /** Files on either side, as far as they take part. */
  readonly files: number
  /** Files that need nothing. */
  readonly skipped: number
  readonly ignored: number
  readonly container: Container
  readonly remote: ReadonlyMap<string, RemoteItem>
  readonly records: ReturnType<SyncState['records']>
  readonly failures: readonly EntryFailure[]
  /** What was asked for by name and is not there. */
  readonly missing: readonly EntryFailure[]
  readonly selection: Pick<Selection, 'unaccepted'>
  /** Directories below the local root in which runs that were killed may have left something. */
  readonly leftovers: Iterable<readonly string[]>
}

/** A run that is being carried out. */
export interface Running {
  readonly context: RunContext
  readonly state: SyncState
  readonly runId: string
  readonly startedAt: number
  /** The remote root, once it is there, and whether it is encrypted. */
  readonly node: RemoteNode
  readonly isEncrypted: boolean
  /** Of runs that send something. */
  readonly uploader: Uploader | undefined
  readonly signal: AbortSignal
}

/** What has been done when a run comes to its end. */
export interface Done {
  readonly bytes: number
  readonly left: number
  /** What has failed up to now, and what has been told of files that were stored all the same. */
  readonly failed: readonly EntryFailure[]
}

/** A kind of job at certain places. */
export interface Job<P extends Plan = Plan> {
  readonly command: Command
  readonly pair: Pair
  /** Private directory of what is remembered; absent: nothing is. */
  readonly directory: string | undefined
  /** What another run needs to do the same; read when it has been planned. */
  recorded(): Readonly<Record<string, unknown>>
  /** Of a run that has been planned; default: made from the time. */
  runId?(): string
  /** It is also done where nothing can be remembered. */
  readonly mayBeForgotten?: boolean
  /** Looks at both sides, and plans. What is wrong before anything is changed is thrown. */
  look(state: Known): Promise<P>
  /** Sends files, or hands out keys. */
  readonly isSending: boolean
  /** Also where nothing has changed. */
  readonly alwaysSends?: boolean
  /** Of each file that is sent its digest is needed. */
  isHashed?(plan: P): boolean
  /** Makes the remote root where it is not there. Default: the folders that are missing. */
  makeRemote?(plan: P, signal: AbortSignal): Promise<RemoteNode>
  /** When both roots are there, before the first step. */
  begin?(run: Running, plan: P): Promise<Begun>
  /** When all is done that could be. */
  end?(run: Running, plan: P, begun: Begun, done: Done): Promise<readonly EntryFailure[]>
}

/** What a job has found out before its first step, and how its steps are carried out. */
export interface Begun extends JobOptions {
  /** Found meanwhile, and reported. */
  readonly failed?: readonly EntryFailure[]
}

/** How steps are carried out for a job. */
type JobOptions = Pick<
  ApplyOptions,
  'judge' | 'acceptAny' | 'heldTo' | 'expected' | 'show' | 'attributesOf' | 'addsOnly' | 'remoteBin' | 'isCautious'
>

/**
 * Runs a job.
 *
 * @returns the summary, also when something stopped it (`stoppedBy`) after it had begun to change things.
 * @throws {SyncError} for what is wrong before anything is changed; of class `safety` when a guard says no; `LOCKED` when another run of
 * the same places does not end in time.
 */
export async function runJob<P extends Plan>(context: RunContext, job: Job<P>, limits: Limits): Promise<SyncSummary> {
  const { clock } = context
  const { directory } = job
  memoryOf(limits)
  if (context.keyring.isWriteOnly) requireWriting(job)
  if (limits.dryRun && (directory === undefined || !existsSync(directory))) {
    return lookOnly(context, job, await job.look(NOTHING_KNOWN))
  }
  if (directory === undefined) return run(context, job, memoryOfNothing(job.pair), limits)
  const waitMs = limits.waitMs ?? 0
  const signal = limits.signal ?? never
  const lock = await orForgotten(context, job, takeLock(lockOf(directory), { clock, waitMs, signal }))
  try {
    const tell = (keptAs: string) => tellDamaged(context, keptAs)
    if (lock !== undefined) await sweepDirectory(directory, clock)
    const state =
      lock && (await orForgotten(context, job, openState(directory, job.pair, clock.now(), tell, context.read)))
    if (state === undefined)
      return await run(context, { ...job, directory: undefined }, memoryOfNothing(job.pair), limits)
    return await run(context, job, remembersPlaces(job.pair) ? state : withoutRecords(state), limits)
  } finally {
    await lock?.release()
  }
}

/** What fetches or compares contents needs the private key, which is told before anything is done. */
function requireWriting({ command, recorded }: Pick<Job, 'command' | 'recorded'>): void {
  const isWriting = command === 'upload' || command === 'push' || command === 'backup'
  if (isWriting && recorded().checksum !== true) return
  const what = isWriting ? 'To compare contents (--checksum)' : `A ${command}`
  throw new SyncError('key', 'PRIVATE_KEY_ELSEWHERE', `${what} needs the private key, and here one can only write`, {
    hint: 'Do it on the machine that has the encryption password.',
  })
}

/** `undefined` where a job that is done all the same cannot be remembered. */
async function orForgotten<T>(
  { onEvent }: RunContext,
  { mayBeForgotten }: Pick<Job, 'mayBeForgotten'>,
  opening: Promise<T>,
): Promise<T | undefined> {
  try {
    return await opening
  } catch (thrown) {
    const { class: kind, message } = toSyncError(thrown)
    if (mayBeForgotten !== true || kind !== 'local_io') throw thrown
    const text = `If this is interrupted, it cannot go on: ${message}`
    onEvent?.({ type: 'warning', code: 'RUN_NOT_RECORDED', message: text })
    return undefined
  }
}

/** For runs that cannot do without a memory. */
export const noMemory = (): SyncError =>
  new SyncError('usage', 'DIRECTORY_NEEDED', 'What is done has to be remembered, and there is no place for it', {
    hint: 'Give the client a directory of its own.',
  })

/** The journal of uploads that were interrupted. Its name is in it, so that none is taken for that of other places. */
export const journalOf = (directory: string): string => join(directory, `${basename(directory)}.journal`)

/** The lock of a directory of state. */
export const lockOf = (directory: string): string => `${directory}.lock`

/** Warns that state was put aside. */
export const tellDamaged = ({ onEvent }: Pick<RunContext, 'onEvent'>, keptAs: string): void =>
  onEvent?.({
    type: 'warning',
    code: 'STATE_DAMAGED',
    message: `The state was damaged; it was put aside as ${keptAs}`,
  })

async function run<P extends Plan>(
  context: RunContext,
  job: Job<P>,
  state: Memory,
  limits: Limits,
): Promise<SyncSummary> {
  const { clock } = context
  const begin = (id?: string) =>
    state.beginRun({ command: job.command, startedAt: clock.now(), options: job.recorded(), id })
  let runId: string | undefined
  let summary: SyncSummary | undefined
  let failure: unknown
  /** The first failure counts; what is done all the same may fail for the same reason. */
  const attempt = async (work: () => void | Promise<void>) => {
    try {
      await work()
    } catch (thrown) {
      failure ??= thrown
    }
  }
  if (job.isSending && !limits.dryRun) askAhead(context, limits.signal ?? never)
  await attempt(async () => {
    if (!limits.dryRun) recover(state, clock.now())
    const plan = await job.look(state)
    if (limits.dryRun) {
      summary = lookOnly(context, job, plan)
      return
    }
    runId = begin(job.runId?.())
    summary = await carryOut(context, job, state, plan, runId, limits)
    state.endRun(runId, { endedAt: clock.now(), ...outcomeOf(summary) })
  })
  if (summary === undefined && !limits.dryRun) {
    const { code, message } = toSyncError(failure)
    await attempt(() =>
      state.endRun(runId ?? begin(), { endedAt: clock.now(), outcome: 'stopped', error: { code, message } }),
    )
  }
  await attempt(state.flush)
  await attempt(state.close)
  return endOf(summary, failure)
}

/** Asks what a run that sends needs to know of server and account, while it looks at both sides. What goes wrong is told when it is needed. */
function askAhead({ api, keyring }: RunContext, signal: AbortSignal): void {
  storageOf(api, signal).catch(() => {})
  keyring.containers(signal).catch(() => {})
}

/** What was done is told, also when it could not be written down in the end. */
export function endOf<T extends { readonly stoppedBy?: SyncError }>(summary: T | undefined, failure: unknown): T {
  if (summary === undefined) throw failure
  return failure === undefined ? summary : { ...summary, stoppedBy: summary.stoppedBy ?? toSyncError(failure) }
}

function outcomeOf({ failed, pending = [], stoppedBy, conflicts, left, ...summary }: SyncSummary) {
  const { transferred, bytes, moved, deleted, kept } = summary
  const isConflict = conflicts.length > 0 || failed.some(({ error }) => error.class === 'conflict')
  const outcome = stoppedBy
    ? 'stopped'
    : isConflict
      ? 'conflicts'
      : failed.length + pending.length + left > 0
        ? 'partial'
        : 'done'
  return {
    outcome,
    counts: { transferred, bytes, moved, deleted, kept, left, conflicts: conflicts.length, failed: failed.length },
    failed: failed.slice(0, 1000).map(({ path, error: { code, message } }) => ({ path, code, message })),
    ...(stoppedBy === undefined ? {} : { error: { code: stoppedBy.code, message: stoppedBy.message } }),
  } as const
}

/** Files of the source about which there is nothing to be done. */
export function countSkipped(
  steps: readonly SyncStep[],
  source: ReadonlyMap<string, { readonly kind: 'file' | 'directory' }>,
): number {
  const busy = new Set<string>()
  for (const step of steps) {
    if (step.do === 'upload') busy.add(step.beside === undefined ? step.key : keyOf(step.local.path))
    else if (step.do === 'download') busy.add(step.beside === undefined ? step.key : keyOf(step.remote.path))
    else if (step.do === 'keep-both' || step.do === 'conflict') busy.add(step.key)
  }
  let count = 0
  for (const [key, { kind }] of source) if (kind === 'file' && !busy.has(key)) count++
  return count
}

/** Directories that the run needs above everything else. */
async function makeRoots<P extends Plan>(
  { api }: RunContext,
  job: Job<P>,
  plan: P,
  onMade: (id: number) => void,
  signal: AbortSignal,
): Promise<{ node: RemoteNode; isEncrypted: boolean }> {
  const { pair } = job
  const { container } = plan
  if (!isFromHere(pair)) {
    try {
      mkdirSync(pair.local, { recursive: true })
    } catch (error) {
      throw localError(error, `create ${pair.local}`)
    }
  }
  let { node } = container
  let base = container.above
  if (node === undefined && job.makeRemote !== undefined) node = await job.makeRemote(plan, signal)
  else
    for (const name of container.missing) {
      const made = await makeFolder(api, base.id, escapeName(name), signal)
      node = made.node
      if (made.isNew) onMade(node.id)
      base = { ...node, isEncrypted: base.isEncrypted === true || node.isEncrypted === true }
    }
  if (node === undefined) throw new Error('no remote root')
  return { node, isEncrypted: base.isEncrypted === true }
}

async function carryOut<P extends Plan>(
  context: RunContext,
  job: Job<P>,
  state: Memory,
  plan: P,
  runId: string,
  limits: Limits,
): Promise<SyncSummary> {
  const { clock } = context
  const { pair } = job
  const signal = limits.signal ?? never
  const startedAt = clock.now()
  const deadline = limits.maxDurationMs === undefined ? undefined : clock.monotonic() + limits.maxDurationMs
  const pending: Pending[] = []
  const inconsistent: EntryFailure[] = []
  const sent = plan.steps.flatMap((step) => (step.do === 'upload' || step.do === 'keep-both' ? [step.local] : []))
  const uploader = job.isSending
    ? await openUploader(context, {
        signal,
        isEncrypted: plan.container.above.isEncrypted === true,
        isHashed: job.isHashed?.(plan) ?? false,
        files: job.alwaysSends === true ? [...sent, { size: 0 }] : sent,
        partSize: limits.partSize,
        checkOutput: limits.checkOutput,
        journal: job.directory && journalOf(job.directory),
        onRefused: ({ member, error }) => pending.push({ what: 'member', name: member, error }),
        // It is stored, so it keeps nothing from being deleted.
        onInconsistent: (failure) => inconsistent.push(failure),
        memory: limits.memory,
        links: limits.keepShareLinks === true ? shareKeysOf(context) : undefined,
      })
    : undefined
  let result: ApplyResult | undefined
  try {
    await uploader?.retireOthers(new Set(sent.map(({ source }) => source)))
    await uploader?.ready()
    const onMade = (id: number) => void state.addDeed(runId, { do: 'created-remote', path: '', id, isFolder: true })
    const roots = await makeRoots(context, job, plan, onMade, signal)
    const running: Running = { context, state, runId, startedAt, ...roots, uploader, signal }
    const begun = (await job.begin?.(running, plan)) ?? {}
    for (const { path, error } of [...plan.failures, ...plan.missing]) report(context, path, error)
    // What comes back from a backup of one's own is nobody else's.
    const isOwn = isFromHere(pair) || job.command === 'restore'
    if (!isOwn) await context.rules?.hold(pair.local, plan.steps)
    result = await applySteps(context, plan.steps, targetOf(job, plan, roots.node), state, {
      ...begun,
      jobs: limits.jobs,
      signal,
      maxTransfer: limits.maxTransfer,
      deadline,
      memory: limits.memory,
      runId,
      names: limits.names,
      uploader,
      leftovers: plan.leftovers,
      hasBin: job.directory !== undefined,
      isFromHere: isFromHere(pair),
    })
    for (const failure of begun.failed ?? []) result.tally.failed.push(failure)
    if (!isOwn) for (const one of await rulesThatWait(context, job)) pending.push(one)
    if (result.tally.stoppedBy === undefined) {
      const failed = [...plan.failures, ...plan.missing, ...result.tally.failed, ...inconsistent]
      const done = { failed, bytes: result.tally.bytes, left: result.left }
      for (const failure of (await job.end?.(running, plan, begun, done)) ?? []) result.tally.failed.push(failure)
      const { roomId, missingKeys } = plan.container
      await uploader?.handOut(roomId, sent.length === 0 ? missingKeys : undefined)
    }
  } catch (error) {
    if (result === undefined) throw error
    result.tally.stoppedBy ??= toSyncError(signal.aborted ? signal.reason : error)
  } finally {
    await uploader?.close().catch((error) => {
      if (result !== undefined) result.tally.stoppedBy ??= toSyncError(error)
    })
  }
  for (const one of pending) result.tally.pending.push(one)
  // What was found before anything was done is told first.
  const later = [...result.tally.failed.splice(0), ...inconsistent]
  for (const failure of [...plan.failures, ...plan.missing, ...later]) result.tally.failed.push(failure)
  return summaryOf(job, runId, plan, result)
}

const targetOf = ({ pair, command }: Pick<Job, 'pair' | 'command'>, plan: Plan, node: RemoteNode) => ({
  // The places of a set are those of this machine.
  root: command === 'upload' ? '' : command === 'backup' ? '/' : pair.local,
  container: { id: node.id, roomId: plan.container.roomId },
  remote: plan.remote,
  records: plan.records,
})

/** Says what a run would find wrong. */
function lookOnly(context: RunContext, job: Job, plan: Plan): SyncSummary {
  const summary = summaryOf(job, '', plan, undefined)
  for (const { path, error } of summary.failed) report(context, path, error)
  for (const one of summary.pending ?? []) tell(context, one)
  return summary
}

const tell = ({ onEvent }: RunContext, { name, error: { code, message } }: Pending) =>
  onEvent?.({ type: 'warning', code, message: `${name}: ${message}` })

/** Takes note of the rules that have come, and says which wait. */
async function rulesThatWait(context: RunContext, { pair, command }: Job): Promise<Pending[]> {
  const held = (await context.rules?.note(pair.local)) ?? []
  // They do not count for downloads, so nobody has to do anything about them.
  if (command === 'download') return []
  return held.map((one) => {
    const { path, error } = notAccepted(relative(pair.local, one.path), one)
    const pending: Pending = { what: 'rules', name: path, error }
    tell(context, pending)
    return pending
  })
}

function summaryOf({ pair }: Job, runId: string, plan: Plan, result: ApplyResult | undefined): SyncSummary {
  const { steps, ignored, files } = plan
  const common = { runId, pair, steps, ignored, files }
  if (result === undefined) {
    const pending = plan.selection.unaccepted.map(({ path, error }) => ({ what: 'rules', name: path, error }) as const)
    return {
      ...common,
      skipped: plan.skipped,
      transferred: 0,
      bytes: 0,
      moved: 0,
      deleted: 0,
      kept: 0,
      left: 0,
      conflicts: [],
      failed: [...plan.failures, ...plan.missing],
      ...(pending.length === 0 ? {} : { pending }),
    }
  }
  const { tally, moved, deleted, kept, left, conflicts } = result
  return {
    ...common,
    skipped: plan.skipped + tally.skipped,
    transferred: tally.transferred,
    bytes: tally.bytes,
    moved,
    deleted,
    kept,
    left,
    conflicts,
    failed: tally.failed,
    ...(tally.pending.length === 0 ? {} : { pending: tally.pending }),
    ...(tally.stoppedBy === undefined ? {} : { stoppedBy: tally.stoppedBy }),
  }
}
