/**
 * The built-in part store behind presigned URLs. It knows no logins: the signature in the URL is the permission. Errors are XML.
 * @module
 */
import type { Call, Reply, RouteTable } from '../call.ts'
import { ApiError, StorageError } from '../errors.ts'

async function putPart(call: Call): Promise<Reply> {
  const { signer, uploads, now } = call.app
  const allowed = signer.readPartUrl(call.param('upload'), call.param('part'), call.query, now())
  if (allowed === 'bad') throw new StorageError(403, 'SignatureDoesNotMatch', 'The signature does not match')
  if (allowed === 'expired') throw new StorageError(403, 'AccessDenied', 'Request has expired')
  const length = call.headers['content-length']
  if (length === undefined) throw new StorageError(411, 'MissingContentLength', 'Content-Length is required')
  if (Number(length) !== allowed.size) {
    throw new StorageError(400, 'IncompleteBody', 'Content-Length is not what was announced')
  }
  const channel = uploads.find(allowed.uploadId)
  if (channel === undefined || channel.status === 'finishing') {
    throw new StorageError(404, 'NoSuchUpload', 'The upload does not exist')
  }
  try {
    const etag = await uploads.putPart(channel, allowed.part, call.body)
    return { status: 200, headers: { ETag: `"${etag}"` } }
  } catch (error) {
    if (error instanceof ApiError && error.status === 429) throw new StorageError(503, 'SlowDown', 'Too much at once')
    if (error instanceof ApiError && error.status === 507) throw new StorageError(507, 'EntityTooLarge', error.message)
    if (error instanceof ApiError) throw new StorageError(404, 'NoSuchUpload', 'The upload does not exist')
    throw error
  }
}

export const storageRoutes: RouteTable = {
  'PUT /s3/:upload/:part': putPart,
}
