/** What a plan is made from, and the steps it is made of: the only kind there is, for all runs. @module */
import type { RemoteNode } from '../../api/wire.ts'
import type { SyncError } from '../../errors.ts'
import type { ConflictAction } from '../conflicts.ts'
import type { SyncRecord } from '../records.ts'
import type { Blocked, RemoteItem } from '../scan.ts'
import type { LocalEntry } from '../tree.ts'

/** What is made like what: the remote side like the local one, the other way round, or each by what is new on the other. */
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
  /** What may have been touched only is compared, however small. Default: what is small is sooner sent. */
  readonly comparesAll?: boolean
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

/** What all steps have. */
export interface Common {
  /** Of the place; equal for both sides. */
  readonly key: string
  /** Components; joined for people by `showPath`. */
  readonly path: readonly string[]
  readonly reason: string
  /** Its place is free only when deletions are done. */
  readonly isLate?: true
}

export interface Move {
  readonly kind: 'file' | 'directory'
  readonly from: readonly string[]
  /** Its node; content and id stay the same. */
  readonly remote: RemoteItem
  /** What is moved, or was moved, on this disk. */
  readonly local: LocalEntry
  /** Nothing but the case of its name is known to be the same on both sides. */
  readonly isCaseOnly?: true
}

/** One thing to be done at one place. */
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

/** By name, the same on every machine; what is above comes before what is below. */
export const byPath = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

// What is deepest goes first.
export const deepestFirst = (a: SyncStep, b: SyncStep): number => b.path.length - a.path.length || byPath(a.key, b.key)
