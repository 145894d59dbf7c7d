/**
 * Getting files of a run onto the disk. Content is looked up by node, so it does not matter where it was moved since; it gets its
 * name only when tag and SHA-256 are those of the manifest. What is there is compared by its SHA-256. Links come last of all, so
 * that nothing is ever written through one, and directories get their modes and times when nothing more is written below.
 * @module
 */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  lutimesSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import type { FileKey } from '../../../crypto/index.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../../errors.ts'
import { syncDirectory, temporaryName } from '../../local/atomic-file.ts'
import { FILE_MODE, secondsOf, setMode, setTimes } from '../../local/attributes.ts'
import { checkSpace } from '../../local/free-space.ts'
import { bytesLeft, inDirectory, type LeftBehind, removeSettled, sweepTree } from '../../local/leftovers.ts'
import { checkLocalName, foldKey } from '../../local/names.ts'
import { createSafeTree, type HeldDirectory, type SafeTree } from '../../local/safe-tree.ts'
import { foldsCase } from '../../local/target.ts'
import { downloadFile, type LocalVersion } from '../../transfer/download.ts'
import { createKeysAhead, type KeysAhead } from '../../transfer/keys-ahead.ts'
import { createLargeFiles, type LargeFiles } from '../../transfer/segments.ts'
import { createTally, runEntries, type Tally } from '../outcome.ts'
import { sealOf } from '../records.ts'
import { DEFAULT_JOBS, type RunContext, report } from '../run.ts'
import type { EntryFailure } from '../tree.ts'
import { hashFile } from './hash.ts'
import type { BackupEntry, DirectoryEntry, FileEntry, LinkEntry } from './manifest.ts'
import { componentsOf } from './set.ts'

export type OnConflict = 'fail' | 'skip' | 'overwrite'

export interface RestoreHow {
  readonly onConflict?: OnConflict
  readonly trustTimes?: boolean
  readonly jobs?: number
  readonly signal: AbortSignal
}

/** Restores entries below a directory, which is made if missing; what becomes of them goes into the tally. */
export async function restoreEntries(
  context: RunContext,
  entries: readonly BackupEntry[],
  target: string,
  tally: Tally,
  { onConflict = 'fail', trustTimes = false, jobs = DEFAULT_JOBS, signal }: RestoreHow,
): Promise<void> {
  const tree = createSafeTree(target)
  try {
    await carryOut(context, tree, entries, tally, { onConflict, trustTimes, jobs, signal })
  } finally {
    tree.close()
  }
}

async function carryOut(
  context: RunContext,
  tree: SafeTree,
  entries: readonly BackupEntry[],
  tally: Tally,
  { onConflict, trustTimes, jobs, signal }: Required<RestoreHow>,
): Promise<void> {
  const failed = (path: string, thrown: unknown) => {
    const error = toSyncError(signal.aborted ? signal.reason : thrown)
    tally.failed.push({ path, error })
    report(context, path, error)
  }
  const usable = withoutMeetings(entries, foldsCase(tree.root), failed)
  const directories = usable.filter((entry): entry is DirectoryEntry => entry.kind === 'directory')
  const files = usable.filter((entry): entry is FileEntry => entry.kind === 'file')
  const links = usable.filter((entry): entry is LinkEntry => entry.kind === 'symlink')
  for (const { path } of directories) {
    try {
      tree.within(componentsOf(path), (directory) => makeEnterable(directory))
    } catch (error) {
      failed(path, error)
    }
  }
  const leftovers = await sweep(context, tree, usable)

  tally.files = files.length
  const how = {
    signal,
    onFailure: ({ path, error }: EntryFailure) => report(context, path, error),
    onBusy: context.onBusy,
  }
  const failedBefore = tally.failed.length
  const { wanted, compared } = lookAtAll(tree.root, files, { onConflict, trustTimes }, failed)
  if (compared.length > 0) context.onEvent?.({ type: 'phase', text: 'Comparing with what is there' })
  const comparing = createTally()
  const compare = async (step: Existing, stop: AbortSignal) => {
    if (await isAsStored(tree, step, onConflict, stop)) return undefined
    if (onConflict !== 'overwrite') throw differs()
    wanted.push({ entry: step.entry, shown: step.shown, node: nodeOf(step.entry), replaces: step.info })
    return 0
  }
  await runEntries(compared, jobs, comparing, compare, how)
  for (const failure of comparing.failed) tally.failed.push(failure)
  if (comparing.stoppedBy !== undefined) {
    tally.stoppedBy = comparing.stoppedBy
    return
  }
  const skipped = files.length - wanted.length - (tally.failed.length - failedBefore)

  const bytes = wanted.reduce((sum, { entry }) => sum + entry.size, 0)
  await checkSpace(tree.root, bytes - bytesLeft(leftovers))
  context.onEvent?.({ type: 'planned', files: wanted.length, bytes, skipped })
  const keys = createKeysAhead(
    context,
    wanted.map(({ node }) => node),
  )
  const large = createLargeFiles()
  const changed = new Map<string, readonly string[]>()
  const work = async (step: Restore, stop: AbortSignal) => {
    const restored = await restoreFile(context, tree, step, { keys, large }, stop)
    const parent = componentsOf(step.entry.path).slice(0, -1)
    changed.set(parent.join('/'), parent)
    return restored
  }
  await runEntries(wanted, jobs, tally, work, how)
  tally.skipped = skipped
  await keys.close()
  await large.close()
  try {
    // New names survive a power cut from here on.
    for (const directory of changed.values()) await inDirectory(tree, directory, syncDirectory)
  } catch (error) {
    tally.stoppedBy ??= toSyncError(localError(error, `sync ${tree.root}`))
  }
  if (tally.stoppedBy !== undefined) return

  for (const entry of links) {
    try {
      restoreLink(tree, entry, onConflict)
    } catch (error) {
      failed(entry.path, error)
    }
  }
  await removeSettled(tree, leftovers, settledPaths(files, tally), context.clock)
  // Deepest first: what is written below changes the time, and a mode may forbid to go there.
  for (const entry of directories.sort((a, b) => (a.path < b.path ? 1 : -1))) {
    try {
      finishDirectory(tree, entry)
    } catch (error) {
      failed(entry.path, error)
    }
  }
}

/** A directory that an earlier restore has finished may forbid its owner to write; it is finished again at the end. */
function makeEnterable(directory: HeldDirectory): void {
  try {
    accessSync(directory.path, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch {
    try {
      onDirectory(directory, (fd) => setMode(fd, (fstatSync(fd).mode & DIRECTORY_MODE) | 0o700))
    } catch {
      // What cannot be written there is told by its name.
    }
  }
}

/** Tidies up after restores that were killed; returns what this one may go on with. */
function sweep({ clock }: RunContext, tree: SafeTree, entries: readonly BackupEntry[]): Promise<LeftBehind[]> {
  const directories = new Map([['', [] as readonly string[]]])
  for (const { kind, path } of entries) {
    const parts = componentsOf(path)
    const directory = kind === 'directory' ? parts : parts.slice(0, -1)
    directories.set(directory.join('/'), directory)
  }
  return sweepTree(tree, directories.values(), clock)
}

/** Paths of the files that are complete now. */
function settledPaths(files: readonly FileEntry[], { failed }: Tally): Set<string> {
  const unsettled = new Set(failed.map(({ path }) => path))
  return new Set(files.flatMap(({ path }) => (unsettled.has(path) ? [] : [componentsOf(path).join('/')])))
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
  readonly replaces: LocalVersion | undefined
}

/** A file of the right size, whose content is not known yet. */
interface Existing {
  readonly entry: FileEntry
  readonly shown: string
  readonly info: Stats
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
  new SyncError('conflict', 'TARGET_DIFFERS', 'Something else is there and was kept', {
    hint: 'See --on-conflict for what else can be done.',
  })

/** For what is never replaced. */
const inTheWay = () =>
  new SyncError('conflict', 'TARGET_DIFFERS', 'Something that is not a file has this name, and was kept', {
    hint: 'Move it away, then run again.',
  })

/** Sorts files by what stands in their places: what is wanted, and what has to be compared first. */
function lookAtAll(
  root: string,
  files: readonly FileEntry[],
  { onConflict, trustTimes }: { readonly onConflict: OnConflict; readonly trustTimes: boolean },
  failed: (path: string, error: unknown) => void,
): { wanted: Restore[]; compared: Existing[] } {
  const wanted: Restore[] = []
  const compared: Existing[] = []
  for (const entry of files) {
    const shown = entry.path
    try {
      const info = look(join(root, entry.path))
      if (info !== undefined && onConflict === 'skip') continue
      if (info?.isFile() && info.size === entry.size) {
        if (!trustTimes || !isSameTime(info, entry.mtimeNs)) compared.push({ entry, shown, info })
        continue
      }
      if (info !== undefined && !(info.isFile() || info.isSymbolicLink())) throw inTheWay()
      if (info !== undefined && onConflict === 'fail') throw differs()
      wanted.push({ entry, shown, node: nodeOf(entry), replaces: info && versionOf(info) })
    } catch (error) {
      failed(shown, error)
    }
  }
  return { wanted, compared }
}

const versionOf = (info: Stats): LocalVersion => ({
  size: info.size,
  mtimeMs: info.mtimeMs,
  ...(info.isSymbolicLink() ? { isLink: true } : {}),
})

/** To the microsecond: that is what a restored file has of its time. */
const isSameTime = ({ mtimeMs }: Stats, mtimeNs: string) => Math.abs(mtimeMs - Number(BigInt(mtimeNs)) / 1e6) < 0.002

/**
 * True when a file has the content of the run; where files are replaced, it gets permissions and time, too.
 *
 * @throws {SyncError} when it cannot be read, unless it is to be replaced then.
 */
async function isAsStored(
  tree: SafeTree,
  { entry, shown, info }: Existing,
  onConflict: OnConflict,
  signal: AbortSignal,
): Promise<boolean> {
  const parts = componentsOf(entry.path)
  tree.ensureDirectory(parts.slice(0, -1))
  const path = join(tree.root, entry.path)
  try {
    const { sha256 } = await hashFile(path, shown, signal)
    if (sha256 !== entry.sha256) return false
  } catch (error) {
    if (signal.aborted || onConflict !== 'overwrite') throw error
    return false // what cannot be read is damaged, too
  }
  if (onConflict === 'overwrite') {
    tree.within(parts.slice(0, -1), (directory) => repair(directory.at(parts.at(-1)!), entry, info))
  }
  return true
}

/** Gives a file of the right content its permissions and time. */
function repair(path: string, { mode, mtimeNs }: FileEntry, info: Stats): void {
  const isRight = (info.mode & 0o7777) === (mode & FILE_MODE) && isSameTime(info, mtimeNs)
  if (isRight) return
  try {
    const fd = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0))
    try {
      if (fstatSync(fd).ino !== info.ino) throw differs()
      setMode(fd, mode & FILE_MODE)
      setTimes(fd, { atime: secondsOf(mtimeNs), mtime: secondsOf(mtimeNs) })
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw localError(error, 'set permissions and time')
  }
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
  { keys, large }: { readonly keys: KeysAhead; readonly large: LargeFiles },
  signal: AbortSignal,
): Promise<number> {
  const parts = componentsOf(entry.path)
  const parent = parts.slice(0, -1)
  const known = {
    mode: entry.mode & FILE_MODE,
    mtime: secondsOf(entry.mtimeNs),
    check(sha256: string) {
      if (sha256 !== entry.sha256) throw swapped('its SHA-256 is another one')
    },
  }
  const openKey = async (): Promise<FileKey> => {
    const fileKey = await keys.take(node, signal)
    if (fileKey !== undefined && sealOf(fileKey) === entry.seal) return fileKey
    fileKey?.wipe()
    throw swapped('its key is another one')
  }
  const directory = tree.hold(parent)
  try {
    const how = { shown, replaces, known, large, openKey, directory, beforeRename: () => tree.check(parent) }
    return await downloadFile(context, node, directory.at(parts.at(-1)!), how, signal).catch(told)
  } finally {
    directory.release()
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

function restoreLink(tree: SafeTree, entry: LinkEntry, onConflict: OnConflict): void {
  const parts = componentsOf(entry.path)
  const parent = parts.slice(0, -1)
  tree.within(parent, (directory) => makeLink(directory, parts.at(-1)!, entry, onConflict, () => tree.check(parent)))
}

function makeLink(
  directory: HeldDirectory,
  name: string,
  { path, target, mtimeNs }: LinkEntry,
  onConflict: OnConflict,
  check: () => void,
): void {
  const place = directory.at(name)
  const time = secondsOf(mtimeNs)
  const info = look(place)
  try {
    if (info !== undefined) {
      const isSame = info.isSymbolicLink() && readlinkSync(place) === target
      if (isSame && onConflict === 'overwrite') lutimesSync(place, time, time)
      if (isSame || onConflict === 'skip') return
      if (info.isDirectory()) throw inTheWay()
      if (onConflict === 'fail') throw differs()
    }
    // In one step, so that whoever is killed leaves the old one or the new one.
    const temporary = directory.at(temporaryName())
    symlinkSync(target, temporary)
    try {
      lutimesSync(temporary, time, time)
      const now = look(place)
      if (now?.ino !== info?.ino || now?.mtimeMs !== info?.mtimeMs) throw differs()
      check()
      renameSync(temporary, place)
    } finally {
      rmSync(temporary, { force: true })
    }
  } catch (error) {
    throw localError(error, `make the link ${path}`)
  }
}

function onDirectory({ path, flags }: HeldDirectory, work: (fd: number) => void): void {
  const fd = openSync(path, constants.O_RDONLY | flags)
  try {
    work(fd)
  } finally {
    closeSync(fd)
  }
}

function finishDirectory(tree: SafeTree, { path, mode, mtimeNs }: DirectoryEntry): void {
  try {
    tree.within(componentsOf(path), (directory) =>
      onDirectory(directory, (fd) => {
        setMode(fd, mode & DIRECTORY_MODE)
        setTimes(fd, { atime: secondsOf(mtimeNs), mtime: secondsOf(mtimeNs) })
      }),
    )
  } catch (error) {
    throw localError(error, `finish the directory ${path}`)
  }
}
