/**
 * The remote tree out of the records, without a listing, as long as the server says that nothing has changed since one found
 * exactly what is recorded; else out of the records and a listing of what has changed. What cannot be told from records alone -
 * rooms below the root, names that are not stored as we would store them, whatever takes no part - is never remembered in this
 * way, and listed each time.
 * @module
 */
import type { Api } from '../api/api.ts'
import { getNode, listChildren, searchTree } from '../api/nodes.ts'
import { PAGE, type RemoteNode } from '../api/wire.ts'
import { toSyncError } from '../errors.ts'
import { escapeName, type Names, sameNameKey } from '../local/names.ts'
import { remoteIdentity, type SyncRecord } from './records.ts'
import { parentKey, type RemoteItem, type Scan } from './scan.ts'
import { type RemoteEntry, under, type WholeTree, within } from './tree.ts'

/** A listing of the remote root that found what is recorded, neither more nor less. */
export interface Listed {
  readonly rootId: number
  /** `branchVersion` of the root, before and after. */
  readonly version: number
  /** What we may do there: with other rights, other things can be seen. */
  readonly rights: string
  /** How names were read. */
  readonly names: Names
  /** The manifest of a push, which is no content. */
  readonly manifest?: RemoteNode | undefined
  /** Milliseconds since the epoch. */
  readonly at: number
}

/** Longer than this nothing is believed to be unchanged, whatever a server says. */
const LISTED_FOR_MS = 24 * 3_600_000

const rightsOf = ({ permissions }: RemoteNode): string =>
  Object.entries(permissions ?? {})
    .flatMap(([name, has]) => (has ? name : []))
    .join()

/** What is asked of a manifest before it is fetched. */
const manifestNode = ({ id, type, name, parentId, isEncrypted, size, timestampModification }: RemoteNode) =>
  ({ id, type, name, parentId, isEncrypted, size, timestampModification }) as RemoteNode

export const listedAs = (
  root: RemoteNode,
  version: number,
  at: number,
  names: Names = 'report',
  manifest?: RemoteNode,
): Listed => ({
  rootId: root.id,
  version,
  rights: rightsOf(root),
  names,
  ...(manifest === undefined ? {} : { manifest: manifestNode(manifest) }),
  at,
})

/** True when that listing can tell of this root, as it is now: at the same version, or by what has changed since. */
export const isListingOf = (listed: Listed, root: RemoteNode, now: number, names: Names = 'report'): boolean =>
  listed.rootId === root.id &&
  listed.rights === rightsOf(root) &&
  listed.names === names &&
  now >= listed.at &&
  now - listed.at < LISTED_FOR_MS

/** True when `recordedTree` would make what was listed out of these records. */
export function isAsRecorded(
  { items, failures, ignored }: Scan<RemoteItem>,
  records: ReadonlyMap<string, SyncRecord>,
  root: RemoteNode,
): boolean {
  if (failures.length > 0 || ignored > 0 || items.size !== records.size) return false
  for (const [key, item] of items) {
    const record = records.get(key)
    if (record === undefined || !isRecorded(item, record, root)) return false
  }
  return true
}

function isRecorded({ kind, path, node }: RemoteItem, record: SyncRecord, root: RemoteNode): boolean {
  const { id, size, modified } = remoteIdentity(node)
  if (kind !== record.kind || id !== record.remote.id || node.type === 'room') return false
  if ((node.isEncrypted === true) !== (root.isEncrypted === true) || path.join('/') !== record.path) return false
  try {
    if (escapeName(path.at(-1)!) !== node.name) return false
  } catch {
    return false
  }
  if (kind === 'directory') return true
  const isWhole = node.size !== undefined && node.timestampModification !== undefined
  return isWhole && size === record.remote.size && modified === record.remote.modified
}

/**
 * What `arrangeRemote` makes of `recordedTree` when everything takes part: items that say nothing before they are asked, since
 * nobody asks about most of them.
 */
export function recordedItems(
  records: ReadonlyMap<string, SyncRecord>,
  root: RemoteNode,
  roomId: number,
): Map<string, RemoteItem> {
  const items = new Map<string, RemoteItem>()
  const nodeOf = (record: SyncRecord): RemoteNode => {
    const above = parentKey(sameNameKey(record.path))
    const parentId = above === '' ? root.id : records.get(above)!.remote.id
    return recordedNode(record, parentId, root.isEncrypted === true)
  }
  for (const [key, record] of records) items.set(key, new RecordedItem(record, roomId, nodeOf))
  return items
}

/** Tells the guard of places of the folders that will not be listed. */
export function tellPlaces(api: Api, records: ReadonlyMap<string, SyncRecord>, root: RemoteNode): void {
  for (const [key, record] of records) {
    if (record.kind !== 'directory') continue
    const above = parentKey(key)
    const parentId = above === '' ? root.id : records.get(above)?.remote.id
    if (parentId !== undefined) api.places?.saw(recordedNode(record, parentId, false), parentId)
  }
}

class RecordedItem implements RemoteItem {
  constructor(
    readonly record: SyncRecord,
    readonly roomId: number,
    private readonly nodeOf: (record: SyncRecord) => RemoteNode,
  ) {}
  get kind() {
    return this.record.kind
  }
  get path() {
    return this.record.path.split('/')
  }
  get node() {
    return this.nodeOf(this.record)
  }
}

function recordedNode({ kind, path, remote }: SyncRecord, parentId: number, isEncrypted: boolean): RemoteNode {
  const { id, size, modified: timestampModification } = remote
  const name = escapeName(path.slice(path.lastIndexOf('/') + 1))
  if (kind === 'directory') return { id, type: 'folder', name, parentId, isEncrypted }
  return { id, type: 'file', name, parentId, isEncrypted, size, timestampModification }
}

/** What the records say is below the root; parents before children. */
export function* recordedTree(
  records: ReadonlyMap<string, SyncRecord>,
  root: RemoteNode,
  roomId: number,
): Generator<RemoteEntry> {
  const folders = new Map<string, RemoteEntry>([['', { node: root, path: [], roomId }]])
  const place = (key: string, record: SyncRecord): RemoteEntry => {
    const parent = folders.get(parentKey(key))!
    const node = recordedNode(record, parent.node.id, root.isEncrypted === true)
    return { node, path: under(parent.path, node.name), roomId }
  }
  // In order of their keys, a directory comes before those in it.
  const directories = [...records].filter(([, { kind }]) => kind === 'directory').sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [key, record] of directories) {
    const folder = place(key, record)
    folders.set(key, folder)
    yield folder
  }
  for (const [key, record] of records) if (record.kind === 'file') yield place(key, record)
}

/** Of the tree that may have changed, and of its folders that may be listed one by one; more is sooner listed whole. */
const CHANGED_AT_MOST = 0.25
const FOLDERS_AT_MOST = 100

/**
 * The tree as it is now, from the records and what has changed since the listing. The number of entries that each changed
 * folder says it has shows whether something is gone from it; then it is listed.
 *
 * @param root - As it is now, with its `branchVersion`.
 * @returns `undefined` when the tree has to be listed whole: too much has changed, it is changing, or the server does not tell.
 */
export async function readChangedTree(
  api: Api,
  root: RemoteNode,
  roomId: number,
  records: ReadonlyMap<string, SyncRecord>,
  { version: since, manifest }: Listed,
  signal?: AbortSignal,
): Promise<Required<WholeTree> | undefined> {
  const version = root.branchVersion
  if (version === undefined) return undefined
  const changed = new Map<number, RemoteNode>()
  try {
    const atMost = PAGE + CHANGED_AT_MOST * records.size
    for await (const node of searchTree(api, root.id, signal, { since, atMost })) {
      if (node.type === 'room' || node.parentId === undefined) return undefined
      changed.set(node.id, node)
    }
    const children = childrenOf(records, root, changed, manifest)
    if (children === undefined || !(await complete(api, root, children, changed, signal))) return undefined
    const entries = arrange(root, roomId, children)
    const isStill = entries !== undefined && (await getNode(api, root.id, signal)).branchVersion === version
    return isStill ? { entries, version } : undefined
  } catch (error) {
    const { code, status } = toSyncError(error)
    // It was changed meanwhile, or the server does not know the filter.
    if (code === 'LIST_CHANGED' || code === 'LIST_TOO_LONG' || status === 400) return undefined
    throw error
  }
}

/** By id of the parent. */
type Children = Map<number, RemoteNode[]>

/** What is recorded, and in its place what has changed; `undefined` when records are missing. */
function childrenOf(
  records: ReadonlyMap<string, SyncRecord>,
  root: RemoteNode,
  changed: ReadonlyMap<number, RemoteNode>,
  manifest: RemoteNode | undefined,
): Children | undefined {
  const children: Children = new Map()
  const add = (parentId: number, node: RemoteNode) => {
    const siblings = children.get(parentId)
    if (siblings === undefined) children.set(parentId, [node])
    else siblings.push(node)
  }
  const names = new Set<string>()
  for (const node of changed.values()) {
    names.add(`${node.parentId}/${node.name}`)
    add(node.parentId!, node)
  }
  if (manifest !== undefined && !changed.has(manifest.id) && !names.has(`${root.id}/${manifest.name}`)) {
    add(root.id, manifest)
  }
  for (const [key, record] of records) {
    if (changed.has(record.remote.id)) continue
    const above = parentKey(key)
    const parentId = above === '' ? root.id : records.get(above)?.remote.id
    if (parentId === undefined) return undefined
    const node = recordedNode(record, parentId, root.isEncrypted === true)
    // A name is there once: this is an older version.
    if (!names.has(`${parentId}/${node.name}`)) add(parentId, node)
  }
  return children
}

/** Lists each folder that has changed and has not as many entries as it says; false when those are too many. */
async function complete(
  api: Api,
  root: RemoteNode,
  children: Children,
  changed: ReadonlyMap<number, RemoteNode>,
  signal?: AbortSignal,
): Promise<boolean> {
  const pending = [root, ...[...changed.values()].filter(({ type }) => type === 'folder')]
  let listed = 0
  for (const folder of pending) {
    const before = children.get(folder.id) ?? []
    if (hasAll(folder, before)) continue
    if (++listed > FOLDERS_AT_MOST) return false
    const now: RemoteNode[] = []
    for await (const node of listChildren(api, folder.id, signal)) {
      if (node.type === 'room') return false
      now.push(node)
      // What came here from somewhere else may bring along what has not changed.
      if (node.type === 'folder' && !before.some(({ id }) => id === node.id)) pending.push(node)
    }
    children.set(folder.id, now)
  }
  return true
}

function hasAll({ cntFiles, cntFolders, cntRooms = 0 }: RemoteNode, children: readonly RemoteNode[]): boolean {
  const files = children.filter(({ type }) => type === 'file').length
  return cntFiles === files && cntFolders === children.length - files && cntRooms === 0
}

/** Parents before children; `undefined` when something is in two places. */
function arrange(root: RemoteNode, roomId: number, children: Children): RemoteEntry[] | undefined {
  const entries: RemoteEntry[] = []
  const seen = new Set<number>()
  const pending: RemoteEntry[] = [{ node: root, path: [], roomId }]
  for (const parent of pending) {
    for (const child of children.get(parent.node.id) ?? []) {
      if (seen.has(child.id)) return undefined
      seen.add(child.id)
      const entry = { node: within(root, child), path: under(parent.path, child.name), roomId }
      entries.push(entry)
      if (child.type !== 'file') pending.push(entry)
    }
  }
  return entries
}
