/**
 * What somebody can call who has a link and no account. The key of a link is all that stands before what it opens: it goes into
 * addresses of its own server only, and into no message.
 * @module
 */
import { type Api, callFor } from './api.ts'
import {
  type PublicDownload,
  type PublicRequest,
  parseDownload,
  parsePublicDownload,
  parsePublicRequest,
} from './wire.ts'

const downloads = (accessKey: string) => `/v4/public/shares/downloads/${encodeURIComponent(accessKey)}`
const uploads = (accessKey: string) => `/v4/public/shares/uploads/${encodeURIComponent(accessKey)}`

/** @throws {SyncError} `SHARE_GONE`. */
export const getPublicDownload = (api: Api, accessKey: string, signal?: AbortSignal): Promise<PublicDownload> =>
  callFor(api, { method: 'GET', path: downloads(accessKey), signal }, parsePublicDownload)

/**
 * A URL for the content. It may count as a download, so it is not repeated blindly.
 *
 * @param password - Of a plain share; that of an encrypted one is never sent.
 * @throws {SyncError} `SHARE_PASSWORD_WRONG`, `SHARE_LOCKED`, `SHARE_USED_UP`, `SHARE_GONE`.
 */
export const createPublicDownload = async (
  api: Api,
  accessKey: string,
  password: string | undefined,
  signal?: AbortSignal,
): Promise<string> => {
  const json = password === undefined ? {} : { password }
  return (await callFor(api, { method: 'POST', path: downloads(accessKey), json, signal }, parseDownload)).downloadUrl
}

/**
 * What a file request wants, and whose keys files are encrypted for.
 *
 * @throws {SyncError} `SHARE_GONE`, `SHARE_PASSWORD_WRONG`, `NO_RECIPIENTS`.
 */
export const getPublicRequest = (
  api: Api,
  accessKey: string,
  password: string | undefined,
  signal?: AbortSignal,
): Promise<PublicRequest> => {
  const headers = password === undefined ? {} : { 'x-sds-share-password': Buffer.from(password).toString('base64') }
  return callFor(api, { method: 'GET', path: uploads(accessKey), headers, signal }, parsePublicRequest)
}
