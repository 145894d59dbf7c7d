/**
 * Shapes of what the store keeps. Ids are positive integers below 2^53; times are milliseconds since the epoch; sizes
 * are bytes. Reading and writing them is up to the store and its users.
 * @module
 */

/** Order matters: listings sort rooms before folders before files. */
export const NODE_TYPES = ['room', 'folder', 'file'] as const
export const ROOM = 0
export const FOLDER = 1
export const FILE = 2
export type NodeType = typeof ROOM | typeof FOLDER | typeof FILE

export interface NodeRecord {
  id: number
  type: NodeType
  name: string
  /** 0 is the root, which holds rooms only. */
  parentId: number
  /** The nearest room; a room's own id for rooms. Decides permissions. */
  roomId: number
  encrypted: boolean
  createdAt: number
  createdBy: number
  updatedAt: number
  updatedBy: number
  /** Grows whenever anything at or below this node changes. */
  version: number
  /** Of everything below, for containers. */
  size: number
  timestampCreation?: number
  timestampModification?: number
  notes?: string
  classification?: number
  expireAt?: number
  /** Containers: number of direct children by type. */
  rooms?: number
  folders?: number
  files?: number
  /** Rooms: members of the parent room count here too. */
  inherit?: boolean
  quota?: number
  retentionDays?: number
  /** Rooms: file keys are also for the rescue key of the system. */
  systemRescue?: true
  /** Files: key of the content record, and the MD5 of the content where it is known. */
  contentId?: string
  hash?: string
  /** Files that replaced another: id of the first version. */
  referenceId?: number
  /** Shares of this very node. */
  downloadShares?: number
  uploadShares?: number
}

/** A node in a recycle bin. Below a deleted folder the nodes stay as they are and are out of reach. */
export interface DeletedRecord extends NodeRecord {
  deletedAt: number
  deletedBy: number
  parentPath: string
}

/** A piece of content: a range of a blob file, bytes kept right here when they are few, or a whole object of a store. */
export interface Segment {
  file?: string
  data?: Uint8Array
  /** Id in the object store. */
  object?: string
  offset: number
  size: number
  /** Files: CRC-32 of each 256 KiB of the whole file, four bytes each, little-endian. */
  sums?: Uint8Array
}

export interface ContentRecord {
  segments: Segment[]
  size: number
  /** Number of file nodes, live or deleted, that use it. */
  refs: number
}

/** What may be at the object store under a content id that no content record claims: it is to be removed. */
export interface StrayRecord {
  /** Of the multipart upload; absent as long as it is not known. */
  uploadId?: string
  /** Content that was deleted: there is no multipart upload. */
  isWhole?: true
  /** When a server that did not open the upload itself found it; see ../server/disk-blobs.ts for the time it stays. */
  foundAt?: number
}

/** A file of content that nothing referred to at a start. */
export interface AsideRecord {
  foundAt: number
}

export interface UserRecord {
  id: number
  name: string
  createdAt: number
  salt: Uint8Array
  passwordHash: Uint8Array
  /** Changes with the password; tokens of an older epoch are void. */
  epoch: number
  /** Second factor, where there is one: its secret, and the time step of the last code that was used. */
  oneTimeCodes?: { secret: Uint8Array; lastStep: number }
  /** May look after users, groups and the event log through the API. */
  isAdmin?: true
  /** Since then its logins are void, and it cannot log in. */
  disabledAt?: number
  /** Most bytes of the files that it made, those in recycle bins included. Absent: no limit. */
  quota?: number
  lastLoginAt?: number
  firstName?: string
  lastName?: string
  email?: string
  phone?: string
  language?: string
}

export interface GroupRecord {
  id: number
  name: string
  createdAt: number
}

/** What was done in a room. */
export interface EventRecord {
  id: number
  time: number
  userId: number
  operation: string
  /** What it was done to: kind and path or name. */
  message: string
}

export type KeyVersion = 'A' | 'RSA-4096'
export const KEY_VERSIONS: readonly KeyVersion[] = ['RSA-4096', 'A']

/** Both halves of a user key pair in PEM; the private one is locked by its owner and opaque here. */
export interface KeyPairRecord {
  version: KeyVersion
  privateKey: string
  publicKey: string
  createdAt: number
  createdBy: number
}

/** A file key wrapped for one recipient: base64 texts, as received. */
export interface FileKeyRecord {
  key: string
  iv: string
  tag: string
  version: string
}

export interface TokenRecord {
  kind: 'access' | 'refresh'
  userId: number
  epoch: number
  clientId: string
  family: string
  expiresAt: number
  /** Refresh tokens: when it was first redeemed. */
  rotatedAt?: number
}

export interface FinishedUpload {
  /** Or the holder id of the file request. */
  userId: number
  nodeId: number
  finishedAt: number
  /** File requests: name as the visitor gave it, and size. */
  given?: { name: string; size: number }
}

/** What both kinds of share have. */
interface CommonShare {
  id: number
  /** The secret in the link; its SHA-256 leads here. */
  accessKey: string
  nodeId: number
  name: string
  createdAt: number
  createdBy: number
  updatedAt: number
  updatedBy: number
  expireAt?: number
  notes?: string
  internalNotes?: string
  showCreatorName?: boolean
  showCreatorUsername?: boolean
  notifyCreator?: boolean
  /** Of a password that this server checks; never of encrypted files. */
  password?: { salt: Uint8Array; hash: Uint8Array }
  /** Changes with the password; download tokens of an older epoch are void. */
  epoch: number
}

/** A link by which anybody can fetch a file, or a plain room or folder. */
export interface DownloadShareRecord extends CommonShare {
  kind: 'download'
  maxDownloads?: number
  downloads: number
  /** Tokens that were counted and can come again. */
  openTokens?: number
}

/** A link by which anybody can put files into a room or folder: a file request. */
export interface UploadShareRecord extends CommonShare {
  kind: 'upload'
  maxSlots?: number
  maxSize?: number
  /** Days after which what was uploaded expires. */
  filesExpiryPeriod?: number
  showUploadedFiles?: boolean
  uploads: number
  uploadedBytes: number
}

export type ShareRecord = DownloadShareRecord | UploadShareRecord

/** A file that came by a file request. */
export interface ReceivedRecord {
  nodeId: number
  /** As the visitor gave it. */
  name: string
  size: number
  hash?: string
  receivedAt: number
  /** Where it came from. */
  address: string
}

/** An OAuth client of an integrator. */
export interface ClientRecord {
  id: string
  name: string
  /** SHA-256 of its secret, which is long and random; absent for public clients, which must use PKCE. */
  secretHash?: Uint8Array
  redirectUris: string[]
  grants: string[]
  createdAt: number
}

/** Who did what: of all rooms and of the server itself. The log of a room is kept beside it, see EventRecord. */
export interface AuditRecord {
  id: number
  time: number
  /** 0: whoever administers the server at its own machine. */
  userId: number
  operation: string
  message: string
  /** 2: it was refused. */
  status: 0 | 2
  nodeId?: number
  roomId?: number
  /** Where it came from, as far as that is known. */
  address?: string
}

export interface CommentRecord {
  id: number
  nodeId: number
  text: string
  createdAt: number
  createdBy: number
  updatedAt: number
  updatedBy: number
}
