/** What becomes of one file: by what has changed on which side since it was remembered, and by the options where that is not enough. @module */
import { SyncError } from '../../errors.ts'
import { freeName, mayReplace } from '../conflicts.ts'
import { type Change, localChange, looksEqual, remoteChange, type SyncRecord } from '../records.ts'
import { keyOf, type RemoteItem } from '../scan.ts'
import type { LocalEntry } from '../tree.ts'
import { nameCopy, type Taken } from './places.ts'
import type { Common, ReconcileOptions, Side, SyncStep, Trees } from './steps.ts'

/** What is known of a place. */
export interface Here {
  readonly local: LocalEntry | undefined
  readonly remote: RemoteItem | undefined
  readonly record: SyncRecord | undefined
}

type At = Pick<Common, 'key' | 'path'>

/** A file that is on both sides, and what has become of each since the record. */
interface OnBoth {
  readonly local: LocalEntry
  readonly remote: RemoteItem
  readonly record: SyncRecord | undefined
  readonly here: Change | undefined
  readonly there: Change | undefined
}

/** Bytes from which it is worth finding out whether a file with another time has another content. */
const COMPARE_FROM = 1024 * 1024

const bothChanged = () =>
  new SyncError('conflict', 'BOTH_CHANGED', 'Both sides have changed', {
    hint: 'Look at both. --on-conflict says what else can be done.',
  })

const targetChanged = (what: string) =>
  new SyncError('conflict', 'TARGET_CHANGED', `${what}, so it was left alone`, {
    hint: 'Look at both. --on-conflict overwrite replaces it.',
  })

export const targetDiffers = (): SyncError =>
  new SyncError('conflict', 'TARGET_DIFFERS', 'The target differs, and was kept', {
    hint: 'Look at both. --on-conflict says what else can be done.',
  })

const silentlyChanged = () =>
  new SyncError('integrity', 'CONTENT_DIFFERS', 'The contents differ, though sizes and times do not', {
    hint: 'One side has changed without a trace: a failing disk, a program that resets times, or the server.',
  })

/**
 * Decides about files, one at a time; what yields nothing needs nothing.
 *
 * @param taken - Names that are not free; those that are given to copies come to them.
 */
export function createDecision(trees: Trees, options: ReconcileOptions, taken: Taken) {
  const { direction, onConflict = 'fail', remembers = true, checksum = false } = options
  const { isEqual = looksEqual } = trees
  const mayDelete = options.delete && !trees.isFirst && !trees.isIncomplete
  const settle = direction === 'both' ? createMerge(options, taken) : createMirror(direction, trees, options, taken)

  return function decide(key: string, { local, remote, record }: Here): SyncStep | undefined {
    const path = local?.path ?? remote?.path ?? record!.path.split('/')
    const at = { key, path }
    const here = record && local && localChange(record, local)
    const there = record && remote && remoteChange(record, remote)
    if (local !== undefined && remote !== undefined) return onBoth(at, { local, remote, record, here, there })
    if (local !== undefined) return onlyHere(at, local, record, here)
    if (remote !== undefined) return onlyThere(at, remote, record, there)
    return { do: 'forget', ...at, reason: 'gone on both sides' }
  }

  function onBoth(at: At, found: OnBoth): SyncStep | undefined {
    const { local, remote, record, here, there } = found
    if (here === 'same' && there === 'same') {
      if (!checksum) return undefined
      const reason = 'contents are compared'
      return { do: 'conflict', ...at, reason, error: silentlyChanged(), unlessSame: { local, remote } }
    }
    if (record === undefined && !checksum && isEqual(local, remote.node)) {
      return remembers ? { do: 'adopt', ...at, reason: 'same size and time', local, remote } : undefined
    }
    return settle(at, found)
  }

  function onlyHere(at: At, local: LocalEntry, record: SyncRecord | undefined, here: Change | undefined) {
    if (direction === 'pull' && record !== undefined && here !== 'same') return conflictOrKeep(at, 'local', record)
    if (direction === 'pull' || (direction === 'both' && here === 'same')) return goneThere(at, local, record)
    const reason = record === undefined ? 'new here' : 'not there any more'
    return { do: 'upload', ...at, reason, local } as const
  }

  function onlyThere(at: At, remote: RemoteItem, record: SyncRecord | undefined, there: Change | undefined) {
    if (direction === 'push' && record !== undefined && there !== 'same') return conflictOrKeep(at, 'remote', record)
    if (direction === 'push' || (direction === 'both' && there === 'same')) return goneHere(at, remote, record)
    const reason = record === undefined ? 'new there' : 'not here any more'
    return { do: 'download', ...at, reason, remote } as const
  }

  /** Removed at the source, changed at the target: a change is worth more than a removal. */
  function conflictOrKeep(at: At, side: Side, record: SyncRecord): SyncStep | undefined {
    if (!options.delete)
      return { do: 'keep', ...at, side, kind: record.kind, reason: 'gone on the other side, changed here' }
    if (onConflict === 'skip') return undefined
    const error = targetChanged('It is gone at the source, but was changed at the target')
    return { do: 'conflict', ...at, reason: 'gone at the source, changed at the target', error }
  }

  function goneThere(at: At, local: LocalEntry, record: SyncRecord | undefined): SyncStep {
    const reason = record ? 'deleted there' : 'not there'
    if (mayDelete) return { do: 'delete-local', ...at, reason, local }
    return { do: 'keep', ...at, side: 'local', kind: 'file', reason }
  }

  function goneHere(at: At, remote: RemoteItem, record: SyncRecord | undefined): SyncStep {
    const reason = record ? 'deleted here' : 'not here'
    if (mayDelete) return { do: 'delete-remote', ...at, reason, remote }
    return { do: 'keep', ...at, side: 'remote', kind: 'file', reason }
  }
}

/** A file on both sides that goes from one to the other, and whether its contents are compared first. */
function createSending({ remembers = true, checksum = false, comparesAll = false }: ReconcileOptions) {
  const isExact = checksum || comparesAll
  const isCompared = ({ local, remote }: OnBoth) => local.size === remote.node.size && (remembers || checksum)
  const maybe = (found: OnBoth) => (isCompared(found) ? { unlessSame: true } : {})
  return {
    isCompared,
    maybe,
    upload: (at: At, found: OnBoth, reason: string): SyncStep => ({
      do: 'upload',
      ...at,
      reason,
      local: found.local,
      replaces: found.remote,
      ...maybe(found),
    }),
    /** Only here it has changed. */
    follow(at: At, found: OnBoth): SyncStep {
      const { local, remote } = found
      // A small file with another time is sooner sent than looked at: that takes its key.
      const isSent = found.here === 'changed' && local.size < COMPARE_FROM && !isExact
      return { do: 'upload', ...at, reason: 'changed here', local, replaces: remote, ...(isSent ? {} : maybe(found)) }
    },
    download: (at: At, found: OnBoth, reason: string): SyncStep => ({
      do: 'download',
      ...at,
      reason,
      remote: found.remote,
      replaces: found.local,
      ...maybe(found),
    }),
  }
}

type Settle = (at: At, found: OnBoth) => SyncStep | undefined

/** Both ways: the side that has changed is followed if only one has; else one is preferred, or both are kept. */
function createMerge(options: ReconcileOptions, taken: Taken): Settle {
  const { prefer } = options
  const { maybe, upload, follow, download } = createSending(options)
  return (at, found) => {
    const { local, remote, record, here, there } = found
    if (there === 'same') return follow(at, found)
    if (here === 'same') return download(at, found, 'changed there')
    const [localTime, remoteTime] = [local.mtimeMs, remote.node.timestampModification]
    if (prefer === 'local') return upload(at, found, 'both changed, local is preferred')
    if (prefer === 'remote') return download(at, found, 'both changed, remote is preferred')
    if (prefer === 'newer' && mayReplace('newer', localTime, remoteTime)) {
      return upload(at, found, 'both changed, newer here')
    }
    if (prefer === 'newer' && remoteTime !== undefined && mayReplace('newer', remoteTime, localTime)) {
      return download(at, found, 'both changed, newer there')
    }
    const reason = record === undefined ? 'they differ' : 'both changed'
    const copy = nameCopy(at.key, local.path, local.mtimeMs, options, taken)
    return { do: 'keep-both', key: at.key, path: local.path, reason, local, remote, copy, ...maybe(found) }
  }
}

/** One way: what this program has left at the target is replaced; about anything else the options decide. */
function createMirror(
  direction: 'push' | 'pull',
  { isTaken = () => false }: Trees,
  options: ReconcileOptions,
  taken: Taken,
): Settle {
  const { onConflict = 'fail' } = options
  const { isCompared, maybe, upload, follow, download } = createSending(options)
  const isPush = direction === 'push'
  const send = isPush ? upload : download
  return (at, found) => {
    const { local, remote, here, there } = found
    // The target is as this program has left it, so replacing it loses nothing.
    if (isPush && there === 'same') return follow(at, found)
    if (!isPush && here === 'same') return download(at, found, 'changed there')
    if (onConflict === 'skip') return undefined
    if (onConflict === 'overwrite') return send(at, found, 'they differ')
    if (onConflict === 'rename') return beside(at, found)
    if (onConflict === 'newer') {
      const [localTime, remoteTime] = [local.mtimeMs, remote.node.timestampModification]
      const isNewer = isPush
        ? mayReplace('newer', localTime, remoteTime)
        : mayReplace('newer', remoteTime ?? 0, localTime)
      return isNewer ? send(at, found, 'newer') : undefined
    }
    return conflict(at, found)
  }

  function beside({ path }: At, found: OnBoth): SyncStep {
    const { local, remote } = found
    const free = freePath(path)
    const there = { key: keyOf(free), path: free, reason: 'they differ', ...maybe(found) }
    if (isPush) return { do: 'upload', ...there, local, beside: remote }
    return { do: 'download', ...there, remote, beside: local }
  }

  /** A free name at the target; it is taken then. */
  function freePath(path: readonly string[]): readonly string[] {
    const parent = path.slice(0, -1)
    const name = freeName(path.at(-1)!, (candidate) => {
      const wanted = [...parent, candidate]
      if (taken.has(keyOf(wanted)) || isTaken(wanted)) return false
      taken.add(keyOf(wanted))
      return true
    })
    return [...parent, name]
  }

  function conflict(at: At, found: OnBoth): SyncStep {
    const { local, remote, record, here, there } = found
    const unlessSame = isCompared(found) ? { unlessSame: { local, remote } } : {}
    if (record === undefined) {
      return { do: 'conflict', ...at, reason: 'they differ', error: targetDiffers(), ...unlessSame }
    }
    if ((isPush ? here : there) === 'same') {
      const error = targetChanged('The target was changed by somebody else')
      return { do: 'conflict', ...at, reason: 'the target was changed', error, ...unlessSame }
    }
    return { do: 'conflict', ...at, reason: 'both changed', error: bothChanged(), ...unlessSame }
  }
}
