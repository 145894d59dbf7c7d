/**
 * The few operations on an object store that the server needs, one function each: requests in, checked values out. When
 * they are called is blobs.ts.
 * @module
 */
import { SyncError } from '../../../crypto/errors.ts'
import { bareEtag } from '../blobs.ts'
import { ApiError, badRequest, contentGone } from '../errors.ts'
import { type Mark, markText, type Place, parseMark } from '../mark.ts'
import { type S3Options, StoreClient, StoreFailure, type StoreRequest } from './client.ts'
import { childrenNamed, childText, escapeXml, parseXml, type XmlElement } from './xml.ts'

export interface StoredPart {
  readonly number: number
  readonly etag: string
  readonly size: number
}

const MAX_PAGES = 100
const uploadGone = (): ApiError => new ApiError(404, -90034, 'The upload is gone at the object storage')

const isCode = (error: unknown, ...codes: string[]): boolean =>
  error instanceof StoreFailure && codes.includes(error.code)
const isMissing = (error: unknown): boolean => error instanceof StoreFailure && error.storeStatus === 404

/** Where the object of a content is. */
export const keyOf = (id: string): string => `sealsync/${id}`
/** Says in the bucket whose it is. */
const MARK_KEY = 'sealsync/store'

export class ObjectStore implements Place {
  readonly key = 'objects'
  readonly name: string
  readonly #client: StoreClient

  /** @throws {SyncError} `S3_OPTIONS`. */
  constructor(options: S3Options, now: () => number) {
    this.#client = new StoreClient(options, now)
    this.name = `the bucket ${options.bucket}`
  }

  async readMark(): Promise<Mark | undefined> {
    const request: StoreRequest = { name: 'GetObject', method: 'GET', key: MARK_KEY, repeatable: true }
    try {
      return parseMark((await this.#client.send(request)).body, this.name)
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  }

  async writeMark(mark: Mark): Promise<void> {
    const headers = { 'content-type': 'application/json' }
    const body = markText(mark)
    await this.#client.send({ name: 'PutObject', method: 'PUT', key: MARK_KEY, headers, body, repeatable: true })
  }

  /** A bucket may hold what is not ours. */
  hasContent(): Promise<undefined> {
    return Promise.resolve(undefined)
  }

  get host(): string {
    return this.#client.host
  }

  close(): void {
    this.#client.close()
  }

  async #document(request: StoreRequest, root: string): Promise<XmlElement> {
    const { body } = await this.#client.send(request)
    try {
      const document = parseXml(body)
      if (document.name === root) return document
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
    }
    throw new StoreFailure(request.name, 200, 'AnswerInvalid')
  }

  /**
   * Finds out whether the bucket is there and ours.
   *
   * @throws {SyncError} `S3_BUCKET_MISSING`, `S3_REFUSED`, `S3_UNREACHABLE`.
   */
  async check(): Promise<void> {
    try {
      await this.#client.send({ name: 'HeadBucket', method: 'HEAD', key: '', repeatable: true })
    } catch (cause) {
      const status = cause instanceof StoreFailure ? cause.storeStatus : 0
      if (status === 404) {
        const hint = 'Create it with the tools of the object storage.'
        throw new SyncError('usage', 'S3_BUCKET_MISSING', 'The bucket does not exist', { hint, cause })
      }
      if (status >= 300 && status < 500) {
        const hint = 'Check the keys, the region and the clock of this machine.'
        throw new SyncError('usage', 'S3_REFUSED', `The object storage refuses the bucket (${status})`, { hint, cause })
      }
      const hint = 'Check the endpoint, and whether --s3-path-style is needed.'
      throw new SyncError('network', 'S3_UNREACHABLE', 'The object storage does not answer', { hint, cause })
    }
  }

  /**
   * Opens a multipart upload. Not repeated when the answer is lost, because each try would open another.
   *
   * @returns its id, and whether ETags of single parts are the MD5 of their bytes.
   */
  async createUpload(key: string): Promise<{ uploadId: string; hasMd5Etags: boolean }> {
    const name = 'CreateMultipartUpload'
    const headers = { 'content-type': 'application/octet-stream' }
    const answer = await this.#client.send({
      name,
      method: 'POST',
      key,
      query: { uploads: '' },
      headers,
      repeatable: false,
    })
    let uploadId: string | undefined
    try {
      uploadId = childText(parseXml(answer.body), 'UploadId')
    } catch {
      // Reported below.
    }
    if (uploadId === undefined || uploadId === '' || uploadId.length > 1024) {
      throw new StoreFailure(name, answer.status, 'AnswerInvalid')
    }
    const encryption = answer.headers['x-amz-server-side-encryption']
    return { uploadId, hasMd5Etags: encryption === undefined || encryption === 'AES256' }
  }

  /** A URL that takes exactly `size` bytes as one part. */
  partUrl(key: string, uploadId: string, part: number, size: number, lifetimeS: number): string {
    return this.#client.presign('PUT', key, lifetimeS, {
      query: { partNumber: String(part), uploadId },
      headers: { 'content-length': String(size) },
    })
  }

  contentUrl(key: string, lifetimeS: number): string {
    return this.#client.presign('GET', key, lifetimeS)
  }

  /** All parts received so far, by number. */
  async listParts(key: string, uploadId: string): Promise<Map<number, StoredPart>> {
    const name = 'ListParts'
    const parts = new Map<number, StoredPart>()
    let marker: string | undefined
    for (let page = 0; page < MAX_PAGES; page++) {
      const query = { uploadId, ...(marker === undefined ? {} : { 'part-number-marker': marker }) }
      const request: StoreRequest = { name, method: 'GET', key, query, repeatable: true }
      const document = await this.#document(request, 'ListPartsResult').catch((error: unknown) => {
        throw isCode(error, 'NoSuchUpload') ? uploadGone() : error
      })
      for (const element of childrenNamed(document, 'Part')) {
        const number = Number(childText(element, 'PartNumber') || Number.NaN)
        const size = Number(childText(element, 'Size') || Number.NaN)
        const etag = bareEtag(childText(element, 'ETag') ?? '')
        if (!Number.isSafeInteger(number) || !Number.isSafeInteger(size) || size < 0 || etag === '') {
          throw new StoreFailure(name, 200, 'AnswerInvalid')
        }
        parts.set(number, { number, etag, size })
      }
      if (childText(document, 'IsTruncated') !== 'true') return parts
      const next = childText(document, 'NextPartNumberMarker')
      if (next === undefined || next === marker) break
      marker = next
    }
    throw new StoreFailure(name, 200, 'AnswerInvalid')
  }

  /**
   * Puts the parts together. When that has happened before and its answer was lost, the object is found instead.
   *
   * @param size - Bytes of all parts.
   * @throws {ApiError} −80045, −80046 for what the store says about the parts; −90034 when the upload is gone.
   */
  async completeUpload(key: string, uploadId: string, parts: readonly StoredPart[], size: number): Promise<void> {
    const list = parts
      .map(({ number, etag }) => `<Part><PartNumber>${number}</PartNumber><ETag>"${escapeXml(etag)}"</ETag></Part>`)
      .join('')
    const body = `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${list}</CompleteMultipartUpload>`
    const name = 'CompleteMultipartUpload'
    const headers = { 'content-type': 'application/xml' }
    try {
      const request: StoreRequest = { name, method: 'POST', key, query: { uploadId }, headers, body, repeatable: true }
      await this.#document({ ...request, isSlow: true }, 'CompleteMultipartUploadResult')
    } catch (error) {
      if (isCode(error, 'InvalidPart', 'InvalidPartOrder')) throw badRequest(-80045, 'Invalid ETag')
      if (isCode(error, 'EntityTooSmall')) throw badRequest(-80046, 'Part is too small')
      if (!isCode(error, 'NoSuchUpload')) throw error
      if ((await this.sizeOf(key)) !== size) throw uploadGone()
    }
  }

  /** Length of an object, undefined if there is none. */
  async sizeOf(key: string): Promise<number | undefined> {
    try {
      const { headers } = await this.#client.send({ name: 'HeadObject', method: 'HEAD', key, repeatable: true })
      return Number(headers['content-length'])
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  }

  /** Drops a multipart upload and what it has received. One that is gone is fine. */
  async abortUpload(key: string, uploadId: string): Promise<void> {
    const request: StoreRequest = {
      name: 'AbortMultipartUpload',
      method: 'DELETE',
      key,
      query: { uploadId },
      repeatable: true,
    }
    await this.#client.send(request).catch((error: unknown) => {
      if (!isMissing(error)) throw error
    })
  }

  /** Ids of all multipart uploads for exactly this key. */
  async findUploads(key: string): Promise<string[]> {
    const name = 'ListMultipartUploads'
    const request: StoreRequest = {
      name,
      method: 'GET',
      key: '',
      query: { uploads: '', prefix: key },
      repeatable: true,
    }
    const document = await this.#document(request, 'ListMultipartUploadsResult')
    return childrenNamed(document, 'Upload')
      .filter((upload) => childText(upload, 'Key') === key)
      .map((upload) => childText(upload, 'UploadId') ?? '')
      .filter((uploadId) => uploadId !== '')
  }

  /** Deletes an object. One that is gone is fine. */
  async remove(key: string): Promise<void> {
    await this.#client
      .send({ name: 'DeleteObject', method: 'DELETE', key, repeatable: true })
      .catch((error: unknown) => {
        if (!isMissing(error)) throw error
      })
  }

  /** Bytes `start` to `end` (exclusive, at least one). Resolves once they begin to arrive. */
  async read(key: string, start: number, end: number): Promise<AsyncGenerator<Uint8Array>> {
    const name = 'GetObject'
    const headers = { range: `bytes=${start}-${end - 1}` }
    // A slow reader pauses the store, which must not count as silence soon.
    const request: StoreRequest = { name, method: 'GET', key, headers, repeatable: true, isSlow: true }
    const response = await this.#client.stream(request).catch((error: unknown) => {
      throw isMissing(error) ? contentGone(key) : error
    })
    const isRange = response.statusCode === 206 || start === 0
    if (!isRange || Number(response.headers['content-length'] ?? end - start) !== end - start) {
      response.destroy()
      throw new StoreFailure(name, response.statusCode ?? 0, 'WrongRange')
    }
    return exactly(response, end - start)
  }
}

async function* exactly(source: AsyncIterable<Uint8Array>, length: number): AsyncGenerator<Uint8Array> {
  let received = 0
  for await (const chunk of source) {
    received += chunk.length
    yield chunk
  }
  if (received !== length) throw new StoreFailure('GetObject', 0, 'CUT')
}
