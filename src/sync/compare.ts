/** What differs between a local and a remote directory, without changing either. @module */
import { join } from 'node:path'
import { SyncError, toSyncError } from '../errors.ts'
import type { Names } from '../local/names.ts'
import { foldsCase } from '../local/target.ts'
import { createTally, type Pending, runEntries } from './outcome.ts'
import { looksEqual } from './records.ts'
import { requireContainer } from './remote-path.ts'
import { DEFAULT_JOBS, isSameContent, never, type RunContext } from './run.ts'
import type { Limits } from './run-job.ts'
import { createBlocked, keyOf, scanLocal, scanRemote } from './scan.ts'
import { createSelection, type SelectionOptions, withoutJunk } from './select.ts'
import { type EntryFailure, showPath } from './tree.ts'

/** A place that is not the same on both sides. */
export interface Difference {
  readonly path: string
  readonly what: 'only here' | 'only there' | 'differs' | 'other kind'
}

/** What differs between two trees. */
export interface Comparison {
  /** Files on both sides. */
  readonly compared: number
  /** In the order of their paths. */
  readonly differences: readonly Difference[]
  readonly failed: readonly EntryFailure[]
  /** Absent: nothing. */
  readonly pending?: readonly Pending[]
  readonly stoppedBy?: SyncError
}

/** How two trees are compared, and what of them. */
export interface CompareRunOptions extends Pick<Limits, 'jobs' | 'signal'> {
  /** Read the local files and compare contents by their tags; else sizes and times decide. Nothing is transferred. */
  readonly contents: boolean
  readonly selection?: SelectionOptions
  readonly names?: Names | undefined
}

/**
 * Compares two trees.
 *
 * @throws {SyncError} for roots that are not there, and when a side cannot be listed.
 */
export async function compareTrees(
  context: RunContext,
  local: string,
  remote: string,
  options: CompareRunOptions,
): Promise<Comparison> {
  const signal = options.signal ?? never
  const { container, roomId, missing } = await requireContainer(context.api, remote, signal)
  if (missing.length > 0) {
    throw new SyncError('not_found', 'REMOTE_MISSING', `There is no ${remote} on the server, or you cannot see it`)
  }
  const how = {
    selection: createSelection(withoutJunk(options.selection), context.clock.now(), context.rules?.look()),
    blocked: createBlocked(),
    names: options.names,
    signal,
  }
  const here = await scanLocal(local, how)
  const there = await scanRemote(context.api, container, roomId, { ...how, foldCase: foldsCase(local) })
  const isThere = (key: string) => here.items.has(key) || there.items.has(key) || how.blocked.has(key)
  const notThere = how.selection.missing(isThere)
  const differences: Difference[] = []
  const both: { shown: string; key: string }[] = []
  for (const [key, { kind, path }] of here.items) {
    if (how.blocked.has(key)) continue
    const other = there.items.get(key)
    if (other === undefined) differences.push({ path: showPath(path), what: 'only here' })
    else if (other.kind !== kind) differences.push({ path: showPath(path), what: 'other kind' })
    else if (kind === 'file') both.push({ shown: showPath(path), key })
  }
  for (const [key, { path }] of there.items) {
    if (!here.items.has(key) && !how.blocked.has(key)) differences.push({ path: showPath(path), what: 'only there' })
  }
  const tally = createTally()
  const bytes = options.contents ? both.reduce((sum, { key }) => sum + here.items.get(key)!.size, 0) : 0
  if (options.contents) context.onEvent?.({ type: 'planned', files: both.length, bytes, skipped: 0 })
  await runEntries(
    both,
    options.jobs ?? DEFAULT_JOBS,
    tally,
    async ({ shown, key }, stop) => {
      const [entry, { node }] = [here.items.get(key)!, there.items.get(key)!]
      const isSame = options.contents
        ? await isSameContent(context, node, join(local, ...entry.path), shown, stop)
        : looksEqual(entry, node)
      if (!isSame) differences.push({ path: shown, what: 'differs' })
      context.onEvent?.({ type: 'file-done', path: shown, bytes: options.contents ? entry.size : 0 })
      return 0
    },
    { signal, onBusy: context.onBusy },
  )
  differences.sort((a, b) => (keyOf([a.path]) < keyOf([b.path]) ? -1 : 1))
  const pending = how.selection.unaccepted.map(({ path, error }): Pending => ({ what: 'rules', name: path, error }))
  return {
    ...(pending.length === 0 ? {} : { pending }),
    compared: both.length,
    differences,
    failed: [...here.failures, ...there.failures, ...notThere, ...tally.failed],
    ...(tally.stoppedBy === undefined ? {} : { stoppedBy: toSyncError(tally.stoppedBy) }),
  }
}
