/**
 * Stateless capabilities: presigned part URLs, upload tokens and download tokens, all HMAC-SHA-256 under the server's
 * secret. They survive restarts and need no table; what they give access to is checked when they are used.
 * @module
 */
import { createHmac, timingSafeEqual } from 'node:crypto'

export interface PartUrl {
  uploadId: string
  part: number
  size: number
}

/** What a token for a download by a share is bound to. */
export interface ShareDownload {
  shareId: number
  epoch: number
  /** Of a file; containers have none. */
  contentId: string
}

export class Signer {
  readonly #secret: Uint8Array

  constructor(secret: Uint8Array) {
    this.#secret = secret
  }

  #sign(purpose: string, ...fields: (string | number)[]): string {
    return createHmac('sha256', this.#secret)
      .update([purpose, ...fields].join('\n'))
      .digest('hex')
  }

  #matches(given: string, expected: string): boolean {
    const [a, b] = [Buffer.from(given), Buffer.from(expected)]
    return a.length === b.length && timingSafeEqual(a, b)
  }

  /** Path and query of a presigned URL for one part of exactly `size` bytes. */
  partUrl({ uploadId, part, size }: PartUrl, now: number, lifetimeS: number): string {
    const date = amzDate(now)
    const signature = this.#sign('part', uploadId, part, size, date, lifetimeS)
    const query = new URLSearchParams({
      'X-Amz-Date': date,
      'X-Amz-Expires': String(lifetimeS),
      'X-Amz-Size': String(size),
      'X-Amz-Signature': signature,
    })
    return `/s3/${uploadId}/${part}?${query}`
  }

  /** Checks a presigned URL: 'bad' for a wrong signature, 'expired', or what it allows. */
  readPartUrl(uploadId: string, part: string, query: URLSearchParams, now: number): PartUrl | 'bad' | 'expired' {
    const date = query.get('X-Amz-Date') ?? ''
    const [lifetime, size] = [Number(query.get('X-Amz-Expires')), Number(query.get('X-Amz-Size'))]
    const expected = this.#sign('part', uploadId, part, size, date, lifetime)
    if (!this.#matches(query.get('X-Amz-Signature') ?? '', expected)) return 'bad'
    if (now > parseAmzDate(date) + lifetime * 1000) return 'expired'
    return { uploadId, part: Number(part), size }
  }

  uploadToken(uploadId: string): string {
    return `${uploadId}${this.#sign('upload', uploadId).slice(0, 40)}`
  }

  /** The upload id in a token, or undefined if it is not one of ours. */
  readUploadToken(token: string): string | undefined {
    const uploadId = token.slice(0, -40)
    return uploadId !== '' && this.#matches(token, this.uploadToken(uploadId)) ? uploadId : undefined
  }

  downloadToken(fileId: number, userId: number, expiresAt: number): string {
    const fields = [fileId, userId, Math.floor(expiresAt)]
    return [...fields.map((field) => field.toString(36)), this.#sign('download', ...fields)].join('-')
  }

  /**
   * A token for one download by a share. It is void once the share has another epoch, or the node other content.
   *
   * @param nonce - Random hex; tells apart the downloads that are counted.
   */
  shareToken({ shareId, epoch, contentId }: ShareDownload, nonce: string, expiresAt: number): string {
    const time = Math.floor(expiresAt)
    return `${nonce}-${time.toString(36)}-${this.#sign('share', shareId, epoch, contentId, nonce, time)}`
  }

  /** The nonce in a token for this download, or undefined if it is not one, or has run out. */
  readShareToken(token: string, download: ShareDownload, now: number): string | undefined {
    const [nonce, time, rest] = token.split('-')
    const expiresAt = Number.parseInt(time ?? '', 36)
    if (nonce === undefined || rest === undefined || !Number.isSafeInteger(expiresAt)) return undefined
    const isOurs = this.#matches(token, this.shareToken(download, nonce, expiresAt))
    return isOurs && now <= expiresAt ? nonce : undefined
  }

  readDownloadToken(token: string, now: number): { fileId: number; userId: number } | undefined {
    const parts = token.split('-')
    const [fileId, userId, expiresAt] = parts.slice(0, 3).map((part) => Number.parseInt(part, 36))
    if (parts.length !== 4 || fileId === undefined || userId === undefined || expiresAt === undefined) return undefined
    if (!this.#matches(parts[3] ?? '', this.#sign('download', fileId, userId, expiresAt))) return undefined
    return now > expiresAt ? undefined : { fileId, userId }
  }
}

/** The compact form of a time that presigned URLs use, in whole seconds. */
function amzDate(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, '')
}

function parseAmzDate(text: string): number {
  return Date.parse(text.replace(/^(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\dZ)$/, '$1-$2-$3:$4:$5'))
}
