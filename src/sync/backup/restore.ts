/**
 * Restoring a run of a set: a pull from the tree that its manifest describes. Content
 * is looked up by node, so it does not matter where it was moved since; it gets its name only when seal and SHA-256 are those of the
 * manifest. What a restore brings back beside contents is in restored-attributes.ts.
 * @module
 */
import { type BigIntStats, readdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { contentMac, type FileKey } from '../../../crypto/index.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { localError, SyncError, systemCode, toSyncError } from '../../errors.ts'
import { isTemporaryName } from '../../local/atomic-file.ts'
import { FILE_MODE, secondsOf } from '../../local/attributes.ts'
import { checkLocalName, foldKey } from '../../local/names.ts'
import { createSafeTree } from '../../local/safe-tree.ts'
import { foldsCase, usuallyFoldsCase } from '../../local/target.ts'
import type { Expected } from '../apply/contents.ts'
import type { ConflictAction } from '../conflicts.ts'
import { directoriesOf, lookAtPlaces, requireDirectory } from '../jobs/transfer.ts'
import { createLocalBin } from '../local-bin.ts'
import { lookAt, markOf } from '../local-move.ts'
import { isChange, planLine, recordedOf, requireSamePlan } from '../plan-file.ts'
import { reconcile, type SyncStep } from '../reconcile.ts'
import { never, type RunContext, report, type StatePlace, stateOf } from '../run.ts'
import {
  countSkipped,
  type Done,
  type Job,
  type Known,
  type Limits,
  type Plan,
  type Running,
  runJob,
  type SyncSummary,
} from '../run-job.ts'
import { createBlocked, keyOf, parentKey, type RemoteItem } from '../scan.ts'
import { createSelection, type SelectionOptions } from '../select.ts'
import { type Pair, type RunRecord, stateDirectory } from '../state.ts'
import type { EntryFailure, LocalEntry } from '../tree.ts'
import type { BackupEntry, DirectoryEntry, FileEntry, LinkEntry, Manifest } from './manifest.ts'
import { entriesBelow, type Found, openRun } from './read.ts'
import {
  finishDirectory,
  isSameTime,
  type LinkHow,
  makeEnterable,
  repairFile,
  restoreLink,
} from './restored-attributes.ts'
import { componentsOf, type SetPlace, showSourcePath } from './set.ts'

/** What is restored, and what becomes of what is there. */
export interface RestoreOptions extends Limits {
  /** What is remembered of sets and restores. Default: in the directory of the client. */
  readonly state?: StatePlace | undefined
  /** Id of a run. Default `latest`. */
  readonly run?: string | undefined
  /** Only these, with all they hold. */
  readonly paths?: readonly string[] | undefined
  /** What takes part; patterns match whole paths, like those of a set. */
  readonly selection?: SelectionOptions | undefined
  /**
   * What to do with what is there and differs. Without it the target must be new, empty, or one in which the same restore was
   * begun; what differs there is kept.
   */
  readonly onConflict?: ConflictAction | undefined
  /** Take files of the same size and time for the same, without reading them. */
  readonly trustTimes?: boolean | undefined
}

/** What became of a restore. */
export interface RestoreSummary extends SyncSummary {
  readonly run: string
  readonly isPinned: boolean
}

/** A restore as what is remembered of it is called. */
const pairOfRestore = (account: string, { name, target: remote }: SetPlace, target: string): Pair => ({
  account,
  local: resolve(target),
  remote,
  backup: { direction: 'restore', set: name },
})

/**
 * Restores a run below a local directory, under the whole paths: `/etc/hosts` becomes `TARGET/etc/hosts`. Permission bits
 * (without setuid and setgid) and times to the microsecond come back; owners do not. What is there already is compared by its
 * content. A restore that was killed goes on when it is given again. See `runJob`.
 *
 * @returns the summary, also when something stopped it (`stoppedBy`).
 * @throws {SyncError} for what is wrong before anything is written; `LOCKED` while another restore of the set writes there.
 */
export async function restoreBackup(
  context: RunContext,
  place: SetPlace,
  target: string,
  options: RestoreOptions = {},
): Promise<RestoreSummary> {
  const state = options.state ?? (await stateOf(context, options.signal))
  const pair = pairOfRestore(state?.account ?? '', place, target)
  return runRestore(context, place, pair, state, state && stateDirectory(state.directory, pair), options)
}

/**
 * As `restoreBackup`; `directory` is that of what is remembered of it, `choose` says which entries of the run are restored, and
 * `onChecked` is told of the SHA-256 (hex) of each content that was fetched and is right.
 */
export async function runRestore(
  context: RunContext,
  place: SetPlace,
  pair: Pair,
  state: StatePlace | undefined,
  directory: string | undefined,
  options: RestoreOptions,
  choose: (manifest: Manifest) => readonly BackupEntry[] = ({ entries }) => entriesBelow(entries, options.paths ?? []),
  onChecked?: (path: string, sha256: string) => void,
): Promise<RestoreSummary> {
  let found: Found | undefined
  const open = async () => {
    found = await openRun(context, place, options.run ?? 'latest', state, options.signal)
    return found
  }
  const job = restoreJob(context, pair, directory, options, { open, choose, onChecked })
  const summary = await runJob(context, job, options)
  return { ...summary, run: found?.note.run ?? '', isPinned: found?.runs.isPinned ?? false }
}

interface RestorePlan extends Plan {
  readonly entries: Entries
}

/** Entries by what they are, those that can have their names on this disk. */
interface Entries {
  readonly files: ReadonlyMap<string, FileEntry>
  readonly directories: readonly DirectoryEntry[]
  readonly links: readonly LinkEntry[]
}

/** What makes a restore another one. */
interface Recorded {
  readonly run: string
  readonly paths: readonly string[]
  /** Identity of the target: of another directory under this name nothing is known. */
  readonly directory: string | undefined
}

function restoreJob(
  context: RunContext,
  pair: Pair,
  directory: string | undefined,
  options: RestoreOptions,
  {
    open,
    choose,
    onChecked,
  }: {
    open(): Promise<Found>
    choose(manifest: Manifest): readonly BackupEntry[]
    readonly onChecked: ((path: string, sha256: string) => void) | undefined
  },
): Job<RestorePlan> {
  const { onConflict, paths = [] } = options
  const root = pair.local
  let run = options.run ?? 'latest'
  return {
    command: 'restore',
    pair,
    directory,
    mayBeForgotten: true,
    recorded: () => ({ ...recordedOf({ ...options, run, paths }), directory: identityOf(root) }),
    isSending: false,

    async look(state) {
      requireDirectory(root)
      const isNew = onConflict === undefined
      const before = isNew && !isEmpty(root) ? lastRestore(state) : undefined
      if (isNew && !isEmpty(root) && before?.directory !== identityOf(root)) throw notEmpty(root)
      context.onEvent?.({ type: 'phase', text: 'Reading the manifest' })
      const { runs, note, manifest } = await open()
      run = note.run
      if (before !== undefined && !isSameRestore(before, { run, paths })) throw anotherRestore(root, before)
      // The identity of the target is part of what is recorded.
      if (options.dryRun !== true) createSafeTree(root).close()
      return look(context, root, choose(manifest), runs.problems, options)
    },

    async begin(_running, { entries }) {
      return {
        show: showSourcePath,
        acceptAny: true,
        isCautious: false,
        expected: expectedOf(entries.files, onChecked),
        judge(node, seal) {
          if (seal !== entries.files.get(keyOf(componentsOf(node.name)))?.seal) throw swapped('its key is another one')
        },
      }
    },

    async end(running, plan, _begun, done) {
      return finish(running, root, plan, done, onConflict ?? 'fail')
    },
  }
}

/** What is written down of the newest restore into a directory, apart from those that were refused. */
function lastRestore({ runs }: Pick<Known, 'runs'>): Recorded | undefined {
  const isBegun = ({ command, error, counts }: RunRecord) =>
    command === 'restore' && (error === undefined || error.code === 'KILLED' || counts !== undefined)
  const options = runs().find(isBegun)?.options as Partial<Recorded> | undefined
  if (typeof options?.run !== 'string' || !Array.isArray(options.paths)) return undefined
  return { run: options.run, paths: options.paths, directory: options.directory }
}

/** Tells a directory from one that was made under the same name later; inode numbers are used again, birth times are not. */
function identityOf(target: string): string | undefined {
  let info: BigIntStats | undefined
  try {
    info = statSync(target, { bigint: true, throwIfNoEntry: false })
  } catch {
    return undefined
  }
  return info?.isDirectory() ? `${info.dev}:${info.ino}:${info.birthtimeNs}` : undefined
}

/** True when the same command was given. */
const isSameRestore = (a: Pick<Recorded, 'run' | 'paths'>, b: Pick<Recorded, 'run' | 'paths'>): boolean =>
  a.run === b.run && JSON.stringify([...a.paths].sort()) === JSON.stringify([...b.paths].sort())

function isEmpty(target: string): boolean {
  try {
    // What was being written when a restore was killed is no content.
    return readdirSync(target).every(isTemporaryName)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return true
    throw localError(error, `look at ${target}`)
  }
}

const notEmpty = (target: string) =>
  new SyncError('conflict', 'TARGET_NOT_EMPTY', `The target is not empty: ${target}`, {
    hint: 'Choose a new directory, or say what to do with what is there: --on-conflict',
  })

const anotherRestore = (target: string, { run, paths }: Pick<Recorded, 'run' | 'paths'>) =>
  new SyncError(
    'conflict',
    'TARGET_NOT_EMPTY',
    `The target holds ${paths.length === 0 ? '' : 'a part of '}run ${run}, from an earlier restore: ${target}`,
    {
      hint: 'To go on with that one, name its run and paths. Else choose a new directory, or see --on-conflict.',
    },
  )

function look(
  context: RunContext,
  root: string,
  entries: readonly BackupEntry[],
  problems: readonly EntryFailure[],
  options: RestoreOptions,
): RestorePlan {
  const { onConflict = 'fail', trustTimes = false, dryRun = false, signal = never } = options
  const selection = createSelection(options.selection ?? {}, context.clock.now())
  const failures: EntryFailure[] = [...problems]
  const isIn = ({ kind, path, ...more }: BackupEntry) =>
    selection.takes(componentsOf(path), kind === 'directory' ? 'directory' : 'file') &&
    (kind !== 'file' || selection.takesFile((more as FileEntry).size, Number(BigInt(more.mtimeNs)) / 1e6))
  const wanted = entries.filter(isIn)
  const isThere = new Set<string>()
  for (const { path } of wanted)
    for (let key = keyOf(componentsOf(path)); key !== '' && !isThere.has(key); key = parentKey(key)) isThere.add(key)
  const usable = withoutMeetings(wanted, dryRun ? usuallyFoldsCase() : foldsCase(root), failures)
  if (!dryRun) openDirectories(root, usable.directories)
  const remote = new Map<string, RemoteItem>()
  for (const { path } of usable.directories) {
    // Those on the way are made with what is in them.
    if (path !== '')
      remote.set(keyOf(componentsOf(path)), {
        kind: 'directory',
        path: componentsOf(path),
        node: folder(path),
        roomId: 0,
      })
  }
  for (const [key, entry] of usable.files)
    remote.set(key, { kind: 'file', path: componentsOf(entry.path), node: nodeOf(entry), roomId: 0 })
  const here = lookAtPlaces(root, remote, signal)
  for (const { path, error } of here.failures) failures.push({ path: `/${path}`, error })
  for (const key of remote.keys()) if (here.blocked.has(key)) remote.delete(key)
  const trees = { local: here.items, remote, links: here.links, records: new Map(), blocked: createBlocked() }
  const isEqual = (local: LocalEntry, node: RemoteNode) =>
    local.size === node.size && isSameTime(local.mtimeMs, usable.files.get(keyOf(componentsOf(node.name)))!.mtimeNs)
  const steps: SyncStep[] = reconcile(
    { ...trees, isFirst: false, isIncomplete: false, isEqual },
    {
      direction: 'pull',
      // What is of another kind makes way where things are replaced at all. What is not in the run is never looked at.
      delete: onConflict === 'overwrite',
      checksum: !trustTimes,
      onConflict,
      remembers: false,
      conflictName: (name) => name,
    },
  ).filter((step) => step.do !== 'keep')
  if (options.planned !== undefined) requireSamePlan(options.planned, steps.filter(isChange).map(planLine))
  return {
    steps,
    files: wanted.filter(({ kind }) => kind === 'file').length,
    skipped: countSkipped(steps, remote),
    ignored: entries.length - wanted.length,
    container: { node: folder(''), above: folder(''), missing: [], roomId: 0 },
    remote,
    records: new Map(),
    failures,
    missing: selection.missing((key) => key === '' || isThere.has(key)),
    selection: { unaccepted: [] },
    leftovers: directoriesOf(remote),
    entries: usable,
  }
}

/** What is asked for: the server has no say in size or encryption. */
const nodeOf = ({ node, path, size, mtimeNs }: FileEntry): RemoteNode => ({
  id: node,
  type: 'file',
  name: path,
  size,
  isEncrypted: true,
  timestampModification: Number(BigInt(mtimeNs) / 1_000_000n),
})

const folder = (path: string): RemoteNode => ({ id: 0, type: 'folder', name: path, isEncrypted: true })

/** Entries whose names mean what they say on this disk; those that meet in one are told, and none of them is written. */
function withoutMeetings(entries: readonly BackupEntry[], fold: boolean, failures: EntryFailure[]): Entries {
  const keyOn = (path: string) => (fold ? foldKey(path) : keyOf(path.split('/')))
  const count = new Map<string, number>()
  for (const { path } of entries) count.set(keyOn(path), (count.get(keyOn(path)) ?? 0) + 1)
  const usable = entries.filter(({ path }) => {
    try {
      for (const part of componentsOf(path)) checkLocalName(part)
      if (count.get(keyOn(path)) === 1) return true
      throw new SyncError('conflict', 'EXISTS', 'Two names of the backup are one name on this disk', {
        hint: 'Restore them one by one with --path.',
      })
    } catch (error) {
      failures.push({ path: `/${path}`, error: toSyncError(error) })
      return false
    }
  })
  const files = usable.filter((entry): entry is FileEntry => entry.kind === 'file')
  return {
    files: new Map(files.map((entry) => [keyOf(componentsOf(entry.path)), entry])),
    directories: usable.filter((entry): entry is DirectoryEntry => entry.kind === 'directory'),
    links: usable.filter((entry): entry is LinkEntry => entry.kind === 'symlink'),
  }
}

/** Directories that are there and closed are opened, so that one can look into them. */
function openDirectories(root: string, directories: readonly DirectoryEntry[]): void {
  const tree = createSafeTree(root)
  try {
    for (const entry of directories) {
      try {
        if (lookAt(join(root, entry.path))?.isDirectory()) makeEnterable(tree, entry)
      } catch {
        // What stands in the way is found, and told, when places are looked at.
      }
    }
  } finally {
    tree.close()
  }
}

const swapped = (why: string) =>
  new SyncError('integrity', 'CONTENT_SWAPPED', `What the server has is not what was stored: ${why}`, {
    hint: 'Nothing of it was kept. Other runs may have the file; see who has access to the room.',
  })

/** @param onChecked - Told of the SHA-256 of what was fetched, and was right. */
const expectedOf = (
  files: ReadonlyMap<string, FileEntry>,
  onChecked: ((path: string, sha256: string) => void) | undefined,
): Expected => ({
  of({ name }) {
    const { path, sha256, mac, mode, mtimeNs } = files.get(keyOf(componentsOf(name)))!
    const isIt = (found: string, fileKey: FileKey | undefined): boolean =>
      mac === undefined
        ? found === sha256
        : fileKey !== undefined && Buffer.from(contentMac(fileKey, Buffer.from(found, 'hex'))).toString('hex') === mac
    return {
      needsKey: mac !== undefined,
      isIt,
      mode: mode & FILE_MODE,
      mtime: secondsOf(mtimeNs),
      check(found, fileKey) {
        if (!isIt(found, fileKey)) throw swapped('its SHA-256 is another one')
        onChecked?.(path, found)
      },
    }
  },
  explain(error) {
    if (error.class !== 'not_found') return error
    // A node that is not there is content that was taken away.
    return new SyncError('integrity', 'CONTENT_DROPPED', 'What was stored of this file is gone from the server', {
      hint: 'Other runs may have the file; see who has access to the room, and its recycle bin.',
      cause: error,
    })
  },
})

/** Links, and permissions and times of what was there already and of directories. */
function finish(
  { context, state, runId }: Running,
  root: string,
  { entries: { files, directories, links }, steps }: RestorePlan,
  { failed, left }: Done,
  onConflict: ConflictAction,
): readonly EntryFailure[] {
  const told: EntryFailure[] = []
  // What has failed is told; so is what something else stands in the way of.
  const wrong = new Set(failed.map(({ path }) => path))
  const isTold = ({ path }: BackupEntry) => {
    for (let above = `/${path}`; above !== ''; above = above.slice(0, above.lastIndexOf('/')))
      if (wrong.has(above)) return true
    return false
  }
  const tree = createSafeTree(root)
  const bin = createLocalBin(tree, runId)
  const how: LinkHow = {
    onConflict,
    takeAway(path, was) {
      state.addDeed(runId, { do: 'deleted-local', path: path.join('/'), bin: bin.placeOf(path), was: markOf(was) })
      bin.take(path)
    },
    before: ({ path, target }) => void state.addDeed(runId, { do: 'linked-local', path, target }),
  }
  const attempt = (entry: BackupEntry, work: () => void) => {
    if (isTold(entry)) return
    try {
      work()
    } catch (thrown) {
      const failure = { path: `/${entry.path}`, error: toSyncError(thrown) }
      told.push(failure)
      report(context, failure.path, failure.error)
    }
  }
  // At a limit nobody knows which of those that differed have been replaced.
  const open = new Set(left > 0 ? steps.map(({ key }) => key) : [])
  try {
    if (onConflict === 'overwrite') {
      for (const [key, entry] of files) if (!open.has(key)) attempt(entry, () => repairFile(tree, entry))
    }
    for (const entry of links) attempt(entry, () => restoreLink(tree, entry, how))
    // Deepest first: what is written below changes the time, and a mode may forbid to go there.
    for (const entry of [...directories].sort((a, b) => (a.path < b.path ? 1 : -1)))
      attempt(entry, () => finishDirectory(tree, entry))
  } finally {
    tree.close()
  }
  return told
}
