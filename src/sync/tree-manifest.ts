/**
 * The manifest of a pushed tree: what a push knows of every place, in an encrypted file `.sealsync-manifest` at the top of it on
 * the server. It carries what the server does not (permissions, links, exact times), and holds the server to what it does:
 * nodes, seals, SHA-256, and the manifests before. A pin in the state of a pair says which one was the last.
 * @module
 */
import type { RemoteNode } from '../api/wire.ts'
import { SyncError, type SyncErrorCode, toSyncError } from '../errors.ts'
import { MANIFEST_NAME } from '../local/atomic-file.ts'
import {
  type CommonHead,
  type DirectoryEntry,
  type Entry,
  type FileEntry,
  fetchManifest,
  Invalid,
  isAboutContent,
  type LinkEntry,
  list,
  natural,
  parseManifest,
  SHA256,
  text,
} from './manifest.ts'
import type { RunContext } from './run.ts'
import type { ManifestPin } from './state.ts'

/** A directory of a pushed tree is always on the server. */
export type TreeDirectory = DirectoryEntry & { readonly node: number }
export type TreeEntry = FileEntry | TreeDirectory | LinkEntry

export interface TreeManifestHead extends CommonHead {
  /** One more than that of the manifest before; from 1. */
  readonly sequence: number
  /** SHA-256 (hex) of the manifests before, newest first, `MAX_PREVIOUS` at most. */
  readonly previous: readonly string[]
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
  let fetched: Awaited<ReturnType<typeof fetchManifest>>
  try {
    fetched = await fetchManifest(context, node, MANIFEST_NAME, signal)
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
 * Reads the manifest of a tree.
 *
 * @throws {SyncError} `MANIFEST_INVALID` (class `integrity`).
 */
export function parseTreeManifest(bytes: Uint8Array): TreeManifest {
  const { entries, ...head } = parseManifest(bytes, `${MANIFEST_NAME} is no manifest of a tree`, readHead)
  return { ...head, entries: entries as readonly TreeEntry[] }
}

function readHead(from: Record<string, unknown>, entries: readonly Entry[]) {
  const previous = list(from.previous, 'previous', (one) => text(one, 'previous', SHA256))
  if (previous.length > MAX_PREVIOUS) throw new Invalid('it names too many manifests before it')
  for (const { path, ...one } of entries) {
    if (path === '') throw new Invalid('the root of a tree has no entry')
    if (one.kind === 'directory' && one.node === undefined) throw new Invalid('a directory has no node')
  }
  return { sequence: natural(from.sequence, 'sequence'), previous }
}
