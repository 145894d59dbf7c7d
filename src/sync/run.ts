import { createContentCheck } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import type { SyncError } from '../errors.ts'
import { openStable } from '../local/stable-read.ts'
import { type DownloadContext, openFileKey } from '../transfer/content.ts'
import type { TransferEvent } from '../transfer/events.ts'
import type { Tally } from './outcome.ts'
import { type DownloadStep, sameTime, type UploadStep } from './plan.ts'

export type RunEvent =
  | TransferEvent
  /** Before the first transfer: what is ahead. */
  | { readonly type: 'planned'; readonly files: number; readonly bytes: number; readonly skipped: number }
  | { readonly type: 'phase'; readonly text: string }

export interface RunContext extends Omit<DownloadContext, 'onEvent'> {
  readonly onEvent?: ((event: RunEvent) => void) | undefined
}

export interface RunOptions {
  /** A directory's content goes directly into the target instead of into a directory of its name. */
  readonly contents?: boolean
  /** Compare contents by recomputing the tag instead of size and time. */
  readonly checksum?: boolean
  /** Files in flight. Default 16. */
  readonly jobs?: number
  readonly signal?: AbortSignal
}

export interface UploadOptions extends RunOptions {
  /** Refuse targets that are not encrypted. */
  readonly requireEncryption?: boolean
  /** Bytes per part, at least 5 MiB. Default 8 MiB. */
  readonly partSize?: number
}

export interface DownloadOptions extends RunOptions {
  /** Replace local files that differ; otherwise they are kept and reported as conflicts. */
  readonly overwrite?: boolean
}

/** Files in flight unless told otherwise. */
export const DEFAULT_JOBS = 16

/** For runs that nobody can stop. */
export const never = new AbortController().signal

/** Puts what the plan could not do into the tally. */
export function recordFailures(steps: readonly (UploadStep | DownloadStep)[], tally: Tally, context: RunContext): void {
  for (const step of steps) {
    if (step.do !== 'fail') continue
    tally.failed.push({ path: step.shown, error: step.error })
    report(context, step.shown, step.error)
  }
}

export const report = (context: RunContext, path: string, error: SyncError) =>
  context.onEvent?.({ type: 'file-failed', path, code: error.code, message: error.message })

const CHECK_BYTES = 1024 * 1024

/**
 * True when a local file is what the node holds. For an encrypted file the tag is recomputed from the local plaintext; a
 * plain one can only be told by its time.
 */
export async function isSameContent(
  context: RunContext,
  node: RemoteNode,
  path: string,
  shown: string,
  signal: AbortSignal,
): Promise<boolean> {
  const reader = await openStable(path, shown)
  try {
    if (reader.size !== node.size) return false
    const fileKey = await openFileKey(context, node, signal)
    if (fileKey === undefined) {
      return node.timestampModification !== undefined && sameTime(node.timestampModification, reader.modifiedAt)
    }
    const check = createContentCheck(fileKey)
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHECK_BYTES, reader.size))
    for (let at = 0; at < reader.size; at += buffer.length) {
      signal.throwIfAborted()
      const piece = buffer.subarray(0, Math.min(buffer.length, reader.size - at))
      await reader.read(piece, at)
      check.update(piece)
    }
    await reader.verify()
    const same = check.matches()
    if (same) context.keyring.confirm(fileKey)
    fileKey.wipe()
    return same
  } finally {
    await reader.close()
  }
}
