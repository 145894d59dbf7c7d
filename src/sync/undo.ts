/**
 * Takes back what a run did, last things first: out of the recycle bins of both sides, and back to where it was. What has
 * changed since is left alone and told. Nothing is destroyed: what an undo removes goes into the bins, too.
 * @module
 */
import { existsSync, linkSync, readlinkSync, renameSync, rmdirSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { deleteNode, getNode, listChildren, moveNodes, updateFile, updateFolder } from '../api/nodes.ts'
import { restoreDeleted } from '../api/recycle-bin.ts'
import type { RemoteNode } from '../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { escapeName, type NameRules } from '../local/names.ts'
import { createSafeTree } from '../local/safe-tree.ts'
import { createLocalBin } from './local-bin.ts'
import { localChange } from './records.ts'
import { ensureFolder, requireRemote, resolveRemote } from './remote-path.ts'
import { never, type RunContext } from './run.ts'
import { keyOf, lookLocal } from './scan.ts'
import type { Deed, SyncState } from './state.ts'

export interface UndoResult {
  readonly undone: readonly Deed[]
  readonly skipped: readonly { readonly deed: Deed; readonly error: SyncError }[]
}

const changed = (what: string) =>
  new SyncError('changed', 'CHANGED_SINCE', `${what}, so it was left alone`, {
    hint: 'Look at it and decide yourself.',
  })

/** @param runId - Of the run to take back. */
export async function undoRun(
  context: RunContext,
  state: SyncState,
  runId: string,
  options: { readonly dryRun?: boolean; readonly signal?: AbortSignal } = {},
): Promise<UndoResult> {
  const signal = options.signal ?? never
  const deeds = state.deeds(runId).reverse()
  if (options.dryRun) return { undone: deeds, skipped: [] }
  const ownId = state.beginRun({ command: 'undo', startedAt: context.clock.now(), options: { run: runId } })
  const undone: Deed[] = []
  const skipped: { deed: Deed; error: SyncError }[] = []
  const rules = state.runs().find(({ id }) => id === runId)?.options as NameRules | undefined
  const take = createTaker(context, state, ownId, (name) => escapeName(name, { names: rules?.names }), signal)
  for (const deed of deeds) {
    signal.throwIfAborted()
    try {
      await take(deed)
      // Whatever is known of the place is out of date: the next run compares.
      state.remove(keyOf(deed.path.split('/')))
      if ('from' in deed) state.remove(keyOf(deed.from.split('/')))
      undone.push(deed)
    } catch (thrown) {
      const error = toSyncError(signal.aborted ? signal.reason : thrown)
      if (['auth', 'network', 'server', 'rate_limit', 'tls', 'cancelled'].includes(error.class)) throw error
      skipped.push({ deed, error })
    }
  }
  state.endRun(ownId, {
    endedAt: context.clock.now(),
    outcome: skipped.length > 0 ? 'partial' : 'done',
    counts: { undone: undone.length, skipped: skipped.length },
    failed: skipped.map(({ deed, error: { code, message } }) => ({ path: deed.path, code, message })),
  })
  return { undone, skipped }
}

function createTaker(
  { api }: RunContext,
  state: SyncState,
  ownId: string,
  remoteName: (name: string) => string,
  signal: AbortSignal,
) {
  const { local: root, remote } = state.pair
  const records = state.records()
  const tree = createSafeTree(root)
  const bin = createLocalBin(tree, ownId)
  const parts = (path: string) => path.split('/')
  const remotePath = (components: readonly string[]) => [remote, ...components.map(remoteName)].join('/')

  async function folder(components: readonly string[]): Promise<RemoteNode> {
    const { found, missing } = await resolveRemote(api, remotePath(components), signal)
    let node = found.at(-1)
    for (const name of missing) node = await ensureFolder(api, node?.id ?? 0, name, signal)
    if (node === undefined) throw changed('Its folder is gone')
    return node
  }
  /** The node that a run has left, as long as nobody has touched it. */
  async function same(id: number): Promise<RemoteNode> {
    return getNode(api, id, signal).catch((error) => {
      throw toSyncError(error).class === 'not_found' ? changed('It was changed on the server since') : error
    })
  }
  const isFree = async (components: readonly string[]) =>
    (await resolveRemote(api, remotePath(components), signal)).missing.length > 0
  function requireUntouched(components: readonly string[]): void {
    const [entry, record] = [lookLocal(root, components), records.get(keyOf(components))]
    if (entry === undefined || record === undefined || localChange(record, entry) !== 'same') {
      throw changed('It was changed on this disk since')
    }
  }
  /** Puts something back that a bin holds; never over anything. */
  function putBack(binPath: string, components: readonly string[]): void {
    const source = join(root, binPath)
    if (!existsSync(source)) throw changed('The bin does not have it any more')
    const directory = tree.ensureDirectory(components.slice(0, -1))
    try {
      linkSync(source, join(directory, components.at(-1)!))
      unlinkSync(source)
    } catch (error) {
      throw systemCode(error) === 'EEXIST' ? changed('Something else has its name') : localError(error, 'put it back')
    }
  }

  return async function take(deed: Deed): Promise<void> {
    const path = parts(deed.path)
    switch (deed.do) {
      case 'created-remote': {
        const node = await same(deed.id)
        if (deed.isFolder)
          for await (const _child of listChildren(api, node.id, signal)) throw changed('Something is in it')
        return deleteNode(api, node.id, signal)
      }
      case 'replaced-remote': {
        await same(deed.id)
        const parent = await folder(path.slice(0, -1))
        return restoreDeleted(api, [deed.oldId], { parentId: parent.id, resolution: 'overwrite' }, signal)
      }
      case 'deleted-remote': {
        if (deed.isFolder) return void (await folder(path))
        if (!(await isFree(path))) throw changed('Something else has its name')
        const parent = await folder(path.slice(0, -1))
        return restoreDeleted(api, [deed.id], { parentId: parent.id, resolution: 'fail' }, signal)
      }
      case 'moved-remote': {
        const from = parts(deed.from)
        const { node } = await requireRemote(api, remotePath(path), signal).catch(() => ({ node: undefined }))
        if (node?.id !== deed.id) throw changed('It was moved on since')
        const [parent, name] = [await folder(from.slice(0, -1)), remoteName(from.at(-1)!)]
        if (parent.id !== node.parentId) return moveNodes(api, parent.id, [{ id: deed.id, name }], 'fail', signal)
        await (node.type === 'file' ? updateFile : updateFolder)(api, deed.id, { name }, signal)
        return
      }
      case 'created-local':
        if (deed.isDirectory) {
          tree.check(path.slice(0, -1))
          try {
            rmdirSync(join(root, ...path))
          } catch (error) {
            if (systemCode(error) === 'ENOTEMPTY') throw changed('Something is in it')
            if (systemCode(error) !== 'ENOENT') throw localError(error, 'remove it')
          }
          return
        }
        requireUntouched(path)
        bin.take(path)
        return
      case 'replaced-local':
        requireUntouched(path)
        if (!existsSync(join(root, deed.bin))) throw changed('The bin does not have it any more')
        bin.take(path)
        return putBack(deed.bin, path)
      case 'deleted-local':
        if (deed.bin === undefined) return void tree.ensureDirectory(path)
        return putBack(deed.bin, path)
      case 'linked-local': {
        const place = join(root, ...path)
        tree.check(path.slice(0, -1))
        try {
          if (readlinkSync(place) !== deed.target) throw changed('It leads somewhere else')
          unlinkSync(place)
        } catch (error) {
          if (systemCode(error) === 'EINVAL') throw changed('It is no link any more')
          if (systemCode(error) !== 'ENOENT') throw localError(error, 'remove it')
        }
        return
      }
      case 'moved-local': {
        const from = parts(deed.from)
        if (lookLocal(root, from) !== undefined) throw changed('Something else has its name')
        tree.check(path.slice(0, -1))
        tree.ensureDirectory(from.slice(0, -1))
        try {
          renameSync(join(root, ...path), join(root, ...from))
        } catch (error) {
          throw localError(error, 'move it back')
        }
        return
      }
    }
  }
}
