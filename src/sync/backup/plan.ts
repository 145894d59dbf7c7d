/** What a run of a set has to do, from what is in its sources, at the server and in its records. Pure. @module */
import { reconcile, type SyncStep } from '../reconcile.ts'
import { GROWING, type LocalIdentity, localIdentity, type SyncRecord, UNSETTLED } from '../records.ts'
import { createBlocked, keyOf, parentKey, type RemoteItem } from '../scan.ts'
import type { LocalEntry } from '../tree.ts'
import type { Manifest } from './manifest.ts'
import type { SourceScan } from './source.ts'
import { foldersFor } from './write-only.ts'

/** To the microsecond: that is what a restored file has of its time. */
const isSameMicrosecond = (mtimeNs: string, mtimeMs: number) =>
  Math.abs(Number(BigInt(mtimeNs) / 1000n) - mtimeMs * 1000) <= 1

/** The records by a manifest that was not made here, or whose end this machine did not live to see. */
export function rebuild(
  { entries }: Manifest,
  { items }: SourceScan,
  remote: ReadonlyMap<string, RemoteItem>,
  before: ReadonlyMap<string, SyncRecord>,
): Map<string, SyncRecord> {
  const records = new Map<string, SyncRecord>()
  for (const entry of entries) {
    if (entry.kind !== 'file' || entry.sha256 === undefined) continue
    const { path, size, node: id, seal, mode, uid, gid, mtimeNs } = entry
    const key = keyOf(path.split('/'))
    const [here, there, old] = [items.get(key), remote.get(key)?.node, before.get(key)]
    const isSame = here?.kind === 'file' && here.size === size && isSameMicrosecond(mtimeNs, here.mtimeMs)
    let local: LocalIdentity = { size, mtimeMs: Number(BigInt(mtimeNs)) / 1e6, ctimeMs: 0, ino: 0 }
    if (entry.isInconsistent) local = GROWING
    else if (entry.isOlder) local = UNSETTLED
    else if (old?.remote.id === id) local = old.local
    else if (isSame) local = localIdentity(here)
    records.set(key, {
      kind: 'file',
      path,
      local,
      remote: { id, size, modified: there?.id === id ? (there.timestampModification ?? 0) : 0 },
      seal,
      sha256: Buffer.from(entry.sha256, 'hex').toString('base64'),
      attributes: { mode, uid, gid, mtimeNs },
    })
  }
  return records
}

/** What has to be done at the server. Something there that is not in the sources goes into the history, unless it may only be out of sight. */
export function stepsOf(
  { items, isIncomplete }: SourceScan,
  remote: ReadonlyMap<string, RemoteItem>,
  records: ReadonlyMap<string, SyncRecord>,
): SyncStep[] {
  const all = reconcile(
    {
      local: items,
      remote,
      // What is out of sight would look moved to where a second name of it is.
      records: isIncomplete ? new Map([...records].filter(([key]) => items.has(key))) : records,
      blocked: createBlocked(),
      isFirst: false,
      isIncomplete: false,
      // Only the digest of a content says what it is.
      isEqual: () => false,
    },
    { direction: 'push', delete: true, onConflict: 'overwrite', comparesAll: true, conflictName: (name) => name },
  )
  const steps = all.map((step): SyncStep => {
    const there = remote.get(step.key)
    // Whoever has changed what is gone here: it is kept.
    if (step.do !== 'conflict' || there === undefined || items.has(step.key)) return step
    return { do: 'delete-remote', key: step.key, path: step.path, reason: step.reason, remote: there }
  })
  if (!isIncomplete) return steps
  return steps.filter(({ do: action, key }) => action !== 'delete-remote' || isInTheWay(key, items))
}

/**
 * The same where one can only write: what is new or has changed is sent to a place of its own, what has moved is remembered under its new
 * path, and what is gone is just not in the run.
 */
export function writingSteps(
  scan: SourceScan,
  remote: ReadonlyMap<string, RemoteItem>,
  records: ReadonlyMap<string, SyncRecord>,
): SyncStep[] {
  const moves: SyncStep[] = []
  const contents: SyncStep[] = []
  for (const step of stepsOf(scan, remote, records)) {
    if (step.do === 'move-remote' && step.kind === 'file') moves.push(step)
    else if (step.do === 'conflict') contents.push(step)
    else if (step.do === 'upload') {
      const { key, path, reason, local } = step
      contents.push({ do: 'upload', key, path, reason, local })
    }
  }
  const sent = contents.flatMap((step) => (step.do === 'upload' ? [step.path] : []))
  const folders = foldersFor(sent).map((one): SyncStep => ({ do: 'make-folder', ...one, reason: 'for what is stored' }))
  return [...moves, ...folders, ...contents]
}

/** True for the place of a file or directory here, and for what is below the place of a file. */
function isInTheWay(key: string, items: ReadonlyMap<string, LocalEntry>): boolean {
  for (let above = key; above !== ''; above = parentKey(above)) {
    const here = items.get(above)
    if (here !== undefined) return above === key || here.kind === 'file'
  }
  return false
}

/** Where things go and come from by the moves of a plan, with all that is below them. */
export interface Moves {
  /** New key of what is under this one; `undefined` for what stays. */
  to(key: string): string | undefined
  /** Old key of what is under this one then. */
  from(key: string): string | undefined
}

/** The moves among the steps of a plan. */
export function movesOf(steps: readonly SyncStep[]): Moves {
  const [forth, back] = [new Map<string, string>(), new Map<string, string>()]
  for (const step of steps) {
    if (step.do !== 'move-remote') continue
    forth.set(keyOf(step.from), step.key)
    back.set(step.key, keyOf(step.from))
  }
  const carry = (map: ReadonlyMap<string, string>) => (key: string) => {
    for (let above = map.size === 0 ? '' : key; above !== ''; above = parentKey(above)) {
      const other = map.get(above)
      if (other !== undefined) return other + key.slice(above.length)
    }
    return undefined
  }
  return { to: carry(forth), from: carry(back) }
}

/** Files that are gone from the sources; what was moved is not. */
export function countRemoved(
  steps: readonly SyncStep[],
  { items }: SourceScan,
  records: ReadonlyMap<string, SyncRecord>,
): number {
  const moves = movesOf(steps)
  const isMoved = (key: string) => {
    const to = moves.to(key)
    return to !== undefined && items.has(to)
  }
  let count = 0
  for (const [key, { kind }] of records)
    if (kind === 'file' && items.get(key)?.kind !== 'file' && !isMoved(key)) count++
  return count
}

/** Records of files. */
export function countFiles(records: ReadonlyMap<string, SyncRecord>): number {
  let count = 0
  for (const { kind } of records.values()) if (kind === 'file') count++
  return count
}
