/**
 * The remote tree out of the records, without a listing: as long as the server says that nothing has changed since one found
 * exactly what is recorded. What cannot be told from records alone - rooms below the root, names that are not stored as we
 * would store them, whatever takes no part - is never remembered in this way, and listed each time.
 * @module
 */
import type { RemoteNode } from '../api/wire.ts'
import { escapeName, sameNameKey } from '../local/names.ts'
import { remoteIdentity, type SyncRecord } from './records.ts'
import { parentKey, type RemoteItem, type Scan } from './scan.ts'
import type { RemoteEntry } from './tree.ts'

/** A listing of the remote root that found what is recorded, neither more nor less. */
export interface Listed {
  readonly rootId: number
  /** `branchVersion` of the root, before and after. */
  readonly version: number
  /** What we may do there: with other rights, other things can be seen. */
  readonly rights: string
  /** Milliseconds since the epoch. */
  readonly at: number
}

/** Longer than this nothing is believed to be unchanged, whatever a server says. */
const LISTED_FOR_MS = 24 * 3_600_000

const rightsOf = ({ permissions }: RemoteNode): string =>
  Object.entries(permissions ?? {})
    .flatMap(([name, has]) => (has ? name : []))
    .join()

export const listedAs = (root: RemoteNode, version: number, now: number): Listed => ({
  rootId: root.id,
  version,
  rights: rightsOf(root),
  at: now,
})

/** True when the root is as it was at that listing. */
export const isAsListed = (listed: Listed, root: RemoteNode, now: number): boolean =>
  listed.rootId === root.id &&
  listed.version === root.branchVersion &&
  listed.rights === rightsOf(root) &&
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
    return { node, path: [...parent.path, node.name], roomId }
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
