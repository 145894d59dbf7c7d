/**
 * What a pull takes from the manifest of a tree: permissions, exact times and symbolic links. Any member of the room can have
 * made it, so it never decides about contents, makes no directories, removes and replaces nothing, and its links stay inside.
 * @module
 */
import {
  closeSync,
  constants,
  fstatSync,
  futimesSync,
  lstatSync,
  lutimesSync,
  openSync,
  readlinkSync,
  type Stats,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import type { RemoteNode } from '../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../errors.ts'
import { isTemporaryName, MANIFEST_NAME } from '../local/atomic-file.ts'
import { FILE_MODE, type FileTime, secondsOf, setMode } from '../local/attributes.ts'
import { checkLocalName } from '../local/names.ts'
import { createSafeTree, type SafeTree } from '../local/safe-tree.ts'
import { sameTime } from './conflicts.ts'
import type { KnownFile } from './known-contents.ts'
import type { FileEntry, LinkEntry } from './manifest.ts'
import { localChange, localIdentity } from './records.ts'
import { type RunContext, report } from './run.ts'
import { keyOf, lookLocal, parentKey } from './scan.ts'
import type { Selection } from './select.ts'
import type { SyncState } from './state.ts'
import type { EntryFailure } from './tree.ts'
import {
  droppedManifest,
  type FoundManifest,
  isTooLongAgo,
  judgeManifest,
  readTreeManifest,
  type TreeDirectory,
} from './tree-manifest.ts'

export interface PullManifestOptions {
  readonly state: SyncState
  readonly runId: string
  /** Absolute path. */
  readonly root: string
  /** Room or folder that is pulled. */
  readonly container: { readonly id: number }
  /** The manifest as it was listed. */
  readonly found: RemoteNode | undefined
  /** Nothing was to be done: a manifest that is known has been taken from already. */
  readonly isUnchanged: boolean
  /** Take another manifest than the one that is known for the right one. */
  readonly acceptAny: boolean
  readonly selection: Selection
  readonly signal: AbortSignal
  /** What `lookAtManifest` has found, if it has been asked. */
  readonly looked?: LookedAt | undefined
}

/** The manifest as it is there: read, or why it could not be, and what is wrong with it. */
export interface LookedAt {
  readonly there?: FoundManifest
  /** Of reading it. */
  readonly error?: SyncError
  /** Class `integrity`: it is not the one that is known, nor follows from it. */
  readonly problem?: SyncError | undefined
}

type Where = Pick<PullManifestOptions, 'state' | 'container' | 'acceptAny' | 'signal'>

const knownPin = ({ state, container }: Where) => (state.manifest?.rootId === container.id ? state.manifest : undefined)

/** Fetches and judges the manifest. */
export async function lookAtManifest(context: RunContext, found: RemoteNode, how: Where): Promise<LookedAt> {
  try {
    const there = await readTreeManifest(context, found, how.signal)
    const pin = how.acceptAny ? undefined : knownPin(how)
    return { there, problem: pin && judgeManifest(pin, there) }
  } catch (thrown) {
    if (how.signal.aborted) throw thrown
    return { error: toSyncError(thrown) }
  }
}

/** What a manifest that is right says of the contents of files. */
export function heldTo({ there, problem }: LookedAt): ReadonlyMap<string, KnownFile> {
  const files = new Map<string, KnownFile>()
  if (problem !== undefined) return files
  for (const { kind, path, ...entry } of there?.manifest.entries ?? []) {
    if (kind !== 'file') continue
    const { node: id, size, seal, mode } = entry as FileEntry
    const known = { kind, path, remote: { id, size }, ...(seal === undefined ? {} : { seal }) }
    files.set(keyOf(path.split('/')), { ...known, mode: mode === undefined ? undefined : mode & allowedModes() })
  }
  return files
}

/**
 * Takes from the manifest what belongs to the files that are there. A manifest that cannot be read is a warning.
 *
 * @returns what is to be told: a manifest that is not the right one (class `integrity`), of which nothing is taken, and what
 * could not be set.
 */
export async function takeManifest(context: RunContext, options: PullManifestOptions): Promise<EntryFailure[]> {
  const { state, found } = options
  const { id: rootId } = options.container
  const told: EntryFailure[] = []
  const tell = (path: string, thrown: unknown) => {
    const error = toSyncError(thrown)
    told.push({ path, error })
    report(context, path, error)
  }
  const known = knownPin(options)
  const pin = options.acceptAny ? undefined : known
  if (found === undefined) {
    if (pin !== undefined) tell(MANIFEST_NAME, droppedManifest())
    else if (known !== undefined) state.setManifest(undefined)
    return told
  }
  if (options.isUnchanged && pin?.node === found.id && pin.size === found.size) return told
  const looked = options.looked ?? (await lookAtManifest(context, found, options))
  const { there, error, problem } = looked
  if (there === undefined) {
    // Runs that fetch nothing do without the password.
    if (error?.class !== 'integrity' && error?.code !== 'PASSWORD_NEEDED') {
      tell(MANIFEST_NAME, error)
      return told
    }
    const message = `Permissions, links and exact times were not brought: ${error.message}`
    context.onEvent?.({ type: 'warning', code: error.code, message })
    return told
  }
  if (problem !== undefined) {
    tell(MANIFEST_NAME, problem)
    return told
  }
  const { manifest, sha256, seal } = there
  if (pin !== undefined && isTooLongAgo(pin, manifest)) {
    const message =
      'It is long since the last pull: nobody can tell whether the manifest follows from the one known here'
    context.onEvent?.({ type: 'warning', code: 'NOT_PINNED', message })
  }
  const tree = createSafeTree(options.root)
  const taker = createTaker(context, tree, options)
  // What is set from here on may be ahead of what is remembered, should this be the end.
  state.setAttributesBegun(true)
  try {
    for (const entry of manifest.entries) {
      options.signal.throwIfAborted()
      try {
        if (entry.kind === 'file') taker.finishFile(entry)
        else if (entry.kind === 'directory') taker.finishDirectory(entry)
        else taker.link(entry)
      } catch (error) {
        tell(entry.path, error)
      }
    }
  } finally {
    tree.close()
  }
  taker.tellPassedOver()
  state.setAttributesBegun(false)
  const { sequence, previous } = manifest
  const size = found.size ?? 0
  if (told.length === 0 && known?.sha256 !== sha256)
    state.setManifest({ rootId, node: found.id, size, seal, sequence, sha256, previous })
  return told
}

/** Links that are named one by one; somebody may have made very many. */
const NAMED = 10
/** Less than this is not told apart; see `secondsOf`. */
const SAME_MS = 0.002
/** What the owner needs for the next run to work. */
const OWN_FILE = 0o400
const OWN_DIRECTORY = 0o700

/** As for every new file: a manifest opens nothing to others that this user would keep from them. */
const allowedModes = (): number => FILE_MODE & ~process.umask()

function createTaker(context: RunContext, tree: SafeTree, options: PullManifestOptions) {
  const { state, runId, root, selection } = options
  const allowed = allowedModes()
  const hasModes = process.platform !== 'win32'
  let passedOver = 0
  let checked: string | undefined

  /** Throws unless the directories on the way are real ones; these must be there. */
  function check(parents: readonly string[]): void {
    const shown = parents.join('/')
    if (shown !== checked) tree.check(parents)
    checked = shown
  }

  function passOver({ path, target }: LinkEntry, why: string): void {
    passedOver++
    if (passedOver > NAMED) return
    const message = `The link ${path} to ${target} was passed over: ${why}`
    context.onEvent?.({ type: 'warning', code: 'LINK_PASSED_OVER', message })
  }

  /** The directory of a link, as it is called here; or why there may be none. */
  function directoryOf(parts: readonly string[], target: string): readonly string[] | string {
    if (isOurs(parts)) return 'it cannot have this name here'
    if (!staysInside(parts.length - 1, target)) return 'it may lead out of the directory'
    if (parts.length === 1) return []
    const record = state.current().get(parentKey(keyOf(parts)))
    if (record?.kind !== 'directory' || !look(join(root, record.path))?.isDirectory())
      return 'its directory is not there'
    return record.path.split('/')
  }

  function isOurs(parts: readonly string[]): boolean {
    try {
      for (const part of parts) checkLocalName(part)
      return parts.some(isTemporaryName)
    } catch {
      return true
    }
  }

  return {
    finishFile({ path: name, node, seal, mode, mtimeNs }: FileEntry): void {
      const key = keyOf(name.split('/'))
      const record = state.current().get(key)
      const isSame = record?.kind === 'file' && record.remote.id === node && seal !== undefined && record.seal === seal
      if (!isSame) return
      const path = record.path.split('/')
      const now = lookLocal(root, path)
      if (now === undefined || localChange(record, now) !== 'same') return
      check(path.slice(0, -1))
      const wanted = mode === undefined || !hasModes ? undefined : (mode & allowed) | OWN_FILE
      const ms = mtimeNs === undefined ? now.mtimeMs : Number(BigInt(mtimeNs)) / 1e6
      const isOther = sameTime(ms, now.mtimeMs) && Math.abs(ms - now.mtimeMs) > SAME_MS
      const mtime = isOther ? secondsOf(mtimeNs!) : undefined
      if (!change(now.source, now.ino, constants.O_NONBLOCK, wanted, mtime)) return
      const after = lookLocal(root, path)
      if (after !== undefined) state.put(key, { ...record, local: localIdentity(after) })
    },

    finishDirectory({ path: name, node, mode }: TreeDirectory): void {
      const record = state.current().get(keyOf(name.split('/')))
      if (record?.kind !== 'directory' || record.remote.id !== node || mode === undefined || !hasModes) return
      const path = record.path.split('/')
      const now = lookLocal(root, path)
      if (now?.kind !== 'directory') return
      check(path.slice(0, -1))
      change(now.source, now.ino, constants.O_DIRECTORY, (mode & allowed) | OWN_DIRECTORY, undefined)
    },

    link(entry: LinkEntry): void {
      const { path, target, mtimeNs } = entry
      const parts = path.split('/')
      if (!selection.takes(parts, 'file')) return
      const directory = directoryOf(parts, target)
      if (typeof directory === 'string') {
        passOver(entry, directory)
        return
      }
      const place = join(root, ...directory, parts.at(-1)!)
      const now = look(place)
      if (now !== undefined) {
        const isThere = now.isSymbolicLink() && readlinkSync(place) === target
        if (!isThere) passOver(entry, 'something else has its name')
        return
      }
      const number = state.addDeed(runId, { do: 'linked-local', path, target })
      try {
        tree.within(directory, (open) => {
          const name = open.at(parts.at(-1)!)
          // Never over anything.
          symlinkSync(target, name)
          if (mtimeNs !== undefined) lutimesSync(name, secondsOf(mtimeNs), secondsOf(mtimeNs))
        })
      } catch (error) {
        state.dropDeed(runId, number)
        throw localError(error, `make the link ${path}`)
      }
      context.onEvent?.({ type: 'step-done', do: 'linked-local', path })
    },

    tellPassedOver(): void {
      if (passedOver <= NAMED) return
      const message = `${passedOver - NAMED} more links were passed over`
      context.onEvent?.({ type: 'warning', code: 'LINK_PASSED_OVER', message })
    },
  }
}

/** Sets mode and time of what has this inode; false when there was nothing to set. */
function change(
  path: string,
  ino: number,
  flags: number,
  mode: number | undefined,
  mtime: FileTime | undefined,
): boolean {
  const before = look(path)
  const isOther = mode !== undefined && before !== undefined && (before.mode & 0o7777) !== mode
  if (!isOther && mtime === undefined) return false
  try {
    const fd = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | flags)
    try {
      if (fstatSync(fd).ino !== ino) throw new SyncError('changed', 'LOCAL_CHANGED', 'It was changed meanwhile')
      if (isOther) setMode(fd, mode)
      if (mtime !== undefined) futimesSync(fd, mtime, mtime)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw localError(error, `set permissions and time of ${path}`)
  }
  return true
}

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined
    throw localError(error, `look at ${path}`)
  }
}

/**
 * True when a link so many directories below the root cannot lead out of it, whatever other links of its kind are there: `..`
 * only at the front, where the directories are real ones.
 */
function staysInside(depth: number, target: string): boolean {
  if (target.startsWith('/') || (process.platform === 'win32' && /[\\:]/.test(target))) return false
  const parts = target.split('/').filter((part) => part !== '' && part !== '.')
  const up = parts.findIndex((part) => part !== '..')
  const leading = up === -1 ? parts.length : up
  return leading <= depth && !parts.slice(leading).includes('..')
}
