/**
 * The runs of a set at the server, held against what is known of them: by this machine, or where it knows nothing, by the newest
 * manifest there. A manifest that is gone, another one, or older than it was is told by name.
 * @module
 */
import { getFileKey } from '../../api/file-keys.ts'
import { listChildren } from '../../api/nodes.ts'
import type { RemoteNode } from '../../api/wire.ts'
import { SyncError, type SyncErrorCode, toSyncError } from '../../errors.ts'
import { fetchManifest, isAboutContent } from '../manifest.ts'
import { sealOf } from '../records.ts'
import type { RunContext } from '../run.ts'
import type { EntryFailure } from '../tree.ts'
import { type Manifest, parseRunManifest } from './manifest.ts'
import type { SetMemory } from './memory.ts'
import { compareRuns, isRunId, RUNS, type RunNote, type SetPlace } from './set.ts'
import { findNode, type Store } from './store.ts'

/** The runs of a set, and what is wrong with them. */
export interface Runs {
  /** Those that can be trusted as far as is known, oldest first. */
  readonly notes: readonly RunNote[]
  /** Class `integrity`. */
  readonly problems: readonly EntryFailure[]
  /** This machine knew of the set, so a server that shows an older state is noticed. */
  readonly isPinned: boolean
  /** Runs that the newest manifest knows of and that are not there; without a pin nobody can say whether they were pruned. */
  readonly missing: number
  /** Newest of all, when it was not known before and had to be read. */
  readonly newest?: Manifest
}

const EXTENSION = '.json.gz'

/** Name of the manifest of a run, in `runs/`. */
export const manifestName = (run: string): string => `${run}${EXTENSION}`

/** As it is called in events and failures. */
export const shownManifest = (run: string): string => `${RUNS}/${manifestName(run)}`

const integrity = (code: SyncErrorCode, message: string, hint: string) =>
  new SyncError('integrity', code, message, { hint })

const HINT = 'Ask who has access to the room. To take what is there for good: sync backup run --accept-runs'

const dropped = (run: string) =>
  integrity('MANIFEST_DROPPED', `The manifest of run ${run} is gone from the server`, HINT)
const swapped = (run: string) =>
  integrity('MANIFEST_SWAPPED', `The manifest of run ${run} is not the one that was stored`, HINT)
const foreign = (run: string) =>
  integrity('MANIFEST_FOREIGN', `Run ${run} does not follow from the runs that are known`, HINT)

/** Manifests at the server, by run. */
export async function listManifests(
  { api }: RunContext,
  store: Pick<Store, 'runs'>,
  signal: AbortSignal,
): Promise<Map<string, RemoteNode>> {
  const found: [string, RemoteNode][] = []
  for await (const node of listChildren(api, store.runs.id, signal)) {
    const run = node.name.slice(0, -EXTENSION.length)
    if (node.type === 'file' && node.name.endsWith(EXTENSION) && isRunId(run))
      found.push([run, { ...node, isEncrypted: true }])
  }
  return new Map(found.sort(([a], [b]) => compareRuns(a, b)))
}

/**
 * Fetches a manifest and checks that it is what it is said to be.
 *
 * @param expected - What is known of it; without that it only has to be of this set and run.
 * @throws {SyncError} `MANIFEST_UNREADABLE`, `MANIFEST_INVALID`, `MANIFEST_SWAPPED` (class `integrity`).
 */
export async function readManifest(
  context: RunContext,
  { name }: SetPlace,
  run: string,
  node: RemoteNode,
  expected: RunNote | undefined,
  signal: AbortSignal,
): Promise<{ manifest: Manifest; note: RunNote }> {
  const shown = shownManifest(run)
  let fetched: Awaited<ReturnType<typeof fetchManifest>>
  try {
    fetched = await fetchManifest(context, node, shown, signal)
  } catch (thrown) {
    const error = toSyncError(thrown)
    if (!isAboutContent(error)) throw error
    throw new SyncError(
      'integrity',
      'MANIFEST_UNREADABLE',
      `The manifest of run ${run} cannot be read: ${error.message}`,
      {
        hint: HINT,
        cause: error,
      },
    )
  }
  const { bytes, seal, sha256 } = fetched
  if (expected !== undefined && sha256 !== expected.sha256) throw swapped(run)
  const manifest = parseRunManifest(bytes, shown)
  // An older one under a newer name would be a way to roll back.
  if (manifest.run !== run || manifest.set !== name) throw swapped(run)
  return { manifest, note: noteOf(manifest, { node: node.id, sha256, seal, size: bytes.length }) }
}

/** What other runs keep of one. */
export function noteOf(
  manifest: Pick<Manifest, 'run' | 'startedAt' | 'addedBytes' | 'isComplete' | 'entries'>,
  of: Pick<RunNote, 'node' | 'sha256' | 'seal' | 'size'>,
): RunNote {
  const { run, startedAt, addedBytes, isComplete } = manifest
  let [files, bytes] = [0, 0]
  for (const entry of manifest.entries) {
    if (entry.kind !== 'file') continue
    files++
    bytes += entry.size
  }
  return { run, ...of, startedAt, files, bytes, addedBytes, isComplete }
}

/** Reads a run that is known; its node is looked up by id, so it does not matter where it is. */
export async function readRun(
  context: RunContext,
  place: SetPlace,
  note: RunNote,
  signal: AbortSignal,
): Promise<Manifest> {
  const node = await findNode(context.api, note.node, signal)
  if (node === undefined) throw dropped(note.run)
  return (await readManifest(context, place, note.run, node, note, signal)).manifest
}

/**
 * Looks at the runs of a set.
 *
 * @param memory - What this machine knows; absent: the newest manifest says what there was.
 * @throws {SyncError} of class `integrity` when there is no memory and the newest manifest cannot be read.
 */
export async function openRuns(
  context: RunContext,
  place: SetPlace,
  store: Store,
  memory: SetMemory | undefined,
  signal: AbortSignal,
): Promise<Runs> {
  const listed = await listManifests(context, store, signal)
  if (memory === undefined) return openUnknown(context, place, listed, signal)
  const problems: EntryFailure[] = []
  const tell = (error: SyncError, run: string) => problems.push({ path: shownManifest(run), error })
  const notes: RunNote[] = []
  for (const note of memory.runs) {
    const isPruned = memory.pruning.includes(note.run)
    const node = listed.get(note.run)
    if (node === undefined && isPruned) continue
    if (node === undefined) tell(dropped(note.run), note.run)
    else if (node.id !== note.node || node.size !== note.size) tell(swapped(note.run), note.run)
    else if (!isPruned) notes.push(note)
  }
  const pin = memory.runs.at(-1)
  if (pin !== undefined && notes.at(-1) === pin) {
    const seal = await sealAt(context, pin.node, signal)
    if (seal !== pin.seal) {
      tell(swapped(pin.run), pin.run)
      notes.pop()
    }
  }
  const known = new Set(memory.runs.map(({ run }) => run))
  let newest: Manifest | undefined
  for (const [run, node] of listed) {
    if (known.has(run)) continue
    try {
      const { manifest, note } = await readManifest(context, place, run, node, undefined, signal)
      // Made after the pin by somebody who had it: a run that was killed at its very end, or one on another machine.
      const follows = pin === undefined || manifest.runs.some((one) => one.run === pin.run && one.sha256 === pin.sha256)
      if (!follows) throw foreign(run)
      notes.push(note)
      newest = manifest
    } catch (thrown) {
      const error = toSyncError(thrown)
      if (error.class !== 'integrity') throw error
      tell(error, run)
    }
  }
  return { notes, problems, isPinned: pin !== undefined, missing: 0, ...(newest === undefined ? {} : { newest }) }
}

async function openUnknown(
  context: RunContext,
  place: SetPlace,
  listed: ReadonlyMap<string, RemoteNode>,
  signal: AbortSignal,
): Promise<Runs> {
  const last = [...listed].at(-1)
  if (last === undefined) return { notes: [], problems: [], isPinned: false, missing: 0 }
  const { manifest, note } = await readManifest(context, place, ...last, undefined, signal)
  const notes: RunNote[] = []
  const problems: EntryFailure[] = []
  const known = new Map(manifest.runs.map((one) => [one.run, one]))
  for (const [run, node] of listed) {
    if (run === note.run) continue
    const one = known.get(run)
    const isRight = one?.node === node.id && one.size === node.size
    if (one !== undefined && isRight) notes.push(one)
    else problems.push({ path: shownManifest(run), error: one === undefined ? foreign(run) : swapped(run) })
  }
  const missing = manifest.runs.filter(({ run }) => !listed.has(run)).length
  return { notes: [...notes, note], problems, isPinned: false, missing, newest: manifest }
}

/** IV and tag under which the server has content now; `undefined` when it has none. */
async function sealAt({ api }: RunContext, node: number, signal: AbortSignal): Promise<string | undefined> {
  try {
    return sealOf(await getFileKey(api, node, signal))
  } catch (error) {
    const { class: kind } = toSyncError(error)
    if (kind === 'not_found' || kind === 'integrity') return undefined
    throw error
  }
}

/** Throws what is wrong with the newest run, if that is among the problems: it would be rolled back silently otherwise. */
export function requireNewest({ notes, problems }: Runs): void {
  const newest = notes.at(-1)?.run
  for (const { path, error } of problems) {
    const run = path.slice(RUNS.length + 1, -EXTENSION.length)
    const isNewer = newest === undefined || compareRuns(run, newest) > 0
    if (isNewer && error.code !== 'MANIFEST_FOREIGN') throw error
  }
}

/** Says what a machine without memory of a set cannot know. */
export function tellUnpinned({ onEvent }: Pick<RunContext, 'onEvent'>, { notes, missing }: Runs): void {
  const gone = missing > 0 ? `, and ${missing} that it knows of are gone (pruned?)` : ''
  const message =
    'This machine knows nothing of the set yet, so an older state at the server could not be noticed; the newest run there is ' +
    `${notes.at(-1)?.run ?? 'none'}${gone}`
  onEvent?.({ type: 'warning', code: 'NOT_PINNED', message })
}
