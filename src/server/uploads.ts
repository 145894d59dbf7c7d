/**
 * Upload channels: what a client opened to send one file, the bytes received so far, and the step that turns them into
 * a node. Channels live in memory and end with the process; a finished upload is durable, and its outcome can be asked
 * for later. HTTP is left to the routes.
 * @module
 */
import { randomBytes } from 'node:crypto'
import { Access, CREATE, DELETE } from './access.ts'
import type { Blobs, Received } from './blobs.ts'
import { ApiError, badRequest, forbidden } from './errors.ts'
import { FILE, type FileKeyRecord, type NodeRecord, ROOM, type Segment } from './records.ts'
import type { Store } from './store.ts'
import { type Change, createNode, settleName } from './tree.ts'
import { type ConflictStrategy, keyVersionOf, MAX_ENCRYPTED_SIZE } from './validate.ts'

/** Content up to this size is kept in the metadata store, where one flush serves many files. */
const INLINE_LIMIT = 16 * 1024
const MIN_PART = 5 * 1024 * 1024
const IDLE_MS = 24 * 3_600_000
const OUTCOME_MS = 7 * 86_400_000
const MAX_CHANNELS = 20_000
const MD5_OF_NOTHING = 'd41d8cd98f00b204e9800998ecf8427e'

export interface NewUpload {
  userId: number
  parentId: number
  name: string
  size?: number
  direct: boolean
  attributes: Partial<NodeRecord>
}

interface Part {
  etag: string
  received: Received
}

export interface Channel extends NewUpload {
  id: string
  status: 'transfer' | 'finishing' | 'error'
  error?: ApiError
  lastUsed: number
  inlineBytes: number
  parts: Map<number, Part>
  /** Classic route: content in order. */
  segments: Segment[]
  length: number
  synced: Promise<void>[]
  /** MD5 of the content, while it is a single chunk. */
  hash: string | undefined
}

export interface FinishRequest {
  strategy: ConflictStrategy
  name?: string
  fileKey?: FileKeyRecord
  /** File keys for others, by user id. */
  userKeys: readonly { userId: number; fileKey: FileKeyRecord }[]
}

const notFound = (): ApiError => new ApiError(404, -20501, 'Upload not found')
const closed = (): ApiError => new ApiError(400, -20503, 'Upload channel is closed')

export class Uploads {
  readonly #store: Store
  readonly #blobs: Blobs
  readonly #now: () => number
  readonly #channels = new Map<string, Channel>()

  constructor(store: Store, blobs: Blobs, now: () => number) {
    this.#store = store
    this.#blobs = blobs
    this.#now = now
  }

  open(request: NewUpload): Channel {
    if (this.#channels.size >= MAX_CHANNELS)
      throw new ApiError(429, undefined, 'Too many open uploads', { 'Retry-After': '5' })
    const channel: Channel = {
      ...request,
      id: randomBytes(16).toString('hex'),
      status: 'transfer',
      lastUsed: this.#now(),
      inlineBytes: 0,
      parts: new Map(),
      segments: [],
      length: 0,
      synced: [],
      hash: MD5_OF_NOTHING,
    }
    this.#channels.set(channel.id, channel)
    return channel
  }

  /** A channel that can still take bytes. Finished ones answer 400, unknown ones 404. */
  get(id: string, userId?: number): Channel {
    const channel = this.find(id, userId)
    if (channel !== undefined && channel.status !== 'finishing') return channel
    if (channel !== undefined || this.outcome(id, userId) !== undefined) throw closed()
    throw notFound()
  }

  find(id: string, userId?: number): Channel | undefined {
    const channel = this.#channels.get(id)
    if (channel === undefined || (userId !== undefined && channel.userId !== userId)) return undefined
    channel.lastUsed = this.#now()
    return channel
  }

  /** Id of the node that a finished upload became. */
  outcome(id: string, userId?: number): number | undefined {
    const finished = this.#store.finished.get(id)
    if (finished === undefined || (userId !== undefined && finished.userId !== userId)) return undefined
    return finished.nodeId
  }

  cancel(channel: Channel): void {
    this.#channels.delete(channel.id)
    this.#blobs.discard(channel.segments)
    for (const part of channel.parts.values()) this.#blobs.discard([part.received.segment])
  }

  #inlineRoom(channel: Channel): number {
    return Math.max(0, INLINE_LIMIT - channel.inlineBytes)
  }

  /** Stores one part of a direct upload; sending a part again replaces it. Answers its ETag without quotes. */
  async putPart(channel: Channel, number: number, body: AsyncIterable<Uint8Array>): Promise<string> {
    const received = await this.#blobs.receive(channel.id, body, this.#inlineRoom(channel))
    if (this.#channels.get(channel.id) !== channel || channel.status === 'finishing') {
      this.#blobs.discard([received.segment])
      throw notFound()
    }
    const before = channel.parts.get(number)
    if (before !== undefined) this.#blobs.discard([before.received.segment])
    if (received.segment.data !== undefined) channel.inlineBytes += received.size
    channel.parts.set(number, { etag: received.md5, received })
    return received.md5
  }

  /**
   * Stores one chunk of a classic upload.
   *
   * @param start - Where to write it; undefined, or a place beyond the end, means to append.
   */
  async putChunk(channel: Channel, start: number | undefined, body: AsyncIterable<Uint8Array>): Promise<Received> {
    const received = await this.#blobs.receive(channel.id, body, this.#inlineRoom(channel))
    if (this.#channels.get(channel.id) !== channel || channel.status === 'finishing') {
      this.#blobs.discard([received.segment])
      throw notFound()
    }
    if (received.segment.data !== undefined) channel.inlineBytes += received.size
    if (received.size === 0) {
      this.#blobs.discard([received.segment])
      return received
    }
    channel.synced.push(received.synced)
    const at = start === undefined || start > channel.length ? channel.length : start
    const before = channel.segments
    channel.segments = [...slice(before, 0, at), received.segment, ...slice(before, at + received.size, channel.length)]
    const live = new Set(channel.segments.map((segment) => segment.file))
    this.#blobs.discard(before.filter((segment) => !live.has(segment.file)))
    channel.hash = before.length === 0 ? received.md5 : undefined
    channel.length = Math.max(channel.length, at + received.size)
    return received
  }

  /** Content of a direct upload from the list of parts the client names; checks ETags and sizes. */
  partsContent(channel: Channel, list: readonly { number: number; etag: string }[]): FinishedContent {
    const segments: Segment[] = []
    const synced: Promise<void>[] = []
    let size = 0
    let last = 0
    for (const [index, { number, etag }] of list.entries()) {
      const part = channel.parts.get(number)
      if (part === undefined || part.etag !== etag.replaceAll('"', '').toLowerCase())
        throw badRequest(-80045, 'Invalid ETag')
      if (number <= last) throw badRequest(-80045, 'Parts must be in ascending order')
      if (index < list.length - 1 && part.received.size < MIN_PART) throw badRequest(-80046, 'Part is too small')
      last = number
      size += part.received.size
      synced.push(part.received.synced)
      if (part.received.size > 0) segments.push(part.received.segment)
    }
    const only = list.length === 1 ? channel.parts.get(list[0]?.number ?? 0) : undefined
    return { segments, size, synced, hash: only?.etag }
  }

  chunksContent(channel: Channel): FinishedContent {
    return { segments: channel.segments, size: channel.length, synced: channel.synced, hash: channel.hash }
  }

  /**
   * Turns a channel into a node. Resolves once the node is durable. When it is refused, the channel stays open, so that
   * the client can finish it differently.
   */
  async finish(channel: Channel, content: FinishedContent, request: FinishRequest): Promise<number> {
    channel.status = 'finishing'
    try {
      await Promise.all(content.synced)
      if (content.segments.some((segment) => segment.file !== undefined)) await this.#blobs.syncNames()
      const nodeId = await this.#store.write((tx) => {
        const now = this.#now()
        const change: Change = { store: this.#store, blobs: this.#blobs, tx, userId: channel.userId, now }
        return commitUpload(change, channel, content, request)
      })
      this.#dropUnused(channel, content.segments)
      this.#channels.delete(channel.id)
      return nodeId
    } catch (error) {
      channel.status = 'transfer'
      throw error
    }
  }

  /** Bytes that were received but are not part of the finished content. */
  #dropUnused(channel: Channel, used: readonly Segment[]): void {
    const live = new Set(used.map((segment) => segment.file))
    for (const part of channel.parts.values()) {
      if (!live.has(part.received.segment.file)) this.#blobs.discard([part.received.segment])
    }
    this.#blobs.discard(channel.segments.filter((segment) => !live.has(segment.file)))
  }

  /** Drops channels that nobody has used for a day, and forgets old outcomes. */
  async sweep(): Promise<void> {
    const now = this.#now()
    for (const channel of this.#channels.values()) {
      if (channel.status !== 'finishing' && channel.lastUsed + IDLE_MS < now) this.cancel(channel)
    }
    const old = [...this.#store.finished.getRange({})].filter(({ value }) => value.finishedAt + OUTCOME_MS < now)
    if (old.length === 0) return
    await this.#store.write((tx) => {
      for (const { key } of old) tx.remove(this.#store.finished, key)
    })
  }
}

export interface FinishedContent {
  segments: Segment[]
  size: number
  synced: Promise<void>[]
  hash: string | undefined
}

/** The parts of `segments` between two offsets. */
function slice(segments: readonly Segment[], start: number, end: number): Segment[] {
  const result: Segment[] = []
  let at = 0
  for (const segment of segments) {
    const from = Math.max(start - at, 0)
    const to = Math.min(end - at, segment.size)
    if (from < to) result.push({ ...segment, offset: segment.offset + from, size: to - from })
    at += segment.size
  }
  return result
}

function commitUpload(change: Change, channel: Channel, content: FinishedContent, request: FinishRequest): number {
  const { store, tx, userId, now } = change
  const access = new Access(store, userId)
  const parent = access.find(channel.parentId)
  if (parent === undefined || parent.type === FILE) throw new ApiError(404, -40000, 'Container not found')
  access.require(parent, CREATE)
  if (parent.encrypted) checkKeys(store, userId, content.size, request)
  checkQuota(store, parent, content.size)
  const name = settleName(change, parent.id, request.name ?? channel.name, FILE, request.strategy, (existing) => {
    if ((access.bits(existing.roomId) & DELETE) === 0) throw forbidden()
  })
  const node = createNode(change, {
    ...channel.attributes,
    type: FILE,
    name,
    parentId: parent.id,
    encrypted: parent.encrypted,
    size: content.size,
    contentId: channel.id,
    ...(content.hash === undefined ? {} : { hash: content.hash }),
  })
  tx.put(store.contents, channel.id, { segments: content.segments, size: content.size, refs: 1 })
  if (parent.encrypted && request.fileKey !== undefined) {
    putFileKey(change, node.id, userId, request.fileKey)
    for (const entry of request.userKeys) {
      if (entry.userId !== userId && store.users.doesExist(entry.userId)) {
        putFileKey(change, node.id, entry.userId, entry.fileKey)
      }
    }
  }
  tx.put(store.finished, channel.id, { userId, nodeId: node.id, finishedAt: now })
  return node.id
}

function checkKeys(store: Store, userId: number, size: number, request: FinishRequest): void {
  if (request.fileKey === undefined) throw badRequest(-40763, 'File key must be set')
  if (size > MAX_ENCRYPTED_SIZE) throw badRequest(-80037, 'File is too long for encryption')
  if (!store.keyPairs.doesExist([userId, keyVersionOf(request.fileKey.version)])) {
    throw badRequest(-80062, 'File key fits no key pair of the user')
  }
}

/** Answers 507 when `size` more bytes would exceed the quota of a room on the way up. */
export function checkQuota(store: Store, container: NodeRecord, size: number): void {
  for (let id = container.id; id !== 0; ) {
    const node = store.nodes.get(id)
    if (node === undefined) return
    if (node.type === ROOM && node.quota !== undefined && node.size + size > node.quota) {
      throw new ApiError(507, -40200, 'Exceeds the quota of the room')
    }
    id = node.parentId
  }
}

/** Stores a wrapped file key for a recipient, unless there is one already. */
export function putFileKey(change: Change, fileId: number, userId: number, fileKey: FileKeyRecord): void {
  const { store, tx } = change
  const version = keyVersionOf(fileKey.version)
  if (store.fileKeys.doesExist([fileId, userId, version])) return
  tx.put(store.fileKeys, [fileId, userId, version], fileKey)
  tx.put(store.userFileKeys, [userId, version, fileId], 1)
}
