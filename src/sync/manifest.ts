/**
 * Manifests: what was at a number of places at one time, in an encrypted file beside them. They carry what the server does not hold
 * (permissions, links, exact times), and hold the server to what it does: nodes, seals and SHA-256. A pushed tree has one at its top
 * (tree-manifest.ts), a backup set one for each run (backup/manifest.ts); they differ in their heads.
 *
 * The file is JSON with an entry per line, compressed. Whoever has our public key could have made it, so nothing in it is taken on trust.
 * @module
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { gunzipSync, gzip } from 'node:zlib'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { createAtomicFile } from '../local/atomic-file.ts'
import { checkLocalName } from '../local/names.ts'
import { downloadContent, openFileKey, sizeOf } from '../transfer/content.ts'
import { sealOf } from './records.ts'
import type { RunContext } from './run.ts'
import { MAX_DEPTH } from './tree.ts'

/** Bytes; a longer text would not fit into a string. */
const MAX_MANIFEST = 480 * 1024 * 1024
const WRITE_BYTES = 1024 * 1024

const compress = promisify(gzip)

const FORMAT = Object.freeze({ format: 'sealsync-manifest', version: 1 })

interface Common {
  /** Components joined by `/`, below the root: of a backup that of the machine. */
  readonly path: string
  /**
   * Permission bits, with setuid, setgid and the sticky bit; absent like all of these where nothing was known of it, or it was not in
   * the state any more that was stored.
   */
  readonly mode?: number
  /** Of backups; for people, never applied. */
  readonly uid?: number
  readonly gid?: number
  /** Nanoseconds since the epoch, decimal. */
  readonly mtimeNs?: string
}

export interface FileEntry extends Common {
  readonly kind: 'file'
  readonly size: number
  readonly node: number
  /** IV and tag of the content, base64; absent for what was found equal on both sides and never read here. */
  readonly seal?: string
  /** Of the content, hex; absent for what was not read here to be sent. */
  readonly sha256?: string
  /** Instead of that, of what was stored where one can only write: see `contentMac`. Hex. */
  readonly mac?: string
  /** It could not be read: this is the version before. */
  readonly isOlder?: true
  /** It never rested while it was read: this is its beginning, as it was at one moment. */
  readonly isInconsistent?: true
}

export interface DirectoryEntry extends Common {
  readonly kind: 'directory'
  /** Of pushed trees. */
  readonly node?: number
}

export interface LinkEntry extends Common {
  readonly kind: 'symlink'
  readonly target: string
}

export type Entry = FileEntry | DirectoryEntry | LinkEntry

/** What the head of each manifest says. */
export interface CommonHead {
  /** ISO 8601. */
  readonly startedAt: string
  readonly host: string
}

/**
 * Writes a manifest to a private file, compressed with gzip in members of a mebibyte.
 *
 * @returns SHA-256 (hex) and size of the file.
 * @throws {SyncError} `MANIFEST_TOO_LARGE` (class `limit`).
 */
export async function writeManifest(
  path: string,
  head: CommonHead,
  entries: Iterable<Entry>,
): Promise<{ sha256: string; size: number }> {
  const hash = createHash('sha256')
  let [size, length] = [0, 0]
  const file = await createAtomicFile(path)
  try {
    let text = `${JSON.stringify({ ...FORMAT, ...head }).slice(0, -1)},"entries":[`
    let separator = '\n'
    const flush = async () => {
      const plain = Buffer.from(text)
      text = ''
      length += plain.length
      const bytes = await compress(plain)
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
    if (length > MAX_MANIFEST)
      throw new SyncError('limit', 'MANIFEST_TOO_LARGE', 'There are too many files for one manifest')
    await file.commit()
  } finally {
    await file.discard()
  }
  return { sha256: hash.digest('hex'), size }
}

/**
 * Fetches and decrypts a manifest.
 *
 * @param node - Read as an encrypted file, whatever the server says of it.
 * @throws {SyncError} what the layers below throw, and `MANIFEST_TOO_LARGE` (class `limit`); see `isAboutContent`.
 */
export async function fetchManifest(
  context: RunContext,
  node: RemoteNode,
  shown: string,
  signal: AbortSignal,
): Promise<{ bytes: Uint8Array; seal: string; sha256: string }> {
  const size = sizeOf(node)
  if (size > MAX_MANIFEST) throw new SyncError('limit', 'MANIFEST_TOO_LARGE', 'It is larger than manifests are')
  const fileKey = (await openFileKey(context, { ...node, isEncrypted: true }, signal))!
  const chunks: Buffer[] = []
  const sink = { write: async (chunk: Uint8Array) => void chunks.push(Buffer.from(chunk)) }
  try {
    const seal = sealOf(fileKey)
    await downloadContent({ ...context, onEvent: undefined }, node, fileKey, sink, shown, signal)
    const bytes = Buffer.concat(chunks)
    return { bytes, seal, sha256: createHash('sha256').update(bytes).digest('hex') }
  } finally {
    fileKey.wipe()
  }
}

/** What makes a manifest unreadable, as opposed to the way to it. */
export const isAboutContent = ({ class: kind }: SyncError): boolean =>
  ['integrity', 'not_found', 'limit'].includes(kind)

/** Says within `parseManifest` what is wrong. */
export class Invalid extends Error {}

/**
 * Reads what somebody may have made to harm us. Names are single components that a disk can have, numbers exact, places there once.
 *
 * @param otherwise - What to say of bytes that are no manifest.
 * @param readHead - Reads what is special about a kind of manifest.
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export function parseManifest<T extends object>(
  bytes: Uint8Array,
  otherwise: string,
  readHead: (from: Record<string, unknown>, entries: readonly Entry[]) => T,
): T & CommonHead & { readonly entries: readonly Entry[] } {
  try {
    const plain = gunzipSync(bytes, { maxOutputLength: MAX_MANIFEST })
    const from = record(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plain)), 'it')
    if (from.format !== FORMAT.format || from.version !== FORMAT.version) throw new Invalid('it is of another format')
    const entries = placesOnce(list(from.entries, 'entries', entry))
    const common = { startedAt: text(from.startedAt, 'startedAt'), host: text(from.host, 'host') }
    return { ...common, ...readHead(from, entries), entries }
  } catch (cause) {
    const why = cause instanceof Invalid ? cause.message : 'it cannot be read'
    throw new SyncError('integrity', 'MANIFEST_INVALID', `${otherwise}: ${why}`, { cause })
  }
}

function entry(value: unknown): Entry {
  const from = record(value, 'entry')
  const path = text(from.path, 'path')
  const parts = path === '' ? [] : path.split('/')
  if (parts.length === 0 && from.kind !== 'directory') throw new Invalid('only a directory can be the root')
  if (parts.length > MAX_DEPTH + 1) throw new Invalid('a path is too deep')
  for (const part of parts) checkLocalName(part, 'linux')
  const common = {
    path,
    ...(from.mode === undefined ? {} : { mode: natural(from.mode, 'mode') }),
    ...(from.uid === undefined ? {} : { uid: natural(from.uid, 'uid') }),
    ...(from.gid === undefined ? {} : { gid: natural(from.gid, 'gid') }),
    ...(from.mtimeNs === undefined ? {} : { mtimeNs: text(from.mtimeNs, 'mtimeNs', INTEGER) }),
  }
  switch (from.kind) {
    case 'directory':
      return { kind: 'directory', ...common, ...(from.node === undefined ? {} : { node: natural(from.node, 'node') }) }
    case 'symlink':
      return { kind: 'symlink', ...common, target: text(from.target, 'target', TARGET) }
    case 'file':
      return {
        kind: 'file',
        ...common,
        size: natural(from.size, 'size'),
        node: natural(from.node, 'node'),
        ...(from.seal === undefined ? {} : { seal: text(from.seal, 'seal', SEAL) }),
        ...(from.sha256 === undefined ? {} : { sha256: text(from.sha256, 'sha256', SHA256) }),
        ...(from.mac === undefined ? {} : { mac: text(from.mac, 'mac', SHA256) }),
        ...(from.isOlder === true ? { isOlder: true } : {}),
        ...(from.isInconsistent === true ? { isInconsistent: true } : {}),
      }
    default:
      throw new Invalid('an entry is of an unknown kind')
  }
}

export function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Invalid(`${what} is no object`)
  return value as Record<string, unknown>
}

export function list<T>(value: unknown, what: string, item: (value: unknown) => T): T[] {
  if (!Array.isArray(value)) throw new Invalid(`${what} is no list`)
  return value.map(item)
}

export function text(value: unknown, what: string, form = /^/): string {
  if (typeof value !== 'string' || !form.test(value)) throw new Invalid(`${what} is not right`)
  return value
}

export function natural(value: unknown, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Invalid(`${what} is no number`)
  return value as number
}

export function flag(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') throw new Invalid(`${what} is neither true nor false`)
  return value
}

/** Entries whose paths are all different. */
function placesOnce<T extends { readonly path: string }>(entries: readonly T[]): readonly T[] {
  if (new Set(entries.map(({ path }) => path)).size !== entries.length) throw new Invalid('a path is there twice')
  return entries
}

export const SHA256 = /^[0-9a-f]{64}$/
/** 12 and 16 bytes. */
export const SEAL = /^[A-Za-z0-9+/]{38}==$/
const INTEGER = /^-?\d{1,30}$/
/** Of a link: anything but NUL. */
const TARGET = /^[^\0]+$/
