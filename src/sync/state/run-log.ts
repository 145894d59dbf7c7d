/** The log of runs, and of what they did. @module */
import { randomBytes } from 'node:crypto'
import { openAppendLog } from '../../local/append-log.ts'
import type { RemoteIdentity } from '../records.ts'

/** One run, for `sync runs`, `retry` and `undo`. Times are milliseconds since the epoch. */
export interface RunRecord {
  readonly id: string
  readonly command: string
  /** What it was told, as far as another run needs it to do the same. */
  readonly options?: Readonly<Record<string, unknown>>
  readonly startedAt: number
  readonly endedAt?: number
  /** Absent: running, or killed. */
  readonly outcome?: 'done' | 'partial' | 'conflicts' | 'stopped'
  /** What stopped it. */
  readonly error?: { readonly code: string; readonly message: string }
  readonly counts?: Readonly<Record<string, number>>
  readonly failed?: readonly { readonly path: string; readonly code: string; readonly message: string }[]
}

/** A file on this disk as it was before something was done to it. */
export interface LocalMark {
  readonly ino: number
  readonly size: number
  readonly mtimeMs: number
}

/** What a file was made from: a node, and IV and tag of its content. */
export interface Origin {
  readonly node: RemoteIdentity
  readonly seal?: string | undefined
}

/**
 * What a run did at one place, as far as it can be undone. What is done on this disk is written down before, so that a run that
 * was killed is understood by the next one (see recovery.ts); what is done at the server, after.
 */
export type Deed =
  | { readonly do: 'created-remote'; readonly path: string; readonly id: number; readonly isFolder: boolean }
  | { readonly do: 'replaced-remote'; readonly path: string; readonly id: number; readonly oldId: number }
  | { readonly do: 'deleted-remote'; readonly path: string; readonly id: number; readonly isFolder: boolean }
  | { readonly do: 'moved-remote'; readonly path: string; readonly from: string; readonly id: number }
  | { readonly do: 'created-local'; readonly path: string; readonly isDirectory: boolean; readonly origin?: Origin }
  | {
      readonly do: 'replaced-local'
      readonly path: string
      readonly bin: string
      readonly was: LocalMark
      readonly origin: Origin
    }
  | { readonly do: 'deleted-local'; readonly path: string; readonly bin?: string; readonly was: LocalMark }
  /** `via`: the name it has for a moment where a file system takes both names for one. */
  | {
      readonly do: 'moved-local'
      readonly path: string
      readonly from: string
      readonly via?: string
      /** It made way: what is remembered of the place is not about it any more. */
      readonly isAside?: boolean
      readonly was: LocalMark
    }
  | { readonly do: 'linked-local'; readonly path: string; readonly target: string }

/** What is remembered of runs; see `SyncState`. */
export interface RunMemory {
  /** @param run.id - Default: a new one. */
  beginRun(run: Omit<RunRecord, 'id'> & { readonly id?: string | undefined }): string
  endRun(id: string, end: Omit<RunRecord, 'id' | 'command' | 'startedAt'>): void
  runs(): RunRecord[]
  /** @returns its number among those of the run. */
  addDeed(runId: string, deed: Deed): number
  /** A deed that has been taken back, or never came to be. */
  dropDeed(runId: string, number: number): void
  /** In order; without those that were dropped. */
  deeds(runId: string): { readonly number: number; readonly deed: Deed }[]
}

/** Runs that are remembered. */
const KEPT_RUNS = 200

/** One line of the log of runs. */
interface RunLine {
  readonly run?: RunRecord
  readonly deed?: Deed
  /** Number of a deed that does not count any more. */
  readonly dropped?: number
  /** Run of the deed. */
  readonly of?: string
}

export interface RunLog {
  readonly memory: RunMemory
  readonly isWritten: boolean
  sync(): Promise<void>
  /** @param mayTidy - The log may be written anew. */
  close(mayTidy: boolean): Promise<void>
}

/**
 * @param settle - Called before each line: what was remembered before it is on the disk before it.
 * @param onDamaged - Told where a log that could not be used was put.
 */
export async function openRunLog(
  path: string,
  scope: string,
  settle: () => void,
  onDamaged: (keptAs: string) => void,
  now: number,
): Promise<RunLog> {
  const runs = new Map<string, RunRecord>()
  const deeds = new Map<string, (Deed | undefined)[]>()
  const deedsOf = (runId: string): (Deed | undefined)[] => {
    let list = deeds.get(runId)
    if (list === undefined) {
      list = []
      deeds.set(runId, list)
    }
    return list
  }
  const accept = (lines: Iterable<unknown>): boolean => {
    for (const { run, deed, dropped, of } of lines as Iterable<RunLine>) {
      if (run !== undefined) runs.set(run.id, run)
      if (of !== undefined && deed !== undefined) deedsOf(of).push(deed)
      if (of !== undefined && dropped !== undefined) deedsOf(of)[dropped] = undefined
    }
    return true
  }
  const log = await openAppendLog(path, scope, accept, onDamaged, now)
  let isWritten = false
  function write(line: RunLine): void {
    settle()
    isWritten = true
    log.append(line)
  }
  function* lines(): Generator<RunLine> {
    for (const run of [...runs.values()].slice(-KEPT_RUNS)) {
      yield { run }
      for (const deed of deeds.get(run.id) ?? []) if (deed !== undefined) yield { of: run.id, deed }
    }
  }
  const memory: RunMemory = {
    beginRun(run) {
      const stamp = new Date(run.startedAt).toISOString().replace(/[-:]|\.\d+/g, '')
      const id = run.id ?? `${stamp}-${randomBytes(3).toString('hex')}`
      const begun = { ...run, id }
      runs.set(id, begun)
      write({ run: begun })
      return id
    },
    endRun(id, end) {
      const ended = { ...runs.get(id)!, ...end }
      runs.set(id, ended)
      write({ run: ended })
    },
    runs: () => [...runs.values()].reverse(),
    addDeed(runId, deed) {
      write({ of: runId, deed })
      return deedsOf(runId).push(deed) - 1
    },
    dropDeed(runId, number) {
      write({ of: runId, dropped: number })
      deedsOf(runId)[number] = undefined
    },
    deeds: (runId) =>
      (deeds.get(runId) ?? []).flatMap((deed, number) => (deed === undefined ? [] : [{ number, deed }])),
  }
  return {
    memory,
    get isWritten() {
      return isWritten
    },
    sync: () => log.sync(),
    close: (mayTidy) => (mayTidy && runs.size > 2 * KEPT_RUNS ? log.replace(lines()) : log.close()),
  }
}
