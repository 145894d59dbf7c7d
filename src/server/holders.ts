/**
 * Who besides users can hold key pairs and file keys: rescue keys of rooms and of the system, and download shares of encrypted
 * files. They have ids above those of all users, under which their rows are kept beside those of users.
 * @module
 */
import { ApiError } from './errors.ts'
import { KEY_VERSIONS, type KeyPairRecord, type KeyVersion } from './records.ts'
import type { Store, Tx } from './store.ts'

/** Plus the id of a share: that share; also the author of what came by a file request. */
export const SHARE_BASE = 2 ** 51
/** Plus the id of a room: its rescue key. The number itself: the rescue key of the system. */
export const RESCUE_BASE = 2 ** 52
export const SYSTEM_RESCUE = RESCUE_BASE

export const isShareHolder = (id: number): boolean => id >= SHARE_BASE && id < RESCUE_BASE
export const isRescueHolder = (id: number): boolean => id >= RESCUE_BASE

/** Key pairs of a holder, the newer kind first. */
export function keyPairsOf(store: Store, holder: number): KeyPairRecord[] {
  return KEY_VERSIONS.map((version) => store.keyPairs.get([holder, version])).filter((pair) => pair !== undefined)
}

/** Rescue keys that files of a room are wrapped for: that of the nearest room that has one, and the system's where it was chosen. */
export function rescueHoldersOf(store: Store, roomId: number): number[] {
  const holders: number[] = []
  for (let id = roomId; id !== 0; ) {
    const room = store.nodes.get(id)
    if (room === undefined) break
    if (holders.length === 0 && keyPairsOf(store, RESCUE_BASE + id).length > 0) holders.push(RESCUE_BASE + id)
    if (room.systemRescue === true && keyPairsOf(store, SYSTEM_RESCUE).length > 0) holders.push(SYSTEM_RESCUE)
    id = room.parentId
  }
  return holders
}

/** Where to write, who does it, and when; what a change of the tree knows, too. */
interface Writing {
  store: Store
  tx: Tx
  userId: number
  now: number
}

export type GivenKeyPair = Pick<KeyPairRecord, 'version' | 'privateKey' | 'publicKey'>

/** @throws {ApiError} 409 -70021 when there is one of that version. */
export function giveKeyPair(change: Writing, holder: number, { version, privateKey, publicKey }: GivenKeyPair): void {
  const { store, tx, userId, now } = change
  if (store.keyPairs.doesExist([holder, version])) throw new ApiError(409, -70021, 'There is a key pair already')
  tx.put(store.keyPairs, [holder, version], { version, privateKey, publicKey, createdAt: now, createdBy: userId })
}

/** Takes a key pair away, with the file keys that were wrapped for it. Files stay. */
export function dropKeyPair({ store, tx }: Writing, holder: number, version: KeyVersion): void {
  tx.remove(store.keyPairs, [holder, version])
  const range = { start: [holder, version, 0], end: [holder, version, Number.MAX_SAFE_INTEGER] }
  for (const key of [...store.userFileKeys.getKeys(range)]) {
    tx.remove(store.userFileKeys, key)
    tx.remove(store.fileKeys, [key[2], holder, version])
  }
}

/** Takes all key pairs of a holder away. */
export function dropHolder(change: Writing, holder: number): void {
  for (const { version } of keyPairsOf(change.store, holder)) dropKeyPair(change, holder, version)
}
