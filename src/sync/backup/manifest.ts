/**
 * The manifest of one run: everything that was there at that time, with the node that holds the content of each file and the
 * SHA-256 of that content. It is what makes a run a point in time, and is uploaded last, so a run is whole or not there.
 * @module
 */
import { createHash } from 'node:crypto'
import { SyncError } from '../../errors.ts'
import { createAtomicFile } from '../../local/atomic-file.ts'
import { checkLocalName } from '../../local/names.ts'
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
/** Bytes; a longer text would not fit into a string. */
export const MAX_MANIFEST = 480 * 1024 * 1024
const WRITE_BYTES = 1024 * 1024

/**
 * Writes a manifest to a private file, an entry per line.
 *
 * @returns SHA-256 (hex) and size of the file.
 */
export async function writeManifest(
  path: string,
  head: ManifestHead,
  entries: Iterable<BackupEntry>,
): Promise<{ sha256: string; size: number }> {
  const hash = createHash('sha256')
  let size = 0
  const file = await createAtomicFile(path)
  try {
    let text = `${JSON.stringify({ format: FORMAT, version: VERSION, ...head }).slice(0, -1)},"entries":[`
    let separator = '\n'
    const flush = async () => {
      const bytes = Buffer.from(text)
      text = ''
      hash.update(bytes)
      size += bytes.length
      for (let at = 0; at < bytes.length; ) at += (await file.handle.write(bytes, at)).bytesWritten
    }
    for (const entry of entries) {
      text += separator + JSON.stringify(entry)
      separator = ',\n'
      if (text.length >= WRITE_BYTES) await flush()
    }
    text += '\n]}\n'
    await flush()
    if (size > MAX_MANIFEST) throw new SyncError('limit', 'MANIFEST_TOO_LARGE', 'There are too many files for one set')
    await file.commit()
  } finally {
    await file.discard()
  }
  return { sha256: hash.digest('hex'), size }
}

class Invalid extends Error {}

/**
 * Reads a manifest. Whoever has our public key could have made it, so nothing in it is taken on trust: names are single
 * components, numbers exact, places there once.
 *
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export function parseManifest(bytes: Uint8Array, shown: string): Manifest {
  try {
    return read(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)))
  } catch (cause) {
    const why = cause instanceof Invalid ? cause.message : 'it cannot be read'
    throw new SyncError('integrity', 'MANIFEST_INVALID', `${shown} is not the manifest of a run: ${why}`, { cause })
  }
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Invalid(`${what} is no object`)
  return value as Record<string, unknown>
}

function list<T>(value: unknown, what: string, item: (value: unknown) => T): T[] {
  if (!Array.isArray(value)) throw new Invalid(`${what} is no list`)
  return value.map(item)
}

function text(value: unknown, what: string, form = /^/): string {
  if (typeof value !== 'string' || !form.test(value)) throw new Invalid(`${what} is not right`)
  return value
}

function natural(value: unknown, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Invalid(`${what} is no number`)
  return value as number
}

function flag(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') throw new Invalid(`${what} is neither true nor false`)
  return value
}

const SHA256 = /^[0-9a-f]{64}$/
/** 12 and 16 bytes. */
const SEAL = /^[A-Za-z0-9+/]{38}==$/
const INTEGER = /^-?\d{1,30}$/

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
      return { kind: 'symlink', ...common, target: text(from.target, 'target', /^[^\0]+$/) }
    case 'file':
      return {
        kind: 'file',
        ...common,
        size: natural(from.size, 'size'),
        sha256: text(from.sha256, 'sha256', SHA256),
        node: natural(from.node, 'node'),
        seal: text(from.seal, 'seal', SEAL),
        ...(from.isOlder === true ? { isOlder: true } : {}),
      }
    default:
      throw new Invalid('an entry is of an unknown kind')
  }
}

function read(value: unknown): Manifest {
  const from = record(value, 'it')
  if (from.format !== FORMAT || from.version !== VERSION) throw new Invalid('it is of another format')
  const options = record(from.options, 'options')
  const entries = list(from.entries, 'entries', entry)
  if (new Set(entries.map(({ path }) => path)).size !== entries.length) throw new Invalid('a path is there twice')
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
