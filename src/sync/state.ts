/**
 * What is remembered of one synchronized pair of a local and a remote directory: a record per place, and the history of runs.
 * Two logs with checksums in a directory per account, local root and remote path; they are read at the start, added to while a
 * run goes on, and written anew when most of them is out of date.
 *
 * Losing it costs comparisons, never files: without records nothing is deleted and nothing is replaced.
 * @module
 */
import { join } from 'node:path'
import { type Pair, scopeOf, writePair } from './state/pairs.ts'
import { openRecordLog, type ReadLogs, type RecordMemory } from './state/record-log.ts'
import { openRunLog, type RunLog, type RunMemory } from './state/run-log.ts'

export {
  isFromHere,
  listPairs,
  type Pair,
  placesOfPair,
  readPair,
  remembersPlaces,
  stateDirectory,
} from './state/pairs.ts'
export type { ManifestPin, ReadLogs, Roots } from './state/record-log.ts'
export type { Deed, LocalMark, Origin, RunRecord } from './state/run-log.ts'

export interface SyncState extends RecordMemory, RunMemory {
  readonly pair: Pair
  /** Resolves when everything up to now is durable. */
  flush(): Promise<void>
  /** Tidies up and closes. */
  close(): Promise<void>
}

/**
 * Opens the state in a private directory, or begins one.
 *
 * @param onDamaged - Told where what could not be used was put.
 * @param known - What has been read before; see `openRecordLog`.
 */
export async function openState(
  directory: string,
  pair: Pair,
  now: number,
  onDamaged: (keptAs: string) => void,
  known?: ReadLogs,
): Promise<SyncState> {
  const scope = scopeOf(pair)
  await writePair(directory, pair)
  const records = await openRecordLog(join(directory, 'records'), scope, onDamaged, now, known)
  let runs: RunLog
  try {
    runs = await openRunLog(join(directory, 'runs'), scope, records.settle, onDamaged, now)
  } catch (error) {
    await records.close(false)
    throw error
  }
  return Object.assign(records.memory, runs.memory, {
    pair,
    async flush() {
      records.settle()
      await records.sync()
      await runs.sync()
    },
    async close() {
      const isWritten = records.isWritten || runs.isWritten
      await records.close(isWritten)
      await runs.close(isWritten)
      // Tells what could not be written.
      records.settle()
    },
  })
}
