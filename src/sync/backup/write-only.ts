/**
 * A run of a set where one can only write: nothing that is stored can be read, and with an account that may only create, not even be seen.
 * What earlier runs have stored is known from what this machine remembers. Each run puts what is new into a folder of its own
 * (`added/RUN`), and nothing is ever moved, replaced or removed.
 * @module
 */
import { getFileKey, listMissingFileKeys } from '../../api/file-keys.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, type SyncErrorCode, toSyncError } from '../../errors.ts'
import { type SyncRecord, sealOf } from '../records.ts'
import { ensureFolder } from '../remote-path.ts'
import { type RunContext, report } from '../run.ts'
import type { Known } from '../run-job.ts'
import { keyOf, type RemoteItem } from '../scan.ts'
import { type EntryFailure, readRemoteTree } from '../tree.ts'
import type { SetMemory } from './memory.ts'
import { listManifests, type Runs, shownManifest } from './runs.ts'
import type { BackupSet, RunNote } from './set.ts'
import type { SourceScan } from './source.ts'
import type { Store } from './store.ts'

/** Runs that a manifest names: all that anybody may still look for. */
const MAX_NOTES = 1_000

/** False for an account that may create, and see nothing of it. */
const canSee = ({ target }: Pick<Store, 'target'>): boolean => target.permissions?.read !== false

/** A set is written by a machine that can read it, or by one that cannot. */
export function requireKind(set: BackupSet, isWriteOnly: boolean, ...found: readonly (boolean | undefined)[]): void {
  if (found.every((one) => one === undefined || one === isWriteOnly)) return
  const text = isWriteOnly
    ? `${set.target} holds a backup that is made with the private key`
    : `${set.target} holds the backup of a machine that can only write`
  throw new SyncError('safety', 'SET_OTHER_KIND', text, {
    hint: isWriteOnly
      ? 'Nothing was done. Give the set another target to begin a backup that this machine can only write.'
      : 'Nothing was done. Here it can be listed, restored, drilled and pruned; runs are made where it is written.',
  })
}

const integrity = (code: SyncErrorCode, message: string) =>
  new SyncError('integrity', code, message, {
    hint: 'Look at the set on the machine that can read it: sync backup list NAME. There is a new run all the same.',
  })

/** What is known of the runs of a set without reading any of them. */
export interface WrittenRuns extends Runs {
  /** Ids of all that are there, ours or not. */
  readonly listed: readonly string[]
}

/**
 * Holds the manifests that are there against what is remembered. Older ones may be gone, since somebody else prunes; the newest may not,
 * nor may any be another one.
 */
export async function lookAtRuns(
  context: RunContext,
  store: Store,
  memory: SetMemory | undefined,
  signal: AbortSignal,
): Promise<WrittenRuns> {
  const known = (memory?.runs ?? []).slice(-MAX_NOTES)
  const isPinned = known.length > 0
  if (!canSee(store)) return { notes: known, problems: [], isPinned, missing: 0, listed: [] }
  const found = await listManifests(context, store, signal)
  const notes: RunNote[] = []
  const problems: EntryFailure[] = []
  const tell = (run: string, error: SyncError) => problems.push({ path: shownManifest(run), error })
  for (const note of known) {
    const node = found.get(note.run)
    if (node !== undefined && (node.id !== note.node || node.size !== note.size))
      tell(note.run, integrity('MANIFEST_SWAPPED', `The manifest of run ${note.run} is not the one that was stored`))
    else if (node !== undefined) notes.push(note)
    else if (note === known.at(-1))
      tell(note.run, integrity('MANIFEST_DROPPED', `The manifest of run ${note.run} is gone from the server`))
  }
  const last = await lastSent(context, memory, found, signal)
  if (last !== undefined && !known.some(({ run }) => run === last.run)) notes.push(last)
  const mine = new Set([...known, ...notes].map(({ run }) => run))
  const others = [...found.keys()].filter((run) => !mine.has(run))
  if (others.length > 0) {
    const message = `${others.length} runs there are not known to this machine, which cannot read them: its runs do not follow from those`
    context.onEvent?.({ type: 'warning', code: 'NOT_PINNED', message })
  }
  return { notes, problems, isPinned, missing: 0, listed: [...found.keys()] }
}

/** The manifest that was about to be sent when a run was interrupted, if it has arrived. */
async function lastSent(
  { api }: RunContext,
  memory: SetMemory | undefined,
  found: ReadonlyMap<string, RemoteNode>,
  signal: AbortSignal,
): Promise<RunNote | undefined> {
  const sending = memory?.sending
  const node = sending && found.get(sending.run)
  if (sending === undefined || node === undefined || node.size !== sending.size) return undefined
  try {
    return { ...sending, node: node.id, seal: sealOf(await getFileKey(api, node.id, signal)) }
  } catch (error) {
    const { class: kind } = toSyncError(error)
    if (kind === 'not_found' || kind === 'integrity' || kind === 'key') return undefined
    throw error
  }
}

/** What is remembered of contents, as if it had been listed. */
export interface Written {
  readonly records: Map<string, SyncRecord>
  readonly remote: Map<string, RemoteItem>
  /** Contents that are gone from the server; they are stored again. Reported already. */
  readonly lost: readonly EntryFailure[]
}

/**
 * What counts of the records: what is whole, and still there as far as one can see.
 *
 * @param unusable - Nodes that do not count.
 * @param isAnew - What is remembered may be of another place, and counts only where one can see that it is there.
 */
export async function knownContents(
  context: RunContext,
  store: Store | undefined,
  scan: Pick<SourceScan, 'items'>,
  remembered: ReadonlyMap<string, SyncRecord>,
  unusable: ReadonlySet<number>,
  isAnew: boolean,
  signal: AbortSignal,
): Promise<Written> {
  const records = new Map<string, SyncRecord>()
  const remote = new Map<string, RemoteItem>()
  const lost: EntryFailure[] = []
  if (store === undefined) return { records, remote, lost }
  const sizes = canSee(store) ? await sizesOf(context, store, signal) : undefined
  if (sizes === undefined && isAnew) return { records, remote, lost }
  for (const [key, record] of remembered) {
    const { kind, path, seal, mac, attributes, remote: there } = record
    const isWhole = kind === 'file' && seal !== undefined && mac !== undefined && attributes !== undefined
    // What is a directory now is gone as a file.
    if (!isWhole || scan.items.get(key)?.kind === 'directory' || unusable.has(there.id)) continue
    if (sizes !== undefined && sizes.get(there.id) !== there.size) {
      lost.push({ path: `/${path}`, error: gone() })
      continue
    }
    records.set(key, record)
    remote.set(key, itemOf(record, store.roomId))
  }
  for (const { path, error } of lost) report(context, path, error)
  return { records, remote, lost }
}

/** Pages of missing file keys that are looked through: of a hundred each. */
const MAX_PAGES = 10_000

/**
 * Contents that an interrupted run has stored, and the keys of which it did not come to hand out: they are not at hand any more, so those
 * contents are stored again. What others lack of older ones is left to who can read it.
 */
export async function keysNotHandedOut(
  { api, keyring }: RunContext,
  { roomId }: Pick<Store, 'roomId'>,
  { runs, deeds }: Pick<Known, 'runs' | 'deeds'>,
  signal: AbortSignal,
): Promise<ReadonlySet<number>> {
  const nodes = new Set<number>()
  for (const { id, outcome } of runs()) {
    if (outcome !== undefined && outcome !== 'stopped') break
    for (const { deed } of deeds(id)) if (deed.do === 'created-remote' && !deed.isFolder) nodes.add(deed.id)
  }
  const lacking = new Set<number>()
  if (nodes.size === 0) return lacking
  const { keys } = await keyring.pins.read()
  const isTrusted = new Set(keys.map(({ userId }) => userId))
  for (let [page, offset] = [0, 0]; page < MAX_PAGES; page++) {
    const { items } = await listMissingFileKeys(api, { roomId, offset }, signal)
    for (const { userId, fileId } of items) if (nodes.has(fileId) && isTrusted.has(userId)) lacking.add(fileId)
    if (items.length === 0) break
    offset += items.length
  }
  return lacking
}

const gone = () =>
  new SyncError('integrity', 'CONTENT_DROPPED', 'What was stored of this file is gone from the server', {
    hint: 'It is stored again as it is now; what older runs had of it may be lost. See who has access to the room.',
  })

async function sizesOf(
  { api }: RunContext,
  { files, roomId }: Store,
  signal: AbortSignal,
): Promise<Map<number, number>> {
  const sizes = new Map<number, number>()
  for (const { node } of await readRemoteTree(api, files, roomId, { signal }))
    if (node.type === 'file') sizes.set(node.id, node.size ?? 0)
  return sizes
}

const itemOf = (record: SyncRecord, roomId: number): RemoteItem => {
  const path = record.path.split('/')
  const { id, size, modified } = record.remote
  const node: RemoteNode = {
    id,
    type: 'file',
    name: path.at(-1)!,
    size,
    isEncrypted: true,
    timestampModification: modified,
  }
  return { kind: 'file', path, node, roomId, record }
}

/** Where a run puts what it stores: a folder of its own, if there is anything. */
export const makeAdded = ({ api }: RunContext, store: Store, run: string, signal: AbortSignal): Promise<RemoteNode> =>
  ensureFolder(api, store.files.id, run, signal).then((node) => ({ ...node, isEncrypted: true }))

/** The places below which a run stores something, the upper ones first. */
export function foldersFor(
  paths: Iterable<readonly string[]>,
): { readonly key: string; readonly path: readonly string[] }[] {
  const folders = new Map<string, readonly string[]>()
  for (const path of paths)
    for (let depth = 1; depth < path.length; depth++) {
      const above = path.slice(0, depth)
      const key = keyOf(above)
      if (!folders.has(key)) folders.set(key, above)
    }
  return [...folders].map(([key, path]) => ({ key, path })).sort((a, b) => a.path.length - b.path.length)
}
