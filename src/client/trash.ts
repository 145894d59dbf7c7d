/** What was removed or replaced and is still in the recycle bin of its room, and the versions of one file in it. @module */
import { emptyBin, listDeleted, listDeletedVersions, purgeDeleted, restoreDeleted } from '../api/recycle-bin.ts'
import type { DeletedSummary, DeletedVersion } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { parseRemotePath, requireContainer, requireRemote } from '../sync/remote-path.ts'
import { shareKeysOf } from '../transfer/share-keys.ts'
import { keepingLinks } from '../transfer/share-links.ts'
import type { Abortable, ClientContext } from './context.ts'
import { requireEntry } from './entries.ts'
import { requireRoom } from './rooms.ts'

export type { DeletedSummary, DeletedVersion } from '../api/wire.ts'

/**
 * What is in the recycle bin of a room: one entry per place, name and type, with the number of versions.
 *
 * @param path - Of the room; of a folder: what was in it, at any depth.
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM` for a file, `FORBIDDEN`.
 */
export async function* list(
  context: ClientContext,
  path: string,
  { signal }: Abortable,
): AsyncGenerator<DeletedSummary> {
  const { entry, roomId } = await requireEntry(context, path, signal)
  if (entry.type === 'file') throw new SyncError('usage', 'NOT_A_ROOM', `Neither a room nor a folder: ${path}`)
  for await (const one of listDeleted(context.api, roomId, signal)) {
    if (entry.type === 'room' || one.parentPath.startsWith(`${entry.path}/`)) yield one
  }
}

/**
 * All that is in the bin under one path, newest first. Of a file that is there, these are its older versions.
 *
 * @param path - Where it was: `/room/folder/name`. The room has to be there still, the folders need not.
 * @param options - `type`: default `file`.
 * @throws {SyncError} `REMOTE_MISSING`, `TARGET_IS_ROOT` for a room, which is in no bin.
 */
export async function* versions(
  context: ClientContext,
  path: string,
  { type = 'file', signal }: Abortable & { readonly type?: 'file' | 'folder' | undefined },
): AsyncGenerator<DeletedVersion> {
  const names = parseRemotePath(path)
  const above = names.slice(0, -1)
  if (above.length === 0) {
    throw new SyncError('usage', 'TARGET_IS_ROOT', 'Only what was in a room can be in a recycle bin', {
      hint: 'Name a file or folder: /room/file',
    })
  }
  const { roomId } = await requireContainer(context.api, `/${above.join('/')}`, signal)
  const of = { name: names.at(-1)!, type, parentPath: `/${above.join('/')}/` }
  const found: DeletedVersion[] = []
  for await (const version of listDeletedVersions(context.api, roomId, of, signal)) found.push(version)
  yield* found.sort((a, b) => (b.deletedAt ?? 0) - (a.deletedAt ?? 0) || b.id - a.id)
}

/** Where deleted things come back, and over what. */
export interface RestoreOptions extends Abortable {
  /** Path of a room or folder to put them into, instead of where they were. */
  readonly into?: string | undefined
  /** Where a file has the name: `overwrite` puts that one into the bin. Default `fail`. */
  readonly onConflict?: 'fail' | 'overwrite' | undefined
  /** Links of files that make way lead to what comes back then; a warning tells of those that cannot. Default false: they end. */
  readonly keepShareLinks?: boolean | undefined
}

/**
 * Puts things back, all or none. What is encrypted can only go back to its own room.
 *
 * @param ids - Of `versions`, or `lastDeletedNodeId` of `list`.
 * @throws {SyncError} `EXISTS`, `OTHER_ROOM`; `NOT_FOUND` when one is not in the bin, or its folder is gone.
 */
export async function restore(
  context: ClientContext,
  ids: readonly number[],
  { into, onConflict = 'fail', keepShareLinks, signal }: RestoreOptions,
): Promise<void> {
  const parent = into === undefined ? undefined : (await requireRemote(context.api, into, signal)).node
  const how = { resolution: onConflict, keepShareLinks, ...(parent === undefined ? {} : { parentId: parent.id }) }
  await bringBack(context, ids, how, signal)
}

function bringBack(
  context: ClientContext,
  ids: readonly number[],
  how: Parameters<typeof restoreDeleted>[2],
  signal: AbortSignal | undefined,
): Promise<void> {
  const { api, keyring, onEvent } = context
  const work = () => restoreDeleted(api, ids, how, signal)
  if (how.keepShareLinks !== true) return work()
  return keepingLinks({ api, keyring, keys: shareKeysOf(context), onEvent }, work, signal)
}

/**
 * Makes an older version of a file the current one; the one that was current goes into the bin.
 *
 * @param path - Of the file.
 * @param id - Of `versions`.
 * @throws {SyncError} `REMOTE_MISSING`; `NOT_FOUND` when it is not in the bin.
 */
export async function restoreVersion(
  context: ClientContext,
  path: string,
  id: number,
  { keepShareLinks, signal }: Abortable & Pick<RestoreOptions, 'keepShareLinks'>,
): Promise<void> {
  for await (const version of versions(context, path, { signal })) {
    if (version.id === id) return bringBack(context, [id], { resolution: 'overwrite', keepShareLinks }, signal)
  }
  throw new SyncError('not_found', 'NOT_FOUND', `There is no version ${id} of ${path} in the recycle bin`)
}

/**
 * Removes things from the bin for good, all or none.
 *
 * @throws {SyncError} `NOT_FOUND`, `FORBIDDEN`.
 */
export const purge = (context: ClientContext, ids: readonly number[], { signal }: Abortable): Promise<void> =>
  purgeDeleted(context.api, ids, signal)

/** Removes everything in the bin of a room for good. */
export async function empty(context: ClientContext, room: string, { signal }: Abortable): Promise<void> {
  const { id } = await requireRoom(context, room, signal)
  await emptyBin(context.api, id, signal)
}
