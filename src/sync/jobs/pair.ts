/**
 * Push, pull and both: a local and a remote directory, of which it is remembered how they were when they were last the same.
 * @module
 */
import { realpathSync } from 'node:fs'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import type { WrappedFileKey } from '../../../crypto/index.ts'
import { getFileKey } from '../../api/file-keys.ts'
import { getNode } from '../../api/nodes.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError } from '../../errors.ts'
import { sameNameKey } from '../../local/names.ts'
import { foldsCase, usuallyFoldsCase } from '../../local/target.ts'
import { type GuardOptions, guardEmptied, guardExtent, guardRoots } from '../guards.ts'
import {
  isAsRecorded,
  isListingOf,
  type Listed,
  listedAs,
  readChangedTree,
  recordedItems,
  recordedTree,
  tellPlaces,
} from '../known-tree.ts'
import { lookAt } from '../local-move.ts'
import { isChange, planLine, recordedOf, requireSamePlan } from '../plan-file.ts'
import { heldTo, lookAtManifest, takeManifest } from '../pull-manifest.ts'
import { storeManifest } from '../push-manifest.ts'
import { type Direction, type ReconcileOptions, reconcile } from '../reconcile.ts'
import type { SyncRecord } from '../records.ts'
import { parseRemotePath, remoteMissing, resolveRemote, roomOf } from '../remote-path.ts'
import { admitTarget, never, type RunContext, requireEncryptedSource, type StatePlace, stateOf } from '../run.ts'
import {
  type Begun,
  countSkipped,
  type Job,
  type Known,
  type Limits,
  noMemory,
  type Plan,
  type Running,
  runJob,
  type SyncSummary,
} from '../run-job.ts'
import { withSavedPlan } from '../saved-plan.ts'
import {
  arrangeRemote,
  type Blocked,
  createBlocked,
  identifyRoot,
  keyOf,
  type LocalScan,
  type RemoteScan,
  type ScanOptions,
  scanLocal,
  scanRemote,
} from '../scan.ts'
import { createScope, type Scope } from '../scope.ts'
import { readScope } from '../scoped-tree.ts'
import { createSelection, type Selection, type SelectionOptions, withoutJunk } from '../select.ts'
import { type Pair, stateDirectory } from '../state.ts'
import { type LocalEntry, showPath, within } from '../tree.ts'

/** How a pair is brought together. */
export interface SyncOptions extends Omit<GuardOptions, 'direction'>, Limits {
  readonly direction: Direction
  /** Delete what is gone on the other side. */
  readonly delete?: boolean
  readonly checksum?: boolean
  readonly onConflict?: Exclude<ReconcileOptions['onConflict'], 'rename'>
  readonly prefer?: ReconcileOptions['prefer']
  readonly selection?: SelectionOptions
  /** Do not enter directories on other devices. */
  readonly oneFileSystem?: boolean
  readonly requireEncryption?: boolean | undefined
  /** Push, both: see `UploadOptions`. */
  readonly allowPlain?: boolean | undefined
  /** Push: store a manifest; pull: take permissions, links and exact times from it. Default true. */
  readonly manifest?: boolean
  /** What is remembered of the pair. Default: in the directory of the client. */
  readonly state?: StatePlace | undefined
}

/** For those who know what has changed here since the last run. */
export interface ScopedOptions extends SyncOptions {
  /** Local paths below the root: nothing else is looked at, and no manifest is stored. Not where that could mislead. */
  readonly places?: readonly string[] | undefined
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
 * One run over a pair of directories; see `runJob`.
 *
 * @throws {SyncError} for what is wrong before anything is changed; of class `safety` when a guard says no.
 */
export async function runSync(
  context: RunContext,
  local: string,
  remote: string,
  options: ScopedOptions,
): Promise<SyncSummary> {
  const state = options.state ?? (await stateOf(context, options.signal))
  if (state === undefined) throw noMemory()
  const pair = pairOf(state.account, local, remote)
  return runJob(context, pairJob(context, pair, stateDirectory(state.directory, pair), options), options)
}

interface PairOfTrees extends Plan {
  readonly local: LocalScan
  readonly there: ThereScan
  /** When the other side was found by a listing that found nothing but what is recorded. */
  readonly listed: Listed | undefined
  readonly manifest: RemoteNode | undefined
  readonly selection: Selection
  /** Both roots are those that the records are about. */
  readonly isSameRoots: boolean
  /** Nothing else was looked at. */
  readonly scope: Scope | undefined
}

/** What a pull has found out about the manifest before its first step. */
interface PairBegun extends Begun {
  readonly looked?: Awaited<ReturnType<typeof lookAtManifest>>
  /** A push: the file key of the manifest that will be replaced, on its way while contents are. */
  readonly foundKey?: Promise<WrappedFileKey>
}

function pairJob(context: RunContext, pair: Pair, directory: string, options: ScopedOptions): Job<PairOfTrees> {
  const { direction } = options
  // A manifest says what one side was; of two sides that take from each other it could not.
  const hasManifest = options.manifest !== false && direction !== 'both'
  const acceptAny = options.acceptRoots === true
  // A part of the tree is no tree.
  const takesPart = (isEncrypted: boolean, { scope }: PairOfTrees) =>
    hasManifest && isEncrypted && scope === undefined && options.selection?.paths === undefined
  return {
    command: direction,
    pair,
    directory,
    recorded: () => recordedOf(options),
    isSending: true,
    isHashed: ({ container }) =>
      hasManifest && container.above.isEncrypted === true && direction === 'push' && !context.keyring.isWriteOnly,
    look: (state) => look(context, pair, state, directory, options),

    async begin({ state, node, isEncrypted, signal }, plan): Promise<PairBegun> {
      const roots = { ...identifyRoot(pair.local), remoteId: node.id, isEncrypted }
      // Roots that are not the ones of the records make them worthless.
      if (!plan.isSameRoots) for (const key of state.records().keys()) state.remove(key)
      state.setRoots({ ...roots, isSettled: plan.isSameRoots && state.roots?.isSettled === true })
      if (plan.listed !== undefined) state.setListed(plan.listed)
      // What is fetched is held to the manifest, which is fetched in any case.
      const isPulled =
        takesPart(isEncrypted, plan) && direction === 'pull' && plan.steps.some((step) => step.do === 'download')
      if (
        plan.manifest !== undefined &&
        direction === 'push' &&
        takesPart(isEncrypted, plan) &&
        plan.steps.some(isChange)
      ) {
        const foundKey = getFileKey(context.api, plan.manifest.id, signal)
        foundKey.catch(() => {}) // told when awaited
        return { acceptAny, foundKey }
      }
      if (!isPulled || plan.manifest === undefined) return { acceptAny }
      const container = { id: node.id, roomId: plan.container.roomId }
      const looked = await lookAtManifest(context, plan.manifest, { state, container, acceptAny, signal })
      return { acceptAny, looked, heldTo: looked && heldTo(looked) }
    },

    async end(run: Running, plan, begun: PairBegun) {
      const { state, node, isEncrypted, signal, runId, startedAt, uploader } = run
      const container = { id: node.id, roomId: plan.container.roomId }
      const { foundKey } = begun
      const how = { state, runId, root: pair.local, container, found: plan.manifest, foundKey, signal, acceptAny }
      const told = !takesPart(isEncrypted, plan)
        ? []
        : direction === 'push'
          ? await storeManifest(context, { ...how, directory, links: plan.local.links, uploader: uploader!, startedAt })
          : await takeManifest(context, {
              ...how,
              selection: plan.selection,
              looked: begun.looked,
              isUnchanged: !plan.steps.some(isChange),
            })
      state.setRoots({ ...identifyRoot(pair.local), remoteId: node.id, isEncrypted, isSettled: true })
      rememberListing(plan, state, options)
      return told
    },
  }
}

/**
 * A first look of a push finds nothing in the records; when it ends, they may say exactly what it has found. What is fetched is looked at
 * a second time: a server that has shown something else meanwhile is noticed sooner.
 */
function rememberListing(
  { container, listed, there }: PairOfTrees,
  state: Pick<Running['state'], 'current' | 'setListed'>,
  { names, direction }: SyncOptions,
): void {
  const { node } = container
  const { version, at, manifest, items } = there
  if (direction !== 'push' || listed !== undefined || node === undefined || version === undefined || at === undefined)
    return
  // What was found and takes no part would be forgotten.
  const isWhole = items.size === there.count
  if (isWhole && isAsRecorded(there, state.current(), node))
    state.setListed(listedAs(node, version, at, names, manifest))
}

/** Both roots, and what is known of them. */
interface Places {
  readonly container: Awaited<ReturnType<typeof openRemote>>
  readonly localRoot: ReturnType<typeof openLocal>
  /** They are those of the last run, so what is remembered is about them. */
  readonly isSameRoots: boolean
  readonly records: Plan['records']
  /** The remote root of the last run as it is now, asked for while it was looked up. */
  readonly early: { readonly id: number; readonly node: Promise<RemoteNode> } | undefined
}

/** Finds both roots, and stops what must not go on between them. */
async function openPlaces(
  context: RunContext,
  pair: Pair,
  state: Known,
  options: ScopedOptions,
  signal: AbortSignal,
): Promise<Places> {
  const { direction } = options
  const { roots } = state
  const isListed = state.listed !== undefined && options.checksum !== true && options.places === undefined
  const early =
    roots && isListed ? { id: roots.remoteId, node: getNode(context.api, roots.remoteId, signal) } : undefined
  early?.node.catch(() => {}) // told when awaited
  const container = await openRemote(context, pair, roots !== undefined, signal)
  const localRoot = openLocal(pair, roots !== undefined, direction)
  guardRoots(pair, roots, { local: localRoot, remote: container.node }, options)
  if (direction === 'pull') requireEncryptedSource(container.above as RemoteNode, pair.remote, options)
  else if (container.above.id !== 0) {
    await admitTarget(context, container.above, container.missing, pair.remote, options)
  }
  if (localRoot === undefined || container.node === undefined)
    requireBeginning(pair, direction, container.node !== undefined)
  // Else somebody has said that these are other roots: what is known is about the old ones.
  const isSameRoots =
    roots !== undefined &&
    container.node?.id === roots.remoteId &&
    (localRoot?.dev === roots.dev || localRoot?.ino === roots.ino)
  return { container, localRoot, isSameRoots, records: isSameRoots ? state.records() : new Map(), early }
}

/** What is at both places, and takes part. */
interface Found {
  readonly selection: Selection
  readonly blocked: Blocked
  readonly here: LocalScan
  readonly there: ThereScan
  readonly foldCase: boolean
  readonly records: Plan['records']
  readonly scope: Scope | undefined
  /** Files that are remembered, and out of scope. */
  readonly elsewhere: number
}

function howToScan(
  context: RunContext,
  pair: Pair,
  { localRoot }: Places,
  options: SyncOptions,
  signal: AbortSignal,
): ScanOptions & { readonly foldCase: boolean } {
  const { direction, names, oneFileSystem = false } = options
  const foldCase =
    direction !== 'push' && localRoot !== undefined && (options.dryRun ? usuallyFoldsCase() : foldsCase(pair.local))
  // What is fetched is fetched whole.
  const wanted = direction === 'pull' ? (options.selection ?? {}) : withoutJunk(options.selection)
  const selection = createSelection(wanted, context.clock.now(), context.rules?.look())
  const onIgnored = (path: readonly string[]) => context.onEvent?.({ type: 'ignored', path: showPath(path) })
  return { selection, blocked: createBlocked(), signal, names, oneFileSystem, foldCase, onIgnored }
}

/** Whether something is remembered that would be left out now. */
function hasJunk(records: ReadonlyMap<string, SyncRecord>, selection: Selection): boolean {
  for (const { kind, path } of records.values()) {
    if (kind === 'file' && selection.isJunk(path.slice(path.lastIndexOf('/') + 1))) return true
  }
  return false
}

function withoutBlocked(here: LocalScan, there: ThereScan, blocked: Blocked): void {
  for (const { items } of [here, there]) for (const key of items.keys()) if (blocked.has(key)) items.delete(key)
}

async function scanWhole(
  context: RunContext,
  pair: Pair,
  places: Places,
  state: Known,
  options: SyncOptions,
  signal: AbortSignal,
): Promise<Found> {
  const { container, localRoot, isSameRoots, records } = places
  const how = howToScan(context, pair, places, options, signal)
  const here = localRoot === undefined ? NOTHING_HERE() : await scanLocal(pair.local, { ...how, known: records })
  const known = isSameRoots && options.checksum !== true ? state : {}
  const there: ThereScan =
    container.node === undefined
      ? { items: new Map(), failures: [], ignored: 0 }
      : await lookThere(context, container.node, container.roomId, known, records, places.early, how)
  withoutBlocked(here, there, how.blocked)
  return { ...how, here, there, records, scope: undefined, elsewhere: 0 }
}

/** Looks only where something has changed; `undefined` when what is there does not tell enough. */
async function scanScope(
  context: RunContext,
  pair: Pair,
  places: Places,
  { places: changed, ...options }: ScopedOptions,
  signal: AbortSignal,
): Promise<Found | undefined> {
  const { node, roomId } = places.container
  if (changed === undefined || changed.includes('') || node === undefined || !places.isSameRoots) return undefined
  const how = { ...howToScan(context, pair, places, options, signal), scope: createScope(changed.map(sameNameKey)) }
  const { scope, blocked } = how
  // Where names meet that differ, more than these may be concerned.
  if (how.foldCase || options.checksum === true) return undefined
  const here = await scanLocal(pair.local, how)
  for (const key of scope.above) if (here.items.get(key)?.kind !== 'directory') return undefined
  const there = await readScope(context.api, node, roomId, places.records, how)
  if (there === undefined) return undefined
  withoutBlocked(here, there, blocked)
  const records = new Map<string, SyncRecord>()
  let elsewhere = 0
  for (const [key, record] of places.records) {
    if (scope.has(key)) records.set(key, record)
    else if (record.kind === 'file') elsewhere++
  }
  return { ...how, here, there, records, elsewhere }
}

function countFiles(items: Iterable<{ readonly kind: string }>): number {
  let files = 0
  for (const { kind } of items) if (kind === 'file') files++
  return files
}

async function look(
  context: RunContext,
  pair: Pair,
  state: Known,
  directory: string,
  options: ScopedOptions,
): Promise<PairOfTrees> {
  const { direction } = options
  const signal = options.signal ?? never
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const places = await openPlaces(context, pair, state, options, signal)
  const { container, isSameRoots } = places
  const isSettled = isSameRoots && state.roots?.isSettled === true
  const { selection, blocked, here, there, foldCase, records, scope, elsewhere } =
    (isSettled ? await scanScope(context, pair, places, options, signal) : undefined) ??
    (await scanWhole(context, pair, places, state, options, signal))
  // Of what does not take part nothing is missing.
  let known = elsewhere
  for (const [key, { path, kind }] of records) {
    if (kind === 'file' && !blocked.has(key) && selection.takes(path.split('/'), kind)) known++
  }
  const [local, remote] = [here, there].map(({ items }) => elsewhere + countFiles(items.values())) as [number, number]
  guardEmptied(pair, { local, remote, known }, options)
  const failures = [...here.failures, ...there.failures]
  const missing = selection.missing(isAskedFor(options, here, there, blocked))
  const now = context.clock.now()
  const steps = reconcile(
    {
      local: here.items,
      remote: there.items,
      records,
      blocked,
      isFirst: !isSettled,
      isIncomplete: failures.length > 0,
      links: new Map(here.links.map((path) => [keyOf(path), path])),
      foldsCase: direction === 'push' ? answersToOtherCase(pair.local, here.items.values()) : foldCase,
    },
    {
      direction,
      delete: options.delete ?? false,
      checksum: options.checksum ?? false,
      onConflict: options.onConflict,
      prefer: options.prefer,
      conflictName: namesConflicts(hostname(), now),
    },
  )
  if (options.planned !== undefined) {
    requireSamePlan(options.planned, steps.filter(isChange).map(planLine))
  } else if (!options.dryRun) {
    try {
      guardExtent(steps, known, options)
    } catch (error) {
      throw await withSavedPlan(error, directory, { pair, command: direction, options, steps, now })
    }
  }
  let files = local
  for (const [key, { kind }] of there.items) if (kind === 'file' && here.items.get(key)?.kind !== 'file') files++
  return {
    steps,
    files,
    skipped: elsewhere + countSkipped(steps, direction === 'pull' ? there.items : here.items),
    container,
    local: here,
    there,
    remote: there.items,
    manifest: there.manifest,
    listed: there.listed,
    records,
    failures,
    missing,
    ignored: here.ignored + there.ignored,
    selection,
    isSameRoots,
    scope,
    leftovers: here.leftovers,
  }
}

const NOTHING_HERE = (): LocalScan => ({
  items: new Map(),
  failures: [],
  ignored: 0,
  root: { dev: 0, ino: 0 },
  links: [],
  leftovers: [],
})

/** A mirror is asked for what is at its source; where it may delete, also for what is to go. */
function isAskedFor(
  { direction, delete: deletes }: SyncOptions,
  here: Pick<LocalScan, 'items'>,
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
  /** Of a listing: when it was made, and how many entries it had. */
  readonly at?: number
  readonly count?: number
}

/** What is there: from the records, if it is what the last listing found and they say the same, else from a new one. */
async function lookThere(
  { api, clock }: RunContext,
  root: RemoteNode,
  roomId: number,
  { listed, isAsListed }: Partial<Pick<Known, 'listed' | 'isAsListed'>>,
  records: Plan['records'],
  early: Places['early'],
  how: ScanOptions & { readonly foldCase: boolean },
): Promise<ThereScan> {
  let scan: RemoteScan | undefined
  let at = clock.now()
  if (listed !== undefined) {
    if (root.isEncrypted !== true) tellPlaces(api, records, root)
    const now = within(root, await (early?.id === root.id ? early.node : getNode(api, root.id, how.signal)))
    const isListing = isListingOf(listed, now, at, how.names)
    if (isListing && isAsListed && now.branchVersion === listed.version) {
      await api.places?.enter(root.id)
      // Names that meet are told by `arrangeRemote` only.
      const { manifest } = listed
      if (how.foldCase || !how.selection.isEverything || hasJunk(records, how.selection)) {
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
  if (scan.version === undefined || !isAsRecorded(scan, records, root)) return { ...scan, at, count: scan.items.size }
  return { ...scan, at, count: scan.items.size, listed: listedAs(root, scan.version, at, how.names, scan.manifest) }
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
  if (!isRemoteThere && direction === 'pull') throw remoteMissing(pair.remote)
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
