/** The audit log through the API, for administrators; what is in it is ../audit.ts. @module */
import { auditRows } from '../audit.ts'
import { type Call, ok, type Reply, type RouteTable } from '../call.ts'
import type { AuditRecord } from '../records.ts'
import { pageOf } from '../validate.ts'
import { dateOf, dateView, type Wire } from '../view.ts'
import { administratorOf } from './roles.ts'

/** What is noted, by its number in the API. New ones go to the end. */
export const LOG_OPERATIONS = [
  'user.login',
  'user.create',
  'user.change',
  'user.password',
  'user.disable',
  'user.enable',
  'user.role',
  'user.quota',
  'user.delete',
  'group.create',
  'group.change',
  'group.members',
  'group.delete',
  'client.create',
  'client.delete',
  'room.create',
  'room.rename',
  'room.change',
  'room.members',
  'room.delete',
  'folder.create',
  'folder.rename',
  'folder.move',
  'folder.delete',
  'folder.restore',
  'folder.purge',
  'file.create',
  'file.rename',
  'file.move',
  'file.delete',
  'file.restore',
  'file.purge',
  'file.download',
  'downloadshare.create',
  'uploadshare.create',
  'uploadshare.used',
] as const

/** Number of an operation; 0 for what has none. */
const numberOf = (operation: string): number => (LOG_OPERATIONS as readonly string[]).indexOf(operation) + 1

function eventView({ app: { store } }: Call, row: AuditRecord): Wire {
  const operationId = numberOf(row.operation)
  return {
    id: row.id,
    time: dateView(row.time),
    userId: row.userId,
    userName: row.userId === 0 ? 'administrator' : (store.users.get(row.userId)?.name ?? 'deleted'),
    message: row.message,
    operationName: row.operation,
    ...(operationId === 0 ? {} : { operationId }),
    status: row.status,
    customerId: 1,
    ...(row.address === undefined ? {} : { userIp: row.address }),
    ...(row.nodeId === undefined ? {} : { objectId1: row.nodeId }),
    ...(row.roomId === undefined || row.roomId === row.nodeId ? {} : { authParentSource: String(row.roomId) }),
  }
}

async function events(call: Call): Promise<Reply> {
  administratorOf(call)
  const { query, app } = call
  const page = pageOf(query)
  const type = call.queryId('type')
  const status = call.queryId('status')
  const newestFirst = query.get('sort') !== 'time:asc'
  const wanted = {
    from: dateOf(query.get('date_start')),
    until: dateOf(query.get('date_end')),
    userId: call.queryId('user_id'),
    operation: type === undefined ? undefined : (LOG_OPERATIONS[type - 1] ?? ''),
    status,
  }
  const { rows, total } = await auditRows(app.store, wanted, page, newestFirst)
  return ok({ range: { ...page, total }, items: rows.map((row) => eventView(call, row)) })
}

export const eventLogRoutes: RouteTable = {
  'GET /v4/eventlog/events': events,
  'GET /v4/eventlog/operations': (call) => {
    administratorOf(call)
    const operationList = LOG_OPERATIONS.map((name, index) => ({ id: index + 1, name, isDeprecated: false }))
    return ok({ operationList })
  },
}
