/** The sources of a set as they are now, under their paths below the root of the machine. Contents are not read here. @module */
import { type BigIntStats, lstatSync, readlinkSync, type Stats, statSync } from 'node:fs'
import { localError, type SyncError, systemCode, toSyncError } from '../../errors.ts'
import type { Names } from '../../local/names.ts'
import type { Attributes } from '../records.ts'
import { createBlocked, identifyRoot, keyOf, takeIn } from '../scan.ts'
import { createSelection } from '../select.ts'
import { type EntryFailure, type LocalEntry, showPath, walk } from '../tree.ts'
import type { DirectoryEntry, LinkEntry } from './manifest.ts'
import type { SourceRoot } from './memory.ts'
import { type BackupSet, componentsOf, showSourcePath } from './set.ts'

/** What was found in the sources. */
export interface SourceScan {
  /** By key of place: what is in the sources, and the directories that lead to them. */
  readonly items: Map<string, LocalEntry>
  readonly files: number
  /** Of the sources and below. */
  readonly directories: readonly (readonly string[])[]
  readonly links: readonly (readonly string[])[]
  readonly roots: Readonly<Record<string, SourceRoot>>
  readonly failures: readonly EntryFailure[]
  /** Passed over: left out by the set, or neither file, directory nor link. */
  readonly ignored: number
  /** Something could not be listed: what is missing may be there. */
  readonly isIncomplete: boolean
}

/** @throws {SyncError} `SOURCE_MISSING`, `SOURCE_NOT_DIRECTORY`, or of class `local_io` for a source that cannot be listed. */
export async function scanSources(
  set: BackupSet,
  now: number,
  signal: AbortSignal,
  names: Names | undefined,
  onIgnored?: (path: string) => void,
): Promise<SourceScan> {
  const { exclude, maxSize, oneFileSystem, defaultExcludes = true, excludeCaches = false } = set
  const sized = maxSize === undefined ? {} : { maxSize }
  const selection = createSelection({ patterns: exclude, defaultExcludes, excludeCaches, ...sized }, now)
  const items = new Map<string, LocalEntry>()
  const directories: (readonly string[])[] = []
  const links: (readonly string[])[] = []
  const failures: EntryFailure[] = []
  const roots: Record<string, SourceRoot> = {}
  const met = new Set<string>()
  const blocked = createBlocked()
  let [ignored, isIncomplete] = [0, false]
  const block = (path: readonly string[], error: SyncError) => {
    blocked.add(keyOf(path))
    failures.push({ path: showSourcePath(path), error })
  }
  const add = (entry: LocalEntry) => takeIn(entry, { items, met, names, block })
  for (const source of set.sources) {
    const { dev, ino } = identifyRoot(source)
    roots[source] = { dev, ino, bornMs: look(source).birthtimeMs }
    const top = componentsOf(source)
    for (let depth = 1; depth <= top.length; depth++) add(directoryAt(top.slice(0, depth)))
    directories.push(top)
    const others = await walk(source, top, {
      signal,
      onDirectory: (directory, path) => selection.lookForCache(directory, path),
      accept({ path, kind, size, mtimeMs, dev: device }) {
        const isIn =
          selection.takes(path, kind) &&
          (kind === 'directory' ? !oneFileSystem || device === dev : selection.takesFile(size, mtimeMs))
        if (!isIn) {
          ignored++
          onIgnored?.(showSourcePath(path))
        }
        return isIn
      },
      onEntry(entry) {
        add(entry)
        if (entry.kind === 'directory') directories.push(entry.path)
      },
      onOther: (path) => links.at(-1) !== path && onIgnored?.(showSourcePath(path)),
      onLink(_source, path) {
        if (!selection.takes(path, 'file')) return
        ignored--
        links.push(path)
      },
      onFailure({ path, error }) {
        if (path === showPath(top)) throw error
        // Gone since its directory was listed, as if it had gone before.
        if (error.code === 'LOCAL_ENOENT') return
        failures.push({ path: `/${path}`, error })
        if (error.code !== 'NAME_NOT_UTF8') isIncomplete = true
      },
    })
    ignored += others
  }
  let files = 0
  for (const [key, { kind }] of items) {
    if (blocked.has(key)) items.delete(key)
    else if (kind === 'file') files++
  }
  const isIn = (path: readonly string[]) => !blocked.has(keyOf(path))
  const counts = { files, ignored, isIncomplete }
  return { items, directories: directories.filter(isIn), links: links.filter(isIn), roots, failures, ...counts }
}

/** A source may itself be a link, since somebody named it. */
function look(path: string): Stats {
  try {
    return statSync(path)
  } catch (error) {
    throw localError(error, `look at ${path}`)
  }
}

function directoryAt(path: readonly string[]): LocalEntry {
  const source = showSourcePath(path)
  const { mtimeMs, ctimeMs, ino, dev } = look(source)
  return { kind: 'directory', path, source, size: 0, mtimeMs, ctimeMs, ino, dev }
}

const commonOf = ({ mode, uid, gid, mtimeNs }: BigIntStats): Attributes => ({
  mode: Number(mode & 0o7777n),
  uid: Number(uid),
  gid: Number(gid),
  mtimeNs: String(mtimeNs),
})

/**
 * What a manifest says of a file; `undefined` when it is not in this state any more.
 *
 * @throws {SyncError} of class `local_io`.
 */
export function attributesOf({ source, size, ino, mtimeMs }: LocalEntry): Attributes | undefined {
  let now: BigIntStats | undefined
  try {
    now = lstatSync(source, { bigint: true, throwIfNoEntry: false })
  } catch (error) {
    throw localError(error, `look at ${source}`)
  }
  if (now === undefined || Number(now.size) !== size || Number(now.ino) !== ino) return undefined
  return Math.abs(Number(now.mtimeNs) / 1e6 - mtimeMs) < 0.001 ? commonOf(now) : undefined
}

/** Entries of directories and links. What went meanwhile is left out; what cannot be read is told. */
export function* describe(
  { directories, links }: SourceScan,
  onFailure: (failure: EntryFailure) => void,
): Generator<DirectoryEntry | LinkEntry> {
  for (const [paths, kind] of [
    [directories, 'directory'],
    [links, 'symlink'],
  ] as const) {
    for (const parts of paths) {
      const [path, source] = [showPath(parts), showSourcePath(parts)]
      try {
        const info = (kind === 'directory' ? statSync : lstatSync)(source, { bigint: true })
        if (kind === 'directory') yield { kind, path, ...commonOf(info) }
        else yield { kind, path, ...commonOf(info), target: readlinkSync(source) }
      } catch (error) {
        if (systemCode(error) === 'ENOENT') continue
        onFailure({ path: source, error: toSyncError(localError(error, `look at ${source}`)) })
      }
    }
  }
}
