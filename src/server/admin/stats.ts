/** What a server holds, in numbers. @module */
import { statSync } from 'node:fs'
import { FILE, ROOM } from '../records.ts'
import { dataFileOf, type Store } from '../store.ts'

/** Counts of records; sizes in bytes. */
export interface StoreStats {
  users: number
  disabledUsers: number
  groups: number
  clients: number
  rooms: number
  encryptedRooms: number
  folders: number
  files: number
  /** In recycle bins, without what is in deleted folders. */
  deleted: number
  /** Of all files, recycle bins included; content that several share counts once. */
  contents: number
  contentBytes: number
  logins: number
  /** Length of the file of the metadata. */
  metadataBytes: number
}

/** Nodes looked at before others get a turn. */
const SLICE = 2_000

/** Counts what is there; takes turns with others, so the numbers may be of slightly different moments. */
export async function storeStats(store: Store, dataDir: string): Promise<StoreStats> {
  let [rooms, encryptedRooms, folders, files, contentBytes] = [0, 0, 0, 0, 0]
  for (let after = 0; ; ) {
    const nodes = [...store.nodes.getRange({ start: after + 1, limit: SLICE })]
    for (const { value } of nodes) {
      if (value.type === FILE) files++
      else if (value.type !== ROOM) folders++
      else {
        rooms++
        if (value.encrypted) encryptedRooms++
      }
    }
    const last = nodes.at(-1)
    if (last === undefined || nodes.length < SLICE) break
    after = last.key
    await new Promise((resolve) => setImmediate(resolve))
  }
  for (let after = ''; ; ) {
    const contents = [...store.contents.getRange({ start: `${after}\u0000`, limit: SLICE })]
    for (const { value } of contents) contentBytes += value.size
    const last = contents.at(-1)
    if (last === undefined || contents.length < SLICE) break
    after = last.key
    await new Promise((resolve) => setImmediate(resolve))
  }
  const users = [...store.users.getRange({})]
  const families = new Set<string>()
  for (const [family] of store.families.getKeys({})) families.add(family)
  return {
    users: users.length,
    disabledUsers: users.filter(({ value }) => value.disabledAt !== undefined).length,
    groups: store.groups.getCount({}),
    clients: store.clients.getCount({}),
    rooms,
    encryptedRooms,
    folders,
    files,
    deleted: store.deleted.getCount({}),
    contents: store.contents.getCount({}),
    contentBytes,
    logins: families.size,
    metadataBytes: statSync(dataFileOf(dataDir)).size,
  }
}
