/**
 * Links without an account: what is behind one, and fetching it. An encrypted file is unlocked here, by the password of the link, and
 * comes through the same steps as any other: nothing of it is given on before its tag has matched. Sending to a file request is
 * requests.ts.
 * @module
 */
import { lstatSync, statSync } from 'node:fs'
import { basename, dirname, resolve, sep } from 'node:path'
import {
  checkFileSize,
  createContentCheck,
  type FileKey,
  type Password,
  parseFileKey,
  parsePrivateKeyContainer,
  type UserKeyPair,
  unlockPrivateKey,
  unwrapFileKey,
} from '../../crypto/index.ts'
import { SHARE_PASSWORD_WRONG } from '../api/api.ts'
import { createPublicDownload, getPublicDownload } from '../api/public.ts'
import type { PublicDownload, RemoteNode } from '../api/wire.ts'
import { SyncError } from '../errors.ts'
import { isTemporaryName, syncDirectory } from '../local/atomic-file.ts'
import { checkSpace } from '../local/free-space.ts'
import type { HomePaths } from '../local/home.ts'
import { localName, type Names } from '../local/names.ts'
import { sweepDirectory } from '../local/partial-file.ts'
import { createSafeTree, inTheWay } from '../local/safe-tree.ts'
import { openStable } from '../local/stable-read.ts'
import { type ConflictAction, freeName } from '../sync/conflicts.ts'
import { never, requireEncryptedSource } from '../sync/run.ts'
import { type DownloadContext, openFileKey } from '../transfer/content.ts'
import { downloadArchive, downloadFile, type LocalVersion } from '../transfer/download.ts'
import { createLargeFiles } from '../transfer/segments.ts'
import { type GetOptions, type RemoteContent, receive, receiveWhole } from './content.ts'
import type { Abortable } from './context.ts'
import type { Guest, LinkPassword } from './link-address.ts'

/** What everybody is told who has the link. The texts are the server's. Times are milliseconds since the epoch. */
export interface LinkInfo {
  readonly fileName: string
  /** Bytes; of an archive what is in it, before it is packed. */
  readonly size: number
  /** A folder or room: it comes as a ZIP archive, which no tag protects. */
  readonly isArchive: boolean
  /** Nobody can open it without the password, the server included. */
  readonly isEncrypted: boolean
  /** It takes a password: of an encrypted file always. */
  readonly isProtected: boolean
  readonly isUsedUp: boolean
  readonly name: string | undefined
  readonly creator: string | undefined
  readonly createdAt: number | undefined
  readonly expiresAt: number | undefined
  readonly notes: string | undefined
}

/** How something behind a link is downloaded. */
export interface LinkDownloadOptions extends Abortable {
  /** What to do with a file that is there. Default `fail`: `EXISTS`, unless it is the same, which only encrypted ones can tell. */
  readonly onConflict?: Exclude<ConflictAction, 'newer'> | undefined
  /** See `DownloadOptions`. */
  readonly names?: Names | undefined
  /** Refuse what is not encrypted. */
  readonly requireEncryption?: boolean | undefined
  /** Only say what would be done. */
  readonly dryRun?: boolean | undefined
}

/** What became of a download. */
export interface LinkDownload {
  /** Absolute. */
  readonly path: string
  readonly bytes: number
  /** It was there already. */
  readonly isSkipped: boolean
}

/** Something to fetch. */
export interface DownloadLink {
  readonly origin: string
  /** What is there. Needs no password, and does not count as a download. Throws `SHARE_GONE`. */
  info(options?: Abortable): Promise<LinkInfo>
  /**
   * Downloads it.
   *
   * @param target - A directory that is there or ends with a slash: under the name that the link says. Else the path of the file.
   * @throws {SyncError} `SHARE_PASSWORD_NEEDED`, `SHARE_PASSWORD_WRONG`, `SHARE_LOCKED`, `SHARE_USED_UP`, `SHARE_GONE`, `EXISTS`,
   * `NAME_UNSAFE`, and as downloads of an account: `CONTENT_TAMPERED`, `CONTENT_LENGTH_WRONG`, …
   */
  download(target?: string, options?: LinkDownloadOptions): Promise<LinkDownload>
  /** Fetches it for a program to read; see `get` of a client. */
  get(options?: GetOptions): Promise<RemoteContent>
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** An archive has more in it than its files: names, twice. Nobody knows how many there are. */
const ARCHIVE_SPARE = 1024 * 1024 * 1024

const infoOf = (share: PublicDownload): LinkInfo => ({
  fileName: share.fileName,
  size: share.size,
  isArchive: isArchive(share),
  isEncrypted: share.isEncrypted === true,
  isProtected: share.isEncrypted === true || share.isProtected,
  isUsedUp: share.limitReached,
  name: share.name,
  creator: share.creatorName === '' ? undefined : share.creatorName,
  createdAt: share.createdAt,
  expiresAt: share.expireAt,
  notes: share.notes,
})

/** A single file may be one, too: nothing tells them apart, so it is fetched in the same way. */
const isArchive = ({ mediaType, isEncrypted }: PublicDownload) =>
  isEncrypted !== true && mediaType === 'application/zip'

const passwordNeeded = () =>
  new SyncError('key', 'SHARE_PASSWORD_NEEDED', 'This link takes a password', {
    hint: 'Give it with --password-file or --password-command, or SEALSYNC_SHARE_PASSWORD.',
  })

/** @throws {SyncError} `SHARE_PASSWORD_WRONG` for what no server could be told. */
export function textOf(password: Password): string {
  try {
    return typeof password === 'string' ? password : new TextDecoder('utf-8', { fatal: true }).decode(password)
  } catch {
    throw wrongPassword()
  }
}

export const wrongPassword = (): SyncError =>
  new SyncError(SHARE_PASSWORD_WRONG.kind, SHARE_PASSWORD_WRONG.code, SHARE_PASSWORD_WRONG.text, {
    hint: SHARE_PASSWORD_WRONG.hint!,
  })

/**
 * Unlocks the key pair of a link.
 *
 * @throws {SyncError} `SHARE_PASSWORD_WRONG` also for a key that was altered, without saying which; `SHARE_EMPTY` where there is none.
 */
export async function unlockShare(container: unknown, password: Password): Promise<UserKeyPair> {
  if (container === undefined) throw emptyShare()
  try {
    return await unlockPrivateKey(parsePrivateKeyContainer(container), password)
  } catch (error) {
    throw error instanceof SyncError && error.code === 'KEY_PASSWORD_WRONG' ? wrongPassword() : error
  }
}

const emptyShare = () =>
  new SyncError('server', 'SHARE_EMPTY', 'The file behind the link was replaced, and its new key is not there yet', {
    hint: 'Try again later, or tell whoever sent you the link.',
  })

/** @param password - Asked for at most once, if it is needed. */
export function createDownloadLink(guest: Guest, accessKey: string, password: LinkPassword | undefined): DownloadLink {
  const { api, clock, random, home, onEvent } = guest
  const large = createLargeFiles()
  let asked: Promise<Password> | undefined
  let opening: Promise<UserKeyPair> | undefined

  const askPassword = (isSent: boolean): Promise<Password> => {
    if (password === undefined) throw passwordNeeded()
    asked ??= password({ isSent })
    return asked
  }

  async function look(signal: AbortSignal): Promise<PublicDownload> {
    const share = await getPublicDownload(api, accessKey, signal)
    if (share.limitReached) {
      throw new SyncError('limit', 'SHARE_USED_UP', 'The link has been used as often as it may be', {
        hint: 'Ask whoever sent it for another one.',
      })
    }
    if (!isArchive(share)) checkFileSize(share.size)
    return share
  }

  /** The share's own key pair, unlocked once. */
  function unlock(share: PublicDownload): Promise<UserKeyPair> {
    if (share.privateKeyContainer === undefined || share.fileKey === undefined) throw emptyShare()
    opening ??= askPassword(false).then((secret) => {
      onEvent?.({ type: 'phase', text: 'Unlocking the key' })
      return unlockShare(share.privateKeyContainer, secret)
    })
    return opening
  }

  async function openKey(share: PublicDownload): Promise<FileKey | undefined> {
    if (share.isEncrypted !== true) return undefined
    return unwrapFileKey(parseFileKey(share.fileKey), await unlock(share))
  }

  async function contextOf(share: PublicDownload): Promise<DownloadContext & { readonly home: HomePaths }> {
    // Before anything is asked for that could count as a download.
    if (share.isEncrypted === true) await unlock(share)
    const secret = share.isEncrypted !== true && share.isProtected ? textOf(await askPassword(true)) : undefined
    return {
      api,
      clock,
      random,
      home,
      onEvent,
      keyring: { open: noAccount, recall: noAccount, confirm: () => {} },
      link: {
        address: (signal) => createPublicDownload(api, accessKey, secret, signal),
        openKey: () => openKey(share),
      },
    }
  }

  const nodeOf = (share: PublicDownload, name: string): RemoteNode => ({
    id: 0,
    type: 'file',
    name,
    size: share.size,
    isEncrypted: share.isEncrypted === true,
  })

  async function close(): Promise<void> {
    await large.close()
    await opening?.then((pair) => pair.wipe()).catch(() => {})
    await guest.close()
  }

  return {
    origin: api.origin,
    info: async ({ signal } = {}) => infoOf(await getPublicDownload(api, accessKey, signal)),
    async download(target = '.', { onConflict = 'fail', names, requireEncryption, dryRun, signal = never } = {}) {
      const share = await look(signal)
      requireEncryptedSource(nodeOf(share, share.fileName), share.fileName, { requireEncryption })
      const { directory, name } = goalOf(target, nameOf(share, names))
      const there = lstatSync(resolve(directory, name), { throwIfNoEntry: false })
      if (there?.isDirectory() === true) throw inTheWay(resolve(directory, name))
      if (there !== undefined && onConflict === 'skip') {
        return { path: resolve(directory, name), bytes: 0, isSkipped: true }
      }
      if (dryRun === true) {
        if (there !== undefined && onConflict === 'fail') throw exists(name)
        return { path: resolve(directory, name), bytes: share.size, isSkipped: false }
      }
      const context = await contextOf(share)
      const isReplaced = there !== undefined && onConflict === 'overwrite'
      if (there !== undefined && !isReplaced) {
        if (await isSame(context, nodeOf(share, name), resolve(directory, name), signal)) {
          return { path: resolve(directory, name), bytes: 0, isSkipped: true }
        }
        if (onConflict === 'fail') throw exists(name)
      }
      const tree = createSafeTree(directory)
      const held = tree.hold([])
      try {
        const isFree = (one: string) => lstatSync(held.at(one), { throwIfNoEntry: false }) === undefined
        const free = onConflict === 'rename' && !isFree(name) ? freeName(name, isFree) : name
        await sweepDirectory(held.path, clock)
        await checkSpace(directory, share.size)
        onEvent?.({ type: 'planned', files: 1, bytes: share.size, skipped: 0 })
        const replaces: LocalVersion | undefined = isReplaced
          ? { size: there.size, mtimeMs: there.mtimeMs, isLink: there.isSymbolicLink() }
          : undefined
        const how = { shown: free, replaces, directory: held, large, beforeRename: () => tree.check([]) }
        const bytes = isArchive(share)
          ? await downloadArchive(context, archiveLimit(share), held.at(free), how, signal)
          : await downloadFile(context, nodeOf(share, free), held.at(free), how, signal)
        await syncDirectory(held.path)
        return { path: resolve(directory, free), bytes, isSkipped: false }
      } finally {
        held.release()
        tree.close()
      }
    },
    async get({ limit, memory, requireEncryption, onProgress, signal = never } = {}) {
      const share = await look(signal)
      const name = nameOf(share, undefined)
      const entry = { ...nodeOf(share, name), path: name }
      requireEncryptedSource(entry, name, { requireEncryption })
      if (limit !== undefined && share.size > limit) {
        throw new SyncError('limit', 'CONTENT_TOO_LARGE', `${name} has ${share.size} bytes, and ${limit} are allowed`)
      }
      const context = await contextOf(share)
      if (isArchive(share))
        return receiveWhole(context, entry, Math.min(limit ?? Infinity, archiveLimit(share)), signal)
      const fileKey = await openFileKey(context, entry, signal)
      try {
        return await receive(context, entry, share.size, fileKey, { memory, onProgress, signal })
      } finally {
        fileKey?.wipe()
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

const archiveLimit = ({ size }: PublicDownload) => size + Math.ceil(size / 100) + ARCHIVE_SPARE

const noAccount = async (): Promise<never> => {
  throw new SyncError('auth', 'LOGIN_NEEDED', 'There is no account here')
}

const exists = (name: string) =>
  new SyncError('conflict', 'EXISTS', `It exists already: ${name}`, { hint: 'See --on-conflict.' })

/** What the link says, as a name on this disk. */
function nameOf(share: PublicDownload, names: Names | undefined): string {
  const isUnnamed = isArchive(share) && !/\.zip$/i.test(share.fileName)
  const name = localName(isUnnamed ? `${share.fileName}.zip` : share.fileName, names === undefined ? {} : { names })
  if (isTemporaryName(name)) {
    throw new SyncError('usage', 'NAME_UNSAFE', 'The link names a file as this program names its own', {
      hint: 'Say how it is to be called: sync download LINK NAME',
    })
  }
  return name
}

function goalOf(target: string, named: string): { readonly directory: string; readonly name: string } {
  const path = resolve(target)
  const last = target.split(sep === '/' ? sep : /[\\/]/).at(-1)!
  const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  if (isDirectory || ['', '.', '..'].includes(last)) return { directory: path, name: named }
  return { directory: dirname(path), name: basename(path) }
}

/** True when a local file is what an encrypted link leads to: its tag is made again from it. */
async function isSame(context: DownloadContext, node: RemoteNode, path: string, signal: AbortSignal): Promise<boolean> {
  if (node.isEncrypted !== true || !lstatSync(path).isFile() || lstatSync(path).size !== node.size) return false
  const fileKey = (await openFileKey(context, node, signal))!
  const reader = await openStable(path, node.name)
  try {
    const check = createContentCheck(fileKey)
    await reader.each((piece) => check.update(piece), signal)
    await reader.verify()
    return check.matches()
  } finally {
    fileKey.wipe()
    await reader.close()
  }
}
