/** The remote side of a backup set: its folders, and moving what is out of date into the history. @module */
import type { Api } from '../../api/api.ts'
import { getNode, listChildren, moveNodes } from '../../api/nodes.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { escapeName, type Names } from '../../local/names.ts'
import { ensureFolder, requireContainer } from '../remote-path.ts'
import { keyOf, type RemoteItem } from '../scan.ts'
import { FILES, HISTORY, RUNS, type SetPlace } from './set.ts'

export interface Store {
  readonly target: RemoteNode
  readonly roomId: number
  readonly files: RemoteNode
  readonly history: RemoteNode
  readonly runs: RemoteNode
}

const notEncrypted = (target: string) =>
  new SyncError('safety', 'NOT_ENCRYPTED', `${target} is not in an encrypted room`, {
    hint: 'Backups go into encrypted rooms only. If this one was encrypted before, ask its administrator what happened.',
  })

/**
 * Looks a set up; `undefined` when it has not been begun.
 *
 * @throws {SyncError} `NOT_ENCRYPTED` (class `safety`).
 */
export async function findStore(api: Api, { target }: SetPlace, signal: AbortSignal): Promise<Store | undefined> {
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  if (container.isEncrypted !== true) throw notEncrypted(target)
  if (missing.length > 0) return undefined
  const found = new Map<string, RemoteNode>()
  for await (const node of listChildren(api, container.id, signal))
    if (node.type === 'folder') found.set(node.name, node)
  const [files, history, runs] = [FILES, HISTORY, RUNS].map((name) => found.get(name))
  if (files === undefined || history === undefined || runs === undefined) return undefined
  return { target: container, roomId, files: sealed(files), history: sealed(history), runs: sealed(runs) }
}

/** What is in an encrypted room is encrypted, whatever is said of it. */
const sealed = (node: RemoteNode): RemoteNode => ({ ...node, isEncrypted: true })

/** As `findStore`, but makes what is missing. */
export async function makeStore(api: Api, { target }: SetPlace, signal: AbortSignal): Promise<Store> {
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  if (container.isEncrypted !== true) throw notEncrypted(target)
  let base = container
  for (const name of missing) base = await ensureFolder(api, base.id, escapeName(name), signal)
  const make = async (name: string) => sealed(await ensureFolder(api, base.id, name, signal))
  return { target: base, roomId, files: await make(FILES), history: await make(HISTORY), runs: await make(RUNS) }
}

/** @throws {SyncError} `SET_MISSING` (class `not_found`). */
export async function requireStore(api: Api, place: SetPlace, signal: AbortSignal): Promise<Store> {
  const store = await findStore(api, place, signal)
  if (store !== undefined) return store
  throw new SyncError('not_found', 'SET_MISSING', `There is no backup in ${place.target}`, {
    hint: 'Is this the target of the set?',
  })
}

export interface Folders {
  /** Id of the folder with this path of local names, made if missing. */
  ensure(path: readonly string[]): Promise<number>
}

/** Folders below one node, each asked for or made once. */
export function createFolders(
  api: Api,
  rootId: number,
  known: Iterable<RemoteItem>,
  signal: AbortSignal,
  names: Names | undefined,
): Folders {
  const ids = new Map<string, Promise<number>>([['', Promise.resolve(rootId)]])
  for (const { kind, path, node } of known) if (kind === 'directory') ids.set(keyOf(path), Promise.resolve(node.id))
  function ensure(path: readonly string[]): Promise<number> {
    const key = keyOf(path)
    const there = ids.get(key)
    if (there !== undefined) return there
    const making = ensure(path.slice(0, -1)).then(
      async (parent) => (await ensureFolder(api, parent, escapeName(path.at(-1)!, { names }), signal)).id,
    )
    making.catch(() => ids.delete(key)) // another file may try again
    ids.set(key, making)
    return making
  }
  return { ensure }
}

/** Nodes that are moved with one request. */
const MOVES = 100

/**
 * Moves nodes of one folder into another, under the names they have. What is gone is passed over.
 *
 * @throws {SyncError} unless all that are there have moved.
 */
export async function moveAll(api: Api, ids: readonly number[], targetId: number, signal: AbortSignal): Promise<void> {
  for (let at = 0; at < ids.length; at += MOVES) {
    const batch = ids.slice(at, at + MOVES)
    const move = (some: readonly number[]) =>
      moveNodes(
        api,
        targetId,
        some.map((id) => ({ id })),
        'fail',
        signal,
      )
    try {
      await move(batch)
    } catch {
      // One may be gone, or the answer was lost: each by itself.
      for (const id of batch) {
        signal.throwIfAborted()
        const now = await findNode(api, id, signal)
        if (now !== undefined && now.parentId !== targetId) await move([id])
      }
    }
  }
}

/** A node, or `undefined` when it is not there any more. */
export async function findNode(api: Api, id: number, signal: AbortSignal): Promise<RemoteNode | undefined> {
  try {
    return await getNode(api, id, signal)
  } catch (error) {
    if (toSyncError(error).class === 'not_found') return undefined
    throw error
  }
}
