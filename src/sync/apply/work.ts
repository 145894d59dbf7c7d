/**
 * What all steps of one run share: where things are on the server now, what is remembered of them, the open directories and the bin of
 * this disk, and the deeds.
 * @module
 */
import type { RemoteNode } from '../../api/wire.ts'
import { localError, SyncError } from '../../errors.ts'
import { escapeName, type Names } from '../../local/names.ts'
import { createSafeTree, type SafeTree } from '../../local/safe-tree.ts'
import { createLocalBin, dropEmptyDirectories, type LocalBin } from '../local-bin.ts'
import { changedHere } from '../local-move.ts'
import type { SyncStep } from '../reconcile.ts'
import { type Attributes, createRecord, type SyncRecord } from '../records.ts'
import type { RunContext } from '../run.ts'
import { keyOf, lookLocal, type RemoteItem } from '../scan.ts'
import type { Deed, SyncState } from '../state.ts'
import { type LocalEntry, showPath } from '../tree.ts'

export type StepOf<K extends SyncStep['do']> = Extract<SyncStep, { do: K }>

export interface Place {
  readonly id: number
  readonly roomId: number
}

export interface ApplyTarget {
  /** Absolute path; empty for runs that change nothing here. */
  readonly root: string
  readonly container: Place
  readonly remote: ReadonlyMap<string, RemoteItem>
  readonly records: ReadonlyMap<string, SyncRecord>
}

export interface WorkOptions {
  readonly signal: AbortSignal
  readonly runId: string
  readonly names?: Names | undefined
  /** What is replaced here goes into the bin; else it is gone. */
  readonly hasBin?: boolean
  /** Nothing is changed on this disk. */
  readonly isFromHere?: boolean
  /** How a place is called in events and failures. Default: `showPath`. */
  readonly show?: ((path: readonly string[]) => string) | undefined
  /** What is remembered of a file beside its content. Default: nothing. */
  readonly attributesOf?: ((entry: LocalEntry) => Attributes | undefined) | undefined
  /** Nothing at the server is moved: what has moved here is only remembered under its new path, and of folders nothing is. */
  readonly addsOnly?: boolean | undefined
  /** Where what is replaced or removed at the server goes. Default: its recycle bin. */
  readonly remoteBin?: RemoteBin | undefined
}

/** A place at the server for what is out of date. */
export interface RemoteBin {
  /**
   * Moves nodes there, out of the folder that they are in. One that is gone is passed over.
   *
   * @param folder - Path of that folder below the root.
   */
  take(nodes: readonly RemoteNode[], folder: readonly string[], signal: AbortSignal): Promise<void>
  /** Moves one back to where it was, since what was to replace it has not come. */
  putBack(node: RemoteNode): Promise<void>
}

export type Work = ReturnType<typeof createWork>

/** True for what is not the content of a file. */
const isStep = (one: Deed): boolean =>
  /^(moved|deleted)/.test(one.do) || ('isFolder' in one && one.isFolder) || ('isDirectory' in one && one.isDirectory)

export function createWork(context: RunContext, target: ApplyTarget, state: SyncState, options: WorkOptions) {
  const { root } = target
  const { signal, runId, names, hasBin = true, isFromHere = root === '', show = showPath, attributesOf } = options
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
  /** As they become in this run; copied when the first one changes. */
  let records = target.records
  const change = (): Map<string, SyncRecord> => {
    if (records === target.records) records = new Map(target.records)
    return records as Map<string, SyncRecord>
  }
  /** Where containers are, or what became of those that should have been made. */
  const places = new Map<string, Place | SyncError>([['', target.container]])
  for (const [key, { kind, node, roomId }] of target.remote)
    if (kind === 'directory') places.set(key, { id: node.id, roomId })
  /** Names that nodes have got in this run. */
  const renamed = new Map<number, string>()

  const tellDone = (one: Deed) => {
    if (!isStep(one)) return
    const from = 'from' in one ? { from: one.from } : {}
    context.onEvent?.({ type: 'step-done', do: one.do, path: one.path, ...from })
  }
  const put = (key: string, record: SyncRecord) => {
    change().set(key, record)
    state.put(key, record)
  }

  return {
    context,
    api: context.api,
    root,
    remote: target.remote,
    state,
    signal,
    runId,
    hasBin,
    isFromHere,
    show,
    attributesOf,
    addsOnly: options.addsOnly === true,
    remoteBin: options.remoteBin,
    /** Both sides had changed; both are kept. */
    conflicts: [] as { readonly path: string; readonly copy: string }[],
    places,
    renamed,
    dropped,
    local,
    lookAnew,
    change,
    put,
    tellDone,
    bin: () => (bin ??= createLocalBin(local(), runId)),
    records: () => records,

    /** Something that was done at the server. */
    deed(one: Deed): void {
      state.addDeed(runId, one)
      tellDone(one)
    },

    /** Does something on this disk that is written down before; a run that is killed is understood by that, see recovery.ts. */
    doLocally(one: Deed, what: string, act: () => void): void {
      const number = state.addDeed(runId, one)
      try {
        act()
      } catch (error) {
        state.dropDeed(runId, number)
        throw localError(error, what)
      }
      tellDone(one)
    },

    /** @param sha256 - Base64. Default: as it is known of this content. */
    remember(key: string, entry: LocalEntry, node: RemoteNode, seal?: string, sha256?: string): void {
      const before = sameContent(records.get(key), node)
      const attributes = attributesOf?.(entry)
      const record = createRecord(entry, node, seal ?? before?.seal, sha256 ?? before?.sha256, attributes)
      put(key, before?.mac === undefined ? record : { ...record, mac: before.mac })
    },

    /** Where to put something; throws what became of its folder. */
    placeOf(key: string): Place {
      const place = places.get(key)
      if (place instanceof SyncError) throw notMade(place)
      if (place !== undefined) return place
      throw new SyncError('conflict', 'FOLDER_MISSING', 'The folder for it is not there', { hint: 'Run again.' })
    },

    /** Everything at and below a key, under another path. */
    rename(from: string, to: readonly string[], kind: 'file' | 'directory'): void {
      const toKey = keyOf(to)
      const below = <T>(all: ReadonlyMap<string, T>): Iterable<[string, T]> =>
        kind === 'directory' ? [...all] : all.has(from) ? [[from, all.get(from)!]] : []
      const depth = from.split('/').length
      for (const [key, place] of below(places)) {
        if (key !== from && !key.startsWith(`${from}/`)) continue
        places.delete(key)
        places.set(toKey + key.slice(from.length), place)
      }
      for (const [key, record] of below(records)) {
        if (key !== from && !key.startsWith(`${from}/`)) continue
        change().delete(key)
        state.remove(key)
        const path = [...to, ...record.path.split('/').slice(depth)].join('/')
        put(toKey + key.slice(from.length), { ...record, path })
      }
    },

    asRenamed(node: RemoteNode): RemoteNode {
      const name = renamed.get(node.id)
      if (name === undefined) return node
      // That was a change, too.
      const { updatedAt: _before, ...rest } = node
      return { ...rest, name }
    },

    nameOf: (path: readonly string[]) => escapeName(path.at(-1)!, { names }),

    /** Throws unless a local file is as it was when this was planned. */
    requireSame(entry: LocalEntry): void {
      const now = lookLocal(root, entry.path)
      if (now === undefined || now.size !== entry.size || now.mtimeMs !== entry.mtimeMs) throw changedHere()
    },
  }
}

/** That was tried already, so it says nothing new about the server. */
const notMade = (why: SyncError) =>
  new SyncError(why.class, why.code, `The folder for it could not be made: ${why.message}`, {
    ...(why.hint === undefined ? {} : { hint: why.hint }),
    cause: why,
  })

/** A record, as long as it is about the same node and with it about the same content. */
const sameContent = (record: SyncRecord | undefined, node: RemoteNode): SyncRecord | undefined =>
  record?.remote.id === node.id ? record : undefined
