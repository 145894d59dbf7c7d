/**
 * The manifest of a pushed tree: what a push knows of every place, in an encrypted file `.sealsync-manifest` at the top of it on
 * the server. It carries what the server does not (permissions, links, exact times), and holds the server to what it does:
 * nodes, seals, SHA-256, and the manifests before. A pin in the state of a pair says which one was the last.
 * @module
 */
import type { RemoteNode } from '../api/wire.ts'
import { SyncError, type SyncErrorCode, toSyncError } from '../errors.ts'
import { MANIFEST_NAME } from '../local/atomic-file.ts'
import { checkLocalName } from '../local/names.ts'
import {
  fetchManifestFile,
  INTEGER,
  Invalid,
  isAboutContent,
  list,
  natural,
  parseManifestFile,
  placesOnce,
  record,
  SEAL,
  SHA256,
  TARGET,
  text,
} from './manifest-file.ts'
import type { RunContext } from './run.ts'
import type { ManifestPin } from './state.ts'
import { MAX_DEPTH } from './tree.ts'

/** What was known of the disk; absent of what was not there, or not in the state that was pushed, when the manifest was made. */
interface OnDisk {
  /** Permission bits. */
  readonly mode?: number
  /** Nanoseconds since the epoch, decimal. */
  readonly mtimeNs?: string
}

export interface TreeFile extends OnDisk {
  readonly kind: 'file'
  /** Relative, with `/`. */
  readonly path: string
  readonly size: number
  readonly node: number
  /** IV and tag of the content, base64; absent for what was found equal on both sides and never read here. */
  readonly seal?: string
  /** Of the content, hex; absent for what was not read here to be sent. */
  readonly sha256?: string
  /** It never rested when it was pushed: this is its beginning, as it was at one moment. */
  readonly isInconsistent?: true
}

export interface TreeDirectory extends OnDisk {
  readonly kind: 'directory'
  readonly path: string
  readonly node: number
}

export interface TreeLink extends OnDisk {
  readonly kind: 'symlink'
  readonly path: string
  readonly target: string
}

export type TreeEntry = TreeFile | TreeDirectory | TreeLink

export interface TreeManifestHead {
  /** One more than that of the manifest before; from 1. */
  readonly sequence: number
  /** SHA-256 (hex) of the manifests before, newest first, `MAX_PREVIOUS` at most. */
  readonly previous: readonly string[]
  /** ISO 8601. */
  readonly startedAt: string
  readonly host: string
}

export interface TreeManifest extends TreeManifestHead {
  readonly entries: readonly TreeEntry[]
}

/** A manifest as the server has it. */
export interface FoundManifest {
  readonly manifest: TreeManifest
  readonly node: RemoteNode
  readonly sha256: string
  readonly seal: string
}

export const TREE_FORMAT = Object.freeze({ format: 'sealsync-tree', version: 1 })
/** Who has not looked for so many manifests cannot tell whether the newest follows from the one that is known. */
export const MAX_PREVIOUS = 256

const integrity = (code: SyncErrorCode, message: string, hint: string) =>
  new SyncError('integrity', code, message, { hint })

const HINT =
  'Ask who has access to the room. Files are held to what this machine knows; the next push stores a new manifest.'

export const droppedManifest = () =>
  integrity('MANIFEST_DROPPED', 'The manifest of this tree is gone from the server', HINT)

/**
 * Compares a manifest with the one that is pinned.
 *
 * @returns what is wrong with it, of class `integrity`; `undefined` for the pinned one and for what follows from it.
 */
export function judgeManifest(pin: ManifestPin, { manifest, sha256 }: FoundManifest): SyncError | undefined {
  if (sha256 === pin.sha256) return undefined
  const { sequence, previous } = manifest
  const ahead = sequence - pin.sequence
  if (ahead < 0) {
    return integrity('MANIFEST_ROLLED_BACK', 'The server has an older manifest of this tree than was there', HINT)
  }
  if (ahead === 0) {
    return integrity('MANIFEST_SWAPPED', 'The manifest of this tree is not the one that was stored', HINT)
  }
  // Only who could read the pinned one knows its digest.
  if (previous[ahead - 1] === pin.sha256 || isTooLongAgo(pin, manifest)) return undefined
  return integrity(
    'MANIFEST_FOREIGN',
    'The manifest of this tree does not follow from the one that is known',
    'Somebody else has made it. Ask who has access to the room. If it is right: --accept-roots',
  )
}

/**
 * True when more manifests than one can name came after the pinned one. Who has made that one would know of others; who has only
 * taken it begins again, as on a machine that knows nothing.
 */
export const isTooLongAgo = ({ sequence, made }: ManifestPin, manifest: TreeManifest): boolean =>
  made === undefined && manifest.sequence - sequence > MAX_PREVIOUS

/**
 * Fetches the manifest of a tree.
 *
 * @throws {SyncError} `MANIFEST_UNREADABLE`, `MANIFEST_INVALID` (class `integrity`), and what keeps it from being fetched.
 */
export async function readTreeManifest(
  context: RunContext,
  node: RemoteNode,
  signal: AbortSignal,
): Promise<FoundManifest> {
  let fetched: Awaited<ReturnType<typeof fetchManifestFile>>
  try {
    fetched = await fetchManifestFile(context, node, MANIFEST_NAME, signal)
  } catch (thrown) {
    const error = toSyncError(thrown)
    if (!isAboutContent(error)) throw error
    throw new SyncError('integrity', 'MANIFEST_UNREADABLE', `The manifest cannot be read: ${error.message}`, {
      hint: HINT,
      cause: error,
    })
  }
  const { bytes, seal, sha256 } = fetched
  return { manifest: parseTreeManifest(bytes), node, sha256, seal }
}

/**
 * Reads a manifest. Paths are relative and stay below the tree, numbers are exact, places there once.
 *
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export const parseTreeManifest = (bytes: Uint8Array): TreeManifest =>
  parseManifestFile(bytes, `${MANIFEST_NAME} is no manifest`, read)

function entry(value: unknown): TreeEntry {
  const from = record(value, 'entry')
  const path = text(from.path, 'path')
  const parts = path.split('/')
  if (parts.length > MAX_DEPTH + 1) throw new Invalid('a path is too deep')
  for (const part of parts) checkLocalName(part, 'linux')
  const onDisk = {
    ...(from.mode === undefined ? {} : { mode: natural(from.mode, 'mode') }),
    ...(from.mtimeNs === undefined ? {} : { mtimeNs: text(from.mtimeNs, 'mtimeNs', INTEGER) }),
  }
  switch (from.kind) {
    case 'directory':
      return { kind: 'directory', path, ...onDisk, node: natural(from.node, 'node') }
    case 'symlink':
      return { kind: 'symlink', path, ...onDisk, target: text(from.target, 'target', TARGET) }
    case 'file':
      return {
        kind: 'file',
        path,
        ...onDisk,
        size: natural(from.size, 'size'),
        node: natural(from.node, 'node'),
        ...(from.seal === undefined ? {} : { seal: text(from.seal, 'seal', SEAL) }),
        ...(from.sha256 === undefined ? {} : { sha256: text(from.sha256, 'sha256', SHA256) }),
        ...(from.isInconsistent === true ? { isInconsistent: true } : {}),
      }
    default:
      throw new Invalid('an entry is of an unknown kind')
  }
}

function read(value: unknown): TreeManifest {
  const from = record(value, 'it')
  if (from.format !== TREE_FORMAT.format || from.version !== TREE_FORMAT.version)
    throw new Invalid('it is of another format')
  const previous = list(from.previous, 'previous', (one) => text(one, 'previous', SHA256))
  if (previous.length > MAX_PREVIOUS) throw new Invalid('it names too many manifests before it')
  return {
    sequence: natural(from.sequence, 'sequence'),
    previous,
    startedAt: text(from.startedAt, 'startedAt'),
    host: text(from.host, 'host'),
    entries: placesOnce(list(from.entries, 'entries', entry)),
  }
}
