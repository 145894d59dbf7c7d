/**
 * Nodes in general, folders, and attributes of files: list, search, read, create, rename, delete, move, copy.
 * @module
 */
import { type Access, CHANGE, CREATE, DELETE, MANAGE, READ } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, created, noContent, ok, type Reply } from '../call.ts'
import { ApiError, badRequest, forbidden, nodeNotFound } from '../errors.ts'
import { type Listing, listChildren, searchNodes } from '../listing.ts'
import { FILE, FOLDER, KEY_VERSIONS, NODE_TYPES, type NodeRecord, ROOM, type ShareRecord } from '../records.ts'
import { attachShares, detachShares } from '../shares.ts'
import type { Store } from '../store.ts'
import { type Change, copyNode, createNode, deleteNode, moveNode, settleName, touch, updateNode } from '../tree.ts'
import { checkQuota } from '../uploads.ts'
import {
  asFields,
  type ConflictStrategy,
  checkName,
  checkPathLength,
  conflictStrategy,
  type Fields,
  field,
  idList,
  optionalArray,
  optionalBoolean,
  optionalClassification,
  optionalExpiration,
  optionalNotes,
  optionalTime,
  type Page,
  pageOf,
  requiredInteger,
} from '../validate.ts'
import { fullNodeView, nodeView } from '../view.ts'

function listingReply(call: Call, page: Page, listing: Listing): Reply {
  const items = listing.nodes.map((node) => nodeView(node, call.access))
  return ok({ range: { ...page, total: listing.total }, items })
}

function list(call: Call): Reply {
  const { app, access, query } = call
  const page = pageOf(query)
  return listingReply(
    call,
    page,
    listChildren(app.store, app.listings, access, call.queryId('parent_id') ?? 0, page, query),
  )
}

function search(call: Call): Reply {
  const { app, access, query } = call
  const page = pageOf(query)
  const depthText = query.get('depth_level') ?? '0'
  if (!/^(-1|\d{1,4})$/.test(depthText)) throw badRequest(-80002, 'Invalid depth_level')
  const parentId = call.queryId('parent_id') ?? 0
  const listing = searchNodes(app.store, app.listings, access, parentId, Number(depthText), page, query)
  return listingReply(call, page, listing)
}

function parents(call: Call): Reply {
  const { store } = call.app
  const items: unknown[] = []
  for (let id = call.node().parentId; id !== 0; ) {
    const node = store.nodes.get(id)
    if (node === undefined) break
    const { name, type, parentId } = node
    items.unshift({ id, name, type: NODE_TYPES[type], ...(parentId === 0 ? {} : { parentId }) })
    id = parentId
  }
  return ok({ items })
}

/** Times, notes, classification and expiry as far as a body gives them. */
export function attributesOf(fields: Fields, now: number): Partial<NodeRecord> {
  const attributes: Partial<NodeRecord> = {}
  const timestampCreation = optionalTime(fields, 'timestampCreation')
  const timestampModification = optionalTime(fields, 'timestampModification')
  const notes = optionalNotes(fields)
  const classification = optionalClassification(fields)
  const expireAt = optionalExpiration(fields, now)
  if (timestampCreation !== undefined) attributes.timestampCreation = timestampCreation
  if (timestampModification !== undefined) attributes.timestampModification = timestampModification
  if (notes !== undefined) attributes.notes = notes
  if (classification !== undefined) attributes.classification = classification
  if (expireAt !== undefined) attributes.expireAt = expireAt
  return attributes
}

/** A room or folder to put things into. */
export function containerOf(access: Access, id: number): NodeRecord {
  const node = access.node(id)
  if (node.type === FILE) throw new ApiError(404, -40000, 'Container not found')
  return node
}

const nameTaken = (): never => {
  throw new ApiError(409, -41001, 'Node exists already')
}

async function createFolder(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const name = checkName(field(body, 'name'))
  const parentId = requiredInteger(body, 'parentId')
  const attributes = attributesOf(body, call.app.now())
  const view = await call.change((change, access) => {
    const parent = containerOf(access, parentId)
    access.require(parent, CREATE)
    checkPathLength(access.pathOf(parent.id) ?? '', name)
    if (store.names.doesExist([parent.id, name])) nameTaken()
    const node = createNode(change, {
      ...attributes,
      type: FOLDER,
      name,
      parentId: parent.id,
      encrypted: parent.encrypted,
      size: 0,
    })
    return fullNodeView(store, node, access)
  })
  return created(view)
}

/** Changes name, notes and so on of a node of the given type. */
async function update(call: Call, type: typeof FOLDER | typeof FILE): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const attributes = attributesOf(body, call.app.now())
  const name = field(body, 'name') === undefined ? undefined : checkName(field(body, 'name'))
  const view = await call.change((change, access) => {
    const node = access.node(call.id())
    if (node.type !== type) throw nodeNotFound()
    access.require(node, CHANGE)
    if (name !== undefined) {
      settleName(change, node.parentId, name, type, 'fail', nameTaken, node.id)
      checkPathLength(access.pathOf(node.parentId) ?? '', name)
    }
    const updated = updateNode(change, node, { ...attributes, ...(name === undefined ? {} : { name }) })
    return fullNodeView(store, updated, access)
  })
  return ok(view)
}

/** Checks the right to delete one node: rooms by their admins, the rest by those who may delete. */
function requireDelete(access: Access, node: NodeRecord): void {
  access.require(node, node.type === ROOM ? MANAGE : DELETE)
}

async function deleteOne(call: Call): Promise<Reply> {
  await call.change((change, access) => {
    const node = access.node(call.id())
    requireDelete(access, node)
    deleteNode(change, node)
  })
  return noContent()
}

async function deleteMany(call: Call): Promise<Reply> {
  void call.user
  const ids = [...new Set(idList(await call.json(), 'nodeIds'))]
  await call.change((change, access) => {
    const nodes = ids.map((id) => access.node(id))
    requireSameParent(nodes)
    for (const node of nodes) requireDelete(access, node)
    for (const node of nodes) deleteNode(change, node)
  })
  return noContent()
}

function requireSameParent(nodes: readonly NodeRecord[]): void {
  if (nodes.some((node) => node.parentId !== nodes[0]?.parentId)) {
    throw badRequest(-41054, 'Nodes must be in the same parent')
  }
}

interface Transfer {
  id: number
  name: string | undefined
  changes: Partial<NodeRecord>
}

/** The nodes to move or copy: `items`, or the older plain list of ids. */
function transfersOf(body: Fields, now: number): Transfer[] {
  const items = optionalArray(body, 'items')
  if (items === undefined || items.length === 0) {
    return idList(body, 'nodeIds').map((id) => ({ id, name: undefined, changes: {} }))
  }
  return items.map((item) => {
    const fields = asFields(item)
    const name = field(fields, 'name') === undefined ? undefined : checkName(field(fields, 'name'))
    return { id: requiredInteger(fields, 'id'), name, changes: attributesOf(fields, now) }
  })
}

function isBelow(store: Store, node: NodeRecord, ancestorId: number): boolean {
  for (let id = node.id; id !== 0; ) {
    if (id === ancestorId) return true
    id = store.nodes.get(id)?.parentId ?? 0
  }
  return false
}

function checkTransfer(
  store: Store,
  access: Access,
  node: NodeRecord,
  target: NodeRecord,
  mode: 'move' | 'copy',
): void {
  if (node.type === ROOM) throw badRequest(-41052, 'Rooms cannot be copied or moved')
  if (node.encrypted && !target.encrypted) throw badRequest(-40001, 'Target room is not encrypted')
  if (!node.encrypted && target.encrypted) throw badRequest(-40002, 'Target room is encrypted')
  if (isBelow(store, target, node.id)) throw new ApiError(409, -41304, 'Node cannot be moved into its child node')
  access.require(node, mode === 'move' ? READ | DELETE : READ)
  if (node.encrypted && node.type === FILE && !hasFileKey(store, node.id, access.userId)) {
    throw badRequest(-40014, 'File cannot be copied or moved without a file key')
  }
}

function hasFileKey(store: Store, fileId: number, userId: number): boolean {
  return KEY_VERSIONS.some((version) => store.fileKeys.doesExist([fileId, userId, version]))
}

function transferOne(
  change: Change,
  access: Access,
  item: Transfer,
  target: NodeRecord,
  { strategy, keepShareLinks, mode }: { strategy: ConflictStrategy; keepShareLinks: boolean; mode: 'move' | 'copy' },
): void {
  let kept: ShareRecord[] = []
  const node = access.node(item.id)
  const wanted = item.name ?? node.name
  const stays = mode === 'move' && node.parentId === target.id
  const name = settleName(
    change,
    target.id,
    wanted,
    node.type,
    strategy,
    (existing) => {
      if ((access.bits(existing.roomId) & DELETE) === 0) throw forbidden()
      if (keepShareLinks) kept = detachShares(change, existing)
    },
    stays ? node.id : undefined,
  )
  if (mode === 'copy') {
    checkQuota(change.store, target, node.size)
    const copy = copyNode(change, node, target, name, item.changes)
    attachShares(change, copy.id, kept)
    return
  }
  if (stays) {
    updateNode(change, node, { ...item.changes, name })
    attachShares(change, node.id, kept)
    return
  }
  if (node.roomId !== target.roomId) checkQuota(change.store, target, node.size)
  const moved = moveNode(change, node, target, name)
  if (Object.keys(item.changes).length > 0) updateNode(change, moved, item.changes)
  attachShares(change, moved.id, kept)
}

/** Moves or copies nodes of one parent into a container, and answers with that container. */
async function transfer(call: Call, mode: 'move' | 'copy'): Promise<Reply> {
  const { store } = call.app
  void call.user
  const body = await call.json()
  const items = transfersOf(body, call.app.now())
  const how = {
    strategy: conflictStrategy(body),
    keepShareLinks: optionalBoolean(body, 'keepShareLinks') === true,
    mode,
  }
  const view = await call.change((change, access) => {
    const target = access.node(call.id(), () => new ApiError(404, -41051, 'Target node not found'))
    if (target.type === FILE) throw badRequest(-41053, 'File cannot be the target')
    access.require(target, CREATE)
    const nodes = items.map((item) => access.node(item.id, () => new ApiError(404, -41050, 'Source node not found')))
    requireSameParent(nodes)
    for (const node of nodes) checkTransfer(store, access, node, target, mode)
    for (const item of items) transferOne(change, access, item, target, how)
    touch(change, target.id, 0)
    return fullNodeView(store, store.nodes.get(target.id) ?? target, access)
  })
  return { status: mode === 'move' ? 200 : 201, json: view }
}

export const nodeRoutes: RouteTable = {
  'GET /v4/nodes': list,
  'GET /v4/nodes/search': search,
  'GET /v4/nodes/:id': (call) => ok(fullNodeView(call.app.store, call.node(), call.access)),
  'GET /v4/nodes/:id/parents': parents,
  'POST /v4/nodes/folders': createFolder,
  'PUT /v4/nodes/folders/:id': (call) => update(call, FOLDER),
  'PUT /v4/nodes/files/:id': (call) => update(call, FILE),
  'DELETE /v4/nodes/:id': deleteOne,
  'DELETE /v4/nodes': deleteMany,
  'POST /v4/nodes/:id/move_to': (call) => transfer(call, 'move'),
  'POST /v4/nodes/:id/copy_to': (call) => transfer(call, 'copy'),
}
