/** Where there may be something to do: of a million places nearly all are as they were, and cost a look only. @module */
import { localChange, looksEqual, remoteChange, type SyncRecord } from '../records.ts'
import type { RemoteItem } from '../scan.ts'
import type { LocalEntry } from '../tree.ts'
import type { ReconcileOptions, Trees } from './steps.ts'

/** Where there may be something to do. */
export function placesToLookAt(trees: Trees, options: ReconcileOptions): Set<string> {
  const { local, remote, records, blocked } = trees
  const { checksum } = options
  if (options.remembers === false) return placesToFill(trees, options)
  const found = new Set<string>()
  let [knownHere, knownThere] = [0, 0]
  for (const [key, record] of records) {
    const [here, there] = [local.get(key), remote.get(key)]
    if (here !== undefined) knownHere++
    if (there !== undefined) knownThere++
    if ((checksum || !isSettled(record, here, there)) && !blocked.has(key)) found.add(key)
  }
  for (const [tree, known] of [
    [local, knownHere],
    [remote, knownThere],
  ] as const) {
    if (tree.size === known) continue
    for (const key of tree.keys()) if (!records.has(key) && !blocked.has(key)) found.add(key)
  }
  return found
}

/** The same for runs that remember nothing: what the source has, as far as the target does not have it already. */
function placesToFill(
  { local, remote, blocked, isEqual = looksEqual }: Trees,
  { direction, checksum }: ReconcileOptions,
): Set<string> {
  const found = new Set<string>()
  const look = (key: string, here: LocalEntry | undefined, there: RemoteItem | undefined) => {
    const isThere = checksum !== true && here?.kind === 'file' && there?.kind === 'file' && isEqual(here, there.node)
    if (!isThere && !blocked.has(key)) found.add(key)
  }
  if (direction === 'pull') for (const [key, there] of remote) look(key, local.get(key), there)
  else for (const [key, here] of local) look(key, here, remote.get(key))
  return found
}

/** True when something that is remembered is not where it was, on either side. */
export function isAnythingGone({ local, remote, records }: Trees): boolean {
  for (const key of records.keys()) if (!local.has(key) || !remote.has(key)) return true
  return false
}

/** A file that is on both sides as it was: nothing follows from it. */
function isSettled(record: SyncRecord, here: LocalEntry | undefined, there: RemoteItem | undefined): boolean {
  if (record.kind !== 'file' || here === undefined || there === undefined) return false
  return localChange(record, here) === 'same' && (there.record === record || remoteChange(record, there) === 'same')
}
