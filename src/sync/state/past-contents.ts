/** Which contents were where before: a server that shows one of them again has gone back to it, or swaps files. @module */
import type { SyncRecord } from '../records.ts'

/** Contents that are remembered after newer ones have taken their places. */
const KEPT_SUPERSEDED = 100_000
/** Entries per line of a log that is written anew. */
const ENTRIES_PER_LINE = 512

/** What a line of the log says of them. */
export interface PastLine {
  /** Seals and keys; in a log that was written anew. */
  readonly superseded?: readonly (readonly [seal: string, key: string])[]
  /** What was there last, of places that are gone: keys and seals. */
  readonly gone?: readonly (readonly [key: string, seal: string])[]
  readonly readmit?: readonly string[]
}

export function createPast() {
  const superseded = new Map<string, string>()
  /** Last contents of places that have no record. */
  const gone = new Map<string, string>()
  const readmitted = new Set<string>()
  const add = (map: Map<string, string>, name: string, value: string) => {
    // The oldest goes first.
    map.delete(name)
    map.set(name, value)
    if (map.size > KEPT_SUPERSEDED) for (const [oldest] of map) return void map.delete(oldest)
  }
  return {
    superseded: superseded as ReadonlyMap<string, string>,
    readmitted: readmitted as ReadonlySet<string>,
    put(key: string, before: SyncRecord | undefined, { seal }: SyncRecord): void {
      // Nearly always there is nothing in them, and this is done for each of a million records.
      const last = before?.seal ?? (gone.size > 0 ? gone.get(key) : undefined)
      if (last !== undefined && last !== seal) add(superseded, last, key)
      if (gone.size > 0) gone.delete(key)
      if (readmitted.size > 0) readmitted.delete(key)
      if (superseded.size > 0 && seal !== undefined) superseded.delete(seal)
    },
    drop(key: string, before: SyncRecord | undefined): void {
      if (before?.seal !== undefined) add(gone, key, before.seal)
    },
    readmit(keys: readonly string[]): void {
      for (const key of keys) {
        gone.delete(key)
        readmitted.add(key)
      }
      for (const [seal, key] of superseded) if (readmitted.has(key)) superseded.delete(seal)
    },
    clear(): void {
      superseded.clear()
      gone.clear()
      readmitted.clear()
    },
    load(line: PastLine): void {
      for (const [seal, key] of line.superseded ?? []) add(superseded, seal, key)
      for (const [key, seal] of line.gone ?? []) add(gone, key, seal)
      if (line.readmit !== undefined) this.readmit(line.readmit)
    },
    *lines(): Generator<PastLine> {
      for (let all = [...superseded]; all.length > 0; ) yield { superseded: all.splice(0, ENTRIES_PER_LINE) }
      for (let all = [...gone]; all.length > 0; ) yield { gone: all.splice(0, ENTRIES_PER_LINE) }
      if (readmitted.size > 0) yield { readmit: [...readmitted] }
    },
  }
}
