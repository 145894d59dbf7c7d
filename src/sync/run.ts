import { createHash } from 'node:crypto'
import { createContentCheck } from '../../crypto/index.ts'
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import type { Home } from '../local/home.ts'
import { openStable } from '../local/stable-read.ts'
import { type DownloadContext, openFileKey } from '../transfer/content.ts'
import type { TransferEvent } from '../transfer/events.ts'
import type { Keyring } from '../transfer/keyring.ts'
import { sameTime } from './conflicts.ts'
import type { HeldRules } from './held-rules.ts'
import { sealOf } from './records.ts'
import type { ReadLogs } from './state.ts'

/** What a run tells while it goes on. */
export type RunEvent =
  | TransferEvent
  /** Before the first transfer: what is ahead. */
  | { readonly type: 'planned'; readonly files: number; readonly bytes: number; readonly skipped: number }
  | { readonly type: 'phase'; readonly text: string }
  /** Something that takes no part: left out by a rule, or no file, directory or link. */
  | { readonly type: 'ignored'; readonly path: string }
  /** A folder made, something moved or deleted; contents are told by `file-done`. */
  | { readonly type: 'step-done'; readonly do: string; readonly path: string; readonly from?: string }
  /** Both sides had changed; the local version is `copy` now. */
  | { readonly type: 'conflict'; readonly path: string; readonly copy: string }
  /** Of a watch: the run that has just ended did not do all that it could have; there is another one after this time. */
  | { readonly type: 'run-again'; readonly delayMs: number }

/** What runs work with; a client has one. */
export interface RunContext extends Omit<DownloadContext, 'onEvent' | 'keyring' | 'link'> {
  readonly keyring: Keyring
  readonly onEvent?: ((event: RunEvent) => void) | undefined
  /** Which rules of others somebody has accepted. Absent: all count. */
  readonly rules?: HeldRules
  /** Where runs keep what they remember. */
  readonly home?: Home
  /** What has been read of that, for one run after the other. */
  readonly read?: ReadLogs
  /** Tells when the server says that it is too busy; returns how to stop listening. */
  readonly onBusy?: ((listener: () => void) => () => void) | undefined
  /** How many requests the API may get at once. Absent: as many as there are by default. */
  readonly pace?: Pace | undefined
  /** Asks a person; absent: there is nobody. */
  readonly confirm?: ((question: string) => Promise<boolean>) | undefined
}

/** How much may be under way at once; it changes with what the server bears. */
export interface Pace {
  readonly most: number
  allowed(): number
  /** Told whenever that changes; returns how to stop listening. */
  onChange(listener: () => void): () => void
}

/** Private directory of all states, and whose they are. */
export interface StatePlace {
  readonly directory: string
  readonly account: string
}

/** Where the client keeps what runs remember; `undefined` when it keeps nothing. */
export async function stateOf(
  { home }: Pick<RunContext, 'home'>,
  signal: AbortSignal | undefined,
): Promise<StatePlace | undefined> {
  if (home === undefined || !home.isLasting) return undefined
  return { directory: home.states, account: await home.account(signal) }
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
export function memoryOf({ memory = DEFAULT_MEMORY }: { readonly memory?: number | undefined }): number {
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
  options: {
    readonly allowPlain?: boolean | undefined
    readonly requireEncryption?: boolean | undefined
    readonly dryRun?: boolean | undefined
  },
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
export function requireEncryptedSource(
  node: Pick<RemoteNode, 'isEncrypted'>,
  shown: string,
  options: { readonly requireEncryption?: boolean | undefined },
): void {
  if (options.requireEncryption !== true || node.isEncrypted === true) return
  throw new SyncError('safety', 'NOT_ENCRYPTED', `${shown} is not encrypted, and encryption is required`, {
    hint: 'If it was encrypted before, ask the administrator of its room what happened.',
  })
}

/** For runs that nobody can stop. */
export const never = new AbortController().signal

export const report = (context: RunContext, path: string, error: SyncError) =>
  context.onEvent?.({ type: 'file-failed', path, code: error.code, message: error.message })

/** What a content is told by that turned out to be the same on both sides. */
export interface SameContent {
  /** IV and tag, base64; of encrypted files. */
  readonly seal?: string
  /** Base64, if it was asked for. */
  readonly sha256?: string
}

/** True when a local file is what the node holds; see `compareContent`. */
export const isSameContent = async (...args: Parameters<typeof compareContent>): Promise<boolean> =>
  (await compareContent(...args)) !== undefined

/**
 * Compares a local file with what the node holds. For an encrypted file the tag is recomputed from the local plaintext; a plain one
 * can only be told by its time.
 *
 * @returns `undefined` when they differ.
 */
export async function compareContent(
  context: RunContext,
  node: RemoteNode,
  path: string,
  shown: string,
  signal: AbortSignal,
  { isHashed = false }: { readonly isHashed?: boolean } = {},
): Promise<SameContent | undefined> {
  const reader = await openStable(path, shown)
  try {
    if (reader.size !== node.size) return undefined
    const fileKey = await openFileKey(context, node, signal)
    if (fileKey === undefined) {
      const { timestampModification: time } = node
      return time !== undefined && sameTime(time, reader.modifiedAt) ? {} : undefined
    }
    try {
      const hash = isHashed ? createHash('sha256') : undefined
      const check = createContentCheck(fileKey)
      const take = (piece: Uint8Array) => {
        check.update(piece)
        hash?.update(piece)
      }
      await reader.each(take, signal)
      await reader.verify()
      if (!check.matches()) return undefined
      context.keyring.confirm(fileKey)
      return { seal: sealOf(fileKey), ...(hash === undefined ? {} : { sha256: hash.digest('base64') }) }
    } finally {
      fileKey.wipe()
    }
  } finally {
    await reader.close()
  }
}
