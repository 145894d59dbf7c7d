/**
 * What a visitor gets by a link to a file, a plain room or a plain folder: what it is, a token for one download, and the bytes.
 * Links that are unknown, malformed, revoked or out of date cannot be told apart.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { audit } from '../audit.ts'
import { type Call, created, ok, type Reply, type RouteTable } from '../call.ts'
import { ApiError, badRequest, contentGone } from '../errors.ts'
import { SHARE_BASE } from '../holders.ts'
import { type DownloadShareRecord, FILE, FOLDER, NODE_TYPES, type NodeRecord, ROOM } from '../records.ts'
import { findShare, hasRunOut, isUsedUp, redeem } from '../shares.ts'
import type { ShareDownload } from '../signing.ts'
import type { Store } from '../store.ts'
import { optionalString } from '../validate.ts'
import { dateView, keyPairView, preferredKeyPair, type Wire } from '../view.ts'
import { type ZipEntry, zipOf } from '../zip.ts'
import { content } from './downloads.ts'

interface Shared {
  share: DownloadShareRecord
  node: NodeRecord
}

const notFound = (): ApiError => new ApiError(404, -50000, 'Download access key not found')
const usedUp = (): ApiError => new ApiError(404, -50002, 'Downloads limit reached')
const badToken = (): ApiError => new ApiError(404, -50001, 'Download token not found')
const tooMany = (): ApiError => new ApiError(429, undefined, 'Too many downloads at once', { 'Retry-After': '30' })

const NO_STORE = { 'Cache-Control': 'no-store' }
/** Entries of one archive, and of its folders that are looked at before other requests get a turn. */
const MAX_ENTRIES = 100_000
const SLICE = 1000

function shared(call: Call): Shared {
  const found = findShare(call.app.store, 'download', call.param('key'), call.app.now())
  if (found === undefined) throw notFound()
  return found
}

/** The file key of an encrypted share with the key pair that opens it; neither once the share is used up. */
function keysOf(store: Store, { share, node }: Shared): Wire | undefined {
  const holder = SHARE_BASE + share.id
  const pair = preferredKeyPair(store, holder)
  const fileKey = pair && store.fileKeys.get([node.id, holder, pair.version])
  return pair && fileKey && { fileKey, privateKeyContainer: keyPairView(pair).privateKeyContainer }
}

function info(call: Call): Reply {
  const { store } = call.app
  const found = shared(call)
  const { share, node } = found
  const creator = store.users.get(share.createdBy)?.name
  const limitReached = isUsedUp(share)
  const json: Wire = {
    isProtected: share.password !== undefined,
    fileName: node.name,
    size: node.size,
    limitReached,
    creatorName: share.showCreatorName === true ? (creator ?? '') : '',
    createdAt: dateView(share.createdAt),
    hasDownloadLimit: share.maxDownloads !== undefined,
    mediaType: node.type === FILE ? 'application/octet-stream' : 'application/zip',
    name: share.name,
    isEncrypted: node.encrypted,
    ...(share.showCreatorUsername === true && creator !== undefined ? { creatorUsername: creator } : {}),
    ...(share.expireAt === undefined ? {} : { expireAt: dateView(share.expireAt) }),
    ...(share.notes === undefined ? {} : { notes: share.notes }),
    ...(node.encrypted && !limitReached ? keysOf(store, found) : {}),
  }
  return { ...ok(json), headers: NO_STORE }
}

const downloadOf = ({ share, node }: Shared): ShareDownload => ({
  shareId: share.id,
  epoch: share.epoch,
  contentId: node.contentId ?? '',
})

async function token(call: Call): Promise<Reply> {
  const { app } = call
  const found = shared(call)
  const { share, node } = found
  const password = optionalString(await call.json('optional'), 'password')
  if (node.encrypted) {
    if (password !== undefined) throw badRequest(-50008, 'Passwords of encrypted shares are not for the server')
    if (isUsedUp(share)) throw usedUp()
    if (keysOf(app.store, found) === undefined) throw new ApiError(404, -40761, 'File key not found')
  } else {
    if (!(await app.sharePasswords.matches(share, password, call.address))) {
      throw new ApiError(401, -50009, 'Wrong password for Download Share link')
    }
    if (isUsedUp(share)) throw usedUp()
    if (node.type !== FILE) await checkArchive(call, node)
  }
  const expiresAt = app.now() + app.downloadUrlLifetimeS * 1000
  const text = app.signer.shareToken(downloadOf(found), randomBytes(16).toString('hex'), expiresAt)
  const path = `/api/v4/public/shares/downloads/${share.accessKey}/${text}`
  return { ...created({ downloadUrl: `${call.baseUrl}${path}`, token: text }), headers: NO_STORE }
}

/** Refuses what would become too large before anything of it is sent. */
async function checkArchive(call: Call, node: NodeRecord): Promise<void> {
  const giveBack = call.app.archives.take(call.address)
  if (giveBack === undefined) throw tooMany()
  try {
    let entries = 0
    for await (const _entry of below(call.app.store, node, '')) {
      if (++entries > MAX_ENTRIES) throw new ApiError(413, undefined, 'Too many files for one archive')
    }
  } finally {
    giveBack()
  }
}

async function download(call: Call): Promise<Reply> {
  const { app } = call
  const found = shared(call)
  const { share, node } = found
  const nonce = app.signer.readShareToken(call.param('token'), downloadOf(found), app.now())
  if (nonce === undefined) throw badToken()
  const isCounted = app.store.redeemed.doesExist([share.id, nonce])
  if (!isCounted && isUsedUp(share)) throw usedUp()
  if (node.type !== FILE && call.headers.range !== undefined)
    throw badRequest(-80022, 'Range cannot be set at ZIP download')
  const reply = node.type === FILE ? await content(call, node) : archive(call, found)
  try {
    // Only what can be served counts, and only once; looking at the headers does not.
    if (!isCounted && call.method !== 'HEAD') await countDownload(call, found, nonce)
  } catch (error) {
    await reply.stream?.[Symbol.asyncIterator]().return?.()
    throw error
  }
  const stream = reply.stream && whileShared(reply.stream, () => isStillShared(call, found))
  const headers = { ...reply.headers, 'Content-Disposition': dispositionOf(node) }
  return { ...reply, headers, ...(stream === undefined ? {} : { stream }) }
}

async function countDownload({ app, address }: Call, { share, node }: Shared, nonce: string): Promise<void> {
  const { store } = app
  const outcome = await store.write((tx) => {
    const now = app.now()
    const isNew = !store.redeemed.doesExist([share.id, nonce])
    const known = redeem({ store, tx, now }, share, nonce, app.downloadUrlLifetimeS * 1000)
    const message = `Downloaded ${NODE_TYPES[node.type]} ${node.name} by link ${share.name} (${share.id})`
    const deed = { operation: 'downloadshare.used', message, nodeId: node.id, roomId: node.roomId }
    if (isNew && known === 'good') audit({ store, tx, userId: SHARE_BASE + share.id, now, address }, deed)
    return known
  })
  if (outcome === 'gone') throw notFound()
  if (outcome === 'used-up') throw usedUp()
  if (outcome === 'too-many') throw tooMany()
}

function isStillShared({ app }: Call, { share, node }: Shared): boolean {
  const now = app.store.shares.get(share.id)
  if (now === undefined || now.epoch !== share.epoch || now.nodeId !== node.id || hasRunOut(now, app.now()))
    return false
  return app.store.nodes.get(node.id)?.contentId === node.contentId
}

/** Ends a stream in the middle when its share has ended; whoever reads it sees a broken connection. */
function whileShared(source: AsyncIterable<Uint8Array>, isShared: () => boolean): AsyncIterable<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  const end = async (): Promise<IteratorResult<Uint8Array>> =>
    (await iterator.return?.()) ?? { done: true, value: undefined }
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        if (isShared()) return iterator.next()
        await end()
        throw notFound()
      },
      return: end,
    }),
  }
}

/** A file name in quotes for old readers, and in full (RFC 6266). */
function dispositionOf(node: NodeRecord): string {
  const name = node.type === FILE ? node.name : `${node.name}.zip`
  const plain = name.replace(/[^ !#-[\]-~]/g, '_')
  const full = encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
  return `attachment; filename="${plain}"; filename*=UTF-8''${full}`
}

/** All files and folders below a container, in slices and without those of rooms in it. */
async function* below(
  store: Store,
  container: NodeRecord,
  path: string,
): AsyncGenerator<{ node: NodeRecord; path: string }> {
  let start: [number, number, string, number] = [container.id, FOLDER, '', 0]
  for (;;) {
    const range = { start, end: [container.id, FILE + 1, '', 0], limit: SLICE }
    const slice = [...store.children.getRange(range)]
    for (const { value } of slice) {
      const node = store.nodes.get(value)
      if (node === undefined || node.type === ROOM) continue
      const own = `${path}${node.name}`
      yield { node, path: node.type === FILE ? own : `${own}/` }
      if (node.type === FOLDER) yield* below(store, node, `${own}/`)
    }
    const last = slice.at(-1)
    if (last === undefined || slice.length < SLICE) return
    const [parent, type, name, id] = last.key
    start = [parent, type, name, id + 1]
    await new Promise((resolve) => setImmediate(resolve))
  }
}

async function* entriesOf({ app }: Call, top: NodeRecord): AsyncGenerator<ZipEntry> {
  const { store, blobs } = app
  let count = 0
  for await (const { node, path } of below(store, top, `${top.name}/`)) {
    if (++count > MAX_ENTRIES) throw new ApiError(413, undefined, 'Too many files for one archive')
    const entry = {
      path,
      size: node.type === FILE ? node.size : 0,
      modifiedAt: node.timestampModification ?? node.updatedAt,
    }
    if (node.type !== FILE) yield entry
    else {
      const open = (): Promise<AsyncIterable<Uint8Array>> => {
        const record = store.contents.get(node.contentId ?? '')
        if (record === undefined) throw contentGone(node.contentId ?? '')
        return blobs.read(record.segments, 0, record.size)
      }
      yield { ...entry, open }
    }
  }
}

function archive(call: Call, { node }: Shared): Reply {
  const giveBack = call.app.archives.take(call.address)
  if (giveBack === undefined) throw tooMany()
  const bytes = zipOf(entriesOf(call, node))
  let isOver = false
  const over = (): void => {
    if (!isOver) giveBack()
    isOver = true
  }
  const stream: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({
      async next() {
        const result = await bytes.next().catch((error: unknown) => {
          over()
          throw error
        })
        if (result.done === true) over()
        return result
      },
      return() {
        over()
        return bytes.return(undefined)
      },
    }),
  }
  return { status: 200, headers: { ...NO_STORE, 'Content-Type': 'application/zip' }, stream }
}

export const publicDownloadRoutes: RouteTable = {
  'GET /v4/public/shares/downloads/:key': info,
  'POST /v4/public/shares/downloads/:key': token,
  'GET /v4/public/shares/downloads/:key/:token': download,
}
