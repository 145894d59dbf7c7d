/**
 * Local and remote trees in one shape: entries with a path of components. Listing only; what follows from it is plan.ts.
 * @module
 */
import { type Dirent, lstatSync, readdirSync, realpathSync, type Stats, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import type { Api } from '../api/api.ts'
import { createCensus, getNode, listChildren, searchTree } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { cancelled, localError, SyncError, toSyncError } from '../errors.ts'
import { isTemporaryName } from '../local/atomic-file.ts'
import { sameNameKey } from '../local/names.ts'

/** A local file or directory. Times are milliseconds with a fraction: what a double holds of them is finer than 1 µs. */
export interface LocalEntry {
  readonly kind: 'file' | 'directory'
  /** Components below the target. */
  readonly path: readonly string[]
  /** Where it is on this machine. */
  readonly source: string
  readonly size: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  readonly ino: number
  readonly dev: number
}

/** The same thing under another path. Only this copies an entry: what a walk has found does not have its place as fields of its own. */
export function entryUnder(entry: LocalEntry, path: readonly string[]): LocalEntry {
  const { kind, source, size, mtimeMs, ctimeMs, ino, dev } = entry
  return { kind, path, source, size, mtimeMs, ctimeMs, ino, dev }
}

/** A directory that is walked: what is in it shares its place. */
interface Directory {
  readonly path: readonly string[]
  readonly source: string
}

/** What a walk has found. Of a million of them only the name is kept, because path and source are in the directory already. */
class FoundEntry implements LocalEntry {
  readonly kind: 'file' | 'directory'
  readonly #directory: Directory
  readonly #name: string
  readonly size: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  readonly ino: number
  readonly dev: number

  constructor(directory: Directory, name: string, kind: 'file' | 'directory', info: Stats) {
    this.#directory = directory
    this.#name = name
    this.kind = kind
    this.size = kind === 'file' ? info.size : 0
    this.mtimeMs = info.mtimeMs
    this.ctimeMs = info.ctimeMs
    this.ino = info.ino
    this.dev = info.dev
  }

  get path(): readonly string[] {
    return under(this.#directory.path, this.#name)
  }

  get source(): string {
    return sourceIn(this.#directory.source, this.#name)
  }
}

const sourceIn = (directory: string, name: string): string =>
  directory.endsWith('/') ? directory + name : `${directory}/${name}`

/** What went wrong at one place, while others went on. */
export interface EntryFailure {
  readonly path: string
  readonly error: SyncError
}

export interface LocalTree {
  readonly entries: readonly LocalEntry[]
  /** Links, sockets, devices and our own temporary files: not content. */
  readonly ignored: number
  readonly failures: readonly EntryFailure[]
}

/** The path of something in a directory. Not by a spread, which keeps room for a dozen more in each of a million. */
export const under = (path: readonly string[], name: string): readonly string[] => path.concat(name)

export const showPath = (path: readonly string[]): string => path.join('/')

/**
 * Walks local sources. A directory contributes itself and everything below (`contents`: only what is below); a file itself.
 * A source may be a link, since somebody named it; links below are not followed.
 *
 * @throws {SyncError} of class `usage` when a source does not exist.
 */
export async function readLocalTree(
  sources: readonly string[],
  options: { contents?: boolean; signal?: AbortSignal } = {},
): Promise<LocalTree> {
  const entries: LocalEntry[] = []
  const failures: EntryFailure[] = []
  let ignored = 0
  for (const source of sources) {
    const top = openSource(source)
    if (top.kind === 'file') {
      entries.push(top)
      continue
    }
    const prefix = options.contents ? [] : top.path
    if (!options.contents) entries.push(top)
    ignored += await walk(top.source, prefix, {
      onEntry: (entry) => entries.push(entry),
      onFailure: (failure) => failures.push(failure),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    })
  }
  return { entries, ignored, failures }
}

export interface Walk {
  /** Called before anything in a directory is looked at. */
  readonly onDirectory?: (source: string, path: readonly string[]) => void
  /** False: as if there were nothing of this path; it is not looked at. */
  readonly wants?: (path: readonly string[]) => boolean
  /** False passes an entry, and what is below it, over. */
  readonly accept?: (entry: LocalEntry) => boolean
  readonly onEntry: (entry: LocalEntry) => void
  /** Everything after this is incomplete. */
  readonly onFailure: (failure: EntryFailure) => void
  /** A directory in which a process of ours has left something. */
  readonly onLeftover?: (source: string, path: readonly string[]) => void
  /** Something that is no content was passed over; our own temporary files are not told. */
  readonly onOther?: (path: readonly string[]) => void
  /** A symbolic link that was passed over. */
  readonly onLink?: (source: string, path: readonly string[]) => void
  readonly signal?: AbortSignal
}

/**
 * Walks what is below a directory, parents before children; never through links.
 *
 * @returns how many entries were no content: links, sockets, devices, our own temporary files.
 */
export async function walk(top: string, prefix: readonly string[], how: Walk): Promise<number> {
  let ignored = 0
  // A list of directories instead of recursion: depth is not limited by the stack.
  const pending: Directory[] = [{ source: top, path: prefix }]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (how.signal?.aborted) throw cancelled(how.signal)
    let children: Child[]
    try {
      how.onDirectory?.(next.source, next.path)
      children = list(next.source)
    } catch (error) {
      how.onFailure({ path: showPath(next.path), error: toSyncError(localError(error, 'list the directory')) })
      continue
    }
    for (const child of children) {
      const name = child.name.toString()
      const path = under(next.path, name)
      if (how.wants?.(path) === false) continue
      const source = sourceIn(next.source, name)
      if (typeof child.name !== 'string' && !Buffer.from(name).equals(child.name)) {
        how.onFailure({ path: showPath(path), error: notUtf8() })
        continue
      }
      if (isTemporaryName(name) || !(child.isFile() || child.isDirectory())) {
        if (child.isSymbolicLink()) how.onLink?.(source, path)
        else if (isTemporaryName(name)) how.onLeftover?.(next.source, next.path)
        if (!isTemporaryName(name)) how.onOther?.(path)
        ignored++
        continue
      }
      try {
        const entry = lookAt(next, name, source)
        if (entry === undefined) {
          ignored++
        } else if (how.accept?.(entry) ?? true) {
          how.onEntry(entry)
          if (entry.kind === 'directory') pending.push({ source, path })
        }
      } catch (error) {
        how.onFailure({ path: showPath(path), error: toSyncError(localError(error, 'look at it')) })
      }
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  return ignored
}

/** With its name in bytes where it may be no UTF-8. */
type Child = Dirent | Dirent<Buffer>

/** Read in the place of bytes that are not UTF-8; a name can also have it by itself. */
const UNREADABLE = '\ufffd'

/** What is in a directory, by name. */
function list(directory: string): Child[] {
  const children = readdirSync(directory, { withFileTypes: true })
  if (!children.some(({ name }) => name.includes(UNREADABLE))) {
    return children.sort((a, b) => (a.name < b.name ? -1 : 1))
  }
  const inBytes = readdirSync(directory, { withFileTypes: true, encoding: 'buffer' }) as unknown as Dirent<Buffer>[]
  return inBytes.sort((a, b) => Buffer.compare(a.name, b.name))
}

/** A file or directory as it is now; `undefined` for everything else. */
function lookAt(directory: Directory, name: string, source: string): LocalEntry | undefined {
  const info = lstatSync(source)
  const kind = kindOf(info)
  return kind === undefined ? undefined : new FoundEntry(directory, name, kind, info)
}

const kindOf = (info: Stats) => (info.isDirectory() ? 'directory' : info.isFile() ? 'file' : undefined)

function entryOf(info: Stats, source: string, path: readonly string[]): LocalEntry | undefined {
  const kind = kindOf(info)
  if (kind === undefined) return undefined
  const { mtimeMs, ctimeMs, ino, dev } = info
  return { kind, path, source, size: kind === 'file' ? info.size : 0, mtimeMs, ctimeMs, ino, dev }
}

const notUtf8 = () =>
  new SyncError('usage', 'NAME_NOT_UTF8', 'The name is not UTF-8 and cannot be stored', {
    hint: 'Rename it, for instance with convmv.',
  })

export function openSource(source: string): LocalEntry {
  let real: string
  try {
    real = realpathSync(source)
    // The name is the one that was typed, also for a link and for `.` and `..`.
    const name = basename(resolve(source)) || basename(real)
    const entry = entryOf(statSync(real), real, [name || 'root'])
    if (entry === undefined) throw new SyncError('usage', 'NOT_A_FILE', `Neither a file nor a directory: ${source}`)
    return entry
  } catch (error) {
    if (error instanceof SyncError) throw error
    const cause = toSyncError(localError(error, `read ${source}`))
    if (cause.code !== 'LOCAL_ENOENT') throw cause
    throw new SyncError('usage', 'SOURCE_MISSING', `No such file or directory: ${source}`, { cause })
  }
}

/** A node with its place below the listed root. */
export interface RemoteEntry {
  readonly node: RemoteNode
  readonly path: readonly string[]
  /** The room that decides about members and keys. */
  readonly roomId: number
}

const LISTINGS_AT_ONCE = 8
/** Deepest level of folders, in both directions. */
export const MAX_DEPTH = 256

/**
 * Lists everything below a room or folder. Any failure fails the whole listing: a partial one would look like deletions.
 *
 * @param enter - Whether to look into a container; default: all.
 */
export async function readRemoteTree(
  api: Api,
  root: RemoteNode,
  roomId: number,
  options: { enter?: (entry: RemoteEntry) => boolean; signal?: AbortSignal } = {},
): Promise<RemoteEntry[]> {
  const entries: RemoteEntry[] = []
  const count = createCensus(api)
  count(root.id)
  let level: RemoteEntry[] = [{ node: root, path: [], roomId }]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) throw tooDeep()
    const next: RemoteEntry[] = []
    for (let at = 0; at < level.length; at += LISTINGS_AT_ONCE) {
      const lists = await Promise.all(
        level.slice(at, at + LISTINGS_AT_ONCE).map(async (parent) => {
          const found: RemoteEntry[] = []
          for await (const node of listChildren(api, parent.node.id, options.signal)) {
            count(node.id)
            found.push({
              node: within(parent.node, node),
              path: under(parent.path, node.name),
              roomId: node.type === 'room' ? node.id : parent.roomId,
            })
          }
          return found
        }),
      )
      for (const entry of lists.flat()) {
        entries.push(entry)
        if (entry.node.type !== 'file' && (options.enter?.(entry) ?? true)) next.push(entry)
      }
    }
    level = next
  }
  return entries
}

/** Times that a listing in one piece is tried while others change the tree. */
const WHOLE_TRIES = 3

/** A tree that was listed whole. */
export interface WholeTree {
  readonly entries: RemoteEntry[]
  /** The root's `branchVersion` before and after, where nothing changed meanwhile and the server tells. */
  readonly version?: number
}

/**
 * As `readRemoteTree`, with as few requests as there are pages: for large trees. Falls back to a listing of each folder when the
 * tree keeps changing, or the server does not say where things belong.
 */
export async function readWholeTree(
  api: Api,
  root: RemoteNode,
  roomId: number,
  options: { signal?: AbortSignal } = {},
): Promise<WholeTree> {
  let version = (await getNode(api, root.id, options.signal)).branchVersion
  for (let tries = 0; tries < WHOLE_TRIES && version !== undefined; tries++) {
    try {
      const entries = arrange(await collect(searchTree(api, root.id, options.signal)), root, roomId)
      const now = (await getNode(api, root.id, options.signal)).branchVersion
      if (entries === undefined) break
      // What came or went meanwhile may have pushed something over the edge of a page.
      if (now === version) return { entries, version }
      version = now
    } catch (error) {
      if (!(error instanceof SyncError) || error.code !== 'LIST_CHANGED') throw error
    }
  }
  return { entries: await readRemoteTree(api, root, roomId, options) }
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const one of source) all.push(one)
  return all
}

/** A flat list as a tree, parents first; `undefined` when something belongs nowhere. */
function arrange(nodes: readonly RemoteNode[], root: RemoteNode, roomId: number): RemoteEntry[] | undefined {
  const children = new Map<number, RemoteNode[]>()
  for (const node of nodes) {
    if (node.parentId === undefined) return undefined
    const siblings = children.get(node.parentId)
    if (siblings === undefined) children.set(node.parentId, [node])
    else siblings.push(node)
  }
  const entries: RemoteEntry[] = []
  let level: RemoteEntry[] = [{ node: root, path: [], roomId }]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) throw tooDeep()
    const next: RemoteEntry[] = []
    for (const parent of level) {
      for (const node of children.get(parent.node.id) ?? []) {
        const entry = {
          node: within(parent.node, node),
          path: under(parent.path, node.name),
          roomId: node.type === 'room' ? node.id : parent.roomId,
        }
        entries.push(entry)
        if (node.type !== 'file') next.push(entry)
      }
      children.delete(parent.node.id)
    }
    level = next
  }
  return children.size === 0 ? entries : undefined
}

const tooDeep = () => new SyncError('limit', 'TREE_TOO_DEEP', 'The remote tree is deeper than 256 levels')

/** What is in an encrypted room or folder is encrypted, whatever is said of it. */
export const within = (parent: RemoteNode | undefined, node: RemoteNode): RemoteNode =>
  parent?.isEncrypted === true && node.isEncrypted !== true ? { ...node, isEncrypted: true } : node

/** Key of a remote path: names are compared in NFC. */
export const remoteKey = (path: readonly string[]): string => exactKey(path.map(sameNameKey))

/** Key of a remote path letter by letter: a server may say that a name has a slash in it. */
export const exactKey = (path: readonly string[]): string =>
  path.some((name) => name.includes('%') || name.includes('/'))
    ? path.map((name) => name.replaceAll('%', '%25').replaceAll('/', '%2F')).join('/')
    : path.join('/')
