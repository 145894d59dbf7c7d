/** The remote side of a backup set: its folders, and moving what is out of date into the history. @module */
import type { Api } from '../../api/api.ts'
import { getNode, listChildren, moveNodes } from '../../api/nodes.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { escapeName, type Names } from '../../local/names.ts'
import type { RemoteBin } from '../apply/work.ts'
import { ensureFolder, requireContainer } from '../remote-path.ts'
import { keyOf } from '../scan.ts'
import { ADDED, FILES, HISTORY, RUNS, type SetPlace } from './set.ts'

/** Where a set is at the server. */
export interface Store {
  readonly target: RemoteNode
  readonly roomId: number
  /** Where contents are put. */
  readonly files: RemoteNode
  /** What may go when no run refers to it any more; the same in a set that is only written. */
  readonly history: RemoteNode
  readonly runs: RemoteNode
  readonly isWriteOnly: boolean
}

const notEncrypted = (target: string) =>
  new SyncError('safety', 'NOT_ENCRYPTED', `${target} is not in an encrypted room`, {
    hint: 'Backups go into encrypted rooms only. If this one was encrypted before, ask its administrator what happened.',
  })

/**
 * Looks a set up.
 *
 * @returns with `container` what is there of the way to it; without `store` it has not been begun.
 * @throws {SyncError} `NOT_ENCRYPTED` (class `safety`).
 */
export async function findStore(
  api: Api,
  { target }: SetPlace,
  signal: AbortSignal,
): Promise<{ readonly container: RemoteNode; readonly roomId: number; readonly store: Store | undefined }> {
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  if (container.isEncrypted !== true) throw notEncrypted(target)
  const nothing = { container, roomId, store: undefined }
  if (missing.length > 0) return nothing
  const found = new Map<string, RemoteNode>()
  for await (const node of listChildren(api, container.id, signal))
    if (node.type === 'folder') found.set(node.name, node)
  const [files, history, runs, added] = [FILES, HISTORY, RUNS, ADDED].map((name) => found.get(name))
  if (added !== undefined && runs !== undefined) {
    const contents = { files: sealed(added), history: sealed(added) }
    const store = { target: container, roomId, ...contents, runs: sealed(runs), isWriteOnly: true }
    return { container, roomId, store }
  }
  if (files === undefined || history === undefined || runs === undefined) return nothing
  const contents = { files: sealed(files), history: sealed(history) }
  const store = { target: container, roomId, ...contents, runs: sealed(runs), isWriteOnly: false }
  return { container, roomId, store }
}

/** What is in an encrypted room is encrypted, whatever is said of it. */
const sealed = (node: RemoteNode): RemoteNode => ({ ...node, isEncrypted: true })

/** As `findStore`, but makes what is missing. */
export async function makeStore(
  api: Api,
  { target }: SetPlace,
  isWriteOnly: boolean,
  signal: AbortSignal,
): Promise<Store> {
  const { container, roomId, missing } = await requireContainer(api, target, signal)
  if (container.isEncrypted !== true) throw notEncrypted(target)
  let base = container
  for (const name of missing) base = await ensureFolder(api, base.id, escapeName(name), signal)
  const make = async (name: string) => sealed(await ensureFolder(api, base.id, name, signal))
  const common = { target: base, roomId, isWriteOnly }
  if (!isWriteOnly) return { ...common, files: await make(FILES), history: await make(HISTORY), runs: await make(RUNS) }
  const added = await make(ADDED)
  return { ...common, files: added, history: added, runs: await make(RUNS) }
}

/** @throws {SyncError} `SET_MISSING` (class `not_found`). */
export async function requireStore(api: Api, place: SetPlace, signal: AbortSignal): Promise<Store> {
  const { store } = await findStore(api, place, signal)
  if (store !== undefined) return store
  throw new SyncError('not_found', 'SET_MISSING', `There is no backup in ${place.target}`, {
    hint: 'Is this the target of the set?',
  })
}

/** The history as the bin of one run: what is out of date keeps its path, below the id of the run that replaced or removed it. */
export function createHistory(
  api: Api,
  { id: historyId }: RemoteNode,
  run: string,
  names: Names | undefined,
  signal: AbortSignal,
): RemoteBin {
  const ids = new Map<string, Promise<number>>([['', Promise.resolve(historyId)]])
  /** Each folder is asked for or made once. */
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
  return {
    async take(nodes, folder, stop) {
      const target = await ensure([run, ...folder])
      await moveAll(
        api,
        nodes.map(({ id }) => id),
        target,
        stop,
      )
    },
    async putBack({ id, parentId }) {
      // The current state is better off with an older version than with none.
      if (parentId !== undefined) await moveNodes(api, parentId, [{ id }], 'fail', signal).catch(() => {})
    },
  }
}

/** Nodes that are moved with one request. */
const MOVES = 100

/**
 * Moves nodes of one folder into another, under the names they have. What is gone is passed over.
 *
 * @throws {SyncError} unless all that are there have moved.
 */
async function moveAll(api: Api, ids: readonly number[], targetId: number, signal: AbortSignal): Promise<void> {
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
