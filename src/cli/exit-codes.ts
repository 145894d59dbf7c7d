/** The one table from errors to exit codes. @module */

import type { RunSummary } from '../client/index.ts'
import type { SyncError } from '../errors.ts'

export const EXIT = Object.freeze({
  done: 0,
  bug: 1,
  usage: 2,
  partial: 3,
  login: 4,
  network: 5,
  refused: 6,
  integrity: 7,
  locked: 8,
  safety: 9,
  localDisk: 10,
  differences: 11,
  conflicts: 12,
  key: 13,
})

/** Exit code of a failure that ended the command. */
export function exitCodeOf(error: SyncError): number {
  if (error.code === 'LOCKED') return EXIT.locked
  switch (error.class) {
    case 'usage':
    case 'not_found':
      return EXIT.usage
    case 'auth':
      return EXIT.login
    case 'network':
    case 'tls':
    case 'server':
    case 'rate_limit':
      return EXIT.network
    case 'permission':
    case 'quota':
    case 'limit':
      return EXIT.refused
    case 'integrity':
      return EXIT.integrity
    case 'safety':
      return EXIT.safety
    case 'local_io':
      return EXIT.localDisk
    case 'conflict':
      return EXIT.conflicts
    case 'key':
      return EXIT.key
    case 'changed':
      return EXIT.partial
    case 'cancelled':
      return 130
    case 'internal':
      return EXIT.bug
  }
}

/** Worst first. */
const ORDER = [1, 7, 9, 13, 4, 10, 6, 5, 12, 3]

/**
 * Exit code of a run over many entries: what stopped it counts as such; an entry that failed while others went on counts as
 * partial, unless it is about integrity, safety, keys, conflicts, our own bugs, or the local target of a download.
 */
export function exitCodeOfRun(
  summary: Pick<RunSummary, 'failed' | 'pending'> & { readonly stoppedBy?: SyncError | undefined },
  direction: 'upload' | 'download',
): number {
  if (summary.stoppedBy?.class === 'cancelled') return signalExit(summary.stoppedBy)
  const codes = [...summary.failed, ...(summary.pending ?? [])].map(({ error }) => {
    if (['integrity', 'safety', 'key', 'conflict', 'internal'].includes(error.class)) return exitCodeOf(error)
    if (error.class === 'local_io' && direction === 'download') return EXIT.localDisk
    return EXIT.partial
  })
  if (summary.stoppedBy !== undefined) codes.push(exitCodeOf(summary.stoppedBy))
  return ORDER.find((code) => codes.includes(code)) ?? codes[0] ?? EXIT.done
}

const SIGNALS: Readonly<Record<string, number>> = Object.freeze({ SIGHUP: 129, SIGINT: 130, SIGTERM: 143 })

/** The error a signal aborts with carries the signal's name in its code. */
export const signalExit = (error: SyncError): number => SIGNALS[error.code] ?? 130
