/**
 * Missing file keys: which members of encrypted rooms cannot open which files yet, out of those that the caller can
 * open. Keys are opaque here; clients do the wrapping.
 * @module
 */
import { Access, DOWNLOAD_SHARE, MANAGE, membersOf, READ } from './access.ts'
import { ApiError, badRequest, forbidden, nodeNotFound } from './errors.ts'
import { isShareHolder, keyPairsOf, rescueHoldersOf, SHARE_BASE, SYSTEM_RESCUE } from './holders.ts'
import { FILE, type FileKeyRecord, type KeyPairRecord, type KeyVersion, type NodeRecord } from './records.ts'
import type { Store } from './store.ts'
import { preferredKeyPair } from './view.ts'

/** Files looked at before other requests get a turn. */
const SLICE = 1000

export interface MissingKey {
  recipient: { id: number; pair: KeyPairRecord }
  file: NodeRecord
  fileKey: FileKeyRecord
}

export interface MissingQuery {
  useKey: string | null
  roomId: number | undefined
  fileId: number | undefined
  userId: number | undefined
}

interface Caller {
  /** Whose file keys to start from, and of which version. */
  holder: number
  version: KeyVersion
  /** The caller lacks keys too, after a change of key pairs or when starting from a rescue key. */
  includeSelf: boolean
}

/**
 * Finds missing keys, at most `limit` of them after skipping `offset`.
 *
 * @returns the entries and how many there are, as far as was looked; `recipients` are told though they may lack nothing.
 */
export async function findMissingKeys(
  store: Store,
  userId: number,
  query: MissingQuery,
  offset: number,
  limit: number,
): Promise<{ entries: MissingKey[]; total: number; recipients?: { id: number; pair: KeyPairRecord }[] }> {
  const access = new Access(store, userId)
  if (query.userId !== undefined && isShareHolder(query.userId)) return missingOfShare(store, access, query)
  const entries: MissingKey[] = []
  let total = 0
  let looked = 0
  for (const roomId of roomsToSearch(store, access, query)) {
    const caller = callerFor(store, access, roomId, query)
    if (caller === undefined) continue
    const recipients = recipientsOf(store, roomId, userId, caller).filter(
      ({ id }) => query.userId === undefined || id === query.userId,
    )
    if (recipients.length === 0) continue
    for (const fileId of filesToSearch(store, roomId, query)) {
      if (++looked % SLICE === 0) await new Promise((resolve) => setImmediate(resolve))
      const lacking = recipients.filter(({ id, pair }) => !store.fileKeys.doesExist([fileId, id, pair.version]))
      if (lacking.length === 0) continue
      const file = access.find(fileId)
      const fileKey = store.fileKeys.get([fileId, caller.holder, caller.version])
      if (file === undefined || fileKey === undefined) continue
      for (const recipient of lacking) {
        if (total >= offset && entries.length < limit) entries.push({ recipient, file, fileKey })
        total++
      }
      // The total is a hint only: knowing that there is more is enough.
      if (total > offset + limit) return { entries, total }
    }
  }
  return { entries, total }
}

/**
 * The key of a file that its download share lacks, after a new version has taken the place of the one it was made for. Shares are
 * told only to who asks for one: other clients take every recipient for a user.
 */
function missingOfShare(
  store: Store,
  access: Access,
  { userId: holder = 0, fileId, roomId }: MissingQuery,
): { entries: MissingKey[]; total: number; recipients?: { id: number; pair: KeyPairRecord }[] } {
  const share = store.shares.get(holder - SHARE_BASE)
  const file = share === undefined ? undefined : access.find(share.nodeId)
  const pair = preferredKeyPair(store, holder)
  if (file === undefined || pair === undefined) throw new ApiError(404, -70501, 'User not found')
  access.require(file, DOWNLOAD_SHARE)
  const recipients = [{ id: holder, pair }]
  const own = preferredKeyPair(store, access.userId)
  const fileKey = own && store.fileKeys.get([file.id, access.userId, own.version])
  const isAsked = (fileId ?? file.id) === file.id && (roomId ?? file.roomId) === file.roomId
  const lacks = isAsked && !store.fileKeys.doesExist([file.id, holder, pair.version])
  if (!lacks || fileKey === undefined) return { entries: [], total: 0, recipients }
  return { entries: [{ recipient: { id: holder, pair }, file, fileKey }], total: 1, recipients }
}

function roomsToSearch(store: Store, access: Access, query: MissingQuery): number[] {
  if (query.fileId !== undefined) {
    const file = access.node(query.fileId)
    if (file.type !== FILE) throw nodeNotFound()
    return query.roomId === undefined || query.roomId === file.roomId ? [file.roomId] : []
  }
  if (query.roomId !== undefined) return [access.node(query.roomId).roomId]
  const rooms: number[] = []
  let last = 0
  // One key per room, then a jump to the next: the index is not read through.
  for (;;) {
    const [next] = [...store.encryptedFiles.getKeys({ start: [last + 1, 0], limit: 1 })]
    if (next === undefined) return rooms
    last = next[0]
    if (access.bits(last) !== 0) rooms.push(last)
  }
}

function* filesToSearch(store: Store, roomId: number, query: MissingQuery): Generator<number> {
  if (query.fileId !== undefined) {
    yield query.fileId
    return
  }
  let after = 0
  // In slices, because a read cursor must not stay open across turns of the event loop.
  for (;;) {
    const keys = [...store.encryptedFiles.getKeys({ start: [roomId, after + 1], end: [roomId + 1, 0], limit: SLICE })]
    for (const key of keys) yield key[1]
    const last = keys.at(-1)
    if (last === undefined) return
    after = last[1]
  }
}

/** Kinds of key to start from that are not the caller's own, and whether it is the older pair of two. */
const RESCUE_KEYS: Readonly<Record<string, { isSystem: boolean; isPrevious: boolean }>> = Object.freeze({
  room_rescue_key: { isSystem: false, isPrevious: false },
  previous_room_rescue_key: { isSystem: false, isPrevious: true },
  system_rescue_key: { isSystem: true, isPrevious: false },
  previous_system_rescue_key: { isSystem: true, isPrevious: true },
})

function callerFor(store: Store, access: Access, roomId: number, query: MissingQuery): Caller | undefined {
  const { userId } = access
  const useKey = query.useKey ?? ''
  if (Object.hasOwn(RESCUE_KEYS, useKey)) {
    const isAsked = query.roomId !== undefined || query.fileId !== undefined
    if ((access.bits(roomId) & MANAGE) === 0) {
      if (isAsked) throw forbidden()
      return undefined
    }
    const { isSystem, isPrevious } = RESCUE_KEYS[useKey] as { isSystem: boolean; isPrevious: boolean }
    const holder = rescueHoldersOf(store, roomId).find((id) => (id === SYSTEM_RESCUE) === isSystem)
    if (holder === undefined && isAsked && !isSystem) throw badRequest(-40024, 'Room has no rescue key')
    const pair = holder === undefined ? undefined : keyPairsOf(store, holder)[isPrevious ? 1 : 0]
    return holder === undefined || pair === undefined ? undefined : { holder, version: pair.version, includeSelf: true }
  }
  if (useKey === 'previous_user_key') {
    const previous = keyPairsOf(store, userId)[1]
    return previous && { holder: userId, version: previous.version, includeSelf: true }
  }
  if (useKey !== '') return undefined
  const pair = preferredKeyPair(store, userId)
  return pair && { holder: userId, version: pair.version, includeSelf: false }
}

/** Everyone who ought to be able to open files of a room and has a public key; rescue keys come first. */
function recipientsOf(
  store: Store,
  roomId: number,
  self: number,
  caller: Caller,
): { id: number; pair: KeyPairRecord }[] {
  const recipients: { id: number; pair: KeyPairRecord }[] = []
  for (const id of rescueHoldersOf(store, roomId)) {
    const pair = preferredKeyPair(store, id)
    // With the older of two pairs the newer one is a recipient.
    if (pair !== undefined && (id !== caller.holder || pair.version !== caller.version)) recipients.push({ id, pair })
  }
  for (const [id, bits] of membersOf(store, roomId)) {
    if ((id === self && !caller.includeSelf) || (bits & (MANAGE | READ | DOWNLOAD_SHARE)) === 0) continue
    const pair = preferredKeyPair(store, id)
    if (pair !== undefined) recipients.push({ id, pair })
  }
  return recipients
}
