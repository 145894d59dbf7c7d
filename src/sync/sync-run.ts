/**
 * Brings a local and a remote directory together: looks at both, plans, checks that the plan is not a disaster, and carries it
 * out.
 * @module
 */
import { existsSync, mkdirSync, realpathSync } from 'node:fs'
import { hostname } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { getNode } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { localError, SyncError, toSyncError } from '../errors.ts'
import { writePrivateFile } from '../local/atomic-file.ts'
import { escapeName, type Names } from '../local/names.ts'
import { sweepDirectory } from '../local/partial-file.ts'
import { foldsCase, usuallyFoldsCase } from '../local/target.ts'
import { type ApplyResult, applySteps } from './apply.ts'
import { type GuardOptions, guardEmptied, guardExtent, guardRoots } from './guards.ts'
import { notAccepted } from './held-rules.ts'
import {
  isAsRecorded,
  isListingOf,
  type Listed,
  listedAs,
  readChangedTree,
  recordedItems,
  recordedTree,
  tellPlaces,
} from './known-tree.ts'
import { lookAt } from './local-move.ts'
import type { Pending } from './outcome.ts'
import { isChange, type PairPlan, type PlanLine, planLine, requireSamePlan } from './plan-file.ts'
import { heldTo, lookAtManifest, takeManifest } from './pull-manifest.ts'
import { storeManifest, withoutManifest } from './push-manifest.ts'
import { type Direction, type ReconcileOptions, reconcile, type SyncStep } from './reconcile.ts'
import { recover } from './recovery.ts'
import { ensureFolder, parseRemotePath, resolveRemote, roomOf } from './remote-path.ts'
import { admitTarget, never, type RunContext, report, requireEncryptedSource } from './run.ts'
import {
  arrangeRemote,
  type Blocked,
  createBlocked,
  identifyRoot,
  keyOf,
  type RemoteScan,
  type ScanOptions,
  scanLocal,
  scanRemote,
} from './scan.ts'
import { createSelection, type Selection, type SelectionOptions } from './select.ts'
import { openState, type Pair, type SyncState, stateDirectory } from './state.ts'
import { type EntryFailure, type LocalEntry, within } from './tree.ts'
import { openUploader } from './uploader.ts'

export interface SyncOptions extends Omit<GuardOptions, 'direction'> {
  readonly direction: Direction
  /** Delete what is gone on the other side. */
  readonly delete?: boolean
  readonly checksum?: boolean
  readonly onConflict?: ReconcileOptions['onConflict']
  readonly prefer?: ReconcileOptions['prefer']
  readonly selection?: SelectionOptions
  /** Do not enter directories on other devices. */
  readonly oneFileSystem?: boolean
  /** What to do with names that the other side cannot hold. Default `report`; the same in all runs of a pair. */
  readonly names?: Names | undefined
  readonly requireEncryption?: boolean | undefined
  /** Push, both: see `UploadOptions`. */
  readonly allowPlain?: boolean | undefined
  /** Push: store a manifest; pull: take permissions, links and exact times from it. Default true. */
  readonly manifest?: boolean
  readonly jobs?: number
  readonly partSize?: number
  readonly memory?: number
  /** Bytes after which no more transfers begin. */
  readonly maxTransfer?: number
  /** Milliseconds after which no more transfers begin. */
  readonly maxDurationMs?: number
  /** Plan only. */
  readonly dryRun?: boolean
  /** Do exactly this, or nothing. */
  readonly planned?: readonly PlanLine[]
  /** Private directory of all states, and whose they are. */
  readonly state: { readonly directory: string; readonly account: string }
  readonly signal?: AbortSignal
}

export interface SyncSummary {
  readonly runId: string
  readonly pair: Pair
  /** What would be done, or was to be done. */
  readonly steps: readonly SyncStep[]
  /** Files on either side, as far as they take part. */
  readonly files: number
  readonly transferred: number
  readonly bytes: number
  readonly moved: number
  readonly deleted: number
  /** Gone on one side and left on the other. */
  readonly kept: number
  readonly ignored: number
  /** Not begun because a limit was reached. */
  readonly left: number
  readonly conflicts: readonly { readonly path: string; readonly copy: string }[]
  readonly failed: readonly EntryFailure[]
  /** Absent: nothing. */
  readonly pending?: readonly Pending[]
  readonly stoppedBy?: SyncError
}

/** A pair by the names under which people give it. */
export function pairOf(account: string, local: string, remote: string): Pair {
  const path = resolve(local)
  let real = path
  try {
    real = realpathSync(path)
  } catch {
    // It is not there yet, or cannot be seen; that is told later.
  }
  return { account, local: real, remote: `/${parseRemotePath(remote).join('/')}` }
}

/**
 * One run over a pair of directories.
 *
 * @returns the summary, also when something stopped it (`stoppedBy`) after it had begun to change things.
 * @throws {SyncError} for what is wrong before anything is changed; of class `safety` when a guard says no.
 */
export async function runSync(
  context: RunContext,
  local: string,
  remote: string,
  options: SyncOptions,
): Promise<SyncSummary> {
  const { clock } = context
  const pair = pairOf(options.state.account, local, remote)
  const directory = stateDirectory(options.state.directory, pair)
  if (options.dryRun && !existsSync(directory)) {
    return lookOnly(context, pair, await look(context, pair, NOTHING_KNOWN, directory, options))
  }
  const state = await openState(directory, pair, clock.now(), (keptAs) =>
    context.onEvent?.({
      type: 'warning',
      code: 'STATE_DAMAGED',
      message: `The state was damaged; it was put aside as ${keptAs}`,
    }),
  )
  const begin = () =>
    state.beginRun({ command: options.direction, startedAt: clock.now(), options: optionsOf(options) })
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
  await attempt(async () => {
    if (!options.dryRun) recover(state, clock.now())
    const plan = await look(context, pair, state, directory, options)
    if (options.dryRun) {
      summary = lookOnly(context, pair, plan)
      return
    }
    runId = begin()
    summary = await carryOut(context, pair, state, directory, plan, runId, options)
    state.endRun(runId, { endedAt: clock.now(), ...outcomeOf(summary) })
  })
  if (summary === undefined && !options.dryRun) {
    const { code, message } = toSyncError(failure)
    await attempt(() =>
      state.endRun(runId ?? begin(), { endedAt: clock.now(), outcome: 'stopped', error: { code, message } }),
    )
  }
  await attempt(state.flush)
  await attempt(state.close)
  return endOf(summary, failure)
}

/** What was done is told, also when it could not be written down in the end. */
export function endOf<T extends { readonly stoppedBy?: SyncError }>(summary: T | undefined, failure: unknown): T {
  if (summary === undefined) throw failure
  return failure === undefined ? summary : { ...summary, stoppedBy: summary.stoppedBy ?? toSyncError(failure) }
}

/** A look begins no state. */
const NOTHING_KNOWN: Known = Object.freeze({
  roots: undefined,
  listed: undefined,
  isAsListed: false,
  records: () => new Map(),
})

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

type Known = Pick<SyncState, 'roots' | 'listed' | 'isAsListed' | 'records'>

/** What was found on both sides, and what follows from it. */
interface Plan {
  readonly steps: readonly SyncStep[]
  readonly container: Awaited<ReturnType<typeof openRemote>>
  readonly local: Awaited<ReturnType<typeof scanLocal>>
  readonly remote: RemoteScan
  /** When this was found by a listing that found nothing but what is recorded. */
  readonly listed: Listed | undefined
  readonly records: ReturnType<SyncState['records']>
  readonly failures: readonly EntryFailure[]
  /** What was asked for by name and is not there. */
  readonly missing: readonly EntryFailure[]
  readonly ignored: number
  readonly selection: Selection
}

async function look(
  context: RunContext,
  pair: Pair,
  state: Known,
  directory: string,
  options: SyncOptions,
): Promise<Plan> {
  const { direction } = options
  const { roots } = state
  const signal = options.signal ?? never
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const container = await openRemote(context, pair, roots !== undefined, signal)
  const localRoot = openLocal(pair, roots !== undefined, direction)
  guardRoots(pair, roots, { local: localRoot, remote: container.node }, options)
  if (direction === 'pull') requireEncryptedSource(container.above as RemoteNode, pair.remote, options)
  else if (container.above.id !== 0) {
    await admitTarget(context, container.above, container.missing, pair.remote, options)
  }
  if (localRoot === undefined || container.node === undefined)
    requireBeginning(pair, direction, container.node !== undefined)

  // Somebody has said that these are other roots: what is known is about the old ones.
  const isSameRoots =
    roots !== undefined &&
    container.node?.id === roots.remoteId &&
    (localRoot?.dev === roots.dev || localRoot?.ino === roots.ino)
  const records: Plan['records'] = isSameRoots ? state.records() : new Map()
  const selection = createSelection(options.selection ?? {}, context.clock.now(), context.rules?.look())
  const blocked = createBlocked()
  const { names, oneFileSystem = false } = options
  const how = { selection, blocked, signal, names, oneFileSystem }
  const here =
    localRoot === undefined
      ? {
          items: new Map(),
          failures: [],
          ignored: 0,
          root: { dev: 0, ino: 0 },
          links: [],
          leftovers: new Set<string>(),
        }
      : await scanLocal(pair.local, how)
  const foldCase =
    direction !== 'push' && localRoot !== undefined && (options.dryRun ? usuallyFoldsCase() : foldsCase(pair.local))
  const there: ThereScan =
    container.node === undefined
      ? { items: new Map(), failures: [], ignored: 0 }
      : await lookThere(
          context,
          container.node,
          container.roomId,
          isSameRoots && options.checksum !== true ? state : {},
          records,
          { ...how, foldCase },
        )
  for (const scan of [here, there]) {
    for (const key of scan.items.keys()) if (blocked.has(key)) scan.items.delete(key)
  }
  const count = (items: Iterable<{ readonly kind: string }>) => {
    let files = 0
    for (const { kind } of items) if (kind === 'file') files++
    return files
  }
  // Of what does not take part nothing is missing.
  let known = 0
  for (const [key, { path, kind }] of records) {
    if (kind === 'file' && !blocked.has(key) && selection.takes(path.split('/'), kind)) known++
  }
  guardEmptied(pair, { local: count(here.items.values()), remote: count(there.items.values()), known }, options)
  const failures = [...here.failures, ...there.failures]
  const missing = selection.missing(isAskedFor(options, here, there, blocked))
  const steps = reconcile(
    {
      local: here.items,
      remote: there.items,
      records,
      blocked,
      isFirst: !isSameRoots || !roots.isSettled,
      isIncomplete: failures.length > 0,
      links: new Map(here.links.map((path) => [keyOf(path), path])),
      foldsCase: direction === 'push' ? answersToOtherCase(pair.local, here.items.values()) : foldCase,
    },
    {
      direction,
      delete: options.delete ?? false,
      checksum: options.checksum ?? false,
      ...(options.onConflict === undefined ? {} : { onConflict: options.onConflict }),
      ...(options.prefer === undefined ? {} : { prefer: options.prefer }),
      conflictName: namesConflicts(hostname(), context.clock.now()),
    },
  )
  if (options.planned !== undefined) {
    requireSamePlan(options.planned, steps.filter(isChange).map(planLine))
  } else if (!options.dryRun) {
    try {
      guardExtent(steps, known, options)
    } catch (error) {
      throw await withSavedPlan(error, directory, pair, options, steps, context.clock.now())
    }
  }
  return {
    steps,
    container,
    local: here,
    remote: there,
    listed: there.listed,
    records,
    failures,
    missing,
    ignored: here.ignored + there.ignored,
    selection,
  }
}

/** A mirror is asked for what is at its source; where it may delete, also for what is to go. */
function isAskedFor(
  { direction, delete: deletes }: SyncOptions,
  here: Pick<Plan['local'], 'items'>,
  there: Pick<RemoteScan, 'items'>,
  blocked: Blocked,
): (key: string) => boolean {
  const sides = [
    ...(direction === 'pull' && !deletes ? [] : [here.items]),
    ...(direction === 'push' && !deletes ? [] : [there.items]),
  ]
  return (key) => key === '' || blocked.has(key) || sides.some((items) => items.has(key))
}

/** True when a disk takes names for one that differ in case only. Looks, and writes nothing: a source may be for reading only. */
function answersToOtherCase(root: string, entries: Iterable<LocalEntry>): boolean {
  for (const { path, ino } of entries) {
    const name = path.at(-1)!
    const other = name === name.toUpperCase() ? name.toLowerCase() : name.toUpperCase()
    if (other === name) continue
    return lookAt(join(root, ...path.slice(0, -1), other))?.ino === ino
  }
  return false
}

interface ThereScan extends RemoteScan {
  readonly listed?: Listed
}

/** What is there: from the records, if it is what the last listing found and they say the same, else from a new one. */
async function lookThere(
  { api, clock }: RunContext,
  root: RemoteNode,
  roomId: number,
  { listed, isAsListed }: Partial<Pick<SyncState, 'listed' | 'isAsListed'>>,
  records: Plan['records'],
  how: ScanOptions & { readonly foldCase: boolean },
): Promise<ThereScan> {
  let scan: RemoteScan | undefined
  let at = clock.now()
  if (listed !== undefined) {
    if (root.isEncrypted !== true) tellPlaces(api, records, root)
    const now = within(root, await getNode(api, root.id, how.signal))
    const isListing = isListingOf(listed, now, at, how.names)
    if (isListing && isAsListed && now.branchVersion === listed.version) {
      await api.places?.enter(root.id)
      // Names that meet are told by `arrangeRemote` only.
      const { manifest } = listed
      if (how.foldCase || !how.selection.isEverything) {
        return { ...arrangeRemote(recordedTree(records, root, roomId), how), manifest }
      }
      return { items: recordedItems(records, root, roomId), failures: [], ignored: 0, manifest }
    }
    const tree = isListing ? await readChangedTree(api, now, roomId, records, listed, how.signal) : undefined
    if (tree !== undefined) {
      scan = { ...arrangeRemote(tree.entries, how), version: tree.version }
      at = listed.at
    }
  }
  scan ??= await scanRemote(api, root, roomId, how)
  if (scan.version === undefined || !isAsRecorded(scan, records, root)) return scan
  return { ...scan, listed: listedAs(root, scan.version, at, how.names, scan.manifest) }
}

/** The remote root, if it is there, and what it is or will be below. */
async function openRemote(context: RunContext, pair: Pair, isKnown: boolean, signal: AbortSignal) {
  const { found, missing } = await resolveRemote(context.api, pair.remote, signal)
  const above = found.at(-1)
  if (above === undefined) {
    if (missing.length === 0) {
      throw new SyncError('usage', 'TARGET_IS_ROOT', 'The root holds rooms only', { hint: 'Name a room: /room' })
    }
    if (!isKnown) {
      throw new SyncError('not_found', 'REMOTE_MISSING', `There is no room /${missing[0]}, or you cannot see it`, {
        hint: 'List what is there: sync ls /',
      })
    }
    return { node: undefined, above: { id: 0, isEncrypted: true }, missing, roomId: 0 }
  }
  if (above.type === 'file') {
    throw new SyncError('usage', 'TARGET_IS_FILE', `The remote path is a file: ${pair.remote}`, {
      hint: 'Name a room or folder.',
    })
  }
  return { node: missing.length === 0 ? above : undefined, above, missing, roomId: roomOf(found) }
}

function openLocal(pair: Pair, isKnown: boolean, direction: Direction) {
  try {
    return identifyRoot(pair.local)
  } catch (error) {
    const isMissing = error instanceof SyncError && error.code === 'SOURCE_MISSING'
    if (isMissing && (isKnown || direction === 'pull')) return undefined
    throw error
  }
}

/** A target may begin here; a source has to be there. */
function requireBeginning(pair: Pair, direction: Direction, isRemoteThere: boolean): void {
  if (!isRemoteThere && direction === 'pull') {
    throw new SyncError(
      'not_found',
      'REMOTE_MISSING',
      `There is no ${pair.remote} on the server, or you cannot see it`,
      {
        hint: 'List what is there: sync ls /',
      },
    )
  }
}

/** `name (conflict HOST DATE).ext` */
export function namesConflicts(host: string, now: number): ReconcileOptions['conflictName'] {
  const where = host.replace(/[^\p{L}\p{N}_-]/gu, '').slice(0, 30) || 'here'
  const when = new Date(now).toISOString().slice(0, 19).replace('T', ' ').replaceAll(':', '.')
  return (name) => {
    const dot = name.lastIndexOf('.')
    const [stem, extension] = dot > 0 && name.length - dot < 20 ? [name.slice(0, dot), name.slice(dot)] : [name, '']
    const mark = ` (conflict ${where} ${when})${extension}`
    const room = MAX_NAME - Buffer.byteLength(mark)
    let short = stem
    while (Buffer.byteLength(short) > room) short = [...short].slice(0, -1).join('')
    return `${short}${mark}`
  }
}

/** Bytes, with room for what the server forbids and for a number. */
const MAX_NAME = 120

async function withSavedPlan(
  thrown: unknown,
  directory: string,
  pair: Pair,
  options: SyncOptions,
  steps: readonly SyncStep[],
  now: number,
): Promise<unknown> {
  const error = toSyncError(thrown)
  if (error.class !== 'safety') return thrown
  const path = `${directory}/plan-${new Date(now).toISOString().replace(/[-:]|\.\d+/g, '')}.json`
  await writePrivateFile(path, `${JSON.stringify(planFileOf(pair, options, steps, now), undefined, 1)}\n`)
  return new SyncError(error.class, error.code, error.message, {
    hint: `Nothing was done. The plan is in ${path}: look at it, then apply it with: sync apply ${path}`,
    cause: error,
  })
}

/** The options that decide what a run does. */
function optionsOf({ selection = {}, ...options }: SyncOptions): PairPlan['options'] {
  const {
    delete: deletes = false,
    checksum = false,
    onConflict,
    prefer,
    oneFileSystem = false,
    names = 'report',
    manifest = true,
  } = options
  return {
    delete: deletes,
    checksum,
    oneFileSystem,
    names,
    selection,
    ...(manifest ? {} : { manifest }),
    ...(onConflict === undefined ? {} : { onConflict }),
    ...(prefer === undefined ? {} : { prefer }),
  }
}

/** A plan with all it needs to be made again. */
export const planFileOf = (pair: Pair, options: SyncOptions, steps: readonly SyncStep[], now: number): PairPlan => ({
  format: 'sealsync-plan',
  version: 1,
  createdAt: new Date(now).toISOString(),
  direction: options.direction,
  local: pair.local,
  remote: pair.remote,
  options: optionsOf(options),
  steps: steps.filter(isChange).map(planLine),
})

async function carryOut(
  context: RunContext,
  pair: Pair,
  state: SyncState,
  directory: string,
  plan: Plan,
  runId: string,
  options: SyncOptions,
): Promise<SyncSummary> {
  const { api, clock } = context
  const signal = options.signal ?? never
  const startedAt = clock.now()
  const deadline = options.maxDurationMs === undefined ? undefined : clock.monotonic() + options.maxDurationMs
  const pending: Pending[] = []
  const inconsistent: EntryFailure[] = []
  const sent = plan.steps.flatMap((step) => (step.do === 'upload' || step.do === 'keep-both' ? [step.local] : []))
  // What two sides have in common is not what one of them was.
  const hasManifest = options.manifest !== false && options.direction !== 'both'
  const isEncryptedThere = plan.container.above.isEncrypted === true
  const uploader = await openUploader(withoutManifest(context), {
    signal,
    isEncrypted: isEncryptedThere,
    isHashed: hasManifest && isEncryptedThere && options.direction === 'push',
    files: sent,
    partSize: options.partSize,
    journal: `${directory}/uploads`,
    onRefused: ({ member, error }) => pending.push({ what: 'member', name: member, error }),
    // It is stored, so it keeps nothing from being deleted.
    onInconsistent: (failure) => inconsistent.push(failure),
    ...(options.memory === undefined ? {} : { memory: options.memory }),
  })
  let result: ApplyResult | undefined
  try {
    await uploader.retireOthers(new Set(sent.map(({ path }) => join(pair.local, ...path))))
    await uploader.ready()
    if (plan.local.root.ino === 0) {
      try {
        mkdirSync(pair.local, { recursive: true })
      } catch (error) {
        throw localError(error, `create ${pair.local}`)
      }
    }
    let { node } = plan.container
    let base = plan.container.above
    for (const name of plan.container.missing) {
      node = await ensureFolder(api, base.id, escapeName(name), signal)
      base = { ...node, isEncrypted: base.isEncrypted === true || node.isEncrypted === true }
    }
    if (node === undefined) throw new Error('no remote root')
    const isEncrypted = base.isEncrypted === true
    const roots = { ...identifyRoot(pair.local), remoteId: node.id, isEncrypted }
    // Roots that are not the ones of the records make them worthless.
    if (plan.records.size === 0) for (const key of state.records().keys()) state.remove(key)
    state.setRoots({ ...roots, isSettled: plan.records.size > 0 && state.roots?.isSettled === true })
    if (plan.listed !== undefined) state.setListed(plan.listed)
    for (const { path, error } of [...plan.failures, ...plan.missing]) report(context, path, error)
    for (const left of plan.local.leftovers) await sweepDirectory(left, clock)
    const target = {
      root: pair.local,
      container: { id: node.id, roomId: plan.container.roomId },
      remote: plan.remote.items,
      records: plan.records,
    }
    // A part of the tree is no tree.
    const takesPart = hasManifest && isEncrypted && options.selection?.paths === undefined
    const acceptAny = options.acceptRoots === true
    const found = plan.remote.manifest
    // What is fetched is held to the manifest, which is fetched in any case.
    const isPulled = takesPart && options.direction === 'pull' && plan.steps.some((step) => step.do === 'download')
    const looked =
      isPulled && found !== undefined
        ? await lookAtManifest(context, found, { state, container: target.container, acceptAny, signal })
        : undefined
    await context.rules?.hold(pair.local, plan.steps)
    result = await applySteps(context, plan.steps, target, state, {
      ...(options.jobs === undefined ? {} : { jobs: options.jobs }),
      signal,
      ...(options.maxTransfer === undefined ? {} : { maxTransfer: options.maxTransfer }),
      ...(deadline === undefined ? {} : { deadline }),
      ...(options.memory === undefined ? {} : { memory: options.memory }),
      runId,
      names: options.names,
      uploader,
      acceptAny,
      ...(looked === undefined ? {} : { heldTo: heldTo(looked) }),
    })
    for (const one of await rulesThatWait(context, pair.local)) pending.push(one)
    if (result.tally.stoppedBy === undefined) {
      if (takesPart) {
        const at = { state, runId, root: pair.local, container: target.container, found }
        const how = { ...at, signal, acceptAny }
        const told =
          options.direction === 'push'
            ? await storeManifest(context, { ...how, directory, links: plan.local.links, uploader, startedAt })
            : await takeManifest(context, {
                ...how,
                selection: plan.selection,
                looked,
                isUnchanged: !plan.steps.some(isChange),
              })
        for (const failure of told) result.tally.failed.push(failure)
      }
      await uploader.handOut(plan.container.roomId)
      state.setRoots({ ...roots, isSettled: true })
    }
  } catch (error) {
    if (result === undefined) throw error
    result.tally.stoppedBy ??= toSyncError(signal.aborted ? signal.reason : error)
  } finally {
    await uploader.close().catch((error) => {
      if (result !== undefined) result.tally.stoppedBy ??= toSyncError(error)
    })
  }
  for (const one of pending) result.tally.pending.push(one)
  // What was found before anything was done is told first.
  const later = [...result.tally.failed.splice(0), ...inconsistent]
  for (const failure of [...plan.failures, ...plan.missing, ...later]) result.tally.failed.push(failure)
  return summaryOf(pair, runId, plan, result)
}

/** Says what a run would find wrong. */
function lookOnly(context: RunContext, pair: Pair, plan: Plan): SyncSummary {
  const summary = summaryOf(pair, '', plan, undefined)
  for (const { path, error } of summary.failed) report(context, path, error)
  for (const one of summary.pending ?? []) tell(context, one)
  return summary
}

const pendingOf = (pending: readonly Pending[]) => (pending.length === 0 ? {} : { pending })

const tell = ({ onEvent }: RunContext, { name, error: { code, message } }: Pending) =>
  onEvent?.({ type: 'warning', code, message: `${name}: ${message}` })

/** Takes note of the rules that have come, and says which wait. */
async function rulesThatWait(context: RunContext, root: string): Promise<Pending[]> {
  const held = (await context.rules?.note(root)) ?? []
  return held.map((one) => {
    const { path, error } = notAccepted(relative(root, one.path), one)
    const pending: Pending = { what: 'rules', name: path, error }
    tell(context, pending)
    return pending
  })
}

function summaryOf(pair: Pair, runId: string, plan: Plan, result: ApplyResult | undefined): SyncSummary {
  const { steps, ignored, local, remote } = plan
  let files = 0
  for (const { kind } of local.items.values()) if (kind === 'file') files++
  for (const [key, { kind }] of remote.items) if (kind === 'file' && local.items.get(key)?.kind !== 'file') files++
  const common = { runId, pair, steps, ignored, files }
  if (result === undefined) {
    return {
      ...common,
      transferred: 0,
      bytes: 0,
      moved: 0,
      deleted: 0,
      kept: 0,
      left: 0,
      conflicts: [],
      failed: [...plan.failures, ...plan.missing],
      ...pendingOf(plan.selection.unaccepted.map(({ path, error }) => ({ what: 'rules', name: path, error }))),
    }
  }
  const { tally, moved, deleted, kept, left, conflicts } = result
  return {
    ...common,
    transferred: tally.transferred,
    bytes: tally.bytes,
    moved,
    deleted,
    kept,
    left,
    conflicts,
    failed: tally.failed,
    ...pendingOf(tally.pending),
    ...(tally.stoppedBy === undefined ? {} : { stoppedBy: tally.stoppedBy }),
  }
}
