/** Remote rooms, folders and files by their paths: looking, making, moving, removing. Contents are in content.ts. @module */
import type { WrappedFileKey } from '../../crypto/index.ts'
import { getFileKey } from '../api/file-keys.ts'
import {
  copyNodes,
  createCensus,
  deleteNode,
  getNode,
  listChildren,
  moveNodes,
  searchBelow,
  treeCycle,
  updateFile,
  updateFolder,
} from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { escapeName, sameNameKey } from '../local/names.ts'
import { ensureFolder, parseRemotePath, requireContainer, requireRemote, resolveRemote } from '../sync/remote-path.ts'
import type { Abortable, ClientContext } from './context.ts'

/** A room, folder or file, and where it is. Times are milliseconds since the epoch, sizes bytes. */
export interface RemoteEntry extends RemoteNode {
  /** `/room/folder/name`, by the names on the server. */
  readonly path: string
}

const pathOf = (names: readonly string[]) => `/${names.join('/')}`

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

/** What is looked for besides the name. */
export interface FindOptions extends Abortable {
  /** Only of this type. */
  readonly type?: RemoteNode['type'] | undefined
}

/** A name with `*` for any letters, in any case. */
function pattern(text: string): (name: string) => boolean {
  const literal = sameNameKey(text).replace(/[.+?^${}()|[\]\\]/g, '\\$&')
  const expression = new RegExp(`^${literal.replace(/\*+/g, '.*')}$`, 'isu')
  return (name) => expression.test(sameNameKey(name))
}

/**
 * Entries below a room or folder with a name.
 *
 * @param name - `*` stands for any letters: `*.pdf`. Case does not count.
 * @throws {SyncError} as `list`.
 */
export async function* find(
  context: ClientContext,
  path: string,
  name: string,
  options: FindOptions,
): AsyncGenerator<RemoteEntry> {
  const isWanted = pattern(name)
  for await (const entry of walk(context, path, options)) {
    if ((options.type === undefined || entry.type === options.type) && isWanted(entry.name)) yield entry
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

/** How something is moved or copied. */
export interface MoveOptions extends Abortable {
  /** What to do where the name is taken by a file. Default `fail`. */
  readonly onConflict?: 'fail' | 'overwrite' | undefined
}

const roomStays = (path: string) => new SyncError('usage', 'IS_CONTAINER', `A room cannot be moved or copied: ${path}`)

/**
 * Where something goes: into a room or folder that is there, under its own name; else to that path.
 */
async function goal(context: ClientContext, from: RemoteEntry, target: string, signal?: AbortSignal) {
  const { found, missing } = await resolveRemote(context.api, target, signal)
  const last = found.at(-1)
  const names = parseRemotePath(target)
  if (missing.length === 0 && last !== undefined && last.type !== 'file') {
    return { parentId: last.id, name: from.name, path: pathOf([...names, from.name]) }
  }
  // A file of that name is there, or nothing is: the place above has to be.
  const parent = missing.length === 0 ? found.at(-2) : missing.length === 1 ? last : undefined
  if (parent === undefined || parent.type === 'file') {
    throw new SyncError('not_found', 'REMOTE_MISSING', `The folder above ${target} does not exist`, {
      hint: 'Make it first: sync mkdir --parents',
    })
  }
  const name = missing.length === 0 ? last!.name : escapeName(names.at(-1)!)
  return { parentId: parent.id, name, path: pathOf([...names.slice(0, -1), name]) }
}

async function transfer(
  context: ClientContext,
  send: typeof moveNodes,
  source: string,
  target: string,
  { onConflict = 'fail', signal }: MoveOptions,
): Promise<RemoteEntry> {
  const { entry } = await requireEntry(context, source, signal)
  if (entry.type === 'room') throw roomStays(source)
  const { parentId, name, path } = await goal(context, entry, target, signal)
  await send(context.api, parentId, [{ id: entry.id, name }], onConflict, signal)
  return stat(context, path, { signal })
}

/**
 * Moves a file or folder into a room or folder that is there, or to a new path; also renames it.
 *
 * @returns it, where it is now.
 * @throws {SyncError} `REMOTE_MISSING`, `EXISTS` when the name is taken, `INTO_ITSELF`, `IS_CONTAINER` for a room,
 * `ENCRYPTION_DIFFERS` between encrypted and plain places.
 */
export const move = (
  context: ClientContext,
  source: string,
  target: string,
  options: MoveOptions,
): Promise<RemoteEntry> => transfer(context, moveNodes, source, target, options)

/**
 * Copies a file or folder; see `move`. In another encrypted room its members get the keys of the copies with
 * `keys.distribute`.
 */
export const copy = (
  context: ClientContext,
  source: string,
  target: string,
  options: MoveOptions,
): Promise<RemoteEntry> => transfer(context, copyNodes, source, target, options)

/**
 * Gives a file or folder another name where it is.
 *
 * @param name - Without slashes; letters that the server cannot store are escaped.
 * @throws {SyncError} `EXISTS`, `REMOTE_MISSING`, `PATH_INVALID`, `IS_CONTAINER` for a room.
 */
export async function rename(
  context: ClientContext,
  path: string,
  name: string,
  { signal }: Abortable,
): Promise<RemoteEntry> {
  if (name === '' || name.includes('/')) throw new SyncError('usage', 'PATH_INVALID', 'A name has no slash in it')
  const { entry } = await requireEntry(context, path, signal)
  if (entry.type === 'room') throw roomStays(path)
  const update = entry.type === 'file' ? updateFile : updateFolder
  const node = await update(context.api, entry.id, { name: escapeName(name) }, signal)
  return { ...node, path: pathOf([...parseRemotePath(entry.path).slice(0, -1), node.name]) }
}
