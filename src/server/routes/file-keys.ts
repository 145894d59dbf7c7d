/**
 * File keys: the caller's own, those that are missing, and handing out new ones. Finding what is missing is left to
 * ../missing-keys.ts.
 * @module
 */
import { type Access, DOWNLOAD_SHARE, MANAGE, READ, READ_BIN } from '../access.ts'
import type { RouteTable } from '../call.ts'
import { type Call, noContent, ok, type Reply } from '../call.ts'
import { ApiError, badRequest, fileNotFound } from '../errors.ts'
import { isRescueHolder, isShareHolder, RESCUE_BASE, rescueHoldersOf, SHARE_BASE } from '../holders.ts'
import { findMissingKeys } from '../missing-keys.ts'
import { FILE, type FileKeyRecord, KEY_VERSIONS, type NodeRecord } from '../records.ts'
import type { Store } from '../store.ts'
import { putFileKey } from '../uploads.ts'
import { asFields, field, keyVersionOf, optionalArray, pageOf, parseFileKey, requiredInteger } from '../validate.ts'
import { publicKeyView } from '../view.ts'

const MAX_ITEMS = 100

function ownKey(call: Call): Reply {
  const { store } = call.app
  const file = encryptedFile(store, call.access, call.id('id', fileNotFound))
  call.access.require(file, READ)
  const wanted = call.query.get('version')
  const versions = wanted === null || wanted === '' ? KEY_VERSIONS : [keyVersionOf(wanted)]
  const fileKey = findKey(store, file.id, call.user.id, versions)
  if (fileKey === undefined) {
    const hasPair = versions.some((version) => store.keyPairs.doesExist([call.user.id, version]))
    if (!hasPair) throw new ApiError(403, -70020, 'User does not have a keypair')
    throw new ApiError(404, -40761, 'File key not found')
  }
  return ok(fileKey)
}

function findKey(store: Store, fileId: number, userId: number, versions: readonly string[]): FileKeyRecord | undefined {
  for (const version of versions) {
    const fileKey = store.fileKeys.get([fileId, userId, version])
    if (fileKey !== undefined) return fileKey
  }
  return undefined
}

/** A file, or one that lies in a recycle bin by itself: who moves their keys to another key pair must not lose older versions. */
function encryptedFile(store: Store, access: Access, id: number): NodeRecord {
  const binned = store.deleted.get(id)
  const file =
    binned !== undefined && (access.bits(binned.roomId) & READ_BIN) !== 0 ? binned : access.node(id, fileNotFound)
  if (file.type !== FILE) throw fileNotFound()
  if (!file.encrypted) throw badRequest(-40001, 'Room is not encrypted')
  return file
}

async function missing(call: Call): Promise<Reply> {
  const { store } = call.app
  const page = pageOf(call.query, MAX_ITEMS)
  const query = {
    useKey: call.query.get('use_key'),
    roomId: call.queryId('room_id'),
    fileId: call.queryId('file_id'),
    userId: call.queryId('user_id'),
  }
  const { entries, total, recipients = [] } = await findMissingKeys(store, call.user.id, query, page.offset, page.limit)
  const users = new Map<number, unknown>()
  const files = new Map<number, unknown>()
  for (const { id, pair } of recipients) users.set(id, { id, publicKeyContainer: publicKeyView(pair) })
  for (const { recipient, file, fileKey } of entries) {
    users.set(recipient.id, { id: recipient.id, publicKeyContainer: publicKeyView(recipient.pair) })
    files.set(file.id, { id: file.id, fileKeyContainer: fileKey })
  }
  return ok({
    range: { ...page, total },
    items: entries.map(({ recipient, file }) => ({ userId: recipient.id, fileId: file.id })),
    users: [...users.values()],
    files: [...files.values()],
  })
}

interface Entry {
  userId: number
  fileId: number
  fileKey: FileKeyRecord
}

async function distribute(call: Call): Promise<Reply> {
  const { store } = call.app
  void call.user
  const items = optionalArray(await call.json(), 'items')
  if (items === undefined || items.length === 0) throw badRequest(-80000, 'items is mandatory')
  const entries: Entry[] = items.map((item) => {
    const fields = asFields(item)
    return {
      userId: requiredInteger(fields, 'userId'),
      fileId: requiredInteger(fields, 'fileId'),
      fileKey: parseFileKey(field(fields, 'fileKey')),
    }
  })
  await call.change((change, access) => {
    for (const entry of entries) {
      const file = encryptedFile(store, access, entry.fileId)
      requireOwnKey(store, access, file, entry.fileKey)
      requireRecipient(store, access, file, entry)
      putFileKey(change, file.id, entry.userId, entry.fileKey)
    }
  })
  return noContent()
}

/**
 * Only who can open a file can hand out its key; room admins may have done so with a rescue key. IV and tag belong to the
 * content, so a key that comes with other ones could never open it, and would stay for good.
 */
function requireOwnKey(store: Store, access: Access, file: NodeRecord, given: FileKeyRecord): void {
  const own = findKey(store, file.id, access.userId, KEY_VERSIONS) ?? rescueFileKey(store, access, file)
  if (own === undefined) throw new ApiError(403, -40761, 'File key not found')
  if (own.iv !== given.iv || own.tag !== given.tag) throw badRequest(-80062, 'File key belongs to other content')
}

function rescueFileKey(store: Store, access: Access, file: NodeRecord): FileKeyRecord | undefined {
  if ((access.bits(file.roomId) & MANAGE) === 0) return undefined
  const range = { start: [file.id, RESCUE_BASE, ''], end: [file.id + 1, 0, ''], limit: 1 }
  return [...store.fileKeys.getRange(range)][0]?.value
}

/** The recipient must exist and own a key pair that opens what is stored. */
function requireRecipient(store: Store, access: Access, file: NodeRecord, { userId, fileKey }: Entry): void {
  const version = keyVersionOf(fileKey.version)
  if (isRescueHolder(userId)) {
    if (rescueHoldersOf(store, file.roomId).includes(userId) && store.keyPairs.doesExist([userId, version])) return
    throw new ApiError(404, -70501, 'User not found')
  }
  if (isShareHolder(userId)) {
    if (store.shares.get(userId - SHARE_BASE)?.nodeId !== file.id) throw new ApiError(404, -70501, 'User not found')
    access.require(file, DOWNLOAD_SHARE)
  } else if (!store.users.doesExist(userId)) throw new ApiError(404, -70501, 'User not found')
  if (!store.keyPairs.doesExist([userId, version])) throw badRequest(-80062, 'File key fits no key pair of the user')
}

export const fileKeyRoutes: RouteTable = {
  'GET /v4/nodes/files/:id/user_file_key': ownKey,
  'GET /v4/nodes/missingFileKeys': missing,
  'POST /v4/nodes/files/keys': distribute,
}
