/**
 * The audit log: who did what to which node, and to the server itself. Rows are written in the unit of work that does what they tell, so
 * that neither is there without the other; the oldest make way. What a room's members get to see of it is kept beside it, see tree.ts.
 * @module
 */
import type { AuditRecord } from './records.ts'
import type { Store, Tx } from './store.ts'

/** So many rows are kept. */
export const AUDIT_KEPT = 1_000_000

/** What was done; who, when and where from comes with the change. */
export interface Deed {
  operation: string
  message: string
  /** 2: it was refused. */
  status?: 0 | 2
  nodeId?: number
  roomId?: number
}

/** Who writes, and when. */
export interface Actor {
  store: Store
  tx: Tx
  userId: number
  now: number
  address?: string
}

/** Writes one row; only inside a unit of work. Answers its number. */
export function audit({ store, tx, userId, now, address }: Actor, { message, status = 0, ...deed }: Deed): number {
  const id = store.nextId(tx, 'event')
  const from = address === undefined ? {} : { address }
  tx.put(store.audit, id, { id, time: now, userId, status, message: message.slice(0, 1_000), ...deed, ...from })
  if (id > AUDIT_KEPT) tx.remove(store.audit, id - AUDIT_KEPT)
  return id
}

/** Which rows are wanted. Times are milliseconds since the epoch, both included. */
export interface AuditQuery {
  from?: number | undefined
  until?: number | undefined
  userId?: number | undefined
  operation?: string | undefined
  status?: number | undefined
  /** Rows with higher numbers only. */
  after?: number | undefined
}

const wanted = (row: AuditRecord, { from, until, userId, operation, status }: AuditQuery): boolean =>
  (from === undefined || row.time >= from) &&
  (until === undefined || row.time <= until) &&
  (userId === undefined || row.userId === userId) &&
  (operation === undefined || row.operation === operation) &&
  (status === undefined || row.status === status)

/** Rows looked at before other requests get a turn. */
const SLICE = 1_000

/** Rows of the log in slices, because a cursor must not stay open across turns of the event loop. */
async function* slices(store: Store, after: number, newestFirst: boolean): AsyncGenerator<AuditRecord[]> {
  let at = newestFirst ? Number.MAX_SAFE_INTEGER : after + 1
  for (;;) {
    const range = newestFirst
      ? { start: at, end: after, reverse: true, limit: SLICE }
      : { start: at, end: Number.MAX_SAFE_INTEGER, limit: SLICE }
    const rows = [...store.audit.getRange(range)].map(({ value }) => value)
    yield rows
    const last = rows.at(-1)
    if (last === undefined || rows.length < SLICE) return
    at = newestFirst ? last.id - 1 : last.id + 1
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/**
 * A page of the log.
 *
 * @returns the rows, and how many there are as far as was looked: knowing that there is more is enough.
 */
export async function auditRows(
  store: Store,
  query: AuditQuery,
  { offset, limit }: { offset: number; limit: number },
  newestFirst: boolean,
): Promise<{ total: number; rows: AuditRecord[] }> {
  const rows: AuditRecord[] = []
  let total = 0
  for await (const slice of slices(store, query.after ?? 0, newestFirst)) {
    for (const row of slice) {
      if (!wanted(row, query)) continue
      if (total >= offset && rows.length < limit) rows.push(row)
      if (++total > offset + limit) return { total, rows }
    }
  }
  return { total, rows }
}
