/**
 * Upload and download: mirrors that remember no places and delete nothing. They look only at what their sources could meet, and may
 * have several of them.
 * @module
 */
import { existsSync, type Stats, statSync } from 'node:fs'
import { basename, dirname, join, resolve, sep } from 'node:path'
import type { Api } from '../../api/api.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { cancelled, localError, SyncError, toSyncError } from '../../errors.ts'
import { MANIFEST_NAME } from '../../local/atomic-file.ts'
import { localName, type Names } from '../../local/names.ts'
import { likelyTarget, probeTarget, type Target } from '../../local/target.ts'
import { askMissingKeys } from '../../transfer/distribute.ts'
import { type ConflictAction, sameTime } from '../conflicts.ts'
import { type KnownPlaces, readKnownPlaces } from '../known-places.ts'
import { lookAt } from '../local-move.ts'
import { dropOldTransfers } from '../old-transfers.ts'
import { isChange, planLine, recordedOf, requireSamePlan } from '../plan-file.ts'
import { reconcile, type SyncStep } from '../reconcile.ts'
import {
  containerIn,
  parseRemotePath,
  type Resolved,
  requireContainer,
  requireRemote,
  resolveRemote,
} from '../remote-path.ts'
import { admitTarget, never, type RunContext, requireEncryptedSource, type StatePlace, stateOf } from '../run.ts'
import { countSkipped, type Job, type Limits, type Plan, runJob, type SyncSummary, tellDamaged } from '../run-job.ts'
import { arrangeRemote, createBlocked, keyOf, type RemoteItem, takeIn } from '../scan.ts'
import { createSelection, type Selection, type SelectionOptions, withoutJunk } from '../select.ts'
import { type Pair, stateDirectory } from '../state.ts'
import {
  type EntryFailure,
  entryUnder,
  type LocalEntry,
  openSource,
  type RemoteEntry,
  readRemoteTree,
  showPath,
  walk,
} from '../tree.ts'

interface TransferOptions extends Limits {
  /** A directory's content goes directly into the target instead of into a directory of its name. */
  readonly contents?: boolean
  /** Compare contents by recomputing the tag instead of size and time. */
  readonly checksum?: boolean
  /**
   * What the only source, a file, is called in the target; false: as it is. Default: what the target says, which is that name where
   * nothing or a file is there and it does not end with a slash.
   */
  readonly as?: string | false | undefined
  /** What takes part; paths and patterns begin at each source. */
  readonly selection?: SelectionOptions | undefined
  /** Refuse what is not encrypted, whatever was agreed to before. */
  readonly requireEncryption?: boolean | undefined
  /**
   * What interrupted runs left, what can be undone, and what other runs know of the same places. Without it an interrupted upload starts
   * over, and two runs at once are not kept apart. Default: in the directory of the client, if it has one.
   */
  readonly state?: StatePlace | undefined
}

/** How an upload goes. */
export interface UploadOptions extends TransferOptions {
  /**
   * Content may also go where it is not encrypted, unless the place was ever seen encrypted. False: only where a person has
   * agreed to that, who is asked by `confirm` of the client. Default: true, or false where there is such a person.
   */
  readonly allowPlain?: boolean | undefined
  /** What to do with a file on the server that differs. Default `overwrite`: a new version. */
  readonly onConflict?: ConflictAction | undefined
  /** Do not enter directories on other devices. */
  readonly oneFileSystem?: boolean
}

/** How a download goes. */
export interface DownloadOptions extends TransferOptions {
  /** What to do with a local file that differs. Default `fail`: it is kept and reported. */
  readonly onConflict?: ConflictAction | undefined
}

/** Where sources go. */
interface Goal {
  /** A room or folder, or a directory. */
  readonly target: string
  /** What the only source is called there; absent: as it is. */
  readonly as?: string
  /** The target of an upload, where it was looked up on the way. */
  readonly there?: Resolved
}

/** The only source of a download, looked up. */
interface Found {
  readonly node: RemoteNode
  readonly roomId: number
}

const ambiguous = (target: string) =>
  new SyncError('usage', 'TARGET_AMBIGUOUS', `Several sources cannot be one ${target}, which is not there`, {
    hint: `If it is to be a new folder, write ${target}/`,
  })

/** What is called otherwise has to be one file. */
function requireOneFile(sources: readonly string[], isFile: boolean): void {
  if (sources.length === 1 && isFile) return
  throw new SyncError('usage', 'OPTION_INVALID', 'Only a single file can be given another name on its way')
}

/** Finds out whether the target of an upload is a folder or the name of a file. A directory goes into a folder that may be made. */
async function goalThere(
  { api }: RunContext,
  sources: readonly string[],
  target: string,
  as: string | false | undefined,
  signal: AbortSignal,
): Promise<Goal> {
  const names = parseRemotePath(target)
  const isFile = sources.length === 1 && statSync(sources[0]!, { throwIfNoEntry: false })?.isFile() === true
  if (typeof as === 'string') requireOneFile(sources, isFile)
  if (as !== undefined) return { target, ...(as === false ? {} : { as }) }
  if (target.endsWith('/') || names.length < 2 || (sources.length === 1 && !isFile)) return { target }
  const there = await resolveRemote(api, target, signal)
  const { found, missing } = there
  if (missing.length === 0 && found.at(-1)?.type !== 'file') return { target, there }
  if (sources.length > 1 && missing.length > 0) throw ambiguous(target)
  if (sources.length > 1) return { target, there }
  const above = missing.length === 0 ? { found: found.slice(0, -1), missing } : { found, missing: missing.slice(0, -1) }
  return { target: `/${names.slice(0, -1).join('/')}`, as: names.at(-1)!, there: above }
}

/** The same of a download; the target is absolute then. */
async function goalHere(
  { api }: RunContext,
  sources: readonly string[],
  target: string,
  as: string | false | undefined,
  signal: AbortSignal,
): Promise<Goal & { readonly source?: Found }> {
  const path = resolve(target)
  if (as !== undefined) return { target: path, ...(as === false ? {} : { as }) }
  const info = statSync(path, { throwIfNoEntry: false })
  const last = target.split(sep === '/' ? sep : /[\\/]/).at(-1)!
  if (info?.isDirectory() === true || ['', '.', '..'].includes(last)) return { target: path }
  if (sources.length > 1 && info === undefined) throw ambiguous(target)
  if (sources.length > 1) return { target: path }
  const source = await requireRemote(api, sources[0]!, signal)
  return source.node.type === 'file' ? { target: dirname(path), as: basename(path), source } : { target: path, source }
}

/** What is said of the name; contents go into a directory. */
const nameIn = ({ as, contents }: TransferOptions) => as ?? (contents === true ? false : undefined)

/** Who waits for another run looks at what that has left. */
const isNow = ({ waitMs = 0 }: TransferOptions): boolean => waitMs === 0

/** A transfer by the names under which people give its places; `sources` of an upload are absolute. */
export const transferPair = (
  direction: 'upload' | 'download',
  sources: readonly string[],
  { target, as }: Pick<Goal, 'target' | 'as'>,
  state: StatePlace | undefined,
): Pair => ({
  account: state?.account ?? '',
  ...(direction === 'upload'
    ? { local: sources.join(' '), remote: `/${parseRemotePath(target).join('/')}` }
    : { local: target, remote: sources.join(' ') }),
  transfer: { direction, sources, ...(as === undefined ? {} : { as }) },
})

/**
 * Uploads files and directories into a room or folder; makes missing folders; skips what is there with equal content; never
 * deletes. See `runJob`.
 *
 * @throws {SyncError} for what is wrong before anything is transferred: sources, target, encryption, key pair, permission, a
 * plan that does not fit any more.
 */
export async function runUpload(
  context: RunContext,
  sources: readonly string[],
  target: string,
  options: UploadOptions = {},
): Promise<SyncSummary> {
  const state = options.state ?? (await stateOf(context, options.signal))
  const from = sources.map((one) => resolve(one))
  const { there, ...goal } = await goalThere(context, from, target, nameIn(options), options.signal ?? never)
  const pair = transferPair('upload', from, goal, state)
  const job: Job = {
    command: 'upload',
    pair,
    directory: state && stateDirectory(state.directory, pair),
    recorded: () => recordedOf(options),
    isSending: true,
    look: () => lookUp(context, pair, isNow(options) ? there : undefined, options),
  }
  return runTransfer(context, job, state, options)
}

/**
 * Downloads files and directories into a local directory, which is made if missing; skips equal files; keeps and reports
 * local files that differ unless told otherwise; never deletes. See `runJob`.
 *
 * @throws {SyncError} for what is wrong before anything is transferred.
 */
export async function runDownload(
  context: RunContext,
  sources: readonly string[],
  target: string,
  options: DownloadOptions = {},
): Promise<SyncSummary> {
  const state = options.state ?? (await stateOf(context, options.signal))
  const { source, ...goal } = await goalHere(context, sources, target, nameIn(options), options.signal ?? never)
  const pair = transferPair('download', sources, goal, state)
  /** Remote paths of what is remembered somewhere. */
  const places = new Map<number, readonly string[]>()
  const job: Job = {
    command: 'download',
    pair,
    directory: state && stateDirectory(state.directory, pair),
    recorded: () => recordedOf(options),
    isSending: false,
    look: () => lookDown(context, pair, isNow(options) ? source : undefined, places, { ...options, state }),
    async begin() {
      const known = await readKnown(context, state, sources)
      return {
        judge(node, seal) {
          const place = places.get(node.id)
          if (place !== undefined) known?.judge(place, node, seal)
        },
      }
    },
  }
  return runTransfer(context, job, state, options)
}

async function runTransfer(
  context: RunContext,
  job: Job,
  state: StatePlace | undefined,
  options: TransferOptions,
): Promise<SyncSummary> {
  const summary = await runJob(context, job, options)
  if (state !== undefined && options.dryRun !== true) await dropOldTransfers(state.directory, context.clock)
  return summary
}

/** What runs of pairs have found at the sources. */
async function readKnown(
  context: RunContext,
  state: StatePlace | undefined,
  sources: readonly string[],
): Promise<KnownPlaces | undefined> {
  if (state === undefined) return undefined
  return readKnownPlaces(state, sources, context.clock.now(), (keptAs) => tellDamaged(context, keptAs))
}

async function lookUp(
  context: RunContext,
  pair: Pair,
  there: Resolved | undefined,
  options: UploadOptions,
): Promise<Plan> {
  const { api } = context
  const signal = options.signal ?? never
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  const target = pair.remote
  const { container, roomId, missing } =
    there === undefined ? await requireContainer(api, target, signal) : containerIn(there, target)
  await admitTarget(context, container, missing, target, options)
  requireCreating(container)
  // Looked at also where nothing is sent, and then there is nothing else to wait for.
  const isLookedAt = container.isEncrypted === true && missing.length === 0 && options.dryRun !== true
  const missingKeys = isLookedAt ? askMissingKeys(api, roomId, signal) : undefined
  const here = await scanSources(context, pair.transfer, options, signal)
  const listed = missing.length > 0 ? [] : await listMet(api, container, roomId, here, options.names, signal)
  // What is of no interest there stays out of it: a name that no disk could hold has no part in an upload.
  const { items: remote } = arrangeRemote(listed, {
    selection: createSelection({}, context.clock.now()),
    blocked: createBlocked(),
    foldCase: false,
    names: options.names,
  })
  for (const items of [here.items, remote]) for (const key of items.keys()) if (here.blocked.has(key)) items.delete(key)
  const steps = planTransfer(
    { direction: 'push', local: here.items, remote },
    { ...options, onConflict: options.onConflict ?? 'overwrite' },
  )
  return {
    ...here,
    steps,
    skipped: countSkipped(steps, here.items),
    container: { node: missing.length === 0 ? container : undefined, above: container, missing, roomId, missingKeys },
    remote,
    records: new Map(),
    leftovers: [],
  }
}

/** What of the sources takes part, under the paths that it gets here. */
async function listSources(
  context: RunContext,
  pair: Pair,
  there: Found | undefined,
  places: Map<number, readonly string[]>,
  options: DownloadOptions,
) {
  const { api, clock } = context
  const signal = options.signal ?? never
  const contents = options.contents ?? false
  const entries: (RemoteEntry & { readonly as?: string | undefined })[] = []
  const missing: EntryFailure[] = []
  const { sources = [], as } = pair.transfer ?? {}
  let left = 0
  let top: RemoteNode | undefined
  for (const source of sources) {
    const parts = parseRemotePath(source)
    const selection = createSelection(options.selection ?? {}, clock.now())
    const found = new Set<string>()
    // One by one: a call takes some 100,000 arguments at most.
    for (const entry of await listSource(api, source, there, signal)) {
      top ??= entry.node
      if (as !== undefined) requireOneFile(sources, entry.node.type === 'file')
      found.add(keyOf(entry.below))
      if (!isTaken(entry, selection, options.names)) {
        left++
        context.onEvent?.({ type: 'ignored', path: showPath([entry.top, ...entry.below]) })
        continue
      }
      const { node, roomId, top: name, below } = entry
      // Of a directory whose content goes into the target nothing is made.
      if (contents && below.length === 0 && node.type !== 'file') continue
      const isBelow = contents && below.length > 0
      const path = isBelow ? below : [name, ...below]
      entries.push({ node, path, roomId, as })
      if (options.state !== undefined) places.set(node.id, [...(isBelow ? parts : parts.slice(0, -1)), ...path])
    }
    for (const failure of selection.missing((key) => key === '' || found.has(key))) missing.push(failure)
  }
  return { entries, missing, left, top }
}

async function lookDown(
  context: RunContext,
  pair: Pair,
  there: Found | undefined,
  places: Map<number, readonly string[]>,
  options: DownloadOptions,
): Promise<Plan> {
  const { clock } = context
  const signal = options.signal ?? never
  const root = pair.local
  context.onEvent?.({ type: 'phase', text: 'Looking at both sides' })
  requireDirectory(root)
  const { entries, missing, left, top } = await listSources(context, pair, there, places, options)
  const blocked = createBlocked()
  for (const { node, path } of entries) requireEncryptedSource(node, `/${showPath(path)}`, options)
  const disk = options.dryRun ? likelyTarget() : probeTarget(nearestDirectory(root))
  const { items, failures } = arrangeRemote(entries, {
    selection: createSelection({}, clock.now()),
    blocked,
    foldCase: disk.foldsCase,
    // One that was asked for by its name is a file like others.
    takesManifest: true,
    names: options.names,
  })
  for (const key of items.keys()) if (blocked.has(key)) items.delete(key)
  const here = lookAtPlaces(root, items, signal)
  for (const key of items.keys()) if (here.blocked.has(key)) items.delete(key)
  const steps = planTransfer(
    {
      direction: 'pull',
      local: here.items,
      links: here.links,
      remote: items,
      isEqual: (local, node) => isAlike(disk, local, node),
      isTaken: (path) => lookAt(join(root, ...path)) !== undefined,
    },
    options,
  )
  const told = [...failures, ...here.failures]
  return {
    steps,
    files: entries.filter(({ node }) => node.type === 'file').length,
    skipped: countSkipped(steps, items),
    ignored: left,
    container: { node: top, above: top ?? { id: 0 }, missing: [], roomId: 0 },
    remote: items,
    records: new Map(),
    failures: told,
    missing,
    selection: { unaccepted: [] },
    leftovers: directoriesOf(items),
  }
}

/** Decides, for runs that remember nothing: what is only there, or only here, is left alone. */
export function planTransfer(
  trees: {
    readonly direction: 'push' | 'pull'
    readonly local: ReadonlyMap<string, LocalEntry>
    readonly remote: ReadonlyMap<string, RemoteItem>
    readonly links?: ReadonlyMap<string, readonly string[]>
    readonly isEqual?: (local: LocalEntry, node: RemoteNode) => boolean
    readonly isTaken?: (path: readonly string[]) => boolean
  },
  { checksum = false, onConflict, planned }: UploadOptions,
): SyncStep[] {
  const { direction, ...sides } = trees
  const all = reconcile(
    { ...sides, records: new Map(), blocked: createBlocked(), isFirst: true, isIncomplete: false },
    { direction, delete: false, checksum, onConflict, remembers: false, conflictName: (name) => name },
  )
  const steps = all.filter((step) => step.do !== 'keep')
  if (planned !== undefined) requireSamePlan(planned, steps.filter(isChange).map(planLine))
  return steps
}

function requireCreating(container: RemoteNode): void {
  if (container.permissions?.create !== false) return
  throw new SyncError('permission', 'FORBIDDEN', 'You may not put files into this room', {
    hint: 'Ask the administrator of the room for the permission to create.',
  })
}

/** Everything that is to be uploaded, under the path that it gets below the target. */
async function scanSources(
  context: RunContext,
  { sources, as }: Partial<NonNullable<Pair['transfer']>> = {},
  { contents = false, selection: options = {}, names, oneFileSystem = false }: UploadOptions,
  signal: AbortSignal,
) {
  const items = new Map<string, LocalEntry>()
  const failures: EntryFailure[] = []
  const met = new Set<string>()
  const missing: EntryFailure[] = []
  const unaccepted: EntryFailure[] = []
  const blocked = createBlocked()
  let [files, ignored] = [0, 0]
  const block = (path: readonly string[], error: SyncError) => {
    failures.push({ path: showPath(path), error })
    blocked.add(keyOf(path))
  }
  const leave = (path: readonly string[]) => {
    ignored++
    context.onEvent?.({ type: 'ignored', path: showPath(path) })
  }
  const add = (entry: LocalEntry) => {
    if (entry.kind === 'file') files++
    takeIn(entry, { items, met, names, block })
  }
  for (const source of sources ?? []) {
    const top = openSource(source)
    // What was named is meant, whatever it is called.
    const wanted = top.kind === 'file' ? { ...options, defaultExcludes: false } : withoutJunk(options)
    const selection = createSelection(wanted, context.clock.now(), context.rules?.look())
    /** Of what is asked for by name. */
    const found = options.paths === undefined ? undefined : new Set<string>()
    if (top.kind === 'file') {
      const isIn = selection.takes(top.path, 'file') && selection.takesFile(top.size, top.mtimeMs)
      if (isIn) add(as === undefined ? top : entryUnder(top, [as]))
      else leave(top.path)
      continue
    }
    const prefix = contents ? [] : top.path
    if (!contents) add(top)
    const below = (path: readonly string[]) => (prefix.length === 0 ? path : path.slice(prefix.length))
    // Not added to what was counted before: it counts meanwhile, too.
    const others = await walk(top.source, prefix, {
      signal,
      onDirectory: (directory, path) => selection.enter(directory, below(path)),
      accept(entry) {
        const { path, kind, size, mtimeMs, dev } = entry
        const isIn =
          selection.takes(below(path), kind) &&
          !(kind === 'directory' && oneFileSystem && dev !== top.dev) &&
          (kind === 'directory' || selection.takesFile(size, mtimeMs))
        if (!isIn) leave(path)
        return isIn
      },
      onEntry(entry) {
        found?.add(keyOf(below(entry.path)))
        add(entry)
      },
      onOther: (path) => context.onEvent?.({ type: 'ignored', path: showPath(path) }),
      onFailure({ path, error }) {
        failures.push({ path, error })
        blocked.add(keyOf(path.split('/')))
      },
    })
    ignored += others
    for (const failure of selection.missing((key) => key === '' || found?.has(key) === true)) missing.push(failure)
    for (const failure of selection.unaccepted) unaccepted.push(failure)
  }
  return { items, files, ignored, failures, missing, blocked, selection: { unaccepted } }
}

/** Lists only the part of the target that the sources could meet. */
function listMet(
  api: Api,
  container: RemoteNode,
  roomId: number,
  { items }: { readonly items: ReadonlyMap<string, LocalEntry> },
  names: Names | undefined,
  signal: AbortSignal,
): Promise<RemoteEntry[]> {
  const here = (path: readonly string[]) => {
    try {
      return keyOf(path.map((name) => localName(name, { names })))
    } catch {
      return undefined // no disk could have it
    }
  }
  const enter = ({ path }: RemoteEntry) => {
    const key = here(path)
    return key !== undefined && items.get(key)?.kind === 'directory'
  }
  return readRemoteTree(api, container, roomId, { enter, signal })
}

interface Listed {
  readonly node: RemoteNode
  readonly roomId: number
  /** Name of the source, and the way down from it. */
  readonly top: string
  readonly below: readonly string[]
}

async function listSource(api: Api, source: string, there: Found | undefined, signal: AbortSignal): Promise<Listed[]> {
  const { node, roomId } = there ?? (await requireRemote(api, source, signal))
  const top = { node, roomId, top: node.name, below: [] }
  if (node.type === 'file') return [top]
  const all = [top as Listed]
  for (const { path: below, ...entry } of await readRemoteTree(api, node, roomId, { signal })) {
    if (entry.node.type !== 'file' || below.at(-1) !== MANIFEST_NAME) all.push({ ...entry, top: node.name, below })
  }
  return all
}

/** Whether something at the server takes part, by the name it gets here. */
function isTaken({ node, below }: Listed, selection: Selection, names: Names | undefined): boolean {
  const kind = node.type === 'file' ? 'file' : 'directory'
  if (selection.isEverything || (below.length === 0 && kind === 'directory')) return true
  const path = (below.length === 0 ? [node.name] : below).map((name) => {
    try {
      return localName(name, { names })
    } catch {
      return name
    }
  })
  // A rule against a directory is one against all that is in it.
  for (let depth = 1; depth < path.length; depth++) {
    if (!selection.takes(path.slice(0, depth), 'directory')) return false
  }
  const modifiedAt = node.timestampModification ?? node.updatedAt ?? 0
  return selection.takes(path, kind) && (kind === 'directory' || selection.takesFile(node.size ?? 0, modifiedAt))
}

/** What stands at these places on the disk, which is not changed. */
export function lookAtPlaces(root: string, wanted: ReadonlyMap<string, RemoteItem>, signal: AbortSignal) {
  const items = new Map<string, LocalEntry>()
  /** What is neither a file nor a directory. */
  const links = new Map<string, readonly string[]>()
  const failures: EntryFailure[] = []
  /** Where nobody can look. That is told of them, not again of all that would be in them. */
  const blocked = createBlocked()
  for (const [key, { path }] of wanted) {
    if (signal.aborted) throw cancelled(signal)
    if (blocked.has(key)) continue
    const source = join(root, ...path)
    try {
      const info = lookAt(source)
      const kind = info?.isFile() ? 'file' : info?.isDirectory() ? 'directory' : undefined
      if (info !== undefined && kind !== undefined) items.set(key, entryAt(info, kind, path, source))
      else if (info !== undefined) links.set(key, path)
    } catch (error) {
      failures.push({ path: showPath(path), error: toSyncError(localError(error, 'look at the target')) })
      blocked.add(key)
    }
  }
  return { items, links, failures, blocked }
}

function entryAt(info: Stats, kind: LocalEntry['kind'], path: readonly string[], source: string): LocalEntry {
  const { size, mtimeMs, ctimeMs, ino, dev } = info
  return { kind, path, source, size: kind === 'file' ? size : 0, mtimeMs, ctimeMs, ino, dev }
}

/** True when a file that was given one time has the other on this disk, and the size is right. */
function isAlike(disk: Target, local: LocalEntry, { size, timestampModification, updatedAt }: RemoteNode): boolean {
  const wanted = timestampModification ?? updatedAt
  if (local.size !== size || wanted === undefined) return false
  const found = local.mtimeMs
  if (sameTime(wanted, found) || Math.abs(wanted - found) < disk.resolutionMs) return true
  try {
    return sameTime(disk.heldTime(wanted), found)
  } catch {
    return false
  }
}

/** Paths of all directories, the root among them. */
export function* directoriesOf(items: ReadonlyMap<string, RemoteItem>): Generator<readonly string[]> {
  yield []
  for (const { kind, path } of items.values()) if (kind === 'directory') yield path
}

/** Throws `TARGET_IS_FILE` for something that is there and is no directory. */
export function requireDirectory(target: string): void {
  try {
    if (statSync(target).isDirectory()) return
  } catch {
    return // it is made, and what prevents that is told then
  }
  throw new SyncError('usage', 'TARGET_IS_FILE', `The local target is not a directory: ${target}`, {
    hint: 'Name a directory; only a single file takes the name of another one.',
  })
}

/** The directory itself, or what it would be made in. */
function nearestDirectory(path: string): string {
  for (let at = resolve(path); ; at = dirname(at)) if (existsSync(at) || at === dirname(at)) return at
}
