/** What stops a run or a prune of a set before it changes anything. */
import { SyncError, type SyncErrorCode } from '../../errors.ts'
import { defaultMaxDelete, type Limit } from '../guards.ts'
import type { SyncRecord } from '../records.ts'
import type { SetMemory } from './memory.ts'
import { componentsOf, isWithin } from './set.ts'
import type { SourceScan } from './source.ts'

const stop = (code: SyncErrorCode, message: string, hint: string) => new SyncError('safety', code, message, { hint })

/** What may be though it looks wrong. */
export interface BackupGuards {
  /** Default: the smaller of 50 files and 20 %, at least 10. */
  readonly maxDelete?: Limit | undefined
  /** Somebody has looked: sources are meant to be other ones, or empty. */
  readonly acceptSources?: boolean | undefined
}

/** What makes a source look like one that is not mounted. `SOURCE_CHANGED`, `SOURCE_EMPTY`. */
export function guardSources(
  { roots, items }: Pick<SourceScan, 'roots' | 'items'>,
  records: ReadonlyMap<string, SyncRecord>,
  memory: SetMemory | undefined,
  { acceptSources }: BackupGuards,
): void {
  if (acceptSources) return
  const hint = 'Is its disk mounted? If it is meant: --accept-sources'
  for (const [source, now] of Object.entries(roots)) {
    const then = memory?.sources[source]
    const isOther = then !== undefined && then.dev !== now.dev && (then.ino !== now.ino || then.bornMs !== now.bornMs)
    if (isOther) throw stop('SOURCE_CHANGED', `${source} is on another device than at the last run`, hint)
    const top = componentsOf(source)
    let before = 0
    for (const { kind, path } of records.values()) if (kind === 'file' && isWithin(path.split('/'), top)) before++
    if (before === 0) continue
    let isEmpty = true
    for (const { kind, path } of items.values()) {
      if (kind === 'file' && isWithin(path, top)) isEmpty = false
      if (!isEmpty) break
    }
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
