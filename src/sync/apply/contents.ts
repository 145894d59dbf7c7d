/**
 * Steps that move contents, several at a time. Each looks again at what it is about to change, and is remembered as soon as it is done.
 * @module
 */
import { join } from 'node:path'
import type { FileKey } from '../../../crypto/index.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, toSyncError } from '../../errors.ts'
import { syncDirectory } from '../../local/atomic-file.ts'
import { checkSpace } from '../../local/free-space.ts'
import { bytesLeft, type LeftBehind, removeSettled, sweepTree } from '../../local/leftovers.ts'
import { SMALL_FILE } from '../../local/stable-read.ts'
import { openFileKey } from '../../transfer/content.ts'
import { downloadFile, type KnownFile as KnownFileOnDisk } from '../../transfer/download.ts'
import { createKeysAhead } from '../../transfer/keys-ahead.ts'
import { createPermits } from '../../transfer/permits.ts'
import { createLargeFiles, LARGE_BYTES } from '../../transfer/segments.ts'
import { hashFile } from '../hash.ts'
import { createKnownContents, type KnownContents, type KnownFile } from '../known-contents.ts'
import { dropCopy } from '../local-bin.ts'
import { changedHere, lookAt, markOf } from '../local-move.ts'
import { type OutageRule, runEntries, type Tally } from '../outcome.ts'
import { bytesOf, type SyncStep } from '../reconcile.ts'
import { createRecord, GROWING, remoteIdentity, sealOf, UNSETTLED } from '../records.ts'
import { settleTouched } from '../recovery.ts'
import { compareContent, DEFAULT_JOBS, report } from '../run.ts'
import { keyOf, lookEntry, lookLocal, parentKey, type RemoteItem } from '../scan.ts'
import type { Deed } from '../state.ts'
import { type EntryFailure, type LocalEntry, showPath } from '../tree.ts'
import type { SendRequest, Sent, Uploader } from '../uploader.ts'
import { moveAside } from './structure.ts'
import type { RemoteBin, StepOf, Work } from './work.ts'

export interface ContentOptions {
  readonly jobs?: number | undefined
  /** Bytes after which no more transfers begin. */
  readonly maxTransfer?: number | undefined
  /** On the monotonic clock: when no more transfers begin. */
  readonly deadline?: number | undefined
  /** Bytes of content that may be held in memory at once. */
  readonly memory?: number | undefined
  /** Absent where nothing is sent. */
  readonly uploader?: Uploader | undefined
  /** Somebody has looked: contents may be older ones, or those of other files. */
  readonly acceptAny?: boolean
  /** What a manifest says of contents. */
  readonly heldTo?: ReadonlyMap<string, KnownFile> | undefined
  /** What files have to be, known from elsewhere than the server. Default: what the server says. */
  readonly expected?: Expected | undefined
  /** Throws for content that cannot be what it should be. `seal`: IV and tag, base64. */
  readonly judge?: ((node: RemoteNode, seal: string | undefined) => void) | undefined
  /** Directories in which runs that were killed may have left something. */
  readonly leftovers?: Iterable<readonly string[]> | undefined
}

/** Files that are fetched, as they are known to be. */
export interface Expected {
  of(node: RemoteNode): KnownContent
  /** What a failure means for such a file. */
  explain(error: SyncError): SyncError
}

/** See `downloadFile`. */
export interface KnownContent extends KnownFileOnDisk {
  /** Only with its file key one can tell whether content is it. */
  readonly needsKey: boolean
  /**
   * True for the right content.
   *
   * @param sha256 - Hex.
   */
  isIt(sha256: string, fileKey: FileKey | undefined): boolean
}

export type ContentStep = StepOf<'upload' | 'download' | 'keep-both' | 'conflict'>

export const isContent = (step: SyncStep): step is ContentStep =>
  step.do === 'upload' || step.do === 'download' || step.do === 'keep-both' || step.do === 'conflict'

/** Of small files, beside as many others as there are by default. */
const LIGHT_BYTES = 8 * 1024 * 1024

/** Files that are made durable together. */
const ARRIVALS = 1000

export interface Contents {
  /** Tidies up after runs that were killed, and looks whether there is room for what is ahead. */
  prepare(): Promise<void>
  /** Transfers; what was not begun because of a limit is counted. */
  transfer(steps: readonly ContentStep[], tally: Tally, rule: OutageRule): Promise<number>
  /** Makes what has arrived durable, and remembers it. */
  settle(): Promise<void>
  /** As `settle`, and ends what goes on beside the transfers. */
  end(): Promise<void>
}

/** @param all - All contents that this run will move. */
export function createContents(work: Work, all: readonly ContentStep[], options: ContentOptions): Contents {
  const { context, root, state, remote: target } = work
  const { uploader, expected } = options
  const isThere = (key: string) => target.has(key)
  const known: KnownContents[] = []
  if (!options.acceptAny) {
    known.push(createKnownContents({ records: work.records, superseded: state.superseded(), isThere }))
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
  const incoming = all.flatMap((step) => (step.do === 'download' || step.do === 'keep-both' ? [step.remote.node] : []))
  let ahead: ReturnType<typeof createKeysAhead> | undefined
  const large = createLargeFiles(options.memory)
  const heavy = createPermits(DEFAULT_JOBS)
  /** Bytes of small files that are on their way and none of those. */
  let light = 0
  let leftovers: readonly LeftBehind[] = []
  let begun = 0
  /** Files on this disk whose names a power cut could still undo: remembered too early, they would look deleted. */
  let arrived: { directory: string; key: string; entry: LocalEntry; node: RemoteNode; sealed: string | undefined }[] =
    []

  async function settle(): Promise<void> {
    const batch = arrived
    arrived = []
    for (const directory of new Set(batch.map((one) => one.directory))) await syncDirectory(directory)
    for (const { key, entry, node, sealed } of batch) work.remember(key, entry, node, sealed)
  }

  /** Paths of the files that are complete now. */
  function settledPaths({ failed }: Tally): Set<string> {
    const paths = new Set<string>()
    const unsettled = new Set(failed.map(({ path }) => path))
    for (const { kind, path } of target.values()) {
      if (kind === 'file' && !unsettled.has(work.show(path))) paths.add(showPath(path))
    }
    return paths
  }

  /** Where a local file is: below the root, or where the source of an upload is. */
  const sourceOf = (entry: LocalEntry, path: readonly string[]) => (root === '' ? entry.source : join(root, ...path))

  return {
    settle,

    async prepare() {
      if (work.isFromHere) return
      leftovers = await sweepTree(work.local(), options.leftovers ?? [], context.clock)
      const wanted = incoming.reduce((sum, { size = 0 }) => sum + size, 0)
      const bytes = Math.min(wanted, options.maxTransfer ?? wanted)
      if (bytes > 0) await checkSpace(root, bytes - bytesLeft(leftovers))
      // While there are few connections: a thread needs open files, too.
      if (incoming.some(({ size = 0 }) => size >= LARGE_BYTES)) large.thread()
      ahead = createKeysAhead(context, incoming, options.jobs === undefined ? context.pace : undefined)
    },

    async transfer(steps, tally, rule) {
      let left = 0
      const carryOut = async ({ step }: { readonly step: ContentStep }, stop: AbortSignal) => {
        const isOver =
          (options.deadline !== undefined && context.clock.monotonic() >= options.deadline) ||
          (options.maxTransfer !== undefined && begun + bytesOf(step) > options.maxTransfer)
        if (isOver && step.do !== 'conflict') {
          left++
          tally.skipped--
          return undefined
        }
        begun += bytesOf(step)
        if (options.jobs !== undefined) return move(step, stop)
        const bytes = bytesOf(step)
        const isLight = bytes <= SMALL_FILE && light + bytes <= LIGHT_BYTES
        if (isLight) light += bytes
        // Distance is no reason to have more of the others open: it is their bytes that take time, and memory.
        else await heavy.take(stop)
        try {
          return await move(step, stop)
        } finally {
          if (isLight) light -= bytes
          else heavy.give()
        }
      }
      const entries = steps.map((step) => ({ step, shown: work.show(step.path) }))
      const unsettled = new Set<string>()
      const onFailure = ({ path, error }: EntryFailure) => {
        if (error.class === 'changed') unsettled.add(path)
        else report(context, path, error)
      }
      // Who sets a number gets it; else there are as many as the server bears.
      const pace = options.jobs === undefined ? context.pace : undefined
      const jobs = options.jobs ?? pace?.most ?? DEFAULT_JOBS
      const how = { signal: work.signal, rule, onBusy: context.onBusy, pace }
      await runEntries(entries, jobs, tally, carryOut, { ...how, onFailure })
      if (unsettled.size > 0) {
        // Files that were being written get another chance when everything else is done.
        const onLast = ({ path, error }: EntryFailure) => report(context, path, error)
        const isUnsettled = ({ path }: { readonly path: string }) => unsettled.has(path)
        const before = tally.failed
          .splice(0)
          .filter((failure) => !isUnsettled(failure) || failure.error.class !== 'changed')
        for (const failure of before) tally.failed.push(failure)
        const again = entries.filter(({ shown }) => unsettled.has(shown))
        if (tally.stoppedBy === undefined) {
          await runEntries(again, jobs, tally, carryOut, { ...how, onFailure: onLast })
        }
      }
      if (tally.stoppedBy === undefined && leftovers.length > 0) {
        await removeSettled(work.local(), leftovers, settledPaths(tally), context.clock)
      }
      return left
    },

    async end() {
      await ahead?.close()
      await large.close()
      await settle()
    },
  }

  /** Bytes moved; `undefined` when nothing was. */
  async function move(step: ContentStep, stop: AbortSignal): Promise<number | undefined> {
    switch (step.do) {
      case 'conflict': {
        const { unlessSame } = step
        if (unlessSame === undefined || !(await isSame(unlessSame.local, unlessSame.remote, stop))) throw step.error
        return undefined
      }
      case 'upload': {
        const { local: entry, replaces, beside = replaces } = step
        if (step.unlessSame && beside !== undefined && (await isSame(entry, beside, stop))) return undefined
        return upload(sourceOf(entry, step.path), step.path, replaces?.node, stop)
      }
      case 'download': {
        const { remote, replaces, beside = replaces } = step
        const isReplaced = replaces !== undefined
        if (step.unlessSame && beside !== undefined && (await isSame(beside, remote, stop, isReplaced)))
          return undefined
        return download(step.path, remote, replaces, stop)
      }
      case 'keep-both': {
        const { local: entry, remote, copy } = step
        if (step.unlessSame && (await isSame(entry, remote, stop))) return undefined
        work.requireSame(entry)
        let isAside = false
        const makeWay = () => {
          moveAside(work, step.path, copy)
          isAside = true
          work.conflicts.push({ path: showPath(step.path), copy: showPath(copy) })
        }
        let down = 0
        try {
          down = await download(step.path, remote, entry, stop, makeWay)
        } finally {
          // What has another name now is sent, whatever became of the rest.
          if (isAside) down += (await upload(join(root, ...copy), copy, undefined, stop)) ?? 0
        }
        return down
      }
    }
  }

  async function isSame(
    entry: LocalEntry,
    { node }: RemoteItem,
    stop: AbortSignal,
    isReplaced = false,
  ): Promise<boolean> {
    const { path } = entry
    const source = sourceOf(entry, path)
    if (expected !== undefined) return isExpected(expected.of(node), node, source, path, isReplaced, stop)
    // What has to be compared is sent again where there is no key to compare it with, nor a digest.
    if (context.keyring.isWriteOnly) return false
    const known = work.records().get(keyOf(path))
    // Elsewhere a file that has no key for us is sent again.
    const isByDigest = work.attributesOf !== undefined && known?.remote.id === node.id
    if (isByDigest && known.sha256 !== undefined) return isKnown(known.sha256, entry, node, stop)
    // What attributes are kept of is told by its digest, too.
    const how = { isHashed: work.attributesOf !== undefined }
    const same = await compareContent(context, node, source, work.show(path), stop, how).catch((error) => {
      // Without a key of ours for it nobody can tell.
      if (toSyncError(error).class === 'key' || toSyncError(error).class === 'not_found') return undefined
      throw error
    })
    const now = lookEntry(source, path)
    if (same !== undefined && now !== undefined && now.mtimeMs === entry.mtimeMs)
      work.remember(keyOf(path), now, node, same.seal, same.sha256)
    return same !== undefined
  }

  /** By the digest of what was sent, which takes no key. */
  async function isKnown(digest: string, entry: LocalEntry, node: RemoteNode, stop: AbortSignal): Promise<boolean> {
    const { path } = entry
    const source = sourceOf(entry, path)
    const read = await hashFile(source, work.show(path), stop).catch((error) => {
      // What does not rest is not the same.
      if (toSyncError(error).code === 'SOURCE_CHANGED') return undefined
      throw error
    })
    if (read === undefined || Buffer.from(read, 'hex').toString('base64') !== digest) return false
    const now = lookEntry(source, path)
    if (now !== undefined && now.mtimeMs === entry.mtimeMs) work.remember(keyOf(path), now, node)
    return true
  }

  async function isExpected(
    known: KnownContent,
    node: RemoteNode,
    source: string,
    path: readonly string[],
    isReplaced: boolean,
    stop: AbortSignal,
  ): Promise<boolean> {
    work.local().ensureDirectory(path.slice(0, -1))
    try {
      const sha256 = await hashFile(source, work.show(path), stop)
      if (!known.needsKey) return known.isIt(sha256, undefined)
      const fileKey = await openFileKey(context, node, stop)
      try {
        return known.isIt(sha256, fileKey)
      } finally {
        fileKey?.wipe()
      }
    } catch (error) {
      // What cannot be read, and is to be replaced, is damaged, too.
      if (!isReplaced || stop.aborted || toSyncError(error).class === 'cancelled') throw error
      return false
    }
  }

  async function upload(
    source: string,
    path: readonly string[],
    planned: RemoteNode | undefined,
    stop: AbortSignal,
  ): Promise<number | undefined> {
    const replaces = planned && work.asRenamed(planned)
    const key = keyOf(path)
    const place = work.placeOf(parentKey(key))
    const before = lookEntry(source, path)
    if (before === undefined) {
      // Somebody has named the sources of an upload; what is gone from a mirror is just gone.
      if (root === '') throw new SyncError('local_io', 'LOCAL_ENOENT', 'It is not there any more')
      const message = `${work.show(path)} vanished before it was read`
      context.onEvent?.({ type: 'warning', code: 'VANISHED', message })
      return undefined
    }
    if (before.kind !== 'file') throw changedHere()
    if (uploader === undefined) throw new Error('This run sends nothing')
    const attributes = work.attributesOf?.(before)
    const { remoteBin } = work
    const common = { source, shown: work.show(path), parentId: place.id, roomId: place.roomId }
    const done = await (replaces === undefined || remoteBin === undefined
      ? uploader.send({ ...common, name: replaces?.name ?? work.nameOf(path), replaces }, stop)
      : sendInstead(remoteBin, replaces, path, { ...common, name: work.nameOf(path) }, stop))
    const after = lookEntry(source, path)
    const isSettled = after !== undefined && after.ctimeMs === before.ctimeMs && after.mtimeMs === before.mtimeMs
    const node = { ...done.node, size: done.bytes }
    const asSent = attributes && done.asOf && { ...attributes, mtimeNs: done.asOf.mtimeNs }
    const made = createRecord(before, node, done.seal && sealOf(done.seal), done.sha256, asSent ?? attributes)
    const record = done.mac === undefined ? made : { ...made, mac: done.mac }
    if (done.asOf?.isInconsistent) work.put(key, { ...record, local: GROWING })
    else work.put(key, isSettled ? record : { ...record, local: UNSETTLED })
    if (replaces === undefined)
      work.deed({ do: 'created-remote', path: showPath(path), id: done.node.id, isFolder: false })
    else work.deed({ do: 'replaced-remote', path: showPath(path), id: done.node.id, oldId: replaces.id })
    return done.bytes
  }

  /** What is replaced makes way first; it comes back if nothing takes its place. */
  async function sendInstead(
    bin: RemoteBin,
    replaces: RemoteNode,
    path: readonly string[],
    request: SendRequest,
    stop: AbortSignal,
  ): Promise<Sent> {
    await bin.take([replaces], path.slice(0, -1), stop)
    try {
      return await (uploader as Uploader).send(request, stop)
    } catch (error) {
      await bin.putBack(replaces)
      throw error
    }
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
    const directory = work.local().hold(parent)
    let sealed: string | undefined
    let begun: { number: number; deed: Deed } | undefined
    const openKey = async (one: RemoteNode, when: AbortSignal) => {
      const fileKey = await (ahead?.take(one, when) ?? openFileKey(context, one, when)).catch(explained)
      sealed = fileKey && sealOf(fileKey)
      try {
        options.judge?.(node, sealed)
        for (const one of known) one.judge(key, node, sealed)
      } catch (error) {
        fileKey?.wipe()
        throw error
      }
      return fileKey
    }
    const beforeRename = () => {
      work.local().check(parent)
      makeWay?.()
      const origin = { node: remoteIdentity(node), seal: sealed }
      // Without a bin nobody can take it back, and nothing is remembered of it.
      if (!work.hasBin) return
      const shown = showPath(path)
      const one: Deed =
        replaces === undefined || makeWay !== undefined
          ? { do: 'created-local', path: shown, isDirectory: false, origin }
          : { do: 'replaced-local', path: shown, bin: work.bin().placeOf(path), was: markOf(replaces), origin }
      begun = { number: work.state.addDeed(work.runId, one), deed: one }
      if (one.do === 'replaced-local') work.bin().keep(path)
    }
    const told = options.heldTo?.get(key)
    let bytes: number
    try {
      const how = {
        shown: work.show(path),
        replaces,
        known: expected?.of(node),
        // It is never more open than it is going to be.
        mode: told?.remote.id === node.id ? told.mode : undefined,
        large,
        beforeRename,
        openKey,
        directory,
      }
      bytes = await downloadFile(context, node, directory.at(path.at(-1)!), how, stop).catch(explained)
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

  function explained(thrown: unknown): never {
    throw expected?.explain(toSyncError(thrown)) ?? thrown
  }

  /** A file did not get its name after all: then the one that it was to replace is as it was. */
  function takeBack(key: string, path: readonly string[], { number, deed: one }: { number: number; deed: Deed }): void {
    const now = lookAt(join(root, ...path))
    if (one.do === 'replaced-local') {
      // It has its name, and only what follows has failed.
      if (now?.ino !== one.was.ino) return
      dropCopy(root, one.bin)
      work.dropped.push(one.bin)
      settleTouched(work.state, root, key, one.was)
    } else if (now !== undefined) {
      return
    }
    work.state.dropDeed(work.runId, number)
  }
}
