/**
 * Deletions. They come last, and only when all else went well; what goes on the server goes into its recycle bin, what goes here into
 * the bin of the directory.
 * @module
 */
import { rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { deleteNode, deleteNodes, listChildren } from '../../api/nodes.ts'
import { localError, type SyncError, systemCode, toSyncError } from '../../errors.ts'
import { checkUnchanged } from '../../transfer/complete.ts'
import { changedHere, lookAt, markOf } from '../local-move.ts'
import type { SyncStep } from '../reconcile.ts'
import { forgetBelow } from '../recovery.ts'
import { entryUnder, showPath } from '../tree.ts'
import type { StepOf, Work } from './work.ts'

export type Removal = StepOf<'delete-remote' | 'delete-local' | 'take-link'>

export const isRemoval = (step: SyncStep): step is Removal =>
  step.do === 'delete-remote' || step.do === 'delete-local' || step.do === 'take-link'

/**
 * Carries out deletions in the order of the plan.
 *
 * @returns how many things are gone.
 */
export async function removeAll(
  work: Work,
  steps: readonly Removal[],
  failed: (step: SyncStep, error: SyncError) => void,
): Promise<number> {
  let count = await removeRemoteFiles(work, steps, failed)
  for (const step of steps) {
    work.signal.throwIfAborted()
    try {
      if (step.do === 'delete-local') count += removeLocal(work, step) ? 1 : 0
      else if (step.do === 'take-link') takeLink(work, step)
      else if (step.remote.kind === 'directory') count += (await removeFolder(work, step)) ? 1 : 0
    } catch (error) {
      failed(step, toSyncError(error))
    }
  }
  return count
}

const DELETE_BATCH = 100

async function removeRemoteFiles(
  work: Work,
  steps: readonly SyncStep[],
  failed: (step: SyncStep, error: SyncError) => void,
): Promise<number> {
  const byParent = new Map<number, StepOf<'delete-remote'>[]>()
  for (const step of steps) {
    if (step.do !== 'delete-remote' || step.remote.kind === 'directory') continue
    const parent = step.remote.node.parentId ?? 0
    const siblings = byParent.get(parent)
    if (siblings === undefined) byParent.set(parent, [step])
    else siblings.push(step)
  }
  let count = 0
  for (const siblings of byParent.values()) {
    for (let at = 0; at < siblings.length; at += DELETE_BATCH) {
      work.signal.throwIfAborted()
      const ready: StepOf<'delete-remote'>[] = []
      const { remoteBin } = work
      const checks = siblings.slice(at, at + DELETE_BATCH).map(async (step) => {
        // What is kept elsewhere is not lost, whatever is here, and whoever has changed it.
        if (remoteBin === undefined) {
          if (isBack(work, step)) throw changedHere()
          await checkUnchanged(work.api, step.remote.node, work.signal)
        }
        ready.push(step)
      })
      for (const [index, outcome] of (await Promise.allSettled(checks)).entries()) {
        if (outcome.status === 'rejected') failed(siblings[at + index]!, toSyncError(outcome.reason))
      }
      if (ready.length === 0) continue
      if (remoteBin === undefined) await deleteAll(work, ready)
      else {
        const nodes = ready.map(({ remote }) => remote.node)
        await remoteBin.take(nodes, ready[0]!.path.slice(0, -1), work.signal)
      }
      for (const { key, path, remote } of ready) {
        work.change().delete(key)
        work.state.remove(key)
        work.deed({ do: 'deleted-remote', path: showPath(path), id: remote.node.id, isFolder: false })
        count++
      }
    }
  }
  return count
}

/** True when it was empty and is gone. */
async function removeFolder(work: Work, step: StepOf<'delete-remote'>): Promise<boolean> {
  const { key, path, remote } = step
  if (work.remoteBin === undefined && isBack(work, step)) return false
  for await (const _child of listChildren(work.api, remote.node.id, work.signal)) return false
  await deleteNode(work.api, remote.node.id, work.signal).catch((error) => {
    if (toSyncError(error).class !== 'not_found') throw error
  })
  work.state.remove(key)
  work.deed({ do: 'deleted-remote', path: showPath(path), id: remote.node.id, isFolder: true })
  return true
}

function takeLink(work: Work, { path }: StepOf<'take-link'>): void {
  const shown = showPath(path)
  const now = lookAt(join(work.root, ...path))
  if (now?.isSymbolicLink() !== true) throw changedHere()
  const taken = { do: 'deleted-local', path: shown, bin: work.bin().placeOf(path), was: markOf(now) } as const
  work.doLocally(taken, `move ${shown} into the bin`, () => work.bin().take(path))
}

function removeLocal(work: Work, { key, path, local: entry, whole }: StepOf<'delete-local'>): boolean {
  const shown = showPath(path)
  const was = markOf(entry)
  if (whole !== undefined) {
    for (const one of whole) work.requireSame(one)
    const taken = { do: 'deleted-local', path: shown, bin: work.bin().placeOf(path), was } as const
    work.doLocally(taken, `move ${shown} into the bin`, () => work.bin().take(path))
    work.lookAnew()
    forgetBelow(work.state, key)
    return true
  }
  if (entry.kind === 'directory') {
    let isLeft = false
    work.local().check(path.slice(0, -1))
    const removed = { do: 'deleted-local', path: shown, was } as const
    const number = work.state.addDeed(work.runId, removed)
    try {
      work.local().within(path.slice(0, -1), (directory) => rmdirSync(directory.at(path.at(-1)!)))
    } catch (error) {
      // Something is in it that takes no part in this.
      isLeft = systemCode(error) === 'ENOTEMPTY' || systemCode(error) === 'EEXIST'
      if (isLeft || systemCode(error) !== 'ENOENT') work.state.dropDeed(work.runId, number)
      if (!isLeft && systemCode(error) !== 'ENOENT') throw localError(error, `remove ${shown}`)
    }
    if (isLeft) return false
    work.tellDone(removed)
  } else {
    work.requireSame(entryUnder(entry, path))
    const taken = { do: 'deleted-local', path: shown, bin: work.bin().placeOf(path), was } as const
    work.doLocally(taken, `move ${shown} into the bin`, () => work.bin().take(path))
  }
  work.state.remove(key)
  return true
}

/** True when what is gone here is here again. */
function isBack(work: Work, { path, remote }: StepOf<'delete-remote'>): boolean {
  const now = lookAt(join(work.root, ...path))
  return remote.kind === 'file' ? now?.isFile() === true : now?.isDirectory() === true
}

async function deleteAll(work: Work, steps: readonly StepOf<'delete-remote'>[]): Promise<void> {
  try {
    await deleteNodes(
      work.api,
      steps.map(({ remote }) => remote.node.id),
      work.signal,
    )
  } catch (error) {
    if (toSyncError(error).class !== 'not_found') throw error
    // One is gone already: the others one by one.
    for (const { remote } of steps) {
      await deleteNode(work.api, remote.node.id, work.signal).catch((one) => {
        if (toSyncError(one).class !== 'not_found') throw one
      })
    }
  }
}
