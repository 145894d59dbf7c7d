/**
 * The recycle bin of a room: what was deleted or overwritten, bringing it back, and getting rid of it.
 * @module
 */
import { type Access, CREATE, DELETE_BIN, READ_BIN, RESTORE_BIN } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, noContent, ok, type Reply } from '../call.ts'
import { ApiError, badRequest, forbidden, nodeNotFound } from '../errors.ts'
import { type DeletedRecord, FILE, NODE_TYPES, type NodeRecord, ROOM, type ShareRecord } from '../records.ts'
import { attachShares, detachShares } from '../shares.ts'
import { binOf, purge, restoreNode, settleName } from '../tree.ts'
import { checkQuota } from '../uploads.ts'
import {
  checkName,
  conflictStrategy,
  idList,
  optionalBoolean,
  optionalInteger,
  pageOf,
  pageReply,
} from '../validate.ts'
import { dateView, userInfo, type Wire } from '../view.ts'
import { containerOf } from './nodes.ts'

const notFound = (): ApiError => new ApiError(404, -41100, 'Deleted node not found')

function binRoom(call: Call, access: Access, bits: number): NodeRecord {
  const room = access.node(call.id())
  if (room.type !== ROOM) throw nodeNotFound()
  access.require(room, bits)
  return room
}

/** A deleted node of a room the caller is in. */
function deletedNode(call: { app: Call['app'] }, access: Access, id: number, bits: number): DeletedRecord {
  const record = call.app.store.deleted.get(id)
  if (record === undefined || access.bits(record.roomId) === 0) throw notFound()
  access.require(record, bits)
  return record
}

function summarise(records: readonly DeletedRecord[]): Wire[] {
  const groups = new Map<string, DeletedRecord[]>()
  for (const record of records) {
    const key = `${record.parentPath}${record.type}${record.name}`
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [record])
    else group.push(record)
  }
  return [...groups.values()].map((group) => {
    const sorted = [...group].sort((a, b) => a.deletedAt - b.deletedAt || a.id - b.id)
    const [first, last] = [sorted[0], sorted.at(-1)]
    if (first === undefined || last === undefined) throw notFound()
    const summary: Wire = {
      parentId: last.parentId,
      parentPath: last.parentPath,
      name: last.name,
      type: NODE_TYPES[last.type],
      cntVersions: group.length,
      firstDeletedAt: dateView(first.deletedAt),
      lastDeletedAt: dateView(last.deletedAt),
      lastDeletedNodeId: last.id,
    }
    if (last.timestampCreation !== undefined) summary.timestampCreation = dateView(last.timestampCreation)
    if (last.timestampModification !== undefined) summary.timestampModification = dateView(last.timestampModification)
    return summary
  })
}

function listDeleted(call: Call): Reply {
  const room = binRoom(call, call.access, READ_BIN)
  return ok(pageReply(summarise(binOf(call.app.store, room.id)), pageOf(call.query)))
}

function listVersions(call: Call): Reply {
  const { store } = call.app
  const room = binRoom(call, call.access, READ_BIN)
  const [name, type] = [call.query.get('name'), call.query.get('type')]
  if (name === null || type === null) throw badRequest(-80000, 'name and type are mandatory')
  const wanted = checkName(name)
  const records = binOf(store, room.id)
    .filter((record) => record.name === wanted && NODE_TYPES[record.type] === type)
    .sort((a, b) => b.deletedAt - a.deletedAt || b.id - a.id)
  const reply = pageReply(records, pageOf(call.query))
  return ok({ range: reply.range, items: reply.items.map((record) => deletedView(call, record)) })
}

function deletedView({ app }: Call, record: DeletedRecord): Wire {
  return {
    id: record.id,
    parentId: record.parentId,
    parentPath: record.parentPath,
    type: NODE_TYPES[record.type],
    name: record.name,
    size: record.size,
    isEncrypted: record.encrypted,
    classification: record.classification ?? 2,
    ...(record.notes === undefined ? {} : { notes: record.notes }),
    ...(record.type === FILE ? { referenceId: record.referenceId ?? record.id } : {}),
    ...(record.timestampModification === undefined
      ? {}
      : { timestampModification: dateView(record.timestampModification) }),
    createdAt: dateView(record.createdAt),
    createdBy: userInfo(app.store, record.createdBy),
    updatedAt: dateView(record.updatedAt),
    updatedBy: userInfo(app.store, record.updatedBy),
    deletedAt: dateView(record.deletedAt),
    deletedBy: userInfo(app.store, record.deletedBy),
  }
}

async function restore(call: Call): Promise<Reply> {
  void call.user
  const body = await call.json()
  const ids = [...new Set(idList(body, 'deletedNodeIds'))]
  const strategy = conflictStrategy(body)
  const keepShareLinks = optionalBoolean(body, 'keepShareLinks') === true
  const parentId = optionalInteger(body, 'parentId')
  await call.change((change, access) => {
    for (const id of ids) {
      const record = deletedNode(call, access, id, RESTORE_BIN)
      const parent = containerOf(access, parentId ?? record.parentId)
      access.require(parent, CREATE)
      checkTarget(record, parent)
      checkQuota(change.store, parent, record.size)
      let kept: ShareRecord[] = []
      const name = settleName(change, parent.id, record.name, record.type, strategy, (existing) => {
        if ((access.bits(existing.roomId) & CREATE) === 0) throw forbidden()
        if (keepShareLinks) kept = detachShares(change, existing)
      })
      attachShares(change, restoreNode(change, record, parent, name).id, kept)
    }
  })
  return noContent()
}

function checkTarget(record: DeletedRecord, parent: NodeRecord): void {
  if (record.encrypted && record.roomId !== parent.roomId) {
    throw badRequest(-40013, 'Encrypted files can be restored into their own room only')
  }
  if (!record.encrypted && parent.encrypted) throw badRequest(-40002, 'Target room is encrypted')
}

async function purgeSome(call: Call): Promise<Reply> {
  void call.user
  const ids = [...new Set(idList(await call.json(), 'deletedNodeIds'))]
  await call.change((change, access) => {
    const records = ids.map((id) => deletedNode(call, access, id, DELETE_BIN))
    for (const record of records) purge(change, record)
  })
  return noContent()
}

async function empty(call: Call): Promise<Reply> {
  await call.change((change, access) => {
    const room = binRoom(call, access, DELETE_BIN)
    for (const record of binOf(change.store, room.id)) purge(change, record)
  })
  return noContent()
}

export const recycleBinRoutes: RouteTable = {
  'GET /v4/nodes/:id/deleted_nodes': listDeleted,
  'GET /v4/nodes/:id/deleted_nodes/versions': listVersions,
  'DELETE /v4/nodes/:id/deleted_nodes': empty,
  'GET /v4/nodes/deleted_nodes/:id': (call) =>
    ok(deletedView(call, deletedNode(call, call.access, call.id('id', notFound), READ_BIN))),
  'POST /v4/nodes/deleted_nodes/actions/restore': restore,
  'DELETE /v4/nodes/deleted_nodes': purgeSome,
}
