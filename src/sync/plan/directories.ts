/** What becomes of directories: made where they are missing, removed where they are gone and nothing needs them. @module */
import { parentKey } from '../scan.ts'
import type { ReconcileOptions, SyncStep, Trees } from './steps.ts'

/** The directories above a place stay, or are made. */
export function need(key: string, needed: Set<string>): void {
  for (let above = parentKey(key); above !== '' && !needed.has(above); above = parentKey(above)) needed.add(above)
}

/** Directories: made where they are missing, removed where they are gone and nothing needs them. */
export function planDirectories(
  trees: Trees,
  made: ReadonlySet<string>,
  { direction, delete: wantsDelete, remembers = true }: ReconcileOptions,
  keys: readonly string[],
  needed: Set<string>,
): { make: SyncStep[]; remove: SyncStep[] } {
  const { local, remote, records } = trees
  const make: SyncStep[] = []
  const remove: SyncStep[] = []
  const mayDelete = wantsDelete && !trees.isFirst && !trees.isIncomplete
  if (direction === 'both') {
    // A directory that is new on one side needs those above it on the other.
    for (const key of keys) if (!records.has(key)) need(key, needed)
  }
  for (const key of keys) {
    const [here, there, record] = [local.get(key), remote.get(key), records.get(key)]
    if (here !== undefined && there !== undefined) {
      const isKnown = !remembers || (record?.remote.id === there.node.id && record.local.ino === here.ino)
      if (!isKnown)
        make.push({ do: 'adopt', key, path: here.path, reason: 'on both sides', local: here, remote: there })
      continue
    }
    if (here === undefined && there === undefined) {
      if (!made.has(key))
        remove.push({ do: 'forget', key, path: record!.path.split('/'), reason: 'gone on both sides' })
      continue
    }
    const path = (here ?? there)!.path
    const isNew = record === undefined
    if (here !== undefined) {
      const isWanted = direction === 'push' || (direction === 'both' && (isNew || needed.has(key)))
      if (isWanted) {
        if (!made.has(key))
          make.push({ do: 'make-folder', key, path, reason: isNew ? 'new here' : 'not there any more' })
      } else if (mayDelete && !needed.has(key)) {
        remove.push({ do: 'delete-local', key, path, reason: isNew ? 'not there' : 'deleted there', local: here })
      } else {
        remove.push({
          do: 'keep',
          key,
          path,
          side: 'local',
          kind: 'directory',
          reason: isNew ? 'not there' : 'deleted there',
        })
      }
      continue
    }
    const isWanted = direction === 'pull' || (direction === 'both' && (isNew || needed.has(key)))
    if (isWanted) {
      if (!made.has(key))
        make.push({ do: 'make-directory', key, path, reason: isNew ? 'new there' : 'not here any more' })
    } else if (mayDelete && !needed.has(key) && there!.node.type !== 'room') {
      remove.push({ do: 'delete-remote', key, path, reason: isNew ? 'not here' : 'deleted here', remote: there! })
    } else {
      remove.push({
        do: 'keep',
        key,
        path,
        side: 'remote',
        kind: 'directory',
        reason: isNew ? 'not here' : 'deleted here',
      })
    }
  }
  return { make, remove }
}
