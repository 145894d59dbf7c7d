/** Takes back what a run did at the server. @module */
import type { Api } from '../../api/api.ts'
import { deleteNode, getNode, listChildren, moveNodes, updateFile, updateFolder } from '../../api/nodes.ts'
import { restoreDeleted } from '../../api/recycle-bin.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { toSyncError } from '../../errors.ts'
import { ensureFolder, resolveRemote } from '../remote-path.ts'
import { isManifest } from '../scan.ts'
import { changed, type DeedOf } from './deed.ts'

/**
 * @param remote - Path of the remote root.
 * @param nameThere - The name that something of this disk has there.
 */
export function createRemoteTaker(api: Api, remote: string, nameThere: (name: string) => string, signal: AbortSignal) {
  const parts = (path: string) => path.split('/')
  const remotePath = (components: readonly string[]) => [remote, ...components.map(nameThere)].join('/')

  async function folder(components: readonly string[]): Promise<RemoteNode> {
    const { found, missing } = await resolveRemote(api, remotePath(components), signal)
    let node = found.at(-1)
    for (const name of missing) node = await ensureFolder(api, node?.id ?? 0, name, signal)
    if (node === undefined) throw changed('Its folder is gone')
    return node
  }
  /** A node, if it is not in the recycle bin. */
  async function find(id: number): Promise<RemoteNode | undefined> {
    return getNode(api, id, signal).catch((error) => {
      if (toSyncError(error).class === 'not_found') return undefined
      throw error
    })
  }
  /** What stands at a place now. */
  async function at(components: readonly string[]): Promise<RemoteNode | undefined> {
    const { found, missing } = await resolveRemote(api, remotePath(components), signal)
    return missing.length === 0 ? found.at(-1) : undefined
  }

  return {
    /**
     * Removes the manifest, whichever run has stored it, when nothing else is left that it could describe.
     *
     * @returns false when it stays.
     */
    async manifest(): Promise<boolean> {
      const { found, missing } = await resolveRemote(api, remote, signal)
      const root = found.at(-1)
      if (missing.length > 0 || root === undefined || root.type === 'file') return true
      const inside: RemoteNode[] = []
      for await (const node of listChildren(api, root.id, signal)) inside.push(node)
      if (inside.some((node) => !isManifest(node))) return false
      for (const { id } of inside) await deleteNode(api, id, signal)
      return true
    },
    /**
     * Removes a folder that was made for the whole tree, or for the way to it.
     *
     * @returns false when it stays, since it is there for what others have put into it, too.
     */
    async place(id: number): Promise<boolean> {
      const node = await find(id)
      if (node === undefined) return true
      for await (const _child of listChildren(api, node.id, signal)) return false
      await deleteNode(api, node.id, signal)
      return true
    },
    async 'created-remote'({ path, id, isFolder }: DeedOf<'created-remote'>): Promise<void> {
      const node = await find(id)
      if (node === undefined) {
        if ((await at(parts(path))) !== undefined) throw changed('It was changed on the server since')
        return
      }
      if (isFolder) for await (const _child of listChildren(api, node.id, signal)) throw changed('Something is in it')
      return deleteNode(api, node.id, signal)
    },
    async 'replaced-remote'({ path, id, oldId }: DeedOf<'replaced-remote'>): Promise<void> {
      if ((await find(id)) === undefined) {
        // Taken back already, by an attempt whose end nobody saw.
        if ((await at(parts(path)))?.id === oldId) return
        throw changed('It was changed on the server since')
      }
      const parent = await folder(parts(path).slice(0, -1))
      return restoreDeleted(api, [oldId], { parentId: parent.id, resolution: 'overwrite' }, signal)
    },
    async 'deleted-remote'({ path, id, isFolder }: DeedOf<'deleted-remote'>): Promise<void> {
      if (isFolder) return void (await folder(parts(path)))
      const now = await at(parts(path))
      if (now?.id === id) return
      if (now !== undefined) throw changed('Something else has its name')
      const parent = await folder(parts(path).slice(0, -1))
      return restoreDeleted(api, [id], { parentId: parent.id, resolution: 'fail' }, signal)
    },
    async 'moved-remote'({ path, from, id }: DeedOf<'moved-remote'>): Promise<void> {
      const old = parts(from)
      const node = await at(parts(path))
      if (node?.id !== id) {
        if ((await at(old))?.id === id) return
        throw changed('It was moved on since')
      }
      const [parent, name] = [await folder(old.slice(0, -1)), nameThere(old.at(-1)!)]
      if (parent.id !== node.parentId) return moveNodes(api, parent.id, [{ id, name }], 'fail', signal)
      await (node.type === 'file' ? updateFile : updateFolder)(api, id, { name }, signal)
    },
  }
}
