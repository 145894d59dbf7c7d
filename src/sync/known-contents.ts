/**
 * What is remembered of contents, held against what a server delivers: another content under a known node, an older one under a
 * new node, or that of another file are not new versions. A newer version has a node of its own with a higher id, and a seal
 * that was never seen before.
 * @module
 */
import type { RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import type { SyncRecord } from './records.ts'

/** What is asked of a record. */
export interface KnownFile extends Pick<SyncRecord, 'kind' | 'path' | 'seal'> {
  readonly remote: Pick<SyncRecord['remote'], 'id' | 'size'>
  /** Permission bits, where they are known. */
  readonly mode?: number | undefined
}

/** What one pair remembers. */
export interface Remembered {
  /** As they are now. */
  readonly records: () => ReadonlyMap<string, KnownFile>
  /** Seals that newer ones have taken the place of, and where; see `SyncState.superseded`. */
  readonly superseded?: ReadonlyMap<string, string>
  /** False when nothing stands at a place on the server now; absent: unknown. */
  readonly isThere?: (key: string) => boolean
}

export interface KnownContents {
  /**
   * @param key - Of the place.
   * @param seal - IV and tag of what is about to be delivered; `undefined` for a plain file.
   * @throws {SyncError} `CONTENT_SWAPPED`, `CONTENT_SET_BACK` (class `integrity`).
   */
  judge(key: string, node: RemoteNode, seal: string | undefined): void
}

const hint =
  'The local file was left alone. Look at its versions on the server, and ask who has access to the room. If it is meant: sync pull … --accept-roots'

const swapped = (what: string) => new SyncError('integrity', 'CONTENT_SWAPPED', what, { hint })

const setBack = () =>
  new SyncError('integrity', 'CONTENT_SET_BACK', 'The server shows an older version than the one that is known', {
    hint,
  })

export function createKnownContents({
  records,
  superseded = new Map(),
  isThere = () => true,
}: Remembered): KnownContents {
  let places: Map<string, string> | undefined
  /** Where a seal is known to be; made when first asked, since most runs never ask. */
  const placeOf = (seal: string): string | undefined => {
    if (places === undefined) {
      places = new Map()
      for (const [key, { seal: one }] of records()) if (one !== undefined) places.set(one, key)
    }
    const place = places.get(seal)
    // The run goes on meanwhile.
    return place !== undefined && records().get(place)?.seal === seal ? place : undefined
  }
  /** True for content that is known to be somewhere, under this node. */
  const isLive = (seal: string, { id }: RemoteNode): boolean => {
    const from = placeOf(seal)
    return from !== undefined && records().get(from)?.remote.id === id
  }
  return {
    judge(key, node, seal) {
      const known = records().get(key)
      const record = known?.kind === 'file' ? known : undefined
      if (seal !== undefined && record?.seal === seal) return
      if (record === undefined) {
        // A new place may hold what another one held; what was here and is older may not come back unasked.
        if (seal !== undefined && superseded.get(seal) === key && !isLive(seal, node)) throw setBack()
        return
      }
      if (record.seal !== undefined && seal === undefined) throw swapped('The server shows it as not encrypted')
      if (record.remote.id === node.id) {
        const isOther = record.seal === undefined ? record.remote.size !== node.size : true
        if (isOther) throw swapped('The server has other content under this file than was stored there')
        return
      }
      // Something else may have taken its old place meanwhile: what is known to be somewhere is not out of date.
      const from = seal === undefined ? undefined : placeOf(seal)
      if (from !== undefined) {
        const { path, remote } = records().get(from)!
        // Something that was moved here over what was deleted is not where it was any more.
        if (remote.id === node.id && !isThere(from)) return
        throw swapped(`The server shows the content of ${path} here`)
      }
      if (seal !== undefined && superseded.has(seal)) throw setBack()
      if (node.id < record.remote.id) throw setBack()
    },
  }
}
