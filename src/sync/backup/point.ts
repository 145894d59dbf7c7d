/** The end of a run of a set: the manifest that makes it a point in time. @module */
import { rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { SyncError, toSyncError } from '../../errors.ts'
import { hashFile } from '../hash.ts'
import { writeManifest } from '../manifest.ts'
import { GROWING, localChange, type SyncRecord, sealOf } from '../records.ts'
import type { Done, Running } from '../run-job.ts'
import type { EntryFailure } from '../tree.ts'
import type { BackupEntry, FileEntry, ManifestHead } from './manifest.ts'
import { beginMemory, openMemory, type SetMemory } from './memory.ts'
import { manifestName, noteOf, type Runs, shownManifest } from './runs.ts'
import { type BackupSet, compareRuns, type RunNote, showSourcePath } from './set.ts'
import { attributesOf, describe, type SourceScan } from './source.ts'
import type { Store } from './store.ts'

/** What a run was planned from. */
interface Planned {
  readonly scan: SourceScan
  readonly runs: Runs
  /** As they were before it. */
  readonly records: ReadonlyMap<string, SyncRecord>
}

export interface Ending {
  readonly plan: Planned
  readonly store: Store
  /** Id of the new point in time. */
  readonly run: string
  readonly directory: string
  readonly done: Done
  tell(failure: EntryFailure): void
}

/** Failures of files that are in the run all the same. */
const STORED = new Set(['CONTENT_DROPPED', 'INCONSISTENT'])

/** Writes the manifest and puts it beside the others; what is remembered of it is the pin of the next run. */
export async function finish(
  { context, state, startedAt, uploader, signal }: Running,
  set: BackupSet,
  { plan, store, run, directory, done, tell }: Ending,
): Promise<{ note: RunNote; memory: SetMemory }> {
  const { scan, runs } = plan
  const told: EntryFailure[] = []
  const tellMore = (failure: EntryFailure) => {
    told.push(failure)
    tell(failure)
  }
  await completeRecords(plan, state, tellMore, signal)
  const entries: BackupEntry[] = [...describe(scan, tellMore), ...filesOf(plan, state.current())]
  const failed = [...done.failed.filter((failure) => !runs.problems.includes(failure)), ...told]
  const head: ManifestHead = {
    set: set.name,
    run,
    startedAt: new Date(startedAt).toISOString(),
    endedAt: new Date(context.clock.now()).toISOString(),
    host: hostname(),
    sources: set.sources,
    options: {
      exclude: set.exclude,
      oneFileSystem: set.oneFileSystem,
      ...(set.maxSize === undefined ? {} : { maxSize: set.maxSize }),
    },
    runs: runs.notes,
    isComplete: done.left === 0 && failed.every(({ error }) => STORED.has(error.code)),
    addedBytes: done.bytes,
    failed: failed.map(({ path, error }) => ({ path, code: error.code })),
  }
  const path = join(directory, 'manifest.json.gz')
  const { sha256, size } = await writeManifest(path, head, entries)
  const { runs: parent, roomId } = store
  const request = { source: path, shown: shownManifest(run), parentId: parent.id, roomId, name: manifestName(run) }
  const sent = await (uploader as NonNullable<typeof uploader>).send({ ...request, isUntold: true }, signal)
  try {
    rmSync(path, { force: true })
  } catch {
    // The next run writes it anew; this one is done.
  }
  const note = noteOf({ ...head, entries }, { node: sent.node.id, sha256, seal: sealOf(sent.seal!), size })
  const memory = (await openMemory(context, directory)) ?? beginMemory(set, store.target.id, undefined, runs.notes)
  // Runs that are told to be wrong stay remembered: they are told again until somebody has looked.
  const right = new Set(runs.notes.map((one) => one.run))
  const wrong = memory.runs.filter((one) => !right.has(one.run))
  const all = [...wrong, ...runs.notes, note].sort((a, b) => compareRuns(a.run, b.run))
  return { note, memory: { ...memory, sources: scan.roots, runs: all } }
}

/** Finds out what is not known of contents that an earlier run had sent, since their files have not changed. */
async function completeRecords(
  { scan, records }: Planned,
  state: Running['state'],
  tell: (failure: EntryFailure) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const [key, local] of scan.items) {
    const record = state.current().get(key)
    const isOpen = record?.kind === 'file' && record !== records.get(key) && entryOf(record, false) === undefined
    if (!isOpen || local.kind !== 'file') continue
    try {
      const { sha256 } = await hashFile(local.source, showSourcePath(local.path), signal)
      const attributes = attributesOf(local)
      if (attributes === undefined || localChange(record, local) !== 'same') throw changedMeanwhile()
      state.put(key, { ...record, sha256: Buffer.from(sha256, 'hex').toString('base64'), attributes })
    } catch (error) {
      if (signal.aborted) throw error
      tell({ path: showSourcePath(local.path), error: toSyncError(error) })
    }
  }
}

const changedMeanwhile = () =>
  new SyncError('changed', 'SOURCE_CHANGED', 'The file changed while it was stored, so it is not in this run', {
    hint: 'The next run stores it as it is then.',
  })

/** Files of the manifest: those in the sources as they are stored now, and those that may only be out of sight as they were. */
function filesOf({ scan, records }: Planned, current: ReadonlyMap<string, SyncRecord>): FileEntry[] {
  const files: FileEntry[] = []
  const add = (record: SyncRecord, isOlder: boolean) => {
    const entry = entryOf(record, isOlder)
    if (entry !== undefined) files.push(entry)
  }
  for (const [key, local] of scan.items) {
    const record = current.get(key)
    if (local.kind !== 'file' || record?.kind !== 'file') continue
    // What this run has not touched is what is known of the file, if it has not changed.
    const isOld = record === records.get(key) && localChange(record, local) !== 'same'
    add(record, isOld)
  }
  if (scan.isIncomplete) {
    for (const [key, record] of records) {
      if (record.kind === 'file' && !scan.items.has(key) && current.get(key) === record) add(record, true)
    }
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1))
}

function entryOf(
  { path, local, remote, seal, sha256, attributes }: SyncRecord,
  isOlder: boolean,
): FileEntry | undefined {
  if (seal === undefined || sha256 === undefined || attributes === undefined) return undefined
  return {
    kind: 'file',
    path,
    ...attributes,
    size: remote.size,
    sha256: Buffer.from(sha256, 'base64').toString('hex'),
    node: remote.id,
    seal,
    ...(isOlder ? { isOlder: true } : {}),
    ...(local.size === GROWING.size ? { isInconsistent: true } : {}),
  }
}
