/**
 * The server's JSON: types, and parsers that copy known fields into fresh objects after checking them. Unknown fields are
 * dropped, `null` counts as absent, ids and sizes must be exact integers.
 * @module
 */
import { SyncError } from '../errors.ts'

type Parser<T> = (value: unknown, path: string) => T

const bad = (path: string, what: string) =>
  new SyncError('server', 'ANSWER_INVALID', `The server’s answer is not as expected: ${path} ${what}`, {
    hint: 'Is this a compatible server? A proxy may have changed the answer.',
  })

const text: Parser<string> = (value, path) => {
  if (typeof value !== 'string') throw bad(path, 'is not text')
  return value
}
const flag: Parser<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw bad(path, 'is not true or false')
  return value
}
const integer: Parser<number> = (value, path) => {
  if (!Number.isSafeInteger(value)) throw bad(path, 'is not an exact integer')
  return value as number
}
const natural: Parser<number> = (value, path) => {
  if (integer(value, path) < 0) throw bad(path, 'is negative')
  return value as number
}
/** Of a node: 0 is the root of all, which nothing is inside of. */
const nodeId: Parser<number> = (value, path) => {
  if (integer(value, path) <= 0) throw bad(path, 'is no id of a node')
  return value as number
}
/** RFC 3339 time as milliseconds since the epoch. */
const time: Parser<number> = (value, path) => {
  const at = Date.parse(text(value, path))
  if (Number.isNaN(at)) throw bad(path, 'is not a time')
  return at
}
/** 0001-01-01 and the end of 9999: what RFC 3339 can say. A file system may have other times. */
const [FIRST_TIME, LAST_TIME] = [-62_135_596_800_000, 253_402_300_799_999]
/** The time that the server has for one of a file system: the nearest that it can hold. Milliseconds since the epoch. */
export const wireTime = (ms: number): number => Math.min(Math.max(ms, FIRST_TIME), LAST_TIME)
/** For the server. */
export const formatTime = (ms: number): string => new Date(wireTime(ms)).toISOString()
/** Passed on unread: another parser (crypto/containers.ts) is strict about it. */
const raw: Parser<unknown> = (value) => value

const oneOf =
  <T extends string>(...values: readonly T[]): Parser<T> =>
  (value, path) => {
    if (!values.includes(value as T)) throw bad(path, 'has an unknown value')
    return value as T
  }

const list =
  <T>(item: Parser<T>, max = 1_000_000): Parser<T[]> =>
  (value, path) => {
    if (!Array.isArray(value) || value.length > max) throw bad(path, 'is not a list of the expected length')
    return value.map((entry, index) => item(entry, `${path}[${index}]`))
  }

/** Marks a field that may be missing. */
interface Optional<T> {
  readonly optional: Parser<T>
}
const maybe = <T>(optional: Parser<T>): Optional<T> => ({ optional })

type Field = Parser<unknown> | Optional<unknown>
type Shape = Record<string, Field>
type Required<S extends Shape> = { [K in keyof S as S[K] extends Parser<unknown> ? K : never]: S[K] }
type Loose<S extends Shape> = { [K in keyof S as S[K] extends Parser<unknown> ? never : K]: S[K] }
type Value<F> = F extends Parser<infer T> ? T : F extends Optional<infer T> ? T : never
type Parsed<S extends Shape> = {
  readonly [K in keyof Required<S>]: Value<S[K]>
} & { readonly [K in keyof Loose<S>]?: Value<S[K]> }

const shape = <S extends Shape>(fields: S): Parser<Parsed<S>> => {
  const entries = Object.entries(fields)
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(path, 'is not an object')
    const out: Record<string, unknown> = {}
    for (const [name, field] of entries) {
      const found = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
      if (typeof field === 'function') out[name] = field(found, `${path}.${name}`)
      else if (found !== undefined && found !== null) out[name] = field.optional(found, `${path}.${name}`)
    }
    return out as Parsed<S>
  }
}

const range = shape({ offset: natural, limit: natural, total: natural })
/** Longest page we ever ask for. */
export const PAGE = 500
const page = <T>(item: Parser<T>, max = PAGE) => shape({ range, items: list(item, max) })

// Exported types are interfaces, so that editors and the reference show their names and not all that is in them.
type ItemOf<P extends Parser<{ readonly items: readonly unknown[] }>> = ReturnType<P>['items'][number]

const permissionFlags = shape({
  manage: flag,
  read: flag,
  create: flag,
  change: flag,
  delete: flag,
  manageDownloadShare: flag,
  manageUploadShare: flag,
  readRecycleBin: flag,
  restoreRecycleBin: flag,
  deleteRecycleBin: flag,
})
export interface Permissions extends ReturnType<typeof permissionFlags> {}

/** Of a million nodes most have the same: each combination is there once. */
const permissionSets = new Map<string, Permissions>()
const permissions: Parser<Permissions> = (value, path) => {
  const parsed = permissionFlags(value, path)
  const key = Object.values(parsed).map(Number).join('')
  const known = permissionSets.get(key)
  if (known === undefined) permissionSets.set(key, parsed)
  return known ?? parsed
}

/** What is in one folder comes together, and says the same each time. */
let lastParentPath = ''
const parentPath: Parser<string> = (value, path) => {
  const parsed = text(value, path)
  if (parsed !== lastParentPath) lastParentPath = parsed
  return lastParentPath
}

export const parseNode = shape({
  id: nodeId,
  type: oneOf('room', 'folder', 'file'),
  name: text,
  parentId: maybe(natural),
  parentPath: maybe(parentPath),
  size: maybe(natural),
  isEncrypted: maybe(flag),
  createdAt: maybe(time),
  updatedAt: maybe(time),
  timestampModification: maybe(time),
  /** Grows when anything at or below the node changes. */
  branchVersion: maybe(integer),
  /** The same for all versions of a file. */
  referenceId: maybe(natural),
  permissions: maybe(permissions),
  cntFiles: maybe(natural),
  cntFolders: maybe(natural),
  cntRooms: maybe(natural),
  /** Of rooms: most bytes that may be in them; 0: no limit of their own. */
  quota: maybe(integer),
})
/** A room, folder or file on the server. Times are milliseconds since the epoch. */
export interface RemoteNode extends ReturnType<typeof parseNode> {}

export const parseNodePage = page(parseNode)

export const parseDeletedPage = page(
  shape({
    name: text,
    type: oneOf('room', 'folder', 'file'),
    parentId: natural,
    parentPath: text,
    cntVersions: natural,
    firstDeletedAt: time,
    lastDeletedAt: time,
    lastDeletedNodeId: natural,
    timestampModification: maybe(time),
  }),
)
/** A name in the recycle bin of a room, with all that was deleted or replaced under it. */
export interface DeletedSummary extends ItemOf<typeof parseDeletedPage> {}

export const parseDeletedVersions = page(
  shape({
    id: natural,
    name: text,
    type: oneOf('room', 'folder', 'file'),
    parentId: natural,
    parentPath: text,
    size: maybe(natural),
    isEncrypted: maybe(flag),
    createdAt: maybe(time),
    updatedAt: maybe(time),
    deletedAt: maybe(time),
    timestampModification: maybe(time),
    referenceId: maybe(natural),
  }),
)
/** One file or folder in the recycle bin. */
export interface DeletedVersion extends ItemOf<typeof parseDeletedVersions> {}

export const parseAccount = shape({
  id: natural,
  userName: text,
  firstName: maybe(text),
  lastName: maybe(text),
  email: maybe(text),
  isEncryptionEnabled: maybe(flag),
})
export type Account = ReturnType<typeof parseAccount>

export const parseSystemInfo = shape({ useS3Storage: maybe(flag), s3EnforceDirectUpload: maybe(flag) })
export const parseVersion = shape({ restApiVersion: maybe(text), sdsServerVersion: maybe(text) })
const passwordRules = shape({
  minLength: maybe(natural),
  characterRules: maybe(
    shape({
      mustContainCharacters: maybe(list(text, 100)),
      numberOfCharacteristicsToEnforce: maybe(natural),
    }),
  ),
  rejectUserInfo: maybe(flag),
  rejectKeyboardPatterns: maybe(flag),
})
/** Rules for passwords that only clients see, and for those of shares. */
export const parsePasswordPolicies = shape({
  encryptionPasswordPolicies: maybe(passwordRules),
  sharesPasswordPolicies: maybe(passwordRules),
})
export const parseRawList = list(raw, 16)
export const parseRaw = raw

export const parseUpload = shape({ uploadUrl: text, uploadId: text, token: text })
export const parsePartUrls = shape({ urls: list(shape({ url: text, partNumber: natural }), 10_000) })
export const parseUploadStatus = shape({
  status: oneOf('transfer', 'finishing', 'done', 'error'),
  node: maybe(parseNode),
  errorDetails: maybe(raw),
})
export const parseChunkReceipt = shape({ size: maybe(natural), hash: maybe(text) })
export const parseDownload = shape({ downloadUrl: text })

export const parseMissingFileKeys = shape({
  range: maybe(range),
  items: list(shape({ userId: integer, fileId: natural }), PAGE),
  users: list(shape({ id: integer, publicKeyContainer: raw }), PAGE),
  files: list(shape({ id: natural, fileKeyContainer: raw }), PAGE),
})
export type MissingFileKeys = ReturnType<typeof parseMissingFileKeys>

export const parseRoomUsers = page(
  shape({
    userInfo: shape({ id: natural, userName: maybe(text), firstName: maybe(text), lastName: maybe(text) }),
    isGranted: flag,
    permissions: maybe(permissions),
    publicKeyContainer: maybe(raw),
  }),
)
export type RoomUser = ReturnType<typeof parseRoomUsers>['items'][number]

export const parseRoomGroups = page(
  shape({ id: natural, name: text, isGranted: flag, permissions: maybe(permissions) }),
)
export type RoomGroup = ReturnType<typeof parseRoomGroups>['items'][number]

export const parseLogEvents = page(
  shape({
    id: natural,
    time,
    userId: integer,
    message: text,
    userName: maybe(text),
    operationName: maybe(text),
    /** 0: done, 2: failed. */
    status: maybe(integer),
  }),
)
/** What was done in a room, as the server has noted it. */
export interface LogEvent extends ItemOf<typeof parseLogEvents> {}

/** Of the customer whose account it is. A limit below 0 is none. */
export const parseCustomer = shape({
  name: maybe(text),
  spaceLimit: integer,
  spaceUsed: natural,
  accountsLimit: maybe(integer),
  accountsUsed: maybe(natural),
})
export type Customer = ReturnType<typeof parseCustomer>

/** What a link is known by: it goes into an address, so it has nothing else in it. */
const accessKey: Parser<string> = (value, path) => {
  if (!/^[A-Za-z0-9_-]{1,128}$/.test(text(value, path))) throw bad(path, 'is no key of a link')
  return value as string
}
const person = shape({ id: integer, userName: maybe(text), firstName: maybe(text), lastName: maybe(text) })

const share = {
  id: natural,
  name: text,
  accessKey,
  createdAt: time,
  createdBy: maybe(person),
  updatedAt: maybe(time),
  expireAt: maybe(time),
  isProtected: maybe(flag),
  isEncrypted: maybe(flag),
  notes: maybe(text),
  notifyCreator: maybe(flag),
}

export const parseDownloadShare = shape({
  ...share,
  nodeId,
  nodePath: maybe(text),
  nodeType: maybe(oneOf('room', 'folder', 'file')),
  cntDownloads: natural,
  maxDownloads: maybe(natural),
})
/** A link that a file, folder or room is given away by. Times are milliseconds since the epoch. */
export interface DownloadShare extends ReturnType<typeof parseDownloadShare> {}
export const parseDownloadShares = page(parseDownloadShare)

export const parseUploadShare = shape({
  ...share,
  targetId: nodeId,
  targetPath: maybe(text),
  cntFiles: maybe(natural),
  cntUploads: maybe(natural),
  maxSlots: maybe(natural),
  maxSize: maybe(natural),
  filesExpiryPeriod: maybe(natural),
  showUploadedFiles: maybe(flag),
  /** Of one that was asked for by itself; not every server says it. */
  uploadedFiles: maybe(
    list(
      shape({
        nodeId: maybe(natural),
        name: text,
        size: maybe(natural),
        createdAt: maybe(time),
        senderAddress: maybe(text),
      }),
      PAGE,
    ),
  ),
})
/** A link by which anybody can put files into a room or folder. Times are milliseconds since the epoch, sizes bytes. */
export interface UploadShare extends ReturnType<typeof parseUploadShare> {}
export const parseUploadShares = page(parseUploadShare)

export const parseReceivedFiles = page(
  shape({
    id: nodeId,
    type: oneOf('room', 'folder', 'file'),
    name: text,
    size: maybe(natural),
    createdAt: maybe(time),
    createdBy: maybe(shape({ id: maybe(integer), userType: maybe(text), userName: maybe(text) })),
  }),
)

export const parsePublicDownload = shape({
  isProtected: flag,
  fileName: text,
  size: natural,
  limitReached: flag,
  creatorName: maybe(text),
  createdAt: maybe(time),
  hasDownloadLimit: maybe(flag),
  mediaType: maybe(text),
  name: maybe(text),
  expireAt: maybe(time),
  notes: maybe(text),
  isEncrypted: maybe(flag),
  fileKey: maybe(raw),
  privateKeyContainer: maybe(raw),
})
/** What everybody is told who has the link. */
export interface PublicDownload extends ReturnType<typeof parsePublicDownload> {}

/** Most people that a file is encrypted for. */
export const MAX_RECIPIENTS = 10_000

export const parsePublicRequest = shape({
  isProtected: flag,
  createdAt: maybe(time),
  name: maybe(text),
  isEncrypted: maybe(flag),
  expireAt: maybe(time),
  notes: maybe(text),
  creatorName: maybe(text),
  remainingSize: maybe(natural),
  remainingSlots: maybe(natural),
  userUserPublicKeyList: maybe(shape({ items: list(shape({ id: integer, publicKeyContainer: raw }), MAX_RECIPIENTS) })),
})
/** What everybody is told who has the link of a file request. */
export interface PublicRequest extends ReturnType<typeof parsePublicRequest> {}

export const parsePublicUpload = shape({ uploadId: text, uploadUrl: maybe(text), token: maybe(text) })
export const parsePublicUploadStatus = shape({
  status: oneOf('transfer', 'finishing', 'done', 'error'),
  fileName: maybe(text),
  size: maybe(natural),
  errorDetails: maybe(raw),
})
export const parsePublicUploadedFile = shape({ name: text, size: natural, createdAt: maybe(time) })

export const parseErrorBody = shape({ code: maybe(integer), message: maybe(text), errorCode: maybe(integer) })

/** Deepest JSON read. */
const MAX_DEPTH = 32

/** JSON text to values, refused when nested too deeply; keys that could reach a prototype are dropped by the parsers. */
export function parseJson(bytes: Uint8Array): unknown {
  let source: string
  try {
    source = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw notJson(cause)
  }
  let depth = 0
  let inText = false
  for (let i = 0; i < source.length; i++) {
    const char = source.charCodeAt(i)
    if (inText) {
      if (char === 0x5c) i++
      else if (char === 0x22) inText = false
    } else if (char === 0x22) inText = true
    else if (char === 0x7b || char === 0x5b) {
      if (++depth > MAX_DEPTH) throw bad('body', 'is nested too deeply')
    } else if (char === 0x7d || char === 0x5d) depth--
  }
  try {
    return JSON.parse(source)
  } catch (cause) {
    throw notJson(cause)
  }
}

const notJson = (cause: unknown) =>
  new SyncError('server', 'ANSWER_NOT_JSON', 'The server’s answer is not JSON', {
    hint: 'Is this the address of a compatible server? A proxy or login portal may stand in between.',
    retryable: true,
    cause,
  })
