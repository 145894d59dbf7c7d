/** One upload at the server, step by step, for both storage routes. The order of steps is transfer/upload-channel.ts. @module */
import type { FileKeyJson } from '../../crypto/containers.ts'
import { SyncError } from '../errors.ts'
import { type Api, call, callFor, expectSuccess, failureOf } from './api.ts'
import {
  formatTime,
  parseChunkReceipt,
  parseErrorBody,
  parseJson,
  parseNode,
  parsePartUrls,
  parseUpload,
  parseUploadStatus,
  type RemoteNode,
} from './wire.ts'

export interface UploadTarget {
  readonly parentId: number
  readonly name: string
  /** Bytes of ciphertext, which are those of the plaintext; absent while nobody knows. */
  readonly size?: number
  /** Milliseconds since the epoch. */
  readonly modifiedAt: number
}

export type Resolution = 'fail' | 'overwrite'

/** @param direct - Parts go to object storage. */
export const createUpload = (api: Api, target: UploadTarget, direct: boolean, signal?: AbortSignal) =>
  callFor(
    api,
    {
      method: 'POST',
      path: '/v4/nodes/files/uploads',
      json: {
        parentId: target.parentId,
        name: target.name,
        ...(target.size === undefined ? {} : { size: target.size }),
        directS3Upload: direct,
        timestampModification: formatTime(target.modifiedAt),
      },
      signal,
      repeatable: true, // a stray upload holds nothing and is dropped by the server
    },
    parseUpload,
  )

/**
 * Presigned URLs for parts of exactly `size` bytes each. The server may send fewer than were asked for.
 *
 * @param first - Number of the first part.
 * @param last - Number of the last one.
 * @throws {SyncError} `ANSWER_INVALID` when there is none for the first.
 */
export async function getPartUrls(
  api: Api,
  uploadId: string,
  { first, last, size }: { readonly first: number; readonly last: number; readonly size: number },
  signal?: AbortSignal,
): Promise<ReadonlyMap<number, string>> {
  const { urls } = await callFor(
    api,
    {
      method: 'POST',
      path: `/v4/nodes/files/uploads/${encodeURIComponent(uploadId)}/s3_urls`,
      json: { size, firstPartNumber: first, lastPartNumber: last },
      signal,
      repeatable: true,
    },
    parsePartUrls,
  )
  const found = new Map<number, string>()
  for (const { partNumber, url } of urls) if (partNumber >= first && partNumber <= last) found.set(partNumber, url)
  if (!found.has(first)) throw new SyncError('server', 'ANSWER_INVALID', 'The server sent no URL for the part')
  return found
}

/**
 * Puts one part to object storage.
 *
 * @param onSent - See HttpRequest.
 * @returns the part's ETag without quotes.
 * @throws {SyncError} `URL_EXPIRED` for a 403: ask for another URL and send the same bytes.
 */
export async function putPart(
  api: Api,
  url: string,
  part: Uint8Array,
  signal?: AbortSignal,
  onSent?: () => void,
): Promise<string> {
  const response = await api.sendPlain({
    method: 'PUT',
    url,
    body: part,
    label: 'storage part',
    repeatable: true,
    ...(signal === undefined ? {} : { signal }),
    ...(onSent === undefined ? {} : { onSent }),
  })
  if (response.status === 403) {
    throw new SyncError('changed', 'URL_EXPIRED', 'The storage refused the part’s URL', { status: 403 })
  }
  if (response.status >= 400 && response.status < 500 && response.status !== 429) {
    throw new SyncError('server', 'STORAGE_REFUSED', `The storage refused a part (${response.status})`, {
      hint: 'The server and its storage disagree; ask its administrator.',
      status: response.status,
    })
  }
  expectSuccess(response, 'PUT storage part')
  const etag = response.headers.etag?.replaceAll('"', '')
  if (etag === undefined || etag === '' || etag.length > 256) {
    throw new SyncError('server', 'ANSWER_INVALID', 'The storage sent no ETag for the part')
  }
  return etag
}

export interface Completion {
  readonly resolution: Resolution
  readonly fileName: string
  readonly fileKey?: FileKeyJson | undefined
}

const completion = ({ resolution, fileName, fileKey }: Completion) => ({
  resolutionStrategy: resolution,
  keepShareLinks: false,
  fileName,
  ...(fileKey === undefined ? {} : { fileKey }),
})

/** Asks the server to put the parts together; poll `getUploadStatus` afterwards. Never repeated blindly. */
export async function completeParts(
  api: Api,
  uploadId: string,
  parts: readonly { partNumber: number; partEtag: string }[],
  how: Completion,
  signal?: AbortSignal,
): Promise<void> {
  await call(api, {
    method: 'PUT',
    path: `/v4/nodes/files/uploads/${encodeURIComponent(uploadId)}/s3`,
    json: { parts, ...completion(how) },
    signal,
    repeatable: false,
  })
}

/** @returns the node when done, `undefined` while the server is busy; throws what went wrong while finishing. */
export async function getUploadStatus(
  api: Api,
  uploadId: string,
  signal?: AbortSignal,
): Promise<RemoteNode | undefined> {
  const path = `/v4/nodes/files/uploads/${encodeURIComponent(uploadId)}`
  const answer = await callFor(api, { method: 'GET', path, signal }, parseUploadStatus)
  if (answer.status === 'error') {
    let details: ReturnType<typeof parseErrorBody> = {}
    try {
      details = parseErrorBody(answer.errorDetails, 'errorDetails')
    } catch {
      // No details: an error without a name.
    }
    const { code } = details
    throw failureOf(code !== undefined && code >= 400 ? code : 500, details, 'finishing the upload')
  }
  if (answer.status !== 'done') return undefined
  if (answer.node === undefined) throw new SyncError('server', 'ANSWER_INVALID', 'The finished upload has no node')
  return answer.node
}

/** True while the server still waits for parts of this upload. */
export async function isUploadOpen(api: Api, uploadId: string, signal?: AbortSignal): Promise<boolean> {
  const path = `/v4/nodes/files/uploads/${encodeURIComponent(uploadId)}`
  return (await callFor(api, { method: 'GET', path, signal }, parseUploadStatus)).status === 'transfer'
}

/** The token of a classic upload as a URL on the API host: the host is ours to choose, not the answer's. */
const tokenUrl = (api: Api, token: string) => new URL(`/api/v4/uploads/${encodeURIComponent(token)}`, api.origin).href

/**
 * Sends one chunk through the server.
 *
 * @param offset - Of its first byte in the file. A chunk of one byte cannot say where it belongs (start and end are equal,
 * which servers read as "append"), so it is never repeated.
 * @param total - Bytes of the whole file, where they are known.
 * @returns MD5 of what the server received, hex, if it says.
 */
export async function postChunk(
  api: Api,
  token: string,
  chunk: Uint8Array,
  offset: number,
  total: number | undefined,
  signal?: AbortSignal,
): Promise<{ size?: number; hash?: string }> {
  const response = await api.sendPlain({
    method: 'POST',
    url: tokenUrl(api, token),
    body: chunk,
    label: '/api/v4/uploads/{token}',
    headers: {
      'content-type': 'application/octet-stream',
      ...(chunk.length === 0
        ? {}
        : { 'content-range': `bytes ${offset}-${offset + chunk.length - 1}/${total ?? '*'}` }),
    },
    repeatable: chunk.length !== 1,
    ...(signal === undefined ? {} : { signal }),
  })
  return parseChunkReceipt(parseJson(expectSuccess(response, 'POST /api/v4/uploads/{token}').body), 'body')
}

/** Ends a classic upload. Never repeated blindly. */
export async function completeChunks(
  api: Api,
  token: string,
  how: Completion,
  signal?: AbortSignal,
): Promise<RemoteNode> {
  const response = await api.sendPlain({
    method: 'PUT',
    url: tokenUrl(api, token),
    body: Buffer.from(JSON.stringify(completion(how))),
    label: '/api/v4/uploads/{token}',
    headers: { 'content-type': 'application/json', accept: 'application/json' },
    repeatable: false,
    ...(signal === undefined ? {} : { signal }),
  })
  return parseNode(parseJson(expectSuccess(response, 'PUT /api/v4/uploads/{token}').body), 'body')
}

/** Gives an upload up. */
export async function cancelUpload(api: Api, uploadId: string, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: `/v4/nodes/files/uploads/${encodeURIComponent(uploadId)}`, signal })
}
