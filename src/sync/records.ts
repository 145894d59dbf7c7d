/**
 * What a synchronized place looked like when both sides were last known to be the same there. Everything that is decided
 * later compares with this.
 * @module
 */
import type { FileKey } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { sameTime } from './conflicts.ts'
import type { LocalEntry } from './tree.ts'

export interface SyncRecord {
  readonly kind: 'file' | 'directory'
  /** Local components, joined by `/`. */
  readonly path: string
  readonly local: LocalIdentity
  readonly remote: RemoteIdentity
  /** IV and tag of the content, base64: stands for exactly these bytes under exactly this key. Files in encrypted rooms. */
  readonly seal?: string
  /** Of that content, base64; known only if it was read here to be sent. */
  readonly sha256?: string
  /** Instead of that, where one can only write: see `contentMac`. Base64. */
  readonly mac?: string
  /** Of the local file when that content was read; kept by jobs that bring them back. */
  readonly attributes?: Attributes
}

/** What the server does not hold of a file. */
export interface Attributes {
  /** Permission bits, with setuid, setgid and the sticky bit. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Nanoseconds since the epoch, decimal. */
  readonly mtimeNs: string
}

/** Equal in all fields: not changed. Of a directory only `ino` counts. */
export interface LocalIdentity {
  readonly size: number
  readonly mtimeMs: number
  readonly ctimeMs: number
  readonly ino: number
}

/** Local identity that nothing has: what was read may not be what is there. */
export const UNSETTLED: LocalIdentity = Object.freeze({ size: -1, mtimeMs: 0, ctimeMs: 0, ino: 0 })

/** The same, of a file that never rested: its beginning was sent. */
export const GROWING: LocalIdentity = Object.freeze({ ...UNSETTLED, size: -2 })

/** Content never changes under one id: a new version is a new node. */
export interface RemoteIdentity {
  readonly id: number
  readonly size: number
  readonly modified: number
}

export const localIdentity = ({ size, mtimeMs, ctimeMs, ino }: LocalEntry): LocalIdentity => ({
  size,
  mtimeMs,
  ctimeMs,
  ino,
})

export const remoteIdentity = ({ id, size, timestampModification }: RemoteNode): RemoteIdentity => ({
  id,
  size: size ?? 0,
  modified: timestampModification ?? 0,
})

export function createRecord(
  local: LocalEntry,
  node: RemoteNode,
  seal?: string,
  sha256?: string,
  attributes?: Attributes,
): SyncRecord {
  return {
    kind: local.kind,
    path: local.path.join('/'),
    local: localIdentity(local),
    remote: remoteIdentity(node),
    ...(seal === undefined ? {} : { seal }),
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(attributes === undefined ? {} : { attributes }),
  }
}

/** IV and tag as records have them. */
export const sealOf = ({ iv, tag }: Pick<FileKey, 'iv' | 'tag'>): string => Buffer.concat([iv, tag]).toString('base64')

/** `touched`: size and time of the content are as they were, but something about the file is not. */
export type Change = 'same' | 'touched' | 'changed'

export function localChange({ kind, local }: SyncRecord, now: LocalEntry): Change {
  if (kind !== now.kind) return 'changed'
  if (kind === 'directory') return 'same'
  if (local.size !== now.size || local.mtimeMs !== now.mtimeMs) return 'changed'
  return local.ino === now.ino && local.ctimeMs === now.ctimeMs ? 'same' : 'touched'
}

export function remoteChange(
  { kind, remote }: SyncRecord,
  { kind: kindNow, node }: { readonly kind: SyncRecord['kind']; readonly node: RemoteNode },
): Change {
  if (kind !== kindNow || remote.id !== node.id) return 'changed'
  if (kind === 'directory') return 'same'
  const { size, modified } = remoteIdentity(node)
  return remote.size === size && remote.modified === modified ? 'same' : 'changed'
}

/** True when nothing speaks against equal content: sizes and times. */
export function looksEqual(local: LocalEntry, node: RemoteNode): boolean {
  const { size, timestampModification: modified } = node
  return local.size === size && modified !== undefined && sameTime(modified, local.mtimeMs)
}
