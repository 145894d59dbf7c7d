/**
 * Links of the account: to give a file, folder or room away, and to have files sent. An encrypted file is given away by a key pair of the
 * link's own, which its password locks: the server gets neither the password nor anything that it opens.
 * @module
 */
import {
  formatFileKey,
  generateKeyPair,
  lockKeyPair,
  type Password,
  type UserKeyPair,
  wrapFileKey,
} from '../../crypto/index.ts'
import { getPasswordPolicy } from '../api/account.ts'
import { getPublicDownload } from '../api/public.ts'
import {
  createDownloadShare,
  createUploadShare,
  type DownloadShareChanges,
  deleteDownloadShare,
  deleteUploadShare,
  getDownloadShare,
  getUploadShare,
  listDownloadShares,
  listReceived,
  listUploadShares,
  type UploadShareChanges,
  updateDownloadShare,
  updateUploadShare,
} from '../api/shares.ts'
import type { DownloadShare, UploadShare } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { never, requireEncryptedSource } from '../sync/run.ts'
import { openFileKey } from '../transfer/content.ts'
import { shareKeysOf } from '../transfer/share-keys.ts'
import type { Abortable, ClientContext } from './context.ts'
import { type RemoteEntry, requireEntry, walk } from './entries.ts'
import { generateSharePassword } from './generated-password.ts'
import { isLink, linkOf, parseLink } from './link-address.ts'
import { unlockShare } from './links.ts'
import { readSharePassword } from './share-password.ts'

/** What links of both kinds have. Times are milliseconds since the epoch. */
interface AnyShare {
  readonly id: number
  /** To be sent to whom it is for. */
  readonly link: string
  /** Of what is shared, or of where files go, as the server says it. */
  readonly path: string | undefined
  readonly name: string
  /** Its password opens the file here, and the server does not know it; of a request: files are encrypted for members. */
  readonly isEncrypted: boolean
  /** It takes a password. */
  readonly isProtected: boolean
  readonly createdAt: number
  /** User name, as the server says. */
  readonly createdBy: string | undefined
  readonly expiresAt: number | undefined
  readonly notes: string | undefined
  readonly notify: boolean
}

/** A link by which something is given away. */
export interface Share extends AnyShare {
  readonly nodeId: number
  readonly type: 'room' | 'folder' | 'file' | undefined
  readonly downloads: number
  readonly maxDownloads: number | undefined
}

/** A link by which anybody can send files. */
export interface FileRequest extends AnyShare {
  readonly targetId: number
  /** Files that came by it and are still there. */
  readonly files: number | undefined
  readonly uploads: number | undefined
  readonly maxFiles: number | undefined
  /** Bytes, of all files together. */
  readonly maxSize: number | undefined
}

/** A file that came by a request. */
export interface ReceivedFile {
  /** Of the node, as far as it is there and the server says which. */
  readonly id: number | undefined
  readonly name: string
  readonly size: number | undefined
  readonly receivedAt: number | undefined
  /** Through which request, or from which address, as the server says. */
  readonly by: string | undefined
}

/** A request, and what has come by it. */
export interface RequestDetails extends FileRequest {
  readonly received: readonly ReceivedFile[]
}

/** What a new link is like. */
interface NewShare extends Abortable {
  /** Shown to who opens it, and in lists. Default: the name of what is shared. */
  readonly name?: string | undefined
  /** Milliseconds since the epoch; default: as the server has it. */
  readonly expiresAt?: number | undefined
  /** Shown to who opens it. */
  readonly notes?: string | undefined
  /** Have the server tell of each use. */
  readonly notify?: boolean | undefined
}

/** How something is given away. */
export interface ShareOptions extends NewShare {
  /** Asked for once. An encrypted file cannot do without. */
  readonly password?: (() => Promise<Password>) | undefined
  readonly maxDownloads?: number | undefined
  /** Refuse what is not encrypted. */
  readonly requireEncryption?: boolean | undefined
  /** Each file of a folder or room by itself, under one password. */
  readonly each?: boolean | undefined
  /** Say only what would be shared; nothing is made. */
  readonly dryRun?: boolean | undefined
  /** Told of each link when it is made. */
  readonly onShared?: ((share: Share) => void) | undefined
}

/** What is wanted of who sends. */
export interface FileRequestOptions extends NewShare {
  /** The server gets it. */
  readonly password?: (() => Promise<Password>) | undefined
  readonly maxFiles?: number | undefined
  readonly maxSize?: number | undefined
  readonly requireEncryption?: boolean | undefined
}

/** What is changed of a link; `null` takes a limit or a password away. */
export interface ShareChanges extends Omit<NewShare, 'expiresAt'> {
  readonly expiresAt?: number | null | undefined
  readonly password?: (() => Promise<Password>) | null | undefined
  readonly maxDownloads?: number | null | undefined
}

/** As `ShareChanges`, of a file request. */
export interface FileRequestChanges extends Omit<NewShare, 'expiresAt'> {
  readonly expiresAt?: number | null | undefined
  readonly password?: (() => Promise<Password>) | null | undefined
  readonly maxFiles?: number | null | undefined
  readonly maxSize?: number | null | undefined
}

const pathOf = (path: string | undefined, name: string): string | undefined =>
  path?.endsWith('/') === true ? `${path}${name}` : path

const common = (origin: string, kind: 'download' | 'request', share: DownloadShare | UploadShare) => ({
  id: share.id,
  link: linkOf(origin, kind, share.accessKey),
  name: share.name,
  isEncrypted: share.isEncrypted === true,
  createdAt: share.createdAt,
  createdBy: share.createdBy?.userName,
  expiresAt: share.expireAt,
  notes: share.notes,
  notify: share.notifyCreator === true,
})

const shareOf = ({ api }: ClientContext, share: DownloadShare): Share => ({
  ...common(api.origin, 'download', share),
  path: pathOf(share.nodePath, share.name),
  isProtected: share.isProtected === true || share.isEncrypted === true,
  nodeId: share.nodeId,
  type: share.nodeType,
  downloads: share.cntDownloads,
  maxDownloads: share.maxDownloads,
})

const requestOf = ({ api }: ClientContext, share: UploadShare): FileRequest => ({
  ...common(api.origin, 'request', share),
  path: pathOf(share.targetPath, share.name),
  isProtected: share.isProtected === true,
  targetId: share.targetId,
  files: share.cntFiles,
  uploads: share.cntUploads,
  maxFiles: share.maxSlots,
  maxSize: share.maxSize,
})

const folderEncrypted = (path: string) =>
  new SyncError('usage', 'SHARE_FOLDER_ENCRYPTED', `Of an encrypted room only files can be shared: ${path}`, {
    hint: 'An archive would have to be made at the server, which cannot open the files. Share each file by itself: --each',
  })

const passwordNeeded = (path: string) =>
  new SyncError('key', 'SHARE_PASSWORD_NEEDED', `A link to an encrypted file takes a password: ${path}`, {
    hint: 'Give one with --password-file or --password-command, or have one made: --generate-password',
  })

/** What is to be shared, looked up. */
async function entriesOf(context: ClientContext, path: string, { each, signal }: ShareOptions): Promise<RemoteEntry[]> {
  const { entry } = await requireEntry(context, path, signal)
  if (each !== true || entry.type === 'file') {
    if (entry.type !== 'file' && entry.isEncrypted === true) throw folderEncrypted(path)
    return [entry]
  }
  const files: RemoteEntry[] = []
  for await (const one of walk(context, path, { signal })) if (one.type === 'file') files.push(one)
  return files
}

/**
 * Makes links, one for each path; with `each` one for each file below it. All of them have the same password, and those of encrypted files one
 * key pair of their own. Takes a second for that.
 *
 * @returns what was made; with `dryRun` what would be shared, without links.
 * @throws {SyncError} `REMOTE_MISSING`, `SHARE_FOLDER_ENCRYPTED`, `SHARE_PASSWORD_NEEDED`, `PASSWORD_REFUSED`, `FILE_KEY_MISSING`, `FORBIDDEN`;
 * `NOT_ENCRYPTED`, `ROOM_NOT_ENCRYPTED` (class `safety`) before anything is sent. Links that were made before one fails stay.
 */
export async function create(
  context: ClientContext,
  paths: readonly string[],
  options: ShareOptions,
): Promise<readonly Share[]> {
  const { api } = context
  const { signal } = options
  const entries: RemoteEntry[] = []
  for (const path of paths) for (const entry of await entriesOf(context, path, options)) entries.push(entry)
  for (const entry of entries) await requireShareable(context, entry, options)
  if (options.dryRun === true) return entries.map((entry) => planned(entry, options))
  if (entries.length === 0) return []
  const isSecret = entries.some(({ isEncrypted }) => isEncrypted === true)
  const isSent = entries.some(({ isEncrypted }) => isEncrypted !== true)
  const password = options.password && (await readSharePassword(context, options.password, isSent, signal))
  const keys = shareKeysOf(context)
  const made: Share[] = []
  let pair: UserKeyPair | undefined
  try {
    pair = isSecret ? await generateKeyPair() : undefined
    const keyPair = pair && (await lockKeyPair(pair, password!))
    for (const entry of entries) {
      const fields = {
        nodeId: entry.id,
        name: options.name,
        expireAt: options.expiresAt,
        notes: options.notes,
        notifyCreator: options.notify,
        maxDownloads: options.maxDownloads,
      }
      const isOpen = entry.isEncrypted !== true
      const share = await createDownloadShare(
        api,
        isOpen
          ? { ...fields, password }
          : { ...fields, keyPair, fileKey: await wrapped(context, entry, pair!, signal) },
        signal,
      )
      // Before anybody is told of it: a later version must find its key.
      if (!isOpen) await keys.remember(share.id, pair!.publicKey)
      const one = { ...shareOf(context, share), path: entry.path, type: entry.type }
      made.push(one)
      options.onShared?.(one)
    }
    return made
  } finally {
    pair?.wipe()
  }
}

async function wrapped(context: ClientContext, entry: RemoteEntry, pair: UserKeyPair, signal?: AbortSignal) {
  const fileKey = (await openFileKey(context, entry, signal ?? never))!
  try {
    return formatFileKey(await wrapFileKey(fileKey, pair.publicKey))
  } finally {
    fileKey.wipe()
  }
}

/** Nothing is known of a link that was not made. */
const planned = (entry: RemoteEntry, options: ShareOptions): Share => ({
  id: 0,
  link: '',
  path: entry.path,
  name: options.name ?? entry.name,
  isEncrypted: entry.isEncrypted === true,
  isProtected: options.password !== undefined,
  createdAt: 0,
  createdBy: undefined,
  expiresAt: options.expiresAt,
  notes: options.notes,
  notify: options.notify === true,
  nodeId: entry.id,
  type: entry.type,
  downloads: 0,
  maxDownloads: options.maxDownloads,
})

/** Asked before a password could go to a server that says that a place is not encrypted any more. */
async function requireShareable(
  { api }: ClientContext,
  entry: RemoteEntry,
  { password, requireEncryption }: ShareOptions,
): Promise<void> {
  requireEncryptedSource(entry, entry.path, { requireEncryption })
  if (entry.isEncrypted === true) {
    if (password === undefined) throw passwordNeeded(entry.path)
  } else if (entry.type === 'file') await api.places?.plain('take', entry.parentId ?? 0, entry.name)
  else await api.places?.enter(entry.id)
}

/** Links of this account's rooms, as far as it may manage them. */
export async function* list(
  context: ClientContext,
  path: string | undefined,
  { signal }: Abortable,
): AsyncGenerator<Share> {
  const nodeId = path === undefined ? undefined : (await requireEntry(context, path, signal)).entry.id
  for await (const share of listDownloadShares(context.api, { nodeId }, signal)) yield shareOf(context, share)
}

/** File requests of this account's rooms, as far as it may manage them. */
export async function* listRequests(
  context: ClientContext,
  path: string | undefined,
  { signal }: Abortable,
): AsyncGenerator<FileRequest> {
  const nodeId = path === undefined ? undefined : (await requireEntry(context, path, signal)).entry.id
  for await (const share of listUploadShares(context.api, { nodeId }, signal)) yield requestOf(context, share)
}

const missing = (which: string) =>
  new SyncError('not_found', 'SHARE_MISSING', `There is no link ${which}, or it may not be seen`, {
    hint: 'See which there are: sync share list, sync request list',
  })

/** What a link is meant by: its address, its id, or the path of what it shares. */
type Named = { readonly id: number } | { readonly accessKey: string } | { readonly nodeId: number }

async function named(
  context: ClientContext,
  which: string,
  kind: 'download' | 'request',
  signal?: AbortSignal,
): Promise<Named> {
  if (isLink(which)) {
    const link = parseLink(which)
    if (link.origin !== context.api.origin || link.kind !== kind) throw missing('of that address')
    return { accessKey: link.accessKey }
  }
  if (/^\d{1,16}$/.test(which)) return { id: Number(which) }
  return { nodeId: (await requireEntry(context, which, signal)).entry.id }
}

async function single<T extends { readonly id: number }>(which: string, found: AsyncIterable<T>): Promise<T> {
  const all: T[] = []
  for await (const one of found) all.push(one)
  if (all.length === 0) throw missing(isLink(which) ? 'of that address' : `of ${which}`)
  if (all.length === 1) return all[0]!
  throw new SyncError('usage', 'SHARE_AMBIGUOUS', `There are ${all.length} links of ${which}`, {
    hint: `Name one by its id: ${all
      .slice(0, 10)
      .map(({ id }) => id)
      .join(', ')}`,
  })
}

const orMissing = (which: string) => (error: unknown) => {
  throw error instanceof SyncError && error.class === 'not_found' ? missing(which) : error
}

async function find(context: ClientContext, which: string, signal?: AbortSignal): Promise<DownloadShare> {
  const one = await named(context, which, 'download', signal)
  if ('id' in one) return getDownloadShare(context.api, one.id, signal).catch(orMissing(which))
  return single(which, listDownloadShares(context.api, one, signal))
}

async function findRequest(context: ClientContext, which: string, signal?: AbortSignal): Promise<UploadShare> {
  const one = await named(context, which, 'request', signal)
  if ('id' in one) return getUploadShare(context.api, one.id, signal).catch(orMissing(which))
  return single(which, listUploadShares(context.api, one, signal))
}

/**
 * One link.
 *
 * @param which - Its address, its id, or the path of what it shares.
 * @throws {SyncError} `SHARE_MISSING`, `SHARE_AMBIGUOUS`.
 */
export const get = async (context: ClientContext, which: string, { signal }: Abortable): Promise<Share> =>
  shareOf(context, await find(context, which, signal))

/** One file request, and what has come by it. */
export async function getRequest(
  context: ClientContext,
  which: string,
  { signal }: Abortable,
): Promise<RequestDetails> {
  const { id } = await findRequest(context, which, signal)
  const request = await getUploadShare(context.api, id, signal)
  // The newest 500, also of those that are called otherwise by now, or gone.
  const told = request.uploadedFiles?.map(({ nodeId, createdAt, senderAddress, name, size }) => ({
    id: nodeId,
    name,
    size,
    receivedAt: createdAt,
    by: senderAddress,
  }))
  if (told !== undefined) return { ...requestOf(context, request), received: told }
  const received: ReceivedFile[] = []
  for await (const file of listReceived(context.api, request, signal)) received.push(file)
  return { ...requestOf(context, request), received }
}

/**
 * Ends links; what they share stays. All are looked up before the first one ends.
 *
 * @returns those that were ended.
 */
export async function revoke(
  context: ClientContext,
  which: readonly string[],
  { signal }: Abortable,
): Promise<readonly Share[]> {
  const found: DownloadShare[] = []
  for (const one of which) found.push(await find(context, one, signal))
  for (const { id } of found) await deleteDownloadShare(context.api, id, signal)
  await shareKeysOf(context).forget(found.map(({ id }) => id))
  return found.map((share) => shareOf(context, share))
}

export async function revokeRequests(
  context: ClientContext,
  which: readonly string[],
  { signal }: Abortable,
): Promise<readonly FileRequest[]> {
  const found: UploadShare[] = []
  for (const one of which) found.push(await findRequest(context, one, signal))
  for (const { id } of found) await deleteUploadShare(context.api, id, signal)
  return found.map((share) => requestOf(context, share))
}

/**
 * Changes a link.
 *
 * @throws {SyncError} `SHARE_PASSWORD_FIXED` for the password of an encrypted file, whose key it locks: make another link.
 */
export async function update(context: ClientContext, which: string, changes: ShareChanges): Promise<Share> {
  const { expiresAt, notify, password, signal, ...rest } = changes
  const { id, isEncrypted } = await find(context, which, signal)
  if (isEncrypted === true && password !== undefined) {
    throw new SyncError(
      'usage',
      'SHARE_PASSWORD_FIXED',
      'The password of a link to an encrypted file cannot be changed',
      {
        hint: 'It locks the key of the link. Make another link, and revoke this one.',
      },
    )
  }
  const secret = password ? await readSharePassword(context, password, true, signal) : password
  const all: DownloadShareChanges = { ...rest, password: secret, expireAt: expiresAt, notifyCreator: notify }
  return shareOf(context, await updateDownloadShare(context.api, id, all, signal))
}

export async function updateRequest(
  context: ClientContext,
  which: string,
  changes: FileRequestChanges,
): Promise<FileRequest> {
  const { expiresAt, notify, password, maxFiles, signal, ...rest } = changes
  const { id } = await findRequest(context, which, signal)
  const secret = password ? await readSharePassword(context, password, true, signal) : password
  const all: UploadShareChanges = {
    ...rest,
    maxSlots: maxFiles,
    password: secret,
    expireAt: expiresAt,
    notifyCreator: notify,
  }
  return requestOf(context, await updateUploadShare(context.api, id, all, signal))
}

/**
 * Takes note of the key of a link to an encrypted file that was made elsewhere, as its password proves it: from then on it gets the keys of new
 * versions. What is behind the link says who made it; that its password opens it says that nobody else has put a key there.
 *
 * @throws {SyncError} `SHARE_PASSWORD_WRONG`, `SHARE_EMPTY`, `SHARE_NOT_ENCRYPTED`.
 */
export async function trust(
  context: ClientContext,
  which: string,
  password: () => Promise<Password>,
  { signal }: Abortable,
): Promise<Share & { readonly fingerprint: string }> {
  const { api } = context
  const share = await find(context, which, signal)
  if (share.isEncrypted !== true) {
    throw new SyncError(
      'usage',
      'SHARE_NOT_ENCRYPTED',
      'This link has no key of its own: what it shares is not encrypted',
    )
  }
  const { privateKeyContainer } = await getPublicDownload(api, share.accessKey, signal)
  const pair = await unlockShare(privateKeyContainer, await password())
  try {
    await shareKeysOf(context).remember(share.id, pair.publicKey)
    return { ...shareOf(context, share), fingerprint: pair.publicKey.fingerprint }
  } finally {
    pair.wipe()
  }
}

/** A password for a new link, taken by chance, as the server wants them. */
export async function generatePassword({ api }: ClientContext, { signal }: Abortable): Promise<string> {
  return generateSharePassword(await getPasswordPolicy(api, signal, 'shares'))
}

/**
 * Makes a file request: a link by which anybody can put files into a room or folder.
 *
 * @throws {SyncError} `REMOTE_MISSING`, `NOT_A_ROOM` for a file, `PASSWORD_REFUSED`, `FORBIDDEN`, `NOT_ENCRYPTED`, `ROOM_NOT_ENCRYPTED`.
 */
export async function createRequest(
  context: ClientContext,
  path: string,
  options: FileRequestOptions,
): Promise<FileRequest> {
  const { api } = context
  const { signal } = options
  const { entry } = await requireEntry(context, path, signal)
  if (entry.type === 'file') throw new SyncError('usage', 'NOT_A_ROOM', `Neither a room nor a folder: ${path}`)
  requireEncryptedSource(entry, entry.path, options)
  await api.places?.enter(entry.id)
  const password = options.password && (await readSharePassword(context, options.password, true, signal))
  const share = await createUploadShare(
    api,
    {
      targetId: entry.id,
      name: options.name,
      password,
      expireAt: options.expiresAt,
      notes: options.notes,
      notifyCreator: options.notify,
      maxSlots: options.maxFiles,
      maxSize: options.maxSize,
    },
    signal,
  )
  return { ...requestOf(context, share), path: entry.path }
}
