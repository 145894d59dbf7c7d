/**
 * Reading a backup set: which runs there are, and getting files back. Content is looked up by node, so it does not matter where
 * it was moved since; it gets its name only when tag and SHA-256 are those of the manifest. Links come last of all, so that
 * nothing is ever written through one.
 * @module
 */
import { createHash, type Hash } from 'node:crypto'
import {
  closeSync,
  constants,
  fchmodSync,
  futimesSync,
  lstatSync,
  lutimesSync,
  openSync,
  readdirSync,
  readlinkSync,
  type Stats,
  symlinkSync,
  unlinkSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { FileKey } from '../../../crypto/index.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../../errors.ts'
import { createAtomicFile, isTemporaryName, placeFile, syncDirectory } from '../../local/atomic-file.ts'
import { FILE_MODE, secondsOf } from '../../local/attributes.ts'
import { checkSpace } from '../../local/free-space.ts'
import { checkLocalName, foldKey } from '../../local/names.ts'
import { sweepDirectory } from '../../local/partial-file.ts'
import { createSafeTree, foldsCase, type SafeTree } from '../../local/safe-tree.ts'
import { downloadContent } from '../../transfer/content.ts'
import { createKeysAhead, type KeysAhead } from '../../transfer/keys-ahead.ts'
import { fetchSmall, isSmall } from '../../transfer/small-file.ts'
import { createTally, type RunSummary, runEntries, summarize, type Tally } from '../outcome.ts'
import { sealOf } from '../records.ts'
import { DEFAULT_JOBS, never, type RunContext, report } from '../run.ts'
import type { BackupEntry, DirectoryEntry, FileEntry, LinkEntry, Manifest } from './manifest.ts'
import { openRuns, type Runs, readRun, requireNewest } from './runs.ts'
import { componentsOf, findRun, isWithin, type RunNote, type SetPlace } from './set.ts'
import { backupDirectory, readMemory, type StatePlace } from './state.ts'
import { requireStore } from './store.ts'

/**
 * The runs of a set, checked against what this machine knows.
 *
 * @throws {SyncError} `SET_MISSING`, `TARGET_REPLACED`, or of class `integrity` where there is nothing to go by.
 */
export async function listRuns(
  context: RunContext,
  place: SetPlace,
  state: StatePlace,
  signal: AbortSignal = never,
): Promise<Runs> {
  const memory = await readMemory(backupDirectory(state, place))
  const store = await requireStore(context.api, place, signal)
  if (memory !== undefined && memory.targetId !== store.target.id) {
    throw new SyncError('integrity', 'TARGET_REPLACED', `${place.target} is not the folder that the backup was in`, {
      hint: 'Ask who has access to the room.',
    })
  }
  return openRuns(context, place, store, memory, signal)
}

/** One run and what is in it. `latest` is the newest that is known, never one before it. */
export async function openRun(
  context: RunContext,
  place: SetPlace,
  wanted: string,
  state: StatePlace,
  signal: AbortSignal = never,
): Promise<{ runs: Runs; note: RunNote; manifest: Manifest }> {
  const runs = await listRuns(context, place, state, signal)
  if (wanted === 'latest') requireNewest(runs)
  const problem = runs.problems.find(({ path }) => path.endsWith(`/${wanted}.json`))
  if (problem !== undefined) throw problem.error
  const note = findRun(runs.notes, wanted)
  const manifest = runs.newest?.run === note.run ? runs.newest : await readRun(context, place, note, signal)
  return { runs, note, manifest }
}

/** Entries at or below any of the paths; all of them without paths. */
export function entriesBelow(entries: readonly BackupEntry[], paths: readonly string[]): readonly BackupEntry[] {
  if (paths.length === 0) return entries
  const wanted = paths.map((path) => {
    const parts = componentsOf(path)
    const found = entries.filter((entry) => isWithin(componentsOf(entry.path), parts))
    if (path.startsWith('/') && found.length > 0) return parts
    throw new SyncError('not_found', 'PATH_MISSING', `There is no ${path} in this run`, {
      hint: 'Paths are absolute, as they were on the machine: /etc/hosts',
    })
  })
  return entries.filter(({ path }) => wanted.some((parts) => isWithin(componentsOf(path), parts)))
}

export interface RestoreOptions {
  readonly state: StatePlace
  /** Id of a run. Default `latest`. */
  readonly run?: string
  /** Only these, with all they hold. */
  readonly paths?: readonly string[]
  /** What to do with what is there and differs. Without it the target must be new or empty. */
  readonly onConflict?: 'fail' | 'skip' | 'overwrite'
  readonly jobs?: number
  readonly signal?: AbortSignal
}

export interface RestoreSummary extends RunSummary {
  readonly run: string
  readonly isPinned: boolean
}

/**
 * Restores a run below a local directory, under the whole paths: `/etc/hosts` becomes `TARGET/etc/hosts`. Permission bits
 * (without setuid and setgid) and times to the microsecond come back; owners do not.
 *
 * @returns the summary, also when something stopped it (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is written.
 */
export async function restoreBackup(
  context: RunContext,
  place: SetPlace,
  target: string,
  options: RestoreOptions,
): Promise<RestoreSummary> {
  const signal = options.signal ?? never
  if (options.onConflict === undefined) requireEmpty(target)
  context.onEvent?.({ type: 'phase', text: 'Reading the manifest' })
  const { runs, note, manifest } = await openRun(context, place, options.run ?? 'latest', options.state, signal)
  const entries = entriesBelow(manifest.entries, options.paths ?? [])
  const tally = createTally()
  for (const { path, error } of runs.problems) {
    tally.failed.push({ path, error })
    report(context, path, error)
  }
  await restoreEntries(context, entries, target, tally, { ...options, signal })
  return { ...summarize(tally, 0), run: note.run, isPinned: runs.isPinned }
}

function requireEmpty(target: string): void {
  let names: string[]
  try {
    names = readdirSync(target)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return
    throw localError(error, `look at ${target}`)
  }
  // What a restore left that was killed is no content.
  if (names.every(isTemporaryName)) return
  throw new SyncError('conflict', 'TARGET_NOT_EMPTY', `The target is not empty: ${target}`, {
    hint: 'Choose a new directory, or say what to do with what is there: --on-conflict',
  })
}

type How = Pick<RestoreOptions, 'onConflict' | 'jobs'> & { readonly signal: AbortSignal }

/** Restores entries; what becomes of them goes into the tally. */
export async function restoreEntries(
  context: RunContext,
  entries: readonly BackupEntry[],
  target: string,
  tally: Tally,
  { onConflict = 'fail', jobs = DEFAULT_JOBS, signal }: How,
): Promise<void> {
  const tree = createSafeTree(target)
  const failed = (path: string, thrown: unknown) => {
    const error = toSyncError(signal.aborted ? signal.reason : thrown)
    tally.failed.push({ path, error })
    report(context, path, error)
  }
  const usable = withoutMeetings(entries, foldsCase(tree.root), failed)
  const directories = usable.filter((entry): entry is DirectoryEntry => entry.kind === 'directory')
  for (const { path } of directories) {
    try {
      await sweepDirectory(tree.ensureDirectory(componentsOf(path)), context.clock)
    } catch (error) {
      failed(path, error)
    }
  }

  const files = usable.filter((entry): entry is FileEntry => entry.kind === 'file')
  tally.files = files.length
  const steps: Restore[] = []
  for (const entry of files) {
    try {
      const replaces = existing(tree.root, entry, onConflict)
      if (replaces === 'same') tally.skipped++
      else steps.push({ entry, shown: entry.path, node: nodeOf(entry), replaces })
    } catch (error) {
      failed(entry.path, error)
    }
  }
  const bytes = steps.reduce((sum, { entry }) => sum + entry.size, 0)
  await checkSpace(tree.root, bytes)
  context.onEvent?.({ type: 'planned', files: steps.length, bytes, skipped: tally.skipped })
  const keys = createKeysAhead(
    context,
    steps.map(({ node }) => node),
  )
  const skipped = tally.skipped
  const changed = new Set<string>()
  const work = async (step: Restore, stop: AbortSignal) => {
    const restored = await restoreFile(context, tree, step, keys, stop)
    changed.add(dirname(join(tree.root, step.entry.path)))
    return restored
  }
  await runEntries(steps, jobs, tally, work, {
    signal,
    onFailure: ({ path, error }) => report(context, path, error),
    onBusy: context.onBusy,
  })
  tally.skipped = skipped
  await keys.close()
  try {
    // New names survive a power cut from here on.
    for (const directory of changed) await syncDirectory(directory)
  } catch (error) {
    tally.stoppedBy ??= toSyncError(localError(error, `sync ${target}`))
  }
  if (tally.stoppedBy !== undefined) return

  for (const entry of usable) {
    if (entry.kind !== 'symlink') continue
    try {
      restoreLink(tree, entry, onConflict)
    } catch (error) {
      failed(entry.path, error)
    }
  }
  // Deepest first: what is written below changes the time, and a mode may forbid to go there.
  for (const entry of directories.sort((a, b) => (a.path < b.path ? 1 : -1))) {
    try {
      finishDirectory(tree, entry)
    } catch (error) {
      failed(entry.path, error)
    }
  }
}

/** Entries whose names mean what they say on this disk; those that meet in one are told, and none of them is written. */
function withoutMeetings(
  entries: readonly BackupEntry[],
  fold: boolean,
  failed: (path: string, error: unknown) => void,
): BackupEntry[] {
  const keyOf = (path: string) => (fold ? foldKey(path) : path)
  const count = new Map<string, number>()
  for (const { path } of entries) count.set(keyOf(path), (count.get(keyOf(path)) ?? 0) + 1)
  return entries.filter(({ path }) => {
    try {
      for (const part of componentsOf(path)) checkLocalName(part)
      if (count.get(keyOf(path)) === 1) return true
      throw new SyncError('conflict', 'EXISTS', 'Two names of the backup are one name on this disk', {
        hint: 'Restore them one by one with --path.',
      })
    } catch (error) {
      failed(path, error)
      return false
    }
  })
}

interface Restore {
  readonly entry: FileEntry
  readonly shown: string
  readonly node: RemoteNode
  readonly replaces: Stats | undefined
}

/** What is asked for: the server has no say in size or encryption. */
const nodeOf = ({ node, path, size }: FileEntry): RemoteNode => ({
  id: node,
  type: 'file',
  name: path,
  size,
  isEncrypted: true,
})

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined
    throw localError(error, 'look at the target')
  }
}

const differs = () =>
  new SyncError('conflict', 'LOCAL_DIFFERS', 'Something else is there and was kept', {
    hint: 'See --on-conflict for what else can be done.',
  })

/** What stands in the place of a file; `same` when it needs nothing. */
function existing(
  root: string,
  { path, size, mtimeNs }: FileEntry,
  onConflict: NonNullable<RestoreOptions['onConflict']>,
): Stats | 'same' | undefined {
  const info = look(join(root, path))
  if (info === undefined) return undefined
  const isSame = info.isFile() && info.size === size && Math.abs(info.mtimeMs - Number(BigInt(mtimeNs)) / 1e6) < 0.002
  if (isSame || onConflict === 'skip') return 'same'
  if (onConflict === 'fail' || !info.isFile()) throw differs()
  return info
}

/** Never setuid or setgid. */
const DIRECTORY_MODE = 0o1777

const swapped = (why: string) =>
  new SyncError('integrity', 'CONTENT_SWAPPED', `What the server has is not what was stored: ${why}`, {
    hint: 'Nothing of it was kept. Other runs may have the file; see who has access to the room.',
  })

async function restoreFile(
  context: RunContext,
  tree: SafeTree,
  { entry, shown, node, replaces }: Restore,
  keys: KeysAhead,
  signal: AbortSignal,
): Promise<number> {
  const parts = componentsOf(entry.path)
  const parent = parts.slice(0, -1)
  const path = join(tree.ensureDirectory(parent), parts.at(-1)!)
  const beforeRename = () => {
    const now = look(path)
    if (now?.ino !== replaces?.ino || now?.mtimeMs !== replaces?.mtimeMs) throw differs()
    tree.check(parent)
  }
  context.onEvent?.({ type: 'file-started', path: shown, bytes: entry.size })
  const fileKey = await keys.take(node, signal).catch(told)
  try {
    if (fileKey === undefined || sealOf(fileKey) !== entry.seal) throw swapped('its key is another one')
    if (isSmall(node)) {
      const content = await fetchSmall(context, node, fileKey, signal).catch(told)
      requireDigest(createHash('sha256').update(content), entry)
      const time = secondsOf(entry.mtimeNs)
      const times = { atime: time, mtime: time }
      await placeFile(path, content, { times, mode: entry.mode & FILE_MODE, beforeRename })
      context.onEvent?.({ type: 'part-confirmed', path: shown, bytes: content.length })
    } else {
      await restoreLarge(context, node, fileKey, entry, path, beforeRename, signal)
    }
  } finally {
    fileKey?.wipe()
  }
  context.onEvent?.({ type: 'file-done', path: shown, bytes: entry.size })
  return entry.size
}

function requireDigest(hash: Hash, { sha256 }: FileEntry): void {
  if (hash.digest('hex') !== sha256) throw swapped('its SHA-256 is another one')
}

async function restoreLarge(
  context: RunContext,
  node: RemoteNode,
  fileKey: FileKey,
  entry: FileEntry,
  path: string,
  beforeRename: () => void,
  signal: AbortSignal,
): Promise<void> {
  const file = await createAtomicFile(path)
  try {
    const hash = createHash('sha256')
    let position = 0
    const sink = {
      async write(chunk: Uint8Array) {
        hash.update(chunk)
        for (let at = 0; at < chunk.length; ) {
          const { bytesWritten } = await file.handle.write(chunk, at, chunk.length - at, position).catch((error) => {
            throw localError(error, `write ${entry.path}`)
          })
          at += bytesWritten
          position += bytesWritten
        }
      },
    }
    await downloadContent(context, node, fileKey, sink, entry.path, signal).catch(told)
    requireDigest(hash, entry)
    const time = secondsOf(entry.mtimeNs)
    await file.handle.chmod(entry.mode & FILE_MODE)
    await file.handle.utimes(time, time)
    await file.commit({ beforeRename: async () => beforeRename() })
  } finally {
    await file.discard()
  }
}

/** A node that is not there is content that was taken away. */
function told(thrown: unknown): never {
  const error = toSyncError(thrown)
  if (error.class !== 'not_found') throw thrown
  throw new SyncError('integrity', 'CONTENT_DROPPED', 'What was stored of this file is gone from the server', {
    hint: 'Other runs may have the file; see who has access to the room, and its recycle bin.',
    cause: error,
  })
}

function restoreLink(
  tree: SafeTree,
  { path, target, mtimeNs }: LinkEntry,
  onConflict: NonNullable<RestoreOptions['onConflict']>,
): void {
  const parts = componentsOf(path)
  const place = join(tree.ensureDirectory(parts.slice(0, -1)), parts.at(-1)!)
  const info = look(place)
  try {
    if (info !== undefined) {
      const isSame = info.isSymbolicLink() && readlinkSync(place) === target
      if (isSame || onConflict === 'skip') return
      if (onConflict === 'fail' || info.isDirectory()) throw differs()
      unlinkSync(place)
    }
    symlinkSync(target, place)
    lutimesSync(place, secondsOf(mtimeNs), secondsOf(mtimeNs))
  } catch (error) {
    throw localError(error, `make the link ${path}`)
  }
}

function finishDirectory(tree: SafeTree, { path, mode, mtimeNs }: DirectoryEntry): void {
  const parts = componentsOf(path)
  tree.check(parts)
  try {
    const fd = openSync(join(tree.root, path), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      fchmodSync(fd, mode & DIRECTORY_MODE)
      futimesSync(fd, secondsOf(mtimeNs), secondsOf(mtimeNs))
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw localError(error, `finish the directory ${path}`)
  }
}
