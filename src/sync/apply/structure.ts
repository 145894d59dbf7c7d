/** Steps that give things their places: folders and directories, moves, and names that make way. @module */
import { join } from 'node:path'
import { getNode, moveNodes, updateFile, updateFolder } from '../../api/nodes.ts'
import { type SyncError, toSyncError } from '../../errors.ts'
import { carryOutMove, changedHere, lookAt, planMove } from '../local-move.ts'
import { createTally, type OutageRule, runEntries } from '../outcome.ts'
import type { SyncStep } from '../reconcile.ts'
import { localChange, localIdentity } from '../records.ts'
import { forgetBelow } from '../recovery.ts'
import { ensureFolder } from '../remote-path.ts'
import { DEFAULT_JOBS, report } from '../run.ts'
import { keyOf, lookLocal, parentKey } from '../scan.ts'
import { type EntryFailure, showPath } from '../tree.ts'
import type { StepOf, Work } from './work.ts'

export interface Structure {
  readonly moved: number
  readonly failed: readonly EntryFailure[]
  /** What stopped the run. */
  readonly stoppedBy: SyncError | undefined
}

/**
 * Carries out steps in the order of the plan, since each may need the one before it. Folders that do not need each other are made at the
 * same time.
 */
export async function makeStructure(work: Work, steps: readonly SyncStep[], rule: OutageRule): Promise<Structure> {
  const { context, signal, show } = work
  let moved = 0
  const tally = createTally()
  const carryOut = async (step: SyncStep, stop: AbortSignal): Promise<void> => {
    if (step.do === 'move-remote') {
      await moveRemote(work, step)
      moved++
    } else if (step.do === 'move-local') {
      moveLocal(work, step)
      moved++
    } else if (step.do === 'make-folder') {
      await makeFolder(work, step, stop)
    } else if (step.do === 'make-directory') {
      makeDirectory(work, step)
    } else if (step.do === 'forget') {
      work.state.remove(step.key)
    } else if (step.do === 'adopt') {
      work.remember(step.key, step.local, step.remote.node)
    } else if (step.do === 'move-aside') {
      moveAside(work, step.path, step.copy)
      work.conflicts.push({ path: showPath(step.path), copy: showPath(step.copy) })
    }
  }
  const fail = (step: SyncStep, thrown: unknown) => {
    const failure = { path: work.show(step.path), error: toSyncError(signal.aborted ? signal.reason : thrown) }
    tally.failed.push(failure)
    report(context, failure.path, failure.error)
    if (rule.isEnd(failure.error)) tally.stoppedBy = failure.error
  }
  for (const group of groupsOf(steps)) {
    if (signal.aborted) tally.stoppedBy ??= toSyncError(signal.reason)
    if (tally.stoppedBy !== undefined) break
    if (group[0]!.do === 'make-folder') {
      const onFailure = ({ path, error }: EntryFailure) => report(context, path, error)
      const entries = group.map((step) => ({ step, shown: show(step.path) }))
      const work = async ({ step }: { readonly step: SyncStep }, stop: AbortSignal) => {
        await carryOut(step, stop)
        return 0
      }
      const how = { signal, rule, onFailure, onBusy: context.onBusy, pace: context.pace }
      await runEntries(entries, context.pace?.most ?? DEFAULT_JOBS, tally, work, how)
      continue
    }
    for (const step of group) {
      if (signal.aborted) tally.stoppedBy ??= toSyncError(signal.reason)
      if (tally.stoppedBy !== undefined) break
      try {
        await carryOut(step, signal)
        rule.succeeded()
      } catch (error) {
        fail(step, error)
      }
    }
  }
  return { moved, failed: tally.failed, stoppedBy: tally.stoppedBy }
}

/** Steps that are carried out together: folders of one depth, or others one after the other. */
function* groupsOf(steps: readonly SyncStep[]): Generator<SyncStep[]> {
  let group: SyncStep[] = []
  for (const step of steps) {
    const first = group[0]
    const isTogether =
      first === undefined ||
      (first.do === 'make-folder'
        ? step.do === 'make-folder' && step.path.length === first.path.length
        : step.do !== 'make-folder')
    if (!isTogether) {
      yield group
      group = []
    }
    group.push(step)
  }
  if (group.length > 0) yield group
}

async function moveRemote(work: Work, step: StepOf<'move-remote'>): Promise<void> {
  const { node } = step.remote
  const from = keyOf(step.from)
  if (work.addsOnly) {
    work.rename(from, step.path, step.kind)
    const moved = work.records().get(step.key)
    if (moved !== undefined) work.remember(step.key, step.local, node, moved.seal)
    return
  }
  const parent = work.placeOf(parentKey(step.key))
  const name = work.nameOf(step.path)
  if (node.parentId !== parent.id || node.name !== name) {
    try {
      if (node.parentId !== parent.id)
        await moveNodes(work.api, parent.id, [{ id: node.id, name }], 'fail', work.signal)
      else await (step.kind === 'file' ? updateFile : updateFolder)(work.api, node.id, { name }, work.signal)
    } catch (error) {
      // The answer may have been lost.
      const now = await getNode(work.api, node.id, work.signal).catch(() => undefined)
      if (now?.parentId !== parent.id || now.name !== name) throw error
    }
  }
  work.renamed.set(node.id, name)
  work.deed({ do: 'moved-remote', path: showPath(step.path), from: showPath(step.from), id: node.id })
  work.rename(from, step.path, step.kind)
  const record = work.records().get(step.key)
  if (step.kind === 'file' && record !== undefined && !step.isCaseOnly)
    work.remember(step.key, step.local, node, record.seal)
}

function moveLocal(work: Work, step: StepOf<'move-local'>): void {
  const entry = lookLocal(work.root, step.from)
  const from = keyOf(step.from)
  const record = work.records().get(from)
  const isSame = record !== undefined && entry !== undefined && localChange(record, entry) === 'same'
  if (entry === undefined || (record !== undefined && !isSame && !step.isCaseOnly)) throw changedHere()
  work.local().check(step.from.slice(0, -1))
  work.local().ensureDirectory(step.path.slice(0, -1))
  const move = planMove(work.root, step.from, step.path)
  work.doLocally(move, `move ${showPath(step.from)}`, () => carryOutMove(work.local(), move))
  work.lookAnew()
  work.rename(from, step.path, step.kind)
  const moved = lookLocal(work.root, step.path)
  if (step.kind !== 'file' || moved === undefined) return
  const now = work.records().get(step.key)
  if (!step.isCaseOnly) work.remember(step.key, moved, step.remote.node, record?.seal)
  else if (isSame && now !== undefined) work.put(step.key, { ...now, local: localIdentity(moved) })
}

async function makeFolder(work: Work, step: StepOf<'make-folder'>, signal: AbortSignal): Promise<void> {
  const { key, path } = step
  if (work.places.has(key)) return
  try {
    const parent = work.placeOf(parentKey(key))
    const node = await ensureFolder(work.api, parent.id, work.nameOf(path), signal)
    work.places.set(key, { id: node.id, roomId: node.type === 'room' ? node.id : parent.roomId })
    work.deed({ do: 'created-remote', path: showPath(path), id: node.id, isFolder: true })
    const entry = work.root === '' || work.addsOnly ? undefined : lookLocal(work.root, path)
    if (entry !== undefined) work.remember(key, entry, node)
  } catch (error) {
    work.places.set(key, toSyncError(error))
    throw error
  }
}

function makeDirectory(work: Work, step: StepOf<'make-directory'>): void {
  work.local().ensureDirectory(step.path.slice(0, -1))
  if (lookLocal(work.root, step.path) === undefined) {
    const made = { do: 'created-local', path: showPath(step.path), isDirectory: true } as const
    work.doLocally(made, `create ${showPath(step.path)}`, () => work.local().ensureDirectory(step.path))
  }
  work.local().ensureDirectory(step.path)
  const [entry, place] = [lookLocal(work.root, step.path), work.remote.get(step.key)]
  if (entry !== undefined && place !== undefined) work.remember(step.key, entry, place.node)
}

export function moveAside(work: Work, path: readonly string[], copy: readonly string[]): void {
  const key = keyOf(path)
  work.local().ensureDirectory(path.slice(0, -1))
  const move = { ...planMove(work.root, path, copy), isAside: true }
  work.doLocally(move, `rename ${showPath(path)}`, () => carryOutMove(work.local(), move))
  if (lookAt(join(work.root, ...copy))?.isDirectory()) work.lookAnew()
  if (work.records().get(key)?.kind === 'directory') {
    for (const one of [...work.records().keys()]) if (one.startsWith(`${key}/`)) work.change().delete(one)
  }
  work.change().delete(key)
  forgetBelow(work.state, key)
  work.context.onEvent?.({ type: 'conflict', path: showPath(path), copy: showPath(copy) })
}
