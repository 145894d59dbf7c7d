/**
 * Downloads: handing out a URL, and serving content from it with ranges. The URL is reusable and needs no login; the
 * rights of the user it was made for are looked at each time. Content in an object store has a presigned URL there
 * instead, good until it runs out.
 * @module
 */
import { Access, READ } from '../access.ts'
import { pathOf } from '../admin/paths.ts'
import { audit } from '../audit.ts'
import type { RouteTable } from '../call.ts'
import { type Call, ok, type Reply } from '../call.ts'
import { ApiError, contentGone, fileNotFound } from '../errors.ts'
import { FILE, type NodeRecord } from '../records.ts'

function fileOf(access: Access, id: number): NodeRecord {
  const file = access.node(id, fileNotFound)
  if (file.type !== FILE) throw fileNotFound()
  access.require(file, READ)
  return file
}

function createUrl(call: Call): Reply {
  const { app, user, access } = call
  const file = fileOf(access, call.id('id', fileNotFound))
  const token = app.signer.downloadToken(file.id, user.id, app.now() + app.downloadUrlLifetimeS * 1000)
  const record = app.store.contents.get(file.contentId ?? '')
  noteDownload(call, file)
  const elsewhere = record && app.blobs.contentUrl(record, app.downloadUrlLifetimeS)
  return ok({ downloadUrl: elsewhere ?? `${call.baseUrl}/api/v4/downloads/${token}`, token })
}

/** Tells the audit log; nobody has to wait for that. */
function noteDownload({ app, user, address }: Call, file: NodeRecord): void {
  const { store, now } = app
  const message = `Downloaded file ${pathOf(store, file.id)}`
  const deed = { operation: 'file.download', message, nodeId: file.id, roomId: file.roomId }
  store.write((tx) => audit({ store, tx, userId: user.id, now: now(), address }, deed)).catch(app.onError)
}

function byToken(call: Call): Promise<Reply> {
  const { app } = call
  const allowed = app.signer.readDownloadToken(call.param('token'), app.now())
  const user = allowed && app.store.users.get(allowed.userId)
  if (allowed === undefined || user === undefined || user.disabledAt !== undefined) {
    throw new ApiError(404, -20502, 'Download token is invalid')
  }
  return content(call, fileOf(new Access(app.store, allowed.userId), allowed.fileId))
}

/** `bytes=a-b`, `bytes=a-` or `bytes=-n`; anything else, several ranges included, is ignored as HTTP allows. */
function parseRange(header: string | undefined, size: number): { start: number; end: number } | 'none' | 'bad' {
  const match = /^bytes=(\d{0,16})-(\d{0,16})$/.exec(header?.trim() ?? '')
  const [from, to] = [match?.[1] ?? '', match?.[2] ?? '']
  if (match === null || (from === '' && to === '')) return 'none'
  if (from === '') {
    const length = Math.min(Number(to), size)
    return length === 0 ? 'bad' : { start: size - length, end: size }
  }
  const start = Number(from)
  if (to !== '' && Number(to) < start) return 'none'
  if (start >= size) return 'bad'
  return { start, end: to === '' ? size : Math.min(Number(to) + 1, size) }
}

/** Content of a file, or the range of it that is asked for. */
export async function content(call: Call, file: NodeRecord): Promise<Reply> {
  const { store, blobs } = call.app
  const record = store.contents.get(file.contentId ?? '')
  if (record === undefined) throw contentGone(file.contentId ?? '')
  const headers = {
    'Content-Type': 'application/octet-stream',
    'Content-Disposition': 'attachment',
    'Accept-Ranges': 'bytes',
    'Cache-Control': 'no-store',
  }
  const range = parseRange(call.headers.range, record.size)
  if (range === 'bad') {
    throw new ApiError(416, undefined, 'Range cannot be satisfied', { 'Content-Range': `bytes */${record.size}` })
  }
  const { start, end } = range === 'none' ? { start: 0, end: record.size } : range
  // A request for the headers alone must not start a stream that nobody reads.
  const wanted = call.method === 'HEAD' ? start : end
  const stream = await blobs.read(record.segments, start, wanted)
  if (range === 'none') return { status: 200, headers: { ...headers, 'Content-Length': record.size }, stream }
  return {
    status: 206,
    headers: {
      ...headers,
      'Content-Length': end - start,
      'Content-Range': `bytes ${start}-${end - 1}/${record.size}`,
    },
    stream,
  }
}

function byLogin(call: Call): Promise<Reply> {
  const file = fileOf(call.access, call.id('id', fileNotFound))
  noteDownload(call, file)
  return content(call, file)
}

export const downloadRoutes: RouteTable = {
  'POST /v4/nodes/files/:id/downloads': createUrl,
  'GET /v4/downloads/:token': byToken,
  // An older way, with a login and without a URL of its own.
  'GET /v4/nodes/files/:id/downloads': byLogin,
}
