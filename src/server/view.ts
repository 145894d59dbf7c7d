/**
 * Records as the wire wants them: nodes, users and dates. Absent values are left out, never null. Decides nothing.
 * @module
 */
import { type Access, permissionFlags } from './access.ts'
import { badRequest } from './errors.ts'
import { isShareHolder, SHARE_BASE } from './holders.ts'
import {
  FILE,
  KEY_VERSIONS,
  type KeyPairRecord,
  type KeyVersion,
  NODE_TYPES,
  type NodeRecord,
  ROOM,
} from './records.ts'
import type { Store } from './store.ts'

export type Wire = Record<string, unknown>

export function dateView(ms: number): string {
  return new Date(ms).toISOString()
}

/** Dates of the log may come without a time zone; they are UTC then. */
export function dateOf(text: string | null): number | undefined {
  if (text === null || text === '') return undefined
  const at = Date.parse(
    /(?:Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text.includes('T') ? text : `${text}T00:00:00`}Z`,
  )
  if (Number.isNaN(at)) throw badRequest(-80001, 'Not a date')
  return at
}

const avatarUuid = (id: number): string => `00000000-0000-4000-8000-${id.toString(16).padStart(12, '0').slice(-12)}`

/** A user as part of other answers; a removed one keeps its id. */
export function userInfo(store: Store, id: number): Wire {
  if (isShareHolder(id)) return visitorInfo(store, id)
  const user = store.users.get(id)
  // 0: whoever administers the server at its own machine.
  const name = user?.name ?? (id === 0 ? 'administrator' : 'deleted')
  return {
    id,
    userType: user !== undefined ? 'internal' : id === 0 ? 'system' : 'deleted',
    avatarUuid: avatarUuid(id),
    userName: name,
    firstName: user?.firstName ?? name,
    lastName: user?.lastName ?? '',
    displayName: name,
    ...(user?.email === undefined ? {} : { email: user.email }),
  }
}

/** Whoever uses a link, or puts files in by a file request. */
function visitorInfo(store: Store, id: number): Wire {
  const share = store.shares.get(id - SHARE_BASE)
  const what = share?.kind === 'download' ? 'Link' : 'File request'
  const name = share === undefined ? what : `${what} ${share.name}`
  const names = { userName: name, firstName: name, lastName: '', displayName: name }
  return { id, userType: 'external', avatarUuid: avatarUuid(id), ...names }
}

/** A node for a listing. */
export function nodeView(node: NodeRecord, access: Access): Wire {
  const view: Wire = {
    id: node.id,
    type: NODE_TYPES[node.type],
    name: node.name,
    ...(node.parentId === 0 ? {} : { parentId: node.parentId }),
    parentPath: access.pathOf(node.parentId) ?? '/',
    createdAt: dateView(node.createdAt),
    updatedAt: dateView(node.updatedAt),
    size: node.size,
    classification: node.classification ?? 2,
    permissions: permissionFlags(access.bits(node.roomId)),
    isEncrypted: node.encrypted,
    branchVersion: node.version,
    authParentId: node.roomId,
    isFavorite: access.isFavorite(node.id),
    cntDownloadShares: node.downloadShares ?? 0,
    cntUploadShares: node.uploadShares ?? 0,
  }
  if (isShareHolder(node.createdBy)) view.createdBy = userInfo(access.store, node.createdBy)
  if (node.timestampCreation !== undefined) view.timestampCreation = dateView(node.timestampCreation)
  if (node.timestampModification !== undefined) view.timestampModification = dateView(node.timestampModification)
  if (node.notes !== undefined) view.notes = node.notes
  if (node.expireAt) view.expireAt = dateView(node.expireAt)
  if (node.type === FILE) {
    const dot = node.name.lastIndexOf('.')
    if (dot > 0) view.fileType = node.name.slice(dot + 1)
    view.mediaType = 'application/octet-stream'
    view.referenceId = node.referenceId ?? node.id
    if (node.hash !== undefined) view.hash = node.hash
    return view
  }
  view.cntRooms = node.rooms ?? 0
  view.cntFolders = node.folders ?? 0
  view.cntFiles = node.files ?? 0
  if (node.type !== ROOM) return view
  view.inheritPermissions = node.inherit === true
  view.recycleBinRetentionPeriod = node.retentionDays ?? 0
  view.isBrowsable = true
  view.hasActivitiesLog = true
  if (node.quota !== undefined && node.quota > 0) view.quota = node.quota
  return view
}

/** A single node with all there is to say, from the point of view of one user. */
export function fullNodeView(store: Store, node: NodeRecord, access: Access): Wire {
  return {
    ...nodeView(node, access),
    createdBy: userInfo(store, node.createdBy),
    updatedBy: userInfo(store, node.updatedBy),
    encryptionInfo: encryptionInfo(store, node, access.userId),
    cntComments: store.nodeComments.getCount({ start: [node.id, 0], end: [node.id + 1, 0] }),
  }
}

function encryptionInfo(store: Store, node: NodeRecord, userId: number): Wire {
  const none = { userKeyState: 'none', roomKeyState: 'none', dataSpaceKeyState: 'none' }
  if (!node.encrypted) return none
  if (node.type !== FILE) {
    return { ...none, userKeyState: preferredKeyPair(store, userId) === undefined ? 'none' : 'available' }
  }
  const has = KEY_VERSIONS.some((version) => store.fileKeys.doesExist([node.id, userId, version]))
  return { ...none, userKeyState: has ? 'available' : 'pending' }
}

/** The key pair to use for a user: the newer kind if there is one. */
export function preferredKeyPair(store: Store, userId: number): KeyPairRecord | undefined {
  for (const version of KEY_VERSIONS) {
    const pair = store.keyPairs.get([userId, version])
    if (pair !== undefined) return pair
  }
  return undefined
}

export function keyPairView(pair: KeyPairRecord): Wire {
  return {
    privateKeyContainer: {
      version: pair.version,
      privateKey: pair.privateKey,
      createdAt: dateView(pair.createdAt),
      createdBy: pair.createdBy,
    },
    publicKeyContainer: publicKeyView(pair),
  }
}

export function publicKeyView(pair: {
  version: KeyVersion
  publicKey: string
  createdAt: number
  createdBy: number
}): Wire {
  return {
    version: pair.version,
    publicKey: pair.publicKey,
    createdAt: dateView(pair.createdAt),
    createdBy: pair.createdBy,
  }
}
