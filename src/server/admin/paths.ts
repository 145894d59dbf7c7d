/** Paths of nodes for people, and rooms by their paths. @module */
import { type NodeRecord, ROOM } from '../records.ts'
import type { Store } from '../store.ts'
import { childByName } from '../tree.ts'

/** Path of a node, also of one that is in a recycle bin. */
export function pathOf(store: Store, nodeId: number): string {
  let path = ''
  for (let id = nodeId; id !== 0; ) {
    const node = store.nodes.get(id) ?? store.deleted.get(id)
    if (node === undefined) break
    path = `/${node.name}${path}`
    id = node.parentId
  }
  return path === '' ? '/' : path
}

/** The room at a path. */
export function roomAt(store: Store, path: string): NodeRecord | undefined {
  let room: NodeRecord | undefined
  for (const name of path.split('/').filter((part) => part !== '')) {
    room = childByName(store, room?.id ?? 0, name.normalize('NFC'))
    if (room?.type !== ROOM) return undefined
  }
  return room
}
