/** The log of records, and what is known of a pair besides: its roots, its last listing, its manifest. @module */
import { type AppendLog, type LogEnd, openAppendLog, reopenAppendLog } from '../../local/append-log.ts'
import { sameNameKey } from '../../local/names.ts'
import type { Listed } from '../known-tree.ts'
import type { SyncRecord } from '../records.ts'
import { createPast, type PastLine } from './past-contents.ts'

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

/** What is remembered of places; see `SyncState`. */
export interface RecordMemory {
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
  setRoots(roots: Roots | undefined): void
  setListed(listed: Listed): void
  /** True while modes and exact times are being set: they may be ahead of what is remembered. */
  readonly isSettingAttributes: boolean
  setAttributesBegun(isBegun: boolean): void
  readonly manifest: ManifestPin | undefined
  setManifest(manifest: ManifestPin | undefined): void
}

/** Records per line. */
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
  /** Of files with a seal only; a MAC begins with `~`. */
  digest?: string,
  /** Of those with a digest only. */
  attributes?: readonly [mode: number, uid: number, gid: number, mtimeNs: string],
]

function pack({ kind, path, local, remote, seal, sha256, mac, attributes }: SyncRecord): Packed {
  const { size, mtimeMs, ctimeMs, ino } = local
  const { id, size: remoteSize, modified } = remote
  const packed = [kind === 'file' ? 0 : 1, path, size, mtimeMs, ctimeMs, ino, id, remoteSize, modified] as const
  if (seal === undefined) return packed
  const digest = mac === undefined ? sha256 : `~${mac}`
  if (digest === undefined) return [...packed, seal]
  if (attributes === undefined) return [...packed, seal, digest]
  const { mode, uid, gid, mtimeNs } = attributes
  return [...packed, seal, digest, [mode, uid, gid, mtimeNs]]
}

function unpack(packed: Packed): SyncRecord | undefined {
  const [kind, path, size, mtimeMs, ctimeMs, ino, id, remoteSize, modified, seal, digest, attributes] = packed
  const numbers = [size, mtimeMs, ctimeMs, ino, id, remoteSize, modified]
  if (typeof path !== 'string' || path === '' || !numbers.every((one) => typeof one === 'number')) return undefined
  return {
    kind: kind === 0 ? 'file' : 'directory',
    path,
    local: { size, mtimeMs, ctimeMs, ino },
    remote: { id, size: remoteSize, modified },
    ...(seal === undefined ? {} : { seal }),
    ...(digest === undefined ? {} : digest.startsWith('~') ? { mac: digest.slice(1) } : { sha256: digest }),
    ...(attributes === undefined ? {} : { attributes: attributesOf(attributes) }),
  }
}

const attributesOf = ([mode, uid, gid, mtimeNs]: NonNullable<Packed[11]>) => ({ mode, uid, gid, mtimeNs })

/** One line of the log of records. */
interface RecordLine extends PastLine {
  readonly put?: readonly Packed[]
  readonly drop?: string
  readonly roots?: Roots | null
  readonly settingAttributes?: boolean
  /** Found what the lines before this one say. */
  readonly listed?: Listed
  readonly manifest?: ManifestPin | null
}

/** What the lines of a log say, one after the other. */
function createContent() {
  const past = createPast()
  const content = {
    past,
    /** With what is added and removed from here on; `base` stays as it was. Most runs change nothing. */
    base: new Map<string, SyncRecord>(),
    live: new Map<string, SyncRecord>(),
    roots: undefined as Roots | undefined,
    listed: undefined as Listed | undefined,
    isAsListed: false,
    manifest: undefined as ManifestPin | undefined,
    isSettingAttributes: false,
    /** Records in the log that do not count any more. */
    stale: 0,
    lineCount: 0,
    /** @returns false when a line makes no sense; then nothing is known. */
    accept(lines: Iterable<unknown>): boolean {
      for (const line of lines as Iterable<RecordLine>) {
        if (acceptLine(line)) continue
        content.base.clear()
        past.clear()
        content.roots = content.listed = content.manifest = undefined
        return false
      }
      return true
    },
    pin(next: ManifestPin | undefined): void {
      if (content.manifest !== undefined) content.stale += PIN_RECORDS
      content.manifest = next
    },
    *lines(): Generator<RecordLine> {
      const { roots, manifest, listed, isAsListed } = content
      if (roots !== undefined) yield { roots }
      if (manifest !== undefined) yield { manifest }
      if (listed !== undefined && !isAsListed) yield { listed }
      let put: Packed[] = []
      for (const record of content.live.values()) {
        put.push(pack(record))
        if (put.length < RECORDS_PER_LINE) continue
        yield { put }
        put = []
      }
      if (put.length > 0) yield { put }
      yield* past.lines()
      if (content.isSettingAttributes) yield { settingAttributes: true }
      if (listed !== undefined && isAsListed) yield { listed }
    },
    isUntidy: (): boolean => content.stale > content.live.size || content.lineCount > LINES_AT_MOST * content.live.size,
  }
  content.live = content.base
  return content

  function acceptLine(line: RecordLine): boolean {
    const { put = [], drop, roots, listed, manifest, settingAttributes } = line
    past.load(line)
    content.lineCount++
    if (put.length > 0) content.isAsListed = false
    if (drop !== undefined) content.listed = undefined
    for (const packed of put) {
      const record = unpack(packed)
      if (record === undefined) return false
      const key = sameNameKey(record.path)
      const before = content.base.get(key)
      if (before !== undefined) content.stale++
      past.put(key, before, record)
      content.base.set(key, record)
    }
    if (drop !== undefined) {
      past.drop(drop, content.base.get(drop))
      content.base.delete(drop)
      content.stale += 2
    }
    if (roots !== undefined) content.roots = roots ?? undefined
    if (settingAttributes !== undefined) content.isSettingAttributes = settingAttributes
    if (manifest !== undefined) content.pin(manifest ?? undefined)
    if (listed !== undefined) {
      content.listed = listed
      content.isAsListed = true
    }
    return true
  }
}

export interface RecordLog {
  readonly memory: RecordMemory
  readonly isWritten: boolean
  /** Puts on the disk what was put in one go; throws what went wrong with that before. */
  settle(): void
  /** Resolves when everything up to now is durable. */
  sync(): Promise<void>
  /** @param mayTidy - The log may be written anew; who only reads holds no lock, and somebody else may be writing. */
  close(mayTidy: boolean): Promise<void>
}

/** What logs said when they were closed, by their paths: to read a long one takes long. */
export type ReadLogs = Map<string, { readonly content: ReturnType<typeof createContent>; readonly end: LogEnd }>

/**
 * @param onDamaged - Told where a log that could not be used was put.
 * @param known - Logs that are not read again as long as they are as they were left; this one will be among them.
 */
export async function openRecordLog(
  path: string,
  scope: string,
  onDamaged: (keptAs: string) => void,
  now: number,
  known?: ReadLogs,
): Promise<RecordLog> {
  const before = known?.get(path)
  known?.delete(path)
  const again = before && reopenAppendLog(path, scope, before.end)
  const content = again === undefined ? createContent() : before!.content
  const log: AppendLog = again ?? (await openAppendLog(path, scope, content.accept, onDamaged, now))
  const { past } = content
  let isWritten = false
  /** Put and not written yet: what is put in one go becomes one line. */
  let waiting: Packed[] = []
  let failure: unknown

  function settle(): void {
    if (failure !== undefined) throw failure
    if (waiting.length === 0) return
    isWritten = true
    content.lineCount++
    log.append({ put: waiting })
    waiting = []
  }
  function settleSoon(): void {
    try {
      settle()
    } catch (error) {
      failure = error // for whoever writes next, or waits for it
    }
  }
  function write(line: RecordLine): void {
    settle()
    isWritten = true
    log.append(line)
  }
  function change(): Map<string, SyncRecord> {
    if (content.live === content.base) content.live = new Map(content.base)
    content.isAsListed = false
    return content.live
  }
  const memory: RecordMemory = {
    get roots() {
      return content.roots
    },
    get listed() {
      return content.listed
    },
    get isAsListed() {
      return content.isAsListed
    },
    get isSettingAttributes() {
      return content.isSettingAttributes
    },
    get manifest() {
      return content.manifest
    },
    records: () => content.base,
    rebase() {
      content.base = content.live
    },
    current: () => content.live,
    put(key, record) {
      const live = change()
      const before = live.get(key)
      if (before !== undefined) content.stale++
      past.put(key, before, record)
      live.set(key, record)
      waiting.push(pack(record))
      if (waiting.length >= RECORDS_PER_LINE) settle()
      else if (waiting.length === 1) queueMicrotask(settleSoon)
    },
    remove(key) {
      if (!content.live.has(key)) return
      past.drop(key, content.live.get(key))
      change().delete(key)
      content.listed = undefined
      content.stale += 2
      write({ drop: key })
    },
    superseded: () => past.superseded,
    readmit(keys) {
      const all = [...keys]
      if (all.length === 0) return
      past.readmit(all)
      write({ readmit: all })
    },
    readmitted: () => past.readmitted,
    setRoots(roots) {
      content.roots = roots
      write({ roots: roots ?? null })
    },
    setListed(listed) {
      content.listed = listed
      content.isAsListed = true
      write({ listed })
    },
    setAttributesBegun(isBegun) {
      if (content.isSettingAttributes === isBegun) return
      content.isSettingAttributes = isBegun
      write({ settingAttributes: isBegun })
    },
    setManifest(manifest) {
      content.pin(manifest)
      write({ manifest: manifest ?? null })
    },
  }
  return {
    memory,
    get isWritten() {
      return isWritten || waiting.length > 0
    },
    settle,
    sync: () => log.sync(),
    async close(mayTidy) {
      settleSoon()
      if (mayTidy && content.isUntidy() && log.size() > WORTH_TIDYING) return log.replace(content.lines())
      await log.close()
      const end = failure === undefined && known !== undefined ? log.end() : undefined
      content.base = content.live
      if (end !== undefined) known!.set(path, { content, end })
    },
  }
}
