/** What runs keep of what they did, where less is kept than of a pair. @module */
import { randomBytes } from 'node:crypto'
import type { Pair, SyncState } from './state.ts'

/** What a run remembers, and is remembered by. */
export type Memory = SyncState

/** For runs that only tell what they did, and know nothing of the ones before: places have no records. */
export function withoutRecords(state: SyncState): Memory {
  const none = memoryOfNothing(state.pair)
  const { beginRun, endRun, runs, addDeed, dropDeed, deeds, flush, close } = state
  return { ...none, beginRun, endRun, runs, addDeed, dropDeed, deeds, flush, close }
}

/** For runs of which nothing is kept. */
export function memoryOfNothing(pair: Pair): Memory {
  const nothing = () => {}
  const done = async () => {}
  return {
    pair,
    roots: undefined,
    listed: undefined,
    isAsListed: false,
    isSettingAttributes: false,
    manifest: undefined,
    records: () => new Map(),
    current: () => new Map(),
    superseded: () => new Map(),
    readmitted: () => new Set(),
    rebase: nothing,
    put: nothing,
    remove: nothing,
    readmit: nothing,
    setRoots: nothing,
    setListed: nothing,
    setAttributesBegun: nothing,
    setManifest: nothing,
    beginRun: ({ id }) => id ?? randomBytes(8).toString('hex'),
    endRun: nothing,
    runs: () => [],
    addDeed: () => 0,
    dropDeed: nothing,
    deeds: () => [],
    flush: done,
    close: done,
  }
}
