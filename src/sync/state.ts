/**
 * What is remembered of one synchronized pair of a local and a remote directory: a record per place, the listing of remote
 * folders that have not changed since, and the history of runs. One LMDB environment per account, local root and remote path;
 * every change is a transaction, so a crash leaves the last one.
 *
 * Losing it costs comparisons, never files: without records nothing is deleted and nothing is replaced.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { type Database, open, type RootDatabase } from 'lmdb'
import { localError, toSyncError } from '../errors.ts'
import { makePrivateDirectory } from '../local/atomic-file.ts'
import type { SyncRecord } from './records.ts'
import { keyOf } from './scan.ts'

/** What the state is about. */
export interface Pair {
  readonly account: string
  /** Absolute path. */
  readonly local: string
  /** As people write it: `/room/folder`. */
  readonly remote: string
}

/** Both roots as they were at the last run. */
export interface Roots {
  readonly dev: number
  readonly ino: number
  readonly remoteId: number
  readonly isEncrypted: boolean
  /** A run has come to its end since: what is not in the records is unknown, not just not seen yet. */
  readonly isSettled: boolean
}

/** One run, for `sync runs`, `retry` and `undo`. Times are milliseconds since the epoch. */
export interface RunRecord {
  readonly id: string
  readonly command: string
  readonly startedAt: number
  readonly endedAt?: number
  /** Absent: running, or killed. */
  readonly outcome?: 'done' | 'partial' | 'conflicts' | 'stopped'
  /** What stopped it. */
  readonly error?: { readonly code: string; readonly message: string }
  readonly counts?: Readonly<Record<string, number>>
  readonly failed?: readonly { readonly path: string; readonly code: string; readonly message: string }[]
}

/** What a run did at one place, as far as it can be undone. */
export type Deed =
  | { readonly do: 'created-remote'; readonly path: string; readonly id: number; readonly isFolder: boolean }
  | { readonly do: 'replaced-remote'; readonly path: string; readonly id: number; readonly oldId: number }
  | { readonly do: 'deleted-remote'; readonly path: string; readonly id: number; readonly isFolder: boolean }
  | { readonly do: 'moved-remote'; readonly path: string; readonly from: string; readonly id: number }
  | { readonly do: 'created-local'; readonly path: string; readonly isDirectory: boolean }
  | { readonly do: 'replaced-local'; readonly path: string; readonly bin: string }
  | { readonly do: 'deleted-local'; readonly path: string; readonly bin?: string }
  | { readonly do: 'moved-local'; readonly path: string; readonly from: string }

export interface SyncState {
  readonly pair: Pair
  readonly roots: Roots | undefined
  /** As they were when the state was opened. */
  records(): Map<string, SyncRecord>
  put(key: string, record: SyncRecord): void
  remove(key: string): void
  setRoots(roots: Roots): void
  beginRun(run: Omit<RunRecord, 'id'>): string
  endRun(id: string, end: Omit<RunRecord, 'id' | 'command' | 'startedAt'>): void
  runs(): RunRecord[]
  addDeed(runId: string, deed: Deed): void
  deeds(runId: string): Deed[]
  /** Resolves when everything up to now is durable. */
  flush(): Promise<void>
  close(): Promise<void>
}

const VERSION = 1
/** Runs that are remembered. */
const KEPT_RUNS = 200

type Meta = { readonly version: number; readonly pair: Pair; readonly roots?: Roots }

/**
 * Opens the state in a private directory, or begins one.
 *
 * @param onDamaged - Told where a state that could not be used was put.
 */
export async function openState(
  directory: string,
  pair: Pair,
  now: number,
  onDamaged: (keptAs: string) => void,
): Promise<SyncState> {
  await makePrivateDirectory(directory)
  const path = join(directory, 'state.mdb')
  try {
    return await load(path, pair)
  } catch (error) {
    if (!(error instanceof Damaged) || !existsSync(path)) throw localError(error, `open the state ${path}`)
    const keptAs = `${path}.corrupt-${now}`
    renameSync(path, keptAs)
    onDamaged(keptAs)
    return load(path, pair)
  }
}

class Damaged extends Error {}

/** Keys of the store have a limit that paths have not. */
const storedKey = (key: string): string =>
  key.length < 600 ? key : `\u0001${createHash('sha256').update(key).digest('base64url')}`

function readRecords(table: Database<SyncRecord, string>): Map<string, SyncRecord> {
  const found = new Map<string, SyncRecord>()
  for (const { value } of table.getRange({})) {
    const isWhole =
      typeof value?.path === 'string' && Number.isSafeInteger(value.remote?.id) && Number.isFinite(value.local?.size)
    if (!isWhole) throw new Damaged('a record makes no sense')
    found.set(keyOf(value.path.split('/')), value)
  }
  return found
}

async function load(path: string, pair: Pair): Promise<SyncState> {
  let root: RootDatabase | undefined
  try {
    root = open({ path, maxDbs: 8, noSubdir: true })
    chmodSync(path, 0o600)
    return await createState(root, pair)
  } catch (error) {
    await root?.close().catch(() => {})
    const { class: kind } = toSyncError(localError(error, 'open'))
    // The disk's own troubles are no damage.
    if (kind === 'local_io') throw error
    throw new Damaged('the state cannot be read', { cause: error })
  }
}

async function createState(root: RootDatabase, pair: Pair): Promise<SyncState> {
  const metaTable: Database<Meta, string> = root.openDB({ name: 'meta' })
  const records: Database<SyncRecord, string> = root.openDB({
    name: 'records',
    sharedStructuresKey: Symbol.for('shape'),
  })
  const runs: Database<RunRecord, string> = root.openDB({ name: 'runs' })
  const deeds: Database<Deed, [string, number]> = root.openDB({ name: 'deeds' })
  let meta: Meta = metaTable.get('meta') ?? { version: VERSION, pair }
  if (meta.version !== VERSION || typeof meta.pair?.local !== 'string') throw new Damaged('of another version')
  const found = readRecords(records)
  let writes: Promise<unknown> = Promise.resolve()
  let failure: unknown
  const track = (done: Promise<unknown>) => {
    writes = done
    done.catch((error) => {
      failure ??= error
    })
  }
  const setMeta = (more: Partial<Meta>) => {
    meta = { ...meta, ...more }
    track(metaTable.put('meta', meta))
  }
  let deedCount = 0
  return {
    pair,
    get roots() {
      return meta.roots
    },
    records: () => found,
    put: (key, record) => track(records.put(storedKey(key), record)),
    remove: (key) => track(records.remove(storedKey(key))),
    setRoots: (roots) => setMeta({ roots }),
    beginRun(run) {
      const stamp = new Date(run.startedAt).toISOString().replace(/[-:]|\.\d+/g, '')
      const id = `${stamp}-${randomBytes(3).toString('hex')}`
      track(runs.put(id, { ...run, id }))
      const old = [...runs.getKeys({ reverse: true, offset: KEPT_RUNS })]
      for (const one of old) {
        track(runs.remove(one))
        for (const key of [...deeds.getKeys({ start: [one, 0], end: [one, Number.MAX_SAFE_INTEGER] })])
          track(deeds.remove(key))
      }
      return id
    },
    endRun(id, end) {
      const run = runs.get(id)
      if (run !== undefined) track(runs.put(id, { ...run, ...end }))
    },
    runs: () => [...runs.getRange({ reverse: true })].map(({ value }) => value),
    addDeed: (runId, deed) => track(deeds.put([runId, deedCount++], deed)),
    deeds: (runId) =>
      [...deeds.getRange({ start: [runId, 0], end: [runId, Number.MAX_SAFE_INTEGER] })].map(({ value }) => value),
    async flush() {
      await writes.catch(() => {})
      await root.flushed
      if (failure !== undefined) throw localError(failure, 'write the state')
    },
    async close() {
      await writes.catch(() => {})
      await root.close()
    },
  }
}
