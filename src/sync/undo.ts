/**
 * Takes back what a run did, last things first: out of the recycle bins of both sides, and back to where it was. What has
 * changed since is left alone and told. Nothing is destroyed: what an undo removes goes into the bins, too.
 * @module
 */
import { tmpdir } from 'node:os'
import { SyncError, toSyncError } from '../errors.ts'
import { MANIFEST_NAME } from '../local/atomic-file.ts'
import { escapeName, type NameRules } from '../local/names.ts'
import { createSafeTree, type SafeTree } from '../local/safe-tree.ts'
import { dropEmptyDirectories } from './local-bin.ts'
import { recover } from './recovery.ts'
import { never, type RunContext } from './run.ts'
import { keyOf } from './scan.ts'
import { type Deed, isFromHere, type SyncState } from './state.ts'
import { createLocalTaker } from './undo/local.ts'
import { createRemoteTaker } from './undo/remote.ts'

/** What was taken back, and what was left alone, and why. */
export interface UndoResult {
  readonly undone: readonly Deed[]
  readonly skipped: readonly { readonly deed: Deed; readonly error: SyncError }[]
}

const notUndone = () =>
  new SyncError('usage', 'RUN_NOT_UNDONE', 'A run of a backup set is a point in time, and is not taken back', {
    hint: 'It goes when the set does not keep it any more: sync backup prune NAME',
  })

/**
 * A deed that was taken back is marked as such, so the same call goes on where another one was killed; each deed that may be
 * half taken back is finished.
 *
 * @param runId - Of the run to take back.
 */
export async function undoRun(
  context: RunContext,
  state: SyncState,
  runId: string,
  options: { readonly dryRun?: boolean; readonly signal?: AbortSignal } = {},
): Promise<UndoResult> {
  const signal = options.signal ?? never
  if (state.pair.backup?.direction === 'backup') throw notUndone()
  if (options.dryRun) {
    const deeds = state.deeds(runId).map(({ deed }) => deed)
    return { undone: deeds.reverse(), skipped: [] }
  }
  recover(state, context.clock.now())
  const deeds = inOrder(state.deeds(runId))
  const ownId = state.beginRun({ command: 'undo', startedAt: context.clock.now(), options: { run: runId } })
  const undone: Deed[] = []
  const skipped: { deed: Deed; error: SyncError }[] = []
  const rules = state.runs().find(({ id }) => id === runId)?.options as NameRules | undefined
  // Where nothing was changed here there is no root.
  const tree = createSafeTree(isFromHere(state.pair) ? tmpdir() : state.pair.local)
  const freed: string[] = []
  const take = createTaker(context, state, { tree, freed, ownId, rules, signal })
  // What is older comes back on purpose.
  state.readmit(deeds.flatMap(({ deed }) => keysOf(deed)))
  try {
    for (const { number, deed } of deeds) {
      signal.throwIfAborted()
      try {
        if (!(await take(deed))) continue
        // Whatever is known of the place is out of date: the next run compares.
        for (const key of keysOf(deed)) state.remove(key)
        state.dropDeed(runId, number)
        if (isOfManifest(deed)) state.setManifest(undefined)
        if (deed.do === 'created-remote' && deed.id === state.roots?.remoteId) state.setRoots(undefined)
        undone.push(deed)
      } catch (thrown) {
        const error = toSyncError(signal.aborted ? signal.reason : thrown)
        const isForAll = ['auth', 'network', 'server', 'rate_limit', 'tls', 'cancelled'].includes(error.class)
        if (isForAll || error.code === 'READ_ONLY') throw error
        skipped.push({ deed, error })
      }
    }
  } finally {
    tree.close()
    // Not before: to the open tree a directory that is gone would look replaced.
    for (const place of freed) dropEmptyDirectories(state.pair.local, place)
  }
  state.endRun(ownId, {
    endedAt: context.clock.now(),
    outcome: skipped.length > 0 ? 'partial' : 'done',
    counts: { undone: undone.length, skipped: skipped.length },
    failed: skipped.map(({ deed, error: { code, message } }) => ({ path: deed.path, code, message })),
  })
  return { undone, skipped }
}

const isOfManifest = ({ do: what, path }: Deed): boolean => what === 'created-remote' && path === MANIFEST_NAME

/** Last things first; behind all others the manifest, and then the folders that were made for the whole tree. */
function inOrder<T extends { readonly deed: Deed }>(deeds: readonly T[]): T[] {
  const last = [...deeds].reverse()
  const rank = ({ deed }: T) => (isOfManifest(deed) ? 1 : deed.path === '' ? 2 : 0)
  return last.sort((a, b) => rank(a) - rank(b))
}

const keysOf = (deed: Deed): string[] =>
  ('from' in deed ? [deed.path, deed.from] : [deed.path]).map((path) => keyOf(path.split('/')))

/** Takes back one deed; tells whether that was all there was to do about it. */
function createTaker(
  { api }: RunContext,
  state: SyncState,
  {
    tree,
    freed,
    ownId,
    rules,
    signal,
  }: {
    readonly tree: SafeTree
    readonly freed: string[]
    readonly ownId: string
    readonly rules: NameRules | undefined
    readonly signal: AbortSignal
  },
): (deed: Deed) => Promise<boolean> {
  const { local, remote } = state.pair
  const there = createRemoteTaker(api, remote, (name) => escapeName(name, { names: rules?.names }), signal)
  const takers = { ...there, ...createLocalTaker(local, tree, state.records(), ownId, freed) }
  // Each gets deeds of its own kind only.
  return async (deed) => {
    if (isOfManifest(deed)) return there.manifest()
    if (deed.do === 'created-remote' && deed.path === '') return there.place(deed.id)
    await takers[deed.do](deed as never)
    return true
  }
}
