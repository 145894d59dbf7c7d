import { createContentCheck } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import type { Home } from '../local/home.ts'
import type { Names } from '../local/names.ts'
import { openStable } from '../local/stable-read.ts'
import { type DownloadContext, openFileKey } from '../transfer/content.ts'
import type { TransferEvent } from '../transfer/events.ts'
import type { HeldRules } from './held-rules.ts'
import type { StatePlace } from './known-places.ts'
import type { Tally } from './outcome.ts'
import { type ConflictAction, type DownloadStep, sameTime, type UploadStep } from './plan.ts'
import type { PlanLine } from './plan-file.ts'

export type RunEvent =
  | TransferEvent
  /** Before the first transfer: what is ahead. */
  | { readonly type: 'planned'; readonly files: number; readonly bytes: number; readonly skipped: number }
  | { readonly type: 'phase'; readonly text: string }
  /** A folder made, something moved or deleted; contents are told by `file-done`. */
  | { readonly type: 'step-done'; readonly do: string; readonly path: string; readonly from?: string }
  /** Both sides had changed; the local version is `copy` now. */
  | { readonly type: 'conflict'; readonly path: string; readonly copy: string }

export interface RunContext extends Omit<DownloadContext, 'onEvent'> {
  readonly onEvent?: ((event: RunEvent) => void) | undefined
  /** Which rules of others somebody has accepted. Absent: all count. */
  readonly rules?: HeldRules
  /** Where runs keep what they remember, their locks and journals. */
  readonly home?: Home
  /** Tells when the server says that it is too busy; returns how to stop listening. */
  readonly onBusy?: ((listener: () => void) => () => void) | undefined
  /** Asks a person; absent: there is nobody. */
  readonly confirm?: ((question: string) => Promise<boolean>) | undefined
}

export interface RunOptions {
  /** A directory's content goes directly into the target instead of into a directory of its name. */
  readonly contents?: boolean
  /** Compare contents by recomputing the tag instead of size and time. */
  readonly checksum?: boolean
  /** Files in flight. Default 16. */
  readonly jobs?: number
  /** Bytes of content that may be held in memory at once, over all files: at least 16 MiB. Default 48 MiB. */
  readonly memory?: number
  /** What to do with names that the other side cannot hold. Default `report`. */
  readonly names?: Names | undefined
  /** Plan only. */
  readonly dryRun?: boolean
  /** Do exactly this, or nothing. */
  readonly planned?: readonly PlanLine[]
  /** Refuse what is not encrypted, whatever was agreed to before. */
  readonly requireEncryption?: boolean | undefined
  readonly signal?: AbortSignal
}

export interface UploadOptions extends RunOptions {
  /**
   * Content may also go where it is not encrypted, unless the place was ever seen encrypted. False: only where a person has
   * agreed to that, who is asked by `confirm` of the client. Default: true, or false where there is such a person.
   */
  readonly allowPlain?: boolean | undefined
  /** Bytes per part, at least 5 MiB. Default 8 MiB. */
  readonly partSize?: number
  /** What to do with a file on the server that differs. Default `overwrite`: a new version. */
  readonly onConflict?: ConflictAction
  /**
   * Path of the journal that lets a later run go on inside large files: one file per account, target and sources, in a private
   * directory. Without it an interrupted file starts over.
   */
  readonly journal?: string
}

export interface DownloadOptions extends RunOptions {
  /** What to do with a local file that differs. Default `fail`: it is kept and reported. */
  readonly onConflict?: ConflictAction
  /** Where it is remembered what runs of pairs found there: other or older contents of known files are refused. */
  readonly state?: StatePlace
}

/** Files in flight unless told otherwise. */
export const DEFAULT_JOBS = 16

/** Bytes of content in memory unless told otherwise, and the fewest that a run can do with. */
export const DEFAULT_MEMORY = 48 * 1024 * 1024
export const MIN_MEMORY = 16 * 1024 * 1024

/**
 * Bytes of content that a run may hold.
 *
 * @throws {SyncError} `MEMORY_INVALID` (class `usage`).
 */
export function memoryOf({ memory = DEFAULT_MEMORY }: RunOptions): number {
  if (Number.isSafeInteger(memory) && memory >= MIN_MEMORY) return memory
  throw new SyncError('usage', 'MEMORY_INVALID', `A run needs ${MIN_MEMORY} bytes of memory for content, or more`)
}

/**
 * Finds out before a run whether its content may go below a room or folder.
 *
 * @param below - Folders that will be made there.
 * @throws {SyncError} `NOT_ENCRYPTED`, `ROOM_NOT_ENCRYPTED`, `PINS_LOST` (class `safety`).
 */
export async function admitTarget(
  context: RunContext,
  container: Pick<RemoteNode, 'id'>,
  below: readonly string[],
  shown: string,
  options: Pick<UploadOptions, 'allowPlain' | 'requireEncryption' | 'dryRun'>,
): Promise<void> {
  const { allowPlain, requireEncryption, dryRun } = options
  // A look sends nothing, and asks nobody.
  const policy = {
    shown,
    allowPlain: dryRun === true || allowPlain,
    requireEncryption,
    confirm: context.confirm,
  }
  await context.api.places?.admit(container.id, below, policy)
}

/** @throws {SyncError} `NOT_ENCRYPTED` when encryption is required of a source that has none. */
export function requireEncryptedSource(node: RemoteNode, shown: string, options: RunOptions): void {
  if (options.requireEncryption !== true || node.isEncrypted === true) return
  throw new SyncError('safety', 'NOT_ENCRYPTED', `${shown} is not encrypted, and encryption is required`, {
    hint: 'If it was encrypted before, ask the administrator of its room what happened.',
  })
}

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
