/**
 * What this machine remembers of a backup set: the places below its sources like those of any pair (see state.ts), and in a file beside
 * that its runs: the manifests it has seen, by hash and node, so that a server that drops, swaps or rolls one back is noticed. Losing it
 * costs that notice and some comparisons, never content: see `rebuild` in plan.ts.
 * @module
 */
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { localError } from '../../errors.ts'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'
import { takeLock } from '../../local/lock.ts'
import { type RunContext, type StatePlace, stateOf } from '../run.ts'
import { lockOf, noMemory, tellDamaged } from '../run-job.ts'
import { openState, type Pair, type SyncState, stateDirectory } from '../state.ts'
import { isRunId, type RunNote, type SetPlace } from './set.ts'

/** A source as it was at the last run. Numbers of devices may change when a machine starts. */
export interface SourceRoot {
  readonly dev: number
  readonly ino: number
  readonly bornMs: number
}

/** What is remembered of the runs of a set. */
export interface SetMemory {
  readonly version: 1
  readonly set: string
  /** Node id of the target. */
  readonly targetId: number
  readonly sources: Readonly<Record<string, SourceRoot>>
  /** Oldest first; the last one is the pin. */
  readonly runs: readonly RunNote[]
  /** It is the set of a machine that can only write; see write-only.ts. */
  readonly isWriteOnly: boolean
  /** Of such a set: the manifest that was about to be sent. Nobody here can read afterwards what became of it. */
  readonly sending?: RunNote | undefined
  /** Runs whose manifests are being deleted: there or not, both is right. */
  readonly pruning: readonly string[]
}

/** A set as what is remembered of it is called. */
export const pairOfSet = (
  { account }: StatePlace,
  { name, target }: SetPlace,
  sources: readonly string[] = [],
): Pair => ({
  account,
  local: sources.join(' '),
  remote: target,
  backup: { direction: 'backup', set: name },
})

/** Directory of what is remembered of a set. */
export const setDirectory = (state: StatePlace, place: SetPlace): string =>
  stateDirectory(state.directory, pairOfSet(state, place))

/**
 * Where what is remembered of sets is kept.
 *
 * @throws {SyncError} `DIRECTORY_NEEDED`.
 */
export async function requireState(
  context: RunContext,
  { state, signal }: { readonly state?: StatePlace | undefined; readonly signal?: AbortSignal | undefined },
): Promise<StatePlace> {
  const place = state ?? (await stateOf(context, signal))
  if (place === undefined) throw noMemory()
  return place
}

const pathIn = (directory: string) => join(directory, 'set.json')

/**
 * What is remembered of the runs of a set.
 *
 * @param directory - See `setDirectory`.
 * @returns `undefined` when nothing is, or it cannot be used.
 */
export async function readMemory(directory: string): Promise<SetMemory | undefined> {
  const bytes = await readPrivateFile(pathIn(directory))
  return bytes && parseMemory(bytes)
}

/** As `readMemory`; puts aside what cannot be used, and says so. */
export async function openMemory(
  context: Pick<RunContext, 'clock' | 'onEvent'>,
  directory: string,
): Promise<SetMemory | undefined> {
  const path = pathIn(directory)
  const bytes = await readPrivateFile(path)
  const memory = bytes && parseMemory(bytes)
  if (bytes !== undefined && memory === undefined) {
    const keptAs = `${path}.corrupt-${context.clock.now()}`
    await rename(path, keptAs).catch((error) => {
      throw localError(error, `put the damaged file ${path} aside`)
    })
    tellDamaged(context, keptAs)
  }
  return memory
}

/** A memory that begins with what the server has. */
export const beginMemory = (
  { name }: SetPlace,
  targetId: number,
  old: SetMemory | undefined,
  notes: readonly RunNote[],
  isWriteOnly: boolean,
): SetMemory => ({
  version: 1,
  set: name,
  targetId,
  sources: old?.sources ?? {},
  runs: notes,
  isWriteOnly,
  pruning: [],
})

/** Resolves when it is durable. Whatever it says of places has to be durable before. */
export const writeMemory = (directory: string, memory: SetMemory): Promise<void> =>
  writePrivateFile(pathIn(directory), `${JSON.stringify(memory)}\n`)

/**
 * Does something with what is remembered of a set that nobody else may do at the same time.
 *
 * @throws {SyncError} `LOCKED` when another run or prune of the set is active for longer than `waitMs`.
 */
export async function withMemory<T>(
  context: RunContext,
  place: SetPlace,
  options: { readonly state: StatePlace; readonly waitMs?: number | undefined },
  signal: AbortSignal,
  work: (directory: string, memory: SetMemory | undefined, state: SyncState) => Promise<T>,
): Promise<T> {
  const { clock } = context
  const directory = setDirectory(options.state, place)
  const lock = await takeLock(lockOf(directory), { clock, waitMs: options.waitMs ?? 0, signal })
  try {
    const pair = pairOfSet(options.state, place)
    const state = await openState(directory, pair, clock.now(), (keptAs) => tellDamaged(context, keptAs))
    try {
      return await work(directory, await openMemory(context, directory), state)
    } finally {
      await state.close()
    }
  } finally {
    await lock.release()
  }
}

/** Our own file, written whole or not at all: only damage by others could make it senseless. */
function parseMemory(bytes: Uint8Array): SetMemory | undefined {
  try {
    const memory: SetMemory = JSON.parse(Buffer.from(bytes).toString('utf8'))
    const isWhole =
      memory.version === 1 &&
      Number.isSafeInteger(memory.targetId) &&
      typeof memory.sources === 'object' &&
      typeof memory.isWriteOnly === 'boolean' &&
      Array.isArray(memory.pruning) &&
      memory.runs.every(({ run, sha256 }) => isRunId(run) && typeof sha256 === 'string')
    return isWhole ? memory : undefined
  } catch {
    return undefined
  }
}
