/**
 * The manifest of one run: everything that was there at that time, with the node that holds the content of each file and the
 * SHA-256 of that content. It is what makes a run a point in time, and is uploaded last, so a run is whole or not there.
 * @module
 */
import { checkLocalName } from '../../local/names.ts'
import {
  flag,
  INTEGER,
  Invalid,
  list,
  natural,
  parseManifestFile,
  placesOnce,
  record,
  SEAL,
  SHA256,
  TARGET,
  text,
  writeManifestFile,
} from '../manifest-file.ts'
import { componentsOf, isRunId, type RunNote } from './set.ts'

interface Common {
  /** Absolute, with `/`. */
  readonly path: string
  /** Permission bits, as they were. */
  readonly mode: number
  /** For people; never applied. */
  readonly uid: number
  readonly gid: number
  /** Nanoseconds since the epoch, decimal. */
  readonly mtimeNs: string
}

export interface FileEntry extends Common {
  readonly kind: 'file'
  readonly size: number
  /** Of the content, hex. */
  readonly sha256: string
  readonly node: number
  /** IV and tag of the content, base64. */
  readonly seal: string
  /** The run could not read the file: this is the version before. */
  readonly isOlder?: true
  /** It never rested while it was read: this is its beginning, as it was at one moment. */
  readonly isInconsistent?: true
}

export interface DirectoryEntry extends Common {
  readonly kind: 'directory'
}

export interface LinkEntry extends Common {
  readonly kind: 'symlink'
  readonly target: string
}

export type BackupEntry = FileEntry | DirectoryEntry | LinkEntry

export interface ManifestHead {
  readonly set: string
  readonly run: string
  /** ISO 8601. */
  readonly startedAt: string
  readonly endedAt: string
  readonly host: string
  readonly sources: readonly string[]
  readonly options: {
    readonly exclude: readonly string[]
    readonly oneFileSystem: boolean
    readonly maxSize?: number | undefined
  }
  /** The runs before, oldest first. What they were is known from here even where nothing else is. */
  readonly runs: readonly RunNote[]
  /** Nothing was passed over that should be in it. */
  readonly isComplete: boolean
  readonly addedBytes: number
  readonly failed: readonly { readonly path: string; readonly code: string }[]
}

export interface Manifest extends ManifestHead {
  readonly entries: readonly BackupEntry[]
}

const FORMAT = 'sealsync-backup'
const VERSION = 1

/**
 * Writes the manifest of a run; see `writeManifestFile`.
 *
 * @returns SHA-256 (hex) and size of the file.
 */
export const writeManifest = (
  path: string,
  head: ManifestHead,
  entries: Iterable<BackupEntry>,
): Promise<{ sha256: string; size: number }> =>
  writeManifestFile(path, { format: FORMAT, version: VERSION, ...head }, entries)

/**
 * Reads the manifest of a run. Names are single components, numbers exact, places there once.
 *
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export const parseManifest = (bytes: Uint8Array, shown: string): Manifest =>
  parseManifestFile(bytes, `${shown} is not the manifest of a run`, read)

function run(value: unknown): string {
  const id = text(value, 'run')
  if (!isRunId(id)) throw new Invalid('run is not right')
  return id
}

function note(value: unknown): RunNote {
  const from = record(value, 'run')
  return {
    run: run(from.run),
    node: natural(from.node, 'node'),
    sha256: text(from.sha256, 'sha256', SHA256),
    seal: text(from.seal, 'seal', SEAL),
    size: natural(from.size, 'size'),
    startedAt: text(from.startedAt, 'startedAt'),
    files: natural(from.files, 'files'),
    bytes: natural(from.bytes, 'bytes'),
    addedBytes: natural(from.addedBytes, 'addedBytes'),
    isComplete: flag(from.isComplete, 'isComplete'),
  }
}

function entry(value: unknown): BackupEntry {
  const from = record(value, 'entry')
  const path = text(from.path, 'path', /^\//)
  const parts = componentsOf(path)
  if (`/${parts.join('/')}` !== path) throw new Invalid('a path has empty parts')
  if (parts.length === 0 && from.kind !== 'directory') throw new Invalid('only a directory can be the root')
  for (const part of parts) checkLocalName(part, 'linux')
  const common = {
    path,
    mode: natural(from.mode, 'mode'),
    uid: natural(from.uid, 'uid'),
    gid: natural(from.gid, 'gid'),
    mtimeNs: text(from.mtimeNs, 'mtimeNs', INTEGER),
  }
  switch (from.kind) {
    case 'directory':
      return { kind: 'directory', ...common }
    case 'symlink':
      return { kind: 'symlink', ...common, target: text(from.target, 'target', TARGET) }
    case 'file':
      return {
        kind: 'file',
        ...common,
        size: natural(from.size, 'size'),
        sha256: text(from.sha256, 'sha256', SHA256),
        node: natural(from.node, 'node'),
        seal: text(from.seal, 'seal', SEAL),
        ...(from.isOlder === true ? { isOlder: true } : {}),
        ...(from.isInconsistent === true ? { isInconsistent: true } : {}),
      }
    default:
      throw new Invalid('an entry is of an unknown kind')
  }
}

function read(value: unknown): Manifest {
  const from = record(value, 'it')
  if (from.format !== FORMAT || from.version !== VERSION) throw new Invalid('it is of another format')
  const options = record(from.options, 'options')
  const entries = placesOnce(list(from.entries, 'entries', entry))
  return {
    set: text(from.set, 'set'),
    run: run(from.run),
    startedAt: text(from.startedAt, 'startedAt'),
    endedAt: text(from.endedAt, 'endedAt'),
    host: text(from.host, 'host'),
    sources: list(from.sources, 'sources', (one) => text(one, 'source')),
    options: {
      exclude: list(options.exclude, 'exclude', (one) => text(one, 'exclude')),
      oneFileSystem: flag(options.oneFileSystem, 'oneFileSystem'),
      ...(options.maxSize === undefined ? {} : { maxSize: natural(options.maxSize, 'maxSize') }),
    },
    runs: list(from.runs, 'runs', note),
    isComplete: flag(from.isComplete, 'isComplete'),
    addedBytes: natural(from.addedBytes, 'addedBytes'),
    failed: list(from.failed, 'failed', (one) => {
      const { path, code } = record(one, 'failure')
      return { path: text(path, 'path'), code: text(code, 'code') }
    }),
    entries,
  }
}
