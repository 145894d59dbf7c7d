/**
 * Links of the account: download shares, by which something is given away, and upload shares (file requests), by which anybody can
 * put files into a place. What their receivers call is public.ts.
 * @module
 */
import type { FileKeyJson, KeyPairContainer } from '../../crypto/containers.ts'
import { type Api, call, callFor } from './api.ts'
import { pages } from './nodes.ts'
import {
  type DownloadShare,
  formatTime,
  PAGE,
  parseDownloadShare,
  parseDownloadShares,
  parseReceivedFiles,
  parseUploadShare,
  parseUploadShares,
  type UploadShare,
} from './wire.ts'

/** What links of both kinds are made with. Absent: as the server has it. */
interface ShareFields {
  readonly name?: string | undefined
  /** Of plain places only: the server learns it. */
  readonly password?: string | undefined
  /** Milliseconds since the epoch; `null`: never. */
  readonly expireAt?: number | null | undefined
  /** Shown to who opens the link. */
  readonly notes?: string | undefined
  /** Tell its owner of each use. */
  readonly notifyCreator?: boolean | undefined
}

export interface NewDownloadShare extends ShareFields {
  readonly nodeId: number
  readonly maxDownloads?: number | undefined
  /** Of encrypted files: the share's own key pair, locked, and the file key wrapped for it. */
  readonly keyPair?: KeyPairContainer | undefined
  readonly fileKey?: FileKeyJson | undefined
}

export interface NewUploadShare extends ShareFields {
  readonly targetId: number
  /** Most files. */
  readonly maxSlots?: number | undefined
  /** Most bytes, all together. */
  readonly maxSize?: number | undefined
}

/** `null` takes a limit or a password away. */
export interface DownloadShareChanges extends Omit<ShareFields, 'password'> {
  readonly password?: string | null | undefined
  readonly maxDownloads?: number | null | undefined
}

export interface UploadShareChanges extends Omit<ShareFields, 'password'> {
  readonly password?: string | null | undefined
  readonly maxSlots?: number | null | undefined
  readonly maxSize?: number | null | undefined
}

const expirationOf = (at: number | null) =>
  at === null ? { enableExpiration: false } : { enableExpiration: true, expireAt: formatTime(at) }

/** The wire form; what is not there is not sent. */
function fieldsOf({ expireAt, ...fields }: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null)
  const expiration = expireAt === undefined ? {} : { expiration: expirationOf(expireAt as number | null) }
  return { ...Object.fromEntries(given), ...expiration }
}

/** Of a change: what is `null` is reset, which has a field of its own. */
function changesOf(changes: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const resets = Object.entries(changes).filter(([name, value]) => value === null && name !== 'expireAt')
  const flags = resets.map(([name]) => [`reset${name[0]!.toUpperCase()}${name.slice(1)}`, true])
  return { ...fieldsOf(changes), ...Object.fromEntries(flags) }
}

/** Not repeated after a lost answer: there would be two. */
export const createDownloadShare = (api: Api, share: NewDownloadShare, signal?: AbortSignal): Promise<DownloadShare> =>
  callFor(
    api,
    { method: 'POST', path: '/v4/shares/downloads', json: fieldsOf({ ...share }), signal },
    parseDownloadShare,
  )

export const createUploadShare = (api: Api, share: NewUploadShare, signal?: AbortSignal): Promise<UploadShare> =>
  callFor(api, { method: 'POST', path: '/v4/shares/uploads', json: fieldsOf({ ...share }), signal }, parseUploadShare)

/** Which links are listed: those of one place, or with a key; absent: all that the account may see. */
export interface ShareFilter {
  /** Id of the node, or of the place that files go to. */
  readonly nodeId?: number | undefined
  readonly accessKey?: string | undefined
}

function filterText(place: 'nodeId' | 'targetId', { nodeId, accessKey }: ShareFilter): string | undefined {
  const filters = [
    ...(nodeId === undefined ? [] : [`${place}:eq:${nodeId}`]),
    ...(accessKey === undefined ? [] : [`accessKey:cn:${accessKey}`]),
  ]
  return filters.length === 0 ? undefined : filters.join('|')
}

export async function* listDownloadShares(
  api: Api,
  only: ShareFilter = {},
  signal?: AbortSignal,
): AsyncGenerator<DownloadShare> {
  const filter = filterText('nodeId', only)
  const path = '/v4/shares/downloads'
  const all = pages(
    api,
    ({ id }: DownloadShare) => id,
    (offset) =>
      callFor(api, { method: 'GET', path, query: { offset, limit: PAGE, filter }, signal }, parseDownloadShares),
  )
  // Servers may filter by less than they are asked to.
  for await (const share of all) {
    const isOf = only.nodeId === undefined || share.nodeId === only.nodeId
    if (isOf && (only.accessKey === undefined || share.accessKey === only.accessKey)) yield share
  }
}

export async function* listUploadShares(
  api: Api,
  only: ShareFilter = {},
  signal?: AbortSignal,
): AsyncGenerator<UploadShare> {
  const filter = filterText('targetId', only)
  const path = '/v4/shares/uploads'
  const all = pages(
    api,
    ({ id }: UploadShare) => id,
    (offset) =>
      callFor(api, { method: 'GET', path, query: { offset, limit: PAGE, filter }, signal }, parseUploadShares),
  )
  for await (const share of all) {
    const isOf = only.nodeId === undefined || share.targetId === only.nodeId
    if (isOf && (only.accessKey === undefined || share.accessKey === only.accessKey)) yield share
  }
}

export const getDownloadShare = (api: Api, id: number, signal?: AbortSignal): Promise<DownloadShare> =>
  callFor(api, { method: 'GET', path: `/v4/shares/downloads/${id}`, signal }, parseDownloadShare)

export const getUploadShare = (api: Api, id: number, signal?: AbortSignal): Promise<UploadShare> =>
  callFor(api, { method: 'GET', path: `/v4/shares/uploads/${id}`, signal }, parseUploadShare)

export const updateDownloadShare = (
  api: Api,
  id: number,
  changes: DownloadShareChanges,
  signal?: AbortSignal,
): Promise<DownloadShare> =>
  callFor(
    api,
    { method: 'PUT', path: `/v4/shares/downloads/${id}`, json: changesOf({ ...changes }), signal, repeatable: true },
    parseDownloadShare,
  )

export const updateUploadShare = (
  api: Api,
  id: number,
  changes: UploadShareChanges,
  signal?: AbortSignal,
): Promise<UploadShare> =>
  callFor(
    api,
    { method: 'PUT', path: `/v4/shares/uploads/${id}`, json: changesOf({ ...changes }), signal, repeatable: true },
    parseUploadShare,
  )

/** Ends a link; what was shared stays where it is. */
export async function deleteDownloadShare(api: Api, id: number, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: `/v4/shares/downloads/${id}`, signal })
}

/** Ends a file request; what has come by it stays. */
export async function deleteUploadShare(api: Api, id: number, signal?: AbortSignal): Promise<void> {
  await call(api, { method: 'DELETE', path: `/v4/shares/uploads/${id}`, signal })
}

/** A file that nobody with an account has put where it is. */
interface Received {
  readonly id: number
  readonly name: string
  readonly size: number | undefined
  readonly receivedAt: number | undefined
  readonly by: string | undefined
}

/** What has come by a request and is still where it came to, newest first. */
export async function* listReceived(
  api: Api,
  { targetId, createdAt, name }: Pick<UploadShare, 'targetId' | 'createdAt' | 'name'>,
  signal?: AbortSignal,
): AsyncGenerator<Received> {
  await api.places?.enter(targetId)
  const query = { parent_id: targetId, limit: PAGE, sort: 'createdAt:desc' }
  const all = pages(
    api,
    ({ id }: { readonly id: number }) => id,
    (offset) =>
      callFor(api, { method: 'GET', path: '/v4/nodes', query: { ...query, offset }, signal }, parseReceivedFiles),
  ) as AsyncGenerator<ReturnType<typeof parseReceivedFiles>['items'][number]>
  for await (const file of all) {
    const { userType, userName } = file.createdBy ?? {}
    const isOfNobody = file.type === 'file' && userType === 'external' && (file.createdAt ?? createdAt) >= createdAt
    // Some servers say by which request.
    const isOther = userName?.startsWith('File request ') === true && userName !== `File request ${name}`
    if (isOfNobody && !isOther) {
      yield { id: file.id, name: file.name, size: file.size, receivedAt: file.createdAt, by: userName }
    }
  }
}
