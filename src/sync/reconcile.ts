/**
 * What to do to bring two trees together, as a pure function of both, of what is known from earlier runs, and of the options.
 * It touches no file, no key and no network. Planning what has been carried out yields nothing.
 *
 * Steps come in the order in which they are safe: moves and directories from the top down, contents, deletions of files, then
 * of directories from the bottom up.
 * @module
 */
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { foldKey } from '../local/names.ts'
import { type ConflictAction, freeName, mayReplace } from './conflicts.ts'
import { findInTheWay, settleKinds } from './kinds.ts'
import { isAtOrBelow, isBelowAny, nameCopy, rekey, type Taken } from './places.ts'
import {
  type Change,
  localChange,
  localIdentity,
  looksEqual,
  remoteChange,
  remoteIdentity,
  type SyncRecord,
} from './records.ts'
import { type Blocked, keyOf, parentKey, type RemoteItem } from './scan.ts'
import type { LocalEntry } from './tree.ts'

export type Direction = 'push' | 'pull' | 'both'
export type Side = 'local' | 'remote'

export interface ReconcileOptions {
  readonly direction: Direction
  /** Delete what is gone on the other side. */
  readonly delete: boolean
  /** Compare contents, whatever sizes and times say. */
  readonly checksum?: boolean
  /** Mirrors: what to do with a target that somebody else has changed. Default `fail`. */
  readonly onConflict?: ConflictAction | undefined
  /**
   * False for runs that remember nothing: contents are compared only where that is asked for, since the next run would have to
   * compare them again. Default true.
   */
  readonly remembers?: boolean
  /** Both ways: which side wins. Default: both are kept. */
  readonly prefer?: 'local' | 'remote' | 'newer' | undefined
  /** Name of the copy that is kept beside the original. */
  readonly conflictName: (name: string, modifiedAt: number) => string
}

export interface Trees {
  readonly local: ReadonlyMap<string, LocalEntry>
  readonly remote: ReadonlyMap<string, RemoteItem>
  readonly records: ReadonlyMap<string, SyncRecord>
  readonly blocked: Blocked
  /** True when there is nothing to go by: a first run, or lost state. */
  readonly isFirst: boolean
  /** True when a side could not be listed whole. */
  readonly isIncomplete: boolean
  /** Symbolic links on this disk, by key: they are no content, but they may stand where something has to go. */
  readonly links?: ReadonlyMap<string, readonly string[]>
  /** The disk takes `a` and `A` for one name. */
  readonly foldsCase?: boolean
  /** True when nothing speaks against equal content. Default: `looksEqual`. */
  readonly isEqual?: (local: LocalEntry, node: RemoteNode) => boolean
  /** True when something that was not listed has this name at the target. Default: everything was listed. */
  readonly isTaken?: (path: readonly string[]) => boolean
}

interface Common {
  /** Of the place; equal for both sides. */
  readonly key: string
  /** Components; joined for people by `showPath`. */
  readonly path: readonly string[]
  readonly reason: string
  /** Its place is free only when deletions are done. */
  readonly isLate?: true
}

interface Move {
  readonly kind: 'file' | 'directory'
  readonly from: readonly string[]
  /** Its node; content and id stay the same. */
  readonly remote: RemoteItem
  /** What is moved, or was moved, on this disk. */
  readonly local: LocalEntry
  /** Nothing but the case of its name is known to be the same on both sides. */
  readonly isCaseOnly?: true
}

export type SyncStep = Common &
  (
    | (Move & { readonly do: 'move-remote' })
    | (Move & { readonly do: 'move-local' })
    | { readonly do: 'make-folder' }
    | { readonly do: 'make-directory' }
    | {
        readonly do: 'upload'
        readonly local: LocalEntry
        readonly replaces?: RemoteItem
        /** What differs and stays; this goes beside it. */
        readonly beside?: RemoteItem
        /** Only remember it if the contents turn out to be equal. */
        readonly unlessSame?: boolean
      }
    | {
        readonly do: 'download'
        readonly remote: RemoteItem
        readonly replaces?: LocalEntry
        readonly beside?: LocalEntry
        readonly unlessSame?: boolean
      }
    /** Equal: nothing moves, it is only remembered. */
    | { readonly do: 'adopt'; readonly local: LocalEntry; readonly remote: RemoteItem }
    /** Both changed: the local one gets another name, so that both are on both sides. */
    | {
        readonly do: 'keep-both'
        readonly local: LocalEntry
        readonly remote: RemoteItem
        readonly copy: readonly string[]
        readonly unlessSame?: boolean
      }
    | {
        readonly do: 'conflict'
        readonly error: SyncError
        /** Not one if their contents turn out to be equal. */
        readonly unlessSame?: { readonly local: LocalEntry; readonly remote: RemoteItem }
      }
    /** What stands here makes way for what is there under this name; both sides get both. */
    | { readonly do: 'move-aside'; readonly copy: readonly string[] }
    | { readonly do: 'delete-remote'; readonly remote: RemoteItem }
    | {
        readonly do: 'delete-local'
        readonly local: LocalEntry
        /** Of a directory that goes as a whole: the files that are known to be in it. */
        readonly whole?: readonly LocalEntry[]
      }
    /** A link that stands where something has to go. */
    | { readonly do: 'take-link' }
    /** Gone on one side, and not deleted on the other. */
    | { readonly do: 'keep'; readonly side: Side; readonly kind: 'file' | 'directory' }
    /** Gone on both sides, or known by another name now. */
    | { readonly do: 'forget' }
  )

/** Bytes that a step moves over the network. */
export function bytesOf(step: SyncStep): number {
  if (step.do === 'upload') return step.local.size
  if (step.do === 'download') return step.remote.node.size ?? 0
  if (step.do === 'keep-both') return step.local.size + (step.remote.node.size ?? 0)
  return 0
}

/** Bytes from which it is worth finding out whether a file with another time has another content. */
const COMPARE_FROM = 1024 * 1024

/** Shallow before deep; then by name, the same on every machine. */
const byPath = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

export function reconcile(trees: Trees, options: ReconcileOptions): SyncStep[] {
  const { blocked } = trees
  const steps: SyncStep[] = []
  /** Remote folders and local directories that an earlier step makes. */
  const made = new Set<string>()

  let { local, remote, records }: Pick<Trees, 'local' | 'remote' | 'records'> = trees
  const isGone = isAnythingGone(trees)
  if (isGone || trees.foldsCase) {
    // What is gone may have been moved; then the view goes on as if that were done.
    const own = { local: new Map(local), remote: new Map(remote), records: new Map(records) }
    const view: View = { ...own, blocked, steps, made, foldsCase: trees.foldsCase }
    if (isGone && options.direction !== 'pull') findMoves(view, localSide(view))
    if (isGone && options.direction !== 'push') findMoves(view, remoteSide(view))
    if (trees.foldsCase) findCaseMoves(view, options.direction)
    ;({ local, remote, records } = own)
  }
  let found = placesToLookAt({ ...trees, local, remote, records }, options)
  const reserved = new Set<string>()
  const taken: Taken = {
    has: (key) => reserved.has(key) || found.has(key) || local.has(key) || remote.has(key) || records.has(key),
    add: (key) => reserved.add(key),
  }
  const removals: SyncStep[] = []
  const contents: SyncStep[] = []
  const emptied: SyncStep[] = []
  const standing = findInTheWay({ local, remote }, found, trees.links)
  /** Places that become free last. */
  let freed: ReadonlySet<string> = new Set()
  if (standing.size > 0) {
    const own = { local: new Map(local), remote: new Map(remote), records: new Map(records) }
    const settled = settleKinds({ ...trees, ...own }, standing, options, taken)
    append(steps, settled.aside)
    append(contents, settled.conflicts)
    append(removals, settled.removals)
    append(emptied, settled.emptied)
    freed = settled.freed
    ;({ local, remote, records } = own)
    found = placesToLookAt({ ...trees, local, remote, records }, options)
    for (const key of settled.left) for (const one of found) if (isAtOrBelow(one, key)) found.delete(one)
  }
  const keys = [...found].sort(byPath)
  const decide = createDecision(trees, options, taken)
  /** Places that hold something which stays or comes: their directories are needed. */
  const needed = new Set<string>()
  const directories: string[] = []
  for (const key of keys) {
    const here = { local: local.get(key), remote: remote.get(key), record: records.get(key) }
    const kind = here.local?.kind ?? here.remote?.kind ?? here.record!.kind
    if (kind === 'directory') {
      directories.push(key)
      continue
    }
    const step = decide(key, here)
    if (step === undefined) continue
    if (step.do === 'delete-local' || step.do === 'delete-remote' || step.do === 'forget') removals.push(step)
    else contents.push(step)
    if (step.do !== 'delete-local' && step.do !== 'delete-remote' && step.do !== 'forget') need(key, needed)
  }
  const directorySteps = planDirectories({ ...trees, local, remote, records }, made, options, directories, needed)
  const isLate = ({ key }: SyncStep) => freed.size > 0 && isBelowAny(key, freed)
  const [make, late] = [directorySteps.make.filter((step) => !isLate(step)), directorySteps.make.filter(isLate)]
  for (const step of contents) if (isLate(step)) late.push(step)
  const directoriesGone = [...emptied, ...directorySteps.remove].sort(deepestFirst)
  const first = contents.filter((step) => !isLate(step))
  const last = late.map((step) => ({ ...step, isLate: true as const }))
  for (const more of [make, first, removals, directoriesGone, last]) append(steps, more)
  return steps
}

/** Not by a call with all of them: one takes some 100,000 arguments at most. */
function append(steps: SyncStep[], more: readonly SyncStep[]): void {
  for (const step of more) steps.push(step)
}

/** Where there may be something to do. */
function placesToLookAt(trees: Trees, options: ReconcileOptions): Set<string> {
  const { local, remote, records, blocked } = trees
  const { checksum } = options
  if (options.remembers === false) return placesToFill(trees, options)
  const found = new Set<string>()
  let [knownHere, knownThere] = [0, 0]
  for (const [key, record] of records) {
    const [here, there] = [local.get(key), remote.get(key)]
    if (here !== undefined) knownHere++
    if (there !== undefined) knownThere++
    if ((checksum || !isSettled(record, here, there)) && !blocked.has(key)) found.add(key)
  }
  for (const [tree, known] of [
    [local, knownHere],
    [remote, knownThere],
  ] as const) {
    if (tree.size === known) continue
    for (const key of tree.keys()) if (!records.has(key) && !blocked.has(key)) found.add(key)
  }
  return found
}

/** The same for runs that remember nothing: what the source has, as far as the target does not have it already. */
function placesToFill(
  { local, remote, blocked, isEqual = looksEqual }: Trees,
  { direction, checksum }: ReconcileOptions,
): Set<string> {
  const found = new Set<string>()
  for (const key of (direction === 'pull' ? remote : local).keys()) {
    const [here, there] = [local.get(key), remote.get(key)]
    const isThere = checksum !== true && here?.kind === 'file' && there?.kind === 'file' && isEqual(here, there.node)
    if (!isThere && !blocked.has(key)) found.add(key)
  }
  return found
}

// What is deepest goes first.
const deepestFirst = (a: SyncStep, b: SyncStep) => b.path.length - a.path.length || byPath(a.key, b.key)

function isAnythingGone({ local, remote, records }: Trees): boolean {
  for (const key of records.keys()) if (!local.has(key) || !remote.has(key)) return true
  return false
}

/** A file that is on both sides as it was: nothing follows from it. */
function isSettled(record: SyncRecord, here: LocalEntry | undefined, there: RemoteItem | undefined): boolean {
  if (record.kind !== 'file' || here === undefined || there === undefined) return false
  return localChange(record, here) === 'same' && (there.record === record || remoteChange(record, there) === 'same')
}

export interface View {
  readonly local: Map<string, LocalEntry>
  readonly remote: Map<string, RemoteItem>
  readonly records: Map<string, SyncRecord>
  readonly blocked: Blocked
  readonly steps: SyncStep[]
  readonly made: Set<string>
  /** Of the local disk. */
  readonly foldsCase?: boolean | undefined
}

interface Here {
  readonly local: LocalEntry | undefined
  readonly remote: RemoteItem | undefined
  readonly record: SyncRecord | undefined
}

const bothChanged = () =>
  new SyncError('conflict', 'BOTH_CHANGED', 'Both sides have changed', {
    hint: 'Look at both. --on-conflict says what else can be done.',
  })

const targetChanged = (what: string) =>
  new SyncError('conflict', 'TARGET_CHANGED', `${what}, so it was left alone`, {
    hint: 'Look at both. --on-conflict overwrite replaces it.',
  })

/** What is said of a target that differs and of which nothing is known. */
export const targetDiffers = (): SyncError =>
  new SyncError('conflict', 'TARGET_DIFFERS', 'The target differs, and was kept', {
    hint: 'Look at both. --on-conflict says what else can be done.',
  })

/** Decides about one file. */
function createDecision(trees: Trees, options: ReconcileOptions, taken: Taken) {
  const { direction, onConflict = 'fail', prefer, remembers = true, checksum = false } = options
  const { isEqual = looksEqual, isTaken = () => false } = trees
  const mayDelete = options.delete && !trees.isFirst && !trees.isIncomplete

  return function decide(key: string, { local, remote, record }: Here): SyncStep | undefined {
    const path = local?.path ?? remote?.path ?? record!.path.split('/')
    const at = { key, path }
    const here: Change | undefined = record && local && localChange(record, local)
    const there: Change | undefined = record && remote && remoteChange(record, remote)

    if (local === undefined && remote === undefined) return { do: 'forget', ...at, reason: 'gone on both sides' }

    if (local !== undefined && remote !== undefined) {
      if (here === 'same' && there === 'same' && !options.checksum) return undefined
      const equal = isEqual(local, remote.node)
      if (record === undefined && equal && !options.checksum) {
        return remembers ? { do: 'adopt', ...at, reason: 'same size and time', local, remote } : undefined
      }
      if (here === 'same' && there === 'same') {
        return {
          do: 'conflict',
          ...at,
          reason: 'contents are compared',
          error: silentlyChanged(),
          unlessSame: { local, remote },
        }
      }
      const isSameSize = local.size === remote.node.size
      const isCompared = isSameSize && (remembers || checksum)
      const maybe = isCompared ? { unlessSame: true } : {}
      // A small file with another time is sooner sent than looked at: that takes its key.
      const mayBeSame = here === 'changed' && local.size < COMPARE_FROM && !options.checksum ? {} : maybe
      const upload = (reason: string, compare = maybe): SyncStep => ({
        do: 'upload',
        ...at,
        reason,
        local,
        replaces: remote,
        ...compare,
      })
      const download = (reason: string): SyncStep => ({
        do: 'download',
        ...at,
        reason,
        remote,
        replaces: local,
        ...maybe,
      })
      const conflict = (reason: string, error: SyncError): SyncStep => ({
        do: 'conflict',
        ...at,
        reason,
        error,
        ...(isCompared ? { unlessSame: { local, remote } } : {}),
      })
      const [localTime, remoteTime] = [local.mtimeMs, remote.node.timestampModification]
      if (direction === 'both') {
        if (there === 'same') return upload('changed here', mayBeSame)
        if (here === 'same') return download('changed there')
        if (prefer === 'local' || (prefer === 'newer' && mayReplace('newer', localTime, remoteTime))) {
          return upload(prefer === 'local' ? 'both changed, local is preferred' : 'both changed, newer here')
        }
        const newerThere = remoteTime !== undefined && mayReplace('newer', remoteTime, localTime)
        if (prefer === 'remote' || (prefer === 'newer' && newerThere)) {
          return download(prefer === 'remote' ? 'both changed, remote is preferred' : 'both changed, newer there')
        }
        const reason = record === undefined ? 'they differ' : 'both changed'
        return { ...keepBoth(key, local, remote, reason), ...maybe }
      }
      const [mine, others] = direction === 'push' ? [here, there] : [there, here]
      const send = direction === 'push' ? upload : download
      // The target is as this program has left it, so replacing it loses nothing.
      if (others === 'same') return direction === 'push' ? upload('changed here', mayBeSame) : download('changed there')
      if (onConflict === 'skip') return undefined
      if (onConflict === 'overwrite') return send('they differ')
      const [from, existing] = direction === 'push' ? [localTime, remoteTime] : [remoteTime ?? 0, localTime]
      if (onConflict === 'newer') return mayReplace('newer', from, existing) ? send('newer') : undefined
      if (onConflict === 'rename') {
        const free = freePath(path)
        const beside = { key: keyOf(free), path: free, reason: 'they differ', ...maybe }
        if (direction === 'push') return { do: 'upload', ...beside, local, beside: remote }
        return { do: 'download', ...beside, remote, beside: local }
      }
      if (record === undefined) return conflict('they differ', targetDiffers())
      if (mine === 'same')
        return conflict('the target was changed', targetChanged('The target was changed by somebody else'))
      return conflict('both changed', bothChanged())
    }

    if (local !== undefined) {
      if (direction === 'pull') {
        if (record !== undefined && here !== 'same') return conflictOrKeep(at, 'local', record)
        return goneThere(at, local, record)
      }
      if (direction === 'both' && record !== undefined && here === 'same') return goneThere(at, local, record)
      return { do: 'upload', ...at, reason: record === undefined ? 'new here' : 'not there any more', local }
    }

    const item = remote!
    if (direction === 'push') {
      if (record !== undefined && there !== 'same') return conflictOrKeep(at, 'remote', record)
      return goneHere(at, item, record)
    }
    if (direction === 'both' && record !== undefined && there === 'same') return goneHere(at, item, record)
    return { do: 'download', ...at, reason: record === undefined ? 'new there' : 'not here any more', remote: item }
  }

  function keepBoth(key: string, local: LocalEntry, remote: RemoteItem, reason: string) {
    const copy = nameCopy(key, local.path, local.mtimeMs, options, taken)
    return { do: 'keep-both', key, path: local.path, reason, local, remote, copy } as const
  }

  /** A free name at the target; it is taken then. */
  function freePath(path: readonly string[]): readonly string[] {
    const parent = path.slice(0, -1)
    const name = freeName(path.at(-1)!, (candidate) => {
      const wanted = [...parent, candidate]
      if (taken.has(keyOf(wanted)) || isTaken(wanted)) return false
      taken.add(keyOf(wanted))
      return true
    })
    return [...parent, name]
  }

  /** Removed at the source, changed at the target: a change is worth more than a removal. */
  function conflictOrKeep(at: Pick<Common, 'key' | 'path'>, side: Side, record: SyncRecord): SyncStep | undefined {
    if (!options.delete)
      return { do: 'keep', ...at, side, kind: record.kind, reason: 'gone on the other side, changed here' }
    if (onConflict === 'skip') return undefined
    const error = targetChanged('It is gone at the source, but was changed at the target')
    return { do: 'conflict', ...at, reason: 'gone at the source, changed at the target', error }
  }

  function goneThere(at: Pick<Common, 'key' | 'path'>, local: LocalEntry, record: SyncRecord | undefined): SyncStep {
    if (mayDelete) return { do: 'delete-local', ...at, reason: record ? 'deleted there' : 'not there', local }
    return { do: 'keep', ...at, side: 'local', kind: 'file', reason: record ? 'deleted there' : 'not there' }
  }

  function goneHere(at: Pick<Common, 'key' | 'path'>, remote: RemoteItem, record: SyncRecord | undefined): SyncStep {
    if (mayDelete) return { do: 'delete-remote', ...at, reason: record ? 'deleted here' : 'not here', remote }
    return { do: 'keep', ...at, side: 'remote', kind: 'file', reason: record ? 'deleted here' : 'not here' }
  }
}

const silentlyChanged = () =>
  new SyncError('integrity', 'CONTENT_DIFFERS', 'The contents differ, though sizes and times do not', {
    hint: 'One side has changed without a trace: a failing disk, a program that resets times, or the server.',
  })

/** The directories above a place stay, or are made. */
function need(key: string, needed: Set<string>): void {
  for (let above = parentKey(key); above !== '' && !needed.has(above); above = parentKey(above)) needed.add(above)
}

/** Directories: made where they are missing, removed where they are gone and nothing needs them. */
function planDirectories(
  trees: Trees,
  made: ReadonlySet<string>,
  { direction, delete: wantsDelete, remembers = true }: ReconcileOptions,
  keys: readonly string[],
  needed: Set<string>,
): { make: SyncStep[]; remove: SyncStep[] } {
  const { local, remote, records } = trees
  const make: SyncStep[] = []
  const remove: SyncStep[] = []
  const mayDelete = wantsDelete && !trees.isFirst && !trees.isIncomplete
  if (direction === 'both') {
    // A directory that is new on one side needs those above it on the other.
    for (const key of keys) if (!records.has(key)) need(key, needed)
  }
  for (const key of keys) {
    const [here, there, record] = [local.get(key), remote.get(key), records.get(key)]
    if (here !== undefined && there !== undefined) {
      const isKnown = !remembers || (record?.remote.id === there.node.id && record.local.ino === here.ino)
      if (!isKnown)
        make.push({ do: 'adopt', key, path: here.path, reason: 'on both sides', local: here, remote: there })
      continue
    }
    if (here === undefined && there === undefined) {
      if (!made.has(key))
        remove.push({ do: 'forget', key, path: record!.path.split('/'), reason: 'gone on both sides' })
      continue
    }
    const path = (here ?? there)!.path
    const isNew = record === undefined
    if (here !== undefined) {
      const isWanted = direction === 'push' || (direction === 'both' && (isNew || needed.has(key)))
      if (isWanted) {
        if (!made.has(key))
          make.push({ do: 'make-folder', key, path, reason: isNew ? 'new here' : 'not there any more' })
      } else if (mayDelete && !needed.has(key)) {
        remove.push({ do: 'delete-local', key, path, reason: isNew ? 'not there' : 'deleted there', local: here })
      } else {
        remove.push({
          do: 'keep',
          key,
          path,
          side: 'local',
          kind: 'directory',
          reason: isNew ? 'not there' : 'deleted there',
        })
      }
      continue
    }
    const isWanted = direction === 'pull' || (direction === 'both' && (isNew || needed.has(key)))
    if (isWanted) {
      if (!made.has(key))
        make.push({ do: 'make-directory', key, path, reason: isNew ? 'new there' : 'not here any more' })
    } else if (mayDelete && !needed.has(key) && there!.node.type !== 'room') {
      remove.push({ do: 'delete-remote', key, path, reason: isNew ? 'not here' : 'deleted here', remote: there! })
    } else {
      remove.push({
        do: 'keep',
        key,
        path,
        side: 'remote',
        kind: 'directory',
        reason: isNew ? 'not here' : 'deleted here',
      })
    }
  }
  return { make, remove }
}

/** Where something was moved: on which side to look for it, and what follows on the other. */
interface MoveSide {
  readonly action: 'move-remote' | 'move-local'
  /** Identity of what is there now, by which it is found again. */
  identify(key: string): string | undefined
  /** Identity that it had. */
  known(record: SyncRecord): string
  keys(): Iterable<string>
  has(key: string): boolean
  path(key: string): readonly string[]
  kind(key: string): 'file' | 'directory'
  /** True when the other side still has it at its old place, as it was. */
  stands(key: string, record: SyncRecord): boolean
  /** True when nothing has the name there, or nothing but what is to get it. */
  isFreeThere(key: string, from: string): boolean
  /** Takes what is below `from` on the other side to `to`. */
  carry(from: string, to: readonly string[]): void
  makeParent: 'make-folder' | 'make-directory'
}

function localSide({ local, remote, foldsCase }: View): MoveSide {
  // Two names there that the disk here takes for one could not both be here.
  const folded = foldsCase ? createFolded(remote) : undefined
  return {
    action: 'move-remote',
    makeParent: 'make-folder',
    identify(key) {
      const entry = local.get(key)
      if (entry === undefined) return undefined
      return entry.kind === 'directory' ? `d${entry.ino}` : `f${entry.ino} ${entry.size} ${entry.mtimeMs}`
    },
    known: ({ kind, local: { ino, size, mtimeMs } }) =>
      kind === 'directory' ? `d${ino}` : `f${ino} ${size} ${mtimeMs}`,
    keys: () => local.keys(),
    has: (key) => local.has(key),
    path: (key) => local.get(key)!.path,
    kind: (key) => local.get(key)!.kind,
    stands(key, record) {
      const item = remote.get(key)
      // Rooms stay where they are: they cannot be moved.
      return item !== undefined && item.node.type !== 'room' && remoteChange(record, item) === 'same'
    },
    isFreeThere: (key, from) => !remote.has(key) && [undefined, from].includes(folded?.(key)),
    carry(from, to) {
      rekey(remote, from, to, ({ kind, node, roomId }, path) => ({ kind, path, node, roomId }))
      folded?.(undefined)
    },
  }
}

function remoteSide({ local, remote, foldsCase }: View): MoveSide {
  const folded = foldsCase ? createFolded(local) : undefined
  return {
    action: 'move-local',
    makeParent: 'make-directory',
    identify(key) {
      const item = remote.get(key)
      if (item === undefined || item.node.type === 'room') return undefined
      const { id, size, modified } = remoteIdentity(item.node)
      return item.kind === 'directory' ? `d${id}` : `f${id} ${size} ${modified}`
    },
    known: ({ kind, remote: { id, size, modified } }) =>
      kind === 'directory' ? `d${id}` : `f${id} ${size} ${modified}`,
    keys: () => remote.keys(),
    has: (key) => remote.has(key),
    path: (key) => remote.get(key)!.path,
    kind: (key) => remote.get(key)!.kind,
    stands(key, record) {
      const entry = local.get(key)
      return entry !== undefined && localChange(record, entry) === 'same'
    },
    isFreeThere: (key, from) => !local.has(key) && [undefined, from].includes(folded?.(key)),
    carry(from, to) {
      rekey(local, from, to, (entry, path) => ({ ...entry, path }))
      folded?.(undefined)
    },
  }
}

/** Finds what a disk that folds case takes for this key; asked for nothing, it looks at the tree anew the next time. */
function createFolded(tree: ReadonlyMap<string, unknown>) {
  let keys: Map<string, string> | undefined
  return (key: string | undefined): string | undefined => {
    if (key === undefined) keys = undefined
    else keys ??= new Map([...tree.keys()].map((one) => [foldKey(one), one]))
    return key === undefined ? undefined : keys?.get(foldKey(key))
  }
}

/** Finds what was moved on one side and stands where it was on the other; adds the steps and looks on as if they were done. */
function findMoves(view: View, side: MoveSide): void {
  const { records, blocked, steps, made } = view
  for (const kind of ['directory', 'file'] as const) {
    const lost = new Map<string, string>()
    for (const [key, record] of records) {
      if (record.kind === kind && !side.has(key) && !blocked.has(key)) lost.set(side.known(record), key)
    }
    if (lost.size === 0) continue
    const found = [...side.keys()].filter((key) => side.kind(key) === kind && !records.has(key) && !blocked.has(key))
    for (const to of found.sort(byPath)) {
      const identity = side.identify(to)
      const from = identity === undefined ? undefined : lost.get(identity)
      // It may have come along with a directory that was moved.
      if (from === undefined || records.has(to) || !records.has(from)) continue
      const record = records.get(from)!
      if (!side.stands(from, record) || !side.isFreeThere(to, from) || to.startsWith(`${from}/`)) {
        continue
      }
      // Numbers of directories are used again: something in it has to be known, too.
      if (kind === 'directory' && !bringsKnown(view, side, from, to)) continue
      const path = side.path(to)
      if (!makeParents(view, side, path)) continue
      const remote = (view.remote.get(from) ?? view.remote.get(to))!
      const local = (view.local.get(from) ?? view.local.get(to))!
      const was = record.path
      steps.push({ do: side.action, kind, key: to, path, from: was.split('/'), reason: `was ${was}`, remote, local })
      side.carry(from, path)
      rekey(records, from, path, (one, at) => ({ ...one, path: at.join('/') }))
      // Renaming a file touches it.
      const [settled, here] = [records.get(to), view.local.get(to)]
      if (settled?.kind === 'file' && here !== undefined) records.set(to, { ...settled, local: localIdentity(here) })
      made.delete(from)
      lost.delete(identity!)
    }
  }
}

/**
 * Names that differ in their case only, on a disk that takes them for one: what stands under one is what the other side has under
 * the other, whatever else has changed. The side whose name is new says how it is written.
 */
function findCaseMoves(view: View, direction: Direction): void {
  const sides: MoveSide[] = []
  if (direction !== 'pull') sides.push(localSide(view))
  if (direction !== 'push') sides.push(remoteSide(view))
  const { records, blocked, steps, made, local, remote } = view
  for (const side of sides) {
    const isRemoteNew = side.action === 'move-local'
    const [mine, others] = isRemoteNew ? [remote, local] : [local, remote]
    const found = [...mine.keys()].filter((key) => !records.has(key) && !others.has(key) && !blocked.has(key))
    if (found.length === 0) continue
    const folded = new Map<string, string>()
    for (const key of others.keys()) if (!mine.has(key) && !blocked.has(key)) folded.set(foldKey(key), key)
    if (folded.size === 0) continue
    for (const to of found.sort(byPath)) {
      // It may have come along with its directory.
      const from = others.has(to) ? undefined : findFolded(to)
      if (from === undefined) continue
      const [theirs, own] = [others.get(from)!, mine.get(to)!]
      if (theirs.kind !== own.kind || (!isRemoteNew && remote.get(from)!.node.type === 'room')) continue
      const there = (isRemoteNew ? remote.get(to) : remote.get(from))!
      const here = (isRemoteNew ? local.get(from) : local.get(to))!
      const path = own.path
      const move = { key: to, path, from: theirs.path, reason: 'written in another case', remote: there, local: here }
      steps.push({ do: side.action, kind: own.kind, ...move, isCaseOnly: true })
      const record = records.get(from)
      const wasSame = record !== undefined && localChange(record, here) === 'same'
      side.carry(from, path)
      rekey(records, from, path, (one, at) => ({ ...one, path: at.join('/') }))
      const now = records.get(to)
      if (wasSame && isRemoteNew && now?.kind === 'file')
        records.set(to, { ...now, local: localIdentity(local.get(to)!) })
      made.delete(from)
    }

    function findFolded(to: string): string | undefined {
      const from = folded.get(foldKey(to))
      if (from !== undefined) return others.has(from) ? from : undefined
      return undefined
    }
  }
}

function bringsKnown({ records }: View, side: MoveSide, from: string, to: string): boolean {
  let isEmpty = true
  for (const [key, record] of records) {
    if (!key.startsWith(`${from}/`)) continue
    isEmpty = false
    if (side.identify(`${to}${key.slice(from.length)}`) === side.known(record)) return true
  }
  return isEmpty
}

/** False when something other than a directory is in the way. */
function makeParents({ steps, made, local, remote }: View, side: MoveSide, path: readonly string[]): boolean {
  const other: ReadonlyMap<string, { readonly kind: 'file' | 'directory' }> =
    side.makeParent === 'make-folder' ? remote : local
  const missing: { key: string; path: readonly string[] }[] = []
  let key = ''
  for (const [index] of path.slice(0, -1).entries()) {
    const above = path.slice(0, index + 1)
    key = keyOf(above)
    const there = other.get(key)
    if (there?.kind === 'file') return false
    if (there === undefined && !made.has(key)) missing.push({ key, path: above })
  }
  for (const one of missing) {
    made.add(one.key)
    steps.push({ do: side.makeParent, ...one, reason: 'for what is moved there' })
  }
  return true
}
