/**
 * Remote paths as people type them (`/room/folder/file`): looked up component by component, and searched for at the same time.
 * @module
 */
import type { Api } from '../api/api.ts'
import { createFolder, listChildren, searchBelow, treeCycle } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { escapeName, sameNameKey } from '../local/names.ts'
import { findChild } from '../transfer/complete.ts'
import { within } from './tree.ts'

/**
 * Splits a remote path.
 *
 * @throws {SyncError} `PATH_INVALID` when it is not absolute or has `.` or `..` in it.
 */
export function parseRemotePath(text: string): string[] {
  const components = text.split('/').filter((component) => component !== '')
  if (!text.startsWith('/') || components.some((component) => component === '.' || component === '..')) {
    throw new SyncError('usage', 'PATH_INVALID', 'A remote path starts with / and has no . or .. in it', {
      hint: 'Write it like /room/folder',
    })
  }
  return components
}

export interface Resolved {
  /** From the top room down; empty for the root. */
  readonly found: readonly RemoteNode[]
  /** Components below the last one found. */
  readonly missing: readonly string[]
}

/** The child of this name, preferably letter by letter; a name that the server could not store is looked for in its escaped form. */
async function child(api: Api, parentId: number, name: string, signal?: AbortSignal): Promise<RemoteNode | undefined> {
  const exact = sameNameKey(name)
  let escaped: string | undefined
  try {
    escaped = sameNameKey(escapeName(name))
  } catch {
    // Not a name that could be stored.
  }
  let composed: RemoteNode | undefined
  let fallback: RemoteNode | undefined
  for await (const node of listChildren(api, parentId, signal)) {
    if (node.name === name) return node
    const key = sameNameKey(node.name)
    if (key === exact) composed ??= node
    else if (key === escaped) fallback ??= node
  }
  return composed ?? fallback
}

/** Deeper parts of a path are looked up one after the other. */
const SEARCHED_AT_ONCE = 8

/** Looks for the lower parts of a path while the upper ones are looked up: round trips that need not wait for each other. */
function searchAhead(api: Api, components: readonly string[], signal?: AbortSignal) {
  const searches = components.slice(1, 1 + SEARCHED_AT_ONCE).map((name, index) =>
    // Whatever goes wrong, the listing says what it was.
    searchBelow(api, components.slice(0, index + 1), name, signal).catch(() => undefined),
  )
  /** The child of exactly this name; `undefined`: only a listing can tell. */
  return async (depth: number, parentId: number): Promise<RemoteNode | undefined> => {
    const found = await searches[depth - 1]
    const node = found?.items.find((one) => one.name === components[depth] && one.parentId === parentId)
    if (node?.id === parentId) throw treeCycle()
    // As before anything is listed there.
    if (node !== undefined) await api.places?.enter(parentId)
    return node
  }
}

export async function resolveRemote(api: Api, path: string, signal?: AbortSignal): Promise<Resolved> {
  const components = parseRemotePath(path)
  const ahead = searchAhead(api, components, signal)
  const found: RemoteNode[] = []
  for (const [index, name] of components.entries()) {
    const parent = found.at(-1)
    if (parent?.type === 'file') return { found, missing: components.slice(index) }
    const parentId = parent?.id ?? 0
    const node = (index === 0 ? undefined : await ahead(index, parentId)) ?? (await child(api, parentId, name, signal))
    if (node === undefined) return { found, missing: components.slice(index) }
    if (found.some(({ id }) => id === node.id)) throw treeCycle()
    found.push(within(parent, node))
  }
  return { found, missing: [] }
}

export const remoteMissing = (path: string) =>
  new SyncError('not_found', 'REMOTE_MISSING', `There is no ${path} on the server, or you cannot see it`, {
    hint: 'List what is there: sync ls /',
  })

const targetIsRoot = () =>
  new SyncError('usage', 'TARGET_IS_ROOT', 'The root holds rooms only', { hint: 'Name a room: /room' })

/** @throws {SyncError} `REMOTE_MISSING` unless all of the path exists. */
export async function requireRemote(
  api: Api,
  path: string,
  signal?: AbortSignal,
): Promise<{ node: RemoteNode; roomId: number }> {
  const { found, missing } = await resolveRemote(api, path, signal)
  const node = found.at(-1)
  if (missing.length > 0) throw remoteMissing(path)
  if (node === undefined) throw targetIsRoot()
  return { node, roomId: roomOf(found) }
}

/** The room that a chain of nodes ends in. */
export const roomOf = (chain: readonly RemoteNode[]): number => chain.findLast((node) => node.type === 'room')?.id ?? 0

/** An existing room or folder, and what of the path has to be made below it. */
export async function requireContainer(
  api: Api,
  path: string,
  signal?: AbortSignal,
): Promise<{ container: RemoteNode; roomId: number; missing: readonly string[] }> {
  return containerIn(await resolveRemote(api, path, signal), path)
}

/** As `requireContainer`, of a path that has been looked up. */
export function containerIn(
  { found, missing }: Resolved,
  path: string,
): { container: RemoteNode; roomId: number; missing: readonly string[] } {
  const container = found.at(-1)
  if (container === undefined) {
    if (missing.length > 0) throw remoteMissing(`/${missing[0]}`)
    throw targetIsRoot()
  }
  if (container.type === 'file') {
    throw new SyncError('usage', 'TARGET_IS_FILE', `The remote target is a file: ${path}`, {
      hint: 'Name a room or folder; only a single file takes the name of another one.',
    })
  }
  return { container, roomId: roomOf(found), missing }
}

const FOLDER_TRIES = 3

/** Makes a folder, or finds the one that somebody has made meanwhile. */
export const ensureFolder = async (
  api: Api,
  parentId: number,
  name: string,
  signal?: AbortSignal,
): Promise<RemoteNode> => (await makeFolder(api, parentId, name, signal)).node

/** As `ensureFolder`, and tells whether it is new for sure. */
export async function makeFolder(
  api: Api,
  parentId: number,
  name: string,
  signal?: AbortSignal,
): Promise<{ readonly node: RemoteNode; readonly isNew: boolean }> {
  for (let tries = 1; ; tries++) {
    try {
      return { node: await createFolder(api, parentId, name, signal), isNew: true }
    } catch (error) {
      const { class: kind } = toSyncError(error)
      // A conflict says so; after a cut connection it may have been made all the same.
      if (kind !== 'conflict' && kind !== 'network' && kind !== 'server') throw error
      const looked = await findChild(api, parentId, name, signal).then(
        (node) => ({ node }),
        () => undefined,
      )
      if (looked?.node === undefined) {
        // The server is there and the folder is not: what was cut off has never arrived.
        if (looked !== undefined && kind === 'network' && tries < FOLDER_TRIES) continue
        throw error
      }
      if (looked.node.type !== 'file') return { node: looked.node, isNew: false }
      throw new SyncError('conflict', 'EXISTS', 'A file has the name of this folder', { hint: 'Rename one of them.' })
    }
  }
}
