/**
 * What stops a run before it changes anything. Nearly every loss that is told of programs like this one began with a disk that
 * was not mounted, a folder that was not the right one, or a change far larger than anybody meant.
 * @module
 */
import type { RemoteNode } from '../api/wire.ts'
import { SyncError, type SyncErrorCode } from '../errors.ts'
import type { Direction, SyncStep } from './reconcile.ts'
import type { Pair, Roots } from './state.ts'

/** A number of files, or a share of all. */
export type Limit = { readonly files: number } | { readonly share: number }

export interface GuardOptions {
  readonly direction: Direction
  /** Default: the smaller of 50 files and 20 %, at least 10. */
  readonly maxDelete?: Limit | undefined
  /** Replaced files. Default: the larger of 100 files and 50 %. */
  readonly maxChange?: Limit | undefined
  /** Somebody has looked: the roots are meant to be other ones, or empty. */
  readonly acceptRoots?: boolean
}

const stop = (code: SyncErrorCode, message: string, hint: string) => new SyncError('safety', code, message, { hint })

/** Both roots must be those of the last run. */
export function guardRoots(
  pair: Pair,
  known: Roots | undefined,
  now: {
    readonly local: { readonly dev: number; readonly ino: number } | undefined
    readonly remote: RemoteNode | undefined
  },
  { acceptRoots }: Pick<GuardOptions, 'acceptRoots'>,
): void {
  if (known === undefined) return
  const { local, remote } = now
  if (known.isEncrypted && remote !== undefined && remote.isEncrypted !== true) {
    throw stop(
      'NOT_ENCRYPTED',
      `${pair.remote} was encrypted at the last run and is not any more`,
      'Ask the administrator of the room what happened.',
    )
  }
  if (acceptRoots) return
  const hint = 'If this is meant: --accept-roots'
  if (local === undefined)
    throw stop('ROOT_MISSING', `${pair.local} is gone; it was there at the last run`, `Is its disk mounted? ${hint}`)
  // A number of a device may change when a machine starts; then the directory's own is the same still.
  if (local.dev !== known.dev && local.ino !== known.ino) {
    throw stop(
      'ROOT_CHANGED',
      `${pair.local} is on another device than at the last run`,
      `Is its disk mounted? ${hint}`,
    )
  }
  if (remote === undefined) throw stop('REMOTE_MISSING', `${pair.remote} is gone; it was there at the last run`, hint)
  if (remote.id !== known.remoteId) {
    throw stop(
      'REMOTE_CHANGED',
      `${pair.remote} is another folder than at the last run`,
      `Was it deleted and made again? ${hint}`,
    )
  }
}

/** A side whose content is all gone at once has lost it, or is not the right one. */
export function guardEmptied(
  pair: Pair,
  counts: { readonly local: number; readonly remote: number; readonly known: number },
  { direction, acceptRoots }: GuardOptions,
): void {
  if (acceptRoots || counts.known === 0) return
  const hint = 'If it is meant to be empty: --accept-roots'
  if (counts.local === 0 && direction !== 'pull') {
    throw stop(
      'SOURCE_EMPTY',
      `${pair.local} has no files; it had ${counts.known} at the last run`,
      `Is its disk mounted? ${hint}`,
    )
  }
  if (counts.remote === 0 && direction !== 'push') {
    throw stop('SOURCE_EMPTY', `${pair.remote} has no files; it had ${counts.known} at the last run`, hint)
  }
}

const allowed = (limit: Limit, known: number) => ('files' in limit ? limit.files : Math.floor(limit.share * known))

export const defaultMaxDelete = (known: number): number => Math.max(10, Math.min(50, Math.floor(0.2 * known)))
export const defaultMaxChange = (known: number): number => Math.max(100, Math.floor(0.5 * known))

/** @throws {SyncError} `TOO_MANY_DELETIONS`, `TOO_MANY_CHANGES` (class `safety`). */
export function guardExtent(steps: readonly SyncStep[], known: number, { maxDelete, maxChange }: GuardOptions): void {
  let deletions = 0
  for (const step of steps) {
    if (step.do === 'delete-local') deletions += step.whole?.length ?? (step.local.kind === 'file' ? 1 : 0)
    if (step.do === 'delete-remote' && step.remote.kind === 'file') deletions++
  }
  const mayDelete = maxDelete === undefined ? defaultMaxDelete(known) : allowed(maxDelete, known)
  if (deletions > mayDelete) {
    throw stop(
      'TOO_MANY_DELETIONS',
      `${deletions} files would be deleted, and ${mayDelete} may be`,
      'Look at the plan, then apply it or raise --max-delete.',
    )
  }
  const changes = steps.filter(
    (step) => (step.do === 'upload' || step.do === 'download') && step.replaces !== undefined,
  ).length
  const mayChange = maxChange === undefined ? defaultMaxChange(known) : allowed(maxChange, known)
  if (changes > mayChange) {
    throw stop(
      'TOO_MANY_CHANGES',
      `${changes} files would be replaced, and ${mayChange} may be`,
      'Look at the plan, then apply it or raise --max-change.',
    )
  }
}
