/**
 * What is remembered of one synchronized pair of a local and a remote directory: a record per place, and the history of runs.
 * Two logs with checksums in a directory per account, local root and remote path; they are read at the start, added to while a
 * run goes on, and written anew when most of them is out of date.
 *
 * Losing it costs comparisons, never files: without records nothing is deleted and nothing is replaced.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type AppendLog, openAppendLog } from '../local/append-log.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { sameNameKey } from '../local/names.ts'
import type { Listed } from './known-tree.ts'
import type { SyncRecord } from './records.ts'

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

/** The manifest of the remote root that was stored, or believed, last; see tree-manifest.ts. */
export interface ManifestPin {
  /** Room or folder that it is in. */
  readonly rootId: number
  readonly node: number
  readonly size: number
  readonly sequence: number
  /** IV and tag, base64. */
  readonly seal: string
  /** Of its text, and of those of the manifests before, newest first; hex. */
  readonly sha256: string
  readonly previous: readonly string[]
  /** Of what it was made from; absent when it was not made here. */
  readonly made?: string
}

/** One run, for `sync runs`, `retry` and `undo`. Times are milliseconds since the epoch. */
export interface RunRecord {
  readonly id: string
  readonly command: string
  /** What it was told, as far as another run needs it to do the same. */
  readonly options?: Readonly<Record<string, unknown>>
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
  | { readonly do: 'linked-local'; readonly path: string; readonly target: string }

export interface SyncState {
  readonly pair: Pair
  readonly roots: Roots | undefined
  /** A listing that found exactly the records, as they were then; none has been removed since. */
  readonly listed: Listed | undefined
  /** False when a record has been put since. */
  readonly isAsListed: boolean
  /** As they were when the state was opened. */
  records(): Map<string, SyncRecord>
  /** As they are now. */
  current(): ReadonlyMap<string, SyncRecord>
  put(key: string, record: SyncRecord): void
  remove(key: string): void
  setRoots(roots: Roots): void
  setListed(listed: Listed): void
  readonly manifest: ManifestPin | undefined
  setManifest(manifest: ManifestPin | undefined): void
  beginRun(run: Omit<RunRecord, 'id'>): string
  endRun(id: string, end: Omit<RunRecord, 'id' | 'command' | 'startedAt'>): void
  runs(): RunRecord[]
  addDeed(runId: string, deed: Deed): void
  deeds(runId: string): Deed[]
  /** Resolves when everything up to now is durable. */
  flush(): Promise<void>
  /** Tidies up and closes. */
  close(): Promise<void>
}

/** Says what a directory of state is about. */
const PAIR_FILE = 'pair.json'

/** All pairs that there is state of, for one account. */
export async function listPairs(directory: string, account: string): Promise<Pair[]> {
  const pairs: Pair[] = []
  for (const name of existsSync(directory) ? readdirSync(directory).sort() : []) {
    const content = await readPrivateFile(join(directory, name, PAIR_FILE)).catch(() => undefined)
    if (content === undefined) continue
    try {
      const { account: whose, local, remote } = JSON.parse(Buffer.from(content).toString('utf8'))
      if (whose === account && typeof local === 'string' && typeof remote === 'string')
        pairs.push({ account, local, remote })
    } catch {
      // Not one of ours, or damaged: its logs say what they are about by themselves.
    }
  }
  return pairs
}

/** Runs that are remembered. */
const KEPT_RUNS = 200
/** Records per line of a log that is written anew. */
const RECORDS_PER_LINE = 512
/** A pin is as long as so many records. */
const PIN_RECORDS = 100
/** A log is written anew when it is longer than this and most of it is out of date, or in more lines than a part of its records. */
const WORTH_TIDYING = 1024 * 1024
const LINES_AT_MOST = 1 / 8

/** A record in few bytes. */
type Packed = readonly [
  kind: 0 | 1,
  path: string,
  size: number,
  mtimeMs: number,
  ctimeMs: number,
  ino: number,
  id: number,
  remoteSize: number,
  modified: number,
  seal?: string,
  /** Of files with a seal only. */
  sha256?: string,
]

function pack({ kind, path, local, remote, seal, sha256 }: SyncRecord): Packed {
  const { size, mtimeMs, ctimeMs, ino } = local
  const { id, size: remoteSize, modified } = remote
  const packed = [kind === 'file' ? 0 : 1, path, size, mtimeMs, ctimeMs, ino, id, remoteSize, modified] as const
  if (seal === undefined) return packed
  return sha256 === undefined ? [...packed, seal] : [...packed, seal, sha256]
}

function unpack(packed: Packed): SyncRecord | undefined {
  const [kind, path, size, mtimeMs, ctimeMs, ino, id, remoteSize, modified, seal, sha256] = packed
  const numbers = [size, mtimeMs, ctimeMs, ino, id, remoteSize, modified]
  if (typeof path !== 'string' || path === '' || !numbers.every((one) => typeof one === 'number')) return undefined
  return {
    kind: kind === 0 ? 'file' : 'directory',
    path,
    local: { size, mtimeMs, ctimeMs, ino },
    remote: { id, size: remoteSize, modified },
    ...(seal === undefined ? {} : { seal }),
    ...(sha256 === undefined ? {} : { sha256 }),
  }
}

/** One line of the log of records. */
interface RecordLine {
  readonly put?: readonly Packed[]
  readonly drop?: string
  readonly roots?: Roots
  /** Found what the lines before this one say. */
  readonly listed?: Listed
  readonly manifest?: ManifestPin | null
}

/** One line of the log of runs. */
interface RunLine {
  readonly run?: RunRecord
  readonly deed?: Deed
  /** Run of the deed. */
  readonly of?: string
}

/**
 * Opens the state in a private directory, or begins one.
 *
 * @param onDamaged - Told where what could not be used was put.
 */
export async function openState(
  directory: string,
  pair: Pair,
  now: number,
  onDamaged: (keptAs: string) => void,
): Promise<SyncState> {
  const scope = JSON.stringify([pair.account, pair.local, pair.remote])
  const name = join(directory, PAIR_FILE)
  if (!existsSync(name)) await writePrivateFile(name, `${JSON.stringify(pair)}\n`)
  const found = new Map<string, SyncRecord>()
  let roots: Roots | undefined
  let listed: Listed | undefined
  let isAsListed = false
  let manifest: ManifestPin | undefined
  /** Records in the log that do not count any more. */
  let stale = 0
  let lineCount = 0
  const acceptRecords = (lines: Iterable<unknown>): boolean => {
    for (const line of lines as Iterable<RecordLine>) {
      const { put = [], drop, roots: one, listed: seen, manifest: pin } = line
      lineCount++
      if (put.length > 0) isAsListed = false
      if (drop !== undefined) listed = undefined
      for (const packed of put) {
        const record = unpack(packed)
        if (record === undefined) {
          found.clear()
          roots = listed = manifest = undefined
          return false
        }
        const key = sameNameKey(record.path)
        if (found.has(key)) stale++
        found.set(key, record)
      }
      if (drop !== undefined) {
        found.delete(drop)
        stale += 2
      }
      if (one !== undefined) roots = one
      if (pin !== undefined) {
        if (manifest !== undefined) stale += PIN_RECORDS
        manifest = pin ?? undefined
      }
      if (seen === undefined) continue
      listed = seen
      isAsListed = true
    }
    return true
  }
  const runs = new Map<string, RunRecord>()
  const deeds = new Map<string, Deed[]>()
  const acceptRuns = (lines: Iterable<unknown>): boolean => {
    for (const { run, deed, of } of lines as Iterable<RunLine>) {
      if (run !== undefined) runs.set(run.id, run)
      if (deed === undefined || of === undefined) continue
      const list = deeds.get(of)
      if (list === undefined) deeds.set(of, [deed])
      else list.push(deed)
    }
    return true
  }
  const records = await openAppendLog(join(directory, 'records'), scope, acceptRecords, onDamaged, now)
  let history: AppendLog
  try {
    history = await openAppendLog(join(directory, 'runs'), scope, acceptRuns, onDamaged, now)
  } catch (error) {
    await records.close()
    throw error
  }
  let isWritten = false
  /** With what is added and removed from here on; `found` stays as it was. Most runs change nothing. */
  let live = found
  const change = () => {
    if (live === found) live = new Map(found)
    isAsListed = false
    return live
  }
  /** Put and not written yet: what is put in one go becomes one line. */
  let waiting: Packed[] = []
  let failure: unknown

  const write = (log: AppendLog, line: RecordLine | RunLine) => {
    writeWaiting()
    isWritten = true
    log.append(line)
  }
  function writeWaiting(): void {
    if (failure !== undefined) throw failure
    if (waiting.length === 0) return
    isWritten = true
    lineCount++
    records.append({ put: waiting })
    waiting = []
  }
  function writeSoon(): void {
    try {
      writeWaiting()
    } catch (error) {
      failure = error // for whoever writes next, or waits for it
    }
  }

  function* recordLines(): Generator<RecordLine> {
    if (roots !== undefined) yield { roots }
    if (manifest !== undefined) yield { manifest }
    if (listed !== undefined && !isAsListed) yield { listed }
    let put: Packed[] = []
    for (const record of live.values()) {
      put.push(pack(record))
      if (put.length < RECORDS_PER_LINE) continue
      yield { put }
      put = []
    }
    if (put.length > 0) yield { put }
    if (listed !== undefined && isAsListed) yield { listed }
  }
  function* runLines(): Generator<RunLine> {
    for (const run of [...runs.values()].slice(-KEPT_RUNS)) {
      yield { run }
      for (const deed of deeds.get(run.id) ?? []) yield { of: run.id, deed }
    }
  }

  return {
    pair,
    get roots() {
      return roots
    },
    get listed() {
      return listed
    },
    get isAsListed() {
      return isAsListed
    },
    records: () => found,
    current: () => live,
    put(key, record) {
      const now = change()
      if (now.has(key)) stale++
      now.set(key, record)
      waiting.push(pack(record))
      if (waiting.length >= RECORDS_PER_LINE) writeWaiting()
      else if (waiting.length === 1) queueMicrotask(writeSoon)
    },
    remove(key) {
      if (!live.has(key)) return
      change().delete(key)
      listed = undefined
      stale += 2
      write(records, { drop: key })
    },
    setRoots(next) {
      roots = next
      write(records, { roots: next })
    },
    setListed(next) {
      listed = next
      isAsListed = true
      write(records, { listed: next })
    },
    get manifest() {
      return manifest
    },
    setManifest(next) {
      if (manifest !== undefined) stale += PIN_RECORDS
      manifest = next
      write(records, { manifest: next ?? null })
    },
    beginRun(run) {
      const stamp = new Date(run.startedAt).toISOString().replace(/[-:]|\.\d+/g, '')
      const id = `${stamp}-${randomBytes(3).toString('hex')}`
      const begun = { ...run, id }
      runs.set(id, begun)
      write(history, { run: begun })
      return id
    },
    endRun(id, end) {
      const ended = { ...runs.get(id)!, ...end }
      runs.set(id, ended)
      write(history, { run: ended })
    },
    runs: () => [...runs.values()].reverse(),
    addDeed(runId, deed) {
      const list = deeds.get(runId)
      if (list === undefined) deeds.set(runId, [deed])
      else list.push(deed)
      write(history, { of: runId, deed })
    },
    deeds: (runId) => [...(deeds.get(runId) ?? [])],
    async flush() {
      writeWaiting()
      await records.sync()
      await history.sync()
    },
    async close() {
      writeSoon()
      // Who only reads holds no lock: somebody else may be writing.
      const isUntidy = stale > live.size || lineCount > LINES_AT_MOST * live.size
      if (isWritten && isUntidy && records.size() > WORTH_TIDYING) await records.replace(recordLines())
      else await records.close()
      if (isWritten && runs.size > 2 * KEPT_RUNS) await history.replace(runLines())
      else await history.close()
      if (failure !== undefined) throw failure
    },
  }
}
