/** The end of a run of a set: the manifest that makes it a point in time. @module */
import { lstatSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { writeManifest } from '../manifest.ts'
import type { SyncStep } from '../reconcile.ts'
import { GROWING, localChange, type SyncRecord, sealOf, UNSETTLED } from '../records.ts'
import { compareContent, type RunContext } from '../run.ts'
import type { Done, Running } from '../run-job.ts'
import { type EntryFailure, showPath } from '../tree.ts'
import type { BackupEntry, FileEntry, ManifestHead } from './manifest.ts'
import { beginMemory, openMemory, type SetMemory, writeMemory } from './memory.ts'
import { movesOf } from './plan.ts'
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
  readonly steps: readonly SyncStep[]
}

/** What the end of a run needs to know of it. */
export interface Ending {
  readonly plan: Planned
  readonly store: Store
  /** Id of the new point in time. */
  readonly run: string
  readonly directory: string
  readonly done: Done
  /** Nodes that are gone from the server. */
  readonly lost: ReadonlySet<number>
  tell(failure: EntryFailure): void
}

/** Failures of files that are in the run all the same. */
const STORED = new Set(['CONTENT_DROPPED', 'INCONSISTENT'])

/** Writes the manifest and puts it beside the others; what is remembered of it is the pin of the next run. */
export async function finish(
  { context, state, startedAt, uploader, signal }: Running,
  set: BackupSet,
  { plan, store, run, directory, done, lost, tell }: Ending,
): Promise<{ note: RunNote; memory: SetMemory }> {
  const { scan, runs } = plan
  const told: EntryFailure[] = []
  const tellMore = (failure: EntryFailure) => {
    told.push(failure)
    tell(failure)
  }
  const before = nodesOf(plan.records)
  await completeRecords(context, plan, before, state, tellMore, signal)
  const isTold = new Set([...done.failed, ...told].map(({ path }) => path))
  const { files, missing } = filesOf(plan, state, { before, lost, isTold })
  const entries: BackupEntry[] = [...describe(scan, tellMore), ...files]
  const left: string[] = []
  for (const path of missing) {
    if (isTold.has(path)) continue
    // At a limit it is known that not all is in it.
    if (done.left > 0) left.push(path)
    else tellMore({ path, error: notStored() })
  }
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
    failed: [
      ...failed.map(({ path, error }) => ({ path, code: error.code })),
      ...left.map((path) => ({ path, code: 'LEFT' })),
    ],
  }
  const path = join(directory, 'manifest.json.gz')
  const { sha256, size } = await writeManifest(path, head, entries)
  const known =
    (await openMemory(context, directory)) ??
    beginMemory(set, store.target.id, undefined, runs.notes, store.isWriteOnly)
  if (store.isWriteOnly) {
    const sending = noteOf({ ...head, entries }, { node: 0, sha256, seal: '', size })
    await writeMemory(directory, { ...known, sending })
  }
  const { runs: parent, roomId } = store
  const request = { source: path, shown: shownManifest(run), parentId: parent.id, roomId, name: manifestName(run) }
  const sent = await (uploader as NonNullable<typeof uploader>).send({ ...request, isUntold: true }, signal)
  try {
    rmSync(path, { force: true })
  } catch {
    // The next run writes it anew; this one is done.
  }
  const note = noteOf({ ...head, entries }, { node: sent.node.id, sha256, seal: sealOf(sent.seal!), size })
  const { isWriteOnly } = store
  const { sending: _sent, ...memory } = known
  // Runs that are told to be wrong stay remembered: they are told again until somebody has looked. Where they cannot be read, the others
  // that are not there have been pruned.
  const right = new Set(runs.notes.map((one) => one.run))
  const isProblem = new Set(runs.problems.map((problem) => problem.path))
  const isWrong = ({ run: id }: RunNote) => !right.has(id) && (!isWriteOnly || isProblem.has(shownManifest(id)))
  const wrong = memory.runs.filter(isWrong)
  const all = [...wrong, ...runs.notes, note].sort((a, b) => compareRuns(a.run, b.run))
  return { note, memory: { ...memory, sources: scan.roots, runs: all } }
}

/** Finds out what is not known of contents that an earlier run had sent. */
async function completeRecords(
  context: RunContext,
  { scan }: Planned,
  before: ReadonlySet<number>,
  state: Running['state'],
  tell: (failure: EntryFailure) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const [key, local] of scan.items) {
    const record = state.current().get(key)
    if (local.kind !== 'file' || record?.kind !== 'file' || isWhole(record)) continue
    // What is out of date is told as missing.
    if (before.has(record.remote.id) && localChange(record, local) !== 'same') continue
    const { id, size } = record.remote
    const node: RemoteNode = { id, type: 'file', name: local.path.at(-1)!, size, isEncrypted: true }
    const shown = showSourcePath(local.path)
    try {
      const same = context.keyring.isWriteOnly
        ? undefined
        : await compareContent(context, node, local.source, shown, signal, { isHashed: true })
      const attributes = attributesOf(local)
      if (same === undefined || attributes === undefined) throw changedMeanwhile()
      state.put(key, { ...record, ...same, attributes })
    } catch (error) {
      if (signal.aborted) throw error
      // The next run looks at it again.
      state.put(key, { ...record, local: UNSETTLED })
      tell({ path: shown, error: toSyncError(error) })
    }
  }
}

const changedMeanwhile = () =>
  new SyncError('changed', 'SOURCE_CHANGED', 'The file changed while it was stored, so it is not in this run', {
    hint: 'The next run stores it as it is then.',
  })

const notStored = () =>
  new SyncError('changed', 'NOT_STORED', 'It is not in this run', {
    hint: 'Run again. If that does not help, tell us.',
  })

const nodesOf = (records: ReadonlyMap<string, SyncRecord>): Set<number> => {
  const nodes = new Set<number>()
  for (const { kind, remote } of records.values()) if (kind === 'file') nodes.add(remote.id)
  return nodes
}

/**
 * Files of the manifest: those in the sources as they are stored now, and those that may only be out of sight as they were.
 *
 * @returns with `missing` the paths of those in the sources that are not stored.
 */
function filesOf(
  { scan, records, steps }: Planned,
  state: Running['state'],
  {
    before,
    lost,
    isTold,
  }: {
    /** Nodes that were known before the run, and those that are gone from the server. */
    readonly before: ReadonlySet<number>
    readonly lost: ReadonlySet<number>
    /** Paths of what has failed. */
    readonly isTold: ReadonlySet<string>
  },
): { readonly files: FileEntry[]; readonly missing: readonly string[] } {
  const current = state.current()
  const moves = movesOf(steps)
  const files: FileEntry[] = []
  const missing: string[] = []
  const gone: string[] = []
  for (const [key, local] of scan.items) {
    if (local.kind !== 'file') continue
    const from = moves.from(key)
    // Where a move has failed, it is still where it was.
    const record = current.get(key) ?? (from === undefined ? undefined : current.get(from))
    const isThere = record?.kind === 'file' && !lost.has(record.remote.id)
    const shown = showSourcePath(local.path)
    const change = isThere && before.has(record.remote.id) ? localChange(record, local) : 'same'
    // What was touched, and then could not be read, may be anything.
    const isOld = change === 'changed' || (change === 'touched' && isTold.has(shown))
    const entry = isThere ? entryOf({ ...record, path: showPath(local.path) }, isOld) : undefined
    if (entry !== undefined && !isOld) files.push(entry)
    // Gone since it was listed, as if it had gone before.
    else if (isGone(local.source)) gone.push(key)
    else if (entry !== undefined) files.push(entry)
    else missing.push(shown)
  }
  for (const key of gone) state.remove(key)
  if (scan.isIncomplete) {
    for (const [key, record] of records) {
      const entry = scan.items.has(key) || current.get(key) !== record ? undefined : entryOf(record, true)
      if (entry !== undefined) files.push(entry)
    }
  }
  return { files: files.sort((a, b) => (a.path < b.path ? -1 : 1)), missing }
}

function isGone(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) === undefined
  } catch {
    return false // it cannot be looked at, which is told by who wanted to read it
  }
}

/** All is known that a manifest says of a file. */
const isWhole = ({ seal, sha256, mac, attributes }: SyncRecord): boolean =>
  seal !== undefined && (sha256 ?? mac) !== undefined && attributes !== undefined

/** In hexadecimal digits, as manifests have them. */
const digestOf = ({ sha256, mac }: SyncRecord) => {
  const hex = (base64: string) => Buffer.from(base64, 'base64').toString('hex')
  if (mac !== undefined) return { mac: hex(mac) }
  return sha256 === undefined ? undefined : { sha256: hex(sha256) }
}

function entryOf(record: SyncRecord, isOlder: boolean): FileEntry | undefined {
  const { kind, path, local, remote, seal, attributes } = record
  const digest = digestOf(record)
  if (kind !== 'file' || seal === undefined || digest === undefined || attributes === undefined) return undefined
  return {
    kind: 'file',
    path,
    ...attributes,
    size: remote.size,
    ...digest,
    node: remote.id,
    seal,
    ...(isOlder ? { isOlder: true } : {}),
    ...(local.size === GROWING.size ? { isInconsistent: true } : {}),
  }
}
