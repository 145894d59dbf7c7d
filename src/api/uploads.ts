/**
 * One upload at the server, step by step, for both storage routes, into a room or folder or to a file request. The order of steps is
 * transfer/upload-channel.ts.
 * @module
 */
import type { FileKeyJson } from '../../crypto/containers.ts'
import { SyncError } from '../errors.ts'
import { type Api, call, callFor, expectSuccess, failureOf, template } from './api.ts'
import {
  formatTime,
  parseChunkReceipt,
  parseErrorBody,
  parseJson,
  parseNode,
  parsePartUrls,
  parsePublicUpload,
  parsePublicUploadedFile,
  parsePublicUploadStatus,
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

/** Where uploads are opened. */
const opened = ({ request }: Api) =>
  request === undefined
    ? '/v4/nodes/files/uploads'
    : `/v4/public/shares/uploads/${encodeURIComponent(request.accessKey)}`

const pathOf = (api: Api, uploadId: string) => `${opened(api)}/${encodeURIComponent(uploadId)}`

/** An upload that a server has opened. */
export interface OpenedUpload {
  readonly uploadId: string
  /** Of the classic route; a file request has none. */
  readonly token?: string
}

/** @param direct - Parts go to object storage. */
export function createUpload(
  api: Api,
  target: UploadTarget,
  direct: boolean,
  signal?: AbortSignal,
): Promise<OpenedUpload> {
  const { request } = api
  const place =
    request === undefined
      ? { parentId: target.parentId }
      : { ...(request.password === undefined ? {} : { password: request.password }) }
  const json = {
    ...place,
    name: target.name,
    ...(target.size === undefined ? {} : { size: target.size }),
    directS3Upload: direct,
    timestampModification: formatTime(target.modifiedAt),
  }
  // A stray upload holds nothing and is dropped by the server.
  const how = { method: 'POST', path: opened(api), json, signal, repeatable: true } as const
  return request === undefined ? callFor(api, how, parseUpload) : callFor(api, how, parsePublicUpload)
}

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
      path: `${pathOf(api, uploadId)}/s3_urls`,
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
  /** Links of the file that is replaced lead to this one then. */
  readonly keepShareLinks?: boolean | undefined
  /** The key for links that stay; to an encrypted file request, for each who is to open the file. */
  readonly userFileKeys?: readonly { readonly userId: number; readonly fileKey: FileKeyJson }[] | undefined
}

const completion = ({ resolution, fileName, fileKey, keepShareLinks = false, userFileKeys }: Completion) => ({
  resolutionStrategy: resolution,
  // It means nothing where nothing is replaced, and is refused there.
  keepShareLinks: keepShareLinks && resolution === 'overwrite',
  fileName,
  ...(fileKey === undefined ? {} : { fileKey }),
  ...(userFileKeys === undefined ? {} : { userFileKeyList: { items: userFileKeys } }),
})

/** What a file request tells of a file is its name and size. */
const requested = ({ name, size }: { readonly name: string; readonly size?: number }): RemoteNode => ({
  id: 0,
  type: 'file',
  name,
  ...(size === undefined ? {} : { size }),
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
    path: `${pathOf(api, uploadId)}/s3`,
    json:
      api.request === undefined
        ? { parts, ...completion(how) }
        : { parts, ...(how.userFileKeys === undefined ? {} : { userFileKeyList: how.userFileKeys }) },
    signal,
    repeatable: false,
  })
}

/** For a file request with a node that has no id. */
async function askStatus(
  api: Api,
  uploadId: string,
  signal: AbortSignal | undefined,
): Promise<ReturnType<typeof parseUploadStatus>> {
  const how = { method: 'GET', path: pathOf(api, uploadId), signal } as const
  if (api.request === undefined) return callFor(api, how, parseUploadStatus)
  const { fileName, size, ...answer } = await callFor(api, how, parsePublicUploadStatus)
  const file = { name: fileName ?? '', ...(size === undefined ? {} : { size }) }
  return answer.status === 'done' ? { ...answer, node: requested(file) } : answer
}

/** @returns the node when done, `undefined` while the server is busy; throws what went wrong while finishing. */
export async function getUploadStatus(
  api: Api,
  uploadId: string,
  signal?: AbortSignal,
): Promise<RemoteNode | undefined> {
  const answer = await askStatus(api, uploadId, signal)
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
  return (await askStatus(api, uploadId, signal)).status === 'transfer'
}

/** Where the chunks of a classic upload go, on the API host: the host is ours to choose, not the answer's. */
function chunksAt(api: Api, { uploadId, token }: OpenedUpload): { readonly url: string; readonly label: string } {
  const isByToken = api.request === undefined && token !== undefined
  const path = isByToken ? `/v4/uploads/${encodeURIComponent(token)}` : pathOf(api, uploadId)
  const label = isByToken ? '/api/v4/uploads/{token}' : `/api${template(path)}`
  return { url: new URL(`/api${path}`, api.origin).href, label }
}

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
  upload: OpenedUpload,
  chunk: Uint8Array,
  offset: number,
  total: number | undefined,
  signal?: AbortSignal,
): Promise<{ size?: number; hash?: string }> {
  const { url, label } = chunksAt(api, upload)
  const response = await api.sendPlain({
    method: 'POST',
    url,
    body: chunk,
    label,
    headers: {
      'content-type': 'application/octet-stream',
      ...(chunk.length === 0
        ? {}
        : { 'content-range': `bytes ${offset}-${offset + chunk.length - 1}/${total ?? '*'}` }),
    },
    repeatable: chunk.length !== 1,
    ...(signal === undefined ? {} : { signal }),
  })
  return parseChunkReceipt(parseJson(expectSuccess(response, `POST ${label}`).body), 'body')
}

/** Ends a classic upload. Never repeated blindly. */
export async function completeChunks(
  api: Api,
  upload: OpenedUpload,
  how: Completion,
  signal?: AbortSignal,
): Promise<RemoteNode> {
  const { url, label } = chunksAt(api, upload)
  const json = api.request === undefined ? completion(how) : { items: how.userFileKeys ?? [] }
  const response = await api.sendPlain({
    method: 'PUT',
    url,
    body: Buffer.from(JSON.stringify(json)),
    label,
    headers: { 'content-type': 'application/json', accept: 'application/json' },
    repeatable: false,
    ...(signal === undefined ? {} : { signal }),
  })
  const answer = parseJson(expectSuccess(response, `PUT ${label}`).body)
  return api.request === undefined ? parseNode(answer, 'body') : requested(parsePublicUploadedFile(answer, 'body'))
}

/** Gives an upload up. */
export async function cancelUpload(api: Api, uploadId: string, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: pathOf(api, uploadId), signal })
}
