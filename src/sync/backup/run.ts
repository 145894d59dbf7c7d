/**
 * One run of a backup set: what has changed goes up, what it replaces or what is gone moves into the history, and last of all
 * the manifest makes the run visible. A run that is killed leaves content without a manifest; the next one goes on from there.
 * @module
 */
import { lstatSync, rmSync, statSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { getFileKey } from '../../api/file-keys.ts'
import { deleteNode, moveNodes } from '../../api/nodes.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { escapeName, type Names } from '../../local/names.ts'
import type { SourceIdentity } from '../../local/stable-read.ts'
import type { AsOf } from '../../transfer/upload.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from '../outcome.ts'
import { localIdentity, sealOf } from '../records.ts'
import { DEFAULT_JOBS, isSameContent, never, type RunContext, type RunEvent, report } from '../run.ts'
import { createBlocked, keyOf, lookLocal, parentKey, type RemoteItem, scanRemote } from '../scan.ts'
import { createSelection } from '../select.ts'
import type { EntryFailure } from '../tree.ts'
import { openUploader, type Sent, type Uploader } from '../uploader.ts'
import { removeDeadDrill } from './drill.ts'
import { hashFile } from './hash.ts'
import { type BackupEntry, type FileEntry, type Manifest, type ManifestHead, writeManifest } from './manifest.ts'
import { type BackupGuards, type BackupPlan, guardRemoved, guardSources, planBackup, type StoreStep } from './plan.ts'
import { futureText, runsFromFuture } from './prune.ts'
import { manifestName, noteOf, openRuns, type Runs } from './runs.ts'
import { type BackupSet, compareRuns, nextRun, RUNS, type RunNote } from './set.ts'
import { commonOf, describe, type SourceScan, scanSources } from './source.ts'
import { type BackupState, type Known, type SetMemory, type StatePlace, withState } from './state.ts'
import { createFolders, findNode, findStore, makeStore, moveAll, type Store } from './store.ts'

export interface BackupOptions extends BackupGuards {
  readonly state: StatePlace
  /** Take what the server has for what it should have, from now on. */
  readonly acceptRuns?: boolean
  readonly dryRun?: boolean
  /** What to do with names that the server cannot hold. Default `report`; the same in all runs of a set. */
  readonly names?: Names | undefined
  readonly jobs?: number
  readonly partSize?: number
  readonly memory?: number
  /** How long to wait for another run of the set to end. Milliseconds. */
  readonly waitMs?: number
  readonly signal?: AbortSignal
}

export interface BackupSummary extends RunSummary {
  /** Absent: there is no new point in time. */
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
export async function runBackup(context: RunContext, set: BackupSet, options: BackupOptions): Promise<BackupSummary> {
  const signal = options.signal ?? never
  return withState(context, set, options, signal, (state) => run(context, set, state, options, signal))
}

async function run(
  context: RunContext,
  set: BackupSet,
  state: BackupState,
  options: BackupOptions,
  signal: AbortSignal,
): Promise<BackupSummary> {
  const { api, clock } = context
  const startedAt = clock.now()
  await removeDeadDrill(state.directory, clock)
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const scan = await look(set, state.memory, startedAt, signal, options.names)
  const memory = options.acceptRuns ? undefined : state.memory
  let store = await findStore(api, set, signal)
  if (memory !== undefined && store?.target.id !== memory.targetId) throw replaced(set)
  const isFirst = store === undefined
  const runs: Runs =
    store === undefined
      ? { notes: [], problems: [], isPinned: false, missing: 0 }
      : await openRuns(context, set, store, memory, signal)
  const known = runs.newest === undefined ? state.files : rebuild(state, runs.newest, options.dryRun ?? false)
  const remote =
    store === undefined
      ? new Map<string, RemoteItem>()
      : await listFiles(context, store, startedAt, signal, options.names)
  if (state.memory === undefined && runs.notes.length === 0 && remote.size > 0) throw notEmpty(set)
  if (state.memory === undefined && runs.notes.length > 0) warnUnpinned(context, runs)
  const future = runsFromFuture(runs.notes, startedAt)
  if (future.length > 0)
    context.onEvent?.({ type: 'warning', code: 'RUN_FROM_FUTURE', message: futureText(future, startedAt) })
  const plan = planBackup(scan, known, remote)
  guardSources(scan, known, state.memory, options)
  // What could not be listed may be there.
  const removed = scan.isIncomplete ? 0 : plan.removed.size
  if (!options.dryRun) guardRemoved('files are gone from the sources', removed, known.size, options)

  const tally = createTally()
  tally.files = scan.files.size
  tally.skipped = plan.unchanged.length
  for (const failure of [...runs.problems, ...scan.failures]) {
    tally.failed.push(failure)
    report(context, failure.path, failure.error)
  }
  const created = plan.store.filter((step) => step.known === undefined).length
  const counts = { created, changed: plan.store.length - created, unchanged: plan.unchanged.length, removed }
  if (options.dryRun) {
    tally.bytes = plan.store.reduce((sum, { local }) => sum + local.size, 0)
    return { ...summarize(tally, scan.ignored), ...counts, isComplete: scan.failures.length === 0 }
  }
  if (store === undefined) {
    store = await makeStore(api, set, signal)
    // Somebody else's folder may have this name.
    if (memory === undefined && (await listFiles(context, store, startedAt, signal, options.names)).size > 0)
      throw notEmpty(set)
  }
  if (isFirst || memory === undefined) await state.setMemory(begin(set, store, state.memory, runs))
  return carryOut(context, set, state, { store, scan, runs, known, plan, tally, counts, startedAt }, options, signal)
}

/** Sources that were there are not just missing, they may not be mounted. */
async function look(
  set: BackupSet,
  memory: SetMemory | undefined,
  now: number,
  signal: AbortSignal,
  names: Names | undefined,
): Promise<SourceScan> {
  try {
    return await scanSources(set, now, signal, names)
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

function warnUnpinned(context: RunContext, { notes, missing }: Runs): void {
  context.onEvent?.({ type: 'warning', code: 'NOT_PINNED', message: unpinnedText(notes, missing) })
}

/** What a machine without memory of a set cannot know. */
export const unpinnedText = (notes: readonly RunNote[], missing: number): string =>
  `This machine knows nothing of the set yet, so an older state at the server could not be noticed; the newest run there is ` +
  `${notes.at(-1)?.run ?? 'none'}${missing > 0 ? `, and ${missing} that it knows of are gone (pruned?)` : ''}`

/** A memory that begins with what the server has. */
const begin = ({ name }: BackupSet, store: Store, old: SetMemory | undefined, { notes }: Runs): SetMemory => ({
  version: 1,
  set: name,
  targetId: store.target.id,
  sources: old?.sources ?? {},
  runs: notes,
  pruning: [],
})

/** The known files by a manifest that was not made here, or whose end this machine did not live to see. */
function rebuild(state: BackupState, { entries }: Manifest, dryRun: boolean): Map<string, Known> {
  const before = new Map(state.files)
  const known = new Map<string, Known>()
  for (const entry of entries) {
    if (entry.kind !== 'file') continue
    const key = keyOf(entry.path.split('/').slice(1))
    const old = before.get(key)
    const one = { entry, ...(old?.entry.node === entry.node && old.local ? { local: old.local } : {}) }
    known.set(key, one)
    if (!dryRun) state.put(one)
  }
  if (!dryRun) for (const [key, { entry }] of before) if (!known.has(key)) state.remove(entry.path)
  return known
}

interface Work {
  readonly store: Store
  readonly scan: SourceScan
  readonly runs: Runs
  readonly known: ReadonlyMap<string, Known>
  readonly plan: BackupPlan
  readonly tally: Tally
  readonly counts: Pick<BackupSummary, 'created' | 'changed' | 'unchanged' | 'removed'>
  readonly startedAt: number
}

async function carryOut(
  context: RunContext,
  set: BackupSet,
  state: BackupState,
  work: Work,
  options: BackupOptions,
  signal: AbortSignal,
): Promise<BackupSummary> {
  const { store, scan, plan, tally, runs } = work
  const bytes = plan.store.reduce((sum, { local }) => sum + local.size, 0)
  context.onEvent?.({ type: 'planned', files: plan.store.length, bytes, skipped: tally.skipped })
  // Also after those that are gone: an id stands for one run for ever.
  const known = [...runs.notes, ...state.memory!.runs].map((note) => note.run)
  const run = nextRun(work.startedAt, known)
  // The manifest is none of the files that people have been told of.
  const onEvent = (event: RunEvent) => {
    if (!('path' in event) || event.path !== shownManifest(run)) context.onEvent?.(event)
  }
  const uploader = await openUploader(
    { ...context, onEvent },
    {
      signal,
      isEncrypted: true,
      // The manifest is sent in any case.
      files: [...plan.store.map(({ local }) => local), { size: 0 }],
      ...(options.memory === undefined ? {} : { memory: options.memory }),
      partSize: options.partSize,
      journal: join(state.directory, 'uploads'),
      onRefused: ({ member, error }) => tally.pending.push({ what: 'member', name: member, error }),
      onInconsistent: (failure) => tally.failed.push(failure),
    },
  )
  let done: RunNote | undefined
  let { changed, unchanged } = work.counts
  try {
    await uploader.retireOthers(new Set(plan.store.map(({ local }) => local.source)))
    const keeper = createKeeper({ ...context, uploader, state, store, run, work, names: options.names, signal })
    await keeper.clear(plan.inTheWay)
    await runEntries(plan.store, options.jobs ?? DEFAULT_JOBS, tally, keeper.keep, {
      signal,
      onFailure: ({ path, error }) => report(context, path, error),
      onBusy: context.onBusy,
    })
    unchanged += keeper.same
    changed -= keeper.same
    if (tally.stoppedBy === undefined) {
      requireSameSources(set, scan)
      if (!scan.isIncomplete) await keeper.clear(plan.leftovers)
      done = await finish(context, set, state, keeper, work, run, uploader, signal)
      if (!scan.isIncomplete) for (const { entry } of plan.removed.values()) state.remove(entry.path)
      await remember(state, scan, runs, done)
      await uploader.handOut(store.roomId)
    }
  } catch (error) {
    tally.stoppedBy ??= toSyncError(signal.aborted ? signal.reason : error)
  } finally {
    await uploader.close()
  }
  tally.skipped = unchanged
  return {
    ...summarize(tally, scan.ignored),
    ...work.counts,
    changed,
    unchanged,
    ...(done === undefined ? {} : { run: done.run }),
    isComplete: done?.isComplete ?? false,
  }
}

const shownManifest = (run: string): string => `${RUNS}/${manifestName(run)}`

/** Makes a run the pin of the next one. */
async function remember(state: BackupState, scan: SourceScan, runs: Runs, done: RunNote): Promise<void> {
  const memory = state.memory!
  // Runs that are told to be wrong stay remembered: they are told again until somebody has looked.
  const known = new Set(runs.notes.map(({ run }) => run))
  const wrong = memory.runs.filter(({ run }) => !known.has(run))
  const all = [...wrong, ...runs.notes, done].sort((a, b) => compareRuns(a.run, b.run))
  await state.setMemory({ ...memory, sources: scan.roots, runs: all })
}

/** A disk that went away meanwhile has not lost its files. */
function requireSameSources({ sources }: BackupSet, { roots }: SourceScan): void {
  for (const source of sources) {
    const now = statSync(source, { throwIfNoEntry: false })
    if (now?.dev === roots[source]?.dev && now?.ino === roots[source]?.ino) continue
    throw new SyncError('safety', 'SOURCE_CHANGED', `${source} went away during the run`, {
      hint: 'Is its disk mounted? There is no new run.',
    })
  }
}

interface Keeping extends RunContext {
  readonly uploader: Uploader
  readonly state: BackupState
  readonly store: Store
  readonly run: string
  readonly work: Work
  readonly names: Names | undefined
  readonly signal: AbortSignal
}

type Keeper = ReturnType<typeof createKeeper>

const ATTEMPTS = 3

/** Brings files into the store, and what is out of date into the history. */
function createKeeper(context: Keeping) {
  const { api, state, store, run, work, names, signal, uploader } = context
  const { plan, tally, scan } = work
  const files = createFolders(api, store.files.id, plan.folders, signal, names)
  const history = createFolders(api, store.history.id, [], signal, names)
  const current = new Map<string, FileEntry>()
  for (const { known, local } of plan.unchanged) {
    current.set(keyOf(local.path), known.entry)
    if (known.local === undefined) state.put({ entry: known.entry, local: localIdentity(local) })
  }
  let same = 0

  const remember = (key: string, one: Known | undefined): 'changed' | undefined => {
    if (one === undefined) return 'changed'
    current.set(key, one.entry)
    state.put(one)
    return undefined
  }

  async function toHistory(items: readonly RemoteItem[]): Promise<void> {
    const parent = items[0]!.path.slice(0, -1)
    const target = await history.ensure([run, ...parent])
    await moveAll(
      api,
      items.map(({ node }) => node.id),
      target,
      signal,
    )
  }

  /** The content that is known is not where it was: was it only moved, by a run that did not end? */
  async function isLost({ entry }: Known): Promise<boolean> {
    const node = await findNode(api, entry.node, signal)
    return node === undefined || node.size !== entry.size
  }

  function tellLost(step: StoreStep): void {
    const error = new SyncError(
      'integrity',
      'CONTENT_DROPPED',
      'What was stored of this file is gone from the server or was replaced there',
      {
        hint: 'It is stored again as it is now; what older runs had of it may be lost. See who has access to the room.',
      },
    )
    tally.failed.push({ path: step.shown, error })
    report(context, step.shown, error)
  }

  return {
    get same() {
      return same
    },

    /** Files of the manifest. */
    *entries(): Generator<FileEntry> {
      const all = new Map<string, FileEntry>(current)
      // Not seen, not gone: as they were.
      if (scan.isIncomplete) {
        for (const [key, { entry }] of plan.removed) all.set(key, { ...entry, isOlder: true })
      }
      yield* [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
    },

    /** Moves items into the history, those of a folder together. */
    async clear(items: readonly RemoteItem[]): Promise<void> {
      const byParent = new Map<string, RemoteItem[]>()
      for (const item of items) {
        const parent = parentKey(keyOf(item.path))
        const siblings = byParent.get(parent)
        if (siblings === undefined) byParent.set(parent, [item])
        else siblings.push(item)
      }
      for (const siblings of byParent.values()) await toHistory(siblings)
    },

    /** Stores one file; `undefined` when that was not needed. */
    async keep(step: StoreStep, stop: AbortSignal): Promise<number | undefined> {
      const { key, known, isThere } = step
      const isGone = known !== undefined && !isThere && (await isLost(known))
      if (isGone) tellLost(step)
      try {
        return await attempt(step, stop)
      } catch (error) {
        // Gone since it was listed: the next run sees that.
        if (toSyncError(error).code === 'LOCAL_ENOENT') {
          context.onEvent?.({ type: 'warning', code: 'VANISHED', message: `${step.shown} is not there any more` })
          return undefined
        }
        if (known !== undefined && !isGone) current.set(key, { ...known.entry, isOlder: true })
        throw error
      }
    },
  }

  async function attempt(step: StoreStep, stop: AbortSignal): Promise<number | undefined> {
    const { standing, isThere } = step
    let isMoved = false
    const clear = async () => {
      if (standing === undefined || isMoved) return
      await toHistory([standing])
      isMoved = true
    }
    try {
      for (let tries = 1; tries <= ATTEMPTS; tries++) {
        const sent = await storeContent(step, clear, stop)
        if (sent !== 'changed') return sent
      }
      return await storeBeginning(step, clear, stop)
    } catch (error) {
      if (standing !== undefined && isThere && isMoved) await putBack(standing.node)
      throw error
    }
  }

  /** @param clear - Makes place for the new content. */
  async function storeContent(
    step: StoreStep,
    clear: () => Promise<void>,
    stop: AbortSignal,
  ): Promise<number | 'changed' | undefined> {
    const { key, known, isThere, local, shown, standing } = step
    const before = lookLocal('', local.path)
    if (before === undefined) throw new SyncError('local_io', 'LOCAL_ENOENT', 'It is not there any more')
    const read = await unlessChanged(hashFile(local.source, shown, stop))
    if (read === 'changed') return 'changed'
    const { sha256, identity } = read
    const knownAs = (node: number, seal: string): Known | undefined => {
      const now = stateOf(local.source, identity)
      const entry = now && { kind: 'file' as const, path: shown, ...now, sha256, node, seal }
      return entry && { entry, local: localIdentity(before) }
    }
    if (known !== undefined && isThere && known.entry.sha256 === sha256) {
      const failure = remember(key, knownAs(known.entry.node, known.entry.seal))
      if (failure === undefined) same++
      return failure
    }
    if (standing !== undefined && !isThere) {
      const isSent = await unlessChanged(isSameContent(context, standing.node, local.source, shown, stop))
      if (isSent === 'changed') return 'changed'
      // What a run has sent that did not live to remember it.
      if (isSent) return remember(key, knownAs(standing.node.id, sealOf(await getFileKey(api, standing.node.id, stop))))
    }
    await clear()
    const sent = await send(step, false, stop)
    if (sent.asOf !== undefined) return rememberBeginning(step, sent, sent.asOf)
    const failure = remember(key, knownAs(sent.node.id, sealOf(sent.seal!)))
    if (failure === undefined) return sent.bytes
    // Nobody knows the digest of what was sent.
    await deleteNode(api, sent.node.id, signal)
    return failure
  }

  /** Stores what is there of a file that is never as it was read; an older version for ever would be worse. */
  async function storeBeginning(step: StoreStep, clear: () => Promise<void>, stop: AbortSignal): Promise<number> {
    await clear()
    const sent = await send(step, true, stop)
    if (sent.asOf !== undefined) return rememberBeginning(step, sent, sent.asOf)
    await deleteNode(api, sent.node.id, signal)
    throw changedWhileRead(step.shown)
  }

  async function send({ local, shown }: StoreStep, isGrowing: boolean, stop: AbortSignal): Promise<Sent> {
    const parentId = await files.ensure(local.path.slice(0, -1))
    const name = escapeName(local.path.at(-1)!, { names })
    return uploader.send({ source: local.source, shown, parentId, roomId: store.roomId, name, isGrowing }, stop)
  }

  async function rememberBeginning({ key, local, shown }: StoreStep, sent: Sent, asOf: AsOf): Promise<number> {
    const now = lstatSync(local.source, { bigint: true, throwIfNoEntry: false })
    if (now === undefined) {
      await deleteNode(api, sent.node.id, signal)
      throw new SyncError('local_io', 'LOCAL_ENOENT', 'It is not there any more')
    }
    const entry: FileEntry = {
      kind: 'file',
      path: shown,
      ...commonOf(now),
      mtimeNs: asOf.mtimeNs,
      size: sent.bytes,
      sha256: Buffer.from(sent.sha256!, 'base64').toString('hex'),
      node: sent.node.id,
      seal: sealOf(sent.seal!),
      ...(asOf.isInconsistent ? { isInconsistent: true } : {}),
    }
    remember(key, { entry })
    return sent.bytes
  }

  /** The current state is better off with an older version than with none. */
  async function putBack({ id, parentId }: RemoteNode): Promise<void> {
    if (parentId !== undefined) await moveNodes(api, parentId, [{ id }], 'fail', signal).catch(() => {})
  }
}

/** What a manifest says of a file; `undefined` when it is not in the state any more that was read. */
function stateOf(source: string, identity: SourceIdentity) {
  const now = lstatSync(source, { bigint: true, throwIfNoEntry: false })
  const isSame =
    now?.isFile() === true &&
    Number(now.size) === identity.size &&
    String(now.mtimeNs) === identity.mtimeNs &&
    String(now.ctimeNs) === identity.ctimeNs &&
    String(now.ino) === identity.ino &&
    String(now.dev) === identity.dev
  return isSame ? { ...commonOf(now), size: identity.size } : undefined
}

/** `changed` for a file that did not rest while it was read. */
async function unlessChanged<T>(reading: Promise<T>): Promise<T | 'changed'> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof SyncError && error.code === 'SOURCE_CHANGED') return 'changed'
    throw error
  }
}

const changedWhileRead = (shown: string) =>
  new SyncError('changed', 'SOURCE_CHANGED', `The file changed while it was read: ${shown}`, {
    hint: 'Run again when the program that writes it is done.',
  })

/** Writes the manifest and puts it beside the others. */
async function finish(
  context: RunContext,
  set: BackupSet,
  state: BackupState,
  keeper: Keeper,
  { store, scan, runs, tally, startedAt }: Work,
  run: string,
  uploader: Uploader,
  signal: AbortSignal,
): Promise<RunNote> {
  const told = (failure: EntryFailure) => {
    tally.failed.push(failure)
    report(context, failure.path, failure.error)
  }
  const entries: BackupEntry[] = [...describe(scan, told), ...keeper.entries()]
  const failed = tally.failed.filter((failure) => !runs.problems.includes(failure))
  const head: ManifestHead = {
    set: set.name,
    run,
    startedAt: new Date(startedAt).toISOString(),
    endedAt: new Date(context.clock.now()).toISOString(),
    host: hostname(),
    sources: set.sources,
    options: {
      exclude: set.exclude,
      oneFileSystem: set.oneFileSystem,
      ...(set.maxSize === undefined ? {} : { maxSize: set.maxSize }),
    },
    runs: runs.notes,
    isComplete: failed.every(({ error }) => ['CONTENT_DROPPED', 'INCONSISTENT'].includes(error.code)),
    addedBytes: tally.bytes,
    failed: failed.map(({ path, error }) => ({ path, code: error.code })),
  }
  const path = join(state.directory, 'manifest.json')
  const { sha256, size } = await writeManifest(path, head, entries)
  const name = manifestName(run)
  const request = { source: path, shown: shownManifest(run), parentId: store.runs.id, roomId: store.roomId, name }
  const sent = await uploader.send(request, signal)
  try {
    rmSync(path, { force: true })
  } catch {
    // The next run writes it anew; this one is done.
  }
  return noteOf({ ...head, entries }, { node: sent.node.id, sha256, seal: sealOf(sent.seal!), size })
}
