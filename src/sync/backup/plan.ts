/** What a run has to do, from what is there, what is at the server and what is known. Pure. @module */
import { SyncError, type SyncErrorCode } from '../../errors.ts'
import { defaultMaxDelete, type Limit } from '../guards.ts'
import { type LocalIdentity, localIdentity } from '../records.ts'
import { parentKey, type RemoteItem } from '../scan.ts'
import type { LocalEntry } from '../tree.ts'
import { componentsOf, isWithin } from './set.ts'
import type { SourceScan } from './source.ts'
import type { Known, SetMemory } from './state.ts'

export interface StoreStep {
  readonly key: string
  readonly local: LocalEntry
  readonly shown: string
  /** What was stored of this file last. */
  readonly known?: Known | undefined
  /** The content that is known is where it should be. */
  readonly isThere: boolean
  /** What stands in the place of the new content. */
  readonly standing?: RemoteItem | undefined
}

export interface BackupPlan {
  readonly store: readonly StoreStep[]
  /** Not changed. */
  readonly unchanged: readonly { readonly known: Known; readonly local: LocalEntry }[]
  /** Stands in the way of another kind of thing; goes to the history first. */
  readonly inTheWay: readonly RemoteItem[]
  /** Known files that are not there any more, by key. */
  readonly removed: ReadonlyMap<string, Known>
  /** At the server without a counterpart; goes to the history last. Of a folder that goes nothing below is listed. */
  readonly leftovers: readonly RemoteItem[]
  /** Folders that stay. */
  readonly folders: readonly RemoteItem[]
}

const isSame = (a: LocalIdentity, b: LocalIdentity) =>
  a.size === b.size && a.mtimeMs === b.mtimeMs && a.ctimeMs === b.ctimeMs && a.ino === b.ino

/** To the microsecond: that is what a restored file has of its time. */
const isSameMicrosecond = (mtimeNs: string, mtimeMs: number) =>
  Math.abs(Number(BigInt(mtimeNs) / 1000n) - mtimeMs * 1000) <= 1

/** True when nothing speaks against a file being what was stored; without having read it. */
function isUnchanged({ entry, local }: Known, now: LocalEntry): boolean {
  if (local !== undefined) return isSame(local, localIdentity(now))
  return entry.size === now.size && isSameMicrosecond(entry.mtimeNs, now.mtimeMs)
}

export function planBackup(
  scan: SourceScan,
  known: ReadonlyMap<string, Known>,
  remote: ReadonlyMap<string, RemoteItem>,
): BackupPlan {
  const { files, directories } = scan
  const store: StoreStep[] = []
  const unchanged: { known: Known; local: LocalEntry }[] = []
  const inTheWay: RemoteItem[] = []
  for (const [key, local] of files) {
    const last = known.get(key)
    const standing = remote.get(key)
    if (standing?.kind === 'directory') inTheWay.push(standing)
    const there = standing?.kind === 'file' ? standing : undefined
    const isThere = last !== undefined && there?.node.id === last.entry.node && there.node.size === last.entry.size
    const isWhole = last?.entry.isOlder === undefined && last?.entry.isInconsistent === undefined
    if (isThere && isWhole && isUnchanged(last, local)) unchanged.push({ known: last, local })
    else store.push({ key, local, shown: `/${local.path.join('/')}`, known: last, isThere, standing: there })
  }
  const removed = new Map([...known].filter(([key]) => !files.has(key)))
  const leftovers: RemoteItem[] = []
  const folders: RemoteItem[] = []
  const gone = new Set<string>()
  // Folders that lead to a source stay; the keys of files show which ones these are, too.
  const needed = new Set<string>()
  for (const keys of [directories.keys(), files.keys()]) {
    for (const key of keys)
      for (let up = parentKey(key); up !== '' && !needed.has(up); up = parentKey(up)) needed.add(up)
  }
  for (const [key, item] of remote) {
    if (gone.has(parentKey(key))) {
      if (item.kind === 'directory') gone.add(key)
      continue
    }
    if (item.kind === 'directory') {
      if (directories.has(key) || needed.has(key)) {
        folders.push(item)
        continue
      }
      gone.add(key)
      if (!files.has(key)) leftovers.push(item)
    } else if (directories.has(key)) {
      inTheWay.push(item)
    } else if (!files.has(key)) {
      leftovers.push(item)
    }
  }
  return { store, unchanged, inTheWay, removed, leftovers, folders }
}

const stop = (code: SyncErrorCode, message: string, hint: string) => new SyncError('safety', code, message, { hint })

export interface BackupGuards {
  /** Default: the smaller of 50 files and 20 %, at least 10. */
  readonly maxDelete?: Limit | undefined
  /** Somebody has looked: sources are meant to be other ones, or empty. */
  readonly acceptSources?: boolean | undefined
}

/** What makes a source look like one that is not mounted. `SOURCE_MISSING`, `SOURCE_CHANGED`, `SOURCE_EMPTY`. */
export function guardSources(
  scan: Pick<SourceScan, 'roots' | 'files'>,
  known: ReadonlyMap<string, Known>,
  memory: SetMemory | undefined,
  { acceptSources }: BackupGuards,
): void {
  if (acceptSources) return
  const hint = 'Is its disk mounted? If it is meant: --accept-sources'
  const count = (paths: Iterable<readonly string[]>, source: string) => {
    const top = componentsOf(source)
    let files = 0
    for (const path of paths) if (isWithin(path, top)) files++
    return files
  }
  for (const [source, now] of Object.entries(scan.roots)) {
    const then = memory?.sources[source]
    const isOther = then !== undefined && then.dev !== now.dev && (then.ino !== now.ino || then.bornMs !== now.bornMs)
    if (isOther) throw stop('SOURCE_CHANGED', `${source} is on another device than at the last run`, hint)
    const paths = function* () {
      for (const { entry } of known.values()) yield componentsOf(entry.path)
    }
    const before = count(paths(), source)
    const isEmpty =
      before > 0 &&
      count(
        [...scan.files.values()].map(({ path }) => path),
        source,
      ) === 0
    if (isEmpty) throw stop('SOURCE_EMPTY', `${source} has no files; it had ${before} at the last run`, hint)
  }
}

/** @throws {SyncError} `TOO_MANY_DELETIONS` (class `safety`). */
export function guardRemoved(what: string, count: number, all: number, { maxDelete }: BackupGuards): void {
  const allowed =
    maxDelete === undefined
      ? defaultMaxDelete(all)
      : 'files' in maxDelete
        ? maxDelete.files
        : Math.floor(maxDelete.share * all)
  if (count <= allowed) return
  throw stop(
    'TOO_MANY_DELETIONS',
    `${count} of ${all} ${what}, and ${allowed} may be`,
    'Nothing was done. If it is meant: --max-delete',
  )
}
