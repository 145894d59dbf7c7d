/**
 * What is remembered of one synchronized pair of a local and a remote directory: a record per place, and the history of runs.
 * Two logs with checksums in a directory per account, local root and remote path; they are read at the start, added to while a
 * run goes on, and written anew when most of them is out of date.
 *
 * Losing it costs comparisons, never files: without records nothing is deleted and nothing is replaced.
 * @module
 */
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { localError, systemCode, toSyncError } from '../errors.ts'
import { type AppendLog, openAppendLog } from '../local/append-log.ts'
import { readPrivateFile, writePrivateFile } from '../local/atomic-file.ts'
import { sameNameKey } from '../local/names.ts'
import type { Listed } from './known-tree.ts'
import type { RemoteIdentity, SyncRecord } from './records.ts'

/** What the state is about. */
export interface Pair {
  readonly account: string
  /** Absolute path. */
  readonly local: string
  /** As people write it: `/room/folder`. */
  readonly remote: string
  /** Of uploads and downloads, which remember no places. Local and remote are their sources, joined, and their target. */
  readonly transfer?: { readonly direction: 'upload' | 'download'; readonly sources: readonly string[] }
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

/** A file on this disk as it was before something was done to it. */
export interface LocalMark {
  readonly ino: number
  readonly size: number
  readonly mtimeMs: number
}

/** What a file was made from: a node, and IV and tag of its content. */
export interface Origin {
  readonly node: RemoteIdentity
  readonly seal?: string | undefined
}

/**
 * What a run did at one place, as far as it can be undone. What is done on this disk is written down before, so that a run that
 * was killed is understood by the next one (see recovery.ts); what is done at the server, after.
 */
export type Deed =
  | { readonly do: 'created-remote'; readonly path: string; readonly id: number; readonly isFolder: boolean }
  | { readonly do: 'replaced-remote'; readonly path: string; readonly id: number; readonly oldId: number }
  | { readonly do: 'deleted-remote'; readonly path: string; readonly id: number; readonly isFolder: boolean }
  | { readonly do: 'moved-remote'; readonly path: string; readonly from: string; readonly id: number }
  | { readonly do: 'created-local'; readonly path: string; readonly isDirectory: boolean; readonly origin?: Origin }
  | {
      readonly do: 'replaced-local'
      readonly path: string
      readonly bin: string
      readonly was: LocalMark
      readonly origin: Origin
    }
  | { readonly do: 'deleted-local'; readonly path: string; readonly bin?: string; readonly was: LocalMark }
  /** `via`: the name it has for a moment where a file system takes both names for one. */
  | {
      readonly do: 'moved-local'
      readonly path: string
      readonly from: string
      readonly via?: string
      /** It made way: what is remembered of the place is not about it any more. */
      readonly isAside?: boolean
      readonly was: LocalMark
    }
  | { readonly do: 'linked-local'; readonly path: string; readonly target: string }

export interface SyncState {
  readonly pair: Pair
  readonly roots: Roots | undefined
  /** A listing that found exactly the records, as they were then; none has been removed since. */
  readonly listed: Listed | undefined
  /** False when a record has been put since. */
  readonly isAsListed: boolean
  /** As they were when the state was opened, or rebased. */
  records(): Map<string, SyncRecord>
  /** What was put and removed up to now counts as what was there at the start. */
  rebase(): void
  /** As they are now. */
  current(): ReadonlyMap<string, SyncRecord>
  put(key: string, record: SyncRecord): void
  remove(key: string): void
  /** Contents that newer ones have taken the place of, by IV and tag: the key of the place where each was. */
  superseded(): ReadonlyMap<string, string>
  /** Somebody has brought older contents of these places back on purpose. */
  readmit(keys: Iterable<string>): void
  /** Those of which nothing was remembered since. */
  readmitted(): ReadonlySet<string>
  setRoots(roots: Roots): void
  setListed(listed: Listed): void
  /** True while modes and exact times are being set: they may be ahead of what is remembered. */
  readonly isSettingAttributes: boolean
  setAttributesBegun(isBegun: boolean): void
  readonly manifest: ManifestPin | undefined
  setManifest(manifest: ManifestPin | undefined): void
  beginRun(run: Omit<RunRecord, 'id'>): string
  endRun(id: string, end: Omit<RunRecord, 'id' | 'command' | 'startedAt'>): void
  runs(): RunRecord[]
  /** @returns its number among those of the run. */
  addDeed(runId: string, deed: Deed): number
  /** A deed that has been taken back, or never came to be. */
  dropDeed(runId: string, number: number): void
  /** In order; without those that were dropped. */
  deeds(runId: string): { readonly number: number; readonly deed: Deed }[]
  /** Resolves when everything up to now is durable. */
  flush(): Promise<void>
  /** Tidies up and closes. */
  close(): Promise<void>
}

/** Directory of the state of one pair. */
export function stateDirectory(directory: string, pair: Pair): string {
  const id = createHash('sha256').update(partsOf(pair).join('\0')).digest('hex')
  return `${directory}/${id.slice(0, 32)}`
}

/** What makes a pair another one. */
const partsOf = ({ account, local, remote, transfer }: Pair): string[] =>
  transfer === undefined ? [account, local, remote] : [account, transfer.direction, local, remote, ...transfer.sources]

/** Says what a directory of state is about. */
const PAIR_FILE = 'pair.json'

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw localError(error, `look at ${directory}`)
  }
}

/**
 * All pairs that there is state of, for one account.
 *
 * @throws {SyncError} class `local_io`.
 */
export async function listPairs(directory: string, account: string): Promise<Pair[]> {
  const pairs: Pair[] = []
  for (const name of namesIn(directory)) {
    const pair = await readPair(join(directory, name))
    if (pair?.account === account) pairs.push(pair)
  }
  return pairs
}

/** What a directory of state is about; `undefined` for other directories. */
export async function readPair(directory: string): Promise<Pair | undefined> {
  const content = await readPrivateFile(join(directory, PAIR_FILE)).catch((error) => {
    // No pair, rather than one that the disk does not give.
    if (toSyncError(error).class !== 'local_io' || toSyncError(error).code === 'LOCAL_ENOTDIR') return undefined
    throw error
  })
  if (content === undefined) return undefined
  try {
    const { account, local, remote, transfer } = JSON.parse(Buffer.from(content).toString('utf8'))
    if (typeof account !== 'string' || typeof local !== 'string' || typeof remote !== 'string') return undefined
    return { account, local, remote, ...(isTransfer(transfer) ? { transfer } : {}) }
  } catch {
    return undefined // not one of ours, or damaged: its logs say what they are about by themselves
  }
}

const isTransfer = (value: unknown): value is NonNullable<Pair['transfer']> => {
  const { direction, sources } = (value ?? {}) as Partial<NonNullable<Pair['transfer']>>
  const isKnown = direction === 'upload' || direction === 'download'
  return isKnown && Array.isArray(sources) && sources.every((one) => typeof one === 'string')
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

/** Contents that are remembered after newer ones have taken their places. */
const KEPT_SUPERSEDED = 100_000

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
  /** Seals and keys; in a log that was written anew. */
  readonly superseded?: readonly (readonly [seal: string, key: string])[]
  /** What was there last, of places that are gone: keys and seals. */
  readonly gone?: readonly (readonly [key: string, seal: string])[]
  readonly readmit?: readonly string[]
  readonly settingAttributes?: boolean
  /** Found what the lines before this one say. */
  readonly listed?: Listed
  readonly manifest?: ManifestPin | null
}

/** One line of the log of runs. */
interface RunLine {
  readonly run?: RunRecord
  readonly deed?: Deed
  /** Number of a deed that does not count any more. */
  readonly dropped?: number
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
  const scope = JSON.stringify(partsOf(pair))
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
  const past = createPast()
  let isSettingAttributes = false
  const acceptRecords = (lines: Iterable<unknown>): boolean => {
    for (const line of lines as Iterable<RecordLine>) {
      const { put = [], drop, roots: one, listed: seen, manifest: pin } = line
      past.load(line)
      lineCount++
      if (put.length > 0) isAsListed = false
      if (drop !== undefined) listed = undefined
      for (const packed of put) {
        const record = unpack(packed)
        if (record === undefined) {
          found.clear()
          past.clear()
          roots = listed = manifest = undefined
          return false
        }
        const key = sameNameKey(record.path)
        const before = found.get(key)
        if (before !== undefined) stale++
        past.put(key, before, record)
        found.set(key, record)
      }
      if (drop !== undefined) {
        past.drop(drop, found.get(drop))
        found.delete(drop)
        stale += 2
      }
      if (one !== undefined) roots = one
      if (line.settingAttributes !== undefined) isSettingAttributes = line.settingAttributes
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
  const deeds = new Map<string, (Deed | undefined)[]>()
  const deedsOf = (runId: string): (Deed | undefined)[] => {
    let list = deeds.get(runId)
    if (list === undefined) {
      list = []
      deeds.set(runId, list)
    }
    return list
  }
  const acceptRuns = (lines: Iterable<unknown>): boolean => {
    for (const { run, deed, dropped, of } of lines as Iterable<RunLine>) {
      if (run !== undefined) runs.set(run.id, run)
      if (of !== undefined && deed !== undefined) deedsOf(of).push(deed)
      if (of !== undefined && dropped !== undefined) deedsOf(of)[dropped] = undefined
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
  /** With what is added and removed from here on; `base` stays as it was. Most runs change nothing. */
  let base = found
  let live = base
  const change = () => {
    if (live === base) live = new Map(base)
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
    yield* past.lines()
    if (isSettingAttributes) yield { settingAttributes: true }
    if (listed !== undefined && isAsListed) yield { listed }
  }
  function* runLines(): Generator<RunLine> {
    for (const run of [...runs.values()].slice(-KEPT_RUNS)) {
      yield { run }
      for (const deed of deeds.get(run.id) ?? []) if (deed !== undefined) yield { of: run.id, deed }
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
    records: () => base,
    rebase() {
      base = live
    },
    current: () => live,
    put(key, record) {
      const now = change()
      const before = now.get(key)
      if (before !== undefined) stale++
      past.put(key, before, record)
      now.set(key, record)
      waiting.push(pack(record))
      if (waiting.length >= RECORDS_PER_LINE) writeWaiting()
      else if (waiting.length === 1) queueMicrotask(writeSoon)
    },
    remove(key) {
      if (!live.has(key)) return
      past.drop(key, live.get(key))
      change().delete(key)
      listed = undefined
      stale += 2
      write(records, { drop: key })
    },
    superseded: () => past.superseded,
    readmit(keys) {
      const all = [...keys]
      if (all.length === 0) return
      past.readmit(all)
      write(records, { readmit: all })
    },
    readmitted: () => past.readmitted,
    setRoots(next) {
      roots = next
      write(records, { roots: next })
    },
    setListed(next) {
      listed = next
      isAsListed = true
      write(records, { listed: next })
    },
    get isSettingAttributes() {
      return isSettingAttributes
    },
    setAttributesBegun(isBegun) {
      if (isSettingAttributes === isBegun) return
      isSettingAttributes = isBegun
      write(records, { settingAttributes: isBegun })
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
      write(history, { of: runId, deed })
      return deedsOf(runId).push(deed) - 1
    },
    dropDeed(runId, number) {
      write(history, { of: runId, dropped: number })
      deedsOf(runId)[number] = undefined
    },
    deeds: (runId) =>
      (deeds.get(runId) ?? []).flatMap((deed, number) => (deed === undefined ? [] : [{ number, deed }])),
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

/** Which contents were where before: a server that shows one of them again has gone back to it, or swaps files. */
function createPast() {
  const superseded = new Map<string, string>()
  /** Last contents of places that have no record. */
  const gone = new Map<string, string>()
  const readmitted = new Set<string>()
  const add = (map: Map<string, string>, name: string, value: string) => {
    // The oldest goes first.
    map.delete(name)
    map.set(name, value)
    if (map.size > KEPT_SUPERSEDED) for (const [oldest] of map) return void map.delete(oldest)
  }
  return {
    superseded: superseded as ReadonlyMap<string, string>,
    readmitted: readmitted as ReadonlySet<string>,
    put(key: string, before: SyncRecord | undefined, { seal }: SyncRecord): void {
      // Nearly always there is nothing in them, and this is done for each of a million records.
      const last = before?.seal ?? (gone.size > 0 ? gone.get(key) : undefined)
      if (last !== undefined && last !== seal) add(superseded, last, key)
      if (gone.size > 0) gone.delete(key)
      if (readmitted.size > 0) readmitted.delete(key)
      if (superseded.size > 0 && seal !== undefined) superseded.delete(seal)
    },
    drop(key: string, before: SyncRecord | undefined): void {
      if (before?.seal !== undefined) add(gone, key, before.seal)
    },
    readmit(keys: readonly string[]): void {
      for (const key of keys) {
        gone.delete(key)
        readmitted.add(key)
      }
      for (const [seal, key] of superseded) if (readmitted.has(key)) superseded.delete(seal)
    },
    clear(): void {
      superseded.clear()
      gone.clear()
      readmitted.clear()
    },
    load(line: RecordLine): void {
      for (const [seal, key] of line.superseded ?? []) add(superseded, seal, key)
      for (const [key, seal] of line.gone ?? []) add(gone, key, seal)
      if (line.readmit !== undefined) this.readmit(line.readmit)
    },
    *lines(): Generator<RecordLine> {
      for (let all = [...superseded]; all.length > 0; ) yield { superseded: all.splice(0, RECORDS_PER_LINE) }
      for (let all = [...gone]; all.length > 0; ) yield { gone: all.splice(0, RECORDS_PER_LINE) }
      if (readmitted.size > 0) yield { readmit: [...readmitted] }
    },
  }
}
