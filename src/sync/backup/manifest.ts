/**
 * The manifest of one run of a set: everything that was there at that time, with the node that holds the content of each file and the
 * SHA-256 of that content. It is what makes a run a point in time, and is uploaded last, so a run is whole or not there.
 * @module
 */
import {
  type DirectoryEntry as AnyDirectory,
  type FileEntry as AnyFile,
  type LinkEntry as AnyLink,
  type CommonHead,
  type Entry,
  flag,
  Invalid,
  list,
  natural,
  parseManifest,
  record,
  SEAL,
  SHA256,
  text,
} from '../manifest.ts'
import { isRunId, type RunNote } from './set.ts'

/** In a backup all of it is known. Paths are below the root of the machine. */
type Whole<T extends Entry> = T & Required<Pick<T, 'mode' | 'uid' | 'gid' | 'mtimeNs'>>
/** A file of a run, with all that is known of it: its SHA-256, or a MAC. */
export type FileEntry = Whole<AnyFile> & Required<Pick<AnyFile, 'seal'>>
/** A directory of a run. */
export type DirectoryEntry = Whole<AnyDirectory>
/** A symbolic link of a run. */
export type LinkEntry = Whole<AnyLink>
/** Anything that is in a run. */
export type BackupEntry = FileEntry | DirectoryEntry | LinkEntry

/** What a manifest says of its run. */
export interface ManifestHead extends CommonHead {
  readonly set: string
  readonly run: string
  /** ISO 8601. */
  readonly endedAt: string
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
  /** Absolute paths. */
  readonly failed: readonly { readonly path: string; readonly code: string }[]
}

/** A run as its manifest has it. */
export interface Manifest extends ManifestHead {
  readonly entries: readonly BackupEntry[]
}

/**
 * Reads the manifest of a run.
 *
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export function parseRunManifest(bytes: Uint8Array, shown: string): Manifest {
  const { entries, ...head } = parseManifest(bytes, `${shown} is not the manifest of a run`, readHead)
  return { ...head, entries: entries as readonly BackupEntry[] }
}

function readHead(from: Record<string, unknown>, entries: readonly Entry[]): Omit<ManifestHead, keyof CommonHead> {
  entries.forEach(requireWhole)
  const options = record(from.options, 'options')
  return {
    set: text(from.set, 'set'),
    run: run(from.run),
    endedAt: text(from.endedAt, 'endedAt'),
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
  }
}

function requireWhole(entry: Entry): void {
  const { mode, uid, gid, mtimeNs } = entry
  const isWhole =
    entry.kind !== 'file' || ((entry.sha256 === undefined) !== (entry.mac === undefined) && entry.seal !== undefined)
  if (!isWhole || [mode, uid, gid, mtimeNs].includes(undefined)) throw new Invalid('an entry is incomplete')
}

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
