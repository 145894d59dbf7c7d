/** What users put on nodes without changing them: favorites and comments. @module */
import { CHANGE, MANAGE, READ } from '../access.ts'
import { type Call, created, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest, fileNotFound, forbidden } from '../errors.ts'
import { type CommentRecord, FILE } from '../records.ts'
import { updateNode } from '../tree.ts'
import { idList, optionalString, pageOf, pageReply } from '../validate.ts'
import { dateView, fullNodeView, userInfo, type Wire } from '../view.ts'
import { attributesOf } from './nodes.ts'

const MAX_COMMENT = 65_535
/** Of one node; more would be a misuse of them. */
const MAX_COMMENTS = 10_000
const MAX_FILES = 200

const noComment = (): ApiError => new ApiError(404, -41400, 'Comment not found')

async function setFavorite(call: Call, isFavorite: boolean): Promise<Reply> {
  const { store } = call.app
  const node = call.node()
  await store.write((tx) => {
    if (isFavorite) tx.put(store.favorites, [call.user.id, node.id], call.app.now())
    else tx.remove(store.favorites, [call.user.id, node.id])
  })
  return isFavorite ? created({ ...fullNodeView(store, node, call.access), isFavorite }) : noContent()
}

function commentView({ app: { store } }: Call, comment: CommentRecord): Wire {
  const { id, text, createdAt, createdBy, updatedAt, updatedBy } = comment
  return {
    id,
    text,
    createdAt: dateView(createdAt),
    createdBy: userInfo(store, createdBy),
    updatedAt: dateView(updatedAt),
    updatedBy: userInfo(store, updatedBy),
    isChanged: updatedAt > createdAt,
    isDeleted: false,
  }
}

function textOf(text: string | undefined): string {
  if (text === undefined || text === '') throw badRequest(-80000, 'text is mandatory')
  if (text.length > MAX_COMMENT) throw badRequest(-80007, 'text is too long')
  return text
}

function listComments(call: Call): Reply {
  const { store } = call.app
  const node = call.node()
  call.access.require(node, READ)
  const ids = [...store.nodeComments.getKeys({ start: [node.id, 0], end: [node.id + 1, 0] })].map(([, id]) => id)
  const { range, items } = pageReply(ids, pageOf(call.query))
  const comments = items.flatMap((id) => store.comments.get(id) ?? [])
  return ok({ range, items: comments.map((comment) => commentView(call, comment)) })
}

async function addComment(call: Call): Promise<Reply> {
  const { store, now } = call.app
  void call.user
  const text = textOf(optionalString(await call.json(), 'text'))
  const comment = await call.change(({ tx, userId }, access) => {
    const node = access.node(call.id())
    access.require(node, READ)
    if (store.nodeComments.getCount({ start: [node.id, 0], end: [node.id + 1, 0] }) >= MAX_COMMENTS) {
      throw badRequest(undefined, 'This node has too many comments')
    }
    const id = store.nextId(tx, 'comment')
    const at = now()
    const fresh = { id, nodeId: node.id, text, createdAt: at, createdBy: userId, updatedAt: at, updatedBy: userId }
    tx.put(store.comments, id, fresh)
    tx.put(store.nodeComments, [node.id, id], 1)
    return fresh
  })
  return created(commentView(call, comment))
}

async function editComment(call: Call): Promise<Reply> {
  const { store, now } = call.app
  void call.user
  const text = textOf(optionalString(await call.json(), 'text'))
  const comment = await call.change(({ tx, userId }, access) => {
    const known = store.comments.get(call.id('id', noComment))
    const node = known && access.find(known.nodeId)
    if (known === undefined || node === undefined) throw noComment()
    access.require(node, READ)
    if (known.createdBy !== userId) throw forbidden()
    const changed = { ...known, text, updatedAt: Math.max(now(), known.createdAt + 1), updatedBy: userId }
    tx.put(store.comments, known.id, changed)
    return changed
  })
  return ok(commentView(call, comment))
}

async function removeComment(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  await call.change(({ tx, userId }, access) => {
    const known = store.comments.get(call.id('id', noComment))
    const node = known && access.find(known.nodeId)
    if (known === undefined || node === undefined) throw noComment()
    access.require(node, known.createdBy === userId ? READ : MANAGE)
    tx.remove(store.comments, known.id)
    tx.remove(store.nodeComments, [known.nodeId, known.id])
  })
  return noContent()
}

/** What a virus scanner has found: there is none. */
async function verdicts(call: Call): Promise<Reply> {
  void call.user
  const ids = [...new Set(idList(await call.json(), 'nodeIds'))].slice(0, 500)
  const files = ids.filter((id) => call.access.find(id)?.type === FILE)
  return ok(files.map((nodeId) => ({ nodeId, verdict: 'NO_SCANNING' })))
}

/** Changes classification and expiry of several files at once. */
async function updateMany(call: Call): Promise<Reply> {
  void call.user
  const body = await call.json()
  const ids = [...new Set(idList(body, 'objectIds'))]
  if (ids.length > MAX_FILES) throw badRequest(-80007, 'Too many files')
  const { classification, expireAt } = attributesOf(body, call.app.now())
  const attributes = {
    ...(classification === undefined ? {} : { classification }),
    ...(expireAt === undefined ? {} : { expireAt }),
  }
  await call.change((change, access) => {
    for (const id of ids) {
      const file = access.node(id, fileNotFound)
      if (file.type !== FILE) throw fileNotFound()
      access.require(file, CHANGE)
      updateNode(change, file, attributes)
    }
  })
  return noContent()
}

export const nodeExtraRoutes: RouteTable = {
  'POST /v4/nodes/:id/favorite': (call) => setFavorite(call, true),
  'DELETE /v4/nodes/:id/favorite': (call) => setFavorite(call, false),
  'GET /v4/nodes/:id/comments': listComments,
  'POST /v4/nodes/:id/comments': addComment,
  'PUT /v4/nodes/comments/:id': editComment,
  'DELETE /v4/nodes/comments/:id': removeComment,
  'PUT /v4/nodes/files': updateMany,
  'POST /v4/nodes/files/generate_verdict_info': verdicts,
}
