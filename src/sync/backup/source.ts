/** The sources of a set as they are now, under their absolute paths. Contents are not read here. @module */
import { type BigIntStats, lstatSync, readlinkSync, statSync } from 'node:fs'
import { localError, SyncError, systemCode, toSyncError } from '../../errors.ts'
import { escapeName, type Names } from '../../local/names.ts'
import { identifyRoot, keyOf } from '../scan.ts'
import { createSelection } from '../select.ts'
import { type EntryFailure, type LocalEntry, walk } from '../tree.ts'
import type { DirectoryEntry, LinkEntry } from './manifest.ts'
import { type BackupSet, componentsOf, isWithin, showSourcePath } from './set.ts'
import type { SourceRoot } from './state.ts'

export interface SourceScan {
  /** By key of place. */
  readonly files: ReadonlyMap<string, LocalEntry>
  readonly directories: ReadonlyMap<string, readonly string[]>
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
): Promise<SourceScan> {
  const { exclude, maxSize, oneFileSystem } = set
  const selection = createSelection({ patterns: exclude, ...(maxSize === undefined ? {} : { maxSize }) }, now)
  const files = new Map<string, LocalEntry>()
  const directories = new Map<string, readonly string[]>()
  const links: (readonly string[])[] = []
  const failures: EntryFailure[] = []
  const roots: Record<string, SourceRoot> = {}
  let ignored = 0
  let isIncomplete = false
  for (const source of set.sources) {
    const { dev, ino } = identifyRoot(source)
    roots[source] = { dev, ino, bornMs: statSync(source).birthtimeMs }
    const top = componentsOf(source)
    directories.set(keyOf(top), top)
    const others = await walk(source, top, {
      signal,
      accept({ path, kind, size, mtimeMs, dev: device }) {
        const isIn =
          selection.takes(path, kind) &&
          (kind === 'directory' ? !oneFileSystem || device === dev : selection.takesFile(size, mtimeMs))
        if (!isIn) ignored++
        else if (storable(path, names, files, directories, failures)) return true
        return false
      },
      onEntry(entry) {
        if (entry.kind === 'file') files.set(keyOf(entry.path), entry)
        else directories.set(keyOf(entry.path), entry.path)
      },
      onLink(_source, path) {
        if (!selection.takes(path, 'file')) return
        ignored--
        links.push(path)
      },
      onFailure({ path, error }) {
        if (path === top.join('/')) throw error
        // Gone since its directory was listed, as if it had gone before.
        if (error.code === 'LOCAL_ENOENT') return
        failures.push({ path: `/${path}`, error })
        if (error.code !== 'NAME_NOT_UTF8') isIncomplete = true
      },
    })
    ignored += others
  }
  return { files, directories, links, roots, failures, ignored, isIncomplete }
}

/** Whether the server can hold this name, and it is the only one of its kind. */
function storable(
  path: readonly string[],
  names: Names | undefined,
  files: ReadonlyMap<string, unknown>,
  directories: ReadonlyMap<string, unknown>,
  failures: EntryFailure[],
): boolean {
  try {
    escapeName(path.at(-1)!, { names })
    const key = keyOf(path)
    if (!files.has(key) && !directories.has(key)) return true
    throw new SyncError('conflict', 'EXISTS', 'Two local names are one name on the server', {
      hint: 'They differ only in how characters are composed; rename one.',
    })
  } catch (error) {
    failures.push({ path: showSourcePath(path), error: toSyncError(error) })
    return false
  }
}

/** What a manifest says of anything. */
export const commonOf = ({ mode, uid, gid, mtimeNs }: BigIntStats) => ({
  mode: Number(mode & 0o7777n),
  uid: Number(uid),
  gid: Number(gid),
  mtimeNs: String(mtimeNs),
})

/** Entries of directories and links. What went meanwhile is left out; what cannot be read is told. */
export function* describe(
  { directories, links }: SourceScan,
  onFailure: (failure: EntryFailure) => void,
): Generator<DirectoryEntry | LinkEntry> {
  for (const [paths, kind] of [
    [directories.values(), 'directory'],
    [links, 'symlink'],
  ] as const) {
    for (const path of paths) {
      const shown = showSourcePath(path)
      try {
        // A source may itself be a link, since somebody named it.
        const info = (kind === 'directory' ? statSync : lstatSync)(shown, { bigint: true })
        if (kind === 'directory') yield { kind, path: shown, ...commonOf(info) }
        else yield { kind, path: shown, ...commonOf(info), target: readlinkSync(shown) }
      } catch (error) {
        if (systemCode(error) === 'ENOENT') continue
        onFailure({ path: shown, error: toSyncError(localError(error, `look at ${shown}`)) })
      }
    }
  }
}

/** Of the set's sources, the one that a path belongs to. */
export const sourceOf = (sources: readonly string[], path: readonly string[]): string | undefined =>
  sources.find((source) => isWithin(path, componentsOf(source)))
