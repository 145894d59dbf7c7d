/**
 * All file keys of an account from one of its key pairs to another, side by side at the server, so that the first may be given up.
 * Files are found by a walk through all rooms and their recycle bins, since the server only lists what is missing the other way
 * round. Nothing is held but a page of it.
 * @module
 */
import pLimit from 'p-limit'
import {
  formatFileKey,
  rewrapFileKey,
  SyncError,
  type UserKeyPair,
  unwrapFileKey,
  type WrappedFileKey,
} from '../../crypto/index.ts'
import { keyPairVersionFor } from '../../crypto/versions.ts'
import type { Api } from '../api/api.ts'
import { getFileKey, KEYS_PER_CALL, postFileKeys } from '../api/file-keys.ts'
import { searchTree } from '../api/nodes.ts'
import { listDeleted, listDeletedVersions } from '../api/recycle-bin.ts'
import { isSameContent } from './keyring.ts'

/** A file whose key this account may have. */
export interface KeyedFile {
  readonly id: number
  /** `/room/folder/name`, as the server says it. */
  readonly path: string
  readonly isBinned: boolean
}

/** What a walk cannot reach. */
export interface Unreached {
  /** Folders in recycle bins: what is in them has no ids that anybody is told. */
  folders: number
  /** Recycle bins that this account may not look into. */
  bins: number
}

const ifAllowed = (error: unknown): void => {
  if (!(error instanceof SyncError) || error.class !== 'permission') throw error
}

/** Everything in encrypted rooms that this account sees, then what is in their recycle bins. */
export async function* encryptedFiles(api: Api, unreached: Unreached, signal?: AbortSignal): AsyncGenerator<KeyedFile> {
  const rooms: number[] = []
  for await (const { id, type, name, parentPath = '/', isEncrypted } of searchTree(api, 0, signal, undefined, true)) {
    if (isEncrypted !== true) continue
    if (type === 'room') rooms.push(id)
    if (type === 'file') yield { id, path: `${parentPath}${name}`, isBinned: false }
  }
  for (const room of rooms) {
    try {
      for await (const { name, type, parentPath } of listDeleted(api, room, signal)) {
        if (type !== 'file') unreached.folders++
        else {
          for await (const { id } of listDeletedVersions(api, room, { name, type, parentPath }, signal)) {
            yield { id, path: `${parentPath}${name}`, isBinned: true }
          }
        }
      }
    } catch (error) {
      ifAllowed(error)
      unreached.bins++
    }
  }
}

/** The account's key of a file, wrapped for its key pair of a version; `undefined` when it has none. Throws for what cannot be asked. */
export async function ownFileKey(
  api: Api,
  fileId: number,
  version: UserKeyPair['version'],
  signal?: AbortSignal,
): Promise<WrappedFileKey | undefined> {
  try {
    const wrapped = await getFileKey(api, fileId, signal, version === 'A' ? 'A' : undefined)
    return keyPairVersionFor(wrapped.version) === version ? wrapped : undefined
  } catch (error) {
    if (error instanceof SyncError && error.code === 'FILE_KEY_MISSING') return undefined
    throw error
  }
}

/** A file key that stays behind, and why. */
export interface KeyLeft extends KeyedFile {
  readonly code: string
}

/** What one walk has found and done. */
export interface MovedKeys {
  /** Files whose key is there for the new key pair and opens. */
  readonly ready: number
  /** Keys that were wrapped for it now; they have not been read back. */
  readonly moved: number
  /** Files of which this account has no key. */
  readonly absent: number
  /** Keys that do not open, or that the server does not give: so many, and the first of them. */
  readonly left: number
  readonly leftFiles: readonly KeyLeft[]
  readonly unreached: Unreached
}

const LEFT_SHOWN = 100
const AT_ONCE = 8

interface Pairs {
  /** Opens the keys that are to be moved; asked for when one is to be. */
  readonly from: () => Promise<UserKeyPair>
  readonly fromVersion: UserKeyPair['version']
  readonly to: UserKeyPair
  /** Id of the account. */
  readonly userId: number
}

type Looked = 'ready' | 'absent' | 'gone' | { readonly code: string } | { readonly entry: Entry }
interface Entry {
  readonly userId: number
  readonly fileId: number
  readonly fileKey: ReturnType<typeof formatFileKey>
}

async function look(api: Api, { id, isBinned }: KeyedFile, pairs: Pairs, signal?: AbortSignal): Promise<Looked> {
  const { from, fromVersion, to, userId } = pairs
  try {
    const there = await ownFileKey(api, id, to.version, signal)
    const source = there === undefined ? await ownFileKey(api, id, fromVersion, signal) : undefined
    if (there !== undefined) {
      const fileKey = await unwrapFileKey(there, to)
      fileKey.wipe()
      return 'ready'
    }
    if (source === undefined) return 'absent'
    const [wrapped] = await rewrapFileKey(source, await from(), [to.publicKey])
    if (wrapped === undefined || !isSameContent(wrapped, source)) return { code: 'FILE_KEY_INVALID' }
    return { entry: { userId, fileId: id, fileKey: formatFileKey(wrapped) } }
  } catch (error) {
    if (!(error instanceof SyncError) || error.code === 'KEY_PASSWORD_WRONG') throw error
    // What was there when it was listed and is deleted by now: its key is in the bin, and is found there by the next walk.
    if (error.class === 'not_found' && !isBinned) return 'gone'
    if (['not_found', 'permission', 'key', 'integrity'].includes(error.class)) return { code: error.code }
    throw error
  }
}

/** Some files of a batch may have gone meanwhile; those are none. */
async function post(api: Api, entries: readonly Entry[], signal?: AbortSignal): Promise<number> {
  if (entries.length === 0) return 0
  try {
    await postFileKeys(api, entries, signal)
    return entries.length
  } catch (error) {
    if (!(error instanceof SyncError) || error.class !== 'not_found') throw error
    if (entries.length === 1) return 0
    let posted = 0
    for (const entry of entries) posted += await post(api, [entry], signal)
    return posted
  }
}

/**
 * One walk: what the new key pair lacks is wrapped for it. Once a walk has moved nothing, all that could be moved has been read back
 * and opened.
 *
 * @param onProgress - Told now and then how many files have been looked at.
 */
export async function moveFileKeys(
  api: Api,
  pairs: Pairs,
  onProgress: (files: number) => void,
  signal?: AbortSignal,
): Promise<MovedKeys> {
  const limit = pLimit(AT_ONCE)
  const unreached: Unreached = { folders: 0, bins: 0 }
  const leftFiles: KeyLeft[] = []
  let [ready, moved, absent, left, files] = [0, 0, 0, 0, 0]
  const work = async (batch: readonly KeyedFile[]) => {
    const looked = await Promise.all(batch.map((file) => limit(() => look(api, file, pairs, signal))))
    const entries: Entry[] = []
    for (const [at, what] of looked.entries()) {
      if (what === 'ready') ready++
      else if (what === 'absent') absent++
      else if (what === 'gone') continue
      else if ('entry' in what) entries.push(what.entry)
      else {
        left++
        if (leftFiles.length < LEFT_SHOWN) leftFiles.push({ ...batch[at]!, code: what.code })
      }
    }
    moved += await post(api, entries, signal)
    files += batch.length
    onProgress(files)
  }
  let batch: KeyedFile[] = []
  for await (const file of encryptedFiles(api, unreached, signal)) {
    batch.push(file)
    if (batch.length < KEYS_PER_CALL) continue
    await work(batch)
    batch = []
  }
  if (batch.length > 0) await work(batch)
  return { ready, moved, absent, left, leftFiles, unreached }
}
