/**
 * What this machine remembers of a backup set, in a private directory: the manifests it has seen, by hash and node, so that a
 * server that drops, swaps or rolls one back is noticed; and for each file the state it was in when its content was sent, so
 * that nothing is read or sent twice. Losing it costs that notice and some comparisons, never content: see `rebuild` in run.ts.
 * @module
 */
import { createHash } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { localError } from '../../errors.ts'
import { openAppendLog } from '../../local/append-log.ts'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'
import { takeLock } from '../../local/lock.ts'
import { sweepDirectory } from '../../local/partial-file.ts'
import type { LocalIdentity } from '../records.ts'
import type { RunContext } from '../run.ts'
import { keyOf } from '../scan.ts'
import type { FileEntry } from './manifest.ts'
import { componentsOf, isRunId, type RunNote, type SetPlace } from './set.ts'

export interface Known {
  readonly entry: FileEntry
  /** Absent: not compared on this machine yet. */
  readonly local?: LocalIdentity | undefined
}

/** A source as it was at the last run. Numbers of devices may change when a machine starts. */
export interface SourceRoot {
  readonly dev: number
  readonly ino: number
  readonly bornMs: number
}

export interface SetMemory {
  readonly version: 1
  readonly set: string
  /** Node id of the target. */
  readonly targetId: number
  readonly sources: Readonly<Record<string, SourceRoot>>
  /** Oldest first; the last one is the pin. */
  readonly runs: readonly RunNote[]
  /** Runs whose manifests are being deleted: there or not, both is right. */
  readonly pruning: readonly string[]
}

export interface BackupState {
  readonly directory: string
  readonly memory: SetMemory | undefined
  /** By key of place, as they are now. */
  readonly files: ReadonlyMap<string, Known>
  put(known: Known): void
  remove(path: string): void
  /** Resolves when it, and everything before it, is durable. */
  setMemory(memory: SetMemory): Promise<void>
  /** Tidies up and closes. */
  close(): Promise<void>
}

export interface StatePlace {
  /** Private directory of all states, and whose they are. */
  readonly directory: string
  readonly account: string
}

/** Directory of the state of one set. */
export function backupDirectory({ directory, account }: StatePlace, { target }: SetPlace): string {
  const id = createHash('sha256').update([account, target].join('\0')).digest('hex')
  return join(directory, id.slice(0, 32))
}

export const lockOf = (directory: string): string => join(directory, 'lock')

const MEMORY = 'set.json'
/** One record per line: `put` or `drop`. */
const FILES = 'files'
/** The log is written anew when it has more than this many lines that do not count any more, and more than that count. */
const WORTH_TIDYING = 1000

export const keyOfPath = (path: string): string => keyOf(componentsOf(path))

interface Line {
  readonly put?: Known
  /** A path. */
  readonly drop?: string
}

/** Opens the state for a run, or begins one. What cannot be used is put aside, and `onDamaged` told where. */
async function openBackupState(
  directory: string,
  now: number,
  onDamaged: (keptAs: string) => void,
): Promise<BackupState> {
  const path = join(directory, MEMORY)
  const bytes = await readPrivateFile(path)
  let memory = bytes && parseMemory(bytes)
  if (bytes !== undefined && memory === undefined) {
    const keptAs = `${path}.corrupt-${now}`
    await rename(path, keptAs).catch((error) => {
      throw localError(error, `put the damaged file ${path} aside`)
    })
    onDamaged(keptAs)
  }
  const files = new Map<string, Known>()
  let stale = 0
  const accept = (lines: Iterable<unknown>): boolean => {
    let count = 0
    for (const { put, drop } of lines as Iterable<Line>) {
      count++
      const name = put?.entry?.path ?? drop
      if (typeof name !== 'string') return false
      if (put === undefined) files.delete(keyOfPath(name))
      else files.set(keyOfPath(name), put)
    }
    stale = count - files.size
    return true
  }
  const log = await openAppendLog(join(directory, FILES), 'backup', accept, onDamaged, now)
  return {
    directory,
    get memory() {
      return memory
    },
    files,
    put(known) {
      if (files.has(keyOfPath(known.entry.path))) stale++
      files.set(keyOfPath(known.entry.path), known)
      log.append({ put: known })
    },
    remove(name) {
      if (!files.delete(keyOfPath(name))) return
      stale += 2
      log.append({ drop: name })
    },
    async setMemory(next) {
      await log.sync()
      await writePrivateFile(path, `${JSON.stringify(next)}\n`)
      memory = next
    },
    async close() {
      if (stale > WORTH_TIDYING && stale > files.size) {
        await log.replace([...files.values()].map((put) => ({ put })))
      } else {
        await log.sync()
        await log.close()
      }
    },
  }
}

/**
 * Does something with the state of a set that nobody else may do at the same time.
 *
 * @throws {SyncError} `LOCKED` when another run or prune of the set is active for longer than `waitMs`.
 */
export async function withState<T>(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  place: SetPlace,
  options: { readonly state: StatePlace; readonly waitMs?: number },
  signal: AbortSignal,
  work: (state: BackupState) => Promise<T>,
): Promise<T> {
  const { clock } = context
  const directory = backupDirectory(options.state, place)
  const lock = await takeLock(lockOf(directory), { clock, waitMs: options.waitMs ?? 0, signal })
  try {
    await sweepDirectory(directory, clock)
    const state = await openBackupState(directory, clock.now(), (keptAs) =>
      context.onEvent?.({
        type: 'warning',
        code: 'STATE_DAMAGED',
        message: `The state was damaged; it was put aside as ${keptAs}`,
      }),
    )
    try {
      return await work(state)
    } finally {
      await state.close()
    }
  } finally {
    await lock.release()
  }
}

/**
 * What is remembered of a set, for commands that only read.
 *
 * @returns `undefined` when nothing is, or it cannot be used.
 */
export async function readMemory(directory: string): Promise<SetMemory | undefined> {
  const bytes = await readPrivateFile(join(directory, MEMORY))
  return bytes && parseMemory(bytes)
}

/** Our own file, written whole or not at all: only damage by others could make it senseless. */
function parseMemory(bytes: Uint8Array): SetMemory | undefined {
  try {
    const memory: SetMemory = JSON.parse(Buffer.from(bytes).toString('utf8'))
    const isWhole =
      memory.version === 1 &&
      Number.isSafeInteger(memory.targetId) &&
      typeof memory.sources === 'object' &&
      Array.isArray(memory.pruning) &&
      memory.runs.every(({ run, sha256 }) => isRunId(run) && typeof sha256 === 'string')
    return isWhole ? memory : undefined
  } catch {
    return undefined
  }
}
