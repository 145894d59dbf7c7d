/** The two sides on which something may have been moved, for those who look for it in the same way on both. @module */
import { foldKey } from '../../local/names.ts'
import { localChange, remoteChange, remoteIdentity, type SyncRecord } from '../records.ts'
import type { Blocked, RemoteItem } from '../scan.ts'
import { entryUnder, type LocalEntry } from '../tree.ts'
import { rekey } from './places.ts'
import type { SyncStep } from './steps.ts'

/** Both sides as they will be when the steps up to now are done. */
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

/** Where something was moved: on which side to look for it, and what follows on the other. */
export interface MoveSide {
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

export function localSide({ local, remote, foldsCase }: View): MoveSide {
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

export function remoteSide({ local, remote, foldsCase }: View): MoveSide {
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
      rekey(local, from, to, entryUnder)
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
