/** Remote rooms, folders and files by their paths: looking, making, removing. Moving is in arrange.ts, contents are in content.ts. @module */
import type { WrappedFileKey } from '../../crypto/index.ts'
import { getFileKey } from '../api/file-keys.ts'
import { createCensus, deleteNode, getNode, listChildren, searchBelow, treeCycle } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { escapeName, foldKey } from '../local/names.ts'
import { nameMatcher } from '../sync/ignore-rules.ts'
import { ensureFolder, parseRemotePath, requireContainer, requireRemote } from '../sync/remote-path.ts'
import type { Abortable, ClientContext } from './context.ts'

/** A room, folder or file, and where it is. Times are milliseconds since the epoch, sizes bytes. */
export interface RemoteEntry extends RemoteNode {
  /** `/room/folder/name`, by the names on the server. */
  readonly path: string
}

export const pathOf = (names: readonly string[]) => `/${names.join('/')}`

const below = (path: string, node: RemoteNode): RemoteEntry => ({
  ...node,
  path: `${path === '/' ? '' : path}/${node.name}`,
})

/** An entry that has to be there, and the room that it is in. */
export async function requireEntry(
  { api }: ClientContext,
  path: string,
  signal?: AbortSignal,
): Promise<{ readonly entry: RemoteEntry; readonly roomId: number }> {
  const { node, roomId } = await requireRemote(api, path, signal)
  return { entry: { ...node, path: pathOf([...parseRemotePath(path).slice(0, -1), node.name]) }, roomId }
}

/**
 * What is in a room or folder, by name; a file is listed as itself.
 *
 * @param path - `/` lists the rooms.
 * @throws {SyncError} `REMOTE_MISSING`, `PATH_INVALID`, `LIST_CHANGED`, `LIST_CUT`, `LIST_TOO_LONG`, `TREE_CYCLE`.
 */
export async function* list(context: ClientContext, path: string, options: Abortable): AsyncGenerator<RemoteEntry> {
  const { api } = context
  const { signal } = options
  if (parseRemotePath(path).length === 0) {
    for await (const node of listChildren(api, 0, signal)) yield below('/', node)
    return
  }
  // At the same time as the way there.
  const ahead = searchBelow(api, parseRemotePath(path), undefined, signal).catch(() => undefined)
  const { entry } = await requireEntry(context, path, signal)
  if (entry.type === 'file') return yield entry
  const found = await ahead
  if (found === undefined || !isAllOf(entry, found)) {
    for await (const node of listChildren(api, entry.id, signal)) yield below(entry.path, node)
    return
  }
  await api.places?.enter(entry.id)
  for (const node of found.items) yield below(entry.path, node)
}

/** True when a search has found all that is directly in a room or folder: it says how much that is. */
function isAllOf(
  { id, cntFiles, cntFolders, cntRooms }: RemoteNode,
  { total, items }: { readonly total: number; readonly items: readonly RemoteNode[] },
): boolean {
  const isHere = new Set(items.filter(({ parentId, id: own }) => parentId === id && own !== id).map((node) => node.id))
  if (cntFiles === undefined || cntFolders === undefined) return false
  return isHere.size === items.length && total === items.length && total === cntFiles + cntFolders + (cntRooms ?? 0)
}

/**
 * Everything below a room or folder (`/`: below all rooms), each folder before what is in it. One folder is listed at a time, as
 * the caller goes on.
 *
 * @throws {SyncError} as `list`.
 */
export async function* walk(context: ClientContext, path: string, options: Abortable): AsyncGenerator<RemoteEntry> {
  const { api } = context
  const { signal } = options
  const isRoot = parseRemotePath(path).length === 0
  const top = isRoot ? undefined : (await requireEntry(context, path, signal)).entry
  if (top?.type === 'file') return yield top
  const count = createCensus(api)
  const ahead = [{ id: top?.id ?? 0, path: top?.path ?? '/', above: new Set<number>() }]
  for (let place = ahead.pop(); place !== undefined; place = ahead.pop()) {
    const above = new Set(place.above).add(place.id)
    const inside: typeof ahead = []
    for await (const node of listChildren(api, place.id, signal)) {
      if (above.has(node.id)) throw treeCycle()
      count(node.id)
      const entry = below(place.path, node)
      if (node.type !== 'file') inside.push({ id: node.id, path: entry.path, above })
      yield entry
    }
    for (const next of inside.reverse()) ahead.push(next)
  }
}

/** What is looked for besides the name. Sizes are bytes, times milliseconds since the epoch. */
export interface FindOptions extends Abortable {
  /** Only of this type. */
  readonly type?: RemoteNode['type'] | undefined
  /** Only files with more bytes. */
  readonly larger?: number | undefined
  /** Only files with fewer bytes. */
  readonly smaller?: number | undefined
  /** Only what was modified after this. */
  readonly newer?: number | undefined
  /** Only what was modified before this. */
  readonly older?: number | undefined
}

/** When something was modified, as far as the server says: the time of the file it was, else of its last change there. */
export const modifiedAt = ({
  timestampModification,
  updatedAt,
}: Pick<RemoteNode, 'timestampModification' | 'updatedAt'>): number | undefined => timestampModification ?? updatedAt

function isWithin(entry: RemoteNode, { type, larger, smaller, newer, older }: FindOptions): boolean {
  const { size = 0 } = entry
  const at = modifiedAt(entry)
  const isSized = larger !== undefined || smaller !== undefined
  return (
    (type === undefined || entry.type === type) &&
    (!isSized || entry.type === 'file') &&
    (larger === undefined || size > larger) &&
    (smaller === undefined || size < smaller) &&
    (newer === undefined || (at !== undefined && at > newer)) &&
    (older === undefined || (at !== undefined && at < older))
  )
}

/**
 * Entries below a room or folder with a name.
 *
 * @param name - `*` stands for any letters, `?` for one, `[…]` for one of some: `*.pdf`. Case does not count.
 * @throws {SyncError} as `list`; `FILTER_TOO_LONG`.
 */
export async function* find(
  context: ClientContext,
  path: string,
  name: string,
  options: FindOptions,
): AsyncGenerator<RemoteEntry> {
  const isWanted = nameMatcher(foldKey(name))
  if (isWanted === undefined) throw new SyncError('usage', 'PATTERN_INVALID', `This is no pattern for a name: ${name}`)
  for await (const entry of walk(context, path, options)) {
    if (isWithin(entry, options) && isWanted(foldKey(entry.name))) yield entry
  }
}

/** What is looked up besides the entry. */
export interface StatOptions extends Abortable {
  /** Also look for the file key of this account. Default false. */
  readonly fileKey?: boolean | undefined
}

/** An entry, and what is known of its file key. */
export interface RemoteDetails extends RemoteEntry {
  /** Version of the wrapped file key of an encrypted file, or `missing`: nobody has handed it out; only if it was asked for. */
  readonly fileKey?: WrappedFileKey['version'] | 'missing'
}

/**
 * One entry, with all that the server says of it.
 *
 * @throws {SyncError} `REMOTE_MISSING`; `TARGET_IS_ROOT` for `/`.
 */
export async function stat(context: ClientContext, path: string, options: StatOptions): Promise<RemoteDetails> {
  const { fileKey, signal } = options
  const { entry } = await requireEntry(context, path, signal)
  const node = await getNode(context.api, entry.id, signal)
  const details = { ...node, path: entry.path }
  if (fileKey !== true || node.type !== 'file' || node.isEncrypted !== true) return details
  const wrapped = await getFileKey(context.api, node.id, signal).catch((error) => {
    if (error instanceof SyncError && error.code === 'FILE_KEY_MISSING') return undefined
    throw error
  })
  return { ...details, fileKey: wrapped?.version ?? 'missing' }
}

/** How a folder is made. */
export interface MkdirOptions extends Abortable {
  /** Also make the folders above it, and take what is there. */
  readonly parents?: boolean | undefined
}

/**
 * Makes a folder.
 *
 * @throws {SyncError} `EXISTS`, and `REMOTE_MISSING` when the folder above is not there, both without `parents`.
 */
export async function mkdir({ api }: ClientContext, path: string, options: MkdirOptions): Promise<RemoteEntry> {
  const { parents, signal } = options
  const { container, missing } = await requireContainer(api, path, signal)
  if (missing.length === 0 && parents !== true) {
    throw new SyncError('conflict', 'EXISTS', `It exists already: ${path}`)
  }
  if (missing.length > 1 && parents !== true) {
    throw new SyncError('not_found', 'REMOTE_MISSING', `The folder above ${path} does not exist`, {
      hint: 'Use --parents to make it too.',
    })
  }
  let node = container
  for (const name of missing) node = await ensureFolder(api, node.id, escapeName(name), signal)
  const names = parseRemotePath(path)
  return { ...node, path: pathOf([...names.slice(0, -1), node.name]) }
}

/** What may be removed, and who is told. */
export interface RemoveOptions extends Abortable {
  /** Also folders, with all that is in them, which go to the recycle bin of their room. */
  readonly recursive?: boolean | undefined
  /** Also rooms, which are gone for good, with all versions. */
  readonly rooms?: boolean | undefined
  /** Told of each that was removed, by the path that was given. */
  readonly onRemoved?: ((path: string, entry: RemoteEntry) => void) | undefined
}

/**
 * Removes entries, one after the other, after all of them have been looked up. Files and folders go to the recycle bin of their
 * room, if that keeps anything.
 *
 * @returns what was removed.
 * @throws {SyncError} `REMOTE_MISSING`, `IS_CONTAINER` without `recursive`, `ROOM_DELETE` (class `safety`) without `rooms`:
 * nothing was removed then.
 */
export async function remove(
  context: ClientContext,
  paths: readonly string[],
  options: RemoveOptions,
): Promise<RemoteEntry[]> {
  const { recursive, rooms, onRemoved, signal } = options
  const entries: { path: string; entry: RemoteEntry }[] = []
  for (const path of paths) {
    const { entry } = await requireEntry(context, path, signal)
    if (entry.type !== 'file' && recursive !== true) {
      throw new SyncError('usage', 'IS_CONTAINER', `A ${entry.type} is deleted with --recursive only: ${path}`)
    }
    if (entry.type === 'room' && rooms !== true) {
      throw new SyncError('safety', 'ROOM_DELETE', `A room is gone for good when deleted, with all versions: ${path}`, {
        hint: 'Use --recursive --force if that is what you want.',
      })
    }
    entries.push({ path, entry })
  }
  for (const { path, entry } of entries) {
    await deleteNode(context.api, entry.id, signal)
    onRemoved?.(path, entry)
  }
  return entries.map(({ entry }) => entry)
}
