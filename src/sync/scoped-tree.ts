/**
 * Some places of a remote tree, found by listing only the folders that lead to them. What leads there has to be what is recorded;
 * else somebody has moved things, and everything has to be looked at.
 * @module
 */
import type { Api } from '../api/api.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { SyncRecord } from './records.ts'
import { arrangeRemote, keyOf, type RemoteScan, type ScanOptions } from './scan.ts'
import type { Scope } from './scope.ts'
import { type RemoteEntry, readRemoteTree } from './tree.ts'

/** Folders that are listed for it, and entries of one; with more it is sooner looked at everything. */
const FOLDERS_AT_MOST = 200
const ENTRIES_AT_MOST = 5_000

/** @returns `undefined` when everything has to be looked at. */
export async function readScope(
  api: Api,
  root: RemoteNode,
  roomId: number,
  records: ReadonlyMap<string, SyncRecord>,
  how: ScanOptions & { readonly scope: Scope; readonly foldCase: boolean },
): Promise<RemoteScan | undefined> {
  const { scope, signal } = how
  let folders = 0
  let isTooMuch = !isShort(root)
  const enter = ({ path, node }: RemoteEntry): boolean => {
    if (isTooMuch || !scope.has(keyOf(path))) return false
    isTooMuch = ++folders > FOLDERS_AT_MOST || !isShort(node)
    return !isTooMuch
  }
  if (isTooMuch) return undefined
  const entries = await readRemoteTree(api, root, roomId, { enter, ...(signal === undefined ? {} : { signal }) })
  if (isTooMuch) return undefined
  const scan = arrangeRemote(entries, how)
  for (const key of scope.above) {
    const [item, record] = [scan.items.get(key), records.get(key)]
    if (item?.kind !== 'directory' || record?.kind !== 'directory' || item.node.id !== record.remote.id)
      return undefined
  }
  for (const key of scan.items.keys()) if (!scope.has(key)) scan.items.delete(key)
  return scan
}

const isShort = ({ cntFiles = 0, cntFolders = 0, cntRooms = 0 }: RemoteNode): boolean =>
  cntFiles + cntFolders + cntRooms <= ENTRIES_AT_MOST
