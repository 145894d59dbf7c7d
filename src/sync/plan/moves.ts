/** What was moved on one side and is moved on the other, instead of being sent again and deleted. @module */
import { foldKey } from '../../local/names.ts'
import { localChange, localIdentity } from '../records.ts'
import { keyOf } from '../scan.ts'
import { rekey } from './places.ts'
import { localSide, type MoveSide, remoteSide, type View } from './sides.ts'
import { byPath, type Direction } from './steps.ts'

/** Finds what was moved on one side and stands where it was on the other; adds the steps and looks on as if they were done. */
export function findMoves(view: View, side: MoveSide): void {
  const { records, blocked, steps, made } = view
  for (const kind of ['directory', 'file'] as const) {
    const lost = new Map<string, string>()
    for (const [key, record] of records) {
      if (record.kind === kind && !side.has(key) && !blocked.has(key)) lost.set(side.known(record), key)
    }
    if (lost.size === 0) continue
    const found = [...side.keys()].filter((key) => side.kind(key) === kind && !records.has(key) && !blocked.has(key))
    for (const to of found.sort(byPath)) {
      const identity = side.identify(to)
      const from = identity === undefined ? undefined : lost.get(identity)
      // It may have come along with a directory that was moved.
      if (from === undefined || records.has(to) || !records.has(from)) continue
      const record = records.get(from)!
      if (!side.stands(from, record) || !side.isFreeThere(to, from) || to.startsWith(`${from}/`)) {
        continue
      }
      // Numbers of directories are used again: something in it has to be known, too.
      if (kind === 'directory' && !bringsKnown(view, side, from, to)) continue
      const path = side.path(to)
      if (!makeParents(view, side, path)) continue
      const remote = (view.remote.get(from) ?? view.remote.get(to))!
      const local = (view.local.get(from) ?? view.local.get(to))!
      const was = record.path
      steps.push({ do: side.action, kind, key: to, path, from: was.split('/'), reason: `was ${was}`, remote, local })
      side.carry(from, path)
      rekey(records, from, path, (one, at) => ({ ...one, path: at.join('/') }))
      // Renaming a file touches it.
      const [settled, here] = [records.get(to), view.local.get(to)]
      if (settled?.kind === 'file' && here !== undefined) records.set(to, { ...settled, local: localIdentity(here) })
      made.delete(from)
      lost.delete(identity!)
    }
  }
}

/**
 * Names that differ in their case only, on a disk that takes them for one: what stands under one is what the other side has under
 * the other, whatever else has changed. The side whose name is new says how it is written.
 */
export function findCaseMoves(view: View, direction: Direction): void {
  const sides: MoveSide[] = []
  if (direction !== 'pull') sides.push(localSide(view))
  if (direction !== 'push') sides.push(remoteSide(view))
  const { records, blocked, steps, made, local, remote } = view
  for (const side of sides) {
    const isRemoteNew = side.action === 'move-local'
    const [mine, others] = isRemoteNew ? [remote, local] : [local, remote]
    const found = [...mine.keys()].filter((key) => !records.has(key) && !others.has(key) && !blocked.has(key))
    if (found.length === 0) continue
    const folded = new Map<string, string>()
    for (const key of others.keys()) if (!mine.has(key) && !blocked.has(key)) folded.set(foldKey(key), key)
    if (folded.size === 0) continue
    for (const to of found.sort(byPath)) {
      // It may have come along with its directory.
      const from = others.has(to) ? undefined : findFolded(to)
      if (from === undefined) continue
      const [theirs, own] = [others.get(from)!, mine.get(to)!]
      if (theirs.kind !== own.kind || (!isRemoteNew && remote.get(from)!.node.type === 'room')) continue
      const there = (isRemoteNew ? remote.get(to) : remote.get(from))!
      const here = (isRemoteNew ? local.get(from) : local.get(to))!
      const path = own.path
      const move = { key: to, path, from: theirs.path, reason: 'written in another case', remote: there, local: here }
      steps.push({ do: side.action, kind: own.kind, ...move, isCaseOnly: true })
      const record = records.get(from)
      const wasSame = record !== undefined && localChange(record, here) === 'same'
      side.carry(from, path)
      rekey(records, from, path, (one, at) => ({ ...one, path: at.join('/') }))
      const now = records.get(to)
      if (wasSame && isRemoteNew && now?.kind === 'file')
        records.set(to, { ...now, local: localIdentity(local.get(to)!) })
      made.delete(from)
    }

    function findFolded(to: string): string | undefined {
      const from = folded.get(foldKey(to))
      if (from !== undefined) return others.has(from) ? from : undefined
      return undefined
    }
  }
}

function bringsKnown({ records }: View, side: MoveSide, from: string, to: string): boolean {
  let isEmpty = true
  for (const [key, record] of records) {
    if (!key.startsWith(`${from}/`)) continue
    isEmpty = false
    if (side.identify(`${to}${key.slice(from.length)}`) === side.known(record)) return true
  }
  return isEmpty
}

/** False when something other than a directory is in the way. */
function makeParents({ steps, made, local, remote }: View, side: MoveSide, path: readonly string[]): boolean {
  const other: ReadonlyMap<string, { readonly kind: 'file' | 'directory' }> =
    side.makeParent === 'make-folder' ? remote : local
  const missing: { key: string; path: readonly string[] }[] = []
  let key = ''
  for (const [index] of path.slice(0, -1).entries()) {
    const above = path.slice(0, index + 1)
    key = keyOf(above)
    const there = other.get(key)
    if (there?.kind === 'file') return false
    if (there === undefined && !made.has(key)) missing.push({ key, path: above })
  }
  for (const one of missing) {
    made.add(one.key)
    steps.push({ do: side.makeParent, ...one, reason: 'for what is moved there' })
  }
  return true
}
