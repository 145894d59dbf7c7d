/** What there is state of: pairs of places, each with a directory of its own. @module */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { localError, systemCode, toSyncError } from '../../errors.ts'
import { readPrivateFile, writePrivateFile } from '../../local/atomic-file.ts'

/** What the state is about. */
export interface Pair {
  readonly account: string
  /** Absolute path. */
  readonly local: string
  /** As people write it: `/room/folder`. */
  readonly remote: string
  /** Of uploads and downloads, which remember no places. Local and remote are their sources, joined, and their target. */
  readonly transfer?: {
    readonly direction: 'upload' | 'download'
    readonly sources: readonly string[]
    /** What the only source, a file, is called in the target; absent: as it is. */
    readonly as?: string
  }
  /**
   * Of backup sets, which remember the places below their sources, and of restores of them, which remember none. Local are the sources,
   * joined, or where is restored to; remote is the target of the set.
   */
  readonly backup?: { readonly direction: 'backup' | 'restore'; readonly set: string }
}

/** True for what has a record for each place. */
export const remembersPlaces = ({ transfer, backup }: Pair): boolean =>
  transfer === undefined && backup?.direction !== 'restore'

/** True for what changes nothing on this disk. */
export const isFromHere = ({ transfer, backup }: Pair): boolean =>
  transfer?.direction === 'upload' || backup?.direction === 'backup'

/** The two places as people name them: a file under another name with that name. */
export function placesOfPair({ local, remote, transfer }: Pair): { readonly local: string; readonly remote: string } {
  const end = transfer?.as === undefined ? '' : `/${transfer.as}`
  return transfer?.direction === 'download'
    ? { local: `${local === '/' && end !== '' ? '' : local}${end}`, remote }
    : { local, remote: `${remote}${end}` }
}

/** Directory of the state of one pair. */
export function stateDirectory(directory: string, pair: Pair): string {
  const id = createHash('sha256').update(partsOf(pair).join('\0')).digest('hex')
  return `${directory}/${id.slice(0, 32)}`
}

/** What makes a pair another one, as one text. */
export const scopeOf = (pair: Pair): string => JSON.stringify(partsOf(pair))

function partsOf({ account, local, remote, transfer, backup }: Pair): string[] {
  if (transfer !== undefined) {
    const { direction, sources, as } = transfer
    return [account, direction, local, remote, ...sources, ...(as === undefined ? [] : ['', as])]
  }
  if (backup === undefined) return [account, local, remote]
  // The sources of a set may become others.
  return backup.direction === 'backup' ? [account, 'backup', remote] : [account, 'restore', local, remote]
}

/** Says what a directory of state is about. */
const PAIR_FILE = 'pair.json'

/** Writes down what a directory of state is about, unless that is there. */
export async function writePair(directory: string, pair: Pair): Promise<void> {
  const name = join(directory, PAIR_FILE)
  const isThere = existsSync(name)
  // A set without its sources is one that is only looked at.
  const isOther = isThere && isFromHere(pair) && pair.local !== '' && (await readPair(directory))?.local !== pair.local
  if (!isThere || isOther) await writePrivateFile(name, `${JSON.stringify(pair)}\n`)
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw localError(error, `look at ${directory}`)
  }
}

/**
 * All pairs that there is state of, for one account.
 *
 * @throws {SyncError} class `local_io`.
 */
export async function listPairs(directory: string, account: string): Promise<Pair[]> {
  const pairs: Pair[] = []
  for (const name of namesIn(directory)) {
    const pair = await readPair(join(directory, name))
    if (pair?.account === account) pairs.push(pair)
  }
  return pairs
}

/** What a directory of state is about; `undefined` for other directories. */
export async function readPair(directory: string): Promise<Pair | undefined> {
  const content = await readPrivateFile(join(directory, PAIR_FILE)).catch((error) => {
    // No pair, rather than one that the disk does not give.
    if (toSyncError(error).class !== 'local_io' || toSyncError(error).code === 'LOCAL_ENOTDIR') return undefined
    throw error
  })
  if (content === undefined) return undefined
  try {
    const { account, local, remote, transfer, backup } = JSON.parse(Buffer.from(content).toString('utf8'))
    if (typeof account !== 'string' || typeof local !== 'string' || typeof remote !== 'string') return undefined
    const kind = isTransfer(transfer) ? { transfer } : isBackup(backup) ? { backup } : {}
    return { account, local, remote, ...kind }
  } catch {
    return undefined // not one of ours, or damaged: its logs say what they are about by themselves
  }
}

const isTransfer = (value: unknown): value is NonNullable<Pair['transfer']> => {
  const { direction, sources, as } = (value ?? {}) as Partial<NonNullable<Pair['transfer']>>
  const isKnown = direction === 'upload' || direction === 'download'
  const isNamed = as === undefined || typeof as === 'string'
  return isKnown && isNamed && Array.isArray(sources) && sources.every((one) => typeof one === 'string')
}

const isBackup = (value: unknown): value is NonNullable<Pair['backup']> => {
  const { direction, set } = (value ?? {}) as Partial<NonNullable<Pair['backup']>>
  return (direction === 'backup' || direction === 'restore') && typeof set === 'string'
}
