/** The recycle bin of a room: what was deleted or replaced there, and getting it back. @module */
import { type Api, call, callFor } from './api.ts'
import { pages } from './nodes.ts'
import type { Resolution } from './uploads.ts'
import { type DeletedSummary, type DeletedVersion, PAGE, parseDeletedPage, parseDeletedVersions } from './wire.ts'

/** What is in the bin, one entry per place, name and type. */
export const listDeleted = (api: Api, roomId: number, signal?: AbortSignal): AsyncGenerator<DeletedSummary> =>
  pages(
    api,
    ({ lastDeletedNodeId }) => lastDeletedNodeId,
    (offset) =>
      callFor(
        api,
        { method: 'GET', path: `/v4/nodes/${roomId}/deleted_nodes`, query: { offset, limit: PAGE }, signal },
        parseDeletedPage,
      ),
  )

/**
 * Everything in the bin under one name.
 *
 * @param of - `parentPath`: only from there, with a slash at either end.
 */
export async function* listDeletedVersions(
  api: Api,
  roomId: number,
  of: { readonly name: string; readonly type: 'file' | 'folder'; readonly parentPath?: string },
  signal?: AbortSignal,
): AsyncGenerator<DeletedVersion> {
  const path = `/v4/nodes/${roomId}/deleted_nodes/versions`
  const all = pages(
    api,
    ({ id }: DeletedVersion) => id,
    (offset) =>
      callFor(
        api,
        { method: 'GET', path, query: { name: of.name, type: of.type, offset, limit: PAGE }, signal },
        parseDeletedVersions,
      ),
  )
  // The server only knows names: files of one name come from all folders of the room.
  for await (const version of all) {
    if (of.parentPath === undefined || version.parentPath === of.parentPath) yield version
  }
}

/**
 * Puts files and folders back, under the names they had; all or none. What is encrypted can only go back to its own room. Not
 * repeated after a lost answer: the second time they would not be in the bin any more.
 *
 * @param how - `parentId`: to this room or folder instead of where they were. `keepShareLinks`: see `moveNodes`.
 * @throws {SyncError} `EXISTS` when a name is taken (`fail`); `NOT_FOUND` when one is not in the bin, or its folder is gone.
 */
export async function restoreDeleted(
  api: Api,
  deletedIds: readonly number[],
  how: { readonly parentId?: number; readonly resolution: Resolution; readonly keepShareLinks?: boolean | undefined },
  signal?: AbortSignal,
): Promise<void> {
  if (how.parentId !== undefined) await api.places?.enter(how.parentId)
  const json = {
    deletedNodeIds: deletedIds,
    resolutionStrategy: how.resolution,
    keepShareLinks: how.keepShareLinks === true && how.resolution === 'overwrite',
    ...(how.parentId === undefined ? {} : { parentId: how.parentId }),
  }
  await call(api, { method: 'POST', path: '/v4/nodes/deleted_nodes/actions/restore', json, signal })
}

/** Removes things from the bin for good; all or none. */
export async function purgeDeleted(api: Api, deletedIds: readonly number[], signal?: AbortSignal): Promise<void> {
  const json = { deletedNodeIds: deletedIds }
  await call(api, { method: 'DELETE', path: '/v4/nodes/deleted_nodes', json, signal })
}

/** Removes everything in the bin of a room for good. */
export async function emptyBin(api: Api, roomId: number, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: `/v4/nodes/${roomId}/deleted_nodes`, signal })
}
