/**
 * Both sides as they are now, by one key per place, so that they can be compared. What cannot be compared safely - names that
 * meet, names that the other side cannot hold, directories that could not be listed - is blocked on both sides.
 * @module
 */
import { lstatSync, statSync } from 'node:fs'
import type { Api } from '../api/api.ts'
import type { RemoteNode } from '../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { isTemporaryName, MANIFEST_NAME } from '../local/atomic-file.ts'
import { checkLocalName, escapeName, foldKey, localName, type Names, sameNameKey } from '../local/names.ts'
import type { SyncRecord } from './records.ts'
import { isAtOrBelowAny, type Scope } from './scope.ts'
import type { Selection } from './select.ts'
import {
  type EntryFailure,
  exactKey,
  type LocalEntry,
  MAX_DEPTH,
  readWholeTree,
  showPath,
  under,
  walk,
} from './tree.ts'

/** A remote file or folder, under the path it has or would have on this disk. */
export interface RemoteItem {
  readonly kind: 'file' | 'directory'
  readonly path: readonly string[]
  readonly node: RemoteNode
  readonly roomId: number
  /** What it was made from, if it was not listed. */
  readonly record?: SyncRecord
}

/** Places that take no part in this run, with all that is below them. */
export interface Blocked {
  add(key: string): void
  has(key: string): boolean
}

export interface Scan<T> {
  readonly items: Map<string, T>
  /** Each keeps the run from being called complete. */
  readonly failures: EntryFailure[]
  readonly ignored: number
}

export interface RemoteScan extends Scan<RemoteItem> {
  /** The root's `branchVersion` all the while, where the server tells. */
  readonly version?: number
  /** What a push has left at the top; no content. */
  readonly manifest?: RemoteNode | undefined
}

export interface LocalScan extends Scan<LocalEntry> {
  /** Paths of symbolic links that are not left out. */
  readonly links: readonly (readonly string[])[]
  readonly root: { readonly dev: number; readonly ino: number }
  /** Directories in which processes of ours have left something. */
  readonly leftovers: readonly (readonly string[])[]
}

/** Key of a place: its components in the form in which names are compared. */
export const keyOf = (path: readonly string[]): string => sameNameKey(path.join('/'))

export const parentKey = (key: string): string => key.slice(0, Math.max(0, key.lastIndexOf('/')))

export function createBlocked(): Blocked {
  const keys = new Set<string>()
  return {
    add: (key) => void keys.add(key),
    has: (key) => keys.size > 0 && isAtOrBelowAny(keys, key),
  }
}

export interface ScanOptions {
  readonly selection: Selection
  readonly blocked: Blocked
  /** Nothing else is looked at. */
  readonly scope?: Scope | undefined
  readonly oneFileSystem?: boolean
  readonly names?: Names | undefined
  readonly signal?: AbortSignal
  /** What is remembered: keys that are the same text are kept once. */
  readonly known?: ReadonlyMap<string, SyncRecord> | undefined
  /** Told of each local place that takes no part. */
  readonly onIgnored?: ((path: readonly string[]) => void) | undefined
}

/** @throws {SyncError} `SOURCE_MISSING`, `SOURCE_NOT_DIRECTORY`. */
export function identifyRoot(root: string): { dev: number; ino: number } {
  try {
    const info = statSync(root)
    if (!info.isDirectory()) {
      throw new SyncError('usage', 'SOURCE_NOT_DIRECTORY', `Not a directory: ${root}`, { hint: 'Name a directory.' })
    }
    return { dev: info.dev, ino: info.ino }
  } catch (error) {
    if (error instanceof SyncError) throw error
    if (systemCode(error) !== 'ENOENT') throw localError(error, `read ${root}`)
    throw new SyncError('usage', 'SOURCE_MISSING', `No such directory: ${root}`, { hint: 'Is its disk mounted?' })
  }
}

/** Everything below a local directory. */
export async function scanLocal(root: string, options: ScanOptions): Promise<LocalScan> {
  const { selection, blocked, names, signal, scope } = options
  const identity = identifyRoot(root)
  const items = new Map<string, LocalEntry>()
  const failures: EntryFailure[] = []
  const links: (readonly string[])[] = []
  const leftovers = new Map<string, readonly string[]>()
  const met = new Set<string>()
  let left = 0
  const block = (path: readonly string[], error: SyncError) => {
    failures.push({ path: showPath(path), error })
    blocked.add(keyOf(path))
  }
  const ignored = await walk(root, [], {
    ...(signal === undefined ? {} : { signal }),
    ...(scope === undefined ? {} : { wants: (path) => scope.has(keyOf(path)) }),
    onDirectory: (source, path) => selection.enter(source, path),
    onLeftover: (_directory, path) => leftovers.set(showPath(path), path),
    onLink(_source, path) {
      if (selection.takes(path, 'file')) links.push(path)
    },
    onOther: (path) => options.onIgnored?.(path),
    accept(entry) {
      const { path, kind, size, mtimeMs } = entry
      const isOut =
        !selection.takes(path, kind) ||
        (kind === 'directory' && options.oneFileSystem === true && entry.dev !== identity.dev) ||
        (kind === 'file' && !selection.takesFile(size, mtimeMs))
      if (!isOut) return true
      left++
      options.onIgnored?.(path)
      blocked.add(keyOf(path))
      return false
    },
    onEntry: (entry) => takeIn(entry, { items, met, names, block, known: options.known }),
    onFailure({ path, error }) {
      if (path === '') throw error
      failures.push({ path, error })
      blocked.add(keyOf(path.split('/')))
    },
  })
  return { items, failures, ignored: ignored + left, root: identity, links, leftovers: [...leftovers.values()] }
}

/** Puts a local entry under its key, unless it cannot have a place of its own on the server; then `block` is told. */
export function takeIn(
  entry: LocalEntry,
  how: {
    readonly items: Map<string, LocalEntry>
    /** Keys that several names share. */
    readonly met: Set<string>
    readonly names: Names | undefined
    block(path: readonly string[], error: SyncError): void
    readonly known?: ReadonlyMap<string, SyncRecord> | undefined
  },
): void {
  const { items, met, names, block, known } = how
  const { path, kind } = entry
  const found = keyOf(path)
  const sameText = known?.get(found)?.path
  const key = sameText === found ? sameText : found
  try {
    escapeName(path.at(-1)!, { names })
    if (kind === 'directory' && path.length > MAX_DEPTH) throw tooDeep()
  } catch (error) {
    block(path, toSyncError(error))
    return
  }
  const other = items.get(key)
  if (other === undefined) {
    items.set(key, entry)
    return
  }
  // The same thing named twice; and directories of one name from two sources become one.
  const areBothDirectories = kind === 'directory' && other.kind === 'directory'
  if (other.source === entry.source || (areBothDirectories && showPath(other.path) === showPath(path))) return
  const error = meeting('Two local names are one name on the server')
  // None is stored, so all are told.
  if (!met.has(key)) block(other.path, error)
  met.add(key)
  block(path, error)
}

/** Neither we nor others list deeper trees, so what is stored there would be out of reach. */
const tooDeep = () =>
  new SyncError('limit', 'TREE_TOO_DEEP', `The directory is more than ${MAX_DEPTH} levels below the target`, {
    hint: 'Pack deep trees into an archive, or upload their lower part by itself.',
  })

const meeting = (message: string) =>
  new SyncError('conflict', 'EXISTS', message, {
    hint: 'They differ only in letters’ case or in how characters are composed; rename one.',
  })

/**
 * Everything below a remote room or folder.
 *
 * @param foldCase - The local file system takes `a` and `A` for one name.
 * @throws {SyncError} when any part of it cannot be listed: it would look like deletions.
 */
export async function scanRemote(
  api: Api,
  root: RemoteNode,
  roomId: number,
  options: ScanOptions & { foldCase: boolean },
): Promise<RemoteScan> {
  const { signal } = options
  const { entries, version } = await readWholeTree(api, root, roomId, signal === undefined ? {} : { signal })
  const scan = arrangeRemote(entries, options)
  return version === undefined ? scan : { ...scan, version }
}

/** Remote entries (parents before children) by the places they have on this disk. */
export function arrangeRemote(
  entries: Iterable<{
    readonly node: RemoteNode
    readonly path: readonly string[]
    readonly roomId: number
    /** Its name here, whatever it is called there. */
    readonly as?: string | undefined
  }>,
  {
    selection,
    blocked,
    foldCase,
    names,
    takesManifest = false,
  }: Pick<ScanOptions, 'selection' | 'blocked' | 'names'> & {
    foldCase: boolean
    /** What a push has left at the top is a file like others. */
    takesManifest?: boolean
  },
): RemoteScan {
  const items = new Map<string, RemoteItem>()
  const failures: EntryFailure[] = []
  /** Containers on this disk, by remote path; `folded` is the key under which names meet here, `isSame` says that the paths are one. */
  const places = new Map([['', { path: [] as readonly string[], key: '', folded: '', isSame: true }]])
  const claims = new Map<string, string>()
  let before: readonly string[] = []
  let above = places.get('')
  let ignored = 0
  let manifest: RemoteNode | undefined
  for (const { node, path: remotePath, roomId, as } of entries) {
    if (!takesManifest && remotePath.length === 1 && isManifest(node)) {
      manifest = node
      continue
    }
    // What is in one directory comes together.
    if (!areSiblings(remotePath, before)) above = places.get(exactKey(remotePath.slice(0, -1)))
    before = remotePath
    if (above === undefined) continue
    let name: string
    try {
      if (as !== undefined) checkLocalName(as)
      name = as ?? localName(remotePath.at(-1)!, { names })
    } catch (error) {
      failures.push({ path: showPath(remotePath), error: toSyncError(error) })
      continue
    }
    const isSame = above.isSame && name === remotePath.at(-1)
    // Of a million entries nearly all are as they are there, and need no path of their own.
    const path = isSame ? remotePath : under(above.path, name)
    const key = below(above.key, sameNameKey(name))
    const kind = node.type === 'file' ? 'file' : 'directory'
    const modifiedAt = node.timestampModification ?? node.updatedAt ?? 0
    const isOut = !selection.takes(path, kind) || (kind === 'file' && !selection.takesFile(node.size ?? 0, modifiedAt))
    if (isOut || (isTemporaryName(name) && !(takesManifest && isManifest(node)))) {
      ignored++
      blocked.add(key)
      continue
    }
    const folded = foldCase ? below(above.folded, foldKey(name)) : key
    const otherKey = foldCase ? claims.get(folded) : key
    const other = otherKey === undefined ? undefined : items.get(otherKey)
    if (other !== undefined) {
      // Directories of one name from two sources become one.
      if (kind === 'directory' && other.kind === 'directory' && showPath(other.path) === showPath(path)) continue
      const error = meeting('Two remote names are one name on this disk')
      failures.push({ path: showPath(path), error }, { path: showPath(other.path), error })
      blocked.add(key)
      blocked.add(otherKey!)
      places.delete(exactKey(remotePath))
      continue
    }
    if (foldCase) claims.set(folded, key)
    if (kind === 'directory') places.set(exactKey(remotePath), { path, key, folded, isSame })
    items.set(key, { kind, path, node, roomId })
  }
  return { items, failures, ignored, manifest }
}

/** True for two things in one directory. */
function areSiblings(one: readonly string[], other: readonly string[]): boolean {
  if (one.length !== other.length) return false
  for (let at = one.length - 2; at >= 0; at--) if (one[at] !== other[at]) return false
  return true
}

const below = (key: string, name: string): string => (key === '' ? name : `${key}/${name}`)

/** True for what a push has left of what it knows: it means nothing where anybody could have read or written it. */
export const isManifest = ({ name, type, isEncrypted }: RemoteNode): boolean =>
  name === MANIFEST_NAME && type === 'file' && isEncrypted === true

/** A local entry as it is now; `undefined` when nothing is there. */
export const lookLocal = (root: string, path: readonly string[]): LocalEntry | undefined =>
  lookEntry(`${root}/${path.join('/')}`, path)

/** The same, of what is somewhere else than its path says. */
export function lookEntry(source: string, path: readonly string[]): LocalEntry | undefined {
  try {
    const info = lstatSync(source)
    const kind = info.isDirectory() ? 'directory' : info.isFile() ? 'file' : undefined
    if (kind === undefined) throw new SyncError('conflict', 'LOCAL_NOT_A_FILE', 'Something else has this name')
    const { mtimeMs, ctimeMs, ino, dev } = info
    return { kind, path, source, size: kind === 'file' ? info.size : 0, mtimeMs, ctimeMs, ino, dev }
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined
    throw error instanceof SyncError ? error : localError(error, `look at ${showPath(path)}`)
  }
}
