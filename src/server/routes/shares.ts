/**
 * Shares as those see them who make and revoke them: links to files, rooms and folders, and file requests. What visitors get
 * by a link is in public-downloads.ts and public-uploads.ts.
 * @module
 */
import { type Access, DOWNLOAD_SHARE, READ, UPLOAD_SHARE } from '../access.ts'
import { type Call, created, noContent, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest, forbidden, nodeNotFound } from '../errors.ts'
import { giveKeyPair, SHARE_BASE } from '../holders.ts'
import { splitFilter } from '../listing.ts'
import { FILE, type FileKeyRecord, KEY_VERSIONS, NODE_TYPES, type NodeRecord, type ShareRecord } from '../records.ts'
import { lockPassword, newPassword } from '../share-passwords.ts'
import { createShare, isOfKind, removeShare, roomsWithShares, sharesIn } from '../shares.ts'
import type { Store } from '../store.ts'
import { type Change, note } from '../tree.ts'
import { putFileKey } from '../uploads.ts'
import {
  asFields,
  type Fields,
  field,
  idList,
  keyVersionOf,
  optionalArray,
  optionalBoolean,
  optionalExpiration,
  optionalInteger,
  optionalString,
  pageOf,
  pageReply,
  parseFileKey,
  parseKeyPair,
  parseTime,
  requiredInteger,
} from '../validate.ts'
import { dateView, preferredKeyPair, userInfo, type Wire } from '../view.ts'

type Kind = ShareRecord['kind']
const BITS = { download: DOWNLOAD_SHARE, upload: UPLOAD_SHARE } as const
const NOT_FOUND = { download: -60000, upload: -60500 } as const
const LINKS = { download: 'download-shares', upload: 'upload-shares' } as const
const MAX_INT = 2 ** 31 - 1
const MAX_BULK = 200
/** Of what came by a file request so many are told. */
const MAX_RECEIVED = 500
const MAX_RECIPIENTS = 100

/** The page behind a link. */
export const linkTo = (baseUrl: string, { kind, accessKey }: ShareRecord): string =>
  `${baseUrl}/public/${LINKS[kind]}/${accessKey}`

function shareView(call: Pick<Call, 'app' | 'access' | 'baseUrl'>, share: ShareRecord): Wire {
  const { store } = call.app
  const node = store.nodes.get(share.nodeId)
  const path = node === undefined ? '' : `${call.access.pathOf(node.parentId) ?? '/'}${node.name}`
  const type = node === undefined ? undefined : NODE_TYPES[node.type]
  const { notes, internalNotes, expireAt } = share
  return {
    id: share.id,
    name: share.name,
    accessKey: share.accessKey,
    createdAt: dateView(share.createdAt),
    createdBy: userInfo(store, share.createdBy),
    updatedAt: dateView(share.updatedAt),
    updatedBy: userInfo(store, share.updatedBy),
    ...(notes === undefined ? {} : { notes }),
    ...(internalNotes === undefined ? {} : { internalNotes }),
    showCreatorName: share.showCreatorName === true,
    showCreatorUsername: share.showCreatorUsername === true,
    notifyCreator: share.notifyCreator === true,
    isProtected: share.password !== undefined,
    isEncrypted: node?.encrypted === true,
    dataUrl: linkTo(call.baseUrl, share),
    ...(expireAt === undefined ? {} : { expireAt: dateView(expireAt) }),
    ...(isOfKind(share, 'download')
      ? { nodeId: share.nodeId, nodePath: path, ...(type === undefined ? {} : { nodeType: type }) }
      : { targetId: share.nodeId, targetPath: path, ...(type === undefined ? {} : { targetType: type }) }),
    ...countsOf(store, share),
  }
}

function countsOf(store: Store, share: ShareRecord): Wire {
  if (isOfKind(share, 'download')) {
    return {
      cntDownloads: share.downloads,
      ...(share.maxDownloads === undefined ? {} : { maxDownloads: share.maxDownloads }),
    }
  }
  const { maxSlots, maxSize, filesExpiryPeriod } = share
  let files = 0
  for (const { value } of store.received.getRange({ start: [share.id, 0], end: [share.id + 1, 0] })) {
    if (store.nodes.doesExist(value.nodeId)) files++
  }
  return {
    cntUploads: share.uploads,
    cntFiles: files,
    showUploadedFiles: share.showUploadedFiles === true,
    ...(maxSlots === undefined ? {} : { maxSlots }),
    ...(maxSize === undefined ? {} : { maxSize }),
    ...(filesExpiryPeriod === undefined ? {} : { filesExpiryPeriod }),
  }
}

/** A share that the caller may manage. */
function managed<K extends Kind>(
  store: Store,
  access: Access,
  kind: K,
  id: number,
): { share: Extract<ShareRecord, { kind: K }>; node: NodeRecord } {
  const notFound = (): ApiError => new ApiError(404, NOT_FOUND[kind], 'Share not found')
  const share = store.shares.get(id)
  if (share === undefined || !isOfKind(share, kind)) throw notFound()
  const node = store.nodes.get(share.nodeId)
  if (node === undefined || access.bits(node.roomId) === 0) throw notFound()
  access.require(node, BITS[kind])
  return { share, node }
}

const getOne =
  (kind: Kind) =>
  (call: Call): Reply => {
    const { store } = call.app
    const id = call.id('id', () => new ApiError(404, NOT_FOUND[kind], 'Share not found'))
    const { share } = managed(store, call.access, kind, id)
    if (share.kind === 'download') return ok(shareView(call, share))
    return ok({ ...shareView(call, share), uploadedFiles: receivedBy(store, share.id) })
  }

/** What came by a file request, newest first: which files, when, how large and from where. */
function receivedBy(store: Store, shareId: number): Wire[] {
  const range = { start: [shareId + 1, 0], end: [shareId, 0], reverse: true, limit: MAX_RECEIVED }
  return [...store.received.getRange(range)].map(({ value: { nodeId, name, size, hash, receivedAt, address } }) => ({
    nodeId,
    name,
    size,
    createdAt: dateView(receivedAt),
    senderAddress: address,
    ...(hash === undefined ? {} : { hash }),
  }))
}

type Test = (share: ShareRecord) => boolean

function testFor(store: Store, name: string, operator: string, value: string): Test {
  const text = value.normalize('NFC').toLowerCase()
  const textTest = (read: (share: ShareRecord) => string): Test => {
    if (operator === 'cn') return (share) => read(share).toLowerCase().includes(text)
    if (operator === 'eq') return (share) => read(share).toLowerCase() === text
    throw badRequest(undefined, 'Unknown filter operator')
  }
  const idTest = (read: (share: ShareRecord) => number): Test => {
    const ids = new Set(value.split(':'))
    if (operator !== 'eq' && operator !== 'cn') throw badRequest(undefined, 'Unknown filter operator')
    return (share) => ids.has(String(read(share)))
  }
  const userName = (id: number): string => String(userInfo(store, id).userName)
  switch (name) {
    case 'name':
      return textTest((share) => share.name)
    case 'accessKey':
      // Case matters in keys.
      return (share) => share.accessKey.includes(value)
    case 'createdBy':
      return textTest((share) => userName(share.createdBy))
    case 'updatedBy':
      return textTest((share) => userName(share.updatedBy))
    case 'createdById':
    case 'userId':
      return idTest((share) => share.createdBy)
    case 'updatedById':
      return idTest((share) => share.updatedBy)
    case 'nodeId':
    case 'targetId':
      return idTest((share) => share.nodeId)
    case 'createdAt': {
      const time = parseTime(value) ?? parseTime(`${value}T00:00:00Z`)
      if (time === undefined || (operator !== 'ge' && operator !== 'le')) throw badRequest(undefined, 'Invalid filter')
      return operator === 'ge' ? (share) => share.createdAt >= time : (share) => share.createdAt <= time
    }
    default:
      throw badRequest(undefined, `Unknown filter field ${name}`)
  }
}

const MAX_SORTS = 8

/** `FIELD:asc|FIELD:desc`; by name, then by id, unless told otherwise. */
function comparatorOf(store: Store, text: string | null): (a: ShareRecord, b: ShareRecord) => number {
  const fields: Readonly<Record<string, (share: ShareRecord) => string | number>> = {
    name: (share) => share.name.toLowerCase(),
    notifyCreator: (share) => Number(share.notifyCreator === true),
    expireAt: (share) => share.expireAt ?? Number.MAX_SAFE_INTEGER,
    createdAt: (share) => share.createdAt,
    createdBy: (share) => String(userInfo(store, share.createdBy).userName).toLowerCase(),
  }
  const parts = text === null || text === '' ? ['name:asc'] : text.split('|')
  if (parts.length > MAX_SORTS) throw badRequest(undefined, 'Invalid sort')
  const keys = parts.map((part) => {
    const match = /^([A-Za-z]+):(asc|desc)$/.exec(part)
    const read = Object.hasOwn(fields, match?.[1] ?? '') ? fields[match?.[1] ?? ''] : undefined
    if (read === undefined) throw badRequest(undefined, 'Invalid sort')
    return { read, sign: match?.[2] === 'desc' ? -1 : 1 }
  })
  return (a, b) => {
    for (const { read, sign } of keys) {
      const [left, right] = [read(a), read(b)]
      if (left !== right) return left < right ? -sign : sign
    }
    return a.id - b.id
  }
}

const list =
  (kind: Kind) =>
  (call: Call): Reply => {
    const { store } = call.app
    const { access, query } = call
    const page = pageOf(query)
    const tests = splitFilter(query.get('filter')).map(({ field: name, operator, value }) =>
      testFor(store, name, operator, value),
    )
    const compare = comparatorOf(store, query.get('sort'))
    const found: ShareRecord[] = []
    for (const roomId of roomsWithShares(store)) {
      if ((access.bits(roomId) & BITS[kind]) === 0) continue
      for (const share of sharesIn(store, kind, roomId)) if (tests.every((test) => test(share))) found.push(share)
    }
    const { range, items } = pageReply(found.sort(compare), page)
    return ok({ range, items: items.map((share) => shareView(call, share)) })
  }

function positive(fields: Fields, name: string, most = MAX_INT): number | undefined {
  const value = optionalInteger(fields, name)
  if (value === 0) throw badRequest(-80001, `${name} must be positive`)
  if (value !== undefined && value > most) throw badRequest(-80002, `${name} is too large`)
  return value
}

function shortText(fields: Fields, name: string, most: number): string | undefined {
  const text = optionalString(fields, name)
  if (text !== undefined && text.length > most) throw badRequest(-80007, `${name} is too long`)
  return text
}

/** Sets or, with `undefined` in `changes`, takes away. */
type Changes = { [name: string]: unknown }

/** What both kinds take, in a new share and in a change. */
function commonFields(body: Fields, now: number): Changes {
  const changes: Changes = {}
  const name = shortText(body, 'name', 150)?.normalize('NFC')
  if (name !== undefined && name.trim() !== '') changes.name = name
  for (const text of ['notes', 'internalNotes']) {
    const value = shortText(body, text, 255)
    if (value !== undefined) changes[text] = value === '' ? undefined : value
  }
  for (const flag of ['showCreatorName', 'showCreatorUsername', 'notifyCreator']) {
    const value = optionalBoolean(body, flag)
    if (value !== undefined) changes[flag] = value
  }
  const expireAt = optionalExpiration(body, now)
  if (expireAt !== undefined) changes.expireAt = expireAt === 0 ? undefined : expireAt
  return changes
}

const LIMITS = {
  download: [['maxDownloads', MAX_INT]],
  upload: [
    ['maxSlots', MAX_INT],
    ['maxSize', Number.MAX_SAFE_INTEGER],
    ['filesExpiryPeriod', 99_999],
  ],
} as const

function limitFields(body: Fields, kind: Kind): Changes {
  const changes: Changes = {}
  for (const [name, most] of LIMITS[kind]) {
    const value = positive(body, name, most)
    if (value !== undefined) changes[name] = value
    const reset = `reset${name[0]?.toUpperCase()}${name.slice(1)}`
    if (optionalBoolean(body, reset) === true) changes[name] = undefined
  }
  const shows = kind === 'upload' ? optionalBoolean(body, 'showUploadedFiles') : undefined
  if (shows !== undefined) changes.showUploadedFiles = shows
  return changes
}

/** This server sends neither mail nor text messages, and says so rather than letting somebody wait for them. */
function refuseMessages(body: Fields): void {
  const texts = optionalArray(body, 'textMessageRecipients') ?? []
  if (texts.length > 0 || optionalBoolean(body, 'sendSms') === true) throw badRequest(-80030, 'SMS disabled')
  if (optionalBoolean(body, 'sendMail') === true) throw noMail()
}

const noMail = (): ApiError => forbidden('This server sends no mail')

function changed<S extends ShareRecord>(share: S, changes: Changes, { userId, now }: Change): S {
  const next: Record<string, unknown> = { ...share, updatedAt: now, updatedBy: userId }
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) delete next[name]
    else next[name] = value
  }
  return next as unknown as S
}

const noted = (share: ShareRecord, node: NodeRecord): string =>
  `${share.kind === 'download' ? 'link' : 'file request'} ${share.name} (${share.id}) of ${NODE_TYPES[node.type]} ${node.name}`

async function createDownload(call: Call): Promise<Reply> {
  const { app } = call
  void call.user
  const body = await call.json()
  const nodeId = requiredInteger(body, 'nodeId')
  refuseMessages(body)
  const common = commonFields(body, app.now())
  const limits = limitFields(body, 'download')
  checkKind(shareable(call.access, nodeId), body)
  const password = newPassword(body)
  const [pairField, keyField] = [field(body, 'keyPair'), field(body, 'fileKey')]
  const pair = pairField === undefined ? undefined : parseKeyPair(asFields(pairField))
  const fileKey = keyField === undefined ? undefined : parseFileKey(keyField)
  const locked = password === undefined ? undefined : await lockPassword(password)
  const view = await call.change((change, access) => {
    // Again, as of now: the hash took its time.
    const node = shareable(access, nodeId)
    checkKind(node, body)
    if (pair !== undefined && fileKey !== undefined) checkKeys(change, node, pair.version, fileKey)
    const share = createShare(change, node, {
      name: node.name,
      ...common,
      ...limits,
      ...(locked === undefined ? {} : { password: locked }),
      kind: 'download',
      downloads: 0,
    })
    if (pair !== undefined && fileKey !== undefined) {
      giveKeyPair(change, SHARE_BASE + share.id, pair)
      putFileKey(change, node.id, SHARE_BASE + share.id, fileKey)
    }
    note(change, node.roomId, 'downloadshare.create', `Created ${noted(share, node)}`)
    return shareView({ app, access, baseUrl: call.baseUrl }, share)
  })
  return created(view)
}

function shareable(access: Access, nodeId: number): NodeRecord {
  const node = access.node(nodeId, nodeNotFound)
  // A link gives what its maker can read, and no more.
  access.require(node, DOWNLOAD_SHARE | READ)
  return node
}

/** Encrypted files need keys and take no password, all else the other way round. */
function checkKind(node: NodeRecord, body: Fields): void {
  const [pair, fileKey] = [field(body, 'keyPair'), field(body, 'fileKey')]
  if (!node.encrypted) {
    if (pair !== undefined || fileKey !== undefined) throw badRequest(-50007, 'Keys are for encrypted files only')
    return
  }
  if (node.type !== FILE) throw badRequest(-50004, 'Containers of encrypted rooms cannot be shared')
  if (field(body, 'password') !== undefined) {
    throw badRequest(-50003, 'A password for an encrypted share is not for the server')
  }
  if (pair === undefined) throw badRequest(-50006, 'Key pair must be set')
  if (fileKey === undefined) throw badRequest(-50005, 'File key must be set')
}

/** The file key must fit the pair, and belong to the content that the caller can open. */
function checkKeys({ store, userId }: Change, node: NodeRecord, version: string, fileKey: FileKeyRecord): void {
  if (preferredKeyPair(store, userId) === undefined) throw new ApiError(403, -70020, 'User does not have a keypair')
  if (keyVersionOf(fileKey.version) !== version) throw badRequest(-80062, 'File key fits no key pair of the share')
  const own = KEY_VERSIONS.map((known) => store.fileKeys.get([node.id, userId, known])).find((key) => key !== undefined)
  if (own === undefined) throw new ApiError(403, -40761, 'File key not found')
  if (own.iv !== fileKey.iv || own.tag !== fileKey.tag) throw badRequest(-80062, 'File key belongs to other content')
}

async function createUpload(call: Call): Promise<Reply> {
  const { app } = call
  const { store } = app
  void call.user
  const body = await call.json()
  const targetId = requiredInteger(body, 'targetId')
  refuseMessages(body)
  const common = commonFields(body, app.now())
  const limits = limitFields(body, 'upload')
  target(store, call.access, targetId)
  const password = newPassword(body)
  const locked = password === undefined ? undefined : await lockPassword(password)
  const view = await call.change((change, access) => {
    const node = target(store, access, targetId)
    const share = createShare(change, node, {
      name: node.name,
      ...common,
      ...limits,
      ...(locked === undefined ? {} : { password: locked }),
      kind: 'upload',
      uploads: 0,
      uploadedBytes: 0,
    })
    note(change, node.roomId, 'uploadshare.create', `Created ${noted(share, node)}`)
    return shareView({ app, access, baseUrl: call.baseUrl }, share)
  })
  return created(view)
}

function target(store: Store, access: Access, id: number): NodeRecord {
  const node = access.node(id, () => new ApiError(404, -40000, 'Container not found'))
  if (node.type === FILE) throw new ApiError(404, -40000, 'Container not found')
  access.require(node, UPLOAD_SHARE)
  if (node.encrypted && preferredKeyPair(store, access.userId) === undefined) {
    throw new ApiError(403, -70020, 'User does not have a keypair')
  }
  return node
}

const update =
  (kind: Kind) =>
  async (call: Call): Promise<Reply> => {
    const { app } = call
    const { store } = app
    const id = call.id('id', () => new ApiError(404, NOT_FOUND[kind], 'Share not found'))
    const body = await call.json()
    refuseMessages(body)
    const changes = { ...commonFields(body, app.now()), ...limitFields(body, kind) }
    const { node } = managed(store, call.access, kind, id)
    if (kind === 'download' && node.encrypted && field(body, 'password') !== undefined) {
      throw badRequest(-50003, 'A password for an encrypted share is not for the server')
    }
    const password = newPassword(body)
    const resets = optionalBoolean(body, 'resetPassword') === true
    const locked = password === undefined || resets ? undefined : await lockPassword(password)
    const view = await call.change((change, access) => {
      const { share, node } = managed(store, access, kind, id)
      const next = changed(share, changes, change)
      if (resets) delete next.password
      if (locked !== undefined) next.password = locked
      if (resets || locked !== undefined) next.epoch++
      change.tx.put(store.shares, id, next)
      note(change, node.roomId, `${kind}share.update`, `Changed ${noted(next, node)}`)
      return shareView({ app, access, baseUrl: call.baseUrl }, next)
    })
    return ok(view)
  }

function bulkIds(body: Fields, name: string): number[] {
  const ids = [...new Set(idList(body, name))]
  if (ids.length > MAX_BULK) throw badRequest(-80063, 'Too many items')
  return ids
}

const updateMany =
  (kind: Kind) =>
  async (call: Call): Promise<Reply> => {
    const { store } = call.app
    void call.user
    const body = await call.json()
    const ids = bulkIds(body, 'objectIds')
    const { name: _name, notes: _notes, internalNotes: _internal, ...common } = commonFields(body, call.app.now())
    const changes = { ...common, ...limitFields(body, kind) }
    await call.change((change, access) => {
      for (const id of ids) {
        const { share, node } = managed(store, access, kind, id)
        const next = changed(share, changes, change)
        change.tx.put(store.shares, id, next)
        note(change, node.roomId, `${kind}share.update`, `Changed ${noted(next, node)}`)
      }
    })
    return { status: 200 }
  }

function revoke(change: Change, access: Access, kind: Kind, id: number): void {
  const { share, node } = managed(change.store, access, kind, id)
  removeShare(change, share, node.roomId)
  note(change, node.roomId, `${kind}share.delete`, `Deleted ${noted(share, node)}`)
}

const remove =
  (kind: Kind) =>
  async (call: Call): Promise<Reply> => {
    const id = call.id('id', () => new ApiError(404, NOT_FOUND[kind], 'Share not found'))
    await call.change((change, access) => revoke(change, access, kind, id))
    return noContent()
  }

const removeMany =
  (kind: Kind) =>
  async (call: Call): Promise<Reply> => {
    void call.user
    const ids = [...new Set(idList(await call.json(), 'shareIds'))]
    await call.change((change, access) => {
      for (const id of ids) revoke(change, access, kind, id)
    })
    return noContent()
  }

/** Checks what the API checks, and then says that nothing is sent. */
const mail =
  (kind: Kind) =>
  async (call: Call): Promise<Reply> => {
    const id = call.id('id', () => new ApiError(404, NOT_FOUND[kind], 'Share not found'))
    void call.user
    const body = await call.json()
    const recipients = optionalArray(body, 'recipients') ?? []
    const text = optionalString(body, 'body')
    if (recipients.length === 0 || text === undefined || text === '') {
      throw badRequest(-80000, 'recipients and body are mandatory')
    }
    const isAddress = (address: unknown): boolean =>
      typeof address === 'string' && address.length <= 254 && /^[^\s@<>,;]+@[^\s@<>,;]+$/.test(address)
    if (recipients.length > MAX_RECIPIENTS || !recipients.every(isAddress)) {
      throw badRequest(-80009, 'Invalid email address')
    }
    managed(call.app.store, call.access, kind, id)
    throw noMail()
  }

const routesOf = (kind: Kind, create: (call: Call) => Promise<Reply>): RouteTable => ({
  [`GET /v4/shares/${kind}s`]: list(kind),
  [`POST /v4/shares/${kind}s`]: create,
  [`PUT /v4/shares/${kind}s`]: updateMany(kind),
  [`DELETE /v4/shares/${kind}s`]: removeMany(kind),
  [`GET /v4/shares/${kind}s/:id`]: getOne(kind),
  [`PUT /v4/shares/${kind}s/:id`]: update(kind),
  [`DELETE /v4/shares/${kind}s/:id`]: remove(kind),
  [`POST /v4/shares/${kind}s/:id/email`]: mail(kind),
})

export const shareRoutes: RouteTable = {
  ...routesOf('download', createDownload),
  ...routesOf('upload', createUpload),
}
