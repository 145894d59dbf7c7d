/**
 * What stands in the way of something of another kind: a file where the other side has a directory, a directory or a link where it
 * has a file. A mirror that may delete lets the old thing go, into a bin, and brings the new one when its place is free. Both ways
 * the side that has changed is followed if only one has, and deletions are allowed; else what is here gets another name, and both
 * sides have both.
 * @module
 */
import { SyncError } from '../../errors.ts'
import { localChange, remoteChange, type SyncRecord } from '../records.ts'
import { parentKey, type RemoteItem } from '../scan.ts'
import { entryUnder, type LocalEntry } from '../tree.ts'
import { nameCopy, rekey, type Taken } from './places.ts'
import type { ReconcileOptions, SyncStep, Trees } from './steps.ts'

type Own = Omit<Trees, 'local' | 'remote' | 'records'> & {
  readonly local: Map<string, LocalEntry>
  readonly remote: Map<string, RemoteItem>
  readonly records: Map<string, SyncRecord>
}

/** Places where something has another kind than on the other side; without those below another one. */
export function findInTheWay(
  { local, remote }: Pick<Trees, 'local' | 'remote'>,
  found: Iterable<string>,
  links: ReadonlyMap<string, readonly string[]> = new Map(),
): Set<string> {
  const all = new Set<string>()
  for (const key of found) {
    const [here, there] = [local.get(key), remote.get(key)]
    if (there === undefined) continue
    if (here === undefined ? links.has(key) : here.kind !== there.kind) all.add(key)
  }
  for (const key of all) {
    for (let above = parentKey(key); above !== ''; above = parentKey(above)) if (all.has(above)) all.delete(key)
  }
  return all
}

export interface SettledKinds {
  /** First of all: local things that get another name. */
  readonly aside: SyncStep[]
  readonly conflicts: SyncStep[]
  /** Files and links. */
  readonly removals: SyncStep[]
  /** Directories. */
  readonly emptied: SyncStep[]
  /** Places that are free after the deletions. */
  readonly freed: Set<string>
  /** Places about which nothing else is decided. */
  readonly left: Set<string>
}

const kindsDiffer = (message: string, hint: string) => new SyncError('conflict', 'KINDS_DIFFER', message, { hint })

/** Decides about each of these places, and changes the view to what is there then. */
export function settleKinds(
  trees: Own,
  standing: ReadonlySet<string>,
  options: ReconcileOptions,
  taken: Taken,
): SettledKinds {
  const { local, remote, records, links = new Map<string, readonly string[]>() } = trees
  const { direction, prefer, onConflict = 'fail' } = options
  const mayDelete = options.delete && !trees.isFirst && !trees.isIncomplete
  const result: SettledKinds = {
    aside: [],
    conflicts: [],
    removals: [],
    emptied: [],
    freed: new Set(),
    left: new Set(),
  }
  const placesOf = (map: ReadonlyMap<string, unknown>) => groupBelow(map, standing)
  const [here, there, known] = [placesOf(local), placesOf(remote), placesOf(records)]

  for (const key of [...standing].sort()) {
    const link = local.has(key) ? undefined : links.get(key)
    if (direction === 'both') settleBoth(key, link)
    else settleMirror(key, link)
  }
  return result

  function settleMirror(key: string, link: readonly string[] | undefined): void {
    const side = direction === 'push' ? 'remote' : 'local'
    // On the way up a link is nothing, and what it took the place of is gone.
    if (side === 'remote' && link !== undefined) return
    if (
      mayDelete &&
      (link !== undefined || (!hasRoom(key, side) && (onConflict === 'overwrite' || !isChanged(key, side))))
    ) {
      follow(key, side, link)
      return
    }
    result.left.add(key)
    if (onConflict !== 'skip') result.conflicts.push(conflict(key, link))
  }

  function settleBoth(key: string, link: readonly string[] | undefined): void {
    const record = records.get(key)
    const item = remote.get(key)!
    if (link !== undefined) {
      // What was here and is a link now is gone from here, unless it is another one there meanwhile.
      const isGoneHere = record !== undefined && isAsKnown(key, 'remote')
      if (isGoneHere) return
      moveAside(key, link, 0)
      return
    }
    const entry = local.get(key)!
    const mayFollow = (side: 'local' | 'remote') => mayDelete && !hasRoom(key, side)
    const hasChanged = (side: 'local' | 'remote') => {
      // The other side is as it was, and of the kind that is known.
      const [other, kind] = side === 'local' ? (['remote', item.kind] as const) : (['local', entry.kind] as const)
      return record?.kind === kind && isAsKnown(key, other)
    }
    if (mayFollow('remote') && (prefer === 'local' || (prefer !== 'remote' && hasChanged('local')))) {
      follow(key, 'remote', undefined)
    } else if (mayFollow('local') && (prefer === 'remote' || (prefer !== 'local' && hasChanged('remote')))) {
      follow(key, 'local', undefined)
    } else {
      moveAside(key, entry.path, entry.mtimeMs)
    }
  }

  /** The old thing on this side goes, the one of the other side takes its place. */
  function follow(key: string, side: 'local' | 'remote', link: readonly string[] | undefined): void {
    const common = { reason: 'of another kind on the other side' }
    if (link !== undefined) {
      result.removals.push({ do: 'take-link', key, path: link, ...common })
    } else if (side === 'local') {
      const entry = local.get(key)!
      const below = (here.get(key) ?? []).map((one) => local.get(one)!)
      const whole = entry.kind === 'directory' ? { whole: below.filter(({ kind }) => kind === 'file') } : {}
      result.removals.push({ do: 'delete-local', key, path: entry.path, local: entry, ...whole, ...common })
    } else {
      for (const one of there.get(key) ?? []) {
        const item = remote.get(one)!
        const steps = item.kind === 'directory' ? result.emptied : result.removals
        steps.push({ do: 'delete-remote', key: one, path: item.path, remote: item, ...common })
      }
    }
    const gone: Map<string, unknown> = side === 'local' ? local : remote
    for (const one of (side === 'local' ? here : there).get(key) ?? []) gone.delete(one)
    forget(key)
    result.freed.add(key)
  }

  function moveAside(key: string, path: readonly string[], mtimeMs: number): void {
    const copy = nameCopy(key, path, mtimeMs, options, taken)
    result.aside.push({ do: 'move-aside', key, path, copy, reason: 'both are kept' })
    rekey(local, key, copy, entryUnder)
    forget(key)
  }

  function forget(key: string): void {
    for (const one of known.get(key) ?? []) records.delete(one)
  }

  /** True when everything there is what is known of it. */
  function isAsKnown(key: string, side: 'local' | 'remote'): boolean {
    const places = (side === 'local' ? here : there).get(key) ?? []
    return places.every((one) => records.get(one) !== undefined && !isOther(one, side))
  }

  /** True when somebody has changed something there since; what is new there does not count. */
  function isChanged(key: string, side: 'local' | 'remote'): boolean {
    const places = (side === 'local' ? here : there).get(key) ?? []
    return places.some((one) => isOther(one, side))
  }

  function isOther(key: string, side: 'local' | 'remote'): boolean {
    const record = records.get(key)
    const item = (side === 'local' ? local : remote).get(key)!
    if (record === undefined || record.kind !== item.kind) return false
    const change = side === 'local' ? localChange(record, local.get(key)!) : remoteChange(record, remote.get(key)!)
    return change !== 'same'
  }

  function hasRoom(key: string, side: 'local' | 'remote'): boolean {
    return side === 'remote' && (there.get(key) ?? []).some((one) => remote.get(one)!.node.type === 'room')
  }

  function conflict(key: string, link: readonly string[] | undefined): SyncStep {
    const path = link ?? local.get(key)!.path
    const what = (kind: string) => (kind === 'file' ? 'a file' : 'a directory')
    const [mine, theirs] = [
      link === undefined ? what(local.get(key)!.kind) : 'a link or a device',
      what(remote.get(key)!.kind),
    ]
    const hint =
      options.remembers === false
        ? 'Rename it, or move it away, then run again.'
        : options.delete
          ? mayDelete
            ? 'Look at both, then rename or remove one, or run again with --on-conflict overwrite: the old one goes into the bin.'
            : 'A first run, and one that could not see everything, deletes nothing. Run again.'
          : 'Run again with --delete: the old one goes into the bin. Or rename or remove one of them.'
    const error = kindsDiffer(`Here it is ${mine}, on the server ${theirs}`, hint)
    return { do: 'conflict', key, path, reason: 'kinds differ', error }
  }
}

/** Keys at and below each of these places. */
function groupBelow(map: ReadonlyMap<string, unknown>, places: ReadonlySet<string>): Map<string, string[]> {
  const groups = new Map<string, string[]>()
  for (const key of map.keys()) {
    for (let at = key; at !== ''; at = parentKey(at)) {
      if (!places.has(at)) continue
      const group = groups.get(at)
      if (group === undefined) groups.set(at, [key])
      else group.push(key)
      break
    }
  }
  return groups
}
