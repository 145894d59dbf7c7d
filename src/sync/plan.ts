/**
 * What to do, as a pure function of two trees and the options. Planning a plan that was carried out yields only skips. It
 * never touches a key, a file or the network.
 * @module
 */
import { type RemoteNode, wireTime } from '../api/wire.ts'
import { SyncError, toSyncError } from '../errors.ts'
import { escapeName, foldKey, localName, type NameRules, type Names, sameNameKey } from '../local/names.ts'
import { exactKey, type LocalEntry, MAX_DEPTH, type RemoteEntry, remoteKey, showPath } from './tree.ts'

export type UploadStep =
  | { readonly do: 'make-folder'; readonly shown: string; readonly path: readonly string[] }
  | {
      readonly do: 'upload'
      readonly shown: string
      /** Remote components; the last is the file's name. */
      readonly path: readonly string[]
      readonly entry: LocalEntry
      readonly reason: string
      /** Path of what differs and stays; this goes beside it. */
      readonly beside?: string
      /** Becomes a version of this node. */
      readonly replaces?: RemoteNode
      /** Nothing to do if this node, of the same size, has the same content. */
      readonly compareWith?: RemoteNode
      /** What to say instead of uploading, if it has not. */
      readonly refusal?: SyncError
    }
  | { readonly do: 'skip'; readonly shown: string }
  | { readonly do: 'fail'; readonly shown: string; readonly error: SyncError }

/**
 * What to do with a target that exists and differs: leave it, replace it, put the new one beside it under a free name, report
 * it, or replace it only by something that was modified later.
 */
export type ConflictAction = 'skip' | 'overwrite' | 'rename' | 'fail' | 'newer'

export interface CompareOptions {
  /** Compare contents by recomputing the tag, whatever the times say. */
  readonly checksum: boolean
  /** Default `overwrite`: a new version. */
  readonly onConflict?: ConflictAction
  readonly names?: Names | undefined
}

/**
 * The server keeps whole milliseconds, and times pass through floating-point seconds on their way to the disk and back: what
 * is less than this apart is the same.
 */
const RESOLUTION_MS = 1.001

/** Equal within the coarser of two resolutions: many servers and file systems keep whole seconds only. */
export function sameTime(one: number, other: number): boolean {
  const [a, b] = [wireTime(one), wireTime(other)]
  if (Math.abs(a - b) < RESOLUTION_MS) return true
  const [x, y] = [Math.floor(a), Math.floor(b)]
  const wholeSeconds = x % 1000 === 0 || y % 1000 === 0
  return wholeSeconds && Math.floor(x / 1000) === Math.floor(y / 1000)
}

const conflict = (message: string, hint: string) => new SyncError('conflict', 'EXISTS', message, { hint })

/** Neither we nor others list deeper trees, so what is stored there would be out of reach. */
const tooDeep = () =>
  new SyncError('limit', 'TREE_TOO_DEEP', `The directory is more than ${MAX_DEPTH} levels below the target`, {
    hint: 'Pack deep trees into an archive, or upload their lower part by itself.',
  })

/** The remote path of a local one; `undefined` when one of its names cannot be stored. */
export function remotePathOf(path: readonly string[], names: Names | undefined): string[] | undefined {
  try {
    return path.map((name) => escapeName(name, { names }))
  } catch {
    return undefined
  }
}

const keysOf = (entries: readonly LocalEntry[], names: Names | undefined): Set<string> =>
  new Set(
    entries.flatMap((entry) => {
      const path = remotePathOf(entry.path, names)
      return path === undefined ? [] : remoteKey(path)
    }),
  )

/** As long as a name may be on a disk. */
const MOST_BYTES = 255

/** `name (1).ext`, `name (2).ext`, … */
export function freeName(name: string, isFree: (name: string) => boolean): string {
  const dot = name.lastIndexOf('.')
  const hasExtension = dot > 0 && Buffer.byteLength(name.slice(dot)) < MOST_BYTES / 2
  const [stem, extension] = hasExtension ? [name.slice(0, dot), name.slice(dot)] : [name, '']
  for (let number = 1; ; number++) {
    const end = ` (${number})${extension}`
    let short = stem
    while (Buffer.byteLength(short + end) > MOST_BYTES) short = [...short].slice(0, -1).join('')
    if (isFree(short + end)) return short + end
  }
}

/** True when a difference may be resolved by replacing. */
export function mayReplace(action: ConflictAction, fromMs: number, existingMs: number | undefined): boolean {
  return (
    action === 'overwrite' || (action === 'newer' && existingMs !== undefined && fromMs - existingMs >= RESOLUTION_MS)
  )
}

/** A local file whose name is there already. */
function planExisting(
  entry: LocalEntry,
  existing: RemoteNode,
  { shown, path }: { shown: string; path: readonly string[] },
  { checksum, onConflict = 'overwrite', names }: CompareOptions,
  isFreeName: (name: string) => boolean,
): UploadStep {
  const { size, timestampModification: modified } = existing
  const sameSize = size === entry.size
  if (sameSize && !checksum && modified !== undefined && sameTime(modified, entry.mtimeMs)) return { do: 'skip', shown }
  const isCompared = sameSize && checksum
  const compare = isCompared ? { compareWith: existing } : {}
  const reason = isCompared ? 'contents are compared' : onConflict === 'newer' ? 'newer here' : 'they differ'
  const upload = { do: 'upload', shown, path, entry, reason, ...compare } as const
  if (mayReplace(onConflict, entry.mtimeMs, modified)) return { ...upload, replaces: existing }
  if (onConflict === 'rename') {
    const remoteName = (name: string) => escapeName(name, { names })
    try {
      const free = freeName(entry.path.at(-1)!, (name) => isFreeName(remoteName(name)))
      return { ...upload, path: [...path.slice(0, -1), remoteName(free)], beside: shown }
    } catch (error) {
      return { do: 'fail', shown, error: toSyncError(error) }
    }
  }
  if (onConflict !== 'fail') return { do: 'skip', shown }
  const refusal = conflict(
    'The file on the server differs and was kept',
    'See --on-conflict for what else can be done.',
  )
  return isCompared ? { ...upload, refusal } : { do: 'fail', shown, error: refusal }
}

/** Plans an upload: local entries (parents before children) against what is below the target. */
export function planUpload(
  entries: readonly LocalEntry[],
  remote: ReadonlyMap<string, RemoteEntry>,
  options: CompareOptions,
): UploadStep[] {
  const steps: UploadStep[] = []
  const taken = new Map<string, { entry: LocalEntry; shown: string; index: number }>()
  /** Directories that have no place on the server; what is below them fails with them. */
  const blocked = new Map<string, SyncError>()
  /** Names that are taken, or will be: nothing is renamed to one of them. */
  const names = options.onConflict === 'rename' ? keysOf(entries, options.names) : new Set<string>()
  for (const entry of entries) {
    const shown = showPath(entry.path)
    const parent = showPath(entry.path.slice(0, -1))
    const fail = (error: SyncError) => {
      if (entry.kind === 'directory') blocked.set(shown, error)
      steps.push({ do: 'fail', shown, error })
    }
    const above = blocked.get(parent)
    if (above !== undefined) {
      if (entry.kind === 'directory') blocked.set(shown, above)
      else steps.push({ do: 'fail', shown, error: above })
      continue
    }
    if (entry.kind === 'directory' && entry.path.length > MAX_DEPTH) {
      fail(tooDeep())
      continue
    }
    let path: string[]
    try {
      path = entry.path.map((name) => escapeName(name, options))
    } catch (error) {
      fail(toSyncError(error))
      continue
    }
    const key = remoteKey(path)
    const other = taken.get(key)
    if (other !== undefined) {
      // The same thing named twice; and directories of one name from two sources become one.
      const bothDirectories = entry.kind === 'directory' && other.entry.kind === 'directory'
      if (other.entry.source === entry.source || (bothDirectories && other.shown === shown)) continue
      const clash = conflict(
        'Two local names are one name on the server',
        'They come from two sources, or differ only in how their characters are composed; rename one.',
      )
      fail(clash)
      // A file has a step of its own there; a directory stays, with what is in it.
      if (other.entry.kind === 'file') steps[other.index] = { do: 'fail', shown: other.shown, error: clash }
      continue
    }
    taken.set(key, { entry, shown, index: steps.length })
    const existing = remote.get(key)?.node
    if (entry.kind === 'directory') {
      if (existing === undefined) steps.push({ do: 'make-folder', shown, path })
      else if (existing.type === 'file') {
        fail(conflict('A file with the name of this directory is on the server', 'Rename one of them.'))
      }
      continue
    }
    if (existing === undefined) {
      steps.push({ do: 'upload', shown, path, entry, reason: 'new here' })
    } else if (existing.type !== 'file') {
      fail(conflict('A folder with the name of this file is on the server', 'Rename one of them.'))
    } else {
      steps.push(
        planExisting(entry, existing, { shown, path }, options, (name) => {
          const key = remoteKey([...path.slice(0, -1), name])
          if (remote.has(key) || names.has(key)) return false
          names.add(key)
          return true
        }),
      )
    }
  }
  return steps
}

export type DownloadStep =
  | { readonly do: 'make-directory'; readonly shown: string; readonly path: readonly string[] }
  | {
      readonly do: 'download'
      readonly shown: string
      /** Local components; the last is the file's name. */
      readonly path: readonly string[]
      readonly node: RemoteNode
      readonly reason: string
      /** Path of what differs and stays; this goes beside it. */
      readonly beside?: string
      /** What stands on the disk and is to be replaced. */
      readonly replaces?: { readonly size: number; readonly mtimeMs: number }
      /** Nothing to do if this file on the disk has the same content. */
      readonly compareWith?: readonly string[]
      /** What to say instead of downloading, if it has not. */
      readonly refusal?: SyncError
    }
  | { readonly do: 'fail'; readonly shown: string; readonly error: SyncError }

/**
 * Plans a download as far as names go: maps every remote name to a local one and finds names that would meet on this disk.
 * What stands on the disk already is looked at file by file when the plan is carried out.
 *
 * @param entries - Parents before children.
 */
export function planDownload(
  entries: readonly RemoteEntry[],
  options: NameRules & { foldCase: boolean },
): DownloadStep[] {
  const steps: DownloadStep[] = []
  const localPaths = new Map<string, readonly string[] | SyncError>([['', []]])
  const claims = new Map<string, number[]>()
  entries.forEach((entry) => {
    const shown = showPath(entry.path)
    const parent = localPaths.get(exactKey(entry.path.slice(0, -1))) ?? []
    const id = exactKey(entry.path)
    const fail = (error: SyncError) => {
      localPaths.set(id, error)
      steps.push({ do: 'fail', shown, error })
    }
    if (parent instanceof SyncError) {
      if (entry.node.type === 'file') fail(parent)
      else localPaths.set(id, parent)
      return
    }
    let path: readonly string[]
    try {
      path = [...parent, localName(entry.path.at(-1) ?? '', options)]
    } catch (error) {
      fail(toSyncError(error))
      return
    }
    localPaths.set(id, path)
    const key = path.map(options.foldCase ? foldKey : sameNameKey).join('/')
    const claim = claims.get(key)
    if (claim === undefined) claims.set(key, [steps.length])
    else claim.push(steps.length)
    steps.push(
      entry.node.type === 'file'
        ? { do: 'download', shown, path, node: entry.node, reason: 'new there' }
        : { do: 'make-directory', shown, path },
    )
  })
  for (const claim of claims.values()) {
    if (claim.length === 1) continue
    for (const index of claim) {
      const { do: action, shown } = steps[index]!
      // Directories may meet: their contents are compared name by name.
      if (action !== 'download' && claim.every((other) => steps[other]!.do !== 'download')) continue
      const error = conflict('Two remote names are one name on this disk', 'Rename one of them on the server.')
      steps[index] = { do: 'fail', shown, error }
    }
  }
  return steps
}
