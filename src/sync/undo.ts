/**
 * Takes back what a run did, last things first: out of the recycle bins of both sides, and back to where it was. What has
 * changed since is left alone and told. Nothing is destroyed: what an undo removes goes into the bins, too.
 * @module
 */
import { readlinkSync, renameSync, rmdirSync, type Stats, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deleteNode, getNode, listChildren, moveNodes, updateFile, updateFolder } from '../api/nodes.ts'
import { restoreDeleted } from '../api/recycle-bin.ts'
import type { RemoteNode } from '../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { escapeName, type NameRules } from '../local/names.ts'
import { createSafeTree, type SafeTree } from '../local/safe-tree.ts'
import { sameTime } from './conflicts.ts'
import { createLocalBin, dropFromBin } from './local-bin.ts'
import { carryOutMove, finishMove, lookAt, markOf, move } from './local-move.ts'
import { localChange } from './records.ts'
import { recover } from './recovery.ts'
import { ensureFolder, resolveRemote } from './remote-path.ts'
import { never, type RunContext } from './run.ts'
import { keyOf, lookLocal } from './scan.ts'
import type { Deed, LocalMark, Origin, SyncState } from './state.ts'
import type { LocalEntry } from './tree.ts'

export interface UndoResult {
  readonly undone: readonly Deed[]
  readonly skipped: readonly { readonly deed: Deed; readonly error: SyncError }[]
}

const changed = (what: string) =>
  new SyncError('changed', 'CHANGED_SINCE', `${what}, so it was left alone`, {
    hint: 'Look at it and decide yourself.',
  })

/**
 * A deed that was taken back is marked as such, so the same call goes on where another one was killed; each deed that may be
 * half taken back is finished.
 *
 * @param runId - Of the run to take back.
 */
export async function undoRun(
  context: RunContext,
  state: SyncState,
  runId: string,
  options: { readonly dryRun?: boolean; readonly signal?: AbortSignal } = {},
): Promise<UndoResult> {
  const signal = options.signal ?? never
  if (options.dryRun) {
    const deeds = state.deeds(runId).map(({ deed }) => deed)
    return { undone: deeds.reverse(), skipped: [] }
  }
  recover(state, context.clock.now())
  const deeds = state.deeds(runId).reverse()
  const ownId = state.beginRun({ command: 'undo', startedAt: context.clock.now(), options: { run: runId } })
  const undone: Deed[] = []
  const skipped: { deed: Deed; error: SyncError }[] = []
  const rules = state.runs().find(({ id }) => id === runId)?.options as NameRules | undefined
  // An upload changes nothing here, and has no root.
  const tree = createSafeTree(state.pair.transfer?.direction === 'upload' ? tmpdir() : state.pair.local)
  const take = createTaker(context, state, tree, ownId, (name) => escapeName(name, { names: rules?.names }), signal)
  // What is older comes back on purpose.
  state.readmit(deeds.flatMap(({ deed }) => keysOf(deed)))
  try {
    for (const { number, deed } of deeds) {
      signal.throwIfAborted()
      try {
        await take(deed)
        // Whatever is known of the place is out of date: the next run compares.
        for (const key of keysOf(deed)) state.remove(key)
        state.dropDeed(runId, number)
        undone.push(deed)
      } catch (thrown) {
        const error = toSyncError(signal.aborted ? signal.reason : thrown)
        if (['auth', 'network', 'server', 'rate_limit', 'tls', 'cancelled'].includes(error.class)) throw error
        skipped.push({ deed, error })
      }
    }
  } finally {
    tree.close()
  }
  state.endRun(ownId, {
    endedAt: context.clock.now(),
    outcome: skipped.length > 0 ? 'partial' : 'done',
    counts: { undone: undone.length, skipped: skipped.length },
    failed: skipped.map(({ deed, error: { code, message } }) => ({ path: deed.path, code, message })),
  })
  return { undone, skipped }
}

const keysOf = (deed: Deed): string[] =>
  ('from' in deed ? [deed.path, deed.from] : [deed.path]).map((path) => keyOf(path.split('/')))

function createTaker(
  { api }: RunContext,
  state: SyncState,
  tree: SafeTree,
  ownId: string,
  remoteName: (name: string) => string,
  signal: AbortSignal,
) {
  const { local: root, remote } = state.pair
  const records = state.records()
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
  function requireUntouched(components: readonly string[], origin: Origin | undefined): void {
    const [entry, record] = [lookLocal(root, components), records.get(keyOf(components))]
    const isAsMade = (now: LocalEntry) =>
      record === undefined
        ? origin !== undefined && now.size === origin.node.size && sameTime(origin.node.modified, now.mtimeMs)
        : localChange(record, now) === 'same'
    if (entry === undefined || !isAsMade(entry)) throw changed('It was changed on this disk since')
  }
  /** Puts something back that a bin holds; never over anything. */
  function putBack(binPath: string, components: readonly string[], was: LocalMark): void {
    const [source, now] = [lookAt(join(root, binPath)), lookAt(join(root, ...components))]
    if (source === undefined) {
      if (isSame(now, was)) return
      throw changed('The bin does not have it any more')
    }
    if (now !== undefined && !(now.ino === source.ino && now.isFile())) throw changed('Something else has its name')
    const place = parts(binPath)
    try {
      tree.within(place.slice(0, -1), (bin) =>
        tree.within(components.slice(0, -1), (directory) => {
          const [kept, target] = [bin.at(place.at(-1)!), directory.at(components.at(-1)!)]
          if (!source.isFile()) renameSync(kept, target)
          else if (now === undefined) move(kept, target)
        }),
      )
    } catch (error) {
      throw systemCode(error) === 'EEXIST' ? changed('Something else has its name') : localError(error, 'put it back')
    }
    dropFromBin(root, binPath)
  }

  return async function take(deed: Deed): Promise<void> {
    const path = parts(deed.path)
    switch (deed.do) {
      case 'created-remote': {
        const node = await find(deed.id)
        if (node === undefined) {
          if ((await at(path)) !== undefined) throw changed('It was changed on the server since')
          return
        }
        if (deed.isFolder)
          for await (const _child of listChildren(api, node.id, signal)) throw changed('Something is in it')
        return deleteNode(api, node.id, signal)
      }
      case 'replaced-remote': {
        if ((await find(deed.id)) === undefined) {
          // Taken back already, by an attempt whose end nobody saw.
          if ((await at(path))?.id === deed.oldId) return
          throw changed('It was changed on the server since')
        }
        const parent = await folder(path.slice(0, -1))
        return restoreDeleted(api, [deed.oldId], { parentId: parent.id, resolution: 'overwrite' }, signal)
      }
      case 'deleted-remote': {
        if (deed.isFolder) return void (await folder(path))
        const now = await at(path)
        if (now?.id === deed.id) return
        if (now !== undefined) throw changed('Something else has its name')
        const parent = await folder(path.slice(0, -1))
        return restoreDeleted(api, [deed.id], { parentId: parent.id, resolution: 'fail' }, signal)
      }
      case 'moved-remote': {
        const from = parts(deed.from)
        const node = await at(path)
        if (node?.id !== deed.id) {
          if ((await at(from))?.id === deed.id) return
          throw changed('It was moved on since')
        }
        const [parent, name] = [await folder(from.slice(0, -1)), remoteName(from.at(-1)!)]
        if (parent.id !== node.parentId) return moveNodes(api, parent.id, [{ id: deed.id, name }], 'fail', signal)
        await (node.type === 'file' ? updateFile : updateFolder)(api, deed.id, { name }, signal)
        return
      }
      case 'created-local':
        tree.check(path.slice(0, -1))
        if (deed.isDirectory) {
          try {
            tree.within(path.slice(0, -1), (directory) => rmdirSync(directory.at(path.at(-1)!)))
          } catch (error) {
            if (systemCode(error) === 'ENOTEMPTY') throw changed('Something is in it')
            if (systemCode(error) !== 'ENOENT') throw localError(error, 'remove it')
          }
          return
        }
        if (lookAt(join(root, ...path)) === undefined) return
        requireUntouched(path, deed.origin)
        bin.take(path)
        return
      case 'replaced-local': {
        const [now, kept] = [lookAt(join(root, ...path)), lookAt(join(root, deed.bin))]
        // Back already, or nearly: then it has two names.
        const isNew = now !== undefined && records.get(keyOf(path))?.local?.ino === now.ino
        const isBack =
          now !== undefined && (kept === undefined ? !isNew && isSame(now, deed.was) : kept.ino === now.ino)
        if (now !== undefined && !isBack) {
          if (kept === undefined) throw changed('The bin does not have it any more')
          requireUntouched(path, deed.origin)
          bin.take(path)
        }
        return putBack(deed.bin, path, deed.was)
      }
      case 'deleted-local':
        if (deed.bin === undefined) return void tree.ensureDirectory(path)
        return putBack(deed.bin, path, deed.was)
      case 'linked-local': {
        try {
          tree.within(path.slice(0, -1), (directory) => {
            const place = directory.at(path.at(-1)!)
            if (readlinkSync(place) !== deed.target) throw changed('It leads somewhere else')
            unlinkSync(place)
          })
        } catch (error) {
          if (systemCode(error) === 'EINVAL') throw changed('It is no link any more')
          if (systemCode(error) !== 'ENOENT') throw localError(error, 'remove it')
        }
        return
      }
      case 'moved-local': {
        const from = parts(deed.from)
        tree.check(path.slice(0, -1))
        tree.ensureDirectory(from.slice(0, -1))
        const back = { ...deed, path: deed.from, from: deed.path }
        try {
          const outcome = finishMove(root, back)
          if (outcome === undefined) throw changed('It was moved on since')
          if (outcome === 'moved') return
          if (deed.via === undefined && lookAt(join(root, ...from)) !== undefined) {
            throw changed('Something else has its name')
          }
          carryOutMove(tree, back)
        } catch (error) {
          throw localError(error, 'move it back')
        }
        return
      }
    }
  }
}

/** True for the file that it was, or its copy from a bin on a disk without second names, as far as can be told. */
const isSame = (now: Stats | undefined, was: LocalMark): boolean => {
  if (now === undefined) return false
  const { ino, size, mtimeMs } = markOf(now)
  // A copy has its time to the microsecond.
  return now.isFile() ? size === was.size && Math.abs(mtimeMs - was.mtimeMs) < 0.002 : ino === was.ino
}
