/**
 * Carries out the steps of a plan. Each looks again at what it is about to change, and is remembered as soon as it is done; a
 * run that is killed leaves nothing that the next one would misread. Deletions come last, and only when all else went well.
 * @module
 */
import { rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { deleteNode, deleteNodes, getNode, listChildren, moveNodes, updateFile, updateFolder } from '../api/nodes.ts'
import type { RemoteNode } from '../api/wire.ts'
import { isDiskFatal, localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { syncDirectory } from '../local/atomic-file.ts'
import { escapeName, type Names } from '../local/names.ts'
import { createSafeTree, type SafeTree } from '../local/safe-tree.ts'
import { checkUnchanged } from '../transfer/complete.ts'
import { openFileKey } from '../transfer/content.ts'
import { downloadFile } from '../transfer/download.ts'
import { createKeysAhead } from '../transfer/keys-ahead.ts'
import { createLargeFiles } from '../transfer/segments.ts'
import { createKnownContents, type KnownContents, type KnownFile } from './known-contents.ts'
import { createLocalBin, dropCopy, dropEmptyDirectories, type LocalBin, pruneBin } from './local-bin.ts'
import { carryOutMove, changedHere, lookAt, markOf, planMove } from './local-move.ts'
import { createTally, runEntries, type Tally } from './outcome.ts'
import { bytesOf, type SyncStep } from './reconcile.ts'
import {
  createRecord,
  GROWING,
  localChange,
  localIdentity,
  remoteIdentity,
  type SyncRecord,
  sealOf,
  UNSETTLED,
} from './records.ts'
import { forgetBelow, settleTouched } from './recovery.ts'
import { ensureFolder } from './remote-path.ts'
import { DEFAULT_JOBS, isSameContent, type RunContext, report } from './run.ts'
import { keyOf, lookLocal, parentKey, type RemoteItem } from './scan.ts'
import type { Deed, SyncState } from './state.ts'
import { type EntryFailure, type LocalEntry, showPath } from './tree.ts'
import type { Uploader } from './uploader.ts'

type StepOf<K extends SyncStep['do']> = Extract<SyncStep, { do: K }>

interface Place {
  readonly id: number
  readonly roomId: number
}

export interface ApplyTarget {
  /** Absolute path. */
  readonly root: string
  readonly container: Place
  readonly remote: ReadonlyMap<string, RemoteItem>
  readonly records: ReadonlyMap<string, SyncRecord>
}

export interface ApplyOptions {
  readonly jobs?: number
  readonly signal: AbortSignal
  /** Bytes after which no more transfers begin. */
  readonly maxTransfer?: number
  /** On the monotonic clock: when no more transfers begin. */
  readonly deadline?: number
  readonly runId: string
  /** Bytes of content that may be held in memory at once. */
  readonly memory?: number
  readonly names?: Names | undefined
  readonly uploader: Uploader
  /** Somebody has looked: contents may be older ones, or those of other files. */
  readonly acceptAny?: boolean
  /** What a manifest says of contents. */
  readonly heldTo?: ReadonlyMap<string, KnownFile>
}

export interface ApplyResult {
  readonly tally: Tally
  readonly moved: number
  readonly deleted: number
  /** Gone on one side, left on the other. */
  readonly kept: number
  /** Not begun because a limit was reached. */
  readonly left: number
  /** Both sides had changed; both are kept. */
  readonly conflicts: readonly { readonly path: string; readonly copy: string }[]
}

export async function applySteps(
  context: RunContext,
  steps: readonly SyncStep[],
  target: ApplyTarget,
  state: SyncState,
  options: ApplyOptions,
): Promise<ApplyResult> {
  const run = createRun(context, target, state, options)
  try {
    return await carryOut(run, context, steps, target, state, options)
  } finally {
    run.close()
  }
}

async function carryOut(
  run: ReturnType<typeof createRun>,
  context: RunContext,
  steps: readonly SyncStep[],
  target: ApplyTarget,
  state: SyncState,
  options: ApplyOptions,
): Promise<ApplyResult> {
  const { signal } = options
  const tally = createTally()
  const kept = steps.filter((step) => step.do === 'keep').length
  let [moved, deleted, left] = [0, 0, 0]
  const conflicts: { path: string; copy: string }[] = []
  const failed = (step: SyncStep, error: SyncError) => {
    tally.failed.push({ path: showPath(step.path), error })
    report(context, showPath(step.path), error)
  }
  const result = () => ({ tally, moved, deleted, kept, left, conflicts })

  // Structure: in the order of the plan, since each step may need the one before it.
  async function makeStructure(step: SyncStep): Promise<void> {
    try {
      if (step.do === 'move-remote') {
        await run.moveRemote(step)
        moved++
      } else if (step.do === 'move-local') {
        await run.moveLocal(step)
        moved++
      } else if (step.do === 'make-folder') {
        await run.makeFolder(step)
      } else if (step.do === 'make-directory') {
        run.makeDirectory(step)
      } else if (step.do === 'forget') {
        state.remove(step.key)
      } else if (step.do === 'adopt') {
        run.remember(step.key, step.local, step.remote.node)
      } else if (step.do === 'move-aside') {
        run.moveAside(step.path, step.copy)
        conflicts.push({ path: showPath(step.path), copy: showPath(step.copy) })
      }
    } catch (thrown) {
      const error = toSyncError(signal.aborted ? signal.reason : thrown)
      failed(step, error)
      if (isForAll(error)) tally.stoppedBy = error
    }
  }
  async function makeStructures(isLate: boolean): Promise<boolean> {
    for (const step of steps) {
      if ((step.isLate === true) !== isLate) continue
      if (signal.aborted) tally.stoppedBy ??= toSyncError(signal.reason)
      if (tally.stoppedBy !== undefined) return false
      await makeStructure(step)
    }
    return tally.stoppedBy === undefined
  }
  if (!(await makeStructures(false))) return result()

  const contents = steps.filter(isContent)
  const transfers = contents.filter((step) => step.do !== 'conflict')
  const bytes = transfers.reduce((sum, step) => sum + bytesOf(step), 0)
  context.onEvent?.({ type: 'planned', files: transfers.length, bytes, skipped: 0 })
  let begun = 0
  const work = async (step: ContentStep & { readonly shown: string }, stop: AbortSignal) => {
    const isOver =
      (options.deadline !== undefined && context.clock.monotonic() >= options.deadline) ||
      (options.maxTransfer !== undefined && begun + bytesOf(step) > options.maxTransfer)
    if (isOver && step.do !== 'conflict') {
      left++
      return undefined
    }
    begun += bytesOf(step)
    return run.transfer(step, stop, conflicts)
  }
  run.aheadOf(transfers)
  const all = contents.map((step) => ({ ...step, shown: showPath(step.path) }))
  const named = all.filter((step) => step.isLate !== true)
  const jobs = options.jobs ?? DEFAULT_JOBS
  async function transfer(entries: typeof all): Promise<void> {
    const unsettled = new Set<string>()
    const onFailure = ({ path, error }: EntryFailure) => {
      if (error.class === 'changed') unsettled.add(path)
      else report(context, path, error)
    }
    await runEntries(entries, jobs, tally, work, { signal, onFailure, onBusy: context.onBusy })
    if (unsettled.size === 0) return
    // Files that were being written get another chance when everything else is done.
    const onLast = ({ path, error }: EntryFailure) => report(context, path, error)
    const isUnsettled = ({ path }: { readonly path: string }) => unsettled.has(path)
    const before = tally.failed
      .splice(0)
      .filter((failure) => !isUnsettled(failure) || failure.error.class !== 'changed')
    for (const failure of before) tally.failed.push(failure)
    const again = entries.filter(({ shown }) => unsettled.has(shown))
    if (tally.stoppedBy === undefined) {
      await runEntries(again, jobs, tally, work, { signal, onFailure: onLast, onBusy: context.onBusy })
    }
  }
  const makeDurable = (work: () => Promise<void>) =>
    work().catch((error) => {
      tally.stoppedBy ??= toSyncError(localError(error, 'make files durable'))
    })
  await transfer(named)
  await makeDurable(run.settle)
  const late = steps.filter((step) => step.isLate === true)
  // What is of another kind on the other side was looked at when this was planned, and says nothing about other places.
  const isSpotless = () => left === 0 && tally.failed.every(({ error }) => error.code === 'KINDS_DIFFER')
  const removals = steps.filter(isRemoval)
  if (tally.stoppedBy !== undefined || !isSpotless()) {
    await makeDurable(run.end)
    tally.skipped = 0
    if (tally.stoppedBy !== undefined) return result()
    left += late.length
    return { ...result(), kept: kept + removals.length }
  }
  try {
    deleted += await run.removeRemoteFiles(removals, failed)
    for (const step of removals) {
      signal.throwIfAborted()
      try {
        if (step.do === 'delete-local') deleted += run.removeLocal(step) ? 1 : 0
        else if (step.do === 'take-link') run.takeLink(step)
        else if (step.remote.kind === 'directory') deleted += (await run.removeFolder(step)) ? 1 : 0
      } catch (error) {
        failed(step, toSyncError(error))
      }
    }
    if (late.length > 0 && isSpotless()) {
      if (await makeStructures(true)) await transfer(all.filter((step) => step.isLate === true))
    } else {
      left += late.length
    }
    pruneBin(target.root, state.runs(), context.clock.now())
  } catch (error) {
    tally.stoppedBy = toSyncError(signal.aborted ? signal.reason : error)
  }
  await makeDurable(run.end)
  tally.skipped = 0
  return result()
}

type Removal = StepOf<'delete-remote' | 'delete-local' | 'take-link'>

const isRemoval = (step: SyncStep): step is Removal =>
  step.do === 'delete-remote' || step.do === 'delete-local' || step.do === 'take-link'

type ContentStep = StepOf<'upload' | 'download' | 'keep-both' | 'conflict'>

const isContent = (step: SyncStep): step is ContentStep =>
  step.do === 'upload' || step.do === 'download' || step.do === 'keep-both' || step.do === 'conflict'

/** True for what is not the content of a file. */
const isStep = (one: Deed): boolean =>
  /^(moved|deleted)/.test(one.do) || ('isFolder' in one && one.isFolder) || ('isDirectory' in one && one.isDirectory)

/** Failures that say that nothing else would fare better. */
const isForAll = (error: SyncError) =>
  ['auth', 'tls', 'network', 'server', 'rate_limit', 'quota', 'cancelled'].includes(error.class) ||
  error.code === 'FORBIDDEN' ||
  // One directory that may not be written to says nothing of the others.
  isDiskFatal(error)

/** What all steps of one run share. */
function createRun(context: RunContext, target: ApplyTarget, state: SyncState, options: ApplyOptions) {
  const { api } = context
  const { root } = target
  const { signal, runId, names, uploader } = options
  let tree: SafeTree | undefined
  let bin: LocalBin | undefined
  /** Places in the bin that are free again. */
  const dropped: string[] = []
  const local = () => (tree ??= createSafeTree(root))
  /** What is known of directories is not true any more. */
  const lookAnew = () => {
    tree?.close()
    tree = undefined
    bin = undefined
    for (const place of dropped.splice(0)) dropEmptyDirectories(root, place)
  }
  const binOf = () => (bin ??= createLocalBin(local(), runId))
  /** As they become in this run; copied when the first one changes. */
  let records = target.records
  const change = (): Map<string, SyncRecord> => {
    if (records === target.records) records = new Map(target.records)
    return records as Map<string, SyncRecord>
  }
  const places = new Map<string, Place>([['', target.container]])
  for (const [key, { kind, node, roomId }] of target.remote)
    if (kind === 'directory') places.set(key, { id: node.id, roomId })
  const tellDone = (one: Deed) => {
    if (!isStep(one)) return
    const from = 'from' in one ? { from: one.from } : {}
    context.onEvent?.({ type: 'step-done', do: one.do, path: one.path, ...from })
  }
  /** Something that was done at the server. */
  const deed = (one: Deed) => {
    state.addDeed(runId, one)
    tellDone(one)
  }
  /** Does something on this disk that is written down before; a run that is killed is understood by that, see recovery.ts. */
  function doLocally(one: Deed, what: string, act: () => void): void {
    const number = state.addDeed(runId, one)
    try {
      act()
    } catch (error) {
      state.dropDeed(runId, number)
      throw localError(error, what)
    }
    tellDone(one)
  }
  const isThere = (key: string) => target.remote.has(key)
  const known: KnownContents[] = []
  if (!options.acceptAny) {
    known.push(createKnownContents({ records: () => records, superseded: state.superseded(), isThere }))
    const { heldTo } = options
    if (heldTo !== undefined) {
      const byManifest = createKnownContents({ records: () => heldTo, isThere })
      const readmitted = new Set(state.readmitted())
      known.push({
        judge(key, node, seal) {
          if (!readmitted.has(key)) byManifest.judge(key, node, seal)
        },
      })
    }
  }
  let ahead: ReturnType<typeof createKeysAhead> | undefined

  const put = (key: string, record: SyncRecord) => {
    change().set(key, record)
    state.put(key, record)
  }
  function remember(key: string, entry: LocalEntry, node: RemoteNode, seal?: string): void {
    const before = sameContent(records.get(key), node)
    put(key, createRecord(entry, node, seal ?? before?.seal, before?.sha256))
  }
  function placeOf(key: string): Place {
    const place = places.get(key)
    if (place !== undefined) return place
    throw new SyncError('conflict', 'FOLDER_MISSING', 'The folder for it is not there', { hint: 'Run again.' })
  }
  /** Everything at and below a key, under another path. */
  function rename(from: string, to: readonly string[]): void {
    const toKey = keyOf(to)
    const depth = from.split('/').length
    for (const [key, place] of [...places]) {
      if (key !== from && !key.startsWith(`${from}/`)) continue
      places.delete(key)
      places.set(toKey + key.slice(from.length), place)
    }
    for (const [key, record] of [...records]) {
      if (key !== from && !key.startsWith(`${from}/`)) continue
      change().delete(key)
      state.remove(key)
      const path = [...to, ...record.path.split('/').slice(depth)].join('/')
      put(toKey + key.slice(from.length), { ...record, path })
    }
  }
  /** Names that nodes have got in this run. */
  const renamed = new Map<number, string>()
  function asRenamed(node: RemoteNode): RemoteNode {
    const name = renamed.get(node.id)
    if (name === undefined) return node
    // That was a change, too.
    const { updatedAt: _before, ...rest } = node
    return { ...rest, name }
  }
  const nameOf = (path: readonly string[]) => escapeName(path.at(-1)!, { names })
  const large = createLargeFiles(options.memory)
  /** Files on this disk whose names a power cut could still undo: remembered too early, they would look deleted. */
  let arrived: { directory: string; key: string; entry: LocalEntry; node: RemoteNode; sealed: string | undefined }[] =
    []
  async function settle(): Promise<void> {
    const batch = arrived
    arrived = []
    for (const directory of new Set(batch.map((one) => one.directory))) await syncDirectory(directory)
    for (const { key, entry, node, sealed } of batch) remember(key, entry, node, sealed)
  }

  return {
    remember,
    close: lookAnew,
    moveAside,
    settle,

    /** Ends the transfers: what arrived is durable then, and remembered. */
    async end(): Promise<void> {
      await ahead?.close()
      await large.close()
      await settle()
    },

    aheadOf(steps: readonly ContentStep[]) {
      const nodes = steps.flatMap((step) =>
        step.do === 'download' || step.do === 'keep-both' ? [step.remote.node] : [],
      )
      ahead = createKeysAhead(context, nodes)
    },

    async moveRemote(step: StepOf<'move-remote'>): Promise<void> {
      const { node } = step.remote
      const parent = placeOf(parentKey(step.key))
      const name = nameOf(step.path)
      const from = keyOf(step.from)
      if (node.parentId !== parent.id || node.name !== name) {
        try {
          if (node.parentId !== parent.id) await moveNodes(api, parent.id, [{ id: node.id, name }], 'fail', signal)
          else await (step.kind === 'file' ? updateFile : updateFolder)(api, node.id, { name }, signal)
        } catch (error) {
          // The answer may have been lost.
          const now = await getNode(api, node.id, signal).catch(() => undefined)
          if (now?.parentId !== parent.id || now.name !== name) throw error
        }
      }
      renamed.set(node.id, name)
      deed({ do: 'moved-remote', path: showPath(step.path), from: showPath(step.from), id: node.id })
      rename(from, step.path)
      const record = records.get(step.key)
      if (step.kind === 'file' && record !== undefined && !step.isCaseOnly)
        remember(step.key, step.local, node, record.seal)
    },

    async moveLocal(step: StepOf<'move-local'>): Promise<void> {
      const entry = lookLocal(root, step.from)
      const from = keyOf(step.from)
      const record = records.get(from)
      const isSame = record !== undefined && entry !== undefined && localChange(record, entry) === 'same'
      if (entry === undefined || (record !== undefined && !isSame && !step.isCaseOnly)) throw changedHere()
      local().check(step.from.slice(0, -1))
      local().ensureDirectory(step.path.slice(0, -1))
      const move = planMove(root, step.from, step.path)
      doLocally(move, `move ${showPath(step.from)}`, () => carryOutMove(local(), move))
      lookAnew()
      rename(from, step.path)
      const moved = lookLocal(root, step.path)
      if (step.kind !== 'file' || moved === undefined) return
      const now = records.get(step.key)
      if (!step.isCaseOnly) remember(step.key, moved, step.remote.node, record?.seal)
      else if (isSame && now !== undefined) put(step.key, { ...now, local: localIdentity(moved) })
    },

    async makeFolder(step: StepOf<'make-folder'>): Promise<void> {
      if (places.has(step.key)) return
      const parent = placeOf(parentKey(step.key))
      const node = await ensureFolder(api, parent.id, nameOf(step.path), signal)
      places.set(step.key, { id: node.id, roomId: node.type === 'room' ? node.id : parent.roomId })
      deed({ do: 'created-remote', path: showPath(step.path), id: node.id, isFolder: true })
      const entry = lookLocal(root, step.path)
      if (entry !== undefined) remember(step.key, entry, node)
    },

    makeDirectory(step: StepOf<'make-directory'>): void {
      local().ensureDirectory(step.path.slice(0, -1))
      if (lookLocal(root, step.path) === undefined) {
        const made = { do: 'created-local', path: showPath(step.path), isDirectory: true } as const
        doLocally(made, `create ${showPath(step.path)}`, () => local().ensureDirectory(step.path))
      }
      local().ensureDirectory(step.path)
      const [entry, place] = [lookLocal(root, step.path), target.remote.get(step.key)]
      if (entry !== undefined && place !== undefined) remember(step.key, entry, place.node)
    },

    /** Bytes moved; `undefined` when nothing was. */
    async transfer(step: ContentStep, stop: AbortSignal, conflicts: { path: string; copy: string }[]) {
      switch (step.do) {
        case 'conflict': {
          const { unlessSame } = step
          if (unlessSame === undefined || !(await isSame(unlessSame.local, unlessSame.remote, stop))) throw step.error
          return undefined
        }
        case 'upload': {
          const { local: entry, replaces } = step
          if (step.unlessSame && replaces !== undefined && (await isSame(entry, replaces, stop))) return undefined
          return upload(step.path, replaces?.node, stop)
        }
        case 'download':
          if (step.unlessSame && step.replaces && (await isSame(step.replaces, step.remote, stop))) return undefined
          return download(step.path, step.remote, step.replaces, stop)
        case 'keep-both': {
          const { local: entry, remote, copy } = step
          if (step.unlessSame && (await isSame(entry, remote, stop))) return undefined
          requireSame(entry)
          let isAside = false
          const makeWay = () => {
            moveAside(step.path, copy)
            isAside = true
            conflicts.push({ path: showPath(step.path), copy: showPath(copy) })
          }
          let down = 0
          try {
            down = await download(step.path, remote, entry, stop, makeWay)
          } finally {
            // What has another name now is sent, whatever became of the rest.
            if (isAside) down += (await upload(copy, undefined, stop)) ?? 0
          }
          return down
        }
      }
    },

    async removeRemoteFiles(
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
          signal.throwIfAborted()
          const ready: StepOf<'delete-remote'>[] = []
          const checks = siblings.slice(at, at + DELETE_BATCH).map(async (step) => {
            if (isBack(step)) throw changedHere()
            await checkUnchanged(api, step.remote.node, signal)
            ready.push(step)
          })
          for (const [index, outcome] of (await Promise.allSettled(checks)).entries()) {
            if (outcome.status === 'rejected') failed(siblings[at + index]!, toSyncError(outcome.reason))
          }
          if (ready.length === 0) continue
          await deleteAll(ready)
          for (const { key, path, remote } of ready) {
            change().delete(key)
            state.remove(key)
            deed({ do: 'deleted-remote', path: showPath(path), id: remote.node.id, isFolder: false })
            count++
          }
        }
      }
      return count
    },

    /** True when it was empty and is gone. */
    async removeFolder(step: StepOf<'delete-remote'>): Promise<boolean> {
      const { key, path, remote } = step
      if (isBack(step)) return false
      for await (const _child of listChildren(api, remote.node.id, signal)) return false
      await deleteNode(api, remote.node.id, signal).catch((error) => {
        if (toSyncError(error).class !== 'not_found') throw error
      })
      state.remove(key)
      deed({ do: 'deleted-remote', path: showPath(path), id: remote.node.id, isFolder: true })
      return true
    },

    takeLink({ path }: StepOf<'take-link'>): void {
      const shown = showPath(path)
      const now = lookAt(join(root, ...path))
      if (now?.isSymbolicLink() !== true) throw changedHere()
      const taken = { do: 'deleted-local', path: shown, bin: binOf().placeOf(path), was: markOf(now) } as const
      doLocally(taken, `move ${shown} into the bin`, () => binOf().take(path))
    },

    removeLocal({ key, path, local: entry, whole }: StepOf<'delete-local'>): boolean {
      const shown = showPath(path)
      const was = markOf(entry)
      if (whole !== undefined) {
        for (const one of whole) requireSame(one)
        const taken = { do: 'deleted-local', path: shown, bin: binOf().placeOf(path), was } as const
        doLocally(taken, `move ${shown} into the bin`, () => binOf().take(path))
        lookAnew()
        forgetBelow(state, key)
        return true
      }
      if (entry.kind === 'directory') {
        let isLeft = false
        local().check(path.slice(0, -1))
        const removed = { do: 'deleted-local', path: shown, was } as const
        const number = state.addDeed(runId, removed)
        try {
          local().within(path.slice(0, -1), (directory) => rmdirSync(directory.at(path.at(-1)!)))
        } catch (error) {
          // Something is in it that takes no part in this.
          isLeft = systemCode(error) === 'ENOTEMPTY' || systemCode(error) === 'EEXIST'
          if (isLeft || systemCode(error) !== 'ENOENT') state.dropDeed(runId, number)
          if (!isLeft && systemCode(error) !== 'ENOENT') throw localError(error, `remove ${shown}`)
        }
        if (isLeft) return false
        tellDone(removed)
      } else {
        requireSame({ ...entry, path })
        const taken = { do: 'deleted-local', path: shown, bin: binOf().placeOf(path), was } as const
        doLocally(taken, `move ${shown} into the bin`, () => binOf().take(path))
      }
      state.remove(key)
      return true
    },
  }

  /** True when what is gone here is here again. */
  function isBack({ path, remote }: StepOf<'delete-remote'>): boolean {
    const now = lookAt(join(root, ...path))
    return remote.kind === 'file' ? now?.isFile() === true : now?.isDirectory() === true
  }

  /** Throws unless a local file is as it was when this was planned. */
  function requireSame(entry: LocalEntry): void {
    const now = lookLocal(root, entry.path)
    if (now === undefined || now.size !== entry.size || now.mtimeMs !== entry.mtimeMs) throw changedHere()
  }

  async function isSame(entry: LocalEntry, { node, path }: RemoteItem, stop: AbortSignal): Promise<boolean> {
    const same = await isSameContent(context, node, join(root, ...path), showPath(path), stop).catch((error) => {
      // Without a key of ours for it nobody can tell.
      if (toSyncError(error).class === 'key' || toSyncError(error).class === 'not_found') return false
      throw error
    })
    const now = lookLocal(root, path)
    if (same && now !== undefined && now.mtimeMs === entry.mtimeMs) remember(keyOf(path), now, node)
    return same
  }

  async function upload(
    path: readonly string[],
    planned: RemoteNode | undefined,
    stop: AbortSignal,
  ): Promise<number | undefined> {
    const replaces = planned && asRenamed(planned)
    const key = keyOf(path)
    const place = placeOf(parentKey(key))
    const before = lookLocal(root, path)
    if (before === undefined) {
      const message = `${showPath(path)} vanished before it was read`
      context.onEvent?.({ type: 'warning', code: 'VANISHED', message })
      return undefined
    }
    if (before.kind !== 'file') throw changedHere()
    const done = await uploader.send(
      {
        source: join(root, ...path),
        shown: showPath(path),
        parentId: place.id,
        roomId: place.roomId,
        name: replaces?.name ?? nameOf(path),
        replaces,
      },
      stop,
    )
    const after = lookLocal(root, path)
    const isSettled = after !== undefined && after.ctimeMs === before.ctimeMs && after.mtimeMs === before.mtimeMs
    const record = createRecord(before, { ...done.node, size: done.bytes }, done.seal && sealOf(done.seal), done.sha256)
    if (done.asOf?.isInconsistent) put(key, { ...record, local: GROWING })
    else put(key, isSettled ? record : { ...record, local: UNSETTLED })
    if (replaces === undefined) deed({ do: 'created-remote', path: showPath(path), id: done.node.id, isFolder: false })
    else deed({ do: 'replaced-remote', path: showPath(path), id: done.node.id, oldId: replaces.id })
    return done.bytes
  }

  /** @param makeWay - Gives what stands there another name; else it is replaced, and the bin keeps it. */
  async function download(
    path: readonly string[],
    { node }: RemoteItem,
    replaces: LocalEntry | undefined,
    stop: AbortSignal,
    makeWay?: () => void,
  ): Promise<number> {
    const parent = path.slice(0, -1)
    const key = keyOf(path)
    const directory = local().hold(parent)
    let sealed: string | undefined
    let begun: { number: number; deed: Deed } | undefined
    const openKey = async (one: RemoteNode, when: AbortSignal) => {
      const fileKey = await (ahead?.take(one, when) ?? openFileKey(context, one, when))
      sealed = fileKey && sealOf(fileKey)
      try {
        for (const one of known) one.judge(key, node, sealed)
      } catch (error) {
        fileKey?.wipe()
        throw error
      }
      return fileKey
    }
    const beforeRename = () => {
      local().check(parent)
      makeWay?.()
      const origin = { node: remoteIdentity(node), seal: sealed }
      const shown = showPath(path)
      const one: Deed =
        replaces === undefined || makeWay !== undefined
          ? { do: 'created-local', path: shown, isDirectory: false, origin }
          : { do: 'replaced-local', path: shown, bin: binOf().placeOf(path), was: markOf(replaces), origin }
      begun = { number: state.addDeed(runId, one), deed: one }
      if (one.do === 'replaced-local') binOf().keep(path)
    }
    let bytes: number
    try {
      const how = { shown: showPath(path), replaces, large, beforeRename, openKey, directory }
      bytes = await downloadFile(context, node, directory.at(path.at(-1)!), how, stop)
    } catch (error) {
      if (begun !== undefined) takeBack(key, path, begun)
      throw error
    } finally {
      directory.release()
    }
    const now = lookLocal(root, path)
    if (now !== undefined && now.size === bytes)
      arrived.push({ directory: join(root, ...parent), key, entry: now, node, sealed })
    if (arrived.length >= ARRIVALS) await settle()
    return bytes
  }

  /** A file did not get its name after all: then the one that it was to replace is as it was. */
  function takeBack(key: string, path: readonly string[], { number, deed: one }: { number: number; deed: Deed }): void {
    const now = lookAt(join(root, ...path))
    if (one.do === 'replaced-local') {
      // It has its name, and only what follows has failed.
      if (now?.ino !== one.was.ino) return
      dropCopy(root, one.bin)
      dropped.push(one.bin)
      settleTouched(state, root, key, one.was)
    } else if (now !== undefined) {
      return
    }
    state.dropDeed(runId, number)
  }

  function moveAside(path: readonly string[], copy: readonly string[]): void {
    const key = keyOf(path)
    local().ensureDirectory(path.slice(0, -1))
    const move = { ...planMove(root, path, copy), isAside: true }
    doLocally(move, `rename ${showPath(path)}`, () => carryOutMove(local(), move))
    if (lookAt(join(root, ...copy))?.isDirectory()) lookAnew()
    if (records.get(key)?.kind === 'directory') {
      for (const one of [...records.keys()]) if (one.startsWith(`${key}/`)) change().delete(one)
    }
    change().delete(key)
    forgetBelow(state, key)
    context.onEvent?.({ type: 'conflict', path: showPath(path), copy: showPath(copy) })
  }

  async function deleteAll(steps: readonly StepOf<'delete-remote'>[]): Promise<void> {
    try {
      await deleteNodes(
        api,
        steps.map(({ remote }) => remote.node.id),
        signal,
      )
    } catch (error) {
      if (toSyncError(error).class !== 'not_found') throw error
      // One is gone already: the others one by one.
      for (const { remote } of steps) {
        await deleteNode(api, remote.node.id, signal).catch((one) => {
          if (toSyncError(one).class !== 'not_found') throw one
        })
      }
    }
  }
}

const DELETE_BATCH = 100
/** Files that are made durable together. */
const ARRIVALS = 1000

/** A record, as long as it is about the same node and with it about the same content. */
const sameContent = (record: SyncRecord | undefined, node: RemoteNode): SyncRecord | undefined =>
  record?.remote.id === node.id ? record : undefined
