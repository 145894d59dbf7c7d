/**
 * Uploads: opening a channel, presigned part URLs, classic chunks, finishing, status. The bytes and the commit are the
 * business of ../uploads.ts; presigned URLs lead to storage.ts or to an object store.
 * @module
 */
import { Access, CREATE } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, created, noContent, ok, type Reply } from '../call.ts'
import { ApiError, badRequest } from '../errors.ts'
import { boundaryOf, filePart } from '../multipart.ts'
import type { NodeRecord } from '../records.ts'
import { checkUserQuota } from '../tree.ts'
import { type Channel, type Commit, checkQuota, type FinishRequest } from '../uploads.ts'
import {
  asFields,
  checkName,
  checkPathLength,
  conflictStrategy,
  type Fields,
  field,
  MAX_ENCRYPTED_SIZE,
  optionalArray,
  optionalBoolean,
  optionalInteger,
  optionalString,
  parseFileKey,
  requiredInteger,
} from '../validate.ts'
import { fullNodeView, preferredKeyPair } from '../view.ts'
import { attributesOf, containerOf } from './nodes.ts'

const MAX_PARTS = 10_000
/** A finish that takes longer than this is answered early; its outcome shows in the status. */
const ANSWER_AFTER_MS = 400

async function open(call: Call): Promise<Reply> {
  const { app, user, access } = call
  const body = await call.json()
  const name = checkName(field(body, 'name'))
  const size = optionalInteger(body, 'size')
  const parent = containerOf(access, requiredInteger(body, 'parentId'))
  access.require(parent, CREATE)
  checkPathLength(access.pathOf(parent.id) ?? '', name)
  checkEncryption(call, parent, size)
  checkQuota(app.store, parent, size ?? 0)
  checkUserQuota(app.store, user.id, size ?? 0)
  const channel = await app.uploads.open({
    userId: user.id,
    parentId: parent.id,
    name,
    ...(size === undefined ? {} : { size }),
    direct: optionalBoolean(body, 'directS3Upload') === true,
    attributes: attributesOf(body, app.now()),
  })
  const token = app.signer.uploadToken(channel.id)
  return created({ uploadUrl: `${call.baseUrl}/api/v4/uploads/${token}`, uploadId: channel.id, token })
}

function checkEncryption({ app, user }: Call, parent: NodeRecord, size: number | undefined): void {
  if (!parent.encrypted) return
  if (preferredKeyPair(app.store, user.id) === undefined)
    throw new ApiError(403, -70020, 'User does not have a keypair')
  if (size !== undefined && size > MAX_ENCRYPTED_SIZE) throw badRequest(-80037, 'File is too long for encryption')
}

function requireS3({ app }: Call): void {
  if (app.storage !== 's3') throw new ApiError(412, -90030, 'S3 storage is not in use')
}

/** URLs for parts of an upload. */
export async function partUrls(call: Call, ownerId: number): Promise<Reply> {
  const { app, baseUrl } = call
  requireS3(call)
  const channel = app.uploads.get(call.param('id'), ownerId)
  const body = await call.json()
  const size = requiredInteger(body, 'size')
  const first = requiredInteger(body, 'firstPartNumber')
  const last = requiredInteger(body, 'lastPartNumber')
  if (first < 1 || last < first || last > MAX_PARTS) throw badRequest(-80001, 'Invalid part numbers')
  const urls = Array.from({ length: last - first + 1 }, (_, index) => {
    const partNumber = first + index
    app.uploads.announce(channel, partNumber, size)
    return { url: channel.incoming.partUrl(partNumber, size, baseUrl), partNumber }
  })
  return created({ urls })
}

/** What a finishing body says besides the parts. */
function finishRequest(body: Fields): FinishRequest {
  const name = optionalString(body, 'fileName')
  const fileKey = field(body, 'fileKey')
  const list = field(body, 'userFileKeyList')
  const items = list === undefined ? [] : (optionalArray(asFields(list), 'items') ?? [])
  return {
    strategy: conflictStrategy(body),
    keepShareLinks: optionalBoolean(body, 'keepShareLinks') === true,
    ...(name === undefined || name === '' ? {} : { name: checkName(name) }),
    ...(fileKey === undefined ? {} : { fileKey: parseFileKey(fileKey) }),
    userKeys: items.map((item) => {
      const fields = asFields(item)
      return { userId: requiredInteger(fields, 'userId'), fileKey: parseFileKey(field(fields, 'fileKey')) }
    }),
  }
}

/** Finishes a direct upload; what takes long is told by the status. */
export async function finishDirect(
  call: Call,
  ownerId: number,
  requestOf: (body: Fields) => FinishRequest,
  commit?: Commit,
): Promise<Reply> {
  const { uploads } = call.app
  requireS3(call)
  const body = await call.json()
  const channel = uploads.get(call.param('id'), ownerId)
  const list = optionalArray(body, 'parts')
  if (list === undefined || list.length === 0) throw badRequest(-80000, 'parts is mandatory')
  const parts = list.map((item) => {
    const fields = asFields(item)
    return { number: requiredInteger(fields, 'partNumber'), etag: optionalString(fields, 'partEtag') ?? '' }
  })
  const request = requestOf(body)
  const finishing = uploads.finish(channel, (incoming) => incoming.fromParts(parts), request, commit)
  let answered = false
  finishing.catch((error: unknown) => {
    if (!answered) return
    channel.status = 'error'
    channel.error = error instanceof ApiError ? error : new ApiError(500, undefined, 'Unexpected error')
    if (channel.error.status >= 500) call.app.onError(error)
  })
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ANSWER_AFTER_MS)
  })
  await Promise.race([finishing, patience]).finally(() => clearTimeout(timer))
  answered = true
  return { status: 202 }
}

function status(call: Call): Reply {
  const { app, user } = call
  const id = call.param('id')
  const channel = app.uploads.find(id, user.id)
  if (channel?.status === 'error' && channel.error !== undefined) {
    return ok({ status: 'error', errorDetails: channel.error.toBody() })
  }
  if (channel !== undefined) return ok({ status: channel.status })
  const nodeId = app.uploads.outcome(id, user.id)
  if (nodeId === undefined) throw new ApiError(404, -20501, 'Upload not found')
  const node = app.store.nodes.get(nodeId)
  return ok({ status: 'done', ...(node === undefined ? {} : { node: fullNodeView(app.store, node, call.access) }) })
}

/** The channel of a classic route: by token, which needs no login, or by id. */
function channelOf(call: Call): Channel {
  const token = call.params.token
  if (token === undefined) return call.app.uploads.get(call.param('id'), call.user.id)
  const uploadId = call.app.signer.readUploadToken(token)
  if (uploadId === undefined) throw new ApiError(404, -20501, 'Upload not found')
  return call.app.uploads.get(uploadId)
}

/**
 * Where a chunk goes. The length comes from the body; clients disagree about everything else. Equal START and END, or
 * no header, mean to append.
 */
function chunkStart(header: string | undefined): number | undefined {
  if (header === undefined || header === '') return undefined
  const match = /^bytes\s+(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(header.trim())
  const [start, end] = [Number(match?.[1]), Number(match?.[2])]
  if (match === null || !Number.isSafeInteger(start)) throw badRequest(-80021, 'Invalid Content-Range')
  return start === end ? undefined : start
}

/** Takes one chunk of a classic upload. */
export async function chunk(call: Call, channel: Channel): Promise<Reply> {
  const start = chunkStart(call.headers['content-range'])
  const boundary = boundaryOf(call.headers['content-type'])
  const body = boundary === undefined ? call.body : filePart(call.body, boundary)
  const received = await call.app.uploads.putChunk(channel, start, body)
  return created({ size: received.size, hash: received.md5 })
}

async function finishClassic(call: Call): Promise<Reply> {
  const { app } = call
  const channel = channelOf(call)
  const request = finishRequest(await call.json())
  // A second look: the channel may have been finished while the body was on its way.
  app.uploads.get(channel.id)
  const nodeId = await app.uploads.finish(channel, (incoming) => incoming.fromChunks(), request)
  const node = app.store.nodes.get(nodeId)
  if (node === undefined) throw new ApiError(404, -41000, 'Node not found')
  return created(fullNodeView(app.store, node, new Access(app.store, channel.userId)))
}

function cancel(call: Call): Reply {
  call.app.uploads.cancel(channelOf(call))
  return noContent()
}

export const uploadRoutes: RouteTable = {
  'POST /v4/nodes/files/uploads': open,
  'POST /v4/nodes/files/uploads/:id/s3_urls': (call) => partUrls(call, call.user.id),
  'PUT /v4/nodes/files/uploads/:id/s3': (call) => finishDirect(call, call.user.id, finishRequest),
  'GET /v4/nodes/files/uploads/:id': status,
  'POST /v4/nodes/files/uploads/:id': (call) => chunk(call, channelOf(call)),
  'PUT /v4/nodes/files/uploads/:id': finishClassic,
  'DELETE /v4/nodes/files/uploads/:id': cancel,
  'POST /v4/uploads/:token': (call) => chunk(call, channelOf(call)),
  'PUT /v4/uploads/:token': finishClassic,
  'DELETE /v4/uploads/:token': cancel,
}
