/** Recycle bins of rooms whose deleted files are kept for some days only. @module */
import type { App } from '../call.ts'
import { purge } from '../tree.ts'

const DAY_MS = 86_400_000
/** Of one unit of work: how many of a bin go. */
const AT_ONCE = 100

/** Rooms with something in their bins. */
function* roomsWithBins({ store }: App): Generator<number> {
  for (let after = 0; ; ) {
    // One key per room, then a jump to the next: the index is not read through.
    const [next] = [...store.bins.getKeys({ start: [after + 1, 0], limit: 1 })]
    if (next === undefined) return
    after = next[0]
    yield after
  }
}

/** Removes for good what was deleted longer ago than its room keeps it. Answers how many nodes. */
export async function sweepBins(app: App): Promise<number> {
  const { store, blobs } = app
  let removed = 0
  for (const roomId of roomsWithBins(app)) {
    const days = store.nodes.get(roomId)?.retentionDays ?? 0
    if (days === 0) continue
    const range = { start: [roomId, 0], end: [roomId + 1, 0] }
    const due = [...store.bins.getRange(range)].filter(({ value }) => value + days * DAY_MS < app.now())
    for (let at = 0; at < due.length; at += AT_ONCE) {
      const ids = due.slice(at, at + AT_ONCE).map(({ key }) => key[1])
      await store.write((tx) => {
        for (const id of ids) {
          const record = store.deleted.get(id)
          // Somebody may have taken it out meanwhile, or given the room more time.
          const kept = record === undefined ? 0 : (store.nodes.get(record.roomId)?.retentionDays ?? 0)
          if (record === undefined || kept === 0 || record.deletedAt + kept * DAY_MS >= app.now()) continue
          purge({ store, blobs, tx, userId: 0, now: app.now() }, record)
          removed++
        }
      })
    }
  }
  return removed
}
