/**
 * What a visitor can do by the link of a file request: see what is wanted, send files by either way of uploading, and nothing
 * else. For an encrypted room the file key comes wrapped for each of those who are listed, and for nobody else.
 * @module
 */
import { DOWNLOAD_SHARE, MANAGE, membersOf, READ, UPLOAD_SHARE } from '../access.ts'
import type { FinishedContent } from '../blobs.ts'
import { type Call, created, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest } from '../errors.ts'
import { SHARE_BASE } from '../holders.ts'
import { FILE, type KeyPairRecord, NODE_TYPES, type NodeRecord, ROOM, type UploadShareRecord } from '../records.ts'
import { findShare } from '../shares.ts'
import type { Store } from '../store.ts'
import { type Change, createNode, note, settleName } from '../tree.ts'
import { type Channel, checkQuota, type FinishRequest, putFileKey } from '../uploads.ts'
import {
  asFields,
  checkName,
  checkPathLength,
  type Fields,
  field,
  keyVersionOf,
  MAX_ENCRYPTED_SIZE,
  optionalArray,
  optionalBoolean,
  optionalInteger,
  optionalString,
  optionalTime,
  parseFileKey,
  requiredInteger,
} from '../validate.ts'
import { dateView, preferredKeyPair, publicKeyView, type Wire } from '../view.ts'
import { chunk, finishDirect, partUrls } from './uploads.ts'

interface Requested {
  share: UploadShareRecord
  node: NodeRecord
}

const NO_STORE = { 'Cache-Control': 'no-store' }
/** What the API must say where there is no limit. */
const UNLIMITED_SLOTS = 2 ** 31 - 1
/** Of one file of unknown size. */
const MAX_SIZE = 2 ** 40
const MAX_SHOWN = 500
const DAY_MS = 86_400_000

const notFound = (): ApiError => new ApiError(404, -50501, 'Upload access key not found')
const wrongPassword = (): ApiError => new ApiError(401, -50502, 'Wrong password for Upload Share link')
const tooManyFiles = (): ApiError => badRequest(-50506, 'Exceeds the number of files for this Upload Share')
const tooMuch = (): ApiError => new ApiError(507, -50504, 'Exceeds the quota for this Upload Share')

function requested(call: Call): Requested {
  const found = findShare(call.app.store, 'upload', call.param('key'), call.app.now())
  if (found === undefined) throw notFound()
  return found
}

/** Users of the room who get the keys of files, with the public keys to wrap them for. */
function recipientsOf(store: Store, roomId: number): { id: number; pair: KeyPairRecord }[] {
  const found: { id: number; pair: KeyPairRecord }[] = []
  for (const [id, bits] of membersOf(store, roomId)) {
    const pair =
      (bits & (MANAGE | READ | DOWNLOAD_SHARE | UPLOAD_SHARE)) === 0 ? undefined : preferredKeyPair(store, id)
    if (pair !== undefined) found.push({ id, pair })
  }
  return found
}

const noRecipient = (): ApiError => badRequest(-50505, 'No room user has a keypair')

/** The password of a header: base64 of UTF-8, or as it is, which is an older way. */
function headerPassword(call: Call): string | undefined {
  const header = call.headers['x-sds-share-password']
  if (typeof header !== 'string' || header === '') return undefined
  const bytes = Buffer.from(header, 'base64')
  if (bytes.toString('base64').replace(/=+$/, '') !== header.replace(/=+$/, '')) return header
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return header
  }
}

async function info(call: Call): Promise<Reply> {
  const { app } = call
  const { share, node } = requested(call)
  const given = headerPassword(call)
  if (given !== undefined && !(await app.sharePasswords.matches(share, given, call.address))) throw wrongPassword()
  const isOpen = share.password === undefined || given !== undefined
  const creator = app.store.users.get(share.createdBy)?.name
  const json: Wire = {
    isProtected: share.password !== undefined,
    createdAt: dateView(share.createdAt),
    name: share.name,
    isEncrypted: node.encrypted,
    showUploadedFiles: share.showUploadedFiles === true,
    maxSlots: share.maxSlots ?? UNLIMITED_SLOTS,
    creatorName: share.showCreatorName === true ? (creator ?? '') : '',
    ...(share.showCreatorUsername === true && creator !== undefined ? { creatorUsername: creator } : {}),
    ...(isOpen ? detailsOf(app.store, share, node) : {}),
  }
  return { ...ok(json), headers: NO_STORE }
}

function detailsOf(store: Store, share: UploadShareRecord, node: NodeRecord): Wire {
  const { expireAt, notes, maxSlots, maxSize } = share
  const details: Wire = {
    ...(expireAt === undefined ? {} : { expireAt: dateView(expireAt) }),
    ...(notes === undefined ? {} : { notes }),
    ...(maxSlots === undefined ? {} : { remainingSlots: Math.max(0, maxSlots - share.uploads) }),
    ...(maxSize === undefined ? {} : { maxSize, remainingSize: Math.max(0, maxSize - share.uploadedBytes) }),
  }
  if (share.showUploadedFiles === true) details.uploadedFiles = uploadedFiles(store, share.id)
  if (node.encrypted) {
    const recipients = recipientsOf(store, node.roomId)
    if (recipients.length === 0) throw noRecipient()
    const items = recipients.map(({ id, pair }) => ({ id, publicKeyContainer: publicKeyView(pair) }))
    details.userUserPublicKeyList = { items }
  }
  return details
}

function uploadedFiles(store: Store, shareId: number): Wire[] {
  const range = { start: [shareId + 1, 0], end: [shareId, 0], reverse: true, limit: MAX_SHOWN }
  return [...store.received.getRange(range)]
    .filter(({ value }) => store.nodes.doesExist(value.nodeId))
    .map(({ value }) => fileView(value))
}

const fileView = (file: { name: string; size: number; receivedAt: number; hash?: string }): Wire => ({
  name: file.name,
  size: file.size,
  createdAt: dateView(file.receivedAt),
  ...(file.hash === undefined ? {} : { hash: file.hash }),
})

function checkLimits({ maxSlots, maxSize, uploads, uploadedBytes }: UploadShareRecord, size: number): void {
  if (maxSlots !== undefined && uploads >= maxSlots) throw tooManyFiles()
  if (maxSize !== undefined && uploadedBytes + size > maxSize) throw tooMuch()
}

async function open(call: Call): Promise<Reply> {
  const { app } = call
  const { store } = app
  const { share, node } = requested(call)
  const body = await call.json()
  const name = checkName(field(body, 'name'))
  const size = optionalInteger(body, 'size')
  const attributes = attributesOf(body)
  if (!(await app.sharePasswords.matches(share, optionalString(body, 'password'), call.address))) throw wrongPassword()
  checkLimits(share, size ?? 0)
  if (node.encrypted && recipientsOf(store, node.roomId).length === 0) throw noRecipient()
  if (node.encrypted && (size ?? 0) > MAX_ENCRYPTED_SIZE) throw badRequest(-80037, 'File is too long for encryption')
  checkPathLength(pathOf(store, node), name)
  checkQuota(store, node, size ?? 0)
  await app.uploads.checkDisk(size ?? 0)
  const channel = await app.uploads.open({
    userId: SHARE_BASE + share.id,
    visit: { address: call.address, limit: limitOf(share, node, size) },
    parentId: node.id,
    name,
    ...(size === undefined ? {} : { size }),
    direct: optionalBoolean(body, 'directS3Upload') === true,
    attributes,
  })
  const uploadUrl = `${call.baseUrl}/api/v4/public/shares/uploads/${share.accessKey}/${channel.id}`
  return { ...created({ uploadUrl, uploadId: channel.id, token: channel.id }), headers: NO_STORE }
}

function attributesOf(body: Fields): Partial<NodeRecord> {
  const [timestampCreation, timestampModification] = ['timestampCreation', 'timestampModification'].map((name) =>
    optionalTime(body, name),
  )
  return {
    ...(timestampCreation === undefined ? {} : { timestampCreation }),
    ...(timestampModification === undefined ? {} : { timestampModification }),
  }
}

function limitOf({ maxSize, uploadedBytes }: UploadShareRecord, node: NodeRecord, size: number | undefined): number {
  const left = maxSize === undefined ? MAX_SIZE : Math.max(0, maxSize - uploadedBytes)
  return Math.min(size ?? MAX_SIZE, left, node.encrypted ? MAX_ENCRYPTED_SIZE : MAX_SIZE)
}

function pathOf(store: Store, node: NodeRecord): string {
  let path = `${node.name}/`
  for (let id = node.parentId; id !== 0; ) {
    const parent = store.nodes.get(id)
    if (parent === undefined) break
    path = `${parent.name}/${path}`
    id = parent.parentId
  }
  return `/${path}`
}

/** Who owns the channels of a file request. */
const ownerOf = (call: Call): number => SHARE_BASE + requested(call).share.id

const channelOf = (call: Call): Channel => call.app.uploads.get(call.param('id'), ownerOf(call))

/** File keys of a body: a list, which some send inside an object. */
function keysOf(list: unknown): FinishRequest['userKeys'] {
  const items = Array.isArray(list) ? list : list === undefined ? [] : (optionalArray(asFields(list), 'items') ?? [])
  return items.map((item) => {
    const fields = asFields(item)
    return { userId: requiredInteger(fields, 'userId'), fileKey: parseFileKey(field(fields, 'fileKey')) }
  })
}

const requestOf = (list: unknown): FinishRequest => ({ strategy: 'autorename', userKeys: keysOf(list) })

/** Makes a node of what a visitor has sent, with all that is to be known of it. */
function commitVisit(change: Change, channel: Channel, content: FinishedContent, { userKeys }: FinishRequest): number {
  const { store, tx, now } = change
  const share = store.shares.get(channel.userId - SHARE_BASE)
  const parent = store.nodes.get(channel.parentId)
  if (share?.kind !== 'upload' || (share.expireAt !== undefined && share.expireAt <= now)) throw notFound()
  if (parent === undefined || parent.type === FILE) throw notFound()
  checkLimits(share, content.size)
  checkFileKeys(store, parent, userKeys)
  if (parent.encrypted && content.size > MAX_ENCRYPTED_SIZE) throw badRequest(-80037, 'File is too long for encryption')
  checkQuota(store, parent, content.size)
  const name = settleName(change, parent.id, channel.name, FILE, 'autorename', () => undefined)
  const days = share.filesExpiryPeriod
  const node = createNode(change, {
    ...channel.attributes,
    type: FILE,
    name,
    parentId: parent.id,
    encrypted: parent.encrypted,
    size: content.size,
    contentId: channel.id,
    ...(days === undefined ? {} : { expireAt: now + days * DAY_MS }),
    ...(content.hash === undefined ? {} : { hash: content.hash }),
  })
  tx.put(store.contents, channel.id, { segments: content.segments, size: content.size, refs: 1 })
  for (const { userId, fileKey } of userKeys) putFileKey(change, node.id, userId, fileKey)
  const address = channel.visit?.address ?? ''
  const given = {
    name: channel.name,
    size: content.size,
    ...(content.hash === undefined ? {} : { hash: content.hash }),
  }
  tx.put(store.received, [share.id, share.uploads + 1], { ...given, nodeId: node.id, receivedAt: now, address })
  tx.put(store.shares, share.id, {
    ...share,
    uploads: share.uploads + 1,
    uploadedBytes: share.uploadedBytes + content.size,
  })
  const { name: givenName, size } = given
  tx.put(store.finished, channel.id, {
    userId: channel.userId,
    nodeId: node.id,
    finishedAt: now,
    given: { name: givenName, size },
  })
  const text = `File request ${share.name} (${share.id}) received file ${pathOf(store, parent)}${name}: ${size} bytes from ${address}`
  note(change, node.roomId, 'uploadshare.used', text)
  return node.id
}

/** One key for each recipient as of now, of one content, and none for anybody else. */
function checkFileKeys(store: Store, parent: NodeRecord, keys: FinishRequest['userKeys']): void {
  if (!parent.encrypted) {
    if (keys.length > 0) throw badRequest(-40001, `Target ${NODE_TYPES[ROOM]} is not encrypted`)
    return
  }
  const recipients = new Map(recipientsOf(store, parent.roomId).map(({ id, pair }) => [id, pair.version]))
  if (recipients.size === 0) throw noRecipient()
  const [first] = keys
  for (const { userId, fileKey } of keys) {
    const version = recipients.get(userId)
    if (version === undefined) throw new ApiError(404, -70501, 'User not found')
    if (keyVersionOf(fileKey.version) !== version) throw badRequest(-80062, 'File key fits no key pair of the user')
    if (fileKey.iv !== first?.fileKey.iv || fileKey.tag !== first.fileKey.tag) {
      throw badRequest(-80062, 'File keys belong to different content')
    }
  }
  if (new Set(keys.map(({ userId }) => userId)).size !== recipients.size) {
    throw badRequest(-40763, 'File keys must be set for all users')
  }
}

async function finishClassic(call: Call): Promise<Reply> {
  const { app } = call
  const owner = ownerOf(call)
  app.uploads.get(call.param('id'), owner)
  const request = requestOf(await call.json('optional'))
  // A second look: the channel may have been finished while the body was on its way.
  const channel = app.uploads.get(call.param('id'), owner)
  const nodeId = await app.uploads.finish(channel, (incoming) => incoming.fromChunks(), request, commitVisit)
  const node = app.store.nodes.get(nodeId)
  const hash = node?.hash === undefined ? {} : { hash: node.hash }
  return created(
    fileView({ name: channel.name, size: node?.size ?? 0, receivedAt: node?.createdAt ?? app.now(), ...hash }),
  )
}

function status(call: Call): Reply {
  const { app } = call
  const owner = ownerOf(call)
  const id = call.param('id')
  const channel = app.uploads.find(id, owner)
  if (channel !== undefined) {
    const { status: state, error, name, received } = channel
    const details = state === 'error' && error !== undefined ? { errorDetails: error.toBody() } : {}
    return { ...ok({ status: state, fileName: name, size: received, ...details }), headers: NO_STORE }
  }
  const finished = app.store.finished.get(id)
  if (finished?.userId !== owner) throw new ApiError(404, -20501, 'Upload not found')
  const { name, size } = finished.given ?? { name: '', size: 0 }
  return { ...ok({ status: 'done', fileName: name, size }), headers: NO_STORE }
}

function cancel(call: Call): Reply {
  call.app.uploads.cancel(channelOf(call))
  return noContent()
}

export const publicUploadRoutes: RouteTable = {
  'GET /v4/public/shares/uploads/:key': info,
  'POST /v4/public/shares/uploads/:key': open,
  'GET /v4/public/shares/uploads/:key/:id': status,
  'POST /v4/public/shares/uploads/:key/:id': (call) => chunk(call, channelOf(call)),
  'PUT /v4/public/shares/uploads/:key/:id': finishClassic,
  'DELETE /v4/public/shares/uploads/:key/:id': cancel,
  'POST /v4/public/shares/uploads/:key/:id/s3_urls': (call) => partUrls(call, ownerOf(call)),
  'PUT /v4/public/shares/uploads/:key/:id/s3': (call) =>
    finishDirect(call, ownerOf(call), (body) => requestOf(field(body, 'userFileKeyList')), commitVisit),
}
